"""Envoy's bootstrap and listeners: what a request passes on its way in.

Replacing a listener would end long streams, so it stays as it is; what may change while a gateway runs is in the routes, clusters and
endpoints.
"""

from __future__ import annotations

from stoker.gateway.envoy.log import access_logs
from stoker.gateway.envoy.parts import (
    API,
    CORS_FILTER,
    EARLY_FILTER,
    EXTENSION,
    POLICY_CLUSTER,
    POLICY_FILTER,
    ROUTES_NAME,
    STREAM_IDLE,
    USAGE_FILTER,
    USER_GROUPS_HEADER,
    USER_HEADERS,
    USER_TOKEN_HEADER,
    Document,
    extension,
    from_file,
    socket_address,
)
from stoker.gateway.local_replies import local_reply_config
from stoker.gateway.settings import Settings
from stoker.gateway.usage_filter import SOURCES

CERTIFICATE_NAME = "gateway"
STAT_PREFIX = "gw"
KEPT = ("reason", "model", "model-at", "endpoint", "key", "user", "caller", "role", "served", "ticket")
"""Of what the policy says, what the log tells, what chooses the endpoint, and what a route needs to write another name."""
PASSED_ON = ("cluster", "add", "engine-key", "last", "answer", "requested", "problem", "held", "key", "caller", "role")
"""And what becomes a header of the request: for its route, what is added to it, and the relay. Each costs, and has to be taken away
again in front of an engine."""
HOLD_TIMEOUT = STREAM_IDLE
EARLY_TIMEOUT = "5s"
ASKED_WITH = (
    "authorization",
    "x-api-key",
    "content-type",
    *USER_HEADERS,
    "x-session-affinity",
    "x-session-id",
)
"""Headers that the policy sees."""


def build_bootstrap(settings: Settings) -> Document:
    """What Envoy is started with: where everything else lies, the admin socket, and how much memory it may take."""
    return {
        "node": {"id": settings.name, "cluster": f"{settings.namespace}/{settings.name}"},
        "admin": {"address": {"pipe": {"path": str(settings.admin_socket), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": from_file(settings.xds / "lds.json"),
            "cds_config": from_file(settings.xds / "cds.json"),
        },
        "overload_manager": _overload_manager(settings.envoy_heap_bytes),
    }


def build_listeners(settings: Settings, *, tls: bool = False, inside: bool = False) -> Document:
    """One listener for HTTP/1.1 and HTTP/2, with TLS or without; one for the web chat, where that cannot take the TLS of the first; and one
    for the relay, which comes back with what it was given."""
    chain: Document = {"filters": [_manager(settings, internal=False)]}
    if tls:
        chain["transport_socket"] = _tls_socket(settings)
    openai = socket_address(settings.listen_address, settings.listen_port)
    plain = socket_address(settings.listen_address, settings.inside_port)
    internal = {"pipe": {"path": str(settings.internal_socket), "mode": 0o600}}
    return {
        "resources": [
            _listener("openai", openai, chain),
            *(
                [_listener("inside", plain, {"filters": [_manager(settings, internal=False)]})]
                if tls and inside
                else []
            ),
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
        "rds": {"route_config_name": ROUTES_NAME, "config_source": from_file(settings.xds / "rds.json")},
        "http_filters": [
            # Off, and free of cost, where no origins are configured: routes switch it on. In front of the policy, for a browser asks
            # before it sends a key.
            {**extension(CORS_FILTER, "filters.http.cors.v3.Cors"), "disabled": True},
            *([] if internal else [_policy_filter(EARLY_FILTER, settings, "early")]),
            _policy_filter(POLICY_FILTER, settings, "internal" if internal else ""),
            # Behind the policy, so that it adds what the policy says; and next to the engine, so that it sees answers as they come.
            # By name, so that it runs only where a route says so.
            extension(
                USAGE_FILTER,
                "filters.http.lua.v3.Lua",
                source_codes={name: {"inline_string": source} for name, source in SOURCES.items()},
            ),
            # Without statistics by status: each costs a request its lookups by name, and what we tell comes from elsewhere.
            extension(
                "envoy.filters.http.router",
                "filters.http.router.v3.Router",
                suppress_envoy_headers=True,
                dynamic_stats=False,
            ),
        ],
        # Before anything else sees the request, route selection included. By prefix, so that no such header can be forgotten;
        # x-envoy-* of a client would set its own retries and time limits.
        "early_header_mutation_extensions": []
        if internal
        else [
            extension(
                "envoy.http.early_header_mutation.header_mutation",
                "http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=[
                    *(_remove_prefix(prefix) for prefix in ("x-gw-", "x-envoy-")),
                    _renamed("x-openwebui-user-jwt", USER_TOKEN_HEADER),
                    _renamed("x-openwebui-user-groups", USER_GROUPS_HEADER),
                    _remove_prefix("x-openwebui-"),
                ],
            )
        ],
        "access_log": access_logs(settings),
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
    return extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **manager,
    )


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
                "allowed_upstream_headers": {
                    "patterns": [
                        {"exact": name} for name in (*(f"x-gw-{name}" for name in PASSED_ON), "x-envoy-max-retries")
                    ]
                },
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
    return extension(name, "filters.http.ext_authz.v3.ExtAuthz", **config)


def _tls_socket(settings: Settings) -> Document:
    certificate = {"name": CERTIFICATE_NAME, "sds_config": from_file(settings.certificate)}
    return extension(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [certificate],
        },
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


def _overload_manager(heap_bytes: int) -> Document:
    def above(value: float) -> list[Document]:
        return [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": value}}]

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            extension(
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


def _renamed(name: str, to: str) -> Document:
    return {
        "append": {
            "header": {"key": to, "value": f"%REQ({name})%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }


def _remove_prefix(prefix: str) -> Document:
    return {"remove_on_match": {"key_matcher": {"prefix": prefix}}}
