from __future__ import annotations

from typing import Any

import pytest
from unit.gateway.conftest import model, routes

from stoker.gateway.asked_tokens import IMAGE_TOKENS, additions, check_max_tokens, estimate_prompt
from stoker.gateway.config import parse_routes
from stoker.gateway.ollama import check_limit, check_members, describe_tags, more_members
from stoker.gateway.token_use import TokenCounter


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"options": {"num_ctx": 4096}}, "options.num_ctx"),
        ({"options": {"temperature": 0, "num_gpu": 0}}, "options.num_gpu"),
        ({"options": "x"}, "options"),
        ({"Options": {"num_ctx": 1}}, "options"),
        ({"optionſ": {"num_ctx": 1}}, "options"),
        ({"MODEL": "x"}, "model"),
        ({"Keep_alive": 0}, "keep_alive"),
    ],
)
def test_what_would_change_the_engine_for_everybody_is_refused(document: dict[str, Any], param: str) -> None:
    problem = check_members({"model": "qwen", **document})
    assert problem
    assert (problem.status, problem.param) == (400, param)


@pytest.mark.parametrize("more", [{}, {"options": None}, {"options": {"temperature": 1, "seed": 3}}, {"keep_alive": 0}])
def test_what_concerns_one_answer_passes(more: dict[str, Any]) -> None:
    assert check_members({"model": "qwen", **more}) is None


def test_the_model_stays_whatever_a_request_says() -> None:
    assert more_members({"keep_alive": 0}, 0) == {"keep_alive": -1}
    assert more_members({"model": "qwen"}, 0) == {}
    assert additions({"keep_alive": "5m", "stream": True}, "/api/chat", 0) == '"keep_alive":-1'


def test_a_maximum_of_tokens_is_put_beside_the_other_options() -> None:
    assert more_members({"options": {"seed": 3}}, 50) == {"options": {"seed": 3, "num_predict": 50}}
    assert more_members({"options": {"num_predict": 3}}, 50) == {}
    assert check_limit({"options": {"num_predict": 50}}, 50) is None
    assert check_limit({}, 50) is None
    for value in (51, 0, -1, -2, True, "9"):
        assert check_max_tokens({"options": {"num_predict": value}}, "/api/generate", 50)


def test_a_maximum_in_other_letters_is_refused_where_there_is_one() -> None:
    assert check_max_tokens({"Max_Tokens": 5}, "/v1/chat/completions", 50)
    assert check_max_tokens({"max_toKens": 5}, "/v1/chat/completions", 50), "the sign for Kelvin is a k to Go"
    assert check_max_tokens({"max_tokens": 5, "Maximum": 5}, "/v1/chat/completions", 50) is None


def test_pictures_count_as_such() -> None:
    assert estimate_prompt({"messages": [{"content": "abcd", "images": ["A" * 90_000]}]}) == 1 + IMAGE_TOKENS


def test_only_models_that_can_be_asked_like_this_are_listed() -> None:
    (one, two) = parse_routes(routes(model("a", paths=["/api/chat"], createdAt=0), model("b", deployment="b"))).models
    assert [entry["name"] for entry in describe_tags([("a", one), ("alias", one), ("b", two)])["models"]] == ["a", "alias"]  # type: ignore[attr-defined]  # fmt: skip


def test_a_stream_that_broke_off_is_estimated() -> None:
    line = {"path": "/api/chat", "type": "application/x-ndjson", "code": 200, "flags": "DC", "bytes_in": 400, "bytes_out": 2400}  # fmt: skip
    use = TokenCounter().read(line)
    assert (use.prompt, use.completion, use.estimated) == (100, 10, True)
