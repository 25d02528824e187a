"""What tables show: rows of text from objects, without a cluster and without a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from stoker.api import ApiGateway, ApiKey, InferenceEngine, ModelDeployment
from stoker.api.base import Conditions

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Columns with their titles."""

    titles: Row
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Advice:
    """What an object says is the matter with it."""

    name: str
    message: str


def gateway_table(gateways: Iterable[ApiGateway]) -> Table:
    """Where the endpoints are, and what they serve."""
    rows = (
        (
            gateway.metadata.namespace,
            gateway.metadata.name,
            _state(gateway.status.conditions),
            f"{gateway.status.ready_replicas}/{gateway.spec.replicas}",
            f"{gateway.status.models.ready} of {gateway.status.models.total}"
            + (f", {gateway.status.models.sleeping} asleep" if gateway.status.models.sleeping else ""),
            str(gateway.status.keys),
            gateway.status.url or "-",
            gateway.status.web_ui_url or "-",
        )
        for gateway in gateways
    )
    return Table(("NAMESPACE", "GATEWAY", "STATE", "PODS", "MODELS READY", "KEYS", "URL", "WEB CHAT"), tuple(rows))


def model_table(models: Iterable[ModelDeployment]) -> Table:
    """What is served, by what, and what goes on with it now."""
    rows = (
        (
            model.metadata.namespace,
            model.metadata.name,
            model.status.engine or (model.spec.engine_ref.name if model.spec.engine_ref else "-"),
            _state(model.status.conditions),
            f"{model.status.ready_replicas}/{model.status.desired_replicas}",
            str(model.status.fit.context_length) if model.status.fit and model.status.fit.context_length else "-",
            _now(model),
        )
        for model in models
    )
    return Table(("NAMESPACE", "MODEL", "ENGINE", "STATE", "READY", "CONTEXT", "NOW"), tuple(rows))


def engine_table(engines: Iterable[InferenceEngine]) -> Table:
    """What models can run on."""
    rows = (
        (
            engine.metadata.namespace,
            engine.metadata.name,
            engine.spec.type,
            _state(engine.status.conditions),
            str(engine.status.models),
        )
        for engine in engines
    )
    return Table(("NAMESPACE", "ENGINE", "TYPE", "STATE", "MODELS"), tuple(rows))


def key_table(keys: Iterable[ApiKey], now: datetime) -> Table:
    """Whose they are, how long they last, and what they have used."""
    rows = (
        (
            key.metadata.namespace,
            key.metadata.name,
            key.spec.gateway_ref.name,
            key.spec.owner or "-",
            key.spec.role or "-",
            ",".join(key.spec.models),
            _state(key.status.conditions),
            _until(key.spec.expires_at, now),
            _ago(key.status.last_used_time, now),
            str(key.status.usage.requests) if key.status.usage else "-",
            str(key.status.usage.prompt_tokens + key.status.usage.completion_tokens) if key.status.usage else "-",
        )
        for key in keys
    )
    titles = ("NAMESPACE", "KEY", "GATEWAY", "OWNER", "ROLE", "MODELS", "STATE", "EXPIRES", "LAST USED", "REQUESTS")
    return Table((*titles, "TOKENS"), tuple(rows))


def advice(objects: Iterable[ApiGateway | ApiKey | InferenceEngine | ModelDeployment]) -> tuple[Advice, ...]:
    """What everything that is not as it should be says, each cause once."""
    found: dict[str, Advice] = {}
    for thing in objects:
        kind, metadata = thing.info.kind.lower(), thing.metadata
        for condition in thing.status.conditions:
            # Reconciling and Stalled repeat what Ready says while it is False; alone they say what is the matter all the same.
            wrong = condition.status == ("True" if condition.type in ("Reconciling", "Stalled") else "False")
            if wrong and condition.message:
                text = f"{metadata.namespace}/{kind}/{metadata.name}"
                found.setdefault(f"{text} {condition.message}", Advice(text, condition.message))
    return tuple(found.values())


def without_namespace(table: Table) -> Table:
    """The same for one namespace."""
    return Table(table.titles[1:], tuple(row[1:] for row in table.rows))


def _state(conditions: Conditions) -> str:
    ready = next((condition for condition in conditions if condition.type == "Ready"), None)
    return ready.reason if ready else "Unseen"


def _now(model: ModelDeployment) -> str:
    download, scaling = model.status.download, model.status.autoscaling
    if download is not None:
        done, total = download.completed_bytes / 1e9, download.total_bytes
        return f"downloading {done:.1f}" + (f" of {total / 1e9:.1f} GB" if total else " GB")
    return scaling.message if scaling is not None and scaling.message else "-"


def _until(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    return "expired" if moment <= now else f"in {_span(moment - now)}"


def _ago(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else f"{_span(max(now - moment, timedelta()))} ago"


def _span(time: timedelta) -> str:
    """As kubectl writes ages: the greatest unit of which there are two or more."""
    seconds = int(time.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
