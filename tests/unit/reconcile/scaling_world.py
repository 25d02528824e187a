"""The autoscaler's loop with a cache that tests fill, fake pods that it asks, and a fake API server that it patches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fake_pods import TOKEN, FakeEngine, FakeGateway, FakePods, fake_pods
from unit.cluster.fake_api_server import FakeApiServer, serving

from stoker.api.resolved import OperatorSettings
from stoker.cluster.cache import Cache
from stoker.cluster.events import EventPoster
from stoker.cluster.load import LoadReader
from stoker.cluster.resource_types import API_GATEWAYS, DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, Object, ResourceType
from stoker.reconcile.context import Context
from stoker.reconcile.scaled_model import ScaledModel
from stoker.reconcile.scaling_loop import ScalingLoop
from stoker.reconcile.work_queue import WorkQueue

NAME = "team/smol"
KEY = ("team", "smol")
HOSTS = tuple(f"127.0.9.{number}" for number in range(1, 9))
GATEWAY_IP = HOSTS[0]
START = 1_800_000_000.0


@dataclass
class World:
    """Time passes when a test says so."""

    loop: ScalingLoop
    context: Context
    pods: FakePods
    server: FakeApiServer
    now: float = START
    version: int = 0
    told: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def gateway(self) -> FakeGateway:
        return self.pods.gateway(GATEWAY_IP)

    @property
    def state(self) -> ScaledModel:
        return self.loop.models[KEY]

    @property
    def wanted(self) -> int:
        """What the reconcile would render."""
        return self.context.scaled[KEY].desired

    def put(self, resource: ResourceType, name: str, **content: Any) -> None:
        self.version += 1
        more = content.pop("metadata", {})
        metadata = {"namespace": "team", "name": name, "uid": f"uid-{name}", "generation": 1, **more}
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("creationTimestamp", datetime.fromtimestamp(START, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.context.cache.put(resource, {"kind": resource.kind, "metadata": metadata, **content})

    def model(self, status: Object | None = None, metadata: Object | None = None, **spec: Any) -> None:
        scaling = {"maxReplicas": 4, **spec.pop("autoscaling", {})}
        given = {"source": {"uri": "https://h/m.gguf"}, "autoscaling": scaling, **spec}
        status = {"gateways": ["team/gateway"], **(status or {})}
        self.put(MODEL_DEPLOYMENTS, "smol", spec=given, status=status, metadata=metadata or {})

    def deployment(self, replicas: int, chosen: str = "") -> None:
        annotations = {"stoker.dev/resolved": chosen} if chosen else {}
        self.put(DEPLOYMENTS, "smol", spec={"replicas": replicas}, metadata={"annotations": annotations})

    def pod(
        self, number: int, *, ready: bool = True, leaving: bool = False, age: float = 600, **more: Any
    ) -> FakeEngine:
        """A replica, at an address of its own."""
        labels = {
            "stoker.dev/model-deployment": "smol",
            "app.kubernetes.io/component": "engine",
            "pod-template-hash": "x",
        }
        born = datetime.fromtimestamp(self.now - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata: Object = {"labels": {**labels, **more.pop("labels", {})}, "creationTimestamp": born}
        if leaving:
            metadata["deletionTimestamp"] = born
        ip = HOSTS[number]
        self._put_pod(f"smol-{number}", ip, ready, metadata, **more)
        return self.pods.engine(ip)

    def gateway_pod(self, *, ready: bool = True) -> None:
        labels = {"stoker.dev/api-gateway": "gateway", "app.kubernetes.io/component": "gateway"}
        self._put_pod("gateway-1", GATEWAY_IP, ready, {"labels": labels})

    def _put_pod(self, name: str, ip: str, ready: bool, metadata: Object, words: str = "") -> None:
        scheduled = {"type": "PodScheduled", "status": "False" if words else "True"}
        if words:
            scheduled |= {"reason": "Unschedulable", "message": words}
        conditions = [{"type": "Ready", "status": str(ready)}, scheduled]
        phase = "Running" if ready else "Pending"
        self.put(PODS, name, metadata=metadata, status={"phase": phase, "podIP": ip, "conditions": conditions}, spec={})

    def forget_pod(self, number: int) -> None:
        self.context.cache.drop(PODS, ("team", f"smol-{number}"))

    async def tick(self, seconds: float = 2.0) -> int:
        """A round, so many seconds after the last; what it wants."""
        self.now += seconds
        await self.loop.tick()
        await self.settle()
        return self.wanted

    async def run(self, seconds: float, *, rate: float = 0.0) -> int:
        """Rounds while so many requests a second come and are answered."""
        model = self.gateway.model(NAME)
        for _ in range(int(seconds / 2)):
            model.arrivals += int(rate * 2)
            model.completions += int(rate * 2)
            await self.tick()
        return self.wanted

    async def settle(self) -> None:
        """What a round began is done."""
        await asyncio.gather(*self.loop._tasks)

    def patches(self) -> list[tuple[str, str | None]]:
        """Pods that were taken out of routing or put back, in order."""
        return [
            (path.rpartition("/")[2].partition("?")[0], body["metadata"]["labels"]["stoker.dev/routable"])
            for (method, path), body in zip(self.server.asked, self.server.bodies, strict=True)
            if method == "PATCH"
        ]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A gateway with one pod; models and replicas are for the test to put."""
    async with fake_pods(*HOSTS) as pods, serving(lambda _: {}) as (server, client):
        context = Context(
            client=client,
            cache=Cache(namespaces_known=False),
            settings=OperatorSettings(stoker_image="stoker:1"),
            queue=WorkQueue(),
            events=EventPoster(client, "test"),
            gateway_tokens={("team", "gateway"): TOKEN},
        )
        async with LoadReader(pods.agent_port, pods.gateway_port) as reader:
            made = World(ScalingLoop(context, reader, lambda: made.now), context, pods, server)
            made.put(API_GATEWAYS, "gateway", spec={})
            made.gateway_pod()
            made.gateway.model(NAME)
            yield made
            await made.loop._streams.close()
