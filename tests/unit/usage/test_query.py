from __future__ import annotations

from datetime import date

import pytest

from stoker.usage.query import MOST_ROWS, BadQuery, as_csv, as_json, parse_query

TODAY = date(2026, 3, 1)


def test_without_a_word_the_last_thirty_days_are_told_by_day_and_model() -> None:
    query = parse_query("", TODAY)
    assert (query.since, query.until, query.by, query.csv) == (date(2026, 1, 31), TODAY, ("day", "model"), False)


def test_who_may_see_his_own_sees_nothing_under_another_name() -> None:
    query = parse_query("key=bob&user=x&by=key", TODAY, caller="iss alice")
    assert query.equal == (("api_key", "bob"), ("person", "x"), ("caller", "iss alice"))
    assert parse_query("", TODAY, key="alice").equal == (("api_key", "alice"),)


def test_a_person_is_found_however_his_address_is_written() -> None:
    assert parse_query("user=Carol@Example.com", TODAY).equal == (("person", "carol@example.com"),)


@pytest.mark.parametrize(
    "text",
    ["by=secret", "from=20260101", "from=2026-02-30", "from=2026-W01-1", "to=2026-01-01&from=2026-02-01", "format=xml", "x=1", "by=day&by=key"],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(text: str) -> None:
    with pytest.raises(BadQuery) as refused:
        parse_query(text, TODAY)
    assert refused.value.problem.status == 400


def test_rows_become_json_with_their_sum_and_csv_without_formulas() -> None:
    query = parse_query("by=user,model&format=csv", TODAY)
    rows = [("=cmd()", "qwen", 2, 0, 30, 10, 3, 1, 0), ("bob", "qwen", 1, 1, 5, None, 0, 0, 1)]
    told = as_json(query, rows)
    assert told["data"][0]["user"] == "=cmd()"
    assert (told["total"]["requests"], told["total"]["prompt_tokens"], told["truncated"]) == (3, 35, False)
    lines = as_csv(query, rows).splitlines()
    assert lines[0].startswith("user,model,requests,failed_requests,prompt_tokens")
    assert lines[1].startswith("'=cmd(),qwen,2,0,30,10,3,1,0")
    assert as_json(query, rows * MOST_ROWS)["truncated"]
