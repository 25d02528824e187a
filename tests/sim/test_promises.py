"""What the autoscaler promises; all of it takes minutes and is `make sim`, one seed of the essence is here."""

from __future__ import annotations

import pytest
from sim import promises
from sim.promises import Promise
from sim.suite import CASES, OURS, SPARSE, Job, Results, frontier_jobs, run_all, trial_jobs

PEERS = ("Ray Serve 8", "KubeAI 4", "HPA in-flight 8", "KEDA waiting 5")


def broken(found: list[Promise]) -> list[Promise]:
    return [promise for promise in found if not promise.kept]


@pytest.fixture(scope="module")
def one_seed() -> Results:
    jobs = [Job(case, setting, "", 1) for case in CASES for setting in (OURS, *PEERS)]
    jobs += [Job(case, OURS, "readings lost", 1) for case in CASES]
    jobs += [Job(case, f"{OURS} from zero", "", 1) for case in SPARSE]
    return run_all([*jobs, Job("r1", OURS, "early binding", 1)])


def test_one_default_serves_four_traces_in_time_and_within_its_cost(one_seed: Results) -> None:
    assert broken(promises.traces(one_seed)) == []


def test_nothing_is_lost_asleep_or_blind_or_behind_an_early_gateway(one_seed: Results) -> None:
    assert broken(promises.trials(one_seed)) == []


def test_the_documented_alternative_costs_more_and_serves_fewer(one_seed: Results) -> None:
    hours, within = one_seed.total(OURS)
    keda_hours, keda_within = one_seed.total("KEDA waiting 5")
    assert hours <= 0.9 * keda_hours
    assert within >= keda_within + 15


def test_no_peer_is_both_cheaper_and_better_with_one_setting(one_seed: Results) -> None:
    hours, within = one_seed.total(OURS)
    for name in PEERS:
        peer_hours, peer_within = one_seed.total(name)
        assert peer_hours > hours or peer_within < within


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_promise_is_kept_over_all_seeds() -> None:
    assert broken(promises.all_promises(run_all([*frontier_jobs(), *trial_jobs()]))) == []
