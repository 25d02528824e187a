"""A service that calls for its users, as Open WebUI does with X-OpenWebUI-User-Jwt: at a real gateway, in front of a fake engine."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from gateway.conftest import World, first_config
from gateway.pod import Answer, Config, until
from joserfc import jws
from joserfc.jwk import OctKey

SECRET = "known to Open WebUI and to the gateway"
HEADER = "X-OpenWebUI-User-Jwt"
PLAIN = {"X-OpenWebUI-User-Email": "boss@example.com", "X-OpenWebUI-User-Role": "admin", "X-OpenWebUI-Chat-Id": "7"}


NUMBERS = itertools.count()
# As the operator writes them: admin and user are always there.
ROLES = {
    "roles": [
        {"name": "admin", "models": ["*"]},
        {"name": "user", "models": ["*"]},
        {"name": "guest", "models": ["embed"], "groups": ["visitors", "Gäste"]},
    ],
    "roleMap": [{"value": "llm-guest", "role": "guest"}],
}
GROUPS = "X-OpenWebUI-User-Groups"


def config_with(*keys: tuple[str, str, dict[str, Any]]) -> Config:
    config = first_config()
    config.more = ROLES
    for name, secret, more in keys:
        config.key(name, secret, **more)
    return config


@pytest.fixture
def service() -> str:
    """The name of the service's key: a new one in each test, since a limit outlives a configuration."""
    return f"webui-{next(NUMBERS)}"


@pytest.fixture
def world(world: World, service: str) -> World:
    tokens = {"issuer": "open-webui", "secret": SECRET}
    more = {"models": ["qwen", "embed"], "userTokens": tokens, "requestsPerMinute": 2}
    world.apply(config_with((service, f"sk-{service}", more)))
    until(lambda: world.pod.request("GET", "/v1/models", key=f"sk-{service}").status == 200, "the service's key")
    for engine in world.engines:
        engine.seen.clear()
    return world


def signed(email: str = "alice@example.com", secret: str = SECRET, **more: Any) -> str:
    now = time.time()
    claims = {"sub": "5f0c", "email": email, "name": "A", "role": "user", "iss": "open-webui", "iat": now, "exp": now + 300, **more}  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    return jws.serialize_compact({"alg": "HS256", "typ": "JWT"}, json.dumps(claims), OctKey.import_key(secret))


def ask(world: World, token: str | None, key: str, model: str = "qwen", **headers: str) -> Answer:
    sent = {**headers, **({HEADER: token} if token is not None else {})}
    return world.pod.request("POST", "/v1/chat/completions", {"model": model, "messages": []}, key, sent)


def test_limits_are_each_users_and_the_log_names_him(world: World, service: str) -> None:
    alice, bob = f"alice-{time.time()}@example.com", f"bob-{time.time()}@example.com"
    for user in (alice, bob):
        assert [ask(world, signed(user, jti=number), f"sk-{service}").status for number in range(3)] == [200, 200, 429]
    lines = until(lambda: [line for line in world.pod.access_log() if line.get("user") == bob], "the log line")
    assert {line["key"] for line in lines} == {service}


def test_the_list_of_models_is_the_same_for_every_user(world: World, service: str) -> None:
    lists = [
        world.pod.request("GET", "/v1/models", key=f"sk-{service}", headers=headers).json["data"]
        for headers in ({}, {HEADER: signed()}, {HEADER: signed("bob@example.com")})
    ]
    assert [model["id"] for model in lists[0]] == ["embed", "gpt-4o", "qwen"]
    assert lists[0] == lists[1] == lists[2]


