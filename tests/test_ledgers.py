"""The ledgers: one contract for all of them, what is SQLite's own, and many processes at once."""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest

import housekeeper as hk
from housekeeper import (
    Claim,
    ConfigurationError,
    Entry,
    LedgerUnavailable,
    Progress,
    Reason,
    Status,
    Task,
)
from tests.postgres import ClockedPostgresLedger
from tests.virtual_time import VirtualClock, simulated, utc

START = utc(2024, 1, 1)
HERE, THERE = "here:1:aaaaaa", "there:2:bbbbbb"
KEY = "/sweep"
DAY = 86400.0
LIMIT = 60  # seconds after which something hangs that must not


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: Any, tmp_path: Path, clock: VirtualClock) -> Iterator[hk.Ledger]:
    made: hk.Ledger
    if request.param == "postgres":
        made = ClockedPostgresLedger(request.getfixturevalue("postgres_url"), clock)
    else:
        url = {"memory": "memory://", "sqlite": "sqlite:///ledger.db"}[request.param]
        made = hk.ledger_from_url(url, tmp_path, clock)
    made.open()
    yield made
    made.close()


class Bench:
    """A ledger with its clock, and short ways to work on them."""

    def __init__(self, ledger: hk.Ledger, clock: VirtualClock) -> None:
        self.ledger = ledger
        self.clock = clock

    def run(
        self, tick: datetime | None = None, *, runner: str = HERE, key: str = KEY
    ) -> hk.LiveRun:
        """Return a run that has not been claimed yet."""
        return hk.LiveRun(
            definition=Task(hk.name_of(key), lambda: None),
            clock=self.clock,
            key=key,
            id=hk.new_id(self.clock),
            reason=Reason.MANUAL if tick is None else Reason.SCHEDULE,
            runner=runner,
            scheduled_for=tick,
        )

    def claimed(self, tick: datetime | None = None, **options: Any) -> hk.LiveRun:
        run = self.run(tick, **options)
        assert self.ledger.claim(run) is Claim.MINE
        return run

    def finish(self, run: hk.LiveRun, status: Status = Status.SUCCEEDED) -> bool:
        run.status = status
        return self.ledger.finish(run)

    def finished(self, tick: datetime | None = None, **options: Any) -> hk.LiveRun:
        run = self.claimed(tick, **options)
        assert self.finish(run)
        return run

    def claims_startup(self) -> bool:
        """Try to make the startup run, and finish it at once."""
        run = self.run()
        run.reason = Reason.STARTUP
        return self.ledger.claim(run) is Claim.MINE and self.finish(run)

    def gap(self, after: datetime, last: datetime, count: int = 1) -> bool:
        row = self.run(last)
        row.status, row.count, row.note = Status.MISSED, count, "the process was down"
        return self.ledger.record(row, KEY, after)

    def skip(self, tick: datetime, beside: hk.Run | None = None) -> bool:
        """Record a tick that another run stood in the way of."""
        row = self.run(tick, runner=THERE)
        row.status, row.note = Status.SKIPPED, "another run was still going on"
        after = tick - timedelta.resolution
        return self.ledger.record(row, KEY, after, beside.id if beside is not None else "")

    def row(self, run: hk.Run) -> hk.Run:
        (row,) = self.ledger.runs(id=run.id)
        return row

    def rows(self, key: str = KEY) -> list[hk.Run]:
        """Return all rows of a task, oldest first."""
        return self.ledger.runs(key)[::-1]

    def since(self, schedule: str = "0 * * * *", zone: str = "UTC") -> datetime:
        return self.ledger.register([Entry(KEY, schedule, zone)])[KEY].since

    def standing(self, key: str = KEY) -> hk.Standing:
        return self.ledger.standings(key)[key]

    def prune(self, grace: float = 60.0, key: str = KEY, *, gone: bool = False) -> int:
        """Delete what is old, as a Housekeeper does whose task has that grace."""
        old = self.clock.now() - timedelta(days=90)
        young = max(old, self.clock.now() - timedelta(seconds=min(grace, 1e9)))
        return self.ledger.prune(key, young=young, old=old, gone=gone)

    def running(self, within: str = "") -> set[str]:
        return {run.key for run in self.ledger.runs(within, status=hk.Status.RUNNING)}

    def last(self, key: str = KEY) -> hk.Lasts:
        return self.ledger.lasts(key)[key]

    def crash(self, row: hk.Run) -> bool:
        return self.ledger.crash(row, "its runner is gone")


@pytest.fixture
def bench(ledger: hk.Ledger, clock: VirtualClock) -> Bench:
    return Bench(ledger, clock)


def minutes(number: float) -> datetime:
    return START + timedelta(minutes=number)


