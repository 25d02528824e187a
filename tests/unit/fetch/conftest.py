"""A source on loopback that behaves as badly as a test asks; only the far end of the connection is fake."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stoker.fetch import cache, main
from stoker.fetch.config import FetchConfig, SourceFile

GGUF = b"GGUF" + bytes(range(256)) * 12_000
"""About 3 MB that begin as a GGUF does."""


@dataclass
class Answer:
    """How the fake answers one request."""

    status: int = 0
    """0: as the request deserves."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    ignore_range: bool = False
    ignore_if_range: bool = False
    range_cap: int | None = None
    """Send at most so many bytes of what is left, as some proxies do."""
    headers: dict[str, str] = field(default_factory=dict)
    before_body: Callable[[], object] | None = None
    after_body: Callable[[], object] | None = None


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]


class FakeSource:
    """Serves `files`; `answers` are used up one by one, then it behaves well."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"model.gguf": GGUF}
        self.etag = '"one"'
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        self.body_bytes = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                fake.serve(self)

            def do_GET(self) -> None:
                fake.serve(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def answer(self, **behavior: Any) -> None:
        """Decide how the next request that nothing was decided for yet is answered."""
        self.answers.append(Answer(**behavior))

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def url(self, name: str = "model.gguf", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{name}"

    @property
    def gets(self) -> list[Seen]:
        return [request for request in self.seen if request.method == "GET"]

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        self.seen.append(Seen(request.command, request.path, {k.lower(): v for k, v in request.headers.items()}))
        answer = self.answers.pop(0) if self.answers and request.command == "GET" else Answer()
        name = request.path.split("?")[0].rpartition("/")[2]
        body = self.files.get(name)
        status = answer.status or (200 if body is not None else 404)
        headers = {"ETag": self.etag} if self.etag else {}
        if status != 200 or body is None:
            body = b"{}"
        else:
            wanted = request.headers.get("Range")
            condition = request.headers.get("If-Range")
            valid = condition is None or answer.ignore_if_range or condition == self.etag
            if wanted and valid and not answer.ignore_range:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start = int(first)
                if start >= len(body):
                    status, body = 416, b""
                else:
                    end = min(len(body), start + (answer.range_cap or len(body)), int(last or len(body)) + 1)
                    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
                    status, body = 206, body[start:end]
        headers |= {"Content-Length": str(len(body))} | answer.headers
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        if answer.before_body:
            answer.before_body()
        if answer.cut_after is not None:
            body = body[: answer.cut_after]
            request.close_connection = True
        if status in (200, 206):
            self.body_bytes += len(body)
        try:
            request.wfile.write(body)
            if answer.after_body:
                answer.after_body()
        except OSError:
            request.close_connection = True

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def fake_source() -> Iterator[FakeSource]:
    source = FakeSource()
    yield source
    source.close()


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Waits are shortened, and proxies of the machine that runs the tests are not asked for loopback."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr(cache, "RESUME_DELAY", 0.01)
    monkeypatch.setattr(main, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(main, "TERMINATION_LOG", tmp_path / "termination-log")


@pytest.fixture
def make_config(fake_source: FakeSource, tmp_path: Path) -> Callable[..., FetchConfig]:
    def make(
        *names: str, sha256: str | None = "", token: str = "", url: str = "", digest: str = "0123456789abcdef"
    ) -> FetchConfig:
        """sha256=None: the right sum."""
        files = tuple(
            SourceFile(
                name,
                url or fake_source.url(name),
                hashlib.sha256(fake_source.files[name]).hexdigest() if sha256 is None else sha256,
            )
            for name in names or ("model.gguf",)
        )
        return FetchConfig(digest, files, tmp_path / "models", tmp_path / "progress.json", token)

    return make
