"""A small HTTP server: GET only, tight limits, no login; it tells and waits but changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAX_HEAD = 8 * 1024
HEAD_TIMEOUT_SECONDS = 5.0
IDLE_TIMEOUT_SECONDS = 60.0
HANG_UP_CHECK_SECONDS = 1.0
MAX_CONNECTIONS = 256
MAX_CONNECTIONS_PER_HOST = 32
"""So that a pod that calls /drain again and again cannot shut the kubelet out."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Answer:
    """What a handler gives back."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of(cls, value: object, status: int = 200) -> Answer:
        """A JSON document."""
        return cls(status, json.dumps(value).encode() + b"\n")


Handler = Callable[[], Awaitable[Answer]]


class HttpServer:
    """Answers a fixed set of paths; a handler takes nothing from the request, so there is nothing to get wrong."""

    def __init__(self, routes: dict[str, Handler]) -> None:
        self._routes = routes
        self._by_host: Counter[str] = Counter()
        self._busy: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._finishing = False

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, for whoever asked for any."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_HEAD)
        address = self._server.sockets[0].getsockname()
        return int(address[1])

    async def finish(self) -> None:
        """Take no new connections, let running answers end, close the rest."""
        self._finishing = True
        if self._server:
            self._server.close()
        for task in self._open - self._busy:
            task.cancel()
        while self._busy:
            await asyncio.wait(self._busy)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = (writer.get_extra_info("peername") or ("",))[0]
        if len(self._open) >= MAX_CONNECTIONS or self._by_host[host] >= MAX_CONNECTIONS_PER_HOST:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs every connection in a task
        self._by_host[host] += 1
        self._open.add(task)
        try:
            patience = HEAD_TIMEOUT_SECONDS
            while await self._serve_one(reader, writer, task, patience):
                patience = IDLE_TIMEOUT_SECONDS
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The caller went away, was too slow, or the agent ends: nobody is left to tell.
            pass
        finally:
            self._open.discard(task)
            self._by_host[host] -= 1
            if not self._by_host[host]:
                del self._by_host[host]
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None], patience: float
    ) -> bool:
        """Answer one request; whether the connection stays open for another."""
        try:
            async with asyncio.timeout(patience):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await _send(writer, Answer.of({"error": "the request is too large"}, 431), keep=False)
            return False
        self._busy.add(task)
        try:
            answer, keep = await self._answer(head, reader)
            keep = keep and not self._finishing
            await _send(writer, answer, keep)
        finally:
            self._busy.discard(task)
        return keep

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        request_line, *lines = head.decode("latin-1").split("\r\n")
        parts = request_line.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
            return Answer.of({"error": "this is no HTTP/1.1 request"}, 400), False
        method, target, version = parts
        headers = {
            name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines)
        }
        # A body is never read, so nothing after the head could be told from the next request.
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        keep = version == "HTTP/1.1" and headers.get("connection") != "close" and not has_body
        if method != "GET":
            return Answer.of({"error": "only GET is answered here"}, 405), False
        handler = self._routes.get(target.partition("?")[0])
        if handler is None:
            return Answer.of({"error": "no such page", "pages": sorted(self._routes)}, 404), keep
        waiting = asyncio.ensure_future(handler())
        try:
            while not waiting.done():
                await asyncio.wait((waiting,), timeout=HANG_UP_CHECK_SECONDS)
                if reader.at_eof() and not waiting.done():
                    # A caller that hangs up during /drain would otherwise hold its place until the drain ends.
                    raise ConnectionResetError
            return waiting.result(), keep
        finally:
            waiting.cancel()


async def _send(writer: asyncio.StreamWriter, answer: Answer, keep: bool) -> None:
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    writer.write(head.encode() + answer.body)
    async with asyncio.timeout(HEAD_TIMEOUT_SECONDS):
        await writer.drain()