class TestEveryLedger:
    """The contract."""

    # Claiming.

    # 7 ms ahead by the ledger's clock is 5 by that of a host that is 2 ms ahead of it.
    @pytest.mark.parametrize(
        ("ahead", "starts"), [(0.007, -0.002), (0.003, 0.0), (0.0, 0.0), (-2.0, 2.0)]
    )
    def test_a_run_that_was_claimed_just_before_its_tick_began_with_it(
        self, bench: Bench, clock: VirtualClock, ahead: float, starts: float
    ) -> None:
        clock.advance(60 - ahead)
        run = bench.claimed(minutes(1))
        assert bench.row(run).started_at == minutes(1) + timedelta(seconds=starts)
        assert bench.finish(run)  # before its tick: it was cancelled meanwhile
        assert bench.row(run).duration == 0.0

    def test_the_first_claim_of_a_tick_is_mine_and_all_others_find_it_taken(
        self, bench: Bench
    ) -> None:
        first = bench.claimed(START)
        assert bench.ledger.claim(bench.run(START, runner=THERE)) is Claim.TAKEN
        assert bench.finish(first)
        assert bench.ledger.claim(bench.run(START, runner=THERE)) is Claim.TAKEN
        assert [row.id for row in bench.rows()] == [first.id]

    def test_a_claimed_row_says_what_runs_where_since_when(self, bench: Bench) -> None:
        bench.clock.advance(1.25)
        row = bench.row(bench.claimed(START))
        assert (row.task, row.reason, row.status) == ("sweep", Reason.SCHEDULE, Status.RUNNING)
        assert (row.runner, row.scheduled_for, row.attempt, row.count) == (HERE, START, 1, 1)
        assert row.started_at == row.heartbeat_at == START + timedelta(seconds=1.25)
        assert row.finished_at is row.stop_asked_at is row.progress_made is None

    def test_a_claim_that_is_tried_again_with_the_same_id_is_still_mine(
        self, bench: Bench
    ) -> None:
        run = bench.claimed(START)
        assert bench.ledger.claim(run) is Claim.MINE
        by_hand = bench.claimed(key="/other")
        assert bench.ledger.claim(by_hand) is Claim.MINE
        assert bench.finish(run)
        assert bench.ledger.claim(run) is Claim.TAKEN
        assert len(bench.rows()) == 1

    @pytest.mark.parametrize("tick", [START, None])
    def test_a_claim_whose_row_was_found_crashed_meanwhile_is_not_mine_any_more(
        self, bench: Bench, tick: datetime | None
    ) -> None:
        lost = bench.claimed(tick)  # Its answer, say.
        bench.clock.advance(hk.LEASE + 1)
        assert bench.crash(bench.row(lost))
        assert bench.ledger.claim(lost) is Claim.TAKEN
        bench.claimed()
        assert bench.ledger.claim(lost) is Claim.TAKEN

    def test_a_paused_task_is_not_claimed_and_leaves_no_row(self, bench: Bench) -> None:
        bench.ledger.pause(KEY)
        assert bench.ledger.claim(bench.run(START)) is Claim.PAUSED
        assert bench.rows() == []
        bench.ledger.resume(KEY)
        bench.claimed(START)

    def test_a_paused_task_can_be_run_by_hand(self, bench: Bench) -> None:
        bench.ledger.pause(KEY)
        bench.claimed()

    def test_a_tick_before_one_that_is_on_record_is_superseded(self, bench: Bench) -> None:
        bench.clock.advance(60)
        later = bench.finished(minutes(1))
        assert bench.ledger.claim(bench.run(START, runner=THERE)) is Claim.SUPERSEDED
        assert [row.id for row in bench.rows()] == [later.id]

    def test_a_tick_during_a_run_is_recorded_beside_it_once_and_then_taken(
        self, bench: Bench
    ) -> None:
        going = bench.claimed(START)
        bench.clock.advance(60)
        assert bench.ledger.claim(bench.run(minutes(1), runner=THERE)) is Claim.OVERLAPPED
        assert len(bench.rows()) == 1
        assert bench.skip(minutes(1), going)
        _, skipped = bench.rows()
        assert (skipped.status, skipped.scheduled_for) == (Status.SKIPPED, minutes(1))
        assert (skipped.reason, skipped.runner) == (Reason.SCHEDULE, THERE)
        assert skipped.note == "another run was still going on"
        assert (skipped.started_at, skipped.finished_at) == (None, minutes(1))
        assert not bench.skip(minutes(1), going)
        assert bench.ledger.claim(bench.run(minutes(1))) is Claim.TAKEN
        assert bench.finish(going)
        bench.clock.advance(60)
        bench.claimed(minutes(2))

    def test_a_tick_is_not_recorded_beside_a_run_that_has_ended_meanwhile(
        self, bench: Bench
    ) -> None:
        ended = bench.finished(START)
        bench.clock.advance(60)
        assert not bench.skip(minutes(1), ended)
        bench.claimed(minutes(1))

    def test_no_tick_of_the_future_is_recorded(self, bench: Bench) -> None:
        assert not bench.skip(START + timedelta(seconds=1.001))
        assert not bench.gap(START, minutes(5), count=5)
        assert bench.rows() == []
        assert bench.skip(START + timedelta(seconds=1))

    def test_a_tick_more_than_a_second_ahead_of_the_ledgers_clock_is_too_early(
        self, bench: Bench
    ) -> None:
        assert bench.ledger.claim(bench.run(START + timedelta(seconds=1.001))) is Claim.EARLY
        assert bench.rows() == []
        bench.claimed(START + timedelta(seconds=1))

    def test_runs_by_hand_have_no_tick_and_come_one_at_a_time(self, bench: Bench) -> None:
        first = bench.claimed()
        assert bench.row(first).scheduled_for is None
        assert bench.ledger.claim(bench.run(runner=THERE)) is Claim.OVERLAPPED
        assert len(bench.rows()) == 1
        assert bench.finish(first)
        assert bench.finish(bench.claimed(runner=THERE))
        assert [row.scheduled_for for row in bench.rows()] == [None, None]

    def test_runs_by_hand_and_ticks_exclude_each_other(self, bench: Bench) -> None:
        by_hand = bench.claimed()
        assert bench.ledger.claim(bench.run(START)) is Claim.OVERLAPPED
        assert bench.finish(by_hand)
        bench.clock.advance(60)
        bench.claimed(minutes(1))
        assert bench.ledger.claim(bench.run()) is Claim.OVERLAPPED

    def test_other_tasks_are_not_in_the_way(self, bench: Bench) -> None:
        for key in ("/sweep", "/sweep-2", "shop/sweep", "/sweep@alpha", "/sweep@beta"):
            bench.claimed(START, key=key)
        assert bench.running() == {
            "/sweep",
            "/sweep-2",
            "shop/sweep",
            "/sweep@alpha",
            "/sweep@beta",
        }

    def test_a_host_whose_clock_stood_in_2036_blocks_no_tick(self, bench: Bench) -> None:
        bench.since()
        away = (utc(2036, 5, 5) - START).total_seconds()
        bench.clock.jump(away)
        bench.finished(utc(2036, 5, 5), runner=THERE)
        bench.clock.jump(-away)
        assert bench.standing().newest is None
        bench.finished(START)
        bench.clock.advance(60)
        bench.claimed(minutes(1))
        assert bench.standing().newest == minutes(1)

    def test_what_a_clock_in_2036_has_left_is_neither_the_last_run_nor_listed(
        self, bench: Bench
    ) -> None:
        bench.since()
        away = (utc(2036, 5, 5) - START).total_seconds()
        bench.clock.jump(away)
        future = bench.claimed()
        assert bench.finish(future, Status.FAILED)
        assert bench.since("5 * * * *") == utc(2036, 5, 5)
        bench.clock.jump(-away)
        assert bench.last() == hk.Lasts()
        assert bench.rows() == []
        assert bench.since("5 * * * *") == START, "ticks would count from 2036 on"
        now = bench.finished()
        assert bench.last().run == bench.row(now)
        assert bench.last().failures == 0
        assert [row.id for row in bench.rows()] == [now.id]
        assert bench.row(future).status is Status.FAILED

    def test_a_run_of_a_host_that_died_in_2036_does_not_block_its_task_until_then(
        self, bench: Bench
    ) -> None:
        away = (utc(2036, 5, 5) - START).total_seconds()
        bench.clock.jump(away)
        run = bench.claimed(utc(2036, 5, 5), runner=THERE)
        bench.clock.jump(-away)
        bench.clock.advance(600)  # in which it sent no heartbeat
        assert bench.crash(bench.row(run))

    # Finishing.

    def test_a_finished_row_holds_the_outcome(self, bench: Bench) -> None:
        run = bench.claimed(START)
        bench.clock.advance(90)
        run.attempt, run.note, run.error, run.output = 3, "note", "error", "output"
        run.progress_made = Progress(2, 7, "rows")
        assert bench.finish(run, Status.FAILED)
        row = bench.row(run)
        assert (row.status, row.finished_at) == (Status.FAILED, minutes(1.5))
        assert (row.attempt, row.note, row.error, row.output) == (3, "note", "error", "output")
        assert row.progress_made == Progress(2, 7, "rows")
        assert row.duration == 90

    def test_a_finish_that_is_tried_again_says_true_and_changes_nothing(
        self, bench: Bench
    ) -> None:
        run = bench.finished(START)
        bench.clock.advance(60)
        assert bench.finish(run)
        assert bench.row(run).finished_at == START

    def test_only_the_runner_that_claimed_a_run_can_finish_it(self, bench: Bench) -> None:
        run = bench.claimed(START)
        run.runner = THERE
        assert not bench.finish(run)
        assert bench.row(run).status is Status.RUNNING

    def test_a_finished_run_keeps_its_outcome(self, bench: Bench) -> None:
        run = bench.finished(START)
        assert not bench.finish(run, Status.FAILED)
        assert bench.row(run).status is Status.SUCCEEDED

    def test_a_run_that_was_never_claimed_cannot_be_finished(self, bench: Bench) -> None:
        assert not bench.finish(bench.run(START))
        assert bench.rows() == []

    # Startup runs, gaps.

    def test_a_startup_run_is_claimed_once_in_60_seconds(self, bench: Bench) -> None:
        bench.since()
        assert [bench.claims_startup() for _ in range(3)] == [True, False, False]
        bench.clock.advance(59.9)
        assert not bench.claims_startup()
        bench.clock.advance(0.2)
        assert bench.claims_startup()
        assert not bench.claims_startup()

    def test_a_startup_run_of_a_paused_task_is_not_claimed(self, bench: Bench) -> None:
        bench.since()
        bench.ledger.pause(KEY)
        assert not bench.claims_startup()
        bench.ledger.resume(KEY)
        assert bench.claims_startup()

    def test_a_gap_is_recorded_once_as_one_row_with_a_count(self, bench: Bench) -> None:
        bench.clock.advance(600)
        assert bench.gap(START, minutes(5), count=5)
        assert not bench.gap(START, minutes(5), count=5)
        (row,) = bench.rows()
        assert (row.status, row.scheduled_for, row.count) == (Status.MISSED, minutes(5), 5)
        assert (row.started_at, row.finished_at) == (None, minutes(10))
        assert row.note == "the process was down"

    def test_a_gap_that_holds_a_tick_on_record_is_not_recorded(self, bench: Bench) -> None:
        bench.clock.advance(600)
        bench.finished(minutes(3))
        assert not bench.gap(START, minutes(5), count=5)
        assert not bench.gap(START, minutes(3), count=3)
        assert bench.gap(minutes(3), minutes(5), count=2)
        assert [row.count for row in bench.rows()] == [1, 2]

    def test_the_last_tick_of_a_gap_is_taken(self, bench: Bench) -> None:
        bench.clock.advance(600)
        bench.gap(START, minutes(5), count=5)
        assert bench.ledger.claim(bench.run(minutes(5))) is Claim.TAKEN
        assert bench.ledger.claim(bench.run(minutes(4))) is Claim.SUPERSEDED

    # Tasks.

    def test_a_new_task_has_no_past(self, bench: Bench) -> None:
        standing = bench.ledger.register([Entry(KEY, "0 * * * *", "UTC")])[KEY]
        assert standing == (START, None, None, "0 * * * * UTC", "")
        assert standing.floor == START

    def test_since_moves_when_the_schedule_or_its_zone_changes_and_only_then(
        self, bench: Bench
    ) -> None:
        assert bench.since() == START
        bench.clock.advance(60)
        assert bench.since() == START
        assert bench.since("30 * * * *") == minutes(1)
        bench.clock.advance(60)
        assert bench.since("30 * * * *") == minutes(1)
        assert bench.since("30 * * * *", "Europe/Berlin") == minutes(2)

    def test_newest_is_the_last_tick_on_record_whatever_became_of_it(self, bench: Bench) -> None:
        bench.since()
        bench.clock.advance(600)
        bench.finished(minutes(1))
        bench.finished()  # by hand: no tick
        assert bench.standing().newest == minutes(1)
        bench.gap(minutes(1), minutes(8))
        standing = bench.standing()
        assert standing.newest == standing.floor == minutes(8)
        assert bench.ledger.claim(bench.run(minutes(2))) is Claim.SUPERSEDED
        assert bench.standing().newest == minutes(8)

    def test_hundreds_of_tasks_are_registered_at_once(self, bench: Bench) -> None:
        entries = [Entry(f"/task-{number}", "0 * * * *", "UTC") for number in range(450)]
        assert list(bench.ledger.register(entries)) == [key for key, *_ in entries]
        bench.clock.advance(60)
        entries[7] = Entry("/task-7", "1 * * * *", "UTC")
        standings = bench.ledger.register(entries)
        moved = [key for key, standing in standings.items() if standing.since != START]
        assert moved == ["/task-7"]
        assert bench.ledger.register([]) == {}

    def test_a_pause_and_its_end_are_told_once_and_kept_as_an_interval(self, bench: Bench) -> None:
        bench.since()
        assert not bench.ledger.resume(KEY)
        bench.clock.advance(60)
        assert bench.ledger.pause(KEY)
        bench.clock.advance(60)
        assert not bench.ledger.pause(KEY)
        assert bench.standing().paused_at == minutes(1)
        assert bench.ledger.pauses(KEY) == [(minutes(1), None)]
        assert bench.ledger.resume(KEY)
        assert not bench.ledger.resume(KEY)
        assert bench.ledger.pauses(KEY) == [(minutes(1), minutes(2))]
        standing = bench.standing()
        assert (standing.paused_at, standing.since) == (None, minutes(2))

    def test_pauses_are_listed_newest_first(self, bench: Bench) -> None:
        for _ in range(3):
            bench.ledger.pause(KEY)
            bench.clock.advance(60)
            bench.ledger.resume(KEY)
            bench.clock.advance(60)
        bench.ledger.pause(KEY)
        starts = [began for began, _ in bench.ledger.pauses(KEY)]
        assert starts == [minutes(6), minutes(4), minutes(2), minutes(0)]
        assert bench.ledger.pauses("/other") == []

    def test_a_task_that_was_never_registered_can_be_paused(self, bench: Bench) -> None:
        assert bench.ledger.pause("/later")
        assert (
            bench.ledger.register([Entry("/later", "0 * * * *", "UTC")])["/later"].paused_at
            == START
        )
        assert bench.ledger.claim(bench.run(START, key="/later")) is Claim.PAUSED

    def test_standings_are_listed_by_namespace_with_schedule_and_who_entered_it(
        self, bench: Bench
    ) -> None:
        for key in ("shop/sweep", "shop2/sweep", "/sweep"):
            bench.ledger.register([Entry(key, "0 * * * *", "UTC")], HERE)
        bench.ledger.pause("shop/sweep")
        assert {key: each.paused_at for key, each in bench.ledger.standings("shop/").items()} == {
            "shop/sweep": START
        }
        assert bench.ledger.standings("/").keys() == {"/sweep"}
        assert bench.ledger.standings("sh_p/") == {}
        assert bench.standing().schedule == "0 * * * * UTC"
        assert bench.standing().entered_by == HERE
        bench.ledger.register([Entry(KEY, "0 * * * *", "UTC")], THERE)
        assert bench.standing().entered_by == HERE, "nothing was entered"
        bench.ledger.register([Entry(KEY, "5 * * * *", "UTC")], THERE)
        assert bench.standing().entered_by == THERE

    def test_a_pause_is_of_the_task_on_all_hosts_and_its_end_moves_the_past_of_each(
        self, bench: Bench
    ) -> None:
        hosts = [Entry(f"{KEY}@{host}", "* * * * *", "UTC") for host in ("alpha", "beta")]
        bench.ledger.register(hosts)
        bench.ledger.register([Entry("/sweep-2@alpha", "* * * * *", "UTC")])
        bench.clock.advance(60)
        assert bench.ledger.pause(KEY)
        for key, *_ in hosts:
            assert bench.standing(key).paused_at == minutes(1)
            assert bench.ledger.claim(bench.run(minutes(1), key=key)) is Claim.PAUSED
        bench.finished(minutes(1), key="/sweep-2@alpha")
        bench.clock.advance(60)
        assert bench.ledger.resume(KEY)
        for key, *_ in hosts:
            assert bench.standing(key)[:3] == (minutes(2), None, None)
        assert bench.standing("/sweep-2@alpha").since == START
        bench.finished(minutes(2), key=f"{KEY}@beta")

    def test_the_identity_stays_the_same(self, bench: Bench) -> None:
        first = bench.ledger.identity()
        assert len(first) == 32
        bench.clock.advance(DAY)
        assert bench.ledger.identity() == first

    # While a run goes on.

    def test_a_heartbeat_writes_time_attempt_and_progress_and_reads_the_row(
        self, bench: Bench
    ) -> None:
        run = bench.claimed(START)
        bench.clock.advance(15)
        run.attempt = 2
        run.progress_made = Progress(1.5, None, "")
        row = bench.ledger.beat(run)
        assert row is not None
        assert row.heartbeat_at == START + timedelta(seconds=15)
        assert (row.attempt, row.progress_made) == (2, Progress(1.5, None, ""))

    def test_a_heartbeat_of_a_run_that_is_over_says_so_and_writes_nothing(
        self, bench: Bench
    ) -> None:
        run = bench.finished(START)
        before = bench.row(run)
        bench.clock.advance(15)
        assert bench.ledger.beat(run) is None
        assert bench.row(run) == before

    def test_asking_a_run_to_stop_is_read_at_its_heartbeat(self, bench: Bench) -> None:
        run = bench.claimed(START)
        bench.clock.advance(1)
        bench.ledger.ask_to_stop(run.id, "cancelled", "by an operator")
        bench.clock.advance(1)
        bench.ledger.ask_to_stop(run.id, "cancelled", "by another")
        row = bench.ledger.beat(run)
        assert row is not None
        assert (row.status, row.stop_reason, row.note) == (
            Status.RUNNING,
            "cancelled",
            "by an operator",
        )
        assert row.stop_asked_at == START + timedelta(seconds=1)

    def test_asking_a_run_that_is_over_to_stop_changes_nothing(self, bench: Bench) -> None:
        run = bench.finished(START)
        before = bench.row(run)
        bench.ledger.ask_to_stop(run.id, "cancelled", "too late")
        assert bench.row(run) == before

    def test_a_run_is_called_crashed_only_after_the_lease(self, bench: Bench) -> None:
        run = bench.claimed(START)
        bench.clock.advance(60)
        assert not bench.crash(bench.row(run))
        bench.clock.advance(1)
        assert bench.crash(bench.row(run))
        row = bench.row(run)
        assert (row.status, row.finished_at) == (Status.CRASHED, START + timedelta(seconds=61))
        assert row.note == "its runner is gone"
        assert not bench.crash(row)

    def test_a_heartbeat_since_the_row_was_read_saves_a_run_from_being_called_crashed(
        self, bench: Bench
    ) -> None:
        run = bench.claimed(START)
        seen = bench.row(run)
        bench.clock.advance(61)
        bench.ledger.beat(run)
        bench.clock.advance(61)
        assert not bench.crash(seen)
        assert bench.crash(bench.row(run))

    def test_a_run_that_another_called_crashed_cannot_be_finished_or_kept_alive(
        self, bench: Bench
    ) -> None:
        run = bench.claimed(START)
        bench.clock.advance(61)
        assert bench.crash(bench.row(run))
        assert not bench.finish(run)
        assert bench.ledger.beat(run) is None
        assert bench.row(run).status is Status.CRASHED
        bench.claimed(minutes(1), runner=THERE)

    # Reading.

    def test_running_runs_are_found_by_prefix_and_by_task(self, bench: Bench) -> None:
        bench.finished(START)
        mine = bench.claimed(key="/report")
        shop = bench.claimed(START, key="shop/sweep@alpha")
        found = bench.ledger.runs(status=hk.Status.RUNNING)
        assert {run.key: run.id for run in found} == {
            "/report": mine.id,
            "shop/sweep@alpha": shop.id,
        }
        assert bench.running("shop/") == bench.running("shop/sweep@") == {"shop/sweep@alpha"}
        assert bench.running("shop/sweep") == bench.running("sh_p/") == set()
        assert bench.running("/report") == {"/report"}
        assert bench.running(KEY) == set()

    def test_the_last_run_is_the_newest_that_was_started(self, bench: Bench) -> None:
        bench.since()
        assert bench.last() == hk.Lasts()
        bench.clock.advance(600)
        bench.finished(minutes(1))
        newest = bench.finished()
        bench.gap(minutes(1), minutes(8))
        bench.finished(START, key="/other")
        assert bench.last().run == bench.row(newest)

    def test_the_last_runs_and_successes_of_all_registered_tasks_are_read_at_once(
        self, bench: Bench
    ) -> None:
        keys = ("shop/a", "shop/b@alpha", "shop/c", "shop2/a")
        bench.ledger.register([Entry(key, "", "") for key in keys])
        for key in ("shop/a", "shop/b@alpha", "shop2/a"):
            bench.finished(key=key)
        bench.clock.advance(60)
        failed = bench.claimed(key="shop/a")
        assert bench.finish(failed, Status.FAILED)
        bench.gap(START, minutes(1))
        lasts = bench.ledger.lasts("shop/")
        assert lasts.keys() == {"shop/a", "shop/b@alpha", "shop/c"}
        assert lasts["shop/a"].run == bench.row(failed)
        assert lasts["shop/c"] == hk.Lasts()
        assert lasts == {key: bench.last(key) for key in lasts}
        assert [each.success for each in lasts.values()].count(START) == 2
        assert bench.ledger.lasts("sh_p/") == {}

    def test_failures_are_counted_from_the_last_run_that_did_not_fail(self, bench: Bench) -> None:
        bench.since()
        outcomes = [Status.FAILED, Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT]
        for number, status in enumerate(outcomes):
            run = bench.claimed()
            run.note = f"note {number}"
            assert bench.finish(run, status)
            bench.clock.advance(60)
        bench.skip(minutes(4))
        expected = (2, minutes(2), "note 3")
        assert bench.last()[2:] == expected
        going = bench.claimed()
        assert bench.last()[2:] == expected, "while the next one goes on"
        assert bench.finish(going, Status.CANCELLED)
        assert bench.last()[1:] == (minutes(1), 0, None, "")

    def test_history_lists_newest_first_up_to_the_limit(self, bench: Bench) -> None:
        ids = [bench.finished().id for _ in range(5)]
        assert [run.id for run in bench.ledger.runs(KEY, limit=3)] == ids[:1:-1]
        assert [run.id for run in bench.ledger.runs(KEY, limit=50)] == ids[::-1]
        assert bench.ledger.runs("/none") == bench.ledger.runs(f"{KEY}@") == []

    def test_history_of_a_namespace_leaves_the_others_out(self, bench: Bench) -> None:
        for key in ("/sweep", "shop/sweep", "shop/sweep@alpha", "shop/other", "shop2/sweep"):
            bench.ledger.register([Entry(key, "", "")])
            bench.finished(key=key)
        assert len(bench.ledger.runs("shop/", limit=50)) == 3
        assert len(bench.ledger.runs("/", limit=50)) == 1
        assert len(bench.ledger.runs("shop/sweep")) == len(bench.ledger.runs("shop/sweep@")) == 1
        assert {run.task for run in bench.ledger.runs("shop/", limit=50)} == {"sweep", "other"}

    def test_history_goes_on_before_a_run(self, bench: Bench) -> None:
        keys = (KEY, f"{KEY}@alpha", "/other")
        for key in keys:
            bench.ledger.register([Entry(key, "", "")])
        ids = [bench.finished(key=keys[number % 3]).id for number in range(9)]
        pages, before = [], ""
        while page := bench.ledger.runs("/", before=before, limit=4):
            pages.append([run.id for run in page])
            before = page[-1].id
        newest_first = ids[::-1]
        assert pages == [newest_first[:4], newest_first[4:8], newest_first[8:]]
        assert [run.id for run in bench.ledger.runs(KEY, before=ids[3])] == [ids[0]]
        assert [run.id for run in bench.ledger.runs(before=ids[4])] == ids[3::-1]

    def test_history_of_one_status_leaves_the_others_out(self, bench: Bench) -> None:
        ids: dict[Status, list[str]] = {}
        for number, status in enumerate([Status.SUCCEEDED, *hk.FAILURES, Status.CANCELLED] * 2):
            run = bench.claimed(key=("/sweep", "/other", "shop/sweep")[number % 3])
            assert bench.finish(run, status)
            ids.setdefault(status, []).insert(0, run.id)
        ids[Status.RUNNING] = [bench.claimed(key=key).id for key in ("/sweep", "/other")][::-1]
        bench.clock.advance(600)
        bench.gap(START, minutes(8))
        for status in Status:
            rows = bench.ledger.runs(status=status)
            assert status is Status.MISSED or [row.id for row in rows] == ids.get(status, [])
            assert {row.status for row in rows} <= {status}
            for within in ("/", "/sweep"):
                part = [row for row in rows if hk.is_within(row.key, within)]
                assert bench.ledger.runs(within, status=status) == part
            assert bench.ledger.runs(status=status, limit=1) == rows[:1]
            assert not rows or bench.ledger.runs(status=status, before=rows[0].id) == rows[1:]
        assert len(bench.ledger.runs("/sweep", status=Status.MISSED)) == 1

    def test_rows_from_a_tick_on_are_listed_in_the_order_of_their_ticks(
        self, bench: Bench
    ) -> None:
        bench.clock.advance(600)
        bench.finished(minutes(2))
        bench.finished()
        bench.gap(minutes(2), minutes(8))
        (first,) = bench.ledger.runs(KEY, tick_from=minutes(2), limit=1)
        assert first.scheduled_for == minutes(2)
        ticks = [row.scheduled_for for row in bench.ledger.runs(KEY, tick_from=START)]
        assert ticks == [minutes(2), minutes(8)]
        assert bench.ledger.runs(KEY, tick_from=minutes(9)) == []

    def test_the_last_success_is_the_end_of_the_newest_run_that_succeeded(
        self, bench: Bench
    ) -> None:
        bench.since()
        assert bench.last().success is None
        bench.finished()
        bench.clock.advance(60)
        assert bench.finish(bench.claimed())
        bench.clock.advance(60)
        assert bench.finish(bench.claimed(), Status.FAILED)
        bench.finished(key="/other")
        bench.claimed()
        assert bench.last().success == minutes(1)

    def test_a_run_is_found_by_its_id_within_a_prefix_only(self, bench: Bench) -> None:
        run = bench.finished(key="shop/sweep")
        for prefix, found in (("", True), ("shop/", True), ("/", False), ("shop2/", False)):
            assert bool(bench.ledger.runs(prefix, id=run.id)) == found

    def test_instants_come_back_in_utc_to_the_microsecond(self, bench: Bench) -> None:
        bench.clock.advance(3600.000_001)
        berlin = timezone(timedelta(hours=1))
        tick = datetime(2024, 1, 1, 1, 59, 59, 123_456, tzinfo=berlin)
        row = bench.row(bench.claimed(tick))
        assert row.scheduled_for == tick
        assert row.scheduled_for.isoformat() == "2024-01-01T00:59:59.123456+00:00"
        assert row.started_at == START + timedelta(hours=1, microseconds=1)
        assert row.started_at.utcoffset() == timedelta(0)

    def test_texts_that_no_database_takes_are_stored_with_escapes(self, bench: Bench) -> None:
        run = bench.claimed(START)
        run.note, run.error, run.output = "file \udcff", "nul \0", "Größe 'x' :y %s 🧹"
        assert bench.finish(run, Status.FAILED)
        row = bench.row(run)
        assert (row.note, row.error) == ("file \\udcff", "nul \\0")
        assert row.output == "Größe 'x' :y %s 🧹"

    def test_a_closed_ledger_opens_itself_again_with_all_that_was_in_it(
        self, bench: Bench
    ) -> None:
        run = bench.claimed(START)
        bench.ledger.close()
        bench.ledger.close()
        assert bench.row(run).status is Status.RUNNING

    def test_a_ledger_exists_from_its_opening_on(self, bench: Bench, tmp_path: Path) -> None:
        assert bench.ledger.exists()
        fresh = hk.ledger_from_url("sqlite:///fresh.db", tmp_path, bench.clock)
        assert not fresh.exists()
        assert not (tmp_path / "fresh.db").exists()

    # Retention.

    def test_of_more_than_1000_runs_and_1000_other_rows_the_oldest_are_deleted(
        self, bench: Bench
    ) -> None:
        runs = []
        for number in range(1005):
            bench.clock.advance(120)
            runs.append(bench.finished(minutes(2 * number + 1)).id)
            assert bench.gap(minutes(2 * number + 1), minutes(2 * number + 2))
        assert bench.prune(60) == 10
        left = bench.rows()
        assert [row.id for row in left if row.status is Status.SUCCEEDED] == runs[5:]
        assert len(left) == 2000
        assert left[0].scheduled_for == minutes(11)
        assert bench.prune(60) == 0

    def test_what_is_older_than_90_days_is_deleted_but_for_the_newest_row_with_a_tick(
        self, bench: Bench
    ) -> None:
        bench.finished(START)
        bench.clock.advance(60)
        bench.finished(minutes(1))
        bench.finished()
        bench.finished(START, key="/other")
        bench.clock.advance(90 * DAY - 1)
        assert bench.prune(60) == 1  # of START
        bench.clock.advance(60)
        assert bench.prune(60) == 1  # the one by hand
        (kept,) = bench.rows()
        assert kept.scheduled_for == minutes(1)
        assert len(bench.rows("/other")) == 1

    def test_when_its_host_is_gone_the_last_row_of_a_task_goes_too_and_then_its_entry(
        self, bench: Bench
    ) -> None:
        key = f"{KEY}@gone"
        bench.ledger.register([Entry(key, "0 * * * *", "UTC")])
        bench.finished(START, key=key)
        going = bench.claimed(key=key)
        bench.clock.advance(91 * DAY)
        assert bench.prune(key=key) == 0
        assert bench.prune(key=key, gone=True) == 1
        assert bench.standing(key).newest is None, "it is kept as long as something runs"
        assert bench.finish(going)
        assert bench.prune(key=key, gone=True) == 0
        bench.clock.advance(91 * DAY)
        assert bench.prune(key=key, gone=True) == 1
        assert bench.ledger.standings(key) == {}
        assert bench.prune(key=key, gone=True) == 0

    def test_a_runner_that_is_recorded_as_dead_has_stopped_with_its_last_beat(
        self, bench: Bench
    ) -> None:
        values = {"host": "here", "pid": 1, "place": "", "birth": "", "version": "1"}
        made = hk.RunnerRow(runner=HERE, namespace="", workers=10, **values)  # type: ignore
        bench.ledger.beat_runner(made)
        bench.clock.advance(60)
        bench.ledger.beat_runner(made)
        bench.clock.advance(60)
        (row,) = bench.ledger.runners("")
        row.stopped_at = row.beat_at
        bench.ledger.beat_runner(row)
        (row,) = bench.ledger.runners("")
        assert (row.started_at, row.beat_at, row.stopped_at) == (START, minutes(1), minutes(1))
        bench.ledger.beat_runner(made)  # It lives after all.
        (row,) = bench.ledger.runners("")
        assert (row.started_at, row.beat_at, row.stopped_at) == (START, minutes(2), None)

    def test_what_still_runs_is_never_deleted(self, bench: Bench) -> None:
        going = bench.claimed(START)
        bench.clock.advance(400 * DAY)
        bench.ledger.claim(bench.run(START + timedelta(days=399)))
        assert bench.prune(60) == 0
        assert bench.row(going).status is Status.RUNNING

    def test_rows_within_grace_are_kept_however_many(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hk, "KEEP_ROWS", 2)
        for number in range(6):
            bench.finished(minutes(number))
            bench.clock.advance(60)
        assert bench.prune(3600) == 0
        assert bench.prune(float("inf")) == 0
        assert bench.prune(240) == 2  # they ended 360, 300, 240, ... s ago
        assert bench.prune(0) == 2
        assert [row.scheduled_for for row in bench.rows()] == [minutes(4), minutes(5)]

    def test_a_row_of_2036_does_not_let_the_newest_tick_on_record_be_deleted(
        self, bench: Bench
    ) -> None:
        bench.since()
        bench.finished(START)
        away = (utc(2036, 5, 5) - START).total_seconds()
        bench.clock.jump(away)
        bench.finished(utc(2036, 5, 5), runner=THERE)
        bench.clock.jump(-away)
        bench.clock.advance(91 * DAY)
        bench.prune(float("inf"))
        assert bench.standing().newest == START  # or START would run again


