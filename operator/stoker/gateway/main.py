"""``stoker gateway``: process 1 of the policy container. It keeps two processes running, and their sockets open.

The sockets belong to this process: while a killed one is started again, its callers wait in the queue instead of being refused.
Kubelet would let minutes pass between restarts of a container; here the next process starts at once.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stoker.environment import Environment
from stoker.gateway.processes import STOP_SIGNALS, prepare_process
from stoker.gateway.settings import Settings

logger = logging.getLogger(__name__)

BACKLOG = 4096
STEADY_SECONDS = 5.0
"""A process that ran this long has earned an immediate restart."""
LONGEST_WAIT_SECONDS = 2.0
QUICK_RESTARTS = 5
STOP_SECONDS = 10.0
LOOK_SECONDS = 1.0
SILENT_LOOKS = 5
OURS = (signal.SIGCHLD, *STOP_SIGNALS)
RELAY_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(4 << 20)}
"""glibc keeps so many free bytes at the heap's end. By itself it gives them back after each piece of the log, and a line then costs two
page faults for memory that was there a moment ago: a third of what it costs the relay in all."""


@dataclass
class Child:
    """One of the two processes."""

    name: str
    arguments: list[str]
    pid: int = 0
    started_at: float = 0.0
    failures: int = field(default=0)
    """Restarts in a row after a short life."""
    start_at: float = 0.0
    """When it may start again."""
    alive: int = -1
    """An eventfd that it writes to each second, where it does."""
    silent: int | None = None
    """Looks in a row that found nothing there; None before it has begun: how long it takes to start is another matter."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside that of this process."""

    def start(self) -> None:
        """A new process image: nothing of this one's state, and no signal left blocked."""
        command = [sys.executable, "-m", f"stoker.gateway.{self.name}", *self.arguments]
        environment = {**os.environ, **self.environment}
        self.pid = os.posix_spawn(
            sys.executable, command, environment, setsigmask=(), setsigdef=(*OURS, signal.SIGPIPE)
        )
        self.started_at = time.monotonic()
        self.silent = None

    def ended(self, status: int) -> None:
        """It is gone; say when it may start again."""
        now = time.monotonic()
        self.failures = 0 if now - self.started_at > STEADY_SECONDS else self.failures + 1
        # The first are immediate: a killed process must be back within half a second. One that cannot start must not take a core.
        late = self.failures - QUICK_RESTARTS
        wait = min(0.1 * 2**late, LONGEST_WAIT_SECONDS) if late > 0 else 0.0
        self.pid, self.start_at = 0, now + wait
        logger.error("%s ended with %s; starts again in %.1f s", self.name, describe(status), wait)


def main() -> int:
    """Supervise until SIGTERM."""
    prepare_process("gateway")
    settings = Settings.from_environment(Environment())
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.xds / "eds").mkdir(parents=True, exist_ok=True)
    settings.log.mkdir(exist_ok=True)
    # Blocked, so that none is lost between two waits; children start with nothing blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
    children = open_children(settings)
    for child in children:
        child.start()
    return supervise(children)


def open_children(settings: Settings) -> list[Child]:
    """Open the sockets, and the pipe by which the relay tells the policy that the configuration changed."""
    policy, answer = unix_socket(settings.policy_socket), unix_socket(settings.answer_socket)
    http, drain = tcp_socket(settings.http_port), tcp_socket(settings.drain_port)
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
        os.set_inheritable(end, True)
    alive = os.eventfd(0, os.EFD_NONBLOCK)
    os.set_inheritable(alive, True)
    # The objects would close their descriptors when collected.
    sockets = ["--policy", str(policy.detach()), "--http", str(http.detach()), "--drain", str(drain.detach())]
    return [
        Child("policy", [*sockets, "--changes", str(reader), "--alive", str(alive)], alive=alive),
        Child("relay", ["--answer", str(answer.detach()), "--changes", str(writer)], environment=RELAY_ENVIRONMENT),
    ]


def tcp_socket(port: int) -> socket.socket:
    """A listening socket on all addresses of the pod."""
    listening = socket.create_server(("0.0.0.0", port), backlog=128)  # noqa: S104
    listening.set_inheritable(True)
    return listening


def unix_socket(path: Path) -> socket.socket:
    """A listening socket, put in place by a rename: Envoy finds the old one or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(beside))
    beside.chmod(0o600)
    listening.listen(BACKLOG)
    beside.rename(path)
    listening.set_inheritable(True)
    return listening


def supervise(children: list[Child]) -> int:
    """Start again what ended, until told to stop; then stop both, and wait for them."""
    look_at = time.monotonic() + LOOK_SECONDS
    while True:
        due = [child.start_at for child in children if not child.pid]
        got = signal.sigtimedwait(OURS, max(0.0, min([look_at, *due]) - time.monotonic()))
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_SECONDS
            end_silent(children)
        if got is not None and got.si_signo in STOP_SIGNALS:
            return stop(children)
        reap(children)
        for child in children:
            if not child.pid and child.start_at <= time.monotonic():
                child.start()


def end_silent(children: list[Child]) -> None:
    """Kill what runs but does nothing any more: Envoy waits long for an answer, since requests may be held. Counted in looks, not
    in seconds, so that a machine without time for anybody does not seem like a process that hangs."""
    for child in children:
        if child.alive < 0 or not child.pid:
            continue
        try:
            os.eventfd_read(child.alive)
            child.silent = 0
        except BlockingIOError:
            child.silent = child.silent if child.silent is None else child.silent + 1
        if child.silent is not None and child.silent >= SILENT_LOOKS:
            logger.error("%s has not been heard of for %.0f s; it is ended", child.name, child.silent * LOOK_SECONDS)
            child.silent = None
            os.kill(child.pid, signal.SIGKILL)


def reap(children: list[Child]) -> None:
    """Take note of every process that ended; as process 1 also of orphans that are not ours."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        for child in children:
            if child.pid == pid:
                child.ended(status)


def stop(children: list[Child]) -> int:
    """SIGTERM, and SIGKILL for what has not ended in time."""
    for child in children:
        if child.pid:
            os.kill(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(child.pid for child in children):
        left = deadline - time.monotonic()
        if left <= 0:
            for child in children:
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
                    os.waitpid(child.pid, 0)
            return 1
        signal.sigtimedwait((signal.SIGCHLD,), left)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0
            if not pid:
                break
            for child in children:
                if child.pid == pid:
                    child.pid = 0
    return 0


def describe(status: int) -> str:
    """How a process ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
