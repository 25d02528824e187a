"""Finding things in a pod's spec."""

from __future__ import annotations

from typing import Any

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What Pod Security *restricted* asks of a container, and the user that Stoker's pods have."""


def container(spec, name: str) -> Any:
    return next(c for c in (*spec["initContainers"], *spec["containers"]) if c["name"] == name)


def volume(spec: Any, name: str) -> Any:
    return next(v for v in spec["volumes"] if v["name"] == name)


def env(spec: Any, name: str) -> dict[str, Any]:
    return {variable["name"]: variable for variable in container(spec, name)["env"]}


def mount(spec: Any, path: str) -> Any:
    return next(m for m in container(spec, "engine")["volumeMounts"] if m["mountPath"] == path)
