from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest

from stoker.gateway.decision import Decision
from stoker.gateway.metrics import DecisionMetrics
from stoker.gateway.policy import Policy
from stoker.gateway.protocol import LARGE_BODY, LargeBodies, PolicyProtocol
from stoker.gateway.state import StateReader
from stoker.gateway.table import Table
from stoker.gateway.wire import parse_request, render


class Transport:
    """Stands for Envoy's end of the socket."""

    def __init__(self) -> None:
        self.written = b""
        self.paused = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def policy(table: Table, tmp_path: Path) -> Policy:
    reader = StateReader(tmp_path)
    reader.table = table
    made = Policy(reader, DecisionMetrics())
    made.dispatcher.configure(table.routes.models, {model.cluster: ["10.0.0.1:8080"] for model in table.routes.models if model.name != "loading"}, 1)  # fmt: skip
    return made


@pytest.fixture
def large() -> LargeBodies:
    return LargeBodies()


def connect(policy: Policy, large: LargeBodies) -> tuple[PolicyProtocol, Transport]:
    protocol, transport = PolicyProtocol(policy, large), Transport()
    protocol.connection_made(cast("asyncio.BaseTransport", transport))
    return protocol, transport


def question(body: bytes = b'{"model": "qwen"}', *lines: str) -> bytes:
    head = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"content-length: {len(body)}", *(lines or ["authorization: Bearer sk-alice"])]  # fmt: skip
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def test_a_question_is_answered_however_it_is_cut_into_pieces(policy: Policy, large: LargeBodies) -> None:
    _, whole = connect(policy, large)
    protocol, whole = connect(policy, large)
    protocol.data_received(question())
    assert whole.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-gw-served: alice\tqwen\tteam-a/qwen\t" in whole.written
    for size in (1, 7, 60):
        protocol, pieces = connect(policy, large)
        text = question()
        for start in range(0, len(text), size):
            protocol.data_received(text[start : start + size])
        # But for the ticket's number.
        assert pieces.written.partition(b"-ticket")[0] == whole.written.partition(b"-ticket")[0]


