"""Envoy's documents: bootstrap, listener, routes, clusters, endpoints. Pure: settings and models in, JSON-ready objects out.

Written for Envoy 1.40; every choice that is not obvious was tried on it. What may change while a gateway runs is in the routes,
clusters and endpoints: the listener stays as it is, because replacing it would end long streams.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from stoker.gateway import access_log
from stoker.gateway.config import Routes, Site
from stoker.gateway.decide import ALLOWED, ANSWER_CLUSTER, ENGINES_CLUSTER
from stoker.gateway.endpoints import MOST_TRIES
from stoker.gateway.envoy_routes import MODEL_AT, retries, route_clusters
from stoker.gateway.envoy_stats import stats_log
from stoker.gateway.local_replies import local_reply_config
from stoker.gateway.routing import Route
from stoker.gateway.settings import Settings
from stoker.gateway.usage_filter import ADD_AND_COUNT, COUNT, METADATA, SOURCES, TOKENS

Document = dict[str, Any]

API = "type.googleapis.com/envoy.config."
EXTENSION = "type.googleapis.com/envoy.extensions."
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

ROUTES_NAME = "gateway"
CERTIFICATE_NAME = "gateway"
STAT_PREFIX = "gw"
EARLY_FILTER = "stoker.early"
POLICY_FILTER = "stoker.policy"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
"""Where the policy's x-gw-* headers stand in a request's metadata."""
KEPT = ("reason", "model", "model-at", "pool", "endpoint", "key", "user", "caller", "role", "ticket")
"""Of them, what the log tells, what chooses the endpoint, and what a route needs to write another name."""
CORS_FILTER = "envoy.filters.http.cors"
USAGE_FILTER = "envoy.filters.http.lua"
POLICY_CLUSTER = "policy"

EARLY_FROM_BYTES = 64 << 10
"""Bodies from this size on, and of unknown size, are read only after the caller's key was found good."""
MOST_REQUESTS = 100_000
STREAM_IDLE = "3660s"
"""Longer than a request may be held (LONGEST_HOLD_SECONDS), as every time limit below that a held request meets."""
HOLD_TIMEOUT = STREAM_IDLE
# llama.cpp closes an idle connection after 5 s, others later: ours are gone before, or a request could meet a closing one.
UPSTREAM_IDLE = "3s"
EARLY_TIMEOUT = "5s"
USER_TOKEN_HEADER = "x-gw-user-token"
"""Under this name the policy sees X-OpenWebUI-User-Jwt; that and everything else that begins like it goes no further."""
ENGINE_KEY_HEADER = "x-gw-engine-key"
"""From the policy, for engines that ask for a key; towards the engine it is called Authorization."""
ENGINE_AUTHORIZATION = {
    "header": {"key": "authorization", "value": f"%REQ({ENGINE_KEY_HEADER})%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}
ASKED_WITH = (
    "authorization",
    "x-api-key",
    "content-type",
    USER_TOKEN_HEADER,
    "x-session-affinity",
    "x-session-id",
)
"""Headers that the policy sees."""
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
    "x-gw-model",
    "x-gw-reason",
    "x-gw-endpoint",
    "x-gw-held",
    MODEL_AT,
    "x-gw-pool",
    "x-gw-user",
    USER_TOKEN_HEADER,
    "x-gw-caller",
    "x-gw-role",
    "x-gw-ticket",
    "x-envoy-external-address",
    "x-envoy-internal",
]


# A stream that has to be asked for its usage is changed on its way to the engine, too.
COUNTED: tuple[tuple[list[Document], str], ...] = (
    ([{"name": "x-gw-add", "present_match": True}], ADD_AND_COUNT),
    ([], COUNT),
)


def build_bootstrap(settings: Settings) -> Document:
    """What Envoy is started with: where everything else lies, the admin socket, and how much memory it may take."""
    return {
        "node": {"id": settings.name, "cluster": f"{settings.namespace}/{settings.name}"},
        "admin": {"address": {"pipe": {"path": str(settings.admin_socket), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _from_file(settings.xds / "lds.json"),
            "cds_config": _from_file(settings.xds / "cds.json"),
        },
        "overload_manager": _overload_manager(settings.envoy_heap_bytes),
    }


def build_listeners(settings: Settings, *, tls: bool = False) -> Document:
    """One listener for HTTP/1.1 and HTTP/2, with TLS or without; and one for the relay, which comes back with what it was given."""
    chain: Document = {"filters": [_manager(settings, internal=False)]}
    if tls:
        chain["transport_socket"] = _tls_socket(settings)
    openai = _address(settings.listen_address, settings.listen_port)
    internal = {"pipe": {"path": str(settings.internal_socket), "mode": 0o600}}
    return {
        "resources": [
            _listener("openai", openai, chain),
            _listener("internal", internal, {"filters": [_manager(settings, internal=True)]}),
        ]
    }


def _listener(name: str, address: Document, chain: Document) -> Document:
    return {
        "@type": API + "listener.v3.Listener",
        "name": name,
        "address": address,
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [chain],
    }


def _manager(settings: Settings, *, internal: bool) -> Document:
    """How requests are taken; internal ones have been taken once already, and bring headers of ours along."""
    manager = {
        "stat_prefix": "internal" if internal else STAT_PREFIX,
        "codec_type": "AUTO",
        "rds": {"route_config_name": ROUTES_NAME, "config_source": _from_file(settings.xds / "rds.json")},
        "http_filters": [
            # Off, and free of cost, where no origins are configured: routes switch it on. In front of the policy, for a browser asks
            # before it sends a key.
            {**_extension(CORS_FILTER, "filters.http.cors.v3.Cors"), "disabled": True},
            *([] if internal else [_policy_filter(EARLY_FILTER, settings, "early")]),
            _policy_filter(POLICY_FILTER, settings, "internal" if internal else ""),
            # Behind the policy, so that it adds what the policy says; and next to the engine, so that it sees answers as they come.
            # By name, so that it runs only where a route says so.
            _extension(
                USAGE_FILTER,
                "filters.http.lua.v3.Lua",
                source_codes={name: {"inline_string": source} for name, source in SOURCES.items()},
            ),
            _extension("envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True),
        ],
        # Before anything else sees the request, route selection included. By prefix, so that no such header can be forgotten;
        # x-envoy-* of a client would set its own retries and time limits.
        "early_header_mutation_extensions": []
        if internal
        else [
            _extension(
                "envoy.http.early_header_mutation.header_mutation",
                "http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=[
                    *(_remove_prefix(prefix) for prefix in ("x-gw-", "x-envoy-")),
                    {
                        "append": {
                            "header": {"key": USER_TOKEN_HEADER, "value": "%REQ(x-openwebui-user-jwt)%"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    },
                    _remove_prefix("x-openwebui-"),
                ],
            )
        ],
        "access_log": _access_logs(settings),
        "local_reply_config": local_reply_config(),
        # Paths stay as they came, and the policy compares them whole: what is normalized here could be read differently there.
        "normalize_path": False,
        "merge_slashes": False,
        "use_remote_address": not internal,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "server_name": "stoker",
        "stream_idle_timeout": STREAM_IDLE,
        "request_timeout": "60s",
        "request_headers_timeout": "15s",
        "drain_timeout": "600s",
        "common_http_protocol_options": {
            "idle_timeout": "600s",
            "headers_with_underscores_action": "DROP_HEADER",
            "max_headers_count": 100,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 1000,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 4 << 20,
        },
    }
    return _extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager,
    )


def build_certificate(chain: str, key: str) -> Document:
    """What the listener serves TLS with; a new one counts for new connections, those that are open keep theirs."""
    return {
        "resources": [
            {
                "@type": EXTENSION + "transport_sockets.tls.v3.Secret",
                "name": CERTIFICATE_NAME,
                "tls_certificate": {
                    "certificate_chain": {"inline_string": chain},
                    "private_key": {"inline_string": key},
                },
            }
        ]
    }


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
                _extension(
                    "envoy.retry_host_predicates.previous_hosts", "retry.host.previous_hosts.v3.PreviousHostsPredicate"
                )
            ],
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        },
    }
    not_early = {EARLY_FILTER: _per_route(disabled=True)}
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
                POLICY_FILTER: _per_route(check_settings={"disable_request_body_buffering": True}),
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
            "typed_per_filter_config": {POLICY_FILTER: _per_route(disabled=True)},
        },
        {"match": {"prefix": "/"}, "route": relay},
    ]
    host: Document = {
        "name": "all",
        "domains": ["*"],
        "routes": routes,
        # After the route, which still needs it.
        "request_headers_to_remove": [ENGINE_KEY_HEADER],
        "typed_per_filter_config": {
            POLICY_FILTER: _per_route(check_settings={"with_request_body": {"max_request_bytes": max_request_bytes}})
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
        "typed_per_filter_config": {name: _per_route(disabled=True) for name in (EARLY_FILTER, POLICY_FILTER)},
    }
    return [*({"match": {"path": path}, **route} for path in site.paths), {"match": {"prefix": site.prefix}, **route}]


def site_cluster(namespace: str, site: Site) -> str:
    """Envoy's name for the endpoints of a site; no ModelDeployment can have it, for theirs have one slash."""
    return f"site/{namespace}/{site.service}"


def _to_engine(source: str, route: Document, headers: list[Document], *removed: str) -> Document:
    return {
        "match": {"prefix": "/", "headers": headers},
        "route": route,
        # Of one route what is removed goes first, and a value that is empty is not added.
        "request_headers_to_remove": [*NOT_FOR_ENGINES, *removed],
        "request_headers_to_add": [ENGINE_AUTHORIZATION],
        "typed_per_filter_config": {
            USAGE_FILTER: {"@type": EXTENSION + "filters.http.lua.v3.LuaPerRoute", "name": source}
        },
    }


def build_clusters(
    settings: Settings, pods: Iterable[str] = (), named: Iterable[Route] = (), ready: Container[str] = ()
) -> Document:
    """The policy, the relay, the replicas of all models in one cluster, since the policy names the replica; and clusters of their own for
    web pages and for models that routes fall back on.

    A cluster for each model would take one of the node's inotify instances each, of which there are often only 128 for a user.
    """
    return {
        "resources": [
            _local_cluster(POLICY_CLUSTER, settings.policy_socket),
            _local_cluster(ANSWER_CLUSTER, settings.answer_socket),
            _pods_cluster(settings, ENGINES_CLUSTER, _named_by_the_policy(_nobody())),
            *(_pods_cluster(settings, name, _named_by_the_policy(_least_busy())) for name in sorted(set(pods))),
            *route_clusters(settings, named, ready),
        ]
    }


def build_endpoints(cluster: str, endpoints: Iterable[tuple[str, int]]) -> Document:
    """Pods as addresses and ports."""
    return {
        "resources": [
            {
                "@type": API + "endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": _address(address, port)}}
                            for address, port in sorted(set(endpoints))
                        ]
                    }
                ],
            }
        ]
    }


