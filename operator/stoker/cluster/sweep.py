"""Comparing the cache with the names that the API server has now.

A watch that continues after a gap lists what there is; it does not tell what has gone meanwhile. And at the start nobody says when
all has been heard: until then a missing child may just not have been told yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from stoker.api.names import MANAGED_BY, MANAGED_BY_VALUE
from stoker.cluster.cache import Cache, Key
from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import CLUSTER_TYPES, OWN_TYPES, ResourceType

logger = logging.getLogger(__name__)

CHILD_SELECTOR = f"{MANAGED_BY}={MANAGED_BY_VALUE}"
POLL_SECONDS = 0.05
LIST_AGAIN_SECONDS = 5.0

Lose = Callable[[ResourceType, Key], None]


def selector_of(resource: ResourceType) -> str:
    """Our own kinds, namespaces and nodes are read whole; of all others only what Stoker made."""
    return "" if resource in (*OWN_TYPES, *CLUSTER_TYPES) else CHILD_SELECTOR


class Sweeper:
    """Finds what is gone, in all watched namespaces."""

    def __init__(self, client: KubeClient, cache: Cache, namespaces: Sequence[str], *, lose: Lose) -> None:
        self._client = client
        self._cache = cache
        self._namespaces = namespaces or (None,)
        self._lose = lose

    async def sweep(self, resource: ResourceType) -> None:
        """Drop what the API server no longer has."""
        known = self._cache.known(resource)
        there, as_of = await self._read(resource)
        for key, version in known.items():
            if key not in there and (version <= as_of or resource in CLUSTER_TYPES):
                logger.info("%s %s/%s is gone; no watch told it", resource.kind, *key)
                self._lose(resource, key)

    async def wait_until_heard(self, resources: Sequence[ResourceType]) -> None:
        """Return when the cache holds everything that the API server had when asked."""
        for resource in resources:
            while not await self._hears(resource):
                logger.info("still waiting for %s", resource.plural)

    async def _hears(self, resource: ResourceType) -> bool:
        """Whether all that is there now is heard of in time; else it is to be asked anew, for something may have gone."""
        there, _ = await self._read(resource)
        for _ in range(int(LIST_AGAIN_SECONDS / POLL_SECONDS)):
            known = self._cache.known(resource)
            if all(known.get(key, 0) >= version for key, version in there.items()):
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _read(self, resource: ResourceType) -> tuple[dict[Key, int], int]:
        """Versions of everything that should be known, and the oldest moment they are from."""
        there: dict[Key, int] = {}
        moments = []
        for namespace in self._namespaces if resource.namespaced else (None,):
            versions, as_of = await self._client.list_versions(
                resource, namespace, label_selector=selector_of(resource)
            )
            there.update(versions)
            moments.append(as_of)
        return there, min(moments)
