"""What a model's own files say about it, whatever their format.

Standard library only: the downloader reads headers, too, and should not have to load the API's models for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

MAX_TEXT = 128
"""Characters of a name or licence that are kept; they end up in a status."""

MAX_KV_GROUPS = 16


class BadModelError(Exception):
    """The file contradicts itself or its format; the message says where."""


@dataclass(frozen=True)
class KvLayers:
    """Layers that remember a token alike."""

    layers: int
    key_width: int
    """Elements of one token's keys in one layer: heads × head size, or the latent vector of MLA."""
    value_width: int
    window: int = 0
    """Tokens that are remembered; 0: the whole context."""


@dataclass(frozen=True)
class ModelFacts:
    """Numbers are 0 and texts empty where the file does not tell."""

    format: str
    architecture: str
    parameters: int = 0
    quantization: str = ""
    weights_bytes: int = 0
    files: int = 1
    """Parts of a split model, by its own account."""
    layers: int = 0
    embedding_length: int = 0
    feed_forward_length: int = 0
    heads: int = 0
    kv_heads: int = 0
    """Of the layer that has most."""
    head_size: int = 0
    context_length: int = 0
    vocabulary_size: int = 0
    experts: int = 0
    experts_used: int = 0
    sliding_window: int = 0
    chat_template: bool = False
    tools: bool = False
    """Whether the chat template has a place for tools."""
    name: str = ""
    license: str = ""
    kv_cache: tuple[KvLayers, ...] = ()
    pooling: str = ""
    """How an embedding is made of a text's tokens, where a GGUF file says it; none where it says that nothing is."""
    recurrent_bytes: int = 0
    """State that one sequence keeps whatever its length (Mamba, gated delta nets)."""

    def to_json(self) -> dict[str, Any]:
        """For the progress file; camelCase, as in status.model."""
        values = dataclasses.asdict(self)
        return {
            _camel(key): [{_camel(k): v for k, v in layer.items()} for layer in value] if key == "kv_cache" else value
            for key, value in values.items()
        }


def group_layers(layers: Iterable[KvLayers]) -> tuple[KvLayers, ...]:
    """Equal layers counted together; layers that remember nothing are left out."""
    kept = sorted(
        (layer for layer in layers if layer.key_width or layer.value_width),
        key=lambda layer: (layer.window, layer.key_width, layer.value_width),
    )
    groups = tuple(
        KvLayers(sum(layer.layers for layer in group), *key)
        for key, group in groupby(kept, key=lambda layer: (layer.key_width, layer.value_width, layer.window))
    )
    if len(groups) <= MAX_KV_GROUPS:
        return groups
    # No real model is so irregular; what it takes at most is enough to know.
    widest = max(group.key_width for group in groups), max(group.value_width for group in groups)
    return (KvLayers(sum(group.layers for group in groups), *widest),)


def shown_text(value: object) -> str:
    """A text out of a file, fit to be shown: one line, short."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value[: 4 * MAX_TEXT]).split())[:MAX_TEXT]


def handles_tools(template: str) -> bool:
    """Whether a Jinja chat template looks at the tools of a request; without, the model never hears of them."""
    return "tools" in template or "tool_calls" in template


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
