"""Many hosts on one ledger, each with a clock of its own: skewed, jumping, suspended."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import Status, Task, current_run
from tests.accounting import assert_accounted, with_ticks
from tests.postgres import ClockedPostgresLedger
from tests.virtual_time import EndReached, VirtualClock, VirtualHousekeeper, simulated, utc

START = utc(2024, 1, 1)
HOUR = 3600.0


class HostClock:
    """A host's clock: the true one, off by so many seconds.  Who waits on it lets others go on."""

    def __init__(self, true: VirtualClock, offset: float = 0.0) -> None:
        self.true = true
        self.offset = offset
        self.end = true.now()  # set by run_until(), of no meaning here

    def now(self) -> datetime:
        return self.true.now() + timedelta(seconds=self.offset)

    def monotonic(self) -> float:
        return self.true.monotonic()

    def wait(self, waitable: hk.Waitable, seconds: float | None) -> None:
        raise EndReached


@pytest.fixture
def true() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: Any, tmp_path: Path, true: VirtualClock) -> Iterator[hk.Ledger]:
    """A ledger whose clock is the true one."""
    made: hk.Ledger
    if request.param == "postgres":
        made = ClockedPostgresLedger(request.getfixturevalue("postgres_url"), true)
    else:
        made = hk.ledger_from_url("sqlite:///ledger.db", tmp_path, true)
    yield made
    made.close()


def on_host(clock: HostClock, *tasks: Task, ledger: hk.Ledger) -> VirtualHousekeeper:
    return simulated(clock, *tasks, ledger=ledger)  # type: ignore[arg-type]


def go_on(
    true: VirtualClock, hosts: list[VirtualHousekeeper], seconds: float, step: float
) -> None:
    """Let true time pass in steps; in each, every host does what is due by its own clock."""
    end = true.monotonic() + seconds
    while true.monotonic() < end:
        true.advance(step)
        for host in hosts:
            host.run_until(true.now())


def ticks_in(schedule: str, after: datetime, until: datetime) -> list[datetime]:
    trigger = hk.CronTrigger(schedule)
    return trigger.following(after, trigger.count(after, until, limit=100_000))


