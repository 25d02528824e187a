"""A port of the loopback that answers each request with what a fake says, and closes."""

from __future__ import annotations

import asyncio

Answer = tuple[int, str]


class LoopbackServer:
    """The transport that the fakes have in common."""

    port = 0

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def respond(self, path: str, head: bytes) -> Answer | None:
        """None: it never answers."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await self.respond(head.split(b" ")[1].decode(), head)
            if answer is None:
                await reader.read()
                return
            status, body = answer
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
