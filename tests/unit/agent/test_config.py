from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.agent.config import CONFIG_VARIABLE, ConfigError, parse_config


def environment(**row: Any) -> dict[str, str]:
    return {CONFIG_VARIABLE: json.dumps({"model": "m", "enginePort": 8080} | row)}


def test_a_row_of_a_newer_operator_is_understood_as_far_as_it_goes() -> None:
    config = parse_config(environment(runningMetric="x:running", somethingNew=[1]))
    assert config.running_metric == "x:running"
    assert (config.port, config.interval_seconds) == (9100, 2.0)


@pytest.mark.parametrize(
    "row",
    [
        {"enginePort": "8080"},
        {"enginePort": True},
        {"model": None},
        {"healthPath": "health"},
        {"metricsPath": "/a\r\nX: b"},
    ],
)
def test_a_row_that_cannot_work_is_refused_by_name(row: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=CONFIG_VARIABLE):
        parse_config(environment(**row))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_no_row_at_all_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config({CONFIG_VARIABLE: text})
