"""What the operator tells the portal, by a ConfigMap: roles, models with their state, how people sign in."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.alias_generators import to_camel

from stoker.claims import known_as
from stoker.desired.client_files import ClientModel
from stoker.patterns import compile_patterns

CONFIG_FIELD = "portal.json"


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class PortalModel(_Part):
    """A model of the gateway, or a route; how it is, and what client programs are told of it."""

    name: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    cluster: str = ""
    """As gateways call it in their load: namespace/name."""
    task: str = "Chat"
    context: int = 0
    answer: int = 0
    tools: bool = False
    parameters: int = 0
    state: str = ""
    """Ready, Asleep, Starting, Stopped or Failed; of a route that of what answers first."""
    reason: str = ""
    message: str = ""
    ready_replicas: int = 0
    replicas: int = 0
    behind: tuple[str, ...] = ()
    """Of a route: the models that it divides its requests among."""
    fallbacks: tuple[str, ...] = ()
    """Of a route: who is asked when none of these is ready."""

    def for_clients(self) -> ClientModel:
        """As the files for client programs are written of it."""
        title = self.title or self.name
        return ClientModel(self.name, title, self.task, self.context, self.answer, self.tools, self.parameters)


class PortalLimits(_Part):
    """How much somebody may ask for; None is without a limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    max_tokens_per_request: int | None = None


NO_LIMITS = PortalLimits()


class PortalRole(_Part):
    """A role: its models, what each of its keys may ask for, and who has it by his name or groups."""

    name: str
    models: tuple[str, ...] = ("*",)
    limits: PortalLimits = NO_LIMITS
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @field_validator("users")
    @classmethod
    def _by_one_spelling(cls, users: frozenset[str]) -> frozenset[str]:
        return frozenset(map(known_as, users))


class PortalOidc(_Part):
    """How people sign in with the identity provider."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    user_claim: str = "email"
    accept_unverified_email: bool = False
    roles_claim: str = "roles"
    groups_claim: str = "groups"
    role_map: dict[str, str] = {}
    authorities: str = ""
    """Certificates, as PEM, that are trusted beside the public authorities."""


class PortalConfig(_Part):
    """The whole document."""

    url: str | None = None
    """Base URL for OpenAI clients, ending in /v1; None: that by which a browser came in."""
    public_url: str | None = None
    """Where browsers reach the portal, without a path; None: wherever they came in."""
    roles: tuple[PortalRole, ...] = ()
    models: tuple[PortalModel, ...] = ()
    routes: tuple[PortalModel, ...] = ()
    """Names that stand for several models."""
    oidc: PortalOidc | None = None
    user_limits: PortalLimits = NO_LIMITS
    """Of all keys of a person together."""
    web_ui_url: str | None = None
    chat_address: str | None = None
    """Where the web chat tells whose session one is; None where people do not sign in by it."""
    max_keys_per_user: int = 10
    max_key_days: int | None = None
    session_seconds: int = 28800

    def role(self, name: str) -> PortalRole | None:
        """The role of this name."""
        return next((role for role in self.roles if role.name == name), None)

    def role_of(self, user: str, groups: Iterable[str]) -> PortalRole | None:
        """The first role that names somebody, or a group of his: as at the API."""
        have = frozenset(groups)
        return next((role for role in self.roles if user in role.users or role.groups & have), None)

    @property
    def offered(self) -> tuple[PortalModel, ...]:
        """Whatever people may ask for. A route that bears a model's name stands in its place, and takes an alias from whoever has it."""
        routes = {route.name: route for route in self.routes}
        found = list(self.routes)
        for model in self.models:
            aliases = tuple(alias for alias in model.aliases if alias not in routes)
            if model.name in routes:
                found[found.index(routes[model.name])] = routes[model.name].model_copy(update={"aliases": aliases})
            else:
                found.append(model.model_copy(update={"aliases": aliases}))
        return tuple(found)

    def visible_models(self, patterns: tuple[str, ...]) -> tuple[PortalModel, ...]:
        """Models and routes of which a name fits one of the patterns."""
        pattern = compile_patterns(patterns)
        return tuple(model for model in self.offered if any(map(pattern.fullmatch, (model.name, *model.aliases))))
