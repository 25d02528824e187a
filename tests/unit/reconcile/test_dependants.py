from __future__ import annotations

from typing import Any

import pytest

from stoker.cluster.cache import Cache
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import (
    API_GATEWAYS,
    API_KEYS,
    INFERENCE_ENGINES,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    ResourceType,
)
from stoker.reconcile.dependants import dependants_of, dependants_of_namespaces

SPECS: dict[str, dict[str, Any]] = {
    "InferenceEngine": {"type": "LlamaCpp"},
    "ModelDeployment": {"engineRef": {"name": "llama"}, "source": {"uri": "https://example.com/a.gguf"}},
    "ApiGateway": {},
    "ApiKey": {"gatewayRef": {"name": "gateway"}},
}


class World:
    """A cache, and what each change makes to be looked at."""

    def __init__(self) -> None:
        self.cache = Cache(namespaces_known=True)
        self.version = 0

    def put(
        self, resource: ResourceType, name: str, *, generation: int = 1, status: Any = None, **spec: Any
    ) -> set[tuple[str, str]]:
        self.version += 1
        metadata = {
            "namespace": "team",
            "name": name,
            "uid": f"uid-{name}",
            "generation": generation,
            "resourceVersion": str(self.version),
            "creationTimestamp": f"2026-01-01T00:00:{self.version:02d}Z",
        }
        obj = {"kind": resource.kind, "metadata": metadata, "spec": {**SPECS[resource.kind], **spec}}
        if status:
            obj["status"] = status
        before = self.own(resource, name)
        assert self.cache.put(resource, obj)
        return self.names(before, self.own(resource, name))

    def drop(self, resource: ResourceType, name: str) -> set[tuple[str, str]]:
        before = self.own(resource, name)
        self.cache.drop(resource, ("team", name))
        return self.names(before, None)

    def own(self, resource: ResourceType, name: str) -> OwnObject | None:
        return self.cache.own(resource.kind, ("team", name))

    def names(self, before: OwnObject | None, after: OwnObject | None) -> set[tuple[str, str]]:
        return {(key.kind, key.name) for key, _ in dependants_of(self.cache, before, after)}


@pytest.fixture
def world() -> World:
    world = World()
    world.put(INFERENCE_ENGINES, "llama")
    world.put(API_GATEWAYS, "gateway")
    world.put(MODEL_DEPLOYMENTS, "a")
    world.put(API_KEYS, "alice")
    return world


ready = {
    "conditions": [{"type": "Ready", "status": "True", "reason": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
}


def test_a_new_or_deleted_model_concerns_its_engine_and_its_gateways(world: World) -> None:
    assert world.put(MODEL_DEPLOYMENTS, "b") == {("InferenceEngine", "llama"), ("ApiGateway", "gateway")}
    assert world.drop(MODEL_DEPLOYMENTS, "b") == {("InferenceEngine", "llama"), ("ApiGateway", "gateway")}


def test_a_model_that_changes_its_engine_concerns_both(world: World) -> None:
    moved = world.put(MODEL_DEPLOYMENTS, "a", generation=2, engineRef={"name": "other"})
    assert {("InferenceEngine", "llama"), ("InferenceEngine", "other")} <= moved


def test_a_models_status_concerns_its_gateways_only_and_only_with_its_conditions(world: World) -> None:
    assert world.put(MODEL_DEPLOYMENTS, "a", status=ready) == {("ApiGateway", "gateway")}
    assert world.put(MODEL_DEPLOYMENTS, "a", status={**ready, "download": {"completedBytes": 5}}) == set()


def test_models_that_share_a_served_name_concern_each_other(world: World) -> None:
    assert ("ModelDeployment", "a") in world.put(MODEL_DEPLOYMENTS, "b", servedModelName="a")
    assert ("ModelDeployment", "a") in world.put(MODEL_DEPLOYMENTS, "b", generation=2, servedModelName="b")


def test_an_engine_concerns_its_models_but_its_count_of_models_does_not(world: World) -> None:
    assert world.put(INFERENCE_ENGINES, "llama", generation=2) == {("ModelDeployment", "a")}
    assert world.put(INFERENCE_ENGINES, "llama", generation=2, status=ready) == {("ModelDeployment", "a")}
    assert world.put(INFERENCE_ENGINES, "llama", generation=2, status={**ready, "models": 5}) == set()


def test_a_gateway_concerns_what_it_publishes_and_its_keys(world: World) -> None:
    assert world.drop(API_GATEWAYS, "gateway") == {("ModelDeployment", "a"), ("ApiKey", "alice")}
    assert world.put(API_GATEWAYS, "gateway") == {("ModelDeployment", "a"), ("ApiKey", "alice")}
    assert world.put(API_GATEWAYS, "gateway", status=ready) == set()


def test_a_gateway_that_narrows_its_selection_concerns_what_it_lets_go(world: World) -> None:
    narrowed = world.put(API_GATEWAYS, "gateway", generation=2, models={"selector": {"matchLabels": {"x": "y"}}})
    assert ("ModelDeployment", "a") in narrowed


def test_a_key_concerns_its_gateway_with_its_hashes_but_not_with_its_conditions(world: World) -> None:
    made = {"sha256": "a" * 64, "createdAt": "2026-01-01T00:00:00Z"}
    assert world.put(API_KEYS, "alice", status={"keys": [made]}) == {("ApiGateway", "gateway")}
    assert world.put(API_KEYS, "alice", status={"keys": [made], **ready}) == set()
    assert world.put(API_KEYS, "alice", generation=2, suspend=True, status={"keys": [made]}) == {
        ("ApiGateway", "gateway")
    }


def test_an_unreadable_object_concerns_whoever_it_concerned_before(world: World) -> None:
    assert ("ApiGateway", "gateway") in world.put(MODEL_DEPLOYMENTS, "a", generation=2, replicas="many")


def test_labels_of_namespaces_matter_only_to_gateways_that_look_beyond_their_own(world: World) -> None:
    world.cache.put(NAMESPACES, {"metadata": {"name": "team"}})
    assert dependants_of_namespaces(world.cache) == []
    world.put(API_GATEWAYS, "wide", models={"namespaces": {"from": "All"}})
    assert {key.kind for key, _ in dependants_of_namespaces(world.cache)} == {"ApiGateway", "ModelDeployment"}
