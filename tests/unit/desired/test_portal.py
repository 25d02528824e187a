from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from stoker.api.resolved import OperatorSettings, PublishedModel, ResolvedApiGateway
from stoker.desired.api_gateway import build_children, build_secrets
from stoker.desired.client_files import describe
from stoker.desired.portal import CONFIG_FIELD, build_portal
from stoker.desired.usage_pod import build_usage
from stoker.portal.config import PortalConfig
from stoker.portal_token import portal_token

OIDC = {
    "issuer": "https://login.example.com",
    "clientId": "stoker",
    "clientSecretRef": {"name": "login"},
    "rolesClaim": "realm_access.roles",
    "roleMap": [{"value": "ai-admins", "role": "admin"}],
}
STALLED = {
    "type": "Stalled",
    "status": "True",
    "reason": "GatedRepository",
    "message": "Give it a token.",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def portal(make_gateway: Any, make_model: Any) -> ResolvedApiGateway:
    status = {"readyReplicas": 1, "replicas": 2, "conditions": []}
    model = make_model("smol", servedModelName="smollm2", contextLength=2048).model_copy(update={})
    model = type(model).model_validate({**model.model_dump(by_alias=True), "status": status})
    gateway = make_gateway(portal={"maxKeyDays": 90}, roles=[{"name": "staff", "models": ["smol*"]}])
    return ResolvedApiGateway(gateway, (PublishedModel(model, stopped=False),), (), "secret-token")


def config_of(children: list[dict[str, Any]]) -> PortalConfig:
    (config,) = [child for child in children if child["kind"] == "ConfigMap"]
    return PortalConfig.model_validate_json(config["data"][CONFIG_FIELD])


def env_of(children: list[dict[str, Any]]) -> dict[str, str]:
    pod = next(child for child in children if child["kind"] == "Deployment")["spec"]["template"]["spec"]
    return {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}


def test_without_it_there_is_nothing_of_it(make_gateway: Any, settings: OperatorSettings) -> None:
    for spec in ({}, {"portal": {"enabled": False, "maxKeyDays": 3}}):
        resolved = ResolvedApiGateway(make_gateway(**spec), (), (), "secret-token")
        assert build_portal(resolved, settings) == []
        assert not [child for child in build_children(resolved, settings) if "portal" in child["metadata"]["name"]]


def test_it_may_read_its_own_configuration_and_no_secret(
    portal: ResolvedApiGateway, settings: OperatorSettings
) -> None:
    (role,) = [child for child in build_portal(portal, settings) if child["kind"] == "Role"]
    assert [rule["resources"] for rule in role["rules"]] == [["configmaps"], ["apikeys"]]
    assert role["rules"][0]["resourceNames"] == ["gateway-portal"]


def test_what_the_operator_tells_is_what_the_portal_reads(
    portal: ResolvedApiGateway, settings: OperatorSettings
) -> None:
    config = config_of(build_portal(portal, settings))
    assert [role.name for role in config.roles] == ["admin", "user", "staff"]
    (model,) = config.models
    assert (model.name, model.context, model.ready_replicas, model.replicas) == ("smollm2", 2048, 1, 2)
    assert config.max_key_days == 90


def test_people_are_told_of_a_model_what_programs_are_told(
    portal: ResolvedApiGateway, make_model: Any, settings: OperatorSettings
) -> None:
    model = make_model("big", contextLength=4096)
    seen = {"model": {"name": "Big 30B", "contextLength": 2048, "tools": True}, "fit": {"contextLength": 32768}}
    model = type(model).model_validate({**model.model_dump(by_alias=True), "status": seen})
    published = PublishedModel(model, stopped=False, engine_type="LlamaCpp")
    (told,) = config_of(build_portal(replace(portal, models=(published,)), settings)).models
    assert told.for_clients() == describe(portal.gateway, published)
    assert (told.context, told.answer, told.tools, told.title) == (32768, 8192, True, "Big 30B")


@pytest.mark.parametrize(
    ("spec", "status", "stopped", "state"),
    [
        ({}, {"readyReplicas": 1}, False, "Ready"),
        ({}, {"readyReplicas": 1}, True, "Stopped"),
        ({}, {}, False, "Starting"),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}, {"desiredReplicas": 0}, False, "Asleep"),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 2}}, {"desiredReplicas": 1}, False, "Starting"),
        ({}, {"conditions": [STALLED]}, False, "Failed"),
    ],
)
def test_the_state_of_a_model_is_one_word(
    portal: ResolvedApiGateway, make_model: Any, settings: OperatorSettings, spec: Any, status: Any, stopped: bool, state: str
) -> None:  # fmt: skip
    model = make_model("m", **spec)
    model = type(model).model_validate({**model.model_dump(by_alias=True), "status": status})
    (told,) = config_of(build_portal(replace(portal, models=(PublishedModel(model, stopped),)), settings)).models
    assert told.state == state
    assert told.message == ("Give it a token." if state == "Failed" else "")


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        ({"portal": {"url": "https://ai.example.com/"}}, "https://ai.example.com/v1"),
        ({"portal": {}, "expose": {"type": "Ingress", "hostname": "llm.example.com"}}, "http://told/v1"),
        ({"portal": {}, "expose": {"type": "LoadBalancer"}}, "http://told/v1"),
        ({"portal": {}, "expose": {"type": "NodePort"}}, None),
        ({"portal": {}}, None),
    ],
)
def test_the_base_url_is_one_that_works_outside_of_the_cluster(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings, spec: Any, url: str | None
) -> None:
    gateway = make_gateway(**spec)
    gateway = gateway.model_copy(update={"status": gateway.status.model_copy(update={"url": "http://told/v1"})})
    assert config_of(build_portal(replace(portal, gateway=gateway), settings)).url == url


