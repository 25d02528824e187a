"""A folder in Hugging Face's layout: config.json and the headers of its safetensors files, to the same facts.

Fields: https://huggingface.co/docs/transformers/main_classes/configuration, and the configuration classes of the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoker.models.facts import BadModelError, KvLayers, ModelFacts, group_layers, handles_tools, shown_text
from stoker.models.safetensors import SafetensorsHeader, read_json

MAX_CONFIG = 1 << 20
MAX_LAYERS = 4096
MAX_NUMBER = 1 << 40
_MAX_PARTS = 20_000
_ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "nomic_bert", "mpnet", "new"})
_GIVEN_NAMES = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}
# Architectures whose configuration names a window that all layers have, when nothing says otherwise.
_WINDOW_EVERYWHERE = frozenset({"mistral", "mixtral", "phi3", "starcoder2"})


def parse_config(text: bytes) -> dict[str, Any]:
    """config.json; BadModelError when it is none."""
    if len(text) > MAX_CONFIG:
        raise BadModelError(f"its config.json is longer than {MAX_CONFIG >> 20} MiB")
    return read_json(text, _MAX_PARTS)


def facts_of(config: Mapping[str, Any], files: Sequence[SafetensorsHeader], chat_template: str = "") -> ModelFacts:
    """The facts; models that also see or hear describe their text part inside."""
    return _Reader(config, files).facts(chat_template)


class _Reader:
    def __init__(self, config: Mapping[str, Any], files: Sequence[SafetensorsHeader]) -> None:
        nested = config.get("text_config")
        self._outer = config
        self._config: Mapping[str, Any] = {**config, **nested} if isinstance(nested, dict) else config
        self._files = files
        self._architecture = shown_text(config.get("model_type"))
        if not self._architecture:
            raise BadModelError("its config.json names no model_type")
        self._layers = self._number("num_hidden_layers", "n_layer", "num_layers", "n_layers")
        if self._layers > MAX_LAYERS:
            raise BadModelError(f"it claims to have {self._layers} layers")

    def facts(self, template: str) -> ModelFacts:
        heads = self._number("num_attention_heads", "n_head", "n_heads")
        experts_used = self._number("num_experts_per_tok", "moe_topk")
        hidden = self._number("hidden_size", "n_embd", "d_model")
        head_size = self._number("head_dim") or (hidden // heads if heads else 0)
        kv_heads = self._number("num_key_value_heads") or (1 if self._config.get("multi_query") is True else heads)
        expert_width = self._number("moe_intermediate_size") * experts_used
        return ModelFacts(
            format="Safetensors",
            architecture=self._architecture,
            parameters=self._parameters(),
            quantization=self._quantization(),
            weights_bytes=sum(file.weights_bytes for file in self._files),
            files=max(1, len(self._files)),
            layers=self._layers,
            embedding_length=hidden,
            feed_forward_length=max(self._number("intermediate_size", "n_inner", "ffn_dim"), expert_width),
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            context_length=self._number("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
            vocabulary_size=self._number("vocab_size"),
            experts=self._number("num_local_experts", "num_experts", "n_routed_experts"),
            experts_used=experts_used,
            sliding_window=self._window(),
            chat_template=bool(template),
            tools=handles_tools(template),
            name=shown_text(self._outer.get("_name_or_path")),
            kv_cache=self._kv_cache(kv_heads * head_size),
        )

    def _kv_cache(self, width: int) -> tuple[KvLayers, ...]:
        if self._architecture in _ENCODERS:
            return ()
        latent = self._number("kv_lora_rank")
        if latent:
            return group_layers([KvLayers(self._layers, latent + self._number("qk_rope_head_dim"), 0)])
        kinds = self._config.get("layer_types")
        window = self._window()
        layers = []
        for layer in range(self._layers):
            kind = kinds[layer] if isinstance(kinds, list) and layer < len(kinds) else ""
            if kind in ("linear_attention", "conv", "mamba"):
                continue
            windowed = kind == "sliding_attention" if kind else self._architecture in _WINDOW_EVERYWHERE
            layers.append(KvLayers(1, width, width, window if windowed else 0))
        return group_layers(layers)

    def _window(self) -> int:
        return 0 if self._config.get("use_sliding_window") is False else self._number("sliding_window")

    def _quantization(self) -> str:
        stated = self._outer.get("quantization_config") or self._config.get("quantization_config")
        if isinstance(stated, dict):
            method = shown_text(stated.get("quant_method")).upper()
            bits = stated.get("bits", stated.get("w_bit"))
            return f"{method}-{bits}bit" if type(bits) is int and 0 < bits <= 32 else method
        weights: dict[str, int] = {}
        for file in self._files:
            for name, size in file.bytes_by_type.items():
                weights[name] = weights.get(name, 0) + size
        if weights:
            return max(weights, key=lambda name: (weights[name], name))
        kind = shown_text(self._config.get("torch_dtype") or self._config.get("dtype"))
        return _GIVEN_NAMES.get(f"torch.{kind.removeprefix('torch.')}", kind)

    def _parameters(self) -> int:
        """Elements of all tensors; of packed ones, as many as lie in a word."""
        packed = 1
        stated = self._outer.get("quantization_config")
        if isinstance(stated, dict) and type(stated.get("bits")) is int and stated["bits"] in (2, 4, 8):
            packed = 32 // stated["bits"]
        return sum(
            count * (packed if kind in ("I32", "U32") else 1)
            for file in self._files
            for kind, count in file.elements_by_type.items()
        )

    def _number(self, *keys: str) -> int:
        """Under the first of several names that is there; null is as good as absent, of one for each layer the largest counts."""
        for key in keys:
            value = self._config.get(key)
            if isinstance(value, list) and value and all(type(entry) is int for entry in value):
                value = max(value)
            if value is None:
                continue
            if type(value) is not int or not 0 <= value <= MAX_NUMBER:
                raise BadModelError(f"{key} is {str(value)[:40]}")
            return value
        return 0
