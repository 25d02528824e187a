"""Every path of the allow-list, through real Envoy and policy to a fake engine: which are open, and what the others are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from gateway.conftest import World, first_config
from gateway.pod import NAMESPACE, Answer, GatewayPod, until
from gateway.wire import talk

CHAT = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize", "/api/chat", "/api/generate"]  # fmt: skip
OTHERS = {"rank": ["/v1/rerank"], "ears": ["/v1/audio/transcriptions", "/v1/audio/translations"], "voice": ["/v1/audio/speech"], "painter": ["/v1/images/generations"]}  # fmt: skip
ORIGIN = "https://chat.example.com"


@pytest.fixture
def world(world: World) -> Iterator[World]:
    config = first_config().model("full", paths=CHAT).model("quiet", stopped=True, paths=CHAT).model("cold", paths=CHAT)
    for name, paths in OTHERS.items():
        config.model(name, deployment="full", task=name, paths=[*paths, "/slots"])
    config.origins = [ORIGIN]
    world.kubernetes.put_endpoints(NAMESPACE, "full", [world.engines[0].port])
    config.apply(world.kubernetes)
    until(lambda: world.pod.chat("full").status == 200, "the models of these tests")
    # Envoy takes over the origins by itself, a moment later.
    until(
        lambda: "access-control-allow-origin" in world.pod.chat_with({"origin": ORIGIN}, "full").headers, "the origins"
    )
    for engine in world.engines:
        engine.seen.clear()
    yield world
    world.kubernetes.put_endpoints(NAMESPACE, "full", [])


def post(pod: GatewayPod, path: str, model: str, **more: Any) -> Answer:
    if path in OTHERS["ears"]:
        body, headers = pod.form({"file": b"RIFF\x00\xff", "model": model})
        return pod.request("POST", path, body, headers=headers, **more)
    return pod.request("POST", path, {"model": model, "input": "Hi"}, **more)


@pytest.mark.parametrize(
    ("path", "model"), [(path, "full") for path in CHAT] + [(path, name) for name, paths in OTHERS.items() for path in paths]
)  # fmt: skip
def test_a_path_is_open_for_a_model_that_serves_it(world: World, path: str, model: str) -> None:
    assert post(world.pod, path, model).status == 200
    assert [seen.target for seen in world.engines[0].seen] == [path]
    # "qwen" has task Chat and no list of paths, as an operator of an earlier version wrote it.
    if path not in ("/v1/chat/completions", "/v1/completions"):
        refused = post(world.pod, path, "qwen")
        assert refused.status == 404
        said = refused.json["error"] if path.startswith("/api/") else refused.json["error"]["message"]
        assert f"`{model}`" in said, "it names the model that would serve it"
        assert len(world.engines[0].seen) == 1


def test_a_path_that_no_model_serves_says_what_it_takes(pod: GatewayPod) -> None:
    answer = pod.request("POST", "/v1/rerank", {"model": "gpt-4o"}, key="sk-bob")
    assert (answer.status, answer.error["code"]) == (404, "unsupported_endpoint")
    assert "a reranking model" in answer.error["message"]


def test_a_path_outside_of_the_list_stays_closed_whatever_the_route_says(world: World) -> None:
    assert post(world.pod, "/slots", "rank").error["code"] == "unknown_url"
    assert not world.engines[0].seen


def test_ollamas_clients_see_the_models_that_speak_their_shape_and_errors_in_it(world: World) -> None:
    pod = world.pod
    tags = pod.request("GET", "/api/tags").json["models"]
    assert [(model["name"], model["model"]) for model in tags] == [(name, name) for name in ("cold", "full", "quiet")]
    assert tags[0]["modified_at"] == "2023-11-14T22:13:20Z"
    assert pod.request("GET", "/api/tags", key="sk-bob").json == {"models": []}
    assert pod.request("GET", "/api/tags", key=None).status == 401
    for model, status in (("nope", 404), ("quiet", 503), ("cold", 503)):
        refused = post(pod, "/api/chat", model)
        assert (refused.status, list(refused.json)) == (status, ["error"])
        assert model in refused.json["error"]
    world.kubernetes.put_endpoints(NAMESPACE, "full", [1])
    refused = until(lambda: (got := post(pod, "/api/chat", "full")).status == 503 and got, "nobody is there")
    assert "broke off or could not be reached" in refused.json["error"], "Envoy's own answer"
    for path in ("/api/pull", "/api/delete", "/api/create", "/api/show", "/api/ps", "/api/chat/", "/api/embed"):
        assert post(pod, path, "full").error["code"] == "unknown_url"


def test_a_form_arrives_as_it_was_sent(world: World) -> None:
    body, headers = world.pod.form({"file": bytes(range(256)) * 20_000, "language": "de", "model": "ears"})
    assert world.pod.request("POST", "/v1/audio/transcriptions", body, headers=headers).json == {"text": "heard by one"}
    assert world.engines[0].seen[-1].body == body
    assert world.engines[0].seen[-1].headers["content-type"] == headers["content-type"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"file": b"x"}, "missing_model"),
        ({"file": b"x", "model": "nope"}, "model_not_found"),
        ({"file": b"x", "model": "full"}, "unsupported_endpoint"),
        ({"model": "ears", "MODEL": "full"}, "invalid_body"),
        ({"model": b"ears"}, "invalid_body"),
    ],
)
def test_a_form_that_cannot_be_routed_is_refused(world: World, fields: dict[str, Any], code: str) -> None:
    body, headers = world.pod.form(fields)
    answer = world.pod.request("POST", "/v1/audio/transcriptions", body, headers=headers)
    assert answer.error["code"] == code
    assert not world.engines[0].seen


def test_json_is_no_form_and_a_form_is_no_json(world: World) -> None:
    assert world.pod.request("POST", "/v1/audio/transcriptions", {"model": "ears"}).error["code"] == "invalid_body"
    body, headers = world.pod.form({"model": "full"})
    assert world.pod.request("POST", "/v1/chat/completions", body, headers=headers).error["code"] == "invalid_json"
    assert not world.engines[0].seen


def test_an_anthropic_client_may_send_its_key_in_its_own_header(world: World) -> None:
    def ask(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return world.pod.request("POST", "/v1/messages", {"model": "full"}, key=None, headers=sent).status

    assert ask(x_api_key="sk-alice") == 200
    assert ask(authorization="Bearer sk-alice") == 200
    assert ask(authorization="Bearer sk-alice", x_api_key="sk-ant-somebody-else") == 200
    seen = [name for request in world.engines[0].seen for name in request.headers]
    assert "x-api-key" not in seen
    assert "authorization" not in seen
    assert ask(authorization="Bearer sk-wrong", x_api_key="sk-alice") == 401
    assert ask(x_api_key="sk-wrong") == ask(x_api_key="") == ask() == 401
    assert world.pod.request("POST", "/v1/chat/completions", {"model": "full"}, key=None, headers={"x-api-key": "sk-alice"}).status == 401  # fmt: skip
    assert len(world.engines[0].seen) == 3


def test_two_api_key_headers_are_no_key(world: World) -> None:
    head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\nX-Api-Key: sk-alice\r\nX-Api-Key: sk-alice\r\n\r\n"
    assert talk(world.pod.port, head + b'{"model":"full"}').status == 401


@pytest.mark.parametrize(
    ("model", "status", "kind"),
    [
        ("nope", 404, "not_found_error"),
        ("embed", 404, "not_found_error"),
        ("quiet", 503, "overloaded_error"),
        ("cold", 503, "overloaded_error"),
        (["full"], 400, "invalid_request_error"),
    ],
)
def test_errors_on_its_paths_have_anthropics_shape(world: World, model: Any, status: int, kind: str) -> None:
    answer = post(world.pod, "/v1/messages", model)
    assert (answer.status, answer.anthropic_error["type"]) == (status, kind)
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
    assert world.pod.request("POST", "/v1/messages", {"model": "full"}, key="sk-wrong").anthropic_error["type"] == "authentication_error"  # fmt: skip
    assert world.pod.request("GET", "/v1/messages").anthropic_error["type"] == "invalid_request_error"


def test_what_envoy_itself_says_on_its_paths_has_anthropics_shape(world: World) -> None:
    large = world.pod.request("POST", "/v1/messages", {"model": "full", "x": "y" * 40_000_000})
    assert (large.status, large.anthropic_error["type"]) == (413, "request_too_large")
    world.kubernetes.put_endpoints(NAMESPACE, "full", [9])
    until(lambda: world.pod.chat("full").status == 503, "an endpoint where nobody listens")
    away = post(world.pod, "/v1/messages", "full")
    assert (away.status, away.anthropic_error["type"]) == (503, "overloaded_error")
    assert world.pod.chat("full").error["code"] == "model_unavailable"


def test_a_page_of_an_allowed_origin_may_call_and_read_the_answer(world: World) -> None:
    ask = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type, x-stainless-os"}  # fmt: skip
    preflight = world.pod.request("OPTIONS", "/v1/chat/completions", key=None, headers=ask)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in preflight.headers
    for answer in (
        world.pod.chat_with({"origin": ORIGIN}, model="full"),
        world.pod.chat_with({"origin": ORIGIN}, model="nope"),
        world.pod.chat_with({"origin": ORIGIN}, model="cold"),
        world.pod.request("GET", "/v1/models", key="sk-wrong", headers={"origin": ORIGIN}),
    ):
        assert answer.headers["access-control-allow-origin"] == ORIGIN, answer.status
    assert [seen.method for seen in world.engines[0].seen] == ["POST"]


@pytest.mark.parametrize("origin", ["https://evil.example", ORIGIN + ".evil.example", "null", ORIGIN.replace("https", "http")])  # fmt: skip
def test_a_page_from_elsewhere_gets_no_leave(world: World, origin: str) -> None:
    ask = {"origin": origin, "access-control-request-method": "POST"}
    preflight = world.pod.request("OPTIONS", "/v1/chat/completions", key=None, headers=ask)
    assert preflight.status == 401
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in world.pod.chat_with({"origin": origin}, model="full").headers


def test_without_origins_nobody_gets_leave(world: World) -> None:
    first_config().apply(world.kubernetes)
    until(lambda: "access-control-allow-origin" not in world.pod.chat_with({"origin": ORIGIN}).headers, "the old list")
    ask = {"origin": ORIGIN, "access-control-request-method": "POST"}
    assert world.pod.request("OPTIONS", "/v1/chat/completions", key=None, headers=ask).status == 401


def test_the_body_of_tokenize_routes_by_its_model(world: World) -> None:
    body = json.dumps({"content": "Hi there", "model": "full"}).encode()
    assert world.pod.request("POST", "/tokenize", body).status == 200
    assert world.pod.request("POST", "/tokenize", {"content": "Hi there"}).error["code"] == "missing_model"
    assert [seen.body for seen in world.engines[0].seen] == [body]
