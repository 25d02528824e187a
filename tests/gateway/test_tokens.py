"""JSON Web Tokens at a real gateway, issued by a fake identity provider, in front of a fake engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway.certificates import make_certificate, server_context
from gateway.conftest import World, first_config
from gateway.fake_issuer import FakeIssuer
from gateway.pod import until
from joserfc.jwk import OctKey, RSAKey

SECRET = "a secret that is known to both sides"
ROLES = [
    {"name": "reader", "models": ["qwen", "emb*"], "requestsPerMinute": 1000},
    {"name": "slow", "models": ["*"], "requestsPerMinute": 2},
    {"name": "admin", "models": ["*"]},
    {"name": "named", "models": ["embed"], "users": ["zoe"], "groups": ["guests"]},
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    made = FakeIssuer()
    made.add_key("first")
    yield made
    made.close()


@pytest.fixture
def trusting(world: World, issuer: FakeIssuer) -> World:
    apply(world, issuer)
    until(lambda: world.pod.request("GET", "/v1/models", key=issuer.token()).status == 200, "a token is let in")
    for engine in world.engines:
        engine.seen.clear()
    return world


def apply(world: World, issuer: FakeIssuer) -> None:
    config = first_config()
    shared = {"issuer": "shared", "audiences": ["gateway"], "secret": SECRET, "defaultRole": "slow"}
    lost = {"issuer": "lost", "audiences": ["gateway"], "secret": SECRET, "defaultRole": "gone"}
    config.more = {"roles": ROLES, "jwt": [issuer.route(), shared, lost, {"issuer": "half"}]}
    world.apply(config)


def hs256(issuer: FakeIssuer, user: str, name: str = "shared") -> str:
    return issuer.token(user, key=OctKey.import_key(SECRET), alg="HS256", iss=name)


def test_a_token_opens_what_its_role_may_use(trusting: World, issuer: FakeIssuer) -> None:
    listed = trusting.pod.request("GET", "/v1/models", key=issuer.token()).json["data"]
    assert [model["id"] for model in listed] == ["embed", "gpt-4o", "qwen"]
    assert trusting.pod.chat(key=issuer.token()).headers["x-ratelimit-limit-requests"] == "1000"
    assert trusting.pod.chat("asleep", key=issuer.token()).error["code"] == "model_not_found"
    assert trusting.pod.chat("asleep", key=issuer.token(groups=["boss"])).error["code"] == "model_stopped"
    seen = trusting.engines[0].seen
    assert len(seen) == 1
    assert "authorization" not in seen[0].headers
    assert not [name for name in seen[0].headers if name.startswith("x-gw-")]
    line = until(
        lambda: [line for line in trusting.pod.access_log() if line.get("key") == "jwt:alice"], "the log line"
    )[-1]
    assert line["key"] == "jwt:alice"


@pytest.mark.parametrize("defect", ["expired", "audience", "issuer", "signature", "none", "confusion", "unknown kid"])
def test_a_bad_token_is_401_and_reaches_nothing(trusting: World, issuer: FakeIssuer, defect: str) -> None:
    public = OctKey.import_key(json.dumps(issuer.keys["first"].as_dict(private=False)))
    tokens = {
        "expired": lambda: issuer.token(exp=time.time() - 100),
        "audience": lambda: issuer.token(aud="somebody else"),
        "issuer": lambda: issuer.token(iss="https://evil.example"),
        "signature": lambda: issuer.token(key=RSAKey.generate_key(2048)),
        "none": lambda: "eyJhbGciOiJub25lIn0." + issuer.token().split(".")[1] + ".",
        "confusion": lambda: issuer.token(key=public, alg="HS256"),
        "unknown kid": lambda: issuer.token(kid="nobody", key=issuer.keys["first"]),
    }
    answer = trusting.pod.chat(key=tokens[defect]())
    assert answer.status == 401
    assert answer.error["code"] in ("invalid_token", "unknown_signing_key", "invalid_api_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not trusting.engines[0].seen


def test_a_good_token_without_a_role_is_403(trusting: World, issuer: FakeIssuer) -> None:
    for token in (issuer.token(groups=["nobody"]), hs256(issuer, "alice", "lost")):
        answer = trusting.pod.chat(key=token)
        assert (answer.status, answer.error["code"]) == (403, "no_role")
    assert not trusting.engines[0].seen


def test_a_token_ends_while_the_gateway_remembers_it(trusting: World, issuer: FakeIssuer) -> None:
    # A minute of clock skew is forgiven.
    for left in (3, 20):
        ends = int(time.time()) + left
        token = issuer.token(exp=ends - 60)
        status = trusting.pod.request("GET", "/v1/models", key=token).status
        # On a slow machine it had no time left.
        if status == 200:
            break
        assert time.time() >= ends
    assert status == 200
    until(lambda: trusting.pod.request("GET", "/v1/models", key=token).status == 401, "its end")


def test_a_limit_is_the_users_whatever_token_he_brings(trusting: World, issuer: FakeIssuer) -> None:
    user = f"user-{time.time()}"
    statuses = [trusting.pod.chat(key=hs256(issuer, user)).status for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert trusting.pod.chat(key=hs256(issuer, user + "x")).status == 200


def test_keys_still_open_the_gateway(trusting: World) -> None:
    assert trusting.pod.chat().status == 200
    assert trusting.pod.request("GET", "/v1/models", key="sk.with.dots").status == 401


def test_a_new_signing_key_is_fetched_when_a_token_names_it_and_strangers_cannot_make_it_fetch_more(
    trusting: World, issuer: FakeIssuer
) -> None:
    asked, began = issuer.asked, time.monotonic()
    issuer.add_key("second")
    # At most one fetch in ten seconds.
    until(lambda: trusting.pod.chat(key=issuer.token(kid="second")).status == 200, "the new key")
    for number in range(300):
        trusting.pod.request("GET", "/v1/models", key=issuer.token(kid=f"made-up-{number}", key=issuer.keys["first"]))
    assert issuer.asked - asked <= (time.monotonic() - began) / 10 + 2
    assert trusting.pod.chat(key=issuer.token()).status == 200


def test_with_the_issuer_away_tokens_are_checked_on_also_by_processes_that_start_anew(
    trusting: World, issuer: FakeIssuer
) -> None:
    issuer.stop()
    try:
        for process in ("relay", "policy"):
            trusting.pod.kill(process)
            until(lambda: trusting.pod.chat(key=issuer.token()).status == 200, f"the next {process}")
    finally:
        issuer.start()


def test_a_role_may_name_its_users_and_groups_and_the_issuers_own_map_goes_first(
    trusting: World, issuer: FakeIssuer
) -> None:
    def listed(**more: object) -> set[str]:
        answer = trusting.pod.request("GET", "/v1/models", key=issuer.token(**more))
        return {model["id"] for model in answer.json.get("data", ())}

    assert listed(groups=["guests"]) == {"embed"}
    assert listed(user="zoe", groups=[]) == {"embed"}
    assert listed(user="zoe", groups=["staff"]) == {"embed", "gpt-4o", "qwen"}, "roleMap"
    assert listed(user="zoe2", groups=[]) == set()
    # A default is the last resort.
    assert trusting.pod.chat(key=hs256(issuer, "zoe")).error["code"] == "model_not_found"
    assert trusting.pod.chat(key=hs256(issuer, "yves")).status == 200


def test_keys_are_found_by_discovery(trusting: World, issuer: FakeIssuer) -> None:
    config = first_config()
    config.more = {"roles": ROLES, "jwt": [issuer.route(jwksUri=None, discovery=True)]}
    trusting.apply(config)
    until(lambda: trusting.pod.chat(key=issuer.token()).status == 200, "keys by discovery")
    assert trusting.pod.chat(key=issuer.token(key=RSAKey.generate_key(2048))).status == 401


def test_an_issuer_under_an_authority_of_ones_own_is_heard_by_discovery_and_introspection(
    world: World, tmp_path: Path
) -> None:
    chain, key = make_certificate("localhost")
    issuer = FakeIssuer(server_context(chain, key, tmp_path))
    issuer.add_key("first")
    issuer.opaque = {"opaque-alice": {"active": True, "sub": "alice", "groups": ["staff"], "exp": time.time() + 600}}
    asked = {"url": f"{issuer.name}/introspect", "clientId": "gateway", "clientSecret": "client secret"}
    found = issuer.route(jwksUri=None, discovery=True, claims={"email": "email"})
    config = first_config()
    config.more = {"roles": [*ROLES, {"name": "mail", "models": ["qwen"], "users": ["AMELIA@example.com"]}], "jwt": [{**found, "roleMap": []}]}  # fmt: skip
    try:
        config.more |= {"introspection": {**asked, "defaultRole": "reader"}, "authorities": chain.decode()}
        world.apply(config)
        named = issuer.token(email="Amelia@Example.com")
        until(lambda: world.pod.chat(key=named).status == 200, "the keys are fetched")
        assert world.pod.chat(key=issuer.token(email="amelia@example.com", email_verified=False)).status == 403
        assert world.pod.chat(key="opaque-alice").status == 200
        line = until(lambda: [line for line in world.pod.access_log() if line.get("user") == "amelia@example.com"], "the log")  # fmt: skip
        assert line[0]["caller"].endswith("%20alice") or line[0]["caller"].endswith(" alice")
    finally:
        issuer.close()
