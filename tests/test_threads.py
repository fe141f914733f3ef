"""The real pool on the real clock: many tasks at once, changes while ticks go on, shutdown."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import Status, Task, current_run
from tests.accounting import assert_accounted, assert_ran_once
from tests.virtual_time import ExhaustedExecutor, Late
from tests.waiting import PATIENCE, eventually

EVERY_SECOND = "* * * * * *"


def ended(run: hk.LiveRun, within: float = PATIENCE) -> hk.LiveRun:
    """Wait for a run's end, and return it."""
    assert run.ended.wait(within), f"run of {run.task} did not end within {within} s"
    return run


def start(housekeeper: hk.Housekeeper, task: Task) -> hk.LiveRun:
    """Register a task, and begin a run of it."""
    housekeeper.register_task(task)
    return housekeeper.run_task_manually(task.name, wait=False)


def cron_of(instant: datetime) -> str:
    """Return the cron expression, seconds first, of one second in the year."""
    return f"{instant:%S %M %H %d %m} *"


def assert_alive(housekeeper: hk.Housekeeper) -> None:
    """The loop still dispatches ticks, and the pool still runs what is asked by hand."""
    ticked = threading.Event()
    housekeeper.register_task(Task("alive", ticked.set, schedule=EVERY_SECOND), replace=True)
    assert ticked.wait(PATIENCE)
    housekeeper.unregister_task("alive")
    run = start(housekeeper, Task("alive-by-hand", lambda: None))
    assert ended(run).status is Status.SUCCEEDED
    housekeeper.unregister_task("alive-by-hand")


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """An event that hung tasks wait for; set at the end, so that none outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def hang_until(event: threading.Event, hung: threading.Event) -> Callable[[], None]:
    """Return a task that ignores all that asks it to stop."""

    def hang() -> None:
        while not event.is_set():
            try:
                hung.set()
                event.wait(PATIENCE)
            except BaseException:
                logging.getLogger("hung").info("I will not")

    return hang


# Many at once.


def test_ten_thousand_tasks_that_are_due_in_one_second_all_run_once_for_it(make) -> None:
    total = 10_000
    hits: list[tuple[str, datetime | None]] = []
    done = threading.Event()

    def work() -> None:
        run = current_run()
        hits.append((run.task, run.scheduled_for))
        if len(hits) >= total:
            done.set()

    tick = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=4)
    tasks = [Task(f"task-{number}", work, schedule=cron_of(tick)) for number in range(total)]
    housekeeper = make(*tasks, ledger="memory://")
    assert datetime.now(timezone.utc) < tick, "this machine is too slow to register them in time"
    assert done.wait(40)
    assert_alive(housekeeper)
    assert Counter(hits) == {(task.name, tick): 1 for task in tasks}
    rows = [row for row in housekeeper.history(limit=2 * total) if row.task.startswith("task-")]
    assert Counter((row.status, row.scheduled_for) for row in rows) == {
        (Status.SUCCEEDED, tick): total
    }


def test_ten_long_tasks_run_at_once_and_the_eleventh_waits(make, let_go) -> None:
    inside = threading.Barrier(11)
    eleventh = threading.Event()

    def long() -> None:
        inside.wait(PATIENCE)
        assert let_go.wait(PATIENCE)

    housekeeper = make(max_workers=10)
    runs = [start(housekeeper, Task(f"long-{number}", long)) for number in range(10)]
    inside.wait(PATIENCE)
    runs.append(start(housekeeper, Task("eleventh", eleventh.set)))
    assert not eleventh.wait(0.5)
    let_go.set()
    assert eleventh.wait(PATIENCE)
    assert {ended(run).status for run in runs} == {Status.SUCCEEDED}


@pytest.fixture
def restless_interpreter() -> Iterator[None]:
    """Switch threads as often as the interpreter can, so that all happens between all."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def do_something(housekeeper: hk.Housekeeper, tasks: dict[str, Task], dice: random.Random) -> None:
    """Do one of the things that come between a task's runs, and its ticks."""
    name = dice.choice(list(tasks))
    with contextlib.suppress(hk.AlreadyRunning):
        match dice.randrange(5):
            case 0:
                housekeeper.register_task(tasks[name], replace=True)
            case 1:
                housekeeper.run_task_manually(name)
            case 2:
                housekeeper.list_tasks()
            case 3:
                housekeeper.metrics.read()
            case _:
                housekeeper.get_task_status(name)


