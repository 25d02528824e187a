from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from unit.gateway.conftest import key, keys, model, routes

from stoker.cluster.client import WatchEvent
from stoker.cluster.resource_types import ResourceType
from stoker.gateway import watch
from stoker.gateway.publish import Publisher
from stoker.gateway.settings import Settings
from stoker.gateway.watch import Follower

ROUTES, KEYS, SLICES = "gateway-routes", "gateway-keys-0", "team-a"


class Watches:
    """Stands for the API server: events that the test hands out, by Secret name or namespace of EndpointSlices."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Queue[WatchEvent]] = {}
        self.opened = asyncio.Event()

    async def watch(
        self, resource: ResourceType, namespace: str | None = None, *, name: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        what = name or str(namespace)
        queue = self.open.setdefault(what, asyncio.Queue())
        self.opened.set()
        try:
            while True:
                yield await queue.get()
        finally:
            del self.open[what]

    async def say(self, what: str, event: WatchEvent) -> None:
        async with asyncio.timeout(60):
            while what not in self.open:
                self.opened.clear()
                await self.opened.wait()
        self.open[what].put_nowait(event)


def secret(field: str, content: bytes) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "data": {field: base64.b64encode(content).decode()}}


def listed(*items: dict[str, Any]) -> WatchEvent:
    return WatchEvent("LISTED", items=list(items))


@asynccontextmanager
async def following(settings: Settings) -> AsyncIterator[tuple[Watches, asyncio.Queue[None], Publisher]]:
    changes: asyncio.Queue[None] = asyncio.Queue()
    publisher, watches = Publisher(settings, lambda: changes.put_nowait(None)), Watches()
    task = asyncio.create_task(Follower(settings, watches, publisher).run())
    try:
        yield watches, changes, publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def published(changes: asyncio.Queue[None]) -> None:
    async with asyncio.timeout(60):
        await changes.get()


async def test_nothing_is_published_before_all_keys_and_endpoints_were_listed(settings: Settings) -> None:
    async with following(settings) as (watches, changes, _):
        await watches.say(ROUTES, listed(secret("routes.json", routes(model("qwen")))))
        await watches.say(SLICES, listed())
        await asyncio.sleep(3 * watch.DEBOUNCE_SECONDS)
        assert changes.empty()
        await watches.say(KEYS, listed(secret("keys.json", keys(key("alice", "s")))))
        await published(changes)
        assert json.loads((settings.state / "keys.json").read_bytes())["keys"][0]["name"] == "alice"


async def test_endpoints_that_cannot_be_listed_hold_up_the_first_publishing_only_for_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_WAIT_SECONDS", 0.1)
    async with following(settings) as (watches, changes, _):
        await watches.say(ROUTES, listed(secret("routes.json", routes(model("qwen")))))
        await watches.say(KEYS, listed(secret("keys.json", keys())))
        await published(changes)


async def test_a_change_of_keys_is_published(settings: Settings) -> None:
    async with following(settings) as (watches, changes, _):
        await watches.say(ROUTES, listed(secret("routes.json", routes(model("qwen")))))
        await watches.say(KEYS, listed(secret("keys.json", keys(key("alice", "s")))))
        await watches.say(SLICES, listed())
        await published(changes)
        await watches.say(KEYS, WatchEvent("MODIFIED", object=secret("keys.json", keys())))
        await published(changes)
        assert json.loads((settings.state / "keys.json").read_bytes())["keys"] == []


async def test_deleted_secrets_and_broken_ones_change_nothing(settings: Settings) -> None:
    async with following(settings) as (watches, changes, _):
        await watches.say(ROUTES, listed(secret("routes.json", routes(model("qwen")))))
        await watches.say(KEYS, listed(secret("keys.json", keys(key("alice", "s")))))
        await watches.say(SLICES, listed())
        await published(changes)
        before = (settings.state / "keys.json").read_bytes()
        for event in (
            WatchEvent("DELETED", object=secret("keys.json", keys())),
            WatchEvent("MODIFIED", object={"metadata": {}}),
            WatchEvent("MODIFIED", object={"metadata": {}, "data": {"keys.json": "not base64!"}}),
            listed(),
        ):
            await watches.say(KEYS, event)
        await watches.say(ROUTES, WatchEvent("DELETED", object=secret("routes.json", routes())))
        await asyncio.sleep(3 * watch.DEBOUNCE_SECONDS)
        assert changes.empty()
        assert (settings.state / "keys.json").read_bytes() == before


async def test_watches_follow_what_routes_name(settings: Settings) -> None:
    async with following(settings) as (watches, changes, _):
        await watches.say(ROUTES, listed(secret("routes.json", routes(model("qwen")))))
        await watches.say(KEYS, listed(secret("keys.json", keys())))
        await watches.say(SLICES, listed())
        await published(changes)
        moved = routes(model("qwen", namespace="team-b"), keySecrets=[KEYS, "gateway-keys-1"])
        await watches.say(ROUTES, WatchEvent("MODIFIED", object=secret("routes.json", moved)))
        await watches.say("gateway-keys-1", listed(secret("keys.json", keys(key("bob", "s")))))
        await watches.say("team-b", listed())
        await published(changes)
        async with asyncio.timeout(60):
            while b"bob" not in (settings.state / "keys.json").read_bytes():
                await published(changes)
        assert set(watches.open) == {ROUTES, KEYS, "gateway-keys-1", "team-b"}
