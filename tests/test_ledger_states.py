"""What may happen to a ledger while it is used; each is provoked for real, and comes to its end.

Whatever it is: no tick is run twice, none is lost without a row as long as the rows are there, and
within 30 s of the end the ticks go on by themselves.  What is told meanwhile is asked for in
test_told.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import housekeeper as hk
from housekeeper import Claim, ConfigurationError, LedgerUnavailable, Status, Task
from tests.accounting import assert_accounted, assert_ran_once
from tests.environment import environment
from tests.postgres import PostgresServer
from tests.test_ledgers import by_hand, ordinary_user, sqlite_at
from tests.test_outages import (
    EVERY_SECOND,
    Ticks,
    _impatient,
    eventually,
    settled,
    ticks,
)

__all__ = ["_impatient", "ticks"]

TABLES = ", ".join(hk.TABLES)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


class Place:
    """A ledger, and what can be done to it behind a Housekeeper's back."""

    def __init__(self, url: str, server: PostgresServer | None = None) -> None:
        self.url = url
        self.server = server
        self.path = Path(url.partition("///")[2])
        self.database = urlsplit(url).path.strip("/")

    def execute(self, sql: str) -> list[Any]:
        """Do something in its PostgreSQL."""
        assert self.server is not None
        return self.server.execute(sql, self.database)

    def change(self, sql: str) -> None:
        """Do something to its tables by hand."""
        if self.server is not None:
            self.execute(sql)
            return
        connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None)
        connection.executescript(f"BEGIN IMMEDIATE; {sql}; COMMIT")
        connection.close()

    def limited(self) -> str:
        """Make the tables, and a role that may use them; return its URL."""
        role = f"limited_{self.database}"
        self.execute(f"CREATE ROLE {role} LOGIN")
        self.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        open_ledger(self).close()
        self.execute(f"GRANT ALL ON {TABLES} TO {role}")
        self.url = self.url.replace("postgres:@", f"{role}:@", 1)
        return self.url

    def end_sessions(self) -> None:
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self.database}' AND pid <> pg_backend_pid()"
        )

    @property
    def files(self) -> list[Path]:
        return [self.path, *(Path(f"{self.path}-{end}") for end in ("wal", "shm"))]


def open_ledger(place: Place) -> Any:
    ledger = hk.ledger_from_url(place.url, Path("/"), hk.SystemClock())
    ledger.open()
    return ledger


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    folder = tmp_path / "folder"
    folder.mkdir()
    return Place(f"sqlite:///{folder}/ledger.db")


@pytest.fixture
def postgres_place(postgres_url: str, postgres_server: PostgresServer) -> Place:
    name = "state_" + urlsplit(postgres_url).path.strip("/")
    postgres_server.execute(f"CREATE DATABASE {name}")
    return Place(postgres_server.url(name), postgres_server)


def write_until_full(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 512):
            pass


