from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from stoker.gateway.key_sets import LARGEST_SET, REFRESH_SECONDS, KeySets
from stoker.gateway.settings import Settings
from stoker.gateway.state import KEY_SETS_FILE

A, B = "https://a.example/jwks", "https://b.example/jwks"


class World:
    """Two issuers behind a fake transport, and a clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.answers: dict[str, Callable[[], httpx.Response]] = {}
        self.asked: list[str] = []
        self.now = 0.0
        self.changes = 0
        self.addresses = {A: ""}
        self.sets = self.restart()

    def restart(self) -> KeySets:
        self.sets = KeySets(
            self.settings,
            lambda: dict.fromkeys(self.addresses, "") if isinstance(self.addresses, list) else self.addresses,
            self._changed,
            lambda: self.now,
        )
        return self.sets

    def _changed(self) -> None:
        self.changes += 1

    def show(self, address: str, content: Any) -> None:
        self.answers[address] = lambda: httpx.Response(200, json=content)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return self.answers[str(request.url)]()

    async def round(self, later: float = 0) -> None:
        self.now += later
        async with httpx.AsyncClient(transport=httpx.MockTransport(self._answer)) as client:
            await self.sets.fetch_due(client)

    @property
    def stored(self) -> Any:
        return json.loads((self.settings.state / KEY_SETS_FILE).read_bytes())["sets"]


@pytest.fixture
def world(settings: Settings) -> World:
    made = World(settings)
    made.show(A, {"keys": [1]})
    made.show(B, {"keys": [2]})
    return made


async def test_a_set_is_fetched_stored_and_fetched_again_after_its_time(world: World) -> None:
    await world.round()
    assert (world.stored, world.changes) == ({A: {"keys": [1]}}, 1)
    await world.round(REFRESH_SECONDS - 1)
    assert len(world.asked) == 1
    world.show(A, {"keys": [1, 3]})
    await world.round(1)
    assert (world.stored, world.changes) == ({A: {"keys": [1, 3]}}, 2)


async def test_a_wish_for_new_keys_is_granted_every_ten_seconds_at_most(world: World) -> None:
    await world.round()
    for _ in range(100):
        world.sets.refresh()
        await world.round(0.1)
    assert len(world.asked) == 1
    await world.round(0.1)
    assert len(world.asked) == 2
    await world.round(20)
    assert len(world.asked) == 2, "granted once"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(500),
        lambda: httpx.Response(302, headers={"location": B}),
        lambda: httpx.Response(200, text="no json"),
        lambda: httpx.Response(200, json=["keys"]),
        lambda: httpx.Response(200, json={"keys": "x"}),
        lambda: httpx.Response(200, content=b'{"keys": [' + b"1," * LARGEST_SET + b"1]}"),
        lambda: (_ for _ in ()).throw(httpx.ConnectError("away")),
    ],
)
async def test_what_is_no_set_leaves_the_old_one_and_is_asked_for_again(world: World, answer: Any) -> None:
    await world.round()
    world.answers[A] = answer
    await world.round(REFRESH_SECONDS)
    assert world.stored == {A: {"keys": [1]}}
    assert world.asked == [A, A], "no redirect is followed"
    world.restart()
    world.addresses = {}
    await world.round()
    assert world.stored == {A: {"keys": [1]}}, "known from the file before routes are"


async def test_an_issuer_that_is_no_longer_trusted_is_forgotten_and_a_new_one_fetched_at_once(world: World) -> None:
    await world.round()
    world.addresses = {B: ""}
    await world.round()
    assert world.stored == {B: {"keys": [2]}}


async def test_without_issuers_nothing_is_written(world: World) -> None:
    world.addresses = {}
    await world.round()
    assert not (world.settings.state / KEY_SETS_FILE).exists()


DOCUMENT = "https://idp.example/realm/.well-known/openid-configuration"
ISSUER = "https://idp.example/realm"


async def test_a_discovery_document_leads_to_the_keys(world: World) -> None:
    world.addresses = {DOCUMENT: ISSUER}
    world.show(DOCUMENT, {"issuer": ISSUER, "jwks_uri": A})
    await world.round()
    assert world.stored == {DOCUMENT: {"keys": [1]}}
    assert world.asked == [DOCUMENT, A]
    # The keys have moved.
    world.show(DOCUMENT, {"issuer": ISSUER, "jwks_uri": B})
    await world.round(REFRESH_SECONDS)
    assert world.stored == {DOCUMENT: {"keys": [2]}}


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": A},
        {"issuer": ISSUER + "/", "jwks_uri": A},
        {"jwks_uri": A},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": "http://a.example/jwks"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER, "jwks_uri": [A]},
        {"keys": [1]},
        [],
    ],
)
async def test_a_discovery_document_of_somebody_else_or_without_a_safe_address_leads_nowhere(
    world: World, document: Any
) -> None:
    world.addresses = {DOCUMENT: ISSUER}
    world.show(DOCUMENT, document)
    await world.round()
    assert world.asked == [DOCUMENT]
    assert not (world.settings.state / KEY_SETS_FILE).exists()
