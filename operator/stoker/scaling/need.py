"""How many replicas the load needs, each answer with its reason in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from stoker.scaling.load import Load
from stoker.scaling.spec import Autoscaling
from stoker.scaling.state import Learned, Memory, Tally

Reason = Literal[
    "ArrivalRate",
    "AtMaximum",
    "AtMinimum",
    "DrainBacklog",
    "Held",
    "Idle",
    "MetricsStale",
    "Occupancy",
    "Progress",
    "RolloutInProgress",
    "SampleMissing",
    "Unschedulable",
    "VirtualQueue",
    "WakeFromZero",
]

_UTILISATION = 0.9
"""Share of its measured speed that a replica is asked for; the rest is for bursts."""
_ASSUMED_RESIDENCE_SECONDS = 10.0
_RATE_SECONDS = 20.0
_FORGET_SECONDS = 30.0
_DRAIN_AFTER_SECONDS = 1.0
_PROGRESS_AFTER_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A number of replicas, and why."""

    replicas: int
    reason: Reason
    words: str


@dataclass(frozen=True, slots=True)
class Speed:
    """What one replica is counted on for."""

    slots: float
    residence: float
    measured: bool = True
    """False while the residence is a guess."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.slots / self.residence

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.rate:.2g} requests/s per replica"


def compute_speed(learned: Learned, under_way: Tally, spec: Autoscaling) -> Speed:
    """Nothing learned yet means: the bound that the user set, and requests of ten seconds, or less if it looks like less.

    The guess counts as one request among those that are measured ``under_way``: else a model with quick requests would
    be given all its replicas before the first measurement is complete.
    """
    slots = learned.slots if learned.slots is not None else float(spec.target_inflight)
    guess = (_ASSUMED_RESIDENCE_SECONDS + under_way.amount) / (1 + under_way.count)
    residence = learned.residence_seconds or min(_ASSUMED_RESIDENCE_SECONDS, guess)
    return Speed(max(0.5, _UTILISATION * slots), residence, measured=learned.residence_seconds is not None)


def compute_need(load: Load, speed: Speed, memory: Memory, spec: Autoscaling) -> tuple[Wish, Memory]:
    """The fewest replicas with which requests would not have to queue for long; this is what levels remember."""
    queues = _advance(load, speed, memory, spec)
    wishes = [
        _by_virtual_queue(queues, speed, spec),
        _by_rate(_arrival_rate(memory), speed),
        _by_occupancy(load, speed),
    ]
    idle = load.in_flight <= 0 and queues[0] < 0.5
    need = Wish(0, "Idle", "no requests") if idle else largest(wishes)
    if load.backlog < 1:
        # A queue that is not there any more is forgotten: the replicas were faster than believed.
        keep = math.exp(-load.seconds / _FORGET_SECONDS)
        queues = [load.in_flight + (x - load.in_flight) * keep if x > load.in_flight else x for x in queues]
    return need, replace(memory, queues=tuple(queues))


def compute_relief(load: Load, speed: Speed, memory: Memory, desired: int, pending: int, spec: Autoscaling) -> Wish:
    """The replicas that clear a queue which is there already; asked for at once, and not remembered as needed."""
    nothing = Wish(0, "Idle", "no queue")
    if memory.saturated_since is None:
        return nothing
    queued = load.time - memory.saturated_since
    wishes = [nothing]
    if queued >= _DRAIN_AFTER_SECONDS:
        rate = _arrival_rate(memory) + load.backlog / spec.backlog_seconds
        words = f"{load.backlog:.0f} waiting, drained in {spec.backlog_seconds:g} s at {speed.words}"
        wishes.append(Wish(_ceil(rate / speed.rate), "DrainBacklog", words))
    lately = (moment.ready for moment in memory.recent if moment.time > load.time - _PROGRESS_AFTER_SECONDS)
    if queued >= _PROGRESS_AFTER_SECONDS and pending == 0 and min(lately) >= load.ready:
        words = f"{load.backlog:.0f} waiting, some for {queued:.0f} s, and no replica is on its way"
        wishes.append(Wish(desired + 1, "Progress", words))
    return largest(wishes)


def largest(wishes: Iterable[Wish]) -> Wish:
    """The wish for most replicas; among equals the first."""
    return max(wishes, key=lambda wish: wish.replicas)


def _advance(load: Load, speed: Speed, memory: Memory, spec: Autoscaling) -> list[float]:
    """Let the traffic since the last sample pass through 1, 2, … imagined replicas.

    Each empties by what so many replicas finish, but never faster than requests can be answered at all.
    """
    before = [*memory.queues, *[load.in_flight] * (spec.max_replicas - len(memory.queues))][: spec.max_replicas]
    leaving = 1 - math.exp(-load.seconds / speed.residence)
    finished = speed.rate * load.seconds
    queues = []
    for replicas, x in enumerate(before, 1):
        filled = x + load.arrivals
        x = filled - min(filled * leaving, replicas * finished)
        if not speed.measured and not load.silent and replicas >= load.ready:
            # What the replicas that are there have left is seen; a guess shall not make more of it.
            x = min(x, load.in_flight)
        queues.append(x)
    return queues


def _by_virtual_queue(queues: list[float], speed: Speed, spec: Autoscaling) -> Wish:
    longest = 0.0
    for replicas, x in enumerate(queues, 1):
        wait = (x - replicas * speed.slots) / (replicas * speed.rate)
        if wait <= spec.queue_wait_seconds:
            break
        longest = wait
    words = f"requests would wait {longest:.1f} s at {replicas - 1} ({spec.queue_wait_seconds:g} s allowed)"
    return Wish(replicas, "VirtualQueue", words if replicas > 1 else "one replica is enough")


def _arrival_rate(memory: Memory) -> float:
    """Requests per second of the last 20 s, less the error that so short a count has."""
    now = memory.recent[-1]
    first = now
    for moment in reversed(memory.recent):
        first = moment
        if moment.time <= now.time - _RATE_SECONDS:
            break
    seconds = now.time - first.time
    if seconds < _RATE_SECONDS / 2:
        return 0.0
    count = now.arrived - first.arrived
    return max(0.0, count - math.sqrt(count)) / seconds


def _by_rate(rate: float, speed: Speed) -> Wish:
    return Wish(_ceil(rate / speed.rate), "ArrivalRate", f"{rate:.2g} requests/s arrive, {speed.words}")


def _by_occupancy(load: Load, speed: Speed) -> Wish:
    """Replicas full of long requests are needed although little arrives; a reason to keep them, not to add more."""
    words = f"{load.running:.0f} running, {speed.slots:.0f} per replica"
    return Wish(min(load.ready, _ceil(load.running / speed.slots)), "Occupancy", words)


def _ceil(x: float) -> int:
    return math.ceil(x - 1e-9)
