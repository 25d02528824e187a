"""The web chat comes with its gateway, keeps what is dear, and leaves the gateway alone when it is in trouble."""

from __future__ import annotations

import asyncio
import json

import pytest
from integration.control_plane import ControlPlane, OperatorProcess
from integration.objects import GATEWAY, gateway
from integration.waiting import condition, reason, until, until_gone

from stoker.cluster.client import KubeClient, Object
from stoker.cluster.resource_types import (
    API_GATEWAYS,
    API_KEYS,
    CLAIMS,
    NETWORK_POLICIES,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
)

pytestmark = pytest.mark.integration

UI = f"{GATEWAY}-webui"
STORAGE = {"size": "1Gi", "storageClassName": "by-hand"}


def volume(name: str) -> Object:
    """Nothing here makes volumes for claims, and the scheduler waits for one."""
    spec = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "hostPath": {"path": "/nowhere"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def serves(obj: Object) -> bool:
    return condition(obj, "WebUIReady").get("status") == "True" and not condition(obj, "Reconciling")


async def password(client: KubeClient, namespace: str) -> str:
    secret = await until(client, SECRETS, namespace, f"{UI}-admin", bool)
    text: str = secret["data"]["password"]
    return text


async def test_the_web_chat_comes_stays_and_goes_without_what_is_kept(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(volume(f"for-{namespace}")))
    plane.apply(gateway(webUI={"storage": STORAGE}), namespace=namespace)
    ready = await until(client, API_GATEWAYS, namespace, GATEWAY, serves)
    assert ready["status"]["webUIUrl"] == f"http://{UI}.{namespace}.svc"
    assert ready["status"]["webUIAdminSecretName"] == f"{UI}-admin"
    key = await until(client, API_KEYS, namespace, UI, lambda obj: reason(obj) == "Active")
    routes = await until(client, SECRETS, namespace, f"{GATEWAY}-keys-0", bool)
    assert key["status"]["keys"][0]["sha256"]
    assert routes["data"]["keys.json"]
    first = await password(client, namespace)

    before = await client.get(STATEFUL_SETS, namespace, UI)
    assert before is not None
    await asyncio.sleep(2)
    plane.apply(gateway(webUI={"storage": STORAGE}), namespace=namespace)
    after = await client.get(STATEFUL_SETS, namespace, UI)
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"], "its pods were made anew"

    for resource in (STATEFUL_SETS, SERVICES, NETWORK_POLICIES):
        old = (await until(client, resource, namespace, UI, bool))["metadata"]["uid"]
        await client.delete(resource, namespace, UI)
        await until(client, resource, namespace, UI, lambda obj, old=old: obj["metadata"]["uid"] != old)

    plane.apply(gateway(webUI={"enabled": False}), namespace=namespace)
    await until_gone(client, STATEFUL_SETS, namespace, UI)
    await until_gone(client, API_KEYS, namespace, UI)
    plane.kubectl("delete", "apigateway", GATEWAY, "-n", namespace, "--timeout=90s")
    # The garbage collector of a cluster that is half a minute old does not know our kinds yet.
    await until_gone(client, SERVICES, namespace, GATEWAY)
    claim = await client.get(CLAIMS, namespace, UI)
    assert claim is not None
    assert await password(client, namespace) == first

    plane.apply(gateway(webUI={"storage": STORAGE}), namespace=namespace)
    await until(client, API_GATEWAYS, namespace, GATEWAY, serves)
    assert await password(client, namespace) == first
    assert (await client.get(CLAIMS, namespace, UI) or {})["metadata"]["uid"] == claim["metadata"]["uid"]


async def test_its_trouble_is_not_the_gateways(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    foreign = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{UI}-secrets"}, "data": {}}
    plane.apply(foreign, gateway(webUI={"databaseSecretRef": {"name": "pg"}}), namespace=namespace)

    def says(what: str):
        return lambda obj: reason(obj, "WebUIReady") == what and condition(obj, "Ready").get("status") == "True"

    stalled = await until(client, API_GATEWAYS, namespace, GATEWAY, says("NameTaken"))
    assert f"Secret {UI}-secrets" in condition(stalled, "WebUIReady")["message"]
    await client.delete(SECRETS, namespace, f"{UI}-secrets")
    await until(client, API_GATEWAYS, namespace, GATEWAY, says("SecretNotFound"))
    plane.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pg"}, "stringData": {"url": "postgresql://h/d"}},
        namespace=namespace,
    )
    await until(client, API_GATEWAYS, namespace, GATEWAY, serves)
    assert await client.get(CLAIMS, namespace, UI) is None


async def test_a_gateway_that_serves_tls_is_called_on_a_port_of_the_web_chats_own(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    ui, inside = {"replicas": 0, "storage": STORAGE}, f"{GATEWAY}-inside"
    plane.apply(gateway(webUI=ui, expose={"tls": {"secretName": "no-such"}}), namespace=namespace)
    service = await until(client, SERVICES, namespace, inside, bool)
    assert (service["spec"]["type"], service["spec"]["ports"][0]["targetPort"]) == ("ClusterIP", 8081)

    def opens(port: int):
        return lambda obj: port in [entry["port"] for rule in obj["spec"]["ingress"] for entry in rule["ports"]]

    await until(client, NETWORK_POLICIES, namespace, GATEWAY, opens(8081))
    plane.apply(gateway(webUI=ui), namespace=namespace)
    await until_gone(client, SERVICES, namespace, inside)
    await until(client, NETWORK_POLICIES, namespace, GATEWAY, lambda obj: not opens(8081)(obj))
