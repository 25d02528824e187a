"""Reads what the operator wrote for a gateway.

A Stoker of another version may have written it: unknown fields are ignored, an entry that makes no sense is left out (a key that
cannot be read opens nothing), and only a document that is none at all is refused.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from typing import Any

from stoker.api.names import KEYS_FIELD, ROUTES_FIELD
from stoker.claims import in_header, known_as
from stoker.gateway.bounds import parse_bounds, positive
from stoker.gateway.endpoints import ENDPOINTS, PATHS_BY_TASK
from stoker.gateway.issuers import (
    Introspection,
    Issuer,
    parse_introspection,
    parse_issuer,
    parse_user_tokens,
)
from stoker.gateway.routing import Known, Route
from stoker.gateway.routing import parse_routes_of as parse_named_routes
from stoker.gateway.table import Hold, Key, Model, ModelBounds, Role, Routes, Site
from stoker.patterns import compile_patterns

logger = logging.getLogger(__name__)

DEFAULT_MAX_REQUEST_BYTES = 32 << 20
LONGEST_HOLD_SECONDS = 3600.0
"""What coldStart.maxWaitSeconds may be at most; Envoy's time limits are longer."""

# Names become header values and parts of file names, so whatever could end a header line or leave a folder is refused here.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.:\[\]-]{1,253}")
# Never the API's: what matches these is asked without a key.
SITE_PATH = re.compile(r"/(?!v1|api|tokenize|detokenize)[a-z0-9-]*")
SITE_PREFIX = re.compile(r"/(?!v1/|api/)[a-z0-9-]+/")
ENGINE_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
ADAPTER = '"id":'
SHA256 = re.compile(r"[0-9a-f]{64}")


class ConfigRejected(ValueError):
    """The document is not what the operator writes; the previous one stays in force."""


def parse_routes(text: bytes | str) -> Routes:
    """Read the routes document."""
    document = _object(text, ROUTES_FIELD)
    models = tuple(model for entry in _list(document, "models") if (model := _parse_model(entry)) is not None)
    names = tuple(
        name for name in _list(document, "keySecrets") if isinstance(name, str) and OBJECT_NAME.fullmatch(name)
    )
    limit = document.get("maxRequestBytes", DEFAULT_MAX_REQUEST_BYTES)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigRejected(f"{ROUTES_FIELD}: maxRequestBytes is {limit!r}, not a positive number")
    origins = tuple(
        origin for origin in _list(document, "corsOrigins") if isinstance(origin, str) and ORIGIN.fullmatch(origin)
    )
    roles = tuple(role for entry in _list(document, "roles") if (role := _parse_role(entry)) is not None)
    try:
        bounds = parse_bounds(document)
        user_bounds = parse_bounds(document.get("perUser") or {})
        model_bounds = tuple(
            ModelBounds(compile_patterns(_list(entry, "models")), parse_bounds(entry))
            for entry in _list(document, "modelLimits")
        )
        replicas = positive(document, "replicas", 1)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigRejected(f"{ROUTES_FIELD}: {error}") from error
    return Routes(
        models=models,
        key_secrets=names,
        max_request_bytes=limit,
        token=str(document.get("token") or ""),
        origins=origins,
        roles=roles,
        issuers=tuple(issuer for entry in _list(document, "jwt") if (issuer := _parse_issuer(entry)) is not None),
        bounds=bounds,
        user_bounds=user_bounds,
        model_bounds=model_bounds,
        replicas=replicas,
        usage_url=str(document.get("usageUrl") or ""),
        introspection=_parse_introspection(document),
        routes=_parse_named_routes(_list(document, "routes"), models),
        redis_url=str(document.get("redisUrl") or ""),
        authorities=str(document.get("authorities") or ""),
        certificate_secret=_parse_certificate_secret(document),
        inside=document.get("inside") is True,
        sites=tuple(site for entry in _list(document, "sites") if (site := _parse_site(entry)) is not None),
        role_map=_parse_role_map(document),
    )


