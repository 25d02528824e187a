"""Ollama: GGUF models from its own library, or from a file.

Configuration is by environment only: https://docs.ollama.com/faq and envconfig/config.go. The server starts without a model;
a script brings it in, loads it for good and then only waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from shlex import quote

from stoker.api.model_deployment import KVCacheType
from stoker.engines.base import (
    CONFIG_DIRECTORY,
    MODELS_DIRECTORY,
    Engine,
    EngineRequest,
    Image,
    Launch,
    ManagedFlags,
    Oldest,
    Readiness,
    from_capability,
    when_set,
)
from stoker.engines.llama_cpp import AUTOMATIC_TOOLS
from stoker.errors import Stalled

VERSION = "0.33.3"

_KV_CACHE_TYPES: Mapping[KVCacheType, str] = {"F16": "f16", "INT8": "q8_0", "INT4": "q4_0"}
_START = f"{CONFIG_DIRECTORY}/start.sh"
_MODELFILE = f"{CONFIG_DIRECTORY}/Modelfile"
_OWN_STORE = "/var/lib/ollama"
"""Blobs made of a file: beside the file itself, which may lie where nothing can be written."""

_NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*/){0,2}[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")

_SCRIPT = """\
#!/bin/sh
# Ollama starts without a model: bring it in, load it for good, and wait for the server to end.
set -eu
ollama serve &
server=$!
trap 'kill -TERM "$server"' TERM INT
until ollama list >/dev/null 2>&1; do
  kill -0 "$server"
  sleep 1
done
{bring}
{load}
# The first wait ends with the signal, the second with the server.
wait "$server" || wait "$server"
"""


def _build(request: EngineRequest) -> Launch:
    name, from_library = quote(request.served_name), request.shape == "Library"
    files: dict[str, str] = {}
    writable: tuple[str, ...] = ()
    if from_library:
        bring = [f"ollama pull {quote(request.reference)}"]
        if request.reference != request.served_name:
            bring.append(f"ollama cp {quote(request.reference)} {name}")
    else:
        bring = [f"ollama create {name} -f {_MODELFILE}"]
        files[_MODELFILE] = f"FROM {request.model_path}\n"
        writable = (_OWN_STORE,)
    bring += [f"ollama cp {name} {quote(alias)}" for alias in request.aliases]
    # An embedding model refuses to be run without a text; any other loads without answering.
    prompt = "hello" if request.task == "Embedding" else ""
    load = f"ollama run {name} {quote(prompt)} >/dev/null"
    files[_START] = _SCRIPT.format(bring="\n".join(bring), load=load)
    env = {
        "OLLAMA_HOST": "0.0.0.0:8080",
        "OLLAMA_MODELS": f"{MODELS_DIRECTORY}/ollama" if from_library else _OWN_STORE,
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NUM_PARALLEL": str(request.slots),
        "OLLAMA_CONTEXT_LENGTH": str(request.context_length or 0),
        # Models named …-cloud would be sent to the makers' servers.
        "OLLAMA_NO_CLOUD": "1",
        # Other pods may share the folder.
        "OLLAMA_NOPRUNE": "1",
    }
    if request.gpus > 1:
        env["OLLAMA_SCHED_SPREAD"] = "1"
    if request.vendor == "None" or request.gpus == 0:
        env["OLLAMA_VULKAN"] = "0"
    if request.kv_cache_type:
        env |= {"OLLAMA_KV_CACHE_TYPE": _KV_CACHE_TYPES[request.kv_cache_type], "OLLAMA_FLASH_ATTENTION": "1"}
    return Launch(("/bin/sh", _START), env, files, writable)


def _check(request: EngineRequest) -> None:
    """Ollama reads a name as [HOST/][NAMESPACE/]MODEL[:TAG]."""
    for name in (request.served_name, *request.aliases):
        if not _NAME.fullmatch(name):
            raise Stalled(
                "UnsupportedField",
                f"Ollama cannot call a model {name!r}, as ModelDeployment {request.deployment_name} does: use letters, digits, "
                "dot, dash and underscore, up to two slashes, and one colon before a tag",
            )


_MANAGED = (
    ManagedFlags(
        frozenset(), "engines listen where the gateway and the probes look for them", frozenset({"OLLAMA_HOST"})
    ),
    ManagedFlags(
        frozenset(),
        "the model is loaded once and stays",
        frozenset(
            {"OLLAMA_MODELS", "OLLAMA_KEEP_ALIVE", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_NOPRUNE", "OLLAMA_NO_CLOUD"}
        ),
    ),
    ManagedFlags(
        frozenset(), "set spec.maxConcurrentRequests of the ModelDeployment", frozenset({"OLLAMA_NUM_PARALLEL"})
    ),
    ManagedFlags(frozenset(), "set spec.contextLength of the ModelDeployment", frozenset({"OLLAMA_CONTEXT_LENGTH"})),
    ManagedFlags(
        frozenset(),
        "spec.kvCacheType decides it; remove the field to use your own",
        frozenset({"OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION"}),
        when=when_set("kvCacheType"),
    ),
)

OLLAMA = Engine(
    type="Ollama",
    title="Ollama",
    version=VERSION,
    reference="https://docs.ollama.com/faq",
    images={
        "None": Image(f"docker.io/ollama/ollama:{VERSION}"),
        "NVIDIA": Image(f"docker.io/ollama/ollama:{VERSION}", "CUDA 12 and 13"),
        "AMD": Image(f"docker.io/ollama/ollama:{VERSION}-rocm"),
        "Intel": Image(f"docker.io/ollama/ollama:{VERSION}", "by Vulkan"),
    },
    vendors=frozenset({"NVIDIA", "AMD", "Intel", "None"}),
    formats=from_capability("5.0", "GGUF"),
    shapes=frozenset({"File", "Library"}),
    # Of its models those that hear: the same ones chat, too.
    tasks=frozenset({"Chat", "Completion", "Embedding", "Transcription"}),
    build=_build,
    managed=_MANAGED,
    refused={
        "tensorParallelSize": "it spreads a model over all devices of spec.gpus by itself",
        "pipelineParallelSize": "it spreads a model over all devices of spec.gpus by itself",
        "gpuMemoryUtilizationPercent": "it takes what weights and context need, no share of the device",
        "dtype": "a GGUF file has its types inside",
        "quantization": "a GGUF file is quantized already; take another tag or file",
        "chatTemplate": "its templates are Go templates, not Jinja",
        "toolCallParser": AUTOMATIC_TOOLS,
        "reasoningParser": "it knows the models of its library, and takes no parser's name",
        "speculativeDecoding": "it has no setting for it",
        "adapters": "it bakes an adapter into a model, and cannot serve both",
    },
    check=_check,
    kv_cache_types=_KV_CACHE_TYPES,
    needs_context_length=(
        "without it, it takes one by the device's memory, 4,096 tokens on small ones, and cuts longer prompts without a word"
    ),
    takes_args=False,
    # https://github.com/ollama/ollama/releases/tag/v0.5.13; an older one would not say that it does not know the variable.
    oldest=Oldest((0, 5, 13), "0.5.13", "OLLAMA_CONTEXT_LENGTH"),
    ready=Readiness("/api/ps", items="models", key="name", equals=("{name}", "{name}:latest")),
    live_path="/",
    device_optional=True,
    stop="cuts running requests",
)
