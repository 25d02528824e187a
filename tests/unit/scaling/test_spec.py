from __future__ import annotations

from typing import Any

import pytest

from stoker.scaling import Autoscaling


def test_the_defaults_stand_by_themselves() -> None:
    assert Autoscaling(max_replicas=4).min_replicas == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_replicas": 0, "min_replicas": 0},
        {"max_replicas": 2, "min_replicas": 3},
        {"max_replicas": 2, "min_replicas": -1},
        {"max_replicas": 2, "min_hold_seconds": 60, "max_hold_seconds": 30},
        {"max_replicas": 2, "backlog_seconds": 0},
        {"max_replicas": 2, "target_inflight": 0},
    ],
)
def test_bounds_that_leave_no_choice_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Replicas|HoldSeconds|above zero"):
        Autoscaling(**wrong)
