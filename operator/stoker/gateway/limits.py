"""What callers have used of their limits, counted in this process: exact for one replica; a killed policy process forgets it.

A minute slides: in no 60 seconds are more let in than the limit says, also not around a full minute. It is counted in seconds, so
a caller at the limit may wait up to a second longer than needed, and a caller takes the same memory at any limit.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from stoker.gateway.bounds import Scope, share
from stoker.gateway.openai_errors import ApiProblem, rate_limited, too_many_at_once, too_many_tokens

WINDOW = 60
# One more than the window, for the present second has only begun.
SLOTS = WINDOW + 1
SWEEP_FROM = 10_000
LONGEST_REQUEST_SECONDS = 6 * 3600.0
"""After this a request whose end nobody told counts as ended."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One counter of one scope, before the request at hand."""

    kind: str
    """requests, tokens or concurrent."""
    scope: Scope
    limit: int
    """What this replica admits of it now."""
    used: int
    cost: int
    wait: int = 1
    """Seconds until the cost would fit."""
    reset: int = 0
    """Seconds until nothing counts any more."""

    @property
    def scope_limit(self) -> int:
        """The whole limit, of all replicas together."""
        return {"requests": self.scope.bounds.requests, "tokens": self.scope.bounds.tokens}.get(
            self.kind, self.scope.bounds.concurrent
        )

    @property
    def fits(self) -> bool:
        """Whether the request may come in. A prompt that alone is more than a share is let in when nothing else counts: its
        estimate may be wrong, and no other replica would take it either."""
        if self.kind == "tokens" and self.used <= 0:
            return self.cost <= max(self.limit, self.scope.bounds.tokens)
        return self.used + self.cost <= self.limit


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request is let in, and what its answer tells of the limits."""

    headers: tuple[tuple[str, str], ...]
    problem: ApiProblem | None = None

    @property
    def admitted(self) -> bool:
        """Let in, and counted."""
        return self.problem is None


class Window:
    """The last minute of one counter."""

    __slots__ = ("_counts", "_last", "_total")

    def __init__(self, now: float) -> None:
        self._counts = array("q", bytes(8 * SLOTS))
        self._last = int(now)
        self._total = 0

    def total(self, now: float) -> int:
        """What counts."""
        self._advance(now)
        return self._total

    def add(self, amount: int, now: float) -> None:
        """Count more from now on; less than nothing takes back what was counted too much, never below nothing."""
        second = self._advance(now)
        if amount >= 0:
            self._counts[second % SLOTS] += amount
            self._total += amount
            return
        # The youngest first: an estimate that is corrected was counted not long ago.
        for past in range(second, second - SLOTS, -1):
            taken = min(self._counts[past % SLOTS], -amount)
            self._counts[past % SLOTS] -= taken
            self._total -= taken
            amount += taken
            if not amount:
                return

    def until_fits(self, limit: int, cost: int, now: float) -> int:
        """Seconds until so much more stays within the limit; 0 for now."""
        left = self.total(now)
        if left + cost <= limit:
            return 0
        for second in range(self._last - WINDOW, self._last + 1):
            left -= self._counts[second % SLOTS]
            if left + cost <= limit or left <= 0:
                return max(1, ceil(second + SLOTS - now))
        return SLOTS

    def until_empty(self, now: float) -> int:
        """Seconds until nothing counts any more."""
        for second in range(self._last, self._last - SLOTS, -1):
            if self._counts[second % SLOTS]:
                return max(1, ceil(second + SLOTS - now))
        return 0

    def _advance(self, now: float) -> int:
        """Forget what is older than the window; a clock that stands still or jumps back forgets nothing."""
        second = max(int(now), self._last)
        for past in range(self._last + 1, min(second, self._last + SLOTS) + 1):
            self._total -= self._counts[past % SLOTS]
            self._counts[past % SLOTS] = 0
        self._last = second
        return second


class Used:
    """The counters of one scope."""

    __slots__ = ("requests", "running", "tokens")

    def __init__(self, now: float) -> None:
        self.requests = Window(now)
        self.tokens = Window(now)
        self.running = 0

    def idle(self, now: float) -> bool:
        """Whether nothing counts any more."""
        return not (self.running or self.requests.total(now) or self.tokens.total(now))


@dataclass(slots=True)
class Ticket:
    """An admitted request that has not ended."""

    scopes: tuple[Scope, ...]
    tokens: int
    """What was counted for it when it came."""
    at: float


class Counters:
    """What every caller with a limit has used."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[str, Used] = {}
        self._tickets: dict[str, Ticket] = {}
        self._sweep_at = SWEEP_FROM

    def admit(self, scopes: tuple[Scope, ...], *, tokens: int = 0, replicas: int = 1, ticket: str = "") -> Admission:
        """Count a request in all its scopes, if it fits into all of them."""
        admission = judge(self.read(scopes, tokens=tokens, replicas=replicas))
        if admission.admitted:
            self.count(scopes, tokens=tokens, ticket=ticket)
        return admission

    def read(self, scopes: tuple[Scope, ...], *, tokens: int, replicas: int) -> list[Reading]:
        """The counters that the request must fit into."""
        now = self._clock()
        found: list[Reading] = []
        for scope in scopes:
            bounds, used = scope.bounds, self._of(scope, now)
            if bounds.concurrent:
                most = share(bounds.concurrent, replicas)
                found.append(Reading("concurrent", scope, most, used.running, 1))
            for kind, limit, cost, window in (
                ("requests", bounds.requests, 1, used.requests),
                ("tokens", bounds.tokens, tokens, used.tokens),
            ):
                if limit:
                    most = share(limit, replicas)
                    wait, reset = window.until_fits(most, cost, now), window.until_empty(now)
                    found.append(Reading(kind, scope, most, window.total(now), cost, wait, reset))
        return found

    def count(self, scopes: tuple[Scope, ...], *, tokens: int, ticket: str) -> None:
        """The request is let in."""
        now = self._clock()
        for scope in scopes:
            used = self._of(scope, now)
            used.requests.add(1, now)
            used.tokens.add(tokens, now)
            if ticket:
                used.running += 1
        if ticket:
            self._tickets[ticket] = Ticket(scopes, tokens, now)

    def end(self, ticket: str, tokens: int | None) -> Ticket | None:
        """A request has ended, and so many tokens were really used; None where nobody knows. Unknown requests had no limit."""
        entry = self._tickets.pop(ticket, None)
        if entry is None:
            return None
        now = self._clock()
        for scope in entry.scopes:
            used = self._of(scope, now)
            used.running = max(0, used.running - 1)
            if tokens is not None:
                used.tokens.add(tokens - entry.tokens, now)
        return entry

    def used(self, kind: str, name: str) -> int:
        """What a scope has used here of its requests or tokens, by its name."""
        used = self._used.get(name)
        if used is None:
            return 0
        return (used.tokens if kind == "tokens" else used.requests).total(self._clock())

    def places(self) -> dict[Scope, int]:
        """Who has how many requests running, of those who may only have so many."""
        return Counter(scope for entry in self._tickets.values() for scope in entry.scopes if scope.bounds.concurrent)

    @property
    def running(self) -> int:
        """Admitted requests of which no end is known."""
        return len(self._tickets)

    def _of(self, scope: Scope, now: float) -> Used:
        used = self._used.get(scope.name)
        if used is None:
            self._sweep(now)
            used = self._used[scope.name] = Used(now)
        return used

    def _sweep(self, now: float) -> None:
        """Callers come and go: now and then those are dropped that have not called for a minute."""
        if len(self._used) < self._sweep_at:
            return
        for ticket in [name for name, entry in self._tickets.items() if now - entry.at > LONGEST_REQUEST_SECONDS]:
            self.end(ticket, None)
        self._used = {name: used for name, used in self._used.items() if not used.idle(now)}
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._used))


