"""What holds for every engine of the table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest

from stoker.api.inference_engine import EngineType, InferenceEngineSpec
from stoker.api.model_deployment import KVCacheType, Quantization, Task
from stoker.engines import ENGINES, Engine, EngineRequest, check_request, engine_of
from stoker.engines.base import AdapterPath, FieldName, Speculation
from stoker.engines.checks import FIELDS
from stoker.errors import Stalled

FLAGS = {
    "VLLM": "vllm_0.33.0.txt",
    "Aphrodite": "aphrodite_0.24.1.txt",
    "SGLang": "sglang_0.5.23.txt",
    "LlamaCpp": "llama_server_b11434.txt",
}
"""Flags of the pinned version's own argument parser, where there is one to read."""

VALUES: dict[FieldName, dict[str, Any]] = {
    "aliases": {"aliases": ("gpt-4o",)},
    "contextLength": {"context_length": 8192},
    "tensorParallelSize": {"tensor_parallel_size": 2, "gpus": 2},
    "pipelineParallelSize": {"pipeline_parallel_size": 2, "gpus": 2},
    "gpuMemoryUtilizationPercent": {"gpu_memory_percent": 85},
    "dtype": {"dtype": "Float16"},
    "quantization": {"quantization": "FP8", "format": "Safetensors"},
    "kvCacheType": {"kv_cache_type": "FP8"},
    "chatTemplate": {"chat_template_path": "/etc/stoker/chat-template/chat-template.jinja"},
    "toolCallParser": {"tool_call_parser": "qwen3_coder"},
    "reasoningParser": {"reasoning_parser": "qwen3"},
    "adapters": {"adapters": (AdapterPath("m:legal", "/adapters/0/legal"),)},
    "speculativeDecoding": {"speculation": Speculation()},
}
SHAPES: dict[str, dict[str, Any]] = {
    "File": {"model_path": "/models/d/m.gguf"},
    "Folder": {"model_path": "/models/some/model"},
    "Repository": {"reference": "org/model"},
    "Library": {"reference": "qwen3:8b"},
}
ENGINES_BY_NAME = pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.type)


def base_request(engine: Engine, **more: Any) -> EngineRequest:
    """Something that the engine serves: a device where it has one, the first format and shape that it takes."""
    vendor = "NVIDIA" if "NVIDIA" in engine.vendors else "None"
    fmt = next(iter(engine.formats))
    shape = (
        "File"
        if fmt == "GGUF" and "File" in engine.shapes
        else next(s for s in ("Folder", "File") if s in engine.shapes)
    )
    given: dict[str, Any] = {"vendor": vendor, "gpus": 1, "format": fmt, "shape": shape, **SHAPES[shape]}
    if engine.needs_context_length:
        given["context_length"] = 4096
    if engine.type == "Custom":
        given["custom_command"] = ("serve",)
    return EngineRequest("m", engine_name="e", deployment_name="d", **{**given, **more})


def with_field(engine: Engine, name: FieldName) -> EngineRequest:
    values = dict(VALUES[name])
    if name == "quantization" and engine.quantizations:
        values["quantization"] = next(iter(engine.quantizations))
    if name == "kvCacheType" and engine.kv_cache_types:
        values["kv_cache_type"] = next(
            kind for kind in engine.kv_cache_types if engine.type != "LocalAI" or kind == "INT8"
        )
    if name == "adapters" and engine.type == "LlamaCpp":
        values["adapters"] = (
            AdapterPath("m:legal", "/adapters/0/legal.gguf"),
            AdapterPath("law", "/adapters/1/law.gguf"),
        )
    if name == "reasoningParser" and engine.type == "LlamaCpp":
        values["reasoning_parser"] = "deepseek"
    if name == "contextLength":
        values["context_length"] = 12345
    request = base_request(engine)
    if engine.type == "TextGenerationWebUI" and name == "tensorParallelSize":
        values |= {"format": "EXL3", "shape": "Folder", **SHAPES["Folder"]}
    if engine.type == "LocalAI" and name in (
        "tensorParallelSize",
        "pipelineParallelSize",
        "gpuMemoryUtilizationPercent",
        "dtype",
        "speculativeDecoding",
    ):
        values |= {"format": "Safetensors", "shape": "Folder", **SHAPES["Folder"]}
    if values.get("format") == "Safetensors":
        values = (
            values | {"shape": "Folder", **SHAPES["Folder"]}
            if "Safetensors" in engine.formats
            else {name: value for name, value in values.items() if name != "format"}
        )
    return replace(request, **values)


