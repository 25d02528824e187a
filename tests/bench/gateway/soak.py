"""`make soak`: half an hour of mixed load on Stoker's gateway; its memory must not grow. Writes docs/benchmarks/soak.{md,png}."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests")]

from bench.gateway.gateways import MODELS, OTHER_KEYS, Stoker  # noqa: E402
from bench.gateway.processes import memory_mb  # noqa: E402
from bench.gateway.tools import Heard, Load, MockEngine, run_load  # noqa: E402

PAGE = ROOT / "docs/benchmarks/soak.md"
PICTURE = PAGE.with_suffix(".png")
SETTLED_SECONDS = 120
"""What is there by then is taken for needed."""
LOOK_SECONDS = 5
LIMIT = 1.1
STREAMS, CHUNKS, GAP_US = 200, 100, 50_000
RATE = 100
CHANGE_SECONDS = 10
"""How often the keys change, and with them what Envoy and policy have read."""


@dataclass
class Memory:
    """What the processes took, looked at again and again."""

    seconds: list[float] = field(default_factory=list)
    envoy: list[float] = field(default_factory=list)
    policy: list[float] = field(default_factory=list)
    """Supervisor, policy and relay."""

    def ratio(self, megabytes: list[float]) -> float:
        """Mean of the last minute to that of the minute after it has settled."""
        last = self.seconds[-1]
        return _mean(megabytes, self.seconds, last - 60, last) / _mean(
            megabytes, self.seconds, SETTLED_SECONDS, SETTLED_SECONDS + 60
        )


def main() -> int:
    """1 when memory has grown by more than a tenth, or anything was answered wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--no-page", action="store_true", help="print, and write nothing")
    chosen = parser.parse_args()
    if chosen.minutes * 60 < SETTLED_SECONDS + 60:
        parser.error(f"at least {(SETTLED_SECONDS + 60) / 60:g} minutes")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-soak-")))
        engine = MockEngine()
        stack.callback(engine.stop)
        stoker = Stoker(folder, engine.ports)
        stoker.start()
        stack.callback(stoker.stop)
        memory, heard = soak(stoker, chosen.minutes * 60)
    bad = sum(one.bad + one.unfinished for one in heard)
    ratios = {"Envoy": memory.ratio(memory.envoy), "policy and relay": memory.ratio(memory.policy)}
    for name, ratio in ratios.items():
        print(f"  {'ok    ' if ratio <= LIMIT else 'MISSED'} {name}: {ratio:.3f} (target ≤ {LIMIT})")
    print(f"  {'ok    ' if not bad else 'MISSED'} {sum(one.good for one in heard)} good answers, {bad} others")
    if not chosen.no_page:
        draw(memory, PICTURE)
        PAGE.write_text(page(chosen.minutes, memory, ratios, sum(one.good for one in heard), bad))
        print(f"written: {PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")
    return 0 if not bad and all(ratio <= LIMIT for ratio in ratios.values()) else 1


def soak(stoker: Stoker, seconds: float) -> tuple[Memory, list[Heard]]:
    """Streams, plain calls at a rate, and keys that come and go."""
    memory = Memory()
    loads = (
        Load(STREAMS, seconds, warmup=0, chunks=CHUNKS, gap_us=GAP_US),
        Load(50, seconds, rate=RATE, warmup=0),
    )
    with ThreadPoolExecutor(len(loads)) as pool:
        running = [pool.submit(run_load, stoker.port, stoker.key, MODELS, load) for load in loads]
        began, changed = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            look(stoker, memory, now)
            if now >= changed * CHANGE_SECONDS:
                changed += 1
                stoker.config.keys[-1] = dict(stoker.config.keys[-1], name=f"changed-{changed}")
                stoker.config.apply(stoker.kubernetes)
            time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - began - now)))
        return memory, [one.result(timeout=120) for one in running]


def look(stoker: Stoker, memory: Memory, now: float) -> None:
    supervisor, envoy = ([process.pid] for process in (stoker.pod.supervisor, stoker.pod.envoy) if process)
    memory.seconds.append(now)
    memory.policy.append(memory_mb(supervisor, "Rss"))
    memory.envoy.append(memory_mb(envoy, "Rss"))


def page(minutes: float, memory: Memory, ratios: dict[str, float], good: int, bad: int) -> str:
    rows = [
        f"| {name} | {ratio:.3f} | ≤ {LIMIT} | {'yes' if ratio <= LIMIT else '**no**'} |"
        for name, ratio in ratios.items()
    ]
    return "\n".join(
        [
            f"# The gateway's memory over {minutes:g} minutes",
            "",
            "    make soak",
            "",
            f"A whole gateway pod on loopback (Envoy with one worker, policy, relay; {OTHER_KEYS + 1:,} keys) before a mock engine: {STREAMS} streams at",
            f"a time with {1_000_000 // GAP_US} chunks a second each, {RATE} plain calls a second, and a change of the keys every {CHANGE_SECONDS} s. Resident memory: mean of",
            f"the last minute to that of the minute after the first {SETTLED_SECONDS // 60}. {good:,} answers were right, {bad} were not.",
            f"Python {platform.python_version()}, {os.cpu_count()} cores.",
            "",
            "| process | end : after two minutes | target | met |",
            "| --- | ---: | ---: | --- |",
            *rows,
            "",
            "![Memory of Envoy and of policy and relay](soak.png)",
            "",
        ]
    )


def draw(memory: Memory, path: Path) -> None:
    """Write the PNG; its library is the simulator's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))
    panel = figure.subplots()
    minutes = [second / 60 for second in memory.seconds]
    for name, values in (("Envoy", memory.envoy), ("policy and relay", memory.policy)):
        panel.plot(minutes, values, label=name)
    panel.set_ylim(0)
    panel.set_xlabel("minutes")
    panel.set_ylabel("MB")
    panel.legend(loc="lower right")
    panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})


def _mean(values: list[float], seconds: list[float], start: float, end: float) -> float:
    chosen = [value for value, second in zip(values, seconds, strict=True) if start <= second <= end]
    return sum(chosen) / len(chosen)


if __name__ == "__main__":
    sys.exit(main())
