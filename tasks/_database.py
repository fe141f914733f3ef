"""The database that DATABASE_URL names: PostgreSQL, or an SQLite file."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import housekeeper
from housekeeper import ConfigurationError, SkipRun

from ._settings import setting

POSTGRES = ("postgres", "postgresql", "postgis", "pgsql", "psql")
SQLITE = ("sqlite", "spatialite")
# A limit that the role has for the application's queries is not meant for maintenance; nobody's
# lock is awaited for long.
LIMITS = "SET {0} statement_timeout = 0; SET {0} lock_timeout = '10s'"
# How many rows may be found, one by one, to be such as cannot be deleted.
MOST_KEPT = 100

Answer = tuple[list[tuple[Any, ...]], int]


class Database:
    """A connection in which each statement is its own transaction."""

    ROW: str  # what the database calls a row's place in its table
    DELETE: str
    UNREFERENCED: str  # finds the conditions under which no other table needs a row
    refusal: type[Exception]  # says that a row cannot be deleted

    def __init__(self) -> None:
        self._kept: list[str] = []

    def execute(self, sql: Any, *values: object) -> Answer:
        """Run a statement; return its rows and how many it touched."""
        raise NotImplementedError

    def delete_older(self, table: str, column: str, than: float, limit: int) -> int:
        """Delete at most `limit` rows whose column is before an instant; return how many.

        Rows that other tables refer to stay, unless they are deleted with them.  Raises `refusal`
        when one cannot be deleted for another reason.
        """
        where = f"{self._older(column, than)} AND {self._free(table)}"
        return self._transact(self.DELETE.format(table=table, where=where, limit=limit))[1]

    def keep_one(self, table: str, column: str, than: float) -> bool:
        """Leave the next row alone from now on; return False when these have become too many."""
        where = f"{self._older(column, than)} AND {self._free(table)}"
        rows, _ = self._transact(f"SELECT {self.ROW} FROM {table} WHERE {where} LIMIT 1")
        self._kept += [f"'{row}'" for (row,) in rows]
        return len(self._kept) <= MOST_KEPT

    def count_kept(self, table: str, column: str, than: float) -> int:
        """Return how many rows before an instant cannot be deleted."""
        where = f"{self._older(column, than)} AND NOT ({self._free(table)})"
        return int(self._transact(f"SELECT count(*) FROM {table} WHERE {where}")[0][0][0])

    def _older(self, column: str, than: float) -> str:
        raise NotImplementedError

    def _free(self, table: str) -> str:
        rows, _ = self.execute(self.UNREFERENCED.format(table=table))
        conditions = [condition for (condition,) in rows]
        if self._kept:
            conditions.append(f"{self.ROW} NOT IN ({', '.join(self._kept)})")
        return " AND ".join(conditions) or "1 = 1"

    def _transact(self, sql: str) -> Answer:
        return self.execute(sql)


class PostgresDatabase(Database):
    """A connection to PostgreSQL.

    Rows that somebody else holds are left for the next time, so that nobody waits.  Of a
    partitioned table more than `limit` may go.  Timestamps without a zone are read as UTC.
    """

    ROW = "ctid"
    # `where` once more, because in a partitioned table a ctid names a row of each partition.
    DELETE = (
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {where}"
        " LIMIT {limit} FOR UPDATE SKIP LOCKED)) AND {where}"
    )
    UNREFERENCED = """
        SELECT format('NOT EXISTS (SELECT FROM %s c WHERE (%s) = (%s))', conrelid::regclass,
            (SELECT string_agg(format('c.%I', attname), ', ' ORDER BY i) FROM pg_attribute
             JOIN unnest(conkey) WITH ORDINALITY k (n, i) ON attrelid = conrelid AND attnum = n),
            (SELECT string_agg(format('%s.%I', confrelid::regclass, attname), ', ' ORDER BY i)
             FROM pg_attribute JOIN unnest(confkey) WITH ORDINALITY k (n, i)
             ON attrelid = confrelid AND attnum = n))
        FROM pg_constraint WHERE contype = 'f' AND confdeltype IN ('a', 'r') AND conparentid = 0
            AND confrelid = to_regclass('{table}') AND conrelid <> confrelid"""

    def __init__(self, parameters: dict[str, str]) -> None:
        super().__init__()
        try:
            import psycopg2
        except ImportError as error:
            raise ConfigurationError(
                "DATABASE_URL names PostgreSQL, and psycopg2 is not installed;"
                " run `pip install psycopg2-binary`"
            ) from error
        self.refusal = psycopg2.IntegrityError
        known = {name: text for name, text in parameters.items() if _is_of_libpq(name)}
        ours = {"connect_timeout": "10", "application_name": "housekeeper"}
        self.connection: Any = psycopg2.connect(**{**ours, **known})
        self.connection.autocommit = True
        # Not behind PgBouncer: there the application gets this connection next, as it was set.
        if self.execute("SELECT pg_backend_pid()")[0] == [(self.connection.get_backend_pid(),)]:
            self.execute(LIMITS.format("SESSION"))

    def execute(self, sql: Any, *values: object) -> Answer:
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

    def _older(self, column: str, than: float) -> str:
        return f"{column} < to_timestamp({than!r})"

    def _transact(self, sql: str) -> Answer:
        return self.execute(f"{LIMITS.format('LOCAL')}; SET LOCAL TIME ZONE 'UTC'; {sql}")

    def interrupt(self) -> None:
        """End the statement that is going on in another thread."""
        self.connection.cancel()

    def close(self) -> None:
        self.connection.close()


class SqliteDatabase(Database):
    """A connection to an SQLite file."""

    ROW = "rowid"
    DELETE = (
        "DELETE FROM {table} WHERE rowid IN"
        " (SELECT rowid FROM {table} WHERE {where} LIMIT {limit})"
    )
    UNREFERENCED = """
        SELECT printf('NOT EXISTS (SELECT 1 FROM "%w" AS c WHERE %s)', child.name, group_concat(
            printf('c."%w" = "%w"."%w"', f."from", f."table", coalesce(f."to",
                (SELECT name FROM pragma_table_info(f."table") WHERE pk = f.seq + 1))), ' AND '))
        FROM sqlite_master child JOIN pragma_foreign_key_list(child.name) f
        WHERE child.type = 'table' AND f.on_delete IN ('NO ACTION', 'RESTRICT')
            AND lower(f."table") = '{table}' AND lower(child.name) <> '{table}'
        GROUP BY child.name, f.id"""
    refusal = sqlite3.IntegrityError

    def __init__(self, path: Path) -> None:
        super().__init__()
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
        self.execute("PRAGMA foreign_keys = ON")

    def execute(self, sql: Any, *values: Any) -> Answer:
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

    def _older(self, column: str, than: float) -> str:
        """Return a condition on a column, for which SQLite has no type of its own.

        A number is seconds (or, from 1e11 on, milliseconds) since 1970, a text is ISO 8601 in UTC
        unless it says otherwise, anything else is never older.
        """
        return (
            f"CASE WHEN typeof({column}) NOT IN ('integer', 'real')"
            f" THEN CASE WHEN {column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
            # It reads '0' too, as a day 6,700 years ago.
            f" THEN (julianday({column}) - 2440587.5) * 86400.0 END"
            f" WHEN {column} >= 1e11 THEN {column} / 1000.0 ELSE {column} END < {than!r}"
        )

    def interrupt(self) -> None:
        """End the statement that is going on in another thread."""
        self.connection.interrupt()

    def close(self) -> None:
        self.connection.close()


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
        opened = PostgresDatabase(postgres_parameters(rest))
    elif separator and kind in SQLITE and rest.partition("?")[0].strip("/"):
        opened = SqliteDatabase(sqlite_path(rest))
    elif separator and kind not in SQLITE and re.fullmatch("[a-z0-9]{1,20}", kind):
        raise SkipRun(f"DATABASE_URL names {kind}, and only PostgreSQL and SQLite are known here")
    else:
        raise ConfigurationError(
            "DATABASE_URL is neither postgresql://user@host/database nor sqlite:///path/to/file"
        )
    with closing(opened):
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


def postgres_parameters(rest: str) -> dict[str, str]:
    """Return what ``postgresql://`` and this mean, by libpq's names and those of frameworks.

    Any character of the password may stand for itself, although a URL wants some written as %XX.
    """
    address, _, query = rest.partition("?")
    if re.search("@[^@?&]*/[^@]*$", query):
        # That was a question mark of the password: behind it comes @host/database.
        login, _, place = rest.rpartition("@")
        place, _, query = place.partition("?")
        address = f"{login}@{place}"
    login, _, place = address.rpartition("@")
    user, _, password = login.partition(":")
    places, _, name = place.partition("/")
    options = parse_qsl(query)
    hosts, ports = _hosts(places or ",".join(text for key, text in options if key == "host"))
    given = {"user": user, "password": password, "host": hosts, "port": ports, "dbname": name}
    parameters = {key: unquote(text) for key, text in given.items() if text.strip(",")}
    parameters.update((key, text) for key, text in options if key != "host")
    # asyncpg's and Django's words for what libpq has too.
    tls = (parameters.get("ssl") or parameters.get("ssl_require") or "").lower()
    if tls not in ("", "0", "false", "no"):
        modes = ("disable", "allow", "prefer", "verify-ca", "verify-full")
        parameters.setdefault("sslmode", tls if tls in modes else "require")
    if "currentSchema" in parameters:
        parameters.setdefault("options", f"-c search_path={parameters['currentSchema']}")
    return parameters


def _hosts(text: str) -> tuple[str, str]:
    """Return the hosts of ``host:port,host:port``, and the ports."""
    hosts, ports = list[str](), list[str]()
    for each in text.split(","):
        path = each.lower().startswith(("/", "%2f"))  # of a socket
        found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:]*))(?::([0-9]*))?", each)
        if not path and found is None:
            raise ConfigurationError(
                "DATABASE_URL does not end in @host:port/database; an @ of the password is %40"
            )
        hosts.append(each if path or not found else found[1] or found[2])
        ports.append("" if path or not found else found[3] or "")
    return ",".join(hosts), ",".join(ports)


def _is_of_libpq(name: str) -> bool:
    """Tell whether libpq knows a parameter, or only SQLAlchemy, Django or another."""
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        return bool(name.isidentifier() and parse_dsn(f"{name}=x"))
    except ProgrammingError:
        return False
