from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from unit.cluster.fake_api_server import listing, serving, status, stream

from stoker.cluster import watching
from stoker.cluster.client import ApiError, ApiUnavailable, KubeClient, WatchEvent
from stoker.cluster.connection import Connection
from stoker.cluster.resource_types import MODEL_DEPLOYMENTS, NAMESPACES, SECRETS


def obj(name: str, version: str = "1", **content: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": "u", "resourceVersion": version}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, **content}


def event(kind: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "object": obj(name, version)}


async def collect(client: KubeClient, count: int, **options: Any) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    async with asyncio.timeout(60):
        async for each in client.watch(SECRETS, "team", **options):
            found.append(each)
            if len(found) == count:
                return found
    raise AssertionError("a watch never ends")


def test_paths_are_kubernetes_own() -> None:
    assert SECRETS.path("team", "a") == "/api/v1/namespaces/team/secrets/a"
    assert SECRETS.path() == "/api/v1/secrets"
    assert (
        MODEL_DEPLOYMENTS.path("t", "a", "status") == "/apis/stoker.dev/v1alpha1/namespaces/t/modeldeployments/a/status"
    )
    assert NAMESPACES.path("team", "team") == "/api/v1/namespaces/team"


async def test_what_is_not_there_is_none_with_fake_api_server() -> None:
    async with serving(status(404, "NotFound")) as (_, client):
        assert await client.get(SECRETS, "team", "a") is None


async def test_a_refusal_carries_reason_and_message_with_fake_api_server() -> None:
    async with serving(status(403, "Forbidden")) as (_, client):
        with pytest.raises(ApiError, match="because Forbidden") as caught:
            await client.get(SECRETS, "team", "a")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


async def test_an_answer_that_is_not_kubernetes_own_is_shown_with_fake_api_server() -> None:
    async with serving(lambda _: web.Response(status=502, text="bad gateway")) as (_, client):
        with pytest.raises(ApiError, match="bad gateway"):
            await client.get(SECRETS, "team", "a")


async def test_too_many_requests_are_sent_again_with_fake_api_server() -> None:
    busy = status(429, "TooManyRequests", **{"Retry-After": "0"})
    async with serving(busy, busy, lambda _: obj("a")) as (fake, client):
        assert (await client.get(SECRETS, "team", "a") or {})["metadata"]["name"] == "a"
    assert len(fake.asked) == 3


async def test_a_renewed_token_is_read_after_a_refusal_with_fake_api_server(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def refuse(_: web.Request) -> Any:
        token.write_text("new\n")
        return status(401, "Unauthorized")(_)

    async with serving(refuse, lambda _: obj("a"), token_file=token) as (fake, client):
        assert await client.get(SECRETS, "team", "a")
    assert fake.tokens == ["Bearer old", "Bearer new"]


async def test_no_answer_is_told_as_such() -> None:
    async with KubeClient(Connection(server="http://127.0.0.1:1")) as client:
        with pytest.raises(ApiUnavailable) as caught:
            await client.get(SECRETS, "team", "a")
    assert caught.value.status == 0


async def test_lists_are_read_page_by_page_and_items_say_what_they_are_with_fake_api_server() -> None:
    first = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    async with serving(lambda _: first, listing("9", {"metadata": {"name": "b"}})) as (fake, client):
        items, version = await client.list(SECRETS, "team", label_selector="a=b")
    assert [(item["kind"], item["metadata"]["name"]) for item in items] == [("Secret", "a"), ("Secret", "b")]
    assert version == "9"
    assert "continue=more" in fake.asked[1][1]
    assert all("labelSelector=a" in path for _, path in fake.asked)


async def test_a_status_is_written_over_a_newer_object_with_fake_api_server() -> None:
    script = (status(409, "Conflict"), lambda _: obj("a", "5"), lambda _: obj("a", "6"))
    async with serving(*script) as (fake, client):
        answer = await client.write_status(SECRETS, obj("a", "4"), {"x": 1})
    assert answer["metadata"]["resourceVersion"] == "6"
    assert [method for method, _ in fake.asked] == ["PUT", "GET", "PUT"]
    assert fake.bodies[2]["metadata"]["resourceVersion"] == "5"
    assert fake.bodies[2]["status"] == {"x": 1}


async def test_a_status_is_not_written_to_another_object_of_the_same_name_with_fake_api_server() -> None:
    other = obj("a", "5")
    other["metadata"]["uid"] = "another"
    async with serving(status(409, "Conflict"), lambda _: other) as (fake, client):
        with pytest.raises(ApiError) as caught:
            await client.write_status(SECRETS, obj("a", "4"), {"x": 1})
    assert caught.value.status == 404
    assert [method for method, _ in fake.asked] == ["PUT", "GET"]


async def test_a_watch_lists_first_and_then_tells_every_change_with_fake_api_server() -> None:
    script = (listing("5", obj("a")), stream(event("ADDED", "b", "6"), event("DELETED", "a", "7")))
    async with serving(*script) as (fake, client):
        found = await collect(client, 3, name="a")
    assert [each.type for each in found] == ["LISTED", "ADDED", "DELETED"]
    assert [item["metadata"]["name"] for item in found[0].items] == ["a"]
    assert "fieldSelector=metadata.name" in fake.asked[0][1]
    assert "resourceVersion=5" in fake.asked[1][1]


async def test_a_watch_continues_from_the_last_bookmark_after_its_end_with_fake_api_server() -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    script = (listing("5"), stream(event("ADDED", "a", "6"), bookmark), stream(event("ADDED", "b", "10")))
    async with serving(*script) as (fake, client):
        found = await collect(client, 3)
    assert [each.type for each in found] == ["LISTED", "ADDED", "ADDED"]
    assert "resourceVersion=9" in fake.asked[2][1]


async def test_a_watch_lists_anew_when_its_history_is_gone_with_fake_api_server() -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    script = (listing("5", obj("a")), stream(gone), listing("9"), status(410, "Expired"), listing("12"), stream())
    async with serving(*script) as (_, client):
        found = await collect(client, 3)
    assert [each.type for each in found] == ["LISTED", "LISTED", "LISTED"]
    assert found[1].items == []


async def test_a_watch_outlives_refusals_with_fake_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_WAIT_SECONDS", 0.001)
    script = (
        status(403, "Forbidden"),
        listing("5"),
        status(500, "InternalError"),
        stream(event("ADDED", "a", "6")),
    )
    async with serving(*script) as (_, client):
        found = await collect(client, 2)
    assert [each.type for each in found] == ["LISTED", "ADDED"]


@pytest.mark.parametrize("pieces", [1, 7, 100])
async def test_events_are_whole_however_they_arrive_with_fake_api_server(pieces: int) -> None:
    large = {"type": "ADDED", "object": obj("large", "6", data={"a": "x" * 900_000})}
    script = (listing("5"), stream(large, event("ADDED", "b", "7"), pieces=pieces))
    async with serving(*script) as (_, client):
        found = await collect(client, 3)
    assert len(found[1].object["data"]["a"]) == 900_000
    assert found[2].object["metadata"]["name"] == "b"
