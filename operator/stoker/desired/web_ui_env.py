"""What a gateway's Open WebUI is told to be: closed, offline, a client of its gateway only.

Names and meanings: https://docs.openwebui.com/reference/env-configuration/; tried with the default image.
"""

from __future__ import annotations

import json
from typing import Any

from stoker.api.api_gateway import ApiGateway
from stoker.api.auth import BUILT_IN_ROLES, Oidc
from stoker.api.names import (
    CLIENT_SECRET_FIELD,
    JWT_SECRET_FIELD,
    KEY_SECRET_FIELD,
    URL_FIELD,
    gateway_inside_name,
    web_ui_admin_name,
    web_ui_name,
    web_ui_secrets_name,
)
from stoker.api.web_ui import WebUI
from stoker.desired.objects import Object, compact_json

DATA_DIRECTORY = "/data"
STATIC_DIRECTORY = "/static"
HOME = "/tmp"  # noqa: S108 - a path in the container
SECRET_KEY_FIELD = "secretKey"
EMAIL_FIELD = "email"
PASSWORD_FIELD = "password"
GROUPS_HEADER = "X-OpenWebUI-User-Groups"

# Our values that keep people out or data in; whoever sets another one is told so.
_GUARDS = frozenset(
    {
        "BYPASS_MODEL_ACCESS_CONTROL",
        "CORS_ALLOW_ORIGIN",
        "DEFAULT_USER_ROLE",
        "ENABLE_API_KEYS",
        "ENABLE_COMMUNITY_SHARING",
        "ENABLE_DIRECT_CONNECTIONS",
        "ENABLE_FORWARD_USER_INFO_HEADERS",
        "ENABLE_INITIAL_ADMIN_SIGNUP",
        "ENABLE_OAUTH_GROUP_MANAGEMENT",
        "ENABLE_OAUTH_ROLE_MANAGEMENT",
        "ENABLE_OLLAMA_API",
        "ENABLE_PERSISTENT_CONFIG",
        "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS",
        "ENABLE_PASSWORD_AUTH",
        "ENABLE_SIGNUP",
        "FORWARD_USER_INFO_HEADER_JWT_SECRET",
        "OPENAI_API_BASE_URL",
        "OAUTH_ADMIN_ROLES",
        "OAUTH_ALLOWED_ROLES",
        "OAUTH_CODE_CHALLENGE_METHOD",
        "OAUTH_EMAIL_CLAIM",
        "OAUTH_GROUPS_CLAIM",
        "OAUTH_MERGE_ACCOUNTS_BY_EMAIL",
        "OAUTH_ROLES_CLAIM",
        "OPENAI_API_CONFIGS",
        "OPENAI_API_KEY",
        "WEBUI_AUTH",
        "WEBUI_AUTH_COOKIE_SAME_SITE",
        "WEBUI_AUTH_COOKIE_SECURE",
        "WEBUI_SECRET_KEY",
        "WEBUI_SESSION_COOKIE_SAME_SITE",
        "WEBUI_SESSION_COOKIE_SECURE",
    }
)
# What Stoker leaves unset, and what opens a door once it is set.
_DOORS = frozenset(
    {
        "CORS_ALLOW_CUSTOM_SCHEME",
        "ENABLE_OPENAI_API_PASSTHROUGH",
        "OPENAI_API_BASE_URLS",
        # The address of an account that somebody has already is then whatever he makes it at the identity provider.
        "OAUTH_UPDATE_EMAIL_ON_LOGIN",
        "OPENAI_API_KEYS",
        "WEBUI_AUTH_TRUSTED_EMAIL_HEADER",
        "WEBUI_AUTH_TRUSTED_ROLE_HEADER",
    }
)


def build_env(gateway: ApiGateway, ui: WebUI) -> list[Object]:
    """Stoker's settings with the user's over them, by name; his own come last, so that they may refer to ours."""
    ours = {entry["name"]: entry for entry in _settings(gateway, ui)}
    theirs = {entry["name"]: entry for entry in ui.env or () if entry.get("name")}
    return [*(entry for name, entry in ours.items() if name not in theirs), *theirs.values()]


def weakening_overrides(gateway: ApiGateway, ui: WebUI) -> list[str]:
    """Names of the user's settings that take away something that protects; sorted."""
    ours = {entry["name"]: entry for entry in _settings(gateway, ui)}
    found = set()
    for entry in ui.env or ():
        name = entry.get("name", "")
        differs = name in _GUARDS and name in ours and _plain(entry) != _plain(ours[name])
        if differs or name in _DOORS:
            found.add(name)
    return sorted(found)


def connection_url(gateway: ApiGateway) -> str:
    """Where the web chat finds its gateway."""
    namespace, name = gateway.key
    if gateway.has_inside:
        return f"http://{gateway_inside_name(name)}.{namespace}.svc/v1"
    port = "" if gateway.spec.expose.service_port == 80 else f":{gateway.spec.expose.service_port}"
    return f"http://{name}.{namespace}.svc{port}/v1"


