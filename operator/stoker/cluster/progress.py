"""How far the downloads in model pods have come, asked from their agents."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import httpx

from stoker.api.inspection import ModelStatus
from stoker.api.observed import FetchProgress
from stoker.cluster.cache import Cache, Key

AGENT_PORT = 9100
INTERVAL_SECONDS = 2.0
AT_ONCE = 16
# An agent answers from a small file; a pod that does not answer in this time is asked again in the next round.
TIMEOUT_SECONDS = 1.5
# Of pods that are not fetching any more, so few are asked in a round that those that do are not held up.
LATE_AT_ONCE = 8
LATE_TRIES = 3
_LONGEST_ANSWER = 16 * 1024


async def watch_downloads(cache: Cache, enqueue_owner: Callable[[str, Key], None]) -> None:
    """Ask every pod that downloads, every two seconds, and put its owner into the queue when something moved."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    tries: Counter[Key] = Counter()
    # Pods are asked directly: a proxy from the environment could not reach them.
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as http:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            late = cache.undescribed_pods()
            tries = Counter({key: count for key, count in tries.items() if key in late})
            asked = [key for key in late if tries[key] < LATE_TRIES][:LATE_AT_ONCE]
            tries.update(asked)
            pods = cache.fetching_pods() | {key: late[key] for key in asked}
            gate = asyncio.Semaphore(AT_ONCE)

            async def ask(key: Key, pod_ip: str, gate: asyncio.Semaphore = gate) -> tuple[Key, FetchProgress | None]:
                async with gate:
                    return key, await read_progress(http, pod_ip)

            for key, progress in await asyncio.gather(*(ask(key, pod.observed.pod_ip) for key, pod in pods.items())):
                if key in asked and (progress is None or progress.model is None):
                    # It fetches no more: without the model's description there is nothing new.
                    continue
                owner = pods[key].owner
                if progress is not None and owner is not None and cache.put_fetch_progress(key, progress):
                    enqueue_owner(owner[0], (key[0], owner[1]))


async def read_progress(http: httpx.AsyncClient, pod_ip: str) -> FetchProgress | None:
    """What the agent says; None when it does not answer or says something else."""
    host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
    try:
        answer = await http.get(f"http://{host}:{AGENT_PORT}/progress")
        if answer.status_code != 200 or len(answer.content) > _LONGEST_ANSWER:
            return None
        said = answer.json()
        total = said.get("totalBytes")
        return FetchProgress(
            phase=said["phase"],
            file=str(said.get("file", "")),
            completed_bytes=int(said.get("completedBytes", 0)),
            total_bytes=None if total is None else int(total),
            bytes_per_second=float(said.get("bytesPerSecond", 0)),
            reason=str(said.get("reason", "")),
            message=str(said.get("message", "")),
            model=ModelStatus.model_validate(said["model"]) if said.get("model") else None,
        )
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return None
