"""The work queue: each name at most once, one task at a time per name, later again after an error."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

FIRST_BACKOFF_SECONDS = 0.25
LONGEST_BACKOFF_SECONDS = 300.0


class WorkKey(NamedTuple):
    """An object to look at."""

    kind: str
    namespace: str
    name: str


Handler = Callable[[WorkKey], Awaitable[float | None]]
"""Works on one object; says after how many seconds to look at it again, None for not by itself."""


class WorkQueue:
    """Names waiting for a worker, now or at a time."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready: dict[WorkKey, None] = {}
        self._due: dict[WorkKey, float] = {}
        self._heap: list[tuple[float, WorkKey]] = []
        self._running: dict[WorkKey, float] = {}
        self._again: dict[WorkKey, float] = {}
        self._failures: dict[WorkKey, int] = {}
        self._changed = asyncio.Event()
        self._newest = False
        self._last_progress = clock()

    def add(self, key: WorkKey, *, delay: float = 0.0) -> None:
        """Have the object looked at, after ``delay`` seconds at the latest; an earlier appointment stands."""
        if key in self._running:
            self._again[key] = min(delay, self._again.get(key, delay))
            return
        if key in self._ready:
            return
        if delay <= 0:
            self._due.pop(key, None)
            if not self._ready:
                self._last_progress = self._clock()
            self._ready[key] = None
        else:
            due = self._clock() + delay
            if due >= self._due.get(key, float("inf")):
                return
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
        self._changed.set()

    @property
    def depth(self) -> int:
        """Names that could be worked on now."""
        return len(self._ready)

    @property
    def running(self) -> int:
        """Names being worked on."""
        return len(self._running)

    def stuck_for(self) -> float:
        """Seconds since a worker last took a name although some were waiting, or since the oldest running one began."""
        now = self._clock()
        waiting = now - self._last_progress if self._ready else 0.0
        return max([waiting, *(now - since for since in self._running.values())])

    def forget(self, key: WorkKey) -> None:
        """The object is gone: its failures do not count for a new one of its name."""
        self._failures.pop(key, None)

    async def run(self, workers: int, handler: Handler) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(handler))

    async def _work(self, handler: Handler) -> None:
        while True:
            key = await self._take()
            retry: float | None
            try:
                retry = await handler(key)
            except Exception:
                # The handler has told about it; here it only decides when to try again.
                failures = self._failures.get(key, 0)
                self._failures[key] = failures + 1
                retry = backoff(failures)
            else:
                self._failures.pop(key, None)
            finally:
                del self._running[key]
            again = self._again.pop(key, None)
            if again is not None and key not in self._failures:
                retry = again if retry is None else min(again, retry)
            if retry is not None:
                self.add(key, delay=retry)

    async def _take(self) -> WorkKey:
        while True:
            now = self._clock()
            while self._heap and self._heap[0][0] <= now:
                due, key = heapq.heappop(self._heap)
                if self._due.get(key) == due:
                    del self._due[key]
                    self._ready[key] = None
            if self._ready:
                break
            self._changed.clear()
            timeout = self._heap[0][0] - now if self._heap else None
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                continue
        # By turns the oldest and the newest: behind a thousand others a new object is served soon, and none waits for ever.
        self._newest = not self._newest
        key = next(reversed(self._ready)) if self._newest else next(iter(self._ready))
        del self._ready[key]
        self._running[key] = self._last_progress = self._clock()
        return key


def backoff(failures: int) -> float:
    """Seconds until the next try: doubled each time, up to five minutes, with jitter so that many do not come at once."""
    longest = min(FIRST_BACKOFF_SECONDS * 2**failures, LONGEST_BACKOFF_SECONDS)
    return longest * (0.5 + random.random() / 2)  # noqa: S311
