"""Making children what they should be, with as few writes as possible, and never touching what is not ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from stoker.api import Resource
from stoker.api.names import FIELD_MANAGER
from stoker.cluster.cache import Cache, Key
from stoker.cluster.client import KubeClient
from stoker.cluster.compare import APPLIED_ANNOTATION, applied_hash, content_hash, find_drift
from stoker.cluster.errors import ApiError
from stoker.cluster.objects import controller_uid
from stoker.cluster.resource_types import (
    CLAIMS,
    DEPLOYMENTS,
    HTTP_ROUTES,
    ROLE_BINDINGS,
    SECRETS,
    STATEFUL_SETS,
    Object,
    ResourceType,
    type_of,
)
from stoker.errors import Stalled, Waiting

logger = logging.getLogger(__name__)

ATTEMPTS = 3
# A pod needs its account and policy; a binding is refused while its role does not exist.
APPLIED_LAST = frozenset({DEPLOYMENTS.kind, STATEFUL_SETS.kind, ROLE_BINDINGS.kind})


UNWATCHED = frozenset({SECRETS, HTTP_ROUTES})


class ChildWriter:
    """Applies and prunes children; knows from the cache when nothing needs to be sent."""

    def __init__(self, client: KubeClient, cache: Cache, *, on_written: Callable[[ResourceType, Object], None]) -> None:
        self._client = client
        self._cache = cache
        self._on_written = on_written
        # What the API server made of our last write, by child: fields it answers differently are not sent again and again.
        self._accepted: dict[tuple[ResourceType, Key], tuple[str, frozenset[str]]] = {}
        # Children whose fields are known to be owned by apply, with their uid.
        self._handed_over: dict[tuple[ResourceType, Key], str] = {}
        # What was found equal before: nothing to compare while it is the same.
        self._settled: dict[tuple[ResourceType, Key], tuple[object, ...]] = {}

    async def apply_all(self, owner: Resource, children: Sequence[Object]) -> None:
        """Apply every child that is not as it should be; what needs others comes after them."""
        for late in (False, True):
            group = [child for child in children if (child["kind"] in APPLIED_LAST) == late]
            # All of them are tried, so that one refused child does not hide the others; then the first error counts.
            results = await asyncio.gather(*(self.apply(owner, child) for child in group), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def apply(self, owner: Resource, desired: Object) -> Object:
        """Make one child what ``desired`` says; the live object comes back, of one that is not watched maybe its metadata only."""
        resource = type_of(desired)
        key = (desired["metadata"]["namespace"], desired["metadata"]["name"])
        wanted = content_hash(desired)
        live = await self._read(resource, key)
        for _ in range(ATTEMPTS):
            if live is not None:
                _check_ours(owner, resource, live)
                if await self._is_settled(resource, key, desired, wanted, live):
                    return live
            try:
                answer = await self._send(resource, desired, wanted, live)
            except ApiError as error:
                if error.status != 409:
                    raise explain_refusal(owner, resource, key, error) from error
                # Somebody was quicker, or the name belongs to an object that the watch does not show: look at it.
                live = await self._client.get(resource, *key)
                continue
            if live is not None:
                self._accept(resource, key, desired, wanted, answer)
            self._settled[resource, key] = (wanted, *_edition(answer))
            if resource not in UNWATCHED:
                self._on_written(resource, answer)
            return answer
        raise Waiting("ChildChanging", f"{resource.kind} {key[1]} is being changed by somebody else", retry_after=2.0)

    def _accept(self, resource: ResourceType, key: Key, desired: Object, wanted: str, answer: Object) -> None:
        """Remember what the API server made of our fields, so that a difference it insists on is not fought over for ever."""
        drift = find_drift(desired, answer)
        if drift:
            fields = ", ".join(sorted(drift))
            logger.warning("%s %s/%s: other values than applied are kept in %s", resource.kind, *key, fields)
        self._accepted[resource, key] = (wanted, drift)

    async def prune(self, owner: Resource, keep: Iterable[Object]) -> None:
        """Delete watched children of this owner that it should not have any more; claims stay, for they hold data."""
        wanted = {(type_of(c), (c["metadata"]["namespace"], c["metadata"]["name"])) for c in keep}
        for resource, key in self._cache.children_of(owner.metadata.uid) - wanted:
            if resource != CLAIMS:
                await self.delete(owner, resource, key)

    async def delete(self, owner: Resource, resource: ResourceType, key: Key) -> None:
        """Delete a child, unless it belongs to somebody else."""
        live = await self._read(resource, key)
        if live is None or controller_uid(live) != owner.metadata.uid or "deletionTimestamp" in live["metadata"]:
            return
        logger.info("%s %s/%s is no longer needed", resource.kind, *key)
        await self._client.delete(resource, *key, uid=live["metadata"]["uid"])

    def forget(self, resource: ResourceType, key: Key) -> None:
        """A child is gone: what was learned about it is of no use."""
        self._accepted.pop((resource, key), None)
        self._settled.pop((resource, key), None)
        self._handed_over.pop((resource, key), None)

    async def _read(self, resource: ResourceType, key: Key) -> Object | None:
        if resource in UNWATCHED:
            return await self._client.get(resource, *key, only_metadata=True)
        return self._cache.child(resource, key)

    async def _is_settled(self, resource: ResourceType, key: Key, desired: Object, wanted: str, live: Object) -> bool:
        edition = (wanted, *_edition(live))
        if self._settled.get((resource, key)) == edition:
            return True
        if applied_hash(live) != wanted:
            return False
        full = await self._client.get(resource, *key) if resource in UNWATCHED else live
        if full is None or full["metadata"]["uid"] != live["metadata"]["uid"]:
            return False
        drift = find_drift(desired, full)
        accepted_hash, accepted = self._accepted.get((resource, key), ("", frozenset()))
        if drift and not (accepted_hash == wanted and drift <= accepted):
            logger.info("%s %s/%s was changed by somebody else in %s", resource.kind, *key, ", ".join(sorted(drift)))
            return False
        self._settled[resource, key] = edition
        return True

    async def _send(self, resource: ResourceType, desired: Object, wanted: str, live: Object | None) -> Object:
        """Create or apply; either fails with 409 when the object is not the one that was looked at."""
        metadata = desired["metadata"]
        marked = {**metadata, "annotations": {**(metadata.get("annotations") or {}), APPLIED_ANNOTATION: wanted}}
        if live is None:
            # Not by apply: a plain create takes the API server half the time, and never touches an object that is there.
            made = await self._client.create(resource, {**desired, "metadata": marked})
            if resource == DEPLOYMENTS and desired["spec"].get("replicas") == 0:
                # When a sleeping model's is changed for the first time somebody waits; nobody does now.
                await self._hand_over_early(made)
            return made
        if applied_hash(live) != wanted:
            await self._own_by_apply(resource, live)
        return await self._client.apply(resource, {**desired, "metadata": {**marked, "uid": live["metadata"]["uid"]}})

    async def _own_by_apply(self, resource: ResourceType, live: Object) -> None:
        """Hand over our fields from create to apply, once in a child's life: else apply could never remove one."""
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        if self._handed_over.get((resource, key)) == live["metadata"]["uid"]:
            return
        full = await self._client.get(resource, *key)
        if full is not None and full["metadata"]["uid"] == live["metadata"]["uid"]:
            await self._hand_over(resource, full)

    async def _hand_over_early(self, made: Object) -> None:
        """Its controller writes at the same moment; if it is always quicker, it happens with the first change."""
        for _ in range(ATTEMPTS):
            try:
                await self._own_by_apply(DEPLOYMENTS, made)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
            else:
                return

    async def _hand_over(self, resource: ResourceType, full: Object) -> None:
        metadata = full["metadata"]
        key = (metadata["namespace"], metadata["name"])
        entries = metadata.get("managedFields") or []
        if any(_is_from_create(entry) for entry in entries):
            entries = [{**entry, "operation": "Apply"} if _is_from_create(entry) else entry for entry in entries]
            same = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
            await self._client.merge(resource, *key, {"metadata": {**same, "managedFields": entries}})
        self._handed_over[resource, key] = metadata["uid"]


