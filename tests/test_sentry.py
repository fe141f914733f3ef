"""Sentry gets the truth: a real server on loopback receives what the unpatched SDK sends to it."""

from __future__ import annotations

import contextvars
import gzip
import http.server
import json
import logging
import math
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import schedule
import sentry_sdk
from cronsim import CronSim

import housekeeper as hk
from housekeeper import Reason, SkipRun, Status, Task, current_run
from tests.environment import environment
from tests.virtual_time import VirtualClock, VirtualHousekeeper, simulated, utc

FILE = Path(hk.__file__).resolve()
LIMIT = 30
NOON = utc(2026, 3, 2, 12, 0)


# The server.


class Ingest:
    """Sentry's ingest endpoint: it keeps the items of all envelopes, as (type, payload)."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.came = threading.Condition()
        self.answer: tuple[int, dict[str, str]] = (200, {})
        ingest = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/api/1/envelope/"
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                with ingest.came:
                    ingest.received += items(body)
                    ingest.came.notify_all()
                status, headers = ingest.answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "2"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://key@127.0.0.1:{self.server.server_port}/1"

    def of(self, kind: str) -> list[dict[str, Any]]:
        with self.came:
            return [payload for kind_, payload in self.received if kind_ == kind]

    @property
    def check_ins(self) -> list[dict[str, Any]]:
        return self.of("check_in")

    @property
    def statuses(self) -> list[str]:
        return [each["status"] for each in self.check_ins]

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.of("event")

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until what has come fulfils a condition."""
        with self.came:
            met = self.came.wait_for(condition, LIMIT)
            assert met, [(kind, payload.get("status")) for kind, payload in self.received]


