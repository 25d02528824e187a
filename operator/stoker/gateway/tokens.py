"""JSON Web Tokens: whose they are, or why not.

The issuer's own configuration says which keys and algorithms count; what the token says of itself only chooses among them. So a
token cannot bring its key along, cannot do without a signature, and cannot have a public key taken for a shared secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from stoker.claims import EMAIL, claim, in_header, is_unverified, known_as, texts_of
from stoker.gateway.issuers import Issuer, UserTokens

CLOCK_SKEW_SECONDS = 60.0
SMALLEST_RSA_BITS = 2048
LONGEST_USER = 256

_PART = re.compile(r"[A-Za-z0-9_-]+")

AnyKey = RSAKey | ECKey | OKPKey | OctKey

CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a good token speaks for."""

    caller: str
    """Issuer and user: one for each person, whatever token he brings."""
    user: str
    """For log lines: printable, and fit for a header."""
    role: str
    """By the issuer's role map; empty where none of his values is in it."""
    default_role: str
    """Where no role names him, either; empty where he is not let in then."""
    names: tuple[str, ...]
    """What roles may name him by: the user that the token names, and his address."""
    groups: frozenset[str]
    expires_at: float
    """Clock skew included."""


@dataclass(frozen=True, slots=True)
class User:
    """For whom a service calls."""

    name: str
    shown: str
    """For log lines: printable, and fit for a header."""
    role: str
    """What he is there; empty where the service does not say."""
    groups: frozenset[str] | None
    """None where the token does not say."""
    expires_at: float
    """Clock skew included."""


class BadToken(Exception):
    """Not let in; the message is for the client."""


class UnknownKey(BadToken):
    """Signed with a key that is not in the issuer's set, or not in the set as it was last fetched."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an issuer's set."""

    kid: str
    algorithm: str
    """The one it is bound to; empty for any that fits its type."""
    key: AnyKey

    def fits(self, algorithm: str) -> bool:
        """Whether the key is one for this algorithm."""
        if self.algorithm not in ("", algorithm):
            return False
        if isinstance(self.key, RSAKey):
            return algorithm in RSA_ALGORITHMS
        return isinstance(self.key, ECKey | OKPKey) and CURVES.get(algorithm) == self.key.curve_name


class Verifier:
    """The issuers of a gateway with their keys."""

    def __init__(self, issuers: Iterable[Issuer], key_sets: Mapping[str, Any]) -> None:
        self._issuers: dict[str, tuple[Issuer, tuple[PublicKey, ...]]] = {}
        for issuer in issuers:
            keys = read_key_set(key_sets.get(issuer.keys_address)) if issuer.keys_address else _shared(issuer.secret)
            self._issuers.setdefault(issuer.issuer, (issuer, keys))

    def verify(self, token: str, now: float) -> Identity:
        """BadToken says why not; what is inside a token is told only after its signature was found good."""
        header, claims = _take_apart(token)
        name = claims.get("iss")
        found = self._issuers.get(name) if isinstance(name, str) else None
        if found is None:
            raise BadToken("its issuer is not one that this gateway trusts")
        issuer, keys = found
        key, algorithm = _choose(header, issuer, keys)
        return identify(issuer, _check_signature(token, key, algorithm), now)


def verify_user(token: str, by: UserTokens, now: float) -> User:
    """For whom a service calls, by the token it signed: Open WebUI's claims are sub, email, name, role, iss, iat and exp, but no aud."""
    header, claims = _take_apart(token)
    if header.get("alg") != "HS256" or "crit" in header or header.get("b64", True) is not True:
        raise BadToken("its algorithm is not HS256")
    claims = _check_signature(token, OctKey.import_key(by.secret.encode()), "HS256")
    if claims.get("iss") != by.issuer:
        raise BadToken("its issuer is not the one that this key speaks for")
    expires_at = _check_times(claims, now)
    # The address is what people and other issuers call him by; sub is a number of the service's own.
    name = next((value for value in (claims.get("email"), claims.get("sub")) if isinstance(value, str) and value), "")
    if not 0 < len(name) <= LONGEST_USER:
        raise BadToken("it does not name its user (email, sub)")
    role, groups = claims.get("role"), claims.get("groups")
    if role is not None and not isinstance(role, str):
        raise BadToken("its role is not a text")
    name = known_as(name)
    return User(
        name=name,
        shown=in_header(name),
        role=role or "",
        groups=None if groups is None else frozenset(texts_of(groups)),
        expires_at=expires_at,
    )