@pytest.mark.parametrize("obstacle", ["run", "pause"])
def test_what_stands_in_the_way_just_before_a_tick_is_looked_for_when_it_has_come(
    ledger: hk.Ledger, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    task = Task("sweep", lambda: None, schedule="0 0 1 1 *")
    housekeeper = simulated(clock, task, ledger=ledger)
    bench, claims = Bench(ledger, clock), housekeeper.claims
    (registration,) = housekeeper.registrations.all()
    other = bench.claimed() if obstacle == "run" else None
    if other is None:
        assert ledger.pause(KEY)

    def goes_meanwhile(_: hk.Waitable, seconds: float) -> None:
        assert bench.finish(other) if other is not None else ledger.resume(KEY)
        clock.advance(seconds)

    monkeypatch.setattr(clock, "wait", goes_meanwhile)
    clock.advance(60 - 0.004)
    run = claims.new_run(registration, Reason.SCHEDULE, minutes(1))
    assert claims.claim(run) is Claim.MINE
    assert clock.now() == bench.row(run).started_at == minutes(1)


# URLs.


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        b"memory://",
        Path("/tmp/ledger.db"),
        "",
        "ledger.db",
        "/tmp/ledger.db",
        "memory:",
        "memory",
        "memory://here",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite://ledger.db",
        "SQLITE:///ledger.db",
        "mysql://host/db",
    ],
)
def test_what_is_no_ledger_url_is_refused_with_one_that_is(url: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///housekeeper\.db") as caught:
        hk.ledger_from_url(url, tmp_path, hk.SystemClock())
    assert repr(url) in str(caught.value)


def test_sqlite_paths_are_relative_to_the_base_or_absolute(tmp_path: Path) -> None:
    clock = hk.SystemClock()
    relative = hk.ledger_from_url("sqlite:///a/b.db", tmp_path, clock)
    assert relative.url == f"sqlite:///{tmp_path}/a/b.db"
    absolute = hk.ledger_from_url("sqlite:////var/b.db", tmp_path, clock)
    assert absolute.url == "sqlite:////var/b.db"
    assert list(tmp_path.iterdir()) == []


def test_passwords_are_masked_in_urls_and_in_what_is_said_of_bad_ones(tmp_path: Path) -> None:
    clock = hk.SystemClock()
    url = "postgresql://me:s3cret@db.example:5432/app"
    assert hk.PostgresLedger(url, clock).url == "postgresql://me:***@db.example:5432/app"
    assert "s3cret" not in hk.PostgresLedger("postgresql://h/db?password=s3cret", clock).url
    with pytest.raises(ConfigurationError) as caught:
        hk.ledger_from_url("mysql://me:s3cret@db.example/app", tmp_path, clock)
    assert "mysql://me:***@db.example/app" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_each_ledger_has_an_identity_of_its_own_that_lasts(tmp_path: Path) -> None:
    def identity(url: str) -> str:
        ledger = hk.ledger_from_url(url, tmp_path, hk.SystemClock())
        found = ledger.identity()
        ledger.close()
        return found

    urls = ["sqlite:///a.db", "sqlite:///b.db", "memory://", "memory://", "sqlite:///a.db"]
    found = [identity(url) for url in urls]
    assert found[0] == found[-1]
    assert len(set(found)) == 4


# SQLite.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def file(path: Path) -> Iterator[Any]:
    """A ledger in a file, on the machine's clock."""
    made = sqlite_at(path)
    yield made
    made.close()


def sqlite_at(path: Path) -> hk.Ledger:
    return hk.ledger_from_url(f"sqlite:///{path}", Path("/"), hk.SystemClock())


def by_hand(key: str = KEY, runner: str = HERE) -> hk.LiveRun:
    return Bench(None, hk.SystemClock()).run(key=key, runner=runner)  # type: ignore[arg-type]


def running_in(ledger: hk.Ledger) -> set[str]:
    return {run.key for run in ledger.runs(status=hk.Status.RUNNING)}


def test_the_file_is_its_owners_alone_whatever_the_umask(path: Path, file: hk.Ledger) -> None:
    before = os.umask(0)
    try:
        file.open()
        file.claim(by_hand())
    finally:
        os.umask(before)
    names = {place.name: stat.S_IMODE(place.stat().st_mode) for place in path.parent.iterdir()}
    assert names["ledger.db"] == names["ledger.db-wal"] == names["ledger.db-shm"] == 0o600


def test_the_file_is_in_wal_mode(path: Path, file: hk.Ledger) -> None:
    file.open()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_rows_are_there_for_the_next_process(path: Path, file: hk.Ledger) -> None:
    run = by_hand()
    file.claim(run)
    file.close()
    other = sqlite_at(path)
    assert other.exists()
    (row,) = other.runs(id=run.id)
    other.close()
    assert row.status is Status.RUNNING


# Writes of several threads.


class Queue(list[Any]):
    """A list that tells of each thread when it has entered something."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: dict[threading.Thread, threading.Event] = {}

    def append(self, item: Any) -> None:
        super().append(item)
        if event := self.entered.get(threading.current_thread()):
            event.set()


class Writers:
    """Threads that claim, each its own task, while somebody keeps the connection busy."""

    def __init__(self, ledger: hk.Ledger) -> None:
        assert isinstance(ledger, hk.SqliteLedger)
        ledger.open()
        self.ledger = ledger
        self.queue = ledger._pending = Queue()
        self.statements: list[str] = []
        self.answers: dict[str, object] = {}
        self.threads: list[threading.Thread] = []
        ledger._connection.set_trace_callback(self.trace)

    def trace(self, sql: str) -> None:
        """Take a statement that SQLite executes."""
        word = sql.split()[0]
        if word != "PRAGMA":  # of the time limit
            self.statements.append(word)

    def claim(self, name: str, *, key: str = "", limit: float = LIMIT) -> None:
        """Start a thread that claims, and wait until it has entered the queue."""

        def work() -> None:
            try:
                with hk.ledger_calls_within(limit):
                    self.answers[name] = self.ledger.claim(by_hand(key or name))
            except BaseException as error:
                self.answers[name] = error

        thread = threading.Thread(target=work)
        self.threads.append(thread)
        entered = self.queue.entered[thread] = threading.Event()
        thread.start()
        assert entered.wait(LIMIT)

    def claim_together(self, number: int, key: str = "") -> list[str]:
        """Claim with so many threads, all of them in the queue before the first can go on."""
        names = [f"/sweep-{each}" for each in range(number)]
        with self.ledger.lock:
            for name in names:
                self.claim(name, key=key)
        self.join()
        return names

    def join(self) -> None:
        for thread in self.threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


@pytest.fixture
def writers(file: hk.Ledger) -> Writers:
    return Writers(file)


def test_writes_that_wait_for_one_another_are_made_in_one_transaction(writers: Writers) -> None:
    keys = writers.claim_together(8)
    assert writers.answers == dict.fromkeys(keys, Claim.MINE)
    assert writers.statements == ["BEGIN", *["INSERT"] * 8, "COMMIT"]
    assert running_in(writers.ledger) == set(keys)
    assert writers.queue == []


def test_a_write_that_nobody_waits_for_is_its_own_transaction(writers: Writers) -> None:
    assert writers.ledger.claim(by_hand()) is Claim.MINE
    assert writers.statements == ["INSERT"]


def test_of_many_threads_at_one_task_one_wins_also_within_a_transaction(writers: Writers) -> None:
    writers.claim_together(8, key=KEY)
    assert Counter(writers.answers.values()) == {Claim.MINE: 1, Claim.OVERLAPPED: 7}


@pytest.mark.parametrize("failing", ["BEGIN IMMEDIATE", "INSERT", "COMMIT"])
def test_a_transaction_that_fails_is_undone_and_each_write_makes_its_own(
    writers: Writers, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, made = writers.ledger._statement, Counter[str]()

    def fail_once(sql: str, values: Any, until: float) -> Any:
        made[failing] += sql.startswith(failing)
        if sql.startswith(failing) and made[failing] == (3 if failing == "INSERT" else 1):
            raise sqlite3.OperationalError("the disk is full")
        return execute(sql, values, until)

    monkeypatch.setattr(writers.ledger, "_statement", fail_once)
    keys = writers.claim_together(4)
    assert writers.answers == dict.fromkeys(keys, Claim.MINE)
    assert running_in(writers.ledger) == set(keys)
    assert not writers.ledger._connection.in_transaction


def test_a_write_that_fails_for_its_own_reason_fails_alone(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = writers.ledger._statement

    def refuse(sql: str, values: Any, until: float) -> Any:
        if values.get("key") == "/sweep-2":
            raise sqlite3.OperationalError("not this one")
        return execute(sql, values, until)

    monkeypatch.setattr(writers.ledger, "_statement", refuse)
    writers.claim_together(4)
    refused = writers.answers.pop("/sweep-2")
    assert isinstance(refused, LedgerUnavailable)
    assert list(writers.answers.values()) == [Claim.MINE] * 3


def test_a_write_that_waited_too_long_leaves_the_queue_to_the_others(writers: Writers) -> None:
    with writers.ledger.lock:
        writers.claim("/first")
        writers.claim("/impatient", limit=0.05)
        writers.claim("/patient")
        writers.threads[1].join(LIMIT)
    writers.join()
    impatient = writers.answers.pop("/impatient")
    assert isinstance(impatient, LedgerUnavailable)
    assert "was busy" in str(impatient)
    assert writers.answers == {"/first": Claim.MINE, "/patient": Claim.MINE}
    assert running_in(writers.ledger) == {"/first", "/patient"}


def test_the_first_that_waited_too_long_hands_the_queue_on(writers: Writers) -> None:
    with writers.ledger.lock:
        writers.claim("/first", limit=0.05)
        writers.claim("/second")
        writers.threads[0].join(LIMIT)
        assert isinstance(writers.answers["/first"], LedgerUnavailable)
    writers.join()
    assert writers.answers["/second"] is Claim.MINE


@pytest.mark.parametrize("interrupted", ["INSERT", "COMMIT"])
def test_an_interrupt_in_a_transaction_undoes_it_and_the_others_go_on(
    writers: Writers, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, seen = writers.ledger._statement, list[str]()

    def interrupt(sql: str, values: Any, until: float) -> Any:
        if sql.startswith(interrupted) and not seen:
            seen.append(sql)
            raise KeyboardInterrupt
        return execute(sql, values, until)

    monkeypatch.setattr(writers.ledger, "_statement", interrupt)
    keys = writers.claim_together(4)
    (unlucky,) = (
        key for key, answer in writers.answers.items() if isinstance(answer, KeyboardInterrupt)
    )
    others = set(keys) - {unlucky}
    assert all(writers.answers[key] is Claim.MINE for key in others)
    assert running_in(writers.ledger) == others


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Take root's rights away, that go past all permissions."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def a_folder(path: Path) -> None:
    path.mkdir()


def in_a_missing_folder(path: Path) -> None:
    path.parent.rmdir()


def in_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def in_a_folder_that_is_closed(path: Path) -> None:
    path.parent.chmod(0)


def unreadable(path: Path) -> None:
    path.touch()
    path.chmod(0)
    path.parent.chmod(0o755)


def not_writable(path: Path) -> None:
    ledger = sqlite_at(path)
    ledger.open()
    ledger.close()
    path.chmod(0o444)
    path.parent.chmod(0o755)


def no_database(path: Path) -> None:
    path.write_text("What is this?\n" * 100)
    path.chmod(0o666)
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [
        a_folder,
        in_a_missing_folder,
        in_a_file,
        in_a_folder_that_is_closed,
        unreadable,
        not_writable,
        no_database,
    ],
)
def test_a_path_that_cannot_be_used_is_refused_with_what_to_pass_instead(
    spoil: Callable[[Path], None],
) -> None:
    # Not in tmp_path, which only its owner can enter.
    folder = Path("/tmp") / f"ledger-{os.getpid()}-{spoil.__name__}"
    folder.mkdir()
    path = folder / "ledger.db"
    try:
        spoil(path)
        with ordinary_user(), pytest.raises(ConfigurationError) as caught:
            sqlite_at(path).open()
    finally:
        if folder.is_dir():
            folder.chmod(0o700)
        subprocess.run(["rm", "-r", "-f", str(folder)], check=True)
    for text in (str(path), "ledger='sqlite:///", "ledger='memory://'"):
        assert text in str(caught.value)


def test_a_call_on_a_path_that_cannot_be_used_ends_in_ledger_unavailable(tmp_path: Path) -> None:
    ledger = sqlite_at(tmp_path / "missing" / "ledger.db")
    with pytest.raises(LedgerUnavailable):
        ledger.claim(by_hand())
    (tmp_path / "missing").mkdir()
    assert ledger.claim(by_hand()) is Claim.MINE
    ledger.close()


@contextmanager
def write_locked(path: Path) -> Iterator[None]:
    """Hold the file's write lock, as another process does that hangs inside a statement."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_write_lock_held_elsewhere_ends_a_call_within_its_limit(
    path: Path, file: hk.Ledger
) -> None:
    file.open()
    run = by_hand()
    with write_locked(path):
        began = time.monotonic()
        with hk.ledger_calls_within(1.0), pytest.raises(LedgerUnavailable, match="locked"):
            file.claim(run)
        took = time.monotonic() - began
        assert file.runs(id=run.id) == []  # who only reads does not wait
    assert 0.9 < took < hk.CALL_LIMIT
    assert file.claim(run) is Claim.MINE


