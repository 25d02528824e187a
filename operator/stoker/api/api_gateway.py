"""ApiGateway: one authenticated, OpenAI-compatible endpoint for the models of a namespace or more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stoker.api.auth import BUILT_IN_ROLES, Auth, Role
from stoker.api.base import (
    NAME_RULE,
    ApiModel,
    Cel,
    Conditions,
    KindInfo,
    KubernetesList,
    KubernetesObject,
    LabelSelector,
    LocalObjectReference,
    MapKeys,
    NamespaceSelection,
    PrinterColumn,
    Quantity,
    RequestLimits,
    Resource,
    StatusModel,
)
from stoker.api.expose import Expose, service_address
from stoker.api.routes import NamedRoute
from stoker.api.trust import CertificateAuthorities
from stoker.api.web_ui import WebUI


class PublishedModels(ApiModel):
    """Which ModelDeployments this gateway publishes; a ModelDeployment's `gateways` must allow it, too."""

    selector: LabelSelector | None = None
    """Labels of the ModelDeployments. Default: all."""
    namespaces: NamespaceSelection = NamespaceSelection()
    """Namespaces of the ModelDeployments."""


class ModelLimits(RequestLimits):
    """What each caller may ask of some models, besides his own limits."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.requestsPerMinute) || has(self.tokensPerMinute) || has(self.concurrentRequests) || has(self.maxTokensPerRequest)",
            "limits.models: give at least one limit",
        ),
    )

    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)]
    """Models by served name; * and ? match as in a shell. Each model counts for itself; the first entry that fits a model holds."""


class Limits(RequestLimits):
    """Bounds on a single request, and on each caller who has none of his own."""

    max_request_bytes: Quantity = "32Mi"
    """Largest request body; a larger one is answered with 413."""
    per_user: RequestLimits | None = None
    """What one user may ask for with all his keys (those of one spec.owner) and tokens together, besides the limit of each key."""
    redis_secret_ref: LocalObjectReference | None = None
    """Secret whose key `url` is the address of a Redis or Valkey (redis://HOST:6379/0, rediss:// with TLS) in which the gateway's replicas count together. Default: each admits its share. While Redis is away they share what is left."""
    models: Annotated[list[ModelLimits], Field(min_length=1, max_length=32)] | None = None
    """What each caller may ask of single models, besides his own limits."""


class UsageStorage(ApiModel):
    """The volume that usage is kept on."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "usage.storage.storageClassName cannot be changed: delete the claim <gateway>-usage and usage.storage first",
        ),
    )

    size: Quantity = "1Gi"
    """Size of the claim <gateway>-usage. A row is about 200 bytes: one for each day, key, user and model that was used."""
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass of the claim. Default: the cluster's default class. Cannot be changed later."""


class Usage(ApiModel):
    """What is kept of who used how much; GET /v1/usage tells it."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!(has(self.storage) && has(self.databaseSecretRef))",
            "usage.storage and usage.databaseSecretRef exclude each other: usage is kept on a volume or in PostgreSQL",
        ),
    )

    enabled: bool = True
    """Keeps usage, in a process of its own: StatefulSet <gateway>-usage. false removes it; its claim stays."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 400
    """Days after which numbers are deleted."""
    storage: UsageStorage | None = None
    """The volume. Default: 1Gi of the cluster's default StorageClass."""
    database_secret_ref: LocalObjectReference | None = None
    """Secret whose key `url` is the address of a PostgreSQL database (postgresql://USER:PASSWORD@HOST/NAME), instead of a volume."""
    resources: KubernetesObject | None = None
    """Requests and limits of the process, as in a Pod. Default: requests of 10m CPU and 64Mi memory."""


class Cors(ApiModel):
    """Which web pages may call the endpoint from a browser."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!('*' in self.origins) || size(self.origins) == 1",
            "cors.origins: '*' means every origin, and stands alone",
        ),
    )

    origins: Annotated[
        list[Annotated[str, Field(max_length=261, pattern=r"^(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)$")]],
        Field(min_length=1, max_length=64),
    ]
    """Origins such as https://app.example.com, or "*" for all. Programs other than browsers do not care."""


class Portal(ApiModel):
    """Web pages on the gateway's own address: / with the models, /keys where people make and revoke their own keys."""

    enabled: bool = True
    """false removes the pages; keys that were made there go on."""
    url: Annotated[str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$")] | None = None
    """Where browsers reach the gateway, such as https://ai.example.com. Default: the address they came by."""
    max_keys_per_user: Annotated[int, Field(ge=0, le=1000)] = 10
    """How many keys each person may have at a time."""
    max_key_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    """How long a key may last that is made there. Default: until it is revoked."""
    session_seconds: Annotated[int, Field(ge=300, le=604800)] = 28800
    """How long people stay signed in; changes of their roles count after it."""
    resources: KubernetesObject | None = None
    """Requests and limits of its container. Default: requests of 10m CPU and 96Mi memory, a limit of 256Mi."""


class ApiGatewaySpec(ApiModel):
    """One authenticated endpoint."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.webUI) || !has(self.auth.oidc) || has(self.webUI.url) || has(self.webUI.expose.hostname)",
            "auth.oidc: webUI.url or webUI.expose.hostname must say where the identity provider sends people back to",
        ),
        Cel(
            "!has(self.webUI) || !has(self.auth.oidc) || !has(self.webUI.trustedHeader)",
            "auth.oidc and webUI.trustedHeader exclude each other",
        ),
        Cel(
            "!has(self.webUI) || !has(self.auth.oidc) || self.auth.oidc.rolesClaim == self.auth.oidc.groupsClaim || "
            "!has(self.roles) || !self.roles.exists(role, has(role.subjects))",
            "auth.oidc: with webUI and roles[].subjects, rolesClaim and groupsClaim must be the same claim, for the web chat tells the gateway one",
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=100)] = 2
    """Gateway pods."""
    models: PublishedModels = PublishedModels()
    """Which models it publishes."""
    auth: Auth = Auth()
    """Who may call."""
    roles: Annotated[list[Role], Field(max_length=64), MapKeys(("name",))] = []
    """Roles that ApiKeys name."""
    limits: Limits = Limits()
    """Bounds on a single request, and on each caller who has none of his own."""
    usage: Usage = Usage()
    """What is kept of who used how much."""
    certificate_authorities: CertificateAuthorities | None = None
    """Authorities of your own, trusted beside the public ones: of issuers (sign-in to the portal included, to the web chat not), of introspection, of routes' external backends, and of Redis. Default: public ones only."""
    routes: Annotated[list[NamedRoute], Field(max_length=32), MapKeys(("name",))] = []
    """Names of your own for several models: shares by weight, and others to fall back on."""
    cors: Cors | None = None
    """Which web pages may call it. Default: none."""
    expose: Expose = Expose()
    """How the endpoint is reached."""
    web_ui: Annotated[WebUI | None, Field(alias="webUI")] = None
    """The web chat, in which people sign in and talk to these models. Default: none; {} is enough."""
    portal: Portal | None = None
    """Web pages where people see their models and make their own keys. Default: none; {} is enough."""
    egress: KubernetesList | None = None
    """Restricts what its pods may call, by NetworkPolicy: to DNS, the API server, the models, usage and portal, what auth, routes and limits name, and these egress rules, as in a NetworkPolicy; [] for none besides. Default: they may call anything."""
    resources: KubernetesObject | None = None
    """Requests and limits of the Envoy container, as in a Pod. Default: requests of 100m CPU and 128Mi memory."""
    pod_template: KubernetesObject | None = None
    """Merged last over the generated pod template, lists by name, mountPath or containerPort."""


class ModelCounts(StatusModel):
    """Published models by state."""

    total: int = 0
    """Models this gateway publishes."""
    ready: int = 0
    """Models with at least one ready replica."""
    sleeping: int = 0
    """Models that have scaled themselves to zero; a request wakes them."""


class ApiGatewayStatus(StatusModel):
    """What Stoker made of it."""

    observed_generation: int = 0
    """The metadata.generation that was last acted on."""
    url: str | None = None
    """Base URL for OpenAI clients, ending in /v1."""
    models: ModelCounts = ModelCounts()
    """Published models by state."""
    keys: int = 0
    """ApiKeys that are let in now."""
    replicas: int = 0
    """Gateway pods that exist."""
    ready_replicas: int = 0
    """Gateway pods that serve."""
    limit_shares: int = 1
    """Replicas among which limits are divided: each admits its share of what a caller may ask for. With limits.redisSecretRef only while Redis is away."""
    limits_counted: Literal["Together", "ByShares"] = "ByShares"
    """Together: the replicas count in Redis (limits.redisSecretRef). ByShares: each for itself."""
    admin_secret_name: str | None = None
    """Secret with the generated admin key (key `apiKey`)."""
    client_config_ref: LocalObjectReference | None = None
    """ConfigMap with ready settings for client programs: opencode, Continue, LangChain, curl."""
    web_ui_url: Annotated[str | None, Field(alias="webUIUrl")] = None
    """Address of the web chat."""
    web_ui_admin_secret_name: Annotated[str | None, Field(alias="webUIAdminSecretName")] = None
    """Secret with the login of the web chat's first admin (keys `email` and `password`)."""
    conditions: Conditions = []
    """Ready and Programmed; with usage UsageReady; with a web chat WebUIReady and WebUISecure; Reconciling and Stalled while true."""


class ApiGateway(Resource):
    """One authenticated, OpenAI-compatible endpoint for the models of one or more namespaces."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="ApiGateway",
        plural="apigateways",
        singular="apigateway",
        short_names=("sgw",),
        columns=(
            PrinterColumn("URL", ".status.url"),
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            PrinterColumn("Replicas", ".status.readyReplicas", "integer"),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
            PrinterColumn("Models", ".status.models.ready", "integer", priority=1),
            PrinterColumn("Message", ".status.conditions[?(@.type=='Ready')].message", priority=1),
        ),
    )

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        NAME_RULE,
        Cel(
            "!has(self.spec.webUI) || size(self.metadata.name) <= 46",
            "metadata.name must have at most 46 characters with spec.webUI (its StatefulSet's pods carry it in a label)",
        ),
    )

    spec: ApiGatewaySpec = ApiGatewaySpec()
    status: ApiGatewayStatus = ApiGatewayStatus()

    @property
    def portal(self) -> Portal | None:
        """The portal, where it is on."""
        portal = self.spec.portal
        return portal if portal is not None and portal.enabled else None

    @property
    def has_inside(self) -> bool:
        """Whether its pods take the web chat's calls on a port without TLS: their certificate is for another name than the one it calls."""
        ui = self.spec.web_ui
        return ui is not None and ui.enabled and self.spec.expose.certificate is not None

    @property
    def roles(self) -> list[Role]:
        """All roles that keys may name: the built-in ones that the gateway does not define itself, and its own."""
        defined = {role.name for role in self.spec.roles}
        return [*(Role(name=name) for name in BUILT_IN_ROLES if name not in defined), *self.spec.roles]

    def has_role(self, name: str) -> bool:
        """Whether keys may name this role."""
        return name in BUILT_IN_ROLES or any(role.name == name for role in self.spec.roles)


def base_url(gateway: ApiGateway, service: Mapping[str, Any] | None) -> str | None:
    """Base URL for OpenAI clients; None while a load balancer has not given an address."""
    root = service_address(gateway.metadata.name, gateway.metadata.namespace, gateway.spec.expose, service)
    return None if root is None else f"{root}/v1"
