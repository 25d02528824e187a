from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stoker.gateway.admin import NotAnswering, call
from stoker.gateway.web import WebRequest, WebResponse, protocol_factory


async def echo(request: WebRequest) -> WebResponse:
    if request.target == "/broken":
        raise RuntimeError("a bug")
    if request.target == "/slow":
        await asyncio.sleep(60)
    text = f"{request.method} {request.target} {request.headers.get('x-y', '')}"
    return WebResponse(200, text.encode(), headers=[("x-z", "1")])


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Path]:
    server = await asyncio.get_running_loop().create_unix_server(protocol_factory(echo), str(path))
    async with server:
        yield path


async def exchange(path: Path, request: bytes, answers: int = 1) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    received = b""
    async with asyncio.timeout(60):
        while received.count(b"HTTP/1.1 ") < answers or not received.endswith((b"\n", b"z", b" ")):
            data = await reader.read(65536)
            if not data:
                break
            received += data
    writer.close()
    return received


async def test_a_call_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as path:
        assert await call(path, "GET", "/x?y=1", headers="x-y: z\r\n") == (200, b"GET /x?y=1 z")


async def test_bodies_are_read_and_thrown_away_however_they_are_sent(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as path:
        plain = b"POST /a HTTP/1.1\r\nx-y: z\r\ncontent-length: 100000\r\n\r\n" + b"b" * 100_000
        chunked = b"POST /c HTTP/1.1\r\nx-y: z\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        received = await exchange(path, plain)
        assert received.endswith(b"POST /a z")
        assert (await exchange(path, chunked)).endswith(b"POST /c z")


async def test_a_connection_is_kept_for_the_next_request(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        for number in range(3):
            writer.write(f"GET /{number} HTTP/1.1\r\nx-y: z\r\n\r\n".encode())
            async with asyncio.timeout(60):
                assert await reader.readuntil(f"/{number} z".encode())
        writer.close()


async def test_a_bug_is_a_500_and_the_server_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as path:
        assert (await call(path, "GET", "/broken"))[0] == 500
        assert (await call(path, "GET", "/x"))[0] == 200


async def test_what_is_no_http_is_hung_up_on(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as path:
        assert await exchange(path, b"nonsense\r\n\r\n") == b""


async def test_nobody_there_and_no_answer_in_time_are_both_not_answering(tmp_path: Path) -> None:
    with pytest.raises(NotAnswering):
        await call(tmp_path / "nobody", "GET", "/")
    async with serving(tmp_path / "s") as path:
        with pytest.raises(NotAnswering):
            await call(path, "GET", "/slow", seconds=0.05)
