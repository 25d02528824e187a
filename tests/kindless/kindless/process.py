"""Processes that are known by more than their number, which the kernel uses again."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    started: str
    """Field 22 of /proc/PID/stat: a number used again has another start time."""

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        stat = read_stat(pid)
        return cls(pid, stat[19]) if stat else None

    @property
    def alive(self) -> bool:
        """A zombie counts as ended: nobody may be there to reap it."""
        stat = read_stat(self.pid)
        return stat is not None and stat[19] == self.started and stat[0] not in "ZX"

    def kill(self, timeout_seconds: float = 10) -> bool:
        """SIGKILL, then wait until it is gone; true if it is."""
        if self.alive:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return True
        return self.wait(timeout_seconds)

    def wait(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def read_stat(pid: int) -> list[str] | None:
    """The fields behind the command, whose name may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
