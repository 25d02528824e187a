"""How the policy learns that requests have ended: from the access log, and every two seconds from Envoy's gauges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from stoker.gateway import admin
from stoker.gateway.access_log import LogReader
from stoker.gateway.admin import NotAnswering
from stoker.gateway.decision import ALLOWED, TOLD_OF_SERVED
from stoker.gateway.settings import Settings

logger = logging.getLogger(__name__)

PRESSED_SECONDS = 0.02
"""Between two looks while somebody waits for an end, or the next one would; Envoy writes every 50 ms."""
CALM_SECONDS = 0.1
"""While there is room: a look is cheap, but waking up fifty times a second is not."""
GAUGES_SECONDS = 2.0
Line = dict[str, Any]


@dataclass(slots=True)
class Gauges:
    """What Envoy counts, by address; addresses without any are left out."""

    active: dict[str, int] = field(default_factory=dict)
    """Requests that run there."""
    failed: dict[str, int] = field(default_factory=dict)
    """Connections that could not be made, since the address is known."""
    answered: dict[str, int] = field(default_factory=dict)
    """Answers below 500, since then."""


def parse_lines(data: bytes) -> Iterator[Line]:
    """Whole lines as objects; what a crash has left half-written is left out."""
    for text in data.splitlines():
        try:
            line = orjson.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield flatten(line)


def flatten(line: Line) -> Line:
    """What the policy said of a request, and its tokens, beside what Envoy says."""
    said, tokens = line.pop("said", None), line.pop("tokens", None)
    if isinstance(said, dict):
        if isinstance(served := said.get("x-gw-served"), str):
            # The many, and what else there is says nothing that counts.
            line["reason"], line["ticket"] = ALLOWED, said.get("x-gw-ticket")
            for name, value in zip(TOLD_OF_SERVED, served.split("\t"), strict=False):
                if value:
                    line[name] = value
        else:
            for name, value in said.items():
                line[name.removeprefix("x-gw-")] = value
    if isinstance(tokens, dict):
        line.update(tokens)
    return line


async def follow_endings(
    reader: LogReader,
    tell: Callable[[bytes], None],
    busy: Callable[[], bool],
    pressed: Callable[[], bool],
    begun: asyncio.Event,
) -> None:
    """Endless; tells whole lines. `begun` is set when the first request runs after a time without any."""
    while True:
        if not busy():
            begun.clear()
            await begun.wait()
        data = reader.read()
        if data:
            tell(data)
            # Let decisions in between two pieces of a long log.
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(PRESSED_SECONDS if pressed() else CALM_SECONDS)


async def follow_gauges(settings: Settings, tell: Callable[[Gauges], None], busy: Callable[[], bool]) -> None:
    """Endless."""
    while True:
        await asyncio.sleep(GAUGES_SECONDS)
        if busy() and (gauges := await read_gauges(settings)) is not None:
            tell(gauges)


async def read_gauges(settings: Settings) -> Gauges | None:
    """What Envoy counts; None when it does not answer."""
    try:
        status, body = await admin.call(settings.admin_socket, "GET", "/clusters", seconds=1.0)
    except NotAnswering as error:
        logger.debug("gauges: %s", error)
        return None
    return parse_gauges(body) if status == 200 else None


def parse_gauges(clusters: bytes) -> Gauges:
    """What /clusters says."""
    gauges = Gauges()
    counts = {b"rq_active": gauges.active, b"cx_connect_fail": gauges.failed, b"rq_success": gauges.answered}
    for line in clusters.split(b"\n"):
        head, _, count = line.rpartition(b"::")
        if count == b"0":
            continue
        place, _, name = head.rpartition(b"::")
        if (found := counts.get(name)) is not None:
            # One replica may be in two clusters: everybody's, and that of a route.
            address = place.decode().partition("::")[2]
            found[address] = found.get(address, 0) + int(count)
    return gauges
