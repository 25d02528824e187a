from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from stoker.api.inspection import ModelStatus
from stoker.api.observed import FetchProgress
from stoker.cluster import progress
from stoker.cluster.cache import Cache
from stoker.cluster.progress import read_progress
from stoker.cluster.resource_types import PODS

SAID = {"phase": "Downloading", "completedBytes": 5, "totalBytes": 10}


@pytest.fixture
def read() -> Callable[..., Any]:
    """Asks an agent; only the other end of the connection is fake."""

    async def read(document: object) -> FetchProgress | None:
        answer = httpx.Response(200, content=json.dumps(document).encode())
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer)) as http:
            return await read_progress(http, "10.0.0.1")

    return read


async def test_the_description_of_a_model_comes_with_the_progress(read: Callable[..., Any]) -> None:
    assert (await read(SAID)).model is None
    told = await read({**SAID, "model": {"source": "abc", "layers": 30, "newerField": 1}})
    assert told.model == ModelStatus(source="abc", layers=30)


@pytest.mark.parametrize(
    "model", [{"layers": -1}, {"layers": "many"}, {"name": "x" * 129}, [1], {"kvCache": [{}] * 17}]
)
async def test_a_description_that_cannot_be_is_not_believed(read: Callable[..., Any], model: object) -> None:
    assert await read({**SAID, "model": model}) is None


def pod(name: str, state: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {},
        },
        "status": {"podIP": "10.0.0.1", "initContainerStatuses": [{"name": "fetch", "state": state}]},
    }


def test_a_pod_that_was_too_quick_to_be_asked_is_asked_afterwards() -> None:
    cache = Cache(namespaces_known=True)
    cache.put(PODS, pod("quick", {"terminated": {"exitCode": 0}}))
    cache.put(PODS, pod("busy", {"running": {}}))
    cache.put(PODS, pod("broken", {"terminated": {"exitCode": 1}}))
    assert set(cache.fetching_pods()) == {("team", "busy")}
    assert set(cache.undescribed_pods()) == {("team", "quick")}
    cache.put_fetch_progress(("team", "quick"), FetchProgress("Done"))
    assert set(cache.undescribed_pods()) == {("team", "quick")}
    cache.put_fetch_progress(("team", "quick"), FetchProgress("Done", model=ModelStatus(source="abc")))
    assert cache.undescribed_pods() == {}


async def test_such_a_pod_is_asked_a_few_times_and_its_owner_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([FetchProgress("Done"), FetchProgress("Done", model=ModelStatus(source="abc"))])
    asked: list[str] = []

    async def answer(_: httpx.AsyncClient, pod_ip: str) -> FetchProgress | None:
        asked.append(pod_ip)
        return next(answers, None)

    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.001)
    monkeypatch.setattr(progress, "read_progress", answer)
    cache = Cache(namespaces_known=True)
    quick = pod("quick", {"terminated": {"exitCode": 0}})
    quick["metadata"]["labels"] = {"stoker.dev/model-deployment": "a"}
    cache.put(PODS, quick)
    silent = pod("silent", {"terminated": {"exitCode": 0}})
    enqueued: list[tuple[str, tuple[str, str]]] = []
    task = asyncio.create_task(progress.watch_downloads(cache, lambda kind, key: enqueued.append((kind, key))))
    async with asyncio.timeout(60):
        while not enqueued:
            await asyncio.sleep(0.001)
        cache.put(PODS, silent)
        while len(asked) < 2 + progress.LATE_TRIES:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
    task.cancel()
    assert enqueued == [("ModelDeployment", ("team", "a"))]
    assert len(asked) == 2 + progress.LATE_TRIES
