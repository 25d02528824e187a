"""What the pods of a gateway may call, where its spec restricts that: names, the API server, and where its own settings lead.

A NetworkPolicy knows no host names, so what is outside of the cluster is let through by its port, wherever it is. The API server is
such a thing, too: by which address its pods see it depends on the network plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from stoker.api.api_gateway import ApiGateway
from stoker.api.names import MANAGED_BY, MANAGED_BY_VALUE, OWNER_LABELS
from stoker.api.resolved import ResolvedApiGateway
from stoker.desired.objects import NAMESPACE_NAME_LABEL, Object, selector_labels

DNS_PORTS = (53, 5353)
"""OpenShift's DNS pods listen on the second one."""
API_SERVER_PORTS = (443, 6443)
USUAL_PORTS = {"https": 443, "http": 80, "redis": 6379, "rediss": 6379}


def build_egress(resolved: ResolvedApiGateway) -> list[Object]:
    """All rules; the gateway's own ones last."""
    gateway = resolved.gateway
    dns = [{"port": port, "protocol": protocol} for port in DNS_PORTS for protocol in ("UDP", "TCP")]
    own = [{"podSelector": {"matchLabels": selector_labels(gateway, part)}} for part in ("usage", "portal")]
    namespaces = sorted({model.deployment.metadata.namespace for model in resolved.models})
    namespaces_called, ports = _called(gateway, resolved.redis_url)
    return [
        {"ports": dns},
        {"ports": [{"port": port, "protocol": "TCP"} for port in sorted({*API_SERVER_PORTS, *ports})]},
        {"to": own},
        *({"to": [_engines(namespace)]} for namespace in namespaces),
        *({"to": [{"namespaceSelector": _named(namespace)}]} for namespace in namespaces_called),
        *(gateway.spec.egress or ()),
    ]


def _named(namespace: str) -> Object:
    return {"matchLabels": {NAMESPACE_NAME_LABEL: namespace}}


def _engines(namespace: str) -> Object:
    """Whatever port an engine of one's own listens on."""
    is_engine = {"key": OWNER_LABELS["ModelDeployment"], "operator": "Exists"}
    pods = {"matchLabels": {MANAGED_BY: MANAGED_BY_VALUE}, "matchExpressions": [is_engine]}
    return {"namespaceSelector": _named(namespace), "podSelector": pods}


def _called(gateway: ApiGateway, redis_url: str) -> tuple[list[str], set[int]]:
    """Namespaces of Services, by whatever port their pods listen on; and ports of everything else."""
    namespaces, ports = set(), set()
    for address in [*_addresses(gateway), *([redis_url] if redis_url else [])]:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port or USUAL_PORTS.get(parts.scheme, 443)
        except ValueError:
            continue
        labels = host.removesuffix(".").removesuffix(".cluster.local").split(".")
        if len(labels) == 1:
            namespaces.add(gateway.metadata.namespace)
        elif len(labels) == 3 and labels[2] == "svc":
            namespaces.add(labels[1])
        else:
            ports.add(port)
    return sorted(namespaces), ports


def _addresses(gateway: ApiGateway) -> Iterable[str]:
    """Of all that the spec has it call."""

    def found() -> Iterator[str | None]:
        auth = gateway.spec.auth
        for issuer in auth.issuers:
            if issuer.secret_ref is None:
                yield issuer.jwks_uri or issuer.issuer
        yield auth.introspection.url if auth.introspection else None
        for route in gateway.spec.routes:
            for fallback in route.fallbacks:
                yield fallback.external.url if fallback.external else None

    return [address for address in found() if address]
