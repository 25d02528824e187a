"""A fake engine that says what it is told to say, and adds up the tokens it says it has used."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from aiohttp import web
from gateway.loops import ThreadedServer


class CountingEngine(ThreadedServer):
    """`metadata` of a request orders the answer: answer (JSON), events or lines (of a stream, in pieces of `cut` bytes), or prompt and
    completion tokens that are then told in OpenAI's form."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.told: Counter[str] = Counter()
        """requests, prompt and completion of answers that were sent to their end."""
        self.begun = 0
        self.running = 0
        self.start()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        orders = body.get("metadata", {})
        self.begun += 1
        self.running += 1
        try:
            return await self._answer(request, body, orders)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any], orders: dict[str, Any]) -> web.StreamResponse:
        if "big" in orders:
            return web.json_response(
                {"usage": {"prompt_tokens": 7, "total_tokens": 7}, "data": [0.12345] * orders["big"]}
            )
        await asyncio.sleep(float(orders.get("wait", 0)))
        if "answer" in orders:
            return web.json_response(orders["answer"])
        prompt, completion = orders.get("prompt", 1), orders.get("completion", 2)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if not body.get("stream") and "lines" not in orders:
            self._tell(prompt, completion)
            return web.json_response({"choices": [{"message": {"content": "hello"}}], "usage": usage})
        if "lines" in orders:
            return await self._write(request, orders, "application/x-ndjson", orders["lines"])
        events = orders.get("events")
        if events is None:
            events = [chunk(f"word {number}") for number in range(completion)]
            if (body.get("stream_options") or {}).get("include_usage"):
                events.append("data: " + json.dumps({"choices": [], "usage": usage}) + "\n\n")
            events.append("data: [DONE]\n\n")
        response = await self._write(request, orders, "text/event-stream", events)
        self._tell(prompt, completion)
        return response

    async def _write(
        self, request: web.Request, orders: dict[str, Any], kind: str, events: list[str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": kind})
        await response.prepare(request)
        cut = orders.get("cut")
        for event in (
            [text[i : i + cut] for text in ["".join(events)] for i in range(0, len(text), cut)] if cut else events
        ):
            await response.write(event.encode())
            await asyncio.sleep(float(orders.get("gap", 0)))
        return response

    def _tell(self, prompt: int, completion: int) -> None:
        self.told.update(requests=1, prompt=prompt, completion=completion)


def chunk(text: str, **more: Any) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}], **more}) + "\n\n"
