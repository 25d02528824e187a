"""Calls to a process of this pod over its Unix socket: Envoy's admin interface, and the relay."""

from __future__ import annotations

import asyncio
from pathlib import Path

LONGEST_ANSWER = 64 << 20


class NotAnswering(Exception):
    """Nobody there, or no whole answer in time."""


async def call(socket: Path, method: str, target: str, *, headers: str = "", seconds: float = 5.0) -> tuple[int, bytes]:
    """One request, one connection; status and body."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
            try:
                writer.write(
                    f"{method} {target} HTTP/1.1\r\nhost: stoker\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if b"transfer-encoding: chunked" in head.lower():
                    return status, await _read_chunks(reader)
                return status, await reader.read(LONGEST_ANSWER)
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise NotAnswering(f"{socket.name}: {error or type(error).__name__}") from error


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)
