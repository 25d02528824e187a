"""`make bench-scale`: a thousand ModelDeployments at once on a control plane with KWOK nodes.

Everything runs on this machine and shares its cores: etcd, API server, controllers, KWOK and the operator.
Writes its table to docs/benchmarks/operator.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests")]

from bench.notes import Notes  # noqa: E402
from integration.control_plane import CONTROL_PLANE_GOGC, ControlPlane, OperatorProcess, control_plane  # noqa: E402

from stoker.cluster.client import KubeClient, ResourceType  # noqa: E402
from stoker.cluster.resource_types import (  # noqa: E402
    API_GATEWAYS,
    DEPLOYMENTS,
    INFERENCE_ENGINES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
)

NAMESPACE = "scale"
PAGE = ROOT / "docs/benchmarks/operator.md"
CLUSTER = "stoker-bench-scale"
CHILDREN = (DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS, NETWORK_POLICIES)
CREATORS = 8
LIMIT_SECONDS = 600
IDLE_SECONDS = 60
SINGLES = 21
Object = dict[str, Any]


@dataclass
class Bench(Notes):
    """The run so far."""

    plane: ControlPlane
    operator: OperatorProcess
    client: KubeClient
    models: int


def model(name: str) -> Object:
    """One ModelDeployment of the many."""
    return {
        "apiVersion": MODEL_DEPLOYMENTS.api_version,
        "kind": MODEL_DEPLOYMENTS.kind,
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {
            "engineRef": {"name": "llama-cpp"},
            "source": {"uri": f"https://models.example.com/{name}.gguf"},
            "contextLength": 4096,
        },
    }


async def main() -> int:
    """The whole run; 1 when a target is missed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--models", type=int, default=1000)
    arguments.add_argument("--no-page", action="store_true", help="do not write docs/benchmarks/operator.md")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, control_plane(CLUSTER, Path(folder), kwok_nodes=10) as plane:
        operator = OperatorProcess(plane, "bench-1")
        async with plane.client() as client:
            bench = Bench(plane, operator, client, chosen.models)
            try:
                await prepare(bench)
                await storm(bench)
                await idle(bench)
                await singles(bench)
                await restart(bench)
            finally:
                bench.operator.stop()
    if not chosen.no_page:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(bench))
        print(f"written: {PAGE.relative_to(ROOT)}")
    return 0 if bench.met else 1


