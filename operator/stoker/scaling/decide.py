"""How many replicas a model shall have.

Every few seconds the loop reads the gateways and the engines and asks `decide`. It grows at once, to what the traffic
needs, and shrinks late, each replica only after a pause in which keeping it cost less than it would have cost to bring it
back. What is not known is never taken for zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stoker.scaling.hold import compute_held, mark_needed
from stoker.scaling.learn import learn_cold_start, learn_speed
from stoker.scaling.load import STALE_SECONDS, Load, compute_load
from stoker.scaling.need import Reason, Speed, Wish, compute_need, compute_relief, compute_speed, largest
from stoker.scaling.observed import Replicas, Sample
from stoker.scaling.spec import Autoscaling
from stoker.scaling.state import Learned, Memory

_STUCK_COLD_STARTS = 3
"""A replica that takes so many times longer than others did is not counted on any more."""
_STUCK_UNKNOWN_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of replicas to ask for, why, and what to pass to the next decision."""

    desired: int
    reason: Reason
    message: str
    """For people: "2 → 4: 31 waiting, drained in 5 s at 0.9 requests/s per replica"."""
    learned: Learned
    memory: Memory


def decide(
    now: float, samples: Sequence[Sample], replicas: Replicas, learned: Learned, memory: Memory, spec: Autoscaling
) -> Decision:
    """Choose the replica count from the samples that came in since the last decision, usually one."""
    learned = learn_cold_start(learned, replicas.cold_starts)
    wish: Wish | None = None
    load: Load | None = None
    for sample in samples:
        load, memory = compute_load(sample, replicas.desired, memory)
        if not replicas.rolling_out:
            learned, memory = learn_speed(learned, load, memory, spec)
        speed = compute_speed(learned, memory.residence, spec)
        need, memory = compute_need(load, speed, memory, spec)
        memory = mark_needed(memory, min(need.replicas, spec.max_replicas), load.time)
        wish = _grow(need, load, speed, replicas, learned, memory, spec)
    if wish is None or load is None:
        wish = _keep_unseen(now, replicas.desired, memory)
    elif wish.replicas < replicas.desired:
        wish = _shrink(wish, now, load, replicas, memory, spec)
    wish = _within_bounds(wish, replicas, spec)
    return Decision(wish.replicas, wish.reason, _message(replicas.desired, wish), learned, memory)


def _grow(
    need: Wish, load: Load, speed: Speed, replicas: Replicas, learned: Learned, memory: Memory, spec: Autoscaling
) -> Wish:
    """What the traffic needs and what a standing queue asks for; replicas on their way count as there."""
    if load.ready == 0 and learned.residence_seconds is None:
        # Before the first answer of a new model nobody knows how much one replica can do.
        need = Wish(min(need.replicas, max(1, replicas.desired)), need.reason, need.words)
    if replicas.desired == 0 and load.held:
        need = largest([Wish(1, "WakeFromZero", f"{load.held} held"), need])
    pending = len(replicas.pending_ages) + replicas.unschedulable
    wish = largest([need, compute_relief(load, speed, memory, replicas.desired, pending, spec)])
    stuck = _STUCK_UNKNOWN_SECONDS
    if learned.cold_start_seconds is not None:
        stuck = _STUCK_COLD_STARTS * learned.cold_start_seconds
    if wish.replicas > replicas.ready and any(age > stuck for age in replicas.pending_ages):
        words = f"{wish.words}; one more, for a replica has not become ready in {stuck:.0f} s"
        wish = Wish(wish.replicas + 1, wish.reason, words)
    return wish


def _shrink(wish: Wish, now: float, load: Load, replicas: Replicas, memory: Memory, spec: Autoscaling) -> Wish:
    """Go down only when everything is known, nothing queues, and the replica has not been needed for long enough."""
    desired = replicas.desired
    if load.silent:
        return Wish(desired, "MetricsStale", f"{load.silent} of the gateways and replicas do not tell their load")
    if now - load.time > STALE_SECONDS:
        return _keep_unseen(now, desired, memory)
    if replicas.rolling_out:
        return Wish(desired, "RolloutInProgress", "a rollout is in progress")
    if load.saturated or load.held:
        return Wish(desired, "DrainBacklog", f"{load.backlog:.0f} waiting")
    held, left, hold = compute_held(memory, wish.replicas, desired, now, spec)
    if held > wish.replicas:
        words = f"{wish.replicas} needed ({wish.words}); pauses of up to {hold:.0f} s are bridged, {left:.0f} s left"
        return Wish(held, "Held", words)
    return wish


def _within_bounds(wish: Wish, replicas: Replicas, spec: Autoscaling) -> Wish:
    if replicas.unschedulable and wish.replicas > replicas.desired:
        words = f"{wish.replicas} needed ({wish.words}), but {replicas.unschedulable} of the replicas have no place"
        wish = Wish(replicas.desired, "Unschedulable", words)
    if wish.replicas > spec.max_replicas:
        return Wish(
            spec.max_replicas, "AtMaximum", f"{wish.replicas} needed ({wish.words}), maxReplicas allows no more"
        )
    if wish.replicas < spec.min_replicas:
        return Wish(spec.min_replicas, "AtMinimum", f"{wish.replicas} needed ({wish.words}), minReplicas asks for more")
    return wish


def _keep_unseen(now: float, desired: int, memory: Memory) -> Wish:
    if memory.time is None:
        return Wish(desired, "MetricsStale", "the load has not been seen yet")
    unseen = now - memory.time
    reason: Reason = "MetricsStale" if unseen > STALE_SECONDS else "SampleMissing"
    return Wish(desired, reason, f"the load was last seen {unseen:.0f} s ago")


def _message(before: int, wish: Wish) -> str:
    change = f"{before} → {wish.replicas}" if wish.replicas != before else f"{before} kept"
    return f"{change}: {wish.words}"
