"""What is measured, as seen from within the process that is measured."""

from __future__ import annotations

import gc
import itertools
import math
import os
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.contestants import EACH_MINUTE, EACH_SECOND, Contestant, When

Figures = dict[str, Any]

WARM_RUNS = 30
CROWD = 100  # tasks that share each second
# When each task ran, or how late it was, in seconds.
RUNS: list[float] = []
WARMED: list[float] = []


class NotReady(Exception):
    """Registering took longer than it was given: the instant has passed before the start."""

    CODE = 3


@dataclass(kw_only=True)
class Work:
    """One measurement: of whom, with how many tasks, and for how long."""

    contestant: type[Contestant]
    url: str = ""
    size: int = 0
    seconds: float = 0.0
    lead: float = 0.0  # seconds that registering may take
    distinct: bool = False
    rows: int = 0  # in a ledger that is full

    def make(self) -> Contestant:
        return self.contestant(self.url)


def count() -> None:
    RUNS.append(time.time())


def warm() -> None:
    WARMED.append(0.0)


def note(tick: float | None = None) -> None:
    """Note how late it is, by a tick, or else by the whole second."""
    now = time.time()
    RUNS.append(now - (math.floor(now) if tick is None else tick))


class Cpu:
    """User and system time of all threads but this one, which only watches."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> float:
        return time.process_time() - time.thread_time()

    def used(self) -> float:
        return max(0.0, self._read() - self._start)


def sleep_until(instant: float) -> None:
    time.sleep(max(0.0, instant - time.time()))


def sleepers(scheduler: Contestant, size: int, distinct: bool = False) -> None:
    """Register tasks that do not come due soon, with 60 schedules, or each with its own."""
    start = (int(time.time()) // 3600 + 6) * 3600
    shared = [When.at(start + 60 * minute) for minute in range(60)]
    for number in range(size):
        when = When.at(start + number % 60_000) if distinct else shared[number % 60]
        scheduler.add(f"sleeper-{number}", when, count)


def burst(work: Work) -> Figures:
    """Let so many tasks come due at one instant; return CPU per run."""
    if work.contestant.looks_once_a_minute:
        return _burst_at_start(work)
    scheduler = work.make()
    began, tick = time.perf_counter(), math.ceil(time.time() + work.lead) + 1
    when, before = When.at(tick), When.at(tick - 1)
    for number in range(work.size):
        scheduler.add(f"task-{number}", when, count)
    # These make the threads, and import what is imported late.
    warming = WARM_RUNS if work.contestant.has_workers else 0
    for number in range(warming):
        scheduler.add(f"warm-{number}", before, warm)
    scheduler.start()
    setup = time.perf_counter() - began
    sleep_until(tick - 0.2)
    if len(WARMED) < warming or time.time() > tick:
        raise NotReady
    cpu = Cpu()
    return {**_burst_figures(work, cpu, tick), "setup": setup}


def _burst_at_start(work: Work) -> Figures:
    """Do the same with one who looks for what is due when it is started."""
    scheduler = work.make()
    for number in range(work.size):
        scheduler.add(f"task-{number}", EACH_MINUTE, count)
    cpu, began = Cpu(), time.time()
    scheduler.start()
    return _burst_figures(work, cpu, began)


def _burst_figures(work: Work, cpu: Cpu, tick: float) -> Figures:
    while len(RUNS) < work.size:
        time.sleep(0.05)
    _await_quiet()
    return {"cpu": cpu.used() / work.size * 1e6, "seconds": max(RUNS) - tick}


def _await_quiet() -> None:
    """Wait until the last run has been recorded: two looks at hardly any CPU time."""
    quiet = 0
    while quiet < 2:
        cpu = Cpu()
        time.sleep(0.1)
        quiet = quiet + 1 if cpu.used() < 0.002 else 0


def lone(work: Work) -> Figures:
    """Let one task come due each second; return how late each run was."""
    scheduler = work.make()
    if not work.contestant.ticks_each_second:
        return _lone_of_many(work, scheduler)
    scheduler.add("lone", EACH_SECOND, note)
    scheduler.start()
    # The first run makes a thread, and imports what is imported late.
    begin = math.ceil(time.time()) + 0.5
    sleep_until(begin)
    RUNS.clear()
    sleep_until(begin + work.seconds)
    return {"late": list(RUNS), "expected": int(work.seconds)}


def _lone_of_many(work: Work, scheduler: Contestant) -> Figures:
    """Do the same with a task for each second."""
    first = math.ceil(time.time()) + 2
    for tick in range(first, first + int(work.seconds)):
        scheduler.add(f"lone-{tick}", When.at(tick), note, float(tick))
    scheduler.start()
    sleep_until(first + work.seconds)
    _await_runs(int(work.seconds))
    return {"late": list(RUNS), "expected": int(work.seconds)}


def crowd(work: Work) -> Figures:
    """Let 100 tasks come due each second, among many that sleep; return how late each was."""
    scheduler, began = work.make(), time.perf_counter()
    first = math.ceil(time.time() + work.lead) + 1
    ticks = range(first, first + int(work.seconds))
    sleepers(scheduler, work.size)
    for tick, number in itertools.product(ticks, range(CROWD)):
        scheduler.add(f"crowd-{tick}-{number}", When.at(tick), note, float(tick))
    scheduler.start()
    setup = time.perf_counter() - began
    if time.time() > first - 0.5:
        raise NotReady
    sleep_until(ticks[-1] + 1.0)
    _await_runs(len(ticks) * CROWD)
    return {"late": list(RUNS), "expected": len(ticks) * CROWD, "setup": setup}


def _await_runs(number: int) -> None:
    until = time.time() + 5.0
    while len(RUNS) < number and time.time() < until:
        time.sleep(0.05)


def registration(work: Work) -> Figures:
    """Register tasks that sleep, and start; return the time that takes, and the memory."""
    _warm_up(work)
    scheduler = work.make()
    gc.collect()
    memory, began = resident(), time.perf_counter()
    sleepers(scheduler, work.size, work.distinct)
    registered = time.perf_counter()
    scheduler.start()
    started = time.perf_counter()
    gc.collect()
    return {
        "add": (registered - began) / work.size * 1e6,
        "start": (started - registered) / work.size * 1e6,
        "ready": (started - began) / work.size * 1e6,
        "memory": (resident() - memory) / work.size / 1024,
        "setup": started - began,
    }


def _warm_up(work: Work) -> None:
    """Import what is imported late, and have threads and their stacks made once."""
    scheduler = work.make()
    scheduler.add("warm-up", When.at(time.time() + 6 * 3600), count)
    scheduler.start()
    scheduler.stop()
    time.sleep(0.1)


def heap(work: Work) -> Figures:
    """Register tasks that sleep, and start; return the memory of Python's objects."""
    _warm_up(work)
    scheduler = work.make()
    gc.collect()
    tracemalloc.start()
    sleepers(scheduler, work.size)
    scheduler.start()
    gc.collect()
    return {"heap": tracemalloc.get_traced_memory()[0] / work.size / 1024}


