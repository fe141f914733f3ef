"""The table for people, and the JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata

import housekeeper as hk
from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.figures import UNITS, Budget, Figure, Figures, budgets
from tests.benchmarks.plan import GROWING, Scale

TITLES = {
    "lone": "A lone task, one tick a second: how late it runs",
    "crowd": "100 tasks in each second, among {size} that sleep: how late they run",
    "burst": "{size} tasks due at one instant",
    "idle": "{size} tasks asleep",
    "registration": "Registering {size} tasks with 60 schedules",
    "distinct": "Registering {size} tasks, each with its own schedule",
    "import": "Import",
    "cold_start": "Starting with {size} tasks on a full store",
    "listing": "Dashboard's list of {size} tasks, from a full ledger",
    "claims": "Claims and finishes by several processes in one ledger",
}
HEADS = {
    "p50": "late p50",
    "p99": "late p99",
    "max": "late max",
    "ran": "ran",
    "cpu": "CPU",
    "seconds": "all run in",
    "wakes": "wake-ups",
    "add": "register",
    "start": "start",
    "ready": "both",
    "memory": "memory",
    "heap": "objects",
    "import": "import",
    "list": "list",
    "rate": "runs",
    "claim": "claim p50",
}
NOTES = (
    "The floor is a heap, Condition.wait and ThreadPoolExecutor.submit: no calendar, no record of"
    " runs, nothing that can be asked. Ratios are to it, measured in the same pass.",
    "Housekeeper records each run, with memory:// too; the floor, APScheduler and schedule record"
    " none, and nobody but Housekeeper claims a tick against other processes.",
    "Housekeeper claims a tick up to 5 ms ahead of it, and begins with the tick: its lateness has"
    " no claim in it, of whatever ledger.",
    "Housekeeper imports croniter with the first cron schedule, which takes about as much longer"
    " as the import is shorter; the import of APScheduler has its cron triggers in it.",
    "APScheduler with SQLite keeps its tasks in the store, and no runs; Housekeeper keeps its"
    " runs there, and the tasks in code.",
    "A cold start is of a second process on a store that the first has filled: Housekeeper"
    " registers its tasks again, and compares them with a ledger that is full of runs; APScheduler"
    " looks up the first of its tasks that is due, and keeps no runs.",
    "With PostgreSQL, CPU and memory are the client's; the server's come on top.",
    "60 schedules are made once, which shows where only 100 tasks share them.",
    "All ticks are whole seconds, so 100 tasks a second share one instant.",
    "schedule looks once a second, as its README says, and so is late by up to a second, by the"
    " same part of it in all of one process; it runs tasks one after the other in its own thread.",
    "huey's periodic tasks have a granularity of a minute, and it looks for them once a minute"
    " from its own start: there is no instant to be late from, and its burst is that of its start."
    " It hands runs to a queue (in memory here) that its worker threads read.",
    "Celery beat is left out: it only sends messages to a broker, and runs nothing.",
    "CPU is user and system time of all threads of the process but the one that measures."
    " Lateness is of all rounds together, everything else the median of the rounds; a figure"
    " that is asleep comes from one long round, all processes side by side.",
    "memory is resident memory, from before the first task is registered until all is started;"
    " below 10,000 tasks pages are too coarse to tell. objects is what tracemalloc sees of it:"
    " not what SQLite allocates.",
)


def table(figures: Figures, tasks: int) -> str:
    """Return all that was measured, for a terminal."""
    parts = list(_sections(figures, tasks))
    parts += ["\n".join(_growth_lines(figures))] if len(figures.sizes("burst")) > 1 else []
    parts += ["\n".join(_budget_lines(budgets(figures, tasks)))]
    parts += ["\n".join(f"- {note}" for note in NOTES)]
    return "\n\n".join(part for part in parts if part)


def _sections(figures: Figures, tasks: int) -> Iterator[str]:
    for title in TITLES:
        measure = "registration" if title == "distinct" else title
        distinct = title == "distinct"
        sizes = figures.sizes(measure, distinct)
        chosen = sizes if measure == "claims" else sizes and [_main(sizes, tasks)]
        if chosen:
            yield "\n".join(_lines(figures, title, chosen, distinct))


def _main(sizes: Sequence[int], tasks: int) -> int:
    return tasks if tasks in sizes else sizes[-1]


def _lines(figures: Figures, title: str, sizes: Sequence[int], distinct: bool) -> Iterator[str]:
    """Yield a section: a line for each contestant, a column for each figure and its ratio."""
    measure = "registration" if distinct else title
    yield TITLES[title].format(size=f"{sizes[0]:,}")
    units = UNITS[measure]
    yield "  {:26}".format("") + "".join(f"{HEADS[key]:>14}{'':9}" for key in units).rstrip()
    yield "  {:26}".format("") + "".join(f"{unit:>14}{'':9}" for unit in units.values()).rstrip()
    for contestant, kind in CONTESTANTS.items():
        for size in sizes:
            found = [
                figures.find(measure, key, contestant, size, distinct=distinct) for key in units
            ]
            if any(found):
                label = kind.label + (f", {size}" if measure == "claims" else "")
                yield f"  {label:26}" + "".join(map(_cell, found)).rstrip()
            elif measure not in ("import", "cold_start", "listing", "claims"):
                yield f"  {kind.label:26}" + f"{'-':>14}{'':9}" * len(units)


def _cell(figure: Figure | None) -> str:
    ratio = ""
    if figure is not None and figure.ratio_to_floor is not None:
        ratio = f"{number(figure.ratio_to_floor)}x"
    return f"{_text(figure):>14}{ratio:>9}"


def _text(figure: Figure | None) -> str:
    if figure is None or (figure.value is None and not figure.problem):
        return "-"
    return figure.problem if figure.value is None else number(figure.value)


def number(value: float) -> str:
    """Return a figure with three digits that matter."""
    if value == 0:
        return "0"
    digits = next((n for n in range(3) if abs(value) >= 100 / 10**n), 3)
    return f"{value:,.{digits}f}"


def _growth_lines(figures: Figures) -> Iterator[str]:
    yield "Growth: the same with so many tasks"
    sizes = figures.sizes("burst")
    yield "  {:46}".format("") + "".join(f"{size:>12,}" for size in sizes)
    for measure in ("burst", "idle", "registration", "heap"):
        for key, unit in UNITS[measure].items():
            for contestant in GROWING:
                found = [figures.find(measure, key, contestant, size) for size in sizes]
                label = f"{HEADS[key]} {unit}, {CONTESTANTS[contestant].label}"
                if sum(each is not None for each in found) > 1:
                    yield f"  {label:46}" + "".join(f"{_text(each):>12}" for each in found)


def _budget_lines(kept: Sequence[Budget]) -> Iterator[str]:
    if kept:
        yield "Budgets"
    for budget in kept:
        measured = f"{number(budget.measured)} {budget.unit}"
        limit = f"at most {budget.limit:g}"
        verdict = "met" if budget.met else "not met"
        yield f"  {budget.what:52}{measured:>16}  {limit:14}{verdict}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and when, and with which versions, without a name or a path."""

    date: str
    machine: dict[str, object]
    versions: dict[str, str]


def setting() -> Setting:
    packages = {kind.package for kind in CONTESTANTS.values() if kind.package}
    packages |= {"croniter", "psycopg2-binary", "sqlalchemy"}
    return Setting(
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        machine={
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        versions={
            "housekeeper": hk.__version__,
            **{package: metadata.version(package) for package in sorted(packages)},
        },
    )


def as_json(figures: Figures, scale: Scale) -> dict[str, object]:
    """Return all that was measured, for programs."""
    where = setting()
    return {
        "date": where.date,
        "machine": where.machine,
        "versions": where.versions,
        "scale": asdict(scale),
        "figures": [figure.as_dict() for figure in figures.all],
        "budgets": [budget.as_dict() for budget in budgets(figures, scale.tasks)],
        "notes": list(NOTES),
    }
