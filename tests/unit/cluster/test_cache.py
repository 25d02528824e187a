from __future__ import annotations

import time
from typing import Any

import pytest

from stoker.api.observed import FetchProgress
from stoker.cluster.cache import Cache
from stoker.cluster.own import parse_own
from stoker.cluster.resource_types import (
    API_GATEWAYS,
    API_KEYS,
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_SLICES,
    Object,
    ResourceType,
)


def obj(resource: ResourceType, name: str, version: int = 1, **content: Any) -> Object:
    metadata = {
        "namespace": "team",
        "name": name,
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **content.pop("metadata", {}),
    }
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **content}


def model(name: str, version: int = 1, **spec: Any) -> Object:
    given = {"engineRef": {"name": "llama"}, "source": {"uri": "https://example.com/a.gguf"}, **spec}
    return obj(MODEL_DEPLOYMENTS, name, version, spec=given)


def pod(name: str, version: int = 1, *, fetching: bool = False, uid: str = "1") -> Object:
    state = {"running": {}} if fetching else {"terminated": {"exitCode": 0}}
    return obj(
        PODS,
        name,
        version,
        metadata={"uid": uid, "labels": {"stoker.dev/model-deployment": "a"}},
        spec={"nodeName": "node"},
        status={"podIP": "10.0.0.1", "initContainerStatuses": [{"name": "fetch", "state": state}]},
    )


@pytest.fixture
def cache() -> Cache:
    return Cache(namespaces_known=True)


def test_an_older_word_never_replaces_a_newer_one(cache: Cache) -> None:
    assert cache.put(MODEL_DEPLOYMENTS, model("a", 5, replicas=5))
    assert not cache.put(MODEL_DEPLOYMENTS, model("a", 4, replicas=4))
    assert not cache.put(MODEL_DEPLOYMENTS, model("a", 5, replicas=6))
    found = cache.model(("team", "a"))
    assert found is not None
    assert found.spec.replicas == 5


def test_a_late_answer_does_not_bring_a_deleted_child_back(cache: Cache) -> None:
    cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "a", 5))
    cache.drop(DEPLOYMENTS, ("team", "a"), version="7")
    assert not cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "a", 6))
    assert cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "a", 8))


def test_models_are_found_by_engine_and_no_longer_by_the_one_they_left(cache: Cache) -> None:
    cache.put(MODEL_DEPLOYMENTS, model("a"))
    assert cache.models_of_engine(("team", "llama")) == {("team", "a")}
    cache.put(MODEL_DEPLOYMENTS, model("a", 2, engineRef={"name": "other"}))
    assert cache.models_of_engine(("team", "llama")) == set()
    assert cache.models_of_engine(("team", "other")) == {("team", "a")}
    cache.drop(MODEL_DEPLOYMENTS, ("team", "a"))
    assert cache.models_of_engine(("team", "other")) == set()


def test_models_that_share_names_are_found_also_over_a_third_one(cache: Cache) -> None:
    cache.put(MODEL_DEPLOYMENTS, model("a", servedModelName="x"))
    cache.put(MODEL_DEPLOYMENTS, model("b", servedModelName="y", aliases=["x"]))
    cache.put(MODEL_DEPLOYMENTS, model("c", servedModelName="y"))
    cache.put(MODEL_DEPLOYMENTS, model("d", servedModelName="z"))
    first = cache.model(("team", "a"))
    assert first is not None
    assert {each.metadata.name for each in cache.models_sharing_names(first)} == {"a", "b", "c"}


def test_keys_are_found_by_gateway(cache: Cache) -> None:
    for name in ("b", "a"):
        cache.put(API_KEYS, obj(API_KEYS, name, spec={"gatewayRef": {"name": "gateway"}}))
    assert [key.metadata.name for key in cache.keys_of_gateway(("team", "gateway"))] == ["a", "b"]


def test_children_are_found_by_owner_the_admin_key_among_them(cache: Cache) -> None:
    owned = {"ownerReferences": [{"kind": "ApiGateway", "name": "gateway", "uid": "g", "controller": True}]}
    cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "gateway", metadata=owned))
    cache.put(API_KEYS, obj(API_KEYS, "gateway-admin", metadata=owned, spec={"gatewayRef": {"name": "gateway"}}))
    assert cache.children_of("g") == {(DEPLOYMENTS, ("team", "gateway")), (API_KEYS, ("team", "gateway-admin"))}
    assert cache.owner_of(DEPLOYMENTS, ("team", "gateway")) == ("ApiGateway", "gateway")
    cache.drop(DEPLOYMENTS, ("team", "gateway"))
    cache.drop(API_KEYS, ("team", "gateway-admin"))
    assert cache.children_of("g") == set()


