from __future__ import annotations

from stoker.api import InferenceEngine
from stoker.errors import Stalled
from stoker.status.inference_engine import compute_inference_engine_status


def test_an_engine_is_ready_when_models_can_be_put_on_it(metadata, now) -> None:
    engine = InferenceEngine.model_validate({"metadata": metadata("llama"), "spec": {"type": "LlamaCpp"}})
    status = compute_inference_engine_status(engine, image="i:1", models=2, problem=None, now=now)
    assert (status.image, status.models, status.observed_generation) == ("i:1", 2, 3)
    (ready,) = status.conditions
    assert (ready.status, ready.reason) == ("True", "Accepted")


def test_an_engine_with_a_problem_tells_it(metadata, now) -> None:
    engine = InferenceEngine.model_validate({"metadata": metadata("llama"), "spec": {"type": "LlamaCpp"}})
    status = compute_inference_engine_status(
        engine, image=None, models=0, problem=Stalled("NameTaken", "taken"), now=now
    )
    assert [(c.type, c.status, c.reason) for c in status.conditions] == [
        ("Ready", "False", "NameTaken"),
        ("Stalled", "True", "NameTaken"),
    ]
