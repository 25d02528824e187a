"""Services of a gateway, and the Ingress or HTTPRoute that leads a host name to one."""

from __future__ import annotations

from stoker.api.api_gateway import ApiGateway
from stoker.api.expose import Expose
from stoker.desired.objects import Object, child, selector_labels

API_PATHS = ("/v1", "/tokenize", "/detokenize", "/openapi.json")
PORTAL_PATHS = ("/keys", "/portal")
"""What is the gateway's where it shares a host name with the web chat; that has none of these."""


def build_service(gateway: ApiGateway, component: str, name: str, expose: Expose) -> Object:
    """The Service of one of the gateway's parts."""
    port: Object = {"name": expose.scheme, "port": expose.service_port, "protocol": "TCP", "targetPort": "http"}
    if expose.node_port is not None:
        port["nodePort"] = expose.node_port
    spec: Object = {"type": expose.service_type, "selector": selector_labels(gateway, component), "ports": [port]}
    if expose.load_balancer_class is not None:
        spec["loadBalancerClass"] = expose.load_balancer_class
    service = child(gateway, component, "v1", "Service", name, spec=spec)
    return service if expose.routed else _annotated(service, expose)


def build_route(
    gateway: ApiGateway, component: str, name: str, expose: Expose, paths: tuple[str, ...] = ("/",)
) -> list[Object]:
    """What leads its host name to the Service; nothing where the Service is reached by itself."""
    if expose.type == "Ingress":
        return [_annotated(_ingress(gateway, component, name, expose, paths), expose)]
    if expose.type == "HTTPRoute":
        return [_annotated(_http_route(gateway, component, name, expose, paths), expose)]
    return []


def api_paths(gateway: ApiGateway) -> tuple[str, ...]:
    """All, unless the web chat has the same host name."""
    ui = gateway.spec.web_ui
    shared = ui is not None and ui.enabled and ui.expose.hostname == gateway.spec.expose.hostname
    if not shared:
        return ("/",)
    return (*API_PATHS, *(PORTAL_PATHS if gateway.portal is not None else ()))


def _ingress(gateway: ApiGateway, component: str, name: str, expose: Expose, paths: tuple[str, ...]) -> Object:
    backend = {"service": {"name": name, "port": {"name": expose.scheme}}}
    routes = [{"path": path, "pathType": "Prefix", "backend": backend} for path in paths]
    spec: Object = {"rules": [{"host": expose.hostname, "http": {"paths": routes}}]}
    if expose.ingress_class_name is not None:
        spec["ingressClassName"] = expose.ingress_class_name
    if expose.tls is not None:
        spec["tls"] = [{"hosts": [expose.hostname], "secretName": expose.tls.secret_name}]
    return child(gateway, component, "networking.k8s.io/v1", "Ingress", name, spec=spec)


def _http_route(gateway: ApiGateway, component: str, name: str, expose: Expose, paths: tuple[str, ...]) -> Object:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}} for path in paths],
        "backendRefs": [{"name": name, "port": expose.service_port}],
    }
    spec = {"parentRefs": list(expose.parent_refs or ()), "hostnames": [expose.hostname], "rules": [rule]}
    return child(gateway, component, "gateway.networking.k8s.io/v1", "HTTPRoute", name, spec=spec)


def _annotated(made: Object, expose: Expose) -> Object:
    if expose.annotations:
        made["metadata"]["annotations"] = dict(expose.annotations)
    return made
