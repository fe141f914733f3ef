"""Tasks: what is refused where it is written, and how a function is called."""

from __future__ import annotations

import dataclasses
import enum
import functools
import gc
import inspect
import math
import os
import re
import sys
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import schedule

import housekeeper as hk
from housekeeper import ConfigurationError, Status, Task, current_run
from tests.virtual_time import VirtualClock, simulated, utc

START = utc(2024, 1, 1)
NAN = math.nan


def work() -> None:
    pass


def run_once(task: Task, app: object = None) -> hk.Run:
    """Run a task by hand in this thread, and return what was recorded."""
    simulation = simulated(VirtualClock(START), task, app=app)
    simulation.run_task_manually(task.name, wait=False)
    simulation.run_until(START + timedelta(seconds=1))
    (row,) = simulation.history(task.name)
    return row


# What is refused.


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "-a", ".a", "_a", "a/b", "a@b", "a\n", "größe", "a" * 101, None, 5, b"a"],
)
def test_a_name_that_is_not_one_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits, dots, dashes") as caught:
        Task(name, work)
    assert str(caught.value).startswith(f"Task {name!r}: ")


@pytest.mark.parametrize("name", ["a", "0", "a-b_c.d", "Sweep2", "a" * 100])
def test_a_name_of_letters_digits_dots_dashes_and_underscores_is_taken(name: str) -> None:
    assert Task(name, work).name == name