def test_what_nobody_asks_for_is_not_kept(cache: Cache) -> None:
    noise = {
        "managedFields": [{}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"},
    }
    cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "a", metadata=noise))
    kept = cache.child(DEPLOYMENTS, ("team", "a"))
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"mine": "x"}


def test_download_progress_belongs_to_the_pod_and_goes_with_it(cache: Cache) -> None:
    progress = FetchProgress(phase="Downloading", completed_bytes=5)
    assert not cache.put_fetch_progress(("team", "a-1"), progress)
    cache.put(PODS, pod("a-1", fetching=True))
    assert list(cache.fetching_pods()) == [("team", "a-1")]
    assert cache.put_fetch_progress(("team", "a-1"), progress)
    assert not cache.put_fetch_progress(("team", "a-1"), progress)
    assert [each.fetch for each in cache.pods_of("ModelDeployment", ("team", "a"))] == [progress]
    cache.put(PODS, pod("a-1", 2, uid="2"))
    assert [each.fetch for each in cache.pods_of("ModelDeployment", ("team", "a"))] == [None]
    assert cache.fetching_pods() == {}


def test_an_object_that_cannot_be_read_is_kept_with_the_reason() -> None:
    own = parse_own("ModelDeployment", model("a", replicas="many"))
    assert own.resource is None
    assert own.problem.startswith("spec.replicas: ")
    assert own.metadata.name == "a"


def test_a_status_that_cannot_be_read_is_as_if_there_were_none() -> None:
    own = parse_own("ModelDeployment", {**model("a"), "status": {"replicas": "many"}})
    assert own.resource is not None
    assert "status" not in own.raw


def test_an_unreadable_object_is_no_gateway_and_no_model(cache: Cache) -> None:
    cache.put(API_GATEWAYS, obj(API_GATEWAYS, "gateway", spec={"replicas": "many"}))
    assert list(cache.gateways()) == []
    assert cache.own("ApiGateway", ("team", "gateway")) is not None


def test_namespace_labels_are_not_known_where_they_may_not_be_read() -> None:
    labelled = obj(NAMESPACES, "team", metadata={"labels": {"a": "b"}})
    blind, seeing = Cache(namespaces_known=False), Cache(namespaces_known=True)
    assert not blind.put(NAMESPACES, labelled)
    assert blind.namespace_labels is None
    assert seeing.put(NAMESPACES, labelled)
    assert not seeing.put(NAMESPACES, labelled)
    assert seeing.namespace_labels == {"team": {"a": "b"}}


def test_deployments_are_starting_until_they_have_a_pod_or_have_been_held_up_for_long(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, name, spec={"replicas": 1}))
    cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "stopped", spec={"replicas": 0}))
    cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "running", spec={"replicas": 1}, status={"replicas": 1}))
    assert cache.starting() == 3
    cache.put(DEPLOYMENTS, obj(DEPLOYMENTS, "a", 2, spec={"replicas": 1}, status={"replicas": 1}))
    cache.drop(DEPLOYMENTS, ("team", "b"))
    assert cache.starting() == 1
    later = time.monotonic() + 16
    monkeypatch.setattr("stoker.cluster.cache.time.monotonic", lambda: later)
    assert cache.starting() == 0


def test_a_node_has_what_drivers_publish_for_it_until_they_take_it_back() -> None:
    cache = Cache(namespaces_known=True)
    cache.put(NODES, {"metadata": {"name": "worker-1"}})
    cache.put(NODES, {"metadata": {"name": "worker-2"}})
    device = {"name": "gpu-0", "capacity": {"memory": {"value": "80Gi"}}}
    pool = {"name": "worker-1", "generation": 1}
    spec = {"driver": "gpu.nvidia.com", "nodeName": "worker-1", "pool": pool, "devices": [device]}
    published = {"metadata": {"name": "s"}, "spec": spec}
    assert cache.put(RESOURCE_SLICES, published)
    assert not cache.put(RESOURCE_SLICES, published), "nothing new"
    assert {node.name: [part.memory for part in node.slices] for node in cache.nodes()} == {
        "worker-1": [{"80Gi"}],
        "worker-2": [],
    }
    assert list(cache.known(RESOURCE_SLICES)) == [("", "s")]
    assert cache.drop(RESOURCE_SLICES, ("", "s"))
    assert not any(node.slices for node in cache.nodes())