@contextmanager
def small_disk(place: Place) -> Iterator[Callable[[], None]]:
    """Put the ledger on a disk of 1 MiB; yield what fills it, and empty it at the end."""
    folder = place.path.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)

    def fill() -> None:
        write_until_full(folder / "filler")

    try:
        yield fill
        (folder / "filler").unlink(missing_ok=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# States in which nothing can be claimed, until they end.  Rows that were there stay.


@contextmanager
def full_disk(place: Place) -> Iterator[None]:
    filler = place.path.parent / "filler"
    write_until_full(filler)
    yield
    filler.unlink()


@contextmanager
def folder_gone(place: Place) -> Iterator[None]:
    aside = place.path.parent.with_name("aside")
    place.path.parent.rename(aside)
    yield
    aside.rename(place.path.parent)


@contextmanager
def moved_away(place: Place) -> Iterator[None]:
    aside = place.path.with_name("aside.db")
    place.path.rename(aside)
    yield
    aside.rename(place.path)


@contextmanager
def read_only(place: Place) -> Iterator[None]:
    name = place.database
    place.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    place.end_sessions()
    yield
    assert place.server is not None  # another database is not read-only
    place.server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@contextmanager
def renamed_database(place: Place) -> Iterator[None]:
    server, name = place.server, place.database
    assert server is not None
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    yield
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@contextmanager
def rights_revoked(place: Place) -> Iterator[None]:
    role = place.url.partition("//")[2].partition(":")[0]
    place.execute(f"REVOKE ALL ON {TABLES} FROM {role}")
    yield
    place.execute(f"GRANT ALL ON {TABLES} TO {role}")


@needs_root
def test_a_disk_that_is_full_at_the_start_keeps_nobody_from_starting_and_is_got_over(
    make: Any, ticks: Ticks, sqlite_place: Place
) -> None:
    with small_disk(sqlite_place) as fill:
        fill()
        housekeeper = make(ticks.task(), ledger=sqlite_place.url)
        assert housekeeper.health()["status"] == "critical"
        assert not ticks.seen
        (sqlite_place.path.parent / "filler").unlink()
        ticks.wait_for_more(2)
        rows = settled(housekeeper)
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)


# States in which rows are lost: what is on record afterwards is whole, and nothing ran twice.


def truncated(place: Place) -> None:
    os.truncate(place.path, 0)


def replaced_by_a_backup(place: Place) -> None:
    """Put an older copy in its place; the log of the newer one stays behind."""
    backup = place.path.with_name("backup.db")
    with sqlite3.connect(place.path) as connection:
        connection.execute(f"VACUUM INTO '{backup}'")
    connection.close()
    backup.replace(place.path)


def tables_dropped(place: Place) -> None:
    place.change("; ".join(f"DROP TABLE {name}" for name in hk.TABLES))


def tables_emptied(place: Place) -> None:
    place.change("; ".join(f"DELETE FROM {name}" for name in hk.TABLES))


def test_a_deleted_file_is_an_error_until_a_new_process_makes_another_and_nothing_runs_twice(
    make: Any, ticks: Ticks, sqlite_place: Place
) -> None:
    housekeeper = make(ticks.task(), ledger=sqlite_place.url)
    ticks.wait_for_more(2)
    for file in sqlite_place.files:
        file.unlink(missing_ok=True)
    eventually(lambda: ticks.failed, "a claim that fails")
    assert housekeeper.health()["status"] == "critical"
    assert not sqlite_place.path.exists(), "the old process has made another file"
    other = make(ticks.task(), ledger=sqlite_place.url)
    ticks.wait_for_more(4)
    eventually(lambda: housekeeper.health()["ledger"]["reachable"], "the new file")
    settled(other)
    ticks.wait_for_more(2)
    rows = settled(housekeeper)
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert len(set(ticks.seen)) == len(ticks.seen), "a tick was run twice"


# What a kept connection may have become.


def test_a_connection_that_was_closed_while_it_was_idle_is_noticed_by_nobody(
    make: Any, postgres_place: Place
) -> None:
    housekeeper = make(Task("by-hand", lambda: None), ledger=postgres_place.url)
    calls: list[Callable[[], object]] = [
        housekeeper.history,
        housekeeper.list_tasks,
        lambda: housekeeper.run_task_manually("by-hand"),
        lambda: housekeeper.get_task_status("by-hand"),
        housekeeper.health,
        housekeeper.ledger.exists,
        lambda: housekeeper.pause_task("by-hand"),
    ]
    for call in calls:
        postgres_place.end_sessions()
        call()
        assert housekeeper.list_tasks()[0]["source"] == "ledger"
    assert housekeeper.ledger.failures == 0