REFUSED: list[tuple[dict[str, Any], str]] = [
    # One action, and what goes with it.
    ({}, "give it either run= or command="),
    ({"run": work, "command": "ls"}, "give it either run= or command="),
    ({"run": work, "cwd": "/tmp"}, "cwd= and env= go with command=, not with run="),
    ({"run": work, "env": {}}, "cwd= and env= go with command=, not with run="),
    ({"run": 5}, "run=5 is not a function"),
    ({"run": "work"}, "run='work' is not a function"),
    ({"command": ""}, "command '' is neither a shell line nor a list of arguments"),
    ({"command": " \t\n"}, "command ' \\t\\n' is neither a shell line"),
    ({"command": []}, "command [] is neither a shell line"),
    ({"command": ()}, "command () is neither a shell line"),
    ({"command": [""]}, "command [''] is neither a shell line"),
    ({"command": ["", "-l"]}, "command ['', '-l'] is neither a shell line"),
    ({"command": b"ls"}, "command b'ls' is neither a shell line"),
    ({"command": ["ls", 5]}, "command ['ls', 5] is neither a shell line"),
    ({"command": ["ls", None]}, "command ['ls', None] is neither a shell line"),
    ({"command": [Path("/bin/ls")]}, "is neither a shell line nor a list of arguments"),
    (
        {"command": "ls\0"},
        "command 'ls\\x00' is neither a shell line nor a list of arguments, without NULs",
    ),
    (
        {"command": ["ls", "a\0b"]},
        "command ['ls', 'a\\x00b'] is neither a shell line nor a list of arguments, without NULs",
    ),
    ({"command": "ls", "env": {"A": 5}}, "env= holds something other than names and texts"),
    ({"command": "ls", "env": {5: "A"}}, "env= holds something other than names and texts"),
    # Numbers.
    ({"run": work, "grace": -1}, "grace -1 is not a number of seconds, 0 or more"),
    ({"run": work, "grace": NAN}, "grace nan is not a number of seconds"),
    ({"run": work, "grace": True}, "grace True is not a number of seconds"),
    ({"run": work, "grace": None}, "grace None is not a number of seconds"),
    ({"run": work, "grace": timedelta(1)}, "grace datetime.timedelta(days=1) is not a number"),
    (
        {"run": work, "timeout": 0},
        "timeout 0 is not a number of seconds above 0; None means no limit",
    ),
    ({"run": work, "timeout": 0.0}, "timeout 0.0 is not a number of seconds above 0"),
    ({"run": work, "timeout": -0.5}, "timeout -0.5 is not a number of seconds"),
    ({"run": work, "timeout": NAN}, "timeout nan is not a number of seconds"),
    ({"run": work, "timeout": True}, "timeout True is not a number of seconds"),
    ({"run": work, "timeout": "60"}, "timeout '60' is not a number of seconds"),
    ({"run": work, "retries": -1}, "retries -1 is not a whole number, 0 or more"),
    ({"run": work, "retries": 1.5}, "retries 1.5 is not a whole number"),
    ({"run": work, "retries": 1.0}, "retries 1.0 is not a whole number"),
    ({"run": work, "retries": True}, "retries True is not a whole number"),
    ({"run": work, "retries": None}, "retries None is not a whole number"),
    ({"run": work, "retry_delay": -1}, "retry_delay -1 is not a number of seconds, 0 or more"),
    ({"run": work, "retry_delay": NAN}, "retry_delay nan is not a number"),
    ({"run": work, "retry_delay": False}, "retry_delay False is not a number"),
    (
        {"run": work, "startup": -1},
        "startup -1 is neither True, False nor a finite number of seconds",
    ),
    ({"run": work, "startup": NAN}, "startup nan is neither"),
    ({"run": work, "startup": math.inf}, "startup inf is neither"),
    ({"run": work, "startup": "yes"}, "startup 'yes' is neither"),
    ({"run": work, "startup": None}, "startup None is neither"),
    ({"run": work, "enabled": "false"}, "enabled 'false' is neither True nor False"),
    ({"run": work, "enabled": None}, "enabled None is neither True nor False"),
    ({"run": work, "each_host": "0"}, "each_host '0' is neither True nor False"),
    # Schedules and zones; test_triggers.py has the table of cron expressions.
    ({"run": work, "schedule": "61 * * * *"}, "schedule '61 * * * *' is not a cron expression"),
    ({"run": work, "schedule": ""}, "schedule '' is not a cron expression"),
    ({"run": work, "schedule": "0 0 30 2 *"}, "schedule '0 0 30 2 *'"),
    ({"run": work, "schedule": "@reboot please"}, "schedule '@reboot please'"),
    (
        {"run": work, "schedule": 600},
        "schedule 600 is neither a cron expression, a timedelta, sch",
    ),
    ({"run": work, "schedule": False}, "schedule False is neither a cron expression"),
    ({"run": work, "schedule": {"@daily"}}, "schedule {'@daily'} is neither a cron expression"),
    (
        {"run": work, "schedule": timedelta(0)},
        "schedule datetime.timedelta(0) is not in whole sec",
    ),
    ({"run": work, "schedule": []}, "schedule [] is not a list of schedules"),
    ({"run": work, "timezone": "Berlin"}, "timezone 'Berlin'"),
    ({"run": work, "timezone": ""}, "timezone ''"),
    ({"run": work, "timezone": 2}, "timezone 2"),
    ({"run": work, "timezone": "../etc/passwd"}, "timezone '../etc/passwd'"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED)
def test_what_could_not_work_is_refused_with_the_tasks_name_and_the_value(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Task("sweep", **options)
    assert str(caught.value).startswith("Task 'sweep': ")
    assert text in str(caught.value)
    assert str(caught.value).count("Task 'sweep'") == 1


def test_a_housekeeper_is_not_switched_on_by_a_text_that_says_off() -> None:
    with pytest.raises(ConfigurationError, match="enabled '0' is neither True nor False"):
        hk.create_housekeeper(enabled="0", tasks_dir=None, ledger="memory://")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"grace": 0},
        {"grace": math.inf},
        {"timeout": 0.001},
        {"timeout": math.inf},
        {"retries": 0},
        {"retries": 1000},
        {"retry_delay": 0},
        {"startup": True},
        {"startup": 0},
        {"startup": 2.5},
        {"schedule": "H H * * *"},
        {"schedule": "@daily", "timezone": "Europe/Berlin"},
        {"timezone": "Asia/Kathmandu"},
    ],
)
def test_what_can_work_is_taken_as_it_is(options: dict[str, Any]) -> None:
    task = Task("sweep", work, **options)
    assert {name: getattr(task, name) for name in options} == options


