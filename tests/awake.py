"""A clock for promises in seconds: a moment in which the machine under the tests stood still is not the tested program's."""

from __future__ import annotations

import threading
import time

TICK = 0.02
STILL = 0.2
"""A tick that comes later than this was not late for load: nothing ran. Below it, lateness counts, as any client would count it."""


class _Clock:
    """Loses what passes between two of its ticks beyond what it asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._lost = 0.0
        threading.Thread(target=self._tick, daemon=True, name="awake").start()

    def _tick(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                now = time.monotonic()
                self._lost += overslept(now - self._last)
                self._last = now

    def now(self) -> float:
        with self._lock:
            now = time.monotonic()
            return now - self._lost - overslept(now - self._last)


def overslept(gap: float) -> float:
    """How much of the time between two ticks nothing ran."""
    return gap - TICK if gap > STILL else 0.0


_clock: _Clock | None = None


def awake() -> float:
    """Seconds like those of `time.monotonic`, less those in which this process, and so everything beside it, stood still."""
    global _clock
    _clock = _clock or _Clock()
    return _clock.now()
