"""The engine's view of a ModelDeployment: everything that its row of the table turns into a launch."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from stoker.api.resolved import ResolvedModelDeployment
from stoker.desired.merge import merge
from stoker.desired.objects import Object
from stoker.engines import Engine, EngineRequest, engine_of
from stoker.engines.accelerators import device_resource
from stoker.engines.base import MODELS_DIRECTORY, AdapterPath, Speculation
from stoker.engines.memory import build_fit_request
from stoker.errors import Stalled
from stoker.models.fit import FitRequest
from stoker.models.formats import detect_format
from stoker.models.quantity import parse_quantity
from stoker.models.source import parse_adapter, parse_draft

ADAPTERS_DIRECTORY = "/adapters"
DRAFT_DIRECTORY = "/draft"


def engine_request(resolved: ResolvedModelDeployment) -> EngineRequest:
    """The engine's view of a ModelDeployment."""
    deployment, engine, source = resolved.deployment, resolved.engine, resolved.source
    accelerator = engine.spec.accelerator
    return EngineRequest(
        served_name=deployment.served_name,
        aliases=tuple(deployment.spec.aliases),
        model_path=model_path(resolved),
        shape=source.shape,
        reference=source.reference,
        revision=source.revision,
        format=detect_format(deployment.spec.format, source),
        task=deployment.spec.task,
        context_length=resolved.chosen.context_length,
        context_comes=_context_comes(resolved),
        slots=deployment.spec.max_concurrent_requests,
        vendor=accelerator.vendor,
        compute_capability=Decimal(accelerator.compute_capability) if accelerator.compute_capability else None,
        gpus=resolved.gpus,
        tensor_parallel_size=deployment.spec.tensor_parallel_size,
        pipeline_parallel_size=deployment.spec.pipeline_parallel_size,
        gpu_memory_percent=deployment.spec.gpu_memory_utilization_percent,
        dtype=deployment.spec.dtype,
        quantization=deployment.spec.quantization,
        kv_cache_type=deployment.spec.kv_cache_type,
        cpu_limit=_limit(resolved, "cpu"),
        memory_limit=memory_limit(resolved),
        chat_template_path=engine_row(resolved).chat_template_path if deployment.spec.chat_template else None,
        tool_call_parser=deployment.spec.tool_call_parser,
        reasoning_parser=deployment.spec.reasoning_parser,
        adapters=_adapter_paths(resolved),
        speculation=_speculation(resolved),
        engine_key=engine.spec.engine_auth == "GeneratedKey",
        image=resolved.chosen.engine_image,
        own_image=engine.spec.image is not None,
        custom_command=tuple(engine.spec.custom.command) if engine.spec.custom else (),
        engine_name=engine.metadata.name,
        engine_args=tuple(engine.spec.args),
        engine_env=_env_names(engine.spec.env),
        deployment_name=deployment.metadata.name,
        deployment_args=tuple(deployment.spec.args),
        deployment_env=_env_names(deployment.spec.env),
    )


def _context_comes(resolved: ResolvedModelDeployment) -> bool:
    """Whether the largest context that fits can be computed, once the model has been looked at."""
    known = device_memory(resolved) if resolved.gpus else memory_limit(resolved) or device_memory(resolved)
    return bool(resolved.source.identity) and known is not None and resolved.deployment.spec.fit_policy != "Ignore"


def memory_limit(resolved: ResolvedModelDeployment) -> Decimal | None:
    """Of the engine's container."""
    return _limit(resolved, "memory")


def device_memory(resolved: ResolvedModelDeployment) -> Decimal | None:
    """Memory of one device, as the engine says it, or else a node; on the CPU of the whole node."""
    stated = resolved.engine.spec.accelerator.memory
    if stated is not None and resolved.gpus:
        return parse_quantity(stated)
    return None if resolved.chosen.memory_bytes is None else Decimal(resolved.chosen.memory_bytes)


def build_resolved_fit_request(resolved: ResolvedModelDeployment) -> FitRequest:
    """How the model is to be run, as far as memory depends on it."""
    return build_fit_request(engine_row(resolved), engine_request(resolved), device_memory(resolved))


def model_path(resolved: ResolvedModelDeployment) -> str:
    """Path of the file or folder that the engine opens, inside its container; empty for what it fetches itself."""
    source = resolved.source
    if source.fetched_by_engine:
        return ""
    if source.shape == "Folder":
        return f"{MODELS_DIRECTORY}/{source.path if source.scheme == 'pvc' else folder_name(resolved)}"
    # The node's directory is the mount itself; a claim is mounted whole.
    folder = {"pvc": source.path, "file": ""}.get(source.scheme, source.digest)
    return "/".join(part for part in (MODELS_DIRECTORY, folder, source.files[0]) if part)


def folder_name(resolved: ResolvedModelDeployment) -> str:
    """Name of a model's folder on the node."""
    return resolved.source.path.rpartition("/")[2]


def _adapter_paths(resolved: ResolvedModelDeployment) -> tuple[AdapterPath, ...]:
    paths = []
    for number, adapter in enumerate(resolved.deployment.spec.adapters):
        source = parse_adapter(adapter.source.uri)
        parts = (ADAPTERS_DIRECTORY, str(number), source.path, *source.files[:1])
        path = source.reference or "/".join(part for part in parts if part)
        paths.append(AdapterPath(adapter.name, path))
    return tuple(paths)


def _speculation(resolved: ResolvedModelDeployment) -> Speculation | None:
    wanted = resolved.deployment.spec.speculative_decoding
    if wanted is None or wanted.draft is None:
        return Speculation(tokens=wanted.tokens) if wanted else None
    source = parse_draft(wanted.draft.uri)
    path = "/".join(part for part in (DRAFT_DIRECTORY, source.path, *source.files[:1]) if part)
    return Speculation(source.reference or path, wanted.tokens)


def draft_claim(resolved: ResolvedModelDeployment) -> str:
    """Claim with the draft model; empty when there is none."""
    wanted = resolved.deployment.spec.speculative_decoding
    return parse_draft(wanted.draft.uri).claim if wanted and wanted.draft else ""


def adapter_claims(resolved: ResolvedModelDeployment) -> dict[int, str]:
    """Claims with adapters, by the adapter's number."""
    parsed = (parse_adapter(adapter.source.uri) for adapter in resolved.deployment.spec.adapters)
    return {number: source.claim for number, source in enumerate(parsed) if source.claim}


def engine_row(resolved: ResolvedModelDeployment) -> Engine:
    """The row of the table, or what a custom engine says about itself."""
    return engine_of(resolved.engine.spec)


def container_resources(resolved: ResolvedModelDeployment) -> Object:
    """The engine's resources under the model's, and the devices."""
    resources = merge(resolved.engine.spec.resources or {}, resolved.deployment.spec.resources or {})
    device = device_resource(resolved.engine.spec.accelerator)
    if device and resolved.gpus:
        # Kubernetes takes the request of an extended resource from its limit.
        resources = merge(resources, {"limits": {device: str(resolved.gpus)}, "requests": {device: None}})
    return {key: value for key, value in resources.items() if value}


def _limit(resolved: ResolvedModelDeployment, name: str) -> Decimal | None:
    limits = container_resources(resolved).get("limits") or {}
    try:
        return parse_quantity(limits[name]) if name in limits else None
    except ValueError as error:
        deployment = resolved.deployment.metadata.name
        raise Stalled("InvalidSpec", f"ModelDeployment {deployment}: resources.limits.{name}: {error}") from error


def _env_names(env: list[dict[str, Any]] | None) -> tuple[str, ...]:
    return tuple(str(variable.get("name")) for variable in env or [])
