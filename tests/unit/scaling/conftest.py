"""A model with its gateway and engines, told second by second to the policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import TypeAdapter

from stoker.scaling import Autoscaling, Decision, EngineLoad, GatewayLoad, Learned, Memory, Replicas, Sample, decide

# A decision and what it was made from, as plain data: what a log keeps and a replay needs.
_SAMPLES, _REPLICAS, _SPEC, _DECISION = (TypeAdapter(kind) for kind in (list[Sample], Replicas, Autoscaling, Decision))


def replay(recorded: str) -> Decision:
    """Decide again from JSON."""
    given = json.loads(recorded)
    return decide(
        given["now"],
        _SAMPLES.validate_python(given["samples"]),
        _REPLICAS.validate_python(given["replicas"]),
        Learned.from_dict(given["learned"]),
        Memory.from_dict(given["memory"]),
        _SPEC.validate_python(given["spec"]),
    )


@dataclass
class Model:
    """Its replicas follow the decisions at once unless a test says otherwise; every decision is made from JSON, twice."""

    spec: Autoscaling
    desired: int = 1
    now: float = 1_700_000_000.0
    learned: Learned = field(default_factory=Learned)
    memory: Memory = field(default_factory=Memory)
    totals: dict[str, list[int]] = field(default_factory=lambda: {"gateway-a": [1000, 990]})
    decisions: list[Decision] = field(default_factory=list)

    def tick(
        self,
        *,
        seconds: float = 2.0,
        arrivals: int = 0,
        completions: int = 0,
        held: int = 0,
        running: float = 0.0,
        waiting: float = 0.0,
        ready: int | None = None,
        seen: bool = True,
        silent: tuple[str, ...] = (),
        age: float = 0.0,
        **replicas: Any,
    ) -> Decision:
        """Let time pass, then decide; numbers are of the whole model and of the time that passed."""
        self.now += seconds
        ready = self.desired if ready is None else ready
        self.totals["gateway-a"][0] += arrivals
        self.totals["gateway-a"][1] += completions
        gateways = {
            name: None if name in silent else GatewayLoad(held if name == "gateway-a" else 0, *totals)
            for name, totals in self.totals.items()
        }
        pods = [f"pod-{number}" for number in range(ready)]
        engines = {p: None if p in silent else EngineLoad(running / ready, waiting / ready) for p in pods}
        samples = [Sample(self.now - age, gateways, engines)] if seen else []
        recorded = json.dumps(
            {
                "now": self.now,
                "samples": _SAMPLES.dump_python(samples, mode="json"),
                "replicas": _REPLICAS.dump_python(Replicas(self.desired, ready, **replicas), mode="json"),
                "learned": self.learned.to_dict(),
                "memory": self.memory.to_dict(),
                "spec": _SPEC.dump_python(self.spec, mode="json"),
            },
            allow_nan=False,
        )
        decision = replay(recorded)
        assert decision == replay(recorded)
        self.desired, self.learned, self.memory = decision.desired, decision.learned, decision.memory
        self.decisions.append(decision)
        return decision

    def run(self, seconds: float, *, step: float = 2.0, **load: Any) -> Decision:
        """The same load for a while; the last decision."""
        for _ in range(int(seconds / step)):
            decision = self.tick(seconds=step, **load)
        return decision


@pytest.fixture
def model() -> Callable[..., Model]:
    """Makes a model of which one replica answers 2 requests/s, each in 2 s, four at a time."""

    def make(*, desired: int = 1, learned: Learned | None = None, **spec: Any) -> Model:
        known = Learned(residence_seconds=2.0, slots=4.0, cold_start_seconds=60.0) if learned is None else learned
        return Model(Autoscaling(**{"max_replicas": 8} | spec), desired=desired, learned=known)

    return make