def _settings(gateway: ApiGateway, ui: WebUI) -> list[Object]:
    name = gateway.metadata.name
    settings: dict[str, str | Object] = {
        "PORT": "8080",
        "ENV": "prod",
        "HOME": HOME,
        "DATA_DIR": DATA_DIRECTORY,
        "STATIC_DIR": STATIC_DIRECTORY,
        # The environment is the truth: else the first start copies it into the database, and later changes count for nothing.
        "ENABLE_PERSISTENT_CONFIG": "false",
        "WEBUI_SECRET_KEY": _secret(web_ui_secrets_name(name), SECRET_KEY_FIELD),
        **_accounts(name),
        **_connection(gateway),
        **_offline(),
        **_address(gateway, ui),
        **_sign_on(gateway, ui),
        **_tasks(ui),
    }
    if ui.database_secret_ref is not None:
        settings["DATABASE_URL"] = _secret(ui.database_secret_ref.name, URL_FIELD)
    if ui.redis_secret_ref is not None:
        settings["REDIS_URL"] = _secret(ui.redis_secret_ref.name, URL_FIELD)
        settings["WEBSOCKET_REDIS_URL"] = _secret(ui.redis_secret_ref.name, URL_FIELD)
        settings["WEBSOCKET_MANAGER"] = "redis"
    return [
        {"name": key, "value": value} if isinstance(value, str) else {"name": key, "valueFrom": value}
        for key, value in settings.items()
    ]


def _accounts(gateway: str) -> dict[str, str | Object]:
    """Nobody comes in by himself; the first account is made here, for else the first who signs in would be admin."""
    return {
        "WEBUI_AUTH": "true",
        "WEBUI_ADMIN_EMAIL": _secret(web_ui_admin_name(gateway), EMAIL_FIELD),
        "WEBUI_ADMIN_PASSWORD": _secret(web_ui_admin_name(gateway), PASSWORD_FIELD),
        "WEBUI_ADMIN_NAME": "Admin",
        "ENABLE_SIGNUP": "false",
        "ENABLE_INITIAL_ADMIN_SIGNUP": "false",
        "DEFAULT_USER_ROLE": "pending",
        "JWT_EXPIRES_IN": "1w",
        # Tools take keys of the gateway: these would be slower, never expire, and answer with errors that are not OpenAI's.
        "ENABLE_API_KEYS": "false",
    }


def _connection(gateway: ApiGateway) -> dict[str, str | Object]:
    """One connection, one list of models for all; who may use a model is the gateway's to say, call by call."""
    metadata = {"capabilities": {"builtin_tools": False, "usage": True}}
    # The token that says who somebody is says nothing of his groups.
    told = {"0": {"enable": True, "headers": {GROUPS_HEADER: "{{USER_GROUPS}}"}}}
    return {
        # All else that speaks OpenAI (speech, embeddings, images) takes these two as its default.
        "OPENAI_API_BASE_URL": connection_url(gateway),
        "OPENAI_API_KEY": _secret(web_ui_name(gateway.metadata.name), KEY_SECRET_FIELD),
        "OPENAI_API_CONFIGS": compact_json(told),
        "ENABLE_OLLAMA_API": "false",
        "ENABLE_DIRECT_CONNECTIONS": "false",
        "BYPASS_MODEL_ACCESS_CONTROL": "true",
        "ENABLE_FORWARD_USER_INFO_HEADERS": "true",
        "FORWARD_USER_INFO_HEADER_JWT_SECRET": _secret(web_ui_secrets_name(gateway.metadata.name), JWT_SECRET_FIELD),
        # Without it each message carries 25 kB of tool descriptions, and streams do not ask for their usage.
        "DEFAULT_MODEL_METADATA": compact_json(metadata),
    }


def _offline() -> dict[str, str | Object]:
    """Nothing is fetched from the internet, and nothing is reported there."""
    return {
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "ENABLE_VERSION_UPDATE_CHECK": "false",
        "ENABLE_COMMUNITY_SHARING": "false",
        "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",
        "SCARF_NO_ANALYTICS": "true",
        "DO_NOT_TRACK": "true",
        "ANONYMIZED_TELEMETRY": "false",
        # No models in the pod itself: those for speech and embeddings take half a gigabyte of memory.
        "USE_SLIM_DOCKER": "true",
        "AUDIO_STT_ENGINE": "openai",
        "RAG_EMBEDDING_ENGINE": "openai",
        # Documents go into the context whole, which needs no embedding model.
        "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
        "VECTOR_DB": "chroma",
    }


