"""Who is signed in: a signed cookie, and nothing kept on the server.

The cookie cannot be read by scripts, is not sent along from other sites' forms, and ends by itself. What can be taken away
earlier is checked at each request: an API key by which somebody signed in (see directory), and a role that is gone.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

ALGORITHMS = ["HS256"]
HOST_COOKIE = "__Host-stoker"
"""With this prefix browsers take it over HTTPS only, from this host only."""
PLAIN_COOKIE = "stoker"
STATE_COOKIE = "stoker-sign-in"
STATE_SECONDS = 600

How = Literal["key", "oidc", "chat"]


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in."""

    user: str
    """Owner of the keys made here."""
    role: str
    how: How
    csrf: str
    """Comes back in every form; a page of another site cannot know it."""
    expires_at: float
    key_digest: str = ""
    """SHA-256 of the API key he signed in with: while it is good, so is the session."""

    @property
    def admin(self) -> bool:
        """Whether he sees everybody's keys."""
        return self.role == "admin"

    @property
    def may_make_keys(self) -> bool:
        """People may; whoever only holds a key may not make others of it, unless it is an admin's."""
        return self.how != "key" or self.admin


class Sessions:
    """Writes and reads the cookies."""

    def __init__(self, secret: str) -> None:
        self._key = OctKey.import_key(secret)

    def begin(
        self,
        response: web.StreamResponse,
        *,
        user: str,
        role: str,
        how: How,
        seconds: int,
        secure: bool,
        digest: str = "",
    ) -> Session:
        """Sign somebody in; a cookie that was there before is worth nothing any more."""
        session = Session(user, role, how, secrets.token_urlsafe(24), time.time() + seconds, digest)
        claims = {
            "use": "session",
            "sub": user,
            "role": role,
            "how": how,
            "csrf": session.csrf,
            "digest": digest,
            "exp": int(session.expires_at),
        }
        _set(response, self._cookie(secure), self._sign(claims), seconds, secure=secure)
        return session

    def read(self, request: web.Request, *, secure: bool) -> Session | None:
        """Who sent the request; None for nobody."""
        claims = self._verify(request.cookies.get(self._cookie(secure), ""), "session")
        if claims is None:
            return None
        return Session(
            str(claims["sub"]),
            str(claims["role"]),
            claims["how"],
            str(claims["csrf"]),
            float(claims["exp"]),
            str(claims["digest"]),
        )

    def end(self, response: web.StreamResponse, *, secure: bool) -> None:
        """Sign out."""
        response.del_cookie(self._cookie(secure), path="/", secure=secure, httponly=True, samesite="Lax")

    def remember(self, response: web.StreamResponse, state: dict[str, str], *, secure: bool) -> None:
        """What the way to the identity provider and back must not lose."""
        claims = {"use": "sign-in", "exp": int(time.time()) + STATE_SECONDS, **state}
        _set(response, STATE_COOKIE, self._sign(claims), STATE_SECONDS, secure=secure)

    def forget(self, response: web.StreamResponse, *, secure: bool) -> None:
        """It was needed once."""
        response.del_cookie(STATE_COOKIE, path="/", secure=secure, httponly=True, samesite="Lax")

    def recall(self, request: web.Request) -> dict[str, str] | None:
        """What was remembered; None when it is too late, or somebody else's."""
        claims = self._verify(request.cookies.get(STATE_COOKIE, ""), "sign-in")
        return None if claims is None else {name: str(value) for name, value in claims.items()}

    def _sign(self, claims: dict[str, object]) -> str:
        return jwt.encode({"alg": "HS256"}, claims, self._key, algorithms=ALGORITHMS)

    def _verify(self, text: str, use: str) -> dict[str, Any] | None:
        if not text:
            return None
        try:
            token = jwt.decode(text, self._key, algorithms=ALGORITHMS)
            jwt.JWTClaimsRegistry(exp={"essential": True}, use={"essential": True, "value": use}).validate(token.claims)
        except (JoseError, ValueError):
            return None
        return dict(token.claims)

    @staticmethod
    def _cookie(secure: bool) -> str:
        return HOST_COOKIE if secure else PLAIN_COOKIE


def is_own_form(request: web.Request, session: Session, token: str) -> bool:
    """Whether a form came from our own page: it knows the session's token, and the browser does not say otherwise."""
    return is_same_origin(request) and hmac.compare_digest(token.encode(), session.csrf.encode())


def is_same_origin(request: web.Request) -> bool:
    """What the browser says of where a form came from; programs other than browsers say nothing, and nobody can lead them."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def _set(response: web.StreamResponse, name: str, value: str, seconds: int, *, secure: bool) -> None:
    # Lax, not Strict: whoever comes back from the identity provider comes from another site.
    response.set_cookie(name, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="Lax")
