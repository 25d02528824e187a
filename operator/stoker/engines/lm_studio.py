"""LM Studio without its window: the llmster daemon and the lms command.

Commands: https://lmstudio.ai/docs/cli. The engine is closed source; its makers publish one preview image, for the CPU. Check their
terms before you build and share an image of your own.
"""

from __future__ import annotations

from shlex import quote

from stoker.engines.base import (
    CONFIG_DIRECTORY,
    Engine,
    EngineRequest,
    Image,
    Launch,
    ManagedFlags,
    Readiness,
    Security,
    on_any_device,
)
from stoker.engines.llama_cpp import AUTOMATIC_TOOLS

_START = f"{CONFIG_DIRECTORY}/start.sh"
_REPOSITORY = "stoker/model"

_SCRIPT = """\
#!/bin/sh
# The daemon goes to the background: bring the model in, load it for good, and stay for as long as the server answers.
set -eu
export PATH="$HOME/.lmstudio/bin:$PATH"
lms daemon up --json
trap 'lms daemon down; exit 0' TERM INT
lms server start --port 8080 --bind 0.0.0.0
lms import {path} --user-repo {repository} --symbolic-link -y
lms load {repository} --identifier {name} --context-length {context} --gpu {gpu} --parallel {slots} --yes "$@"
while lms ps --json >/dev/null 2>&1; do
  sleep 5 &
  wait $!
done
exit 1
"""


def _build(request: EngineRequest) -> Launch:
    script = _SCRIPT.format(
        path=quote(request.model_path),
        repository=_REPOSITORY,
        name=quote(request.served_name),
        context=request.context_length or 0,
        gpu="max" if request.gpus else "off",
        slots=request.slots,
    )
    # Its folder in the image belongs to root.
    return Launch(("/bin/sh", _START), {"HOME": "/root"}, {_START: script})


_MANAGED = (
    ManagedFlags(
        frozenset({"--identifier"}), "set spec.servedModelName of the ModelDeployment", frozenset({"LMS_SERVER_HOST"})
    ),
    ManagedFlags(frozenset({"--context-length"}), "set spec.contextLength of the ModelDeployment"),
    ManagedFlags(frozenset({"--parallel"}), "set spec.maxConcurrentRequests of the ModelDeployment"),
    ManagedFlags(frozenset({"--ttl"}), "the model stays loaded; set spec.replicas to 0 to stop it"),
    ManagedFlags(frozenset({"--gpu"}), "set spec.gpus of the ModelDeployment", when=lambda request: request.gpus == 0),
)

LM_STUDIO = Engine(
    type="LMStudio",
    title="LM Studio",
    version="0.4",
    reference="https://lmstudio.ai/docs/cli",
    images={
        "None": Image(
            "docker.io/lmstudio/llmster-preview:cpu", "a preview with a moving tag, x86-64 with AVX2, runs as root"
        )
    },
    vendors=frozenset({"NVIDIA", "AMD", "None"}),
    formats=on_any_device("GGUF"),
    shapes=frozenset({"File"}),
    tasks=frozenset({"Chat", "Completion", "Embedding"}),
    build=_build,
    managed=_MANAGED,
    refused={
        "aliases": "it knows a loaded model by one name",
        "tensorParallelSize": "its runtime spreads a model over all devices by itself",
        "pipelineParallelSize": "its runtime spreads a model over all devices by itself",
        "gpuMemoryUtilizationPercent": "it takes what weights and context need, no share of the device",
        "dtype": "a GGUF file has its types inside",
        "quantization": "a GGUF file is quantized already; take another file",
        "kvCacheType": "neither its command line nor its REST API has a setting for it",
        "chatTemplate": "it takes the template out of the model's file",
        "toolCallParser": AUTOMATIC_TOOLS,
        "reasoningParser": "it finds out by itself",
        "adapters": "it has no adapters",
        "speculativeDecoding": "its command line has no setting for it",
    },
    needs_context_length="without it, it takes a length of its own and cuts longer prompts",
    ready=Readiness("/api/v0/models/{name}", key="state", equals=("loaded",)),
    live_path="/lmstudio-greeting",
    device_optional=True,
    security=Security(root=True, read_only_root=False),
    stop="cuts running requests",
)
