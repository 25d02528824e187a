from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from stoker.reconcile.work_queue import (
    FIRST_BACKOFF_SECONDS,
    LEAST_PACE_SECONDS,
    LONGEST_BACKOFF_SECONDS,
    WorkKey,
    WorkQueue,
    backoff,
)


def key(name: str) -> WorkKey:
    return WorkKey("ModelDeployment", "team", name)


class Recorder:
    """Notes what it is given; blocks while ``gate`` is closed."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.answers: dict[str, list[float | Exception | None]] = {}
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, work: WorkKey) -> float | None:
        self.names.append(work.name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            answers = self.answers.get(work.name)
            answer = answers.pop(0) if answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.at_once -= 1

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                await asyncio.sleep(0)


@asynccontextmanager
async def running(queue: WorkQueue, recorder: Recorder, workers: int = 1) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers, recorder))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_name_added_twice_is_worked_on_once() -> None:
    queue, recorder = WorkQueue(), Recorder()
    queue.add(key("a"))
    queue.add(key("a"))
    queue.add(key("b"))
    async with running(queue, recorder):
        await recorder.until(lambda: len(recorder.names) == 2)
        await asyncio.sleep(0.01)
    assert sorted(recorder.names) == ["a", "b"]


async def test_a_name_added_while_it_is_worked_on_comes_again_and_never_beside_itself() -> None:
    queue, recorder = WorkQueue(), Recorder()
    recorder.gate.clear()
    queue.add(key("a"))
    async with running(queue, recorder, workers=4):
        await recorder.until(lambda: recorder.names == ["a"])
        queue.add(key("a"))
        queue.add(key("a"))
        await asyncio.sleep(0.01)
        assert recorder.names == ["a"]
        recorder.gate.set()
        await recorder.until(lambda: recorder.names == ["a", "a"])
    assert recorder.most_at_once == 1


async def test_workers_work_at_the_same_time() -> None:
    queue, recorder = WorkQueue(), Recorder()
    recorder.gate.clear()
    for name in "abcd":
        queue.add(key(name))
    async with running(queue, recorder, workers=3):
        await recorder.until(lambda: recorder.at_once == 3)
        assert (queue.running, queue.depth) == (3, 1)
        recorder.gate.set()


async def test_a_failure_comes_again_and_holds_up_no_other() -> None:
    queue, recorder = WorkQueue(), Recorder()
    recorder.answers["bad"] = [ValueError("broken")]
    queue.add(key("bad"))
    queue.add(key("good"))
    async with running(queue, recorder):
        await recorder.until(lambda: recorder.names.count("bad") == 2)
    assert "good" in recorder.names[:2]


async def test_a_change_brings_a_failed_name_back_at_once() -> None:
    queue, recorder = WorkQueue(), Recorder()
    recorder.answers["bad"] = [ValueError("broken")] * 8
    queue.add(key("bad"))
    async with running(queue, recorder):
        for times in range(1, 8):
            await recorder.until(lambda times=times: len(recorder.names) == times and not queue.running)
            queue.add(key("bad"))


async def test_an_earlier_appointment_stands_and_a_later_one_is_brought_forward() -> None:
    queue, recorder = WorkQueue(), Recorder()
    queue.add(key("a"), delay=0.5)
    queue.add(key("a"), delay=60)
    queue.add(key("b"), delay=60)
    queue.add(key("b"), delay=0.01)
    async with running(queue, recorder):
        await recorder.until(lambda: len(recorder.names) == 2)
    assert recorder.names == ["b", "a"]


async def test_an_answer_makes_the_next_appointment() -> None:
    queue, recorder = WorkQueue(), Recorder()
    recorder.answers["a"] = [0.01, 0.01]
    queue.add(key("a"))
    async with running(queue, recorder):
        await recorder.until(lambda: len(recorder.names) == 3)


async def test_a_new_name_behind_a_thousand_others_is_served_among_the_first() -> None:
    queue, recorder = WorkQueue(), Recorder()
    for number in range(1000):
        queue.add(key(f"old-{number}"))
    queue.add(key("newest"))
    async with running(queue, recorder):
        await recorder.until(lambda: len(recorder.names) >= 3)
    assert "newest" in recorder.names[:3]


async def test_names_seen_before_get_their_turn_among_new_ones() -> None:
    queue, recorder = WorkQueue(), Recorder()
    async with running(queue, recorder):
        queue.add(key("seen"))
        await recorder.until(lambda: recorder.names == ["seen"] and not queue.running)
        for number in range(100):
            queue.add(key(f"new-{number}"))
        queue.add(key("seen"))
        await recorder.until(lambda: len(recorder.names) >= 5)
    assert "seen" in recorder.names[1:5]


async def test_a_closed_queue_hands_out_nothing_more() -> None:
    queue, recorder = WorkQueue(), Recorder()
    async with running(queue, recorder):
        queue.close()
        queue.add(key("a"))
        await asyncio.sleep(0.01)
    assert recorder.names == []
    assert queue.depth == 1


async def test_a_queue_that_does_not_move_says_for_how_long() -> None:
    queue, recorder = WorkQueue(), Recorder()
    assert queue.stuck_for() == 0
    recorder.gate.clear()
    queue.add(key("a"))
    async with running(queue, recorder):
        await recorder.until(lambda: recorder.at_once == 1)
        await asyncio.sleep(0.02)
        assert queue.stuck_for() >= 0.02
        recorder.gate.set()
        await recorder.until(lambda: not queue.running)
        assert queue.stuck_for() == 0


@pytest.mark.parametrize("failures", [0, 1, 5, 40, 4000])
def test_backoff_doubles_up_to_five_minutes(failures: int) -> None:
    longest = min(FIRST_BACKOFF_SECONDS * 2 ** min(failures, 40), LONGEST_BACKOFF_SECONDS)
    assert longest / 2 <= backoff(failures) <= longest


async def test_new_names_wait_while_kubernetes_does_not_keep_up_and_the_newest_overtakes_then() -> None:
    keeps_up = False
    queue, recorder = WorkQueue(may_start=lambda: keeps_up), Recorder()
    for number in range(50):
        queue.add(key(f"old-{number}"))
    began = time.monotonic()
    async with running(queue, recorder, workers=4):
        await asyncio.sleep(0.05)
        begun = len(recorder.names)
        assert begun <= 1 + (time.monotonic() - began) / LEAST_PACE_SECONDS
        queue.add(key("newest"))
        keeps_up = True
        queue.add(WorkKey("ApiGateway", "team", "gateway"))
        await recorder.until(lambda: "newest" in recorder.names)
        assert recorder.names.index("newest") < begun + 10


async def test_a_little_is_begun_even_when_kubernetes_does_nothing_at_all() -> None:
    queue, recorder = WorkQueue(may_start=lambda: False), Recorder()
    for number in range(3):
        queue.add(key(str(number)))
    async with running(queue, recorder):
        await recorder.until(lambda: len(recorder.names) == 3)


async def test_other_kinds_and_names_seen_before_are_never_held_back() -> None:
    keeps_up = True
    queue, recorder = WorkQueue(may_start=lambda: keeps_up), Recorder()
    async with running(queue, recorder):
        queue.add(key("seen"))
        await recorder.until(lambda: recorder.names == ["seen"] and not queue.running)
        keeps_up = False
        queue.add(WorkKey("ApiKey", "team", "alice"))
        queue.add(key("seen"))
        await recorder.until(lambda: len(recorder.names) == 3)
    assert sorted(recorder.names) == ["alice", "seen", "seen"]


async def test_an_urgent_name_comes_before_all_that_were_seen_before() -> None:
    queue, recorder = WorkQueue(), Recorder()
    names = [WorkKey("ApiKey", "team", f"other-{number}") for number in range(20)]
    for name in names:
        queue.add(name)
    queue.add(names[15], urgent=True)
    queue.add(WorkKey("ApiKey", "team", "woken"), urgent=True)
    async with running(queue, recorder, workers=1):
        await recorder.until(lambda: len(recorder.names) == 21)
    assert recorder.names[:2] == ["woken", "other-15"]
