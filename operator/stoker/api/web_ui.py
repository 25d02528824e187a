"""The web chat of a gateway: Open WebUI, told by Stoker what to be."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from stoker.api.base import ApiModel, Cel, KubernetesList, KubernetesObject, LocalObjectReference, Quantity
from stoker.api.expose import Expose, public_address

MOST_REPLICAS = 10
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$", max_length=64)]


class WebUIStorage(ApiModel):
    """Where chats and uploaded files are kept."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.claimName) || !(has(self.size) || has(self.storageClassName))",
            "webUI.storage: claimName names a claim of yours; size and storageClassName are for the one that Stoker makes",
        ),
        Cel(
            "has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "webUI.storage.storageClassName cannot be changed: copy the data to a claim of the other class and name that in claimName",
        ),
    )

    size: Quantity | None = None
    """Size of the claim <gateway>-webui. Default: 10Gi. A larger size later enlarges it, where its class can."""
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass of the claim. Default: the cluster's default class. Cannot be changed later."""
    claim_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A claim of yours instead; with several replicas one that is ReadWriteMany."""


class TrustedHeader(ApiModel):
    """Sign-on by a proxy in front, such as oauth2-proxy or Authelia: whom its headers name is signed in."""

    from_: Annotated[KubernetesList, Field(alias="from", min_length=1, max_length=16)]
    """Peers of a NetworkPolicy: the proxy's pods. Nobody else may reach the web chat, for whoever does is whom he says; the cluster must enforce NetworkPolicies, and the proxy remove these headers from what comes in."""
    email: HeaderName = "X-Forwarded-Email"
    """Header with the address that makes out a person."""
    name: HeaderName | None = None
    """Header with his name."""
    groups: HeaderName | None = None
    """Header with his groups, commas between them."""
    role: HeaderName | None = None
    """Header with admin, user or pending. Default: newcomers wait for an admin."""


class WebUI(ApiModel):
    """The web chat."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.replicas < 2 || (has(self.databaseSecretRef) && has(self.redisSecretRef))",
            "webUI.replicas: several replicas need databaseSecretRef (PostgreSQL) and redisSecretRef",
        ),
        Cel(
            "!has(self.databaseSecretRef) || !has(self.storage) || has(self.storage.claimName)",
            "webUI.storage: with databaseSecretRef it may only name a claim for uploaded files (claimName)",
        ),
        Cel(
            "!has(self.expose.tls) || self.expose.type in ['Ingress', 'HTTPRoute']",
            "webUI.expose.tls needs expose.type Ingress or HTTPRoute: Open WebUI itself serves no TLS",
        ),
    )

    enabled: bool = True
    """false removes the web chat; its chats, accounts and Secrets stay for the next time."""
    replicas: Annotated[int, Field(ge=0, le=MOST_REPLICAS)] = 1
    """Pods; more than one with PostgreSQL and Redis only."""
    url: Annotated[str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.\[\]:-]+$")] | None = None
    """Address in the browser, such as https://chat.example.com: links and sign-in lead there, and web pages of other origins are kept out. Default: what expose.hostname makes it."""
    storage: WebUIStorage | None = None
    """Where chats and uploaded files are kept. Default: a claim of 10Gi; with databaseSecretRef uploaded files are lost with their pod."""
    database_secret_ref: LocalObjectReference | None = None
    """Secret whose key `url` is postgresql://USER:PASSWORD@HOST:PORT/DATABASE. Default: SQLite on the volume."""
    redis_secret_ref: LocalObjectReference | None = None
    """Secret whose key `url` is redis://:PASSWORD@HOST:PORT/0, through which several replicas talk."""
    trusted_header: TrustedHeader | None = None
    """Sign-on by a proxy in front. Prefer spec.auth.oidc where the identity provider offers it."""
    admin_email: Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] = "admin@localhost"
    """Login of the first admin, whose password Stoker makes."""
    task_model: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """A small model for titles, tags and follow-up questions. Default: these are not made, for each would be one more call to the chat's model."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of Open WebUI. Default: the one this version of Stoker was tried with."""
    resources: KubernetesObject | None = None
    """Requests and limits, as in a Pod. Default: requests of 100m CPU and 768Mi memory."""
    env: KubernetesList | None = None
    """Settings of Open WebUI as environment variables, as in a Pod; they override Stoker's own."""
    egress: KubernetesList | None = None
    """Further egress rules of its NetworkPolicy, for what your settings reach: object storage, web search, mail."""
    expose: Expose = Expose()
    """How it is reached."""
    pod_template: KubernetesObject | None = None
    """Merged last over the generated pod template, lists by name, mountPath or containerPort."""

    @property
    def browser_address(self) -> str | None:
        """Where browsers find it, as far as the spec says."""
        return self.url or public_address(self.expose)
