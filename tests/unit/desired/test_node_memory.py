from __future__ import annotations

from typing import Any

import pytest

from stoker.api.observed import ObservedNode, ObservedSlice
from stoker.desired.node_memory import device_bytes, find_memory

GIB = 1 << 30
NVIDIA = {"accelerator": {"vendor": "NVIDIA"}}


def node(name: str, memory: str = "64Gi", devices: str = "", **labels: str) -> ObservedNode:
    allocatable = {"memory": memory} | ({"nvidia.com/gpu": devices} if devices else {})
    return ObservedNode(
        name, {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()}, allocatable
    )


LARGE = ObservedNode(
    "large", {"nvidia.com/gpu.memory": "81559", "pool": "h100"}, {"nvidia.com/gpu": "8", "memory": "2000Gi"}
)
SMALL = ObservedNode(
    "small", {"nvidia.com/gpu.memory": "15360", "pool": "t4"}, {"nvidia.com/gpu": "1", "memory": "60Gi"}
)
FULL = ObservedNode("no-device", {"nvidia.com/gpu.memory": "8192"}, {"nvidia.com/gpu": "0", "memory": "16Gi"})
SILENT = ObservedNode("silent", {}, {"nvidia.com/gpu": "1", "memory": "32Gi"})


@pytest.mark.parametrize(
    ("resource", "labels", "expected"),
    [
        ("nvidia.com/gpu", {"nvidia.com/gpu.memory": "24576"}, 24 * GIB),
        (
            "nvidia.com/mig-1g.10gb",
            {"nvidia.com/gpu.memory": "81559", "nvidia.com/mig-1g.10gb.memory": "9856"},
            9856 << 20,
        ),
        ("nvidia.com/mig-1g.10gb", {"nvidia.com/gpu.memory": "81559"}, 0),
        ("amd.com/gpu", {"amd.com/gpu.vram": "192G"}, 192 * GIB),
        ("amd.com/gpu", {"beta.amd.com/gpu.vram.64G": "4"}, 64 * GIB),
        ("gpu.intel.com/xe", {"gpu.intel.com/memory.max": "17179869184"}, 16 * GIB),
        ("nvidia.com/gpu", {"nvidia.com/gpu.memory": "much"}, 0),
        ("amd.com/gpu", {"amd.com/gpu.vram": "much"}, 0),
        ("example.com/npu", {"nvidia.com/gpu.memory": "24576"}, 0),
        ("nvidia.com/gpu", {}, 0),
    ],
)
def test_each_vendor_has_its_own_label(resource: str, labels: dict[str, str], expected: int) -> None:
    assert device_bytes(labels, resource) == expected


def test_the_smallest_device_that_the_scheduler_may_take_counts(make_model, make_engine) -> None:
    nodes = [LARGE, SMALL, FULL, SILENT]
    assert find_memory(make_model(), make_engine(**NVIDIA), 1, nodes) == (15360 << 20, "small")
    chosen = make_engine(**NVIDIA, nodeSelector={"pool": "h100"})
    assert find_memory(make_model(), chosen, 1, nodes) == (81559 << 20, "large")
    assert find_memory(make_model(nodeSelector={"pool": "none"}), make_engine(**NVIDIA), 1, nodes) is None
    assert find_memory(make_model(), make_engine(**NVIDIA), 1, [SILENT, FULL]) is None


def test_on_the_cpu_the_largest_node_counts(make_model, make_engine) -> None:
    assert find_memory(make_model(), make_engine(), 0, [SMALL, FULL]) == (60 * GIB, "small")
    assert find_memory(make_model(nodeSelector={"pool": "t4"}), make_engine(), 0, [LARGE, SMALL]) == (60 * GIB, "small")
    assert find_memory(make_model(), make_engine(), 0, []) is None


def available(resolved: Any) -> int | None:
    return resolved.chosen.memory_bytes


def test_what_a_node_told_is_kept_and_learned_only_while_nothing_serves(resolve, make_model, make_engine) -> None:
    engine = make_engine(**NVIDIA)
    blind = resolve(make_model(), engine)
    assert available(blind) is None
    assert available(resolve(make_model(), engine, previous=blind.chosen, nodes=[LARGE], serving=True)) is None
    learned = resolve(make_model(), engine, previous=blind.chosen, nodes=[LARGE])
    assert (learned.chosen.memory_bytes, learned.chosen.memory_node) == (81559 << 20, "large")
    assert resolve(make_model(), engine, previous=learned.chosen, nodes=[SMALL]).chosen == learned.chosen


def test_a_context_is_chosen_by_the_memory_that_a_node_tells(resolve, make_model, make_engine) -> None:
    ollama = make_engine(type="Ollama", **NVIDIA)
    assert resolve(make_model(), ollama, nodes=[SMALL]).chosen.context_length is None


CLAIMS = {**NVIDIA, "podTemplate": {"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}]}}}


def claimable(name: str, *memory: str, driver: str = "gpu.nvidia.com", **more: Any) -> ObservedNode:
    """A node whose devices come by claims only."""
    part = ObservedSlice(name, driver, name, more.pop("generation", 1), frozenset(memory))
    return ObservedNode(name, more.pop("labels", {}), more.pop("allocatable", {}), (part, *more.pop("slices", ())))


def test_devices_that_come_by_claims_have_the_memory_that_their_driver_publishes(make_model, make_engine) -> None:
    nodes = [claimable("b", "81559Mi"), claimable("a", "81559Mi"), ObservedNode("cpu", {}, {"memory": "64Gi"})]
    assert find_memory(make_model(), make_engine(**CLAIMS), 1, nodes) == (81559 << 20, "a")
    assert find_memory(make_model(), make_engine(**NVIDIA), 1, nodes) is None, "nothing claims them"


@pytest.mark.parametrize(
    "nodes",
    [
        [claimable("a", "81559Mi"), claimable("b", "15360Mi")],
        [claimable("a", "81559Mi", "9856Mi")],
        [claimable("a", "81559Mi", "")],
        [claimable("a", "")],
        [claimable("a", "much")],
        [claimable("a")],
        [claimable("a", "81559Mi", driver="gpu.amd.com")],
        [claimable("a", "81559Mi"), SILENT],
        [],
    ],
    ids=[
        "two-nodes",
        "two-kinds",
        "one-silent",
        "silent",
        "spoiled",
        "none",
        "another-driver",
        "plugin-too",
        "no-node",
    ],
)
def test_where_the_claims_selectors_decide_nothing_is_told(nodes: list[ObservedNode], make_model, make_engine) -> None:
    assert find_memory(make_model(), make_engine(**CLAIMS), 1, nodes) is None


def test_of_claimed_devices_only_nodes_that_the_selector_allows_count(make_model, make_engine) -> None:
    nodes = [claimable("a", "81559Mi", labels={"pool": "h100"}), claimable("b", "15360Mi", labels={"pool": "t4"})]
    assert find_memory(make_model(nodeSelector={"pool": "t4"}), make_engine(**CLAIMS), 1, nodes) == (15360 << 20, "b")


def test_an_older_generation_of_a_pool_does_not_count(make_model, make_engine) -> None:
    old = ObservedSlice("a", "gpu.nvidia.com", "a", 1, frozenset({"15360Mi"}))
    node = claimable("a", "81559Mi", generation=2, slices=(old,))
    assert find_memory(make_model(), make_engine(**CLAIMS), 1, [node]) == (81559 << 20, "a")
