"""Process of the sidecar."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime

import uvloop

from stoker.agent.config import AgentConfig, ConfigError, parse_config
from stoker.agent.engine import EngineClient
from stoker.agent.pages import Pages
from stoker.agent.server import HttpServer
from stoker.agent.watch import EngineWatch


def main() -> int:
    """0 after a stop; 1 when something broke; 2 where its configuration cannot be used."""
    try:
        config = parse_config(os.environ)
    except ConfigError as error:
        log("error", str(error))
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config))


async def serve(config: AgentConfig) -> int:
    """Until SIGTERM; running calls of /drain are answered first, since the kubelet ends sidecars last."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # As PID 1 a process gets no default action.
        loop.add_signal_handler(number, stop.set)
    watch = EngineWatch(EngineClient(config).read_sample, config.interval_seconds, config.timeout_seconds)
    server = HttpServer(Pages(config, watch).routes)
    port = await server.start(config.host, config.port)
    log("info", "serving", port=port, engine=config.engine, model=config.model, enginePort=config.engine_port)
    sampling = asyncio.create_task(watch.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((sampling, stopping), return_when=asyncio.FIRST_COMPLETED)
    if sampling.done():
        # Numbers that no longer move are worse than a restart.
        log("error", "sampling ended", error=repr(sampling.exception()))
        return 1
    log("info", "stopping", drains=watch.drains)
    await server.finish()
    sampling.cancel()
    return 0


def log(level: str, event: str, **fields: object) -> None:
    """One line of JSON."""
    document = {**fields, "event": event, "level": level, "timestamp": datetime.now(UTC).isoformat()}
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
