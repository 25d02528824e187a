"""Reading plain Kubernetes objects: who owns them, and what of them is worth keeping."""

from __future__ import annotations

import base64

from stoker.api.names import OWNER_LABELS
from stoker.cluster.resource_types import Object

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def trim(obj: Object) -> Object:
    """Without what nobody here asks for: managed fields alone are half of a small object."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    if _LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != _LAST_APPLIED}
    return {**obj, "metadata": metadata}


def controller_uid(obj: Object) -> str:
    """UID of the object's controller; empty where it has none."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return ""


def owner_of_child(obj: Object) -> tuple[str, str] | None:
    """(kind, name) of the object of ours that controls this one."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and reference["kind"] in OWNER_LABELS:
            return reference["kind"], reference["name"]
    return None


def owner_of_pod(obj: Object) -> tuple[str, str] | None:
    """(kind, name) of our object, by the labels that the pod template carries."""
    labels = obj["metadata"].get("labels") or {}
    for kind, label in OWNER_LABELS.items():
        if label in labels:
            return kind, labels[label]
    return None


def secret_bytes(secret: Object | None, field: str) -> bytes | None:
    """What a Secret holds, to the byte; None where the Secret or the field is not there."""
    try:
        return base64.b64decode(((secret or {}).get("data") or {})[field], validate=True)
    except (KeyError, TypeError, ValueError):
        # Of the API server it is always base64 of text; a field without a value is null.
        return None


def secret_text(secret: Object | None, field: str) -> str:
    """The same as text; empty where it is not there or is none. A line end stays, for a shared secret may end in one."""
    try:
        return (secret_bytes(secret, field) or b"").decode()
    except UnicodeDecodeError:
        return ""


def awaits_pods(deployment: Object) -> bool:
    """Whether Kubernetes still has to make the first pod of a Deployment."""
    wanted = (deployment.get("spec") or {}).get("replicas", 1)
    return wanted > 0 and not (deployment.get("status") or {}).get("replicas")
