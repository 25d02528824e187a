"""InferenceEngine: its weight cache is the only thing it has of its own."""

from __future__ import annotations

from stoker.api.inference_engine import InferenceEngine
from stoker.api.names import cache_claim_name
from stoker.api.resolved import OperatorSettings
from stoker.desired.chosen import engine_image
from stoker.desired.objects import Object, child
from stoker.desired.publishing import check_pod_template
from stoker.engines import EngineRequest, check_accelerator, engine_of

COMPONENT = "cache"


def check_engine(engine: InferenceEngine, settings: OperatorSettings) -> None:
    """Refuse what no model could run on."""
    check_pod_template(engine.spec.pod_template is not None, f"InferenceEngine {engine.metadata.name}", settings)
    accelerator = engine.spec.accelerator
    request = EngineRequest(served_name="", vendor=accelerator.vendor, engine_name=engine.metadata.name)
    check_accelerator(engine_of(engine.spec), request)
    engine_image(engine)


def build_children(engine: InferenceEngine, settings: OperatorSettings) -> list[Object]:
    """The cache claim, where one is asked for."""
    cache = engine.spec.cache
    if cache.type != "PersistentVolumeClaim":
        return []
    spec: Object = {
        "accessModes": list(cache.access_modes or ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": cache.size}},
    }
    if cache.storage_class_name is not None:
        spec["storageClassName"] = cache.storage_class_name
    return [child(engine, COMPONENT, "v1", "PersistentVolumeClaim", cache_claim_name(engine.metadata.name), spec=spec)]
