"""A gateway, engine replicas that take time to start, and an autoscaler, driven by a trace event by event."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sim.engine import Engine, Replica
from sim.traces import Trace


@dataclass(frozen=True)
class Platform:
    """Everything around the engines except the autoscaler."""

    late_binding: bool = True
    """The gateway keeps requests until an engine has room."""
    engine_queue: int = 2
    """With late binding: how many may wait at an engine."""
    hold_seconds: float = 600.0
    """How long a request may be held while nothing is ready; 0 fails it at once."""
    patience: float = 600.0
    """The client's, until the first token."""
    drain_grace: float = 900.0
    cold_start: tuple[float, float, float] = (75.0, 30.0, 180.0)
    """Median, least and most of a log-normal distribution."""
    noise: float = 0.03
    """Relative error of gauges."""
    missed: float = 0.02
    """Chance that a reading fails."""
    blackout_every: float = 0.0
    """Once in so many seconds, nothing can be read for 30 s."""
    warm_up: float = 300.0
    """Not counted."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an autoscaler can read at one time."""

    time: float
    held: int
    arrivals: int
    completions: int
    engines: dict[int, tuple[float, float]]
    """By ready replica: running, waiting."""

    @property
    def waiting(self) -> float:
        """Queued anywhere."""
        return self.held + sum(waiting for _, waiting in self.engines.values())

    @property
    def in_flight(self) -> float:
        """Queued or running."""
        return self.waiting + sum(running for running, _ in self.engines.values())


@dataclass(frozen=True, slots=True)
class View:
    """What a policy is given when it is asked; the reading may be old, the integral is what a proxy averages over."""

    now: float
    reading: Reading
    desired: int
    ready: int
    pending_ages: tuple[float, ...]
    cold_starts: Sequence[float]
    """How long each took that became ready so far."""
    held: int
    in_flight_seconds: float


class Policy(Protocol):
    """An autoscaler."""

    period: float
    scrape: float
    """Metrics are collected so often by somebody else; 0 means that the policy reads them itself."""
    min_replicas: int
    max_replicas: int
    wakes: bool
    """A held request brings the first replica back at once."""

    def decide(self, view: View) -> int:
        """How many replicas there shall be."""


@dataclass(frozen=True)
class Outcome:
    """What a run cost and what its users saw; first tokens in seconds, sorted, failures as the client's patience."""

    gpu_hours: float
    first_tokens: list[float]
    failed: int
    changes: int
    turns: int
    """Changes of direction."""
    cold_starts: int
    blind_shrinks: int
    """Times that it went down without a fresh reading."""

    def within(self, seconds: float) -> float:
        """Share of requests whose first token came in time."""
        return sum(1 for first in self.first_tokens if first <= seconds) / max(1, len(self.first_tokens))

    def quantile(self, share: float) -> float:
        """Of the time to the first token."""
        return self.first_tokens[min(len(self.first_tokens) - 1, int(share * len(self.first_tokens)))]


def simulate(
    trace: Trace,
    policy: Policy,
    *,
    seed: int,
    start: int,
    platform: Platform | None = None,
    engine: Engine | None = None,
) -> Outcome:
    """Run a trace; seeds vary cold starts, noise, lost readings and phases, not the traffic."""
    return _World(trace, policy, seed, start, platform or Platform(), engine or Engine()).run()


_ENGINE, _READY, _TICK, _SCRAPE, _KILL = range(5)


