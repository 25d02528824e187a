from __future__ import annotations

from typing import Any

import pytest

from stoker.api.model_deployment import ModelDeploymentStatus
from stoker.desired.replicas import decide_replicas, expected_cold_start, is_sleeping, is_stopped, most_replicas
from stoker.errors import Stalled

SCALING: dict[str, Any] = {"minReplicas": 1, "maxReplicas": 4}
OVERRIDE = {"annotations": {"stoker.dev/replicas-override": "3"}}


@pytest.mark.parametrize(
    ("spec", "metadata", "scaled", "present", "wanted"),
    [
        ({"replicas": 2}, {}, None, None, 2),
        ({"replicas": 2}, {}, 4, 4, 2),
        ({"autoscaling": SCALING}, {}, 3, 1, 3),
        ({"autoscaling": SCALING}, {}, None, None, 1),
        ({"autoscaling": SCALING}, {}, None, 3, 3),
        ({"autoscaling": SCALING}, {}, None, 9, 4),
        ({"autoscaling": SCALING}, {}, None, 0, 1),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 4}}, {}, None, None, 0),
        ({"autoscaling": SCALING, "suspend": True}, OVERRIDE, 3, 3, 0),
        ({"autoscaling": SCALING}, OVERRIDE, None, 1, 3),
        ({"autoscaling": SCALING}, OVERRIDE, 1, 1, 1),
        ({"replicas": 1}, OVERRIDE, None, None, 3),
    ],
)
def test_the_user_says_how_many_then_the_autoscaler_which_follows_an_override_then_an_override(
    make_model, spec, metadata, scaled, present, wanted
) -> None:
    assert decide_replicas(make_model(metadata=metadata, **spec), scaled, present) == wanted


@pytest.mark.parametrize("text", ["", "three", "-1", "1.5", "1001", "٣"])
def test_an_override_that_is_no_number_is_told_and_nothing_changes(make_model, text: str) -> None:
    model = make_model(metadata={"annotations": {"stoker.dev/replicas-override": text}}, replicas=2)
    with pytest.raises(Stalled, match="not a number from 0 to 1000") as raised:
        decide_replicas(model, None, None)
    assert raised.value.reason == "InvalidOverride"
    assert not is_stopped(model)


def test_a_model_is_stopped_by_people_only(make_model) -> None:
    none = {"annotations": {"stoker.dev/replicas-override": "0"}}
    assert is_stopped(make_model(replicas=0))
    assert is_stopped(make_model(suspend=True, metadata=OVERRIDE))
    assert is_stopped(make_model(metadata=none, autoscaling=SCALING))
    assert not is_stopped(make_model(replicas=0, metadata=OVERRIDE))
    assert not is_stopped(make_model(autoscaling={"minReplicas": 0, "maxReplicas": 1}))


def test_a_model_sleeps_when_it_has_scaled_itself_to_none(make_model) -> None:
    def at(desired: int, **spec: Any) -> Any:
        status = ModelDeploymentStatus(desired_replicas=desired)
        return make_model(**spec).model_copy(update={"status": status})

    asleep = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}
    assert is_sleeping(at(0, **asleep))
    assert not is_sleeping(at(1, **asleep))
    assert not is_sleeping(at(0, suspend=True, **asleep))
    assert not is_sleeping(at(0, replicas=0))


def test_schedules_may_allow_more_than_the_normal_maximum(make_model) -> None:
    assert most_replicas(make_model(replicas=2)) == 2
    schedules = [{"maxReplicas": 7}, {"minReplicas": 1}]
    assert most_replicas(make_model(autoscaling={**SCALING, "schedules": schedules})) == 7


@pytest.mark.parametrize(("learned", "told"), [(None, None), (3, 5), (61, 90), (90, 90), (99999, 3600)])
def test_callers_are_told_a_cold_start_in_steps_so_that_gateways_are_seldom_written_to(
    make_model, learned: int | None, told: int | None
) -> None:
    scaling = {"learned": {"coldStartSeconds": learned}}
    status = ModelDeploymentStatus.model_validate({"autoscaling": scaling})
    assert expected_cold_start(make_model().model_copy(update={"status": status})) == told
