"""How the Services of a gateway are reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stoker.api.base import ApiModel, Cel, KubernetesList, SecretName

ROUTED = ("Ingress", "HTTPRoute")
"""Types where something in front leads a host name to the Service."""


class Tls(ApiModel):
    """HTTPS."""

    secret_name: SecretName | None = None
    """Secret of type kubernetes.io/tls, in the gateway's namespace. Of a Service it is served by the gateway's own pods: a new certificate is taken over at once, open streams go on. With Ingress it is the ingress controller's (cert-manager makes it where an annotation asks for it). With HTTPRoute leave it away: the certificate is the listener's."""


class Expose(ApiModel):
    """How it is reached."""

    cel_rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.nodePort) || self.type in ['NodePort', 'LoadBalancer']",
            "expose.nodePort needs expose.type NodePort or LoadBalancer",
        ),
        Cel(
            "!has(self.loadBalancerClass) || self.type == 'LoadBalancer'",
            "expose.loadBalancerClass needs expose.type LoadBalancer",
        ),
        Cel(
            "has(self.hostname) || !(self.type in ['Ingress', 'HTTPRoute'])",
            "expose.type Ingress and HTTPRoute need expose.hostname, the host name to lead there",
        ),
        Cel(
            "!has(self.hostname) || self.type != 'ClusterIP'",
            "expose.hostname: nothing leads a host name to a ClusterIP; set expose.type Ingress, HTTPRoute, LoadBalancer or NodePort",
        ),
        Cel(
            "!has(self.ingressClassName) || self.type == 'Ingress'",
            "expose.ingressClassName needs expose.type Ingress",
        ),
        Cel(
            "has(self.parentRefs) == (self.type == 'HTTPRoute')",
            "expose.parentRefs (the Gateways that lead there) is given exactly with expose.type HTTPRoute",
        ),
        Cel(
            "!has(self.tls) || has(self.tls.secretName) == (self.type != 'HTTPRoute')",
            "expose.tls needs secretName; with expose.type HTTPRoute it is {}, for the certificate is the listener's",
        ),
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "Ingress", "HTTPRoute"] = "ClusterIP"
    """Type of the Service; or Ingress or HTTPRoute, which lead a host name to a ClusterIP."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the Service. Default: 80, where it serves TLS itself 443."""
    node_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Fixed port on every node. Default: Kubernetes chooses one."""
    load_balancer_class: Annotated[str, Field(max_length=253)] | None = None
    """Which load-balancer implementation serves it."""
    hostname: (
        Annotated[
            str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        ]
        | None
    ) = None
    """Host name that leads to it; with NodePort and LoadBalancer the name or IPv4 address that clients use, for status and client settings. Behind an Ingress or HTTPRoute API and web chat may share one: then the API has /v1, /tokenize, /detokenize and /openapi.json."""
    ingress_class_name: Annotated[str, Field(max_length=253)] | None = None
    """Which ingress controller serves it. Default: the cluster's default class."""
    parent_refs: Annotated[KubernetesList, Field(min_length=1, max_length=16)] | None = None
    """Gateways of the Gateway API that lead there, as in an HTTPRoute: {name, namespace, sectionName}."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Annotations of the Ingress or HTTPRoute where there is one, else of the Service."""
    tls: Tls | None = None
    """HTTPS: of a Service TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2, instead of HTTP; of an Ingress or HTTPRoute it ends there. Default: HTTP, for a cluster where something in front ends TLS."""

    @property
    def routed(self) -> bool:
        """Whether an Ingress or an HTTPRoute leads there."""
        return self.type in ROUTED

    @property
    def service_type(self) -> str:
        """Type of the Service."""
        return "ClusterIP" if self.routed else self.type

    @property
    def certificate(self) -> str | None:
        """Secret with the certificate that the gateway's own pods serve TLS with."""
        return self.tls.secret_name if self.tls and not self.routed else None

    @property
    def scheme(self) -> str:
        """Of the Service's address."""
        return "https" if self.certificate else "http"

    @property
    def default_port(self) -> int:
        """Of the scheme: an address need not name it."""
        return 443 if self.certificate else 80

    @property
    def service_port(self) -> int:
        """Port of the Service."""
        return self.port or self.default_port


def public_address(expose: Expose, service: Mapping[str, Any] | None = None) -> str | None:
    """Root of the address under its host name; None without one, and while Kubernetes has not chosen the node's port."""
    if expose.hostname is None:
        return None
    if expose.routed:
        return f"{'https' if expose.tls else 'http'}://{expose.hostname}"
    port = (expose.node_port or node_port_of(service)) if expose.type == "NodePort" else expose.service_port
    return None if port is None else _address(expose, expose.hostname, port)


def service_address(name: str, namespace: str, expose: Expose, service: Mapping[str, Any] | None) -> str | None:
    """Root of the address, without a path; None while a load balancer has not given one."""
    if (public := public_address(expose, service)) is not None:
        return public
    if expose.type != "LoadBalancer":
        return _address(expose, f"{name}.{namespace}.svc", expose.service_port)
    balancer = ((service or {}).get("status") or {}).get("loadBalancer") or {}
    for ingress in balancer.get("ingress") or ():
        host = ingress.get("hostname") or ingress.get("ip")
        if host:
            return _address(expose, f"[{host}]" if ":" in host else host, expose.service_port)
    return None


def node_port_of(service: Mapping[str, Any] | None) -> int | None:
    """Port of the nodes that leads to the Service."""
    ports = ((service or {}).get("spec") or {}).get("ports") or ()
    return next((port["nodePort"] for port in ports if port.get("nodePort")), None)


def _address(expose: Expose, host: str, port: int) -> str:
    return f"{expose.scheme}://{host}{'' if port == expose.default_port else f':{port}'}"
