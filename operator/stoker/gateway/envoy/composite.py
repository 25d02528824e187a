"""Envoy's part in routes: clusters that try one backend after the other, and what each of them needs changed. Pure.

A composite cluster takes the next of its clusters at each try (tried on Envoy 1.40). Its Lua filter runs once for each try, with the
body as it came and the headers as the try before left them; what it has to know is in the policy's answer, and in metadata that
outlives a try.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from stoker.gateway.envoy.parts import (
    API,
    EXTENSION,
    HTTP_OPTIONS,
    Document,
    extension,
    from_file,
    no_limits,
    socket_address,
)
from stoker.gateway.routing import Backend, External, Route
from stoker.gateway.settings import Settings

AUTHORITIES_NAME = "authorities"
MODEL_AT = "x-gw-model-at"
"""Where in the body the model's name stands, as the policy found it: first byte and length."""

LUA = r"""
function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local mine = metadata:get("stoker.route")
  local try = (mine and mine["try"] or 0) + 1
  metadata:set("stoker.route", "try", try)
  local headers, backend, before = handle:headers(), backends[try], backends[try - 1]
  if not backend then return end
  if before and before.authority then
    headers:replace(":path", headers:get(":path"):sub(#before.prefix + 1))
    headers:replace(":authority", "engine")
  end
  if before and before.authorization then headers:remove("authorization") end
  if backend.authority then
    headers:replace(":path", backend.prefix .. headers:get(":path"))
    headers:replace(":authority", backend.authority)
  end
  if backend.authorization then headers:replace("authorization", backend.authorization) end
  local said = metadata:get("envoy.filters.http.ext_authz")
  local start, length = ((said and said["x-gw-model-at"]) or ""):match("^(%d+):(%d+)$")
  local body = handle:body()
  if not start or not body then return end
  local after = start + length
  body:setBytes(body:getBytes(0, tonumber(start)) .. backend.model .. body:getBytes(after, body:length() - after))
end
"""


def route_clusters(settings: Settings, routes: Iterable[Route], ready: Container[str]) -> list[Document]:
    """For each backend that may come first, a cluster that begins with it; and one for each backend outside."""
    found = []
    for route in routes:
        for index, backend in enumerate(route.backends):
            if backend.external:
                found.append(_external_cluster(settings, external_name(route, index), backend.external))
            found.append(_composite(route, index, _tries(route, index, ready)))
    return found


def build_authorities(certificates: str) -> Document:
    """Whom backends outside may have their certificates from; others in this place count for new connections."""
    secret = {
        "@type": EXTENSION + "transport_sockets.tls.v3.Secret",
        "name": AUTHORITIES_NAME,
        "validation_context": {"trusted_ca": {"inline_string": certificates}},
    }
    return {"resources": [secret]}


def external_name(route: Route, index: int) -> str:
    """Envoy's name for a backend outside."""
    return f"external/{route.name}/{index}"


def _tries(route: Route, index: int, ready: Container[str]) -> list[int]:
    """Without those that have no replica: Envoy would give up there. The first stays, for requests may wait for its replicas."""
    first, *others = route.tries(index)
    there = [other for other in others if route.backends[other].external or route.backends[other].cluster in ready]
    # Without anybody else another replica may be asked.
    return [first, *(there or [first])]


def retries(route: Route, index: int, ready: Container[str]) -> Document:
    """When the next backend is tried: only before the first byte of an answer."""
    tries = _tries(route, index, ready)
    policy: Document = {
        "retry_on": "connect-failure,refused-stream",
        "num_retries": len(tries) - 1,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
    }
    if tries[0] == tries[-1]:
        return policy
    return {**policy, "retry_on": policy["retry_on"] + ",retriable-status-codes", "retriable_status_codes": [503]}


def _composite(route: Route, index: int, tries: list[int]) -> Document:
    backends = [route.backends[one] for one in tries]
    clusters = [
        {"name": external_name(route, one) if backend.external else backend.cluster}
        for one, backend in zip(tries, backends, strict=True)
    ]
    return {
        "@type": API + "cluster.v3.Cluster",
        "name": route.cluster(index),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": extension("envoy.clusters.composite", "clusters.composite.v3.ClusterConfig", clusters=clusters),
        "circuit_breakers": no_limits(),
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": [
                    # Not Lua's usual name: what a route says of the filter that counts usage would count for this one, too.
                    extension(
                        "stoker.route",
                        "filters.http.lua.v3.Lua",
                        default_source_code={"inline_string": _source(backends)},
                    ),
                    extension("envoy.filters.http.upstream_codec", "filters.http.upstream_codec.v3.UpstreamCodec"),
                ],
            }
        },
    }


def _source(backends: Iterable[Backend]) -> str:
    rows = []
    for backend in backends:
        fields = {"model": backend.model}
        if backend.engine_key:
            fields["authorization"] = f"Bearer {backend.engine_key}"
        if backend.external:
            fields |= {"authority": _authority(backend.external), "prefix": backend.external.prefix}
            if backend.external.key:
                fields["authorization"] = f"Bearer {backend.external.key}"
        rows.append("{" + ", ".join(f"{name} = {_quoted(value)}" for name, value in fields.items()) + "}")
    return f"local backends = {{{', '.join(rows)}}}\n{LUA}"


def _quoted(text: str) -> str:
    """As Lua writes a text: every byte that is not plainly harmless by its number."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._:/@+-"
    return '"' + "".join(chr(byte) if chr(byte) in plain else f"\\{byte:03d}" for byte in text.encode()) + '"'


def _authority(external: External) -> str:
    usual = 443 if external.tls else 80
    return external.host if external.port == usual else f"{external.host}:{external.port}"


def _external_cluster(settings: Settings, name: str, external: External) -> Document:
    address = socket_address(external.host, external.port)
    cluster: Document = {
        "@type": API + "cluster.v3.Cluster",
        "name": name,
        "type": "LOGICAL_DNS",
        "dns_lookup_family": "ALL",
        "connect_timeout": "3s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if external.tls:
        names = [{"san_type": "DNS", "matcher": {"exact": external.host}}]
        validation = {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": {
                "name": AUTHORITIES_NAME,
                "sds_config": from_file(settings.authorities),
            },
        }
        cluster["transport_socket"] = extension(
            "envoy.transport_sockets.tls",
            "transport_sockets.tls.v3.UpstreamTlsContext",
            sni=external.host,
            common_tls_context={"combined_validation_context": validation},
        )
    return cluster
