from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from stoker.gateway.affinity import Ring, conversation_position, position_of

ADDRESSES = [f"10.0.0.{number}:8080" for number in range(10)]


def test_conversations_spread_over_all_endpoints() -> None:
    ring = Ring(ADDRESSES)
    counts = Counter(ring.first(position_of(b"%d" % number)) for number in range(10_000))
    assert counts.keys() == set(ADDRESSES)
    assert 600 < min(counts.values()) < max(counts.values()) < 1500


def test_an_endpoint_that_goes_moves_only_its_own_conversations() -> None:
    before, after = Ring(ADDRESSES), Ring(ADDRESSES[1:])
    for number in range(1000):
        position = position_of(b"%d" % number)
        if before.first(position) != ADDRESSES[0]:
            assert after.first(position) == before.first(position)


def test_a_walk_meets_every_endpoint_once_beginning_with_the_nearest() -> None:
    ring = Ring(ADDRESSES)
    for number in range(50):
        walked = list(ring.walk(position_of(b"%d" % number)))
        assert sorted(walked) == ADDRESSES
        assert walked[0] == ring.first(position_of(b"%d" % number))


def turns(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


HEAD = turns(("system", "Be kind."), ("user", "What is a horse?"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"messages": HEAD}, {"messages": [*HEAD, *turns(("assistant", "An animal."), ("user", "And a cow?"))]}),
        ({"messages": HEAD, "temperature": 1}, {"messages": HEAD, "stream": True}),
        ({"messages": HEAD}, {"messages": turns(("system", "Be kind."), ("user", [{"type": "text", "text": "What is a horse?"}]))}),
        ({"system": "Be kind.", "messages": HEAD[1:]}, {"system": [{"type": "text", "text": "Be kind."}], "messages": HEAD[1:]}),
        ({"instructions": "Be kind.", "input": "Hi"}, {"instructions": "Be kind.", "input": turns(("user", "Hi"))}),
        ({"prompt": "x" * 5000 + "y"}, {"prompt": "x" * 5000 + "z"}),
    ],
)  # fmt: skip
def test_a_conversation_keeps_its_place_as_it_goes_on(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert conversation_position(first) == conversation_position(second) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"messages": HEAD}, {"messages": turns(("system", "Be kind."), ("user", "What is a cow?"))}),
        ({"messages": HEAD}, {"messages": turns(("system", "Be brief."), ("user", "What is a horse?"))}),
        ({"prompt": "a"}, {"prompt": "b"}),
    ],
)
def test_other_conversations_have_other_places(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert conversation_position(first) != conversation_position(second)


@pytest.mark.parametrize(
    "document",
    [{}, {"messages": []}, {"messages": [1]}, {"messages": [{"role": "user"}]}, {"prompt": [1, 2]}, {"messages": "\ud800"}],
)  # fmt: skip
def test_what_says_nothing_has_no_place_or_at_least_no_error(document: dict[str, Any]) -> None:
    assert conversation_position(document) is None or document["messages"] == "\ud800"
