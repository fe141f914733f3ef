"""The real loop on a virtual clock: which ticks run, and what becomes of the others."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import Reason, Status, Task, current_run
from tests.virtual_time import (
    HeldExecutor,
    Late,
    VirtualClock,
    VirtualHousekeeper,
    simulated,
    utc,
)

START = utc(2024, 1, 1)


@pytest.fixture
def years(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runners give few signs of life: each minute of years would be half an hour of tests."""
    monkeypatch.setattr(hk, "BEAT_EVERY", 43_200.0)
    monkeypatch.setattr(hk, "SEEN_WITHIN", 100_000.0)


def ticks_between(schedule: object, after: datetime, until: datetime, zone: str = "UTC"):
    """Return all ticks of a schedule in (after, until]."""
    trigger, found = hk.make_trigger(schedule, zone), []
    tick = trigger.next_after(after)
    while tick is not None and tick <= until:
        found.append(tick)
        tick = trigger.next_after(tick)
    return found


def recorder(name: str, hits: list[datetime | None], schedule: str, **options: object) -> Task:
    """Return a task that notes the ticks it runs for."""
    return Task(
        name,
        lambda: hits.append(current_run().scheduled_for),
        schedule=schedule,
        **options,  # type: ignore[arg-type]
    )


def rows_of(simulation: VirtualHousekeeper, name: str) -> list[hk.Run]:
    return list(reversed(simulation.history(name, limit=100_000)))


@pytest.mark.usefixtures("years")
@pytest.mark.parametrize(
    ("end", "often"),
    [
        (utc(2027, 1, 1), 8768),
        pytest.param(utc(2034, 1, 1), 29_224, marks=pytest.mark.torture),
    ],
    ids=["three", "ten"],
)
def test_years_of_tasks_run_each_tick_once_and_none_twice(end: datetime, often: int) -> None:
    clock = VirtualClock(START)
    hits: dict[str, list[datetime | None]] = {"often": [], "nightly": [], "monthly": []}
    schedules = {"often": "17 */3 * * *", "nightly": "30 2 * * *", "monthly": "0 4 1 * *"}
    zone = "Europe/Berlin"
    simulation = simulated(
        clock,
        *(recorder(name, hits[name], schedules[name], timezone=zone) for name in hits),
    )
    # As seldom as other ledgers are: in ten years this is a third of the time.
    simulation.ledger.PRUNE_EVERY = 86400.0
    simulation.run_until(end)
    for name, schedule in schedules.items():
        assert hits[name] == ticks_between(schedule, START, end, zone)
    assert len(hits["often"]) == often
    assert len(hits["nightly"]) == often // 8


@pytest.mark.usefixtures("years")
@pytest.mark.parametrize("months", [36, pytest.param(120, marks=pytest.mark.torture)])
def test_years_with_pauses_and_clock_jumps_still_run_no_tick_twice_and_lose_none(
    monkeypatch, months: int
) -> None:
    monkeypatch.setattr(hk, "KEEP_DAYS", 36_500)  # all rows are counted at the end
    monkeypatch.setattr(hk, "KEEP_ROWS", 100_000)
    clock = VirtualClock(START)
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("nightly", hits, "30 2 * * *", grace=7200))
    simulation.ledger.PRUNE_EVERY = 86400.0
    dice = random.Random(7)
    paused: list[tuple[datetime, datetime]] = []
    for month in range(months):
        simulation.run_until(clock.now() + timedelta(days=28))
        choice = month % 4
        if choice == 0:
            began = clock.now()
            simulation.pause_task("nightly")
            simulation.run_until(clock.now() + timedelta(days=dice.randint(1, 3), hours=1))
            simulation.resume_task("nightly")
            paused.append((began, clock.now()))
        elif choice == 1:
            clock.jump(-3600 * dice.randint(1, 30))
        elif choice == 2:
            clock.jump(3600 * dice.randint(1, 80))
    simulation.run_until(clock.now() + timedelta(days=1))
    assert len(hits) == len(set(hits))
    rows = rows_of(simulation, "nightly")
    accounted = sum(row.count for row in rows)
    expected = [
        tick
        for tick in ticks_between("30 2 * * *", START, clock.now())
        if not any(began < tick <= ended for began, ended in paused)
    ]
    assert accounted == len(expected) > 25 * months
    assert {row.status for row in rows} == {Status.SUCCEEDED, Status.MISSED}


def test_a_tick_that_was_missed_while_the_machine_slept_runs_when_it_is_within_grace() -> None:
    clock = VirtualClock(START)
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("hourly", hits, "0 * * * *", grace=1800))
    simulation.run_until(utc(2024, 1, 1, 1, 30))
    clock.jump(3600 * 4 + 600)  # to 05:40, which is 40 minutes after the newest tick
    simulation.run_until(utc(2024, 1, 1, 5, 59))
    assert hits == [utc(2024, 1, 1, 1)]
    clock.jump(3600 * 3 + 60 * 20)  # to 09:19
    simulation.run_until(utc(2024, 1, 1, 9, 30))
    assert hits == [utc(2024, 1, 1, 1), utc(2024, 1, 1, 9)]
    missed = [row for row in rows_of(simulation, "hourly") if row.status is Status.MISSED]
    assert [(row.scheduled_for, row.count) for row in missed] == [
        (utc(2024, 1, 1, 5), 4),
        (utc(2024, 1, 1, 8), 3),
    ]


