"""docs/engines.md: what each engine can do, out of the table that decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import get_args

from stoker.api.inference_engine import Vendor
from stoker.api.model_deployment import Format, Task
from stoker.desired.choice import OLD_DEVICES, preference
from stoker.engines import ENGINES, Engine, EngineRequest
from stoker.engines.base import FieldName
from stoker.engines.checks import FIELDS

Cell = Callable[[Engine], str]

_FORMATS: tuple[Format, ...] = tuple(name for name in get_args(Format) if name != "Auto")
_TASKS: tuple[Task, ...] = get_args(Task)
_VENDORS: tuple[Vendor, ...] = get_args(Vendor)
_SHAPES = {
    "File": "one GGUF file",
    "Folder": "a folder (`pvc://`, `file://`)",
    "Repository": "`hf://ORG/REPO`, fetched by the engine",
    "Library": "`ollama://`",
}

HEAD = """\
<!-- Written by `make generate` from operator/stoker/engines; do not edit. -->

# Engines

An InferenceEngine says which inference server runs, a ModelDeployment what it serves. To switch, change `engineRef`, and `source` where
the other engine wants the weights in another form. What an engine cannot do is refused before a pod exists: the reason says what
(`UnsupportedFormat`, `UnsupportedSource`, `UnsupportedAccelerator`, `UnsupportedTask`, `UnsupportedField`, `FieldRequired`), the message why,
and which engine can. The tables below are written from the code that refuses.

A complete example of each engine: [examples/engines](../examples/engines).

## Which one

Leave `engineRef` away and Stoker chooses among the InferenceEngines of the namespace; `status.engine` and `status.engineReason` say which
and why, and why not the others. A choice stands until the model or its engine is changed (or the annotation `stoker.dev/refresh` is set).

{preferences}

Engines with an accelerator come before those without.

## What has been tried

llama.cpp runs in Stoker's own tests, and vLLM on a CPU in the long ones (`make test-all`; 0.32, the newest that the package index has for
CPUs): chat, streams, draining; with llama.cpp embeddings, with vLLM tool calls, a LoRA adapter, and every command that is written here
read by its own parser. The flags of llama.cpp, vLLM, Aphrodite and SGLang are all in the argument parser of the version below, and the tests say so. Aphrodite, SGLang, Ollama, TabbyAPI,
LocalAI, text-generation-webui and LM Studio are written from their sources and documentation, and run in the tests as fakes that answer what
these say, started by the very command that starts the real one: try yours before you depend on it. So are the tasks Transcription,
Speech and Image, reranking on SGLang, and speculative decoding on all but llama.cpp.

