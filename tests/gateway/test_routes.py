"""Routes at a real gateway: shares by weight, fallbacks and backends outside, with fake engines behind."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway.certificates import make_certificate, server_context
from gateway.conftest import World, first_config
from gateway.fake_engine import FakeEngine
from gateway.fake_kubernetes import FakeKubernetes
from gateway.pod import NAMESPACE, Answer, Config, GatewayPod, until
from gateway.wire import open_stream
from ports import free_port

Entry = dict[str, Any]


class Abroad(FakeEngine):
    """An API outside; with a certificate it speaks TLS."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        super().__init__("abroad")


@pytest.fixture(scope="module")
def abroad() -> Iterator[Abroad]:
    made = Abroad()
    yield made
    made.close()


@pytest.fixture
def routed(world: World, abroad: Abroad) -> Iterator[World]:
    """Models qwen on engine one and small on engine two; nothing is ready of idle."""
    world.kubernetes.put_endpoints(NAMESPACE, "small", [world.engines[1].port])
    yield world
    world.kubernetes.put_endpoints(NAMESPACE, "small", [])
    for engine in (*world.engines, abroad):
        engine.fails_with = 0
        engine.seen.clear()


def configure(world: World, *routes: Entry, **more: Any) -> Config:
    config = first_config().model("small", aliases=["tiny"]).model("idle").key("eve", "sk-eve", models=["smart"])
    config.more = {"routes": list(routes), **more}
    world.apply(config)
    for entry in routes:
        # The policy hears of a new route in the same moment as Envoy, which takes a few milliseconds.
        until(lambda name=entry["name"]: known_to_envoy(world.pod.chat(name)), "the route's cluster")  # type: ignore[misc]
    for engine in world.engines:
        engine.seen.clear()
    return config


def known_to_envoy(answer: Answer) -> bool:
    return answer.status != 503 or answer.error["code"] == "model_not_ready"


def route(*backends: Entry, name: str = "smart") -> Entry:
    return {"name": name, "backends": list(backends)}


def outside(abroad: Abroad, key: str | None = "sk-abroad", path: str = "/openai/v1") -> Entry:
    return {"model": "big/model", "url": f"http://127.0.0.1:{abroad.port}{path}", "key": key}


def names_asked(engine: FakeEngine) -> set[str]:
    return {json.loads(seen.body)["model"] for seen in engine.seen}


def test_requests_are_divided_by_weight_and_each_engine_hears_its_own_models_name(routed: World) -> None:
    configure(routed, route({"model": "qwen", "weight": 3}, {"model": "tiny", "weight": 1}))
    answers = [routed.pod.chat("smart", key="sk-eve") for _ in range(200)]
    assert {answer.status for answer in answers} == {200}
    counts = Counter(answer.json["choices"][0]["message"]["content"] for answer in answers)
    assert 120 <= counts["from one"] <= 180
    assert [names_asked(engine) for engine in routed.engines] == [{"qwen"}, {"tiny"}]
    seen = routed.engines[0].seen[0]
    assert not [name for name in seen.headers if name.startswith(("x-gw-", "x-envoy-"))]
    assert "authorization" not in seen.headers


def test_a_route_is_listed_and_allowed_by_its_own_name(routed: World) -> None:
    configure(routed, route({"model": "qwen", "weight": 1}))
    listed = routed.pod.request("GET", "/v1/models", key="sk-eve").json["data"]
    assert [model["id"] for model in listed] == ["smart"]
    assert routed.pod.chat("qwen", key="sk-eve").error["code"] == "model_not_found"
    assert routed.pod.chat("smart", key="sk-bob").error["code"] == "model_not_found"
    embed = routed.pod.request("POST", "/v1/embeddings", {"model": "smart", "input": "x"})
    assert embed.error["code"] == "unsupported_endpoint"


def test_only_the_name_in_the_body_changes(routed: World) -> None:
    configure(routed, route({"model": "small", "weight": 1}))
    text = '{ "a": {"model": "smart"}, "ü\\"": ["model", "smart"],\n "mod\\u0065l" : "sm\\u0061rt" , "messages": []}'
    assert routed.pod.request("POST", "/v1/chat/completions", text.encode()).status == 200
    assert routed.engines[1].seen[-1].body.decode() == text.replace("sm\\u0061rt", "small")
    large = {"messages": [{"role": "user", "content": "ä" * 2_000_000}], "model": "smart"}
    assert routed.pod.request("POST", "/v1/chat/completions", large).status == 200
    assert json.loads(routed.engines[1].seen[-1].body) == {**large, "model": "small"}


