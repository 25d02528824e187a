"""A fake at the network's edge: an HTTP server that answers as it is told to, and notes what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from stoker.cluster.client import KubeClient
from stoker.cluster.connection import Connection

Answer = Callable[[web.Request], Any]


@dataclass
class FakeApiServer:
    """Answers by turns from ``script``; the last answer goes on for ever."""

    script: list[Answer]
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.asked.append((request.method, request.path_qs))
        self.tokens.append(request.headers.get("Authorization", ""))
        body = await request.text()
        self.bodies.append(json.loads(body) if body else None)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        made = answer(request)
        if hasattr(made, "__await__"):
            made = await made
        return made if isinstance(made, web.StreamResponse) else web.json_response(made)


def status(code: int, reason: str, **headers: str) -> Answer:
    """A refusal as the API server words it."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"because {reason}"}
    return lambda _: web.json_response(body, status=code, headers=headers)


def listing(version: str, *items: Any) -> Answer:
    """A list of objects."""
    return lambda _: {"metadata": {"resourceVersion": version}, "items": list(items)}


def stream(*events: Any, pieces: int = 1) -> Answer:
    """A watch that tells these events, cut into so many pieces, and ends."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        size = -(-len(text) // pieces)
        for start in range(0, len(text), size):
            await response.write(text[start : start + size])
        await response.write_eof()
        return response

    return answer


@asynccontextmanager
async def serving(*script: Answer, **connection: Any) -> AsyncIterator[tuple[FakeApiServer, KubeClient]]:
    """A fake server and a client for it."""
    fake = FakeApiServer(list(script))
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{tail:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with KubeClient(Connection(server=f"http://{host}:{port}", **connection)) as client:
            yield fake, client
    finally:
        await runner.cleanup()