def items(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the items of an envelope: a line of JSON, then for each a head and its payload."""
    rest, found = body.partition(b"\n")[2], []
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        head = json.loads(line)
        size = head.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
        found.append((head["type"], json.loads(rest[:size])))
        rest = rest[size:].lstrip(b"\n")
    return found


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    """A running server."""
    ingest = Ingest()
    thread = threading.Thread(target=ingest.server.serve_forever)
    thread.start()
    yield ingest
    ingest.server.shutdown()
    thread.join()
    ingest.server.server_close()


def init(dsn: str, **options: Any) -> None:
    """Set the SDK up as an application does."""
    sentry_sdk.init(dsn=dsn, http_proxy="", auto_enabling_integrations=False, **options)


_simulations: list[VirtualHousekeeper] = []


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    sentry_sdk.Scope.get_global_scope().set_client(None)
    while _simulations:
        simulation = _simulations.pop()
        clock: Any = simulation.clock
        clock.end += timedelta(days=1)
        simulation.shutdown()


@pytest.fixture
def sentry(ingest: Ingest) -> Ingest:
    """A running server, and an application that has set the SDK up for it."""
    init(ingest.dsn, environment="staging", release="shop@1.2")
    return ingest


def settle(housekeeper: hk.Housekeeper) -> None:
    """Wait until all that was reported so far has been sent."""
    done = threading.Event()
    housekeeper._sentry._put(contextvars.Context(), done.set)
    assert done.wait(LIMIT)
    sentry_sdk.flush(LIMIT)


def simulate(clock: VirtualClock, *tasks: Task, **options: Any) -> VirtualHousekeeper:
    """Return a Housekeeper on a virtual clock that reports to Sentry, on its real thread."""
    _simulations.append(simulated(clock, *tasks, sentry_enabled=True, **options))
    return _simulations[-1]


def until(housekeeper: VirtualHousekeeper, end: datetime) -> None:
    """Let a simulation go on to an instant, and all that it reports be sent."""
    housekeeper.run_until(end)
    settle(housekeeper)


class ShiftedClock(hk.SystemClock):
    """The real clock, but the day's noon comes half a second after the start."""

    def __init__(self) -> None:
        self._shift = NOON - timedelta(seconds=0.5) - super().now()

    def now(self) -> datetime:
        return super().now() + self._shift


def trace(payload: dict[str, Any]) -> str:
    return str(payload["contexts"]["trace"]["trace_id"])


def fail() -> None:
    raise ValueError("no such table")


# What a run sends.


def test_a_run_is_in_progress_and_then_ok_in_a_monitor_that_makes_itself(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    task = Task(
        "sweep",
        lambda: clock.advance(90.5),
        schedule="0 13 * * *",
        timezone="Europe/Berlin",
        timeout=600,
        grace=1800,
    )
    until(simulate(clock, task), NOON)
    started, ended = sentry.check_ins
    assert sentry.statuses == ["in_progress", "ok"]
    assert started["check_in_id"] == ended["check_in_id"]
    assert re.fullmatch("[0-9a-f]{32}", started["check_in_id"])
    assert (started["duration"], ended["duration"]) == (None, 90.5)
    assert trace(started) == trace(ended)
    for each in (started, ended):
        assert each["monitor_slug"] == "sweep"
        assert (each["environment"], each["release"]) == ("staging", "shop@1.2")
        assert each["monitor_config"] == {
            "schedule": {"type": "crontab", "value": "0 13 * * *"},
            "timezone": "Europe/Berlin",
            "checkin_margin": 31,
            "max_runtime": 12,
        }
    assert sentry.events == []


def test_a_failure_is_an_error_and_one_event_in_the_same_trace(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))

    def sweep() -> None:
        sentry_sdk.set_tag("shop", "berlin")
        fail()

    until(simulate(clock, Task("sweep", sweep, schedule="0 12 * * *")), NOON)
    (event,) = sentry.events
    assert sentry.statuses == ["in_progress", "error"]
    assert {trace(event)} == {trace(each) for each in sentry.check_ins}
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("ValueError", "no such table")
    assert [frame["function"] for frame in exception["stacktrace"]["frames"]][-2:] == [
        "sweep",
        "fail",
    ]
    assert event["tags"] == {
        "housekeeper.task": "sweep",
        "housekeeper.reason": "schedule",
        "shop": "berlin",
    }
    run = event["contexts"]["housekeeper"]
    assert (run["scheduled_for"], run["attempt"]) == ("2026-03-02T12:00:00Z", 1)
    assert run["note"] == "ValueError: no such table"
    assert event["contexts"]["monitor"] == {"slug": "sweep"}


def test_each_run_has_its_own_trace_and_its_tags_leak_nowhere(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    tags = iter(["first", "second"])

    def sweep() -> None:
        tag = next(tags)
        sentry_sdk.set_tag(tag, "yes")
        sentry_sdk.Scope.get_current_scope().set_tag(f"current {tag}", "yes")
        sentry_sdk.add_breadcrumb(message=tag)
        fail()

    until(
        simulate(clock, Task("sweep", sweep, schedule="*/5 * * * *")), NOON + timedelta(minutes=6)
    )
    first, second = sentry.events
    assert "first" not in second["tags"]
    assert second["tags"]["second"] == second["tags"]["current second"] == "yes"
    assert "current first" not in second["tags"]
    crumbs = [each["message"] for each in second["breadcrumbs"]["values"]]
    assert "second" in crumbs
    assert "first" not in crumbs
    traces = [trace(each) for each in sentry.check_ins]
    assert traces == [trace(first)] * 2 + [trace(second)] * 2
    assert trace(first) != trace(second)


def test_what_was_going_on_at_the_start_is_not_told_with_a_run(make: Any, sentry: Ingest) -> None:
    with sentry_sdk.isolation_scope() as request:
        request.set_tag("url", "/login")
        request.add_event_processor(lambda event, hint: {**event, "request": {"url": "/login"}})
        housekeeper = make(Task("sweep", fail), sentry_enabled=True)
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("sweep")
    settle(housekeeper)
    (event,) = sentry.events
    assert "url" not in event["tags"]
    assert "request" not in event


def test_what_a_task_tells_itself_is_no_second_event(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))

    def logs() -> None:
        try:
            fail()
        except ValueError:
            logging.getLogger("shop").exception("this failed")
            raise

    def captures() -> None:
        try:
            fail()
        except ValueError as error:
            sentry_sdk.capture_exception(error)
            raise

    tasks = [
        Task("logs", logs, schedule="0 12 * * *"),
        Task("captures", captures, schedule="@daily"),
    ]
    until(simulate(clock, *tasks), NOON + timedelta(hours=13))
    assert [event["tags"]["housekeeper.task"] for event in sentry.events] == ["logs", "captures"]
    assert sentry.statuses == ["in_progress", "error"] * 2


def test_a_retried_run_reports_its_final_outcome_in_one_check_in(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))

    def flaky() -> None:
        sentry_sdk.set_tag(f"attempt {current_run().attempt}", "yes")
        if current_run().attempt < 3 or "never" in current_run().task:
            fail()

    tasks = [
        Task(name, flaky, schedule="0 12 * * *", retries=2, retry_delay=10)
        for name in ("in-the-end", "never")
    ]
    until(simulate(clock, *tasks), NOON + timedelta(minutes=5))
    for slug, last in (("in-the-end", "ok"), ("never", "error")):
        check_ins = [each for each in sentry.check_ins if each["monitor_slug"] == slug]
        assert [each["status"] for each in check_ins] == ["in_progress", last]
        assert len({each["check_in_id"] for each in check_ins}) == 1
        assert check_ins[1]["duration"] == 30.0
    (event,) = sentry.events
    assert event["contexts"]["housekeeper"]["attempt"] == 3
    assert {name for name in event["tags"] if "attempt" in name} == {"attempt 3"}
    assert trace(event) == trace(check_ins[0])


def test_a_run_with_nothing_to_do_is_ok(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))

    def skip() -> None:
        raise SkipRun("no mail server is configured")

    until(simulate(clock, Task("sweep", skip, schedule="0 12 * * *")), NOON)
    assert sentry.statuses == ["in_progress", "ok"]
    assert sentry.events == []


