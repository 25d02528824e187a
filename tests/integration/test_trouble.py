"""What stands in the way has a reason of its own on the object it concerns, and goes when its cause goes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

import pytest
from awake import awake
from integration.control_plane import ControlPlane, OperatorProcess
from integration.objects import ENGINE, GATEWAY, MODEL, api_key, engine, gateway, model
from integration.waiting import condition, is_ready, reason, until, until_gone

from stoker.cluster.client import KubeClient, Object
from stoker.cluster.resource_types import (
    API_GATEWAYS,
    API_KEYS,
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_ENGINES,
    MODEL_DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICES,
)

pytestmark = pytest.mark.integration


def key_in(secret: Object) -> str:
    return base64.b64decode(secret["data"]["apiKey"]).decode()


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def hashes_told(secret: Object) -> list[str]:
    return [entry["sha256"] for entry in json.loads(base64.b64decode(secret["data"]["keys.json"]))["keys"]]


async def test_an_engine_that_does_not_exist_is_named_and_awaited(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(model(), namespace=namespace)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "EngineNotFound")
    assert condition(told, "Stalled")["status"] == "True"
    assert ENGINE in condition(told, "Ready")["message"]
    plane.apply(engine(), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)


async def test_a_foreign_service_of_the_same_name_is_not_touched(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    foreign: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": MODEL},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 5432}]},
    }
    plane.apply(foreign, namespace=namespace)
    theirs = await client.get(SERVICES, namespace, MODEL)
    plane.apply(engine(), model(), namespace=namespace)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "NameTaken")
    assert f"Service {MODEL}" in condition(told, "Stalled")["message"]
    assert await client.get(SERVICES, namespace, MODEL) == theirs
    assert await client.get(DEPLOYMENTS, namespace, MODEL) is None
    await client.delete(SERVICES, namespace, MODEL)
    # The foreign object is not watched: it is looked for again after a while, or at once after a change of the model.
    plane.kubectl("annotate", "modeldeployment", MODEL, "-n", namespace, "look=again")
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)


async def test_a_missing_secret_is_named_and_looked_for_again(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    source = {"uri": "https://models.example.com/a.gguf", "secretRef": {"name": "token-of-the-source"}}
    plane.apply(engine(), model(source=source), namespace=namespace)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "SecretNotFound")
    assert "token-of-the-source" in condition(told, "Ready")["message"]
    assert await client.get(DEPLOYMENTS, namespace, MODEL) is None
    plane.kubectl("create", "secret", "generic", "token-of-the-source", "--from-literal=token=x", "-n", namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)


async def test_an_unreadable_object_says_so_and_holds_up_no_other(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str, future_engine_type: str
) -> None:
    plane.apply(engine("future", type=future_engine_type), engine(), model(), namespace=namespace)
    told = await until(client, INFERENCE_ENGINES, namespace, "future", lambda obj: reason(obj) == "InvalidSpec")
    assert "spec.type" in condition(told, "Stalled")["message"]
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)
    plane.apply(engine("future"), namespace=namespace)
    await until(client, INFERENCE_ENGINES, namespace, "future", is_ready)


@pytest.fixture
def future_engine_type(plane: ControlPlane) -> Iterator[str]:
    """An engine type that only a newer Stoker knows: its CRDs are here already."""
    name = "inferenceengines.stoker.dev"
    crd = json.loads(plane.kubectl("get", "crd", name, "-o", "json"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    known = list(spec["properties"]["type"]["enum"])
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/type/enum"

    def write(types: list[str]) -> None:
        patch = [{"op": "replace", "path": path, "value": types}]
        plane.kubectl("patch", "crd", name, "--type=json", "-p", json.dumps(patch))

    write([*known, "Future"])
    yield "Future"
    write(known)


async def test_missing_devices_are_told_in_the_schedulers_words_until_a_node_offers_them(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(accelerator={"vendor": "NVIDIA"}), model(gpus=1), namespace=namespace)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "InsufficientGPUs")
    assert "nvidia.com/gpu" in condition(told, "Ready")["message"]
    node = json.loads(plane.kubectl("get", "node", "kwok-0", "-o", "json"))
    capacity = {**node["status"]["capacity"], "nvidia.com/gpu": "1"}
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "with-device",
                "labels": {"type": "kwok"},
                "annotations": {"kwok.x-k8s.io/node": "fake"},
            },
            "status": {"capacity": capacity, "allocatable": capacity},
        },
        namespace=namespace,
    )
    try:
        await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)
        pods, _ = await client.list(PODS, namespace)
        assert [pod["spec"]["nodeName"] for pod in pods] == ["with-device"]
    finally:
        plane.kubectl("delete", "node", "with-device")


async def test_the_older_model_keeps_a_served_name_and_the_younger_gets_it_after_it(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(), gateway(), model("older", servedModelName="gpt-4o"), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, "older", lambda obj: obj.get("status", {}).get("gateways"))
    plane.apply(model("younger", aliases=["gpt-4o"]), namespace=namespace)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, "younger", lambda obj: reason(obj) == "ServedNameTaken")
    assert "older" in condition(told, "Stalled")["message"]
    assert is_ready(await client.get(MODEL_DEPLOYMENTS, namespace, "older") or {})
    plane.kubectl("delete", "modeldeployment", "older", "-n", namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, "younger", is_ready)


async def test_a_refused_child_is_told_in_the_words_of_kubernetes(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    wrong = {"spec": {"restartPolicy": "Sometimes"}}
    plane.apply(engine(podTemplate=wrong), model(), namespace=namespace)
    told = await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, lambda obj: reason(obj) == "ChildRejected")
    assert "restartPolicy" in condition(told, "Stalled")["message"]
    plane.apply(engine(), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)


async def test_a_key_is_made_once_told_to_the_gateway_and_not_remade(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(gateway(), api_key("alice"), namespace=namespace)
    told = await until(client, API_KEYS, namespace, "alice", is_ready)
    key = key_in(await until(client, SECRETS, namespace, "alice", bool))
    assert [entry["sha256"] for entry in told["status"]["keys"]] == [hash_of(key)]
    assert key not in json.dumps(told)
    config = await until(client, SECRETS, namespace, f"{GATEWAY}-keys-0", lambda obj: hash_of(key) in hashes_told(obj))
    await client.delete(SECRETS, namespace, "alice")
    plane.kubectl("annotate", "apikey", "alice", "-n", namespace, "look=again")
    told = await until(client, API_KEYS, namespace, "alice", lambda obj: reason(obj, "Stalled") == "KeySecretMissing")
    assert [entry["sha256"] for entry in told["status"]["keys"]] == [hash_of(key)]
    assert "stoker.dev/rotate" in condition(told, "Stalled")["message"]
    assert await client.get(SECRETS, namespace, "alice") is None
    assert hash_of(key) in hashes_told(config)

    plane.kubectl("annotate", "apikey", "alice", "-n", namespace, "stoker.dev/rotate=1")
    await until(client, API_KEYS, namespace, "alice", is_ready)
    renewed = key_in(await until(client, SECRETS, namespace, "alice", bool))
    assert renewed != key
    await until(
        client,
        SECRETS,
        namespace,
        f"{GATEWAY}-keys-0",
        lambda obj: {hash_of(key), hash_of(renewed)} <= {*hashes_told(obj)},
    )


async def test_a_rotated_key_leaves_the_old_one_its_grace_period(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(gateway(), api_key("alice"), namespace=namespace)
    await until(client, API_KEYS, namespace, "alice", is_ready)
    old = key_in(await client.get(SECRETS, namespace, "alice") or {})
    plane.kubectl("annotate", "apikey", "alice", "-n", namespace, "stoker.dev/rotate=1")
    told = await until(client, API_KEYS, namespace, "alice", lambda obj: len(obj["status"]["keys"]) == 2)
    new = key_in(await client.get(SECRETS, namespace, "alice") or {})
    assert [entry["sha256"] for entry in told["status"]["keys"]] == [hash_of(new), hash_of(old)]
    assert "expiresAt" not in told["status"]["keys"][0]
    assert "expiresAt" in told["status"]["keys"][1]
    assert told["status"]["rotated"] == "1"


async def test_a_deleted_or_suspended_key_is_taken_from_the_gateway_within_five_seconds(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    mine = "a" * 64
    plane.apply(gateway(), api_key("alice"), api_key("bob", sha256=mine), namespace=namespace)
    told = await until(client, API_KEYS, namespace, "alice", is_ready)
    alices = told["status"]["keys"][0]["sha256"]
    keys = f"{GATEWAY}-keys-0"
    await until(client, SECRETS, namespace, keys, lambda obj: {alices, mine} <= {*hashes_told(obj)})
    plane.kubectl("delete", "apikey", "alice", "-n", namespace)
    started = awake()
    await until(client, SECRETS, namespace, keys, lambda obj: alices not in hashes_told(obj))
    assert awake() - started < 5
    plane.apply(api_key("bob", sha256=mine, suspend=True), namespace=namespace)
    started = awake()
    await until(client, SECRETS, namespace, keys, lambda obj: mine not in hashes_told(obj))
    assert awake() - started < 5
    await until_gone(client, SECRETS, namespace, "alice")


async def test_a_key_moves_with_the_name_of_its_secret(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(gateway(), api_key("alice"), namespace=namespace)
    await until(client, API_KEYS, namespace, "alice", is_ready)
    key = key_in(await client.get(SECRETS, namespace, "alice") or {})
    plane.apply(api_key("alice", secretName="for-alice"), namespace=namespace)
    assert key_in(await until(client, SECRETS, namespace, "for-alice", bool)) == key
    await until_gone(client, SECRETS, namespace, "alice")
    await until(client, API_KEYS, namespace, "alice", is_ready)


async def test_a_foreign_secret_is_neither_used_nor_touched(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.kubectl("create", "secret", "generic", "alice", "--from-literal=apiKey=theirs", "-n", namespace)
    plane.apply(gateway(), api_key("alice"), namespace=namespace)
    await until(client, API_KEYS, namespace, "alice", lambda obj: reason(obj, "Stalled") == "SecretNameTaken")
    assert key_in(await client.get(SECRETS, namespace, "alice") or {}) == "theirs"


async def test_a_change_of_ready_becomes_an_event(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(gateway(), namespace=namespace)
    await until(client, API_GATEWAYS, namespace, GATEWAY, is_ready)
    async for event in client.watch(EVENTS, namespace):
        seen = [obj for obj in event.items or [event.object] if obj.get("regarding", {}).get("kind") == "ApiGateway"]
        if any(obj["reason"] == "Serving" for obj in seen):
            return


async def test_a_new_model_is_starting_until_it_serves_and_never_rolling_out(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    told: list[str] = []

    def note(obj: Object) -> bool:
        told.append(reason(obj))
        return is_ready(obj)

    plane.apply(engine(), model(), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, note)
    seen = list(dict.fromkeys(each for each in told if each))
    assert set(seen) <= {"EngineStarting", "Downloading", "EngineLoading", "Serving"}, seen
    assert seen[-1] == "Serving"
