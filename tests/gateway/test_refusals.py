"""What real Envoy, policy and relay refuse in front of a fake engine, which must not see anything of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from gateway.conftest import World
from gateway.pod import GatewayPod
from gateway.wire import talk

CHAT = {"model": "qwen", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(autouse=True)
def _no_engine_sees_anything(world: World) -> Iterator[None]:
    world.pod.chat()
    before = world.seen
    assert before, "the record that proves silence does record"
    yield
    assert world.seen == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer sk-old"},
        {"authorization": "Basic c2stYWxpY2U6"},
        {"authorization": "sk-alice"},
        {"authorization": "Bearer sk-alice, Bearer sk-alice"},
        {"authorization": "Bearer " + "x" * 5000},
        {"authorization": "Bearer sk-ålice"},
        {"x-api-key": "sk-alice"},
        {"api-key": "sk-alice"},
        {"cookie": "authorization=Bearer sk-alice"},
        {"x-authorization": "Bearer sk-alice"},
    ],
    ids=lambda headers: next(iter(headers.items()), ("nothing", ""))[0] + "=" + next(iter(headers.values()), "")[:16],
)
def test_a_call_without_a_good_key_is_401_and_says_what_to_send(pod: GatewayPod, headers: dict[str, str]) -> None:
    for method, target, body in (("POST", "/v1/chat/completions", CHAT), ("GET", "/v1/models", None), ("GET", "/slots", None)):  # fmt: skip
        answer = pod.request(method, target, body, key=None, headers=headers)
        assert answer.status == 401, (method, target)
        assert answer.error["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_in_the_query_opens_nothing(pod: GatewayPod) -> None:
    answer = pod.request("POST", "/v1/chat/completions?api_key=sk-alice&access_token=sk-alice", CHAT, key=None)
    assert answer.status == 401


def test_two_authorization_headers_are_no_key(pod: GatewayPod) -> None:
    good, bad = b"Authorization: Bearer sk-alice\r\n", b"Authorization: Bearer sk-wrong\r\n"
    for lines in (good + bad, bad + good, good + good):
        answer = talk(pod.port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines + b"\r\n")
        assert answer.status == 401
        assert answer.error["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "model", ["nope", "QWEN", "qwen ", "../qwen", "", "team-a/qwen", "x" * 10_000, "a\u0000b", "模型"]
)
def test_an_unknown_model_is_404(pod: GatewayPod, model: str) -> None:
    answer = pod.chat(model)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_a_model_the_key_may_not_use_looks_as_if_it_did_not_exist(pod: GatewayPod) -> None:
    refused, unknown = pod.chat("qwen", key="sk-bob"), pod.chat("nope", key="sk-bob")
    assert refused.status == unknown.status == 404
    assert refused.body.replace(b"qwen", b"nope") == unknown.body
    assert pod.request("GET", "/v1/models/qwen", key="sk-bob").status == 404
    assert [model["id"] for model in pod.request("GET", "/v1/models", key="sk-bob").json["data"]] == ["embed", "gpt-4o"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b'{"model": "qwen", "messages": [', "invalid_json"),
        (b"model=qwen", "invalid_json"),
        (json.dumps(CHAT).encode("utf-16"), "invalid_json"),
        (json.dumps(CHAT).encode("utf-16-le"), "invalid_json"),
        (b"\xef\xbb\xbf" + json.dumps(CHAT).encode(), "invalid_json"),
        (b'{"model": "qwen", "x": "\xff"}', "invalid_json"),
        (b'{"model": "qwen\x00"}', "invalid_json"),
        (b'{"model": "qwen"} {"model": "qwen"}', "invalid_json"),
        (b'{"model": "qwen", "temperature": NaN}', "invalid_json"),
        (b'{"model": "qwen", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b'{"model": "qwen", "n": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "invalid_json"),
        (b'["qwen"]', "invalid_body"),
        (b'"qwen"', "invalid_body"),
        (b'{"messages": []}', "missing_model"),
        (b'{"model": null}', "missing_model"),
        (b'{"model": ["qwen"]}', "invalid_model"),
        (b'{"model": {"model": "qwen"}}', "invalid_model"),
        (b'{"model": 1}', "invalid_model"),
        (b'{"model": "qwen", "model": "embed"}', "duplicate_model"),
        (b'{"model": "nope", "model": "qwen"}', "duplicate_model"),
        (b'{"model": "qwen", "mod\\u0065l": "embed"}', "duplicate_model"),
    ],
)
def test_a_body_that_two_parsers_could_read_differently_is_400(pod: GatewayPod, body: bytes, code: str) -> None:
    answer = pod.request("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.error["code"]) == (400, code)
    assert answer.error["type"] == "invalid_request_error"


def test_a_body_of_40_megabytes_is_413(pod: GatewayPod) -> None:
    body = json.dumps({**CHAT, "user": "x" * 40_000_000}).encode()
    answer = pod.request("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert "maxRequestBytes" in answer.error["message"]
    assert pod.request("POST", "/v1/chat/completions", body, key="sk-wrong").status == 401


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(pod: GatewayPod) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\nAuthorization: Bearer "
    for key, status, code in ((b"sk-alice", 413, "request_too_large"), (b"sk-wrong", 401, "invalid_api_key")):
        answer = talk(pod.port, head + key + b"\r\n\r\n", seconds=3)
        assert (answer.status, answer.error["code"]) == (status, code)


def test_a_chunked_body_of_40_megabytes_is_413(pod: GatewayPod) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer sk-alice\r\n\r\n"
    answer = talk(pod.port, head + b"2625a00\r\n" + b"x" * 40_000_000 + b"\r\n0\r\n\r\n")
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/slots",
        "/slots/0?action=erase",
        "/metrics",
        "/health",
        "/props",
        "/v1",
        "/v1/",
        "/v1/slots",
        "/v1/../slots",
        "/v1/./../slots",
        "/v1/models/../../slots",
        "/v1/chat/completions/../../../slots",
        "/v1/%2e%2e/slots",
        "/v1/..%2fslots",
        "/v1%2f..%2fslots",
        "/v1/chat%2fcompletions",
        "//slots",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions%00",
        "/v1/chat/completions%20",
        "/v1/chat/completions;x=/slots",
        "/v1/chat/completions#x",
        "/V1/chat/completions",
        "/v1\\..\\slots",
        "/%73lots",
        "/%76%31/chat/completions",
        "/lora-adapters",
        "/rerank",
        "/v1/audio",
        "/v1/audio/../chat/completions",
        "/v1/messages/../chat/completions",
        "/v1/messages/batches",
        "/v1/tokenize",
        "/v1/realtime",
        "/v1/completionsx",
        "http://127.0.0.1:8080/slots",
        "/drain",
        "/ready",
        "/startup",
        "/stats",
        "/config_dump",
        "/quitquitquit",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_path_that_is_not_on_the_list_is_refused(pod: GatewayPod, method: str, target: str) -> None:
    answer = pod.request(method, target, CHAT if method != "GET" else None)
    if target.startswith("/v1/models/"):
        # The rest is a model's name, which never leaves the gateway.
        assert answer.error["code"] == ("model_not_found" if method == "GET" else "method_not_allowed")
    else:
        assert answer.status in (400, 404), (answer.status, answer.body)
        assert answer.error["code"] in ("unknown_url", "bad_request")
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_405_and_names_the_right_one(pod: GatewayPod, method: str) -> None:
    answer = pod.request(method, "/v1/chat/completions")
    assert (answer.status, answer.error["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    answer = pod.request("POST", "/v1/models", CHAT)
    assert (answer.status, answer.error["code"], answer.headers["allow"]) == (405, "method_not_allowed", "GET")


@pytest.mark.parametrize(
    "name", ["x-gw-cluster", "X-GW-Cluster", "x-gw-answer", "x-gw-key", "x-gw-stage", "x-gw-endpoint", "x_gw_cluster"]
)
@pytest.mark.parametrize("value", ["team-a/qwen", "answer", "early", "metrics", "alice"])
def test_our_headers_from_a_client_do_nothing(pod: GatewayPod, name: str, value: str) -> None:
    assert pod.request("POST", "/v1/chat/completions", CHAT, None, {name: value}).status == 401
    assert pod.request("GET", "/slots", headers={name: value}).error["code"] == "unknown_url"
    assert pod.chat_with({name: value}, model="nope").error["code"] == "model_not_found"
    assert pod.request("GET", "/v1/models", key="sk-bob", headers={name: value}).body.count(b'"id"') == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NOT HTTP\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", 426),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nFoo : bar\r\n\r\n", 400),
        (b"GET /v1/mo dels HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT 127.0.0.1:8080 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 403),
    ],
)  # fmt: skip
def test_bytes_that_are_no_plain_request_get_a_shaped_answer(
    pod: GatewayPod, request_bytes: bytes, status: int
) -> None:
    answer = talk(pod.port, request_bytes)
    assert (answer.status, bool(answer.error)) == (status, True), answer.body


def test_a_stopped_model_is_503_and_says_so(pod: GatewayPod) -> None:
    answer = pod.chat("asleep")
    assert (answer.status, answer.error["code"], answer.error["type"]) == (503, "model_stopped", "server_error")
    assert "replicas" in answer.error["message"]
    assert int(answer.headers["retry-after"]) > 0


def test_a_model_without_a_ready_replica_is_503_with_retry_after(pod: GatewayPod) -> None:
    answer = pod.chat("loading")
    assert (answer.status, answer.error["code"]) == (503, "model_not_ready")
    assert int(answer.headers["retry-after"]) > 0


def test_a_large_body_for_a_stopped_model_gets_the_same_answer(pod: GatewayPod) -> None:
    assert pod.chat("asleep", user="x" * 3_000_000).error["code"] == "model_stopped"


def test_the_wrong_path_for_a_model_names_the_right_one_and_other_models(pod: GatewayPod) -> None:
    answer = pod.chat("embed")
    assert (answer.status, answer.error["code"]) == (404, "unsupported_endpoint")
    assert "/v1/embeddings" in answer.error["message"]
    assert "`qwen`" in answer.error["message"]
    answer = pod.request("POST", "/v1/embeddings", {"model": "qwen", "input": "x"}, key="sk-alice")
    assert (answer.status, answer.error["code"]) == (404, "unsupported_endpoint")
    # A key learns only of its own models.
    assert "`qwen`" not in pod.chat("embed", key="sk-bob").error["message"]
