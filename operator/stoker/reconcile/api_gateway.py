"""Reconcile an ApiGateway: its pods, and the Secrets that tell them models and keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from stoker.api import ApiGateway, ApiKey, ModelDeployment
from stoker.api.api_gateway import base_url
from stoker.api.names import (
    CERTIFICATE_FIELD,
    CERTIFICATE_KEY_FIELD,
    CLIENT_SECRET_FIELD,
    JWT_SECRET_FIELD,
    KEY_SECRET_FIELD,
    URL_FIELD,
    admin_key_name,
    keys_secret_name,
    portal_name,
    usage_name,
    web_ui_name,
)
from stoker.api.observed import ObservedWorkload
from stoker.api.resolved import PublishedModel, ResolvedApiGateway
from stoker.cluster.cache import Cache
from stoker.cluster.objects import secret_bytes
from stoker.cluster.observe import observe_deployment
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HTTP_ROUTES,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Object,
)
from stoker.desired.api_gateway import build_account, build_children
from stoker.desired.api_key import is_active, secret_name
from stoker.desired.gateway_certificate import check_gateway_certificate
from stoker.desired.gateway_config import check_redis
from stoker.desired.gateway_pod import COMPONENT
from stoker.desired.gateway_routes import backend_secrets, check_named_routes
from stoker.desired.gateway_tokens import check_introspection, check_issuers
from stoker.desired.gateway_trust import check_gateway_authorities, usable_authorities
from stoker.desired.publishing import check_gateway, published_models
from stoker.desired.replicas import is_sleeping
from stoker.desired.usage_pod import build_usage
from stoker.errors import StokerError
from stoker.reconcile.context import Context
from stoker.reconcile.engine_key import read_engine_key
from stoker.reconcile.gateway_token import read_or_make_token
from stoker.reconcile.named_secrets import read_secret_text, read_secret_texts
from stoker.reconcile.report import report, retry_after
from stoker.reconcile.usage import observe_usage, try_usage
from stoker.reconcile.web_ui import observe_web_ui, try_web_ui, wanted_web_ui, web_ui_children
from stoker.status.api_gateway import compute_api_gateway_status

# Secrets are not watched (see WATCHED_CHILD_TYPES): one deleted by hand is back after this time at the latest.
RESYNC_SECONDS = 55.0


async def reconcile_api_gateway(context: Context, own: OwnObject, gateway: ApiGateway) -> float | None:
    """One pass; says when to look again."""
    cache, now = context.cache, context.now()
    problem: StokerError | None = None
    models: tuple[PublishedModel, ...] = ()
    keys = cache.keys_of_gateway(gateway.key)
    workload = observe_deployment(cache.child(DEPLOYMENTS, gateway.key))
    web_ui = wanted_web_ui(gateway)
    usage_problem: StokerError | None = None
    redis_url = ""
    try:
        check_gateway(gateway, context.settings)
        published, _ = published_models(gateway, cache.models(), cache.namespace_labels)
        models = tuple([await _with_engine(context, model) for model in published])
        account = await context.children.apply(gateway, build_account(gateway))
        jwt_secrets = await read_secret_texts(
            context, gateway.metadata.namespace, _token_secrets(gateway, keys), JWT_SECRET_FIELD
        )
        context.gateway_tokens[gateway.key] = token = await read_or_make_token(context, gateway)
        client_secret = await _read_client_secret(context, gateway)
        backend_keys = await read_secret_texts(
            context, gateway.metadata.namespace, backend_secrets(gateway), KEY_SECRET_FIELD
        )
        redis_url = await _read_redis_url(context, gateway)
        authorities = await _read_authorities(context, gateway)
        resolved = ResolvedApiGateway(
            gateway=gateway,
            models=models,
            keys=tuple(keys),
            token=token,
            account_uid=account["metadata"]["uid"],
            jwt_secrets=jwt_secrets,
            client_secret=client_secret,
            backend_secrets=backend_keys,
            authorities=usable_authorities(authorities),
            address=base_url(gateway, cache.child(SERVICES, gateway.key)),
            ready_replicas=workload.ready_replicas if workload else 0,
            redis_url=redis_url,
        )
        children = build_children(resolved, context.settings)
        await context.children.apply_all(gateway, children)
        usage = build_usage(gateway, token, context.settings)
        wanted = [*children, *usage, *web_ui_children(context, gateway, web_ui)]
        await _prune_secrets_of_parts(context, gateway, wanted)
        await context.children.prune(gateway, wanted)
        await _prune_http_routes(context, gateway, wanted)
        usage_problem = await try_usage(context, gateway, usage)
        await _prune_key_secrets(context, gateway, children)
        check_issuers(gateway, jwt_secrets)
        check_introspection(gateway, client_secret)
        check_named_routes(gateway, models, backend_keys)
        check_redis(gateway, redis_url)
        check_gateway_authorities(gateway, authorities)
        check_gateway_certificate(gateway, await _read_certificate(context, gateway), now)
    except StokerError as error:
        problem = error
    web_ui_problem = await try_web_ui(context, gateway, web_ui)
    admin_key = cache.api_key((gateway.metadata.namespace, admin_key_name(gateway.metadata.name)))
    status = compute_api_gateway_status(
        gateway,
        workload=ObservedWorkload(
            deployment=observe_deployment(cache.child(DEPLOYMENTS, gateway.key)),
            pods=tuple(pod for pod in cache.pods_of("ApiGateway", gateway.key) if pod.component == COMPONENT),
        ),
        models=len(models),
        ready_models=sum(_is_ready(model) for model in models),
        sleeping_models=sum(is_sleeping(model.deployment) for model in models),
        keys=sum(_is_let_in(gateway, key, now) for key in keys),
        service=cache.child(SERVICES, gateway.key),
        admin_secret_name=secret_name(admin_key) if admin_key is not None and gateway.spec.auth.admin_key else None,
        counts_together=bool(redis_url),
        web_ui=observe_web_ui(context, gateway, web_ui, web_ui_problem),
        usage=observe_usage(context, gateway, usage_problem),
        problem=problem,
        now=now,
    )
    await report(context, own, status)
    return retry_after(problem or web_ui_problem or usage_problem, status.conditions, now, at_most=RESYNC_SECONDS)


async def _read_redis_url(context: Context, gateway: ApiGateway) -> str:
    """Where replicas count together; empty where they do not, or the Secret has no address. Not watched: at the next resync."""
    reference = gateway.spec.limits.redis_secret_ref
    if reference is None:
        return ""
    return (await read_secret_text(context, gateway.metadata.namespace, reference.name, URL_FIELD)).strip()


async def _read_authorities(context: Context, gateway: ApiGateway) -> str | None:
    """What the ConfigMap of spec.certificateAuthorities holds; None where there is none."""
    if gateway.spec.certificate_authorities is None:
        return None
    place = gateway.spec.certificate_authorities.config_map_ref
    found = await context.client.get(CONFIG_MAPS, gateway.metadata.namespace, place.name)
    text = ((found or {}).get("data") or {}).get(place.key)
    return text if isinstance(text, str) else None


async def _with_engine(context: Context, model: PublishedModel) -> PublishedModel:
    deployment = model.deployment
    key = await read_engine_key(context, deployment) if deployment.status.engine_key else ""
    return replace(model, engine_type=_engine_type(context.cache, deployment), engine_key=key)


def _engine_type(cache: Cache, deployment: ModelDeployment) -> str:
    reference = deployment.spec.engine_ref
    name = reference.name if reference else deployment.status.engine
    engine = cache.engine((deployment.metadata.namespace, name)) if name else None
    return engine.spec.type if engine else ""


def _is_ready(model: PublishedModel) -> bool:
    status = model.deployment.status
    return not model.stopped and status.ready_replicas > 0


def _is_let_in(gateway: ApiGateway, key: ApiKey, now: datetime) -> bool:
    has_role = not key.spec.role or gateway.has_role(key.spec.role)
    return is_active(key, now) and has_role and bool(key.spec.sha256 or key.status.keys)


def _token_secrets(gateway: ApiGateway, keys: Iterable[ApiKey]) -> set[str]:
    """Names of the Secrets that tokens are signed with."""
    issuers = {issuer.secret_ref.name for issuer in gateway.spec.auth.issuers if issuer.secret_ref is not None}
    return issuers | {key.spec.user_tokens.secret_ref.name for key in keys if key.spec.user_tokens is not None}


async def _read_client_secret(context: Context, gateway: ApiGateway) -> str:
    asked = gateway.spec.auth.introspection
    if asked is None:
        return ""
    place = gateway.metadata.namespace, asked.client_secret_ref.name
    return (await read_secret_text(context, *place, CLIENT_SECRET_FIELD)).strip()


async def _read_certificate(context: Context, gateway: ApiGateway) -> dict[str, bytes] | None:
    """What the Secret of spec.expose.tls has of a certificate; None where there is no such Secret."""
    if gateway.spec.expose.certificate is None:
        return None
    secret = await context.client.get(SECRETS, gateway.metadata.namespace, gateway.spec.expose.certificate)
    if secret is None:
        return None
    return {field: secret_bytes(secret, field) or b"" for field in (CERTIFICATE_FIELD, CERTIFICATE_KEY_FIELD)}


async def _prune_http_routes(context: Context, gateway: ApiGateway, wanted: list[Object]) -> None:
    """They are not watched, so they are looked for when the spec has changed."""
    if gateway.status.observed_generation == gateway.metadata.generation:
        return
    kept = {child["metadata"]["name"] for child in wanted if child["kind"] == HTTP_ROUTES.kind}
    for name in {gateway.metadata.name, web_ui_name(gateway.metadata.name)} - kept:
        await context.children.delete(gateway, HTTP_ROUTES, (gateway.metadata.namespace, name))


async def _prune_key_secrets(context: Context, gateway: ApiGateway, children: list[Object]) -> None:
    """Fewer keys take fewer Secrets; the numbers have no gaps, so the first missing one is the end."""
    names = {child["metadata"]["name"] for child in children if child["kind"] == SECRETS.kind}
    index = sum(keys_secret_name(gateway.metadata.name, i) in names for i in range(len(names)))
    while True:
        key = (gateway.metadata.namespace, keys_secret_name(gateway.metadata.name, index))
        if await context.client.get(SECRETS, *key) is None:
            return
        await context.children.delete(gateway, SECRETS, key)
        index += 1


async def _prune_secrets_of_parts(context: Context, gateway: ApiGateway, wanted: list[Object]) -> None:
    """Secrets are in no cache; that portal or usage ran is known by their workloads, which are about to go."""
    namespace, name = gateway.key
    there = {(child["kind"], child["metadata"]["name"]) for child in wanted}
    for workload, part in ((DEPLOYMENTS, portal_name(name)), (STATEFUL_SETS, usage_name(name))):
        if (workload.kind, part) not in there and context.cache.child(workload, (namespace, part)) is not None:
            await context.children.delete(gateway, SECRETS, (namespace, part))
