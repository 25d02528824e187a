from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unit.gateway.conftest import Clock

from stoker.gateway.cold_start import FRESH_SECONDS, UNKNOWN_RETRY_SECONDS, ColdStarts
from stoker.gateway.pool import Pool
from stoker.gateway.table import Hold

NAME = "team-a/qwen"


@pytest.fixture
def pool(clock: Clock) -> Pool:
    made = Pool(NAME)
    made.hold = Hold(reject=False, wait_seconds=60, most_held=4, heartbeat_seconds=10, cold_start_seconds=None)
    made.cold_since = clock()
    return made


def loading(cold_starts: ColdStarts, pool: Pool) -> dict[str, Any]:
    told = cold_starts.problem(pool, "qwen", 0.0).loading
    assert told is not None
    return dict(told)


def test_progress_never_goes_back_until_the_model_is_there(clock: Clock, pool: Pool) -> None:
    cold_starts = ColdStarts(clock)
    told = []
    for progress in (0.2, 0.5, 0.1, None, 0.6):
        cold_starts.update({"models": {NAME: {"phase": "Downloading", "progress": progress}}})
        told.append(loading(cold_starts, pool)["progress"])
    assert told == [0.2, 0.5, 0.5, 0.5, 0.6]
    cold_starts.over(NAME)
    cold_starts.update({"models": {NAME: {"phase": "Downloading", "progress": 0.1}}})
    assert loading(cold_starts, pool)["progress"] == 0.1


def test_what_the_operator_said_long_ago_counts_no_more(clock: Clock, pool: Pool) -> None:
    cold_starts = ColdStarts(clock)
    cold_starts.update({"models": {NAME: {"phase": "Pulling", "etaSeconds": 30}}})
    clock.move(FRESH_SECONDS)
    assert loading(cold_starts, pool) == {"phase": "Pulling", "progress": None, "etaSeconds": 20}
    clock.move(0.1)
    assert loading(cold_starts, pool) == {"phase": "Starting", "progress": None, "etaSeconds": None}


def test_a_caller_comes_back_when_earlier_starts_say_that_it_will_be_over(clock: Clock, pool: Pool) -> None:
    cold_starts = ColdStarts(clock)
    assert dict(cold_starts.problem(pool, "qwen", 0).headers) == {"retry-after": str(UNKNOWN_RETRY_SECONDS)}
    assert pool.hold
    pool.hold = replace(pool.hold, cold_start_seconds=90.0)
    clock.move(30)
    assert dict(cold_starts.problem(pool, "qwen", 0).headers) == {"retry-after": "60"}
    clock.move(100)
    assert dict(cold_starts.problem(pool, "qwen", 0).headers) == {"retry-after": "1"}


@pytest.mark.parametrize("document", [None, [], {}, {"models": []}, {"models": {NAME: 1}}])
def test_nonsense_is_refused(clock: Clock, document: Any) -> None:
    with pytest.raises((TypeError, AttributeError, ValueError)):
        ColdStarts(clock).update(document)


def test_odd_numbers_are_made_sensible(clock: Clock, pool: Pool) -> None:
    cold_starts = ColdStarts(clock)
    cold_starts.update({"models": {NAME: {"progress": 7, "etaSeconds": -3}}})
    assert loading(cold_starts, pool) == {"phase": "Starting", "progress": 1.0, "etaSeconds": 0}
    cold_starts.update({"models": {NAME: {"progress": True, "etaSeconds": "soon", "message": None}}})
    assert loading(cold_starts, pool) == {"phase": "Starting", "progress": 1.0, "etaSeconds": None}
