"""GGUF files made to measure, for tests that need one of a certain shape (or misshape)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

Tensor = tuple[str, tuple[int, ...], int]
"""Name, lengths of the dimensions, type number."""


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, value: object) -> bytes:
    return text(key) + _typed(value)


def header(metadata: Mapping[str, object], tensors: Iterable[tuple[Tensor, int]] = (), version: int = 3) -> bytes:
    listed = list(tensors)
    parts = [b"GGUF", struct.pack("<IQQ", version, len(listed), len(metadata))]
    parts += [entry(key, value) for key, value in metadata.items()]
    for (name, lengths, kind), offset in listed:
        parts += [text(name), struct.pack("<I", len(lengths)), struct.pack(f"<{len(lengths)}Q", *lengths)]
        parts.append(struct.pack("<IQ", kind, offset))
    return b"".join(parts)


def llama(tokens: int = 8, **more: object) -> dict[str, object]:
    """Metadata of a small Llama: 4 layers, 8 heads, 2 of them with keys and values, 32 elements each."""
    return {
        "general.architecture": "llama",
        "general.name": "Small",
        "general.license": "apache-2.0",
        "general.file_type": 15,
        "llama.block_count": 4,
        "llama.context_length": 4096,
        "llama.embedding_length": 256,
        "llama.feed_forward_length": 512,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": [f"token{number}" for number in range(tokens)],
        **more,
    }


def model(tokens: int = 8, **more: object) -> bytes:
    """A whole file: header, padding, and zeros for weights."""
    tensors: list[Tensor] = [("token_embd.weight", (256, 64), 12), ("output_norm.weight", (256,), 0)]
    sizes, offset, placed = (64 * 144, 1024), 0, []
    for tensor, size in zip(tensors, sizes, strict=True):
        placed.append((tensor, offset))
        offset += -(-size // 32) * 32
    head = header(llama(tokens, **more), placed)
    return head + bytes(-len(head) % 32) + bytes(offset)


def _typed(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int() if value < 0:
            return struct.pack("<Iq", 11, value)
        case int():
            return struct.pack("<II", 4, value) if value < 2**32 else struct.pack("<IQ", 10, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case bytes():
            return value
        case list() if value and isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(item) for item in value)
        case list() if value and isinstance(value[0], bool):
            return struct.pack("<IIQ", 9, 7, len(value)) + bytes(value)
        case list():
            return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
    raise TypeError(value)
