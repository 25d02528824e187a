"""Taking a replica out of routing before it is asked to go, and putting it back when it is needed after all."""

from __future__ import annotations

import asyncio
import logging

from stoker.api.names import ROUTABLE_LABEL
from stoker.cluster.client import KubeClient
from stoker.cluster.errors import ApiError
from stoker.cluster.resource_types import PODS, Object

logger = logging.getLogger(__name__)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Of the ready pods of a ReplicaSet the one with the least goes first; all others have 0."""


async def take_out_of_routing(client: KubeClient, namespace: str, pod: str) -> None:
    """No gateway sends it another request, and it is the first that its ReplicaSet lets go."""
    await _patch(client, namespace, pod, "false", "-1000")


async def restore_routing(client: KubeClient, namespace: str, pods: list[str]) -> None:
    """The reverse; what fails is tried again in the next round."""
    try:
        await asyncio.gather(*(_patch(client, namespace, pod, "true", None) for pod in pods))
    except ApiError as error:
        logger.warning("pods of %s cannot be put back into routing now: %s", namespace, error)


async def _patch(client: KubeClient, namespace: str, pod: str, routable: str, cost: str | None) -> None:
    patch: Object = {"metadata": {"labels": {ROUTABLE_LABEL: routable}, "annotations": {DELETION_COST: cost}}}
    try:
        await client.merge(PODS, namespace, pod, patch)
    except ApiError as error:
        if error.status != 404:
            raise
