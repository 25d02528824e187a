"""What all children share: metadata, the owner, Pod Security, references between objects."""

from __future__ import annotations

import base64
import json
from typing import Any

from stoker.api.api_gateway import ApiGateway
from stoker.api.base import API_VERSION, Resource
from stoker.api.names import COMPONENT, OWNER_LABELS, child_labels
from stoker.api.resolved import OperatorSettings

PORTAL_COMPONENT = "portal"
WEB_UI_COMPONENT = "web-ui"

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as it is sent."""

USER_ID = 65532
"""User and group of every process in Stoker's pods; it also owns the sockets and files that containers share."""

RUN_DIRECTORY = "/run/stoker"
"""Mount of the volume through which the containers of a pod talk to each other."""

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


def owner_reference(owner: Resource) -> Object:
    """Makes the garbage collector delete the child with its owner, also while the operator is down."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.info.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": True,
    }


def child(owner: Resource, component: str, api_version: str, kind: str, name: str, **content: Any) -> Object:
    """A child object in its owner's namespace."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.metadata.namespace,
            "labels": child_labels(owner, component),
            "ownerReferences": [owner_reference(owner)],
        },
        **content,
    }


def selector_labels(owner: Resource, component: str) -> dict[str, str]:
    """Labels that select the owner's pods; few, because a Deployment's selector can never be changed."""
    return {COMPONENT: component, OWNER_LABELS[owner.info.kind]: owner.metadata.name}


def build_disruption_budget(owner: Resource, component: str, name: str) -> Object:
    """One pod at a time may be taken away on purpose."""
    # Without the null somebody's minAvailable would stay beside ours, and with both it is refused.
    spec = {
        "maxUnavailable": 1,
        "minAvailable": None,
        "selector": {"matchLabels": selector_labels(owner, component)},
    }
    return child(owner, component, "policy/v1", "PodDisruptionBudget", name, spec=spec)


READ_ENDPOINTS = {
    "apiGroups": ["discovery.k8s.io"],
    "resources": ["endpointslices"],
    "verbs": ["get", "list", "watch"],
}
"""The rule for what has to know the addresses of pods."""


def build_rights(
    owner: Resource, component: str, name: str, rules: list[Object], accounts: list[tuple[str, str]]
) -> list[Object]:
    """A Role in the owner's namespace, and who has it: ServiceAccounts by namespace and name."""
    api = "rbac.authorization.k8s.io"
    reference = {"apiGroup": api, "kind": "Role", "name": name}
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": namespace} for namespace, account in accounts]
    return [
        child(owner, component, f"{api}/v1", "Role", name, rules=rules),
        child(owner, component, f"{api}/v1", "RoleBinding", name, roleRef=reference, subjects=subjects),
    ]


def pod_security() -> Object:
    """Pod Security *restricted*; the numeric user is for images that would start as root."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        # Without this the kubelet walks through terabytes of weights at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_defaults(*, root: bool = False, read_only_root: bool = True) -> Object:
    """What every container has, init containers included: some admission policies look at containers only."""
    user = 0 if root else USER_ID
    return {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": read_only_root,
            "runAsNonRoot": not root,
            "runAsUser": user,
            "runAsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # The last lines of the log become the message of a crash, and so of the condition.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def http_probe(path: str, port: str | int, *, period: int, timeout: int, failures: int) -> Object:
    """A probe by HTTP GET."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def operator_peer(settings: OperatorSettings) -> Object:
    """The operator's pods, as a peer of a NetworkPolicy."""
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: settings.operator_namespace}},
        "podSelector": {"matchLabels": dict(sorted(settings.operator_labels.items()))},
    }


def portal_peers(gateway: ApiGateway) -> list[Object]:
    """The portal's pod, as peers of a NetworkPolicy; none where there is no portal."""
    labels = selector_labels(gateway, PORTAL_COMPONENT)
    return [{"podSelector": {"matchLabels": labels}}] if gateway.portal is not None else []


def pull_secrets(settings: OperatorSettings, *names: str) -> list[Object]:
    """Pull secrets of the chart and of the object, each once."""
    return [{"name": name} for name in dict.fromkeys((*settings.image_pull_secrets, *names))]


def compact_json(value: Any) -> str:
    """JSON that is the same for equal values, so that nothing is written or rolled without a cause."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def secret_data(**fields: str) -> dict[str, str]:
    """The ``data`` of a Secret; ``stringData`` could not be compared with what is stored."""
    return {name: base64.b64encode(text.encode()).decode() for name, text in fields.items()}