@pytest.mark.usefixtures("years")
def test_with_infinite_grace_the_newest_missed_tick_always_runs() -> None:
    clock = VirtualClock(START)
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("anacron", hits, "0 3 * * *", grace=math.inf))
    simulation.run_until(utc(2024, 1, 2))
    clock.jump(86400 * 400 + 3600)
    simulation.run_until(clock.now() + timedelta(minutes=1))
    assert hits == [utc(2024, 1, 1, 3), utc(2025, 2, 4, 3)]
    # The row of 2024-01-01 is too old to be kept by then.
    assert [row.count for row in rows_of(simulation, "anacron")][-2:] == [399, 1]


@pytest.mark.usefixtures("years")
def test_a_very_long_gap_is_counted_up_to_a_thousand_and_says_so() -> None:
    clock = VirtualClock(START)
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("secondly", hits, "* * * * * *"))
    simulation.run_until(START + timedelta(seconds=5))
    clock.jump(86400 * 365 * 3)
    simulation.run_until(clock.now() + timedelta(seconds=1))
    (missed,) = (row for row in rows_of(simulation, "secondly") if row.status is Status.MISSED)
    assert missed.count == 1000
    assert "1000 or more" in missed.note


def test_ticks_of_a_restarted_process_are_caught_up_from_the_ledger(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(START)
    hits: list[datetime | None] = []
    task = recorder("hourly", hits, "0 * * * *", grace=3600)
    first = simulated(clock, task, ledger=url)
    first.run_until(utc(2024, 1, 1, 2, 30))
    first.shutdown()
    clock.advance(3600 * 10)
    simulated(clock, task, ledger=url).run_until(utc(2024, 1, 1, 13, 1))
    assert hits == [utc(2024, 1, 1, hour) for hour in (1, 2, 12, 13)]


def test_a_new_task_and_a_changed_schedule_have_no_past(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(utc(2024, 1, 1, 5, 30))
    hits: list[datetime | None] = []
    first = simulated(clock, recorder("sweep", hits, "0 * * * *"), ledger=url)
    first.run_until(utc(2024, 1, 1, 6, 30))
    first.shutdown()
    clock.advance(3600 * 5)
    changed = simulated(clock, recorder("sweep", hits, "15 * * * *"), ledger=url)
    changed.run_until(utc(2024, 1, 1, 12, 20))
    assert hits == [utc(2024, 1, 1, 6), utc(2024, 1, 1, 12, 15)]
    assert [row.status for row in rows_of(changed, "sweep")] == [Status.SUCCEEDED] * 2


def test_two_processes_on_one_ledger_run_each_tick_once(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(START)
    hits: list[datetime | None] = []
    task = recorder("minutely", hits, "* * * * *")
    both = [simulated(clock, task, ledger=url) for _ in range(2)]
    for minute in range(1, 121):
        for simulation in both if minute % 2 else reversed(both):
            simulation.clock.end = START  # type: ignore[attr-defined]
            simulation.run_until(max(clock.now(), START + timedelta(minutes=minute)))
    assert hits == [START + timedelta(minutes=minute) for minute in range(1, 121)]


def test_a_paused_task_runs_in_no_process_until_resumed(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(START)
    hits: list[datetime | None] = []
    task = recorder("hourly", hits, "0 * * * *")
    here, there = simulated(clock, task, ledger=url), simulated(clock, task, ledger=url)
    assert there.pause_task("hourly") is True
    assert here.pause_task("hourly") is False
    here.run_until(utc(2024, 1, 1, 6, 30))
    there.shutdown()
    again = simulated(clock, task, ledger=url)
    again.run_until(utc(2024, 1, 1, 8, 30))
    assert hits == []
    assert again.get_task_status("hourly")["paused"] is True
    assert again.resume_task("hourly") is True
    assert again.resume_task("hourly") is False
    again.run_until(utc(2024, 1, 1, 9, 30))
    assert hits == [utc(2024, 1, 1, 9)]
    assert again.ledger.pauses("/hourly") == [(START, utc(2024, 1, 1, 8, 30))]
    assert [row.status for row in rows_of(again, "hourly")] == [Status.SUCCEEDED]


def test_a_queued_task_runs_its_newest_tick_and_the_others_are_missed() -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("minutely", hits, "* * * * *"), workers=pool)
    simulation.run_until(START + timedelta(minutes=5, seconds=30))
    assert len(pool.queue) == 1
    assert rows_of(simulation, "minutely") == []
    pool.release()
    assert hits == [START + timedelta(minutes=5)]
    rows = rows_of(simulation, "minutely")
    assert [(row.status, row.count) for row in rows] == [
        (Status.MISSED, 4),
        (Status.SUCCEEDED, 1),
    ]


def test_ticks_that_pass_while_a_run_goes_on_become_one_skipped_row() -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    simulation = simulated(clock, workers=pool)

    def long_work() -> None:
        simulation.pass_ticks_until(clock.now() + timedelta(minutes=3))

    simulation.register_task(Task("minutely", long_work, schedule="* * * * *"))
    simulation.run_until(START + timedelta(minutes=1, seconds=10))
    pool.release()
    rows = rows_of(simulation, "minutely")
    assert [(row.status, row.count) for row in rows] == [
        (Status.SUCCEEDED, 1),
        (Status.SKIPPED, 3),
    ]
    assert rows[1].scheduled_for == START + timedelta(minutes=4)
    assert "still going on" in rows[1].note


class ShyLedger(hk.MemoryLedger):
    """A ledger that goes away while tasks are entered, and comes back."""

    def __init__(self, clock: hk.Clock) -> None:
        super().__init__("memory://", clock)
        self.parts: list[int] = []

    def register(self, entries: Sequence[hk.Entry], runner: str = "") -> dict[str, hk.Standing]:
        self.parts.append(len(entries))
        if len(self.parts) == 2:
            raise hk.LedgerUnavailable("away for a moment")
        return super().register(entries, runner)


def test_many_tasks_are_entered_in_parts_and_none_is_forgotten_when_one_part_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hk, "BOUND_AT_ONCE", 4)
    clock, hits = VirtualClock(START), list[datetime | None]()
    tasks = [recorder(f"hourly-{number}", hits, "0 * * * *") for number in range(10)]
    ledger = ShyLedger(clock)
    simulation = simulated(clock, *tasks, ledger=ledger)
    simulation.run_until(START + timedelta(hours=1, minutes=30))
    assert ledger.parts == [4, 4, 4, 2]
    assert hits == [START + timedelta(hours=1)] * 10


class BrokenLedger(hk.MemoryLedger):
    """A ledger whose first claims fail as no ledger should."""

    broken = 2

    def claim(self, run: hk.LiveRun) -> hk.Claim:
        if self.broken:
            self.broken -= 1
            raise ZeroDivisionError("a defect of the ledger")
        return super().claim(run)


def test_a_claim_that_fails_as_nobody_expected_is_tried_again_after_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, hits = VirtualClock(START), list[datetime | None]()
    simulation = simulated(
        clock, recorder("minutely", hits, "* * * * *"), ledger=BrokenLedger("memory://", clock)
    )
    simulation.run_until(START + timedelta(minutes=4, seconds=30))
    assert hits == [START + timedelta(minutes=minute) for minute in (2, 3, 4)]
    missed = [row for row in rows_of(simulation, "minutely") if row.status is Status.MISSED]
    assert [row.scheduled_for for row in missed] == [START + timedelta(minutes=1)]
    assert caplog.messages.count("Task minutely: its run failed in Housekeeper") == 2


def test_a_claim_that_always_fails_as_nobody_expected_is_no_busy_loop() -> None:
    clock, hits = VirtualClock(START), list[datetime | None]()
    ledger = BrokenLedger("memory://", clock)
    ledger.broken = 10**6
    simulation = simulated(
        clock, recorder("broken", hits, "* * * * *"), recorder("works", hits, "0 * * * *")
    )
    broken = simulated(clock, recorder("broken", hits, "* * * * *"), ledger=ledger)
    broken.run_until(START + timedelta(minutes=30))
    assert 30 <= 10**6 - ledger.broken <= 70
    assert simulation.health()["status"] == "critical"


def test_a_tick_that_passes_just_before_the_lock_is_free_is_run() -> None:
    clock, hits = VirtualClock(START), list[datetime | None]()
    simulation = simulated(clock, recorder("minutely", hits, "* * * * *"))

    def pass_a_tick() -> None:
        # What is left of this run is to free the task: the loop comes past the next tick.
        simulation.run_until(START + timedelta(minutes=2, seconds=1))
        assert hits == [START + timedelta(minutes=1)]

    registration: Any = simulation.registrations.get("minutely")
    registration.lock = Late(threading.Lock(), pass_a_tick)
    simulation.run_until(START + timedelta(minutes=1, seconds=30))
    simulation.run_until(START + timedelta(minutes=3, seconds=30))
    assert hits == [START + timedelta(minutes=minute) for minute in (1, 2, 3)]
    assert {row.status for row in rows_of(simulation, "minutely")} == {Status.SUCCEEDED}


def test_a_task_that_the_loop_is_past_after_the_clock_was_set_back_does_not_keep_it_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = VirtualClock(START)
    simulation = simulated(clock, Task("minutely", lambda: None, schedule="* * * * *"))
    simulation.run_until(START + timedelta(minutes=5, seconds=30))

    def away(*_: object) -> None:
        raise hk.LedgerUnavailable("it cannot be asked where the schedule stands")

    monkeypatch.setattr(simulation.ledger, "register", away)
    clock.jump(-240)
    # What the loop has come past stays.
    simulation.registrations.get("minutely").accounted = START + timedelta(minutes=3)
    clock.waits = 0
    simulation.run_task_manually("minutely", wait=False)
    simulation.run_until(clock.now() + timedelta(hours=1))
    assert 0 < clock.waits < 600


def test_a_clock_that_stood_in_the_future_and_came_back_silences_no_task() -> None:
    clock = VirtualClock(utc(2036, 5, 1))
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("hourly", hits, "0 * * * *"))
    simulation.run_until(utc(2036, 5, 1, 2, 30))
    clock.jump((utc(2026, 5, 1, 0, 30) - utc(2036, 5, 1, 2, 30)).total_seconds())
    simulation.run_until(utc(2026, 5, 1, 2, 30))
    assert hits[-2:] == [utc(2026, 5, 1, 1), utc(2026, 5, 1, 2)]


def test_the_wall_clock_set_back_by_an_hour_repeats_nothing() -> None:
    clock = VirtualClock(START)
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("tenly", hits, "*/10 * * * *"))
    simulation.run_until(utc(2024, 1, 1, 3, 5))
    clock.jump(-3600)
    simulation.run_until(utc(2024, 1, 1, 4, 5))
    assert Counter(hits).most_common(1)[0][1] == 1
    assert hits == ticks_between("*/10 * * * *", START, utc(2024, 1, 1, 4, 5))