def test_a_write_lock_held_elsewhere_ends_the_first_call_within_its_limit(
    path: Path, file: hk.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "CALL_LIMIT", 30.0)
    with sqlite3.connect(path) as other:  # An empty file would be replaced.
        other.execute("PRAGMA user_version = 1")
    with write_locked(path):
        began = time.monotonic()
        with hk.ledger_calls_within(1.0), pytest.raises(LedgerUnavailable, match="locked"):
            file.claim(by_hand())
        assert time.monotonic() - began < 15.0


def test_a_statement_that_hangs_in_another_thread_ends_a_call_within_its_limit(
    file: hk.Ledger,
) -> None:
    file.open()
    began = time.monotonic()
    with file.lock, hk.ledger_calls_within(0.1), pytest.raises(LedgerUnavailable, match="busy"):
        file.claim(by_hand())
    assert time.monotonic() - began < hk.CALL_LIMIT
    assert file.claim(by_hand()) is Claim.MINE


def test_no_call_is_given_more_than_the_usual_limit_and_nesting_ends_well(
    path: Path, file: hk.Ledger
) -> None:
    file.open()
    with hk.ledger_calls_within(99.0), hk.ledger_calls_within(-1.0):
        assert file.claim(by_hand()) is Claim.MINE
    with write_locked(path), hk.ledger_calls_within(-1.0), pytest.raises(LedgerUnavailable):
        file.claim(by_hand("/other"))


