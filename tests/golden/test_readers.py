"""What the children carry is read by other processes of ours: here their own parsers read it, with no copy of the format between."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from stoker.agent.config import parse_config as parse_agent
from stoker.environment import Environment
from stoker.fetch.config import parse_config as parse_fetch
from stoker.gateway.config import parse_keys, parse_routes
from stoker.gateway.settings import Settings

GOLDEN = Path(__file__).parent


def children(example: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((GOLDEN / f"{example}.yaml").read_text()))


def container(example: str, deployment: str, name: str) -> dict[str, Any]:
    (found,) = (c for c in children(example) if c["kind"] == "Deployment" and c["metadata"]["name"] == deployment)
    spec = found["spec"]["template"]["spec"]
    return next(c for c in (*spec["initContainers"], *spec["containers"]) if c["name"] == name)


def environment(example: str, deployment: str, name: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(example, deployment, name)["env"]}


def mounts(example: str, deployment: str, name: str) -> set[str]:
    return {mount["mountPath"] for mount in container(example, deployment, name)["volumeMounts"]}


def secret(example: str, name: str, field: str) -> str:
    (found,) = (c for c in children(example) if c["kind"] == "Secret" and c["metadata"]["name"] == name)
    return str(found["data"][field])


def test_the_downloader_puts_the_file_where_the_engine_opens_it() -> None:
    order = parse_fetch(environment("quickstart", "smollm2", "fetch"))
    (file,) = order.files
    args = container("quickstart", "smollm2", "engine")["args"]
    assert args[args.index("--model") + 1] == str(order.folder / file.name)
    assert len(file.sha256) == 64
    assert str(order.cache) in mounts("quickstart", "smollm2", "fetch") & mounts("quickstart", "smollm2", "engine")


def test_downloader_and_agent_share_the_progress_file() -> None:
    order = parse_fetch(environment("quickstart", "smollm2", "fetch"))
    row = parse_agent(environment("quickstart", "smollm2", "agent"))
    assert row.progress_file == str(order.progress_file)
    shared = mounts("quickstart", "smollm2", "fetch") & mounts("quickstart", "smollm2", "agent")
    assert str(order.progress_file.parent) in shared


def test_the_agent_listens_and_scrapes_where_the_pod_says() -> None:
    row = parse_agent(environment("quickstart", "smollm2", "agent"))
    (port,) = container("quickstart", "smollm2", "agent")["ports"]
    engine = container("quickstart", "smollm2", "engine")
    assert row.port == port["containerPort"] == engine["lifecycle"]["preStop"]["httpGet"]["port"]
    assert row.engine_port == engine["ports"][0]["containerPort"]
    assert row.health_path == engine["readinessProbe"]["httpGet"]["path"]
    assert row.model == "smollm2"
    assert all(
        (
            row.metrics_path,
            row.running_metric,
            row.waiting_metric,
            row.prompt_tokens_metric,
            row.completion_tokens_metric,
        )
    )


@pytest.mark.parametrize("example", sorted(path.stem for path in (GOLDEN / "engines").glob("*.yaml")))
def test_the_agent_of_every_engine_understands_its_row(example: str) -> None:
    deployments = [c for c in children(f"engines/{example}") if c["kind"] == "Deployment"]
    assert deployments
    for deployment in deployments:
        name = deployment["metadata"]["name"]
        (row_text,) = environment(f"engines/{example}", name, "agent").values()
        row, engine = parse_agent({"STOKER_AGENT": row_text}), container(f"engines/{example}", name, "engine")
        assert row.engine_port == engine["ports"][0]["containerPort"]
        assert bool(row.metrics_path) == bool(row.running_metric) == bool(row.waiting_metric) == row.counts_requests
        probe = engine["readinessProbe"]["httpGet"]
        if row.ready_key:
            assert (probe["path"], probe["port"]) == ("/ready", row.port)
            assert row.ready_equals or row.ready_differs
        else:
            assert (probe["path"], probe["port"]) == (row.health_path, "http")


def test_envoy_starts_from_the_file_that_the_policy_service_writes() -> None:
    settings = Settings.from_environment(Environment(environment("quickstart", "gateway", "policy")))
    envoy, policy = container("quickstart", "gateway", "envoy"), container("quickstart", "gateway", "policy")
    assert envoy["args"][envoy["args"].index("--config-path") + 1] == str(settings.bootstrap)
    assert str(settings.folder) in mounts("quickstart", "gateway", "envoy") & mounts("quickstart", "gateway", "policy")
    assert settings.listen_port == envoy["ports"][0]["containerPort"]
    assert settings.http_port == policy["ports"][0]["containerPort"]
    assert (settings.namespace, settings.name) == ("default", "gateway")


def test_the_gateway_understands_every_model_that_the_operator_publishes() -> None:
    routes = parse_routes(secret("quickstart", "gateway-routes", "routes.json"))
    (model,) = routes.models
    assert (model.name, model.namespace, model.service, model.task, model.stopped) == (
        "smollm2",
        "default",
        "smollm2",
        "Chat",
        False,
    )
    assert model.created == 1767225600
    assert (routes.max_request_bytes, routes.token, routes.key_secrets) == (
        32 << 20,
        "golden-token",
        ("gateway-keys-0",),
    )


def test_the_gateway_understands_every_key_that_the_operator_lets_in() -> None:
    from stoker.api import ApiGateway, ApiKey
    from stoker.api.resolved import ResolvedApiGateway
    from stoker.desired.api_gateway import build_secrets

    gateway = ApiGateway.model_validate({"metadata": {"name": "gateway", "namespace": "default"}, "spec": {}})
    spec = {
        "gatewayRef": {"name": "gateway"},
        "sha256": "a" * 64,
        "models": ["qwen*"],
        "expiresAt": "2027-01-01T00:00:00Z",
    }
    api_key = ApiKey.model_validate({"metadata": {"name": "alice", "namespace": "default"}, "spec": spec})
    keys_secret, _ = build_secrets(ResolvedApiGateway(gateway, (), (api_key,), ""))
    (key,) = parse_keys(base64.b64decode(keys_secret["data"]["keys.json"]))
    assert (key.name, key.digest.hex(), key.expires_at) == ("alice", "a" * 64, 1798761600.0)
    assert key.allowed.fullmatch("qwen3")
    assert not key.allowed.fullmatch("smollm2")