def test_calls_that_were_given_up_leave_no_sessions_that_wait_for_a_lock(
    postgres_place: Place, postgres_server: PostgresServer
) -> None:
    import psycopg2

    ledger = open_ledger(postgres_place)
    with contextlib.closing(psycopg2.connect(postgres_place.url)) as other:
        other.cursor().execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE")
        for number in range(3):
            with hk.ledger_calls_within(0.3), pytest.raises(LedgerUnavailable):
                ledger.claim(by_hand(f"/{number}"))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            f" AND datname = '{postgres_place.database}'"
        )
        assert postgres_server.execute(waiting) != [(0,)]
        eventually(lambda: postgres_server.execute(waiting) == [(0,)], "an end of the waiting")
    assert ledger.runs() == []
    ledger.close()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_stricter_isolation_by_default_loses_claims_in_silence(
    make: Any, ticks: Ticks, postgres_place: Place, isolation: str
) -> None:
    name = postgres_place.database
    postgres_place.execute(
        f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
    )
    crew = [make(ticks.task(), ledger=postgres_place.url) for _ in range(4)]
    ticks.wait_for_more(5)
    assert sum(each.ledger.failures for each in crew) == 0
    for housekeeper in crew[1:]:
        settled(housekeeper)
    rows = settled(crew[0])
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252"])
def test_what_a_databases_encoding_has_not_is_stored_with_escapes(
    make: Any, postgres_server: PostgresServer, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    postgres_server.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        " TEMPLATE template0"
    )

    def work() -> None:
        hk.current_run().progress(1, 2, "→")
        logging.getLogger("shop").warning("é → /backup")
        raise ValueError("日本 🧹 é")

    housekeeper = make(Task("copy", work), ledger=postgres_server.url(name))
    with pytest.raises(ValueError, match="日本"):
        housekeeper.run_task_manually("copy")
    (row,) = housekeeper.history()
    assert row.status is Status.FAILED
    assert "ValueError: \\u65e5\\u672c \\U0001f9f9" in row.note
    assert "\\u2192 /backup" in row.output
    assert housekeeper.ledger.failures == 0


SILENT_NAMES = """
import json, os, socket, sys, threading, time
silent = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for number, each in enumerate(silent):
    each.bind((f"127.0.0.{52 + number}", 53))
import housekeeper as hk
gaps, over = [], threading.Event()
def watch():
    while not over.is_set():
        began = time.monotonic()
        over.wait(0.02)
        gaps.append(time.monotonic() - began)
threading.Thread(target=watch, daemon=True).start()
ledger = hk.ledger_from_url("postgresql://shop@db.shop.internal/shop", None, hk.SystemClock())
began = time.monotonic()
try:
    with hk.ledger_calls_within(2.0):
        ledger.open()
except hk.LedgerUnavailable as error:
    said, took = str(error), time.monotonic() - began
embedded = hk.create_housekeeper(ledger="postgresql://shop@db.shop.internal/shop", tasks_dir=None)
began = time.monotonic()
embedded.initialize()
started = time.monotonic() - began
status = embedded.health()["status"]
asked = time.monotonic() - began - started
print(json.dumps([said, took, started, max(gaps), status, asked]))
os._exit(0)
"""


