"""An operator that may see single namespaces only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.control_plane import ControlPlane, OperatorProcess, operator_account
from integration.objects import GATEWAY, MODEL, engine, gateway, model
from integration.waiting import condition, is_ready, reason, until

from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import API_GATEWAYS, API_KEYS, DEPLOYMENTS, MODEL_DEPLOYMENTS

pytestmark = pytest.mark.integration


@pytest.fixture
def narrow_operator(plane: ControlPlane, shared_operator: OperatorProcess, namespace: str) -> Iterator[OperatorProcess]:
    """With the rights that the chart gives for a list of namespaces."""
    shared_operator.stop()
    system = f"system-of-{namespace}"
    plane.kubectl("create", "namespace", system)
    kubeconfig = operator_account(plane, system, f"watch.namespaces={{{namespace}}}")
    settings = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": system, "STOKER_WATCH_NAMESPACES": namespace}
    operator = OperatorProcess(plane, "narrow", settings)
    operator.start()
    yield operator
    operator.stop()
    plane.kubectl("delete", "namespace", system, "--wait=false")
    assert not [entry for entry in operator.messages() if "exception" in entry]


async def test_it_serves_its_namespace_and_touches_no_other(
    plane: ControlPlane, narrow_operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(), model(), namespace="default")
    plane.apply(engine(), model(), gateway(), namespace=namespace)
    await until(client, MODEL_DEPLOYMENTS, namespace, MODEL, is_ready)
    await until(client, API_GATEWAYS, namespace, GATEWAY, is_ready)
    await until(client, API_KEYS, namespace, f"{GATEWAY}-admin", is_ready)
    await client.delete(DEPLOYMENTS, namespace, MODEL)
    await until(client, DEPLOYMENTS, namespace, MODEL, bool)
    assert await client.get(DEPLOYMENTS, "default", MODEL) is None
    plane.kubectl("delete", "modeldeployment,inferenceengine", "--all", "-n", "default")


async def test_a_gateway_that_looks_beyond_is_told_that_this_is_not_permitted(
    plane: ControlPlane, narrow_operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(gateway(models={"namespaces": {"from": "All"}}), namespace=namespace)
    told = await until(client, API_GATEWAYS, namespace, GATEWAY, lambda obj: reason(obj, "Stalled") == "NotPermitted")
    assert "cluster-wide" in condition(told, "Stalled")["message"]
