from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from stoker.scaling import Learned, Memory

Make = Callable[..., Any]


def test_a_queue_is_drained_at_once_and_the_reason_says_how(model: Make) -> None:
    busy = model(desired=2)
    busy.run(30, arrivals=4, completions=4, running=4)
    assert busy.desired == 2
    busy.tick(arrivals=4, completions=4, running=8, held=20)
    decision = busy.tick(arrivals=4, completions=4, running=8, held=20)
    assert (decision.desired, decision.reason) == (4, "DrainBacklog")
    assert decision.message == "2 → 4: 20 waiting, drained in 5 s at 1.8 requests/s per replica"


def test_a_rate_that_fewer_replicas_would_not_keep_up_with_is_answered_before_anybody_waits(model: Make) -> None:
    busy = model(desired=1)
    busy.run(60, arrivals=2, completions=2, running=2)
    assert busy.desired == 1
    decision = busy.run(20, arrivals=10, completions=10, running=3)
    assert decision.desired >= 2
    assert not any(decision.reason == "DrainBacklog" for decision in busy.decisions)


def test_a_queue_that_lasts_with_nothing_on_its_way_gets_one_more_replica(model: Make) -> None:
    """The learned speed is wrong by far: by it one replica were enough."""
    fooled = model(desired=1, learned=Learned(residence_seconds=0.01, slots=32.0))
    load = {"arrivals": 1, "running": 1, "held": 2}
    assert [fooled.tick(**load).desired for _ in range(5)] == [1, 1, 1, 1, 2]
    assert fooled.decisions[-1].reason == "Progress"
    assert fooled.run(60, **load, ready=1, pending_ages=(30.0,)).desired == 2, "it is given its time to start"
    assert [fooled.tick(**load).desired for _ in range(5)] == [2, 2, 2, 3, 3], "and then to help"


def test_replicas_on_their_way_are_not_bought_twice(model: Make) -> None:
    busy = model(desired=1)
    busy.run(30, arrivals=2, completions=2, running=2)
    for _ in range(10):
        decision = busy.tick(
            arrivals=2, completions=2, running=4, held=8, ready=1, pending_ages=(5.0,) * (busy.desired - 1)
        )
    assert decision.desired == 2


def test_a_replica_that_does_not_become_ready_is_replaced_once(model: Make) -> None:
    stuck = model(desired=2)
    for age in range(0, 400, 2):
        decision = stuck.tick(
            arrivals=5, completions=5, running=4, ready=1, pending_ages=(float(age),) * (stuck.desired - 1)
        )
        assert stuck.desired == (2 if age <= 180 else 3)
    assert "has not become ready in 180 s" in decision.message


def test_a_replica_that_does_not_become_ready_is_not_replaced_where_nobody_needs_it(model: Make) -> None:
    idle = model(desired=2, min_replicas=0)
    idle.run(4, arrivals=1, completions=1, running=1)
    assert idle.run(600, ready=1, pending_ages=(5000.0,)).desired == 0


def test_replicas_without_a_place_are_not_multiplied(model: Make) -> None:
    full = model(desired=3)
    for _ in range(30):
        decision = full.tick(arrivals=20, completions=4, running=8, held=50, ready=2, unschedulable=1)
        assert decision.desired == 3
    assert decision.reason == "Unschedulable"
    assert "1 of the replicas have no place" in decision.message
    decision = full.tick(arrivals=20, completions=4, running=8, held=50, ready=3)
    assert decision.desired > 3, "a place was found, so there may be more"


def test_a_missed_sample_changes_nothing_and_is_made_up_for_by_the_next(model: Make) -> None:
    seen, missed = model(desired=2), model(desired=2)
    for one in (seen, missed):
        one.run(30, arrivals=3, completions=3, running=6)
    before = missed.memory
    decision = missed.tick(arrivals=3, completions=3, running=6, seen=False)
    assert (decision.desired, decision.reason, decision.memory) == (2, "SampleMissing", before)
    seen.tick(arrivals=3, completions=3, running=6)
    for one in (seen, missed):
        one.tick(arrivals=3, completions=3, running=6)
    assert missed.memory.recent[-1].arrived == seen.memory.recent[-1].arrived


def test_load_that_is_not_seen_never_shrinks_and_says_so(model: Make) -> None:
    dark = model(desired=4, max_hold_seconds=30, initial_hold_seconds=30)
    dark.tick(running=1)
    decision = dark.run(3600, step=20, seen=False)
    assert (decision.desired, decision.reason) == (4, "MetricsStale")
    assert decision.message == "4 kept: the load was last seen 3600 s ago"


