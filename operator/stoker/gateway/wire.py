"""Envoy's questions and our answers as HTTP/1.1: just enough for one trusted peer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from stoker.claims import in_header
from stoker.gateway.decision import ALLOWED, ENGINES_CLUSTER, TOLD_OF_SERVED, Decision, Request
from stoker.gateway.endpoints import ANTHROPIC_PREFIX
from stoker.gateway.envoy.composite import MODEL_AT
from stoker.gateway.envoy.parts import ENGINE_KEY_HEADER, LAST_HEADER, USER_GROUPS_HEADER, USER_TOKEN_HEADER
from stoker.gateway.openai_errors import ApiProblem

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
AUTHORIZATION = b"\r\nauthorization:"
API_KEY = b"\r\nx-api-key:"
USER_TOKEN = b"\r\n" + USER_TOKEN_HEADER.encode() + b":"
USER_GROUPS = b"\r\n" + USER_GROUPS_HEADER.encode() + b":"
CONTENT_TYPE = b"\r\ncontent-type:"
SESSION = b"\r\nx-session-"
SESSIONS = (SESSION + b"affinity:", SESSION + b"id:")
STAGE = b"\r\nx-gw-stage: "
PLACE = b"\r\nx-gw-held:"
LAST_OF_ITS_CONNECTION = f"{LAST_HEADER}: close\r\n".encode()
"""For streams: llama.cpp ends the connection after one, without a word before and a moment late; a request that is sent in that moment
is lost. Asked for, the end is told with the answer. One connection more is nothing to a stream."""


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
    # Asking first whether it is there at all costs a fifth, and it seldom is.
    user_token = (_header(head, USER_TOKEN) or "") if USER_TOKEN in head else ""
    content_type = _header(head, CONTENT_TYPE) or ""
    stage = (_header(head, STAGE) or "") if STAGE in head else ""
    return Request(
        parts[0].decode("latin-1"),
        target,
        authorization or "",
        body,
        content_type,
        user_token,
        # Only beside a token do they say anything.
        (_header(head, USER_GROUPS) or "") if user_token else "",
        early=stage == "early",
        place=(_header(head, PLACE) or "") if stage == "internal" else "",
    )


def session_of(head: bytes) -> str:
    """What the client says of requests that belong together."""
    return next((found for line in SESSIONS if (found := _header(head, line))), "") if SESSION in head else ""


def render(decision: Decision) -> bytes:
    """The decision as HTTP: x-gw-* headers go on into Envoy (routing, log), everything else to the client."""
    if decision.reason == ALLOWED:
        return _render_allowed(decision)
    problem = decision.problem
    headers = [("x-gw-reason", decision.reason)]
    if decision.key:
        headers.append(("x-gw-key", decision.key))
    if decision.user:
        headers.append(("x-gw-user", decision.user))
    if decision.model:
        headers.append(("x-gw-model", decision.model))
    if decision.caller and decision.caller != decision.key:
        headers.append(("x-gw-caller", in_header(decision.caller)))
    if problem is None:
        if decision.cluster:
            headers.append(("x-gw-cluster", decision.cluster))
        if decision.answer:
            headers += [("x-gw-answer", decision.answer), ("x-gw-requested", decision.requested)]
        if decision.says is not None:
            headers.append(("x-gw-problem", json.dumps(asdict(decision.says))))
        if decision.held:
            headers.append(("x-gw-held", decision.held))
        if decision.role:
            headers.append(("x-gw-role", decision.role))
        return STATUS_LINES[200] + lines_of(headers) + b"content-length: 0\r\n\r\n"
    body = problem.body_in(decision.dialect)
    headers += [("content-type", "application/json"), *problem.headers]
    return STATUS_LINES[problem.status] + lines_of(headers) + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _render_allowed(decision: Decision) -> bytes:
    caller = in_header(decision.caller) if decision.caller != decision.key else ""
    told = {name: getattr(decision, name) for name in TOLD_OF_SERVED} | {"caller": caller}
    headers = [("x-gw-cluster", decision.via or ENGINES_CLUSTER), ("x-gw-served", "\t".join(told.values()))]
    if decision.model_at:
        headers.append((MODEL_AT, decision.model_at))
    if decision.engine_key:
        headers.append((ENGINE_KEY_HEADER, f"Bearer {decision.engine_key}"))
    return STATUS_LINES[200] + lines_of(headers) + b"content-length: 0\r\n\r\n"


def with_lines(wire: bytes, lines: bytes) -> bytes:
    """The answer with more lines: its head ends with an empty one, and what is new goes in front of that."""
    return wire[:-2] + lines + b"\r\n"


def read_problem(text: str) -> ApiProblem:
    """What the policy wants said, at the relay."""
    fields = json.loads(text)
    fields["headers"] = tuple((name, value) for name, value in fields["headers"])
    return ApiProblem(**fields)


def lines_of(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines."""
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
