"""What every engine is started with, for every field that it knows and every accelerator: read the diff before you commit it.

Each file has the plain launch for each accelerator, and below, for each field, what it adds (+) and takes away (-).
After a change that is meant: ``pytest tests/golden --update-golden``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from difflib import ndiff
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from stoker.api.inference_engine import Vendor
from stoker.engines import ENGINES, Engine, EngineRequest, check_request
from stoker.engines.base import AdapterPath, Launch, Speculation
from stoker.errors import Stalled

HERE = Path(__file__).parent / "commands"
VENDORS: tuple[Vendor, ...] = ("NVIDIA", "AMD", "Intel", "None")
SAFETENSORS = {"format": "Safetensors", "shape": "Folder", "model_path": "/models/some/model"}
EXL3 = {"format": "EXL3", "shape": "Folder", "model_path": "/models/some/model-exl3"}
REPOSITORY = {"format": "Safetensors", "shape": "Repository", "reference": "org/model", "model_path": ""}

FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("aliases: [gpt-4o, default]", {"aliases": ("gpt-4o", "default")}),
    ("contextLength: 8192", {"context_length": 8192}),
    ("maxConcurrentRequests: 32", {"slots": 32}),
    ("gpus: 4", {"gpus": 4}),
    ("tensorParallelSize: 2", {"tensor_parallel_size": 2, "gpus": 2}),
    (
        "tensorParallelSize: 2, pipelineParallelSize: 2",
        {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "gpus": 4},
    ),
    ("gpuMemoryUtilizationPercent: 85", {"gpu_memory_percent": 85}),
    ("dtype: BFloat16", {"dtype": "BFloat16"}),
    ("quantization: FP8", {"quantization": "FP8"}),
    ("quantization: INT8", {"quantization": "INT8"}),
    ("quantization: INT4", {"quantization": "INT4"}),
    ("kvCacheType: F16", {"kv_cache_type": "F16"}),
    ("kvCacheType: FP8", {"kv_cache_type": "FP8"}),
    ("kvCacheType: INT8", {"kv_cache_type": "INT8"}),
    ("kvCacheType: INT4", {"kv_cache_type": "INT4"}),
    ("chatTemplate", {"chat_template_path": "TEMPLATE"}),
    ("toolCallParser: qwen3_coder", {"tool_call_parser": "qwen3_coder"}),
    ("reasoningParser: qwen3", {"reasoning_parser": "qwen3"}),
    ("reasoningParser: deepseek", {"reasoning_parser": "deepseek"}),
    ("adapters", {"adapters": (AdapterPath("m:legal", "/adapters/0/legal"), AdapterPath("m:law", "org/law"))}),
    (
        "adapters, GGUF files",
        {"adapters": (AdapterPath("m:legal", "/adapters/0/legal.gguf"), AdapterPath("law", "/adapters/1/law.gguf"))},
    ),
    ("speculativeDecoding: NGram", {"speculation": Speculation()}),
    ("speculativeDecoding: DraftModel, tokens: 6", {"speculation": Speculation("/draft/small", 6)}),
    ("speculativeDecoding: DraftModel", {"speculation": Speculation("/draft/small")}),
    ("speculativeDecoding: DraftModel, a GGUF file", {"speculation": Speculation("/draft/small.gguf")}),
    ("task: Completion", {"task": "Completion"}),
    ("task: Embedding", {"task": "Embedding"}),
    ("task: Rerank", {"task": "Rerank"}),
    ("task: Transcription", {"task": "Transcription"}),
    (
        "task: Transcription, args: [--mmproj, /models/m/mmproj.gguf]",
        {"task": "Transcription", "deployment_args": ("--mmproj", "/models/m/mmproj.gguf")},
    ),
    ("task: Speech", {"task": "Speech"}),
    (
        "task: Speech, source: hf://Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice",
        {**REPOSITORY, "task": "Speech", "reference": "Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice"},
    ),
    ("task: Image", {"task": "Image"}),
    ("source: hf://ORG/REPO, revision: v1", {**REPOSITORY, "revision": "v1"}),
    ("source: ollama://qwen3:8b", {"shape": "Library", "reference": "qwen3:8b", "model_path": ""}),
    ("format: AWQ", {**SAFETENSORS, "format": "AWQ"}),
    ("resources.limits: {cpu: 6, memory: 16Gi}", {"cpu_limit": Decimal(6), "memory_limit": Decimal(16 << 30)}),
    ("args of engine and model", {"engine_args": ("--of-engine", "1"), "deployment_args": ("--of-model",)}),
)


def plain(engine: Engine, vendor: Vendor, weights: dict[str, Any]) -> EngineRequest:
    return EngineRequest(
        "m",
        vendor=vendor,
        gpus=0 if vendor == "None" else 1,
        context_length=4096 if engine.needs_context_length else None,
        custom_command=("serve", "--port", "8080") if engine.type == "Custom" else (),
        engine_name="e",
        deployment_name="d",
        **weights,
    )


def weights_of(engine: Engine) -> Iterator[tuple[str, dict[str, Any]]]:
    """The kinds of weights that make a difference."""
    if "GGUF" in engine.formats and "File" in engine.shapes:
        yield "one GGUF file", {"format": "GGUF", "shape": "File", "model_path": "/models/0123456789abcdef/m.gguf"}
    if "EXL3" in engine.formats and engine.type in ("TabbyAPI", "TextGenerationWebUI"):
        yield "a folder of EXL3", EXL3
    if "Safetensors" in engine.formats and engine.type != "TabbyAPI":
        yield "a folder of safetensors", SAFETENSORS


def accepts(engine: Engine, request: EngineRequest) -> bool:
    try:
        check_request(engine, request)
    except Stalled:
        return False
    return True


def lines(launch: Launch) -> list[str]:
    """One flag with its values on a line, then the environment, then the files."""
    words: list[str] = []
    for word in launch.command:
        if word.startswith("-") or not words:
            words.append(quote(word))
        else:
            words[-1] += f" {quote(word)}"
    found = [f"  {line}" for line in words]
    found += [f"  {name}={value}" for name, value in sorted(launch.env.items())]
    for path, text in launch.files.items():
        found += [f"  {path}: {line}" for line in text.splitlines()]
    return found


def render(engine: Engine) -> str:
    page = [f"{engine.type}: {engine.title} {engine.version}".rstrip()]
    for name, weights in weights_of(engine):
        first: dict[str, list[str]] = {}
        for vendor in VENDORS:
            request = plain(engine, vendor, weights)
            if accepts(engine, request):
                page += ["", f"== {name}, accelerator {vendor}", *lines(engine.launch(request))]
                for title, values in FIELDS:
                    given = dict(values)
                    if given.get("chat_template_path"):
                        given["chat_template_path"] = engine.chat_template_path
                    if vendor == "None" and given.get("gpus"):
                        continue
                    other = replace(request, **given)
                    if not accepts(engine, other):
                        continue
                    difference = [
                        line.rstrip()
                        for line in ndiff(lines(engine.launch(request)), lines(engine.launch(other)))
                        if line[0] in "+-"
                    ] or ["(the gateway's business)"]
                    # What is the same as on an earlier accelerator is not told again.
                    if first.get(title) != difference:
                        page += [f"-- {title}", *difference]
                    first.setdefault(title, difference)
    return "\n".join(page) + "\n"


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.type)
def test_the_commands_of_an_engine_are_exactly_the_golden_ones(engine: Engine, request: pytest.FixtureRequest) -> None:
    golden = HERE / f"{engine.type}.txt"
    rendered = render(engine)
    if request.config.getoption("--update-golden", default=False):
        HERE.mkdir(exist_ok=True)
        golden.write_text(rendered)
    assert golden.exists(), f"run: pytest tests/golden --update-golden, and commit {golden.name}"
    assert rendered == golden.read_text()


def test_every_engine_has_its_file_and_nothing_else_has() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(ENGINES)
