"""text-generation-webui (TextGen): llama.cpp, ExLlamaV3 and Transformers behind one API, without its web page here.

Flags: https://github.com/oobabooga/text-generation-webui/blob/main/modules/shared.py. Its makers publish no image: build one from
docker/ of the repository, with the repository as the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from shlex import join

from stoker.api.model_deployment import KVCacheType, Quantization
from stoker.engines.base import (
    CONFIG_DIRECTORY,
    HUB_DIRECTORY,
    Engine,
    EngineRequest,
    KeyPlace,
    Launch,
    ManagedFlags,
    Readiness,
    Security,
    from_capability,
    hub_env,
    when_set,
)
from stoker.engines.llama_cpp import AUTOMATIC_TOOLS
from stoker.errors import Stalled

_START = f"{CONFIG_DIRECTORY}/start.sh"
_LOADERS = {"GGUF": "llama.cpp", "EXL3": "ExLlamav3", "Safetensors": "Transformers"}
_QUANTIZATIONS: Mapping[Quantization, str] = {"INT8": "--load-in-8bit", "INT4": "--load-in-4bit"}
_KV_CACHE_TYPES: Mapping[KVCacheType, str] = {"F16": "fp16", "INT8": "q8_0", "INT4": "q4_0"}
_EXL3_CACHE_TYPES: Mapping[KVCacheType, str] = {"F16": "fp16", "INT8": "q8", "INT4": "q4"}


def _build(request: EngineRequest) -> Launch:
    if request.shape == "Repository":
        folder, name = HUB_DIRECTORY, _downloaded_name(request)
    else:
        folder, _, name = request.model_path.rpartition("/")
    command = ["python", "server.py", "--nowebui", "--api", "--listen", "--api-port", "8080"]
    command += ["--model-dir", folder or "/", "--model", name, "--loader", _LOADERS[request.format], *_loader(request)]
    if request.chat_template_path:
        command += ["--chat-template-file", request.chat_template_path]
    env = hub_env(request)
    if request.shape != "Repository":
        return Launch(tuple(command), env)
    download = ["python", "download-model.py", request.reference, "--model-dir", folder]
    if request.revision:
        download += ["--branch", request.revision]
    script = (
        f'#!/bin/sh\n# The download goes on where it was cut.\nset -eu\n{join(download)}\nexec {join(command)} "$@"\n'
    )
    return Launch(("/bin/sh", _START), env, {_START: script})


def _downloaded_name(request: EngineRequest) -> str:
    """The folder that its downloader makes."""
    name = request.reference.replace("/", "_")
    return name if request.revision in ("", "main") else f"{name}_{request.revision}"


def _loader(request: EngineRequest) -> list[str]:
    words: list[str] = []
    if request.format == "GGUF":
        # The size is one for all slots; 0 is found out by llama.cpp.
        words += ["--ctx-size", str((request.context_length or 0) * request.slots), "--parallel", str(request.slots)]
        words += ["--gpu-layers", "-1" if request.gpus else "0"]
    elif request.context_length:
        words += ["--ctx-size", str(request.context_length * (request.slots if request.format == "EXL3" else 1))]
    if request.tensor_parallel_size and request.tensor_parallel_size > 1:
        words += ["--enable-tp"]
    if request.kv_cache_type:
        kinds = _EXL3_CACHE_TYPES if request.format == "EXL3" else _KV_CACHE_TYPES
        words += ["--cache-type", kinds[request.kv_cache_type]]
    if request.quantization:
        words += [_QUANTIZATIONS[request.quantization]]
    return words


def _check(request: EngineRequest) -> None:
    """Its loaders differ in what they can."""
    model, loader = f"ModelDeployment {request.deployment_name}", _LOADERS[request.format]
    if request.format == "GGUF" and request.shape != "File":
        raise Stalled(
            "UnsupportedSource",
            f"text-generation-webui needs the one GGUF file as the source of {model}: name it, as in hf://ORG/REPO/FILE.gguf",
        )
    if request.tensor_parallel_size and request.format != "EXL3":
        raise Stalled(
            "UnsupportedField",
            f"text-generation-webui loads {request.format} weights by {loader}, which cannot do spec.tensorParallelSize of {model}: "
            "remove the field, or use VLLM or SGLang",
        )
    if request.kv_cache_type and request.format == "Safetensors":
        raise Stalled(
            "UnsupportedField",
            f"text-generation-webui loads {request.format} weights by {loader}, which cannot do spec.kvCacheType of {model}: "
            "remove the field, or use VLLM or SGLang",
        )
    if request.format == "EXL3" and request.gpus == 0:
        raise Stalled(
            "UnsupportedAccelerator",
            f"ExLlamaV3, which loads the EXL3 weights of {model}, computes on NVIDIA GPUs only: set accelerator.vendor of "
            f"InferenceEngine {request.engine_name}, or use LlamaCpp with a GGUF file",
        )


_MANAGED = (
    ManagedFlags(
        frozenset(
            {
                "--listen",
                "--listen-host",
                "--listen-port",
                "--api",
                "--api-port",
                "--nowebui",
                "--public-api",
                "--share",
            }
            | {"--ssl-keyfile", "--ssl-certfile", "--subpath", "--public-api-id"}
        ),
        "engines listen where the gateway and the probes look for them",
        frozenset({"OPENEDAI_PORT"}),
    ),
    ManagedFlags(
        frozenset({"--model", "--model-dir", "--loader", "--model-menu"}),
        "set spec.source.uri and spec.format of the ModelDeployment",
    ),
    ManagedFlags(
        frozenset({"--api-key", "--admin-key"}),
        "make an ApiKey instead: the gateway checks keys, the engine is reached through it only",
    ),
    ManagedFlags(frozenset({"--idle-timeout"}), "the model stays loaded; set spec.replicas to 0 to stop it"),
    ManagedFlags(frozenset({"--parallel"}), "set spec.maxConcurrentRequests of the ModelDeployment"),
    ManagedFlags(
        frozenset({"--ctx-size"}),
        "spec.contextLength decides it; remove the field to use your own flag",
        when=when_set("contextLength"),
    ),
    ManagedFlags(
        frozenset({"--cache-type"}),
        "spec.kvCacheType decides it; remove the field to use your own flag",
        when=when_set("kvCacheType"),
    ),
    ManagedFlags(
        frozenset({"--load-in-8bit", "--load-in-4bit"}),
        "spec.quantization decides it; remove the field to use your own flag",
        when=when_set("quantization"),
    ),
    ManagedFlags(
        frozenset({"--enable-tp"}),
        "spec.tensorParallelSize decides it; remove the field to use your own flag",
        when=when_set("tensorParallelSize"),
    ),
    ManagedFlags(
        frozenset({"--chat-template-file"}),
        "spec.chatTemplate decides it; remove the field to use your own flag",
        when=when_set("chatTemplate"),
    ),
)

TEXT_GENERATION_WEBUI = Engine(
    type="TextGenerationWebUI",
    title="text-generation-webui",
    version="4.7.3",
    reference="https://github.com/oobabooga/text-generation-webui",
    images={},
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats={**from_capability("5.0", "GGUF", "Safetensors"), **from_capability("8.0", "EXL3")},
    format_notes={
        "GGUF": "by llama.cpp",
        "EXL3": "by ExLlamaV3",
        "Safetensors": "by Transformers, which answers one request at a time",
    },
    shapes=frozenset({"File", "Folder", "Repository"}),
    tasks=frozenset({"Chat", "Completion"}),
    build=_build,
    managed=_MANAGED,
    refused={
        "pipelineParallelSize": "its loaders split layers over the devices of spec.gpus by themselves",
        "gpuMemoryUtilizationPercent": "it takes what weights and cache need, no share of the device",
        "dtype": "its loaders choose it",
        "toolCallParser": AUTOMATIC_TOOLS,
        "reasoningParser": "it finds out by itself",
        "speculativeDecoding": "its drafts must lie in the folder of the model, where Stoker writes nothing; spec.args can name one",
        "adapters": "it applies adapters to every request, and cannot serve them under names of their own",
    },
    check=_check,
    quantizations=_QUANTIZATIONS,
    kv_cache_types=_KV_CACHE_TYPES,
    key_place=KeyPlace(flag="--api-key"),
    ready=Readiness("/v1/internal/model/info", key="model_name", differs=("None", "")),
    device_optional=True,
    # It writes settings and caches beside its code, in a place that depends on the image.
    security=Security(read_only_root=False),
    stop="cuts running requests",
)