async def prepare(bench: Bench) -> None:
    """The operator, an engine and a gateway that publishes every model."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await bench.client.create(NAMESPACES, namespace)
    bench.operator.start()
    for resource, name, spec in (
        (INFERENCE_ENGINES, "llama-cpp", {"type": "LlamaCpp", "accelerator": {"vendor": "None"}}),
        (API_GATEWAYS, "gateway", {}),
    ):
        metadata = {"namespace": NAMESPACE, "name": name}
        await bench.client.create(
            resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
        )
        await until_ready(bench, resource, name)


async def storm(bench: Bench) -> None:
    """All models at once, and one more when half of them are ready."""
    names = [f"model-{number:04d}" for number in range(bench.models)]
    todo = iter(names)

    async def create() -> None:
        for name in todo:
            await bench.client.create(MODEL_DEPLOYMENTS, model(name))

    bench.note("load average of the machine before that", f"{os.getloadavg()[0]:.1f}", "–", True)
    cpu, others = cpu_seconds(bench.operator.pid), control_plane_cpu_seconds()
    before = bench.operator.metrics()
    started = time.monotonic()
    ready: set[str] = set()
    late: asyncio.Task[tuple[float, float]] | None = None
    creating = asyncio.gather(*(create() for _ in range(CREATORS)))
    created_after = 0.0
    async with asyncio.timeout(LIMIT_SECONDS):
        async for event in bench.client.watch(MODEL_DEPLOYMENTS, NAMESPACE):
            for obj in event.items or [event.object]:
                if obj and obj["metadata"]["name"] in names and is_right(obj):
                    ready.add(obj["metadata"]["name"])
            if creating.done() and not created_after:
                created_after = time.monotonic() - started
            if len(ready) >= bench.models // 2 and late is None:
                late = asyncio.create_task(one_more(bench, "late"))
            if len(ready) == bench.models:
                break
        took = time.monotonic() - started
        await creating
        assert late is not None
        late_deployment, late_pod = await late
    print(f"  (created after {created_after:.1f} s)")
    for resource in CHILDREN:
        there, _ = await bench.client.list_versions(resource, NAMESPACE)
        missing = [name for name in names if (NAMESPACE, name) not in there]
        assert not missing, f"{len(missing)} {resource.plural} are missing, such as {missing[0]}"
    bench.note(
        f"{bench.models} ModelDeployments created at once → all children there, all statuses right",
        f"{took:.1f} s",
        "≤ 60 s",
        took <= 60,
    )
    half = "one more, created when half of them were ready"
    bench.note(f"{half} → its Deployment exists", f"{late_deployment:.2f} s", "≤ 5 s", late_deployment <= 5)
    # The Deployment waits for nobody of ours; the pod stands in the queues of Kubernetes' own controllers.
    bench.note(f"{half} → its pod exists", f"{late_pod:.2f} s", "≤ 5 s", late_pod <= 5)
    used = cpu_seconds(bench.operator.pid) - cpu
    others = control_plane_cpu_seconds() - others
    bench.note(
        "control plane's CPU for that", f"{others:.0f} s ({others / bench.models * 1000:.0f} ms each)", "–", True
    )
    bench.note("operator's CPU for that", f"{used:.1f} s ({used / bench.models * 1000:.0f} ms each)", "–", True)
    writes, passes = counts(before, bench.operator.metrics())
    bench.note("operator's writes for that", f"{writes / bench.models:.1f} each", "–", True)
    bench.note("operator's passes for that", f"{passes / bench.models:.1f} each", "–", True)
    peak = memory_mib(bench.operator.pid, "VmHWM")
    bench.note("operator's largest resident memory", f"{peak:.0f} MiB", "≤ 250 MiB", peak <= 250)


async def idle(bench: Bench) -> None:
    """Nothing happens: nothing may be written."""
    await until_quiet(bench)
    before, cpu, started = sum(bench.operator.writes().values()), cpu_seconds(bench.operator.pid), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - started
    writes = sum(bench.operator.writes().values()) - before
    share = (cpu_seconds(bench.operator.pid) - cpu) / seconds * 100
    bench.note(f"idle, writes in {seconds:.0f} s, leases aside", f"{writes:.0f}", "0", writes == 0)
    bench.note("idle, share of a core", f"{share:.1f} %", "≤ 2 %", share <= 2)


async def singles(bench: Bench) -> None:
    """One more among the thousand, again and again."""
    times: list[float] = []
    for number in range(SINGLES):
        _, pod = await one_more(bench, f"single-{number:02d}")
        times.append(pod)
        await asyncio.sleep(0.5)
    median = statistics.median(times)
    bench.note(
        f"one more among them → its pod exists, p50 of {SINGLES}",
        f"{median:.2f} s (largest {max(times):.2f} s)",
        "≤ 0.2 s",
        median <= 0.2,
    )


async def restart(bench: Bench) -> None:
    """A new process has to read everything, and to write nothing."""
    await until_quiet(bench)
    bench.operator.stop()
    started = time.monotonic()
    bench.operator = OperatorProcess(bench.plane, "bench-2")
    bench.operator.start()
    names = bench.models + SINGLES + 1
    while True:
        metrics = bench.operator.metrics()
        done = metrics.get('stoker_reconcile_total{kind="ModelDeployment",result="ok"}', 0)
        if done >= names and metrics["stoker_queue_depth"] + metrics["stoker_queue_running"] == 0:
            break
        assert time.monotonic() - started < LIMIT_SECONDS, metrics
        await asyncio.sleep(0.1)
    took = time.monotonic() - started
    writes = bench.operator.writes()
    bench.note("operator restarted → everything looked at", f"{took:.1f} s", "≤ 15 s", took <= 15)
    bench.note("writes for that, leases aside", f"{sum(writes.values()):.0f}", "0", not any(writes.values()))
    if any(writes.values()):
        print({name: value for name, value in writes.items() if value})
    settled = memory_mib(bench.operator.pid, "VmRSS")
    bench.note("operator's resident memory after the restart", f"{settled:.0f} MiB", "≤ 250 MiB", settled <= 250)


async def one_more(bench: Bench, name: str) -> tuple[float, float]:
    """Create a model; seconds until its Deployment and its pod exist."""
    selector = f"stoker.dev/model-deployment={name}"
    listed = [asyncio.Event(), asyncio.Event()]
    started = 0.0

    async def appears(resource: ResourceType, ready: asyncio.Event) -> float:
        async for event in bench.client.watch(resource, NAMESPACE, label_selector=selector):
            ready.set()
            if event.type == "ADDED":
                return time.monotonic() - started
        raise AssertionError("a watch never ends")

    async with asyncio.timeout(LIMIT_SECONDS):
        waiting = [
            asyncio.create_task(appears(kind, event)) for kind, event in zip((DEPLOYMENTS, PODS), listed, strict=True)
        ]
        for event in listed:
            await event.wait()
        started = time.monotonic()
        await bench.client.create(MODEL_DEPLOYMENTS, model(name))
        deployment, pod = await asyncio.gather(*waiting)
        return deployment, pod


async def until_ready(bench: Bench, resource: Any, name: str) -> None:
    """Wait for one object's Ready."""
    async with asyncio.timeout(60):
        async for event in bench.client.watch(resource, NAMESPACE, name=name):
            for obj in event.items or [event.object]:
                if obj and condition(obj, "Ready").get("status") == "True":
                    return


