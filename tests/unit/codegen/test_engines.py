"""The page with what each engine can do."""

from __future__ import annotations

import re

from stoker.codegen import engines as page_of_engines
from stoker.engines import ENGINES
from stoker.engines.checks import FIELDS

PAGE = page_of_engines.build_page()


def row(title: str) -> list[str]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_every_table_has_a_column_for_every_engine() -> None:
    heads = [line for line in PAGE.splitlines() if line.startswith("|  | ")]
    assert len(heads) == 4
    assert all([cell.strip() for cell in head.strip("|").split("|")[1:]] == list(ENGINES) for head in heads)


def test_a_cell_says_what_the_table_of_engines_says() -> None:
    by_engine = dict(zip(ENGINES, row("GGUF"), strict=True))
    assert (by_engine["VLLM"], by_engine["LlamaCpp"], by_engine["TabbyAPI"]) == ("image", "5.0", "")
    fields = dict(zip(ENGINES, row("`contextLength`"), strict=True))
    assert (fields["VLLM"], fields["Ollama"]) == ("•", "required")
    assert dict(zip(ENGINES, row("`kvCacheType`"), strict=True))["SGLang"] == "FP8"


def test_every_field_and_every_reason_is_on_the_page() -> None:
    for name in FIELDS:
        assert row(f"`{name}`")
    for engine in ENGINES.values():
        for why in engine.refused.values():
            assert f": {why}.\n" in PAGE
        for image in engine.images.values():
            assert f"`{image.name}`" in PAGE


def test_the_order_of_preference_is_told_for_each_kind_of_weights() -> None:
    assert "| GGUF, with a GPU or without | LlamaCpp, Ollama," in PAGE
    assert re.search(r"\| EXL2, EXL3 \| TabbyAPI, ", PAGE)