@needs_root
def test_a_silent_name_server_stops_neither_a_call_nor_the_other_threads(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.52\nnameserver 127.0.0.53\n")
    bind = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "$@"'
    command = ["unshare", "-m", "-n", "sh", "-c", f"ip link set lo up; {bind}", "sh"]
    asked = subprocess.run(
        [*command, sys.executable, "-c", SILENT_NAMES],
        env=environment(PYTHONPATH=str(Path(hk.__file__).parent)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.stdout, asked.stderr
    said, took, started, gap, status, answered = json.loads(asked.stdout)
    assert "no name server told the address of 'db.shop.internal'" in said
    assert took < 5.0
    assert started < 5.0, "an application waits 2 s for its ledger"
    assert status == "critical"
    assert answered < 5.0, "health answers within 2 s"
    assert gap < 3.0


# Rights, links, passwords.


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach and change, as those of `tmp_path` are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_file_whose_rights_are_taken_away_is_used_again_when_they_are_back(
    open_folder: Path,
) -> None:
    file = open_folder / "ledger.db"
    with ordinary_user():
        ledger = sqlite_at(file)
        assert ledger.claim(by_hand("/one")) is Claim.MINE
        ledger.close()
        file.chmod(0)
        with pytest.raises(LedgerUnavailable):
            ledger.claim(by_hand("/two"))
        file.chmod(0o600)
        assert ledger.claim(by_hand("/two")) is Claim.MINE
        ledger.close()


def test_a_ledger_whose_folder_may_not_be_entered_is_not_told_to_be_missing(
    open_folder: Path,
) -> None:
    file = open_folder / "ledger.db"
    with ordinary_user():
        ledger = sqlite_at(file)
        ledger.open()
    open_folder.chmod(0)
    with ordinary_user():
        for each in (ledger, sqlite_at(file)):
            with pytest.raises(ConfigurationError, match="Permission denied"):
                each.exists()
    open_folder.chmod(0o777)
    with ordinary_user():
        assert ledger.exists()
        ledger.close()


def test_a_ledger_that_is_a_link_is_as_private_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "ledger.db").symlink_to(tmp_path / "there" / "real.db")
    before = os.umask(0)
    try:
        ledger = sqlite_at(tmp_path / "ledger.db")
        assert ledger.claim(by_hand()) is Claim.MINE
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "there").iterdir()}
    assert modes == dict.fromkeys(("real.db", "real.db-wal", "real.db-shm"), 0o600)
    ledger.close()


def test_a_link_that_leads_elsewhere_is_followed_and_leaves_the_old_file_whole(
    tmp_path: Path,
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    link.symlink_to("old")
    ledger, other = sqlite_at(link / "ledger.db"), sqlite_at(tmp_path / "old" / "ledger.db")
    assert ledger.claim(by_hand("/before")) is Claim.MINE
    assert len(other.runs()) == 1
    (tmp_path / "next").symlink_to("new")
    sqlite_at(tmp_path / "new" / "ledger.db").open()
    (tmp_path / "next").replace(link)
    assert ledger.claim(by_hand("/after")) is Claim.MINE
    assert [run.key for run in ledger.runs()] == ["/after"]
    assert other.claim(by_hand("/other")) is Claim.MINE
    assert {run.key for run in other.runs()} == {"/before", "/other"}
    ledger.close()
    other.close()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///ledger.db?timeout=15"])
def test_what_sqlalchemy_understands_and_a_ledger_does_not_is_refused(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError):
        hk.ledger_from_url(url, tmp_path, hk.SystemClock())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("special", [*"% @#/?:&=", "%zz", "\n"])
@pytest.mark.parametrize("user", ["shop", ""])
def test_no_part_of_a_password_is_in_a_message(special: str, user: str, tmp_path: Path) -> None:
    password = f"s3cret{special}hidden{special}w0rd"
    said = []
    for url in (
        f"postgresql://{user}:{password}@/db?host={tmp_path}",
        f"postgresql://{user}:{password}@127.0.0.1:1/db",
        f"postgresql:///db?host={tmp_path}&password={password}",
        f"mysql://{user}:{password}@db/shop",
    ):
        try:
            ledger = hk.ledger_from_url(url, tmp_path, hk.SystemClock())
            said.append(ledger.url)
            ledger.open()
        except (ConfigurationError, LedgerUnavailable) as error:
            said += [str(error), str(error.__cause__)]
    assert len(said) >= 8
    for part in ("s3cret", "hidden", "w0rd"):
        assert part not in "\n".join(said)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db:5432/app?application_name=me@here",
        "postgresql://shop@db/app?application_name=me@here",
        "postgresql://shop:s3cret@db:5432,other:5433/app",
        "postgresql://shop:s3%2Fcret%40@db/app",
    ],
)
def test_urls_that_are_well_formed_are_taken(url: str, tmp_path: Path) -> None:
    assert "s3" not in hk.ledger_from_url(url, tmp_path, hk.SystemClock()).url


