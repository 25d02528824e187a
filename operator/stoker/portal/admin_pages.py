"""What administrators see: models with their replicas and load over the last hour, people with what they used, everybody's keys."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from stoker.portal.charts import draw_hour
from stoker.portal.rendering import DIRECTORY, LOAD, USAGE, render, require_session
from stoker.portal.sessions import Session
from stoker.portal.usage import UsageUnavailable, Used

DAYS = 30


@dataclass(frozen=True)
class Person:
    """Somebody who has keys, or used something."""

    name: str
    keys: int
    used: Used


async def require_admin(request: web.Request) -> Session:
    """To others it is as if these pages were not there: what others have is not their business."""
    session, _ = await require_session(request)
    if not session.admin:
        raise web.HTTPNotFound
    return session


async def show_models(request: web.Request) -> web.StreamResponse:
    """All models, how they are and how they were."""
    await require_admin(request)
    now, load = time.time(), request.app[LOAD]
    directory = request.app[DIRECTORY]
    models, routes = directory.models(), directory.config.routes if directory.config else ()
    charts = {model.name: draw_hour(load.of(model.name, now), now) for model in models}
    return await render(request, "admin_models.html", models=models, routes=routes, charts=charts)


async def show_people(request: web.Request) -> web.StreamResponse:
    """Who has keys, and who used how much; those who used most come first."""
    session = await require_admin(request)
    keys = Counter(row.owner for row in await request.app[DIRECTORY].rows(session))
    until = datetime.now(UTC).date()
    problem, rows = "", []
    try:
        rows = await request.app[USAGE].read("user", until - timedelta(days=DAYS - 1), until, {})
    except UsageUnavailable as error:
        problem = str(error)
    used = {row.user: row for row in rows}
    people = [Person(name, keys[name], used.get(name, Used())) for name in {*keys, *used}]
    people.sort(key=lambda person: (-person.used.tokens, person.name))
    return await render(request, "admin_people.html", people=people, days=DAYS, problem=problem)


async def show_keys(request: web.Request) -> web.StreamResponse:
    """All keys, by owner."""
    session = await require_admin(request)
    rows = sorted(await request.app[DIRECTORY].rows(session), key=lambda row: (row.owner, row.name))
    return await render(request, "admin_keys.html", rows=rows, owners=len({row.owner for row in rows}))


ROUTES = [
    web.get("/portal/admin", show_models),
    web.get("/portal/admin/people", show_people),
    web.get("/portal/admin/keys", show_keys),
]
