"""Two operators: one leads, the other takes over, and nobody's work is undone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from awake import awake
from integration.control_plane import SYSTEM, ControlPlane, OperatorProcess
from integration.objects import ENGINE, MODEL, engine, model
from integration.waiting import is_ready, until

from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import DEPLOYMENTS, INFERENCE_ENGINES, LEASES, MODEL_DEPLOYMENTS

pytestmark = pytest.mark.integration
LEASE = "stoker-operator"


@pytest.fixture
def pair(plane: ControlPlane, shared_operator: OperatorProcess) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """A leader and one that stands by."""
    shared_operator.stop()
    first, second = OperatorProcess(plane, "first"), OperatorProcess(plane, "second")
    try:
        first.start()
        deadline = awake() + 60
        while not first.metrics()["stoker_leader"]:
            assert awake() < deadline
        second.start()
        yield first, second
    finally:
        second.stop()
        first.stop()


async def hand_over(client: KubeClient, leaving: OperatorProcess, taking: OperatorProcess) -> float:
    """Seconds until the Lease names the other operator."""
    named = until(client, LEASES, SYSTEM, LEASE, lambda obj: obj["spec"]["holderIdentity"] == taking.name)
    taking_over = asyncio.create_task(named)
    await asyncio.sleep(0)
    started = awake()
    assert await asyncio.to_thread(leaving.stop) == 0
    await taking_over
    return awake() - started


async def test_a_killed_leader_is_replaced_within_fifteen_seconds(
    plane: ControlPlane, pair: tuple[OperatorProcess, OperatorProcess], client: KubeClient, namespace: str
) -> None:
    first, second = pair
    plane.apply(engine(), namespace=namespace)
    await until(client, INFERENCE_ENGINES, namespace, ENGINE, is_ready)
    assert (first.metrics()["stoker_leader"], second.metrics()["stoker_leader"]) == (1, 0)
    assert not any(second.writes().values())
    first.stop(signal.SIGKILL)
    started = awake()
    plane.apply(model(), namespace=namespace)
    await until(client, DEPLOYMENTS, namespace, MODEL, bool)
    assert awake() - started < 15
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)


async def test_a_leader_told_to_stop_hands_over_within_two_seconds(
    plane: ControlPlane, pair: tuple[OperatorProcess, OperatorProcess], client: KubeClient, namespace: str
) -> None:
    leaving, taking = pair
    took = [await hand_over(client, leaving, taking)]
    # Other work on the machine makes a process slow to end: it may try again, the other way round.
    while took[-1] >= 2 and len(took) < 3:
        leaving.start()
        leaving, taking = taking, leaving
        took.append(await hand_over(client, leaving, taking))
    assert min(took) < 2, took
    plane.apply(engine(), namespace=namespace)
    await until(client, INFERENCE_ENGINES, namespace, ENGINE, is_ready)


async def test_a_leader_that_loses_the_lease_ends_at_once(
    plane: ControlPlane, pair: tuple[OperatorProcess, OperatorProcess], client: KubeClient, namespace: str
) -> None:
    first, _ = pair
    await client.merge(LEASES, SYSTEM, LEASE, {"spec": {"holderIdentity": "somebody-else"}})
    deadline = awake() + 5
    while first.running and awake() < deadline:
        await asyncio.sleep(0.05)
    assert not first.running
    assert first.stop() == 1


async def test_both_say_that_they_are_ready_and_well(pair: tuple[OperatorProcess, OperatorProcess]) -> None:
    for each in pair:
        each.wait_for("/readyz")
        each.wait_for("/healthz")
