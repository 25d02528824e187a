"""Replicas that do not serve, though the cluster still says they are ready: a node that has died, an engine that has crashed or breaks off.

Two signs. Envoy counts failed connections by address: whoever has had some since the last reading, and answered nothing, gets no more
requests. And the access log tells whose answers broke off, or were no HTTP: after two in a row, that replica gets no more, either.
From then on this process asks it something harmless, once a second, so that no caller pays for finding out that it is back. One that
answers those and goes on breaking off is asked more and more rarely.
Envoy's own outlier detection would not do: it does not keep a replica from a request that names it, as all of ours do.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stoker.gateway.endings import Gauges, parse_lines

logger = logging.getLogger(__name__)

PROBE_SECONDS = 1.0
CONNECT_SECONDS = 1.0
"""As long as Envoy waits for a connection."""
ANSWER_SECONDS = 2.0
QUESTION = b"GET /health HTTP/1.1\r\nhost: stoker\r\nconnection: close\r\n\r\n"
"""Any answer will do, "not found" included: that is the one thing all engines have in common."""
MOST_BROKEN = 2
"""Answers in a row; a single one may have met a connection that was just being closed."""
LONGEST_PAUSE_SECONDS = 30.0
FORGET_SECONDS = 300.0
"""A broken answer this old tells nothing of the next one."""
# UC: the connection ended before the answer did; UPE: what came was no HTTP. Envoy names these before any other of a line.
BROKEN = re.compile(rb'"flags":"U(?:C|PE)\b')


async def does_answer(address: str) -> bool:
    """Whether somebody there speaks HTTP."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(QUESTION)
                return await reader.readexactly(5) == b"HTTP/"
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return False


@dataclass(slots=True)
class _Broken:
    """A replica's answers that broke off, with no whole one between them."""

    count: int = 0
    last_at: float = 0.0
    pause: float = 0.0
    """Seconds of the last one."""
    over_at: float = 0.0
    """When it may be asked again."""


class Outliers:
    """Who is left out at the moment."""

    def __init__(
        self,
        tell: Callable[[frozenset[str]], None],
        first: Gauges,
        answers: Callable[[str], Awaitable[bool]] = does_answer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out: frozenset[str] = frozenset()
        self._tell = tell
        self._answers = answers
        self._clock = clock
        self._last = first
        """The reading before; at first one that nobody is judged by, for it may tell of long ago."""
        self._broken: dict[str, _Broken] = {}
        self._some = asyncio.Event()

    def read_gauges(self, gauges: Gauges, replicas: frozenset[str]) -> None:
        """Compare with the reading before; `replicas` are all that are ready."""
        last, self._last = self._last, gauges
        gone = {
            address
            for address, failed in gauges.failed.items()
            # A counter that is lower than before has begun anew.
            if failed != last.failed.get(address, 0)
            and gauges.answered.get(address, 0) == last.answered.get(address, 0)
        }
        oldest = self._clock() - FORGET_SECONDS
        self._broken = {
            address: broken
            for address, broken in self._broken.items()
            if address in replicas and (address in self.out or broken.last_at > oldest)
        }
        self._change((self.out | gone) & replicas, "cannot be reached")

    def read_log(self, lines: bytes, replicas: Callable[[], frozenset[str]]) -> None:
        """Whole lines. What is ready is only asked for when one of them tells of a broken answer."""
        if not self._broken and BROKEN.search(lines) is None:
            return
        out = set[str]()
        for line in parse_lines(lines):
            address = line.get("upstream")
            if not isinstance(address, str):
                continue
            if str(line.get("flags")).startswith(("UC", "UPE")):
                if self._breaks_off(address):
                    out.add(address)
            elif "first_byte_ms" in line:
                self._broken.pop(address, None)
                out.discard(address)
        if out:
            self._change(self.out | (out & replicas()), "breaks off its answers")

    def _breaks_off(self, address: str) -> bool:
        """Whether that was once too often."""
        now = self._clock()
        broken = self._broken.setdefault(address, _Broken())
        broken.count += 1
        broken.last_at = now
        if broken.count < MOST_BROKEN or address in self.out:
            return False
        if now >= broken.over_at:
            broken.pause = min(2 * broken.pause or PROBE_SECONDS, LONGEST_PAUSE_SECONDS)
            broken.over_at = now + broken.pause
        return True

    async def follow(self) -> None:
        """Endless."""
        while True:
            await self._some.wait()
            await asyncio.sleep(PROBE_SECONDS)
            await self.ask()

    async def ask(self) -> None:
        """Ask whoever may be asked by now, and let in again whoever answers."""
        now = self._clock()
        tried = [a for a in sorted(self.out) if (broken := self._broken.get(a)) is None or now >= broken.over_at]
        answered = await asyncio.gather(*(self._answers(address) for address in tried))
        self._change(self.out - {address for address, back in zip(tried, answered, strict=True) if back})

    def _change(self, out: frozenset[str], why: str = "") -> None:
        if out == self.out:
            return
        for address in sorted(out - self.out):
            logger.warning("replica %s %s: it gets no requests until it answers", address, why)
        for address in sorted(self.out - out):
            logger.info("replica %s answers again, or is gone", address)
        self.out = out
        if out:
            self._some.set()
        else:
            self._some.clear()
        self._tell(out)
