"""opencode and the Continue command line, each with a configuration as a user would write it."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

from e2e.conformance.checks.world import World
from e2e.conformance.clients import clean_environment

LIMIT_SECONDS = 200


def run_opencode(
    modules: Path, world: World, folder: Path, prompt: str, *, key: str = "", context: int = 32768, lean: bool = False
) -> subprocess.CompletedProcess[str]:
    """`opencode run`; lean for a model with a small context: no tools, and a short prompt instead of pages of them."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Stoker",
        "options": {"baseURL": world.base, "apiKey": "{env:STOKER_API_KEY}"},
        "models": {world.model: {"name": world.model, "limit": {"context": context, "output": 32 if lean else 4096}}},
    }
    config: dict[str, object] = {
        "$schema": "https://opencode.ai/config.json",
        "autoupdate": False,
        "share": "disabled",
        "model": f"stoker/{world.model}",
        "small_model": f"stoker/{world.model}",
        "enabled_providers": ["stoker"],
        "provider": {"stoker": provider},
    }
    if lean:
        config["agent"] = {"build": {"prompt": "You are brief.", "tools": {"*": False}}}
    work = folder / "work"
    work.mkdir(exist_ok=True)
    (work / "opencode.json").write_text(json.dumps(config))
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    program = modules / f"opencode-linux-{machine}" / "bin" / "opencode"
    return subprocess.run(
        [program, "run", prompt],
        cwd=work,
        env={**clean_environment(folder), "STOKER_API_KEY": key or world.key},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def run_continue(
    modules: Path, world: World, folder: Path, prompt: str, *, key: str = ""
) -> subprocess.CompletedProcess[str]:
    """`cn -p`."""
    model = {"name": world.model, "provider": "openai", "model": world.model, "apiBase": world.base}
    model |= {"apiKey": key or world.key, "roles": ["chat"]}  # type: ignore[dict-item]
    config = folder / "continue.yaml"
    # JSON is YAML.
    config.write_text(json.dumps({"name": "stoker", "version": "1.0.0", "schema": "v1", "models": [model]}))
    return subprocess.run(
        [modules / ".bin" / "cn", "--config", config, "-p", prompt],
        cwd=folder,
        env=clean_environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