def in_a_child(work: Callable[[], object]) -> Any:
    """Fork, do some work in the child, and return what it returned there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        answer = json.loads(stream.read())
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("told", [True, False])
def test_a_forked_child_neither_uses_nor_closes_the_inherited_connection(
    file: hk.Ledger, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    # Weakly, because a connection that nobody refers to is closed.
    made: list[Callable[[], sqlite3.Connection | None]] = []
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        pass

    def connecting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, factory=Watched, **options)
        made.append(weakref.ref(connection))
        return connection

    monkeypatch.setattr(sqlite3, "connect", connecting)
    before = by_hand("/before")
    assert file.claim(before) is Claim.MINE
    used: list[str] = []
    parents = made[0]()
    assert parents is not None
    parents.set_trace_callback(used.append)
    del parents

    def work() -> list[object]:
        if told:  # as a Housekeeper does
            file.forget()
        verdict = file.claim(by_hand("/child", THERE)).value
        seen = bool(file.runs(id=before.id))
        file.close()
        file.forget()
        statements = list(used)
        gc.collect()
        inherited = made[0]()
        assert inherited is not None
        alive = inherited.execute("SELECT 1").fetchone()[0]  # raises when it is closed
        return [verdict, seen, len(made), statements, alive]

    assert in_a_child(work) == ["mine", True, 2, [], 1]
    # The parent's still works, and both see what the child wrote.
    assert len(made) == 1
    assert running_in(file) == {"/before", "/child"}
    assert file.claim(by_hand("/child")) is Claim.OVERLAPPED
    assert len(made) == 1
    assert used


def test_a_ledger_in_memory_begins_anew_in_a_forked_child() -> None:
    ledger = hk.ledger_from_url("memory://", Path("/"), hk.SystemClock())
    assert ledger.claim(by_hand()) is Claim.MINE

    def work() -> list[object]:
        ledger.forget()
        return [ledger.claim(by_hand()).value, len(ledger.runs(status=hk.Status.RUNNING))]

    assert in_a_child(work) == ["mine", 1]
    assert ledger.claim(by_hand()) is Claim.OVERLAPPED


# Many at once.

TICKS = 100
CREW = 8

# Run by each process of a crew: waits for the word, works, and prints its answer.
PRELUDE = f"""
import collections, json, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
import housekeeper as hk