def requests_of(engine: Engine) -> Iterator[EngineRequest]:
    """Every field that it renders, every task, every shape, with a device and without."""
    yield base_request(engine)
    for name in FIELDS:
        if name not in engine.refused:
            yield with_field(engine, name)
    for task in engine.tasks:
        folder = {"format": "Safetensors", "shape": "Folder", "model_path": "/models/some/VibeVoice-Realtime-0.5B"}
        other = folder if task in ("Image", "Transcription", "Speech") and "Safetensors" in engine.formats else {}
        if engine.type == "LlamaCpp" and task == "Transcription":
            other = {"deployment_args": ("--mmproj", "/models/d/mmproj.gguf")}
        yield base_request(engine, task=task, **other)
    if "speculativeDecoding" not in engine.refused and engine.type != "LocalAI":
        draft = "/draft/small.gguf" if engine.type == "LlamaCpp" else "/draft/small"
        yield base_request(engine, speculation=Speculation(draft, None if engine.type == "TabbyAPI" else 6))
    for kind in engine.kv_cache_types:
        if engine.type != "LocalAI" or kind != "FP8":
            yield base_request(engine, kv_cache_type=kind)
    if "None" in engine.vendors:
        yield base_request(engine, vendor="None", gpus=0, memory_limit=Decimal(8 << 30), cpu_limit=Decimal(4))
    if "Repository" in engine.shapes:
        yield base_request(
            engine, shape="Repository", format="Safetensors", reference="org/model", model_path="", revision="main"
        )


def test_every_type_of_the_api_is_in_the_table() -> None:
    assert set(ENGINES) == set(get_args(EngineType))
    assert all(engine.type == key for key, engine in ENGINES.items())


@ENGINES_BY_NAME
def test_what_it_says_that_it_serves_it_serves(engine: Engine) -> None:
    for request in requests_of(engine):
        check_request(engine, request)
        assert engine.launch(request).command


@ENGINES_BY_NAME
@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_rendered_or_refused_with_its_reason(engine: Engine, name: FieldName) -> None:
    request = with_field(engine, name)
    if name in engine.refused:
        with pytest.raises(Stalled) as caught:
            check_request(engine, request)
        assert caught.value.reason == "UnsupportedField"
        assert f"spec.{name}" in caught.value.message
        assert engine.refused[name] in caught.value.message
        assert "or use " in caught.value.message
        return
    check_request(engine, request)
    unset: dict[FieldName, dict[str, Any]] = {
        "aliases": {"aliases": ()},
        "contextLength": {"context_length": 4096 if engine.needs_context_length else None},
        "tensorParallelSize": {"tensor_parallel_size": 1, "gpus": 1},
        "pipelineParallelSize": {"pipeline_parallel_size": None, "gpus": 1},
        "gpuMemoryUtilizationPercent": {"gpu_memory_percent": None},
        "dtype": {"dtype": None},
        "quantization": {"quantization": None},
        "kvCacheType": {"kv_cache_type": None},
        "chatTemplate": {"chat_template_path": None},
        "toolCallParser": {"tool_call_parser": None},
        "reasoningParser": {"reasoning_parser": None},
        "adapters": {"adapters": ()},
        "speculativeDecoding": {"speculation": None},
    }
    if (engine.type, name) in {("TabbyAPI", "aliases"), ("TextGenerationWebUI", "aliases"), ("SGLang", "aliases")}:
        # These answer to any name; the gateway knows the aliases.
        return
    assert engine.launch(request) != engine.launch(replace(request, **unset[name]))


