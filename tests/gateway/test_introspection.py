"""Tokens that say nothing by themselves, at a real gateway that asks a fake issuer about them, in front of a fake engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gateway.conftest import World, first_config
from gateway.fake_issuer import FakeIssuer
from gateway.pod import until

ROLES = [{"name": "reader", "models": ["qwen"]}, {"name": "admin", "models": ["*"]}]


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    made = FakeIssuer()
    yield made
    made.close()


@pytest.fixture
def asking(world: World, issuer: FakeIssuer) -> World:
    configure(world, issuer)
    issuer.asked_about.clear()
    issuer.opaque = {
        "opaque-alice": {"active": True, "sub": "alice", "groups": ["staff"], "exp": time.time() + 600},
        "opaque-eve": {"active": True, "sub": "eve", "groups": ["nobody"]},
        "opaque-old": {"active": True, "sub": "alice", "groups": ["staff"], "exp": time.time() - 100},
        "opaque-gone": {"active": False, "sub": "alice", "groups": ["staff"]},
    }
    for engine in world.engines:
        engine.seen.clear()
    return world


def configure(world: World, issuer: FakeIssuer, **more: Any) -> None:
    asked = {
        "url": f"{issuer.name}/introspect",
        "clientId": "gateway",
        "clientSecret": "client secret",
        "roleMap": [{"value": "staff", "role": "reader"}],
        **more,
    }
    config = first_config()
    config.more = {"roles": ROLES, "introspection": asked}
    world.apply(config)


def test_a_token_is_asked_about_once_and_opens_what_its_users_role_may_use(
    asking: World, issuer: FakeIssuer, run_together: Callable[[list[Callable[[], Any]]], list[Any]]
) -> None:
    answers = run_together([lambda: asking.pod.chat(key="opaque-alice")] * 20)
    assert {answer.status for answer in answers} == {200}
    assert asking.pod.chat("embed", key="opaque-alice").error["code"] == "model_not_found"
    assert [model["id"] for model in asking.pod.request("GET", "/v1/models", key="opaque-alice").json["data"]] == ["gpt-4o", "qwen"]  # fmt: skip
    # A large body is not read before its caller is known, and then the same answer serves.
    assert asking.pod.chat(key="opaque-alice", user="x" * 200_000).status == 200
    assert issuer.asked_about == ["opaque-alice"]
    lines = until(lambda: [line for line in asking.pod.access_log() if line.get("user") == "alice"], "the log line")
    assert "opaque" not in str(lines)
    assert "authorization" not in asking.engines[0].seen[-1].headers


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("opaque-gone", 401, "invalid_api_key"),
        ("opaque-unknown", 401, "invalid_api_key"),
        ("opaque-old", 401, "invalid_token"),
        ("opaque-eve", 403, "no_role"),
    ],
)
def test_what_the_issuer_does_not_vouch_for_is_refused_and_not_asked_about_again(
    asking: World, issuer: FakeIssuer, token: str, status: int, code: str
) -> None:
    for _ in range(5):
        answer = asking.pod.chat(key=token)
        assert (answer.status, answer.error["code"]) == (status, code)
    assert issuer.asked_about == [token]
    assert not asking.engines[0].seen


def test_the_audience_counts_where_one_is_wanted(asking: World, issuer: FakeIssuer) -> None:
    issuer.opaque["for-us"] = {"active": True, "sub": "a", "groups": "staff", "aud": ["gateway"]}
    issuer.opaque["for-others"] = {"active": True, "sub": "a", "groups": "staff", "aud": "others"}
    configure(asking, issuer, audiences=["gateway"])
    assert asking.pod.chat(key="for-us").status == 200
    assert asking.pod.chat(key="for-others").error["code"] == "invalid_token"
    assert asking.pod.chat(key="opaque-alice").error["code"] == "invalid_token"


def test_keys_are_never_shown_to_an_issuer_and_strangers_cannot_flood_it(
    asking: World, issuer: FakeIssuer, run_together: Callable[[list[Callable[[], Any]]], list[Any]]
) -> None:
    assert asking.pod.chat().status == 200
    assert asking.pod.chat(key="sk-wrong").error["code"] == "invalid_api_key"
    assert not issuer.asked_about
    began = time.monotonic()
    answers = run_together([lambda n=n: asking.pod.chat(key=f"made-up-{n}") for n in range(400)])  # type: ignore[misc]
    assert {answer.status for answer in answers} == {401}
    assert len(issuer.asked_about) <= 50 * (time.monotonic() - began + 2)
    assert asking.pod.chat(key="opaque-alice").status in (200, 401)
    until(lambda: asking.pod.chat(key="opaque-alice").status == 200, "those who are known")
    assert {seen.target for seen in asking.engines[0].seen} == {"/v1/chat/completions"}
    assert len({answer.error["code"] for answer in answers} - {"invalid_api_key", "token_not_checked"}) == 0  # fmt: skip


def test_without_its_issuer_a_token_is_not_let_in_and_keys_are(asking: World, issuer: FakeIssuer) -> None:
    issuer.stop()
    try:
        answer = asking.pod.chat(key="opaque-alice")
        assert (answer.status, answer.error["code"]) == (401, "token_not_checked")
        assert int(answer.headers["retry-after"]) > 0
        assert asking.pod.chat().status == 200
    finally:
        issuer.start()
    until(lambda: asking.pod.chat(key="opaque-alice").status == 200, "the issuer is back")