@pytest.mark.parametrize(
    "token",
    [
        lambda: signed(secret="another secret of 32 bytes or more"),
        lambda: signed(iss="somebody"),
        lambda: signed(exp=time.time() - 100),
        lambda: signed(exp=None),
        lambda: signed(nbf=time.time() + 500),
        lambda: signed(email=None, sub=None),
        lambda: signed(email="x" * 300),
        lambda: "eyJhbGciOiJub25lIn0." + signed().split(".")[1] + ".",
        lambda: signed() + "x",
        lambda: "nonsense",
        lambda: signed() + ", " + signed("boss@example.com"),
    ],
    ids=["secret", "issuer", "expired", "no exp", "not yet", "nobody", "long", "none", "signature", "nonsense", "two"],
)  # fmt: skip
def test_a_user_that_is_not_proved_is_refused(world: World, service: str, token: Any) -> None:
    answer = ask(world, token(), f"sk-{service}")
    assert (answer.status, answer.error["code"]) == (401, "invalid_user_token")
    assert not world.engines[0].seen


def test_a_key_that_speaks_for_nobody_is_itself_whatever_the_headers_say(world: World, service: str) -> None:
    for token in (signed(), "nonsense"):
        assert ask(world, token, "sk-alice", **PLAIN).status == 200
    assert ask(world, None, f"sk-{service}", **PLAIN).status == 200
    assert ask(world, "", f"sk-{service}", **PLAIN).status == 200
    assert ask(world, signed(), "sk-wrong").status == 401
    for seen in world.engines[0].seen:
        assert not [name for name in seen.headers if name.startswith(("x-openwebui", "x-gw-"))]
    lines = until(lambda: [line for line in world.pod.access_log() if line.get("key") == service], "the log line")
    assert "user" not in lines[-1]


@pytest.mark.parametrize("groups", ["visitors", "others, visitors", "G%C3%A4ste", "llm-guest"])
def test_a_person_may_use_what_his_role_may_and_is_told_whom_to_ask(world: World, service: str, groups: str) -> None:
    key = f"sk-{service}"
    assert ask(world, signed(), key).status == 200
    answer = ask(world, signed(), key, **{GROUPS: groups})
    assert (answer.status, answer.error["code"]) == (403, "model_not_allowed")
    assert "alice@example.com may not use the model `qwen`: the role `guest`" in answer.error["message"]
    assert len(world.engines[0].seen) == 1
    assert not [name for name in world.engines[0].seen[0].headers if name.startswith(("x-openwebui", "x-gw-"))]

    def refused() -> list[tuple[str, str]]:
        lines = [line for line in world.pod.access_log() if line.get("reason") == "model_not_allowed"]
        return [(line["user"], line["model"]) for line in lines if line["key"] == service]

    assert until(refused, "the log line") == [("alice@example.com", "qwen")]


def test_who_waits_to_be_let_in_is_refused(world: World, service: str) -> None:
    answer = ask(world, signed(role="pending"), f"sk-{service}")
    assert (answer.status, answer.error["code"]) == (403, "no_role")
    assert not world.engines[0].seen


def test_groups_beside_no_good_token_say_nothing(world: World, service: str) -> None:
    assert ask(world, None, f"sk-{service}", **{GROUPS: "visitors"}).status == 200
    assert ask(world, signed(), "sk-alice", **{GROUPS: "visitors"}).status == 200
    assert ask(world, signed(), f"sk-{service}", **{"x-gw-user-groups": "visitors"}).status == 200


def test_the_header_that_the_policy_reads_cannot_be_sent(world: World, service: str) -> None:
    answer = ask(world, None, f"sk-{service}", **{"x-gw-user-token": "nonsense", "x_openwebui_user_jwt": "nonsense"})
    assert answer.status == 200


def test_a_key_that_only_speaks_for_users_is_refused_without_one(world: World, service: str) -> None:
    tokens = {"issuer": "open-webui", "secret": SECRET, "required": True}
    half = {"userTokens": {**tokens, "secret": ""}}
    world.apply(config_with((service, f"sk-{service}", {"userTokens": tokens}), ("half", "sk-half", half)))
    assert ask(world, signed(), f"sk-{service}").status == 200
    answer = ask(world, None, f"sk-{service}", **PLAIN)
    assert (answer.status, answer.error["code"]) == (401, "invalid_user_token")
    assert world.pod.request("GET", "/v1/models", key=f"sk-{service}").status == 401
    assert ask(world, signed(), "sk-half").status == 401
