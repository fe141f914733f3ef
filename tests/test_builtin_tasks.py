"""The tasks in tasks/, on a real PostgreSQL, on SQLite files and on real folders."""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest

import housekeeper as hk
from housekeeper import Status
from tests.postgres import PostgresServer
from tests.waiting import eventually

TASKS = Path(hk.__file__).parent / "tasks"
DAY = 86400


def module(name: str) -> ModuleType:
    return importlib.import_module(f"tasks.{name}")


@pytest.fixture
def run(make: Any, caplog: pytest.LogCaptureFixture) -> Callable[[str], hk.Run]:
    """Run one of the tasks by hand, and return the finished run."""
    caplog.set_level(logging.INFO)

    def run_task(name: str) -> hk.Run:
        (task,) = (
            value
            for value in vars(module(name.replace("-", "_"))).values()
            if isinstance(value, hk.Task)
        )
        assert task.name == name
        housekeeper = make()
        housekeeper.register_task(task)  # after the start, so that it makes no startup run
        live = housekeeper.run_task_manually(name, wait=False)
        assert live.ended.wait(60)
        (row,) = housekeeper.history(name)
        assert row.status == live.status
        return row

    return run_task


def test_the_folder_holds_the_three_tasks_with_their_schedules(make: Any) -> None:
    housekeeper = make(tasks_dir="tasks", start=False)
    assert housekeeper.discover() == []
    tasks = {each["name"]: each for each in housekeeper.list_tasks()}
    assert list(tasks) == ["cleanup-expired-tokens", "cleanup-old-logs", "database-vacuum"]
    assert tasks["cleanup-old-logs"]["schedule"] == "0 3 * * *"
    assert tasks["database-vacuum"]["schedule"] == "0 4 * * 0"
    housekeeper.initialize()
    concrete = str(housekeeper.list_tasks()[0]["schedule"]).split()
    assert concrete[1:] == ["2", "*", "*", "*"]
    assert 0 <= int(concrete[0]) <= 59
    assert tasks["cleanup-expired-tokens"]["startup"] is True


