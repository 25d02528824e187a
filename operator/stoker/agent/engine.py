"""Asks the engine beside us how it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from stoker.agent.config import AgentConfig
from stoker.agent.connections import count_connections
from stoker.agent.readiness import is_loaded
from stoker.agent.series import Histogram, largest, read_histogram, sum_series

MAX_ANSWER = 4 << 20


@dataclass(frozen=True)
class Sample:
    """What the engine said at one moment. None is unknown, and unknown is not zero."""

    at: float
    """Clock of the event loop."""
    listening: bool
    """False: nobody accepts connections, so nothing can be running."""
    up: bool
    """It answered."""
    loaded: bool | None = None
    running: float | None = None
    waiting: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    kv_cache_used: float | None = None
    time_to_first_token: Histogram | None = None
    inter_token_latency: Histogram | None = None
    connections: int | None = None
    """Of other hosts to the engine; only looked at where the engine does not count its requests."""

    @property
    def idle(self) -> bool:
        """Known to have nothing to do."""
        if self.connections is not None:
            return self.connections == 0
        return self.running == 0 and self.waiting == 0


class NotListeningError(Exception):
    """Nobody accepts connections on the engine's port."""


class EngineClient:
    """One request, one connection, as HTTP/1.0: then every engine answers without chunks and closes when it is done."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config

    async def read_sample(self) -> Sample:
        """Health and metrics at once; each may fail on its own."""
        config = self._config
        health, metrics = await asyncio.gather(
            self._get(config.health_path), self._get(config.metrics_path), return_exceptions=True
        )
        now = asyncio.get_running_loop().time()
        if isinstance(health, NotListeningError):
            return Sample(now, listening=False, up=False, loaded=False)
        if isinstance(health, BaseException):
            if not isinstance(health, (OSError, ValueError, TimeoutError)):
                raise health
            loaded = None
        else:
            loaded = is_loaded(config, *health)
        series: dict[str, float] = {}
        text = ""
        if isinstance(metrics, BaseException):
            if not isinstance(metrics, (OSError, ValueError, TimeoutError, NotListeningError)):
                raise metrics
        elif metrics[0] == 200:
            names = (
                config.running_metric,
                config.waiting_metric,
                config.prompt_tokens_metric,
                config.completion_tokens_metric,
            )
            text = metrics[1].decode("utf-8", "replace")
            series = sum_series(text, names)
        return Sample(
            now,
            listening=True,
            up=loaded is not None,
            loaded=loaded,
            running=series.get(config.running_metric),
            waiting=series.get(config.waiting_metric),
            prompt_tokens=series.get(config.prompt_tokens_metric),
            completion_tokens=series.get(config.completion_tokens_metric),
            kv_cache_used=largest(text, config.kv_cache_used_metric) if config.kv_cache_used_metric else None,
            time_to_first_token=_histogram(text, config.time_to_first_token_metric),
            inter_token_latency=_histogram(text, config.inter_token_latency_metric),
            connections=None if config.counts_requests else count_connections(config.engine_port),
        )

    async def _get(self, path: str) -> tuple[int, bytes]:
        if not path:
            raise ValueError("this engine has no such page")
        async with asyncio.timeout(self._config.timeout_seconds):
            try:
                reader, writer = await asyncio.open_connection(
                    self._config.engine_host, self._config.engine_port, limit=64 * 1024
                )
            except ConnectionRefusedError as error:
                raise NotListeningError from error
            try:
                key = f"Authorization: Bearer {self._config.engine_key}\r\n" if self._config.engine_key else ""
                request = f"GET {path} HTTP/1.0\r\nHost: {self._config.engine_host}:{self._config.engine_port}\r\nAccept: text/plain, */*\r\n{key}Connection: close\r\n\r\n"
                writer.write(request.encode())
                return await _read_answer(reader)
            finally:
                # Not closed politely: there is nothing left to say, and a stuck engine must not hold the agent.
                writer.transport.abort()


def _histogram(text: str, name: str) -> Histogram | None:
    return read_histogram(text, name) if text and name else None


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ValueError("no HTTP answer") from error
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ValueError("no HTTP answer")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return int(rest[:3]), await _read_chunks(reader)
    length = int(headers["content-length"]) if headers.get("content-length", "").isdigit() else None
    if length is not None and length > MAX_ANSWER:
        raise ValueError("the answer is too large")
    body = bytearray()
    while length is None or len(body) < length:
        piece = await reader.read(64 * 1024)
        if not piece:
            break
        body += piece
        if len(body) > MAX_ANSWER:
            raise ValueError("the answer is too large")
    if length is not None and len(body) < length:
        raise ValueError("the answer was cut")
    return int(rest[:3]), bytes(body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """For servers that send chunks although they were asked in HTTP/1.0."""
    body = bytearray()
    try:
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                return bytes(body)
            if len(body) + size > MAX_ANSWER:
                raise ValueError("the answer is too large")
            body += await reader.readexactly(size)
            await reader.readexactly(2)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ValueError("the answer was cut") from error
