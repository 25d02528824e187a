from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.gateway.asked_tokens import IMAGE_TOKENS, additions, check_max_tokens, estimate_prompt

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
    ],
)  # fmt: skip
def test_a_prompt_is_estimated_by_its_texts(document: dict[str, Any], tokens: int) -> None:
    assert estimate_prompt(document) == tokens


def added(document: dict[str, Any], path: str = CHAT, max_tokens: int = 0) -> dict[str, Any]:
    text = additions(document, path, max_tokens)
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
    ],
)
def test_a_request_for_more_than_the_maximum_is_refused(document: dict[str, Any], refused: bool) -> None:
    problem = check_max_tokens(document, CHAT, 100)
    assert (problem is not None) == refused
    assert check_max_tokens(document, "/v1/embeddings", 100) is None
