"""How much memory a model takes on an engine, and what would fit instead.

The rules of llama.cpp were compared with what its server prints (tests/unit/models/test_fit.py holds the table and the
command); those of the paged engines follow their documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from stoker.models.facts import KvLayers, ModelFacts
from stoker.models.gguf import TENSOR_TYPES

KV_TYPES: dict[str, tuple[int, int]] = {
    name.lower(): (block, size)
    for name, block, size in TENSOR_TYPES.values()
    if name in ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
} | {"fp8": (1, 1)}
"""Elements in a block and bytes of a block, by the engines' names."""

MINIMUM_CONTEXT = 1024
"""A shorter context is not chosen for anybody: a chat with its history would be cut at once."""
_STEP = 256
"""llama.cpp rounds a context up to this."""
_MIB = 1 << 20


@dataclass(frozen=True)
class MemoryProfile:
    """What an engine takes beside weights and cache."""

    base_bytes: int
    """The program itself, on the CPU."""
    device_bytes: int
    """On each device: its driver's context and the program's kernels."""
    paged: bool = False
    """The cache is cut into pages for all requests together: one full-length request has to fit, not one for each slot."""
    usable_percent: int = 100
    """Share of a device that the engine lets itself use."""
    batch_tokens: int = 512
    """Tokens that are computed at a time."""
    chooses_context: bool = False
    """Where nobody says how long a context is, the engine measures what is left and takes the largest that fits."""


_LLAMA_CPP = MemoryProfile(base_bytes=32 * _MIB, device_bytes=600 * _MIB)
_PAGED = MemoryProfile(
    base_bytes=1024 * _MIB, device_bytes=1024 * _MIB, paged=True, usable_percent=92, batch_tokens=2048
)
# 1.3 and 1.7 GiB were seen in its four processes on a CPU, beside weights and cache (tests/e2e/test_vllm.py).
_VLLM = replace(_PAGED, chooses_context=True, base_bytes=1792 * _MIB)
PROFILES = {
    "LlamaCpp": _LLAMA_CPP,
    # A llama-server below a small server of its own.
    "Ollama": replace(_LLAMA_CPP, base_bytes=96 * _MIB),
    "LMStudio": replace(_LLAMA_CPP, base_bytes=512 * _MIB),
    "VLLM": _VLLM,
    "Aphrodite": _VLLM,
    "SGLang": _PAGED,
    # PyTorch and its kernels; ExLlamaV3 keeps the cache that it is told, for all requests together.
    "TabbyAPI": MemoryProfile(base_bytes=1024 * _MIB, device_bytes=1024 * _MIB, batch_tokens=2048),
}
"""What vLLM's family and TabbyAPI take on devices are estimates on the safe side, not measured."""


@dataclass(frozen=True)
class FitRequest:
    """How a model is to be run, as far as memory depends on it."""

    engine: str
    slots: int
    context_length: int | None = None
    """Tokens of one request; None: what the model was trained with."""
    shared: bool = False
    """One cache of that length for all slots together: each may use all of it, none is promised it."""
    key_type: str = "f16"
    value_type: str = "f16"
    devices: int = 0
    """0: the CPU."""
    available_bytes: int | None = None
    """Memory of all devices, or the container's limit; None: nobody has told."""
    reserved_bytes: int = 0
    """Kept by the engine for something else, such as finished prompts."""
    embedding: bool = False
    usable_percent: int | None = None
    """Share of a device that the engine was told to use; None: its own."""
    cache_bytes: int = 0
    """Size of a cache that is fixed, whatever the context (vLLM on the CPU); 0: as large as it has to be."""
    weights_percent: int = 100
    """What is left of the weights where they are made smaller while they are loaded."""

    def to_json(self) -> dict[str, Any]:
        """For the downloader, without what is as usual."""
        order = {
            "engine": self.engine,
            "slots": self.slots,
            "contextLength": self.context_length,
            "shared": self.shared or None,
            "keyType": self.key_type if self.key_type != "f16" else None,
            "valueType": self.value_type if self.value_type != "f16" else None,
            "devices": self.devices or None,
            "availableBytes": self.available_bytes,
            "reservedBytes": self.reserved_bytes or None,
            "embedding": self.embedding or None,
            "usablePercent": self.usable_percent,
            "cacheBytes": self.cache_bytes or None,
            "weightsPercent": self.weights_percent if self.weights_percent != 100 else None,
        }
        return {key: value for key, value in order.items() if value is not None}


