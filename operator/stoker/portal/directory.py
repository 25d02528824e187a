"""What the portal knows of the cluster: its configuration, and the ApiKeys of its gateway.

It reads one ConfigMap by name and the ApiKeys of its namespace. It never reads a Secret: a key made here is shown once and
only its hash is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from stoker.api import ApiKey
from stoker.api.base import API_VERSION
from stoker.api.names import (
    KEY_PREFIX_ANNOTATION,
    MANAGED_BY,
    PORTAL_LABEL,
    TITLE_ANNOTATION,
    admin_key_name,
    portal_name,
)
from stoker.claims import known_as
from stoker.cluster.client import KubeClient
from stoker.cluster.resource_types import API_KEYS, CONFIG_MAPS, Object
from stoker.desired.api_key import (
    KEY_BYTES,
    build_key,
    build_replacement,
    expiry,
    hash_key,
    is_active,
    key_prefix,
    live_key_hashes,
)
from stoker.portal.config import CONFIG_FIELD, PortalConfig, PortalModel
from stoker.portal.sessions import Session
from stoker.portal.settings import Settings

logger = logging.getLogger(__name__)

ADMIN_ROLE = "admin"
LONGEST_TITLE = 64
LONGEST_DAYS = 3650


class Refused(Exception):
    """What somebody asked for cannot be done; the message is for him."""


@dataclass(frozen=True)
class KeyRow:
    """A key as a page shows it."""

    name: str
    title: str
    owner: str
    role: str
    models: tuple[str, ...]
    prefix: str
    created_at: datetime | None
    expires_at: datetime | None
    state: str
    """Active, Suspended, Expired, or the reason why it is not let in."""
    message: str
    secret: str
    """Secret with the key; empty for keys of which only the hash is kept."""
    made_here: bool
    own_to_gateway: bool
    """It comes and goes with the ApiGateway."""
    last_used_at: datetime | None
    requests: int
    tokens: int


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; it cannot be shown a second time."""

    name: str
    key: str


