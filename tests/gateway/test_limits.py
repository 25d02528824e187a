"""Limits of callers, at a real gateway in front of a fake engine."""

from __future__ import annotations

import itertools
import json
import socket
import time
from typing import Any

import openai
import pytest
from gateway.conftest import World, first_config
from gateway.pod import Answer, until

NAMES = (f"key-{number}" for number in itertools.count())
"""A name for each test: what was counted in the minute before belongs to others."""


@pytest.fixture
def limited(world: World) -> World:
    roles = [{"name": "narrow", "models": ["emb*", "qwen"], "requestsPerMinute": 5}]
    slow, narrow = next(NAMES), next(NAMES)
    config = first_config().key(slow, "sk-slow", requestsPerMinute=3).key(slow, "sk-slow-2", requestsPerMinute=3)
    config.key(narrow, "sk-narrow", models=["qwen", "gpt-4o"], role="narrow").key("roleless", "sk-lost", role="gone")
    config.model("claude", deployment="qwen", paths=["/v1/messages"])
    config.more = {"roles": roles}
    config.apply(world.kubernetes)
    until(lambda: world.pod.request("GET", "/v1/models", key="sk-narrow").status == 200, "the keys of these tests")
    return world


def test_the_minute_of_a_key_is_full_and_says_when_to_come_back(limited: World) -> None:
    before = limited.seen
    # Both keys of a rotated ApiKey count together.
    answers = [limited.pod.chat(key=key) for key in ("sk-slow", "sk-slow-2", "sk-slow", "sk-slow-2", "sk-slow")]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"3"}
    refused = answers[-1]
    assert (refused.error["code"], refused.error["type"]) == ("rate_limit_exceeded", "requests")
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert limited.seen == before + 3
    assert limited.pod.chat().status == 200, "nobody else is touched"
    assert "x-ratelimit-limit-requests" not in limited.pod.chat().headers
    asked = refused.headers["x-request-id"]
    (line,) = until(lambda: [one for one in limited.pod.access_log() if one.get("request_id") == asked], "the log line")
    assert (line["code"], line["reason"], line["model"]) == (429, "rate_limit_exceeded", "qwen")
    assert line["key"].startswith("key-")


def test_what_no_engine_sees_does_not_count(limited: World) -> None:
    for _ in range(5):
        assert limited.pod.request("GET", "/v1/models", key="sk-slow").status == 200
        assert limited.pod.chat("nope", key="sk-slow").status == 404
        assert limited.pod.chat("asleep", key="sk-slow").status == 503
    assert limited.pod.chat(key="sk-slow").headers["x-ratelimit-remaining-requests"] == "2"


