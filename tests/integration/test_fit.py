"""From the header at the source to the condition: real downloader, real agent, real operator; only the kubelet is missing.

The pods of these tests find no node; the processes of their containers are started here, with the pod's own environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf_files
import pytest
from integration.control_plane import ROOT, ControlPlane, OperatorProcess
from integration.objects import MODEL, engine, model
from integration.waiting import condition, reason, until

from stoker.cluster.client import KubeClient, Object
from stoker.cluster.resource_types import DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS

pytestmark = pytest.mark.integration

POD_IP = "127.9.0.2"
LONG = 2_000_000
"""Tokens; each of them takes 1 KiB."""


@pytest.fixture
def source() -> Iterator[tuple[str, list[int]]]:
    """Address of a model that was trained with a context nobody can pay, and what was sent of it, answer by answer."""
    content = gguf_files.model(**{"llama.context_length": LONG})
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            sent.append(len(content))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/m.gguf", sent
        server.shutdown()


CONFIG = {
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a hub with one repository: the configuration and the index of Llama 3.1 8B, cut into more files than are looked at."""
    places = {f"layer.{number}": f"model-{number:05d}.safetensors" for number in range(20)}
    pages = {
        "config.json": json.dumps(CONFIG),
        "model.safetensors.index.json": json.dumps({"metadata": {"total_size": 16_060_522_496}, "weight_map": places}),
        "README.md": "---\nlicense: llama3.1\n---\n",
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/org/llama/resolve/main/")
            body = pages.get(name, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def gpu_node(plane: ControlPlane) -> Iterator[str]:
    """A node that nothing is scheduled to, and that says by its label how much memory its device has."""
    name = "gpu-24"
    labels = {"stoker-test/pool": name, "nvidia.com/gpu.memory": "24576"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True},
    }
    plane.kubectl("create", "-f", "-", stdin=json.dumps(node))
    patch = json.dumps({"status": {"allocatable": {"nvidia.com/gpu": "1"}, "capacity": {"nvidia.com/gpu": "1"}}})
    plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
    yield name
    plane.kubectl("delete", "node", name)


@pytest.fixture
def dra_node(plane: ControlPlane) -> Iterator[str]:
    """Name of a node whose driver of dynamic resource allocation publishes two devices of 24 GiB; no device plugin is on it."""
    name = "dra-24"
    labels = {"stoker-test/pool": name}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    devices = [{"name": f"gpu-{number}", "capacity": {"memory": {"value": "24Gi"}}} for number in range(2)]
    pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
    published = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": name, "pool": pool, "devices": devices},
    }
    plane.kubectl("create", "-f", "-", stdin=json.dumps({**node, "spec": {"unschedulable": True}}))
    plane.kubectl("create", "-f", "-", stdin=json.dumps(published))
    yield name
    plane.kubectl("delete", "resourceslice", name)
    plane.kubectl("delete", "node", name)


@pytest.fixture
def run_pod(plane: ControlPlane, client: KubeClient, namespace: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Does the kubelet's part for one pod: its agent and its downloader run, and it has an address."""
    with contextlib.ExitStack() as processes:

        async def run_pod(pod: str) -> Path:
            containers = (await client.get(PODS, namespace, pod) or {})["spec"]["initContainers"]
            folder = tmp_path / pod
            folder.mkdir()
            for name, role in (("agent", "STOKER_AGENT"), ("fetch", "STOKER_FETCH")):
                spec = next(container for container in containers if container["name"] == name)
                order = json.loads(next(v["value"] for v in spec["env"] if v["name"] == role))
                order |= {"progressFile": str(folder / "progress.json")}
                order |= {"host": POD_IP} if name == "agent" else {"cache": str(folder / "models")}
                process = subprocess.Popen(
                    [sys.executable, "-m", "stoker", name],
                    env={**os.environ, role: json.dumps(order), "PYTHONPATH": str(ROOT / "operator")},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                processes.callback(process.wait)
                processes.callback(process.terminate)
            state: Object = {"name": "fetch", "image": "", "imageID": "", "ready": False, "restartCount": 0}
            state["state"] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
            status = {"podIP": POD_IP, "podIPs": [{"ip": POD_IP}], "initContainerStatuses": [state]}
            patch = json.dumps({"status": status})
            plane.kubectl("patch", "pod", pod, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
            return folder

        yield run_pod


async def pod_of(client: KubeClient, namespace: str, argument: str) -> str:
    """Name of the pod whose engine gets an argument."""
    async for event in client.watch(PODS, namespace):
        for obj in event.items or ([event.object] if event.object and event.type != "DELETED" else []):
            if argument in obj["spec"]["containers"][0]["args"] and "deletionTimestamp" not in obj["metadata"]:
                return str(obj["metadata"]["name"])
    raise AssertionError("a watch never ends")


def replicas(obj: Object) -> int:
    return int(obj["spec"]["replicas"])


async def test_what_does_not_fit_is_told_with_its_numbers_and_keeps_no_pod(
    plane: ControlPlane,
    operator: OperatorProcess,
    client: KubeClient,
    namespace: str,
    source: tuple[str, list[int]],
    run_pod: Callable[..., Any],
) -> None:
    nowhere = {"nodeSelector": {"node": "none"}, "resources": {"limits": {"memory": "1Gi"}}}
    wanted = {"source": {"uri": source[0]}, "maxConcurrentRequests": 2}
    plane.apply(engine(**nowhere), model(**wanted, contextLength=1_000_000), namespace=namespace)
    pod = await pod_of(client, namespace, "2000000")
    folder = await run_pod(pod)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "DoesNotFit")
    assert reason(told, "Fits") == reason(told, "Stalled") == "DoesNotFit"
    assert "cache for 2 x 1000000 tokens 1.91 GiB" in condition(told, "Ready")["message"]
    assert told["status"]["model"]["architecture"] == "llama"
    assert told["status"]["fit"]["availableBytes"] == 1 << 30
    await until(client, DEPLOYMENTS, namespace, MODEL, lambda obj: replicas(obj) == 0)
    assert not list(folder.rglob("*.gguf"))

    plane.apply(model(**wanted, contextLength=2048), namespace=namespace)
    await until(client, DEPLOYMENTS, namespace, MODEL, lambda obj: replicas(obj) == 1)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj, "Fits") == "EnoughMemory")
    assert told["status"]["fit"]["contextLength"] == 2048
    assert not condition(told, "Stalled")