def _sign_on(gateway: ApiGateway, ui: WebUI) -> dict[str, str | Object]:
    """Who somebody is, is the identity provider's to say, or a proxy's in front; never an account's of the same address here."""
    settings: dict[str, str | Object] = {}
    if (oidc := gateway.spec.auth.oidc) is not None:
        values = _role_values(gateway, oidc)
        settings = {
            "ENABLE_OAUTH_SIGNUP": "true",
            "OAUTH_MERGE_ACCOUNTS_BY_EMAIL": "false",
            "OAUTH_CLIENT_ID": oidc.client_id,
            "OAUTH_CLIENT_SECRET": _secret(oidc.client_secret_ref.name, CLIENT_SECRET_FIELD),
            "OPENID_PROVIDER_URL": oidc.issuer.rstrip("/") + "/.well-known/openid-configuration",
            "OPENID_REDIRECT_URI": f"{ui.browser_address}/oauth/oidc/callback",
            "OAUTH_PROVIDER_NAME": oidc.provider_name,
            "OAUTH_SCOPES": " ".join(oidc.scopes),
            "OAUTH_CODE_CHALLENGE_METHOD": "S256",
            "OAUTH_EMAIL_CLAIM": oidc.email_claim,
            "ENABLE_OAUTH_ROLE_MANAGEMENT": "true",
            "OAUTH_ROLES_CLAIM": oidc.roles_claim,
            "OAUTH_ALLOWED_ROLES": ",".join(value for value, role in values.items() if role != "admin"),
            "OAUTH_ADMIN_ROLES": ",".join(value for value, role in values.items() if role == "admin"),
            "ENABLE_OAUTH_GROUP_MANAGEMENT": "true",
            "ENABLE_OAUTH_GROUP_CREATION": "true",
            "OAUTH_GROUPS_CLAIM": _groups_claim(oidc),
            "ENABLE_PASSWORD_AUTH": str(oidc.password_login).lower(),
            "ENABLE_LOGIN_FORM": str(oidc.password_login).lower(),
        }
    elif (header := ui.trusted_header) is not None:
        names = {"EMAIL": header.email, "NAME": header.name, "GROUPS": header.groups, "ROLE": header.role}
        settings = {f"WEBUI_AUTH_TRUSTED_{what}_HEADER": name for what, name in names.items() if name is not None}
    return settings


def _role_values(gateway: ApiGateway, oidc: Oidc) -> dict[str, str]:
    """What lets somebody in, and as what: roleMap, and the groups that roles name where those are in the same claim."""
    values: dict[str, str] = {}
    for pair in oidc.roles:
        values.setdefault(pair.value, pair.role)
    if oidc.roles_claim == oidc.groups_claim:
        for role in gateway.spec.roles:
            for group in role.subjects.groups if role.subjects else ():
                # Open WebUI takes a list with commas, in which * is everybody.
                if "," not in group and group != "*":
                    values.setdefault(group, role.name)
    return values


def _groups_claim(oidc: Oidc) -> str:
    """Open WebUI itself knows two roles, and takes admin where somebody is both; what else roleMap says reaches the gateway as groups."""
    roles = [pair.role for pair in oidc.roles]
    told_whole = set(roles) <= set(BUILT_IN_ROLES) and roles == sorted(roles)
    return oidc.groups_claim if told_whole else oidc.roles_claim


def _address(gateway: ApiGateway, ui: WebUI) -> dict[str, str | Object]:
    """Cookies go to this site only; where its address is known, other origins are refused, too."""
    # An identity provider sends people back from another site, with a cookie that must come along.
    same_site = "lax" if gateway.spec.auth.oidc is not None else "strict"
    settings: dict[str, str | Object] = {
        "WEBUI_SESSION_COOKIE_SAME_SITE": same_site,
        "WEBUI_AUTH_COOKIE_SAME_SITE": same_site,
    }
    address = ui.browser_address
    if address is not None:
        secure = str(address.startswith("https://")).lower()
        settings |= {
            "WEBUI_URL": address,
            "CORS_ALLOW_ORIGIN": address,
            "WEBUI_SESSION_COOKIE_SECURE": secure,
            "WEBUI_AUTH_COOKIE_SECURE": secure,
        }
    return settings


def _tasks(ui: WebUI) -> dict[str, str | Object]:
    """Each would be one more call for every message."""
    wanted = str(ui.task_model is not None).lower()
    settings: dict[str, str | Object] = {f"ENABLE_{task}_GENERATION": wanted for task in ("TITLE", "TAGS", "FOLLOW_UP")}
    if ui.task_model is not None:
        settings["TASK_MODEL_EXTERNAL"] = ui.task_model
    return settings


def _secret(name: str, key: str) -> Object:
    return {"secretKeyRef": {"name": name, "key": key}}


def _plain(entry: Object) -> Any:
    return json.dumps(entry.get("valueFrom")) if "valueFrom" in entry else entry.get("value", "")
