"""How far a model is on its way to its first replica, in the words that waiting callers get."""

from __future__ import annotations

from collections.abc import Iterable

from stoker.api.model_deployment import ModelDeployment
from stoker.api.observed import Loading, ObservedPod
from stoker.status.pods import slowest_download

_PHASES = {
    "Downloading": "Downloading",
    "EngineLoading": "Loading",
    "InsufficientGPUs": "Scheduling",
    "Unschedulable": "Scheduling",
    "WaitingForDrain": "Scheduling",
}
# What is left when the usual time is over, nobody knows; so it is never said to be done.
_ALMOST = 0.95


def compute_loading(
    model: ModelDeployment, pods: Iterable[ObservedPod], *, cold_start_seconds: float | None, now: float
) -> Loading:
    """Phase and words from the conditions, progress and time from what a cold start usually takes, or from the download."""
    coming = [pod for pod in pods if not pod.terminating and not pod.ready]
    conditions = {condition.type: condition for condition in model.status.conditions}
    ready, stalled = conditions.get("Ready"), conditions.get("Stalled")
    if stalled is not None:
        return Loading("Failed", f"{stalled.reason}: {stalled.message}", failed=True)
    if ready is None or ready.status == "True" or not coming:
        return Loading("Scheduling", f"{model.served_name} is being woken", eta_seconds=_rounded(cold_start_seconds))
    waited = max(0.0, now - min(pod.created_at for pod in coming))
    progress, eta = _by_usual_time(waited, cold_start_seconds)
    if progress is None:
        progress, eta = _by_download(coming)
    return Loading(_PHASES.get(ready.reason, "Starting"), ready.message, progress, eta)


def _by_usual_time(waited: float, usual: float | None) -> tuple[float | None, int | None]:
    if usual is None:
        return None, None
    return round(min(_ALMOST, waited / max(usual, 1.0)), 2), _rounded(max(1.0, usual - waited))


def _by_download(coming: list[ObservedPod]) -> tuple[float | None, int | None]:
    fetch = slowest_download(coming)
    if fetch is None or not fetch.total_bytes:
        return None, None
    left = fetch.total_bytes - fetch.completed_bytes
    eta = left / fetch.bytes_per_second if fetch.bytes_per_second > 0 else None
    return round(min(_ALMOST, fetch.completed_bytes / fetch.total_bytes), 2), _rounded(eta)


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds))
