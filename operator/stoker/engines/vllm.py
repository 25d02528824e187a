"""vLLM: the widest choice of formats and models on GPUs, and the highest throughput with many users.

Flags: https://docs.vllm.ai/en/stable/cli/serve/; metrics: https://docs.vllm.ai/en/stable/usage/metrics/; every flag written
or refused here is in the argument parser of the pinned version. Aphrodite, a fork, takes the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stoker.api.model_deployment import DataType, KVCacheType, Quantization
from stoker.engines.base import (
    Engine,
    EngineRequest,
    Image,
    KeyPlace,
    Launch,
    ManagedFlags,
    Metrics,
    Oldest,
    Readiness,
    Speculation,
    from_capability,
    hub_env,
    names,
    when_set,
)

VERSION = "0.33.0"

DTYPES: Mapping[DataType, str] = {"Float16": "float16", "BFloat16": "bfloat16", "Float32": "float32"}
QUANTIZATIONS: Mapping[Quantization, str] = {"FP8": "fp8_per_tensor", "INT8": "int8_per_channel_weight_only"}
KV_CACHE_TYPES: Mapping[KVCacheType, str] = {
    "F16": "float16",
    "FP8": "fp8",
    "INT8": "int8_per_token_head",
    "INT4": "int4_per_token_head",
}

# After a drain nothing runs any more; whoever is stopped without one still has a moment.
_SHUTDOWN_SECONDS = 20


def build_command(request: EngineRequest, program: tuple[str, ...]) -> tuple[str, ...]:
    """The command line of vLLM and of what descends from it."""
    command = [*program, request.model, "--host", "0.0.0.0", "--port", "8080"]  # noqa: S104 - the pod's own address
    command += ["--served-model-name", request.served_name, *request.aliases]
    if request.revision:
        command += ["--revision", request.revision]
    command += ["--max-num-seqs", str(request.slots)]
    # "auto" is the largest that fits; left away, a length that does not fit ends the engine.
    command += ["--max-model-len", str(request.context_length or "auto")]
    command += [*_devices(request), *_types(request), *_task(request)]
    if request.adapters:
        modules = [f"{adapter.name}={adapter.path}" for adapter in request.adapters]
        command += ["--enable-lora", "--max-loras", str(len(modules)), "--lora-modules", *modules]
    if request.speculation:
        command += ["--speculative-config", json.dumps(speculative_config(request.speculation))]
    # By default running requests are aborted at once.
    command += ["--shutdown-timeout", str(_SHUTDOWN_SECONDS)]
    return tuple(command)


def speculative_config(speculation: Speculation) -> dict[str, Any]:
    """A draft's own kind (a small model, EAGLE heads) is read from its configuration."""
    if speculation.draft:
        return {"model": speculation.draft, "num_speculative_tokens": speculation.count}
    return {"method": "ngram", "num_speculative_tokens": speculation.count, "prompt_lookup_max": 4}


