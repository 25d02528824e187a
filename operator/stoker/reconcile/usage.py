"""Usage's part of a gateway's pass, and what each key has used, asked of the process that keeps it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from stoker.api import ApiGateway
from stoker.api.api_key import ApiKeyStatus, KeyUsage
from stoker.api.names import usage_name
from stoker.api.observed import ObservedWorkload
from stoker.cluster.observe import observe_deployment
from stoker.cluster.resource_types import STATEFUL_SETS, Object
from stoker.cluster.usage import UsageReader
from stoker.desired.usage_pod import COMPONENT
from stoker.errors import StokerError
from stoker.reconcile.context import Context
from stoker.status.usage import ObservedUsage

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 30.0
"""A key's status is behind by this and the time of a pass at most; of all that a key does in between, one write tells."""


async def try_usage(context: Context, gateway: ApiGateway, children: Sequence[Object]) -> StokerError | None:
    """Make it what the spec says. Its trouble is its own: the gateway serves without it."""
    try:
        await context.children.apply_all(gateway, children)
    except StokerError as error:
        return error
    return None


def observe_usage(context: Context, gateway: ApiGateway, problem: StokerError | None) -> ObservedUsage | None:
    """What status needs to know of it; None where none is kept."""
    if not gateway.spec.usage.enabled:
        return None
    cache, key = context.cache, (gateway.metadata.namespace, usage_name(gateway.metadata.name))
    pods = tuple(pod for pod in cache.pods_of("ApiGateway", gateway.key) if pod.component == COMPONENT)
    return ObservedUsage(ObservedWorkload(observe_deployment(cache.child(STATEFUL_SETS, key)), pods), problem)


async def watch_usage(context: Context) -> None:
    """Endless: what the keys of every gateway have used goes into the cache, and a key that was used has its status written."""
    async with UsageReader() as reader:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            for gateway in list(context.cache.gateways()):
                await _read_gateway(context, reader, gateway)


async def _read_gateway(context: Context, reader: UsageReader, gateway: ApiGateway) -> None:
    token = context.gateway_tokens.get(gateway.key)
    pods = context.cache.pods_of("ApiGateway", gateway.key)
    pod = next((pod for pod in pods if pod.component == COMPONENT and pod.ready and pod.pod_ip), None)
    if not gateway.spec.usage.enabled or token is None or pod is None:
        return
    namespace = gateway.metadata.namespace
    for name, used in (await reader.read_keys(pod.pod_ip, token)).items():
        api_key = context.cache.api_key((namespace, name))
        if api_key is None or api_key.spec.gateway_ref.name != gateway.metadata.name:
            continue
        context.cache.key_usage[namespace, name] = used
        if used.usage != api_key.status.usage:
            context.enqueue("ApiKey", (namespace, name))


def usage_of_key(context: Context, key: tuple[str, str], status: ApiKeyStatus) -> KeyUsage:
    """What is known of a key; unknown is not zero, so what its status said before stands until there is more."""
    return context.cache.key_usage.get(key) or KeyUsage(status.usage, status.last_used_time)
