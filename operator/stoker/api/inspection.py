"""What the headers of a model's files say, and whether it fits, as they stand in status."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stoker.api.base import StatusModel

Count = Annotated[int, Field(ge=0, le=1 << 53)]
Text = Annotated[str, Field(max_length=128)]


class KvCacheStatus(StatusModel):
    """Layers that remember a token alike."""

    layers: Count = 0
    """How many."""
    key_width: Count = 0
    """Elements of one token's keys in one layer."""
    value_width: Count = 0
    """Elements of one token's values in one layer."""
    window: Count = 0
    """Tokens that are remembered; 0: the whole context."""


class ModelStatus(StatusModel):
    """What the model's own files say. Numbers are 0 and texts empty where they do not tell."""

    source: Text = ""
    """Digest of the source that was looked at."""
    format: Text = ""
    """GGUF, or Safetensors for everything in Hugging Face's layout."""
    architecture: Text = ""
    """Such as llama, qwen3 or gemma3."""
    parameters: Count = 0
    """Number of weights."""
    quantization: Text = ""
    """Such as Q4_K_M or F16."""
    weights_bytes: Count = 0
    """Bytes of all tensors."""
    files: Count = 1
    """Parts of a split model."""
    layers: Count = 0
    """Number of layers."""
    embedding_length: Count = 0
    """Width of the model."""
    feed_forward_length: Count = 0
    """Width of the feed-forward part; of a mixture of experts, of all experts that are used for a token."""
    heads: Count = 0
    """Attention heads of a layer."""
    kv_heads: Count = 0
    """Heads of a layer that keep keys and values."""
    head_size: Count = 0
    """Width of a head."""
    context_length: Count = 0
    """Tokens of context the model was trained with."""
    vocabulary_size: Count = 0
    """Number of different tokens."""
    experts: Count = 0
    """Experts of a layer; 0 for a dense model."""
    experts_used: Count = 0
    """Experts that are used for a token."""
    sliding_window: Count = 0
    """Tokens that windowed layers look back."""
    chat_template: bool = False
    """Whether the model brings a chat template along."""
    tools: bool = False
    """Whether that template has a place for tools."""
    name: Text = ""
    """How its makers call it."""
    license: Text = ""
    """The licence, as its makers write it."""
    kv_cache: Annotated[list[KvCacheStatus], Field(max_length=16)] = []
    """What is kept of every token of context."""
    pooling: Text = ""
    """How an embedding is made of a text's tokens: mean, cls, last, rank; none or empty where the file says nothing."""
    recurrent_bytes: Count = 0
    """State that one request keeps whatever its length."""


class FitStatus(StatusModel):
    """Memory that one replica takes, and what there is."""

    required_bytes: int = 0
    """Weights, cache and overhead together."""
    available_bytes: int | None = None
    """Memory of one device times gpus, by accelerator.memory or the labels of nodes; on the CPU the memory limit of the engine's container, or the node's memory. Absent when nobody says it."""
    weights_bytes: int = 0
    """The model itself."""
    kv_bytes: int = 0
    """Cache of keys and values for the whole context of all slots."""
    overhead_bytes: int = 0
    """Activations, buffers, the program and what its device needs."""
    context_length: int = 0
    """Tokens of context this is computed for."""
    slots: int = 0
    """Requests at a time this is computed for."""
