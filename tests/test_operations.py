"""What a run and a start cost, counted in operations: seconds differ from machine to machine."""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType

import pytest

import housekeeper as hk
from housekeeper import Task
from tests.virtual_time import VirtualClock, VirtualHousekeeper, simulated, utc

START = utc(2024, 1, 1)
HOUR = timedelta(hours=1)
RUNS = 100


def nothing() -> None:
    """Do what a task does that has nothing to do."""


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the expressions for which croniter was asked."""
    asked: list[str] = []
    search = hk.CronTrigger._next_wall

    def noted(trigger: hk.CronTrigger, wall: object) -> object:
        asked.append(trigger.text)
        return search(trigger, wall)  # type: ignore[arg-type]

    monkeypatch.setattr(hk.CronTrigger, "_next_wall", noted)
    return asked


class CountingLedger(hk.SqliteLedger):
    """A ledger that counts its statements."""

    def __init__(self, path: Path, clock: hk.Clock) -> None:
        super().__init__(f"sqlite:///{path}", str(path), clock)
        self.statements: list[str] = []

    def _execute(self, sql: str, values: object, until: float) -> tuple[list[object], int]:
        self.statements.append(sql.split()[0])
        return super()._execute(sql, values, until)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path, clock: VirtualClock) -> Iterator[CountingLedger]:
    made = CountingLedger(tmp_path / "ledger.db", clock)
    yield made
    made.close()


def hourly(number: int = 1) -> list[Task]:
    return [Task(f"hourly-{each}", nothing, schedule="0 * * * *") for each in range(number)]


def run_hours(simulation: VirtualHousekeeper, hours: int) -> None:
    simulation.run_until(simulation.clock.now() + hours * HOUR)


def settled(clock: VirtualClock, *tasks: Task, **options: object) -> VirtualHousekeeper:
    """Return a Housekeeper that has gone through its first hours, between two ticks."""
    simulation = simulated(clock, *tasks, **options)  # type: ignore[arg-type]
    simulation.run_until(START + timedelta(hours=2, minutes=30))
    return simulation


# A run.


@pytest.mark.parametrize("tasks", [1, 50])
def test_a_tick_is_searched_for_once_by_all_tasks_that_share_its_schedule(
    clock: VirtualClock, searches: list[str], tasks: int
) -> None:
    simulation = settled(clock, *hourly(tasks))
    searches.clear()
    run_hours(simulation, RUNS)
    assert len(searches) == RUNS


def test_a_run_costs_one_statement_for_its_claim_and_one_for_its_finish(
    clock: VirtualClock, ledger: CountingLedger
) -> None:
    simulation = settled(clock, *hourly(), ledger=ledger)
    ledger.statements.clear()
    run_hours(simulation, 10)
    assert ledger.statements == ["INSERT", "UPDATE"] * 10


def each_second(clock: VirtualClock) -> VirtualHousekeeper:
    """Return a Housekeeper whose task runs each second, some seconds after its start."""
    simulation = simulated(clock, Task("each-second", nothing, schedule="* * * * * *"))
    simulation.run_until(START + timedelta(seconds=10.5))
    return simulation


def test_a_run_wakes_the_loop_at_its_tick_and_at_no_other_time(clock: VirtualClock) -> None:
    simulation = each_second(clock)
    clock.waits = 0
    simulation.run_until(clock.now() + timedelta(seconds=RUNS))
    # And the worker waits from its claim to the tick.  Heartbeats come due as well, each 15 s, the
    # first pruning, and the end of the simulation.
    assert 2 * RUNS <= clock.waits <= 2 * RUNS + RUNS / 15 + 2


def test_after_a_run_the_loop_wakes_once_more_to_see_that_nothing_needs_heartbeats(
    clock: VirtualClock, ledger: CountingLedger
) -> None:
    simulation = settled(clock, *hourly(), ledger=ledger)
    clock.waits = 0
    run_hours(simulation, RUNS)
    days = RUNS / 24  # the pruning of each wakes it, too, and the end of the simulation
    # And the worker waits from its claim to the tick.
    assert 3 * RUNS <= clock.waits <= 3 * RUNS + days + 1


class CountedLock(threading.Condition):
    """A lock that counts how often it is taken."""

    taken = 0

    def __enter__(self) -> bool:
        self.taken += 1
        return super().__enter__()


def test_a_run_takes_no_lock_for_which_all_runs_would_queue(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = settled(clock, *hourly())
    lock = CountedLock()
    monkeypatch.setattr(simulation, "_lock", lock)
    monkeypatch.setattr(simulation, "_changed", lock)
    taken: list[int] = []

    def counted(registration: hk.Registration, claim: Callable[[], hk.LiveRun | None]) -> None:
        before = lock.taken
        hk.Housekeeper._run_claimed(simulation, registration, claim)
        taken.append(lock.taken - before)

    monkeypatch.setattr(simulation, "_run_claimed", counted)
    run_hours(simulation, 10)
    assert taken == [0] * 10
    assert lock.taken > 0  # by the loop, so it is the one that counts


class Calls:
    """Counts the calls of Housekeeper's functions, and the objects that its classes make."""

    def __init__(self) -> None:
        self.number = self.objects = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == hk.__file__:
            self.number += 1
            self.objects += frame.f_code.co_name == "__init__"


