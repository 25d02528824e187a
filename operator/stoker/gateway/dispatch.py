"""All models' pools: lets requests through to endpoints, holds the others, and learns from the access log when one has ended.

Each request that goes to an engine carries a ticket, and its line in the log names it. What the log does not tell (a client that left in
the very moment, requests of an earlier process, those that a second try took elsewhere) is put right by Envoy's own gauges, every
two seconds.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, Protocol

from stoker.gateway import openai_errors as errors
from stoker.gateway.cold_start import ColdStarts
from stoker.gateway.decide import answered_by_relay, relayed
from stoker.gateway.decision import Decision, Request
from stoker.gateway.endpoints import EVENT_STREAMS
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.pool import Endpoint, Pool, Ticket, Waiter
from stoker.gateway.table import Model
from stoker.gateway.wire import render, with_lines

DEFAULT_HELD = 1000
"""Requests that may wait for a model whose deployment says nothing of holding."""
DEFAULT_WAIT_SECONDS = 600.0
BUSY_RETRY_SECONDS = 5
CLAIM_SECONDS = 5.0
"""How long the relay has to come back with a request that was handed over to it."""
READINGS = 3
"""So many readings of the gauges in a row must say that the count is wrong, for a request is counted a moment before it runs and
until the log is read."""
LOG_LAG_SECONDS = 0.15
REJECT_WAKE_SECONDS = 1.0
FORGOTTEN_SECONDS = 1800.0
"""A wake-up this old has come to nothing."""

TICKET = re.compile(rb'"x-gw-ticket":"([0-9a-f]{8})-([0-9]+)"')


class Timer(Protocol):
    """See asyncio.TimerHandle."""

    def cancel(self) -> None:
        """See asyncio."""
        ...


Later = Callable[[float, Callable[[], None]], Timer]


class Dispatcher:
    """Who goes where, and who waits."""

    def __init__(
        self,
        cold_starts: ColdStarts,
        clock: Callable[[], float],
        later: Later,
    ) -> None:
        self.instance = secrets.token_hex(4)
        """Names this process: its counters begin at nothing."""
        self.pools: dict[str, Pool] = {}
        self.tickets: dict[int, Ticket] = {}
        self.on_wake: Callable[[str], None] = lambda cluster: None
        """Called when somebody asks for a model without endpoints, and nobody did before."""
        self.begun = asyncio.Event()
        """Set while anything runs."""
        self.on_late_answer: Callable[[str, str], None] = lambda reason, model: None
        """Called with reason and model when a request that was held has its answer."""
        self.on_cancel: Callable[[str], None] = lambda ticket: None
        """Called with the ticket of a request that will never be in the log."""
        self._cold_starts = cold_starts
        self._clock = clock
        self._later = later
        self._numbers = 0
        self._prefix = f"{self.instance}-".encode()
        self._handed_over: dict[int, Waiter] = {}
        self._woken_at: dict[str, float] = {}
        self._left_out: frozenset[str] = frozenset()
        self._differences: dict[Endpoint, list[int]] = {}
        self._ended = 0
        self._read_at = clock()

    def configure(self, models: Iterable[Model], endpoints: Mapping[str, Sequence[str]], replicas: int) -> None:
        """Take over models and endpoints; whoever waits for a place that is there now gets it."""
        published = {model.cluster: model for model in models}
        for cluster, model in published.items():
            pool = self.pools.get(cluster)
            if pool is None:
                pool = self.pools[cluster] = Pool(cluster)
            pool.configure(model, replicas, DEFAULT_HELD)
            if pool.set_endpoints(endpoints.get(cluster, ()), self._prefix, self._left_out):
                if pool.endpoints:
                    self._cold_starts.over(cluster)
                elif pool.held:
                    self._wake(pool)
            self._serve_waiting(pool)
        for cluster, pool in list(self.pools.items()):
            if cluster not in published:
                pool.set_endpoints((), self._prefix)
                if not pool.in_flight and not pool.held:
                    del self.pools[cluster]

    def leave_out(self, addresses: frozenset[str]) -> None:
        """These do not serve at the moment, though they are ready; all others do."""
        self._left_out = addresses
        for pool in self.pools.values():
            if pool.set_endpoints(pool.ready, self._prefix, addresses):
                self._serve_waiting(pool)

    def ready(self) -> frozenset[str]:
        """Addresses of all replicas that are ready."""
        return frozenset(address for pool in self.pools.values() for address in pool.ready)

    def refusal(self, pool: Pool, name: str) -> ApiProblem | None:
        """Why a request for which there is no place may not wait."""
        hold = pool.hold
        if not pool.endpoints:
            if hold is None:
                return errors.model_not_ready(name)
            if hold.reject or self._cold_starts.has_failed(pool.cluster):
                self._wake(pool)
                return self._cold_starts.problem(pool, name, 0.0)
        if pool.full:
            retry = BUSY_RETRY_SECONDS if pool.endpoints else self._retry_after(pool, name)
            return errors.queue_full(name, pool.most_held, retry)
        return None

    def _retry_after(self, pool: Pool, name: str) -> int:
        return int(dict(self._cold_starts.problem(pool, name, 0.0).headers)["retry-after"])

    def next_number(self) -> int:
        """Of a request."""
        self._numbers += 1
        return self._numbers

    def ticket(self, number: int) -> str:
        """As the log has it: a process that is gone numbered its requests like this one."""
        return f"{self.instance}-{number}"

    def send(self, pool: Pool, endpoint: Endpoint, number: int, wire: bytes) -> bytes:
        """Let a request through; the answer to Envoy."""
        pool.arrivals += 1
        return self._send(pool, endpoint, number, wire)

    def _send(self, pool: Pool, endpoint: Endpoint, number: int, wire: bytes) -> bytes:
        if not self.tickets:
            self.begun.set()
        self.tickets[number] = Ticket(number, pool, endpoint)
        pool.take(endpoint)
        return with_lines(wire, b"%b%d\r\n" % (endpoint.lines, number))

    def hold(
        self,
        pool: Pool,
        number: int,
        decision: Decision,
        request: Request,
        wire: bytes,
        position: int | None,
        deliver: Callable[[bytes], None],
    ) -> Waiter:
        """Keep a request until there is a place. Its answer comes by deliver, later."""
        pool.arrivals += 1
        streams = request.streams and request.path in EVENT_STREAMS
        kept = replace(request, body=b"", document={})
        waiter = Waiter(pool, decision, kept, wire, position, self._clock(), number, deliver)
        first = not pool.held
        pool.held += 1
        pool.enter(waiter)
        self._start_timers(waiter, streams=streams and pool.hold is not None)
        if first and not pool.endpoints:
            self._wake(pool)
        return waiter

    def _start_timers(self, waiter: Waiter, *, streams: bool) -> None:
        hold = waiter.pool.hold
        patience = hold.wait_seconds if hold else DEFAULT_WAIT_SECONDS
        left = patience - (self._clock() - waiter.since)
        timers = [self._later(max(0.0, left), lambda: self._lose_patience(waiter))]
        if streams and hold is not None:
            timers.append(self._later(hold.heartbeat_seconds, lambda: self._hand_over(waiter, hold.heartbeat_seconds)))

        def cancel() -> None:
            for timer in timers:
                timer.cancel()

        waiter.cancel_timers = cancel

    def leave(self, waiter: Waiter) -> None:
        """The caller is gone."""
        if waiter.over:
            return
        self._handed_over.pop(waiter.number, None)
        waiter.pool.leave(waiter)
        self._end_wait(waiter)
        waiter.pool.completions += 1
        self.on_cancel(self.ticket(waiter.number))

    def refuse(self, waiter: Waiter, decision: Decision) -> None:
        """Whoever waits need not wait any more."""
        self.leave(waiter)
        self.on_late_answer(decision.reason, decision.model)
        waiter.deliver(render(decision))

    def _end_wait(self, waiter: Waiter) -> None:
        waiter.over = True
        waiter.cancel_timers()
        waiter.pool.held -= 1

    def _lose_patience(self, waiter: Waiter) -> None:
        pool, name = waiter.pool, waiter.decision.requested
        waited = self._clock() - waiter.since
        if pool.endpoints:
            problem = errors.busy_too_long(name, waited, BUSY_RETRY_SECONDS)
        else:
            problem = self._cold_starts.problem(pool, name, waited)
        self.refuse(waiter, relayed(waiter.decision, problem))

    def _hand_over(self, waiter: Waiter, heartbeat_seconds: float) -> None:
        """From now on the relay keeps the caller's connection alive; it comes back with the request, and waits in the caller's place."""
        if waiter.pool.endpoints:
            # Only the engine is busy: the wait is short, and the answer need not go through the relay.
            self._start_timers(waiter, streams=True)
            return
        waiter.cancel_timers()
        waiter.pool.leave(waiter)
        self._handed_over[waiter.number] = waiter
        timer = self._later(CLAIM_SECONDS, lambda: self.leave(waiter))
        waiter.cancel_timers = timer.cancel
        deliver, waiter.deliver = waiter.deliver, lambda wire: None
        held = f"{self.ticket(waiter.number)} {heartbeat_seconds:g}"
        deliver(render(answered_by_relay(waiter.decision, "held", held=held)))

    def claim(self, place: str, deliver: Callable[[bytes], None]) -> Waiter | None:
        """The relay is back with a request that was handed over; None when its place is gone."""
        instance, _, number = place.partition("-")
        waiter = self._handed_over.pop(int(number), None) if instance == self.instance and number.isdecimal() else None
        if waiter is None:
            return None
        waiter.cancel_timers()
        waiter.deliver = deliver
        waiter.pool.enter(waiter, first=True)
        self._start_timers(waiter, streams=False)
        self._serve_waiting(waiter.pool)
        return waiter

    def fail(self, clusters: Iterable[str]) -> None:
        """Their start has failed, and somebody has to do something: nobody need wait for it."""
        for cluster in clusters:
            pool = self.pools.get(cluster)
            if pool is not None and not pool.endpoints:
                for waiter in list(pool.waiters()):
                    problem = self._cold_starts.problem(pool, waiter.decision.requested, 0.0)
                    self.refuse(waiter, relayed(waiter.decision, problem))

    def _serve_waiting(self, pool: Pool) -> None:
        while pool.has_queue and (found := pool.next_with_place()) is not None:
            waiter, endpoint = found
            self._end_wait(waiter)
            self.on_late_answer(waiter.decision.reason, waiter.decision.model)
            waiter.deliver(self._send(pool, endpoint, waiter.number, waiter.wire))

    def _wake(self, pool: Pool) -> None:
        now = self._clock()
        if pool.cold_since is None or now - pool.cold_since > FORGOTTEN_SECONDS:
            # Also when nobody has waited for the end of an earlier start.
            self._cold_starts.over(pool.cluster)
            pool.cold_since = now
        elif (
            pool.hold is not None
            and pool.hold.reject
            and now - self._woken_at.get(pool.cluster, float("-inf")) < REJECT_WAKE_SECONDS
        ):
            return
        self._woken_at[pool.cluster] = now
        self.on_wake(pool.cluster)

    def read_log(self, lines: bytes) -> None:
        """Requests that have ended free their places."""
        mine = self._prefix[:-1]
        for instance, number in TICKET.findall(lines):
            ticket = self.tickets.pop(int(number), None) if instance == mine else None
            if ticket is not None:
                self._end(ticket)

    def _end(self, ticket: Ticket) -> None:
        self._ended += 1
        pool = ticket.pool
        pool.give_back(ticket.endpoint)
        if pool.has_queue:
            self._serve_waiting(pool)

    def cancel(self, number: int) -> None:
        """The caller left before any engine saw the request."""
        ticket = self.tickets.pop(number, None)
        if ticket is not None:
            self._end(ticket)
            self.on_cancel(self.ticket(number))

    @property
    def is_busy(self) -> bool:
        """Whether anything is to be expected from log or gauges."""
        return bool(self.tickets) or any(pool.in_flight for pool in self.pools.values())

    def was_busy(self) -> bool:
        """Whether anything has run since the gauges were read."""
        return bool(self._ended) or self.is_busy

    @property
    def is_pressed(self) -> bool:
        """Whether an end should be known at once."""
        return any(pool.pressed for pool in self.pools.values())

    def read_gauges(self, active: Mapping[str, int], *, first: bool = False) -> None:
        """Compare the count with Envoy's, by address. At the start of this process it is the only one there is."""
        now = self._clock()
        tolerated = ceil(self._ended * LOG_LAG_SECONDS / max(now - self._read_at, 0.1))
        self._ended, self._read_at = 0, now
        if active:
            self.begun.set()
        lost: dict[Endpoint, int] = defaultdict(int)
        known = [(pool, endpoint) for pool in self.pools.values() for endpoint in pool.known.values()]
        for pool, endpoint in known:
            difference = active.get(endpoint.address, 0) - (endpoint.load - endpoint.elsewhere)
            if not difference and not endpoint.elsewhere:
                self._differences.pop(endpoint, None)
                continue
            last = self._differences.setdefault(endpoint, [])
            last.append(difference)
            del last[:-READINGS]
            sure = [difference] if first else last if len(last) == READINGS else [0]
            more, fewer = max(0, min(sure)), max(0, -max(sure) - tolerated)
            # What ended elsewhere is gone at once; what is new must show for some time.
            pool.set_elsewhere(endpoint, max(min(endpoint.elsewhere, max(difference, 0)), more))
            if fewer:
                lost[endpoint] = fewer
                last.clear()
        for ticket in [ticket for ticket in self.tickets.values() if ticket.endpoint in lost] if lost else ():
            if lost[ticket.endpoint]:
                lost[ticket.endpoint] -= 1
                del self.tickets[ticket.number]
                self._end(ticket)
        for pool in {pool.cluster: pool for pool, _ in known}.values():
            self._serve_waiting(pool)

    def snapshot(self, clusters: Iterable[str] | None = None) -> dict[str, Any]:
        """What the operator scales by."""
        wanted = self.pools if clusters is None else clusters
        return {cluster: self.pools[cluster].snapshot() for cluster in wanted if cluster in self.pools}
