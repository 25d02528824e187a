"""The Secret with an engine's key, made where one is asked for."""

from __future__ import annotations

import secrets

from stoker.api.model_deployment import ModelDeployment
from stoker.api.names import ENGINE_KEY_FIELD, engine_key_secret_name
from stoker.api.resolved import ResolvedModelDeployment
from stoker.cluster.children import explain_refusal
from stoker.cluster.errors import ApiError
from stoker.cluster.objects import controller_uid, secret_text
from stoker.cluster.resource_types import SECRETS
from stoker.desired.engine_key import build_key_secret, wants_key
from stoker.errors import Stalled
from stoker.reconcile.context import Context

KEY_BYTES = 32


async def keep_engine_key(context: Context, resolved: ResolvedModelDeployment) -> None:
    """Before the pods that name it. One that is deleted by hand is made anew; running pods keep the old one until they are replaced."""
    deployment = resolved.deployment
    if not wants_key(resolved):
        # A Secret of before stays with the model: pods that are being replaced still ask for the key.
        return
    found = await context.client.get(SECRETS, *_place(deployment))
    if found is None:
        made = build_key_secret(deployment, secrets.token_urlsafe(KEY_BYTES))
        try:
            found = await context.client.create(SECRETS, made)
        except ApiError as error:
            raise explain_refusal(deployment, SECRETS, _place(deployment), error) from error
    if controller_uid(found) != deployment.metadata.uid:
        raise Stalled(
            "NameTaken",
            f"Secret {_place(deployment)[1]} exists and does not belong to ModelDeployment {deployment.metadata.name}: delete it",
        )


async def read_engine_key(context: Context, deployment: ModelDeployment) -> str:
    """The key; empty while there is none."""
    secret = await context.client.get(SECRETS, *_place(deployment))
    if secret is None or controller_uid(secret) != deployment.metadata.uid:
        return ""
    return secret_text(secret, ENGINE_KEY_FIELD)


def _place(deployment: ModelDeployment) -> tuple[str, str]:
    return deployment.metadata.namespace, engine_key_secret_name(deployment.metadata.name)