def test_a_run_costs_no_more_calls_and_objects_than_it_did(clock: VirtualClock) -> None:
    simulation = each_second(clock)
    with Calls() as calls:
        simulation.run_until(clock.now() + timedelta(seconds=RUNS))

    # Who makes a run dearer knows that from here, and has a reason.
    assert 50 < calls.number / RUNS < 130
    assert calls.objects / RUNS < 4.5


def test_a_run_leaves_nothing_behind_in_the_process(
    clock: VirtualClock, ledger: CountingLedger
) -> None:
    simulation = settled(clock, *hourly(), ledger=ledger)
    run_hours(simulation, RUNS)
    gc.collect()
    before = sys.getallocatedblocks()
    run_hours(simulation, RUNS)
    ledger.statements.clear()
    gc.collect()
    assert sys.getallocatedblocks() - before < RUNS


# Sleeping, and a start.


def test_sleeping_tasks_cost_no_wake_up_and_no_statement(
    clock: VirtualClock, ledger: CountingLedger
) -> None:
    tasks = [Task(f"yearly-{number}", nothing, schedule="@yearly") for number in range(200)]
    simulation = settled(clock, *tasks, ledger=ledger)
    ledger.statements.clear()
    clock.waits = 0
    run_hours(simulation, 20)
    assert ledger.statements == []
    assert clock.waits <= 2


@pytest.mark.parametrize("tasks", [10, 100])
def test_a_start_with_unchanged_schedules_searches_once_for_each_and_not_over_the_past(
    clock: VirtualClock, ledger: CountingLedger, searches: list[str], tasks: int
) -> None:
    every = [f"{number % 5} * * * *" for number in range(tasks)]

    def made() -> list[Task]:
        return [Task(f"t-{number}", nothing, schedule=text) for number, text in enumerate(every)]

    settled(clock, *made(), ledger=ledger).shutdown()
    clock.advance(10 * 60)
    hk._cron_triggers.clear()  # as another process begins
    searches.clear()
    ledger.statements.clear()
    simulated(clock, *made(), ledger=ledger)
    # Whether it ever comes, and when it comes next.
    assert Counter(searches) == dict.fromkeys(every, 2)
    assert ledger.statements == ["SELECT", "SELECT"]


@pytest.mark.parametrize("tasks", [10, 100])
def test_a_list_costs_as_many_statements_however_many_tasks_there_are(
    clock: VirtualClock, ledger: CountingLedger, searches: list[str], tasks: int
) -> None:
    simulation = settled(clock, *hourly(tasks), ledger=ledger)
    ledger.statements.clear()
    searches.clear()
    assert len(simulation.list_tasks()) == tasks
    assert len(ledger.statements) == 4
    assert searches == []
