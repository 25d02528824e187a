"""The bill for a model against what engines print.

The table is from llama.cpp b11434 on a CPU with SmolLM2-135M-Instruct Q4_1, one line for each run of

    llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --parallel SLOTS --ctx-size CONTEXT*SLOTS --no-kv-unified \\
      --cache-type-k KEYS --cache-type-v VALUES --cache-ram 0 --threads 1 --no-slots --no-ui -lv 4

(without a context: --ctx-size 0 --kv-unified): the lines "KV buffer size", "compute buffer size" and "output buffer size"
of its log, and VmHWM of /proc/PID/status once /health answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.models.facts import KvLayers, ModelFacts
from stoker.models.fit import (
    FitRequest,
    compute_bytes,
    compute_fit,
    explain_misfit,
    kv_bytes,
    largest_context,
    parse_fit_request,
)
from stoker.models.hf_config import facts_of as facts_of_config

MIB = 1 << 20
GIB = 1 << 30

SMOLLM2 = ModelFacts(
    format="GGUF",
    architecture="llama",
    weights_bytes=96_576_768,
    layers=30,
    embedding_length=576,
    feed_forward_length=1536,
    heads=9,
    kv_heads=3,
    head_size=64,
    context_length=8192,
    vocabulary_size=49152,
    kv_cache=(KvLayers(30, 192, 192),),
)

# Context, slots, keys, values: cache, compute + output buffers (MiB), largest resident set (kB).
PRINTED = [
    (512, 1, "f16", "f16", 11.25, 15.33, 138_936),
    (2048, 4, "f16", "f16", 180.0, 17.39, 312_744),
    (1000, 4, "f16", "f16", 90.0, 16.39, 220_372),
    (8192, 1, "f16", "f16", 180.0, 22.83, 312_156),
    (8192, 4, "f16", "f16", 720.0, 23.39, 866_524),
    (8192, 16, "f16", "f16", 2880.0, 25.64, 3_086_332),
    (None, 4, "f16", "f16", 180.0, 23.39, 312_056),
    (4096, 2, "q8_0", "q8_0", 95.62, 19.05, 225_948),
    (2048, 4, "q4_0", "q4_0", 50.62, 17.42, 180_760),
    (2048, 4, "f32", "f32", 360.0, 17.39, 497_084),
    (2048, 4, "bf16", "bf16", 180.0, 17.39, 312_428),
    (2048, 4, "q8_0", "q5_1", 81.56, 17.42, 212_200),
    (2048, 4, "iq4_nl", "q4_1", 53.44, 17.42, 183_624),
    (2048, 4, "q5_0", "q5_1", 64.69, 17.42, 195_136),
]


def run(context: int | None = None, slots: int = 4, **more: object) -> FitRequest:
    return replace(FitRequest("LlamaCpp", slots, context), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("context", "slots", "keys", "values", "cache", "buffers", "resident"), PRINTED)
def test_the_bill_is_what_llama_server_prints(
    context: int | None, slots: int, keys: str, values: str, cache: float, buffers: float, resident: int
) -> None:
    request = run(context, slots, key_type=keys, value_type=values, shared=context is None)
    assert kv_bytes(SMOLLM2, request) == pytest.approx(cache * MIB, rel=0.001)
    assert compute_bytes(SMOLLM2, request) == pytest.approx(buffers * MIB, rel=0.01)
    required = compute_fit(SMOLLM2, request).required_bytes
    # More than was taken right after the start, for requests take some, too; but not much more.
    assert resident * 1024 < required < resident * 1024 + 32 * MIB


# Of files made for this: zeros for weights, SmolLM2's vocabulary, 256 wide, feed-forward 512, cache of f16; run like the above.
_MADE = replace(SMOLLM2, embedding_length=256, feed_forward_length=512, context_length=32768)
GEMMA3 = replace(_MADE, kv_cache=(KvLayers(2, 128, 128), KvLayers(12, 128, 128, window=512)))
DEEPSEEK2 = replace(_MADE, kv_cache=(KvLayers(6, 160, 0),))
MAMBA = replace(_MADE, feed_forward_length=1024, kv_cache=(), recurrent_bytes=233_472)


@pytest.mark.parametrize(
    ("facts", "context", "slots", "cache", "buffers"),
    [
        (GEMMA3, 8192, 2, 16.0 + 12.0, 14.53 + 0.38),
        (GEMMA3, 16384, 1, 16.0 + 6.0, 22.53 + 0.19),
        (GEMMA3, None, 4, 32.0 + 15.0, 40.03 + 0.75),
        (DEEPSEEK2, 8192, 2, 30.0, 13.51 + 0.38),
        (DEEPSEEK2, 16384, 1, 30.0, 21.51 + 0.19),
        (DEEPSEEK2, None, 4, 60.0, 37.51 + 0.75),
        (MAMBA, 8192, 2, 0.45, 7.58 + 0.38),
        (MAMBA, 16384, 1, 0.22, 7.54 + 0.19),
        (MAMBA, None, 4, 0.89, 7.66 + 0.75),
    ],
)
def test_windows_latent_caches_and_recurrent_states_are_what_llama_server_prints(
    facts: ModelFacts, context: int | None, slots: int, cache: float, buffers: float
) -> None:
    request = run(context, slots, shared=context is None)
    assert kv_bytes(facts, request) == pytest.approx(cache * MIB, rel=0.02)
    assert compute_bytes(facts, request) == pytest.approx(buffers * MIB, rel=0.05 if facts.kv_cache else 0.25)


def test_the_batch_of_an_embedding_server_is_paid_for() -> None:
    """With --embeddings --batch-size 2048 --ubatch-size 2048 it prints a compute buffer of 419.08 MiB and an output of 0.76."""
    assert compute_bytes(SMOLLM2, run(2048, embedding=True)) == pytest.approx(419.84 * MIB, rel=0.08)


def test_a_window_bounds_the_cache_of_its_layers() -> None:
    gemma = replace(SMOLLM2, kv_cache=(KvLayers(4, 256, 256), KvLayers(22, 256, 256, window=512)))
    cells = 1024  # 512 of the window and 512 of the batch
    assert kv_bytes(gemma, run(32768, 1)) == (4 * 32768 + 22 * cells) * 1024
    assert kv_bytes(gemma, run(512, 1)) == 26 * 512 * 1024


def test_a_latent_cache_costs_its_keys_only() -> None:
    deepseek = replace(SMOLLM2, kv_cache=(KvLayers(61, 576, 0),))
    assert kv_bytes(deepseek, run(4096, 1)) == 61 * 4096 * 576 * 2


def test_recurrent_state_is_paid_for_each_slot() -> None:
    mamba = replace(SMOLLM2, kv_cache=(), recurrent_bytes=1000)
    assert kv_bytes(mamba, run(4096, 3)) == 3000
    assert kv_bytes(mamba, run(65536, 3)) == 3000


# https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct, config.json; its cache is widely published as 128 KiB for a token.
LLAMA_8B = replace(
    SMOLLM2,
    weights_bytes=16_060_522_496,
    embedding_length=4096,
    feed_forward_length=14336,
    context_length=131_072,
    vocabulary_size=128_256,
    kv_cache=(KvLayers(32, 1024, 1024),),
)


def test_llama_8b_takes_128_kib_for_a_token() -> None:
    assert kv_bytes(LLAMA_8B, run(131_072, 1)) == 16 * GIB


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (
            {"num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128, "num_key_value_heads": 128}
            | {"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64},
            70_272,
        ),
        (
            {"num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8}
            | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 131_072},
            327_680,
        ),
        (
            {"num_hidden_layers": 126, "hidden_size": 16_384, "num_attention_heads": 128, "num_key_value_heads": 8}
            | {"model_type": "llama"},
            516_096,
        ),
    ],
    ids=["DeepSeek-V3", "Qwen2.5-72B", "Llama-3.1-405B"],
)
def test_a_token_takes_what_is_published(config: dict[str, Any], published: int) -> None:
    """Bytes for a token in 16 bits: https://arxiv.org/abs/2505.09343, table 1; fields as in the models' config.json."""
    facts = facts_of_config(config, [])
    assert kv_bytes(facts, FitRequest("VLLM", 1, 1024)) == 1024 * published


