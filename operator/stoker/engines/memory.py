"""How an engine will use memory, read from the very command it is started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

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
    | {"-nkvo", "--no-kv-offload", "--swa-full", "-md", "--model-draft", "--mmproj", "-mm"}
)


def build_fit_request(engine: Engine, request: EngineRequest, device_memory: Decimal | None) -> FitRequest:
    """The question whether it fits; `device_memory` is of one device."""
    devices = request.gpus
    memory = request.memory_limit if devices == 0 else device_memory and device_memory * devices
    options = _options(engine.command(request)) if engine.type == "LlamaCpp" else {}
    if engine.type not in PROFILES or _SPLITTING & set(_options(request.args)):
        memory = None
    context = request.context_length or _positive(options, "--ctx-size", "-c")
    return FitRequest(
        engine=engine.type,
        slots=request.slots,
        context_length=context or None,
        shared=engine.type == "LlamaCpp" and request.context_length is None,
        key_type=_kv_type(options, "--cache-type-k", "-ctk"),
        value_type=_kv_type(options, "--cache-type-v", "-ctv"),
        devices=devices,
        available_bytes=None if memory is None else int(memory),
        # Finished prompts are kept in the memory of the node, also where the model is on a device.
        reserved_bytes=0 if devices else _positive(options, "--cache-ram", "-cram") * 2**20,
        embedding=request.task == "Embedding",
    )


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
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _kv_type(options: Mapping[str, str], *names: str) -> str:
    name = _last(options, *names).lower()
    return name if name in KV_TYPES else "f16"