def endpoints_file(settings: Settings, cluster: str) -> Path:
    """The file of a cluster's endpoints; no part of a name can hold an underscore, so no two clusters share one."""
    return settings.xds / "eds" / f"{cluster.replace('/', '_')}.json"


def _pods_cluster(settings: Settings, name: str, policy: Document) -> Document:
    return {
        "@type": API + "cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _from_file(endpoints_file(settings, name))},
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "load_balancing_policy": _balance(policy),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": _no_limits(),
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _named_by_the_policy(otherwise: Document) -> Document:
    """Replicas to try, in order; where none of them is there any more it is another policy's choice."""
    return _extension(
        "envoy.load_balancing_policies.override_host",
        "load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[{"metadata": {"key": EXT_AUTHZ, "path": [{"key": "x-gw-endpoint"}]}}],
        fallback_policy=_balance(otherwise),
    )


def _nobody() -> Document:
    """Any other replica would be another model's. A subset policy without subsets and without fallback finds nobody."""
    return _extension(
        "envoy.load_balancing_policies.subset",
        "load_balancing_policies.subset.v3.Subset",
        fallback_policy="NO_FALLBACK",
        subset_lb_policy=_balance(_least_busy()),
    )


def _least_busy() -> Document:
    return _extension(
        "envoy.load_balancing_policies.least_request",
        "load_balancing_policies.least_request.v3.LeastRequest",
        selection_method="FULL_SCAN",
    )


def _balance(policy: Document) -> Document:
    return {"policies": [{"typed_extension_config": policy}]}


def _local_cluster(name: str, path: Path) -> Document:
    """A process of this pod, over its Unix socket."""
    return {
        "@type": API + "cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _no_limits(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}],
        },
    }


