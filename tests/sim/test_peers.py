"""Each project's policy does what its documentation says."""

from __future__ import annotations

import pytest
from sim.peers import Hpa, Kpa, KubeAi, RayServe, Wva
from sim.world import Policy, Reading, View


class Asked:
    """Asks a policy with its own period and follows its answers at once."""

    def __init__(self, policy: Policy, desired: int = 1) -> None:
        self.policy, self.desired, self.now, self.seconds = policy, desired, 0.0, 0.0

    def run(self, seconds: float, running: float, waiting: float = 0.0) -> list[int]:
        answers = []
        for _ in range(round(seconds / self.policy.period)):
            self.now += self.policy.period
            self.seconds += (running + waiting) * self.policy.period
            each = max(1, self.desired)
            engines = dict.fromkeys(range(self.desired), (running / each, waiting / each))
            reading = Reading(self.now, 0, 0, 0, engines)
            self.desired = self.policy.decide(
                View(self.now, reading, self.desired, self.desired, (), (), 0, self.seconds)
            )
            answers.append(self.desired)
        return answers


def test_hpa_takes_the_ceiling_outside_its_tolerance() -> None:
    hpa = Asked(Hpa(8, "in-flight"), desired=2)
    assert hpa.run(15, 17) == [2]
    assert hpa.run(15, 20) == [3]


def test_hpa_adds_at_most_four_or_as_many_as_there_are_each_quarter_minute() -> None:
    assert Asked(Hpa(1, "in-flight")).run(45, 100) == [5, 10, 20]


def test_hpa_goes_down_by_the_highest_recommendation_of_five_minutes() -> None:
    hpa = Asked(Hpa(8, "in-flight"), desired=4)
    hpa.run(60, 32)
    answers = hpa.run(330, 8)
    assert answers[:18] == [4] * 18
    assert answers[-1] == 1


def test_the_tutorials_query_freezes_at_two_replicas() -> None:
    keda = Asked(Hpa(5, "waiting", one_series=True))
    assert max(keda.run(600, 50, waiting=10)) == 2
    assert keda.run(600, 50, waiting=100)[-1] == 2


@pytest.mark.parametrize(("waiting", "least"), [(0.0, 0), (1.0, 1)])
def test_keda_sleeps_when_nothing_waits_although_requests_run(waiting: float, least: int) -> None:
    keda = Asked(Hpa(5, "waiting", min_replicas=0))
    assert keda.run(900, 3, waiting=waiting)[-1] == least


def test_knative_panics_at_twice_and_does_not_go_down_until_it_is_calm() -> None:
    kpa = Asked(Kpa(10), desired=1)
    kpa.run(60, 5)
    assert kpa.run(8, 60)[-1] >= 5
    answers = kpa.run(120, 5)
    assert min(answers[:25]) >= 5
    assert answers[-1] == 1


def test_knative_halves_at_most() -> None:
    kpa = Asked(Kpa(10), desired=8)
    kpa.run(70, 80)
    answers = kpa.run(200, 1)
    drops = [b / a for a, b in zip([8, *answers], answers, strict=False)]
    assert min(drops) >= 0.5


def test_knative_sleeps_after_its_grace() -> None:
    kpa = Asked(Kpa(10, min_replicas=0))
    kpa.run(70, 5)
    assert kpa.run(80, 0)[-1] == 1
    assert kpa.run(60, 0)[-1] == 0


def test_kubeai_sees_a_step_fully_only_after_ten_minutes() -> None:
    kubeai = Asked(KubeAi(10))
    answers = kubeai.run(600, 50)
    assert answers[11] == 1
    assert answers[29] == 3
    assert answers[-1] == 5


def test_kubeai_goes_down_after_three_lower_answers() -> None:
    kubeai = Asked(KubeAi(10), desired=2)
    assert kubeai.run(50, 0) == [2, 2, 2, 1, 1]


def test_ray_waits_thirty_seconds_up_and_ten_minutes_down() -> None:
    ray = Asked(RayServe(2))
    answers = ray.run(60, 8)
    assert answers[25] == 1
    assert answers[-1] == 4
    answers = ray.run(700, 2)
    assert answers[590] == 4
    assert answers[-1] == 1


def test_wva_learns_its_capacity_where_a_queue_is_seen() -> None:
    wva = Asked(Wva(0.85), desired=2)
    assert wva.run(30, 20)[-1] == 1
    assert wva.run(60, 10, waiting=12)[-1] >= 3
