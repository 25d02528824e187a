"""What a gateway's pods are told, as Secrets: models and limits in one, key hashes in as many as they need."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import ceil
from typing import Any

from stoker.api.api_gateway import ApiGateway
from stoker.api.api_key import ApiKey
from stoker.api.autoscaling import ColdStart
from stoker.api.base import RequestLimits
from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import (
    KEYS_FIELD,
    ROUTES_FIELD,
    URL_FIELD,
    cluster_name,
    keys_secret_name,
    portal_name,
    routes_secret_name,
)
from stoker.api.resolved import PublishedModel, ResolvedApiGateway
from stoker.desired import portal
from stoker.desired.gateway_pod import COMPONENT
from stoker.desired.gateway_routes import build_named_routes
from stoker.desired.gateway_tokens import build_introspection, build_issuers, build_role_map, build_user_tokens
from stoker.desired.objects import Object, child, compact_json, secret_data
from stoker.desired.replicas import expected_cold_start, is_sleeping
from stoker.desired.served_paths import served_paths
from stoker.desired.usage_pod import usage_url
from stoker.errors import Stalled
from stoker.models.quantity import parse_quantity

ENGINE_PORT = 8080
REDIS_SCHEMES = ("redis://", "rediss://")
LIMITS = set(RequestLimits.model_fields)
FORMAT = 1

# A Secret holds 1 MiB; buckets are not filled evenly, and the unevenness of hashes is far below a third.
KEY_SECRET_BYTES = 600 * 1024


def build_secrets(resolved: ResolvedApiGateway) -> list[Object]:
    """Key Secrets first: routes names them."""
    gateway = resolved.gateway
    buckets = _key_buckets(resolved)
    names = [keys_secret_name(gateway.metadata.name, index) for index in range(len(buckets))]
    secrets = [
        _secret(resolved, name, KEYS_FIELD, {"version": FORMAT, "keys": bucket})
        for name, bucket in zip(names, buckets, strict=True)
    ]
    routes = {
        "version": FORMAT,
        "namespace": gateway.metadata.namespace,
        "name": gateway.metadata.name,
        "token": resolved.token,
        "maxRequestBytes": int(parse_quantity(gateway.spec.limits.max_request_bytes)),
        "corsOrigins": list(gateway.spec.cors.origins) if gateway.spec.cors else [],
        "roles": _roles(gateway),
        "tls": gateway.spec.expose.certificate,
        **({"inside": True} if gateway.has_inside else {}),
        "jwt": build_issuers(gateway, resolved.jwt_secrets),
        **_bounds(gateway.spec.limits),
        "perUser": _bounds(gateway.spec.limits.per_user),
        "modelLimits": [{"models": list(entry.models), **_bounds(entry)} for entry in gateway.spec.limits.models or ()],
        "replicas": limit_shares(resolved.ready_replicas),
        "usageUrl": usage_url(gateway),
        "introspection": build_introspection(gateway, resolved.client_secret),
        "routes": build_named_routes(gateway, resolved.backend_secrets),
        "redisUrl": resolved.redis_url or None,
        "keySecrets": names,
        "models": [_model(model) for model in resolved.models],
        "sites": _sites(gateway),
        **({"authorities": resolved.authorities} if resolved.authorities else {}),
        "roleMap": build_role_map(gateway),
    }
    return [*secrets, _secret(resolved, routes_secret_name(gateway.metadata.name), ROUTES_FIELD, routes)]


def check_redis(gateway: ApiGateway, url: str) -> None:
    """Say what is missing. Asked after the pods were told the rest: meanwhile each replica admits its share."""
    reference = gateway.spec.limits.redis_secret_ref
    if reference is not None and not url.startswith(REDIS_SCHEMES):
        raise Stalled(
            "RedisAddressMissing",
            f"ApiGateway {gateway.metadata.name}: limits are divided among the replicas, since Secret {reference.name} has no address of a "
            f"Redis under `{URL_FIELD}`: kubectl create secret generic {reference.name} --from-literal={URL_FIELD}=redis://HOST:6379/0",
        )


def count_key_secrets(resolved: ResolvedApiGateway) -> int:
    """How many Secrets the key hashes take; at least one."""
    return len(_key_buckets(resolved))


def limit_shares(ready_replicas: int) -> int:
    """Replicas among which limits are divided."""
    return max(1, ready_replicas)


def _roles(gateway: ApiGateway) -> list[Object]:
    return [
        {
            "name": role.name,
            "models": list(role.models),
            **_bounds(role.limits),
            **({"users": role.subjects.users, "groups": role.subjects.groups} if role.subjects else {}),
        }
        for role in gateway.roles
    ]


def _bounds(limits: RequestLimits | None) -> Object:
    """The limits that are given, by their own names."""
    return limits.model_dump(by_alias=True, exclude_none=True, include=LIMITS) if limits else {}


def _sites(gateway: ApiGateway) -> list[Object]:
    """Web pages behind the same address, which look after their visitors themselves."""
    if gateway.portal is None:
        return []
    name = portal_name(gateway.metadata.name)
    return [{"service": name, "paths": list(portal.PATHS), "prefix": portal.PREFIX}]


def _secret(resolved: ResolvedApiGateway, name: str, field: str, content: Any) -> Object:
    data = secret_data(**{field: compact_json(content)})
    return child(resolved.gateway, COMPONENT, "v1", "Secret", name, type="Opaque", data=data)


def _model(model: PublishedModel) -> Object:
    deployment = model.deployment
    namespace, name = deployment.key
    return {
        "name": deployment.served_name,
        "aliases": list(deployment.served_names[1:]),
        "namespace": namespace,
        "deployment": name,
        "cluster": cluster_name(namespace, name),
        "service": name,
        "port": ENGINE_PORT,
        "task": deployment.spec.task,
        "paths": served_paths(model.engine_type, deployment.spec.task),
        "stopped": model.stopped,
        "sleeping": is_sleeping(deployment),
        "slots": deployment.spec.max_concurrent_requests,
        "hold": _hold(deployment),
        "createdAt": _unix(deployment.metadata.creation_timestamp) or 0,
        **({"engineKey": model.engine_key} if model.engine_key else {}),
        **_additions(model),
    }


def _hold(deployment: ModelDeployment) -> Object | None:
    """What to do with requests while there is no replica; None: refuse them."""
    if deployment.spec.autoscaling is None and deployment.spec.cold_start is None:
        return None
    terms = deployment.spec.cold_start or ColdStart()
    return {**terms.model_dump(mode="json", by_alias=True), "coldStartSeconds": expected_cold_start(deployment)}


def _additions(model: PublishedModel) -> Object:
    """What is added to the body of a request, by the name that it asks for.

    llama.cpp does not know its adapters by name: a request says which it wants by number. SGLang knows them by name, and takes them from
    a member of the body, too. Without the model's own names here, whoever may use the model could say so himself, also for adapters
    that he may not use.
    """
    deployment = model.deployment
    adapters = deployment.spec.adapters
    own = (deployment.served_name, *deployment.spec.aliases)
    if adapters and model.engine_type == "SGLang":
        return {"additions": {name: {"lora_path": None} for name in (*own, *(adapter.name for adapter in adapters))}}
    if not adapters or model.engine_type != "LlamaCpp":
        return {}
    plain: dict[str, Object] = {name: {"lora": []} for name in own}
    chosen = {adapter.name: {"lora": [{"id": number, "scale": 1.0}]} for number, adapter in enumerate(adapters)}
    return {"additions": plain | chosen}


def _key_buckets(resolved: ResolvedApiGateway) -> list[list[Object]]:
    """By hash, not by position: a new key changes one Secret, not all that follow."""
    keys = sorted(resolved.keys, key=lambda key: key.key)
    # A key of a role that is not there opens nothing; its status says so.
    rows = [
        row
        for key in keys
        if not key.spec.role or resolved.gateway.has_role(key.spec.role)
        for row in _key_rows(key, resolved.jwt_secrets)
    ]
    count = max(1, ceil(len(compact_json(rows)) / KEY_SECRET_BYTES))
    buckets: list[list[Object]] = [[] for _ in range(count)]
    for row in rows:
        buckets[int(row["sha256"][:8], 16) % count].append(row)
    return buckets


def _key_rows(key: ApiKey, secrets: Mapping[str, str]) -> list[Object]:
    """The hashes of one key; expiry travels along, since the gateway has a clock and this code has none."""
    if key.spec.suspend or key.metadata.deletion_timestamp is not None:
        return []
    if key.spec.sha256:
        hashes: list[tuple[str, datetime | None]] = [(key.spec.sha256, None)]
    else:
        hashes = [(entry.sha256, entry.expires_at) for entry in key.status.keys]
    believed = build_user_tokens(key, secrets)
    # Rarely there, and a Secret is small.
    user_tokens = {"userTokens": believed} if believed else {}
    rows = []
    for sha256, expires_at in hashes:
        ends = [moment for moment in (expires_at, key.spec.expires_at) if moment is not None]
        rows.append(
            {
                "sha256": sha256,
                "name": key.metadata.name,
                "owner": key.spec.owner or "",
                "models": list(key.spec.models),
                "role": key.spec.role,
                **_bounds(key.spec.limits),
                "expiresAt": _unix(min(ends)) if ends else None,
                **user_tokens,
            }
        )
    return rows


def _unix(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None
