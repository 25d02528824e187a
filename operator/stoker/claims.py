"""What the claims of a token say, at the paths that an ApiGateway names: one reading for the API's tokens and for sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_LIST = 1000


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path of names with dots between them; None where there is none."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def texts_of(value: Any) -> list[str]:
    """One text or a list of texts; anything else in it is nobody's role."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [entry for entry in values[:LONGEST_LIST] if isinstance(entry, str)]
