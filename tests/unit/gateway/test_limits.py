from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.gateway.conftest import key, keys, model, routes

from stoker.gateway.bounds import Bounds, Scope, share
from stoker.gateway.config import ConfigRejected, parse_keys, parse_routes
from stoker.gateway.limits import SWEEP_FROM, Admission, Counters
from stoker.gateway.table import build_table


class RequestLimits(Counters):
    """Counters of which only requests are asked."""

    def ask(self, caller: str, limit: int) -> Admission:
        return self.admit((Scope(caller, "you", Bounds(requests=limit)),))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def retry_after(refused: Admission) -> int:
    assert refused.problem is not None
    return int(dict(refused.problem.headers)["retry-after"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_as_many_as_the_limit_says_are_admitted_and_the_answers_count_down(clock: Clock) -> None:
    limits = RequestLimits(clock)
    admissions = [limits.ask("alice", 3) for _ in range(5)]
    assert [a.admitted for a in admissions] == [True, True, True, False, False]
    assert [dict(a.headers)["x-ratelimit-remaining-requests"] for a in admissions] == ["2", "1", "0", "0", "0"]
    assert admissions[3].headers == (
        ("x-ratelimit-limit-requests", "3"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "61s"),
    )
    assert limits.ask("bob", 3).admitted


def test_whoever_waits_as_long_as_he_is_told_is_admitted(clock: Clock) -> None:
    limits = RequestLimits(clock)
    limits.ask("alice", 2)
    clock.now += 30.4
    limits.ask("alice", 2)
    refused = limits.ask("alice", 2)
    assert (refused.admitted, retry_after(refused)) == (False, 31)
    clock.now += retry_after(refused)
    assert limits.ask("alice", 2).admitted
    assert not limits.ask("alice", 2).admitted


def test_a_lower_limit_counts_at_once(clock: Clock) -> None:
    limits = RequestLimits(clock)
    for _ in range(10):
        limits.ask("alice", 10)
    refused = limits.ask("alice", 2)
    assert (refused.admitted, dict(refused.headers)["x-ratelimit-remaining-requests"]) == (False, "0")


def test_a_refused_request_does_not_count(clock: Clock) -> None:
    limits = RequestLimits(clock)
    for _ in range(100):
        limits.ask("alice", 1)
        clock.now += 0.1
    clock.now += 51
    assert limits.ask("alice", 1).admitted


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
        if limits.ask("alice", limit).admitted:
            assert len(recent) < limit
            admitted.append(clock.now)
        else:
            assert len([moment for moment in admitted if moment > clock.now - 61]) >= limit


def test_callers_who_left_are_forgotten(clock: Clock) -> None:
    limits = RequestLimits(clock)
    for number in range(SWEEP_FROM):
        limits.ask(f"caller-{number}", 1)
    clock.now += 120
    limits.ask("new", 1)
    assert len(limits._used) == 1


def table(*entries: dict[str, object], **more: object):  # type: ignore[no-untyped-def]
    return build_table(parse_routes(routes(model("qwen"), model("embed"), **more)), parse_keys(keys(*entries)))


def test_a_keys_own_limit_wins_over_its_roles_and_that_over_the_gateways() -> None:
    roles = [{"name": "fast", "models": ["*"], "requestsPerMinute": 100}, {"name": "user", "models": ["*"]}]
    made = table(
        key("own", "1", role="fast", requestsPerMinute=7), key("of-role", "2", role="fast"), key("none", "3", role="user"),
        key("plain", "4"), roles=roles, requestsPerMinute=10,
    )  # fmt: skip
    assert {key.name: key.bounds.requests for key in made.keys.values()} == {"own": 7, "of-role": 100, "none": 10, "plain": 10}  # fmt: skip
    assert not next(iter(table(key("plain", "4")).keys.values())).bounds.requests


def test_replicas_share_a_limit_and_each_admits_one_at_least() -> None:
    for limit, replicas, part in ((60, 2, 30), (61, 2, 30), (1, 3, 1), (5, 1, 5)):
        assert share(limit, replicas) == part


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


def scope(name: str = "alice", **bounds: int) -> Scope:
    return Scope(name, "you", Bounds(**bounds))


def test_tokens_are_corrected_when_the_request_has_ended(clock: Clock) -> None:
    counters, limited = Counters(clock), (scope(tokens=100),)
    first = counters.admit(limited, tokens=60, ticket="1")
    assert dict(first.headers)["x-ratelimit-remaining-tokens"] == "40"
    assert not counters.admit(limited, tokens=60).admitted
    counters.end("1", 30)
    assert counters.admit(limited, tokens=60, ticket="2").admitted
    counters.end("2", 500)
    assert not counters.admit(limited, tokens=1).admitted
    clock.now += 62
    assert counters.admit(limited, tokens=100).admitted


def test_a_prompt_of_more_than_a_share_waits_for_an_empty_minute_and_one_of_more_than_the_limit_for_ever(
    clock: Clock,
) -> None:
    counters, limited = Counters(clock), (scope(tokens=100),)
    assert counters.admit(limited, tokens=80, replicas=2).admitted
    assert not counters.admit(limited, tokens=80, replicas=2).admitted
    clock.now += 62
    assert not counters.admit(limited, tokens=101, replicas=2).admitted
    assert counters.admit(limited, tokens=80, replicas=2).admitted


def test_places_are_free_when_requests_have_ended_however_often_that_is_told(clock: Clock) -> None:
    counters, limited = Counters(clock), (scope(concurrent=2),)
    assert [counters.admit(limited, ticket=str(number)).admitted for number in range(3)] == [True, True, False]
    for ticket in ("1", "1", "unknown"):
        counters.end(ticket, None)
    assert [counters.admit(limited, ticket=str(number)).admitted for number in (3, 4)] == [True, False]
    assert counters.running == 2


def test_a_request_counts_in_all_its_scopes_or_in_none(clock: Clock) -> None:
    counters = Counters(clock)
    key, user = scope("key", requests=5), scope("user", requests=2)
    assert [counters.admit((key, user)).admitted for _ in range(3)] == [True, True, False]
    assert dict(counters.admit((key,)).headers)["x-ratelimit-remaining-requests"] == "2"


def test_a_callers_scopes_are_himself_his_user_and_the_model(clock: Clock) -> None:
    limits = [{"models": ["emb*"], "requestsPerMinute": 3}, {"models": ["*"], "tokensPerMinute": 9}]
    made = table(key("alice", "1", owner="Ann", concurrentRequests=2), modelLimits=limits, perUser={"requestsPerMinute": 4}, requestsPerMinute=7)  # fmt: skip
    (caller,) = made.keys.values()
    found = {model.name: made.scopes(caller, model) for model in made.routes.models}
    assert [(s.name, s.bounds) for s in found["qwen"]] == [
        ("caller alice", Bounds(requests=7, concurrent=2)),
        ("user Ann", Bounds(requests=4)),
        ("model team-a/qwen alice", Bounds(tokens=9)),
    ]
    assert found["embed"][-1].bounds == Bounds(requests=3)


@pytest.mark.parametrize("broken", [{"perUser": {"tokensPerMinute": "x"}}, {"modelLimits": [{"requestsPerMinute": 0}]}])
def test_a_document_whose_limits_cannot_be_read_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ConfigRejected):
        parse_routes(routes(**broken))