def test_limits_are_those_that_the_gateway_counts_by(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings
) -> None:
    gateway = make_gateway(
        portal={},
        limits={"requestsPerMinute": 100, "tokensPerMinute": 9000, "perUser": {"concurrentRequests": 4}},
        roles=[{"name": "team", "limits": {"requestsPerMinute": 5}, "subjects": {"users": ["a@b"], "groups": ["dev"]}}],
    )
    config = config_of(build_portal(replace(portal, gateway=gateway), settings))
    team, user = config.role("team"), config.role("user")
    assert team
    assert user
    assert (team.limits.requests_per_minute, team.limits.tokens_per_minute) == (5, 9000)
    assert (user.limits.requests_per_minute, config.user_limits.concurrent_requests) == (100, 4)
    assert config.role_of("a@b", ()) == config.role_of("x", ["dev"]) == team
    assert config.role_of("x", ["ops"]) is None


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        ({"webUI": {}}, "http://gateway-webui.team.svc:80"),
        ({"webUI": {"expose": {"port": 8081}}}, "http://gateway-webui.team.svc:8081"),
        ({}, None),
        ({"webUI": {"enabled": False}}, None),
        ({"webUI": {"trustedHeader": {"from": [{"podSelector": {}}]}}}, None),
        ({"webUI": {"url": "https://chat.example.com"}, "auth": {"oidc": OIDC}}, None),
    ],
)
def test_the_chat_tells_who_somebody_is_where_nobody_else_does(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings, spec: Any, address: str | None
) -> None:
    children = build_portal(replace(portal, gateway=make_gateway(portal={}, **spec)), settings)
    assert config_of(children).chat_address == address


def test_it_reads_usage_and_load_with_a_token_of_its_own(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings
) -> None:
    children = build_portal(portal, settings)
    (secret,) = [child for child in children if child["kind"] == "Secret"]
    token = base64.b64decode(secret["data"]["readToken"]).decode()
    assert token == portal_token("secret-token") != base64.b64decode(secret["data"]["sessionKey"]).decode()
    env = env_of(children)
    assert env["STOKER_PORTAL_USAGE_URL"] == "http://gateway-usage.team.svc:8090"
    assert env["STOKER_PORTAL_GATEWAY_PODS"] == "gateway-pods.team.svc:9090"
    peer = {"podSelector": {"matchLabels": next(c for c in children if c["kind"] == "Deployment")["spec"]["selector"]["matchLabels"]}}  # fmt: skip
    for child in [*build_usage(portal.gateway, "secret-token", settings), *build_children(portal, settings)]:
        if child["kind"] == "NetworkPolicy" and child["metadata"]["name"] != "gateway-portal":
            assert any(peer in rule.get("from", ()) for rule in child["spec"]["ingress"]), child["metadata"]["name"]


