"""What the operator tells the portal, by a ConfigMap: roles, models with their state, how people sign in."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from stoker.patterns import compile_patterns

CONFIG_FIELD = "portal.json"


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class PortalModel(_Part):
    """A model of the gateway."""

    name: str
    aliases: tuple[str, ...] = ()
    task: str = "Chat"
    context_length: int | None = None
    ready: bool = False
    reason: str = ""
    message: str = ""
    ready_replicas: int = 0
    replicas: int = 0


class PortalRole(_Part):
    """A role, and the models it may use."""

    name: str
    models: tuple[str, ...] = ("*",)


class PortalOidc(_Part):
    """How people sign in with the identity provider."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    user_claim: str = "email"
    roles_claim: str = "roles"
    role_map: dict[str, str] = {}
    default_role: str | None = None


class PortalConfig(_Part):
    """The whole document."""

    url: str | None = None
    """Base URL for OpenAI clients, ending in /v1."""
    public_url: str | None = None
    """Where browsers reach the portal, without a path; None: wherever they came in."""
    roles: tuple[PortalRole, ...] = ()
    models: tuple[PortalModel, ...] = ()
    oidc: PortalOidc | None = None
    web_ui_url: str | None = None
    max_keys_per_user: int = 10
    max_key_days: int | None = None
    session_seconds: int = 28800

    def role(self, name: str) -> PortalRole | None:
        """The role of this name."""
        return next((role for role in self.roles if role.name == name), None)

    def visible_models(self, patterns: tuple[str, ...]) -> tuple[PortalModel, ...]:
        """Models of which a name fits one of the patterns."""
        pattern = compile_patterns(patterns)
        return tuple(model for model in self.models if any(map(pattern.fullmatch, (model.name, *model.aliases))))
