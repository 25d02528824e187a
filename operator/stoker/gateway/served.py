"""What the relay makes of the access log: each line goes to standard output, as people read it, and is counted by model for /metrics.

Envoy writes a line once. Its own second log and its statistics of the same request cost it twenty microseconds, this costs three.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from stoker.gateway.access_log import LogReader
from stoker.gateway.endings import Line, parse_lines
from stoker.gateway.state import write_file

LOOK_SECONDS = 0.25
"""Between two looks at the log; people and Prometheus can wait."""
PIECE = 128 << 10
"""Bytes of the log at a time: a few hundred lines, of which the objects stay in the processor's caches."""
PREFIX = "stoker_gateway_served_"
BOUNDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000)  # fmt: skip
"""Of the histograms, in milliseconds; an answer may take an hour."""
TOKEN_BOUNDS = (1, 2, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000, 2500)
"""Of the time for one token."""
TIMES = {"first_byte": BOUNDS, "duration": BOUNDS, "token": TOKEN_BOUNDS}
MEANINGS = {
    "first_byte": "Time from a request until the first byte of its answer.",
    "duration": "Time from a request until the end of its answer.",
    "token": "Mean time between two tokens of a streamed answer.",
}
FEWEST_TOKENS = 8
"""That tell something of the time between two of them: the log counts in milliseconds."""
STREAMS = ("text/event-stream", "application/x-ndjson")
TOKENS = ("prompt", "completion")


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0

    def add(self, milliseconds: float) -> None:
        self.counts[bisect_left(self.bounds, milliseconds)] += 1
        self.total += milliseconds


class Served:
    """Requests, times and tokens, by the model's served name.

    Names are the policy's, so there are as many series as models were published while the relay ran.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: dict[str, Counter[str]] = {name: Counter() for name in TOKENS}
        self._times: dict[str, dict[str, _Histogram]] = {name: {} for name in TIMES}

    def count(self, lines: Iterable[Line]) -> None:
        """Lines of the log."""
        for line in lines:
            model, code = line.get("model"), line.get("code", 0)
            if not isinstance(model, str) or not isinstance(code, int):
                continue
            model = model.replace("\\", "\\\\").replace('"', '\\"')
            self._requests[model, code] += 1
            for name in TOKENS:
                if tokens := line.get(name):
                    self._tokens[name][model] += int(tokens)
            for name, milliseconds in _times(line):
                histograms = self._times[name]
                if (histogram := histograms.get(model)) is None:
                    histogram = histograms[model] = _Histogram(TIMES[name])
                histogram.add(milliseconds)

    def text(self) -> bytes:
        """In Prometheus' form."""
        return "".join(f"{line}\n" for line in self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        yield f"# HELP {PREFIX}requests_total Requests that an engine has answered, or should have."
        yield f"# TYPE {PREFIX}requests_total counter"
        for (model, code), count in self._requests.items():
            yield f'{PREFIX}requests_total{{model="{model}",code="{code}"}} {count}'
        for name, tokens in self._tokens.items():
            yield f"# HELP {PREFIX}{name}_tokens_total Tokens as the engines count them."
            yield f"# TYPE {PREFIX}{name}_tokens_total counter"
            for model, count in tokens.items():
                yield f'{PREFIX}{name}_tokens_total{{model="{model}"}} {count}'
        for name, histograms in self._times.items():
            series = f"{PREFIX}{name}_milliseconds"
            yield f"# HELP {series} {MEANINGS[name]}"
            yield f"# TYPE {series} histogram"
            for model, histogram in histograms.items():
                yield from _buckets(series, model, histogram)


def _times(line: Line) -> Iterator[tuple[str, float]]:
    """What is known of how long it took."""
    first, whole, tokens = line.get("first_byte_ms"), line.get("ms"), line.get("completion")
    if isinstance(first, int):
        yield "first_byte", first
    if isinstance(whole, int):
        yield "duration", whole
        # Of plain answers the first byte is the last one, too; the first token of a stream is in the time until its first byte.
        streams = str(line.get("type", "")).startswith(STREAMS)
        if streams and isinstance(first, int) and isinstance(tokens, int | float) and tokens >= FEWEST_TOKENS:
            yield "token", round((whole - first) / (tokens - 1), 3)


def _buckets(series: str, model: str, histogram: _Histogram) -> Iterator[str]:
    sofar = 0
    for bound, count in zip((*map("{:g}".format, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        sofar += count
        yield f'{series}_bucket{{model="{model}",le="{bound}"}} {sofar}'
    yield f'{series}_sum{{model="{model}"}} {histogram.total}'
    yield f'{series}_count{{model="{model}"}} {sofar}'


def _for_people(line: Line) -> bytes:
    """With what the policy and the engine said beside the rest, and without what only this gateway understands."""
    line.pop("ticket", None)
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def write_out(data: bytes) -> None:
    """To standard output, as every line of this process; behind a reader that is slow it waits."""
    sys.stdout.flush()
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


async def follow_log(folder: Path, served: Served, write: Callable[[bytes], None] = write_out) -> None:
    """Endless. The place is kept, so that what ends while no relay runs is not lost; what one has written when it is killed in that moment comes twice."""
    place = folder / "passed-on"
    reader = _reader(folder, place)
    while True:
        data = reader.read(PIECE)
        if data:
            lines = list(parse_lines(data))
            served.count(lines)
            # Not in the loop's thread: who reads a container's output may let it wait.
            await asyncio.to_thread(write, b"".join(map(_for_people, lines)))
            write_file(place, f"{reader.number} {reader.offset}".encode())
        else:
            await asyncio.sleep(LOOK_SECONDS)


def _reader(folder: Path, place: Path) -> LogReader:
    with contextlib.suppress(FileNotFoundError, ValueError):
        number, offset = map(int, place.read_text().split())
        return LogReader(folder, number, offset)
    return LogReader(folder, 1)
