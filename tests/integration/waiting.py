"""Waiting for what the API server tells, by watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from stoker.cluster.client import KubeClient, Object, ResourceType

PATIENCE = 90.0
"""For what comes by itself, on a slow machine, too. Promises in seconds are measured beside it (awake)."""


async def until(
    client: KubeClient,
    resource: ResourceType,
    namespace: str,
    name: str,
    holds: Callable[[Object], Any],
    *,
    timeout: float = PATIENCE,
) -> Object:
    """The object as soon as ``holds`` is true of it; what it was last when it never is."""
    last: Object | None = None
    try:
        async with asyncio.timeout(timeout):
            async for event in client.watch(resource, namespace, name=name):
                for obj in event.items or ([event.object] if event.object and event.type != "DELETED" else []):
                    last = obj
                    if holds(obj):
                        return obj
    except TimeoutError:
        shown = (last or {}).get("status", last)
        raise AssertionError(f"{resource.kind} {name} after {timeout} s: {shown}") from None
    raise AssertionError("a watch never ends")


async def until_gone(
    client: KubeClient,
    resource: ResourceType,
    namespace: str,
    name: str,
    *,
    timeout: float = PATIENCE,
) -> None:
    """Return when there is no such object."""
    async with asyncio.timeout(timeout):
        async for event in client.watch(resource, namespace, name=name):
            if event.type == "DELETED" or (event.type == "LISTED" and not event.items):
                return


def condition(obj: Object, kind: str) -> Object:
    """A condition by its type; empty where it is not there."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def reason(obj: Object, kind: str = "Ready") -> str:
    """Why a condition is what it is."""
    return str(condition(obj, kind).get("reason", ""))


def is_ready(obj: Object) -> bool:
    """Ready, for the present generation, and nothing under way."""
    ready = condition(obj, "Ready")
    return (
        ready.get("status") == "True"
        and ready.get("observedGeneration") == obj["metadata"]["generation"]
        and not condition(obj, "Reconciling")
        and not condition(obj, "Stalled")
    )
