"""opencode and the Continue command line, with the settings that the operator writes into the gateway's ConfigMap."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path

from e2e.conformance.checks.world import World
from e2e.conformance.clients import clean_environment

from stoker.api import ApiGateway, ModelDeployment
from stoker.api.resolved import PublishedModel
from stoker.desired.client_files import build_client_files

LIMIT_SECONDS = 200


def settings(world: World, context: int = 32768) -> dict[str, str]:
    """The files of that ConfigMap."""
    metadata = {"name": "stoker", "namespace": "default"}
    spec = {"source": {"uri": "https://example.com/m.gguf"}, "servedModelName": world.model, "contextLength": context}
    model = ModelDeployment.model_validate({"metadata": metadata, "spec": spec})
    gateway = ApiGateway.model_validate({"metadata": metadata, "spec": {}})
    files = build_client_files(gateway, [PublishedModel(model, stopped=False, engine_type="LlamaCpp")], world.base)
    data: dict[str, str] = files["data"]
    return data


def run_file(
    name: str, program: str | Path, world: World, folder: Path, *, key: str = ""
) -> subprocess.CompletedProcess[str]:
    """A script of that ConfigMap, to the letter."""
    (folder / name).write_text(settings(world)[name])
    return subprocess.run(
        [program, name],
        cwd=folder,
        env={**clean_environment(folder), "STOKER_API_KEY": key or world.key},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def run_opencode(
    modules: Path, world: World, folder: Path, prompt: str, *, key: str = "", context: int = 32768, lean: bool = False
) -> subprocess.CompletedProcess[str]:
    """`opencode run`; lean for a model with a small context: no tools, and a short prompt instead of pages of them."""
    text = settings(world, context)["opencode.json"]
    if lean:
        config = json.loads(text)
        config["agent"] = {"build": {"prompt": "You are brief.", "tools": {"*": False}}}
        config["provider"]["stoker"]["models"][world.model]["limit"]["output"] = 32
        text = json.dumps(config)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    (work / "opencode.json").write_text(text)
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
    config = folder / "continue.yaml"
    config.write_text(settings(world)["continue.yaml"])
    return subprocess.run(
        [modules / ".bin" / "cn", "--config", config, "-p", prompt],
        cwd=folder,
        env={**clean_environment(folder), "STOKER_API_KEY": key or world.key},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
