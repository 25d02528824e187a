"""What the pod template tells the agent: its engine's row, as JSON in STOKER_AGENT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

CONFIG_VARIABLE = "STOKER_AGENT"
KEY_VARIABLE = "STOKER_AGENT_ENGINE_KEY"
"""Kept apart, because it comes from a Secret."""


class ConfigError(Exception):
    """The row cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class AgentConfig:
    """Empty strings stand for what an engine does not offer."""

    model: str
    engine_port: int
    engine: str = ""
    engine_key: str = ""
    """What the engine asks for."""
    health_path: str = "/health"
    """Answers 200 when the model is loaded; where that says too little, the next four say what its JSON body must hold."""
    ready_items: str = ""
    ready_key: str = ""
    ready_equals: tuple[str, ...] = ()
    ready_differs: tuple[str, ...] = ()
    metrics_path: str = ""
    running_metric: str = ""
    waiting_metric: str = ""
    prompt_tokens_metric: str = ""
    completion_tokens_metric: str = ""
    kv_cache_used_metric: str = ""
    time_to_first_token_metric: str = ""
    inter_token_latency_metric: str = ""
    drain_timeout_seconds: float = 300.0
    progress_file: str = "/run/stoker/progress.json"
    host: str = "0.0.0.0"  # noqa: S104 - kubelet, operator and Prometheus call from outside the pod
    port: int = 9100
    engine_host: str = "127.0.0.1"
    interval_seconds: float = 2.0
    timeout_seconds: float = 5.0
    """Longer than the interval: a llama.cpp in a burst has been seen to answer its metrics late."""

    @property
    def counts_requests(self) -> bool:
        """Whether the engine tells how many requests it has."""
        return bool(self.metrics_path and self.running_metric)


FIELDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "model": ("model", str),
    "engine": ("engine", str),
    "enginePort": ("engine_port", int),
    "healthPath": ("health_path", str),
    "readyItems": ("ready_items", str),
    "readyKey": ("ready_key", str),
    "readyEquals": ("ready_equals", list),
    "readyDiffers": ("ready_differs", list),
    "metricsPath": ("metrics_path", str),
    "runningMetric": ("running_metric", str),
    "waitingMetric": ("waiting_metric", str),
    "promptTokensMetric": ("prompt_tokens_metric", str),
    "completionTokensMetric": ("completion_tokens_metric", str),
    "kvCacheUsedMetric": ("kv_cache_used_metric", str),
    "timeToFirstTokenMetric": ("time_to_first_token_metric", str),
    "interTokenLatencyMetric": ("inter_token_latency_metric", str),
    "drainTimeoutSeconds": ("drain_timeout_seconds", (int, float)),
    "progressFile": ("progress_file", str),
    "host": ("host", str),
    "port": ("port", int),
    "engineHost": ("engine_host", str),
    "intervalSeconds": ("interval_seconds", (int, float)),
    "timeoutSeconds": ("timeout_seconds", (int, float)),
}


def parse_config(environment: Mapping[str, str]) -> AgentConfig:
    """Unknown fields are ignored: an agent may be older than the operator that writes its row."""
    try:
        row = json.loads(environment.get(CONFIG_VARIABLE, ""))
    except ValueError as error:
        raise ConfigError(f"{CONFIG_VARIABLE} holds no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{CONFIG_VARIABLE} holds no JSON object")
    values: dict[str, Any] = {}
    for key, (name, kind) in FIELDS.items():
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{CONFIG_VARIABLE}: {key} is {value!r}")
        values[name] = tuple(map(str, value)) if isinstance(value, list) else value
    for key in ("model", "enginePort"):
        if FIELDS[key][0] not in values:
            raise ConfigError(f"{CONFIG_VARIABLE}: {key} is missing")
    key = environment.get(KEY_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(f"{KEY_VARIABLE} holds what no header may carry")
    config = AgentConfig(**values, engine_key=key)
    if config.ready_key and not (config.ready_equals or config.ready_differs):
        config = replace(config, ready_differs=("",))
    for path in (config.health_path, config.metrics_path):
        if path and (not path.startswith("/") or any(character <= " " or character > "~" for character in path)):
            raise ConfigError(f"{CONFIG_VARIABLE}: {path!r} is no path")
    return config
