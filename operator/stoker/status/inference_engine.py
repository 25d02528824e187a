"""Status of an InferenceEngine."""

from __future__ import annotations

from datetime import datetime

from stoker.api.inference_engine import InferenceEngine, InferenceEngineStatus
from stoker.errors import StokerError
from stoker.status.conditions import Verdict, build_conditions, cause_of


def compute_inference_engine_status(
    engine: InferenceEngine, *, image: str | None, models: int, problem: StokerError | None, now: datetime
) -> InferenceEngineStatus:
    """An engine runs nothing of its own: it is Ready when models can be put on it."""
    cause = cause_of(problem)
    if cause:
        verdict = Verdict(False, cause.reason, cause.message, cause)
    else:
        name = engine.metadata.name
        verdict = Verdict(True, "Accepted", f"ModelDeployments can name InferenceEngine {name} in spec.engineRef")
    return InferenceEngineStatus(
        observed_generation=engine.metadata.generation,
        image=image,
        models=models,
        conditions=build_conditions(engine.status.conditions, verdict, generation=engine.metadata.generation, now=now),
    )