def _parse_role_map(document: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Half a map would give somebody another role."""
    try:
        pairs = tuple((pair["value"], pair["role"]) for pair in _list(document, "roleMap"))
    except (KeyError, TypeError) as error:
        raise ConfigRejected(f"{ROUTES_FIELD}: roleMap: {type(error).__name__}: {error}") from error
    if not all(isinstance(text, str) and text for pair in pairs for text in pair):
        raise ConfigRejected(f"{ROUTES_FIELD}: roleMap is not made of texts")
    return pairs


def _parse_introspection(document: dict[str, Any]) -> Introspection | None:
    try:
        return parse_introspection(document.get("introspection"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("%s: introspection is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
        return None


def _parse_named_routes(entries: list[Any], models: tuple[Model, ...]) -> tuple[Route, ...]:
    by_name = {name: model for model in reversed(models) for name in model.names if not model.stopped}

    def known(name: str) -> Known | None:
        model = by_name.get(name)
        if model is None or ADAPTER in model.additions.get(name, ""):
            # What a request of an adapter's needs is not added on this way: better no backend than the plain model.
            return None
        return Known(model.cluster, model.paths, model.engine_key)

    found: list[Route] = []
    for entry in entries:
        try:
            _check(MODEL_NAME, entry["name"])
            found += parse_named_routes([entry], known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("%s: a route is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
    return tuple(found)


def _parse_certificate_secret(document: dict[str, Any]) -> str:
    """A name that cannot be read must not become HTTP without TLS."""
    name = document.get("tls")
    if name is None:
        return ""
    if not isinstance(name, str) or not OBJECT_NAME.fullmatch(name):
        raise ConfigRejected(f"{ROUTES_FIELD}: tls is {name!r}, not the name of a Secret")
    return name


def parse_keys(text: bytes | str) -> tuple[Key, ...]:
    """Read one keys document."""
    entries = _list(_object(text, KEYS_FIELD), "keys")
    return tuple(key for entry in entries if (key := _parse_key(entry)) is not None)


def parse_endpoints(text: bytes | str) -> dict[str, tuple[str, ...]]:
    """Read the ready replicas of each cluster (written by the gateway itself)."""
    document = _object(text, "endpoints.json")
    return {cluster: tuple(_list(document, cluster)) for cluster in document}


def parse_key_sets(text: bytes | str) -> dict[str, object]:
    """Read the issuers' key sets by address (written by the gateway itself)."""
    sets = _object(text, "key_sets.json").get("sets")
    return sets if isinstance(sets, dict) else {}


def _parse_model(entry: Any) -> Model | None:
    try:
        name, namespace, deployment = entry["name"], entry["namespace"], entry["deployment"]
        service = entry.get("service") or deployment
        aliases = tuple(alias for alias in entry.get("aliases") or () if MODEL_NAME.fullmatch(alias))
        _check(MODEL_NAME, name)
        for part in (namespace, deployment, service):
            _check(OBJECT_NAME, part)
        engine_key = entry.get("engineKey", "")
        if engine_key:
            _check(ENGINE_KEY, engine_key)
        return Model(
            name=name,
            aliases=aliases,
            namespace=namespace,
            deployment=deployment,
            service=service,
            task=(task := str(entry.get("task", "Chat"))),
            paths=_parse_paths(entry, task),
            stopped=bool(entry.get("stopped", False)),
            created=int(_timestamp(entry.get("createdAt")) or 0),
            cluster=f"{namespace}/{deployment}",
            slots=positive(entry, "slots", 0),
            hold=_parse_hold(entry.get("hold")),
            sleeping=bool(entry.get("sleeping", False)),
            engine_key=engine_key,
            additions=_parse_additions(entry.get("additions") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("%s: a model entry is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
        return None


def _parse_additions(entry: dict[str, Any]) -> dict[str, str]:
    """As ASCII: it travels in a header."""
    return {str(name): json.dumps(dict(more), separators=(",", ":"))[1:-1] for name, more in entry.items()}


def _parse_paths(entry: dict[str, Any], task: str) -> frozenset[str]:
    """Paths that this gateway knows, too; those of the task where the entry does not say."""
    given = entry.get("paths")
    if given is None:
        return PATHS_BY_TASK.get(task, frozenset())
    return frozenset(path for path in _list(entry, "paths") if isinstance(path, str) and path in ENDPOINTS)


def _parse_hold(entry: Any) -> Hold | None:
    if entry is None:
        return None
    mode = entry["mode"]
    if mode not in ("Hold", "Reject"):
        raise ValueError(f"hold.mode is {mode!r}")
    cold_start = entry.get("coldStartSeconds")
    return Hold(
        reject=mode == "Reject",
        wait_seconds=min(float(entry["maxWaitSeconds"]), LONGEST_HOLD_SECONDS),
        most_held=int(entry["maxHeldRequests"]),
        heartbeat_seconds=max(0.1, float(entry["heartbeatSeconds"])),
        cold_start_seconds=None if cold_start is None else float(cold_start),
    )


def _parse_key(entry: Any) -> Key | None:
    try:
        name, digest = entry["name"], entry["sha256"]
        _check(SHA256, digest)
        _check(OBJECT_NAME, name)
        patterns = compile_patterns(_list(entry, "models"))
        return Key(
            name,
            bytes.fromhex(digest),
            _timestamp(entry.get("expiresAt")),
            patterns,
            role=str(entry.get("role") or ""),
            user=in_header(known_as(str(entry.get("owner") or ""))),
            bounds=parse_bounds(entry),
            user_tokens=parse_user_tokens(entry.get("userTokens")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("%s: a key entry is left out: %s: %s", KEYS_FIELD, type(error).__name__, error)
        return None


def _parse_issuer(entry: Any) -> Issuer | None:
    try:
        return parse_issuer(entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("%s: an issuer is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
        return None


def _parse_role(entry: Any) -> Role | None:
    try:
        name = entry["name"]
        _check(OBJECT_NAME, name)
        patterns = compile_patterns(_list(entry, "models"))
        users, groups = (
            frozenset(text for text in _list(entry, field) if isinstance(text, str)) for field in ("users", "groups")
        )
        return Role(name, patterns, parse_bounds(entry), frozenset(map(known_as, users)), groups)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("%s: a role is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
        return None


def _parse_site(entry: Any) -> Site | None:
    try:
        _check(OBJECT_NAME, entry["service"])
        _check(SITE_PREFIX, entry["prefix"])
        paths = tuple(_list(entry, "paths"))
        for path in paths:
            _check(SITE_PATH, path)
        return Site(entry["service"], paths, entry["prefix"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.warning("%s: a site is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
        return None


def _check(pattern: re.Pattern[str], value: str) -> None:
    if not pattern.fullmatch(value):
        raise ValueError(value)


def _timestamp(value: Any) -> float | None:
    """Unix time from a number or from Kubernetes' own form."""
    if value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return moment.timestamp()


def _object(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigRejected(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigRejected(f"{what} is not an object")
    return document


def _list(document: dict[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigRejected(f"{name} is not a list")
    return value
