"""Where a Service of a gateway is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.api.expose import Exposure


def service_address(name: str, namespace: str, expose: Exposure, service: Mapping[str, Any] | None) -> str | None:
    """Its root, without a path; None while a load balancer has not given an address."""
    port = "" if expose.service_port == expose.default_port else f":{expose.service_port}"
    if expose.type != "LoadBalancer":
        return f"{expose.scheme}://{name}.{namespace}.svc{port}"
    balancer = ((service or {}).get("status") or {}).get("loadBalancer") or {}
    for ingress in balancer.get("ingress") or ():
        host = ingress.get("hostname") or ingress.get("ip")
        if host:
            return f"{expose.scheme}://[{host}]{port}" if ":" in host else f"{expose.scheme}://{host}{port}"
    return None
