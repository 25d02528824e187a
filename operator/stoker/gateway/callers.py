"""Who calls: keys by their hash, tokens of issuers by what they say or what their issuer says of them. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stoker.claims import LONGEST_LIST
from stoker.gateway import openai_errors as errors
from stoker.gateway.decision import Request
from stoker.gateway.openai_errors import ApiProblem
from stoker.gateway.table import Key, Table, with_role
from stoker.patterns import compile_patterns

if TYPE_CHECKING:
    from stoker.gateway.issuers import UserTokens
    from stoker.gateway.tokens import Identity, Verifier

ANY_MODEL = compile_patterns(["*"])
KEY_PREFIX = "sk-"
"""What begins like this is a key, and no issuer is asked about it."""
LONGEST_KEY = 16 << 10
"""Of tokens, too, and those carry lists of groups."""
IDENTITIES = 10_000


def find_caller(table: Table, request: Request, now: float) -> Key | ApiProblem:
    """The key, as that of its user where it speaks for one."""
    key = find_key(table, request.authorization, now)
    if isinstance(key, ApiProblem) or key.user_tokens is None:
        return key
    if request.user_token:
        return find_user(table, key, key.user_tokens, request, now)
    return errors.wrong_user_token("there is none") if key.user_tokens.required else key


def find_key(table: Table, authorization: str, now: float) -> Key | ApiProblem:
    """The key of the caller, by the hash of what was sent."""
    if authorization[:7].lower() != "bearer ":
        return errors.missing_key()
    secret = authorization[7:].strip()
    if not secret:
        return errors.missing_key()
    if len(secret) > LONGEST_KEY:
        return errors.wrong_key()
    digest = hashlib.sha256(secret.encode("latin-1", "replace")).digest()
    key = table.keys.get(digest)
    if key is None and table.verifier is not None and secret.count(".") == 2:
        return find_identity(table, table.verifier, secret, digest, now)
    if key is None and table.routes.introspection is not None and not secret.startswith(KEY_PREFIX):
        return find_stranger(table, digest, now)
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        return errors.wrong_key()
    return key


def find_stranger(table: Table, digest: bytes, now: float) -> Key | ApiProblem:
    """Whom a token speaks for that says nothing by itself, as far as its issuer has told."""
    key = table.identities.get(digest)
    if key is not None and key.expires_at is not None and key.expires_at > now:
        return key
    until, problem = table.strangers.get(digest, (0.0, None))
    return problem if problem is not None and until > now else errors.UNASKED


def find_identity(table: Table, verifier: Verifier, token: str, digest: bytes, now: float) -> Key | ApiProblem:
    """Whom a token speaks for, as a key that lasts as long as the token."""
    key = table.identities.get(digest)
    if key is not None and key.expires_at is not None and key.expires_at > now:
        return key
    from stoker.gateway.tokens import BadToken, UnknownKey

    try:
        identity = verifier.verify(token, now)
    except UnknownKey as error:
        return errors.wrong_token(str(error), errors.UNKNOWN_SIGNING_KEY)
    except BadToken as error:
        return errors.wrong_token(str(error))
    return remember_identity(table, identity, digest, identity.expires_at)


def remember_identity(table: Table, identity: Identity, digest: bytes, until: float) -> Key | ApiProblem:
    """As a key, if he has a role here."""
    role = identity.role or table.role_of(identity.names, identity.groups) or identity.default_role
    made = Key(
        name=f"jwt:{identity.user}",
        digest=digest,
        expires_at=until,
        allowed=ANY_MODEL,
        role=role,
        caller=identity.caller,
        user=identity.user,
        by_token=True,
    )
    key = with_role(made, table.roles, table.routes) if role else None
    if key is None:
        return errors.no_role(role)
    return remember(table, digest, key)


def find_user(table: Table, key: Key, by: UserTokens, request: Request, now: float) -> Key | ApiProblem:
    """The person for whom a service calls: he may what both the service's key and his own role may, and what he uses is counted as his."""
    said = f"{request.user_token} {request.user_groups}"
    digest = hashlib.sha256(key.digest + said.encode("latin-1", "replace")).digest()
    known = table.identities.get(digest)
    if known is not None and known.expires_at is not None and known.expires_at > now:
        return known
    from stoker.gateway.tokens import BadToken, verify_user

    try:
        user = verify_user(request.user_token, by, now)
    except BadToken as error:
        return errors.wrong_user_token(str(error))
    groups = user.groups if user.groups is not None else read_groups(request.user_groups)
    role = table.role_of_person(user.name, groups) or user.role
    made = replace(
        key,
        digest=digest,
        caller=f"{key.name} {user.name}",
        user=user.shown,
        expires_at=user.expires_at if key.expires_at is None else min(user.expires_at, key.expires_at),
        service=key,
    )
    if not role:
        return remember(table, digest, made)
    person = with_role(replace(made, role=role, bounds=key.own_bounds), table.roles, table.routes)
    return remember(table, digest, person) if person is not None else errors.person_without_role(user.shown, role)


def read_groups(said: str) -> frozenset[str]:
    """Open WebUI joins the names with commas and encodes what is not ASCII."""
    return frozenset(filter(None, (unquote(name).strip() for name in said.split(",")[:LONGEST_LIST])))


def remember(table: Table, digest: bytes, key: Key) -> Key:
    """Kept for the next call with the same token."""
    if len(table.identities) >= IDENTITIES:
        table.identities.clear()
    table.identities[digest] = key
    return key
