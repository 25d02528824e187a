from __future__ import annotations

import asyncio

import httpx
import pytest
from unit.cluster.test_cache import pod

from stoker.api.observed import FetchProgress
from stoker.cluster import progress
from stoker.cluster.cache import Cache
from stoker.cluster.progress import read_progress, watch_downloads
from stoker.cluster.resource_types import PODS

SAID = {"phase": "Downloading", "file": "a.gguf", "completedBytes": 5, "totalBytes": 9, "bytesPerSecond": 1.5}


def agent(answer: httpx.Response | Exception) -> httpx.AsyncClient:
    def handle(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://10.0.0.1:9100/progress"
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.AsyncClient(transport=httpx.MockTransport(handle))


async def test_progress_is_what_a_fake_agent_says() -> None:
    async with agent(httpx.Response(200, json=SAID)) as http:
        said = await read_progress(http, "10.0.0.1")
    assert said == FetchProgress("Downloading", "a.gguf", 5, 9, 1.5)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.Response(404),
        httpx.Response(200, text="not JSON"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={**SAID, "completedBytes": "many"}),
        httpx.Response(200, json={**SAID, "message": "x" * 20_000}),
    ],
)
async def test_a_fake_agent_that_says_nothing_sensible_is_asked_again_later(answer: httpx.Response | Exception) -> None:
    async with agent(answer) as http:
        assert await read_progress(http, "10.0.0.1") is None


async def test_the_owner_is_looked_at_when_a_download_has_moved_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([5, 5, 5, 6])
    asked: list[str] = []

    async def answer(_: httpx.AsyncClient, pod_ip: str) -> FetchProgress:
        asked.append(pod_ip)
        return FetchProgress("Downloading", completed_bytes=next(said, 6))

    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0.001)
    monkeypatch.setattr(progress, "read_progress", answer)
    cache = Cache(namespaces_known=True)
    cache.put(PODS, pod("a-1", fetching=True))
    enqueued: list[tuple[str, tuple[str, str]]] = []
    task = asyncio.create_task(watch_downloads(cache, lambda kind, key: enqueued.append((kind, key))))
    async with asyncio.timeout(60):
        while len(asked) < 6:
            await asyncio.sleep(0.001)
    task.cancel()
    assert enqueued == [("ModelDeployment", ("team", "a"))] * 2
    assert set(asked) == {"10.0.0.1"}
