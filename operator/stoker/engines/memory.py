"""How an engine will use memory, read from the very command it is started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from stoker.api.inference_engine import EngineType
from stoker.api.model_deployment import Format, KVCacheType, Quantization
from stoker.engines.base import Engine, EngineRequest
from stoker.engines.checks import flag_name
from stoker.models.fit import KV_TYPES, PROFILES, FitRequest

# Arguments of a user's that move a part of the model between device and CPU: what is needed where is then not known.
_SPLITTING = frozenset(
    {
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        "-ncmoe",
        "--n-cpu-moe",
        "-cmoe",
        "--cpu-moe",
        "-ot",
        "--override-tensor",
    }
    | {
        "-nkvo",
        "--no-kv-offload",
        "--swa-full",
        "-md",
        "--model-draft",
        "--mmproj",
        "-mm",
        "--cpu-offload-gb",
        "--spec-draft-model",
    }
)


# What a cache type takes, by the name of llama.cpp's type of that size: vLLM's 8 and 4 bits have a scale for each head, too.
_KV_TYPES: Mapping[KVCacheType, str] = {"F16": "f16", "FP8": "fp8", "INT8": "q8_0", "INT4": "q4_0"}
# Of 16-bit weights; embeddings and norms stay as they are.
_WEIGHTS_PERCENT: Mapping[Quantization, int] = {"FP8": 55, "INT8": 55, "INT4": 32}
# GGUF is computed by llama.cpp also inside of these.
_INSIDE: Mapping[tuple[EngineType, Format], EngineType] = {
    ("LocalAI", "GGUF"): "LlamaCpp",
    ("TextGenerationWebUI", "GGUF"): "LlamaCpp",
    ("TextGenerationWebUI", "EXL3"): "TabbyAPI",
}
_ONE_CACHE_WHEN_UNSAID = frozenset({"LlamaCpp", "LocalAI", "TextGenerationWebUI"})


def build_fit_request(engine: Engine, request: EngineRequest, device_memory: Decimal | None) -> FitRequest:
    """The question whether it fits; `device_memory` is of one device, or of the node where there is no limit."""
    devices = request.gpus
    memory = (request.memory_limit or device_memory) if devices == 0 else device_memory and device_memory * devices
    options = _options(engine.command(request)) if engine.takes_args else {}
    kind = _kind(engine, request)
    beside = request.task in ("Transcription", "Speech", "Image") or (request.speculation and request.speculation.draft)
    if kind not in PROFILES or beside or _SPLITTING & set(_options(request.args)):
        memory = None
    stated = _positive(options, "--ctx-size", "-c", "--max-model-len", "--context-length", "--max-seq-len")
    return FitRequest(
        engine=kind,
        slots=request.slots,
        context_length=request.context_length or stated or None,
        shared=engine.type in _ONE_CACHE_WHEN_UNSAID and request.context_length is None,
        key_type=_kv_type(request, options, "--cache-type-k", "-ctk"),
        value_type=_kv_type(request, options, "--cache-type-v", "-ctv"),
        devices=devices,
        available_bytes=None if memory is None else int(memory),
        # Finished prompts are kept in the memory of the node, also where the model is on a device.
        reserved_bytes=0 if devices else _positive(options, "--cache-ram", "-cram") * 2**20,
        embedding=request.task == "Embedding",
        usable_percent=request.gpu_memory_percent or _usable_percent(options),
        cache_bytes=_positive(options, "--kv-cache-memory-bytes") if devices == 0 else 0,
        weights_percent=_WEIGHTS_PERCENT[request.quantization] if request.quantization else 100,
    )


def _kind(engine: Engine, request: EngineRequest) -> EngineType:
    """Whose rules hold."""
    if engine.type == "LocalAI" and request.format != "GGUF":
        return "VLLM"
    return _INSIDE.get((engine.type, request.format), engine.type)


def _usable_percent(options: Mapping[str, str]) -> int | None:
    share = _last(options, "--gpu-memory-utilization", "--device-memory-utilization", "-gmu", "--mem-fraction-static")
    try:
        percent = round(float(share) * 100) if share else 0
    except (ValueError, OverflowError):
        return None
    return percent if 0 < percent <= 100 else None


def _options(command: Sequence[str]) -> Mapping[str, str]:
    """Flags with the word behind them; of a repeated one the last counts, as for the engine."""
    found: dict[str, str] = {}
    for word, following in zip(command, [*command[1:], ""], strict=False):
        flag = flag_name(word)
        if flag:
            found.pop(flag, None)
            found[flag] = word.partition("=")[2] or following
    return found


def _last(options: Mapping[str, str], *names: str) -> str:
    return next((options[name] for name in reversed(list(options)) if name in names), "")


def _positive(options: Mapping[str, str], *names: str) -> int:
    text = _last(options, *names)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _kv_type(request: EngineRequest, options: Mapping[str, str], *names: str) -> str:
    name = _last(options, *names).lower()
    if name in KV_TYPES:
        return name
    return _KV_TYPES[request.kv_cache_type] if request.kv_cache_type else "f16"