def judge(readings: Sequence[Reading]) -> Admission:
    """In only where everything fits; the answer tells of the tightest limit of each kind."""
    refused = next((reading for reading in readings if not reading.fits), None)
    taken = 0 if refused else 1
    headers: list[tuple[str, str]] = []
    for kind in ("requests", "tokens"):
        mine = [reading for reading in readings if reading.kind == kind]
        if mine:
            tightest = min(mine, key=lambda reading: reading.limit - reading.used)
            left = max(0, tightest.limit - tightest.used - taken * tightest.cost)
            # What is counted now goes away a window later.
            reset = SLOTS if taken and tightest.cost else tightest.reset
            headers += [
                (f"x-ratelimit-limit-{kind}", str(tightest.limit)),
                (f"x-ratelimit-remaining-{kind}", str(left)),
                (f"x-ratelimit-reset-{kind}", f"{reset}s"),
            ]
    return Admission(tuple(headers), _word(refused, tuple(headers)) if refused else None)


def _word(reading: Reading, headers: tuple[tuple[str, str], ...]) -> ApiProblem:
    who, limit = reading.scope.who, reading.limit
    if reading.kind == "concurrent":
        return too_many_at_once(who, limit, headers)
    if reading.kind == "requests":
        return rate_limited(who, limit, max(1, reading.wait), headers)
    return too_many_tokens(who, limit, reading.cost, max(1, reading.wait), headers)