def test_startup_tasks_run_once_at_start_or_after_their_delay() -> None:
    clock = VirtualClock(START)
    at: list[tuple[str, datetime]] = []
    tasks = [
        Task("now", lambda: at.append(("now", clock.now())), startup=True),
        Task("soon", lambda: at.append(("soon", clock.now())), startup=90),
        Task("never", lambda: at.append(("never", clock.now()))),
        Task("off", lambda: at.append(("off", clock.now())), startup=True, enabled=False),
        Task("reboot", lambda: at.append(("reboot", clock.now())), schedule="@reboot"),
    ]
    simulation = simulated(clock, *tasks)
    simulation.run_until(START + timedelta(hours=1))
    assert sorted(at) == [
        ("now", START),
        ("reboot", START),
        ("soon", START + timedelta(seconds=90)),
    ]
    assert rows_of(simulation, "now")[0].reason is Reason.STARTUP


def test_the_workers_of_one_start_make_one_startup_run_together(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(START)
    hits: list[int] = []
    task = Task("warm-up", lambda: hits.append(1), startup=True)
    for _ in range(4):
        simulated(clock, task, ledger=url).run_until(clock.now() + timedelta(seconds=1))
    assert hits == [1]
    clock.advance(120)
    simulated(clock, task, ledger=url).run_until(clock.now() + timedelta(seconds=1))
    assert hits == [1, 1]


def test_a_disabled_task_is_listed_and_not_scheduled() -> None:
    clock = VirtualClock(START)
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("off", hits, "* * * * *", enabled=False))
    simulation.run_until(START + timedelta(hours=1))
    assert hits == []
    (listed,) = simulation.list_tasks()
    assert (listed["enabled"], listed["scheduled"], listed["next_run"]) == (False, False, None)


