"""Signing in and out: with the identity provider, or with an API key."""

from __future__ import annotations

from aiohttp import web

from stoker.portal.directory import Refused, digest_of, owner_of
from stoker.portal.oidc import SignInRefused
from stoker.portal.rendering import (
    CHAT,
    DIRECTORY,
    PROVIDER,
    SESSION,
    SESSIONS,
    SETTINGS,
    is_secure,
    own_address,
    render,
    require_form,
    session_of,
)
from stoker.portal.sessions import is_same_origin

HOME = "/"
CALLBACK = "/portal/callback"
LONGEST_KEY = 512


async def show_sign_in(request: web.Request) -> web.StreamResponse:
    """The ways in."""
    if await session_of(request) is not None:
        raise web.HTTPSeeOther(HOME)
    return await _page(request)


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
        return await _page(request, words, status=403)
    response = web.Response(status=303, headers={"Location": HOME})
    request.app[SESSIONS].begin(
        response,
        user=owner_of(key) or key.metadata.name,
        role=directory.role_of(key),
        how="key",
        seconds=directory.config.session_seconds,
        secure=is_secure(request),
        digest=digest,
    )
    return response


async def sign_in_with_chat(request: web.Request) -> web.StreamResponse:
    """Whoever is signed in to the web chat is the same here, for as long as he is so there."""
    if not is_same_origin(request):
        raise Refused("The form did not come from this page: open the sign-in page, and repeat it.")
    config = request.app[DIRECTORY].config
    person = await request.app[CHAT].person(config, request.cookies) if config else None
    if person is None or config is None:
        return await _page(request, "You are not signed in to the web chat, or have no role there yet.", status=403)
    response = web.Response(status=303, headers={"Location": HOME})
    request.app[SESSIONS].begin(
        response,
        user=person.user,
        role=person.role,
        how="chat",
        seconds=config.session_seconds,
        secure=is_secure(request),
    )
    return response


async def _page(request: web.Request, problem: str = "", *, status: int = 200) -> web.Response:
    config = request.app[DIRECTORY].config
    chat = await request.app[CHAT].person(config, request.cookies) if config else None
    return await render(request, "sign_in.html", status=status, problem=problem, chat=chat)


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
    """The session ends in this browser; keys go on. At the identity provider it goes on, too, until somebody ends it there."""
    session, config, _ = await require_form(request)
    away = await request.app[PROVIDER].sign_out_address(config.oidc) if session.how == "oidc" and config.oidc else None
    if away is not None:
        request[SESSION] = None
        # A link and no redirection: the policy for forms lets none of them end elsewhere.
        response = await render(request, "signed_out.html", away=away)
    else:
        response = web.Response(status=303, headers={"Location": "/"})
    request.app[SESSIONS].end(response, secure=is_secure(request))
    return response


ROUTES = [
    web.get("/portal/sign-in", show_sign_in),
    web.post("/portal/sign-in", sign_in_with_key),
    web.post("/portal/chat", sign_in_with_chat),
    web.get("/portal/oidc", begin_oidc),
    web.get(CALLBACK, finish_oidc),
    web.post("/portal/sign-out", sign_out),
]
