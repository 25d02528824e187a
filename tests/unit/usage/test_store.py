from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from stoker.usage.records import Batch, Group, Sums
from stoker.usage.store import START, Store, StoreUnavailable

TODAY = date(2026, 3, 1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.in_folder("team-a/gateway", tmp_path)


def batch(day: str = "2026-03-01", key: str = "alice", **sums: int) -> Batch:
    return {Group(day, key, key, "Alice", "qwen"): Sums(**{"requests": 1, "prompt": 10, "completion": 5, **sums})}


def total(store: Store) -> tuple[int, ...]:
    ((*numbers,),) = store.daily((), "2000-01-01", "2100-01-01", (), 10)
    return tuple(int(number or 0) for number in numbers)


def test_a_piece_of_a_log_counts_once_however_often_it_is_added(store: Store) -> None:
    assert store.place("log") == START
    assert store.add("log", START, (1, 100), batch(), {"alice": "2026-03-01T10:00:00Z"}, TODAY)
    assert not store.add("log", START, (1, 100), batch(), {}, TODAY)
    assert not store.add("log", (1, 50), (1, 150), batch(), {}, TODAY)
    assert store.place("log") == (1, 100)
    assert store.add("log", (1, 100), (2, 0), batch(), {"alice": "2026-03-01T09:00:00Z"}, TODAY)
    assert total(store)[:4] == (2, 0, 20, 10)
    assert store.keys() == {
        "alice": {"requests": 2, "promptTokens": 20, "completionTokens": 10, "lastUsedTime": "2026-03-01T10:00:00Z"}
    }


def test_what_was_added_is_there_for_the_next_process(store: Store, tmp_path: Path) -> None:
    store.add("log", START, (1, 100), batch(), {}, TODAY)
    again = Store.in_folder("team-a/gateway", tmp_path)
    assert again.place("log") == (1, 100)
    assert total(again)[0] == 1
    assert total(Store.in_folder("team-a/other", tmp_path))[0] == 0


def test_sums_are_by_what_is_asked_for_and_of_whom(store: Store) -> None:
    store.add("log", START, (1, 1), batch("2026-02-27"), {}, TODAY)
    store.add("log", (1, 1), (1, 2), {**batch(), **batch(key="bob", prompt=100)}, {}, TODAY)
    rows = store.daily(("api_key", "day"), "2026-02-28", "2026-03-01", (), 10)
    assert [(*row[:2], row[4]) for row in rows] == [("alice", "2026-03-01", 10), ("bob", "2026-03-01", 100)]
    assert len(store.daily(("day",), "2026-01-01", "2026-12-31", (("api_key", "alice"),), 10)) == 2
    assert store.daily(("day",), "2026-01-01", "2026-12-31", (("api_key", "alice"), ("api_key", "bob")), 10) == []


def test_old_days_go_and_totals_of_keys_stay(store: Store) -> None:
    store.add("log", START, (1, 1), batch("2026-01-01"), {}, TODAY)
    store.forget(TODAY, 60)
    assert total(store)[0] == 1
    store.forget(TODAY, 58)
    assert total(store)[0] == 0
    assert store.keys()["alice"]["requests"] == 1
    assert store.place("log") == (1, 1)


def test_a_database_that_is_away_is_tried_again_with_a_new_connection(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    store = Store.in_folder("team-a/gateway", folder)
    with pytest.raises(StoreUnavailable):
        store.place("log")
    folder.mkdir()
    assert store.place("log") == START
