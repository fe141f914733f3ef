"""What happens between two statements: slow calls, threads that meet, clocks that jump."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import schedule

import housekeeper as hk
from housekeeper import Claim, HousekeeperError, LedgerUnavailable, Reason, Status, Task
from tests.virtual_time import (
    ExhaustedExecutor,
    HeldExecutor,
    Late,
    VirtualClock,
    VirtualHousekeeper,
    simulated,
    utc,
)
from tests.waiting import PATIENCE, eventually

START = utc(2024, 1, 1)
EVERY_SECOND = "* * * * * *"


def outcomes(housekeeper: hk.Housekeeper, name: str = "work") -> list[tuple[Status, int]]:
    """Return the statuses and counts of a task's rows, oldest first."""
    return [(row.status, row.count) for row in reversed(housekeeper.history(name, 1000))]


class SlowClaims:
    """Has a ledger's claims wait: tells that one is under way, and lets it go on."""

    def __init__(self, ledger: hk.Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way, self.go_on = threading.Event(), threading.Event()
        claim = ledger.claim

        def slow(run: hk.LiveRun) -> Claim:
            self.under_way.set()
            assert self.go_on.wait(PATIENCE)
            return claim(run)

        monkeypatch.setattr(ledger, "claim", slow)


# Ticks that pass while a claim is under way.


def test_ticks_that_pass_during_a_claim_in_vain_are_not_skipped_for_a_run_that_never_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, hits = VirtualClock(START), list[object]()
    task = Task("work", lambda: hits.append(hk.current_run().scheduled_for), schedule=EVERY_SECOND)
    simulation = simulated(clock, task)
    claim = simulation.ledger.claim

    def in_vain(run: hk.LiveRun) -> Claim:
        if run.reason is Reason.MANUAL:
            simulation.run_until(clock.now() + timedelta(seconds=3))
            raise LedgerUnavailable("it took too long")
        return claim(run)

    monkeypatch.setattr(simulation.ledger, "claim", in_vain)
    simulation.run_until(START + timedelta(seconds=1.5))
    with pytest.raises(LedgerUnavailable):
        simulation.run_task_manually("work", wait=False)
    simulation.run_until(clock.now())
    assert hits == [START + timedelta(seconds=1), START + timedelta(seconds=4)]
    assert outcomes(simulation) == [
        (Status.SUCCEEDED, 1),
        (Status.MISSED, 2),
        (Status.SUCCEEDED, 1),
    ]


def test_ticks_missed_before_a_task_is_replaced_are_on_record_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make() -> Task:
        return Task("work", lambda: None, schedule="0 * * * *")

    clock, pool = VirtualClock(START), HeldExecutor()
    simulation = simulated(clock, make(), workers=pool)
    clock.advance(5 * 3600 + 60)  # asleep: four ticks are missed, and the fifth runs late
    clock.end = clock.now()
    simulation.agenda.step()
    due_until, replaced = simulation.claims.due_until, list[int]()

    def replaced_meanwhile() -> Any:
        if not replaced:
            # Another thread has entered the task anew, and waits for the ledger.
            replaced.append(1)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(simulation.registrations, "bind", lambda: None)
                simulation.register_task(make(), replace=True)
        return due_until()

    monkeypatch.setattr(simulation.claims, "due_until", replaced_meanwhile)
    pool.release()
    simulation.registrations.bind()
    assert outcomes(simulation) == [(Status.MISSED, 4), (Status.SUCCEEDED, 1)]


def test_a_clock_set_back_while_ticks_are_recorded_is_no_busy_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = VirtualClock(START)
    simulation = simulated(clock, Task("work", lambda: None, schedule="* * * * *", grace=30))
    record, calls = simulation.ledger.record, list[int]()

    def set_back(*values: Any) -> bool:
        calls.append(1)
        if len(calls) == 1:
            clock.jump(-3600)
        assert len(calls) < 100
        return record(*values)

    monkeypatch.setattr(simulation.ledger, "record", set_back)
    clock.advance(630)
    simulation.run_until(START + timedelta(minutes=20))
    assert len(calls) < 100
    assert not simulation.registrations.get("work").lock.locked()


# What happens between a claim and its tick.


class Meanwhile(VirtualClock):
    """A clock on which something happens while a worker waits for a tick, once."""

    happens: Callable[[], object] | None = None

    def wait(self, waitable: hk.Waitable, seconds: float | None) -> None:
        if isinstance(waitable, threading.Event) and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        super().wait(waitable, seconds)


def test_a_run_that_is_cancelled_before_its_tick_does_not_begin() -> None:
    clock, hits = Meanwhile(START), list[int]()
    simulation = simulated(clock, Task("work", lambda: hits.append(1), schedule="0 * * * *"))
    clock.happens = lambda: simulation.cancel("work")
    simulation.run_until(START + timedelta(hours=1.5))
    assert not hits
    assert outcomes(simulation) == [(Status.CANCELLED, 1)]


def test_a_shutdown_waits_for_a_run_whose_tick_is_still_to_come(make: Any, monkeypatch) -> None:
    waiting, go_on, wait = threading.Event(), threading.Event(), hk.SystemClock.wait

    def slow(clock: hk.Clock, waitable: hk.Waitable, seconds: float | None) -> None:
        if threading.current_thread().name.startswith("housekeeper-worker"):
            waiting.set()
            go_on.wait(PATIENCE)
        wait(clock, waitable, seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(hk.SystemClock, "wait", slow)
    housekeeper = make(Task("work", lambda: None, schedule=EVERY_SECOND))
    assert waiting.wait(PATIENCE)
    threading.Timer(0.3, go_on.set).start()
    assert housekeeper.shutdown(0.0)
    # Those that came to their tick too late to wait for it have run.
    assert outcomes(housekeeper)[-1] == (Status.CANCELLED, 1)


# Shutdowns and starts that meet claims.


def is_stopping(housekeeper: hk.Housekeeper) -> bool:
    """Tell whether a shutdown has begun: nothing new is taken."""
    try:
        housekeeper.run_task_manually("other")
    except HousekeeperError as error:
        return "not running" in str(error)
    return False


def test_a_claim_that_ends_does_not_take_the_next_one_of_its_task_out_of_the_books() -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    simulation = simulated(
        clock, Task("work", lambda: None, schedule=EVERY_SECOND), workers=pool, max_workers=2
    )
    registration: Any = simulation.registrations.get("work")
    # Just before the first claim frees the task, the loop comes past the next tick; just after
    # it, that is dispatched.
    registration.lock = Late(
        registration.lock, lambda: simulation.run_until(START + timedelta(seconds=2.5))
    )
    simulation.run_until(START + timedelta(seconds=1.5))
    pool.queue.pop(0)()
    simulation.run_until(clock.now() + timedelta(milliseconds=1))
    assert simulation.workload()["queued"] == 1


def test_a_shutdown_waits_for_a_claim_by_hand_and_its_run(make: Any, monkeypatch) -> None:
    housekeeper = make(Task("work", lambda: None), Task("other", lambda: None))
    claims = SlowClaims(housekeeper.ledger, monkeypatch)
    ran: list[hk.LiveRun] = []
    caller = threading.Thread(target=lambda: ran.append(housekeeper.run_task_manually("work")))
    caller.start()
    assert claims.under_way.wait(PATIENCE)
    ended: list[bool] = []
    stopper = threading.Thread(target=lambda: ended.append(housekeeper.shutdown(PATIENCE)))
    stopper.start()
    eventually(lambda: is_stopping(housekeeper))
    assert not ended
    claims.go_on.set()
    caller.join(PATIENCE)
    stopper.join(PATIENCE)
    assert ended == [True]
    assert [run.status for run in ran] == [Status.SUCCEEDED]


def test_a_claim_by_hand_that_outlasts_a_shutdown_leaves_nobody_waiting(
    make: Any, monkeypatch
) -> None:
    housekeeper = make(Task("work", lambda: None))
    claims = SlowClaims(housekeeper.ledger, monkeypatch)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            housekeeper.run_task_manually("work")
        except HousekeeperError as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert claims.under_way.wait(PATIENCE)
    housekeeper.shutdown(0.0)
    claims.go_on.set()
    caller.join(PATIENCE)
    assert len(raised) == 1
    assert outcomes(housekeeper) == [(Status.CANCELLED, 1)]


def test_a_run_whose_claim_outlasts_the_limit_does_not_begin(make: Any, monkeypatch) -> None:
    begun: list[int] = []
    housekeeper = make(Task("work", lambda: begun.append(1), schedule=EVERY_SECOND))
    claims = SlowClaims(housekeeper.ledger, monkeypatch)
    assert claims.under_way.wait(PATIENCE)
    close = housekeeper._sentry.close

    def take_time(limit: float) -> None:
        claims.go_on.set()
        nothing = {"workers": 10, "running": 0, "queued": 0}
        eventually(lambda: housekeeper.workload() == nothing)
        close(limit)

    monkeypatch.setattr(housekeeper._sentry, "close", take_time)
    housekeeper.shutdown(0.1)
    assert not begun
    assert outcomes(housekeeper) == [(Status.CANCELLED, 1)]


def test_a_claim_of_the_last_start_does_not_hold_up_this_one(make: Any, monkeypatch) -> None:
    hits = threading.Semaphore(0)
    housekeeper = make(Task("work", hits.release, schedule=EVERY_SECOND))
    with pytest.MonkeyPatch.context() as patch:
        claims = SlowClaims(housekeeper.ledger, patch)
        assert claims.under_way.wait(PATIENCE)
        housekeeper.shutdown(0.1)
    housekeeper.initialize()
    claims.go_on.set()
    for _ in range(3):
        assert hits.acquire(timeout=PATIENCE)
    assert housekeeper.shutdown(PATIENCE)
    assert housekeeper.workload()["running"] == 0


def test_a_run_of_the_last_start_takes_nothing_off_the_agenda_of_this_one(make: Any) -> None:
    go_on, ticked = threading.Event(), threading.Event()
    hangs = Task("hangs", lambda: go_on.wait(PATIENCE), timeout=3600)
    housekeeper = make(hangs)
    run = housekeeper.run_task_manually("hangs", wait=False)
    eventually(lambda: run.deadline)
    housekeeper.shutdown(0.0)
    ticks = threading.Semaphore(0)
    for number in range(20):
        housekeeper.register_task(Task(f"t{number}", ticks.release, schedule=EVERY_SECOND))
    housekeeper.initialize()
    go_on.set()
    for _ in range(40):
        assert ticks.acquire(timeout=PATIENCE)
    eventually(lambda: len({run.task for run in housekeeper.history()} - {"hangs"}) == 20)
    assert not ticked.is_set()


# Startup runs.


@pytest.mark.parametrize("change", ["unregistered", "disabled", "no startup"])
def test_a_task_that_asks_for_no_startup_run_any_more_makes_none(change: str) -> None:
    clock, hits = VirtualClock(START), list[int]()
    options: dict[str, Any] = {"disabled": {"startup": 60, "enabled": False}}.get(change, {})
    simulation = simulated(clock, Task("work", lambda: hits.append(1), startup=60))
    if change == "unregistered":
        simulation.unregister_task("work")
    else:
        simulation.register_task(Task("work", lambda: hits.append(1), **options), replace=True)
    simulation.run_until(START + timedelta(minutes=5))
    assert not hits


@pytest.mark.parametrize("back", [0.5, 1.5, 5.5, 22.0])
def test_a_startup_run_waits_until_a_ledger_that_was_away_knows_the_task(
    back: float, monkeypatch
) -> None:
    clock, hits = VirtualClock(START), list[int]()
    task = Task("work", lambda: hits.append(1), startup=True)
    simulation = simulated(clock, task, initialize=False)
    for name in ("register", "claim"):
        call = getattr(simulation.ledger, name)

        def away(*values: Any, call: Callable[..., Any] = call) -> Any:
            if clock.monotonic() < back:
                raise LedgerUnavailable("away for a moment")
            return call(*values)

        monkeypatch.setattr(simulation.ledger, name, away)
    simulation.initialize()
    simulation.run_until(START + timedelta(minutes=5))
    assert hits == [1]


def test_a_startup_run_is_made_although_the_task_is_just_claimed_for_a_tick(monkeypatch) -> None:
    clock, pool, reasons = VirtualClock(START), HeldExecutor(), list[Reason]()
    work = Task(
        "work",
        lambda: reasons.append(hk.current_run().reason),
        schedule="0 * * * *",
        grace=1,
        startup=True,
    )
    ledger = hk.MemoryLedger("memory://", clock)
    simulated(clock, work, ledger=ledger).run_until(START)
    clock.advance(90 * 60)  # down, so that a tick is missed
    reasons.clear()
    simulation = simulated(clock, work, ledger=ledger, workers=pool, initialize=False)
    bind = simulation.registrations.bind
    clock.end = clock.now()
    # The loop is faster: it comes past the tick before the startup runs are planned.
    monkeypatch.setattr(
        simulation.registrations, "bind", lambda: (bind(), simulation.agenda.step())
    )
    simulation.initialize()
    simulation.run_until(clock.now())
    pool.release()
    simulation.run_until(clock.now() + timedelta(seconds=2))
    pool.release()
    assert reasons == [Reason.STARTUP]


def test_two_threads_that_start_anew_start_once(make: Any, monkeypatch) -> None:
    housekeeper = make()
    housekeeper.shutdown()
    fresh, begun, go_on = housekeeper._fresh, threading.Event(), threading.Event()
    starts: list[int] = []

    def slow_fresh() -> None:
        fresh()
        begun.set()
        go_on.wait(0.5)

    opened = housekeeper.ledger.open
    monkeypatch.setattr(housekeeper, "_fresh", slow_fresh)
    monkeypatch.setattr(housekeeper.ledger, "open", lambda: (starts.append(1), opened()))
    threads = [threading.Thread(target=housekeeper.initialize) for _ in range(2)]
    threads[0].start()
    assert begun.wait(PATIENCE)
    threads[1].start()
    threads[1].join(0.2)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert starts == [1]


def test_a_task_that_is_registered_anew_before_the_start_is_entered_as_it_is_now(
    shared_url: str, make: Any
) -> None:
    housekeeper = make(
        Task("work", lambda: None, schedule="0 5 * * *"), start=False, ledger=shared_url
    )
    housekeeper.unregister_task("work")
    housekeeper.register_task(Task("work", lambda: None, schedule="0 4 * * *"))
    housekeeper.initialize()
    assert [tick.hour for tick in housekeeper.next_runs("work", 2)] == [4, 4]
    since = housekeeper.ledger.standings("/work")["/work"].since
    # The next process finds its schedule unchanged.
    entry = hk.Entry("/work", "0 4 * * *", "UTC")
    assert housekeeper.ledger.register([entry])["/work"].since == since


def test_a_task_whose_key_changes_while_the_ledger_is_told_of_it_is_entered_twice(
    make: Any, monkeypatch
) -> None:
    def task(**options: Any) -> Task:
        return Task("work", lambda: None, schedule=EVERY_SECOND, **options)

    housekeeper = make(task(), start=False)
    register, told = housekeeper.ledger.register, list[str]()

    def replaced_meanwhile(entries: Any, runner: str = "") -> Any:
        told.extend(key for key, *_ in entries)
        if len(told) == 1:
            again = threading.Thread(
                target=housekeeper.register_task, args=(task(each_host=True), True)
            )
            again.start()
            eventually(lambda: housekeeper._roster.get("work").task.each_host)
        return register(entries, runner)

    monkeypatch.setattr(housekeeper.ledger, "register", replaced_meanwhile)
    housekeeper.initialize()
    eventually(lambda: told == ["/work", f"/work@{housekeeper.settings.host}"])
    eventually(lambda: housekeeper.history("work"))


# What nobody expects.


@pytest.fixture
def raising_filter() -> Iterator[None]:
    """Set up a log filter that works in requests only, as those of Flask applications may."""

    class Fussy(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("Working outside of request context.")

    handler = logging.StreamHandler(io.StringIO())
    handler.addFilter(Fussy())
    hk.logger.addHandler(handler)
    yield
    hk.logger.removeHandler(handler)


@pytest.mark.usefixtures("raising_filter")
def test_a_log_filter_that_raises_costs_no_worker_and_no_task(make: Any) -> None:
    hits = threading.Semaphore(0)
    tried = threading.Semaphore(0)

    def fail() -> None:
        tried.release()
        raise ValueError

    tasks = [Task(f"fails-{number}", fail, schedule=EVERY_SECOND) for number in range(2)]
    make(*tasks, Task("works", hits.release, schedule=EVERY_SECOND), max_workers=2)
    for _ in range(3):
        assert hits.acquire(timeout=PATIENCE)
    for _ in range(4):
        assert tried.acquire(timeout=PATIENCE)


def test_a_defect_at_the_end_of_a_run_leaves_the_task_free(monkeypatch) -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    simulation = simulated(clock, workers=pool)

    def long_work() -> None:
        simulation.pass_ticks_until(clock.now() + timedelta(minutes=3))

    def defect(key: str) -> None:
        monkeypatch.undo()
        raise RuntimeError("as nobody expected")

    simulation.register_task(Task("work", long_work, schedule="* * * * *"))
    simulation.run_until(START + timedelta(minutes=1, seconds=10))
    monkeypatch.setattr(simulation.ledger, "standings", defect)
    pool.release()
    assert not simulation.registrations.get("work").lock.locked()
    assert simulation.workload()["running"] == 0
    assert outcomes(simulation)[0] == (Status.SUCCEEDED, 1)


def test_what_found_no_thread_is_done_when_there_is_one() -> None:
    clock, hits = VirtualClock(START), list[object]()
    simulation = simulated(
        clock,
        Task("work", lambda: hits.append(1), schedule="0 * * * *"),
        workers=ExhaustedExecutor(refusals=3),
    )
    simulation.run_until(START + timedelta(hours=1, minutes=1))
    assert hits == [1]


def test_an_outcome_that_is_written_late_is_written_by_a_worker(monkeypatch) -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    simulation = simulated(clock, Task("work", lambda: None, schedule="0 * * * *"), workers=pool)

    def fail_once(run: hk.LiveRun) -> bool:
        monkeypatch.undo()
        raise LedgerUnavailable("away for a moment")

    monkeypatch.setattr(simulation.ledger, "finish", fail_once)
    simulation.run_until(START + timedelta(hours=1, minutes=1))
    pool.release()
    simulation.run_until(START + timedelta(hours=1, minutes=2))
    assert outcomes(simulation) == [(Status.RUNNING, 1)]
    pool.release()
    assert outcomes(simulation) == [(Status.SUCCEEDED, 1)]


def test_cancel_job_pauses_the_task_although_the_ledger_is_away_for_a_moment(monkeypatch) -> None:
    clock, hits = VirtualClock(START), list[int]()

    def once() -> object:
        hits.append(1)
        return schedule.CancelJob

    simulation = simulated(clock, Task("work", once, schedule=schedule.every(10).seconds))

    def fail_once(key: str) -> bool:
        monkeypatch.undo()
        raise LedgerUnavailable("away for a moment")

    monkeypatch.setattr(simulation.ledger, "pause", fail_once)
    simulation.run_until(START + timedelta(minutes=5))
    assert hits == [1]
    assert simulation.get_task_status("work")["paused"] is True


def test_a_run_that_was_claimed_after_an_outage_began_after_it(monkeypatch) -> None:
    clock, told = VirtualClock(START), list[hk.Run]()
    task = Task("work", lambda: clock.advance(1), schedule="0 * * * *")
    simulation = simulated(clock, task, on_finish=told.append)
    claim, back = simulation.ledger.claim, START + timedelta(hours=1, minutes=10)

    def away(run: hk.LiveRun) -> Claim:
        if clock.now() < back:
            raise LedgerUnavailable("away for ten minutes")
        return claim(run)

    monkeypatch.setattr(simulation.ledger, "claim", away)
    simulation.run_until(START + timedelta(hours=1.5))
    assert [run.duration for run in told] == [1.0]


def test_runs_that_are_refused_do_not_add_looks_for_crashed_ones(monkeypatch) -> None:
    clock = VirtualClock(START)
    simulation = simulated(clock, Task("work", lambda: None))
    other = simulation.claims.new_run(simulation.registrations.get("work"), Reason.MANUAL)
    other.runner = "other:1:abcdef"
    assert simulation.ledger.claim(other) is Claim.MINE

    def beat() -> None:
        simulation.ledger.beat(other)
        simulation.agenda.after(15.0, beat)

    beat()
    looks: list[int] = []
    runs = simulation.ledger.runs

    def noted(within: str = "", **asked: Any) -> list[hk.Run]:
        if asked == {"running": True} and within == "":
            looks.append(1)
        return runs(within, **asked)

    monkeypatch.setattr(simulation.ledger, "runs", noted)

    def looks_in_ten_minutes() -> int:
        looks.clear()
        simulation.run_until(clock.now() + timedelta(minutes=10))
        return len(looks)

    before = looks_in_ten_minutes()
    for _ in range(50):
        with pytest.raises(hk.AlreadyRunning):
            simulation.run_task_manually("work", wait=False)
    looks_in_ten_minutes()
    assert looks_in_ten_minutes() <= before + 1


# What a task does to its own run.


def assert_ended_and_run_again(simulation: VirtualHousekeeper) -> None:
    """Run `work` for two ticks: the first has ended, nothing is held, and it runs again."""
    simulation.run_until(START + timedelta(minutes=2.5))
    assert not simulation.registrations.get("work").lock.locked()
    assert simulation.workload() == {"workers": 10, "running": 0, "queued": 0}
    first, later = outcomes(simulation)
    assert first[0] in (Status.SUCCEEDED, Status.FAILED)
    assert later == (Status.SUCCEEDED, 1)
    assert simulation.shutdown()


@pytest.mark.parametrize("ruin", [delattr, lambda run, name: setattr(run, name, None)])
@pytest.mark.parametrize("name", ["id", "attempt", "cancelled", "status", "ended", "_run"])
def test_a_task_cannot_ruin_its_run(name: str, ruin: Any) -> None:
    clock, begun = VirtualClock(START), list[int]()

    def work() -> None:
        begun.append(1)
        if len(begun) == 1:
            ruin(hk.current_run(), name)

    simulation = simulated(clock, Task("work", work, schedule="* * * * *"))
    assert_ended_and_run_again(simulation)


@pytest.mark.parametrize("ruin", [delattr, lambda run, name: setattr(run, name, object())])
@pytest.mark.parametrize("name", ["id", "key", "task", "note", "status", "output", "buffer"])
def test_what_a_task_does_to_the_run_that_its_caller_has_keeps_it_from_no_end(
    name: str, ruin: Any
) -> None:
    simulation = simulated(VirtualClock(START))
    begun: list[int] = []

    def work() -> None:
        begun.append(1)
        if len(begun) == 1:
            ruin(simulation.registrations.get("work").run, name)

    simulation.register_task(Task("work", work, schedule="* * * * *"))
    assert_ended_and_run_again(simulation)


@pytest.mark.parametrize("name", ["_wait_for", "isinstance", "_let_go", "_part_with"])
def test_a_defect_where_a_run_is_left_leaves_nothing_held(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise Defect

    clock = VirtualClock(START)
    simulation = simulated(clock)
    runner: Any = simulation._runner

    def work() -> None:
        if name == "isinstance":
            monkeypatch.setattr(hk, name, fail, raising=False)
        elif name == "_wait_for":
            monkeypatch.setattr(runner, name, fail)
        raise ZeroDivisionError

    for method in ("_let_go", "_part_with"):
        usual = getattr(runner, method)

        def spoiled(hold: hk.Hold, usual: Any = usual, method: str = method) -> None:
            usual(hold)
            if name == method:
                raise Defect

        monkeypatch.setattr(runner, method, spoiled)
    simulation.register_task(Task("work", work, retries=1))
    run = simulation.run_task_manually("work", wait=False)
    with contextlib.suppress(Defect):
        simulation.run_until(START + timedelta(minutes=2))
    monkeypatch.undo()
    assert run.ended.is_set()
    assert not simulation.registrations.get("work").lock.locked()
    assert simulation.workload() == {"workers": 10, "running": 0, "queued": 0}


class Defect(BaseException):
    """What nobody expects."""


SPOILED = ["claim", "finish", "runs", "standings", "now", "record", "beat", "runners"]
SPOILED += ["beat_runner", "register"]


@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, SystemExit, Defect])
@pytest.mark.parametrize("name", SPOILED)
def test_a_ledger_that_raises_what_nobody_expects_costs_no_task_its_next_ticks(
    name: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hits = VirtualClock(START), list[object]()
    simulation = simulated(
        clock,
        Task("work", lambda: hits.append(hk.current_run().scheduled_for), schedule="* * * * *"),
    )
    method, dice = getattr(simulation.ledger, name), random.Random(1)
    until = START + timedelta(minutes=30)

    def spoiled(*values: Any, **options: Any) -> Any:
        if clock.now() < until and dice.random() < 0.5:
            raise error("as nobody expected")
        return method(*values, **options)

    monkeypatch.setattr(simulation.ledger, name, spoiled)
    simulation.run_until(until + timedelta(minutes=5))
    hits.clear()
    simulation.run_until(until + timedelta(minutes=10.5))
    assert hits == [until + timedelta(minutes=number) for number in range(6, 11)]
    rows = simulation.history("work", 1000)
    assert sum(row.count for row in rows) == 40
    assert not simulation.registrations.get("work").lock.locked()
    assert simulation.shutdown()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, Defect])
def test_hooks_that_raise_anything_change_nothing(
    error: type[BaseException], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise error("as nobody expected")

    hits = threading.Semaphore(0)
    housekeeper = make(
        Task("work", hits.release, schedule=EVERY_SECOND),
        start=False,
        max_workers=1,
        on_finish=fail,
        around_run=fail,
    )
    for name in ("ended", "register", "beat"):
        if issubclass(error, Exception) or name == "ended":
            monkeypatch.setattr(housekeeper._sentry, name, fail)
    monkeypatch.setattr(housekeeper.metrics, "ended", fail)
    housekeeper.initialize()
    for _ in range(3):
        assert hits.acquire(timeout=PATIENCE)
    assert housekeeper.shutdown()
    statuses = {run.status for run in housekeeper.history()}
    assert statuses <= {Status.SUCCEEDED, Status.SKIPPED}


@pytest.mark.parametrize(
    "part",
    [
        "_runner.begin_to_stop",
        "_runner.await_ended",
        "_upkeep.close",
        "_sentry.close",
        "_timer.close",
        "_runner.close",
        "_backlog.close",
        "ledger.close",
        "ledger.finish",
    ],
)
@pytest.mark.parametrize("error", [ValueError, MemoryError, Defect])
def test_a_shutdown_that_fails_on_the_way_still_ends(
    part: str, error: type[BaseException], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeeper = make(Task("work", lambda: None, schedule=EVERY_SECOND))
    *owners, name = part.split(".")
    owner: Any = housekeeper
    for each in owners:
        owner = getattr(owner, each)

    def fail(*_: object) -> None:
        raise error("as nobody expected")

    monkeypatch.setattr(owner, name, fail)
    ended = threading.Event()
    threading.Thread(target=lambda: (housekeeper.shutdown(0.1), ended.set()), daemon=True).start()
    assert ended.wait(PATIENCE)
    with pytest.raises(HousekeeperError, match="not running"):
        housekeeper.run_task_manually("work")
    monkeypatch.undo()
    housekeeper._timer.close(1.0)  # Else what was kept from ending goes on beside other tests.


def test_a_cancelled_run_whose_outcome_cannot_be_recorded_is_no_busy_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, tries = VirtualClock(START), list[int]()
    simulation = simulated(clock, Task("work", lambda: None, schedule="0 * * * *"))
    simulation.register_task(
        Task("work", lambda: simulation.cancel("work"), schedule="0 * * * *"), replace=True
    )
    finish, back = simulation.ledger.finish, START + timedelta(hours=1, minutes=10)

    def away(run: hk.LiveRun) -> bool:
        tries.append(1)
        assert len(tries) < 100
        if clock.now() < back:
            raise LedgerUnavailable("away for ten minutes")
        return finish(run)

    monkeypatch.setattr(simulation.ledger, "finish", away)
    simulation.run_until(START + timedelta(hours=1.5))
    assert outcomes(simulation) == [(Status.CANCELLED, 1)]


def test_a_long_outage_adds_no_rounds_of_the_ledgers_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, calls = VirtualClock(START), list[int]()
    simulation = simulated(clock, Task("work", lambda: None, schedule="@yearly"))

    def away(*_: object, **__: object) -> Any:
        calls.append(1)
        raise LedgerUnavailable("away for hours")

    for name in ("runs", "standings", "beat_runner", "now", "runners"):
        monkeypatch.setattr(simulation.ledger, name, away)
    simulation.run_until(START + timedelta(hours=1))
    calls.clear()
    simulation.run_until(START + timedelta(hours=2))
    assert 60 <= len(calls) <= 130


def test_a_shutdown_while_the_start_waits_for_the_ledger_ends_at_once_and_starts_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "_alive", weakref.WeakSet())  # Without those of other tests.
    begun: list[int] = []
    housekeeper = make(Task("work", lambda: begun.append(1), startup=True), start=False)
    waits, go_on, opened = threading.Event(), threading.Event(), housekeeper.ledger.open

    def hang() -> None:
        waits.set()
        assert go_on.wait(PATIENCE)
        opened()

    with monkeypatch.context() as hanging:
        hanging.setattr(housekeeper.ledger, "open", hang)
        starter = threading.Thread(target=housekeeper.initialize)
        starter.start()
        assert waits.wait(PATIENCE)
        assert housekeeper.shutdown()
        go_on.set()
        starter.join(PATIENCE)
    assert not begun
    with pytest.raises(HousekeeperError, match="not running"):
        housekeeper.run_task_manually("work")
    assert hk.SCHEDULER not in os.environ
    housekeeper.initialize()
    eventually(lambda: begun)


def test_a_limit_that_is_no_number_leaves_a_housekeeper_that_can_be_shut_down(make: Any) -> None:
    housekeeper = make()
    with pytest.raises(TypeError):
        housekeeper.shutdown("soon")
    assert housekeeper.shutdown()
    assert housekeeper.health()["started"] is False


# No threads to be had.


@pytest.mark.parametrize("who", ["housekeeper-timer", "housekeeper-stop", "housekeeper-ledger"])
def test_a_thread_that_the_system_does_not_give_keeps_nothing_from_ending(
    who: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(who):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(hk, "_alive", weakref.WeakSet())  # Without those of other tests.
    heard, inside = threading.Event(), threading.Event()

    def work() -> None:
        hk.current_run().on_cancel(heard.set)
        inside.set()
        hk.current_run().wait(PATIENCE)
        heard.wait(PATIENCE)

    housekeeper = make(Task("work", work), start=False)
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)
        if who == "housekeeper-timer":
            with pytest.raises(HousekeeperError, match="no thread could be started"):
                housekeeper.initialize()
            assert hk.SCHEDULER not in os.environ
        else:
            housekeeper.initialize()
            run = housekeeper.run_task_manually("work", wait=False)
            assert inside.wait(PATIENCE)
            housekeeper.cancel("work")
            assert run.ended.wait(PATIENCE)
            assert heard.wait(PATIENCE)
            assert housekeeper.shutdown()
    housekeeper.initialize()
    run = housekeeper.run_task_manually("work", wait=False)
    housekeeper.cancel("work")
    assert run.ended.wait(PATIENCE)


@pytest.mark.parametrize("late", [False, True])
def test_a_thread_that_has_no_memory_to_begin_with_holds_up_nobody(
    late: bool, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    start, kept = getattr(threading, name), list[Any]()

    def keep(bootstrap: Any, *values: Any, **options: Any) -> Any:
        if bootstrap.__self__.name != "housekeeper-stop":
            return start(bootstrap, *values, **options)
        kept.append(functools.partial(start, bootstrap, *values, **options))
        return None

    monkeypatch.setattr(hk, "_alive", weakref.WeakSet())  # Without those of other tests.
    heard, inside = list[int](), threading.Event()

    def work() -> None:
        hk.current_run().on_cancel(lambda: heard.append(1))
        inside.set()
        hk.current_run().wait(PATIENCE)
        eventually(lambda: heard)

    housekeeper = make(Task("work", work))
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading, name, keep)
        run = housekeeper.run_task_manually("work", wait=False)
        assert inside.wait(PATIENCE)
        housekeeper.cancel("work")
        assert run.ended.wait(PATIENCE)
        assert housekeeper.shutdown()
    for begin in kept if late else ():
        begin()
    assert kept
    assert heard == [1]


# What a shutdown leaves behind, and the next start.


def test_a_hook_that_hangs_does_not_keep_a_shutdown_from_ending(make: Any) -> None:
    go_on, hung = threading.Event(), threading.Event()

    def hang(run: hk.Run) -> None:
        hung.set()
        go_on.wait(PATIENCE)

    def fail() -> None:
        raise OSError("down")

    housekeeper = make(Task("work", fail, retries=3, retry_delay=600), on_finish=hang)
    housekeeper.run_task_manually("work", wait=False)
    eventually(lambda: housekeeper.workload()["running"] == 0)
    ended: list[bool] = []
    stopper = threading.Thread(target=lambda: ended.append(housekeeper.shutdown(0.2)), daemon=True)
    stopper.start()
    assert hung.wait(PATIENCE)
    stopper.join(0.2 + 5)
    go_on.set()
    assert ended == [False]
    assert outcomes(housekeeper) == [(Status.FAILED, 1)]


@pytest.mark.parametrize("left", ["queued", "outcome"])
def test_a_task_whose_run_a_shutdown_has_left_runs_after_the_next_start(
    left: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, inside = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        while not go_on.is_set():
            with contextlib.suppress(BaseException):
                go_on.wait(PATIENCE)

    housekeeper = make(Task("hangs", hang), Task("work", lambda: None), max_workers=1)
    with monkeypatch.context() as away:
        if left == "queued":
            housekeeper.run_task_manually("hangs", wait=False)
            assert inside.wait(PATIENCE)
        else:

            def refuse(run: hk.LiveRun) -> bool:
                inside.set()
                raise LedgerUnavailable("it is away")

            away.setattr(housekeeper.ledger, "finish", refuse)
        run = housekeeper.run_task_manually("work", wait=False)
        assert inside.wait(PATIENCE)
        assert housekeeper.shutdown(0.0) is False
        assert run.ended.wait(PATIENCE)
    go_on.set()
    housekeeper.initialize()
    for row in housekeeper.ledger.runs("/work", status=hk.Status.RUNNING):
        assert housekeeper.ledger.crash(row, "its end was never recorded", dead=True)
    assert housekeeper.run_task_manually("work").status is Status.SUCCEEDED


def test_a_start_that_fails_halfway_leaves_no_loop_and_can_be_made_again(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = threading.Semaphore(0)
    housekeeper = make(Task("work", ticks.release, schedule=EVERY_SECOND), start=False)

    def defect(**_: object) -> None:
        raise ZeroDivisionError("as nobody expected")

    before = set(threading.enumerate())
    with monkeypatch.context() as broken:
        broken.setattr(housekeeper._upkeep, "start", defect)
        with pytest.raises(ZeroDivisionError):
            housekeeper.initialize()
    eventually(lambda: not set(threading.enumerate()) - before)
    housekeeper.initialize()
    loops = [each for each in threading.enumerate() if each.name == "housekeeper-timer"]
    assert len(set(loops) - before) == 1
    assert ticks.acquire(timeout=PATIENCE)
