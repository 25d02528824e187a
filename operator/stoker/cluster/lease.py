"""Leader election by a Lease: one operator acts, the others wait.

A Lease does not fence: a leader that sleeps through its term may wake and write once more. Server-side apply and create-if-absent make
that harmless. Unlike the Kubernetes library's lock this one is given back at the end, so that a rollout hands over at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from stoker.cluster.client import KubeClient
from stoker.cluster.errors import ApiError
from stoker.cluster.resource_types import LEASES, Object

logger = logging.getLogger(__name__)

TERM_SECONDS = 8
RENEW_WITHIN_SECONDS = 5.0
RETRY_SECONDS = 1.0
# A request that hangs must leave time for another within the renewal deadline.
REQUEST_SECONDS = 2.0


@dataclass
class _Seen:
    """The Lease as last seen, and since when it has been like that by our own clock."""

    record: tuple[str, str]
    since: float


class LeaderLease:
    """The right to act; held while renewed."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._seen: _Seen | None = None
        self._renewed_at = 0.0
        self.leading = False

    async def acquire(self) -> None:
        """Wait until this process is the leader."""
        while not await self._try():  # noqa: ASYNC110
            await asyncio.sleep(RETRY_SECONDS * (0.8 + random.random() * 0.4))  # noqa: S311
        self.leading = True
        logger.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renew until it fails for too long; returns when the right to act is lost."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if not await self._try() and (not self._mine() or self._clock() - self._renewed_at > RENEW_WITHIN_SECONDS):
                self.leading = False
                return

    async def release(self) -> None:
        """Give the Lease back, so that the next leader need not wait for its end."""
        if not self.leading:
            return
        self.leading = False
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                lease = await self._client.get(LEASES, self._namespace, self._name)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"].update(holderIdentity="", leaseDurationSeconds=1, renewTime=_now())
                    await self._client.replace(LEASES, lease)
        except (ApiError, TimeoutError) as error:
            logger.warning("the lease could not be given back, the next leader waits for its end: %s", error)

    def _mine(self) -> bool:
        return self._seen is not None and self._seen.record[0] == self._identity

    async def _try(self) -> bool:
        """Take or renew the Lease; False while somebody else holds it or the API server does not answer."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._take_or_renew()
        except (ApiError, TimeoutError) as error:
            if not (isinstance(error, ApiError) and error.status == 409):
                logger.warning("lease %s/%s: %s", self._namespace, self._name, error or "no answer in time")
            return False

    async def _take_or_renew(self) -> bool:
        started = self._clock()
        lease = await self._client.get(LEASES, self._namespace, self._name)
        if lease is None:
            lease = await self._client.create(LEASES, self._new_lease())
        else:
            spec = lease["spec"]
            holder = spec.get("holderIdentity") or ""
            record = (holder, str(spec.get("renewTime")))
            if self._seen is None or self._seen.record != record:
                self._seen = _Seen(record, self._clock())
            # Clocks of nodes differ, so a term ends when we have watched it unrenewed for its length.
            over = self._clock() - self._seen.since > spec.get("leaseDurationSeconds", TERM_SECONDS)
            if holder not in ("", self._identity) and not over:
                return False
            taken_over = holder != self._identity
            spec.update(holderIdentity=self._identity, leaseDurationSeconds=TERM_SECONDS, renewTime=_now())
            if taken_over:
                spec["acquireTime"] = spec["renewTime"]
                spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
            lease = await self._client.replace(LEASES, lease)
        self._seen = _Seen((self._identity, str(lease["spec"].get("renewTime"))), self._clock())
        self._renewed_at = started
        return True

    def _new_lease(self) -> Object:
        now = _now()
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"namespace": self._namespace, "name": self._name},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": TERM_SECONDS,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