# Versions of the tables.


@pytest.fixture(params=["sqlite", "postgres"])
def old_url(request: Any, tmp_path: Path) -> str:
    """A ledger that Housekeeper 0.1.0 has left."""
    script = (Path(__file__).parent / "ledger-0.1.0.sql").read_text()
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        url = str(request.getfixturevalue("postgres_url"))
        database = urlsplit(url).path.strip("/")
        server.execute(script.replace("{instant}", "TIMESTAMPTZ"), database)
        return url
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.executescript(script.replace("{instant}", "TEXT"))
    connection.close()
    return f"sqlite:///{tmp_path}/ledger.db"


def test_a_ledger_of_0_1_0_is_brought_up_to_date_with_all_that_is_in_it(old_url: str) -> None:
    crew = [hk.ledger_from_url(old_url, Path("/"), hk.SystemClock()) for _ in range(2)]
    for ledger in crew:
        ledger.open()
    ledger = crew[0]
    assert ledger.identity() == "4c41a2ca1a5304de91708eb576be3e3c"
    failed, by_hand_ = Status.FAILED, hk.Reason.MANUAL
    rows = ledger.runs("/sweep")
    assert [row.status for row in rows] == [Status.SUCCEEDED, failed, Status.SUCCEEDED]
    assert (rows[0].reason, rows[1].note) == (by_hand_, "ValueError: no such file")
    (running,) = ledger.runs(status=hk.Status.RUNNING)
    assert (running.key, running.progress_made) == ("/report@beta", hk.Progress(3, 7, "rows"))
    assert ledger.crash(running, "its runner is gone")
    standings = ledger.standings("/")
    paused = {key for key, standing in standings.items() if standing.paused_at is not None}
    assert paused == {"/sweep", "/report", "/report@alpha", "/report@beta"}
    assert len(ledger.pauses("/backup")) == 1
    entries = [hk.Entry("/backup", "0 2 * * *", "Europe/Berlin")]
    assert ledger.register(entries)["/backup"].since == standings["/backup"].since
    assert ledger.resume("/report")
    assert ledger.standings("/report@alpha")["/report@alpha"].paused_at is None
    assert ledger.claim(by_hand("/report@alpha")) is Claim.MINE
    for ledger in crew:
        ledger.close()


def test_a_ledger_of_a_newer_version_is_refused_in_one_sentence(shared_url: str) -> None:
    ledger: Any = hk.ledger_from_url(shared_url, Path("/"), hk.SystemClock())
    ledger.open()
    newer = hk.SCHEMA_VERSION + 1
    ledger._write(f"UPDATE housekeeper_meta SET value = '{newer}' WHERE name = 'schema'")
    ledger.close()
    with pytest.raises(ConfigurationError, match="made by a newer Housekeeper"):
        ledger.open()
    with pytest.raises(LedgerUnavailable, match="made by a newer Housekeeper"):
        ledger.claim(by_hand())


def test_runners_that_were_not_seen_for_90_days_are_deleted(shared_url: str) -> None:
    ledger = hk.ledger_from_url(shared_url, Path("/"), hk.SystemClock())
    values = {"namespace": "", "host": "here", "pid": 1, "place": "", "birth": "", "version": "1"}
    for name in ("gone", "here"):
        ledger.beat_runner(hk.RunnerRow(runner=name, workers=10, **values))  # type: ignore
    assert ledger.runners("")[0].beat_at
    ledger.prune_runners(ledger.now() - hk.SECOND * 86400 * 90)
    assert {row.runner for row in ledger.runners("")} == {"gone", "here"}
    between = ledger.runners("")[0].beat_at
    assert between is not None
    ledger.prune_runners(between)
    assert [row.runner for row in ledger.runners("")] == ["here"]
    assert ledger.runners("shop") == []
    ledger.close()


