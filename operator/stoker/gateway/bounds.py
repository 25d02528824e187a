"""How much a caller may ask for: the four numbers as the operator writes them, and whose requests are counted together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one caller; 0 stands for none."""

    requests: int = 0
    """In any 60 seconds."""
    tokens: int = 0
    """In any 60 seconds, prompt and answer together."""
    concurrent: int = 0
    """At the same time."""
    max_tokens: int = 0
    """That one request may have generated."""

    @property
    def counted(self) -> bool:
        """Whether anything has to be counted for it."""
        return bool(self.requests or self.tokens or self.concurrent)


NO_BOUNDS = Bounds()
FIELDS = {
    "requests": "requestsPerMinute",
    "tokens": "tokensPerMinute",
    "concurrent": "concurrentRequests",
    "max_tokens": "maxTokensPerRequest",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Requests that are counted together."""

    name: str
    """Names its counters, here and in Redis."""
    who: str
    """For the caller's eyes."""
    bounds: Bounds


def parse_bounds(entry: dict[str, Any]) -> Bounds:
    """Read them; ValueError when one is not a number from 1 on: a limit that cannot be read must not become none."""
    return Bounds(**{name: positive(entry, field, 0) for name, field in FIELDS.items()})


def first_given(*bounds: Bounds) -> Bounds:
    """Number by number, the first that is given."""
    return Bounds(**{name: next((n for n in (getattr(b, name) for b in bounds) if n), 0) for name in FIELDS})


def share(limit: int, replicas: int) -> int:
    """What one replica admits by itself: never more than the limit by all together, save that each admits at least one."""
    return max(1, limit // replicas)


def positive(document: dict[str, Any], name: str, default: int) -> int:
    """A number from 1 on; the default where it is absent."""
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, not a positive number")
    return value
