from __future__ import annotations

from typing import Any

import pytest

from stoker.api.model_deployment import ModelDeploymentStatus
from stoker.api.observed import FetchProgress
from stoker.status.loading import compute_loading


@pytest.fixture
def told(make_model, pod, container):
    def tell(
        reason: str = "EngineLoading", *, usual: float | None = None, age: float = 10, stalled: str = "", **more: Any
    ):
        conditions = [{"type": "Ready", "status": "False", "reason": reason, "message": "words"}]
        if stalled:
            conditions.append({"type": "Stalled", "status": "True", "reason": stalled, "message": "mend it"})
        for condition in conditions:
            condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        status = ModelDeploymentStatus.model_validate({"conditions": conditions})
        pods = more.pop("pods", None)
        pods = [pod(container("fetch"), created_at=1000 - age, **more)] if pods is None else pods
        return compute_loading(make_model(status=status), pods, cold_start_seconds=usual, now=1000)

    return tell


@pytest.mark.parametrize(
    ("reason", "phase"),
    [("EngineLoading", "Loading"), ("Downloading", "Downloading"), ("InsufficientGPUs", "Scheduling"), ("EngineStarting", "Starting")],
)  # fmt: skip
def test_the_phase_and_the_words_are_those_of_the_condition(told, reason: str, phase: str) -> None:
    loading = told(reason)
    assert (loading.phase, loading.message, loading.progress, loading.eta_seconds) == (phase, "words", None, None)


@pytest.mark.parametrize(("age", "progress", "eta"), [(0, 0.0, 40), (10, 0.25, 30), (39.9, 0.95, 1), (400, 0.95, 1)])
def test_progress_is_the_share_of_a_usual_cold_start_and_never_done(
    told, age: float, progress: float, eta: int
) -> None:
    loading = told(usual=40.0, age=age)
    assert (loading.progress, loading.eta_seconds) == (progress, eta)


def test_the_first_start_is_measured_by_its_download(told) -> None:
    fetch = FetchProgress("Downloading", "m.gguf", 25, 100, 5.0)
    loading = told("Downloading", fetch=fetch)
    assert (loading.progress, loading.eta_seconds) == (0.25, 15)


def test_what_somebody_has_to_mend_ends_the_waiting_with_its_reason(told) -> None:
    loading = told("ImagePullFailed", stalled="ImagePullFailed")
    assert (loading.failed, loading.message) == (True, "ImagePullFailed: mend it")


def test_a_model_that_was_just_woken_is_being_scheduled(told) -> None:
    loading = told("Sleeping", pods=[], usual=12.4)
    assert (loading.phase, loading.eta_seconds, loading.failed) == ("Scheduling", 12, False)
