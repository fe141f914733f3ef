"""How fast ledgers are claimed, alone, by many processes, and when they are full."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import housekeeper as hk
from tests.postgres import PostgresServer

TASKS = 1000
# What ten million rows stand for: each task's thousand newest runs and more, a minute apart.
FILL = {
    "sqlite": """
        WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers LIMIT {rows})
        INSERT INTO housekeeper_runs (id, task, reason, status, runner, scheduled_for, started_at,
            finished_at, heartbeat_at, note, output)
        SELECT printf('%012x%012x', 1700000000000 + n, n), '/task-' || (n % {tasks}), 'schedule',
            'succeeded', 'host:1:aaaaaa', {tick}, {tick}, {tick}, {tick}, '', 'done' FROM numbers
        """,
    "postgres": """
        INSERT INTO housekeeper_runs (id, task, reason, status, runner, scheduled_for, started_at,
            finished_at, heartbeat_at, note, output)
        SELECT lpad(to_hex(1700000000000 + n), 12, '0') || lpad(to_hex(n), 12, '0'),
            '/task-' || (n % {tasks}), 'schedule', 'succeeded', 'host:1:aaaaaa', t, t, t, t, '',
            'done'
        FROM (SELECT n, now() - make_interval(mins => (({rows} - n) / {tasks} + 1)::int) AS t
              FROM generate_series(0::bigint, {rows} - 1) AS n) AS numbers
        """,
}
SQLITE_TICK = (
    "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-' || (({rows} - n) / {tasks} + 1) || ' minutes')"
)

WORKER = """
import json, sys
from pathlib import Path
import housekeeper as hk
from tests.benchmarks.ledgers import claim_for
ledger = hk.ledger_from_url(sys.argv[1], Path("/"), hk.SystemClock())
ledger.open()
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(claim_for(ledger, float(sys.argv[2]), f"/{sys.argv[3]}-")))
"""


def claim_for(ledger: hk.Ledger, seconds: float, prefix: str) -> list[float]:
    """Claim and finish runs of ever new ticks for a while; return what each claim took."""
    clock, took = hk.SystemClock(), []
    end, number = time.perf_counter() + seconds, 0
    first = clock.now().replace(microsecond=0) - timedelta(days=10)
    while (began := time.perf_counter()) < end:
        run = a_run(clock, f"{prefix}{number % 10}", first + timedelta(seconds=number))
        assert ledger.claim(run) is hk.Claim.MINE
        took.append(time.perf_counter() - began)
        run.status = hk.Status.SUCCEEDED
        assert ledger.finish(run)
        number += 1
    return took


def nothing() -> None:
    """Be the function of a task; a builtin costs more to look at than a claim."""


def a_run(clock: hk.Clock, key: str, tick: datetime) -> hk.LiveRun:
    return hk.LiveRun(
        definition=hk.Task(hk.name_of(key), nothing),
        clock=clock,
        key=key,
        id=hk.new_id(clock),
        reason=hk.Reason.SCHEDULE,
        runner="host:1:aaaaaa",
        scheduled_for=tick,
    )


def url_of(kind: str, server: PostgresServer, folder: Path, name: str) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/{name}.db"
    server.execute(f"CREATE DATABASE {name}")
    return server.url(name)


def measured(url: str, processes: int, seconds: float) -> list[float]:
    """Let so many processes claim at the same time; return what all claims took."""
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(seconds), f"process-{number}"],
            env={**os.environ, "PYTHONPATH": str(Path(hk.__file__).parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for process in crew:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crew:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in crew]
    return [took for output in outputs for took in json.loads(output)]


def print_claims(
    server: PostgresServer, folder: Path, crews: Sequence[int], seconds: float
) -> None:
    """Print how many runs are claimed and finished a second, and how long a claim takes."""
    row = "{:10} {:>9} {:>12} {:>9} {:>9} {:>9}"
    print(row.format("ledger", "processes", "runs/second", "ratio", "p50 ms", "p99 ms"))
    for kind in ("sqlite", "postgres"):
        alone = 0.0
        for processes in crews:
            url = url_of(kind, server, folder, f"claims_{kind}_{processes}")
            took = measured(url, processes, seconds)
            rate = len(took) / seconds
            alone = alone or rate
            p50, p99 = percentiles(took)
            cells = (f"{rate:,.0f}", f"{rate / alone:.2f}", f"{p50:.2f}", f"{p99:.2f}")
            print(row.format(kind, processes, *cells), flush=True)


def percentiles(took: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(took, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def print_retention(
    server: PostgresServer, folder: Path, rows: dict[str, int], seconds: float
) -> None:
    """Print what a full ledger weighs, and how long what is done with it takes."""
    row = "{:10} {:>11} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}"
    print(
        row.format(
            *("ledger", "rows", "MiB", "p50 ms", "p99 ms"),
            *("prune ms", "list ms", "hist. ms", "1 task ms"),
        )
    )
    for kind, most in rows.items():
        for number in (0, most):
            url = url_of(kind, server, folder, f"retention_{kind}_{number}")
            print(row.format(kind, f"{number:,}", *full(url, kind, number, seconds)), flush=True)


def full(url: str, kind: str, rows: int, seconds: float) -> list[str]:
    """Fill a ledger, and return the cells of its line."""
    housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=url)
    for number in range(TASKS):
        housekeeper.register_task(hk.Task(f"task-{number}", print, schedule="0 0 1 1 *"))
    # Not scheduling, or its daily pruning of all that was made would be measured as well.
    housekeeper.initialize(scheduling=False)
    ledger = housekeeper.ledger
    with_rows(ledger, kind, rows)
    p50, p99 = percentiles(claim_for(ledger, seconds, "/fresh-"))
    cells = [f"{size(ledger, kind):,.0f}", f"{p50:.2f}", f"{p99:.2f}"]
    cells += [
        f"{milliseconds(work):.1f}"
        for work in (
            lambda: prune(ledger, "/task-7"),
            housekeeper.list_tasks,
            housekeeper.history,
            lambda: housekeeper.history("task-8"),
        )
    ]
    housekeeper.shutdown()
    return cells


def prune(ledger: hk.Ledger, key: str) -> None:
    now = ledger.now()
    ledger.prune(key, young=now - timedelta(hours=1), old=now - timedelta(days=90))


def with_rows(ledger: hk.Ledger, kind: str, rows: int) -> None:
    """Make the rows inside the database."""
    if not rows:
        return
    tick = SQLITE_TICK.format(rows=rows, tasks=TASKS)
    sql = FILL[kind].format(rows=rows, tasks=TASKS, tick=tick)
    with ledger.lock:
        if kind == "sqlite":
            ledger._connection.execute(sql)
            ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        assert isinstance(ledger, hk.PostgresLedger)
        until = time.monotonic() + 3600.0
        for statement in (sql, "VACUUM (ANALYZE) housekeeper_runs", "CHECKPOINT"):
            ledger._statement(statement, None, until)


def size(ledger: hk.Ledger, kind: str) -> float:
    """Return what the ledger takes on disk, in MiB."""
    if kind == "sqlite":
        assert isinstance(ledger, hk.SqliteLedger)
        return sum(map(os.path.getsize, (ledger.path, f"{ledger.path}-wal"))) / 2**20
    return float(ledger._rows("SELECT pg_total_relation_size('housekeeper_runs')")[0][0]) / 2**20


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
