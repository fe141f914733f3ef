"""What health, list and why say, from another process' view, in each state that can go wrong."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import Status, Task
from tests.environment import environment
from tests.virtual_time import HeldExecutor, VirtualClock, VirtualHousekeeper, simulated, utc
from tests.waiting import eventually

START = utc(2024, 1, 1)
MINUTE = timedelta(minutes=1)
EVERY_MINUTE = "* * * * *"


def minutely(name: str = "work", **options: Any) -> Task:
    """Return a task that is due each minute."""
    return Task(name, lambda: None, schedule=EVERY_MINUTE, **options)


def asked(world: VirtualHousekeeper, *tasks: Task) -> VirtualHousekeeper:
    """Return another process that only asks: it is not started."""
    return simulated(world.clock, *tasks, ledger=world.ledger, initialize=False)  # type: ignore[arg-type]


def said(housekeeper: hk.Housekeeper) -> tuple[object, str]:
    """Return the status that health() tells, and its sentences."""
    report = housekeeper.health()
    return report["status"], "\n".join(report["problems"])  # type: ignore[call-overload]


def run_for(world: VirtualHousekeeper, minutes: float) -> None:
    world.run_until(world.clock.now() + minutes * MINUTE)


# Nobody is there.


def test_all_is_well_while_a_scheduler_lives_and_every_tick_runs() -> None:
    world = simulated(VirtualClock(START), minutely())
    for _ in range(10):
        run_for(world, 7.5)
        assert said(asked(world, minutely())) == ("ok", "")


@pytest.mark.parametrize("grace", [3600.0, math.inf])
def test_a_scheduler_that_was_killed_is_told_within_three_minutes(grace: float) -> None:
    clock = VirtualClock(START)
    world = simulated(clock, minutely(grace=grace))
    run_for(world, 10)
    clock.advance(181)  # It is not heard of any more.
    status, problems = said(asked(world, minutely(grace=grace)))
    assert status == "critical"
    # It is this very process, so it is told as one that lives and does not write.
    assert f"{world.runner} is alive, but has given the ledger no sign of life" in problems
    assert "Task work is overdue: nothing came of its tick at 2024-01-01 00:11:00 UTC" in problems


def test_a_scheduler_that_was_stopped_is_told_at_once_and_who_it_was() -> None:
    world = simulated(VirtualClock(START), minutely())
    run_for(world, 10.5)
    world.shutdown()
    status, problems = said(asked(world, minutely()))
    assert status == "critical"
    assert (
        f"No scheduler is running; the last, {world.runner}, was seen at 2024-01-01 00:10:30 UTC."
        in problems
    )
    (runner,) = asked(world).runners()
    assert (runner["runner"], runner["alive"]) == (world.runner, False)
    assert runner["stopped_at"] == START + 10.5 * MINUTE


def test_a_ledger_that_no_scheduler_has_ever_used_is_told() -> None:
    world = simulated(VirtualClock(START), minutely(), initialize=False)
    assert said(world) == ("critical", "No scheduler is running; none was ever seen.")


def test_why_says_from_when_to_when_no_scheduler_was_there() -> None:
    clock = VirtualClock(START)
    world = simulated(clock, minutely(grace=30))
    run_for(world, 10.5)
    world.shutdown()
    clock.advance(1800)
    again = simulated(clock, minutely(grace=30), ledger=world.ledger)
    run_for(again, 2)
    missed = next(row for row in again.history() if row.status is Status.MISSED)
    nobody = "no scheduler was there from 2024-01-01 00:10:30 UTC to 2024-01-01 00:40:30 UTC"
    assert missed.note.startswith(nobody)
    told = asked(again, minutely()).why("work", START + 20 * MINUTE)
    assert nobody in " ".join(told["sentences"])  # type: ignore[call-overload]


def test_why_says_of_a_tick_that_is_still_to_be_claimed_who_was_there() -> None:
    clock = VirtualClock(START)
    world = simulated(clock, minutely())
    run_for(world, 2.5)
    clock.advance(90)
    sentences = " ".join(asked(world, minutely()).why("work")["sentences"])  # type: ignore[call-overload]
    assert f"Nobody has claimed it, although a scheduler was there: {world.runner}." in sentences
    world.shutdown()
    clock.advance(90)
    sentences = " ".join(asked(world, minutely()).why("work")["sentences"])  # type: ignore[call-overload]
    assert (
        "Nobody has claimed it: no scheduler was there from 2024-01-01 00:04:00 UTC" in sentences
    )


# It lives, and cannot do its work.


def test_a_scheduler_that_cannot_write_is_told_within_three_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = simulated(VirtualClock(START), minutely(grace=math.inf))
    run_for(world, 10)

    def refuse(*_: object, **__: object) -> Any:
        raise hk.LedgerUnavailable("the disk is full")

    for name in ("claim", "beat_runner", "record"):
        monkeypatch.setattr(world.ledger, name, refuse)
    run_for(world, 3)
    status, problems = said(asked(world, minutely(grace=math.inf)))
    assert status == "critical"
    assert "has given the ledger no sign of life since 2024-01-01 00:10:00 UTC" in problems
    monkeypatch.undo()
    run_for(world, 1)  # And is back by itself within half a minute.
    assert said(asked(world, minutely(grace=math.inf))) == ("ok", "")
    world.run_until(world.clock.now() + 3 * MINUTE)
    late = next(row for row in world.history() if row.status is Status.MISSED)
    assert "the ledger took no runs (the disk is full) from 2024-01-01 00:1" in late.note


def test_a_loop_that_stands_still_is_told_by_its_own_process(make: Any) -> None:
    class Hurried(hk.SystemClock):
        """A clock whose elapsed time a test can set forward."""

        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock, hung, go_on = Hurried(), threading.Event(), threading.Event()
    housekeeper = make(clock=clock)

    def hang() -> None:
        hung.set()
        go_on.wait(20)

    threading.Thread(target=housekeeper.beat_every, args=(0.0, hang)).start()
    assert hung.wait(20)
    eventually(lambda: housekeeper.health()["loop_age"] is not None)
    clock.ahead = 600.0
    status, problems = said(housekeeper)
    go_on.set()
    assert status == "critical"
    assert "The loop of this process has not run for 600 s." in problems


def test_workers_that_hang_are_told_with_their_number_and_since_when() -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    world = simulated(clock, minutely("a"), minutely("b"), workers=pool, max_workers=1)
    run_for(world, 3.1)
    status, problems = said(asked(world, minutely("a"), minutely("b")))
    assert status == "critical"
    assert "Task b is overdue" in problems
    assert "Since 2024-01-01 00:00:59 UTC the worker was busy" in problems
    sentences = " ".join(asked(world, minutely("b")).why("b")["sentences"])  # type: ignore[call-overload]
    assert "the worker was busy" in sentences


def test_workers_that_had_only_runs_by_hand_to_do_are_not_told_as_busy_afterwards(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(hk, "A_WHILE", timedelta(0))
    go_on = threading.Event()
    first, second = Task("first", lambda: go_on.wait(20)), Task("second", lambda: None)
    housekeeper = make(first, second, max_workers=1)
    runs = [housekeeper.run_task_manually(each.name, wait=False) for each in (first, second)]
    eventually(lambda: "the worker was busy" in said(housekeeper)[1])
    go_on.set()
    assert all(run.ended.wait(20) for run in runs)
    eventually(lambda: said(housekeeper) == ("ok", ""))


def test_a_task_that_falls_out_of_its_grace_for_lack_of_workers_says_so() -> None:
    clock, pool = VirtualClock(START), HeldExecutor()
    names = ("a", "b")
    world = simulated(
        clock, *(minutely(name, grace=5) for name in names), workers=pool, max_workers=1
    )
    for _ in range(2):
        run_for(world, 1)
        clock.advance(20)
        pool.release()
    missed = [row for row in world.history() if row.status is Status.MISSED]
    assert missed
    assert all("the worker was busy from 2024-01-01 00:0" in row.note for row in missed)
    status, problems = said(asked(world, *(minutely(name, grace=5) for name in names)))
    assert status == "critical"
    assert "starves: its last ticks were missed, the newest at" in problems


def test_what_the_clock_has_kept_from_its_tick_says_so() -> None:
    clock = VirtualClock(START)
    world = simulated(clock, Task("hourly", lambda: None, schedule="0 * * * *", grace=600))
    run_for(world, 30)
    clock.jump(3600 * 2)  # suspended until 02:30
    run_for(world, 1)
    (missed,) = world.history()
    assert missed.note.startswith("the clock jumped by +7200 s from 2024-01-01 00:30:00")


# Fairness.


def test_with_more_due_than_the_workers_can_do_each_task_gets_its_turn() -> None:
    clock, runs = VirtualClock(START), dict.fromkeys((f"t{number}" for number in range(30)), 0)

    def work() -> None:
        runs[hk.current_run().task] += 1
        clock.advance(1.0)

    tasks = [Task(name, work, schedule=EVERY_MINUTE, grace=9) for name in runs]
    simulated(clock, *tasks).run_until(START + 30.5 * MINUTE)
    # Some nine a minute, in thirty minutes.
    assert sum(runs.values()) > 250
    assert max(runs.values()) - min(runs.values()) <= 2


# Tasks that fail.


def test_a_failing_task_is_told_with_its_count_since_when_and_its_last_error() -> None:
    world = simulated(VirtualClock(START), Task("sweep", lambda: 1 / 0, schedule=EVERY_MINUTE))
    run_for(world, 5.5)
    status, problems = said(asked(world, minutely("sweep")))
    assert (status, problems) == (
        "warning",
        "Task sweep failed its last 5 runs, since 2024-01-01 00:01:00 UTC:"
        " ZeroDivisionError: division by zero",
    )
    (failing,) = asked(world, minutely("sweep")).health()["failing"]  # type: ignore[misc]
    assert failing["count"] == 5


# Two that do not agree.


def test_schedulers_with_different_schedules_are_told_with_both_names() -> None:
    clock = VirtualClock(START)
    here = simulated(clock, minutely())
    there = simulated(
        clock, Task("work", lambda: None, schedule="*/5 * * * *"), ledger=here.ledger
    )
    for minute in range(1, 4):
        for each in (here, there):
            each.run_until(START + minute * MINUTE)
    status, problems = said(asked(here, minutely()))
    assert status == "warning"
    assert f"Scheduler {here.runner}: Task work has the schedule * * * * * UTC here" in problems
    assert there.runner in problems


def test_schedulers_of_different_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock(START)
    here = simulated(clock, minutely())
    monkeypatch.setattr(hk, "__version__", "0.9.9")
    there = simulated(clock, minutely(), ledger=here.ledger)
    _, problems = said(asked(here, minutely()))
    assert "Schedulers of different versions are running" in problems
    assert f"{there.runner} has 0.9.9" in problems


class Apart(hk.MemoryLedger):
    """A ledger whose clock is not the host's."""

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=30)


