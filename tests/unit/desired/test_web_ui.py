"""The web chat as it is rendered; its environment to the letter, for one wrong word opens a door."""

from __future__ import annotations

import base64
import json

import pytest

from stoker.api.resolved import OperatorSettings, ResolvedApiGateway
from stoker.desired.api_gateway import build_secrets, build_workload
from stoker.desired.web_ui import build_children, build_kept, is_kept_for
from stoker.desired.web_ui_env import build_env, weakening_overrides
from stoker.errors import Stalled


@pytest.fixture
def render(make_gateway, settings):
    def make(digest: str = "abc", expose=None, **ui):
        gateway = make_gateway(webUI=ui, **({"expose": expose} if expose else {}))
        return {child["kind"]: child for child in build_children(gateway, gateway.spec.web_ui, settings, digest)}

    return make


@pytest.fixture
def env(make_gateway):
    def make(expose=None, **ui):
        gateway = make_gateway(webUI=ui, **({"expose": expose} if expose else {}))
        return {
            entry["name"]: entry.get("value", entry.get("valueFrom"))
            for entry in build_env(gateway, gateway.spec.web_ui)
        }

    return make


def pod(children) -> dict:
    return children["StatefulSet"]["spec"]["template"]["spec"]


def secret(name: str, key: str) -> dict:
    return {"secretKeyRef": {"name": name, "key": key}}


def test_the_environment_is_to_the_letter_what_was_tried(env) -> None:
    assert env() == {
        "PORT": "8080",
        "ENV": "prod",
        "HOME": "/tmp",
        "DATA_DIR": "/data",
        "STATIC_DIR": "/static",
        "ENABLE_PERSISTENT_CONFIG": "false",
        "WEBUI_SECRET_KEY": secret("gateway-webui-secrets", "secretKey"),
        "WEBUI_AUTH": "true",
        "WEBUI_ADMIN_EMAIL": secret("gateway-webui-admin", "email"),
        "WEBUI_ADMIN_PASSWORD": secret("gateway-webui-admin", "password"),
        "WEBUI_ADMIN_NAME": "Admin",
        "ENABLE_SIGNUP": "false",
        "ENABLE_INITIAL_ADMIN_SIGNUP": "false",
        "DEFAULT_USER_ROLE": "pending",
        "JWT_EXPIRES_IN": "1w",
        "ENABLE_API_KEYS": "false",
        "OPENAI_API_BASE_URL": "http://gateway.team.svc/v1",
        "OPENAI_API_KEY": secret("gateway-webui", "apiKey"),
        "OPENAI_API_CONFIGS": '{"0":{"enable":true,"headers":{"X-OpenWebUI-User-Groups":"{{USER_GROUPS}}"}}}',
        "ENABLE_OLLAMA_API": "false",
        "ENABLE_DIRECT_CONNECTIONS": "false",
        "BYPASS_MODEL_ACCESS_CONTROL": "true",
        "ENABLE_FORWARD_USER_INFO_HEADERS": "true",
        "FORWARD_USER_INFO_HEADER_JWT_SECRET": secret("gateway-webui-secrets", "secret"),
        "DEFAULT_MODEL_METADATA": '{"capabilities":{"builtin_tools":false,"usage":true}}',
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "ENABLE_VERSION_UPDATE_CHECK": "false",
        "ENABLE_COMMUNITY_SHARING": "false",
        "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",
        "SCARF_NO_ANALYTICS": "true",
        "DO_NOT_TRACK": "true",
        "ANONYMIZED_TELEMETRY": "false",
        "USE_SLIM_DOCKER": "true",
        "AUDIO_STT_ENGINE": "openai",
        "RAG_EMBEDDING_ENGINE": "openai",
        "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
        "VECTOR_DB": "chroma",
        "WEBUI_SESSION_COOKIE_SAME_SITE": "strict",
        "WEBUI_AUTH_COOKIE_SAME_SITE": "strict",
        "ENABLE_TITLE_GENERATION": "false",
        "ENABLE_TAGS_GENERATION": "false",
        "ENABLE_FOLLOW_UP_GENERATION": "false",
    }