class Directory:
    """Reads and writes on behalf of whoever is signed in; who may do what is decided here."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self.config: PortalConfig | None = None
        """None until the operator has told."""

    async def follow(self) -> None:
        """Keep the configuration true, for ever."""
        name = portal_name(self._settings.gateway)
        async for event in self._client.watch(CONFIG_MAPS, self._settings.namespace, name=name):
            found = event.items if event.type == "LISTED" else [event.object]
            for item in found if event.type != "DELETED" else ():
                self._take(item)

    def models(self) -> tuple[PortalModel, ...]:
        """All of the gateway; none before the operator has told."""
        return self.config.models if self.config is not None else ()

    def _take(self, item: Object) -> None:
        try:
            self.config = PortalConfig.model_validate_json((item.get("data") or {})[CONFIG_FIELD])
        except (KeyError, ValidationError) as error:
            logger.warning("the configuration is not taken over: %s", error)

    async def keys(self) -> list[ApiKey]:
        """The ApiKeys of this gateway."""
        items, _ = await self._client.list(API_KEYS, self._settings.namespace)
        return [key for item in items if (key := _parse(item)) and key.spec.gateway_ref.name == self._settings.gateway]

    async def key_of(self, digest: str) -> ApiKey | None:
        """The ApiKey that lets in a key with this SHA-256, if it does so now."""
        now = datetime.now(UTC)
        for key in await self.keys():
            hashes = {entry.sha256 for entry in live_key_hashes(key.status.keys, now)} | {key.spec.sha256}
            if digest in hashes and is_active(key, now) and key.metadata.deletion_timestamp is None:
                return key
        return None

    def role_of(self, key: ApiKey) -> str:
        """The role of whoever holds a key; the key that Stoker made for the gateway is its admin's."""
        return ADMIN_ROLE if key.metadata.name == admin_key_name(self._settings.gateway) else key.spec.role or ""

    async def rows(self, session: Session) -> list[KeyRow]:
        """The keys somebody may see: his own, an admin all; newest first."""
        rows = [self._row(key) for key in await self.keys() if session.admin or owner_of(key) == session.user]
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(rows, key=lambda row: (row.created_at or oldest, row.name), reverse=True)

    async def make_key(self, session: Session, title: str, days: int | None, models: Sequence[str]) -> NewKey:
        """A key of his own; its role is his, so what he may not use it does not open."""
        config = self._configured()
        if not session.may_make_keys:
            raise Refused("You are signed in with an API key, and only people may make keys: sign in as yourself.")
        title = check_title(title)
        check_days(days, config.max_key_days)
        own = [
            key for key in await self.keys() if owner_of(key) == session.user and PORTAL_LABEL in key.metadata.labels
        ]
        if len(own) >= config.max_keys_per_user:
            raise Refused(f"You have {len(own)} keys, and no more are allowed: revoke one that you do not need.")
        known = {model.name for model in config.offered}
        if unknown := sorted(set(models) - known):
            raise Refused(f"There is no model {unknown[0]} any more: choose among those on the page.")
        key = build_key(secrets.token_bytes(KEY_BYTES))
        name = f"{_slug(title)}-{secrets.token_hex(4)}"
        spec: Object = {
            "gatewayRef": {"name": self._settings.gateway},
            "owner": session.user,
            "role": session.role,
            "models": sorted(models) or ["*"],
            "sha256": hash_key(key),
        }
        if days is not None:
            spec["expiresAt"] = _end(days)
        annotations = {TITLE_ANNOTATION: title, KEY_PREFIX_ANNOTATION: key_prefix(key)}
        metadata = {
            "name": name,
            "namespace": self._settings.namespace,
            "labels": {PORTAL_LABEL: self._settings.gateway},
            "annotations": annotations,
        }
        await self._client.create(
            API_KEYS, {"apiVersion": API_VERSION, "kind": API_KEYS.kind, "metadata": metadata, "spec": spec}
        )
        logger.info("key %s was made by %s", name, session.user)
        return NewKey(name, key)

    async def rotate_key(self, session: Session, name: str) -> NewKey:
        """A new key under the same name; the old one stops within seconds."""
        found = await self._own(session, name)
        if found.spec.sha256 is None:
            raise Refused(
                f"The key of {name} is kept in a Secret; rotate it with: kubectl -n {self._settings.namespace} annotate "
                f"apikey {name} stoker.dev/rotate=$(date +%s) --overwrite"
            )
        key = build_key(secrets.token_bytes(KEY_BYTES))
        patch = build_replacement(found, key)
        patch["spec"] |= _role_now(session, found)
        await self._client.merge(API_KEYS, self._settings.namespace, name, patch)
        logger.info("key %s was rotated by %s", name, session.user)
        return NewKey(name, key)

    async def change_key(self, session: Session, name: str, title: str, days: int | None, *, keep_end: bool) -> None:
        """Another name, and another end counted from now (None: never) where it is not to stay."""
        found = await self._own(session, name)
        if PORTAL_LABEL not in found.metadata.labels:
            raise Refused(
                f"Key {name} was not made here: change it where it is kept, for instance with kubectl edit apikey."
            )
        metadata: Object = {"uid": found.metadata.uid, "annotations": {TITLE_ANNOTATION: check_title(title)}}
        patch: Object = {"metadata": metadata, "spec": _role_now(session, found)}
        if not keep_end:
            check_days(days, self._configured().max_key_days)
            patch["spec"]["expiresAt"] = None if days is None else _end(days)
        await self._client.merge(API_KEYS, self._settings.namespace, name, patch)
        logger.info("key %s was changed by %s", name, session.user)

    async def revoke_key(self, session: Session, name: str) -> None:
        """Delete it; the gateway refuses it within seconds."""
        found = await self._own(session, name)
        await self._client.delete(API_KEYS, self._settings.namespace, name, uid=found.metadata.uid)
        logger.info("key %s was revoked by %s", name, session.user)

    async def _own(self, session: Session, name: str) -> ApiKey:
        """The key, if he may change it. Somebody else's looks like one that is not there."""
        if not session.may_make_keys:
            raise Refused("You are signed in with an API key, and only people may change keys: sign in as yourself.")
        item = await self._client.get(API_KEYS, self._settings.namespace, name) if re.fullmatch(_NAME, name) else None
        key = _parse(item) if item else None
        mine = key is not None and (session.admin or owner_of(key) == session.user)
        if key is None or not mine or key.spec.gateway_ref.name != self._settings.gateway:
            raise Refused(f"You have no key {name}.")
        if MANAGED_BY in key.metadata.labels:
            raise Refused(f"Key {name} belongs to the gateway itself; who may edit the ApiGateway may remove it there.")
        return key

    def _row(self, key: ApiKey) -> KeyRow:
        ready = next((condition for condition in key.status.conditions if condition.type == "Ready"), None)
        annotations = key.metadata.annotations
        return KeyRow(
            name=key.metadata.name,
            title=annotations.get(TITLE_ANNOTATION, key.metadata.name),
            owner=owner_of(key),
            role=self.role_of(key),
            models=tuple(key.spec.models),
            prefix=key.status.prefix or annotations.get(KEY_PREFIX_ANNOTATION, ""),
            created_at=key.metadata.creation_timestamp,
            expires_at=key.spec.expires_at,
            state=ready.reason if ready else "Pending",
            message=ready.message if ready else "The operator has not seen it yet.",
            secret=key.status.secret_ref.name if key.status.secret_ref else "",
            own_to_gateway=MANAGED_BY in key.metadata.labels,
            made_here=PORTAL_LABEL in key.metadata.labels,
            last_used_at=key.status.last_used_time,
            requests=key.status.usage.requests if key.status.usage else 0,
            tokens=key.status.usage.prompt_tokens + key.status.usage.completion_tokens if key.status.usage else 0,
        )

    def _configured(self) -> PortalConfig:
        if self.config is None:
            raise Refused("The portal has no configuration yet; try again in a moment.")
        return self.config