def test_questions_one_after_the_other_are_all_answered(policy: Policy, large: LargeBodies) -> None:
    protocol, transport = connect(policy, large)
    protocol.data_received(question() + question(b"{}") + question())
    assert [part[:3] for part in transport.written.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400", b"200"]


def test_without_a_configuration_nothing_is_let_in(tmp_path: Path, large: LargeBodies) -> None:
    protocol, transport = connect(Policy(StateReader(tmp_path), DecisionMetrics()), large)
    protocol.data_received(question())
    assert transport.written.startswith(b"HTTP/1.1 503 ")


def test_a_bug_in_a_decision_refuses_that_request_only(
    policy: Policy, large: LargeBodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, transport = connect(policy, large)

    def broken(*_: object) -> Decision:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("stoker.gateway.policy.decide", broken)
        protocol.data_received(question())
    protocol.data_received(question())
    assert [part[:3] for part in transport.written.split(b"HTTP/1.1 ")[1:]] == [b"503", b"200"]


def test_of_several_authorization_headers_none_counts() -> None:
    request = parse_request(b"GET / HTTP/1.1\r\nauthorization: Bearer a\r\nauthorization: Bearer b", b"")
    assert request
    assert request.authorization == ""


def test_the_last_header_of_a_head_is_read_like_any_other() -> None:
    request = parse_request(b"GET /x?y=z HTTP/1.1\r\nhost: h\r\nauthorization: Bearer a", b"")
    assert request
    assert (request.method, request.target, request.authorization, request.early) == (
        "GET",
        "/x?y=z",
        "Bearer a",
        False,
    )


def test_a_head_without_end_is_not_collected_for_ever(policy: Policy, large: LargeBodies) -> None:
    protocol, transport = connect(policy, large)
    for _ in range(20):
        protocol.data_received(b"x" * 100_000)
    assert transport.aborted


def test_a_refusal_carries_body_headers_and_what_the_log_wants(policy: Policy, large: LargeBodies) -> None:
    protocol, transport = connect(policy, large)
    protocol.data_received(question(b"", "authorization: Bearer no"))
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"www-authenticate: Bearer" in head
    assert b"x-gw-reason: invalid_api_key" in head
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["code"] == "invalid_api_key"


def test_no_value_can_break_out_of_a_header_line() -> None:
    wire = render(Decision("allowed", cluster="team-a/qwen", model="qwen", key="alice"))
    assert wire.count(b"\r\n\r\n") == 1
    assert wire.endswith(b"content-length: 0\r\n\r\n")


def test_one_large_body_at_a_time_is_taken_in(policy: Policy, large: LargeBodies) -> None:
    body = b'{"model": "qwen", "x": "' + b"x" * (LARGE_BODY + 1) + b'"}'
    text = question(body)
    first, first_end = connect(policy, large)
    second, second_end = connect(policy, large)
    third, third_end = connect(policy, large)
    for protocol in (first, second, third):
        protocol.data_received(text[:1000])
    assert (first_end.paused, second_end.paused, third_end.paused) == (False, True, True)
    small, small_end = connect(policy, large)
    small.data_received(question())
    assert b"200 OK" in small_end.written, "small ones pass"
    first.data_received(text[1000:])
    assert b"200 OK" in first_end.written
    assert (second_end.paused, third_end.paused) == (False, True)
    # The caller of the second leaves.
    second.connection_lost(None)
    assert not third_end.paused
    third.data_received(text[1000:])
    assert b"200 OK" in third_end.written
    again, again_end = connect(policy, large)
    again.data_received(text)
    assert b"200 OK" in again_end.written


def test_one_that_waits_and_leaves_is_forgotten(policy: Policy, large: LargeBodies) -> None:
    text = question(b"x" * (LARGE_BODY + 1))
    first, _ = connect(policy, large)
    second, _ = connect(policy, large)
    third, third_end = connect(policy, large)
    for protocol in (first, second, third):
        protocol.data_received(text[:1000])
    second.connection_lost(None)
    first.connection_lost(None)
    assert not third_end.paused


def test_decisions_are_counted_by_reason_and_known_model(policy: Policy, large: LargeBodies) -> None:
    protocol, _ = connect(policy, large)
    protocol.data_received(question() + question() + question(b'{"model": "nope"}'))
    assert policy.metrics.decisions == {("allowed", "qwen"): 2, ("model_not_found", ""): 1}


def test_anthropics_key_header_counts_on_its_paths_only() -> None:
    def sent(target: str, *headers: str) -> str:
        head = "\r\n".join([f"POST {target} HTTP/1.1", *headers]).encode()
        request = parse_request(head, b"")
        assert request is not None
        return request.authorization

    for target in ("/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens"):
        assert sent(target, "x-api-key: sk-a") == "Bearer sk-a"
        assert sent(target, "authorization: Bearer sk-b", "x-api-key: sk-a") == "Bearer sk-b"
        assert sent(target, "x-api-key: sk-a", "x-api-key: sk-a") == ""
        assert sent(target, "authorization: Bearer a", "authorization: Bearer b", "x-api-key: sk-a") == ""
    assert sent("/v1/chat/completions", "x-api-key: sk-a") == ""


def test_whatever_an_issuer_calls_his_users_stays_in_its_header() -> None:
    caller = "https://idp ann\r\nx-gw-cluster: team-b/other\r\n\u65e5\u672c"
    wire = render(Decision("allowed", cluster="team-a/qwen", key="jwt:ann", caller=caller))
    heads = wire.split(b"\r\n")
    assert sum(line.startswith(b"x-gw-cluster") for line in heads) == 1
    assert heads[2].endswith(b"\thttps://idp ann%0D%0Ax-gw-cluster: team-b/other%0D%0A%E6%97%A5%E6%9C%AC")
