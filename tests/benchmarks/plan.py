"""Which measurements are made, of whom, and at what size."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks import ledgers
from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.runner import ROOT, Bench, Case

EVERYBODY = tuple(CONTESTANTS)
# Who survives 100,000 tasks, and does not wait for a disk.
GROWING = ("floor", "housekeeper-memory", "apscheduler-memory")
PUNCTUAL = tuple(name for name in EVERYBODY if not CONTESTANTS[name].looks_once_a_minute)
LASTING = ("housekeeper-sqlite", "apscheduler-sqlite")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything."""

    rounds: int = 3
    tasks: int = 10_000
    sizes: Sequence[int] = (100, 1_000, 10_000, 100_000)
    lone_seconds: int = 4
    crowd_seconds: int = 4
    idle_seconds: float = 30.0
    minute: float = 60.0  # that who looks once a minute is watched
    imports: int = 7
    rows: int = 1_000_000
    listed: int = 1_000
    crews: Sequence[int] = (1, 8, 32)
    claim_seconds: float = 1.5


QUICK = Scale(
    rounds=1,
    tasks=40,
    sizes=(10, 40),
    lone_seconds=1,
    crowd_seconds=1,
    idle_seconds=0.5,
    minute=0.5,
    imports=1,
    rows=2_000,
    listed=20,
    crews=(1, 2),
    claim_seconds=0.1,
)


def lateness(bench: Bench, scale: Scale) -> None:
    lone = [Case(measure="lone", contestant=each, seconds=scale.lone_seconds) for each in PUNCTUAL]
    bench.run("lone task", lone, scale.rounds)
    crowd = [
        Case(measure="crowd", contestant=each, size=scale.tasks, seconds=scale.crowd_seconds)
        for each in PUNCTUAL
    ]
    # One round has hundreds of runs.
    bench.run("100 tasks a second", crowd)


def burst(bench: Bench, scale: Scale) -> None:
    bench.run("burst", cases("burst", scale.tasks), scale.rounds)


def cases(measure: str, size: int, contestants: Sequence[str] = EVERYBODY) -> list[Case]:
    return [Case(measure=measure, contestant=each, size=size) for each in contestants]


def idle(bench: Bench, scale: Scale) -> None:
    """Watch all who sleep side by side, in one long round: they hardly disturb each other."""
    fewer = [size for size in scale.sizes if size < scale.tasks]
    asleep = _asleep(scale, EVERYBODY, [scale.tasks]) + _asleep(scale, GROWING, fewer)
    bench.run_side_by_side("idle", asleep)


def _asleep(scale: Scale, contestants: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    return [
        Case(measure="idle", contestant=each, size=size, seconds=_window(scale, each))
        for size in sizes
        for each in contestants
    ]


def _window(scale: Scale, contestant: str) -> float:
    once_a_minute = CONTESTANTS[contestant].looks_once_a_minute
    return scale.minute if once_a_minute else scale.idle_seconds


def registration(bench: Bench, scale: Scale) -> None:
    repeated = cases("registration", scale.tasks)
    distinct = [
        Case(measure="registration", contestant=each, size=scale.tasks, distinct=True)
        for each in EVERYBODY
        if each != "apscheduler-sqlite"  # It takes half a minute, and makes no difference to it.
    ]
    bench.run("registration", repeated, scale.rounds)
    bench.run("registration, distinct", distinct)


def importing(bench: Bench, scale: Scale) -> None:
    """Time fresh interpreters that import a contestant, less those that import nothing."""
    # Those that differ in their ledger are imported alike.
    one_each = {CONTESTANTS[each].imports: each for each in reversed(EVERYBODY)}
    environment = bench.environment()
    for statement in one_each:
        _interpreter(statement, environment)
    for number in range(1, scale.imports + 1):
        bench.progress(f"import {number}/{scale.imports}")
        bare = _interpreter("pass", environment)
        for statement, contestant in one_each.items():
            took = (_interpreter(statement, environment) - bare) * 1000
            case = Case(measure="import", contestant=contestant)
            bench.outcomes[case].rounds.append({"import": took})


def _interpreter(statement: str, environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, env=environment, check=True)
    return time.perf_counter() - began


def full_ledger(bench: Bench, scale: Scale) -> None:
    """Start, and list, on a store in which each task is known and has a past."""
    for contestant in LASTING:
        if (url := _filled(bench, scale, contestant, scale.tasks)) is None:
            return
        start = Case(measure="cold_start", contestant=contestant, size=scale.tasks, url=url)
        bench.run("cold start", [start], scale.rounds)
    if url := _filled(bench, scale, "housekeeper-sqlite", scale.listed):
        size, contestant = scale.listed, "housekeeper-sqlite"
        listing = Case(measure="listing", contestant=contestant, size=size, url=url)
        bench.run("dashboard's list", [listing], scale.rounds)


def _filled(bench: Bench, scale: Scale, contestant: str, tasks: int) -> str | None:
    """Return the URL of a store in which so many tasks have a past; None when it failed."""
    url = bench.url(Case(measure="fill", contestant=contestant))
    fill = Case(measure="fill", contestant=contestant, size=tasks, rows=scale.rows, url=url)
    bench.run("filling the store", [fill])
    return None if bench.outcomes[fill].problem else url


def claims(bench: Bench, scale: Scale) -> None:
    """Let processes claim and finish runs in one ledger, as fast as they can."""
    for contestant in ("housekeeper-sqlite", "housekeeper-postgres"):
        for processes in scale.crews:
            case = Case(measure="claims", contestant=contestant, size=processes)
            bench.progress(f"claims: {CONTESTANTS[contestant].label}, {processes} processes")
            took = ledgers.measured(bench.url(case), processes, scale.claim_seconds)
            figures = {"rate": len(took) / scale.claim_seconds}
            if len(took) > 1:
                figures["claim"] = statistics.median(took) * 1000
            bench.outcomes[case].rounds.append(figures)


def growth(bench: Bench, scale: Scale) -> None:
    """Do the same with ever more tasks, one round of each."""
    for size in scale.sizes:
        for measure in ("registration", "burst", "heap"):
            new = _new(bench, cases(measure, size, GROWING))
            bench.run(f"growth, {measure}", new, timed=measure != "heap")
    asleep = _new(bench, _asleep(scale, GROWING, scale.sizes))
    for together in ([each for each in asleep if each.size <= 10_000], asleep):
        if together := _new(bench, together):
            bench.run_side_by_side("growth, idle", together)


def _new(bench: Bench, wanted: Sequence[Case]) -> list[Case]:
    return [case for case in wanted if case not in bench.outcomes]


MEASUREMENTS: dict[str, Callable[[Bench, Scale], None]] = {
    # The first, because how long registering takes is what the next are to wait for.
    "registration": registration,
    "lateness": lateness,
    "burst": burst,
    "idle": idle,
    "import": importing,
    "ledger": full_ledger,
    "claims": claims,
    "growth": growth,
}
