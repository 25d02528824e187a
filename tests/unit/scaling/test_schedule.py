from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from stoker.api.autoscaling import AutoscalingSpec
from stoker.errors import Stalled
from stoker.scaling.schedule import bounds_at, build_policy, check_schedules


def spec(*schedules: dict[str, Any], **more: Any) -> AutoscalingSpec:
    given = {"minReplicas": 0, "maxReplicas": 4, "schedules": list(schedules), **more}
    return AutoscalingSpec.model_validate(given)


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


WORK = {"timeZone": "Europe/Berlin", "days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "start": "08:00", "end": "18:00"}
NIGHT = {"timeZone": "Europe/Berlin", "days": ["Fri"], "start": "22:00", "end": "06:00", "maxReplicas": 1}


@pytest.mark.parametrize(
    ("moment", "bounds"),
    [
        ("2026-06-05T07:59", (0, 4)),
        ("2026-06-05T08:00", (2, 4)),
        ("2026-06-05T17:59", (2, 4)),
        ("2026-06-05T18:00", (0, 4)),
        ("2026-06-06T12:00", (0, 4)),
        ("2026-01-05T08:00", (2, 4)),
    ],
)
def test_a_floor_holds_in_its_hours_in_its_own_time_zone_in_summer_and_winter(moment: str, bounds: object) -> None:
    assert bounds_at(spec({**WORK, "minReplicas": 2}), at(moment)) == bounds


@pytest.mark.parametrize(
    ("moment", "most"),
    [("2026-06-05T21:59", 4), ("2026-06-05T22:00", 1), ("2026-06-06T05:59", 1), ("2026-06-06T06:00", 4), ("2026-06-06T22:00", 4)],
)  # fmt: skip
def test_a_night_belongs_to_the_day_on_which_it_begins(moment: str, most: int) -> None:
    assert bounds_at(spec(NIGHT), at(moment))[1] == most


def test_whole_days_need_no_hours() -> None:
    weekend = {"days": ["Sat", "Sun"], "minReplicas": 1}
    assert bounds_at(spec(weekend), at("2026-06-06T00:00", "UTC")) == (1, 4)
    assert bounds_at(spec(weekend), at("2026-06-07T23:59", "UTC")) == (1, 4)
    assert bounds_at(spec(weekend), at("2026-06-08T00:00", "UTC")) == (0, 4)


def test_of_several_the_largest_floor_and_the_smallest_ceiling_count_and_the_ceiling_wins() -> None:
    noon = at("2026-06-05T12:00", "UTC")
    both = spec({"minReplicas": 1}, {"minReplicas": 3}, {"maxReplicas": 6, "minReplicas": 0}, {"maxReplicas": 2})
    assert bounds_at(both, noon) == (2, 2)
    assert bounds_at(spec({"minReplicas": 0}, minReplicas=2), noon) == (0, 4), "it takes the place of the normal floor"


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "Europe", "UTC/"])
def test_a_time_zone_that_does_not_exist_is_refused_and_never_counts(zone: str) -> None:
    wrong = spec({"timeZone": zone, "minReplicas": 3})
    with pytest.raises(Stalled, match=r"ModelDeployment smol: .* does not exist") as raised:
        check_schedules(wrong, "ModelDeployment smol")
    assert raised.value.reason == "UnknownTimeZone"
    assert bounds_at(wrong, 0.0) == (0, 4)
    check_schedules(spec(WORK | {"minReplicas": 1}), "ModelDeployment smol")


def test_the_engine_s_own_limit_bounds_what_is_believed_of_a_replica() -> None:
    assert build_policy(spec(), 16, 0.0).target_inflight == 16
    assert build_policy(spec(targetInflight=8), 16, 0.0).target_inflight == 8
    assert build_policy(spec(targetInflight=64), 16, 0.0).target_inflight == 16


def test_what_is_said_goes_into_the_policy_and_the_rest_stays_its_own() -> None:
    said = build_policy(spec(queueWaitSeconds=2, coldStartPenaltySeconds=100, minHoldSeconds=5), 4, 0.0)
    assert (said.queue_wait_seconds, said.cold_start_penalty_seconds, said.min_hold_seconds) == (2, 100, 5)
    assert (said.backlog_seconds, said.max_hold_seconds, said.initial_hold_seconds) == (5, 1800, 300)


@pytest.mark.parametrize(("said", "holds"), [({"maxHoldSeconds": 10}, (10, 10)), ({"minHoldSeconds": 7200}, (7200, 7200))])  # fmt: skip
def test_one_hold_that_contradicts_the_other_s_default_wins(said: dict[str, int], holds: object) -> None:
    policy = build_policy(spec(**said), 4, 0.0)
    assert (policy.min_hold_seconds, policy.max_hold_seconds) == holds
