from __future__ import annotations

from typing import Any

import pytest

from stoker.api.resolved import PublishedModel, ResolvedApiGateway
from stoker.desired.api_gateway import build_children
from stoker.desired.gateway_egress import build_egress

OIDC = {"issuer": "http://idp.sso.svc:8080/realms/a", "clientId": "c", "clientSecretRef": {"name": "s"}}
INTROSPECTION = {"url": "https://idp.example.com:8443/introspect", "clientId": "c", "clientSecretRef": {"name": "s"}}
ROUTES = [
    {
        "name": "smart",
        "models": [{"model": "a"}],
        "fallbacks": [
            {"external": {"url": "http://far.other.svc.cluster.local/v1", "model": "b"}},
            {"external": {"url": "https://api.example.com/v1", "model": "b"}},
            {"model": "c"},
        ],
    }
]


@pytest.fixture
def resolve(make_gateway):
    def made(models=(), redis_url: str = "", **spec: Any) -> ResolvedApiGateway:
        published = tuple(PublishedModel(model, False) for model in models)
        return ResolvedApiGateway(make_gateway(**spec), published, (), "token", redis_url=redis_url)

    return made


def policy(resolved: ResolvedApiGateway, settings) -> dict[str, Any]:
    (found,) = [child["spec"] for child in build_children(resolved, settings) if child["kind"] == "NetworkPolicy"]
    return found


def namespaces(rules: list[dict[str, Any]]) -> list[str]:
    peers = [peer for rule in rules for peer in rule.get("to", ()) if "namespaceSelector" in peer]
    return [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers]


def test_unless_it_is_asked_for_nothing_is_restricted(resolve, settings) -> None:
    assert policy(resolve(), settings)["policyTypes"] == ["Ingress"]
    restricted = policy(resolve(egress=[]), settings)
    assert restricted["policyTypes"] == ["Ingress", "Egress"]
    assert [entry["port"] for entry in restricted["egress"][1]["ports"]] == [443, 6443]


def test_the_models_are_reached_where_they_are(resolve, make_model) -> None:
    here, there = make_model(), make_model()
    here, there = make_model(), make_model(metadata={"namespace": "team-b"})
    rules = build_egress(resolve([here, there], egress=[]))
    assert namespaces(rules) == sorted({here.metadata.namespace, "team-b"})
    assert all("ports" not in rule for rule in rules if "to" in rule), "an engine of one's own has a port of its own"


def test_what_the_spec_has_it_call_is_let_through(resolve) -> None:
    auth = {"oidc": OIDC, "introspection": INTROSPECTION}
    rules = build_egress(resolve(redis_url="redis://:p%40ss@cache:6380/0", auth=auth, routes=ROUTES, egress=[]))
    assert namespaces(rules) == ["other", "sso", "team"]
    assert [entry["port"] for entry in rules[1]["ports"]] == [443, 6443, 8443]
    rules = build_egress(resolve(redis_url="rediss://cache.example.com", egress=[]))
    assert [entry["port"] for entry in rules[1]["ports"]] == [443, 6379, 6443]
    assert build_egress(resolve(redis_url="redis://[", egress=[])) == build_egress(resolve(egress=[]))


def test_rules_of_ones_own_come_on_top(resolve) -> None:
    own = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    assert build_egress(resolve(egress=[own]))[-1] == own
