"""What a replica lets in without Redis; with a real one: tests/gateway/test_shared_limits.py."""

from __future__ import annotations

from unit.gateway.test_limits import Clock, scope

from stoker.gateway.limits import SLOTS, Counters
from stoker.gateway.shared_limits import MOST_REMEMBERED, SharedCounters


def shared(clock: Clock) -> tuple[SharedCounters, Counters]:
    counters = Counters(clock)
    return SharedCounters("redis://nobody:1/0", "team-a/gateway", counters, clock), counters


def left(shared: SharedCounters, counters: Counters) -> int:
    (reading,) = shared.without_redis(counters.read((scope(requests=60),), tokens=0, replicas=2))
    return reading.limit - reading.used


def told(shared: SharedCounters, counters: Counters, used: int) -> None:
    """Redis has answered: so many by all, before the present one."""
    own = counters.read((scope(requests=60),), tokens=0, replicas=1)
    shared._remember(own, [type(own[0])("requests", own[0].scope, 60, used, 1)], 2)
    counters.count((scope(requests=60),), tokens=0, ticket="")


def test_without_a_word_of_redis_a_replica_lets_its_share_in() -> None:
    clock = Clock()
    assert left(*shared(clock)) == 30


def test_when_redis_goes_a_replica_lets_in_its_share_of_what_was_left_and_later_its_share_of_all() -> None:
    clock = Clock()
    both = shared(clock)
    told(*both, used=19)
    # 20 are used, one is left out, 39 are shared by two.
    assert left(*both) == 19
    told(*both, used=59)
    assert left(*both) == 0
    clock.now += SLOTS
    assert left(*both) == 30


def test_a_new_redis_is_not_asked_before_it_has_answered() -> None:
    both = shared(Clock())
    assert not both[0].usable
    both[0].note((scope(requests=60),), 0)
    both[0].correct((scope(tokens=60, concurrent=1),), 5)


def test_what_another_replica_says_is_left_holds_when_redis_goes() -> None:
    clock = Clock()
    redis, counters = shared(clock)
    redis._hear('["another", {"requests alice": 4}]')
    assert left(redis, counters) == 4
    counters.count((scope(requests=60),), tokens=0, ticket="")
    assert left(redis, counters) == 3
    redis._hear('["another", {"requests alice": 0}]')
    assert left(redis, counters) == 0
    clock.now += SLOTS
    assert left(redis, counters) == 30


def test_what_cannot_be_read_or_is_its_own_is_no_news() -> None:
    redis, counters = shared(Clock())
    for message in ("", "{}", "[1]", '["x", 5]', '["x", {"requests": "many"}]', '["x", {"requests alice": null}]'):
        redis._hear(message)
    redis._hear(f'["{redis._instance}", {{"requests alice": 0}}]')
    assert left(redis, counters) == 30


def test_what_is_remembered_is_bounded() -> None:
    redis, counters = shared(Clock())
    for number in range(MOST_REMEMBERED + 10):
        (reading,) = counters.read((scope(f"caller-{number}", requests=60),), tokens=0, replicas=1)
        redis._remember([reading], [reading], 1)
    assert len(redis._remembered) <= MOST_REMEMBERED + 1


def test_places_are_of_those_who_may_only_have_so_many() -> None:
    counters = Counters(Clock())
    few, many = scope("few", concurrent=2), scope("many", requests=2)
    counters.count((few, many), tokens=0, ticket="1")
    counters.count((few,), tokens=0, ticket="2")
    assert counters.places() == {few: 2}
