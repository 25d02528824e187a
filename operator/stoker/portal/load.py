"""Replicas and requests of each model over the last hour, noted here every quarter of a minute; gone with the process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stoker.cluster.load import GatewayAnswer, LoadReader
from stoker.portal.config import PortalModel

logger = logging.getLogger(__name__)

HOUR_SECONDS = 3600
STEP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Moment:
    """A model at some time."""

    at: float
    ready: int
    running: int | None
    """Requests at its replicas; None while a gateway pod does not answer."""
    waiting: int | None
    """Requests that the gateway holds for it."""


class LoadHistory:
    """The last hour."""

    def __init__(self) -> None:
        self._moments: dict[str, deque[Moment]] = {}

    def note(self, models: Iterable[PortalModel], answers: Iterable[GatewayAnswer | None], at: float) -> None:
        """One more moment; models that are gone are forgotten."""
        told = list(answers)
        known = all(answer is not None for answer in told) and bool(told)
        kept: dict[str, deque[Moment]] = {}
        for model in models:
            readings = [answer.models[model.cluster] for answer in told if answer and model.cluster in answer.models]
            running = sum(reading.in_flight for reading in readings) if known else None
            waiting = sum(reading.held for reading in readings) if known else None
            past = self._moments.get(model.name) or deque(maxlen=HOUR_SECONDS // STEP_SECONDS)
            past.append(Moment(at, model.ready_replicas, running, waiting))
            kept[model.name] = past
        self._moments = kept

    def of(self, model: str, now: float) -> list[Moment]:
        """What is known of a model, oldest first."""
        return [moment for moment in self._moments.get(model, ()) if now - moment.at <= HOUR_SECONDS]


class Gateways:
    """The pods of the gateway, by the name of the Service that has an address for each."""

    def __init__(self, pods: str, token: str) -> None:
        self._host, _, port = pods.rpartition(":")
        self._token = token
        self._reader = LoadReader(gateway_port=int(port or 0))

    async def __aenter__(self) -> Gateways:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.__aexit__(*error)

    async def read(self) -> list[GatewayAnswer | None]:
        """What each pod says; None for one that does not answer."""
        if not self._host:
            return []
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, None)
        except OSError as error:
            logger.warning("the gateway's pods are not known: %s: %s", self._host, error)
            return []
        addresses = sorted({str(entry[4][0]) for entry in found})
        return list(await asyncio.gather(*(self._reader.read_gateway(address, self._token) for address in addresses)))


async def follow_load(history: LoadHistory, gateways: Gateways, models: Callable[[], Iterable[PortalModel]]) -> None:
    """Note the load, for ever."""
    async with gateways:
        while True:
            answers = await gateways.read()
            history.note(models(), answers, time.time())
            await asyncio.sleep(STEP_SECONDS)
