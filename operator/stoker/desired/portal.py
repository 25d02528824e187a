"""The portal of an ApiGateway: its pod, its rights, and what it is told."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from stoker.api.api_gateway import ApiGateway, Portal
from stoker.api.auth import Role
from stoker.api.base import GROUP, RequestLimits
from stoker.api.names import (
    CLIENT_SECRET_FIELD,
    child_labels,
    cluster_name,
    gateway_pods_name,
    portal_name,
    web_ui_name,
)
from stoker.api.resolved import OperatorSettings, PublishedModel, ResolvedApiGateway
from stoker.api.routes import Fallback, NamedRoute
from stoker.desired.client_files import behind, describe, describe_route
from stoker.desired.gateway_pod import COMPONENT as GATEWAY
from stoker.desired.gateway_pod import POLICY_PORT, TOKEN_DIRECTORY, account_token_sources
from stoker.desired.objects import (
    PORTAL_COMPONENT,
    Object,
    build_rights,
    child,
    compact_json,
    container_defaults,
    http_probe,
    pod_security,
    pull_secrets,
    secret_data,
    selector_labels,
)
from stoker.desired.replicas import is_sleeping
from stoker.desired.usage_pod import build_pods_service, usage_url
from stoker.portal_token import portal_token

COMPONENT = PORTAL_COMPONENT
PORT = 8080
PATHS = ("/", "/keys")
"""Exact paths on the gateway's address that are the portal's."""
PREFIX = "/portal/"
"""And everything below this one."""

CONFIG_FIELD = "portal.json"
SESSION_FIELD = "sessionKey"
TOKEN_FIELD = "readToken"
_SECRETS = "/var/run/stoker/portal"
_NEARNESS = ("Ready", "Asleep", "Starting", "Failed", "Stopped")
"""States of a model, by how near it is to answering."""
_LIMITS = set(RequestLimits.model_fields)
_RESOURCES = {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}


def build_portal(resolved: ResolvedApiGateway, settings: OperatorSettings) -> list[Object]:
    """All children; none where the portal is off."""
    gateway = resolved.gateway
    portal = gateway.portal
    if portal is None:
        return []
    name = portal_name(gateway.metadata.name)
    return [
        child(gateway, COMPONENT, "v1", "ServiceAccount", name, automountServiceAccountToken=False),
        *_rights(gateway, name),
        child(
            gateway, COMPONENT, "v1", "ConfigMap", name, data={CONFIG_FIELD: compact_json(_config(resolved, portal))}
        ),
        child(gateway, COMPONENT, "v1", "Secret", name, type="Opaque", data=_secrets(resolved)),
        _network_policy(gateway, name),
        _service(gateway, name),
        _deployment(gateway, portal, name, settings),
        # Usage brings it along, too.
        *([] if gateway.spec.usage.enabled else [build_pods_service(gateway)]),
    ]


def _config(resolved: ResolvedApiGateway, portal: Portal) -> Object:
    gateway = resolved.gateway
    return {
        "url": _url(gateway, portal),
        "publicUrl": portal.url,
        "roles": [_role(gateway, role) for role in gateway.roles],
        "models": [_model(gateway, model) for model in resolved.models],
        "routes": [told for route in gateway.spec.routes if (told := _route(resolved, route)) is not None],
        "oidc": _oidc(gateway, resolved.authorities),
        "userLimits": _limits(gateway.spec.limits.per_user),
        "webUiUrl": gateway.status.web_ui_url,
        "chatAddress": _chat_address(gateway),
        "maxKeysPerUser": portal.max_keys_per_user,
        "maxKeyDays": portal.max_key_days,
        "sessionSeconds": portal.session_seconds,
    }


def _url(gateway: ApiGateway, portal: Portal) -> str | None:
    """None where only browsers know: the name of a Service is of no use outside, and how they came in is an address of the API, too."""
    if portal.url:
        return portal.url.rstrip("/") + "/v1"
    expose = gateway.spec.expose
    return gateway.status.url if expose.hostname or expose.type == "LoadBalancer" else None


def _chat_address(gateway: ApiGateway) -> str | None:
    """Where people sign on elsewhere the web chat's word is not needed, and may be coarser: it knows users and admins only."""
    ui = gateway.spec.web_ui
    if ui is None or not ui.enabled or ui.trusted_header is not None or gateway.spec.auth.oidc is not None:
        return None
    return f"http://{web_ui_name(gateway.metadata.name)}.{gateway.metadata.namespace}.svc:{ui.expose.service_port}"