async def test_without_a_context_the_pod_is_replaced_by_one_with_the_largest_that_fits(
    plane: ControlPlane,
    operator: OperatorProcess,
    client: KubeClient,
    namespace: str,
    source: tuple[str, list[int]],
    run_pod: Callable[..., Any],
) -> None:
    nowhere = {"nodeSelector": {"node": "none"}, "resources": {"limits": {"memory": "1Gi"}}}
    plane.apply(engine(**nowhere), model(source={"uri": source[0]}, maxConcurrentRequests=2), namespace=namespace)
    await run_pod(await pod_of(client, namespace, "--kv-unified"))
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj, "Fits") == "EnoughMemory")
    fit = told["status"]["fit"]
    assert fit["availableBytes"] - (1 << 20) < fit["requiredBytes"] <= fit["availableBytes"]
    chosen = fit["contextLength"]
    assert chosen > 100_000
    assert await pod_of(client, namespace, str(2 * chosen))
    assert "updateAvailable" not in told["status"]


async def test_a_repository_is_judged_by_its_pages_and_the_memory_that_a_node_tells(
    plane: ControlPlane,
    operator: OperatorProcess,
    client: KubeClient,
    namespace: str,
    hub: str,
    gpu_node: str,
    run_pod: Callable[..., Any],
) -> None:
    there = {"accelerator": {"vendor": "NVIDIA"}, "nodeSelector": {"stoker-test/pool": gpu_node}}
    wanted = {"source": {"uri": "hf://org/llama"}, "env": [{"name": "HF_ENDPOINT", "value": hub}]}
    plane.apply(engine(type="VLLM", **there), model(**wanted, contextLength=131_072), namespace=namespace)
    await run_pod(await pod_of(client, namespace, "131072"))
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "DoesNotFit")
    assert "cache for one request of 131072 tokens 16.0 GiB" in condition(told, "Ready")["message"]
    assert f"{gpu_node} has the smallest devices" in condition(told, "Ready")["message"]
    described = told["status"]["model"]
    assert (described["format"], described["license"], described["weightsBytes"]) == (
        "Safetensors",
        "llama3.1",
        16_060_522_496,
    )
    assert told["status"]["fit"]["availableBytes"] == (24 << 30) * 92 // 100
    await until(client, DEPLOYMENTS, namespace, MODEL, lambda obj: replicas(obj) == 0)
    plane.apply(model(**wanted, contextLength=32_768), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj, "Fits") == "EnoughMemory")


async def test_a_claimed_device_has_the_memory_that_its_driver_publishes(
    plane: ControlPlane,
    operator: OperatorProcess,
    client: KubeClient,
    namespace: str,
    hub: str,
    dra_node: str,
    run_pod: Callable[..., Any],
) -> None:
    claim = {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}
    container = {"name": "engine", "resources": {"limits": {"nvidia.com/gpu": None}, "claims": [{"name": "gpu"}]}}
    claims = {"podTemplate": {"spec": {"resourceClaims": [claim], "containers": [container]}}}
    request = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one-gpu"},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }
    there = {"accelerator": {"vendor": "NVIDIA"}, "nodeSelector": {"stoker-test/pool": dra_node}}
    wanted = {"source": {"uri": "hf://org/llama"}, "env": [{"name": "HF_ENDPOINT", "value": hub}]}
    objects = (template, engine(type="VLLM", **there, **claims), model(**wanted, contextLength=131_072))
    plane.apply(*objects, namespace=namespace)
    await run_pod(await pod_of(client, namespace, "131072"))
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "DoesNotFit")
    assert f"{dra_node} has the smallest devices" in condition(told, "Ready")["message"]
    assert told["status"]["fit"]["availableBytes"] == (24 << 30) * 92 // 100
