"""A clock that tests advance, and a Housekeeper whose real loop runs on it, years in seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import housekeeper as hk

UTC = timezone.utc


def utc(*parts: int) -> datetime:
    """Return an instant in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


class EndReached(BaseException):
    """The simulation has come to its end."""


class VirtualClock:
    """Time that passes only when somebody waits, or a test says so."""

    def __init__(self, start: datetime) -> None:
        self._wall = start
        self._elapsed = 0.0
        self.end = start
        self.waits = 0

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._elapsed

    def wait(self, waitable: hk.Waitable, seconds: float | None) -> None:
        self.waits += 1
        left = (self.end - self._wall).total_seconds()
        if seconds is None or seconds > left:
            self.advance(left)
            raise EndReached
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        # In whole microseconds, rounded up, so that what was waited for has come.
        step = timedelta(microseconds=-(-seconds * 1e6 // 1))
        self._wall += step
        self._elapsed += step.total_seconds()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does."""
        self._wall += timedelta(seconds=seconds)


class InlineExecutor(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **values: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **values))
        return future


class HeldExecutor(Executor):
    """Keeps what is submitted until a test lets it go: a pool that is full."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], object]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **values: Any) -> Future[Any]:
        self.queue.append(lambda: function(*args, **values))
        return Future()

    def release(self) -> None:
        """Run all that waits."""
        while self.queue:
            self.queue.pop(0)()


class ExhaustedExecutor(InlineExecutor):
    """A pool in a system that gives no thread at first."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def submit(self, function: Callable[..., Any], /, *args: Any, **values: Any) -> Future[Any]:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("can't start new thread")
        return super().submit(function, *args, **values)


class Late:
    """A lock or a semaphore, before whose release something else happens, once."""

    def __init__(
        self, lock: threading.Lock | threading.Semaphore, first: Callable[[], object]
    ) -> None:
        self._lock = lock
        self._first = [first]

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        if self._first:
            self._first.pop()()
        self._lock.release()


class VirtualHousekeeper(hk.Housekeeper):
    """The production Housekeeper, with its loop in the test's thread."""

    workers: Executor

    def _fresh(self) -> None:
        super()._fresh()
        self._timer.start = lambda: None  # type: ignore[method-assign]
        self._runner.start = self._take_workers  # type: ignore[method-assign]
        self._runner.apart = lambda work: work()  # type: ignore[method-assign]
        self._backlog._pool = InlineExecutor()

    def _take_workers(self) -> None:
        self._runner.workers = self.workers_on(self.workers, self.settings.max_workers)

    def workers_on(self, pool: Executor, number: int) -> hk.Workers:
        """Return workers that are threads of a pool."""
        return hk.Workers(pool, number, self._runner._pursue)

    @property
    def registrations(self) -> hk.Roster:
        """What is known of the tasks."""
        assert self._roster is not None
        return self._roster

    @property
    def agenda(self) -> hk.Timer:
        """What comes due."""
        return self._timer

    @property
    def claims(self) -> hk.Claims:
        """What makes runs that can be claimed."""
        return self._runner.claims

    def run_until(self, end: datetime) -> None:
        """Run the loop until the clock shows `end`."""
        clock: Any = self.clock
        clock.end = end
        with contextlib.suppress(EndReached):
            while self._timer.step():
                pass

    def pass_ticks_until(self, end: datetime) -> None:
        """Let the loop come past ticks while a run, which calls this, holds its task."""
        workers, self._runner.workers = self._runner.workers, self.workers_on(HeldExecutor(), 1)
        try:
            self.run_until(end)
        finally:
            self._runner.workers = workers


def simulated(
    clock: VirtualClock,
    *tasks: hk.Task,
    ledger: str | hk.Ledger = "memory://",
    workers: Executor | None = None,
    initialize: bool = True,
    **options: Any,
) -> VirtualHousekeeper:
    """Return a VirtualHousekeeper with tasks, started at the clock's present."""
    if isinstance(ledger, str):
        ledger = hk.ledger_from_url(ledger, Path("/"), clock)
    values: dict[str, Any] = {
        "app": None,
        "enabled": True,
        "sentry_enabled": False,
        "timezone": "UTC",
        "namespace": "",
        "tasks_dir": None,
        "max_workers": 10,
        "shutdown_timeout": 30.0,
        "around_run": None,
        "on_finish": None,
    }
    simulation = VirtualHousekeeper(
        hk.Settings(ledger=ledger, clock=clock, **{**values, **options})
    )
    simulation.workers = workers or InlineExecutor()
    for task in tasks:
        simulation.register_task(task)
    if initialize:
        simulation.initialize()
    return simulation
