"""From the gateway's pods into the store: one task for each pod, which asks for what follows the place that the store has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any, ParamSpec, TypeVar

import aiohttp

from stoker.cluster.client import KubeClient
from stoker.cluster.connection import ConnectionNotConfigured
from stoker.cluster.resource_types import ENDPOINT_SLICES
from stoker.gateway.token_use import TokenCounter
from stoker.usage.records import read_batch
from stoker.usage.store import Place, Store, StoreUnavailable

logger = logging.getLogger(__name__)

WAIT_SECONDS = 10
PACE_SECONDS = 0.1
"""Between two pieces: what a pod has that is killed at once, and how often the store is written to."""
RETRY_SECONDS = 1.0
TIMEOUT = aiohttp.ClientTimeout(total=WAIT_SECONDS + 20.0, sock_connect=3.0)
SERVICE_LABEL = "kubernetes.io/service-name"
PORT_NAME = "policy"
P = ParamSpec("P")
Result = TypeVar("Result")


class NotNow(Exception):
    """The pod has no answer at the moment."""


class Thread:
    """The store's own thread, for its calls wait for disk and network."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.failing = ""
        """Why the store did not answer last; empty when it did."""

    async def call(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """One of the store's functions."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        except StoreUnavailable as error:
            self.failing = str(error)
            raise
        self.failing = ""
        return result


class Collector:
    """Keeps a task for each pod there is."""

    def __init__(self, thread: Thread, token: Callable[[], str]) -> None:
        self._thread = thread
        self._token = token
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._counter = TokenCounter()
        self.answered_at: dict[str, float] = {}
        """When each pod answered last."""

    def follow(self, addresses: Iterable[str]) -> None:
        """These are the pods now."""
        wanted = set(addresses)
        for address in self._tasks.keys() - wanted:
            self._tasks.pop(address).cancel()
            self.answered_at.pop(address, None)
        for address in wanted - self._tasks.keys():
            self._tasks[address] = asyncio.create_task(self._follow(address))

    async def _follow(self, address: str) -> None:
        """Endless, whatever the pod or the store does."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            said = ""
            while True:
                try:
                    await self._read_log(http, address)
                except (TimeoutError, aiohttp.ClientError, StoreUnavailable, NotNow, OSError) as error:
                    if str(error) != said:
                        logger.warning("usage of %s: %s: %s", address, type(error).__name__, error)
                    said = str(error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _read_log(self, http: aiohttp.ClientSession, address: str) -> None:
        """The log of the pod that answers there now, until it is another one."""
        url = f"http://{address}/usage-log"
        async with http.get(url, headers=self._headers()) as answer:
            await _check(answer, 204)
            log = answer.headers["x-stoker-log"]
        place = await self._thread.call(self._thread.store.place, log)
        while True:
            query = {"log": log, "number": str(place[0]), "offset": str(place[1]), "wait": str(WAIT_SECONDS)}
            async with http.get(url, params=query, headers=self._headers()) as answer:
                await _check(answer, 200)
                data, end = await answer.read(), _place(answer.headers["x-stoker-next"])
            self.answered_at[address] = time.monotonic()
            if end[0] > place[0] + 1:
                logger.error(
                    "usage of %s: %d files of its log were gone before they were read", address, end[0] - place[0] - 1
                )
            if data or end != place:
                batch, last = read_batch(data, self._counter)
                if not await self._thread.call(self._thread.store.add, log, place, end, batch, last, today()):
                    # Another process was quicker, or the connection broke when all was written already.
                    place = await self._thread.call(self._thread.store.place, log)
                    continue
                place = end
                await asyncio.sleep(PACE_SECONDS)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token()}"}


async def _check(answer: aiohttp.ClientResponse, wanted: int) -> None:
    if answer.status != wanted:
        raise NotNow(f"HTTP {answer.status} {(await answer.text())[:200].strip()}")


def _place(text: str) -> Place:
    number, _, offset = text.partition(":")
    return int(number), int(offset)


def today() -> date:
    """In UTC, as the log's times are."""
    return datetime.now(UTC).date()


async def follow_pods(namespace: str, service: str, collector: Collector) -> None:
    """Endless: the pods of the gateway, as the EndpointSlices of a Service name them. Also those that are about to leave."""
    while True:
        try:
            client = await KubeClient.connect()
            break
        except ConnectionNotConfigured as error:
            logger.warning("%s; trying again", error)
            await asyncio.sleep(RETRY_SECONDS)
    slices: dict[str, dict[str, Any]] = {}
    async with client:
        async for event in client.watch(ENDPOINT_SLICES, namespace, label_selector=f"{SERVICE_LABEL}={service}"):
            if event.type == "LISTED":
                slices = {item["metadata"]["name"]: item for item in event.items}
            elif event.object is not None:
                name = event.object["metadata"]["name"]
                if event.type == "DELETED":
                    slices.pop(name, None)
                else:
                    slices[name] = event.object
            collector.follow(pod_addresses(slices.values()))


def pod_addresses(slices: Iterable[dict[str, Any]]) -> set[str]:
    """Address and port of each pod. IPv6 only where there is no IPv4: a pod with both has two slices, and is one pod."""
    found: dict[str, set[str]] = {"IPv4": set(), "IPv6": set()}
    for item in slices:
        kind = item.get("addressType", "IPv4")
        port = next((p.get("port") for p in item.get("ports") or () if p.get("name") == PORT_NAME), None)
        for endpoint in item.get("endpoints") or ():
            for address in (endpoint.get("addresses") or ())[:1]:
                if port and kind in found:
                    found[kind].add(f"[{address}]:{port}" if kind == "IPv6" else f"{address}:{port}")
    return found["IPv4"] or found["IPv6"]
