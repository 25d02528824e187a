"""How old an image is, by its tag; of what cannot be told nothing is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BUILD = re.compile(r"(?:^|-)b(\d{3,7})$")
_RELEASE = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?![\d.])")

Version = tuple[int, ...]


def parse_version(image: str, known: Iterable[str]) -> Version | None:
    """The version in a tag such as v0.33.0-x86_64 or server-cuda-b11434.

    Only of images that are called like the engine's own ones, wherever they lie: what else is tagged may count in other ways.
    """
    name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    if name not in {_name(other) for other in known}:
        return None
    build = _BUILD.search(tag)
    if build:
        return (int(build[1]),)
    release = _RELEASE.match(tag)
    return tuple(int(part) for part in release.groups(default="0")) if release else None


def _name(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]
