"""Finding things in a pod's spec."""

from __future__ import annotations

from typing import Any


def container(spec, name: str) -> Any:
    return next(c for c in (*spec["initContainers"], *spec["containers"]) if c["name"] == name)


def volume(spec: Any, name: str) -> Any:
    return next(v for v in spec["volumes"] if v["name"] == name)


def env(spec: Any, name: str) -> dict[str, Any]:
    return {variable["name"]: variable for variable in container(spec, name)["env"]}


def mount(spec: Any, path: str) -> Any:
    return next(m for m in container(spec, "engine")["volumeMounts"] if m["mountPath"] == path)