def _take_apart(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, neither of them believed yet."""
    parts = token.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise BadToken("it is not a signed JSON Web Token")
    return _read(parts[0]), _read(parts[1])


def _check_signature(token: str, key: AnyKey, algorithm: str) -> dict[str, Any]:
    """The claims, which may be believed now."""
    try:
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        with warnings.catch_warnings():
            # EdDSA has a new name; most issuers use the old one.
            warnings.simplefilter("ignore", SecurityWarning)
            signed = jws.deserialize_compact(token, key, algorithms=[algorithm], registry=registry)
    except (JoseError, ValueError, TypeError):
        raise BadToken("its signature is wrong") from None
    return _object(signed.payload)


def read_key_set(document: Any) -> tuple[PublicKey, ...]:
    """The usable public keys of a set; one that cannot be read, or is weak, does not spoil the others."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(key for entry in entries if isinstance(entry, dict) and (key := _read_key(entry)) is not None)


def _read_key(entry: dict[str, Any]) -> PublicKey | None:
    kid, algorithm, use, operations = (entry.get(name) for name in ("kid", "alg", "use", "key_ops"))
    if use not in (None, "sig") or (operations is not None and "verify" not in operations):
        return None
    # Public parts only: a set that shows its private keys still only verifies here. Shared secrets have no place in a set.
    public: dict[str, Any] = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    key = _import(public)
    if key is None:
        return None
    if not all(value is None or isinstance(value, str) for value in (kid, algorithm)):
        return None
    return PublicKey(kid or "", algorithm or "", key)


def _import(public: dict[str, Any]) -> AnyKey | None:
    try:
        with warnings.catch_warnings():
            # It warns of weak keys, which are left out here.
            warnings.simplefilter("ignore", SecurityWarning)
            match public.get("kty"):
                case "RSA":
                    key = RSAKey.import_key(public)
                    return key if key.raw_value.key_size >= SMALLEST_RSA_BITS else None
                case "EC":
                    return ECKey.import_key(public)
                case "OKP":
                    return OKPKey.import_key(public)
                case _:
                    return None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _shared(secret: str) -> tuple[PublicKey, ...]:
    return (PublicKey("", "HS256", OctKey.import_key(secret.encode())),)


def _choose(header: dict[str, Any], issuer: Issuer, keys: tuple[PublicKey, ...]) -> tuple[AnyKey, str]:
    """The one key that can have signed it."""
    algorithm, kid = header.get("alg"), header.get("kid")
    if "crit" in header or header.get("b64", True) is not True:
        raise BadToken("its header asks for something that this gateway does not know")
    if issuer.secret:
        if algorithm != "HS256":
            raise BadToken("its algorithm is not HS256")
        return keys[0].key, "HS256"
    if not isinstance(algorithm, str) or algorithm not in (*RSA_ALGORITHMS, *CURVES):
        raise BadToken("its algorithm is not one that this gateway takes")
    if kid is not None and not isinstance(kid, str):
        raise BadToken("its kid is not a text")
    fitting = [key for key in keys if key.fits(algorithm) and kid in (None, key.kid)]
    if not fitting:
        raise UnknownKey("it is signed with a key that its issuer does not show")
    if len(fitting) > 1:
        raise BadToken("it does not say which key of its issuer signed it")
    return fitting[0].key, algorithm


def identify(issuer: Issuer, claims: dict[str, Any], now: float) -> Identity:
    """Who is meant by claims that may be believed; BadToken where they are not for here or not for now."""
    audience = claims.get("aud")
    # Only of tokens that the issuer itself was asked about may any do.
    if issuer.audiences and not issuer.audiences.intersection(
        [audience] if isinstance(audience, str) else texts_of(audience)
    ):
        raise BadToken("it is meant for somebody else (aud)")
    expires_at = _check_times(claims, now)
    user = claim(claims, issuer.user)
    if not isinstance(user, str) or not 0 < len(user) <= LONGEST_USER:
        raise BadToken(f"it does not name its user ({issuer.user})")
    unverified = is_unverified(claims) and not issuer.unverified_email
    if unverified and issuer.user == EMAIL:
        raise BadToken(
            f"its issuer says that the address {user} is not verified (email_verified): confirm it at the identity provider"
        )
    user = known_as(user)
    email = "" if unverified else _email(issuer, claims)
    groups, roles = (frozenset(texts_of(claim(claims, path))) for path in (issuer.groups, issuer.roles))
    role = next((role for value, role in issuer.role_map if value in roles or value in groups), "")
    return Identity(
        caller=f"{issuer.issuer} {user}",
        user=in_header(email or user),
        role=role,
        default_role=issuer.default_role,
        names=(user, email) if email else (user,),
        groups=groups,
        expires_at=expires_at,
    )


def _email(issuer: Issuer, claims: dict[str, Any]) -> str:
    """His address; empty where the token has none."""
    value = claim(claims, issuer.email) if issuer.email else None
    return known_as(value) if isinstance(value, str) and len(value) <= LONGEST_USER else ""


def _check_times(claims: dict[str, Any], now: float) -> float:
    """When the token ends, clock skew included."""
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise BadToken("it never expires (no exp)")
    if expires_at + CLOCK_SKEW_SECONDS <= now:
        raise BadToken("it has expired")
    for name in ("nbf", "iat"):
        moment = _moment(claims, name)
        if moment is not None and moment - CLOCK_SKEW_SECONDS > now:
            raise BadToken(f"it is not valid yet ({name})")
    return expires_at + CLOCK_SKEW_SECONDS


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # NaN and infinity would compare with nothing, or be later than everything.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise BadToken(f"its {name} is not a time")
    return float(value)


def _read(part: str) -> dict[str, Any]:
    try:
        return _object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except binascii.Error:
        raise BadToken("it is not a signed JSON Web Token") from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadToken("it is not a signed JSON Web Token") from None
    if not isinstance(found, dict):
        raise BadToken("it is not a signed JSON Web Token")
    return found
