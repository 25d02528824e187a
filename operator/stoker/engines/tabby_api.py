"""TabbyAPI: EXL3 models on NVIDIA GPUs from Ampere on.

Configuration: https://github.com/theroyallab/tabbyAPI/blob/main/config_sample.yml. The file lies where it is looked for and not
behind --config, which would win over everything that users add. EXL2 and GPTQ left with ExLlamaV2 in July 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stoker.api.model_deployment import KVCacheType
from stoker.engines.base import (
    Engine,
    EngineRequest,
    Image,
    KeyPlace,
    Launch,
    ManagedFlags,
    Readiness,
    from_capability,
    when_set,
)
from stoker.errors import Stalled

_CONFIG = "/app/config.yml"
_TEMPLATE_NAME = "stoker"
# The width in bits of keys and values; ExLlamaV3's own spelling.
_KV_CACHE_TYPES: Mapping[KVCacheType, str] = {"F16": "FP16", "INT8": "8,8", "INT4": "4,4"}
_CACHE_UNIT = 256
_OLD_BACKEND = (
    "it left with ExLlamaV2 in July 2026: it needs an image of the branch exl2-checkpoint, or a model in EXL3"
)


def _build(request: EngineRequest) -> Launch:
    folder, _, name = request.model_path.rpartition("/")
    length = request.context_length or 0
    model: dict[str, Any] = {
        "model_dir": folder or "/",
        "model_name": name,
        "inline_model_loading": False,
        "max_seq_len": length,
        # One pool for all requests: with less, a request would wait for the cache although it has a slot.
        "cache_size": -(-length * request.slots // _CACHE_UNIT) * _CACHE_UNIT,
        "max_batch_size": request.slots,
    }
    if request.tensor_parallel_size and request.tensor_parallel_size > 1:
        model["tensor_parallel"] = True
    if request.kv_cache_type:
        model["cache_mode"] = _KV_CACHE_TYPES[request.kv_cache_type]
    if request.chat_template_path:
        model["prompt_template"] = _TEMPLATE_NAME
    if request.tool_call_parser:
        model["tool_format"] = request.tool_call_parser
    draft: dict[str, Any] = {}
    if request.speculation:
        place, _, named = request.speculation.draft.rpartition("/")
        draft = (
            {"draft_mode": "model", "draft_model_dir": place, "draft_model_name": named}
            if named
            else {"draft_mode": "ngram"}
        )
    config: dict[str, dict[str, Any]] = {
        # Who may call is decided by the gateway. A busy port would make it listen on the next one, but nobody else is here.
        "network": {"host": "0.0.0.0", "port": 8080, "disable_auth": not request.engine_key, "api_servers": ["OAI"]},  # noqa: S104
        "logging": {"log_prompt": False, "log_generation_params": False, "log_requests": False},
        "model": model,
        **({"draft_model": draft} if draft else {}),
    }
    text = "# Written by Stoker.\n" + _yaml(config)
    return Launch(("python3", "main.py"), {"USER": "stoker"}, {_CONFIG: text}, ("/app/logs",))


def _check(request: EngineRequest) -> None:
    """It chooses how many tokens it guesses, and fetches nothing itself."""
    speculation = request.speculation
    if speculation and (speculation.tokens or (speculation.draft and not speculation.draft.startswith("/"))):
        wrong = "tokens" if speculation.tokens else "draft.uri with hf://"
        raise Stalled(
            "UnsupportedField",
            f"TabbyAPI cannot do spec.speculativeDecoding.{wrong} of ModelDeployment {request.deployment_name}: remove tokens, take "
            "the draft from pvc://, or use VLLM or SGLang",
        )


def _yaml(sections: dict[str, dict[str, Any]]) -> str:
    """JSON is YAML; one line for each key reads better than one for all."""
    lines = []
    for section, fields in sections.items():
        lines.append(f"{section}:")
        lines += [f"  {key}: {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


_MANAGED = (
    ManagedFlags(
        frozenset({"--config", "--host", "--port", "--disable-auth", "--api-servers"}),
        "engines listen where the gateway and the probes look for them",
        frozenset(
            {"TABBY_NETWORK_HOST", "TABBY_NETWORK_PORT", "TABBY_NETWORK_DISABLE_AUTH", "TABBY_NETWORK_API_SERVERS"}
        ),
    ),
    ManagedFlags(
        frozenset({"--model-dir", "--model-name", "--inline-model-loading"}),
        "set spec.source.uri of the ModelDeployment",
        frozenset({"TABBY_MODEL_MODEL_DIR", "TABBY_MODEL_MODEL_NAME", "TABBY_MODEL_INLINE_MODEL_LOADING"}),
    ),
    ManagedFlags(
        frozenset({"--max-seq-len", "--cache-size"}),
        "set spec.contextLength of the ModelDeployment",
        frozenset({"TABBY_MODEL_MAX_SEQ_LEN", "TABBY_MODEL_CACHE_SIZE"}),
    ),
    ManagedFlags(
        frozenset({"--max-batch-size"}),
        "set spec.maxConcurrentRequests of the ModelDeployment",
        frozenset({"TABBY_MODEL_MAX_BATCH_SIZE"}),
    ),
    ManagedFlags(
        frozenset({"--cache-mode"}),
        "spec.kvCacheType decides it; remove the field to use your own flag",
        frozenset({"TABBY_MODEL_CACHE_MODE"}),
        when=when_set("kvCacheType"),
    ),
    ManagedFlags(
        frozenset({"--tensor-parallel"}),
        "spec.tensorParallelSize decides it; remove the field to use your own flag",
        frozenset({"TABBY_MODEL_TENSOR_PARALLEL"}),
        when=when_set("tensorParallelSize"),
    ),
    ManagedFlags(
        frozenset({"--prompt-template"}),
        "spec.chatTemplate decides it; remove the field to use your own flag",
        frozenset({"TABBY_MODEL_PROMPT_TEMPLATE"}),
        when=when_set("chatTemplate"),
    ),
    ManagedFlags(
        frozenset({"--draft-mode", "--draft-model-dir", "--draft-model-name"}),
        "spec.speculativeDecoding decides it; remove the field to use your own flags",
        frozenset(
            {"TABBY_DRAFT_MODEL_DRAFT_MODE", "TABBY_DRAFT_MODEL_DRAFT_MODEL_DIR", "TABBY_DRAFT_MODEL_DRAFT_MODEL_NAME"}
        ),
        when=when_set("speculativeDecoding"),
    ),
    ManagedFlags(
        frozenset({"--tool-format"}),
        "spec.toolCallParser decides it; remove the field to use your own flag",
        frozenset({"TABBY_MODEL_TOOL_FORMAT"}),
        when=when_set("toolCallParser"),
    ),
)

TABBY_API = Engine(
    type="TabbyAPI",
    title="TabbyAPI",
    version="2026-08-13",
    reference="https://github.com/theroyallab/tabbyAPI/blob/main/config_sample.yml",
    images={
        "NVIDIA": Image(
            "ghcr.io/theroyallab/tabbyapi:cu13",
            "CUDA 13, x86-64; its makers move their tags: pin a digest in spec.image",
        )
    },
    vendors=frozenset({"NVIDIA"}),
    formats=from_capability("8.0", "EXL3", "Safetensors"),
    own_image_formats=frozenset({"EXL2", "GPTQ"}),
    format_notes={"EXL2": _OLD_BACKEND, "GPTQ": _OLD_BACKEND},
    shapes=frozenset({"Folder"}),
    tasks=frozenset({"Chat", "Completion"}),
    build=_build,
    managed=_MANAGED,
    refused={
        "pipelineParallelSize": "it splits layers over the devices of spec.gpus by itself",
        "gpuMemoryUtilizationPercent": "it takes what weights and cache need, no share of the device",
        "dtype": "ExLlamaV3 chooses it",
        "quantization": "convert the model to EXL3 beforehand",
        "reasoningParser": "it has one way only, switched on by the variable TABBY_MODEL_REASONING=true in spec.env",
        "adapters": "its LoRA loading is not wired to ExLlamaV3",
    },
    check=_check,
    kv_cache_types=_KV_CACHE_TYPES,
    tool_call_parsers=frozenset(
        {"qwen3_coder", "qwen3_5", "glm4_5", "minimax_m2", "mistral", "mistral_old", "gemma4", "deepseek_v4", "hy3"}
    ),
    needs_context_length="without it, its cache holds 4,096 tokens for all requests together",
    key_place=KeyPlace(file="/app/api_tokens.yml"),
    ready=Readiness("/v1/model", key="id"),
    live_path="/.well-known/serviceinfo",
    chat_template_path=f"/app/templates/{_TEMPLATE_NAME}.jinja",
    shared_memory="2Gi",
    stop="finishes running requests, within the grace period",
)
