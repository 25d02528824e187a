"""The user's kubeconfig: our entries go in and out, everybody else's stay."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .errors import KindlessError
from .tools import kubebox_dir

LISTS = ("clusters", "contexts", "users")


def default_path() -> Path:
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(":") if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def add_entries(cluster: Cluster, path: Path) -> None:
    ours = json.loads(cluster.admin_kubeconfig.read_text())
    config = without(cluster.name, read_config(path))
    for key in LISTS:
        config[key] += ours[key]
    config["current-context"] = ours["current-context"]
    write_config(config, path)


def remove_entries(name: str, path: Path) -> None:
    if path.exists() and f"kind-{name}" in path.read_text():
        write_config(without(name, read_config(path)), path)


def without(name: str, config: dict[str, Any]) -> dict[str, Any]:
    entry = f"kind-{name}"
    kept = {key: [item for item in config.get(key) or [] if item["name"] != entry] for key in LISTS}
    current = config.get("current-context") or ""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": config.get("preferences") or {},
        "current-context": "" if current == entry else current,
        **kept,
    }


def read_config(path: Path) -> dict[str, Any]:
    """An empty file is a valid start: pytest-kind makes one and passes its name."""
    text = path.read_text() if path.exists() else ""
    if not text.strip():
        return {}
    try:
        config = json.loads(text)
    except ValueError:
        command = [
            str(kubebox_dir() / "kubebox"),
            "kubectl",
            "config",
            "view",
            "--raw",
            "-o",
            "json",
            "--kubeconfig",
            str(path),
        ]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        if shown.returncode:
            raise KindlessError(f"{path} is not a kubeconfig: {shown.stderr.strip()}") from None
        config = json.loads(shown.stdout)
    return dict(config)


def write_config(config: dict[str, Any], path: Path) -> None:
    """Replaced in one step, since other commands read this file at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(config, file, indent=1)
    unfinished.replace(path.resolve())
