from __future__ import annotations

from decimal import Decimal

import pytest

from stoker.engines import ENGINES, EngineRequest
from stoker.engines.memory import build_fit_request
from stoker.models.fit import FitRequest

GIB = 1 << 30


def ask(*args: str, device_memory: int | None = None, **more: object) -> FitRequest:
    request = EngineRequest(served_name="m", model_path="/m.gguf", deployment_args=args, **more)  # type: ignore[arg-type]
    memory = None if device_memory is None else Decimal(device_memory)
    return build_fit_request(ENGINES["LlamaCpp"], request, memory)


def test_a_context_of_ones_own_is_not_shared() -> None:
    assert ask(context_length=2048, slots=3) == FitRequest("LlamaCpp", 3, 2048)
    assert ask(slots=3) == FitRequest("LlamaCpp", 3, shared=True)


def test_the_last_of_two_flags_counts() -> None:
    asked = ask("-c", "1024", "--ctx-size", "4096", "-ctk", "q8_0", "--cache-type-v", "Q4_0")
    assert (asked.context_length, asked.shared) == (4096, True)
    assert (asked.key_type, asked.value_type) == ("q8_0", "q4_0")


def test_the_prompt_cache_counts_on_the_cpu_only() -> None:
    assert ask(memory_limit=Decimal(8 * GIB)).reserved_bytes == GIB
    assert ask("--cache-ram", "0", memory_limit=Decimal(8 * GIB)).reserved_bytes == 0
    on_gpu = ask(memory_limit=Decimal(8 * GIB), gpus=2, vendor="NVIDIA", device_memory=24 * GIB)
    assert (on_gpu.reserved_bytes, on_gpu.available_bytes, on_gpu.devices) == (0, 48 * GIB, 2)


def test_a_gpu_image_without_a_gpu_uses_the_nodes_memory() -> None:
    asked = ask(memory_limit=Decimal(8 * GIB), gpus=0, vendor="NVIDIA", device_memory=24 * GIB)
    assert (asked.available_bytes, asked.devices) == (8 * GIB, 0)


@pytest.mark.parametrize(
    "args", [("--n-gpu-layers", "10"), ("-ot", "exps=CPU"), ("--n-cpu-moe", "4"), ("--no-kv-offload",)]
)
def test_nobody_knows_what_a_split_model_needs_where(args: tuple[str, ...]) -> None:
    assert ask(*args, gpus=1, vendor="NVIDIA", device_memory=24 * GIB).available_bytes is None


def test_values_that_are_no_numbers_are_the_engines_to_refuse() -> None:
    assert ask("-c", "many", "-ctk", "q17").context_length is None
    assert ask("-c", "many", "-ctk", "q17").key_type == "f16"
