"""What a decision looks up: models by every name, keys by hash, roles. Never changed; a new configuration is a new table."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stoker.gateway.bounds import NO_BOUNDS, Bounds, Scope, first_given
from stoker.gateway.issuers import Introspection, Issuer, UserTokens
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.routing import ROUTE_PREFIX, Route
from stoker.portal_token import portal_token

if TYPE_CHECKING:
    from stoker.gateway.tokens import Verifier

logger = logging.getLogger(__name__)


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
    own_bounds: Bounds = NO_BOUNDS
    """What the ApiKey itself says of that."""
    service: Key | None = None
    """Of a person for whom a service calls: the service's key, without which he may nothing."""


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
    authorities: str = ""
    """Certificates, as PEM, that are trusted beside the public authorities."""
    certificate_secret: str = ""
    """Secret with the certificate to serve HTTPS with; empty for HTTP."""
    inside: bool = False
    """Whether the web chat is served without TLS beside it."""
    sites: tuple[Site, ...] = ()
    """Web pages behind the same address."""
    role_map: tuple[tuple[str, str], ...] = ()
    """Roles of people for whom a service calls, by their groups; the first that fits counts."""


@dataclass(frozen=True)
class Table:
    """Everything a decision needs. Never changed: a new configuration is a new table, caches included."""

    routes: Routes
    """What it is made from, the keys aside."""
    by_name: dict[str, Model]
    """By every name that may be asked for: served names, aliases, routes."""
    keys: dict[bytes, Key]
    """By SHA-256 of the key. A dictionary is safe here although it does not compare in constant time: what its timing could
    tell is about the hash of the caller's own guess, and from a hash nobody finds a key."""
    keys_by_name: dict[str, tuple[Key, ...]]
    roles: dict[str, Role]
    verifier: Verifier | None
    """Of tokens; None where no issuer is trusted."""
    strangers: dict[bytes, tuple[float, ApiProblem]] = field(default_factory=dict)
    """Tokens that are nobody's, by their SHA-256: until when that is believed, and what to say."""
    identities: dict[bytes, Key] = field(default_factory=dict)
    """Tokens that were found good, by their SHA-256."""
    cache: dict[tuple[bytes, str, str], Any] = field(default_factory=dict)
    """Decisions already made (see decide)."""

    def may_use(self, key: Key, model: Model, name: str) -> bool:
        """Whether the key's patterns cover the model's served name or the alias that was asked for."""
        if key.service is not None and not self.may_use(key.service, model, name):
            return False
        patterns = (key.allowed,) if key.role_allowed is None else (key.allowed, key.role_allowed)
        return all(pattern.fullmatch(model.name) or pattern.fullmatch(name) for pattern in patterns)

    def scopes(self, key: Key, model: Model) -> tuple[Scope, ...]:
        """What a request of the key's for the model counts in; none where nothing is limited."""
        caller = key.caller or key.name
        found = [Scope(f"caller {caller}", "you", key.bounds)]
        if key.user:
            found.append(Scope(f"user {key.user}", f"all keys of {key.user} together", self.routes.user_bounds))
        for entry in self.routes.model_bounds:
            if entry.models.fullmatch(model.name):
                found.append(Scope(f"model {model.cluster} {caller}", f"of {model.name} you", entry.bounds))
                break
        return tuple(scope for scope in found if scope.bounds != NO_BOUNDS)

    def role_of(self, names: Iterable[str], groups: frozenset[str]) -> str:
        """The first role that names a user by one of his names, or a group of his; empty where none does."""
        return next(
            (role.name for role in self.roles.values() if not role.users.isdisjoint(names) or role.groups & groups), ""
        )

    def role_of_person(self, user: str, groups: frozenset[str]) -> str:
        """Of somebody for whom a service calls, as it would be by his token of the identity provider; empty where nothing names him."""
        return next((role for value, role in self.routes.role_map if value in groups), "") or self.role_of(
            (user,), groups
        )

    def is_ours(self, authorization: str) -> bool:
        """Whether a call comes from the operator or the usage process, who have the token of the configuration."""
        token = self.routes.token
        return bool(token) and hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())

    def is_portal(self, authorization: str) -> bool:
        """Whether a call comes from the portal, which may read the load."""
        wanted = portal_token(self.routes.token)
        return bool(wanted) and hmac.compare_digest(authorization.encode(), f"Bearer {wanted}".encode())

    def visible(self, key: Key) -> list[tuple[str, Model]]:
        """Names the key may use, in alphabetical order."""
        return sorted(
            ((name, model) for name, model in self.by_name.items() if self.may_use(key, model, name)),
            key=lambda pair: pair[0],
        )


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
        routes=routes,
        by_name=by_name,
        keys=by_digest,
        keys_by_name=by_key_name,
        roles=roles,
        verifier=_build_verifier(routes.issuers, key_sets or {}),
    )


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


def _build_verifier(issuers: tuple[Issuer, ...], key_sets: Mapping[str, object]) -> Verifier | None:
    if not issuers:
        return None
    # Not above: cryptography takes time and memory of every gateway, and few need it.
    from stoker.gateway.tokens import Verifier

    return Verifier(issuers, key_sets)


def with_role(key: Key, roles: Mapping[str, Role], routes: Routes) -> Key | None:
    """The key with its role's patterns, and its bounds: its own, else its role's, else the gateway's."""
    role = roles.get(key.role)
    if key.role and role is None:
        logger.warning("key %s is not let in: there is no role %s", key.name, key.role)
        return None
    bounds = first_given(key.bounds, role.bounds if role else NO_BOUNDS, routes.bounds)
    return replace(key, role_allowed=role.allowed if role else None, bounds=bounds, own_bounds=key.bounds)
