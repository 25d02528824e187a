"""The cgroups that a cluster's pods live in, on version 1 and on version 2 machines."""

import contextlib
import os
import time
from pathlib import Path

from .errors import KindlessError

ROOT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuset", "memory", "pids")


def is_version_2() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def missing_controllers() -> list[str]:
    if is_version_2():
        present = (ROOT / "cgroup.controllers").read_text().split()
    else:
        present = [path.name for path in hierarchies()]
    return [name for name in NEEDED if name not in present]


def hierarchies() -> list[Path]:
    """The mounted trees: one on version 2, one for each controller on version 1."""
    if is_version_2():
        return [ROOT]
    if not ROOT.is_dir():
        return []
    # An alias such as cpu -> cpu,cpuacct is a link to a tree that is listed under its own name, too.
    return [path for path in sorted(ROOT.iterdir()) if path.is_dir() and os.path.ismount(path.resolve())]


def make_cgroups(name: str) -> None:
    if is_version_2():
        enable_controllers(ROOT)
        (ROOT / name).mkdir(exist_ok=True)
        enable_controllers(ROOT / name)
        return
    for tree in hierarchies():
        if tree.name == "unified":  # version 2 beside version 1: the kubelet uses version 1 alone
            continue
        directory = tree / name
        directory.mkdir(exist_ok=True)
        if (tree / "cpuset.cpus").exists():
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cpuset, and then nothing may run in it
                (directory / file).write_text((tree / file).read_text())


def enable_controllers(directory: Path) -> None:
    available = (directory / "cgroup.controllers").read_text().split()
    control = directory / "cgroup.subtree_control"
    enabled = control.read_text().split()
    for controller in available:
        if controller in enabled:
            continue
        try:
            control.write_text(f"+{controller}")
        except OSError as error:
            if controller in NEEDED:
                raise KindlessError(
                    f"cgroup v2: cannot enable '{controller}' in {control} ({error.strerror}): "
                    "run on a host whose root cgroup is not shared with other processes, or use Docker"
                ) from None


def remove_cgroups(name: str, timeout_seconds: float = 10) -> list[Path]:
    """Remove bottom up; what is left after the time-out is returned."""
    deadline = time.monotonic() + timeout_seconds
    roots = {(tree / name).resolve() for tree in hierarchies()}
    while True:
        left = [root for root in sorted(roots) if not remove_tree(root)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def remove_tree(root: Path) -> bool:
    for directory, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):  # an ended process may not have left it yet
            os.rmdir(directory)
    return not root.exists()
