"""The web chat's part of a gateway's pass: what outlives it, what goes with it, and how its pods fare."""

from __future__ import annotations

import hashlib
import secrets

from stoker.api import ApiGateway
from stoker.api.names import CLIENT_SECRET_FIELD, URL_FIELD, web_ui_name
from stoker.api.observed import ObservedWorkload
from stoker.api.web_ui import WebUI
from stoker.cluster.children import explain_refusal
from stoker.cluster.errors import ApiError
from stoker.cluster.observe import observe_deployment
from stoker.cluster.resource_types import CLAIMS, SECRETS, SERVICES, STATEFUL_SETS, Object, type_of
from stoker.desired.publishing import check_pod_template
from stoker.desired.web_ui import COMPONENT, build_children, build_kept, is_kept_for
from stoker.desired.web_ui_env import weakening_overrides
from stoker.errors import Stalled, StokerError, Waiting
from stoker.models.quantity import parse_quantity
from stoker.reconcile.context import Context
from stoker.reconcile.named_secrets import read_secret_text
from stoker.status.web_ui import ObservedWebUI

NOT_YET = ""
"""Digest of Secrets that are not known yet."""


def wanted_web_ui(gateway: ApiGateway) -> WebUI | None:
    """The web chat, if there shall be one."""
    ui = gateway.spec.web_ui
    return ui if ui is not None and ui.enabled else None


def web_ui_children(context: Context, gateway: ApiGateway, ui: WebUI | None) -> list[Object]:
    """What must not be pruned, whatever stands in the way of making it now."""
    if ui is None:
        return []
    try:
        return build_children(gateway, ui, context.settings, NOT_YET)
    except StokerError:
        bare = ui.model_copy(update={"pod_template": None})
        return build_children(gateway, bare, context.settings, NOT_YET)


async def try_web_ui(context: Context, gateway: ApiGateway, ui: WebUI | None) -> StokerError | None:
    """Make it what the spec says. Its trouble is its own: the gateway has been seen to before."""
    if ui is None:
        return None
    try:
        await _apply(context, gateway, ui)
    except StokerError as error:
        return error
    return None


async def _apply(context: Context, gateway: ApiGateway, ui: WebUI) -> None:
    where = f"ApiGateway {gateway.metadata.name}: spec.webUI.podTemplate"
    check_pod_template(ui.pod_template is not None, where, context.settings)
    digest = hashlib.sha256()
    for kept in build_kept(gateway, ui, *(secrets.token_urlsafe(bytes_) for bytes_ in (18, 48, 48))):
        live = await _keep(context, gateway, kept)
        if type_of(kept) == SECRETS:
            digest.update(repr(sorted((live.get("data") or {}).items())).encode())
    oidc = gateway.spec.auth.oidc
    for reference, field, key_name in (
        (ui.database_secret_ref, "spec.webUI.databaseSecretRef", URL_FIELD),
        (ui.redis_secret_ref, "spec.webUI.redisSecretRef", URL_FIELD),
        (oidc.client_secret_ref if oidc else None, "spec.auth.oidc.clientSecretRef", CLIENT_SECRET_FIELD),
    ):
        if reference is not None:
            digest.update((await _read(context, gateway, reference.name, field, key_name)).encode())
    # Its key comes first: pods that wait for a Secret are tried again only after half a minute.
    key = context.cache.api_key((gateway.metadata.namespace, web_ui_name(gateway.metadata.name)))
    hashes = key.status.keys if key is not None else []
    digest.update((hashes[0].sha256 if hashes else "").encode())
    children = build_children(gateway, ui, context.settings, digest.hexdigest()[:16])
    await context.children.apply_all(gateway, [child for child in children if type_of(child) != STATEFUL_SETS])
    if not hashes:
        raise Waiting("WebUIStarting", f"ApiKey {web_ui_name(gateway.metadata.name)} is being made", retry_after=2.0)
    await context.children.apply_all(gateway, [child for child in children if type_of(child) == STATEFUL_SETS])


def observe_web_ui(
    context: Context, gateway: ApiGateway, ui: WebUI | None, problem: StokerError | None
) -> ObservedWebUI | None:
    """What status needs to know of it."""
    if ui is None:
        return None
    cache, key = context.cache, (gateway.metadata.namespace, web_ui_name(gateway.metadata.name))
    pods = tuple(pod for pod in cache.pods_of("ApiGateway", gateway.key) if pod.component == COMPONENT)
    workload = ObservedWorkload(observe_deployment(cache.child(STATEFUL_SETS, key)), pods)
    weakened = tuple(weakening_overrides(gateway, ui))
    return ObservedWebUI(ui, workload, cache.child(SERVICES, key), weakened, problem)


async def _keep(context: Context, gateway: ApiGateway, wanted: Object) -> Object:
    """What is there already stays as it is, for an account's password is not where it is written down alone; a claim may grow."""
    resource, name = type_of(wanted), wanted["metadata"]["name"]
    namespace = gateway.metadata.namespace
    live = await context.client.get(resource, namespace, name)
    if live is None:
        try:
            return await context.client.create(resource, wanted)
        except ApiError as error:
            if error.status != 409:
                raise explain_refusal(gateway, resource, (namespace, name), error) from error
        raise Waiting("ChildChanging", f"{resource.kind} {name} is being changed by somebody else", retry_after=2.0)
    if not is_kept_for(gateway, live):
        raise Stalled(
            "NameTaken",
            f"{resource.kind} {name} exists and was not made for the web UI of ApiGateway {gateway.metadata.name}: delete or rename it",
        )
    if resource == CLAIMS:
        await _enlarge(context, gateway, wanted, live)
    return live


async def _enlarge(context: Context, gateway: ApiGateway, wanted: Object, live: Object) -> None:
    size, old = (obj["spec"]["resources"]["requests"]["storage"] for obj in (wanted, live))
    if parse_quantity(size) <= parse_quantity(old):
        return
    namespace, name = live["metadata"]["namespace"], live["metadata"]["name"]
    try:
        await context.client.merge(CLAIMS, namespace, name, {"spec": {"resources": {"requests": {"storage": size}}}})
    except ApiError as error:
        raise explain_refusal(gateway, CLAIMS, (namespace, name), error) from error


async def _read(context: Context, gateway: ApiGateway, name: str, field: str, key_name: str) -> str:
    text = await read_secret_text(context, gateway.metadata.namespace, name, key_name)
    if not text:
        raise Stalled(
            "SecretNotFound",
            f"ApiGateway {gateway.metadata.name}: {field} needs a Secret {name} with the key {key_name}: "
            f"kubectl create secret generic {name} --from-literal={key_name}=…",
        )
    return text
