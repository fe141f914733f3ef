"""Ledgers that go away while real threads need them: what is bounded, and what comes of the ticks.

The PostgreSQL server is this module's own, because it is stopped, frozen and cut off here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import LedgerUnavailable, Status, Task, current_run
from tests.accounting import assert_accounted, assert_ran_once
from tests.postgres import PostgresServer, temporary_server

PATIENCE = 60.0  # seconds after which something hangs that must not
CALL = 1.5  # seconds that a ledger call may take in these tests
EVERY_SECOND = "* * * * * *"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with temporary_server() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """The URL of a fresh, empty database on the server that goes away."""
    name = f"outage_{time.monotonic_ns()}"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what production waits for, so that an outage of seconds is a long one."""
    monkeypatch.setattr(hk, "CALL_LIMIT", CALL)
    monkeypatch.setattr(hk, "_call_limit", ContextVar("call_limit", default=CALL))
    monkeypatch.setattr(hk, "LONGEST_BACKOFF", 0.5)


def eventually(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


class Ticks:
    """A task that notes the ticks it is run for, and the claims of its ledger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[datetime | None] = []
        self.claims: list[tuple[str, object]] = []  # (run id, verdict or error)
        claim = hk.SqlLedger.claim

        def noted(ledger: hk.SqlLedger, run: hk.LiveRun) -> hk.Claim:
            try:
                verdict = claim(ledger, run)
            except LedgerUnavailable as error:
                self.claims.append((run.id, error))
                raise
            self.claims.append((run.id, verdict))
            return verdict

        monkeypatch.setattr(hk.SqlLedger, "claim", noted)

    def task(self, schedule: str = EVERY_SECOND, **options: Any) -> Task:
        return Task(
            "sweep",
            lambda: self.seen.append(current_run().scheduled_for),
            schedule=schedule,
            **options,
        )

    @property
    def failed(self) -> list[str]:
        return [
            run_id for run_id, verdict in self.claims if isinstance(verdict, LedgerUnavailable)
        ]

    def wait_for_more(self, number: int = 2) -> None:
        target = len(self.seen) + number
        eventually(lambda: len(self.seen) >= target, f"{number} more runs")


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    return Ticks(monkeypatch)


def once_in(seconds: int) -> str:
    """Return a schedule whose one tick of this year is so many seconds away."""
    tick = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return f"{tick:%S %M %H %d %m} *"


def settled(housekeeper: hk.Housekeeper) -> list[hk.Run]:
    """Stop a Housekeeper and return all that is on record."""
    assert housekeeper.shutdown(timeout=PATIENCE)
    rows = housekeeper.history(limit=10_000)
    housekeeper.ledger.close()
    return rows


@contextmanager
def away(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def processes_of(server: PostgresServer) -> list[int]:
    """Return the process ids of the postmaster and of its children."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return [server.pid, *(pid for pid, parent in pairs if parent == server.pid)]


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """Stop the server's processes in their tracks: its sockets stay open and never answer."""
    stopped = processes_of(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


# A server that is restarted.


def test_a_restart_between_calls_loses_and_repeats_no_tick(
    server: PostgresServer, url: str, make: Any, ticks: Ticks
) -> None:
    housekeeper = make(ticks.task(), ledger=url)
    ticks.wait_for_more()
    with away(server):
        pass
    ticks.wait_for_more()
    rows = settled(housekeeper)
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)
    assert {row.status for row in rows} <= {Status.SUCCEEDED, Status.SKIPPED, Status.MISSED}


def test_a_restart_while_a_claim_is_under_way_runs_the_tick_once(
    server: PostgresServer, url: str, make: Any, ticks: Ticks
) -> None:
    import psycopg2

    housekeeper = make(ledger=url)
    other = psycopg2.connect(url)
    other.cursor().execute("LOCK TABLE housekeeper_runs IN EXCLUSIVE MODE")
    # Only now, so that its tick comes when the lock is there, however slow the machine.
    housekeeper.register_task(ticks.task(once_in(3)))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    eventually(lambda: server.execute(waiting)[0][0] >= 1, "a claim that waits for the lock")
    with away(server):
        pass  # In the last instant the claim may get its lock, and be answered: or not.
    eventually(lambda: ticks.seen, "the run of the tick")
    other.close()
    (row,) = settled(housekeeper)
    assert row.status is Status.SUCCEEDED
    assert ticks.seen == [row.scheduled_for]


@pytest.mark.torture
def test_a_server_that_is_away_longer_than_grace_leaves_a_missed_row_and_nothing_runs_unclaimed(
    server: PostgresServer, url: str, make: Any, ticks: Ticks
) -> None:
    housekeeper = make(ticks.task(once_in(10), grace=0.5), ledger=url)
    with away(server):
        late = datetime.now(timezone.utc) + timedelta(seconds=11)
        eventually(lambda: datetime.now(timezone.utc) > late, "the end of grace")
        assert housekeeper.health()["status"] == "critical"
    eventually(lambda: housekeeper.history(), "a row")
    (row,) = settled(housekeeper)
    assert (row.status, row.count) == (Status.MISSED, 1)
    assert not ticks.seen


def test_a_finish_that_could_not_be_written_is_written_later(
    server: PostgresServer, url: str, make: Any
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        assert go_on.wait(PATIENCE)

    housekeeper = make(Task("work", work), ledger=url)
    run = housekeeper.run_task_manually("work", wait=False)
    assert inside.wait(PATIENCE)
    with away(server):
        go_on.set()
        eventually(lambda: run.finished_at, "the end of the work")
        assert not run.ended.wait(1.0), "it ended before it was recorded"
    assert run.ended.wait(PATIENCE)
    (row,) = settled(housekeeper)
    assert row.status is Status.SUCCEEDED
    assert row.finished_at is not None


def test_a_server_that_is_away_at_the_start_is_a_warning_and_its_ticks_are_caught_up(
    server: PostgresServer, url: str, make: Any, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    before = make(ticks.task(), ledger=url)
    ticks.wait_for_more(1)
    settled(before)
    with away(server):
        began = time.monotonic()
        housekeeper = make(ticks.task(), ledger=url)
        assert time.monotonic() - began < 10.0
        assert "cannot be used now, and will be tried again" in caplog.text
        assert housekeeper.health()["ledger"]["reachable"] is False
        assert housekeeper.get_task_status("sweep")["source"] == "this process"
        seen, later = len(ticks.seen), time.monotonic() + 3.0
        eventually(lambda: time.monotonic() > later, "three ticks")
    ticks.wait_for_more()
    rows = settled(housekeeper)
    assert_ran_once(ticks.seen, rows)
    ordered = assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert Status.MISSED in {row.status for row in ordered}
    assert len(ticks.seen) > seen


# A server that is frozen.


@pytest.mark.torture
def test_a_claim_that_a_frozen_server_commits_after_its_client_gave_up_runs_once(
    server: PostgresServer, url: str, make: Any, ticks: Ticks
) -> None:
    housekeeper = make(ticks.task(once_in(10)), ledger=url)
    with frozen(server):
        eventually(lambda: ticks.failed, "a claim that is given up")
        assert not ticks.seen
    eventually(lambda: ticks.seen, "the run of the tick")
    (row,) = settled(housekeeper)
    assert ticks.seen == [row.scheduled_for]
    assert row.status is Status.SUCCEEDED
    # The claim that was given up is the one on record: it kept its id when it was tried again.
    assert row.id == ticks.failed[0]


@pytest.mark.torture
def test_calls_to_a_frozen_server_end_within_their_limit(
    server: PostgresServer, url: str, make: Any, ticks: Ticks
) -> None:
    housekeeper = make(ticks.task(), Task("by-hand", lambda: None), ledger=url)
    ticks.wait_for_more(1)
    with frozen(server):
        seen = len(ticks.seen)
        for call, limit in (
            (housekeeper.health, hk.HEALTH_LIMIT),
            (housekeeper.list_tasks, 2 * CALL),
            (lambda: housekeeper.get_task_status("sweep"), 2 * CALL),
        ):
            began = time.monotonic()
            call()
            assert time.monotonic() - began < limit + 5.0
        assert housekeeper.health()["status"] == "critical"
        with pytest.raises(LedgerUnavailable):
            housekeeper.run_task_manually("by-hand")
        with pytest.raises(LedgerUnavailable):
            housekeeper.history()
        # One may have been claimed before the freeze; whatever is claimed is not run without it.
        assert len(ticks.seen) <= seen + 1
    ticks.wait_for_more()
    eventually(lambda: housekeeper.health()["status"] == "ok", "health")
    rows = settled(housekeeper)
    assert_accounted([row for row in rows if row.task == "sweep"], hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)


def test_a_shutdown_is_bounded_while_the_server_is_frozen(
    server: PostgresServer, url: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as in production: what bounds the shutdown must not be the limit of a call.
    monkeypatch.setattr(hk, "CALL_LIMIT", 30.0)
    monkeypatch.setattr(hk, "_call_limit", ContextVar("call_limit", default=30.0))
    inside, let_go = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        inside.release()
        let_go.wait(PATIENCE)

    def fail() -> None:
        raise ValueError("tried again in an hour")

    hung = [Task(f"hung-{number}", hang) for number in range(4)]
    retried = [Task(f"retried-{number}", fail, retries=1) for number in range(3)]
    due = Task("due", lambda: None, schedule=EVERY_SECOND)
    housekeeper = make(*hung, *retried, due, ledger=url, shutdown_timeout=1.0)
    for task in hung + retried:
        housekeeper.run_task_manually(task.name, wait=False)
    for _ in hung:
        assert inside.acquire(timeout=PATIENCE)
    eventually(lambda: len(housekeeper._runner._waiting) == 3, "runs that wait for their retry")
    with frozen(server):
        began = time.monotonic()
        assert housekeeper.shutdown() is False
        took = time.monotonic() - began
    let_go.set()
    assert took < 1.0 + 5.0 + 2.0, "the time promised, and 2 s for a loaded machine"


def test_once_a_shutdown_has_begun_what_is_queued_is_not_claimed_any_more(
    make: Any, tmp_path: Path
) -> None:
    inside, let_go = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        let_go.wait(PATIENCE)

    url = f"sqlite:///{tmp_path}/ledger.db"
    queued = Task("queued", lambda: None, schedule=EVERY_SECOND)
    housekeeper = make(Task("work", work, startup=True), queued, ledger=url, max_workers=1)
    assert inside.wait(PATIENCE)
    (registration,) = (each for each in housekeeper._roster.all() if each.task is queued)
    lock = registration.lock
    eventually(lock.locked, "the tick that waits for a worker")
    before = len(housekeeper.history("queued"))
    stopping = threading.Thread(target=housekeeper.shutdown)
    stopping.start()
    eventually(lambda: housekeeper._runner.stopping, "the shutdown's beginning")
    let_go.set()
    stopping.join(PATIENCE)
    assert len(housekeeper.history("queued")) == before
    assert [run.status for run in housekeeper.history("work")] == [Status.SUCCEEDED]


def test_a_shutdown_waits_for_a_claim_that_is_under_way_and_for_its_run(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claiming, answered = threading.Event(), threading.Event()
    claim = hk.SqlLedger.claim

    def slow(ledger: hk.SqlLedger, run: hk.LiveRun) -> hk.Claim:
        verdict = claim(ledger, run)
        claiming.set()
        assert answered.wait(PATIENCE)
        return verdict

    monkeypatch.setattr(hk.SqlLedger, "claim", slow)
    task = Task("sweep", lambda: None, schedule=EVERY_SECOND)
    housekeeper = make(task, ledger=f"sqlite:///{tmp_path}/ledger.db", shutdown_timeout=PATIENCE)
    assert claiming.wait(PATIENCE)
    stopping = threading.Thread(target=housekeeper.shutdown)
    stopping.start()
    eventually(lambda: housekeeper._runner.stopping, "the shutdown's beginning")
    answered.set()
    stopping.join(PATIENCE)
    (row,) = housekeeper.history()
    assert row.status is Status.SUCCEEDED


# What the administrator of a PostgreSQL may have decided.


def test_a_role_that_may_not_make_tables_gets_statements_that_work(
    server: PostgresServer, url: str
) -> None:
    role, database = f"limited_{time.monotonic_ns()}", url.partition("/outage_")[2]
    database = "outage_" + database.partition("?")[0]
    server.execute(f"CREATE ROLE {role} LOGIN")
    server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    limited = url.replace("postgres:@", f"{role}:@", 1)
    housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=limited)
    with pytest.raises(hk.ConfigurationError, match="cannot be made") as caught:
        housekeeper.ledger.open()
    server.execute(str(caught.value).partition("to the role:\n")[2], database)
    server.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON housekeeper_meta, housekeeper_tasks,"
        f" housekeeper_pauses, housekeeper_runs, housekeeper_runners TO {role}",
        database,
    )
    housekeeper.register_task(Task("work", lambda: None))
    housekeeper.initialize()
    assert housekeeper.run_task_manually("work").status is Status.SUCCEEDED
    assert [run.task for run in settled(housekeeper)] == ["work"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def bouncer(server: PostgresServer, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """PgBouncer in transaction mode before the server, with fewer connections than clients."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("pgbouncer is not installed")
        pytest.skip("pgbouncer is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pgb"))
    port = free_port()
    (folder / "ini").write_text(
        f"[databases]\n* = host={server.folder} user=postgres pool_size=2\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\n"
    )
    os.chmod(folder, 0o755)
    # It refuses to be root, and the server's socket is its owner's alone.
    owner = ["-u", server.folder.owner()] if os.geteuid() == 0 else []
    with open(tmp_path / "bouncer.log", "w") as log:
        process = subprocess.Popen([program, *owner, str(folder / "ini")], stdout=log, stderr=log)

    def listens() -> bool:
        assert process.poll() is None, (tmp_path / "bouncer.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens, "pgbouncer listens")
        yield lambda database: f"postgresql://postgres@127.0.0.1:{port}/{database}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_three_housekeepers_share_two_connections_of_pgbouncer_in_transaction_mode(
    url: str, make: Any, ticks: Ticks, bouncer: Callable[[str], str]
) -> None:
    through = bouncer("outage_" + url.partition("/outage_")[2].partition("?")[0])
    crew = [make(ticks.task(), ledger=through) for _ in range(3)]
    ticks.wait_for_more(3)
    assert crew[0].health()["status"] == "ok"
    for housekeeper in crew[1:]:
        settled(housekeeper)
    rows = settled(crew[0])
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)


@pytest.mark.parametrize("name", ["cleanup_expired_tokens", "database_vacuum"])
def test_what_a_built_in_task_sets_does_not_reach_the_application_through_pgbouncer(
    url: str, make: Any, bouncer: Callable[[str], str], monkeypatch: Any, name: str
) -> None:
    import psycopg2

    through = bouncer("outage_" + url.partition("/outage_")[2].partition("?")[0])
    application = psycopg2.connect(through)
    application.autocommit = True
    monkeypatch.setenv("DATABASE_URL", through)
    module = import_module(f"tasks.{name}")
    (task,) = (each for each in vars(module).values() if isinstance(each, Task))
    with application.cursor() as cursor:
        cursor.execute("CREATE TABLE access_tokens (expires_at timestamp)")
        cursor.execute("INSERT INTO access_tokens VALUES ('2020-01-01')")
        make(task).run_task_manually(task.name)
        for setting in ("lock_timeout", "statement_timeout", "timezone"):
            query = "SELECT setting = reset_val FROM pg_settings WHERE lower(name) = %s"
            cursor.execute(query, [setting])
            assert cursor.fetchall() == [(True,)], setting
    application.close()


# SQLite.


def test_a_file_that_another_process_has_locked_runs_nothing_unclaimed_and_loses_nothing(
    make: Any, ticks: Ticks, tmp_path: Path
) -> None:
    housekeeper = make(ticks.task(), ledger=f"sqlite:///{tmp_path}/ledger.db")
    ticks.wait_for_more(1)
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ledger.db")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "locked\n"
        seen = len(ticks.seen)
        eventually(lambda: ticks.failed, "a claim that is given up")
        began = time.monotonic()
        assert housekeeper.health()["ledger"]["reachable"]  # who only reads does not wait
        assert time.monotonic() - began < hk.HEALTH_LIMIT + 5.0
        assert len(ticks.seen) <= seen + 1
        other.stdin.write("go\n")
    ticks.wait_for_more()
    rows = settled(housekeeper)
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)


def test_a_full_disk_runs_nothing_unclaimed_and_what_was_missed_is_recorded_afterwards(
    make: Any, ticks: Ticks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeeper = make(ticks.task(), ledger=f"sqlite:///{tmp_path}/ledger.db")
    ticks.wait_for_more(1)
    connect = sqlite3.connect

    def set_room(pages: int) -> None:
        def connecting(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)
            connection.execute(f"PRAGMA max_page_count = {pages}")
            return connection

        monkeypatch.setattr(sqlite3, "connect", connecting)
        housekeeper.ledger.close()  # The next call connects anew.

    def fill() -> None:
        sql = (
            "INSERT INTO housekeeper_runs (id, task, reason, status, runner)"
            " VALUES (?, '/filler', 'manual', 'skipped', '')"
        )
        rows = [(str(number),) for number in range(10_000)]
        connection = sqlite3.connect(tmp_path / "ledger.db", timeout=10.0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            connection.executemany(sql, rows)
        connection.close()

    set_room(1)  # as many as there are
    fill()
    eventually(lambda: ticks.failed, "a claim that fails")
    assert "full" in str(next(e for _, e in ticks.claims if isinstance(e, LedgerUnavailable)))
    seen = list(ticks.seen)
    more = time.monotonic() + 2.5
    eventually(lambda: time.monotonic() > more, "two ticks")
    assert housekeeper.health()["ledger"]["reachable"]
    assert ticks.seen == seen, "something was run unclaimed"
    set_room(1_000_000)
    ticks.wait_for_more()
    rows = [row for row in settled(housekeeper) if row.task == "sweep"]
    assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    assert_ran_once(ticks.seen, rows)
    assert {row.status for row in rows} & {Status.MISSED, Status.SKIPPED}
