"""The policy process: answers Envoy's ext_authz over a Unix socket, one decision a request.

A raw asyncio protocol with just enough HTTP for its one trusted peer (lower-case header names, content-length bodies, keep-alive):
measured at a quarter of what the same decision costs behind an HTTP framework.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import cast

import uvloop

from stoker.gateway import admin
from stoker.gateway.access_log import LogReader
from stoker.gateway.admin import NotAnswering
from stoker.gateway.admission import Admissions
from stoker.gateway.config import Table
from stoker.gateway.decide import ALLOWED, Decision, Request, decide
from stoker.gateway.endings import follow_endings
from stoker.gateway.endpoints import ANTHROPIC_PREFIX, speaks_anthropic
from stoker.gateway.envoy import USER_TOKEN_HEADER
from stoker.gateway.metrics import DecisionMetrics
from stoker.gateway.openai_errors import UNKNOWN_SIGNING_KEY, ApiProblem
from stoker.gateway.probes import ProbeServer
from stoker.gateway.processes import prepare_process, run_until_told
from stoker.gateway.settings import Settings
from stoker.gateway.state import StateReader

logger = logging.getLogger(__name__)

STATUS_LINES = {
    status: f"HTTP/1.1 {status} {words}\r\n".encode()
    for status, words in {
        200: "OK",
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        413: "Content Too Large",
        429: "Too Many Requests",
        503: "Service Unavailable",
    }.items()
}
NO_CONFIGURATION = STATUS_LINES[503] + b"content-length: 0\r\n\r\n"
NOT_HTTP = STATUS_LINES[400] + b"content-length: 0\r\nconnection: close\r\n\r\n"
LARGEST_HEAD = 1 << 20
LARGE_BODY = 1 << 20
BROKEN_OFF_SECONDS = 0.25
FORMS_PREFIX = "/v1/audio/"
AUTHORIZATION = b"\r\nauthorization:"
API_KEY = b"\r\nx-api-key:"
USER_TOKEN = b"\r\n" + USER_TOKEN_HEADER.encode() + b":"
CONTENT_TYPE = b"\r\ncontent-type:"
EARLY = b"\r\nx-gw-stage: early"


class Policy:
    """The present table and what was counted with it."""

    def __init__(
        self, reader: StateReader, metrics: DecisionMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reader = reader
        self.metrics = metrics
        self.admissions = Admissions(clock)
        self.ticket = ""
        """Of the request that was answered last, where it has one."""
        self.on_unknown_key: Callable[[], None] = lambda: None
        """Called when a token names a key that is in no set."""

    def reload(self) -> None:
        """Take over a changed configuration."""
        if self.reader.load() and (table := self.reader.table) is not None:
            ready = sum(model.cluster in table.ready for model in table.models)
            self.metrics.configured(self.reader.generation, len(table.models), ready, len(table.keys))
            logger.info(
                "configuration %d: %d models, %d of them ready, %d keys",
                self.reader.generation,
                len(table.models),
                ready,
                len(table.keys),
            )

    def answer(self, head: bytes, body: bytes) -> bytes:
        """The answer to one question of Envoy's."""
        began = time.perf_counter()
        self.ticket = ""
        table = self.reader.table
        if table is None:
            return NO_CONFIGURATION
        request = parse_request(head, body)
        if request is None:
            return NOT_HTTP
        decision = decide(table, request, time.time())
        wire = decision.wire
        if not wire:
            wire = decision.wire = render(decision)
        if decision.reason == UNKNOWN_SIGNING_KEY:
            self.on_unknown_key()
        if decision.reason == ALLOWED:
            decision, wire = self._admit(table, decision, wire, request)
        self.metrics.count(decision.reason, decision.model, time.perf_counter() - began)
        return wire

    def _admit(self, table: Table, decision: Decision, wire: bytes, request: Request) -> tuple[Decision, bytes]:
        """An allowed request counts, and its answer tells what is left; or it is refused, and does not count."""
        admission = self.admissions.admit(table, decision, request)
        if admission.problem is not None:
            return refuse_allowed(decision, admission.problem, request.target.partition("?")[0])
        self.ticket = admission.ticket
        if not admission.headers:
            return decision, wire
        # The head ends with an empty line; what is new goes in front of it.
        return decision, wire[:-2] + _lines(admission.headers) + b"\r\n"


def refuse_allowed(decision: Decision, problem: ApiProblem, path: str) -> tuple[Decision, bytes]:
    """For this model, but not now, or not so."""
    refused = Decision(
        problem.code, problem=problem, key=decision.key, model=decision.model, anthropic=speaks_anthropic(path)
    )
    return refused, render(refused)


def parse_request(head: bytes, body: bytes) -> Request | None:
    """Take the head apart; only what the decision needs."""
    parts = head[: head.find(b"\r\n")].split(b" ")
    if len(parts) != 3:
        return None
    target = parts[1].decode("latin-1")
    authorization = _header(head, AUTHORIZATION)
    if authorization is None and target.startswith(ANTHROPIC_PREFIX):
        # Anthropic's clients send the key like this; only on their own paths, so that each path has one way in.
        key = _header(head, API_KEY)
        authorization = f"Bearer {key}" if key else None
    user_token = _header(head, USER_TOKEN) or ""
    form = (_header(head, CONTENT_TYPE) or "") if target.startswith(FORMS_PREFIX) else ""
    return Request(parts[0].decode("latin-1"), target, authorization or "", body, form, user_token, EARLY in head)


