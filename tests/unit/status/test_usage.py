from __future__ import annotations

import pytest

from stoker.api import ApiGateway
from stoker.api.observed import ObservedDeployment, ObservedWorkload
from stoker.errors import Stalled
from stoker.status.usage import ObservedUsage, judge_usage


@pytest.fixture
def gateway(metadata) -> ApiGateway:
    return ApiGateway.model_validate({"metadata": metadata("gateway")})


def test_usage_is_ready_when_its_pod_is(gateway) -> None:
    seen = ObservedUsage(ObservedWorkload(ObservedDeployment(replicas=1, updated_replicas=1, ready_replicas=1)))
    assert judge_usage(gateway, seen)[:3] == ("UsageReady", True, "Serving")


def test_without_its_pod_the_reason_is_told_and_that_the_gateway_serves(gateway) -> None:
    kind, ready, reason, message = judge_usage(gateway, ObservedUsage(ObservedWorkload(None)))
    assert (kind, ready, reason) == ("UsageReady", False, "UsageStarting")
    assert "The gateway serves without it" in message


def test_what_stands_in_the_way_of_making_it_is_told(gateway) -> None:
    seen = ObservedUsage(
        ObservedWorkload(None), Stalled("NameTaken", "StatefulSet gateway-usage belongs to somebody else")
    )
    assert judge_usage(gateway, seen)[2] == "NameTaken"
