"""The database that DATABASE_URL names: PostgreSQL, or an SQLite file."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import housekeeper
from housekeeper import ConfigurationError, SkipRun, current_run

from ._settings import setting

POSTGRES = ("postgres", "postgresql", "postgis", "pgsql", "psql")
SQLITE = ("sqlite", "spatialite")
LOOKED_UP = 20  # batches, whose rows are found in one walk through the table
# A limit that the role has for the application's queries is not meant for maintenance; nobody's
# lock is awaited for long.
LIMITS = "SET {0} statement_timeout = 0; SET {0} lock_timeout = '10s'"

Answer = tuple[list[tuple[Any, ...]], int]

logger = logging.getLogger(__name__)


class Database:
    """A connection in which each statement is its own transaction."""

    NOW: str  # the database's clock as seconds since 1970
    HAS_TABLE: str
    OLDER: str  # a condition: a column lies before an instant
    SETTINGS = ""  # for the transaction of a statement on one of the application's tables
    KEY: str  # columns that tell a table's rows apart, and put them in an order
    UNREFERENCED: str  # finds the conditions under which no other table needs a row
    interrupt: Callable[[], None]  # ends the statement that another thread has begun

    def execute(self, sql: Any, *values: object) -> Answer:
        """Run a statement; return its rows and how many it touched."""
        raise NotImplementedError

    def now(self) -> float:
        """Return the database's clock as seconds since 1970."""
        return float(self.execute(self.NOW)[0][0][0])

    def has_table(self, name: str) -> bool:
        """Tell whether there is a table of that name, on PostgreSQL on the search path."""
        return bool(self.execute(self.HAS_TABLE, name)[0][0][0])

    def delete_older(self, table: str, column: str, than: float, limit: int) -> Iterator[int]:
        """Delete rows whose column is before an instant, at most `limit` at once; yield how many.

        A row stays that another table refers to, unless it is deleted with it, and one that
        a trigger, or a row that would go with it, refuses to let go.
        """
        where = f"{self.OLDER.format(column=column, than=than)} AND {self._unreferenced(table)}"
        select = f"{self.SETTINGS}SELECT {self.KEY} FROM {table} WHERE {where}"
        many, keys, after = limit * LOOKED_UP, [()], ""
        while keys:
            keys, _ = self.execute(f"{select}{after} ORDER BY {self.KEY} LIMIT {many}")
            for start in range(0, len(keys), limit):
                yield self._delete_willing(table, where, keys[start : start + limit])
            after = f" AND ({self.KEY}) > {self._literal(keys[-1])}" if keys else ""

    def _delete_willing(self, table: str, where: str, keys: list[Any]) -> int:
        """Delete rows but for those that refuse, which trying ever smaller parts finds."""
        touched, told, parts = 0, False, [keys]
        while parts:
            current_run().check_cancelled()
            part = parts.pop()
            first, last = self._literal(part[0]), self._literal(part[-1])
            within = f"({self.KEY}) BETWEEN {first} AND {last} AND {where}"
            try:
                touched += self.delete(table, within, part)
            except Exception as error:
                if not self.is_refusal(error):
                    raise
                half = len(part) // 2
                parts += [part[half:], part[:half]] if half else []
                if not half and not told:
                    logger.warning("Table %s: a row stays: %s", table, reason_of(error))
                    told = True
        return touched

    def _literal(self, key: tuple[Any, ...]) -> str:
        """Return a key as it is written in a statement."""
        return f"({', '.join(map(repr, key))})"

    def delete(self, table: str, where: str, keys: list[Any]) -> int:
        """Delete rows by their keys, all or none of those that are free; return how many."""
        raise NotImplementedError

    def is_refusal(self, error: Exception) -> bool:
        """Tell whether an error is about a row that is not to be deleted."""
        raise NotImplementedError

    def count_older(self, table: str, column: str, than: float) -> int:
        """Return how many rows are before an instant."""
        older = self.OLDER.format(column=column, than=than)
        return int(
            self.execute(f"{self.SETTINGS}SELECT count(*) FROM {table} WHERE {older}")[0][0][0]
        )

    def _unreferenced(self, table: str) -> str:
        rows, _ = self.execute(self.UNREFERENCED.format(table=table))
        return " AND ".join(condition for (condition,) in rows) or "1 = 1"