@pytest.mark.torture
@pytest.mark.usefixtures("restless_interpreter")
def test_threads_that_are_switched_all_the_time_lose_no_tick_and_repeat_none(make) -> None:
    ticks: dict[str, list[datetime]] = defaultdict(list)
    busy: set[str] = set()

    def work() -> None:
        run = current_run()
        assert run.task not in busy
        busy.add(run.task)
        if run.scheduled_for is not None:
            ticks[run.task].append(run.scheduled_for)
        time.sleep(durations[run.task])
        busy.remove(run.task)

    durations = {f"short-{number}": number % 20 / 1000 for number in range(60)}
    durations |= {f"long-{number}": 1.3 for number in range(3)}
    tasks = {name: Task(name, work, schedule=EVERY_SECOND) for name in durations}
    housekeeper = make(*tasks.values(), max_workers=10)
    dice, end = random.Random(time.time_ns()), time.monotonic() + 30.0
    while time.monotonic() < end:
        do_something(housekeeper, tasks, dice)
        time.sleep(dice.random() / 50)

    assert housekeeper.shutdown(PATIENCE)
    assert housekeeper.workload() == {"workers": 10, "running": 0, "queued": 0}
    for name in durations:
        rows = housekeeper.history(name, 10_000)
        # On a busy machine, some ticks are missed: all workers were busy.
        assert {row.status for row in rows} <= {Status.SUCCEEDED, Status.SKIPPED, Status.MISSED}
        assert_ran_once(ticks[name], rows)
        ordered = assert_accounted(rows, hk.CronTrigger(EVERY_SECOND))
        assert len(ordered) > 5  # Each is accounted for; how many run depends on the machine.


def queue(workers: hk.Workers, work: Callable[[], object]) -> None:
    """Give work to the workers, as the timer's thread does."""
    workers.queue.append((work, None))  # type: ignore[arg-type]
    workers.wake()


def test_what_is_queued_just_before_the_last_worker_goes_idle_is_done() -> None:
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        workers = hk.Workers(pool, 1, lambda work, _: work())  # type: ignore[operator,arg-type]
        late: Any = Late(workers._idle, lambda: queue(workers, done.set))
        workers._idle = late
        queue(workers, lambda: None)
        assert done.wait(PATIENCE)


def test_a_worker_that_could_not_be_started_is_not_lost() -> None:
    done = threading.Event()
    workers = hk.Workers(ExhaustedExecutor(refusals=1), 1, lambda work, _: work())
    with pytest.raises(RuntimeError):
        queue(workers, lambda: None)
    queue(workers, done.set)
    assert done.is_set()


@pytest.mark.usefixtures("restless_interpreter")
def test_a_brief_lock_lets_one_thread_in_at_a_time() -> None:
    lock, inside, most = hk.BriefLock(), [0], [0]

    def enter() -> None:
        for _ in range(2000):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: enter(), range(4)))
    assert (inside, most) == ([0], [1])


def test_ticks_that_wait_for_a_full_pool_run_once_it_has_room(make, let_go) -> None:
    hung = threading.Event()
    hits: list[datetime | None] = []
    ran = threading.Event()

    def tick() -> None:
        hits.append(current_run().scheduled_for)
        ran.set()

    housekeeper = make(max_workers=1)
    start(housekeeper, Task("hog", hang_until(let_go, hung)))
    assert hung.wait(PATIENCE)
    housekeeper.register_task(Task("ticks", tick, schedule=EVERY_SECOND))
    assert not ran.wait(1.2)
    let_go.set()
    assert ran.wait(PATIENCE)
    housekeeper.unregister_task("ticks")
    assert len(hits) == len(set(hits))