def _devices(request: EngineRequest) -> list[str]:
    if request.vendor == "None":
        # The default share of memory is one of the whole node; a fixed cache leaves room for others.
        limit = request.memory_limit
        cache = int(limit) // 4 if limit is not None else 4 * 2**30
        return ["--enforce-eager", "--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", str(cache)]
    tensor = request.tensor_parallel_size or max(1, request.gpus // (request.pipeline_parallel_size or 1))
    words = ["--tensor-parallel-size", str(tensor)]
    if request.pipeline_parallel_size:
        words += ["--pipeline-parallel-size", str(request.pipeline_parallel_size)]
    if request.gpu_memory_percent:
        words += ["--gpu-memory-utilization", str(request.gpu_memory_percent / 100)]
    return words


def _types(request: EngineRequest) -> list[str]:
    words: list[str] = []
    if request.dtype:
        words += ["--dtype", DTYPES[request.dtype]]
    if request.quantization:
        words += ["--quantization", QUANTIZATIONS[request.quantization]]
    if request.kv_cache_type:
        words += ["--kv-cache-dtype", KV_CACHE_TYPES[request.kv_cache_type]]
    return words


def _task(request: EngineRequest) -> list[str]:
    if request.task == "Embedding":
        return ["--runner", "pooling", "--convert", "embed"]
    if request.task == "Rerank":
        return ["--runner", "pooling", "--convert", "classify"]
    words = ["--runner", "generate"]
    if request.chat_template_path:
        words += ["--chat-template", request.chat_template_path]
    if request.tool_call_parser:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", request.tool_call_parser]
    if request.reasoning_parser:
        words += ["--reasoning-parser", request.reasoning_parser]
    return words


def build_env(request: EngineRequest, prefix: str) -> dict[str, str]:
    """Caches where something can be written, no reports home, and inner sockets on the loopback only."""
    return {
        f"{prefix}_CACHE_ROOT": f"/tmp/{prefix.lower()}",  # noqa: S108
        f"{prefix}_CONFIG_ROOT": f"/tmp/{prefix.lower()}-config",  # noqa: S108
        f"{prefix}_HOST_IP": "127.0.0.1",
        f"{prefix}_NO_USAGE_STATS": "1",
        **hub_env(request),
    }


def managed_flags(prefix: str, memory_flags: frozenset[str]) -> tuple[ManagedFlags, ...]:
    """What users leave to Stoker; ``prefix`` is that of the environment."""
    return (
        ManagedFlags(
            frozenset({"--host", "--port", "--uds", "--root-path", "--headless", "--data-parallel-external-lb"}),
            "engines listen where the gateway and the probes look for them",
            frozenset({f"{prefix}_PORT", f"{prefix}_HOST_IP"}),
        ),
        ManagedFlags(frozenset({"--model", "--config"}), "set spec.source.uri and the fields of the ModelDeployment"),
        ManagedFlags(
            frozenset({"--served-model-name"}), "set spec.servedModelName and spec.aliases of the ModelDeployment"
        ),
        ManagedFlags(
            frozenset({"--api-key"}),
            "make an ApiKey instead: the gateway checks keys, the engine is reached through it only",
            frozenset({f"{prefix}_API_KEY"}),
        ),
        ManagedFlags(
            frozenset(
                {"--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--enable-ssl-refresh"}
                | {"--ssl-ciphers"}
            ),
            "probes and the gateway reach engines without TLS",
        ),
        ManagedFlags(frozenset({"--disable-log-stats"}), "metrics are always on"),
        ManagedFlags(frozenset({"--shutdown-timeout"}), "set spec.rollout.drainTimeoutSeconds of the ModelDeployment"),
        ManagedFlags(
            frozenset(),
            "it opens administration that no gateway ever routes",
            frozenset({f"{prefix}_SERVER_DEV_MODE", f"{prefix}_ALLOW_RUNTIME_LORA_UPDATING"}),
        ),
        ManagedFlags(frozenset({"--runner", "--convert"}), "set spec.task of the ModelDeployment"),
        ManagedFlags(frozenset({"--max-num-seqs"}), "set spec.maxConcurrentRequests of the ModelDeployment"),
        ManagedFlags(
            frozenset({"--tensor-parallel-size", "-tp"}),
            "set spec.tensorParallelSize or spec.gpus of the ModelDeployment",
        ),
        ManagedFlags(
            frozenset({"--pipeline-parallel-size", "-pp"}), "set spec.pipelineParallelSize of the ModelDeployment"
        ),
        ManagedFlags(frozenset({"--revision"}), "set spec.source.revision of the ModelDeployment"),
        ManagedFlags(
            frozenset({"--max-model-len"}),
            "spec.contextLength of the ModelDeployment decides it; remove the field to use your own flag",
            when=when_set("contextLength"),
        ),
        ManagedFlags(
            memory_flags,
            "spec.gpuMemoryUtilizationPercent decides it; remove the field to use your own flag",
            when=when_set("gpuMemoryUtilizationPercent"),
        ),
        ManagedFlags(
            frozenset({"--dtype"}), "spec.dtype decides it; remove the field to use your own", when=when_set("dtype")
        ),
        ManagedFlags(
            frozenset({"--quantization", "-q"}),
            "spec.quantization decides it; remove the field to use your own flag",
            when=when_set("quantization"),
        ),
        ManagedFlags(
            frozenset({"--kv-cache-dtype"}),
            "spec.kvCacheType decides it; remove the field to use your own flag",
            when=when_set("kvCacheType"),
        ),
        ManagedFlags(
            frozenset({"--chat-template"}),
            "spec.chatTemplate decides it; remove the field to use your own flag",
            when=when_set("chatTemplate"),
        ),
        ManagedFlags(
            frozenset({"--tool-call-parser", "--enable-auto-tool-choice", "--no-enable-auto-tool-choice"}),
            "spec.toolCallParser decides it; remove the field to use your own flags",
            when=when_set("toolCallParser"),
        ),
        ManagedFlags(
            frozenset({"--reasoning-parser"}),
            "spec.reasoningParser decides it; remove the field to use your own flag",
            when=when_set("reasoningParser"),
        ),
        ManagedFlags(
            frozenset({"--enable-lora", "--lora-modules", "--max-loras"}),
            "spec.adapters decides it; remove the field to use your own flags",
            when=when_set("adapters"),
        ),
        ManagedFlags(
            frozenset({"--speculative-config", "--spec-method", "--spec-model", "--spec-tokens"}),
            "spec.speculativeDecoding decides it; remove the field to use your own flags",
            when=when_set("speculativeDecoding"),
        ),
    )


def metric_names(prefix: str) -> Metrics:
    """The series; ``prefix`` stands before the colon."""
    return Metrics(
        path="/metrics",
        running=f"{prefix}:num_requests_running",
        waiting=f"{prefix}:num_requests_waiting",
        prompt_tokens=f"{prefix}:prompt_tokens_total",
        completion_tokens=f"{prefix}:generation_tokens_total",
        kv_cache_used=f"{prefix}:kv_cache_usage_perc",
        time_to_first_token=f"{prefix}:time_to_first_token_seconds",
        inter_token_latency=f"{prefix}:inter_token_latency_seconds",
    )


TOOL_CALL_PARSERS = names(
    "apertus beam cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4 deepseek_v41 dots ernie45 ",
    "functiongemma gemma4 gigachat3 glm45 glm47 granite granite4 hermes hf hunyuan_a13b hy_v3 hy_v4 inkling internlm jamba ",
    "k2_horizon kimi_k2 kimi_k3 lfm2 ling3 llama3_json llama4_json llama4_pythonic longcat mimo minicpm5 minimax_m2 minimax_m3 ",
    "mistral muse muse_glimmer musespark1x olmo3 openai phi4_mini_json plamo3 poolside_v1 pythonic qwen3_coder qwen3_json ",
    "qwen3_xml seed_oss step3 step3p5 step5 xlam",
)
REASONING_PARSERS = names(
    "beam cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45 gemma4 glm45 glm47 granite ",
    "granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 inkling k2_horizon kimi_k2 kimi_k3 ling3 mimo minicpmv ",
    "minimax_m2 minimax_m2_append_think minimax_m3 mistral muse muse_glimmer musespark1x nemotron_v3 olmo3 openai_gptoss plamo3 ",
    "poolside_v1 qwen3 seed_oss step3 step3p5 step5",
)


def _build(request: EngineRequest) -> Launch:
    return Launch(build_command(request, ("vllm", "serve")), build_env(request, "VLLM"))


VLLM = Engine(
    type="VLLM",
    title="vLLM",
    version=VERSION,
    reference="https://docs.vllm.ai/en/stable/cli/serve/",
    images={
        "NVIDIA": Image(f"docker.io/vllm/vllm-openai:v{VERSION}"),
        "AMD": Image(f"docker.io/vllm/vllm-openai-rocm:v{VERSION}"),
        "Intel": Image(f"docker.io/vllm/vllm-openai-xpu:v{VERSION}"),
        "None": Image(
            f"docker.io/vllm/vllm-openai-cpu:v{VERSION}-x86_64", "x86-64; on Arm set spec.image to the -arm64 one"
        ),
    },
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats=from_capability("7.5", "GPTQ", "AWQ", "FP8", "INT8", "Safetensors"),
    own_image_formats=frozenset({"GGUF"}),
    format_notes={
        "GGUF": "it needs an image with vllm-gguf-plugin",
        "FP8": "below 8.9 the weights are stored in FP8 but computed in 16 bits",
    },
    shapes=frozenset({"File", "Folder", "Repository"}),
    tasks=frozenset({"Chat", "Completion", "Embedding", "Rerank", "Transcription"}),
    build=_build,
    managed=managed_flags("VLLM", frozenset({"--gpu-memory-utilization", "--device-memory-utilization"})),
    refused={},
    dtypes=DTYPES,
    quantizations=QUANTIZATIONS,
    kv_cache_types=KV_CACHE_TYPES,
    tool_call_parsers=TOOL_CALL_PARSERS,
    reasoning_parsers=REASONING_PARSERS,
    # https://github.com/vllm-project/vllm/pull/36666, of March 2026.
    oldest=Oldest((0, 18, 0), "0.18", "--shutdown-timeout"),
    key_place=KeyPlace(variable="VLLM_API_KEY"),
    ready=Readiness("/health"),
    live_path="/health",
    metrics=metric_names("vllm"),
    shared_memory="2Gi",
    stop="finishes running requests for up to 20 s (--shutdown-timeout)",
)