def _policy_filter(name: str, settings: Settings, stage: str) -> Document:
    """Asks the policy: early without the body, whether the body may be read at all; then with it, where the request goes.

    The second answer may take as long as a request may be held. A policy process that has stopped answering is ended by its
    supervisor, and its successor is asked again.
    """
    early = stage == "early"
    timeout = EARLY_TIMEOUT if early else HOLD_TIMEOUT
    config: Document = {
        "http_service": {
            "server_uri": {"uri": "http://policy", "cluster": POLICY_CLUSTER, "timeout": timeout},
            # A decision changes nothing, so it may be asked for twice: a policy process that is killed costs its callers a moment,
            # not an error.
            "retry_policy": {
                "retry_on": "reset,connect-failure",
                "num_retries": 5,
                # Envoy takes the longest interval as the time limit of one try, too.
                "retry_back_off": {"base_interval": "0.01s", "max_interval": timeout},
            },
            "authorization_request": {"headers_to_add": [{"key": "x-gw-stage", "value": stage}]} if stage else {},
            "authorization_response": {
                "allowed_upstream_headers": {"patterns": [{"prefix": "x-gw-"}, {"exact": "x-envoy-max-retries"}]},
                "allowed_client_headers": {
                    "patterns": [
                        *({"exact": header} for header in ("allow", "retry-after", "www-authenticate")),
                        {"prefix": "x-ratelimit-"},
                    ]
                },
                "allowed_client_headers_on_success": {"patterns": [{"prefix": "x-ratelimit-"}]},
                "dynamic_metadata_from_headers": {"patterns": [{"exact": f"x-gw-{name}"} for name in KEPT]},
            },
        },
        "allowed_headers": {
            "patterns": [
                {"exact": header} for header in (*ASKED_WITH, *(("x-gw-held",) if stage == "internal" else ()))
            ]
        },
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
    }
    if not early:
        config["with_request_body"] = {"max_request_bytes": 1 << 20}
        config["clear_route_cache"] = True
    return _extension(name, "filters.http.ext_authz.v3.ExtAuthz", **config)


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


