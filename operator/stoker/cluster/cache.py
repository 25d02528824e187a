"""What the watches have told: our own objects parsed, children and pods trimmed, with the look-ups that reconciling needs.

Only the watch and the answers to our own writes fill it; an older word never replaces a newer one.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from stoker.api import KIND_BY_NAME, ApiGateway, ApiKey, InferenceEngine, ModelDeployment
from stoker.api.api_key import KeyUsage
from stoker.api.observed import FetchProgress, ObservedNode, ObservedPod, ObservedSlice
from stoker.cluster.objects import awaits_pods, controller_uid, owner_of_child, owner_of_pod, trim
from stoker.cluster.observe import observe_node, observe_pod, observe_slice
from stoker.cluster.own import OwnObject, parse_own
from stoker.cluster.resource_types import (
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCE_SLICES,
    TYPE_BY_KIND,
    Object,
    ResourceType,
)

K = TypeVar("K")
V = TypeVar("V")

Key = tuple[str, str]
"""(namespace, name)."""

NO_ENGINE = ""
"""Stands for the engine of models that name none."""

ANY_VERSION = 2**63
"""Of objects of which only the last word is kept, not its version."""

# Longer than any request of ours may take: until then its answer may still speak of a deleted object.
_TOMBSTONE_SECONDS = 90.0
# A Deployment without a pod for longer than this is held up by something else: a quota, Pod Security, no controller.
_STARTING_SECONDS = 15.0


@dataclass(frozen=True)
class CachedPod:
    """A pod as far as anybody asks for it."""

    observed: ObservedPod
    version: int
    uid: str
    owner: tuple[str, str] | None
    """(kind, name) of our object it belongs to."""
    fetching: bool
    """Its download container runs now."""
    fetched: bool = False
    """Its download container has done its work."""


@dataclass
class _Index:
    """Which models and keys refer to what."""

    models_by_engine: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    models_by_served_name: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    keys_by_gateway: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    children_by_owner: dict[str, set[tuple[ResourceType, Key]]] = field(default_factory=lambda: defaultdict(set))
    pods_by_owner: dict[tuple[str, str, str], set[Key]] = field(default_factory=lambda: defaultdict(set))


class Cache:
    """All that is known of the cluster."""

    def __init__(self, *, namespaces_known: bool) -> None:
        self._own: dict[str, dict[Key, OwnObject]] = {kind: {} for kind in KIND_BY_NAME}
        self._children: dict[ResourceType, dict[Key, Object]] = defaultdict(dict)
        self._pods: dict[Key, CachedPod] = {}
        self._index = _Index()
        self._tombstones: dict[tuple[str, Key], tuple[int, float]] = {}
        self._fetch: dict[Key, FetchProgress] = {}
        self._starting: dict[Key, float] = {}
        self.key_usage: dict[Key, KeyUsage] = {}
        """What keys have used, as far as their gateways have told."""
        self.namespace_labels: dict[str, dict[str, str]] | None = {} if namespaces_known else None
        """Labels by namespace; None where the operator may not read them."""
        self._nodes: dict[str, ObservedNode] = {}
        self._slices: dict[str, ObservedSlice] = {}

    # What is in it

    def own(self, kind: str, key: Key) -> OwnObject | None:
        """One of our objects."""
        return self._own[kind].get(key)

    def engine(self, key: Key) -> InferenceEngine | None:
        """The engine, when it is there and can be read."""
        found = self._own["InferenceEngine"].get(key)
        return found.resource if found and isinstance(found.resource, InferenceEngine) else None

    def model(self, key: Key) -> ModelDeployment | None:
        """The model, when it is there and can be read."""
        found = self._own["ModelDeployment"].get(key)
        return found.resource if found and isinstance(found.resource, ModelDeployment) else None

    def gateway(self, key: Key) -> ApiGateway | None:
        """The gateway, when it is there and can be read."""
        found = self._own["ApiGateway"].get(key)
        return found.resource if found and isinstance(found.resource, ApiGateway) else None

    def api_key(self, key: Key) -> ApiKey | None:
        """The key, when it is there and can be read."""
        found = self._own["ApiKey"].get(key)
        return found.resource if found and isinstance(found.resource, ApiKey) else None

    def models(self, keys: Iterable[Key] | None = None) -> Iterator[ModelDeployment]:
        """Models that can be read and are not going away: all, or those of ``keys``."""
        for key in self._own["ModelDeployment"] if keys is None else keys:
            model = self.model(key)
            if model is not None and model.metadata.deletion_timestamp is None:
                yield model

    def gateways(self) -> Iterator[ApiGateway]:
        """Gateways that can be read and are not going away."""
        for key in self._own["ApiGateway"]:
            gateway = self.gateway(key)
            if gateway is not None and gateway.metadata.deletion_timestamp is None:
                yield gateway

    def keys_of_gateway(self, gateway: Key) -> list[ApiKey]:
        """Keys that name this gateway, sorted by name."""
        keys = (self.api_key(key) for key in sorted(self._index.keys_by_gateway.get(gateway, ())))
        return [key for key in keys if key is not None and key.metadata.deletion_timestamp is None]

    def key_names_of_gateway(self, gateway: Key) -> set[Key]:
        """Keys that name this gateway, the ones going away included."""
        return set(self._index.keys_by_gateway.get(gateway, ()))

    def models_of_engine(self, engine: Key) -> set[Key]:
        """Models that name this engine."""
        return set(self._index.models_by_engine.get(engine, ()))

    def models_without_engine(self, namespace: str) -> set[Key]:
        """Models that leave the choice of the engine to Stoker."""
        return self.models_of_engine((namespace, NO_ENGINE))

    def models_on_engine(self, engine: Key) -> set[Key]:
        """Models that name this engine, and those that Stoker put on it."""
        chosen = self.models(self.models_without_engine(engine[0]))
        return self.models_of_engine(engine) | {model.key for model in chosen if model.status.engine == engine[1]}

    def engines(self, namespace: str) -> list[InferenceEngine]:
        """Engines of a namespace that can be read and are not going away, sorted by name."""
        keys = sorted(key for key in self._own["InferenceEngine"] if key[0] == namespace)
        found = (self.engine(key) for key in keys)
        return [engine for engine in found if engine is not None and engine.metadata.deletion_timestamp is None]

    def models_sharing_names(self, model: ModelDeployment) -> list[ModelDeployment]:
        """The model and all that share a served name or alias with it, or with one that does.

        Who keeps a name depends on nobody else, so a collision is decided without looking at a thousand models.
        """
        found = {model.key: model}
        todo = [model]
        while todo:
            for name in todo.pop().served_names:
                for key in self._index.models_by_served_name.get(name, ()):
                    other = self.model(key)
                    if key not in found and other is not None and other.metadata.deletion_timestamp is None:
                        found[key] = other
                        todo.append(other)
        return list(found.values())

    def nodes(self) -> list[ObservedNode]:
        """All nodes; none where the operator may not read them."""
        if not self._slices:
            return list(self._nodes.values())
        by_node: dict[str, list[ObservedSlice]] = defaultdict(list)
        for found in self._slices.values():
            by_node[found.node].append(found)
        return [replace(node, slices=tuple(by_node.get(node.name, ()))) for node in self._nodes.values()]

    def child(self, resource: ResourceType, key: Key) -> Object | None:
        """A child as last seen; one of our own kinds comes as it was read."""
        if resource.kind in self._own:
            found = self._own[resource.kind].get(key)
            return found.raw if found else None
        return self._children[resource].get(key)

    def children_of(self, owner_uid: str) -> set[tuple[ResourceType, Key]]:
        """Watched children with this controller."""
        return set(self._index.children_by_owner.get(owner_uid, ()))

    def starting(self) -> int:
        """Deployments that Kubernetes has not yet come to: no pod of theirs was made, though not long ago they were new."""
        oldest = time.monotonic() - _STARTING_SECONDS
        while self._starting and (first := next(iter(self._starting.items())))[1] < oldest:
            del self._starting[first[0]]
        return len(self._starting)

    def owner_of(self, resource: ResourceType, key: Key) -> tuple[str, str] | None:
        """(kind, name) of the object of ours that a child or pod belongs to."""
        if resource == PODS:
            pod = self._pods.get(key)
            return pod.owner if pod else None
        child = self.child(resource, key)
        return owner_of_child(child) if child else None

    def pods_of(self, kind: str, key: Key) -> list[ObservedPod]:
        """Pods of one of our objects, by name."""
        found = []
        for pod_key in sorted(self._index.pods_by_owner.get((kind, *key), ())):
            pod = self._pods[pod_key].observed
            progress = self._fetch.get(pod_key)
            if progress is not None:
                pod = replace(pod, fetch=progress)
            found.append(pod)
        return found

    def fetching_pods(self) -> dict[Key, CachedPod]:
        """Pods whose download container runs now."""
        return {key: pod for key, pod in self._pods.items() if pod.fetching and pod.observed.pod_ip}

    def undescribed_pods(self) -> dict[Key, CachedPod]:
        """Pods that have their weights and whose model is not known: they were too quick to be asked while they fetched."""
        return {
            key: pod
            for key, pod in self._pods.items()
            if pod.fetched and pod.observed.pod_ip and (self._fetch.get(key) is None or self._fetch[key].model is None)
        }

    def put_fetch_progress(self, key: Key, progress: FetchProgress) -> bool:
        """Remember what a pod's download has come to; True when that is new."""
        if key not in self._pods or self._fetch.get(key) == progress:
            return False
        self._fetch[key] = progress
        return True

    def known(self, resource: ResourceType) -> dict[Key, int]:
        """resourceVersions of all objects of a type, by name."""
        if resource == NAMESPACES:
            return {("", name): ANY_VERSION for name in self.namespace_labels or ()}
        if resource == NODES:
            return {("", name): ANY_VERSION for name in self._nodes}
        if resource == RESOURCE_SLICES:
            return {("", name): ANY_VERSION for name in self._slices}
        if resource.kind in self._own:
            return {key: _version(own.metadata.resource_version) for key, own in self._own[resource.kind].items()}
        if resource == PODS:
            return {key: pod.version for key, pod in self._pods.items()}
        return {
            key: _version(child["metadata"].get("resourceVersion", ""))
            for key, child in self._children[resource].items()
        }

    # What comes in

    def put(self, resource: ResourceType, obj: Object) -> bool:
        """Take over an object unless something newer is known; True when it was taken."""
        metadata = obj["metadata"]
        if resource == NAMESPACES:
            if self.namespace_labels is None:
                return False
            labels = metadata.get("labels") or {}
            changed = self.namespace_labels.get(metadata["name"]) != labels
            self.namespace_labels[metadata["name"]] = labels
            return changed
        if resource == NODES:
            known, node = self._nodes.get(metadata["name"]), observe_node(obj)
            self._nodes[node.name] = node
            return known != node
        if resource == RESOURCE_SLICES:
            before, found = self._slices.get(metadata["name"]), observe_slice(obj)
            self._slices[metadata["name"]] = found
            return before != found
        key = (metadata.get("namespace", ""), metadata["name"])
        version = _version(metadata.get("resourceVersion", ""))
        tombstone = self._tombstones.get((resource.plural, key))
        if tombstone is not None and version <= tombstone[0]:
            return False
        if resource == PODS:
            return self._put_pod(key, version, obj)
        if resource.kind in self._own:
            return self._put_own(resource.kind, key, version, obj)
        return self._put_child(resource, key, version, obj)

    def drop(self, resource: ResourceType, key: Key, *, version: str = "") -> bool:
        """Forget an object that is gone; True when it was known."""
        if resource == NAMESPACES:
            return self.namespace_labels is not None and self.namespace_labels.pop(key[1], None) is not None
        if resource == NODES:
            return self._nodes.pop(key[1], None) is not None
        if resource == RESOURCE_SLICES:
            return self._slices.pop(key[1], None) is not None
        self._bury(resource, key, _version(version))
        if resource == PODS:
            pod = self._pods.pop(key, None)
            self._fetch.pop(key, None)
            if pod is not None and pod.owner is not None:
                _discard(self._index.pods_by_owner, (pod.owner[0], key[0], pod.owner[1]), key)
            return pod is not None
        if resource.kind in self._own:
            own = self._own[resource.kind].pop(key, None)
            if own is not None:
                self._index_own(own, add=False)
            return own is not None
        child = self._children[resource].pop(key, None)
        if resource == DEPLOYMENTS:
            self._starting.pop(key, None)
        if child is not None:
            _discard(self._index.children_by_owner, controller_uid(child), (resource, key))
        return child is not None

    def _bury(self, resource: ResourceType, key: Key, version: int) -> None:
        now = time.monotonic()
        self._tombstones[resource.plural, key] = (version, now)
        if len(self._tombstones) > 4096:
            self._tombstones = {
                name: (old, since)
                for name, (old, since) in self._tombstones.items()
                if now - since < _TOMBSTONE_SECONDS
            }

    def _put_own(self, kind: str, key: Key, version: int, obj: Object) -> bool:
        known = self._own[kind].get(key)
        if known is not None and _version(known.metadata.resource_version) >= version:
            return False
        own = parse_own(kind, trim(obj))
        if known is not None:
            self._index_own(known, add=False)
        self._own[kind][key] = own
        self._index_own(own, add=True)
        return True

    def _put_child(self, resource: ResourceType, key: Key, version: int, obj: Object) -> bool:
        known = self._children[resource].get(key)
        if known is not None:
            if _version(known["metadata"].get("resourceVersion", "")) >= version:
                return False
            _discard(self._index.children_by_owner, controller_uid(known), (resource, key))
        trimmed = trim(obj)
        trimmed.setdefault("kind", resource.kind)
        self._children[resource][key] = trimmed
        if resource == DEPLOYMENTS:
            if known is None and awaits_pods(trimmed):
                self._starting[key] = time.monotonic()
            elif not awaits_pods(trimmed):
                self._starting.pop(key, None)
        self._index.children_by_owner[controller_uid(trimmed)].add((resource, key))
        return True

    def _put_pod(self, key: Key, version: int, obj: Object) -> bool:
        known = self._pods.get(key)
        if known is not None and known.version >= version:
            return False
        owner = owner_of_pod(obj)
        observed = observe_pod(obj)
        if known is not None and known.uid != obj["metadata"]["uid"]:
            self._fetch.pop(key, None)
        if known is not None and known.owner is not None and known.owner != owner:
            _discard(self._index.pods_by_owner, (known.owner[0], key[0], known.owner[1]), key)
        fetch = next((c for c in observed.containers if c.name == "fetch" and c.init), None)
        self._pods[key] = CachedPod(
            observed=observed,
            version=version,
            uid=obj["metadata"]["uid"],
            owner=owner,
            fetching=fetch is not None and fetch.state == "running",
            fetched=fetch is not None and fetch.state == "terminated" and fetch.exit_code == 0,
        )
        if owner is not None:
            self._index.pods_by_owner[owner[0], key[0], owner[1]].add(key)
        return known is None or known.observed != observed

    def _index_own(self, own: OwnObject, *, add: bool) -> None:
        key = (own.metadata.namespace, own.metadata.name)
        change = _add if add else _discard
        # One of ours may be a child of another: the admin key of its gateway.
        change(self._index.children_by_owner, controller_uid(own.raw), (TYPE_BY_KIND[own.kind], key))
        if isinstance(own.resource, ModelDeployment):
            reference = own.resource.spec.engine_ref
            change(self._index.models_by_engine, (key[0], reference.name if reference else NO_ENGINE), key)
            for name in own.resource.served_names:
                change(self._index.models_by_served_name, name, key)
        elif isinstance(own.resource, ApiKey):
            change(self._index.keys_by_gateway, (key[0], own.resource.spec.gateway_ref.name), key)


def _version(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _add(index: dict[K, set[V]], name: K, value: V) -> None:
    index[name].add(value)


def _discard(index: dict[K, set[V]], name: K, value: V) -> None:
    members = index.get(name)
    if members is not None:
        members.discard(value)
        if not members:
            del index[name]
