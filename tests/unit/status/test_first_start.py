"""What Kubernetes told of a first start: Deployment and pod of the quickstart's model on a kubelet 1.34, by resourceVersion."""

from __future__ import annotations

import json
from itertools import groupby, product
from pathlib import Path
from typing import Any

from stoker.api.observed import ObservedWorkload
from stoker.cluster.observe import observe_deployment, observe_pod
from stoker.status.pods import diagnose
from stoker.status.workload import Workload

RECORDED = [
    json.loads(line) for line in (Path(__file__).parent / "recorded/first_start.jsonl").read_text().splitlines()
]
MODEL = Workload(
    kind="ModelDeployment", name="smollm2", main="engine", subject="Engine", noun="deployment/smollm2",
    startup_deadline_seconds=600,
)  # fmt: skip


def reason(deployment: Any, pod: Any) -> str:
    pods = () if pod is None else (observe_pod(pod),)
    cause = diagnose(MODEL, ObservedWorkload(observe_deployment(deployment), pods), 1)
    return cause.reason if cause else "Serving"


def test_a_first_start_is_told_step_by_step() -> None:
    known: dict[str, Any] = {"deployment": None, "pod": None}
    told = []
    for event in RECORDED:
        known |= event
        told.append(reason(**known))
    steps = [step for step, _ in groupby(told)]
    assert steps == ["EngineStarting", "Downloading", "EngineStarting", "EngineLoading", "Serving"]


def test_whichever_of_the_two_watches_is_late_a_first_start_is_never_told_as_a_change_or_as_trouble() -> None:
    deployments = [None, *(event["deployment"] for event in RECORDED if "deployment" in event)]
    pods = [None, *(event["pod"] for event in RECORDED if "pod" in event)]
    told = {reason(deployment, pod) for deployment, pod in product(deployments, pods)}
    assert told == {"EngineStarting", "Downloading", "EngineLoading", "Serving"}
