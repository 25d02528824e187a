"""ApiGateway: Deployment, Service, rights, and the Secrets that tell its pods what to do."""

from __future__ import annotations

from stoker.api.api_gateway import ApiGateway
from stoker.api.base import API_VERSION
from stoker.api.names import admin_key_name, keys_secret_name, routes_secret_name
from stoker.api.resolved import OperatorSettings, ResolvedApiGateway
from stoker.desired.client_files import build_client_files
from stoker.desired.expose import api_paths, build_route, build_service
from stoker.desired.gateway_config import build_secrets, count_key_secrets
from stoker.desired.gateway_egress import build_egress
from stoker.desired.gateway_pod import COMPONENT, ENVOY_PORT, INSIDE_PORT, POLICY_PORT, build_pod_template
from stoker.desired.objects import (
    READ_ENDPOINTS,
    WEB_UI_COMPONENT,
    Object,
    build_disruption_budget,
    build_rights,
    child,
    operator_peer,
    portal_peers,
    selector_labels,
)
from stoker.desired.portal import build_portal
from stoker.desired.usage_pod import usage_peer

__all__ = ["build_account", "build_children", "build_secrets", "build_workload"]


def build_children(resolved: ResolvedApiGateway, settings: OperatorSettings) -> list[Object]:
    """All children, in the order in which they are applied: pods come last and find everything."""
    files = []
    if resolved.address is not None:
        files.append(build_client_files(resolved.gateway, resolved.models, resolved.address))
    return [*build_secrets(resolved), *files, *build_workload(resolved, settings)]


def build_workload(resolved: ResolvedApiGateway, settings: OperatorSettings) -> list[Object]:
    """All children but those that tell of models and keys, which change far more often."""
    gateway = resolved.gateway
    children = [
        build_account(gateway),
        *_rights(gateway, count_key_secrets(resolved)),
        _network_policy(resolved, settings),
        build_service(gateway, COMPONENT, gateway.metadata.name, gateway.spec.expose),
        *build_route(gateway, COMPONENT, gateway.metadata.name, gateway.spec.expose, api_paths(gateway)),
    ]
    if gateway.spec.replicas > 1:
        children.append(build_disruption_budget(gateway, COMPONENT, gateway.metadata.name))
    if gateway.spec.auth.admin_key:
        children.append(_admin_key(gateway))
    children.append(_deployment(resolved, settings))
    children += build_portal(resolved, settings)
    return children


def build_account(gateway: ApiGateway) -> Object:
    """The ServiceAccount by which its pods read their configuration; it comes first, for they carry its uid."""
    return child(gateway, COMPONENT, "v1", "ServiceAccount", gateway.metadata.name, automountServiceAccountToken=False)


def _deployment(resolved: ResolvedApiGateway, settings: OperatorSettings) -> Object:
    gateway = resolved.gateway
    return child(
        gateway,
        COMPONENT,
        "apps/v1",
        "Deployment",
        gateway.metadata.name,
        spec={
            "replicas": gateway.spec.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(gateway, COMPONENT)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": build_pod_template(gateway, settings, resolved.account_uid),
        },
    )


def _network_policy(resolved: ResolvedApiGateway, settings: OperatorSettings) -> Object:
    gateway = resolved.gateway
    peers = [operator_peer(settings)]
    if gateway.spec.usage.enabled:
        peers.append(usage_peer(gateway))
    peers += portal_peers(gateway)
    spec: Object = {
        "podSelector": {"matchLabels": selector_labels(gateway, COMPONENT)},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"ports": [{"port": ENVOY_PORT, "protocol": "TCP"}]},
            {"from": peers, "ports": [{"port": POLICY_PORT, "protocol": "TCP"}]},
            *([_inside(gateway)] if gateway.has_inside else []),
        ],
    }
    if gateway.spec.egress is not None:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": build_egress(resolved)}
    return child(gateway, COMPONENT, "networking.k8s.io/v1", "NetworkPolicy", gateway.metadata.name, spec=spec)


def _inside(gateway: ApiGateway) -> Object:
    """A call without TLS carries a key that others could read: this port is for the web chat's alone."""
    chat = {"podSelector": {"matchLabels": selector_labels(gateway, WEB_UI_COMPONENT)}}
    return {"from": [chat], "ports": [{"port": INSIDE_PORT, "protocol": "TCP"}]}


def _rights(gateway: ApiGateway, key_secrets: int) -> list[Object]:
    """The policy service reads its own Secrets by name and no others, and the endpoints of its own namespace."""
    name = gateway.metadata.name
    names = [routes_secret_name(name), *(keys_secret_name(name, index) for index in range(key_secrets))]
    if gateway.spec.expose.certificate:
        names.append(gateway.spec.expose.certificate)
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get", "list", "watch"]}
    return build_rights(gateway, COMPONENT, name, [rule, READ_ENDPOINTS], [gateway.key])


def _admin_key(gateway: ApiGateway) -> Object:
    name = gateway.metadata.name
    spec = {"gatewayRef": {"name": name}, "owner": f"admin of gateway {name}", "models": ["*"], "role": "admin"}
    return child(gateway, "admin-key", API_VERSION, "ApiKey", admin_key_name(name), spec=spec)
