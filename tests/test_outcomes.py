"""Each outcome that a run can have, provoked on each ledger that lasts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import SkipRun, Status, Task, current_run
from tests.postgres import ClockedPostgresLedger
from tests.virtual_time import HeldExecutor, VirtualClock, VirtualHousekeeper, simulated, utc

START = utc(2024, 1, 1)
MINUTE = "* * * * *"


class World:
    """A Housekeeper on a virtual clock with the task "work", and what its run does there."""

    def __init__(self, clock: VirtualClock, ledger: hk.Ledger) -> None:
        self.clock = clock
        self.ledger = ledger
        self.housekeeper: VirtualHousekeeper

    def start(self, work: Callable[[], object], **options: Any) -> None:
        task = Task("work", work, schedule=MINUTE, **options)
        self.housekeeper = simulated(self.clock, task, ledger=self.ledger)

    def go_on(self, seconds: float) -> None:
        self.clock.end = self.clock.now()
        self.housekeeper.run_until(self.clock.now() + hk.SECOND * seconds)


def succeed(world: World) -> None:
    world.start(lambda: None)
    world.go_on(61)


def fail(world: World) -> None:
    world.start(lambda: 1 / 0)
    world.go_on(61)


def time_out(world: World) -> None:
    def work() -> None:
        world.housekeeper.pass_ticks_until(world.clock.now() + hk.SECOND * 6)
        current_run().check_cancelled()

    world.start(work, timeout=5.0)
    world.go_on(61)


def be_cancelled(world: World) -> None:
    def work() -> None:
        world.housekeeper.cancel("work")
        current_run().check_cancelled()

    world.start(work)
    world.go_on(61)


def skip_itself(world: World) -> None:
    def work() -> None:
        raise SkipRun("there is nothing to do")

    world.start(work)
    world.go_on(61)


def be_skipped_for_an_overlap(world: World) -> None:
    world.start(lambda: None)
    world.clock.advance(30.0)
    (registration,) = world.housekeeper.registrations.all()
    by_hand = world.housekeeper.claims.new_run(registration, hk.Reason.MANUAL)
    by_hand.runner = "elsewhere:1"
    assert world.ledger.claim(by_hand) is hk.Claim.MINE  # it goes on, elsewhere
    world.go_on(31)


def be_missed(world: World) -> None:
    world.start(lambda: None, grace=10.0)
    held = HeldExecutor()
    world.housekeeper._runner.workers = world.housekeeper.workers_on(held, 1)
    world.go_on(61)
    world.clock.advance(30.0)
    held.release()


def crash(world: World) -> None:
    world.start(lambda: None)
    world.housekeeper._runner._conclude = lambda *_: None  # type: ignore  # killed
    world.go_on(61)
    world.start(lambda: None)
    world.go_on(300)


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: Any, tmp_path: Path) -> Any:
    clock = VirtualClock(START)
    ledger: hk.Ledger
    if request.param == "postgres":
        ledger = ClockedPostgresLedger(request.getfixturevalue("postgres_url"), clock)
    else:
        ledger = hk.ledger_from_url("sqlite:///ledger.db", tmp_path, clock)
    yield World(clock, ledger)
    ledger.close()


@pytest.mark.parametrize(
    ("provoke", "status", "note"),
    [
        (succeed, Status.SUCCEEDED, ""),
        (fail, Status.FAILED, "ZeroDivisionError: division by zero"),
        (time_out, Status.TIMED_OUT, "it ran longer than its timeout of 5 s"),
        (be_cancelled, Status.CANCELLED, "cancel"),
        (skip_itself, Status.SKIPPED, "there is nothing to do"),
        (be_skipped_for_an_overlap, Status.SKIPPED, "was still going on"),
        (be_missed, Status.MISSED, "all 10 workers were busy"),
        (crash, Status.CRASHED, "sent no heartbeat for more than 60 s"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_outcome_is_on_record_with_its_reason(
    world: World, provoke: Callable[[World], None], status: Status, note: str
) -> None:
    provoke(world)
    rows = world.ledger.runs("/work")
    found = [row for row in rows if row.status is status]
    assert found, [(row.status, row.note) for row in rows]
    assert note in found[-1].note
    assert found[-1].scheduled_for is not None


def test_the_table_above_has_every_outcome_there_is() -> None:
    (table,) = (
        mark.args[1]
        for mark in test_each_outcome_is_on_record_with_its_reason.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    )
    assert {status for _, status, _ in table} == set(Status) - {Status.RUNNING}