@pytest.mark.parametrize(
    "command", ["ls -l", ["ls", "-l"], ("ls",), ["ls", ""], ["ls", " "], "größe 🧹"]
)
def test_a_command_is_a_shell_line_or_a_list_of_arguments(command: Any) -> None:
    task = Task("sweep", command=command, cwd=Path("/tmp"), env={"A": "b"})
    assert (task.command, task.run) == (command, None)


def test_a_command_is_refused_where_there_is_no_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "name", "nt")
        with pytest.raises(ConfigurationError, match="POSIX"):
            Task("sweep", command="dir")


def test_a_task_does_not_change_and_is_equal_only_to_itself() -> None:
    task = Task("sweep", work)
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]
    assert task != Task("sweep", work)
    assert len({task, task, Task("sweep", work)}) == 2


def test_all_but_the_name_and_the_function_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Task("sweep", work, "ls")  # type: ignore[misc]


# Functions.


async def coroutine() -> None:
    pass


def generator() -> Iterator[None]:
    yield


def needs_one(path: str) -> None:
    pass


def needs_two(app: object, path: str) -> None:
    pass


def needs_a_keyword(*, path: str) -> None:
    pass


class Needy:
    def __init__(self, path: str) -> None: ...

    def method(self, path: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (coroutine, "run=coroutine is a coroutine function; wrap it: run=lambda: asyncio.run("),
        (functools.partial(coroutine), "is a coroutine function"),
        (generator, "run=generator is a generator function, so that a call would do nothing"),
        (functools.partial(generator), "is a generator function"),
        (needs_one, "needs arguments; it may take none, or one named app"),
        (needs_two, "needs arguments; it may take none, or one named app"),
        (needs_a_keyword, "needs arguments; it may take none, or one named app"),
        (functools.partial(needs_two, path="/tmp"), None),
        (functools.partial(needs_two, "/tmp"), "needs arguments"),
        (lambda path: None, "needs arguments"),
        (Needy, "needs arguments"),
        (Needy("/tmp").method, "needs arguments"),
        (Needy.method, "needs arguments"),
        (len, "run=<built-in function len> needs arguments"),
        (os.remove, "run=<built-in function remove> needs arguments"),
    ],
)
def test_a_function_that_could_not_be_called_is_refused(
    function: Callable[..., object], text: str | None
) -> None:
    if text is None:
        assert Task("sweep", function).name == "sweep"
        return
    with pytest.raises(ConfigurationError) as caught:
        Task("sweep", function)
    assert str(caught.value).startswith("Task 'sweep': run=")
    assert text in str(caught.value)


