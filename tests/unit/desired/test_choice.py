"""Which engine is taken where the user named none."""

from __future__ import annotations

import pytest

from stoker.desired.choice import choose_engine
from stoker.errors import Stalled

NVIDIA = {"vendor": "NVIDIA"}
TYPES = ("VLLM", "LlamaCpp", "Ollama", "TabbyAPI", "Aphrodite", "LocalAI", "SGLang")


@pytest.fixture
def choose(make_model, make_engine, settings):
    def choose(engines=TYPES, previous=None, accelerator=NVIDIA, **model):
        if engines and isinstance(engines[0], str):
            engines = [
                make_engine(name=kind.lower(), type=kind, accelerator=_of(kind, accelerator)) for kind in engines
            ]
        return choose_engine(make_model(engineRef=None, **model), engines, settings, previous)

    return choose


def _of(kind: str, accelerator):
    return NVIDIA if kind == "TabbyAPI" else accelerator


@pytest.mark.parametrize(
    ("model", "chosen", "why"),
    [
        ({"source": {"uri": "https://host/m.gguf"}}, "llamacpp", "GGUF weights"),
        ({"source": {"uri": "ollama://qwen3:8b"}, "contextLength": 4096}, "ollama", "in the Ollama library"),
        ({"source": {"uri": "pvc://w/m-exl3"}, "contextLength": 4096}, "tabbyapi", "EXL3 weights"),
        ({"source": {"uri": "hf://org/m-exl3"}}, "aphrodite", "EXL3 weights"),
        (
            {"source": {"uri": "hf://org/m-AWQ"}, "maxConcurrentRequests": 64},
            "vllm",
            "AWQ weights, a GPU and many requests",
        ),
        ({"source": {"uri": "hf://org/m-GPTQ"}}, "vllm", "GPTQ weights, a GPU and 4 requests"),
        ({"source": {"uri": "hf://org/m-FP8"}}, "vllm", "FP8 weights"),
        ({"source": {"uri": "hf://org/m-w8a8"}}, "vllm", "INT8 weights"),
        ({"source": {"uri": "hf://org/m"}}, "vllm", "Safetensors weights"),
        ({"source": {"uri": "pvc://w/m.gguf"}, "task": "Rerank"}, "llamacpp", "GGUF weights"),
    ],
)
def test_format_hardware_and_concurrency_decide(choose, model, chosen, why) -> None:
    engine, reason = choose(**model)
    assert engine.metadata.name == chosen
    assert why in reason


def test_without_a_gpu_gguf_goes_to_llama_cpp(choose) -> None:
    engine, reason = choose(accelerator={"vendor": "None"}, source={"uri": "https://host/m.gguf"})
    assert engine.metadata.name == "llamacpp"
    assert "GGUF weights, no GPU" in reason


def test_devices_of_pascals_age_go_to_aphrodite_with_an_image_of_ones_own(choose, make_engine) -> None:
    old = {**NVIDIA, "computeCapability": "6.1"}
    engines = [
        make_engine(name=kind.lower(), type=kind, accelerator=old, image="own:1") for kind in ("VLLM", "Aphrodite")
    ]
    engine, reason = choose(engines, source={"uri": "hf://org/m-GPTQ"})
    assert engine.metadata.name == "aphrodite"
    assert "compute capability 6.1" in reason


def test_the_reason_tells_of_the_others_too(choose) -> None:
    _, reason = choose(("LlamaCpp", "VLLM", "SGLang"), source={"uri": "hf://org/m-AWQ"})
    assert reason.startswith("VLLM vllm: AWQ weights")
    assert "SGLang sglang would do, too" in reason
    assert "LlamaCpp llamacpp cannot (UnsupportedFormat: llama.cpp cannot serve AWQ" in reason


def test_of_two_of_a_type_the_one_with_devices_is_taken_then_the_first_by_name(choose, make_engine) -> None:
    cpu, b, a = (
        make_engine(name="cpu"),
        make_engine(name="gpu-b", accelerator=NVIDIA),
        make_engine(name="gpu-a", accelerator=NVIDIA),
    )
    assert choose([cpu, b, a])[0] is a
    assert choose([cpu, b, a], gpus=0)[0].metadata.name == "cpu"


def test_an_engine_whose_fields_do_not_fit_is_passed_over(choose) -> None:
    gguf = {"uri": "https://host/m.gguf"}
    engine, reason = choose(("LlamaCpp", "Ollama"), source=gguf, contextLength=4096, adapters=[])
    assert engine.metadata.name == "llamacpp"
    engine, reason = choose(("LlamaCpp", "SGLang"), source=gguf, toolCallParser="qwen25")
    assert engine.metadata.name == "sglang"
    assert "LlamaCpp llamacpp cannot (UnsupportedField: llama.cpp cannot do spec.toolCallParser" in reason


def test_when_none_fits_every_refusal_is_told(choose) -> None:
    with pytest.raises(Stalled) as caught:
        choose(("LlamaCpp", "Ollama"), source={"uri": "hf://org/m-AWQ"})
    assert caught.value.reason == "NoEngineFits"
    assert "LlamaCpp llamacpp cannot (UnsupportedFormat" in caught.value.message
    assert "Ollama ollama cannot (UnsupportedFormat" in caught.value.message


def test_where_there_is_no_engine_there_is_no_choice(choose, make_model, resolve) -> None:
    assert choose(()) == (None, None)
    with pytest.raises(Stalled) as caught:
        resolve(make_model(engineRef=None), None)
    assert caught.value.reason == "EngineNotFound"
    assert "none to choose in namespace team" in caught.value.message


def test_a_choice_stands_while_nothing_it_depends_on_changes(choose, make_model, make_engine, resolve) -> None:
    llama = make_engine(name="zz")
    model = make_model(engineRef=None)
    first = resolve(model, llama, engine_reason="because").chosen
    assert (first.engine_name, first.engine_reason) == ("zz", "because")
    better = make_engine(name="aa")
    assert choose([better, llama], previous=first) == (llama, "because")
    assert resolve(model, llama, previous=first, engine_reason="because").chosen is first
    # The model changed, the engine changed, the engine is gone: chosen anew.
    assert choose([better, llama], previous=first, contextLength=4096)[0] is better
    changed = make_engine(name="zz", args=["--threads", "1"])
    assert choose([better, changed], previous=first)[0] is better
    assert choose([better], previous=first)[0] is better
    without_image = make_engine(name="zz", type="SGLang", accelerator={"vendor": "Intel"})
    assert choose([better, without_image], previous=first)[0] is better


def test_an_engine_that_was_named_leaves_no_trace_of_a_choice(make_model, make_engine, resolve) -> None:
    chosen = resolve(make_model(), make_engine()).chosen
    assert (chosen.engine_name, chosen.engine_reason) == (None, None)
