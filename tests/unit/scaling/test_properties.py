"""What holds for every load and every history."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.scaling import Autoscaling, Decision, EngineLoad, GatewayLoad, Learned, Memory, Replicas, Sample, decide

START = 1_000_000.0
LOADS = st.fixed_dictionaries(
    {
        "seconds": st.sampled_from([0.0, 0.1, 2.0, 2.0, 2.0, 7.5, 29.0, 45.0, 4000.0, -500.0]),
        "arrivals": st.integers(0, 200),
        "completions": st.integers(0, 200),
        "held": st.integers(0, 300),
        "running": st.floats(0, 300),
        "waiting": st.floats(0, 50),
        "ready": st.integers(0, 6),
        "seen": st.sampled_from(["all", "all", "all", "nothing", "no engines", "no gateways"]),
        "reset": st.sampled_from([False, False, False, True]),
        "pending": st.lists(st.floats(0, 5000), max_size=3),
        "unschedulable": st.sampled_from([0, 0, 0, 1, 3]),
        "rolling_out": st.sampled_from([False, False, True]),
        "cold_starts": st.lists(st.floats(0.1, 4000), max_size=2),
    }
)
SPECS = st.builds(
    lambda least, more, inflight, wait, penalty: Autoscaling(
        min_replicas=least,
        max_replicas=max(1, least + more),
        target_inflight=inflight,
        queue_wait_seconds=wait,
        cold_start_penalty_seconds=penalty,
    ),
    st.integers(0, 4),
    st.integers(0, 12),
    st.integers(1, 256),
    st.floats(0.01, 60),
    st.floats(0, 5000),
)


class Told:
    """A model driven by arbitrary loads."""

    def __init__(self, spec: Autoscaling) -> None:
        self.spec, self.now, self.desired = spec, START, spec.min_replicas
        self.learned, self.memory = Learned(), Memory()
        self.totals = [0, 0]

    def arguments(self, load: dict[str, Any]) -> tuple[Any, ...]:
        self.now += load["seconds"]
        before = [0, 0] if load["reset"] else self.totals
        self.totals = [before[0] + load["arrivals"], before[1] + load["completions"]]
        gateway = None if load["seen"] == "no gateways" else GatewayLoad(load["held"], *self.totals)
        ready = load["ready"]
        one = (
            None
            if load["seen"] == "no engines" or not ready
            else EngineLoad(load["running"] / ready, load["waiting"] / ready)
        )
        sample = Sample(self.now, {"gateway": gateway}, {str(number): one for number in range(ready)})
        samples = [] if load["seen"] == "nothing" else [sample]
        replicas = Replicas(
            self.desired,
            ready,
            tuple(load["pending"]),
            load["unschedulable"],
            load["rolling_out"],
            tuple(load["cold_starts"]),
        )
        return self.now, samples, replicas, self.learned, self.memory, self.spec

    def take(self, decision: Decision) -> None:
        self.desired, self.learned, self.memory = decision.desired, decision.learned, decision.memory


@given(SPECS, st.lists(LOADS, min_size=1, max_size=25))
@settings(deadline=None)
def test_decisions_stay_in_bounds_and_state_stays_finite(spec: Autoscaling, loads: list[dict[str, Any]]) -> None:
    told = Told(spec)
    for load in loads:
        decision = decide(*told.arguments(load))
        told.take(decision)
        assert spec.min_replicas <= decision.desired <= spec.max_replicas
        text = json.dumps([decision.memory.to_dict(), decision.learned.to_dict()], allow_nan=False)
        memory, learned = json.loads(text)
        assert Memory.from_dict(memory) == decision.memory
        assert Learned.from_dict(learned) == decision.learned
        assert len(decision.memory.queues) <= spec.max_replicas
        assert learned.get("slots", 1) <= spec.target_inflight
        assert all(math.isfinite(x) and x >= 0 for x in decision.memory.queues)


@given(SPECS, st.lists(LOADS, max_size=20), LOADS, st.sampled_from(["nothing", "no engines", "no gateways"]))
@settings(deadline=None)
def test_unknown_load_never_shrinks(
    spec: Autoscaling, loads: list[dict[str, Any]], last: dict[str, Any], seen: str
) -> None:
    told = Told(spec)
    for load in loads:
        told.take(decide(*told.arguments(load)))
    before = told.desired
    decision = decide(*told.arguments(last | {"seen": seen, "ready": max(1, last["ready"])}))
    assert decision.desired >= before


@given(SPECS, st.lists(LOADS, max_size=20), LOADS, st.integers(0, 200), st.floats(0, 50))
@settings(deadline=None)
def test_more_waiting_never_means_fewer_replicas(
    spec: Autoscaling, loads: list[dict[str, Any]], last: dict[str, Any], held: int, waiting: float
) -> None:
    told = Told(spec)
    for load in loads:
        told.take(decide(*told.arguments(load)))
    now, samples, *others = told.arguments(last | {"seen": "all", "reset": False})
    busier = [
        replace(
            sample,
            gateways={n: g and replace(g, held=g.held + held) for n, g in sample.gateways.items()},
            engines={n: e and replace(e, waiting=e.waiting + waiting) for n, e in sample.engines.items()},
        )
        for sample in samples
    ]
    assert decide(now, busier, *others).desired >= decide(now, samples, *others).desired


@given(SPECS, st.lists(LOADS, max_size=20), LOADS)
@settings(deadline=None)
def test_deciding_again_changes_nothing(spec: Autoscaling, loads: list[dict[str, Any]], last: dict[str, Any]) -> None:
    told = Told(spec)
    for load in loads:
        told.take(decide(*told.arguments(load)))
    arguments = told.arguments(last)
    decision = decide(*arguments)
    assert decide(*arguments) == decision
    told.take(decision)
    again = decide(told.now, [], Replicas(told.desired, last["ready"]), told.learned, told.memory, spec)
    assert (again.desired, again.memory, again.learned) == (decision.desired, decision.memory, decision.learned)


@given(SPECS, st.lists(LOADS, max_size=20), LOADS)
@settings(deadline=None)
def test_nobody_who_waits_is_left_without_a_replica(
    spec: Autoscaling, loads: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    told = Told(spec)
    for load in loads:
        told.take(decide(*told.arguments(load)))
    decision = decide(*told.arguments(last | {"seen": "all", "held": max(1, last["held"]), "unschedulable": 0}))
    assert decision.desired >= 1
