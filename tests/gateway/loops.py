"""A server of a test, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web
from ports import free_port

Result = TypeVar("Result")


class ThreadedServer:
    """An aiohttp application on loopback; the test calls into its loop from outside."""

    addresses: tuple[str, ...] = ("127.0.0.1",)
    context: ssl.SSLContext | None = None
    """With one it speaks TLS."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self.port = 0

    def application(self) -> web.Application:
        raise NotImplementedError

    def start(self) -> None:
        """Listen; after a stop() on the same port again."""
        self.call(self._start())

    def stop(self) -> None:
        """Nobody listens any more, and open connections are cut."""
        self.call(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _start(self) -> None:
        self._runner = web.AppRunner(
            self.application(), shutdown_timeout=0.1, handler_cancellation=True, access_log=None
        )
        await self._runner.setup()
        self.port = self.port or free_port()
        for address in self.addresses:
            site = web.TCPSite(self._runner, address, self.port, reuse_address=True, ssl_context=self.context)
            await site.start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
