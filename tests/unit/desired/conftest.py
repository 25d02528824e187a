from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoker.api import ApiGateway, ApiKey, InferenceEngine, ModelDeployment
from stoker.api.resolved import OperatorSettings, ResolvedModelDeployment
from stoker.desired.engine_pod import build_pod_template
from stoker.desired.model_deployment import resolve_model_deployment

Make = Callable[..., Any]


@pytest.fixture
def settings() -> OperatorSettings:
    return OperatorSettings(stoker_image="stoker:1", operator_labels={"app": "stoker"})


@pytest.fixture
def make_engine() -> Callable[..., InferenceEngine]:
    def make(name: str = "llama", *, metadata: dict[str, Any] | None = None, **spec: Any) -> InferenceEngine:
        given = {"type": "LlamaCpp", "accelerator": {"vendor": "None"}, **spec}
        return InferenceEngine.model_validate({"metadata": _metadata(name, metadata), "spec": given})

    return make


@pytest.fixture
def make_model() -> Callable[..., ModelDeployment]:
    def make(name: str = "smol", *, metadata: dict[str, Any] | None = None, **spec: Any) -> ModelDeployment:
        given = {"engineRef": {"name": "llama"}, "source": {"uri": "https://host/m.gguf"}, **spec}
        return ModelDeployment.model_validate({"metadata": _metadata(name, metadata), "spec": given})

    return make


@pytest.fixture
def make_gateway() -> Callable[..., ApiGateway]:
    def make(name: str = "gateway", *, metadata: dict[str, Any] | None = None, **spec: Any) -> ApiGateway:
        return ApiGateway.model_validate({"metadata": _metadata(name, metadata), "spec": spec})

    return make


@pytest.fixture
def make_key() -> Callable[..., ApiKey]:
    def make(
        name: str = "alice",
        *,
        metadata: dict[str, Any] | None = None,
        status: dict[str, Any] | None = None,
        **spec: Any,
    ) -> ApiKey:
        given = {"gatewayRef": {"name": "gateway"}, **spec}
        return ApiKey.model_validate({"metadata": _metadata(name, metadata), "spec": given, "status": status or {}})

    return make


@pytest.fixture
def resolve(settings: OperatorSettings) -> Callable[..., ResolvedModelDeployment]:
    def resolve(model: ModelDeployment, engine: InferenceEngine | None, **more: Any) -> ResolvedModelDeployment:
        return resolve_model_deployment(
            model, engine, more.pop("settings", settings), previous=more.pop("previous", None), **more
        )

    return resolve


def _metadata(name: str, more: dict[str, Any] | None) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "team",
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {**metadata, **(more or {})}


@pytest.fixture
def pod(make_model: Make, make_engine: Make, resolve: Make, settings: OperatorSettings) -> Make:
    """The spec of an engine's pod."""

    def build(model: Any = None, engine: Any = None, settings: OperatorSettings = settings) -> Any:
        resolved = resolve(make_model(**(model or {})), make_engine(**(engine or {})), settings=settings)
        return build_pod_template(resolved, settings)["spec"]

    return build
