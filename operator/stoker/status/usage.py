"""What a gateway's status says of its usage."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.api.api_gateway import ApiGateway
from stoker.api.names import usage_name
from stoker.api.observed import ObservedWorkload
from stoker.errors import StokerError
from stoker.status.conditions import Cause, cause_of
from stoker.status.pods import diagnose
from stoker.status.workload import Workload


@dataclass(frozen=True)
class ObservedUsage:
    """What was seen of the process that keeps it."""

    workload: ObservedWorkload
    problem: StokerError | None = None


def judge_usage(gateway: ApiGateway, seen: ObservedUsage) -> tuple[str, bool, str, str]:
    """UsageReady: usage is collected and told. While it is not, the gateway serves and its pods keep what is to be counted."""
    name = usage_name(gateway.metadata.name)
    described = Workload(
        "ApiGateway",
        gateway.metadata.name,
        "usage",
        "Usage",
        f"statefulset/{name}",
        child=f"StatefulSet {name}",
        memory_advice="raise spec.usage.resources.limits.memory",
    )
    serving = seen.workload.deployment.ready_replicas if seen.workload.deployment else 0
    if serving and seen.problem is None:
        return ("UsageReady", True, "Serving", f"StatefulSet {name} keeps usage; GET /v1/usage tells it")
    cause = cause_of(seen.problem) or diagnose(described, seen.workload, 1)
    if cause is None:
        cause = Cause("UsageStarting", f"StatefulSet {name} does not serve yet")
    return (
        "UsageReady",
        False,
        cause.reason,
        f"{cause.message}. The gateway serves without it; what is used is counted later",
    )
