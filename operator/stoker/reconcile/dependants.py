"""Who has to be looked at again when one of our objects comes, changes or goes."""

from __future__ import annotations

from collections.abc import Iterator

from stoker.api import ApiGateway, ApiKey, InferenceEngine, ModelDeployment
from stoker.cluster.cache import Cache
from stoker.cluster.own import OwnObject
from stoker.desired.publishing import publishes
from stoker.desired.replicas import expected_cold_start, is_sleeping
from stoker.reconcile.work_queue import WorkKey

# A gateway's Secrets are written once for many changes that come together.
GATEWAY_DELAY_SECONDS = 0.2
# Counts in a status may lag a little; with a thousand models coming at once they would be written a thousand times.
COUNT_DELAY_SECONDS = 1.0
# Labels come one after the other when a node is new.
NODE_DELAY_SECONDS = 5.0

Appointment = tuple[WorkKey, float]


def dependants_of(cache: Cache, old: OwnObject | None, new: OwnObject | None) -> list[Appointment]:
    """Objects that depend on what changed, each with the delay it may have."""
    before = old.resource if old else None
    after = new.resource if new else None
    resource = after or before
    if isinstance(resource, ModelDeployment):
        found = _of_model(cache, before, after)
    elif isinstance(resource, InferenceEngine):
        found = _of_engine(cache, before, after)
    elif isinstance(resource, ApiGateway):
        found = _of_gateway(cache, before, after)
    elif isinstance(resource, ApiKey):
        found = _of_key(before, after)
    else:
        return []
    return list(found)


def dependants_of_namespaces(cache: Cache) -> list[Appointment]:
    """Labels of a namespace decide about publishing, when a gateway looks beyond its own."""
    if all(gateway.spec.models.namespaces.from_ == "Same" for gateway in cache.gateways()):
        return []
    return [
        *((WorkKey("ApiGateway", *gateway.key), GATEWAY_DELAY_SECONDS) for gateway in cache.gateways()),
        *((WorkKey("ModelDeployment", *model.key), COUNT_DELAY_SECONDS) for model in cache.models()),
    ]


def dependants_of_nodes(cache: Cache) -> list[Appointment]:
    """A node may say how large its devices are, where nobody else has; what was once computed with is kept."""
    return [
        (WorkKey("ModelDeployment", *model.key), NODE_DELAY_SECONDS)
        for model in cache.models()
        if (model.status.fit is None or model.status.fit.available_bytes is None) and model.status.ready_replicas == 0
    ]


def _of_model(cache: Cache, before: object, after: object) -> Iterator[Appointment]:
    models = [model for model in (before, after) if isinstance(model, ModelDeployment)]
    edited = len(models) < 2 or _shape(models[0]) != _shape(models[1])
    if edited:
        yield from _engines_of(models)
        for model in models:
            for other in cache.models_sharing_names(model):
                if other.key != model.key:
                    yield WorkKey("ModelDeployment", *other.key), 0.0
    else:
        if models[0].status.engine != models[1].status.engine:
            yield from _engines_of(models)
        if _told(models[0]) == _told(models[1]):
            return
    for gateway in cache.gateways():
        if any(publishes(gateway, model, cache.namespace_labels) for model in models):
            yield WorkKey("ApiGateway", *gateway.key), GATEWAY_DELAY_SECONDS if edited else COUNT_DELAY_SECONDS


def _told(model: ModelDeployment) -> tuple[object, ...]:
    """What gateways are told of a model's status."""
    return model.status.conditions, is_sleeping(model), expected_cold_start(model), model.status.engine_key


def _engines_of(models: list[ModelDeployment]) -> Iterator[Appointment]:
    """Engines that count these models: named by the user, or chosen."""
    for model in models:
        name = model.spec.engine_ref.name if model.spec.engine_ref else model.status.engine
        if name:
            yield WorkKey("InferenceEngine", model.metadata.namespace, name), COUNT_DELAY_SECONDS


def _of_engine(cache: Cache, before: object, after: object) -> Iterator[Appointment]:
    engines = [engine for engine in (before, after) if isinstance(engine, InferenceEngine)]
    if len(engines) == 2 and _shape(engines[0]) == _shape(engines[1]) and _ready(engines[0]) == _ready(engines[1]):
        return
    undecided = cache.models_without_engine(engines[0].metadata.namespace)
    for key in cache.models_of_engine(engines[0].key) | undecided:
        yield WorkKey("ModelDeployment", *key), 0.0


def _of_gateway(cache: Cache, before: object, after: object) -> Iterator[Appointment]:
    gateways = [gateway for gateway in (before, after) if isinstance(gateway, ApiGateway)]
    if len(gateways) == 2 and _shape(gateways[0]) == _shape(gateways[1]):
        return
    for model in cache.models():
        if any(publishes(gateway, model, cache.namespace_labels) for gateway in gateways):
            yield WorkKey("ModelDeployment", *model.key), 0.0
    for key in cache.key_names_of_gateway(gateways[0].key):
        yield WorkKey("ApiKey", *key), 0.0


def _of_key(before: object, after: object) -> Iterator[Appointment]:
    keys = [key for key in (before, after) if isinstance(key, ApiKey)]
    if len(keys) == 2 and _shape(keys[0]) == _shape(keys[1]) and keys[0].status.keys == keys[1].status.keys:
        return
    for key in keys:
        yield WorkKey("ApiGateway", key.metadata.namespace, key.spec.gateway_ref.name), GATEWAY_DELAY_SECONDS


def _shape(resource: InferenceEngine | ModelDeployment | ApiGateway | ApiKey) -> tuple[object, ...]:
    """All of an object that others depend on, without its status."""
    metadata = resource.metadata
    return metadata.uid, metadata.generation, metadata.labels, metadata.deletion_timestamp is None


def _ready(engine: InferenceEngine) -> list[tuple[str, str]]:
    return [(condition.type, condition.status) for condition in engine.status.conditions]
