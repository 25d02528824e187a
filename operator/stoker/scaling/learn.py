"""Learn what one replica can do, from the traffic that it serves.

Two numbers, both from counting. *Residence* is how long a request is in the engine while nothing queues. *Slots* is how
many requests a full replica effectively works on at once: what it finishes per second while requests queue, times the
residence. Neither depends on the engine telling the truth about its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stoker.scaling.load import Load
from stoker.scaling.spec import Autoscaling
from stoker.scaling.state import Learned, Memory, Tally

_ENOUGH = 30
"""Completed requests that make one measurement."""
_SETTLED_SECONDS = 10.0
"""After a queue is gone, requests that were slowed by it are still in the engine for a while."""
_QUIET_SECONDS = 600.0
_DRIFT_PER_SECOND = 0.002 / 60.0
_YOUNG_SECONDS = 60.0


def learn_speed(learned: Learned, load: Load, memory: Memory, spec: Autoscaling) -> tuple[Learned, Memory]:
    """Take one interval into account; intervals of which a part is unknown teach nothing."""
    if load.silent or load.seconds <= 0 or load.ready == 0:
        return learned, memory
    if learned.residence_seconds is None:
        # A reading made too long by a queue, or by what a queue left behind, is better than a guess.
        learned, memory = _learn_residence(learned, load, memory)
    elif memory.calm_since is not None:
        calm = load.time - memory.calm_since
        if calm > _SETTLED_SECONDS:
            learned, memory = _learn_residence(learned, load, memory)
        if calm > _QUIET_SECONDS and load.in_flight > 0 and learned.slots is not None:
            # A limit that was not met for long may be a thing of the past: believe a little more, up to the bound.
            slots = learned.slots * (1 + _DRIFT_PER_SECOND * load.seconds)
            learned = replace(learned, slots=min(float(spec.target_inflight), slots))
    elif memory.saturated_since is not None:
        learned, memory = _learn_slots(learned, load, memory, spec)
    return learned, memory


def learn_cold_start(learned: Learned, took: Sequence[float]) -> Learned:
    """Follow how long replicas take to become ready."""
    seconds = learned.cold_start_seconds
    for one in took:
        seconds = one if seconds is None else seconds + 0.2 * (one - seconds)
    return replace(learned, cold_start_seconds=seconds) if took else learned


def _learn_residence(learned: Learned, load: Load, memory: Memory) -> tuple[Learned, Memory]:
    """Little's law: the time that requests spent running, by the number of those that left."""
    tally = Tally(memory.residence.amount + load.running * load.seconds, memory.residence.count + load.completions)
    if tally.count < _ENOUGH or tally.amount <= 0:
        return learned, replace(memory, residence=tally)
    measured, known = tally.amount / tally.count, learned.residence_seconds
    # Down quickly, up slowly: under load requests take longer without the replica being slower.
    seconds = measured if known is None else known + (0.3 if measured < known else 0.1) * (measured - known)
    return replace(learned, residence_seconds=seconds), replace(memory, residence=Tally())


def _learn_slots(learned: Learned, load: Load, memory: Memory, spec: Autoscaling) -> tuple[Learned, Memory]:
    """What full replicas finish in a second of their time, in requests at once."""
    residence = learned.residence_seconds or 0.0
    # A replica that has just become ready fills up before it finishes anything.
    young_since = load.time - min(residence, _YOUNG_SECONDS)
    grown = min(moment.ready for moment in memory.recent if moment.time >= young_since)
    if grown == 0:
        return learned, memory
    tally = Tally(memory.slots.amount + grown * load.seconds, memory.slots.count + load.completions)
    if tally.count < _ENOUGH:
        return learned, replace(memory, slots=tally)
    measured = min(float(spec.target_inflight), tally.count / tally.amount * residence)
    slots = measured if learned.slots is None else learned.slots + 0.3 * (measured - learned.slots)
    return replace(learned, slots=slots), replace(memory, slots=Tally())