def _oidc(gateway: ApiGateway, authorities: str) -> Object | None:
    """As the API and the web chat take it: one identity provider, one map of roles."""
    oidc = gateway.spec.auth.oidc
    if oidc is None:
        return None
    return {
        "issuer": oidc.issuer,
        "clientId": oidc.client_id,
        "scopes": list(oidc.scopes),
        "userClaim": oidc.email_claim,
        **({"acceptUnverifiedEmail": True} if oidc.accept_unverified_email else {}),
        "rolesClaim": oidc.roles_claim,
        "groupsClaim": oidc.groups_claim,
        "roleMap": {pair.value: pair.role for pair in oidc.roles},
        **({"authorities": authorities} if authorities else {}),
    }


def _role(gateway: ApiGateway, role: Role) -> Object:
    """Each limit is its own, else the gateway's for everybody: as the gateway counts."""
    limits = {**_limits(gateway.spec.limits), **_limits(role.limits)}
    subjects = {"users": role.subjects.users, "groups": role.subjects.groups} if role.subjects else {}
    return {"name": role.name, "models": list(role.models), "limits": limits, **subjects}


def _limits(limits: RequestLimits | None) -> Object:
    return limits.model_dump(by_alias=True, exclude_none=True, include=_LIMITS) if limits else {}


def _state(model: PublishedModel) -> str:
    """In a word that people understand; the reason beside it is the condition's."""
    deployment = model.deployment
    if model.stopped:
        return "Stopped"
    if deployment.status.ready_replicas:
        return "Ready"
    if is_sleeping(deployment):
        return "Asleep"
    stalled = any(condition.type == "Stalled" for condition in deployment.status.conditions)
    return "Failed" if stalled else "Starting"


def _model(gateway: ApiGateway, model: PublishedModel) -> Object:
    """What changes by itself, such as the progress of a download, is left out: each change is a write."""
    deployment = model.deployment
    status = deployment.status
    conditions = {condition.type: condition for condition in status.conditions}
    ready = conditions.get("Ready")
    return {
        # What programs are told, and people: one reading of context, tools and the rest.
        **asdict(describe(gateway, model)),
        "aliases": list(deployment.served_names[1:]),
        "cluster": cluster_name(*deployment.key),
        "state": _state(model),
        "reason": ready.reason if ready else "",
        "message": conditions["Stalled"].message if "Stalled" in conditions else "",
        "readyReplicas": status.ready_replicas,
        "replicas": status.replicas,
    }


def _route(resolved: ResolvedApiGateway, route: NamedRoute) -> Object | None:
    """A name for several models: as able as the least of them, and as ready as the first that answers. None where the gateway has it not, either."""
    described = describe_route(resolved.gateway, route, resolved.models)
    if described is None:
        return None
    by_weight, fallbacks = behind(route, resolved.models)
    found = sorted((_model(resolved.gateway, model) for model in [*by_weight, *fallbacks]), key=lambda told: _NEARNESS.index(told["state"]))  # fmt: skip
    state = {name: found[0][name] for name in ("state", "reason", "message")} if found else {}
    if any(fallback.external for fallback in route.fallbacks) and state.get("state") != "Ready":
        # The gateway takes it for ready, too, until it has tried.
        state = {"state": "Ready", "reason": "", "message": ""}
    names = {name for model in [*by_weight, *fallbacks] for name in model.deployment.served_names}
    return {
        **asdict(described),
        **state,
        "behind": [entry.model for entry in route.models if entry.model in names],
        "fallbacks": [_name(fallback) for fallback in route.fallbacks if fallback.external or fallback.model in names],
    }


def _name(fallback: Fallback) -> str:
    """People shall see where their prompts may go."""
    outside = fallback.external
    return f"{outside.model} at {urlsplit(outside.url).hostname}" if outside else str(fallback.model)


