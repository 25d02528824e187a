"""Fakes of engines that cannot run here: each answers what its documentation tells, refuses flags and settings that it does not
know, and ends as its maker says. Started under the names of the real commands; see programs.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from serving import (
    PORT,
    TOKEN_BOUNDS,
    TTFT_BOUNDS,
    Answer,
    Engine,
    LoadError,
    Model,
    error,
    histogram,
    listen,
    load_model,
    on_end_signal,
    refuse_unknown,
    serve,
    sleep_on,
    value_of,
    values_of,
)

HERE = Path(__file__).parent
CONFIG_OF_TABBY = {
    "network": {"host", "port", "disable_auth", "api_servers"},
    "logging": {"log_prompt", "log_generation_params", "log_requests"},
    "model": {"model_dir", "model_name", "inline_model_loading", "max_seq_len", "cache_size", "max_batch_size"}
    | {"tensor_parallel", "cache_mode", "prompt_template", "tool_format"},
    "draft_model": {"draft_mode", "draft_model_dir", "draft_model_name"},
}
FLAGS_OF_TEXTGEN = {"--nowebui", "--api", "--listen", "--api-port", "--model-dir", "--model", "--loader", "--ctx-size"} | {
    "--parallel", "--gpu-layers", "--enable-tp", "--cache-type", "--load-in-8bit", "--load-in-4bit", "--chat-template-file",
    "--extra-flags",
}  # fmt: skip
SETTINGS_OF_LOCAL_AI = {
    "ADDRESS", "MODELS_PATH", "MODELS_CONFIG_FILE", "BACKENDS_PATH", "DATA_PATH", "CONFIG_DIR", "EXTERNAL_BACKENDS", "LOAD_TO_MEMORY",
    "MAX_ACTIVE_BACKENDS", "ALLOW_INSECURE_PUBLIC_BIND", "DISABLE_WEBUI", "DISABLE_AGENTS", "DISABLE_MCP", "DISABLE_GALLERY_ENDPOINT",
    "DISABLE_RUNTIME_SETTINGS",
}  # fmt: skip
MODEL_OF_LOCAL_AI = {"name", "backend", "parameters", "context_size", "options", "gpu_layers", "template", "threads"} | {
    "cache_type_k", "cache_type_v", "flash_attention", "embeddings", "reranking",
    "draft_model", "mmproj", "quantization", "load_format", "gpu_memory_utilization", "max_model_len", "tensor_parallel_size", "dtype", "f16",
    "engine_args", "diffusers", "known_usecases",
}  # fmt: skip


def flags_of(name: str) -> set[str]:
    """The recorded flags of a version; the first line says where they are from."""
    known = set((HERE / "flags" / name).read_text().splitlines()[1:])
    return known | {flag.replace("--", "--no-", 1) for flag in known}


class VLLM(Engine):
    """Listens when the model is loaded. At SIGTERM it finishes what runs, for as long as --shutdown-timeout says."""

    knows_other_names = False

    def __init__(self, prefix: str, words: list[str]) -> None:
        adapters = [module.partition("=")[0] for module in values_of(words, "--lora-modules")]
        names = values_of(words, "--served-model-name") + adapters
        self.prefix = prefix
        self.model = Model(*names, slots=int(value_of(words, "--max-num-seqs", "256")))
        self.seconds = float(value_of(words, "--shutdown-timeout", "0"))

    def get(self, path: str) -> Answer:
        if path == "/health":
            return 200, ""
        return (200, self.metrics()) if path == "/metrics" else super().get(path)

    def refuse(self, body: dict[str, Any]) -> Answer | None:
        if self.stopping:
            return error(500, "cannot schedule new futures after shutdown")
        return super().refuse(body)

    def stop(self) -> None:
        self.stopping = True
        self.finish(self.seconds)

    def metrics(self) -> str:
        model, prefix = self.model, self.prefix
        labels = f'engine="0",model_name="{model.names[0]}"'
        return (
            f"{prefix}:num_requests_running{{{labels}}} {model.running}.0\n"
            f"{prefix}:num_requests_waiting{{{labels}}} {model.waiting}.0\n"
            f'{prefix}:num_requests_waiting_by_reason{{{labels},reason="capacity"}} {model.waiting}.0\n'
            f"{prefix}:kv_cache_usage_perc{{{labels}}} {0.25 if model.running else 0.0}\n"
            f"{prefix}:prompt_tokens_total{{{labels}}} {model.prompt_tokens}.0\n"
            f"{prefix}:generation_tokens_total{{{labels}}} {model.completion_tokens}.0\n"
            + histogram(f"{prefix}:time_to_first_token_seconds", labels, TTFT_BOUNDS, model.first_tokens)
            + histogram(f"{prefix}:inter_token_latency_seconds", labels, TOKEN_BOUNDS, model.between_tokens)
        )


def vllm(words: list[str], prefix: str, flags: str) -> NoReturn:
    refuse_unknown(words, flags_of(flags), prefix)
    must_exist(words[1])
    serve(VLLM(prefix, words), listen_first=False)


class SGLang(VLLM):
    """/health is 503 until it is warm and again while it drains; at SIGTERM it finishes everything."""

    knows_other_names = True

    def __init__(self, words: list[str]) -> None:
        self.model = Model(
            value_of(words, "--served-model-name"), slots=int(value_of(words, "--max-running-requests", "32"))
        )
        self.has_metrics = "--enable-metrics" in words
        self.seconds = 3600

    def get(self, path: str) -> Answer:
        if path == "/health":
            return (200 if self.model.loaded and not self.stopping else 503), ""
        if path == "/metrics" and not self.has_metrics:
            return Engine.get(self, path)
        return super().get(path)

    def metrics(self) -> str:
        model = self.model
        labels = f'engine_type="unified",model_name="{model.names[0]}",moe_ep_rank="0",pp_rank="0",tp_rank="0"'
        return (
            f"sglang:num_running_reqs{{{labels}}} {model.running}.0\n"
            f"sglang:num_queue_reqs{{{labels}}} {model.waiting}.0\n"
            f"sglang:token_usage{{{labels}}} {0.5 if model.running else 0.0}\n"
            f"sglang:prompt_tokens_total{{{labels}}} {model.prompt_tokens}.0\n"
            f"sglang:generation_tokens_total{{{labels}}} {model.completion_tokens}.0\n"
            + histogram("sglang:time_to_first_token_seconds", labels, TTFT_BOUNDS, model.first_tokens)
            + histogram("sglang:inter_token_latency_seconds", labels, TOKEN_BOUNDS, model.between_tokens)
        )


def sglang(words: list[str]) -> NoReturn:
    refuse_unknown(words, flags_of("sglang_0.5.23.txt"), "launch_server.py")
    must_exist(value_of(words, "--model-path"))
    serve(SGLang(words), listen_first=True)


class TabbyAPI(Engine):
    """Listens when the model is loaded; its folder's name is the only one that it knows, and it takes any. No metrics.

    At SIGTERM uvicorn waits for open answers. /health would keep 503 for ever after one failed answer.
    """

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = Model(model["model_name"], slots=model["max_batch_size"])

    def get(self, path: str) -> Answer:
        if path == "/.well-known/serviceinfo":
            return 200, json.dumps({"version": 0.1, "software": {"name": "TabbyAPI"}})
        if path == "/health":
            return 200, json.dumps({"status": "healthy", "issues": []})
        if path == "/v1/model":
            return 200, json.dumps({"id": self.model.names[0], "object": "model", "parameters": {}})
        return super().get(path)

    def stop(self) -> None:
        self.finish(3600)


def tabby_api(words: list[str]) -> NoReturn:
    """Reads config.yml where it is started."""
    config = read_sections(Path("config.yml").read_text())
    for section, fields in config.items():
        if unknown := fields.keys() - CONFIG_OF_TABBY.get(section, set()):
            sys.exit(f"config.yml: {section} has no {', '.join(sorted(unknown))}")
    if config["network"]["port"] != PORT or config["network"]["host"] != "0.0.0.0":
        sys.exit("nobody would find it")
    must_exist(f"{config['model']['model_dir']}/{config['model']['model_name']}")
    serve(TabbyAPI(config["model"]), listen_first=False)


class TextGenerationWebUI(Engine):
    """A load that fails leaves a server without a model, whose name is then the text None; /health says ok all the same."""

    def __init__(self, words: list[str]) -> None:
        self.model = Model(value_of(words, "--model"), slots=int(value_of(words, "--parallel", "1")))

    def get(self, path: str) -> Answer:
        if path == "/v1/internal/health":
            return 200, json.dumps({"status": "ok"})
        if path == "/v1/internal/model/info":
            name = self.model.names[0] if self.model.loaded else "None"
            return 200, json.dumps({"model_name": name, "lora_names": []})
        return super().get(path)


def text_generation_webui(words: list[str]) -> NoReturn:
    refuse_unknown(words, FLAGS_OF_TEXTGEN, "server.py")
    if not {"--api", "--listen"} <= set(words) or value_of(words, "--api-port") != str(PORT):
        sys.exit("nobody would find it")
    engine = TextGenerationWebUI(words)
    on_end_signal(engine.stop)
    try:
        must_exist(f"{value_of(words, '--model-dir')}/{value_of(words, '--model')}")
        load_model()
        engine.model.loaded = True
    except LoadError:
        print("Failed to load the model.", flush=True)
    listen(engine)
    sleep_on()


class LocalAI(Engine):
    """The port opens when the start is nearly over, then /readyz is 503 until it is; /healthz is 200. No useful metrics."""

    def get(self, path: str) -> Answer:
        if path == "/healthz":
            return 200, "OK"
        if path == "/readyz":
            return (200, "OK") if self.model.loaded else (503, json.dumps({"status": "starting"}))
        return super().get(path)


def local_ai(_: list[str]) -> NoReturn:
    """Settings by environment, models by a file."""
    given = {name.removeprefix("LOCALAI_"): value for name, value in os.environ.items() if name.startswith("LOCALAI_")}
    if unknown := given.keys() - SETTINGS_OF_LOCAL_AI:
        sys.exit(f"unknown settings: {unknown}")
    for folder in ("BACKENDS_PATH", "DATA_PATH", "CONFIG_DIR"):
        # What it fetches and keeps.
        (Path(given[folder]) / "written").touch()
    lines = [line[2:] for line in Path(given["MODELS_CONFIG_FILE"]).read_text().splitlines() if line[:1] in "- "]
    model = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines)}
    if unknown := model.keys() - MODEL_OF_LOCAL_AI:
        sys.exit(f"unknown fields: {unknown}")
    must_exist(f"{given['MODELS_PATH']}/{model['parameters']['model']}")
    if given["ADDRESS"] != f":{PORT}" or given["LOAD_TO_MEMORY"] != model["name"]:
        sys.exit("it would not be ready when it says so")
    (slots,) = (option.partition(":")[2] for option in model["options"] if option.startswith("parallel:"))
    engine = LocalAI()
    engine.model = Model(model["name"], slots=int(slots))
    serve(engine, listen_first=True)


def must_exist(path: str) -> None:
    if not Path(path).exists():
        sys.exit(f"{path}: no such file or directory")


def read_sections(text: str) -> dict[str, dict[str, Any]]:
    """YAML of one depth whose values are JSON."""
    sections: dict[str, dict[str, Any]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("  "):
            key, _, value = line.strip().partition(": ")
            sections[name][key] = json.loads(value)
        elif line and not line.startswith("#"):
            name = line.removesuffix(":")
            sections[name] = {}
    return sections
