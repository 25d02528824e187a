from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.config import parse_keys, parse_routes
from stoker.gateway.decide import choose_backend, decide
from stoker.gateway.decision import Decision, Request
from stoker.gateway.envoy.composite import retries, route_clusters
from stoker.gateway.routing import Route, find_model
from stoker.gateway.settings import Settings
from stoker.gateway.table import Table, build_table

CHAT = "/v1/chat/completions"
A, B, C = ({"model": "a", "weight": 3}, {"model": "b", "weight": 1}, {"model": "c"})
OUTSIDE = {"model": "big", "url": "https://api.example.com/openai/v1/", "key": 'sk-"x\\'}


def table(*backends: dict[str, Any], name: str = "smart") -> Table:
    models = [model("a"), model("b"), model("c"), model("off", stopped=True), model("embed", task="Embedding")]
    text = routes(*models, routes=[{"name": name, "backends": list(backends)}])
    return build_table(parse_routes(text), parse_keys(keys(key("alice", "sk-alice"))))


def route(*backends: dict[str, Any]) -> Route:
    made = table(*backends).by_name["smart"].route
    assert made is not None
    return made


def among(*ready: str) -> Any:
    return {f"team-a/{name}" for name in ready}.__contains__


def test_those_that_are_ready_share_by_weight() -> None:
    made = route(A, B, C)
    steps = [step / 100 for step in range(100)]
    assert Counter(made.pick(CHAT, among("a", "b", "c"), lambda step=step: step) for step in steps) == {0: 75, 1: 25}
    assert {made.pick(CHAT, among("b", "c"), lambda step=step: step) for step in steps} == {1}
    assert {made.pick(CHAT, among("c"), lambda step=step: step) for step in steps} == {2}
    # Nobody is there: whoever is asked for is woken, by weight.
    assert Counter(made.pick(CHAT, among(), lambda step=step: step) for step in steps) == {0: 75, 1: 25}
    assert made.pick(CHAT, among("a"), lambda: 1.0) == 0, "rounding"


def test_a_backend_outside_is_always_there_and_last_to_be_asked() -> None:
    made = route(OUTSIDE, A)
    assert [backend.model for backend in made.backends] == ["a", "big"]
    assert (made.pick(CHAT, among("a")), made.pick(CHAT, among())) == (0, 1)
    assert made.tries(0) == [0, 1]


def test_only_who_serves_the_path_is_asked() -> None:
    made = route(A, {"model": "embed", "weight": 9})
    assert {made.pick(CHAT, among("a", "embed")) for _ in range(50)} == {0}
    assert made.pick("/v1/embeddings", among()) == 1
    assert made.pick("/v1/rerank", among()) is None


def test_what_is_not_there_is_left_out() -> None:
    assert [backend.model for backend in route(A, {"model": "gone", "weight": 1}, {"model": "off"}).backends] == ["a"]
    assert "smart" not in table({"model": "gone", "weight": 1}).by_name


def test_envoy_tries_what_has_replicas_and_the_first_twice_where_there_is_nobody_else(settings: Settings) -> None:
    made = route(A, B, C, OUTSIDE)
    names = {
        cluster["name"]: [entry["name"] for entry in cluster["cluster_type"]["typed_config"]["clusters"]]
        for cluster in route_clusters(settings, [made], among("a").__self__)
        if "cluster_type" in cluster
    }
    assert names["route/smart/0"] == ["team-a/a", "external/smart/3"]
    assert names["route/smart/1"] == ["team-a/b", "external/smart/3"], "the first may get replicas in a moment"
    assert names["route/smart/3"] == ["external/smart/3", "external/smart/3"]
    assert retries(made, 0, among("a", "c").__self__)["num_retries"] == 2
    assert 503 in retries(made, 0, set())["retriable_status_codes"]
    assert "retriable_status_codes" not in retries(made, 3, set()), "nobody is asked twice who said 503"


def test_a_key_for_outside_cannot_end_the_program_it_stands_in(settings: Settings) -> None:
    text = json.dumps(route_clusters(settings, [route(A, OUTSIDE)], set()))
    assert "sk-\\\\034x\\\\092" in text
    tls = next(
        cluster for cluster in route_clusters(settings, [route(OUTSIDE)], set()) if "transport_socket" in cluster
    )
    assert tls["transport_socket"]["typed_config"]["sni"] == "api.example.com"


def test_a_chosen_request_is_that_deployments_and_says_where_its_name_stands() -> None:
    found = table(A, C)
    body = b'{"messages": [], "model": "smart"}'
    request = Request("POST", CHAT, "Bearer sk-alice", body)
    decision: Decision = decide(found, request, 0.0)
    assert decision.route is not None
    chosen = choose_backend(decision, decision.route, request, among("c"))
    assert (chosen.cluster, chosen.via, chosen.model) == ("team-a/c", "route/smart/1", "smart")
    start, length = map(int, chosen.model_at.split(":"))
    assert body[start : start + length] == b"smart"
    assert decide(found, request, 0.0) is decision, "what is kept is the route, not the choice"
    assert decision.cluster == "route/smart"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", 'q"', "ü"]), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["a", "b", 'mo"del', "ü", "models"]), JSON, max_size=4), st.text(), st.integers(0, 4), st.sampled_from([None, 2]))  # fmt: skip
def test_the_name_is_found_wherever_it_stands(others: dict[str, Any], name: str, at: int, indent: int | None) -> None:
    members = list(others.items())
    members.insert(at, ("model", name))
    for text in (
        json.dumps(dict(members), indent=indent),
        json.dumps(dict(members), indent=indent, ensure_ascii=False),
    ):
        if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
            continue
        body = text.encode()
        place = find_model(body)
        assert place is not None
        start, length = place
        assert json.loads(b'"' + body[start : start + length] + b'"') == name
        changed = json.loads(body[:start] + b"new" + body[start + length :])
        assert changed == {**dict(members), "model": "new"}


@pytest.mark.parametrize("body", [b"[]", b'"model"', b"{}", b'{"a": {"model": "x"}}', b'{"model": 1}'])
def test_what_names_no_model_has_no_place_for_it(body: bytes) -> None:
    assert find_model(body) is None
