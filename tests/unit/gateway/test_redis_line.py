"""The line where there is no Redis; with a real one: tests/gateway/test_shared_limits.py."""

from __future__ import annotations

import asyncio
import socket

import pytest

from stoker.gateway.redis_line import RedisLine


def line(url: str, lost: list[Exception]) -> RedisLine:
    return RedisLine(url, {"count": "return 1"}, lost.append)


async def run(tried: RedisLine) -> None:
    await tried.run(lambda first: None, lambda: None, 1.0, "news", lambda message: None)


def test_before_it_runs_nobody_waits() -> None:
    answers: list[object] = []
    tried = line("redis://127.0.0.1:1/0", [])
    tried.call("count", ["key"], [1], answers.append)
    tried.send("SET", "key", 1)
    assert answers == [None]


async def test_an_address_that_is_none_is_an_error_of_its_own() -> None:
    tried = line("http://127.0.0.1/", [])
    with pytest.raises(ValueError, match="scheme"):
        await run(tried)
    assert not tried.open


async def test_where_nobody_listens_those_who_ask_meanwhile_get_no_answer_and_it_is_told_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    lost: list[Exception] = []
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    tried = line(f"redis://127.0.0.1:{port}/0", lost)
    running = asyncio.create_task(run(tried))
    while not tried.open and not lost:
        await asyncio.sleep(0)
    tried.call("count", ["key"], [1], answered.set_result)
    assert await asyncio.wait_for(answered, 60) is None
    assert not tried.open
    assert len(lost) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_redis_that_says_nothing_is_given_up_and_its_callers_go_on() -> None:
    """The fake is a socket that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        lost: list[Exception] = []
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        tried = line(f"redis://127.0.0.1:{listening.getsockname()[1]}/0", lost)
        running = asyncio.create_task(run(tried))
        while not tried.open:
            await asyncio.sleep(0)
        tried.call("count", ["key"], [1], answered.set_result)
        assert await asyncio.wait_for(answered, 60) is None
        assert len(lost) == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
