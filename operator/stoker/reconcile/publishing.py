"""Which gateways publish a model, as far as the cache knows."""

from __future__ import annotations

from stoker.api import ModelDeployment
from stoker.cluster.cache import Cache, Key
from stoker.desired.publishing import published_models, publishes


def find_publishers(cache: Cache, model: ModelDeployment) -> tuple[tuple[Key, ...], str]:
    """Gateways that publish the model, sorted; and why another one does not, when its name is taken there."""
    publishers: list[Key] = []
    refusal = ""
    rivals = cache.models_sharing_names(model)
    for gateway in cache.gateways():
        if not publishes(gateway, model, cache.namespace_labels):
            continue
        if len(rivals) > 1:
            _, refused = published_models(gateway, rivals, cache.namespace_labels)
            if model.key in refused:
                refusal = refusal or refused[model.key]
                continue
        publishers.append(gateway.key)
    return tuple(sorted(publishers)), refusal
