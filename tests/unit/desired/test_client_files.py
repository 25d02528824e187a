"""Files that programs take as they are: read here as those programs read them; docs/clients.md says with which they were tried."""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import replace

import pytest
import yaml

from stoker.api.inspection import FitStatus, ModelStatus
from stoker.api.resolved import PublishedModel
from stoker.desired.client_files import KEY_VARIABLE, build_client_files

ADDRESS = "https://llm.example.com/v1"


@pytest.fixture
def files(make_gateway):
    def make(*models: PublishedModel, **spec) -> dict[str, str]:
        made = build_client_files(make_gateway(**spec), models, ADDRESS)
        assert (made["kind"], made["metadata"]["name"]) == ("ConfigMap", "gateway-clients")
        data: dict[str, str] = made["data"]
        return data

    return make


@pytest.fixture
def published(make_model):
    def make(
        name: str, engine_type: str = "LlamaCpp", seen: dict | None = None, fit: int = 0, **spec
    ) -> PublishedModel:
        model = make_model(name, **spec)
        status = model.status.model_copy(
            update={
                "model": ModelStatus(**seen) if seen is not None else None,
                "fit": FitStatus(context_length=fit) if fit else None,
            }
        )
        return PublishedModel(model.model_copy(update={"status": status}), False, engine_type)

    return make


def test_opencode_knows_models_limits_and_who_calls_tools(files, published) -> None:
    config = json.loads(
        files(
            published("big", seen={"name": "Big 30B", "parameters": 30_000_000_000, "tools": True}, fit=32768),
            published("small", seen={"parameters": 600_000_000, "context_length": 4096}),
            published("vectors", task="Embedding"),
            published("another"),
        )["opencode.json"]
    )
    assert config["provider"]["gateway"]["models"].pop("another") == {"name": "another", "tool_call": True}
    assert (config["model"], config["small_model"]) == ("gateway/big", "gateway/small")
    assert config["enabled_providers"] == ["gateway"]
    provider = config["provider"]["gateway"]
    assert provider["options"] == {"baseURL": ADDRESS, "apiKey": "{env:STOKER_API_KEY}"}
    assert provider["models"] == {
        "big": {"name": "Big 30B", "tool_call": True, "limit": {"context": 32768, "output": 8192}},
        "small": {"name": "small", "tool_call": False, "limit": {"context": 4096, "output": 2048}},
    }


@pytest.mark.parametrize(
    ("engine_type", "spec", "seen", "tools"),
    [
        ("LlamaCpp", {}, {"tools": True}, True),
        ("LlamaCpp", {}, {"tools": False}, False),
        ("LlamaCpp", {}, None, True),
        ("LlamaCpp", {"chatTemplate": {"configMapRef": {"name": "t"}}}, {"tools": False}, True),
        ("VLLM", {}, {"tools": True}, False),
        ("VLLM", {"toolCallParser": "hermes"}, None, True),
        ("Custom", {}, {"tools": True}, False),
    ],
)
def test_tools_are_called_where_engine_and_template_can(files, published, engine_type, spec, seen, tools) -> None:
    config = json.loads(files(published("m", engine_type, seen, **spec))["opencode.json"])
    assert config["provider"]["gateway"]["models"]["m"]["tool_call"] is tools


def test_what_was_computed_comes_before_what_was_asked_and_what_the_model_was_trained_with(files, published) -> None:
    def limit(**more):
        return json.loads(files(published("m", **more))["opencode.json"])["provider"]["gateway"]["models"]["m"].get(
            "limit"
        )

    assert limit(fit=8192, contextLength=4096, seen={"context_length": 2048})["context"] == 8192
    assert limit(contextLength=4096, seen={"context_length": 2048})["context"] == 4096
    assert limit(seen={"context_length": 2048}) == {"context": 2048, "output": 1024}
    assert limit() is None


def test_an_answer_is_no_longer_than_the_gateway_admits(files, published) -> None:
    config = json.loads(files(published("m", fit=32768), limits={"maxTokensPerRequest": 500})["opencode.json"])
    assert config["provider"]["gateway"]["models"]["m"]["limit"]["output"] == 500


