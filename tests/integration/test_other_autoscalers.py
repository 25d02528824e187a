"""Kubernetes' own HorizontalPodAutoscaler scales a model; only the adapter that would serve it the agents' metrics is a fake."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from gateway.certificates import make_certificate
from integration.control_plane import ControlPlane, OperatorProcess
from integration.objects import MODEL, engine, model
from integration.waiting import condition, is_ready, until

from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, ResourceType

pytestmark = pytest.mark.integration

GUIDE = Path(__file__).parents[2] / "docs/autoscaling.md"
GROUP = "custom.metrics.k8s.io"
HPA = ResourceType("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
API_SERVICES = ResourceType("apiregistration.k8s.io/v1", "apiservices", "APIService", namespaced=False)


@dataclass
class FakeAdapter:
    """Says the same of every pod that somebody asks for."""

    client: KubeClient
    value: str
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Metric and label selector of each question."""

    async def on_discovery(self, request: web.Request) -> web.Response:
        resource = {
            "name": "pods/*",
            "singularName": "",
            "namespaced": True,
            "kind": "MetricValueList",
            "verbs": ["get"],
        }
        group_version = f"{GROUP}/v1beta2"
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": [resource]}
        )

    async def on_metric(self, request: web.Request) -> web.Response:
        namespace, metric = request.match_info["namespace"], request.match_info["metric"]
        selector = request.query.get("labelSelector", "")
        self.asked.append((metric, selector))
        pods, _ = await self.client.list(PODS, namespace, label_selector=selector)
        items = [
            {
                "describedObject": {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"]},
                "metric": {"name": metric},
                "timestamp": pod["metadata"]["creationTimestamp"],
                "value": self.value,
            }
            for pod in pods
        ]
        return web.json_response({"kind": "MetricValueList", "apiVersion": f"{GROUP}/v1beta2", "items": items})


@asynccontextmanager
async def adapter(plane: ControlPlane, client: KubeClient, namespace: str, value: str) -> AsyncIterator[FakeAdapter]:
    """The fake behind the API server's aggregation, as an adapter is in a cluster."""
    fake = FakeAdapter(client, value)
    app = web.Application()
    app.router.add_get(f"/apis/{GROUP}/v1beta2", fake.on_discovery)
    app.router.add_get(f"/apis/{GROUP}/v1beta2/namespaces/{{namespace}}/pods/*/{{metric}}", fake.on_metric)
    certificate, key = (plane.folder / "adapter.crt"), (plane.folder / "adapter.key")
    for path, text in zip((certificate, key), make_certificate(), strict=True):
        path.write_bytes(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listener, ssl_context=context).start()
    name = f"v1beta2.{GROUP}"
    service = {"namespace": namespace, "name": "adapter", "port": listener.getsockname()[1]}
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "adapter"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": API_SERVICES.api_version,
            "kind": API_SERVICES.kind,
            "metadata": {"name": name},
            "spec": {
                "group": GROUP,
                "version": "v1beta2",
                "service": service,
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 200,
            },
        },
        namespace=namespace,
    )
    try:
        await until(client, API_SERVICES, "", name, lambda obj: condition(obj, "Available").get("status") == "True")
        yield fake
    finally:
        await client.delete(API_SERVICES, "", name)
        await runner.cleanup()


def example(namespace: str) -> dict[str, Any]:
    """The HorizontalPodAutoscaler of the guide, for the tests' model."""
    blocks = GUIDE.read_text().split("```yaml\n")[1:]
    text = next(block for block in blocks if "kind: HorizontalPodAutoscaler" in block).partition("```")[0]
    found: dict[str, Any] = yaml.safe_load(text.replace("qwen3-8b", MODEL))
    found["metadata"]["namespace"] = namespace
    return found


async def test_a_horizontal_pod_autoscaler_as_in_the_guide_scales_a_model(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    """Eight requests run in the one replica and four are meant: it writes two into /scale, and Stoker makes two of it."""
    plane.apply(engine(), model(), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)
    async with adapter(plane, client, namespace, "8") as fake:
        await client.create(HPA, example(namespace))
        await until(client, DEPLOYMENTS, namespace, MODEL, lambda obj: obj["spec"]["replicas"] == 2)
        scaler = await until(client, HPA, namespace, MODEL, lambda obj: obj["status"].get("desiredReplicas") == 2)
        await client.delete(HPA, namespace, MODEL)
    scaled = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: obj["status"]["replicas"] == 2)
    assert scaled["spec"]["replicas"] == 2
    assert condition(scaler, "ScalingActive")["status"] == "True"
    assert set(fake.asked) == {("stoker_engine_requests_running", scaled["status"]["selector"])}
