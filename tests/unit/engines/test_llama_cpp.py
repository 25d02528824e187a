from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from stoker.engines import ENGINES, EngineRequest, check_request
from stoker.engines.base import Engine, Speculation
from stoker.engines.llama_cpp import LLAMA_CPP
from stoker.errors import Stalled

HELP = Path(__file__).with_name("llama_server_b11434.txt").read_text().splitlines()[1:]
FLAGS = frozenset(line for line in HELP if line.startswith("-"))
VARIABLES = frozenset(line for line in HELP if not line.startswith("-"))

PLAIN = EngineRequest(served_name="m", model_path="/models/d/m.gguf", engine_name="e", deployment_name="d")
EVERYTHING = replace(
    PLAIN,
    aliases=("gpt-4o", "default"),
    context_length=4096,
    slots=100,
    vendor="NVIDIA",
    gpus=2,
    cpu_limit=Decimal("3.5"),
    memory_limit=Decimal(8 * 2**30),
    chat_template_path="/etc/t.jinja",
)  # fmt: skip


def command(request: EngineRequest) -> list[str]:
    return list(LLAMA_CPP.command(request))


def value_of(flag: str, request: EngineRequest) -> str | None:
    words = command(request)
    return words[words.index(flag) + 1] if flag in words else None


def refusal(request: EngineRequest) -> Stalled:
    with pytest.raises(Stalled) as caught:
        check_request(LLAMA_CPP, request)
    return caught.value


def _server() -> Path | None:
    cache = Path(os.environ.get("STOKER_CACHE", Path.home() / ".cache" / "stoker"))
    return next(iter(sorted((cache / "llama").glob("*/llama-server"))), None)


@pytest.mark.skipif(_server() is None, reason="llama-server has not been built here")
def test_every_generated_command_is_taken_by_the_real_server(tmp_path: Path) -> None:
    """Its parser comes first: with a model that is not there, it ends where it would open it, and not before."""
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    vocabulary = [
        {"aliases": ("a", "b"), "context_length": 4096, "slots": 3},
        {"cpu_limit": Decimal(1), "memory_limit": Decimal(8 << 30)},
        {"task": "Embedding", "context_length": 512},
        {"task": "Rerank"},
        {"chat_template_path": str(template), "reasoning_parser": "deepseek"},
        {"speculation": Speculation(tokens=5)},
        {"speculation": Speculation("/draft/small.gguf", 5)},
        {"vendor": "NVIDIA", "gpus": 1},
        {"vendor": "NVIDIA", "gpus": 0},
        *({"kv_cache_type": kind} for kind in LLAMA_CPP.kv_cache_types),
    ]
    for fields in vocabulary:
        request = replace(PLAIN, model_path=str(tmp_path / "absent.gguf"), **fields)  # type: ignore[arg-type]
        words = [str(_server()), *command(request)[1:]]
        words[words.index("0.0.0.0")] = "127.0.0.1"
        # A port of its own choosing, so that tests may run side by side.
        words[words.index("8080")] = "0"
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert "failed to open GGUF file" in done.stdout + done.stderr, (fields, (done.stdout + done.stderr)[-500:])


def test_it_is_in_the_table_of_engines() -> None:
    assert ENGINES["LlamaCpp"] is LLAMA_CPP


def test_images_are_of_one_build_for_each_accelerator() -> None:
    repository = "ghcr.io/ggml-org/llama.cpp"
    assert LLAMA_CPP.image("None") == f"{repository}:server-b11434"
    assert LLAMA_CPP.image("NVIDIA") == f"{repository}:server-cuda-b11434"
    assert LLAMA_CPP.image("AMD") == f"{repository}:server-rocm-b11434"
    assert LLAMA_CPP.image("Intel") == f"{repository}:server-intel-b11434"


@pytest.mark.parametrize("request_", [PLAIN, EVERYTHING, replace(EVERYTHING, task="Embedding", gpus=0)])
def test_every_generated_flag_is_known_to_the_pinned_build(request_: EngineRequest) -> None:
    written = {word for word in command(request_) if word.startswith("-")}
    assert written <= FLAGS


