"""From the cluster into the publisher: the routes Secret, the key Secrets it names, and the EndpointSlices of its models.

Secrets are watched by name, for the gateway may read no others. A restarted process lists first and writes then: until everything
was listed once, the files of its predecessor stay as they are, and Envoy serves on with them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

from stoker.api.names import (
    CERTIFICATE_FIELD,
    CERTIFICATE_KEY_FIELD,
    KEYS_FIELD,
    MANAGED_BY,
    MANAGED_BY_VALUE,
    ROUTES_FIELD,
    routes_secret_name,
)
from stoker.cluster.client import KubeClient, WatchEvent
from stoker.cluster.connection import ConnectionNotConfigured
from stoker.cluster.objects import secret_bytes
from stoker.cluster.resource_types import ENDPOINT_SLICES, SECRETS, Object, ResourceType
from stoker.gateway import admin
from stoker.gateway.admin import NotAnswering
from stoker.gateway.decision import ENGINES_CLUSTER
from stoker.gateway.publish import Publisher
from stoker.gateway.settings import Settings

logger = logging.getLogger(__name__)

DEBOUNCE_SECONDS = 0.02
FIRST_WAIT_SECONDS = 3.0
"""How long the first publishing waits for endpoints that cannot be listed; keys are waited for without end."""
RECONNECT_SECONDS = 2.0
ENVOY_SECONDS = 1.0
ENVOY_LOOK_SECONDS = 0.003


class Watching(Protocol):
    """The part of KubeClient that is needed here."""

    def watch(
        self, resource: ResourceType, namespace: str | None = None, *, name: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """See KubeClient.watch."""
        ...


class Follower:
    """Keeps the publisher as true as the watches are."""

    def __init__(self, settings: Settings, client: Watching, publisher: Publisher) -> None:
        self._settings = settings
        self._client = client
        self._publisher = publisher
        self._watches: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._dirty = asyncio.Event()
        self._routes_since = 0.0

    async def run(self) -> None:
        """Endless; ends only with an error that is a bug, and takes all watches along."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_routes(group))
            group.create_task(self._publish_changes())

    async def _follow_routes(self, group: asyncio.TaskGroup) -> None:
        secret = routes_secret_name(self._settings.name)
        async for event in self._client.watch(SECRETS, self._settings.namespace, name=secret):
            text = secret_bytes(secret_after(event), ROUTES_FIELD)
            if text is None:
                # Deleted by hand: the operator writes it again. Until then what was known goes on being true.
                logger.warning(
                    "Secret %s is not there (or has no %s); waiting for the operator to write it", secret, ROUTES_FIELD
                )
                continue
            self._publisher.set_routes(text)
            self._routes_since = self._routes_since or time.monotonic()
            self._adjust_watches(group)
            self._dirty.set()

    def _adjust_watches(self, group: asyncio.TaskGroup) -> None:
        """One watch for each key Secret and each namespace with models; none for what routes no longer name."""
        routes = self._publisher.routes
        if routes is None:
            return
        wanted: dict[tuple[str, str], Coroutine[Any, Any, None]] = {}
        for name in routes.key_secrets:
            wanted["keys", name] = self._follow_keys(name)
        if routes.certificate_secret:
            wanted["certificate", routes.certificate_secret] = self._follow_certificate(routes.certificate_secret)
        for namespace in {model.namespace for model in routes.models}:
            wanted["slices", namespace] = self._follow_slices(namespace)
        for what, watching in wanted.items():
            if what in self._watches:
                watching.close()
            else:
                self._watches[what] = group.create_task(watching)
        for what in self._watches.keys() - wanted.keys():
            self._watches.pop(what).cancel()
            if what[0] == "slices":
                self._publisher.forget_namespace(what[1])

    async def _follow_keys(self, secret: str) -> None:
        async for event in self._client.watch(SECRETS, self._settings.namespace, name=secret):
            text = secret_bytes(secret_after(event), KEYS_FIELD)
            if text is None:
                logger.warning(
                    "Secret %s is not there (or has no %s); waiting for the operator to write it", secret, KEYS_FIELD
                )
                continue
            self._publisher.set_keys(secret, text)
            self._dirty.set()

    async def _follow_certificate(self, secret: str) -> None:
        async for event in self._client.watch(SECRETS, self._settings.namespace, name=secret):
            chain, key = (
                secret_bytes(secret_after(event), field) for field in (CERTIFICATE_FIELD, CERTIFICATE_KEY_FIELD)
            )
            if chain is None or key is None:
                logger.warning(
                    "Secret %s is not there (or has no %s and %s); waiting for a certificate",
                    secret,
                    CERTIFICATE_FIELD,
                    CERTIFICATE_KEY_FIELD,
                )
                continue
            self._publisher.set_certificate(secret, chain, key)
            self._dirty.set()

    async def _follow_slices(self, namespace: str) -> None:
        selector = f"{MANAGED_BY}={MANAGED_BY_VALUE}"
        async for event in self._client.watch(ENDPOINT_SLICES, namespace, label_selector=selector):
            if event.type == "LISTED":
                self._publisher.set_slices(namespace, event.items)
            elif event.type == "DELETED":
                self._publisher.drop_slice(namespace, event.object)
            else:
                self._publisher.put_slice(namespace, event.object)
            self._dirty.set()

    async def _publish_changes(self) -> None:
        """Write a moment after the first of several changes."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(DEBOUNCE_SECONDS)
            self._dirty.clear()
            if not self._publisher.published_at and not self._may_begin():
                continue
            self._publisher.write_envoy_files()
            await wait_for_envoy(self._settings, self._publisher.new_endpoints())
            self._publisher.write_state()
            if (due := self._publisher.due_in) is not None:
                asyncio.get_running_loop().call_later(due, self._dirty.set)

    def _may_begin(self) -> bool:
        """Whether enough is known to replace what an earlier process wrote."""
        if self._publisher.missing_keys():
            return False
        unlisted = self._publisher.unlisted_namespaces()
        if not unlisted:
            return True
        left = self._routes_since + FIRST_WAIT_SECONDS - time.monotonic()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._dirty.set)
            return False
        logger.warning("endpoints in %s cannot be listed; beginning without them", ", ".join(unlisted))
        return True


async def follow_cluster(settings: Settings, publisher: Publisher) -> None:
    """Connect and follow. Without an API server the gateway serves what it knew last."""
    while True:
        try:
            client = await KubeClient.connect()
            break
        except ConnectionNotConfigured as error:
            logger.warning("%s; trying again in %.0f s", error, RECONNECT_SECONDS)
            await asyncio.sleep(RECONNECT_SECONDS)
    async with client:
        await Follower(settings, client, publisher).run()


async def wait_for_envoy(settings: Settings, endpoints: set[str]) -> None:
    """Returns when Envoy has taken these endpoints from its files, so that the policy sends nobody where nothing is yet."""
    deadline = time.monotonic() + ENVOY_SECONDS
    while endpoints and time.monotonic() < deadline:
        try:
            _, body = await admin.call(settings.admin_socket, "GET", "/clusters", seconds=ENVOY_SECONDS)
        except NotAnswering:
            # It starts with the files as they are.
            return
        endpoints = {address for address in endpoints if f"{ENGINES_CLUSTER}::{address}::".encode() not in body}
        if endpoints:
            await asyncio.sleep(ENVOY_LOOK_SECONDS)
    if endpoints:
        logger.warning("Envoy has not taken over %d endpoints in time", len(endpoints))


def secret_after(event: WatchEvent) -> Object | None:
    """The one Secret of a watch by name; None where it is not there."""
    if event.type == "LISTED":
        return event.items[0] if event.items else None
    return None if event.type == "DELETED" else event.object