# What the tables lack.


def is_whole(ledger: Any) -> bool:
    return not ledger._lacking(ledger._found(time.monotonic() + 5.0))


ONCE = ["housekeeper_runs_one_per_tick", "housekeeper_runs_one_running"]
LOSSES = [
    *(
        f"DROP INDEX {part.split()[-1]}"
        for (_, part), kind in hk.PARTS.items()
        if "_runs_" in part
    ),
    *(f"ALTER TABLE {table} RENAME TO set_aside" for table in hk.TABLES if "runs" not in table),
    "DROP TABLE housekeeper_runs",
    "ALTER TABLE housekeeper_tasks DROP COLUMN entered_by",
    "ALTER TABLE housekeeper_runs DROP COLUMN process_group",
    "ALTER TABLE housekeeper_runs DROP COLUMN output; ALTER TABLE housekeeper_runs DROP note",
    "DELETE FROM housekeeper_meta",
    "UPDATE housekeeper_meta SET value = 'two' WHERE name = 'schema'",
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.partition(";")[0])
def test_what_the_tables_lack_is_made_when_the_ledger_is_opened(shared: Place, loss: str) -> None:
    ledger = open_ledger(shared)
    claimed = by_hand()
    assert ledger.claim(claimed) is Claim.MINE
    shared.change(loss)
    ledger.open()  # by the same connection, as with each beat
    assert is_whole(ledger)
    assert ledger.claim(by_hand("/other")) is Claim.MINE
    assert len(ledger.runs()) == 1 + (
        "TABLE housekeeper_runs" not in loss or "DROP COLUMN" in loss
    )
    shared.change("DROP TABLE IF EXISTS set_aside")
    ledger.close()


@pytest.mark.parametrize("index", ONCE)
def test_no_claim_is_won_without_the_indexes_that_make_it_the_only_one(
    shared: Place, index: str
) -> None:
    first, second = open_ledger(shared), open_ledger(shared)
    entries = [hk.Entry("/work", "* * * * * *", "UTC")]
    tick = hk.SystemClock().now().replace(microsecond=0)
    runs = []
    for ledger in (first, second):
        ledger.register(entries)
        runs.append(by_hand("/work"))
        runs[-1].reason, runs[-1].scheduled_for = hk.Reason.SCHEDULE, tick
    shared.change(f"DROP INDEX {index}")
    assert first.claim(runs[0]) is Claim.MINE
    assert is_whole(first)
    assert second.claim(runs[1]) is Claim.TAKEN
    # Rows that are there twice: the index cannot be made.
    status, tick_ = ("'succeeded'", "scheduled_for") if index == ONCE[0] else ("status", "NULL")
    shared.change(
        f"DROP INDEX {index}; INSERT INTO housekeeper_runs"
        " (id, task, reason, status, runner, scheduled_for)"
        f" SELECT 'twice', task, reason, {status}, runner, {tick_} FROM housekeeper_runs",
    )
    with pytest.raises(LedgerUnavailable, match=f"lacks housekeeper_runs.UNIQUE {index}"):
        first.claim(by_hand("/other"))
    with pytest.raises(ConfigurationError, match="which cannot be made"):
        second.open()
    shared.change("DELETE FROM housekeeper_runs WHERE id = 'twice'")
    assert first.claim(by_hand("/other")) is Claim.MINE
    for ledger in (first, second):
        ledger.close()


