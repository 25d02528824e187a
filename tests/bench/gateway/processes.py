"""What processes cost, out of /proc, and on which cores they run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def choose_cores() -> tuple[set[int], set[int]]:
    """One core for the gateway under test, the others for engine and load; with one core only, all share it."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[-1]}, set(cores[:-1]) or set(cores)


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started inside stays on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(roots: list[int]) -> list[int]:
    """The processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(roots: list[int]) -> float:
    """User and system time of the tree, with those of its processes that have ended and were waited for."""
    total = 0.0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            total += sum(map(int, _stat(pid)[11:15])) / TICKS
    return total


def memory_mb(roots: list[int], field: str = "Pss") -> float:
    """Proportional set size: what processes share counts once. It falls when somebody else starts the same program; Rss does not."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1])
    return total / 1024


def _stat(pid: int) -> list[str]:
    """The fields after the command's name: state is the first, the parent the second."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