def test_an_old_sample_does_not_shrink(model: Make) -> None:
    slow = model(desired=4)
    slow.run(20)
    decision = slow.run(3600, step=20, age=60.0)
    assert (decision.desired, decision.reason) == (4, "MetricsStale")


def test_a_model_never_seen_is_left_as_it_is(model: Make) -> None:
    decision = model(desired=5).tick(seen=False)
    assert (decision.desired, decision.message) == (5, "5 kept: the load has not been seen yet")


@pytest.mark.parametrize("who", ["pod-1", "gateway-b"])
def test_while_anybody_is_silent_nothing_shrinks(model: Make, who: str) -> None:
    partly = model(desired=4)
    partly.totals["gateway-b"] = [5, 5]
    partly.run(20)
    decision = partly.run(7200, step=20, silent=(who,))
    assert (decision.desired, decision.reason) == (4, "MetricsStale")
    assert partly.run(1200, step=20).desired == 1, "the idle replicas go once everybody answers"


def test_engines_may_be_silent_and_the_gateways_queue_still_brings_replicas(model: Make) -> None:
    blind = model(desired=1)
    blind.tick(running=2)
    for _ in range(3):
        decision = blind.tick(arrivals=10, held=15, silent=("pod-0",))
    assert decision.desired >= 2


def test_a_rollout_may_grow_but_not_shrink_and_teaches_nothing(model: Make) -> None:
    rolling = model(desired=3)
    rolling.run(30, arrivals=4, completions=4, running=8)
    learned = rolling.learned
    decision = rolling.run(7200, step=20, running=0, rolling_out=True)
    assert (decision.desired, decision.reason) == (3, "RolloutInProgress")
    rolling.run(60, arrivals=8, completions=8, running=30, rolling_out=True)
    assert rolling.learned == learned
    rolling.run(10, arrivals=20, completions=4, running=12, held=30, rolling_out=True)
    assert rolling.desired > 3


def test_a_held_request_wakes_a_sleeping_model_at_once(model: Make) -> None:
    asleep = model(desired=0, min_replicas=0)
    asleep.run(60)
    decision = asleep.tick(seconds=0.1, arrivals=1, held=1)
    assert (decision.desired, decision.reason, decision.message) == (1, "WakeFromZero", "0 → 1: 1 held")


def test_the_first_answer_of_one_gateway_wakes_although_the_other_is_silent(model: Make) -> None:
    asleep = model(desired=0, min_replicas=0)
    asleep.totals["gateway-b"] = [0, 0]
    assert asleep.tick(seconds=0.1, arrivals=1, held=1, silent=("gateway-b",)).desired == 1


def test_a_sleeping_model_stays_asleep(model: Make) -> None:
    assert model(desired=0, min_replicas=0).run(600).desired == 0


def test_an_idle_model_goes_to_sleep_after_its_hold_and_not_before(model: Make) -> None:
    idle = model(desired=1, min_replicas=0)
    idle.run(20, arrivals=1, completions=1, running=1)
    assert idle.run(290).desired == 1
    assert idle.decisions[-1].reason == "Held"
    assert idle.run(30).desired == 0
    assert any(decision.message == "1 → 0: no requests" for decision in idle.decisions)


@pytest.mark.parametrize("load", [{"held": 1}, {"running": 1}, {"waiting": 1}])
def test_a_model_that_somebody_waits_for_never_goes_to_sleep(model: Make, load: dict[str, int]) -> None:
    used = model(desired=1, min_replicas=0)
    used.run(20, arrivals=1, completions=1, running=1)
    for _ in range(180):
        assert used.tick(seconds=20.0, **load).desired >= 1


def test_when_all_replicas_have_crashed_their_number_stays(model: Make) -> None:
    crashed = model(desired=3)
    crashed.run(60, arrivals=8, completions=8, running=8)
    for _ in range(300):
        assert crashed.tick(arrivals=1, held=50, ready=0, pending_ages=(30.0,) * crashed.desired).desired == 3


def test_before_its_first_answer_a_new_model_does_not_multiply(model: Make) -> None:
    new = model(desired=0, min_replicas=0, learned=Learned())
    for second in range(40):
        ages = (2.0 * second,) * new.desired
        decision = new.tick(arrivals=60, held=60 * (second + 1), ready=0, pending_ages=ages)
    assert decision.desired == 1


