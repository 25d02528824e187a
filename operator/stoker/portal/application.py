"""The portal's web application: what protects every answer, and what becomes of refusals and failures."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stoker.cluster.errors import ApiError
from stoker.portal import admin_pages, key_pages, sign_in, tool_pages, usage_pages
from stoker.portal.chat import Chat
from stoker.portal.directory import Directory, Refused
from stoker.portal.load import LoadHistory
from stoker.portal.oidc import IdentityProvider, SignInRefused
from stoker.portal.rendering import (
    CHAT,
    DIRECTORY,
    LOAD,
    PROVIDER,
    SESSION,
    SESSIONS,
    SETTINGS,
    TEMPLATES,
    USAGE,
    day,
    local_time,
    render_problem,
    short_number,
)
from stoker.portal.sessions import Sessions
from stoker.portal.settings import Settings
from stoker.portal.usage import UsageReader

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
LARGEST_FORM = 64 << 10
STATIC_PREFIX = "/portal/static/"
HEADERS = {
    # Everything comes from here and nothing is inline. Forms may end at an identity provider by redirection, which
    # browsers count as form-action; those ways begin with a link instead.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_site(
    settings: Settings,
    directory: Directory,
    provider: IdentityProvider,
    usage: UsageReader | None = None,
    chat: Chat | None = None,
) -> web.Application:
    """The application, without what runs beside it (see main)."""
    site = web.Application(middlewares=[protect, explain], client_max_size=LARGEST_FORM)
    site[SETTINGS] = settings
    site[DIRECTORY] = directory
    site[SESSIONS] = Sessions(settings.session_secret)
    site[PROVIDER] = provider
    site[USAGE] = usage or UsageReader(settings.usage_url, settings.read_token)
    site[LOAD] = LoadHistory()
    site[CHAT] = chat or Chat()
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(time=local_time, day=day, short=short_number, number="{:,}".format)
    site[TEMPLATES] = templates
    site.add_routes([*sign_in.ROUTES, *key_pages.ROUTES, *tool_pages.ROUTES, *usage_pages.ROUTES, *admin_pages.ROUTES])
    site.router.add_get("/healthz", healthz)
    site.router.add_get("/readyz", readyz)
    site.router.add_static(STATIC_PREFIX, HERE / "static")
    return site


async def healthz(_: web.Request) -> web.Response:
    """The process runs."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """The operator has told what to show."""
    told = request.app[DIRECTORY].config is not None
    return web.Response(status=200 if told else 503, text="ok\n" if told else "waiting for the configuration\n")


@web.middleware
async def protect(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Headers of every answer: nothing from elsewhere is loaded, nobody frames us, nothing private stays in a cache."""
    response = await handler(request)
    response.headers.update(HEADERS)
    fixed = request.path.startswith(STATIC_PREFIX)
    response.headers["Cache-Control"] = "max-age=3600" if fixed else "no-store"
    return response


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A refusal or a failure is a page, too, and says what to do."""
    try:
        return await handler(request)
    except web.HTTPSeeOther as elsewhere:
        return web.Response(status=303, headers={"Location": str(elsewhere.location)})
    except Refused as refused:
        return await render_problem(request, 400, "That cannot be done", str(refused))
    except SignInRefused as refused:
        return await render_problem(request, 403, "You are not signed in", str(refused))
    except web.HTTPRequestEntityTooLarge:
        return await render_problem(request, 413, "That is too much", "The form is larger than any form of this page.")
    except web.HTTPNotFound:
        return await render_problem(request, 404, "There is no such page", "The portal has no page at this address.")
    except web.HTTPMethodNotAllowed:
        return await render_problem(request, 405, "There is no such page", "This address takes no such request.")
    except ApiError as error:
        logger.warning("%s %s: %s", request.method, request.path, error)
        # Who is signed in may be what could not be found out.
        request.setdefault(SESSION, None)
        words = "It may be done all the same: look at the list, and try again in a moment."
        return await render_problem(request, 503, "The cluster does not answer", words)
