"""The access log handed on, piece by piece, to the process that adds up usage (`stoker usage`).

A reader asks for what follows a place that it has stored; asking is how it says that everything before is safe. Nothing is kept of
it here, so neither side can count twice, whichever of them is killed.

GET /usage-log                                   204; only x-stoker-log
GET /usage-log?log=L&number=N&offset=O&wait=10   lines from there on, at once or when there are some; x-stoker-next: N:O behind them
"""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from urllib.parse import parse_qs

from stoker.gateway.access_log import LogReader
from stoker.gateway.state import StateReader, write_file
from stoker.gateway.web import TEXT, WebRequest, WebResponse

POLL_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 30.0
LINES = "application/jsonl"
FOLLOWED_SECONDS = 60.0
"""Who has not asked for so long is not waited for at the end."""


def log_id(folder: Path) -> str:
    """Tells this log from all others: its numbers and offsets mean nothing elsewhere. It lives as long as the log does."""
    path = folder / "id"
    if not path.exists():
        write_file(path, uuid.uuid4().hex.encode())
    return path.read_text()


class UsageLog:
    """Serves the log of this pod."""

    def __init__(self, folder: Path, reader: StateReader) -> None:
        self._folder = folder
        self._reader = reader
        self._asked_at = float("-inf")
        self._asked_for = (0, 0)

    async def handle(self, request: WebRequest) -> WebResponse:
        """One question of the reader's."""
        table = self._reader.table
        if table is None or not table.is_ours(request.headers.get("authorization", "")):
            return WebResponse(401, b"the bearer token of the gateway's configuration is needed\n", TEXT)
        log = log_id(self._folder)
        query = {name: values[0] for name, values in parse_qs(request.target.partition("?")[2]).items()}
        if not query:
            return WebResponse(204, b"", TEXT, headers=(("x-stoker-log", log),))
        if query.get("log") != log:
            return WebResponse(409, b"this is another log\n", TEXT, headers=(("x-stoker-log", log),))
        try:
            number, offset = int(query["number"]), int(query["offset"])
            wait = min(float(query.get("wait", "0")), LONGEST_WAIT_SECONDS)
        except (KeyError, ValueError):
            return WebResponse(400, b"number and offset say from where\n", TEXT)
        self._asked_at, self._asked_for = time.monotonic(), (number, offset)
        reader = LogReader(self._folder, number, offset)
        try:
            until = time.monotonic() + wait
            # Envoy says nothing when it writes, so there is no event to wait for.
            while not (data := reader.read()) and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
        finally:
            reader.close()
        place = (("x-stoker-log", log), ("x-stoker-next", f"{reader.number}:{reader.offset}"))
        return WebResponse(200, data, LINES, headers=place)

    async def handed_on(self, seconds: float) -> None:
        """Returns when the reader has everything, has not been here lately, or the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and time.monotonic() - self._asked_at < FOLLOWED_SECONDS:
            reader = LogReader(self._folder, *self._asked_for)
            try:
                if not reader.read():
                    return
            finally:
                reader.close()
            await asyncio.sleep(POLL_SECONDS)
