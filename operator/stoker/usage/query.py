"""What may be asked of usage, and how it is answered. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from stoker.claims import known_as
from stoker.gateway.openai_errors import ApiProblem, quote

COLUMNS = {"day": "day", "key": "api_key", "user": "person", "model": "model"}
"""What sums are by, and the store's name for it."""
NUMBERS = (
    "requests",
    "failed_requests",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_requests",
)
"""In the order of the store's sums."""
DEFAULT_DAYS = 30
MOST_ROWS = 10_000
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class BadQuery(Exception):
    """Something that cannot be answered."""

    def __init__(self, problem: ApiProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class Query:
    """A question of usage."""

    since: date
    until: date
    by: tuple[str, ...]
    equal: tuple[tuple[str, str], ...]
    """By the store's names."""
    csv: bool


def parse_query(text: str, today: date, *, caller: str = "", key: str = "") -> Query:
    """Take a query string apart; who may see only his own (caller or key) finds nothing under another's name."""
    known = ("from", "to", "by", "model", "format", "key", "user")
    given: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in known:
            _bad(name, f"{quote(name)} is not a parameter; there are {', '.join(known)}.")
        if name in given:
            _bad(name, f"{quote(name)} is given more than once.")
        given[name] = value
    until = _day(given, "to", today)
    since = _day(given, "from", until - timedelta(days=DEFAULT_DAYS - 1))
    if since > until:
        _bad("from", "`from` is later than `to`.")
    by = tuple(dict.fromkeys(part for part in given.get("by", "day,model").split(",") if part))
    for column in by:
        if column not in COLUMNS:
            _bad("by", f"{quote(column)} is nothing to add up by; there are {', '.join(COLUMNS)}.")
    if given.get("format", "json") not in ("json", "csv"):
        _bad("format", "`format` is json or csv.")
    if "user" in given:
        given["user"] = known_as(given["user"])
    equal = [(COLUMNS[name], given[name]) for name in ("model", "key", "user") if name in given]
    equal += [(column, value) for column, value in (("caller", caller), ("api_key", key)) if value]
    return Query(since, until, by, tuple(equal), given.get("format") == "csv")


def as_json(query: Query, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    """A list, as OpenAI words lists, with the sum of all of it."""
    data = [_row(query, row) for row in rows[:MOST_ROWS]]
    return {
        "object": "list",
        "from": query.since.isoformat(),
        "to": query.until.isoformat(),
        "data": data,
        "total": {name: sum(row[name] for row in data) for name in NUMBERS},
        "truncated": len(rows) > MOST_ROWS,
    }


def as_csv(query: Query, rows: list[tuple[Any, ...]]) -> str:
    """The same rows for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*query.by, *NUMBERS])
    for row in rows[:MOST_ROWS]:
        found = _row(query, row)
        writer.writerow([_harmless(found[name]) for name in (*query.by, *NUMBERS)])
    return text.getvalue()


def _row(query: Query, row: tuple[Any, ...]) -> dict[str, Any]:
    names, numbers = row[: len(query.by)], row[len(query.by) :]
    return {
        **dict(zip(query.by, names, strict=True)),
        **{name: int(number or 0) for name, number in zip(NUMBERS, numbers, strict=True)},
    }


def _harmless(value: object) -> object:
    """A name that a spreadsheet would take for a formula gets a quote in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _day(given: Mapping[str, str], name: str, default: date) -> date:
    text = given.get(name)
    if text is None:
        return default
    # Longer forms would be days to Python, too.
    try:
        return date.fromisoformat(text if DAY.fullmatch(text) else "")
    except ValueError:
        _bad(name, f"`{name}` is not a day such as 2026-01-31.")


def _bad(param: str, message: str) -> NoReturn:
    raise BadQuery(ApiProblem(400, "invalid_parameter", message, param=param[:64])) from None
