"""A small configuration that the gateway's unit tests share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.gateway.config import parse_keys, parse_routes
from stoker.gateway.settings import Settings
from stoker.gateway.table import Table, build_table


def model(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "team-a", "deployment": name.lower().replace("/", "-"), "task": "Chat", **more}


def key(name: str, secret: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "models": ["*"], **more}


def routes(*models: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"version": 1, "keySecrets": ["gateway-keys-0"], "models": list(models), **more}).encode()


def keys(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"version": 1, "keys": list(entries)}).encode()


class Clock:
    """Stands still, unless a test moves it; then timers that are due ring, in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> Ringing:
        self._count += 1
        timer = (self.now + seconds, self._count, call)
        self._timers.append(timer)
        return Ringing(lambda: self._timers.remove(timer) if timer in self._timers else None)

    def move(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and min(self._timers)[0] <= end:
            timer = min(self._timers)
            self._timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[2]()
        self.now = end


class Ringing:
    """A timer that can be called off."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> Table:
    return build_table(
        parse_routes(
            routes(
                model("qwen", aliases=["gpt-4o"]),
                model("embed", task="Embedding"),
                model("coder", task="Completion"),
                model("asleep", stopped=True),
                model("loading"),
            )
        ),
        parse_keys(
            keys(
                key("alice", "sk-alice"), key("bob", "sk-bob", models=["emb*", "gpt-4?"]), key("old", "sk-old", expiresAt=100)
            )
        ),
    )  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(namespace="team-a", name="gateway", folder=tmp_path)
    (made.xds / "eds").mkdir(parents=True)
    made.state.mkdir()
    return made
