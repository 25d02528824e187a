from __future__ import annotations

from typing import Any

from stoker.cluster.observe import observe_deployment, observe_pod, observe_slice


def pod(**content: Any) -> dict[str, Any]:
    metadata = {"name": "a-1", "creationTimestamp": "1970-01-01T00:01:00Z", "labels": {"pod-template-hash": "abc"}}
    return {"metadata": metadata, "spec": {}, **content}


def test_a_pod_that_finds_no_node_carries_the_schedulers_words() -> None:
    waiting = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available",
    }
    seen = observe_pod(pod(status={"phase": "Pending", "conditions": [waiting]}))
    assert seen.unschedulable_message == "0/2 nodes are available"
    assert not seen.scheduled
    assert (seen.template_hash, seen.created_at) == ("abc", 60.0)


def test_a_pod_says_which_part_of_its_owner_it_is() -> None:
    labels = {"app.kubernetes.io/component": "web-ui", "stoker.dev/api-gateway": "gateway"}
    assert observe_pod(pod(metadata={**pod()["metadata"], "labels": labels})).component == "web-ui"
    assert observe_pod(pod()).component == ""


def test_a_container_that_fell_tells_how_and_its_last_words() -> None:
    fallen = {"exitCode": 137, "reason": "OOMKilled", "message": "x" * 600 + "the cause"}
    engine = {
        "name": "engine",
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": fallen},
    }
    (seen,) = observe_pod(pod(status={"containerStatuses": [engine]})).containers
    assert (seen.state, seen.reason, seen.restarts) == ("waiting", "CrashLoopBackOff", 3)
    assert (seen.last_exit_code, seen.last_reason) == (137, "OOMKilled")
    assert seen.last_message.endswith("the cause")
    assert len(seen.last_message) <= 4096


def test_a_pod_and_a_container_tell_since_when_they_are_as_they_are() -> None:
    ended = {"exitCode": 1, "startedAt": "1970-01-01T00:02:00Z", "finishedAt": "1970-01-01T00:03:30Z"}
    engine = {"name": "engine", "state": {"waiting": {}}, "lastState": {"terminated": ended}}
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:03:31Z"}
    status = {"startTime": "1970-01-01T00:01:01Z", "conditions": [unready], "containerStatuses": [engine]}
    seen = observe_pod(pod(status=status))
    assert (seen.started_at, seen.unready_since) == (61.0, 211.0)
    assert (seen.containers[0].run_started_at, seen.containers[0].ran_seconds) == (120.0, 90.0)
    ready = observe_pod(pod(status={"conditions": [{**unready, "status": "True"}]}))
    assert (ready.started_at, ready.unready_since) == (None, None)


def test_init_containers_come_first_and_are_known_as_such() -> None:
    status = {
        "initContainerStatuses": [{"name": "fetch", "state": {"running": {}}}],
        "containerStatuses": [{"name": "engine", "state": {}}],
    }
    assert [(each.name, each.init, each.state) for each in observe_pod(pod(status=status)).containers] == [
        ("fetch", True, "running"),
        ("engine", False, "waiting"),
    ]


def test_a_deployment_that_may_not_make_pods_tells_why() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    progress = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    seen = observe_deployment(
        {"metadata": {"generation": 2}, "status": {"conditions": [failure, progress], "replicas": 1}}
    )
    assert seen is not None
    assert (seen.replica_failure, seen.progress_reason) == ("exceeded quota", "ProgressDeadlineExceeded")
    assert (seen.generation, seen.replicas, seen.ready_replicas) == (2, 1, 0)
    assert observe_deployment(None) is None


def test_of_a_resource_slice_the_sizes_of_its_devices_are_kept() -> None:
    pool = {"name": "worker-1", "generation": 3, "resourceSliceCount": 1}
    devices = [
        {"name": "gpu-0", "capacity": {"memory": {"value": "81559Mi"}}},
        {"name": "gpu-1", "capacity": {"memory": {"value": "81559Mi"}}},
        {"name": "gpu-vfio-0", "capacity": {"addressableMemory": {"value": "80Gi"}}},
        {"name": "gpu-2", "allowMultipleAllocations": True, "capacity": {"memory": {"value": "40Gi"}}},
    ]
    spec = {"driver": "gpu.nvidia.com", "nodeName": "worker-1", "pool": pool, "devices": devices}
    seen = observe_slice({"metadata": {"name": "s"}, "spec": spec})
    assert (seen.node, seen.driver, seen.pool, seen.generation) == ("worker-1", "gpu.nvidia.com", "worker-1", 3)
    assert seen.memory == {"81559Mi", ""}


def test_a_resource_slice_of_no_single_node_and_without_devices_is_read_too() -> None:
    seen = observe_slice({"metadata": {"name": "s"}, "spec": {"driver": "net.example.com", "allNodes": True}})
    assert (seen.node, seen.memory) == ("", frozenset())
