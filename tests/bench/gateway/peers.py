"""Other gateways from the package registry, each in a virtual environment of its own in the cache, versions pinned."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.tools import CACHE, HERE

Started = tuple[list[str], Mapping[str, str]]
"""A command and what it needs in its environment."""


class NotInstallable(Exception):
    """The registry does not have it for this machine."""


@dataclass(frozen=True)
class Place:
    """Where a peer is to run, and in front of what."""

    folder: Path
    port: int
    metrics_port: int
    engines: Sequence[int]
    models: Sequence[str]
    key: str


@dataclass(frozen=True)
class Peer:
    """One row: how it is named, installed and started, with one worker and its key check on."""

    name: str
    version: str
    requirements: str
    start: Callable[[Path, Place], Started]

    def install(self) -> Path:
        """Its virtual environment; made once for each list of requirements."""
        listed = HERE / self.requirements
        folder = CACHE / f"{listed.stem}-{hashlib.sha256(listed.read_bytes()).hexdigest()[:12]}"
        if not (folder / ".whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv = str(Path(sys.executable).with_name("uv"))
            for command in (
                [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
                [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "-r", str(listed)],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise NotInstallable(" ".join(done.stderr.split())[-300:])
            (folder / ".whole").touch()
        return folder

    def command(self, place: Place) -> Started:
        return self.start(self.install(), place)


def _sglang_router(venv: Path, place: Place) -> Started:
    """One pool of workers: its mode with several models downloads a tokenizer when it starts."""
    command = [str(venv / "bin" / "python"), "-m", "sglang_router.launch_router", "--host", "127.0.0.1"]
    command += ["--port", str(place.port), "--prometheus-port", str(place.metrics_port), "--log-level", "error"]
    workers = [f"http://127.0.0.1:{port}" for port in place.engines]
    return [*command, "--api-key", place.key, "--worker-urls", *workers], {}


def _litellm(venv: Path, place: Place) -> Started:
    """A master key and no database; what it would fetch or report over the network is off."""
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"openai/{model}",
                "api_base": f"http://127.0.0.1:{port}/v1",
                "api_key": "none",
            },
        }
        for model, port in zip(place.models, place.engines, strict=True)
    ]
    config = place.folder / "litellm.json"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "model_list": models,
                "litellm_settings": {"request_timeout": 600, "telemetry": False},
                "general_settings": {"master_key": place.key, "disable_spend_logs": True, "disable_error_logs": True},
            }
        )
    )
    command = [str(venv / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    return [*command, "--port", str(place.port), "--num_workers", "1"], {**quiet, "LITELLM_MODE": "PRODUCTION"}


PEERS = (
    Peer("sglang-router", "0.3.2", "requirements-sglang-router.txt", _sglang_router),
    Peer("LiteLLM", "1.106.2", "requirements-litellm.txt", _litellm),
)