@pytest.mark.parametrize("kind", FLAGS)
def test_every_generated_flag_is_known_to_the_pinned_version(kind: EngineType) -> None:
    engine = ENGINES[kind]
    known = {
        line for line in Path(__file__).with_name(FLAGS[kind]).read_text().splitlines()[1:] if line.startswith("-")
    }
    for request in requests_of(engine):
        written = {word for word in engine.command(request) if word.startswith("--")}
        assert written <= known, written - known


@pytest.mark.parametrize("kind", FLAGS)
def test_every_refused_flag_is_known_to_the_pinned_version(kind: EngineType) -> None:
    known = set(Path(__file__).with_name(FLAGS[kind]).read_text().splitlines()[1:])
    # Written by the parser itself for a switch.
    known |= {flag.replace("--", "--no-", 1) for flag in known}
    # --model is the positional one, --sidecar of SGLang is an alias.
    for group in ENGINES[kind].managed:
        assert group.flags <= known | {"--model"}, group.flags - known


@ENGINES_BY_NAME
def test_the_port_of_the_pod_is_the_one_that_it_is_told(engine: Engine) -> None:
    launch = engine.launch(base_request(engine))
    text = " ".join([*launch.command, *launch.env.values(), *launch.files.values()])
    assert str(engine.port) in text
    assert engine.port == 8080


@ENGINES_BY_NAME
def test_users_arguments_come_last_or_are_refused(engine: Engine) -> None:
    request = base_request(engine, engine_args=("--x", "1"), deployment_args=("--y",))
    if not engine.takes_args:
        with pytest.raises(Stalled, match="takes no arguments"):
            check_request(engine, request)
        return
    check_request(engine, request)
    assert engine.command(request)[-3:] == ("--x", "1", "--y")


@ENGINES_BY_NAME
def test_files_have_names_of_their_own_and_lie_where_nothing_of_the_image_does(engine: Engine) -> None:
    for request in requests_of(engine):
        files = engine.launch(request).files
        assert len({path.rpartition("/")[2] for path in files}) == len(files)
        assert all(path.startswith("/") for path in files)


@ENGINES_BY_NAME
def test_a_default_image_has_a_tag_and_stands_for_an_accelerator_that_it_knows(engine: Engine) -> None:
    for vendor, image in engine.images.items():
        assert vendor in engine.vendors
        assert ":" in image.name.rpartition("/")[2]
        assert image.note or not image.name.endswith(("latest", "cu13", ":cpu")), "a moving tag needs a note"


def test_engines_on_hugging_faces_libraries_stay_off_the_network_when_nothing_is_to_be_fetched() -> None:
    for kind in ("VLLM", "SGLang", "Aphrodite"):
        engine = ENGINES[kind]  # type: ignore[index]
        local, remote = base_request(engine), base_request(engine, shape="Repository", reference="org/m", format="AWQ")
        assert engine.launch(local).env["HF_HUB_OFFLINE"] == "1"
        assert "HF_HUB_OFFLINE" not in engine.launch(remote).env
        assert engine.launch(remote).env["HF_HOME"] == "/models/huggingface"


def test_vllm_takes_the_largest_context_that_fits_and_shares_layers_over_all_devices() -> None:
    words = " ".join(ENGINES["VLLM"].command(base_request(ENGINES["VLLM"], gpus=4)))
    assert "--max-model-len auto" in words
    assert "--tensor-parallel-size 4" in words


def test_vllm_on_the_cpu_takes_a_fixed_cache_instead_of_a_share_of_the_node() -> None:
    vllm = ENGINES["VLLM"]
    small = " ".join(vllm.command(base_request(vllm, vendor="None", gpus=0, memory_limit=Decimal(8 << 30))))
    assert f"--kv-cache-memory-bytes {2 << 30}" in small
    assert "--tensor-parallel-size" not in small


def test_sglang_is_told_the_name_of_an_adapter_without_that_of_the_model() -> None:
    sglang = ENGINES["SGLang"]
    assert "legal=/adapters/0/legal" in sglang.command(with_field(sglang, "adapters"))
    with pytest.raises(Stalled, match="rename it to m:legal"):
        check_request(sglang, base_request(sglang, adapters=(AdapterPath("legal", "/a"),)))


