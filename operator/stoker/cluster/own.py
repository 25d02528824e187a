"""An object of one of our four kinds, readable or not."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from stoker.api import KIND_BY_NAME, Resource
from stoker.api.base import Metadata
from stoker.cluster.resource_types import Object


@dataclass(frozen=True)
class OwnObject:
    """One of our four kinds as read: parsed, or with the reason why it cannot be."""

    kind: str
    metadata: Metadata
    raw: Object
    resource: Resource | None
    problem: str = ""
    """What is wrong with it, when ``resource`` is None."""


def parse_own(kind: str, obj: Object) -> OwnObject:
    """Parse one of our objects; what cannot be read is kept with the reason, so that its status can say so."""
    metadata = Metadata.model_validate(obj["metadata"])
    try:
        return OwnObject(kind, metadata, obj, KIND_BY_NAME[kind].model_validate(obj))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    if first["loc"] and first["loc"][0] == "status":
        # A status edited by hand is only ours to write again.
        return parse_own(kind, {name: value for name, value in obj.items() if name != "status"})
    field_path = ".".join(str(part) for part in first["loc"])
    return OwnObject(kind, metadata, obj, None, f"{field_path}: {first['msg']}")
