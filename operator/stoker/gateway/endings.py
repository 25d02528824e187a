"""Tells of requests that have ended, as the access log shows them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from stoker.gateway.access_log import LogReader

logger = logging.getLogger(__name__)

BUSY_SECONDS = 0.02
"""Between two looks while somebody waits for an end; Envoy writes every 50 ms."""
IDLE_SECONDS = 0.25
Line = dict[str, Any]


def parse_lines(data: bytes) -> Iterator[Line]:
    """Whole lines as objects; what a crash has left half-written is left out."""
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


async def follow_endings(reader: LogReader, tell: Callable[[Line], None], busy: Callable[[], bool]) -> None:
    """Endless."""
    while True:
        data = reader.read()
        for line in parse_lines(data):
            tell(line)
        if not data:
            await asyncio.sleep(BUSY_SECONDS if busy() else IDLE_SECONDS)
        else:
            # Let decisions in between two pieces of a long log.
            await asyncio.sleep(0)
