"""Starts a cluster's processes, starts again what ends, and takes all of them with it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .components import Command
from .process import Process

PR_SET_PDEATHSIG = 1
RESTART_PAUSE_SECONDS = 1
GO = "go"
"""What `create` writes once it has noted our process number; before that nobody could find and end us."""


class Supervisor:
    def __init__(self, logs: Path, processes: Path) -> None:
        self.logs = logs
        self.processes = processes
        self.commands: dict[int, tuple[str, Command]] = {}
        self.started = time.monotonic()
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: os._exit(0))

    def wait_for_go(self) -> None:
        """The creator may be killed at any time: then its end of the pipe closes, and there is no word."""
        if sys.stdin.readline().strip() != GO:
            sys.exit("create ended before the cluster was noted")

    def start(self, name: str, command: Command) -> None:
        me = os.getpid()

        def die_with_parent() -> None:
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != me:
                os._exit(1)

        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        self.commands[process.pid] = (name, command)
        identity = Process.of(process.pid)
        if identity:
            (self.processes / name).write_text(f"{identity.pid} {identity.started}")

    def wait_until(self, check: Callable[[], bool], what: str) -> None:
        while not check():
            while self.reap(os.WNOHANG):
                pass
            time.sleep(0.05)
        self.note(f"{what} is ready")

    def run_forever(self) -> NoReturn:
        while True:
            self.reap(0)

    def reap(self, options: int) -> bool:
        """Collect one ended process: ours is started again, an orphan's descendant just disappears."""
        pid, status = os.waitpid(-1, options)
        if pid in self.commands:
            name, command = self.commands.pop(pid)
            self.note(f"{name} ended with {os.waitstatus_to_exitcode(status)}; starting it again")
            time.sleep(RESTART_PAUSE_SECONDS)
            self.start(name, command)
        return pid > 0

    def note(self, message: str) -> None:
        print(f"{time.monotonic() - self.started:7.2f} {message}", flush=True)


def etcd_is_healthy(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as answer:
                return b'"health":"true"' in answer.read()
        except OSError:
            return False
