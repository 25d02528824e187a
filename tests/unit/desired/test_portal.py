from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from stoker.api.resolved import OperatorSettings, PublishedModel, ResolvedApiGateway
from stoker.desired.api_gateway import build_children, build_secrets
from stoker.desired.portal import CONFIG_FIELD, build_portal
from stoker.portal.config import PortalConfig


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
    assert (model.name, model.context_length, model.ready_replicas, model.replicas) == ("smollm2", 2048, 1, 2)
    assert config.max_key_days == 90


def test_people_sign_in_where_the_api_and_the_web_chat_let_them_in(
    portal: ResolvedApiGateway, make_gateway: Any, settings: OperatorSettings
) -> None:
    assert config_of(build_portal(portal, settings)).oidc is None
    oidc = {
        "issuer": "https://login.example.com",
        "clientId": "stoker",
        "clientSecretRef": {"name": "login"},
        "rolesClaim": "realm_access.roles",
        "roleMap": [{"value": "ai-admins", "role": "admin"}],
    }
    children = build_portal(replace(portal, gateway=make_gateway(portal={}, auth={"oidc": oidc})), settings)
    found = config_of(children).oidc
    assert found is not None
    assert (found.issuer, found.roles_claim, found.role_map) == (
        oidc["issuer"],
        "realm_access.roles",
        {"ai-admins": "admin"},
    )
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
