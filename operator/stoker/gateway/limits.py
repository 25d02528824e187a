"""Requests per minute, counted in this process: exact for one replica, and what a killed policy process has counted is forgotten.

A minute slides: in no 60 seconds are more let in than the limit says, also not around a full minute. It is counted in seconds, so
a caller at the limit may wait up to a second longer than needed, and a caller takes the same memory at any limit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

WINDOW = 60
# One more than the window, for the present second has only begun.
SLOTS = WINDOW + 1
SWEEP_FROM = 10_000


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request is let in, and what its answer tells of the limit."""

    admitted: bool
    limit: int
    remaining: int
    retry_after: int
    """Seconds until one more is let in; 0 when one would be now."""
    reset: int
    """Seconds until nothing counts any more."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """OpenAI's names for it."""
        return (
            ("x-ratelimit-limit-requests", str(self.limit)),
            ("x-ratelimit-remaining-requests", str(self.remaining)),
            ("x-ratelimit-reset-requests", f"{self.reset}s"),
        )


class Window:
    """The last minute of one caller."""

    __slots__ = ("_counts", "_last", "_total")

    def __init__(self, now: float) -> None:
        self._counts = array("I", bytes(4 * SLOTS))
        self._last = int(now)
        self._total = 0

    def admit(self, limit: int, now: float) -> Admission:
        """Count one more, if it fits."""
        second = self._advance(now)
        admitted = self._total < limit
        if admitted:
            self._counts[second % SLOTS] += 1
            self._total += 1
        remaining = max(0, limit - self._total)
        retry_after = self._until_below(limit, now) if not remaining else 0
        return Admission(admitted, limit, remaining, retry_after, self._until_empty(now))

    def idle(self, now: float) -> bool:
        """Whether nothing counts any more."""
        self._advance(now)
        return not self._total

    def _advance(self, now: float) -> int:
        """Forget what is older than the window; a clock that stands still or jumps back forgets nothing."""
        second = max(int(now), self._last)
        for past in range(self._last + 1, min(second, self._last + SLOTS) + 1):
            self._total -= self._counts[past % SLOTS]
            self._counts[past % SLOTS] = 0
        self._last = second
        return second

    def _until_below(self, limit: int, now: float) -> int:
        left = self._total
        for second in range(self._last - WINDOW, self._last + 1):
            left -= self._counts[second % SLOTS]
            if left < limit:
                return max(1, ceil(second + SLOTS - now))
        return SLOTS

    def _until_empty(self, now: float) -> int:
        for second in range(self._last, self._last - SLOTS, -1):
            if self._counts[second % SLOTS]:
                return max(1, ceil(second + SLOTS - now))
        return 0


class RequestLimits:
    """Windows of the callers that have a limit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._sweep_at = SWEEP_FROM

    def admit(self, caller: str, limit: int) -> Admission:
        """Count a request of a caller, if it fits into his minute."""
        now = self._clock()
        window = self._windows.get(caller)
        if window is None:
            self._sweep(now)
            window = self._windows[caller] = Window(now)
        return window.admit(limit, now)

    def _sweep(self, now: float) -> None:
        """Callers come and go: now and then those are dropped that have not called for a minute."""
        if len(self._windows) >= self._sweep_at:
            self._windows = {caller: window for caller, window in self._windows.items() if not window.idle(now)}
            self._sweep_at = max(SWEEP_FROM, 2 * len(self._windows))
