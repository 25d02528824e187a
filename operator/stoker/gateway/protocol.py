"""The policy's end of Envoy's connections: a raw asyncio protocol with just enough HTTP for its one trusted peer.

Lower-case header names, content-length bodies, keep-alive, one question at a time: measured at a quarter of what the same decision
costs behind an HTTP framework.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from stoker.gateway.pool import Asking, Waiter
from stoker.gateway.wire import NO_CONFIGURATION

if TYPE_CHECKING:
    from stoker.gateway.policy import Policy

logger = logging.getLogger(__name__)

LARGEST_HEAD = 1 << 20
LARGE_BODY = 1 << 20
BROKEN_OFF_SECONDS = 0.25


class LargeBodies:
    """Lets one large body in at a time; the others wait in Envoy, which holds them anyway.

    Decoding and parsing take several times a body's size: ten at once of 32 MiB would be a gigabyte.
    """

    def __init__(self) -> None:
        self._holder: PolicyProtocol | None = None
        self._waiting: deque[PolicyProtocol] = deque()

    def enter(self, connection: PolicyProtocol) -> None:
        """A large body begins: read on, or stop reading until it is this connection's turn."""
        if self._holder is None:
            self._holder = connection
        elif self._holder is not connection and connection not in self._waiting:
            self._waiting.append(connection)
            connection.pause()

    def leave(self, connection: PolicyProtocol) -> None:
        """The body was answered, or its connection is gone."""
        if self._holder is connection:
            self._holder = self._waiting.popleft() if self._waiting else None
            if self._holder is not None:
                self._holder.resume()
        elif connection in self._waiting:
            self._waiting.remove(connection)


class PolicyProtocol(asyncio.Protocol):
    """One connection of Envoy's."""

    def __init__(self, policy: Policy, large: LargeBodies) -> None:
        self._policy = policy
        self._large = large
        self._buffer = bytearray()
        self._wanted = 0
        """Bytes of the request that is arriving; 0 while its head is not complete."""
        self._head_end = 0
        self._waiter: Waiter | Asking | None = None
        """Whose answer comes later."""
        self._last = (0, 0.0)
        """Number of the request that was answered last, and when."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. Envoy hangs up when the caller of a held request has left."""
        self._large.leave(self)
        if isinstance(self._waiter, Asking):
            self._waiter.over = True
        elif self._waiter is not None:
            self._policy.dispatcher.leave(self._waiter)
        number, answered_at = self._last
        # Envoy keeps its connections; it breaks one off when the client left before the answer was there, and then no log line follows.
        if number and time.monotonic() - answered_at < BROKEN_OFF_SECONDS:
            self._policy.dispatcher.cancel(number)

    def pause(self) -> None:
        """Leave the rest of a large body with Envoy for now."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """It is this connection's turn."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if not self._buffer and self._waiter is None:
            # Nearly always one whole request and nothing else: no copy is needed.
            end = data.find(b"\r\n\r\n")
            if end >= 0 and len(data) == end + 4 + body_length(data, end):
                self._answer(data[:end], data[end + 4 :])
                return
        self._buffer += data
        self._answer_all()

    def _answer_all(self) -> None:
        buffer = self._buffer
        while buffer and self._waiter is None:
            if not self._wanted and not self._measure():
                return
            if len(buffer) < self._wanted:
                if self._wanted > LARGE_BODY:
                    self._large.enter(self)
                return
            head, body = bytes(buffer[: self._head_end]), bytes(buffer[self._head_end + 4 : self._wanted])
            del buffer[: self._wanted]
            self._wanted = 0
            self._answer(head, body)
            if len(body) > LARGE_BODY:
                self._large.leave(self)

    def _answer(self, head: bytes, body: bytes) -> None:
        try:
            answer = self._policy.answer(head, body, self._reply)
        except Exception:
            # A bug: this request fails closed, and the log says where.
            logger.exception("a decision failed")
            answer = NO_CONFIGURATION
        if isinstance(answer, Asking):
            answer.deliver = self._take_answer
        self._settle(answer)

    def _take_answer(self, answer: bytes | Waiter | Asking) -> None:
        """To a request for which somebody was asked; it may have to wait now, or somebody else is asked."""
        self._waiter = None
        if isinstance(answer, Asking):
            answer.deliver = self._take_answer
        self._settle(answer)
        self._answer_all()

    def _settle(self, answer: bytes | Waiter | Asking) -> None:
        if isinstance(answer, bytes):
            self._last = (self._policy.last_number, time.monotonic())
            self._transport.write(answer)
        elif not answer.over:
            self._waiter = answer

    def _reply(self, answer: bytes) -> None:
        """To a request that was held."""
        waiter, self._waiter = self._waiter, None
        if isinstance(waiter, Waiter):
            self._last = (waiter.number, time.monotonic())
        self._transport.write(answer)
        self._answer_all()

    def _measure(self) -> bool:
        """Find the end of the head and the length of the body; False while the head is incomplete."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > LARGEST_HEAD:
                self._transport.abort()
            return False
        self._head_end, self._wanted = end, end + 4 + body_length(self._buffer, end)
        return True


def body_length(data: bytes | bytearray, head_end: int) -> int:
    """What the head says of the body's length; Envoy always says it."""
    start = data.find(b"\r\ncontent-length:", 0, head_end)
    return int(data[start + 17 : data.find(b"\r\n", start + 2)]) if start >= 0 else 0