def test_what_has_no_replica_is_left_out_and_falls_back(routed: World, abroad: Abroad) -> None:
    configure(routed, route({"model": "idle", "weight": 9}, {"model": "qwen", "weight": 1}, {"model": "small"}))
    assert {b"from one" in routed.pod.chat("smart").body for _ in range(20)} == {True}
    configure(routed, route({"model": "idle", "weight": 1}, {"model": "small"}, outside(abroad)))
    assert b"from two" in routed.pod.chat("smart").body
    routed.kubernetes.put_endpoints(NAMESPACE, "small", [])
    until(lambda: b"from abroad" in routed.pod.chat("smart").body, "the last to fall back on")
    configure(routed, route({"model": "idle", "weight": 1}))
    assert routed.pod.chat("smart").error["code"] == "model_not_ready"


@pytest.mark.parametrize("trouble", ["busy", "away"])
def test_a_backend_that_is_busy_or_away_is_passed_over_before_the_first_byte(
    routed: World, abroad: Abroad, trouble: str
) -> None:
    configure(routed, route({"model": "qwen", "weight": 1}, {"model": "small"}, outside(abroad)))
    one, two = routed.engines
    if trouble == "busy":
        one.fails_with = 503
    else:
        routed.kubernetes.put_endpoints(NAMESPACE, "qwen", [free_port()])
        until(lambda: b"from two" in routed.pod.chat("smart").body, "nobody at home")
    answer = routed.pod.chat("smart")
    assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, "from two")
    assert names_asked(two) == {"small"}
    two.fails_with = 503
    answer = routed.pod.chat("smart")
    assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, "from abroad")
    asked = abroad.seen[-1]
    assert (asked.target, asked.headers["authorization"]) == ("/openai/v1/chat/completions", "Bearer sk-abroad")
    assert json.loads(asked.body)["model"] == "big/model"
    assert asked.headers["host"] == f"127.0.0.1:{abroad.port}"
    assert not [name for name in asked.headers if name.startswith(("x-gw-", "x-envoy-", "x-openwebui-"))]
    abroad.fails_with = 503
    assert routed.pod.chat("smart").status == 503


def test_a_key_for_outside_never_reaches_an_engine_of_ours(routed: World, abroad: Abroad) -> None:
    """In this order only by hand: the operator puts backends outside last or in between."""
    configure(routed, route({"model": "idle", "weight": 1}, outside(abroad), {"model": "small"}))
    abroad.fails_with = 503
    answer = routed.pod.chat("smart")
    assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, "from two")
    seen = routed.engines[1].seen[-1]
    assert (seen.target, "authorization" in seen.headers) == ("/v1/chat/completions", False)


def test_forms_are_divided_and_fall_back_with_each_backends_own_name_in_them(routed: World, abroad: Abroad) -> None:
    path = "/v1/audio/transcriptions"
    config = first_config()
    for name, deployment in (("hear-one", "qwen"), ("hear-two", "small")):
        config.model(name, deployment=deployment, task="Transcription", paths=[path, "/v1/chat/completions"])
    config.models = [entry for entry in config.models if entry["name"] != "qwen"]
    ears = route({"model": "hear-one", "weight": 1}, {"model": "hear-two"}, outside(abroad), name="ears")
    config.more = {"routes": [ears, route({"model": "embed", "weight": 1}, outside(abroad), name="other")]}
    routed.apply(config)
    recording = bytes(range(256)) * 4000
    body, headers = routed.pod.form({"file": recording, "model": "ears", "language": "de"})

    def heard() -> Answer:
        return routed.pod.request("POST", path, body, headers=headers)

    until(lambda: heard().status == 200, "the route")
    one, two = routed.engines
    for engine in routed.engines:
        engine.seen.clear()
    assert heard().json == {"text": "heard by one"}
    assert one.seen[-1].body == body.replace(b"\r\n\r\nears\r\n", b"\r\n\r\nhear-one\r\n")
    assert one.seen[-1].headers["content-length"] == str(len(body) + 4)
    one.fails_with = 503
    assert heard().json == {"text": "heard by two"}
    assert b"\r\n\r\nhear-two\r\n" in two.seen[-1].body
    two.fails_with = 503
    assert heard().json == {"text": "heard by abroad"}
    assert abroad.seen[-1].target == f"/openai{path}"
    assert recording in abroad.seen[-1].body
    assert b"\r\n\r\nbig/model\r\n" in abroad.seen[-1].body
    refused = routed.pod.request("POST", path, body.replace(b"ears", b"other"), headers=headers)
    assert refused.error["code"] == "unsupported_endpoint", "nothing of ours on that route takes forms"


