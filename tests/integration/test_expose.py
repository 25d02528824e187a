"""Host names: an Ingress, or an HTTPRoute where the cluster knows such."""

from __future__ import annotations

import pytest
from integration.control_plane import ControlPlane, OperatorProcess
from integration.objects import GATEWAY, gateway
from integration.waiting import is_ready, reason, until, until_gone

from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import API_GATEWAYS, HTTP_ROUTES, INGRESSES

pytestmark = pytest.mark.integration

ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
# As much of the Gateway API as is needed to store one.
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": ANYTHING}}}}
        ],
    },
}  # fmt: skip


async def test_host_names_come_change_their_way_and_go(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(gateway(expose={"type": "Ingress", "hostname": "llm.example.com"}), namespace=namespace)
    ingress = await until(client, INGRESSES, namespace, GATEWAY, bool)
    assert ingress["spec"]["rules"][0]["host"] == "llm.example.com"
    ready = await until(client, API_GATEWAYS, namespace, GATEWAY, is_ready)
    assert ready["status"]["url"] == "http://llm.example.com/v1"
    uid = ingress["metadata"]["uid"]
    await client.delete(INGRESSES, namespace, GATEWAY)
    await until(client, INGRESSES, namespace, GATEWAY, lambda obj: obj["metadata"]["uid"] != uid)

    route = {"type": "HTTPRoute", "hostname": "llm.example.com", "parentRefs": [{"name": "public"}], "tls": {}}
    plane.apply(gateway(expose=route), namespace=namespace)
    await until(client, API_GATEWAYS, namespace, GATEWAY, lambda obj: reason(obj, "Stalled") == "GatewayApiMissing")
    plane.apply(DEFINITION, namespace=namespace)
    plane.kubectl("wait", "--for=condition=Established", f"crd/{DEFINITION['metadata']['name']}", "--timeout=90s")
    try:
        ready = await until(client, API_GATEWAYS, namespace, GATEWAY, is_ready)
        assert ready["status"]["url"] == "https://llm.example.com/v1"
        made = await client.get(HTTP_ROUTES, namespace, GATEWAY)
        assert made
        assert made["spec"]["hostnames"] == ["llm.example.com"]
        await until_gone(client, INGRESSES, namespace, GATEWAY)
        plane.apply(gateway(expose={"type": "ClusterIP"}), namespace=namespace)
        await until_gone(client, HTTP_ROUTES, namespace, GATEWAY)
    finally:
        plane.kubectl("delete", "crd", str(DEFINITION["metadata"]["name"]), "--timeout=90s")