async def until_quiet(bench: Bench) -> None:
    """Wait until nothing has been written for five seconds."""
    last, since = -1.0, time.monotonic()
    while time.monotonic() - since < 5:
        writes = sum(bench.operator.writes().values())
        if writes != last:
            last, since = writes, time.monotonic()
        await asyncio.sleep(0.5)


def is_right(obj: Object) -> bool:
    """Whether a status says what is true: published, served, nothing under way."""
    status = obj.get("status") or {}
    return (
        condition(obj, "Ready").get("reason") == "Serving"
        and condition(obj, "Ready")["status"] == "True"
        and not condition(obj, "Reconciling")
        and status.get("readyReplicas") == 1
        and status.get("gateways") == [f"{NAMESPACE}/gateway"]
    )


def condition(obj: Object, kind: str) -> Object:
    """A condition by its type; empty where it is not there."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def counts(before: dict[str, float], after: dict[str, float]) -> tuple[float, float]:
    """Writes, leases aside, and passes over objects between two readings of the operator's metrics; shown one by one."""
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    writes = {
        n: v for n, v in grown.items() if n.startswith("stoker_api_writes_total") and 'resource="leases"' not in n
    }
    passes = {n: v for n, v in grown.items() if n.startswith("stoker_reconcile_total")}
    for name, value in (*writes.items(), *passes.items()):
        if value:
            print(f"    {name} {value:.0f}")
    return sum(writes.values()), sum(passes.values())


def cpu_seconds(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def control_plane_cpu_seconds() -> float:
    """CPU time of etcd, API server, controllers, scheduler and KWOK of this run."""
    found = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/clusters/{CLUSTER}/" in (process / "cmdline").read_text():
                found += cpu_seconds(int(process.name))
        except OSError:
            continue
    return found


def memory_mib(pid: int, name: str) -> float:
    """A memory figure of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def page(bench: Bench) -> str:
    """docs/benchmarks/operator.md."""
    return f"""# The operator with {bench.models} ModelDeployments

    make bench-scale

A control plane of its own (API server, etcd, controller-manager, scheduler) with ten KWOK nodes, one InferenceEngine, one ApiGateway that
publishes every model, and the operator as a process with the chart's rights. All of them share the cores of one machine
({os.cpu_count()} cores, Python {platform.python_version()}; the control plane with GOGC={CONTROL_PLANE_GOGC}). Each model is a Deployment, Service, ServiceAccount and NetworkPolicy; its pod is made by the real controllers and run by KWOK.

{bench.table}
"""


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
