"""Port 9091: the end of a gateway pod. Envoy's preStop hook calls /drain, which returns when no request is running (or the time is over).

Whoever can call it takes the pod out of service, and the kubelet cannot show who it is: its hooks carry no secret that others could not
read in the pod's template. So it has a port of its own, for which the NetworkPolicy names nobody; the node's kubelet is always let in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time

from stoker.gateway import admin
from stoker.gateway.admin import NotAnswering
from stoker.gateway.envoy.listener import STAT_PREFIX
from stoker.gateway.settings import Settings
from stoker.gateway.web import WebRequest, WebResponse, text

logger = logging.getLogger(__name__)

# Endpoints take a moment to leave every node's tables; until then new connections still come.
SHORTEST_SECONDS = 3.0
POLL_SECONDS = 0.25
RUNNING = f"http.{STAT_PREFIX}.downstream_rq_active"
QUERY = f"/stats?format=json&filter=%5E{RUNNING.replace('.', '%5C.')}%24"


class Drain:
    """Takes no new connections, and waits for what runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[str] | None = None

    @property
    def has_begun(self) -> bool:
        """From then on the pod is not ready."""
        return self._task is not None

    async def handle(self, request: WebRequest) -> WebResponse:
        """One request of the kubelet, which can only GET."""
        if request.target != "/drain":
            return text(404, "not found; there is /drain")
        if request.method != "GET":
            return text(405, "GET")
        if self._task is None:
            # A task of its own: it goes on when the caller leaves, and a second caller waits for the same end.
            self._task = asyncio.get_running_loop().create_task(self._drain())
        return text(200, await asyncio.shield(self._task))

    async def _drain(self) -> str:
        began = time.monotonic()
        for target in ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit"):
            try:
                await admin.call(self._settings.admin_socket, "POST", target)
            except NotAnswering as error:
                logger.warning("drain: %s", error)
                return "Envoy is gone already"
        logger.info("draining")
        running: int | None = None
        while (passed := time.monotonic() - began) < self._settings.drain_seconds:
            running = await self._running()
            if running is None or (running == 0 and passed >= SHORTEST_SECONDS):
                logger.info("drained in %.1f s", passed)
                return "drained"
            await asyncio.sleep(POLL_SECONDS)
        logger.warning("drain: %.0f s are over, %s requests are cut", passed, running)
        return "time is over"

    async def _running(self) -> int | None:
        """Requests Envoy is working on; None when it is gone."""
        try:
            status, body = await admin.call(self._settings.admin_socket, "GET", QUERY)
        except NotAnswering:
            return None
        if status != 200:
            return None
        counts: list[int] = [entry["value"] for entry in json.loads(body)["stats"] if entry.get("name") == RUNNING]
        return sum(counts)