def render(decision: Decision) -> bytes:
    """The decision as HTTP: x-gw-* headers go on into Envoy (routing, log), everything else to the client."""
    problem = decision.problem
    headers = [("x-gw-reason", decision.reason)]
    if decision.key:
        headers.append(("x-gw-key", decision.key))
    if decision.user:
        headers.append(("x-gw-user", decision.user))
    if decision.model:
        headers.append(("x-gw-model", decision.model))
    if decision.caller and decision.caller != decision.key:
        headers.append(("x-gw-caller", decision.caller))
    if problem is None:
        if decision.cluster:
            headers.append(("x-gw-cluster", decision.cluster))
        if decision.answer:
            headers += [("x-gw-answer", decision.answer), ("x-gw-requested", decision.requested)]
        if decision.role:
            headers.append(("x-gw-role", decision.role))
        return STATUS_LINES[200] + _lines(headers) + b"content-length: 0\r\n\r\n"
    body = problem.anthropic_body if decision.anthropic else problem.body
    headers += [("content-type", "application/json"), *problem.headers]
    return STATUS_LINES[problem.status] + _lines(headers) + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def _header(head: bytes, line: bytes) -> str | None:
    """The one header of this name, None where there is none; of several, nothing: what they mean together is anybody's guess."""
    start = head.find(line)
    if start < 0:
        return None
    if head.find(line, start + 1) >= 0:
        return ""
    end = head.find(b"\r\n", start + 2)
    return head[start + len(line) : end if end >= 0 else None].strip().decode("latin-1")


class KeyRequest:
    """Asks the relay for new key sets, now and then at most: a stranger can make up as many unknown keys as he likes."""

    def __init__(self, settings: Settings) -> None:
        self._socket = settings.answer_socket
        self._asked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Without waiting for it; the relay has an interval of its own."""
        now = time.monotonic()
        if now - self._asked_at >= 1.0:
            self._asked_at = now
            self._task = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        try:
            await admin.call(self._socket, "GET", "/", headers="x-gw-answer: refresh-keys\r\n", seconds=2.0)
        except NotAnswering as error:
            logger.warning("new keys of issuers cannot be asked for: %s", error)


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
        self._last = ("", 0.0)
        """Ticket of the last answer, and when it was given."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._large.leave(self)
        ticket, answered_at = self._last
        # Envoy keeps its connections; it breaks one off when the client left before the answer was there, and then no log line follows.
        if ticket and time.monotonic() - answered_at < BROKEN_OFF_SECONDS:
            self._policy.admissions.cancelled(ticket)

    def pause(self) -> None:
        """Leave the rest of a large body with Envoy for now."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """It is this connection's turn."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if not self._buffer:
            # Nearly always one whole request and nothing else: no copy is needed.
            end = data.find(b"\r\n\r\n")
            if end >= 0 and len(data) == end + 4 + body_length(data, end):
                self._answer(data[:end], data[end + 4 :])
                return
        buffer = self._buffer
        buffer += data
        while buffer:
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
            answer = self._policy.answer(head, body)
        except Exception:
            # A bug: this request fails closed, and the log says where.
            logger.exception("a decision failed")
            answer = NO_CONFIGURATION
        self._last = (self._policy.ticket, time.monotonic())
        self._transport.write(answer)

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


async def serve(settings: Settings, policy_socket: socket.socket, http_socket: socket.socket, changes: int) -> None:
    """Decide until told to stop."""
    loop = asyncio.get_running_loop()
    metrics = DecisionMetrics()
    policy = Policy(StateReader(settings.state), metrics)
    policy.reload()

    def on_change() -> None:
        os.read(changes, 4096)
        policy.reload()

    loop.add_reader(changes, on_change)
    probes = ProbeServer(settings, policy.reader, metrics)
    policy.on_unknown_key = KeyRequest(settings).ask
    large = LargeBodies()
    server = await loop.create_unix_server(lambda: PolicyProtocol(policy, large), sock=policy_socket, backlog=4096)
    ends = follow_endings(LogReader.at_end(settings.log), policy.admissions.ended, lambda: policy.admissions.waiting)
    async with server, await probes.start(http_socket):
        await run_until_told(ends)


def main() -> int:
    """Entry of the process; its sockets are open already, so that callers wait rather than fail while it starts."""
    parser = argparse.ArgumentParser()
    for name in ("policy", "http", "changes"):
        parser.add_argument(f"--{name}", type=int, required=True, help=f"file descriptor: {name}")
    arguments = parser.parse_args()
    prepare_process("policy")
    uvloop.run(
        serve(
            Settings.from_environment(),
            socket.socket(fileno=arguments.policy),
            socket.socket(fileno=arguments.http),
            arguments.changes,
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
