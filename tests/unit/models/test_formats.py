from __future__ import annotations

import pytest

from stoker.api.model_deployment import ModelSource
from stoker.models.formats import detect_format
from stoker.models.source import parse_source


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("https://host/m.gguf", "GGUF"),
        ("ollama://qwen3:8b", "GGUF"),
        ("hf://Qwen/Qwen3-8B-AWQ", "AWQ"),
        ("hf://org/Model-GPTQ-Int4", "GPTQ"),
        ("hf://org/Model-FP8-dynamic", "FP8"),
        ("hf://org/model-quantized.w8a8", "INT8"),
        ("hf://org/Model-4.0bpw-exl3", "EXL3"),
        ("hf://org/Model-exl2", "EXL2"),
        ("hf://bartowski/Model-GGUF", "GGUF"),
        ("hf://Qwen/Qwen3-8B", "Safetensors"),
        ("hf://hawq/Model", "Safetensors"),
        ("pvc://weights/models/Qwen3-8B-AWQ", "AWQ"),
        ("file:///srv/awq/Qwen3-8B", "Safetensors"),
    ],
)
def test_the_name_of_a_source_tells_its_format(uri: str, found: str) -> None:
    assert detect_format("Auto", parse_source(ModelSource(uri=uri))) == found


def test_what_was_declared_beats_the_name() -> None:
    assert detect_format("GPTQ", parse_source(ModelSource(uri="hf://Qwen/Qwen3-8B-AWQ"))) == "GPTQ"
