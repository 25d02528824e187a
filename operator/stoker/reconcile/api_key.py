"""Reconcile an ApiKey: make the key once, keep its hash, rotate it on demand.

The Secret with the key is created, never applied: a second write would be a second key. What the gateway accepts is in
``status.keys``, so a lost Secret locks nobody out.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from stoker.api import ApiKey
from stoker.api.api_key import KeyHash
from stoker.api.names import JWT_SECRET_FIELD, KEY_SECRET_FIELD, ROTATE_ANNOTATION
from stoker.cluster.children import explain_refusal
from stoker.cluster.errors import ApiError
from stoker.cluster.objects import controller_uid, secret_text
from stoker.cluster.own import OwnObject
from stoker.cluster.resource_types import SECRETS, Object
from stoker.desired.api_key import (
    KEY_BYTES,
    add_key_hash,
    build_key,
    build_secret,
    hash_key,
    key_prefix,
    live_key_hashes,
    next_change,
    secret_name,
)
from stoker.desired.gateway_tokens import check_user_tokens
from stoker.errors import Stalled, StokerError, Waiting
from stoker.reconcile.context import Context
from stoker.reconcile.named_secrets import read_secret_text
from stoker.reconcile.report import report, retry_after
from stoker.reconcile.usage import usage_of_key
from stoker.status.api_key import compute_api_key_status

# Secrets are not watched: that one was deleted by hand is noticed after this time at the latest.
RESYNC_SECONDS = 55.0


@dataclass(frozen=True)
class _Keys:
    """What a pass ends with: hashes the gateway accepts, and where the key is."""

    hashes: tuple[KeyHash, ...]
    prefix: str | None
    secret_name: str | None
    rotated: str | None


async def reconcile_api_key(context: Context, own: OwnObject, api_key: ApiKey) -> float | None:
    """One pass; says when to look again."""
    now = context.now()
    status = api_key.status
    problem: StokerError | None = None
    keys = _Keys(
        live_key_hashes(status.keys, now),
        status.prefix,
        status.secret_ref.name if status.secret_ref else None,
        status.rotated,
    )
    try:
        keys = (
            await _without_secret(context, api_key, now)
            if api_key.spec.sha256
            else await _with_secret(context, api_key, now)
        )
        await _check_user_tokens(context, api_key)
    except StokerError as error:
        problem = error
    gateway_key = (api_key.metadata.namespace, api_key.spec.gateway_ref.name)
    gateway = context.cache.own("ApiGateway", gateway_key)
    readable = context.cache.gateway(gateway_key)
    new = compute_api_key_status(
        api_key,
        gateway_found=gateway is not None and gateway.metadata.deletion_timestamp is None,
        role_found=readable is None or not api_key.spec.role or readable.has_role(api_key.spec.role),
        hashes=keys.hashes,
        prefix=keys.prefix,
        secret_name=keys.secret_name,
        rotated=keys.rotated,
        used=usage_of_key(context, api_key.key, status),
        problem=problem,
        now=now,
    )
    await report(context, own, new)
    change = next_change(api_key.model_copy(update={"status": new}), now)
    until_change = (change - now).total_seconds() if change else RESYNC_SECONDS
    return retry_after(problem, new.conditions, now, at_most=min(RESYNC_SECONDS, max(until_change, 1.0)))


async def _check_user_tokens(context: Context, api_key: ApiKey) -> None:
    tokens = api_key.spec.user_tokens
    if tokens is not None:
        place = api_key.metadata.namespace, tokens.secret_ref.name
        check_user_tokens(api_key, await read_secret_text(context, *place, JWT_SECRET_FIELD))


async def _without_secret(context: Context, api_key: ApiKey, now: datetime) -> _Keys:
    """The caller brought a hash and keeps the key; a Secret of before has no use any more."""
    assert api_key.spec.sha256 is not None  # noqa: S101
    if api_key.status.secret_ref is not None:
        await context.children.delete(api_key, SECRETS, (api_key.metadata.namespace, api_key.status.secret_ref.name))
    made = next((entry.created_at for entry in api_key.status.keys if entry.sha256 == api_key.spec.sha256), now)
    return _Keys((KeyHash(sha256=api_key.spec.sha256, created_at=made),), None, None, None)


async def _with_secret(context: Context, api_key: ApiKey, now: datetime) -> _Keys:
    wanted_rotation = api_key.metadata.annotations.get(ROTATE_ANNOTATION)
    # A hash that the caller once brought has no Secret; a key is made as for a new object.
    hashes = live_key_hashes(api_key.status.keys, now) if api_key.status.secret_ref else ()
    if not hashes:
        secret = await _read_or_create(context, api_key, wanted_rotation)
        key = _key_in(api_key, secret)
        return _Keys(add_key_hash((), hash_key(key), now), key_prefix(key), secret_name(api_key), wanted_rotation)
    secret_now = await _read_or_move(context, api_key)
    if wanted_rotation and wanted_rotation != api_key.status.rotated:
        key = await _rotate(context, api_key, secret_now, wanted_rotation)
        return _Keys(add_key_hash(hashes, hash_key(key), now), key_prefix(key), secret_name(api_key), wanted_rotation)
    if secret_now is None:
        raise Stalled(
            "KeySecretMissing",
            f"Secret {secret_name(api_key)} with the key of ApiKey {api_key.metadata.name} is gone; the key goes on working for "
            f"whoever has it. For a new one: kubectl annotate apikey {api_key.metadata.name} {ROTATE_ANNOTATION}=1 --overwrite",
        )
    key = _key_in(api_key, secret_now)
    if hash_key(key) not in {entry.sha256 for entry in hashes}:
        raise Stalled(
            "KeySecretChanged",
            f"Secret {secret_name(api_key)} holds another key than the one that was made for ApiKey {api_key.metadata.name}; it is "
            f"not accepted. For a new one: kubectl annotate apikey {api_key.metadata.name} {ROTATE_ANNOTATION}=1 --overwrite",
        )
    return _Keys(hashes, key_prefix(key), secret_name(api_key), api_key.status.rotated)


async def _read_or_create(context: Context, api_key: ApiKey, rotation: str | None) -> Object:
    """The Secret of the key; made now if there is none, for the status that would know its hash was never written."""
    secret = _new_secret(api_key, _new_key(), rotation)
    key = (api_key.metadata.namespace, secret_name(api_key))
    try:
        return await context.client.create(SECRETS, secret)
    except ApiError as error:
        if error.status != 409:
            raise explain_refusal(api_key, SECRETS, key, error) from error
    found = await _read_ours(context, api_key, secret_name(api_key))
    if found is None:
        raise Waiting("SecretChanging", f"Secret {secret_name(api_key)} is being deleted", retry_after=1.0)
    return found


async def _read_or_move(context: Context, api_key: ApiKey) -> Object | None:
    """The Secret with the key; after a change of ``spec.secretName`` the key moves to its new place."""
    name, old_name = secret_name(api_key), api_key.status.secret_ref.name if api_key.status.secret_ref else ""
    found = await _read_ours(context, api_key, name)
    if found is None and old_name != name:
        old = await _read_ours(context, api_key, old_name)
        if old is not None:
            moved = _new_secret(api_key, _key_in(api_key, old), api_key.status.rotated)
            found = await context.client.create(SECRETS, moved)
    if found is not None and old_name != name:
        await context.children.delete(api_key, SECRETS, (api_key.metadata.namespace, old_name))
    return found


async def _rotate(context: Context, api_key: ApiKey, secret: Object | None, rotation: str) -> str:
    """A new key in the Secret; the mark on it tells, after a crash between the two writes, that it was made already."""
    if secret is None:
        return _key_in(api_key, await _read_or_create(context, api_key, rotation))
    annotations = secret["metadata"].get("annotations") or {}
    if annotations.get(ROTATE_ANNOTATION) == rotation:
        return _key_in(api_key, secret)
    key = _new_key()
    written = _new_secret(api_key, key, rotation)
    secret["data"] = written["data"]
    secret["metadata"]["annotations"] = {**annotations, ROTATE_ANNOTATION: rotation}
    secret["metadata"].pop("managedFields", None)
    try:
        await context.client.replace(SECRETS, secret)
    except ApiError as error:
        if error.status == 409:
            raise Waiting(
                "SecretChanging", f"Secret {secret_name(api_key)} was just changed", retry_after=1.0
            ) from error
        raise
    return key


async def _read_ours(context: Context, api_key: ApiKey, name: str) -> Object | None:
    secret = await context.client.get(SECRETS, api_key.metadata.namespace, name)
    if secret is not None and controller_uid(secret) != api_key.metadata.uid:
        if any(
            (reference["kind"], reference["name"]) == (api_key.info.kind, api_key.metadata.name)
            for reference in secret["metadata"].get("ownerReferences") or ()
        ):
            raise Waiting(
                "SecretChanging",
                f"Secret {name} of an earlier ApiKey {api_key.metadata.name} is being deleted",
                retry_after=1.0,
            )
        raise Stalled(
            "SecretNameTaken",
            f"Secret {name} exists and does not belong to ApiKey {api_key.metadata.name}: delete it, or set spec.secretName to "
            "another name",
        )
    return secret


def _key_in(api_key: ApiKey, secret: Object) -> str:
    key = secret_text(secret, KEY_SECRET_FIELD)
    if not key:
        raise Stalled(
            "KeySecretChanged",
            f"Secret {secret['metadata']['name']} has no readable {KEY_SECRET_FIELD} any more. For a new key of ApiKey "
            f"{api_key.metadata.name}: delete the Secret, then kubectl annotate apikey {api_key.metadata.name} "
            f"{ROTATE_ANNOTATION}=1 --overwrite",
        )
    return key


def _new_key() -> str:
    return build_key(secrets.token_bytes(KEY_BYTES))


def _new_secret(api_key: ApiKey, key: str, rotation: str | None) -> Object:
    secret = build_secret(api_key, key)
    if rotation:
        secret["metadata"]["annotations"] = {ROTATE_ANNOTATION: rotation}
    return secret
