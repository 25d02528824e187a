"""Reading loads over HTTP, from fake pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from fake_pods import TOKEN, FakePods, fake_pods

from stoker.api.observed import Loading
from stoker.cluster.load import EngineReading, GatewayReading, LoadReader, NotAnswering, parse_answer

HOST = "127.0.0.1"


@pytest_asyncio.fixture
async def pods() -> AsyncIterator[FakePods]:
    async with fake_pods(HOST) as made:
        yield made


@pytest_asyncio.fixture
async def reader(pods: FakePods) -> AsyncIterator[LoadReader]:
    async with LoadReader(pods.agent_port, pods.gateway_port) as made:
        yield made


async def test_an_engine_tells_its_numbers_and_what_it_does_not_know_is_not_zero(
    pods: FakePods, reader: LoadReader
) -> None:
    engine = pods.engine(HOST)
    engine.running, engine.waiting = 3, 1
    assert await reader.read_engine(HOST) == EngineReading(3.0, 1.0, True)
    engine.waiting = None
    assert await reader.read_engine(HOST) == EngineReading(3.0, None, True)


async def test_an_engine_that_does_not_answer_or_talks_nonsense_is_none(pods: FakePods, reader: LoadReader) -> None:
    pods.engine(HOST).silent = True
    assert await reader.read_engine(HOST) is None
    nobody = LoadReader(agent_port=1)
    async with nobody:
        assert await nobody.read_engine(HOST) is None


async def test_a_gateway_tells_its_models_to_whom_knows_its_token(pods: FakePods, reader: LoadReader) -> None:
    model = pods.gateway(HOST).model("team/smol")
    model.held, model.in_flight, model.arrivals, model.completions = 1, 2, 30, 27
    model.endpoints = {"10.0.0.3:8080": 2}
    answer = await reader.read_gateway(HOST, TOKEN)
    assert answer is not None
    assert answer.models == {"team/smol": GatewayReading(1, 2, 30, 27, {"10.0.0.3:8080": 2})}
    assert await reader.read_gateway(HOST, "wrong") is None
    with pytest.raises(NotAnswering, match="401"):
        await anext(aiter(reader.watch_gateway(HOST, "wrong")))


async def test_a_stream_tells_at_once_who_is_asked_for(pods: FakePods, reader: LoadReader) -> None:
    gateway = pods.gateway(HOST)
    gateway.model("team/other")
    stream = reader.watch_gateway(HOST, TOKEN)
    first = await anext(stream)
    assert (set(first.models), first.wanted, first.complete) == ({"team/other"}, (), True)
    await gateway.ask_for("team/smol")
    async with asyncio.timeout(60):
        second = await anext(stream)
    assert (set(second.models), second.wanted, second.complete) == ({"team/smol"}, ("team/smol",), False)


async def read_all(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_a_stream_that_ends_is_told(pods: FakePods, reader: LoadReader) -> None:
    gateway = pods.gateway(HOST)
    stream = reader.watch_gateway(HOST, TOKEN)
    await anext(stream)
    gateway.silent = True
    async with asyncio.timeout(60):
        with pytest.raises(NotAnswering):
            await read_all(stream)


async def test_a_gateway_is_told_how_far_a_model_is(pods: FakePods, reader: LoadReader) -> None:
    gateway = pods.gateway(HOST)
    loading = Loading("Downloading", "half of it", 0.5, 30)
    assert await reader.tell_loading(HOST, TOKEN, {"team/smol": loading})
    told = {"phase": "Downloading", "message": "half of it", "progress": 0.5, "etaSeconds": 30, "failed": False}
    assert gateway.loading == [{"team/smol": told}]
    assert not await reader.tell_loading(HOST, "wrong", {"team/smol": loading})


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b"{}", b'{"models": []}', b'{"models": {"a/b": {}}}', b'{"models": {"a/b": 3}}']
)
def test_what_no_gateway_says_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_answer(text)
