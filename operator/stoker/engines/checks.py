"""Refusing what an engine cannot do, before a pod exists; each message names an engine that can."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from stoker.engines.base import Engine, EngineRequest, FieldName
from stoker.engines.table import ENGINES
from stoker.engines.versions import parse_version
from stoker.errors import Stalled

FIELDS: tuple[FieldName, ...] = (
    "aliases",
    "contextLength",
    "tensorParallelSize",
    "pipelineParallelSize",
    "gpuMemoryUtilizationPercent",
    "dtype",
    "quantization",
    "kvCacheType",
    "chatTemplate",
    "toolCallParser",
    "reasoningParser",
    "adapters",
    "speculativeDecoding",
)

_CUSTOM = "an engine of type Custom"
_NUMBER = re.compile(r"-[0-9.]+(e[+-]?[0-9]+)?")
_SHAPES = {
    "File": "one GGUF file",
    "Folder": "a folder of files",
    "Repository": "a whole repository of Hugging Face (it fetches none itself)",
    "Library": "a name of the Ollama library",
}


def check_accelerator(engine: Engine, request: EngineRequest) -> None:
    """The part that is known without a model."""
    if request.vendor not in engine.vendors:
        what = "on the CPU" if request.vendor == "None" else f"on {request.vendor} devices"
        raise Stalled(
            "UnsupportedAccelerator",
            f"InferenceEngine {request.engine_name}: {engine.title} cannot compute {what}: set accelerator.vendor to "
            f"{_any(sorted(engine.vendors))}, or use type {_others(lambda other: request.vendor in other.vendors)}",
        )


def check_request(engine: Engine, request: EngineRequest) -> None:
    """Refuse what this engine cannot do with this model."""
    check_accelerator(engine, request)
    _check_task(engine, request)
    _check_weights(engine, request)
    _check_devices(engine, request)
    for name in FIELDS:
        if request.is_set(name) and name in engine.refused:
            raise _refused_field(engine, request, name, engine.refused[name])
    _check_values(engine, request)
    if engine.needs_context_length and request.context_length is None and not request.context_comes:
        raise Stalled(
            "FieldRequired",
            f"ModelDeployment {request.deployment_name} needs spec.contextLength on {engine.title}: {engine.needs_context_length}. "
            "Set it; or say how much memory there is (accelerator.memory, or resources.limits.memory on the CPU), and the largest "
            "that fits is taken for models that Stoker can look at",
        )
    _check_adapters(engine, request)
    _check_version(engine, request)
    _check_key(engine, request)
    if engine.check:
        engine.check(request)
    _check_users_flags(engine, request)


def _check_adapters(engine: Engine, request: EngineRequest) -> None:
    for adapter in request.adapters:
        if adapter.path.lower().endswith(".gguf") and engine.type != "LlamaCpp":
            raise Stalled(
                "UnsupportedField",
                f"{engine.title} needs a folder in PEFT's layout as adapter {adapter.name} of ModelDeployment {request.deployment_name}, "
                "not a GGUF file: set its source.uri to pvc://CLAIM/FOLDER or hf://ORG/REPO, or use LlamaCpp",
            )


def _check_version(engine: Engine, request: EngineRequest) -> None:
    oldest = engine.oldest
    version = parse_version(request.image, (image.name for image in engine.images.values())) if oldest else None
    if oldest and version and version < oldest.version:
        raise Stalled(
            "ImageTooOld",
            f"{request.image} of InferenceEngine {request.engine_name} is older than {engine.title} {oldest.shown}, and does not know "
            f"{oldest.what}: set spec.image to a newer one, or remove it (the default is {engine.image(request.vendor) or 'none'})",
        )


def _check_key(engine: Engine, request: EngineRequest) -> None:
    if request.engine_key and engine.key_place is None:
        raise Stalled(
            "UnsupportedField",
            f"{engine.title} cannot ask for a key, as spec.engineAuth of InferenceEngine {request.engine_name} wants: remove it and "
            f"rely on NetworkPolicies, or use {_able(request, lambda other: other.key_place is not None)}",
        )


def _check_task(engine: Engine, request: EngineRequest) -> None:
    if request.task not in engine.tasks:
        served = ", ".join(sorted(engine.tasks))
        raise Stalled(
            "UnsupportedTask",
            f"{engine.title} cannot serve task {request.task} of ModelDeployment {request.deployment_name}: "
            f"set spec.task to one of {served}, or use {_able(request, lambda other: request.task in other.tasks)}",
        )


def _check_weights(engine: Engine, request: EngineRequest) -> None:
    model = f"ModelDeployment {request.deployment_name}"
    if request.format not in engine.all_formats:
        note = engine.format_notes.get(request.format)
        able = any(request.format in other.formats for other in ENGINES.values() if other.type != "Custom")
        advice = _able(
            request, lambda other: request.format in (other.formats if able else other.all_formats), any_format=True
        )
        raise Stalled(
            "UnsupportedFormat",
            f"{engine.title} cannot serve {request.format} weights, which {model} has by spec.format or by the name of its "
            f"source: use {advice}{f' ({note})' if note else ''}",
        )
    if request.format not in engine.formats and not request.own_image:
        raise Stalled(
            "UnsupportedFormat",
            f"The default image of {engine.title} cannot serve {request.format} weights of {model}: "
            f"{engine.format_notes.get(request.format, 'it needs an image of your own')}; set spec.image of InferenceEngine "
            f"{request.engine_name}, or use {_able(request, lambda other: request.format in other.formats, any_format=True)}",
        )
    if request.shape not in engine.shapes:
        raise Stalled(
            "UnsupportedSource",
            f"{engine.title} cannot take {_SHAPES[request.shape]} as the source of {model}: its source must be "
            f"{_any(sorted(_SHAPES[shape].partition(' (')[0] for shape in engine.shapes))}, or use "
            f"{_able(request, lambda other: request.shape in other.shapes)}",
        )
    least = engine.formats.get(request.format)
    has = request.compute_capability
    # An image of one's own may be built for older devices.
    if request.vendor == "NVIDIA" and has is not None and least is not None and has < least and not request.own_image:
        raise Stalled(
            "UnsupportedAccelerator",
            f"{engine.title} needs compute capability {least} for {request.format} weights of {model}, and the devices of "
            f"InferenceEngine {request.engine_name} have {has}: use newer devices, set spec.image of the engine to one that is built "
            f"for these, or use {_able(request, lambda other: _old_enough(other, request))}",
        )


def _old_enough(engine: Engine, request: EngineRequest) -> bool:
    least = engine.formats.get(request.format)
    has = request.compute_capability
    return request.format in engine.formats and (least is None or (has is not None and has >= least))


def _check_devices(engine: Engine, request: EngineRequest) -> None:
    if request.gpus > 0 and request.vendor == "None":
        raise Stalled(
            "UnsupportedField",
            f"ModelDeployment {request.deployment_name} asks for gpus: {request.gpus}, but InferenceEngine "
            f"{request.engine_name} computes on the CPU: remove spec.gpus, or set accelerator.vendor of the engine",
        )
    if request.gpus == 0 and request.vendor != "None" and not engine.device_optional:
        raise Stalled(
            "UnsupportedField",
            f"ModelDeployment {request.deployment_name} asks for gpus: 0, but {engine.title} with the image of InferenceEngine "
            f"{request.engine_name} needs a device: remove spec.gpus, or set accelerator.vendor of the engine to None",
        )
    if request.gpu_memory_percent and request.gpus == 0:
        raise Stalled(
            "UnsupportedField",
            f"ModelDeployment {request.deployment_name} sets spec.gpuMemoryUtilizationPercent, but runs without a device: remove it; on "
            "the CPU resources.limits.memory says how much may be used",
        )
    product = (request.tensor_parallel_size or 1) * (request.pipeline_parallel_size or 1)
    if (request.tensor_parallel_size or request.pipeline_parallel_size) and product != max(1, request.gpus):
        raise Stalled(
            "UnsupportedField",
            f"ModelDeployment {request.deployment_name} asks for tensorParallelSize × pipelineParallelSize = {product} on "
            f"{request.gpus} devices: set spec.gpus to {product}, or leave it away on an engine with devices",
        )


def _check_values(engine: Engine, request: EngineRequest) -> None:
    """Fields of which an engine knows some values only."""
    chosen: tuple[tuple[FieldName, str | None, Iterable[str], str], ...] = (
        ("dtype", request.dtype, engine.dtypes, "it computes in"),
        ("quantization", request.quantization, engine.quantizations, "while loading it can make"),
        ("kvCacheType", request.kv_cache_type, engine.kv_cache_types, "its cache can be"),
    )
    for name, value, known, words in chosen:
        if value is not None and value not in known:
            raise _refused_field(engine, request, name, f"{words} {_any(sorted(known))}, not {value}")
    if request.quantization and request.format != "Safetensors":
        raise Stalled(
            "UnsupportedField",
            f"ModelDeployment {request.deployment_name} sets spec.quantization, but its weights are {request.format} already: "
            "remove spec.quantization, or take full-precision weights (set spec.format to Safetensors if they are)",
        )
    if request.own_image:
        return
    parsers: tuple[tuple[FieldName, str | None, frozenset[str]], ...] = (
        ("toolCallParser", request.tool_call_parser, engine.tool_call_parsers),
        ("reasoningParser", request.reasoning_parser, engine.reasoning_parsers),
    )
    for name, value, parser_names in parsers:
        if value is not None and not _knows(parser_names, value):
            raise Stalled(
                "UnsupportedField",
                f"{engine.title} {engine.version} has no spec.{name} {value!r}, which ModelDeployment "
                f"{request.deployment_name} asks for: set it to one of {', '.join(sorted(parser_names))}",
            )


def _refused_field(engine: Engine, request: EngineRequest, name: FieldName, why: str) -> Stalled:
    return Stalled(
        "UnsupportedField",
        f"{engine.title} cannot do spec.{name} of ModelDeployment {request.deployment_name}: {why}. Remove the field, or use "
        f"{_able(request, lambda other: _renders(other, request, name))}",
    )


def _renders(engine: Engine, request: EngineRequest, name: FieldName) -> bool:
    if name in engine.refused:
        return False
    return (
        (name != "dtype" or request.dtype in engine.dtypes)
        and (name != "quantization" or request.quantization in engine.quantizations)
        and (name != "kvCacheType" or request.kv_cache_type in engine.kv_cache_types)
        and (name != "toolCallParser" or _knows(engine.tool_call_parsers, request.tool_call_parser))
        and (name != "reasoningParser" or _knows(engine.reasoning_parsers, request.reasoning_parser))
    )


def _knows(parsers: frozenset[str], name: str | None) -> bool:
    return not parsers or name in parsers


def _able(request: EngineRequest, can: Callable[[Engine], bool], *, any_format: bool = False) -> str:
    """Engines that can, best those that also take the weights and the accelerator as they are."""
    fitting = [
        engine
        for engine in ENGINES.values()
        if can(engine)
        and request.vendor in engine.vendors
        and (any_format or request.format in engine.all_formats)
        and request.task in engine.tasks
    ]
    return _others(lambda engine: engine in fitting) if any(e.type != "Custom" for e in fitting) else _others(can)


def _others(can: Callable[[Engine], bool]) -> str:
    """Types of engines; Custom can do anything, and says nothing."""
    return _any([engine.type for engine in ENGINES.values() if engine.type != "Custom" and can(engine)] or [_CUSTOM])


def _any(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _check_users_flags(engine: Engine, request: EngineRequest) -> None:
    places = (
        (f"InferenceEngine {request.engine_name}", request.engine_args, request.engine_env),
        (f"ModelDeployment {request.deployment_name}", request.deployment_args, request.deployment_env),
    )
    for where, args, env in places:
        if args and not engine.takes_args:
            raise Stalled(
                "UnsupportedField",
                f"{where} sets spec.args, but {engine.title} takes no arguments: remove them; what no field covers can be set "
                "by spec.env",
            )
        for argument in args:
            _check_argument(engine, request, argument, where)
        for name in env:
            _check_variable(engine, request, name, where)


def _check_argument(engine: Engine, request: EngineRequest, argument: str, where: str) -> None:
    flag = flag_name(argument)
    for group in engine.managed:
        if flag and group.when(request) and _means_one_of(flag, group.flags):
            raise Stalled(
                "ManagedArgument",
                f"{where} sets {flag} in spec.args, which Stoker manages: remove it; {group.instead}",
            )


def _check_variable(engine: Engine, request: EngineRequest, name: str, where: str) -> None:
    for group in engine.managed:
        if group.when(request) and engine.normalize_env(name) in group.env:
            raise Stalled(
                "ManagedArgument",
                f"{where} sets {name} in spec.env, which Stoker manages: remove it; {group.instead}",
            )


def flag_name(argument: str) -> str | None:
    """The flag in one word of a command line, spelled as in the engine's help; None for a value."""
    if not argument.startswith("-") or argument in ("-", "--") or _NUMBER.fullmatch(argument):
        return None
    name = argument.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def _means_one_of(flag: str, managed: frozenset[str]) -> bool:
    """Whether an argument parser could take the flag for a managed one: by name, or by a beginning of it."""
    if flag in managed:
        return True
    return flag.startswith("--") and any(name.startswith(flag) for name in managed if name.startswith("--"))
