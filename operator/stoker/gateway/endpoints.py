"""The paths that can be let through to an engine: the whole allow-list. Which of them a model serves comes with its route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["openai", "anthropic", "ollama"]
"""Whose words errors are in."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path; all are called with POST."""

    needs: str
    """What serves it, for the caller who has no such model."""
    multipart: bool = False
    """The body is a form; its part `model` routes."""
    dialect: Dialect = "openai"
    """Of errors; to Anthropic's paths the key may come in x-api-key."""


_CHAT = "a model with task Chat"
_TOKENS = "a model on an engine that counts tokens for others, such as LlamaCpp or VLLM"
_SPEECH_TO_TEXT = "a speech-to-text model"
_OLLAMA = "a model with task Chat on an engine that speaks Ollama's own API"
_MESSAGES = "a model with task Chat on an engine that speaks Anthropic's API, such as LlamaCpp or VLLM"

ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint(_CHAT),
    "/v1/completions": Endpoint("a model with task Chat or Completion"),
    "/v1/embeddings": Endpoint("a model with task Embedding"),
    "/v1/responses": Endpoint(_CHAT + " on an engine that speaks the Responses API, such as LlamaCpp or VLLM"),
    "/v1/rerank": Endpoint("a reranking model"),
    "/v1/audio/transcriptions": Endpoint(_SPEECH_TO_TEXT, multipart=True),
    "/v1/audio/translations": Endpoint(_SPEECH_TO_TEXT, multipart=True),
    "/v1/audio/speech": Endpoint("a text-to-speech model"),
    "/v1/images/generations": Endpoint("a model that makes images"),
    "/v1/messages": Endpoint(_MESSAGES, dialect="anthropic"),
    "/v1/messages/count_tokens": Endpoint(_MESSAGES, dialect="anthropic"),
    "/tokenize": Endpoint(_TOKENS),
    "/detokenize": Endpoint(_TOKENS),
    "/api/chat": Endpoint(_OLLAMA, dialect="ollama"),
    "/api/generate": Endpoint(_OLLAMA, dialect="ollama"),
}
"""Paths are compared as they came: nothing is normalized, so a path with a trick in it is simply not one of these, and the engine
sees exactly the path that was allowed."""

PATHS_BY_TASK: Mapping[str, frozenset[str]] = {
    "Chat": frozenset({"/v1/chat/completions", "/v1/completions"}),
    "Completion": frozenset({"/v1/completions"}),
    "Embedding": frozenset({"/v1/embeddings"}),
    "Rerank": frozenset({"/v1/rerank"}),
}
"""Of a model whose route does not say what it serves: an operator of an earlier version wrote it."""

EVENT_STREAMS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
"""Streamed answers are server-sent events here."""

CONVERSATIONS = EVENT_STREAMS | {"/api/chat", "/api/generate"}
"""Requests here begin with what an engine may remember from the last one."""

MOST_TRIES = 4
"""Replicas that one request may be sent to, one after the other, as long as none has begun to answer."""

ANTHROPIC_PREFIX = "/v1/messages"
OLLAMA_PREFIX = "/api/"


def dialect_of(path: str) -> Dialect:
    """Whose words errors on this path are in."""
    endpoint = ENDPOINTS.get(path)
    return endpoint.dialect if endpoint is not None else "openai"
