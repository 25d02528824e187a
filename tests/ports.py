"""Ports for servers of tests.

Below those that the kernel gives to whoever asks for any (32768 and up), and a hundred for each process that runs tests: so nobody
takes one between the moment when it is chosen and the one when somebody listens, or while a server is away that comes back.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

FIRST, HUNDREDS = 20_000, 100
_held: list[int] = []
"""The locked file of this process's hundred, for as long as it lives."""
_ports: Iterator[int] | None = None


def free_port() -> int:
    """One where nobody listens on loopback, and not the one that was given last."""
    global _ports
    _ports = _ports or itertools.cycle(_hundred())
    for port in itertools.islice(_ports, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("all ports of this process are taken")


def _hundred() -> range:
    for number in range(os.getpid(), os.getpid() + HUNDREDS):
        first = FIRST + number % HUNDREDS * 100
        with contextlib.suppress(OSError):
            file = os.open(Path(tempfile.gettempdir(), f"stoker-test-ports-{first}"), os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                raise
            _held.append(file)
            return range(first, first + 100)
    raise AssertionError("all hundreds of ports are taken by other processes that run tests")
