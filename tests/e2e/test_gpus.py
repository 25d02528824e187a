"""Devices that are not there: the pod waits, says so in the scheduler's words, and runs when they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from e2e import objects
from e2e.devices import offer, only_node
from e2e.kube import Kube

CPU_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b11434"


@pytest.fixture
def node(kube: Kube) -> Iterator[str]:
    """The node, without devices again at the end."""
    name = only_node(kube)
    yield name
    offer(kube, name, 0)


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