def test_a_known_address_keeps_other_origins_out_and_https_makes_cookies_secure(env) -> None:
    known = env(url="https://chat.example.com")
    assert known["WEBUI_URL"] == known["CORS_ALLOW_ORIGIN"] == "https://chat.example.com"
    assert known["WEBUI_AUTH_COOKIE_SECURE"] == known["WEBUI_SESSION_COOKIE_SECURE"] == "true"
    assert env(url="http://127.0.0.1:30081")["WEBUI_AUTH_COOKIE_SECURE"] == "false"


def test_a_small_model_makes_titles_where_one_is_named(env) -> None:
    named = env(taskModel="tiny")
    assert (named["TASK_MODEL_EXTERNAL"], named["ENABLE_TITLE_GENERATION"]) == ("tiny", "true")


def test_the_connection_follows_the_gateways_port(env) -> None:
    assert env(expose={"port": 8443})["OPENAI_API_BASE_URL"] == "http://gateway.team.svc:8443/v1"


def test_where_the_gateway_serves_tls_the_web_chat_alone_may_call_it_without(make_gateway, settings, env) -> None:
    tls = {"type": "LoadBalancer", "hostname": "llm.example.com", "tls": {"secretName": "llm-tls"}}
    assert env(expose=tls)["OPENAI_API_BASE_URL"] == "http://gateway-inside.team.svc/v1"
    gateway = make_gateway(webUI={}, expose=tls)
    children = build_children(gateway, gateway.spec.web_ui, settings, "abc")
    (inside,) = [child["spec"] for child in children if child["metadata"]["name"] == "gateway-inside"]
    labels = {"app.kubernetes.io/component": "gateway", "stoker.dev/api-gateway": "gateway"}
    assert (inside["type"], inside["selector"], inside["ports"][0]["targetPort"]) == ("ClusterIP", labels, 8081)
    (policy,) = [child["spec"] for child in children if child["kind"] == "NetworkPolicy"]
    assert policy["egress"][1]["ports"] == [{"port": 8081, "protocol": "TCP"}]
    resolved = ResolvedApiGateway(gateway, (), (), "secret-token")
    (own,) = [child["spec"] for child in build_workload(resolved, settings) if child["kind"] == "NetworkPolicy"]
    chat = {"podSelector": {"matchLabels": {**labels, "app.kubernetes.io/component": "web-ui"}}}
    assert own["ingress"][-1] == {"from": [chat], "ports": [{"port": 8081, "protocol": "TCP"}]}
    assert told(resolved)["inside"] is True


