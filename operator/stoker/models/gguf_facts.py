"""From a GGUF header to the facts: which key means what, architecture by architecture.

Keys and defaults: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-arch.cpp and src/models/ beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from stoker.models.facts import BadModelError, KvLayers, ModelFacts, group_layers, handles_tools, shown_text
from stoker.models.gguf import GgufHeader

MAX_LAYERS = 4096
MAX_NUMBER = 1 << 40

_FILE_TYPES = (
    {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M"}
    | {13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS"}
    | {21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S"}
    | {29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4"}
    | {40: "Q1_0", 41: "Q2_0"}
)

# Every n-th layer sees the whole context, the others a window, where the file does not say which.
_FULL_ATTENTION_EVERY = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "cohere2": 4,
    "cohere2moe": 4,
    "exaone4": 4,
    "exaone-moe": 4,
    "olmo2": 4,
    "afmoe": 4,
    "smallthinker": 4,
    "plamo3": 8,
    "mellum": 4,
}
_WINDOWED_BY_LAYER = frozenset({"gemma4", "step35", "mimo2", "spark2-5", "granite-swa", "maple", "dots3note"})
_NO_CACHE = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "gemma-embedding"}
)
_ALL_RECURRENT = frozenset({"mamba", "mamba2"})
_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_LLAMA4_CHUNK = 8192
_GEMMA3N_KV_LAYERS = 20


def facts_of(parts: Sequence[GgufHeader]) -> ModelFacts:
    """The facts of a model; the first part of a split one carries the metadata."""
    return _Reader(parts).facts()


class _Reader:
    def __init__(self, parts: Sequence[GgufHeader]) -> None:
        self._parts = parts
        self._metadata = parts[0].metadata
        self._architecture = self._text("general.architecture")
        if not self._architecture:
            raise BadModelError("it names no architecture")
        self._layers = self._number("block_count")
        if self._layers > MAX_LAYERS:
            raise BadModelError(f"it claims to have {self._layers} layers")

    def facts(self) -> ModelFacts:
        template = self._text("tokenizer.chat_template")
        kv_heads = self._kv_heads()
        experts_used = self._number("expert_used_count")
        feed_forward = max(self._per_layer("feed_forward_length"), default=0)
        expert_width = max(self._per_layer("expert_feed_forward_length"), default=0) * experts_used
        return ModelFacts(
            format="GGUF",
            architecture=shown_text(self._architecture),
            parameters=sum(part.parameters for part in self._parts),
            quantization=self._quantization(),
            weights_bytes=sum(part.weights_bytes for part in self._parts),
            files=self._count("split.count") or 1,
            layers=self._layers,
            embedding_length=self._number("embedding_length"),
            feed_forward_length=max(feed_forward, expert_width, 2 * self._number("ssm.inner_size")),
            heads=max(self._per_layer("attention.head_count"), default=0),
            kv_heads=max(kv_heads, default=0),
            head_size=self._head_sizes()[0],
            context_length=self._number("context_length"),
            vocabulary_size=self._number("vocab_size") or self._parts[0].vocabulary_size,
            experts=self._number("expert_count"),
            experts_used=experts_used,
            sliding_window=self._window(),
            chat_template="tokenizer.chat_template" in self._metadata,
            tools=handles_tools(template),
            name=shown_text(self._text("general.name")),
            license=shown_text(self._text("general.license")),
            kv_cache=self._kv_cache(kv_heads),
            pooling=self._pooling(),
            recurrent_bytes=sum(self._recurrent_layers(kv_heads)) * self._state_bytes(),
        )

    def _pooling(self) -> str:
        kind = self._metadata.get(f"{self._architecture}.pooling_type")
        return _POOLING.get(kind, "") if isinstance(kind, int) else ""

    def _quantization(self) -> str:
        kind = self._metadata.get("general.file_type")
        named = _FILE_TYPES.get(kind) if isinstance(kind, int) else None
        if named:
            return named
        weights: dict[str, int] = {}
        for part in self._parts:
            for name, size in part.bytes_by_type.items():
                weights[name] = weights.get(name, 0) + size
        return max(weights, key=lambda name: (weights[name], name), default="")

    def _kv_heads(self) -> tuple[int, ...]:
        """Of each layer; a layer with none has a recurrent state instead, or nothing."""
        return self._per_layer("attention.head_count_kv") or self._per_layer("attention.head_count")

    def _head_sizes(self) -> tuple[int, int]:
        heads = max(self._per_layer("attention.head_count"), default=0)
        plain = self._number("embedding_length") // heads if heads else 0
        return self._number("attention.key_length") or plain, self._number("attention.value_length") or plain

    def _window(self) -> int:
        if self._architecture == "llama4":
            stated = self._metadata.get("llama4.attention.sliding_window")
            return 0 if stated == 0 else _LLAMA4_CHUNK
        if self._architecture in _FULL_ATTENTION_EVERY or self._architecture in _WINDOWED_BY_LAYER:
            return self._number("attention.sliding_window")
        # Others name a window that llama.cpp does not use (phi3, mistral): all of the context is kept.
        return 0

    def _kv_cache(self, kv_heads: tuple[int, ...]) -> tuple[KvLayers, ...]:
        if self._architecture in _NO_CACHE:
            return ()
        full_key, full_value = self._head_sizes()
        window_key = self._number("attention.key_length_swa") or full_key
        window_value = self._number("attention.value_length_swa") or full_value
        # MLA keeps one latent vector; values are a part of it. Files made before it was supported keep both.
        latent = self._number("attention.key_length_mla") > 0 and self._number("attention.value_length_mla") > 0
        window, recurrent = self._window(), self._recurrent_layers(kv_heads)
        windowed = self._windowed_layers() if window else (False,) * self._layers
        cached = []
        for layer in range(min(self._layers, self._cached_layers())):
            if layer < len(recurrent) and recurrent[layer] and not self._both():
                continue
            heads = kv_heads[layer] if layer < len(kv_heads) else 0
            key, value = (window_key, window_value) if windowed[layer] else (full_key, full_value)
            cached.append(KvLayers(1, heads * key, 0 if latent else heads * value, window if windowed[layer] else 0))
        return group_layers(cached)

    def _cached_layers(self) -> int:
        """Later layers of these architectures look into the cache of earlier ones."""
        if self._architecture == "gemma3n":
            return _GEMMA3N_KV_LAYERS
        return self._layers - min(self._layers, self._number("attention.shared_kv_layers"))

    def _windowed_layers(self) -> tuple[bool, ...]:
        pattern = self._metadata.get(f"{self._architecture}.attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            flags = tuple(bool(flag) for flag in pattern[: self._layers])
            return flags + (False,) * (self._layers - len(flags))
        every = self._number("attention.sliding_window_pattern") or _FULL_ATTENTION_EVERY.get(self._architecture, 0)
        if every == 0:
            return (False,) * self._layers
        dense_first = self._architecture in ("cohere2moe", "smallthinker")
        full = 0 if dense_first else every - 1
        return tuple(layer % every != full for layer in range(self._layers))

    def _recurrent_layers(self, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
        if not self._state_bytes():
            return ()
        if self._architecture in _ALL_RECURRENT or self._both():
            return (True,) * self._layers
        stated = self._metadata.get(f"{self._architecture}.attention.recurrent_layers")
        if isinstance(stated, tuple):
            return tuple(bool(flag) for flag in stated[: self._layers])
        if self._architecture.startswith("qwen3"):
            every = self._number("full_attention_interval") or 4
            return tuple((layer + 1) % every != 0 for layer in range(self._layers))
        return tuple(heads == 0 for heads in kv_heads)

    def _both(self) -> bool:
        """Layers that have attention and a state."""
        return self._architecture == "falcon-h1"

    def _state_bytes(self) -> int:
        """State of one recurrent layer for one sequence, in 32-bit floats."""
        convolution = self._number("shortconv.l_cache")
        if convolution:
            return 4 * self._number("embedding_length") * (convolution - 1)
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        kernel = self._number("ssm.conv_kernel")
        return 4 * (max(0, kernel - 1) * (inner + 2 * self._number("ssm.group_count") * state) + state * inner)

    def _per_layer(self, key: str) -> tuple[int, ...]:
        """One number for each layer, written once or as an array; empty when the file does not tell."""
        value = self._metadata.get(f"{self._architecture}.{key}")
        if isinstance(value, tuple):
            return tuple(self._checked(key, number) for number in value[: self._layers])
        return (self._checked(key, value),) * self._layers if value is not None else ()

    def _number(self, key: str) -> int:
        value = self._metadata.get(f"{self._architecture}.{key}", 0)
        return 0 if isinstance(value, tuple) else self._checked(key, value)

    def _count(self, key: str) -> int:
        return self._checked(key, self._metadata.get(key, 0))

    def _checked(self, key: str, value: object) -> int:
        if not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
            raise BadModelError(f"{key} is {value if isinstance(value, int | float) else 'no number'}")
        return int(value)

    def _text(self, key: str) -> str:
        value = self._metadata.get(key, "")
        return value if isinstance(value, str) else ""