def test_a_clock_apart_from_the_ledgers_is_told() -> None:
    clock = VirtualClock(START)
    world = simulated(clock, minutely(), ledger=Apart("memory://", clock))
    run_for(world, 2)
    assert "clock is +30.0 s from the ledger's" in said(asked(world, minutely()))[1]


def test_task_files_that_did_not_load_are_told_by_others(make: Any, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "broken.py").write_text("1 / 0\n")
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    world = make(tasks_dir=tmp_path / "tasks", ledger=ledger)
    status, problems = said(make(start=False, ledger=ledger))
    assert status == "warning"
    assert f"Scheduler {world.runner}: Discovery: " in problems
    assert "broken.py:1" in problems


# The switch.


@pytest.mark.parametrize("how", ["enabled", "environment"])
def test_what_is_switched_off_is_not_scheduled_and_nothing_comes(
    how: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "environment":
        monkeypatch.setenv("HOUSEKEEPER_ENABLED", "0")
    housekeeper = make(minutely(), enabled=how == "environment")
    (listed,) = housekeeper.list_tasks()
    assert (listed["scheduled"], listed["next_run"]) == (False, None)
    assert housekeeper.get_task_status("work")["scheduled"] is False
    assert housekeeper.next_runs("work") == []
    assert housekeeper.why("work")["next_run"] is None
    assert "switched off" in said(housekeeper)[1]


# Each host.


def test_a_task_on_each_host_is_paused_cancelled_listed_and_explained_as_one() -> None:
    clock = VirtualClock(START)
    ledger = hk.MemoryLedger("memory://", clock)

    def on(host: str) -> VirtualHousekeeper:
        return simulated(clock, minutely(each_host=True), ledger=ledger, host=host)

    first, second = on("web1"), on("web2")
    bastion = simulated(
        clock, minutely(each_host=True), ledger=ledger, host="bastion", initialize=False
    )
    for each in (first, second):
        each.clock.end = clock.now()  # type: ignore[attr-defined]
    first.run_until(START + 1.5 * MINUTE)
    second.run_until(clock.now())
    assert {row.key for row in bastion.history("work")} == {"/work@web1", "/work@web2"}
    assert bastion.pause_task("work")
    first.run_until(START + 5.5 * MINUTE)
    second.run_until(clock.now())
    assert len(bastion.history("work")) == 2
    assert bastion.list_tasks()[0]["paused"] is True
    sentences = " ".join(bastion.why("work")["sentences"])  # type: ignore[call-overload]
    assert "The task was paused at 2024-01-01 00:01:30 +0000, and still is" in sentences
    assert bastion.resume_task("work")


def test_a_host_that_is_gone_does_not_count_as_overdue() -> None:
    clock = VirtualClock(START)
    ledger = hk.MemoryLedger("memory://", clock)
    gone = simulated(clock, minutely(each_host=True), ledger=ledger, host="gone")
    run_for(gone, 2)
    gone.shutdown()
    here = simulated(clock, minutely(each_host=True), ledger=ledger, host="here")
    run_for(here, 30.5)
    assert said(asked(here, minutely(each_host=True))) == ("ok", "")


def test_h_of_another_host_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    ledger = f"sqlite:///{tmp_path}/ledger.db"

    def on(host: str, **options: Any) -> VirtualHousekeeper:
        task = Task("tokens", lambda: None, schedule="H * * * *", each_host=True)
        return simulated(clock, task, ledger=ledger, host=host, **options)

    worlds = [on(f"web{number}") for number in range(5)]
    assert len({world.list_tasks()[0]["schedule"] for world in worlds}) > 2
    for minute in range(1, 130, 3):
        for each in worlds:
            each.run_until(max(clock.now(), START + minute * MINUTE))
        assert said(on("bastion", initialize=False)) == ("ok", "")


# A clock in the future.


def test_an_hour_in_the_year_2036_changes_nothing_afterwards_and_prunes_nothing() -> None:
    clock, hits = VirtualClock(START), list[datetime | None]()
    task = Task(
        "work", lambda: hits.append(hk.current_run().scheduled_for), schedule="*/10 * * * *"
    )
    world = simulated(clock, task)
    run_for(world, 24 * 60 + 5)
    before = {row.id for row in world.history(limit=1000)}
    runner = world.runner
    clock.jump(86400 * 365 * 12)
    run_for(world, 60)
    clock.jump(-86400 * 365 * 12)
    hits.clear()
    run_for(world, 61)
    assert hits == [START + (24 * 60 + 60 + number) * MINUTE for number in range(0, 70, 10)]
    assert before <= {row.id for row in world.history(limit=1000)}
    assert runner in {row["runner"] for row in world.runners()}
    assert said(asked(world, task)) == ("ok", "")


# Real processes.


FILE = Path(hk.__file__).resolve()


@pytest.fixture
def started(tmp_path: Path, shared_url: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start schedulers on one ledger; all are killed at the end."""
    processes: list[subprocess.Popen[str]] = []
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "work.py").write_text(
        "import time\n"
        "from housekeeper import Task\n"
        "hang = Task('hang', lambda: time.sleep(600), schedule='* * * * * *', grace=600)\n"
        "tick = Task('tick', lambda: None, schedule='* * * * * *')\n"
        "slack = Task('slack', lambda: None, schedule='* * * * * *', grace=1)\n"
    )

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(FILE), "--tasks", "tasks", "--ledger", shared_url]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_scheduler_that_was_killed_and_started_again_goes_on_in_seconds(
    started: Callable[[], subprocess.Popen[str]], shared_url: str, make: Any
) -> None:
    here = make(start=False, ledger=shared_url)
    first = started()
    eventually(lambda: here.ledger.runs("/hang", status=hk.Status.RUNNING))
    first.kill()
    first.wait()
    status, problems = said(here)
    assert status == "critical"
    assert f":{first.pid}:" in problems
    assert "No scheduler is running; the last, " in problems
    killed = datetime.now(timezone.utc)
    started()
    eventually(
        lambda: any(
            run.started_at > killed for run in here.ledger.runs("/hang", status=hk.Status.RUNNING)
        )
    )
    assert datetime.now(timezone.utc) - killed < timedelta(seconds=15)
    crashed = next(row for row in here.history("hang") if row.status is Status.CRASHED)
    assert "has died" in crashed.note


def test_a_scheduler_that_lives_finds_the_crash_of_another_within_its_round(
    started: Callable[[], subprocess.Popen[str]],
    shared_url: str,
    make: Any,
    monkeypatch: Any,
    caplog: Any,
) -> None:
    monkeypatch.setattr(hk, "BEAT_EVERY", 1.0)
    told = threading.Event()

    def hear(run: hk.Run) -> None:
        if run.task == "hang":
            told.set()
            raise ValueError("webhook")

    here = make(minutely("other"), ledger=shared_url, on_finish=hear)
    first = started()
    eventually(lambda: here.ledger.runs("/hang", status=hk.Status.RUNNING))
    first.kill()
    first.wait()
    assert told.wait(20)
    assert [row.status for row in here.history("hang") if row.started_at][-1] is Status.CRASHED
    eventually(lambda: "Task hang: on_finish failed" in caplog.text)


# What else has kept a tick, and who has which schedule.


def test_a_task_file_that_was_edited_is_no_false_alarm_and_names_both_schedules() -> None:
    clock = VirtualClock(START)
    world = simulated(clock, Task("work", lambda: None, schedule="0 0 1 1 *"))
    run_for(world, 10)
    edited = asked(world, minutely())
    status, problems = said(edited)
    assert status == "warning"
    assert "has the schedule * * * * * UTC here and 0 0 1 1 * UTC in " + world.runner in problems
    sentences = " ".join(edited.why("work")["sentences"])  # type: ignore[call-overload]
    assert "and 0 0 1 1 * UTC in " + world.runner in sentences


def test_a_task_that_is_replaced_at_run_time_is_told_when_others_keep_theirs() -> None:
    clock = VirtualClock(START)
    world = simulated(clock, minutely())
    run_for(world, 1.5)
    world.register_task(minutely(), replace=True)
    run_for(world, 1.5)
    assert said(asked(world, minutely())) == ("ok", "")
    other = simulated(clock, minutely(), ledger=world.ledger)
    for minute in range(3, 6):
        for each in (world, other):
            each.run_until(START + minute * MINUTE)
    told = (
        f"Scheduler {world.runner}: Tasks that were replaced here, and in no other process: work."
    )
    assert told in said(asked(world, minutely()))[1]


def test_failures_on_a_host_that_is_gone_are_no_warning_and_others_name_their_host() -> None:
    clock = VirtualClock(START)
    ledger = hk.MemoryLedger("memory://", clock)

    def on(host: str, work: Callable[[], object], **options: Any) -> VirtualHousekeeper:
        task = Task("work", work, schedule=EVERY_MINUTE, each_host=True)
        return simulated(clock, task, ledger=ledger, host=host, **options)

    gone = on("gone", lambda: 1 / 0)
    run_for(gone, 2.5)
    sentence = "Task work on gone failed its last 2 runs, since 2024-01-01 00:01:00 UTC"
    assert sentence in said(on("gone", int, initialize=False))[1]
    gone.shutdown()
    run_for(on("here", lambda: None), 10)
    assert said(on("bastion", lambda: None, initialize=False)) == ("ok", "")


def test_a_host_that_is_gone_goes_from_all_doors_after_its_retention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "KEEP_DAYS", 3)
    monkeypatch.setattr(hk, "BEAT_EVERY", 600.0)
    clock = VirtualClock(START)

    def on(host: str, **options: Any) -> VirtualHousekeeper:
        ledger = hk.ledger_from_url("sqlite:///ledger.db", tmp_path, clock)
        task = Task("work", lambda: None, schedule="0 12 * * *", each_host=True)
        return simulated(clock, task, ledger=ledger, host=host, **options)

    def told() -> dict[str, bool]:
        """Tell which door still knows of the host that is gone."""
        door = on("bastion", initialize=False)
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/health",
            "HTTP_AUTHORIZATION": "Bearer x",
        }
        web = door.web_app(authorize=lambda _: True)
        answers = {
            "runners": door.runners(),
            "health": door.health(),
            "door": b"".join(web(environ, lambda *_: None)),
            "history": door.history(limit=1000),
            "ledger": door.ledger.standings("/"),
            "list": door.get_task_status("work"),
        }
        return {name: "gone" in str(answer) for name, answer in answers.items()}

    gone = on("gone")
    run_for(gone, 24 * 60)
    gone.shutdown()
    here = on("here")
    run_for(here, 2 * 24 * 60)
    assert told() == {**dict.fromkeys(told(), True), "list": False}  # Here it ran since.
    run_for(here, 3 * 24 * 60)
    assert not any(told().values())
    assert "here" in str(here.runners())


def test_the_process_of_a_dead_scheduler_is_looked_for_once(
    started: Callable[[], subprocess.Popen[str]], shared_url: str, make: Any, monkeypatch: Any
) -> None:
    here = make(start=False, ledger=shared_url)
    first = started()
    eventually(lambda: here.ledger.runs("/hang", status=Status.RUNNING))
    beat_at = here.runners()[0]["beat_at"]
    first.kill()
    first.wait()
    told = " ".join(here.health()["problems"])
    second = started()
    eventually(lambda: all(row["stopped_at"] for row in here.runners() if not row["alive"]))
    died = f":{first.pid}:"
    eventually(lambda: died not in str(here.ledger.runs("/hang", status=Status.RUNNING)))
    (dead,) = (row for row in here.runners() if row["pid"] == first.pid)
    assert dead["stopped_at"] == beat_at
    looked: list[int] = []
    birth_of = hk.birth_of
    monkeypatch.setattr(hk, "birth_of", lambda pid: [looked.append(pid), birth_of(pid)][1])
    assert here.health()["status"] == "ok" or "has died" in str(here.health())
    assert f"the last, {dead['runner']}, was seen at {beat_at:%Y-%m-%d %H:%M:%S} UTC" in told
    assert set(looked) == {second.pid}


def test_its_own_door_says_why_the_ledger_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = simulated(VirtualClock(START), minutely())
    run_for(world, 2)

    def refuse(*_: object, **__: object) -> Any:
        raise hk.LedgerUnavailable("ledger sqlite:///ledger.db: database or disk is full")

    monkeypatch.setattr(world.ledger, "claim", refuse)
    run_for(world, 1.5)
    status, problems = said(world)
    assert status == "critical"
    assert "the ledger took no runs (database or disk is full)." in problems
    monkeypatch.undo()
    run_for(world, 2)
    assert said(world) == ("ok", "")


def test_ticks_that_passed_while_a_claim_waited_for_the_ledger_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = simulated(VirtualClock(START), minutely())
    run_for(world, 2.5)
    claim = world.ledger.claim

    def freeze(run: hk.LiveRun) -> hk.Claim:
        if world.clock.now() < START + 10 * MINUTE:
            raise hk.LedgerUnavailable("ledger postgresql://db/shop: it did not answer in time")
        return claim(run)

    monkeypatch.setattr(world.ledger, "claim", freeze)
    run_for(world, 12)
    kept = [row for row in world.history() if row.status in (Status.SKIPPED, Status.MISSED)]
    assert kept
    for row in kept:
        assert row.note.startswith(
            "the ledger took no runs (it did not answer in time) from 2024-01-01"
        )


def test_a_process_that_stood_still_says_so(
    started: Callable[[], subprocess.Popen[str]], shared_url: str, make: Any
) -> None:
    here = make(start=False, ledger=shared_url)
    process = started()

    def stopped_between_runs() -> bool:  # In a run, the ticks that pass are skipped.
        process.send_signal(signal.SIGSTOP)
        if [row.status for row in here.ledger.runs("/slack", limit=1)] == [Status.SUCCEEDED]:
            return True
        process.send_signal(signal.SIGCONT)
        return False

    eventually(stopped_between_runs)
    began = datetime.now(timezone.utc)
    eventually(lambda: datetime.now(timezone.utc) - began > timedelta(seconds=hk.STALL + 3))
    process.send_signal(signal.SIGCONT)

    def missed() -> list[hk.Run]:
        return [row for row in here.history("slack") if row.status is Status.MISSED]

    eventually(missed)
    assert missed()[0].note.startswith("the process stood still from ")
