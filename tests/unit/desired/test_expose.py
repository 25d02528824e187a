from __future__ import annotations

import pytest

from stoker.api.api_gateway import base_url
from stoker.api.resolved import ResolvedApiGateway
from stoker.desired.api_gateway import build_workload
from stoker.desired.web_ui import build_children

ROUTE = {"type": "HTTPRoute", "hostname": "llm.example.com", "parentRefs": [{"name": "public", "namespace": "edge"}]}


@pytest.fixture
def render(make_gateway, settings):
    def make(expose: dict, ui: dict | None = None) -> dict[tuple[str, str], dict]:
        gateway = make_gateway(expose=expose, **({"webUI": {"expose": ui}} if ui is not None else {}))
        children = build_workload(ResolvedApiGateway(gateway, (), (), "token"), settings)
        if gateway.spec.web_ui:
            children += build_children(gateway, gateway.spec.web_ui, settings, "")
        return {(child["kind"], child["metadata"]["name"]): child for child in children}

    return make


def test_an_ingress_leads_its_host_name_to_the_service(render, make_gateway) -> None:
    expose = {
        "type": "Ingress",
        "hostname": "llm.example.com",
        "ingressClassName": "nginx",
        "tls": {"secretName": "llm-tls"},
        "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
    }
    children = render(expose)
    service, ingress = children["Service", "gateway"], children["Ingress", "gateway"]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]
    assert "annotations" not in service["metadata"]
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}
    backend = {"service": {"name": "gateway", "port": {"name": "http"}}}
    assert ingress["spec"] == {
        "ingressClassName": "nginx",
        "rules": [
            {"host": "llm.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        ],
        "tls": [{"hosts": ["llm.example.com"], "secretName": "llm-tls"}],
    }
    assert base_url(make_gateway(expose=expose), None) == "https://llm.example.com/v1"


def test_an_http_route_names_the_gateways_that_lead_there(render, make_gateway) -> None:
    children = render({**ROUTE, "port": 8080})
    route = children["HTTPRoute", "gateway"]
    assert route["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "edge"}],
        "hostnames": ["llm.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "gateway", "port": 8080}],
            }
        ],
    }
    assert base_url(make_gateway(expose=ROUTE), None) == "http://llm.example.com/v1"
    assert base_url(make_gateway(expose={**ROUTE, "tls": {}}), None) == "https://llm.example.com/v1"


def test_api_and_web_chat_share_a_host_name_by_paths(render) -> None:
    children = render(ROUTE, ROUTE)
    matches = {
        name: [match["path"]["value"] for match in children["HTTPRoute", name]["spec"]["rules"][0]["matches"]]
        for name in ("gateway", "gateway-webui")
    }
    assert matches == {"gateway": ["/v1", "/tokenize", "/detokenize", "/openapi.json"], "gateway-webui": ["/"]}


def test_with_two_host_names_each_has_all_paths(render) -> None:
    ingress = {"type": "Ingress", "hostname": "llm.example.com"}
    children = render(ingress, {**ingress, "hostname": "chat.example.com"})
    for name in ("gateway", "gateway-webui"):
        (rule,) = children["Ingress", name]["spec"]["rules"]
        assert [path["path"] for path in rule["http"]["paths"]] == ["/"]


def test_nothing_leads_to_a_service_that_is_reached_by_itself(render) -> None:
    assert not {kind for kind, _ in render({}, {})} & {"Ingress", "HTTPRoute"}


def test_a_certificate_is_served_by_the_pods_only_where_nothing_in_front_ends_tls(make_gateway) -> None:
    def certificate(**expose):
        return make_gateway(expose=expose).spec.expose.certificate

    assert certificate(tls={"secretName": "s"}) == "s"
    assert certificate(type="Ingress", hostname="h.example.com", tls={"secretName": "s"}) is None


def test_the_web_chat_knows_its_address_by_its_host_name(render) -> None:
    children = render({}, {"type": "Ingress", "hostname": "chat.example.com", "tls": {"secretName": "s"}})
    (container,) = children["StatefulSet", "gateway-webui"]["spec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert told["WEBUI_URL"] == told["CORS_ALLOW_ORIGIN"] == "https://chat.example.com"
    assert told["WEBUI_AUTH_COOKIE_SECURE"] == "true"
