"""Envoy's routes: how the policy is asked about a request, and where it goes after that."""

from __future__ import annotations

from collections.abc import Container

from stoker.gateway.decision import ANSWER_CLUSTER, ENGINES_CLUSTER
from stoker.gateway.endpoints import MOST_TRIES, OLLAMA_PREFIX
from stoker.gateway.envoy.clusters import site_cluster
from stoker.gateway.envoy.composite import retries
from stoker.gateway.envoy.parts import (
    API,
    CORS_FILTER,
    EARLY_FILTER,
    ENGINE_KEY_HEADER,
    EXTENSION,
    LAST_HEADER,
    POLICY_FILTER,
    ROUTES_NAME,
    STREAM_IDLE,
    USAGE_FILTER,
    USER_HEADERS,
    Document,
    extension,
    per_route,
)
from stoker.gateway.settings import Settings
from stoker.gateway.table import Routes, Site
from stoker.gateway.usage_filter import ADD_AND_COUNT, COUNT, OLLAMA

EARLY_FROM_BYTES = 64 << 10
"""Bodies from this size on, and of unknown size, are read only after the caller's key was found good."""
ENGINE_AUTHORIZATION = {
    "header": {"key": "authorization", "value": f"%REQ({ENGINE_KEY_HEADER})%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
CONNECTION = {
    "header": {"key": "connection", "value": f"%REQ({LAST_HEADER})%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
NOT_FOR_ENGINES = [
    "authorization",
    "x-api-key",
    "proxy-authorization",
    # llama.cpp goes on generating for a conversation whose client has left.
    "x-conversation-id",
    # An answer that is compressed could not be counted.
    "accept-encoding",
    # Of the web pages behind the same address.
    "cookie",
    "x-gw-cluster",
    "x-gw-key",
    "x-gw-held",
    *USER_HEADERS,
    "x-gw-caller",
    "x-gw-role",
    "x-envoy-external-address",
    "x-envoy-internal",
]
# A stream that has to be asked for its usage is changed on its way to the engine, too.
COUNTED: tuple[tuple[list[Document], str], ...] = (
    ([{"name": ":path", "string_match": {"prefix": OLLAMA_PREFIX}}], OLLAMA),
    ([{"name": "x-gw-add", "present_match": True}], ADD_AND_COUNT),
    ([], COUNT),
)


def build_routes(settings: Settings, table: Routes, ready: Container[str] = ()) -> Document:
    """Requests that the policy has sent somewhere, and before them the ones it has not seen yet.

    A request matches twice: first without x-gw-cluster, which decides how the policy is asked; after its answer with it. One that
    comes out of the policy without the header ends at the relay, which refuses it; it never reaches an engine.
    """
    max_request_bytes = table.max_request_bytes
    relay = {"cluster": ANSWER_CLUSTER, "timeout": "60s", "idle_timeout": "60s"}
    engine = {
        "cluster": ENGINES_CLUSTER,
        "timeout": "0s",
        "idle_timeout": STREAM_IDLE,
        "retry_policy": {
            # Only before the first byte, and where no engine works on the request; each time a different endpoint: the policy says
            # which, and how often, for Envoy would go round again.
            "retry_on": "connect-failure,refused-stream,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": MOST_TRIES - 1,
            "host_selection_retry_max_attempts": 5,
            "retry_host_predicate": [
                extension(
                    "envoy.retry_host_predicates.previous_hosts", "retry.host.previous_hosts.v3.PreviousHostsPredicate"
                )
            ],
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        },
    }
    not_early = {EARLY_FILTER: per_route(disabled=True)}
    routed = _header("x-gw-cluster", string_match={"exact": ENGINES_CLUSTER})
    answered = _header("x-gw-cluster", string_match={"exact": ANSWER_CLUSTER})
    routes = [
        *(route for site in table.sites for route in _site_routes(settings, site)),
        {
            # For the relay to keep the caller company: it comes back with the request as it was, key and all.
            "match": {"prefix": "/", "headers": [answered, _header("x-gw-held", present_match=True)]},
            "route": {"cluster": ANSWER_CLUSTER, "timeout": "0s", "idle_timeout": STREAM_IDLE},
        },
        {
            "match": {"prefix": "/", "headers": [answered]},
            "route": relay,
            "request_headers_to_remove": ["authorization", "x-api-key"],
        },
        *(
            _to_engine(
                source,
                {**engine, "cluster": named.cluster(index), "retry_policy": retries(named, index, ready)},
                [_header("x-gw-cluster", string_match={"exact": named.cluster(index)}), *more],
                # How often another replica may be tried, which the policy says, is not how many backends there are.
                "x-envoy-max-retries",
            )
            for named in table.routes
            for index in range(len(named.backends))
            for more, source in COUNTED
        ),
        *(_to_engine(source, engine, [routed, *more]) for more, source in COUNTED),
        {
            "match": {"prefix": "/", "headers": [_header(":method", string_match={"exact": "GET"})]},
            "route": relay,
            "typed_per_filter_config": {
                **not_early,
                POLICY_FILTER: per_route(check_settings={"disable_request_body_buffering": True}),
            },
        },
        {
            "match": {"prefix": "/", "headers": [_length(0, EARLY_FROM_BYTES)]},
            "route": relay,
            "typed_per_filter_config": not_early,
        },
        {
            # Known to be too large: refused without reading it, but only to a caller with a key.
            "match": {"prefix": "/", "headers": [_length(max_request_bytes + 1, 1 << 62)]},
            "direct_response": {"status": 413},
            "typed_per_filter_config": {POLICY_FILTER: per_route(disabled=True)},
        },
        {"match": {"prefix": "/"}, "route": relay},
    ]
    host: Document = {
        "name": "all",
        "domains": ["*"],
        "routes": routes,
        # After the route, which still needs them.
        "request_headers_to_remove": [ENGINE_KEY_HEADER, LAST_HEADER],
        "typed_per_filter_config": {
            POLICY_FILTER: per_route(check_settings={"with_request_body": {"max_request_bytes": max_request_bytes}})
        },
    }
    if allowed := [_origin(origin) for origin in table.origins]:
        host["typed_per_filter_config"][CORS_FILTER] = _cors(allowed)
    return {"resources": [{"@type": API + "route.v3.RouteConfiguration", "name": ROUTES_NAME, "virtual_hosts": [host]}]}


def _site_routes(settings: Settings, site: Site) -> list[Document]:
    """Web pages look after their visitors themselves: no key is asked for, and none is passed on to them."""
    route = {
        "route": {"cluster": site_cluster(settings.namespace, site), "timeout": "60s", "idle_timeout": "60s"},
        "request_headers_to_remove": ["authorization", "x-api-key"],
        "typed_per_filter_config": {name: per_route(disabled=True) for name in (EARLY_FILTER, POLICY_FILTER)},
    }
    return [*({"match": {"path": path}, **route} for path in site.paths), {"match": {"prefix": site.prefix}, **route}]


def _to_engine(source: str, route: Document, headers: list[Document], *removed: str) -> Document:
    return {
        "match": {"prefix": "/", "headers": headers},
        "route": route,
        # Of one route what is removed goes first, and a value that is empty is not added.
        "request_headers_to_remove": [*NOT_FOR_ENGINES, *removed],
        "request_headers_to_add": [ENGINE_AUTHORIZATION, CONNECTION],
        "typed_per_filter_config": {
            USAGE_FILTER: {"@type": EXTENSION + "filters.http.lua.v3.LuaPerRoute", "name": source}
        },
    }


def _cors(allowed: list[Document]) -> Document:
    """Pages of these origins may call and read what an API client needs; no cookies, for none are looked at."""
    return {
        "@type": EXTENSION + "filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": allowed,
        "allow_methods": "GET, POST",
        # A browser does not take * for Authorization. The others are what the clients' libraries add.
        "allow_headers": "authorization, *",
        "expose_headers": "x-request-id, retry-after, *",
        "max_age": "600",
        # Every other preflight, and one for a page from elsewhere, goes to the policy, which refuses it like any call without a key.
        "forward_not_matching_preflights": True,
    }


def _origin(origin: str) -> Document:
    return {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin}


def _header(name: str, **match: object) -> Document:
    return {"name": name, **match}


def _length(start: int, end: int) -> Document:
    """Matches a content-length from start up to, but not including, end."""
    return {"name": "content-length", "range_match": {"start": start, "end": end}}
