"""Fakes of engines that cannot run here: only their HTTP edge, with the answers that their documentation tells.

Each speaks about one model under one name and has the states loading, ready, and up without a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unit.agent.loopback import Answer, LoopbackServer


@dataclass
class State:
    """What a test sets."""

    model: str = "smollm2"
    loaded: bool = True
    running: int = 0
    waiting: int = 0


def fake_ollama(state: State, path: str) -> Answer:
    """Up at once; /api/ps lists what is loaded. No metrics."""
    if path == "/":
        return 200, "Ollama is running"
    if path == "/api/ps":
        entry = {"name": f"{state.model}:latest", "model": f"{state.model}:latest", "size": 1, "size_vram": 1}
        return 200, json.dumps({"models": [entry] if state.loaded else []})
    return 404, "404 page not found"


def fake_tabby_api(state: State, path: str) -> Answer:
    """Listens after the load; /v1/model says what is loaded. No metrics."""
    if path == "/.well-known/serviceinfo":
        return 200, json.dumps({"version": 0.1, "software": {"name": "TabbyAPI"}})
    if path == "/v1/model":
        if not state.loaded:
            return 400, json.dumps({"detail": "No models are currently loaded."})
        return 200, json.dumps({"id": "Qwen3-exl3", "object": "model", "parameters": {"max_seq_len": 4096}})
    return 404, json.dumps({"detail": "Not Found"})


def fake_local_ai(state: State, path: str) -> Answer:
    """/readyz is 503 until the start is over; /healthz never is."""
    if path == "/healthz":
        return 200, "OK"
    if path == "/readyz":
        return (200, "OK") if state.loaded else (503, "starting")
    return 404, "{}"


def fake_text_generation_webui(state: State, path: str) -> Answer:
    """Comes up without a model when the load failed: model_name is then the text None."""
    if path == "/v1/internal/health":
        return 200, json.dumps({"status": "ok"})
    if path == "/v1/internal/model/info":
        return 200, json.dumps({"model_name": "Qwen3-8B" if state.loaded else "None", "lora_names": []})
    return 404, json.dumps({"detail": "Not Found"})


def fake_lm_studio(state: State, path: str) -> Answer:
    """Answers 200 to paths that it does not know."""
    if path == "/lmstudio-greeting":
        return 200, json.dumps({"lmstudio": True})
    if path == f"/api/v0/models/{state.model}":
        return 200, json.dumps({"id": state.model, "type": "llm", "state": "loaded" if state.loaded else "not-loaded"})
    return 200, json.dumps({"error": f"Unexpected endpoint or method. (GET {path})"})


def _vllm_metrics(prefix: str, state: State) -> str:
    labels = f'{{engine="0",model_name="{state.model}"}}'
    bucket = f'{prefix}:time_to_first_token_seconds_bucket{{engine="0",le="%s",model_name="{state.model}"}} %s\n'
    between = f'{prefix}:inter_token_latency_seconds_bucket{{engine="0",le="%s",model_name="{state.model}"}} %s\n'
    return (
        f"# TYPE {prefix}:num_requests_running gauge\n"
        f"{prefix}:num_requests_running{labels} {state.running}\n"
        f"{prefix}:num_requests_waiting{labels} {state.waiting}\n"
        f'{prefix}:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 99\n'
        f"{prefix}:kv_cache_usage_perc{labels} 0.25\n"
        f"{prefix}:prompt_tokens_total{labels} 120.0\n"
        f"{prefix}:prompt_tokens_created{labels} 1.7e9\n"
        f"{prefix}:generation_tokens_total{labels} 4567.0\n"
        + "".join(bucket % pair for pair in (("0.1", "3.0"), ("1.0", "8.0"), ("+Inf", "9.0")))
        + f"{prefix}:time_to_first_token_seconds_count{labels} 9.0\n{prefix}:time_to_first_token_seconds_sum{labels} 4.5\n"
        + "".join(between % pair for pair in (("0.01", "50.0"), ("+Inf", "60.0")))
        + f"{prefix}:inter_token_latency_seconds_count{labels} 60.0\n{prefix}:inter_token_latency_seconds_sum{labels} 0.9\n"
    )


def fake_vllm(state: State, path: str, prefix: str = "vllm") -> Answer:
    """Does not listen while it loads; a test stops the fake for that."""
    if path == "/health":
        return (200, "") if state.loaded else (503, "")
    if path == "/metrics":
        return 200, _vllm_metrics(prefix, state)
    return 404, json.dumps({"detail": "Not Found"})


def fake_aphrodite(state: State, path: str) -> Answer:
    """vLLM under another name."""
    return fake_vllm(state, path, "aphrodite")


def fake_sglang(state: State, path: str) -> Answer:
    """503 until it is warm, and while it drains."""
    if path == "/health":
        return (200, "") if state.loaded else (503, "")
    if path == "/metrics":
        labels = f'{{engine_type="unified",model_name="{state.model}",moe_ep_rank="0",pp_rank="0",tp_rank="0"}}'
        return 200, (
            f"sglang:num_running_reqs{labels} {state.running}.0\nsglang:num_queue_reqs{labels} {state.waiting}.0\n"
            f"sglang:token_usage{labels} 0.5\nsglang:prompt_tokens_total{labels} 120.0\n"
            f"sglang:generation_tokens_total{labels} 4567.0\n"
        )
    return 404, "{}"


FAKES: dict[str, Callable[[State, str], Answer]] = {
    "VLLM": fake_vllm,
    "Ollama": fake_ollama,
    "TabbyAPI": fake_tabby_api,
    "Aphrodite": fake_aphrodite,
    "LocalAI": fake_local_ai,
    "TextGenerationWebUI": fake_text_generation_webui,
    "LMStudio": fake_lm_studio,
    "SGLang": fake_sglang,
}


class FakeEngine(LoopbackServer):
    """One of the fakes behind a port of the loopback."""

    def __init__(self, answer: Callable[[State, str], Answer]) -> None:
        super().__init__()
        self.answer = answer
        self.state = State()

    async def respond(self, path: str, head: bytes) -> Answer:
        return self.answer(self.state, path)


def row_of(engine: Any, port: int, **fields: Any) -> dict[str, str]:
    """The environment that the operator writes for an agent beside this engine."""
    ready, metrics = engine.ready.of("smollm2"), engine.metrics
    row = {
        "model": "smollm2",
        "engine": engine.type,
        "enginePort": port,
        "healthPath": ready.path,
        "readyItems": ready.items,
        "readyKey": ready.key,
        "readyEquals": list(ready.equals),
        "readyDiffers": list(ready.differs),
        "metricsPath": metrics.path,
        "runningMetric": metrics.running,
        "waitingMetric": metrics.waiting,
        "promptTokensMetric": metrics.prompt_tokens,
        "completionTokensMetric": metrics.completion_tokens,
        "kvCacheUsedMetric": metrics.kv_cache_used,
        "timeToFirstTokenMetric": metrics.time_to_first_token,
        "interTokenLatencyMetric": metrics.inter_token_latency,
        "host": "127.0.0.1",
        "port": 0,
        "intervalSeconds": 0.05,
        "timeoutSeconds": 0.5,
        **fields,
    }
    return {"STOKER_AGENT": json.dumps({name: value for name, value in row.items() if value not in ("", [])})}
