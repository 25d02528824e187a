"""Who issues tokens that are let in, as routes.json tells it. Pure configuration: keys and signatures are in tokens.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SHORTEST_SECRET = 32
DISCOVERY_PATH = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer of JWTs, and what its claims mean here."""

    issuer: str
    """What `iss` must be, to the letter."""
    audiences: frozenset[str]
    """One of them must be in `aud`."""
    jwks_uri: str = ""
    """Where its public keys are; then no shared secret counts."""
    discovery: bool = False
    """Its discovery document says where its public keys are."""
    secret: str = ""
    """Shared secret of HS256; then no public key counts."""
    user: str = "sub"
    email: str = ""
    """Empty: he is known by the claim that names the user."""
    unverified_email: bool = False
    """An address counts although the issuer says that it is not verified."""
    groups: str = "groups"
    roles: str = "roles"
    role_map: tuple[tuple[str, str], ...] = ()
    """Value of a roles or groups claim, and the gateway's role for it; the first that fits counts."""
    default_role: str = ""
    """Role of whoever has none by these values, nor by what a role says of its subjects; empty: he is not let in."""

    @property
    def keys_address(self) -> str:
        """Where its public keys are looked for; empty where a shared secret counts."""
        return f"{self.issuer.rstrip('/')}{DISCOVERY_PATH}" if self.discovery else self.jwks_uri


@dataclass(frozen=True, slots=True)
class Introspection:
    """Whom to ask about tokens that say nothing by themselves."""

    url: str
    client_id: str
    client_secret: str
    issuer: Issuer
    """What the answer means here."""


def parse_introspection(entry: Any) -> Introspection | None:
    """ValueError or the like for anything that is not whole."""
    if entry is None:
        return None
    url = _text(entry["url"])
    if urlsplit(url).scheme not in ("https", "http"):
        raise ValueError(f"introspection.url is no http address: {url}")
    issuer = Issuer(issuer=url, audiences=frozenset(map(_text, entry.get("audiences") or ())), **_meanings(entry))
    return Introspection(url, _text(entry["clientId"]), _text(entry["clientSecret"]), issuer)


@dataclass(frozen=True, slots=True)
class UserTokens:
    """How a service that calls with one key says for which of its users: by tokens that it signs with a shared secret."""

    issuer: str
    """What `iss` must be."""
    secret: str
    required: bool = False
    """Whether a call without one is refused."""


def parse_user_tokens(entry: Any) -> UserTokens | None:
    """None where the key speaks for nobody else; ValueError or the like for half an entry, which would make the key's users one."""
    if entry is None:
        return None
    found = UserTokens(_text(entry["issuer"]), _text(entry["secret"]), required=entry.get("required") is True)
    if len(found.secret.encode()) < SHORTEST_SECRET:
        raise ValueError(f"the secret of userTokens is shorter than {SHORTEST_SECRET} bytes")
    return found


def parse_issuer(entry: Any) -> Issuer:
    """ValueError or the like for anything that is not whole: half an issuer must not let anybody in."""
    found = Issuer(
        issuer=_text(entry["issuer"]),
        audiences=frozenset(_text(audience) for audience in entry["audiences"]),
        jwks_uri=_text(entry.get("jwksUri") or "-").strip("-"),
        discovery=entry.get("discovery") is True,
        secret=str(entry.get("secret") or ""),
        **_meanings(entry),
    )
    if not found.audiences:
        raise ValueError(f"issuer {found.issuer} has no audiences")
    if [bool(found.jwks_uri), bool(found.secret), found.discovery].count(True) != 1:
        raise ValueError(f"issuer {found.issuer} needs one of jwksUri, discovery and a secret")
    if found.secret and len(found.secret.encode()) < SHORTEST_SECRET:
        raise ValueError(f"the secret of issuer {found.issuer} is shorter than {SHORTEST_SECRET} bytes")
    if found.keys_address and urlsplit(found.keys_address).scheme not in ("https", "http"):
        raise ValueError(f"the keys of issuer {found.issuer} are not at an http address: {found.keys_address}")
    return found


def _meanings(entry: Any) -> dict[str, Any]:
    """What claims and their values are here."""
    claims: Mapping[str, Any] = entry.get("claims") or {}
    return {
        "user": _text(claims.get("user") or "sub"),
        "email": str(claims.get("email") or ""),
        "unverified_email": claims.get("acceptUnverifiedEmail") is True,
        "groups": _text(claims.get("groups") or "groups"),
        "roles": _text(claims.get("roles") or "roles"),
        "role_map": tuple((_text(pair["value"]), _text(pair["role"])) for pair in entry.get("roleMap") or ()),
        "default_role": str(entry.get("defaultRole") or ""),
    }


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text")
    return value
