"""The clients' libraries and programs, in the cache and apart from Stoker's own environment, versions pinned."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
from e2e.conformance.checks.world import World

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("STOKER_CACHE", Path.home() / ".cache" / "stoker")) / "clients"
OLDEST_NODE = 20


def python_with_clients() -> Path:
    """The interpreter of a virtual environment with requirements.txt."""
    uv, listed = Path(sys.executable).with_name("uv"), HERE / "requirements.txt"

    def make(folder: Path) -> None:
        run([uv, "venv", "--quiet", "--python", sys.executable, folder])
        run([uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "-r", listed])

    return made("python", [listed], make) / "bin" / "python"


def node_modules() -> Path:
    """The folder with the command-line clients; skips where Node is too old, for the one of the distribution may be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout if node else ""
    if not npm or int(version.lstrip("v").partition(".")[0] or 0) < OLDEST_NODE:
        pytest.skip(f"opencode and Continue need Node {OLDEST_NODE} or newer with npm, and here is {version or 'none'}")
    # Without a lock file: npm writes one that lacks opencode's packages for other platforms, and then refuses it.
    listed = HERE / "package.json"

    def make(folder: Path) -> None:
        shutil.copy(listed, folder)
        # No script is needed: opencode's program is a file of the package for this platform.
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        run([npm, "install", "--ignore-scripts", *quiet, "--prefix", folder])

    return made("node", [listed], make) / "node_modules"


def made(name: str, listed: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made once for each content of the lists; half of one is made anew."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in listed)).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    if not (folder / ".whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        (folder / ".whole").touch()
    return folder


def run(command: list[str | Path]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"


def run_checks(python: Path, client: str, world: World, folder: Path) -> dict[str, str]:
    """What came of each check of a file: nothing, "skipped" or what went wrong."""
    done = subprocess.run(
        [python, HERE / "checks" / f"{client}_checks.py", json.dumps(asdict(world))],
        env=clean_environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    return {outcome["check"]: outcome["problem"] for outcome in outcomes}


def clean_environment(folder: Path) -> dict[str, str]:
    """A home of its own, no proxies, no keys, and nothing that would call home."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "CONTINUE_TELEMETRY_ENABLED": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
