"""Whether an engine's answer means: the model is loaded."""

from __future__ import annotations

import json

from stoker.agent.config import AgentConfig


def is_loaded(config: AgentConfig, status: int, body: bytes) -> bool:
    """The status decides; for engines that answer 200 without a model, the JSON body, too."""
    if status != 200:
        return False
    if not config.ready_key:
        return True
    try:
        answer = json.loads(body)
    except ValueError:
        # Some servers answer unknown paths with a friendly page.
        return False
    entries = answer.get(config.ready_items) if config.ready_items and isinstance(answer, dict) else [answer]
    return isinstance(entries, list) and any(_fits(config, entry) for entry in entries)


def _fits(config: AgentConfig, entry: object) -> bool:
    value = entry.get(config.ready_key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        return False
    return value in config.ready_equals if config.ready_equals else value not in config.ready_differs
