"""The database that DATABASE_URL names: PostgreSQL, or an SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from housekeeper import ConfigurationError, SkipRun

POSTGRES = ("postgres", "postgresql", "postgresql+psycopg2")
# A limit that the role has for the application's queries is not meant for maintenance; nobody's
# lock is awaited for long.
LIMITS = "SET {0} statement_timeout = 0; SET {0} lock_timeout = '10s'"


class PostgresDatabase:
    """A connection to PostgreSQL in which each statement is its own transaction."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg2
        except ImportError as error:
            raise ConfigurationError(
                "DATABASE_URL names PostgreSQL, and psycopg2 is not installed;"
                " run `pip install psycopg2-binary`"
            ) from error
        self.connection: Any = psycopg2.connect(
            url, connect_timeout=10, application_name="housekeeper"
        )
        self.connection.autocommit = True
        # Not behind PgBouncer: there the application gets this connection next, as it was set.
        if self.execute("SELECT pg_backend_pid()")[0] == [(self.connection.get_backend_pid(),)]:
            self.execute(LIMITS.format("SESSION"))

    def execute(self, sql: Any, *values: object) -> tuple[list[tuple[Any, ...]], int]:
        """Run a statement; return its rows and how many it touched."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else [], cursor.rowcount

    def has_table(self, name: str) -> bool:
        """Tell whether a table is found on the connection's search path."""
        return self.execute("SELECT to_regclass(%s) IS NOT NULL", name)[0][0][0] is True

    def now(self) -> float:
        """Return the server's clock as seconds since 1970."""
        return float(self.execute("SELECT extract(epoch FROM now())")[0][0][0])

    def delete_older(self, table: str, column: str, than: float, limit: int) -> int:
        """Delete at most `limit` rows whose column is before an instant; return how many.

        Rows that somebody else holds are left for the next time, so that nobody waits.  Of a
        partitioned table it may delete more.  Timestamps without a zone are read as UTC.
        """
        settings = f"{LIMITS.format('LOCAL')}; SET LOCAL TIME ZONE 'UTC'"
        old = f"{column} < to_timestamp({than!r})"
        chosen = f"SELECT ctid FROM {table} WHERE {old} LIMIT {limit} FOR UPDATE SKIP LOCKED"
        # `old` once more, because in a partitioned table a ctid names a row of each partition.
        delete = f"DELETE FROM {table} WHERE ctid = ANY (ARRAY({chosen})) AND {old}"
        return self.execute(f"{settings}; {delete}")[1]

    def interrupt(self) -> None:
        """End the statement that is going on in another thread."""
        self.connection.cancel()

    def close(self) -> None:
        self.connection.close()


class SqliteDatabase:
    """A connection to an SQLite file in which each statement is its own transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ConfigurationError(f"DATABASE_URL names {path}, which is not a file")
        # mode=rw: a file that disappears meanwhile is not made anew, empty.
        self.connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=60.0,
            isolation_level=None,
            check_same_thread=False,
        )

    def execute(self, sql: str, *values: Any) -> tuple[list[tuple[Any, ...]], int]:
        """Run a statement; return its rows and how many it touched."""
        cursor = self.connection.execute(sql, values)
        return cursor.fetchall(), cursor.rowcount

    def has_table(self, name: str) -> bool:
        """Tell whether there is a table of that name."""
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)"
        return bool(self.execute(sql, name)[0])

    def now(self) -> float:
        """Return this host's clock as seconds since 1970."""
        return float(self.execute("SELECT (julianday('now') - 2440587.5) * 86400.0")[0][0][0])

    def delete_older(self, table: str, column: str, than: float, limit: int) -> int:
        """Delete at most `limit` rows whose column is before an instant; return how many.

        SQLite has no type for instants: a number is seconds (or, from 1e11 on, milliseconds) since
        1970, a text is ISO 8601 in UTC unless it says otherwise, anything else is kept.
        """
        seconds = (
            f"CASE WHEN typeof({column}) NOT IN ('integer', 'real')"
            f" THEN CASE WHEN {column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
            # It reads '0' too, as a day 6,700 years ago.
            f" THEN (julianday({column}) - 2440587.5) * 86400.0 END"
            f" WHEN {column} >= 1e11 THEN {column} / 1000.0 ELSE {column} END"
        )
        chosen = f"SELECT rowid FROM {table} WHERE {seconds} < ? LIMIT ?"
        return self.execute(f"DELETE FROM {table} WHERE rowid IN ({chosen})", than, limit)[1]

    def interrupt(self) -> None:
        """End the statement that is going on in another thread."""
        self.connection.interrupt()

    def close(self) -> None:
        self.connection.close()


@contextmanager
def database() -> Iterator[PostgresDatabase | SqliteDatabase]:
    """Connect to what DATABASE_URL names.

    Raises SkipRun when it is not set, ConfigurationError when it names nothing that is known here.
    """
    url = os.environ.get("DATABASE_URL", "").strip()
    if not url:
        raise SkipRun("DATABASE_URL is not set")
    scheme, separator, rest = url.partition("://")
    opened: PostgresDatabase | SqliteDatabase
    if separator and scheme in POSTGRES:
        opened = PostgresDatabase(f"postgresql://{rest}")
    elif scheme == "sqlite" and rest.startswith("/") and rest.strip("/"):
        opened = SqliteDatabase(Path(rest[1:].partition("?")[0]).absolute())
    else:
        # The rest of it may hold a password.
        raise ConfigurationError(
            f"DATABASE_URL begins with {scheme if separator else '...'}://, and is neither"
            " postgresql://user@host/database nor sqlite:///path/to/file"
        )
    with closing(opened):
        yield opened
