"""Fakes at the network's edge: gateway pods and agents beside engines, as far as the autoscaler talks to them.

One server answers for all addresses; who is meant is told by the address that was called. What it says is set by tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "fake-token"
LINE_SECONDS = 2.0


@dataclass
class FakeEngine:
    """What an agent says of its engine."""

    running: float | None = 0
    waiting: float | None = 0
    silent: bool = False
    asked: int = 0


@dataclass
class FakeModel:
    """A gateway's numbers for one model."""

    held: int = 0
    in_flight: int = 0
    arrivals: int = 0
    completions: int = 0
    endpoints: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "held": self.held,
            "inFlight": self.in_flight,
            "arrivalsTotal": self.arrivals,
            "completionsTotal": self.completions,
            "endpoints": self.endpoints,
        }


@dataclass
class FakeGateway:
    """A gateway pod: its models, its open streams, and what it was told of models that load."""

    models: dict[str, FakeModel] = field(default_factory=dict)
    silent: bool = False
    instance: str = "first"
    token: str = TOKEN
    loading: list[dict[str, Any]] = field(default_factory=list)
    streams: set[web.StreamResponse] = field(default_factory=set)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    wakes: int = 0
    asked_at: list[float] = field(default_factory=list)
    """When somebody asked for its load, by the clock of the event loop."""

    def model(self, name: str) -> FakeModel:
        return self.models.setdefault(name, FakeModel())

    def page(self) -> bytes:
        models = {name: model.to_json() for name, model in self.models.items()}
        return json.dumps({"instance": self.instance, "models": models}).encode() + b"\n"

    async def ask_for(self, name: str, *, held: int = 1) -> None:
        """Requests come for a model without an endpoint: they are held, and the operator hears of the first at once."""
        model = self.model(name)
        first = model.held == 0
        model.held += held
        model.arrivals += max(1, held)
        if first:
            self.wakes += 1
            line = {"instance": self.instance, "wake": [name], "models": {name: model.to_json()}}
            await self.say(json.dumps(line).encode() + b"\n")

    async def say(self, line: bytes) -> None:
        for stream in list(self.streams):
            try:
                await stream.write(line)
            except ConnectionError:
                self.streams.discard(stream)


@dataclass
class FakePods:
    """All of them, by address."""

    gateways: dict[str, FakeGateway] = field(default_factory=dict)
    engines: dict[str, FakeEngine] = field(default_factory=dict)
    any_engine: bool = False
    """Engines that no test has named answer, too, and have nothing to do."""
    agent_port: int = 0
    gateway_port: int = 0

    def gateway(self, ip: str) -> FakeGateway:
        return self.gateways.setdefault(ip, FakeGateway())

    def engine(self, ip: str) -> FakeEngine:
        return self.engines.setdefault(ip, FakeEngine())

    async def on_load(self, request: web.Request) -> web.StreamResponse:
        ip, port = request.transport.get_extra_info("sockname")[:2]  # type: ignore[union-attr]
        if port == self.agent_port:
            return self._engine_load(ip)
        gateway = self.gateways.get(ip)
        if gateway is None or gateway.silent:
            return web.Response(status=503)
        if request.headers.get("Authorization") != f"Bearer {gateway.token}":
            return web.Response(status=401)
        if "watch" not in request.query:
            gateway.asked_at.append(asyncio.get_running_loop().time())
            return web.Response(body=gateway.page(), content_type="application/json")
        return await self._watch(request, gateway)

    def _engine_load(self, ip: str) -> web.Response:
        engine = self.engine(ip) if self.any_engine else self.engines.get(ip)
        if engine is None or engine.silent:
            return web.Response(status=503)
        engine.asked += 1
        return web.json_response({"up": True, "requestsRunning": engine.running, "requestsWaiting": engine.waiting})

    async def _watch(self, request: web.Request, gateway: FakeGateway) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        gateway.streams.add(stream)
        gateway.streaming.set()
        try:
            while not gateway.silent:
                await stream.write(gateway.page())
                await asyncio.sleep(LINE_SECONDS)
        except ConnectionError:
            pass
        finally:
            gateway.streams.discard(stream)
            if not gateway.streams:
                gateway.streaming.clear()
        return stream

    async def on_loading(self, request: web.Request) -> web.Response:
        ip = request.transport.get_extra_info("sockname")[0]  # type: ignore[union-attr]
        gateway = self.gateways.get(ip)
        if gateway is None or gateway.silent:
            return web.Response(status=503)
        if request.headers.get("Authorization") != f"Bearer {gateway.token}":
            return web.Response(status=401)
        gateway.loading.append((await request.json())["models"])
        return web.Response(status=204)


@asynccontextmanager
async def fake_pods(*hosts: str, agent_port: int = 0, gateway_port: int = 0) -> AsyncIterator[FakePods]:
    """Listening on these addresses of the loopback, on free ports unless told."""
    pods = FakePods()
    app = web.Application()
    app.router.add_get("/load", pods.on_load)
    app.router.add_post("/loading", pods.on_loading)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for host in hosts:
            for name, wanted in (("agent_port", agent_port), ("gateway_port", gateway_port)):
                port = getattr(pods, name) or wanted
                site = web.TCPSite(runner, host, port, reuse_address=True)
                await site.start()
                setattr(pods, name, site._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]
        yield pods
    finally:
        for gateway in pods.gateways.values():
            gateway.silent = True
        await runner.cleanup()
