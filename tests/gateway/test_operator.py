"""The operator's own reader at a real gateway: both sides of the contract in one test."""

from __future__ import annotations

import asyncio

from gateway.conftest import World
from gateway.pod import NAMESPACE

from stoker.api.observed import Loading
from stoker.cluster.load import LoadReader

HOST = "127.0.0.1"
TOKEN = "operator-token"


async def test_the_operator_understands_the_gateway_and_is_understood(world: World) -> None:
    async with LoadReader(gateway_port=world.pod.http_port) as reader:
        async with asyncio.timeout(10):
            page = await reader.read_gateway(HOST, TOKEN)
            assert page is not None
            assert page.models
            assert all(name.startswith(f"{NAMESPACE}/") for name in page.models)
            line = await anext(reader.watch_gateway(HOST, TOKEN))
        assert set(line.models) == set(page.models)
        assert line.complete
        assert await reader.tell_loading(HOST, TOKEN, {next(iter(page.models)): Loading("Loading", "words", 0.5, 7)})
        assert await reader.read_gateway(HOST, "wrong") is None
