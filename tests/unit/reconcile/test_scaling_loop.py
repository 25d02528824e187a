from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from replay import replay
from unit.cluster.fake_api_server import status
from unit.reconcile.scaling_world import KEY, NAME, World, world

from stoker.cluster.resource_types import MODEL_DEPLOYMENTS
from stoker.reconcile.scaling_report import explain

SLEEPY = {"minReplicas": 0, "maxReplicas": 4, "initialHoldSeconds": 60}


@pytest_asyncio.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def until_streaming(here: World) -> None:
    async with asyncio.timeout(60):
        await here.gateway.streaming.wait()
        while not here.loop.connected_gateways:
            await asyncio.sleep(0.01)


async def until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_model_that_is_new_sleeps_where_it_may_and_wakes_at_the_first_request(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    assert await here.tick() == 0
    await until_streaming(here)
    here.now += 1
    await here.gateway.ask_for(NAME)
    await until(lambda: here.wanted == 1)
    said = here.context.scaled[KEY].status
    assert said.reason == "WakeFromZero"
    assert said.message == "0 → 1: 1 held"
    assert here.context.queue.depth == 1, "the reconcile is told at once"


async def test_a_request_that_is_not_held_wakes_as_well(here: World) -> None:
    """Also the very first that a gateway counts: there is no earlier total to compare with."""
    here.model(autoscaling=SLEEPY, coldStart={"mode": "Reject"})
    here.gateway.models.clear()
    await here.tick()
    await until_streaming(here)
    here.now += 1
    await here.gateway.ask_for(NAME, held=0)
    await until(lambda: here.wanted == 1)


async def test_a_wake_up_that_nobody_heard_is_seen_in_the_next_round(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.gateway.model(NAME).held = 3
    assert await here.tick() == 1


async def test_a_stopped_model_is_not_woken(here: World) -> None:
    here.model(autoscaling=SLEEPY, metadata={"annotations": {"stoker.dev/replicas-override": "0"}})
    await here.tick()
    await until_streaming(here)
    here.now += 1
    await here.gateway.ask_for(NAME)
    assert await here.tick() == 0
    here.model(autoscaling=SLEEPY, suspend=True)
    here.now += 2
    await here.loop.tick()
    assert KEY not in here.context.scaled, "a suspended model is not looked at"


async def test_an_idle_model_sleeps_after_its_hold_and_its_replica_leaves_routing_first(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(1)
    here.pod(1)
    assert await here.run(58) == 1
    assert not here.patches()
    assert await here.run(6) == 0
    assert here.patches() == [("smol-1", "false")]
    assert here.context.scaled[KEY].status.reason == "Idle"


async def test_the_least_busy_replica_goes(here: World) -> None:
    here.model(autoscaling={"initialHoldSeconds": 60, "minHoldSeconds": 10}, maxConcurrentRequests=8)
    here.deployment(3)
    for number, running in ((1, 2), (2, 1), (3, 2)):
        here.pod(number).running = running
    await here.run(80)
    assert here.patches()[0] == ("smol-2", "false")


async def test_replicas_that_are_not_ready_go_before_any_that_serves(here: World) -> None:
    here.model(autoscaling={"initialHoldSeconds": 60, "minHoldSeconds": 10})
    here.deployment(2)
    here.pod(1)
    here.pod(2, ready=False)
    assert await here.run(80) == 1
    assert not here.patches(), "its ReplicaSet takes the one that is not ready by itself"


async def test_a_replica_that_is_needed_after_all_gets_requests_again(here: World) -> None:
    """As an operator leaves it that ended between the two steps."""
    here.model()
    here.deployment(1)
    here.pod(1, labels={"stoker.dev/routable": "false"})
    await here.tick()
    assert here.patches() == [("smol-1", "true")]


async def test_a_refused_patch_keeps_the_replica(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(1)
    here.pod(1)
    await here.run(58)
    here.server.script[:] = [status(500, "InternalError")]
    assert await here.run(6) == 1
    here.server.script[:] = [lambda _: {}]
    assert await here.run(4) == 0


async def test_a_request_that_comes_while_the_last_replica_is_taken_out_puts_it_back_at_once(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(1)
    here.pod(1)
    await here.run(58)
    await until_streaming(here)
    patched = asyncio.Event()

    async def slowly(_: Any) -> Any:
        await patched.wait()
        return {}

    here.server.script[:] = [slowly]
    here.now += 6
    await here.loop.tick()
    assert (here.state.desired, here.wanted) == (0, 1), "who goes is being taken out; it is not written down yet"
    here.now += 0.1
    await here.gateway.ask_for(NAME)
    await until(lambda: here.state.desired == 1)
    patched.set()
    await here.settle()
    assert here.wanted == 1
    assert here.patches() == [("smol-1", "false"), ("smol-1", "true")]


@pytest.mark.parametrize("who", ["engine", "gateway", "all"])
async def test_silence_never_shrinks_and_is_told_when_it_lasts(here: World, who: str) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(2)
    engines = [here.pod(1), here.pod(2)]
    await here.tick()
    engines[0].silent = who in ("engine", "all")
    here.gateway.silent = who in ("gateway", "all")
    assert await here.run(400) == 2
    said = here.context.scaled[KEY].status
    assert said.reason == "MetricsStale"
    engines[0].silent = here.gateway.silent = False
    await here.run(20)
    assert here.context.scaled[KEY].status.reason != "MetricsStale"


async def test_a_single_unanswered_question_writes_nothing(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(1)
    engine = here.pod(1)
    await here.tick()
    said = here.context.scaled[KEY]
    engine.silent = True
    await here.tick()
    engine.silent = False
    await here.tick()
    assert here.context.scaled[KEY] is said


async def test_an_engine_that_does_not_count_is_counted_by_the_gateway(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(1)
    engine = here.pod(1)
    engine.running = engine.waiting = None
    here.gateway.model(NAME).endpoints = {"127.0.9.2:8080": 3, "127.0.9.22:8080": 5}
    await here.run(120)
    assert here.wanted == 1
    record = here.state.newest
    assert record is not None
    assert record.samples[0].engines["smol-1"].running == 3  # type: ignore[union-attr]


async def test_a_replica_that_is_going_and_still_answers_counts(here: World) -> None:
    here.model()
    here.deployment(1)
    here.pod(1)
    here.pod(2, ready=False, leaving=True).running = 2
    here.pod(3, ready=False, leaving=True).silent = True
    await here.tick()
    record = here.state.newest
    assert record is not None
    assert set(record.samples[0].engines) == {"smol-1", "smol-2"}
    assert record.replicas.ready == 1


async def test_replicas_without_a_place_are_seen_and_those_that_wait_for_a_drain_are_not(here: World) -> None:
    here.model()
    here.deployment(2)
    here.pod(1)
    here.pod(2, ready=False, words="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    await here.tick()
    assert here.state.newest.replicas.unschedulable == 1  # type: ignore[union-attr]
    here.pod(3, leaving=True)
    await here.tick()
    assert here.state.newest.replicas.unschedulable == 0  # type: ignore[union-attr]


async def test_a_cold_start_is_measured_from_the_pod_s_birth(here: World) -> None:
    here.model()
    here.deployment(1)
    here.pod(1, ready=False, age=1)
    await here.run(20)
    here.pod(1, age=21)
    await here.tick()
    assert here.state.learned.cold_start_seconds == pytest.approx(23, abs=1.5)


async def test_what_was_learned_of_another_engine_is_forgotten(here: World) -> None:
    def chosen(engine: str) -> str:
        return json.dumps({"model": "m", "engine": engine, "engineImage": "e:1", "stokerImage": "s:1", "startupDeadlineSeconds": 600})  # fmt: skip

    here.model()
    here.deployment(1, chosen("a"))
    here.pod(1, ready=False, age=1)
    await here.tick()
    here.pod(1, age=5)
    await here.tick()
    assert here.state.learned.cold_start_seconds is not None
    here.deployment(1, chosen("b"))
    await here.tick()
    assert here.state.learned.cold_start_seconds is None


async def test_a_restarted_operator_goes_on_and_drops_nothing(here: World) -> None:
    here.model(autoscaling={"initialHoldSeconds": 120})
    here.deployment(1)
    here.pod(1).running = 4
    here.gateway.model(NAME).held = 6
    for _ in range(4):
        await here.tick()
    assert here.wanted == 4
    told = here.context.scaled[KEY].status
    async with world() as after:
        after.now = here.now + 3600
        written = {
            "gateways": ["team/gateway"],
            "autoscaling": told.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        after.model(status=written, autoscaling={"initialHoldSeconds": 120})
        after.deployment(4)
        for number in range(1, 5):
            after.pod(number)
        assert await after.tick() == 4
        assert after.state.learned == here.state.learned
        assert await after.run(100) == 4, "the hour that nobody looked is no hour of idleness"


async def test_an_override_holds_whatever_the_load_says_and_ends_with_the_annotation(here: World) -> None:
    here.model(autoscaling=SLEEPY, metadata={"annotations": {"stoker.dev/replicas-override": "3"}})
    here.deployment(1)
    here.pod(1)
    assert await here.run(200) == 3
    said = here.context.scaled[KEY]
    assert said.status.reason == "Override"
    assert await here.run(20) == 3
    assert here.context.scaled[KEY] is said, "told once"
    here.model(autoscaling=SLEEPY)
    await here.run(200)
    assert here.wanted == 0


async def test_a_schedule_keeps_a_replica_in_its_hours(here: World) -> None:
    always = [{"minReplicas": 2}]
    here.model(autoscaling={**SLEEPY, "schedules": always})
    assert await here.run(4) == 2
    assert here.context.scaled[KEY].status.reason == "AtMinimum"


async def test_a_jump_of_the_clock_shrinks_nothing(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.deployment(2)
    here.pod(1)
    here.pod(2)
    await here.run(10)
    assert await here.tick(86400) == 2
    assert await here.tick(-172800) == 2
    assert await here.run(20) == 2


async def test_a_model_that_is_gone_is_forgotten(here: World) -> None:
    here.model()
    await here.tick()
    here.context.cache.drop(MODEL_DEPLOYMENTS, KEY)
    here.now += 2
    await here.loop.tick()
    assert not here.loop.models
    assert not here.context.scaled


async def test_waiting_callers_are_told_how_far_their_model_is(here: World) -> None:
    starting = {"type": "Ready", "status": "False", "reason": "EngineLoading", "message": "Pod smol-1 runs and is loading", "lastTransitionTime": "2027-01-15T08:00:00Z"}  # fmt: skip
    here.model(autoscaling=SLEEPY, status={"conditions": [starting], "desiredReplicas": 1})
    here.deployment(1)
    here.pod(1, ready=False, age=10)
    await here.tick()
    (told,) = here.gateway.loading[-1].values()
    assert told == {
        "phase": "Loading",
        "message": "Pod smol-1 runs and is loading",
        "progress": None,
        "etaSeconds": None,
        "failed": False,
    }
    here.pod(1)
    count = len(here.gateway.loading)
    await here.tick()
    assert len(here.gateway.loading) == count, "it serves: nothing more is to be told"


async def test_the_last_decisions_can_be_asked_for_and_made_again(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.gateway.model(NAME).held = 3
    await here.tick()
    here.pod(1, ready=False, age=1)
    await here.run(30)
    told = json.loads(json.dumps(explain(here.loop, KEY)))
    assert (told["desired"], told["reason"]) == (1, "WakeFromZero")
    decisions = list(replay(told))
    assert len(decisions) >= 2
    assert all(was == now for was, now in decisions)
    assert explain(here.loop, ("team", "other")) is None


async def test_a_model_that_contradicts_itself_holds_up_no_other(here: World) -> None:
    """Stored past the CRD's rules, so that nobody refused it."""
    spec = {"source": {"uri": "https://h/m.gguf"}, "autoscaling": {"maxReplicas": 1, "minHoldSeconds": 9, "maxHoldSeconds": 1}}  # fmt: skip
    here.put(MODEL_DEPLOYMENTS, "broken", spec=spec)
    here.model(autoscaling=SLEEPY)
    here.gateway.model(NAME).held = 3
    assert await here.tick() == 1


async def test_a_gateway_whose_models_do_not_scale_is_left_alone(here: World) -> None:
    here.put(MODEL_DEPLOYMENTS, "fixed", spec={"source": {"uri": "https://h/m.gguf"}}, status={"gateways": ["team/gateway"]})  # fmt: skip
    here.now += 2
    await here.loop.tick()
    await asyncio.sleep(0.05)
    assert not here.gateway.asked_at
    assert not here.gateway.streams


async def test_each_change_is_an_event(here: World) -> None:
    here.model(autoscaling=SLEEPY)
    here.gateway.model(NAME).held = 3
    await here.tick()
    event = here.context.events._queue.get_nowait()
    assert (event["reason"], event["note"]) == ("ScaledUp", "0 → 1: 3 held (WakeFromZero)")
