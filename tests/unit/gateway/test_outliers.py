from __future__ import annotations

import asyncio
import contextlib

import pytest

from stoker.gateway import outliers
from stoker.gateway.outliers import Gauges, Outliers, can_connect

ONE, TWO = "10.0.0.1:8080", "10.0.0.2:8080"
BOTH = frozenset({ONE, TWO})


class Told:
    def __init__(self) -> None:
        self.out: list[set[str]] = []

    def __call__(self, out: frozenset[str]) -> None:
        self.out.append(set(out))


async def test_whoever_answered_nothing_and_could_not_be_reached_is_left_out() -> None:
    told = Told()
    watched = Outliers(told, Gauges())
    watched.look(Gauges(failed={ONE: 1}, answered={TWO: 5}), BOTH)
    assert told.out == [{ONE}]
    watched.look(Gauges(failed={ONE: 3}, answered={TWO: 9}), BOTH)
    assert told.out == [{ONE}], "nothing new"


async def test_one_that_also_answers_is_only_busy() -> None:
    told = Told()
    watched = Outliers(told, Gauges(answered={ONE: 4}))
    watched.look(Gauges(failed={ONE: 2}, answered={ONE: 5}), BOTH)
    watched.look(Gauges(failed={ONE: 2}, answered={ONE: 5}), BOTH)
    assert told.out == []


async def test_failures_of_long_ago_and_addresses_that_are_no_replicas_do_not_count() -> None:
    told = Told()
    watched = Outliers(told, Gauges(failed={ONE: 7}))
    watched.look(Gauges(failed={ONE: 7, "203.0.113.7:443": 2}), BOTH)
    assert told.out == []
    watched.look(Gauges(failed={ONE: 1}), BOTH)
    assert told.out == [{ONE}], "counted anew"


async def test_a_replica_that_the_cluster_has_dropped_is_forgotten() -> None:
    told = Told()
    watched = Outliers(told, Gauges())
    watched.look(Gauges(failed={ONE: 1}), BOTH)
    watched.look(Gauges(failed={ONE: 1}), frozenset({TWO}))
    assert told.out == [{ONE}, set()]


async def test_who_can_be_reached_again_is_let_in_at_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "PROBE_SECONDS", 0)
    told, tried, back = Told(), asyncio.Queue[str](), {TWO}

    async def connect(address: str) -> bool:
        tried.put_nowait(address)
        return address in back

    watched = Outliers(told, Gauges(), connect)
    task = asyncio.create_task(watched.follow())
    watched.look(Gauges(failed={ONE: 1, TWO: 1}), BOTH)
    for _ in range(4):
        await asyncio.wait_for(tried.get(), 5)
    assert told.out == [set(BOTH), {ONE}]
    back.add(ONE)
    while told.out[-1]:
        await asyncio.wait_for(tried.get(), 5)
        await asyncio.sleep(0)
    assert told.out == [set(BOTH), {ONE}, set()]
    assert tried.empty()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_connection_is_made_and_closed_again() -> None:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await can_connect(f"127.0.0.1:{port}")
        await asyncio.wait_for(done.wait(), 5)
    assert not await can_connect(f"127.0.0.1:{port}")
    assert not await can_connect(f"[::1]:{port}")
