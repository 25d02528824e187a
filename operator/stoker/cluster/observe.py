"""Plain facts out of Kubernetes objects, for computing status."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from stoker.api.names import COMPONENT, ROUTABLE_LABEL
from stoker.api.observed import ObservedContainer, ObservedDeployment, ObservedNode, ObservedPod, ObservedSlice
from stoker.cluster.resource_types import Object

ContainerState = Literal["waiting", "running", "terminated"]
TEMPLATE_HASH = "pod-template-hash"
_STATES: tuple[ContainerState, ...] = ("waiting", "running", "terminated")
# The kubelet keeps 2 KiB of a container's last words, or 4 KiB where it wrote a message itself; the cause may stand anywhere.
_MESSAGE_LENGTH = 4096


def observe_pod(pod: Object) -> ObservedPod:
    """A pod as status needs it."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    labels = metadata.get("labels") or {}
    containers = [
        *(_observe_container(seen, init=True) for seen in status.get("initContainerStatuses") or ()),
        *(_observe_container(seen, init=False) for seen in status.get("containerStatuses") or ()),
    ]
    return ObservedPod(
        name=metadata["name"],
        phase=status.get("phase", "Pending"),
        ready=ready.get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        scheduled=bool((pod.get("spec") or {}).get("nodeName")),
        pod_ip=status.get("podIP", ""),
        template_hash=labels.get(TEMPLATE_HASH, ""),
        component=labels.get(COMPONENT, ""),
        containers=tuple(containers),
        unschedulable_message=str(scheduled.get("message", "")) if scheduled.get("reason") == "Unschedulable" else "",
        node=(pod.get("spec") or {}).get("nodeName") or "",
        reason=status.get("reason", ""),
        message=str(status.get("message", ""))[:_MESSAGE_LENGTH],
        routable=labels.get(ROUTABLE_LABEL) != "false",
        created_at=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
        started_at=_unix(status.get("startTime")),
        unready_since=_unix(ready.get("lastTransitionTime")) if ready.get("status") == "False" else None,
    )


def observe_node(node: Object) -> ObservedNode:
    """A node as far as it decides what fits."""
    metadata, status = node["metadata"], node.get("status") or {}
    return ObservedNode(metadata["name"], metadata.get("labels") or {}, status.get("allocatable") or {})


def observe_slice(found: Object) -> ObservedSlice:
    """A ResourceSlice as far as it decides what fits."""
    spec = found["spec"]
    pool = spec.get("pool") or {}
    return ObservedSlice(
        node=spec.get("nodeName") or "",
        driver=spec["driver"],
        pool=pool.get("name", ""),
        generation=pool.get("generation", 0),
        memory=frozenset(_memory_of(device) for device in spec.get("devices") or ()),
    )


def _memory_of(device: Object) -> str:
    if device.get("allowMultipleAllocations"):
        return ""
    return str(((device.get("capacity") or {}).get("memory") or {}).get("value", ""))


def _observe_container(seen: Object, *, init: bool) -> ObservedContainer:
    state_name, state = _state(seen.get("state") or {})
    _, last = _state(seen.get("lastState") or {})
    ended = state if state_name == "terminated" else last
    return ObservedContainer(
        name=seen["name"],
        init=init,
        ready=bool(seen.get("ready")),
        started=bool(seen.get("started")),
        restarts=int(seen.get("restartCount", 0)),
        state=state_name,
        reason=state.get("reason", ""),
        message=_message(state_name, state),
        exit_code=state.get("exitCode"),
        last_reason=last.get("reason", ""),
        last_exit_code=last.get("exitCode"),
        last_message=_message("terminated", last),
        ran_seconds=_ran_seconds(ended),
        run_started_at=_unix(ended.get("startedAt")),
        running_since=_unix(state.get("startedAt")) if state_name == "running" else None,
        image=seen.get("image", ""),
    )


def _ran_seconds(ended: Object) -> float | None:
    started, finished = _unix(ended.get("startedAt")), _unix(ended.get("finishedAt"))
    return None if started is None or finished is None else finished - started


def _unix(time: str | None) -> float | None:
    return datetime.fromisoformat(time).timestamp() if time else None


def _message(state_name: ContainerState, state: Object) -> str:
    """Of a process that ended the last words, for there the cause stands; of all else the first."""
    words: str = state.get("message", "")
    return words[-_MESSAGE_LENGTH:] if state_name == "terminated" else words[:_MESSAGE_LENGTH]


def _state(state: Object) -> tuple[ContainerState, Object]:
    for name in _STATES:
        if name in state:
            return name, state[name] or {}
    return "waiting", {}


def observe_deployment(deployment: Object | None) -> ObservedDeployment | None:
    """A child Deployment as status needs it."""
    if deployment is None:
        return None
    status = deployment.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    failure = conditions.get("ReplicaFailure", {})
    return ObservedDeployment(
        generation=deployment["metadata"].get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        replicas=status.get("replicas", 0),
        updated_replicas=status.get("updatedReplicas", 0),
        ready_replicas=status.get("readyReplicas", 0),
        progress_reason=conditions.get("Progressing", {}).get("reason", ""),
        replica_failure=failure.get("message", "") if failure.get("status") == "True" else "",
    )
