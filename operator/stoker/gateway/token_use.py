"""Tokens of a request that has ended, from its line in the access log: what the engine counted, or else an estimate that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stoker.gateway.asked_tokens import CHARACTERS_PER_TOKEN, MAX_TOKENS_FIELD
from stoker.gateway.usage_filter import FIELDS

WEIGHT = 0.1
"""Of a new observation against what was known."""
STREAM_BYTES_PER_TOKEN = 240.0
"""Of a chat's chunk with one token (llama.cpp and vLLM: 180 to 300), until a model's own is known."""
MOST_MODELS = 1000
LATE_COUNT = "/v1/messages"
"""Its streams tell the prompt first and the rest at their end, so what a broken one has told is not all."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """What a request took."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    """Part of prompt."""
    reasoning: int = 0
    """Part of completion."""
    estimated: bool = False
    """The engine's count is not known: the client left, or the engine tells none."""

    @property
    def total(self) -> int:
        """What counts against a limit."""
        return self.prompt + self.completion


@dataclass(slots=True)
class _Rates:
    bytes_per_token: float = STREAM_BYTES_PER_TOKEN
    ms_per_token: float = 0.0
    bytes_in_per_token: float = float(CHARACTERS_PER_TOKEN)


class TokenCounter:
    """Reads lines one after the other; from the complete ones it learns how to estimate the others."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], _Rates] = {}

    def read(self, line: Mapping[str, Any]) -> TokenUse:
        """The tokens of one line."""
        prompt, completion, cached, reasoning = (_number(line, name) for name in FIELDS)
        told = TokenUse(prompt, completion, cached, reasoning)
        path = str(line.get("path", ""))
        rates = self._of(str(line.get("cluster", "")), path)
        whole = line.get("flags", "-") == "-"
        stream = str(line.get("type", "")).startswith(("text/event-stream", "application/x-ndjson"))
        if whole and told.total:
            self._learn(rates, line, told, stream=stream)
        missing = not told.total or (not whole and path == LATE_COUNT)
        if not missing or path not in MAX_TOKENS_FIELD or line.get("code") not in (0, 200):
            return told
        prompt = prompt or round(_number(line, "bytes_in") / rates.bytes_in_per_token)
        if stream:
            guessed = round(_number(line, "bytes_out") / rates.bytes_per_token)
        else:
            guessed = round(_number(line, "ms") / rates.ms_per_token) if rates.ms_per_token else 0
        return TokenUse(prompt, max(completion, guessed), cached, reasoning, estimated=True)

    def _of(self, cluster: str, path: str) -> _Rates:
        rates = self._rates.get((cluster, path))
        if rates is None:
            if len(self._rates) >= MOST_MODELS:
                self._rates.clear()
            rates = self._rates[cluster, path] = _Rates()
        return rates

    def _learn(self, rates: _Rates, line: Mapping[str, Any], use: TokenUse, *, stream: bool) -> None:
        if use.prompt:
            rates.bytes_in_per_token = _mix(rates.bytes_in_per_token, _number(line, "bytes_in") / use.prompt)
        if use.completion:
            spent = _number(line, "ms") / use.completion
            rates.ms_per_token = _mix(rates.ms_per_token or spent, spent)
            if stream:
                rates.bytes_per_token = _mix(rates.bytes_per_token, _number(line, "bytes_out") / use.completion)


def _mix(known: float, seen: float) -> float:
    return max(0.01, known + WEIGHT * (seen - known))


def _number(line: Mapping[str, Any], name: str) -> int:
    value = line.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0
