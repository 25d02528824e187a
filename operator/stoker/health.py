"""The operator's HTTP port: /healthz, /readyz, /metrics, /debug/scaling/NAMESPACE/NAME."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Explain = Callable[[str, str], Mapping[str, object] | None]
"""By namespace and name; None where there is nothing to say."""
Check = Callable[[], str]
"""Says what is wrong; empty when nothing is."""


class HealthServer:
    """Answers kubelet and Prometheus; that it answers at all shows that the event loop turns."""

    def __init__(self, *, healthy: Check, ready: Check, collect: Callable[[], None], explain_scaling: Explain) -> None:
        self._healthy = healthy
        self._ready = ready
        self._collect = collect
        self._explain_scaling = explain_scaling
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> None:
        """Listen on all addresses; port 0 takes a free one."""
        app = web.Application()
        app.router.add_get("/healthz", self._on_health)
        app.router.add_get("/readyz", self._on_ready)
        app.router.add_get("/metrics", self._on_metrics)
        app.router.add_get("/debug/scaling/{namespace}/{name}", self._on_scaling)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, port=port).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _on_health(self, _: web.Request) -> web.Response:
        return _answer(self._healthy())

    async def _on_ready(self, _: web.Request) -> web.Response:
        return _answer(self._ready())

    async def _on_metrics(self, _: web.Request) -> web.Response:
        self._collect()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _on_scaling(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        found = self._explain_scaling(namespace, name)
        if found is None:
            words = f"ModelDeployment {namespace}/{name} does not scale itself here: it has no spec.autoscaling, or another replica of the operator leads\n"
            return web.Response(status=404, text=words)
        return web.json_response(found)


def _answer(problem: str) -> web.Response:
    return web.Response(status=503 if problem else 200, text=(problem or "ok") + "\n")
