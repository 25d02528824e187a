"""The key that an engine asks for: made once, in a Secret beside the model, known to its gateways and its agent."""

from __future__ import annotations

from typing import Any

from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import ENGINE_KEY_FIELD, engine_key_secret_name
from stoker.api.resolved import ResolvedModelDeployment
from stoker.desired.fetch_container import mount
from stoker.desired.objects import Object, child, secret_data
from stoker.engines import Engine
from stoker.engines.base import KEY_VARIABLE

AGENT_KEY_VARIABLE = "STOKER_AGENT_ENGINE_KEY"
FILE_FIELD = "api_tokens.yml"
COMPONENT = "engine"


def wants_key(resolved: ResolvedModelDeployment) -> bool:
    """Whether the engine asks for a key."""
    return resolved.engine.spec.engine_auth == "GeneratedKey"


def build_key_secret(deployment: ModelDeployment, key: str) -> Object:
    """For a plain create: a key that is there is never written over."""
    # Both keys of the file: without one the engine would make its own, in a place that it cannot write to.
    data = secret_data(**{ENGINE_KEY_FIELD: key, FILE_FIELD: f"api_key: {key}\nadmin_key: {key}-admin\n"})
    name = engine_key_secret_name(deployment.metadata.name)
    return child(deployment, COMPONENT, "v1", "Secret", name, type="Opaque", data=data)


def agent_env(resolved: ResolvedModelDeployment) -> list[Object]:
    """The agent reads numbers and state that are only told with the key."""
    return [_variable(resolved, AGENT_KEY_VARIABLE)] if wants_key(resolved) else []


def engine_env(resolved: ResolvedModelDeployment, engine: Engine) -> list[Object]:
    """The key, under the engine's own name or ours."""
    place = engine.key_place
    if not wants_key(resolved) or place is None or place.file:
        return []
    return [_variable(resolved, place.variable or KEY_VARIABLE)]


def engine_arguments(resolved: ResolvedModelDeployment, engine: Engine) -> list[str]:
    """For engines that have a flag only; the kubelet puts the key in."""
    if not wants_key(resolved) or engine.key_place is None or not engine.key_place.flag:
        return []
    return [engine.key_place.flag, f"$({KEY_VARIABLE})"]


def engine_mounts(resolved: ResolvedModelDeployment, engine: Engine) -> list[Object]:
    """For engines that read a file."""
    if not wants_key(resolved) or engine.key_place is None or not engine.key_place.file:
        return []
    return [mount("engine-key", engine.key_place.file, readOnly=True, subPath=FILE_FIELD)]


def engine_volumes(resolved: ResolvedModelDeployment, engine: Engine) -> list[Object]:
    """The Secret as a file."""
    if not engine_mounts(resolved, engine):
        return []
    name = engine_key_secret_name(resolved.deployment.metadata.name)
    return [{"name": "engine-key", "secret": {"secretName": name, "items": [{"key": FILE_FIELD, "path": FILE_FIELD}]}}]


def _variable(resolved: ResolvedModelDeployment, name: str) -> dict[str, Any]:
    secret = engine_key_secret_name(resolved.deployment.metadata.name)
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": ENGINE_KEY_FIELD}}}
