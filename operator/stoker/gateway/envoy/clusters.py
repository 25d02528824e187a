"""Envoy's clusters and their endpoints: the processes of the pod, the models' replicas, and web pages."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from stoker.gateway.decision import ANSWER_CLUSTER, ENGINES_CLUSTER
from stoker.gateway.envoy.composite import route_clusters
from stoker.gateway.envoy.parts import (
    API,
    EXT_AUTHZ,
    HTTP_OPTIONS,
    POLICY_CLUSTER,
    Document,
    extension,
    from_file,
    no_limits,
    socket_address,
)
from stoker.gateway.routing import Route
from stoker.gateway.settings import Settings
from stoker.gateway.table import Site

# llama.cpp closes an idle connection after 5 s, others later: ours are gone before, or a request could meet a closing one.
UPSTREAM_IDLE = "3s"

DEAD_AFTER = {"keepalive_time": 15, "keepalive_interval": 5, "keepalive_probes": 3}
"""Seconds, and how many probes without an answer."""
# TCP_USER_TIMEOUT of Linux's TCP, milliseconds: what is sent and never acknowledged.
UNACKNOWLEDGED = {"level": 6, "name": 18, "int_value": 30_000, "state": "STATE_PREBIND"}


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
                            {"endpoint": {"address": socket_address(address, port)}}
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


def site_cluster(namespace: str, site: Site) -> str:
    """Envoy's name for the endpoints of a site; no ModelDeployment can have it, for theirs have one slash."""
    return f"site/{namespace}/{site.service}"


def _pods_cluster(settings: Settings, name: str, policy: Document) -> Document:
    return {
        "@type": API + "cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": from_file(endpoints_file(settings, name))},
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "load_balancing_policy": _balance(policy),
        # A node that dies says nothing: without these, what runs there would hang for an hour.
        "upstream_connection_options": {"tcp_keepalive": DEAD_AFTER},
        "upstream_bind_config": {"socket_options": [UNACKNOWLEDGED]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": no_limits(),
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
    return extension(
        "envoy.load_balancing_policies.override_host",
        "load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[{"metadata": {"key": EXT_AUTHZ, "path": [{"key": "x-gw-endpoint"}]}}],
        fallback_policy=_balance(otherwise),
    )


def _nobody() -> Document:
    """Any other replica would be another model's. A subset policy without subsets and without fallback finds nobody."""
    return extension(
        "envoy.load_balancing_policies.subset",
        "load_balancing_policies.subset.v3.Subset",
        fallback_policy="NO_FALLBACK",
        subset_lb_policy=_balance(_least_busy()),
    )


def _least_busy() -> Document:
    return extension(
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
        "circuit_breakers": no_limits(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}],
        },
    }
