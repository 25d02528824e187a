"""From status.model back to the facts."""

from __future__ import annotations

from stoker.api.inspection import ModelStatus
from stoker.models.facts import KvLayers, ModelFacts


def facts_of(status: ModelStatus) -> ModelFacts:
    """The facts that a status was written from."""
    values = status.model_dump(exclude={"source", "kv_cache"})
    return ModelFacts(**values, kv_cache=tuple(KvLayers(**layers.model_dump()) for layers in status.kv_cache))