def test_scripts_keep_odd_names_in_one_word() -> None:
    request = base_request(ENGINES["LMStudio"], model_path="/models/d/a b'c.gguf")
    (script,) = ENGINES["LMStudio"].launch(request).files.values()
    assert """'/models/d/a b'"'"'c.gguf'""" in script


def test_ollama_pulls_from_its_library_and_creates_from_a_file() -> None:
    ollama = ENGINES["Ollama"]
    library = ollama.launch(base_request(ollama, shape="Library", reference="qwen3:8b", model_path="", aliases=("x",)))
    (script,) = library.files.values()
    assert "ollama pull qwen3:8b\nollama cp qwen3:8b m\nollama cp m x\nollama run m '' " in script
    assert library.env["OLLAMA_MODELS"] == "/models/ollama"
    file = ollama.launch(base_request(ollama))
    assert file.files["/etc/stoker/engine/Modelfile"] == "FROM /models/d/m.gguf\n"
    assert file.env["OLLAMA_MODELS"] == "/var/lib/ollama" == file.writable[0]
    with pytest.raises(Stalled, match="cannot call a model 'a@b'"):
        check_request(ollama, base_request(ollama, aliases=("a@b",)))


def test_a_custom_engine_is_what_it_says_about_itself() -> None:
    spec = {"type": "Custom", "image": "i:1", "custom": {"command": ["serve"], "port": 9000, "healthPath": "/up"}}
    engine = engine_of(InferenceEngineSpec.model_validate(spec))
    assert (engine.port, engine.ready.path, engine.metrics.running) == (9000, "/up", "")
    counting = {"command": ["s"], "metricsPath": "/m", "runningMetric": "r", "waitingMetric": "w"}
    metrics = engine_of(InferenceEngineSpec.model_validate({**spec, "custom": counting})).metrics
    assert (metrics.path, metrics.running, metrics.waiting) == ("/m", "r", "w")
    request = base_request(engine, context_length=4096, custom_command=("serve",))
    assert engine.launch(request).env["STOKER_PORT"] == "9000"
    assert engine.launch(request).env["STOKER_CONTEXT_LENGTH"] == "4096"


def test_values_of_fields_that_no_engine_knows_do_not_exist() -> None:
    assert {kind for engine in ENGINES.values() for kind in engine.kv_cache_types} == set(get_args(KVCacheType))
    assert {kind for engine in ENGINES.values() for kind in engine.quantizations} == set(get_args(Quantization))


def test_the_api_refuses_the_accelerators_that_the_table_does_not_have() -> None:
    """The CRD's rule for TabbyAPI says the same as its row."""
    only_nvidia = {engine.type for engine in ENGINES.values() if engine.vendors == frozenset({"NVIDIA"})}
    without_image = {engine.type for engine in ENGINES.values() if not engine.images}
    assert only_nvidia == {"TabbyAPI"}
    assert without_image == {"TextGenerationWebUI", "Custom"}


def test_speculation_is_said_in_each_engines_own_words() -> None:
    ngram, small = Speculation(tokens=5), Speculation("/draft/small", 5)
    vllm, sglang, llama, tabby = (ENGINES[kind] for kind in ("VLLM", "SGLang", "LlamaCpp", "TabbyAPI"))  # type: ignore[index]

    def words(engine: Engine, speculation: Speculation) -> str:
        return " ".join(engine.command(base_request(engine, speculation=speculation)))

    assert '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4}' in words(vllm, ngram)
    assert '{"model": "/draft/small", "num_speculative_tokens": 5}' in words(vllm, small)
    assert "--speculative-algorithm NGRAM --speculative-num-draft-tokens 5" in words(sglang, ngram)
    assert "--speculative-draft-model-path /draft/small --speculative-num-steps 5 --speculative-eagle-topk 1 " in words(
        sglang, small
    )
    assert "--spec-type ngram-simple --spec-ngram-simple-size-m 5" in words(llama, ngram)
    assert "--spec-draft-model /draft/s.gguf --spec-draft-n-max 4" in words(llama, Speculation("/draft/s.gguf"))
    (config,) = tabby.launch(base_request(tabby, speculation=Speculation("/draft/small"))).files.values()
    assert 'draft_model:\n  draft_mode: "model"\n  draft_model_dir: "/draft"\n  draft_model_name: "small"\n' in config


