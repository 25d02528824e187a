"""What several of Envoy's documents are made of: names that must be the same in all of them, and the forms of its messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Document = dict[str, Any]

API = "type.googleapis.com/envoy.config."
EXTENSION = "type.googleapis.com/envoy.extensions."
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

ROUTES_NAME = "gateway"
CORS_FILTER = "envoy.filters.http.cors"
EARLY_FILTER = "stoker.early"
POLICY_FILTER = "stoker.policy"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
"""Where the policy's x-gw-* headers stand in a request's metadata."""
USAGE_FILTER = "envoy.filters.http.lua"
POLICY_CLUSTER = "policy"
STREAM_IDLE = "3660s"
"""Longer than a request may be held (LONGEST_HOLD_SECONDS), as every time limit below that a held request meets."""
USER_TOKEN_HEADER = "x-gw-user-token"
"""Under this name the policy sees X-OpenWebUI-User-Jwt; that and everything else that begins like it goes no further."""
USER_GROUPS_HEADER = "x-gw-user-groups"
"""And under this X-OpenWebUI-User-Groups."""
USER_HEADERS = (USER_TOKEN_HEADER, USER_GROUPS_HEADER)
ENGINE_KEY_HEADER = "x-gw-engine-key"
"""From the policy, for engines that ask for a key; towards the engine it is called Authorization."""
LAST_HEADER = "x-gw-last"
"""From the policy, for requests that are the last ones of their connection; towards the engine it is called Connection."""
MOST_REQUESTS = 100_000


def extension(name: str, kind: str, /, **config: object) -> Document:
    """A part of Envoy's that is named by its type."""
    return {"name": name, "typed_config": {"@type": EXTENSION + kind, **config}}


def per_route(**config: object) -> Document:
    """What a route, or all of them, says of a filter that asks the policy."""
    return {"@type": EXTENSION + "filters.http.ext_authz.v3.ExtAuthzPerRoute", **config}


def socket_address(address: str, port: int) -> Document:
    """A TCP address, by number or name."""
    return {"socket_address": {"address": address, "port_value": port}}


def from_file(path: Path) -> Mapping[str, object]:
    """Envoy takes a file's new content when another is renamed into its place."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def no_limits() -> Document:
    """Envoy's defaults would answer 503 from 1,024 requests on."""
    most = {"max_connections": MOST_REQUESTS, "max_pending_requests": MOST_REQUESTS, "max_requests": MOST_REQUESTS}
    return {"thresholds": [{**most, "max_retries": 1000}]}
