"""What a run and a start cost, counted in operations: seconds differ from machine to machine."""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

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


@pytest.fixture(autouse=True)
def _few_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count what runs cost; what a runner's signs of life cost has a test of its own."""
    monkeypatch.setattr(hk, "BEAT_EVERY", 1e6)


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

    def _statement(self, sql: str, *values: Any) -> Any:
        self.statements.append(sql.split()[0])
        return super()._statement(sql, *values)


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


def test_a_run_takes_no_lock_for_which_all_runs_would_queue(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    class CountedLock:
        """A lock that says who takes it."""

        def __init__(self) -> None:
            self._lock = lock()

        def __enter__(self) -> None:
            self._lock.acquire()
            taken.append(sys._getframe(1).f_code.co_qualname)

        def __exit__(self, *_: object) -> None:
            self._lock.release()

        def acquire(self, *values: Any, **options: Any) -> bool:
            return self._lock.acquire(*values, **options)

        def release(self) -> None:
            self._lock.release()

        def locked(self) -> bool:
            return self._lock.locked()

    lock = threading.Lock
    # The locks that all share: of the timer's heaps, the roster, the runner, the upkeep.
    monkeypatch.setattr(hk.threading, "Lock", CountedLock)
    simulation = settled(clock, *hourly())
    taken.clear()
    run_hours(simulation, 10)
    each_run = [name for name in taken if name.startswith(("Runner.", "Claims.", "Roster.bind"))]
    assert each_run == []
    assert "Roster.due" in taken  # by the loop, so it is these that count


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
            # Not the search in memory:// for a row's place, which grows with their number.
            self.number += frame.f_code.co_name != "_tick_of"
            self.objects += frame.f_code.co_name == "__init__"


def test_a_run_costs_no_more_calls_and_objects_than_it_did(clock: VirtualClock) -> None:
    simulation = each_second(clock)
    with Calls() as calls:
        simulation.run_until(clock.now() + timedelta(seconds=RUNS))

    # Who makes a run dearer knows that from here, and has a reason.
    assert 50 < calls.number / RUNS < 170
    # The run, its output, two flags, and the hold that frees its task.
    assert calls.objects / RUNS < 5.5


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
    # The parts and the version of the tables, the runner and its clock, runs of dead processes and
    # these, where the schedules stand, the ledger's identity, and the clock.
    assert ledger.statements == [*["SELECT"] * 3, "INSERT", *["SELECT"] * 5]


@pytest.mark.parametrize("tasks", [10, 100])
def test_a_list_costs_as_many_statements_however_many_tasks_there_are(
    clock: VirtualClock, ledger: CountingLedger, searches: list[str], tasks: int
) -> None:
    simulation = settled(clock, *hourly(tasks), ledger=ledger)
    ledger.statements.clear()
    searches.clear()
    assert len(simulation.list_tasks()) == tasks
    # The parts and the version of the tables, what runs, where the schedules stand, the last runs.
    assert ledger.statements == ["SELECT"] * 5
    assert searches == []
