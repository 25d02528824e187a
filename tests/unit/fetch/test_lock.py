"""Two pods on one cache: real files and real flock; a host that flock does not reach is played by a lock file alone."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from stoker.errors import Waiting
from stoker.fetch import lock as lock_module
from stoker.fetch.lock import CacheLock


def make(path: Path, host: str, stale_after: float = 0.3) -> CacheLock:
    return CacheLock(path, host=host, heartbeat_interval=0.02, stale_after=stale_after, settle=0.01, poll_interval=0.01)


def never() -> bool:
    return False


def ignore(*_: object) -> None:
    return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock-0123456789abcdef"


@pytest.fixture
def _flock_reaches_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module.fcntl, "flock", lambda *_: None)


def test_a_second_pod_waits_until_the_first_is_done_and_sees_its_progress(path: Path) -> None:
    first, second = make(path, "a"), make(path, "b")
    assert first.acquire(ignore, never)
    first.holder_progress = lambda: (7, 10)
    waited: list[tuple[str, int, int | None]] = []
    progress_seen = threading.Event()
    got: list[bool] = []

    def on_wait(host: str, completed: int, total: int | None) -> None:
        waited.append((host, completed, total))
        if completed == 7:
            progress_seen.set()

    thread = threading.Thread(target=lambda: got.append(second.acquire(on_wait, never)))
    thread.start()
    assert progress_seen.wait(60)
    assert got == []
    first.release()
    thread.join(60)
    assert got == [True]
    assert ("a", 7, 10) in waited
    second.release()


def test_a_waiting_pod_leaves_when_the_weights_are_there(path: Path) -> None:
    with make(path, "a") as first:
        assert first.acquire(ignore, never)
        assert not make(path, "b").acquire(ignore, lambda: True)


def test_a_dead_holder_on_another_host_is_taken_over_after_missed_heartbeats(path: Path) -> None:
    path.write_text(json.dumps({"owner": "gone/1", "host": "gone", "beat": 3}))
    waits: list[str] = []
    with make(path, "b") as second:
        assert second.acquire(lambda host, *_: waits.append(host), never)
        assert second.owned_now()
    assert set(waits) == {"gone"}


@pytest.mark.usefixtures("_flock_reaches_no_other_host")
def test_a_living_holder_is_not_taken_over_where_flock_is_not_shared(path: Path) -> None:
    def is_taken_over(place: Path) -> bool:
        tries = 0

        def done() -> bool:
            nonlocal tries
            tries += 1
            return tries > 60  # twice the time after which a silent holder counts as dead

        with make(place, "a") as first:
            assert first.acquire(ignore, never)
            return make(place, "b").acquire(ignore, done) or not first.owned_now()

    # Once or twice a machine that stood still for a moment may have silenced a living one.
    assert not all(is_taken_over(path.with_name(f".lock-{attempt}")) for attempt in range(3))


def test_an_earlier_container_of_the_same_pod_is_not_waited_for(path: Path) -> None:
    path.write_text(json.dumps({"owner": "pod-1/old", "host": "pod-1", "beat": 3}))
    with make(path, "pod-1", stale_after=1000) as again:
        assert again.acquire(lambda *_: pytest.fail("waited for itself"), never)


def test_a_holder_that_was_taken_over_stops_and_leaves_the_lock_alone(path: Path) -> None:
    holder = make(path, "a")
    assert holder.acquire(ignore, never)
    holder.check()
    theft = json.dumps({"owner": "b/1", "host": "b", "beat": 1})
    path.write_text(theft)
    assert holder._lost.wait(60)
    with pytest.raises(Waiting, match="LockLost"):
        holder.check()
    holder.release()
    assert path.read_text() == theft


@pytest.mark.usefixtures("_flock_reaches_no_other_host")
def test_of_two_pods_that_write_at_once_one_gets_the_lock(path: Path) -> None:
    locks = [make(path, f"pod-{i}", stale_after=1000) for i in range(4)]
    got: list[CacheLock] = []
    over = threading.Event()

    def contend(one: CacheLock) -> None:
        one._settle = 0.5
        if one.acquire(ignore, over.is_set):
            got.append(one)
            over.set()

    threads = [threading.Thread(target=contend, args=(one,)) for one in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 1
    assert got[0].owned_now()
    for one in locks:
        one.release()
