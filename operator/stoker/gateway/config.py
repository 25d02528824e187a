"""What the operator wrote for a gateway, made fast to look up: models by every name, keys by hash.

A Stoker of another version may have written it: unknown fields are ignored, an entry that makes no sense is left out (a key that
cannot be read opens nothing), and only a document that is none at all is refused.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stoker.gateway.bounds import NO_BOUNDS, Bounds, Scope, first_given, parse_bounds, positive
from stoker.gateway.endpoints import ENDPOINTS, PATHS_BY_TASK
from stoker.gateway.issuers import (
    Introspection,
    Issuer,
    UserTokens,
    parse_introspection,
    parse_issuer,
    parse_user_tokens,
)
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.routing import ROUTE_PREFIX, Known, Route
from stoker.gateway.routing import parse_routes_of as parse_named_routes
from stoker.patterns import compile_patterns

if TYPE_CHECKING:
    from stoker.gateway.tokens import Verifier

logger = logging.getLogger(__name__)

ROUTES_FIELD = "routes.json"
KEYS_FIELD = "keys.json"
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
HEADER_SAFE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""Besides letters and digits: what needs no %XX in a header."""


class ConfigRejected(ValueError):
    """The document is not what the operator writes; the previous one stays in force."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What happens to requests for a model that has no ready replica."""

    reject: bool
    """They are refused at once; they wake the model all the same."""
    wait_seconds: float
    most_held: int
    heartbeat_seconds: float
    cold_start_seconds: float | None
    """How long the model takes to start, as far as it is known."""


@dataclass(frozen=True, slots=True)
class Model:
    """A published model."""

    name: str
    """The name it is served under."""
    aliases: tuple[str, ...]
    namespace: str
    deployment: str
    service: str
    """Service whose EndpointSlices are its replicas."""
    task: str
    paths: frozenset[str]
    """What it serves, of the paths that can be let through at all."""
    stopped: bool
    created: int
    """Unix time, for the list of models."""
    cluster: str
    """Envoy's name for its replicas."""
    slots: int = 0
    """Requests that one replica works on at a time; 0 where that is not known."""
    hold: Hold | None = None
    """None: without a ready replica they are refused."""
    sleeping: bool = False
    """It has no replicas until somebody asks for it."""
    route: Route | None = None
    """Of a name that stands for several deployments."""
    engine_key: str = ""
    """What its engine asks for; empty where it asks for nothing."""
    additions: Mapping[str, str] = field(default_factory=dict)
    """What is put at the end of a request's body, as JSON without braces, by the name that it asks for."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names clients may ask for."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is let in, known by its hash only."""

    name: str
    """Name of the ApiKey: in log lines, never secret."""
    digest: bytes
    expires_at: float | None
    allowed: re.Pattern[str]
    """Matches the served names it may use."""
    role: str = ""
    """Name of its role; a role that is not there opens nothing."""
    role_allowed: re.Pattern[str] | None = None
    """Matches what the role may use; None where there is no role."""
    caller: str = ""
    """Whose calls are counted together; empty for keys, which are known by their names."""
    user: str = ""
    """The person: the owner of the ApiKey, or whom a token speaks for."""
    by_token: bool = False
    """No ApiKey, but somebody with a token of an issuer."""
    user_tokens: UserTokens | None = None
    """What makes a token that says for whom a call with this key is."""
    bounds: Bounds = NO_BOUNDS
    """How much it may ask for; in a table with what its role and the gateway say where it says nothing."""


