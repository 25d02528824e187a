"""Port 9090: what kubelet, Prometheus and the operator ask of a gateway pod.

/startup   the files Envoy needs are there and the policy has a configuration; Envoy's container starts after it
/healthz   the policy process runs
/readyz    requests would be served: configured, Envoy live, not draining
/metrics   Prometheus
/drain     Envoy's preStop: stop taking new connections, return when no request is running (or the time is over)
/usage-log what the access log says, for `stoker usage` (see usage_log)
/load      requests per model, and /loading, how far models are: for the operator (see load)
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from stoker.gateway import admin
from stoker.gateway.admin import NotAnswering
from stoker.gateway.decision import ENGINES_CLUSTER
from stoker.gateway.envoy.clusters import endpoints_file
from stoker.gateway.envoy.listener import STAT_PREFIX
from stoker.gateway.metrics import DecisionMetrics
from stoker.gateway.settings import Settings
from stoker.gateway.state import StateReader
from stoker.gateway.usage_log import UsageLog
from stoker.gateway.web import TEXT, Handler, WebRequest, WebResponse, protocol_factory

logger = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Endpoints take a moment to leave every node's tables; until then new connections still come.
SHORTEST_DRAIN_SECONDS = 3.0
DRAIN_POLL_SECONDS = 0.25
RUNNING = f"http.{STAT_PREFIX}.downstream_rq_active"


class ProbeServer:
    """Answers on port 9090, in the policy process."""

    def __init__(self, settings: Settings, reader: StateReader, metrics: DecisionMetrics, load: Handler) -> None:
        self._settings = settings
        self._reader = reader
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        ProcessCollector(namespace="stoker_gateway_policy", registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.usage_log = UsageLog(settings.log, reader)
        self._draining: asyncio.Task[str] | None = None
        self._routes = {
            "/startup": self._startup,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._serve_metrics,
            "/drain": self._drain,
            "/load": load,
            "/loading": load,
            "/usage-log": self.usage_log.handle,
        }

    async def start(self, listening: socket.socket) -> asyncio.Server:
        """Serve on a socket that is open already."""
        return await asyncio.get_running_loop().create_server(protocol_factory(self.handle), sock=listening)

    async def handle(self, request: WebRequest) -> WebResponse:
        """One request of kubelet, Prometheus or the operator."""
        route = self._routes.get(request.target.partition("?")[0])
        if route is None:
            return text(404, "not found; there are " + " ".join(self._routes))
        # kubelet can only GET, /drain included.
        if request.method not in ("GET", "POST"):
            return text(405, "GET")
        return await route(request)

    async def _startup(self, request: WebRequest) -> WebResponse:
        xds = self._settings.xds
        wanted = (
            self._settings.bootstrap,
            xds / "lds.json",
            xds / "cds.json",
            endpoints_file(self._settings, ENGINES_CLUSTER),
            xds / "rds.json",
        )
        missing = [path.name for path in wanted if not path.exists()]
        if missing or self._reader.table is None:
            return text(503, f"waiting for the configuration (missing: {', '.join(missing) or 'routes or keys'})")
        return text(200, "ok")

    async def _healthz(self, request: WebRequest) -> WebResponse:
        return text(200, "ok")

    async def _readyz(self, request: WebRequest) -> WebResponse:
        if self._draining is not None:
            return text(503, "draining")
        if self._reader.table is None:
            return text(503, "no configuration yet")
        try:
            status, body = await admin.call(self._settings.admin_socket, "GET", "/ready", seconds=1.0)
        except NotAnswering as error:
            return text(503, f"Envoy does not answer: {error}")
        return text(200, "ok") if status == 200 else text(503, f"Envoy: {body.decode(errors='replace').strip()}")

    async def _serve_metrics(self, request: WebRequest) -> WebResponse:
        lines = generate_latest(self._registry)
        up = 1
        try:
            _, more = await admin.call(
                self._settings.answer_socket, "GET", "/", headers="x-gw-answer: metrics\r\n", seconds=1.0
            )
            lines += more
        except NotAnswering:
            up = 0
        lines += f"# TYPE stoker_gateway_relay_up gauge\nstoker_gateway_relay_up {up}\n".encode()
        return WebResponse(200, lines, METRICS_TYPE)

    async def _drain(self, request: WebRequest) -> WebResponse:
        if self._draining is None:
            # A task of its own: it goes on when the caller leaves, and a second caller waits for the same end.
            self._draining = asyncio.get_running_loop().create_task(self._drain_envoy())
        return text(200, await asyncio.shield(self._draining))

    async def _drain_envoy(self) -> str:
        began = time.monotonic()
        envoy = self._settings.admin_socket
        for target in ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit"):
            try:
                await admin.call(envoy, "POST", target)
            except NotAnswering as error:
                logger.warning("drain: %s", error)
                return "Envoy is gone already"
        logger.info("draining")
        running: int | None = None
        while (passed := time.monotonic() - began) < self._settings.drain_seconds:
            running = await self._running()
            if running is None or (running == 0 and passed >= SHORTEST_DRAIN_SECONDS):
                logger.info("drained in %.1f s", passed)
                return "drained"
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        logger.warning("drain: %.0f s are over, %s requests are cut", passed, running)
        return "time is over"

    async def _running(self) -> int | None:
        """Requests Envoy is working on; None when it is gone."""
        try:
            stats = await self._stats(f"^{RUNNING}$")
        except NotAnswering:
            return None
        return stats.get(RUNNING, 0)

    async def _stats(self, pattern: str) -> dict[str, int]:
        """Envoy's counters by name."""
        quoted = pattern.replace("+", "%2B").replace("^", "%5E").replace("\\", "%5C").replace("$", "%24")
        status, body = await admin.call(self._settings.admin_socket, "GET", f"/stats?format=json&filter={quoted}")
        if status != 200:
            raise NotAnswering(f"stats: HTTP {status}")
        return {entry["name"]: entry["value"] for entry in json.loads(body)["stats"] if "value" in entry}


def text(status: int, words: str) -> WebResponse:
    """A plain answer for people and probes."""
    return WebResponse(status, words.encode() + b"\n", TEXT)