def _tls_socket(settings: Settings) -> Document:
    certificate = {"name": CERTIFICATE_NAME, "sds_config": _from_file(settings.certificate)}
    return _extension(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [certificate],
        },
    )


def _access_logs(settings: Settings) -> list[Document]:
    """One JSON line a request: never a header, query or body of the client, only names and numbers.

    All on standard output, for people; what was sent to an engine in a file, too, by which in-flight requests and usage are counted
    (see access_log). What strangers send leaves nothing there.
    """
    fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID):64%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:PATH:256)%",
        "code": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "type": "%RESP(CONTENT-TYPE):40%",
        # Whole, and taken apart where it is read (endings.parse_lines): each field of metadata that Envoy looks up costs over a
        # microsecond, and a line had a dozen of them, twice.
        "said": f"%DYNAMIC_METADATA({EXT_AUTHZ})%",
        "tokens": f"%DYNAMIC_METADATA({METADATA}:{TOKENS})%",
        "ms": "%DURATION%",
        "first_byte_ms": "%RESPONSE_DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "upstream": "%UPSTREAM_HOST%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "protocol": "%PROTOCOL%",
    }
    log_format = {"json_format": fields, "omit_empty_values": True}
    sent_to_engine = {
        "metadata_filter": {
            "matcher": {
                "filter": EXT_AUTHZ,
                "path": [{"key": "x-gw-reason"}],
                "value": {"string_match": {"exact": ALLOWED}},
            },
            "match_if_key_not_found": False,
        }
    }
    file = _extension(
        "envoy.access_loggers.file",
        "access_loggers.file.v3.FileAccessLog",
        path=str(settings.log / access_log.CURRENT),
        log_format=log_format,
    )
    stdout = _extension(
        "envoy.access_loggers.stdout", "access_loggers.stream.v3.StdoutAccessLog", log_format=log_format
    )
    counted = stats_log(
        f"%DYNAMIC_METADATA({EXT_AUTHZ}:x-gw-model)%",
        {name: f"%DYNAMIC_METADATA({METADATA}:{TOKENS}:{name})%" for name in ("prompt", "completion")},
        sent_to_engine,
    )
    return [stdout, {**file, "filter": sent_to_engine}, counted]


def _overload_manager(heap_bytes: int) -> Document:
    def above(value: float) -> list[Document]:
        return [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": value}}]

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            _extension(
                "envoy.resource_monitors.fixed_heap",
                "resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=heap_bytes,
            )
        ],
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": above(0.8)},
            {"name": "envoy.overload_actions.disable_http_keepalive", "triggers": above(0.9)},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": above(0.92)},
            {"name": "envoy.overload_actions.stop_accepting_connections", "triggers": above(0.95)},
        ],
    }


def _no_limits() -> Document:
    """Envoy's defaults would answer 503 from 1,024 requests on."""
    most = {"max_connections": MOST_REQUESTS, "max_pending_requests": MOST_REQUESTS, "max_requests": MOST_REQUESTS}
    return {"thresholds": [{**most, "max_retries": 1000}]}


def _per_route(**config: object) -> Document:
    return {"@type": EXTENSION + "filters.http.ext_authz.v3.ExtAuthzPerRoute", **config}


def _extension(name: str, kind: str, /, **config: object) -> Document:
    return {"name": name, "typed_config": {"@type": EXTENSION + kind, **config}}


def _header(name: str, **match: object) -> Document:
    return {"name": name, **match}


def _length(start: int, end: int) -> Document:
    """Matches a content-length from start up to, but not including, end."""
    return {"name": "content-length", "range_match": {"start": start, "end": end}}


def _remove_prefix(prefix: str) -> Document:
    return {"remove_on_match": {"key_matcher": {"prefix": prefix}}}


def _address(address: str, port: int) -> Document:
    return {"socket_address": {"address": address, "port_value": port}}


def _from_file(path: Path) -> Mapping[str, object]:
    """Envoy takes a file's new content when another is renamed into its place."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}