def test_a_new_model_with_quick_requests_is_not_given_all_its_replicas(model: Make) -> None:
    """Two requests a second, half a second each: one replica that works on two at a time is enough, and that shows early."""
    fresh = model(learned=Learned(), target_inflight=2)
    fresh.run(30)
    fresh.run(60, arrivals=4, completions=4, running=1)
    assert max(decision.desired for decision in fresh.decisions) == 1


def test_a_gateway_that_counts_anew_adds_what_it_counted_since(model: Make) -> None:
    steady = model(desired=1)
    steady.run(60, arrivals=2, completions=2, running=2)
    steady.totals["gateway-a"] = [0, 0]
    decision = steady.run(60, arrivals=2, completions=2, running=2)
    assert decision.desired == 1


def test_a_gateway_that_joins_late_brings_no_past(model: Make) -> None:
    steady = model(desired=1)
    steady.run(60, arrivals=2, completions=2, running=2)
    steady.totals["gateway-b"] = [5_000_000, 4_999_999]
    assert steady.run(20, arrivals=2, completions=2, running=2).desired == 1


def test_after_a_restart_without_memory_nothing_is_dropped_at_once(model: Make) -> None:
    restarted = model(desired=5)
    restarted.memory = Memory()
    assert restarted.run(290, arrivals=1, completions=1, running=1).desired == 5


def test_after_a_restart_with_memory_holds_go_on_where_they_were(model: Make) -> None:
    before = model(desired=4)
    before.run(200, arrivals=1, completions=1, running=1)
    before.now += 3600
    assert before.run(80, arrivals=1, completions=1, running=1).desired == 4
    assert before.run(40, arrivals=1, completions=1, running=1).desired == 1


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_moves_nothing(model: Make, jump: float) -> None:
    steady = model(desired=3)
    steady.run(100, arrivals=1, completions=1, running=1)
    steady.now += jump
    assert steady.run(100, arrivals=1, completions=1, running=1).desired == 3
    assert steady.run(200, arrivals=1, completions=1, running=1).desired == 1


def test_bounds_are_kept_and_named(model: Make) -> None:
    small = model(desired=2, max_replicas=2)
    small.tick(held=50)
    decision = small.tick(arrivals=20, held=50, running=8)
    assert (decision.desired, decision.reason) == (2, "AtMaximum")
    assert decision.message.startswith("2 kept: 6 needed (50 waiting")
    idle = model(desired=2, min_replicas=2)
    assert idle.run(3600, step=20).reason == "AtMinimum"
    assert idle.desired == 2


def test_a_lowered_maximum_is_followed(model: Make) -> None:
    wide = model(desired=8)
    wide.run(20, arrivals=20, completions=20, running=24)
    wide.spec = replace(wide.spec, max_replicas=3)
    assert wide.tick(arrivals=20, completions=20, running=24).desired == 3


def test_steady_load_with_noise_does_not_flap(model: Make) -> None:
    """Thirty minutes at 60 % of three replicas, arrivals uneven by a pattern: at most one turn in five minutes."""
    steady = model(desired=3)
    pattern = [4, 7, 9, 5, 6, 8, 3, 10, 6, 7]
    counts = [
        steady.tick(arrivals=pattern[i % 10], completions=pattern[(i - 1) % 10], running=6).desired for i in range(900)
    ]
    directions = [b - a > 0 for a, b in pairwise(counts) if a != b]
    turns = sum(1 for a, b in pairwise(directions) if a != b)
    assert turns <= 6
    assert 2 <= min(counts[150:]) <= max(counts[150:]) <= 5


def test_a_decision_takes_less_than_a_millisecond(model: Make) -> None:
    """Sixteen replicas and all memory full, without the JSON around it."""
    from stoker.scaling import EngineLoad, GatewayLoad, Replicas, Sample, decide

    full = model(desired=16, max_replicas=16)
    for second in range(1000):
        full.tick(arrivals=(second % 40) * 2, completions=30, running=second % 50)
    now, memory, learned, taken = full.now, full.memory, full.learned, []
    for step in range(1, 200):
        engines = {str(number): EngineLoad(2.0, 0.0) for number in range(16)}
        sample = Sample(
            now + 2 * step, {"gateway-a": GatewayLoad(0, 200_000 + 40 * step, 200_000 + 40 * step)}, engines
        )
        began = time.process_time()
        decision = decide(now + 2 * step, [sample], Replicas(16, 16), learned, memory, full.spec)
        taken.append(time.process_time() - began)
        memory, learned = decision.memory, decision.learned
    assert statistics.median(taken) < 0.001
