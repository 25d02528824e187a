"""The four kinds, as pydantic models that are the CRDs."""

from __future__ import annotations

from stoker.api.api_gateway import ApiGateway
from stoker.api.api_key import ApiKey
from stoker.api.base import API_VERSION, GROUP, VERSION, Resource
from stoker.api.inference_engine import InferenceEngine
from stoker.api.model_deployment import ModelDeployment

KINDS: tuple[type[Resource], ...] = (InferenceEngine, ModelDeployment, ApiGateway, ApiKey)
KIND_BY_NAME: dict[str, type[Resource]] = {kind.info.kind: kind for kind in KINDS}

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "KIND_BY_NAME",
    "VERSION",
    "ApiGateway",
    "ApiKey",
    "InferenceEngine",
    "ModelDeployment",
    "Resource",
]