def test_large_bodies_count_once_though_the_policy_is_asked_twice(limited: World) -> None:
    statuses = [limited.pod.chat(key="sk-slow", user="x" * 300_000).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_a_role_bounds_models_and_requests(limited: World) -> None:
    listed = limited.pod.request("GET", "/v1/models", key="sk-narrow").json["data"]
    assert [model["id"] for model in listed] == ["gpt-4o", "qwen"]
    assert limited.pod.chat("embed", key="sk-narrow").error["code"] == "model_not_found"
    assert [limited.pod.chat(key="sk-narrow").status for _ in range(6)] == [200] * 5 + [429]


def test_a_key_of_a_role_that_is_not_there_opens_nothing(limited: World) -> None:
    assert limited.pod.request("GET", "/v1/models", key="sk-lost").error["code"] == "invalid_api_key"


def test_calls_at_the_same_time_are_counted_exactly(limited: World, run_together: Any) -> None:
    answers: list[Answer] = run_together([lambda: limited.pod.chat(key="sk-narrow")] * 40)
    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 35


def test_one_of_two_replicas_admits_half(limited: World) -> None:
    config = first_config().key(next(NAMES), "sk-slow", requestsPerMinute=8)
    config.more = {"replicas": 2, "requestsPerMinute": 100}
    limited.apply(config)
    assert limited.pod.chat().headers["x-ratelimit-limit-requests"] == "50"
    assert [limited.pod.chat(key="sk-slow").status for _ in range(6)].count(200) == 4


def test_tokens_count_as_estimated_first_and_as_the_engine_counted_them_afterwards(limited: World) -> None:
    limited.apply(first_config().key(next(NAMES), "sk-slow", tokensPerMinute=12))

    def ask() -> Answer:
        return limited.pod.chat(key="sk-slow")

    # The prompt is about 2 tokens; the fake engine counts 1 and 2 more.
    first = ask()
    assert (first.status, first.headers["x-ratelimit-limit-tokens"]) == (200, "12")
    assert first.headers["x-ratelimit-remaining-tokens"] == "10"

    def remaining() -> str:
        return limited.pod.chat(key="sk-slow", messages=[{"content": "x" * 400}]).headers[
            "x-ratelimit-remaining-tokens"
        ]

    # 100 tokens never fit, so that asking changes nothing.
    until(lambda: remaining() == "9", "the engine's count has come")
    assert ask().status == 200
    until(lambda: remaining() == "6", "the engine's count has come")
    refused = limited.pod.chat(key="sk-slow", messages=[{"role": "user", "content": "x" * 40}])
    assert (refused.status, refused.error["code"], refused.error["type"]) == (429, "rate_limit_exceeded", "tokens")
    assert 0 < int(refused.headers["retry-after"]) <= 61


def test_so_many_requests_at_the_same_time_and_the_next_when_one_has_ended(limited: World, run_together: Any) -> None:
    limited.apply(first_config().key(next(NAMES), "sk-slow", concurrentRequests=3))

    def ask() -> int:
        return limited.pod.chat(key="sk-slow", metadata={"wait": 0.4}).status

    def free() -> bool:
        statuses = run_together([ask] * 8)
        return sorted(statuses) == [200] * 3 + [429] * 5

    until(free, "all three places, again and again")
    assert until(free, "and once more")

    def refusals() -> list[Answer]:
        answers = run_together([lambda: limited.pod.chat(key="sk-slow", metadata={"wait": 0.2})] * 4)
        return [answer for answer in answers if answer.status == 429]

    refused = until(refusals, "one too many")[0]
    assert refused.error["code"] == "concurrent_requests_exceeded"
    assert refused.headers["retry-after"] == "1"


def test_a_client_that_leaves_frees_its_place(limited: World, run_together: Any) -> None:
    limited.apply(first_config().key(next(NAMES), "sk-slow", concurrentRequests=1))
    body = json.dumps({"model": "qwen", "metadata": {"wait": 20}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-slow\r\ncontent-length: {len(body)}\r\n\r\n"
    for moment in (0.0, 0.001, 0.05):
        until(lambda: limited.pod.chat(key="sk-slow").status == 200, "the place is free")
        with socket.create_connection(("127.0.0.1", limited.pod.port)) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(moment)
    # Long before the engine would have answered.
    until(lambda: limited.pod.chat(key="sk-slow").status == 200, "the place is free", within=10)


def test_a_user_and_a_model_have_limits_of_their_own(limited: World) -> None:
    name, owner = next(NAMES), next(NAMES)
    config = first_config().key(name, "sk-slow", owner=owner).key(f"{name}-2", "sk-slow-2", owner=owner)
    config.more = {"perUser": {"requestsPerMinute": 4}, "modelLimits": [{"models": ["emb*"], "requestsPerMinute": 1}]}
    limited.apply(config)

    def embed(key: str) -> Answer:
        return limited.pod.request("POST", "/v1/embeddings", {"model": "embed", "input": "x"}, key)

    assert embed("sk-slow").headers["x-ratelimit-limit-requests"] == "1"
    assert embed("sk-slow").status == 429, "one a minute of this model"
    assert "of embed you may make 1" in embed("sk-slow").error["message"]
    statuses = [limited.pod.chat(key=key).status for key in ("sk-slow", "sk-slow-2") * 3]
    assert statuses.count(200) == 3, "4 of both together, of which one went to the other model"
    assert f"all keys of {owner} together" in limited.pod.chat(key="sk-slow").error["message"]


def test_anthropics_clients_get_their_own_shape(limited: World) -> None:
    def ask() -> Answer:
        return limited.pod.request("POST", "/v1/messages", {"model": "claude"}, key="sk-slow")

    refused = [ask() for _ in range(4)][-1]
    assert (refused.status, refused.anthropic_error["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["retry-after"]) > 0


def test_openais_client_raises_its_rate_limit_error(limited: World) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{limited.pod.port}/v1", api_key="sk-slow", max_retries=0)

    def ask() -> None:
        client.chat.completions.create(model="qwen", messages=[{"role": "user", "content": "Hi"}])

    for _ in range(3):
        ask()
    with pytest.raises(openai.RateLimitError) as refused:
        ask()
    assert refused.value.code == "rate_limit_exceeded"
