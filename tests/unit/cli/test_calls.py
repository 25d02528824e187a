"""What a gateway says, as a person reads it."""

from __future__ import annotations

import socket

import httpx
import pytest

from stoker.cli.calls import ask, read_usage, refusal, usage_table
from stoker.cli.session import Failed


def test_usage_has_a_row_for_each_group_and_a_sum() -> None:
    row = {"requests": 2, "failed_requests": 0, "prompt_tokens": 30, "completion_tokens": 12, "cached_tokens": 0}
    table = usage_table({"data": [{"day": "2026-03-01", "model": "qwen", **row}], "total": row}, ["day", "model"])
    assert table.titles[:3] == ("DAY", "MODEL", "REQUESTS")
    assert table.rows == (
        ("2026-03-01", "qwen", "2", "0", "30", "12", "0"),
        ("total", "", "2", "0", "30", "12", "0"),
    )


def test_one_sum_for_all_has_no_second_row() -> None:
    row = {"requests": 2, "failed_requests": 0, "prompt_tokens": 30, "completion_tokens": 12, "cached_tokens": 0}
    assert usage_table({"data": [row], "total": row}, []).rows == (("2", "0", "30", "12", "0"),)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(404, json={"error": {"message": "no such model"}}), "404: no such model"),
        (httpx.Response(502, text="bad gateway"), "502: bad gateway"),
        (httpx.Response(500), "500: Internal Server Error"),
    ],
)
def test_a_refusal_is_told_in_the_gateways_words(answer: httpx.Response, said: str) -> None:
    assert refusal(answer) == said


def test_a_gateway_that_is_not_there_is_told_with_the_way_round() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(Failed, match="kubectl port-forward"):
            read_usage(base, "sk-none", {})
        with pytest.raises(Failed, match="kubectl port-forward"):
            list(ask(base, "sk-none", "qwen", "Hello!"))