class Sweeper:
    """Remember what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __call__(self) -> None:
        self.calls.append(())

    def with_app(self, app: object) -> None:
        self.calls.append((app,))

    def with_app_or_not(self, app: object = None) -> None:
        self.calls.append((app,))

    def with_defaults(self, days: int = 30, *rest: object, **more: object) -> None:
        self.calls.append((days, rest, more))

    def with_anything(self, *values: object, **more: object) -> None:
        self.calls.append((values, more))


def wrapped(function: Callable[..., object]) -> Callable[..., object]:
    """Return what a decorator makes of a function."""

    @functools.wraps(function)
    def call(*values: object, **more: object) -> object:
        return function(*values, **more)

    return call


APP = object()


@pytest.mark.parametrize(
    ("pick", "called_with"),
    [
        (lambda sweeper: sweeper, ()),
        (lambda sweeper: sweeper.__call__, ()),
        (lambda sweeper: sweeper.with_app, (APP,)),
        (lambda sweeper: sweeper.with_app_or_not, (APP,)),
        (lambda sweeper: sweeper.with_defaults, (30, (), {})),
        (lambda sweeper: sweeper.with_anything, ((), {})),
        (lambda sweeper: functools.partial(sweeper.with_defaults, 7), (7, (), {})),
        (lambda sweeper: functools.partial(sweeper.with_defaults, a=1), (30, (), {"a": 1})),
        (lambda sweeper: functools.partial(sweeper.with_app, 5), (5,)),
        (lambda sweeper: functools.partial(sweeper.with_app), (APP,)),
        (lambda sweeper: lambda app: sweeper.with_app(app), (APP,)),
        (lambda sweeper: lambda app=None, days=7: sweeper.with_app((app, days)), ((APP, 7),)),
        (lambda sweeper: wrapped(sweeper.with_app), (APP,)),
        (lambda sweeper: wrapped(sweeper), ()),
    ],
)
def test_a_function_is_called_with_the_app_when_it_names_it_and_else_with_nothing(
    pick: Callable[[Sweeper], Callable[..., object]], called_with: tuple[object, ...]
) -> None:
    sweeper = Sweeper()
    task = Task("sweep", pick(sweeper))
    assert run_once(task, app=APP).status is Status.SUCCEEDED
    assert sweeper.calls == [called_with]


def test_a_class_is_called_like_a_function() -> None:
    made: list[object] = []

    class Sweep:
        def __init__(self) -> None:
            made.append(self)

    assert run_once(Task("sweep", Sweep)).status is Status.SUCCEEDED
    assert len(made) == 1


@pytest.mark.parametrize("function", [time.time, gc.collect, dict, print, os.getcwd])
def test_builtins_are_functions_with_or_without_a_signature(
    function: Callable[..., object],
) -> None:
    assert run_once(Task("sweep", function)).status is Status.SUCCEEDED


# Schedules.


def test_a_task_is_scheduled_in_its_own_zone_or_else_the_housekeepers() -> None:
    clock = VirtualClock(START)
    hits: dict[str, list[object]] = {"berlin": [], "tokyo": []}
    tasks = [
        Task(name, lambda name=name: hits[name].append(current_run().scheduled_for), **options)
        for name, options in {
            "berlin": {"schedule": "0 12 * * *"},
            "tokyo": {"schedule": "0 12 * * *", "timezone": "Asia/Tokyo"},
        }.items()
    ]
    simulation = simulated(clock, *tasks, timezone="Europe/Berlin")
    simulation.run_until(utc(2024, 1, 2))
    assert hits == {"berlin": [utc(2024, 1, 1, 11)], "tokyo": [utc(2024, 1, 1, 3)]}


@pytest.mark.parametrize("text", ["@reboot", " @Reboot ", "@REBOOT\n"])
def test_reboot_means_at_startup(text: str) -> None:
    task = Task("sweep", work, schedule=text)
    assert (task.schedule, task.startup, task.schedule_text) == (None, True, "")
    assert Task("sweep", work, schedule=text, startup=30).startup == 30


def test_reboot_may_be_one_of_several_schedules() -> None:
    task = Task("sweep", work, schedule=["@reboot", "0 2 * * *"])
    assert (task.schedule, task.startup, task.schedule_text) == (["0 2 * * *"], True, "0 2 * * *")
    assert Task("sweep", work, schedule=("@Reboot",)).schedule is None


def test_a_zone_that_is_this_hosts_is_named_once_and_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hk.local_zone_name.cache_clear()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    try:
        assert Task("sweep", work, schedule="0 2 * * *", timezone="local").timezone == "Asia/Tokyo"
        assert Task("sweep", work, timezone="local").timezone == "Asia/Tokyo"
    finally:
        hk.local_zone_name.cache_clear()


def test_a_task_runs_at_each_tick_of_each_of_its_schedules() -> None:
    clock, hits = VirtualClock(START), []
    task = Task(
        "sweep",
        lambda: hits.append(current_run().scheduled_for),
        schedule=["0 2 * * *", timedelta(hours=7), "H 12 * * *"],
    )
    simulation = simulated(clock, task)
    simulation.run_until(utc(2024, 1, 8))
    # The list shows what is hashed.
    (listed,) = simulation.list_tasks()
    shown = r"0 2 \* \* \* \| every 7 hours \+ ([0-6]):(\d\d):(\d\d) \| (\d+) 12 \* \* \*"
    match = re.fullmatch(shown, str(listed["schedule"]))
    assert match
    hours, minutes, seconds, minute = map(int, match.groups())
    phase = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    epoch, length = utc(1970, 1, 1), timedelta(hours=7)
    first = epoch + phase + ((START - epoch - phase) // length + 1) * length
    ticks = {first + number * length for number in range(24)}
    ticks |= {utc(2024, 1, day, 2) for day in range(1, 8)}
    ticks |= {utc(2024, 1, day, 12, minute) for day in range(1, 8)}
    assert hits == sorted(ticks)


def test_a_reboot_task_runs_once_at_the_start() -> None:
    clock, reasons = VirtualClock(START), []
    task = Task("sweep", lambda: reasons.append(current_run().reason), schedule="@reboot")
    simulated(clock, task).run_until(utc(2024, 1, 2))
    assert reasons == [hk.Reason.STARTUP]


def test_a_startup_delay_is_in_seconds() -> None:
    clock, starts = VirtualClock(START), []
    simulated(clock, Task("sweep", lambda: starts.append(clock.now()), startup=90)).run_until(
        utc(2024, 1, 2)
    )
    assert [instant - START for instant in starts] == [timedelta(seconds=90)]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (None, ""),
        ("*/10 * * * *", "*/10 * * * *"),
        ("@daily", "@daily"),
        ("H 3 * * *", "H 3 * * *"),
        (" 0 3 * * *\n", "0 3 * * *"),
        (schedule.every(3).days.at("09:00"), "every 3 days at 09:00"),
        (timedelta(minutes=90), "every 90 minutes"),
        (timedelta(hours=1), "every hour"),
        (["0 9 * * mon-fri", timedelta(hours=7)], "0 9 * * mon-fri | every 7 hours"),
    ],
)
def test_the_schedules_text_is_what_was_written(written: object, text: str) -> None:
    assert Task("sweep", work, schedule=written, timezone="Europe/Berlin").schedule_text == text


# The decorator.


def test_the_decorator_makes_a_task_of_the_function_below() -> None:
    @hk.task(schedule="0 2 * * *")
    def clean_old_logs() -> None:
        """Delete the logs of last month.

        More that is not for lists.
        """

    assert isinstance(clean_old_logs, Task)
    assert clean_old_logs.name == "clean-old-logs"
    assert clean_old_logs.description == "Delete the logs of last month."
    assert clean_old_logs.schedule == "0 2 * * *"


def test_the_decorator_runs_the_function_with_the_app() -> None:
    seen: list[object] = []

    @hk.task()
    def sweep(app: object) -> None:
        seen.append(app)

    assert run_once(sweep, app=APP).status is Status.SUCCEEDED
    assert seen == [APP]
    assert sweep.description == ""


def test_the_decorators_name_and_description_can_be_given() -> None:
    @hk.task(name="nightly", description="Sweep.")
    def _sweep() -> None:
        """Say something else."""

    assert (_sweep.name, _sweep.description) == ("nightly", "Sweep.")

    @hk.task()
    def _private_work_() -> None: ...

    assert _private_work_.name == "private-work"


OPTIONS: dict[str, Any] = {
    "name": "other",
    "schedule": "0 2 * * *",
    "startup": 5.0,
    "timezone": "Asia/Tokyo",
    "enabled": False,
    "grace": 60.0,
    "timeout": 300.0,
    "retries": 3,
    "retry_delay": 10.0,
    "each_host": True,
    "description": "Sweep.",
    "sentry": {"slug": "sweeper"},
}


def test_the_decorator_passes_all_options_on() -> None:
    made = hk.task(**OPTIONS)(work)
    assert {name: getattr(made, name) for name in OPTIONS} == OPTIONS
    assert made.run is work


def test_the_decorator_has_all_options_of_a_task_and_the_same_defaults() -> None:
    only_of_commands = {"run", "command", "cwd", "env"}
    fields = {
        field.name: field.default
        for field in dataclasses.fields(Task)
        if field.init and field.name not in {"name", *only_of_commands}
    }
    parameters = inspect.signature(hk.task).parameters.values()
    options = {
        each.name: each.default
        for each in parameters
        if each.kind is inspect.Parameter.KEYWORD_ONLY and each.name != "name"
    }
    assert options == fields
    assert OPTIONS.keys() == {"name", *fields}


def test_the_decorator_without_parentheses_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"needs its parentheses: @task\(schedule="):
        hk.task(lambda: None)


def through_a_decorator(function: Callable[[], object]) -> Callable[[], object]:
    @functools.wraps(function)
    def call() -> object:
        return function()

    return call


@through_a_decorator
async def hidden_coroutine() -> None:
    pass


@through_a_decorator
def hidden_generator() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("function", "what"), [(hidden_coroutine, "coroutine"), (hidden_generator, "generator")]
)
def test_what_a_function_returns_and_does_not_run_is_no_success(function: Any, what: str) -> None:
    simulation = simulated(VirtualClock(utc(2024, 1, 1)), Task("lazy", function))
    run = simulation.run_task_manually("lazy", wait=False)
    simulation.run_until(utc(2024, 1, 1))
    assert run.status is hk.Status.FAILED
    assert f"returned a {what}, of which nothing ran; wrap it" in run.note


def test_the_decorator_refuses_like_task_and_names_the_function() -> None:
    with pytest.raises(ConfigurationError, match="Task 'old-logs': timeout -1"):

        @hk.task(timeout=-1)
        def old_logs() -> None: ...

    with pytest.raises(ConfigurationError, match="Task '<lambda>': the name"):
        hk.task()(lambda: None)
    assert hk.task(name="sweep")(lambda: None).name == "sweep"


# What is known to be refused too late, or with the wrong exception.


class Asynchronous:
    async def __call__(self) -> None: ...


class Yielding:
    def __call__(self) -> Iterator[None]:
        yield


async def asynchronous_generator() -> AsyncIterator[None]:
    yield


def only_by_keyword(*, app: object) -> None:
    assert app is APP


@pytest.mark.parametrize(
    "options",
    [
        {"command": 7},
        {"command": {"ls"}},
        {"command": {"ls": 1}},
        {"command": "ls", "env": "A=b"},
        {"command": "ls", "env": [("A", "b")]},
        {"command": "ls", "env": {"A=": "b"}},
        {"command": "ls", "env": {"A": "b\0"}},
        {"command": "ls", "cwd": 5},
        {"command": "ls", "cwd": "/tmp\0"},
        {"run": Asynchronous()},
        {"run": Yielding()},
        {"run": asynchronous_generator},
    ],
)
def test_what_could_not_work_either_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Task 'sweep': "):
        Task("sweep", **options)


@pytest.mark.parametrize(
    "function", [only_by_keyword, functools.partial(lambda app: None, app="bound already")]
)
def test_an_app_that_is_taken_by_keyword_only_is_passed_so(
    function: Callable[..., object],
) -> None:
    assert run_once(Task("sweep", function), app=APP).status is Status.SUCCEEDED


def test_the_decorator_takes_a_partial() -> None:
    assert hk.task(name="sweep")(functools.partial(needs_one, "a")).description == ""
    with pytest.raises(ConfigurationError, match="name"):
        hk.task()(functools.partial(needs_one, "a"))


# A task is callable.


def test_a_task_that_is_called_runs_its_function_here_and_now() -> None:
    seen: list[object] = []

    @hk.task(schedule="@daily")
    def count() -> int:
        seen.append((current_run().task, current_run().cancelled))
        current_run().progress(1)
        return 5

    assert count() == 5
    assert count("the application") == 5
    assert seen == [("", False)] * 2

    @hk.task()
    def fail() -> None:
        raise hk.SkipRun("nothing to do")

    with pytest.raises(hk.SkipRun, match="nothing to do"):
        fail()


def test_a_task_that_takes_the_application_is_called_with_one() -> None:
    @hk.task()
    def needs(app: object) -> object:
        return app

    @hk.task()
    def may_have(app: object = "its own") -> object:
        return app

    assert needs("shop") == needs(app="shop") == may_have("shop") == "shop"
    assert needs(None) is None
    assert may_have() == "its own"
    with pytest.raises(hk.HousekeeperError, match=r"task 'needs' needs .*: call task\(app\)"):
        needs()


def test_a_task_that_is_called_runs_its_command_and_returns_what_it_printed(
    tmp_path: Path,
) -> None:
    assert Task("says", command="echo $WORD; pwd", cwd=tmp_path, env={"WORD": "hello"})() == (
        f"hello\n{tmp_path}\n"
    )
    with pytest.raises(hk.CommandFailed, match="the command exited with 3: no disk") as failure:
        Task("fails", command="echo no disk; exit 3")()
    assert failure.value.returncode == 3
    with pytest.raises(hk.CommandFailed, match="could not be started"):
        Task("none", command=["/no/such/program"])()


def test_a_task_can_be_the_function_of_another_one() -> None:
    inner = Task("inner", lambda app: f"done for {app}")
    row = run_once(Task("outer", inner), app="shop")
    assert (row.status, row.note) == (Status.SUCCEEDED, "done for shop")


class Named(str, enum.Enum):
    TASK, LINE, ZONE = "sweep", "echo swept", "Europe/Berlin"


def test_texts_of_an_enum_are_what_they_say(make) -> None:
    task = Task(Named.TASK, command=Named.LINE, timezone=Named.ZONE)
    housekeeper = make(task, namespace=Named.TASK, timezone=Named.ZONE)
    run = housekeeper.run_task_manually("sweep")
    assert (run.key, run.task, run.output) == ("sweep/sweep", "sweep", "swept\n")
    assert f"{task.name} {task.timezone} {housekeeper.timezone}" == (
        "sweep Europe/Berlin Europe/Berlin"
    )


class Lazy:
    """What asks somebody else for its class, as proxies do outside of their surroundings."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of application context")


