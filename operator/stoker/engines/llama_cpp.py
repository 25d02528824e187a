"""llama.cpp: llama-server with one GGUF model.

Flags: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md; every flag written here is in the
``--help`` of the pinned build.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor

from stoker.api.model_deployment import KVCacheType
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
    when_set,
)
from stoker.errors import Stalled

BUILD = "b11434"
_REPOSITORY = "ghcr.io/ggml-org/llama.cpp"

# Without a context length the batch cannot be sized by it; embedding models rarely take longer inputs.
_EMBEDDING_BATCH = 2048


KV_CACHE_TYPES: Mapping[KVCacheType, str] = {"F16": "f16", "INT8": "q8_0", "INT4": "q4_0"}
_PROJECTOR_FLAGS = frozenset({"-mm", "--mmproj"})
AUTOMATIC_TOOLS = "it reads tool calls by the model's own chat template"


def _build(request: EngineRequest) -> Launch:
    return Launch(_build_command(request))


def _build_command(request: EngineRequest) -> tuple[str, ...]:
    command = ["/app/llama-server", "--host", "0.0.0.0", "--port", "8080"]  # noqa: S104 - the pod's own address
    command += ["--model", request.model_path, "--alias", ",".join((request.served_name, *request.aliases))]
    command += ["--parallel", str(request.slots), *_context(request)]
    if request.gpus:
        command += ["--gpu-layers", "all"]
    elif request.vendor != "None":
        # A GPU image finds every device of a node whose runtime shows them all; this replica was given none.
        command += ["--gpu-layers", "0"]
    if request.cpu_limit is not None:
        # Left alone it counts the node's cores and is throttled by the limit.
        command += ["--threads", str(max(1, floor(request.cpu_limit)))]
    if request.memory_limit is not None:
        # Finished prompts are kept in memory, 8 GiB of them by default: whoever sets a limit would be ended by it.
        command += ["--cache-ram", str(int(request.memory_limit) // 2**20 // 8)]
    if request.task in ("Embedding", "Rerank"):
        # An input has to fit into one physical batch; the default of 512 tokens refuses longer ones.
        batch = str(request.context_length or _EMBEDDING_BATCH)
        mode = "--embeddings" if request.task == "Embedding" else "--reranking"
        command += [mode, "--batch-size", batch, "--ubatch-size", batch]
    if request.kv_cache_type:
        kind = KV_CACHE_TYPES[request.kv_cache_type]
        command += ["--cache-type-k", kind, "--cache-type-v", kind]
        if kind != "f16":
            # Values smaller than 16 bits can only be read by flash attention.
            command += ["--flash-attn", "on"]
    if request.reasoning_parser:
        command += ["--reasoning-format", request.reasoning_parser]
    if request.chat_template_path:
        command += ["--jinja", "--chat-template-file", request.chat_template_path]
    if request.adapters:
        # Loaded, but applied only to requests that name one by its place in this list, as the gateway does.
        command += ["--lora", ",".join(adapter.path for adapter in request.adapters), "--lora-init-without-apply"]
    if request.speculation:
        command += _speculation(request.speculation)
    # Every open connection holds a thread, waiting requests too: probes and metrics must not queue behind them.
    command += ["--threads-http", str(max(64, 4 * request.slots + 16))]
    # On SIGTERM it lingers until the next ping: 30 s by default, as long as many grace periods.
    command += ["--sse-ping-interval", "1"]
    command += ["--metrics", "--no-slots", "--no-ui"]
    return tuple(command)


def _speculation(speculation: Speculation) -> list[str]:
    if not speculation.draft:
        return ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-m", str(speculation.count)]
    return [
        "--spec-type",
        "draft-simple",
        "--spec-draft-model",
        speculation.draft,
        "--spec-draft-n-max",
        str(speculation.count),
    ]


def _check(request: EngineRequest) -> None:
    """Adapters, a draft and what hears are files beside the model; it fetches none here."""
    hears = _PROJECTOR_FLAGS & {word.partition("=")[0] for word in request.args}
    if request.task == "Transcription" and not hears and "LLAMA_ARG_MMPROJ" not in _variables(request):
        raise Stalled(
            "FieldRequired",
            f"llama.cpp needs the projector of a model that hears, for task Transcription of ModelDeployment {request.deployment_name}: "
            "put it beside the model on a claim and set spec.args to [--mmproj, /models/PATH.gguf], or use VLLM, SGLang or LocalAI",
        )
    for adapter in request.adapters:
        if not (adapter.path.startswith("/") and adapter.path.lower().endswith(".gguf")) or "," in adapter.path:
            raise Stalled(
                "UnsupportedField",
                f"llama.cpp needs a GGUF file, without a comma in its path, as adapter {adapter.name} of ModelDeployment "
                f"{request.deployment_name}: set its source.uri to pvc://CLAIM/FILE.gguf (convert_lora_to_gguf.py makes one), or use "
                "VLLM or SGLang",
            )
    draft = request.speculation.draft if request.speculation else ""
    if draft and not (draft.startswith("/") and draft.lower().endswith(".gguf")):
        raise Stalled(
            "UnsupportedField",
            f"llama.cpp needs a GGUF file as the draft of ModelDeployment {request.deployment_name}: set "
            "spec.speculativeDecoding.draft.uri to pvc://CLAIM/FILE.gguf, or use VLLM or SGLang",
        )


def _variables(request: EngineRequest) -> tuple[str, ...]:
    return (*request.engine_env, *request.deployment_env)


def _context(request: EngineRequest) -> tuple[str, ...]:
    if request.context_length is None:
        # 0 is the trained length. One shared cache: each request may use all of it, none is guaranteed it.
        return ("--ctx-size", "0", "--kv-unified")
    # The size is the total; with a cache per slot every request gets the length that was asked for.
    return ("--ctx-size", str(request.context_length * request.slots), "--no-kv-unified")


def _normalize_env(name: str) -> str:
    """LLAMA_ARG_NO_X is the old spelling of LLAMA_ARG_X=0."""
    if name.startswith("AIP_"):
        return "AIP_MODE"
    return name.replace("LLAMA_ARG_NO_", "LLAMA_ARG_", 1) if name.startswith("LLAMA_ARG_NO_") else name


_MANAGED = (
    ManagedFlags(
        frozenset({"--host", "--port", "--reuse-port", "--api-prefix"}),
        "engines listen where the gateway and the probes look for them",
        frozenset({"LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_REUSE_PORT", "LLAMA_ARG_API_PREFIX", "AIP_MODE"}),
    ),
    ManagedFlags(
        frozenset(
            {
                "-m",
                "--model",
                "-mu",
                "--model-url",
                "-dr",
                "--docker-repo",
                "-hf",
                "-hfr",
                "--hf-repo",
                "-hff",
                "--hf-file",
            }
            | {"--models-dir", "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload"}
            | {"--embd-gemma-default", "--fim-qwen-1.5b-default", "--fim-qwen-3b-default", "--fim-qwen-7b-default"}
            | {"--fim-qwen-7b-spec", "--fim-qwen-14b-spec", "--fim-qwen-30b-default", "--gpt-oss-20b-default"}
            | {"--gpt-oss-120b-default", "--vision-gemma-4b-default", "--vision-gemma-12b-default"}
        ),
        "set spec.source.uri of the ModelDeployment",
        frozenset(
            {
                "LLAMA_ARG_MODEL",
                "LLAMA_ARG_MODEL_URL",
                "LLAMA_ARG_DOCKER_REPO",
                "LLAMA_ARG_HF_REPO",
                "LLAMA_ARG_HF_FILE",
            }
            | {"LLAMA_ARG_MODELS_DIR", "LLAMA_ARG_MODELS_PRESET", "LLAMA_ARG_MODELS_MAX", "LLAMA_ARG_MODELS_AUTOLOAD"}
        ),
    ),
    ManagedFlags(
        frozenset({"-a", "--alias"}),
        "set spec.servedModelName and spec.aliases of the ModelDeployment",
        frozenset({"LLAMA_ARG_ALIAS"}),
    ),
    ManagedFlags(frozenset({"--metrics"}), "metrics are always on", frozenset({"LLAMA_ARG_ENDPOINT_METRICS"})),
    ManagedFlags(
        frozenset({"--api-key", "--api-key-file"}),
        "make an ApiKey instead: the gateway checks keys, the engine is reached through it only",
        frozenset({"LLAMA_API_KEY", "LLAMA_ARG_API_KEY_FILE"}),
    ),
    ManagedFlags(
        frozenset({"--ssl-key-file", "--ssl-cert-file"}),
        "probes and the gateway reach engines without TLS",
        frozenset({"LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE"}),
    ),
    ManagedFlags(
        frozenset(
            {"--slots", "--no-slots", "--props", "--tools", "--tools-runtime", "-ag", "--agent", "-no-ag", "--no-agent"}
            | {"--mcp-servers-config", "--mcp-servers-json", "--ui", "--webui", "--no-ui", "--no-webui"}
            | {"--ui-mcp-proxy", "--webui-mcp-proxy", "--no-ui-mcp-proxy", "--no-webui-mcp-proxy"}
        ),
        "these open administration, tools or a page that no gateway ever routes",
        frozenset(
            {"LLAMA_ARG_ENDPOINT_SLOTS", "LLAMA_ARG_ENDPOINT_PROPS", "LLAMA_ARG_TOOLS", "LLAMA_ARG_TOOLS_RUNTIME"}
            | {"LLAMA_ARG_AGENT", "LLAMA_ARG_MCP_SERVERS_CONFIG", "LLAMA_ARG_MCP_SERVERS_JSON"}
            | {"LLAMA_ARG_UI", "LLAMA_ARG_UI_MCP_PROXY"}
        ),
    ),
    ManagedFlags(
        frozenset({"--embedding", "--embeddings", "--rerank", "--reranking"}),
        "set spec.task of the ModelDeployment",
        frozenset({"LLAMA_ARG_EMBEDDINGS", "LLAMA_ARG_RERANKING"}),
    ),
    ManagedFlags(
        frozenset({"-np", "--parallel"}),
        "set spec.maxConcurrentRequests of the ModelDeployment",
        frozenset({"LLAMA_ARG_N_PARALLEL"}),
    ),
    ManagedFlags(
        frozenset({"-c", "--ctx-size", "--kv-unified-per-slot", "-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"}),
        "spec.contextLength of the ModelDeployment decides it; remove the field to use your own flags",
        frozenset({"LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_KV_UNIFIED_PER_SLOT", "LLAMA_ARG_KV_UNIFIED"}),
        when=when_set("contextLength"),
    ),
    ManagedFlags(
        frozenset({"--chat-template", "--chat-template-file", "--jinja", "--no-jinja"}),
        "spec.chatTemplate of the ModelDeployment decides it; remove the field to use your own flags",
        frozenset({"LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE", "LLAMA_ARG_JINJA"}),
        when=when_set("chatTemplate"),
    ),
    ManagedFlags(
        frozenset({"-ctk", "--cache-type-k", "-ctv", "--cache-type-v", "-fa", "--flash-attn"}),
        "spec.kvCacheType of the ModelDeployment decides it; remove the field to use your own flags",
        frozenset({"LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V", "LLAMA_ARG_FLASH_ATTN"}),
        when=when_set("kvCacheType"),
    ),
    ManagedFlags(
        frozenset({"--reasoning-format"}),
        "spec.reasoningParser of the ModelDeployment decides it; remove the field to use your own flag",
        when=when_set("reasoningParser"),
    ),
    ManagedFlags(
        frozenset({"--lora", "--lora-scaled", "--lora-init-without-apply"}),
        "spec.adapters decides it; remove the field to use your own flags",
        when=when_set("adapters"),
    ),
    ManagedFlags(
        frozenset(
            {
                "--spec-type",
                "--spec-draft-model",
                "-md",
                "--model-draft",
                "--spec-draft-n-max",
                "--draft",
                "--draft-n",
                "--draft-max",
            }
            | {"--spec-ngram-simple-size-m", "--spec-draft-hf", "-hfd", "--hf-repo-draft", "--spec-default"}
        ),
        "spec.speculativeDecoding decides it; remove the field to use your own flags",
        frozenset({"LLAMA_ARG_SPEC_TYPE", "LLAMA_ARG_SPEC_DRAFT_MODEL", "LLAMA_ARG_SPEC_DRAFT_N_MAX"}),
        when=when_set("speculativeDecoding"),
    ),
    ManagedFlags(
        frozenset({"-ngl", "--gpu-layers", "--n-gpu-layers"}),
        "this model runs without a GPU; set spec.gpus of the ModelDeployment and accelerator.vendor of the engine",
        frozenset({"LLAMA_ARG_N_GPU_LAYERS"}),
        when=lambda request: request.gpus == 0,
    ),
)

LLAMA_CPP = Engine(
    type="LlamaCpp",
    title="llama.cpp",
    version=BUILD,
    reference="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    images={
        "None": Image(f"{_REPOSITORY}:server-{BUILD}"),
        "NVIDIA": Image(f"{_REPOSITORY}:server-cuda-{BUILD}", "CUDA 12"),
        "AMD": Image(f"{_REPOSITORY}:server-rocm-{BUILD}"),
        "Intel": Image(f"{_REPOSITORY}:server-intel-{BUILD}", "SYCL"),
    },
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats=from_capability("5.0", "GGUF"),
    shapes=frozenset({"File"}),
    tasks=frozenset({"Chat", "Completion", "Embedding", "Rerank", "Transcription"}),
    build=_build,
    managed=_MANAGED,
    refused={
        "tensorParallelSize": "it spreads a model over all devices of spec.gpus by itself",
        "pipelineParallelSize": "it spreads a model over all devices of spec.gpus by itself",
        "gpuMemoryUtilizationPercent": "it takes what weights and context need, no share of the device",
        "dtype": "a GGUF file has its types inside",
        "quantization": "a GGUF file is quantized already; take another file",
        "toolCallParser": AUTOMATIC_TOOLS,
    },
    check=_check,
    kv_cache_types=KV_CACHE_TYPES,
    reasoning_parsers=frozenset({"none", "deepseek", "deepseek-legacy"}),
    # https://github.com/ggml-org/llama.cpp/pull/24013.
    oldest=Oldest((9478,), "b9478", "--sse-ping-interval"),
    key_place=KeyPlace(variable="LLAMA_API_KEY"),
    ready=Readiness("/health"),
    live_path="/health",
    metrics=Metrics(
        path="/metrics",
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
        prompt_tokens="llamacpp:prompt_tokens_total",
        completion_tokens="llamacpp:tokens_predicted_total",
    ),
    device_optional=True,
    stop="cuts running requests",
    normalize_env=_normalize_env,
)
