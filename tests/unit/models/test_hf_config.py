"""Figures of published configurations; each test names the repository its config.json is from."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.models.facts import BadModelError, KvLayers, ModelFacts
from stoker.models.fit import FitRequest, kv_bytes
from stoker.models.hf_config import MAX_CONFIG, facts_of, parse_config
from stoker.models.safetensors import SafetensorsHeader

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
"""meta-llama/Llama-3.1-8B-Instruct."""


def facts(*files: SafetensorsHeader, template: str = "", **config: Any) -> ModelFacts:
    return facts_of(parse_config(json.dumps(config).encode()), files, template)


def test_a_plain_model_is_described() -> None:
    weights = SafetensorsHeader({"BF16": 1000, "F32": 4}, {"BF16": 2000, "F32": 16})
    described = facts(weights, weights, template="{{ tools }}", **LLAMA)
    assert described == ModelFacts(
        format="Safetensors",
        architecture="llama",
        parameters=2008,
        quantization="BF16",
        weights_bytes=4032,
        files=2,
        layers=32,
        embedding_length=4096,
        feed_forward_length=14336,
        heads=32,
        kv_heads=8,
        head_size=128,
        context_length=131072,
        vocabulary_size=128256,
        chat_template=True,
        tools=True,
        kv_cache=(KvLayers(32, 1024, 1024),),
    )


def test_without_weights_the_configurations_type_is_told() -> None:
    assert facts(**LLAMA).quantization == "BF16"


def test_a_latent_cache_is_one_vector() -> None:
    """deepseek-ai/DeepSeek-V3."""
    deepseek = {
        **LLAMA,
        "model_type": "deepseek_v3",
        "num_hidden_layers": 61,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    assert facts(**deepseek).kv_cache == (KvLayers(61, 576, 0),)


def test_windows_come_from_the_kinds_of_layers() -> None:
    """google/gemma-3-1b-it (layer_types as transformers writes them)."""
    kinds = ["full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(26)]
    gemma = {**LLAMA, "model_type": "gemma3_text", "num_hidden_layers": 26, "num_key_value_heads": 1, "head_dim": 256}
    described = facts(**gemma, sliding_window=512, layer_types=kinds)
    assert described.kv_cache == (KvLayers(4, 256, 256), KvLayers(22, 256, 256, 512))


def test_a_window_that_is_switched_off_is_none() -> None:
    """Qwen/Qwen2.5-7B-Instruct."""
    described = facts(**{**LLAMA, "model_type": "qwen2"}, sliding_window=131072, use_sliding_window=False)
    assert (described.sliding_window, described.kv_cache) == (0, (KvLayers(32, 1024, 1024),))


def test_linear_layers_keep_no_tokens() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    assert facts(**{**LLAMA, "num_hidden_layers": 4}, layer_types=kinds).kv_cache == (KvLayers(1, 1024, 1024),)


def test_the_text_part_of_a_model_that_sees_counts() -> None:
    described = facts(model_type="mistral3", vision_config={"num_hidden_layers": 24}, text_config={**LLAMA})
    assert (described.architecture, described.layers) == ("mistral3", 32)


def test_quantization_is_told_and_packed_weights_are_counted() -> None:
    awq = {"quant_method": "awq", "bits": 4}
    described = facts(
        SafetensorsHeader({"I32": 100, "F16": 10}, {"I32": 400, "F16": 20}), **LLAMA, quantization_config=awq
    )
    assert (described.quantization, described.parameters) == ("AWQ-4bit", 810)


def test_an_encoder_needs_no_cache() -> None:
    assert facts(**{**LLAMA, "model_type": "bert"}).kv_cache == ()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "names no model_type"),
        ({"model_type": "llama", "num_hidden_layers": 10**6}, "claims to have 1000000 layers"),
        ({**LLAMA, "hidden_size": "wide"}, "hidden_size is wide"),
        ({**LLAMA, "vocab_size": -1}, "vocab_size is -1"),
        ({**LLAMA, "vocab_size": True}, "vocab_size is True"),
    ],
)
def test_what_cannot_be_is_refused_in_words(config: dict[str, Any], words: str) -> None:
    with pytest.raises(BadModelError, match=words):
        facts(**config)


def test_a_configuration_without_an_end_is_not_read() -> None:
    with pytest.raises(BadModelError, match="longer than 1 MiB"):
        parse_config(b" " * (MAX_CONFIG + 1))


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [*LLAMA, "text_config", "layer_types", "sliding_window", "kv_lora_rank", "quantization_config"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=4)
        | st.lists(st.text(max_size=4))
        | st.just(LLAMA),
    )
)
def test_any_configuration_does_no_harm(config: dict[str, Any]) -> None:
    with contextlib.suppress(BadModelError):
        facts(**{"model_type": "llama", **config})


@pytest.mark.parametrize(
    ("config", "published"),
    [
        # "Insights into DeepSeek-V3: Scaling Challenges and Reflections on Hardware for AI Architectures", table 1, in bytes.
        ({"model_type": "deepseek_v3", "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
          "num_attention_heads": 128, "num_key_value_heads": 128, "hidden_size": 7168}, 70_272),
        ({"model_type": "qwen2", "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
          "hidden_size": 8192}, 327_680),
        ({"model_type": "llama", "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8,
          "hidden_size": 16384}, 516_096),
    ],
    ids=["DeepSeek-V3", "Qwen2.5-72B", "Llama-3.1-405B"],
)  # fmt: skip
def test_a_token_takes_what_is_published(config: dict[str, Any], published: int) -> None:
    one = FitRequest("VLLM", slots=1, context_length=1)
    assert kv_bytes(facts(**config), one) == published


def test_of_numbers_that_differ_by_layer_the_largest_counts() -> None:
    assert facts(**{**LLAMA, "intermediate_size": [8192, 16384]}).feed_forward_length == 16384