def test_a_token_takes_what_vllm_prints() -> None:
    """vLLM 0.32 on a CPU, the same model as 16-bit safetensors, --kv-cache-memory-bytes 1073741824: "CPU KV cache size: 46,592 tokens"."""
    assert kv_bytes(SMOLLM2, FitRequest("VLLM", 1, 46_592)) == pytest.approx(GIB, rel=0.001)


def test_pages_are_paid_once_for_all_slots() -> None:
    paged = FitRequest("VLLM", 256, 8192, devices=1, available_bytes=24 * GIB)
    assert kv_bytes(LLAMA_8B, paged) == 8192 * 128 * 1024
    fit = compute_fit(LLAMA_8B, paged)
    assert fit.fits is True
    assert fit.available_bytes == 24 * GIB * 92 // 100


def test_a_cache_of_fixed_size_is_paid_whole_and_must_hold_one_request() -> None:
    fixed = FitRequest("VLLM", 4, 8192, available_bytes=32 * GIB, cache_bytes=2 * GIB)
    fit = compute_fit(LLAMA_8B, fixed)
    assert (fit.kv_bytes, fit.fits) == (2 * GIB, True)
    short = compute_fit(LLAMA_8B, replace(fixed, context_length=32_768))
    assert (short.fits, short.largest_context) == (False, 16_384)
    assert "2.00 GiB too little" in explain_misfit(short)


