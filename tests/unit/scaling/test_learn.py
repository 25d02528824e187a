from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoker.scaling import Learned
from stoker.scaling.learn import learn_cold_start

Make = Callable[..., Any]


def test_residence_is_learned_while_nothing_queues(model: Make) -> None:
    """Two requests a second, ten in flight: five seconds each."""
    calm = model(desired=2, learned=Learned())
    calm.run(120, arrivals=4, completions=4, running=10)
    assert calm.learned.residence_seconds == pytest.approx(5.0)
    assert calm.learned.slots is None


def test_slots_are_learned_while_requests_queue(model: Make) -> None:
    """Two replicas finish three requests a second, each of which takes two seconds when alone: three at once each."""
    full = model(desired=2, learned=Learned(residence_seconds=2.0), max_replicas=2)
    full.run(120, arrivals=6, completions=6, running=8, held=10)
    assert full.learned.slots == pytest.approx(3.0)
    assert full.learned.residence_seconds == 2.0, "what a queue slows down teaches nothing about calm"


def test_a_model_that_was_never_without_a_queue_learns_all_the_same(model: Make) -> None:
    drowned = model(desired=2, learned=Learned(), max_replicas=2)
    drowned.run(240, arrivals=6, completions=6, running=12, held=50)
    assert drowned.learned.residence_seconds == pytest.approx(4.0)
    assert drowned.learned.slots == pytest.approx(6.0)


def test_slots_never_exceed_the_users_bound(model: Make) -> None:
    fast = model(desired=1, learned=Learned(residence_seconds=2.0), max_replicas=1, target_inflight=8)
    fast.run(120, arrivals=40, completions=40, running=30, held=10)
    assert fast.learned.slots == 8.0


def test_replicas_that_have_just_become_ready_are_left_out(model: Make) -> None:
    """The second replica finishes nothing in its first ten seconds; the speed of one is learned, not half of it."""
    growing = model(desired=1, learned=Learned(residence_seconds=10.0), max_replicas=2, target_inflight=64)
    growing.run(100, arrivals=8, completions=8, running=40, held=5, ready=1)
    assert growing.learned.slots == pytest.approx(40.0)
    growing.run(8, arrivals=8, completions=8, running=40, held=5, ready=2)
    assert growing.learned.slots == pytest.approx(40.0)
    growing.run(40, arrivals=8, completions=8, running=40, held=5, ready=2)
    assert growing.learned.slots < 35.0, "after that it counts"


def test_what_a_queue_left_behind_teaches_nothing_either(model: Make) -> None:
    """Requests slowed by the queue are still running when it is gone."""
    full = model(desired=2, learned=Learned(residence_seconds=2.0, slots=8.0), max_replicas=2)
    full.run(20, arrivals=10, completions=10, running=60, held=10)
    full.run(10, arrivals=10, completions=10, running=60)
    assert full.learned.residence_seconds == 2.0
    full.run(10, arrivals=10, completions=10, running=60)
    assert full.learned.residence_seconds > 2.0


def test_after_a_long_calm_a_limit_is_believed_a_little_less(model: Make) -> None:
    calm = model(desired=1)
    calm.run(600, step=20, arrivals=20, completions=20, running=2)
    assert calm.learned.slots == pytest.approx(4.0, rel=0.001)
    calm.run(3600, step=20, arrivals=20, completions=20, running=2)
    assert 4.4 < calm.learned.slots < 4.6
    idle = model(desired=1)
    idle.run(7200, step=20)
    assert idle.learned.slots == 4.0, "nothing is learned from nothing"


def test_longer_requests_are_noticed_and_shorter_ones_sooner(model: Make) -> None:
    steady = model(desired=4)
    steady.run(60, arrivals=4, completions=4, running=16)
    assert 2.1 < steady.learned.residence_seconds < 4
    steady.run(600, arrivals=4, completions=4, running=16)
    assert steady.learned.residence_seconds == pytest.approx(8.0, rel=0.15)
    steady.run(120, arrivals=4, completions=4, running=4)
    assert steady.learned.residence_seconds < 3.0


def test_a_silent_gateway_teaches_nothing(model: Make) -> None:
    partly = model(desired=2, learned=Learned())
    partly.totals["gateway-b"] = [0, 0]
    partly.run(120, arrivals=4, completions=4, running=10, silent=("gateway-b",))
    assert partly.learned == Learned()


def test_cold_starts_are_followed() -> None:
    learned = learn_cold_start(Learned(), (100.0,))
    assert learned.cold_start_seconds == 100.0
    assert learn_cold_start(learned, (50.0, 50.0)).cold_start_seconds == pytest.approx(82.0)
    assert learn_cold_start(learned, ()) is learned
