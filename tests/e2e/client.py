"""The gateway as its clients see it, from outside the cluster."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from e2e.kube import Kube

PROBE_TOKENS = 60
LONGEST = 3500
STORY = [{"role": "user", "content": "Tell me a long story about the sea and the people who live on it."}]


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape; an assertion where it has another one."""
        assert self.headers.get("content-type", "").startswith("application/json"), (
            self.status,
            self.headers,
            self.body[:300],
        )
        document = json.loads(self.body)
        assert set(document) == {"error"}, document
        error: dict[str, Any] = document["error"]
        assert {"message", "type", "param", "code"} <= set(error), error
        assert isinstance(error["message"], str), error
        assert error["message"], error
        return error


@dataclass
class Gateway:
    """A gateway by its node port on the host's loopback."""

    port: int
    key: str = ""
    model: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Exactly this path, byte for byte: nothing is normalised. The key is sent unless headers say otherwise."""
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent |= headers or {}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            # A large body may be refused before it is read to its end; the answer is there all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, data, {k: v for k, v in sent.items() if v})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def chat(self, model: str | None = None, key: str | None = None, **more: Any) -> Answer:
        """A short chat."""
        body = {"model": model or self.model, "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}], **more}
        return self.request(
            "POST", "/v1/chat/completions", body, {} if key is None else {"Authorization": f"Bearer {key}"}
        )

    def stream(self, tokens: int) -> Stream:
        """A chat that runs for exactly so many tokens, read in the background."""
        return Stream(self, self.model, tokens)

    def long_stream(self, seconds: float) -> Stream:
        """A chat that has begun and runs for about so long, as fast as this machine is right now."""
        began = time.monotonic()
        self.stream(PROBE_TOKENS).await_end()
        rate = PROBE_TOKENS / (time.monotonic() - began)
        return self.stream(min(int(rate * seconds), LONGEST)).await_first_piece()

    def long_streams(self, count: int, seconds: float, longest: int) -> list[Stream]:
        """So many at a time, just asked for, that each run for about so long at the speed that so many have here right now."""
        tokens = PROBE_TOKENS // 2
        probes = [self.stream(tokens) for _ in range(count)]
        for probe in probes:
            probe.await_end()
        # Without the time until the first token: prompts are read before.
        rate = tokens / statistics.median(probe.ended_at - probe.first_at for probe in probes)
        return [self.stream(min(int(rate * seconds), longest)) for _ in range(count)]


@dataclass
class Stream:
    """A streamed chat, followed by a thread of its own."""

    gateway: Gateway
    model: str
    tokens: int
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    complete: bool = False
    error: str = ""
    first_at: float = 0.0
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        # ignore_eos is llama.cpp's own: the story goes on until max_tokens.
        body = {"model": self.model, "stream": True, "max_tokens": self.tokens, "ignore_eos": True, "messages": STORY}
        headers = {"Authorization": f"Bearer {self.gateway.key}"}
        try:
            # Without TLS; left alone each client would read the certificates of all authorities, which takes longer than an answer.
            with (
                httpx.Client(verify=False, trust_env=False, timeout=120) as client,
                client.stream("POST", f"{self.gateway.url}/chat/completions", json=body, headers=headers) as answer,
            ):
                if answer.status_code != 200:
                    self.error = f"{answer.status_code} {answer.read().decode()}"
                    return
                for line in answer.iter_lines():
                    self._take(line)
        except httpx.HTTPError as error:
            self.error = f"after {len(self.pieces)} pieces: {error!r}"
        finally:
            self.ended_at = time.monotonic()
            self._first.set()

    def _take(self, line: str) -> None:
        if line == "data: [DONE]":
            self.complete = True
        elif line.startswith("data: "):
            for choice in json.loads(line.removeprefix("data: ")).get("choices") or []:
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
                if choice.get("delta", {}).get("content"):
                    self.first_at = self.first_at or time.monotonic()
                    self.pieces.append(choice["delta"]["content"])
                    self._first.set()

    def await_first_piece(self) -> Stream:
        """Return once the answer has begun and is not over yet."""
        assert self._first.wait(60), "no first piece within 60 s"
        assert not self.error, self.error
        assert self.running, "the stream was over before anything could happen to it"
        return self

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def await_end(self, within: float = 180) -> None:
        """The whole answer came, to its proper end."""
        self._thread.join(within)
        assert not self.running, f"the stream still runs after {within} s; {len(self.pieces)} pieces so far"
        assert not self.error, self.error
        assert self.complete, f"the stream ended without [DONE] after {len(self.pieces)} pieces"
        assert self.finish_reason == "length"


@dataclass
class Service:
    """An engine, a model and a gateway that serve."""

    namespace: str
    gateway: Gateway
    model: str


@dataclass(frozen=True)
class NodePort:
    """A node port and where it answers on the host."""

    node_port: int
    host_port: int


def read_key(kube: Kube, namespace: str, secret: str) -> str:
    """A generated key."""
    found = kube.get("secrets", namespace, secret)
    assert found, f"no Secret {secret} in {namespace}"
    return base64.b64decode(found["data"]["apiKey"]).decode()
