"""What a caller is told of a model that is not there yet: how far it is, how long it may take, and when to come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from stoker.gateway import openai_errors as errors
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.pool import Pool

FRESH_SECONDS = 10.0
"""What the operator said longer ago counts no more: it says it again every two seconds as long as it matters."""
UNKNOWN_RETRY_SECONDS = 30
FAILED_RETRY_SECONDS = 60
MOST_STATES = 10_000


@dataclass(frozen=True, slots=True)
class Loading:
    """How far a model's start is, as the operator sees it."""

    phase: str
    progress: float | None
    eta_seconds: float | None
    message: str
    failed: bool
    said_at: float


class ColdStarts:
    """What the operator said last of each model that is starting."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loading: dict[str, Loading] = {}
        self._told: dict[str, float] = {}
        """The furthest progress that was told of this start: no caller shall see it go back."""

    def update(self, document: Any) -> list[str]:
        """Take over what the operator says; the models whose start has failed. Raises TypeError, AttributeError or ValueError for what makes no sense."""
        models = document.get("models") if isinstance(document, dict) else None
        if not isinstance(models, dict):
            raise TypeError("there is no object `models`")
        now = self._clock()
        if len(self._loading) > MOST_STATES:
            self._loading = {name: state for name, state in self._loading.items() if self._is_fresh(state)}
        failed = []
        for cluster, entry in models.items():
            state = Loading(
                phase=str(entry.get("phase") or "Starting")[:64],
                progress=_fraction(entry.get("progress")),
                eta_seconds=_seconds(entry.get("etaSeconds")),
                message=str(entry.get("message") or "")[:1000],
                failed=entry.get("failed") is True,
                said_at=now,
            )
            self._loading[cluster] = state
            if state.failed:
                failed.append(cluster)
        return failed

    def over(self, cluster: str) -> None:
        """The model is there: its next start begins at nothing."""
        self._loading.pop(cluster, None)
        self._told.pop(cluster, None)

    def has_failed(self, cluster: str) -> bool:
        """Whether waiting is of no use."""
        state = self._loading.get(cluster)
        return state is not None and state.failed and self._is_fresh(state)

    def problem(self, pool: Pool, name: str, waited: float) -> ApiProblem:
        """The refusal of somebody who asked for this model, and has waited so long for it."""
        state = self._loading.get(pool.cluster)
        if state is not None and not self._is_fresh(state):
            state = None
        if state is not None and state.failed:
            return errors.model_failed(name, state.message, FAILED_RETRY_SECONDS)
        eta = self._eta(pool, state)
        loading = {
            "phase": state.phase if state else "Starting",
            "progress": self._progress(pool.cluster, state),
            "etaSeconds": eta,
        }
        return errors.model_loading(name, loading, waited, UNKNOWN_RETRY_SECONDS if eta is None else max(1, eta))

    def _progress(self, cluster: str, state: Loading | None) -> float | None:
        told = self._told.get(cluster)
        said = state.progress if state else None
        if said is None or (told is not None and told >= said):
            return told
        self._told[cluster] = said
        return said

    def _eta(self, pool: Pool, state: Loading | None) -> int | None:
        """What the operator expects, else what is left of the time that the last starts took."""
        now = self._clock()
        if state is not None and state.eta_seconds is not None:
            return max(0, ceil(state.eta_seconds - (now - state.said_at)))
        learned = pool.hold.cold_start_seconds if pool.hold else None
        if learned is None:
            return None
        return max(0, ceil(learned - (now - pool.cold_since if pool.cold_since is not None else 0.0)))

    def _is_fresh(self, state: Loading) -> bool:
        return self._clock() - state.said_at <= FRESH_SECONDS


def _fraction(value: Any) -> float | None:
    return min(1.0, max(0.0, float(value))) if _is_number(value) else None


def _seconds(value: Any) -> float | None:
    return max(0.0, float(value)) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
