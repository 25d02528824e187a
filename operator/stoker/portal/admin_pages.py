"""What administrators see: everybody's keys, and the models with their replicas over the last hour."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from stoker.portal.directory import HISTORY_SECONDS
from stoker.portal.rendering import DIRECTORY, render, require_session

CHART_WIDTH, CHART_HEIGHT = 360, 48


@dataclass(frozen=True)
class Chart:
    """Replicas over time as a line for an SVG, and what it says in words."""

    points: str
    words: str


async def show_admin(request: web.Request) -> web.StreamResponse:
    """All keys by owner, all models by state."""
    session, config = await require_session(request)
    if not session.admin:
        # As if it were not there: what others have is not his business.
        raise web.HTTPNotFound
    directory = request.app[DIRECTORY]
    charts = {model.name: build_chart(model.name, directory.history) for model in config.models}
    rows = sorted(await directory.rows(session), key=lambda row: (row.owner, row.name))
    owners = len({row.owner for row in rows})
    return await render(request, "admin.html", rows=rows, owners=owners, models=config.models, charts=charts)


def build_chart(
    model: str, history: Iterable[tuple[float, dict[str, tuple[int, int]]]], now: float | None = None
) -> Chart | None:
    """Ready replicas over the last hour; None before there are two moments to draw a line between."""
    now = time.time() if now is None else now
    seen = [(at, counts[model][0]) for at, counts in history if model in counts and now - at <= HISTORY_SECONDS]
    if len(seen) < 2:
        return None
    counts = [ready for _, ready in seen]
    most = max(1, *counts)
    points: list[str] = []
    before: int | None = None
    for at, ready in seen:
        x = CHART_WIDTH * (1 - (now - at) / HISTORY_SECONDS)
        # Steps, not slopes: there is no half replica.
        if before is not None and before != ready:
            points.append(_point(x, before, most))
        points.append(_point(x, ready, most))
        before = ready
    words = f"{counts[-1]} ready now; between {min(counts)} and {max(counts)} over the last hour"
    return Chart(" ".join(points), words)


def _point(x: float, ready: int, most: int) -> str:
    return f"{x:.1f},{(CHART_HEIGHT - 2) * (1 - ready / most) + 1:.1f}"


ROUTES = [web.get("/portal/admin", show_admin)]
