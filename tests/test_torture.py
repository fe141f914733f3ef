"""A minute of everything at once: real processes, real ledgers, random kills, a restart.

Each scheduler is a process of its own; its tasks append (task, tick, run id) to one file, before
anything else, in one write.  What is in the file has really run; what is on record must agree.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import Status
from tests.accounting import assert_accounted, assert_ran_once, with_ticks
from tests.environment import environment
from tests.postgres import PostgresServer
from tests.test_outages import server

__all__ = ["server"]

SECONDS = float(os.environ.get("TORTURE_SECONDS", "60"))
CREW = 8
TASKS = ("one", "two", "three")
EVERY_SECOND = "* * * * * *"
# How long a killed run's row can stand in its task's way: the lease here, what an observer must
# have seen of it, the pause before its second look, and the next try of the claim.
BLOCKED_FOR = 20.0

CODE = """
import os, sys
import housekeeper as hk

# Shorter than in production, so that a minute holds many crashes.
hk.LEASE, hk.OBSERVED, hk.HEARTBEAT_EVERY, hk.LONGEST_BACKOFF = 4, 2.0, 1.0, 2.0
hk.CONDITIONS["{silent}"] = hk.CONDITIONS["{silent}"].replace("{ago_60}", "{ago_4}")
file = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work():
    run = hk.current_run()
    os.write(file, f"{run.task} {run.scheduled_for.isoformat()} {run.id}\\n".encode())
    run.wait(0.4)

housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=sys.argv[1])
for name in sys.argv[3:]:
    housekeeper.register_task(hk.Task(name, work, schedule="* * * * * *"))
housekeeper.initialize()
print("started", flush=True)
sys.stdin.readline()
sys.exit(0 if housekeeper.shutdown() else 1)
"""


class Crew:
    """Schedulers that are killed and started again."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.ran = folder / "ran"
        self._folder = folder
        self.processes = [self._start() for _ in range(CREW)]
        self.kills = 0

    def _start(self) -> subprocess.Popen[str]:
        with open(self._folder / "stderr", "a") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", CODE, self.url, str(self.ran), *TASKS],
                env=environment(PYTHONPATH=str(Path(hk.__file__).parent)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def kill_one(self, dice: random.Random) -> None:
        number = dice.randrange(CREW)
        self.kill(number)
        self.processes[number] = self._start()
        self.kills += 1

    def kill(self, number: int) -> None:
        process = self.processes[number]
        process.kill()
        process.communicate()

    def stop(self) -> list[int]:
        """Stop all in order; return their exit codes."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("stop\n")
            process.stdin.flush()
        for process in self.processes:
            process.communicate(timeout=90)
        return [process.returncode for process in self.processes]

    def seen(self) -> list[tuple[str, datetime, str]]:
        lines = [line.split() for line in self.ran.read_text().splitlines()]
        return [(task, datetime.fromisoformat(tick), run_id) for task, tick, run_id in lines]


@pytest.fixture
def crew(request: Any, tmp_path: Path) -> Iterator[Crew]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgres":
        database = f"torture_{time.monotonic_ns()}"
        server = request.getfixturevalue("server")
        server.execute(f"CREATE DATABASE {database}")
        url = server.url(database)
    crew = Crew(url, tmp_path)
    yield crew
    for number in range(CREW):
        crew.kill(number)


def torment(crew: Crew, dice: random.Random, server: PostgresServer | None) -> None:
    """Kill one now and then, and take the server away for some seconds in the middle."""
    end = time.monotonic() + SECONDS
    restart_at = end - SECONDS / 2
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.3, 2.0))
        crew.kill_one(dice)
        if server is not None and time.monotonic() > restart_at:
            server.stop()
            time.sleep(3.0)
            server.start()
            restart_at = end + 1.0
    # The last killed runs are judged, and the ticks behind them are caught up.
    time.sleep(BLOCKED_FOR)


@pytest.mark.torture
@pytest.mark.parametrize("crew", ["sqlite", "postgres"], indirect=True)
def test_8_processes_3_tasks_a_minute_of_kills_and_a_restart(crew: Crew, request: Any) -> None:
    postgres = crew.url.startswith("postgresql")
    dice = random.Random(time.time_ns())
    torment(crew, dice, request.getfixturevalue("server") if postgres else None)
    assert crew.stop() == [0] * CREW, (crew._folder / "stderr").read_text()[-5000:]

    ledger = hk.ledger_from_url(crew.url, Path("/"), hk.SystemClock())
    rows = ledger.runs()
    running = ledger.runs(status=hk.Status.RUNNING)
    ledger.close()
    assert not running, "a run is on record as running, and nothing runs"
    seen = crew.seen()
    ids = [run_id for *_, run_id in seen]
    assert len(ids) == len(set(ids)), "a run was made twice"
    for name in TASKS:
        assert_whole([row for row in rows if row.task == name], name, seen)
    report(crew, rows, seen)


def assert_whole(rows: list[hk.Run], name: str, seen: list[tuple[str, datetime, str]]) -> None:
    """Assert that one task's ticks ran once at most, and that each is accounted for."""
    assert_ran_once([tick for task, tick, _ in seen if task == name], rows)
    ordered = assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
    by_id = {row.id: row for row in rows}
    for task, tick, run_id in seen:
        if task == name:
            assert by_id[run_id].scheduled_for == tick
    succeeded = {row.id for row in rows if row.status is Status.SUCCEEDED}
    assert succeeded <= {run_id for *_, run_id in seen}, "on record as run, and did not"
    assert {row.status for row in rows} <= {
        Status.SUCCEEDED,
        Status.SKIPPED,
        Status.MISSED,
        Status.CRASHED,
        Status.CANCELLED,
    }
    first, last = ordered[0].scheduled_for, ordered[-1].scheduled_for
    assert first is not None
    assert last is not None
    assert last - first >= timedelta(seconds=SECONDS * 0.8)


def report(crew: Crew, rows: list[hk.Run], seen: list[Any]) -> None:
    ticks = {status.value: 0 for status in Status}
    for row in with_ticks(rows):
        ticks[row.status.value] += row.count
    told = {status: number for status, number in ticks.items() if number}
    print(f"\n{crew.kills} kills; {len(seen)} runs seen; ticks by outcome: {told}")