def test_startup_and_manual_runs_leave_the_monitor_alone(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    task = Task("sweep", fail, schedule="0 13 * * *", startup=True)
    housekeeper = simulate(clock, task)
    until(housekeeper, NOON)
    housekeeper.run_task_manually("sweep", wait=False)
    until(housekeeper, NOON + timedelta(minutes=1))
    assert sentry.check_ins == []
    reasons = [event["tags"]["housekeeper.reason"] for event in sentry.events]
    assert reasons == ["startup", "manual"]
    assert all("monitor" not in event["contexts"] for event in sentry.events)


def test_a_task_that_wants_no_sentry_sends_nothing(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    until(simulate(clock, Task("sweep", fail, schedule="0 12 * * *", sentry=False)), NOON)
    assert sentry.received == []


def test_a_function_that_checks_in_by_itself_is_not_doubled(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    function = sentry_sdk.monitor(monitor_slug="its-own")(fail)
    until(simulate(clock, Task("sweep", function, schedule="0 12 * * *")), NOON)
    assert [each["monitor_slug"] for each in sentry.check_ins] == ["its-own", "its-own"]
    (event,) = sentry.events
    assert {trace(event)} == {trace(each) for each in sentry.check_ins}


def test_only_the_winner_of_a_tick_checks_in(sentry: Ingest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    for _ in range(2):
        clock = VirtualClock(NOON - timedelta(minutes=1))
        ledger = hk.ledger_from_url(url, Path("/"), clock)
        task = Task("sweep", lambda: None, schedule="*/5 * * * *")
        until(simulate(clock, task, ledger=ledger), NOON + timedelta(minutes=11))
        ledger.close()
    assert sentry.statuses == ["in_progress", "ok"] * 3


def test_ticks_skipped_while_a_run_goes_on_send_nothing(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    housekeeper = simulate(clock, Task("sweep", fail, schedule="0 12 * * *"))
    by_hand = housekeeper.claims.new_run(housekeeper.registrations.get("sweep"), Reason.MANUAL)
    by_hand.runner = "elsewhere:1"
    assert housekeeper.ledger.claim(by_hand) is hk.Claim.MINE
    until(housekeeper, NOON)
    assert housekeeper.history("sweep")[0].status is Status.SKIPPED
    assert sentry.received == []


def test_ticks_that_nobody_ran_are_one_error(sentry: Ingest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    task = Task("sweep", lambda: None, schedule="*/5 * * * *", grace=60)
    for start in (NOON - timedelta(minutes=1), NOON + timedelta(minutes=62)):
        clock = VirtualClock(start)
        ledger = hk.ledger_from_url(url, Path("/"), clock)
        until(simulate(clock, task, ledger=ledger), start + timedelta(minutes=2))
        ledger.close()
    assert sentry.statuses == ["in_progress", "ok", "error"]
    assert len({each["check_in_id"] for each in sentry.check_ins}) == 2
    assert sentry.events == []


def test_a_crash_found_later_ends_the_check_in_of_the_dead(sentry: Ingest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    clock = VirtualClock(NOON - timedelta(minutes=1))
    ledger = hk.ledger_from_url(url, Path("/"), clock)
    found: list[hk.Run] = []

    def goes_on_unheard() -> None:
        settle(dying)
        clock.advance(hk.LEASE + 1)
        finder = simulate(clock, Task("sweep", fail, schedule="0 12 * * *"), ledger=ledger)
        until(finder, clock.now() + timedelta(seconds=hk.OBSERVED + 5))
        found.extend(finder.history("sweep"))
        # The dead comes back to life: its row is not its own any more, and it must not say so.
        fail()

    dying = simulate(clock, Task("sweep", goes_on_unheard, schedule="0 12 * * *"), ledger=ledger)
    until(dying, NOON)
    assert [each.status for each in found] == [Status.CRASHED]
    assert sentry.statuses == ["in_progress", "error"]
    assert len({each["check_in_id"] for each in sentry.check_ins}) == 1
    (event,) = sentry.events
    assert event["message"] == "Task sweep crashed"
    assert {trace(event)} == {trace(each) for each in sentry.check_ins}
    assert event["contexts"]["housekeeper"]["runner"] == dying.runner


def test_a_long_run_sends_heartbeats_until_it_ends(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))

    def work() -> None:
        for _ in range(3600 // 15):
            clock.advance(15)
            housekeeper._upkeep.beat()

    housekeeper = simulate(clock, Task("sweep", work, schedule="0 12 * * *"))
    until(housekeeper, NOON)
    # Half an hour is allowed without one, so one is sent every ten minutes.
    assert sentry.statuses == ["in_progress"] * 7 + ["ok"]
    assert len({each["check_in_id"] for each in sentry.check_ins}) == 1
    assert sentry.check_ins[-1]["duration"] == 3600.0


def test_a_timeout_is_an_error_with_the_stack_of_the_task(make: Any, sentry: Ingest) -> None:
    def sleepy() -> None:
        while True:
            time.sleep(0.01)

    task = Task("sweep", sleepy, schedule="0 12 * * *", timeout=0.1)
    housekeeper = make(task, clock=ShiftedClock(), sentry_enabled=True)
    sentry.wait(lambda: len(sentry.statuses) == 2)
    settle(housekeeper)
    assert sentry.statuses == ["in_progress", "error"]
    (event,) = sentry.events
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "RunTimedOut"
    assert "sleepy" in [frame["function"] for frame in exception["stacktrace"]["frames"]]
    assert "in sleepy" in event["contexts"]["housekeeper"]["error"]
    assert {trace(event)} == {trace(each) for each in sentry.check_ins}


def test_a_run_that_its_timeout_cannot_end_is_told_of_while_it_hangs(
    make: Any, sentry: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "TERM_TO_KILL", 0.0)
    monkeypatch.setattr(hk, "HEARTBEAT_EVERY", 0.05)
    released = threading.Event()
    task = Task("sweep", released.wait, schedule="0 12 * * *", timeout=0.1)
    housekeeper = make(task, clock=ShiftedClock(), sentry_enabled=True)
    try:
        sentry.wait(lambda: "error" in sentry.statuses)
        assert housekeeper.get_task_status("sweep")["running"]
    finally:
        released.set()
    assert housekeeper.shutdown(LIMIT)
    assert sentry.statuses == ["in_progress", "error"]
    (event,) = sentry.events
    assert event["message"] == "Task sweep did not end after its timeout"
    assert (
        "released.wait" in event["contexts"]["housekeeper"]["error"]
        or "in wait" in (event["contexts"]["housekeeper"]["error"])
    )


def test_a_cancelled_run_is_an_error_in_its_monitor_but_no_event(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))

    def work() -> None:
        housekeeper.cancel("sweep")
        current_run().check_cancelled()

    housekeeper = simulate(clock, Task("sweep", work, schedule="0 12 * * *"))
    until(housekeeper, NOON)
    assert sentry.statuses == ["in_progress", "error"]
    assert sentry.events == []


def test_an_abandoned_run_is_told_of_before_the_process_ends(make: Any, sentry: Ingest) -> None:
    entered, released = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        released.wait()

    task = Task("sweep", hang, schedule="0 12 * * *")
    housekeeper = make(task, clock=ShiftedClock(), sentry_enabled=True)
    assert entered.wait(LIMIT)
    try:
        assert not housekeeper.shutdown(timeout=0.1)
        sentry.wait(lambda: "error" in sentry.statuses and sentry.events)
    finally:
        released.set()
    assert sentry.statuses == ["in_progress", "error"]
    (event,) = sentry.events
    assert event["message"] == "Task sweep was abandoned"
    assert "in hang" in event["contexts"]["housekeeper"]["error"]
    assert {trace(event)} == {trace(each) for each in sentry.check_ins}


def test_a_burst_of_check_ins_is_not_cut_at_the_hundred_that_the_sdk_holds(sentry: Ingest) -> None:
    clock = VirtualClock(NOON - timedelta(minutes=1))
    tasks = [Task(f"task-{i}", lambda: None, schedule="0 12 * * *") for i in range(150)]
    until(simulate(clock, *tasks), NOON)
    assert sorted(sentry.statuses) == ["in_progress"] * 150 + ["ok"] * 150


# When Sentry is in trouble.


def test_a_before_send_that_blocks_holds_up_nobody(make: Any, ingest: Ingest) -> None:
    released = threading.Event()

    def block(event: Any, hint: Any) -> Any:
        released.wait()
        return event

    init(ingest.dsn, before_send=block)
    started = threading.Event()
    task = Task("sweep", started.set, schedule="0 12 * * *")
    housekeeper = make(task, Task("broken", fail), clock=ShiftedClock(), sentry_enabled=True)
    try:
        # Each of these would wait for ever for its own report, or for the one before it.
        assert started.wait(LIMIT)
        for _ in range(3):
            with pytest.raises(ValueError, match="no such table"):
                housekeeper.run_task_manually("broken")
        assert ingest.received == []
    finally:
        released.set()
    ingest.wait(lambda: len(ingest.events) == 3 and ingest.statuses == ["in_progress", "ok"])


def raise_it(event: Any, hint: Any) -> Any:
    raise RuntimeError("this before_send is broken")


def exit_it(event: Any, hint: Any) -> Any:
    sys.exit("this before_send is worse")


TROUBLES: dict[str, dict[str, Any]] = {
    "before_send raises": {"before_send": raise_it},
    "before_send exits": {"before_send": exit_it},
    "before_send drops": {"before_send": lambda event, hint: None},
    "sentry is dead": {"dsn": "http://key@127.0.0.1:9/1"},
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_trouble_with_sentry_changes_an_outcome(
    make: Any, ingest: Ingest, trouble: str
) -> None:
    init(**{"dsn": ingest.dsn, **TROUBLES[trouble]})
    told: list[tuple[str, str]] = []
    done = threading.Event()

    def on_finish(run: hk.Run) -> None:
        told.append((run.task, run.status.value))
        if len(told) == 2:
            done.set()

    tasks = [
        Task("sweep", lambda: None, schedule="0 12 * * *"),
        Task("broken", fail, schedule="0 12 * * *"),
    ]
    housekeeper = make(*tasks, clock=ShiftedClock(), sentry_enabled=True, on_finish=on_finish)
    assert done.wait(LIMIT)
    assert sorted(told) == [("broken", "failed"), ("sweep", "succeeded")]
    assert housekeeper.shutdown()
    assert ingest.check_ins == ingest.events == []


def test_a_rate_limit_costs_reports_and_nothing_else(sentry: Ingest) -> None:
    sentry.answer = (429, {"X-Sentry-Rate-Limits": "60:monitor:organization"})
    clock = VirtualClock(NOON - timedelta(minutes=1))
    housekeeper = simulate(clock, Task("sweep", lambda: None, schedule="* * * * *"))
    until(housekeeper, NOON)
    first = len(sentry.statuses)
    until(housekeeper, NOON + timedelta(minutes=3))
    assert len(sentry.statuses) == first
    assert [run.status for run in housekeeper.history("sweep")] == [Status.SUCCEEDED] * 4


def test_a_queue_that_is_full_drops_reports_with_one_warning(
    make: Any, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hk.SentryReporter, "QUEUED", 1)
    released = threading.Event()

    def block(event: Any, hint: Any) -> Any:
        released.wait()
        return event

    init(ingest.dsn, before_send=block)
    housekeeper = make(Task("broken", fail), sentry_enabled=True)
    try:
        for _ in range(5):
            with pytest.raises(ValueError, match="no such table"):
                housekeeper.run_task_manually("broken")
    finally:
        released.set()
    warnings = [each.message for each in caplog.records if "keep up" in each.message]
    assert warnings == ["Sentry does not keep up; reports are dropped"]


# Setting it up.


def test_without_a_dsn_anywhere_the_start_is_refused(make: Any) -> None:
    housekeeper = make(start=False, sentry_enabled=True)
    with pytest.raises(hk.ConfigurationError, match=r"no DSN; call sentry_sdk.init\(dsn=...\)"):
        housekeeper.initialize()
    sentry_sdk.init()  # Without a DSN it is no better.
    with pytest.raises(hk.ConfigurationError, match="no DSN"):
        housekeeper.initialize()


def test_without_the_package_the_start_is_refused(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    housekeeper = make(start=False, sentry_enabled=True)
    with pytest.raises(hk.ConfigurationError, match="pip install sentry-sdk"):
        housekeeper.initialize()
    housekeeper.shutdown()
    assert housekeeper.health()["started"] is False


OLD_SDK = """
import logging, sys, types

class Scope:
    def __init__(self): pass  # It takes no type.

sdk = types.ModuleType("sentry_sdk")
sdk.VERSION = "1.45.1"
sdk.Hub = sdk.Scope = sdk.init = Scope
sdk.scope = types.ModuleType("sentry_sdk.scope")
sdk.scope.Scope = Scope
sys.modules.update({"sentry_sdk": sdk, "sentry_sdk.scope": sdk.scope})
"""
START = """
import logging
from housekeeper import Task, create_housekeeper
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
housekeeper = create_housekeeper(sentry_enabled=True, tasks_dir=None, ledger="memory://")
housekeeper.register_task(Task("sweep", lambda: 1 / 0, startup=True))
housekeeper.initialize()
run = housekeeper.run_task_manually("sweep", wait=False)
run.ended.wait()
print(run.status, housekeeper.shutdown())
"""
SDKS = {
    "of the time before 2.0": OLD_SDK,
    "that has nothing": "import sys, types\nsys.modules['sentry_sdk'] = types.ModuleType('x')",
    "that cannot be imported": "",
}


@pytest.mark.parametrize("kind", SDKS)
def test_whatever_sdk_is_installed_the_scheduler_starts_with_one_warning(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "sentry_sdk.py").write_text("raise RuntimeError('made for another Python')")
    path = os.pathsep.join([str(tmp_path), str(FILE.parent)])
    done = subprocess.run(
        [sys.executable, "-c", SDKS[kind] + START],
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stdout == "failed True\n", done.stderr
    lines = [line for line in done.stderr.splitlines() if "entry" in line]
    assert len(lines) == 1
    assert lines[0].startswith("WARNING housekeeper: Sentry gets failures as its SDK logs them,")
    # The SDK's own logging integration makes an event of this line.
    assert "ERROR housekeeper.outcome: Task sweep failed" in done.stderr


def test_a_dsn_in_place_of_the_switch_is_refused_and_not_shown() -> None:
    with pytest.raises(hk.ConfigurationError) as caught:
        hk.create_housekeeper(sentry_enabled="https://secret@sentry.io/1")  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_an_application_may_set_sentry_up_after_the_start(
    make: Any, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SENTRY_DSN", ingest.dsn)
    housekeeper = make(Task("broken", fail), sentry_enabled=True)
    assert not sentry_sdk.is_initialized(), "an application may want other options"
    for expected in (0, 1):
        with pytest.raises(ValueError, match="no such table"):
            housekeeper.run_task_manually("broken")
        settle(housekeeper)
        assert len(ingest.events) == expected
        assert "sentry_sdk.init() was not called" in caplog.text
        init(ingest.dsn)


def test_when_it_is_not_enabled_nothing_is_sent_and_no_client_is_made(
    make: Any, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTRY_DSN", ingest.dsn)
    housekeeper = make(Task("sweep", lambda: None))
    housekeeper.run_task_manually("sweep")
    assert housekeeper.shutdown()
    assert not sentry_sdk.is_initialized()
    assert ingest.received == []


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(PYTHONPATH=str(FILE.parent), NO_PROXY="*", **variables),
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "sweep.py").write_text(
        "from housekeeper import Task\n"
        "def fail():\n    raise ValueError('no such table')\n"
        "task = Task('sweep', fail, schedule='*/30 * * * * *')\n"
        "quiet = Task('quiet', fail, schedule='0 0 15W * *', sentry=False)\n"
    )
    return tasks


def test_the_command_line_reads_its_settings_from_the_environment(
    ingest: Ingest, folder: Path
) -> None:
    options = ["--tasks", str(folder), "--ledger", "memory://"]
    variables = {
        "SENTRY_DSN": ingest.dsn,
        "SENTRY_ENVIRONMENT": "vm",
        "SENTRY_RELEASE": "shop@1.2",
    }
    done = run_python(str(FILE), *options, "run", "sweep", **variables)
    assert done.returncode == 1, done.stderr
    (event,) = ingest.events
    assert (event["environment"], event["release"]) == ("vm", "shop@1.2")
    assert event["tags"]["housekeeper.task"] == "sweep"
    done = run_python(str(FILE), *options, "run", "sweep", SENTRY_DSN="ftp://secret@nowhere/1")
    assert done.returncode == 2
    assert "SENTRY_DSN is not a DSN" in done.stderr
    assert "secret" not in done.stderr
    assert run_python(str(FILE), *options, "run", "sweep").returncode == 1
    assert len(ingest.events) == 1


def test_check_lists_the_schedules_that_sentry_cannot_express(folder: Path) -> None:
    options = ["--tasks", str(folder), "--timezone", "UTC"]
    variables = {"SENTRY_DSN": "http://key@127.0.0.1:9/1", "TZ": "UTC"}
    done = run_python(str(FILE), *options, "check", **variables)
    reason = "'*/30 * * * * *' comes more often than once a minute"
    assert done.stdout.splitlines() == [
        "2 tasks: quiet, sweep",
        f"note: Sentry has no monitor for sweep: {reason}",
        "all is well",
    ]
    done = run_python(str(FILE), *options, "--json", "check", **variables)
    assert json.loads(done.stdout)["unmonitored"] == {"sweep": reason}
    assert "Sentry" not in run_python(str(FILE), *options, "check", TZ="UTC").stdout


def test_registration_says_once_which_schedule_has_no_monitor(
    sentry: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock = VirtualClock(NOON)
    simulate(
        clock, Task("sweep", fail, schedule="0 0 15W * *"), Task("fine", fail, schedule="@daily")
    )
    lines = [each.message for each in caplog.records if "monitor" in each.message]
    assert lines == [
        "Task sweep has no monitor in Sentry: Sentry does not know the day of month '15W'"
    ]


PROGRAM = """
import os, sys
import sentry_sdk
from housekeeper import Task, create_housekeeper

def fail():
    raise ValueError("no such table")

sentry_sdk.init(dsn=sys.argv[1], http_proxy="", auto_enabling_integrations=False)
housekeeper = create_housekeeper(sentry_enabled=True, tasks_dir=None, ledger="memory://")
housekeeper.register_task(Task("sweep", fail))

def run():
    housekeeper.initialize()
    try:
        housekeeper.run_task_manually("sweep")
    except ValueError:
        pass

run()
if sys.argv[2] == "fork":
    child = os.fork()
    run() if child == 0 else os.waitpid(child, 0)
assert housekeeper.shutdown()
os._exit(0)  # Neither the SDK's nor any other exit hook is run.
"""


@pytest.mark.parametrize(("how", "processes"), [("alone", 1), ("fork", 2)])
def test_a_shutdown_sends_what_waits_also_in_a_forked_child(
    ingest: Ingest, how: str, processes: int
) -> None:
    done = run_python("-c", PROGRAM, ingest.dsn, how)
    assert done.returncode == 0, done.stderr
    # The child may have inherited what its parent was about to send: the same event twice.
    runs = {event["contexts"]["housekeeper"]["id"] for event in ingest.events}
    assert len(runs) == processes
    assert len({trace(event) for event in ingest.events}) == processes


# Monitors.


def config_of(task: Task, key: str = "", zone: str = "UTC") -> dict[str, Any]:
    trigger = hk.make_trigger(task.schedule, task.timezone or zone, "key")
    return hk.make_monitor(task, key or f"/{task.name}", trigger).config


def assert_accepted(config: dict[str, Any], slug: str) -> None:
    """Fail when Sentry's server would refuse a monitor (its rules, written down anew)."""
    assert re.fullmatch("[a-z0-9_-]{1,50}", slug)
    assert not slug.isdigit()
    assert re.sub("-+", "-", slug).strip("-_") == slug, "the server would make another slug of it"
    most = {
        "checkin_margin": 40_320,
        "max_runtime": 10_080,
        "failure_issue_threshold": 720,
        "recovery_threshold": 720,
    }
    assert set(config) <= {"schedule", "timezone", "owner", *most}
    assert all(type(config.get(name, 1)) is int for name in most)
    assert all(1 <= config.get(name, 1) <= limit for name, limit in most.items())
    hk.zone_named(config["timezone"])
    plan = config["schedule"]
    if plan["type"] == "interval":
        assert set(plan) == {"type", "value", "unit"}
        assert type(plan["value"]) is int
        assert plan["value"] > 0
        assert plan["unit"] in ("year", "month", "week", "day", "hour", "minute")
    else:
        assert set(plan) == {"type", "value"}
        assert len(plan["value"].split()) == 5
        next(CronSim(plan["value"], NOON))
        next(CronSim(plan["value"], NOON, reverse=True))


@pytest.mark.parametrize("path", sorted((FILE.parent / "tasks").glob("[a-z]*.py")), ids=str)
def test_the_server_accepts_the_monitors_of_the_built_in_tasks(path: Path) -> None:
    found = hk.discover_tasks(path.parent)
    tasks = [task for task, source in found.tasks.values() if source == path]
    assert tasks
    for task in tasks:
        assert_accepted(config_of(task), hk.sentry_slug(f"/{task.name}"))


FIELDS = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, hk.MONTHS),
    (0, 7, (*hk.WEEKDAYS, "SUN")),
)


def random_part(draw: random.Random, index: int) -> str:
    low, high, words = FIELDS[index]

    def number() -> str:
        value = draw.randint(low, high)
        return (
            words[value - low] if value - low < len(words) and draw.random() < 0.3 else str(value)
        )

    step = draw.randint(1, high)
    kinds = [
        number,
        number,
        lambda: "*",
        lambda: f"*/{step}",
        lambda: f"{number()}-{number()}",
        lambda: f"{number()}-{number()}/{draw.randint(1, 4)}",
        lambda: draw.choice(["H", f"H/{step}", f"H({low}-{high - 3})"]),
        lambda: ",".join(number() for _ in range(3)),
        lambda: f"{number()}-{number()},{number()}",
    ]
    if index == 2:
        kinds += [lambda: "L", lambda: "LW", lambda: "?", lambda: f"{draw.randint(1, 28)}W"]
        kinds += [lambda: f"L-{draw.randint(1, 9)}", lambda: f"L,{number()}"]
    if index == 4:
        kinds += [lambda: f"{number()}#{draw.randint(1, 5)}", lambda: f"L{draw.randint(0, 7)}"]
        kinds += [lambda: f"{number()}L", lambda: f"{number()}/{draw.randint(1, 3)}"]
    return draw.choice(kinds)()


def test_the_server_accepts_500_random_schedules_and_means_the_same_ticks() -> None:
    draw = random.Random(20260302)
    sent = refused = 0
    while sent < 500:
        expression = " ".join(random_part(draw, index) for index in range(5))
        if draw.random() < 0.1:
            expression = f"{draw.choice(['0', '30', '*/20'])} {expression}"
        try:
            task = Task(
                "sweep", fail, schedule=expression, grace=draw.choice([0, 90, 1e5, math.inf])
            )
        except hk.ConfigurationError:
            continue
        try:
            config = config_of(task)
        except hk.ConfigurationError:
            unsayable = re.search(r"\d+W|L-\d|^\*/20 ", expression)
            refused += bool(unsayable)
            if not unsayable:
                raise
            continue
        sent += 1
        assert_accepted(config, "sweep")
        text = config["schedule"]["value"]
        ticks = hk.make_trigger(expression, "UTC", "key").following(NOON, 5)
        theirs = CronSim(text, NOON)
        assert [tick.replace(second=0) for tick in ticks] == [next(theirs) for _ in ticks], (
            expression,
            text,
        )
    assert refused > 0


@pytest.mark.parametrize(
    ("expression", "sent"),
    [
        ("0 2 * * *", "0 2 * * *"),
        ("@hourly", "0 * * * *"),
        ("0 9 * * fri-mon", "0 9 * * 0,1,5,6"),
        ("0 9 1 nov-feb *", "0 9 1 1,2,11,12 *"),
        ("0 9 * * monday-friday", "0 9 * * 1-5"),
        ("0 9 * * 1/2", "0 9 * * 1,3,5"),
        ("5-5 22-2 * * *", "5 0,1,2,22,23 * * *"),
        ("0 9 1,*/10 * *", "0 9 1,*/10 * *"),
        ("0 9 LW * *", "0 9 LW * *"),
        ("0 9 * * FRIL", "0 9 * * 5L"),
        ("0 9 * * fri#2,monday", "0 9 * * 5#2,1"),
        ("0 9 ? * 1", "0 9 * * 1"),
        ("0 9 * * L5", "0 9 * * 5L"),
        ("0 9 * * L7", "0 9 * * 0L"),
        ("30 0 2 * * *", "0 2 * * *"),
        ("*/10 * * * *", "*/10 * * * *"),
    ],
)
def test_a_schedule_is_rewritten_in_the_words_of_the_server(expression: str, sent: str) -> None:
    assert hk.sentry_schedule(hk.make_trigger(expression, "UTC")) == {
        "type": "crontab",
        "value": sent,
    }


def test_intervals_are_sent_in_whole_minutes_or_days() -> None:
    every = schedule.Scheduler().every
    for builder, value, unit in [
        (every(10).minutes, 10, "minute"),
        (every(120).seconds, 2, "minute"),
        (every(3).hours.at(":30"), 180, "minute"),
        (every(2).days.at("09:00"), 2, "day"),
        (every().monday.at("09:00"), 7, "day"),
    ]:
        trigger = hk.make_trigger(builder, "Europe/Berlin")
        assert hk.sentry_schedule(trigger) == {"type": "interval", "value": value, "unit": unit}
    for length, value, unit in [(90, 90, "minute"), (1440, 1, "day"), (20160, 14, "day")]:
        trigger = hk.make_trigger(timedelta(minutes=length), "Europe/Berlin", "key")
        assert hk.sentry_schedule(trigger) == {"type": "interval", "value": value, "unit": unit}
    for uneven in (every(90).seconds, timedelta(seconds=90)):
        with pytest.raises(hk.ConfigurationError, match="not in whole minutes"):
            hk.sentry_schedule(hk.make_trigger(uneven, "UTC"))


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        (
            ["0 9 * * *", "0 12 * * 6"],
            r"one schedule a monitor, not '0 9 \* \* \* | 0 12 \* \* 6'",
        ),
        ("0 9 L-3 * *", "Sentry does not know the day of month 'L-3'"),
        ("0 9 1,15W * *", "Sentry does not know the day of month '15W'"),
    ],
)
def test_what_sentry_cannot_say_has_no_monitor_and_a_reason(schedule: Any, reason: str) -> None:
    with pytest.raises(hk.ConfigurationError, match=re.escape(reason.replace("\\", ""))):
        config_of(Task("sweep", fail, schedule=schedule))


@pytest.mark.parametrize(
    ("options", "margin", "runtime"),
    [
        ({}, 61, 30),
        ({"grace": 0}, 1, 30),
        ({"grace": 60}, 2, 30),
        # Whatever the grace, a tick is not run any more when the next has come.
        ({"grace": math.inf}, 24 * 60 + 1, 30),
        ({"timeout": 30}, 61, 2),
        ({"timeout": 60}, 61, 3),
        ({"timeout": 1e9}, 61, 10_080),
        ({"sentry": {"checkin_margin": 5, "max_runtime": 7}}, 5, 7),
    ],
)
def test_margin_and_runtime_cover_grace_and_timeout(
    options: dict[str, Any], margin: int, runtime: int
) -> None:
    config = config_of(Task("sweep", fail, schedule="0 2 * * *", **options))
    assert (config["checkin_margin"], config["max_runtime"]) == (margin, runtime)


def test_a_task_may_set_what_its_monitor_is() -> None:
    options = {
        "slug": "nightly_sweep",
        "failure_issue_threshold": 3,
        "recovery_threshold": 2,
        "owner": "team:6",
    }
    task = Task("sweep", fail, schedule="0 2 * * *", sentry=options)
    monitor = hk.make_monitor(task, "/sweep", hk.make_trigger("0 2 * * *", "UTC"))
    assert monitor.slug == "nightly_sweep"
    assert monitor.config["failure_issue_threshold"] == 3
    assert monitor.config["recovery_threshold"] == 2
    assert monitor.config["owner"] == "team:6"
    assert "slug" not in monitor.config
    assert_accepted(monitor.config, monitor.slug)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("nightly", "sentry 'nightly' is not True, False or a dict"),
        ({"margin": 5}, "sentry has no option 'margin'; known are slug, checkin_margin"),
        ({"slug": "Nightly Sweep"}, "sentry slug 'Nightly Sweep' is not 1 to 50"),
        ({"slug": "123"}, "sentry slug '123' is not"),
        ({"slug": "a" * 51}, "is not 1 to 50"),
        ({"checkin_margin": 0}, "sentry checkin_margin 0 is not a whole number in 1-40320"),
        ({"max_runtime": 2.5}, "sentry max_runtime 2.5 is not a whole number in 1-10080"),
        ({"failure_issue_threshold": True}, "True is not a whole number in 1-720"),
        ({"recovery_threshold": 721}, "721 is not a whole number in 1-720"),
        ({"owner": ""}, "sentry owner '' is not of the form"),
    ],
)
def test_what_a_monitor_cannot_be_is_refused_when_the_task_is_made(
    options: Any, words: str
) -> None:
    with pytest.raises(hk.ConfigurationError, match=re.escape(words)):
        Task("sweep", fail, schedule="0 2 * * *", sentry=options)


def test_slugs_are_short_lasting_and_different() -> None:
    names = ["sweep", "Sweep", "sweep-", "a.b", "a-b", "a--b", "a_b", "123", "a" * 50, "a" * 51]
    names += ["a" * 99 + "b", "a" * 99 + "c", "x" * 40 + "-" * 20]
    keys = [
        f"{namespace}/{name}{host}"
        for namespace in ("", "shop", "shop-a")
        for name in names
        for host in ("", "@vm1")
    ]
    keys += ["a-b/c", "a/b-c"]
    slugs = [hk.sentry_slug(key) for key in keys]
    assert len(set(slugs)) == len(keys)
    config = config_of(Task("sweep", fail, schedule="0 2 * * *"))
    for slug in slugs:
        assert_accepted(config, slug)
    assert [hk.sentry_slug(f"/{name}") for name in ("sweep", "a_b")] == ["sweep", "a_b"]
