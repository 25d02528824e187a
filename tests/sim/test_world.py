"""The simulated world does what its description says."""

from __future__ import annotations

import random

import pytest
from sim.traces import Trace
from sim.world import Platform, View, simulate

QUIET = Platform(noise=0.0, missed=0.0, warm_up=0.0)


def poisson(rate: float, seconds: float, prompt: int = 500, output: int = 100) -> Trace:
    rng = random.Random(1)
    arrivals, now = [], 0.0
    while (now := now + rng.expovariate(rate)) < seconds:
        arrivals.append(now)
    return Trace(arrivals, [prompt] * len(arrivals), [output] * len(arrivals))


class Script:
    """Asks for what a list says, tick by tick, and keeps what it saw."""

    period, scrape, wakes, min_replicas, max_replicas = 10.0, 0.0, True, 0, 16

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)
        self.views: list[View] = []

    def decide(self, view: View) -> int:
        self.views.append(view)
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]


def test_every_request_is_answered_once() -> None:
    trace = poisson(5, 300)
    policy = Script(2)
    outcome = simulate(trace, policy, seed=1, start=2, platform=QUIET)
    assert (len(outcome.first_tokens), outcome.failed) == (len(trace), 0)
    last = policy.views[-1].reading
    assert last.completions <= last.arrivals <= len(trace)
    assert outcome.quantile(0.5) < 0.2


def test_the_same_seed_gives_the_same_run() -> None:
    trace, platform = poisson(20, 300), Platform(warm_up=0.0)
    runs = [simulate(trace, Script(1, 3, 2, 6), seed=seed, start=1, platform=platform) for seed in (4, 4, 5)]
    assert runs[0] == runs[1] != runs[2]


def test_replicas_cost_from_the_moment_they_are_made() -> None:
    outcome = simulate(poisson(1, 3600), Script(4), seed=1, start=4, platform=QUIET)
    assert outcome.gpu_hours == pytest.approx(4.0, rel=0.01)


def test_a_new_replica_takes_its_cold_start() -> None:
    policy = Script(2)
    simulate(poisson(1, 600), policy, seed=1, start=1, platform=QUIET)
    took = policy.views[-1].cold_starts
    assert len(took) == 1
    assert 30 <= took[0] <= 180
    ready = [view.now for view in policy.views if view.ready == 2]
    assert ready[0] - policy.views[0].now == pytest.approx(took[0], abs=10)


def test_a_sleeping_model_is_woken_by_its_first_request_which_waits() -> None:
    class WhileAnybodyWaits(Script):
        def decide(self, view: View) -> int:
            return min(1, round(view.reading.in_flight))

    trace = Trace([1000.0, 1001.0], [100, 100], [10, 10])
    outcome = simulate(trace, WhileAnybodyWaits(0), seed=1, start=0, platform=QUIET)
    assert outcome.failed == 0
    assert 30 <= outcome.first_tokens[1] <= 181


def test_without_holding_a_sleeping_model_fails_its_callers() -> None:
    trace = Trace([1000.0], [100], [10])
    platform = Platform(warm_up=0.0, late_binding=False, hold_seconds=0)
    assert simulate(trace, Script(0), seed=1, start=0, platform=platform).failed == 1


@pytest.mark.parametrize(("grace", "lost"), [(900.0, False), (5.0, True)])
def test_a_replica_that_goes_finishes_what_it_does_within_its_grace(grace: float, lost: bool) -> None:
    trace = Trace([float(i) for i in range(60)], [100] * 60, [4000] * 60)
    platform = Platform(warm_up=0.0, drain_grace=grace)
    outcome = simulate(trace, Script(2, 2, 2, 1), seed=1, start=2, platform=platform)
    assert (outcome.failed > 0) == lost


def test_patience_ends() -> None:
    outcome = simulate(poisson(40, 600, prompt=2000), Script(1), seed=1, start=1, platform=QUIET)
    assert outcome.failed > 0
    assert outcome.first_tokens[-1] == QUIET.patience


def test_lost_readings_leave_the_old_one() -> None:
    policy = Script(1)
    simulate(poisson(1, 3600), policy, seed=1, start=1, platform=Platform(missed=0.3, blackout_every=600.0))
    old = [view.now - view.reading.time for view in policy.views if view.now < 3500]
    assert 0.25 < sum(age > 0 for age in old) / len(old) < 0.45
    assert all(age > 0 for age, view in zip(old, policy.views, strict=False) if view.now % 600 < 30)
