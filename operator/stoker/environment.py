"""What a pod tells its process by environment variables: read here for all roles, and refused by name where it makes no sense."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class NotConfigured(Exception):
    """The process is not told what it needs; it ends, and the message says what is wrong."""


class Environment:
    """A variable that is there and empty counts as not given: that is what a chart makes of a value that is not set."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables

    def required(self, name: str) -> str:
        """Without it the process cannot do its work."""
        value = self._variables.get(name)
        if not value:
            raise NotConfigured(f"{name} is not set")
        return value

    def text(self, name: str, default: str = "") -> str:
        """As it is."""
        return self._variables.get(name) or default

    def folder(self, name: str, default: Path) -> Path:
        """A path, whether or not anything is there."""
        return Path(self._variables.get(name) or default)

    def number(self, name: str, default: int) -> int:
        """A whole number, not below zero."""
        value = self._variables.get(name)
        if value and not value.isdecimal():
            raise NotConfigured(f"{name} must be a number, not {value!r}")
        return int(value) if value else default

    def flag(self, name: str, *, default: bool) -> bool:
        """As Helm writes it: true or false."""
        value = self._variables.get(name, "").lower()
        if value not in ("", "true", "false"):
            raise NotConfigured(f"{name} must be true or false, not {value!r}")
        return value == "true" if value else default

    def items(self, name: str) -> tuple[str, ...]:
        """What stands between commas."""
        return tuple(part.strip() for part in self._variables.get(name, "").split(",") if part.strip())

    def pairs(self, name: str) -> dict[str, str]:
        """key=value between commas."""
        pairs = [part.partition("=") for part in self.items(name)]
        if any(not equals for _, equals, _ in pairs):
            raise NotConfigured(f"{name} must read key=value,key=value, not {self._variables[name]!r}")
        return {key: value for key, _, value in pairs}
