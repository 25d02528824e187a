"""Children come, come back, are put back, stay as they are, and go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from awake import awake
from integration.control_plane import ROOT, ControlPlane, OperatorProcess
from integration.objects import ENGINE, GATEWAY, MODEL, engine, gateway, model
from integration.waiting import is_ready, until, until_gone

from stoker.cluster.client import KubeClient, Object, ResourceType
from stoker.cluster.resource_types import (
    API_GATEWAYS,
    API_KEYS,
    CLAIMS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    INFERENCE_ENGINES,
    MODEL_DEPLOYMENTS,
    NETWORK_POLICIES,
    OWN_TYPES,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    WATCHED_CHILD_TYPES,
)

pytestmark = pytest.mark.integration

QUICKSTART = ("engine", "model", "gateway")
CHILD_TYPES = (*WATCHED_CHILD_TYPES, SECRETS, API_KEYS)
CLAIM = {"type": "PersistentVolumeClaim", "size": "1Gi"}
OURS = "app.kubernetes.io/managed-by=stoker"


async def everything_ready(client: KubeClient, namespace: str) -> None:
    for resource, name in ((INFERENCE_ENGINES, ENGINE), (MODEL_DEPLOYMENTS, MODEL), (API_GATEWAYS, GATEWAY)):
        await until(client, resource, namespace, name, is_ready)
    await until(client, API_KEYS, namespace, f"{GATEWAY}-admin", is_ready)


async def versions(client: KubeClient, namespace: str) -> dict[tuple[str, str], str]:
    found = {}
    for resource in (*CHILD_TYPES, *OWN_TYPES):
        selector = "" if resource in OWN_TYPES else OURS
        for obj in (await client.list(resource, namespace, label_selector=selector))[0]:
            found[resource.kind, obj["metadata"]["name"]] = obj["metadata"]["resourceVersion"]
    return found


async def settled_versions(client: KubeClient, namespace: str) -> dict[tuple[str, str], str]:
    """Versions when the controllers of Kubernetes, too, have said all they have to say."""
    last: dict[tuple[str, str], str] = {}
    while last != (now := await versions(client, namespace)):
        last = now
        await asyncio.sleep(1)
    return last


@pytest.mark.parametrize("order", list(itertools.permutations(QUICKSTART)), ids="-".join)
def test_the_quick_start_converges_in_any_order(
    plane: ControlPlane, operator: OperatorProcess, namespace: str, order: tuple[str, ...]
) -> None:
    for name in order:
        objects = list(yaml.safe_load_all((ROOT / f"examples/quickstart/{name}.yaml").read_text()))
        for each in objects:
            each["spec"].get("expose", {}).pop("nodePort", None)  # one port of the node for six gateways
        plane.apply(*objects, namespace=namespace)
    for kind in ("inferenceengine", "modeldeployment", "apigateway"):
        plane.kubectl("wait", "--for=condition=Ready", kind, "--all", "-n", namespace, "--timeout=90s")
    plane.kubectl("wait", "--for=condition=Ready", "apikey/gateway-admin", "-n", namespace, "--timeout=90s")
    lines = plane.kubectl("get", "stoker", "-n", namespace, "--no-headers").splitlines()
    assert [line.split()[2:4] for line in lines if line] == [
        ["True", "Serving"],
        ["True", "Active"],
        ["True", "Accepted"],
        ["True", "Serving"],
    ]


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        (DEPLOYMENTS, MODEL),
        (SERVICES, MODEL),
        (SERVICE_ACCOUNTS, MODEL),
        (NETWORK_POLICIES, MODEL),
        (CLAIMS, f"{ENGINE}-cache"),
        (DEPLOYMENTS, GATEWAY),
        (SERVICES, GATEWAY),
        (SERVICE_ACCOUNTS, GATEWAY),
        (NETWORK_POLICIES, GATEWAY),
        (ROLES, GATEWAY),
        (ROLE_BINDINGS, GATEWAY),
        (DISRUPTION_BUDGETS, GATEWAY),
        (API_KEYS, f"{GATEWAY}-admin"),
    ],
    ids=lambda value: value.plural if isinstance(value, ResourceType) else value,
)
async def test_a_deleted_child_is_back_within_five_seconds(
    plane: ControlPlane,
    operator: OperatorProcess,
    client: KubeClient,
    namespace: str,
    resource: ResourceType,
    name: str,
) -> None:
    # A claim that pods use is kept by Kubernetes until they are gone, so the engine with the claim has no model.
    objects = (engine(cache=CLAIM),) if resource == CLAIMS else (engine(), model(), gateway())
    plane.apply(*objects, namespace=namespace)
    old = (await until(client, resource, namespace, name, bool))["metadata"]["uid"]
    await client.delete(resource, namespace, name)
    started = awake()
    await until(client, resource, namespace, name, lambda obj: obj["metadata"]["uid"] != old)
    assert awake() - started < 5


@pytest.mark.parametrize(
    ("resource", "name", "edit", "is_back"),
    [
        (
            DEPLOYMENTS,
            MODEL,
            {"spec": {"replicas": 3, "template": {"spec": {"serviceAccountName": "default"}}}},
            lambda obj: obj["spec"]["replicas"] == 1 and obj["spec"]["template"]["spec"]["serviceAccountName"] == MODEL,
        ),
        (
            SERVICES,
            GATEWAY,
            {"spec": {"selector": {"app": "mine"}}},
            lambda obj: "app" not in obj["spec"]["selector"],
        ),
        (
            NETWORK_POLICIES,
            MODEL,
            {"spec": {"ingress": [{}]}},
            lambda obj: all(rule.get("from") for rule in obj["spec"]["ingress"]),
        ),
        (
            NETWORK_POLICIES,
            GATEWAY,
            {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}},
            lambda obj: obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "stoker",
        ),
        (
            DISRUPTION_BUDGETS,
            GATEWAY,
            {"spec": {"maxUnavailable": None, "minAvailable": 2}},
            lambda obj: obj["spec"].get("maxUnavailable") == 1 and "minAvailable" not in obj["spec"],
        ),
        (ROLES, GATEWAY, {"rules": []}, lambda obj: obj["rules"]),
        (
            ROLE_BINDINGS,
            GATEWAY,
            {"subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "mallory"}]},
            lambda obj: obj["subjects"][0]["kind"] == "ServiceAccount",
        ),
        (
            SERVICE_ACCOUNTS,
            MODEL,
            {"automountServiceAccountToken": True},
            lambda obj: obj["automountServiceAccountToken"] is False,
        ),
    ],
    ids=lambda value: value.plural if isinstance(value, ResourceType) else None,
)
async def test_an_edited_child_is_put_back_within_five_seconds(
    plane: ControlPlane,
    operator: OperatorProcess,
    client: KubeClient,
    namespace: str,
    resource: ResourceType,
    name: str,
    edit: Object,
    is_back: Callable[[Object], Any],
) -> None:
    plane.apply(engine(), model(), gateway(replicas=2), namespace=namespace)
    await everything_ready(client, namespace)
    await settled_versions(client, namespace)
    edited = await client.merge(resource, namespace, name, edit)
    assert not is_back(edited)
    started = awake()
    await until(client, resource, namespace, name, is_back)
    assert awake() - started < 5


async def test_a_deleted_config_secret_is_back_within_a_minute(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(), model(), gateway(), namespace=namespace)
    await everything_ready(client, namespace)
    routes = f"{GATEWAY}-routes"
    token = (await until(client, SECRETS, namespace, routes, bool))["metadata"]["uid"]
    await client.delete(SECRETS, namespace, routes)
    started = awake()
    await until(client, SECRETS, namespace, routes, lambda obj: obj["metadata"]["uid"] != token)
    assert awake() - started < 65


async def test_what_is_no_longer_wanted_goes(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(), model(), gateway(replicas=2), namespace=namespace)
    await until(client, DISRUPTION_BUDGETS, namespace, GATEWAY, bool)
    await until(client, SECRETS, namespace, f"{GATEWAY}-usage", bool)
    plane.apply(gateway(replicas=1, auth={"adminKey": False}, usage={"enabled": False}), namespace=namespace)
    await until_gone(client, DISRUPTION_BUDGETS, namespace, GATEWAY)
    await until_gone(client, SECRETS, namespace, f"{GATEWAY}-usage")
    await until_gone(client, API_KEYS, namespace, f"{GATEWAY}-admin")
    await until_gone(client, SECRETS, namespace, f"{GATEWAY}-admin")


async def test_a_field_that_is_no_longer_wanted_goes_from_the_child(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    def selector(obj: Object) -> Any:
        return obj["spec"]["template"]["spec"].get("nodeSelector")

    plane.apply(engine(nodeSelector={"type": "kwok"}), model(), namespace=namespace)
    await until(client, DEPLOYMENTS, namespace, MODEL, selector)
    plane.apply(engine(), namespace=namespace)
    await until(client, DEPLOYMENTS, namespace, MODEL, lambda obj: not selector(obj))


async def test_the_same_again_writes_nothing(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    objects = (engine(), model(), gateway())
    plane.apply(*objects, namespace=namespace)
    await everything_ready(client, namespace)
    # Kubernetes' own controllers may still have had something to say; what the operator writes it would write each time.
    for _ in range(3):
        before = await settled_versions(client, namespace)
        plane.apply(*objects, namespace=namespace)
        after = await settled_versions(client, namespace)
        if after == before:
            break
    assert after == before


async def test_a_restarted_operator_writes_nothing(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(), model(), gateway(), namespace=namespace)
    await everything_ready(client, namespace)
    for name in ("another", "one-more", "the-last"):
        before = await settled_versions(client, namespace)
        assert operator.stop() == 0
        operator.start()
        # That it works again shows in something new; what was there it has seen before that.
        plane.apply(engine(name), namespace=namespace)
        await until(client, INFERENCE_ENGINES, namespace, name, is_ready)
        after = await settled_versions(client, namespace)
        # Else Kubernetes' own controllers may have had something to say still; the operator would say it each time.
        if {**after, **before} == after:
            break
    assert {**after, **before} == after


async def test_everything_goes_with_its_owner_while_the_operator_is_down(
    plane: ControlPlane, operator: OperatorProcess, client: KubeClient, namespace: str
) -> None:
    plane.apply(engine(), engine("cached", cache=CLAIM), model(), gateway(), namespace=namespace)
    await everything_ready(client, namespace)
    await until(client, CLAIMS, namespace, "cached-cache", bool)
    operator.stop()
    plane.kubectl("delete", "modeldeployment,apigateway,inferenceengine", "--all", "-n", namespace, "--timeout=90s")
    for kind, name in await versions(client, namespace):
        resource = next(known for known in (*CHILD_TYPES, *OWN_TYPES) if known.kind == kind)
        await until_gone(client, resource, namespace, name)
