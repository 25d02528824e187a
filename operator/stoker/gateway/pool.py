"""One model's replicas, its requests at them, and who waits for a place. No clock and no transport of its own.

A replica takes as many requests as its engine works on at a time, so that the queue stands here: whoever waits goes to whichever
replica is free first, a caller who leaves costs the engine nothing, and the autoscaler sees the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import ceil
from typing import Any

from stoker.gateway.affinity import Ring, position_of
from stoker.gateway.decision import Decision, Request
from stoker.gateway.endpoints import MOST_TRIES
from stoker.gateway.table import Hold, Model

BOUND_PERCENT = 125
"""A conversation's own endpoint takes it up to this share of the mean load; beyond it the next one on the ring does."""


class Endpoint:
    """A replica of a model."""

    __slots__ = ("address", "elsewhere", "lines", "load")

    def __init__(self, address: str) -> None:
        self.address = address
        self.load = 0
        """Requests of this gateway that it works on."""
        self.elsewhere = 0
        """Those among them that have no ticket here: they came in by a second try, or before this process began."""
        self.lines = b""
        """What Envoy is told with a request for it: the endpoint, others in its place, and how often to try. Ends in the ticket's name."""


class Ticket:
    """A request that was let through to an endpoint and has not ended."""

    __slots__ = ("endpoint", "number", "pool")

    def __init__(self, number: int, pool: Pool, endpoint: Endpoint) -> None:
        self.number = number
        self.pool = pool
        self.endpoint = endpoint


class Asking:
    """A request for which another process is asked; milliseconds, save where that asks an identity provider."""

    __slots__ = ("deliver", "over")

    def __init__(self) -> None:
        self.deliver: Callable[[bytes | Waiter | Asking], None] = lambda answer: None
        self.over = False
        """Nobody waits for the answer any more."""


class Waiter:
    """A request that is held."""

    __slots__ = (
        "cancel_timers",
        "decision",
        "deliver",
        "number",
        "over",
        "pool",
        "position",
        "request",
        "since",
        "wire",
    )

    def __init__(
        self,
        pool: Pool,
        decision: Decision,
        request: Request,
        wire: bytes,
        position: int | None,
        since: float,
        number: int,
        deliver: Callable[[bytes], None],
    ) -> None:
        self.pool = pool
        self.decision = decision
        self.request = request
        """Without its body, which Envoy keeps."""
        self.wire = wire
        """The answer when there is a place, but for the endpoint."""
        self.position = position
        self.since = since
        self.number = number
        self.deliver = deliver
        self.over = False
        """It has its answer, or nobody waits for one any more."""
        self.cancel_timers: Callable[[], None] = lambda: None


