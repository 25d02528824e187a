from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stoker.api.base import Condition
from stoker.errors import Stalled, Waiting
from stoker.reconcile.report import retry_after

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STALLED = Stalled("NameTaken", "Service smol belongs to somebody else")


def stalled_for(seconds: float) -> list[Condition]:
    since = NOW - timedelta(seconds=seconds)
    return [Condition(type="Stalled", status="True", last_transition_time=since, reason="NameTaken")]


@pytest.mark.parametrize(("lasting", "wait"), [(0, 15), (20, 20), (45, 45), (3600, 60)])
def test_what_has_stood_in_the_way_for_long_is_looked_at_less_often(lasting: float, wait: float) -> None:
    assert retry_after(STALLED, stalled_for(lasting), NOW) == wait


def test_what_is_under_way_says_itself_when_to_look_again() -> None:
    assert retry_after(Waiting("ChildTerminating", "it goes", retry_after=1.0), [], NOW) == 1.0
    assert retry_after(STALLED, stalled_for(50), NOW, at_most=30.0) == 30.0
    assert retry_after(None, [], NOW) is None
