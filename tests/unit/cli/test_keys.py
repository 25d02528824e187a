"""How long a new key lasts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from stoker.cli.keys import parse_span
from stoker.cli.session import Failed


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("45m", timedelta(minutes=45)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("8w", timedelta(weeks=8)),
    ],
)
def test_a_number_with_a_unit_is_a_time(text: str, time: timedelta) -> None:
    assert parse_span(text) == time


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "1y", "999999w", "99999999d"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Failed, match="such as 30d"):
        parse_span(text)
