"""Requests that are more than one exchange, or that no HTTP client would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket

from gateway.pod import Answer, GatewayPod

ENDLESS = 100_000
"""Pieces of a stream that lasts until the test raises its engine's `ended`, or leaves."""


def open_stream(pod: GatewayPod, pieces: int, gap: float, model: str = "qwen") -> http.client.HTTPResponse:
    """A streamed chat whose head has arrived; the fake engine sends its pieces, `gap` seconds apart."""
    connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=30)
    body = {"model": model, "stream": True, "messages": [], "metadata": {"n": pieces, "gap": gap}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": "Bearer sk-alice"})
    response = connection.getresponse()
    assert response.status == 200
    return response


def talk(port: int, request: bytes, *, seconds: float = 10) -> Answer:
    """Send, and read one answer with a content-length."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        # The other side may have answered and hung up before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            assert data, f"hung up after {received!r}"
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(headers.get("content-length", "0")):
            data = connection.recv(65536)
            assert data, f"hung up after {received!r}"
            body += data
    return Answer(int(lines[0].split(" ")[1]), headers, body)


def get_over_http2(port: int, path: str, key: str, *, seconds: float = 10) -> tuple[int, bytes]:
    """A GET in HTTP/2 frames, without TLS and without asking first; status (200 or 0 for any other) and body."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def literal(index: int, value: str) -> bytes:
        """A header whose name is in HPACK's static table (below 15), never added to the dynamic one."""
        return bytes([index, len(value)]) + value.encode()

    authorization = bytes([0x0F, 23 - 15, len("Bearer " + key)]) + f"Bearer {key}".encode()
    # 0x82 is :method GET, 0x86 :scheme http; 4 names :path, 1 :authority.
    head = b"\x82\x86" + literal(4, path) + literal(1, "gateway") + authorization
    received, body, status = b"", b"", 0
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 0x5, 1, head))
        while True:
            while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3], "big"):
                data = connection.recv(65536)
                assert data, f"hung up after {received!r}"
                received += data
            length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
            payload, received = received[9 : 9 + length], received[9 + length :]
            if kind == 4 and not flags & 1:
                connection.sendall(frame(4, 1, 0, b""))
            elif kind == 1:
                status = 200 if payload[:1] == b"\x88" else 0
            elif kind == 0:
                body += payload
            if kind in (0, 1) and flags & 1:
                return status, body
