from __future__ import annotations

import pytest

from stoker.api.inference_engine import Accelerator
from stoker.engines.accelerators import device_resource


@pytest.mark.parametrize(
    ("vendor", "resource"),
    [("NVIDIA", "nvidia.com/gpu"), ("AMD", "amd.com/gpu"), ("Intel", "gpu.intel.com/xe"), ("None", "")],
)
def test_a_device_is_requested_by_its_vendors_resource(vendor: str, resource: str) -> None:
    assert device_resource(Accelerator.model_validate({"vendor": vendor})) == resource


def test_a_slice_of_a_device_is_requested_by_its_own_resource() -> None:
    assert (
        device_resource(Accelerator(vendor="NVIDIA", resource_name="nvidia.com/mig-1g.10gb"))
        == "nvidia.com/mig-1g.10gb"
    )
