"""People for whom a service calls: which role they have here, what it lets them use, and whose limits count."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OctKey
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.bounds import Bounds
from stoker.gateway.callers import find_caller, read_groups
from stoker.gateway.config import ConfigRejected, parse_keys, parse_routes
from stoker.gateway.decide import decide
from stoker.gateway.decision import Decision, Request
from stoker.gateway.table import Key, Table, build_table

NOW = 1_700_000_000.0
SECRET = "what the service and the gateway know"
CHAT = "/v1/chat/completions"
ROLES = [
    {"name": "admin", "models": ["*"]},
    {"name": "user", "models": ["small*"], "requestsPerMinute": 10},
    {"name": "research", "models": ["big*"], "users": ["rosa@example.com"], "groups": ["lab", "Grüne, alle"]},
    {"name": "guest", "models": ["small-1"], "requestsPerMinute": 2},
]
ROLE_MAP = [{"value": "llm-guest", "role": "guest"}, {"value": "llm-admin", "role": "admin"}]


def table(**service: Any) -> Table:
    tokens = {"issuer": "open-webui", "secret": SECRET, "required": True}
    entry = key("webui", "sk-webui", userTokens=tokens, **service)
    models = [model(name) for name in ("small-1", "small-2", "big", "secret")]
    text = routes(*models, roles=ROLES, roleMap=ROLE_MAP, requestsPerMinute=60)
    return build_table(parse_routes(text), parse_keys(keys(entry)))


def asked(method: str = "POST", target: str = CHAT, name: str = "small-1", groups: str = "", **claims: Any) -> Request:
    said = {"sub": "5f0c", "email": "alice@example.com", "role": "user", "iss": "open-webui", "exp": NOW + 300, **claims}  # fmt: skip
    said = {claim: value for claim, value in said.items() if value is not None}
    token = jws.serialize_compact({"alg": "HS256"}, json.dumps(said), OctKey.import_key(SECRET))
    body = json.dumps({"model": name}).encode()
    return Request(method, target, "Bearer sk-webui", body, user_token=token, user_groups=groups)


def person(table: Table, **more: Any) -> Key:
    found = find_caller(table, asked(**more), NOW)
    assert isinstance(found, Key), found
    return found


def ask(table: Table, **more: Any) -> Decision:
    return decide(table, asked(**more), NOW)


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ({}, "user"),
        ({"role": "admin"}, "admin"),
        ({"groups": "lab"}, "research"),
        ({"groups": "others, lab"}, "research"),
        ({"email": "rosa@example.com", "role": "admin"}, "research"),
        ({"groups": "llm-guest", "role": "admin"}, "guest"),
        ({"groups": "lab,llm-admin,llm-guest"}, "guest"),
        ({"groups": "nobody knows,"}, "user"),
    ],
)
def test_a_persons_role_is_what_it_would_be_by_his_own_token_and_else_what_the_service_says(
    said: dict[str, Any], role: str
) -> None:
    assert person(table(), **said).role == role


def test_groups_in_the_signed_token_win_over_those_beside_it() -> None:
    def role(said: Any) -> str:
        token = asked(groups="llm-admin")
        claims = {"email": "a@example.com", "role": "user", "groups": said, "iss": "open-webui", "exp": NOW + 300}
        token.user_token = jws.serialize_compact({"alg": "HS256"}, json.dumps(claims), OctKey.import_key(SECRET))
        found = find_caller(table(), token, NOW)
        assert isinstance(found, Key)
        return found.role

    assert role(["lab"]) == "research"
    assert role([]) == "user"


def test_groups_come_encoded_with_commas_between_them() -> None:
    assert read_groups("a, b%20c ,Gr%C3%BCne,,") == {"a", "b c", "Grüne"}
    assert read_groups("") == frozenset()
    assert len(read_groups(",".join(map(str, range(5000))))) == 1000


def test_a_model_that_his_role_lacks_is_refused_with_a_word_about_whom_to_ask() -> None:
    decision = ask(table(), name="big")
    assert decision.problem
    assert (decision.problem.status, decision.problem.code) == (403, "model_not_allowed")
    for word in ("alice@example.com", "`big`", "`user`", "ask whoever runs this gateway"):
        assert word in decision.problem.message
    assert (decision.user, decision.key, decision.model, decision.cluster) == ("alice@example.com", "webui", "big", "")
    assert ask(table(), name="big", groups="lab").reason == "allowed"


def test_a_model_that_the_service_lacks_is_not_there_for_any_of_its_people() -> None:
    narrow = table(models=["small*"])
    for said in ({}, {"role": "admin"}):
        decision = ask(narrow, name="secret", **said)
        assert decision.problem
        assert (decision.problem.status, decision.problem.code) == (404, "model_not_found")
    assert ask(narrow, name="small-2", role="admin").reason == "allowed"


def test_the_services_own_role_bounds_its_people_too() -> None:
    bounded = table(role="user")
    assert ask(bounded, name="big", role="admin").reason == "model_not_found"
    assert ask(bounded, name="small-2", role="admin").reason == "allowed"


def test_limits_are_those_of_his_role_else_the_gateways_unless_the_services_key_says() -> None:
    assert person(table()).bounds == Bounds(requests=10)
    assert person(table(), role="admin").bounds == Bounds(requests=60)
    assert person(table(requestsPerMinute=5)).bounds == Bounds(requests=5)
    assert person(table(role="guest"), role="admin").bounds == Bounds(requests=60)


@pytest.mark.parametrize("role", ["pending", "Admin", "admin ", "root"])
def test_who_has_no_role_of_the_gateways_is_refused(role: str) -> None:
    decision = ask(table(), role=role)
    assert decision.problem
    assert (decision.problem.status, decision.problem.code) == (403, "no_role")
    assert "alice@example.com" in decision.problem.message
    assert "spec.roles[].subjects" in decision.problem.message


def test_a_service_that_says_nothing_of_roles_calls_with_what_its_key_may() -> None:
    found = person(table(role="guest"), role=None)
    assert (found.role, found.bounds) == ("guest", Bounds(requests=2))
    assert ask(table(), role=None, name="secret").reason == "allowed"


def test_a_role_that_is_no_text_is_not_believed() -> None:
    decision = ask(table(), role=["admin"])
    assert decision.problem
    assert decision.problem.code == "invalid_user_token"


def test_the_list_of_models_is_the_services_for_it_asks_once_for_all() -> None:
    for target in ("/v1/models", "/v1/models/big", "/v1/usage"):
        guest, admin = (ask(table(), method="GET", target=target, role=role) for role in ("guest", "admin"))
        assert asdict(guest) == asdict(admin)
        assert guest.problem is None


def test_what_is_decided_for_one_is_not_for_another_of_the_same_service() -> None:
    shared = table()
    assert ask(shared, name="big", groups="lab").reason == "allowed"
    assert ask(shared, name="big").reason == "model_not_allowed"
    assert ask(shared, name="big", groups="lab").reason == "allowed"


@pytest.mark.parametrize("roles", [[{"value": "x"}], [{"value": "x", "role": 1}], ["x"], [{"value": "", "role": "x"}]])
def test_half_a_map_of_roles_is_refused_whole(roles: Any) -> None:
    with pytest.raises(ConfigRejected, match="roleMap"):
        parse_routes(routes(roleMap=roles))


def test_however_an_address_is_written_it_is_one_person_with_one_role_and_one_count() -> None:
    roles = [{"name": "research", "models": ["*"], "users": ["Rosa@Example.com"]}]
    tokens = {"issuer": "open-webui", "secret": SECRET, "required": True}
    text = routes(model("small-1"), roles=roles, perUser={"requestsPerMinute": 5})
    owned = [key("laptop", "sk-laptop", owner="ROSA@example.com"), key("webui", "sk-webui", userTokens=tokens)]
    found = build_table(parse_routes(text), parse_keys(keys(*owned)))
    chatting = person(found, email="rosa@EXAMPLE.com", role=None)
    by_key = find_caller(found, Request("POST", CHAT, "Bearer sk-laptop", b""), NOW)
    assert isinstance(by_key, Key)
    assert (chatting.role, chatting.user, by_key.user) == ("research", "rosa@example.com", "rosa@example.com")
    one, other = (found.scopes(who, found.by_name["small-1"]) for who in (chatting, by_key))
    assert one[-1] == other[-1], "the limit of the person"
