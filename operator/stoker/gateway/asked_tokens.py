"""Tokens, as a request's body tells of them: how many it brings, how many it wants, and what has to be added to it. Pure.

Nothing here is exact: what a request really took is in the engine's answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stoker.gateway import ollama
from stoker.gateway.openai_errors import ApiProblem, max_tokens_refused

OLLAMA_PATHS = (ollama.CHAT_PATH, ollama.GENERATE_PATH)
CHARACTERS_PER_TOKEN = 4
"""Of English text in the vocabularies of today; of other languages bytes are nearer than characters."""
IMAGE_TOKENS = 500
MAX_TOKENS_FIELD: Mapping[str, str] = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
    **dict.fromkeys(OLLAMA_PATHS, f"options.{ollama.LIMIT}"),
}
"""Where a path says how many tokens it wants at most. Paths that generate no text are not here."""
SAME_AS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "max_new_tokens")
"""Names by which one engine or another takes that number; n_predict is llama.cpp's, and goes before max_tokens there."""
STREAM_OPTIONS_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Whose streams tell usage only to those who ask."""


PROMPT_FIELDS = (
    "messages",
    "prompt",
    "input",
    "system",
    "instructions",
    "tools",
    "suffix",
    "query",
    "documents",
    "texts",
)


def estimate_prompt(document: Mapping[str, Any]) -> int:
    """About how many tokens the request brings."""
    return sum(_estimate(document[name]) for name in PROMPT_FIELDS if name in document)


def check_max_tokens(document: Mapping[str, Any], path: str, limit: int) -> ApiProblem | None:
    """Why the request asks for too many tokens; None when it does not, or does not say."""
    if path not in MAX_TOKENS_FIELD:
        return None
    if path in OLLAMA_PATHS:
        return ollama.check_limit(document, limit)
    answers = _answers(document)
    for name in document:
        # Engines in Go take a member for another one that is written differently.
        if name not in SAME_AS and name.casefold() in SAME_AS:
            return max_tokens_refused(name, document[name], limit, answers)
    for name in SAME_AS:
        value = document.get(name)
        if value is None:
            continue
        # To some engines nothing and less than nothing mean: without end.
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or value * answers > limit:
            return max_tokens_refused(name, value, limit, answers)
    return max_tokens_refused(MAX_TOKENS_FIELD[path], None, limit, answers) if answers > limit else None


def additions(document: Mapping[str, Any], path: str, max_tokens: int) -> str:
    """Members to put at the end of the request's object, as JSON without braces; of two members with one name the last counts."""
    more: dict[str, object] = {}
    if document.get("stream") is True and path in STREAM_OPTIONS_PATHS and not wants_usage(document):
        options = document.get("stream_options")
        more["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    if path in OLLAMA_PATHS:
        more |= ollama.more_members(document, max_tokens)
    elif max_tokens and path in MAX_TOKENS_FIELD and all(document.get(name) is None for name in SAME_AS):
        more[MAX_TOKENS_FIELD[path]] = max_tokens // _answers(document)
    return json.dumps(more, separators=(",", ":"))[1:-1] if more else ""


def wants_usage(document: Mapping[str, Any]) -> bool:
    """Whether a stream asks for the chunk that tells usage."""
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _answers(document: Mapping[str, Any]) -> int:
    """Answers to one prompt."""
    numbers = [document.get(name) for name in ("n", "best_of")]
    return max((n for n in numbers if isinstance(n, int) and not isinstance(n, bool)), default=1) or 1


def _estimate(value: Any) -> int:
    """Tokens of a part of the body; parts may be nested as deep as JSON was let in."""
    if isinstance(value, str):
        if value.startswith("data:"):
            return IMAGE_TOKENS
        size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        return -(-size // CHARACTERS_PER_TOKEN)
    if isinstance(value, dict):
        return sum(_estimate_member(name, part) for name, part in value.items())
    if isinstance(value, list):
        return sum(1 if type(part) is int else _estimate(part) for part in value)
    return 0


def _estimate_member(name: str, part: Any) -> int:
    # Sound and pictures in base64: their size says nothing of their tokens.
    if name == "data" and isinstance(part, str):
        return IMAGE_TOKENS
    if name == "images" and isinstance(part, list):
        return IMAGE_TOKENS * len(part)
    return _estimate(part)
