"""Patterns for the names of models, as keys and roles have them: one reading for the gateway, which decides, and the portal, which shows."""

from __future__ import annotations

import re
from collections.abc import Iterable


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str]:
    """One expression for a key's model patterns: * and ? as in a shell, everything else stands for itself."""
    parts = [_expression(pattern) for pattern in patterns]
    # Without a pattern nothing matches: (?!) never does.
    return re.compile("|".join(parts) if parts else "(?!)")


def _expression(pattern: str) -> str:
    first, *others = [re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", pattern)]
    if not others:
        return first
    # Atomic groups: the first fit of a middle part is as good as any later one, so a pattern full of stars cannot take for ever.
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    return f"{first}{middle}.*{others[-1]}"
