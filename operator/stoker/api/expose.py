"""How the Services of a gateway are reached."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stoker.api.base import ApiModel, Cel, SecretName


class Tls(ApiModel):
    """HTTPS, ended in the gateway's own pods."""

    secret_name: SecretName
    """Secret of type kubernetes.io/tls, in the gateway's namespace. A new certificate in it is taken over at once, open streams go on."""


class Exposure(ApiModel):
    """How it is reached."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.nodePort) || self.type != 'ClusterIP'",
            "expose.nodePort needs expose.type NodePort or LoadBalancer",
        ),
        Cel(
            "!has(self.loadBalancerClass) || self.type == 'LoadBalancer'",
            "expose.loadBalancerClass needs expose.type LoadBalancer",
        ),
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the Service. Default: 80, with tls 443."""
    node_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Fixed port on every node. Default: Kubernetes chooses one."""
    load_balancer_class: Annotated[str, Field(max_length=253)] | None = None
    """Which load-balancer implementation serves it."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Annotations of the Service."""

    @property
    def scheme(self) -> str:
        """Of its own address."""
        return "http"

    @property
    def default_port(self) -> int:
        """Of the scheme: an address need not name it."""
        return 443 if self.scheme == "https" else 80

    @property
    def service_port(self) -> int:
        """Port of the Service."""
        return self.port or self.default_port


class Expose(Exposure):
    """How the endpoint is reached."""

    tls: Tls | None = None
    """Serves HTTPS (TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2) instead of HTTP. Default: HTTP, for a cluster where something in front ends TLS."""

    @property
    def scheme(self) -> str:
        """Of its own address."""
        return "https" if self.tls else "http"
