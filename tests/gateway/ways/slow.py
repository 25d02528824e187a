"""Callers who take their time."""

from __future__ import annotations

import contextlib
import socket
import time

from gateway.pod import until
from gateway.ways.registry import CHAT_PATH, GUEST, Fortress, way

CONNECTIONS = 300
HEADERS_SECONDS = 15.0
"""What Envoy gives a request's headers (envoy.py, request_headers_timeout)."""


@way("slow loris: headers that come byte by byte")
def slow_headers(fortress: Fortress) -> None:
    connections = [socket.create_connection(("127.0.0.1", fortress.port), timeout=10) for _ in range(CONNECTIONS)]
    try:
        began = time.monotonic()
        for connection in connections:
            connection.sendall(f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nX-Long: ".encode())

        def all_are_gone() -> bool:
            assert fortress.world.pod.request("GET", "/v1/models", key=GUEST, timeout=10).status == 200
            for connection in connections:
                # Still one byte for everybody who is there.
                with contextlib.suppress(OSError):
                    connection.sendall(b"y")
            return all(is_closed(connection) for connection in connections)

        until(all_are_gone, "slow callers are sent away, others served meanwhile", within=HEADERS_SECONDS + 45)
        assert time.monotonic() - began > HEADERS_SECONDS / 2
    finally:
        for connection in connections:
            connection.close()


@way("slow bodies of strangers")
def slow_bodies(fortress: Fortress) -> None:
    """A stranger's large body is not waited for: he is answered when his headers are there."""
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode()
    connections = [socket.create_connection(("127.0.0.1", fortress.port), timeout=10) for _ in range(CONNECTIONS)]
    try:
        for connection in connections:
            connection.sendall(head + b"{")
        for connection in connections:
            assert connection.recv(100).startswith(b"HTTP/1.1 401")
    finally:
        for connection in connections:
            connection.close()


@way("a stranger who waits to be asked for his body")
def stranger_waits_for_100(fortress: Fortress) -> None:
    """He may be asked, but is refused before he has sent any of it."""
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", fortress.port), timeout=10) as connection:
        connection.sendall(head.encode())
        while b"HTTP/1.1 401" not in received:
            data = connection.recv(65536)
            assert data, received
            received += data


def is_closed(connection: socket.socket) -> bool:
    """By the other side; what it said before is read and thrown away."""
    connection.setblocking(False)
    try:
        data = connection.recv(65536)
        while data:
            assert b"200 OK" not in data
            data = connection.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        pass
    finally:
        connection.settimeout(10)
    return True
