"""Which world clusters and images live in: Docker's, or the one without it."""

import os
import shutil
import subprocess
from typing import Literal

from .errors import KindlessError

Runtime = Literal["docker", "kindless"]


def choose_runtime() -> Runtime:
    """STOKER_RUNTIME=docker or kindless forces one; auto takes Docker where its daemon answers."""
    match os.environ.get("STOKER_RUNTIME") or "auto":
        case "docker":
            if problem := docker_problem():
                raise KindlessError(f"STOKER_RUNTIME=docker, but {problem}")
            return "docker"
        case "kindless":
            return "kindless"
        case "auto":
            return "kindless" if docker_problem() else "docker"
        case other:
            raise KindlessError(f"STOKER_RUNTIME={other}: use docker, kindless or auto")


def docker_problem() -> str | None:
    if not shutil.which("docker"):
        return "the docker command is not installed"
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker daemon did not answer in 10 s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return f"the Docker daemon does not answer: {lines[-1] if lines else ''}"
    return None
