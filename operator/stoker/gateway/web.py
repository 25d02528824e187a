"""A small HTTP/1.1 server for the relay and the probes: llhttp parses, a coroutine answers, bodies are read and thrown away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools

logger = logging.getLogger(__name__)

LONGEST_TARGET = 64 << 10
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class WebRequest:
    """Method, path with query, and headers by lower-case name."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass(slots=True)
class WebResponse:
    """Status, body and what else the head says."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)


Handler = Callable[[WebRequest], Awaitable[WebResponse]]


class WebProtocol(asyncio.Protocol):
    """One connection. Its peers (Envoy, kubelet, a scraper) send the next request when they have the answer to the last."""

    def __init__(self, handler: Handler, tasks: set[asyncio.Task[None]]) -> None:
        self._handler = handler
        self._tasks = tasks
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._start()

    def _start(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answer any more."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        """See httptools; may come in pieces."""
        self._target += url
        if len(self._target) > LONGEST_TARGET:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        if self._task is not None:
            # A second request before the answer to the first: none of our peers does that.
            self._transport.abort()
            return
        request = WebRequest(self._parser.get_method().decode(), self._target.decode("latin-1"), self._headers)
        keep = self._parser.should_keep_alive()
        self._start()
        self._task = asyncio.get_running_loop().create_task(self._answer(request, keep=keep))
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: WebRequest, *, keep: bool) -> None:
        try:
            response = await self._handler(request)
        except Exception:
            logger.exception("%s %s failed", request.method, request.target)
            response = WebResponse(500, b"internal error\n", TEXT)
        self._task = None
        head = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"content-type: {response.content_type}",
            f"content-length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in response.headers),
        ]
        if not keep:
            head.append("connection: close")
        self._transport.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + response.body)
        if not keep:
            self._transport.close()


def protocol_factory(handler: Handler) -> Callable[[], WebProtocol]:
    """For create_server; running answers are kept from the garbage collector."""
    tasks: set[asyncio.Task[None]] = set()
    return lambda: WebProtocol(handler, tasks)
