"""Replicas that cannot be reached, though the cluster still says they are ready: a node that has died, an engine that has crashed.

Envoy counts failed connections by address; whoever has had some since the last reading, and answered nothing, gets no more requests.
From then on this process tries to connect, once a second, so that no caller pays for finding out that the replica is back.
Envoy's own outlier detection would not do: it does not keep a replica from a request that names it, as all of ours do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

PROBE_SECONDS = 1.0
CONNECT_SECONDS = 1.0
"""As long as Envoy waits for a connection."""


@dataclass(slots=True)
class Gauges:
    """What Envoy counts, by address; addresses without any are left out."""

    active: dict[str, int] = field(default_factory=dict)
    """Requests that run there."""
    failed: dict[str, int] = field(default_factory=dict)
    """Connections that could not be made, since the address is known."""
    answered: dict[str, int] = field(default_factory=dict)
    """Answers below 500, since then."""


async def can_connect(address: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class Outliers:
    """Who is left out at the moment."""

    def __init__(
        self,
        tell: Callable[[frozenset[str]], None],
        first: Gauges,
        connect: Callable[[str], Awaitable[bool]] = can_connect,
    ) -> None:
        self.out: frozenset[str] = frozenset()
        self._tell = tell
        self._connect = connect
        self._last = first
        """The reading before; at first one that nobody is judged by, for it may tell of long ago."""
        self._some = asyncio.Event()

    def look(self, gauges: Gauges, replicas: frozenset[str]) -> None:
        """Compare with the reading before; `replicas` are all that are ready."""
        last, self._last = self._last, gauges
        gone = {
            address
            for address, failed in gauges.failed.items()
            # A counter that is lower than before has begun anew.
            if failed != last.failed.get(address, 0)
            and gauges.answered.get(address, 0) == last.answered.get(address, 0)
        }
        self._change((self.out | gone) & replicas)

    async def follow(self) -> None:
        """Endless; whoever can be reached again is let in again."""
        while True:
            await self._some.wait()
            await asyncio.sleep(PROBE_SECONDS)
            tried = sorted(self.out)
            reached = await asyncio.gather(*(self._connect(address) for address in tried))
            self._change(self.out - {address for address, back in zip(tried, reached, strict=True) if back})

    def _change(self, out: frozenset[str]) -> None:
        if out == self.out:
            return
        for address in sorted(out - self.out):
            logger.warning("replica %s cannot be reached: it gets no requests until it can", address)
        for address in sorted(self.out - out):
            logger.info("replica %s can be reached again, or is gone", address)
        self.out = out
        if out:
            self._some.set()
        else:
            self._some.clear()
        self._tell(out)
