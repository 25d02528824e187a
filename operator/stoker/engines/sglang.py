"""SGLang: high throughput on recent GPUs, with prefixes shared between requests.

Flags: https://docs.sglang.ai/advanced_features/server_arguments.html; every flag written or refused here is in the argument
parser of the pinned version.
"""

from __future__ import annotations

from collections.abc import Mapping

from stoker.api.model_deployment import DataType, KVCacheType, Quantization
from stoker.engines.base import (
    Engine,
    EngineRequest,
    Image,
    KeyPlace,
    Launch,
    ManagedFlags,
    Metrics,
    Readiness,
    Speculation,
    from_capability,
    hub_env,
    names,
    when_set,
)
from stoker.errors import Stalled

VERSION = "0.5.23"

_DTYPES: Mapping[DataType, str] = {"Float16": "float16", "BFloat16": "bfloat16", "Float32": "float32"}
_QUANTIZATIONS: Mapping[Quantization, str] = {"FP8": "fp8"}
_KV_CACHE_TYPES: Mapping[KVCacheType, str] = {"FP8": "fp8_e4m3"}


def _build(request: EngineRequest) -> Launch:
    command = ["python3", "-m", "sglang.launch_server", "--model-path", request.model]
    command += ["--host", "0.0.0.0", "--port", "8080"]  # noqa: S104 - the pod's own address
    command += ["--served-model-name", request.served_name]
    if request.revision:
        command += ["--revision", request.revision]
    command += ["--max-running-requests", str(request.slots), "--enable-metrics"]
    if request.context_length:
        command += ["--context-length", str(request.context_length)]
    command += [*_devices(request), *_types(request), *_task(request)]
    if request.chat_template_path:
        command += ["--chat-template", request.chat_template_path]
    if request.tool_call_parser:
        command += ["--tool-call-parser", request.tool_call_parser]
    if request.reasoning_parser:
        command += ["--reasoning-parser", request.reasoning_parser]
    if request.adapters:
        prefix = f"{request.served_name}:"
        paths = [f"{adapter.name.removeprefix(prefix)}={adapter.path}" for adapter in request.adapters]
        command += ["--enable-lora", "--lora-paths", *paths]
    if request.speculation:
        command += _speculation(request.speculation)
    # Without this /health makes a token at every probe.
    env = {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false", **hub_env(request)}
    if request.vendor == "None":
        env["SGLANG_USE_CPU_ENGINE"] = "1"
    return Launch(tuple(command), env)


def _speculation(speculation: Speculation) -> list[str]:
    if not speculation.draft:
        return ["--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(speculation.count)]
    # A chain of guesses, and the token that the model itself adds.
    chain = ["--speculative-num-steps", str(speculation.count), "--speculative-eagle-topk", "1"]
    chain += ["--speculative-num-draft-tokens", str(speculation.count + 1)]
    return ["--speculative-algorithm", "STANDALONE", "--speculative-draft-model-path", speculation.draft, *chain]


def _task(request: EngineRequest) -> list[str]:
    """https://docs.sglang.io/supported_models/retrieval_ranking/rerank_models.html."""
    if request.task == "Embedding":
        return ["--is-embedding"]
    if request.task == "Rerank":
        # Cross-encoders; decoders that are asked for yes or no want a template of their own.
        return ["--is-embedding", "--disable-radix-cache", "--chunked-prefill-size", "-1"]
    return []


def _devices(request: EngineRequest) -> list[str]:
    if request.vendor == "None":
        return ["--device", "cpu"]
    tensor = request.tensor_parallel_size or max(1, request.gpus // (request.pipeline_parallel_size or 1))
    words = ["--tp-size", str(tensor)]
    if request.pipeline_parallel_size:
        words += ["--pp-size", str(request.pipeline_parallel_size)]
    if request.gpu_memory_percent:
        words += ["--mem-fraction-static", str(request.gpu_memory_percent / 100)]
    return words


def _types(request: EngineRequest) -> list[str]:
    words = ["--load-format", "gguf"] if request.format == "GGUF" else []
    if request.dtype:
        words += ["--dtype", _DTYPES[request.dtype]]
    if request.quantization:
        words += ["--quantization", _QUANTIZATIONS[request.quantization]]
    if request.kv_cache_type:
        words += ["--kv-cache-dtype", _KV_CACHE_TYPES[request.kv_cache_type]]
    return words


def _check(request: EngineRequest) -> None:
    """SGLang takes what stands behind a colon in a model's name for an adapter."""
    prefix = f"{request.served_name}:"
    for adapter in request.adapters:
        if not adapter.name.startswith(prefix) or ":" in adapter.name.removeprefix(prefix):
            raise Stalled(
                "UnsupportedField",
                f"SGLang serves an adapter as MODEL:ADAPTER, and ModelDeployment {request.deployment_name} calls one "
                f"{adapter.name}: rename it to {prefix}{adapter.name.rpartition(':')[2]}, or use VLLM or Aphrodite",
            )
    for alias in request.aliases:
        if ":" in alias:
            raise Stalled(
                "UnsupportedField",
                f"SGLang takes what stands behind the colon of the alias {alias} of ModelDeployment {request.deployment_name} "
                "for the name of an adapter: remove the alias, or use VLLM or Aphrodite",
            )


_MANAGED = (
    ManagedFlags(
        frozenset(
            {"--host", "--port", "--fastapi-root-path", "--grpc-mode", "--smg-grpc-mode", "--grpc-port", "--sidecar"}
            | {"--nnodes", "--node-rank", "--dist-init-addr"}
        ),
        "engines listen where the gateway and the probes look for them",
        frozenset({"SGLANG_PORT", "SGLANG_HOST_IP", "SGLANG_GRPC_PORT"}),
    ),
    ManagedFlags(frozenset({"--model-path", "--model"}), "set spec.source.uri of the ModelDeployment"),
    ManagedFlags(frozenset({"--served-model-name"}), "set spec.servedModelName of the ModelDeployment"),
    ManagedFlags(
        frozenset({"--api-key", "--admin-api-key"}),
        "make an ApiKey instead: the gateway checks keys, the engine is reached through it only",
    ),
    ManagedFlags(
        frozenset({"--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-keyfile-password"}),
        "probes and the gateway reach engines without TLS",
    ),
    ManagedFlags(frozenset({"--enable-metrics"}), "metrics are always on"),
    ManagedFlags(frozenset({"--is-embedding"}), "set spec.task of the ModelDeployment"),
    ManagedFlags(frozenset({"--max-running-requests"}), "set spec.maxConcurrentRequests of the ModelDeployment"),
    ManagedFlags(
        frozenset({"--tp-size", "--tensor-parallel-size"}),
        "set spec.tensorParallelSize or spec.gpus of the ModelDeployment",
    ),
    ManagedFlags(
        frozenset({"--pp-size", "--pipeline-parallel-size"}), "set spec.pipelineParallelSize of the ModelDeployment"
    ),
    ManagedFlags(frozenset({"--revision"}), "set spec.source.revision of the ModelDeployment"),
    ManagedFlags(
        frozenset({"--device"}),
        "set accelerator.vendor of the InferenceEngine",
        frozenset({"SGLANG_USE_CPU_ENGINE"}),
    ),
    ManagedFlags(
        frozenset({"--context-length"}),
        "spec.contextLength decides it; remove the field to use your own flag",
        when=when_set("contextLength"),
    ),
    ManagedFlags(
        frozenset({"--mem-fraction-static"}),
        "spec.gpuMemoryUtilizationPercent decides it; remove the field to use your own flag",
        when=when_set("gpuMemoryUtilizationPercent"),
    ),
    ManagedFlags(
        frozenset({"--dtype"}), "spec.dtype decides it; remove the field to use your own", when=when_set("dtype")
    ),
    ManagedFlags(
        frozenset({"--quantization"}),
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
        frozenset({"--tool-call-parser"}),
        "spec.toolCallParser decides it; remove the field to use your own flag",
        when=when_set("toolCallParser"),
    ),
    ManagedFlags(
        frozenset({"--reasoning-parser"}),
        "spec.reasoningParser decides it; remove the field to use your own flag",
        when=when_set("reasoningParser"),
    ),
    ManagedFlags(
        frozenset({"--enable-lora", "--lora-paths"}),
        "spec.adapters decides it; remove the field to use your own flags",
        when=when_set("adapters"),
    ),
    ManagedFlags(
        frozenset(
            {
                "--speculative-algorithm",
                "--speculative-draft-model-path",
                "--speculative-draft-model",
                "--speculative-num-steps",
            }
            | {"--speculative-eagle-topk", "--speculative-num-draft-tokens"}
        ),
        "spec.speculativeDecoding decides it; remove the field to use your own flags",
        when=when_set("speculativeDecoding"),
    ),
)

SGLANG = Engine(
    type="SGLang",
    title="SGLang",
    version=VERSION,
    reference="https://docs.sglang.ai/advanced_features/server_arguments.html",
    images={
        "NVIDIA": Image(f"docker.io/lmsysorg/sglang:v{VERSION}", "CUDA 13 only"),
        "AMD": Image(
            "docker.io/lmsysorg/sglang:v0.5.15.post1-rocm720-mi30x",
            "Instinct MI300; an older release than for NVIDIA, for MI350 set spec.image to the -mi35x one",
        ),
    },
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats=from_capability("7.5", "GGUF", "GPTQ", "AWQ", "FP8", "INT8", "Safetensors"),
    shapes=frozenset({"File", "Folder", "Repository"}),
    tasks=frozenset({"Chat", "Completion", "Embedding", "Rerank", "Transcription"}),
    build=_build,
    managed=_MANAGED,
    refused={},
    check=_check,
    dtypes=_DTYPES,
    quantizations=_QUANTIZATIONS,
    kv_cache_types=_KV_CACHE_TYPES,
    tool_call_parsers=names(
        "apertus2509 beam cohere_command4 deepseekv3 deepseekv31 deepseekv32 deepseekv4 deepseekv41 dots gemma4 gigachat3 ",
        "gigachat35 glm glm45 glm47 gpt-oss hermes hunyuan inkling interns1 iquest_q1 k2_horizon kimi_k2 kimi_k3 lfm2 ling3 ",
        "llama3 mimo minicpm5 minimax-m2 minimax-m3 mistral muse nanbeige poolside_v1 pythonic qwen qwen25 qwen3_coder ",
        "response_template spark25 step3 step3p5 trinity",
    ),
    reasoning_parsers=names(
        "apertus2509 beam cohere_command4 deepseek-r1 deepseek-v3 deepseek-v4 deepseek-v41 dots gemma4 gigachat35 glm45 gpt-oss ",
        "granite_thinking_parser hunyuan inkling interns1 iquest_q1 k2_horizon kimi kimi_k2 kimi_k3 ling3 mimo minimax ",
        "minimax-append-think minimax-m3 mistral muse nanbeige nemotron_3 poolside_v1 qwen3 qwen3-thinking response_template ",
        "step3 step3p5",
    ),
    key_place=KeyPlace(flag="--api-key"),
    # 503 until it is warm and while it drains, without making a token (above). /ready says the same, but releases of 2025 do not have it.
    ready=Readiness("/health"),
    live_path="/health",
    metrics=Metrics(
        path="/metrics",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        prompt_tokens="sglang:prompt_tokens_total",
        completion_tokens="sglang:generation_tokens_total",
        kv_cache_used="sglang:token_usage",
        time_to_first_token="sglang:time_to_first_token_seconds",  # noqa: S106
        inter_token_latency="sglang:inter_token_latency_seconds",  # noqa: S106
    ),
    shared_memory="2Gi",
    stop="finishes all running requests, within the grace period",
)
