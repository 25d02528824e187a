"""Fake engines that end connections when nobody expects it: in the middle of an answer, or after it without having said so."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from ports import free_port

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SAYS = {
    "resets at once": b"",
    "resets": b"",
    "hangs up": b"",
    "speaks no HTTP": b"\x15\x03\x01\x00\x02\x02F nonsense\r\n\r\n",
    "breaks off in the head": HEAD[:30],
    "breaks off in the answer": HEAD + b"e\r\ndata: a piece\n\r\n",
}
"""What comes before the end."""


class BrokenEngine:
    """On a port of its own, until it is closed."""

    def __init__(self, how: str, *, healthy: bool = False) -> None:
        self.how, self.healthy = how, healthy
        """`healthy`: what is not a chat is answered."""
        self.chats = 0
        """Connections that brought one; where none is read: all."""
        self.port = free_port()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        if self.how != "resets at once":
            connection.settimeout(5)
            request = connection.recv(65536)
            if not request.startswith(b"POST"):
                if self.healthy:
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                return
        self.chats += 1
        connection.sendall(SAYS[self.how])
        if self.how.startswith("resets"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Nobody listens there any more."""
        # close() alone would leave the thread in accept().
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


class LeavingEngine:
    """Streams, and reads no more of that connection, like cpp-httplib; but it ends it only after half a second instead of a moment."""

    def __init__(self) -> None:
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            asked = connection.recv(65536).lower()
            says_so = b"connection: close\r\n" if b"\r\nconnection: close\r\n" in asked else b""
            connection.sendall(HEAD[:-2] + says_so + b"\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            if not says_so:
                time.sleep(0.5)

    def close(self) -> None:
        """Nobody listens there any more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
