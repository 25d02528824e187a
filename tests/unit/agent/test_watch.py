"""Drain and staleness, with samples handed in and the event loop's clock shortened by the intervals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stoker.agent import watch as watch_module
from stoker.agent.engine import Sample
from stoker.agent.watch import EngineWatch


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "DRAIN_LEAST_SECONDS", 0.2)
    monkeypatch.setattr(watch_module, "DRAIN_INTERVAL_SECONDS", 0.01)


class Engine:
    def __init__(self) -> None:
        self.listening = True
        self.loaded: bool | None = True
        self.running: float | None = 0.0
        self.waiting: float | None = 0.0
        self.reads = 0

    async def read(self) -> Sample:
        self.reads += 1
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        return Sample(now, self.listening, self.loaded is not None, self.loaded, self.running, self.waiting)


@asynccontextmanager
async def watching(engine: Engine, interval: float = 0.01) -> AsyncIterator[EngineWatch]:
    watch = EngineWatch(engine.read, interval, 0.1)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        while watch.sample is None:
            await asyncio.sleep(0)
    try:
        yield watch
    finally:
        task.cancel()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_an_engine_that_was_never_ready_is_not_waited_for() -> None:
    engine = Engine()
    engine.loaded, engine.running, engine.waiting = False, None, None
    async with watching(engine) as watch:
        assert await watch.drain(10) == "NeverReady"


async def test_an_idle_engine_is_given_up_only_after_gateways_had_time_to_look_away() -> None:
    async with watching(Engine()) as watch:
        started = now()
        assert await watch.drain(10) == "Idle"
        assert now() - started >= 0.2


async def test_a_request_that_comes_late_or_waits_inside_is_waited_for() -> None:
    engine = Engine()
    async with watching(engine) as watch:
        drain = asyncio.create_task(watch.drain(10))
        engine.waiting = 1.0
        await asyncio.sleep(0.4)
        assert not drain.done()
        engine.waiting, engine.running = 0.0, 1.0
        await asyncio.sleep(0.1)
        assert not drain.done()
        engine.running = 0.0
        assert await drain == "Idle"


async def test_one_idle_moment_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    engine.running = 1.0
    monkeypatch.setattr(watch_module, "DRAIN_LEAST_SECONDS", 0.0)
    async with watching(engine) as watch:
        real = engine.read

        async def every_other() -> Sample:
            engine.running = 1.0 - (engine.running or 0.0)
            return await real()

        monkeypatch.setattr(watch, "_read_sample", every_other)
        assert await watch.drain(0.3) == "TimedOut"
        assert engine.reads > 2


async def test_unknown_load_is_load_until_the_time_is_over() -> None:
    engine = Engine()
    async with watching(engine) as watch:
        engine.running = None
        assert await watch.drain(0.4) == "TimedOut"


async def test_an_engine_that_is_gone_has_nothing_to_finish() -> None:
    engine = Engine()
    async with watching(engine) as watch:
        engine.listening, engine.loaded, engine.running, engine.waiting = False, False, None, None
        assert await watch.drain(10) == "EngineGone"


async def test_a_drain_timeout_of_zero_returns_at_once() -> None:
    took = []
    async with watching(Engine()) as watch:
        for _ in range(3):
            started = now()
            assert await watch.drain(0) == "TimedOut"
            took.append(now() - started)
    assert min(took) < 0.1, took


async def test_a_drain_hurries_the_samples_and_draining_together_costs_no_more() -> None:
    engine = Engine()
    async with watching(engine, interval=60) as watch:
        assert engine.reads == 1
        ends = await asyncio.gather(*(watch.drain(10) for _ in range(20)))
        assert set(ends) == {"Idle"}
        assert engine.reads < 40
        assert watch.drains == 0


async def test_an_old_sample_is_no_sample() -> None:
    engine = Engine()
    async with watching(engine, interval=0.01) as watch:
        blocked = asyncio.Event()

        async def stuck() -> Sample:
            blocked.set()
            return await asyncio.Future()

        watch._read_sample = stuck
        async with asyncio.timeout(60):
            await blocked.wait()
            while watch.sample is not None:
                await asyncio.sleep(0.01)