@pytest.mark.parametrize(
    "spec",
    [
        {"webUI": {}},
        {"webUI": {"enabled": False}, "expose": {"tls": {"secretName": "s"}}},
        {"webUI": {}, "expose": {"type": "Ingress", "hostname": "llm.example.com", "tls": {"secretName": "s"}}},
    ],
)
def test_otherwise_there_is_no_such_port(make_gateway, settings, spec) -> None:
    gateway = make_gateway(**spec)
    resolved = ResolvedApiGateway(gateway, (), (), "secret-token")
    (policy,) = [child["spec"] for child in build_workload(resolved, settings) if child["kind"] == "NetworkPolicy"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [8080, 9090]
    assert "inside" not in told(resolved)
    children = build_children(gateway, gateway.spec.web_ui, settings, "abc")
    assert not [child for child in children if child["metadata"]["name"] == "gateway-inside"]


def told(resolved: ResolvedApiGateway) -> dict:
    """What the gateway's pods are told."""
    routes = build_secrets(resolved)[-1]
    return json.loads(base64.b64decode(routes["data"]["routes.json"]))


def test_replicas_share_a_database_and_talk_through_redis(env, render) -> None:
    ui = {"replicas": 2, "databaseSecretRef": {"name": "pg"}, "redisSecretRef": {"name": "redis"}}
    shared = env(**ui)
    assert shared["DATABASE_URL"] == secret("pg", "url")
    assert shared["REDIS_URL"] == shared["WEBSOCKET_REDIS_URL"] == secret("redis", "url")
    assert shared["WEBSOCKET_MANAGER"] == "redis"
    children = render(**ui)
    assert "PodDisruptionBudget" in children
    assert {"name": "data", "emptyDir": {}} in pod(children)["volumes"]


def test_a_pod_starts_only_when_the_one_before_it_has_migrated_the_database(render) -> None:
    assert render()["StatefulSet"]["spec"]["podManagementPolicy"] == "OrderedReady"


def test_every_setting_can_be_overridden_and_what_weakens_is_named(env, make_gateway) -> None:
    overrides = [
        {"name": "ENABLE_SIGNUP", "value": "true"},
        {"name": "WEBUI_NAME", "value": "Chat"},
        {"name": "DEFAULT_USER_ROLE", "value": "pending"},
        {"name": "WEBUI_AUTH_TRUSTED_EMAIL_HEADER", "value": "X-Email"},
        {"name": "OPENAI_API_KEY", "valueFrom": secret("mine", "key")},
    ]
    changed = env(env=overrides)
    assert changed["ENABLE_SIGNUP"] == "true"
    assert changed["WEBUI_NAME"] == "Chat"
    assert changed["OPENAI_API_KEY"] == secret("mine", "key")
    gateway = make_gateway(webUI={"env": overrides})
    weak = weakening_overrides(gateway, gateway.spec.web_ui)
    assert weak == ["ENABLE_SIGNUP", "OPENAI_API_KEY", "WEBUI_AUTH_TRUSTED_EMAIL_HEADER"]


def test_its_key_speaks_for_users_with_the_secret_that_it_signs_with(render) -> None:
    key = render()["ApiKey"]
    assert key["metadata"]["name"] == "gateway-webui"
    assert key["spec"]["gatewayRef"] == {"name": "gateway"}
    tokens = {"secretRef": {"name": "gateway-webui-secrets"}, "issuer": "open-webui", "required": True}
    assert key["spec"]["userTokens"] == tokens


def test_it_reaches_names_and_its_gateway_and_what_the_user_adds(render) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    policy = render(egress=[rule])["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    dns, gateway, own = policy["egress"]
    assert {entry["port"] for entry in dns["ports"]} == {53}
    labels = {"app.kubernetes.io/component": "gateway", "stoker.dev/api-gateway": "gateway"}
    assert gateway == {"to": [{"podSelector": {"matchLabels": labels}}], "ports": [{"port": 8080, "protocol": "TCP"}]}
    assert own == rule


def test_its_pods_are_restricted_and_write_to_three_places(render) -> None:
    spec = pod(render())
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/static", "/tmp"}
    assert container["image"] == OperatorSettings(stoker_image="").web_ui_image
    paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert paths == ["/health", "/health", "/ready"]


def test_new_secrets_make_new_pods(render) -> None:
    one, other = (render(digest)["StatefulSet"]["spec"]["template"] for digest in ("a", "b"))
    assert one["metadata"]["annotations"] != other["metadata"]["annotations"]
    assert one["spec"] == other["spec"]


def test_chats_and_accounts_outlive_the_gateway(make_gateway) -> None:
    gateway = make_gateway(webUI={"storage": {"size": "1Gi", "storageClassName": "fast"}})
    admin, keys, claim = build_kept(gateway, gateway.spec.web_ui, "pw", "k", "t")
    assert not any("ownerReferences" in kept["metadata"] for kept in (admin, keys, claim))
    assert {name: base64.b64decode(text).decode() for name, text in admin["data"].items()} == {
        "email": "admin@localhost",
        "password": "pw",
    }
    assert set(keys["data"]) == {"secretKey", "secret"}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    }


@pytest.mark.parametrize("ui", [{"databaseSecretRef": {"name": "pg"}}, {"storage": {"claimName": "mine"}}])
def test_no_claim_is_made_where_none_is_needed(make_gateway, ui) -> None:
    gateway = make_gateway(webUI=ui)
    assert [kept["kind"] for kept in build_kept(gateway, gateway.spec.web_ui, "p", "k", "t")] == ["Secret", "Secret"]


def test_what_was_kept_is_taken_up_by_a_gateway_of_the_same_name_only(make_gateway) -> None:
    gateway, other = make_gateway(webUI={}), make_gateway("other", webUI={})
    admin, *_ = build_kept(gateway, gateway.spec.web_ui, "p", "k", "t")
    assert is_kept_for(gateway, admin)
    assert not is_kept_for(other, admin)
    assert not is_kept_for(gateway, {"metadata": {"name": "gateway-webui-admin"}})
    owned = {**admin, "metadata": {**admin["metadata"], "ownerReferences": [{"kind": "ApiKey"}]}}
    assert not is_kept_for(gateway, owned)


def test_a_pod_template_is_merged_and_keeps_the_labels_that_select_it(render) -> None:
    patch = {"metadata": {"labels": {"stoker.dev/api-gateway": "x"}}, "spec": {"nodeSelector": {"a": "b"}}}
    template = render(podTemplate=patch)["StatefulSet"]["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"a": "b"}
    assert template["metadata"]["labels"]["stoker.dev/api-gateway"] == "gateway"
    with pytest.raises(Stalled, match=r"spec\.webUI"):
        render(podTemplate={"status": {}})


def test_its_service_is_exposed_as_asked(make_gateway, settings) -> None:
    ui = {"expose": {"type": "NodePort", "nodePort": 30081, "annotations": {"a": "b"}}}
    gateway = make_gateway(webUI=ui)
    children = build_children(gateway, gateway.spec.web_ui, settings, "")
    (service,) = (child for child in children if child["kind"] == "Service")
    assert service["metadata"]["name"] == "gateway-webui"
    assert service["metadata"]["annotations"] == {"a": "b"}
    assert service["spec"]["type"] == "NodePort"
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30081}
    assert service["spec"]["ports"] == [port]


OIDC = {
    "issuer": "https://idp.example.com/realms/team/",
    "clientId": "chat",
    "clientSecretRef": {"name": "chat-client"},
}


def oidc_env(make_gateway, roles=(), **more) -> dict:
    gateway = make_gateway(
        webUI={"url": "https://chat.example.com"}, auth={"oidc": {**OIDC, **more}}, roles=list(roles)
    )
    assert gateway.spec.web_ui
    return {
        entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in build_env(gateway, gateway.spec.web_ui)
    }


def test_sign_on_is_by_discovery_with_pkce_and_roles_decide(make_gateway, env) -> None:
    added = {
        name: value
        for name, value in oidc_env(make_gateway).items()
        if env(url="https://chat.example.com").get(name) != value
    }
    assert added == {
        "ENABLE_OAUTH_SIGNUP": "true",
        "OAUTH_MERGE_ACCOUNTS_BY_EMAIL": "false",
        "OAUTH_CLIENT_ID": "chat",
        "OAUTH_CLIENT_SECRET": secret("chat-client", "clientSecret"),
        "OPENID_PROVIDER_URL": "https://idp.example.com/realms/team/.well-known/openid-configuration",
        "OPENID_REDIRECT_URI": "https://chat.example.com/oauth/oidc/callback",
        "OAUTH_PROVIDER_NAME": "SSO",
        "OAUTH_SCOPES": "openid email profile",
        "OAUTH_CODE_CHALLENGE_METHOD": "S256",
        "OAUTH_EMAIL_CLAIM": "email",
        "ENABLE_OAUTH_ROLE_MANAGEMENT": "true",
        "OAUTH_ROLES_CLAIM": "roles",
        "OAUTH_ALLOWED_ROLES": "user",
        "OAUTH_ADMIN_ROLES": "admin",
        "ENABLE_OAUTH_GROUP_MANAGEMENT": "true",
        "ENABLE_OAUTH_GROUP_CREATION": "true",
        "OAUTH_GROUPS_CLAIM": "groups",
        "ENABLE_PASSWORD_AUTH": "false",
        "ENABLE_LOGIN_FORM": "false",
        # The way back from the identity provider is from another site.
        "WEBUI_SESSION_COOKIE_SAME_SITE": "lax",
        "WEBUI_AUTH_COOKIE_SAME_SITE": "lax",
    }


def test_roles_of_the_gateway_are_admin_or_user_in_the_web_chat(make_gateway) -> None:
    pairs = [
        {"value": "ops", "role": "admin"},
        {"value": "staff", "role": "user"},
        {"value": "interns", "role": "small"},
    ]
    mapped = oidc_env(make_gateway, roleMap=pairs, rolesClaim="realm_access.roles", passwordLogin=True)
    assert (mapped["OAUTH_ADMIN_ROLES"], mapped["OAUTH_ALLOWED_ROLES"]) == ("ops", "staff,interns")
    assert mapped["OAUTH_ROLES_CLAIM"] == "realm_access.roles"
    assert mapped["ENABLE_PASSWORD_AUTH"] == mapped["ENABLE_LOGIN_FORM"] == "true"


def test_roles_that_open_webui_does_not_know_reach_the_gateway_as_groups(make_gateway) -> None:
    pairs = [{"value": "llm-admin", "role": "admin"}, {"value": "llm-user", "role": "user"}]
    claims = {"rolesClaim": "realm_access.roles"}
    assert oidc_env(make_gateway, **claims)["OAUTH_GROUPS_CLAIM"] == "groups"
    assert oidc_env(make_gateway, roleMap=pairs, **claims)["OAUTH_GROUPS_CLAIM"] == "groups"
    for others in ([*pairs, {"value": "x", "role": "guest"}], pairs[::-1]):
        # Of somebody who is both, the gateway takes the first in the map, and Open WebUI admin.
        assert oidc_env(make_gateway, roleMap=others, **claims)["OAUTH_GROUPS_CLAIM"] == "realm_access.roles"


def test_groups_that_roles_name_let_people_in_where_they_are_in_the_claim_of_roles(make_gateway) -> None:
    roles = [
        {"name": "research", "subjects": {"groups": ["lab", "a,b", "*"]}},
        {"name": "admin", "subjects": {"groups": ["ops"]}},
        {"name": "guest", "subjects": {"users": ["eve@example.com"]}},
    ]
    told = oidc_env(make_gateway, roles=roles, rolesClaim="groups")
    assert (told["OAUTH_ALLOWED_ROLES"], told["OAUTH_ADMIN_ROLES"]) == ("user,lab", "admin,ops")
    assert oidc_env(make_gateway, roles=roles)["OAUTH_ALLOWED_ROLES"] == "user"


def test_the_identity_providers_port_is_open_and_no_other(make_gateway, settings) -> None:
    for issuer, port in (
        ("https://idp.example.com", 443),
        ("http://idp.auth.svc:8080/x", 8080),
        ("http://i.auth.svc", 80),
    ):
        gateway = make_gateway(webUI={"url": "https://c.example.com"}, auth={"oidc": {**OIDC, "issuer": issuer}})
        children = build_children(gateway, gateway.spec.web_ui, settings, "")
        (policy,) = (child["spec"] for child in children if child["kind"] == "NetworkPolicy")
        assert policy["egress"][2:] == [{"ports": [{"port": port, "protocol": "TCP"}]}]


def test_a_trusted_header_comes_with_the_policy_that_makes_it_safe(env, render) -> None:
    peers = [{"podSelector": {"matchLabels": {"app": "oauth2-proxy"}}}]
    header = {"from": peers, "role": "X-Forwarded-Role"}
    told = env(trustedHeader=header)
    assert told["WEBUI_AUTH_TRUSTED_EMAIL_HEADER"] == "X-Forwarded-Email"
    assert told["WEBUI_AUTH_TRUSTED_ROLE_HEADER"] == "X-Forwarded-Role"
    assert "WEBUI_AUTH_TRUSTED_NAME_HEADER" not in told
    ingress = render(trustedHeader=header)["NetworkPolicy"]["spec"]["ingress"]
    assert ingress == [{"from": peers, "ports": [{"port": 8080, "protocol": "TCP"}]}]