class Pool:
    """One model."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.name = ""
        self.slots = 0
        """Requests that an endpoint may have of this gateway replica; 0 for any number."""
        self.hold: Hold | None = None
        self.most_held = 0
        """Requests that may wait here."""
        self.endpoints: dict[str, Endpoint] = {}
        """Those that take requests, by address."""
        self.ready: list[str] = []
        """Addresses of all that are ready, those that are left out included."""
        self.known: dict[str, Endpoint] = {}
        """Those that still work on some, too."""
        self.in_flight = 0
        self.held = 0
        self.arrivals = 0
        self.completions = 0
        self.cold_since: float | None = None
        """When the first request came for which there was no endpoint; None while there is one."""
        self._order: list[Endpoint] = []
        self._ring: Ring | None = None
        self._turn = 0
        self._waiting: dict[str, deque[Waiter]] = {}
        """By caller; the one whose turn it is stands first."""

    def configure(self, model: Model, replicas: int, default_held: int) -> None:
        """Take over what the operator says; a gateway replica has its share of places and of waiting room."""
        self.name = model.name
        self.slots = ceil(model.slots / replicas) if model.slots else 0
        self.hold = model.hold
        self.most_held = ceil((model.hold.most_held if model.hold else default_held) / replicas)

    def set_endpoints(
        self, addresses: Iterable[str], ticket_prefix: bytes, left_out: frozenset[str] = frozenset()
    ) -> bool:
        """Take over which replicas are ready; whether anything changed. One that is gone keeps its requests, and gets no more.

        Of those to be left out the last one is not: better a replica that may be dead than none.
        """
        self.ready = sorted(set(addresses))
        wanted = [address for address in self.ready if address not in left_out] or self.ready
        if wanted == sorted(self.endpoints):
            return False
        self.endpoints = {address: self.known.get(address) or Endpoint(address) for address in wanted}
        self.known = {**{a: e for a, e in self.known.items() if e.load}, **self.endpoints}
        self._order = list(self.endpoints.values())
        self._ring = Ring(wanted) if len(wanted) > 1 else None
        for endpoint in self._order:
            endpoint.lines = self._lines(endpoint, ticket_prefix)
        if wanted:
            self.cold_since = None
        return True

    def _lines(self, endpoint: Endpoint, ticket_prefix: bytes) -> bytes:
        tries = [endpoint.address]
        if self._ring is not None:
            # In another order for each, so that the load of one that fails is spread.
            position = position_of(endpoint.address.encode())
            tries += [address for address in self._ring.walk(position) if address != endpoint.address][: MOST_TRIES - 1]
        lines = b"x-gw-endpoint: " + ",".join(tries).encode() + b"\r\n"
        if len(tries) < MOST_TRIES:
            # Envoy would go round again, to endpoints that it has tried.
            lines += b"x-envoy-max-retries: %d\r\n" % (len(tries) - 1)
        return lines + b"x-gw-ticket: " + ticket_prefix

    @property
    def left_out(self) -> int:
        """Ready replicas that get no requests, for they do not serve."""
        return len(self.ready) - len(self.endpoints)

    def choose(self, position: int | None) -> Endpoint | None:
        """A free endpoint: that of the conversation if it is not much busier than the others, else the least busy one."""
        order, slots = self._order, self.slots
        if len(order) == 1:
            only = order[0]
            return only if not slots or only.load < slots else None
        if not order:
            return None
        if position is not None and self._ring is not None:
            bound = -(-BOUND_PERCENT * (self.in_flight + 1) // (100 * len(order)))
            bound = min(bound, slots) if slots else bound
            endpoint = self.endpoints[self._ring.first(position)]
            if endpoint.load < bound:
                return endpoint
            for address in self._ring.walk(position):
                endpoint = self.endpoints[address]
                if endpoint.load < bound:
                    return endpoint
        # Beginning with another each time, so that equally busy ones take turns.
        self._turn = (self._turn + 1) % len(order)
        best = min((*order[self._turn :], *order[: self._turn]), key=_load)
        return best if not slots or best.load < slots else None

    @property
    def has_queue(self) -> bool:
        """Whether somebody waits who comes first."""
        return bool(self._waiting)

    @property
    def pressed(self) -> bool:
        """Whether the end of a request is waited for, or would be by the next one."""
        return bool(self._waiting) or 0 < self.slots * len(self._order) <= self.in_flight

    @property
    def full(self) -> bool:
        """Whether nobody more may wait."""
        return self.held >= self.most_held

    def enter(self, waiter: Waiter, *, first: bool = False) -> None:
        """Wait; first for one who has waited before."""
        queue = self._waiting.setdefault(waiter.decision.caller, deque())
        if first:
            queue.appendleft(waiter)
        else:
            queue.append(waiter)

    def leave(self, waiter: Waiter) -> bool:
        """Wait no more; False for one who does not stand here."""
        caller = waiter.decision.caller
        queue = self._waiting.get(caller)
        if queue is None or waiter not in queue:
            return False
        queue.remove(waiter)
        if not queue:
            del self._waiting[caller]
        return True

    def next_with_place(self) -> tuple[Waiter, Endpoint] | None:
        """Whoever is next, and the place for him. Callers take turns, so that one with many requests does not shut out the others."""
        for caller, queue in self._waiting.items():
            waiter = queue[0]
            endpoint = self.choose(waiter.position)
            if endpoint is None:
                return None
            queue.popleft()
            del self._waiting[caller]
            if queue:
                self._waiting[caller] = queue
            return waiter, endpoint
        return None

    def waiters(self) -> Iterator[Waiter]:
        """All who wait."""
        for queue in list(self._waiting.values()):
            yield from list(queue)

    def take(self, endpoint: Endpoint) -> None:
        """A request goes there."""
        endpoint.load += 1
        self.in_flight += 1

    def give_back(self, endpoint: Endpoint) -> None:
        """One has ended there."""
        endpoint.load -= 1
        self.in_flight -= 1
        self.completions += 1

    def set_elsewhere(self, endpoint: Endpoint, count: int) -> None:
        """Requests at this endpoint that nobody here has a ticket for."""
        change = count - endpoint.elsewhere
        endpoint.elsewhere = count
        endpoint.load += change
        self.in_flight += change
        if change > 0:
            self.arrivals += change
        else:
            self.completions -= change

    def snapshot(self) -> Mapping[str, Any]:
        """What the operator scales by."""
        return {
            "held": self.held,
            "inFlight": self.in_flight,
            "arrivalsTotal": self.arrivals,
            "completionsTotal": self.completions,
            "endpoints": {
                address: endpoint.load
                for address, endpoint in self.known.items()
                if endpoint.load or address in self.endpoints
            },
        }


def _load(endpoint: Endpoint) -> int:
    return endpoint.load
