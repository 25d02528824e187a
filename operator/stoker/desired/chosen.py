"""Values chosen once for a ModelDeployment, kept in an annotation, so that an operator upgrade restarts no engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stoker.api.base import ApiModel
from stoker.api.inference_engine import InferenceEngine
from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import REFRESH_ANNOTATION, RESOLVED_ANNOTATION, short_digest
from stoker.api.resolved import ChosenValues, OperatorSettings, ParsedSource
from stoker.desired.objects import compact_json
from stoker.engines import ENGINES
from stoker.errors import Stalled

_CHANGES_NO_POD = {"replicas", "gateways", "autoscaling", "cold_start", "suspend"}

DEFAULT_STARTUP_DEADLINE_SECONDS = 600
FETCHING_STARTUP_DEADLINE_SECONDS = 3600
"""For engines that fetch their weights themselves, after their start."""


def read_chosen(child_deployment: Mapping[str, Any] | None) -> ChosenValues | None:
    """What was chosen before; None when nothing was, or when it cannot be understood any more."""
    metadata = (child_deployment or {}).get("metadata") or {}
    text = (metadata.get("annotations") or {}).get(RESOLVED_ANNOTATION)
    if not isinstance(text, str):
        return None
    try:
        return ChosenValues.model_validate_json(text)
    except ValidationError:
        # An annotation edited by hand: choosing anew is the only way on.
        return None


def write_chosen(chosen: ChosenValues) -> str:
    """The annotation's value."""
    return compact_json(chosen.model_dump(mode="json", by_alias=True, exclude_none=True))


def choose(
    deployment: ModelDeployment,
    engine: InferenceEngine,
    source: ParsedSource,
    settings: OperatorSettings,
    previous: ChosenValues | None,
    *,
    engine_reason: str | None = None,
) -> ChosenValues:
    """Keep what was chosen until somebody changes what the pods depend on, or asks by annotation."""
    fresh = _choose_anew(deployment, engine, source, settings)
    if deployment.spec.engine_ref is None:
        fresh = fresh.model_copy(update={"engine_name": engine.metadata.name, "engine_reason": engine_reason})
    if previous is not None and _cause(previous) == _cause(fresh):
        return previous
    return fresh


def still_holds(
    previous: ChosenValues,
    deployment: ModelDeployment,
    engine: InferenceEngine,
    source: ParsedSource,
    settings: OperatorSettings,
) -> bool:
    """Whether nothing has been changed that a choice depends on."""
    return _cause(previous) == _cause(_choose_anew(deployment, engine, source, settings))


def describe_update(
    chosen: ChosenValues,
    deployment: ModelDeployment,
    engine: InferenceEngine,
    source: ParsedSource,
    settings: OperatorSettings,
) -> str | None:
    """What a new choice would change, for ``status.updateAvailable``."""
    context_length, deadline = deployment.spec.context_length, _startup_deadline(engine, source)
    if context_length is None:
        # Chosen to fit the memory, which is asked anew only when something changes.
        context_length = chosen.context_length
    if engine.spec.startup_deadline_seconds is None:
        # Chosen by the model's size.
        deadline = max(chosen.startup_deadline_seconds, deadline)
    changes = [
        f"{what}: {old} → {new}"
        for what, old, new in (
            ("engine image", chosen.engine_image, engine_image(engine)),
            ("agent and downloader image", chosen.stoker_image, settings.stoker_image),
            ("startup deadline", chosen.startup_deadline_seconds, deadline),
            ("context length", chosen.context_length, context_length),
        )
        if old != new
    ]
    return "; ".join(changes) or None


def _choose_anew(
    deployment: ModelDeployment, engine: InferenceEngine, source: ParsedSource, settings: OperatorSettings
) -> ChosenValues:
    return ChosenValues(
        model=_digest(deployment.spec, exclude=_CHANGES_NO_POD),
        engine=_digest(engine.spec, engine.metadata.uid),
        refresh=deployment.metadata.annotations.get(REFRESH_ANNOTATION, ""),
        engine_image=engine_image(engine),
        stoker_image=settings.stoker_image,
        startup_deadline_seconds=_startup_deadline(engine, source),
        context_length=deployment.spec.context_length,
    )


def _startup_deadline(engine: InferenceEngine, source: ParsedSource) -> int:
    deadline = FETCHING_STARTUP_DEADLINE_SECONDS if source.fetched_by_engine else DEFAULT_STARTUP_DEADLINE_SECONDS
    return engine.spec.startup_deadline_seconds or deadline


def engine_image(engine: InferenceEngine) -> str:
    """The image that new models on this engine get."""
    row = ENGINES[engine.spec.type]
    image = engine.spec.image or row.image(engine.spec.accelerator.vendor)
    if image is None:
        raise Stalled(
            "ImageNotAvailable",
            f"The makers of {row.title} publish no image for accelerator.vendor {engine.spec.accelerator.vendor}: "
            f"set spec.image of InferenceEngine {engine.metadata.name}",
        )
    return image


def _cause(chosen: ChosenValues) -> tuple[str, str, str]:
    return chosen.model, chosen.engine, chosen.refresh


def _digest(spec: ApiModel, *others: str, exclude: set[str] | None = None) -> str:
    """Not the generation, which scaling moves, too; and without defaults, which a newer CRD adds to old objects."""
    return short_digest(compact_json([spec.model_dump(mode="json", exclude_defaults=True, exclude=exclude), *others]))
