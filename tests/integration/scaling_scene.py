"""Models that scale themselves on a real control plane: the operator and Kubernetes are real, gateways and engines are fakes.

KWOK gives pods addresses of 10.253.0.0/16; for these tests the machine answers for all of them, so the operator reaches a fake
gateway or agent under the address of every pod.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from awake import awake
from fake_pods import FakeGateway, FakePods, fake_pods
from integration.control_plane import ControlPlane
from integration.objects import GATEWAY, engine, gateway, model
from integration.waiting import PATIENCE, is_ready, until

from stoker.cluster.client import KubeClient, Object
from stoker.cluster.load import GATEWAY_PORT
from stoker.cluster.progress import AGENT_PORT
from stoker.cluster.resource_types import API_GATEWAYS, DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, SECRETS

KWOK_ADDRESSES = "10.253.0.0/16"
# As short as they may be, so that a model sleeps two rounds after its last request.
QUICK = {"minReplicas": 0, "maxReplicas": 3, "initialHoldSeconds": 1, "minHoldSeconds": 1, "maxHoldSeconds": 1}


@contextmanager
def addresses_of_kwok_pods() -> Iterator[None]:
    """This machine is every KWOK pod."""
    route = ["local", KWOK_ADDRESSES, "dev", "lo"]
    subprocess.run(["ip", "route", "replace", *route], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "del", *route], check=True)


@dataclass
class Scene:
    """A namespace with a gateway, and what its fake pods see of the cluster."""

    plane: ControlPlane
    client: KubeClient
    namespace: str
    pods: FakePods
    token: str = ""
    gateway_ip: str = ""
    endpoints: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Address of each pod that may get requests, by model and pod."""
    told: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))
    """What happened to each pod, in order and by model: starts, serves, out of routing, asked to go, gone."""
    replicas: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """When a Deployment's replicas were seen to change, and to what."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def gateway(self) -> FakeGateway:
        return self.pods.gateway(self.gateway_ip)

    def key(self, name: str) -> str:
        return f"{self.namespace}/{name}"

    def apply(self, *objects: Object) -> None:
        self.plane.apply(*objects, namespace=self.namespace)

    def scaling_model(self, name: str, autoscaling: Object | None = None, **spec: Any) -> Object:
        return model(name, autoscaling=autoscaling or QUICK, maxConcurrentRequests=2, **spec)

    async def open(self, *models: Object, replicas: int = 1) -> None:
        """Engine, gateway and models; back when the operator hears the gateway."""
        self.apply(engine(), gateway(replicas=replicas, auth={"adminKey": False}), *models)
        await until(self.client, API_GATEWAYS, self.namespace, GATEWAY, is_ready)
        for each in models:
            self.gateway_model(each["metadata"]["name"])
            await until(self.client, MODEL_DEPLOYMENTS, self.namespace, each["metadata"]["name"], is_ready)
        await self.meet_gateway()

    async def meet_gateway(self) -> None:
        """Be the gateway's pod, and wait until the operator listens to it."""
        secret = await self.client.get(SECRETS, self.namespace, f"{GATEWAY}-routes")
        assert secret is not None
        self.token = json.loads(base64.b64decode(secret["data"]["routes.json"]))["token"]
        there = await self.gateway_addresses()
        before = self.pods.gateways.pop(self.gateway_ip, None) if self.gateway_ip not in there else None
        self.gateway_ip = there[0]
        for ip in there:
            self.pods.gateway(ip).token = self.token
        if before is not None:
            for name in before.models:
                self.gateway.model(name)
        async with asyncio.timeout(90):
            await self.gateway.streaming.wait()

    async def gateway_addresses(self) -> list[str]:
        """Of the pods that serve; a gateway has others, too."""
        selector = f"stoker.dev/api-gateway={GATEWAY},app.kubernetes.io/component=gateway"
        async with asyncio.timeout(90):
            while True:
                pods, _ = await self.client.list(PODS, self.namespace, label_selector=selector)
                there = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
                if there and all(pod["status"].get("podIP") for pod in there):
                    return [pod["status"]["podIP"] for pod in there]
                await asyncio.sleep(0.2)

    def gateway_model(self, name: str) -> None:
        for gateway_pod in self.pods.gateways.values():
            gateway_pod.model(self.key(name))

    async def watch_pods(self) -> None:
        """What a gateway sees: pods that are ready, routable and staying."""
        async for event in self.client.watch(PODS, self.namespace, label_selector="stoker.dev/model-deployment"):
            async with self.changed:
                if event.type == "LISTED":
                    self.endpoints.clear()
                for pod in event.items or ([event.object] if event.object else []):
                    self._take_pod(pod, gone=event.type == "DELETED")
                self.changed.notify_all()

    def _take_pod(self, pod: Object, *, gone: bool) -> None:
        metadata, status = pod["metadata"], pod.get("status") or {}
        labels = metadata["labels"]
        name = labels["stoker.dev/model-deployment"]
        known = self.endpoints[name]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
        if gone or not ready or "deletionTimestamp" in metadata or labels["stoker.dev/routable"] == "false":
            known.pop(metadata["name"], None)
        else:
            known[metadata["name"]] = status["podIP"]
        now = "serves" if metadata["name"] in known else "starts"
        if labels["stoker.dev/routable"] == "false":
            now = "out of routing"
        if gone or "deletionTimestamp" in metadata:
            now = "gone" if gone else "asked to go"
        told = self.told[name].setdefault(metadata["name"], [])
        if told[-1:] != [now]:
            told.append(now)

    async def watch_replicas(self) -> None:
        async for event in self.client.watch(DEPLOYMENTS, self.namespace):
            async with self.changed:
                for obj in event.items or ([event.object] if event.object else []):
                    seen = self.replicas[obj["metadata"]["name"]]
                    if not seen or seen[-1][1] != obj["spec"]["replicas"]:
                        seen.append((awake(), obj["spec"]["replicas"]))
                self.changed.notify_all()

    async def until(self, holds: Any, timeout: float = PATIENCE) -> None:
        """Wait for what the watches tell."""
        try:
            async with asyncio.timeout(timeout), self.changed:
                await self.changed.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {dict(self.replicas)}, {dict(self.endpoints)}") from None

    def wanted(self, name: str) -> int:
        """Replicas of the Deployment."""
        seen = self.replicas[name]
        return seen[-1][1] if seen else -1

    async def call(self, name: str, *, seconds: float = 0.1, patience: float = PATIENCE) -> bool:
        """One request as a gateway treats it; whether it had to be held."""
        numbers = self.gateway.model(self.key(name))
        held = not self.endpoints[name]
        if held:
            await self.gateway.ask_for(self.key(name))
            await self.until(lambda: self.endpoints[name], patience)
            numbers.held -= 1
        else:
            numbers.arrivals += 1
        load = self.pods.engine(next(iter(self.endpoints[name].values())))
        load.running = (load.running or 0) + 1
        await asyncio.sleep(seconds)
        load.running -= 1
        numbers.completions += 1
        return held


@asynccontextmanager
async def scene(plane: ControlPlane, client: KubeClient, namespace: str) -> AsyncIterator[Scene]:
    """Fake pods for a namespace, and the watches that they see the cluster by."""
    with addresses_of_kwok_pods():
        async with fake_pods("0.0.0.0", agent_port=AGENT_PORT, gateway_port=GATEWAY_PORT) as pods:
            pods.any_engine = True
            made = Scene(plane, client, namespace, pods)
            watches = [asyncio.create_task(made.watch_pods()), asyncio.create_task(made.watch_replicas())]
            try:
                yield made
            finally:
                for watch in watches:
                    assert not watch.done(), watch.exception()
                    watch.cancel()
