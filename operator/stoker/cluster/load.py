"""Asking pods for their load: gateways, with a stream that tells at once who wants a sleeping model, and agents beside engines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import aiohttp

from stoker.api.observed import Loading
from stoker.cluster.progress import AGENT_PORT

GATEWAY_PORT = 9090
# Less than the loop's period; an agent answers from memory, so one that takes longer is in trouble.
TIMEOUT_SECONDS = 1.0
# A gateway sends a line every two seconds.
SILENCE_SECONDS = 10.0
_LONGEST_LINE = 8 << 20


@dataclass(frozen=True, slots=True)
class GatewayReading:
    """One gateway pod's numbers for one model."""

    held: int
    in_flight: int
    arrivals_total: int
    completions_total: int
    endpoints: Mapping[str, int]
    """Requests at each endpoint, by ip:port."""


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """What one gateway pod says."""

    models: Mapping[str, GatewayReading]
    """By namespace/name; a model that is not there has nothing to tell."""
    wanted: tuple[str, ...] = ()
    """Models that have no endpoint and just got their first request."""
    complete: bool = True
    """False for the line about a wake-up, which speaks of few models."""


@dataclass(frozen=True, slots=True)
class EngineReading:
    """One replica's own numbers, as its agent tells them; None is unknown."""

    running: float | None
    waiting: float | None
    up: bool


class NotAnswering(Exception):
    """No answer that could be read."""


@dataclass
class LoadReader:
    """Connections to pods, which are asked directly: a proxy from the environment could not reach them."""

    agent_port: int = AGENT_PORT
    gateway_port: int = GATEWAY_PORT
    _session: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> LoadReader:
        # Without a limit: a pod that does not answer must not make others wait for its connection.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def read_engine(self, pod_ip: str) -> EngineReading | None:
        """What the agent of a replica says; None when it does not answer."""
        try:
            async with self._session.get(f"http://{_host(pod_ip)}:{self.agent_port}/load") as answer:
                if answer.status != 200:
                    return None
                said = json.loads(await answer.read())
            return EngineReading(_number(said["requestsRunning"]), _number(said["requestsWaiting"]), bool(said["up"]))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return None

    async def read_gateway(self, pod_ip: str, token: str) -> GatewayAnswer | None:
        """What a gateway pod says; None when it does not answer."""
        try:
            async with self._session.get(self._gateway(pod_ip, "load"), headers=_login(token)) as answer:
                return parse_answer(await answer.read()) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def watch_gateway(self, pod_ip: str, token: str) -> AsyncIterator[GatewayAnswer]:
        """Lines of a gateway pod, until it falls silent or ends; raises NotAnswering then."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=SILENCE_SECONDS)
        url = self._gateway(pod_ip, "load?watch=1")
        try:
            async with self._session.get(url, headers=_login(token), timeout=timeout) as answer:
                if answer.status != 200:
                    raise NotAnswering(f"HTTP {answer.status}")
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield parse_answer(line)
                    if len(rest) > _LONGEST_LINE:
                        raise NotAnswering("a line without end")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NotAnswering(str(error) or type(error).__name__) from error
        raise NotAnswering("the stream ended")

    async def tell_loading(self, pod_ip: str, token: str, models: Mapping[str, Loading]) -> bool:
        """Tell a gateway pod how far models are; whether it took it."""
        body = {"models": {name: loading.to_json() for name, loading in models.items()}}
        try:
            async with self._session.post(self._gateway(pod_ip, "loading"), json=body, headers=_login(token)) as answer:
                return answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _gateway(self, pod_ip: str, page: str) -> str:
        return f"http://{_host(pod_ip)}:{self.gateway_port}/{page}"


def parse_answer(text: bytes) -> GatewayAnswer:
    """A line, or the page; a ValueError when it is neither."""
    try:
        said = json.loads(text)
        models = {
            str(name): GatewayReading(
                held=int(model["held"]),
                in_flight=int(model["inFlight"]),
                arrivals_total=int(model["arrivalsTotal"]),
                completions_total=int(model["completionsTotal"]),
                endpoints={str(at): int(count) for at, count in (model.get("endpoints") or {}).items()},
            )
            for name, model in said["models"].items()
        }
        wanted = said.get("wake")
        return GatewayAnswer(models, tuple(map(str, wanted or ())), complete=wanted is None)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not what a gateway says: {error!r}") from error


def _login(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _host(pod_ip: str) -> str:
    return f"[{pod_ip}]" if ":" in pod_ip else pod_ip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
