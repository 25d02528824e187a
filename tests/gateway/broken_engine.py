"""A fake engine that takes connections and then answers nothing that is an answer, in one of several ways."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

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
