"""What is known of the cluster, and the files made of it: Envoy's and the policy's.

Fed by the watch with documents and EndpointSlices; writes whatever differs from what is on disk. What Envoy reads comes before
what the policy reads, so that nobody is sent where nothing is yet.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stoker.api.certificates import check_certificate
from stoker.gateway.config import ConfigRejected, parse_keys, parse_routes
from stoker.gateway.decision import ENGINES_CLUSTER
from stoker.gateway.envoy.clusters import build_clusters, build_endpoints, endpoints_file, site_cluster
from stoker.gateway.envoy.composite import build_authorities
from stoker.gateway.envoy.listener import build_bootstrap, build_certificate, build_listeners
from stoker.gateway.envoy.routes import build_routes
from stoker.gateway.settings import Settings
from stoker.gateway.state import ENDPOINTS_FILE, KEYS_FILE, ROUTES_FILE, write_file
from stoker.gateway.table import Routes
from stoker.gateway.trust import trusted_authorities

logger = logging.getLogger(__name__)

Object = dict[str, Any]
Service = tuple[str, str]
"""Namespace and name."""

Address = tuple[str, int]

LINGER_SECONDS = 3660.0
"""Envoy knows an endpoint so much longer than the policy, which chooses it no more: what was sent there in the last moment must
still find it (a pod on its way out serves for two seconds at least), and Envoy tells only of those it knows how many requests run there."""
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
        self._written: dict[Path, bytes] = {}
        self._ready: dict[str, set[Address]] = {}
        """What the policy was told last."""
        self._leaving: dict[Address, float] = {}
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
        return [*models, *((site_cluster(own, site), (own, site.service)) for site in routes.sites)]

    def write_envoy_files(self) -> bool:
        """Everything that Envoy reads; whether anything differed. Nothing is written before there are routes."""
        if self._routes is None:
            return False
        xds, named = self._settings.xds, self._routes.routes
        found = self._endpoints(self._routes)
        engines = {model.cluster: found[model.cluster] for model in self._routes.models}
        pods = {site_cluster(self._settings.namespace, site) for site in self._routes.sites}
        pods |= {backend.cluster for route in named for backend in route.backends if backend.cluster}
        ready = {cluster for cluster, addresses in found.items() if addresses}
        # Envoy ends when the file of a cluster's endpoints is missing.
        changed = self._write_endpoints(ENGINES_CLUSTER, self._with_leaving(engines))
        for cluster in sorted(pods):
            changed |= self._write_endpoints(cluster, found[cluster])
        changed |= self._write_authorities(self._routes)
        changed |= self._write(xds / "cds.json", build_clusters(self._settings, pods, named, ready))
        changed |= self._write(xds / "rds.json", build_routes(self._settings, self._routes, ready))
        changed |= self._write_listener(self._routes.certificate_secret, inside=self._routes.inside)
        return self._write(self._settings.bootstrap, build_bootstrap(self._settings)) or changed

    def _write_endpoints(self, cluster: str, endpoints: Iterable[Address]) -> bool:
        path = endpoints_file(self._settings, cluster)
        return self._write(path, build_endpoints(cluster, endpoints))

    def write_state(self) -> bool:
        """Everything that the policy reads; see write_envoy_files."""
        if self._routes is None:
            return False
        found = self._endpoints(self._routes)
        self._ready = {model.cluster: found[model.cluster] for model in self._routes.models}
        changed = self._write_state(self._routes, found)
        if changed:
            self._on_change()
        self.published_at = time.time()
        return changed

    def new_endpoints(self) -> set[str]:
        """Replicas of models that the policy has not been told of yet."""
        if self._routes is None:
            return set()
        known = {address for found in self._ready.values() for address in found}
        found = self._endpoints(self._routes)
        wanted = {address for model in self._routes.models for address in found[model.cluster]}
        return set(map(address_text, wanted - known))

    def _endpoints(self, routes: Routes) -> dict[str, set[Address]]:
        """Ready pods by cluster; of namespaces that were not listed yet those that are in the file already."""
        targets = self._targets(routes)
        found = self._addresses(targets)
        unlisted = {cluster for cluster, _ in targets} - found.keys()
        if unlisted:
            before = self._endpoints_before()
            found |= {cluster: set(map(parse_address, before.get(cluster, ()))) for cluster in unlisted}
        return found

    def _with_leaving(self, endpoints: dict[str, set[Address]]) -> set[Address]:
        """Those of all clusters, and what has been taken out and may still be at work."""
        now = self._clock()
        wanted = {address for found in endpoints.values() for address in found}
        for before in self._ready.values():
            for address in before - wanted:
                self._leaving.setdefault(address, now + LINGER_SECONDS)
        self._leaving = {
            address: until for address, until in self._leaving.items() if until > now and address not in wanted
        }
        return wanted | self._leaving.keys()

    @property
    def due_in(self) -> float | None:
        """Seconds until something has to be written again; None when nothing has."""
        return max(0.0, min(self._leaving.values()) - self._clock()) if self._leaving else None

    def _write_listener(self, secret: str, *, inside: bool) -> bool:
        """With TLS only when there is a certificate, and never without it where it is wanted: until then what is on disk stays, and a
        new pod does not begin."""
        if not secret:
            changed = self._write(self._settings.xds / "lds.json", build_listeners(self._settings))
            self._settings.certificate.unlink(missing_ok=True)
            self._written.pop(self._settings.certificate, None)
            return changed
        pair = self._certificates.get(secret)
        if pair is None:
            return False
        # Not in one expression: the certificate has to be there before the listener that asks for it.
        changed = self._write(self._settings.certificate, build_certificate(*pair))
        listeners = build_listeners(self._settings, tls=True, inside=inside)
        return self._write(self._settings.xds / "lds.json", listeners) or changed

    def _write_authorities(self, routes: Routes) -> bool:
        """Envoy's image brings none."""
        if not any(backend.external and backend.external.tls for route in routes.routes for backend in route.backends):
            return False
        document = build_authorities(trusted_authorities(routes.authorities))
        return self._write(self._settings.authorities, document)

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

    def _write_state(self, routes: Routes, endpoints: dict[str, set[Address]]) -> bool:
        state = self._settings.state
        texts = {cluster: sorted(map(address_text, found)) for cluster, found in sorted(endpoints.items()) if found}
        keys = [key for secret in routes.key_secrets for key in self._keys.get(secret, [])]
        return any(
            [
                write_file(state / ROUTES_FILE, self._routes_text),
                self._write(state / KEYS_FILE, {"keys": keys}),
                self._write(state / ENDPOINTS_FILE, texts),
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


def parse_address(text: str) -> Address:
    """The other way round."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def takes_requests(conditions: Object) -> bool:
    """Ready, and not on its way out: a terminating pod finishes what it has, and gets nothing new."""
    return conditions.get("ready") is not False and not conditions.get("terminating")


def engine_port(ports: list[Object]) -> int | None:
    """The engine's port among those of the Service."""
    named: Iterator[Object] = (port for port in ports if port.get("name") == PORT_NAME)
    port = next(named, ports[0] if len(ports) == 1 else None)
    number = port.get("port") if port else None
    return number if isinstance(number, int) else None
