"""Memory of devices and nodes, as the nodes themselves tell it.

Labels: NVIDIA's gpu-feature-discovery (https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery), AMD's node
labeller (https://github.com/ROCm/k8s-device-plugin/tree/master/cmd/k8s-node-labeller), Intel's feature rules
(https://github.com/intel/intel-device-plugins-for-kubernetes). Drivers of dynamic resource allocation tell it in ResourceSlices:
https://github.com/NVIDIA/k8s-dra-driver-gpu, https://github.com/ROCm/k8s-gpu-dra-driver, https://github.com/intel/intel-resource-drivers-for-kubernetes.
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
_DRIVERS = {"NVIDIA": "gpu.nvidia.com", "AMD": "gpu.amd.com", "Intel": "gpu.intel.com"}
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
    if not able and _claims_devices(engine):
        return claimed_memory(matching, _DRIVERS.get(engine.spec.accelerator.vendor, ""))
    told = [(size, node.name) for node in able if (size := device_bytes(node.labels, resource))]
    return min(told, default=None)


def _claims_devices(engine: InferenceEngine) -> bool:
    return bool(((engine.spec.pod_template or {}).get("spec") or {}).get("resourceClaims"))


def claimed_memory(nodes: Sequence[ObservedNode], driver: str) -> tuple[int, str] | None:
    """Bytes of a device that a claim gets from this driver, whichever it gets; None where that depends on its selectors.

    Those are the claim's own. So devices of two sizes tell nothing: not the smallest, which the claim may leave out.
    """
    told = [(size, node.name) for node in nodes for size in _published(node, driver)]
    return min(told) if len({size for size, _ in told}) == 1 and told[0][0] else None


def _published(node: ObservedNode, driver: str) -> set[int]:
    slices = [found for found in node.slices if found.driver == driver]
    newest = {found.pool: max(each.generation for each in slices if each.pool == found.pool) for found in slices}
    return {_quantity(size) for found in slices if found.generation == newest[found.pool] for size in found.memory}


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
