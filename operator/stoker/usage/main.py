"""``stoker usage``: one small process for each gateway. It may be away at any time: what it has not read yet waits in the pods."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from stoker.api.names import gateway_pods_name
from stoker.environment import Environment
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
    def from_environment(cls, environment: Environment) -> Settings:
        """Namespace, gateway and token have no default."""
        return cls(
            namespace=environment.required("STOKER_USAGE_NAMESPACE"),
            gateway=environment.required("STOKER_USAGE_GATEWAY"),
            token_file=Path(environment.required("STOKER_USAGE_TOKEN_FILE")),
            folder=environment.folder("STOKER_USAGE_FOLDER", Path("/var/lib/stoker")),
            database_url=environment.text("STOKER_USAGE_DATABASE_URL"),
            retention_days=environment.number("STOKER_USAGE_RETENTION_DAYS", 400),
            port=environment.number("STOKER_USAGE_PORT", 8090),
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


def main() -> int:
    """Entry point of the role ``usage``."""
    prepare_process("usage")
    uvloop.run(serve(Settings.from_environment(Environment())))
    return 0
