from __future__ import annotations

import asyncio

from aiohttp import web
from unit.cluster.fake_api_server import serving
from unit.cluster.test_cache import model, obj

from stoker.cluster.cache import Cache
from stoker.cluster.resource_types import MODEL_DEPLOYMENTS, NAMESPACES, SERVICES, Object
from stoker.cluster.sweep import Sweeper


def names(version: str, *objects: Object) -> Object:
    return {"metadata": {"resourceVersion": version}, "items": [{"metadata": each["metadata"]} for each in objects]}


async def test_what_the_fake_api_server_no_longer_has_is_lost() -> None:
    cache = Cache(namespaces_known=True)
    for name in ("stays", "goes"):
        cache.put(MODEL_DEPLOYMENTS, model(name, 5))
    cache.put(MODEL_DEPLOYMENTS, model("came-since", 20))
    lost = []
    async with serving(lambda _: names("10", model("stays", 5), model("unheard", 6))) as (_, client):
        await Sweeper(client, cache, (), lose=lambda resource, key: lost.append((resource, key))).sweep(
            MODEL_DEPLOYMENTS
        )
    assert lost == [(MODEL_DEPLOYMENTS, ("team", "goes"))]


async def test_the_fake_api_server_is_asked_for_names_only_and_children_by_label() -> None:
    def answer(request: web.Request) -> Object:
        assert "PartialObjectMetadataList" in request.headers["Accept"]
        return names("10")

    async with serving(answer) as (fake, client):
        sweeper = Sweeper(client, Cache(namespaces_known=True), ("a", "b"), lose=lambda *_: None)
        await sweeper.sweep(SERVICES)
        await sweeper.sweep(NAMESPACES)
    assert [path.partition("?")[0] for _, path in fake.asked] == [
        "/api/v1/namespaces/a/services",
        "/api/v1/namespaces/b/services",
        "/api/v1/namespaces",
    ]
    assert ["managed-by" in path for _, path in fake.asked] == [True, True, False]


async def test_the_start_waits_until_everything_on_the_fake_api_server_is_heard() -> None:
    cache = Cache(namespaces_known=True)
    cache.put(MODEL_DEPLOYMENTS, model("a", 4))
    async with serving(lambda _: names("10", model("a", 5), model("b", 6))) as (_, client):
        sweeper = Sweeper(client, cache, (), lose=lambda *_: None)
        waiting = asyncio.create_task(sweeper.wait_until_heard((MODEL_DEPLOYMENTS,)))
        await asyncio.sleep(0.1)
        cache.put(MODEL_DEPLOYMENTS, model("b", 6))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        cache.put(MODEL_DEPLOYMENTS, model("a", 5))
        await asyncio.wait_for(waiting, 60)


async def test_the_start_waits_for_namespaces_by_name_with_fake_api_server() -> None:
    cache = Cache(namespaces_known=True)
    team = obj(NAMESPACES, "team")
    team["metadata"].pop("namespace")
    cache.put(NAMESPACES, team)
    async with serving(lambda _: names("10", team)) as (_, client):
        sweeper = Sweeper(client, cache, (), lose=lambda *_: None)
        await asyncio.wait_for(sweeper.wait_until_heard((NAMESPACES,)), 60)
