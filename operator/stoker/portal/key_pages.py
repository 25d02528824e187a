"""The home page and the page of one's own keys."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from stoker.portal.config import PortalConfig
from stoker.portal.directory import NewKey, Refused
from stoker.portal.rendering import DIRECTORY, render, require_form, require_session, session_of, visible_models
from stoker.portal.sessions import Session

LIFETIMES = (30, 90, 365)
"""Days, for the list to choose from."""


async def show_home(request: web.Request) -> web.StreamResponse:
    """What this is; whoever is signed in sees his models and how they are."""
    session, config = await session_of(request), request.app[DIRECTORY].config
    models = visible_models(request, session, config) if session and config else ()
    return await render(request, "home.html", models=models)


async def show_keys(request: web.Request) -> web.StreamResponse:
    """His keys, and the form for a new one."""
    session, config = await require_session(request)
    return await _keys_page(request, session, config)


async def make_key(request: web.Request) -> web.StreamResponse:
    """Makes a key and shows it, once."""
    session, config, form = await require_form(request)
    days = str(form.get("days", ""))
    if days and not days.isdecimal():
        raise Refused("Choose one of the times in the list.")
    models = [str(name) for name in form.getall("model", [])]
    made = await request.app[DIRECTORY].make_key(
        session, str(form.get("title", "")), int(days) if days else None, models
    )
    return await _keys_page(request, session, config, made)


async def rotate_key(request: web.Request) -> web.StreamResponse:
    """A new key in the place of the old one, shown once."""
    session, config, _ = await require_form(request)
    made = await request.app[DIRECTORY].rotate_key(session, request.match_info["name"])
    return await _keys_page(request, session, config, made)


async def revoke_key(request: web.Request) -> web.StreamResponse:
    """Asked once more on a page of its own, then gone."""
    session, _, form = await require_form(request)
    name = request.match_info["name"]
    if form.get("sure") != "yes":
        row = next((row for row in await request.app[DIRECTORY].rows(session) if row.name == name), None)
        if row is None:
            raise Refused(f"You have no key {name}.")
        return await render(request, "revoke.html", row=row)
    await request.app[DIRECTORY].revoke_key(session, name)
    return web.Response(status=303, headers={"Location": "/keys"})


async def _keys_page(
    request: web.Request, session: Session, config: PortalConfig, made: NewKey | None = None
) -> web.Response:
    rows = [row for row in await request.app[DIRECTORY].rows(session) if row.owner == session.user]
    lifetimes = [days for days in LIFETIMES if config.max_key_days is None or days <= config.max_key_days]
    if config.max_key_days is not None and config.max_key_days not in lifetimes:
        lifetimes.append(config.max_key_days)
    values: dict[str, Any] = {
        "rows": rows,
        "made": made,
        "models": visible_models(request, session, config),
        "lifetimes": lifetimes,
        "forever": config.max_key_days is None,
    }
    return await render(request, "keys.html", **values)


ROUTES = [
    web.get("/", show_home),
    web.get("/keys", show_keys),
    web.post("/portal/keys", make_key),
    web.post("/portal/keys/{name}/rotate", rotate_key),
    web.post("/portal/keys/{name}/revoke", revoke_key),
]
