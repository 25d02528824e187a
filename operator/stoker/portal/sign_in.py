"""Signing in and out: with the identity provider, or with an API key."""

from __future__ import annotations

from aiohttp import web

from stoker.portal.directory import Refused, digest_of
from stoker.portal.oidc import SignInRefused
from stoker.portal.rendering import (
    DIRECTORY,
    PROVIDER,
    SESSIONS,
    SETTINGS,
    is_secure,
    own_address,
    render,
    require_form,
    session_of,
)
from stoker.portal.sessions import is_same_origin

HOME = "/keys"
CALLBACK = "/portal/callback"
LONGEST_KEY = 512


async def show_sign_in(request: web.Request) -> web.StreamResponse:
    """The ways in."""
    if await session_of(request) is not None:
        raise web.HTTPSeeOther(HOME)
    return await render(request, "sign_in.html", problem="")


async def sign_in_with_key(request: web.Request) -> web.StreamResponse:
    """Whoever has a key of this gateway sees what it opens."""
    form = await request.post()
    # There is no session yet, and so no token: signing somebody in from another site would still make him act as somebody else.
    if not is_same_origin(request):
        raise Refused("The form did not come from this page: open the sign-in page, and repeat it.")
    directory, settings = request.app[DIRECTORY], request.app[SETTINGS]
    secret = str(form.get("key", ""))
    digest = digest_of(secret)
    key = await directory.key_of(digest) if 0 < len(secret) <= LONGEST_KEY else None
    if key is None or directory.config is None:
        words = f"ApiGateway {settings.gateway} does not know this key, or does not let it in any more."
        return await render(request, "sign_in.html", status=403, problem=words)
    response = web.Response(status=303, headers={"Location": HOME})
    request.app[SESSIONS].begin(
        response,
        user=key.spec.owner or key.metadata.name,
        role=directory.role_of(key),
        how="key",
        seconds=directory.config.session_seconds,
        secure=is_secure(request),
        digest=digest,
    )
    return response


async def begin_oidc(request: web.Request) -> web.StreamResponse:
    """Off to the identity provider."""
    config = request.app[DIRECTORY].config
    if config is None or config.oidc is None:
        raise web.HTTPNotFound
    url, remembered = await request.app[PROVIDER].begin(config.oidc, own_address(request) + CALLBACK)
    response = web.Response(status=303, headers={"Location": url})
    request.app[SESSIONS].remember(response, remembered, secure=is_secure(request))
    return response


async def finish_oidc(request: web.Request) -> web.StreamResponse:
    """Back from the identity provider."""
    config = request.app[DIRECTORY].config
    if config is None or config.oidc is None:
        raise web.HTTPNotFound
    known = request.app[SESSIONS].recall(request)
    if known is None:
        raise SignInRefused("The sign-in took too long, or began in another browser; start again.")
    person = await request.app[PROVIDER].finish(
        config.oidc, config, own_address(request) + CALLBACK, request.query, known
    )
    response = web.Response(status=303, headers={"Location": HOME})
    secure = is_secure(request)
    request.app[SESSIONS].forget(response, secure=secure)
    request.app[SESSIONS].begin(
        response, user=person.user, role=person.role, how="oidc", seconds=config.session_seconds, secure=secure
    )
    return response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """The session ends in this browser; keys go on."""
    await require_form(request)
    response = web.Response(status=303, headers={"Location": "/"})
    request.app[SESSIONS].end(response, secure=is_secure(request))
    return response


ROUTES = [
    web.get("/portal/sign-in", show_sign_in),
    web.post("/portal/sign-in", sign_in_with_key),
    web.get("/portal/oidc", begin_oidc),
    web.get(CALLBACK, finish_oidc),
    web.post("/portal/sign-out", sign_out),
]
