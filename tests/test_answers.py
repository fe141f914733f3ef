"""What Housekeeper answers when it is asked: why() of a tick, and health()."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import Status, Task
from tests.virtual_time import HeldExecutor, VirtualClock, VirtualHousekeeper, simulated, utc

START = utc(2024, 1, 1)
NEXT = "The next tick is 2024-01-01 {} +0000."


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return utc(2024, 1, 1, hour, minute, second)


def hourly(**options: Any) -> Task:
    return Task("sweep", lambda: None, schedule="0 * * * *", **options)


def sentences(housekeeper: hk.Housekeeper, instant: datetime | None = None) -> list[str]:
    """Return what why() says of the task, without the first sentence: what was asked for."""
    answer = housekeeper.why("sweep", instant)
    first, *others = answer["sentences"]  # type: ignore[misc]
    assert first.startswith("The schedule of task sweep, 0 * * * * in UTC, asks for ")
    return others


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


def asleep(housekeeper: VirtualHousekeeper, hours: float) -> None:
    """Let time pass in which nobody schedules."""
    clock: Any = housekeeper.clock
    clock.advance(hours * 3600)


# why.


def test_a_run_that_has_fallen_silent_says_since_when(clock) -> None:
    simulation, task = simulated(clock, hourly()), hourly()
    run = hk.LiveRun(
        definition=task,
        clock=clock,
        key="/sweep",
        id=hk.new_id(clock),
        reason=hk.Reason.MANUAL,
        runner="elsewhere:1:abcdef",
    )
    assert simulation.ledger.claim(run) is hk.Claim.MINE
    assert simulation.history("sweep")[0].note == ""
    clock.advance(90)
    (row,) = simulation.history("sweep")
    assert (row.status, row.note) == (
        Status.RUNNING,
        "no heartbeat since 2024-01-01 00:00:00 UTC",
    )


def test_a_tick_that_ran_names_the_runner_the_lateness_and_the_outcome(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(0, 59))
    clock.advance(61.5)
    simulation.run_until(at(1, 30))
    answer = simulation.why("sweep", at(1))
    assert answer["tick"] == at(1)
    assert (answer["outcome"], answer["runner"]) == ("succeeded", simulation.runner)
    assert answer["run"].scheduled_for == at(1)
    assert answer["next_run"] == at(2)
    assert answer["sentences"] == [
        "The schedule of task sweep, 0 * * * * in UTC, asks for 2024-01-01 01:00:00 +0000.",
        f"{simulation.runner} ran it at 2024-01-01 01:00:01 +0000, 2 s late;"
        " after 0.000 s it succeeded.",
        NEXT.format("02:00:00"),
    ]


def test_without_an_instant_it_is_the_latest_tick(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(5, 30))
    assert simulation.why("sweep")["tick"] == at(5)


def test_any_instant_in_the_minute_before_a_tick_finds_it_and_others_find_none(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(5, 30))
    assert simulation.why("sweep", at(4, 59, 1))["tick"] == at(5)
    answer = simulation.why("sweep", at(4, 30))
    assert (answer["tick"], answer["outcome"], answer["run"]) == (None, None, None)
    assert "nothing at 2024-01-01 04:30:00 +0000; its next tick after that is" in str(
        answer["sentences"]
    )


def test_a_failure_is_told_with_its_note(clock) -> None:
    def fail() -> None:
        raise ValueError("no such table")

    simulation = simulated(clock, Task("sweep", fail, schedule="0 * * * *"))
    simulation.run_until(at(1, 30))
    told, _ = sentences(simulation)
    assert told.endswith("it failed: ValueError: no such table.")


def test_each_tick_of_a_gap_is_found_in_the_row_that_stands_for_them(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(1, 30))
    asleep(simulation, 5)
    simulation.run_until(at(6, 45))
    for hour in (2, 3, 4, 5):
        answer = simulation.why("sweep", at(hour))
        assert answer["outcome"] == "missed"
        assert "one of 4 ticks that were missed" in str(answer["sentences"])
        stood = "the process stood still from 2024-01-01 01:30:00 to 06:30:00 UTC"
        assert stood in str(answer["sentences"])
    assert simulation.why("sweep", at(1))["outcome"] == "succeeded"
    assert simulation.why("sweep", at(6))["outcome"] == "succeeded"


def test_ticks_during_a_run_are_told_before_and_after_it_ends(clock) -> None:
    pool = HeldExecutor()
    simulation = simulated(clock, workers=pool)
    during: list[str] = []

    def slow() -> None:
        simulation.pass_ticks_until(at(3, 45))
        during.extend(sentences(simulation, at(2)))

    simulation.register_task(Task("sweep", slow, schedule="0 * * * *"))
    simulation.run_until(at(1, 30))
    pool.release()
    assert during[0].startswith("The run ")
    assert "has been going on in" in during[0]
    assert during[1] == "Ticks that pass meanwhile are recorded as skipped when it ends."
    after = sentences(simulation, at(2))
    assert "It is one of 2 ticks that were skipped" in after[0]
    assert "the run before them was still going on" in after[0]


def test_a_pause_is_told_while_it_lasts_and_afterwards(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(1, 30))
    simulation.pause_task("sweep")
    simulation.run_until(at(3, 30))
    assert sentences(simulation, at(2)) == [
        "The task was paused at 2024-01-01 01:30:00 +0000, and still is: nothing was due.",
        "The task is paused now; nothing comes before it is resumed.",
    ]
    simulation.resume_task("sweep")
    simulation.run_until(at(5, 30))
    paused, _ = sentences(simulation, at(2))
    assert "01:30:00 +0000, until 2024-01-01 03:30:00 +0000" in paused
    assert simulation.why("sweep", at(4))["outcome"] == "succeeded"


def test_a_new_task_has_no_past(clock) -> None:
    clock.advance(4.5 * 3600)
    simulation = simulated(clock, hourly())
    told, _ = sentences(simulation, at(3))
    assert told.startswith("Its ticks count from 2024-01-01 04:30:00 +0000")
    assert simulation.why("sweep", at(3))["outcome"] is None


def test_a_tick_that_nobody_claimed_is_pending_within_grace_and_too_late_after_it(
    clock, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(hk, "place_of_this_process", lambda: "")  # It is on another machine.
    url = f"sqlite:///{tmp_path}/ledger.db"
    simulated(clock, hourly(), ledger=url).run_until(at(1, 30))
    shell = simulated(clock, hourly(), ledger=url, initialize=False)
    asleep(shell, 0.6)
    first, then, *_ = sentences(shell)
    assert (
        first == "Nobody has claimed it: no scheduler was there from 2024-01-01 01:29:00 UTC on."
    )
    assert then == "It can still run: the task's grace is 3600 s."
    asleep(shell, 2)
    assert "older than the task's grace of 3600 s" in sentences(shell, at(2))[1]


def test_what_is_still_to_come_is_said_to_be(clock) -> None:
    simulation = simulated(clock, hourly())
    assert sentences(simulation, at(7)) == ["That is still to come.", NEXT.format("01:00:00")]


def test_a_row_that_was_pruned_is_said_not_to_be_kept(clock, monkeypatch) -> None:
    monkeypatch.setattr(hk, "KEEP_DAYS", 2)
    simulation = simulated(clock, hourly(grace=60))
    simulation.run_until(START + timedelta(days=5))
    told, _ = sentences(simulation, at(3))
    assert told == "Its row is no longer kept: 1,000 rows are kept for 2 days."


def test_a_disabled_task_and_one_without_a_schedule_say_so(clock) -> None:
    simulation = simulated(clock, hourly(enabled=False), Task("by-hand", lambda: None))
    simulation.run_until(at(2, 30))
    assert sentences(simulation) == [
        "The task is disabled (enabled=False): it is run only by hand."
    ]
    assert simulation.why("by-hand")["sentences"] == ["Task by-hand has no schedule."]
    simulation.run_task_manually("by-hand", wait=False)
    simulation.run_until(at(2, 31))
    (_, ran) = simulation.why("by-hand")["sentences"]  # type: ignore[misc]
    assert ran.startswith(f"{simulation.runner} ran it at 2024-01-01 02:30:00 +0000")


def test_instants_are_told_in_the_zone_of_the_task(clock) -> None:
    simulation = simulated(
        clock, Task("sweep", lambda: None, schedule="0 3 * * *", timezone="Asia/Tokyo")
    )
    simulation.run_until(utc(2024, 1, 2))
    first = simulation.why("sweep")["sentences"][0]  # type: ignore[index]
    assert first.endswith("0 3 * * * in Asia/Tokyo, asks for 2024-01-02 03:00:00 +0900.")


def test_why_of_an_unknown_task_names_the_nearest(clock) -> None:
    with pytest.raises(hk.UnknownTask, match="did you mean 'sweep'"):
        simulated(clock, hourly()).why("sweeep")


# health.


def test_a_scheduler_that_goes_round_is_healthy(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(5))
    clock.advance(10)
    health = simulation.health()
    assert (health["status"], health["problems"], health["overdue"]) == ("ok", [], [])
    assert health["started"] is True
    assert health["loop_age"] == 10
    assert health["ledger"] == {"exists": True, "reachable": True, "skew": 0.0}


def test_a_loop_that_does_not_come_round_is_critical(clock) -> None:
    simulation = simulated(clock, hourly())
    simulation.run_until(at(1))
    clock.advance(91)
    health = simulation.health()
    assert health["status"] == "critical"
    assert health["problems"] == ["The loop of this process has not run for 91 s."]


def test_a_dead_scheduler_is_noticed_from_any_process_by_its_overdue_ticks(
    clock, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(hk, "place_of_this_process", lambda: "")  # It is on another machine.
    url = f"sqlite:///{tmp_path}/ledger.db"
    tasks = [
        hourly(grace=600),
        Task("patient", lambda: None, schedule="0 * * * *", grace=math.inf),
        Task("paused", lambda: None, schedule="0 * * * *", grace=600),
        Task("off", lambda: None, schedule="0 * * * *", grace=600, enabled=False),
        Task("by-hand", lambda: None),
    ]
    dead = simulated(clock, *tasks, ledger=url)
    dead.run_until(at(1, 30))
    dead.pause_task("paused")
    shell = simulated(clock, *tasks, ledger=url, initialize=False)
    asleep(shell, 0.5 + 59 / 3600)
    assert shell.health()["overdue"] == []
    asleep(shell, 2 / 3600)
    health = shell.health()
    assert health["status"] == "critical"
    patient, sweep = sorted(health["overdue"], key=lambda each: each["task"])
    assert (sweep["task"], sweep["tick"], round(sweep["seconds"])) == ("sweep", at(2), 61)
    assert patient["task"] == "patient", "how late it may run is not how late it may be told"
    nobody = "no scheduler was there from 2024-01-01 01:29:00 UTC on"
    assert set(health["problems"]) == {
        f"No scheduler is running; the last, {dead.runner}, was seen at 2024-01-01 01:29:00 UTC.",
        *(
            f"Task {name} is overdue: nothing came of its tick at 2024-01-01 02:00:00 UTC:"
            f" {nobody}."
            for name in ("sweep", "patient")
        ),
    }
    assert (health["started"], health["loop_age"]) == (False, None)


def test_a_long_run_is_not_overdue_and_one_without_heartbeat_is_a_warning(
    clock, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    silent: list[list[str]] = []

    def slow() -> None:
        for hours in (0, 3.5):
            asleep(shell, hours)
            health = shell.health()
            assert health["overdue"] == []
            problems: Any = health["problems"]
            silent.append([each for each in problems if each.startswith("Task ")])

    task = Task("sweep", slow, schedule="0 * * * *", grace=60)
    simulation = simulated(clock, task, ledger=url)
    shell = simulated(clock, hourly(grace=60), ledger=url, initialize=False)
    simulation.run_until(at(1))
    nothing, told = silent
    assert nothing == []
    assert told[0].startswith(f"Task sweep runs in {simulation.runner}, which has sent no")


class AheadOfLedger(hk.MemoryLedger):
    """A ledger whose clock is behind this host's."""

    seconds = 0.0

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=self.seconds)


