"""What every reconcile works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stoker.api.autoscaling import AutoscalingStatus
from stoker.api.resolved import OperatorSettings
from stoker.cluster.cache import Cache, Key
from stoker.cluster.children import ChildWriter
from stoker.cluster.client import KubeClient
from stoker.cluster.events import EventPoster
from stoker.cluster.objects import owner_of_child, owner_of_pod
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import NAMESPACES, NODES, OWN_TYPES, PODS, RESOURCE_SLICES, Object, ResourceType
from stoker.reconcile.dependants import dependants_of, dependants_of_namespaces, dependants_of_nodes
from stoker.reconcile.work_queue import WorkKey, WorkQueue

# Several changes of children come together: the Deployment's status, its pods, our own writes coming back.
CHILD_DELAY_SECONDS = 0.2
# While so many wait to be looked at, those under way are looked at less often: each time their status would be written anew.
CROWD = 50
CHILD_DELAY_IN_CROWD_SECONDS = 1.0


def _now() -> datetime:
    # Kubernetes keeps whole seconds; with more, status would never be equal to what was read.
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Scaled:
    """What the autoscaler says of one model: how many replicas, and what its status shall tell."""

    desired: int
    status: AutoscalingStatus


@dataclass
class Context:
    """The cluster as known, the ways to change it, and the queue."""

    client: KubeClient
    cache: Cache
    settings: OperatorSettings
    queue: WorkQueue
    events: EventPoster
    now: Callable[[], datetime] = _now
    slices_served: bool = False
    """Whether this cluster knows the ResourceSlices of dynamic resource allocation."""
    scaled: dict[Key, Scaled] = field(default_factory=dict)
    """By model: written by the autoscaler, rendered by the reconcile, which alone writes replicas."""
    gateway_tokens: dict[Key, str] = field(default_factory=dict)
    """By gateway: what the operator's own calls to its pods carry."""
    root_causes: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """What was found in the log of a container that ended, by namespace, pod and restarts."""
    children: ChildWriter = field(init=False)

    def __post_init__(self) -> None:
        self.children = ChildWriter(self.client, self.cache, on_written=self.take_written)

    def take(self, resource: ResourceType, obj: Object) -> None:
        """Take over an object as a watch tells it, and have looked at it and at whatever depends on it."""
        if resource == NAMESPACES:
            if self.cache.put(resource, obj):
                self._enqueue_all(dependants_of_namespaces(self.cache))
        elif resource in (NODES, RESOURCE_SLICES):
            if self.cache.put(resource, obj):
                self._enqueue_all(dependants_of_nodes(self.cache))
        elif resource in OWN_TYPES:
            self._take_own(resource, obj, ours=False)
        elif self.cache.put(resource, obj):
            self._enqueue_owner(resource, obj)

    def take_written(self, resource: ResourceType, obj: Object) -> None:
        """Take over the answer to a write of ours; it needs no second look, but what depends on it does."""
        if resource in OWN_TYPES:
            self._take_own(resource, obj, ours=True)
        else:
            self.cache.put(resource, obj)

    def _take_own(self, resource: ResourceType, obj: Object, *, ours: bool) -> None:
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        old = self.cache.own(resource.kind, key)
        if not self.cache.put(resource, obj):
            return
        new = self.cache.own(resource.kind, key)
        if not ours or old is None or new is None or _was_edited(old, new):
            self.enqueue(resource.kind, key)
        self._enqueue_all(dependants_of(self.cache, old, new))

    def lose(self, resource: ResourceType, key: Key, obj: Object | None = None) -> None:
        """Forget an object that is gone, and have looked at whatever depended on it."""
        version = (obj or {}).get("metadata", {}).get("resourceVersion", "")
        if resource in OWN_TYPES:
            old = self.cache.own(resource.kind, key)
            self.cache.drop(resource, key, version=version)
            self.enqueue(resource.kind, key)
            self._enqueue_all(dependants_of(self.cache, old, None))
            return
        owner = self.cache.owner_of(resource, key)
        self.children.forget(resource, key)
        self.cache.drop(resource, key, version=version)
        if owner is not None:
            self.enqueue(owner[0], (key[0], owner[1]))

    def enqueue(self, kind: str, key: Key, *, delay: float = 0.0, urgent: bool = False) -> None:
        """Put an object of ours into the queue; somebody waits for an urgent one."""
        self.queue.add(WorkKey(kind, *key), delay=delay, urgent=urgent)

    def _enqueue_owner(self, resource: ResourceType, obj: Object) -> None:
        owner = owner_of_pod(obj) if resource == PODS else owner_of_child(obj)
        if owner is not None:
            delay = CHILD_DELAY_SECONDS if self.queue.depth < CROWD else CHILD_DELAY_IN_CROWD_SECONDS
            self.enqueue(owner[0], (obj["metadata"]["namespace"], owner[1]), delay=delay)

    def _enqueue_all(self, wanted: list[tuple[WorkKey, float]]) -> None:
        for key, delay in wanted:
            self.queue.add(key, delay=delay)


def _was_edited(old: OwnObject, new: OwnObject) -> bool:
    """Whether anything but status changed."""
    before, after = old.metadata, new.metadata
    return (
        before.uid != after.uid
        or before.generation != after.generation
        or before.labels != after.labels
        or before.annotations != after.annotations
        or before.deletion_timestamp != after.deletion_timestamp
    )
