"""What real Envoy, policy and relay let through to fake engines, and how they follow a fake API server."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from typing import Any

import pytest
from gateway.conftest import World, first_config
from gateway.pod import NAMESPACE, GatewayPod, seconds_until, until
from gateway.wire import ENDLESS, get_over_http2, open_stream


def test_an_answer_comes_from_the_engine_and_the_body_arrives_as_it_was_sent(world: World) -> None:
    body = b'{ "messages": [{"role": "user", "content": "\\u00fc\xc3\xbc"}],\n  "model":"gpt-4o", "x": 1e2 }'
    answer = world.pod.request("POST", "/v1/chat/completions?a=b%20c", body)
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "from one"
    seen = world.engines[0].seen[-1]
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/chat/completions?a=b%20c", body)


def test_neither_the_key_nor_our_own_headers_reach_the_engine(world: World) -> None:
    headers = {"x-envoy-retry-on": "5xx", "x-gw-cluster": "team-a/embed", "X-GW-Anything": "1"}
    assert world.pod.request("POST", "/v1/chat/completions", {"model": "qwen"}, headers=headers).status == 200
    seen = world.engines[0].seen[-1].headers
    assert "authorization" not in seen
    assert not [name for name in seen if name.startswith(("x-gw-", "x-envoy-"))]
    assert "sk-alice" not in str(seen)


def test_an_engine_that_asks_for_a_key_gets_its_own_and_no_other_engine_does(world: World) -> None:
    world.apply(first_config().model("guarded", deployment="qwen", engineKey="engine-key-0123456789"))
    headers = {"x-gw-engine-key": "Bearer forged-0123456789"}
    for name, expected in (("guarded", "Bearer engine-key-0123456789"), ("qwen", None)):
        assert world.pod.request("POST", "/v1/chat/completions", {"model": name}, headers=headers).status == 200
        seen = world.engines[0].seen[-1].headers
        assert seen.get("authorization") == expected
        assert not [header for header in seen if header.startswith("x-gw-")]


def test_an_adapter_that_an_engine_knows_by_number_is_asked_for_by_name(world: World) -> None:
    chosen = {"law": {"lora": [{"id": 1, "scale": 1.0}]}, "tuned": {"lora": []}}
    world.apply(first_config().model("tuned", deployment="qwen", aliases=["law"], additions=chosen))
    for name, expected in (("law", [{"id": 1, "scale": 1.0}]), ("tuned", [])):
        body = b'{"model": "%b", "lora": [{"id": 0, "scale": 9}], "messages": []}' % name.encode()
        assert world.pod.request("POST", "/v1/chat/completions", body).status == 200
        assert json.loads(world.engines[0].seen[-1].body)["lora"] == expected
    assert world.pod.request("POST", "/v1/chat/completions", b'{"model": "qwen"}').status == 200
    assert b"lora" not in world.engines[0].seen[-1].body


@pytest.mark.parametrize(
    ("target", "model", "key"),
    [
        ("/v1/chat/completions", "qwen", "sk-alice"),
        ("/v1/chat/completions", "gpt-4o", "sk-bob"),
        ("/v1/completions", "qwen", "sk-alice"),
        ("/v1/completions", "Org/coder", "sk-alice"),
        ("/v1/embeddings", "embed", "sk-bob"),
    ],
)
def test_a_key_reaches_its_models_on_the_paths_of_their_task(
    pod: GatewayPod, target: str, model: str, key: str
) -> None:
    assert pod.request("POST", target, {"model": model}, key).status == 200


@pytest.mark.parametrize("size", [60_000, 70_000, 5_000_000, 31_000_000])
def test_large_bodies_are_routed_like_small_ones(world: World, size: int) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * size}], "model": "qwen"}).encode()
    assert world.pod.request("POST", "/v1/chat/completions", body).status == 200
    assert world.engines[0].seen[-1].body == body


def test_many_large_bodies_at_once_are_all_answered(world: World, run_together: Any) -> None:
    answers = run_together([lambda: world.pod.chat(user="x" * 8_000_000).status] * 8)
    assert answers == [200] * 8


def test_a_stream_comes_piece_by_piece(world: World) -> None:
    times: list[float] = []
    response = open_stream(world.pod, ENDLESS, 0.1)
    while len(times) < 9:
        if response.readline().startswith(b"data:"):
            times.append(time.monotonic())
    assert 0.05 < statistics.median(later - sooner for sooner, later in itertools.pairwise(times)) < 0.4
    world.engines[0].ended += 1
    assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_client_that_leaves_cancels_its_request_at_the_engine(world: World) -> None:
    before = world.engines[0].cancelled
    response = open_stream(world.pod, 1000, 0.05)
    response.readline()
    response.close()
    until(lambda: world.engines[0].cancelled > before, "the engine notices")


def test_the_models_list_holds_names_and_aliases_the_key_may_use(pod: GatewayPod) -> None:
    answer = pod.request("GET", "/v1/models")
    assert answer.json["object"] == "list"
    assert [model["id"] for model in answer.json["data"]] == [
        "Org/coder",
        "asleep",
        "embed",
        "gpt-4o",
        "loading",
        "qwen",
    ]
    assert answer.json["data"][0] == {"id": "Org/coder", "object": "model", "created": 1700000000, "owned_by": "stoker"}


@pytest.mark.parametrize("target", ["/v1/models/Org/coder", "/v1/models/Org%2Fcoder", "/v1/models/Org%2fcoder?x=1"])
def test_one_model_is_found_with_its_slash_encoded_or_not(pod: GatewayPod, target: str) -> None:
    assert pod.request("GET", target).json["id"] == "Org/coder"


def test_a_get_with_a_body_is_answered(pod: GatewayPod) -> None:
    assert pod.request("GET", "/v1/models", b"x" * 200_000).status == 200


def test_request_ids_pass_in_both_directions_and_are_made_where_there_is_none(world: World) -> None:
    answer = world.pod.request("POST", "/v1/chat/completions", {"model": "qwen"}, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert world.engines[0].seen[-1].headers["x-request-id"] == "mine-1"
    assert len(world.pod.request("GET", "/v1/models").headers["x-request-id"]) == 36


def test_http2_without_tls_is_understood(pod: GatewayPod) -> None:
    status, body = get_over_http2(pod.port, "/v1/models", "sk-alice")
    assert status == 200
    assert b'"object":"list"' in body


def test_calls_spread_over_ready_replicas(world: World) -> None:
    one, two = world.engines
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [one.port, two.port])
    until(lambda: b"from two" in world.pod.chat().body, "the second replica is used")
    until(lambda: world.pod.load("qwen")["inFlight"] == 0, "all have ended")
    streams = [open_stream(world.pod, ENDLESS, 0.05) for _ in range(8)]
    for engine in (one, two):
        engine.ended += 1
    for stream in streams:
        assert b"[DONE]" in stream.read()
    busy = [sum(b'"stream": true' in seen.body for seen in engine.seen) for engine in world.engines]
    assert busy == [4, 4], "the one with fewer requests is chosen"


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_dead_replica_costs_no_request(world: World, size: int) -> None:
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [world.engines[0].port, 9])
    until(lambda: world.pod.chat("qwen").status == 200, "an answer")
    assert [world.pod.chat(user="x" * size).status for _ in range(20)] == [200] * 20


def test_an_endpoint_is_used_within_half_a_second_of_being_ready(world: World) -> None:
    one, two = world.engines
    took = []
    for engine in (two, one, two, one):
        world.kubernetes.put_endpoints(NAMESPACE, "qwen", [engine.port])
        took.append(seconds_until(lambda name=engine.name: name in world.pod.chat().body.decode(), "the new endpoint"))  # type: ignore[misc]
    assert min(took) < 0.5, took


def test_a_terminating_endpoint_gets_nothing_new_and_finishes_its_stream(world: World) -> None:
    one, two = world.engines
    stream = open_stream(world.pod, ENDLESS, 0.1)
    stream.readline()
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [two.port], terminating=[one.port])
    until(lambda: b"from two" in world.pod.chat().body, "the other replica")
    count = len(one.seen)
    assert all(b"from two" in world.pod.chat().body for _ in range(20))
    assert len(one.seen) == count
    one.ended += 1
    assert b"[DONE]" in stream.read()


def test_without_a_ready_endpoint_it_is_503_until_there_is_one(world: World) -> None:
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [], starting=[world.engines[0].port])
    until(lambda: world.pod.chat().status == 503, "nobody is ready")
    assert world.pod.chat().error["code"] == "model_not_ready"
    world.kubernetes.put_endpoints(NAMESPACE, "qwen", [world.engines[0].port])
    until(lambda: world.pod.chat().status == 200, "ready again")


def test_a_model_comes_and_goes_and_its_running_stream_ends_by_itself(world: World) -> None:
    stream = open_stream(world.pod, ENDLESS, 0.1)
    stream.readline()
    config = first_config()
    config.models = [model for model in config.models if model["name"] != "qwen"]
    config.model("newcomer")
    world.kubernetes.put_endpoints(NAMESPACE, "newcomer", [world.engines[1].port])
    config.apply(world.kubernetes)
    until(lambda: world.pod.chat("newcomer").status == 200, "the new model")
    assert world.pod.chat("qwen").status == 404
    world.engines[0].ended += 1
    assert b"[DONE]" in stream.read()
    world.kubernetes.put_endpoints(NAMESPACE, "newcomer", [])


def test_streams_survive_every_change_of_configuration(world: World) -> None:
    streams = [open_stream(world.pod, ENDLESS, 0.1) for _ in range(5)]
    for round_ in range(8):
        config = first_config()
        config.max_request_bytes = (8 + round_) << 20
        config.key(f"key-{round_}", f"sk-{round_}").model(f"model-{round_}")
        config.apply(world.kubernetes)
        until(lambda key=f"sk-{round_}": world.pod.request("GET", "/v1/models", key=key).status == 200, "the new key")  # fmt: skip
    world.engines[0].ended += 1
    for stream in streams:
        assert b"[DONE]" in stream.read()


def test_a_deleted_key_stops_within_5_seconds(world: World) -> None:
    assert world.pod.request("GET", "/v1/models", key="sk-bob").status == 200
    config = first_config()
    config.keys = [key for key in config.keys if key["name"] != "bob"]
    config.apply(world.kubernetes)
    until(lambda: world.pod.request("GET", "/v1/models", key="sk-bob").status == 401, "bob is out", within=5)
    assert world.pod.request("GET", "/v1/models").status == 200


def test_a_key_expires_at_its_time_without_any_change(world: World) -> None:
    def status() -> int:
        return world.pod.request("GET", "/v1/models", key="sk-brief").status

    # On a machine that is too slow for two seconds it lives longer.
    for seconds in (2, 10, 50):
        expires = int(time.time()) + seconds
        first_config().key("brief", "sk-brief", expiresAt=expires).apply(world.kubernetes)
        let_in = (
            until(lambda end=expires: status() == 200 or time.time() > end, "let in, or too late") and status() == 200
        )
        until(lambda: status() == 401, "out again")
        if let_in:
            break
    assert let_in
    assert expires <= time.time()


def test_after_a_rotation_both_keys_work(world: World) -> None:
    config = first_config().key("alice", "sk-alice-2", expiresAt=None)
    config.apply(world.kubernetes)
    until(lambda: world.pod.request("GET", "/v1/models", key="sk-alice-2").status == 200, "the new key")
    assert len(world.pod.request("GET", "/v1/models", key="sk-alice-2").json["data"]) == 6
    assert world.pod.chat(key="sk-alice").status == 200


def test_the_limit_of_a_body_follows_the_configuration(world: World) -> None:
    config = first_config()
    config.max_request_bytes = 10_000
    config.apply(world.kubernetes)
    until(lambda: world.pod.chat(user="x" * 11_000).status == 413, "the smaller limit")
    assert world.pod.chat(user="x" * 11_000).error["code"] == "request_too_large"
    assert world.pod.chat(user="x" * 9_000).status == 200


def test_a_document_that_makes_no_sense_changes_nothing(world: World) -> None:
    world.kubernetes.put_secret(NAMESPACE, "gateway-routes", routes_json=["not", "routes"])
    world.kubernetes.put_secret(NAMESPACE, "gateway-keys-0", keys_json={"keys": "not a list"})
    config = first_config()
    config.keys.append({"name": "broken"})
    config.models.append({"name": "bad name\r\nx: y", "namespace": "../..", "deployment": "x"})
    assert world.pod.chat().status == 200
    config.model("after", deployment="qwen").apply(world.kubernetes)
    until(lambda: world.pod.chat("after").status == 200, "the next good document")
    assert world.pod.chat().status == 200


def test_a_namespace_whose_endpoints_may_not_be_read_leaves_the_others_alone(world: World) -> None:
    world.kubernetes.forbidden.add(("endpointslices", "team-b"))
    config = first_config().model("foreign", namespace="team-b")
    config.apply(world.kubernetes)
    until(lambda: world.pod.chat("foreign").status == 503, "published, but not ready")
    assert world.pod.chat().status == 200


def test_a_log_line_tells_who_what_and_how_long_and_no_prompt(world: World) -> None:
    headers = {"x-request-id": "log-1"}
    secret = "the prompt nobody may read"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": secret}]}
    world.pod.request("POST", "/v1/chat/completions?api_key=sk-query", body, headers=headers)
    world.pod.request("POST", "/v1/chat/completions", {"model": "nope"}, headers={"x-request-id": "log-2"})

    def lines() -> dict[str, dict[str, Any]]:
        return {line["request_id"]: line for line in world.pod.access_log() if "request_id" in line}

    until(lambda: {"log-1", "log-2"} <= lines().keys(), "both lines")
    served, refused = lines()["log-1"], lines()["log-2"]
    assert (served["model"], served["key"], served["code"], served["reason"]) == ("qwen", "alice", 200, "allowed")
    assert served["path"] == "/v1/chat/completions"
    assert served["upstream"] == f"127.0.0.1:{world.engines[0].port}"
    assert served["bytes_in"] > 0
    assert served["ms"] >= 0
    assert (refused["key"], refused["code"], refused["reason"]) == ("alice", 404, "model_not_found")
    everything = (world.pod.folder / "access.log").read_text() + (world.pod.folder / "policy.log").read_text()
    assert secret not in everything
    assert "sk-" not in everything


def test_metrics_count_decisions_by_reason_and_published_model_only(world: World) -> None:
    allowed = 'stoker_gateway_decisions_total{model="qwen",reason="allowed"}'
    unknown = 'stoker_gateway_decisions_total{model="",reason="model_not_found"}'
    before = world.pod.metric(allowed), world.pod.metric(unknown)
    world.pod.chat("gpt-4o")
    world.pod.chat("no-such-model")
    assert (world.pod.metric(allowed), world.pod.metric(unknown)) == (before[0] + 1, before[1] + 1)
    assert b"no-such-model" not in world.pod.probe("/metrics").body
    assert world.pod.metric("stoker_gateway_models_ready") == 3
    assert world.pod.metric("stoker_gateway_relay_up") == 1


def test_load_needs_the_operators_token_and_counts_what_runs(world: World) -> None:
    assert world.pod.probe("/load").status == 401
    assert world.pod.probe("/load", {"authorization": "Bearer sk-alice"}).status == 401
    until(lambda: world.pod.load("qwen")["inFlight"] == 0, "what ran before has ended")
    before = world.pod.load("qwen")
    streams = [open_stream(world.pod, 1000, 0.05) for _ in range(3)]
    address = f"127.0.0.1:{world.engines[0].port}"
    running = world.pod.load("qwen")
    assert (running["inFlight"], running["held"], running["endpoints"]) == (3, 0, {address: 3})
    for stream in streams:
        stream.close()
    until(lambda: world.pod.load("qwen")["inFlight"] == 0, "none running")
    after = world.pod.load("qwen")
    assert (
        after["arrivalsTotal"] - before["arrivalsTotal"] == after["completionsTotal"] - before["completionsTotal"] == 3
    )


def test_port_9090_serves_nothing_else(pod: GatewayPod) -> None:
    assert pod.probe("/").status == 404
    assert pod.probe("/v1/models").status == 404
    assert pod.probe("/healthz").status == pod.probe("/startup").status == pod.probe("/readyz").status == 200


def test_more_models_than_a_node_has_inotify_instances_are_served(world: World) -> None:
    config = first_config()
    for number in range(300):
        config.model(f"many-{number}", deployment="qwen" if number == 299 else f"many-{number}")
    config.apply(world.kubernetes)
    until(lambda: world.pod.chat("many-299").status == 200, "the last of them")
    assert world.pod.metric("stoker_gateway_models") == 305
