"""ApiKey: the key, its hash, and the Secret that receives it once."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

from stoker.api.api_key import ApiKey, KeyHash
from stoker.api.names import KEY_PREFIX_ANNOTATION, KEY_SECRET_FIELD
from stoker.desired.objects import Object, child, secret_data

COMPONENT = "api-key"
KEY_BYTES = 32
ROTATION_GRACE_SECONDS = 600

_PREFIX = "sk-stoker-"
_SHOWN = len(_PREFIX) + 4


def build_key(random_bytes: bytes) -> str:
    """A key of 256 random bits; the prefix lets secret scanners find it."""
    if len(random_bytes) != KEY_BYTES:
        raise ValueError(f"a key is made of {KEY_BYTES} random bytes")
    return _PREFIX + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def hash_key(key: str) -> str:
    """What is kept of a key; it is random, so a plain hash cannot be guessed backwards."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_prefix(key: str) -> str:
    """Enough of a key to recognise it, too little to use it."""
    return key[:_SHOWN] + "…"


def build_replacement(api_key: ApiKey, key: str) -> Object:
    """Patch that puts a new key in the place of one of which only the hash is kept, in this very object."""
    metadata = {"uid": api_key.metadata.uid, "annotations": {KEY_PREFIX_ANNOTATION: key_prefix(key)}}
    return {"metadata": metadata, "spec": {"sha256": hash_key(key)}}


def expiry(now: datetime, lasts: timedelta) -> str:
    """When a key that lasts so long stops, as spec.expiresAt has it."""
    return (now + lasts).strftime("%Y-%m-%dT%H:%M:%SZ")


def secret_name(api_key: ApiKey) -> str:
    """Secret with the generated key."""
    return api_key.spec.secret_name or api_key.metadata.name


def build_secret(api_key: ApiKey, key: str) -> Object:
    """Made by a plain create, never applied: a key must not be written twice."""
    data = secret_data(**{KEY_SECRET_FIELD: key})
    return child(api_key, COMPONENT, "v1", "Secret", secret_name(api_key), type="Opaque", data=data)


def add_key_hash(
    hashes: Iterable[KeyHash], sha256: str, now: datetime, grace_seconds: int = ROTATION_GRACE_SECONDS
) -> tuple[KeyHash, ...]:
    """The new hash first; those before it go on for the grace period, so that clients can change over."""
    end = now + timedelta(seconds=grace_seconds)
    previous = [
        entry.model_copy(update={"expires_at": min(entry.expires_at or end, end)})
        for entry in live_key_hashes(hashes, now)
        if entry.sha256 != sha256
    ]
    return (KeyHash(sha256=sha256, created_at=now), *previous)[:4]


def live_key_hashes(hashes: Iterable[KeyHash], now: datetime) -> tuple[KeyHash, ...]:
    """Hashes that have not expired."""
    return tuple(entry for entry in hashes if entry.expires_at is None or entry.expires_at > now)


def is_active(api_key: ApiKey, now: datetime) -> bool:
    """Whether the key opens its gateway now."""
    return not api_key.spec.suspend and (api_key.spec.expires_at is None or api_key.spec.expires_at > now)


def next_change(api_key: ApiKey, now: datetime) -> datetime | None:
    """When time alone will change the key's status: nothing in the cluster will tell."""
    moments = [api_key.spec.expires_at, *(entry.expires_at for entry in api_key.status.keys)]
    return min((moment for moment in moments if moment is not None and moment > now), default=None)
