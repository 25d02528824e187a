"""Custom: an inference server that only the user knows; told everything by its environment."""

from __future__ import annotations

from dataclasses import replace

from stoker.api.inference_engine import CustomEngine
from stoker.engines.base import (
    KEY_VARIABLE,
    Engine,
    EngineRequest,
    KeyPlace,
    Launch,
    ManagedFlags,
    Metrics,
    Readiness,
    hub_env,
    on_any_device,
)


def adapted(custom: CustomEngine) -> Engine:
    """The row, with what a custom engine says about itself."""
    return replace(
        CUSTOM,
        port=custom.port,
        ready=Readiness(custom.health_path),
        metrics=Metrics(
            path=custom.metrics_path or "", running=custom.running_metric or "", waiting=custom.waiting_metric or ""
        ),
        build=lambda request: _build(request, custom.port),
    )


def _build(request: EngineRequest, port: int) -> Launch:
    env = {
        "STOKER_SERVED_MODEL_NAME": request.served_name,
        "STOKER_PORT": str(port),
        "STOKER_MAX_CONCURRENT_REQUESTS": str(request.slots),
        "STOKER_MODEL_NAMES": ",".join((request.served_name, *request.aliases)),
        "STOKER_TASK": request.task,
    }
    if request.shape == "Repository":
        env |= {"STOKER_MODEL_REPOSITORY": request.reference, "STOKER_MODEL_REVISION": request.revision or "main"}
    else:
        env["STOKER_MODEL_PATH"] = request.model_path
    if request.context_length is not None:
        env["STOKER_CONTEXT_LENGTH"] = str(request.context_length)
    if request.chat_template_path:
        env["STOKER_CHAT_TEMPLATE"] = request.chat_template_path
    return Launch(command=request.custom_command, env=env | hub_env(request))


_ARGS = "write it into spec.custom.command of the InferenceEngine, or into spec.args"

CUSTOM = Engine(
    type="Custom",
    title="A custom engine",
    version="",
    reference="",
    images={},
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats=on_any_device("GGUF", "EXL2", "EXL3", "GPTQ", "AWQ", "FP8", "INT8", "Safetensors"),
    shapes=frozenset({"File", "Folder", "Repository"}),
    tasks=frozenset({"Chat", "Completion", "Embedding", "Rerank", "Transcription", "Speech", "Image"}),
    build=lambda request: _build(request, 8080),
    managed=(
        ManagedFlags(
            frozenset(),
            "Stoker sets it from the ModelDeployment",
            frozenset(
                {"STOKER_SERVED_MODEL_NAME", "STOKER_MODEL_NAMES", "STOKER_PORT", "STOKER_MAX_CONCURRENT_REQUESTS"}
                | {"STOKER_MODEL_PATH", "STOKER_MODEL_REPOSITORY", "STOKER_MODEL_REVISION", "STOKER_TASK"}
                | {"STOKER_CONTEXT_LENGTH", "STOKER_CHAT_TEMPLATE"}
            ),
        ),
    ),
    refused={
        "tensorParallelSize": f"Stoker does not know its flag: {_ARGS}",
        "pipelineParallelSize": f"Stoker does not know its flag: {_ARGS}",
        "gpuMemoryUtilizationPercent": f"Stoker does not know its flag: {_ARGS}",
        "dtype": f"Stoker does not know its flag: {_ARGS}",
        "quantization": f"Stoker does not know its flag: {_ARGS}",
        "kvCacheType": f"Stoker does not know its flag: {_ARGS}",
        "toolCallParser": f"Stoker does not know its flag: {_ARGS}",
        "reasoningParser": f"Stoker does not know its flag: {_ARGS}",
        "speculativeDecoding": f"Stoker does not know its flag: {_ARGS}",
        "adapters": f"Stoker does not know its flag: {_ARGS}",
    },
    key_place=KeyPlace(variable=KEY_VARIABLE),
    ready=Readiness("/health"),
    device_optional=True,
    stop="as you made it",
)