def test_a_share_of_the_device_and_lighter_weights_count() -> None:
    request = FitRequest("VLLM", 4, 8192, devices=1, available_bytes=24 * GIB, usable_percent=50, weights_percent=55)
    fit = compute_fit(LLAMA_8B, request)
    assert fit.available_bytes == 12 * GIB
    assert fit.weights_bytes == LLAMA_8B.weights_bytes * 55 // 100
    assert compute_fit(LLAMA_8B, replace(request, weights_percent=100)).fits is False


def test_nobody_knows_whether_it_fits_without_the_memory() -> None:
    fit = compute_fit(SMOLLM2, run(2048))
    assert fit.fits is None
    assert (fit.largest_context, fit.largest_slots) == (0, 0)


def test_what_would_fit_is_named_and_fits() -> None:
    request = run(8192, 4, available_bytes=512 * MIB)
    fit = compute_fit(SMOLLM2, request)
    assert fit.fits is False
    assert (fit.largest_context, fit.largest_slots) == (4096, 2)
    assert compute_fit(SMOLLM2, replace(request, context_length=4096)).fits is True
    assert compute_fit(SMOLLM2, replace(request, context_length=4096 + 256)).fits is False
    assert compute_fit(SMOLLM2, replace(request, slots=2)).fits is True
    assert compute_fit(SMOLLM2, replace(request, slots=3)).fits is False


def test_no_context_fits_where_the_weights_do_not() -> None:
    fit = compute_fit(SMOLLM2, run(8192, 4, available_bytes=64 * MIB))
    assert (fit.fits, fit.largest_context, fit.largest_slots) == (False, 0, 0)


def test_a_context_that_is_hardly_one_is_not_chosen() -> None:
    assert largest_context(SMOLLM2, run(available_bytes=180 * MIB, slots=4)) == 0
    assert largest_context(SMOLLM2, run(available_bytes=180 * MIB, slots=1)) == 1536


def test_the_largest_context_is_at_most_what_the_model_was_trained_with() -> None:
    assert largest_context(SMOLLM2, run(available_bytes=64 * GIB)) == 8192


@pytest.mark.parametrize(
    "request_",
    [
        run(),
        run(
            2048,
            7,
            key_type="q8_0",
            value_type="q4_0",
            devices=2,
            available_bytes=5,
            reserved_bytes=6,
            embedding=True,
            usable_percent=70,
            cache_bytes=9,
            weights_percent=55,
        ),
    ],
)
def test_the_order_to_the_downloader_comes_back_as_it_was(request_: FitRequest) -> None:
    assert parse_fit_request(request_.to_json()) == request_


def test_a_device_costs_its_context() -> None:
    on_cpu, on_gpu = compute_fit(SMOLLM2, run(2048)), compute_fit(SMOLLM2, run(2048, devices=1))
    assert on_gpu.overhead_bytes - on_cpu.overhead_bytes == (600 - 32) * MIB


def test_a_misfit_is_explained_with_numbers_that_work() -> None:
    assert explain_misfit(compute_fit(SMOLLM2, run(8192, 4, available_bytes=512 * MIB))) == (
        "it needs 0.85 GiB (weights 0.09 GiB, cache for 4 x 8192 tokens 0.70 GiB, overhead 0.05 GiB), and there are 0.50 GiB: "
        "set spec.contextLength to at most 4096, or set spec.maxConcurrentRequests to at most 2, or give it more memory"
    )
    shared = explain_misfit(compute_fit(LLAMA_8B, run(shared=True, available_bytes=24 * GIB)))
    assert "cache for 131072 tokens shared by 4 requests 16.0 GiB" in shared
    assert "maxConcurrentRequests" not in shared
    hopeless = explain_misfit(compute_fit(LLAMA_8B, run(available_bytes=8 * GIB)))
    assert hopeless.endswith("and there are 8.00 GiB: give it more memory, or take a smaller quantization or model")
