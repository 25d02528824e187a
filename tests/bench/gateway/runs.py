"""The measured runs. What a gateway costs is its CPU divided by what the *engine* has counted meanwhile, never by its own word."""

from __future__ import annotations

import statistics
import subprocess
import time
from dataclasses import dataclass, field
from functools import partial

from bench.gateway.gateways import MODELS, NEW_MODELS, Gateway, Stoker
from bench.gateway.processes import cpu_seconds, memory_mb
from bench.gateway.tools import Counts, Heard, Load, MockEngine, load_command, run_load
from gateway.pod import NAMESPACE, until

CHUNKS = 100
CHUNK_GAP_US = 20_000
STREAMS = 100
SLOW_STREAMS = 20
"""For LiteLLM, which would not keep up with more."""
OPEN_STREAMS = 1000
LIGHT_RATE = 40
REPEATS = 10


@dataclass
class Numbers:
    """Of one gateway; one value for each round."""

    request_us: list[float] = field(default_factory=list)
    """CPU for one request."""
    chunk_us: list[float] = field(default_factory=list)
    """CPU for one chunk of a stream, with a hundredth of a request's."""
    per_second: list[float] = field(default_factory=list)
    """Requests, with one core."""
    first_byte_ms: list[float] = field(default_factory=list)
    """Median at a light load."""
    delivery_ms: list[list[float]] = field(default_factory=list)
    """Of a chunk: median and 99th percentile."""
    idle_mb: float = 0
    streams_mb: float = 0
    """More with a thousand streams."""


class Broken(Exception):
    """What came back was not what was asked for: nothing is measured with it."""


def run_requests(gateway: Gateway, engine: MockEngine, numbers: Numbers, seconds: float) -> None:
    """Plain answers, 64 callers who ask again at once."""
    heard, served, cpu = _run(gateway, engine, Load(64, seconds))
    numbers.per_second.append(heard.per_second)
    if gateway.pids:
        numbers.request_us.append(cpu * 1e6 / served.requests)


def run_chunks(gateway: Gateway, engine: MockEngine, numbers: Numbers, seconds: float) -> None:
    """Streams at the pace of a fast model."""
    streams = SLOW_STREAMS if gateway.name == "LiteLLM" else STREAMS
    load = Load(streams, seconds, warmup=0, chunks=CHUNKS, gap_us=CHUNK_GAP_US)
    heard, served, cpu = _run(gateway, engine, load)
    numbers.delivery_ms.append(heard.delivery_ms)
    if gateway.pids:
        numbers.chunk_us.append(cpu * 1e6 / served.chunks)


def run_light(gateway: Gateway, engine: MockEngine, numbers: Numbers, seconds: float) -> None:
    """A few requests a second: how long a caller waits who has the machine nearly to himself."""
    heard, _, _ = _run(gateway, engine, Load(20, seconds, rate=LIGHT_RATE, warmup=1))
    numbers.first_byte_ms.append(heard.first_byte_ms[0])


def run_memory(gateway: Gateway, engine: MockEngine, numbers: Numbers) -> None:
    """A thousand streams that say little; before any other load, so that nothing that was freed hides them."""
    numbers.idle_mb = memory_mb(gateway.pids)
    load = Load(OPEN_STREAMS, 1, warmup=0, chunks=8, gap_us=2_000_000)
    with subprocess.Popen(load_command(gateway.port, gateway.key, MODELS, load), stdout=subprocess.DEVNULL) as loading:
        try:
            until(lambda: engine.counts().open >= OPEN_STREAMS, "a thousand open streams", within=12)
            time.sleep(3)  # each has had chunks now
            numbers.streams_mb = memory_mb(gateway.pids) - numbers.idle_mb
        finally:
            loading.kill()
    until(lambda: engine.counts().open == 0, "the streams' end", within=30)


def run_revoked(stoker: Stoker) -> list[float]:
    """Seconds from the Secret without the key until the gateway refuses it."""
    seconds = []
    for number in range(REPEATS):
        secret = f"sk-leaving-{number}"
        stoker.config.key(f"leaving-{number}", secret)
        stoker.config.apply(stoker.kubernetes)
        _until_status(stoker, secret, 200)
        stoker.config.keys.pop()
        stoker.config.apply(stoker.kubernetes)
        began = time.monotonic()
        _until_status(stoker, secret, 401)
        seconds.append(time.monotonic() - began)
    return seconds


def run_ready(stoker: Stoker, engine: MockEngine) -> list[float]:
    """Seconds from the EndpointSlice with a model's first endpoint until that answers through the gateway."""
    seconds = []
    for model in NEW_MODELS:
        began = time.monotonic()
        stoker.kubernetes.put_endpoints(NAMESPACE, model, engine.ports[:1])
        until(partial(_answers, stoker, model), "an answer of the new endpoint")
        seconds.append(time.monotonic() - began)
    return seconds


def _until_status(stoker: Stoker, key: str, status: int) -> None:
    until(lambda: stoker.pod.request("GET", "/v1/models", key=key).status == status, f"an answer {status}")


def _answers(stoker: Stoker, model: str) -> bool:
    return stoker.pod.chat(model, key=stoker.key).status == 200


def median_ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios within each round: what slows a whole round down cancels out."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def _run(gateway: Gateway, engine: MockEngine, load: Load) -> tuple[Heard, Counts, float]:
    """What the load generator saw, what the engine served for it, and the gateway's CPU seconds."""
    before, used = engine.counts(), cpu_seconds(gateway.pids)
    heard = run_load(gateway.port, gateway.key, MODELS, load)
    cpu = cpu_seconds(gateway.pids) - used
    if heard.bad or heard.unfinished or not heard.good:
        raise Broken(
            f"{gateway.name}: {heard.good} good and {heard.bad} bad answers (the last with status"
            f" {heard.last_bad_status}), {heard.unfinished} unfinished"
        )
    return heard, engine.counts() - before, cpu
