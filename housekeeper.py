#!/usr/bin/env python3
"""Housekeeper: cron for Python programs, in one file.

Put this file into a program, or into a folder of its own, and task files into ``tasks/``.  From
then on each tick of a schedule is run once, and every tick is accounted for.

    # tasks/sweep.py
    from housekeeper import current_run, task

    @task(schedule="*/10 * * * *", timeout=300)
    def sweep():
        for number, path in enumerate(stale_files()):
            current_run().check_cancelled()
            path.unlink()

Run ``python housekeeper.py``, or start it inside an application::

    housekeeper = create_housekeeper(app, timezone="Europe/Berlin")
    housekeeper.initialize()

Contents (search for the number and the name):

    1. Errors: what Housekeeper raises on purpose, and how it contains other errors
    2. Clock: the only place that reads or waits on time
    3. Schedules: text to numbers, triggers, intervals, union
    4. Tasks: what to do, and when
    5. Runs: one recorded occurrence of a task
    6. Ledger: the store of runs, and the claim that makes a tick run once
    7. Execution: one attempt of a run, on a worker's thread
    8. Sentry: check-ins and events
    9. Metrics: the counters of one process
    10. Processes: places and births, servers, forks and the interpreter's exit
    11. Discovery: the files in tasks/
    12. Timer: instants and callables; it knows nothing about tasks
    13. Roster: the tasks of this process, and their next ticks
    14. Runner: from a due task to a recorded outcome
    15. Upkeep: signs of life, crashed runs, and old rows
    16. Reports: lists, explanations and health
    17. Housekeeper: its lifecycle, and its public methods
    18. Page: the dashboard's HTML, style and script
    19. Web: a WSGI application
    20. Adopt: task files from a crontab
    21. Command line: python housekeeper.py

The words (task, schedule, trigger, tick, due, dispatch, run, attempt, claim, ledger, runner,
agenda, grace) each have one meaning; the README explains them.
"""

from __future__ import annotations

import sys

# Checked first, because 3.8 and 3.9 lack some of the names imported next.
if sys.version_info < (3, 10):  # noqa: UP036
    WANTED = "housekeeper needs Python 3.10 or later, and this is {}; start it with a newer one"
    if __name__ == "__main__":
        sys.stderr.write(WANTED.format(sys.version.split()[0]) + "\n")
        sys.exit(2)
    raise ImportError(WANTED.format(sys.version.split()[0]))

import ast
import atexit
import bisect
import codecs
import concurrent.futures.thread
import contextlib
import contextvars
import ctypes
import functools
import gc
import heapq
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import linecache
import logging
import math
import numbers
import os
import queue
import re
import selectors
import shlex
import signal
import socket
import socketserver
import sqlite3
import stat
import subprocess
import threading
import time
import traceback
import urllib.parse
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from datetime import date, datetime, timedelta, timezone, tzinfo
from enum import Enum
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from os import getpid  # so that a task that replaces os.getpid is not taken for a fork
from pathlib import Path
from types import CodeType, CoroutineType, FrameType, FunctionType, GeneratorType, ModuleType
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    Concatenate,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
)
from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError, available_timezones

# argparse, calendar, croniter, difflib, hashlib, hmac, http, secrets and shutil are imported where
# they are used, which saves programs that do not need them a third of the import time.
# ctypes is not: a run's interrupt could come in the middle of its import, and leave it locked.
if TYPE_CHECKING:
    import argparse

__version__ = "0.2.0"
__all__ = [
    "AlreadyRunning",
    "CommandFailed",
    "ConfigurationError",
    "CronTrigger",
    "CurrentRun",
    "Housekeeper",
    "HousekeeperError",
    "IntervalTrigger",
    "LedgerUnavailable",
    "Run",
    "RunCancelled",
    "RunFailed",
    "RunTimedOut",
    "SkipRun",
    "SystemClock",
    "Task",
    "UnknownTask",
    "create_housekeeper",
    "current_run",
    "task",
]

Action = Callable[[], object]
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _own_logger(name: str) -> logging.Logger:
    """Return a logger that stays enabled, and that raises nothing.

    dictConfig() disables loggers that it does not name.  Filters, handlers and record factories of
    the application may fail, and what is logged here must change nothing.
    """
    made, stays_on = logging.getLogger(name), property(lambda _: False, lambda _, value: None)
    base: Any = type(made)

    def log(own: logging.Logger, *args: Any, stacklevel: int = 1, **options: Any) -> None:
        with contextlib.suppress(Exception, SystemExit):
            base._log(own, *args, stacklevel=stacklevel + 1, **options)

    made.__class__ = type("Logger", (base,), {"disabled": stays_on, "_log": log})
    return made


class LastResort(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes lines to stderr, with the time, while the application has not set up logging."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    @staticmethod
    def is_needed() -> bool:
        """Tell whether nobody else writes what is logged here."""
        return not logging.getLogger().handlers and logger.handlers in ([], [LAST_RESORT])

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record that nobody else writes."""
        if self.is_needed():
            super().emit(record)


LAST_RESORT = LastResort()
logger = _own_logger("housekeeper")
# Sentry gets outcomes as events, so their log lines are ignored: see SentryReporter.start().
outcome_logger = _own_logger("housekeeper.outcome")

# ================================================================================================
# 1. Errors: what Housekeeper raises on purpose, and how it contains other errors.
# ================================================================================================


class HousekeeperError(Exception):
    """The base of Housekeeper's errors; SkipRun and the two stop signals are not among them."""


class ConfigurationError(HousekeeperError, ValueError):
    """The configuration is wrong; the text says what, where, and what to do."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint: the known name nearest to an unknown one, or else `otherwise`."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class UnknownTask(HousekeeperError, LookupError):
    """No task has that name; ``name`` is the name that was asked for."""

    def __init__(self, name: str, known: Iterable[str] = (), why_unloaded: str = "") -> None:
        hint = did_you_mean(name, known, "`list` shows the tasks there are")
        super().__init__(f"no task is named {name!r}; {why_unloaded or hint}")
        self.name = name


class AlreadyRunning(HousekeeperError):
    """The task is already running, here or in another process; ``run`` is its run, if known."""

    def __init__(self, name: str, run: Run | None = None) -> None:
        detail = f" as {run.id} since {run.started_at:%Y-%m-%d %H:%M:%S} UTC" if run else ""
        super().__init__(f"task {name!r} is running already{detail}")
        self.run = run


class LedgerUnavailable(HousekeeperError):
    """The ledger could not be reached, or did not answer before the call's deadline."""


class CommandFailed(HousekeeperError):
    """A task's command did not exit with 0; ``returncode`` is negative after a signal."""

    def __init__(self, text: str, returncode: int) -> None:
        super().__init__(text)
        self.returncode = returncode


class RunFailed(HousekeeperError):
    """A manual run ended with neither a result nor an ordinary exception; see ``run``."""

    def __init__(self, run: Run) -> None:
        super().__init__(
            f"the run {run.id} of task {run.task!r} ended as {run.status}: {run.note}"
        )
        self.run = run


class SkipRun(Exception):
    """Raise it in a task that has nothing to do: the run is recorded as skipped."""


class RunCancelled(BaseException):
    """Raised in a run that was asked to stop.  A BaseException, so that ``except Exception`` in a
    task does not swallow it."""


class RunTimedOut(BaseException):
    """Raised in the thread of a run that exceeded its timeout.  Also a BaseException."""


def counted(number: int, what: str) -> str:
    """Return a number with a word in the singular or the plural."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def first_line(words: object) -> str:
    """Return the first line of an error's text."""
    return str(words).strip().partition("\n")[0]


def plain(text: str) -> str:
    """Return a text as a str itself: an Enum's, for example, may be shown as another.

    What is no text stays as it is, for the checks that follow.
    """
    return str.__str__(text) if isinstance(text, str) else text


def guarded(work: Callable[P, R], *args: P.args, **options: P.kwargs) -> R | None:
    """Call something; if it raises, log that and return None."""
    try:
        return work(*args, **options)
    except BaseException:
        logger.exception("Housekeeper failed in %s", work)
        return None


# ================================================================================================
# 2. Clock: the only place that reads or waits on time.
# ================================================================================================

UTC = timezone.utc
SECOND = timedelta(seconds=1)


class Waitable(Protocol):
    """What a clock can wait on: a threading.Condition that is held, or a threading.Event."""

    def wait(self, timeout: float | None = None) -> bool: ...


class Clock(Protocol):
    """Wall clock, elapsed time and waiting.  Tests replace it and run years in seconds."""

    def now(self) -> datetime:
        """Return the present instant, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards, counted from an arbitrary origin."""

    def wait(self, waitable: Waitable, seconds: float | None) -> None:
        """Wait until notified, at most `seconds` (None: no limit).  May return early."""


class SystemClock:
    """The machine's own clocks."""

    # The clock that measures waiting stops while the machine is suspended, so a long wait would
    # overshoot by that time.  This limit also bounds how late a jump of the wall clock is noticed.
    LONGEST_WAIT = 30.0

    def now(self) -> datetime:
        """Return the present instant, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go backwards; they stop while the machine is suspended."""
        return time.monotonic()

    def wait(self, waitable: Waitable, seconds: float | None) -> None:
        """Wait until notified, at most `seconds`, and never longer than 30 s."""
        waitable.wait(self.LONGEST_WAIT if seconds is None else min(seconds, self.LONGEST_WAIT))


class BriefLock:
    """A lock for a few instructions: who finds it taken lets other threads on, and looks again.

    So only a running thread takes it.  Of threads that queue for a lock, the next one has it while
    it waits for the interpreter's: each change of hands switches threads twice, and a burst of
    runs takes up to three times as long (measured).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Whoever makes it says what it guards.

    def __enter__(self) -> None:
        while not self._lock.acquire(blocking=False):
            time.sleep(0)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


# Where gevent or eventlet has replaced threads, the timer, the workers and the ledger's thread are
# greenlets, like the application's own.  What a task shares with the pages (locks, pools of
# connections, logging) is made for greenlets, and would not bear real threads: monitoring agents
# get those back from under the patch, and run nothing of the application's in them.  What is
# waited on is looked up when it is used, and made anew when it was made before the patch.


def green_threads() -> str:
    """Return the name of the library that has replaced threads with its own; or ""."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    return "eventlet" if eventlet is not None and eventlet.is_monkey_patched("thread") else ""


# ================================================================================================
# 3. Schedules: text to numbers, triggers, intervals, union.  Pure: they never read the clock.
# ================================================================================================

ONE_DAY = timedelta(days=1)
GIVE_UP_AFTER = timedelta(days=50 * 366)
WALL_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall-clock time has no zone

LOCALTIME = "/etc/localtime"
# What people write for the zone of a place, and a name or a city that has it.
ABBREVIATIONS = dict(
    re.findall(
        r"(\w+)=(\S+)",
        "Z=UTC EDT=New_York CST=Chicago CDT=Chicago MDT=Denver PST=Los_Angeles PDT=Los_Angeles"
        " BRT=Sao_Paulo BST=London CEST=Berlin EEST=Athens MSK=Moscow SAST=Johannesburg"
        " IST=Kolkata SGT=Asia/Singapore HKT=Hong_Kong KST=Seoul JST=Tokyo AEST=Sydney",
    )
)
known_zones = functools.cache(available_timezones)


def zone_named(name: object) -> tzinfo:
    """Return the zone of an IANA name such as ``Europe/Berlin``; UTC needs no zone database.

    Raises ConfigurationError for an unknown name.
    """
    if not isinstance(name, str):
        raise ConfigurationError(
            f"timezone {name!r} is not a string; write a name such as 'Europe/Berlin'"
        )
    name = zone_name(name)
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if meant := zone_meant(name):
            hint = f"write {meant!r}"
        elif known := known_zones():
            # What is near to a few letters, a city or an offset is another zone.
            near = known if re.fullmatch(r"\D+/\D+", name) else ()
            hint = did_you_mean(name, near, "write a name such as 'Europe/Berlin'")
        else:
            hint = "this machine has no zone database; install it with `pip install tzdata`"
        raise ConfigurationError(f"timezone {name!r} is not known; {hint}") from error


def zone_meant(text: str) -> str:
    """Return the name that a text in any case, a city, an offset or letters mean, or ""."""
    wanted = text.strip().upper()
    if offset := re.fullmatch("(?:UTC|GMT)?([+-])0?([0-9]{1,2})(?::?00)?", wanted):
        # The sign in Etc/GMT names is that of POSIX, the opposite of the usual one.
        wanted = f"ETC/GMT{'-' if offset[1] == '+' else '+'}{offset[2]}"
    names = {each.upper(): each for each in (*known_zones(), "UTC", "local")}
    wanted = ABBREVIATIONS.get(wanted, wanted).upper()
    cities = [names[name] for name in names if name.endswith(f"/{wanted}")]
    return names.get(wanted) or (cities[0] if len(cities) == 1 else "")


def zone_name(name: str) -> str:
    """Return the IANA name of a zone; ``local`` is the zone of this host."""
    return local_zone_name() if name == "local" else plain(name)


@functools.cache
def local_zone_name() -> str:
    """Return the IANA name of this host's zone as cron finds it: from TZ, else /etc/localtime.

    The result is cached.  Raises ConfigurationError when the zone has no name.
    """
    name = re.sub("^:?(posix/|right/)?", "", os.environ.get("TZ", LOCALTIME).strip()) or "UTC"
    if name.startswith("/"):
        name = _zone_of_file(name)
    if posix := re.fullmatch("(?:[A-Za-z]{3,}|<[^>]+>)([+-]?)0?([0-9]{1,2})(?::00)*", name):
        # POSIX counts the hours to UTC, and so do these names.
        name = f"Etc/GMT{posix[1] or '+'}{posix[2]}"
    if name in ("UTC", "Etc/UTC", "Etc/GMT+0", "Etc/GMT-0"):
        return "UTC"
    try:
        zone_named(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"timezone 'local' has no name here: {error}") from error
    return name


def _zone_of_file(path: str) -> str:
    """Return the zone that a file links to, or whose rules it holds, or else the path."""
    if named := re.search("zoneinfo/(?:posix/|right/)?([A-Z].*)", os.path.realpath(path)):
        return named[1]
    if os.name == "posix" and not os.path.exists(path):
        return "UTC"  # The C library says so, and with it cron.

    def read(*parts: str) -> bytes:
        with contextlib.suppress(OSError):
            return Path(*parts).read_bytes()
        return b""

    rules = read(path)
    for folder in TZPATH if rules else ():
        # Several names share their rules; those in the table come first, as they are no aliases.
        table = read(folder, "zone1970.tab").decode("utf-8", "replace")
        names = sorted(known_zones(), key=lambda name: (f"\t{name}" not in table, name))
        for name in ("UTC", *names):
            if read(folder, name) == rules:
                return name
    return path


def offset_at(zone: tzinfo, instant: datetime) -> timedelta:
    """Return how far the zone's wall clock is ahead of UTC at an instant."""
    return instant.astimezone(zone).utcoffset() or timedelta()


def first_transition(zone: tzinfo, after: datetime, until: datetime) -> datetime | None:
    """Return the first instant in (after, until] at which the zone's offset changes, or None.

    It probes each day instead of comparing both ends, because some zones return to the same offset
    within a month (Casablanca's Ramadan).  No zone has had two transitions within a day since
    1970.
    """
    if zone is UTC:
        return None
    low = after
    while low < until:
        high = min(low + ONE_DAY, until)
        offset = offset_at(zone, low)
        if offset_at(zone, high) != offset:
            while high - low > SECOND:
                middle = low + timedelta(seconds=(high - low) // SECOND // 2)
                low, high = (middle, high) if offset_at(zone, middle) == offset else (low, middle)
            return high
        low = high
    return None


def instant_of(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant at which a wall clock first shows `wall`, or the end of its gap.

    Raises OverflowError outside the years 1 to 9999.
    """
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if zone is UTC or instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    # In a gap, fold=1 uses the offset after the gap, and so gives an instant before it.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return first_transition(zone, before, instant) or instant


def parse_instant(text: str, zone: tzinfo) -> datetime:
    """Parse an instant in ISO 8601; without an offset it is a wall-clock time in the zone.

    Raises ConfigurationError.
    """
    try:
        # Python 3.10 does not parse a final Z.
        given = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text.strip()))
        instant = given.astimezone(UTC) if given.tzinfo else instant_of(given, zone)
        if not 1 < instant.year < 9999:
            raise OverflowError  # So that conversions stay inside the calendar.
        return instant
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{text[:40]!r} is not an instant such as '2026-03-29 02:30' or '2026-03-29T00:30Z'"
        ) from error


class Trigger:
    """The ticks of a schedule: whole seconds, the same in every process and after every start.

    Clock changes are handled as in Debian's cron (crontab(5), and the comments in its cron.c).  A
    *fixed* schedule follows the wall clock: a time in a gap comes at the gap's end, and a time in
    an overlap at its first occurrence.  Any other schedule follows real time in the current UTC
    offset.
    """

    __slots__ = ("__weakref__", "_fixed", "_memo", "text", "timezone", "zone")

    def __init__(self, text: str, timezone: str, *, fixed: bool) -> None:
        self.text = text
        self.zone = zone_named(timezone)
        self.timezone = zone_name(timezone)
        self._fixed = fixed
        self._memo: tuple[tuple[datetime, datetime | None], ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r}, timezone={self.timezone!r})"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first tick strictly after an instant, in UTC, or None.

        Raises ValueError for an instant without a zone.
        """
        if instant.tzinfo is None:
            raise ValueError(f"the instant {instant} has no zone; use an aware datetime")
        # Ticks are whole seconds, so the fraction does not matter.
        if instant.microsecond or instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC).replace(microsecond=0)
        # The loop, the claim and the release of a tick ask the same three questions, and so do
        # tasks that share a trigger.
        for asked, answer in self._memo:
            if asked == instant:
                return answer
        answer = self._compute_next(instant)
        self._memo = ((instant, answer), *self._memo[:2])
        return answer

    def _compute_next(self, instant: datetime) -> datetime | None:
        try:
            return self._next_fixed(instant) if self._fixed else self._next_wildcard(instant)
        except (ValueError, OverflowError):
            return None  # No tick before the year 10000, or within 50 years.

    def _next_fixed(self, instant: datetime) -> datetime:
        wall = instant.astimezone(self.zone).replace(tzinfo=None)
        while True:
            wall = self._next_wall(wall)
            tick = instant_of(wall, self.zone)
            # Not later for a second wall time in the same gap, or in the overlap's second pass.
            if tick > instant:
                return tick

    def _next_wildcard(self, instant: datetime) -> datetime | None:
        start, known = instant, instant
        while start - instant < GIVE_UP_AFTER:
            offset = offset_at(self.zone, known)
            wall = start.replace(tzinfo=None) + offset
            tick = (self._next_wall(wall) - offset).replace(tzinfo=UTC)
            transition = first_transition(self.zone, known, tick)
            if transition is None:
                return tick
            # The transition itself may be a tick, and _next_wall() returns only later times.
            start, known = transition - SECOND, transition
        return None

    def _next_wall(self, wall: datetime) -> datetime:
        """Return the first wall-clock time strictly after `wall` that the schedule names.

        Raises ValueError or OverflowError when there is none.
        """
        raise NotImplementedError

    def latest_before(self, instant: datetime, floor: datetime) -> datetime | None:
        """Return the newest tick in (floor, instant], or None.

        It probes 1, 2, 4, ... minutes back and then bisects, so that a long gap costs little.
        """

        def first_after(start: datetime) -> datetime | None:
            tick = self.next_after(start)
            return tick if tick is not None and tick <= instant else None

        span = timedelta(minutes=1)
        while (newest := first_after(max(floor, instant - span))) is None:
            if instant - span <= floor:
                return None
            span *= 2
        high = instant
        while high - newest > SECOND:
            middle = newest + (high - newest) / 2
            later = first_after(middle)
            if later is None:
                high = middle
            else:
                newest = later
        return first_after(newest) or newest

    def ticks_after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the ticks after an instant, in order."""
        tick = self.next_after(instant)
        while tick is not None:
            yield tick
            tick = self.next_after(tick)

    def following(self, instant: datetime, number: int) -> list[datetime]:
        """Return at most `number` ticks after an instant."""
        return list(itertools.islice(self.ticks_after(instant), number))

    def count(self, after: datetime, until: datetime, limit: int = 1000) -> int:
        """Return how many ticks lie in (after, until], or `limit` when there are more."""
        inside = itertools.takewhile(lambda tick: tick <= until, self.ticks_after(after))
        return sum(1 for _ in itertools.islice(inside, limit))


# Cron expressions: read_cron() splits a text into fields, normal_form() turns times and months
# into numbers for croniter, and days_named() returns the days of a month.


class CronField(NamedTuple):
    """One field of a cron expression: its name, numbers and words."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.high - self.low + 1

    def number(self, text: str) -> int:
        """Return the number that digits, or at least three letters of a word, stand for."""
        highest = 7 if self.words is WEEKDAYS else self.high  # Weekday 7 is Sunday, like 0.
        if re.fullmatch("[0-9]+", text):
            if not self.low <= int(text) <= highest:
                raise ConfigurationError(f"{self.name} {text} is not in {self.low}-{highest}")
            return int(text)
        for number, word in enumerate(self.words, start=self.low):
            if len(text) >= 3 and word.startswith(text):
                return number
        words = f", or {self.words[0][:3]} to {self.words[-1][:3]}" if self.words else ""
        raise ConfigurationError(
            f"{self.name} {text!r} is not a number in {self.low}-{highest}{words}"
        )

    def numbers(self, text: str) -> set[int]:
        """Return the numbers of a list of ``*``, ``a`` and ``a-b``, each with or without a step.

        A range whose end comes before its start wraps around.
        """
        found: set[int] = set()
        for part in text.split(","):
            values, slash, step = part.partition("/")
            if slash and not re.fullmatch("0*[1-9][0-9]{0,4}", step):
                raise ConfigurationError(
                    f"{self.name} {part!r} has a step that is no number from 1 to 99999"
                )
            first, dash, end = values.partition("-")
            low, high = self.low, self.high
            if values != "*":
                low = self.number(first)
                high = self.number(end) if dash else max(low, high) if slash else low
            if slash and int(step) > self.size and f"{self.name}s" in UNITS:
                raise ConfigurationError(
                    f"{self.name} {part!r} is {low} alone, as there are {self.size}; write {low},"
                    f" or schedule=timedelta({self.name}s={int(step)})"
                )
            high += self.size if high < low else 0
            steps = range(low, high + 1, int(step or "1"))
            found.update((number - self.low) % self.size + self.low for number in steps)
        return found


# The calendar module's names follow the process's locale, so they are not used.
MONTHS = (
    *("JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE", "JULY"),
    *("AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER"),
)
WEEKDAYS = ("SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY")
UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}
CRON_FIELDS = (
    CronField("second", 0, 59),
    CronField("minute", 0, 59),
    CronField("hour", 0, 23),
    CronField("day of month", 1, 31),
    CronField("month", 1, 12, MONTHS),
    CronField("weekday", 0, 6, WEEKDAYS),
)
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST_CRON = 256  # characters
HASHED = re.compile(r"(^|\s)H($|[\s(/])", re.IGNORECASE)
DAY_OF_MONTH = re.compile("(?:L(?:-(?P<before>[0-9]+))?|(?P<day>[0-9]+)(?=W))(?P<nearest>W?)")
WEEKDAY_OF_MONTH = re.compile("[^L#]+#[1-5]|L[^L#]+|[^L#]+L")


def read_cron(expression: str, hash_key: str) -> list[str]:
    """Return the five or six fields of a cron expression, with aliases and ``H`` replaced.

    Raises ConfigurationError that names the field and the value.
    """
    if len(expression) > LONGEST_CRON:
        raise ConfigurationError(
            f"it has {len(expression)} characters; the limit is {LONGEST_CRON}"
        )
    text = expression.strip(" \t\r\n")
    if text.startswith("@") and text.lower() not in ALIASES:
        # A slip keeps the first letter, and brings in one other at most.
        near = [each for each in ALIASES if text[:2].lower() == each[:2]]
        near = [each for each in near if len(set(text.lower()) - set(each)) < 2]
        known = did_you_mean(text.lower(), near, f"known are {', '.join(ALIASES)}")
        raise ConfigurationError(f"{text} is no alias here; {known}")
    texts = re.findall("[^ \t]+", ALIASES.get(text.lower(), text).upper())
    if len(texts) not in (5, 6):
        raise ConfigurationError(f"it has {len(texts)} fields; 5, or 6 with seconds first")
    fields = CRON_FIELDS[-len(texts) :]
    return [unhashed(*each, hash_key) for each in zip(fields, texts, strict=True)]


def without_chance(text: str) -> str:
    """Return a cron text with ``H`` for cronie's ``10~20`` and croniter's ``R``: drawn anew."""
    found, texts = [], text.split()
    for each, part in zip(CRON_FIELDS[-len(texts) :], texts, strict=False):
        part = re.sub(r"^R(?=$|[(/])", "H", part, flags=re.IGNORECASE)
        if chance := re.fullmatch(r"([0-9]*|\*)~([0-9]*|\*)(/[0-9]+)?", part):
            low, high = chance[1].strip("*") or each.low, chance[2].strip("*") or each.high
            # A bare H is never a day after the 28th.
            bare = f"{low}-{high}" == f"{each.low}-{each.high}" != "1-31"
            part = f"{'H' if bare else f'H({low}-{high})'}{chance[3] or ''}"
        found.append(part)
    return " ".join([*found, *texts[len(CRON_FIELDS) :]])


def unhashed(field: CronField, text: str, hash_key: str) -> str:
    """Replace Jenkins' ``H``, ``H/n``, ``H(a-b)``, ``H(a-b)/n`` by values derived from the key."""
    match = re.fullmatch(r"H(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?", text)
    if match is None:
        return text
    # Every month has a 28th day.
    highest = 28 if field.name == "day of month" else field.high
    low = field.number(match[1]) if match[1] else field.low
    high = field.number(match[2]) if match[2] else highest
    step = int(match[3]) if match[3] else high - low + 1
    if low >= high or not 1 <= step <= high - low + 1:
        raise ConfigurationError(f"{field.name} {text!r} has no range or step to choose from")
    first = low + hashed_number(f"{hash_key}\0{field.name}") % step
    several = match[3] and first + step <= high
    return f"{first}-{high}/{step}" if several else str(first)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text, in 64 hexadecimal digits."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def hashed_number(text: str) -> int:
    """Return a large number derived from a text, the same in every process."""
    return int(digest_of(text)[:16], 16)


def normal_form(texts: Sequence[str]) -> str:
    """Return an expression for croniter: times and months in numbers, and every day.

    days_named() selects the days.  Raises ConfigurationError that names the field and the value.
    """
    each_day = [*texts[:-3], "*", texts[-2], "*"]
    parts = list(map(_in_numbers, CRON_FIELDS[-len(texts) :], each_day))
    days_named(texts[-3], texts[-1], 2024, 1)
    # The sixth field is the seconds, in every version of croniter.
    return " ".join([*parts[-5:], *parts[:-5]])


@functools.lru_cache(maxsize=256)
def _in_numbers(field: CronField, text: str) -> str:
    """Return a field in numbers only, which all croniters since 1.0 read alike."""
    numbers = field.numbers(text)
    return "*" if len(numbers) == field.size else ",".join(map(str, sorted(numbers)))


@functools.lru_cache(maxsize=1024)
def days_named(day: str, weekday: str, year: int, month: int) -> frozenset[int]:
    """Return the days of a month that the fields day of month and weekday select.

    Debian's rule (crontab(5)): if one of them starts with a star, both must match, else either.
    """
    day, weekday = ("*" if text == "?" else text for text in (day, weekday))
    before = date(year, month, 1).isoweekday() - 1
    weekdays = {each: (before + each) % 7 for each in range(1, length_of_month(year, month) + 1)}
    by_number, by_weekday = _days_by_number(day, weekdays), _days_by_weekday(weekday, weekdays)
    if day.startswith("*") or weekday.startswith("*"):
        return frozenset(by_number & by_weekday)
    return frozenset(by_number | by_weekday)


def length_of_month(year: int, month: int) -> int:
    """Return the number of days in a month."""
    import calendar

    return calendar.monthrange(year, month)[1]


def _days_by_number(text: str, weekdays: dict[int, int]) -> set[int]:
    """Return the days of a month, given with their weekdays, that ``1-7,L,L-3,LW,15W`` names."""
    field, last, found = CRON_FIELDS[-3], len(weekdays), set()
    working = [day for day, weekday in weekdays.items() if 1 <= weekday <= 5]
    for part in text.split(","):
        match = DAY_OF_MONTH.fullmatch(part)
        if match is None:
            found |= field.numbers(part)
            continue
        if match["before"] and not 1 <= int(match["before"]) <= 30:
            raise ConfigurationError(f"day of month {part!r} is not in L-1 to L-30")
        day = field.number(match["day"]) if match["day"] else last - int(match["before"] or 0)
        if match["nearest"] and day in weekdays:
            # Never a tie: a Saturday is nearer to its Friday, a Sunday to its Monday.
            day = min(working, key=lambda each: abs(each - day))
        found.add(day)
    return found & weekdays.keys()


def _days_by_weekday(text: str, weekdays: dict[int, int]) -> set[int]:
    """Return the days of a month, given with their weekdays, that ``MON-WED,SAT#2,5L`` names."""
    field, found = CRON_FIELDS[-1], set()
    for part in text.split(","):
        name, _, nth = part.partition("#")
        one = WEEKDAY_OF_MONTH.fullmatch(part)
        numbers = {field.number(name.strip("L")) % 7} if one else field.numbers(part)
        days = [day for day, weekday in weekdays.items() if weekday in numbers]
        if one:
            days = days[int(nth) - 1 : int(nth)] if nth else days[-1:]
        found.update(days)
    return found


class CronTrigger(Trigger):
    """The ticks of a cron expression: five fields, or six with seconds first.

    `hash_key` determines the value of ``H``.  Raises ConfigurationError for an expression that is
    invalid or has no ticks.
    """

    __slots__ = ("_croniter", "_dates", "_guard")

    def __init__(self, expression: str, timezone: str = "UTC", hash_key: str = "") -> None:
        if not isinstance(expression, str):
            raise ConfigurationError(f"schedule {expression!r} is not a string")
        try:
            texts = read_cron(expression, hash_key)
            normal = normal_form(texts)
        except ConfigurationError as error:
            shown = expression if len(expression) <= LONGEST_CRON else f"{expression[:20]}..."
            raise ConfigurationError(
                f"schedule {shown!r} is not a cron expression ({advice_on(shown, str(error))})"
            ) from None
        try:
            library = importlib.import_module("croniter")
        except ImportError:
            raise ConfigurationError(
                "a cron expression needs croniter; run `pip install 'croniter>=1.0'`"
            ) from None
        fixed = not any(text.startswith("*") for text in texts[:-3])
        super().__init__(" ".join(texts), timezone, fixed=fixed)
        self._dates = texts[-3], texts[-1]
        self._guard = threading.Lock()  # A croniter keeps state: one thread at a time.
        self._croniter = library.croniter(normal, 0.0)
        if self.next_after(datetime(2024, 1, 1, tzinfo=UTC)) is None:
            raise ConfigurationError(
                f"schedule {expression!r} never comes: no date has that day, month and time"
            )

    def _next_wall(self, wall: datetime) -> datetime:
        last_year = wall.year + 50
        while wall.year <= last_year:
            days = days_named(*self._dates, wall.year, wall.month)
            if wall.day not in days:
                # Skip to the end of the day before the next selected one, or of the month.
                end = length_of_month(wall.year, wall.month)
                day = min((each - 1 for each in days if each > wall.day), default=end)
                wall = wall.replace(day=day, hour=23, minute=59, second=59)
            seconds = (wall - WALL_EPOCH) // SECOND
            with self._guard:
                found = self._croniter.get_next(float, start_time=float(seconds))
            wall = WALL_EPOCH + timedelta(seconds=found)
            if wall.day in days_named(*self._dates, wall.year, wall.month):
                return wall
        raise ValueError("no day in 50 years is meant")


# What other schedulers take: why it is refused here, and how it looks; the schedule is one group.
# Each is taken off what those above it have left.  The other groups are options of the task; the
# user, who must be no program; and a program, which must be one.
DAYS = r"(?:SUN|MON|TUE|WED|THU|FRI|SAT)(?:[A-Z]*DAY)?"
FIELDS = rf"(?P<schedule>@\w+|(?:\S+\s+){{4}}\S+?(?:\s+(?![#,/-])(?:[\d*?L#,/-]|{DAYS})+)?)\s+"
# Quartz counts weekdays from Sunday = 1, so no advice would be right where it writes a number.
NOT_QUARTZ = r"(?!.*\?.*(?<![#\d])\d\S*\s+\S+$)(?P<schedule>"
STARTERS = (
    r"(?:exec|env|time|timeout|nohup|nice|ionice|sudo|flock|chronic|run-parts|[a-z]{0,2}sh"
    r"|(?:python|php|node|perl|ruby)[\d.]*)"
)
STARTED = rf"""(?:["']?(?:~|\.\.?)?/\w|\$[\w{{(]|\[\s|{STARTERS}\s)"""
COMMAND = rf"(?:{STARTED}|[A-Z]\S*(?:\.(?:sh|py|php|pl|rb|js)\b|\s+(?:-|\S*[/.$])))"
HINTS = (
    ("it is in quotes", r"""["'`](?P<schedule>.*)["'`]"""),
    (
        # Not POSIX's UTC-2, which counts the hours the other way round.
        "a zone precedes it",
        r"""(?:(?:CRON_)?TZ=["']?:?(?!\w+[+-]?\d))?(?P<timezone>[A-Z][^\s"']*)["']?\s+"""
        r"(?P<schedule>.+)",
    ),
    ("a zone follows it", FIELDS + r"(?P<timezone>(?:[A-Z]|[+-]\d\d)\S*)(?P<rest>\s.*|)"),
    ("a comment stands behind it", FIELDS + r"(?:#|//|;).*"),
    ("a comment stands behind it", r"(?P<schedule>.+\*)#(?!\d).*"),
    (
        "the user {user} and a command stand behind it",
        rf"{FIELDS}(?P<user>root|(?!(?:{STARTERS}|{DAYS})\s)[A-Z_][\w-]*(?=\s+{STARTED}))\s+(?P<command>.+)",
    ),
    ("a command follows it", rf"{FIELDS}(?P<command>(?:{COMMAND}|(?P<program>\S+)).*)"),
    ("no schedule has a year", NOT_QUARTZ + r".+?)\s+(?:19|20)[0-9]{2}[0-9,/*-]*"),
    ("no schedule has a year", NOT_QUARTZ + r".*\?.*|(?:[\w*]\S*\s+){5}[\w*]\S*)\s+\*(?:/\d+)?"),
)
# Each blank can match in one place only, so that refusing a text is fast.
UNIT = r"([smhdw]|(?:sec|second|min|minute|hr|hour|day|week)s?)(?![a-z]) ?"
LENGTH = rf"(?:([0-9]{{1,5}}(?:\.[0-9]{{1,3}})?) ?)?{UNIT}"
# Seconds, and the cron text of so many of them.
EVENLY = {86400: "@daily", 3600: "0 */{} * * *", 60: "*/{} * * * *", 1: "*/{} * * * * *"}
PEERS_WORDS = {each[1:]: each for each in ALIASES} | {
    "minutely": "* * * * *",
    "weekday": "0 0 * * 1-5",
    "weekend": "0 0 * * 0,6",
    "quarterly": "0 0 1 1,4,7,10 *",
    "semiannually": "0 0 1 1,7 *",
    "fortnightly": "every 2 weeks",
}


def advice_on(expression: str, reason: str) -> str:
    """Return why an expression is refused and, where another scheduler takes it, what to write."""
    text, options = expression.strip(), ""
    if meant := _schedule_meant(text):
        return f"{reason.partition('; ')[0]}; write {meant}"
    for why, pattern in HINTS:
        if not (parts := _parts_meant(re.fullmatch(pattern, text, re.IGNORECASE))):
            continue
        text = parts.pop("schedule") + parts.pop("rest", "")
        why = why.format(user=parts.pop("user", ""))
        options += "".join(f", {key}={parts[key]!r}" for key in parts)
        if meant := _schedule_meant(text):
            return f"{why}; write {meant}{options}"
    return _refusal(text) if options else reason


def _parts_meant(match: re.Match[str] | None) -> dict[str, str]:
    """Return a match's named groups; none when one of them is not what its name says."""
    from shutil import which

    parts = match.groupdict() if match else {}
    if zone := parts.get("timezone"):
        parts["timezone"] = zone_meant(zone)
    user, program = parts.get("user"), parts.pop("program", None)
    wrong = (user and which(user)) or (program and not which(program))
    return {} if wrong or parts.get("timezone") == "" else parts


def _schedule_meant(text: str) -> str:
    """Return the option of a task that has the ticks of a text, or ""."""
    words = " ".join(text.lower().replace("_", " ").split())
    words = PEERS_WORDS.get(words.strip("@").removesuffix("s"), words)
    text = words if words in PEERS_WORDS.values() else text
    for each in (text, re.sub(r"\s*([,/-])\s*(?=\w)", r"\1", text), without_chance(text)):
        if not _refusal(each):
            return f"schedule={each!r}"
    return "startup=True" if words == "@reboot" else _length_meant(words)


def _length_meant(text: str) -> str:
    """Return the option for a text such as ``every 5 minutes``, or ""."""
    every = re.fullmatch(f"@?every ((?:{LENGTH})+)", text)
    lengths: dict[str, float] = defaultdict(float)
    for number, unit in re.findall(LENGTH, every[1]) if every else ():
        lengths[next(each for each in UNITS if each.startswith(unit[0]))] += float(number or "1")
    seconds = timedelta(**lengths) / SECOND
    for size, cron in EVENLY.items():
        whole = min(60 * size, 86400)
        if 0 < seconds <= whole and not seconds % size and not whole % seconds:
            return f"schedule={cron.format(int(seconds // size)).replace('*/1 ', '* ')!r}"
    if seconds % 1 or not SECOND <= timedelta(**lengths) <= GIVE_UP_AFTER:
        return ""
    return f"schedule=timedelta({', '.join(f'{unit}={lengths[unit]:.15g}' for unit in lengths)})"


def _refusal(text: str) -> str:
    """Return why a text is no cron expression, without advice; "" when it is one."""
    try:
        normal_form(read_cron(text, ""))  # First: CronTrigger would ask for advice in turn.
        CronTrigger(text)
    except ConfigurationError as error:
        return str(error)
    return ""


class IntervalTrigger(Trigger):
    """The ticks of a timedelta, or of a builder such as ``schedule.every(10).minutes``.

    A timedelta is counted in UTC from an instant derived from the hash key.  A builder's seconds,
    minutes and hours are counted in UTC from the epoch; days, weeks (from Monday) and ``.at()`` on
    the wall clock.  All processes therefore see the same ticks.  Raises ConfigurationError for a
    builder that a stateless schedule cannot express.
    """

    __slots__ = ("_phase", "period")

    def __init__(self, schedule: Any, timezone: str = "UTC", hash_key: str = "") -> None:
        if isinstance(schedule, timedelta):
            number, unit, at = 0 if schedule % SECOND else schedule // SECOND, "seconds", None
        else:
            self._check_builder(schedule)
            number, unit, at = schedule.interval, schedule.unit, schedule.at_time
        self.period = number * UNITS[unit]
        if not 1 <= self.period <= GIVE_UP_AFTER // SECOND:
            raise ConfigurationError(
                f"schedule {schedule!r} is not in whole seconds, from 1 second to 50 years"
            )
        text, on_the_wall = as_written(schedule), unit in ("days", "weeks")
        self._phase = at.hour * 3600 + at.minute * 60 + at.second if at else 0
        if isinstance(schedule, timedelta):
            self._phase = hashed_number(f"{hash_key}\0timedelta") % self.period
            text += f" + {timedelta(seconds=self._phase)}"
        elif unit == "weeks":
            # 1970-01-04 was a Sunday.
            days = 3 + WEEKDAYS.index((schedule.start_day or "monday").upper())
            self._phase += days * UNITS["days"]
        super().__init__(text, timezone if on_the_wall or at else "UTC", fixed=on_the_wall)

    @staticmethod
    def _check_builder(builder: Any) -> None:
        every = f"schedule every({builder.interval!r})"
        if builder.unit not in UNITS:
            raise ConfigurationError(f"{every} has no unit; write every(10).minutes")
        if type(builder.interval) is not int or builder.interval < 1:
            raise ConfigurationError(
                f"{every}.{builder.unit}: the interval is not a whole number of 1 or more"
            )
        refused = {
            ".to(): a random interval differs between processes; write"
            " H in a cron expression": builder.latest,
            ".until(): it would fail at import once it is past; let the task return"
            " schedule.CancelJob from then on": builder.cancel_after,
            ".at(..., tz): write the zone as Task(timezone=...)": builder.at_time_zone,
            ".do(): write Task(run=...), and end the builder before .do()": builder.job_func,
        }
        for reason, present in refused.items():
            if present is not None:
                raise ConfigurationError(f"{every} has {reason}")

    def _next_wall(self, wall: datetime) -> datetime:
        seconds = (wall - WALL_EPOCH) // SECOND
        periods = (seconds - self._phase) // self.period + 1
        return WALL_EPOCH + timedelta(seconds=self._phase + periods * self.period)


UNION = " | "  # between the texts of a union's parts


class UnionTrigger(Trigger):
    """The ticks of several triggers together."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterable[Trigger], timezone: str) -> None:
        self._parts = {part.text: part for part in parts}
        super().__init__(UNION.join(self._parts), timezone, fixed=False)

    def _compute_next(self, instant: datetime) -> datetime | None:
        ticks = [part.next_after(instant) for part in self._parts.values()]
        return min((tick for tick in ticks if tick is not None), default=None)


def of_schedule(kind: type, name: str) -> bool:
    """Tell whether a class is one of the `schedule` library, without importing that.

    An application may have a module of the same name.
    """
    library = sys.modules.get("schedule")
    found = getattr(library, name, None) if hasattr(library, "every") else None
    return isinstance(found, type) and issubclass(kind, found)


def is_hashed(schedule: object) -> bool:
    """Tell whether the ticks of a schedule, or of a part of it, depend on a hash key."""
    if isinstance(schedule, str):
        return HASHED.search(schedule) is not None
    if isinstance(schedule, list | tuple):
        return any(map(is_hashed, schedule))
    return isinstance(schedule, timedelta)


def as_written(schedule: Any) -> str:
    """Return a valid schedule as text for lists, without the part that a hash key adds."""
    if isinstance(schedule, list | tuple):
        return UNION.join(map(as_written, schedule))
    if isinstance(schedule, str):
        return " ".join(schedule.split())
    if isinstance(schedule, timedelta):
        unit = next(each for each in reversed(UNITS) if not schedule // SECOND % UNITS[each])
        return _every_so(schedule // SECOND // UNITS[unit], unit)
    text = _every_so(schedule.interval, schedule.start_day or schedule.unit)
    if schedule.at_time is None:
        return text
    shown = {"minutes": ":%S", "hours": ":%M:%S"}.get(schedule.unit, "%H:%M:%S")
    at = schedule.at_time.strftime(shown)
    return f"{text} at {at.removesuffix(':00') if len(at) > 3 else at}"


def _every_so(number: int, unit: str) -> str:
    return f"every {number} {unit}" if number > 1 else f"every {unit.removesuffix('s')}"


# Shared while a task has one: making it costs more than the rest of a task's start.
_cron_triggers: weakref.WeakValueDictionary[tuple[str, str, str], CronTrigger]
_cron_triggers = weakref.WeakValueDictionary()


def make_trigger(schedule: object, timezone: str, hash_key: str = "") -> Trigger:
    """Return the trigger of a schedule; equal cron expressions share one.

    Raises ConfigurationError, see CronTrigger and IntervalTrigger.
    """
    if isinstance(schedule, str):
        key = hash_key if is_hashed(schedule) else ""
        wanted = (schedule, zone_name(timezone), key)
        trigger = _cron_triggers.get(wanted)
        return trigger or _cron_triggers.setdefault(wanted, CronTrigger(*wanted))
    if isinstance(schedule, timedelta) or of_schedule(type(schedule), "Job"):
        return IntervalTrigger(schedule, timezone, hash_key)
    if not isinstance(schedule, list | tuple):
        raise ConfigurationError(
            f"schedule {schedule!r} is neither a cron expression, a timedelta, schedule.every(...)"
            " nor a list of them"
        )
    if not schedule or any(isinstance(part, list | tuple) for part in schedule):
        raise ConfigurationError(
            f"schedule {schedule!r} is not a list of schedules: it is empty or holds a list"
        )
    parts = [make_trigger(part, timezone, hash_key) for part in schedule]
    return parts[0] if len(parts) == 1 else UnionTrigger(parts, timezone)


# ================================================================================================
# 4. Tasks: what to do, and when.
# ================================================================================================

TaskFunction = Callable[..., object]
# Called with each task that is made while task files load.
task_made: contextvars.ContextVar[Callable[[Task], None] | None] = contextvars.ContextVar(
    "housekeeper_task_made", default=None
)
NO_APP = object()


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is to be done, and when.

    name: letters, digits, dots, dashes and underscores; unique among the application's tasks.
    run: a function of no argument, or of one named ``app``.  What it returns is the run's note
        when it is a text, a number or a small dict.  Or, in its place,
    command: a string for ``/bin/sh -c`` or a list of arguments, run in the folder `cwd` with `env`
        added to the environment.  It fails when it exits with anything but 0.
    schedule: a cron expression, a timedelta, a builder of the `schedule` library, or a list of
        them, of which each tick counts; None: only by hand.
    startup: run once at each start of the application: True, or after so many seconds.
    timezone: of the schedule; ``local``: this host's; None: the Housekeeper's.
    enabled: False lists the task and leaves it to be run by hand.
    grace: seconds a tick may be late and still run, 1 at the least; math.inf: however late.
    timeout: seconds after which an attempt is asked to stop.  A function's thread gets RunTimedOut
        as soon as it is in no lock of logging, threading, queue, the import system or Housekeeper;
        that can leave a lock of some other library held.
    retries: how often a failed run is tried again, after `retry_delay` seconds that double each
        time up to an hour; a retry that could not start before the next tick is not made.
    each_host: each host that shares the ledger runs each tick, instead of one of them.
    sentry: False keeps the task from Sentry; a dict sets its monitor's slug, checkin_margin and
        max_runtime (minutes), failure_issue_threshold, recovery_threshold, owner.

    Raises ConfigurationError for anything that could not work, here and not at the first tick.
    """

    name: str
    run: TaskFunction | None = None
    _: KW_ONLY
    command: str | Sequence[str] | None = None
    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    schedule: object = None
    startup: bool | float = False
    timezone: str | None = None
    enabled: bool = True
    grace: float = 3600.0
    timeout: float | None = None
    retries: int = 0
    retry_delay: float = 60.0
    each_host: bool = False
    description: str = ""
    sentry: bool | Mapping[str, object] = True
    # How `run` takes the application; looked up once, because that takes half as long as a run.
    _app_parameter: inspect.Parameter | None = field(default=None, init=False, repr=False)
    # Kept, so that the scheduler need not make it again.
    _trigger: Trigger | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not TASK_NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"Task {self.name!r}: the name is not 1 to 100 letters, digits, dots, dashes and"
                " underscores that begin with a letter or digit"
            )
        object.__setattr__(self, "name", plain(self.name))
        try:
            self._check_action()
            for name, wanted in TASK_OPTIONS.items():
                value = getattr(self, name)
                if value is not TASK_DEFAULTS[name]:
                    check_option(name, value, wanted)
            self._check_schedule()
        except ConfigurationError as error:
            raise ConfigurationError(f"Task {self.name!r}: {error}") from error.__cause__
        note = task_made.get()
        if note is not None:
            note(self)

    def _check_action(self) -> None:
        if (self.run is None) == (self.command is None):
            raise ConfigurationError("give it either run= or command=")
        if self.run is None and os.name != "posix":
            raise ConfigurationError("command= needs a POSIX system; call subprocess in run=")
        if self.run is not None:
            object.__setattr__(self, "_app_parameter", _app_parameter_of(self.run))
            if self.cwd is not None or self.env is not None:
                raise ConfigurationError("cwd= and env= go with command=, not with run=")

    def _check_schedule(self) -> None:
        listed = isinstance(self.schedule, list | tuple)
        parts = cast(Sequence[object], self.schedule) if listed else [self.schedule]
        left = [part for part in parts if not _is_reboot(part)]
        if len(left) < len(parts):
            object.__setattr__(self, "schedule", left if listed and left else None)
            object.__setattr__(self, "startup", self.startup or True)
        if self.timezone is not None:
            zone_named(self.timezone)
            # Resolved here, so that it is the same wherever it is shown.
            object.__setattr__(self, "timezone", zone_name(self.timezone))
        if self.schedule is not None:
            trigger = make_trigger(self.schedule, self.timezone or "UTC", hash_key="any will do")
            object.__setattr__(self, "_trigger", trigger)

    def __call__(self, app: object = NO_APP) -> object:
        """Run the task here and now, without a ledger: for tests and shells.

        Returns the function's result or the command's output; raises what the function raises,
        CommandFailed, and HousekeeperError for a function that needs the application.
        """
        if self.run is None:
            return _output_of(self)
        if app is NO_APP and self._app_parameter is not None:
            if self._app_parameter.default is inspect.Parameter.empty:
                raise HousekeeperError(f"task {self.name!r} needs the application: call task(app)")
            return self.run()
        return self.call(app)

    def call(self, app: object) -> object:
        """Call `run`, with the application when it has a parameter ``app``."""
        function, parameter = cast(TaskFunction, self.run), self._app_parameter
        if parameter is None:
            return function()
        positional = parameter.kind is parameter.POSITIONAL_ONLY
        return function(app) if positional else function(app=app)

    @property
    def schedule_text(self) -> str:
        """The schedule as it was written, for lists; empty when there is none."""
        return "" if self.schedule is None else as_written(self.schedule)


def _is_reboot(schedule: object) -> bool:
    return isinstance(schedule, str) and schedule.strip().lower() == "@reboot"


TASK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _is_flag(value: object) -> bool:
    return value in (True, False)  # The "0" or "false" of a variable would count as true.


def _is_seconds(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value <= sys.float_info.max or value == math.inf


def _is_delay(value: object) -> bool:
    return isinstance(value, bool) or (_is_seconds(value) and value != math.inf)


def _is_limit(value: object) -> bool:
    return _is_seconds(value) and value != 0


def _is_whole(value: object, least: int = 0, most: float = math.inf) -> bool:
    return type(value) is int and least <= value <= most


def _is_text(value: object) -> bool:
    """Tell whether a value is a text that the system takes: without NULs and lone surrogates."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is_command(value: object) -> bool:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not words or not all(map(_is_text, words)):
        return False
    return bool(words[0].strip())


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and _is_text(os.fspath(value))


def _check_environment(value: object) -> bool:
    for name, text in value.items() if isinstance(value, Mapping) else [("", "")]:
        if not _is_text(name) or not name or "=" in name or not _is_text(text):
            # The values may be secrets.
            raise ConfigurationError(
                f"env= holds something other than names and texts, at {name!r}"
            )
    return True


# Sentry's limits; margin and runtime are minutes.
SENTRY_NUMBERS = {
    "checkin_margin": 40_320,
    "max_runtime": 10_080,
    "failure_issue_threshold": 720,
    "recovery_threshold": 720,
}
SENTRY_TEXTS = {
    "slug": ("(?![0-9]+$)[a-z0-9_-]{1,50}", "1 to 50 of a-z, 0-9, - and _, digits alone aside"),
    "owner": ("(user|team):[0-9]+|\\S+@\\S+|#\\S+", "of the form user:51 or team:6"),
}


def _check_sentry(options: object) -> bool:
    for name, value in options.items() if isinstance(options, Mapping) else ():
        if name in SENTRY_NUMBERS:
            fits = _is_whole(value, 1, SENTRY_NUMBERS[name])
            wanted = f"a whole number in 1-{SENTRY_NUMBERS[name]}"
        elif name in SENTRY_TEXTS:
            pattern, wanted = SENTRY_TEXTS[name]
            fits = isinstance(value, str) and re.fullmatch(pattern, value) is not None
        else:
            known = ", ".join(["slug", *SENTRY_NUMBERS, "owner"])
            raise ConfigurationError(f"sentry has no option {name!r}; known are {known}")
        if not fits:
            raise ConfigurationError(f"sentry {name} {value!r} is not {wanted}")
    return isinstance(options, bool | Mapping)


# A check of a value, and the words for a value that fails it.
Wanted = tuple[Callable[[Any], bool], str]
IS_FLAG: Wanted = (_is_flag, "is neither True nor False")
IS_PATH: Wanted = (_is_path, "is not a path")
IS_SECONDS: Wanted = (_is_seconds, "is not a number of seconds, 0 or more")
TASK_DEFAULTS = {each.name: each.default for each in fields(Task)}
TASK_OPTIONS: dict[str, Wanted] = {
    "command": (_is_command, "is neither a shell line nor a list of arguments, without NULs"),
    "cwd": IS_PATH,
    "env": (_check_environment, ""),
    "startup": (_is_delay, "is neither True, False nor a finite number of seconds, 0 or more"),
    "enabled": IS_FLAG,
    "grace": IS_SECONDS,
    "timeout": (_is_limit, "is not a number of seconds above 0; None means no limit"),
    "retries": (_is_whole, "is not a whole number, 0 or more"),
    "retry_delay": IS_SECONDS,
    "each_host": IS_FLAG,
    "description": (lambda value: isinstance(value, str), "is not a text"),
    "sentry": (_check_sentry, "is not True, False or a dict"),
}


def check_option(name: str, value: object, wanted: Wanted) -> None:
    """Raise ConfigurationError for a value that an option cannot have."""
    fits, otherwise = wanted
    if not fits(value):
        raise ConfigurationError(f"{name} {value!r} {otherwise}")


def _is_plain(code: CodeType) -> bool:
    """Tell quickly whether a function has no parameters and runs when called, as most do.

    Asking `inspect` takes two thirds of the time to make a Task.
    """
    parameters = code.co_argcount + code.co_kwonlyargcount
    others = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    others |= inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    return parameters == 0 and not code.co_flags & others


def _app_parameter_of(function: object) -> inspect.Parameter | None:
    """Return the function's parameter ``app``, if it has one; raises ConfigurationError."""
    if not callable(function):
        raise ConfigurationError(f"run={function!r} is not a function")
    if isinstance(function, FunctionType) and _is_plain(function.__code__):
        return None
    name = getattr(function, "__name__", repr(function))
    called = [function, vars(type(function)).get("__call__")]
    if any(map(inspect.iscoroutinefunction, called)):
        raise ConfigurationError(
            f"run={name} is a coroutine function; wrap it: run=lambda: asyncio.run({name}())"
        )
    generators = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_generator(each) for is_generator in generators for each in called):
        raise ConfigurationError(
            f"run={name} is a generator function, so that a call would do nothing"
        )
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None  # Some builtins have no signature; they are called without arguments.
    for each in parameters.values():
        rest = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if each.default is each.empty and not rest and each.name != "app":
            raise ConfigurationError(
                f"run={function!r} needs arguments; it may take none, or one named app"
            )
    found = parameters.get("app")
    return found if found is not None and found.kind is not found.VAR_POSITIONAL else None


def start_command(task: Task, run_id: str = "") -> subprocess.Popen[bytes]:
    """Start a task's command in its own session and process group.

    Its child processes inherit the run's id in HOUSEKEEPER_RUN.  Raises CommandFailed.
    """
    shell = isinstance(task.command, str)
    arguments = ["/bin/sh", "-c", cast(str, task.command)] if shell else list(task.command or ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise CommandFailed(
            "the process ignores SIGCHLD, which hides the exit codes of commands;"
            " call signal.signal(signal.SIGCHLD, signal.SIG_DFL)",
            127,
        )
    environment = {**os.environ, "HOUSEKEEPER_RUN": run_id}
    environment.pop("HOUSEKEEPER_TOKEN", None)
    # A thread, such as a server's, may block signals; its child processes would never get them.
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        return subprocess.Popen(
            arguments,
            cwd=task.cwd,
            env={**environment, **(task.env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        place = f" in {task.cwd}" if task.cwd is not None else ""
        raise CommandFailed(
            f"the command {arguments[0]!r} could not be started{place}: {error.strerror}", 127
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


UNHEARD = 256  # in place of an exit code that is not known; no process exits with it


def exit_code_of(process: subprocess.Popen[bytes], *, wait: bool = False) -> int | None:
    """Return a command's exit code without freeing its pid; None while it goes on.

    Popen takes 0 for the code of a process that others have waited for.
    """
    if green_threads() or not hasattr(os, "waitid"):  # gevent's loop waits for all processes.
        return process.wait() if wait else process.poll()
    try:
        flags = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
        if (ended := os.waitid(os.P_PID, process.pid, flags)) is None:
            return None
    except ChildProcessError:
        return UNHEARD
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def how_it_ended(code: int, last_lines: Iterable[str]) -> str:
    """Return one line on how a command ended, with its last lines of output."""
    if code < 0:
        names = {known.value: known.name for known in signal.Signals}
        how = f"the command was ended by {names.get(-code, f'signal {-code}')}"
    elif code == UNHEARD:
        how = (
            "how the command ended is not known, because something else in this process has"
            " waited for it, such as a handler of SIGCHLD"
        )
    else:
        how = f"the command exited with {code}"
    return f"{how}: {' | '.join(last_lines)}" if last_lines else how


def _output_of(task: Task) -> str:
    """Run a task's command, and return what it printed; raises CommandFailed."""
    with start_command(task) as process:
        try:
            output = cast(IO[bytes], process.stdout).read().decode("utf-8", "backslashreplace")
            code = exit_code_of(process, wait=True)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # Ctrl-C does not reach another session.
            raise
    if code:
        raise CommandFailed(how_it_ended(code, output.splitlines()[-3:]), code)
    return output


def task(
    function: TaskFunction | None = None,
    /,
    *,
    name: str | None = None,
    schedule: object = None,
    startup: bool | float = False,
    timezone: str | None = None,
    enabled: bool = True,
    grace: float = 3600.0,
    timeout: float | None = None,
    retries: int = 0,
    retry_delay: float = 60.0,
    each_host: bool = False,
    description: str = "",
    sentry: bool | Mapping[str, object] = True,
) -> Callable[[TaskFunction], Task]:
    """Make a Task of the decorated function; see Task for the options.

    Defaults: the function's name with dashes, and the first line of its docstring as description.
    """
    options: dict[str, Any] = dict(locals())
    if options.pop("function") is not None:
        raise ConfigurationError("@task needs its parentheses: @task(schedule=...)")

    def make(function: TaskFunction) -> Task:
        own_name = getattr(function, "__name__", "")
        # A callable without a name, such as a partial, has the docstring of its class.
        first_line = (inspect.getdoc(function) or "").partition("\n")[0] if own_name else ""
        given = {
            "name": name or own_name.strip("_").replace("_", "-"),
            "description": description or first_line,
        }
        return Task(run=function, **{**options, **given})

    return make


# ================================================================================================
# 5. Runs: one recorded occurrence of a task.
# ================================================================================================


class Status(str, Enum):
    """The state or outcome of a run."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"
    CRASHED = "crashed"

    # Enum's own hash is written in Python, and each outcome that is counted needs it.
    __hash__ = str.__hash__

    def __str__(self) -> str:
        return self.value


class Reason(str, Enum):
    """Why a run was made."""

    SCHEDULE = "schedule"
    STARTUP = "startup"
    MANUAL = "manual"

    def __str__(self) -> str:
        return self.value


class Progress(NamedTuple):
    """How far a run has come; `total` is None when it is unknown."""

    done: float
    total: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.done:,}{of} {self.unit}".rstrip()


@dataclass(slots=True, kw_only=True)
class Run:
    """One recorded occurrence of a task.  Instants are UTC.

    `scheduled_for` is the tick (None for startup and manual runs).  A skipped or missed row may
    stand for `count` ticks, and names the last of them.  `note` says briefly why the run ended as
    it did; `error` holds the traceback.
    """

    id: str
    task: str
    reason: Reason
    status: Status
    runner: str = ""
    key: str = field(default="", repr=False)  # the task's key in the ledger
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    heartbeat_at: datetime | None = None
    attempt: int = 1
    count: int = 1
    note: str = ""
    error: str = ""
    output: str = ""
    progress_made: Progress | None = None
    stop_asked_at: datetime | None = None
    stop_reason: str = ""
    group: str = field(default="", repr=False)  # its command's process group: see end_group()

    @property
    def duration(self) -> float | None:
        """Seconds from start to end; None while it runs, or if it never started."""
        if self.started_at is None or self.finished_at is None:
            return None
        # Never negative: the run may have been stopped between its claim and its tick.
        return max(0.0, (self.finished_at - self.started_at).total_seconds())

    def as_dict(self) -> dict[str, object]:
        """Return the run as plain values for JSON, instants as RFC 3339."""
        values = {field.name: getattr(self, field.name) for field in fields(Run)}
        values["progress"] = values.pop("progress_made")
        del values["key"], values["group"]
        values["duration"] = self.duration
        return {name: _plain(value) for name, value in values.items()}


def _plain(value: object) -> object:
    """Return a value in a form that JSON can hold."""
    if isinstance(value, Run):
        return value.as_dict()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Progress):
        return value._asdict()
    return value.value if isinstance(value, Enum) else value


def storable(text: str) -> str:
    """Return a text that every database can store: a plain str, no NUL, no lone surrogates."""
    # Not text.encode(), which a subclass of str may override.
    return str.encode(text, "utf-8", "backslashreplace").decode().replace("\0", "\\0")


# A return to the start of the line, or a sequence that erases it.
BACK = re.compile(r"\r|\x1b\[[02]?K")


def left_of(line: str) -> str:
    """Return the final text of a line that overwrites itself, as progress bars do."""
    return next(filter(None, reversed(BACK.split(line))), "")


class Output:
    """The head and the tail of what a run printed and logged, with secrets masked."""

    __slots__ = ("_cut", "_head", "_line", "_lock", "_tail")

    HEAD, TAIL = 4 * 1024, 28 * 1024  # characters
    LONGEST = 8192  # characters of a line; the rest of a longer one is dropped

    def __init__(self) -> None:
        # Guards all below: the threads of a task print concurrently, and others read meanwhile.
        self._lock = threading.Lock()
        self._line = ""  # the last line, still incomplete
        self._head = self._tail = ""
        self._cut = 0

    def add(self, text: str) -> list[str]:
        """Add text; return the lines that it completes, as they are kept."""
        text = storable(text)
        with self._lock:
            *whole, line = (self._line + text).split("\n")
            lines = [self._as_kept(each) for each in whole]
            # One character more than is kept shows that the line was longer.
            went_back = line and not BACK.split(line)[-1]
            self._line = left_of(line)[: self.LONGEST + 1] + ("\r" if went_back else "")
            text = "".join(f"{each}\n" for each in lines)
            room = self.HEAD - len(self._head)
            self._head += text[:room]
            tail = self._tail + text[room:]
            self._tail = tail[-self.TAIL :]
            self._cut += len(tail) - len(self._tail)
            return lines

    def end_line(self) -> list[str]:
        """Complete the last line, if it is incomplete; return it."""
        return self.add("\n") if self._line else []

    def text(self) -> str:
        """Return the kept text, with the cut marked."""
        with self._lock:
            cut = f"\n[... {self._cut:,} characters cut ...]\n" if self._cut else ""
            return self._head + cut + self._tail + self._as_kept(self._line)

    def _as_kept(self, line: str) -> str:
        line = left_of(line)
        if len(line) <= self.LONGEST:
            return mask_secrets(line)
        # A password that the cut separated from its @ is recognized by the text before it.
        kept = CUT_PASSWORD.sub(r"\1***", mask_secrets(line[: self.LONGEST]))
        return f"{kept} [... line cut ...]"


ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    """Return a text for a terminal: without escape sequences and other control characters."""
    return ESCAPES.sub("", text)


# Words of which a text must contain one, a pattern, and the replacement for the secret.  Every
# pattern takes linear time, on any text.
SECRETS = [
    (words.split(), re.compile(pattern), instead)
    for words, pattern, instead in (
        # Up to the last @ of the word; or, with blanks in it, up to the first @ nearby.
        ("@", r"""(://[^\s:/]*:)(?:(?!://|["'][,:)}\]])\S)*@""", r"\1***@"),
        (
            "@",
            r"""(://[^\s:/]*:)(?!\d*(?:[/?#\s"'),;}\]>]|$))(?:(?!://)[^@\n]){1,200}@""",
            r"\1***@",
        ),
        ("@", r"(://)[^\s:/@]{20,}@", r"\1***@"),  # a token in the place of a user
        # The part of an unreadable URL that libpq quotes, which is often a password.
        (
            '"',
            r"""(?x)((?:percent-encoded\ token | spaces\ found\ in | missing\ "="\ after
                | (?:integer|port)\ \w+ ):?\ )"[^"\n]*\"""",
            r'\1"***"',
        ),
        # In the quotes of libpq, of a shell, of Python or of JSON in JSON, or unquoted.
        (
            "pass pwd secret -- keyid key_id token= token: key= key: "
            """token" token' token\\ key" key' key\\""",
            r"""(?ix)
            ( (?: passw(?:or)?d | aws_secret_access_key ) \s*[=:]\s*(?!=)
            | _(?: pass | pwd ) =(?!=)
            | (?: secret | token | (?:api|access|secret|private)[_-]?key ) :\s*(?!\w+://)(?=[^\s,;]*\d)
            | (?: secret | token | (?:api|access|secret|private)[_-]?key(?:[_-]?id)? ) =(?!=)
            | (?: pass(?:w(?:or)?d)? | pwd | secret | token
                | (?:api|access|secret|private)[_-]?key(?:[_-]?id)? ) \\?["']\s*:\s*
            | --[\w-]{0,40}? (?: passw(?:or)?d | secret | token | key ) \s+(?!-) )
            (?!\*\*\*)
            (?: '(?:[^'\\]|\\.)*' | \\"[^"\n]*" | "(?:[^"\\\n]|\\.)*" | [^\s&'"]+ )""",
            r"\1***",
        ),
        (
            "authorization",
            r"""(?ix)(authorization\\?["']?\s*[:=,]\s*(?:b?\\?["'])?(?:[a-z]+\s+)?)
                [^\s"'\\][^"'\\\r\n]*""",
            r"\1***",
        ),
        ("bearer", r"(?i)(\bbearer\s+)(?=[\w.~+/-]*\d|\S{16})[\w.~+/=-]{8,}", r"\1***"),
        ("-u ", r"(\s-u\s+[^\s:]+:)\S+", r"\1***"),
        ("akia asia", r"\b(AKIA|ASIA)[0-9A-Z]{16}\b", r"\1***"),
    )
]
CUT_PASSWORD = re.compile(r"(://[^\s:/]*:)(?!\d*/)[^\s@]*$")


def mask_secrets(text: str) -> str:
    """Return a text with *** in place of passwords, tokens and keys."""
    # The text is empty for most runs: no error, no note.
    lower = text.lower()
    for words, pattern, instead in SECRETS if text else ():
        if any(word in lower for word in words):
            text = pattern.sub(instead, text)
    return text


class Flag:
    """A threading.Event that costs nothing until a thread waits for it.

    A run has two, and few are waited for; two events would take a sixth of its time (measured).
    """

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[threading.Event] = []

    def is_set(self) -> bool:
        """Tell whether the flag is set."""
        return self._is_set

    def set(self) -> None:
        """Set the flag, and wake all waiting threads."""
        # Set before the waiters are read; wait() works in the other order.
        self._is_set = True
        for event in list(self._waiting):
            event.set()

    def clear(self) -> None:
        """Clear the flag."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds until the flag is set; tell whether it is."""
        event = threading.Event()
        self._waiting.append(event)
        try:
            return self._is_set or event.wait(timeout)
        finally:
            self._waiting.remove(event)


class Stage(Enum):
    """Where a live run stands between its claim and its end."""

    WAITING = "waiting"  # for a worker, or for its retry
    INSIDE = "inside"  # in an attempt
    SETTLED = "settled"  # the attempt's outcome is decided: too late to stop it


_looking = threading.RLock()  # held so that no thread enables collection while another one looks
_shortened = threading.Lock()  # held while turns are short, so that each one finds the usual


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Disable garbage collection while the frames of other threads are read.

    Some releases of Python 3.10 to 3.12 then hold a lock that each new thread needs.  They hang
    for ever when garbage is collected there whose end lets another thread go on, such as an SQLite
    statement's (python/cpython#106883; on 3.11.7, 3 of 3 tries hung within a second).
    """
    with _looking:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()


SHORT_TURN = 1e-5


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Take the interpreter's lock from threads after 10 us, wherever they are.

    In the usual 5 ms a task may let others on only where it waits for a lock, and be seen in there
    each time (three tasks that share a queue went on for 20 s after their timeouts).
    """
    with _shortened:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SHORT_TURN)
        try:
            yield
        finally:
            sys.setswitchinterval(usual)


class Started(threading.Event):
    """Bounds Thread.start(), which waits for ever for a thread that ran out of memory at once."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the thread for 2 s at most."""
        return super().wait(2.0)


def on_thread(work: Action, name: str) -> bool:
    """Call something on a thread of its own; False when the system gives none."""
    to_do = [work]  # Whoever takes it does it: the thread, or the caller who waits no longer.

    def do() -> None:
        with contextlib.suppress(IndexError):
            guarded(to_do.pop())

    try:
        thread: Any = threading.Thread(target=do, name=name, daemon=True)
        thread._started = Started()
        thread.start()
    except (RuntimeError, MemoryError):
        return False
    if not thread._started.is_set():
        with contextlib.suppress(IndexError):  # It may begin in this very moment.
            to_do.pop()
            return False
    return True


def frame_of(thread_id: int | None) -> FrameType | None:
    """Return the frame that a thread is executing, or None when the thread has ended."""
    with _nothing_collected():
        return sys._current_frames().get(thread_id or 0)


def in_hub(work: Action) -> None:
    """Have the library that has replaced threads call something that switches to a greenlet."""
    if green_threads() == "gevent":
        sys.modules["gevent"].get_hub().loop.run_callback(work)
    else:
        sys.modules["eventlet.hubs"].get_hub().schedule_call_global(0, work)


def _frames_of_task(frame: FrameType | None, entry: FrameType | None) -> list[FrameType]:
    """Return the frames of a task in an attempt, the innermost first; none outside of one.

    `entry` is the attempt's own frame.  It and what it calls in this file to get to the task do
    not count.
    """
    frames = []
    while frame is not None and frame is not entry:
        frames.append(frame)
        frame = frame.f_back
    while frames and frames[-1].f_globals is globals():
        frames.pop()
    return [] if frame is None else frames


def _is_open(frames: list[FrameType]) -> bool:
    """Tell whether what is raised in these frames of a task would get to the task.

    Not in this file, nor where Python only reports it.
    """
    closed = [each.f_globals is globals() or each.f_code.co_name == "__del__" for each in frames]
    return bool(frames) and not any(closed)


# An interrupt inside the first ones can leave a lock held that every thread needs; inside a
# callback of the last ones, Python only reports it.
UNBROKEN = {"logging", "threading", "queue", "importlib", "_frozen_importlib"}
UNBROKEN |= {"weakref", "_weakrefset"}
# The first waiter.acquire(), indented less, does not wait: its thread has the condition's lock.
WAITS = re.compile(r"^ {16}.*waiter\.acquire\(|lock\.acquire\(block, timeout\)|_handle\.join\(")


@functools.cache
def _waiting_lines() -> set[int]:
    """Return the lines of `threading` that wait for other threads, and hold no lock meanwhile.

    Without them, a task that only waits there could never be interrupted.
    """
    source = linecache.getlines(threading.__file__)
    return {number for number, line in enumerate(source, start=1) if WAITS.search(line)}


def _is_interruptible(frames: list[FrameType]) -> bool:
    """Tell whether a thread in these frames of a task holds none of the locks that matter."""
    threads = [each for each in frames if each.f_globals is vars(threading)]
    # A thread being started has its starter's id for a moment, and would get the interrupt.
    starts = [each.f_locals["self"] for each in threads if each.f_code.co_name == "start"]
    if not _is_open(frames) or any(thread.ident is None for thread in starts):
        return False
    if frames[0] in threads and frames[0].f_lineno in _waiting_lines():
        # A thread whose turn ended right after its wait gets the interrupt one step later from
        # 3.13 on: before it has taken its condition's lock back.
        return sys.version_info < (3, 13) or sys.getswitchinterval() > SHORT_TURN
    modules = {str(each.f_globals.get("__name__")).partition(".")[0] for each in frames}
    return not modules & UNBROKEN


class LiveRun(Run):
    """A run in progress in this process."""

    def __init__(self, *, definition: Task, clock: Clock, key: str, **values: Any) -> None:
        values = {"task": definition.name, "status": Status.RUNNING, "key": key, **values}
        super().__init__(**values)
        self.definition = definition
        self.clock = clock
        self.buffer = Output()
        self.deadline: datetime | None = None
        self.ends_by = math.inf  # the same by the monotonic clock
        self.cancels_schedule = False
        self.exception: BaseException | None = None
        self.ended = Flag()
        self.on_group: Callable[[LiveRun], object] | None = None  # told when its group is known
        self._stop = Flag()
        self._callbacks: list[Callable[[], object]] = []
        # Guards all below: whether and how the run is asked to stop, and which thread it is in.
        self._guard = threading.Lock()
        self._stage = Stage.WAITING
        self._thread_id: int | None = None
        self._greenlet: Any = None  # that is the thread, where threads are replaced
        self._entry: FrameType | None = None
        self._interrupt: type[BaseException] | None = None  # what is to be raised in its thread
        self._sent = False

    @property
    def cancelled(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._stop.is_set()

    @property
    def timeout_note(self) -> str:
        """What is said of a run that its timeout has ended."""
        return f"it ran longer than its timeout of {self.definition.timeout:g} s"

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake when asked to stop; tell whether it was."""
        until = self.clock.monotonic() + seconds
        while not self.cancelled and (left := until - self.clock.monotonic()) > 0:
            self.clock.wait(self._stop, left)
        return self.cancelled

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function when the run is asked to stop: see CurrentRun.on_cancel()."""
        with self._guard:
            callbacks, late = self._callbacks, self.cancelled
            if not late:
                callbacks.append(callback)
        if late:
            self._call_back(callback)

        def forget() -> None:
            with self._guard, contextlib.suppress(ValueError):
                callbacks.remove(callback)

        return forget

    def begin_attempt(self, number: int) -> bool:
        """Enter an attempt; return False when the run was asked to stop before it."""
        with self._guard:
            if self.cancelled:
                return False
            self._stage = Stage.INSIDE
            self.attempt = number
            return True

    def settle(self) -> bool:
        """End an attempt, which can no longer be stopped; tell whether it was asked to stop."""
        with self._guard:
            self._stage = Stage.SETTLED
            # Cleared, because a thread may be calling them; and replaced, so that it calls none of
            # the next attempt's.
            self._callbacks.clear()
            self._callbacks = []
            return self.cancelled

    def await_retry(self) -> None:
        """Make the run stoppable again after a failed attempt."""
        with self._guard:
            self._stage = Stage.WAITING
            self._interrupt, self._sent = None, False
            if self.stop_reason == Status.TIMED_OUT:
                self.stop_reason, self.stop_asked_at = "", None
                self._stop.clear()

    def stop(
        self, reason: Status, note: str, attempt: int | None = None, *, insist: bool = True
    ) -> Callable[[], None] | None:
        """Ask the run to stop; return a function that carries this out, for a separate thread.

        It logs, calls the on_cancel callbacks and, with `insist`, interrupts the task's function.
        None when the run was asked before, or when it or the named attempt is over.
        """
        stack = self.stack()
        with self._guard:
            inside = self._stage is Stage.INSIDE
            named = attempt is None or (attempt == self.attempt and inside)
            if self.cancelled or self._stage is Stage.SETTLED or not named:
                return None
            self.stop_reason, self.note = reason.value, note
            self.stop_asked_at = self.clock.now()
            self.error = mask_secrets(f"{note}; it was at\n{stack}" if stack else note)
            if insist and inside and self.definition.run is not None:
                timed_out = reason is Status.TIMED_OUT
                self._interrupt = RunTimedOut if timed_out else RunCancelled
            self._stop.set()
            return functools.partial(self._see_to_stop, note, self.attempt, self._callbacks)

    @property
    def interrupted(self) -> bool:
        """Whether the run's thread is interrupted, not only asked to stop."""
        return self._interrupt is not None

    def _see_to_stop(self, note: str, attempt: int, callbacks: list[Callable[[], object]]) -> None:
        # The run's own thread is interrupted in obey().
        insists = self._interrupt is not None and self._thread_id != threading.get_ident()
        # On another thread, because the callbacks may block for any length of time.
        apart = insists and self._interrupt_apart(attempt)
        logger.warning("Task %s was asked to stop: %s", self.task, note)
        self._call_back_all(callbacks)
        if insists and not apart:
            self._await_interrupt(attempt)

    def _interrupt_apart(self, attempt: int) -> bool:
        """Start a thread that interrupts an attempt; tell whether it started."""
        return on_thread(functools.partial(self._await_interrupt, attempt), "housekeeper-stop")

    def _call_back_all(self, callbacks: list[Callable[[], object]]) -> None:
        while True:
            with self._guard:
                if not callbacks:
                    return
                callback = callbacks.pop(0)
            self._call_back(callback)

    def _call_back(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except BaseException as error:
            # In the run's own thread the error may be an interrupt, which is meant for the task.
            own_thread = self._thread_id == threading.get_ident()
            if own_thread and not isinstance(error, Exception):
                raise
            logger.exception("Task %s: an on_cancel callback failed", self.task)

    def stack(self) -> str:
        """Return what the task's function is doing now; empty when it has been left."""
        if self.definition.run is None:
            return ""
        with _nothing_collected(), self._guard:
            frames = _frames_of_task(self._frame(), self._entry)
            stack = [(frame, frame.f_lineno) for frame in reversed(frames)]
            return "".join(traceback.StackSummary.extract(iter(stack)).format())

    def _frame(self) -> FrameType | None:
        greenlet = self._greenlet
        return frame_of(self._thread_id) if greenlet is None else greenlet.gr_frame

    # The fence around interrupts: PyThreadState_SetAsyncExc addresses a thread, not a run, and an
    # interrupt that arrives late would kill the pool's worker.  So at most one is sent per
    # attempt, only while the thread id is set, and leave() catches one that has not arrived yet.

    def enter(self) -> None:
        """Declare that this thread is now inside the task; the caller makes the attempt."""
        with self._guard:
            self._thread_id, self._entry = threading.get_ident(), sys._getframe(1)
            self._greenlet = sys.modules["greenlet"].getcurrent() if green_threads() else None

    def _await_interrupt(self, attempt: int) -> None:
        """Interrupt an attempt as soon as its thread is outside the locks that matter."""
        interrupted = False
        while not interrupted:
            interrupted = self._interrupt_after(0.01, attempt)
            with _short_turns():
                tries = range(0 if interrupted else 10)
                interrupted |= any(self._interrupt_after(1e-4, attempt) for _ in tries)

    def _interrupt_after(self, seconds: float, attempt: int) -> bool:
        """Wait, and interrupt an attempt; False when its thread is in a lock just then."""
        self.clock.wait(threading.Event(), seconds)
        with _nothing_collected(), self._guard:
            over = self.attempt != attempt or self._stage is not Stage.INSIDE
            if over or self._sent or self._interrupt is None:
                return True
            frame = self._frame()
            if frame is None:
                return self._thread_id is not None  # It has ended, or does not run here.
            place, frames = frame.f_lasti, _frames_of_task(frame, self._entry)
            if self._greenlet is not None:
                # It waits, and what waits can be interrupted: so gevent.Timeout works.
                self._sent = _is_open(frames)
                if self._sent:
                    in_hub(functools.partial(self._throw, self._entry, self._interrupt))
            elif _is_interruptible(frames):
                thread_id = cast(int, self._thread_id)
                self._sent = _raise_at(frame, place, thread_id, self._interrupt)
            return self._sent

    def _throw(self, entry: FrameType | None, interrupt: type[BaseException]) -> None:
        """Interrupt a greenlet, from the hub: nothing comes between the look and the throw."""
        if self._entry is entry:
            self._greenlet.throw(interrupt)

    def obey(self) -> None:
        """Raise the interrupt of the task's thread, if there is one.

        Logging, printing and Housekeeper's methods call this: a task that does nothing else may
        let other threads run only inside those calls, where it always holds a lock.
        """
        if self._interrupt is None or self._thread_id != threading.get_ident():
            return
        with self._guard:
            late = self._sent or self._stage is not Stage.INSIDE
            if late or not _is_open(_frames_of_task(sys._getframe(2), self._entry)):
                return
            self._sent = True
        raise self._interrupt(self.note)

    def was_lost(self, kind: type[BaseException]) -> bool:
        """Tell whether an interrupt is lost that Python has only reported; then send it again."""
        # The guard may be held by this very thread.
        if not self._sent or kind is not self._interrupt or not self._guard.acquire(timeout=1.0):
            return False
        self._sent = False
        self._guard.release()
        return self._interrupt_apart(self.attempt)

    def leave(self) -> None:
        """Declare that this thread has left the task; no interrupt arrives after this."""
        with self._guard:
            self._thread_id = self._entry = None
        if self._sent and self._greenlet is None:
            _catch_pending_interrupt()


def notice_lost_interrupts() -> None:
    """Send an interrupt again that comes where Python only reports it: in a weakref's callback.

    From 3.13 on it may come one step later than the place at which its thread was seen.
    """
    report = sys.unraisablehook
    if getattr(report, "sends_again", False):
        return

    def send_again(lost: Any) -> None:
        run = _current_run.get()
        if run is None or not run.was_lost(lost.exc_type):
            report(lost)

    send_again.sends_again = True  # type: ignore[attr-defined]
    sys.unraisablehook = send_again


def _finite(value: float) -> float:
    """Return a number of any kind as an int or a finite float; raises TypeError, ValueError."""
    number = value if type(value) is int else float(value)
    if not math.isfinite(number):
        raise ValueError(f"progress {value!r} is not a finite number")
    return number


# By its name in brackets, because the attribute belongs to all: others may give it other types.
_raise_in_thread = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_raise_in_thread.argtypes = ctypes.c_ulong, ctypes.py_object


def _raise_at(
    frame: FrameType, place: int, thread_id: int, exception: type[BaseException]
) -> bool:
    """Raise an exception in a thread if it is at a place in a frame; tell whether it was.

    It cannot get on between the look and the raising: CPython lets other threads on only where a
    function begins, after a call and at a jump back, and the loop looks without a call of its own.
    """
    for frames in iter(sys._current_frames, None):
        if frames[thread_id] is frame and frame.f_lasti == place:
            _raise_in_thread(thread_id, exception)
            return True
        break
    return False


def _catch_pending_interrupt() -> None:
    """Make an exception that was sent to this thread arrive here, by sending another over it.

    Cancelling it with NULL leaves CPython's eval breaker set, up to 3.12: every instruction
    becomes slower, and under a profiler or a coverage tool the thread hangs.
    """
    with contextlib.suppress(RunTimedOut):
        _raise_in_thread(threading.get_ident(), RunTimedOut)
        for _ in range(1000):  # It arrives at the first backward jump at the latest.
            pass


_current_run: contextvars.ContextVar[LiveRun | None] = contextvars.ContextVar(
    "housekeeper_run", default=None
)


def _of_run(name: str, doc: str) -> Any:
    return property(lambda view: getattr(view._run, name), doc=doc)


class CurrentRun:
    """A task's read-only view of its run; instants are UTC."""

    __slots__ = ("_run",)
    _run: LiveRun

    task: str = _of_run("task", "The task's name; empty outside a run.")
    id: str = _of_run("id", "The run's id, as `history` shows it.")
    reason: Reason = _of_run("reason", "Why there is a run.")
    scheduled_for: datetime | None = _of_run("scheduled_for", "The tick, if it has one.")
    started_at: datetime | None = _of_run("started_at", "When the run began.")
    attempt: int = _of_run("attempt", "1, and more in a retry.")
    deadline: datetime | None = _of_run("deadline", "When the attempt times out, if it does.")
    cancelled: bool = _of_run("cancelled", "Whether the run has been asked to stop.")

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def check_cancelled(self) -> None:
        """Raise RunCancelled, or RunTimedOut after the timeout, if the run was asked to stop."""
        if self.cancelled:
            timed_out = self._run.stop_reason == Status.TIMED_OUT
            raise (RunTimedOut if timed_out else RunCancelled)(self._run.note)

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake up when the run is asked to stop; tell whether it was."""
        return self._run.wait(seconds)

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call a function, on another thread, when the run is asked to stop.

        If the run was asked already, the call is made at once, on this thread; after the attempt's
        end it is not made.  Returns a function that removes the callback.
        """
        return self._run.on_cancel(callback)

    def progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        """Report how far the run has come; `list`, `history` and `run` show it."""
        whole = None if total is None else _finite(total)
        self._run.progress_made = Progress(_finite(done), whole, storable(str(unit))[:100])


_NO_TASK = Task("none", lambda: None)


def current_run() -> CurrentRun:
    """Return the run that the calling code belongs to.

    Outside a run, return one of no task that is never stopped or recorded, so that a task's
    function can be called anywhere.  A thread that a task starts belongs to its run when it runs
    in a copy of its context (``contextvars.copy_context().run``).
    """
    run = _current_run.get()
    if run is None:
        options: dict[str, Any] = {"task": "", "id": "", "reason": Reason.MANUAL}
        run = LiveRun(definition=_NO_TASK, clock=SystemClock(), key="", **options)
    return CurrentRun(run)


# ================================================================================================
# 6. Ledger: the store of runs, and the claim that makes a tick run once.
# ================================================================================================

CALL_LIMIT = 10.0  # seconds that a ledger call may take, waiting for its turn included
HEALTH_LIMIT = 2.0  # the same, for a call of health()
LEASE = 60  # seconds without a heartbeat after which a run may be called crashed
STARTUP_ONCE_IN = 60  # seconds in which the processes of one start are expected to come up
AHEAD = 1  # seconds that a tick may be ahead of the ledger's clock
# How long before a tick its claim is made, so that the run starts with the tick instead of waiting
# for the ledger: enough for a disk or a nearby server.  Obstacles count only at the tick.
LEAD = timedelta(milliseconds=5)
KEEP_ROWS, KEEP_DAYS = 1000, 90
BEAT_EVERY = 60.0  # seconds between two beats of a runner
SEEN_WITHIN = 150.0  # seconds since the last beat within which a runner is alive

_call_limit: contextvars.ContextVar[float] = contextvars.ContextVar(
    "housekeeper_call_limit", default=CALL_LIMIT
)


@contextlib.contextmanager
def ledger_calls_within(seconds: float) -> Iterator[None]:
    """Limit each ledger call of this thread to `seconds` instead of CALL_LIMIT."""
    token = _call_limit.set(max(0.0, min(seconds, CALL_LIMIT)))
    try:
        yield
    finally:
        _call_limit.reset(token)


def key_of(task: Task, namespace: str, host: str) -> str:
    """Return the ledger's key of a task: ``namespace/name``, or ``namespace/name@host``."""
    return f"{namespace}/{task.name}" + (f"@{host}" if task.each_host else "")


def name_of(key: str) -> str:
    """Return the name of the task that a ledger's key stands for."""
    return key.partition("/")[2].partition("@")[0]


def whole_of(key: str) -> str:
    """Return the key of a task on all hosts, under which a pause is kept."""
    return key.partition("@")[0]


def is_within(key: str, within: str) -> bool:
    """Tell whether a key is `within`, or starts with it when that ends with / or @ or is empty."""
    return key.startswith(within) if within[-1:] in ("", "/", "@") else key == within


_sequence = itertools.count()
_origin = (0, "")  # this process, and what makes its ids unique


def new_id(clock: Clock) -> str:
    """Return a run's id: unique anywhere, and ordered within this process."""
    global _origin
    # Drawn once per process: a system call for each id would release the interpreter's lock, and
    # ten busy workers would queue for it (half of a burst's CPU time, measured).
    if _origin[0] != (pid := getpid()):
        _origin = (pid, os.urandom(4).hex())
    milliseconds = int(clock.now().timestamp() * 1000)
    return f"{milliseconds:012x}{next(_sequence) & 0xFFFF:04x}{_origin[1]}"


class Claim(Enum):
    """The result of claiming a run."""

    MINE = "mine"
    TAKEN = "taken"  # the tick is on record already, or the startup run is another process's
    PAUSED = "paused"
    SUPERSEDED = "a later tick is on record already"
    OVERLAPPED = "another run is going on"
    BLOCKED = "blocked"  # by a silent run, which may be called crashed soon
    EARLY = "early"  # the tick is ahead of the ledger's clock
    LOST = "lost"  # the rows that would tell whether it ran: the tables were made anew


class Standing(NamedTuple):
    """What the ledger knows of a task's schedule, with instants on the ledger's clock."""

    since: datetime  # ticks count from here
    newest: datetime | None  # the newest tick on record
    paused_at: datetime | None
    schedule: str = ""  # as last entered, with its zone
    entered_by: str = ""  # the runner that entered it

    @property
    def floor(self) -> datetime:
        """The instant up to which every tick is accounted for."""
        return max(self.since, self.newest or self.since)


class Entry(NamedTuple):
    """A task as a runner enters it in the ledger."""

    key: str
    schedule: str
    timezone: str


class Lasts(NamedTuple):
    """How a task's last runs went."""

    run: Run | None = None  # the newest that started
    success: datetime | None = None  # the end of the newest that succeeded
    failures: int = 0  # the runs since then that failed; 0 when the newest did not
    failing_since: datetime | None = None  # the tick of the first of them, or its start
    last_error: str = ""  # the note of the last of them


@dataclass(slots=True, kw_only=True)
class RunnerRow:
    """One process that schedules or scheduled, as the ledger knows it.  Instants are UTC.

    `place` names the machine's boot and its namespace of process ids, `birth` the start of the
    process by that machine's count: together they tell whether the process is still alive.
    """

    runner: str
    namespace: str
    host: str
    pid: int
    place: str
    birth: str
    version: str
    workers: int
    started_at: datetime | None = None
    beat_at: datetime | None = None
    stopped_at: datetime | None = None
    problems: list[str] = field(default_factory=list)


def first_of(runs: Sequence[Run]) -> Run | None:
    """Return the first run, if there is one."""
    return runs[0] if runs else None


def _start_of(claimed: datetime | None, tick: datetime | None) -> datetime | None:
    """Return when a claimed run started: at its claim, or at its tick if that came soon after.

    A host ahead of the ledger's clock has waited for no longer than LEAD.
    """
    return min(tick, claimed + LEAD) if claimed and tick and claimed < tick else claimed


# In memory.


def _tick_of(row: Run) -> datetime:
    return cast(datetime, row.scheduled_for)


@dataclass(slots=True)
class MemoryTask:
    """What a MemoryLedger keeps of one task."""

    entry: Entry | None = None
    entered_by: str = ""
    since: datetime | None = None  # None: it has only been run so far
    startup: tuple[datetime, str] | None = None  # when the last was won, and by which run
    paused_at: datetime | None = None
    pauses: tuple[tuple[datetime, datetime | None], ...] = ()  # that have ended, newest first
    rows: list[Run] = field(default_factory=list)  # in the order of entry
    ticks: list[Run] = field(default_factory=list)  # those with a tick, in tick order
    running: Run | None = None

    def position_after(self, instant: datetime) -> int:
        """Return the position in `ticks` of the first tick after an instant."""
        if not self.ticks or _tick_of(self.ticks[-1]) <= instant:  # the usual case
            return len(self.ticks)
        return bisect.bisect_right(self.ticks, instant, key=_tick_of)

    def newest_until(self, instant: datetime) -> datetime | None:
        """Return the newest tick on record that is not later than an instant."""
        position = self.position_after(instant)
        return _tick_of(self.ticks[position - 1]) if position else None

    def has_tick_in(self, after: datetime, until: datetime) -> bool:
        """Tell whether a tick in (after, until] is on record."""
        newest = self.newest_until(until)
        return newest is not None and newest > after


class MemoryLedger:
    """A ledger in the memory of one process, lost when the process ends.

    It is the contract that an SqlLedger keeps as well: a key names a task; `within` is a key or,
    when it ends with ``/`` or ``@`` or is empty, a prefix of keys.  Each call raises
    LedgerUnavailable when it cannot finish within its limit; it may or may not have taken effect
    then, and may be repeated.
    """

    # In seconds.  A row takes half a KiB: a task that runs each second would keep 43 MB in a day.
    PRUNE_EVERY = 6 * 3600.0

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url  # without a password
        self.failures = 0  # calls that ended in LedgerUnavailable, for the metrics
        # When this process found that rows may have been lost.
        self.replaced_at: datetime | None = None
        self._clock = clock
        self.forget()

    def exists(self) -> bool:
        """Tell whether there is a ledger to read, without making one; else as open()."""
        return True

    def open(self) -> None:
        """Connect, and make what the tables lack.

        Raises ConfigurationError when the place cannot be used, or what is missing not be made.
        """

    def close(self) -> None:
        """Release what open() acquired; the next call acquires it again."""

    def forget(self) -> None:
        """Drop the parent's connection and locks after a fork, without using or closing them."""
        self._lock = BriefLock()  # guards what follows
        self._identity = os.urandom(16).hex()
        self._tasks: defaultdict[str, MemoryTask] = defaultdict(MemoryTask)
        self._rows: dict[str, Run] = {}  # by id
        self._runners: dict[str, RunnerRow] = {}

    def now(self) -> datetime:
        """Return the time on the ledger's clock."""
        return self._clock.now()

    def identity(self) -> str:
        """Return the unique id of this ledger, which is made once."""
        return self._identity

    def _of(self, within: str) -> list[tuple[str, MemoryTask]]:
        if within[-1:] in ("", "/", "@"):
            return [each for each in self._tasks.items() if each[0].startswith(within)]
        return [(within, self._tasks[within])] if within in self._tasks else []

    def register(self, entries: Sequence[Entry], runner: str = "") -> dict[str, Standing]:
        """Enter tasks, and return where their schedules stand.

        The ticks of a task that is new, or whose schedule changed, count from now.
        """
        with self._lock:
            now = self.now()
            for entry in entries:
                task = self._tasks[entry.key]
                ahead = task.since is not None and task.since > now + LEASE * SECOND
                if task.entry != entry or ahead:
                    task.entry, task.since, task.entered_by = entry, now, runner
            return {entry.key: self._standing(entry.key) for entry in entries}

    def standings(self, within: str) -> dict[str, Standing]:
        """Return where the schedules of registered tasks stand, by key."""
        with self._lock:
            found = [key for key, task in self._of(within) if task.since is not None]
            return {key: self._standing(key) for key in found}

    def _standing(self, key: str) -> Standing:
        task = self._tasks[key]
        newest, since = task.newest_until(self.now() + AHEAD * SECOND), cast(datetime, task.since)
        schedule = f"{task.entry.schedule} {task.entry.timezone}".strip() if task.entry else ""
        return Standing(since, newest, self._paused_at(key), schedule, task.entered_by)

    def _paused_at(self, key: str) -> datetime | None:
        whole = self._tasks.get(whole_of(key))
        return whole.paused_at if whole is not None else None

    def pause(self, key: str) -> bool:
        """Pause a task's schedule on all hosts, from now; False when it was paused already."""
        with self._lock:
            task, now = self._tasks[key], self.now()
            was_paused = task.paused_at is not None
            task.since, task.paused_at = task.since or now, task.paused_at or now
            return not was_paused

    def resume(self, key: str) -> bool:
        """End a pause, keep its interval, and count ticks from now; False when not paused."""
        with self._lock:
            task, now = self._tasks[key], self.now()
            if task.paused_at is None:
                return False
            task.pauses = ((task.paused_at, now), *task.pauses)
            task.paused_at = None
            for _, each in ((key, task), *self._of(f"{key}@")):
                each.since = now
            return True

    def pauses(self, key: str) -> list[tuple[datetime, datetime | None]]:
        """Return the intervals of a task's pauses, newest first; an open one ends in None."""
        with self._lock:
            task = self._tasks[key]
            open_one = [(task.paused_at, None)] if task.paused_at is not None else []
            return [*open_one, *task.pauses]

    def claim(self, run: LiveRun) -> Claim:
        """Try to claim a run: a tick at most once, and one run of a task at a time.

        One of the processes that start together wins a startup run.  One statement decides, never
        a read and then a write; when it changes nothing, one read finds out why.
        """
        with self._lock:
            task, now = self._tasks[run.key], self.now()
            if run.reason is Reason.STARTUP and not self._wins_startup(run, task, now):
                return Claim.TAKEN
            verdict = self._why_not(run, task, now)
            if verdict is None:
                row = task.running = self._enter(run.key, run, Status.RUNNING)
                row.started_at, row.heartbeat_at = _start_of(now, row.scheduled_for), now
            return verdict or Claim.MINE

    def _why_not(self, run: LiveRun, task: MemoryTask, now: datetime) -> Claim | None:
        tick, running = run.scheduled_for, task.running
        if running is not None and running.id == run.id:
            return Claim.MINE
        if run.id in self._rows:
            return Claim.TAKEN
        if tick is not None:
            if task.has_tick_in(tick - timedelta.resolution, tick):
                return Claim.TAKEN
            if self._paused_at(run.key) is not None:
                return Claim.PAUSED
            if tick > now + AHEAD * SECOND:
                return Claim.EARLY
            if task.has_tick_in(tick, now):
                return Claim.SUPERSEDED
        if running is None:
            return None
        return Claim.BLOCKED if _is_silent(running, now) else Claim.OVERLAPPED

    def _wins_startup(self, run: LiveRun, task: MemoryTask, now: datetime) -> bool:
        recent = task.startup and abs(now - task.startup[0]) <= STARTUP_ONCE_IN * SECOND
        if task.since is not None and not self._paused_at(run.key) and not recent:
            task.startup = now, run.id
        return task.startup is not None and task.startup[1] == run.id

    def _enter(self, key: str, run: Run, status: Status) -> Run:
        tick = run.scheduled_for and run.scheduled_for.astimezone(UTC)
        row = Run(id=run.id, task=run.task, reason=run.reason, status=status, runner=run.runner)
        row.key, row.scheduled_for = key, tick
        task, self._rows[row.id] = self._tasks[key], row
        task.rows.append(row)
        if tick is not None:
            task.ticks.insert(task.position_after(tick), row)
        return row

    def record(self, row: Run, key: str, after: datetime, beside: str = "") -> bool:
        """Record the ticks in (after, row.scheduled_for] as one row, once.

        Returns False when one of them is on record already, or when the run `beside` has ended:
        the caller must look again where the record ends.
        """
        with self._lock:
            task, now, last = self._tasks[key], self.now(), _tick_of(row)
            gone = beside and (task.running is None or task.running.id != beside)
            if gone or last > now + AHEAD * SECOND or task.has_tick_in(after, last):
                return False
            made = self._enter(key, row, row.status)
            made.finished_at, made.count, made.note = now, row.count, row.note
            return True

    def _running(self, run_id: str) -> Run | None:
        row = self._rows.get(run_id)
        return row if row is not None and row.status is Status.RUNNING else None

    def beat(self, run: LiveRun) -> Run | None:
        """Record a heartbeat of a run, and return its row; None when it is no longer running."""
        with self._lock:
            if (row := self._running(run.id)) is None:
                return None
            row.heartbeat_at, row.group = self.now(), run.group
            row.attempt, row.progress_made = run.attempt, run.progress_made
            return replace(row)

    def ask_to_stop(self, run_id: str, reason: str, note: str) -> None:
        """Mark a running row as asked to stop, whichever process runs it."""
        with self._lock:
            row = self._running(run_id)
            if row is not None and row.stop_reason != reason:
                row.stop_asked_at, row.stop_reason, row.note = self.now(), reason, note

    def finish(self, run: LiveRun) -> bool:
        """Record the outcome of this runner's run; False when it no longer runs."""
        with self._lock:
            row = self._rows.get(run.id)
            if row is None or row.runner != run.runner:
                return False
            if row.status is Status.RUNNING:
                self._end(row, run.status)
                row.note, row.error = storable(run.note), storable(run.error)
                row.output, row.stop_reason = storable(run.output), run.stop_reason
                row.attempt, row.progress_made = run.attempt, run.progress_made
            return row.status is run.status

    def _end(self, row: Run, status: Status) -> None:
        self._tasks[row.key].running = None
        row.status, row.finished_at = status, self.now()

    def crash(self, row: Run, note: str, *, dead: bool = False) -> bool:
        """Record a running row as crashed, unless it had a heartbeat after it was read.

        Without `dead`, only if its last heartbeat is older than the lease.
        """
        with self._lock:
            mine = self._running(row.id)
            if mine is None or mine.heartbeat_at != row.heartbeat_at:
                return False
            if dead or _is_silent(mine, self.now()):
                self._end(mine, Status.CRASHED)
                mine.note = note
            return mine.status is Status.CRASHED

    def runs(
        self,
        within: str = "",
        *,
        id: str = "",
        tick_from: datetime | None = None,
        status: Status | None = None,
        before: str = "",
        limit: int = 0,
    ) -> list[Run]:
        """Return runs, newest first; with `tick_from`, those from that tick on, oldest first.

        `before` is the id of a run, and leaves those made before it; `status` leaves those of one
        status; `limit` 0 means all.  Rows that a clock in the future has left are not listed,
        unless by id or tick, or while they run.
        """
        found: list[Run] = []
        with self._lock:
            most, now = limit or None, self.now()
            tasks = [] if id else [task for _, task in self._of(within)]
            if id and id in self._rows and is_within(self._rows[id].key, within):
                found.append(self._rows[id])
            for task in tasks:
                if tick_from is not None:
                    start = bisect.bisect_left(task.ticks, tick_from, key=_tick_of)
                    found += task.ticks[start:][:most]
                else:
                    running = status is Status.RUNNING
                    ran = [task.running] if running and task.running else reversed(task.rows)
                    rows = (row for row in ran if status in (None, row.status))
                    past = (row for row in rows if not before or row.id < before)
                    seen = (row for row in past if running or _is_present(row, now))
                    found += itertools.islice(seen, most)
            order = _tick_of if tick_from is not None else lambda row: row.id
            found.sort(key=order, reverse=tick_from is None)
            return [replace(row) for row in found[:most]]

    def lasts(self, within: str) -> dict[str, Lasts]:
        """Return how the last runs of registered tasks went, by key."""
        with self._lock:
            tasks, now = self._of(within), self.now()
            return {
                key: _lasts_of(task.rows, now) for key, task in tasks if task.since is not None
            }

    def prune(self, key: str, *, young: datetime, old: datetime, gone: bool = False) -> int:
        """Delete a task's rows that ended before `old`, and those beyond 1,000; return how many.

        Runs and other rows are counted separately.  Rows that ended after `young` are kept, and so
        is the newest row with a tick, because late ticks are counted from it; but when the key's
        host is `gone`, that row goes too, and with the last one the task's entry.
        """
        with self._lock:
            task, now = self._tasks[key], self.now()
            seen: Counter[bool] = Counter()
            left, newest = self._rows, task.newest_until(now + AHEAD * SECOND)
            before = len(left)
            for row in reversed(task.rows):
                tick, ended = row.scheduled_for, row.finished_at
                never_ran = row.status in (Status.SKIPPED, Status.MISSED)
                seen[never_ran] += _is_present(row, now)
                counted_from = tick is not None and (newest is None or tick >= newest)
                if ended is None or ended >= young or (counted_from and not gone):
                    continue
                if ended < old or seen[never_ran] > KEEP_ROWS:
                    del left[row.id]
            if len(left) < before:
                task.rows = [row for row in task.rows if row.id in left]
                task.ticks = [row for row in task.ticks if row.id in left]
            if gone and not task.rows and task.since and task.since < old:
                del self._tasks[key]
            return before - len(left)

    def beat_runner(self, row: RunnerRow) -> None:
        """Record a beat of a runner, or with `stopped_at` its stop; enter it when it is new.

        One whose row was read, and so is another, has stopped with its last beat.
        """
        with self._lock:
            known, now = self._runners.get(row.runner, row), self.now()
            begun, beat = row.started_at or known.started_at or now, row.beat_at or now
            ended = row.stopped_at and beat
            self._runners[row.runner] = replace(
                row, started_at=begun, beat_at=beat, stopped_at=ended
            )

    def runners(self, namespace: str) -> list[RunnerRow]:
        """Return the runners of the last 90 days, the most recently seen first."""
        with self._lock:
            mine = [row for row in self._runners.values() if row.namespace == namespace]
            return sorted(mine, key=lambda row: cast(datetime, row.beat_at), reverse=True)

    def prune_runners(self, old: datetime) -> None:
        """Delete the rows of runners that were not seen since `old`."""
        # The rows are this process's, and few.


def _is_present(row: Run, now: datetime) -> bool:
    """Tell whether a row is not dated in the future, as a wrong clock may have left it."""
    latest = row.finished_at or row.started_at
    return latest is None or latest <= now + LEASE * SECOND


FAILURES = (Status.FAILED, Status.TIMED_OUT, Status.CRASHED)


def _lasts_of(rows: Sequence[Run], now: datetime) -> Lasts:
    last, success, failed = None, None, list[Run]()
    for row in reversed(rows):
        if row.started_at is None or not _is_present(row, now):
            continue
        last = last or replace(row)
        if row.status in FAILURES:
            failed.append(row)
        if row.status is Status.SUCCEEDED:
            success = row.finished_at
            break
    if not failed or last is None or last.status not in (Status.RUNNING, *FAILURES):
        return Lasts(last, success)
    first = failed[-1].scheduled_for or failed[-1].started_at
    return Lasts(last, success, len(failed), first, failed[0].note)


def _is_silent(row: Run, now: datetime) -> bool:
    """Tell whether a running row's heartbeat is further than the lease from now, either way.

    One in the future comes from a host whose clock was wrong.
    """
    beat = cast(datetime, row.heartbeat_at)
    return abs((now - beat).total_seconds()) > LEASE


# In a database.

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS housekeeper_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS housekeeper_tasks (
    name TEXT PRIMARY KEY, schedule TEXT NOT NULL, timezone TEXT NOT NULL,
    since {instant} NOT NULL, startup_at {instant}, startup_by TEXT, paused_at {instant},
    entered_by TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS housekeeper_pauses (
    task TEXT NOT NULL, paused_at {instant} NOT NULL, resumed_at {instant} NOT NULL,
    PRIMARY KEY (task, paused_at)
);
CREATE TABLE IF NOT EXISTS housekeeper_runs (
    id TEXT PRIMARY KEY, task TEXT NOT NULL, reason TEXT NOT NULL, status TEXT NOT NULL,
    runner TEXT NOT NULL, scheduled_for {instant}, started_at {instant}, finished_at {instant},
    heartbeat_at {instant}, attempt INTEGER NOT NULL DEFAULT 1, count INTEGER NOT NULL DEFAULT 1,
    note TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '', progress TEXT, stop_asked_at {instant},
    stop_reason TEXT NOT NULL DEFAULT '', process_group TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS housekeeper_runners (
    runner TEXT PRIMARY KEY, namespace TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    place TEXT NOT NULL, birth TEXT NOT NULL, version TEXT NOT NULL, workers INTEGER NOT NULL,
    started_at {instant} NOT NULL, beat_at {instant} NOT NULL, stopped_at {instant},
    problems TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS housekeeper_runs_one_per_tick
    ON housekeeper_runs (task, scheduled_for);
CREATE UNIQUE INDEX IF NOT EXISTS housekeeper_runs_one_running
    ON housekeeper_runs (task) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS housekeeper_runs_by_task ON housekeeper_runs (task, id);
CREATE INDEX IF NOT EXISTS housekeeper_runs_succeeded
    ON housekeeper_runs (task, id) WHERE status = 'succeeded';
CREATE INDEX IF NOT EXISTS housekeeper_runs_failures
    ON housekeeper_runs (task, id, started_at, finished_at)
    WHERE status IN ('failed', 'timed_out', 'crashed');
CREATE INDEX IF NOT EXISTS housekeeper_runs_rare
    ON housekeeper_runs (status, id) WHERE status NOT IN ('running', 'succeeded');
INSERT INTO housekeeper_meta (name, value) VALUES ('schema', '{version}')
    ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
# From version 2 on, a pause is kept for all hosts.
MIGRATION = """
INSERT INTO housekeeper_tasks (name, schedule, timezone, since, paused_at)
    SELECT {whole:name}, '', '', MAX(since), MIN(paused_at) FROM housekeeper_tasks
    WHERE paused_at IS NOT NULL AND {whole:name} <> name GROUP BY {whole:name}
    ON CONFLICT DO NOTHING;
"""
# Where the runs were lost, ticks count from now, and nobody claims those of before (Claim.LOST).
# They may be back meanwhile: their table was renamed.
RUNS_LOST = """
UPDATE housekeeper_tasks SET since = {now} WHERE NOT EXISTS (SELECT 1 FROM housekeeper_runs);
DELETE FROM housekeeper_meta
    WHERE name = 'identity' AND NOT EXISTS (SELECT 1 FROM housekeeper_runs);
"""
TABLES = tuple(f"housekeeper_{name}" for name in ("meta", "tasks", "pauses", "runs", "runners"))
# The columns of each table with their types, its indexes, and the version of all.
PARTS: dict[tuple[str, str], str] = {
    (table, column): kind
    for table, columns in re.findall(r"(?s)TABLE IF NOT EXISTS (\w+) \((.*?)\n?\);", SCHEMA)
    for column, kind in re.findall(r"(\w+) ((?:TEXT|INTEGER|\{instant\})[^,]*)", columns)
} | {
    (table, f"{unique}{index}"): ""
    for unique, index, table in re.findall(
        r"CREATE (UNIQUE )?INDEX IF NOT EXISTS (\w+)\s+ON (\w+)", SCHEMA
    )
}
PARTS["housekeeper_meta", f"version {SCHEMA_VERSION}"] = ""
# The columns of a run whose names differ from its attributes.
COLUMN_OF = {"key": "task", "progress_made": "progress", "group": "process_group"}
RUN_FIELDS = [each.name for each in fields(Run) if each.name != "task"]
RUN_COLUMNS = [COLUMN_OF.get(name, name) for name in RUN_FIELDS]
RUNNER_COLUMNS = [each.name for each in fields(RunnerRow)]
INSTANTS = {each for each in (*RUN_FIELDS, *RUNNER_COLUMNS) if each.endswith(("_at", "_for"))}
# Conditions that several statements share.
CONDITIONS = {
    # Not dated in the future by a wrong clock.
    "{present}": "(finished_at IS NULL OR finished_at <= {in_60})"
    " AND (started_at IS NULL OR started_at <= {in_60})",
    "{silent}": "(heartbeat_at < {ago_60} OR heartbeat_at > {in_60})",
    "{failed}": "status IN ('failed', 'timed_out', 'crashed')",
    "{never_ran}": "status IN ('skipped', 'missed')",
    "{rare}": "status NOT IN ('running', 'succeeded')",
    "{paused}": "EXISTS (SELECT 1 FROM housekeeper_tasks"
    " WHERE name = {whole::key} AND paused_at IS NOT NULL)",
    "{same}": "(:lineage = '' OR EXISTS (SELECT 1 FROM housekeeper_meta"
    " WHERE name = 'identity' AND value = :lineage))",
    "{later}": "EXISTS (SELECT 1 FROM housekeeper_runs WHERE task = :key"
    " AND scheduled_for > :scheduled_for AND scheduled_for <= {now})",
}
UNIQUE = ("housekeeper_runs_one_per_tick", "housekeeper_runs_one_running")

# Connections that a forked child must neither use nor close, and those whose file was replaced:
# they stay referenced for ever.
_abandoned: list[object] = []


class Database:
    """A connection to a database, and its statements; a dialect is a few attributes and methods.

    A kept connection is never trusted: a statement that fails ends it, and is tried once more on a
    new connection, which makes what the tables lack.
    """

    # In SQL, `{now}` is the ledger's clock, `{in_N}` or `{ago_N}` N seconds from it, `:name` a
    # value, and `{whole:column}` or `{whole::name}` the key in it without its host.
    NOW = ""
    SHIFTED = ""
    WHOLE = ""
    INSTANT = ""
    VALUE = r":\1"
    BEGIN = ""  # a transaction that one process at a time is in
    PARTS = ""  # a query for the columns and valid indexes of tables, as in PARTS
    GUARDED = ""  # a condition: the two indexes are there that let a tick, and a task, run once

    def __init__(self, url: str, clock: Clock) -> None:
        self.url, self.failures, self._clock = without_password(url), 0, clock
        self.replaced_at: datetime | None = None
        self._lineage = ""  # the identity of the ledger in which this process entered its tasks
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}  # statements in this dialect
        self._start()

    def _start(self) -> None:
        # Held for each statement: one kept connection serves the whole process.  Section 12 gives
        # the order of locks.
        self.lock = threading.Lock()
        self._connection: Any = None
        self._pid = getpid()

    # What a dialect provides.

    _connect: Callable[[float], Any]  # a new connection
    # Runs one statement on the kept connection; returns its rows and how many it touched.
    _statement: Callable[[str, Mapping[str, object] | None, float], tuple[list[Any], int]]
    _failure: Callable[[BaseException], str | None]  # its text in a line, if it is the database's
    _refuses: Callable[[BaseException], bool]  # whether a part of a table cannot be made
    _instant: Callable[[Any], datetime | None]  # a stored instant, aware and in UTC

    # Statements.

    def exists(self) -> bool:
        return self._verify(anew=False)

    def open(self) -> None:
        self._verify()

    def _verify(self, *, anew: bool = True) -> bool:
        """Make what the tables lack; without `anew` not all of them.  Tell whether they are there.

        Raises ConfigurationError, with the statements, when the database refuses.
        """
        with self._turn() as until:
            make = functools.partial(self._make_tables, until, anew=anew)
            return self._on_connection(until, make, prepare=False)

    def close(self) -> None:
        with contextlib.suppress(LedgerUnavailable), self._turn():
            self._disconnect()

    def forget(self) -> None:
        _abandoned.append(self._connection)
        self._start()

    def _disconnect(self) -> None:
        """Close the kept connection, if there is one; the lock is held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _notice_fork(self) -> None:
        if self._pid != getpid():
            self.forget()  # Python did not report it; the old lock may be held for ever.

    def _busy(self, limit: float) -> LedgerUnavailable:
        self.failures += 1
        return LedgerUnavailable(f"ledger {self.url} was busy for {limit:.0f} s")

    @contextlib.contextmanager
    def _turn(self, until: float = math.inf) -> Iterator[float]:
        """Wait for this call's turn; yield its deadline on the monotonic clock."""
        self._notice_fork()
        limit, now = _call_limit.get(), self._clock.monotonic()
        until = min(until, now + limit)
        if not self.lock.acquire(timeout=max(0.0, until - now)):
            raise self._busy(limit)
        try:
            yield until
        except LedgerUnavailable:
            self.failures += 1
            raise
        finally:
            self.lock.release()

    def _on_connection(self, until: float, work: Callable[[], T], *, prepare: bool = True) -> T:
        """Do work on the kept connection; if it fails, once more on a new one.

        The lock is held.
        """
        for is_last in (False, True):
            try:
                if self._connection is None:
                    self._connection = self._connect(until)
                    if prepare:
                        self._make_tables(until)
                return work()
            except BaseException as error:
                self._disconnect()
                if (reason := self._failure(error)) is None:
                    raise
                if is_last or self._clock.monotonic() >= until:
                    raise LedgerUnavailable(
                        f"ledger {self.url}: {mask_secrets(reason)}"
                    ) from error
        raise AssertionError("unreachable")

    def _persist(
        self, sql: str, values: Mapping[str, object], until: float
    ) -> tuple[list[Any], int]:
        """Run one statement; the lock is held."""
        try:
            return self._on_connection(until, lambda: self._statement(sql, values, until))
        except ConfigurationError as error:
            raise LedgerUnavailable(str(error)) from error

    def _run(self, sql: str, row: object, values: Mapping[str, object]) -> tuple[list[Any], int]:
        """Run one statement with the values that it names, from `values` or from `row`."""
        if sql not in self._known:
            self._known[sql] = _in_dialect(sql, self)
        sql, names = self._known[sql]
        found = {name: values[name] if name in values else getattr(row, name) for name in names}
        return self._in_turn(sql, {name: self._stored(value) for name, value in found.items()})

    def _in_turn(self, sql: str, values: Mapping[str, object]) -> tuple[list[Any], int]:
        with self._turn() as until:
            return self._persist(sql, values, until)

    def _rows(self, sql: str, row: object = None, **values: object) -> list[Any]:
        return self._run(sql, row, values)[0]

    def _write(self, sql: str, row: object = None, **values: object) -> int:
        return self._run(sql, row, values)[1]

    def _stored(self, value: object) -> object:
        if isinstance(value, str):
            return value.value if isinstance(value, Enum) else storable(value)
        return json.dumps(value) if isinstance(value, list | Progress) else value

    # The tables.

    def _found(self, until: float) -> set[tuple[str, str]]:
        """Return the columns and indexes that are there; refuse the tables of a newer version."""
        rows, _ = self._statement(self.PARTS, {}, until)
        found = {(str(table), str(part)) for table, part in rows}
        if ("housekeeper_meta", "value") in found:
            sql = "SELECT value FROM housekeeper_meta WHERE name = 'schema'"
            for (version,) in self._statement(sql, {}, until)[0]:
                found.add(("housekeeper_meta", f"version {version}"))
                if version.isdigit() and int(version) > SCHEMA_VERSION:
                    raise ConfigurationError(
                        f"ledger {self.url} was made by a newer Housekeeper (its tables have"
                        f" version {version}, this one knows {SCHEMA_VERSION}); use that one, or"
                        " another ledger"
                    )
        return found

    def _make_tables(self, until: float, *, anew: bool = True) -> bool:
        """Do what _verify() says, one process at a time."""
        found = self._found(until)
        if not self._lacking(found) or not (found or anew):
            return bool(found)
        self._statement(self.BEGIN, {}, until)
        found = self._found(until)
        script, reason = self._script(found), "an index of that name is another"
        try:
            for statement in filter(str.strip, script.split(";")):
                self._statement(statement, {}, until)
            found = self._found(until)
        except Exception as error:
            if not self._refuses(error):
                raise
            reason = str(self._failure(error))
        if left := self._lacking(found):
            raise ConfigurationError(
                f"ledger {self.url} lacks {', '.join(left)}, which cannot be made ({reason}); have"
                " the database's administrator run what follows, and GRANT SELECT, INSERT, UPDATE,"
                f" DELETE on the {len(TABLES)} tables to the role:\n{script}"
            )
        self._statement("COMMIT", {}, until)
        return True

    def _lacking(self, found: set[tuple[str, str]]) -> list[str]:
        """Return the names of what is not among the parts that were found."""
        tables = {table for table, _ in found}
        lacking = [each for each in PARTS if each not in found]
        names = (f"{table}.{part}" if table in tables else table for table, part in lacking)
        return list(dict.fromkeys(names))

    def _script(self, found: set[tuple[str, str]]) -> str:
        """Return the statements that make what is not among the parts that were found."""
        tables = {table for table, _ in found}
        columns = [
            f"ALTER TABLE {table} ADD COLUMN {part} {kind};\n"
            for (table, part), kind in PARTS.items()
            if kind and table in tables and (table, part) not in found
        ]
        lost = RUNS_LOST if "housekeeper_runs" not in tables else ""
        made, indexed = SCHEMA.split("CREATE UNIQUE", 1)
        text = f"{made}{''.join(columns)}{MIGRATION}{lost}CREATE UNIQUE{indexed}"
        text = text.replace("{instant}", self.INSTANT).replace("{version}", str(SCHEMA_VERSION))
        return _in_dialect(text, self)[0]


def without_password(url: str) -> str:
    """Return a URL with *** for anything that may be a password, even in a broken URL."""
    url = re.sub(r"(?s)(://[^:@/?]*):.*@", r"\1:***@", url)
    return mask_secrets(re.sub(r"(?is)(password=).*", r"\1***", url))


def _in_dialect(sql: str, dialect: Database) -> tuple[str, tuple[str, ...]]:
    """Return SQL in a dialect, and the names of its values."""

    def shifted(match: re.Match[str]) -> str:
        return dialect.SHIFTED.format(f"{'+' if match[1] == 'in' else '-'}{match[2]} seconds")

    for name, condition in {"{guarded}": dialect.GUARDED, **CONDITIONS}.items():
        sql = sql.replace(name, condition)
    sql = re.sub(r"\{whole:(:?[\w.]+)\}", lambda match: dialect.WHOLE.format(match[1]), sql)
    names = tuple(dict.fromkeys(re.findall(r":([a-z]\w*)", sql)))
    sql = re.sub(r":([a-z]\w*)", dialect.VALUE, sql)
    return re.sub(r"\{(in|ago)_(\d+)\}", shifted, sql).replace("{now}", dialect.NOW), names


class SqlLedger(Database):
    """A ledger in a database, with the same SQL for all dialects; see MemoryLedger.

    A lost claim is no error, because unique violations would fill the database's log.
    """

    PRUNE_EVERY = 86400.0
    REGISTERED_AT_ONCE = 100  # tasks in one statement: SQLite took 999 values up to 3.31

    def now(self) -> datetime:
        return cast(datetime, self._instant(self._rows("SELECT {now}")[0][0]))

    def identity(self) -> str:
        sql = "SELECT value FROM housekeeper_meta WHERE name = 'identity'"
        while not (rows := self._rows(sql)):
            self._write(
                "INSERT INTO housekeeper_meta (name, value) VALUES ('identity', :fresh)"
                " ON CONFLICT DO NOTHING",
                fresh=os.urandom(16).hex(),
            )
        return str(rows[0][0])

    # Tasks.

    def register(self, entries: Sequence[Entry], runner: str = "") -> dict[str, Standing]:
        standings: dict[str, Standing] = {}
        for start in range(0, len(entries), self.REGISTERED_AT_ONCE):
            some = entries[start : start + self.REGISTERED_AT_ONCE]
            standings |= self._register_some(some, runner)
        self._lineage = self.identity()
        return {entry.key: standings[entry.key] for entry in entries}

    def _register_some(self, entries: Sequence[Entry], runner: str) -> dict[str, Standing]:
        # Sorted, because otherwise two processes could wait for each other's rows for ever.
        ordered = sorted(entries)
        values: dict[str, object] = {"runner": runner}
        for i, entry in enumerate(ordered):
            values |= {f"{name}_{i}": text for name, text in entry._asdict().items()}
        keys = f"task.name IN ({', '.join(f':key_{i}' for i in range(len(ordered)))})"
        rows = self._standing_rows(keys, values)
        if any(rows.get(entry.key, ())[:4] != (*entry, 0) for entry in ordered):
            each = "(:key_%d, :schedule_%d, :timezone_%d, {now}, :runner)"
            new = ", ".join(each % (i, i, i) for i in range(len(ordered)))
            self._write(
                "INSERT INTO housekeeper_tasks (name, schedule, timezone, since, entered_by)"
                f" VALUES {new} ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule,"
                " timezone = excluded.timezone, since = excluded.since,"
                " entered_by = excluded.entered_by"
                " WHERE housekeeper_tasks.schedule <> excluded.schedule"
                " OR housekeeper_tasks.timezone <> excluded.timezone"
                # Entered by a clock that was in the future.
                " OR housekeeper_tasks.since > {in_60}",
                **values,
            )
            rows = self._standing_rows(keys, values)
        return {key: self._standing_of(row) for key, row in rows.items()}

    def standings(self, within: str) -> dict[str, Standing]:
        rows = self._standing_rows(_where("task.name", within), {"within": within})
        return {key: self._standing_of(row) for key, row in rows.items()}

    def _standing_rows(self, which: str, values: Mapping[str, object]) -> dict[str, Any]:
        rows = self._rows(
            "SELECT task.name, task.schedule, task.timezone,"
            " CASE WHEN task.since > {in_60} THEN 1 ELSE 0 END, task.since, paused.paused_at,"
            " (SELECT MAX(run.scheduled_for) FROM housekeeper_runs AS run"
            " WHERE run.task = task.name AND run.scheduled_for <= {in_1}), task.entered_by"
            " FROM housekeeper_tasks AS task LEFT JOIN housekeeper_tasks AS paused"
            f" ON paused.name = {{whole:task.name}} WHERE {which}",
            **values,
        )
        return {row[0]: tuple(row) for row in rows}

    def _standing_of(self, row: Sequence[Any]) -> Standing:
        _, schedule, zone, _, *instants, entered_by = row
        since, paused_at, newest = map(self._instant, instants)
        since = since or datetime.min.replace(tzinfo=UTC)
        return Standing(since, newest, paused_at, f"{schedule} {zone}".strip(), entered_by)

    def pause(self, key: str) -> bool:
        paused = self._write(
            "INSERT INTO housekeeper_tasks (name, schedule, timezone, since, paused_at)"
            " VALUES (:key, '', '', {now}, {now}) ON CONFLICT (name) DO UPDATE"
            " SET paused_at = excluded.paused_at WHERE housekeeper_tasks.paused_at IS NULL",
            key=key,
        )
        return paused == 1

    def resume(self, key: str) -> bool:
        self._write(
            "INSERT INTO housekeeper_pauses (task, paused_at, resumed_at)"
            " SELECT name, paused_at, {now} FROM housekeeper_tasks"
            " WHERE name = :key AND paused_at IS NOT NULL"
            " ON CONFLICT (task, paused_at) DO UPDATE SET resumed_at = excluded.resumed_at",
            key=key,
        )
        sql = "UPDATE housekeeper_tasks SET paused_at = NULL, since = {now}"
        return self._write(f"{sql} WHERE {{whole:name}} = :key AND {{paused}}", key=key) > 0

    def pauses(self, key: str) -> list[tuple[datetime, datetime | None]]:
        rows = self._rows(
            "SELECT paused_at, NULL FROM housekeeper_tasks"
            " WHERE name = :key AND paused_at IS NOT NULL UNION ALL"
            " SELECT paused_at, resumed_at FROM housekeeper_pauses WHERE task = :key"
            " ORDER BY 1 DESC",
            key=key,
        )
        found = [(self._instant(paused), self._instant(resumed)) for paused, resumed in rows]
        return [(paused, resumed) for paused, resumed in found if paused is not None]

    # Claiming and finishing.

    def claim(self, run: LiveRun) -> Claim:
        if run.reason is Reason.STARTUP and not self._wins_startup(run):
            return Claim.TAKEN
        for _ in range(100):
            claimed = self._write(
                "INSERT INTO housekeeper_runs"
                " (id, task, reason, scheduled_for, status, runner, started_at, heartbeat_at)"
                " SELECT :id, :key, :reason, :scheduled_for, 'running', :runner, {now}, {now}"
                " WHERE {guarded} AND (:scheduled_for IS NULL"
                " OR (:scheduled_for <= {in_1} AND NOT {paused} AND NOT {later} AND {same}))"
                " ON CONFLICT DO NOTHING",
                run,
                lineage=self._lineage,
            )
            verdict = Claim.MINE if claimed else self._why_not(run)
            if verdict is not None:
                return verdict
        raise LedgerUnavailable(
            f"the ledger took no row of task {run.task!r}, for no reason in it"
        )

    def _wins_startup(self, run: LiveRun) -> bool:
        won = self._write(
            "UPDATE housekeeper_tasks SET startup_at = {now}, startup_by = :id"
            " WHERE name = :key AND NOT {paused}"
            " AND (startup_at IS NULL OR startup_at < {ago_60} OR startup_at > {in_60})",
            run,
        )
        # An earlier try may have been committed although its answer was lost.
        sql = "SELECT 1 FROM housekeeper_tasks WHERE name = :key AND startup_by = :id"
        return won == 1 or bool(self._rows(sql, run))

    def _why_not(self, run: LiveRun) -> Claim | None:
        """Tell why a claim changed nothing; None when the reason is gone."""
        own = "EXISTS (SELECT 1 FROM housekeeper_runs WHERE"
        ((verdict,),) = self._rows(
            "SELECT CASE"
            f" WHEN {own} id = :id AND status = 'running') THEN 'MINE'"
            # The same id: another process has called the run crashed meanwhile.
            f" WHEN {own} id = :id OR (task = :key AND scheduled_for = :scheduled_for))"
            " THEN 'TAKEN' WHEN NOT {guarded} THEN 'UNGUARDED'"
            " WHEN :scheduled_for IS NOT NULL AND {paused} THEN 'PAUSED'"
            " WHEN :scheduled_for > {in_1} THEN 'EARLY' WHEN {later} THEN 'SUPERSEDED'"
            " WHEN :scheduled_for IS NOT NULL AND NOT {same} THEN 'LOST'"
            f" WHEN {own} task = :key AND status = 'running' AND {{silent}}) THEN 'BLOCKED'"
            f" WHEN {own} task = :key AND status = 'running') THEN 'OVERLAPPED' END",
            run,
            lineage=self._lineage,
        )
        if verdict == "UNGUARDED":
            self.close()  # The next connection makes the indexes, or says why it cannot.
            return None
        return Claim[verdict] if verdict else None

    def record(self, row: Run, key: str, after: datetime, beside: str = "") -> bool:
        recorded = self._write(
            "INSERT INTO housekeeper_runs"
            " (id, task, reason, scheduled_for, status, runner, finished_at, count, note)"
            " SELECT :id, :key, 'schedule', :scheduled_for, :status, :runner, {now}, :count, :note"
            " WHERE :scheduled_for <= {in_1} AND NOT EXISTS (SELECT 1 FROM housekeeper_runs"
            " WHERE task = :key AND scheduled_for > :after AND scheduled_for <= :scheduled_for)"
            " AND (:beside = '' OR EXISTS"
            " (SELECT 1 FROM housekeeper_runs WHERE id = :beside AND status = 'running'))"
            " ON CONFLICT DO NOTHING",
            row,
            key=key,
            after=after,
            beside=beside,
        )
        return recorded == 1

    def beat(self, run: LiveRun) -> Run | None:
        self._write(
            "UPDATE housekeeper_runs SET heartbeat_at = {now}, attempt = :attempt,"
            " progress = :progress_made, process_group = :group"
            " WHERE id = :id AND status = 'running'",
            run,
        )
        row = first_of(self.runs(id=run.id))
        return row if row is not None and row.status is Status.RUNNING else None

    def ask_to_stop(self, run_id: str, reason: str, note: str) -> None:
        self._write(
            "UPDATE housekeeper_runs"
            " SET stop_asked_at = {now}, stop_reason = :reason, note = :note"
            " WHERE id = :id AND status = 'running' AND stop_reason <> :reason",
            id=run_id,
            reason=reason,
            note=note,
        )

    def finish(self, run: LiveRun) -> bool:
        touched = self._write(
            "UPDATE housekeeper_runs SET status = :status, finished_at = {now},"
            " attempt = :attempt, note = :note, error = :error, output = :output,"
            " progress = :progress_made, stop_reason = :stop_reason"
            " WHERE id = :id AND runner = :runner AND status = 'running'",
            run,
        )
        if touched:
            return True
        # An earlier try may have been committed although its answer was lost.
        row = first_of(self.runs(id=run.id))
        return row is not None and row.status == run.status and row.runner == run.runner

    def crash(self, row: Run, note: str, *, dead: bool = False) -> bool:
        sql = (
            "UPDATE housekeeper_runs SET status = 'crashed', finished_at = {now}, note = :note"
            " WHERE id = :id AND status = 'running' AND heartbeat_at = :heartbeat_at"
        )
        return self._write(sql if dead else f"{sql} AND {{silent}}", row, note=note) == 1

    # Reading.

    def runs(
        self,
        within: str = "",
        *,
        id: str = "",
        tick_from: datetime | None = None,
        status: Status | None = None,
        before: str = "",
        limit: int = 0,
    ) -> list[Run]:
        which, order = f"status = '{status.value}'" if status else "1 = 1", "ORDER BY id DESC"
        if id:
            which = "id = :id"
        elif tick_from is not None:
            which, order = "scheduled_for >= :tick_from", "ORDER BY scheduled_for"
        elif status is Status.RUNNING:
            # Asked to sort by the id itself, SQLite walks all rows (2 s for a million).
            order = "ORDER BY id || '' DESC"
        else:
            # A task's own rows are found by its key, those of all tasks by what they became.
            rare = status not in (None, Status.SUCCEEDED) and within[-1:] in "/@"
            which += " AND {rare}" * rare + " AND {present}"
        which += " AND id < :before" * bool(before)
        rows = self._rows(
            f"SELECT {', '.join(RUN_COLUMNS)} FROM housekeeper_runs"
            f" WHERE {_where('task', within)} AND {which} {order} {'LIMIT :limit' * bool(limit)}",
            within=within,
            id=id,
            tick_from=tick_from,
            before=before,
            limit=limit,
        )
        return [self._run_of(row) for row in rows]

    def _run_of(self, row: Sequence[Any]) -> Run:
        values = self._values_of(RUN_FIELDS, row)
        run = Run(task=name_of(values["key"]), **values)
        run.reason, run.status = Reason(run.reason), Status(run.status)
        run.started_at = _start_of(run.started_at, run.scheduled_for)
        if run.progress_made:
            run.progress_made = Progress(*json.loads(cast(str, run.progress_made)))
        return run

    def _values_of(self, names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
        """Return the values of a row by their names."""
        return {
            name: self._instant(value) if name in INSTANTS else value
            for name, value in zip(names, row, strict=True)
        }

    def lasts(self, within: str) -> dict[str, Lasts]:
        # An index finds each of these among millions of rows; the limit has SQLite find the last
        # two once for each task.
        one = "(SELECT %s FROM housekeeper_runs WHERE task = name AND %s AND {present}%s)"
        last = one % ("id", "started_at IS NOT NULL", " ORDER BY id DESC LIMIT 1")
        success = one % ("id", "status = 'succeeded'", " ORDER BY id DESC LIMIT 1")
        since_then = "{failed} AND id > CASE WHEN good IS NULL THEN '' ELSE good END"
        failures = one % ("COUNT(*)", since_then, "")
        instant = "CASE WHEN scheduled_for IS NULL THEN started_at ELSE scheduled_for END"
        first = one % (instant, since_then, " ORDER BY id LIMIT 1")
        worst = one % ("note", since_then, " ORDER BY id DESC LIMIT 1")
        rows = self._rows(
            "SELECT name, (SELECT finished_at FROM housekeeper_runs WHERE id = good),"
            f" {failures}, {first}, {worst}, {', '.join(f'run.{each}' for each in RUN_COLUMNS)}"
            f" FROM (SELECT name, {last} AS last, {success} AS good"
            f" FROM housekeeper_tasks WHERE {_where('name', within)} LIMIT 1000000000) AS seen"
            " LEFT JOIN housekeeper_runs AS run ON run.id = last",
            within=within,
        )
        found: dict[str, Lasts] = {}
        for key, success_at, number, since, note, *row in rows:
            run = self._run_of(row) if row[0] is not None else None
            found[key] = Lasts(run, self._instant(success_at))
            if number and run is not None and run.status in (Status.RUNNING, *FAILURES):
                streak = {"failures": number, "failing_since": self._instant(since)}
                found[key] = found[key]._replace(**streak, last_error=note)
        return found

    # Retention and runners.

    def prune(self, key: str, *, young: datetime, old: datetime, gone: bool = False) -> int:
        never, ran = "{never_ran}", "NOT {never_ran}"
        nth = (
            "(SELECT id FROM housekeeper_runs WHERE task = :key AND %s AND {present}"
            " ORDER BY id DESC LIMIT 1 OFFSET :keep)"
        )
        newest = (
            " AND (scheduled_for IS NULL OR scheduled_for < (SELECT MAX(scheduled_for)"
            " FROM housekeeper_runs WHERE task = :key AND scheduled_for <= {in_1}))"
        )
        number = self._write(
            "DELETE FROM housekeeper_runs WHERE task = :key AND status <> 'running'"
            f" AND finished_at < :young{'' if gone else newest}"
            f" AND (finished_at < :old OR {never} AND id <= {nth % never}"
            f" OR {ran} AND id <= {nth % ran})",
            key=key,
            keep=KEEP_ROWS,
            young=young,
            old=old,
        )
        if gone:
            self._write(
                "DELETE FROM housekeeper_tasks WHERE name = :key AND since < :old AND NOT EXISTS"
                " (SELECT 1 FROM housekeeper_runs WHERE task = :key)",
                key=key,
                old=old,
            )
        return number

    def beat_runner(self, row: RunnerRow) -> None:
        beat = ":beat_at" if row.beat_at else "{now}"
        instants = {"started_at": "{now}", "beat_at": beat}
        instants["stopped_at"] = beat if row.stopped_at else "NULL"
        values = ", ".join(instants.get(name, f":{name}") for name in RUNNER_COLUMNS)
        again = ["beat_at", "stopped_at", "problems"]
        again += ["started_at"] * bool(row.started_at and not row.beat_at)
        self._write(
            f"INSERT INTO housekeeper_runners ({', '.join(RUNNER_COLUMNS)}) VALUES ({values})"
            " ON CONFLICT (runner) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in again),
            row,
        )

    def runners(self, namespace: str) -> list[RunnerRow]:
        rows = self._rows(
            f"SELECT {', '.join(RUNNER_COLUMNS)} FROM housekeeper_runners"
            " WHERE namespace = :namespace ORDER BY beat_at DESC",
            namespace=namespace,
        )
        found = [RunnerRow(**self._values_of(RUNNER_COLUMNS, row)) for row in rows]
        for runner in found:
            runner.problems = json.loads(cast(str, runner.problems))
        return found

    def prune_runners(self, old: datetime) -> None:
        self._write("DELETE FROM housekeeper_runners WHERE beat_at < :old", old=old)


def _where(column: str, within: str) -> str:
    """Return the SQL condition for `within`."""
    if within == "":
        return "1 = 1"
    if within[-1] in "/@":
        return f"substr({column}, 1, length(:within)) = :within"
    return f"{column} = :within"


class PendingWrite:
    """A statement that waits in an SqliteLedger."""

    __slots__ = ("sql", "touched", "values", "woken")

    def __init__(self, sql: str, values: Mapping[str, object]) -> None:
        self.sql, self.values = sql, values
        self.touched: int | None = None  # rows, once the statement was run
        self.woken = threading.Lock()  # held until another thread ran it, or it is the first
        self.woken.acquire()


class SqliteLedger(SqlLedger):
    """A ledger in an SQLite file, for the processes of one host."""

    # All processes that share the file share the host's clock, so it serves as the ledger's.
    NOW = ":now"
    SHIFTED = "strftime('%Y-%m-%dT%H:%M:%f000Z', :now, '{}')"
    WHOLE = "substr({0}, 1, instr({0} || '@', '@') - 1)"
    INSTANT = "TEXT"
    BEGIN = "BEGIN IMMEDIATE"
    PARTS = """
        SELECT made.name, part.name
            FROM sqlite_master AS made, pragma_table_info(made.name) AS part
            WHERE made.type = 'table' AND made.name LIKE 'housekeeper%'
        UNION ALL
        SELECT tbl_name, CASE WHEN sql LIKE 'CREATE UNIQUE%' THEN 'UNIQUE ' ELSE '' END || name
            FROM sqlite_master WHERE type = 'index' AND name LIKE 'housekeeper%'"""
    GUARDED = f"(SELECT COUNT(*) FROM sqlite_master WHERE name IN {UNIQUE}) = 2"
    # Held while a file is made and connected to, so that no thread connects before it is closed.
    connecting = threading.Lock()
    TOGETHER = 50  # statements in one transaction: other processes wait meanwhile

    def __init__(self, url: str, path: str, clock: Clock) -> None:
        self.path = path
        super().__init__(url, clock)

    def _start(self) -> None:
        super()._start()
        # The parent's lock may be held for ever.
        SqliteLedger.connecting = threading.Lock()
        self._queueing = threading.Lock()  # guards `_pending`; never held over a statement
        self._pending: list[PendingWrite] = []
        self._file: tuple[int, int] | None = None  # device and inode of the connected file
        self._place = ""  # its real path
        # The same of its write-ahead log, and of the index of that.
        self._logs: tuple[tuple[int, int] | None, ...] = ()
        self._replaced = False  # what was at its path when the connection was last used
        self._waits = -1.0  # seconds that the connection waits for others' locks

    def _verify(self, *, anew: bool = True) -> bool:
        try:
            if not anew:
                with contextlib.suppress(PermissionError):  # Connecting tells of it.
                    os.stat(self.path)
            return super()._verify()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except LedgerUnavailable as error:
            reason, cause = str(self._failure(cast(Exception, error.__cause__))), error.__cause__
            if cause is None or _is_busy(reason) or "full" in reason:
                raise
            raise ConfigurationError(
                f"ledger {self.path} cannot be used ({reason}); pass ledger='sqlite:////a/folder"
                "/that/can/be/written/housekeeper.db', or ledger='memory://' to keep nothing"
            ) from cause

    def _failure(self, error: BaseException) -> str | None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        return str(error) if isinstance(error, sqlite3.Error) else None

    def _refuses(self, error: BaseException) -> bool:
        return isinstance(error, sqlite3.IntegrityError) or "Cannot add" in str(error)

    def _connect(self, until: float) -> sqlite3.Connection:
        place = os.path.realpath(self.path)
        with SqliteLedger.connecting, contextlib.ExitStack() as making:
            if self._replaced or _file_at(place)[1] <= 0:
                folder = os.path.dirname(place)
                alone = making.enter_context(_one_process_in(folder, self._clock, until))
                self._make_file(place, alone=alone)
            file, _ = _file_at(self.path)
            if file is None:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.stat(self.path)  # Raises what else is in the way.
                raise FileNotFoundError(
                    "its file is gone; put it back, or restart the process, which makes a new one"
                )
            # check_same_thread is off, because the ledger's lock admits one thread at a time.
            connection = sqlite3.connect(
                self.path,
                timeout=max(0.0, until - self._clock.monotonic()),
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                # Retried, because many processes at once fail despite the timeout.
                switch = functools.partial(connection.execute, "PRAGMA journal_mode = WAL")
                _retry(switch, self._clock, until)
                # NORMAL forgets claims on power loss: ticks whose claims are forgotten run twice.
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # Makes the log.
            except BaseException:
                connection.close()
                raise
        self._file, self._place, self._waits, self._replaced = file, place, -1.0, False
        self._logs = self._logs_now()
        return connection

    def _logs_now(self) -> tuple[tuple[int, int] | None, ...]:
        return _file_at(f"{self._place}-wal")[0], _file_at(f"{self._place}-shm")[0]

    def _make_file(self, place: str, *, alone: bool) -> None:
        """Make the file where there was none, and another in the place of one that was emptied.

        Before SQLite makes it, so that no other user can ever read it.  Only then: closing a file
        drops all locks of this process on it, and without them another process removes the log
        that SQLite still writes to (sqlite.org/howtocorrupt.html, 2.2).
        """
        (_, size), log, index = _file_at(place), f"{place}-wal", f"{place}-shm"
        old, before = [], None
        # If a link was redirected, other processes may still use the old file.
        if self._replaced and place == self._place and _file_at(log)[0] in (None, self._logs[0]):
            old = [log, index]  # SQLite would read the old file's log into the new one.
        if size == 0 and alone:
            # Those who have it open keep their locks on it until they look.
            old, before = [log, index, place], os.stat(place)
        for name in old:
            with contextlib.suppress(OSError):
                os.unlink(name)
        if before is not None or (size < 0 and self._file is None):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if before is not None:
            with contextlib.suppress(OSError):
                os.chmod(place, stat.S_IMODE(before.st_mode))
                os.chown(place, -1, before.st_gid)

    def _disconnect(self) -> None:
        file, size = _file_at(self.path)
        if self._connection is not None and (file != self._file or size == 0):
            # Closing it would delete the log of whatever file has its name now, or write pages
            # from its own log into one that was emptied.
            _abandoned.append(self._connection)
            self._connection = None
        super()._disconnect()

    def _statement(
        self, sql: str, values: Mapping[str, object] | None, until: float
    ) -> tuple[list[Any], int]:
        self._look_at_file()
        connection = cast(sqlite3.Connection, self._connection)
        seconds = float(max(0, math.ceil(until - self._clock.monotonic())))
        if seconds != self._waits:
            connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
            self._waits = seconds
        now = _instant_text(self._clock.now())
        cursor = connection.execute(sql, {"now": now, **(values or {})})
        return cursor.fetchall(), cursor.rowcount

    def _look_at_file(self) -> None:
        """Raise OSError when the connection's file or its log was deleted, replaced or emptied.

        The next connection is to the file that has the name now.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise FileNotFoundError("its file is gone") from None
        kept = (status.st_dev, status.st_ino) == self._file and status.st_size > 0
        logs = self._logs_now()
        if kept and logs == self._logs:
            return
        if kept and logs[1] == self._logs[1]:
            # Without the log, and with its index, nobody else can use the file.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._connection.execute("PRAGMA wal_checkpoint")
                os.unlink(f"{self._place}-shm")
        self._replaced, self.replaced_at = not kept, self._clock.now()
        raise OSError("its file or its log was replaced")

    # Writes.  A commit waits for the disk, and other writes arrive meanwhile: the first of them
    # puts all that wait into one transaction.  Each statement is still a separate step, but a
    # hundred tasks at midnight do not wait two hundred times for the disk.

    def _in_turn(self, sql: str, values: Mapping[str, object]) -> tuple[list[Any], int]:
        if sql.startswith("SELECT"):
            return super()._in_turn(sql, values)
        self._notice_fork()
        mine, limit = PendingWrite(sql, values), _call_limit.get()
        until = self._clock.monotonic() + limit
        try:
            with self._queueing:
                self._pending.append(mine)
                is_first = self._pending[0] is mine
            if not is_first and not mine.woken.acquire(timeout=limit):
                raise self._busy(limit)
            if mine.touched is None:
                with self._turn(until):
                    self._write_pending(until)
                    if mine.touched is None:
                        mine.touched = self._persist(sql, values, until)[1]
        finally:
            self._leave_queue(mine)
        return [], mine.touched

    def _leave_queue(self, mine: PendingWrite) -> None:
        """Leave the queue; its first wakes those whose writes are made, and the next first."""
        with self._queueing:
            was_first = self._pending[:1] == [mine]
            made = [each for each in self._pending if each.touched is not None and was_first]
            self._pending[:] = [each for each in self._pending if each not in (mine, *made)]
            for each in (*made, *self._pending[:1]) if was_first else ():
                if each is not mine:
                    each.woken.release()

    def _write_pending(self, until: float) -> None:
        """Make all waiting writes, if there are several; none of them when one fails."""
        batch = [each for each in self._pending if each.touched is None][: self.TOGETHER]
        if len(batch) < 2 or self._connection is None:
            return
        try:
            self._statement("BEGIN IMMEDIATE", {}, until)
            touched = [self._statement(each.sql, each.values, until)[1] for each in batch]
            self._statement("COMMIT", {}, until)
        except BaseException as error:
            self._disconnect()
            if self._failure(error) is None:
                raise
        else:
            for each, number in zip(batch, touched, strict=True):
                each.touched = number

    def _stored(self, value: object) -> object:
        return _instant_text(value) if isinstance(value, datetime) else super()._stored(value)

    def _instant(self, value: Any) -> datetime | None:
        # Python 3.10 does not parse the Z.
        return datetime.fromisoformat(f"{value[:-1]}+00:00") if value else None


def _file_at(path: str) -> tuple[tuple[int, int] | None, int]:
    """Return a file's device and inode, and its size; None and -1 when there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None, -1
    return (found.st_dev, found.st_ino), found.st_size


@contextlib.contextmanager
def _one_process_in(folder: str, clock: Clock, until: float) -> Iterator[bool]:
    """Admit one process at a time to the files of a folder; yield False where that cannot be."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows, where an open file cannot be replaced.
        yield False
        return
    try:
        lock = functools.partial(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _retry(lock, clock, until)
        yield True
    finally:
        os.close(descriptor)


def _instant_text(instant: datetime, precision: str = "microseconds") -> str:
    """Return an instant in the one form that is stored, because instants are compared as text.

    Not by strftime() and strptime(), which take 1.5 and 5 times as long.
    """
    return f"{instant.astimezone(UTC).isoformat(timespec=precision)[:-6]}Z"


def _is_busy(reason: str) -> bool:
    return "locked" in reason or "busy" in reason


def _retry(work: Action, clock: Clock, until: float) -> None:
    """Do what another process may be in the way of, as soon as it is not."""
    while True:
        try:
            work()
            return
        except (BlockingIOError, sqlite3.OperationalError) as error:
            busy = isinstance(error, BlockingIOError) or _is_busy(str(error))
            if not busy or clock.monotonic() > until:
                raise
            clock.wait(threading.Event(), 0.02)


class PostgresLedger(SqlLedger):
    """A ledger in PostgreSQL, for the processes of many hosts.

    It needs no session state, so it works behind PgBouncer in transaction mode.  The connection is
    asynchronous (each statement is its own transaction), because otherwise a call could not be
    given up in time when the server or the network is frozen.
    """

    NOW = "now()"
    SHIFTED = "(now() + interval '{}')"
    WHOLE = "split_part({0}, '@', 1)"
    INSTANT = "TIMESTAMPTZ"
    VALUE = r"%(\1)s"
    # Any number, the same in all processes.
    BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock({0x686F757365})"
    PARTS = f"""
        WITH made AS (
            SELECT name, to_regclass(name) AS oid FROM unnest(ARRAY{list(TABLES)}) AS name
        )
        SELECT name, attname FROM made JOIN pg_attribute ON attrelid = made.oid
            WHERE attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT name, CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END || relname
            FROM made JOIN pg_index ON indrelid = made.oid
            JOIN pg_class ON pg_class.oid = indexrelid WHERE indisvalid"""
    GUARDED = f"""(SELECT COUNT(*) FROM pg_index WHERE indrelid = to_regclass('housekeeper_runs')
        AND indisunique AND indisvalid
        AND indexrelid IN ({", ".join(f"to_regclass('{name}')" for name in UNIQUE)})) = 2"""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock)
        try:
            psycopg2: Any = importlib.import_module("psycopg2")
            parse = importlib.import_module("psycopg2.extensions").parse_dsn
        except ImportError as error:
            raise ConfigurationError(
                f"ledger {self.url} needs psycopg2; run `pip install psycopg2-binary`"
            ) from error
        self._driver = psycopg2
        try:
            # The library's error for a broken URL may contain the password.
            self._parameters: dict[str, str] = parse(f"postgresql://{_well_formed(url)}")
        except (ValueError, psycopg2.Error):
            raise ConfigurationError(
                f"ledger {self.url} is not a valid URL; percent-encode the special characters"
                " of a user's name or a password, such as %25 for % and %2F for /"
            ) from None
        self._prefix = ""  # of each statement: sets the isolation level, where the default differs

    def _failure(self, error: BaseException) -> str | None:
        if not isinstance(error, self._driver.Error | OSError):
            return None
        return first_line(error)

    def _refuses(self, error: BaseException) -> bool:
        # A right, a schema, or the rows that are there.
        return str(getattr(error, "pgcode", ""))[:2] in ("42", "3F", "23")

    def _connect(self, until: float) -> Any:
        addresses = _addresses_of(self._parameters, self._clock, until)
        connection = self._driver.connect(
            **{**self._parameters, **addresses},
            async_=True,
            client_encoding="utf8",
            fallback_application_name="housekeeper",
        )
        try:
            self._await(connection, until)
            # An application may have registered types of its own for all connections.
            for kind in ("UNICODE", "BOOLEAN", "INTEGER", "LONGINTEGER", "PYDATETIMETZ"):
                extensions = self._driver.extensions
                extensions.register_type(getattr(extensions, kind), connection)
            self._connection, self._prefix = connection, ""
            asked = "SELECT current_setting('transaction_isolation'), pg_backend_pid()"
            ((isolation, pid),), _ = self._statement(asked, None, until)
            if isolation != "read committed":
                self._prefix = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
            if pid == connection.get_backend_pid():
                # What was given up does not wait for a lock for ever, one session after the other.
                # Not behind PgBouncer: there the application gets this session next, as it was.
                milliseconds = int(CALL_LIMIT * 1000) + 1000
                self._statement(f"SET statement_timeout = {milliseconds}", None, until)
        except BaseException:
            self._connection = None
            connection.close()
            raise
        return connection

    def _statement(
        self, sql: str, values: Mapping[str, object] | None, until: float
    ) -> tuple[list[Any], int]:
        cursor = self._connection.cursor()
        cursor.execute(self._prefix + sql, values)
        try:
            self._await(self._connection, until)
        except self._driver.DataError:  # Such as a character that LATIN1 lacks.
            in_ascii = {
                name: each.encode("ascii", "backslashreplace").decode()
                if isinstance(each, str)
                else each
                for name, each in (values or {}).items()
            }
            cursor.execute(self._prefix + sql, in_ascii)
            self._await(self._connection, until)
        return cursor.fetchall() if cursor.description else [], cursor.rowcount

    def _await(self, connection: Any, until: float) -> None:
        """Drive the connection until it has its answer; raises TimeoutError."""
        extensions = self._driver.extensions
        while (state := connection.poll()) != extensions.POLL_OK:
            event = (
                selectors.EVENT_READ if state == extensions.POLL_READ else selectors.EVENT_WRITE
            )
            # A new one each time, because the socket changes while several hosts are tried.
            with _selector() as selector:
                selector.register(connection.fileno(), event)
                left = until - self._clock.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError("it did not answer in time")

    def _instant(self, value: Any) -> datetime | None:
        return cast(datetime, value).astimezone(UTC) if value else None


def _well_formed(url: str) -> str:
    """Return what follows a URL's scheme; raises ValueError for a password with / ? or @ in it."""
    rest = url.partition("://")[2]
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    port = authority.rpartition(":")[2]
    lost = "@" in rest and ":" in authority and "@" not in authority and not port.isdigit()
    if lost or authority.count("@") > 1:
        raise ValueError
    return rest


def _selector() -> selectors.BaseSelector:
    # poll() takes one system call, and epoll() four.  Looked up each time, because Windows lacks
    # poll(), and gevent removes it.
    made: type[selectors.BaseSelector] = getattr(
        selectors, "PollSelector", selectors.DefaultSelector
    )
    return made()


def _addresses_of(parameters: Mapping[str, str], clock: Clock, until: float) -> dict[str, str]:
    """Return parameters with addresses for host names; raises TimeoutError, OSError.

    libpq's own look-up holds the interpreter's lock, and so stops the whole process for as long as
    a name server is silent.
    """
    hosts = (parameters.get("host") or os.environ.get("PGHOST", "")).split(",")
    if "hostaddr" in parameters or all(not host or host[0] in "/@" for host in hosts):
        return {}
    ports = (parameters.get("port") or "").split(",")
    found: list[tuple[str, str, str]] = []
    for number, host in enumerate(hosts):
        port = ports[number] if len(ports) > 1 else ports[0]
        if not host or host[0] in "/@":
            found.append((host, "", port))
        else:
            found += [(host, address, port) for address in _look_up(host, clock, until)]
    names, addresses, numbers = zip(*found, strict=True)
    values = {"host": ",".join(names), "hostaddr": ",".join(addresses)}
    return {**values, "port": ",".join(numbers)} if any(numbers) else values


def _look_up(host: str, clock: Clock, until: float) -> list[str]:
    """Return a host's addresses; a separate thread asks, as it may hang on a name server."""
    answers: list[list[str] | OSError] = []
    answered = threading.Event()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(each[4][0]) for each in found)))
        except OSError as error:
            answers.append(error)
        answered.set()

    threading.Thread(target=ask, name="housekeeper-names", daemon=True).start()
    while not answers and (left := until - clock.monotonic()) > 0:
        clock.wait(answered, left)
    if not answers:
        raise TimeoutError(f"no name server told the address of {host!r} in time")
    if isinstance(answers[0], OSError):
        raise OSError(f"the address of {host!r} is not known ({answers[0].strerror})")
    return answers[0]


Ledger = MemoryLedger | SqlLedger
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")


def ledger_from_url(url: object, base: Path, clock: Clock) -> Ledger:
    """Return the ledger that a URL names, without touching it; relative paths start at `base`.

    Raises ConfigurationError for an invalid URL.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"ledger {url!r} is not a URL such as 'sqlite:///housekeeper.db'")
    scheme, separator, rest = url.partition("://")
    if scheme == "memory" and separator and not rest:
        return MemoryLedger(url, clock)
    name = rest.strip("/")
    if scheme == "sqlite" and rest.startswith("/") and name and name != ":memory:":
        if "?" in name:
            raise ConfigurationError(
                f"ledger {url!r} has parameters, which an SQLite ledger does not take; leave out"
                f" {'?' + name.partition('?')[2]!r}"
            )
        path = str(base / rest[1:])
        return SqliteLedger(f"sqlite:///{path}", path, clock)
    if scheme in POSTGRES_SCHEMES and separator:
        return PostgresLedger(url, clock)
    raise ConfigurationError(
        f"ledger {without_password(url)!r} is not a URL such as 'sqlite:///housekeeper.db',"
        " 'postgresql://user@host/database' or 'memory://'"
    )


# ================================================================================================
# 7. Execution: one attempt of a run, on a worker's thread.
# ================================================================================================

TERM_TO_KILL = 10.0  # seconds that a command's processes have between SIGTERM and SIGKILL
TIME_TO_LEAVE = 0.25  # seconds that those of a command that has ended have for a setsid()

AroundRun = Callable[[], AbstractContextManager[object]]
Outcome = tuple[Status, str, str]  # status, note and error


def make_attempt(task: Task, run: LiveRun, app: object, around_run: AroundRun | None) -> None:
    """Call a task once, and set the run's status, note and error by the outcome.

    Never raises, whatever the task raises, SystemExit and KeyboardInterrupt included, and always
    sets texts that a ledger can store.
    """
    outer = _current_run.get()
    outcome: Outcome = Status.FAILED, "what it ended with could not be put into words", ""
    try:
        outcome = _outcome_of(run, *_attempt(task, run, app, around_run))
    except BaseException as error:
        run.exception = error
    finally:
        _current_run.set(outer)
        run.settle()
        run.status, run.note, run.error = outcome


def _attempt(
    task: Task, run: LiveRun, app: object, around_run: AroundRun | None
) -> tuple[BaseException | None, str, str]:
    """Call a task in its surroundings; return what it raised, a note and a traceback.

    The texts are made where the task can still be stopped: they may be its own code, and hang.
    """
    try:
        _current_run.set(run)
        capture_logging()
        notice_lost_interrupts()
        try:
            run.enter()
            result = None  # Stays so when the application's context swallows an exception.
            context = getattr(app, "app_context", None)
            around_app = context() if callable(context) else contextlib.nullcontext()
            around = contextlib.nullcontext() if around_run is None else _Around(around_run, run)
            with around_app, around:
                result = _call(task, run, app)
            return None, worded(_note_of, result, otherwise=""), ""
        except BaseException as error:
            note = _in_a_line(error)
            words = functools.partial(_traceback_of, note=note)
            return error, note, worded(words, error)[-16384:]
        finally:
            run.leave()
    except BaseException as error:
        # It may be an interrupt that came while leave() waited for its guard: leave again.
        run.leave()
        return error, _in_a_line(error), ""


class _Around:
    """Enters the application's context manager; its own failures are logged and change nothing.

    Not a generator: an interrupt waits while frames of another file lie between two of this one.
    """

    def __init__(self, factory: AroundRun, run: LiveRun) -> None:
        self._factory, self._run = factory, run
        self._manager: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        with application_code(self._run, "around_run failed before the run"):
            made = self._factory()
            made.__enter__()
            self._manager = made

    def __exit__(self, *raised: Any) -> None:
        with application_code(self._run, "around_run failed after the run"):
            if self._manager is not None:
                self._manager.__exit__(*raised)


@contextlib.contextmanager
def application_code(run: Run, failure: str) -> Iterator[None]:
    """Log what a hook of the application raises; a process that it forks ends here."""
    try:
        with EndsIfForked():
            yield
    except (RunTimedOut, RunCancelled):
        raise
    except BaseException:
        logger.exception("Task %s: %s", run.task, failure)


NOT_BEGUN: Mapping[type, str] = {
    CoroutineType: "a coroutine, of which nothing ran; wrap it: lambda: asyncio.run(...)",
    GeneratorType: "a generator, of which nothing ran; wrap it: lambda: list(...)",
}


def _call(task: Task, run: LiveRun, app: object) -> object:
    with EndsIfForked():
        result = run_command(task, run) if task.run is None else task.call(app)
    if type(result) in NOT_BEGUN:  # Not isinstance(), which may ask a proxy.
        cast(Any, result).close()
        raise ConfigurationError(f"run= returned {NOT_BEGUN[type(result)]}")
    kind = result if type(result) is type else type(result)
    run.cancels_schedule |= of_schedule(kind, "CancelJob")
    return result


class EndsIfForked:
    """Ends a process that was forked inside the block, by a task or a hook, when it leaves that.

    It exits with the code that it would have as a program, but runs no exit handlers, which would
    act on the process that runs the task.
    """

    def __enter__(self) -> None:
        self._process = getpid()

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if getpid() == self._process:
            return
        code = 0 if error is None else 1
        try:
            if isinstance(error, SystemExit) and not isinstance(error.code, str):
                code = int(error.code or 0) & 0xFF
            elif error is not None:
                traceback.print_exception(type(error), error, error.__traceback__)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


ENDS = {
    SkipRun: Status.SKIPPED,
    RunCancelled: Status.CANCELLED,
    RunTimedOut: Status.TIMED_OUT,
}


def _outcome_of(run: LiveRun, error: BaseException | None, note: str, trace: str) -> Outcome:
    """Return the outcome of an attempt, which can no longer be stopped."""
    if run.clock.monotonic() > run.ends_by:
        # The timer may be held up, by a call in C that keeps the interpreter's lock for example.
        run.stop(Status.TIMED_OUT, run.timeout_note, insist=False)
    asked_to_stop = run.settle()
    run.exception = error
    if asked_to_stop:
        # No matter what it raised or returned after it was asked to stop.
        # The error says where it was then, so an interrupt's own traceback would repeat that.
        added = "" if issubclass(type(error), (RunTimedOut, RunCancelled)) else trace
        error_text = f"{run.error}\n{added}".strip()[-16384:]
        return Status(run.stop_reason), storable(run.note), storable(error_text)
    if error is None:
        return Status.SUCCEEDED, note, ""
    # By type: isinstance() reads an attribute of the error, which may raise.
    status = next((ENDS[kind] for kind in ENDS if issubclass(type(error), kind)), Status.FAILED)
    return status, note, trace


UNSHOWN = "its text cannot be shown"


def worded(words: Callable[[T], str], value: T, otherwise: str = UNSHOWN) -> str:
    """Return a function's text for a value, storable and without secrets, or else `otherwise`.

    Never raises: the value may be the task's own, and do anything when it is read.
    """
    try:
        return storable(mask_secrets(storable(words(value))))
    except BaseException:
        return otherwise


def _in_a_line(error: BaseException) -> str:
    """Return an error's type and text in one line, as a note; never raises."""
    kind = type(error)
    text = worded(_text_of, error)
    if not issubclass(kind, (SkipRun, CommandFailed, SystemExit)):
        name = worded(lambda kind: kind.__name__, kind, otherwise="an error without a name")
        text = f"{name}: {text}" if text else name
    return text[:300]


def _text_of(error: BaseException) -> str:
    if issubclass(type(error), SystemExit):
        return f"the task called sys.exit({cast(SystemExit, error).code!r})"
    return storable(str(error)).partition("\n")[0][:4096]


def _traceback_of(error: BaseException, note: str) -> str:
    """Return an error's traceback from the task's own code on; empty for SkipRun and the like."""
    if issubclass(type(error), (SkipRun, CommandFailed)):
        return ""
    with contextlib.suppress(BaseException):
        if UNSHOWN not in note:
            trace = traceback.TracebackException.from_exception(error)
            own = [number for number, each in enumerate(trace.stack) if each.filename != __file__]
            del trace.stack[: own[0] if own else 0]
            return "".join(trace.format())
    # A SyntaxError with a text of bytes, a __cause__ that is none: its place is enough.
    return f"{''.join(traceback.format_tb(error.__traceback__))}{note}\n"


def _note_of(result: object) -> str:
    """Return a task's result in one line; empty unless it is a text, number or small dict."""
    if isinstance(result, dict) and len(result) <= 10:
        pairs = [(key, _note_of(value)) for key, value in result.items()]
        said = ", ".join(f"{key}={text}" for key, text in pairs if isinstance(key, str) and text)
        return said[:300]
    if isinstance(result, bool) or not isinstance(result, (str, numbers.Number)):
        return ""
    return first_line(storable(str(result)))[:300]


_making_record = threading.local()


def capture_logging() -> None:
    """Keep what is logged inside a run in its output, whatever handlers the application has.

    This uses the record factory: a handler on the root logger would keep Flask and
    logging.basicConfig() from setting up theirs.  Called before each attempt, because an
    application may set its own factory at any time.
    """
    existing = logging.getLogRecordFactory()
    if getattr(existing, "keeps_output", False):
        return

    def keep_output(*args: Any, **values: Any) -> logging.LogRecord:
        # A later factory may call an earlier one of ours: the outermost keeps the record.
        outermost = not getattr(_making_record, "inside", False)
        _making_record.inside = True
        try:
            record = existing(*args, **values)
        finally:
            _making_record.inside = not outermost
        if outermost and (run := _current_run.get()) is not None:
            run.obey()
            with contextlib.suppress(Exception):
                _keep_record(run, record)
        return record

    keep_output.keeps_output = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(keep_output)


KEPT = logging.Formatter()


def _keep_record(run: LiveRun, record: logging.LogRecord) -> None:
    """Keep a log record's line in a run's output; the record is not changed."""
    if not isinstance(record.name, str) or not isinstance(record.levelno, int):
        return  # Some libraries make records only to format something.
    at = _instant_text(datetime.fromtimestamp(record.created, UTC), "milliseconds")
    text = f"{at} {record.levelname} {record.name}: {record.getMessage()}\n"
    if record.exc_info:
        text += f"{KEPT.formatException(record.exc_info)}\n"
    if record.stack_info:
        text += f"{record.stack_info}\n"
    run.buffer.add(text)


class LogFormatter(logging.Formatter):
    """Adds the task's name to what is logged inside a run, without changing the record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a record."""
        run = _current_run.get()
        if run is not None and str(record.name).partition(".")[0] != logger.name:
            # Put back, because other handlers get the same record.
            message, record.message = record.message, f"Task {run.task}: {record.message}"
            try:
                return super().formatMessage(record)
            finally:
                record.message = message
        return super().formatMessage(record)


def capture_prints() -> None:
    """Keep what is printed inside a run in its output, in a process of Housekeeper's own."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not hasattr(stream.write, "keeps_output"):
            _keep_writes(stream)


def _keep_writes(stream: Any) -> None:
    write = stream.write

    def keep_output(text: str) -> object:
        run = _current_run.get()
        if run is not None:
            run.obey()
            # A log line is kept already.
            if isinstance(text, str) and sys._getframe(1).f_globals is not vars(logging):
                run.buffer.add(text)
        return write(text)

    keep_output.keeps_output = True  # type: ignore[attr-defined]
    stream.write = keep_output


def run_command(task: Task, run: LiveRun) -> str:
    """Run a task's command, its output going to the run and line by line to the log.

    Asked to stop, its process group gets SIGTERM, and SIGKILL 10 s later.  What the command leaves
    behind in its group when it ends is killed 0.25 s later; what is in a session of its own by
    then is named in the text that is returned, and in the note of a run that was stopped.  Raises
    CommandFailed when it exits with anything but 0.
    """
    command = CommandProcess(task, run)
    forget: Callable[[], object] = int
    try:
        run.group = f"{command.group}:{birth_of(command.group)}"
        forget = run.on_cancel(functools.partial(signal_group, command.group, signal.SIGTERM))
        if run.on_group is not None:
            with contextlib.suppress(Exception):  # It matters only if this process dies.
                run.on_group(run)
        command.attend()
    finally:
        command.end()
        run.group = ""
        forget()
    left, code = _left_behind(run.id, command.group), command.code
    if run.cancelled:
        run.note = "; ".join(filter(None, (run.note, left)))
    if code:
        words = how_it_ended(code, command.last_lines)
        raise CommandFailed("; ".join(filter(None, (words, left))), code)
    return left


class CommandProcess:
    """A task's command from start to end; it needs no thread but the run's."""

    def __init__(self, task: Task, run: LiveRun) -> None:
        self.process = start_command(task, run.id)
        self.group = self.process.pid
        self.code: int | None = None  # once it has exited; negative after a signal
        self.last_lines: deque[str] = deque(maxlen=3)
        self._run = run
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._kill_at: float | None = None
        self._group_lives = True  # Once free, the number may soon be another group's.

    def attend(self) -> None:
        """Read the output until the command has exited.

        It does not wait for the pipe's end: a process outside the group may hold it open for ever.
        """
        with contextlib.ExitStack() as stack:
            pipe = stack.enter_context(cast(IO[bytes], self.process.stdout))
            selector = stack.enter_context(selectors.DefaultSelector())
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
            with contextlib.suppress(AttributeError, OSError):  # Not on every system.
                exited = os.pidfd_open(self.group)
                stack.callback(os.close, exited)
                selector.register(exited, selectors.EVENT_READ)
            while self._goes_on():
                for key, _ in selector.select(0.1):
                    if key.fileobj is not pipe or self._read(pipe) == b"":
                        selector.unregister(key.fileobj)
            # What the command has written is in the pipe already.
            for _ in range(64):
                if not self._read(pipe):
                    break
        self._keep(self._decoder.decode(b"", final=True))
        self._log(self._run.buffer.end_line())

    def _goes_on(self) -> bool:
        if not self._run.cancelled:
            return not self._has_exited()
        now = self._run.clock.monotonic()
        self._kill_at = self._kill_at or now + TERM_TO_KILL
        # A shell that is asked to stop ends at once; its children have their time as well.
        if not self._members_left():
            return False
        if now >= self._kill_at:
            logger.warning("Task %s: its command ignored SIGTERM and was killed", self._run.task)
        return now < self._kill_at

    def _has_exited(self, *, wait: bool = False) -> bool:
        if self.code is None:
            self.code = exit_code_of(self.process, wait=wait)
        return self.code is not None

    def _members_left(self) -> bool:
        """Tell whether the group goes on; free the command's pid once that has exited."""
        if self._has_exited():
            self.process.poll()
            self._group_lives = group_lives(self.group)
        return self._group_lives

    def _read(self, pipe: IO[bytes]) -> bytes | None:
        """Return a chunk of output, empty at the end of the pipe; None when there is none now."""
        try:
            chunk = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return None
        self._keep(self._decoder.decode(chunk))
        return chunk

    def _keep(self, text: str) -> None:
        self._log(self._run.buffer.add(text))

    def _log(self, lines: list[str]) -> None:
        for line in lines:
            self.last_lines.append(line[:200])
            # Outside the run's context, which would add the line to the output again.
            contextvars.Context().run(logger.info, "Task %s: %s", self._run.task, line)

    def end(self) -> None:
        """Kill what is left of the group, and wait for the command itself."""
        clock = self._run.clock
        until = clock.monotonic() + TIME_TO_LEAVE
        # What `setsid x &` has started may not have come to its setsid() when the shell is gone.
        while self._members_left() and self._has_exited() and clock.monotonic() < until:
            clock.wait(threading.Event(), 0.005)
        if self._group_lives:
            signal_group(self.group, signal.SIGKILL)
        self._has_exited(wait=True)
        self.process.wait()


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; tell whether there is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def group_lives(group: int) -> bool:
    """Tell whether a process group has members, zombies aside.

    In a container without an init nobody may ever wait for those.
    """
    if not signal_group(group, 0):
        return False
    processes = [_stat_of(each.name) for each in Path("/proc").glob("[0-9]*")]
    return not processes or any(stat[2:3] == [str(group)] for stat in processes)


def birth_of(pid: int) -> str:
    """Return the start of a process in clock ticks since the boot; empty when it has ended."""
    return "".join(_stat_of(pid)[19:20])


def _stat_of(pid: int | str) -> list[str]:
    """Return a process's state, parent, group, session, ...; nothing of one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if stat[0] in "ZX" else stat


def _groups_of(mark: str) -> dict[int, int]:
    """Return the process groups, by pid, of processes with a text in their environment."""
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        # Skips those that may not be read, or have ended.
        with contextlib.suppress(OSError):
            if not (data := environ.read_bytes()):
                # It is in the midst of an execve(); or it has none, as the kernel's own threads.
                os.readlink(environ.with_name("exe"))
                data = next(filter(None, (environ.read_bytes() for _ in range(100))), b"")
            if mark.encode() in data:
                pid = int(environ.parent.name)
                found[pid] = os.getpgid(pid)
    return found


def _left_behind(run_id: str, group: int) -> str:
    """Say which processes of a run's command are still running in their own sessions."""
    groups = _groups_of(f"HOUSEKEEPER_RUN={run_id}\0")
    pids = [str(pid) for pid in groups if groups[pid] != group]
    what = "process" if len(pids) == 1 else "processes"
    return f"it left {what} {', '.join(pids)} running, in a session of its own" if pids else ""


def end_group(group: str, clock: Clock) -> bool:
    """End the processes that a dead scheduler's command left; tell whether there were any.

    `group` is LiveRun.group, from this machine since its boot.  The processes get SIGTERM, and
    SIGKILL after 10 s; nothing is sent unless they are provably the same.
    """
    number, _, birth = group.partition(":")
    if not number.isdigit() or not birth or not _is_same_group(int(number), birth):
        return False
    signal_group(int(number), signal.SIGTERM)
    until = clock.monotonic() + TERM_TO_KILL
    while _is_same_group(int(number), birth):
        if clock.monotonic() >= until:
            signal_group(int(number), signal.SIGKILL)
            break
        clock.wait(threading.Event(), 0.05)
    return True


def _is_same_group(group: int, birth: str) -> bool:
    """Tell whether a group is alive whose leader was born then."""
    leader = birth_of(group)
    if leader and leader != birth:
        return False  # The number is another process's by now.
    # As long as it has members, the kernel gives its number to no other process.
    return group in _groups_of("HOUSEKEEPER_RUN=").values()


# ================================================================================================
# 8. Sentry: check-ins and events.
# ================================================================================================

SENTRY_RUNTIME = 30  # minutes that Sentry gives a run without a timeout; heartbeats extend it


class Monitor(NamedTuple):
    """A task's monitor in Sentry: its slug, and the configuration that check-ins carry."""

    slug: str
    config: dict[str, object]


def make_monitor(task: Task, key: str, trigger: Trigger) -> Monitor:
    """Return the monitor of a task with this key in the ledger.

    Raises ConfigurationError with the reason when Sentry cannot have one.
    """
    # Early SDKs do not mark the functions that their decorator makes.
    maker = getattr(task.run, "__globals__", {}).get("__name__", "")
    if getattr(task.run, "_sentry_monitored", False) or maker.startswith("sentry_sdk.crons"):
        raise ConfigurationError("its function checks in by itself (sentry_sdk.monitor)")
    options = dict(task.sentry) if isinstance(task.sentry, Mapping) else {}
    ticks = trigger.following(datetime(2024, 1, 1, tzinfo=UTC), 5)
    gaps = [(later - tick).total_seconds() for tick, later in itertools.pairwise(ticks)]
    # Whatever its grace, a tick no longer runs once the next one has come.  Sentry counts whole
    # minutes: one more than the seconds need, and two for a run, whose start it rounds down.
    margin = int(min([task.grace, *gaps]) // 60) + 1
    runtime = SENTRY_RUNTIME if task.timeout is None else int(min(task.timeout, 1e6) // 60) + 2
    config: dict[str, object] = {
        "schedule": sentry_schedule(trigger),
        "timezone": trigger.timezone,
        "checkin_margin": min(margin, SENTRY_NUMBERS["checkin_margin"]),
        "max_runtime": min(runtime, SENTRY_NUMBERS["max_runtime"]),
    }
    slug = str(options.pop("slug", "")) or sentry_slug(key)
    return Monitor(slug, {**config, **options})


def sentry_slug(key: str) -> str:
    """Return the slug of a task's key: its name if Sentry keeps that unchanged, else with a hash.

    Sentry cuts slugs at 50 characters, lowercases and collapses them, and refuses bare numbers.
    """
    namespace, _, name = key.partition("/")
    lasting = re.fullmatch("[a-z0-9]+([_-][a-z0-9]+)*", name) and not name.isdigit()
    if lasting and not namespace and len(name) <= 50:
        return name
    words = re.sub("[^a-z0-9]+", "-", f"{namespace}-{name}".lower()).strip("-")
    return f"{words[:41].rstrip('-')}-{digest_of(key)[:8]}"


def sentry_schedule(trigger: Trigger) -> dict[str, object]:
    """Return a trigger's schedule in Sentry's form; its server parses it with cronsim.

    Raises ConfigurationError with the reason when the form cannot express it.
    """
    if isinstance(trigger, UnionTrigger):
        raise ConfigurationError(f"Sentry knows one schedule a monitor, not {trigger.text!r}")
    if isinstance(trigger, IntervalTrigger):
        unit, seconds = ("minute", 60) if trigger.period % 86400 else ("day", 86400)
        if trigger.period % 60:
            raise ConfigurationError(f"{trigger.text!r} is not in whole minutes")
        return {"type": "interval", "value": trigger.period // seconds, "unit": unit}
    texts = trigger.text.split()
    if len(texts) == 6 and not texts.pop(0).isdigit():
        raise ConfigurationError(f"{trigger.text!r} comes more often than once a minute")
    named = zip(CRON_FIELDS[1:], texts, strict=True)
    return {"type": "crontab", "value": " ".join(itertools.starmap(_in_cronsim, named))}


def _in_cronsim(field: CronField, text: str) -> str:
    """Write a field as cronsim takes it: numbers, ascending ranges, ``5L``."""
    parts = "*" if text == "?" else text
    return ",".join(_part_in_cronsim(field, part) for part in parts.split(","))


def _part_in_cronsim(field: CronField, part: str) -> str:
    if field.name == "day of month" and re.search("[LW]", part):
        if part in ("L", "LW"):
            return part
        raise ConfigurationError(f"Sentry does not know the day of month {part!r}")
    if field.name == "weekday" and WEEKDAY_OF_MONTH.fullmatch(part):
        name, number, nth = part.partition("#")
        return f"{field.number(name.strip('L')) % 7}{number}{nth}" + "L" * (not nth)
    if re.fullmatch(r"\*(/[0-9]+)?|[0-9]+", part):
        return part
    numbers = sorted(field.numbers(part))
    whole = len(numbers) > 2 and numbers == [*range(numbers[0], numbers[-1] + 1)]
    return f"{numbers[0]}-{numbers[-1]}" if whole else ",".join(map(str, numbers))


def import_sentry_sdk() -> Any:
    """Import sentry_sdk; raises ConfigurationError when it is not installed."""
    try:
        return importlib.import_module("sentry_sdk")
    except ImportError as error:
        raise ConfigurationError(
            "Sentry needs a package that is missing; install it with `pip install sentry-sdk`"
        ) from error


@dataclass(slots=True, kw_only=True)
class Report:
    """The report of one run to Sentry: one check-in and at most one event, in one trace."""

    id: str  # of the check-in, and of the trace
    monitor: Monitor | None
    scope: Any  # the run's isolation scope in Sentry; each attempt gets a fork of it
    context: contextvars.Context  # the latest attempt's, in which Sentry finds that fork
    beat_at: float = 0.0  # when the check-in of a long run is due again


def unharmed(method: Callable[P, None]) -> Callable[P, None]:
    """Log what a method raises: whatever Sentry does, the run goes on."""

    @functools.wraps(method)
    def call(*args: P.args, **options: P.kwargs) -> None:
        try:
            method(*args, **options)
        except Exception as error:
            logger.warning("Sentry could not be told: %s", _in_a_line(error))

    return call


class SentryReporter:
    """Reports runs to Sentry, one after the other, on its own thread.

    An application's before_send may block or raise, and so may the SDK: the methods only queue
    work.  The thread works in the context of the run's attempt, where the SDK keeps the scope with
    its tags and trace, and the exception that it last reported.
    """

    QUEUED = 1000  # reports that may wait; further ones are dropped, with a warning
    BURST = 50  # reports between two flushes: the SDK holds 100, and silently drops the rest
    FACTS = ("id", "reason", "scheduled_for", "started_at", "runner", "attempt", "count", "note")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sdk: Any = None  # None: nothing is reported
        self._scopes: Any = None  # the SDK's module
        self._queue = queue.Queue[tuple[contextvars.Context, Action] | None](self.QUEUED)
        self._monitors: dict[str, Monitor | None] = {}  # by the key of each task that is reported
        self._reports: dict[str, Report] = {}  # by run id, until the run's end is reported
        self._warned: set[str] = set()

    def start(self) -> None:
        """Start the thread; raises ConfigurationError without the package or a DSN.

        With SENTRY_DSN set, the application may call sentry_sdk.init() later.  With an SDK that is
        older than 2.0 or unknown, nothing is reported here: the SDK's own logging integration
        sends logged failures.
        """
        try:
            sdk = import_sentry_sdk()
            if _transport(sdk) is None and not os.environ.get("SENTRY_DSN"):
                raise ConfigurationError(
                    "Sentry is enabled and has no DSN; call sentry_sdk.init(dsn=...) before"
                    " initialize(), or set SENTRY_DSN"
                )
            self._scopes = importlib.import_module("sentry_sdk.scope")
            # The logging integration would send an outcome's line as a second event.
            logs = importlib.import_module("sentry_sdk.integrations.logging")
            logs.ignore_logger(outcome_logger.name)
        except ConfigurationError:
            raise
        except Exception as error:
            logger.warning(
                "Sentry gets failures as its SDK logs them, and no check-ins; install"
                " sentry-sdk 2 or later (%s)",
                _in_a_line(error),
            )
            return
        self._sdk = sdk
        threading.Thread(target=self._work, name="housekeeper-sentry", daemon=True).start()

    def register(self, key: str, task: Task, trigger: Trigger | None) -> None:
        """Make the monitor of a task, or forget it."""
        self._monitors.pop(key, None)
        if self._sdk is None or task.sentry is False:
            return
        self._monitors[key] = None
        if trigger is not None:
            try:
                self._monitors[key] = make_monitor(task, key, trigger)
            except ConfigurationError as error:
                logger.info("Task %s has no monitor in Sentry: %s", task.name, error)

    @unharmed
    def started(self, run: LiveRun) -> None:
        """Open the check-in of a run that was claimed for its tick; other runs have none."""
        if self._sdk is None or run.definition.sentry is False:
            return
        scheduled = run.reason is Reason.SCHEDULE
        report = self._report(run, self._monitors.get(run.key) if scheduled else None)
        self._reports[run.id] = report
        self._check_in(report, "in_progress")

    def _report(self, run: Run, monitor: Monitor | None) -> Report:
        # From the run's id: a process that finds it crashed ends this check-in, in this trace.
        name = digest_of(run.id)[:32]
        # Not a fork of the current scope: it may be of the request that started this process.
        scope = self._scopes.Scope()
        scope.generate_propagation_context({"sentry-trace": f"{name}-{name[:16]}"})
        scope.set_tag("housekeeper.task", run.task)
        scope.set_tag("housekeeper.reason", run.reason.value)
        scope.set_context("housekeeper", self._facts(run))
        if monitor is not None:
            scope.set_context("monitor", {"slug": monitor.slug})
        context = contextvars.Context()
        context.run(self._scopes.Scope.set_isolation_scope, scope)
        return Report(id=name, monitor=monitor, scope=scope, context=context)

    def _facts(self, run: Run) -> dict[str, object]:
        values = run.as_dict()
        return {name: values[name] for name in self.FACTS if values[name] not in (None, "")}

    def _check_in(self, report: Report, status: str, duration: float | None = None) -> None:
        monitor = report.monitor
        if monitor is None:
            return
        # Three times within the runtime that Sentry allows.
        every = cast(int, monitor.config["max_runtime"]) * 60 / 3
        report.beat_at = self._clock.monotonic() + every
        send = functools.partial(
            self._sdk.crons.capture_checkin,
            monitor_slug=monitor.slug,
            check_in_id=report.id,
            status=status,
            duration=duration,
            monitor_config=monitor.config,
        )
        self._put(report.context, send)

    def _put(self, context: contextvars.Context, work: Action) -> None:
        try:
            self._queue.put_nowait((context, work))
        except queue.Full:
            self._warn_once("Sentry does not keep up; reports are dropped")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text)

    def around(self, run: LiveRun) -> AbstractContextManager[None]:
        """Give an attempt its own isolation scope, in the run's trace."""
        report = self._reports.get(run.id)
        return contextlib.nullcontext() if report is None else self._scoped(report)

    @contextlib.contextmanager
    def _scoped(self, report: Report) -> Iterator[None]:
        with ExitStack() as scopes:
            try:
                current = self._scopes.Scope(ty=self._scopes.ScopeType.CURRENT)
                scopes.enter_context(self._scopes.use_isolation_scope(report.scope.fork()))
                scopes.enter_context(self._scopes.use_scope(current))
            except Exception as error:
                logger.warning("Sentry could not be told: %s", _in_a_line(error))
            yield
            report.context = contextvars.copy_context()

    @unharmed
    def beat(self, runs: Iterable[LiveRun]) -> None:
        """Extend the check-ins of long runs; report runs that their timeout could not end."""
        for run in runs:
            report = self._reports.get(run.id)
            if report is None:
                continue
            if run.stop_asked_at is None:
                if report.monitor and self._clock.monotonic() >= report.beat_at:
                    self._check_in(report, "in_progress")
            elif run.stop_reason == Status.TIMED_OUT and run.attempt > run.definition.retries:
                asked = (self._clock.now() - run.stop_asked_at).total_seconds()
                # Otherwise a run that hangs for ever would never be reported.
                if asked > TERM_TO_KILL:
                    self._end(run, "did not end after its timeout")

    @unharmed
    def ended(self, run: LiveRun, *, abandoned: bool = False) -> None:
        """Close the check-in of a run whose outcome is on record; send a failure as an event."""
        if abandoned:
            self._end(run, "was abandoned")
        elif run.status in (Status.FAILED, Status.TIMED_OUT):
            self._end(run, run.status.value, run.exception)
        else:
            # A cancelled run did not do its work, so its check-in is an error; but someone asked
            # for that, so there is no event.
            self._end(run, "", failed=run.status not in (Status.SUCCEEDED, Status.SKIPPED))

    def _end(
        self,
        run: LiveRun,
        event: str,
        exception: BaseException | None = None,
        *,
        failed: bool = True,
    ) -> None:
        """Report the end of a run, once; `event` says what happened, empty for no event."""
        report = self._reports.pop(run.id, None)
        if report is None:
            return
        if event:
            self._send_event(report, run, event, exception)
        started = run.started_at or self._clock.now()
        lasted = ((run.finished_at or self._clock.now()) - started).total_seconds()
        self._check_in(report, "error" if failed else "ok", max(0.0, lasted))

    def _send_event(
        self, report: Report, run: Run, event: str, exception: BaseException | None = None
    ) -> None:
        # The SDK cuts texts after 1,024 characters, and a stack says most at its end.
        facts = {**self._facts(run), "error": run.error[-1000:]}

        def send() -> None:
            self._scopes.Scope.get_isolation_scope().set_context("housekeeper", facts)
            if exception is not None:
                self._sdk.capture_exception(exception)
            else:
                self._sdk.capture_message(f"Task {run.task} {event}", level="error")

        self._put(report.context, send)

    def forget(self, run: LiveRun) -> None:
        """Drop a run that another process has found crashed and reported."""
        self._reports.pop(run.id, None)

    @unharmed
    def missed(self, key: str, row: Run) -> None:
        """Report missed ticks."""
        monitor = self._monitors.get(key)
        if monitor is not None:
            self._check_in(self._report(row, monitor), "error")

    @unharmed
    def crashed(self, key: str, run: Run) -> None:
        """Report a run whose process has died, unless its task belongs to another host only."""
        if key in self._monitors:
            monitor = self._monitors[key] if run.reason is Reason.SCHEDULE else None
            report = self._report(run, monitor)
            self._send_event(report, run, "crashed")
            self._check_in(report, "error")

    def close(self, limit: float) -> None:
        """Send the queued reports within `limit` seconds, and end the thread."""
        if self._sdk is None:
            return
        sent, until = threading.Event(), self._clock.monotonic() + limit

        def flush() -> None:
            self._sdk.flush(timeout=limit)
            sent.set()

        self._put(contextvars.Context(), flush)
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        while not sent.is_set() and (left := until - self._clock.monotonic()) > 0:
            self._clock.wait(sent, left)

    def _work(self) -> None:
        number = 0
        while (item := self._queue.get()) is not None:
            context, work = item
            number += 1
            try:
                if _transport(self._sdk) is None:
                    self._warn_once("Sentry is enabled, but sentry_sdk.init() was not called")
                context.run(work)
                if number % self.BURST == 0:
                    self._sdk.flush(timeout=10.0)
            except BaseException as error:
                logger.warning("Sentry could not be told: %s", _in_a_line(error))


def _transport(sdk: Any) -> object:
    """Return the SDK's transport; None before sentry_sdk.init() or without a DSN."""
    return getattr(sdk.get_client(), "transport", None)


# ================================================================================================
# 9. Metrics: the counters of one process.
# ================================================================================================


class Histogram:
    """A histogram of seconds, as Prometheus counts them.

    The bounds ascend, and the last one is infinite.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def samples(self, **labels: str) -> list[Sample]:
        """Return its samples; a bucket includes the counts of those below it."""
        names = [f"{bound:g}" for bound in self.bounds[:-1]] + ["+Inf"]
        sums = list(itertools.accumulate(self.counts))
        buckets = [
            Sample(count, {**labels, "le": name}, "_bucket")
            for name, count in zip(names, sums, strict=True)
        ]
        return [*buckets, Sample(self.total, labels, "_sum"), Sample(sums[-1], labels, "_count")]


class Sample(NamedTuple):
    """One line of a metric."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Metric(NamedTuple):
    """A metric with its samples, as Prometheus reads it."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]

    def lines(self) -> Iterator[str]:
        """Yield its lines in Prometheus' text format."""
        yield f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
        for value, labels, suffix in self.samples:
            pairs = ",".join(
                f'{name}="{text.translate(escapes)}"' for name, text in labels.items()
            )
            yield f"{self.name}{suffix}{f'{{{pairs}}}' if pairs else ''} {value!r}\n"


class Tally:
    """The outcomes of one task's runs."""

    DURATIONS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, math.inf)  # seconds
    DELAYS = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, math.inf)  # seconds

    __slots__ = ("lateness", "lock", "outcomes", "seconds")

    def __init__(self) -> None:
        # Guards the counts below.
        self.lock = threading.Lock()
        self.outcomes: Counter[Status] = Counter()
        self.seconds = Histogram(self.DURATIONS)
        self.lateness = Histogram(self.DELAYS)


class Metrics:
    """The outcomes of the runs of this process since its start."""

    def __init__(self) -> None:
        # One lock per task, because workers would queue for a single one at the end of each run.
        self._tallies: dict[str, Tally] = {}

    def ended(self, run: Run) -> None:
        """Count a run that has ended, or a row of ticks that were skipped or missed."""
        tally = self._tallies.get(run.task) or self._tallies.setdefault(run.task, Tally())
        with tally.lock:
            tally.outcomes[run.status] += run.count
            if run.duration is not None:
                tally.seconds.observe(run.duration)
                if run.started_at is not None and run.scheduled_for is not None:
                    late = (run.started_at - run.scheduled_for).total_seconds()
                    tally.lateness.observe(max(0.0, late))

    def read(self) -> list[Metric]:
        """Return the counts as metrics."""
        outcomes: list[Sample] = []
        seconds: list[Sample] = []
        lateness = Histogram(Tally.DELAYS)
        for task, tally in list(self._tallies.items()):
            with tally.lock:
                outcomes += [
                    Sample(number, {"task": task, "status": status.value})
                    for status, number in tally.outcomes.items()
                ]
                seconds += tally.seconds.samples(task=task)
                lateness.add(tally.lateness)
        kind, late = "histogram", lateness.samples()
        return [
            Metric("housekeeper_runs_total", "counter", "Ended runs by outcome.", outcomes),
            Metric("housekeeper_run_seconds", kind, "Durations of runs.", seconds),
            Metric("housekeeper_lateness_seconds", kind, "Delays of starts.", late),
        ]


# ================================================================================================
# 10. Processes: places and births, servers, forks and the interpreter's exit.
# ================================================================================================


OFF = ("0", "false", "no", "off")  # values of a variable that switch something off


def variable(name: str) -> str:
    """Return an environment variable without what secrets and env files may add.

    That is blanks, a line end, or quotes around the whole of it.
    """
    text = os.environ.get(name, "").strip()
    if len(text) > 1 and text[0] in "'\"" and text.find(text[0], 1) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def threads_of_this_process() -> tuple[int, str]:
    """Return what threads and locks belong to: those from before a fork, or from before gevent or
    eventlet replaced them, are of no use to this process any more."""
    return getpid(), green_threads()


def place_of_this_process() -> str:
    """Return a text that identifies this boot of the machine, and its namespace of process ids.

    Another container may have the same host name, and another process the same pid.  "" where
    there is no /proc.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


# Runners: who is there, and who was.


def is_here(row: RunnerRow) -> bool:
    """Tell whether a runner is or was a process of this very place."""
    return row.place != "" and row.place == place_of_this_process()


def is_dead(row: RunnerRow) -> bool:
    """Tell whether a runner's process is known to have ended."""
    return is_here(row) and birth_of(row.pid) != row.birth


def is_alive(row: RunnerRow, now: datetime) -> bool:
    """Tell whether a runner has been seen lately, and is not known to have ended."""
    beat = cast(datetime, row.beat_at)
    seen = abs((now - beat).total_seconds()) <= SEEN_WITHIN
    return row.stopped_at is None and seen and not is_dead(row)


def lives_here(row: RunnerRow) -> bool:
    """Tell whether a runner's process is alive, whether or not it reaches the ledger."""
    return row.stopped_at is None and is_here(row) and birth_of(row.pid) == row.birth


def was_there(row: RunnerRow, instant: datetime) -> bool:
    """Tell whether a runner was at work at an instant, judging by its beats."""
    begun, beat = cast(datetime, row.started_at), cast(datetime, row.beat_at)
    end = row.stopped_at or beat + (0.0 if is_dead(row) else SEEN_WITHIN) * SECOND
    return begun <= instant and (instant <= end or lives_here(row))


def absence_at(rows: Iterable[RunnerRow], instant: datetime) -> str:
    """Say between which times no scheduler was there, around an instant; "" when one was."""
    known = list(rows)
    if any(was_there(row, instant) for row in known):
        return ""
    ends = [row.stopped_at or row.beat_at for row in known]
    last = max((end for end in ends if end and end < instant), default=None)
    begins = [row.started_at for row in known if row.started_at and row.started_at > instant]
    first = f"{min(begins):%Y-%m-%d %H:%M:%S} UTC" if begins else ""
    if last is None:
        return f"no scheduler was there {f'before {first}' if first else 'at any time'}"
    until = f"to {first}" if first else "on"
    return f"no scheduler was there from {last:%Y-%m-%d %H:%M:%S} UTC {until}"


def silence_of(row: RunnerRow) -> str:
    """Say that a runner is alive, but does not reach the ledger."""
    since = f"{row.beat_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{row.runner} is alive, but has given the ledger no sign of life since {since}."


# Releases.


def release_folder_warning(path: str) -> str:
    """Return a warning when a file lies in a release folder, as Capistrano makes it; or "".

    The next deployment has another folder behind the same link, and so another file.
    """
    for folder in Path(path).resolve().parents if path else ():
        is_release = folder.parent.name == "releases" or re.fullmatch("[0-9]{8,}.*", folder.name)
        beside = [*folder.parent.glob("*"), *folder.parent.parent.glob("*")] if is_release else []
        for link in beside:
            if link.is_symlink() and os.path.realpath(link) == str(folder):
                return (
                    f"Ledger {path} lies in a release's folder, {folder} behind the link"
                    f" {link}: the next release begins a new ledger, forgets pauses, and runs"
                    " ticks again; set ledger= to a place that stays, such as /var/lib"
                )
    return ""


_alive: weakref.WeakSet[Life] = weakref.WeakSet()
_watching = False
_held_for_fork: list[threading.Lock] = []
noticing_fork = threading.Lock()  # held while a process finds out that it was forked
discovering = threading.RLock()  # held while task files load, which may themselves ask for tasks


def watch_process(watched: Life) -> None:
    """Stop a Housekeeper before the interpreter exits, and reset it after a fork."""
    global _watching
    _alive.add(watched)
    if _watching:
        return
    _watching = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
    # concurrent.futures registers a callback here as well, which joins its threads without limit;
    # the last one registered runs first, and that module is imported above.
    register = getattr(threading, "_register_atexit", atexit.register)
    with contextlib.suppress(RuntimeError):  # The interpreter exits already.
        register(leave_process)
    atexit.register(leave_process)  # Where threading's own are not called: by eventlet.


def leave_process() -> None:
    """Shut down every Housekeeper, and let the interpreter exit even if a worker hangs.

    The pools' threads are daemons, because the timer thread made them, and so are those of pools
    that a task makes.  Only concurrent.futures would join them; it takes them from this private
    mapping.
    """
    hanging = [watched for watched in list(_alive) if not guarded(watched.shutdown)]
    threads = getattr(concurrent.futures.thread, "_threads_queues", {})
    for thread in list(threads):
        if thread.name.startswith("housekeeper-") or (hanging and thread.daemon):
            del threads[thread]


# Who schedules.

_held_back = False


@contextlib.contextmanager
def holding_back() -> Iterator[None]:
    """Import an application without starting it: initialize() does nothing meanwhile."""
    global _held_back
    _held_back = True
    try:
        yield
    finally:
        _held_back = False


def held_back() -> bool:
    """Tell whether the application is only imported and must not start.

    A task file imports it for its functions, and a process spawned by multiprocessing the main
    program for its names.
    """
    spawned: Any = sys.modules.get("multiprocessing.process")
    inheriting = spawned is not None and getattr(spawned.current_process(), "_inheriting", False)
    return _held_back or inheriting or task_made.get() is not None


# A scheduling process names itself to its children in this variable: a task's command that imports
# and initializes the application must not become a scheduler.  The variable decides nothing else:
# which process runs a tick is decided by its claim.
SCHEDULER = "HOUSEKEEPER_SCHEDULER"
# Read once: what this process sets is for its children.  Forks share it, and are not affected.
_told_by_parent = os.environ.get(SCHEDULER, "")


def scheduling_parent() -> int | None:
    """Return the pid of a live scheduler that started this process; or None."""
    number, _, reloaded = _told_by_parent.partition(":")
    pid = int(number) if re.fullmatch("[1-9][0-9]{0,8}", number) else getpid()
    if pid == getpid() or not _lives(pid):
        return None
    # A reloader's child schedules, although the waiting parent was initialized as well.
    return None if _is_reloaded() and not reloaded else pid


def tell_children() -> None:
    """Name this process to its future children: it schedules, or runs a task by hand."""
    os.environ[SCHEDULER] = f"{getpid()}{':reloaded' if _is_reloaded() else ''}"


def tell_children_no_more() -> None:
    """Stop naming this process once nothing in it schedules."""
    told = os.environ.get(SCHEDULER, "").partition(":")[0]
    if told == str(getpid()) and not any(each.schedules for each in _alive):
        del os.environ[SCHEDULER]


def _is_reloaded() -> bool:
    werkzeug, django, bottle = "WERKZEUG_RUN_MAIN", "RUN_MAIN", "BOTTLE_CHILD"
    return any(os.environ.get(name) == "true" for name in (werkzeug, django, bottle))


def _lives(pid: int) -> bool:
    if os.name == "nt":  # On Windows os.kill() would send Ctrl-C.
        return pid == os.getppid()
    if os.path.exists("/proc/self/stat"):
        return birth_of(pid) != ""  # A zombie is dead.
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def waits_for_reloaded_child() -> bool:
    """Tell whether this process only waits for the child of a development server's reloader.

    It has the code that it started with.  Werkzeug and Django wait in functions of the same name.
    """
    if sys.modules.keys().isdisjoint(("werkzeug._reloader", "django.utils.autoreload")):
        return False
    frame = frame_of(threading.main_thread().ident)
    while frame is not None and frame.f_code.co_name != "restart_with_reloader":
        frame = frame.f_back
    return frame is not None


def start_put_off() -> str:
    """Say where or when to start, when that is not here and now; else "".

    The workers that a server forks lose the threads of the process that forks them: uWSGI's have
    hung on them (10 of 72 starts).  And gunicorn's arbiter takes the exit status of every child,
    commands included.
    """
    uwsgi = sys.modules.get("uwsgi")
    if hasattr(uwsgi, "worker_id"):
        return _start_put_off_by_uwsgi(cast(Any, uwsgi))
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "gunicorn.arbiter":
        frame = frame.f_back
    if frame is None:
        return ""
    # A worker also has its arbiter on its stack, with another pid; one not started yet has none.
    pid = getattr(frame.f_locals.get("self"), "pid", None)
    return "in gunicorn's arbiter, but in each of its workers" if pid in (None, getpid()) else ""


def _start_put_off_by_uwsgi(uwsgi: Any) -> str:
    if uwsgi.worker_id() == 0 and (uwsgi.masterpid() != 0 or uwsgi.numproc > 1):
        earlier = getattr(uwsgi, "post_fork_hook", None)
        uwsgi.post_fork_hook = functools.partial(_after_uwsgi_fork, uwsgi, earlier)
        return "in uWSGI's master, but in each of its workers"
    options = getattr(uwsgi, "opt", {})
    to_patch = "gevent-monkey-patch" in options and not {"gevent", "loop"}.isdisjoint(options)
    if to_patch and not green_threads():
        # Done once the application is loaded: threads from before would stand still.
        importlib.import_module("gevent.events").subscribers.append(_after_patch)
        return "before uWSGI's gevent-monkey-patch, but after it"
    if not getattr(uwsgi, "has_threads", True):
        logger.warning(
            "Housekeeper's threads stand still between requests, because uWSGI runs without"
            " threads: set enable-threads = true"
        )
    return ""


# Forks.


def _after_uwsgi_fork(uwsgi: Any, earlier: Callable[[], object] | None) -> None:
    if earlier is not None:
        earlier()
    if uwsgi.worker_id() != 0:  # Mules and spoolers are forked too.
        _wake_all("after uWSGI's fork")


def _after_patch(event: object) -> None:
    if type(event).__name__ == "GeventDidPatchAllEvent":
        _wake_all("after gevent's patch")


def _wake_all(how: str) -> None:
    for watched in list(_alive):
        watched.wake(how=how)


def _before_fork() -> None:
    """Wait until the ledgers' statements have ended: SQLite has its own locks, in C.

    A lock held at the fork stays held in the child for ever, and the child's first statement hangs
    (seen within 25 forks beside a busy ledger in 4 of 8 tries).
    """
    # A set, because several may share a ledger.
    ledgers = {each.ledger for each in _alive if isinstance(each.ledger, SqliteLedger)}
    for ledger in ledgers:
        if ledger.lock.acquire(timeout=CALL_LIMIT):
            _held_for_fork.append(ledger.lock)
    _looking.acquire()  # Otherwise the child could lose garbage collection for good.


def _after_fork_in_parent() -> None:
    _looking.release()
    while _held_for_fork:
        _held_for_fork.pop().release()


def _after_fork_in_child() -> None:
    global noticing_fork, discovering, _looking
    _held_for_fork.clear()
    # The parent's locks may be held for ever.
    noticing_fork, discovering, _looking = threading.Lock(), threading.RLock(), threading.RLock()
    forker = sys._getframe(1)  # the frame that called os.fork()
    module = forker.f_globals.get("__name__")
    # One forks for a function, the other for a single request.
    worker = module not in ("multiprocessing.popen_fork", "socketserver")
    for watched in _alive:
        watched.after_fork_in_child(worker=worker)
    if module == "gunicorn.arbiter" and forker.f_code.co_name == "spawn_worker":
        _after_gunicorn_fork(forker.f_locals.get("worker"))


def _after_gunicorn_fork(worker: Any) -> None:
    """Start in gunicorn's worker once it is set up, and has given up root's rights."""
    earlier = worker.cfg.post_worker_init

    def post_worker_init(worker: object) -> None:
        earlier(worker)
        _wake_all("after gunicorn's fork")

    worker.cfg.set("post_worker_init", post_worker_init)


# ================================================================================================
# 11. Discovery: the files in tasks/.
# ================================================================================================

# Task files and their helpers are modules of this package, whose path is the tasks folder.  That
# is not on sys.path, so that no task file hides a module of the application or of a library.
PACKAGE = "housekeeper_tasks"
OURS = re.compile(rf"{PACKAGE}(_[0-9]+)?(\..+)?")
# Tells processes spawned by multiprocessing, which may get task files' functions, the folders.
FOLDERS = "HOUSEKEEPER_TASK_FOLDERS"


@dataclass(slots=True)
class Discovered:
    """The contents of a tasks folder: tasks by name with their files, and problems."""

    tasks: dict[str, tuple[Task, Path]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)  # the files that did not load
    unreadable: bool = False  # the folder itself; its files are unknown
    stamps: dict[str, int] = field(default_factory=dict)  # see stamps_of()

    def reason(self, name: str) -> str | None:
        """Return why the file with a task's name did not load; None when it did."""
        stem = name.replace("-", "_")
        files = [str(path) for path in self.broken if path.stem.replace("-", "_") == stem]
        return next((text for text in self.problems if text.startswith(tuple(files))), None)


def discover_tasks(folder: Path) -> Discovered:
    """Load the task files of a folder; files whose names start with ``_`` or ``.`` are helpers.

    Each Task counts that a file's own code makes while it loads, wherever the file keeps it (even
    the base of a `dataclasses.replace`), or that it imports, unless from a task file.

    A file that does not load is a problem on the list, with file and line; the others load.
    """
    found, folder = Discovered(stamps=stamps_of(folder)), folder.absolute()
    try:
        importable_as_housekeeper()
        files = sorted(each for each in folder.iterdir() if re.match(r"[^._].*\.py$", each.name))
    except (OSError, ConfigurationError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        found.problems.append(f"{folder}: the tasks folder cannot be used ({reason})")
        found.unreadable = True
        return found
    if strangers := [path for path in files if _is_of_another_program(path)]:
        files = [path for path in files if path not in strangers]
        found.broken.update(strangers)
        names = ", ".join([path.name for path in strangers[:3]] + ["..."] * (len(strangers) > 3))
        found.problems.append(
            f"{folder}: not loaded, because they never name housekeeper: {names}; begin a helper's"
            " name with _, and if another program, such as Celery, owns the folder, pass another"
            " one as tasks_dir"
        )
    package, before = _make_package(folder)
    modules = {f"{package}.{path.stem}": path for path in files}
    makers: dict[Task, str] = {}
    token = task_made.set(functools.partial(_note_maker, makers))
    try:
        for name, path in modules.items():
            _load_into(found, name, modules, makers)
            if path in found.broken and name in before:
                # Its tasks stay as they were, in their old module.
                sys.modules.setdefault(name, before[name])
    finally:
        task_made.reset(token)
    return found


def stamps_of(folder: Path) -> dict[str, int]:
    """Return the modification time of each Python file of a folder, helpers included."""
    stamps = {}
    for path in folder.glob("*.py"):
        with contextlib.suppress(OSError):  # A link that leads nowhere, such as an editor's lock.
            stamps[path.name] = path.stat().st_mtime_ns
    return stamps


def _is_of_another_program(path: Path) -> bool:
    try:
        # Nobody may ever write to a pipe; and a folder has no source.
        source = path.read_bytes() if path.is_file() else b""
    except OSError:
        return False  # The import reports what is wrong.
    return b"import" in source and b"housekeeper" not in source


def importable_as_housekeeper() -> None:
    """Make ``import housekeeper`` in task files return this very module, whatever its name.

    Raises ConfigurationError when another module has that name.
    """
    this = sys.modules[__name__]
    other = sys.modules.setdefault("housekeeper", this)
    if other is not this and getattr(other, "Task", None) is not Task:
        place = getattr(other, "__file__", "somewhere")
        raise ConfigurationError(
            f"the module name 'housekeeper' is taken by {place}; task files could not import this"
            f" one ({__file__}), so rename or remove the other"
        )


def _make_package(folder: Path) -> tuple[str, dict[str, ModuleType]]:
    """Make a folder's package again; return its name and its old modules."""
    place, name, numbers = [str(folder)], PACKAGE, itertools.count(2)
    # Another Housekeeper of this process may have its own folder.
    while name in sys.modules and getattr(sys.modules[name], "__path__", None) != place:
        name = f"{PACKAGE}_{next(numbers)}"
    before = {each: sys.modules[each] for each in list(sys.modules) if each.startswith(f"{name}.")}
    for each in before:
        del sys.modules[each]
    package = ModuleType(name)
    package.__path__ = place
    sys.modules[name] = package
    if not any(isinstance(finder, _TaskFinder) for finder in sys.meta_path):
        sys.meta_path[:] = [_TaskFinder(), *sys.meta_path, _TaskFinder(beside=True)]
    os.environ[FOLDERS] = os.pathsep.join(_folders())
    importlib.invalidate_caches()
    return name, before


def _folders() -> list[str]:
    packages = [name for name in list(sys.modules) if "." not in name and OURS.fullmatch(name)]
    return [place for name in packages for place in getattr(sys.modules[name], "__path__", ())]


class _TaskFinder:
    """Finds modules in tasks folders and, as the last finder, those found only beside them.

    As root it refuses modules there that a task imports and others can write.
    """

    def __init__(self, *, beside: bool = False) -> None:
        self._beside = beside

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a module's spec, for ``sys.meta_path``; raises ConfigurationError."""
        spec, ours = None, path is not None and OURS.fullmatch(name)
        for_a_task = task_made.get() is not None or _current_run.get() is not None
        if self._beside and path is None:
            spec = PathFinder.find_spec(name, [os.path.dirname(each) for each in _folders()])
        elif ours or (for_a_task and _is_root()):
            spec = PathFinder.find_spec(name, path)
        if ours and spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader, spec.cached = _TaskLoader(name, spec.loader.path), None
        if spec is not None and spec.origin is not None:
            origin, real = Path(spec.origin), Path(spec.origin).resolve()
            if ours or any(
                real.is_relative_to(Path(each).resolve().parent) for each in _folders()
            ):
                _refuse_writable_by_others(origin)
                _refuse_writable_by_others(Path(spec.cached or origin))
        return spec if ours or self._beside else None


class _TaskLoader(SourceFileLoader):
    """Loads a module of a tasks folder from its source.

    A compiled copy is compared with its source only by second and size, and misses a quick edit.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Compile the module, reading ``import _helper`` as ``from . import _helper``."""
        tree, package = ast.parse(self.get_data(self.path), self.path), fullname.partition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                node.names = [each for alias in node.names for each in _qualify(alias, package)]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                node.module = f"{package}." * _is_in(package, node.module) + node.module
        return compile(tree, self.path, "exec", dont_inherit=True)


def _qualify(alias: ast.alias, package: str) -> list[ast.alias]:
    """Return the imports of a folder's module under the name that `alias` binds."""
    if not _is_in(package, alias.name):
        return [alias]
    top = alias.name.partition(".")[0]
    names = [ast.alias(f"{package}.{alias.name}", alias.asname or top)]
    if not alias.asname:
        names.append(ast.alias(f"{package}.{top}", top))
    return [ast.copy_location(each, alias) for each in names]


def _is_in(package: str, name: str) -> bool:
    """Tell whether a plain name means a module of the folder: a helper, or one found only here."""
    top = name.partition(".")[0]
    place = os.path.join(sys.modules[package].__path__[0], top)
    if not os.path.isfile(f"{place}.py") and not os.path.isdir(place):
        return False
    if top.startswith("_"):
        return top not in sys.stdlib_module_names
    return top not in sys.modules and importlib.util.find_spec(top) is None


def _note_maker(makers: dict[Task, str], task: Task) -> None:
    """Note which module makes a task: the one being imported is the innermost <module>."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is not None:
        makers[task] = frame.f_globals.get("__name__", "")


def _load_into(
    found: Discovered, name: str, files: Mapping[str, Path], makers: Mapping[Task, str]
) -> None:
    path = files[name]
    try:
        tasks = _load(name, files, makers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        ours = isinstance(error, ConfigurationError)
        problem = str(error) if ours else f"it does not import ({_in_a_line(error)})"
        found.problems.append(f"{path}{_line_of(error, path)}: {problem}")
        found.broken.add(path)
        return
    for task in tasks:
        first, place = found.tasks.setdefault(task.name, (task, path))
        if first is not task:
            found.problems.append(f"{path}: the task name {task.name!r} is taken by {place}")


def _load(name: str, files: Mapping[str, Path], makers: Mapping[Task, str]) -> Iterable[Task]:
    """Import a file; return the tasks that it makes, or imports from elsewhere."""
    module, path = importlib.import_module(name), files[name]
    if module.__file__ != str(path):
        raise ConfigurationError(f"it is hidden by {module.__file__}; rename one of them")
    made = [task for task, maker in makers.items() if maker == name]
    # Not isinstance(), which asks a lazy object for its class, and so may open a database.
    named = [each for each in vars(module).values() if issubclass(type(each), Task)]
    tasks = dict.fromkeys([*made, *(task for task in named if makers.get(task) not in files)])
    if not tasks:
        raise ConfigurationError(
            f"it holds no Task; write task = Task(...), or name a helper _{path.name}"
        )
    return tasks


def _line_of(error: BaseException, path: Path) -> str:
    """Return ``:line`` of the place in a file where an error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _refuse_writable_by_others(path: Path) -> None:
    """Refuse, as root, a file that another user could change.

    Each folder and link on the way is checked before what lies below it, from the root down.  So
    only root can change it meanwhile: the file that was checked is the file that is read, now and
    later.  Raises ConfigurationError with the chmod or chown that fixes it.
    """
    place, ahead = Path(path.anchor), list(reversed(path.absolute().parts))
    while ahead and _is_root():
        part = ahead.pop()
        place = place.parent if part == ".." else place / part
        if not os.path.lexists(place):
            return
        status = place.lstat()
        _refuse_place(place, status)
        if stat.S_ISLNK(status.st_mode):
            ahead += reversed(Path(os.readlink(place)).parts)
            place = place.parent


def _refuse_place(place: Path, status: os.stat_result) -> None:
    link = stat.S_ISLNK(status.st_mode)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky and not link
    # Kubernetes mounts ConfigMaps with such modes, but read-only.
    if open_to_others and not os.statvfs(place).f_flag & os.ST_RDONLY:
        problem, mend = "can be written by others", "chmod go-w"
    elif status.st_uid != 0:
        problem, mend = "belongs to another user", f"chown {'-h ' if link else ''}root"
    else:
        return
    raise ConfigurationError(
        f"{place} {problem} and would run as root; mend it with `{mend} {shlex.quote(str(place))}`"
    )


if held_back() and FOLDERS in os.environ:
    # Processes that multiprocessing spawns import the functions that they are sent.
    with contextlib.suppress(ConfigurationError):
        importable_as_housekeeper()
        for _folder in os.environ[FOLDERS].split(os.pathsep):
            _make_package(Path(_folder))


# ================================================================================================
# 12. Timer: instants and callables; it knows nothing about tasks.
# ================================================================================================

# Locks are taken in this order: discovering, noticing_fork, a life's, a task's own
# (Registration.lock), the Roster's binding, the Roster's, the Runner's, the Upkeep's, a run's
# guard, the Timer's, and last the ledger's.  Only a task's own is held while a task or a hook is
# at work, from its claim to its end; only it, the first and the binding are held during calls of
# the ledger.

CLOCK_JUMP = 1.0  # seconds of difference between wall clock and elapsed time that are no drift
STALL = 5.0  # seconds by which the loop is late after the process stood still
LONGEST_BACKOFF = 30.0  # seconds


class Timer:
    """The agenda of everything that comes due, and the thread that sleeps until then.

    Ticks follow the wall clock and delays elapsed time, in two heaps, so that a jump of the wall
    clock moves ticks but neither timeouts nor heartbeats.  Ticks that are due together are
    dispatched together; delays are called.  The thread does no I/O.
    """

    AT_ONCE = 1000  # ticks, for which the lock is held some milliseconds

    def __init__(
        self,
        clock: Clock,
        on_due: Callable[[list[tuple[datetime, Any]]], None],
        on_jump: Callable[[float], object],
        on_stall: Callable[[float], object],
    ) -> None:
        self._clock = clock
        self._on_due, self._on_jump, self._on_stall = on_due, on_jump, on_stall
        # Guards the heaps; wakes the thread.  Never held during a call.
        self._changed = threading.Condition(threading.Lock())
        self._numbers = itertools.count()  # breaks ties, and names entries
        self._ticks: list[tuple[datetime, int]] = []
        self._delays: list[tuple[float, int]] = []
        self._entries: dict[int, Any] = {}  # what is on the agenda, by the numbers in the heaps
        self._ticks_due: list[tuple[datetime, Any]] = []
        self._actions_due: deque[tuple[float, Action]] = deque()
        self._closed = False
        self._last_look: tuple[datetime, float] | None = None
        self._asleep_until = math.inf  # on the monotonic clock
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, a daemon; it makes the pools' threads, which are then daemons too.

        On a closed timer it ends at once.  Raises RuntimeError when no thread can be started.
        """
        thread = threading.Thread(target=self.run, name="housekeeper-timer", daemon=True)
        thread.start()
        self._thread = thread

    @property
    def age(self) -> float | None:
        """Seconds since the loop's last step; None before the first."""
        look = self._last_look
        return None if look is None else self._clock.monotonic() - look[1]

    def at(self, tick: datetime, payload: object) -> int:
        """Put a tick on the agenda; return its number."""
        return self._push(self._ticks, tick, payload)

    def after(self, seconds: float, work: Callable[P, object], *args: P.args) -> int:  # type: ignore[valid-type]
        """Have the thread call something after so many seconds; return the entry's number."""
        action = functools.partial(work, *args) if args else work
        return self._push(self._delays, self._clock.monotonic() + seconds, action)

    def _push(self, heap: list[Any], due: object, what: object) -> int:
        with self._changed:
            number = next(self._numbers)
            if not self._closed:
                self._entries[number] = what
                heapq.heappush(heap, (due, number))
                self._changed.notify()
            return number

    def drop(self, number: int | None) -> None:
        """Cancel an entry; its number leaves the heap when first in it, or most are cancelled."""
        if number is None:
            return
        with self._changed:
            self._entries.pop(number, None)
            if len(self._ticks) + len(self._delays) > 100 + 2 * len(self._entries):
                heaps: tuple[list[Any], ...] = (self._ticks, self._delays)
                for heap in heaps:
                    heap[:] = [each for each in heap if each[1] in self._entries]
                    heapq.heapify(heap)

    def run(self) -> None:
        """Do what is due, and sleep, until the timer is closed."""
        going_on = True
        try:
            while going_on:
                try:
                    going_on = self.step()
                except BaseException:
                    logger.exception("The loop failed, and goes on")
        finally:
            if going_on:  # Something else was raised outside of the inner try, or while it logged.
                self.start()

    def step(self) -> bool:
        """Do what is due, or wait for it; return False when the loop is to end."""
        now, elapsed = self._clock.now(), self._clock.monotonic()
        guarded(self._notice_jump, now, elapsed)
        ahead = now + LEAD
        with self._changed:
            # Kept, so that whatever is raised in between, the next step finds them.
            self._ticks_due += self._pop(self._ticks, ahead)
            self._actions_due += self._pop(self._delays, elapsed)
            if not self._ticks_due and not self._actions_due:
                if self._closed:
                    return False
                seconds = self._sleep(ahead, elapsed)
                self._asleep_until = elapsed + (math.inf if seconds is None else seconds)
                self._clock.wait(self._changed, seconds)
                return True
        self._asleep_until = elapsed
        while self._actions_due:
            guarded(self._actions_due.popleft()[1])
        if self._ticks_due:
            guarded(self._on_due, self._ticks_due)
            self._ticks_due = []
        return True

    def _pop(self, heap: list[Any], until: object) -> list[tuple[Any, Any]]:
        """Remove and return what is due, AT_ONCE entries at most."""
        due: list[tuple[Any, Any]] = []
        while heap and heap[0][0] <= until and len(due) < self.AT_ONCE:
            instant, number = heapq.heappop(heap)
            if number in self._entries:
                due.append((instant, self._entries.pop(number)))
        return due

    def _sleep(self, now: datetime, elapsed: float) -> float | None:
        """Return the seconds until the next entry comes due, or None when there is none."""
        heaps: tuple[list[Any], ...] = (self._ticks, self._delays)
        for heap in heaps:
            while heap and heap[0][1] not in self._entries:
                heapq.heappop(heap)
        waits = [(self._ticks[0][0] - now).total_seconds()] if self._ticks else []
        if self._delays:
            waits.append(self._delays[0][0] - elapsed)
        return max(0.0, min(waits)) if waits else None

    def _notice_jump(self, now: datetime, elapsed: float) -> None:
        before, self._last_look = self._last_look, (now, elapsed)
        if before is None:
            return
        jump = (now - before[0]).total_seconds() - (elapsed - before[1])
        if abs(jump) >= CLOCK_JUMP:
            logger.warning("Clock jumped by %+.1f s, or the machine was suspended", jump)
            self._on_jump(jump)
        elif (late := elapsed - self._asleep_until) >= STALL:
            self._on_stall(late)

    def close(self, limit: float) -> None:
        """Clear the agenda, and wait at most `limit` seconds for the thread."""
        with self._changed:
            self._closed = True
            self._ticks.clear()
            self._delays.clear()
            self._entries.clear()
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(limit)


A_WHILE = timedelta(seconds=10)


class Annals:
    """The recent obstacles of this process, for the notes of missed ticks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.since = clock.now()  # This process did not exist before.
        self._known: deque[tuple[datetime, datetime, str]] = deque(maxlen=100)
        self._open: dict[str, tuple[datetime, str]] = {}  # obstacles that persist

    def begin(self, what: str, detail: str = "") -> None:
        """Note that an obstacle has started, unless it is known; `detail` says more about it."""
        self._open.setdefault(what, (self._clock.now(), f" ({detail})" if detail else ""))

    def end(self, what: str) -> None:
        """Note that an obstacle is over; one of less than a second has delayed no tick."""
        if (known := self._open.pop(what, None)) is not None:
            began, detail = known
            now = self._clock.now()
            if now - began >= SECOND:
                self.add(what + detail, began, now)

    def add(self, what: str, began: datetime, ended: datetime) -> None:
        """Note an obstacle from one instant to another."""
        self._known.append((began, ended, what))

    def between(self, first: datetime, last: datetime) -> str:
        """Say which obstacle there was between two instants; "" when there was none."""
        for what, (began, detail) in list(self._open.items()):
            if began <= last:
                return f"{what}{detail} from {began:%Y-%m-%d %H:%M:%S} UTC on"
        for began, ended, what in reversed(list(self._known)):
            if began <= last and ended >= first:
                return f"{what} from {began:%Y-%m-%d %H:%M:%S} to {ended:%H:%M:%S} UTC"
        return ""

    def now(self, *, of_ledger: bool = False) -> list[str]:
        """Say what has been the matter for a while: with the ledger, or all else.

        Whoever reads all else in the ledger has reached it.
        """
        a_while_ago, known = self._clock.now() - A_WHILE, dict(self._open)
        if LEDGER_AWAY in known:
            known.pop(NO_RUNS, None)
        return [
            f"Since {began:%Y-%m-%d %H:%M:%S} UTC {what}{detail}."
            for what, (began, detail) in known.items()
            if began <= a_while_ago
            and (what in (LEDGER_AWAY, NO_RUNS) if of_ledger else what != LEDGER_AWAY)
        ]


LEDGER_AWAY = "the ledger was away"
NO_RUNS = "the ledger took no runs"  # It may take beats, and so be reached.


class Backlog:
    """A queue of ledger work that can wait, done on its own thread, one piece after the other."""

    def __init__(self, timer: Timer, annals: Annals) -> None:
        self._timer = timer
        self._annals = annals
        self._failures = 0
        self._pool: Executor = ThreadPoolExecutor(1, "housekeeper-ledger")

    def soon(self, work: Callable[..., object], *args: object) -> None:
        """Queue work for the thread."""
        with contextlib.suppress(RuntimeError):  # It is closed, or no thread can be started.
            self._pool.submit(guarded, work, *args)

    def pause_after(self, what: str, error: Exception, obstacle: str = LEDGER_AWAY) -> float:
        """Log a failure of the ledger; return the pause, which doubles while failures go on.

        obstacle: lasts until worked() is called with it.
        """
        self._failures += 1
        pause = min(LONGEST_BACKOFF, 2.0 ** min(self._failures - 1, 10))
        reason = first_line(error)
        self._annals.begin(obstacle, reason.partition(": ")[2] or reason)
        logger.warning("%s, trying again in %.0f s: %s", what, pause, reason)
        return pause

    def worked(self, obstacle: str = LEDGER_AWAY) -> None:
        """Note that the ledger has answered."""
        self._failures = 0
        self._annals.end(obstacle)

    def close(self) -> None:
        """Drop the queued work."""
        self._pool.shutdown(wait=False, cancel_futures=True)


# ================================================================================================
# 13. Roster: the tasks of this process, and their next ticks.
# ================================================================================================

NEVER = datetime.max.replace(tzinfo=UTC)
BOUND_AT_ONCE = 1000  # tasks entered in the ledger in one call


@dataclass(slots=True, kw_only=True)
class Settings:
    """The options of a Housekeeper; see create_housekeeper()."""

    app: object
    enabled: bool
    sentry_enabled: bool
    timezone: str
    tasks_dir: Path | None
    ledger: Ledger
    namespace: str
    max_workers: int
    shutdown_timeout: float
    around_run: AroundRun | None
    on_finish: Callable[[Run], object] | None
    clock: Clock
    host: str = field(default_factory=socket.gethostname)


class Tools(NamedTuple):
    """What the parts of a Housekeeper share in one process, from one start to its end."""

    runner: str  # this process's name in the ledger
    timer: Timer
    backlog: Backlog
    annals: Annals
    sentry: SentryReporter
    metrics: Metrics


@dataclass(slots=True, eq=False)
class Registration:
    """The state of one task in this process.

    Changes are guarded by the roster's lock, unless marked otherwise.  Changes in each run are
    guarded by the task's own lock, because concurrent workers would queue for a single one; they
    read the rest without a lock, and at worst look again: see Runner._let_go().
    """

    task: Task
    key: str
    source: Path | None  # the file it was discovered in
    # Taken at dispatch without blocking, released when the run is recorded.
    lock: threading.Lock = field(default_factory=threading.Lock)
    trigger: Trigger | None = None
    since: datetime | None = None  # no tick up to here counts; None: not bound yet
    armed: datetime | None = None  # the tick on the agenda; NEVER after the last one
    number: int | None = None  # its number there
    gone: bool = False
    # Changed only by the holder of `lock`, or when the task is bound again.
    accounted: datetime | None = None  # each tick up to here has a row, or needs none
    run: LiveRun | None = None
    unsure: LiveRun | None = None  # its claim may or may not have been committed
    served: float = 0.0  # when it last got a worker, on the monotonic clock

    @property
    def starts_up(self) -> bool:
        """Whether the task is still there, and asks for a startup run."""
        return not self.gone and self.task.enabled and self.task.startup is not False

    def settle(self, run: LiveRun) -> None:
        """Note that the claim of a run is answered, and that its tick has a row."""
        self.unsure = None
        self.accounted = run.scheduled_for or self.accounted

    @property
    def floor(self) -> datetime | None:
        """The instant up to which every tick is accounted for."""
        since, accounted = self.since, self.accounted
        return accounted if since and accounted and accounted > since else since

    def passed(self) -> tuple[Trigger, datetime, datetime] | None:
        """Return the first tick that is not accounted for, and how far the loop has come.

        With their trigger; None when the loop has not passed such a tick.
        """
        trigger, floor, armed = self.trigger, self.floor, self.armed
        if self.gone or trigger is None or floor is None or armed is None:
            return None
        first = trigger.next_after(floor)
        return (trigger, first, armed - SECOND) if first is not None and first < armed else None


class Roster:
    """The tasks of this process: registered, entered in the ledger, and on the agenda."""

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self._settings, self._tools = settings, tools
        self._known: dict[str, Registration] = {}
        self._unbound: dict[Registration, None] = {}  # not known to the ledger yet
        # Guards the set of tasks, and their places on the agenda.  Never held during I/O or a
        # task, and not taken by a run that just starts and ends: see Registration.
        self._lock = threading.Lock()
        # Held while tasks are entered in the ledger, so that the latest entry wins.
        self._binding = threading.Lock()
        self._timer: Timer | None = None  # None: no tick is put on an agenda
        self._identity: str | None = None
        self.problems: dict[str, str] = {}  # of schedules, by the task's name
        self.replaced: set[str] = set()  # tasks of which other processes may have another

    def adopt(self, other: Roster) -> None:
        """Take over the tasks of the last start, or of the process that this was forked from.

        A task with a run of the last start keeps its registration, and so its lock.
        """
        for name, known in other._known.items():
            known.since = known.armed = known.number = None
            kept = known
            if known.run is None:
                known.gone = True
                kept = Registration(known.task, known.key, known.source)
            self._known[name] = kept
            self._unbound[kept] = None

    # Which tasks there are.

    def register(self, task: Task, source: Path | None, *, replace: bool) -> None:
        """Add a task; raises ConfigurationError when its name is taken and `replace` is false."""
        if not isinstance(task, Task):
            raise ConfigurationError(f"{task!r} is not a Task")
        settings = self._settings
        if task.schedule is not None and task.timezone is None and settings.timezone != "UTC":
            # Task has tried UTC; in this zone, it may lie in a gap each year and never come.
            _trigger_in(task, settings.timezone, hash_key="any will do")
        with self._lock:
            known = self._known.get(task.name)
            if known is not None and not replace:
                raise ConfigurationError(
                    f"Task {task.name!r} is registered already; pass replace=True to replace it"
                )
            if known is not None and source is None and self._timer is not None:
                self.replaced.add(task.name)
            registration = known or Registration(task, "", source)
            self._disarm(registration)
            registration.task, registration.source = task, source
            registration.key = key_of(task, settings.namespace, settings.host)
            registration.trigger = registration.since = None
            self._known[task.name] = registration
            self._unbound[registration] = None

    def unregister(self, name: str) -> None:
        """Forget a task; its run continues."""
        with self._lock:
            if (registration := self._known.pop(name, None)) is not None:
                registration.gone = True
                self._disarm(registration)
                self._unbound.pop(registration, None)  # Another task may be entered by its name.

    def get(self, name: str) -> Registration | None:
        """Return the registration of a task, or None."""
        return self._known.get(name)

    def all(self) -> list[Registration]:
        """Return all registrations, by name."""
        return [known for _, known in sorted(self._known.copy().items())]

    # Where their schedules stand.

    def start(self, timer: Timer) -> None:
        """Put ticks on an agenda from now on."""
        self._timer = timer

    def bind(self) -> None:
        """Enter new tasks in the ledger, and their next ticks on the agenda.

        Raises LedgerUnavailable.
        """
        with self._binding:
            with self._lock:
                unbound = list(self._unbound)
            for start in range(0, len(unbound), BOUND_AT_ONCE):
                self._bind_some(unbound[start : start + BOUND_AT_ONCE])

    def rebind(self) -> None:
        """Have the next bind() ask the ledger again where all schedules stand."""
        with self._lock:
            self._unbound.update(dict.fromkeys(self._known.values()))

    def _bind_some(self, registrations: Sequence[Registration]) -> None:
        tasks = [each.task for each in registrations]
        triggers = [self._make_trigger(each) for each in registrations]
        # With the schedule, so that the ledger notices a change.
        entries = [
            Entry(each.key, trigger.text if trigger else "", trigger.timezone if trigger else "")
            for each, trigger in zip(registrations, triggers, strict=True)
        ]
        ledger = self._settings.ledger
        standings, now = ledger.register(entries, self._tools.runner), ledger.now()
        bound = zip(registrations, tasks, triggers, entries, strict=True)
        for registration, task, trigger, entry in bound:
            guarded(self._tools.sentry.register, entry.key, task, trigger)
            # An instant entered by a clock in the future does not count.
            since = min(standings[entry.key].floor, now)
            with self._lock:
                if registration.task is not task:
                    continue  # Replaced meanwhile: that call binds it next.
                self._unbound.pop(registration, None)
                if not registration.gone:
                    registration.trigger = trigger
                    registration.since, registration.accounted = since, None
                    self._arm(registration, since)

    def _make_trigger(self, registration: Registration, key: str = "") -> Trigger | None:
        """Return a task's trigger; H is derived from its own key, or that of a host."""
        task = registration.task
        if task.schedule is None:
            return None
        zone = task.timezone or self._settings.timezone
        hash_key = ""
        if is_hashed(task.schedule):
            hash_key = f"{self._ledger_identity()}{key or registration.key}"
        try:
            return _trigger_in(task, zone, hash_key)
        except ConfigurationError as error:
            # This value of H never comes.  The other tasks go on.
            if task.name not in self.problems:
                self.problems[task.name] = f"{error}; it is not scheduled"
                logger.error("%s", self.problems[task.name])
            return None

    def _ledger_identity(self) -> str:
        if self._identity is None:
            settings = self._settings
            lasting = settings.ledger.url != "memory://"
            here = f"{settings.host}{settings.tasks_dir}"
            self._identity = settings.ledger.identity() if lasting else here
        return self._identity

    def _disarm(self, registration: Registration) -> None:
        """Take a task's tick off the agenda; the lock is held."""
        if self._timer is not None:
            self._timer.drop(registration.number)
        registration.armed = registration.number = None

    def _arm(self, registration: Registration, after: datetime) -> None:
        """Put the first tick after an instant on the agenda; the lock is held."""
        self._disarm(registration)
        if registration.trigger is None or self._timer is None or not registration.task.enabled:
            return
        self._arm_at(registration, registration.trigger.next_after(after) or NEVER)

    def _arm_at(self, registration: Registration, instant: datetime) -> None:
        """Have a task looked at then; its claim finds out what is due."""
        registration.armed = instant
        if self._timer is not None and instant < NEVER:
            registration.number = self._timer.at(instant, registration)

    def due(self, ticks: Sequence[tuple[datetime, Registration]]) -> list[Registration]:
        """Arm the next ticks of tasks; return the tasks to dispatch.

        The task that has waited longest for a worker comes first: otherwise, when there is more to
        do than workers can, the same tasks would be late each time.
        """
        now, due = self._settings.clock.now(), list[Registration]()
        # Under one lock, so that no register() or bind() comes in between.
        with self._lock:
            for tick, registration in ticks:
                try:
                    if self._pass_tick(registration, tick, now):
                        due.append(registration)
                except Exception:
                    name = registration.task.name
                    logger.exception("The next tick of task %s is not known", name)
                    self._arm_at(registration, now + LONGEST_BACKOFF * SECOND)
        return sorted(due, key=lambda each: each.served)

    def _pass_tick(self, registration: Registration, tick: datetime, now: datetime) -> bool:
        if registration.gone or registration.armed != tick:
            return False
        registration.number = None  # No longer on the agenda.
        # The next tick is on the agenda before this one is dispatched: whatever happens in the
        # dispatch, the schedule goes on.
        self._arm(registration, max(tick, now))
        floor = registration.floor
        return floor is None or tick > floor

    # What comes.

    def trigger_of(self, registration: Registration) -> Trigger | None:
        """Return a task's trigger, even before the start; None while H is not known yet."""
        if registration.trigger is not None:
            return registration.trigger
        if is_hashed(registration.task.schedule):
            try:
                if not self._settings.ledger.exists():
                    return None
            except (LedgerUnavailable, ConfigurationError):
                return None
        return self._make_trigger(registration)

    def trigger_on(self, registration: Registration, key: str) -> Trigger | None:
        """Return a task's trigger on the host of a key, where its H may be another."""
        own = key == registration.key or not is_hashed(registration.task.schedule)
        return self.trigger_of(registration) if own else self._make_trigger(registration, key)

    def upcoming(self, registration: Registration, count: int) -> list[datetime]:
        """Return the next ticks of a task, in UTC; none with enabled=False."""
        if not self._settings.enabled:
            return []
        now, armed = self._settings.clock.now(), registration.armed
        if count == 1 and armed is not None and now < armed < NEVER:
            return [armed]  # The loop has computed it.
        trigger = self.trigger_of(registration)
        return [] if trigger is None else trigger.following(now, count)

    def resumed(self, registration: Registration) -> None:
        """Count a task's ticks from now."""
        with self._lock:
            registration.since = registration.since and self._settings.clock.now()


def conflict_of(name: str, trigger: Trigger | None, standing: Standing) -> str:
    """Say that a task was last entered with a schedule other than its trigger's here; or ""."""
    mine = f"{trigger.text} {trigger.timezone}" if trigger is not None else ""
    if mine in ("", standing.schedule):
        return ""
    other = f"{standing.schedule or 'none'} in {standing.entered_by or 'another process'}"
    return (
        f"Task {name} has the schedule {mine} here and {other}: deploy the same task files and"
        " restart, or give each application a namespace."
    )


def _trigger_in(task: Task, zone: str, hash_key: str) -> Trigger:
    """Return a task's trigger in a zone; raises ConfigurationError that names the task."""
    try:
        return make_trigger(task.schedule, zone, hash_key)
    except ConfigurationError as error:
        raise ConfigurationError(f"Task {task.name!r}: {error}") from None


# ================================================================================================
# 14. Runner: from a due task to a recorded outcome.
# ================================================================================================

LEAST_GRACE = 1.0  # seconds that a loaded machine may take to start what is due now
LONGEST_RETRY_DELAY = 3600.0  # seconds
STOP_WAIT = 2.0  # seconds that a run has to end after it was asked to, in a shutdown
OBSERVED = 30.0  # seconds by its own clock for which an observer must see a silent row unchanged


@dataclass(slots=True, eq=False)
class Hold:
    """A task whose lock is held, from the claim to the end of the run that it wins."""

    registration: Registration
    reason: Reason
    run: LiveRun | None = None  # once it is claimed
    attempts: int = 0
    recorded: bool = False  # its outcome is on record, or cannot be
    parted: bool = False  # its end was announced


# One part of a run's life: returns the next one, when to go on, or None at the end.
Step = Callable[[Hold], Any]
NO_THREAD = "the system gave no thread to a worker"


class Later(NamedTuple):
    """The next step of a run that waits: for its retry, or for the ledger."""

    seconds: float
    step: Step
    at_shutdown: Step | None = None  # the step to take instead at a shutdown


class Workers:
    """The threads of a pool, and the queue that they empty.

    With a future for each run, workers that finish together would queue for the pool's semaphore,
    and the future would take a fifth of a run's time (measured).
    """

    def __init__(self, pool: Executor, number: int, work: Callable[[Hold, Step], None]) -> None:
        self._pool, self._work = pool, work
        self.queue: deque[tuple[Hold, Step]] = deque()  # what waits for a worker
        self._idle = threading.Semaphore(number)  # one for each idle worker

    def wake(self) -> None:
        """Have an idle worker empty the queue, if there is one.

        Raises RuntimeError when no thread can be started; the queue then waits for the next call.
        """
        if self.queue and self._idle.acquire(blocking=False):
            try:
                self._pool.submit(self._empty_queue)
            except BaseException:
                self._idle.release()
                raise

    def _empty_queue(self) -> None:
        while True:
            while self.queue:
                try:
                    hold, step = self.queue.popleft()
                except IndexError:
                    break  # Another worker was faster.
                # In a context of its own: what a task sets there is not for the worker's next one.
                contextvars.copy_context().run(guarded, self._work, hold, step)
            self._idle.release()
            # Checked again: what was queued in between has found no idle worker.
            if not self.queue or not self._idle.acquire(blocking=False):
                return

    def close(self) -> list[Hold]:
        """Return whose steps are queued, and release the threads; busy workers finish theirs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        left: list[Hold] = []
        with contextlib.suppress(IndexError):
            while True:
                left.append(self.queue.popleft()[0])
        return left


class Claims:
    """Decides which tick of a task to claim, and records those that did not run."""

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self._settings, self._runner = settings, tools.runner
        self._ledger, self._clock = settings.ledger, settings.clock
        self._annals, self._sentry = tools.annals, tools.sentry
        self._metrics = tools.metrics
        # Records a run as crashed when its process is known to be dead; tells whether it was.
        self.bury_if_dead: Callable[[Run], bool] = lambda run: False

    def run_for(self, registration: Registration, reason: Reason) -> LiveRun | None:
        """Return the run to claim for a task now; raises LedgerUnavailable.

        A claim whose answer was lost may have been committed, so its run is kept and looked for
        first: a claim with another id would find the tick taken, and the tick would not run.
        """
        unsure = registration.unsure
        if reason is Reason.STARTUP:
            if registration.starts_up and registration.since is None:
                raise LedgerUnavailable("the task could not be entered in the ledger yet")
            if unsure is not None and unsure.reason is Reason.STARTUP:
                return unsure
            return self.new_run(registration, reason) if registration.starts_up else None
        if unsure is not None:
            row = first_of(self._ledger.runs(id=unsure.id))
            if row is not None and row.status is Status.RUNNING:
                return unsure
        tick = None if registration.gone else self._newest_due(registration)
        if unsure is not None and unsure.scheduled_for == tick:
            return unsure
        registration.unsure = None
        return None if tick is None else self.new_run(registration, reason, tick)

    def new_run(
        self, registration: Registration, reason: Reason, tick: datetime | None = None
    ) -> LiveRun:
        """Return a new run of a task, which is not claimed yet."""
        return LiveRun(
            definition=registration.task,
            clock=self._clock,
            key=registration.key,
            id=new_id(self._clock),
            reason=reason,
            runner=self._runner,
            scheduled_for=tick,
        )

    def claim(self, run: LiveRun) -> Claim:
        """Claim a run that starts now, or with its tick when that comes; see Ledger.claim()."""
        run.started_at = _start_of(self._clock.now(), run.scheduled_for)
        verdict = self._ledger.claim(run)
        decided = verdict in (Claim.MINE, Claim.TAKEN, Claim.EARLY)
        # An obstacle may be gone when the tick comes.
        if not decided and await_tick(self._clock, run.scheduled_for):
            verdict = self._ledger.claim(run)
        return verdict

    def came_too_late(self, registration: Registration, run: LiveRun) -> bool:
        """Tell whether a run was claimed when its tick was older than the task's grace."""
        late = self._too_late(registration, run.scheduled_for, self._clock.now())
        # The host's clock may be ahead by more than the grace.
        return late and self._too_late(registration, run.scheduled_for, self.due_until())

    def may_have_run(self, run: LiveRun) -> bool:
        """Tell whether a tick may have run already, by a claim that the ledger has lost."""
        tick, replaced_at = run.scheduled_for, self._ledger.replaced_at
        return tick is not None and replaced_at is not None and tick <= replaced_at + LEAD

    def tell_lost(self, registration: Registration, run: LiveRun, verdict: Claim) -> bool:
        """Record and log a lost claim; return False when the obstacle is gone."""
        tick, beside, note = run.scheduled_for, "", verdict.value
        if verdict is Claim.OVERLAPPED:
            if (other := self.in_the_way(registration)) is None:
                return False
            beside, note = other.id, f"the run {other.id} was still going on"
        elif tick is None or verdict is not Claim.SUPERSEDED:
            logger.debug("Task %s did not get its run at %s: %s", run.task, tick, note)
            return True
        if tick is None:
            logger.warning("Task %s made no startup run: %s", run.task, note)
            return True
        row = self._row(registration.task, Status.SKIPPED, tick, note)
        if not self._ledger.record(row, registration.key, tick - timedelta.resolution, beside):
            return False
        self._metrics.ended(row)
        logger.warning("Task %s skipped its tick %s: %s", run.task, tick, note)
        return True

    def in_the_way(self, registration: Registration) -> Run | None:
        """Return the run beside which a task cannot be claimed; None when it is gone."""
        other = first_of(self._ledger.runs(registration.key, status=Status.RUNNING))
        return None if other is None or self.bury_if_dead(other) else other

    def _newest_due(self, registration: Registration) -> datetime | None:
        """Return the tick to claim; record those before it as missed, or all if it is too late."""
        trigger, floor = registration.trigger, registration.floor
        now = self._clock.now()
        until = now + LEAD
        first = trigger.next_after(floor) if trigger and floor else None
        if trigger is None or floor is None or first is None or first > until:
            return None
        following = trigger.next_after(first)
        only = following is None or following > until
        if only and not self._too_late(registration, first, now):
            return first
        now = self.due_until()
        until = now + LEAD
        if first > until:
            return first  # The claim will say that it is early.
        newest = trigger.latest_before(until, floor) or first
        if self._too_late(registration, newest, now):
            self._account(registration, trigger, newest)
            return None
        self._account(registration, trigger, newest - SECOND)
        return newest

    def due_until(self) -> datetime:
        """Return the instant up to which ticks may be accounted for; raises LedgerUnavailable.

        A host that is ahead of the ledger's clock must not take away the ticks of the others.
        """
        return min(self._clock.now(), self._ledger.now() + AHEAD * SECOND)

    def _too_late(self, registration: Registration, tick: datetime | None, now: datetime) -> bool:
        grace = max(registration.task.grace, LEAST_GRACE)
        return tick is not None and (now - tick).total_seconds() > grace

    def _account(
        self,
        registration: Registration,
        trigger: Trigger,
        until: datetime,
        behind: LiveRun | None = None,
    ) -> None:
        """Record the ticks up to an instant that have no row yet, as one row.

        They were skipped if a run was in their way, else missed.
        """
        key, recorded = registration.key, False
        while not recorded:
            # A ledger that was made again does not know the task yet.
            unknown = Standing(registration.floor or until, None, None)
            standing = self._ledger.standings(key).get(key, unknown)
            # Read each time, because the clock may be set back meanwhile.
            until = min(until, self.due_until())
            end = min(until, standing.paused_at or until)
            last = trigger.latest_before(end, standing.floor) if standing.floor < end else None
            if last is None:
                break
            row = self._gap_row(registration.task, trigger, (standing.floor, last), behind)
            recorded = self._ledger.record(row, key, standing.floor)
            if recorded:
                self._metrics.ended(row)
                ticks = counted(row.count, "tick")
                logger.warning("Task %s: %s %s: %s", row.task, ticks, row.status, row.note)
            if recorded and row.status is Status.MISSED:
                self._sentry.missed(key, row)
        registration.accounted = until

    def _gap_row(
        self,
        task: Task,
        trigger: Trigger,
        span: tuple[datetime, datetime],
        behind: LiveRun | None,
    ) -> Run:
        """Return the row of the ticks in a span, with the reason why they did not run."""
        floor, last = span
        first = trigger.next_after(floor) or last
        count = trigger.count(floor, last, limit=KEEP_ROWS)
        if behind is None:
            status, note = Status.MISSED, self._why_missed(task, first, last)
        else:
            began, status = behind.started_at or first, Status.SKIPPED
            note = f"the run before {'it' if count == 1 else 'them'} was still going on"
            if began > first and (kept := self._annals.between(first, began)):
                note = f"{kept}, and then {note}"
        if count > 1:
            note += f"; the first was {first:%Y-%m-%d %H:%M:%S} UTC"
            note += " (1000 or more)" if count == KEEP_ROWS else ""
        row = self._row(task, status, last, note)
        row.count = count
        return row

    def _why_missed(self, task: Task, first: datetime, last: datetime) -> str:
        """Say why no scheduler ran the ticks; raises LedgerUnavailable."""
        until = min(self._clock.now(), last + min(task.grace, 1e9) * SECOND)
        kept = self._annals.between(first, until) if last >= self._annals.since else ""
        absence = absence_at(self._ledger.runners(self._settings.namespace), last)
        return kept or absence or "no scheduler came to it in time"

    def _row(self, task: Task, status: Status, tick: datetime, note: str) -> Run:
        return Run(
            id=new_id(self._clock),
            task=task.name,
            reason=Reason.SCHEDULE,
            status=status,
            runner=self._runner,
            scheduled_for=tick,
            note=note,
        )

    def account_passed(self, registration: Registration, run: LiveRun) -> None:
        """Record as skipped the ticks that passed before a run's end was on record."""
        passed = registration.passed()
        if passed is not None:
            trigger, first, last = passed
            until = self.due_until()
            if first <= until:
                self._account(registration, trigger, min(last, until), run)
        # Caches the tick after the next one in the trigger: otherwise the loop would search for it
        # when the next one is due, and the run would start later.
        trigger_now, armed = registration.trigger, registration.armed
        if trigger_now is not None and armed is not None:
            trigger_now.next_after(armed)


class Steps:
    """The steps of a claimed run; each one returns the next."""

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self.name = tools.runner
        self.claims = Claims(settings, tools)
        self.stopping = False  # start nothing new
        self._settings = settings
        self._ledger, self._clock = settings.ledger, settings.clock
        self._timer, self._backlog, self._annals = tools.timer, tools.backlog, tools.annals
        self._sentry, self._metrics = tools.sentry, tools.metrics

    def _take(self, hold: Hold, step: Step) -> Step | Later | None:
        """Take a step; return the next one, which is the same when the ledger is away."""
        try:
            return cast("Step | Later | None", step(hold))
        except LedgerUnavailable as error:
            name = hold.registration.task.name
            at_shutdown: Step | None = _nothing
            what = f"Task {name} could not be claimed"
            if hold.recorded:
                what = f"The skipped ticks of task {name} could not be recorded"
            elif hold.run is not None:
                # The shutdown records it in the end.
                what, at_shutdown = f"The outcome of task {name} could not be recorded", None
            return Later(self._backlog.pause_after(what, error, NO_RUNS), step, at_shutdown)

    def _attempt(self, hold: Hold) -> Step | Later:
        run, hold.attempts = cast(LiveRun, hold.run), hold.attempts + 1
        if (number := hold.attempts) == 1:
            # The run is live while it waits, so that it can be cancelled.
            await_tick(self._clock, run.scheduled_for)
            self._sentry.started(run)
            # Written at once: if this process dies, the next one ends the command's processes.
            run.on_group = self._ledger.beat
        if run.begin_attempt(number):
            timeout, task = None, run.definition
            if task.timeout is not None:
                run.deadline = self._clock.now() + timedelta(seconds=min(task.timeout, 1e9))
                run.ends_by = self._clock.monotonic() + task.timeout
                timeout = self._timer.after(task.timeout, self._time_out, run, number)
            caller, identity = _current_run.get(), (run.id, run.key, run.task)
            try:
                with self._sentry.around(run):
                    make_attempt(task, run, self._settings.app, self._settings.around_run)
            finally:
                # A task may have changed them, and its row would not be found again.
                run.id, run.key, run.task = identity
                _current_run.set(caller)
                self._timer.drop(timeout)
        else:
            run.status = Status(run.stop_reason)
        delay = self._retry_delay(hold.registration, run)
        if delay is None:
            return self._conclude
        run.await_retry()
        return Later(delay, self._attempt, self._conclude_unretried)

    def _time_out(self, run: LiveRun, attempt: int) -> None:
        self.stop_run(run, Status.TIMED_OUT, run.timeout_note, attempt)

    def stop_run(
        self,
        run: LiveRun,
        reason: Status,
        note: str,
        attempt: int | None = None,
        *,
        insist: bool = True,
    ) -> None:
        """Ask a run to stop, in the named attempt if any; `insist` interrupts its function."""
        finish = run.stop(reason, note, attempt, insist=insist)
        if finish is not None:
            self._backlog.soon(self._mark_stop, run)
            self.apart(finish)

    def apart(self, work: Action) -> None:
        """Call what may block for long, such as on_cancel callbacks, on a separate thread."""
        if not on_thread(work, "housekeeper-stop"):
            # Python 3.12 starts none while the interpreter exits; the ledger's thread exists.
            self._backlog.soon(work)

    def _mark_stop(self, run: LiveRun) -> None:
        with contextlib.suppress(LedgerUnavailable):
            self._ledger.ask_to_stop(run.id, run.stop_reason, run.note)

    def _retry_delay(self, registration: Registration, run: LiveRun) -> float | None:
        """Return the seconds until a failed attempt is tried again, or None."""
        task = run.definition
        tried_again = run.status in (Status.FAILED, Status.TIMED_OUT)
        if not tried_again or run.attempt > task.retries or self.stopping:
            return None
        delay = min(task.retry_delay * 2.0 ** min(run.attempt - 1, 20), LONGEST_RETRY_DELAY)
        trigger, now = registration.trigger, self._clock.now()
        following = trigger.next_after(run.scheduled_for or now) if trigger else None
        if following is not None and now + timedelta(seconds=delay) >= following:
            run.note += f"; not tried again, because the next tick is at {following:%H:%M:%S} UTC"
            return None
        attempt = f"{run.attempt} of {task.retries + 1}"
        words = "Task %s failed in attempt %s, trying again in %.0f s: %s"
        logger.warning(words, run.task, attempt, delay, run.note)
        return delay

    def _conclude_unretried(self, hold: Hold) -> Step:
        cast(LiveRun, hold.run).note += "; not tried again, because the process is shutting down"
        return self._conclude

    def _conclude(self, hold: Hold) -> Step:
        """Record the outcome of a run, and announce it; raises LedgerUnavailable."""
        run = cast(LiveRun, hold.run)
        if run.finished_at is None:
            run.finished_at = self._clock.now()
            run.output = run.buffer.text()
        if run.cancels_schedule:
            # A pause holds in every process and after restarts.  It comes before the run's end is
            # on record, so that no tick is claimed in between.
            self._ledger.pause(whole_of(hold.registration.key))
            logger.info("Task %s returned CancelJob and is paused now", run.task)
        self._record(hold)
        return self._account_passed

    def _record(self, hold: Hold) -> None:
        run = cast(LiveRun, hold.run)
        if not self._ledger.finish(run):
            words = "Task %s ended as %s, but its row was ended by another process"
            outcome_logger.error(words, run.task, run.status)
            self._sentry.forget(run)
        hold.recorded = True
        self._backlog.worked(NO_RUNS)
        _tell_outcome(run)
        self._sentry.ended(run)
        self._metrics.ended(run)

    def tell_application(self, run: Run) -> None:
        """Hand a run that has ended, or was found crashed, to the application's on_finish."""
        if self._settings.on_finish is not None:
            with application_code(run, "on_finish failed"):
                self._settings.on_finish(run)

    def _account_passed(self, hold: Hold) -> None:
        if not self.stopping:
            self.claims.account_passed(hold.registration, cast(LiveRun, hold.run))


class Runner(Steps):
    """Takes tasks from the timer's thread to a worker, and from a held lock to a free one.

    _pursue() is all of a run's life after its dispatch: its one `finally` frees the task and wakes
    those who wait, whatever a step raises.
    """

    def __init__(self, settings: Settings, tools: Tools) -> None:
        super().__init__(settings, tools)
        self.workers: Workers | None = None
        self.on_live: Action = _nothing  # called when a run starts or is about to
        self.on_blocked: Action = _nothing  # called when a silent run blocks a tick
        self.on_lost: Action = _nothing  # called when the ledger's tables were made anew
        # Guards `_waiting` and `stopping` together: a shutdown sees every run that starts to wait.
        # And `_crowded`, with what is noted of it.
        self._lock = threading.Lock()
        self._waiting: dict[Hold, tuple[int, Later]] = {}  # with the number on the agenda
        # Claims queued or under way, and this process's runs, by id.  A run enters `live` before
        # its claim leaves, without the lock: to see all, read them in this order.
        self._claiming: set[Hold] = set()
        self.live: dict[str, LiveRun] = {}
        # Which thread is in _pursue() with which hold.
        self._pursued: set[tuple[int, Hold]] = set()
        self.ended = Flag()  # set when a claim or a run ends, for a shutdown
        self.past_limit = False  # of a shutdown: runs claimed from now on do not start
        self._crowded = False  # tasks wait for a worker
        number = settings.max_workers
        self._busy = f"all {number} workers were busy" if number > 1 else "the worker was busy"

    def start(self) -> None:
        """Make the pool; its threads come with the first runs."""
        pool = ThreadPoolExecutor(self._settings.max_workers, "housekeeper-worker")
        self.workers = Workers(pool, self._settings.max_workers, self._pursue)

    def close(self) -> None:
        """Release the pool's threads, and free the tasks whose runs cannot go on."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        if self.workers is not None:
            left += self.workers.close()
        for hold in left:
            guarded(self._let_go, hold)

    # From the timer's thread to a worker's.

    def dispatch(self, registration: Registration, reason: Reason = Reason.SCHEDULE) -> None:
        """Hand a task to a worker, unless it is queued or runs: its end then handles its ticks."""
        hold = Hold(registration, reason)
        if guarded(waits_for_reloaded_child):
            logger.debug("Task %s is left to the reloaded process", registration.task.name)
        elif not registration.lock.acquire(blocking=False):
            logger.debug("Task %s is queued or running already", registration.task.name)
        else:
            self._hand_over(hold, self._claim)

    def dispatch_startup(self, registration: Registration) -> None:
        """Hand a task to a worker for its startup run, once it is not claimed for a tick."""
        if registration.lock.locked() and registration.run is None:
            # The tick may be missed, or another process's: then nothing would run here.
            self._timer.after(1.0, self.dispatch_startup, registration)
        else:
            self.dispatch(registration, Reason.STARTUP)

    def _hand_over(self, hold: Hold, step: Step) -> None:
        """Queue a step for a worker.

        Only in the timer's thread: the pool's threads inherit that it is a daemon.
        """
        workers = self.workers
        try:
            if hold.run is None:
                # Added before `stopping` is read: a shutdown works in the other order.
                self._claiming.add(hold)
            # Called now, so that the run need not wake this thread when it starts.
            self.on_live()
            assert workers is not None
            workers.queue.append((hold, step))
        except BaseException as error:
            self._leave(hold, self._after_defect(hold, error))
            return
        self._wake_worker()
        self._note_queue()

    def _note_queue(self) -> None:
        """Note whether tasks wait for a worker; called after each change of the queue."""
        queue = cast(Workers, self.workers).queue
        # Asked again afterwards, as the queue may change meanwhile.  The lock is only for changes:
        # the workers would queue for it in a burst.
        while bool(queue) != self._crowded:
            with self._lock:
                self._crowded = bool(queue)
                note = self._annals.begin if self._crowded else self._annals.end
                note(self._busy)

    def _wake_worker(self) -> None:
        try:
            cast(Workers, self.workers).wake()
        except BaseException as error:  # The system gives no more threads.
            self._annals.begin(NO_THREAD)
            self._timer.after(1.0, self._wake_worker)
            logger.warning("A worker could not be started, trying again in 1 s: %s", error)
        else:
            self._annals.end(NO_THREAD)

    # A run's life.

    def _pursue(self, hold: Hold, step: Step, *, in_place: bool = False) -> None:
        """Take the steps of a run, one after the other, and then free its task's lock.

        A step is repeated when the ledger was away.  In place, this thread waits for that.
        """
        following: Step | Later | None = step
        try:
            self._pursued.add(pursued := (threading.get_ident(), hold))
            self._note_queue()
            while following is not None:
                if isinstance(following, Later) and not in_place:
                    break
                if isinstance(following, Later):
                    following = self._pause_in_place(hold, following)
                following = self._take(hold, following)
        except BaseException as error:
            following = self._after_defect(hold, error)
        finally:
            self._leave(hold, following)
            self._pursued.discard(pursued)

    def own(self) -> set[str]:
        """Return the ids of the runs that the calling thread makes: it is in a task or a hook."""
        me = threading.get_ident()
        return {hold.run.id for thread, hold in self._pursued.copy() if thread == me and hold.run}

    def _leave(self, hold: Hold, following: Step | Later | None) -> None:
        """Put the next step of a run on the agenda, or free its task and announce its end."""
        waits = None
        try:
            waits = isinstance(following, Later) and guarded(self._wait_for, hold, following)
        finally:
            try:
                if not waits:
                    self._let_go(hold)
            finally:
                if not waits or hold.recorded:
                    self._part_with(hold)

    def _after_defect(self, hold: Hold, error: BaseException) -> Later | None:
        """Return how a run continues after an unexpected error in one of its steps."""
        logger.exception("Task %s: its run failed in Housekeeper", hold.registration.task.name)
        if hold.recorded:
            return None
        if hold.run is None:
            # Its tick has no row yet.
            return Later(LONGEST_BACKOFF, self._claim, _nothing)
        run = hold.run
        try:
            # Only what can always be recorded is left: an outcome, and a plain note.
            run.status = Status.FAILED if run.status is Status.RUNNING else run.status
            run.finished_at = run.finished_at or self._clock.now()
            run.note = f"Housekeeper could not carry it out: {type(error).__name__}"
            run.error, run.output, run.progress_made = "", "", None
            return cast("Later | None", self._take(hold, self._record))
        except BaseException:
            logger.exception("The outcome of task %s cannot be recorded", run.task)
            return None

    def _wait_for(self, hold: Hold, later: Later) -> bool:
        """Put a run's next step on the agenda, or take its last one when a shutdown has begun."""
        last_step = later.at_shutdown
        with self._lock:
            if not self.stopping or last_step is None:
                number = self._timer.after(later.seconds, self._go_on, hold)
                self._waiting[hold] = number, later
                last_step = None
        if last_step is not None:
            self._pursue(hold, last_step)
        elif hold.run is not None and later.at_shutdown is not None and not hold.recorded:
            # A run that is asked to stop does not wait for its retry.
            at_once = functools.partial(self._timer.after, 0.0, self._go_on, hold)
            guarded(hold.run.on_cancel, at_once)
        return True

    def _go_on(self, hold: Hold) -> None:
        if (later := self._take_waiting(hold)) is not None:
            self._hand_over(hold, later.step)

    def _take_waiting(self, hold: Hold) -> Later | None:
        """Return what a run waits for, to the first caller only."""
        with self._lock:
            number, later = self._waiting.pop(hold, (None, None))
        self._timer.drop(number)
        return later

    def _pause_in_place(self, hold: Hold, later: Later) -> Step:
        """Wait in the caller's thread; return the step to take then."""
        last_step = later.at_shutdown
        if self.stopping and last_step is not None:
            return last_step
        if last_step is not None and hold.run is not None and not hold.recorded:
            hold.run.wait(later.seconds)
        else:
            self._clock.wait(Flag(), later.seconds)
        return later.step

    def _let_go(self, hold: Hold) -> None:
        """Free a task's lock; dispatch a tick that found it taken."""
        registration = hold.registration
        registration.run = None
        self._claiming.discard(hold)
        registration.lock.release()
        self.ended.set()
        # Checked again: the loop passes a tick before it tries the lock, so either it has found
        # the task free, or its tick is seen here.
        passed = None if self.stopping else guarded(registration.passed)
        if passed is not None:
            # If the clock was set back, the tick is still to come.
            wait = max(0.0, (passed[1] - self._clock.now()).total_seconds())
            self._timer.after(wait, self.dispatch, registration)

    def _part_with(self, hold: Hold) -> None:
        """Tell the application, and those who wait, that a run has ended; once."""
        run = hold.run
        if run is None or hold.parted:
            return
        hold.parted = True
        try:
            if hold.recorded:
                self.tell_application(run)
        finally:
            self.live.pop(run.id, None)
            run.ended.set()
            self.ended.set()

    # Claiming.

    def _claim(self, hold: Hold) -> Step | Later | None:
        """Claim a task's due tick; go on to its run if the claim is won."""
        registration = hold.registration
        if self.stopping:
            return None
        run = self.claims.run_for(registration, hold.reason)
        if run is None:
            self._backlog.worked(NO_RUNS)
            return None
        registration.unsure = run
        verdict = self.claims.claim(run)
        late = self.claims.came_too_late(registration, run)
        self._backlog.worked(NO_RUNS)
        if verdict is Claim.LOST:
            self.on_lost()
            return Later(1.0, self._claim, _nothing)
        if verdict in (Claim.EARLY, Claim.BLOCKED):
            return Later(self._pause_before(run, verdict), self._claim, _nothing)
        # Set here, and not when a tick is missed for lack of workers: that task is the first to
        # get one for its next tick.
        registration.served = self._clock.monotonic()
        if verdict is Claim.MINE:
            self._enter_live(hold, run)
            if late:
                run.stop(Status.MISSED, "the ledger's answer to its claim came too late")
            elif self.claims.may_have_run(run):
                run.stop(Status.MISSED, "it may have run: the ledger was replaced when it came")
            return self._attempt
        if not self.claims.tell_lost(registration, run, verdict):
            return self._claim
        registration.settle(run)
        return None

    def _pause_before(self, run: LiveRun, verdict: Claim) -> float:
        """Return the seconds until a run is claimed again."""
        if verdict is Claim.EARLY:
            tick = cast(datetime, run.scheduled_for)
            ahead = (tick - self._ledger.now()).total_seconds() - AHEAD
            logger.warning("Task %s waits: the host is ahead of the ledger's clock", run.task)
            return min(max(ahead, 0.1), SystemClock.LONGEST_WAIT)
        logger.warning("Task %s waits: its last run has sent no heartbeat", run.task)
        self.on_blocked()
        return OBSERVED + 2.0

    def _enter_live(self, hold: Hold, run: LiveRun) -> None:
        """Add a claimed run to the live ones: from here on it has heartbeats."""
        hold.run = hold.registration.run = run
        self.live[run.id] = run
        hold.registration.settle(run)
        self._claiming.discard(hold)
        self.ended.set()
        self.on_live()
        if self.past_limit:
            run.stop(Status.CANCELLED, "its claim outlasted a shutdown")

    # By hand.

    def claim_by_hand(self, registration: Registration) -> Hold:
        """Claim a run of a task now; raises AlreadyRunning, LedgerUnavailable.

        And HousekeeperError before the start, and once a shutdown has begun.
        """
        hold = Hold(registration, Reason.MANUAL)
        # Added before `stopping` is read, as in dispatch().
        self._claiming.add(hold)
        try:
            if self.workers is None or self.stopping:
                raise HousekeeperError("Housekeeper is not running; call initialize() first")
            if not registration.lock.acquire(blocking=False):
                raise AlreadyRunning(registration.task.name, registration.run)
            try:
                self._win_by_hand(hold)
            finally:
                if hold.run is None:
                    self._let_go(hold)
        finally:
            self._claiming.discard(hold)
            self.ended.set()
        return hold

    def _win_by_hand(self, hold: Hold) -> None:
        run, other = self.claims.new_run(hold.registration, Reason.MANUAL), None
        for _ in range(2):
            if self.claims.claim(run) is Claim.MINE:
                self._enter_live(hold, run)
                return
            self.on_blocked()
            if (other := self.claims.in_the_way(hold.registration)) is not None:
                break
        raise AlreadyRunning(run.task, other)

    def run_by_hand(self, hold: Hold, *, wait: bool) -> None:
        """Make a claimed run on a worker; or in place, if a task or a hook waits for it."""
        run, caller = cast(LiveRun, hold.run), _current_run.get() if wait else None
        # In on_finish: a worker that waits for another worker could wait for ever.
        in_place = wait and bool(self.own())
        if caller is not None:
            forget = caller.on_cancel(functools.partial(self._stop_too, run, caller))
            try:
                self._pursue(hold, self._attempt, in_place=True)
            finally:
                forget()
        elif in_place or run.cancelled:
            # If cancelled, its claim outlasted a shutdown: nothing else would end it.
            self._pursue(hold, self._attempt, in_place=in_place)
        else:
            self._timer.after(0.0, self._hand_over, hold, self._attempt)

    def _stop_too(self, run: LiveRun, caller: LiveRun) -> None:
        note = f"the run of {caller.task} that called it was asked to stop"
        self.stop_run(run, Status.CANCELLED, note, insist=caller.interrupted)

    # For a shutdown.

    def begin_to_stop(self) -> list[Hold]:
        """Start nothing from now on; return what waits."""
        with self._lock:
            self.stopping = True
            return list(self._waiting)

    def end_waiting(self, hold: Hold) -> None:
        """Have a run that waits for its retry or the ledger take its last step, here and now."""
        if (later := self._take_waiting(hold)) is not None:
            self._pursue(hold, later.at_shutdown or later.step)

    def await_ended(self, until: float) -> bool:
        """Wait until no claim and no run is left, up to a monotonic time.

        Not for the runs of the calling thread, which would not end before that.
        """
        own = self.own()
        while True:
            self.ended.clear()
            waits = self._claiming or not own.issuperset(self.live.copy())
            left = until - self._clock.monotonic()
            if not waits or left <= 0:
                return not self.live
            self._clock.wait(self.ended, left)

    def kill_commands(self) -> None:
        """Kill the processes of all commands that run here."""
        for run in list(self.live.values()):
            if group := run.group.partition(":")[0]:
                guarded(signal_group, int(group), signal.SIGKILL)

    def load(self) -> tuple[int, int]:
        """Return how many runs go on here, and how many tasks wait for a worker."""
        with self._lock:
            waiting = list(self._waiting)
        retrying = sum(hold.run is not None for hold in waiting)
        queued = len(self._claiming) - (len(waiting) - retrying)
        return max(0, len(self.live) - retrying), max(0, queued)


class Shutdown:
    """The end of a Runner, in bounded time: runs that hang are left behind and recorded."""

    def __init__(self, runner: Runner, settings: Settings, limit: float, until: float) -> None:
        self._runner = runner
        self._ledger, self._clock = settings.ledger, settings.clock
        self._limit, self._until = limit, until

    def stop(self) -> None:
        """Stop dispatching, wait for runs until the limit, and stop the rest."""
        # On a thread of its own, because on_finish may hang.
        self._runner.apart(functools.partial(self._end, self._runner.begin_to_stop()))
        for run in list(self._runner.live.values()):
            with self._calls_until(self._until), contextlib.suppress(BaseException):
                self._ledger.ask_to_stop(run.id, "shutdown", "the process is shutting down")
        ended = self._runner.await_ended(self._until)
        # Set before the runs are read: a run that starts meanwhile works in the other order.
        self._runner.past_limit = True
        if not ended:
            self._stop_all()

    def _end(self, waiting: Iterable[Hold]) -> None:
        for hold in waiting:
            with self._calls_until(self._until):
                guarded(self._runner.end_waiting, hold)

    def _calls_until(self, until: float) -> AbstractContextManager[None]:
        """Limit each ledger call to a monotonic time, and to 2 s."""
        return ledger_calls_within(min(STOP_WAIT, until - self._clock.monotonic()))

    def _stop_all(self) -> None:
        """Ask all runs to stop, and wait a little; kill the commands that do not."""
        note = f"it did not end within the {self._limit:g} s of a shutdown"
        own = self._runner.own()
        for run in list(self._runner.live.values()):
            mine = run.id in own
            words = "it has shut down the Housekeeper that runs it" if mine else note
            guarded(self._runner.stop_run, run, Status.CANCELLED, words, insist=not mine)
        if not self._runner.await_ended(self._clock.monotonic() + STOP_WAIT):
            # Once their time after SIGTERM is over, nothing is left to kill them.
            self._runner.kill_commands()
            self._runner.await_ended(self._clock.monotonic() + 0.5)

    def abandon(self, until: float, tools: Tools) -> bool:
        """Record what still runs as cancelled; tell whether anything did."""
        hanging = list(self._runner.live.values())
        for run in hanging:
            with self._calls_until(until):
                guarded(self._abandon, run)
            guarded(tools.sentry.ended, run, abandoned=True)
            guarded(tools.metrics.ended, run)
            run.ended.set()
        return bool(hanging)

    def _abandon(self, run: LiveRun) -> None:
        abandoned = run.finished_at is None
        if abandoned:
            run.status, run.output = Status.CANCELLED, run.buffer.text()
            run.finished_at = self._clock.now()
        try:
            self._ledger.finish(run)
        except Exception as error:
            logger.error("Task %s: its end could not be recorded: %s", run.task, error)
        if abandoned:
            words = "Task %s was abandoned: %s\n%s"
            outcome_logger.error(words, run.task, run.note, run.stack())
        else:
            logger.error("Task %s ended, but its record or on_finish did not", run.task)


def _nothing(*_: object) -> None:
    """Do nothing: the last step of a run that a shutdown drops."""


def await_tick(clock: Clock, tick: datetime | None) -> bool:
    """Wait for a tick that comes within LEAD; tell whether there was one.

    Not for one that is further off: the clock was set back meanwhile.
    """
    waited = False
    while tick and timedelta(0) < (ahead := tick - clock.now()) <= LEAD:
        clock.wait(threading.Event(), ahead.total_seconds())
        waited = True
    return waited


def _tell_outcome(run: LiveRun) -> None:
    seconds = run.duration or 0.0
    if run.status is Status.SUCCEEDED:
        outcome_logger.info("Task %s succeeded in %.3f s", run.task, seconds)
    elif run.status is Status.SKIPPED:
        outcome_logger.info("Task %s skipped its run: %s", run.task, run.note)
    elif run.status is Status.CANCELLED:
        outcome_logger.warning(
            "Task %s was cancelled after %.3f s: %s", run.task, seconds, run.note
        )
    else:
        words = f"{run.note}\n{run.error}".strip()
        outcome_logger.error("Task %s %s after %.3f s: %s", run.task, run.status, seconds, words)


# ================================================================================================
# 15. Upkeep: signs of life, crashed runs, and old rows.
# ================================================================================================

HEARTBEAT_EVERY = 15.0  # seconds
SKEW = 2.0  # seconds between the host's clock and the ledger's that are worth a warning
STEADY = timedelta(hours=2)  # that a runner must have worked before old rows are deleted
PRUNE_AGAIN = 3600.0  # seconds until the next try


class Upkeep:
    """Periodic work for the ledger, on the backlog's thread.

    Every 15 s live runs send their heartbeats; every minute the runner beats, and looks for runs
    whose runner is dead.
    """

    def __init__(self, settings: Settings, tools: Tools, roster: Roster, runner: Runner) -> None:
        self._settings = settings
        self._ledger, self._clock = settings.ledger, settings.clock
        self._timer, self._backlog, self._annals = tools.timer, tools.backlog, tools.annals
        self._roster, self._runner, self._sentry = roster, runner, tools.sentry
        self.problems: Callable[[], list[str]] = list  # the problems of the application
        # Guards whether a heartbeat is on the agenda.
        self._lock = threading.Lock()
        self._beating = False
        self._silent: dict[str, tuple[datetime | None, float]] = {}  # silent runs, as last seen
        self._to_look_again = False  # at silent runs
        self._burying = False
        self._conflicts: list[str] = []
        self._scheduling = self._closed = False
        self.row = RunnerRow(
            runner=runner.name,
            namespace=settings.namespace,
            host=settings.host,
            pid=getpid(),
            place=place_of_this_process(),
            birth=birth_of(getpid()),
            version=__version__,
            workers=settings.max_workers,
        )

    def start(self, *, scheduling: bool, opened: bool) -> None:
        """Start the rounds; a process that schedules is a runner from here on.

        opened: whether the ledger answers without a wait.
        """
        self._scheduling = scheduling
        self._runner.on_live = self.keep_beating
        self._runner.on_blocked = functools.partial(self._backlog.soon, self._look_again)
        self._runner.claims.bury_if_dead = self.bury_if_dead
        if scheduling:
            self._timer.after(BEAT_EVERY, self._backlog.soon, self._prune)
            entered = opened and guarded(self._enter)
            self._timer.after(BEAT_EVERY if entered else 0.0, self._backlog.soon, self._round)
        self._backlog.soon(self._look_again)

    def _enter(self) -> bool:
        """Give the first beat; tell whether the ledger took it (else the first round says why)."""
        with contextlib.suppress(LedgerUnavailable):
            self._beat_runner()
            return True
        return False

    def _round(self) -> None:
        """Beat, look for crashed runs, and plan the next round whatever happens."""
        pause = BEAT_EVERY
        try:
            if not self._closed:
                self._ledger.open()  # What its tables lack is made, or told.
                self._beat_runner()
                self.look_for_crashed()
                self._compare_schedules()
        except (LedgerUnavailable, ConfigurationError) as error:
            pause = self._backlog.pause_after("The runner's beat could not be written", error)
        finally:
            self._timer.after(pause, self._backlog.soon, self._round)

    # Signs of life.

    def keep_beating(self) -> None:
        """Put the next heartbeat on the agenda, for a run that starts or is about to."""
        if self._beating:
            return
        with self._lock:
            if not self._beating:
                self._beating = True
                self._timer.after(HEARTBEAT_EVERY, self._backlog.soon, self.beat)

    def beat(self) -> None:
        """Send the heartbeats of all live runs, and read which were asked to stop elsewhere."""
        # Set before the runs are read: a run that starts meanwhile works in the other order.
        self._beating = False
        live = list(self._runner.live.values())
        if not live or self._closed:
            return
        self.keep_beating()
        self._sentry.beat(live)
        try:
            for run in live:
                row = self._ledger.beat(run)
                if row is not None and row.stop_reason == Status.CANCELLED and not run.cancelled:
                    self._runner.stop_run(run, Status.CANCELLED, row.note, insist=False)
        except LedgerUnavailable as error:
            logger.warning("Heartbeats could not be written: %s", error)

    def _beat_runner(self) -> None:
        problems = [*self._annals.now(), *self.problems(), *self._roster.problems.values()]
        problems += self._conflicts
        if abs(skew := skew_of(self._clock, self._ledger)) > SKEW:
            logger.warning("Clock of this host is %+.1f s from the ledger's", skew)
            problems.append(f"The clock of its host is {skew:+.1f} s from the ledger's.")
        self.row.problems = [mask_secrets(each)[:500] for each in problems[:20]]
        self._ledger.beat_runner(self.row)
        self.row.started_at = None  # The ledger keeps the first one.
        self._backlog.worked()

    def clock_jumped(self, jump: float) -> None:
        """React to a wall clock that was set, or to a machine that was suspended."""
        # Heartbeats first, so that no process takes a resumed machine's runs for crashed.
        if self._runner.live:
            self._backlog.soon(self.beat)
        if self._scheduling and abs(jump) > STEADY.total_seconds():
            # The recorded start does not show how long this clock has been right.
            self.row.started_at = self._clock.now()
            self._backlog.soon(self._enter)

    def _compare_schedules(self) -> None:
        """Notice tasks that another runner schedules differently, or that the ledger has lost."""
        standings = self._ledger.standings(f"{self._settings.namespace}/")
        conflicts, lost = [], False
        for each in self._roster.all():
            standing = standings.get(each.key)
            lost = lost or (standing is None and each.since is not None)
            if standing and (found := conflict_of(each.task.name, each.trigger, standing)):
                conflicts.append(found)
        if self._roster.replaced and self._has_company():
            names = ", ".join(sorted(self._roster.replaced))
            conflicts.append(f"Tasks that were replaced here, and in no other process: {names}.")
        for conflict in conflicts:
            if conflict not in self._conflicts:
                logger.warning("%s", conflict)
        self._conflicts = conflicts
        if lost:
            self._runner.on_lost()

    def _has_company(self) -> bool:
        now, rows = self._ledger.now(), self._ledger.runners(self._settings.namespace)
        return sum(is_alive(row, now) for row in rows) > 1

    # Crashed runs.

    def look_for_crashed(self) -> None:
        """Record as crashed the runs whose runner is dead; raises LedgerUnavailable.

        A dead runner of this very place is recognized at once; its commands are ended first.  Any
        other run must be silent for the lease, and be seen so twice, 30 s apart: a row that is
        silent only because this process was suspended changes before the second look.
        """
        # In this order: a claim that was confirmed meanwhile is among the live.
        unsure = [each.unsure for each in self._roster.all()]
        known = {run.id for run in unsure if run is not None} | set(self._runner.live)
        others = [run for run in self._ledger.runs(status=Status.RUNNING) if run.id not in known]
        self._silent = {run.id: self._silent[run.id] for run in others if run.id in self._silent}
        dead = self._dead_runners({run.runner for run in others})
        orphans = [run for run in others if run.runner in dead]
        for run in others:
            if run.runner not in dead:
                self._judge(run)
        if orphans and not self._burying:
            self._burying = True
            self._runner.apart(functools.partial(self._bury_all, orphans))
        if self._silent and not self._to_look_again:
            self._to_look_again = True
            self._timer.after(OBSERVED + 1.0, self._backlog.soon, self._look_again)

    def _look_again(self) -> None:
        self._to_look_again = False
        if not self._closed:
            with contextlib.suppress(LedgerUnavailable):  # The next round looks, too.
                self.look_for_crashed()

    def _dead_runners(self, suspects: set[str]) -> set[str]:
        """Return which of the runners are dead, and record with which beat dead ones stopped."""
        dead = set[str]()
        for row in self._ledger.runners(self._settings.namespace):
            # Once it has stopped, its process is looked for only when it left a run behind.
            if (row.stopped_at is None or row.runner in suspects) and is_dead(row):
                dead.add(row.runner)
                if row.stopped_at is None:
                    row.stopped_at = row.beat_at
                    self._ledger.beat_runner(row)
        return dead

    def bury_if_dead(self, run: Run) -> bool:
        """Record a run as crashed when its process is known not to run it; tell whether it is.

        Whoever asks holds the task's lock: a run of this process that is still on record, as in a
        ledger put back from a backup, has ended.
        """
        mine = run.runner == self._runner.name
        gone = mine or run.runner in self._dead_runners({run.runner})
        dead = run.id not in self._runner.live and gone
        if dead:
            self._bury(run)
        return dead

    def _bury_all(self, orphans: Iterable[Run]) -> None:
        """Bury runs on a separate thread: heartbeats do not wait for a command's 10 s."""
        try:
            with contextlib.suppress(LedgerUnavailable):  # The next round looks, too.
                for run in orphans:
                    self._bury(run)
        finally:
            self._burying = False

    def _bury(self, run: Run) -> None:
        """Record the run of a dead process as crashed; first end what its command left."""
        note = f"its runner {run.runner} has died"
        if run.runner == self._runner.name:
            note = "it had ended, and the ledger has lost how"
        if run.group != "" and guarded(end_group, run.group, self._clock) is True:
            note += "; the processes of its command were ended"
        self._crash(run, note, dead=True)

    def _judge(self, run: Run) -> None:
        now = self._clock.monotonic()
        seen, since = self._silent.get(run.id, (None, now))
        if seen != run.heartbeat_at:
            if _is_silent(run, self._ledger.now()):
                self._silent[run.id] = (run.heartbeat_at, now)
        elif now - since >= OBSERVED:
            note = f"its runner {run.runner} sent no heartbeat for more than {LEASE} s"
            self._crash(run, note)

    def _crash(self, run: Run, note: str, *, dead: bool = False) -> None:
        if self._ledger.crash(run, note, dead=dead):
            run.status, run.note = Status.CRASHED, note
            outcome_logger.error("Task %s crashed: %s", run.task, note)
            self._sentry.crashed(run.key, run)
            guarded(self._runner.tell_application, run)

    # Retention.

    def _prune(self) -> None:
        """Delete old rows if the clock is known to be right, and plan the next time."""
        pause = PRUNE_AGAIN
        try:
            now, namespace = self._ledger.now(), self._settings.namespace
            # A clock that is ten years ahead for an hour must not delete ten years.
            if any(_is_steady(row, now) for row in self._ledger.runners(namespace)):
                pause = self._ledger.PRUNE_EVERY
                self._ledger.prune_runners(now - timedelta(days=KEEP_DAYS))
                hosts = {row.host for row in self._ledger.runners(namespace)}
                # Includes tasks that are no longer registered, and hosts that are gone.
                keys = dict.fromkeys(self._ledger.standings(f"{namespace}/"), math.inf)
                keys |= {each.key: each.task.grace for each in self._roster.all()}
                self._prune_next(list(keys.items()), hosts, now)
        except LedgerUnavailable as error:
            logger.warning("Old rows could not be deleted: %s", error)
        finally:
            self._timer.after(pause, self._backlog.soon, self._prune)

    def _prune_next(self, left: list[tuple[str, float]], hosts: set[str], now: datetime) -> None:
        """Prune one task, and let heartbeats have the thread before the next one."""
        if left and not self._closed:
            key, grace = left.pop()
            old = now - timedelta(days=KEEP_DAYS)
            young = max(old, now - timedelta(seconds=min(grace, 1e9)))
            gone = key != whole_of(key) and key.partition("@")[2] not in hosts
            with contextlib.suppress(LedgerUnavailable):
                self._ledger.prune(key, young=young, old=old, gone=gone)
            self._backlog.soon(self._prune_next, left, hosts, now)

    def close(self) -> None:
        """Stop the rounds, and record that the runner stops."""
        self._closed = True
        if self._scheduling:
            self.row.stopped_at = self._clock.now()
            with contextlib.suppress(LedgerUnavailable):
                self._ledger.beat_runner(self.row)


def _is_steady(row: RunnerRow, now: datetime) -> bool:
    """Tell whether a runner has been at work for a while, and recently, by the ledger's clock."""
    begun, beat = cast(datetime, row.started_at), cast(datetime, row.beat_at)
    return begun <= now - STEADY and now - timedelta(days=30) <= beat <= now + STEADY


def skew_of(clock: Clock, ledger: Ledger) -> float:
    """Return the seconds by which the host's clock is ahead; raises LedgerUnavailable."""
    asked = clock.now()
    answer = ledger.now()
    return (asked + (clock.now() - asked) / 2 - answer).total_seconds()


# ================================================================================================
# 16. Reports: lists, explanations and health.  They only read.
# ================================================================================================


SWITCHED_OFF = "Housekeeper is switched off (HOUSEKEEPER_ENABLED=0 or enabled=False)"


class Explanation:
    """The sentences in which why() explains a tick, with instants in the task's zone."""

    ENDED: Mapping[Status, str] = {
        Status.SUCCEEDED: "succeeded",
        Status.FAILED: "failed",
        Status.TIMED_OUT: "timed out",
        Status.CANCELLED: "was cancelled",
        Status.SKIPPED: "skipped itself",
        Status.MISSED: "was missed",
        Status.CRASHED: "was found crashed",
    }

    def __init__(self, task: Task, trigger: Trigger | None, zone: tzinfo) -> None:
        self.sentences: list[str] = []
        self._task = task
        self._trigger = trigger
        self._zone = zone

    def say(self, sentence: str) -> None:
        """Add a sentence."""
        self.sentences.append(sentence)

    def at(self, instant: datetime | None) -> str:
        """Return an instant as the sentences show it."""
        return f"{instant.astimezone(self._zone):%Y-%m-%d %H:%M:%S %z}" if instant else "-"

    def tick_at(self, instant: datetime | None, now: datetime) -> datetime | None:
        """Say what the schedule asks for in the minute of an instant, or last; return the tick."""
        trigger, name = self._trigger, self._task.name
        if trigger is None:
            self.say(f"Task {name} has no schedule.")
            return None
        asks = f"The schedule of task {name}, {trigger.text} in {trigger.timezone}, asks for"
        if instant is None:
            tick = trigger.latest_before(now, now - GIVE_UP_AFTER / 50)
            self.say(f"{asks} {self.at(tick)}." if tick else f"{asks} nothing in the last year.")
            return tick
        following = trigger.next_after(instant - SECOND)
        if following is not None and following < instant + timedelta(minutes=1):
            self.say(f"{asks} {self.at(following)}.")
            if following > now:
                self.say("That is still to come.")
            return following
        self.say(
            f"{asks} nothing at {self.at(instant)}; its next tick after that is"
            f" {self.at(following)}."
        )
        return None

    def tell_run(self, run: Run, tick: datetime | None) -> None:
        """Say how a run went, or that its row stands for several ticks."""
        note = f": {run.note}" if run.note else ""
        if run.status in (Status.MISSED, Status.SKIPPED) and run.started_at is None:
            ticks = "It" if run.count == 1 else f"It is one of {run.count:,} ticks that"
            was = f" was {run.status}" if run.count == 1 else f" were {run.status}"
            self.say(f"{ticks}{was}, as {run.runner} recorded{note}.")
        elif run.finished_at is None:
            been = "has been" if run.status is Status.RUNNING else "was"
            self.say(
                f"The run {run.id} {been} going on in {run.runner} since"
                f" {self.at(run.started_at)}, attempt {run.attempt}{note}."
            )
        else:
            late = (run.started_at - tick).total_seconds() if run.started_at and tick else 0.0
            behind = f", {late:.0f} s late" if late >= 1.0 else ""
            self.say(
                f"{run.runner} ran it at {self.at(run.started_at)}{behind}; after"
                f" {run.duration or 0.0:.3f} s it {self.ENDED[run.status]}{note}."
            )

    def tell_pending(self, tick: datetime, now: datetime, rows: Sequence[RunnerRow]) -> None:
        """Say why a tick is not claimed, and what can still become of it."""
        task = self._task
        absence = absence_at(rows, tick)
        there = [row for row in rows if was_there(row, tick)]
        names = ", ".join(row.runner for row in there)
        self.say(
            f"Nobody has claimed it: {absence}."
            if absence
            else f"Nobody has claimed it, although a scheduler was there: {names}."
        )
        for row in there:
            if not is_alive(row, now):
                self.say(silence_of(row))
            for problem in row.problems:
                self.say(f"{row.runner} says: {problem}")
        if task.grace == math.inf:
            self.say("It can still run, however late.")
        elif (now - tick).total_seconds() > task.grace:
            self.say(
                f"It is older than the task's grace of {task.grace:g} s: a scheduler that starts"
                " will record it as missed."
            )
        else:
            self.say(f"It can still run: the task's grace is {task.grace:g} s.")

    def tell_next(self, upcoming: Sequence[datetime], *, paused: bool) -> None:
        """Say what comes next."""
        if paused:
            self.say("The task is paused now; nothing comes before it is resumed.")
        elif upcoming and self._task.enabled:
            self.say(f"The next tick is {self.at(upcoming[0])}.")


@dataclass(slots=True, kw_only=True)
class HealthReport:
    """The findings of health()."""

    critical: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    loop_age: float | None = None
    exists: bool | None = None  # None: unknown, as the ledger cannot be reached
    skew: float | None = None
    overdue: list[dict[str, object]] = field(default_factory=list)
    failing: list[dict[str, object]] = field(default_factory=list)
    runners: list[dict[str, object]] = field(default_factory=list)

    def tell_runners(self, rows: Sequence[RunnerRow], now: datetime) -> None:
        """Add the runners; `now` is on the ledger's clock."""
        self.runners = [_runner_values(row, now) for row in rows]
        alive = [row for row in rows if is_alive(row, now)]
        # A runner that has replaced itself by exec() is the same process.
        seen = {(row.place, row.pid, row.birth) for row in alive}
        silent = [row for row in rows if lives_here(row)]
        mute = [row for row in silent if (row.place, row.pid, row.birth) not in seen]
        self.critical += [f"Scheduler {silence_of(row)}" for row in mute]
        if not alive and not mute:
            last = f"the last, {rows[0].runner}, was seen at" if rows else "none was ever seen"
            at = f" {rows[0].stopped_at or rows[0].beat_at:%Y-%m-%d %H:%M:%S} UTC" if rows else ""
            self.critical.append(f"No scheduler is running; {last}{at}.")
        versions = sorted({row.version for row in alive})
        if len(versions) > 1:
            of = [f"{row.runner} has {row.version}" for row in alive]
            self.warnings.append(f"Schedulers of different versions are running: {', '.join(of)}.")
        for row in alive:
            self.warnings += [f"Scheduler {row.runner}: {problem}" for problem in row.problems]

    def tell_overdue(
        self, task: str, tick: datetime | None, rows: Sequence[RunnerRow], now: datetime
    ) -> None:
        """Add a tick that should have an outcome and has none."""
        if tick is None:
            return
        reasons = [problem for row in rows if is_alive(row, now) for problem in row.problems]
        reason = absence_at(rows, tick) or " ".join(reasons).rstrip(".")
        seconds = (now - tick).total_seconds()
        self.overdue.append({"task": task, "tick": tick, "seconds": seconds, "reason": reason})
        self.critical.append(
            f"Task {task} is overdue: nothing came of its tick at {tick:%Y-%m-%d %H:%M:%S} UTC"
            f"{': ' if reason else ''}{reason}."
        )

    def tell_starving(self, task: str, row: Run | None) -> None:
        """Add a task whose ticks are missed one after the other, by its newest row."""
        if row is not None:
            self.critical.append(
                f"Task {task} starves: its last ticks were missed, the newest at"
                f" {row.scheduled_for:%Y-%m-%d %H:%M:%S} UTC: {row.note}."
            )

    def tell_failing(self, key: str, lasts: Lasts) -> None:
        """Add a task whose last runs failed."""
        if not lasts.failures or lasts.failing_since is None:
            return
        name, host = name_of(key), key.partition("@")[2]
        since, error = lasts.failing_since, lasts.last_error
        what = f"its last {lasts.failures:,} runs, since" if lasts.failures > 1 else "its run at"
        self.warnings.append(
            f"Task {name}{host and f' on {host}'} failed {what} {since:%Y-%m-%d %H:%M:%S} UTC:"
            f" {error}"
        )
        found = {"task": name, "count": lasts.failures, "since": since, "error": error}
        self.failing.append(found)

    def as_dict(self) -> dict[str, object]:
        """Return the findings as health() gives them."""
        return {
            "status": "critical" if self.critical else "warning" if self.warnings else "ok",
            "problems": self.critical + self.warnings,
            "loop_age": self.loop_age,
            "ledger": {
                "exists": self.exists,
                "reachable": self.skew is not None,
                "skew": self.skew,
            },
            "runners": self.runners,
            "overdue": self.overdue,
            "failing": self.failing,
        }


def _runner_values(row: RunnerRow, now: datetime) -> dict[str, object]:
    names = ("runner", "host", "pid", "version", "started_at", "beat_at", "stopped_at", "workers")
    values = {name: getattr(row, name) for name in names}
    return {**values, "alive": is_alive(row, now), "problems": row.problems}


class Seen(NamedTuple):
    """The known runs of tasks, by the keys of tasks on all hosts, and the source."""

    running: Mapping[str, Sequence[Run]]
    paused: set[str]
    lasts: Mapping[str, Sequence[Lasts]]
    source: str


class Reports:
    """Reports on tasks, runs and runners, from any process."""

    def __init__(self, settings: Settings, roster: Roster, runner: Runner) -> None:
        self._settings = settings
        self._ledger, self._clock = settings.ledger, settings.clock
        self._roster = roster
        self._live = runner.live
        self._prefix = f"{settings.namespace}/"

    # Tasks.

    def status_of(self, name: str) -> dict[str, object]:
        """Return what is known of a task, registered or not."""
        registration = self._roster.get(name)
        if registration is not None:
            return {"registered": True, **self._statuses([registration])[0]}
        nothing = dict.fromkeys(("running", "scheduled", "paused"), False)
        none = dict.fromkeys(("next_run", "last_run", "last_success"))
        return {"registered": False, **nothing, **none, "source": "this process"}

    def tasks(self) -> list[dict[str, object]]:
        """Return a dict for each task, by name."""
        known = self._roster.all()
        described = zip(map(self._description, known), self._statuses(known), strict=True)
        return [{**description, **status} for description, status in described]

    def _description(self, registration: Registration) -> dict[str, object]:
        task, trigger = registration.task, self._roster.trigger_of(registration)
        return {
            "name": task.name,
            "schedule": trigger.text if trigger else task.schedule_text or None,
            "timezone": trigger.timezone if trigger else task.timezone or self._settings.timezone,
            "startup": task.startup,
            "enabled": task.enabled,
            "description": task.description,
        }

    def _statuses(self, registrations: Sequence[Registration]) -> list[dict[str, object]]:
        try:
            if not self._ledger.exists():
                raise LedgerUnavailable("there is no ledger yet")
            seen = self._seen(registrations)
        except (LedgerUnavailable, ConfigurationError):
            live = ((run.key, run) for run in list(self._live.values()))
            seen = Seen(_by_whole_key(live), set(), {}, "this process")
        return [self._status(registration, seen) for registration in registrations]

    def _seen(self, registrations: Sequence[Registration]) -> Seen:
        one = len(registrations) == 1
        withins = _withins_of(registrations[0].key) if one else [self._prefix]
        standings = _of_all(self._ledger.standings, withins)
        lasts = _of_all(self._ledger.lasts, withins)
        self._as_they_are(each.run for each in lasts.values() if each.run)
        running = self.running(withins)
        paused = {key for key, standing in standings.items() if standing.paused_at is not None}
        by_task = _by_whole_key((run.key, run) for run in running)
        return Seen(by_task, paused, _by_whole_key(lasts.items()), "ledger")

    def running(self, withins: Iterable[str]) -> list[Run]:
        """Return the runs that go on, without those that have died with their runner."""
        found = [run for each in withins for run in self._ledger.runs(each, status=Status.RUNNING)]
        return [run for run in self._as_they_are(found) if run.status is Status.RUNNING]

    def _as_they_are(self, runs: Iterable[Run]) -> list[Run]:
        """Mark those of some runs as crashed that have died with their runner; return all.

        The ledger has them as running until a scheduler looks.  A silent one may have died.
        """
        found, now = list(runs), self._clock.now()
        suspects = {run.runner for run in found if run.status is Status.RUNNING}
        rows = self._ledger.runners(self._settings.namespace) if suspects else ()
        dead = {row.runner for row in rows if row.runner in suspects and is_dead(row)}
        for run in found:
            if run.status is Status.RUNNING and run.runner in dead:
                run.status = Status.CRASHED
                run.note = f"its runner {run.runner} has died, which the next one will record"
            elif run.status is Status.RUNNING and _is_silent(run, now):
                run.note = f"no heartbeat since {run.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"
        return found

    def _status(self, registration: Registration, seen: Seen) -> dict[str, object]:
        whole, upcoming = whole_of(registration.key), self._roster.upcoming(registration, 1)
        paused = whole in seen.paused
        comes = bool(upcoming) and registration.task.enabled and not paused
        others = seen.running.get(whole, ())
        # This process knows the latest of its own run; the ledger hears it at the next heartbeat.
        running = registration.run or first_of(others)
        last, success = _newest_of(seen.lasts.get(whole, ()))
        return {
            "running": bool(others),
            "scheduled": comes,
            "paused": paused,
            "next_run": upcoming[0] if comes else None,
            "progress": running.progress_made if running else None,
            "stop_asked_at": running.stop_asked_at if running else None,
            "last_run": last.run,
            "last_success": success,
            "failures": last.failures,
            "last_error": last.last_error,
            "source": seen.source,
        }

    def history(
        self, name: str | None, limit: int, before: str | None, statuses: Iterable[str]
    ) -> list[Run]:
        """Return the newest runs, of one task or of all, newest first."""
        if limit <= 0:
            return []
        key = f"{self._prefix}{name or ''}"
        # By key and by status, so that each is found by an index among millions of rows.
        keys = [key] if name is None else [key, *self._ledger.standings(f"{key}@")]
        asked = itertools.product(keys, set(map(Status, statuses)) or (None,))
        page: dict[str, Any] = {"before": before or "", "limit": limit}
        found = [run for key, one in asked for run in self._ledger.runs(key, status=one, **page)]
        return self._as_they_are(sorted(found, key=lambda run: run.id, reverse=True)[:limit])

    def run(self, run_id: str) -> Run | None:
        """Return a run by its id; if it runs here, with its output so far."""
        run, live = first_of(self._ledger.runs(self._prefix, id=run_id)), self._live.get(run_id)
        if run is not None and live is not None and run.status is Status.RUNNING:
            run.output, run.progress_made = live.buffer.text(), live.progress_made
        return first_of(self._as_they_are(filter(None, [run])))

    def runners(self) -> list[dict[str, object]]:
        """Return the processes that schedule, or did lately."""
        now = self._ledger.now()
        rows = self._ledger.runners(self._settings.namespace)
        return [_runner_values(row, now) for row in rows]

    # Why.

    def why(self, registration: Registration, instant: datetime | str | None) -> dict[str, object]:
        """Tell what became of a tick, and why; see Housekeeper.why()."""
        trigger, now = self._roster.trigger_of(registration), self._clock.now()
        zone = trigger.zone if trigger else zone_named(self._settings.timezone)
        if isinstance(instant, str):
            instant = parse_instant(_with_date(instant, now.astimezone(zone)), zone)
        told = Explanation(registration.task, trigger, zone)
        tick = told.tick_at(instant, now)
        run = None
        if trigger is None:
            lasts = _of_all(self._ledger.lasts, _withins_of(registration.key))
            run = _newest_of(list(lasts.values()))[0].run
        elif tick is not None and tick <= now:
            run = self._record_of(registration, trigger, tick)
            if run is None:
                self._explain_no_record(told, registration, trigger, tick)
        for each in self._as_they_are(filter(None, [run])):
            told.tell_run(each, tick)
        upcoming = self._roster.upcoming(registration, 1)
        whole = whole_of(registration.key)
        paused = any(each.paused_at for each in self._ledger.standings(whole).values())
        if not self._settings.enabled:
            told.say(f"{SWITCHED_OFF}: nothing comes.")
        told.tell_next(upcoming, paused=paused)
        return {
            "task": registration.task.name,
            "instant": instant,
            "tick": tick,
            "outcome": run.status.value if run else None,
            "run": run,
            "runner": run.runner if run else None,
            "next_run": upcoming[0] if upcoming else None,
            "sentences": told.sentences,
        }

    def _record_of(
        self, registration: Registration, trigger: Trigger, tick: datetime
    ) -> Run | None:
        """Return the row that accounts for a tick: its own, or one that stands for several."""
        for within in _withins_of(registration.key):
            row = first_of(self._ledger.runs(within, tick_from=tick, limit=1))
            if row is None or row.scheduled_for is None:
                continue
            # A count of a thousand means a thousand or more.
            if trigger.count(tick - SECOND, row.scheduled_for, KEEP_ROWS) <= row.count:
                return row
        return None

    def _explain_no_record(
        self, told: Explanation, registration: Registration, trigger: Trigger, tick: datetime
    ) -> None:
        key, whole = registration.key, whole_of(registration.key)
        if not registration.task.enabled:
            told.say("The task is disabled (enabled=False): it is run only by hand.")
            return
        for paused, resumed in self._ledger.pauses(whole):
            if paused <= tick and (resumed is None or tick <= resumed):
                until = f"until {told.at(resumed)}" if resumed else "and still is"
                told.say(f"The task was paused at {told.at(paused)}, {until}: nothing was due.")
                return
        standing = self._ledger.standings(key).get(key)
        rows = self._ledger.runners(self._settings.namespace)
        if standing and (conflict := conflict_of(registration.task.name, trigger, standing)):
            told.say(conflict)
        if standing is None:
            told.say("The ledger does not know the task: no scheduler has been started with it.")
            absence = absence_at(rows, tick) or "a scheduler was there"
            told.say(f"{absence[0].upper()}{absence[1:]}.")
        elif tick <= standing.since:
            told.say(
                f"Its ticks count from {told.at(standing.since)}, when the task was new to the"
                " ledger, its schedule was changed, or it was resumed: a schedule has no past."
            )
        elif standing.newest is not None and tick < standing.newest:
            told.say(
                f"Its row is no longer kept: {KEEP_ROWS:,} rows are kept for {KEEP_DAYS} days."
            )
        else:
            self._explain_unclaimed(told, key, tick, rows)

    def _explain_unclaimed(
        self, told: Explanation, key: str, tick: datetime, rows: Sequence[RunnerRow]
    ) -> None:
        running = first_of(self._as_they_are(self._ledger.runs(key, status=Status.RUNNING)))
        if running is not None:
            told.tell_run(running, None)
        if running is not None and running.status is Status.RUNNING:
            told.say("Ticks that pass meanwhile are recorded as skipped when it ends.")
        else:
            told.tell_pending(tick, self._clock.now(), rows)

    # Health.

    def health(
        self, problems: Iterable[str], loop_age: float | None, annals: Annals
    ) -> HealthReport:
        """Tell whether all is well."""
        report = HealthReport(warnings=list(problems), loop_age=loop_age)
        report.critical += annals.now(of_ledger=True)
        if not self._settings.enabled:
            report.warnings.append(f"{SWITCHED_OFF}: nothing runs here.")
        if loop_age is not None and loop_age > 3 * SystemClock.LONGEST_WAIT:
            words = f"The loop of this process has not run for {loop_age:.0f} s."
            report.critical.append(words)
        try:
            with ledger_calls_within(HEALTH_LIMIT):
                self._ask_ledger(report)
        except LedgerUnavailable as error:
            report.critical.append(f"The ledger cannot be reached: {error}.")
        except ConfigurationError as error:
            report.critical.append(f"The ledger cannot be used: {first_line(error)}.")
        return report

    def _ask_ledger(self, report: HealthReport) -> None:
        report.exists = self._ledger.exists()
        if not report.exists:
            raise LedgerUnavailable(f"there is none at {self._ledger.url}")
        report.skew = skew = skew_of(self._clock, self._ledger)
        now = self._clock.now() - skew * SECOND
        if abs(skew) > SKEW:
            report.warnings.append(f"This host's clock is {skew:+.1f} s from the ledger's.")
        running = self.running([self._prefix])
        rows = self._ledger.runners(self._settings.namespace)
        report.tell_runners(rows, now)
        report.warnings += [
            f"Task {run.task} runs in {run.runner}, which has sent no heartbeat"
            f" since {run.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC."
            for run in running
            if run.heartbeat_at is not None and now - run.heartbeat_at > LEASE * SECOND
        ]
        self._look_at_tasks(report, running, rows, now)

    def _look_at_tasks(
        self,
        report: HealthReport,
        running: Sequence[Run],
        rows: Sequence[RunnerRow],
        now: datetime,
    ) -> None:
        """Tell of tasks that fail, starve, are overdue, or have another schedule elsewhere."""
        standings, lasts = self._ledger.standings(self._prefix), self._ledger.lasts(self._prefix)
        hosts = [row.host for row in rows if is_alive(row, now)]
        busy = {run.key for run in running}
        keyed = [(key, each) for each in self._roster.all() for key in self._keys_of(each, hosts)]
        for key, registration in keyed:
            name, last = registration.task.name, lasts.get(key, Lasts())
            standing = standings.get(key)
            report.tell_failing(key, last)
            comes = registration.task.enabled and self._settings.enabled
            if standing is None or standing.paused_at or not comes:
                continue
            trigger = self._roster.trigger_on(registration, key)
            if conflict := conflict_of(name, trigger, standing):
                report.warnings.append(conflict)
                continue
            if key not in busy:
                tick = self._overdue(registration, trigger, standing, now)
                report.tell_overdue(name, tick, rows, now)
            report.tell_starving(name, self._missed(key, standing, last.run))

    def _keys_of(self, registration: Registration, hosts: Iterable[str]) -> list[str]:
        """Return the keys of a task, without hosts that no longer have a scheduler."""
        whole = whole_of(registration.key)
        each_host = registration.task.each_host
        return [f"{whole}@{host}" for host in dict.fromkeys(hosts)] if each_host else [whole]

    def _overdue(
        self,
        registration: Registration,
        trigger: Trigger | None,
        standing: Standing,
        now: datetime,
    ) -> datetime | None:
        """Return the tick of a task that should have an outcome, and has none."""
        tick = trigger.next_after(standing.floor) if trigger is not None else None
        late = (now - tick).total_seconds() if tick else 0.0
        # Time to find a worker, and to claim or record the tick.
        return tick if late > min(registration.task.grace, OVERDUE) + OVERDUE else None

    def _missed(self, key: str, standing: Standing, last: Run | None) -> Run | None:
        """Return the row of a task's newest tick, if this one and the one before were missed."""
        ran = last.scheduled_for if last is not None else None
        if standing.newest is None or (ran is not None and ran >= standing.newest):
            return None
        newest = self._ledger.runs(key, limit=2)
        starves = [row.status for row in newest] == [Status.MISSED] * 2
        return newest[0] if starves else None


def _with_date(text: str, now: datetime) -> str:
    """Add a date to "yesterday 3:00", and to "19:05" of the last 24 hours; keep other texts."""
    words = r"(?:(today|yesterday|\d{4}-\d\d-\d\d)[ t])?([01]?\d|2[0-3])((?::[0-5]\d){1,2})"
    found = re.fullmatch(words, " ".join(text.lower().split()))
    if found is None:
        return text
    day, time_ = found[1] or "", found[2].zfill(2) + found[3]
    if not day[:1].isdigit():
        yesterday = day == "yesterday" or (not day and time_ > f"{now:%H:%M:%S}")
        day = f"{now - yesterday * ONE_DAY:%Y-%m-%d}"
    return f"{day} {time_}"


OVERDUE = 30.0  # seconds; a tick is overdue after at most twice as many, whatever its grace


def _by_whole_key(found: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """Group values by the keys of tasks on all hosts."""
    by_task: dict[str, list[T]] = {}
    for key, each in found:
        by_task.setdefault(whole_of(key), []).append(each)
    return by_task


def _of_all(question: Callable[[str], dict[str, T]], withins: Iterable[str]) -> dict[str, T]:
    """Return the ledger's answers for several prefixes, by key."""
    return {key: each for within in withins for key, each in question(within).items()}


def _withins_of(key: str) -> list[str]:
    """Return the prefixes that cover a task on all hosts."""
    whole = whole_of(key)
    return [whole, f"{whole}@"] if key != whole else [key]


def _newest_of(lasts: Sequence[Lasts]) -> tuple[Lasts, datetime | None]:
    """Return how the newest run of all hosts went, and the newest success of any."""
    started = [each for each in lasts if each.run is not None]
    newest = max(started, key=lambda each: cast(Run, each.run).id, default=Lasts())
    return newest, max((each.success for each in lasts if each.success), default=None)


# ================================================================================================
# 17. Housekeeper: its lifecycle, and its public methods.
# ================================================================================================


NOT_LOADED = "It has not loaded what has changed in the tasks folder:"
DISCOVERY = "Discovery: %s"


def public(
    method: Callable[Concatenate[Housekeeper, P], R],
) -> Callable[Concatenate[Housekeeper, P], R]:
    """Wrap a public method: it notices a fork that Python did not report."""

    @functools.wraps(method)
    def call(self: Housekeeper, /, *args: P.args, **options: P.kwargs) -> R:
        self._check_process()
        try:
            return method(self, *args, **options)
        finally:
            # An interrupt waits while the thread is in this file; it is raised here.
            if (run := _current_run.get()) is not None:
                run.obey()

    return call


class Life:
    """The life of a Housekeeper (start, fork, stop) and its parts, each with its own lock."""

    _roster: Roster

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger, self.clock = settings.ledger, settings.clock
        self.timezone, self.namespace = settings.timezone, settings.namespace
        self.tasks_dir, self.enabled = settings.tasks_dir, settings.enabled
        self.sentry_enabled = settings.sentry_enabled
        self.shutdown_timeout = settings.shutdown_timeout
        self.problems: list[str] = []  # of the task files
        self._discovered = self._loading = False
        self._found: Discovered | None = None
        self._to_wake = False  # initialize() was called before this process was forked
        self._wakes_at_requests = False
        self._fresh()
        watch_process(self)

    def _fresh(self) -> None:
        """Set up what belongs to one process and one start."""
        settings = self.settings
        self.runner = f"{settings.host}:{getpid()}:{os.urandom(3).hex()}"
        self.metrics = Metrics()
        self._life = threading.Lock()  # guards the four flags that follow
        self._started = self._stopping = self._closed = self._scheduling = False
        annals = Annals(self.clock)
        self._timer = Timer(self.clock, self._dispatch, self._clock_jumped, self._stood_still)
        self._backlog = Backlog(self._timer, annals)
        self._sentry = SentryReporter(self.clock)
        self._tools = tools = Tools(
            self.runner, self._timer, self._backlog, annals, self._sentry, self.metrics
        )
        before = getattr(self, "_roster", None)
        self._roster = roster = Roster(settings, tools)
        if before is not None:
            roster.adopt(before)
        self._runner = Runner(settings, tools)
        self._runner.on_lost = self._enter_again
        self._upkeep = Upkeep(settings, tools, roster, self._runner)
        self._upkeep.problems = self._discovery_problems
        self._reports = Reports(settings, roster, self._runner)
        # The last: whoever finds it set finds all of it.
        self._threads_of = threads_of_this_process()

    def _discovery_problems(self) -> list[str]:
        told = [DISCOVERY % problem for problem in self.problems]
        if self._found is None or self.tasks_dir is None:
            return told
        before, now = self._found.stamps.items(), stamps_of(self.tasks_dir).items()
        names = ", ".join(sorted({name for name, _ in before ^ now}))
        return [*told, f"{NOT_LOADED} {names}; send it SIGHUP, or restart it."] if names else told

    @property
    def schedules(self) -> bool:
        """Whether this process dispatches ticks now."""
        return self._started and self._scheduling

    # Starting.

    def initialize(self, *, scheduling: bool = True) -> None:
        """Discover tasks, open the ledger, start the threads, catch up, and make the startup runs.

        scheduling=False starts no run by itself: for a shell that only runs tasks by hand.  A
        second call does nothing.  In a process that only forks a server's workers (uWSGI's master,
        gunicorn's arbiter with --preload) the workers start instead; in one that a scheduler has
        started (a task's command) that scheduler keeps the ticks.  A ledger that cannot be used or
        reached is an ERROR line, and is tried again: the application starts nevertheless.  Raises
        ConfigurationError when Sentry is enabled and has no DSN, and HousekeeperError when no
        thread can be started.

        An application that a task imports keeps no ticks either: while task files load it is not
        started, and in a run it does not schedule.
        """
        self._initialize("by initialize()", scheduling=scheduling)

    def _initialize(self, how: str, *, scheduling: bool = True) -> None:
        self._check_process()
        if LAST_RESORT.is_needed():
            logger.addHandler(LAST_RESORT)
        if held_back() or (scheduling and self._left_to_workers()) or not self._begin():
            return
        other = self._who_schedules() if scheduling else ""
        try:
            if self.sentry_enabled:
                self._sentry.start()
            self._discover_once()
            self._scheduling = scheduling and not other
            if not self._start_threads(opened=self._open_ledger()):
                return
        except BaseException:
            # Stop what was started; the next start makes all of it again.
            guarded(self._timer.close, 0.0)
            self._started, self._closed = False, True
            guarded(tell_children_no_more)
            raise
        self._tell_start(how, other)

    def _who_schedules(self) -> str:
        """Say which scheduler has started this, and keeps the ticks; or ""."""
        if (parent := scheduling_parent()) is not None:
            return (
                f"process {parent}, which started this one, does; start it without {SCHEDULER}"
                " in its environment to schedule in both"
            )
        run = _current_run.get()
        if run is not None and any(each.schedules for each in _alive if each is not self):
            return f"another one of this process does, whose task {run.task} has started it"
        return ""

    def _tell_start(self, how: str, other: str) -> None:
        """Say who schedules, and what limits that."""
        if other:
            logger.warning("Housekeeper %s does not schedule, because %s", self.runner, other)
        if library := green_threads():
            words = (
                "%s has replaced threads: no page is served while a task computes or blocks in C,"
                " and its timeout waits for that; give such work a command="
            )
            logger.warning(words, library)
        level = logging.INFO if self._scheduling else logging.DEBUG
        if self._scheduling and LAST_RESORT.is_needed():
            level = logging.WARNING  # Else nobody would see who schedules.
        words = "Housekeeper %s started %s with %s, zone %s, ledger %s"
        count = counted(len(self._roster.all()), "task")
        logger.log(level, words, self.runner, how, count, self.timezone, self.ledger.url)

    def _begin(self) -> bool:
        """Tell whether to start; only the first caller is told so."""
        if not self.enabled:
            logger.info("%s: tasks are listed, nothing runs", SWITCHED_OFF)
            self._discover_once()
            return False
        if getattr(concurrent.futures.thread, "_shutdown", False):
            raise HousekeeperError("Housekeeper does not start: the interpreter exits")
        # Held by all that call _fresh(), because it replaces all other locks.
        with noticing_fork:
            if self._started:
                return False
            if self._closed:
                self._fresh()
            self._started, self._to_wake = True, False
            return True

    def _open_ledger(self) -> bool:
        """Tell whether the ledger can be used now; the application waits 2 s for it at most."""
        try:
            with ledger_calls_within(HEALTH_LIMIT):
                self.ledger.open()
        except (LedgerUnavailable, ConfigurationError) as error:
            logger.error(
                "Ledger %s cannot be used now, and will be tried again; create_housekeeper(ledger"
                "=...) or HOUSEKEEPER_LEDGER sets another place: %s",
                self.ledger.url,
                error,
            )
            return False
        if warning := release_folder_warning(getattr(self.ledger, "path", "")):
            logger.warning("%s", warning)
        return True

    def _start_threads(self, *, opened: bool) -> bool:
        """Start the threads; then enter the tasks, and plan the startup runs.

        Returns False when a signal has begun a shutdown during the wait for the ledger.
        """
        if green_threads():
            # It is held while a thread starts.  All greenlets would hang on a real one, which
            # eventlet, and gevent before 26.8, have left there.
            vars(concurrent.futures.thread)["_global_shutdown_lock"] = threading.Lock()
        with self._life:
            if self._stopping or not self._started:
                return False
            if self._scheduling:
                self._roster.start(self._timer)
                tell_children()
            self._runner.start()
        try:
            self._timer.start()
        except RuntimeError as error:
            raise HousekeeperError(
                f"no thread could be started for Housekeeper: {error}"
            ) from error
        self._upkeep.start(scheduling=self._scheduling, opened=opened)
        if opened:
            self._bind()
        else:
            # The application does not wait for the ledger twice.
            self._backlog.soon(self._bind)
        for registration in self._roster.all() if self._scheduling else ():
            if registration.starts_up:
                startup = registration.task.startup
                delay = 0.0 if startup is True else float(startup)
                self._timer.after(delay, self._runner.dispatch_startup, registration)
        return True

    def _bind(self) -> None:
        """Enter new tasks in the ledger; try again later when it is away."""
        if not self._started or self._runner.workers is None or self._stopping:
            return  # Done once the threads are started.
        try:
            self._roster.bind()
        except Exception as error:
            if not isinstance(error, LedgerUnavailable | ConfigurationError):
                logger.exception("Tasks could not be entered in the ledger")
            pause = self._backlog.pause_after("Tasks could not be entered in the ledger", error)
            self._timer.after(pause, self._backlog.soon, self._bind)
        else:
            self._backlog.worked()

    def _dispatch(self, ticks: list[tuple[datetime, Registration]]) -> None:
        try:
            for registration in self._roster.due(ticks):
                self._runner.dispatch(registration)
        except BaseException:
            # The rest is off the agenda; the ledger knows up to where ticks are accounted for.
            self._timer.after(1.0, self._enter_again)
            raise

    def _stood_still(self, seconds: float) -> None:
        now = self.clock.now()
        self._tools.annals.add("the process stood still", now - seconds * SECOND, now)

    def _clock_jumped(self, jump: float) -> None:
        now = self.clock.now()
        self._tools.annals.add(f"the clock jumped by {jump:+.0f} s", now - abs(jump) * SECOND, now)
        self._upkeep.clock_jumped(jump)
        if jump < 0:
            # The ledger knows up to where ticks are accounted for; ticks that come a second time
            # are on record already, and lose their claims.
            self._enter_again()

    def _enter_again(self) -> None:
        self._roster.rebind()
        self._backlog.soon(self._bind)

    # Processes.

    def _left_to_workers(self) -> bool:
        """Tell whether to leave the start to the workers that a server forks from here."""
        if not self.enabled:
            return False
        self._wake_at_requests()
        put_off = start_put_off()
        if put_off:
            self._to_wake = True
            logger.warning("Housekeeper is not started %s", put_off)
        return bool(put_off)

    def _wake_at_requests(self) -> None:
        """Have the first request in a forked process start it there, through app.wsgi_app."""
        app: Any = self.settings.app
        inner = getattr(app, "wsgi_app", None)
        if self._wakes_at_requests or not callable(inner):
            return
        self._wakes_at_requests = True

        def waking(environ: object, start_response: object) -> object:
            self.wake()
            return inner(environ, start_response)

        app.wsgi_app = waking

    def wake(self, *, how: str = "at its first request") -> None:
        """Start here too when initialize() was called in the process that this was forked from.

        Each request through a Flask application calls it: it is cheap, and never raises, so that
        the site does not fail with its maintenance.  how: for the log.
        """
        self._check_process()
        if not self._to_wake:
            return
        self._to_wake = False
        try:
            self._initialize(f"{how} (initialize() came before that)")
        except Exception:
            logger.exception("Housekeeper could not be started in this process")

    def _check_process(self) -> None:
        """Notice a fork that Python was not told of (uWSGI forks in C), and replaced threads."""
        now = threads_of_this_process()
        if self._threads_of == now:
            return
        if self._started and self._threads_of[0] == getpid():
            self._threads_of = now
            words = "Housekeeper may stand still: %s has replaced threads after initialize()"
            logger.error(words, green_threads())
            return
        with noticing_fork:
            if self._threads_of != now:
                self.after_fork_in_child()

    def after_fork_in_child(self, *, worker: bool = True) -> None:
        """Forget the parent's threads, runs and connection: this process is not started.

        A server's worker starts with its first request if the parent was started; a process that a
        task has forked does not.
        """
        self._to_wake = worker and (self._to_wake or self.schedules) and _current_run.get() is None
        self.ledger.forget()
        for registration in self._roster.all():
            registration.run = registration.unsure = None
        self._fresh()

    # Task files.

    def _discover_once(self) -> None:
        if self._discovered:
            return
        with discovering:
            # Not again for a task file that asks while it loads.
            if not self._discovered and not self._loading:
                for problem in self.discover():
                    logger.error(DISCOVERY, problem)

    def discover(self) -> list[str]:
        """Load or reload the files of `tasks_dir`; return what is wrong with them, a line each.

        Tasks of new files are registered, of changed ones replaced, of deleted ones unregistered.
        A file that does not load leaves its tasks as they were.
        """
        with discovering:
            self._loading = True
            try:
                if self.tasks_dir is not None:
                    self._found = found = discover_tasks(self.tasks_dir)
                    self._register_found(found)
                self._discovered = True
            finally:
                self._loading = False
        self._bind()
        return list(self.problems)

    def _register_found(self, found: Discovered) -> None:
        problems = list(found.problems)
        roster = self._roster
        for registration in roster.all():
            source = registration.source
            kept = found.unreadable or source in found.broken
            if source and not kept and registration.task.name not in found.tasks:
                roster.unregister(registration.task.name)
        for task, source in found.tasks.values():
            known = roster.get(task.name)
            if known is not None and known.source is None:
                problems.append(f"{source}: the name {task.name!r} is registered already")
                continue
            try:
                roster.register(task, source, replace=True)
            except ConfigurationError as error:
                problems.append(f"{source}: {error}")
        self.problems = problems

    # Stopping.

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stop dispatching, and wait for runs; True when every worker ended in time.

        At the limit (seconds; None: shutdown_timeout) runs are asked to stop, and 2 s later they
        are abandoned and recorded as cancelled: call it when the process is about to end.  It does
        not raise what fails on the way, and takes at most 5 s more than the limit.
        """
        self._check_process()
        limit = self.shutdown_timeout if timeout is None else timeout
        until = self.clock.monotonic() + limit
        with self._life:
            if not self._started or self._stopping:
                return not self._runner.live
            self._stopping = True
        shutdown = Shutdown(self._runner, self.settings, limit, until)
        guarded(shutdown.stop)
        end = max(until, self.clock.monotonic()) + STOP_WAIT
        hanging = guarded(shutdown.abandon, end - 1.0, self._tools)

        def left(most: float) -> float:
            return max(0.0, min(most, end - self.clock.monotonic()))

        with ledger_calls_within(left(1.0)):
            guarded(self._upkeep.close)
        guarded(self._sentry.close, left(STOP_WAIT))
        guarded(self._timer.close, left(1.0))
        guarded(self._runner.close)
        guarded(self._backlog.close)
        with ledger_calls_within(left(0.5)):
            guarded(self.ledger.close)
        with self._life:
            self._started, self._closed = False, True
        guarded(tell_children_no_more)
        level = logging.INFO if self._scheduling else logging.DEBUG
        logger.log(level, "Housekeeper %s stopped", self.runner)
        return hanging is False

    def kill_commands(self) -> None:
        """Kill the processes of all commands that run here, before this process ends at once."""
        self._runner.kill_commands()


class Housekeeper(Life):
    """Runs tasks at their ticks.  Make one with create_housekeeper(); every method is thread-safe.

    One timer thread computes ticks and dispatches; it does no I/O.  Workers claim ticks in the
    ledger and run tasks.  One more thread keeps the ledger: heartbeats, late writes, retention.
    """

    # Tasks.

    @public
    def register_task(self, task: Task, replace: bool = False) -> None:
        """Register a task in this process only, at any time, even from inside a task.

        Raises ConfigurationError when its name is taken and `replace` is false.  A run of a
        replaced task goes on; ticks count from now if the schedule changed.  Other processes keep
        the task that they have: health() reports schedules that differ.
        """
        self._roster.register(task, None, replace=replace)
        self._bind()

    @public
    def unregister_task(self, name: str) -> None:
        """Forget a task; its run goes on.  Raises UnknownTask."""
        self._known(name)
        self._roster.unregister(name)

    def _known(self, name: str) -> Registration:
        self._discover_once()
        registration = self._roster.get(name)
        if registration is None:
            raise self.unknown_task(name)
        return registration

    def unknown_task(self, name: str) -> UnknownTask:
        """Return the error for a name that no task has; it says when a file did not load."""
        why_unloaded = self._found.reason(name) if self._found is not None else None
        return UnknownTask(name, self.task_names(), why_unloaded or "")

    @public
    def run_task_manually(self, name: str, wait: bool = True) -> LiveRun:
        """Run a task now, even if it is paused, but not while it is running.

        With wait=True, return the finished run, or raise what the task raised (RunFailed for
        anything but an Exception: a timeout, a cancel, sys.exit); with wait=False, return the run
        at once.  With wait=True in a task or a hook, it runs in the same thread.  Raises
        UnknownTask, AlreadyRunning, LedgerUnavailable.
        """
        registration = self._known(name)
        if not self.enabled:
            raise HousekeeperError(f"{SWITCHED_OFF}: no task is run")
        if not self._started:
            raise HousekeeperError("Housekeeper is not running; call initialize() first")
        hold = self._runner.claim_by_hand(registration)
        self._runner.run_by_hand(hold, wait=wait)
        run = cast(LiveRun, hold.run)
        while wait and not run.ended.is_set():
            self.clock.wait(run.ended, None)
        if wait:
            _raise_outcome(run)
        return run

    @public
    def cancel(self, name: str) -> Run | None:
        """Ask a task's running runs to stop; other processes hear of it at a heartbeat.

        Returns one, or None when the task is not running.  Raises UnknownTask, LedgerUnavailable.
        """
        registration = self._known(name)
        note = f"cancelled by {self.runner}"
        mine = registration.run
        if mine is not None:
            self._runner.stop_run(mine, Status.CANCELLED, note, insist=False)
        asked: Run | None = mine
        for other in self._reports.running(_withins_of(registration.key)):
            if mine is None or other.id != mine.id:
                self.ledger.ask_to_stop(other.id, Status.CANCELLED.value, note)
                asked = asked or first_of(self.ledger.runs(id=other.id))
        return asked

    @public
    def pause_task(self, name: str) -> bool:
        """Pause a task's schedule in every process, restarts included; False when it was paused.

        It can still be run by hand.  Raises UnknownTask, LedgerUnavailable.
        """
        return self.ledger.pause(whole_of(self._known(name).key))

    @public
    def resume_task(self, name: str) -> bool:
        """End a pause; ticks count from now.  False when the task was not paused."""
        registration = self._known(name)
        resumed = self.ledger.resume(whole_of(registration.key))
        if resumed:
            self._roster.resumed(registration)
        return resumed

    # What is told.

    @public
    def next_runs(self, name: str, count: int = 5) -> list[datetime]:
        """Return the next ticks of a task, in UTC.  Raises UnknownTask."""
        return self._roster.upcoming(self._known(name), count)

    @public
    def get_task_status(self, name: str) -> dict[str, object]:
        """Return what is known of a task, registered or not.

        The keys: "registered", "running", "scheduled", "paused", "next_run", "last_run",
        "last_success", "failures" (runs that failed in a row), "last_error".  The answers come
        from the ledger; "source" is "this process" when it is out of reach.
        """
        self._discover_once()
        return self._reports.status_of(name)

    @public
    def list_tasks(self) -> list[dict[str, object]]:
        """Return a dict for each task, by name: its name, schedule, zone and status."""
        self._discover_once()
        return self._reports.tasks()

    @public
    def task_names(self) -> list[str]:
        """Return the names of the registered tasks, in order; asks no ledger."""
        self._discover_once()
        return [each.task.name for each in self._roster.all()]

    @public
    def unmonitored(self) -> dict[str, str]:
        """Return the scheduled tasks for which Sentry cannot have a monitor, with the reasons.

        Empty when Sentry is not enabled; asks no ledger.
        """
        self._discover_once()
        reasons: dict[str, str] = {}
        for registration in self._roster.all() if self.sentry_enabled else ():
            task = registration.task
            if task.schedule is None or task.sentry is False:
                continue
            try:
                zone = task.timezone or self.timezone
                make_monitor(task, registration.key, make_trigger(task.schedule, zone, "any"))
            except ConfigurationError as error:
                reasons[task.name] = str(error)
        return reasons

    @public
    def workload(self) -> dict[str, int]:
        """Return the numbers of workers, of running tasks and of queued tasks here."""
        running, queued = self._runner.load()
        return {"workers": self.settings.max_workers, "running": running, "queued": queued}

    @public
    def history(
        self,
        name: str | None = None,
        limit: int = 50,
        before: str | None = None,
        statuses: Iterable[str] = (),
    ) -> list[Run]:
        """Return the newest runs, of one task or of all, newest first.

        `before` is the id of a run, and gives those older than it: the next page; `statuses`
        gives only those that became one of them.  Runs of tasks that are not registered any more
        are there too.  Raises LedgerUnavailable.
        """
        return self._reports.history(name, limit, before, statuses)

    @public
    def get_run(self, run_id: str) -> Run | None:
        """Return a run of this namespace, or None; if it runs here, with its output so far.

        Raises LedgerUnavailable.
        """
        return self._reports.run(run_id)

    @public
    def runners(self) -> list[dict[str, object]]:
        """Return the processes that scheduled in the last 90 days, the most recently seen first.

        The keys: "runner", "host", "pid", "version", "workers", "started_at", "beat_at",
        "stopped_at" (None until its end is known), "alive", "problems" (sentences).
        Raises LedgerUnavailable.
        """
        return self._reports.runners()

    @public
    def why(self, name: str, instant: datetime | str | None = None) -> dict[str, object]:
        """Tell what became of a tick, and why, in sentences.

        It is the tick in the minute that begins at an instant, or the latest one; a text such as
        ``2026-03-29 02:30`` or ``19:05`` is read in the task's zone.  The keys: "task", "instant",
        "tick" and "outcome" (None when there is none), "run" (the row), "runner", "next_run",
        "sentences".  Raises UnknownTask, LedgerUnavailable, ConfigurationError for no instant.
        """
        return self._reports.why(self._known(name), instant)

    @public
    def health(self) -> dict[str, object]:
        """Tell whether all is well, from any process; each ledger call takes 2 s at most.

        The keys: "status" ("ok", "warning" or "critical"), "problems" (sentences), "started" and
        "loop_age" (seconds) of this process's scheduler, "ledger" ("exists", "reachable", and
        "skew", the seconds by which this host's clock is ahead), "runners" as runners() gives
        them, "overdue" (ticks that should have an outcome), "failing" (tasks, with "count",
        "since" and "error"), "runner", "version".
        """
        self._discover_once()
        age = self._timer.age if self.schedules else None
        report = self._reports.health(self._discovery_problems(), age, self._tools.annals)
        return {
            **report.as_dict(),
            "started": self._started,
            "runner": self.runner,
            "version": __version__,
        }

    def beat_every(self, seconds: float, beat: Action) -> None:
        """Have the timer thread call something every so many seconds, for a watchdog."""
        # The next call is planned first, so that one that fails is not the last.
        self._timer.after(seconds, self.beat_every, seconds, beat)
        beat()

    # Doors.

    @public
    def web_app(self, token: str | None = None, authorize: Authorize | None = None) -> WebApp:
        """Return the dashboard, the JSON API and the metrics as one WSGI application.

        Callers need `token` as ``Authorization: Bearer``, or `authorize(environ)` to be true; with
        neither, all is refused.  Raises ConfigurationError for a token that could be guessed.
        """
        return WebApp(self, token, authorize)

    @public
    def mount(
        self,
        wsgi_app: WsgiApp,
        prefix: str = "/api/housekeeper",
        token: str | None = None,
        authorize: Authorize | None = None,
    ) -> WsgiApp:
        """Return a WSGI application: web_app() below a prefix, and `wsgi_app` elsewhere.

        In Flask: ``app.wsgi_app = housekeeper.mount(app.wsgi_app, token=...)``.
        """
        return mounted(WebApp(self, token, authorize), prefix, wsgi_app)


def _raise_outcome(run: LiveRun) -> None:
    error = run.exception
    if run.status in (Status.SUCCEEDED, Status.SKIPPED):
        return
    if run.status is Status.FAILED and isinstance(error, Exception):
        raise error
    raise RunFailed(run) from error


def create_housekeeper(
    app: object = None,
    *,
    enabled: bool = True,
    sentry_enabled: bool = False,
    timezone: str = "UTC",
    tasks_dir: str | os.PathLike[str] | None = "tasks",
    ledger: str = "sqlite:///housekeeper.db",
    namespace: str = "",
    max_workers: int = 10,
    shutdown_timeout: float = 30.0,
    around_run: AroundRun | None = None,
    on_finish: Callable[[Run], object] | None = None,
    clock: Clock | None = None,
) -> Housekeeper:
    """Make a Housekeeper; nothing happens before its initialize().

    app: handed to tasks that take it; a Flask application also gives each run its app_context().
    enabled: False lists tasks and runs nothing: for test suites, shells and migrations.  So does
        HOUSEKEEPER_ENABLED=0 in the environment.
    sentry_enabled: check in with Sentry Crons and send failures as events, through the client of
    the application's sentry_sdk.init().
    timezone: of all schedules that name none.
    tasks_dir: the folder of task files, relative to this file's; None: only register_task().
    ledger: ``sqlite:///housekeeper.db`` (relative to this file's folder), ``postgresql://...``
        for several hosts, or ``memory://``.
    namespace: set it when several applications share one ledger.
    max_workers: how many tasks run at the same time.
    shutdown_timeout: seconds that a shutdown waits for running tasks.
    around_run: returns a context manager to enter around each run, such as a scoped session.
    on_finish: called with each run after it was recorded.

    Raises ConfigurationError with what is wrong.
    """
    zone_named(timezone)
    check_option("enabled", enabled, IS_FLAG)
    if not isinstance(sentry_enabled, bool):  # It may be a DSN, which is not shown.
        raise ConfigurationError("sentry_enabled is a bool; the DSN goes to sentry_sdk.init()")
    if type(max_workers) is not int or max_workers < 1:
        raise ConfigurationError(f"max_workers {max_workers!r} is not a whole number of 1 or more")
    check_option("shutdown_timeout", shutdown_timeout, IS_SECONDS)
    if not isinstance(namespace, str) or not re.fullmatch("[A-Za-z0-9._-]{0,100}", namespace):
        raise ConfigurationError(
            f"namespace {namespace!r} is not up to 100 letters, digits, dots, dashes, underscores"
        )
    if tasks_dir is not None:
        check_option("tasks_dir", tasks_dir, IS_PATH)
    for name, function in (("around_run", around_run), ("on_finish", on_finish)):
        if function is not None and not callable(function):
            raise ConfigurationError(f"{name}={function!r} is not callable")
    here = Path(__file__).resolve().parent
    clock = clock or SystemClock()
    settings = Settings(
        app=app,
        enabled=bool(enabled) and variable("HOUSEKEEPER_ENABLED").lower() not in OFF,
        sentry_enabled=sentry_enabled,
        timezone=zone_name(timezone),
        tasks_dir=None if tasks_dir is None else here / tasks_dir,
        ledger=ledger_from_url(ledger, here, clock),
        namespace=plain(namespace),
        max_workers=max_workers,
        shutdown_timeout=shutdown_timeout,
        around_run=around_run,
        on_finish=on_finish,
        clock=clock,
    )
    return Housekeeper(settings)


# ================================================================================================
# 18. Page: the dashboard's HTML, style and script.
# ================================================================================================

# Separate files, so that the page works under a strict content security policy: no inline script
# or style, nothing from other hosts.  It holds no data.

PAGE_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Housekeeper</title>
<link id="icon" rel="icon" href="dashboard.svg" type="image/svg+xml">
<link rel="stylesheet" href="dashboard.css">
<script src="dashboard.js" defer></script>
</head>
<body>
<header>
  <h1>Housekeeper</h1>
  <p id="health" role="status">Connecting</p>
  <p id="facts"></p>
  <label class="inside" hidden>Times in <select id="zone"></select></label>
  <p id="alarm" role="alert" hidden></p>
  <p id="said" role="status"></p>
</header>
<main>
  <form id="sign-in" hidden>
    <h2>Sign in</h2>
    <p>The token is what the scheduler was given in <code>HOUSEKEEPER_TOKEN</code>, or printed
      when it started. This tab remembers it until it is closed.</p>
    <label for="token">Token</label>
    <p class="line"><input id="token" type="password" autocomplete="off" required>
      <button class="main">Open</button></p>
    <p id="refused" role="alert"></p>
  </form>
  <div id="board" class="inside" hidden>
    <details id="runners"><summary id="runners-summary"></summary>
      <ul id="runners-list"></ul></details>
    <ul id="problems" aria-label="Problems" tabindex="0"></ul>
    <div id="ahead">
      <section>
        <h2>Next 24 hours</h2>
        <svg id="day" role="img" aria-labelledby="day-note" tabindex="0"></svg>
        <p id="day-note" aria-live="polite"></p>
      </section>
      <section><h2>What comes next</h2><ol id="next"></ol></section>
    </div>
    <section id="feed">
      <div class="line"><h2>Recent</h2><select id="outcome" aria-label="Outcome"></select></div>
      <ul id="events" aria-label="Recent" tabindex="0"></ul>
    </section>
    <section id="all">
      <div class="line">
        <h2>Tasks</h2>
        <div id="filters" role="group" aria-label="Which tasks"></div>
        <select id="sort" aria-label="Order"></select>
        <label><input id="grouped" type="checkbox"> Groups</label>
        <input id="search" type="search" placeholder="Search" aria-label="Search tasks">
        <div class="line" id="several">
          <label><input id="every" type="checkbox"> <span id="chosen">Select all</span></label>
        </div>
      </div>
      <ul id="tasks"></ul>
      <p id="none" hidden>No task matches.</p>
      <details id="legend"><summary>Legend</summary></details>
    </section>
  </div>
</main>
<dialog id="detail" aria-labelledby="detail-name">
  <div class="line"><h2 id="detail-name"></h2><button id="detail-close">Close</button></div>
  <p id="detail-about"></p>
  <div id="detail-state"></div>
  <dl id="detail-facts"></dl>
  <h3>Durations</h3>
  <svg id="chart" viewBox="0 0 600 90" preserveAspectRatio="none" aria-hidden="true"></svg>
  <p id="chart-note" class="about"></p>
  <form id="why">
    <h3>Why?</h3>
    <label for="why-instant">Why did it run, or not run, at this time in
      <span id="why-zone"></span>?</label>
    <p class="line"><input id="why-instant" type="datetime-local" step="1" min="1970-01-01T00:00"
      max="9998-12-31T00:00"><button>Ask</button></p>
    <ul id="why-answer" aria-live="polite"></ul>
  </form>
  <h3>Runs</h3>
  <div id="detail-runs"></div>
  <p id="runs-note"></p>
  <button id="more" hidden>Older runs</button>
</dialog>
</body>
</html>
"""

PAGE_ICON = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="8" fill="#2c6e5a"/>
<path d="M9 23v-6M16 23V9M23 23v-10" stroke="#fff" stroke-width="4" stroke-linecap="round"/>
</svg>
"""

PAGE_TROUBLE = PAGE_ICON.replace("#2c6e5a", "#b3261e")

PAGE_CSS = """\
:root {
  color-scheme: light dark;
  --ground: light-dark(#f6f6f3, #14171a); --card: light-dark(#fff, #1b1f23);
  --line: light-dark(#e2e2dc, #2e343a); --text: light-dark(#20242a, #e7e8e6);
  --soft: light-dark(#5b636c, #a0a8b0); --off: light-dark(#646b74, #8f979f);
  --good: light-dark(#2c6e5a, #7cc4aa); --bar: light-dark(#8fb8a9, #4f8a76);
  --bad: light-dark(#b3261e, #ff9088); --bad-ground: light-dark(#fbeceb, #3a2120);
  --warn: light-dark(#8a5300, #e8b766); --warn-ground: light-dark(#fbf1df, #352a17);
  --live: light-dark(#2759b0, #8db5f7);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
* { box-sizing: border-box; } [hidden] { display: none !important; }
body { margin: 0; background: var(--ground); color: var(--text); overflow-wrap: anywhere; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; padding-top: 16px; }
main { padding-bottom: 40px; } section { margin-top: 24px; min-width: 0; }
h1 { font-size: 20px; } h2 { font-size: 16px; } h3 { font-size: 15px; }
h1, h2, h3, p, ul, ol, dl, dd { margin: 0; padding: 0; list-style: none; }
code, pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
.line, .acts { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; }
.about, .exact, .last, .group, .when code, dt, header label, #facts, #runners, #day-note, #none,
#legend { color: var(--soft); }
.about, .exact, .last, .error, .group, #runners, #several, #said, #day-note, #next, #events,
#none, #legend { font-size: 13px; }
.error, .note { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }

button, input, select { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; padding: 5px 12px; min-height: 34px; }
select { padding: 5px 8px; max-width: 100%; }
[type=checkbox] { min-height: 0; width: 16px; height: 16px; margin: 0; vertical-align: -3px; }
button, select, summary, label:has([type=checkbox]), #chart rect { cursor: pointer; }
button:hover { border-color: var(--soft); } a:hover, .name:hover { text-decoration: underline; }
button.main { background: var(--good); border-color: var(--good); color: var(--card); }
a { color: inherit; font-weight: 600; text-decoration: none; }
:focus-visible { outline: 2px solid var(--live); outline-offset: 2px; }

#health.ok, .succeeded { color: var(--good); } .running, #said { color: var(--live); }
.failed, .crashed, .error, #health.critical, #refused { color: var(--bad); }
.timed_out, .warning, .tag { color: var(--warn); }
.cancelled, .skipped, .missed, .lost { color: var(--off); }
#health, .outcome, .group { font-weight: 600; }
#health::before { content: "●"; margin-right: 6px; } #facts { flex: 1; }
#alarm, #said { flex-basis: 100%; }
#alarm { margin-top: 8px; padding: 18px 20px; border-radius: 12px;
  font-size: 22px; font-weight: 650; background: #b3261e; color: #fff; }
#runners { margin-top: 4px; } #runners li { padding: 2px 0 2px 14px; }
#problems { max-height: 142px; overflow: auto; color: var(--text); }
#problems li { padding: 8px 14px; border-radius: 8px; margin-top: 8px;
  background: var(--warn-ground); }
#problems.critical li { background: var(--bad-ground); }
#sign-in { max-width: 480px; margin: 12vh auto 0; padding: 24px; display: grid; gap: 10px;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
#sign-in input { flex: 1; min-width: 0; } #refused { min-height: 1.5em; }

#board { display: flex; flex-direction: column; }
#ahead { display: grid; grid-template-columns: minmax(0, 1fr) 430px; gap: 0 40px; }
#day, #next, #events, #tasks, #why-answer { margin-top: 8px; }
#day { display: block; width: 100%; height: 88px; }
#day text { font-size: 11.5px; fill: var(--soft); } #day line, .ground { stroke: var(--line); }
#day .bar, #day .band { fill: var(--bar); } #day .band { opacity: .55; }
#day g:hover .bar, #day .here .bar { fill: var(--live); }
#next li, #events li { display: grid; grid-template-columns: 74px minmax(0, 1fr) auto;
  gap: 2px 14px; padding: 1px 0; }
#events { max-height: 150px; overflow: auto; }
#events li { grid-template-columns: 154px 170px 80px minmax(0, 1fr) auto; padding: 5px 0;
  border-top: 1px solid var(--line); }

#filters { display: flex; gap: 6px; flex: 1; }
#filters button { border-radius: 17px; white-space: nowrap; }
#filters [aria-pressed=true] { background: var(--text); color: var(--ground); }
#search { width: 180px; } #several { flex-basis: 100%; padding-left: 17px; }
#tasks { border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
#tasks > li + li, #detail-runs details { border-top: 1px solid var(--line); }
#none, #legend { margin-top: 16px; } .group { padding: 6px 16px; }
.task {
  display: grid; gap: 2px 20px; align-items: center; padding: 12px 16px; background: var(--card);
  grid-template: "box what when runs acts" 1fr "box error error runs acts"
    / 16px minmax(0, 4fr) minmax(0, 5fr) 256px 186px;
  content-visibility: auto; contain-intrinsic-size: auto 84px;
}
.task.attention { box-shadow: inset 4px 0 var(--bad); } .task > input { grid-area: box; }
.what { grid-area: what; } .when { grid-area: when; } .runs { grid-area: runs; }
.task .error { grid-area: error; } .acts { grid-area: acts; justify-content: flex-end; }
.name, .bars { padding: 0; border: 0; background: none; min-height: 0; text-align: left; }
.name { font-weight: 600; } .tag { margin-left: 8px; font-size: 12px; }
.when code { display: inline-block; } .when span:not(:empty), summary span { margin-right: 8px; }
.bars, .bars svg { display: block; width: 240px; height: 34px; max-width: 100%; }
progress { width: 100%; height: 6px; accent-color: var(--live); }

.mark { fill: currentColor; stroke: currentColor; stroke-width: 0; }
.mark.hollow { fill: none; stroke-width: 1.5; } .mark.cross { fill: none; stroke-width: 2.5; }
g.succeeded, #chart .succeeded, #legend .succeeded svg { color: var(--bar); }
#legend span { display: inline-flex; align-items: center; gap: 6px; margin: 8px 18px 0 0; }
#legend svg { width: 10px; height: 20px; }

dialog { width: min(720px, 100vw); max-width: none; height: 100dvh; max-height: none;
  margin: 0 0 0 auto; padding: 20px; border: 0; border-left: 1px solid var(--line);
  background: var(--ground); color: var(--text); }
dialog::backdrop { background: rgb(0 0 0 / .35); }
dialog > .line { justify-content: space-between; } dialog h3 { margin: 20px 0 8px; }
dialog .acts { justify-content: flex-start; margin: 10px 0 6px; }
dialog .error { white-space: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin-top: 12px; }
#chart { display: block; width: 100%; height: 90px; } #chart rect { fill: currentColor; }
#chart line { stroke: var(--text); vector-effect: non-scaling-stroke; }
#chart .p95 { stroke-dasharray: 5 4; } #detail-runs details { padding: 8px 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; margin: 6px 0 12px; max-height: 50vh; overflow: auto;
  white-space: pre-wrap; }

@media (max-width: 900px) {
  header, main { padding: 0 12px; } header { padding-top: 12px; }
  #ahead { grid-template-columns: minmax(0, 1fr); } #feed, #ahead { order: 1; }
  #events li { grid-template-columns: minmax(0, 1fr) auto; }
  #events a, #events .outcome { order: -1; } #events .note { grid-column: 1 / -1; order: 1; }
  #all { margin-top: 12px; } #filters { overflow-x: auto; flex-basis: 100%; order: 1; }
  #search { flex: 1; width: 90px; } #several { flex-basis: auto; padding: 0; }
  .task { grid-template: "box what acts" "box when when" "box runs runs" "box error error"
    / 16px minmax(0, 1fr) auto; gap: 4px 12px; }
}
@media (max-width: 480px) {
  #facts, #all h2 { display: none; } #zone { max-width: 250px; }
  #filters button { flex: auto; padding: 5px 7px; font-size: 14px; }
  .task { grid-template: "box what" "when when" "runs runs" "error error" "acts acts"
    / 16px minmax(0, 1fr); padding: 10px 12px; }
  .acts button { flex: 1; min-height: 40px; } dialog { padding: 14px; }
}
"""

PAGE_JS = """\
"use strict";

// Elements.  Whatever comes from the server becomes text, never markup.

const $ = (id) => document.getElementById(id);
const DRAWN = new Set(["svg", "g", "rect", "path", "circle", "line", "text", "title"]);

// Makes "tag.class.class" of attributes, listeners, texts and elements, in any order.
function make(what, ...parts) {
  const [tag, ...classes] = what.split("."), space = "http://www.w3.org/2000/svg";
  const element = DRAWN.has(tag) ? document.createElementNS(space, tag)
    : document.createElement(tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const part of parts.flat()) {
    if (typeof part === "string" || part instanceof Node) element.append(part);
    else for (const [name, value] of Object.entries(part)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else element.setAttribute(name, value);
    }
  }
  return element;
}

const button = (text, click, kind = "") => make(`button${kind}`, {type: "button", click}, text);

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Fills a list; one that would say the same is left alone, with its focus and its selection.
function fill(id, items, none = "") {
  const made = items.map((parts) => make("li", ...[parts].flat()));
  if (!made.length && none) made.push(make("li.about", none));
  if ($(id).textContent !== made.map((each) => each.textContent).join("")) {
    $(id).replaceChildren(...made);
  }
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const several = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const some = (names, number) => names.slice(0, number).join(", ")
  + (names.length > number ? ", ..." : "");

let silence;
function say(text, place = document.querySelector("header")) {
  // Beside what it is about, so that it covers nothing.  An open dialog hides what is outside.
  ($("detail").open ? $("detail-state") : place).append($("said"));
  write($("said"), text);
  clearTimeout(silence);
  silence = setTimeout(() => write($("said"), ""), 6000);
}

// The server: a token that this tab remembers, and calls.

let token = sessionStorage.getItem("housekeeper-token") || "";
let ahead = 0;  // milliseconds that the server's clock is ahead of this one

function remember(text) {
  token = text.trim();
  sessionStorage.setItem("housekeeper-token", token);
}

async function call(path, method = "GET") {
  const headers = {"X-Housekeeper": "dashboard"};
  // A header is bytes, one a character.
  const bytes = new TextEncoder().encode(token);
  if (token) headers.Authorization = `Bearer ${String.fromCharCode(...bytes)}`;
  const response = await fetch(path, {method, headers, signal: AbortSignal.timeout(30000)});
  return response.json();
}

// The names of tasks and the ids of runs have no characters that an address would encode.
const pathOf = (name, rest) => `tasks/${name}/${rest}`;
const addressOf = (kind, id) => `./#${kind}/${id}`;
const linkTo = (kind, id, text = id) => make("a", {href: addressOf(kind, id)}, text);

// Time in words, in the zone that was chosen.

const now = () => Date.now() + ahead;
const minute = () => Math.floor(now() / 60000);
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const ZONES = {viewer: `${HERE} (this browser)`, task: "each task's zone", UTC: "UTC"};
let zoning = sessionStorage.getItem("housekeeper-zone") || "viewer";
const formats = new Map();

// Dates are written as in Sweden: 2026-03-29 02:30:00.
function formatOf(zone, parts, language = "en-GB") {
  const key = `${zone} ${Object.keys(parts)}`;
  if (!formats.has(key)) {
    formats.set(key, new Intl.DateTimeFormat(language, {...parts, timeZone: zone}));
  }
  return formats.get(key);
}

function zoneOf(task) {
  const zone = zoning === "UTC" ? "UTC" : zoning === "task" && task ? task.timezone : HERE;
  try {
    return formatOf(zone, CLOCK) && zone;
  } catch {
    return "UTC";  // This browser does not know the zone.
  }
}

function lasting(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function relative(instant) {
  const seconds = (new Date(instant) - now()) / 1000, far = Math.abs(seconds);
  let words = `${Math.round(far / 86400)} days`;
  if (far < 60) words = `${Math.floor(far)} s`;
  else if (far < 5400) words = `${Math.round(far / 60)} min`;
  else if (far < 172800) words = `${Math.round(far / 3600)} h`;
  return seconds < 0 ? `${words} ago` : `in ${words}`;
}

// What has happened is never "in 2 s", however far the clocks are apart.
const ago = (instant) => relative(Math.min(Date.parse(instant), now() - 1));
// A tick that has just passed is not "1 s ago": its run is about to be claimed.
const coming = (instant) => Date.parse(instant) - now() < 1000 ? "due now" : relative(instant);

const CLOCK = {hour: "2-digit", minute: "2-digit", hourCycle: "h23"};
const SECONDS = {weekday: "short", day: "numeric", month: "short", ...CLOCK, second: "2-digit"};
const WHOLE = {year: "numeric", month: "2-digit", day: "2-digit", ...CLOCK, second: "2-digit"};

const stamp = (instant, task) => formatOf(zoneOf(task), SECONDS).format(new Date(instant));
const exact = (instant, task) => stamp(instant, task)
  + (zoning === "task" ? ` ${zoneOf(task)}` : "");
const whole = (instant, task) => formatOf(zoneOf(task), WHOLE, "sv").format(new Date(instant));

// The instant at which clocks in the chosen zone show a text.
function instantOf(text, task) {
  const shown = (instant) => Date.parse(`${whole(instant, task).replace(" ", "T")}Z`);
  const wanted = Date.parse(`${text}Z`), guess = 2 * wanted - shown(wanted);
  return new Date(guess + wanted - shown(guess)).toISOString();
}

// Instants in what the server has written, and those that a log begins its lines with.
const WRITTEN = "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}([.][0-9]+)?(?:Z| UTC| [+-][0-9]{4})";
const IN_TEXT = new RegExp(WRITTEN, "g"), IN_LOG = new RegExp(`^${WRITTEN}`, "gm");
const retold = (text, task, pattern = IN_TEXT) => text.replace(pattern, (at, fraction = "") => (
  isNaN(Date.parse(at)) ? at
    : whole(at, task) + fraction + (pattern === IN_LOG ? "" : ` ${zoneOf(task)}`)));
const tickOf = (run) => run.scheduled_for || run.started_at || run.finished_at;

// A run as a bar: its height is the duration, its shape and colour are the outcome.

const path = (kind, d) => make(`path.mark${kind}`, {d});
const bar = (x, top, height) => make("rect.mark", {x, y: top, width: 6, height, rx: 1.5});
const SHAPES = {
  succeeded: bar,
  failed: (x, top) => path("", `M${x} 32L${x + 3} ${top}L${x + 6} 32Z`),
  timed_out: (x, top, height) => path("",
    `M${x} ${top}h6v3h-2v${height - 3}h-2v-${height - 3}h-2z`),
  crashed: (x) => path(".cross", `M${x} 24l6 7m0 -7l-6 7`),
  cancelled: (x, top, height) => path(".hollow", `M${x + 1} 31v-${height - 1}h4v${height - 1}z`),
  skipped: (x) => make("circle.mark.hollow", {cx: x + 3, cy: 28.5, r: 2.2}),
  missed: (x) => path(".hollow", `M${x} 26h6l-3 5z`),
  running: bar,
};
const OUTCOMES = Object.keys(SHAPES);
const TROUBLE = ["failed", "timed_out", "crashed"];
const words = (status) => status.replace("_", " ");
const outcomeOf = (run) => make(`span.outcome.${run.status}`, words(run.status));
const mark = (status, x, height) => SHAPES[status](x, 32 - height, height);

function factsOf(run, task) {
  return [run.reason === "schedule" ? "" : run.reason,
    run.duration === null ? "" : lasting(run.duration), run.count > 1 ? `${run.count} ticks` : "",
    run.attempt > 1 ? `attempt ${run.attempt}` : "", retold(run.note, task)]
    .filter(Boolean).join(", ");
}

function titleOf(run, task) {
  return make("title", `${words(run.status)}, ${stamp(tickOf(run), task)}, ${factsOf(run, task)}`);
}

function drawBars(row, runs) {
  const tallest = Math.max(...runs.map((run) => run.duration || 0), 0.001);
  const height = (run) => run.duration === null ? 20
    : 6 + 24 * Math.log1p(run.duration * 10) / Math.log1p(tallest * 10);
  row.svg.replaceChildren(make("path.ground", {d: "M0 33.5H240"}), ...runs.map((run, index) => (
    make(`g.${run.status}`, {"data-run": run.id}, titleOf(run, row.task),
      make("rect", {x: 232 - 8 * index, y: 0, width: 8, height: 34, "fill-opacity": 0}),
      mark(run.status, 233 - 8 * index, height(run))))));
  const counts = [...Map.groupBy(runs, (run) => words(run.status))]
    .map(([status, alike]) => `${alike.length} ${status}`).join(", ");
  row.bars.setAttribute("aria-label", `Runs of ${row.task.name}: ${counts || "none yet"}`);
}

function openBar(event, otherwise = "") {
  const found = event.target.closest("[data-run]");
  if (found || otherwise) location.assign(found ? addressOf("run", found.dataset.run) : otherwise);
}

// What a row of the list and an opened task have in common: how it goes, and what can be done.

function makeControls(taskOf) {
  const controls = {outcome: make("span.outcome"), since: make("span"), error: make("p.error"),
    progress: make("progress")};
  const act = (what) => send(what, [taskOf().name], controls.acts);
  controls.start = button("", () => act(taskOf().running ? "cancel" : "run"));
  controls.pause = button("", () => act(taskOf().paused ? "resume" : "pause"));
  controls.acts = make("div.acts", controls.start, controls.pause);
  controls.last = make("p.last", controls.outcome, " ", controls.since);
  return controls;
}

function updateControls(controls, task) {
  const {start, pause, progress, outcome, error} = controls, last = task.last_run;
  write(start, !task.running ? "Run now" : task.stop_asked_at ? "Stopping" : "Cancel");
  write(pause, task.paused ? "Resume" : "Pause");
  for (const each of [start, pause]) each.ariaLabel = `${each.textContent}: ${task.name}`;
  progress.ariaLabel = `Progress of ${task.name}`;
  const {done, total} = task.progress || {};
  progress.hidden = !task.running || task.progress === null;
  if (total) Object.assign(progress, {max: total, value: done});
  else progress.removeAttribute("value");
  outcome.className = `outcome ${last ? last.status : ""}`;
  // While the ledger is away, nobody knows.
  write(outcome, last ? words(last.status) : task.source === "ledger" ? "never run" : "not known");
  write(controls.since, last ? sinceWords(task, last) : "");
  write(error, errorOf(task));
  error.title = errorOf(task);
  error.hidden = !error.title;
}

// In words, and what the words leave out.
function scheduleOf(task) {
  const text = task.schedule || (task.startup === false ? "by hand" : "at startup");
  const words = task.schedule_in_words || (task.schedule ? "" : text);
  return [words, text.startsWith(words) ? text.slice(words.length) : text];
}

function errorOf(task) {
  const last = task.last_run;
  return task.last_error || (last && TROUBLE.includes(last.status) ? last.note : "");
}

function sinceWords(task, last) {
  const {done, total, unit} = task.progress || {}, number = (value) => value.toLocaleString("en");
  const running = last.status === "running", troubled = last.status !== "succeeded";
  return [
    running && `for ${lasting(Math.max(0, now() - Date.parse(last.started_at)) / 1000)}`,
    running && task.stop_asked_at && `asked to stop ${ago(task.stop_asked_at)}`,
    running && task.progress
      && `${number(done)}${total === null ? "" : ` of ${number(total)}`} ${unit}`.trim(),
    !running && ago(last.finished_at),
    last.duration !== null && `took ${lasting(last.duration)}`,
    !running && task.failures > 1 && `${task.failures} failures in a row`,
    !running && troubled && task.last_success && `last success ${ago(task.last_success)}`,
  ].filter(Boolean).join(", ");
}

const DONE = {run: "started", cancel: "asked to stop", pause: "paused", resume: "resumed"};

async function send(what, names, place) {
  let done = 0, error = "";
  for (const name of names) {
    const answer = await call(pathOf(name, what), "POST")
      .catch(() => ({error: "The server did not answer."}));
    done += answer.error ? 0 : 1;
    error ||= answer.error;
  }
  if (names.length > 1) say(`${done} of ${names.length} tasks ${DONE[what]}`, place);
  else say(error || `${names[0]}: ${DONE[what]}`, place);
  refresh();
}

// The list of tasks: one row each, made once and then only changed.

const rows = new Map();
let shown = [];
let filter = "all";
let overdue = new Set();

const inTrouble = (task) => overdue.has(task.name) || task.failures > 0
  || (task.last_run !== null && TROUBLE.includes(task.last_run.status));
const FILTERS = {all: () => true, attention: inTrouble, running: (task) => task.running,
  paused: (task) => task.paused};
const lastOf = (task, part) => task.last_run ? task.last_run[part] || 0 : 0;
const SORTS = {
  "Trouble first": (task) => (inTrouble(task) ? 0 : task.running ? 1 : 2),
  "By name": () => 0,
  "Next run first": (task) => Date.parse(task.next_run) || Infinity,
  "Last run first": (task) => -Date.parse(lastOf(task, "finished_at")) || 0,
  "Longest first": (task) => -lastOf(task, "duration"),
};

function makeRow(task) {
  const address = addressOf("task", task.name);
  const row = {task, seen: false, drawn: "", ...makeControls(() => row.task),
    box: make("input", {type: "checkbox", "aria-label": `Select ${task.name}`,
      change: countChosen}),
    tag: make("span.tag"), about: make("p.about"), words: make("span"),
    code: make("code"), next: make("strong"), exact: make("span.exact"),
    svg: make("svg", {viewBox: "0 0 240 34", "aria-hidden": "true"})};
  row.bars = make("button.bars", {type: "button", "aria-label": `Runs of ${task.name}`,
    click: (event) => openBar(event, address)}, row.svg);
  row.element = make("li.task", {"data-task": task.name}, row.box,
    make("div.what", make("h3", button(task.name, () => location.assign(address), ".name"),
      row.tag), row.about),
    make("div.when", make("p", row.words, row.code), make("p", row.next, " ", row.exact)),
    make("div.runs", row.bars, row.progress, row.last), row.error, row.acts);
  watcher.observe(row.element);
  return row;
}

function updateRow(row, task) {
  row.task = task;
  write(row.about, task.description);
  const tags = [!task.enabled && "disabled", task.paused && "paused",
    overdue.has(task.name) && "overdue"].filter(Boolean);
  write(row.tag, tags.join(", "));
  [row.words, row.code].forEach((each, index) => write(each, scheduleOf(task)[index]));
  row.element.classList.toggle("attention", inTrouble(task));
  row.text = [task.name, task.description, task.schedule, row.words.textContent, task.timezone,
    task.last_run && words(task.last_run.status), errorOf(task), ...tags]
    .filter(Boolean).join(" ").toLowerCase();
  tell(row);
}

function tell(row) {
  const {next_run: next} = row.task;
  write(row.next, next ? coming(next) : "");
  write(row.exact, next ? exact(next, row.task) : "no next run");
  updateControls(row, row.task);
}

function showTasks(tasks) {
  const names = new Set(tasks.map((task) => task.name));
  for (const name of rows.keys()) if (!names.has(name)) rows.delete(name);
  for (const task of tasks) {
    if (!rows.has(task.name)) rows.set(task.name, makeRow(task));
    updateRow(rows.get(task.name), task);
  }
  arrange();
}

function arrange() {
  const sought = $("search").value.toLowerCase().split(" "), focused = document.activeElement;
  const groupOf = ({task}) => $("grouped").checked ? task.name.split(/[-_.:/ ]/)[0] : "";
  const all = [...rows.values()];
  for (const key of [({task}) => task.name, ({task}) => SORTS[$("sort").value](task), groupOf]) {
    all.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
  }
  shown = all.filter((row) => FILTERS[filter](row.task)
    && sought.every((word) => row.text.includes(word)));
  const elements = [...Map.groupBy(shown, groupOf)].flatMap(([group, members]) => [
    ...(group ? [make("li.group", `${group}: ${members.length}`)] : []),
    ...members.map((row) => row.element)]);
  const old = [...$("tasks").children];
  const moved = (each, index) => each !== old[index] && !each.isEqualNode(old[index]);
  if (old.length !== elements.length || elements.some(moved)) {
    $("tasks").replaceChildren(...elements);
    focused.focus({preventScroll: true});  // A row that has moved has lost it.
  }
  $("none").hidden = shown.length > 0;
  Object.entries(FILTERS).forEach(([kind, holds], index) => {
    const choice = $("filters").children[index];
    write(choice, `${capital(kind)} ${all.filter((row) => holds(row.task)).length}`);
    choice.setAttribute("aria-pressed", String(kind === filter));
  });
  countChosen();
}

const chosenRows = () => shown.filter((row) => row.box.checked);

function countChosen() {
  const number = chosenRows().length;
  write($("chosen"), number ? `${number} selected` : "Select all");
  $("every").checked = number > 0;
  for (const each of $("several").querySelectorAll("button")) each.hidden = !number;
}

function choose(chosen, checked) {
  chosen.forEach((row) => { row.box.checked = checked; });
  countChosen();
}

function sendToChosen(what) {
  const chosen = chosenRows();
  choose(chosen, false);
  send(what, chosen.map((row) => row.task.name), $("several"));
}

// Bars are loaded for the rows in sight, and again when something has ended or begun.

const watcher = new IntersectionObserver((changes) => {
  for (const {target, isIntersecting} of changes) {
    const row = rows.get(target.dataset.task);
    if (row) row.seen = isIntersecting;
  }
  loadBars();
}, {rootMargin: "200px"});

let loading = false;
async function loadBars() {
  if (loading) return;
  loading = true;
  for (const row of rows.values()) {
    // Rows that never ran (skipped, missed) show at the next minute.
    const state = [lastOf(row.task, "id"), lastOf(row.task, "status"), minute(), zoning].join();
    if (!row.seen || row.drawn === state) continue;
    const {runs} = await call(pathOf(row.task.name, "runs?limit=30")).catch(() => ({}));
    if (!runs) break;
    drawBars(row, runs);
    row.drawn = state;
  }
  loading = false;
}

// What has failed lately, over all tasks: equal errors are one line.

const FEEDS = {[TROUBLE.join()]: "failures", ...Object.fromEntries(
  OUTCOMES.slice(0, -1).map((status) => [status, words(status)]))};
let feed = {runs: [], more: false};
// What differs between runs of one fault: ids, dates, times, long numbers, how long it took.
// Not an exit code or a status of HTTP, which is another fault.
const DIFFERS = new RegExp("0x[0-9a-f]+|(?=[a-f-]*[0-9])[0-9a-f-]{8,}t?|[0-9]{4,}"
  + "|[0-9]+(:[0-9]{2})+([.,][0-9]+)?z?|[0-9.]+(?= ?(ms|s|min|h)(?![a-z]))", "gi");

async function loadFeed() {
  const outcome = $("outcome").value;
  const {runs, before} = await call(`runs?limit=200&outcome=${outcome}`);
  if (!runs || outcome !== $("outcome").value) return;
  feed = {runs, more: before !== null};
  drawFeed();
}

function drawFeed() {
  const alike = ({task, status, note}) => `${task} ${status} ${note.replace(DIFFERS, "0")}`;
  const folded = [...Map.groupBy(feed.runs, alike).values()];
  fill("events", folded.map((runs) => {
    const [run] = runs, {task} = rows.get(run.task) || {};
    const times = runs.reduce((sum, each) => sum + each.count, 0);
    const since = feed.more ? "or more" : `since ${stamp(tickOf(runs.at(-1)), task)}`;
    return [make("span.about", stamp(tickOf(run), task)),
      linkTo("run", run.id, run.task), outcomeOf(run), make("span.note", {title: run.note},
        retold(run.note, task)),
      make("span.about", times > 1 ? `${times} times ${since}` : "")];
  }), "None lately.");
}

// The next 24 hours: how many tasks come in each quarter of an hour, and which come next.

const QUARTER = 15 * 60000, QUARTERS = 96;
let day = {begin: 0, quarters: new Map(), often: []};

async function loadDay() {
  const {ticks, often} = await call("agenda");
  if (!ticks) return;
  const begin = Math.floor(now() / QUARTER) * QUARTER;
  const quarterOf = ({at}) => Math.floor((Date.parse(at) - begin) / QUARTER);
  day = {begin, quarters: Map.groupBy(ticks, quarterOf), often};
  drawDay();
}

function drawDay() {
  const width = $("day").clientWidth || 600, step = width / QUARTERS;
  const quarters = Array.from({length: QUARTERS}, (_, index) => (
    [...new Set((day.quarters.get(index) || []).flatMap((each) => each.tasks))]));
  const most = Math.max(...quarters.map((names) => names.length), 1);
  const parts = [make("line", {x1: 0, x2: width, y1: 56.5, y2: 56.5})];
  quarters.forEach((names, index) => {
    const at = formatOf(zoneOf(), CLOCK).format(day.begin + index * QUARTER), x = index * step;
    if (at.endsWith(":00") && parseInt(at, 10) % (width < 600 ? 6 : 3) === 0 && x < width - 42) {
      parts.push(make("line", {x1: x, x2: x, y1: 57, y2: 70}),
        make("text", {x: x + 3, y: 82}, at));
    }
    const height = 6 + 46 * names.length / most;
    if (names.length) parts.push(make("g",
      make("title", `${at}, ${several(names.length, "task")}: ${some(names, 12)}`),
      make("rect.bar", {x: x + step / 10, width: step * 0.8, y: 56 - height, height, rx: 1.5}),
      make("rect", {x, width: step, y: 0, height: 56, "fill-opacity": 0})));
  });
  if (day.often.length) parts.push(make("rect.band", {x: 0, y: 60, width, height: 6, rx: 3}));
  $("day").replaceChildren(...parts);
  write($("day-note"), `Tasks by quarter of an hour, in ${zoneOf()}${day.often.length
    ? `; the band, every half hour or more often: ${day.often.length} (${some(day.often, 4)})`
    : ""}`);
}

// The arrow keys go from one quarter that has tasks to the next, and its words are read out.
function walkDay(event) {
  const bars = [...$("day").querySelectorAll("g")];
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!step || !bars.length) return;
  event.preventDefault();
  const from = bars.findIndex((each) => each.classList.contains("here"));
  const to = from < 0 && step < 0 ? bars.length - 1 : (from + step + bars.length) % bars.length;
  bars.forEach((each, index) => each.classList.toggle("here", index === to));
  write($("day-note"), bars[to].textContent);
}

function tellNext() {
  const next = [...rows.values()].map((row) => row.task).filter((task) => task.next_run)
    .sort((a, b) => Date.parse(a.next_run) - Date.parse(b.next_run)).slice(0, 5);
  fill("next", next.map((task) => [make("strong", coming(task.next_run)),
    linkTo("task", task.name), make("span.about", exact(task.next_run, task))]), "Nothing.");
}

// One task: its facts, why it ran or not, and its runs with their outputs.

let opened = null;
let oldest;  // the run after which the next page begins; undefined before the first page is there
const detail = makeControls(() => rows.get(opened).task);

async function route() {
  const {hash} = location, given = new URLSearchParams(hash.slice(1)).get("token");
  if (given) {
    remember(given);
    history.replaceState(null, "", location.pathname);
    return refresh();
  }
  if ($("board").hidden || !rows.size) return undefined;
  const [, kind, id] = hash.match(/^#(task|run)[/](.+)$/) || [];
  if (!kind) return $("detail").close();
  const run = kind === "run" ? await call(`runs/${id}`) : null;
  const name = run ? run.task : id;
  if (location.hash !== hash) return undefined;
  if (!rows.has(name)) return say(run && run.error || `No task is named ${name}.`);
  const isNew = opened !== name;
  if (isNew) {
    opened = name;
    oldest = undefined;
    write($("detail-name"), name);
    $("why-instant").value = "";
    for (const id of ["why-answer", "detail-runs", "chart"]) $(id).replaceChildren();
  }
  showFacts();
  if (!$("detail").open) $("detail").showModal();
  if (run) {
    const element = putRun(run);
    element.open = true;
    element.scrollIntoView({block: "nearest"});
  }
  return isNew ? loadRuns() : undefined;
}

function showFacts() {
  const {task} = rows.get(opened);
  const both = (instant, words) => instant ? `${words(instant)}, ${exact(instant, task)}` : "none";
  write($("detail-about"), task.description);
  write($("why-zone"), zoneOf(task));
  updateControls(detail, task);
  const facts = {
    Schedule: scheduleOf(task).filter(Boolean).join(" · "),
    Zone: task.timezone,
    "Next run": both(task.next_run, coming),
    "Last success": both(task.last_success, ago),
  };
  $("detail-facts").replaceChildren(...Object.entries(facts).flatMap(
    ([name, text]) => [make("dt", name), make("dd", text)]));
}

async function loadRuns(before = "") {
  const name = opened, rest = before && `&before=${before}`;
  const {runs, before: next, error} = await call(pathOf(name, `runs?limit=100${rest}`));
  if (opened !== name || !rows.has(name)) return;
  write($("runs-note"), error || (runs.length ? "" : "No more."));
  if (error) return;
  if (before || oldest === undefined) oldest = next;
  $("more").hidden = !oldest;
  if (!before) drawChart(runs);
  runs.forEach(putRun);
}

const runElement = (id) => $("detail-runs").querySelector(`[data-run="${CSS.escape(id)}"]`);

// Puts a run in its place among those that are there, or what has become of it in its place.
function putRun(run) {
  const old = runElement(run.id), list = $("detail-runs"), {task} = rows.get(opened);
  if (old && old.dataset.status === run.status) return old;
  const body = make("div");
  const made = make("details", {"data-run": run.id, "data-status": run.status,
    toggle: () => made.open && loadOutput(run.id, body)},
  make("summary", make("span", stamp(tickOf(run), task)), outcomeOf(run),
    make("span.about", factsOf(run, task))), body);
  made.open = Boolean(old && old.open);
  if (old) old.replaceWith(made);
  else list.insertBefore(made,
    [...list.children].find((each) => each.dataset.run < run.id) || null);
  return made;
}

function drawChart(runs) {
  const ran = runs.filter((run) => run.duration !== null && run.started_at).reverse();
  const sorted = ran.map((run) => run.duration).sort((a, b) => a - b);
  const share = (part) => sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];
  const most = sorted.at(-1) || 1, step = 600 / Math.max(ran.length, 50);
  const top = (duration) => 88 - 84 * duration / most;
  const line = (kind, part) => make(`line.${kind}`,
    {x1: 0, x2: 600, y1: top(share(part)), y2: top(share(part))});
  $("chart").toggleAttribute("hidden", !ran.length);
  $("chart").replaceChildren(...ran.map((run, index) => make(`rect.${run.status}`,
    {"data-run": run.id, x: 600 - step * (ran.length - index), width: step * 0.8,
      y: top(run.duration), height: 90 - top(run.duration)},
    titleOf(run, rows.get(opened).task))),
  ...(ran.length ? [line("median", 0.5), line("p95", 0.95)] : []));
  const good = ran.filter((run) => run.status === "succeeded").length;
  write($("chart-note"), ran.length ? `${several(ran.length, "run")}, the newest on the right: `
    + `${Math.floor(100 * good / ran.length)} % succeeded, median ${lasting(share(0.5))} (line), `
    + `95 % within ${lasting(share(0.95))} (dashes)` : "No run has ended yet.");
}

async function loadOutput(id, body) {
  const run = await call(`runs/${id}`), {task} = rows.get(run.task) || {};
  if (!run.id) return write(body, run.error);
  if (!body.children.length) {
    body.append(...["Output", "Error"].map((title) => make("div", make("p.about", title),
      make("pre", {tabindex: 0, "aria-label": title}))),
    make("p.about", linkTo("run", id), ` by ${run.runner}, times in ${zoneOf(task)}`));
  }
  [run.output, run.error].forEach((text, index) => {
    const part = body.children[index], pre = part.lastElementChild;
    // Its end is followed, unless somebody has scrolled away from it.
    const follow = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
    part.hidden = index === 0 ? !text && Boolean(run.error) : !text;
    write(pre, retold(text, task, IN_LOG) || (run.status === "running"
      ? "Nothing yet. What a run in another process prints shows when it ends." : "No output."));
    if (follow) pre.scrollTop = pre.scrollHeight;
  });
  return undefined;
}

async function updateDetail() {
  if (!opened) return undefined;
  if (!rows.has(opened)) return $("detail").close();  // Nobody can do anything with it.
  showFacts();
  const last = rows.get(opened).task.last_run, shownLast = last && runElement(last.id);
  if (oldest === undefined || (last && (!shownLast || shownLast.dataset.status !== last.status))) {
    await loadRuns();
  }
  const live = $("detail-runs").querySelector("[open][data-status=running]");
  return live && loadOutput(live.dataset.run, live.lastElementChild);
}

async function askWhy(event) {
  event.preventDefault();
  const name = opened, {task} = rows.get(name), {value} = $("why-instant");
  // In the task's zone, as the server reads it where the clock is changed.
  const instant = !value || zoneOf(task) === task.timezone ? value : instantOf(value, task);
  const {sentences, error} = await call(pathOf(name, `why?instant=${instant}`));
  const told = (sentences || [error]).map((each) => retold(each, task));
  if (opened === name) fill("why-answer", told);
}

// Keeping it live.

let timer, refreshing = false;
const states = {};

async function refresh() {
  if (refreshing) return;
  refreshing = true;
  clearTimeout(timer);
  const begun = performance.now(), used = token;
  let pause = 0;
  try {
    const health = await call("health");
    if (!health.status) throw new Error(health.error);
    const inside = "version" in health;
    if (inside) ahead = Date.parse(health.now) - Date.now();
    const alarm = showHealth(health);
    $("sign-in").hidden = inside;
    document.querySelectorAll(".inside").forEach((each) => { each.hidden = !inside; });
    const bad = inside ? await refreshBoard(health) : 0;
    if (!inside && token === used) askForToken();
    showTrouble(alarm ? "No scheduler" : health.status === "critical" ? "Critical"
      : bad ? `${bad} in trouble` : "");
  } catch {
    $("health").className = "lost";
    write($("health"), "No answer, trying again");
    showTrouble("No answer");
  }
  refreshing = false;
  // A token that was given meanwhile is tried at once.  Else a tenth of the time at most is spent
  // on this, however many tasks there are.
  if (token === used) pause = document.hidden ? 60000 : 2000 + 9 * (performance.now() - begun);
  if ($("sign-in").hidden || token) timer = setTimeout(refresh, pause);
}

async function refreshBoard(health) {
  const {tasks, error} = await call("tasks");
  if (!tasks) throw new Error(error);
  overdue = new Set(health.overdue.map((each) => each.task));
  const first = !rows.size;
  showTasks(tasks);
  tellNext();
  if (first) await route();
  write($("facts"), `${several(tasks.length, "task")}, `
    + `${tasks.filter((task) => task.running).length} running, version ${health.version}`);
  const planned = tasks.map((task) => `${task.name} ${task.schedule} ${task.scheduled}`);
  await onChange("day", [Math.floor(now() / QUARTER), planned], loadDay);
  const ended = tasks.map((task) => inTrouble(task) && lastOf(task, "id"));
  await onChange("feed", [minute(), ended], loadFeed);
  await updateDetail();
  loadBars();
  return tasks.filter(inTrouble).length;
}

async function onChange(what, parts, load) {
  const state = parts.join();
  if (states[what] !== state) await load();
  states[what] = state;
}

function showTrouble(text) {
  document.title = text ? `${text} - Housekeeper` : "Housekeeper";
  const icon = text ? "trouble.svg" : "dashboard.svg";
  if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
}

function showHealth({status, problems = [], runners = [], failing = []}) {
  write($("health"), {ok: "All is well", warning: "Warning", critical: "Critical"}[status]);
  $("health").className = $("problems").className = status;
  const alarm = problems.find((problem) => problem.startsWith("No scheduler is running"));
  const names = failing.map((each) => each.task);
  $("alarm").hidden = !alarm;
  write($("alarm"), retold(alarm || ""));
  // Many failing tasks are one line: their rows and the failures tell the rest.
  const isFolded = (problem) => names.length > 1
    && names.some((name) => problem.startsWith(`Task ${name} failed `));
  const told = problems.filter((problem) => problem !== alarm && !isFolded(problem));
  if (names.length > 1) told.push(`${names.length} tasks are failing: ${some(names, 6)}`);
  fill("problems", told.map((each) => retold(each)));
  showRunners(runners);
  return alarm;
}

function showRunners(runners) {
  const named = (each) => each.runner.split(":").slice(0, 2).join(":");
  const alive = runners.filter((each) => each.alive);
  const beat = alive.map((each) => each.beat_at).sort().pop();
  $("runners").hidden = !runners.length;
  write($("runners-summary"), beat ? `${several(alive.length, "scheduler")} running, `
    + `${some(alive.map(named), 3)}, last beat ${ago(beat)}` : "Recent schedulers");
  fill("runners-list", runners.map((each) => [
    {class: !each.alive ? "missed" : each.problems.length ? "warning" : ""},
    [named(each), `${each.workers} workers`, `version ${each.version}`,
      `since ${stamp(each.started_at)}`, `last beat ${ago(each.beat_at)}`,
      each.alive ? "" : each.stopped_at ? `stopped ${ago(each.stopped_at)}` : "died",
      ...each.problems].filter(Boolean).join(", ")]));
}

function askForToken() {
  write($("refused"), token ? "This token is not the right one." : "");
  remember("");
  $("token").focus();
}

function chooseZone() {
  zoning = $("zone").value;
  sessionStorage.setItem("housekeeper-zone", zoning);
  rows.forEach(tell);
  for (const draw of [tellNext, drawDay, drawFeed, loadBars]) draw();
}

function signIn(event) {
  event.preventDefault();
  remember($("token").value);
  $("token").value = "";
  refresh();
}

function closed() {
  if ($("detail").open) return;  // Another one was opened meanwhile.
  opened = null;
  if (location.hash) history.pushState(null, "", location.pathname);
}

function begin() {
  const options = (id, pairs) => $(id).append(...pairs.map(([value, text]) => (
    make("option", {value}, text))));
  options("zone", Object.entries(ZONES));
  options("sort", Object.keys(SORTS).map((name) => [name, name]));
  options("outcome", Object.entries(FEEDS));
  $("zone").value = zoning;
  $("several").append(...["pause", "resume"].map((what) => (
    button(`${capital(what)} selected`, () => sendToChosen(what)))));
  $("filters").append(...Object.keys(FILTERS).map((kind) => (
    button(kind, () => { filter = kind; arrange(); }))));
  $("legend").append(...OUTCOMES.map((status) => make(`span.${status}`,
    make("svg", {viewBox: "0 14 8 20", "aria-hidden": "true"}, mark(status, 1, 14)),
    words(status))));
  $("detail-state").append(detail.last, detail.error, detail.progress, detail.acts);
  const listeners = [["sign-in", "submit", signIn], ["why", "submit", askWhy],
    ["zone", "change", chooseZone], ["outcome", "change", loadFeed], ["day", "keydown", walkDay],
    ["sort", "change", arrange], ["search", "input", arrange], ["grouped", "change", arrange],
    ["every", "change", () => choose(shown, $("every").checked)],
    ["chart", "click", openBar], ["more", "click", () => loadRuns(oldest)],
    ["detail-close", "click", () => $("detail").close()], ["detail", "close", closed]];
  for (const [id, kind, listener] of listeners) $(id).addEventListener(kind, listener);
  new ResizeObserver(drawDay).observe($("day"));
  setInterval(() => {
    rows.forEach((row) => row.seen && tell(row));
    if (!$("board").hidden) tellNext();
    if (rows.has(opened)) updateControls(detail, rows.get(opened).task);
  }, 1000);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  addEventListener("hashchange", route);
  addEventListener("unhandledrejection", () => say("The server did not answer."));
  route();
  refresh();
}

begin();
"""


# ================================================================================================
# 19. Web: a WSGI application.
# ================================================================================================

LONGEST_PATH, LONGEST_QUERY, LARGEST_BODY = 512, 2048, 65536  # bytes
LONGEST_PAGE = 200  # runs
# Seconds that POST .../run?wait= may wait: gunicorn kills a worker that is silent for 30 s.
LONGEST_ANSWER_WAIT = 25
WEB_CALL_LIMIT = 5.0  # seconds that each ledger call of a request may take
SHORTEST_TOKEN = 16  # characters

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Any], Iterable[bytes]]
Authorize = Callable[[Environ], object]

SECURITY_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The parts of a request that its answer depends on."""

    name: str  # the task or the run that the path names, or ""
    query: Mapping[str, str]
    trusted: bool  # its sender is authorized

    def whole(self, parameter: str, default: int, most: int) -> int:
        """Return a parameter that is a whole number from 0 to `most`; raises Refusal."""
        text = self.query.get(parameter, str(default))
        if not re.fullmatch("[0-9]{1,6}", text) or int(text) > most:
            raise Refusal(400, f"{parameter} is not a whole number from 0 to {most}")
        return int(text)


class Response(NamedTuple):
    """The answer to a request."""

    body: bytes = b""
    status: int = 200
    type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(Exception):
    """A request that is refused: the status, a sentence for its sender, and headers."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def json_response(value: object, status: int = 200) -> Response:
    """Return a value as JSON, instants as RFC 3339."""
    text = json.dumps(value, default=_plain, allow_nan=False)
    return Response(f"{text}\n".encode(), status)


def error_response(error: object, status: int) -> Response:
    """Return a sentence about what is wrong."""
    return json_response({"error": str(error)}, status)


def status_line(status: int) -> str:
    """Return an HTTP status with its phrase."""
    import http

    return f"{status} {http.HTTPStatus(status).phrase}"


class WebApp:
    """The WSGI application: limits, authorization, routing and errors, each in one place."""

    def __init__(
        self, housekeeper: Housekeeper, token: str | None, authorize: Authorize | None
    ) -> None:
        # A token from a file may end with a line break, which no header can carry.
        token = token.strip() if isinstance(token, str) else token
        if token is not None and (not isinstance(token, str) or len(token) < SHORTEST_TOKEN):
            raise ConfigurationError(
                f"the token has fewer than {SHORTEST_TOKEN} characters and could be guessed; make"
                " one with `python -c 'import secrets; print(secrets.token_urlsafe())'`"
            )
        if authorize is not None and not callable(authorize):
            raise ConfigurationError(f"authorize={authorize!r} is not callable")
        self.housekeeper = housekeeper
        self._token = token
        self._authorize = authorize

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request; no error leaves this method."""
        self.housekeeper.wake()
        try:
            response = self._answer(environ)
        except Refusal as refusal:
            if refusal.status in (401, 403):
                _log_refused(environ, refusal)
            response = error_response(refusal, refusal.status)._replace(headers=refusal.headers)
        except UnknownTask as error:
            response = error_response(error, 404)
        except (LedgerUnavailable, ConfigurationError) as error:
            # The text names files and hosts, so it is only logged.
            logger.warning("Web: %s", error)
            response = error_response("the ledger cannot be reached", 503)
        except HousekeeperError as error:
            response = error_response(error, 503)
        except Exception:
            logger.exception("Web: a request failed")
            response = error_response("this failed; the log says why", 500)
        headers = [*response.headers, *SECURITY_HEADERS]
        if response.status != 204:
            headers += [("Content-Type", response.type)]
            headers += [("Content-Length", str(len(response.body)))]
        start_response(status_line(response.status), headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

    def _answer(self, environ: Environ) -> Response:
        path, query = environ.get("PATH_INFO", ""), _bounded_query(environ)
        if self._token is None and self._authorize is None:
            raise Refusal(403, "closed: pass token= or authorize= to mount() or web_app()")
        if not path and environ.get("SCRIPT_NAME"):
            # The page's own links are relative to a path that ends with a slash.
            last = environ["SCRIPT_NAME"].rpartition("/")[2]
            location = f"{urllib.parse.quote(last, encoding='latin-1')}/"
            return Response(status=302, headers=(("Location", location),))
        matches = [
            (route, match)
            for route in ROUTES
            if (match := re.fullmatch(re.sub("<[a-z]+>", "([^/]+)", route.path), path))
        ]
        by_token = self._has_token(environ)
        trusted = by_token or self._is_authorized(environ)
        if not trusted and not any(route.is_open for route, _ in matches):
            self._refuse_stranger()
        if not trusted and self._token is not None and "HTTP_AUTHORIZATION" in environ:
            _log_refused(environ, "the token is wrong")
        if not matches:
            raise Refusal(404, "there is nothing at this path")
        answers = {route.method: route.answer for route, _ in matches}
        if "GET" in answers:
            answers["HEAD"] = answers["GET"]
        method, allow = environ["REQUEST_METHOD"], ", ".join([*answers, "OPTIONS"])
        if method == "OPTIONS":
            return Response(status=204, headers=(("Allow", allow),))
        if method not in answers:
            raise Refusal(405, f"this path takes {allow}", ("Allow", allow))
        if method == "POST":
            # A form or an image on another site could send a POST with the user's cookies.
            if not by_token and "HTTP_X_HOUSEKEEPER" not in environ:
                raise Refusal(403, "a POST needs the token, or a header X-Housekeeper")
            logger.info("Web: POST %r by %r", path, environ.get("REMOTE_ADDR"))
        request = Request(name="".join(matches[0][1].groups()), query=query, trusted=trusted)
        with ledger_calls_within(WEB_CALL_LIMIT):
            return answers[method](self.housekeeper, request)

    def _has_token(self, environ: Environ) -> bool:
        import hmac

        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if self._token is None or scheme.lower() != "bearer":
            return False
        # WSGI passes bytes as Latin-1, in which some bytes of UTF-8 are spaces.
        given_bytes = given.encode("latin-1", "replace").strip()
        return hmac.compare_digest(given_bytes, self._token.encode())

    def _is_authorized(self, environ: Environ) -> bool:
        try:
            return self._authorize is not None and bool(self._authorize(environ))
        except Exception:
            logger.exception("Web: authorize failed, so the request was refused")
            return False

    def _refuse_stranger(self) -> NoReturn:
        if self._token is None:
            raise Refusal(403, "this needs to be authorized by the application")
        needed = "this needs the token, as Authorization: Bearer"
        raise Refusal(401, needed, ("WWW-Authenticate", "Bearer"))


def _bounded_query(environ: Environ) -> Mapping[str, str]:
    """Return the query's parameters; raises Refusal when these, or path or body, are too long."""
    query, size = environ.get("QUERY_STRING", ""), environ.get("CONTENT_LENGTH") or "0"
    if len(environ.get("PATH_INFO", "")) > LONGEST_PATH or len(query) > LONGEST_QUERY:
        raise Refusal(414, "the path or the query is too long")
    # Nothing here reads a body.
    if not re.fullmatch("[0-9]{1,15}", size):
        raise Refusal(400, "the Content-Length is not a number")
    if int(size) > LARGEST_BODY:
        raise Refusal(413, f"the body is longer than {LARGEST_BODY} bytes")
    return dict(urllib.parse.parse_qsl(query, keep_blank_values=True))


def _log_refused(environ: Environ, why: object) -> None:
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")[:LONGEST_PATH]
    # Quoted, so that no sender can write lines of its own into the log.
    sender = environ.get("REMOTE_ADDR")
    logger.warning("Web: refused %r %r from %r: %s", method[:20], path, sender, why)


def mounted(web: WebApp, prefix: str, wsgi_app: WsgiApp) -> WsgiApp:
    """Return an application that serves `web` below a prefix; raises ConfigurationError."""
    if not isinstance(prefix, str) or not re.fullmatch("(/[A-Za-z0-9._~-]+)+", prefix):
        raise ConfigurationError(f"prefix {prefix!r} is not a path such as '/api/housekeeper'")

    def serve(environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path != prefix and not path.startswith(f"{prefix}/"):
            web.housekeeper.wake()
            return wsgi_app(environ, start_response)
        root = environ.get("SCRIPT_NAME", "") + prefix
        inside = {**environ, "SCRIPT_NAME": root, "PATH_INFO": path[len(prefix) :]}
        return web(inside, start_response)

    return serve


# Answers: one function for each path.


def answer_file(body: str, type_: str) -> Answer:
    """Return an answer that never changes."""
    response = Response(body.encode(), type=f"{type_}; charset=utf-8")
    return lambda housekeeper, request: response


def answer_health(housekeeper: Housekeeper, request: Request) -> Response:
    """Report the health, with 503 when critical; to strangers in one word."""
    health = housekeeper.health()
    status = 503 if health["status"] == "critical" else 200
    if not request.trusted:
        return json_response({"status": health["status"]}, status)
    # The reason why a ledger cannot be reached names files and hosts.
    health["problems"] = [
        re.sub("(The ledger cannot be reached).*", r"\1.", text, flags=re.DOTALL)
        for text in cast("list[str]", health["problems"])
    ]
    return json_response({**health, "now": housekeeper.clock.now()}, status)


def answer_tasks(housekeeper: Housekeeper, request: Request) -> Response:
    """List the tasks."""
    tasks = [_task_values(each) for each in housekeeper.list_tasks()]
    return json_response({"tasks": tasks, "now": housekeeper.clock.now()})


def answer_status(housekeeper: Housekeeper, request: Request) -> Response:
    """Return the status of one task."""
    status = housekeeper.get_task_status(request.name)
    if not status["registered"]:
        raise housekeeper.unknown_task(request.name)
    return json_response(_task_values(status))


def _task_values(status: Mapping[str, object]) -> dict[str, object]:
    values = {name: _plain(value) for name, value in status.items()}
    values["last_run"] = _brief(status["last_run"])
    if "schedule" in status:
        values["schedule_in_words"] = schedule_in_words(str(status["schedule"] or ""))
    return values


def _brief(run: object) -> dict[str, object] | None:
    """Return a run for a list, without its long texts."""
    if not isinstance(run, Run):
        return None
    return {key: each for key, each in run.as_dict().items() if key not in ("output", "error")}


def answer_run(housekeeper: Housekeeper, request: Request) -> Response:
    """Run a task now; with ``wait=seconds``, wait for its outcome."""
    until = housekeeper.clock.monotonic() + request.whole("wait", 0, LONGEST_ANSWER_WAIT)
    try:
        run = housekeeper.run_task_manually(request.name, wait=False)
    except AlreadyRunning as error:
        return json_response({"error": str(error), "run": _brief(error.run)}, 409)
    while not run.ended.is_set() and (left := until - housekeeper.clock.monotonic()) > 0:
        housekeeper.clock.wait(run.ended, left)
    has_ended = run.ended.is_set()
    if has_ended and run.status not in (Status.SUCCEEDED, Status.SKIPPED):
        why = f"the run ended as {run.status}: {run.note}"
        return json_response({"success": False, "error": why, "run": _brief(run)}, 500)
    return json_response({"success": True, "run": _brief(run)}, 200 if has_ended else 202)


def answer_cancel(housekeeper: Housekeeper, request: Request) -> Response:
    """Ask a task's run to stop."""
    run = housekeeper.cancel(request.name)
    if run is None:
        return error_response(f"task {request.name!r} is not running", 409)
    return json_response({"success": True, "run": _brief(run)}, 202)


def answer_change(changed: bool) -> Response:
    """Say that a task is paused or resumed, and whether that is new."""
    return json_response({"success": True, "changed": changed})


def answer_runs(housekeeper: Housekeeper, request: Request) -> Response:
    """Return a page of runs, of a task or of all, newest first, and what to ask for the next one.

    With ``outcome=`` only of those outcomes.
    """
    limit, before = request.whole("limit", 30, LONGEST_PAGE), request.query.get("before")
    if before is not None and not re.fullmatch("[0-9a-f]{1,64}", before):
        raise Refusal(400, "before is not the id of a run")
    wanted = set(filter(None, request.query.get("outcome", "").split(",")))
    if not wanted <= {status.value for status in Status}:
        raise Refusal(400, f"outcome is none of {', '.join(status.value for status in Status)}")
    runs = housekeeper.history(request.name or None, limit, before, wanted)
    if not runs and request.name and request.name not in housekeeper.task_names():
        raise housekeeper.unknown_task(request.name)
    before = runs[-1].id if len(runs) == limit > 0 else None
    return json_response({"runs": [_brief(run) for run in runs], "before": before})


def answer_one_run(housekeeper: Housekeeper, request: Request) -> Response:
    """Return a run with its output and error."""
    run = housekeeper.get_run(request.name)
    return json_response(run) if run else error_response("there is no run with this id", 404)


def answer_why(housekeeper: Housekeeper, request: Request) -> Response:
    """Say why a task did or did not run, at an instant or at its latest tick."""
    try:
        why = housekeeper.why(request.name, request.query.get("instant") or None)
    except ConfigurationError as error:
        raise Refusal(400, str(error)) from error
    return json_response({**why, "run": _brief(why["run"])})


OFTEN = 49  # ticks a day: more than one in half an hour


def answer_agenda(housekeeper: Housekeeper, request: Request) -> Response:
    """Return the ticks of the next day; of very frequent tasks, only the names."""
    now, often = housekeeper.clock.now(), []
    ticks: dict[datetime, list[str]] = {}
    for name in [str(each["name"]) for each in housekeeper.list_tasks() if each["scheduled"]]:
        # Most tasks come once a day, and a tick beyond the day costs as much as one within it.
        coming = housekeeper.next_runs(name, 2)
        if len(coming) == 2 and coming[-1] <= now + ONE_DAY:
            coming = housekeeper.next_runs(name, OFTEN)
        today = [tick for tick in coming if tick <= now + ONE_DAY]
        if len(today) == OFTEN:
            often.append(name)
            continue
        for tick in today:
            ticks.setdefault(tick, []).append(name)
    listed = [{"at": tick, "tasks": ticks[tick]} for tick in sorted(ticks)]
    return json_response({"now": now, "ticks": listed, "often": often})


def answer_metrics(housekeeper: Housekeeper, request: Request) -> Response:
    """Return the metrics: this process's counters, and the states of tasks from the ledger."""
    health: Any = housekeeper.health()
    load, is_known = housekeeper.workload(), health["ledger"]["reachable"]
    # While the ledger is away the values are unknown, which is not the same as 0.
    alive = sum(each["alive"] for each in health["runners"]) if is_known else None
    failing = len(health["failing"]) if is_known else None
    late = {each["task"]: each["seconds"] for each in health["overdue"]}
    tasks = [
        {"late": late.get(each["name"], 0), **each}
        for each in housekeeper.list_tasks()
        if each["source"] == "ledger"
    ]

    def by_task(key: str) -> list[Sample]:
        return [x for each in tasks for x in _sample(each.get(key), task=str(each["name"]))]

    values = (
        ("build_info", "The version of Housekeeper.", _sample(1, version=__version__)),
        ("started", "Whether Housekeeper is started here.", _sample(health["started"])),
        ("workers", "Workers in this process.", _sample(load["workers"])),
        ("workers_busy", "Runs in progress in this process.", _sample(load["running"])),
        ("tasks_queued", "Tasks that wait for a worker here.", _sample(load["queued"])),
        ("runners_alive", "Processes that schedule.", _sample(alive)),
        ("tasks_failing", "Tasks whose last run failed.", _sample(failing)),
        ("ledger_errors_total", "Failed ledger calls.", _sample(housekeeper.ledger.failures)),
        ("running", "Whether the task runs, in any process.", by_task("running")),
        ("paused", "Whether the task's schedule is paused.", by_task("paused")),
        ("failures", "Failed runs of the task in a row.", by_task("failures")),
        ("last_success_timestamp_seconds", "End of the last success.", by_task("last_success")),
        ("overdue_seconds", "How long its overdue tick has waited.", by_task("late")),
    )
    metrics = housekeeper.metrics.read()
    for name, text, samples in values:
        kind = "counter" if name.endswith("_total") else "gauge"
        metrics.append(Metric(f"housekeeper_{name}", kind, text, samples))
    body = "".join(line for metric in metrics for line in metric.lines())
    return Response(body.encode(), type="text/plain; version=0.0.4; charset=utf-8")


def _sample(value: object, **labels: str) -> list[Sample]:
    """Return the sample of a value; none when it is unknown."""
    if value is None:
        return []
    number = value.timestamp() if isinstance(value, datetime) else float(cast(float, value))
    return [Sample(number, labels)]


Answer = Callable[[Housekeeper, Request], Response]


class Route(NamedTuple):
    """A method and a path, with the function that answers; an open route needs no token."""

    method: str
    path: str
    answer: Answer
    is_open: bool = False


# In the short answers here, h is the Housekeeper and r the request.
ROUTES = (
    Route("GET", "/", answer_file(PAGE_HTML, "text/html"), is_open=True),
    Route("GET", "/dashboard.css", answer_file(PAGE_CSS, "text/css"), is_open=True),
    Route("GET", "/dashboard.js", answer_file(PAGE_JS, "text/javascript"), is_open=True),
    Route("GET", "/dashboard.svg", answer_file(PAGE_ICON, "image/svg+xml"), is_open=True),
    Route("GET", "/trouble.svg", answer_file(PAGE_TROUBLE, "image/svg+xml"), is_open=True),
    Route("GET", "/health", answer_health, is_open=True),
    Route("GET", "/metrics", answer_metrics),
    Route("GET", "/agenda", answer_agenda),
    Route("GET", "/tasks", answer_tasks),
    Route("GET", "/tasks/<name>/status", answer_status),
    Route("GET", "/tasks/<name>/runs", answer_runs),
    Route("GET", "/tasks/<name>/why", answer_why),
    Route("POST", "/tasks/<name>/run", answer_run),
    Route("POST", "/tasks/<name>/cancel", answer_cancel),
    Route("POST", "/tasks/<name>/pause", lambda h, r: answer_change(h.pause_task(r.name))),
    Route("POST", "/tasks/<name>/resume", lambda h, r: answer_change(h.resume_task(r.name))),
    Route("GET", "/runs", answer_runs),
    Route("GET", "/runs/<id>", answer_one_run),
    Route("GET", "/runners", lambda h, r: json_response({"runners": h.runners()})),
)


# Schedules in words.


PARTS_OF_60, PARTS_OF_24 = "2|3|4|5|6|10|12|15|20|30", "2|3|4|6|8|12"
# Second, minute and hour of frequent schedules, whose steps divide the hour or day evenly.
OFTEN_IN_WORDS = (
    (r"\* \* \*", "every second"),
    (rf"\*/({PARTS_OF_60}) \* \*", "every {} seconds"),
    (r"0 \* \*", "every minute"),
    (rf"0 \*/({PARTS_OF_60}) \*", "every {} minutes"),
    (r"0 0+ \*", "every hour, on the hour"),
    (r"0 ([0-9]+) \*", "every hour, at minute {}"),
    (rf"0 0+ \*/({PARTS_OF_24})", "every {} hours, on the hour"),
    (rf"0 ([0-9]+) \*/({PARTS_OF_24})", "every {1} hours, at minute {0}"),
)


def schedule_in_words(text: str) -> str | None:
    """Return a trigger's text in a few words, if they are exact; else None."""
    if UNION in text:
        parts = [schedule_in_words(part) for part in text.split(UNION)]
        return _joined(filter(None, parts)) if all(parts) else None
    if length := re.fullmatch(r"(every .+) \+ .+", text):
        return length[1]
    fields = text.replace("?", "*").split()
    fields = ["0", *fields] if len(fields) == 5 else fields
    days = _days_in_words(*fields[3:]) if len(fields) == 6 else None
    if days is None:
        return None
    time_of_day = " ".join(fields[:3])
    for pattern, words in OFTEN_IN_WORDS:
        if found := re.fullmatch(pattern, time_of_day):
            often = words.format(*map(int, found.groups()))
            return often if days == "every day" else f"{often}, {days}"
    if not re.fullmatch("0 [0-9]+ [0-9]+(,[0-9]+){0,3}", time_of_day):
        return None
    hours = sorted({int(hour) for hour in fields[2].split(",")})
    return f"{days} at {_joined(f'{hour:02d}:{int(fields[1]):02d}' for hour in hours)}"


def _joined(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _days_in_words(day: str, month: str, weekday: str) -> str | None:
    if (day, month) == ("*", "*"):
        return "every day" if weekday == "*" else _weekdays_in_words(weekday)
    if weekday != "*" or not re.fullmatch("[0-9]+", day):
        return None
    number = int(day)
    if month == "*":
        rest = "th" if 10 < number < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        which = "each month" if number < 29 else "each month that has it"
        return f"on the {number}{rest} of {which}"
    name = _named(CRON_FIELDS[-2], month)
    return f"on {number} {name}" if name else None


def _weekdays_in_words(text: str) -> str | None:
    names = [[_named(CRON_FIELDS[-1], day) for day in part.split("-")] for part in text.split(",")]
    if not all(all(part) for part in names) or (len(names) > 1 and max(map(len, names)) > 1):
        return None
    if len(names[0]) > 1:
        return " to ".join(str(day) for day in names[0])
    return _joined(f"{day}s" for (day,) in names)


def _named(field: CronField, text: str) -> str | None:
    """Return the name of a month or weekday; None for several."""
    try:
        return field.words[(field.number(text) - field.low) % field.size].title()
    except ConfigurationError:
        return None


# The server of --http: wsgiref with limits, a connection and a thread for each request.


LONGEST_HEAD = 16384  # bytes
READ_LIMIT, WRITE_LIMIT = 10.0, 30.0  # seconds for a whole head and for a whole answer
LINGER = 2.0  # seconds for which data after the head is read and dropped
# Only what every server on the way parses in the same way.
HEAD_OF_REQUEST = re.compile(
    r"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.[01]((?:\r\n[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t -~\x80-\xff]*)*)"
)


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves a WSGI application, 64 requests at a time; further ones get a 503.

    It reads the head of one request per connection and drops what follows, so that nothing after
    the head can pass for another request.  wsgiref calls the application and formats the answer.
    Its own server is not used: it asks the name server for its own name, and reads without a time
    limit.
    """

    AT_A_TIME, LINGERING = 64, 16
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, app: WsgiApp, host: str, port: int, clock: Clock) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.app = app
        self.clock = clock
        # Limit the requests that are being read and answered, and those that are answered but not
        # yet closed.
        self._places = threading.BoundedSemaphore(self.AT_A_TIME)
        self._lingering = threading.BoundedSemaphore(self.LINGERING)
        super().__init__((host, port), socketserver.BaseRequestHandler)

    def get_request(self) -> Any:
        """Accept a connection; pause when the process is out of file descriptors."""
        try:
            return super().get_request()
        except OSError:
            self.clock.wait(threading.Event(), 0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or a 503 when no place or no thread is free."""
        if self._places.acquire(blocking=False):
            try:
                return super().process_request(request, client_address)
            except Exception:  # No thread could be started to release the place.
                self._places.release()
        request.setblocking(False)
        with contextlib.suppress(OSError):
            request.send(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 10\r\n\r\n")
            request.recv(LONGEST_HEAD)  # If closed with data unread, it would lose the answer.
        return self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on its thread; its place is free once it is answered.

        Raises OSError for a client that is too slow or leaves.
        """
        try:
            self._answer(request, client_address)
        finally:
            self._places.release()
        # Read on for a moment: a connection closed with data unread loses the answer.
        if self._lingering.acquire(blocking=False):
            try:
                until = self.clock.monotonic() + LINGER
                while True:
                    more_of(request, until - self.clock.monotonic())
            except OSError:
                pass  # It is closed, or the time is up.
            finally:
                self._lingering.release()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            environ = environ_of(self._head_of(request))
        except Refusal as refusal:
            answer = f"HTTP/1.0 {status_line(refusal.status)}\r\n\r\n{refusal}\n".encode()
        else:
            host, port = self.server_address[:2]
            environ |= {"SERVER_NAME": str(host), "SERVER_PORT": str(port)}
            answer = self._answer_to({**environ, "REMOTE_ADDR": client_address[0]})
        # In one call, so that the limit is for the whole answer.
        request.settimeout(WRITE_LIMIT)
        request.sendall(answer)
        request.shutdown(socket.SHUT_WR)

    def _head_of(self, connection: socket.socket) -> str:
        until, data = self.clock.monotonic() + READ_LIMIT, b""
        while b"\r\n\r\n" not in data and len(data) <= LONGEST_HEAD:
            data += more_of(connection, until - self.clock.monotonic())
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end or len(head) > LONGEST_HEAD:
            raise Refusal(431, "the head of the request is too long")
        return head.decode("latin-1")

    def _answer_to(self, environ: Environ) -> bytes:
        from wsgiref.handlers import SimpleHandler

        answer, errors = io.BytesIO(), io.StringIO()
        handler = SimpleHandler(io.BytesIO(), answer, errors, environ, multiprocess=False)
        handler.os_environ = {}  # Otherwise each request would show this process's variables.
        handler.run(self.app)
        if errors.tell():
            logger.debug("Web: a request failed: %s", errors.getvalue())
        return answer.getvalue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that broke or was too slow."""
        logger.debug("Web: the connection of %s ended early", client_address, exc_info=True)


def more_of(connection: socket.socket, seconds: float) -> bytes:
    """Return the next bytes; raises OSError when none come in time, or the connection closes."""
    if seconds <= 0:
        raise TimeoutError("the request came too slowly")
    connection.settimeout(seconds)
    if not (data := connection.recv(65536)):
        raise ConnectionError("the connection was closed before the request's end")
    return data


def environ_of(head: str) -> Environ:
    """Return the WSGI environment of a request's head; raises Refusal for what is not HTTP."""
    request = HEAD_OF_REQUEST.fullmatch(head)
    if request is None:
        raise Refusal(400, "this is not an HTTP request")
    path, _, query = request[2].partition("?")
    environ: Environ = {"REQUEST_METHOD": request[1], "SCRIPT_NAME": "", "QUERY_STRING": query}
    environ["PATH_INFO"] = urllib.parse.unquote(path, "latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.0"
    for line in request[3].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if "_" in name:
            continue  # In the environment it would look like the header with a dash.
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        value = value.strip(" \t")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


# ================================================================================================
# 20. Adopt: task files from a crontab.
# ================================================================================================

CRON_ENTRY = re.compile(r"-?(@\S+|\S+(?:[ \t]+\S+){4})[ \t]+([^*\s].*)")
CRON_USER = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*\$?)[ \t]+([^\s-].*)")
CRON_VARIABLE = re.compile(
    r"""(?:"([^"=]+)"|'([^'=]+)'|([^\s"'=][^\s=]*))\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'].*|))"""
)
# Variables for cron's mail, or set by cron itself.
NOT_FOR_COMMANDS = re.compile("MAILTO|MAILFROM|CONTENT_(TYPE|TRANSFER_ENCODING)|LOGNAME|USER")
# Lines that are switched off leave a task without a description; it begins below heads and rules.
OFF_LINE = re.compile(r"\d\S*[ \t]+[\d*]\S*[ \t]|\w+=")
COLUMN_HEADS = re.compile(r"\W|$|(m|min|minute)\W+(h|hour)")
# What is no shell's & in a line, and what is one.
QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?:^|\s)#.*""")
LIVES_ON = "It goes on when its run is over, as with cron; its output is kept nowhere."
ENDS_WITH_LINE = "Unlike with cron, what & starts here ends with the line; setsid lets it live on."
BACKGROUND = re.compile(r"(?<![&<>|])&(?![&>])")
# A task is named after the first command of its line that is no guard, without its starters.
GUARD = re.compile(r"\[+|\.|case|cd|command|echo|exit|export|for|if|set|sleep|test|true|while")
STARTER = re.compile(
    rf"[-!({{].*|\d[\d.]*[smhd]?|\w+=.*|\S*[./]lock\S*|then|do|else|(/\S*/)?{STARTERS}"
)
# Redirections, and options with a value, such as `sudo -u NAME` and `nice -n 19`.
NOISE = re.compile(r"[&\d]*[<>]+[&|]?\s*[^\s;|&]*|\s-[gnu]\s+[^\s-]\S*")
ADOPTED = """\
Times are the host's.  Unlike cron, a task runs a tick that is up to an hour late (grace=1 stops
that), and never starts while it still runs.
"""
AS_USER = '''

def as_user(user: str, *words: str) -> list[str]:
    """Return what runs a line as a user; a shell and a home may follow it."""
    script = 'HOME=${2:-$HOME}; cd; exec "${1:-/bin/sh}" -c "$0"'
    return ["/sbin/runuser", "-u", user, "--", "/bin/sh", "-c", script, *words]

'''


class Adoption:
    """A task file made from a crontab; nothing in the crontab's text is evaluated.

    A system crontab names a user in the sixth column; None: guess.  `user` runs the scheduler:
    tasks of other users start with runuser.  No task gets a name that is taken.
    """

    def __init__(
        self,
        text: str,
        *,
        system: bool | None = None,
        name: str = "crontab",
        user: str = "root",
        taken: Iterable[str] = (),
    ) -> None:
        lines = [line.strip(" \t\r") for line in text.removeprefix("\ufeff").split("\n")]
        self.system = _names_users(lines) if system is None else system
        self.tasks: list[str] = []
        self.left_out: dict[int, str] = {}  # why, by the number of the line
        self._taken = set(taken)
        self._own = user if self.system else None  # None: the lines name no user.
        self._blocks: list[str] = []
        self._comments: list[str] = []
        # A variable applies to the lines below it, as in cron.
        self._env: dict[str, str] = {}
        self._written_env: dict[str, str] = {}
        self._zone = "local"
        for number, line in enumerate(lines, start=1):
            try:
                self._read(line)
            except ConfigurationError as error:
                self.left_out[number] = str(error)
                self._add(f"Left out: {line}", str(error))
        kind = "system" if self.system else "user"
        self.source = self._file(f"{name}, read as a {kind} crontab")

    def _read(self, line: str) -> None:
        """Read the next line; raises ConfigurationError with the reason why it is no task."""
        if line.startswith("#"):
            self._comments.append(line.lstrip("#").strip())
        elif not line:
            self._add()
        elif variable := CRON_VARIABLE.fullmatch(line):
            self._add()
            words = [word or "" for word in variable.groups()]
            self._set("".join(words[:3]), "".join(words[3:]))
        elif entry := CRON_ENTRY.fullmatch(line):
            self._add_task(entry[1], entry[2])
        else:
            raise ConfigurationError("it is neither NAME=value nor a schedule with a command")

    def _add(self, *comments: str, code: Sequence[str] = ()) -> None:
        """Add a block of the pending comments, these comments, and code."""
        lines = [f"# {_printable(each)}".rstrip() for each in (*self._comments, *comments)]
        self._comments.clear()
        if lines or code:
            self._blocks.append("\n".join([*lines, *code]))

    def _file(self, title: str) -> str:
        """Return the file, as `ruff format` leaves it."""
        self._add()
        title = re.sub(r'["\\]', " ", _printable(title))
        body = "\n\n".join(self._blocks).split("\n")
        head = f'"""Tasks of {title}.\n\n{ADOPTED}"""\n\n'
        if "    cwd=Path.home()," in body:
            head += "from pathlib import Path\n\n"
        helper = AS_USER if "    command=as_user(" in body else ""
        return "\n".join([f"{head}from housekeeper import Task\n{helper}", *body, ""])

    def _set(self, name: str, value: str) -> None:
        if name == "CRON_TZ":
            self._zone = value or "local"
        elif name == "RANDOM_DELAY":
            raise ConfigurationError("a task has no random delay; write H for the minute or hour")
        elif name == "MAILTO" and value:
            told = "--on-failure COMMAND, or on_finish= in an application, reports failures"
            self._add(f"MAILTO={value}: {told}.")
        elif not NOT_FOR_COMMANDS.fullmatch(name):
            self._env[name] = value

    def _add_task(self, when: str, command: str) -> None:
        user = self._own
        if user is not None:
            column = CRON_USER.fullmatch(command)
            if column is None:
                raise ConfigurationError("its sixth column is not a user followed by a command")
            user, command = column.groups()
        line, stdin = _without_percents(command)
        base = _name_after(line)
        names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
        name = next(each for each in names if each not in self._taken.union(self.tasks))
        schedule = None if when == "@reboot" else _cron_schedule(when)
        zone = self._zone if schedule and self._zone != "local" else "UTC"
        try:  # The task's own checks say what is wrong.
            words = [line, *stdin]
            Task(name, command=words, env=self._env, schedule=schedule, timezone=zone)
        except ConfigurationError as error:
            raise ConfigurationError(str(error).partition(": ")[2]) from None
        self._add_env()
        description = self._take_description()
        arguments = [
            _literal(name),
            *self._command(user, line, stdin),
            "env=ENV" if self._env else "",
            f"schedule={_literal(schedule)}" if schedule else "startup=True",
            f"timezone={_literal(self._zone)}" if schedule else "",
            f"description={_literal(description)}" if description else "",
        ]
        told = (
            "" if schedule else "At each start of the scheduler, not of the host.",
            f"In the crontab: {when}" if schedule and schedule != " ".join(when.split()) else "",
            _told_of_background(line),
        )
        code = [f"{name.replace('-', '_')}_task = Task(", *_indented(arguments), ")"]
        self._add(*filter(None, told), code=code)
        self.tasks.append(name)

    def _add_env(self) -> None:
        if self._env != self._written_env:
            pairs = (f"{_literal(key)}: {_literal(value)}" for key, value in self._env.items())
            self._blocks.append("\n".join(["ENV = {", *_indented(pairs), "}"]))
            self._written_env = dict(self._env)

    def _take_description(self) -> str:
        comments = self._comments
        if any(map(OFF_LINE.match, comments)):
            return ""
        while comments and re.fullmatch(r"\W*", comments[-1]):
            comments.pop()
        first = max(
            (n for n, each in enumerate(comments, 1) if COLUMN_HEADS.match(each)), default=0
        )
        description = " ".join(comments[first:])
        del comments[first:]
        return description

    def _command(self, user: str | None, line: str, stdin: Sequence[str]) -> list[str]:
        shell, home = self._env.get("SHELL", "").strip() or "/bin/sh", self._env.get("HOME", "")
        alone = _told_of_background(line) == LIVES_ON
        if alone or stdin:
            # Alone it has a session of its own, and an output that does not end with the run.
            start, end = ("setsid -f ", " >/dev/null 2>&1") if alone else ("", "")
            line = f"{start}{shlex.quote(shell)} -c {shlex.quote(line)}{end}"
            shell = "/bin/sh"
        if stdin:
            line = f"printf '%s\\n' {' '.join(map(shlex.quote, stdin))} | {line}"
        folder = f"cwd={_literal(home)}" if home else "cwd=Path.home()"
        if user != self._own:
            words = [str(user), line, *([shell, home] if home or shell != "/bin/sh" else [])]
            start, end, folder = "as_user(", ")", ""
        elif shell != "/bin/sh":
            words, start, end = [shell, "-c", line], "[", "]"
        else:
            return [f"command={_literal(line)}", folder]
        items = _indented(map(_literal, words), 8)
        return ["\n".join([f"command={start}", *items, f"    {end}"]), folder]


def _names_users(lines: Iterable[str]) -> bool:
    """Tell whether the sixth column holds only names: root's, or those of this host's users."""
    entries = [CRON_ENTRY.fullmatch(line) for line in lines if not line.startswith("#")]
    found = [CRON_USER.fullmatch(entry[2]) for entry in entries if entry]
    users = {each[1] for each in found if each}
    known = all(os.path.expanduser(f"~{each}") != f"~{each}" for each in users)
    return bool(found) and all(found) and ("root" in users or known)


def _indented(items: Iterable[str], columns: int = 4) -> list[str]:
    return [f"{'':{columns}}{item}," for item in items if item]


def _told_of_background(line: str) -> str:
    """Return what is to be told of a & in a shell line: LIVES_ON when the line ends in one."""
    bare = QUOTED.sub("", line).rstrip()
    if not BACKGROUND.search(bare):
        return ""
    waits = re.search(r"\bwait\b", bare)
    return LIVES_ON if bare.endswith("&") else "" if waits else ENDS_WITH_LINE


def _without_percents(command: str) -> tuple[str, list[str]]:
    """Return a shell line, and the lines after each bare %, which are its standard input."""
    line = cast("re.Match[str]", re.match(r"([^\\%]|\\.?)*", command, re.DOTALL))[0]
    rest = command[len(line) + 1 :]
    stdin = re.sub(r"\\?%", lambda found: "%" if found[0] == r"\%" else "\n", rest)
    return line.replace(r"\%", "%"), stdin.removesuffix("\n").split("\n") if stdin else []


def _cron_schedule(when: str) -> str:
    """Return a schedule in Housekeeper's syntax; raises ConfigurationError."""
    found = []
    for each, text in zip(CRON_FIELDS[-5:], when.split(), strict=False):
        if single := re.search(r"(?:^|,)(\w+)(/\w+)", text):
            hint = f"write {single[1]}-{each.high}{single[2]}"
            raise ConfigurationError(f"cron knows no step without a range, as in {text!r}; {hint}")
        for step in re.finditer(r"(\*|\d+)(?:-\d+)?/(\d{1,9})(?!\d)", text):
            if int(step[2]) > each.size and f"{each.name}s" in UNITS:
                text = text.replace(step[0], step[1].replace("*", "0"))
        found.append(text)
    return without_chance(" ".join(found)) if len(found) == 5 else when


def _name_after(line: str) -> str:
    """Return a task's name: the main command of a shell line, and a plain word after it."""
    names = []
    for part in re.split("[|&;]+", NOISE.sub(" ", line)):
        words = [word for each in part.split() if (word := each.strip("`(){}"))]
        words = list(itertools.dropwhile(STARTER.fullmatch, words)) or words[:1]
        first = "".join(words[:1]).strip("\"'")
        file = re.sub(r"\.(sh|bash|py|php|pl|rb|js)$", "", Path(first).name)
        plain = [word for word in words[1:2] if re.fullmatch("[A-Za-z][A-Za-z:_-]*", word)]
        name = re.sub("[^a-z0-9]+", "-", " ".join([file, *plain]).lower())[:60].strip("-")
        names.append((not name or GUARD.fullmatch(first) is not None, name))
    name = min(names, key=lambda each: each[0])[1] or "command"
    return name if name[0].isalpha() else f"run-{name}"


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _literal(text: str) -> str:
    """Return a string's literal, in the quotes that `ruff format` takes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    known = {"\\": r"\\", quote: f"\\{quote}"}
    inner = (known.get(x) or (x if x.isprintable() else repr(x)[1:-1]) for x in text)
    return f"{quote}{''.join(inner)}{quote}"


def _write_adopted(adopted: Adoption, folder: Path, crontab: Path) -> str:
    """Write a new file, named after a crontab and as private; raises ConfigurationError."""
    file = folder / f"{re.sub('[^A-Za-z0-9]+', '_', crontab.stem).strip('_') or 'crontab'}.py"
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        flags, mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644 if adopted.system else 0o600
        with open(os.open(file, flags, mode), "w", encoding="utf-8") as stream:
            stream.write(adopted.source)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written ({error.strerror})") from error
    return str(file)


# ================================================================================================
# 21. Command line: python housekeeper.py
# ================================================================================================

EXIT_CODES = """\
exit codes: 0 all is well; 1 the task failed or runs already, check found a problem, or a worker
had to be abandoned; 2 wrong use or configuration; 3 no ledger, or it cannot be reached; 4 the
answer could not be written; 128 + n ended at once by signal n; of health: 0 ok, 1 warning,
2 critical, 3 no ledger, 4 as above"""

SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none.


class Option(NamedTuple):
    """A command-line option, which an environment variable can also set."""

    name: str
    type: Callable[[str], object]
    default: object
    value: str
    help: str

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return f"HOUSEKEEPER_{self.name.upper().replace('-', '_')}"


OPTIONS = (
    Option("app", str, None, "MODULE:NAME", "take the Housekeeper of an application"),
    Option("tasks", str, None, "FOLDER", "where task files are (default: tasks beside this file)"),
    Option("ledger", str, "sqlite:///housekeeper.db", "URL", "where runs are kept"),
    Option("timezone", str, "UTC", "ZONE", "of schedules that name none"),
    Option("workers", int, 10, "N", "how many tasks run at the same time"),
    Option("shutdown-timeout", float, 30.0, "SECONDS", "to wait for running tasks at the end"),
    Option("on-failure", str, None, "COMMAND", "a shell line to run after each failure of a task"),
    Option("http", str, None, "HOST:PORT", "serve the dashboard and the HTTP API there"),
    Option("log-level", str, "INFO", "LEVEL", "DEBUG, INFO, WARNING or ERROR"),
)
# The options that --app leaves to the application, and what create_housekeeper() calls them.
OF_THE_APPLICATION = {
    "tasks": "tasks_dir",
    "ledger": "ledger",
    "timezone": "timezone",
    "workers": "max_workers",
    "shutdown-timeout": "shutdown_timeout",
    "on-failure": "on_finish",
}


# The replies of commands, and the one place that prints them.


class OutputLost(HousekeeperError):
    """The answer could not be written: the disk is full, or its reader has left."""


class Reply(NamedTuple):
    """A command's reply: values for programs (None: nothing), lines for people, the exit code.

    `remarks` go to stderr for both.
    """

    values: object
    lines: Sequence[str]
    code: int = 0
    remarks: Sequence[str] = ()


Command = Callable[[Housekeeper, "argparse.Namespace"], Reply]


class Screen(NamedTuple):
    """The terminal or file that gets the reply; `width` is None unless it is a terminal."""

    width: int | None
    coloured: bool
    now: datetime

    @property
    def narrow(self) -> bool:
        """Whether tables show short forms."""
        return self.width is not None and self.width < 120


def _screen(clock: Clock) -> Screen:
    import shutil

    terminal = sys.stdout.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size().columns if terminal else None
    return Screen(width, coloured, clock.now())


GREEN, YELLOW, RED, CYAN = "32", "33", "31", "36"
COLOURS: Mapping[str, str] = {
    **dict.fromkeys(("OK", Status.SUCCEEDED), GREEN),
    **dict.fromkeys(("WARNING", Status.MISSED, Status.CANCELLED), YELLOW),
    **dict.fromkeys(("CRITICAL", *FAILURES), RED),
    Status.RUNNING: CYAN,
}
# The first outcome of a line, unless the line is indented: that is a task's own output.
OUTCOME = re.compile(rf"^(|\S.*?\s)({'|'.join(COLOURS)})(?=[\s:]|$)")


def _for_terminal(line: str, screen: Screen) -> str:
    line = printable(line)
    if not screen.coloured:
        return line
    return OUTCOME.sub(lambda it: f"{it[1]}\x1b[{COLOURS[it[2]]}m{it[2]}\x1b[0m", line)


def _print_reply(reply: Reply, options: argparse.Namespace) -> None:
    """Print in one piece, so that no log line splits it; raises OutputLost."""
    lines, screen = list(reply.lines), options.screen
    if options.json:
        values = json.dumps(reply.values, default=_plain, indent=2, allow_nan=False)
        lines = [] if reply.values is None else [values]
    elif screen.width is not None:
        lines = [_for_terminal(line, screen) for line in lines]
    _write("".join(f"{line}\n" for line in lines))
    with contextlib.suppress(OSError, ValueError):
        for remark in reply.remarks:
            print(printable(remark), file=sys.stderr)


def _write(text: str = "") -> None:
    try:
        if text:
            sys.stdout.write(text)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:  # A task may have taken stdout away.
        # Nothing more can be written, so the interpreter must not try again as it exits.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputLost(f"the answer could not be written ({error})") from error


def _complain(words: object, code: int = 0) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"housekeeper: {words}", file=sys.stderr, flush=True)
    return code


TEXTS = ("NAME", "TASK", "SCHEDULE", "STATUS", "NOTE")  # columns that may be cut


def _table(rows: Sequence[Sequence[str]], screen: Screen) -> list[str]:
    """Return aligned columns that fit, with the widest texts cut and empty columns left out."""
    cells = [[" ".join(printable(cell).split()) for cell in row] for row in rows]
    columns = [column for column in zip(*cells, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    texts = [number for number, column in enumerate(columns) if column[0] in TEXTS]
    room = (screen.width or math.inf) - 2 * (len(widths) - 1)
    while sum(widths) > room and max((widths[each] for each in texts), default=0) > 8:
        widths[max(texts, key=widths.__getitem__)] -= 1
    fitted = [
        [_cut(each, width, in_the_middle=column[0] in ("NAME", "TASK")) for each in column]
        for column, width in zip(columns, widths, strict=True)
    ]
    made = zip(*fitted, strict=True)
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in made]


def _cut(text: str, width: int, *, in_the_middle: bool) -> str:
    """Return a text that fits; names often differ only at their ends."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2 if in_the_middle else 0
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"


def _local(instant: datetime | None, zone: tzinfo) -> str:
    offset = "" if zone is UTC else " %z"
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M:%S{offset}}" if instant else "-"


LENGTHS = ((60, "min"), (3600, "h"), (86400, "d"))


def _when(instant: datetime | None, zone: tzinfo, screen: Screen) -> str:
    """Return an instant for a table; "in 5 min" or "3 h ago" on a narrow screen."""
    if instant is None or not screen.narrow:
        return _local(instant, zone)
    seconds = (instant - screen.now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    size, unit = max((each for each in LENGTHS if abs(seconds) >= 2 * each[0]), default=(1, "s"))
    number = f"{abs(seconds) / size:.0f} {unit}"
    return f"in {number}" if seconds > 0 else f"{number} ago"


# From the arguments to a command.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    _make_output_safe()
    try:
        return _obey(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except HousekeeperError as error:
        codes = {ConfigurationError: 2, UnknownTask: 2, LedgerUnavailable: 3, OutputLost: 4}
        return _complain(error, codes.get(type(error), 1))


def _make_output_safe() -> None:
    """Keep output from failing for lack of a character in the terminal, or of a stream."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # It was closed (`>&-`), or this is pythonw.exe.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _obey(arguments: Sequence[str] | None) -> int:
    importable_as_housekeeper()
    options = _with_environment(_parse(arguments))
    options.log = _set_up_log(options.log_level)
    housekeeper = _housekeeper_of(options)
    options.screen = _screen(housekeeper.clock)
    if options.command is not command_scheduler:  # The reply tells it, and only once.
        options.log.addFilter(lambda record: record.msg != DISCOVERY)
    if options.needs_ledger and not housekeeper.ledger.exists():
        raise LedgerUnavailable(_no_ledger(housekeeper))
    with ExitStack() as options.at_end:
        reply = options.command(housekeeper, options)
        told = options.command in (command_scheduler, command_check, command_health)
        unloaded = [] if told else [DISCOVERY % each for each in housekeeper.problems]
        _print_reply(reply._replace(remarks=[*reply.remarks, *unloaded]), options)
    return int(reply.code)


def _set_up_log(name: str) -> logging.Handler:
    level = logging.getLevelName(name.upper())
    if not isinstance(level, int):
        raise ConfigurationError(f"--log-level {name!r} is none of DEBUG, INFO, WARNING, ERROR")
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    return handler


# The arguments of commands.
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "NAME": {"help": "of a task"},
    "[NAME]": {"nargs": "?", "help": "of a task; of all, when it is left out"},
    "NAME_OR_EXPRESSION": {"help": "a task's name, or a cron expression in quotes"},
    "RUN": {"help": "the run's id, as `history` shows it, or how it begins"},
    "CRONTAB": {"help": "the crontab's file; - is stdin"},
    "[INSTANT]": {
        "nargs": "*",
        "default": [],
        "help": "2026-03-29 02:30, 02:30, yesterday 02:30 (default: the latest tick)",
    },
    "-n": {"type": int, "default": 10, "metavar": "N", "help": "how many (default: 10)"},
    "--failed": {"action": "store_true", "help": "only runs that failed, timed out or crashed"},
    "--output": {"action": "store_true", "help": "show what each run printed and logged"},
    "--before": {"metavar": "RUN", "help": "only runs older than this one"},
    "--notify": {"action": "store_true", "help": "try the command of --on-failure once"},
    "--into": {"metavar": "FOLDER", "help": "write a new file into this folder"},
    "--system": {"action": "store_true", "default": None, "help": "the sixth column is a user"},
    "--user": {"action": "store_false", "dest": "system", "help": "it is not (default: a guess)"},
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments; what argparse prints is written as each answer is.  Raises OutputLost."""
    words = sys.argv[1:] if arguments is None else arguments
    for early in itertools.takewhile(lambda word: word not in COMMANDS, words):
        # The value of such an option would be taken for a command.
        if early.startswith("-") and early in ARGUMENTS:
            raise ConfigurationError(_misplaced(early))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            return _make_parser().parse_args(arguments)
    finally:
        _write(printed.getvalue())


def _make_parser() -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ConfigurationError(_in_one_sentence(message, self.prog))

    parser: argparse.ArgumentParser = Parser(
        prog="housekeeper.py",
        usage="housekeeper.py [option ...] [COMMAND ...]",
        description="Run the scheduler in the foreground, or one of the commands below.",
        epilog=EXIT_CODES,
        parents=[_make_options(shown=True)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command_scheduler, needs_ledger=False, json=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog=parser.prog)
    for name, (function, arguments) in COMMANDS.items():
        words = (function.__doc__ or name).splitlines()[0]
        sub = commands.add_parser(
            name,
            help=words,
            description=words,
            parents=[_make_options(shown=False)],
            epilog="It also takes --json and the options of `housekeeper.py --help`.",
        )
        sub.set_defaults(command=function, needs_ledger=name in NEED_LEDGER)
        either = sub.add_mutually_exclusive_group() if "--user" in arguments else sub
        for argument in arguments.split():
            place = either if argument in ("--system", "--user") else sub
            place.add_argument(argument.strip("[]"), **ARGUMENTS.get(argument, {}))
    return parser


def _make_options(*, shown: bool) -> argparse.ArgumentParser:
    import argparse

    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for option in OPTIONS:
        default = "" if option.default is None else f" (default: {option.default})"
        words = f"{option.help}{default} [{option.variable}]" if shown else argparse.SUPPRESS
        name, value = f"--{option.name}", option.value
        common.add_argument(name, type=option.type, metavar=value, help=words)
    words = "print JSON, for programs [HOUSEKEEPER_JSON]" if shown else argparse.SUPPRESS
    common.add_argument("--json", action="store_true", help=words)
    words = "print the version" if shown else argparse.SUPPRESS
    version = f"housekeeper {__version__}"
    common.add_argument("-V", "--version", action="version", version=version, help=words)
    return common


def _in_one_sentence(message: str, command: str) -> str:
    """Return what argparse has against the arguments, with what to do."""
    hint = f"`{command} --help` shows what it takes"
    of_all = ("--help", "--version", "--json")
    if found := re.match("argument COMMAND: invalid choice: '(.*?)'", message):
        words = [*COMMANDS, *of_all]
        return f"there is no command {found[1]!r}; {did_you_mean(found[1], words, hint)}"
    if found := re.fullmatch("argument (.*): invalid (?:int|float) value: (.*)", message):
        return f"{found[1]} {found[2]} is not a number"
    if found := re.match("unrecognized arguments: (-[^ =]+)", message):
        if found[1] in ARGUMENTS:
            return _misplaced(found[1])
        known = [*(f"--{option.name}" for option in OPTIONS), *ARGUMENTS, *of_all]
        hint = did_you_mean(found[1], known, hint)
    return f"{message}; {hint}"


def _misplaced(option: str) -> str:
    takers = [name for name, (_, taken) in COMMANDS.items() if option in taken.split()]
    return f"{option} goes behind a command that takes it: {', '.join(takers)}"


def _with_environment(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in missing options from HOUSEKEEPER_* variables, or else the defaults."""
    given = [name for name in OF_THE_APPLICATION if hasattr(options, name.replace("-", "_"))]
    if given and (hasattr(options, "app") or variable("HOUSEKEEPER_APP")):
        raise ConfigurationError(
            f"--{given[0]} has no effect with --app or HOUSEKEEPER_APP; the application sets it"
        )
    for option in OPTIONS:
        name, text = option.name.replace("-", "_"), variable(option.variable)
        if hasattr(options, name):
            continue
        try:
            setattr(options, name, option.type(text) if text else option.default)
        except ValueError as error:
            raise ConfigurationError(f"{option.variable}={text!r} is not a number") from error
    options.json |= variable("HOUSEKEEPER_JSON").lower() not in ("", *OFF)
    if not 0 < getattr(options, "n", 1) < 1_000_000:
        raise ConfigurationError(f"-n {options.n} is not a whole number from 1 to 999999")
    return options


def _housekeeper_of(options: argparse.Namespace) -> Housekeeper:
    options.notifier = None
    if options.app is not None:
        return load_application(options.app)
    if options.on_failure:
        options.notifier = FailureCommand(options.on_failure)
    try:
        tasks = Path(options.tasks).absolute() if options.tasks else Path("tasks")
    except OSError as error:
        raise ConfigurationError(
            f"{options.tasks!r} is in the working folder, which is gone ({error.strerror});"
            " write an absolute path, or start from another folder"
        ) from error
    values = vars(options) | {"tasks": tasks, "on_failure": options.notifier}
    given = {name: values[each.replace("-", "_")] for each, name in OF_THE_APPLICATION.items()}
    try:
        return create_housekeeper(sentry_enabled=bool(os.environ.get("SENTRY_DSN")), **given)
    except ConfigurationError as error:
        # It names the parameter, and nobody here has typed that.
        typed = {name: f"--{each}" for each, name in OF_THE_APPLICATION.items()}
        name, rest = str(error).split(" ", 1)
        raise ConfigurationError(f"{typed.get(name, name)} {rest}") from error


def load_application(text: str) -> Housekeeper:
    """Import ``module:name`` and return the Housekeeper of that name, not started.

    Raises ConfigurationError.
    """
    module_name, _, path = text.partition(":")
    if not module_name or not path:
        raise ConfigurationError(f"--app {text!r} is not of the form module:name")
    with contextlib.suppress(OSError):  # A working folder that is gone holds no application.
        sys.path.insert(0, str(Path.cwd()))
    try:
        with holding_back():
            _importable_from_here()
            found: object = importlib.import_module(module_name)
            for name in path.split("."):
                found = getattr(found, name)
    except Exception as error:
        raise ConfigurationError(f"--app {text}: {_in_a_line(error)}") from error
    if not isinstance(found, Housekeeper):
        raise ConfigurationError(f"--app {text} is {found!r}, not a Housekeeper")
    return found


def _importable_from_here() -> None:
    """Let the application's name for this file, such as ``shop.housekeeper``, mean this module."""
    here, folder = Path(__file__).resolve(), Path(sys.path[0]).resolve()
    if not here.is_relative_to(folder):
        return
    this = sys.modules[__name__]
    dotted = ".".join(here.relative_to(folder).with_suffix("").parts)
    sys.modules.setdefault(dotted, this)
    package, _, name = dotted.rpartition(".")
    # A package that does not import is reported when the application is imported.
    with contextlib.suppress(ImportError):
        if package:
            setattr(importlib.import_module(package), name, this)


class FailureCommand:
    """Runs a shell line after each failure, one at a time, on its own thread."""

    LIMIT = 60.0  # seconds for one failure
    AT_END = 3.0  # seconds that the process waits for it at its end

    def __init__(self, line: str) -> None:
        self._line = line
        self._pool = ThreadPoolExecutor(1, "housekeeper-on-failure")
        self._last: Future[str] | None = None

    def __call__(self, run: Run) -> None:
        """Queue the command, if the run has failed for good."""
        if run.status in FAILURES:
            self._last = self._pool.submit(self.tell, run)

    def finish(self) -> None:
        """Wait briefly for the commands; one that is running outlives this process."""
        if self._last is not None and concurrent.futures.wait([self._last], self.AT_END).not_done:
            logger.warning("The command of --on-failure has not been run for the last failures")

    def tell(self, run: Run) -> str:
        """Run the command with a run; return what went wrong, if anything did."""
        about = {"TASK": run.task, "STATUS": str(run.status), "NOTE": run.note, "RUN": run.id}
        told = {f"HOUSEKEEPER_{name}": text.replace("\0", "") for name, text in about.items()}
        told = {**os.environ, **told, "HOUSEKEEPER_TOKEN": ""}
        options: dict[str, Any] = {"shell": True, "start_new_session": True, "env": told}
        data, wrong = json.dumps(run.as_dict()).encode(), ""
        try:
            # Its output goes to the log: stdout may be read by a program.
            done = subprocess.run(
                self._line, input=data, stdout=2, timeout=self.LIMIT, check=False, **options
            )
            if done.returncode:
                wrong = f"it exited with {done.returncode}"
        except subprocess.TimeoutExpired:
            wrong = f"it took longer than {self.LIMIT:g} s and was killed"
        except Exception as error:
            wrong = f"it could not be run ({_in_a_line(error)})"
        if wrong:
            logger.error("The command of --on-failure, for task %s: %s", run.task, wrong)
        return wrong


# The scheduler, and `run`: commands in the foreground.


class Foreground:
    """The main thread of a process that runs tasks; it only waits, and so hears each signal.

    Everything else is done on other threads.  From signal to end it takes at most shutdown_timeout
    and 5 s, whatever fails or hangs: see stop().
    """

    def __init__(self, housekeeper: Housekeeper, options: argparse.Namespace) -> None:
        self._housekeeper = housekeeper
        # A lock in a signal handler deadlocks at times; this queue does not.
        self._inbox: queue.SimpleQueue[int | Future[Any]] = queue.SimpleQueue()
        self._begun: list[Future[Any]] = []
        self._ends: queue.SimpleQueue[tuple[float, int]] = queue.SimpleQueue()
        self._terminals = [number for number in range(3) if os.isatty(number)]
        self.at_stop: list[Action] = []  # done before the shutdown
        self._at_last: Action = int if options.notifier is None else options.notifier.finish
        # Started now, because the system may give no thread later.
        threading.Thread(target=self._see_to_the_end, daemon=True).start()
        options.at_end.callback(self.stop)
        self._hear()
        capture_prints()

    def _see_to_the_end(self) -> None:
        """End the process after the seconds and with the code that were queued last."""
        seconds, code = self._ends.get()
        with contextlib.suppress(queue.Empty):
            while True:
                seconds, code = self._ends.get(timeout=min(seconds, 1e6))
        os._exit(code)

    def _hear(self) -> None:
        """Put signals into the inbox; forked processes get the earlier handlers back.

        A signal that was ignored when the process started (nohup) stays ignored.
        """
        numbers = [number for number in (signal.SIGTERM, signal.SIGINT, SIGHUP) if number]
        numbers = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]
        self._earlier = {number: signal.signal(number, self._take) for number in numbers}
        # If the parent process left SIGCHLD ignored, the exit codes of commands would be lost.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.hear_no_more)
            # Blocked during the fork: otherwise a signal to the child would be lost.
            hold, let_go = (
                functools.partial(signal.pthread_sigmask, how, numbers)
                for how in (signal.SIG_BLOCK, signal.SIG_UNBLOCK)
            )
            os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_go)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._inbox.put(number)

    def hear_no_more(self) -> None:
        """Restore the earlier signal handlers before the main thread does what may hang."""
        for number, handler in self._earlier.items():
            if signal.getsignal(number) == self._take:
                signal.signal(number, handler)

    def begin(self, work: Callable[[], R]) -> Future[R]:
        """Do work on a thread, or here if there is none; wait() returns it when it is done."""
        future: Future[R] = Future()
        future.add_done_callback(self._inbox.put)
        self._begun.append(future)

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        if not on_thread(do, "housekeeper-work"):
            do()
        return future

    def wait(self, until: float = math.inf) -> int | Future[Any] | None:
        """Return the next signal or finished work; None when none comes until then.

        A signal that arrives just before the wait starts does not end it (4 of 90 that were sent
        on the first line of output were lost for ever), so the wait is restarted each second.
        """
        while (left := until - self._housekeeper.clock.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                return self._inbox.get(timeout=min(1.0, left))
        return None

    def asks_for_reload(self, number: int) -> bool:
        """Tell whether a signal is SIGHUP, and not from a terminal that was closed."""
        closed = bool(self._terminals) and not any(map(os.isatty, self._terminals))
        return number == SIGHUP and not closed

    def stop(self) -> None:
        """Shut down, and return when all has ended; otherwise end the process here.

        The first line guarantees the time limit: what follows may fail, hang, or find no thread.
        """
        self._ends.put((self._housekeeper.shutdown_timeout + 5.0, 1))
        until = self._housekeeper.clock.monotonic() + self._housekeeper.shutdown_timeout + 4.4
        ended = False
        try:
            stopping = self.begin(self._shut_down)
            while (came := self.wait(until)) is not None and came is not stopping:
                if isinstance(came, int) and came != SIGHUP:
                    self.end_at_once(128 + came)
            ended = came is stopping and stopping.result()
        except BaseException as error:
            _complain(f"the shutdown failed: {_in_a_line(error)}")
        if not ended or not all(each.done() for each in self._begun):
            self.end_at_once(0 if ended else 1)

    def _shut_down(self) -> bool:
        for act in self.at_stop:
            guarded(act)
        ended = self._housekeeper.shutdown()
        guarded(self._at_last)
        return ended

    def end_at_once(self, code: int) -> NoReturn:
        """End the process even if threads hang: a plain exit would wait for them, or crash."""
        try:
            # Writing may hang as well: on a lock, or on a reader that has stopped.
            self._ends.put((0.5, code))
            for act in (self._housekeeper.kill_commands, logging.shutdown, _write):
                guarded(act)
        finally:
            os._exit(code)


def command_scheduler(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Run the scheduler until a signal ends it."""
    if not housekeeper.enabled:
        return Reply({"enabled": False}, [f"{SWITCHED_OFF}: nothing is scheduled"])
    if (outer := scheduling_parent()) is not None:
        raise ConfigurationError(
            f"process {outer}, which has started this one, runs the same tasks; to schedule them"
            f" here too, start this one without {SCHEDULER} in its environment"
        )
    life, manager = Foreground(housekeeper, options), ServiceManager()
    start = life.begin(functools.partial(_start, housekeeper, options, manager))
    busy, wanted = True, False
    while True:
        came = cast("int | Future[None]", life.wait())
        if isinstance(came, Future):
            busy = False
            if came is start:
                came.result()
        elif life.asks_for_reload(came):
            wanted = True
        else:
            name = signal.Signals(came).name
            life.at_stop.append(functools.partial(manager.tell, "STOPPING=1"))
            life.at_stop.append(functools.partial(logger.info, "Shutting down after %s", name))
            return Reply(None, ())
        if wanted and not busy:
            busy, wanted = True, False
            life.begin(functools.partial(guarded, _reload, housekeeper, manager))


def _start(housekeeper: Housekeeper, options: argparse.Namespace, manager: ServiceManager) -> None:
    _init_sentry(housekeeper, options)
    server, page = _listen(housekeeper, options.http) if options.http else (None, "")
    housekeeper.ledger.open()  # An application starts without a ledger; this would do nothing.
    housekeeper.initialize()
    tasks, pages = housekeeper.list_tasks(), [f"Dashboard: {page}"] if page else []
    lines = [*_task_table(housekeeper, tasks, options.screen, 4), *pages]
    try:
        _print_reply(Reply(tasks, lines, remarks=pages if options.json else ()), options)
    except OutputLost as error:
        logger.warning("The list of tasks is lost: %s", error)
    if server is not None:
        threading.Thread(target=server.serve_forever, name="housekeeper-http", daemon=True).start()
    manager.tell_ready(housekeeper)


def _reload(housekeeper: Housekeeper, manager: ServiceManager) -> None:
    logger.info("Reloading the tasks")
    manager.tell("RELOADING=1", f"MONOTONIC_USEC={housekeeper.clock.monotonic() * 1e6:.0f}")
    for problem in housekeeper.discover():
        logger.error(DISCOVERY, problem)
    manager.tell("READY=1")


def _listen(housekeeper: Housekeeper, address: str) -> tuple[HttpServer, str]:
    """Listen at ``HOST:PORT``; return the server, not yet serving, and the page's address.

    Raises ConfigurationError, also for an address open to other hosts without a token.
    """
    host, _, number = address.rpartition(":")
    host = host.strip("[]")
    if not host or not re.fullmatch("[0-9]{1,5}", number) or int(number) > 65535:
        raise ConfigurationError(f"--http {address!r} is not of the form HOST:PORT")
    token, fragment = variable("HOUSEKEEPER_TOKEN"), ""
    if not token:
        if not re.fullmatch(r"localhost|127(\.[0-9]{1,3}){3}|::1", host):
            raise ConfigurationError(
                f"--http {address} can be reached from other hosts; set HOUSEKEEPER_TOKEN first"
            )
        import secrets

        token = secrets.token_urlsafe()
        # A browser does not send what follows the #.
        fragment = f"#token={token}"
    app = housekeeper.mount(_lead_to_page, token=token)
    try:
        server = HttpServer(app, host, int(number), housekeeper.clock)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen at --http {address} ({error.strerror})"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    return server, f"http://{shown}:{server.server_address[1]}/api/housekeeper/{fragment}"


def _lead_to_page(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Redirect / to the page; the rest of the site, beside the mounted application, is a 404."""
    found = environ["PATH_INFO"] == "/"
    headers = [("Content-Length", "0"), *([("Location", "/api/housekeeper/")] if found else [])]
    start_response("302 Found" if found else "404 Not Found", headers)
    return [b""]


class ServiceManager:
    """Tells systemd the scheduler's state (sd_notify(3)); does nothing elsewhere."""

    def __init__(self) -> None:
        # Removed, so that the commands of tasks do not speak for this process.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        watched = os.environ.pop("WATCHDOG_PID", "") in ("", str(getpid()))
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        self._watchdog = int(microseconds) / 1e6 if watched and microseconds.isdigit() else None

    def tell_ready(self, housekeeper: Housekeeper) -> None:
        """Say that the scheduler has started, and from then on feed systemd's watchdog."""
        if self._watchdog is not None:
            beat = functools.partial(self.tell, "WATCHDOG=1")
            housekeeper.beat_every(self._watchdog / 2, beat)
        self.tell("READY=1")

    def tell(self, *lines: str) -> None:
        """Send lines such as READY=1, and never wait: the timer thread calls this too."""
        if not self._address.startswith(("/", "@")):
            return
        address = re.sub("^@", "\0", self._address)  # An abstract socket.
        # Making the socket also fails when the process is out of file descriptors.
        unheard = contextlib.suppress(OSError)
        with unheard, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(lines).encode(), address)


def _init_sentry(housekeeper: Housekeeper, options: argparse.Namespace) -> None:
    """Set up the SDK by SENTRY_DSN, SENTRY_ENVIRONMENT and SENTRY_RELEASE, which it reads itself.

    With --app, the application does that.  Raises ConfigurationError.
    """
    if options.app is not None or not housekeeper.sentry_enabled:
        return
    sentry_sdk = import_sentry_sdk()
    try:
        sentry_sdk.init()
    except ValueError as error:
        raise ConfigurationError(f"SENTRY_DSN is not a DSN ({error})") from None


def command_run(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Run a task now, and wait for it; Ctrl-C, or a terminal that is closed, asks it to stop."""
    if not housekeeper.enabled:
        raise HousekeeperError(f"{SWITCHED_OFF}: no task is run")
    # The outcome is the reply, so it is not logged too.
    options.log.addFilter(lambda record: record.name != outcome_logger.name)
    life, asked = Foreground(housekeeper, options), threading.Event()
    life.begin(functools.partial(_perform, housekeeper, options, asked))
    while not isinstance(came := life.wait(), Future):
        # A closed terminal sends SIGHUP, and its shell sends one more.
        if asked.is_set() and came != SIGHUP:
            life.end_at_once(128 + cast(int, came))
        asked.set()
    life.hear_no_more()
    run = cast(Run, came.result())
    words = ": ".join(filter(None, (f"{run.duration or 0:.3f} s", _note_words(run))))
    line = f"{run.task} {run.status} in {words}"
    remarks = [run.error.rstrip()] if run.status in FAILURES and run.error else []
    return Reply(run, [line], int(run.status not in (Status.SUCCEEDED, Status.SKIPPED)), remarks)


def _perform(housekeeper: Housekeeper, options: argparse.Namespace, asked: threading.Event) -> Run:
    _init_sentry(housekeeper, options)
    housekeeper.ledger.open()
    housekeeper.initialize(scheduling=False)
    tell_children()  # The task starts all children of this process.
    run, shown = housekeeper.run_task_manually(options.NAME, wait=False), ""
    while not run.ended.is_set():
        housekeeper.clock.wait(run.ended, 0.2)
        progress = "" if run.ended.is_set() else printable(str(run.progress_made or ""))
        # Only what has changed, so that a line that the task has begun is not erased.
        if progress != shown and sys.stderr.isatty():
            # A reader that has left misses the progress, and the run goes on.
            with contextlib.suppress(OSError, ValueError):
                print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)
        shown = progress
        if asked.is_set() and not run.cancelled:
            housekeeper.cancel(options.NAME)
    return run


# Questions.


def command_list(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """List the tasks with their schedules, next and last runs."""
    remarks, report, limit, code = [], HealthReport(), CALL_LIMIT, 0
    if not housekeeper.enabled:
        remarks.append(f"{SWITCHED_OFF}: nothing runs here")
    ledger = housekeeper.ledger
    try:
        with ledger_calls_within(WEB_CALL_LIMIT):
            if ledger.exists():
                report.tell_runners(ledger.runners(housekeeper.settings.namespace), ledger.now())
            else:
                remarks.append(_no_ledger(housekeeper))
    except LedgerUnavailable as error:
        remarks, limit, code = [*remarks, str(error)], 0.0, 3
    with ledger_calls_within(limit):  # What does not answer is not waited for once more.
        tasks = housekeeper.list_tasks()
    stale = [each for each in report.warnings if NOT_LOADED in each]
    lines = _task_table(housekeeper, tasks, options.screen)
    return Reply(tasks, lines, code, [*remarks, *report.critical, *stale])


def _no_ledger(housekeeper: Housekeeper) -> str:
    return f"No ledger at {housekeeper.ledger.url}; pass --ledger, or start the scheduler once"


def _task_named(housekeeper: Housekeeper, name: str) -> Mapping[str, Any]:
    """Return a task's entry in `list`; raises UnknownTask."""
    tasks = {str(each["name"]): each for each in housekeeper.list_tasks()}
    if name not in tasks:
        raise housekeeper.unknown_task(name)
    return tasks[name]


def _task_table(
    housekeeper: Housekeeper, tasks: Sequence[Mapping[str, Any]], screen: Screen, columns: int = 6
) -> list[str]:
    if not tasks:
        return [f"there are no tasks in {housekeeper.tasks_dir or 'this application'}"]
    in_utc = all(each["timezone"] == "UTC" for each in tasks)
    suffix = " (UTC)" if in_utc and not screen.narrow else ""
    zone = "" if in_utc else "ZONE"
    rows = [("NAME", "SCHEDULE", zone, f"NEXT RUN{suffix}", f"LAST RUN{suffix}", "STATUS")]
    for each in tasks:
        place, last = zone_named(each["timezone"]), cast("Run | None", each["last_run"])
        began = (last.started_at or last.scheduled_for) if last else None
        # The STATUS column says that it runs.
        outcome = last.status if last and last.status is not Status.RUNNING else ""
        name = each["timezone"].split("/")[-1] if screen.narrow else each["timezone"]
        rows.append(
            (
                each["name"],
                each["schedule"] or ("by hand" if each["startup"] is False else "at startup"),
                "" if in_utc else name,
                _when(each["next_run"], place, screen),
                f"{_when(began, place, screen)} {outcome}",
                ", ".join(_status_words(each)),
            )
        )
    return _table([row[:columns] for row in rows], screen)


def _status_words(each: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in ("running", "paused") if each[name])
    if not each["enabled"]:
        yield "disabled"
    if each["progress"] is not None:
        yield str(each["progress"])
    if each["stop_asked_at"] is not None:
        yield f"asked to stop at {each['stop_asked_at']:%H:%M:%S} UTC"


def command_next(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Show the next ticks of a task, or of a cron expression in quotes, marking clock changes."""
    zone_name, ticks, remarks = _ticks_of(housekeeper, options.NAME_OR_EXPRESSION, options.n)
    if not ticks:
        why = f"{options.NAME_OR_EXPRESSION} has no schedule"
        return Reply(ticks, [why if housekeeper.enabled else f"{SWITCHED_OFF}: nothing comes"])
    zone = zone_named(zone_name)
    before = offset_at(zone, housekeeper.clock.now())
    rows = [(zone_name.upper(), "" if zone is UTC else "UTC", "")]
    for tick in ticks:
        change, before = offset_at(zone, tick) - before, offset_at(zone, tick)
        minutes = f"{change.total_seconds() / 60:+.0f}"
        mark = f"<- the clock changed by {minutes} minutes before this"
        mark = f"<- clock {minutes} min" if options.screen.narrow else mark
        in_utc = "" if zone is UTC else _local(tick, UTC)
        rows.append((_local(tick, zone), in_utc, mark if change else ""))
    return Reply(ticks, _table(rows, options.screen), remarks=remarks)


def _ticks_of(
    housekeeper: Housekeeper, text: str, count: int
) -> tuple[str, list[datetime], list[str]]:
    """Return the zone and the next ticks of a task or an expression, and what keeps it from them.

    Raises UnknownTask.
    """
    if not re.search(r"\s", text.strip()) and not text.startswith("@"):
        task = _task_named(housekeeper, text)
        ticks = housekeeper.next_runs(text, count)
        if not ticks and task["schedule"] and not housekeeper.ledger.exists():
            raise LedgerUnavailable(f"{_no_ledger(housekeeper)}: what H stands for is kept in it")
        paused = f"{text} is paused: it runs at none of these until `resume {text}`"
        disabled = f"{text} is disabled (enabled=False): it is run only by hand"
        kept = [] if task["enabled"] else [disabled]
        return str(task["timezone"]), ticks, [*kept, *([paused] if task["paused"] else [])]
    trigger = make_trigger(text, housekeeper.timezone)
    if HASHED.search(text):
        raise ConfigurationError(
            f"what H stands for in {text!r} comes from a task's name and its ledger; name a task"
        )
    return housekeeper.timezone, trigger.following(housekeeper.clock.now(), count), []


def command_history(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Show the newest runs, of a task or of all, with their outcomes."""
    before = options.before and _run_named(housekeeper, options.before).id
    statuses = FAILURES if options.failed else ()
    # One more than is shown tells whether there are more.
    found = housekeeper.history(options.NAME, options.n + 1, before, statuses)
    if options.NAME and not found:
        _task_named(housekeeper, options.NAME)
    runs = found[: options.n]
    older = len(found) > len(runs) and not options.json
    remarks = [f"there are older runs: add --before {runs[-1].id}"] if older else []
    which = f"{'older ' if before else ''}run{f' of {options.NAME}' if options.NAME else ''}"
    what = " that failed, timed out or crashed" if options.failed else ""
    none = [f"there is no {which}{what}"]
    lines = _run_table(runs, options.screen, output=options.output) if runs else none
    return Reply(runs, lines, remarks=remarks)


SHORT_ID = 16  # characters of a run's id, which are nearly always unique


def _run_table(runs: Sequence[Run], screen: Screen, *, output: bool) -> list[str]:
    started, tick = ("WHEN", "") if screen.narrow else ("STARTED (UTC)", "TICK (UTC)")
    rows = [("RUN", "TASK", tick, started, "SECONDS", "OUTCOME", "NOTE")]
    for run in runs:
        began = run.started_at or (run.scheduled_for if screen.narrow else None)
        tick = _local(run.scheduled_for, UTC) if run.scheduled_for else str(run.reason)
        rows.append(
            (
                run.id[:SHORT_ID] if screen.narrow else run.id,
                run.task,
                "" if screen.narrow else tick,
                _when(began, UTC, screen),
                "-" if run.duration is None else f"{run.duration:.3f}",
                run.status + (f" x{run.count:,}" if run.count > 1 else ""),
                _note_words(run),
            )
        )
    head, *lines = _table(rows, screen)
    shown: list[str] = [head]
    for run, line in zip(runs, lines, strict=True):
        said = [*run.output.splitlines(), *run.error.splitlines()] if output else []
        shown += [line, *(f"    {each}" for each in said)]
    return shown


def _note_words(run: Run) -> str:
    words = [run.note] if run.note else []
    if run.attempt > 1:
        words.append(f"attempt {run.attempt}")
    if run.progress_made is not None:
        words.append(str(run.progress_made))
    if run.status is Status.RUNNING and run.stop_asked_at is not None:
        words.append(f"asked to stop at {run.stop_asked_at:%H:%M:%S} UTC")
    return ", ".join(words)


def command_show(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Show a run, with what it has printed and logged, and its error."""
    run = _run_named(housekeeper, options.RUN)
    rows = {
        "run": run.id,
        "task": run.task,
        "outcome": run.status + ("" if run.duration is None else f" after {run.duration:.3f} s"),
        "note": _note_words(run),
        "tick (UTC)": _local(run.scheduled_for, UTC) if run.scheduled_for else run.reason,
        "started (UTC)": _local(run.started_at, UTC),
        "by": run.runner,
    }
    lines: list[str] = [f"{name:<15}{each}" for name, each in rows.items() if each]
    for title, text in (("Output", run.output), ("Error", run.error)):
        if text:
            lines += ["", f"{title}:", *(f"    {each}" for each in text.splitlines())]
    return Reply(run, lines)


def _run_named(housekeeper: Housekeeper, text: str) -> Run:
    """Return the run whose id begins with a text; raises ConfigurationError."""
    # Ids are hexadecimal and compared as text: a "g" follows all ids with this start.
    found = [run for run in housekeeper.history(None, 2, f"{text}g") if run.id.startswith(text)]
    if len(found) != 1:
        which = "several runs begin" if found else "there is no run that begins"
        raise ConfigurationError(f"{which} with {text!r}; `history` shows their ids")
    return found[0]


def command_why(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Tell what became of a tick, and why."""
    answer = housekeeper.why(options.NAME, " ".join(options.INSTANT) or None)
    return Reply(answer, cast("list[str]", answer["sentences"]))


def command_health(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Tell whether all is well, with the exit codes that Nagios expects: 0, 1, 2, or 3 unknown."""
    answer: Any = housekeeper.health()
    if answer["ledger"]["exists"] is False:
        raise LedgerUnavailable(_no_ledger(housekeeper))
    status, problems = str(answer["status"]), cast("list[str]", answer["problems"])
    first, *others = problems or ["all is well"]
    lines = [f"{status.upper()}: {first}", *others]
    return Reply(answer, lines, ("ok", "warning", "critical").index(status))


# Orders.


def command_cancel(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Ask the running run of a task to stop, in whatever process it runs."""
    run = housekeeper.cancel(options.NAME)
    values = {"task": options.NAME, "run": run}
    if run is None:
        return Reply(values, [f"{options.NAME} is not running"], 1)
    hears = f"{run.runner} hears of it within {HEARTBEAT_EVERY:g} s"
    return Reply(values, [f"{options.NAME} was asked to stop; {hears}"])


def command_pause(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Pause a task's schedule, in every process and until it is resumed."""
    changed = housekeeper.pause_task(options.NAME)
    values = {"task": options.NAME, "paused": True, "changed": changed}
    return Reply(values, [f"{options.NAME} is paused{'' if changed else ' already'}"])


def command_resume(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """End a task's pause; ticks count from now."""
    changed = housekeeper.resume_task(options.NAME)
    values = {"task": options.NAME, "paused": False, "changed": changed}
    return Reply(values, [f"{options.NAME} is {'resumed' if changed else 'not paused'}"])


def command_check(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Check task files, names, schedules and zones; needs no ledger."""
    problems = [*housekeeper.discover(), *_try_notifier(options)]
    if release := release_folder_warning(getattr(housekeeper.ledger, "path", "")):
        problems.append(release)
    tasks, unmonitored = housekeeper.task_names(), housekeeper.unmonitored()
    now, note = housekeeper.clock.now(), ""
    if now.astimezone().utcoffset() != offset_at(zone_named(housekeeper.timezone), now):
        here = f"{now.astimezone():%Z (%z)}"
        note = f"this host's clock is in {here}, schedules in {housekeeper.timezone}"
    lines = [
        ": ".join(filter(None, (counted(len(tasks), "task"), ", ".join(tasks)))),
        *([f"note: {note}"] if note else []),
        *([] if housekeeper.enabled else [f"note: {SWITCHED_OFF}: nothing runs here"]),
        *(f"note: Sentry has no monitor for {name}: {why}" for name, why in unmonitored.items()),
        *(f"problem: {each}" for each in problems),
        counted(len(problems), "problem") if problems else "all is well",
    ]
    values = {"tasks": tasks, "problems": problems, "note": note, "unmonitored": unmonitored}
    return Reply(values, lines, 1 if problems else 0)


def _try_notifier(options: argparse.Namespace) -> list[str]:
    if not options.notify:
        return []
    if options.notifier is None:
        raise ConfigurationError("--notify tries the command of --on-failure, but none is set")
    note = "this is a trial by `check --notify`"
    run = Run(id="0", task="check", reason=Reason.MANUAL, status=Status.FAILED, note=note)
    wrong = options.notifier.tell(run)
    return [f"the command of --on-failure: {wrong}"] if wrong else []


def command_adopt(housekeeper: Housekeeper, options: argparse.Namespace) -> Reply:
    """Print the task file made of a crontab, or write it into a folder."""
    import pwd

    path = Path("crontab" if options.CRONTAB == "-" else options.CRONTAB)
    try:
        data = sys.stdin.buffer.read() if options.CRONTAB == "-" else path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from error
    if options.system is None and path.parts[:2] == ("/", "etc"):
        options.system = True
    own = [each.pw_name for each in pwd.getpwall() if each.pw_uid == os.geteuid()]
    text = data.decode(errors="surrogateescape")
    user, taken = "".join(own[:1]), []
    if options.into:
        there = create_housekeeper(tasks_dir=Path(options.into).absolute(), ledger="memory://")
        there.discover()
        taken = there.task_names()
    adopted = Adoption(text, system=options.system, name=path.name, user=user, taken=taken)
    told = [f"line {number}: {reason}" for number, reason in adopted.left_out.items()]
    if not adopted.tasks:
        some = [*told[:3], *(["..."] if told[3:] else [])]
        raise ConfigurationError("; ".join([f"{path} has no line that becomes a task", *some]))
    file = _write_adopted(adopted, Path(options.into), path) if options.into else None
    left_out = f"{counted(len(told), 'line')} left out"
    told.append(f"{file or path}: {counted(len(adopted.tasks), 'task')}, {left_out}")
    source = () if file else (adopted.source.removesuffix("\n"),)
    values = {name: getattr(adopted, name) for name in ("source", "tasks", "left_out", "system")}
    return Reply({**values, "file": file}, source, 1 if adopted.left_out else 0, told)


COMMANDS: Mapping[str, tuple[Command, str]] = {
    "list": (command_list, ""),
    "run": (command_run, "NAME"),
    "next": (command_next, "NAME_OR_EXPRESSION -n"),
    "history": (command_history, "[NAME] -n --failed --output --before"),
    "show": (command_show, "RUN"),
    "why": (command_why, "NAME [INSTANT]"),
    "health": (command_health, ""),
    "cancel": (command_cancel, "NAME"),
    "pause": (command_pause, "NAME"),
    "resume": (command_resume, "NAME"),
    "check": (command_check, "--notify"),
    "adopt": (command_adopt, "CRONTAB --into --system --user"),
}
# What only reads or changes the ledger makes none.
NEED_LEDGER = ("history", "show", "why", "cancel", "pause", "resume")


if __name__ == "__main__":
    sys.exit(main())