clock = hk.SystemClock()
ledger = hk.ledger_from_url(sys.argv[1], Path("/"), clock)
ticks = [datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=n) for n in range({TICKS})]

def run_of(key, tick):
    return hk.LiveRun(
        definition=hk.Task("sweep", print), clock=clock, key=key, id=hk.new_id(clock),
        reason=hk.Reason.SCHEDULE, runner="host:" + sys.argv[2], scheduled_for=tick,
    )

print("ready", flush=True)
sys.stdin.readline()
"""
OPEN = """
ledger.open()
answer = ledger.identity()
"""
CLAIM_A_TICK_EACH_OF_MANY_TASKS = """
claims = [ledger.claim(run_of(f"/sweep-{n}", tick)).value for n, tick in enumerate(ticks)]
answer = collections.Counter(claims)
"""
CLAIM_ALL_TICKS_OF_ONE_TASK = """
def skip(run):
    row = run_of("/sweep", run.scheduled_for)
    row.status, beside = hk.Status.SKIPPED, ""
    if verdict is hk.Claim.OVERLAPPED:
        others = ledger.runs("/sweep", status=hk.Status.RUNNING)
        beside = "".join(other.id for other in others) or "nobody"
    return ledger.record(row, "/sweep", run.scheduled_for - timedelta.resolution, beside)

