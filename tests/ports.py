"""Ports for servers of tests.

Below those that the kernel gives to whoever asks for any (32768 and up), and a hundred for each process that runs tests: so nobody
takes one between the moment when it is chosen and the one when somebody listens, or while a server is away that comes back.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

FIRST = 20_000 + os.getpid() % 100 * 100
PORTS = itertools.cycle(range(FIRST, FIRST + 100))


def free_port() -> int:
    """One where nobody listens on loopback, and not the one that was given last."""
    for port in itertools.islice(PORTS, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("all ports of this process are taken")
