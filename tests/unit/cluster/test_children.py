from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from unit.cluster.fake_api_server import FakeApiServer, serving
from unit.cluster.test_cache import model

from stoker.api import ModelDeployment
from stoker.cluster.cache import Cache
from stoker.cluster.children import ChildWriter
from stoker.cluster.client import METADATA_TYPE

OWNER = ModelDeployment.model_validate(model("a"))
SECRET: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {
        "namespace": "team",
        "name": "routes",
        "ownerReferences": [{"kind": "ModelDeployment", "name": "a", "uid": OWNER.metadata.uid, "controller": True}],
    },
    "data": {"routes.json": "e30="},
}


class OneSecret:
    """An API server that keeps one object, and tells its content only where it is asked for."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] | None = None
        self.version = 0

    def edit(self, **content: Any) -> None:
        self.version += 1
        kept = {**(self.kept or {}), **content}
        self.kept = {**kept, "metadata": {**kept["metadata"], "uid": "s", "resourceVersion": str(self.version)}}

    async def __call__(self, request: web.Request) -> Any:
        if request.method in ("POST", "PATCH"):
            self.edit(**await request.json())
        elif self.kept is None:
            return web.json_response({"code": 404, "reason": "NotFound", "message": "no"}, status=404)
        elif request.headers["Accept"] == METADATA_TYPE:
            return {"kind": "PartialObjectMetadata", "metadata": (self.kept or {})["metadata"]}
        return self.kept


@asynccontextmanager
async def written() -> AsyncIterator[tuple[OneSecret, FakeApiServer, ChildWriter]]:
    """The Secret as made by a writer, which has seen it once since."""
    kept = OneSecret()
    async with serving(kept) as (fake, client):
        writer = ChildWriter(client, Cache(namespaces_known=True), on_written=lambda *_: None)
        await writer.apply(OWNER, SECRET)
        await writer.apply(OWNER, SECRET)
        assert [method for method, _ in fake.asked] == ["GET", "POST", "GET"]
        fake.asked.clear()
        yield kept, fake, writer


async def test_of_a_secret_that_nobody_touched_only_the_metadata_is_read_with_fake_api_server() -> None:
    async with written() as (_, fake, writer):
        live = await writer.apply(OWNER, SECRET)
        assert "data" not in live
        assert [method for method, _ in fake.asked] == ["GET"]


async def test_a_secret_that_was_edited_by_hand_is_put_back_with_fake_api_server() -> None:
    async with written() as (kept, fake, writer):
        kept.edit(data={"routes.json": "eyJ9"})
        await writer.apply(OWNER, SECRET)
        assert [method for method, _ in fake.asked] == ["GET", "GET", "PATCH"]
        assert kept.kept is not None
        assert kept.kept["data"] == SECRET["data"]


async def test_a_secret_that_only_got_a_label_of_somebody_is_read_once_and_left_with_fake_api_server() -> None:
    async with written() as (kept, fake, writer):
        assert kept.kept is not None
        kept.edit(metadata={**kept.kept["metadata"], "labels": {"team": "x"}})
        await writer.apply(OWNER, SECRET)
        await writer.apply(OWNER, SECRET)
        assert [method for method, _ in fake.asked] == ["GET", "GET", "GET"]


async def test_a_secret_that_went_between_two_looks_is_made_anew_with_fake_api_server() -> None:
    async with written() as (kept, fake, writer):
        first = fake.script[0]

        async def gone_at_the_second(request: web.Request) -> Any:
            if len(fake.asked) == 2:
                kept.kept = None
            if request.method == "PATCH":
                return web.json_response({"code": 409, "reason": "Conflict", "message": "uid"}, status=409)
            return await first(request)

        kept.edit(metadata={**(kept.kept or {})["metadata"]})
        fake.script[:] = [gone_at_the_second]
        await writer.apply(OWNER, SECRET)
        assert [method for method, _ in fake.asked] == ["GET", "GET", "PATCH", "GET", "POST"]
