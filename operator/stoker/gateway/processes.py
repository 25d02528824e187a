"""What the gateway's processes have in common: log lines, signals, and starting up fast."""

from __future__ import annotations

import gc
import json
import logging
import resource
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class JsonLines(logging.Formatter):
    """One JSON object a line, as everything else in the cluster logs."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def prepare_process(name: str) -> None:
    """Logging and signals of a process that the supervisor started."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(name))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Each held request is a connection, and where 1,024 files are the usual limit, more may be had for the asking.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What was imported stays for ever; the collector need not walk it again and again.
    gc.freeze()


async def until_told() -> None:
    """Returns at SIGTERM or SIGINT."""
    import asyncio  # Not above: the supervisor lives without an event loop, and with 8 MiB less.

    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, told.set)
    await told.wait()


async def run_until_told(*work: Coroutine[Any, Any, None]) -> None:
    """Run endless work beside each other until SIGTERM or SIGINT; that one ends is a bug, and ends the process."""
    import asyncio

    tasks = [asyncio.create_task(endless) for endless in work]
    told = asyncio.create_task(until_told())
    await asyncio.wait((*tasks, told), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            # The supervisor starts the next process.
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
