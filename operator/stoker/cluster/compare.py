"""Whether a child in the cluster still is what it should be, without asking the API server.

A write that changes nothing still costs the API server a decode, an admission and a comparison; a thousand models times seven children
would keep it busy at every resync. So: the hash of what was applied is kept on the child, and our fields in it are compared here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from stoker.api.base import GROUP
from stoker.cluster.resource_types import Object

APPLIED_ANNOTATION = f"{GROUP}/applied"
"""On every child: hash of what was applied. It tells when a field has to go, which comparing with the live object cannot."""

# Lists that Kubernetes merges by key: others may add items, and apply could not remove them.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
}
# Maps that apply replaces as a whole, so that a key too many is an edit to be put back.
_WHOLE_MAPS = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels", "nodeSelector", "data"})
# Here a key too many may open a door, and the API server adds nothing but these defaults.
_EXACT_KINDS = frozenset({"NetworkPolicy", "Role", "RoleBinding"})
_EXACT_DEFAULTS = {"protocol": "TCP"}
_QUANTITY_PARENTS = frozenset({"requests", "limits", "capacity"})
_QUANTITY_FIELDS = frozenset({"sizeLimit"})
_SUFFIXES = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** (power + 1) for power, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Decimal(1024) ** (power + 1) for power, unit in enumerate("KMGTPE")},
}


def content_hash(desired: Object) -> str:
    """Hash of a child as built; the same content gives the same hash, whatever the order of keys."""
    return hashlib.sha256(orjson.dumps(desired, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def applied_hash(live: Object) -> str:
    """Hash of what was last applied to this object."""
    return str((live["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION, ""))


def find_drift(desired: Object, live: Object) -> frozenset[str]:
    """Paths of our fields that differ in the live object; empty when everything is as applied."""
    return frozenset(_differences(desired, live, "", exact=False, kind=str(desired.get("kind", ""))))


def _differences(desired: Any, live: Any, path: str, *, exact: bool, kind: str) -> Iterator[str]:
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            yield path
            return
        for key, value in desired.items():
            below = f"{path}.{key}"
            if key not in live:
                if value not in (None, "") and value != []:
                    yield below
                continue
            exact_below = exact or (not path and kind in _EXACT_KINDS and key != "metadata")
            yield from _differences(value, live[key], below, exact=exact_below, kind=kind)
        if exact or path.rpartition(".")[2] in _WHOLE_MAPS:
            for key, value in live.items():
                if key not in desired and _EXACT_DEFAULTS.get(key) != value:
                    yield f"{path}.{key}"
    elif isinstance(desired, list):
        yield from _list_differences(desired, live, path, exact=exact, kind=kind)
    elif desired != live and not _same_quantity(desired, live, path):
        yield path


def _list_differences(desired: list[Any], live: Any, path: str, *, exact: bool, kind: str) -> Iterator[str]:
    if not isinstance(live, list):
        yield path
        return
    field = path.rpartition(".")[2]
    merge_key = None if exact else _MERGE_KEYS.get(field)
    if field == "ports" and not exact:
        merge_key = "containerPort" if kind == "Deployment" else "port"
    if merge_key is None:
        if len(desired) != len(live):
            yield path
            return
        for index, (item, live_item) in enumerate(zip(desired, live, strict=True)):
            yield from _differences(item, live_item, f"{path}[{index}]", exact=exact, kind=kind)
        return
    by_key = {item.get(merge_key): item for item in live if isinstance(item, dict)}
    for item in desired:
        name = item.get(merge_key)
        below = f"{path}[{name}]"
        if name not in by_key:
            yield below
        else:
            yield from _differences(item, by_key[name], below, exact=exact, kind=kind)


def _same_quantity(desired: Any, live: Any, path: str) -> bool:
    *_, parent, field = ("", *path.split("."))
    if parent not in _QUANTITY_PARENTS and field not in _QUANTITY_FIELDS:
        return False
    try:
        return parse_quantity(desired) == parse_quantity(live)
    except (InvalidOperation, KeyError):
        return False


def parse_quantity(text: str | int | float) -> Decimal:
    """The number behind a Kubernetes quantity: the API server writes 0.5 back as 500m and 1024Mi as 1Gi."""
    value = str(text)
    digits = value.rstrip("mkMGTPEKi")
    suffix = value[len(digits) :]
    # 1E is a suffix, 1E3 an exponent.
    return Decimal(digits) * _SUFFIXES[suffix]
