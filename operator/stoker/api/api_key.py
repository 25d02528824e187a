"""ApiKey: who may call a gateway, with a key of which Stoker keeps only the hash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from stoker.api.base import (
    ApiModel,
    Cel,
    Conditions,
    KindInfo,
    LocalObjectReference,
    PrinterColumn,
    RequestLimits,
    Resource,
    SecretName,
    Sha256,
    StatusModel,
)


class UserTokens(ApiModel):
    """What a service says of the users it calls for."""

    secret_ref: LocalObjectReference
    """Secret whose key `secret` (32 bytes or more) signs the tokens with HS256: of Open WebUI FORWARD_USER_INFO_HEADER_JWT_SECRET."""
    issuer: Annotated[str, Field(min_length=1, max_length=512)] = "open-webui"
    """What their claim iss must be."""
    required: bool = False
    """Refuses calls without one, so that the key alone is of no use to whoever finds it."""


class ApiKeySpec(ApiModel):
    """Who may call which models."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!(has(self.sha256) && has(self.secretName))",
            "secretName and sha256 exclude each other: with sha256 you keep the key yourself and no Secret is made",
        ),
    )

    gateway_ref: LocalObjectReference
    """The ApiGateway this key opens, in the same namespace."""
    owner: Annotated[str, Field(max_length=256)] | None = None
    """The person or service the key belongs to, such as alice@example.com; in addresses capital letters make no difference."""
    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)] = [
        "*"
    ]
    """Models the key may use, by served name; * and ? match as in a shell. Others are neither listed nor found."""
    role: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")] | None = None
    """A role of the gateway (spec.roles, or admin or user, which every gateway has): it adds its bounds to the key's own."""
    limits: RequestLimits | None = None
    """How much it may ask for. Default: what its role says, else the gateway."""
    user_tokens: UserTokens | None = None
    """Lets a service such as Open WebUI say in the header X-OpenWebUI-User-Jwt for whom it calls: limits and usage are that user's then, and he may use what this key and his own role may. Default: the header is not believed."""
    expires_at: datetime | None = None
    """When the key stops working."""
    secret_name: SecretName | None = None
    """Secret that receives the generated key under `apiKey`. Default: the name of this object."""
    sha256: Sha256 | None = None
    """Hash of a key that you made yourself (printf %s "$KEY" | sha256sum): safe in Git, no Secret is made."""
    suspend: bool = False
    """Stops the key until it is false again."""


class KeyHash(StatusModel):
    """A hash the gateway accepts."""

    sha256: Sha256
    """SHA-256 of the key, in hex."""
    created_at: datetime
    """When the key was made."""
    expires_at: datetime | None = None
    """When this hash stops working, after a rotation."""


class UsedTokens(StatusModel):
    """What a key has used, since it was first used."""

    requests: int = 0
    """Requests that reached an engine."""
    prompt_tokens: int = 0
    """Tokens of their prompts."""
    completion_tokens: int = 0
    """Tokens that were generated."""


class ApiKeyStatus(StatusModel):
    """What Stoker made of it."""

    observed_generation: int = 0
    """The metadata.generation that was last acted on."""
    secret_ref: LocalObjectReference | None = None
    """Secret with the generated key."""
    prefix: str | None = None
    """First characters of the key, to recognise it by."""
    keys: Annotated[list[KeyHash], Field(max_length=4)] = []
    """Hashes the gateway accepts: the current one, and after a rotation the previous one for its grace period."""
    last_used_time: datetime | None = None
    """When its last request came; up to a minute behind."""
    usage: UsedTokens | None = None
    """What it has used; up to a minute behind. GET /v1/usage tells it by day, user and model."""
    rotated: str | None = None
    """Value of the annotation stoker.dev/rotate that was last acted on."""
    conditions: Conditions = []
    """Ready; Reconciling and Stalled while true."""


@dataclass(frozen=True)
class KeyUsage:
    """What the gateway's usage process tells of a key."""

    usage: UsedTokens | None = None
    last_used_time: datetime | None = None


class ApiKey(Resource):
    """Who may call a gateway; Stoker keeps only the key's hash, the key itself is in a Secret or with you."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="ApiKey",
        plural="apikeys",
        singular="apikey",
        short_names=("sak",),
        columns=(
            PrinterColumn("Gateway", ".spec.gatewayRef.name"),
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            PrinterColumn("Prefix", ".status.prefix"),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
            PrinterColumn("Last Used", ".status.lastUsedTime", "date", priority=1),
            PrinterColumn("Owner", ".spec.owner", priority=1),
            PrinterColumn("Message", ".status.conditions[?(@.type=='Ready')].message", priority=1),
        ),
    )

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        # Not NAME_RULE: a key names no Service, and <gateway>-admin is longer than a gateway's name may be.
        Cel(
            "size(self.metadata.name) <= 63",
            "metadata.name must have at most 63 characters (it becomes a label's value)",
        ),
    )

    spec: ApiKeySpec
    status: ApiKeyStatus = ApiKeyStatus()
