"""What Keycloak, Authentik and Authelia say of somebody, and where: recorded from their sources and documentation, names changed.

Keycloak: OIDCLoginProtocolFactory (the mapper "realm roles" fills the access token only, until "Add to ID token" is switched on);
GroupMembershipMapper (full path: /team/part). Authentik: blueprints/system/providers-oauth2.yaml (groups come with the scope profile,
roles with the scope entitlements; since 2025.10 email_verified is false of everybody). Authelia: docs, "OpenID Connect 1.0 Claims" (its ID token proves who signed in and
says no more; the access token's aud is what the client's `audience` says, never the client).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EMAIL = "alice@example.com"
ROLE_MAP = [{"value": "llm-admin", "role": "admin"}, {"value": "llm-user", "role": "user"}]


@dataclass(frozen=True)
class Shape:
    """One way in which a product is set up."""

    name: str
    settings: dict[str, Any]
    """Of auth.oidc."""
    id_token: dict[str, Any]
    userinfo: dict[str, Any]
    access_token: dict[str, Any]

    def oidc(self) -> dict[str, Any]:
        """auth.oidc as somebody would write it for this product."""
        return {
            "issuer": self.id_token["iss"],
            "clientId": "chat",
            "clientSecretRef": {"name": "chat-client"},
            "roleMap": ROLE_MAP,
            **self.settings,
        }

    def __str__(self) -> str:
        return self.name


def _person(**more: Any) -> dict[str, Any]:
    return {"email": EMAIL, "preferred_username": "alice", "name": "Alice Miller", **more}


KEYCLOAK_ROLES = {
    "realm_access": {"roles": ["default-roles-team", "llm-admin", "offline_access", "uma_authorization"]},
    "resource_access": {"chat": {"roles": ["llm-admin"]}, "account": {"roles": ["manage-account", "view-profile"]}},
}
KEYCLOAK_ID_TOKEN = {
    "iss": "https://idp.example.com/realms/team",
    "aud": "chat",
    "azp": "chat",
    "sub": "2f4b4f4e-0b7e-4f0c-9d4e-5c1f5a0d7a11",
    "typ": "ID",
    "acr": "1",
    "sid": "6b9a7c0f-1d9c-4b0e-8b0b-0d4a6a9d2d55",
    "at_hash": "VYoZ0fWlYw0p3xX1c2nQqA",
    **_person(email_verified=True, given_name="Alice", family_name="Miller"),
}
KEYCLOAK_USERINFO = {"sub": KEYCLOAK_ID_TOKEN["sub"], **_person(email_verified=True)}
KEYCLOAK_ACCESS_TOKEN = {
    **KEYCLOAK_ID_TOKEN,
    "typ": "Bearer",
    # The audience mapper adds chat; account comes with the client roles.
    "aud": ["chat", "account"],
    "scope": "openid email profile",
    "allowed-origins": ["https://chat.example.com"],
    **KEYCLOAK_ROLES,
}
KEYCLOAK = Shape(
    "Keycloak, realm roles, added to the ID token",
    {"rolesClaim": "realm_access.roles"},
    {**KEYCLOAK_ID_TOKEN, **KEYCLOAK_ROLES},
    KEYCLOAK_USERINFO,
    KEYCLOAK_ACCESS_TOKEN,
)
KEYCLOAK_CLIENT_ROLES = Shape(
    "Keycloak, roles of the client, added to the ID token",
    {"rolesClaim": "resource_access.chat.roles"},
    {**KEYCLOAK_ID_TOKEN, **KEYCLOAK_ROLES},
    KEYCLOAK_USERINFO,
    KEYCLOAK_ACCESS_TOKEN,
)
KEYCLOAK_GROUPS = Shape(
    "Keycloak, groups with their full path",
    {"rolesClaim": "groups", "roleMap": [{"value": "/llm/admins", "role": "admin"}]},
    {**KEYCLOAK_ID_TOKEN, "groups": ["/staff", "/llm/admins"]},
    {**KEYCLOAK_USERINFO, "groups": ["/staff", "/llm/admins"]},
    {**KEYCLOAK_ACCESS_TOKEN, "groups": ["/staff", "/llm/admins"]},
)
KEYCLOAK_USERINFO_ONLY = Shape(
    "Keycloak, realm roles, added to userinfo only",
    {"rolesClaim": "realm_access.roles"},
    KEYCLOAK_ID_TOKEN,
    {**KEYCLOAK_USERINFO, **KEYCLOAK_ROLES},
    KEYCLOAK_ACCESS_TOKEN,
)
KEYCLOAK_AS_IT_COMES = Shape(
    "Keycloak as it comes: roles in the access token only",
    {"rolesClaim": "realm_access.roles"},
    KEYCLOAK_ID_TOKEN,
    KEYCLOAK_USERINFO,
    KEYCLOAK_ACCESS_TOKEN,
)

AUTHENTIK_ID_TOKEN = {
    "iss": "https://idp.example.com/application/o/chat/",
    "aud": "chat",
    "azp": "chat",
    "sub": "8d6a0a4f5bd1f8f56c5c1b1f6b1b3d2e8d6a0a4f5bd1f8f56c5c1b1f6b1b3d2e",
    "acr": "goauthentik.io/providers/oauth2/default",
    "amr": ["pwd"],
    "uid": "bXl1aWQtb2YtdGhlLXRva2Vu",
    **_person(email_verified=False, given_name="Alice Miller", nickname="alice"),
    "groups": ["authentik Admins", "llm-admin"],
}
AUTHENTIK_USERINFO = {key: value for key, value in AUTHENTIK_ID_TOKEN.items() if key not in ("iss", "aud", "azp")}
AUTHENTIK = Shape(
    "Authentik, groups",
    {"rolesClaim": "groups", "acceptUnverifiedEmail": True},
    AUTHENTIK_ID_TOKEN,
    AUTHENTIK_USERINFO,
    AUTHENTIK_ID_TOKEN,
)
AUTHENTIK_ENTITLED = {"entitlements": ["llm-admin"], "roles": ["llm-admin"]}
AUTHENTIK_ENTITLEMENTS = Shape(
    "Authentik, entitlements of the application",
    {"scopes": ["openid", "email", "profile", "entitlements"], "acceptUnverifiedEmail": True},
    {**AUTHENTIK_ID_TOKEN, **AUTHENTIK_ENTITLED, "groups": []},
    {**AUTHENTIK_USERINFO, **AUTHENTIK_ENTITLED, "groups": []},
    {**AUTHENTIK_ID_TOKEN, **AUTHENTIK_ENTITLED, "groups": []},
)

AUTHELIA_ID_TOKEN = {
    "iss": "https://idp.example.com",
    "aud": ["chat"],
    "azp": "chat",
    "sub": "5f1c5c6a-3c2c-4a3f-8c63-0f0b6a5d3b1e",
    "jti": "7a1f2f0e-52d7-4b0c-a9b6-0d3a5e0f9d11",
    "amr": ["pwd", "otp", "mfa"],
    "at_hash": "VYoZ0fWlYw0p3xX1c2nQqA",
}
AUTHELIA = Shape(
    "Authelia",
    {
        "rolesClaim": "groups",
        "scopes": ["openid", "email", "profile", "groups"],
        "audiences": ["https://llm.example.com"],
    },
    AUTHELIA_ID_TOKEN,
    {"sub": AUTHELIA_ID_TOKEN["sub"], **_person(email_verified=True), "groups": ["dev", "llm-admin"]},
    {
        "iss": "https://idp.example.com",
        "aud": ["https://llm.example.com"],
        "client_id": "chat",
        "sub": AUTHELIA_ID_TOKEN["sub"],
        "scp": ["openid", "email", "profile", "groups"],
        # By the claims policy of the client.
        "email": EMAIL,
        "groups": ["dev", "llm-admin"],
    },
)

SHAPES = (KEYCLOAK, KEYCLOAK_CLIENT_ROLES, KEYCLOAK_GROUPS, AUTHENTIK, AUTHENTIK_ENTITLEMENTS, AUTHELIA)
