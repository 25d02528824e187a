"""Aphrodite Engine: a fork of vLLM with EXL3 and more samplers.

Flags are vLLM's, checked against the argument parser of the pinned version; differences: https://aphrodite.pygmalion.chat/.
Formats that its README still lists (AQLM, QuIP#, SqueezeLLM, HQQ) are no longer in its code.
"""

from __future__ import annotations

from stoker.engines.base import Engine, EngineRequest, Image, KeyPlace, Launch, Oldest, Readiness, from_capability
from stoker.engines.vllm import (
    DTYPES,
    KV_CACHE_TYPES,
    QUANTIZATIONS,
    REASONING_PARSERS,
    TOOL_CALL_PARSERS,
    build_command,
    build_env,
    managed_flags,
    metric_names,
)

VERSION = "0.24.1"


def _build(request: EngineRequest) -> Launch:
    return Launch(build_command(request, ("aphrodite", "run")), build_env(request, "APHRODITE"))


APHRODITE = Engine(
    type="Aphrodite",
    title="Aphrodite",
    version=VERSION,
    reference="https://github.com/aphrodite-engine/aphrodite-engine",
    images={
        "NVIDIA": Image(
            "docker.io/alpindale/aphrodite-openai:latest",
            "a maintainer's own, pushed by hand under a moving tag: pin a digest in spec.image",
        )
    },
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats={
        **from_capability("7.5", "GPTQ", "AWQ", "FP8", "INT8", "Safetensors"),
        **from_capability("8.0", "EXL3"),
    },
    own_image_formats=frozenset({"GGUF"}),
    format_notes={
        "GGUF": "it needs an image with the extra-quant extra (aphrodite-gguf-plugin)",
        "EXL2": "only ExLlamaV3's format is left; convert the model to EXL3",
    },
    shapes=frozenset({"File", "Folder", "Repository"}),
    tasks=frozenset({"Chat", "Completion", "Embedding", "Rerank", "Transcription"}),
    build=_build,
    managed=managed_flags("APHRODITE", frozenset({"--gpu-memory-utilization", "-gmu"})),
    refused={},
    dtypes=DTYPES,
    quantizations=QUANTIZATIONS,
    kv_cache_types=KV_CACHE_TYPES,
    tool_call_parsers=TOOL_CALL_PARSERS
    - {"beam", "deepseek_v41", "hf", "muse", "musespark1x", "plamo3", "qwen3_json", "step5"},
    reasoning_parsers=REASONING_PARSERS
    - {"beam", "deepseek_v41", "granite_thinking_parser", "hf", "minicpmv", "muse", "musespark1x", "plamo3", "step5"},
    # It has followed vLLM since then; 0.10 was a program of its own.
    oldest=Oldest((0, 20, 0), "0.20", "--shutdown-timeout"),
    key_place=KeyPlace(variable="APHRODITE_API_KEY"),
    ready=Readiness("/health"),
    live_path="/health",
    metrics=metric_names("aphrodite"),
    shared_memory="2Gi",
    stop="finishes running requests for up to 20 s (--shutdown-timeout)",
)
