"""What a scrape of a real gateway tells of requests to a fake engine."""

from __future__ import annotations

import json

from gateway.conftest import World
from gateway.pod import until
from gateway.wire import open_stream

SERVED = "stoker_gateway_served_"


def test_requests_times_and_tokens_are_counted_by_model_and_no_key_is_named(world: World) -> None:
    pod = world.pod
    requests, refused = f'{SERVED}requests_total{{model="qwen",code="200"}}', 'stoker_gateway_decisions_total{model="",reason="model_not_found"}'  # fmt: skip
    names = (requests, f'{SERVED}prompt_tokens_total{{model="qwen"}}', f'{SERVED}completion_tokens_total{{model="qwen"}}', f'{SERVED}first_byte_milliseconds_count{{model="qwen"}}')  # fmt: skip

    # The relay counts what it finds in the log before it passes it on. Other tests may have asked just now, or have ended a relay.
    last = pod.chat("qwen").headers["x-request-id"].encode()
    until(lambda: last in (pod.folder / "policy.log").read_bytes(), "a relay that has read the log")
    before = [pod.metric(name) for name in names]
    not_found = pod.metric(refused)
    # The fake engine counts 1 and 2 tokens; its alias is the same model, and a name that nobody serves makes no series.
    for model in ("qwen", "gpt-4o", "qwen", "never-heard-of"):
        pod.chat(model)
    until(lambda: pod.metric(names[3]) >= before[3] + 3, "the relay's next look")
    counted = [pod.metric(name) - was for name, was in zip(names, before, strict=True)]
    assert counted[:3] == [3, 3, 6]
    assert pod.metric(refused) == not_found + 1
    text = pod.probe("/metrics").body.decode()
    assert f'{SERVED}duration_milliseconds_bucket{{model="qwen",le="+Inf"}}' in text
    for absent in ("never-heard-of", "alice", "envoy_"):
        assert absent not in text


def test_what_runs_is_a_gauge(world: World) -> None:
    gauge = 'stoker_gateway_in_flight{model="qwen"}'
    stream = open_stream(world.pod, 1000, 0.05)
    until(lambda: world.pod.metric(gauge) == 1, "a running request")
    assert world.pod.metric('stoker_gateway_held{model="qwen"}') == 0
    stream.close()
    until(lambda: world.pod.metric(gauge) == 0, "its end")


def test_trace_context_is_passed_on(world: World) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = json.dumps({"model": "qwen", "messages": []}).encode()
    world.pod.request("POST", "/v1/chat/completions", body, headers={"traceparent": parent, "tracestate": "a=b"})
    seen = world.engines[0].seen[-1].headers
    assert (seen["traceparent"], seen["tracestate"]) == (parent, "a=b")
