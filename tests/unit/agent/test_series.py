from __future__ import annotations

import pytest

from stoker.agent.series import sum_series


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x:running 3\n", 3.0),
        ('x:running{a="1"} 3\nx:running{a="2"} 4\n', 7.0),
        ('x:running{a="}{ 9"} 3 1700000000\n', 3.0),
        ("x:running 3.5e1\r\n", 35.0),
    ],
)
def test_a_series_is_summed_over_its_labels(text: str, value: float) -> None:
    assert sum_series(text, ["x:running"]) == {"x:running": value}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# x:running 3\n",
        "x:running_total 3\n",
        "x:running\n",
        "x:running NaN\n",
        "x:running +Inf\n",
        "x:running -1\n",
        'x:running{a="1"} 3\nx:running{a="2"} NaN\n',
    ],
)
def test_what_is_missing_or_no_number_is_unknown_and_not_zero(text: str) -> None:
    assert sum_series(text, ["x:running", ""]) == {}