def test_a_clock_that_differs_from_the_ledgers_is_a_warning(clock, caplog) -> None:
    ledger = AheadOfLedger("memory://", clock)
    task = Task("sweep", lambda: simulation._beat(), schedule="0 * * * *")
    simulation = simulated(clock, task, ledger=ledger)
    ledger.seconds = 1.9
    assert simulation.health()["status"] == "ok"
    ledger.seconds = 2.1
    health = simulation.health()
    assert health["status"] == "warning"
    assert health["problems"] == ["This host's clock is +2.1 s from the ledger's."]
    simulation.run_until(at(1, 30))
    assert "Clock of this host is +2.1 s from the ledger's" in caplog.text


def test_a_ledger_that_cannot_be_reached_is_critical_and_a_broken_task_file_a_warning(
    make, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    here = make(start=False, tasks_dir=tmp_path, ledger=f"sqlite:///{tmp_path}/none/ledger.db")
    health = here.health()
    assert health["status"] == "critical"
    assert health["ledger"] == {"exists": False, "reachable": False, "skew": None}
    ledger, discovery = health["problems"]
    assert ledger.startswith("The ledger cannot be reached: there is none at sqlite:")
    assert "broken.py:1: it does not import (ZeroDivisionError" in discovery


def test_health_waits_two_seconds_at_most_for_a_ledger_that_does_not_answer(
    make, tmp_path: Path, monkeypatch
) -> None:
    limits: list[float] = []

    class Frozen(hk.MemoryLedger):
        def now(self) -> datetime:
            limits.append(hk._call_limit.get())
            raise hk.LedgerUnavailable("it does not answer")

    monkeypatch.setattr(hk, "MemoryLedger", Frozen)
    assert make(start=False).health()["status"] == "critical"
    assert limits == [2.0]


def test_a_run_that_is_recorded_says_its_status_in_a_verb() -> None:
    verbs = hk.Explanation.ENDED
    assert set(verbs) == set(Status) - {Status.RUNNING}