def _secrets(resolved: ResolvedApiGateway) -> dict[str, str]:
    """Made of the gateway's own token, so that there is no second secret to make once and never again."""
    key = hmac.new(resolved.token.encode(), b"portal sessions", hashlib.sha256).hexdigest()
    return secret_data(**{SESSION_FIELD: key, TOKEN_FIELD: portal_token(resolved.token)})


def _rights(gateway: ApiGateway, name: str) -> list[Object]:
    """Its own ConfigMap by name, and ApiKeys; no Secrets at all."""
    told = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "list", "watch"]}
    keys = {"apiGroups": [GROUP], "resources": ["apikeys"], "verbs": ["get", "list", "create", "patch", "delete"]}
    return build_rights(gateway, COMPONENT, name, [told, keys], [(gateway.metadata.namespace, name)])


def _network_policy(gateway: ApiGateway, name: str) -> Object:
    """Only through the gateway, which says truly how a browser came in."""
    envoy = {"podSelector": {"matchLabels": selector_labels(gateway, GATEWAY)}}
    spec = {
        "podSelector": {"matchLabels": selector_labels(gateway, COMPONENT)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [envoy], "ports": [{"port": PORT, "protocol": "TCP"}]}],
    }
    return child(gateway, COMPONENT, "networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def _service(gateway: ApiGateway, name: str) -> Object:
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}
    spec = {"type": "ClusterIP", "selector": selector_labels(gateway, COMPONENT), "ports": [port]}
    return child(gateway, COMPONENT, "v1", "Service", name, spec=spec)


def _deployment(gateway: ApiGateway, portal: Portal, name: str, settings: OperatorSettings) -> Object:
    pod: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 10,
        "containers": [_container(gateway, portal, settings)],
        "volumes": [
            {"name": "token", "projected": {"sources": account_token_sources()}},
            {"name": "secrets", "secret": {"secretName": name}},
        ],
    }
    if oidc := gateway.spec.auth.oidc:
        # Optional: without it people still sign in with keys, and the sign-in page says what the provider misses.
        secret = {"secretName": oidc.client_secret_ref.name, "optional": True}
        items = [{"key": CLIENT_SECRET_FIELD, "path": CLIENT_SECRET_FIELD}]
        pod["volumes"].append({"name": "oidc", "secret": {**secret, "items": items}})
    if secrets := pull_secrets(settings):
        pod["imagePullSecrets"] = secrets
    return child(
        gateway,
        COMPONENT,
        "apps/v1",
        "Deployment",
        name,
        spec={
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(gateway, COMPONENT)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": child_labels(gateway, COMPONENT)}, "spec": pod},
        },
    )


def _container(gateway: ApiGateway, portal: Portal, settings: OperatorSettings) -> Object:
    namespace, name = gateway.key
    env = {
        "STOKER_PORTAL_NAMESPACE": namespace,
        "STOKER_PORTAL_GATEWAY": name,
        "STOKER_PORTAL_SECRETS": _SECRETS,
        "STOKER_PORTAL_GATEWAY_PODS": f"{gateway_pods_name(name)}.{namespace}.svc:{POLICY_PORT}",
    }
    if url := usage_url(gateway):
        env["STOKER_PORTAL_USAGE_URL"] = url
    mounts: list[dict[str, Any]] = [
        {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
        {"name": "secrets", "mountPath": f"{_SECRETS}/session", "readOnly": True},
    ]
    if gateway.spec.auth.oidc:
        mounts.append({"name": "oidc", "mountPath": f"{_SECRETS}/oidc", "readOnly": True})
    return {
        "name": "portal",
        "image": settings.stoker_image,
        "imagePullPolicy": settings.stoker_image_pull_policy,
        "args": ["portal"],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": http_probe("/healthz", "http", period=1, timeout=5, failures=120),
        "livenessProbe": http_probe("/healthz", "http", period=10, timeout=5, failures=6),
        "readinessProbe": http_probe("/readyz", "http", period=2, timeout=5, failures=3),
        "resources": portal.resources if portal.resources is not None else _RESOURCES,
        **container_defaults(),
        "volumeMounts": mounts,
    }
