"""The home page and the page of one's own keys."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from stoker.desired.client_files import KEY_VARIABLE
from stoker.portal.config import NO_LIMITS, PortalConfig
from stoker.portal.directory import KeyRow, NewKey, Refused
from stoker.portal.rendering import (
    DIRECTORY,
    base_url,
    build_files,
    render,
    require_form,
    require_session,
    session_of,
    visible_models,
)
from stoker.portal.sessions import Session

LIFETIMES = (30, 90, 365)
"""Days, for the list to choose from."""


async def show_home(request: web.Request) -> web.StreamResponse:
    """What this is; whoever is signed in sees his models and how they are."""
    session, config = await session_of(request), request.app[DIRECTORY].config
    if session is None or config is None:
        return await render(request, "home.html")
    role = config.role(session.role)
    return await render(
        request,
        "home.html",
        url=base_url(request, config),
        models=visible_models(request, session, config),
        limits=role.limits if role and role.limits != NO_LIMITS else None,
        person_limits=config.user_limits if config.user_limits != NO_LIMITS else None,
    )


async def show_keys(request: web.Request) -> web.StreamResponse:
    """His keys, and the form for a new one."""
    session, config = await require_session(request)
    return await _keys_page(request, session, config)


async def make_key(request: web.Request) -> web.StreamResponse:
    """Makes a key and shows it, once."""
    session, config, form = await require_form(request)
    models = [str(name) for name in form.getall("model", [])]
    made = await request.app[DIRECTORY].make_key(
        session, str(form.get("title", "")), _days(str(form.get("days", ""))), models
    )
    return await _keys_page(request, session, config, made)


async def rotate_key(request: web.Request) -> web.StreamResponse:
    """A new key in the place of the old one, shown once."""
    session, config, _ = await require_form(request)
    made = await request.app[DIRECTORY].rotate_key(session, request.match_info["name"])
    return await _keys_page(request, session, config, made)


async def show_change(request: web.Request) -> web.StreamResponse:
    """The form for another name or end."""
    session, config = await require_session(request)
    row = await _row(request, session)
    return await render(request, "change.html", row=row, **_lifetimes(config))


async def change_key(request: web.Request) -> web.StreamResponse:
    """Another name, another end."""
    session, _, form = await require_form(request)
    days = str(form.get("days", ""))
    keep = days == "keep"
    await request.app[DIRECTORY].change_key(
        session, request.match_info["name"], str(form.get("title", "")), None if keep else _days(days), keep_end=keep
    )
    return web.Response(status=303, headers={"Location": "/keys"})


async def revoke_key(request: web.Request) -> web.StreamResponse:
    """Asked once more on a page of its own, then gone."""
    session, _, form = await require_form(request)
    if form.get("sure") != "yes":
        return await render(request, "revoke.html", row=await _row(request, session))
    await request.app[DIRECTORY].revoke_key(session, request.match_info["name"])
    return web.Response(status=303, headers={"Location": "/keys"})


async def _keys_page(
    request: web.Request, session: Session, config: PortalConfig, made: NewKey | None = None
) -> web.Response:
    rows = [row for row in await request.app[DIRECTORY].rows(session) if row.owner == session.user]
    models = visible_models(request, session, config)
    values: dict[str, Any] = {"rows": rows, "made": made, "models": models, "variable": KEY_VARIABLE}
    if made is not None:
        # Without its first line, which makes it a script.
        values["trial"] = build_files(request, config, models)["curl.sh"].partition("\n")[2].strip()
    return await render(request, "keys.html", **values, **_lifetimes(config))


async def _row(request: web.Request, session: Session) -> KeyRow:
    """The key of the address, if it is his."""
    name = request.match_info["name"]
    found = next((row for row in await request.app[DIRECTORY].rows(session) if row.name == name), None)
    if found is None:
        raise Refused(f"You have no key {name}.")
    return found


def _lifetimes(config: PortalConfig) -> dict[str, Any]:
    days = [days for days in LIFETIMES if config.max_key_days is None or days <= config.max_key_days]
    if config.max_key_days is not None and config.max_key_days not in days:
        days.append(config.max_key_days)
    return {"lifetimes": days, "forever": config.max_key_days is None}


def _days(text: str) -> int | None:
    """As the list sends them; nothing is for ever."""
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise Refused("Choose one of the times in the list.")
    return int(text) if text else None


ROUTES = [
    web.get("/", show_home),
    web.get("/keys", show_keys),
    web.post("/portal/keys", make_key),
    web.get("/portal/keys/{name}", show_change),
    web.post("/portal/keys/{name}/change", change_key),
    web.post("/portal/keys/{name}/rotate", rotate_key),
    web.post("/portal/keys/{name}/revoke", revoke_key),
]
