from __future__ import annotations

import asyncio
import contextlib
import socket

import orjson
import pytest

from stoker.gateway import outliers
from stoker.gateway.endings import Gauges
from stoker.gateway.outliers import FORGET_SECONDS, LONGEST_PAUSE_SECONDS, Outliers, does_answer

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
    watched.read_gauges(Gauges(failed={ONE: 1}, answered={TWO: 5}), BOTH)
    assert told.out == [{ONE}]
    watched.read_gauges(Gauges(failed={ONE: 3}, answered={TWO: 9}), BOTH)
    assert told.out == [{ONE}], "nothing new"


async def test_one_that_also_answers_is_only_busy() -> None:
    told = Told()
    watched = Outliers(told, Gauges(answered={ONE: 4}))
    watched.read_gauges(Gauges(failed={ONE: 2}, answered={ONE: 5}), BOTH)
    watched.read_gauges(Gauges(failed={ONE: 2}, answered={ONE: 5}), BOTH)
    assert told.out == []


async def test_failures_of_long_ago_and_addresses_that_are_no_replicas_do_not_count() -> None:
    told = Told()
    watched = Outliers(told, Gauges(failed={ONE: 7}))
    watched.read_gauges(Gauges(failed={ONE: 7, "203.0.113.7:443": 2}), BOTH)
    assert told.out == []
    watched.read_gauges(Gauges(failed={ONE: 1}), BOTH)
    assert told.out == [{ONE}], "counted anew"


async def test_a_replica_that_the_cluster_has_dropped_is_forgotten() -> None:
    told = Told()
    watched = Outliers(told, Gauges())
    watched.read_gauges(Gauges(failed={ONE: 1}), BOTH)
    watched.read_gauges(Gauges(failed={ONE: 1}), frozenset({TWO}))
    assert told.out == [{ONE}, set()]


async def test_who_can_be_answers_again_is_let_in_at_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "PROBE_SECONDS", 0)
    told, tried, back = Told(), asyncio.Queue[str](), {TWO}

    async def connect(address: str) -> bool:
        tried.put_nowait(address)
        return address in back

    watched = Outliers(told, Gauges(), connect)
    task = asyncio.create_task(watched.follow())
    watched.read_gauges(Gauges(failed={ONE: 1, TWO: 1}), BOTH)
    for _ in range(4):
        await asyncio.wait_for(tried.get(), 60)
    assert told.out == [set(BOTH), {ONE}]
    back.add(ONE)
    while told.out[-1]:
        await asyncio.wait_for(tried.get(), 60)
        await asyncio.sleep(0)
    assert told.out == [set(BOTH), {ONE}, set()]
    assert tried.empty()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def line(address: str, flags: str = "-", **more: object) -> bytes:
    whole = {"first_byte_ms": 2} if flags == "-" else {}
    return orjson.dumps({"code": 200, "flags": flags, "upstream": address, **whole, **more}) + b"\n"


class Watched:
    """Outliers whose replicas all answer when they are asked, by a clock that stands still."""

    def __init__(self) -> None:
        self.now, self.told = 1000.0, Told()
        self.outliers = Outliers(self.told, Gauges(), self._answer, lambda: self.now)

    async def _answer(self, address: str) -> bool:
        return True

    def read(self, *lines: bytes) -> None:
        self.outliers.read_log(b"".join(lines), lambda: BOTH)

    async def pause(self) -> float:
        """Seconds until it is let in again."""
        began = self.now
        while self.outliers.out:
            self.now += 0.5
            await self.outliers.ask()
        return self.now - began


@pytest.mark.parametrize("flags", ["UC", "UPE", "UC,DC"])
async def test_whoever_breaks_off_twice_in_a_row_is_left_out(flags: str) -> None:
    watched = Watched()
    watched.read(line(ONE, flags))
    assert watched.told.out == []
    watched.read(line(TWO), line(ONE, flags), line(ONE, flags), line(TWO))
    assert watched.told.out == [{ONE}]


@pytest.mark.parametrize("flags", ["DC", "UF,URX", "UH", "UT", "UAEX"])
async def test_what_the_client_or_the_gateway_ends_says_nothing_of_the_replica(flags: str) -> None:
    watched = Watched()
    watched.read(*[line(ONE, flags)] * 5)
    assert watched.told.out == []


async def test_an_answer_between_two_broken_ones_keeps_a_replica_in() -> None:
    watched = Watched()
    for _ in range(5):
        watched.read(line(ONE, "UC"))
        watched.read(line(ONE, "UF,URX"), line(ONE, code=500))
    watched.read(line(ONE, "UC"), line(ONE), line(ONE, "UC"))
    watched.read(line(ONE, "UC"), line(ONE))
    assert watched.told.out == []


async def test_who_breaks_off_and_is_no_replica_is_nobody_to_leave_out() -> None:
    watched = Watched()
    watched.read(*[line("203.0.113.7:443", "UC")] * 5, b'{"flags":"UC"}\n', b'{"flags":"UC","upstream":7}\n')
    assert watched.told.out == []


async def test_who_goes_on_breaking_off_is_asked_more_and_more_rarely() -> None:
    watched, pauses = Watched(), []
    watched.read(line(ONE, "UC"))
    for _ in range(8):
        # What else was under way when it broke off tells nothing new.
        watched.read(*[line(ONE, "UC")] * 3)
        watched.read(*[line(ONE, "UC")] * 3)
        assert watched.outliers.out == {ONE}
        pauses.append(await watched.pause())
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert max(pauses) == LONGEST_PAUSE_SECONDS
    watched.read(line(ONE))
    watched.read(line(ONE, "UC"), line(ONE, "UC"))
    assert await watched.pause() == 1, "it has answered since"


async def test_broken_answers_of_long_ago_are_forgotten() -> None:
    watched = Watched()
    watched.read(line(ONE, "UC"))
    watched.now += FORGET_SECONDS
    watched.outliers.read_gauges(Gauges(), BOTH)
    watched.read(line(ONE, "UC"))
    assert watched.told.out == []
    watched.outliers.read_gauges(Gauges(), BOTH)
    watched.read(line(ONE, "UC"))
    assert watched.told.out == [{ONE}]
    watched.outliers.read_gauges(Gauges(), frozenset({TWO}))
    watched.read(line(ONE, "UC"))
    assert watched.told.out == [{ONE}, set()], "another that has its address begins anew"


@pytest.mark.parametrize(
    ("says", "is_one"),
    [(b"HTTP/1.1 404 Not Found\r\n\r\n", True), (b"HTTP/1.0 503 x", True), (b"nonsense", False), (b"HT", False), (b"", False)],
)  # fmt: skip
async def test_whoever_speaks_http_answers(says: bytes, is_one: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET ")
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await does_answer(f"127.0.0.1:{port}") is is_one
    assert not await does_answer(f"127.0.0.1:{port}")
    assert not await does_answer(f"[::1]:{port}")


async def test_whoever_says_nothing_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "ANSWER_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not await does_answer(f"127.0.0.1:{silent.getsockname()[1]}")