class _World:
    def __init__(self, trace: Trace, policy: Policy, seed: int, start: int, platform: Platform, engine: Engine) -> None:
        self.trace, self.policy, self.platform, self.engine = trace, policy, platform, engine
        self.rng = random.Random(seed)
        self.end = trace.arrival[-1] + 1e-6
        self.first_token = [math.nan] * len(trace)
        self.lost = bytearray(len(trace))
        self.events: list[tuple[float, int, int, int]] = []
        self.replicas: dict[int, Replica] = {}
        self.live: list[Replica] = []
        self.held: deque[int] = deque()
        self.arrivals = self.completions = self.in_flight = 0
        self.in_flight_seconds = self.in_flight_since = 0.0
        self.gpu_seconds = 0.0
        self.changes = self.turns = self.direction = self.blind_shrinks = self.started = 0
        self.cold_starts: list[float] = []
        for _ in range(start):
            replica = self._create(0.0)
            replica.ready = True
        self.reading = self._read(0.0)
        self._push(policy.period * self.rng.random(), _TICK)
        if policy.scrape > 0:
            self._push(policy.scrape * self.rng.random(), _SCRAPE)

    # The course of time

    def run(self) -> Outcome:
        for now, request in self._times():
            if request is not None:
                self._arrive(now, request)
        for replica in list(self.live):
            self._end(replica, self.end)
        return self._outcome()

    def _times(self) -> Iterator[tuple[float, int | None]]:
        """Handle replica events in the order of time, and hand out arrivals between them."""
        arrival, events = self.trace.arrival, self.events
        handle = [self._on_engine, self._on_ready, self._on_tick, self._on_scrape, self._on_kill]
        following, count = 0, len(arrival)
        while True:
            if following < count and (not events or arrival[following] <= events[0][0]):
                yield arrival[following], following
                following += 1
                continue
            if not events or events[0][0] > self.end + 3600:
                return
            now, kind, number, version = heapq.heappop(events)
            handle[kind](now, number, version)

    def _push(self, time: float, kind: int, number: int = 0, version: int = 0) -> None:
        heapq.heappush(self.events, (time, kind, number, version))

    # The gateway

    def _arrive(self, now: float, request: int) -> None:
        self.arrivals += 1
        self._count(now, 1)
        if self.platform.late_binding:
            self.held.append(request)
            self._dispatch(now)
        elif (replica := self._pick()) is not None:
            self._assign(replica, request, now)
        elif self.platform.hold_seconds > 0:
            self.held.append(request)
        else:
            self._lose(now, request)
        if self.held and self.policy.wakes and all(replica.draining for replica in self.live):
            self._scale(max(1, self.policy.min_replicas), now)

    def _pick(self) -> Replica | None:
        """The least busy replica that takes requests."""
        best, least = None, 1 << 30
        limit = self.platform.engine_queue if self.platform.late_binding else 1 << 30
        for replica in self.live:
            if replica.ready and not replica.draining and replica.outstanding < least and len(replica.queue) < limit:
                best, least = replica, replica.outstanding
        return best

    def _dispatch(self, now: float) -> None:
        while self.held:
            replica = self._pick()
            if replica is None:
                return
            request = self.held.popleft()
            if now - self.trace.arrival[request] > self.platform.patience:
                self._lose(now, request)
            else:
                self._assign(replica, request, now)

    def _assign(self, replica: Replica, request: int, now: float) -> None:
        replica.advance(now)
        replica.queue.append(request)
        replica.outstanding += 1
        if replica.reading < 0:
            replica.admit()
            self._schedule(replica)

    def _lose(self, now: float, request: int) -> None:
        self.lost[request] = 1
        self._count(now, -1)

    def _count(self, now: float, change: int) -> None:
        self.in_flight_seconds += self.in_flight * (now - self.in_flight_since)
        self.in_flight_since = now
        self.in_flight += change

    # Replicas

    def _create(self, now: float) -> Replica:
        replica = Replica(self.started, now, self.engine, self.trace)
        self.started += 1
        self.replicas[replica.number] = replica
        self.live.append(replica)
        return replica

    def _schedule(self, replica: Replica) -> None:
        replica.version += 1
        at = replica.next_event()
        if at < math.inf:
            self._push(at, _ENGINE, replica.number, replica.version)

    def _on_engine(self, now: float, number: int, version: int) -> None:
        replica = self.replicas.get(number)
        if replica is None or replica.version != version:
            return
        replica.advance(now)
        first, first_at, done = replica.step()
        if first >= 0:
            self.first_token[first] = first_at - self.trace.arrival[first]
        for _ in done:
            self.completions += 1
            self._count(now, -1)
        self._schedule(replica)
        if replica.draining and replica.outstanding == 0:
            self._end(replica, now)
        elif self.held and not replica.draining:
            self._dispatch(now)

    def _on_ready(self, now: float, number: int, _version: int) -> None:
        replica = self.replicas.get(number)
        if replica is None:
            return
        replica.ready = True
        replica.time = now
        self.cold_starts.append(now - replica.born)
        self._dispatch(now)

    def _on_kill(self, now: float, number: int, _version: int) -> None:
        if (replica := self.replicas.get(number)) is not None:
            self._end(replica, now)

    def _end(self, replica: Replica, now: float) -> None:
        del self.replicas[replica.number]
        self.live.remove(replica)
        self.gpu_seconds += max(0.0, min(now, self.end) - max(replica.born, self.platform.warm_up))
        for request in replica.unfinished():
            self._lose(now, request)

    # The autoscaler

    def _read(self, now: float) -> Reading:
        factor = math.exp(self.rng.gauss(0, self.platform.noise))
        engines = {r.number: (r.active * factor, len(r.queue) * factor) for r in self.live if r.ready}
        return Reading(now, len(self.held), self.arrivals, self.completions, engines)

    def _try_reading(self, now: float) -> None:
        every = self.platform.blackout_every
        if self.rng.random() >= self.platform.missed and not (every and now % every < 30.0):
            self.reading = self._read(now)

    def _on_scrape(self, now: float, _number: int, _version: int) -> None:
        self._try_reading(now)
        if now < self.end:
            self._push(now + self.policy.scrape, _SCRAPE)

    def _on_tick(self, now: float, _number: int, _version: int) -> None:
        patience = min(self.platform.hold_seconds, self.platform.patience)
        while self.held and now - self.trace.arrival[self.held[0]] > patience:
            self._lose(now, self.held.popleft())
        if self.policy.scrape <= 0:
            self._try_reading(now)
        present = [replica for replica in self.live if not replica.draining]
        view = View(
            now=now,
            reading=self.reading,
            desired=len(present),
            ready=sum(1 for replica in present if replica.ready),
            pending_ages=tuple(now - replica.born for replica in present if not replica.ready),
            cold_starts=self.cold_starts,
            held=len(self.held),
            in_flight_seconds=self.in_flight_seconds + self.in_flight * (now - self.in_flight_since),
        )
        self._scale(max(self.policy.min_replicas, min(self.policy.max_replicas, self.policy.decide(view))), now)
        if now < self.end or self.in_flight:
            self._push(now + self.policy.period, _TICK)

    def _scale(self, wanted: int, now: float) -> None:
        present = [replica for replica in self.live if not replica.draining]
        if wanted == len(present):
            return
        direction = 1 if wanted > len(present) else -1
        self.changes += 1
        self.turns += direction != self.direction
        self.direction = direction
        if direction > 0:
            median, least, most = self.platform.cold_start
            for _ in range(wanted - len(present)):
                took = min(max(math.exp(self.rng.gauss(math.log(median), 0.45)), least), most)
                self._push(now + took, _READY, self._create(now).number)
            return
        self.blind_shrinks += self.reading.time < now
        # Not ready first, the youngest of them first; then the least busy.
        present.sort(key=lambda replica: (replica.ready, replica.outstanding if replica.ready else -replica.born))
        for replica in present[: len(present) - wanted]:
            self._retire(replica, now)

    def _retire(self, replica: Replica, now: float) -> None:
        replica.draining = True
        if not replica.ready or replica.outstanding == 0:
            self._end(replica, now)
            return
        if self.platform.late_binding:
            # What it had not begun goes back to the front of the gateway's queue.
            self.held.extendleft(reversed(replica.queue))
            replica.outstanding -= len(replica.queue)
            replica.queue.clear()
        self._push(now + self.platform.drain_grace, _KILL, replica.number)

    def _outcome(self) -> Outcome:
        first_tokens, failed = [], 0
        for arrival, first, lost in zip(self.trace.arrival, self.first_token, self.lost, strict=True):
            if arrival < self.platform.warm_up:
                continue
            bad = lost or not first <= self.platform.patience
            failed += bad
            first_tokens.append(self.platform.patience if bad else first)
        return Outcome(
            gpu_hours=self.gpu_seconds / 3600,
            first_tokens=sorted(first_tokens),
            failed=failed,
            changes=self.changes,
            turns=self.turns,
            cold_starts=len(self.cold_starts),
            blind_shrinks=self.blind_shrinks,
        )
