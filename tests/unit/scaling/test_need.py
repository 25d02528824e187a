from __future__ import annotations

from dataclasses import replace

import pytest

from stoker.scaling import Autoscaling, Learned, Memory
from stoker.scaling.load import Load
from stoker.scaling.need import Speed, compute_need, compute_relief, compute_speed
from stoker.scaling.state import Moment, Tally

SPEC = Autoscaling(max_replicas=8)
SPEED = Speed(slots=4.0, residence=2.0)
LOAD = Load(time=100, seconds=2, arrivals=0, completions=0, held=0, waiting=0, running=0, ready=2, silent=0)
MEMORY = Memory(recent=(Moment(100, 0, 2),), queues=(0.0,) * 8)


def test_what_is_not_learned_is_assumed_from_the_users_bound() -> None:
    speed = compute_speed(Learned(), Tally(), SPEC)
    assert (speed.slots, speed.residence) == (pytest.approx(28.8), 10.0)
    learned = compute_speed(Learned(residence_seconds=2.0, slots=10.0), Tally(), SPEC)
    assert learned.rate == pytest.approx(4.5)


def test_the_first_requests_of_a_model_already_tell_when_they_are_quick() -> None:
    assert compute_speed(Learned(), Tally(2.0, 4), SPEC).residence == pytest.approx(12 / 5)
    assert compute_speed(Learned(), Tally(300.0, 1), SPEC).residence == 10.0, "of slow ones too few are done to tell"
    assert compute_speed(Learned(residence_seconds=2.0), Tally(0.1, 4), SPEC).residence == 2.0


def test_a_burst_needs_as_many_as_let_nobody_wait_longer_than_allowed() -> None:
    """Thirty at once at 2 requests/s and 4 at a time each: four replicas hold 16 and clear 8 of the other 14 in a second."""
    burst = replace(LOAD, seconds=0.0, arrivals=30)
    need, _ = compute_need(burst, SPEED, MEMORY, SPEC)
    assert (need.replicas, need.reason) == (5, "VirtualQueue")
    patient, _ = compute_need(burst, SPEED, MEMORY, replace(SPEC, queue_wait_seconds=2.0))
    assert patient.replicas == 4
    assert need.words == "requests would wait 1.8 s at 4 (1 s allowed)"


def test_more_than_the_bound_is_never_asked_for_by_the_virtual_queue() -> None:
    need, _ = compute_need(replace(LOAD, arrivals=10_000), SPEED, MEMORY, SPEC)
    assert need.replicas == 8


def test_a_virtual_queue_empties_no_faster_than_requests_can_be_answered() -> None:
    _, memory = compute_need(replace(LOAD, seconds=0.0, arrivals=1, running=1), SPEED, MEMORY, SPEC)
    _, memory = compute_need(replace(LOAD, running=1), SPEED, memory, SPEC)
    assert memory.queues[7] > 0.3, "eight replicas answer one request no sooner than one does"


def test_the_rate_counts_less_its_own_error() -> None:
    recent = tuple(Moment(80.0 + 2 * step, round(8.8 * step), 2) for step in range(11))
    need, _ = compute_need(replace(LOAD, running=1), SPEED, replace(MEMORY, recent=recent), SPEC)
    assert (need.replicas, need.reason) == (2, "ArrivalRate"), "(88 - 9) in 20 s at 2 requests/s each"
    young = replace(MEMORY, recent=recent[-3:])
    assert compute_need(replace(LOAD, running=1), SPEED, young, SPEC)[0].replicas == 1, "four seconds are no rate"


def test_long_requests_keep_replicas_and_bring_none() -> None:
    busy = replace(LOAD, running=30)
    assert compute_need(busy, SPEED, MEMORY, SPEC)[0].reason == "Occupancy"
    assert compute_need(busy, SPEED, MEMORY, SPEC)[0].replicas == 2
    assert compute_need(replace(busy, ready=8), SPEED, MEMORY, SPEC)[0].replicas == 8


def test_nothing_is_needed_only_when_nothing_is_there() -> None:
    assert compute_need(LOAD, SPEED, MEMORY, SPEC)[0].replicas == 0
    for load in ({"held": 1}, {"waiting": 0.2}, {"running": 0.1}):
        assert compute_need(replace(LOAD, **load), SPEED, MEMORY, SPEC)[0].replicas == 1


def test_an_imagined_queue_is_forgotten_when_there_is_none() -> None:
    imagined = replace(MEMORY, queues=(50.0,) * 8)
    idle = replace(LOAD, seconds=30.0)
    slow = Speed(slots=4.0, residence=4000.0)
    _, forgotten = compute_need(idle, slow, imagined, SPEC)
    _, kept = compute_need(replace(idle, held=50), slow, imagined, SPEC)
    assert forgotten.queues[0] < 20 < 49 < kept.queues[0]


def test_relief_waits_for_a_second_look() -> None:
    full = replace(LOAD, held=20)
    assert compute_relief(full, SPEED, replace(MEMORY, saturated_since=100.0), 2, 0, SPEC).replicas == 0
    relief = compute_relief(full, SPEED, replace(MEMORY, saturated_since=98.0), 2, 0, SPEC)
    assert (relief.replicas, relief.reason) == (2, "DrainBacklog")
    assert compute_relief(LOAD, SPEED, MEMORY, 2, 0, SPEC).replicas == 0


def test_progress_waits_for_what_is_on_its_way() -> None:
    since = replace(MEMORY, saturated_since=90.0)
    assert compute_relief(replace(LOAD, held=1), SPEED, since, 2, 0, SPEC).replicas == 3
    assert compute_relief(replace(LOAD, held=1), SPEED, since, 2, 1, SPEC).replicas == 1
