"""Objects that cannot be read: stored by a newer or older Stoker, or past the CRD's rules."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from stoker.api.base import Condition
from stoker.cluster.errors import ApiError
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import TYPE_BY_KIND, Object
from stoker.reconcile.context import Context
from stoker.status.conditions import Cause, Verdict, build_conditions

REASON = "InvalidSpec"
_CONDITIONS = TypeAdapter(list[Condition])


async def report_invalid(context: Context, own: OwnObject) -> None:
    """Say on the object itself what is wrong; nothing else is touched, so what runs goes on running."""
    metadata, resource = own.metadata, TYPE_BY_KIND[own.kind]
    message = (
        f"{own.kind} {metadata.name} cannot be read: {own.problem}. Correct the field; if it belongs to another version of Stoker, "
        "update the CRDs and the operator together"
    )
    old: Object = own.raw.get("status") or {}
    before = _read_conditions(old)
    verdict = Verdict(False, REASON, message, Cause(REASON, message, stalled=True))
    after = build_conditions(before, verdict, generation=metadata.generation, now=context.now())
    if after == before and old.get("observedGeneration") == metadata.generation:
        return
    written = _CONDITIONS.dump_python(after, mode="json", by_alias=True)
    status = {**old, "observedGeneration": metadata.generation, "conditions": written}
    try:
        answer = await context.client.write_status(resource, own.raw, status)
    except ApiError as error:
        if error.status == 404:
            return
        raise
    context.take_written(resource, answer)


def _read_conditions(status: Object) -> list[Condition]:
    try:
        return _CONDITIONS.validate_python(status.get("conditions") or [])
    except ValidationError:
        return []
