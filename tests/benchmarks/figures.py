"""What was measured, as figures with units, as ratios to the floor, and against the budgets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.runner import Case, Outcome

# By measurement: what it gives, and in which unit.
UNITS: dict[str, dict[str, str]] = {
    "lone": {"p50": "ms", "p99": "ms", "max": "ms", "ran": "%"},
    "crowd": {"p50": "ms", "p99": "ms", "max": "ms", "ran": "%"},
    "burst": {"cpu": "us/run", "seconds": "s"},
    "idle": {"cpu": "ms/s", "wakes": "1/s"},
    "registration": {
        "add": "us/task",
        "start": "us/task",
        "ready": "us/task",
        "memory": "KiB/task",
    },
    "heap": {"heap": "KiB/task"},
    "import": {"import": "ms"},
    "cold_start": {"start": "ms"},
    "listing": {"list": "ms"},
    "claims": {"rate": "1/s", "claim": "ms"},
}
# Below it the pages of memory are too coarse to tell what a task takes.
LEAST_RESIDENT = 10_000
# Of these the floor has next to nothing, so that a ratio to it would say nothing.
NO_RATIO = {("idle", "cpu"), ("idle", "wakes"), ("registration", "start")}
FLAT = 1.5  # times the least that it is at any smaller size


@dataclass(kw_only=True)
class Figure:
    """One figure of one contestant: the median of the rounds."""

    measure: str
    figure: str
    contestant: str
    size: int
    distinct: bool
    unit: str
    value: float | None = None
    ratio_to_floor: float | None = None
    rounds: list[float] = field(default_factory=list)
    problem: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Figures:
    """All figures of one pass."""

    def __init__(self, outcomes: Mapping[Case, Outcome]) -> None:
        self.all = [
            _figure(case, outcome, key)
            for case, outcome in outcomes.items()
            for key in UNITS.get(case.measure, ())
        ]
        self._index = {
            (each.measure, each.figure, each.contestant, each.size, each.distinct): each
            for each in self.all
        }
        for figure in self.all:
            if figure.unit == "%" or (figure.measure, figure.figure) in NO_RATIO:
                continue
            floor = self.find(
                figure.measure, figure.figure, "floor", figure.size, distinct=figure.distinct
            )
            if floor is not None and floor.value and figure.value is not None:
                figure.ratio_to_floor = figure.value / floor.value

    def find(
        self, measure: str, figure: str, contestant: str, size: int, *, distinct: bool = False
    ) -> Figure | None:
        return self._index.get((measure, figure, contestant, size, distinct))

    def sizes(self, measure: str, distinct: bool = False) -> list[int]:
        found = {
            each.size for each in self.all if each.measure == measure and each.distinct == distinct
        }
        return sorted(found)


def _figure(case: Case, outcome: Outcome, key: str) -> Figure:
    figure = Figure(
        measure=case.measure,
        figure=key,
        contestant=case.contestant,
        size=case.size,
        distinct=case.distinct,
        unit=UNITS[case.measure][key],
        problem=outcome.problem,
    )
    if key == "memory" and case.size < LEAST_RESIDENT:
        return figure
    if case.measure in ("lone", "crowd"):
        told = [each for each in outcome.rounds if each["late"] or key == "ran"]
        figure.rounds = [_of_runs([each], key) for each in told]
        figure.value = _of_runs(told, key) if told else None
        return figure
    figure.rounds = [each[key] for each in outcome.rounds if key in each]
    if figure.rounds:
        figure.value = statistics.median(figure.rounds)
    return figure


def _of_runs(rounds: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return a percentile of how late the runs of all rounds were, in ms, or how many ran."""
    late: list[float] = sorted(seconds * 1000 for each in rounds for seconds in each["late"])
    if key == "ran":
        return 100 * len(late) / sum(int(each["expected"]) for each in rounds)
    share = {"p50": 0.5, "p99": 0.99, "max": 1.0}[key]
    return late[max(0, math.ceil(share * len(late)) - 1)]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What Housekeeper is to keep to, and what it was seen to do."""

    what: str
    limit: float
    unit: str
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.limit

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "met": self.met}


def budgets(figures: Figures, tasks: int) -> list[Budget]:
    """Return the budgets of which this pass has measured what it takes."""
    memory, sqlite = "housekeeper-memory", "housekeeper-sqlite"
    ratios = (
        ("lone task late p50, memory", 1.3, ("lone", "p50", memory, 0), "floor"),
        ("lone task late p50, SQLite", 1.3, ("lone", "p50", sqlite, 0), "floor"),
        (
            "lone task late p50, PostgreSQL",
            1.3,
            ("lone", "p50", "housekeeper-postgres", 0),
            "floor",
        ),
        (
            "CPU a run in a burst, memory",
            0.6,
            ("burst", "cpu", memory, tasks),
            "apscheduler-memory",
        ),
        (
            "CPU a run in a burst, SQLite",
            0.33,
            ("burst", "cpu", sqlite, tasks),
            "apscheduler-sqlite",
        ),
    )
    plain = (
        (f"idle CPU of {tasks:,} tasks", 0.1, ("idle", "cpu", memory, tasks)),
        ("memory of a task", 1.0, ("registration", "memory", memory, tasks)),
        ("registering a task", 10.0, ("registration", "add", memory, tasks)),
        ("import", 60.0, ("import", "import", memory, 0)),
        ("list of 1,000 tasks beside a million rows", 30.0, ("listing", "list", sqlite, 1_000)),
    )
    found = []
    for what, limit, (measure, key, contestant, size), other in ratios:
        figure = figures.find(measure, key, contestant, size)
        others = figures.find(measure, key, other, size)
        if figure is not None and figure.value and others is not None and others.value:
            against, measured = CONTESTANTS[other].label, figure.value / others.value
            unit = f"x {against}"
            found.append(Budget(what=what, limit=limit, unit=unit, measured=measured))
    for what, limit, place in plain:
        figure = figures.find(*place)
        if figure is not None and figure.value is not None:
            found.append(Budget(what=what, limit=limit, unit=figure.unit, measured=figure.value))
    return found + _growth_budgets(figures, memory)


def _growth_budgets(figures: Figures, contestant: str) -> list[Budget]:
    """Return how the figures of most tasks compare with the best of those of fewer.

    Not with those of the fewest, which bear most of what is done once.
    """
    grows = (
        ("CPU a run", "burst", "cpu"),
        ("registering a task", "registration", "add"),
        ("starting a task", "registration", "start"),
        ("memory of a task", "registration", "memory"),
        ("Python objects of a task", "heap", "heap"),
    )
    found = []
    for what, measure, key in grows:
        sizes = figures.sizes(measure)
        by_size = [figures.find(measure, key, contestant, size) for size in sizes]
        known = [each.value for each in by_size if each is not None and each.value]
        if len(known) > 1:
            of = f"growth of {what} up to {sizes[-1]:,} tasks"
            measured = known[-1] / min(known[:-1])
            found.append(Budget(what=of, limit=FLAT, unit="x", measured=measured))
    most = max(figures.sizes("idle"), default=0)
    idle = figures.find("idle", "cpu", contestant, most)
    if idle is not None and idle.value is not None and len(figures.sizes("idle")) > 1:
        what = f"idle CPU of {most:,} tasks"
        found.append(Budget(what=what, limit=0.1, unit=idle.unit, measured=idle.value))
    return found
