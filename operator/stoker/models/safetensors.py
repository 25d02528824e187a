"""The header of a safetensors file: how many weights of which type.

Format: https://huggingface.co/docs/safetensors, section "Format": 8 bytes of length, then JSON. JSON has to be whole before
it is read, so its size and the number of its parts are bounded first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from stoker.models.facts import BadModelError

MAX_HEADER = 4 << 20
MAX_TENSORS = 20_000
MAX_ELEMENTS = 1 << 48
MAX_TYPES = 64
_LENGTH = 8
_LONGEST_TYPE = 16

# Bits of one element.
_TYPES = (
    {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32}
    | {"U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
    | {"C64": 64}
)


@dataclass
class SafetensorsHeader:
    """What one file holds."""

    elements_by_type: dict[str, int] = field(default_factory=dict)
    bytes_by_type: dict[str, int] = field(default_factory=dict)
    data_end: int = 0
    """Length of the whole file, if it is complete."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors in this file."""
        return sum(self.bytes_by_type.values())


def bytes_needed(beginning: bytes) -> int:
    """How much of the file has to be there for `parse_header`; 8 before the length itself is."""
    if len(beginning) < _LENGTH:
        return _LENGTH
    length = int.from_bytes(beginning[:_LENGTH], "little")
    if not 2 <= length <= MAX_HEADER:
        raise BadModelError(f"it claims to have a header of {length} bytes")
    return _LENGTH + length


def parse_header(beginning: bytes) -> SafetensorsHeader:
    """From the first `bytes_needed` bytes; BadModelError when they contradict themselves."""
    end = bytes_needed(beginning)
    tensors = read_json(beginning[_LENGTH:end], MAX_TENSORS)
    header = SafetensorsHeader()
    spans = []
    for name, tensor in tensors.items():
        if name == "__metadata__":
            continue
        if not isinstance(tensor, dict):
            raise BadModelError("a tensor is described by no object")
        spans.append(_add(header, tensor))
    spans.sort()
    # As the format demands: no holes, no overlaps, so that nothing is hidden or read twice.
    if spans and (spans[0][0] != 0 or any(one[1] != other[0] for one, other in pairwise(spans))):
        raise BadModelError("its tensors do not lie one behind the other")
    header.data_end = end + (spans[-1][1] if spans else 0)
    return header


def read_json(text: bytes, parts: int) -> dict[str, Any]:
    """A JSON object of not much more than `parts` objects, each of a few values: what is small can become large in memory."""
    if text.count(b"{") + text.count(b"[") > 3 * parts or text.count(b",") > 8 * parts:
        raise BadModelError(f"its JSON has more than {parts} parts")
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadModelError(f"its JSON cannot be read ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise BadModelError("its JSON is no object")
    return document


def _add(header: SafetensorsHeader, tensor: Mapping[str, Any]) -> tuple[int, int]:
    kind, shape, offsets = tensor.get("dtype"), _counts(tensor.get("shape")), _counts(tensor.get("data_offsets"))
    if not isinstance(kind, str) or not 0 < len(kind) <= _LONGEST_TYPE:
        raise BadModelError(f"a tensor has the impossible type {str(kind)[:20]!r}")
    if shape is None or offsets is None or len(offsets) != 2:
        raise BadModelError("a tensor has an impossible shape or place")
    elements = 1
    for length in shape:
        elements *= length
        if elements > MAX_ELEMENTS:
            raise BadModelError("a tensor claims to have an impossible size")
    start, end = offsets
    # A type that is newer than this list is the engine's to know.
    if end < start or (kind in _TYPES and end - start != (elements * _TYPES[kind] + 7) // 8):
        raise BadModelError(f"a tensor of {elements} elements of {kind} claims to take {end - start} bytes")
    if kind not in header.bytes_by_type and len(header.bytes_by_type) >= MAX_TYPES:
        raise BadModelError(f"its tensors have more than {MAX_TYPES} types")
    header.elements_by_type[kind] = header.elements_by_type.get(kind, 0) + elements
    header.bytes_by_type[kind] = header.bytes_by_type.get(kind, 0) + end - start
    return start, end


def _counts(values: object) -> list[int] | None:
    if isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_ELEMENTS for value in values):
        return values
    return None


def _no_constant(name: str) -> float:
    raise ValueError(name)
