"""The step between "may he" and "where to": whether an allowed request fits into its limits, and what is added to it on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from stoker.gateway.asked_tokens import additions, check_max_tokens, estimate_prompt
from stoker.gateway.config import Table
from stoker.gateway.decide import Decision, Request
from stoker.gateway.limits import Admission, Counters
from stoker.gateway.token_use import TokenCounter


class Admissions:
    """Lets requests in, and takes note of their ends."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.counters = Counters(clock)
        self._tokens = TokenCounter()

    def admit(self, table: Table, decision: Decision, request: Request, ticket: str) -> Admission:
        """Count it, or say why not; the headers go into the answer to Envoy. Its end will be told by the ticket."""
        path = request.target.partition("?")[0]
        if decision.max_tokens:
            problem = check_max_tokens(request.document, path, decision.max_tokens)
            if problem is not None:
                return Admission((), problem)
        admission = Admission(())
        if decision.scopes:
            tokens = estimate_prompt(request.document) if any(s.bounds.tokens for s in decision.scopes) else 0
            admission = self.counters.admit(decision.scopes, tokens=tokens, replicas=table.replicas, ticket=ticket)
            if not admission.admitted:
                return admission
        if added := additions(request.document, path, decision.max_tokens):
            admission = replace(admission, headers=(*admission.headers, ("x-gw-add", added)))
        return admission

    def ended(self, line: Mapping[str, Any]) -> None:
        """A request that an engine has served is over: its place is free, and its tokens are known."""
        use = self._tokens.read(line)
        if ticket := line.get("ticket"):
            self.counters.end(str(ticket), use.total)

    def cancelled(self, ticket: str) -> None:
        """The client left before any engine saw the request."""
        self.counters.end(ticket, 0)

    @property
    def waiting(self) -> bool:
        """Whether the end of a request would be news."""
        return self.counters.running > 0