def test_continue_gets_roles_capabilities_and_a_key_from_the_environment(files, published) -> None:
    text = files(
        published("chat", seen={"name": 'A "quoted": name', "tools": True}, fit=8192),
        published("base", task="Completion"),
        published("vectors", task="Embedding"),
        published("order", task="Rerank"),
    )["continue.yaml"]
    config = yaml.safe_load(text)
    assert (config["schema"], config["version"]) == ("v1", "1.0.0")
    chat, base, vectors = config["models"]
    assert chat == {
        "name": 'A "quoted": name',
        "provider": "openai",
        "model": "chat",
        "apiBase": ADDRESS,
        "apiKey": "${{ secrets.STOKER_API_KEY }}",
        "roles": ["chat", "edit", "apply", "summarize"],
        "capabilities": ["tool_use"],
        "defaultCompletionOptions": {"contextLength": 8192, "maxTokens": 4096},
    }
    assert (base["roles"], vectors["roles"]) == (["autocomplete"], ["embed"])


def test_the_scripts_name_the_first_model_and_hold_no_key(files, published) -> None:
    made = files(published("qwen3:8b"))
    for script in ("langchain.py", "python.py"):
        ast.parse(made[script])
        assert f'base_url="{ADDRESS}"' in made[script]
        assert 'model="qwen3:8b"' in made[script]
        assert f'os.environ["{KEY_VARIABLE}"]' in made[script]
    words = shlex.split(made["curl.sh"].partition("\n")[2].replace("\\\n", ""))
    assert f"{ADDRESS}/chat/completions" in words
    assert f"Authorization: Bearer ${KEY_VARIABLE}" in words
    assert json.loads(words[-1])["model"] == "qwen3:8b"


def test_a_gateway_without_models_has_files_that_can_be_read(files) -> None:
    made = files()
    assert json.loads(made["opencode.json"])["provider"]["gateway"]["models"] == {}
    assert yaml.safe_load(made["continue.yaml"])["models"] == []
    ast.parse(made["langchain.py"])
    ast.parse(made["python.py"])


def route(name: str, *models: str, fallbacks: tuple[object, ...] = ()) -> dict[str, object]:
    return {"name": name, "models": [{"model": model} for model in models], "fallbacks": list(fallbacks)}


OUTSIDE = {"external": {"url": "https://api.example.com/v1", "model": "big"}}


def test_a_route_is_a_model_to_programs_and_promises_what_all_behind_it_can(files, published) -> None:
    models = (
        published("large", seen={"parameters": 30_000_000_000, "tools": True}, fit=32768),
        published("middle", seen={"parameters": 8_000_000_000, "tools": True}, fit=8192),
        published("little", seen={"parameters": 1_000_000_000, "tools": False}, fit=4096),
        published("unknown", seen={"tools": True}),
        published("vectors", task="Embedding"),
    )
    routes = [
        route("assistant", "large", "middle", fallbacks=({"model": "little"}, OUTSIDE)),
        route("careful", "large", "little"),
        route("hopeful", "large", "unknown", "not-there"),
        route("search", "vectors"),
    ]
    made = files(*models, routes=routes)
    config = json.loads(made["opencode.json"])
    told = config["provider"]["gateway"]["models"]
    assert told["assistant"] == {"name": "assistant", "tool_call": True, "limit": {"context": 4096, "output": 2048}}
    assert told["careful"]["tool_call"] is False
    assert told["hopeful"]["limit"]["context"] == 32768
    assert "search" not in told
    assert (config["model"], config["small_model"]) == ("gateway/large", "gateway/little"), (
        "models, where there are any"
    )
    embedding = [model for model in yaml.safe_load(made["continue.yaml"])["models"] if model["roles"] == ["embed"]]
    assert [model["model"] for model in embedding] == ["search", "vectors"]


def test_a_route_by_the_name_of_a_model_stands_in_its_place(files, published) -> None:
    models = (
        published("qwen", seen={"name": "Qwen 30B", "tools": True}, fit=32768),
        published("spare", seen={"tools": True}, fit=4096),
    )
    made = files(*models, routes=[route("qwen", "qwen", fallbacks=({"model": "spare"},))])
    told = json.loads(made["opencode.json"])["provider"]["gateway"]["models"]
    assert told["qwen"] == {"name": "Qwen 30B", "tool_call": True, "limit": {"context": 4096, "output": 2048}}
    assert [model["model"] for model in yaml.safe_load(made["continue.yaml"])["models"]].count("qwen") == 1


def test_a_route_with_nothing_behind_it_is_not_offered_and_one_that_only_leads_outside_promises_nothing(
    files, published
) -> None:
    stopped = replace(published("off"), stopped=True)
    routes = [route("dead", "not-there"), route("off-too", "off"), route("away", "not-there", fallbacks=(OUTSIDE,))]
    told = json.loads(files(stopped, routes=routes)["opencode.json"])["provider"]["gateway"]["models"]
    assert set(told) == {"off", "away"}
    assert told["away"] == {"name": "away", "tool_call": False}
