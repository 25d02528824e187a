"""One open stream to every gateway pod, so that a request for a sleeping model is heard of at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stoker.cluster.cache import Key
from stoker.cluster.load import GatewayAnswer, GatewayReading, LoadReader, NotAnswering

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0
# A gateway sends a line every two seconds and is asked as often.
FRESH_SECONDS = 6.0


@dataclass(frozen=True)
class GatewayPod:
    """A pod of a gateway, as it is asked."""

    key: Key
    ip: str
    gateway: Key
    token: str
    serving: bool = field(compare=False)
    """Ready and staying: when it does not answer, nobody knows the load."""


@dataclass
class _Newest:
    readings: dict[str, GatewayReading]
    heard_at: float


class GatewayStreams:
    """Keeps the streams open, and the newest numbers of every gateway pod."""

    def __init__(
        self,
        reader: LoadReader,
        clock: Callable[[], float],
        on_answer: Callable[[GatewayPod, GatewayAnswer], None],
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._on_answer = on_answer
        self._tasks: dict[GatewayPod, asyncio.Task[None]] = {}
        self._newest: dict[Key, _Newest] = {}
        self._connected: set[Key] = set()

    @property
    def connected(self) -> int:
        """Streams that are open."""
        return len(self._connected)

    def follow(self, pods: list[GatewayPod]) -> None:
        """Open what is new, close what is gone; a pod with another address or token is another one."""
        for pod in set(self._tasks) - set(pods):
            self._tasks.pop(pod).cancel()
            self._connected.discard(pod.key)
        for pod in pods:
            if pod not in self._tasks:
                self._tasks[pod] = asyncio.create_task(self._watch(pod), name=f"load of {pod.key[0]}/{pod.key[1]}")
        there = {pod.key for pod in pods}
        self._newest = {key: newest for key, newest in self._newest.items() if key in there}

    def take(self, pod: GatewayPod, answer: GatewayAnswer) -> None:
        """Remember what a pod says."""
        known = self._newest.get(pod.key)
        if answer.complete or known is None:
            self._newest[pod.key] = _Newest(dict(answer.models), self._clock())
        else:
            known.readings.update(answer.models)
            known.heard_at = self._clock()

    def newest(self, pod: GatewayPod) -> Mapping[str, GatewayReading] | None:
        """What a pod said last; None when that is too long ago."""
        found = self._newest.get(pod.key)
        if found is None or not 0 <= self._clock() - found.heard_at <= FRESH_SECONDS:
            return None
        return found.readings

    async def close(self) -> None:
        """Close all."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _watch(self, pod: GatewayPod) -> None:
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                async for answer in self._reader.watch_gateway(pod.ip, pod.token):
                    if pod.key not in self._connected:
                        logger.info("gateway pod %s/%s tells its load", *pod.key)
                        self._connected.add(pod.key)
                    wait = FIRST_WAIT_SECONDS
                    self.take(pod, answer)
                    self._on_answer(pod, answer)
            except NotAnswering as error:
                if pod.key in self._connected:
                    logger.info("gateway pod %s/%s: %s", *pod.key, error)
                    self._connected.discard(pod.key)
            except Exception:
                # A bug in what a line leads to must not make the gateway deaf for ever.
                logger.exception("a line of gateway pod %s/%s", *pod.key)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
