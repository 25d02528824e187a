from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from stoker.gateway.asked_tokens import (
    IMAGE_TOKENS,
    LONGEST_ADDITION,
    additions,
    check_max_tokens,
    estimate_prompt,
    too_long_to_add,
)

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"model": "a long name that does not count", "metadata": {"x": "y" * 400}}, 0),
        ({"messages": [{"content": "x" * 400}]}, 100),
        ({"messages": [{"content": "ü" * 400}]}, 200),
        ({"prompt": [1, 2, 3], "input": ["abcd", "abcde"]}, 6),
        ({"messages": [{"content": [{"text": "abcd"}, {"image_url": {"url": "data:image/png;base64," + "A" * 9999}}]}]}, 1 + IMAGE_TOKENS),
        ({"messages": [{"content": [{"source": {"data": "A" * 9999}}]}]}, IMAGE_TOKENS),
        ({"prompt": ["abcd", 1, True, None, 1.5, [2, 3]]}, 4),
        ({"messages": functools.reduce(lambda inner, _: [inner], range(1020), "abcd")}, 1),
    ],
)  # fmt: skip
def test_a_prompt_is_estimated_by_its_texts(document: dict[str, Any], tokens: int) -> None:
    assert estimate_prompt(document) == tokens


def added(document: dict[str, Any], path: str = CHAT, max_tokens: int = 0) -> dict[str, Any]:
    text = additions(document, path, max_tokens)
    assert text is not None
    result: dict[str, Any] = json.loads("{" + text + "}")
    return result


def test_streams_that_do_not_ask_for_usage_get_it_from_the_engine() -> None:
    assert added({"stream": True}) == {"stream_options": {"include_usage": True}}
    assert added({"stream": True, "stream_options": {"a": 1}}) == {"stream_options": {"a": 1, "include_usage": True}}
    assert not added({"stream": True, "stream_options": {"include_usage": True}})
    assert not added({"stream": True}, "/v1/responses")
    assert not added({"stream": False})
    assert not added({})


def test_a_maximum_is_added_where_none_is_given() -> None:
    assert added({}, max_tokens=100) == {"max_tokens": 100}
    assert added({"n": 3}, max_tokens=100) == {"max_tokens": 33}
    assert added({"max_tokens": None}, max_tokens=100) == {"max_tokens": 100}
    assert added({}, "/v1/responses", 100) == {"max_output_tokens": 100}
    assert not added({"max_completion_tokens": 5}, max_tokens=100)
    assert not added({}, "/v1/embeddings", 100)


def test_what_is_too_long_for_a_header_is_not_added() -> None:
    deep = functools.reduce(lambda inner, _: [inner], range(1010), "x")
    for options in ({"x": "y" * LONGEST_ADDITION}, {"x": "ä" * (LONGEST_ADDITION // 6)}, {"x": deep}):
        assert additions({"stream": True, "stream_options": options}, CHAT, 0) is None
        assert additions({"options": options}, "/api/chat", 5) is None
        assert additions({"options": options}, "/api/chat", 0) == "", "nothing of it is taken over"
    assert (problem := too_long_to_add("/api/chat")).param == "options", problem
    assert too_long_to_add(CHAT).param == "stream_options"


@pytest.mark.parametrize(
    ("document", "refused"),
    [
        ({}, False),
        ({"max_tokens": 100}, False),
        ({"max_tokens": 101}, True),
        ({"max_tokens": 0}, True),
        ({"max_tokens": True}, True),
        ({"max_tokens": 1e3}, True),
        ({"max_tokens": 50, "n": 2}, False),
        ({"max_tokens": 51, "best_of": 2}, True),
        ({"n": 101}, True),
        ({"max_tokens": 10, "n_predict": 1000}, True),
        ({"max_tokens": 10, "max_length": 1000}, True),
        ({"max_tokens": 10, "auto_max_new_tokens": False}, False),
        ({"max_tokens": 10, "auto_max_new_tokens": True}, True),
        ({"max_tokens": 51, "n": 1, "n_cmpl": 2}, True),
        ({"n": None}, False),
        ({"n": "2"}, True),
        ({"n": -2}, True),
        ({"N": 2}, True),
        ({"prompt": ["a"] * 101}, False),
    ],
)
def test_a_request_for_more_than_the_maximum_is_refused(document: dict[str, Any], refused: bool) -> None:
    problem = check_max_tokens(document, CHAT, 100)
    assert (problem is not None) == refused
    assert check_max_tokens(document, "/v1/embeddings", 100) is None


def test_each_prompt_of_a_list_counts() -> None:
    path = "/v1/completions"
    assert check_max_tokens({"prompt": ["a", [1, 2], "b"], "max_tokens": 34}, path, 100) is not None
    assert check_max_tokens({"prompt": ["a", [1, 2], "b"], "max_tokens": 33}, path, 100) is None
    assert check_max_tokens({"prompt": [1, 2, 3], "max_tokens": 100}, path, 100) is None, "one, in tokens"
    assert check_max_tokens({"prompt": [], "max_tokens": 100}, path, 100) is None
    assert added({"prompt": ["a", "b"], "n": 5}, path, 100) == {"max_tokens": 10}