def test_every_managed_flag_and_variable_is_known_to_the_pinned_build() -> None:
    for group in LLAMA_CPP.managed:
        assert group.flags <= FLAGS
        assert group.env - {"AIP_MODE"} <= VARIABLES


def test_generated_flags_are_managed_or_may_be_overridden_on_purpose() -> None:
    managed = frozenset().union(*(group.flags for group in LLAMA_CPP.managed))
    written = {word for word in command(EVERYTHING) + command(replace(PLAIN, task="Embedding")) if word.startswith("-")}
    assert written - managed == {
        "--threads", "--cache-ram", "--batch-size", "--ubatch-size", "--threads-http", "--sse-ping-interval",
    }  # fmt: skip


def test_only_managed_flags_are_refused_of_all_that_the_build_knows() -> None:
    active = frozenset().union(*(group.flags for group in LLAMA_CPP.managed if group.when(EVERYTHING)))
    refused = {flag for flag in FLAGS if is_refused(replace(EVERYTHING, deployment_args=(flag,)))}
    assert refused == active


def test_it_serves_the_name_and_all_aliases() -> None:
    assert value_of("--alias", EVERYTHING) == "m,gpt-4o,default"


def test_each_request_gets_the_context_length_that_was_asked_for() -> None:
    asked = replace(PLAIN, context_length=4096, slots=3)
    assert value_of("--ctx-size", asked) == str(3 * 4096)
    assert "--no-kv-unified" in command(asked)


def test_without_a_context_length_requests_share_what_the_model_was_trained_with() -> None:
    assert value_of("--ctx-size", PLAIN) == "0"
    assert "--kv-unified" in command(PLAIN)


def test_all_layers_go_to_the_gpus_and_none_where_there_are_none() -> None:
    assert value_of("--gpu-layers", EVERYTHING) == "all"
    assert value_of("--gpu-layers", replace(EVERYTHING, gpus=0)) == "0"
    assert value_of("--gpu-layers", PLAIN) is None


@pytest.mark.parametrize(("limit", "threads"), [(None, None), ("3.5", "3"), ("0.2", "1"), ("8", "8")])
def test_threads_follow_the_cpu_limit(limit: str | None, threads: str | None) -> None:
    assert value_of("--threads", replace(PLAIN, cpu_limit=Decimal(limit) if limit else None)) == threads


def test_kept_prompts_stay_well_below_the_memory_limit() -> None:
    assert value_of("--cache-ram", replace(PLAIN, memory_limit=Decimal(2**30))) == "128"
    assert value_of("--cache-ram", PLAIN) is None


def test_an_embedding_input_fits_into_one_batch() -> None:
    embedding = replace(PLAIN, task="Embedding", context_length=8192)
    assert "--embeddings" in command(embedding)
    assert value_of("--batch-size", embedding) == value_of("--ubatch-size", embedding) == "8192"
    assert value_of("--ubatch-size", replace(embedding, context_length=None)) == "2048"
    assert "--embeddings" not in command(PLAIN)


def test_a_chat_template_is_read_from_its_file() -> None:
    assert value_of("--chat-template-file", EVERYTHING) == "/etc/t.jinja"
    assert "--jinja" in command(EVERYTHING)


def test_probes_find_a_free_thread_however_many_requests_wait() -> None:
    assert value_of("--threads-http", PLAIN) == "64"
    assert value_of("--threads-http", EVERYTHING) == "416"


def test_users_arguments_come_last_and_the_models_after_the_engines() -> None:
    request = replace(PLAIN, engine_args=("--threads", "1"), deployment_args=("--threads", "2"))
    assert command(request)[-4:] == ["--threads", "1", "--threads", "2"]


def test_it_serves_every_task_there_is() -> None:
    for task in ("Chat", "Completion", "Embedding"):
        check_request(LLAMA_CPP, replace(PLAIN, task=task))


