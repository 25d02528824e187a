"""Port 9090 for the operator: what runs and waits here, told at once when a model must be woken, and how far its start is.

GET  /load          one JSON object; the portal may ask for it, too
GET  /load?watch=1  one a line, for as long as the caller listens
POST /loading       what the operator knows of models that are starting
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from stoker.gateway.cold_start import ColdStarts
from stoker.gateway.dispatch import Dispatcher
from stoker.gateway.state import StateReader
from stoker.gateway.web import JSON, TEXT, WebRequest, WebResponse

WATCH_SECONDS = 2.0
MOST_WAKES = 10_000


class LoadApi:
    """The operator's side of the policy process."""

    def __init__(self, reader: StateReader, dispatcher: Dispatcher, cold_starts: ColdStarts) -> None:
        self._reader = reader
        self._dispatcher = dispatcher
        self._cold_starts = cold_starts
        self._watchers: set[asyncio.Queue[str]] = set()
        dispatcher.on_wake = self._wake

    async def handle(self, request: WebRequest) -> WebResponse:
        """With the bearer token of the configuration only, or the portal's, which reads."""
        table = self._reader.table
        said = request.headers.get("authorization", "")
        reads = request.method == "GET" and request.target == "/load"
        if table is None or not (table.is_ours(said) or (reads and table.is_portal(said))):
            return WebResponse(401, b"the bearer token of the gateway's configuration is needed\n", TEXT)
        path, _, query = request.target.partition("?")
        if path == "/loading":
            return self._take_loading(request)
        if query == "watch=1":
            return WebResponse(200, b"", chunks=self._watch())
        return WebResponse(200, _line(self._load()), JSON)

    def _take_loading(self, request: WebRequest) -> WebResponse:
        if request.method != "POST":
            return WebResponse(405, b"POST\n", TEXT)
        try:
            failed = self._cold_starts.update(json.loads(request.body))
        except (ValueError, TypeError, AttributeError) as error:
            return WebResponse(400, f"not taken over: {error}\n".encode(), TEXT)
        self._dispatcher.fail(failed)
        return WebResponse(200, b"ok\n", TEXT)

    def _load(self) -> dict[str, Any]:
        return {"instance": self._dispatcher.instance, "models": self._dispatcher.snapshot()}

    def _wake(self, cluster: str) -> None:
        for queue in self._watchers:
            if queue.qsize() < MOST_WAKES:
                queue.put_nowait(cluster)

    async def _watch(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            loop = asyncio.get_running_loop()
            while True:
                yield _line(self._load())
                due = loop.time() + WATCH_SECONDS
                while (left := due - loop.time()) > 0:
                    try:
                        first = await asyncio.wait_for(queue.get(), left)
                    except TimeoutError:
                        break
                    woken = [first, *(queue.get_nowait() for _ in range(queue.qsize()))]
                    models = self._dispatcher.snapshot(woken)
                    yield _line({"instance": self._dispatcher.instance, "wake": list(models), "models": models})
        finally:
            self._watchers.discard(queue)


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
