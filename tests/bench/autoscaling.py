"""`make bench-autoscaling`: three hundred models that scale themselves, on a control plane with KWOK nodes.

API server, controllers and the operator are real, gateways and engines are fakes that answer under the addresses of KWOK's pods.
Writes its table to docs/benchmarks/autoscaling-loop.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests")]

from awake import awake  # noqa: E402
from bench.notes import Notes  # noqa: E402
from bench.scale import cpu_seconds, memory_mib  # noqa: E402
from integration.control_plane import CONTROL_PLANE_GOGC, OperatorProcess, control_plane  # noqa: E402
from integration.objects import Object, engine, gateway  # noqa: E402
from integration.scaling_scene import QUICK, Scene, scene  # noqa: E402

from stoker.cluster.resource_types import (  # noqa: E402
    API_GATEWAYS,
    INFERENCE_ENGINES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    ResourceType,
)

NAMESPACE = "scaling"
PAGE = ROOT / "docs/benchmarks/autoscaling-loop.md"
CLUSTER = "stoker-bench-autoscaling"
# Nobody measures how fast they come: the control plane shall not be busy with them still when the loop is looked at.
CREATORS = 2
LIMIT_SECONDS = 300
MEASURED_SECONDS = 60
SLEEPERS = 21
# After a minute a model tells for the first time what was learned of it; from then on there is hardly anything new.
SETTLE_SECONDS = 60
MOST_STEADY_WRITES = 30


@dataclass
class Bench(Notes):
    """The run so far."""

    stage: Scene
    operator: OperatorProcess
    models: int


async def main() -> int:
    """The whole run; 1 when a target is missed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--models", type=int, default=300)
    arguments.add_argument("--no-page", action="store_true", help="do not write docs/benchmarks/autoscaling-loop.md")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, control_plane(CLUSTER, Path(folder), kwok_nodes=4) as plane:
        operator = OperatorProcess(plane, "bench")
        async with plane.client() as client, scene(plane, client, NAMESPACE) as stage:
            bench = Bench(stage, operator, chosen.models)
            try:
                await client.create(
                    NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
                )
                operator.start()
                await prepare(bench)
                traffic = asyncio.create_task(busy(bench))
                await measure(bench, "while the traffic begins")
                await asyncio.sleep(SETTLE_SECONDS)
                await measure(bench, "of steady traffic", steady=True)
                traffic.cancel()
                await wake(bench)
            finally:
                operator.stop()
    if not chosen.no_page:
        PAGE.write_text(page(bench))
        print(f"written: {PAGE.relative_to(ROOT)}")
    return 0 if bench.met else 1


async def prepare(bench: Bench) -> None:
    """Two gateways' pods, the models with a replica each, and some that sleep."""
    stage = bench.stage
    running = [stage.scaling_model(f"model-{number:03d}", {"maxReplicas": 4}) for number in range(bench.models)]
    asleep = [stage.scaling_model(f"sleeper-{number:02d}", QUICK) for number in range(SLEEPERS)]
    todo = iter(
        [
            (INFERENCE_ENGINES, engine()),
            (API_GATEWAYS, gateway(replicas=2, auth={"adminKey": False})),
            *((MODEL_DEPLOYMENTS, each) for each in (*running, *asleep)),
        ]
    )

    async def create() -> None:
        resource: ResourceType
        body: Object
        for resource, body in todo:
            await stage.client.create(resource, {**body, "metadata": {**body["metadata"], "namespace": NAMESPACE}})

    await asyncio.gather(*(create() for _ in range(CREATORS)))
    await stage.until(lambda: sum(map(len, stage.endpoints.values())) >= bench.models, LIMIT_SECONDS)
    await stage.meet_gateway()
    for each in (*running, *asleep):
        stage.gateway_model(each["metadata"]["name"])
    while bench.operator.metrics()["stoker_autoscaling_gateway_streams"] < len(stage.pods.gateways):
        await asyncio.sleep(0.2)
    await asyncio.sleep(10)


async def busy(bench: Bench) -> None:
    """Requests for every model at either gateway, and some of them in the engines."""
    chance = random.Random(3)
    while True:
        for fake in bench.stage.pods.gateways.values():
            for name, model in fake.models.items():
                if "/model-" in name:
                    came = chance.randint(0, 2)
                    model.arrivals += came
                    model.completions += came
        for load in bench.stage.pods.engines.values():
            load.running = chance.randint(0, 2)
        await asyncio.sleep(1.0)