@dataclass(frozen=True, slots=True)
class Role:
    """What several keys have in common."""

    name: str
    allowed: re.Pattern[str]
    bounds: Bounds = NO_BOUNDS
    users: frozenset[str] = frozenset()
    """Users of issuers who have it."""
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelBounds:
    """What each caller may ask of some models."""

    models: re.Pattern[str]
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Site:
    """Web pages behind the same address; they are asked without a key, and see to their visitors themselves."""

    service: str
    """Name of the Service, in the gateway's own namespace."""
    paths: tuple[str, ...]
    prefix: str


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes Secret."""

    models: tuple[Model, ...]
    key_secrets: tuple[str, ...]
    max_request_bytes: int
    token: str
    """Bearer token of the operator's own calls."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may call."""
    roles: tuple[Role, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    """Whose tokens are let in, too."""
    bounds: Bounds = NO_BOUNDS
    """Of each caller who has none of his own."""
    user_bounds: Bounds = NO_BOUNDS
    """Of each user, with all his keys together."""
    model_bounds: tuple[ModelBounds, ...] = ()
    replicas: int = 1
    """Replicas among which every limit is divided."""
    usage_url: str = ""
    """Where usage is kept; empty where it is not."""
    introspection: Introspection | None = None
    """Whom to ask about tokens that say nothing by themselves."""
    routes: tuple[Route, ...] = ()
    """Names that stand for several deployments."""
    redis_url: str = ""
    """Where replicas count together; empty where each counts for itself."""
    certificate_secret: str = ""
    """Secret with the certificate to serve HTTPS with; empty for HTTP."""
    sites: tuple[Site, ...] = ()
    """Web pages behind the same address."""


@dataclass(frozen=True)
class Table:
    """Everything a decision needs. Never changed: a new configuration is a new table, caches included."""

    by_name: dict[str, Model]
    keys: dict[bytes, Key]
    """By SHA-256 of the key. A dictionary is safe here although it does not compare in constant time: what its timing could
    tell is about the hash of the caller's own guess, and from a hash nobody finds a key."""
    keys_by_name: dict[str, tuple[Key, ...]]
    models: tuple[Model, ...]
    max_request_bytes: int
    token: str
    roles: dict[str, Role] = field(default_factory=dict)
    verifier: Verifier | None = None
    """Of tokens; None where no issuer is trusted."""
    bounds: Bounds = NO_BOUNDS
    user_bounds: Bounds = NO_BOUNDS
    model_bounds: tuple[ModelBounds, ...] = ()
    replicas: int = 1
    usage_url: str = ""
    redis_url: str = ""
    introspection: Introspection | None = None
    strangers: dict[bytes, tuple[float, ApiProblem]] = field(default_factory=dict)
    """Tokens that are nobody's, by their SHA-256: until when that is believed, and what to say."""
    identities: dict[bytes, Key] = field(default_factory=dict)
    """Tokens that were found good, by their SHA-256."""
    cache: dict[tuple[bytes, str, str], Any] = field(default_factory=dict)
    """Decisions already made (see decide)."""

    def may_use(self, key: Key, model: Model, name: str) -> bool:
        """Whether the key's patterns cover the model's served name or the alias that was asked for."""
        patterns = (key.allowed,) if key.role_allowed is None else (key.allowed, key.role_allowed)
        return all(pattern.fullmatch(model.name) or pattern.fullmatch(name) for pattern in patterns)

    def scopes(self, key: Key, model: Model) -> tuple[Scope, ...]:
        """What a request of the key's for the model counts in; none where nothing is limited."""
        caller = key.caller or key.name
        found = [Scope(f"caller {caller}", "you", key.bounds)]
        if key.user:
            found.append(Scope(f"user {key.user}", f"all keys of {key.user} together", self.user_bounds))
        for entry in self.model_bounds:
            if entry.models.fullmatch(model.name):
                found.append(Scope(f"model {model.cluster} {caller}", f"of {model.name} you", entry.bounds))
                break
        return tuple(scope for scope in found if scope.bounds != NO_BOUNDS)

    def role_of(self, user: str, groups: frozenset[str]) -> str:
        """The first role that names a user, or a group of his; empty where none does."""
        return next((role.name for role in self.roles.values() if user in role.users or role.groups & groups), "")

    def is_ours(self, authorization: str) -> bool:
        """Whether a call comes from the operator or the usage process, who have the token of the configuration."""
        return bool(self.token) and hmac.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())

    def visible(self, key: Key) -> list[tuple[str, Model]]:
        """Names the key may use, in alphabetical order."""
        return sorted(
            ((name, model) for name, model in self.by_name.items() if self.may_use(key, model, name)),
            key=lambda pair: pair[0],
        )


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
        certificate_secret=_parse_certificate_secret(document),
        sites=tuple(site for entry in _list(document, "sites") if (site := _parse_site(entry)) is not None),
    )


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
        # A form's model cannot be changed on the way.
        paths = frozenset(path for path in model.paths if not ENDPOINTS[path].multipart)
        return Known(model.cluster, paths, model.engine_key)

    found: list[Route] = []
    for entry in entries:
        try:
            _check(MODEL_NAME, entry["name"])
            found += parse_named_routes([entry], known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("%s: a route is left out: %s: %s", ROUTES_FIELD, type(error).__name__, error)
    return tuple(found)


def _as_model(route: Route, models: tuple[Model, ...]) -> Model:
    """What callers see of a route."""
    first = next((model for model in models if model.cluster == route.backends[0].cluster), None)
    return Model(
        name=route.name,
        aliases=(),
        namespace="",
        deployment="",
        service="",
        task=first.task if first else "Chat",
        paths=route.paths,
        stopped=False,
        created=first.created if first else 0,
        cluster=f"{ROUTE_PREFIX}{route.name}",
        route=route,
    )


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


def build_table(routes: Routes, keys: Iterable[Key], key_sets: Mapping[str, object] | None = None) -> Table:
    """Put it together. Served names win over aliases, earlier entries over later ones: the operator has settled collisions."""
    by_name: dict[str, Model] = {}
    for model in routes.models:
        by_name.setdefault(model.name, model)
    for model in routes.models:
        for alias in model.aliases:
            by_name.setdefault(alias, model)
    # A route may bear the name of one of its models, to give it others to fall back on.
    by_name |= {route.name: _as_model(route, routes.models) for route in routes.routes}
    by_digest: dict[bytes, Key] = {}
    by_key_name: dict[str, tuple[Key, ...]] = {}
    roles = {role.name: role for role in routes.roles}
    for unresolved in keys:
        key = with_role(unresolved, roles, routes)
        if key is not None and by_digest.setdefault(key.digest, key) is key:
            by_key_name[key.name] = (*by_key_name.get(key.name, ()), key)
    return Table(
        by_name=by_name,
        keys=by_digest,
        keys_by_name=by_key_name,
        models=routes.models,
        max_request_bytes=routes.max_request_bytes,
        token=routes.token,
        roles=roles,
        introspection=routes.introspection,
        verifier=_build_verifier(routes.issuers, key_sets or {}),
        bounds=routes.bounds,
        user_bounds=routes.user_bounds,
        model_bounds=routes.model_bounds,
        replicas=routes.replicas,
        usage_url=routes.usage_url,
        redis_url=routes.redis_url,
    )


def _build_verifier(issuers: tuple[Issuer, ...], key_sets: Mapping[str, object]) -> Verifier | None:
    if not issuers:
        return None
    # Not above: cryptography takes time and memory of every gateway, and few need it.
    from stoker.gateway.tokens import Verifier

    return Verifier(issuers, key_sets)


def with_role(key: Key, roles: Mapping[str, Role], gateway: Routes | Table) -> Key | None:
    """The key with its role's patterns, and its bounds: its own, else its role's, else the gateway's."""
    role = roles.get(key.role)
    if key.role and role is None:
        logger.warning("key %s is not let in: there is no role %s", key.name, key.role)
        return None
    bounds = first_given(key.bounds, role.bounds if role else NO_BOUNDS, gateway.bounds)
    return replace(key, role_allowed=role.allowed if role else None, bounds=bounds)


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
            user=quote(str(entry.get("owner") or ""), safe=HEADER_SAFE),
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
        return Role(name, patterns, parse_bounds(entry), users, groups)
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
