"""Tokens, as a request's body tells of them: how many it brings, how many it wants, and what has to be added to it. Pure.

Nothing here is exact: what a request really took is in the engine's answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from stoker.gateway import ollama
from stoker.gateway.openai_errors import ApiProblem, bad_body, max_tokens_refused, not_a_count

COMPLETIONS_PATH = "/v1/completions"
OLLAMA_PATHS = (ollama.CHAT_PATH, ollama.GENERATE_PATH)
CHARACTERS_PER_TOKEN = 4
"""Of English text in the vocabularies of today; of other languages bytes are nearer than characters."""
IMAGE_TOKENS = 500
MAX_TOKENS_FIELD: Mapping[str, str] = {
    "/v1/chat/completions": "max_tokens",
    COMPLETIONS_PATH: "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
    **dict.fromkeys(OLLAMA_PATHS, f"options.{ollama.LIMIT}"),
}
"""Where a path says how many tokens it wants at most. Paths that generate no text are not here."""
SAME_AS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "max_new_tokens", "max_length")
"""Names by which one engine or another takes that number; n_predict is llama.cpp's, and goes before max_tokens there; max_length is
TabbyAPI's."""
WITHOUT_END = "auto_max_new_tokens"
"""With it text-generation-webui looks at none of these."""
ANSWERS = ("n", "best_of", "n_cmpl")
"""How many answers a prompt shall have; n_cmpl is llama.cpp's, and goes before n there."""
READ_HERE = frozenset((*SAME_AS, *ANSWERS, WITHOUT_END))
LONGEST_ADDITION = 16 << 10
"""It travels in a header, of which Envoy takes 60 KiB with all others."""
STREAM_OPTIONS_PATHS = frozenset({"/v1/chat/completions", COMPLETIONS_PATH})
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
    for name in document:
        # Engines in Go take a member for another one that is written differently.
        if name not in READ_HERE and name.casefold() in READ_HERE:
            return max_tokens_refused(name, document[name], limit, 1)
    for name in ANSWERS:
        # Some engines take "8" and 8.0 for 8, and less than nothing would make the limit that is added one without end.
        if not _is_count(value := document.get(name)) and value is not None:
            return not_a_count(name)
    if document.get(WITHOUT_END):
        return max_tokens_refused(WITHOUT_END, document[WITHOUT_END], limit, 1)
    answers = _answers(document, path)
    for name in SAME_AS:
        value = document.get(name)
        # To some engines nothing and less than nothing mean: without end.
        if value is not None and (not _is_count(value) or value * answers > limit):
            return max_tokens_refused(name, value, limit, answers)
    return max_tokens_refused(MAX_TOKENS_FIELD[path], None, limit, answers) if answers > limit else None


def additions(document: Mapping[str, Any], path: str, max_tokens: int) -> str | None:
    """Members to put at the end of the request's object, as JSON without braces; of two members with one name the last counts. None where
    what they take over from the request is too long for that."""
    more: dict[str, object] = {}
    if document.get("stream") is True and path in STREAM_OPTIONS_PATHS and not wants_usage(document):
        options = document.get("stream_options")
        more["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    if path in OLLAMA_PATHS:
        more |= ollama.more_members(document, max_tokens)
    elif max_tokens and path in MAX_TOKENS_FIELD and all(document.get(name) is None for name in SAME_AS):
        more[MAX_TOKENS_FIELD[path]] = max_tokens // _answers(document, path)
    if not more:
        return ""
    try:
        text = json.dumps(more, separators=(",", ":"))[1:-1]
    except RecursionError:
        return None
    return text if len(text) <= LONGEST_ADDITION else None


def too_long_to_add(path: str) -> ApiProblem:
    """What to say then."""
    name = "options" if path in OLLAMA_PATHS else "stream_options"
    return bad_body(f"`{name}` is too long or nested too deeply.", "invalid_body", name)


def wants_usage(document: Mapping[str, Any]) -> bool:
    """Whether a stream asks for the chunk that tells usage."""
    options = document.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _answers(document: Mapping[str, Any], path: str) -> int:
    """To all prompts together."""
    counts: list[int] = [n for name in ANSWERS if _is_count(n := document.get(name))]
    each = max(counts, default=1)
    prompts = document.get("prompt")
    # A list of numbers is one prompt, in tokens.
    if path != COMPLETIONS_PATH or not isinstance(prompts, list) or all(type(part) is int for part in prompts):
        return each
    return each * len(prompts)


def _estimate(value: Any) -> int:
    """Tokens of a part of the body, which may be nested as deep as the JSON that was let in: deeper than Python calls itself."""
    tokens, parts = 0, [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            tokens += _estimate_text(part)
        elif isinstance(part, dict):
            for name, member in part.items():
                # Sound and pictures in base64: their size says nothing of their tokens.
                if name == "data" and isinstance(member, str):
                    tokens += IMAGE_TOKENS
                elif name == "images" and isinstance(member, list):
                    tokens += IMAGE_TOKENS * len(member)
                else:
                    parts.append(member)
        elif isinstance(part, list):
            numbers = sum(type(one) is int for one in part)
            tokens += numbers
            if numbers < len(part):
                parts += part
    return tokens


def _estimate_text(text: str) -> int:
    if text.startswith("data:"):
        return IMAGE_TOKENS
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // CHARACTERS_PER_TOKEN)
