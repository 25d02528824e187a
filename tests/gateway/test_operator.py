"""The operator's own reader at a real gateway: both sides of the contract in one test."""

from __future__ import annotations

import asyncio

from gateway.conftest import World
from gateway.pod import NAMESPACE

from stoker.api.observed import Loading
from stoker.cluster.load import LoadReader
from stoker.portal.load import Gateways
from stoker.portal_token import portal_token

HOST = "127.0.0.1"
TOKEN = "operator-token"


async def test_the_operator_understands_the_gateway_and_is_understood(world: World) -> None:
    async with LoadReader(gateway_port=world.pod.http_port) as reader:
        async with asyncio.timeout(60):
            page = await reader.read_gateway(HOST, TOKEN)
            assert page is not None
            assert page.models
            assert all(name.startswith(f"{NAMESPACE}/") for name in page.models)
            line = await anext(reader.watch_gateway(HOST, TOKEN))
        assert set(line.models) == set(page.models)
        assert line.complete
        assert await reader.tell_loading(HOST, TOKEN, {next(iter(page.models)): Loading("Loading", "words", 0.5, 7)})
        assert await reader.read_gateway(HOST, "wrong") is None


async def test_the_portal_reads_the_load_and_changes_nothing(world: World) -> None:
    token = portal_token(TOKEN)
    async with Gateways(f"{HOST}:{world.pod.http_port}", token) as gateways, asyncio.timeout(60):
        (page,) = await gateways.read()
    assert page is not None
    assert page.models
    async with LoadReader(gateway_port=world.pod.http_port) as reader:
        assert not await reader.tell_loading(HOST, token, {"team-a/qwen": Loading("Loading", "words", 0.5, 7)})
    for target in ("/load?watch=1", "/usage-log"):
        assert world.pod.probe(target, {"authorization": f"Bearer {token}"}).status == 401, target
