"""Sign-in with the identity provider: authorization code with PKCE, discovery, and the ID token's claims as a role.

joserfc checks the ID token, which is the hard part; the rest is one address to send the browser to and one request. The provider's documents are read anew every five minutes, and when a token is
signed with a key that is not among the known ones.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from stoker.claims import EMAIL, claim, is_unverified, known_as, texts_of
from stoker.portal.config import PortalConfig, PortalOidc
from stoker.trust import tls_context

FRESH_SECONDS = 300
TIMEOUT_SECONDS = 10
ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA"]
"""Public keys only: with HS256 a client's secret could sign tokens."""


class SignInRefused(Exception):
    """The identity provider, or what it says, does not let somebody in; the message is for him."""


@dataclass(frozen=True)
class Person:
    """Who came back from the identity provider."""

    user: str
    role: str


class IdentityProvider:
    """One issuer, as the ApiGateway names it."""

    def __init__(self, client_secret: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client_secret = client_secret
        self._transport = transport
        self._issuer = ""
        self._document: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._read_at = 0.0

    async def begin(self, oidc: PortalOidc, redirect_uri: str) -> tuple[str, dict[str, str]]:
        """Where to send the browser, and what to remember until it is back."""
        document = await self._discover(oidc)
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": oidc.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(oidc.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        url = _endpoint(document, "authorization_endpoint")
        join = "&" if urlsplit(url).query else "?"
        return f"{url}{join}{urlencode(query)}", {"state": state, "verifier": verifier, "nonce": nonce}

    async def sign_out_address(self, oidc: PortalOidc) -> str | None:
        """Where people end their session with the provider (OpenID Connect RP-Initiated Logout); None where it has no such place.

        Without an address to come back to: one that is not registered there would be an error instead of an end.
        """
        try:
            url = _endpoint(await self._discover(oidc), "end_session_endpoint")
        except SignInRefused:
            return None
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode({'client_id': oidc.client_id})}"

    async def finish(
        self,
        oidc: PortalOidc,
        config: PortalConfig,
        redirect_uri: str,
        query: Mapping[str, str],
        known: Mapping[str, str],
    ) -> Person:
        """Who came back; SignInRefused for everybody who may not in."""
        if query.get("error"):
            raise SignInRefused(f"The identity provider says: {query.get('error_description') or query['error']}")
        if not query.get("code") or not secrets.compare_digest(query.get("state", ""), known.get("state", "-")):
            raise SignInRefused("This way back does not belong to a sign-in that began here; start again.")
        document = await self._discover(oidc)
        token = await self._exchange(oidc, document, redirect_uri, query["code"], known["verifier"])
        claims = await self._claims(oidc, str(token.get("id_token") or ""), known["nonce"])
        if claim(claims, oidc.user_claim) is None or claim(claims, oidc.roles_claim) is None:
            claims = await self._ask_more(oidc, document, claims, str(token.get("access_token") or ""))
        return judge(oidc, config, claims)

    async def _claims(self, oidc: PortalOidc, id_token: str, nonce: str) -> dict[str, Any]:
        if not id_token:
            raise SignInRefused("The identity provider sent no ID token; the client needs the scope openid.")
        rules = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": oidc.issuer},
            aud={"essential": True, "value": oidc.client_id},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            leeway=30,
        )
        for fresh in (False, True):
            keys = await self._key_set(oidc, fresh=fresh)
            try:
                token = jwt.decode(id_token, keys, algorithms=ALGORITHMS)
                rules.validate(token.claims)
                return dict(token.claims)
            except (JoseError, ValueError) as error:
                # Once more, for the provider may have changed its keys a moment ago.
                if fresh:
                    raise SignInRefused(f"The ID token is not good: {error}") from error
        raise AssertionError("unreachable")

    async def _ask_more(
        self, oidc: PortalOidc, document: Mapping[str, Any], claims: dict[str, Any], token: str
    ) -> dict[str, Any]:
        """What is told beside the ID token, which may be thin: scopes are about this answer in the first place (Core, 5.4)."""
        if not token or "userinfo_endpoint" not in document:
            return claims
        more = await self._get(_endpoint(document, "userinfo_endpoint"), oidc, token)
        # Somebody else's answer must not be taken for his (Core, 5.3.2).
        if more.get("sub") != claims["sub"]:
            raise SignInRefused("The identity provider's userinfo is about somebody else than its ID token.")
        return {**more, **claims}

    async def _discover(self, oidc: PortalOidc) -> dict[str, Any]:
        if self._document and self._issuer == oidc.issuer and time.monotonic() - self._read_at < FRESH_SECONDS:
            return self._document
        url = oidc.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await self._get(url, oidc)
        if document.get("issuer") != oidc.issuer:
            raise SignInRefused(
                f"{url} speaks for {document.get('issuer')!r}; auth.oidc.issuer must be that, to the letter."
            )
        self._issuer, self._document, self._keys, self._read_at = oidc.issuer, document, None, time.monotonic()
        return document

    async def _key_set(self, oidc: PortalOidc, *, fresh: bool) -> KeySet:
        document = await self._discover(oidc)
        if self._keys is None or fresh:
            self._keys = KeySet.import_key_set(await self._get(_endpoint(document, "jwks_uri"), oidc))  # type: ignore[arg-type]
        return self._keys

    def _client(self, oidc: PortalOidc) -> httpx.AsyncClient:
        verify = tls_context(oidc.authorities) if oidc.authorities else True
        return httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT_SECONDS, verify=verify)

    async def _get(self, url: str, oidc: PortalOidc, token: str = "") -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._client(oidc) as client:
                answer = (await client.get(url, headers=headers)).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise SignInRefused(f"The identity provider does not answer at {url}: {error}") from error
        if not isinstance(answer, dict):
            raise SignInRefused(f"{url} does not answer with a JSON object.")
        return answer

    async def _exchange(
        self, oidc: PortalOidc, document: Mapping[str, Any], redirect_uri: str, code: str, verifier: str
    ) -> dict[str, Any]:
        """The tokens for the code (RFC 6749, 4.1.3, and RFC 7636)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": oidc.client_id,
        }
        # Basic, with both halves encoded, is what every provider must understand (RFC 6749, 2.3.1).
        credentials = (quote(oidc.client_id, safe=""), quote(self._client_secret, safe=""))
        try:
            async with self._client(oidc) as client:
                if self._client_secret:
                    client.auth = credentials
                answer = await client.post(_endpoint(document, "token_endpoint"), data=form)
                found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise SignInRefused(f"The identity provider did not accept the sign-in: {error}") from error
        if answer.status_code != 200 or not isinstance(found, dict):
            told = found if isinstance(found, dict) else {}
            words = told.get("error_description") or told.get("error") or f"HTTP {answer.status_code}"
            raise SignInRefused(f"The identity provider did not accept the sign-in: {words}")
        return found


def judge(oidc: PortalOidc, config: PortalConfig, claims: Mapping[str, Any]) -> Person:
    """The role of somebody by his claims, as at the API: the first in the map that he has, else the one that names him or a group of his."""
    user = known_as(_text(claims, oidc.user_claim))
    if not user:
        raise SignInRefused(f"The identity provider does not say who you are: it tells no {oidc.user_claim}.")
    if oidc.user_claim == EMAIL and is_unverified(claims) and not oidc.accept_unverified_email:
        raise SignInRefused(
            f"The identity provider says that the address {user} is not verified: confirm it there, or ask an administrator."
        )
    groups = texts_of(claim(claims, oidc.groups_claim))
    values = {*texts_of(claim(claims, oidc.roles_claim)), *groups}
    mapped = next((role for value, role in oidc.role_map.items() if value in values), "")
    role = config.role(mapped) if mapped else config.role_of(user, groups)
    if role is None:
        raise SignInRefused(
            f"{user} has no role here: ask an administrator to give you one of the roles that the gateway knows."
        )
    return Person(user, role.name)


def _endpoint(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        raise SignInRefused(f"The identity provider's discovery document has no {name}.")
    return value


def _text(claims: Mapping[str, Any], path: str) -> str:
    value = claim(claims, path)
    return value if isinstance(value, str) else ""
