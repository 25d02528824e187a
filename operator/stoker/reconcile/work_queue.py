"""The work queue: each name at most once, one task at a time per name, later again after an error."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

FIRST_BACKOFF_SECONDS = 0.25
LONGEST_BACKOFF_SECONDS = 300.0
# Only these come by the thousand, and each makes much work for Kubernetes.
PACED_KIND = "ModelDeployment"
LEAST_PACE_SECONDS = 0.1


class WorkKey(NamedTuple):
    """An object to look at."""

    kind: str
    namespace: str
    name: str


Handler = Callable[[WorkKey], Awaitable[float | None]]
"""Works on one object; says after how many seconds to look at it again, None for not by itself."""


class WorkQueue:
    """Names waiting for a worker, now or at a time."""

    def __init__(self, *, may_start: Callable[[], bool] = lambda: True) -> None:
        """``may_start`` says whether Kubernetes keeps up with what was begun, so that new names may be handed out."""
        self._clock = time.monotonic
        self._may_start = may_start
        # Names never worked on before, and the others; in the order in which they came.
        self._fresh: OrderedDict[WorkKey, None] = OrderedDict()
        self._repeated: OrderedDict[WorkKey, None] = OrderedDict()
        self._known: set[WorkKey] = set()
        self._due: dict[WorkKey, float] = {}
        self._heap: list[tuple[float, WorkKey]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[WorkKey, float] = {}
        self._again: dict[WorkKey, float] = {}
        self._failures: dict[WorkKey, int] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._turn = 0
        self._last_taken = self._last_started = self._clock()
        self._pacer: asyncio.TimerHandle | None = None

    def add(self, key: WorkKey, *, delay: float = 0.0, urgent: bool = False) -> None:
        """Have the object looked at, after ``delay`` seconds at the latest; an earlier appointment stands.

        ``urgent``: before all others that are to be looked at again.
        """
        if key in self._running:
            self._again[key] = min(delay, self._again.get(key, delay))
        elif key in self._fresh or (key in self._repeated and not urgent):
            return
        elif delay <= 0:
            self._make_ready(key, urgent=urgent)
        else:
            due = self._clock() + delay
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._set_timer()

    @property
    def depth(self) -> int:
        """Names that could be worked on now."""
        return len(self._fresh) + len(self._repeated)

    @property
    def running(self) -> int:
        """Names being worked on."""
        return len(self._running)

    def stuck_for(self) -> float:
        """For how long the longest task has been running, or names have been waiting and none was taken."""
        now = self._clock()
        waiting = now - self._last_taken if self.depth else 0.0
        return max([waiting, *(now - since for since in self._running.values())])

    def forget(self, key: WorkKey) -> None:
        """The object is gone: neither its failures nor its turns count for a new one of its name."""
        self._failures.pop(key, None)
        self._known.discard(key)

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
        while self._closed or not (self._repeated or self._may_hand_out_fresh()):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(turn)
            await turn
        key = self._pick()
        self._known.add(key)
        self._running[key] = self._last_taken = self._clock()
        return key

    def _pick(self) -> WorkKey:
        """By turns the oldest new name, the newest one, and one to be looked at again.

        So an object that comes behind a thousand others gets its children at once, those get theirs, and statuses follow.
        """
        self._turn = (self._turn + 1) % 3
        if self._repeated and (self._turn == 0 or not self._may_hand_out_fresh()):
            return self._repeated.popitem(last=False)[0]
        self._last_started = self._clock()
        return self._fresh.popitem(last=self._turn == 2)[0]

    def _may_hand_out_fresh(self) -> bool:
        """What waits here can be overtaken by a newer name, what waits in the queues of Kubernetes cannot.

        So not more is begun than Kubernetes keeps up with; but a little always, for it may not be working at all.
        """
        if not self._fresh:
            return False
        wait = self._last_started + LEAST_PACE_SECONDS - self._clock()
        if wait <= 0 or self._may_start():
            return True
        if self._pacer is None:
            self._pacer = asyncio.get_running_loop().call_later(wait, self._on_pace)
        return False

    def _on_pace(self) -> None:
        self._pacer = None
        self._wake_one()

    def _make_ready(self, key: WorkKey, *, urgent: bool = False) -> None:
        self._due.pop(key, None)
        if not self.depth:
            self._last_taken = self._clock()
        fresh = key.kind == PACED_KIND and key not in self._known
        (self._fresh if fresh else self._repeated)[key] = None
        if urgent and not fresh:
            self._repeated.move_to_end(key, last=False)
        self._wake_one()

    def _wake_one(self) -> None:
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
