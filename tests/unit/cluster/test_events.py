from __future__ import annotations

import asyncio

import pytest
from unit.cluster.fake_api_server import serving, status

from stoker.cluster import events
from stoker.cluster.client import KubeClient
from stoker.cluster.connection import Connection
from stoker.cluster.events import EventPoster


def regarding(name: str) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "Pod", "namespace": "team", "name": name, "uid": f"uid-{name}"}


async def test_the_same_reason_for_the_same_object_is_posted_once_to_a_fake_api_server() -> None:
    async with serving(status(403, "Forbidden"), lambda _: {}) as (fake, client):
        poster = EventPoster(client, "operator-1")
        task = asyncio.create_task(poster.run())
        for name, reason in (("a", "Serving"), ("a", "Serving"), ("b", "Serving"), ("a", "EngineCrashed")):
            poster.post(regarding(name), "Normal", reason, "x" * 5000)
        async with asyncio.timeout(60):
            while len(fake.asked) < 3:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        task.cancel()
    assert [(body["regarding"]["name"], body["reason"]) for body in fake.bodies] == [
        ("a", "Serving"),
        ("b", "Serving"),
        ("a", "EngineCrashed"),
    ]
    assert all(len(body["note"]) <= 1024 and body["reportingController"] for body in fake.bodies)


async def test_events_are_dropped_rather_than_queued_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUE_LENGTH", 5)
    async with KubeClient(Connection(server="http://127.0.0.1:1")) as client:
        poster = EventPoster(client, "operator-1")
        for number in range(8):
            poster.post(regarding(str(number)), "Normal", "Serving", "")
    assert poster.dropped == 3


async def test_a_burst_is_followed_by_few_per_second_with_fake_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BURST", 3)
    monkeypatch.setattr(events, "PER_SECOND", 0.01)
    async with serving(lambda _: {}) as (fake, client):
        poster = EventPoster(client, "operator-1")
        for number in range(10):
            poster.post(regarding(str(number)), "Normal", "Serving", "")
        task = asyncio.create_task(poster.run())
        async with asyncio.timeout(60):
            while len(fake.asked) < 3:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        task.cancel()
    assert len(fake.asked) == 3


async def test_what_is_news_each_time_is_posted_each_time_to_a_fake_api_server() -> None:
    async with serving(lambda _: {}) as (fake, client):
        poster = EventPoster(client, "operator-1")
        for note in ("1 → 2", "2 → 3"):
            poster.post(regarding("a"), "Normal", "ScaledUp", note, repeated=True)
        task = asyncio.create_task(poster.run())
        async with asyncio.timeout(60):
            while len(fake.bodies) < 2:
                await asyncio.sleep(0.001)
        task.cancel()
    assert [body["note"] for body in fake.bodies] == ["1 → 2", "2 → 3"]
