"""Port 9090: what kubelet, Prometheus and the operator ask of a gateway pod.

/startup   the files Envoy needs are there and the policy has a configuration; Envoy's container starts after it
/healthz   the policy process runs
/readyz    requests would be served: configured, Envoy live, not draining
/metrics   Prometheus
/usage-log what the access log says, for `stoker usage` (see usage_log)
/load      requests per model, and /loading, how far models are: for the operator (see load)
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from stoker.gateway import admin
from stoker.gateway.admin import NotAnswering
from stoker.gateway.decision import ENGINES_CLUSTER
from stoker.gateway.envoy.clusters import endpoints_file
from stoker.gateway.metrics import DecisionMetrics
from stoker.gateway.settings import Settings
from stoker.gateway.state import StateReader
from stoker.gateway.usage_log import UsageLog
from stoker.gateway.web import Handler, WebRequest, WebResponse, text

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ProbeServer:
    """Answers on port 9090, in the policy process."""

    def __init__(
        self,
        settings: Settings,
        reader: StateReader,
        metrics: DecisionMetrics,
        load: Handler,
        draining: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        ProcessCollector(namespace="stoker_gateway_policy", registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.usage_log = UsageLog(settings.log, reader)
        self._draining = draining
        self._routes = {
            "/startup": self._startup,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._serve_metrics,
            "/load": load,
            "/loading": load,
            "/usage-log": self.usage_log.handle,
        }

    async def handle(self, request: WebRequest) -> WebResponse:
        """One request of kubelet, Prometheus or the operator."""
        route = self._routes.get(request.target.partition("?")[0])
        if route is None:
            return text(404, "not found; there are " + " ".join(self._routes))
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
        if self._draining():
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
