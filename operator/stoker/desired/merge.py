"""Merging a user's podTemplate over the generated one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.desired.objects import Object
from stoker.errors import Stalled

_LIST_KEYS = {"volumeMounts": "mountPath", "ports": "containerPort", "volumeDevices": "devicePath", "hostAliases": "ip"}
"""Lists whose items are known by something else than ``name``."""


def merge_pod_template(template: Object, patch: Mapping[str, Any], where: str) -> Object:
    """Lay ``patch`` over a pod template; labels that select the pods are put back by the caller."""
    for key, value in patch.items():
        if key not in ("metadata", "spec") or not isinstance(value, Mapping):
            raise Stalled(
                "InvalidPodTemplate",
                f"{where}: spec.podTemplate.{key} is not part of a pod template: it may hold metadata and spec",
            )
    merged = merge(template, patch)
    spec = merged.get("spec", {})
    for field in ("containers", "initContainers", "volumes"):
        items = spec.get(field, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) and item.get("name") for item in items):
            raise Stalled(
                "InvalidPodTemplate",
                f"{where}: every item of spec.podTemplate.spec.{field} needs a name: lists are merged by it",
            )
    return merged


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    """Strategic merge: mappings deeply, lists by their items' key, null removes, anything else replaces."""
    merged = dict(base)
    for key, value in patch.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge(old if isinstance(old, Mapping) else {}, value)
        elif isinstance(value, list) and isinstance(old, list):
            merged[key] = _merge_lists(key, old, value)
        else:
            merged[key] = value
    return merged


def _merge_lists(field: str, base: list[Any], patch: list[Any]) -> list[Any]:
    key = _LIST_KEYS.get(field, "name")
    if not all(isinstance(item, Mapping) and item.get(key) is not None for item in (*base, *patch)):
        return list(patch)
    items = {item[key]: item for item in base}
    for item in patch:
        items[item[key]] = merge(items.get(item[key], {}), item)
    return list(items.values())