def test_a_disabled_housekeeper_lists_tasks_and_refuses_manual_runs() -> None:
    clock = VirtualClock(START)
    simulation = simulated(clock, Task("one", lambda: None, schedule="0 0 * * *"), enabled=False)
    assert [each["name"] for each in simulation.list_tasks()] == ["one"]
    with pytest.raises(hk.HousekeeperError, match="switched off"):
        simulation.run_task_manually("one")


def test_tasks_can_be_registered_replaced_and_unregistered_while_they_run() -> None:
    clock = VirtualClock(START)
    hits: list[str] = []
    simulation = simulated(clock)

    def second() -> None:
        hits.append("second")
        simulation.unregister_task("sweep")

    def first() -> None:
        hits.append("first")
        simulation.register_task(Task("sweep", second, schedule="* * * * *"), replace=True)
        simulation.register_task(Task("other", lambda: hits.append("other"), schedule="* * * * *"))

    simulation.register_task(Task("sweep", first, schedule="* * * * *"))
    simulation.run_until(START + timedelta(minutes=4, seconds=1))
    assert Counter(hits) == {"first": 1, "second": 1, "other": 3}
    with pytest.raises(hk.UnknownTask, match="sweep"):
        simulation.next_runs("sweep")


def test_a_name_that_is_taken_is_refused_without_replace() -> None:
    simulation = simulated(VirtualClock(START), Task("one", lambda: None))
    with pytest.raises(hk.ConfigurationError, match="registered already"):
        simulation.register_task(Task("one", lambda: None))


def test_a_schedule_that_ends_leaves_the_loop_and_the_other_tasks_alone() -> None:
    clock = VirtualClock(utc(9999, 12, 30))
    hits: list[datetime | None] = []
    simulation = simulated(clock, recorder("last", hits, "0 0 31 12 *"))
    simulation.run_until(utc(9999, 12, 31, 12))
    assert hits == [utc(9999, 12, 31)]
    assert simulation.next_runs("last") == []


def test_a_run_that_fails_is_recorded_and_the_next_tick_runs() -> None:
    clock = VirtualClock(START)

    def fail() -> None:
        raise ValueError("no such table")

    simulation = simulated(clock, Task("bad", fail, schedule="0 * * * *"))
    simulation.run_until(START + timedelta(hours=2, seconds=1))
    rows = rows_of(simulation, "bad")
    assert [row.status for row in rows] == [Status.FAILED, Status.FAILED]
    assert rows[0].note == "ValueError: no such table"
    assert "def fail" not in rows[0].error
    assert 'raise ValueError("no such table")' in rows[0].error
    assert "housekeeper.py" not in rows[0].error


