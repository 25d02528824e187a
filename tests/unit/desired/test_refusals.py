"""Wrong combinations of engine and model: each refused for its own reason, with an engine that can, before a pod exists."""

from __future__ import annotations

import pytest
from wrong_combinations import AWQ, COMBINATIONS, CPU, EXL3, GGUF, NVIDIA, PLAIN

from stoker.desired.inference_engine import check_engine
from stoker.errors import Stalled


@pytest.mark.parametrize(
    ("kind", "accelerator", "model", "reason", "told"),
    COMBINATIONS,
    ids=[f"{kind}-{reason}-{number}" for number, (kind, _, _, reason, _) in enumerate(COMBINATIONS)],
)
def test_a_wrong_combination_is_refused_for_its_own_reason(
    make_model, make_engine, resolve, kind, accelerator, model, reason, told
) -> None:
    with pytest.raises(Stalled) as caught:
        resolve(make_model(**model), make_engine(type=kind, accelerator=accelerator))
    assert caught.value.reason == reason, caught.value.message
    for words in told:
        assert words in caught.value.message


def test_there_are_at_least_twenty_five_and_no_two_say_the_same(make_model, make_engine, resolve) -> None:
    messages = set()
    for kind, accelerator, model, _, _ in COMBINATIONS:
        with pytest.raises(Stalled) as caught:
            resolve(make_model(**model), make_engine(type=kind, accelerator=accelerator))
        messages.add(caught.value.message)
    assert len(messages) == len(COMBINATIONS) >= 25


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("VLLM", {"source": GGUF}),
        ("Aphrodite", {"source": GGUF}),
        ("TabbyAPI", {"source": {"uri": "pvc://w/m-exl2"}, "contextLength": 4096}),
        ("VLLM", {"source": AWQ, "toolCallParser": "brand_new"}),
    ],
)
def test_an_image_of_ones_own_may_do_more(make_model, make_engine, resolve, kind, model) -> None:
    engine = make_engine(type=kind, accelerator={**NVIDIA, "computeCapability": "6.1"}, image="registry/mine:1")
    assert resolve(make_model(**model), engine).chosen.engine_image == "registry/mine:1"


def test_an_engine_on_the_wrong_accelerator_says_so_itself(make_engine, settings) -> None:
    with pytest.raises(Stalled) as caught:
        check_engine(make_engine(type="TabbyAPI", accelerator={"vendor": "AMD"}), settings)
    assert caught.value.reason == "UnsupportedAccelerator"
    check_engine(make_engine(type="TabbyAPI", accelerator=NVIDIA), settings)


def test_an_engine_without_a_published_image_asks_for_one(make_engine, settings) -> None:
    with pytest.raises(Stalled) as caught:
        check_engine(make_engine(type="SGLang", accelerator={"vendor": "Intel"}), settings)
    assert caught.value.reason == "ImageNotAvailable"
    assert "The makers of SGLang publish no image" in caught.value.message


TEXTGEN = {"type": "TextGenerationWebUI", "image": "mine:1"}


@pytest.mark.parametrize(
    ("accelerator", "model", "reason", "told"),
    [
        (NVIDIA, {"source": {"uri": "hf://org/m-GGUF"}}, "UnsupportedSource", "the one GGUF file"),
        (
            NVIDIA,
            {"source": PLAIN, "tensorParallelSize": 2},
            "UnsupportedField",
            "by Transformers, which cannot do spec.tensor",
        ),
        (
            NVIDIA,
            {"source": PLAIN, "kvCacheType": "INT8"},
            "UnsupportedField",
            "by Transformers, which cannot do spec.kvCache",
        ),
        (CPU, {"source": EXL3}, "UnsupportedAccelerator", "computes on NVIDIA GPUs only"),
    ],
)
def test_the_loaders_of_text_generation_webui_differ(
    make_model, make_engine, resolve, accelerator, model, reason, told
) -> None:
    with pytest.raises(Stalled) as caught:
        resolve(make_model(**model), make_engine(**TEXTGEN, accelerator=accelerator))
    assert caught.value.reason == reason
    assert told in caught.value.message
