from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.scaling import Autoscaling, Memory
from stoker.scaling.hold import compute_held, hold_seconds, mark_needed
from stoker.scaling.state import Level

SPEC = Autoscaling(max_replicas=8, cold_start_penalty_seconds=300.0)


def test_without_history_the_users_first_hold_applies() -> None:
    assert hold_seconds((), SPEC) == 300.0


def test_gaps_that_come_again_and_again_are_bridged() -> None:
    assert 100 < hold_seconds((100,) * 20, SPEC) < 160


def test_gaps_too_long_to_pay_for_are_not_waited_for() -> None:
    assert hold_seconds((1500,) * 20, SPEC) == 30.0


def test_a_dearer_cold_start_bridges_longer_gaps() -> None:
    gaps = (500,) * 20
    assert hold_seconds(gaps, SPEC) == 30.0
    assert hold_seconds(gaps, replace(SPEC, cold_start_penalty_seconds=900.0)) > 500


@pytest.mark.parametrize("gaps", [(7,), (10,) * 20, (3000,) * 20, tuple(range(7, 1600, 80))])
def test_a_hold_stays_within_its_bounds(gaps: tuple[int, ...]) -> None:
    assert 30.0 <= hold_seconds(gaps, SPEC) <= 1800.0
    assert hold_seconds(gaps, replace(SPEC, min_hold_seconds=60, max_hold_seconds=60)) == 60


def test_the_hold_costs_least_of_all_that_were_tried() -> None:
    """Against every whole second, by the definition of what a hold costs."""
    gaps = (20, 45, 45, 60, 90, 200, 210, 400, 700, 1700)
    all_gaps = [*gaps, 150, 600]

    def cost(hold: float) -> float:
        return sum(gap if gap <= hold else hold + 300 for gap in all_gaps)

    assert cost(hold_seconds(gaps, SPEC)) <= min(cost(hold) for hold in range(30, 1801)) + 2 * len(all_gaps)


def test_replicas_remember_when_they_were_needed_and_for_how_long_they_were_not() -> None:
    memory = mark_needed(Memory(), 2, 100.0)
    memory = mark_needed(memory, 1, 150.0)
    memory = mark_needed(memory, 3, 200.0)
    assert memory.levels == (Level(200.0, (50, 50)), Level(200.0, (100,)), Level(200.0))


def test_the_noise_between_samples_is_no_gap() -> None:
    memory = mark_needed(mark_needed(Memory(), 1, 100.0), 1, 104.0)
    assert memory.levels == (Level(104.0),)


def test_only_the_latest_gaps_are_kept() -> None:
    memory = Memory()
    for visit in range(50):
        memory = mark_needed(memory, 1, visit * (100.0 + visit))
    assert len(memory.levels[0].gaps) == 20
    assert memory.levels[0].gaps[-1] == 197


def test_the_highest_replica_still_held_holds_those_below() -> None:
    memory = Memory(levels=(Level(1000.0), Level(900.0), Level(800.0), Level(100.0)))
    number, left, hold = compute_held(memory, 1, 4, 1000.0, SPEC)
    assert (number, left, hold) == (3, 100.0, 300.0)
    assert compute_held(memory, 1, 4, 1250.0, SPEC)[0] == 1


def test_replicas_that_were_never_needed_are_not_held() -> None:
    assert compute_held(Memory(levels=(Level(0.0),)), 1, 5, 10.0, SPEC)[0] == 1
