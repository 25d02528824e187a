"""Which engine serves a model whose user named none: by format, hardware and expected concurrency."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.api.inference_engine import EngineType, InferenceEngine
from stoker.api.model_deployment import ModelDeployment
from stoker.api.observed import ObservedNode
from stoker.api.resolved import ChosenValues, OperatorSettings
from stoker.desired.chosen import still_holds
from stoker.desired.engine_request import engine_request
from stoker.desired.model_deployment import resolve_model_deployment
from stoker.engines import EngineRequest
from stoker.errors import Stalled
from stoker.models.source import parse_source

MANY_REQUESTS = 8
"""From here on, what an engine does with many requests at a time counts more than how little it needs for one."""
OLD_DEVICES = 7
"""Compute capability below which NVIDIA devices are of Pascal's age or older."""
_LONGEST_REASON = 1024

_PREFER_LITTLE: tuple[EngineType, ...] = ("LlamaCpp", "Ollama", "LocalAI", "LMStudio", "TextGenerationWebUI", "SGLang")
_PREFER_MANY: tuple[EngineType, ...] = ("VLLM", "SGLang", "Aphrodite", "LocalAI", "TabbyAPI", "TextGenerationWebUI")


def choose_engine(
    deployment: ModelDeployment,
    engines: Sequence[InferenceEngine],
    settings: OperatorSettings,
    previous: ChosenValues | None,
    *,
    nodes: Sequence[ObservedNode] = (),
) -> tuple[InferenceEngine | None, str | None]:
    """The engine and why; None where the namespace has none. A choice stands until somebody changes what it depends on."""
    for engine in engines:
        if previous and previous.engine_name == engine.metadata.name and _holds(previous, deployment, engine, settings):
            return engine, previous.engine_reason
    fitting: list[tuple[InferenceEngine, EngineRequest]] = []
    rejected: list[tuple[InferenceEngine, Stalled]] = []
    for engine in engines:
        try:
            resolved = resolve_model_deployment(deployment, engine, settings, previous=None, nodes=nodes)
            fitting.append((engine, engine_request(resolved)))
        except Stalled as error:
            rejected.append((engine, error))
    if not fitting:
        if not rejected:
            return None, None
        raise Stalled(
            "NoEngineFits",
            f"No InferenceEngine of namespace {deployment.metadata.namespace} can serve ModelDeployment "
            f"{deployment.metadata.name}: {_refusals(rejected)}. Change the model or an engine, or create another one",
        )
    ranked = sorted(fitting, key=lambda pair: _rank(*pair))
    best, request = ranked[0]
    _, why = preference(request)
    reason = f"{best.spec.type} {best.metadata.name}: {why}"
    behind = [f"{engine.spec.type} {engine.metadata.name} would do, too" for engine, _ in ranked[1:]]
    others = [*behind, *([_refusals(rejected)] if rejected else [])]
    return best, "; ".join([reason, *others])[:_LONGEST_REASON]


def _holds(
    previous: ChosenValues, deployment: ModelDeployment, engine: InferenceEngine, settings: OperatorSettings
) -> bool:
    try:
        return still_holds(previous, deployment, engine, parse_source(deployment.spec.source), settings)
    except Stalled:
        return False


def preference(request: EngineRequest) -> tuple[tuple[EngineType, ...], str]:
    """Types in order of preference, best first, and why; what is not named comes last."""
    capability = request.compute_capability
    if request.shape == "Library":
        return ("Ollama",), "the model is in the Ollama library"
    if request.format in ("EXL2", "EXL3"):
        return ("TabbyAPI", "Aphrodite", "TextGenerationWebUI"), f"{request.format} weights"
    if request.format == "GGUF":
        where = "GGUF weights" if request.gpus else "GGUF weights, no GPU"
        return _PREFER_LITTLE, where
    if request.vendor == "NVIDIA" and capability is not None and capability < OLD_DEVICES:
        return ("Aphrodite", *_PREFER_MANY), f"{request.format} weights on devices of compute capability {capability}"
    users = "many requests" if request.slots >= MANY_REQUESTS else f"{request.slots} requests"
    device = "a GPU" if request.gpus else "the CPU"
    return _PREFER_MANY, f"{request.format} weights, {device} and {users} at a time"


def _rank(engine: InferenceEngine, request: EngineRequest) -> tuple[int, bool, str]:
    order, _ = preference(request)
    position = order.index(engine.spec.type) if engine.spec.type in order else len(order)
    # Whoever has devices wants them used; for one small model on the CPU there is engineRef.
    return position, request.gpus == 0, engine.metadata.name


def _refusals(rejected: list[tuple[InferenceEngine, Stalled]]) -> str:
    return "; ".join(
        f"{engine.spec.type} {engine.metadata.name} cannot ({error.reason}: {error.message})"
        for engine, error in rejected
    )
