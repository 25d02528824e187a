"""Tokens in the shapes that their documentation gives for Keycloak, Authentik and Authelia, judged by what spec.auth.oidc becomes."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.api import ApiGateway
from stoker.desired.gateway_tokens import build_issuers
from stoker.gateway.issuers import parse_issuer
from stoker.gateway.tokens import identify as judge

NOW = 1_800_000_000.0

KEYCLOAK: dict[str, Any] = {
    "iss": "https://idp.example.com/realms/team",
    "aud": ["chat", "account"],
    "azp": "chat",
    "sub": "2f4b4f4e-0b7e-4f0c-9d4e-5c1f5a0d7a11",
    "preferred_username": "alice",
    "email": "alice@example.com",
    "email_verified": True,
    "realm_access": {"roles": ["llm-admin", "offline_access", "uma_authorization"]},
    "resource_access": {"account": {"roles": ["view-profile"]}},
    "groups": ["/staff"],
    "scope": "openid email profile",
}
AUTHENTIK: dict[str, Any] = {
    "iss": "https://idp.example.com/application/o/chat/",
    "aud": "chat",
    "azp": "chat",
    "sub": "8d6a0a4f5bd1f8f5",
    "preferred_username": "alice",
    "nickname": "alice",
    "email": "alice@example.com",
    "groups": ["llm-admin", "authentik Admins"],
}
AUTHELIA: dict[str, Any] = {
    "iss": "https://idp.example.com",
    "aud": ["chat"],
    "client_id": "chat",
    "sub": "5f1c5c6a-3c2c-4a3f-8c63-0f0b6a5d3b1e",
    "preferred_username": "alice",
    "email": "alice@example.com",
    "groups": ["llm-admin", "dev"],
}
SHAPES = [
    pytest.param(KEYCLOAK, {"rolesClaim": "realm_access.roles"}, id="Keycloak"),
    pytest.param(AUTHENTIK, {"rolesClaim": "groups"}, id="Authentik"),
    pytest.param(AUTHELIA, {"rolesClaim": "groups"}, id="Authelia"),
]


def identify(claims: dict[str, Any], settings: dict[str, Any]) -> Any:
    oidc = {
        "issuer": claims["iss"],
        "clientId": "chat",
        "clientSecretRef": {"name": "chat-client"},
        "roleMap": [{"value": "llm-admin", "role": "admin"}, {"value": "llm-user", "role": "user"}],
        **settings,
    }
    gateway = ApiGateway.model_validate({"metadata": {"name": "gateway"}, "spec": {"auth": {"oidc": oidc}}})
    (told,) = build_issuers(gateway, {})
    return judge(parse_issuer(told), {**claims, "exp": NOW + 600}, NOW)


@pytest.mark.parametrize(("claims", "settings"), SHAPES)
def test_a_person_is_known_by_his_address_and_has_his_role(claims: dict[str, Any], settings: dict[str, Any]) -> None:
    identity = identify(claims, settings)
    assert identity.role == "admin"
    assert identity.user == "alice@example.com"


@pytest.mark.parametrize(("claims", "settings"), SHAPES)
def test_whose_roles_are_not_mapped_has_none(claims: dict[str, Any], settings: dict[str, Any]) -> None:
    others = {**claims, "realm_access": {"roles": ["offline_access"]}, "groups": ["dev"]}
    assert identify(others, settings).role == ""


def test_a_token_for_somebody_else_is_refused() -> None:
    with pytest.raises(Exception, match="aud"):
        identify({**KEYCLOAK, "aud": ["account"]}, {"rolesClaim": "realm_access.roles"})
