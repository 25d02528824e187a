"""The step between "may he" and "where to": whether an allowed request fits into its limits, and what is added to it on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from stoker.gateway.asked_tokens import additions, check_max_tokens, estimate_prompt, too_long_to_add
from stoker.gateway.bounds import Scope
from stoker.gateway.decision import Decision, Request
from stoker.gateway.limits import Admission, Counters, Reading, judge
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.shared_limits import SharedCounters
from stoker.gateway.table import Table
from stoker.gateway.token_use import TokenCounter

ADMITTED = Admission(())


class Admissions:
    """Lets requests in, and takes note of their ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.counters = Counters(clock)
        self._tokens = TokenCounter()
        self.shared: SharedCounters | None = None
        """Where replicas count together; None where each counts for itself."""

    def check(self, decision: Decision, request: Request) -> ApiProblem | None:
        """What is wrong with the request whoever has used what."""
        if not decision.max_tokens:
            return None
        return check_max_tokens(request.document, request.path, decision.max_tokens)

    def estimate(self, decision: Decision, request: Request) -> int:
        """Tokens to count for it before any engine has counted them."""
        limited = any(scope.bounds.tokens for scope in decision.scopes)
        return estimate_prompt(request.document) if limited else 0

    def admit(
        self, table: Table, decision: Decision, request: Request, ticket: str, told: list[Reading] | None = None
    ) -> Admission:
        """Count it, or say why not; the headers go into the answer to Envoy. Its end will be told by the ticket. `told` are the
        counters as Redis has them, where it was asked, and has counted the request if it fits."""
        if (problem := self.check(decision, request)) is not None:
            return Admission((), problem)
        added = additions(request.document, request.path, decision.max_tokens)
        if added is None:
            return Admission((), too_long_to_add(request.path))
        admission = ADMITTED
        if decision.scopes:
            tokens = self.estimate(decision, request)
            readings = told or self._own(decision.scopes, tokens, table.routes.replicas)
            admission = judge(readings)
            if not admission.admitted:
                return admission
            self.counters.count(decision.scopes, tokens=tokens, ticket=ticket)
            if told is None and self.shared is not None:
                self.shared.note(decision.scopes, tokens)
        if added or decision.adds:
            added = f"{added},{decision.adds}" if added and decision.adds else added or decision.adds
            admission = replace(admission, headers=(*admission.headers, ("x-gw-add", added)))
        return admission

    def asked_first(self, decision: Decision, request: Request) -> SharedCounters | None:
        """Redis, where it has a say in this request now."""
        if self.shared is None or not decision.scopes or not self.shared.usable:
            return None
        return self.shared if self.check(decision, request) is None else None

    def _own(self, scopes: tuple[Scope, ...], tokens: int, replicas: int) -> list[Reading]:
        readings = self.counters.read(scopes, tokens=tokens, replicas=replicas)
        return readings if self.shared is None else self.shared.without_redis(readings)

    def give_back(self, decision: Decision, request: Request) -> None:
        """Redis has counted a request that goes nowhere."""
        if self.shared is not None:
            self.shared.correct(decision.scopes, -self.estimate(decision, request))

    def ended(self, line: Mapping[str, Any]) -> None:
        """A request that an engine has served is over: its place is free, and its tokens are known."""
        use = self._tokens.read(line)
        if ticket := line.get("ticket"):
            self._end(str(ticket), use.total)

    def cancelled(self, ticket: str) -> None:
        """The client left before any engine saw the request."""
        self._end(ticket, 0)

    def _end(self, ticket: str, tokens: int) -> None:
        entry = self.counters.end(ticket, tokens)
        if entry is not None and self.shared is not None:
            self.shared.correct(entry.scopes, tokens - entry.tokens)

    @property
    def waiting(self) -> bool:
        """Whether the end of a request would be news."""
        return self.counters.running > 0
