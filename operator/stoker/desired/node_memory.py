"""Memory of devices and nodes, as the nodes themselves tell it.

Labels: NVIDIA's gpu-feature-discovery (https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery), AMD's node
labeller (https://github.com/ROCm/k8s-device-plugin/tree/master/cmd/k8s-node-labeller), Intel's feature rules
(https://github.com/intel/intel-device-plugins-for-kubernetes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stoker.api.inference_engine import InferenceEngine
from stoker.api.model_deployment import ModelDeployment
from stoker.api.observed import ObservedNode
from stoker.engines.accelerators import device_resource
from stoker.models.quantity import parse_quantity

_MIB = 1 << 20
_AMD_BETA = re.compile(r"beta\.amd\.com/gpu\.vram\.(\d+[KMGT])")


def find_memory(
    deployment: ModelDeployment, engine: InferenceEngine, gpus: int, nodes: Sequence[ObservedNode]
) -> tuple[int, str] | None:
    """Bytes of one device, or of the node where the model computes on the CPU, and the node that says so.

    Of devices the smallest counts, for the scheduler may take any node that the selectors allow; of nodes' own memory the
    largest: what fits none of them cannot run, and the scheduler minds the rest.
    """
    selector = {**(engine.spec.node_selector or {}), **(deployment.spec.node_selector or {})}
    matching = [node for node in nodes if selector.items() <= node.labels.items()]
    if gpus == 0:
        sizes = [(size, node.name) for node in matching if (size := _quantity(node.allocatable.get("memory", "")))]
        return max(sizes, default=None)
    resource = device_resource(engine.spec.accelerator)
    able = [node for node in matching if _quantity(node.allocatable.get(resource, ""))]
    told = [(size, node.name) for node in able if (size := device_bytes(node.labels, resource))]
    return min(told, default=None)


def device_bytes(labels: Mapping[str, str], resource: str) -> int:
    """Memory of one device of a node; 0 when its labels do not tell."""
    vendor, _, name = resource.partition("/")
    if vendor == "nvidia.com":
        # A slice of a device has labels of its own, by the name of its resource.
        return _mebibytes(labels.get(f"nvidia.com/{name}.memory", ""))
    if vendor == "amd.com":
        stated = labels.get("amd.com/gpu.vram", "")
        beta = next((found[1] for label in sorted(labels) if (found := _AMD_BETA.fullmatch(label))), "")
        return _quantity(f"{stated or beta}i") if stated or beta else 0
    if vendor == "gpu.intel.com":
        return _quantity(labels.get("gpu.intel.com/memory.max", ""))
    return 0


def _mebibytes(text: str) -> int:
    return int(text) * _MIB if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _quantity(text: str) -> int:
    try:
        return int(parse_quantity(text)) if text else 0
    except ValueError:
        return 0