@pytest.mark.parametrize("number", [40, pytest.param(200, marks=pytest.mark.torture)])
def test_hosts_with_skewed_and_jumping_clocks_run_each_tick_once_and_lose_none(
    true: VirtualClock, postgres_url: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(hk, "BEAT_EVERY", HOUR)  # 200 of them each minute would take a minute
    ledger = ClockedPostgresLedger(postgres_url, true)
    dice = random.Random(4)
    schedules = {"every-minute": "* * * * *", "rare": "17 * * * *"}
    ran: Counter[tuple[str, datetime]] = Counter()
    lateness: list[float] = []

    def work() -> None:
        run = current_run()
        assert run.scheduled_for is not None
        ran[run.task, run.scheduled_for] += 1
        lateness.append((true.now() - run.scheduled_for).total_seconds())

    def skew() -> float:
        return dice.choice((-1, 1)) * dice.choice((0.0, 1.0, 4.0, 30.0, 90.0, HOUR, 30 * HOUR))

    tasks = [Task(name, work, schedule=schedule) for name, schedule in schedules.items()]
    clocks = [HostClock(true, skew()) for _ in range(number)]
    hosts = [on_host(clock, *tasks, ledger=ledger) for clock in clocks]
    for _ in range(22):
        go_on(true, hosts, seconds=60.0, step=10.0)
        dice.shuffle(hosts)
        for clock in dice.sample(clocks, 5):
            clock.offset = skew()
    now, rows = true.now(), ledger.runs()
    ledger.close()
    assert set(ran.values()) == {1}
    for name, schedule in schedules.items():
        ticks = ticks_in(schedule, START, now)
        mine = {tick for task, tick in ran if task == name}
        assert set(ticks) <= mine, "a tick was lost"
        # At the end one may have been run up to a second early.
        assert mine - set(ticks) <= set(ticks_in(schedule, now, now + timedelta(seconds=1)))
    assert min(lateness) >= -1.0
    assert max(lateness) <= 10.0
    assert {row.status for row in rows} == {Status.SUCCEEDED}
    assert len(with_ticks(rows)) == len(ran)


def test_a_machine_that_was_suspended_in_a_run_crashes_nobody_who_lives(
    true: VirtualClock, ledger: hk.Ledger
) -> None:
    """Its other processes wake with it, and find the run's heartbeat to be hours old."""
    hosts: list[VirtualHousekeeper] = []

    def long_work() -> None:
        go_on(true, hosts, seconds=60.0, step=5.0)
        true.jump(8 * HOUR)  # elapsed time stands still
        # The observer comes first, and looks again 31 s later.
        go_on(true, [hosts[1]], seconds=5.0, step=5.0)
        go_on(true, hosts, seconds=300.0, step=5.0)

    task = Task("long", long_work, schedule="30 * * * *")
    hosts += [on_host(HostClock(true), task, ledger=ledger) for _ in range(2)]
    go_on(true, hosts, seconds=HOUR, step=20.0)
    rows = ledger.runs("/long")
    assert_accounted(rows, hk.CronTrigger("30 * * * *"))
    assert Status.CRASHED not in {row.status for row in rows}
    assert with_ticks(rows)[0].status is Status.SUCCEEDED


def test_a_run_whose_process_is_gone_is_crashed_and_the_tick_behind_it_still_runs(
    true: VirtualClock, ledger: hk.Ledger
) -> None:
    ran: list[datetime | None] = []

    class Gone(BaseException):
        pass

    def die() -> None:
        raise Gone

    ledger.open()
    dead = on_host(HostClock(true), Task("work", die, schedule="* * * * *"), ledger=ledger)
    dead._runner._conclude = lambda *_: None  # type: ignore  # killed before its outcome
    go_on(true, [dead], seconds=60.0, step=1.0)
    task = Task(
        "work", lambda: ran.append(current_run().scheduled_for), schedule="* * * * *", grace=600
    )
    alive = on_host(HostClock(true), task, ledger=ledger)
    go_on(true, [alive], seconds=300.0, step=1.0)
    rows = assert_accounted(ledger.runs("/work"), hk.CronTrigger("* * * * *"))
    assert [rows[0].status, rows[-1].status] == [Status.CRASHED, Status.SUCCEEDED]
    assert {row.status for row in rows[1:]} <= {Status.SUCCEEDED, Status.MISSED, Status.SKIPPED}
    # The lease, 30 s of observation, and a look on either side.
    first = ran[0]
    assert first is not None
    assert first - START <= timedelta(seconds=60 + 60 + 30 + 90)
    assert ran == ticks_in("* * * * *", first - timedelta(seconds=1), true.now())


def test_in_a_rolling_deploy_old_and_new_processes_run_what_each_knows_and_nothing_twice(
    true: VirtualClock, ledger: hk.Ledger
) -> None:
    ran: dict[str, list[datetime | None]] = {"changed": [], "removed": [], "added": []}

    def task(name: str, schedule: str) -> Task:
        return Task(name, lambda: ran[name].append(current_run().scheduled_for), schedule=schedule)

    def deploy(*tasks: Task) -> VirtualHousekeeper:
        return on_host(HostClock(true), *tasks, ledger=ledger)

    old = [deploy(task("changed", "*/10 * * * *"), task("removed", "5 * * * *")) for _ in range(2)]
    go_on(true, old, seconds=HOUR, step=10.0)
    deployed = true.now()
    new = [deploy(task("changed", "*/15 * * * *"), task("added", "25 * * * *")) for _ in range(2)]
    since = ledger.standings("/")["/changed"].since
    go_on(true, [*old, *new], seconds=2 * HOUR, step=10.0)
    assert ledger.standings("/")["/changed"].since == since, "the schedule's beginning flaps"
    retired = true.now()
    go_on(true, new, seconds=2 * HOUR, step=10.0)

    both = sorted(
        {
            *ticks_in("*/10 * * * *", START, retired),
            *ticks_in("*/15 * * * *", deployed, true.now()),
        }
    )
    assert ran["changed"] == both
    assert ran["removed"] == ticks_in("5 * * * *", START, retired)
    assert ran["added"] == ticks_in("25 * * * *", deployed, true.now())
    assert {row.status for row in ledger.runs("/", limit=1000)} == {Status.SUCCEEDED}


def test_a_pause_made_on_one_host_holds_on_all_from_the_next_tick(
    true: VirtualClock, ledger: hk.Ledger
) -> None:
    ran: list[datetime | None] = []
    task = Task("work", lambda: ran.append(current_run().scheduled_for), schedule="* * * * *")
    hosts = [on_host(HostClock(true), task, ledger=ledger) for _ in range(5)]
    go_on(true, hosts, seconds=300.0, step=10.0)
    hosts[0].pause_task("work")
    paused = true.now()
    go_on(true, hosts, seconds=300.0, step=10.0)
    assert ran == ticks_in("* * * * *", START, paused)
    hosts[1].resume_task("work")
    resumed = true.now()
    go_on(true, hosts, seconds=300.0, step=10.0)
    assert ran == ticks_in("* * * * *", START, paused) + ticks_in("* * * * *", resumed, true.now())
