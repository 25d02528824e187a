"""What every page needs: the session, whether the connection is safe, and the templates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from jinja2 import Environment

from stoker.api import ApiKey
from stoker.desired.client_files import write_files
from stoker.portal.chat import Chat
from stoker.portal.config import PortalConfig, PortalModel
from stoker.portal.directory import Directory, Refused
from stoker.portal.load import LoadHistory
from stoker.portal.oidc import IdentityProvider
from stoker.portal.sessions import Session, Sessions, is_own_form
from stoker.portal.settings import Settings
from stoker.portal.usage import UsageReader

SETTINGS = web.AppKey("settings", Settings)
DIRECTORY = web.AppKey("directory", Directory)
SESSIONS = web.AppKey("sessions", Sessions)
PROVIDER = web.AppKey("provider", IdentityProvider)
TEMPLATES = web.AppKey("templates", Environment)
CHAT = web.AppKey("chat", Chat)
USAGE = web.AppKey("usage", UsageReader)
LOAD = web.AppKey("load", LoadHistory)

SESSION = web.RequestKey("session", object)
KEY = web.RequestKey("key", ApiKey)
"""By which somebody is signed in; absent where he came by another way."""


def is_secure(request: web.Request) -> bool:
    """Whether the browser speaks HTTPS. Envoy says so, or the address that the ApiGateway is known by."""
    config = request.app[DIRECTORY].config
    public = config.public_url if config else None
    return request.headers.get("X-Forwarded-Proto") == "https" or bool(public and public.startswith("https:"))


def own_address(request: web.Request) -> str:
    """How the browser reaches us, without a path."""
    config = request.app[DIRECTORY].config
    if config and config.public_url:
        return config.public_url.rstrip("/")
    return f"{'https' if is_secure(request) else 'http'}://{request.host}"


def base_url(request: web.Request, config: PortalConfig) -> str:
    """For OpenAI clients."""
    return config.url or f"{own_address(request)}/v1"


async def session_of(request: web.Request) -> Session | None:
    """Who is signed in, if what he signed in with is still good."""
    if SESSION not in request:
        request[SESSION] = await _read(request)
    found = request[SESSION]
    return found if isinstance(found, Session) else None


async def _read(request: web.Request) -> Session | None:
    directory = request.app[DIRECTORY]
    session = request.app[SESSIONS].read(request, secure=is_secure(request))
    if session is None or directory.config is None:
        return None
    if session.key_digest:
        key = await directory.key_of(session.key_digest)
        if key is None or directory.role_of(key) != session.role:
            return None
        request[KEY] = key
        return session
    if session.how == "chat":
        person = await request.app[CHAT].person(directory.config, request.cookies)
        return session if person is not None and (person.user, person.role) == (session.user, session.role) else None
    return session if directory.config.role(session.role) is not None else None


async def require_session(request: web.Request) -> tuple[Session, PortalConfig]:
    """Who is signed in; everybody else goes to the sign-in page."""
    session, config = await session_of(request), request.app[DIRECTORY].config
    if session is None or config is None:
        raise web.HTTPSeeOther("/portal/sign-in")
    return session, config


def visible_models(request: web.Request, session: Session, config: PortalConfig) -> tuple[PortalModel, ...]:
    """Models that somebody may use: those of his role, and of the key, where he came with one."""
    role = config.role(session.role)
    by_role = config.visible_models(role.models if role else ("*",) if session.key_digest else ())
    by_key = config.visible_models(tuple(request[KEY].spec.models) if KEY in request else ("*",))
    return tuple(model for model in by_role if model in by_key)


def build_files(request: web.Request, config: PortalConfig, models: Sequence[PortalModel]) -> dict[str, str]:
    """Settings of client programs for some models: what the ConfigMap of the gateway has for all of them."""
    clients = [model.for_clients() for model in models]
    return write_files(request.app[SETTINGS].gateway, clients, base_url(request, config))


async def require_form(request: web.Request) -> tuple[Session, PortalConfig, Any]:
    """A form that somebody who is signed in has sent from our own page."""
    session, config = await require_session(request)
    form = await request.post()
    if not is_own_form(request, session, str(form.get("csrf", ""))):
        raise Refused("The form is too old, or it did not come from this page: open the page again, and repeat it.")
    return session, config, form


async def render(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    """A page."""
    settings = request.app[SETTINGS]
    text = (
        request.app[TEMPLATES]
        .get_template(template)
        .render(
            gateway=settings.gateway,
            config=request.app[DIRECTORY].config or PortalConfig(),
            session=await session_of(request),
            path=request.path,
            **values,
        )
    )
    return web.Response(text=text, status=status, content_type="text/html")


async def render_problem(request: web.Request, status: int, title: str, message: str) -> web.Response:
    """A page that says what went wrong and what to do."""
    return await render(request, "problem.html", status=status, title=title, message=message)


def short_number(number: int) -> str:
    """With three digits at most, as people say numbers: 950, 1.2k, 34k, 5.6M."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            # Cut off, not rounded: 999,999 is not yet a million.
            tenths = number * 10 // size
            return f"{tenths // 10}.{tenths % 10}{unit}" if tenths < 100 and tenths % 10 else f"{tenths // 10}{unit}"
    return str(number)


def day(moment: datetime | None) -> str:
    """Its day, in UTC."""
    return "never" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d")


def local_time(moment: datetime | None) -> str:
    """A time as people read it; in UTC, for nobody has told us where they are."""
    return "never" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