def fail() -> None:
    raise OSError("disk")


def flood() -> None:
    log = logging.getLogger("flood")
    for _ in range(3000):
        log.warning("x" * 1000)


def test_tasks_that_misbehave_at_each_tick_do_not_touch_the_others(make) -> None:
    good, misbehaved = threading.Semaphore(0), threading.Semaphore(0)

    def misbehaving(function: Callable[[], None]) -> Callable[[], None]:
        def misbehave() -> None:
            misbehaved.release()
            function()

        return misbehave

    bad = {"fails": fail, "exits": sys.exit, "floods": flood}
    housekeeper = make(
        *(Task(name, misbehaving(bad[name]), schedule=EVERY_SECOND) for name in bad),
        Task("good", good.release, schedule=EVERY_SECOND),
        max_workers=2,
    )
    for _ in range(2):
        for _ in bad:
            assert misbehaved.acquire(timeout=PATIENCE)
        assert good.acquire(timeout=PATIENCE)
    for name in ("good", *bad):
        housekeeper.unregister_task(name)
    assert_alive(housekeeper)
    assert housekeeper.shutdown() is True
    rows = [(row.task, row.status) for name in ("good", *bad) for row in housekeeper.history(name)]
    # On a loaded machine, a tick may come while the run before it still goes on.
    assert {row for row in rows if row[1] is not Status.SKIPPED} == {
        ("fails", Status.FAILED),
        ("exits", Status.FAILED),
        ("floods", Status.SUCCEEDED),
        ("good", Status.SUCCEEDED),
    }
    assert all(len(row.output) < 40_000 for row in housekeeper.history())


# Changes while ticks go on.


def test_a_task_can_register_replace_pause_resume_and_unregister_others_and_itself(make) -> None:
    replaced, resumed = threading.Event(), threading.Event()
    housekeeper = make(max_workers=2)

    def conduct() -> None:
        housekeeper.register_task(Task("other", lambda: None, schedule="0 0 1 1 *"))
        replacement = Task("other", replaced.set, schedule=EVERY_SECOND)
        housekeeper.register_task(replacement, replace=True)
        assert replaced.wait(PATIENCE)
        assert housekeeper.pause_task("other")
        assert not housekeeper.pause_task("other")
        assert housekeeper.get_task_status("other")["paused"]
        assert housekeeper.resume_task("other")
        replaced.clear()
        assert replaced.wait(PATIENCE)
        housekeeper.unregister_task("other")
        housekeeper.register_task(Task("conductor", resumed.set), replace=True)
        housekeeper.unregister_task("conductor")

    run = ended(start(housekeeper, Task("conductor", conduct)))
    assert run.status is Status.SUCCEEDED, run.error
    assert housekeeper.task_names() == []
    assert ended(start(housekeeper, Task("conductor", resumed.set))).status is Status.SUCCEEDED
    assert resumed.is_set()
    assert_alive(housekeeper)


def test_a_command_of_a_dead_scheduler_that_is_slow_to_end_holds_up_no_heartbeat(
    make, let_go: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "HEARTBEAT_EVERY", 0.05)
    ending, beaten = threading.Event(), threading.Event()

    def end_slowly(group: str, clock: hk.Clock) -> bool:
        ending.set()
        return let_go.wait(PATIENCE)

    monkeypatch.setattr(hk, "end_group", end_slowly)
    url, clock = f"sqlite:///{tmp_path}/ledger.db", hk.SystemClock()
    ledger: Any = hk.ledger_from_url(url, tmp_path, clock)
    ledger.open()
    # Its process id is one that no system gives.
    place = hk.place_of_this_process()
    names = {"runner": "gone:4194305:x", "namespace": "", "host": "gone", "version": "0"}
    ledger.beat_runner(hk.RunnerRow(**names, pid=2**22 + 1, place=place, birth="1", workers=1))
    left = hk.LiveRun(
        definition=Task("left", command="true"),
        clock=clock,
        key="/left",
        id=hk.new_id(clock),
        reason=hk.Reason.MANUAL,
        runner=names["runner"],
        started_at=clock.now(),
    )
    left.group = "4194306:1"
    assert ledger.claim(left) is hk.Claim.MINE
    ledger.beat(left)
    housekeeper = make(ledger=url)
    assert ending.wait(PATIENCE)
    beat = housekeeper.ledger.beat

    def tell_beat(run: hk.LiveRun) -> Any:
        beaten.set()
        return beat(run)

    monkeypatch.setattr(housekeeper.ledger, "beat", tell_beat)
    run = start(housekeeper, Task("lively", lambda: let_go.wait(PATIENCE)))
    assert beaten.wait(PATIENCE)
    let_go.set()
    assert ended(run).status is Status.SUCCEEDED
    eventually(lambda: housekeeper.get_run(left.id).status is Status.CRASHED)
    ledger.close()