@pytest.mark.parametrize(
    ("kind", "speculation", "told"),
    [
        ("LlamaCpp", Speculation("org/small"), "needs a GGUF file as the draft"),
        ("LlamaCpp", Speculation("/draft/folder"), "needs a GGUF file as the draft"),
        ("TabbyAPI", Speculation("/draft/small", 5), "speculativeDecoding.tokens"),
        ("TabbyAPI", Speculation("org/small"), "draft.uri with hf://"),
    ],
)
def test_a_draft_that_an_engine_cannot_take_is_refused(kind: EngineType, speculation: Speculation, told: str) -> None:
    with pytest.raises(Stalled, match=re.escape(told)) as caught:
        check_request(ENGINES[kind], base_request(ENGINES[kind], speculation=speculation))
    assert caught.value.reason == "UnsupportedField"
    assert "or use VLLM or SGLang" in caught.value.message


def test_a_draft_on_the_hub_keeps_the_engine_on_the_network() -> None:
    vllm = ENGINES["VLLM"]
    assert "HF_HUB_OFFLINE" not in vllm.launch(base_request(vllm, speculation=Speculation("org/small"))).env
    assert "HF_HUB_OFFLINE" in vllm.launch(base_request(vllm, speculation=Speculation())).env


@pytest.mark.parametrize(
    ("task", "name", "backend"),
    [
        ("Image", "m", '"diffusers"'),
        ("Transcription", "m", '"faster-whisper"'),
        ("Speech", "Qwen3-TTS-12Hz-1.7B-CustomVoice", '"qwen-tts"'),
        ("Speech", "vibevoice-realtime", '"vibevoice"'),
        ("Chat", "m", '"vllm"'),
    ],
)
def test_local_ai_has_a_backend_for_each_task(task: Task, name: str, backend: str) -> None:
    local_ai = ENGINES["LocalAI"]
    request = base_request(local_ai, task=task, format="Safetensors", shape="Folder", model_path=f"/models/{name}")
    check_request(local_ai, request)
    launch = local_ai.launch(request)
    (config,) = launch.files.values()
    assert f"backend: {backend}" in config
    assert launch.env["LOCALAI_EXTERNAL_BACKENDS"] == backend.strip('"')
    if task != "Chat":
        with pytest.raises(Stalled, match=r"which cannot do spec\.contextLength"):
            check_request(local_ai, replace(request, context_length=4096))
        with pytest.raises(Stalled, match="UnsupportedSource"):
            check_request(local_ai, base_request(local_ai, task=task, model_path=f"/models/{name}.gguf"))


def test_adapters_of_llama_cpp_are_loaded_and_not_applied() -> None:
    words = " ".join(ENGINES["LlamaCpp"].command(with_field(ENGINES["LlamaCpp"], "adapters")))
    assert "--lora /adapters/0/legal.gguf,/adapters/1/law.gguf --lora-init-without-apply" in words


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("LlamaCpp", "org/law", "llama.cpp needs a GGUF file"),
        ("LlamaCpp", "/adapters/0/folder", "llama.cpp needs a GGUF file"),
        ("LlamaCpp", "/adapters/0/a,b.gguf", "without a comma"),
        ("VLLM", "/adapters/0/law.gguf", "vLLM needs a folder in PEFT's layout"),
    ],
)
def test_an_adapter_in_another_engines_form_is_refused(kind: EngineType, path: str, told: str) -> None:
    with pytest.raises(Stalled, match=told):
        check_request(ENGINES[kind], base_request(ENGINES[kind], adapters=(AdapterPath("law", path),)))