answer = collections.Counter()
for tick in ticks:
    run = run_of("/sweep", tick)
    while (verdict := ledger.claim(run)) in (hk.Claim.OVERLAPPED, hk.Claim.SUPERSEDED):
        if skip(run):
            break
    answer[verdict.value] += 1
    if verdict is hk.Claim.MINE:
        run.status = hk.Status.SUCCEEDED
        answer["finished"] += ledger.finish(run)
"""
START_UP = """
answer = 0
for n in range(50):
    key = f"/sweep-{n}"
    ledger.register([hk.Entry(key, "", "UTC")])
    run = run_of(key, None)
    run.reason = hk.Reason.STARTUP
    answer += ledger.claim(run) is hk.Claim.MINE
"""


def crew(url: str, script: str) -> list[Any]:
    """Let as many processes do the same at the same time; return their answers."""
    code = f"{PRELUDE}{script}\nprint(json.dumps(answer))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, str(number)],
            env={**os.environ, "PYTHONPATH": str(Path(hk.__file__).parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(CREW)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [errors for _, errors in outputs] == [""] * CREW
    return [json.loads(output) for output, _ in outputs]


def all_rows(url: str) -> list[hk.Run]:
    ledger = hk.ledger_from_url(url, Path("/"), hk.SystemClock())
    rows = ledger.runs()
    ledger.close()
    return rows


def test_8_processes_open_a_fresh_ledger_at_once(shared_url: str) -> None:
    identities = crew(shared_url, OPEN)
    assert len(identities) == CREW
    assert len(set(identities)) == 1


def test_8_processes_that_claim_100_ticks_win_each_once(shared_url: str) -> None:
    verdicts: Counter[str] = sum(
        map(Counter, crew(shared_url, CLAIM_A_TICK_EACH_OF_MANY_TASKS)), Counter()
    )
    assert verdicts == {"mine": TICKS, "taken": (CREW - 1) * TICKS}
    assert len(all_rows(shared_url)) == TICKS


def test_8_processes_that_run_all_ticks_of_one_task_leave_one_row_a_tick(shared_url: str) -> None:
    verdicts: Counter[str] = sum(
        map(Counter, crew(shared_url, CLAIM_ALL_TICKS_OF_ONE_TASK)), Counter()
    )
    rows = all_rows(shared_url)
    assert len(rows) == len({row.scheduled_for for row in rows}) == TICKS
    statuses = Counter(row.status for row in rows)
    assert statuses.keys() <= {Status.SUCCEEDED, Status.SKIPPED}
    assert statuses[Status.SUCCEEDED] == verdicts["mine"] == verdicts["finished"] >= 1
    skipped = verdicts[Claim.OVERLAPPED.value] + verdicts[Claim.SUPERSEDED.value]
    assert statuses[Status.SKIPPED] == skipped


def test_8_processes_that_start_at_once_make_one_startup_run(shared_url: str) -> None:
    assert sum(crew(shared_url, START_UP)) == 50


@pytest.mark.parametrize("url", ["memory://", "sqlite:///ledger.db"])
def test_8_threads_that_claim_100_ticks_win_each_once(url: str, tmp_path: Path) -> None:
    clock = hk.SystemClock()
    ledger = hk.ledger_from_url(url, tmp_path, clock)
    start, verdicts = threading.Barrier(CREW), Counter[Claim]()

    def work() -> None:
        bench = Bench(ledger, clock)  # type: ignore[arg-type]
        start.wait()
        found = [
            ledger.claim(bench.run(minutes(number), key=f"/sweep-{number}"))
            for number in range(TICKS)
        ]
        verdicts.update(found)

    threads = [threading.Thread(target=work) for _ in range(CREW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert verdicts == {Claim.MINE: TICKS, Claim.TAKEN: (CREW - 1) * TICKS}
    assert len(ledger.runs()) == TICKS
    ledger.close()


class InterruptedQueue(list[Any]):
    """A list in which a thread is interrupted, once, as soon as it has entered something."""

    armed = True

    def append(self, item: Any) -> None:
        super().append(item)
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt


def test_a_write_whose_thread_is_interrupted_in_the_queue_is_not_made_by_the_others(
    tmp_path: Path,
) -> None:
    ledger: Any = hk.SqliteLedger("sqlite://", str(tmp_path / "ledger.db"), hk.SystemClock())
    ledger.open()
    ledger._pending = InterruptedQueue()
    with pytest.raises(KeyboardInterrupt):
        ledger.pause("/interrupted")
    assert ledger.pause("/other")
    assert ledger._pending == []
    assert ledger.standings("").keys() == {"/other"}
    ledger.close()


def test_types_that_an_application_has_psycopg2_read_in_its_own_way_change_nothing(
    make, postgres_url: str
) -> None:
    extensions = psycopg2.extensions
    kinds = (extensions.PYDATETIMETZ, extensions.INTEGER, extensions.LONGINTEGER)
    for kind in kinds:
        as_text = extensions.new_type(kind.values, "AS_TEXT", lambda value, _: value)
        extensions.register_type(as_text)
    try:
        housekeeper = make(Task("sweep", lambda: "done"), ledger=postgres_url)
        housekeeper.run_task_manually("sweep")
        (run,) = housekeeper.history("sweep")
        assert (type(run.started_at), run.attempt, run.note) == (datetime, 1, "done")
        assert housekeeper.health()["status"] == "ok"
    finally:
        for kind in kinds:
            extensions.register_type(kind)
