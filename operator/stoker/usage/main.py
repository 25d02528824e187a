"""``stoker usage``: one small process for each gateway. It may be away at any time: what it has not read yet waits in the pods."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from stoker.api.names import gateway_pods_name
from stoker.gateway.processes import prepare_process, run_until_told
from stoker.usage.collect import Collector, Thread, follow_pods, today
from stoker.usage.serve import Server
from stoker.usage.store import Store, StoreUnavailable

FORGET_SECONDS = 3600.0


@dataclass(frozen=True)
class Settings:
    """Taken from the environment of the pod."""

    namespace: str
    gateway: str
    token_file: Path
    """The bearer token between gateway pods, operator and this; read each time, for it may be given anew."""
    folder: Path
    database_url: str
    """Of PostgreSQL; empty for SQLite in the folder."""
    retention_days: int
    port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """KeyError names what is missing."""
        get = environment.get
        return cls(
            namespace=environment["STOKER_USAGE_NAMESPACE"],
            gateway=environment["STOKER_USAGE_GATEWAY"],
            token_file=Path(environment["STOKER_USAGE_TOKEN_FILE"]),
            folder=Path(get("STOKER_USAGE_FOLDER", "/var/lib/stoker")),
            database_url=get("STOKER_USAGE_DATABASE_URL", ""),
            retention_days=int(get("STOKER_USAGE_RETENTION_DAYS", "400")),
            port=int(get("STOKER_USAGE_PORT", "8090")),
        )

    def token(self) -> str:
        """Empty while there is none: then nobody is let in."""
        try:
            return self.token_file.read_text().strip()
        except OSError:
            return ""


async def forget_old(thread: Thread, retention_days: int) -> None:
    """Endless; now and then."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            await thread.call(thread.store.forget, today(), retention_days)
        await asyncio.sleep(FORGET_SECONDS)


async def serve(settings: Settings) -> None:
    """Collect and answer until told to stop."""
    name = f"{settings.namespace}/{settings.gateway}"
    store = Store.at(name, settings.database_url) if settings.database_url else Store.in_folder(name, settings.folder)
    thread = Thread(store)
    collector = Collector(thread, settings.token)
    runner = web.AppRunner(Server(thread, collector, settings.token).app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, port=settings.port).start()
    await run_until_told(
        follow_pods(settings.namespace, gateway_pods_name(settings.gateway), collector),
        forget_old(thread, settings.retention_days),
    )
    collector.follow(())
    await runner.cleanup()
    await thread.call(store.close)


def main(arguments: list[str]) -> int:
    """Entry point of the role ``usage``."""
    if arguments:
        sys.stderr.write("usage: stoker usage (settings come from the environment, see docs/usage.md)\n")
        return 2
    prepare_process("usage")
    try:
        settings = Settings.from_environment()
    except KeyError as error:
        sys.stderr.write(f"stoker usage: the environment variable {error.args[0]} is not set\n")
        return 2
    uvloop.run(serve(settings))
    return 0
