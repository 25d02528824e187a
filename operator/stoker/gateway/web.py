"""A small HTTP/1.1 server for the relay and the probes: llhttp parses, a coroutine answers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools

logger = logging.getLogger(__name__)

LONGEST_TARGET = 64 << 10
LARGEST_BODY = 1 << 20
MOST_BUFFERED = 256 << 10
"""Of a body that is handled as it comes: more stays with the sender until the handler has taken some."""
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class WebRequest:
    """Method, path with query, and headers by lower-case name."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    """Up to LARGEST_BODY; of a larger one nothing."""
    pieces: Pieces | None = None
    """The body as it comes, where the handler was called before all of it was there."""


@dataclass(slots=True)
class WebResponse:
    """Status, body and what else the head says."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    chunks: AsyncIterator[bytes] | None = None
    """The body piece by piece, in place of a whole one."""


Handler = Callable[[WebRequest], Awaitable[WebResponse]]
Early = Callable[[dict[str, str]], bool]


class Pieces:
    """A body as it comes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: deque[bytes] = deque()
        self._size = 0
        self.ended = False
        """All of it has come."""
        self._news = asyncio.Event()

    def feed(self, part: bytes) -> None:
        """Some more of it."""
        self._parts.append(part)
        self._size += len(part)
        if self._size > MOST_BUFFERED:
            self._transport.pause_reading()
        self._news.set()

    def end(self) -> None:
        """That was all."""
        self.ended = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._size -= len(part)
                if self._size <= MOST_BUFFERED:
                    self._transport.resume_reading()
                yield part
            if self.ended:
                return
            self._news.clear()
            await self._news.wait()


class WebProtocol(asyncio.Protocol):
    """One connection. Its peers (Envoy, kubelet, a scraper) send the next request when they have the answer to the last."""

    def __init__(self, handler: Handler, tasks: set[asyncio.Task[None]], early: Early) -> None:
        self._handler = handler
        self._tasks = tasks
        self._early = early
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._start()

    def _start(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._pieces: Pieces | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answer any more."""
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """See asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._writable.set()

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

    def on_headers_complete(self) -> None:
        """Some requests are handled while their body still comes."""
        if self._early(self._headers):
            self._pieces = Pieces(self._transport)
            self._handle(pieces=self._pieces)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self._pieces is not None:
            self._pieces.feed(body)
        elif len(self._body) <= LARGEST_BODY:
            self._body += body

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        if self._pieces is not None:
            self._pieces.end()
        else:
            self._handle(body=bytes(self._body) if len(self._body) <= LARGEST_BODY else b"")
        self._start()

    def _handle(self, *, body: bytes = b"", pieces: Pieces | None = None) -> None:
        if self._task is not None:
            # A second request before the answer to the first: none of our peers does that.
            self._transport.abort()
            return
        method = self._parser.get_method().decode()
        request = WebRequest(method, self._target.decode("latin-1"), self._headers, body, pieces)
        keep = self._parser.should_keep_alive()
        self._task = asyncio.get_running_loop().create_task(self._answer(request, keep=keep))
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: WebRequest, *, keep: bool) -> None:
        try:
            response = await self._handler(request)
        except Exception:
            logger.exception("%s %s failed", request.method, request.target)
            response = WebResponse(500, b"internal error\n", TEXT)
        length = "transfer-encoding: chunked" if response.chunks else f"content-length: {len(response.body)}"
        head = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"content-type: {response.content_type}",
            length,
            *(f"{name}: {value}" for name, value in response.headers),
        ]
        if not keep:
            head.append("connection: close")
        self._transport.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + response.body)
        if response.chunks is not None and not await self._send_chunks(request, response.chunks):
            return
        self._task = None
        if not keep or (request.pieces is not None and not request.pieces.ended):
            self._transport.close()

    async def _send_chunks(self, request: WebRequest, chunks: AsyncIterator[bytes]) -> bool:
        """False when they broke off: then the connection does, too, for nothing else would tell the reader."""
        try:
            async for chunk in chunks:
                if chunk:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await self._writable.wait()
        except Exception:
            logger.exception("%s %s broke off", request.method, request.target)
            self._transport.abort()
            return False
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        self._transport.write(b"0\r\n\r\n")
        return True


def protocol_factory(handler: Handler, early: Early = lambda headers: False) -> Callable[[], WebProtocol]:
    """For create_server; running answers are kept from the garbage collector. `early` says by its headers of which requests the
    handler takes the body as it comes."""
    tasks: set[asyncio.Task[None]] = set()
    return lambda: WebProtocol(handler, tasks, early)


async def serve_on(listening: socket.socket, handler: Handler) -> asyncio.Server:
    """Serve on a socket that is open already."""
    return await asyncio.get_running_loop().create_server(protocol_factory(handler), sock=listening)


def text(status: int, words: str) -> WebResponse:
    """A plain answer for people and probes."""
    return WebResponse(status, words.encode() + b"\n", TEXT)
