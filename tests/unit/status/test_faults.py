"""Fifteen things that go wrong with a model, as the cluster shows each, and the one reason that each has.

All fifteen are also made for real, in tests/e2e/test_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoker.api.observed import FetchProgress, ObservedPod
from stoker.status.pods import diagnose
from stoker.status.workload import Workload

MODEL = Workload(
    kind="ModelDeployment", name="smol", main="engine", subject="Engine", noun="deployment/smol", device="nvidia.com/gpu",
    startup_deadline_seconds=600, drain_timeout_seconds=300,
)  # fmt: skip
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def ended(words: str = "", **more: Any) -> dict[str, Any]:
    return {"state": "waiting", "reason": "CrashLoopBackOff", "restarts": 3, "last_reason": "Error", "last_exit_code": 1,
            "last_message": words, "ran_seconds": 5.0, **more}  # fmt: skip


def fetching(phase: Any, reason: str) -> FetchProgress:
    return FetchProgress(phase, reason=reason, message="as the downloader says it")


FAULTS: list[tuple[str, str, Callable[..., ObservedPod]]] = [
    ("no GPU", "InsufficientGPUs", lambda pod, container: pod(scheduled=False, unschedulable_message=NO_GPU)),
    ("wrong secret", "SecretNotFound", lambda pod, container: pod(
        container("engine", "waiting", reason="CreateContainerConfigError", message='secret "hub" not found'))),
    ("gated repository", "SourceGated", lambda pod, container: pod(container("fetch"), fetch=fetching("Retrying", "SourceGated"))),
    ("full disk", "DiskFull", lambda pod, container: pod(container("fetch"), fetch=fetching("Retrying", "DiskFull"))),
    ("OOM-kill", "EngineOutOfMemory", lambda pod, container: pod(
        container("engine", **ended(last_reason="OOMKilled", last_exit_code=137)))),
    ("bad image", "ImagePullFailed", lambda pod, container: pod(container("engine", "waiting", reason="ErrImagePull", image="x:1"))),
    ("bad flag in args", "InvalidArgument", lambda pod, container: pod(container("engine", **ended("error: invalid argument: --x")))),
    ("port taken", "PortInUse", lambda pod, container: pod(
        container("engine", **ended("E srv start: couldn't bind HTTP server socket, hostname: 0.0.0.0, port: 8080")))),
    ("corrupt GGUF", "InvalidModel", lambda pod, container: pod(container("fetch"), fetch=fetching("Failed", "InvalidModel"))),
    ("missing shard", "ShardNotFound", lambda pod, container: pod(container("fetch"), fetch=fetching("Retrying", "ShardNotFound"))),
    ("wrong sha", "ChecksumMismatch", lambda pod, container: pod(container("fetch"), fetch=fetching("Failed", "ChecksumMismatch"))),
    ("context too large", "ContextTooLarge", lambda pod, container: pod(container("engine", **ended(
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (39024)")))),
    ("slow start", "StartupDeadlineExceeded", lambda pod, container: pod(
        container("engine", **ended(last_exit_code=137, ran_seconds=603.0)))),
    ("crash loop after an hour", "EngineCrashedServing", lambda pod, container: pod(
        container("engine", **ended("Segmentation fault", last_exit_code=139)), started_at=1000.0, unready_since=4600.0)),
    ("node gone", "NodeUnreachable", lambda pod, container: pod(container("engine", ready=True, started=True), node="n1")),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "reason", "make"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_each_fault_has_its_own_reason_and_says_what_to_do(workload, pod, container, fault, reason, make) -> None:
    cause = diagnose(MODEL, workload(make(pod, container)), 1)
    assert cause is not None
    assert cause.reason == reason
    assert len(cause.message) > 20


def test_no_two_of_the_fifteen_share_a_reason() -> None:
    assert len({reason for _, reason, _ in FAULTS}) == len(FAULTS) == 15
