"""Models follow their load on a real control plane; gateways and engines are fakes at the network's edge."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio
from awake import awake
from integration.conftest import CLUSTER
from integration.control_plane import ControlPlane, OperatorProcess
from integration.objects import engine, model
from integration.scaling_scene import QUICK, Scene, scene
from integration.waiting import condition, reason, until

from stoker.api.names import OVERRIDE_ANNOTATION
from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import MODEL_DEPLOYMENTS, PODS

pytestmark = pytest.mark.integration

WAKE_UPS = 10
RACES = 200
RACING_MODELS = 40


def deployment_requests(operator: OperatorProcess) -> Counter[str]:
    """The operator's requests about Deployments so far, by verb."""
    found: Counter[str] = Counter()
    for name, count in operator.metrics().items():
        if name.startswith("stoker_api_requests_total{") and 'resource="deployments"' in name:
            found[name.partition('verb="')[2].partition('"')[0]] += int(count)
    return found


@pytest_asyncio.fixture
async def stage(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> AsyncIterator[Scene]:
    async with scene(plane, client, namespace) as made:
        yield made
        plane.kubectl("delete", "modeldeployment,apigateway", "--all", "-n", namespace, "--wait=false")


async def test_a_request_for_a_sleeping_model_is_written_down_as_a_replica_within_50_ms(
    stage: Scene, operator: OperatorProcess
) -> None:
    names = [f"sleepy-{number}" for number in range(WAKE_UPS)]
    await stage.open(*(stage.scaling_model(name) for name in names))
    await stage.until(lambda: all(stage.wanted(name) == 0 for name in names))
    took = []
    before = deployment_requests(operator)
    for name in names:
        started = awake()
        call = asyncio.create_task(stage.call(name))
        await stage.until(lambda name=name: stage.wanted(name) == 1)
        took.append(stage.replicas[name][-1][0] - started)
        assert await call, "it was held, and answered"
    more = {verb: count - before.get(verb, 0) for verb, count in deployment_requests(operator).items()}
    assert (more.get("get", 0), more.get("patch", 0)) == (0, 0), "nothing but the change itself stands before it"
    print("request to replicas written, ms:", [round(each * 1000) for each in took])
    # Of a machine that is shared with others the median would tell about them; the bench tells the median.
    assert min(took) <= 0.05, took
    sleeping = await until(
        stage.client,
        MODEL_DEPLOYMENTS,
        stage.namespace,
        names[0],
        lambda obj: reason(obj) == "Sleeping" and obj["status"].get("replicas", 0) == 0,
    )
    assert condition(sleeping, "Ready")["status"] == "True"
    assert sleeping["status"]["autoscaling"]["reason"] == "Idle"


async def test_many_callers_at_once_are_one_wake_up(stage: Scene) -> None:
    await stage.open(stage.scaling_model("sleepy"))
    answered = await asyncio.gather(*(stage.call("sleepy") for _ in range(20)))
    assert all(answered)
    assert stage.gateway.wakes == 1
    # What a burst leaves in the imagined queues is forgotten with a constant of 30 s.
    await stage.until(lambda: stage.wanted("sleepy") == 0, timeout=150)
    ups = [after for (_, before), (_, after) in pairwise(stage.replicas["sleepy"]) if before == 0 < after]
    assert len(ups) == 1


async def test_no_request_is_lost_when_it_races_with_the_last_replica_s_going(
    stage: Scene, operator: OperatorProcess
) -> None:
    """Each call comes at a random moment around the one when the model falls asleep."""
    chance = random.Random(7)
    names = [f"race-{number}" for number in range(RACING_MODELS)]
    await stage.open(*(stage.scaling_model(name) for name in names))

    async def race(name: str) -> list[bool]:
        held = []
        for _ in range(RACES // RACING_MODELS):
            held.append(await stage.call(name))
            await asyncio.sleep(chance.uniform(1.0, 5.0))
        return held

    answered = [held for held_calls in await asyncio.gather(*map(race, names)) for held in held_calls]
    print(f"{len(answered)} calls answered, {sum(answered)} of them were held")
    assert len(answered) == RACES
    assert sum(answered) > RACES / 20, "some of them came when the model slept, on a slow machine, too"
    assert all(not model.held for model in stage.gateway.models.values())
    await stage.until(lambda: all(stage.wanted(name) == 0 for name in names))
    await stage.until(lambda: not any(stage.endpoints.values()))


async def test_pending_replicas_go_first_then_the_least_busy_and_it_leaves_routing_before_it_is_asked_to_go(
    stage: Scene,
) -> None:
    """Three by hand where two have a place; the younger of them is the busy one, which Kubernetes by itself would take."""
    requests = {"requests": {"cpu": "40"}}
    await stage.open(stage.scaling_model("busy", autoscaling={**QUICK, "minReplicas": 1}, resources=requests))
    (old,) = stage.endpoints["busy"]

    def by_hand(number: str) -> None:
        stage.plane.kubectl("annotate", "--overwrite", "smd/busy", "-n", stage.namespace, number)

    by_hand(f"{OVERRIDE_ANNOTATION}=3")
    await stage.until(lambda: len(stage.endpoints["busy"]) == 2 and len(stage.told["busy"]) == 3)
    (young,) = set(stage.endpoints["busy"]) - {old}
    (pending,) = set(stage.told["busy"]) - {old, young}
    by_hand(f"{OVERRIDE_ANNOTATION}=2")
    await stage.until(lambda: stage.told["busy"][pending][-1] == "gone")
    assert stage.told["busy"][old][-1] == stage.told["busy"][young][-1] == "serves"

    stage.pods.engine(stage.endpoints["busy"][young]).running = 1
    by_hand(f"{OVERRIDE_ANNOTATION}-")
    await stage.until(lambda: stage.told["busy"][old][-1] == "gone")
    assert stage.told["busy"][old][-3:] == ["out of routing", "asked to go", "gone"]
    assert stage.told["busy"][young][-1] == "serves"
    assert set(stage.endpoints["busy"]) == {young}


async def test_an_operator_that_is_killed_while_scaling_leaves_nothing_undone(
    stage: Scene, operator: OperatorProcess
) -> None:
    """The replica that is to go has left routing, and then the operator ends: the next one begins with a busy model."""
    await stage.open(stage.scaling_model("busy", autoscaling={**QUICK, "minReplicas": 1}))
    stage.gateway.model(stage.key("busy")).held = 20
    await stage.until(lambda: len(stage.endpoints["busy"]) == 3)
    stage.gateway.model(stage.key("busy")).held = 0
    watching = asyncio.create_task(stage.until(lambda: len(stage.endpoints["busy"]) < 3))
    await watching
    operator.stop(signal.SIGKILL)
    for ip in stage.endpoints["busy"].values():
        stage.pods.engine(ip).running = 2
    stage.gateway.model(stage.key("busy")).held = 20
    operator.start()
    await stage.until(lambda: len(stage.endpoints["busy"]) == 3)


async def test_a_wake_up_outlives_the_gateway_that_asked_for_it_and_the_operator(
    stage: Scene, operator: OperatorProcess
) -> None:
    await stage.open(stage.scaling_model("sleepy"))
    operator.stop(signal.SIGKILL)
    stage.gateway.model(stage.key("sleepy")).held = 1
    operator.start()
    await stage.until(lambda: stage.wanted("sleepy") == 1)
    gateways = "stoker.dev/api-gateway,app.kubernetes.io/component=gateway"
    pods, _ = await stage.client.list(PODS, stage.namespace, label_selector=gateways)
    stage.gateway.silent = True
    await stage.client.delete(PODS, stage.namespace, pods[0]["metadata"]["name"])
    await stage.until(lambda: stage.endpoints["sleepy"])


def api_server_pid() -> int:
    """Of this suite's own cluster."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "kube-apiserver" in words and any(f"/clusters/{CLUSTER}/" in word for word in words):
            return int(process.name)
    raise AssertionError("there is no API server of this suite")


@pytest.mark.slow
async def test_replicas_stay_while_the_api_server_is_away(stage: Scene, operator: OperatorProcess) -> None:
    """For longer than the lease holds, so the operator ends and another begins."""
    await stage.open(
        stage.scaling_model("busy", autoscaling={"minReplicas": 1, "maxReplicas": 3, "initialHoldSeconds": 60})
    )
    stage.gateway.model(stage.key("busy")).held = 20
    await stage.until(lambda: len(stage.endpoints["busy"]) == 3)
    stage.gateway.model(stage.key("busy")).held = 0
    pid = api_server_pid()
    try:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    operator.stop(signal.SIGKILL)
    operator.start()
    started = time.monotonic()
    while time.monotonic() - started < 10:
        assert stage.wanted("busy") == 3
        await asyncio.sleep(0.5)


async def test_a_model_without_autoscaling_is_scaled_by_whoever_may_and_one_with_it_says_why_not(
    stage: Scene,
) -> None:
    stage.apply(engine(), model("fixed"), stage.scaling_model("sleepy"))
    await stage.until(lambda: stage.wanted("fixed") == 1 and stage.wanted("sleepy") == 0)
    stage.plane.kubectl("scale", "smd/fixed", "--replicas=3", "-n", stage.namespace)
    await stage.until(lambda: stage.wanted("fixed") == 3)
    with pytest.raises(AssertionError, match=r"this deployment scales itself: change autoscaling\.minReplicas"):
        stage.plane.kubectl("scale", "smd/sleepy", "--replicas=2", "-n", stage.namespace)


async def serve_steadily(stage: Scene, name: str, *, rate: float, seconds: float) -> None:
    """Requests come at random moments, a second each, two at a time in a replica; the others are held."""
    chance = random.Random(5)
    numbers = stage.gateway.model(stage.key(name))
    running: list[float] = []
    step = 0.1
    began = last = time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        # As many as come in the time since the last look: a slow machine makes no weaker load.
        tenths, last = round(10 * (now - last) / step), now
        came = sum(chance.random() < rate * step / 10 for _ in range(tenths))
        numbers.arrivals += came
        numbers.held += came
        done = sum(end <= now for end in running)
        numbers.completions += done
        running = [end for end in running if end > now]
        there = list(stage.endpoints[name].values())
        let_in = min(numbers.held, max(0, 2 * len(there) - len(running)))
        numbers.held -= let_in
        running += [now + chance.uniform(0.5, 1.5)] * let_in
        for number, ip in enumerate(there):
            stage.pods.engine(ip).running = len(running) // len(there) + (number < len(running) % len(there))
        await asyncio.sleep(step)


@pytest.mark.parametrize("minutes", [0.4, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(2400)])])
async def test_steady_load_is_steady_replicas_though_the_manifest_is_applied_every_ten_seconds(
    stage: Scene, minutes: float
) -> None:
    manifest = stage.scaling_model("steady", autoscaling={"minReplicas": 0, "maxReplicas": 6})
    await stage.open(manifest)
    load = asyncio.create_task(serve_steadily(stage, "steady", rate=4, seconds=60 * minutes))
    while not load.done():
        stage.apply(manifest)
        await asyncio.wait([load], timeout=10)
    await load
    changes = stage.replicas["steady"]
    print("replicas:", [(round(at - changes[0][0]), count) for at, count in changes])
    directions = [after > before for (_, before), (_, after) in pairwise(changes)]
    turns = sum(before != after for before, after in pairwise(directions))
    assert turns <= max(0, minutes / 5)
    assert stage.wanted("steady") >= 2
