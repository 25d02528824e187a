"""A sample summed up, and what was counted since the sample before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stoker.scaling.observed import GatewayLoad, Sample
from stoker.scaling.state import Level, Memory, Moment

STALE_SECONDS = 30.0
"""After so long without a sample nothing is assumed about what happened meanwhile."""
_RECENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one model at one time, and the traffic since the sample before."""

    time: float
    seconds: float
    """Since the sample before; 0 when there is none to compare with."""
    arrivals: int
    completions: int
    held: int
    waiting: float
    running: float
    ready: int
    silent: int
    """Gateways and engines that did not answer: the load is at least what is said here."""

    @property
    def backlog(self) -> float:
        """Requests that no engine works on yet."""
        return self.held + self.waiting

    @property
    def in_flight(self) -> float:
        """Requests that somebody waits for."""
        return self.held + self.waiting + self.running

    @property
    def saturated(self) -> bool:
        """Ready replicas are full: the gateway holds requests, or, behind a gateway that binds early, engines queue."""
        return self.ready > 0 and (self.held >= 1 or self.waiting >= 2 * self.ready)


def compute_load(sample: Sample, desired: int, memory: Memory) -> tuple[Load, Memory]:
    """Sum up a sample and remember its counters."""
    gone = None if memory.time is None else sample.time - memory.time
    if gone is None or not 0 <= gone <= STALE_SECONDS:
        memory = _resume(memory, sample.time, desired)
    arrivals, completions, counters = _count(sample.gateways, memory.counters)
    answered = [load for load in sample.engines.values() if load is not None]
    gateways = [load for load in sample.gateways.values() if load is not None]
    ready = len(sample.engines)
    # Replicas that do not answer are taken to be as busy as those that do.
    share = ready / len(answered) if answered else 1.0
    load = Load(
        time=sample.time,
        seconds=0.0 if memory.time is None else sample.time - memory.time,
        arrivals=arrivals,
        completions=completions,
        held=sum(gateway.held for gateway in gateways),
        waiting=share * sum(engine.waiting for engine in answered),
        running=share * sum(engine.running for engine in answered),
        ready=ready,
        silent=len(sample.engines) - len(answered) + len(sample.gateways) - len(gateways),
    )
    arrived = (memory.recent[-1].arrived if memory.recent else 0) + arrivals
    recent = tuple(moment for moment in memory.recent if moment.time >= sample.time - _RECENT_SECONDS)
    recent = (*recent, Moment(sample.time, arrived, ready))
    queued_twice = load.saturated and memory.saturated_since is not None
    memory = replace(
        memory,
        time=sample.time,
        counters=counters,
        recent=recent,
        saturated_since=_since(memory.saturated_since, load.saturated, sample.time),
        # One full sample among others is a burst, not the end of calm.
        calm_since=_since(memory.calm_since, ready > 0 and not queued_twice, sample.time),
    )
    return load, memory


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _count(
    gateways: Mapping[str, GatewayLoad | None], before: Mapping[str, tuple[int, int]]
) -> tuple[int, int, dict[str, tuple[int, int]]]:
    """Arrivals and completions since the last totals, gateway by gateway.

    A gateway seen for the first time only sets its mark, one that does not answer keeps it, and one whose totals went
    down has started anew: all that it counted since is new.
    """
    arrivals = completions = 0
    counters: dict[str, tuple[int, int]] = {}
    for name, load in gateways.items():
        mark = before.get(name)
        if load is None:
            if mark is not None:
                counters[name] = mark
            continue
        counters[name] = (load.arrivals_total, load.completions_total)
        if mark is None:
            continue
        restarted = load.arrivals_total < mark[0] or load.completions_total < mark[1]
        arrivals += load.arrivals_total - (0 if restarted else mark[0])
        completions += load.completions_total - (0 if restarted else mark[1])
    return arrivals, completions, counters


def _resume(memory: Memory, now: float, desired: int) -> Memory:
    """Begin after a pause, a jump of the clock or an operator's start: only what outlives a pause is kept.

    The pause counts as no time at all, so that nothing is shrunk for what nobody looked at; without a memory every
    present replica counts as needed just now.
    """
    if memory.time is None:
        return Memory(levels=tuple(Level(now) for _ in range(desired)))
    pause = now - memory.time
    return Memory(levels=tuple(Level(level.last_needed + pause, level.gaps) for level in memory.levels))
