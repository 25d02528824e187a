"""Rows of text from objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stoker.api import ApiGateway, ApiKey, InferenceEngine, ModelDeployment
from stoker.cli.tables import (
    advice,
    engine_table,
    gateway_table,
    key_table,
    model_table,
    without_namespace,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def condition(type_: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def model(name: str = "qwen", **status: Any) -> ModelDeployment:
    spec = {"engineRef": {"name": "vllm"}, "source": {"uri": "hf://Qwen/Qwen3-8B"}}
    return ModelDeployment.model_validate(
        {"metadata": {"name": name, "namespace": "team"}, "spec": spec, "status": status}
    )


def api_key(status: dict[str, Any] | None = None, **spec: Any) -> ApiKey:
    given = {"gatewayRef": {"name": "gateway"}, **spec}
    return ApiKey.model_validate(
        {"metadata": {"name": "alice", "namespace": "team"}, "spec": given, "status": status or {}}
    )


def test_a_model_shows_its_engine_its_state_and_what_goes_on() -> None:
    ready = [condition("Ready", "True", "Serving")]
    scaling = {"reason": "Queue", "message": "2 → 4: 31 waiting"}
    seen = model(
        engine="vllm",
        conditions=ready,
        readyReplicas=2,
        desiredReplicas=4,
        autoscaling=scaling,
        fit={"contextLength": 8192, "requiredBytes": 1},
    )
    assert model_table([seen]).rows == (("team", "qwen", "vllm", "Serving", "2/4", "8192", "2 → 4: 31 waiting"),)


def test_a_running_download_is_what_goes_on() -> None:
    download = {"file": "a.gguf", "completedBytes": 1_500_000_000, "totalBytes": 4_000_000_000}
    assert model_table([model(download=download)]).rows[0][-1] == "downloading 1.5 of 4.0 GB"
    assert model_table([model(download={"completedBytes": 0})]).rows[0][-1] == "downloading 0.0 GB"


def test_a_model_that_nobody_has_looked_at_is_unseen() -> None:
    assert model_table([model()]).rows == (("team", "qwen", "vllm", "Unseen", "0/0", "-", "-"),)


def test_a_gateway_shows_where_it_is_and_how_many_models_sleep() -> None:
    status = {
        "url": "https://llm.example.com/v1",
        "readyReplicas": 2,
        "keys": 7,
        "models": {"total": 3, "ready": 1, "sleeping": 2},
        "conditions": [condition("Ready", "True", "Serving")],
    }
    seen = ApiGateway.model_validate(
        {"metadata": {"name": "gateway", "namespace": "team"}, "spec": {}, "status": status}
    )
    assert without_namespace(gateway_table([seen])).rows == (
        ("gateway", "Serving", "2/2", "1 of 3, 2 asleep", "7", "https://llm.example.com/v1", "-"),
    )


def test_an_engine_shows_its_type_and_its_models() -> None:
    seen = InferenceEngine.model_validate(
        {"metadata": {"name": "vllm", "namespace": "team"}, "spec": {"type": "VLLM"}, "status": {"models": 3}}
    )
    assert engine_table([seen]).rows == (("team", "vllm", "VLLM", "Unseen", "3"),)


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        (timedelta(days=30), "in 30d"),
        (timedelta(hours=47), "in 47h"),
        (timedelta(minutes=119), "in 119m"),
        (timedelta(seconds=90), "in 90s"),
        (timedelta(0), "expired"),
        (None, "never"),
    ],
)
def test_a_key_shows_how_long_it_lasts(left: timedelta | None, shown: str) -> None:
    spec = {} if left is None else {"expiresAt": NOW + left}
    table = key_table([api_key(**spec)], NOW)
    assert table.rows[0][table.titles.index("EXPIRES")] == shown


def test_a_key_shows_whose_it_is_and_what_it_has_used() -> None:
    status = {
        "conditions": [condition("Ready", "True", "Active")],
        "lastUsedTime": NOW - timedelta(minutes=5),
        "usage": {"requests": 3, "promptTokens": 40, "completionTokens": 2},
    }
    seen = api_key(status, owner="alice@example.com", role="user", models=["qwen*", "gemma"])
    expected = ("team", "alice", "gateway", "alice@example.com", "user", "qwen*,gemma", "Active", "never", "5m ago")
    assert key_table([seen], NOW).rows == ((*expected, "3", "42"),)


def test_each_cause_is_told_once_and_what_is_well_says_nothing() -> None:
    away = condition("Ready", "False", "EngineNotFound", "create it")
    sick = model("sick", conditions=[away, condition("Stalled", "True", "EngineNotFound", "create it")])
    well = model("well", conditions=[condition("Ready", "True", "Serving", "1 of 1 replicas serve")])
    told = advice([sick, well])
    assert [(said.name, said.message) for said in told] == [("team/modeldeployment/sick", "create it")]


def test_what_serves_and_is_stuck_all_the_same_is_told() -> None:
    ready = condition("Ready", "True", "Serving", "1 of 1 replicas serve")
    stuck = condition("Stalled", "True", "NameTaken", "delete the foreign Service")
    assert [said.message for said in advice([model(conditions=[ready, stuck])])] == ["delete the foreign Service"]
