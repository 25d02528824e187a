"""One engine replica as a fluid model of continuous batching with chunked prefill.

A decode step takes `step + per_sequence × sequences + per_token × resident tokens`; while a prompt is being read, each
step also carries one chunk of it. Requests are admitted in order while their number and their tokens fit; there is no
preemption and no prefix cache. The default is Llama-3.1-8B in bf16 on one A100-40G: 75 tokens/s for one stream as
published, about 17 % slower than published at eight streams.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from sim.traces import Trace


@dataclass(frozen=True)
class Engine:
    """What one replica can do."""

    step: float = 0.0130
    per_sequence: float = 0.00002
    per_token: float = 8.5e-8
    prompt_tokens_per_second: float = 12000.0
    chunk: int = 2048
    max_sequences: int = 256
    cache_tokens: int = 130_000


class Replica:
    """A replica from its creation to its end; time moves on only in `advance`."""

    __slots__ = (
        "born", "cached", "chunk_seconds", "draining", "ended", "engine", "number", "outstanding", "progress", "prompt_left",
        "queue", "reading", "ready", "running", "time", "trace", "version",
    )  # fmt: skip

    def __init__(self, number: int, born: float, engine: Engine, trace: Trace) -> None:
        self.number, self.born, self.engine, self.trace = number, born, engine, trace
        self.ready = self.draining = self.ended = False
        self.time = born
        self.progress = 0.0  # tokens that a sequence present from the start would have by now
        self.running: list[tuple[float, int]] = []  # (progress at which it is done, request)
        self.cached = 0
        self.queue: deque[int] = deque()
        self.reading = -1  # the request whose prompt is being read
        self.prompt_left = 0.0
        self.outstanding = 0
        self.version = 0
        self.chunk_seconds = engine.chunk / engine.prompt_tokens_per_second

    @property
    def active(self) -> int:
        """Requests that it works on."""
        return len(self.running) + (self.reading >= 0)

    def _decode_seconds(self) -> float:
        engine = self.engine
        return engine.step + engine.per_sequence * len(self.running) + engine.per_token * self.cached

    def advance(self, now: float) -> None:
        """Work until now."""
        passed = now - self.time
        self.time = now
        if passed <= 0:
            return
        if self.reading >= 0:
            cycle = self.chunk_seconds + self._decode_seconds() - self.engine.step
            self.prompt_left -= self.engine.chunk / cycle * passed
            if self.running:
                self.progress += passed / cycle
        elif self.running:
            self.progress += passed / self._decode_seconds()

    def next_event(self) -> float:
        """When a prompt is read or an answer complete, if nothing else happens."""
        if self.reading >= 0:
            cycle = self.chunk_seconds + self._decode_seconds() - self.engine.step
            soonest = max(0.0, self.prompt_left) / self.engine.chunk * cycle
            if self.running:
                soonest = min(soonest, (self.running[0][0] - self.progress) * cycle)
        elif self.running:
            soonest = (self.running[0][0] - self.progress) * self._decode_seconds()
        else:
            return math.inf
        return self.time + max(soonest, 0.0)

    def admit(self) -> None:
        """Begin with the next waiting request if there is room."""
        if self.reading >= 0 or not self.queue or len(self.running) >= self.engine.max_sequences:
            return
        request = self.queue[0]
        tokens = self.trace.prompt[request] + self.trace.output[request]
        if self.running and self.cached + tokens > self.engine.cache_tokens:
            return
        self.queue.popleft()
        self.cached += tokens
        self.reading = request
        self.prompt_left = float(self.trace.prompt[request])

    def step(self) -> tuple[int, float, list[int]]:
        """What has happened by now: the request with a first token (or -1) and when, and the finished ones."""
        first, first_at, done = -1, 0.0, []
        if self.reading >= 0 and self.prompt_left <= 1e-6:
            first, first_at = self.reading, self.time + self._decode_seconds()
            self.reading = -1
            more = self.trace.output[first] - 1
            if more > 0:
                heapq.heappush(self.running, (self.progress + more, first))
            else:
                done.append(first)
        while self.running and self.running[0][0] <= self.progress + 1e-6:
            done.append(heapq.heappop(self.running)[1])
        for request in done:
            self.cached -= self.trace.prompt[request] + self.trace.output[request]
            self.outstanding -= 1
        self.admit()
        return first, first_at, done

    def unfinished(self) -> list[int]:
        """What would be lost if it ended now."""
        return (
            [request for _, request in self.running] + list(self.queue) + ([self.reading] if self.reading >= 0 else [])
        )