def test_a_task_that_an_engine_cannot_serve_is_refused() -> None:
    chat_only: Engine = replace(LLAMA_CPP, tasks=frozenset({"Chat"}))
    with pytest.raises(Stalled) as caught:
        check_request(chat_only, replace(PLAIN, task="Embedding"))
    assert caught.value.reason == "UnsupportedTask"
    assert "set spec.task to one of Chat" in caught.value.message


def test_gpus_on_an_engine_without_accelerator_are_refused() -> None:
    error = refusal(replace(PLAIN, gpus=1))
    assert error.reason == "UnsupportedField"
    assert "remove spec.gpus" in error.message


@pytest.mark.parametrize(
    "argument",
    ["--port", "--port=1", "--api-key=x", "--api_key", "--api-key-file", "-m", "-a", "-np", "--no-slots", "--tools=all", "-ag",
     "--hf-repo", "-hf", "--models-preset", "--ssl-cert-file", "--embedding", "--reranking", "--metrics", "--por", "--ali",
     "--mode", "--gpt-oss-20b-default"],
)  # fmt: skip
def test_managed_flags_are_refused_however_they_are_written(argument: str) -> None:
    for request in (replace(PLAIN, deployment_args=("--temp", "0", argument)), replace(PLAIN, engine_args=(argument,))):
        assert refusal(request).reason == "ManagedArgument"


def test_a_refusal_says_where_it_stands_and_what_to_do_instead() -> None:
    message = refusal(replace(PLAIN, engine_args=("--alias=x",))).message
    assert message == (
        "InferenceEngine e sets --alias in spec.args, which Stoker manages: remove it; "
        "set spec.servedModelName and spec.aliases of the ModelDeployment"
    )
    assert refusal(replace(PLAIN, deployment_args=("--slots",))).message.startswith("ModelDeployment d sets --slots")


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        ("-c", {"context_length": 1024}),
        ("--kv_unified", {"context_length": 1024}),
        ("--jinja", {"chat_template_path": "/t"}),
    ],
)
def test_a_flag_is_refused_only_while_its_field_is_set(flag: str, field: dict[str, object]) -> None:
    request = replace(PLAIN, deployment_args=(flag,))
    check_request(LLAMA_CPP, request)
    assert refusal(replace(request, **field)).reason == "ManagedArgument"  # type: ignore[arg-type]


def test_partial_offload_is_the_users_choice_where_there_is_a_gpu() -> None:
    request = replace(PLAIN, deployment_args=("-ngl", "20"))
    check_request(LLAMA_CPP, replace(request, vendor="NVIDIA", gpus=1))
    assert "spec.gpus" in refusal(request).message


@pytest.mark.parametrize("value", ["-1", "-0.5", "-1e-3", "-", "--", "m", "a=--port"])
def test_values_are_not_taken_for_flags(value: str) -> None:
    check_request(LLAMA_CPP, replace(PLAIN, deployment_args=("--seed", value)))


@pytest.mark.parametrize(
    "name",
    ["LLAMA_ARG_PORT", "LLAMA_API_KEY", "LLAMA_ARG_NO_ENDPOINT_SLOTS", "LLAMA_ARG_ALIAS", "AIP_HTTP_PORT", "AIP_MODE"],
)
def test_variables_that_stand_for_managed_flags_are_refused(name: str) -> None:
    for request in (replace(PLAIN, engine_env=(name,)), replace(PLAIN, deployment_env=("HF_TOKEN", name))):
        error = refusal(request)
        assert error.reason == "ManagedArgument"
        assert f"sets {name} in spec.env" in error.message


def test_other_variables_are_the_users() -> None:
    check_request(LLAMA_CPP, replace(PLAIN, deployment_env=("LLAMA_ARG_CTX_SIZE", "HF_TOKEN", "LLAMA_ARG_THREADS")))


def is_refused(request: EngineRequest) -> bool:
    try:
        check_request(LLAMA_CPP, request)
    except Stalled:
        return True
    return False
