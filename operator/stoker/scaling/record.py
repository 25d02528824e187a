"""A decision with everything that it was made from, as plain data: what the log keeps, and what a replay needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from stoker.scaling.decide import Decision, decide
from stoker.scaling.observed import Replicas, Sample
from stoker.scaling.spec import Autoscaling
from stoker.scaling.state import Learned, Memory


@dataclass(frozen=True, slots=True)
class Record:
    """One call of the policy."""

    now: float
    samples: tuple[Sample, ...]
    replicas: Replicas
    learned: Learned
    memory: Memory
    spec: Autoscaling
    decision: Decision

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data: dict[str, Any] = _RECORD.dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """The reverse of to_dict; a ValueError when the data is not that."""
        return _RECORD.validate_python(data)


def make_record(
    now: float, samples: tuple[Sample, ...], replicas: Replicas, learned: Learned, memory: Memory, spec: Autoscaling
) -> Record:
    """Decide, and keep from what; the same again gives the same."""
    return Record(now, samples, replicas, learned, memory, spec, decide(now, samples, replicas, learned, memory, spec))


_RECORD = TypeAdapter(Record)
