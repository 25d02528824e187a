"""What keeps a gateway's usage: one small pod with a volume, or a database elsewhere. The gateway serves without it."""

from __future__ import annotations

from stoker.api.api_gateway import ApiGateway, UsageStorage
from stoker.api.names import URL_FIELD, USAGE_TOKEN_FIELD, child_labels, gateway_pods_name, usage_name
from stoker.api.resolved import OperatorSettings
from stoker.desired.gateway_pod import COMPONENT as GATEWAY_COMPONENT
from stoker.desired.gateway_pod import POLICY_PORT, TOKEN_DIRECTORY, account_token_sources
from stoker.desired.objects import (
    READ_ENDPOINTS,
    Object,
    build_rights,
    child,
    container_defaults,
    http_probe,
    operator_peer,
    pod_security,
    portal_peers,
    pull_secrets,
    secret_data,
    selector_labels,
)

COMPONENT = "usage"
USAGE_PORT = 8090

_DATA_DIRECTORY = "/var/lib/stoker"
_SECRET_DIRECTORY = "/run/secrets/stoker"
_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}}


def usage_url(gateway: ApiGateway) -> str | None:
    """Where the gateway's pods ask for usage; None where none is kept."""
    namespace, name = gateway.key
    return f"http://{usage_name(name)}.{namespace}.svc:{USAGE_PORT}" if gateway.spec.usage.enabled else None


def build_usage(gateway: ApiGateway, token: str, settings: OperatorSettings) -> list[Object]:
    """All of it, or nothing; a claim that is there stays, for it holds what was used before."""
    if not gateway.spec.usage.enabled:
        return []
    name = usage_name(gateway.metadata.name)
    children = [
        child(gateway, COMPONENT, "v1", "ServiceAccount", name, automountServiceAccountToken=False),
        *_rights(gateway),
        _secret(gateway, token),
        build_pods_service(gateway),
        _service(gateway),
        _network_policy(gateway, settings),
    ]
    if gateway.spec.usage.database_secret_ref is None:
        children.append(_claim(gateway))
    return [*children, _stateful_set(gateway, settings)]


def usage_peer(gateway: ApiGateway) -> Object:
    """The usage pod, as a peer of a NetworkPolicy."""
    return {"podSelector": {"matchLabels": selector_labels(gateway, COMPONENT)}}


def _rights(gateway: ApiGateway) -> list[Object]:
    """It finds the gateway's pods by the EndpointSlices of its namespace, and may read nothing else."""
    name = usage_name(gateway.metadata.name)
    return build_rights(gateway, COMPONENT, name, [READ_ENDPOINTS], [(gateway.metadata.namespace, name)])


def _secret(gateway: ApiGateway, token: str) -> Object:
    data = secret_data(**{USAGE_TOKEN_FIELD: token})
    return child(gateway, COMPONENT, "v1", "Secret", usage_name(gateway.metadata.name), type="Opaque", data=data)


def build_pods_service(gateway: ApiGateway) -> Object:
    """Every gateway pod by itself, for usage and portal.

    Also one that is about to leave: it still has lines that nobody has read.
    """
    spec: Object = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selector_labels(gateway, GATEWAY_COMPONENT),
        "ports": [{"name": "policy", "port": POLICY_PORT, "protocol": "TCP", "targetPort": "policy"}],
    }
    return child(gateway, COMPONENT, "v1", "Service", gateway_pods_name(gateway.metadata.name), spec=spec)


def _service(gateway: ApiGateway) -> Object:
    spec: Object = {
        "type": "ClusterIP",
        "selector": selector_labels(gateway, COMPONENT),
        "ports": [{"name": "usage", "port": USAGE_PORT, "protocol": "TCP", "targetPort": "usage"}],
    }
    return child(gateway, COMPONENT, "v1", "Service", usage_name(gateway.metadata.name), spec=spec)


def _network_policy(gateway: ApiGateway, settings: OperatorSettings) -> Object:
    pods = {"podSelector": {"matchLabels": selector_labels(gateway, GATEWAY_COMPONENT)}}
    peers = [pods, operator_peer(settings), *portal_peers(gateway)]
    return child(
        gateway,
        COMPONENT,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        usage_name(gateway.metadata.name),
        spec={
            "podSelector": {"matchLabels": selector_labels(gateway, COMPONENT)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": [{"port": USAGE_PORT, "protocol": "TCP"}]}],
        },
    )


def _claim(gateway: ApiGateway) -> Object:
    storage = gateway.spec.usage.storage or UsageStorage()
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return child(gateway, COMPONENT, "v1", "PersistentVolumeClaim", usage_name(gateway.metadata.name), spec=spec)


def _stateful_set(gateway: ApiGateway, settings: OperatorSettings) -> Object:
    """Never two at once on one volume, which is what a StatefulSet is for."""
    name = usage_name(gateway.metadata.name)
    return child(
        gateway,
        COMPONENT,
        "apps/v1",
        "StatefulSet",
        name,
        spec={
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "serviceName": name,
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": selector_labels(gateway, COMPONENT)},
            "template": _pod_template(gateway, settings),
        },
    )


def _pod_template(gateway: ApiGateway, settings: OperatorSettings) -> Object:
    name = usage_name(gateway.metadata.name)
    embedded = gateway.spec.usage.database_secret_ref is None
    data: Object = {"persistentVolumeClaim": {"claimName": name}} if embedded else {"emptyDir": {}}
    spec: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 15,
        "containers": [_container(gateway, settings)],
        "volumes": [
            {"name": "data", **data},
            {"name": "token", "projected": {"sources": account_token_sources()}},
            {"name": "secret", "secret": {"secretName": name}},
        ],
    }
    secrets = pull_secrets(settings)
    if secrets:
        spec["imagePullSecrets"] = secrets
    return {"metadata": {"labels": child_labels(gateway, COMPONENT)}, "spec": spec}


def _container(gateway: ApiGateway, settings: OperatorSettings) -> Object:
    namespace, name = gateway.key
    usage = gateway.spec.usage
    env: list[Object] = [
        {"name": "STOKER_USAGE_NAMESPACE", "value": namespace},
        {"name": "STOKER_USAGE_GATEWAY", "value": name},
        {"name": "STOKER_USAGE_TOKEN_FILE", "value": f"{_SECRET_DIRECTORY}/{USAGE_TOKEN_FIELD}"},
        {"name": "STOKER_USAGE_FOLDER", "value": _DATA_DIRECTORY},
        {"name": "STOKER_USAGE_RETENTION_DAYS", "value": str(usage.retention_days)},
        {"name": "STOKER_USAGE_PORT", "value": str(USAGE_PORT)},
    ]
    if usage.database_secret_ref is not None:
        reference = {"name": usage.database_secret_ref.name, "key": URL_FIELD}
        env.append({"name": "STOKER_USAGE_DATABASE_URL", "valueFrom": {"secretKeyRef": reference}})
    return {
        "name": COMPONENT,
        "image": settings.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["usage"],
        "env": env,
        "ports": [{"name": "usage", "containerPort": USAGE_PORT, "protocol": "TCP"}],
        "livenessProbe": http_probe("/healthz", "usage", period=10, timeout=5, failures=6),
        "readinessProbe": http_probe("/readyz", "usage", period=5, timeout=5, failures=3),
        "resources": usage.resources if usage.resources is not None else _RESOURCES,
        **container_defaults(),
        "volumeMounts": [
            {"name": "data", "mountPath": _DATA_DIRECTORY},
            {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
            {"name": "secret", "mountPath": _SECRET_DIRECTORY, "readOnly": True},
        ],
    }