def test_retries_wait_twice_as_long_each_time_and_are_one_run() -> None:
    clock = VirtualClock(START)
    at: list[float] = []

    def fail() -> None:
        at.append((clock.now() - START).total_seconds())
        raise OSError("down")

    simulation = simulated(
        clock, Task("bad", fail, schedule="0 1 * * *", retries=3, retry_delay=60)
    )
    simulation.run_until(utc(2024, 1, 1, 5))
    assert [round(each - 3600) for each in at] == [0, 60, 180, 420]
    (row,) = rows_of(simulation, "bad")
    assert (row.status, row.attempt) == (Status.FAILED, 4)


def test_a_retry_that_succeeds_makes_the_run_a_success() -> None:
    clock = VirtualClock(START)
    tries: list[int] = []

    def flaky() -> None:
        tries.append(current_run().attempt)
        if len(tries) < 3:
            raise OSError("down")

    simulation = simulated(clock, Task("flaky", flaky, schedule="0 1 * * *", retries=5))
    simulation.run_until(utc(2024, 1, 1, 5))
    (row,) = rows_of(simulation, "flaky")
    assert (row.status, row.attempt, row.error, tries) == (Status.SUCCEEDED, 3, "", [1, 2, 3])


def test_a_retry_that_could_not_start_before_the_next_tick_is_not_made() -> None:
    clock = VirtualClock(START)

    def fail() -> None:
        raise OSError("down")

    task = Task("bad", fail, schedule="*/5 * * * *", retries=9, retry_delay=200)
    simulation = simulated(clock, task)
    simulation.run_until(START + timedelta(minutes=9, seconds=59))
    (row,) = rows_of(simulation, "bad")
    assert (row.status, row.attempt) == (Status.FAILED, 2)
    assert "the next tick is at 00:10:00 UTC" in row.note


@pytest.mark.usefixtures("years")
def test_the_delay_of_a_retry_is_an_hour_at_most() -> None:
    clock = VirtualClock(START)
    at: list[datetime] = []

    def fail() -> None:
        at.append(clock.now())
        raise OSError("down")

    task = Task("bad", fail, schedule="@yearly", retries=12, retry_delay=600)
    simulation = simulated(clock, task)
    simulation.run_until(utc(2025, 1, 2))
    gaps = [(late - early).total_seconds() for early, late in itertools.pairwise(at)]
    assert [round(gap) for gap in gaps] == [600, 1200, 2400, *[3600] * 9]


@pytest.mark.usefixtures("years")
def test_rows_of_tasks_that_nobody_registers_any_more_go_after_90_days() -> None:
    clock = VirtualClock(START)
    ledger = hk.ledger_from_url("memory://", Path("/"), clock)
    gone = Task("gone", lambda: None, schedule="0 0 * * *")
    before = simulated(clock, gone, ledger=ledger, namespace="shop")
    simulated(clock, gone, ledger=ledger, namespace="other").run_until(utc(2024, 1, 3, 12))
    clock.jump(-2.5 * 86400)
    before.run_until(utc(2024, 1, 5, 12))
    before.shutdown()
    after = simulated(clock, Task("new", lambda: None), ledger=ledger, namespace="shop")
    assert len(after.history("gone")) == 4
    after.run_until(utc(2024, 3, 30))
    assert len(after.history("gone")) == 4
    after.run_until(utc(2024, 4, 10))
    (newest,) = after.history("gone")
    assert newest.scheduled_for == utc(2024, 1, 5)
    assert len(ledger.runs("other/", limit=100)) == 2


@pytest.mark.usefixtures("years")
@pytest.mark.parametrize(("kind", "between"), [("memory", 6 * 6), ("sqlite", 24 * 6)])
def test_old_rows_are_pruned_and_the_newest_tick_is_kept(
    kind: str, between: int, tmp_path: Path
) -> None:
    clock = VirtualClock(START)
    simulation = simulated(
        clock,
        Task("every-10-minutes", lambda: None, schedule="*/10 * * * *"),
        Task("yearly", lambda: None, schedule="0 0 2 1 *"),
        ledger="memory://" if kind == "memory" else f"sqlite:///{tmp_path}/ledger.db",
    )
    most = 0
    while clock.now() < utc(2024, 1, 15):
        simulation.run_until(clock.now() + timedelta(hours=5))
        most = max(most, len(rows_of(simulation, "every-10-minutes")))
    assert 1000 < most <= 1000 + between + 1
    assert [row.scheduled_for for row in rows_of(simulation, "yearly")] == [utc(2024, 1, 2)]


def test_cancel_job_of_the_schedule_library_pauses_the_task() -> None:
    import schedule

    clock = VirtualClock(START)
    hits: list[int] = []

    def once() -> object:
        hits.append(1)
        return schedule.CancelJob

    simulation = simulated(clock, Task("once", once, schedule=schedule.every(10).minutes))
    simulation.run_until(START + timedelta(hours=2))
    assert hits == [1]
    assert simulation.get_task_status("once")["paused"] is True


