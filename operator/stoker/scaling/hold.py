"""How long a replica that is not needed is kept: as long as bringing it back would probably cost more."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate

from stoker.scaling.spec import Autoscaling
from stoker.scaling.state import Level, Memory

_GAPS = 20
_SHORTEST_GAP = 6.0
"""Less is the noise between samples."""


def mark_needed(memory: Memory, need: int, now: float) -> Memory:
    """Note that replicas 1 to ``need`` are needed now, and for how long each was not."""
    levels = list(memory.levels)
    for index in range(need):
        if index >= len(levels):
            levels.append(Level(now))
            continue
        level = levels[index]
        gap = now - level.last_needed
        gaps = (*level.gaps, round(gap))[-_GAPS:] if gap > _SHORTEST_GAP else level.gaps
        levels[index] = Level(now, gaps)
    return replace(memory, levels=tuple(levels))


def hold_seconds(gaps: tuple[int, ...], spec: Autoscaling) -> float:
    """The hold that would have cost least over the latest gaps.

    A gap shorter than the hold costs its own length of an idle replica; a longer one costs the whole hold and then a
    cold start. Two imagined gaps, half and twice the initial hold, keep a short history from saying too much.
    """
    if not gaps:
        return spec.initial_hold_seconds
    known = sorted([*map(float, gaps), spec.initial_hold_seconds / 2, spec.initial_hold_seconds * 2])
    bridged = list(accumulate(known, initial=0.0))
    penalty = spec.cold_start_penalty_seconds
    best, lowest = spec.min_hold_seconds, float("inf")
    for hold in (spec.min_hold_seconds, *(gap + 2 for gap in known)):
        if not spec.min_hold_seconds <= hold <= spec.max_hold_seconds:
            continue
        shorter = bisect_right(known, hold)
        cost = bridged[shorter] + (len(known) - shorter) * (hold + penalty)
        if cost < lowest:
            best, lowest = hold, cost
    return best


def compute_held(memory: Memory, wanted: int, desired: int, now: float, spec: Autoscaling) -> tuple[int, float, float]:
    """The highest replica above ``wanted`` that is still held: its number, seconds left and its hold."""
    for number in range(min(desired, len(memory.levels)), wanted, -1):
        level = memory.levels[number - 1]
        hold = hold_seconds(level.gaps, spec)
        left = hold - (now - level.last_needed)
        if left > 0:
            return number, left, hold
    return wanted, 0.0, 0.0
