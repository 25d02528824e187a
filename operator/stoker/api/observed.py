"""What reading the cluster passes on to status: plain facts about children, already taken out of Kubernetes objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stoker.api.inspection import ModelStatus

FetchPhase = Literal["Waiting", "Downloading", "Verifying", "Retrying", "Failed", "Done"]


@dataclass(frozen=True)
class FetchProgress:
    """What `stoker fetch` last wrote down in a pod (see stoker.fetch.progress)."""

    phase: FetchPhase
    file: str = ""
    completed_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float = 0.0
    reason: str = ""
    """Cause of Retrying or Failed, such as SourceNotFound."""
    message: str = ""
    model: ModelStatus | None = None
    """What the header says, once it has been read."""


@dataclass(frozen=True)
class ObservedContainer:
    """One container of a pod, init containers included."""

    name: str
    init: bool
    ready: bool
    started: bool
    restarts: int
    state: Literal["waiting", "running", "terminated"]
    reason: str = ""
    """Reason of the present state (ImagePullBackOff, CrashLoopBackOff, OOMKilled, Completed …)."""
    message: str = ""
    exit_code: int | None = None
    last_reason: str = ""
    """Reason of the last termination."""
    last_exit_code: int | None = None
    last_message: str = ""
    ran_seconds: float | None = None
    """How long it ran before it ended, this time or the last; None while it has not."""
    run_started_at: float | None = None
    """When that run began, in Unix time."""
    running_since: float | None = None
    """When the present run began, in Unix time; None while it does not run."""
    image: str = ""


@dataclass(frozen=True)
class ObservedPod:
    """One pod of a child Deployment."""

    name: str
    phase: str
    ready: bool
    terminating: bool
    scheduled: bool
    pod_ip: str
    template_hash: str
    component: str = ""
    """Which part of its owner it is: engine, gateway …"""
    containers: tuple[ObservedContainer, ...] = ()
    unschedulable_message: str = ""
    """The scheduler's words, when it found no node."""
    node: str = ""
    reason: str = ""
    """Reason of the pod itself: Evicted, NodeLost."""
    message: str = ""
    created_at: float = 0.0
    """Unix time, as are the next."""
    started_at: float | None = None
    """When its kubelet took it over."""
    unready_since: float | None = None
    """When its Ready condition became false, which it is from the beginning; None while it is not false."""
    fetch: FetchProgress | None = None
    routable: bool = True
    """False: it has been taken out of routing, because it is to go."""


@dataclass(frozen=True)
class ObservedSlice:
    """Devices of one node as a driver of dynamic resource allocation publishes them: a part of a pool, or all of it."""

    node: str
    """Empty for devices that belong to no single node."""
    driver: str
    pool: str
    generation: int
    """Of the pool: what an older one said does not hold any more."""
    memory: frozenset[str]
    """Quantities of its devices, each once; empty for one that does not tell, or that several may share."""


@dataclass(frozen=True)
class ObservedNode:
    """What a node says of itself, and what drivers publish for it."""

    name: str
    labels: dict[str, str]
    allocatable: dict[str, str]
    """Quantities by resource."""
    slices: tuple[ObservedSlice, ...] = ()


@dataclass(frozen=True)
class ObservedDeployment:
    """A child Deployment."""

    generation: int = 0
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    progress_reason: str = ""
    """Reason of its Progressing condition."""
    replica_failure: str = ""
    """Message of its ReplicaFailure condition: pods that could not be created (quota, Pod Security)."""


@dataclass(frozen=True)
class ObservedWorkload:
    """A child Deployment with its pods; deployment is None before it exists."""

    deployment: ObservedDeployment | None
    pods: tuple[ObservedPod, ...] = ()


@dataclass(frozen=True)
class Loading:
    """How far a model is on its way to its first replica, as those are told who wait for it."""

    phase: str
    message: str
    progress: float | None = None
    """0 to 1."""
    eta_seconds: int | None = None
    failed: bool = False
    """It will not come by itself: whoever waits need not wait on."""

    def to_json(self) -> dict[str, object]:
        """As gateways read it."""
        return {
            "phase": self.phase,
            "message": self.message,
            "progress": self.progress,
            "etaSeconds": self.eta_seconds,
            "failed": self.failed,
        }
