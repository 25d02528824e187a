"""The pod template of an ApiGateway: Envoy moves the bytes, the policy service decides."""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import Any

from stoker.api.api_gateway import ApiGateway
from stoker.api.names import ACCOUNT_ANNOTATION, child_labels
from stoker.api.resolved import OperatorSettings
from stoker.desired.merge import merge, merge_pod_template
from stoker.desired.objects import (
    RUN_DIRECTORY,
    Object,
    container_defaults,
    http_probe,
    pod_security,
    pull_secrets,
    selector_labels,
)
from stoker.errors import Stalled
from stoker.models.quantity import parse_quantity

COMPONENT = "gateway"
ENVOY_PORT = 8080
POLICY_PORT = 9090
INSIDE_PORT = 8081
"""Without TLS, where the other one has it: of the web chat alone."""
DRAIN_PORT = 9091
"""Of the kubelet alone: no NetworkPolicy names it."""

# How long streams may go on after a gateway pod is told to leave.
GRACE_SECONDS = 600
GRACE_MARGIN_SECONDS = 60
DEFAULT_WORKERS = 2
RUN_SIZE = "128Mi"
"""Far more than a configuration takes: what a gateway is told is a few Secrets of 1 MiB, and is there twice."""

TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
_ENVOY_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}}
_POLICY_RESOURCES = {"requests": {"cpu": "50m", "memory": "96Mi"}}


def build_pod_template(gateway: ApiGateway, settings: OperatorSettings, account_uid: str = "") -> Object:
    """What the pods look like; models, keys and limits are not here, so they never restart a gateway."""
    labels = child_labels(gateway, COMPONENT)
    template: Object = {
        "metadata": {"labels": labels, "annotations": {"kubectl.kubernetes.io/default-container": "envoy"}},
        "spec": {
            "serviceAccountName": gateway.metadata.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # As in the engines' pods: a process that has just begun must not hold the pod for the whole grace period.
            "shareProcessNamespace": True,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "affinity": {"podAntiAffinity": _spread_over_nodes(gateway)},
            # A native sidecar: Envoy exits when its files are missing, and goes before the policy service on the way out.
            "initContainers": [_policy_container(gateway, settings)],
            "containers": [_envoy_container(gateway, settings)],
            "volumes": [
                # In memory, for it holds keys of engines and of backends outside, and the certificate's; the log is not secret, and large.
                {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": RUN_SIZE}},
                {"name": "log", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "token", "projected": {"sources": account_token_sources()}},
            ],
        },
    }
    if account_uid:
        template["metadata"]["annotations"][ACCOUNT_ANNOTATION] = account_uid
    secrets = pull_secrets(settings)
    if secrets:
        template["spec"]["imagePullSecrets"] = secrets
    if gateway.spec.pod_template is not None:
        template = merge_pod_template(template, gateway.spec.pod_template, f"ApiGateway {gateway.metadata.name}")
        template["metadata"] = merge(template.get("metadata", {}), {"labels": labels})
    return template


def _policy_container(gateway: ApiGateway, settings: OperatorSettings) -> Object:
    namespace, name = gateway.key
    env = [
        {"name": "STOKER_GATEWAY_NAMESPACE", "value": namespace},
        {"name": "STOKER_GATEWAY_NAME", "value": name},
        {"name": "STOKER_GATEWAY_FOLDER", "value": RUN_DIRECTORY},
        {"name": "STOKER_DRAIN_SECONDS", "value": str(GRACE_SECONDS - GRACE_MARGIN_SECONDS)},
    ]
    heap = _envoy_heap_bytes(gateway)
    if heap is not None:
        env.append({"name": "STOKER_ENVOY_HEAP_BYTES", "value": str(heap)})
    return {
        "name": "policy",
        "image": settings.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["gateway"],
        "restartPolicy": "Always",
        "env": env,
        "ports": [
            {"name": "policy", "containerPort": POLICY_PORT, "protocol": "TCP"},
            {"name": "drain", "containerPort": DRAIN_PORT, "protocol": "TCP"},
        ],
        # Passes when the files are written that Envoy needs to start.
        "startupProbe": http_probe("/startup", "policy", period=1, timeout=5, failures=120),
        "livenessProbe": http_probe("/healthz", "policy", period=10, timeout=5, failures=6),
        "readinessProbe": http_probe("/readyz", "policy", period=2, timeout=5, failures=3),
        "resources": _POLICY_RESOURCES,
        **container_defaults(),
        "volumeMounts": [
            *_run_mounts(),
            _mount("tmp", "/tmp"),  # noqa: S108 - a path in the container
            _mount("token", TOKEN_DIRECTORY, readOnly=True),
        ],
    }


def _envoy_container(gateway: ApiGateway, settings: OperatorSettings) -> Object:
    return {
        "name": "envoy",
        "image": settings.envoy_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/local/bin/envoy"],
        "args": [
            "--config-path",
            f"{RUN_DIRECTORY}/bootstrap.json",
            "--log-level",
            "warning",
            # No shared memory is needed without hot restart, and there is none in a read-only container.
            "--disable-hot-restart",
            # A listener that is replaced keeps its streams as long as the longest may be idle.
            "--drain-time-s",
            "3600",
            # How soon the policy learns of a request's end, by the access log, and that a place at an engine is free.
            "--file-flush-interval-msec",
            "50",
            # One worker per core of a big node would cost memory for nothing: one carries 10,000 requests a second.
            "--concurrency",
            str(_workers(gateway)),
        ],
        "ports": [{"name": "http", "containerPort": ENVOY_PORT, "protocol": "TCP"}],
        "readinessProbe": http_probe("/readyz", POLICY_PORT, period=2, timeout=5, failures=3),
        # The policy service makes Envoy refuse new connections and answers when the last request is done.
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": DRAIN_PORT}}},
        "resources": gateway.spec.resources if gateway.spec.resources is not None else _ENVOY_RESOURCES,
        **container_defaults(),
        "volumeMounts": [*_run_mounts(), _mount("tmp", "/tmp")],  # noqa: S108
    }


def account_token_sources() -> list[Object]:
    """The usual files of a ServiceAccount, for the one container that needs them."""
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]


def _spread_over_nodes(gateway: ApiGateway) -> Object:
    term = {
        "labelSelector": {"matchLabels": selector_labels(gateway, COMPONENT)},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _workers(gateway: ApiGateway) -> int:
    limit = _limit(gateway, "cpu")
    return DEFAULT_WORKERS if limit is None else max(1, ceil(limit))


def _envoy_heap_bytes(gateway: ApiGateway) -> int | None:
    """Envoy refuses requests before the kernel ends it: at nine tenths of its memory limit, where it has one."""
    limit = _limit(gateway, "memory")
    return None if limit is None else int(limit * 9 / 10)


def _limit(gateway: ApiGateway, name: str) -> Decimal | None:
    limits = (gateway.spec.resources or {}).get("limits") or {}
    try:
        return parse_quantity(limits[name]) if name in limits else None
    except ValueError as error:
        where = f"ApiGateway {gateway.metadata.name}: spec.resources.limits.{name}"
        raise Stalled("InvalidSpec", f"{where}: {error}") from error


def _run_mounts() -> list[Object]:
    """What both containers share."""
    return [_mount("run", RUN_DIRECTORY), _mount("log", f"{RUN_DIRECTORY}/log")]


def _mount(name: str, path: str, **more: Any) -> Object:
    return {"name": name, "mountPath": path, **more}
