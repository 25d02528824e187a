"""Kubernetes Events for changes of conditions: what `kubectl describe` shows as history.

Events are help, not truth: they are posted in the background, few per second, and dropped rather than queued without end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from stoker.api.names import FIELD_MANAGER
from stoker.cluster.client import KubeClient
from stoker.cluster.errors import ApiError
from stoker.cluster.resource_types import EVENTS, Object

logger = logging.getLogger(__name__)

QUEUE_LENGTH = 200
# Thousands of models may come at once; what matters then is in their conditions.
PER_SECOND = 2.0
BURST = 25
SAME_AGAIN_SECONDS = 300.0
_NOTE_LENGTH = 1024


class EventPoster:
    """Posts events with a bounded rate; the same reason for the same object once in five minutes."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._queue: asyncio.Queue[Object] = asyncio.Queue(QUEUE_LENGTH)
        self._posted: dict[tuple[str, str], float] = {}
        self.dropped = 0

    def post(
        self, regarding: Object, kind: Literal["Normal", "Warning"], reason: str, note: str, *, repeated: bool = False
    ) -> None:
        """Put an event on its way; ``regarding`` is an object reference. ``repeated``: each time is news."""
        now = time.monotonic()
        same = (regarding["uid"], reason)
        if not repeated and now - self._posted.get(same, -SAME_AGAIN_SECONDS) < SAME_AGAIN_SECONDS:
            return
        try:
            self._queue.put_nowait(self._event(regarding, kind, reason, note))
        except asyncio.QueueFull:
            self.dropped += 1
            return
        self._posted[same] = now
        if len(self._posted) > 4096:
            self._posted = {k: at for k, at in self._posted.items() if now - at < SAME_AGAIN_SECONDS}

    async def run(self) -> None:
        """Post what is queued."""
        tokens, last = float(BURST), time.monotonic()
        while True:
            event = await self._queue.get()
            now = time.monotonic()
            tokens, last = min(BURST, tokens + (now - last) * PER_SECOND), now
            if tokens < 1:
                await asyncio.sleep((1 - tokens) / PER_SECOND)
            tokens -= 1
            try:
                await self._client.create(EVENTS, event)
            except ApiError as error:
                # 404 and 403: the namespace is gone or going.
                logger.debug("event not posted: %s", error)

    def _event(self, regarding: Object, kind: str, reason: str, note: str) -> Object:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": regarding["namespace"], "name": f"{regarding['name']}.{uuid4().hex[:16]}"},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"stoker.dev/{FIELD_MANAGER}",
            "reportingInstance": self._instance[:128],
            "type": kind,
            "reason": reason,
            "action": "Reconcile",
            "note": note[:_NOTE_LENGTH],
            "regarding": regarding,
        }