def test_every_task_skips_with_the_reason_when_there_is_nothing_to_do(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_DIRECTORY", str(tmp_path / "none"))
    for name in ("cleanup-expired-tokens", "database-vacuum"):
        row = run(name)
        assert (row.status, row.note) == (Status.SKIPPED, "DATABASE_URL is not set")
    row = run("cleanup-old-logs")
    assert row.status is Status.SKIPPED
    assert row.note == f"the log folder {tmp_path}/none does not exist"


@pytest.mark.parametrize(
    "url",
    ["geheim", "sqlite://", "sqlite:///", "sqlite:relative", "geheim pw://x", "postgres:geheim@x"],
)
def test_a_database_url_that_names_nothing_known_fails_without_telling_its_password(
    run: Any, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    row = run("cleanup-expired-tokens")
    assert row.status is Status.FAILED
    assert "sqlite:///path/to/file" in row.note
    assert "geheim" not in row.note + row.error + row.output


def test_a_missing_sqlite_file_is_named_and_not_made(run: Any, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/app.db")
    row = run("database-vacuum")
    assert row.status is Status.FAILED
    assert f"{tmp_path}/app.db, which is not a file" in row.note
    assert not (tmp_path / "app.db").exists()


# Expired tokens on PostgreSQL.


@pytest.fixture
def postgres(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[Any]]]:
    """Statements on a fresh database, which DATABASE_URL names."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True

    def execute(sql: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    yield execute
    connection.close()


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_expired_rows_go_and_the_others_stay_on_postgres(
    run: Any, postgres: Any, kind: str
) -> None:
    # Naive timestamps are UTC, whatever zone the server and the role are in.
    postgres("DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() ||"
             " ' SET timezone = ''Asia/Tokyo'''; END $$")  # fmt: skip
    postgres("SET TIME ZONE 'UTC'")
    postgres(f"CREATE TABLE access_tokens (id int, expires_at {kind})")
    postgres(f"CREATE TABLE oauth_sessions (id int, created_at {kind})")
    postgres(
        "INSERT INTO access_tokens VALUES (1, now() - interval '1 second'),"
        " (2, now() + interval '1 minute'), (3, NULL), (4, now() - interval '1 year')"
    )
    postgres(
        "INSERT INTO oauth_sessions VALUES (1, now() - interval '4 minutes'),"
        " (2, now() - interval '301 seconds'), (3, NULL)"
    )
    row = run("cleanup-expired-tokens")
    assert row.status is Status.SUCCEEDED
    assert postgres("SELECT id FROM access_tokens ORDER BY id") == [(2,), (3,)]
    assert postgres("SELECT id FROM oauth_sessions ORDER BY id") == [(1,), (3,)]
    assert "Deleted 2 rows of access_tokens" in row.output
    assert "Deleted 1 rows of oauth_sessions" in row.output
    assert str(row.progress_made) == "3 rows"


def test_a_partitioned_table_loses_only_its_expired_rows(run: Any, postgres: Any) -> None:
    postgres(
        "CREATE TABLE access_tokens (id int, expires_at timestamptz) PARTITION BY LIST ((id % 2))"
    )
    for part in (0, 1):
        postgres(f"CREATE TABLE part_{part} PARTITION OF access_tokens FOR VALUES IN ({part})")
    postgres(
        "INSERT INTO access_tokens SELECT n, now() + interval '1 hour' *"
        " CASE WHEN n % 3 = 0 THEN -1 ELSE 1 END FROM generate_series(1, 600) n"
    )
    assert run("cleanup-expired-tokens").status is Status.SUCCEEDED
    assert postgres("SELECT count(*), count(*) FILTER (WHERE id % 3 = 0) FROM access_tokens") == [
        (400, 0)
    ]


def test_a_partitioned_table_loses_all_of_its_expired_rows(
    run: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("cleanup_expired_tokens"), "BATCH", 100)
    postgres(
        "CREATE TABLE access_tokens (id int, expires_at timestamptz) PARTITION BY LIST ((id % 2))"
    )
    for part in (0, 1):
        postgres(f"CREATE TABLE part_{part} PARTITION OF access_tokens FOR VALUES IN ({part})")
    postgres("INSERT INTO access_tokens SELECT n, '2020-01-01' FROM generate_series(1, 1000) n")
    row = run("cleanup-expired-tokens")
    assert (row.status, str(row.progress_made)) == (Status.SUCCEEDED, "1,000 rows")
    assert postgres("SELECT count(*) FROM access_tokens") == [(0,)]


def test_rows_go_in_batches_each_in_its_own_transaction_and_it_stops_between_them(
    make: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres("CREATE TABLE access_tokens (id int, expires_at timestamptz)")
    postgres(
        "INSERT INTO access_tokens SELECT n, now() - interval '1 hour'"
        " FROM generate_series(1, 25000) n"
    )
    tokens, left = module("cleanup_expired_tokens"), []
    assert tokens.BATCH == 10_000
    housekeeper = make(tokens.cleanup_expired_tokens)
    real = module("_database").PostgresDatabase.delete_older

    def delete_and_look(self: Any, *values: Any) -> Iterator[int]:
        for touched in real(self, *values):
            left.append(postgres("SELECT count(*) FROM access_tokens")[0][0])
            if len(left) == 2:
                housekeeper.cancel("cleanup-expired-tokens")
                assert hk.current_run().wait(60)
            yield touched

    monkeypatch.setattr(module("_database").PostgresDatabase, "delete_older", delete_and_look)
    with pytest.raises(hk.RunFailed, match="cancelled: cancelled by"):
        housekeeper.run_task_manually("cleanup-expired-tokens")
    assert left == [15_000, 5_000]
    assert postgres("SELECT count(*) FROM access_tokens") == [(5_000,)]
    housekeeper.run_task_manually("cleanup-expired-tokens")
    assert left == [15_000, 5_000, 0]


def test_a_missing_table_is_skipped_and_said_and_two_are_nothing_to_do(
    run: Any, postgres: Any
) -> None:
    row = run("cleanup-expired-tokens")
    assert row.status is Status.SKIPPED
    assert row.note == "the database has neither access_tokens nor oauth_sessions"
    postgres("CREATE TABLE oauth_sessions (created_at timestamptz)")
    postgres("INSERT INTO oauth_sessions VALUES ('2020-01-01')")
    row = run("cleanup-expired-tokens")
    assert row.status is Status.SUCCEEDED
    assert "There is no table access_tokens; skipped it" in row.output
    assert postgres("SELECT count(*) FROM oauth_sessions") == [(0,)]


def test_a_table_that_fails_does_not_keep_the_other_from_being_cleaned(
    run: Any, postgres: Any
) -> None:
    postgres("CREATE TABLE access_tokens (expires bigint)")
    postgres("CREATE TABLE oauth_sessions AS SELECT timestamp '2020-01-01' created_at")
    row = run("cleanup-expired-tokens")
    assert row.status is Status.FAILED
    assert 'UndefinedColumn: column "expires_at" does not exist' in row.note
    assert "Deleted 1 rows of oauth_sessions" in row.output
    assert postgres("SELECT count(*) FROM oauth_sessions") == [(0,)]


def test_rows_that_somebody_holds_are_left_and_nobody_waits(
    run: Any, postgres: Any, postgres_url: str
) -> None:
    postgres("CREATE TABLE access_tokens (id int, expires_at timestamptz)")
    postgres("INSERT INTO access_tokens VALUES (1, '2020-01-01'), (2, '2020-01-01')")
    holder = psycopg2.connect(postgres_url)
    with holder.cursor() as cursor:
        cursor.execute("UPDATE access_tokens SET expires_at = '2099-01-01' WHERE id = 1")
        assert run("cleanup-expired-tokens").status is Status.SUCCEEDED
    holder.commit()
    holder.close()
    assert postgres("SELECT id FROM access_tokens") == [(1,)]


def test_a_server_that_is_gone_fails_the_run_with_its_words_and_no_password(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://someone:geheim@127.0.0.1:1/app")
    row = run("database-vacuum")
    assert row.status is Status.FAILED
    assert "OperationalError" in row.note
    assert "geheim" not in row.note + row.error + row.output


def test_a_server_that_goes_away_in_the_middle_fails_the_run_and_keeps_the_batches(
    make: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres("CREATE TABLE access_tokens (id int, expires_at timestamptz)")
    postgres("INSERT INTO access_tokens SELECT n, '2020-01-01' FROM generate_series(1, 15000) n")
    tokens = module("cleanup_expired_tokens")
    housekeeper = make(tokens.cleanup_expired_tokens)
    real = module("_database").PostgresDatabase.delete_older

    def delete_and_lose_the_server(self: Any, *values: Any) -> Iterator[int]:
        for touched in real(self, *values):
            postgres(f"SELECT pg_terminate_backend({self.connection.get_backend_pid()})")
            yield touched

    monkeypatch.setattr(
        module("_database").PostgresDatabase, "delete_older", delete_and_lose_the_server
    )
    with pytest.raises(psycopg2.Error):
        housekeeper.run_task_manually("cleanup-expired-tokens")
    (row,) = housekeeper.history("cleanup-expired-tokens")
    assert row.status is Status.FAILED
    assert postgres("SELECT count(*) FROM access_tokens") == [(5_000,)]


def test_without_psycopg2_the_package_to_install_is_named(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg2://someone@127.0.0.1/app")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    row = run("cleanup-expired-tokens")
    assert row.status is Status.FAILED
    assert "pip install psycopg2-binary" in row.note


# Vacuum on PostgreSQL.


def test_vacuum_goes_table_by_table_and_analyzes(run: Any, postgres: Any) -> None:
    postgres('CREATE SCHEMA "Odd; schema"')
    for table in ("plain", '"Odd; schema"."quoted ""table"""'):
        postgres(f"CREATE TABLE {table} AS SELECT n FROM generate_series(1, 5000) n")
        postgres(f"DELETE FROM {table} WHERE n > 100")
    row = run("database-vacuum")
    assert row.status is Status.SUCCEEDED
    assert str(row.progress_made) == "2 of 2 tables"
    assert postgres(
        "SELECT relname, reltuples FROM pg_class WHERE relkind = 'r'"
        " AND relnamespace IN ('public'::regnamespace, '\"Odd; schema\"'::regnamespace) ORDER BY 1"
    ) == [("plain", 100), ('quoted "table"', 100)]


def test_vacuum_skips_and_says_tables_of_others_and_locked_ones(
    run: Any, postgres: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres("DROP ROLE IF EXISTS app")
    postgres("CREATE ROLE app LOGIN")
    postgres("GRANT CREATE ON SCHEMA public TO app")
    postgres("CREATE TABLE of_others (n int)")
    postgres("SET ROLE app; CREATE TABLE mine (n int); CREATE TABLE taken (n int); RESET ROLE")
    monkeypatch.setenv("DATABASE_URL", postgres_url.replace("//postgres:", "//app:", 1))
    database = module("_database").PostgresDatabase
    real = database.__init__

    def impatient(self: Any, url: str) -> None:
        real(self, url)
        assert self.execute("SHOW lock_timeout")[0] == [("10s",)]
        self.execute("SET lock_timeout = '50ms'")

    monkeypatch.setattr(database, "__init__", impatient)
    holder = psycopg2.connect(postgres_url)
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE taken")
        row = run("database-vacuum")
    holder.close()
    assert row.status is Status.SUCCEEDED
    assert "Skipped public.of_others: this role may not vacuum it" in row.output
    assert "Skipped public.taken: canceling statement due to lock timeout" in row.output
    assert "public.mine" not in row.output
    assert str(row.progress_made) == "3 of 3 tables"


def test_a_table_that_fails_does_not_keep_the_others_from_being_vacuumed(
    run: Any, postgres: Any
) -> None:
    function = "CREATE OR REPLACE FUNCTION half(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
    postgres(f"{function} $$ BEGIN RETURN n / 2; END $$")
    postgres("CREATE TABLE a_bad AS SELECT 1 AS n")
    postgres("CREATE INDEX ON a_bad (half(n))")
    postgres(f"{function} $$ BEGIN RAISE EXCEPTION 'it fails'; END $$")
    postgres("CREATE TABLE good AS SELECT n FROM generate_series(1, 100) n")
    row = run("database-vacuum")
    assert row.status is Status.FAILED
    assert "1 tables failed: public.a_bad (it fails)" in row.note
    assert postgres("SELECT reltuples FROM pg_class WHERE relname = 'good'") == [(100,)]


def test_vacuum_is_cancelled_in_the_middle_of_a_statement(
    make: Any, postgres: Any, postgres_url: str
) -> None:
    postgres("CREATE TABLE slow AS SELECT n FROM generate_series(1, 1000) n")
    housekeeper = make(module("database_vacuum").database_vacuum)
    # It waits for the lock of this reader, which is as long a statement as one likes.
    holder = psycopg2.connect(postgres_url)
    with holder.cursor() as cursor:
        cursor.execute("LOCK TABLE slow IN SHARE UPDATE EXCLUSIVE MODE")
        live = housekeeper.run_task_manually("database-vacuum", wait=False)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: postgres(waiting) == [(1,)])
        housekeeper.cancel("database-vacuum")
        assert live.ended.wait(9)  # less than the task's own lock_timeout
    holder.close()
    assert live.status is Status.CANCELLED


# Both tasks on SQLite.


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """A connection to a fresh file, which DATABASE_URL names."""
    path = tmp_path / "with space & %41.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def test_expired_rows_go_in_every_form_in_which_sqlite_holds_instants(
    run: Any, sqlite: sqlite3.Connection
) -> None:
    now = time.time()
    past, future = time.gmtime(now - 3600), time.gmtime(now + 3600)
    gone = [
        time.strftime("%Y-%m-%d %H:%M:%S", past),
        time.strftime("%Y-%m-%dT%H:%M:%S", past),
        time.strftime("%Y-%m-%dT%H:%M:%S.123456", past),
        time.strftime("%Y-%m-%dT%H:%M:%SZ", past),
        time.strftime("%Y-%m-%d %H:%M:%S+00:00", past),
        # Two hours east of UTC this wall clock was an hour ago.
        time.strftime("%Y-%m-%dT%H:%M:%S+02:00", time.gmtime(now + 3600)),
        int(now - 3600),
        now - 0.5,
        int((now - 3600) * 1000),
    ]
    kept = [
        time.strftime("%Y-%m-%d %H:%M:%S", future),
        time.strftime("%Y-%m-%dT%H:%M:%S.123456Z", future),
        time.strftime("%Y-%m-%dT%H:%M:%S-02:00", past),
        int(now + 3600),
        int((now + 3600) * 1000),
        None,
        "when hell freezes over",
        "",
        # SQLite would read these as times of the day, or as days since 4714 BC.
        "0",
        "2024",
        "12:30",
    ]
    sqlite.execute("CREATE TABLE access_tokens (expires_at)")
    sqlite.executemany("INSERT INTO access_tokens VALUES (?)", [(one,) for one in gone + kept])
    row = run("cleanup-expired-tokens")
    assert row.status is Status.SUCCEEDED
    assert [one for (one,) in sqlite.execute("SELECT expires_at FROM access_tokens")] == kept
    assert "There is no table oauth_sessions; skipped it" in row.output


def test_sessions_older_than_five_minutes_go_in_batches_on_sqlite(
    run: Any, sqlite: sqlite3.Connection
) -> None:
    sqlite.execute("CREATE TABLE OAuth_Sessions (created_at INTEGER)")
    now = int(time.time())
    rows = [(now - 400,)] * 20_001 + [(now - 200,)] * 5
    sqlite.execute("BEGIN")
    sqlite.executemany("INSERT INTO oauth_sessions VALUES (?)", rows)
    sqlite.execute("COMMIT")
    row = run("cleanup-expired-tokens")
    assert str(row.progress_made) == "20,001 rows"
    assert sqlite.execute("SELECT count(*) FROM oauth_sessions").fetchall() == [(5,)]


def test_vacuum_makes_an_sqlite_file_smaller(run: Any, sqlite: sqlite3.Connection) -> None:
    sqlite.execute("CREATE TABLE filler (text)")
    sqlite.execute("INSERT INTO filler SELECT zeroblob(1000000)")
    sqlite.execute("DELETE FROM filler")
    before = sqlite.execute("PRAGMA page_count").fetchone()[0]
    row = run("database-vacuum")
    assert row.status is Status.SUCCEEDED
    assert sqlite.execute("PRAGMA page_count").fetchone()[0] < before / 10
    assert str(row.progress_made) == "2 of 2 statements"


def test_vacuum_gives_the_planner_of_sqlite_its_statistics(
    run: Any, sqlite: sqlite3.Connection
) -> None:
    sqlite.execute("CREATE TABLE words (word)")
    sqlite.execute("CREATE INDEX by_word ON words (word)")
    sqlite.executemany("INSERT INTO words VALUES (?)", [("a",), ("b",), ("b",), ("b",)])
    assert run("database-vacuum").status is Status.SUCCEEDED
    statistics = "SELECT tbl, idx, stat FROM sqlite_stat1"
    assert sqlite.execute(statistics).fetchall() == [("words", "by_word", "4 2")]


# What DATABASE_URL may be.


@pytest.mark.parametrize("around", ["{}\n", " {} ", '"{}"', "'{}'\r\n", "\" '{}' \"", "\t{}\n\n"])
def test_blanks_quotes_and_line_ends_round_a_variable_are_nobodys(
    run: Any,
    logs: Path,
    sqlite: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    around: str,
) -> None:
    monkeypatch.setenv("DATABASE_URL", around.format(os.environ["DATABASE_URL"]))
    assert run("database-vacuum").status is Status.SUCCEEDED
    for name, value in (("DIRECTORY", logs), ("RETENTION_DAYS", 2), ("PATTERNS", "*.out")):
        monkeypatch.setenv(f"LOG_{name}", around.format(value))
    write(logs / "old.out", 3)
    assert run("cleanup-old-logs").status is Status.SUCCEEDED
    assert names(logs) == set()


def test_postgres_is_known_by_each_of_its_schemes_and_frameworks_parameters_are_theirs(
    run: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["DATABASE_URL"].partition("://")[2]
    theirs = "pool_size=5&CONN_MAX_AGE=60&conn_health_checks=True&charset=utf8&ssl=false&pool=5"
    ours = "application_name=shop&sslmode=prefer&options=-csearch_path%3Dshop"
    postgres("CREATE SCHEMA shop")
    postgres("CREATE TABLE shop.oauth_sessions (created_at timestamp)")
    schemes = "postgres postgresql POSTGRES postgis PostgreSQL+psycopg postgresql+asyncpg"
    for scheme in schemes.split():
        monkeypatch.setenv("DATABASE_URL", f"{scheme}://{url}&{theirs}&{ours}")
        postgres("INSERT INTO shop.oauth_sessions VALUES ('2020-01-01')")
        assert run("cleanup-expired-tokens").status is Status.SUCCEEDED
        assert postgres("SELECT count(*) FROM shop.oauth_sessions") == [(0,)]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("shop:secret@db/shop", {"password": "secret", "host": "db", "dbname": "shop"}),
        ("shop:s%40c%25%20@db:5433/shop", {"password": "s@c% ", "port": "5433"}),
        ("shop:s@c:r/e#%zz 1@db:5433/shop", {"password": "s@c:r/e#%zz 1", "host": "db"}),
        ("shop:s%3Fx@db/shop?sslmode=require", {"password": "s?x", "sslmode": "require"}),
        ("db/shop?user=a%40b", {"host": "db", "user": "a@b"}),
        ("a:1,[::1]:2,c/shop", {"host": "a,::1,c", "port": "1,2,"}),
        ("u@%2Fvar%2Frun/shop", {"host": "/var/run", "dbname": "shop"}),
        ("u@/shop?host=/cloudsql/p:r:i", {"host": "/cloudsql/p:r:i", "dbname": "shop"}),
        ("u@db/shop?ssl_require=True", {"sslmode": "require"}),
        ("u@db/shop?ssl=verify-full&sslrootcert=x", {"sslmode": "verify-full"}),
        ("u@db/shop?ssl=true&sslmode=verify-ca", {"sslmode": "verify-ca"}),
        ("u@db/shop?sslmode=verify-ca&ssl=true", {"sslmode": "verify-ca"}),
        ("u@db/shop?ssl=false&ssl_require=False", {"sslmode": None}),
        ("/shop", {"dbname": "shop"}),
    ],
)
def test_each_part_of_an_address_is_what_its_writer_meant(
    rest: str, expected: dict[str, str | None]
) -> None:
    found = module("_database").postgres_parameters(rest)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    "password", ["ge%heim", "ge heim", "ge@heim", "ge#heim", "ge/heim", "ge?heim", "ge@?heim"]
)
@pytest.mark.parametrize(
    "place", ["127.0.0.1:1/app", "127.0.0.1:x/app", "nowhere.invalid/app", "", "/app?port=x"]
)
def test_no_part_of_a_password_is_in_any_message(
    run: Any, monkeypatch: pytest.MonkeyPatch, password: str, place: str
) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("DATABASE_URL", f"postgres://someone:{password}@{place}")
    row = run("database-vacuum")
    assert row.status is Status.FAILED
    told = row.note + row.error + row.output
    assert "heim" not in told
    assert "ge%" not in told


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "MariaDB", "oracle", "mssql+pyodbc"])
def test_another_kind_of_database_is_nothing_to_do(
    run: Any, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://root:geheim@host/db")
    row = run("cleanup-expired-tokens")
    kind = scheme.lower().partition("+")[0]
    text = f"DATABASE_URL names {kind}, and only PostgreSQL and SQLite are known here"
    assert (row.status, row.note) == (Status.SKIPPED, text)


@pytest.mark.parametrize(
    "form", ["sqlite+pysqlite:///{}", "SQLite:///{}?timeout=15", "sqlite+aiosqlite:///file:{}"]
)
def test_sqlite_is_known_by_each_of_its_schemes(
    run: Any, sqlite: sqlite3.Connection, tmp_path: Path, monkeypatch, form: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", form.format(tmp_path / "with space & %41.db"))
    assert run("database-vacuum").status is Status.SUCCEEDED


def test_a_relative_sqlite_file_is_found_where_flask_sqlalchemy_has_it(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    monkeypatch.chdir(tmp_path)
    app = Flask(__name__, root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///app.db"
    database = SQLAlchemy(app)
    with app.app_context(), database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE oauth_sessions (created_at)")
        connection.exec_driver_sql("INSERT INTO oauth_sessions VALUES (1)")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///app.db")
    assert run("cleanup-expired-tokens").status is Status.SUCCEEDED
    with app.app_context(), database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT * FROM oauth_sessions").all() == []
    # One of an earlier Flask-SQLAlchemy, beside it: which is the application's?
    (tmp_path / "app.db").touch()
    row = run("cleanup-expired-tokens")
    assert row.status is Status.FAILED
    assert f"may mean {tmp_path}/app.db and {tmp_path}/instance/app.db; write" in row.note


# Rows that others refer to.


class Shop:
    """A database with tokens, that speaks both dialects."""

    def __init__(self, execute: Callable[[str], list[Any]]) -> None:
        self.execute = execute

    def tokens(self, *ids: int) -> None:
        self.execute("CREATE TABLE access_tokens (id INTEGER PRIMARY KEY, expires_at TIMESTAMP)")
        rows = ", ".join(f"({number}, '2020-01-01 00:00:00')" for number in ids)
        self.execute(f"INSERT INTO access_tokens VALUES {rows}")

    def ids(self, table: str = "access_tokens") -> list[int]:
        return [row[0] for row in self.execute(f"SELECT id FROM {table} ORDER BY id")]


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: Any) -> Shop:
    if request.param == "postgres":
        return Shop(request.getfixturevalue("postgres"))
    connection = request.getfixturevalue("sqlite")
    connection.execute("PRAGMA foreign_keys = ON")
    return Shop(lambda sql: list(connection.execute(sql).fetchall()))


@pytest.fixture
def note_of(make: Any) -> Callable[[hk.Task], object]:
    """Run a task by hand, and return what its function returned."""

    def run_task(task: hk.Task) -> object:
        notes: list[object] = []
        housekeeper = make()
        assert task.run is not None
        function = task.run
        housekeeper.register_task(hk.Task(task.name, lambda: notes.append(function())))
        housekeeper.run_task_manually(task.name)
        return notes[0]

    return run_task


REFERENCES = {
    "ON DELETE CASCADE": ([], [2], "deleted 3 tokens"),
    "ON DELETE SET NULL": ([], [1, 2], "deleted 3 tokens"),
    "ON DELETE RESTRICT": ([2], [1, 2], "deleted 2 tokens; kept 1 token that could not go"),
    "": ([2], [1, 2], "deleted 2 tokens; kept 1 token that could not go"),
    # As Django writes it.
    "DEFERRABLE INITIALLY DEFERRED": (
        [2], [1, 2], "deleted 2 tokens; kept 1 token that could not go"
    ),
}  # fmt: skip


def test_rows_that_others_refer_to_go_or_stay_as_their_keys_say(shop: Shop, note_of: Any) -> None:
    for action, named in itertools.product(REFERENCES, ("(id)", "")):
        shop.tokens(1, 2, 3)
        column = f'"the token" INTEGER REFERENCES access_tokens {named} {action}'
        shop.execute(f'CREATE TABLE "refresh tokens" (id INTEGER, {column})')
        shop.execute('INSERT INTO "refresh tokens" VALUES (1, 2), (2, NULL)')
        note = note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
        assert (shop.ids(), shop.ids('"refresh tokens"'), note) == REFERENCES[action], action
        shop.execute('DROP TABLE "refresh tokens"')
        shop.execute("DROP TABLE access_tokens")


def test_many_rows_that_others_refer_to_do_not_keep_the_rest_from_going(
    shop: Shop, note_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("cleanup_expired_tokens"), "BATCH", 10)
    shop.tokens(*range(300))
    shop.execute("CREATE TABLE refresh (token INTEGER NOT NULL REFERENCES access_tokens (id))")
    rows = ", ".join(f"({number})" for number in range(250))
    shop.execute(f"INSERT INTO refresh VALUES {rows}")
    note = note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
    assert note == "deleted 50 tokens; kept 250 tokens that could not go"
    assert shop.ids() == list(range(250))


def test_a_row_that_refuses_for_a_reason_far_away_stays_and_the_others_go(
    shop: Shop, note_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shop.tokens(*range(100))
    cascading = "token INTEGER REFERENCES access_tokens (id) ON DELETE CASCADE"
    shop.execute(f"CREATE TABLE refresh (id INTEGER PRIMARY KEY, {cascading})")
    shop.execute("CREATE TABLE audit (refresh INTEGER REFERENCES refresh (id))")
    shop.execute("INSERT INTO refresh VALUES (1, 30), (2, 31), (3, 70)")
    shop.execute("INSERT INTO audit VALUES (1), (3)")
    note = note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
    assert note == "deleted 98 tokens; kept 2 tokens that could not go"
    assert (shop.ids(), shop.ids("refresh")) == ([30, 70], [1, 3])
    assert re.search("Table access_tokens: a row stays: .*(?i:foreign key)", caplog.text)


REFUSALS = {
    "abort": "SELECT RAISE(ABORT, 'kept by law')",
    "fail": "SELECT RAISE(FAIL, 'kept by law')",
    "rollback": "SELECT RAISE(ROLLBACK, 'kept by law')",
    "silently": "SELECT RAISE(IGNORE)",
    "raise": "RAISE EXCEPTION 'kept by law'",
    "with a code": "RAISE EXCEPTION 'kept by law' USING ERRCODE = 'HK001'",
    "divide": "RETURN OLD.id / (OLD.id - OLD.id)",
    "return null": "RETURN NULL",
}
IN_SQLITE = "CREATE TRIGGER law BEFORE DELETE ON {0} WHEN OLD.id % 40 = 7 BEGIN {1}; END"
IN_POSTGRES = """
    CREATE FUNCTION law() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF OLD.id % 40 = 7 THEN {1}; END IF; RETURN OLD; END $$;
    CREATE TRIGGER law BEFORE DELETE ON {0} FOR EACH ROW EXECUTE FUNCTION law()"""


@pytest.mark.parametrize("of", ["access_tokens", "refresh"])
@pytest.mark.parametrize(
    ("shop", "how"),
    [("sqlite" if "RAISE(" in REFUSALS[how] else "postgres", how) for how in REFUSALS],
    indirect=["shop"],
)
def test_rows_that_a_trigger_refuses_stay_and_are_counted_and_the_others_go(
    shop: Shop, note_of: Any, monkeypatch: pytest.MonkeyPatch, how: str, of: str
) -> None:
    """Also by the trigger of a table whose rows go with them."""
    monkeypatch.setattr(module("cleanup_expired_tokens"), "BATCH", 3)
    shop.tokens(*range(100))
    cascading = "INTEGER PRIMARY KEY REFERENCES access_tokens (id) ON DELETE CASCADE"
    shop.execute(f"CREATE TABLE refresh (id {cascading})")
    shop.execute("INSERT INTO refresh SELECT id FROM access_tokens")
    trigger = IN_SQLITE if "RAISE(" in REFUSALS[how] else IN_POSTGRES
    shop.execute(trigger.format(of, REFUSALS[how]))
    note = note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
    if of == "refresh" and how == "return null":
        # PostgreSQL lets such a trigger break the reference; that is in its manual.
        assert (shop.ids(), shop.ids("refresh")) == ([], [7, 47, 87])
        return
    assert note == "deleted 97 tokens; kept 3 tokens that could not go"
    assert shop.ids() == shop.ids("refresh") == [7, 47, 87]


def test_a_row_whose_child_goes_with_a_later_batch_goes_as_well(
    shop: Shop, note_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("cleanup_expired_tokens"), "BATCH", 2)
    shop.tokens(1, 2, 3, 4)
    parent = "parent INTEGER REFERENCES access_tokens (id)"
    shop.execute(f"ALTER TABLE access_tokens ADD COLUMN {parent}")
    shop.execute("UPDATE access_tokens SET parent = id - 2 WHERE id > 2")
    note = note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
    assert (note, shop.ids()) == ("deleted 4 tokens", [])


def test_a_trigger_that_is_broken_fails_the_run_with_its_words(shop: Shop, note_of: Any) -> None:
    shop.tokens(1)
    broken = "INSERT INTO nowhere VALUES (1)"
    trigger = IN_SQLITE if "sqlite" in os.environ["DATABASE_URL"] else IN_POSTGRES
    shop.execute(trigger.replace("OLD.id % 40 = 7", "1 = 1").format("access_tokens", broken))
    with pytest.raises((sqlite3.OperationalError, psycopg2.ProgrammingError), match="nowhere"):
        note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
    assert shop.ids() == [1]


def test_a_key_of_several_columns_and_one_to_the_table_itself_are_understood(
    shop: Shop, note_of: Any
) -> None:
    shop.execute(
        "CREATE TABLE access_tokens (id INTEGER, b INTEGER, expires_at TIMESTAMP,"
        " parent INTEGER, PRIMARY KEY (id, b), UNIQUE (id), UNIQUE (b, id),"
        " FOREIGN KEY (parent) REFERENCES access_tokens (id))"
    )
    shop.execute(
        "CREATE TABLE refresh (two INTEGER, one INTEGER,"
        " FOREIGN KEY (two, one) REFERENCES access_tokens (b, id))"
    )
    for number, parent in ((1, "NULL"), (2, "1"), (3, "2"), (4, "NULL")):
        shop.execute(f"INSERT INTO access_tokens VALUES ({number}, 7, '2020-01-01', {parent})")
    shop.execute("INSERT INTO refresh VALUES (7, 4), (7, NULL)")
    note = note_of(module("cleanup_expired_tokens").cleanup_expired_tokens)
    assert note == "deleted 3 tokens; kept 1 token that could not go"
    assert shop.ids() == [4]


def test_what_the_tasks_did_is_their_note(
    shop: Shop, note_of: Any, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.tokens(1)
    shop.execute("CREATE TABLE oauth_sessions (created_at TIMESTAMP)")
    shop.execute("INSERT INTO oauth_sessions VALUES ('2020-01-01'), ('2020-01-02')")
    tokens = module("cleanup_expired_tokens").cleanup_expired_tokens
    assert note_of(tokens) == "deleted 1 token and 2 sessions"
    assert note_of(tokens) == "deleted 0 tokens and 0 sessions"
    vacuum = str(note_of(module("database_vacuum").database_vacuum))
    assert re.fullmatch("vacuumed 2 of 2 tables|[0-9,]+ bytes before, [0-9,]+ after", vacuum)
    write(logs / "old.log", 31)
    write(logs / "new.log", 1)
    note = note_of(module("cleanup_old_logs").cleanup_old_logs)
    assert note == "deleted 1 of 2 log files, 7 bytes"


# Old logs.


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setenv("LOG_DIRECTORY", str(folder))
    return folder


def write(path: Path, days: float) -> Path:
    path.write_text("a line\n")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_old_logs_go_and_everything_else_stays(run: Any, logs: Path, tmp_path: Path) -> None:
    for name in ("app.log", "app.log.1", "app.log.2.gz", "error.LOG", ".hidden.log", "notes.txt"):
        write(logs / name, 31)
    write(logs / "young.log", 29)
    outside = write(tmp_path / "outside.log", 99)
    (logs / "link.log").symlink_to(outside)
    (logs / "folder.log").mkdir()
    write(logs / "folder.log" / "inner.log", 99)
    os.mkfifo(logs / "pipe.log")
    for special in ("folder.log", "pipe.log"):
        os.utime(logs / special, (0, 0))
    row = run("cleanup-old-logs")
    assert row.status is Status.SUCCEEDED
    assert names(logs) == {
        "error.LOG", ".hidden.log", "notes.txt", "young.log", "link.log", "folder.log", "pipe.log"
    }  # fmt: skip
    assert names(logs / "folder.log") == {"inner.log"}
    assert outside.exists()
    assert f"Deleted 3 of 4 log files, 21 bytes, in {logs}" in row.output
    assert str(row.progress_made) == "4 of 4 files"


def test_retention_and_patterns_are_settings(run: Any, logs: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOG_RETENTION_DAYS", "2")
    monkeypatch.setenv("LOG_PATTERNS", " *.out, audit-?.txt ,")
    for name in ("a.out", "audit-1.txt", "audit-12.txt", "a.log"):
        write(logs / name, 3)
    write(logs / "b.out", 1)
    assert run("cleanup-old-logs").status is Status.SUCCEEDED
    assert names(logs) == {"b.out", "audit-12.txt", "a.log"}


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "thirty", "30 days", "1e3", "٣", "9" * 400])
def test_a_retention_that_is_no_whole_number_of_days_deletes_nothing(
    run: Any, logs: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LOG_RETENTION_DAYS", text)
    write(logs / "old.log", 9999)
    row = run("cleanup-old-logs")
    assert row.status is Status.FAILED
    assert f"LOG_RETENTION_DAYS={text[:50]}" in row.note.replace("'", "")
    assert names(logs) == {"old.log"}


@pytest.mark.parametrize("text", [",", "../*.log", "*.log,/etc/*"])
def test_patterns_that_are_no_file_names_delete_nothing(
    run: Any, logs: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LOG_PATTERNS", text)
    write(logs / "old.log", 9999)
    assert run("cleanup-old-logs").status is Status.FAILED
    assert names(logs) == {"old.log"}


@pytest.mark.parametrize("way", ["itself", "through ..", "through a symlink"])
@pytest.mark.parametrize("place", ["/", "home", "passwd", "housekeeper"])
def test_a_folder_to_keep_away_from_is_refused_by_whatever_path(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, way: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    folders = {"/": "/", "home": home, "passwd": "/root", "housekeeper": TASKS.parent}
    folder = Path(folders[place])
    if way == "through ..":
        folder = folder / "x" / ".." if place == "/" else folder / ".." / folder.name
    elif way == "through a symlink":
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    monkeypatch.setenv("LOG_DIRECTORY", str(folder))
    monkeypatch.setenv("LOG_PATTERNS", "no file has this name")
    row = run("cleanup-old-logs")
    assert row.status is Status.FAILED
    assert "name a folder that holds only logs" in row.note


def test_a_user_whose_home_nobody_knows_can_clean_logs(
    run: Any, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    write(logs / "old.log", 31)
    assert run("cleanup-old-logs").status is Status.SUCCEEDED
    assert names(logs) == set()


def test_a_log_folder_that_is_a_file_fails(run: Any, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LOG_DIRECTORY", str(write(tmp_path / "app.log", 99)))
    row = run("cleanup-old-logs")
    assert (row.status, "is not a folder" in row.note) == (Status.FAILED, True)
    assert (tmp_path / "app.log").exists()


def test_one_file_that_cannot_be_deleted_does_not_stop_the_rest_and_is_named(
    run: Any, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.log", "b.log", "c.log", "gone.log"):
        write(logs / name, 99)
    unlink = Path.unlink

    def refuse_one(path: Path, missing_ok: bool = False) -> None:
        # Root is refused nothing; this stands for an immutable file, and one that vanished.
        if path.name == "b.log":
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok)
        if path.name == "gone.log":
            raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "unlink", refuse_one)
    row = run("cleanup-old-logs")
    assert row.status is Status.FAILED
    assert f"1 files in {logs} stayed: b.log (Operation not permitted)" in row.note
    assert names(logs) == {"b.log"}


def test_each_host_cleans_its_own_logs() -> None:
    assert module("cleanup_old_logs").cleanup_old_logs.each_host is True


def test_the_server_of_these_tests_is_real(postgres_server: PostgresServer) -> None:
    assert "PostgreSQL" in postgres_server.execute("SELECT version()")[0][0]