def test_without_usage_it_still_finds_the_gateway_s_pods(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings
) -> None:
    children = build_portal(replace(portal, gateway=make_gateway(portal={}, usage={"enabled": False})), settings)
    assert "STOKER_PORTAL_USAGE_URL" not in env_of(children)
    assert "gateway-pods" in [child["metadata"]["name"] for child in children if child["kind"] == "Service"]
    with_usage = build_portal(portal, settings)
    assert "gateway-pods" not in [child["metadata"]["name"] for child in with_usage if child["kind"] == "Service"]


def test_people_sign_in_where_the_api_and_the_web_chat_let_them_in(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings
) -> None:
    assert config_of(build_portal(portal, settings)).oidc is None
    children = build_portal(replace(portal, gateway=make_gateway(portal={}, auth={"oidc": OIDC})), settings)
    found = config_of(children).oidc
    assert found is not None
    assert (found.issuer, found.roles_claim, found.role_map) == (
        OIDC["issuer"],
        "realm_access.roles",
        {"ai-admins": "admin"},
    )
    assert not found.accept_unverified_email
    generous = make_gateway(portal={}, auth={"oidc": {**OIDC, "acceptUnverifiedEmail": True}})
    told = config_of(build_portal(replace(portal, gateway=generous), settings)).oidc
    assert told
    assert told.accept_unverified_email
    pod = next(child for child in children if child["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert {"name": "oidc", "mountPath": "/var/run/stoker/portal/oidc", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    assert [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume] == [
        "gateway-portal",
        "login",
    ]


def test_only_the_gateway_reaches_it(portal: ResolvedApiGateway, settings: OperatorSettings) -> None:
    (policy,) = [child for child in build_portal(portal, settings) if child["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_its_sessions_are_signed_with_what_only_the_gateway_s_own_secret_gives(
    portal: ResolvedApiGateway, settings: OperatorSettings
) -> None:
    (secret,) = [child for child in build_portal(portal, settings) if child["kind"] == "Secret"]
    key = base64.b64decode(secret["data"]["sessionKey"]).decode()
    assert len(key) == 64
    assert "secret-token" not in key
    assert build_portal(portal, settings) == build_portal(portal, settings)


def test_the_gateway_is_told_which_paths_are_the_portal_s(portal: ResolvedApiGateway) -> None:
    routes = json.loads(base64.b64decode(build_secrets(portal)[-1]["data"]["routes.json"]))
    assert routes["sites"] == [{"service": "gateway-portal", "paths": ["/", "/keys"], "prefix": "/portal/"}]


def test_a_route_is_told_with_what_is_behind_it_and_is_as_near_as_the_first_that_answers(
    portal: ResolvedApiGateway, make_gateway: Any, make_model: Any, settings: OperatorSettings
) -> None:
    def published(name: str, stopped: bool = False, **status: Any) -> PublishedModel:
        model = make_model(name, aliases=[f"{name}-too"])
        return PublishedModel(type(model).model_validate({**model.model_dump(by_alias=True), "status": status}), stopped)  # fmt: skip

    models = (
        published("up", readyReplicas=1, replicas=1),
        published("broken", conditions=[STALLED]),
        published("off", stopped=True),
        published("coming"),
    )
    outside = {"external": {"url": "https://api.example.com/v1", "model": "big"}}

    def told(*behind: str, fallbacks: list[Any] | None = None) -> Any:
        entries = [{"model": name} for name in behind]
        route = {"name": "assistant", "models": entries, "fallbacks": fallbacks or []}
        gateway = make_gateway(portal={}, routes=[route])
        return config_of(build_portal(replace(portal, gateway=gateway, models=models), settings)).routes

    (route,) = told("broken", "up-too", "not-there", "off", fallbacks=[outside, {"model": "coming"}, {"model": "gone"}])
    assert (route.name, route.state, route.behind) == ("assistant", "Ready", ("broken", "up-too"))
    assert route.fallbacks == ("big at api.example.com", "coming")
    assert [route.state for route in told("broken", fallbacks=[{"model": "coming"}])] == ["Starting"]
    (route,) = told("broken")
    assert (route.state, route.message) == ("Failed", "Give it a token.")
    assert [route.state for route in told("broken", fallbacks=[outside])] == ["Ready"]
    assert told("off", "not-there") == ()