Of twenty answers that run for 20 s none is cut when a model is scaled from two replicas to one, nor when its engine's image changes: tried
with llama.cpp, vLLM and the fakes. What the agent beside each engine costs: [benchmarks/agent.md](benchmarks/agent.md).
"""

READING = """\
`•` yes, `image` with an image of your own (`spec.image`), empty: refused. A number is the least CUDA compute capability that the default
image takes for the format; it is checked where the InferenceEngine has `accelerator.computeCapability`, and not for an image of your own.
"""

PORTS = """\
All engines listen on port 8080 here, whatever their own default is (Custom: `custom.port`). `/ready` of the agent means "the model is loaded
and answers" for each of them; where a status code says that, the kubelet asks the engine itself. Where an engine does not count its
requests, a replica that goes away waits until nobody is connected to it any more, and the gateway's own count stands in for scaling.
"""

SECURITY = """\
Every container runs as user 65532 with a read-only root file system, no capabilities and no service-account token (Pod Security
*restricted*), with these exceptions.
"""


ADAPTERS = """\
Adapters (`adapters`) are folders in PEFT's layout, for llama.cpp GGUF files. Each is served under its own name, which keys, limits and `/v1/models`
know. llama.cpp applies an adapter by number: the gateway adds it to the request by the name that was asked for. Requests that go to the engine
past the gateway get the plain model there.
"""

ARGUMENTS = """\
Arguments (`args`) come last on the engine's command line. Flags and variables for host, port, model, names, keys and TLS are refused by
name; flags of a field are refused while the field is set. Ollama takes no arguments.
"""

_EXAMPLES: tuple[tuple[str, EngineRequest], ...] = (
    ("`ollama://`", EngineRequest("m", shape="Library")),
    ("EXL2, EXL3", EngineRequest("m", format="EXL3", vendor="NVIDIA", gpus=1)),
    ("GGUF, with a GPU or without", EngineRequest("m", format="GGUF")),
    ("AWQ, GPTQ, FP8, INT8, plain safetensors", EngineRequest("m", format="AWQ", vendor="NVIDIA", gpus=1)),
    (
        f"the same on NVIDIA GPUs below compute capability {OLD_DEVICES}, with an image of your own",
        EngineRequest("m", format="AWQ", vendor="NVIDIA", gpus=1, compute_capability=Decimal("6.1")),
    ),
)
"""One request for each line of the table of preferences."""


def _preferences() -> str:
    lines = ["| Weights and hardware | Preferred, best first |", "|---|---|"]
    lines += [_row(words, ", ".join(dict.fromkeys(preference(request)[0]))) for words, request in _EXAMPLES]
    return "\n".join(lines)


def build_page() -> str:
    """The whole page."""
    engines = list(ENGINES.values())
    parts = [
        HEAD.format(preferences=_preferences()),
        "## What they load\n\n" + READING,
        _matrix(engines, {name: _format_cell(name) for name in _FORMATS}),
        _notes(engines, lambda engine: dict(engine.format_notes.items())),
        "Sources:\n",
        _matrix(engines, {text: _member(name, lambda engine: engine.shapes) for name, text in _SHAPES.items()}),
        "Tasks:\n",
        _matrix(engines, {name: _member(name, lambda engine: engine.tasks) for name in _TASKS}),
        "## Where they run\n\nA name is the default image; `image` means that the engine can, but its makers publish none.\n",
        _images(engines),
        "## Which fields they know\n",
        _matrix(
            engines,
            {f"`{name}`": _field_cell(name) for name in FIELDS}
            | {"`engineAuth` of the InferenceEngine": lambda engine: "•" if engine.key_place else ""},
        ),
        "Why not:\n",
        _refusals(engines),
        ADAPTERS,
        "## How they are asked and stopped\n\n" + PORTS,
        _operation(engines),
        "## What they need in a pod\n\n" + SECURITY,
        _security(engines),
        ARGUMENTS,
    ]
    return "\n".join(parts)


def _matrix(engines: Sequence[Engine], rows: Mapping[str, Cell]) -> str:
    lines = [_row("", *(engine.type for engine in engines)), "|---|" + ":-:|" * len(engines)]
    lines += [_row(title, *(cell(engine) for engine in engines)) for title, cell in rows.items()]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _member(name: str, members: Callable[[Engine], frozenset[str]] | Cell) -> Cell:
    return lambda engine: "•" if name in members(engine) else ""


def _format_cell(name: Format) -> Cell:
    def cell(engine: Engine) -> str:
        if name in engine.formats:
            least: Decimal | None = engine.formats[name]
            return str(least) if least is not None and "NVIDIA" in engine.images else "•"
        return "image" if name in engine.own_image_formats else ""

    return cell


def _field_cell(name: FieldName) -> Cell:
    def cell(engine: Engine) -> str:
        if name in engine.refused:
            return ""
        values: Mapping[str, Mapping[str, str]] = {
            "dtype": dict(engine.dtypes.items()),
            "quantization": dict(engine.quantizations.items()),
            "kvCacheType": dict(engine.kv_cache_types.items()),
        }
        if name in values:
            return " ".join(values[name])
        return "required" if name == "contextLength" and engine.needs_context_length else "•"

    return cell


def _notes(engines: Sequence[Engine], notes: Callable[[Engine], Mapping[str, str]]) -> str:
    lines = [f"- {engine.type}, {name}: {note}." for engine in engines for name, note in notes(engine).items()]
    return "\n".join(lines) + "\n"


def _refusals(engines: Sequence[Engine]) -> str:
    """One line for each reason, with the engines that give it."""
    given: dict[tuple[str, str], list[str]] = {}
    for engine in engines:
        for name in FIELDS:
            if name in engine.refused:
                given.setdefault((name, engine.refused[name]), []).append(engine.type)
    return "\n".join(f"- `{name}`, {', '.join(types)}: {why}." for (name, why), types in given.items()) + "\n"


def _images(engines: Sequence[Engine]) -> str:
    lines = ["| Engine | Accelerator | Default image | Note |", "|---|---|---|---|"]
    for engine in engines:
        for vendor in _VENDORS:
            image = engine.images.get(vendor)
            if image:
                lines.append(_row(engine.type, vendor, f"`{image.name}`", image.note))
        without = [vendor for vendor in _VENDORS if vendor in engine.vendors and vendor not in engine.images]
        if without:
            lines.append(_row(engine.type, ", ".join(without), "image", ""))
    return "\n".join(lines) + "\n"


def _operation(engines: Sequence[Engine]) -> str:
    lines = [
        "| Engine | Version read | Loaded when | Counts its requests | At SIGTERM, after the drain | Reference |",
        "|---|---|---|---|---|---|",
    ]
    for engine in engines:
        counts = "yes" if engine.metrics.running else "no"
        if engine.type == "Custom":
            counts = "with `custom.metricsPath`"
        reference = f"<{engine.reference}>" if engine.reference else ""
        lines.append(_row(engine.type, engine.version, _ready_words(engine), counts, engine.stop, reference))
    return "\n".join(lines) + "\n"


def _ready_words(engine: Engine) -> str:
    ready = engine.ready.of("NAME")
    if engine.type == "Custom":
        return "`custom.healthPath` answers 200"
    if not ready.key:
        return f"`{ready.path}` answers 200"
    if ready.equals:
        return f"`{ready.key}` in `{ready.path}` is {' or '.join(f'`{value}`' for value in ready.equals)}"
    return f"`{ready.path}` has a `{ready.key}`"


def _security(engines: Sequence[Engine]) -> str:
    lines = []
    for engine in engines:
        needs = []
        if engine.security.root:
            needs.append("runs as root, which Pod Security *restricted* refuses")
        if not engine.security.read_only_root:
            needs.append("writes to its root file system")
        if engine.shared_memory:
            needs.append(f"has /dev/shm of {engine.shared_memory}")
        if needs:
            lines.append(f"- {engine.type} {', '.join(needs)}.")
    return "\n".join(lines) + "\n"