def test_an_h_schedule_is_listed_as_its_concrete_form_and_survives_a_restart(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(START)
    task = Task("tokens", lambda: None, schedule="H 2 * * *")
    texts = set()
    for _ in range(3):
        simulation = simulated(clock, task, ledger=url)
        texts.add(simulation.list_tasks()[0]["schedule"])
        simulation.shutdown()
    (text,) = texts
    minute = str(text).split()[0]
    assert minute.isdigit()
    assert str(text).endswith(" 2 * * *")


def test_h_differs_between_ledgers_and_hosts_of_each_host_tasks(tmp_path) -> None:
    def schedule_of(number: int, host: str = "one", each_host: bool = False) -> object:
        url = f"sqlite:///{tmp_path}/{number}.db"
        task = Task("tokens", lambda: None, schedule="H H * * *", each_host=each_host)
        simulation = simulated(VirtualClock(START), task, ledger=url, host=host)
        return simulation.list_tasks()[0]["schedule"]

    assert len({schedule_of(number) for number in range(12)}) > 8
    assert schedule_of(1, "one") == schedule_of(1, "two")
    assert schedule_of(2, "one", each_host=True) != schedule_of(2, "two", each_host=True)


def test_namespaces_keep_applications_on_one_ledger_apart(tmp_path) -> None:
    url, clock = f"sqlite:///{tmp_path}/ledger.db", VirtualClock(START)
    hits: list[str] = []
    both = [
        simulated(
            clock,
            Task("sweep", lambda name=name: hits.append(name), schedule="0 * * * *"),  # type: ignore[misc]
            ledger=url,
            namespace=name,
        )
        for name in ("shop", "blog")
    ]
    both[0].run_until(START + timedelta(hours=1, minutes=1))
    both[1].run_until(START + timedelta(hours=1, minutes=1))
    assert sorted(hits) == ["blog", "shop"]
    assert len(both[0].history()) == 1


OPERATIONS = (
    "register",
    "replace",
    "pause",
    "resume",
    "unregister",
    "run",
    "forward",
    "back",
    "wait",
)


@pytest.mark.parametrize("seed", range(25))
def test_random_operations_never_run_a_tick_twice_or_two_runs_at_once(seed: int) -> None:
    dice, clock = random.Random(seed), VirtualClock(START)
    simulation = simulated(clock)
    hits: Counter[tuple[str, datetime]] = Counter()
    inside: set[str] = set()

    def work() -> None:
        run = current_run()
        assert run.task not in inside
        inside.add(run.task)
        if run.scheduled_for is not None and run.attempt == 1:
            hits[run.task, run.scheduled_for] += 1
        if dice.random() < 0.2:
            operate(dice.choice(OPERATIONS[:5]))
        inside.discard(run.task)
        if dice.random() < 0.1:
            raise ValueError("now and then")

    def operate(operation: str) -> None:
        name = dice.choice("abc")
        schedule = dice.choice(("* * * * *", "*/7 * * * *", "3 * * * *"))
        task = Task(name, work, schedule=schedule, retries=dice.randint(0, 1), retry_delay=20)
        try:
            if operation in ("register", "replace"):
                simulation.register_task(task, replace=operation == "replace")
            elif operation == "run":
                simulation.run_task_manually(name, wait=False)
            elif operation in ("forward", "back"):
                clock.jump(dice.randint(1, 7200) * (1 if operation == "forward" else -1))
            elif operation == "wait":
                simulation.run_until(clock.now() + timedelta(seconds=dice.randint(1, 1800)))
            else:
                getattr(simulation, f"{operation}_task")(name)
        except (hk.ConfigurationError, hk.UnknownTask, hk.AlreadyRunning):
            pass

    for _ in range(120):
        operate(dice.choice(OPERATIONS))
        simulation.run_until(clock.now() + timedelta(seconds=dice.randint(0, 300)))
    assert hits, "nothing ran"
    assert set(hits.values()) == {1}
    ticks = Counter(
        (run.task, run.scheduled_for)
        for run in simulation.history(limit=10**6)
        if run.scheduled_for
    )
    assert set(ticks.values()) == {1}
    assert not simulation.ledger.runs(status=hk.Status.RUNNING)


@pytest.mark.parametrize(("late", "outcome"), [(0.9, Status.SUCCEEDED), (1.1, Status.MISSED)])
def test_without_grace_a_tick_still_runs_within_a_second(late: float, outcome: Status) -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    task = Task("hourly", lambda: None, schedule="0 * * * *", grace=0)
    simulation = simulated(clock, task, workers=pool)
    simulation.run_until(START + timedelta(hours=1, seconds=late))
    pool.release()
    (row,) = rows_of(simulation, "hourly")
    assert row.status is outcome


# Claims that are not decided at once.


class Flaky(hk.MemoryLedger):
    """A ledger that loses the answers to claims, after or before it has carried them out."""

    def __init__(self, clock: VirtualClock, *, committed: bool) -> None:
        super().__init__("memory://", clock)
        self.committed = committed
        self.losing = 0

    def claim(self, run: hk.LiveRun) -> hk.Claim:
        if self.losing == 0:
            return super().claim(run)
        self.losing -= 1
        if self.committed:
            super().claim(run)
        raise hk.LedgerUnavailable("the connection was lost")

    def runs(self, within: str = "", **asked: Any) -> list[hk.Run]:
        if self.losing > 0 and asked.get("id"):
            self.losing -= 1
            raise hk.LedgerUnavailable("the connection was lost")
        return super().runs(within, **asked)


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("losses", [1, 3])
def test_a_claim_whose_answer_was_lost_runs_its_tick_once(committed: bool, losses: int) -> None:
    clock, hits = VirtualClock(START), []
    ledger = Flaky(clock, committed=committed)
    simulation = simulated(clock, recorder("hourly", hits, "0 * * * *"), ledger=ledger)
    ledger.losing = losses
    simulation.run_until(START + timedelta(hours=3, minutes=30))
    assert hits == ticks_between("0 * * * *", START, clock.now())
    assert [row.status for row in rows_of(simulation, "hourly")] == [Status.SUCCEEDED] * 3


@pytest.mark.parametrize("committed", [True, False])
def test_a_claim_whose_answer_came_after_grace_is_missed_and_the_next_tick_runs(
    committed: bool,
) -> None:
    clock, hits = VirtualClock(START), []
    ledger = Flaky(clock, committed=committed)
    task = recorder("hourly", hits, "0 * * * *", grace=10)
    simulation = simulated(clock, task, ledger=ledger)
    ledger.losing = 5  # tried again after 1, 2, 4 and 8 seconds, and after 16 in vain
    simulation.run_until(START + timedelta(hours=2, minutes=30))
    assert hits == [START + timedelta(hours=2)]
    missed, ran = rows_of(simulation, "hourly")
    assert (missed.status, missed.scheduled_for) == (Status.MISSED, START + timedelta(hours=1))
    assert ran.status is Status.SUCCEEDED


@pytest.mark.parametrize("committed", [True, False])
def test_a_startup_claim_whose_answer_was_lost_is_made_once(committed: bool) -> None:
    clock, ran = VirtualClock(START), []
    ledger = Flaky(clock, committed=committed)
    ledger.losing = 2
    task = Task("warm-up", lambda: ran.append(1), startup=True)
    simulation = simulated(clock, task, ledger=ledger)
    simulation.run_until(START + timedelta(hours=1))
    assert ran == [1]
    (row,) = rows_of(simulation, "warm-up")
    assert (row.reason, row.status) == (Reason.STARTUP, Status.SUCCEEDED)


def test_a_row_of_its_own_that_a_process_does_not_know_of_is_found_crashed() -> None:
    clock, hits = VirtualClock(START), []
    simulation = simulated(clock, recorder("hourly", hits, "0 * * * *"))
    ghost = simulation.claims.new_run(simulation.registrations.get("hourly"), Reason.MANUAL)
    assert simulation.ledger.claim(ghost) is hk.Claim.MINE
    simulation.run_until(START + timedelta(hours=1, minutes=30))
    assert hits == [START + timedelta(hours=1)]
    assert [row.status for row in rows_of(simulation, "hourly")] == [
        Status.CRASHED,
        Status.SUCCEEDED,
    ]


@pytest.mark.parametrize("reason", ["tick", "startup"])
def test_what_a_dead_process_left_running_delays_a_run_and_does_not_eat_it(reason: str) -> None:
    clock, ran = VirtualClock(START), []
    work = {"startup": True} if reason == "startup" else {"schedule": "0 0 * * *"}
    task = Task("nightly", lambda: ran.append(clock.now()), **work)  # type: ignore[arg-type]
    ledger = hk.ledger_from_url("memory://", Path("/"), clock)
    dead = simulated(clock, Task("nightly", lambda: None), ledger=ledger)
    left = dead.claims.new_run(dead.registrations.get("nightly"), Reason.MANUAL)
    assert ledger.claim(left) is hk.Claim.MINE
    clock.advance(120)
    simulation = simulated(clock, task, ledger=ledger)
    started = utc(2024, 1, 2) if reason == "tick" else clock.now()
    simulation.run_until(utc(2024, 1, 2, 0, 30))
    assert len(ran) == 1
    assert timedelta(seconds=hk.OBSERVED if reason == "startup" else 0) <= ran[0] - started
    assert ran[0] - started < timedelta(minutes=2)
    crashed, succeeded = rows_of(simulation, "nightly")
    assert (crashed.status, succeeded.status) == (Status.CRASHED, Status.SUCCEEDED)


class Behind(hk.MemoryLedger):
    """A ledger whose clock is behind the host's: to it, the host is ahead."""

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=600)


