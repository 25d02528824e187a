"""A watch that never ends by itself: it continues after cuts, and lists anew after a gap."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import aiohttp
import orjson

from stoker.cluster.errors import ApiError, ApiUnavailable
from stoker.cluster.resource_types import Object, ResourceType

if TYPE_CHECKING:
    from stoker.cluster.client import KubeClient

logger = logging.getLogger(__name__)

# The server ends a watch after this long; bookmarks come about once a minute, so twice that in silence is a dead connection.
WATCH_SECONDS = (240, 360)
SILENCE_SECONDS = 130.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 15.0
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class WatchEvent:
    """One change; or, with type LISTED, the whole truth of this moment in ``items``: what is not among them is gone."""

    type: Literal["LISTED", "ADDED", "MODIFIED", "DELETED"]
    object: Object = field(default_factory=dict)
    items: list[Object] = field(default_factory=list)


class _Gone(Exception):
    """The server no longer has the history we would continue from."""


async def watch_objects(
    client: KubeClient, resource: ResourceType, namespace: str | None, *, name: str | None, label_selector: str
) -> AsyncIterator[WatchEvent]:
    """See KubeClient.watch."""
    field_selector = f"metadata.name={name}" if name else ""
    wait = FIRST_WAIT_SECONDS
    version = ""
    while True:
        try:
            if not version:
                items, version = await client.list(
                    resource, namespace, label_selector=label_selector, field_selector=field_selector
                )
                yield WatchEvent("LISTED", items=items)
            async for kind, obj in _stream(client, resource, namespace, version, label_selector, field_selector):
                version = obj["metadata"].get("resourceVersion", version)
                wait = FIRST_WAIT_SECONDS
                if kind != "BOOKMARK":
                    yield WatchEvent(kind, object=obj)
        except _Gone:
            version = ""
        except ApiError as error:
            if error.status == 410:
                version = ""
                continue
            where = f"{resource.plural} in {namespace}" if namespace else resource.plural
            logger.warning("watch of %s interrupted, again in %.1f s: %s", where, wait, error)
            await asyncio.sleep(wait * (0.75 + random.random() / 2))  # noqa: S311
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)


async def _stream(
    client: KubeClient,
    resource: ResourceType,
    namespace: str | None,
    version: str,
    label_selector: str,
    field_selector: str,
) -> AsyncIterator[tuple[Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"], Object]]:
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311
    }
    if label_selector:
        query["labelSelector"] = label_selector
    if field_selector:
        query["fieldSelector"] = field_selector
    try:
        async with client.session.get(
            client.connection.server + resource.path(namespace),
            params=query,
            headers=client.credentials(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_SECONDS),
        ) as response:
            if response.status != 200:
                # A token may have been renewed between two reads of its file.
                client.credentials(fresh=response.status == 401)
                raise ApiError.from_answer(response.status, await response.read(), resource.path(namespace))
            rest = b""
            # Not readline(): one object may be longer than aiohttp's limit of a line.
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _parse(orjson.loads(line))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ApiUnavailable(f"watch of {resource.plural}: {error or type(error).__name__}") from error


def _parse(event: Object) -> tuple[Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"], Object]:
    if event["type"] == "ERROR":
        status = event["object"]
        if status.get("code") == 410:
            raise _Gone
        raise ApiError(int(status.get("code", 500)), str(status.get("reason", "")), str(status.get("message", "")))
    return event["type"], event["object"]
