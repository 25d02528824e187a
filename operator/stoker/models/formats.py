"""Formats of weights, as far as a name tells them."""

from __future__ import annotations

import re

from stoker.api.model_deployment import Format
from stoker.api.resolved import ParsedSource

# What publishers write into the names of quantized models. A name can be wrong: spec.format has the last word.
_HINTS: tuple[tuple[re.Pattern[str], Format], ...] = (
    (re.compile(r"gguf"), "GGUF"),
    (re.compile(r"exl3"), "EXL3"),
    (re.compile(r"exl2"), "EXL2"),
    (re.compile(r"(^|[-_.])awq([-_.]|$)"), "AWQ"),
    (re.compile(r"(^|[-_.])gptq([-_.]|$)"), "GPTQ"),
    (re.compile(r"(^|[-_.])fp8([-_.]|$)"), "FP8"),
    (re.compile(r"(^|[-_.])(int8|w8a8)([-_.]|$)"), "INT8"),
)


def detect_format(declared: Format, source: ParsedSource) -> Format:
    """The format that was declared, else what the source's name says, else plain safetensors; never Auto."""
    if declared != "Auto":
        return declared
    if source.shape in ("File", "Library"):
        return "GGUF"
    name = (source.reference or source.path).rpartition("/")[2].lower()
    return next((found for pattern, found in _HINTS if pattern.search(name)), "Safetensors")
