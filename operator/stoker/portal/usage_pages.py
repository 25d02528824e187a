"""What somebody has used, by day, model and way: whoever is signed in sees his own, administrators anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from aiohttp import web

from stoker.api.names import web_ui_name
from stoker.portal.charts import draw_days
from stoker.portal.rendering import DIRECTORY, KEY, SETTINGS, USAGE, render, require_session
from stoker.portal.sessions import Session
from stoker.portal.usage import UsageReader, UsageUnavailable, Used

SPANS = (7, 30, 90)
"""Days, for the links above the plot."""
DEFAULT_SPAN = 30
TOKEN_PREFIX = "jwt:"


async def show_usage(request: web.Request) -> web.StreamResponse:
    """A plot of tokens by day, and tables of what they were used for."""
    session, _ = await require_session(request)
    span = next((days for days in SPANS if str(days) == request.query.get("days")), DEFAULT_SPAN)
    person = request.query.get("user") if session.admin else None
    until = datetime.now(UTC).date()
    since = until - timedelta(days=span - 1)
    try:
        only = whose(request, session, person)
        numbers = await _read(request.app[USAGE], since, until, only)
    except UsageUnavailable as error:
        return await render(request, "usage.html", problem=str(error), span=span, spans=SPANS, person=person)
    days, models, keys = numbers
    total = Used(
        requests=sum(row.requests for row in days),
        failed=sum(row.failed for row in days),
        prompt=sum(row.prompt for row in days),
        completion=sum(row.completion for row in days),
        estimated=sum(row.estimated for row in days),
    )
    titles = {row.name: row.title for row in await request.app[DIRECTORY].rows(session)}
    ways = [(_way(request, row.key, titles), row) for row in keys]
    return await render(
        request,
        "usage.html",
        problem="",
        span=span,
        spans=SPANS,
        person=person,
        chart=draw_days(days, since, until),
        days=[row for row in reversed(days) if row.requests],
        models=models,
        ways=ways,
        total=total,
    )


def whose(request: web.Request, session: Session, person: str | None) -> dict[str, str]:
    """Who came with a key sees what was done with that key: it may be one of several of its owner's."""
    if person is not None:
        return {"user": person}
    if KEY in request and not session.admin:
        return {"key": request[KEY].metadata.name}
    return {"user": session.user}


async def _read(
    usage: UsageReader, since: date, until: date, only: Mapping[str, str]
) -> tuple[list[Used], list[Used], list[Used]]:
    days = await usage.read("day", since, until, only)
    models = await usage.read("model", since, until, only)
    keys = await usage.read("key", since, until, only)
    return days, _largest_first(models), _largest_first(keys)


def _largest_first(rows: list[Used]) -> list[Used]:
    return sorted(rows, key=lambda row: -row.tokens)


def _way(request: web.Request, key: str, titles: Mapping[str, str]) -> str:
    """By what somebody came, in words."""
    if key == web_ui_name(request.app[SETTINGS].gateway):
        return "Web chat"
    if key.startswith(TOKEN_PREFIX):
        return "Token of the identity provider"
    return f"Key “{titles.get(key, key)}”"


ROUTES = [web.get("/portal/usage", show_usage)]
