"""What the policy carries from one decision to the next; small enough for the resource's status."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known about one replica of this model, on this engine, on this hardware; start anew when those change."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    residence_seconds: float | None = None
    """How long a request is in the engine while nothing queues."""
    slots: float | None = None
    """Requests that one replica effectively works on at once, measured while requests queued."""
    cold_start_seconds: float | None = None
    """From a replica's creation to its readiness."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = _LEARNED.dump_python(self, mode="json", exclude_none=True)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Learned:
        """The reverse of to_dict; a ValueError when the data is not that."""
        return _LEARNED.validate_python(data)


@dataclass(frozen=True, slots=True)
class Level:
    """The n-th replica: when it was last needed, and how long the latest pauses were in which it was not."""

    last_needed: float
    gaps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """A sample as far as the next minute needs it."""

    time: float
    arrived: int
    ready: int


@dataclass(frozen=True, slots=True)
class Tally:
    """An average under way: ``amount`` for ``count`` completed requests."""

    amount: float = 0.0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Everything that a later decision depends on, beside what was learned."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    time: float | None = None
    """Of the newest sample."""
    counters: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The last totals of each gateway: arrivals, completions."""
    recent: tuple[Moment, ...] = ()
    queues: tuple[float, ...] = ()
    """Requests that would be in flight had there always been 1, 2, … replicas."""
    levels: tuple[Level, ...] = ()
    """Of the first, second, … replica."""
    saturated_since: float | None = None
    calm_since: float | None = None
    residence: Tally = Tally()
    slots: Tally = Tally()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = _MEMORY.dump_python(self, mode="json", exclude_none=True)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Memory:
        """The reverse of to_dict; a ValueError when the data is not that."""
        return _MEMORY.validate_python(data)


_LEARNED = TypeAdapter(Learned)
_MEMORY = TypeAdapter(Memory)
