"""HTTP/2 frame by frame, so that it can be wrong."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Headers = list[tuple[str, str]]


@dataclass
class Outcome:
    """What came back until the stream, or the connection, was over."""

    status: int = 0
    body: bytes = b""
    reset: bool = False
    gone: bool = False


@dataclass
class Http2:
    """One connection without TLS; the other side's settings are acknowledged as they come."""

    port: int
    seconds: float = 5.0
    encoder: Encoder = field(default_factory=Encoder)

    def __post_init__(self) -> None:
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 20
        self._received = b""
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=self.seconds)
        self.send(PREFACE + SettingsFrame(0).serialize())

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def headers(self, headers: Headers, stream: int = 1, *, end: bool = True) -> bytes:
        """A HEADERS frame, whatever the headers are."""
        block = self.encoder.encode([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers])
        frame = HeadersFrame(stream, data=block, flags=["END_HEADERS", *(["END_STREAM"] if end else [])])
        return frame.serialize()

    def outcome(self, stream: int = 1) -> Outcome:
        """Wait for the end of a stream."""
        found = Outcome()
        try:
            while (frame := self._next()) is not None:
                if isinstance(frame, GoAwayFrame):
                    # Envoy keeps the connection a second longer.
                    found.gone = True
                    return found
                if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                    self.send(SettingsFrame(0, flags=["ACK"]).serialize())
                elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                    self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
                if frame.stream_id != stream:
                    continue
                if isinstance(frame, RstStreamFrame):
                    found.reset = True
                    return found
                if isinstance(frame, HeadersFrame):
                    decoded = dict(self._decoder.decode(frame.data))
                    found.status = found.status or int(decoded.get(":status", "0"))
                elif isinstance(frame, DataFrame):
                    found.body += frame.data
                    self.send(WindowUpdateFrame(0, max(1, len(frame.data))).serialize())
                if "END_STREAM" in frame.flags:
                    return found
        except TimeoutError:
            raise AssertionError(f"silence for {self.seconds} s: {found}") from None
        except OSError:
            pass
        found.gone = True
        return found

    def _next(self) -> Frame | None:
        while len(self._received) < 9:
            if not self._read():
                return None
        frame, length = Frame.parse_frame_header(memoryview(self._received[:9]))
        while len(self._received) < 9 + length:
            if not self._read():
                return None
        frame.parse_body(memoryview(self._received[9 : 9 + length]))
        self._received = self._received[9 + length :]
        return frame

    def _read(self) -> bool:
        data = self._socket.recv(65536)
        self._received += data
        return bool(data)
