"""Against a fake API server that keeps one Lease as the real one does: with versions and conflicts."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from unit.cluster.fake_api_server import serving

from stoker.cluster import lease as lease_module
from stoker.cluster.client import KubeClient
from stoker.cluster.lease import LeaderLease


class Store:
    """One Lease with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    async def answer(self, request: web.Request) -> Any:
        if self.away:
            return web.Response(status=500)
        if request.method == "GET":
            return self.lease if self.lease is not None else web.json_response({"reason": "NotFound"}, status=404)
        body = json.loads(await request.text())
        held = (self.lease or {}).get("metadata", {}).get("resourceVersion")
        if body["metadata"].get("resourceVersion") != held:
            return web.json_response({"reason": "Conflict"}, status=409)
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.lease = body
        return copy.deepcopy(body)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(lease_module, "RETRY_SECONDS", 0.005)
    return Clock()


@asynccontextmanager
async def api() -> AsyncIterator[tuple[Store, KubeClient]]:
    store = Store()
    async with serving(store.answer) as (_, client):
        yield store, client


def candidate(client: KubeClient, name: str, clock: Clock) -> LeaderLease:
    return LeaderLease(client, "system", "operator", name, clock=clock)


async def acquired(lease: LeaderLease, *, within: float = 10) -> bool:
    try:
        async with asyncio.timeout(within):
            await lease.acquire()
    except TimeoutError:
        return False
    return True


async def test_the_first_leads_and_the_second_waits_with_fake_api_server(clock: Clock) -> None:
    async with api() as (store, client):
        assert await acquired(candidate(client, "a", clock))
        assert not await acquired(candidate(client, "b", clock), within=0.3)
        assert store.lease is not None
        assert store.lease["spec"]["holderIdentity"] == "a"


async def test_a_lease_that_is_not_renewed_is_taken_after_its_term_with_fake_api_server(clock: Clock) -> None:
    async with api() as (store, client):
        first, second = candidate(client, "a", clock), candidate(client, "b", clock)
        assert await acquired(first)
        assert not await acquired(second, within=0.3)
        clock.now += 7.9
        assert not await acquired(second, within=0.3)
        clock.now += 0.2
        assert await acquired(second)
        assert store.lease is not None
        assert store.lease["spec"]["leaseTransitions"] == 1


async def test_the_term_counts_from_when_it_was_seen_not_from_the_holders_clock_with_fake_api_server(
    clock: Clock,
) -> None:
    async with api() as (store, client):
        assert await acquired(candidate(client, "a", clock))
        assert store.lease is not None
        store.lease["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
        assert not await acquired(candidate(client, "b", clock), within=0.3)


async def test_a_released_lease_is_taken_at_once_with_fake_api_server(clock: Clock) -> None:
    async with api() as (store, client):
        first = candidate(client, "a", clock)
        assert await acquired(first)
        await first.release()
        assert store.lease is not None
        assert store.lease["spec"]["holderIdentity"] == ""
        assert await acquired(candidate(client, "b", clock))


async def test_a_leader_whose_lease_was_taken_knows_at_once_with_fake_api_server(clock: Clock) -> None:
    async with api() as (store, client):
        first = candidate(client, "a", clock)
        assert await acquired(first)
        assert store.lease is not None
        store.lease["spec"].update(holderIdentity="b", renewTime="2030-01-01T00:00:00.000000Z")
        async with asyncio.timeout(60):
            await first.hold()
        assert not first.leading
        await first.release()
        assert store.lease["spec"]["holderIdentity"] == "b"


async def test_a_leader_bears_a_short_absence_of_the_api_server_with_fake_api_server(clock: Clock) -> None:
    async with api() as (store, client):
        first = candidate(client, "a", clock)
        assert await acquired(first)
        store.away = True
        holding = asyncio.create_task(first.hold())
        clock.now += 4.0
        await asyncio.sleep(0.05)
        assert not holding.done()
        version, store.away = store.version, False
        async with asyncio.timeout(60):
            while store.version == version:
                await asyncio.sleep(0.001)
        # It hears that it was renewed.
        await asyncio.sleep(0.2)
        clock.now += 4.0
        await asyncio.sleep(0.05)
        assert not holding.done()
        store.away = True
        clock.now += 5.1
        async with asyncio.timeout(60):
            await holding
        assert not first.leading
