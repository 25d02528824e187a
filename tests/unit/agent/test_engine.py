from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stoker.agent.config import AgentConfig
from stoker.agent.engine import EngineClient

MakeConfig = Callable[..., AgentConfig]


async def test_a_ready_engine_is_read_with_fake_llama_server(fake_llama_server: Any, make_config: MakeConfig) -> None:
    fake_llama_server.running, fake_llama_server.waiting = 4, 2
    sample = await EngineClient(make_config(fake_llama_server.port)).read_sample()
    assert (sample.listening, sample.up, sample.loaded) == (True, True, True)
    assert (sample.running, sample.waiting, sample.prompt_tokens, sample.completion_tokens) == (4, 2, 120, 4567)
    assert not sample.idle


async def test_an_engine_that_asks_for_a_key_gets_it_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.key = "engine-key"
    locked = await EngineClient(make_config(fake_llama_server.port)).read_sample()
    assert (locked.loaded, locked.running) == (True, None)
    sample = await EngineClient(make_config(fake_llama_server.port, engine_key="engine-key")).read_sample()
    assert sample.running is not None


async def test_a_loading_engine_is_up_but_its_load_is_unknown_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.loaded = False
    sample = await EngineClient(make_config(fake_llama_server.port)).read_sample()
    assert (sample.up, sample.loaded, sample.running) == (True, False, None)


async def test_a_hanging_engine_is_unknown_not_idle_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.hangs = True
    sample = await EngineClient(make_config(fake_llama_server.port, timeout_seconds=0.3)).read_sample()
    assert (sample.listening, sample.up, sample.loaded, sample.running, sample.idle) == (True, False, None, None, False)


async def test_an_engine_without_metrics_is_ready_with_unknown_load_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    config = make_config(fake_llama_server.port, metrics_path="", running_metric="", waiting_metric="")
    sample = await EngineClient(config).read_sample()
    assert (sample.loaded, sample.running) == (True, None)
    assert fake_llama_server.requests == ["/health"]


async def test_nobody_on_the_port_means_not_loaded(make_config: MakeConfig) -> None:
    sample = await EngineClient(make_config(1)).read_sample()
    assert (sample.listening, sample.up, sample.loaded) == (False, False, False)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1d\r\nllamacpp:requests_processing \r\n2\r\n7\n\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("answer", "running"),
    [
        (CHUNKED, 7),
        (b"HTTP/1.0 200 OK\r\n\r\nllamacpp:requests_processing 7\n", 7),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nllamacpp:requests_processing 7\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, None),
        (b"", None),
    ],
)
async def test_each_way_to_send_metrics_is_read_and_nonsense_is_unknown(
    make_config: MakeConfig, answer: bytes, running: float | None
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        sample = await EngineClient(make_config(server.sockets[0].getsockname()[1])).read_sample()
    assert sample.running == running


async def test_an_endless_answer_is_cut_off(make_config: MakeConfig) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x 1\n" * 20_000)
                await writer.drain()
        except OSError:
            if not ended.done():
                ended.set_result(None)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        sample = await EngineClient(make_config(server.sockets[0].getsockname()[1], timeout_seconds=10.0)).read_sample()
        assert not sample.up
        await within(ended)


async def within(awaitable: Awaitable[None]) -> None:
    async with asyncio.timeout(60):
        await awaitable