class Disturbance:
    """For how long at most a thread that wants next to nothing waited for a core: what the rest of the machine does to us."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Disturbance:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            time.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - started - 0.01)


async def measure(bench: Bench, when: str, *, steady: bool = False) -> None:
    """A minute of the loop under load: its period, its CPU, its memory, and what is written."""
    operator, pid = bench.operator, bench.operator.pid
    began = operator.metrics()
    writes, cpu, started = operator.writes(), cpu_seconds(pid), time.monotonic()
    asked = bench.stage.gateway.asked_at
    asked.clear()
    with Disturbance() as disturbance:
        await asyncio.sleep(MEASURED_SECONDS)
    seconds = time.monotonic() - started
    share = (cpu_seconds(pid) - cpu) / seconds * 100
    written = {name: count - writes.get(name, 0) for name, count in operator.writes().items()}
    ended = operator.metrics()

    def rounds(name: str) -> float:
        """How many more the operator's histogram counts than at the beginning."""
        return ended[f"stoker_autoscaling_{name}"] - began[f"stoker_autoscaling_{name}"]

    in_time = rounds('period_seconds_bucket{le="2.5"}') - rounds('period_seconds_bucket{le="1.5"}')
    count = rounds("period_seconds_count")
    print(f"{seconds:.0f} s {when}, load average {os.getloadavg()[0]:.1f}:", flush=True)
    bench.note(
        f"rounds that began 2 s ± 0.5 after the one before, {seconds:.0f} s {when}",
        f"{in_time:.0f} of {count:.0f}",
        "all",
        in_time == count,
    )
    seen = sorted(later - earlier for earlier, later in pairwise(asked))
    bench.note(
        "the same as a gateway sees it: shortest, median, longest period",
        f"{seen[0]:.2f}, {statistics.median(seen):.2f}, {seen[-1]:.2f} s",
        "–",
    )
    bench.note("longest that an idle thread waited for a core meanwhile", f"{disturbance.longest:.2f} s", "–")
    bench.note("one round, mean", f"{rounds('round_seconds_sum') / rounds('round_seconds_count'):.2f} s", "–")
    bench.note("operator's share of a core", f"{share:.1f} %", "≤ 30 %", share <= 30)
    peak = memory_mib(pid, "VmHWM")
    bench.note("operator's largest resident memory so far", f"{peak:.0f} MiB", "≤ 250 MiB", peak <= 250)
    total = sum(written.values())
    bench.note(
        "writes, leases aside",
        f"{total:.0f}",
        f"≤ {MOST_STEADY_WRITES}" if steady else "–",
        not steady or total <= MOST_STEADY_WRITES,
    )
    for name, many in sorted(written.items(), key=lambda item: -item[1]):
        if many:
            print(f"         {many:5.0f} {name}", flush=True)


async def wake(bench: Bench) -> None:
    """From a request that a gateway holds to the Deployment's replicas, as a watch tells them."""
    took = []
    for number in range(SLEEPERS):
        name = f"sleeper-{number:02d}"
        started = awake()
        call = asyncio.create_task(bench.stage.call(name))
        await bench.stage.until(lambda name=name: bench.stage.wanted(name) == 1)  # type: ignore[misc]
        took.append(bench.stage.replicas[name][-1][0] - started)
        await call
    median = statistics.median(took)
    bench.note(
        f"request for a sleeping model → replicas written, p50 of {SLEEPERS}",
        f"{median * 1000:.0f} ms (longest {max(took) * 1000:.0f} ms)",
        "≤ 50 ms",
        median <= 0.05,
    )


def page(bench: Bench) -> str:
    """docs/benchmarks/autoscaling-loop.md."""
    return f"""# The autoscaler's loop with {bench.models} models

    make bench-autoscaling

A control plane of its own with KWOK nodes, one ApiGateway with two pods, {bench.models} ModelDeployments with `autoscaling` and at least one replica each,
{SLEEPERS} more that sleep, and the operator as a process with the chart's rights. Gateways and engines are fakes of one Python process that answers under the addresses of their pods;
every model gets about two requests a second, from one moment on. All of it shares the cores of one machine ({os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end, Python {platform.python_version()}; the control plane with GOGC={CONTROL_PLANE_GOGC}).

{bench.table}
"""


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
