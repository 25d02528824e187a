from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stoker.gateway.envoy.clusters import build_clusters, build_endpoints
from stoker.gateway.envoy.listener import build_bootstrap, build_listeners
from stoker.gateway.envoy.parts import CORS_FILTER, EARLY_FILTER, POLICY_FILTER, USAGE_FILTER
from stoker.gateway.envoy.routes import build_routes
from stoker.gateway.settings import Settings
from stoker.gateway.table import Routes, Site
from stoker.gateway.usage_filter import ADD_AND_COUNT, COUNT, OLLAMA, SOURCES

PORTAL = Site("gateway-portal", ("/", "/keys"), "/portal/")


def walk(node: Any) -> Iterator[Any]:
    yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(inner)


def host_of(settings: Settings, limit: int = 1000, **more: Any) -> dict[str, Any]:
    table = Routes(models=(), key_secrets=(), max_request_bytes=limit, token="", **more)
    (host,) = build_routes(settings, table)["resources"][0]["virtual_hosts"]
    return dict(host)


@pytest.fixture
def routes(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host_of(settings)["routes"]
    return found


def test_every_document_is_json(settings: Settings) -> None:
    for document in (
        build_bootstrap(settings),
        build_listeners(settings),
        host_of(settings, sites=(PORTAL,)),
        build_clusters(settings, ["site/team-a/pages"]),
        build_endpoints("engines", [("10.0.0.1", 8080)]),
    ):
        assert json.loads(json.dumps(document)) == document


def test_only_a_request_the_policy_has_routed_can_reach_an_engine(routes: list[dict[str, Any]]) -> None:
    for route in routes:
        if route.get("route", {}).get("cluster") == "engines":
            assert {"name": "x-gw-cluster", "string_match": {"exact": "engines"}} in route["match"]["headers"]
            assert "authorization" in route["request_headers_to_remove"]
        else:
            assert route.get("route", {"cluster": "answer"})["cluster"] == "answer"


def test_only_a_request_that_ends_at_the_gateway_is_spared_the_question(routes: list[dict[str, Any]]) -> None:
    disabled = [
        route for route in routes if route.get("typed_per_filter_config", {}).get(POLICY_FILTER, {}).get("disabled")
    ]
    assert ["direct_response" in route for route in disabled] == [True]
    for route in disabled:
        assert EARLY_FILTER not in route["typed_per_filter_config"], "a key is asked for even so"


def test_the_limit_of_a_body_is_in_the_routes_only(settings: Settings) -> None:
    text = json.dumps(host_of(settings, 12345))
    assert text.count("12345") == 1
    assert '"start": 12346' in text
    assert build_listeners(settings) == build_listeners(settings)


def test_clients_lose_our_headers_before_a_route_is_chosen(settings: Settings) -> None:
    manager = build_listeners(settings)["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (early,) = manager["early_header_mutation_extensions"]
    mutations = early["typed_config"]["mutations"]
    removed = [mutation["remove_on_match"]["key_matcher"] for mutation in mutations if "remove_on_match" in mutation]
    assert removed == [{"prefix": prefix} for prefix in ("x-gw-", "x-envoy-", "x-openwebui-")]
    # Between the removals: what a client calls by our name is gone, and what it may send is not yet.
    assert [index for index, mutation in enumerate(mutations) if "append" in mutation] == [2, 3]


def test_the_policy_fails_closed(settings: Settings) -> None:
    found = [
        node for node in walk(build_listeners(settings)) if isinstance(node, dict) and "failure_mode_allow" in node
    ]
    assert [node["failure_mode_allow"] for node in found] == [False, False, False]


def test_the_log_holds_no_header_of_the_client_but_the_request_id(settings: Settings) -> None:
    listener, _ = build_listeners(settings)["resources"]
    text = json.dumps(listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"])
    assert "%REQ(AUTHORIZATION)" not in text.upper()
    assert {word for word in text.split("%") if word.startswith("REQ(")} == {"REQ(:METHOD)", "REQ(X-REQUEST-ID):64"}


def test_endpoints_are_in_one_order_and_once_each() -> None:
    there = build_endpoints("c", [("10.0.0.2", 1), ("10.0.0.1", 1), ("10.0.0.2", 1)])
    assert there == build_endpoints("c", [("10.0.0.1", 1), ("10.0.0.2", 1)])
    assert len(there["resources"][0]["endpoints"][0]["lb_endpoints"]) == 2


def test_a_replica_that_the_policy_did_not_name_is_never_chosen(settings: Settings) -> None:
    engines = build_clusters(settings)["resources"][2]
    (policy,) = engines["load_balancing_policy"]["policies"]
    (fallback,) = policy["typed_extension_config"]["typed_config"]["fallback_policy"]["policies"]
    chosen = fallback["typed_extension_config"]["typed_config"]
    assert chosen["@type"].endswith(".Subset")
    assert chosen["fallback_policy"] == "NO_FALLBACK"
    assert "subset_selectors" not in chosen


def test_envoys_admin_interface_is_not_on_the_network(settings: Settings) -> None:
    assert build_bootstrap(settings)["admin"]["address"] == {
        "pipe": {"path": str(settings.admin_socket), "mode": 0o600}
    }


def test_what_envoy_says_itself_has_the_shape_of_the_api_that_was_asked(settings: Settings) -> None:
    replies = next(node["local_reply_config"] for node in walk(build_listeners(settings)) if isinstance(node, dict) and "local_reply_config" in node)  # fmt: skip
    refused_by_policy, *mappers = replies["mappers"]
    assert refused_by_policy["body_format_override"]["text_format_source"] == {"inline_string": "%LOCAL_REPLY_BODY%"}
    anthropic = [mapper for mapper in mappers if "/v1/messages" in json.dumps(mapper["filter"])]
    ollama = [mapper for mapper in mappers if '"/api/"' in json.dumps(mapper["filter"])]
    others = [mapper for mapper in mappers if mapper not in anthropic and mapper not in ollama]
    assert len(anthropic) == len(ollama) == len(others) + 1, "the same cases, and one for everything else"
    for shape in [*(mapper["body_format_override"] for mapper in others), replies["body_format"]]:
        assert set(shape["json_format"]["error"]) == {"message", "type", "param", "code"}
    for mapper in anthropic:
        assert mapper["body_format_override"]["json_format"].keys() == {"type", "error"}
    for mapper in ollama:
        assert isinstance(mapper["body_format_override"]["json_format"]["error"], str)


def test_web_pages_are_asked_without_a_key_and_see_none(settings: Settings) -> None:
    routes = host_of(settings, sites=(PORTAL,))["routes"]
    pages = [route for route in routes if route.get("route", {}).get("cluster", "").startswith("site/")]
    assert [route["match"] for route in pages] == [{"path": "/"}, {"path": "/keys"}, {"prefix": "/portal/"}]
    assert routes[: len(pages)] == pages
    for route in pages:
        assert route["typed_per_filter_config"].keys() == {EARLY_FILTER, POLICY_FILTER}
        assert {"authorization", "x-api-key"} <= set(route["request_headers_to_remove"])


def test_a_visitor_s_cookies_stay_with_the_pages(routes: list[dict[str, Any]]) -> None:
    engines = [route for route in routes if route.get("route", {}).get("cluster") == "engines"]
    assert engines
    assert all("cookie" in route["request_headers_to_remove"] for route in engines)


def test_browsers_are_let_in_from_the_listed_origins_only(settings: Settings) -> None:
    def policy(*origins: str) -> Any:
        return host_of(settings, origins=origins)["typed_per_filter_config"].get(CORS_FILTER)

    assert policy() is None
    assert policy("https://a.example", "http://b:3000")["allow_origin_string_match"] == [{"exact": "https://a.example"}, {"exact": "http://b:3000"}]  # fmt: skip
    assert policy("*")["allow_origin_string_match"] == [{"safe_regex": {"regex": ".*"}}]


def test_only_a_request_to_which_something_is_added_pays_for_a_look_at_its_body(routes: list[dict[str, Any]]) -> None:
    engines = [route for route in routes if route.get("route", {}).get("cluster") == "engines"]
    sources = [route["typed_per_filter_config"][USAGE_FILTER]["name"] for route in engines]
    assert sources == [OLLAMA, ADD_AND_COUNT, COUNT]
    assert {"name": "x-gw-add", "present_match": True} in engines[1]["match"]["headers"]
    assert "envoy_on_request" in SOURCES[ADD_AND_COUNT]
    assert "envoy_on_request" not in SOURCES[COUNT]
