"""A fake engine: the OpenAI paths that a gateway lets through, and a record of everything that reached it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from gateway.fake_kubernetes import ADDRESSES
from gateway.loops import ThreadedServer


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class FakeEngine(ThreadedServer):
    """Streams `n` chunks, `gap` seconds apart (both from the request's `metadata`); remembers what it saw."""

    # As many models as there are addresses find it as if it were theirs alone.
    addresses = ("127.0.0.1", *ADDRESSES.values())

    def __init__(self, name: str = "engine", port: int = 0) -> None:
        super().__init__()
        self.port = port
        self.name = name
        self.seen: list[Seen] = []
        self.cancelled = 0
        self.running = 0
        self.most_running = 0
        self.fails_with = 0
        """A status to answer everything with; 0 for none."""
        self.ended = 0
        """Streams that had begun when this was raised come to their end."""
        self.says = ""
        """Each piece of a stream; empty: its number."""
        self.start()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        if self.fails_with:
            return web.json_response({"error": {"message": "not now"}}, status=self.fails_with)
        if request.content_type == "multipart/form-data":
            return web.json_response({"text": f"heard by {self.name}"})
        asked = json.loads(body) if body else {}
        if request.path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            return web.json_response({"object": "list", "model": asked["model"], "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})  # fmt: skip
        if asked.get("stream"):
            return await self._stream(request, asked)
        await asyncio.sleep(float(asked.get("metadata", {}).get("wait", 0)))
        message = {"role": "assistant", "content": f"from {self.name}"}
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": asked.get("model", ""),
                "choices": [{"index": 0, "message": message, "text": message["content"], "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            }
        )

    async def _stream(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        metadata, ended = asked.get("metadata", {}), self.ended
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for number in range(int(metadata.get("n", 5))):
                if self.ended != ended:
                    break
                chunk = {
                    "id": "1",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": asked["model"],
                    "choices": [{"index": 0, "delta": {"content": self.says or f"{number} "}, "finish_reason": None}],
                }
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                await asyncio.sleep(float(metadata.get("gap", 0)))
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.cancelled += 1
            raise
        return response
