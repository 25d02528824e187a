from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.config import build_table, parse_keys, parse_routes
from stoker.gateway.limits import SWEEP_FROM, RequestLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_as_many_as_the_limit_says_are_admitted_and_the_answers_count_down(clock: Clock) -> None:
    limits = RequestLimits(clock)
    admissions = [limits.admit("alice", 3) for _ in range(5)]
    assert [a.admitted for a in admissions] == [True, True, True, False, False]
    assert [a.remaining for a in admissions] == [2, 1, 0, 0, 0]
    assert admissions[3].headers == (
        ("x-ratelimit-limit-requests", "3"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "61s"),
    )
    assert limits.admit("bob", 3).admitted


def test_whoever_waits_as_long_as_he_is_told_is_admitted(clock: Clock) -> None:
    limits = RequestLimits(clock)
    limits.admit("alice", 2)
    clock.now += 30.4
    limits.admit("alice", 2)
    refused = limits.admit("alice", 2)
    assert (refused.admitted, refused.retry_after) == (False, 31)
    clock.now += refused.retry_after
    assert limits.admit("alice", 2).admitted
    assert not limits.admit("alice", 2).admitted


def test_a_lower_limit_counts_at_once(clock: Clock) -> None:
    limits = RequestLimits(clock)
    for _ in range(10):
        limits.admit("alice", 10)
    refused = limits.admit("alice", 2)
    assert (refused.admitted, refused.remaining) == (False, 0)


def test_a_refused_request_does_not_count(clock: Clock) -> None:
    limits = RequestLimits(clock)
    for _ in range(100):
        limits.admit("alice", 1)
        clock.now += 0.1
    clock.now += 51
    assert limits.admit("alice", 1).admitted


@given(st.lists(st.floats(0, 40), max_size=120), st.integers(1, 5))
def test_in_no_minute_are_more_admitted_than_the_limit_and_nobody_waits_a_second_too_long(
    gaps: list[float], limit: int
) -> None:
    clock = Clock()
    limits = RequestLimits(clock)
    admitted: list[float] = []
    for gap in gaps:
        clock.now += gap
        recent = [moment for moment in admitted if moment > clock.now - 60]
        if limits.admit("alice", limit).admitted:
            assert len(recent) < limit
            admitted.append(clock.now)
        else:
            assert len([moment for moment in admitted if moment > clock.now - 61]) >= limit


def test_callers_who_left_are_forgotten(clock: Clock) -> None:
    limits = RequestLimits(clock)
    for number in range(SWEEP_FROM):
        limits.admit(f"caller-{number}", 1)
    clock.now += 120
    limits.admit("new", 1)
    assert len(limits._windows) == 1


def table(*entries: dict[str, object], **more: object):  # type: ignore[no-untyped-def]
    return build_table(
        parse_routes(routes(model("qwen"), model("embed"), **more)), parse_keys(keys(*entries)), frozenset()
    )


def test_a_keys_own_limit_wins_over_its_roles_and_that_over_the_gateways() -> None:
    roles = [{"name": "fast", "models": ["*"], "requestsPerMinute": 100}, {"name": "user", "models": ["*"]}]
    made = table(
        key("own", "1", role="fast", requestsPerMinute=7), key("of-role", "2", role="fast"), key("none", "3", role="user"),
        key("plain", "4"), roles=roles, requestsPerMinute=10,
    )  # fmt: skip
    assert {key.name: key.requests_per_minute for key in made.keys.values()} == {"own": 7, "of-role": 100, "none": 10, "plain": 10}  # fmt: skip
    assert not next(iter(table(key("plain", "4")).keys.values())).requests_per_minute


def test_replicas_share_a_limit_and_each_admits_one_at_least() -> None:
    for limit, replicas, share in ((60, 2, 30), (61, 2, 30), (1, 3, 1), (5, 1, 5)):
        (found,) = table(key("alice", "1", requestsPerMinute=limit), replicas=replicas).keys.values()
        assert found.requests_per_minute == share


def test_a_key_may_use_what_both_it_and_its_role_may() -> None:
    made = table(key("alice", "1", models=["q*", "x"], role="r"), roles=[{"name": "r", "models": ["qwen", "embed"]}])
    assert [name for name, _ in made.visible(next(iter(made.keys.values())))] == ["qwen"]


@pytest.mark.parametrize(
    "broken",
    [{"role": "gone"}, {"requestsPerMinute": "60"}, {"requestsPerMinute": 0}, {"requestsPerMinute": -1}, {"requestsPerMinute": True}],
)  # fmt: skip
def test_a_key_whose_bounds_cannot_be_read_is_not_let_in(broken: dict[str, object]) -> None:
    assert not table(key("alice", "1", **broken)).keys


def test_a_role_whose_limit_cannot_be_read_opens_nothing() -> None:
    roles = [{"name": "r", "models": ["*"], "requestsPerMinute": "many"}]
    assert not table(key("alice", "1", role="r"), roles=roles).keys
