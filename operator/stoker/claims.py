"""What the claims of a token say, at the paths that an ApiGateway names, and by what people are known: one reading for the API's tokens, for sign-in and for keys' owners."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

LONGEST_LIST = 1000
EMAIL = "email"
"""The claim that email_verified speaks of (OpenID Connect Core, 5.1)."""

HEADER_SAFE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""Besides letters and digits: what needs no %XX in a header."""

_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


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


def known_as(name: str) -> str:
    """One spelling for each person: Carol@Example.com is carol@example.com, as in the web chat, which keeps addresses in small letters.

    Other names are left alone, for two that differ by a letter's case may be two people (Core, 2: sub). So are letters outside of ASCII:
    some become an ASCII letter when they are made small, and an address with one of these is somebody else's.
    """
    return name.translate(_SMALL) if "@" in name else name


def in_header(name: str) -> str:
    """Somebody's name, whatever his issuer calls him, as headers and log lines have it; usage reads it back."""
    # Half a surrogate pair is JSON, but no text.
    return quote(name, safe=HEADER_SAFE, errors="backslashreplace")


def is_unverified(claims: Mapping[str, Any]) -> bool:
    """Whether the issuer says that an address beside it may be anybody's. Many say nothing, and some write the truth as a text."""
    said = claims.get("email_verified", True)
    return said is not True and said != "true"
