from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from stoker.api import InferenceEngine, ModelDeployment
from stoker.api.observed import ObservedContainer, ObservedDeployment, ObservedPod, ObservedWorkload
from stoker.api.resolved import ChosenValues, ParsedSource, ResolvedModelDeployment


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def metadata() -> Callable[[str], dict[str, Any]]:
    def make(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }

    return make


@pytest.fixture
def make_model(metadata) -> Callable[..., ModelDeployment]:
    def make(*, status: Any = None, **spec: Any) -> ModelDeployment:
        given = {"engineRef": {"name": "llama"}, "source": {"uri": "https://host/m.gguf"}, **spec}
        model = ModelDeployment.model_validate({"metadata": metadata("smol"), "spec": given})
        return model if status is None else model.model_copy(update={"status": status})

    return make


@pytest.fixture
def resolve(metadata) -> Callable[..., ResolvedModelDeployment]:
    def make(model: ModelDeployment, vendor: str = "None", gpus: int = 0) -> ResolvedModelDeployment:
        engine = InferenceEngine.model_validate(
            {"metadata": metadata("llama"), "spec": {"type": "LlamaCpp", "accelerator": {"vendor": vendor}}}
        )
        chosen = ChosenValues(
            model="m", engine="e", engine_image="engine:1", stoker_image="stoker:1",
            startup_deadline_seconds=600,
        )  # fmt: skip
        source = ParsedSource(scheme="https", uri="https://host/m.gguf", files=("m.gguf",), digest="d" * 16)
        return ResolvedModelDeployment(model, engine, source, chosen, gpus, model.spec.replicas)

    return make


@pytest.fixture
def container() -> Callable[..., ObservedContainer]:
    def make(name: str = "engine", state: str = "running", **more: Any) -> ObservedContainer:
        init = name in ("agent", "fetch", "policy")
        values: dict[str, Any] = {"init": init, "ready": False, "started": False, "restarts": 0, **more}
        return ObservedContainer(name=name, state=state, **values)  # type: ignore[arg-type]

    return make


@pytest.fixture
def pod() -> Callable[..., ObservedPod]:
    def make(*containers: ObservedContainer, name: str = "smol-1", **more: Any) -> ObservedPod:
        values: dict[str, Any] = {
            "phase": "Pending", "ready": False, "terminating": False, "scheduled": True, "pod_ip": "10.0.0.1",
            "template_hash": "new", **more,
        }  # fmt: skip
        return ObservedPod(name=name, containers=containers, **values)

    return make


@pytest.fixture
def workload() -> Callable[..., ObservedWorkload]:
    def make(*pods: ObservedPod, **more: Any) -> ObservedWorkload:
        present = sum(not seen.terminating for seen in pods)
        ready = sum(seen.ready and not seen.terminating for seen in pods)
        values: dict[str, Any] = {
            "generation": 1, "observed_generation": 1, "replicas": present, "updated_replicas": present,
            "ready_replicas": ready, **more,
        }  # fmt: skip
        return ObservedWorkload(ObservedDeployment(**values), pods)

    return make