@pytest.mark.parametrize("schedule", ["* * * * *", "0 * * * *"])
def test_a_host_that_is_ahead_runs_each_tick_once_by_the_ledgers_clock(schedule: str) -> None:
    clock, hits = VirtualClock(START), []
    ledger = Behind("memory://", clock)
    simulation = simulated(clock, recorder("ahead", hits, schedule), ledger=ledger)
    simulation.run_until(START + timedelta(hours=3, minutes=30))
    now = ledger.now()
    assert now == START + timedelta(hours=3, minutes=20)
    begin = START - timedelta(seconds=600)
    assert hits == ticks_between(schedule, begin, now + timedelta(seconds=hk.AHEAD))
    assert {row.status for row in rows_of(simulation, "ahead")} == {Status.SUCCEEDED}


# A tick is claimed ahead of it.


class SlowLedger(hk.MemoryLedger):
    """A ledger whose claims take some time."""

    seconds = 0.0

    def claim(self, run: hk.LiveRun) -> hk.Claim:
        verdict = super().claim(run)
        self._clock.advance(self.seconds)  # type: ignore[attr-defined]
        return verdict


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.005, 0.04])
def test_a_run_begins_with_its_tick_when_the_claim_takes_no_longer_than_the_lead(
    seconds: float,
) -> None:
    clock, begun = VirtualClock(START), list[datetime]()
    ledger = SlowLedger("memory://", clock)
    ledger.seconds = seconds
    task = Task("minutely", lambda: begun.append(clock.now()), schedule="* * * * *")
    simulation = simulated(clock, task, ledger=ledger)
    simulation.run_until(START + timedelta(minutes=3.5))
    late = max(timedelta(0), timedelta(seconds=seconds) - hk.LEAD)
    assert begun == [START + timedelta(minutes=number) + late for number in (1, 2, 3)]
    for row in rows_of(simulation, "minutely"):
        assert row.started_at == row.scheduled_for


