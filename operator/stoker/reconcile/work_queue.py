"""The work queue: each name at most once, one task at a time per name, later again after an error."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
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

    def __init__(self) -> None:
        self._clock = time.monotonic
        self._ready: dict[WorkKey, None] = {}
        self._due: dict[WorkKey, float] = {}
        self._heap: list[tuple[float, WorkKey]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[WorkKey, float] = {}
        self._again: dict[WorkKey, float] = {}
        self._failures: dict[WorkKey, int] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._newest = False
        self._last_taken = self._clock()

    def add(self, key: WorkKey, *, delay: float = 0.0) -> None:
        """Have the object looked at, after ``delay`` seconds at the latest; an earlier appointment stands."""
        if key in self._running:
            self._again[key] = min(delay, self._again.get(key, delay))
        elif key in self._ready:
            return
        elif delay <= 0:
            self._make_ready(key)
        else:
            due = self._clock() + delay
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._set_timer()

    @property
    def depth(self) -> int:
        """Names that could be worked on now."""
        return len(self._ready)

    @property
    def running(self) -> int:
        """Names being worked on."""
        return len(self._running)

    def stuck_for(self) -> float:
        """For how long the longest task has been running, or names have been waiting and none was taken."""
        now = self._clock()
        waiting = now - self._last_taken if self._ready else 0.0
        return max([waiting, *(now - since for since in self._running.values())])

    def forget(self, key: WorkKey) -> None:
        """The object is gone: its failures do not count for a new one of its name."""
        self._failures.pop(key, None)

    def close(self) -> None:
        """Hand out no more names; what is being worked on may finish."""
        self._closed = True

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
            delays = [delay for delay in (retry, self._again.pop(key, None)) if delay is not None]
            if delays:
                self.add(key, delay=min(delays))

    async def _take(self) -> WorkKey:
        while self._closed or not self._ready:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(turn)
            await turn
        # By turns the oldest and the newest: behind a thousand others a new object is served soon, and none waits for ever.
        self._newest = not self._newest
        key = next(reversed(self._ready)) if self._newest else next(iter(self._ready))
        del self._ready[key]
        self._running[key] = self._last_taken = self._clock()
        return key

    def _make_ready(self, key: WorkKey) -> None:
        self._due.pop(key, None)
        if not self._ready:
            self._last_taken = self._clock()
        self._ready[key] = None
        while self._idle:
            turn = self._idle.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if self._heap:
            wait = max(0.0, self._heap[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_timer)

    def _on_timer(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self._make_ready(key)
        self._set_timer()


def backoff(failures: int) -> float:
    """Seconds until the next try: doubled each time, up to five minutes, with jitter so that many do not come at once."""
    longest: float = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 32), LONGEST_BACKOFF_SECONDS)
    return longest * (0.5 + random.random() / 2)  # noqa: S311
