"""Streams for a model that is starting: their callers get signs of life until the engine's answer comes, and then that.

The policy sends a held stream here after its first while. The request goes back to Envoy at once, over a listener that only this pod
can reach: there the policy holds it in its old place, and log, usage and limits see one request like any other. Comments of
server-sent events keep proxies and clients from hanging up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httptools

from stoker.gateway import openai_errors as errors
from stoker.gateway.endpoints import dialect_of
from stoker.gateway.envoy.parts import USER_HEADERS
from stoker.gateway.web import WebRequest, WebResponse

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
SIGN_OF_LIFE = b": the model is starting\n\n"
LARGEST_ERROR = 64 << 10
READ_BYTES = 64 << 10
# What belongs to one connection only, and what Envoy sets anew.
NOT_PASSED_ON = frozenset({"connection", "transfer-encoding", "content-length", "expect", "x-forwarded-proto"})


class BrokenOff(Exception):
    """The answer ended before its end."""


def wants_signs_of_life(headers: dict[str, str]) -> bool:
    """Whether the policy sent this request here for that."""
    return headers.get("x-gw-answer") == "held"


def hold_stream(request: WebRequest, internal: Path) -> WebResponse:
    """An event stream that begins at once."""
    headers = (("cache-control", "no-cache"),)
    return WebResponse(200, b"", EVENT_STREAM, headers, chunks=_forward(request, internal))


async def _forward(request: WebRequest, internal: Path) -> AsyncIterator[bytes]:
    place, _, seconds = request.headers["x-gw-held"].partition(" ")
    anthropic = dialect_of(request.target.partition("?")[0]) == "anthropic"
    yield SIGN_OF_LIFE
    answer = _Answer()
    try:
        reader, writer = await asyncio.open_unix_connection(str(internal), limit=READ_BYTES)
    except OSError as error:
        logger.warning("a held stream cannot go on: %s", error)
        yield _event(errors.error_object("The gateway could not go on with your request. Try again.", errors.SERVER_ERROR, "gateway_error"), anthropic)  # fmt: skip
        return
    sending = asyncio.create_task(_send(request, writer, place))
    try:
        while not answer.begun:
            try:
                data = await asyncio.wait_for(reader.read(READ_BYTES), float(seconds))
            except TimeoutError:
                yield SIGN_OF_LIFE
                continue
            answer.feed(data)
        while not answer.over:
            if answer.is_stream:
                yield answer.take()
            elif len(answer.body) > LARGEST_ERROR:
                break
            answer.feed(await reader.read(READ_BYTES))
        yield answer.take() if answer.is_stream else _event(answer.error(), anthropic)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sending
        writer.close()


async def _send(request: WebRequest, writer: asyncio.StreamWriter, place: str) -> None:
    """The request as it came, body piece by piece."""
    passed_on = {
        name: value
        for name, value in request.headers.items()
        if name not in NOT_PASSED_ON and (not name.startswith(("x-gw-", "x-envoy-")) or name in USER_HEADERS)
    }
    length = request.headers.get("content-length")
    passed_on["content-length" if length else "transfer-encoding"] = length or "chunked"
    lines = [f"{request.method} {request.target} HTTP/1.1", f"x-gw-held: {place}"]
    lines += [f"{name}: {value}" for name, value in passed_on.items()]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    if request.pieces is not None:
        async for piece in request.pieces:
            writer.write(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
    if not length:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


class _Answer:
    """What comes back, as far as it has come."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._content_type = ""
        self.begun = False
        """Its head is whole."""
        self.over = False
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        """Some more of it; nothing means that the connection has ended."""
        if not data:
            raise BrokenOff
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if name.lower() == b"content-type":
            self._content_type = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """See httptools."""
        # 100 Continue is not the answer.
        self.begun = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self.body += body

    def on_message_complete(self) -> None:
        """See httptools."""
        self.over = self.begun

    @property
    def is_stream(self) -> bool:
        """Whether it can be passed on; anything else has become an error of a stream that has begun."""
        return self._parser.get_status_code() == 200 and self._content_type.startswith(EVENT_STREAM)

    def take(self) -> bytes:
        """What has come since the last time."""
        taken = bytes(self.body)
        self.body.clear()
        return taken

    def error(self) -> object:
        """The refusal, as its body says it."""
        try:
            document = json.loads(self.body)
            if isinstance(document, dict) and "error" in document:
                return document
        except ValueError:
            pass
        return errors.error_object(f"The engine answered with HTTP {self._parser.get_status_code()}.", errors.SERVER_ERROR, "engine_error")  # fmt: skip


def _event(document: object, anthropic: bool) -> bytes:
    data = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return b"event: error\n" + data if anthropic else data