def _edition(live: Object) -> tuple[object, ...]:
    """Changes when anything but status does; a Deployment's status changes ten times while it starts."""
    metadata = live["metadata"]
    if not metadata.get("generation"):
        return (metadata["resourceVersion"],)
    return tuple(metadata.get(name) for name in ("uid", "generation", "labels", "annotations", "ownerReferences"))


def _is_from_create(entry: Object) -> bool:
    return entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Update" and not entry.get("subresource")


def _check_ours(owner: Resource, resource: ResourceType, live: Object) -> None:
    metadata = live["metadata"]
    name = metadata["name"]
    uid = controller_uid(live)
    if uid == owner.metadata.uid:
        if "deletionTimestamp" in metadata:
            raise Waiting(
                "ChildTerminating", f"{resource.kind} {name} is being deleted; it is made anew then", retry_after=1.0
            )
        return
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and (reference["kind"], reference["name"]) == (
            owner.info.kind,
            owner.metadata.name,
        ):
            raise Waiting(
                "ChildTerminating",
                f"{resource.kind} {name} of an earlier {owner.info.kind} {owner.metadata.name} is being deleted",
                retry_after=1.0,
            )
    raise Stalled(
        "NameTaken",
        f"{resource.kind} {name} exists and does not belong to {owner.info.kind} {owner.metadata.name}: "
        f"delete or rename it, or give the {owner.info.kind} another name",
    )


def explain_refusal(owner: Resource, resource: ResourceType, key: Key, error: ApiError) -> Exception:
    """Turn a refusal that only a person can mend into a condition; everything else is tried again."""
    if error.status in (400, 422):
        return Stalled(
            "ChildRejected",
            f"Kubernetes refuses {resource.kind} {key[1]}: {error.message}. Change {owner.info.kind} {owner.metadata.name}",
        )
    if error.status == 404 and resource == HTTP_ROUTES:
        return Stalled(
            "GatewayApiMissing",
            f"This cluster does not know HTTPRoutes, which {owner.info.kind} {owner.metadata.name} asks for: install the Gateway API with a "
            "controller for it, or set expose.type to Ingress, LoadBalancer or NodePort",
        )
    if error.status == 403 and "being terminated" in error.message:
        return Waiting("NamespaceTerminating", f"namespace {key[0]} is being deleted", retry_after=60.0)
    if error.status == 403:
        return Waiting(
            "ChildForbidden",
            f"Stoker may not write {resource.kind} {key[1]}: {error.message}. Give the operator this right or raise the quota",
            retry_after=30.0,
        )
    return error
