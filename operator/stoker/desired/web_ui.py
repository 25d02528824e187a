"""The web chat of a gateway: Open WebUI as a StatefulSet, its Service and NetworkPolicy, its key, and what outlives it."""

from __future__ import annotations

from urllib.parse import urlsplit

from stoker.api.api_gateway import ApiGateway
from stoker.api.base import API_VERSION
from stoker.api.names import (
    COMPONENT as COMPONENT_LABEL,
)
from stoker.api.names import (
    CONFIG_ANNOTATION,
    JWT_SECRET_FIELD,
    OWNER_LABELS,
    child_labels,
    gateway_inside_name,
    web_ui_admin_name,
    web_ui_name,
    web_ui_secrets_name,
)
from stoker.api.resolved import OperatorSettings
from stoker.api.web_ui import WebUI
from stoker.desired.expose import build_route, build_service
from stoker.desired.gateway_pod import COMPONENT as GATEWAY_COMPONENT
from stoker.desired.gateway_pod import ENVOY_PORT, INSIDE_PORT
from stoker.desired.merge import merge, merge_pod_template
from stoker.desired.objects import (
    WEB_UI_COMPONENT,
    Object,
    build_disruption_budget,
    child,
    container_defaults,
    http_probe,
    pod_security,
    pull_secrets,
    secret_data,
    selector_labels,
)
from stoker.desired.web_ui_env import (
    DATA_DIRECTORY,
    EMAIL_FIELD,
    HOME,
    PASSWORD_FIELD,
    SECRET_KEY_FIELD,
    STATIC_DIRECTORY,
    build_env,
)

COMPONENT = WEB_UI_COMPONENT
CONTAINER = "open-webui"
PORT = 8080
DEFAULT_SIZE = "10Gi"

# The first start makes the database; with PostgreSQL far away, or on a slow volume, that takes minutes.
_STARTUP_SECONDS = 600
_RESOURCES = {"requests": {"cpu": "100m", "memory": "768Mi"}}


def build_children(gateway: ApiGateway, ui: WebUI, settings: OperatorSettings, digest: str) -> list[Object]:
    """What goes with the gateway; the pods come last. A new digest of the Secrets they read makes them anew."""
    children = [_key(gateway), _account(gateway), _network_policy(gateway, ui)]
    children += [build_service(gateway, COMPONENT, web_ui_name(gateway.metadata.name), ui.expose)]
    children += build_route(gateway, COMPONENT, web_ui_name(gateway.metadata.name), ui.expose)
    if gateway.has_inside:
        children.append(_inside_service(gateway))
    if ui.replicas > 1:
        children.append(build_disruption_budget(gateway, COMPONENT, web_ui_name(gateway.metadata.name)))
    return [*children, _stateful_set(gateway, ui, settings, digest)]


def build_kept(gateway: ApiGateway, ui: WebUI, password: str, secret_key: str, token_secret: str) -> list[Object]:
    """What is made once and outlives the gateway, for it belongs together: the chats, and what their accounts are opened with."""
    name = gateway.metadata.name
    admin = {EMAIL_FIELD: ui.admin_email, PASSWORD_FIELD: password}
    keys = {SECRET_KEY_FIELD: secret_key, JWT_SECRET_FIELD: token_secret}
    kept = [
        _kept(gateway, "Secret", web_ui_admin_name(name), type="Opaque", data=secret_data(**admin)),
        _kept(gateway, "Secret", web_ui_secrets_name(name), type="Opaque", data=secret_data(**keys)),
    ]
    return [*kept, build_claim(gateway, ui)] if needs_claim(ui) else kept


def build_claim(gateway: ApiGateway, ui: WebUI) -> Object:
    """The volume of chats and uploaded files."""
    storage = ui.storage
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": (storage.size if storage else None) or DEFAULT_SIZE}},
    }
    if storage is not None and storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return _kept(gateway, "PersistentVolumeClaim", web_ui_name(gateway.metadata.name), spec=spec)


def needs_claim(ui: WebUI) -> bool:
    """Whether Stoker makes the volume: not where chats are in PostgreSQL, nor where a claim is named."""
    return ui.database_secret_ref is None and not (ui.storage and ui.storage.claim_name)


def is_kept_for(gateway: ApiGateway, obj: Object) -> bool:
    """Whether a kept object is one that Stoker made for a gateway of this name."""
    labels = obj["metadata"].get("labels") or {}
    wanted = child_labels(gateway, COMPONENT)
    names = (COMPONENT_LABEL, OWNER_LABELS[gateway.info.kind])
    return not obj["metadata"].get("ownerReferences") and all(labels.get(name) == wanted[name] for name in names)


def _kept(gateway: ApiGateway, kind: str, name: str, **content: object) -> Object:
    made = child(gateway, COMPONENT, "v1", kind, name, **content)
    del made["metadata"]["ownerReferences"]
    return made


def _inside_service(gateway: ApiGateway) -> Object:
    """The gateway's pods without TLS; a Service of its own, for the gateway's may be open to the world."""
    spec: Object = {
        "type": "ClusterIP",
        "selector": selector_labels(gateway, GATEWAY_COMPONENT),
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": INSIDE_PORT}],
    }
    return child(gateway, COMPONENT, "v1", "Service", gateway_inside_name(gateway.metadata.name), spec=spec)


