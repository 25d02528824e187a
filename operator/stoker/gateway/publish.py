"""What is known of the cluster, and the files made of it: Envoy's and the policy's.

Fed by the watch (or by a test) with documents and EndpointSlices; publish() writes whatever differs from what is on disk.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import certifi

from stoker.api.certificates import check_certificate
from stoker.gateway import envoy
from stoker.gateway.config import ConfigRejected, Routes, parse_keys, parse_routes
from stoker.gateway.routing import Route
from stoker.gateway.settings import Settings
from stoker.gateway.state import ENDPOINTS_FILE, KEYS_FILE, ROUTES_FILE, write_file

logger = logging.getLogger(__name__)

Object = dict[str, Any]
Service = tuple[str, str]
"""Namespace and name."""

Address = tuple[str, int]

LINGER_SECONDS = 1.0
"""Envoy knows an endpoint so much longer than the policy: what the policy sent there in the last moment must still find it. A pod
on its way out serves for two seconds at least (see the agent's /drain)."""
SERVICE_LABEL = "kubernetes.io/service-name"
PORT_NAME = "http"
"""Name of the engine's port in its Service; a Service with one port only may call it as it likes."""


class Publisher:
    """The gateway's view of the cluster, and the writer of all its files."""

    def __init__(
        self,
        settings: Settings,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self._routes: Routes | None = None
        self._routes_text = b""
        self._keys: dict[str, list[Object]] = {}
        self._certificates: dict[str, tuple[str, str]] = {}
        self._slices: dict[str, dict[str, Object]] = {}
        """By namespace; a namespace that is not there has not been listed yet."""
        self.published_at = 0.0
        """When files were last brought up to date; 0 before the first time."""
        self._clusters: set[str] = set()
        self._written: dict[Path, bytes] = {}
        self._named: tuple[Route, ...] = ()
        self._has_replicas: set[str] = set()
        """Clusters that routes may fall back on."""
        self._ready: dict[str, set[Address]] = {}
        """What the policy was told last."""
        self._leaving: dict[tuple[str, Address], float] = {}
        """Endpoints that the policy does not choose any more, and until when Envoy keeps them."""

    @property
    def routes(self) -> Routes | None:
        """The routes in force."""
        return self._routes

    def set_routes(self, text: bytes) -> None:
        """Take over a routes document; one that makes no sense is refused, and the old one stays."""
        try:
            self._routes = parse_routes(text)
        except ConfigRejected as error:
            logger.warning("routes are not taken over: %s", error)
            return
        self._routes_text = text

    def set_keys(self, secret: str, text: bytes) -> None:
        """Take over the keys of one Secret; see set_routes."""
        try:
            parse_keys(text)
        except ConfigRejected as error:
            logger.warning("keys of %s are not taken over: %s", secret, error)
            return
        self._keys[secret] = json.loads(text).get("keys") or []

    def set_certificate(self, secret: str, chain: bytes, key: bytes) -> None:
        """Take over a certificate; one that cannot serve is refused, and the old one stays."""
        try:
            check_certificate(chain, key)
            self._certificates[secret] = (chain.decode(), key.decode())
        except ValueError as error:
            logger.warning("the certificate in Secret %s is not taken over: %s", secret, error)

    def set_slices(self, namespace: str, slices: Iterable[Object]) -> None:
        """All EndpointSlices of a namespace."""
        self._slices[namespace] = {item["metadata"]["name"]: item for item in slices}

    def put_slice(self, namespace: str, item: Object) -> None:
        """An EndpointSlice is new or has changed."""
        self._slices.get(namespace, {})[item["metadata"]["name"]] = item

    def drop_slice(self, namespace: str, item: Object) -> None:
        """An EndpointSlice is gone."""
        self._slices.get(namespace, {}).pop(item["metadata"]["name"], None)

    def forget_namespace(self, namespace: str) -> None:
        """No model of this gateway is there any more."""
        self._slices.pop(namespace, None)

    def missing_keys(self) -> list[str]:
        """Key Secrets that routes name and that were not seen yet. Before the first publishing all must be: with fewer keys than
        there are, a restart would lock people out."""
        return [name for name in self._routes.key_secrets if name not in self._keys] if self._routes else ["routes"]

    def unlisted_namespaces(self) -> list[str]:
        """Namespaces with models whose endpoints were not listed yet."""
        if self._routes is None:
            return []
        return sorted({namespace for _, (namespace, _) in self._targets(self._routes)} - self._slices.keys())

    def _targets(self, routes: Routes) -> list[tuple[str, Service]]:
        """Clusters, and the Services that their endpoints are of."""
        own = self._settings.namespace
        models = [(model.cluster, (model.namespace, model.service)) for model in routes.models]
        return [*models, *((envoy.site_cluster(own, site), (own, site.service)) for site in routes.sites)]

    def publish(self) -> bool:
        """Write what differs; whether anything did. Nothing happens before there are routes.

        In this order, so that nobody is sent where nothing is yet: endpoints (Envoy ends when a cluster's file is missing),
        clusters, routes, and last what the policy reads.
        """
        changed = self.write_envoy_files()
        return self.write_state() or changed

    def write_envoy_files(self) -> bool:
        """Everything that Envoy reads; clusters that are gone stay until nobody is sent there any more."""
        if self._routes is None:
            return False
        targets = self._targets(self._routes)
        clusters = {cluster for cluster, _ in targets}
        addresses = self._with_leaving(self._addresses(targets))
        xds = self._settings.xds
        changed = False
        for cluster in sorted(clusters):
            path = envoy.endpoints_file(self._settings, cluster)
            if cluster in addresses or not path.exists():
                changed |= self._write(path, envoy.build_endpoints(cluster, addresses.get(cluster, ())))
        named = self._routes.routes
        # Of a namespace that was not listed yet nobody knows.
        ready = {cluster for cluster in clusters if addresses.get(cluster, True)}
        changed |= self._write_authorities(named)
        changed |= self._write(xds / "rds.json", envoy.build_routes(self._settings, self._routes, ready))
        changed |= self._write_listener(self._routes.certificate_secret)
        changed |= self._write(self._settings.bootstrap, envoy.build_bootstrap(self._settings))
        self._named, self._has_replicas = named, ready
        return self._write_clusters(self._clusters | clusters) or changed

    def _write_clusters(self, clusters: set[str]) -> bool:
        document = envoy.build_clusters(self._settings, clusters, self._named, self._has_replicas)
        return self._write(self._settings.xds / "cds.json", document)

    def write_state(self) -> bool:
        """Everything that the policy reads."""
        if self._routes is None:
            return False
        targets = self._targets(self._routes)
        clusters = {cluster for cluster, _ in targets}
        self._ready = self._addresses(targets)
        changed = self._write_state(self._routes, self._ready)
        if changed:
            self._on_change()
        self.published_at = time.time()
        # Now nobody is sent to the clusters that are gone; requests that run there finish.
        if not self._clusters <= clusters:
            self._write_clusters(clusters)
        self._clusters = clusters
        self._remove_stale(clusters)
        return changed

    def new_endpoints(self) -> set[tuple[str, str]]:
        """Endpoints, with their clusters, that the policy has not been told of yet."""
        targets = self._targets(self._routes) if self._routes else ()
        return {
            (cluster, address_text(address))
            for cluster, found in self._addresses(targets).items()
            for address in found - self._ready.get(cluster, set())
        }

    def _with_leaving(self, addresses: dict[str, set[Address]]) -> dict[str, set[Address]]:
        """Those, and what has been taken out a moment ago."""
        now = self._clock()
        for cluster, before in self._ready.items():
            for address in before - addresses.get(cluster, before):
                self._leaving.setdefault((cluster, address), now + LINGER_SECONDS)
        self._leaving = {
            (cluster, address): until
            for (cluster, address), until in self._leaving.items()
            if until > now and address not in addresses.get(cluster, ())
        }
        made = {cluster: set(found) for cluster, found in addresses.items()}
        for cluster, address in self._leaving:
            if cluster in made:
                made[cluster].add(address)
        return made

    @property
    def due_in(self) -> float | None:
        """Seconds until something has to be written again; None when nothing has."""
        return max(0.0, min(self._leaving.values()) - self._clock()) if self._leaving else None

    def _write_listener(self, secret: str) -> bool:
        """With TLS only when there is a certificate, and never without it where it is wanted: until then what is on disk stays, and a
        new pod does not begin."""
        if not secret:
            changed = self._write(self._settings.xds / "lds.json", envoy.build_listeners(self._settings))
            self._settings.certificate.unlink(missing_ok=True)
            self._written.pop(self._settings.certificate, None)
            return changed
        pair = self._certificates.get(secret)
        if pair is None:
            return False
        # Not in one expression: the certificate has to be there before the listener that asks for it.
        changed = self._write(self._settings.certificate, envoy.build_certificate(*pair))
        return self._write(self._settings.xds / "lds.json", envoy.build_listeners(self._settings, tls=True)) or changed

    def _write_authorities(self, named: Iterable[Route]) -> bool:
        """Envoy's image brings none."""
        if not any(backend.external and backend.external.tls for route in named for backend in route.backends):
            return False
        path = self._settings.authorities
        if path not in self._written:
            self._written[path] = Path(os.environ.get("SSL_CERT_FILE") or certifi.where()).read_bytes()
            return write_file(path, self._written[path])
        return False

    def _addresses(self, targets: Iterable[tuple[str, Service]]) -> dict[str, set[Address]]:
        """Ready replicas by cluster, without clusters of namespaces that were not listed yet: what is on disk stays for those."""
        by_service: dict[Service, list[Object]] = {}
        for namespace, slices in self._slices.items():
            for item in slices.values():
                service = (item["metadata"].get("labels") or {}).get(SERVICE_LABEL, "")
                by_service.setdefault((namespace, service), []).append(item)
        return {
            cluster: ready_addresses(by_service.get(service, []))
            for cluster, service in targets
            if service[0] in self._slices
        }

    def _write_state(self, routes: Routes, addresses: dict[str, set[Address]]) -> bool:
        state = self._settings.state
        unlisted = {cluster for cluster, _ in self._targets(routes) if cluster not in addresses}
        endpoints = {cluster: found for cluster, found in self._endpoints_before().items() if cluster in unlisted}
        for cluster, known in addresses.items():
            if known:
                endpoints[cluster] = sorted(map(address_text, known))
        keys = [key for secret in routes.key_secrets for key in self._keys.get(secret, [])]
        return any(
            [
                write_file(state / ROUTES_FILE, self._routes_text),
                self._write(state / KEYS_FILE, {"keys": keys}),
                self._write(state / ENDPOINTS_FILE, dict(sorted(endpoints.items()))),
            ]
        )

    def _endpoints_before(self) -> dict[str, list[str]]:
        try:
            return dict(json.loads((self._settings.state / ENDPOINTS_FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self, path: Path, document: object) -> bool:
        content = json.dumps(document, separators=(",", ":")).encode()
        if self._written.get(path) == content:
            return False
        self._written[path] = content
        return write_file(path, content)

    def _remove_stale(self, clusters: set[str]) -> None:
        """Files of endpoints that no cluster names any more."""
        wanted = {envoy.endpoints_file(self._settings, cluster).name for cluster in clusters}
        for path in (self._settings.xds / "eds").glob("*.json"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
                self._written.pop(path, None)


def ready_addresses(slices: Iterable[Object]) -> set[Address]:
    """Addresses that take new requests. IPv6 only where there is no IPv4: a pod with both has two slices, and is one replica."""
    found: dict[str, set[Address]] = {"IPv4": set(), "IPv6": set()}
    for item in slices:
        port = engine_port(item.get("ports") or [])
        kind = item.get("addressType", "IPv4")
        if port is None or kind not in found:
            continue
        for endpoint in item.get("endpoints") or []:
            if takes_requests(endpoint.get("conditions") or {}):
                found[kind].update((address, port) for address in (endpoint.get("addresses") or [])[:1])
    return found["IPv4"] or found["IPv6"]


def address_text(address: Address) -> str:
    """As Envoy writes it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def takes_requests(conditions: Object) -> bool:
    """Ready, and not on its way out: a terminating pod finishes what it has, and gets nothing new."""
    return conditions.get("ready") is not False and not conditions.get("terminating")


def engine_port(ports: list[Object]) -> int | None:
    """The engine's port among those of the Service."""
    named: Iterator[Object] = (port for port in ports if port.get("name") == PORT_NAME)
    port = next(named, ports[0] if len(ports) == 1 else None)
    number = port.get("port") if port else None
    return number if isinstance(number, int) else None
