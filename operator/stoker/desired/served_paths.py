"""What a model serves: the paths that its gateway opens, by engine and task.

An engine may answer more; what administers it, or is somebody else's business, is never listed here. LlamaCpp: asked of the pinned
build; the others: their documentation.
"""

from __future__ import annotations

from collections.abc import Mapping

_CHAT = ("/v1/chat/completions", "/v1/completions")
_RESPONSES = ("/v1/responses",)
_MESSAGES = ("/v1/messages",)
_COUNT = ("/v1/messages/count_tokens",)
_TOKENS = ("/tokenize", "/detokenize")
_OLLAMA = ("/api/chat", "/api/generate")
_LISTEN = ("/v1/audio/transcriptions",)
_TRANSLATE = ("/v1/audio/translations",)

BASIC_PATHS: Mapping[str, tuple[str, ...]] = {
    "Chat": _CHAT,
    "Completion": ("/v1/completions",),
    "Embedding": ("/v1/embeddings",),
    "Rerank": ("/v1/rerank",),
    "Transcription": _LISTEN,
    "Speech": ("/v1/audio/speech",),
    "Image": ("/v1/images/generations",),
}
"""What every engine with the task serves."""

FURTHER_PATHS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "LlamaCpp": {
        "Chat": _RESPONSES + _MESSAGES + _COUNT + _TOKENS,
        "Completion": _TOKENS,
        "Embedding": _TOKENS,
        "Rerank": _TOKENS,
    },
    "VLLM": {
        "Chat": _RESPONSES + _MESSAGES + _COUNT + _TOKENS,
        "Completion": _TOKENS,
        "Embedding": _TOKENS,
        "Rerank": _TOKENS,
        "Transcription": _TRANSLATE,
    },
    "Aphrodite": {"Chat": _TOKENS, "Completion": _TOKENS, "Embedding": _TOKENS},
    "SGLang": {
        "Chat": _RESPONSES + _MESSAGES + _TOKENS,
        "Completion": _TOKENS,
        "Embedding": _TOKENS,
    },
    "Ollama": {"Chat": _RESPONSES + _MESSAGES + _OLLAMA, "Completion": _OLLAMA[1:]},
    "LocalAI": {"Chat": _RESPONSES + _MESSAGES},
    "LMStudio": {"Chat": _RESPONSES + _MESSAGES},
}
"""What some serve beside it. An engine that Stoker does not know opens the basic paths only."""


def served_paths(engine_type: str, task: str) -> list[str]:
    """Paths that a gateway opens for a model; an unknown engine opens the basic ones."""
    return [*BASIC_PATHS[task], *FURTHER_PATHS.get(engine_type, {}).get(task, ())]
