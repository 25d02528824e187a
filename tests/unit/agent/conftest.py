"""A fake llama-server: only its HTTP edge, with the answers that the real one was seen to give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from unit.agent.loopback import Answer, LoopbackServer

from stoker.agent.config import AgentConfig

METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 120
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 4567
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing {running}
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred {waiting}
"""


class FakeLlamaServer(LoopbackServer):
    """Loading, ready, hanging or gone, as a test sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = True
        self.hangs = False
        self.key = ""
        self.metrics = True
        self.running = 0
        self.waiting = 0
        self.requests: list[str] = []
        self.asked = asyncio.Event()

    async def respond(self, path: str, head: bytes) -> Answer | None:
        self.requests.append(path)
        self.asked.set()
        if self.hangs:
            return None
        if self.key and path != "/health" and f"Authorization: Bearer {self.key}\r\n".encode() not in head:
            return 401, "{}"
        return self._answer(path)

    def _answer(self, path: str) -> Answer:
        if not self.loaded:
            return 503, '{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
        if path == "/health":
            return 200, '{"status":"ok"}'
        if path == "/metrics" and self.metrics:
            return 200, METRICS.format(running=self.running, waiting=self.waiting)
        return 404, "{}"


@pytest.fixture
async def fake_llama_server() -> AsyncIterator[FakeLlamaServer]:
    server = FakeLlamaServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def make_config(tmp_path: Any) -> Callable[..., AgentConfig]:
    def make(port: int, **fields: Any) -> AgentConfig:
        values: dict[str, Any] = {
            "model": "smollm2",
            "engine": "LlamaCpp",
            "engine_port": port,
            "metrics_path": "/metrics",
            "running_metric": "llamacpp:requests_processing",
            "waiting_metric": "llamacpp:requests_deferred",
            "prompt_tokens_metric": "llamacpp:prompt_tokens_total",
            "completion_tokens_metric": "llamacpp:tokens_predicted_total",
            "progress_file": str(tmp_path / "progress.json"),
            "host": "127.0.0.1",
            "port": 0,
            "interval_seconds": 0.05,
            "timeout_seconds": 10.0,
        }
        return AgentConfig(**(values | fields))

    return make
