"""What all fakes of engines share: a model in some state, a queue before it, and OpenAI's API in front.

Standard library only. What differs from engine to engine is in engines.py, with where it was read. A test decides:
FAKE_TOKEN_SECONDS is the time of one token; with FAKE_LOAD=wait a model loads until there is a file /tmp/load, whose content
`fail` makes the load fail.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

Answer = tuple[int, str]

PORT = 8080
TOKEN_SECONDS = float(os.environ.get("FAKE_TOKEN_SECONDS", "0.02"))
LOAD_FILE = Path("/tmp/load")
TTFT_BOUNDS = (0.1, 1.0, 10.0)
TOKEN_BOUNDS = (0.01, 0.1, 1.0)


class LoadError(Exception):
    """The model cannot be loaded."""


def load_model() -> None:
    """Takes as long as the test wants."""
    if os.environ.get("FAKE_LOAD") == "wait":
        while not LOAD_FILE.exists():
            time.sleep(0.05)
        if LOAD_FILE.read_text().strip() == "fail":
            raise LoadError


class Model:
    """One model with so many places; whoever finds none waits."""

    def __init__(self, *names: str, slots: int) -> None:
        self.names = names
        self.loaded = False
        self.running = self.waiting = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.first_tokens: list[float] = []
        self.between_tokens: list[float] = []
        self._free = threading.Condition()
        self._slots = slots

    def take(self) -> None:
        with self._free:
            self.waiting += 1
            self._free.wait_for(lambda: self.running < self._slots)
            self.waiting -= 1
            self.running += 1

    def give_back(self) -> None:
        with self._free:
            self.running -= 1
            self._free.notify()

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)


class Engine:
    """How one engine behaves; the defaults are what most do."""

    model: Model
    knows_other_names = True
    """False: a request for another name is answered with 404."""
    owner = "fake"
    stopping = False

    def get(self, path: str) -> Answer:
        """Pages beside the API of OpenAI."""
        return 404, json.dumps({"detail": "Not Found"})

    def post(self, path: str, body: dict[str, Any]) -> Answer | None:
        """The engine's own API; None for paths that are not in it."""
        return None

    def refuse(self, body: dict[str, Any]) -> Answer | None:
        """Before a request for an answer is taken."""
        if not self.model.loaded:
            return error(503, "no model is loaded")
        if not self.knows_other_names and body.get("model") not in self.model.names:
            return error(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError")
        return None

    def stop(self) -> None:
        """At SIGTERM: running requests are cut, unless an engine finishes them."""

    def finish(self, seconds: float) -> None:
        """For those that do: return when nothing runs any more, or the time is over."""
        end = time.monotonic() + seconds
        while self.model.busy and time.monotonic() < end:
            time.sleep(0.05)


def error(status: int, message: str, kind: str = "invalid_request_error") -> Answer:
    return status, json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            names = self.engine.model.names if self.engine.model.loaded else ()
            cards = [{"id": name, "object": "model", "owned_by": self.engine.owner} for name in names]
            self.answer(200, json.dumps({"object": "list", "data": cards}))
        else:
            self.answer(*self.engine.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        own = self.engine.post(self.path, body)
        if own is not None:
            self.answer(*own)
        elif self.path in ("/v1/chat/completions", "/v1/completions"):
            refused = self.engine.refuse(body)
            if refused is not None:
                self.answer(*refused)
            else:
                self.generate(body)
        else:
            self.answer(*self.engine.get(self.path))

    def generate(self, body: dict[str, Any]) -> None:
        model, began = self.engine.model, time.monotonic()
        model.take()
        try:
            model.prompt_tokens += 1
            if body.get("stream"):
                self.stream(body, began)
            else:
                for _ in self.tokens(body, began):
                    pass
                self.answer(200, json.dumps(completion(body, "token " * most_tokens(body))))
        except OSError:
            pass  # The client has left; nothing more is generated for it.
        finally:
            model.give_back()

    def stream(self, body: dict[str, Any], began: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in self.tokens(body, began):
            self.event(chunk(body, "token ", None))
        self.event(chunk(body, None, "length"))
        self.piece(b"data: [DONE]\n\n")
        self.piece(b"")

    def tokens(self, body: dict[str, Any], began: float) -> Any:
        """One after the other, at the engine's speed."""
        model = self.engine.model
        for number in range(most_tokens(body)):
            time.sleep(TOKEN_SECONDS)
            model.completion_tokens += 1
            if number:
                model.between_tokens.append(TOKEN_SECONDS)
            else:
                model.first_tokens.append(time.monotonic() - began)
            yield number

    def event(self, document: dict[str, Any]) -> None:
        self.piece(f"data: {json.dumps(document)}\n\n".encode())

    def piece(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body[:1] in "{[" else "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def most_tokens(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or 16)


def completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": most_tokens(body), "total_tokens": 1 + most_tokens(body)}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "text": text, "finish_reason": "length"}
    return {"id": "fake", "object": "chat.completion", "model": body.get("model"), "choices": [choice], "usage": usage}


def chunk(body: dict[str, Any], text: str | None, reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "text": text or "", "finish_reason": reason}
    return {"id": "fake", "object": "chat.completion.chunk", "model": body.get("model"), "choices": [choice]}


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


def listen(engine: Engine) -> Server:
    """From now on the port is open."""
    handler = type("EngineHandler", (Handler,), {"engine": engine})
    server = Server(("0.0.0.0", PORT), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def on_end_signal(then: Callable[[], object]) -> None:
    def handle(*_: object) -> NoReturn:
        then()
        # Whoever still has an open answer finds it cut.
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread of its own, since a model may be loading in this one.
        signal.signal(number, lambda *_: threading.Thread(target=handle).start())


def serve(engine: Engine, *, listen_first: bool) -> NoReturn:
    """A whole life: load before the port is open, or after it; a load that fails ends the process."""
    on_end_signal(engine.stop)
    if listen_first:
        listen(engine)
    try:
        load_model()
    except LoadError:
        sys.exit("the model could not be loaded")
    engine.model.loaded = True
    if not listen_first:
        listen(engine)
    sleep_on()


def sleep_on() -> NoReturn:
    """Until a signal ends the process."""
    while True:
        time.sleep(3600)


def histogram(name: str, labels: str, bounds: tuple[float, ...], seen: list[float]) -> str:
    """In Prometheus' text format."""
    counts = [(str(bound), sum(value <= bound for value in seen)) for bound in bounds] + [("+Inf", len(seen))]
    lines = [f'{name}_bucket{{{labels},le="{bound}"}} {count}.0' for bound, count in counts]
    lines += [f"{name}_count{{{labels}}} {len(seen)}.0", f"{name}_sum{{{labels}}} {sum(seen)}"]
    return "\n".join(lines) + "\n"


def refuse_unknown(words: list[str], known: set[str], program: str) -> None:
    """As an argument parser does."""
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    if unknown:
        sys.exit(f"{program}: error: unrecognized arguments: {' '.join(unknown)}")


def value_of(words: list[str], flag: str, default: str = "") -> str:
    return words[words.index(flag) + 1] if flag in words else default


def values_of(words: list[str], flag: str) -> list[str]:
    """All words up to the next flag."""
    if flag not in words:
        return []
    rest = words[words.index(flag) + 1 :]
    end = next((number for number, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:end]
