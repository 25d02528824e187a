"""Where usage is kept: SQLite on a volume, or PostgreSQL. The statements are the same for both.

How far each pod's log has been read is written in the transaction that adds the numbers. So after whatever end, of this process, of
the database or of the connection between them, every line has been counted once or will be.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from stoker.usage.records import SUM_NAMES, Batch

logger = logging.getLogger(__name__)

Place = tuple[int, int]
"""Number of a log's file, and offset in it."""
START: Place = (1, 0)
LOGS_KEPT_DAYS = 60
"""Of pods that are gone."""

SCHEMA = (
    """create table if not exists usage_log (
        gateway text not null, log text not null, number bigint not null, place bigint not null,
        read_on text not null, primary key (gateway, log))""",
    f"""create table if not exists usage_daily (
        gateway text not null, day text not null, caller text not null, api_key text not null,
        person text not null, model text not null, {", ".join(f"{name} bigint not null" for name in SUM_NAMES)},
        primary key (gateway, day, caller, api_key, person, model))""",
    """create table if not exists usage_key (
        gateway text not null, api_key text not null, requests bigint not null, prompt bigint not null,
        completion bigint not null, last_used text not null, primary key (gateway, api_key))""",
)


class StoreUnavailable(Exception):
    """The database does not answer; what was to be written can be written later."""


class Store:
    """The tables, for one gateway. Not for several threads at once."""

    def __init__(
        self, gateway: str, connect: Callable[[], Any], failures: tuple[type[Exception], ...], mark: str
    ) -> None:
        self._gateway = gateway
        self._connect = connect
        self._failures = failures
        self._mark = mark
        self._connection: Any = None

    @classmethod
    def in_folder(cls, gateway: str, folder: Path) -> Store:
        """SQLite."""

        def connect() -> Any:
            connection = sqlite3.connect(folder / "usage.sqlite", timeout=10, check_same_thread=False)
            connection.execute("pragma journal_mode=wal")
            # What a power cut takes away is read from the pods' logs again, for the places go with it.
            connection.execute("pragma synchronous=normal")
            return connection

        return cls(gateway, connect, (sqlite3.Error,), "?")

    @classmethod
    def at(cls, gateway: str, url: str) -> Store:
        """PostgreSQL."""
        import psycopg  # Not above: most gateways do without.

        def connect() -> Any:
            # A database that has gone silent must not hold up everything until TCP gives up by itself.
            return psycopg.connect(url, connect_timeout=5, tcp_user_timeout=10_000, client_encoding="utf8")

        return cls(gateway, connect, (psycopg.Error,), "%s")

    def place(self, log: str) -> Place:
        """How far a log has been read."""
        with self._cursor() as cursor:
            cursor.execute(
                self._sql("select number, place from usage_log where gateway = ? and log = ?"), (self._gateway, log)
            )
            found = cursor.fetchone()
        return (int(found[0]), int(found[1])) if found else START

    def add(self, log: str, start: Place, end: Place, batch: Batch, last_used: Mapping[str, str], today: date) -> bool:
        """Add the numbers of a log between two places; False when they have been added before, or what is before them is missing."""
        with self._cursor() as cursor:
            cursor.execute(
                self._sql("insert into usage_log values (?, ?, ?, ?, ?) on conflict (gateway, log) do nothing"),
                (self._gateway, log, *START, today.isoformat()),
            )
            cursor.execute(
                self._sql(
                    "update usage_log set number = ?, place = ?, read_on = ? where gateway = ? and log = ? and number = ? and place = ?"
                ),
                (*end, today.isoformat(), self._gateway, log, *start),
            )
            if cursor.rowcount != 1:
                return False
            rows = [(self._gateway, g.day, g.caller, g.key, g.user, g.model, *sums.values) for g, sums in batch.items()]
            self._many(cursor, self._upsert("usage_daily", 6, SUM_NAMES), rows)
            keys: dict[str, list[int]] = {}
            for group, sums in batch.items():
                have = keys.setdefault(group.key, [0, 0, 0])
                for place, amount in enumerate((sums.requests, sums.prompt, sums.completion)):
                    have[place] += amount
            self._many(
                cursor,
                self._upsert("usage_key", 2, ("requests", "prompt", "completion"), ("last_used",)),
                [(self._gateway, key, *amounts, last_used.get(key, "")) for key, amounts in keys.items()],
            )
        return True

    def daily(
        self, columns: Sequence[str], since: str, until: str, equal: Sequence[tuple[str, str]], most: int
    ) -> list[tuple[Any, ...]]:
        """Sums by some columns, of days from one to another, both included; columns are never a caller's words."""
        where = ["gateway = ?", "day >= ?", "day <= ?", *(f"{name} = ?" for name, _ in equal)]
        by = ", ".join(columns)
        sums = ", ".join(f"sum({name})" for name in SUM_NAMES)
        group = f" group by {by} order by {by}" if columns else ""
        statement = (  # Of our own words only; the caller's go in as values.
            f"select {by + ', ' if by else ''}{sums} from usage_daily where {' and '.join(where)}{group} limit {most}"  # noqa: S608
        )
        with self._cursor() as cursor:
            cursor.execute(self._sql(statement), (self._gateway, since, until, *(value for _, value in equal)))
            return list(cursor.fetchall())

    def keys(self) -> dict[str, dict[str, Any]]:
        """What each key has used, ever, and when last."""
        with self._cursor() as cursor:
            cursor.execute(
                self._sql("select api_key, requests, prompt, completion, last_used from usage_key where gateway = ?"),
                (self._gateway,),
            )
            return {
                str(key): {
                    "requests": int(requests),
                    "promptTokens": int(prompt),
                    "completionTokens": int(completion),
                    "lastUsedTime": str(last),
                }
                for key, requests, prompt, completion, last in cursor.fetchall()
            }

    def forget(self, today: date, retention_days: int) -> None:
        """Delete what is older than it need be."""
        oldest = (today - timedelta(days=retention_days)).isoformat()
        unread = (today - timedelta(days=LOGS_KEPT_DAYS)).isoformat()
        with self._cursor() as cursor:
            cursor.execute(self._sql("delete from usage_daily where gateway = ? and day < ?"), (self._gateway, oldest))
            cursor.execute(
                self._sql("delete from usage_log where gateway = ? and read_on < ?"), (self._gateway, unread)
            )

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            with contextlib.suppress(*self._failures):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        """One transaction; after a failure the next one begins with a new connection."""
        try:
            if self._connection is None:
                self._connection = self._connect()
                cursor = self._connection.cursor()
                for statement in SCHEMA:
                    cursor.execute(statement)
                self._connection.commit()
            cursor = self._connection.cursor()
            yield cursor
            self._connection.commit()
        except self._failures as error:
            self.close()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    def _many(self, cursor: Any, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            cursor.executemany(statement, rows)

    def _upsert(self, table: str, keys: int, added: Sequence[str], latest: Sequence[str] = ()) -> str:
        """Add to the row that is there, or make it."""
        names = {"usage_daily": "gateway, day, caller, api_key, person, model", "usage_key": "gateway, api_key"}[table]
        changes = [
            *(f"{name} = {table}.{name} + excluded.{name}" for name in added),
            *(f"{name} = case when excluded.{name} > {table}.{name} then excluded.{name} else {table}.{name} end" for name in latest),
        ]  # fmt: skip
        marks = ", ".join("?" * (keys + len(added) + len(latest)))
        return self._sql(
            f"insert into {table} values ({marks}) on conflict ({names}) do update set {', '.join(changes)}"  # noqa: S608
        )

    def _sql(self, statement: str) -> str:
        return statement.replace("?", self._mark)