def resident() -> int:
    """Return the bytes of memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def idle(work: Work) -> Figures:
    """Let tasks sleep, side by side with other processes that do; return CPU and wake-ups."""
    scheduler = work.make()
    sleepers(scheduler, work.size)
    _meet("registered")
    scheduler.start()
    _meet("started")
    gc.collect()
    _await_quiet()
    wakes, cpu, began = wake_ups(), Cpu(), time.perf_counter()
    time.sleep(work.seconds)
    seconds = time.perf_counter() - began
    return {"cpu": cpu.used() * 1000 / seconds, "wakes": (wake_ups() - wakes) / seconds}


def _meet(word: str) -> None:
    """Wait until all processes have come this far."""
    print(word, flush=True)
    sys.stdin.readline()


def wake_ups() -> int:
    """Return how often the threads but this one have waited, since they began."""
    total = 0
    for thread in Path("/proc/self/task").iterdir():
        if int(thread.name) != threading.get_native_id():
            status = (thread / "status").read_text()
            total += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def fill(work: Work) -> Figures:
    """Make a store whose tasks have a past, for the measurements that follow."""
    from tests.benchmarks import ledgers

    scheduler: Any = work.make()
    _long_known(scheduler, work.size)
    if not hasattr(scheduler, "housekeeper"):
        scheduler.start()
        return {}
    # Not scheduling, or its daily pruning of all that was made would be measured as well.
    scheduler.housekeeper.initialize(scheduling=False)
    ledgers.with_rows(scheduler.housekeeper.ledger, work.contestant.store or "", work.rows)
    scheduler.housekeeper.shutdown()
    return {}


def _long_known(scheduler: Contestant, size: int) -> None:
    start = (int(time.time()) // 3600 + 6) * 3600
    shared = [When.at(start + 60 * minute) for minute in range(60)]
    for number in range(size):
        scheduler.add(f"task-{number}", shared[number % 60], count)


def cold_start(work: Work) -> Figures:
    """Start on a store that knows all tasks and is full of runs."""
    scheduler = work.make()
    # APScheduler keeps its tasks themselves in the store.
    if hasattr(scheduler, "housekeeper"):
        _long_known(scheduler, work.size)
    began = time.perf_counter()
    scheduler.start()
    return {"start": (time.perf_counter() - began) * 1000}


def listing(work: Work) -> Figures:
    """List tasks as the dashboard does, from a ledger full of runs."""
    scheduler: Any = work.make()
    _long_known(scheduler, work.size)
    scheduler.start()
    took = []
    for _ in range(3):
        began = time.perf_counter()
        assert len(scheduler.housekeeper.list_tasks()) == work.size
        took.append((time.perf_counter() - began) * 1000)
    return {"list": sorted(took)[1]}
