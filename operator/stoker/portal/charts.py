"""From numbers to the points of plots. Pure; what is drawn is also said in words, or stands in a table beside it.

Plots have no text of their own: they are stretched to the width of the page, and text would be, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from stoker.portal.load import HOUR_SECONDS, Moment
from stoker.portal.usage import Used

WIDTH, HEIGHT = 600, 100
"""Of every plot, in its own units."""
BAR_SHARE = 0.72
"""Of a day's width; the rest is the gap."""


@dataclass(frozen=True)
class Bar:
    """A day: tokens of prompts below, of answers on top."""

    day: date
    used: Used
    x: float
    width: float
    prompt_y: float
    prompt_height: float
    answer_y: float
    answer_height: float


@dataclass(frozen=True)
class BarChart:
    """Tokens by day."""

    bars: tuple[Bar, ...]
    top: int
    """Number at the upper edge."""


@dataclass(frozen=True)
class Lines:
    """Replicas and requests of a model over the last hour."""

    replicas: str
    """Points of a line of steps, for there is no half replica."""
    most_replicas: int
    replicas_words: str
    running: tuple[str, ...]
    """Points of lines, one between any two gaps."""
    waiting: tuple[str, ...]
    most_requests: int
    requests_words: str
    nothing: bool
    """There was no replica and no request: not worth a plot."""


def draw_days(rows: Sequence[Used], since: date, until: date) -> BarChart:
    """A bar for each day, also for those without use."""
    by_day = {row.day: row for row in rows}
    days = [since + timedelta(days=number) for number in range((until - since).days + 1)]
    top = round_up(max((row.tokens for row in rows), default=0))
    step = WIDTH / len(days)
    bars = []
    for number, day in enumerate(days):
        used = by_day.get(day.isoformat(), Used(day=day.isoformat()))
        prompt, answer = (HEIGHT * tokens / top for tokens in (used.prompt, used.completion))
        x = step * (number + (1 - BAR_SHARE) / 2)
        bars.append(Bar(day, used, x, step * BAR_SHARE, HEIGHT - prompt, prompt, HEIGHT - prompt - answer, answer))
    return BarChart(tuple(bars), top)


def draw_hour(moments: Sequence[Moment], now: float) -> Lines | None:
    """None before there are two moments to draw a line between."""
    if len(moments) < 2:
        return None
    ready = [moment.ready for moment in moments]
    most_ready = max(1, *ready)
    seen = [(moment.running, moment.waiting) for moment in moments]
    known = [(running, waiting) for running, waiting in seen if running is not None and waiting is not None]
    most = round_up(max((max(pair) for pair in known), default=1))
    return Lines(
        replicas=_steps([(moment.at, moment.ready) for moment in moments], most_ready, now),
        most_replicas=most_ready,
        replicas_words=f"{ready[-1]} ready now; between {min(ready)} and {max(ready)} over the last hour",
        running=_slopes([(moment.at, moment.running) for moment in moments], most, now),
        waiting=_slopes([(moment.at, moment.waiting) for moment in moments], most, now),
        most_requests=most,
        requests_words=_requests_words(known),
        nothing=not any(ready) and len(known) == len(seen) and not any(map(any, known)),
    )


def round_up(number: int) -> int:
    """To 1, 2, 3, 4, 6 or 8 with zeros, so that the edge of a plot is a number that people like."""
    scale = 1
    while True:
        for first in (1, 2, 3, 4, 6, 8):
            if number <= first * scale:
                return first * scale
        scale *= 10


def _requests_words(known: Sequence[tuple[int, int]]) -> str:
    if not known:
        return "the gateway's pods do not answer"
    running, waiting = known[-1]
    most_running, most_waiting = (max(values) for values in zip(*known, strict=True))
    return f"{running} running and {waiting} waiting now; at most {most_running} and {most_waiting} over the last hour"


def _steps(values: Sequence[tuple[float, int]], most: int, now: float) -> str:
    points: list[str] = []
    before: int | None = None
    for at, value in values:
        if before is not None and before != value:
            points.append(_point(at, before, most, now))
        points.append(_point(at, value, most, now))
        before = value
    return " ".join(points)


def _slopes(values: Sequence[tuple[float, int | None]], most: int, now: float) -> tuple[str, ...]:
    lines: list[list[str]] = [[]]
    for at, value in values:
        if value is not None:
            lines[-1].append(_point(at, value, most, now))
        elif lines[-1]:
            lines.append([])
    return tuple(" ".join(points) for points in lines if points)


def _point(at: float, value: int, most: int, now: float) -> str:
    x = WIDTH * (1 - (now - at) / HOUR_SECONDS)
    return f"{x:.1f},{HEIGHT - 2 - (HEIGHT - 4) * value / most:.1f}"
