"""Keeps the newest sample, and waits until an engine that is going away has nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from stoker.agent.engine import Sample

DRAIN_LEAST_SECONDS = 2.0
"""Gateways need a moment to look away from a terminating endpoint; until then requests still arrive."""
DRAIN_INTERVAL_SECONDS = 0.5
DRAIN_IDLE_SAMPLES = 2
"""In a row: an engine's count of waiting requests lags behind a burst."""
STALE_AFTER_INTERVALS = 3

DrainEnd = Literal["NeverReady", "Idle", "EngineGone", "TimedOut"]


class EngineWatch:
    """Samples by itself every interval, and more often while somebody drains; all drains share those samples."""

    def __init__(self, read_sample: Callable[[], Awaitable[Sample]], interval: float, timeout: float) -> None:
        self._read_sample = read_sample
        self._interval = interval
        self._longest_age = STALE_AFTER_INTERVALS * interval + timeout
        self._sample: Sample | None = None
        self._sampled = asyncio.Condition()
        self._hurry = asyncio.Event()
        self.was_ready = False
        self.drains = 0

    @property
    def sample(self) -> Sample | None:
        """The newest sample; None before the first one and when it is too old to be true."""
        sample = self._sample
        if sample is None or asyncio.get_running_loop().time() - sample.at > self._longest_age:
            return None
        return sample

    async def run(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            sample = await self._read_sample()
            async with self._sampled:
                self._sample = sample
                # An engine that counts its requests has its model, also when it is too busy to answer for its health.
                self.was_ready = self.was_ready or sample.loaded is True or sample.running is not None
                self._sampled.notify_all()
            pause = DRAIN_INTERVAL_SECONDS if self.drains else self._interval
            try:
                async with asyncio.timeout(max(0.0, started + pause - loop.time())):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()

    async def drain(self, timeout_seconds: float) -> DrainEnd:
        """Return when the engine is idle or the time is over.

        Only waits and changes nothing: where NetworkPolicy is not enforced any pod may call this. Unknown load counts
        as load, unless nobody listens any more.
        """
        if self._sample is None:
            # This agent has just been started again beside an engine that may well be serving.
            async with self._sampled:
                await self._sampled.wait()
        if not self.was_ready:
            # A startup probe that failed: no request ever came, and waiting would only delay the next try.
            return "NeverReady"
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.drains += 1
        self._hurry.set()
        idle = 0
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    async with self._sampled:
                        await self._sampled.wait()
                    sample = self._sample
                    if sample is None or loop.time() - started < min(DRAIN_LEAST_SECONDS, timeout_seconds):
                        continue
                    if not sample.listening:
                        return "EngineGone"
                    idle = idle + 1 if sample.idle else 0
                    if idle >= DRAIN_IDLE_SAMPLES:
                        return "Idle"
        except TimeoutError:
            return "TimedOut"
        finally:
            self.drains -= 1