def test_the_process_group_of_a_command_is_on_record_while_it_runs(make) -> None:
    housekeeper = make()
    run = start(housekeeper, Task("sleepy", command="sleep 60"))
    eventually(lambda: hk.first_of(housekeeper.ledger.runs(id=run.id)).group == run.group != "")
    housekeeper.cancel("sleepy")
    assert ended(run).status is Status.CANCELLED


def test_eight_threads_can_change_the_tasks_at_once_while_ticks_go_on(make) -> None:
    housekeeper = make(Task("steady", lambda: None, schedule=EVERY_SECOND), max_workers=4)
    together = threading.Barrier(8)
    failures: list[BaseException] = []
    until = time.monotonic() + 2.5

    def change(own: str) -> None:
        together.wait(PATIENCE)
        while time.monotonic() < until:
            for name in (own, "common"):
                housekeeper.register_task(
                    Task(name, lambda: None, schedule=EVERY_SECOND), replace=True
                )
                try:
                    housekeeper.pause_task(name)
                    housekeeper.resume_task(name)
                    housekeeper.run_task_manually(name, wait=False)
                    housekeeper.cancel(name)
                    housekeeper.unregister_task(name)
                except (hk.UnknownTask, hk.AlreadyRunning):
                    if name == own and name not in housekeeper.task_names():
                        raise
                housekeeper.list_tasks()

    def checked(own: str) -> None:
        try:
            change(own)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=checked, args=(f"own-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    for name in housekeeper.task_names():
        housekeeper.unregister_task(name)
    assert_alive(housekeeper)
    steady = housekeeper.history("steady", limit=100)
    ticks = [row.scheduled_for for row in steady]
    assert len(ticks) == len(set(ticks)) >= 2
    for number in range(8):
        run = start(housekeeper, Task(f"own-{number}", lambda: None))
        assert ended(run).status is Status.SUCCEEDED
    assert housekeeper.shutdown() is True


def test_of_two_threads_that_replace_a_task_the_last_one_counts(make) -> None:
    housekeeper = make()
    register, entered, go_on = housekeeper.ledger.register, threading.Event(), threading.Event()

    def stalled(*entries: Any) -> Any:
        if not entered.is_set():
            entered.set()
            assert go_on.wait(PATIENCE)
        return register(*entries)

    housekeeper.ledger.register = stalled
    first, last = Task("job", fail, schedule="0 1 * * *"), Task("job", fail, schedule="0 2 * * *")
    slow = threading.Thread(target=housekeeper.register_task, args=(first,))
    slow.start()
    assert entered.wait(PATIENCE)
    fast = threading.Thread(target=housekeeper.register_task, args=(last, True))
    fast.start()
    eventually(lambda: housekeeper.next_runs("job", count=1)[0].hour == 2)
    go_on.set()
    slow.join(PATIENCE)
    fast.join(PATIENCE)
    assert housekeeper.next_runs("job", count=1)[0].hour == 2
    assert housekeeper.list_tasks()[0]["schedule"] == "0 2 * * *"


def test_a_task_that_is_unregistered_while_it_runs_is_recorded_and_can_come_back(
    make, let_go
) -> None:
    started = threading.Event()

    def work() -> None:
        started.set()
        assert let_go.wait(PATIENCE)

    housekeeper = make()
    run = start(housekeeper, Task("leaves", work))
    assert started.wait(PATIENCE)
    housekeeper.unregister_task("leaves")
    housekeeper.register_task(Task("leaves", lambda: None))
    with pytest.raises(hk.AlreadyRunning) as refused:
        housekeeper.run_task_manually("leaves")
    assert refused.value.run is not None
    assert refused.value.run.id == run.id
    let_go.set()
    assert ended(run).status is Status.SUCCEEDED
    assert housekeeper.history("leaves")[0].status is Status.SUCCEEDED
    assert housekeeper.run_task_manually("leaves").status is Status.SUCCEEDED


# Threads and shutdown.


def test_all_threads_are_named_and_end_with_the_shutdown(make) -> None:
    before = set(threading.enumerate())
    names: list[str] = []
    housekeeper = make(
        Task("where", lambda: names.append(threading.current_thread().name)),
        Task("command", command="true"),
    )
    housekeeper.run_task_manually("where")
    housekeeper.run_task_manually("command")
    mine = set(threading.enumerate()) - before
    assert all(thread.name.startswith("housekeeper-") for thread in mine)
    assert {"housekeeper-timer", *names} <= {thread.name for thread in mine}
    assert names[0].startswith("housekeeper-worker")
    assert housekeeper.shutdown() is True
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread.name


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_raised_in_the_timers_thread_ends_no_schedule(make, kind: type) -> None:
    raised: list[str] = []

    class Clock(hk.SystemClock):
        def wait(self, waitable: hk.Waitable, seconds: float | None) -> None:
            super().wait(waitable, seconds)
            name = threading.current_thread().name
            if name == "housekeeper-timer" and len(raised) < 100:
                raised.append(name)
                raise kind

    housekeeper = make(clock=Clock())
    assert_alive(housekeeper)
    eventually(lambda: len(raised) == 100 or not housekeeper._timer.after(0.0, int))
    assert_alive(housekeeper)
    assert housekeeper.shutdown()


def test_a_shutdown_waits_for_what_runs_and_twice_is_harmless(make) -> None:
    started, asked = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert asked.wait(PATIENCE)
        assert not current_run().cancelled

    housekeeper = make()
    ask_to_stop = housekeeper.ledger.ask_to_stop

    def ask(*words: Any) -> Any:
        row = ask_to_stop(*words)
        asked.set()
        return row

    housekeeper.ledger.ask_to_stop = ask
    run = start(housekeeper, Task("works", work))
    assert started.wait(PATIENCE)
    assert housekeeper.shutdown() is True
    assert run.status is Status.SUCCEEDED, run.error
    row = housekeeper.history("works")[0]
    assert row.status is Status.SUCCEEDED
    assert row.stop_asked_at is not None
    assert housekeeper.shutdown() is True
    with pytest.raises(hk.HousekeeperError):
        housekeeper.run_task_manually("works")


def test_a_shutdown_waits_for_on_finish_too(make, let_go) -> None:
    reached, told = threading.Event(), threading.Event()

    def on_finish(run: hk.Run) -> None:
        reached.set()
        let_go.wait(0.5)
        told.set()

    housekeeper = make(on_finish=on_finish)
    start(housekeeper, Task("tells", lambda: None))
    assert reached.wait(PATIENCE)
    assert housekeeper.shutdown() is True
    assert told.is_set()


def test_a_shutdown_dispatches_no_further_tick_and_needs_no_initialize(make) -> None:
    hits = threading.Semaphore(0)
    housekeeper = make(Task("ticks", hits.release, schedule=EVERY_SECOND))
    assert hits.acquire(timeout=PATIENCE)
    assert housekeeper.shutdown() is True
    while hits.acquire(blocking=False):
        pass
    assert not hits.acquire(timeout=1.5)
    assert make(start=False).shutdown() is True


@pytest.mark.parametrize("gone", [False, True])
def test_a_shutdown_ends_the_wait_of_a_run_for_its_retry(make, gone: bool) -> None:
    housekeeper = make(max_workers=1)
    run = start(housekeeper, Task("retries", fail, retries=5, retry_delay=600))
    # The only worker is free for another task when the first attempt is over.
    ended(start(housekeeper, Task("another", lambda: None)))
    if gone:
        housekeeper.unregister_task("retries")
    before = time.monotonic()
    assert housekeeper.shutdown(timeout=1.0) is True
    assert time.monotonic() - before < 60.0
    assert (run.status, run.attempt) == (Status.FAILED, 1)
    assert housekeeper.history("retries")[0].status is Status.FAILED


def test_a_hung_task_is_abandoned_and_recorded_cancelled(make, tmp_path, let_go) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    hung = threading.Event()
    housekeeper = make(ledger=ledger)
    start(housekeeper, Task("hangs", hang_until(let_go, hung)))
    assert hung.wait(PATIENCE)
    before = time.monotonic()
    assert housekeeper.shutdown(timeout=0.5) is False
    assert 0.5 <= time.monotonic() - before < 5.5
    row = make(ledger=ledger).history("hangs")[0]
    assert row.status is Status.CANCELLED
    assert "shutdown" in row.note
    assert "in hang" in row.error
    assert row.stop_asked_at is not None


def test_a_task_that_hears_a_cancel_ends_within_the_shutdown_at_its_limit(make) -> None:
    started = threading.Event()

    def spin() -> None:
        started.set()
        while True:
            pass

    housekeeper = make()
    run = start(housekeeper, Task("spins", spin))
    assert started.wait(PATIENCE)
    assert housekeeper.shutdown(timeout=0.2) is True
    assert run.status is Status.CANCELLED
    assert housekeeper.history("spins")[0].status is Status.CANCELLED


def test_who_waits_for_a_run_that_a_shutdown_abandons_is_told(make, let_go) -> None:
    hung, told = threading.Event(), threading.Event()
    housekeeper = make(Task("hangs", hang_until(let_go, hung)), max_workers=1)

    def wait_for_it() -> None:
        with pytest.raises(hk.RunFailed):
            housekeeper.run_task_manually("hangs")
        told.set()

    threading.Thread(target=wait_for_it, daemon=True).start()
    assert hung.wait(PATIENCE)
    assert housekeeper.shutdown(timeout=0.1) is False
    assert told.wait(3.0)


def test_after_a_shutdown_initialize_starts_it_again(make) -> None:
    hits = threading.Semaphore(0)
    housekeeper = make(Task("ticks", hits.release, schedule=EVERY_SECOND))
    assert hits.acquire(timeout=PATIENCE)
    assert housekeeper.shutdown() is True
    while hits.acquire(blocking=False):
        pass
    housekeeper.initialize()
    assert hits.acquire(timeout=3.0), "initialize() said nothing, and no tick runs"
    assert ended(start(housekeeper, Task("by-hand", lambda: None))).status is Status.SUCCEEDED
    assert housekeeper.shutdown() is True


def test_a_task_that_waited_to_be_claimed_again_runs_after_the_next_start(make, tmp_path) -> None:
    hits = threading.Semaphore(0)
    refused = threading.Event()

    housekeeper = make(
        Task("ticks", hits.release, schedule=EVERY_SECOND),
        start=False,
        ledger=f"sqlite:///{tmp_path}/ledger.db",
    )
    claim = housekeeper.ledger.claim

    def away(run: hk.LiveRun) -> hk.Claim:
        refused.set()
        raise hk.LedgerUnavailable("it is away")

    housekeeper.ledger.claim = away
    housekeeper.initialize()
    assert refused.wait(PATIENCE)
    assert housekeeper.shutdown() is True
    housekeeper.ledger.claim = claim
    housekeeper.initialize()
    assert hits.acquire(timeout=PATIENCE), "its lock was still taken"
