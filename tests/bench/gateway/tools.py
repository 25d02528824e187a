"""The bench's own two programs, in C so that they are never the limit: a mock engine and a load generator."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from ports import free_port

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("STOKER_CACHE", Path.home() / ".cache" / "stoker")) / "bench"
PROMPT = (
    "You are a helpful assistant of a small team. Answer briefly, in plain words, and say so when you do not know. " * 5
)


def compile_tool(name: str) -> Path:
    """The program of NAME.c, made once for each version of its source; installs gcc where there is none."""
    source = HERE / f"{name}.c"
    program = CACHE / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        if not shutil.which("gcc"):
            # A fresh machine has no lists of packages yet.
            for step in (["update"], ["install", "-y", "--no-install-recommends", "gcc", "libc6-dev"]):
                subprocess.run(["apt-get", "-qq", *step], check=True, stdout=subprocess.DEVNULL)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", "-o", unfinished, source], check=True)
        unfinished.rename(program)
    return program


@dataclass(frozen=True)
class Counts:
    """What the engine has served since its start."""

    requests: int
    chunks: int
    finished: int
    aborted: int
    open: int

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))


class MockEngine:
    """One process that is two replicas: it serves the same on each of its ports."""

    def __init__(self, ports: int = 2) -> None:
        self.ports = [free_port() for _ in range(ports)]
        self._process = subprocess.Popen([compile_tool("engine"), *map(str, self.ports)])
        deadline = time.monotonic() + 5
        while True:
            try:
                self.counts()
            except OSError:
                if time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.01)
            else:
                return

    def counts(self) -> Counts:
        """Asked of the process itself, so that it does not depend on what the gateway under test says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}/stats", timeout=5) as answer:
            return Counts(**json.load(answer))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Load:
    """What is asked of a gateway."""

    connections: int
    seconds: float
    rate: float = 0
    """Requests a second; 0: as many as there are answers."""
    warmup: float = 0.5
    chunks: int = 0
    """Of each stream; 0 for plain answers."""
    gap_us: int = 0
    """Between two chunks."""


@dataclass(frozen=True)
class Heard:
    """What the load generator saw; all times in milliseconds."""

    good: int
    bad: int
    last_bad_status: int
    per_second: float
    reconnects: int
    late: int
    """Requests that were due while no connection was free."""
    unfinished: int
    cpu: float
    first_byte_ms: list[float]
    """Median and 99th percentile, as in delivery_ms; empty where nothing was measured."""
    delivery_ms: list[float]


def body(model: str, load: Load) -> str:
    """About 700 bytes; the fields that steer the mock engine are ones that every gateway lets through."""
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "What is the capital of France?"}]
    more: dict[str, object] = {}
    if load.chunks:
        more = {
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": load.chunks,
            "seed": load.gap_us,
        }
    return json.dumps({"model": model, "messages": messages, **more})


def load_command(port: int, key: str, models: Iterable[str], load: Load) -> list[str]:
    numbers = (port, load.connections, load.rate, load.warmup, load.seconds, load.chunks)
    header = f"authorization: Bearer {key}\r\n" if key else ""
    return [str(compile_tool("load")), *map(str, numbers), header, *(body(model, load) for model in models)]


def run_load(port: int, key: str, models: Iterable[str], load: Load) -> Heard:
    done = subprocess.run(
        load_command(port, key, models, load), capture_output=True, text=True, timeout=load.warmup + load.seconds + 90
    )
    if done.returncode:
        raise RuntimeError(f"the load generator ended with {done.returncode}: {done.stderr.strip()}")
    return Heard(**json.loads(done.stdout))
