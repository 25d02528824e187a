"""The end of every pass: status is written when it changed, and a changed condition becomes an Event."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from stoker.api.base import Condition, StatusModel
from stoker.cluster.errors import ApiError
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import TYPE_BY_KIND, Object
from stoker.errors import StokerError, Waiting
from stoker.reconcile.context import Context

# What has stood in the way for an hour will hardly be gone in the next seconds; but who mends it shall not wait long either.
STALLED_RESYNC_SECONDS = 15.0
LONGEST_STALLED_RESYNC_SECONDS = 60.0


async def report(context: Context, own: OwnObject, status: StatusModel) -> None:
    """Write the status of an object, unless it already says that."""
    old = own.resource.status if own.resource is not None else None  # type: ignore[attr-defined]
    if status == old and "status" in own.raw:
        return
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    resource = TYPE_BY_KIND[own.kind]
    try:
        answer = await context.client.write_status(resource, own.raw, written)
    except ApiError as error:
        if error.status == 404:
            return
        raise
    context.take_written(resource, answer)
    _tell_changes(context, own, getattr(old, "conditions", []), getattr(status, "conditions", []))


def retry_after(
    problem: StokerError | None, conditions: Sequence[Condition], now: datetime, *, at_most: float | None = None
) -> float | None:
    """When to look again by itself: what stands in the way may be something that is not watched, such as a foreign Service.

    ``conditions`` tell for how long it has stood there.
    """
    wait = None
    if isinstance(problem, Waiting):
        wait = problem.retry_after
    elif problem is not None:
        stalled = [now - condition.last_transition_time for condition in conditions if condition.type == "Stalled"]
        lasting = max(stalled, default=timedelta()).total_seconds()
        wait = min(max(STALLED_RESYNC_SECONDS, lasting), LONGEST_STALLED_RESYNC_SECONDS)
    return min((delay for delay in (wait, at_most) if delay is not None), default=None)


def _tell_changes(context: Context, own: OwnObject, before: list[Condition], after: list[Condition]) -> None:
    old = {condition.type: condition for condition in before}
    for condition in after:
        known = old.get(condition.type)
        if known is not None and (known.status, known.reason) == (condition.status, condition.reason):
            continue
        if condition.type == "Ready" and condition.status == "True":
            context.events.post(reference_to(own), "Normal", condition.reason, condition.message)
        elif (
            condition.type == "Ready" and known is not None and known.status == "True"
        ) or condition.type == "Stalled":
            context.events.post(reference_to(own), "Warning", condition.reason, condition.message)


def reference_to(own: OwnObject) -> Object:
    """How an Event names the object it is about."""
    return {
        "apiVersion": TYPE_BY_KIND[own.kind].api_version,
        "kind": own.kind,
        "namespace": own.metadata.namespace,
        "name": own.metadata.name,
        "uid": own.metadata.uid,
    }
