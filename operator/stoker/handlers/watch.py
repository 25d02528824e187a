"""Every event of the watched kinds goes into the cache and from there into the work queue.

Only ``@kopf.on.event``: so Kopf writes no finalizer and no annotation, and an object can be deleted while the operator is down.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import kopf

from stoker.api.names import MANAGED_BY, MANAGED_BY_VALUE
from stoker.cluster.connection import Connection
from stoker.cluster.resource_types import (
    CLUSTER_TYPES,
    OWN_TYPES,
    PODS,
    RESOURCE_SLICES,
    WATCHED_CHILD_TYPES,
    Object,
    ResourceType,
)
from stoker.handlers.nothing_kept import NothingKept
from stoker.reconcile.context import Context

CHILD_SELECTOR = f"{MANAGED_BY}={MANAGED_BY_VALUE}"
LABELLED_TYPES = (*WATCHED_CHILD_TYPES, PODS)


class Heard:
    """When an object was last heard of in a list, by type: after a gap Kopf lists anew but does not tell what is gone."""

    def __init__(self) -> None:
        self.listed_at: dict[ResourceType, float] = defaultdict(float)
        self.events = 0


def watched_types(context: Context) -> tuple[ResourceType, ...]:
    """Everything that is watched; namespaces, nodes and their devices only where they may be read."""
    watched = (*OWN_TYPES, *LABELLED_TYPES, *(CLUSTER_TYPES if context.settings.cluster_scoped else ()))
    return tuple(resource for resource in watched if resource != RESOURCE_SLICES or context.slices_served)


def build_registry(context: Context, heard: Heard, connection: Connection) -> kopf.OperatorRegistry:
    """All handlers there are."""
    registry = kopf.OperatorRegistry()
    for resource in watched_types(context):
        # Core resources are found by version and plural: their group is the empty string.
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"on_{resource.plural}")(
            _handler(context, heard, resource)
        )

    @kopf.on.login(registry=registry, id="on_login")
    def on_login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=connection.server,
            ca_path=connection.ca_file,
            token=connection.bearer_token(fresh=True),
            certificate_path=connection.client_certificate,
            private_key_path=connection.client_key,
            insecure=not connection.verify,
        )

    return registry


def build_settings() -> kopf.OperatorSettings:
    """Kopf as ears only: no peering, no posting, no scanning for resources to come."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # The CRDs are there before the watches start; watching for new ones would need rights on all CRDs.
    settings.scanning.disabled = True
    settings.watching.reconnect_backoff = 0.5
    # Bookmarks come every minute, so longer silence is a dead connection.
    settings.watching.inactivity_timeout = 130.0
    # A list of thousands is read in pieces: parsed at once it would take more memory than all that is kept of it.
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 0.5
    settings.queueing.exit_timeout = 0.5
    settings.persistence.diffbase_storage = NothingKept()
    for resource in LABELLED_TYPES:
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = CHILD_SELECTOR
    # One line per event would be a tenth of the operator's work.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    return settings


def _handler(context: Context, heard: Heard, resource: ResourceType) -> Callable[..., Any]:
    async def on_event(event: Any, **_: Any) -> None:
        heard.events += 1
        obj: Object = event["object"]
        obj.setdefault("kind", resource.kind)
        obj.setdefault("apiVersion", resource.api_version)
        if event["type"] == "DELETED":
            metadata = obj["metadata"]
            context.lose(resource, (metadata.get("namespace", ""), metadata["name"]), obj)
            return
        if event["type"] is None:
            heard.listed_at[resource] = time.monotonic()
        context.take(resource, obj)

    return on_event
