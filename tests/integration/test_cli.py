"""``kubectl stoker``, as a program of its own, beside a real API server and the operator."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from integration.control_plane import BIN, ControlPlane, OperatorProcess
from integration.objects import GATEWAY, api_key, engine, gateway, model
from integration.waiting import reason, until

from stoker.cluster.client import KubeClient, Object
from stoker.cluster.resource_types import API_GATEWAYS, API_KEYS, MODEL_DEPLOYMENTS

pytestmark = pytest.mark.integration

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(plane: ControlPlane, namespace: str, operator: OperatorProcess) -> Cli:
    """Runs it as kubectl does: a program of that name in PATH."""

    def run(*arguments: str, stdin: str = "", namespaced: bool = True) -> subprocess.CompletedProcess[str]:
        where = ["--namespace", namespace] if namespaced else []
        environment = {
            **os.environ,
            "KUBECONFIG": str(plane.kubeconfig),
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        }
        return subprocess.run(
            [str(BIN / "kubectl"), "stoker", *arguments, *where],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


async def make_gateway(plane: ControlPlane, client: KubeClient, namespace: str) -> None:
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(gateway()))
    await until(client, API_GATEWAYS, namespace, GATEWAY, lambda obj: (obj.get("status") or {}).get("url"))


async def read_key(client: KubeClient, namespace: str, name: str) -> Object:
    found = await client.get(API_KEYS, namespace, name)
    assert found is not None
    return found


async def test_a_new_key_is_printed_once_and_only_its_hash_is_kept(
    plane: ControlPlane, client: KubeClient, namespace: str, cli: Cli
) -> None:
    await make_gateway(plane, client, namespace)
    arguments = ["--owner", "alice@example.com", "--role", "user", "--model", "qwen*", "--expires", "30d"]
    made = cli("key", "create", "laptop", *arguments, "--requests-per-minute", "60")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("sk-stoker-")
    found = await read_key(client, namespace, "laptop")
    assert found["spec"]["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert found["spec"]["limits"] == {"requestsPerMinute": 60}
    assert key not in json.dumps(found)

    listed = cli("key", "list").stdout.splitlines()
    row = next(line.split() for line in listed if line.startswith("laptop"))
    assert row[:6] == ["laptop", GATEWAY, "alice@example.com", "user", "qwen*", "Active"]

    shown = cli("key", "show", "laptop")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "only the hash is kept" in shown.stderr

    turned = cli("key", "rotate", "laptop")
    now = await read_key(client, namespace, "laptop")
    assert now["spec"]["sha256"] == hashlib.sha256(turned.stdout.strip().encode()).hexdigest()
    assert turned.stdout.strip() != key


async def test_a_key_of_a_secret_is_shown_rotated_suspended_and_revoked(
    plane: ControlPlane, client: KubeClient, namespace: str, cli: Cli
) -> None:
    await make_gateway(plane, client, namespace)
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(api_key("bob")))
    await until(client, API_KEYS, namespace, "bob", lambda obj: reason(obj) == "Active")
    first = cli("key", "show", "bob").stdout.strip()
    second = cli("key", "rotate", "bob").stdout.strip()
    assert first.startswith("sk-stoker-")
    assert second.startswith("sk-stoker-")
    assert second != first
    assert cli("key", "show", "bob").stdout.strip() == second

    cli("key", "suspend", "bob")
    await until(client, API_KEYS, namespace, "bob", lambda obj: reason(obj) == "Suspended")
    cli("key", "resume", "bob")
    await until(client, API_KEYS, namespace, "bob", lambda obj: reason(obj) == "Active")

    kept = cli("key", "revoke", "bob", stdin="n\n")
    assert kept.returncode == 1
    assert await client.get(API_KEYS, namespace, "bob") is not None
    assert cli("key", "revoke", "bob", "--yes").returncode == 0
    assert await client.get(API_KEYS, namespace, "bob") is None


async def test_a_key_that_would_open_nothing_is_told_at_once(
    plane: ControlPlane, client: KubeClient, namespace: str, cli: Cli
) -> None:
    nowhere = cli("key", "create", "laptop")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "has no ApiGateway" in nowhere.stderr

    await make_gateway(plane, client, namespace)
    unknown = cli("key", "create", "laptop", "--role", "chief")
    assert unknown.returncode == 1
    assert "RoleNotFound" in unknown.stderr
    again = cli("key", "create", "laptop")
    assert "there is an ApiKey laptop already" in again.stderr
    assert "such as 30d" in cli("key", "create", "other", "--expires", "soon").stderr
    assert "metadata.name must have at most 63" in cli("key", "create", "x" * 64).stderr

    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(gateway("second")))
    assert "gateway, second: choose with --gateway" in cli("key", "create", "third").stderr


async def test_status_tells_what_is_the_matter_and_what_to_do(
    plane: ControlPlane, client: KubeClient, namespace: str, cli: Cli
) -> None:
    assert "nothing of Stoker's" in cli("status").stderr
    await make_gateway(plane, client, namespace)
    lost = model("lost", engineRef={"name": "nowhere"})
    for one in (engine(), lost):
        plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(one))
    await until(client, MODEL_DEPLOYMENTS, namespace, "lost", lambda obj: reason(obj) == "EngineNotFound")
    said = cli("status").stdout
    row = next(line.split() for line in said.splitlines() if line.startswith("lost"))
    assert row[:4] == ["lost", "nowhere", "EngineNotFound", "0/1"]
    assert f"{namespace}/modeldeployment/lost\n" in said
    assert "create it, or correct spec.engineRef.name" in said
    everywhere = cli("status", "-A", namespaced=False).stdout
    assert any(line.split()[:2] == [namespace, "lost"] for line in everywhere.splitlines())


async def test_settings_of_a_client_are_those_of_the_config_map(
    plane: ControlPlane, client: KubeClient, namespace: str, cli: Cli
) -> None:
    await make_gateway(plane, client, namespace)
    await until(client, API_GATEWAYS, namespace, GATEWAY, lambda obj: (obj.get("status") or {}).get("clientConfigRef"))
    files = json.loads(plane.kubectl("get", "configmap", "-n", namespace, f"{GATEWAY}-clients", "-o", "json"))["data"]
    for client_name, file in (("opencode", "opencode.json"), ("continue", "continue.yaml"), ("curl", "curl.sh")):
        assert cli("settings", client_name).stdout == files[file]


async def test_what_somebody_may_not_do_is_told_without_a_traceback(
    plane: ControlPlane, client: KubeClient, namespace: str, cli: Cli
) -> None:
    await make_gateway(plane, client, namespace)
    plane.kubectl("create", "serviceaccount", "guest", "-n", namespace)
    token = plane.kubectl("create", "token", "guest", "-n", namespace).strip()
    plane.kubectl("config", "set-credentials", f"guest-{namespace}", f"--token={token}")
    cluster = plane.kubectl("config", "view", "-o", "jsonpath={.clusters[0].name}")
    plane.kubectl("config", "set-context", f"guest-{namespace}", f"--cluster={cluster}", f"--user=guest-{namespace}")
    refused = cli("key", "list", "--context", f"guest-{namespace}")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: you may not do that")
    assert "Traceback" not in refused.stderr
    nowhere = cli("key", "list", "--context", "no-such-context")
    assert nowhere.returncode == 1
    assert "no-such-context" in nowhere.stderr