def test_a_route_may_bear_the_name_of_its_model(routed: World) -> None:
    configure(routed, route({"model": "qwen", "weight": 1}, {"model": "small"}, name="qwen"))
    assert b"from one" in routed.pod.chat("qwen").body
    routed.engines[0].fails_with = 503
    until(lambda: b"from two" in routed.pod.chat("qwen").body, "Envoy has the route")
    assert b"not now" in routed.pod.chat("gpt-4o").body, "its alias is still the model itself"


def test_streams_go_on_while_routes_change_and_count_their_tokens(routed: World) -> None:
    configure(routed, route({"model": "qwen", "weight": 1}, {"model": "small"}))
    stream = open_stream(routed.pod, 40, 0.05, "smart")
    for weight in (2, 3, 4):
        configure(routed, route({"model": "small", "weight": weight}))
    assert stream.read().endswith(b"data: [DONE]\n\n")
    configure(routed)
    assert routed.pod.chat("smart").error["code"] == "model_not_found"


@pytest.mark.parametrize(
    "broken",
    [{"name": "smart"}, {"name": "a b", "backends": []}, {"name": "smart", "backends": [{"model": "x", "url": "ftp://x/v1"}]}, {"name": "smart", "backends": [{"model": 'x"', "url": "http://x/v1"}]}],
)  # fmt: skip
def test_a_route_that_cannot_be_read_is_left_out_and_others_stay(routed: World, broken: Entry) -> None:
    configure(routed, broken, route({"model": "small", "weight": 1}, name="good"))
    assert routed.pod.chat("good").status == 200
    assert routed.pod.chat("smart").error["code"] == "model_not_found"


def test_a_backend_outside_is_called_over_tls_and_only_with_a_certificate_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = make_certificate("localhost")
    (tmp_path / "public.pem").write_bytes(chain)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))
    kubernetes, engine = FakeKubernetes(), Abroad(server_context(chain, key, tmp_path))
    pod = GatewayPod(tmp_path, kubernetes)
    good = {"model": "big", "url": f"https://localhost:{engine.port}/v1", "key": "sk-abroad"}
    other_name = {"model": "big", "url": f"https://127.0.0.1:{engine.port}/v1", "key": "sk-abroad"}
    config = first_config()
    config.more = {"routes": [route(good), route(other_name, name="other")]}
    config.apply(kubernetes)
    try:
        pod.start()
        answer = until(lambda: (got := pod.chat("smart")).status == 200 and got, "the name is looked up")
        assert b"from abroad" in answer.body
        assert engine.seen[-1].headers["host"] == f"localhost:{engine.port}"
        assert pod.chat("other").status == 503
        assert len(engine.seen) == 1
    finally:
        pod.stop()
        kubernetes.close()
        engine.close()


def test_an_authority_of_ones_own_counts_for_backends_outside_as_soon_as_it_is_told(
    routed: World, tmp_path: Path
) -> None:
    (chain, key), (other, _) = make_certificate("localhost"), make_certificate("somebody else")
    engine = Abroad(server_context(chain, key, tmp_path))
    config = first_config()
    far = {"model": "big", "url": f"https://localhost:{engine.port}/v1", "key": "sk-abroad"}
    try:
        for authorities, status in (("", 503), (other.decode(), 503), ((other + chain).decode(), 200)):
            config.more = {"routes": [route(far)], "authorities": authorities}
            routed.apply(config)
            answer = until(lambda status=status: (got := routed.pod.chat("smart")).status == status and got, f"{status}")  # type: ignore[misc]  # fmt: skip
        assert b"from abroad" in answer.body
        assert len(engine.seen) == 1
    finally:
        engine.close()


def test_a_request_for_a_route_waits_for_its_sleeping_model_and_arrives_under_that_ones_name(
    routed: World, run_together: Callable[[list[Callable[[], Any]]], list[Any]]
) -> None:
    hold = {"mode": "Hold", "maxWaitSeconds": 20, "maxHeldRequests": 10, "heartbeatSeconds": 60}
    config = first_config().model("dreamer", hold=hold, sleeping=True)
    config.more = {"routes": [route({"model": "dreamer", "weight": 1})]}
    routed.apply(config)

    def wake() -> None:
        load = {"authorization": "Bearer operator-token"}
        until(lambda: routed.pod.probe("/load", load).json["models"][f"{NAMESPACE}/dreamer"]["held"] == 1, "it waits")
        # Meanwhile the configuration changes, but not the route.
        routed.apply(config)
        routed.kubernetes.put_endpoints(NAMESPACE, "dreamer", [routed.engines[1].port])

    answer, _ = run_together([lambda: routed.pod.chat("smart"), wake])
    routed.kubernetes.put_endpoints(NAMESPACE, "dreamer", [])
    assert answer.status == 200
    assert names_asked(routed.engines[1]) == {"dreamer"}
