"""The agent as its callers see it, over real HTTP, beside a fake llama-server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from stoker.agent import watch as watch_module
from stoker.agent.config import AgentConfig
from stoker.agent.engine import EngineClient
from stoker.agent.pages import Pages
from stoker.agent.server import HttpServer
from stoker.agent.watch import EngineWatch

MakeConfig = Callable[..., AgentConfig]


@dataclass
class Agent:
    http: httpx.AsyncClient
    watch: EngineWatch
    server: HttpServer
    port: int

    async def sampled(self, condition: Callable[[Any], bool]) -> None:
        """Wait for a sample that fulfils the condition."""
        async with asyncio.timeout(60), self.watch._sampled:
            await self.watch._sampled.wait_for(lambda: self.watch._sample and condition(self.watch._sample))


@asynccontextmanager
async def running(config: AgentConfig) -> AsyncIterator[Agent]:
    watch = EngineWatch(EngineClient(config).read_sample, config.interval_seconds, config.timeout_seconds)
    server = HttpServer(Pages(config, watch).routes)
    port = await server.start(config.host, config.port)
    sampling = asyncio.create_task(watch.run())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
        yield Agent(http, watch, server, port)
    sampling.cancel()
    await server.finish()


async def test_ready_and_load_follow_the_engine_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.loaded = False
    fake_llama_server.running = 3
    async with running(make_config(fake_llama_server.port)) as agent:
        await agent.sampled(lambda sample: sample.up)
        loading = await agent.http.get("/ready")
        assert loading.status_code == 503
        assert "loading" in loading.json()["reason"]
        assert (await agent.http.get("/load")).json()["requestsRunning"] is None
        fake_llama_server.loaded = True
        await agent.sampled(lambda sample: sample.running == 3)
        assert (await agent.http.get("/ready")).status_code == 200
        load = (await agent.http.get("/load")).json()
        assert load.pop("ageSeconds") < 5
        assert load == {
            "model": "smollm2",
            "engine": "LlamaCpp",
            "up": True,
            "modelLoaded": True,
            "requestsRunning": 3,
            "requestsWaiting": 0,
            "kvCacheUsedRatio": None,
            "promptTokensTotal": 120,
            "completionTokensTotal": 4567,
        }
        await fake_llama_server.stop()
        await agent.sampled(lambda sample: not sample.listening)
        assert (await agent.http.get("/ready")).status_code == 503
        gone = (await agent.http.get("/load")).json()
        assert (gone["up"], gone["requestsRunning"]) == (False, None)


async def test_metrics_have_the_same_names_for_every_engine_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.running, fake_llama_server.waiting = 4, 1
    async with running(make_config(fake_llama_server.port)) as agent:
        await agent.sampled(lambda sample: sample.running == 4)
        answer = await agent.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        labels = '{engine="LlamaCpp",model="smollm2"}'
        for line in (
            f"stoker_engine_up{labels} 1.0",
            f"stoker_engine_model_loaded{labels} 1.0",
            f"stoker_engine_requests_running{labels} 4.0",
            f"stoker_engine_requests_waiting{labels} 1.0",
            f"stoker_engine_prompt_tokens_total{labels} 120.0",
            f"stoker_engine_completion_tokens_total{labels} 4567.0",
        ):
            assert line in answer.text.splitlines(), answer.text


async def test_unknown_load_is_absent_from_the_metrics_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.hangs = True
    async with running(make_config(fake_llama_server.port, timeout_seconds=0.3)) as agent:
        await agent.sampled(lambda sample: not sample.up)
        values = [line for line in (await agent.http.get("/metrics")).text.splitlines() if not line.startswith("#")]
        labels = '{engine="LlamaCpp",model="smollm2"}'
        assert values == [f"stoker_engine_up{labels} 0.0", f"stoker_agent_drains{labels} 0.0"]


async def test_calls_to_the_agent_do_not_reach_the_engine_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    async with running(make_config(fake_llama_server.port, interval_seconds=60)) as agent:
        await agent.sampled(lambda sample: sample.up)
        asked = len(fake_llama_server.requests)
        for page in ("/ready", "/load", "/metrics", "/healthz") * 10:
            assert (await agent.http.get(page)).status_code == 200
        assert len(fake_llama_server.requests) == asked


async def test_drain_comes_back_when_the_engine_is_idle_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "DRAIN_LEAST_SECONDS", 0.1)
    monkeypatch.setattr(watch_module, "DRAIN_INTERVAL_SECONDS", 0.02)
    fake_llama_server.running = 1
    async with running(make_config(fake_llama_server.port)) as agent:
        await agent.sampled(lambda sample: sample.running == 1)
        drain = asyncio.create_task(agent.http.get("/drain"))
        await asyncio.sleep(0.5)
        assert not drain.done()
        fake_llama_server.running = 0
        answer = (await drain).json()
        assert (answer["drained"], answer["reason"]) == (True, "Idle")


async def test_running_drains_are_answered_before_the_agent_ends_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "DRAIN_LEAST_SECONDS", 0.1)
    monkeypatch.setattr(watch_module, "DRAIN_INTERVAL_SECONDS", 0.02)
    fake_llama_server.running = 1
    async with running(make_config(fake_llama_server.port)) as agent:
        await agent.sampled(lambda sample: sample.running == 1)
        drain = asyncio.create_task(agent.http.get("/drain"))
        async with asyncio.timeout(60):
            while not agent.watch.drains:
                await asyncio.sleep(0.01)
        finish = asyncio.create_task(agent.server.finish())
        await asyncio.sleep(0.2)
        assert not finish.done()
        fake_llama_server.running = 0
        assert (await drain).status_code == 200
        async with asyncio.timeout(60):
            await finish


async def test_a_caller_that_hangs_up_frees_its_drain_with_fake_llama_server(
    fake_llama_server: Any, make_config: MakeConfig
) -> None:
    fake_llama_server.running = 1
    async with running(make_config(fake_llama_server.port)) as agent:
        await agent.sampled(lambda sample: sample.running == 1)
        _, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(b"GET /drain HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(60):
            while not agent.watch.drains:
                await asyncio.sleep(0.01)
            writer.close()
            while agent.watch.drains:
                await asyncio.sleep(0.01)


async def test_progress_is_the_file_that_fetch_writes_while_there_is_no_engine_yet(make_config: MakeConfig) -> None:
    config = make_config(1)
    async with running(config) as agent:
        assert (await agent.http.get("/progress")).status_code == 404
        Path(config.progress_file).write_text(json.dumps({"phase": "Downloading", "completedBytes": 5}))
        answer = await agent.http.get("/progress")
        assert (answer.status_code, answer.json()["completedBytes"]) == (200, 5)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /drain HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"GET /load\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /load HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_anything_but_a_small_get_is_refused(
    make_config: MakeConfig, request_bytes: bytes, status: bytes
) -> None:
    async with running(make_config(1)) as agent:
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(request_bytes)
        async with asyncio.timeout(60):
            assert (await reader.readline()).split(b" ")[1] == status
        writer.close()


async def test_a_body_is_never_taken_for_a_second_request(make_config: MakeConfig) -> None:
    async with running(make_config(1)) as agent:
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET /load HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(60):
            everything = await reader.read()
        assert everything.count(b"HTTP/1.1 200") == 1
        writer.close()


async def test_one_host_cannot_take_all_connections(make_config: MakeConfig) -> None:
    async with running(make_config(1)) as agent:
        writers = []
        for _ in range(32):
            _, writer = await asyncio.open_connection("127.0.0.1", agent.port)
            writers.append(writer)
        async with asyncio.timeout(60):
            while len(agent.server._open) < 32:
                await asyncio.sleep(0.01)
            reader, extra = await asyncio.open_connection("127.0.0.1", agent.port)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        for writer in (*writers, extra):
            writer.close()
