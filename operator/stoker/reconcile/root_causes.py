"""Where an engine's last words only say "see above": the line above.

The kubelet keeps 2 KiB of what a container said last. Engines of several processes (vLLM and its kin) tell the cause in one of
them and end with the traceback of another, so it is looked for in the log, once for each end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace

from stoker.api.observed import ObservedContainer, ObservedPod
from stoker.cluster.errors import ApiError
from stoker.reconcile.context import Context
from stoker.status.crashes import has_crashed
from stoker.status.engine_faults import find_fault

logger = logging.getLogger(__name__)

ENGINE = "engine"
LINES = 200
_REMEMBERED = 1024
_POINTS_BACK = re.compile(
    r"root cause|Engine core initialization failed|Worker.{0,40}(died|failed)|scheduler.{0,40}(died|failed)",
    re.IGNORECASE,
)
# In a log of many lines only those that speak of a failure: "No such file" of an optional one is none.
_FAILURE = re.compile(r"error|exception|fatal|panic", re.IGNORECASE)


async def with_root_causes(context: Context, namespace: str, pods: Iterable[ObservedPod]) -> tuple[ObservedPod, ...]:
    """The pods, with the cause in an engine's words where they only pointed to it."""
    return tuple([await _with_root_cause(context, namespace, pod) for pod in pods])


async def _with_root_cause(context: Context, namespace: str, pod: ObservedPod) -> ObservedPod:
    engine = next((container for container in pod.containers if container.name == ENGINE), None)
    if engine is None or not has_crashed(engine):
        return pod
    words = _last_words(engine)
    if find_fault(words) or not _POINTS_BACK.search(words):
        return pod
    key = (namespace, pod.name, engine.restarts + (engine.state == "terminated"))
    if key not in context.root_causes:
        while len(context.root_causes) >= _REMEMBERED:
            del context.root_causes[next(iter(context.root_causes))]
        context.root_causes[key] = await _read_cause(context, namespace, pod.name, ended=engine.state == "terminated")
    cause = context.root_causes[key]
    if not cause:
        return pod
    told = replace(engine, message=cause) if engine.state == "terminated" else replace(engine, last_message=cause)
    return replace(pod, containers=tuple(told if container is engine else container for container in pod.containers))


async def _read_cause(context: Context, namespace: str, pod: str, *, ended: bool) -> str:
    try:
        log = await context.client.read_log(namespace, pod, ENGINE, previous=not ended, lines=LINES)
    except ApiError as error:
        # Rotated away, or the pod is gone: what the kubelet kept has to do.
        logger.debug("no log of %s/%s: %s", namespace, pod, error)
        return ""
    return next((line for line in log.splitlines() if _FAILURE.search(line) and find_fault(line)), "")


def _last_words(container: ObservedContainer) -> str:
    return container.message if container.state == "terminated" else container.last_message