class Hasty(VirtualClock):
    """A clock whose waits end early, as they may."""

    def wait(self, waitable: hk.Waitable, seconds: float | None) -> None:
        super().wait(waitable, None if seconds is None else min(seconds, seconds / 2 + 1e-4))


def test_no_run_begins_before_its_tick_whatever_wakes_the_worker() -> None:
    clock, begun = Hasty(START), list[timedelta]()
    task = Task(
        "minutely",
        lambda: begun.append(clock.now() - current_run().scheduled_for),  # type: ignore[operator]
        schedule="* * * * *",
    )
    simulated(clock, task).run_until(START + timedelta(minutes=5, seconds=30))
    assert len(begun) == 5
    assert all(timedelta(0) <= late < timedelta(milliseconds=1) for late in begun)


@pytest.mark.parametrize("seconds", [-0.003, -1.0, -1800.0, 1800.0])
def test_a_clock_that_is_set_between_a_claim_and_its_tick_repeats_and_delays_nothing(
    seconds: float,
) -> None:
    clock, hits, begun = VirtualClock(START), list[datetime | None](), list[float]()
    ledger = hk.MemoryLedger("memory://", clock)

    def work() -> None:
        hits.append(current_run().scheduled_for)
        begun.append(clock.monotonic())

    simulation = simulated(clock, Task("hourly", work, schedule="0 * * * *"), ledger=ledger)
    claim = ledger.claim

    def set_clock(run: hk.LiveRun) -> hk.Claim:
        ledger.claim = claim  # type: ignore[method-assign]
        verdict = claim(run)
        clock.jump(seconds)
        return verdict

    ledger.claim = set_clock  # type: ignore[method-assign]
    simulation.run_until(START + timedelta(hours=4, minutes=30))
    assert hits == [START + timedelta(hours=hour) for hour in (1, 2, 3, 4)]
    assert 3600.0 - hk.LEAD.total_seconds() <= begun[0] <= 3600.0 + hk.LEAD.total_seconds()


def test_a_run_that_ends_just_before_the_next_tick_does_not_cost_it() -> None:
    clock, hits = VirtualClock(START), list[datetime | None]()
    simulation: VirtualHousekeeper

    def work() -> None:
        hits.append(current_run().scheduled_for)
        if len(hits) == 1:
            clock.advance(57)
            simulation.pass_ticks_until(START + timedelta(minutes=2) - hk.LEAD / 2)

    simulation = simulated(clock, Task("minutely", work, schedule="* * * * *"))
    simulation.run_until(START + timedelta(minutes=1.5))
    simulation.run_until(START + timedelta(minutes=3.5))
    assert hits == [START + timedelta(minutes=number) for number in (1, 2, 3)]
    assert {row.status for row in rows_of(simulation, "minutely")} == {Status.SUCCEEDED}


@pytest.mark.parametrize("kind", [MemoryError, SystemExit])
@pytest.mark.parametrize("where", ["next tick", "dispatch"])
def test_a_tick_that_was_taken_off_the_agenda_in_vain_runs_a_second_later(
    where: str, kind: type[BaseException]
) -> None:
    clock, runs = VirtualClock(utc(2026, 3, 1)), Counter[str]()
    tasks = [
        Task(name, lambda name=name: runs.update([name]), schedule="0 3 * * *") for name in "abc"
    ]
    simulation = simulated(clock, *tasks)
    at = simulation.registrations if where == "next tick" else simulation._runner
    name = "_pass_tick" if where == "next tick" else "dispatch"
    usual: Any = getattr(at, name)

    def fail(*values: Any) -> Any:
        setattr(at, name, usual)
        raise kind

    setattr(at, name, fail)
    simulation.run_until(utc(2026, 3, 1, 3, 1))
    assert runs == {"a": 1, "b": 1, "c": 1}
    simulation.run_until(utc(2026, 3, 2, 3, 1))
    assert runs == {"a": 2, "b": 2, "c": 2}