def owner_of(key: ApiKey) -> str:
    """Whose it is, spelled as people are known here; empty for nobody's."""
    return known_as(key.spec.owner or "")


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(key.strip().encode()).hexdigest()


def check_title(title: str) -> str:
    """The name that somebody gives a key, with single blanks."""
    title = " ".join(title.split())
    if not title or len(title) > LONGEST_TITLE or not title.isprintable():
        raise Refused(f"Give the key a name of 1 to {LONGEST_TITLE} characters, such as “opencode on my laptop”.")
    return title


def check_days(days: int | None, most: int | None) -> None:
    """How long a key may last from now on; None is for ever."""
    if most is not None and (days is None or days > most):
        raise Refused(f"Keys made here last {most} days at most; choose a shorter time.")
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        raise Refused(f"A key must last a day at least, and {LONGEST_DAYS} at most, or until it is revoked.")


def _role_now(session: Session, key: ApiKey) -> Object:
    """Whoever takes his key in hand gets what his role is now, and not what it was when he made it."""
    mine = owner_of(key) == session.user and PORTAL_LABEL in key.metadata.labels
    return {"role": session.role} if mine else {}


def _end(days: int) -> str:
    """So many days from now, as Kubernetes writes times."""
    return expiry(datetime.now(UTC), timedelta(days=days))


_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"


def _slug(title: str) -> str:
    """A part of an object's name: small letters, digits and dashes, at most 40 of them."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "key"


def _parse(item: Object) -> ApiKey | None:
    try:
        return ApiKey.model_validate(item)
    except ValidationError as error:
        # Written past the API's rules; the others are shown all the same.
        name = json.dumps((item.get("metadata") or {}).get("name"))
        logger.warning("ApiKey %s is not shown: %s", name, error)
        return None
