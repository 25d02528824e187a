"""A small configuration that the gateway's unit tests share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from stoker.gateway.config import Table, build_table, parse_keys, parse_routes
from stoker.gateway.settings import Settings


def model(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "team-a", "deployment": name.lower().replace("/", "-"), "task": "Chat", **more}


def key(name: str, secret: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "models": ["*"], **more}


def routes(*models: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"version": 1, "keySecrets": ["gateway-keys-0"], "models": list(models), **more}).encode()


def keys(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"version": 1, "keys": list(entries)}).encode()


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
        frozenset({"team-a/qwen", "team-a/embed", "team-a/coder"}),
    )  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(namespace="team-a", name="gateway", folder=tmp_path)
    (made.xds / "eds").mkdir(parents=True)
    made.state.mkdir()
    return made
