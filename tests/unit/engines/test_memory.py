from __future__ import annotations

from decimal import Decimal

import pytest

from stoker.api.inference_engine import EngineType
from stoker.engines import ENGINES, EngineRequest
from stoker.engines.memory import build_fit_request
from stoker.models.fit import FitRequest

GIB = 1 << 30


def ask(*args: str, device_memory: int | None = None, engine: EngineType = "LlamaCpp", **more: object) -> FitRequest:
    request = EngineRequest(served_name="m", model_path="/m.gguf", deployment_args=args, **more)  # type: ignore[arg-type]
    memory = None if device_memory is None else Decimal(device_memory)
    return build_fit_request(ENGINES[engine], request, memory)


@pytest.mark.parametrize(
    ("engine", "args", "share"),
    [
        ("VLLM", ("--gpu-memory-utilization", "0.8"), 80),
        ("Aphrodite", ("-gmu=0.7",), 70),
        ("SGLang", ("--mem-fraction-static", "0.85"), 85),
        ("VLLM", ("--gpu-memory-utilization", "much"), None),
    ],
)
def test_a_share_of_the_device_is_read_from_the_command(
    engine: EngineType, args: tuple[str, ...], share: int | None
) -> None:
    on_device = {"gpus": 1, "vendor": "NVIDIA", "format": "AWQ", "device_memory": 24 * GIB}
    assert ask(*args, engine=engine, **on_device).usable_percent == share  # type: ignore[arg-type]
    assert ask(engine=engine, gpu_memory_percent=60, **on_device).usable_percent == 60  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "name"), [("F16", "f16"), ("FP8", "fp8"), ("INT8", "q8_0"), ("INT4", "q4_0"), (None, "f16")]
)
def test_the_type_of_the_cache_is_the_fields(kind: str | None, name: str) -> None:
    for engine in ("VLLM", "Ollama"):
        asked = ask(engine=engine, gpus=1, vendor="NVIDIA", kv_cache_type=kind, context_length=4096)  # type: ignore[arg-type]
        assert (asked.key_type, asked.value_type) == (name, name)


def test_vllm_on_the_cpu_has_a_cache_of_fixed_size() -> None:
    assert ask(engine="VLLM", format="AWQ", memory_limit=Decimal(8 * GIB)).cache_bytes == 2 * GIB


def test_weights_that_are_made_smaller_while_they_are_loaded_count_as_what_is_left() -> None:
    assert ask(engine="VLLM", format="Safetensors", gpus=1, vendor="NVIDIA", quantization="FP8").weights_percent == 55


@pytest.mark.parametrize(
    ("engine", "form", "kind"),
    [
        ("LocalAI", "GGUF", "LlamaCpp"),
        ("LocalAI", "AWQ", "VLLM"),
        ("TextGenerationWebUI", "EXL3", "TabbyAPI"),
        ("Ollama", "GGUF", "Ollama"),
    ],
)
def test_an_engine_with_another_inside_takes_memory_as_that_one(engine: EngineType, form: str, kind: str) -> None:
    assert ask(engine=engine, format=form, gpus=1, vendor="NVIDIA", device_memory=GIB).engine == kind


def test_of_what_nobody_knows_nothing_is_refused() -> None:
    assert (
        ask(
            engine="TextGenerationWebUI", format="Safetensors", gpus=1, vendor="NVIDIA", device_memory=GIB
        ).available_bytes
        is None
    )
    assert ask(engine="Custom", gpus=1, vendor="NVIDIA", device_memory=GIB).available_bytes is None


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
