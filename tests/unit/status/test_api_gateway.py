from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stoker.api import ApiGateway
from stoker.api.api_gateway import ApiGatewayStatus
from stoker.errors import Stalled
from stoker.status.api_gateway import compute_api_gateway_status


@pytest.fixture
def make_gateway(metadata):
    def make(status: ApiGatewayStatus | None = None, **spec: Any) -> ApiGateway:
        gateway = ApiGateway.model_validate({"metadata": metadata("gateway"), "spec": {"replicas": 1, **spec}})
        return gateway if status is None else gateway.model_copy(update={"status": status})

    return make


@pytest.fixture
def compute(make_gateway, now):
    def make(workload=None, *, gateway=None, **more: Any) -> ApiGatewayStatus:
        return compute_api_gateway_status(
            gateway or make_gateway(),
            workload=workload,
            models=2,
            ready_models=1,
            sleeping_models=0,
            keys=3,
            service=more.pop("service", None),
            admin_secret_name="gateway-admin",
            problem=more.pop("problem", None),
            now=more.pop("now", now),
        )

    return make


@pytest.fixture
def serving(pod, container):
    return pod(container("policy", ready=True, started=True), container("envoy", ready=True, started=True), ready=True)


def conditions(status: ApiGatewayStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_serving_gateway_is_ready_and_tells_all_its_facts(compute, workload, serving) -> None:
    status = compute(workload(serving))
    assert conditions(status) == {"Ready": ("True", "Serving"), "Programmed": ("True", "Programmed")}
    assert status.url == "http://gateway.team.svc/v1"
    assert (status.models.total, status.models.ready, status.keys) == (2, 1, 3)
    assert (status.replicas, status.ready_replicas, status.admin_secret_name) == (1, 1, "gateway-admin")
    assert status.limit_shares == 1


def test_the_same_facts_later_give_an_equal_status(compute, make_gateway, workload, serving, now) -> None:
    first = compute(workload(serving))
    assert compute(workload(serving), gateway=make_gateway(first), now=now + timedelta(hours=1)) == first


def test_the_port_is_told_where_it_is_not_the_usual_one(compute, make_gateway) -> None:
    assert compute(gateway=make_gateway(expose={"port": 8443})).url == "http://gateway.team.svc:8443/v1"
    tls = {"secretName": "front"}
    assert compute(gateway=make_gateway(expose={"tls": tls})).url == "https://gateway.team.svc/v1"
    assert compute(gateway=make_gateway(expose={"tls": tls, "port": 80})).url == "https://gateway.team.svc:80/v1"


def test_a_node_port_is_told(compute, make_gateway, workload, serving) -> None:
    service = {"spec": {"ports": [{"port": 80, "nodePort": 30080}]}}
    status = compute(workload(serving), gateway=make_gateway(expose={"type": "NodePort"}), service=service)
    assert status.conditions[1].message == "Clients reach it at http://gateway.team.svc/v1 and port 30080 of every node"


@pytest.mark.parametrize(
    ("expose", "ports", "url"),
    [
        ({"type": "NodePort"}, [{"nodePort": 30080}], "http://llm.example.com:30080/v1"),
        ({"type": "NodePort", "nodePort": 30081}, [], "http://llm.example.com:30081/v1"),
        ({"type": "NodePort"}, [], "http://gateway.team.svc/v1"),
        ({"type": "LoadBalancer"}, [], "http://llm.example.com/v1"),
        ({"type": "LoadBalancer", "port": 8080}, [], "http://llm.example.com:8080/v1"),
        ({"type": "LoadBalancer", "tls": {"secretName": "llm-tls"}}, [], "https://llm.example.com/v1"),
        ({"type": "Ingress", "tls": {"secretName": "llm-tls"}}, [], "https://llm.example.com/v1"),
    ],
)
def test_a_host_name_is_the_url_wherever_one_is_given(
    compute, make_gateway, workload, serving, expose, ports, url
) -> None:
    gateway = make_gateway(expose={**expose, "hostname": "llm.example.com"})
    assert compute(workload(serving), gateway=gateway, service={"spec": {"ports": ports}}).url == url


@pytest.mark.parametrize(
    ("ingress", "url"),
    [
        ([{"ip": "192.0.2.7"}], "http://192.0.2.7/v1"),
        ([{"hostname": "lb.example.com", "ip": "192.0.2.7"}], "http://lb.example.com/v1"),
        ([{}, {"ip": "2001:db8::1"}], "http://[2001:db8::1]/v1"),
    ],
)
def test_a_load_balancers_address_is_the_url(compute, make_gateway, workload, serving, ingress, url) -> None:
    service = {"status": {"loadBalancer": {"ingress": ingress}}}
    status = compute(workload(serving), gateway=make_gateway(expose={"type": "LoadBalancer"}), service=service)
    assert status.url == url
    assert conditions(status)["Ready"] == ("True", "Serving")


@pytest.mark.parametrize("service", [None, {"status": {"loadBalancer": {}}}])
def test_without_an_address_nobody_can_call(compute, make_gateway, workload, serving, service) -> None:
    status = compute(workload(serving), gateway=make_gateway(expose={"type": "LoadBalancer"}), service=service)
    assert status.url is None
    assert conditions(status) == {
        "Ready": ("False", "AddressPending"),
        "Programmed": ("False", "AddressPending"),
        "Reconciling": ("True", "AddressPending"),
    }


def test_before_its_children_exist_it_is_starting(compute) -> None:
    assert conditions(compute())["Programmed"] == ("False", "GatewayStarting")


def test_its_pods_are_diagnosed_like_a_models(compute, workload, pod, container) -> None:
    crash = container("policy", "waiting", reason="CrashLoopBackOff", restarts=2, last_reason="Error", last_exit_code=1)
    status = compute(workload(pod(crash, container("envoy", "waiting"))))
    assert conditions(status) == {
        "Ready": ("False", "GatewayCrashed"),
        "Programmed": ("True", "Programmed"),
        "Stalled": ("True", "GatewayCrashed"),
    }
    killed = container(
        "envoy", "waiting", reason="CrashLoopBackOff", restarts=2, last_reason="OOMKilled", last_exit_code=137
    )
    assert conditions(compute(workload(pod(killed))))["Ready"] == ("False", "GatewayOutOfMemory")


def test_a_problem_leaves_a_serving_gateway_ready(compute, workload, serving) -> None:
    status = compute(workload(serving), problem=Stalled("NameTaken", "taken"))
    assert conditions(status) == {
        "Ready": ("True", "Serving"),
        "Programmed": ("False", "NameTaken"),
        "Stalled": ("True", "NameTaken"),
    }


def test_a_stopped_gateway_is_as_it_should_be(compute, make_gateway, workload) -> None:
    assert conditions(compute(workload(), gateway=make_gateway(replicas=0)))["Ready"] == ("True", "Stopped")


def test_a_gateway_that_only_just_lost_its_replica_says_so(compute, workload, serving) -> None:
    assert conditions(compute(workload(serving, ready_replicas=0)))["Ready"] == ("False", "GatewayLoading")