class PostgresDatabase(Database):
    """A connection to PostgreSQL.

    Rows that somebody else holds are left for the next time, so that nobody waits.  Timestamps
    without a zone are read as UTC.
    """

    NOW = "SELECT extract(epoch FROM now())"
    HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"
    OLDER = "{column} < to_timestamp({than!r})"
    SETTINGS = f"{LIMITS.format('LOCAL')}; SET LOCAL TIME ZONE 'UTC'; "
    # In a partitioned table a ctid names a row of each partition, hence `where` once more.
    KEY = "tableoid, ctid"
    DELETE = (
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {where}"
        " AND ctid = ANY ('{{{places}}}'::tid[]) FOR UPDATE SKIP LOCKED)) AND {where}"
    )
    # Classes of SQLSTATE that say nothing of a row: a lost connection, a missing privilege, a full
    # disk, a lock that was not to be had.  A trigger may raise any other.
    OTHERWISE = ("08", "25", "40", "42", "53", "54", "55", "57", "58", "XX", "")
    UNREFERENCED = """
        SELECT format('NOT EXISTS (SELECT FROM %s c WHERE (%s) = (%s))', conrelid::regclass,
            (SELECT string_agg(format('c.%I', attname), ', ' ORDER BY i) FROM pg_attribute
             JOIN unnest(conkey) WITH ORDINALITY k (n, i) ON attrelid = conrelid AND attnum = n),
            (SELECT string_agg(format('%s.%I', confrelid::regclass, attname), ', ' ORDER BY i)
             FROM pg_attribute JOIN unnest(confkey) WITH ORDINALITY k (n, i)
             ON attrelid = confrelid AND attnum = n))
        FROM pg_constraint WHERE contype = 'f' AND confdeltype IN ('a', 'r') AND conparentid = 0
            AND confrelid = to_regclass('{table}') AND conrelid <> confrelid"""

    def __init__(self, address: str) -> None:
        try:
            psycopg2: Any = import_module("psycopg2")
        except ImportError as error:
            raise ConfigurationError(
                "DATABASE_URL names PostgreSQL, and psycopg2 is not installed;"
                " run `pip install psycopg2-binary`"
            ) from error
        ours = {"connect_timeout": "10", "application_name": "housekeeper"}
        self.connection: Any = psycopg2.connect(**{**ours, **postgres_parameters(address)})
        self.connection.autocommit = True
        self.interrupt = self.connection.cancel
        # Not behind PgBouncer: there the application gets this connection next, as it was set.
        if self.execute("SELECT pg_backend_pid()")[0] == [(self.connection.get_backend_pid(),)]:
            self.execute(LIMITS.format("SESSION"))

    def execute(self, sql: Any, *values: object) -> Answer:
        """Run a statement; return its rows and how many it touched."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else [], cursor.rowcount

    def delete(self, table: str, where: str, keys: list[Any]) -> int:
        """Delete rows by their keys, all or none of those that are free; return how many."""
        places = ", ".join(f'"{place}"' for _, place in keys)
        sql = self.DELETE.format(table=table, where=where, places=places)
        return self.execute(self.SETTINGS + sql)[1]

    def is_refusal(self, error: Exception) -> bool:
        """Tell whether an error is about a row that is not to be deleted."""
        return (getattr(error, "pgcode", None) or "")[:2] not in self.OTHERWISE


class SqliteDatabase(Database):
    """A connection to an SQLite file.

    A column has no type there: a number is seconds (or, from 1e11 on, milliseconds) since 1970, a
    text is ISO 8601 in UTC unless it says otherwise, anything else is never older.
    """

    NOW = "SELECT (julianday('now') - 2440587.5) * 86400.0"
    HAS_TABLE = (
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)"
    )
    # julianday() reads '0' too, as a day 6,700 years ago.
    OLDER = """
        CASE WHEN typeof({column}) NOT IN ('integer', 'real')
            THEN CASE WHEN {column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
                THEN (julianday({column}) - 2440587.5) * 86400.0 END
            WHEN {column} >= 1e11 THEN {column} / 1000.0 ELSE {column} END < {than!r}"""
    KEY = "rowid"
    UNREFERENCED = """
        SELECT printf('NOT EXISTS (SELECT 1 FROM "%w" AS c WHERE %s)', child.name, group_concat(
            printf('c."%w" = "%w"."%w"', f."from", f."table", coalesce(f."to",
                (SELECT name FROM pragma_table_info(f."table") WHERE pk = f.seq + 1))), ' AND '))
        FROM sqlite_master child JOIN pragma_foreign_key_list(child.name) f
        WHERE child.type = 'table' AND f.on_delete IN ('NO ACTION', 'RESTRICT')
            AND lower(f."table") = '{table}' AND lower(child.name) <> '{table}'
        GROUP BY child.name, f.id"""

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
        self.interrupt = self.connection.interrupt
        self.execute("PRAGMA foreign_keys = ON")

    def execute(self, sql: Any, *values: Any) -> Answer:
        """Run a statement; return its rows and how many it touched."""
        cursor = self.connection.execute(sql, values)
        return cursor.fetchall(), cursor.rowcount

    def delete(self, table: str, where: str, keys: list[Any]) -> int:
        """Delete rows by their keys, all or none; return how many."""
        self.execute("BEGIN IMMEDIATE")  # RAISE(FAIL) in a trigger would leave a part of it done.
        try:
            _, touched = self.execute(f"DELETE FROM {table} WHERE {where}")
            self.execute("COMMIT")
            return touched
        finally:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")

    def is_refusal(self, error: Exception) -> bool:
        """Tell whether an error is about a row that is not to be deleted."""
        return isinstance(error, sqlite3.IntegrityError)


def reason_of(error: Exception) -> str:
    """Return the first line of what a database says."""
    return str(error).partition("\n")[0]


@contextmanager
def database() -> Iterator[PostgresDatabase | SqliteDatabase]:
    """Connect to what DATABASE_URL names.

    Raises SkipRun when it is not set or names another kind of database, ConfigurationError when it
    cannot be understood.  No error shows the address, for it may hold a password.
    """
    url = setting("DATABASE_URL")
    if not url:
        raise SkipRun("DATABASE_URL is not set")
    scheme, separator, rest = url.partition("://")
    kind = scheme.lower().partition("+")[0]
    opened: PostgresDatabase | SqliteDatabase
    if separator and kind in POSTGRES:
        opened = PostgresDatabase(rest)
    elif separator and kind in SQLITE and rest.partition("?")[0].strip("/"):
        opened = SqliteDatabase(sqlite_path(rest))
    elif separator and kind not in SQLITE and re.fullmatch("[a-z0-9]{1,20}", kind):
        raise SkipRun(f"DATABASE_URL names {kind}, and only PostgreSQL and SQLite are known here")
    else:
        raise ConfigurationError(
            "DATABASE_URL is neither postgresql://user@host/database nor sqlite:///path/to/file"
        )
    with closing(opened.connection):
        yield opened


def sqlite_path(rest: str) -> Path:
    """Return the file of ``sqlite://`` and this.

    A relative path is also looked for beside housekeeper.py, and in a folder ``instance``, where
    Flask-SQLAlchemy has its files.
    """
    name = rest.removeprefix("/").partition("?")[0].removeprefix("file:")
    here = Path(housekeeper.__file__).parent
    folders = (Path(), Path("instance"), here, here / "instance")
    found = {(folder / name).resolve() for folder in folders if (folder / name).is_file()}
    if len(found) > 1:
        names = " and ".join(sorted(map(str, found)))
        raise ConfigurationError(f"DATABASE_URL may mean {names}; write the whole path of one")
    return found.pop() if found else Path(name).absolute()


def postgres_parameters(address: str) -> dict[str, str]:
    """Return what ``postgresql://`` and this mean to libpq, and the frameworks' words for TLS.

    A user's name and a password may hold any character but ``?``, which is %3F.
    """
    psycopg2: Any = import_module("psycopg2")
    parse_dsn = import_module("psycopg2.extensions").parse_dsn

    rest, _, query = address.partition("?")
    login, at, place = rest.rpartition("@")
    login = ":".join(quote(unquote(each), safe="") for each in login.split(":", 1))
    try:
        if "@" in query:
            raise psycopg2.ProgrammingError
        parameters: dict[str, str] = parse_dsn(f"postgresql://{login}{at}{place}")
    except psycopg2.ProgrammingError:
        raise ConfigurationError(
            "DATABASE_URL cannot be read; write a ? of its password as %3F, and an @ as %40"
        ) from None
    for name, text in sorted(parse_qsl(query)):  # sslmode= comes after ssl=, and counts.
        if name in ("ssl", "ssl_require") and text.lower() not in ("0", "false", "no"):
            name, text = "sslmode", "require" if text.lower() in ("1", "true", "yes") else text
        try:
            parameters.update(parse_dsn(f"postgresql:///?{quote(name)}={quote(text)}"))
        except psycopg2.ProgrammingError:
            continue  # It is SQLAlchemy's, Django's or another's.
    return parameters