def _key(gateway: ApiGateway) -> Object:
    name = gateway.metadata.name
    spec = {
        "gatewayRef": {"name": name},
        "owner": f"web UI of gateway {name}",
        "models": ["*"],
        "userTokens": {"secretRef": {"name": web_ui_secrets_name(name)}, "issuer": "open-webui", "required": True},
    }
    return child(gateway, COMPONENT, API_VERSION, "ApiKey", web_ui_name(name), spec=spec)


def _account(gateway: ApiGateway) -> Object:
    """An account of its own, with no rights and no token."""
    name = web_ui_name(gateway.metadata.name)
    return child(gateway, COMPONENT, "v1", "ServiceAccount", name, automountServiceAccountToken=False)


def _network_policy(gateway: ApiGateway, ui: WebUI) -> Object:
    """In: browsers. Out: the gateway, names, and where the settings lead, for an admin of Open WebUI may run code in it."""
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    to_gateway = {
        "to": [{"podSelector": {"matchLabels": selector_labels(gateway, GATEWAY_COMPONENT)}}],
        "ports": [{"port": INSIDE_PORT if gateway.has_inside else ENVOY_PORT, "protocol": "TCP"}],
    }
    return child(
        gateway,
        COMPONENT,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        web_ui_name(gateway.metadata.name),
        spec={
            "podSelector": {"matchLabels": selector_labels(gateway, COMPONENT)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{**_visitors(ui), "ports": [{"port": PORT, "protocol": "TCP"}]}],
            "egress": [{"ports": dns}, to_gateway, *_to_identity_provider(gateway), *(ui.egress or ())],
        },
    )


def _visitors(ui: WebUI) -> Object:
    return {"from": ui.trusted_header.from_} if ui.trusted_header is not None else {}


def _to_identity_provider(gateway: ApiGateway) -> list[Object]:
    """Its port, wherever it is: a NetworkPolicy knows no names."""
    oidc = gateway.spec.auth.oidc
    if oidc is None:
        return []
    address = urlsplit(oidc.issuer)
    port = address.port or (443 if address.scheme == "https" else 80)
    return [{"ports": [{"port": port, "protocol": "TCP"}]}]


def _stateful_set(gateway: ApiGateway, ui: WebUI, settings: OperatorSettings, digest: str) -> Object:
    """One pod after the other, also at a change: each migrates the database when it starts, and no two may at once."""
    name = web_ui_name(gateway.metadata.name)
    return child(
        gateway,
        COMPONENT,
        "apps/v1",
        "StatefulSet",
        name,
        spec={
            "replicas": ui.replicas,
            "revisionHistoryLimit": 3,
            "serviceName": name,
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": selector_labels(gateway, COMPONENT)},
            "template": build_pod_template(gateway, ui, settings, digest),
        },
    )


def build_pod_template(gateway: ApiGateway, ui: WebUI, settings: OperatorSettings, digest: str) -> Object:
    """What the pods look like."""
    name = gateway.metadata.name
    labels = child_labels(gateway, COMPONENT)
    template: Object = {
        "metadata": {"labels": labels, "annotations": {CONFIG_ANNOTATION: digest}},
        "spec": {
            "serviceAccountName": web_ui_name(name),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": 30,
            "containers": [_container(gateway, ui, settings)],
            "volumes": [_data_volume(gateway, ui), {"name": "static", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }
    secrets = pull_secrets(settings)
    if secrets:
        template["spec"]["imagePullSecrets"] = secrets
    if ui.pod_template is not None:
        template = merge_pod_template(template, ui.pod_template, f"ApiGateway {name}: spec.webUI")
        template["metadata"] = merge(template.get("metadata", {}), {"labels": labels})
    return template


def _container(gateway: ApiGateway, ui: WebUI, settings: OperatorSettings) -> Object:
    return {
        "name": CONTAINER,
        "image": ui.image or settings.web_ui_image,
        "imagePullPolicy": "IfNotPresent",
        "env": build_env(gateway, ui),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        # Unknown paths answer 200 with the page itself: only these three say something.
        "startupProbe": http_probe("/health", "http", period=2, timeout=5, failures=_STARTUP_SECONDS // 2),
        "livenessProbe": http_probe("/health", "http", period=10, timeout=5, failures=6),
        "readinessProbe": http_probe("/ready", "http", period=3, timeout=5, failures=3),
        "resources": ui.resources if ui.resources is not None else _RESOURCES,
        **container_defaults(),
        "volumeMounts": [
            {"name": "data", "mountPath": DATA_DIRECTORY},
            {"name": "static", "mountPath": STATIC_DIRECTORY},
            {"name": "tmp", "mountPath": HOME},
        ],
    }


def _data_volume(gateway: ApiGateway, ui: WebUI) -> Object:
    claim = ui.storage.claim_name if ui.storage else None
    if claim is None and not needs_claim(ui):
        return {"name": "data", "emptyDir": {}}
    return {"name": "data", "persistentVolumeClaim": {"claimName": claim or web_ui_name(gateway.metadata.name)}}