def test_a_result_that_cannot_even_be_asked_for_its_class_is_no_failure(make) -> None:
    housekeeper = make(Task("lazy", Lazy))
    assert housekeeper.run_task_manually("lazy").status is hk.Status.SUCCEEDED


def test_a_parameter_of_the_rest_that_is_named_app_gets_no_application(make) -> None:
    def work(*app: object) -> str:
        return f"{len(app)} given"

    assert make(Task("rest", work)).run_task_manually("rest").note == "0 given"


@pytest.mark.parametrize("folder", [b"tasks", 5, "tasks\0", "\ud800"])
def test_a_tasks_folder_that_is_no_path_is_refused(folder: Any) -> None:
    with pytest.raises(hk.ConfigurationError, match=r"tasks_dir .* is not a path"):
        hk.create_housekeeper(tasks_dir=folder, ledger="memory://")


def test_a_task_that_replaces_what_tells_a_fork_is_not_taken_for_one(make, monkeypatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert make(Task("sweep", os.getpid)).run_task_manually("sweep").note == "1"


def test_a_module_of_the_application_that_is_named_schedule_is_no_library(
    make, monkeypatch
) -> None:
    other = types.ModuleType("schedule")
    other.Job = type("Job", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "schedule", other)
    housekeeper = make(Task("sweep", other.Job, schedule=["@daily", "@weekly"]))
    assert housekeeper.run_task_manually("sweep").status is Status.SUCCEEDED
    with pytest.raises(ConfigurationError, match="neither a cron expression"):
        Task("other", work, schedule=other.Job())
