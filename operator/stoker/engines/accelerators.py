"""What Kubernetes calls the devices that engines compute on."""

from __future__ import annotations

from stoker.api.inference_engine import Accelerator

_RESOURCE_NAMES = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu", "Intel": "gpu.intel.com/xe"}


def device_resource(accelerator: Accelerator) -> str:
    """The extended resource that a device is requested by; empty on the CPU."""
    return accelerator.resource_name or _RESOURCE_NAMES.get(accelerator.vendor, "")