@pytest.mark.parametrize(
    ("change_it", "change_back"),
    [
        (
            "ALTER TABLE housekeeper_runs RENAME TO aside",
            "ALTER TABLE aside RENAME TO housekeeper_runs",
        ),
        (
            f"DROP INDEX {ONCE[0]}; CREATE INDEX {ONCE[0]} ON housekeeper_runs (task)",
            f"DROP INDEX {ONCE[0]}",
        ),
    ],
    ids=["a table that was renamed keeps them", "not unique"],
)
def test_an_index_of_the_same_name_that_is_another_is_told_and_nothing_is_made(
    shared: Place, change_it: str, change_back: str
) -> None:
    ledger = open_ledger(shared)
    assert ledger.claim(by_hand()) is Claim.MINE
    shared.change(change_it)
    with pytest.raises(ConfigurationError, match="an index of that name is another"):
        ledger.open()
    with pytest.raises(LedgerUnavailable, match=f"lacks .*{ONCE[0]}"):
        ledger.claim(by_hand("/other"))
    shared.change(change_back)
    assert ledger.claim(by_hand("/other")) is Claim.MINE
    assert len(ledger.runs()) == 2
    ledger.close()


def test_runs_that_are_back_before_their_table_is_made_anew_were_not_lost(
    shared: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(shared)
    entries = [hk.Entry("/work", "* * * * * *", "UTC")]
    before = ledger.register(entries), ledger.identity()
    assert ledger.claim(by_hand("/work")) is Claim.MINE
    found, answers = ledger._found, [True, True]  # as read while the table had another name

    def without_runs(until: float) -> set[tuple[str, str]]:
        gone = "housekeeper_runs" if answers and answers.pop() else ""
        return {each for each in found(until) if each[0] != gone}

    monkeypatch.setattr(ledger, "_found", without_runs)
    ledger.open()
    assert answers == []
    assert (ledger.register(entries), ledger.identity()) == before
    ledger.close()


IDLE = """
import sys
from pathlib import Path
import housekeeper as hk
ledger = hk.ledger_from_url(sys.argv[1], Path("/"), hk.SystemClock())
ledger.open()
for word in sys.stdin:
    with hk.ledger_calls_within(2.0):
        print(ledger.pause(word.strip()), flush=True)
"""


@contextmanager
def idle_process(place: Place) -> Iterator[Callable[[str], None]]:
    """Run a process that has the ledger open, and pauses a task when it is told to."""
    with subprocess.Popen(
        [sys.executable, "-c", IDLE, place.url],
        env=environment(PYTHONPATH=str(Path(hk.__file__).parent)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def pause(key: str) -> None:
            process.stdin.write(f"{key}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            assert process.stdout.readline() == "True\n"  # type: ignore[union-attr]

        yield pause


@pytest.mark.parametrize("first", ["the idle one", "this one", "a new one"])
def test_an_emptied_file_is_replaced_at_once_whoever_has_it_open(
    sqlite_place: Place, first: str
) -> None:
    ledger = open_ledger(sqlite_place)
    for number in range(400):
        assert ledger.claim(by_hand(f"/{number}")) is Claim.MINE
    with idle_process(sqlite_place) as pause:
        pause("/before")
        # What is in the log alone is no whole file.
        ledger._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        pause("/since")
        sqlite_place.path.chmod(0o660)
        truncated(sqlite_place)
        with hk.ledger_calls_within(2.0):
            if first == "the idle one":
                pause("/idle")
            if first == "a new one":
                open_ledger(sqlite_place).close()
            assert ledger.pause("/this")
        if first != "the idle one":
            pause("/idle")
        assert {key for key, each in ledger.standings("").items() if each.paused_at} == {
            "/this",
            "/idle",
        }
    assert ledger._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sqlite_place.path.stat().st_mode & 0o777 == 0o660
    ledger.close()


@pytest.mark.parametrize("first", ["the idle one", "this one", "a new one"])
@pytest.mark.parametrize("gone", [[1], [2], [1, 2]], ids=["wal", "shm", "both"])
def test_a_log_or_its_index_that_is_deleted_does_not_part_the_processes(
    sqlite_place: Place, gone: list[int], first: str
) -> None:
    ledger = open_ledger(sqlite_place)
    with idle_process(sqlite_place) as pause:
        pause("/before")
        for number in gone:
            sqlite_place.files[number].unlink()
        new = hk.ledger_from_url(sqlite_place.url, Path("/"), hk.SystemClock())
        if first == "the idle one":
            pause("/idle")
        elif first == "a new one" and gone == [1]:
            with pytest.raises(ConfigurationError, match="disk I/O error"):
                new.open()  # It can be used when another one has put in order what is left.
        elif first == "a new one":
            # Of its own process, because within one the connections share the index.
            with idle_process(sqlite_place) as pause_too:
                pause_too("/new")
        assert ledger.pause("/this")
        if first != "the idle one":
            pause("/idle")
        kept = {"/this", "/idle"} | ({"/new"} if first == "a new one" and gone != [1] else set())
        assert kept <= set(ledger.standings("")) == set(new.standings(""))
        assert ledger.replaced_at is not None
        new.close()
    assert ledger._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ledger.close()


def is_back(ledger: hk.Ledger) -> bool:
    with contextlib.suppress(LedgerUnavailable):
        return bool(ledger.now())
    return False


def runs_dropped(place: Place) -> None:
    place.change("DROP TABLE housekeeper_runs")


@pytest.mark.parametrize("happens", [truncated, tables_dropped, tables_emptied, runs_dropped])
def test_a_tick_whose_row_was_lost_is_not_claimed_once_more(shared: Place, happens: Any) -> None:
    tick = hk.SystemClock().now().replace(microsecond=0)
    first, second = (hk.ledger_from_url(shared.url, Path("/"), hk.SystemClock()) for _ in "ab")
    entries = [hk.Entry("/work", "* * * * * *", "UTC")]
    for ledger in (first, second):
        ledger.register(entries)

    def run() -> hk.LiveRun:
        made = by_hand("/work")
        made.reason, made.scheduled_for = hk.Reason.SCHEDULE, tick
        return made

    assert first.claim(run()) is Claim.MINE
    if happens is truncated and shared.server is not None:
        pytest.skip("PostgreSQL has no file to truncate")
    happens(shared)
    # Whoever comes first makes the tables anew, once the other has let go of the file.
    eventually(lambda: is_back(first) & is_back(second), "a ledger that works")
    # SQLite may have found the row in its write-ahead log.
    assert second.claim(run()) in (Claim.LOST, *[Claim.TAKEN] * (happens is truncated))
    standing = second.register(entries)["/work"]
    assert standing.floor >= tick, "so that its process does not ask for it once more"
    for ledger in (first, second):
        ledger.close()


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: Any) -> Place:
    """A ledger of each kind."""
    return request.getfixturevalue(f"{request.param}_place")  # type: ignore[no-any-return]


def test_a_tick_that_came_as_the_file_was_replaced_is_recorded_and_not_run(
    make: Any, ticks: Ticks, sqlite_place: Place
) -> None:
    crew = [make(ticks.task(), ledger=sqlite_place.url) for _ in range(2)]
    ticks.wait_for_more(1)
    ledger = crew[0].ledger
    ledger.replaced_at = hk.SystemClock().now() + hk.SECOND * 2
    crew[1].shutdown()
    eventually(
        lambda: any("it may have run" in row.note for row in crew[0].history()), "a missed tick"
    )
    ticks.wait_for_more(2)


def test_a_run_that_a_backup_still_has_as_running_holds_up_nobody(
    make: Any, ticks: Ticks, shared: Place
) -> None:
    housekeeper = make(ticks.task(), ledger=shared.url)
    ticks.wait_for_more(1)
    ghost = by_hand(f"/{ticks.task().name}", housekeeper.runner)
    eventually(lambda: housekeeper.ledger.claim(ghost) is Claim.MINE, "a moment without a run")
    ticks.wait_for_more(2)
    (row,) = housekeeper.ledger.runs(id=ghost.id)
    assert (row.status, row.note) == (Status.CRASHED, "it had ended, and the ledger has lost how")
