"""Devices that are not there."""

from __future__ import annotations

import json

from e2e.kube import Kube

CPU_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b11434"
"""For engines that ask for a device and run without one."""
RESOURCE = "nvidia.com~1gpu"


def only_node(kube: Kube) -> str:
    return kube.kubectl("get", "nodes", "-o", "name").strip().removeprefix("node/")


def offer(kube: Kube, node: str, count: int) -> None:
    """What a device plugin would report: scheduling is real, the device is not."""
    change = [{"op": "add", "path": f"/status/{kind}/{RESOURCE}", "value": str(count)} for kind in ("capacity", "allocatable")]  # fmt: skip
    kube.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(change))
