"""Devices that are not there: the pod waits, says so in the scheduler's words, and runs when they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from e2e import objects
from e2e.kube import Kube

CPU_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b11434"
RESOURCE = "nvidia.com~1gpu"


@pytest.fixture
def node(kube: Kube) -> Iterator[str]:
    """The node, without devices again at the end."""
    name = kube.kubectl("get", "nodes", "-o", "name").strip().removeprefix("node/")
    yield name
    offer(kube, name, 0)


def offer(kube: Kube, node: str, count: int) -> None:
    """What a device plugin would report: scheduling is real, the device is not."""
    change = [{"op": "add", "path": f"/status/{kind}/{RESOURCE}", "value": str(count)} for kind in ("capacity", "allocatable")]  # fmt: skip
    kube.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(change))


def test_a_model_waits_for_a_device_and_runs_when_the_node_offers_one(
    kube: Kube, make_namespace: Callable[[str], str], node: str
) -> None:
    namespace = make_namespace("e2e-gpus")
    kube.apply(
        objects.engine(namespace, accelerator={"vendor": "NVIDIA"}, image=CPU_IMAGE),
        objects.model(namespace, "smollm2", gpus=1),
    )
    message = kube.wait_reason("modeldeployments", namespace, "smollm2", "InsufficientGPUs", within=30)
    assert "Insufficient nvidia.com/gpu" in message, "the scheduler's words"
    (pod,) = kube.pods(namespace, "stoker.dev/model-deployment=smollm2")
    assert pod["status"]["phase"] == "Pending"
    offer(kube, node, 1)
    kube.wait_current("modeldeployments", namespace, "smollm2")
    (same,) = kube.pods(namespace, "stoker.dev/model-deployment=smollm2")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    kube.kubectl("delete", "stoker", "--all", "-n", namespace)