def parse_fit_request(order: dict[str, Any]) -> FitRequest:
    """What `to_json` wrote; TypeError or ValueError for anything else."""
    known = {
        "engine": str(order["engine"]),
        "slots": int(order["slots"]),
        "key_type": str(order.get("keyType", "f16")),
        "value_type": str(order.get("valueType", "f16")),
        "devices": int(order.get("devices", 0)),
        "reserved_bytes": int(order.get("reservedBytes", 0)),
        "shared": bool(order.get("shared", False)),
        "embedding": bool(order.get("embedding", False)),
        "cache_bytes": int(order.get("cacheBytes", 0)),
        "weights_percent": int(order.get("weightsPercent", 100)),
    }
    context, available, usable = order.get("contextLength"), order.get("availableBytes"), order.get("usablePercent")
    return FitRequest(
        context_length=None if context is None else int(context),
        available_bytes=None if available is None else int(available),
        usable_percent=None if usable is None else int(usable),
        **known,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class Fit:
    """The bill, and whether it can be paid."""

    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    context_length: int
    """Tokens of one request that the bill is for."""
    slots: int
    shared: bool = False
    paged: bool = False
    available_bytes: int | None = None
    largest_context: int = 0
    """The largest context of one request that fits with these slots; 0 when none does, or nobody knows the memory."""
    largest_slots: int = 0
    """The most slots that fit with this context; 0 when not even one does."""
    short_bytes: int = 0
    """By how much a cache of fixed size is too small for one request."""

    @property
    def required_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes

    @property
    def fits(self) -> bool | None:
        """None: nobody has told how much memory there is."""
        if self.short_bytes:
            return False
        return None if self.available_bytes is None else self.required_bytes <= self.available_bytes


def compute_fit(facts: ModelFacts, request: FitRequest) -> Fit:
    """Weights, cache and overhead of one replica; where it does not fit, also what would."""
    fit = _bill(facts, request)
    if fit.fits is False and request.context_length is None and _profile(request).chooses_context:
        length = largest_context(facts, request)
        if length:
            return _bill(facts, replace(request, context_length=length))
    if fit.fits is not False:
        return fit
    return replace(fit, largest_context=largest_context(facts, request), largest_slots=_largest_slots(facts, request))


def explain_misfit(fit: Fit) -> str:
    """What is missing, and the numbers that would do."""
    slots = f"{fit.context_length} tokens shared by {fit.slots} requests"
    if not fit.shared:
        slots = f"{fit.slots} x {fit.context_length} tokens"
    if fit.short_bytes:
        slots = f"{fit.context_length} tokens, {_gib(fit.short_bytes)} too little,"
    elif fit.paged:
        slots = f"one request of {fit.context_length} tokens"
    bill = (
        f"it needs {_gib(fit.required_bytes)} (weights {_gib(fit.weights_bytes)}, cache for {slots} {_gib(fit.kv_bytes)}, "
        f"overhead {_gib(fit.overhead_bytes)}), and there are {_gib(fit.available_bytes or 0)}"
    )
    steps = []
    if fit.largest_context:
        steps.append(f"set spec.contextLength to at most {fit.largest_context}")
    if fit.largest_slots and not fit.shared and not fit.paged and not fit.short_bytes:
        steps.append(f"set spec.maxConcurrentRequests to at most {fit.largest_slots}")
    steps.append("give it more memory" if steps else "give it more memory, or take a smaller quantization or model")
    return f"{bill}: {', or '.join(steps)}"


def kv_bytes(facts: ModelFacts, request: FitRequest) -> int:
    """Bytes of the cache of keys and values, and of recurrent state."""
    profile = _profile(request)
    context = request.context_length or facts.context_length
    if profile.paged:
        tokens = sum(
            _row_bytes(layer, request) * layer.layers * min(context, layer.window or context)
            for layer in facts.kv_cache
        )
        return tokens + facts.recurrent_bytes * request.slots
    caches = 1 if request.shared else request.slots
    cells = _padded(context)
    total = sum(
        layer.layers * _held(layer.window, cells, request) * caches * _row_bytes(layer, request)
        for layer in facts.kv_cache
    )
    return total + facts.recurrent_bytes * request.slots


def _bill(facts: ModelFacts, request: FitRequest) -> Fit:
    available, profile = request.available_bytes, _profile(request)
    if available is not None and request.devices:
        available = available * (request.usable_percent or profile.usable_percent) // 100
    cache = kv_bytes(facts, request)
    return Fit(
        weights_bytes=facts.weights_bytes * request.weights_percent // 100,
        kv_bytes=request.cache_bytes or cache,
        short_bytes=max(0, cache - request.cache_bytes) if request.cache_bytes else 0,
        paged=profile.paged,
        overhead_bytes=_overhead(facts, request),
        context_length=request.context_length or facts.context_length,
        slots=request.slots,
        shared=request.shared,
        available_bytes=available,
    )


def _overhead(facts: ModelFacts, request: FitRequest) -> int:
    profile = _profile(request)
    fixed = profile.device_bytes * request.devices if request.devices else profile.base_bytes
    return fixed + request.reserved_bytes + compute_bytes(facts, request)


def compute_bytes(facts: ModelFacts, request: FitRequest) -> int:
    """Activations of one batch, an attention mask for each kind of layer, and the logits that are handed out."""
    context = request.context_length or facts.context_length
    batch = _profile(request).batch_tokens
    if request.embedding:
        # An input has to fit into one batch, and every token of it yields an output.
        batch = max(batch, min(context, request.context_length or 2048))
    activations = 4 * batch * (3 * facts.feed_forward_length + 5 * facts.embedding_length)
    windows = {layer.window for layer in facts.kv_cache}
    mask = sum(2 * batch * _held(window, _padded(context), request) for window in windows)
    outputs = batch if request.embedding and facts.kv_cache else request.slots
    return activations + mask + 4 * outputs * facts.vocabulary_size


def largest_context(facts: ModelFacts, request: FitRequest) -> int:
    """The largest context of one request that fits, each slot with a cache of its own; 0 when none is worth having."""
    # By halving: more context never takes less memory.
    most = facts.context_length or request.context_length or 0
    few, many = 0, most // _STEP
    while few < many:
        middle = (few + many + 1) // 2
        if _bill(facts, replace(request, context_length=middle * _STEP, shared=False)).fits is False:
            many = middle - 1
        else:
            few = middle
    found = few * _STEP
    return found if found >= min(MINIMUM_CONTEXT, most) else 0


def _largest_slots(facts: ModelFacts, request: FitRequest) -> int:
    few, many = 0, request.slots
    while few < many:
        middle = (few + many + 1) // 2
        if _bill(facts, replace(request, slots=middle)).fits is False:
            many = middle - 1
        else:
            few = middle
    return few


def _held(window: int, cells: int, request: FitRequest) -> int:
    """Tokens that a layer keeps of a sequence: with a window that and one batch, of all slots where they share it."""
    if not window:
        return cells
    return min(cells, _padded(window * (request.slots if request.shared else 1) + _profile(request).batch_tokens))


def _row_bytes(layer: KvLayers, request: FitRequest) -> int:
    """One token in one layer."""
    return _width_bytes(layer.key_width, request.key_type) + _width_bytes(layer.value_width, request.value_type)


def _width_bytes(width: int, kind: str) -> int:
    block, size = KV_TYPES.get(kind, KV_TYPES["f16"])
    return -(-width // block) * size


def _profile(request: FitRequest) -> MemoryProfile:
    return PROFILES.get(request.engine, _LLAMA_CPP)


def _padded(tokens: int) -> int:
    return -(-tokens // _STEP) * _STEP


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 10 * 2**30 else f"{size / 2**30:.2f} GiB"
