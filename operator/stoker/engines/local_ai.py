"""LocalAI: one API before many backends; here llama.cpp for GGUF, vLLM for other texts, and one for each other task.

Settings: https://localai.io/reference/cli-reference/, model files: https://localai.io/advanced/model-configuration/, what speaks:
https://localai.io/features/text-to-audio/. Its images hold no backend: it is fetched at the start, from the gallery that LOCALAI_BACKEND_GALLERIES names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from stoker.api.model_deployment import DataType, KVCacheType, Quantization
from stoker.engines.base import (
    CONFIG_DIRECTORY,
    MODELS_DIRECTORY,
    Engine,
    EngineRequest,
    FieldName,
    Image,
    KeyPlace,
    Launch,
    ManagedFlags,
    Metrics,
    Oldest,
    Readiness,
    from_capability,
    hub_env,
)
from stoker.engines.llama_cpp import AUTOMATIC_TOOLS
from stoker.engines.vllm import speculative_config
from stoker.errors import Stalled

VERSION = "4.9.0"

_MODELS_FILE = f"{CONFIG_DIRECTORY}/models.yaml"
_DTYPES: Mapping[DataType, str] = {"Float16": "float16", "BFloat16": "bfloat16", "Float32": "float32"}
_QUANTIZATIONS: Mapping[Quantization, str] = {"FP8": "fp8_per_tensor", "INT8": "int8_per_channel_weight_only"}
_LLAMA_CACHE_TYPES: Mapping[KVCacheType, str] = {"F16": "f16", "INT8": "q8_0", "INT4": "q4_0"}
_VLLM_CACHE_TYPES: Mapping[KVCacheType, str] = {
    "F16": "float16",
    "FP8": "fp8",
    "INT8": "int8_per_token_head",
    "INT4": "int4_per_token_head",
}


def _build(request: EngineRequest) -> Launch:
    backend = _backend(request)
    model: dict[str, Any] = {"name": request.served_name, "backend": backend}
    model |= _FIELDS[backend](request)
    if request.task == "Embedding":
        model["embeddings"] = True
    if request.task == "Rerank":
        model["reranking"] = True
    lines = [
        f"{'- ' if number == 0 else '  '}{key}: {json.dumps(value)}"
        for number, (key, value) in enumerate(model.items())
    ]
    env = {
        "LOCALAI_ADDRESS": ":8080",
        "LOCALAI_MODELS_PATH": MODELS_DIRECTORY,
        "LOCALAI_MODELS_CONFIG_FILE": _MODELS_FILE,
        "LOCALAI_BACKENDS_PATH": "/backends",
        "LOCALAI_DATA_PATH": "/data",
        "LOCALAI_CONFIG_DIR": "/configuration",
        "LOCALAI_EXTERNAL_BACKENDS": backend,
        # Ready means loaded; a model that cannot be loaded ends the process.
        "LOCALAI_LOAD_TO_MEMORY": request.served_name,
        "LOCALAI_MAX_ACTIVE_BACKENDS": "1",
        # Pods may have addresses that it takes for public; the gateway and the NetworkPolicy stand in front.
        "LOCALAI_ALLOW_INSECURE_PUBLIC_BIND": "true",
        "LOCALAI_DISABLE_WEBUI": "true",
        "LOCALAI_DISABLE_AGENTS": "true",
        "LOCALAI_DISABLE_MCP": "true",
        "LOCALAI_DISABLE_GALLERY_ENDPOINT": "true",
        "LOCALAI_DISABLE_RUNTIME_SETTINGS": "true",
        **hub_env(request),
    }
    if backend == "llama-cpp":
        env = {name: value for name, value in env.items() if name not in ("HF_HOME", "HF_HUB_OFFLINE")}
    files = {_MODELS_FILE: "# Written by Stoker.\n" + "\n".join(lines) + "\n"}
    return Launch(("/entrypoint.sh",), env, files, ("/backends", "/data", "/configuration"))


def _backend(request: EngineRequest) -> str:
    if request.task == "Speech":
        # What no backend is known for is refused before it starts.
        return _speech_backend(request) or "qwen-tts"
    if request.task in _OTHER_BACKENDS:
        return _OTHER_BACKENDS[request.task]
    return "llama-cpp" if request.format == "GGUF" else "vllm"


def _llama_fields(request: EngineRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "parameters": {"model": request.model_path.removeprefix(f"{MODELS_DIRECTORY}/")},
        # The size is one for all slots; -1 is what the model was trained with.
        "context_size": request.context_length * request.slots if request.context_length else -1,
        "options": [f"parallel:{request.slots}"],
        "gpu_layers": 9999 if request.gpus else 0,
        "template": {"use_tokenizer_template": True},
    }
    if request.cpu_limit is not None:
        fields["threads"] = max(1, int(request.cpu_limit))
    if request.kv_cache_type:
        kind = _LLAMA_CACHE_TYPES[request.kv_cache_type]
        fields |= {"cache_type_k": kind, "cache_type_v": kind}
        if kind != "f16":
            fields["flash_attention"] = "on"
    return fields


def _vllm_fields(request: EngineRequest) -> dict[str, Any]:
    arguments: dict[str, Any] = {"max_num_seqs": request.slots}
    if request.kv_cache_type:
        arguments["kv_cache_dtype"] = _VLLM_CACHE_TYPES[request.kv_cache_type]
    if request.pipeline_parallel_size:
        arguments["pipeline_parallel_size"] = request.pipeline_parallel_size
    if request.revision:
        arguments["revision"] = request.revision
    if request.speculation:
        arguments["speculative_config"] = speculative_config(request.speculation)
    tensor = request.tensor_parallel_size or max(1, request.gpus // (request.pipeline_parallel_size or 1))
    fields: dict[str, Any] = {
        "parameters": {"model": request.model},
        "template": {"use_tokenizer_template": True},
        "tensor_parallel_size": tensor,
    }
    if request.context_length:
        fields["max_model_len"] = request.context_length
    if request.dtype:
        fields["dtype"] = _DTYPES[request.dtype]
    if request.quantization:
        fields["quantization"] = _QUANTIZATIONS[request.quantization]
    if request.gpu_memory_percent:
        fields["gpu_memory_utilization"] = request.gpu_memory_percent / 100
    return {**fields, "engine_args": arguments}


def _image_fields(request: EngineRequest) -> dict[str, Any]:
    return {
        "parameters": {"model": request.model},
        "f16": request.gpus > 0,
        # The class of the pipeline stands in the model's own index.
        "diffusers": {"cuda": request.gpus > 0, "pipeline_type": "DiffusionPipeline"},
    }


def _whisper_fields(request: EngineRequest) -> dict[str, Any]:
    return {"parameters": {"model": request.model}, "f16": request.gpus > 0}


def _speech_fields(request: EngineRequest) -> dict[str, Any]:
    return {"parameters": {"model": request.model}, "known_usecases": ["tts"]}


def _speech_backend(request: EngineRequest) -> str:
    """Each family of models that speaks has a backend of its own; empty for one that is not known."""
    name = request.model.rpartition("/")[2].lower()
    return next((backend for family, backend in _SPEECH_BACKENDS.items() if family.lower() in name), "")


_SPEECH_BACKENDS = {"Qwen3-TTS": "qwen-tts", "VibeVoice": "vibevoice"}
_OTHER_BACKENDS = {"Image": "diffusers", "Transcription": "faster-whisper"}
_FIELDS: Mapping[str, Callable[[EngineRequest], dict[str, Any]]] = {
    "llama-cpp": _llama_fields,
    "vllm": _vllm_fields,
    "diffusers": _image_fields,
    "faster-whisper": _whisper_fields,
    **dict.fromkeys(_SPEECH_BACKENDS.values(), _speech_fields),
}
_OF_TEXT: tuple[FieldName, ...] = (
    "contextLength",
    "tensorParallelSize",
    "pipelineParallelSize",
    "gpuMemoryUtilizationPercent",
)
_OF_WEIGHTS: tuple[FieldName, ...] = ("dtype", "quantization", "kvCacheType", "speculativeDecoding")


def _check(request: EngineRequest) -> None:
    """Each backend takes its own part of the fields and of the sources."""
    model = f"ModelDeployment {request.deployment_name}"
    if request.task == "Speech" and not _speech_backend(request):
        raise Stalled(
            "UnsupportedModel",
            f"LocalAI cannot tell which backend speaks for {request.model} of {model}: take a model of a family that it has one for, by "
            f"the name of its repository or folder ({', '.join(_SPEECH_BACKENDS)}), or an engine of type Custom",
        )
    if request.task == "Speech" or request.task in _OTHER_BACKENDS:
        _check_other_task(request, f"LocalAI serves task {request.task} of {model} by {_backend(request)}, which")
        return
    if request.format == "GGUF":
        for name in (
            "tensorParallelSize",
            "pipelineParallelSize",
            "gpuMemoryUtilizationPercent",
            "dtype",
            "speculativeDecoding",
        ):
            if request.is_set(name):
                raise Stalled(
                    "UnsupportedField",
                    f"LocalAI serves GGUF weights by llama.cpp, which cannot do spec.{name} of {model}: remove the field",
                )
        if request.kv_cache_type and request.kv_cache_type not in _LLAMA_CACHE_TYPES:
            raise Stalled(
                "UnsupportedField",
                f"LocalAI serves GGUF weights by llama.cpp, whose cache cannot be {request.kv_cache_type}, as {model} asks in "
                f"spec.kvCacheType: set it to one of {', '.join(_LLAMA_CACHE_TYPES)}",
            )
        if request.shape != "File":
            raise Stalled(
                "UnsupportedSource",
                f"LocalAI needs the one GGUF file as the source of {model}: name it, as in hf://ORG/REPO/FILE.gguf",
            )
    elif request.gpus == 0:
        raise Stalled(
            "UnsupportedAccelerator",
            f"LocalAI serves {request.format} weights of {model} by vLLM, for which it needs a device: set accelerator.vendor of "
            f"InferenceEngine {request.engine_name}, or use VLLM, or LlamaCpp with a GGUF file",
        )


def _check_other_task(request: EngineRequest, which: str) -> None:
    for name in (*_OF_TEXT, *_OF_WEIGHTS):
        if request.is_set(name):
            raise Stalled("UnsupportedField", f"{which} cannot do spec.{name}: remove the field")
    if request.revision:
        raise Stalled(
            "UnsupportedField",
            f"{which} takes the newest revision: remove spec.source.revision, or bring the model onto a volume",
        )
    if request.format == "GGUF":
        raise Stalled("UnsupportedSource", f"{which} needs a folder or a repository as the source, not one GGUF file")


_MANAGED = (
    ManagedFlags(
        frozenset({"--address"}),
        "engines listen where the gateway and the probes look for them",
        frozenset({"LOCALAI_ADDRESS", "ADDRESS"}),
    ),
    ManagedFlags(
        frozenset({"--models-path", "--models-config-file", "--models", "--preload-models", "--load-to-memory"}),
        "set spec.source.uri of the ModelDeployment",
        frozenset(
            {
                "LOCALAI_MODELS_PATH",
                "MODELS_PATH",
                "LOCALAI_MODELS_CONFIG_FILE",
                "CONFIG_FILE",
                "LOCALAI_MODELS",
                "MODELS",
            }
            | {"LOCALAI_LOAD_TO_MEMORY", "LOAD_TO_MEMORY", "LOCALAI_PRELOAD_MODELS", "PRELOAD_MODELS"}
        ),
    ),
    ManagedFlags(
        frozenset({"--api-keys"}),
        "make an ApiKey instead: the gateway checks keys, the engine is reached through it only",
        frozenset({"LOCALAI_API_KEY", "API_KEY", "LOCALAI_AUTH"}),
    ),
    ManagedFlags(
        frozenset({"--context-size", "--parallel-requests"}),
        "set spec.contextLength and spec.maxConcurrentRequests of the ModelDeployment",
        frozenset({"LOCALAI_CONTEXT_SIZE", "CONTEXT_SIZE", "LLAMACPP_PARALLEL", "LOCALAI_PARALLEL_REQUESTS"}),
    ),
    ManagedFlags(
        frozenset({"--disable-metrics-endpoint"}),
        "metrics are always on",
        frozenset({"LOCALAI_DISABLE_METRICS_ENDPOINT"}),
    ),
)

LOCAL_AI = Engine(
    type="LocalAI",
    title="LocalAI",
    version=VERSION,
    reference="https://localai.io/advanced/model-configuration/",
    images={
        "None": Image(f"docker.io/localai/localai:v{VERSION}"),
        "NVIDIA": Image(f"docker.io/localai/localai:v{VERSION}-gpu-nvidia-cuda-12"),
        "AMD": Image(f"docker.io/localai/localai:v{VERSION}-gpu-hipblas"),
        "Intel": Image(f"docker.io/localai/localai:v{VERSION}-gpu-intel"),
    },
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats={
        **from_capability("5.0", "GGUF"),
        **from_capability("7.5", "GPTQ", "AWQ", "FP8", "INT8", "Safetensors"),
    },
    format_notes={
        "GGUF": "by llama.cpp; all others by vLLM, images by diffusers, transcriptions by faster-whisper, speech by qwen-tts or vibevoice"
    },
    shapes=frozenset({"File", "Folder", "Repository"}),
    tasks=frozenset({"Chat", "Completion", "Embedding", "Rerank", "Transcription", "Speech", "Image"}),
    build=_build,
    managed=_MANAGED,
    refused={
        "aliases": "it would load the model a second time for another name",
        "chatTemplate": "its templates are Go templates, not Jinja",
        "toolCallParser": AUTOMATIC_TOOLS,
        "reasoningParser": "it finds out by itself",
        "adapters": "it applies an adapter to every request, and cannot serve it under a name of its own",
    },
    check=_check,
    dtypes=_DTYPES,
    quantizations=_QUANTIZATIONS,
    kv_cache_types=_VLLM_CACHE_TYPES,
    # https://github.com/mudler/LocalAI/releases/tag/v3.2.0; before, all of them were in the image.
    oldest=Oldest((3, 2, 0), "3.2", "backends that are fetched at the start (LOCALAI_EXTERNAL_BACKENDS)"),
    key_place=KeyPlace(variable="LOCALAI_API_KEY"),
    ready=Readiness("/readyz"),
    live_path="/healthz",
    # Its counters are per user and request path: neither running nor waiting requests can be read from them.
    metrics=Metrics(),
    device_optional=True,
    stop="cuts running requests",
)
