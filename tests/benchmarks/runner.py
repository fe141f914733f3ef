"""Runs measurements, each in a fresh process, and collects what they print."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.measures import NotReady
from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
TOO_LONG, FAILED = "too long", "failed"
PATIENCE = 12.0  # seconds; what takes longer is measured in one round only


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement of one contestant, which is made once each round."""

    measure: str
    contestant: str
    size: int = 0
    seconds: float = 0.0
    distinct: bool = False
    rows: int = 0
    url: str = ""  # of a store that is there already


@dataclass
class Outcome:
    """What all rounds of one case gave, or why they gave nothing."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    slow: bool = False


@dataclass(kw_only=True)
class Bench:
    """Where the measurements are made: folder, server, and what was learned so far."""

    server: PostgresServer
    folder: Path
    limit: float  # seconds that one measurement may take
    progress: Callable[[str], None]
    lanes: int = 1  # measurements at the same time; more than one spoils the figures
    least_lead: float = 0.5  # seconds to register in, whatever is registered
    outcomes: dict[Case, Outcome] = field(default_factory=lambda: defaultdict(Outcome))
    # Seconds that each contestant took to register a task and start.
    setups: dict[str, float] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(
        self, title: str, cases: Sequence[Case], rounds: int = 1, *, timed: bool = True
    ) -> None:
        """Make some measurements, the contestants taking turns in each round.

        What is not timed is made two at a time.
        """
        for number in range(1, rounds + 1):
            once = functools.partial(self._once, f"{title} {number}/{rounds}")
            with ThreadPoolExecutor(self.lanes if timed else max(self.lanes, 2)) as lanes:
                list(lanes.map(once, cases))

    def _once(self, title: str, case: Case) -> None:
        outcome = self.outcomes[case]
        if outcome.problem or outcome.slow:
            return
        began = time.monotonic()
        self.progress(f"{title}: {CONTESTANTS[case.contestant].label}{_of(case.size)}")
        try:
            outcome.rounds.append(self._measured(case))
        except subprocess.TimeoutExpired:
            outcome.problem = TOO_LONG
        except subprocess.CalledProcessError as error:
            self.progress(error.stderr)
            outcome.problem = FAILED
        outcome.slow = time.monotonic() - began > PATIENCE

    def _measured(self, case: Case) -> dict[str, Any]:
        """Measure, with more time to register in when that was too little."""
        lead = self._lead(case)
        while True:
            try:
                figures = self._child(case, lead)
            except subprocess.CalledProcessError as error:
                if error.returncode != NotReady.CODE or lead > self.limit:
                    raise
                lead = 2 * lead + 1
                continue
            # Bursts and crowds share their schedules.
            if "setup" in figures and not case.distinct:
                self.setups[case.contestant] = figures["setup"] / case.size
            return figures

    def _lead(self, case: Case) -> float:
        guess = CONTESTANTS[case.contestant].seconds_per_task
        each = self.setups.get(case.contestant, guess)
        return self.least_lead + 1.7 * each * case.size

    def _child(self, case: Case, lead: float) -> dict[str, Any]:
        with self._process(case, lead) as process:
            output, errors = process.communicate(timeout=self.limit)
            if process.returncode:
                raise subprocess.CalledProcessError(
                    process.returncode, process.args, output, errors
                )
        self.progress(errors)  # Warnings, such as of an unreachable ledger.
        figures: dict[str, Any] = json.loads(output.splitlines()[-1])
        return figures

    @contextlib.contextmanager
    def _process(self, case: Case, lead: float = 0.0) -> Iterator[subprocess.Popen[str]]:
        options: dict[str, object] = {
            "size": case.size,
            "seconds": case.seconds,
            "distinct": case.distinct,
        }
        options |= {"rows": case.rows, "url": case.url or self.url(case), "lead": lead}
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.child"]
        process = subprocess.Popen(
            [*command, case.measure, case.contestant, json.dumps(options)],
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def environment(self) -> dict[str, str]:
        """Return the environment in which everybody is measured.

        With compiled copies of all modules, as all but the first start of a program has them: what
        a compiler leaves behind would be taken for memory that tasks need no more of.
        """
        compiled = {"PYTHONPYCACHEPREFIX": str(self.folder / "compiled")}
        # `schedule` knows the local zone only.
        environment = {**os.environ, "TZ": "UTC", **compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def url(self, case: Case) -> str:
        """Return the URL of a fresh store of the contestant's kind."""
        number = next(self.numbers)
        kind = CONTESTANTS[case.contestant].store
        if kind == "sqlite":
            return f"sqlite:///{self.folder}/store-{number}.db"
        if kind == "postgres":
            self.server.execute(f"CREATE DATABASE bench_{number}")
            return self.server.url(f"bench_{number}")
        return "memory://"

    def run_side_by_side(self, title: str, cases: Sequence[Case]) -> None:
        """Make measurements of what sleeps, all at the same time."""
        self.progress(f"{title}: {len(cases)} processes side by side")
        with contextlib.ExitStack() as stack:
            crew = [(case, stack.enter_context(self._process(case))) for case in cases]
            watchdog = threading.Timer(self.limit, _kill, [process for _, process in crew])
            watchdog.start()
            for word in ("registered", "started"):
                self.progress(f"{title}: waiting until all have {word}")
                _meet([process for _, process in crew])
            watchdog.cancel()
            self.progress(f"{title}: watching them sleep")
            for case, process in crew:
                self._collect(case, process)

    def _collect(self, case: Case, process: subprocess.Popen[str]) -> None:
        output, errors = process.communicate(timeout=self.limit + case.seconds)
        if process.returncode == 0:
            self.outcomes[case].rounds.append(json.loads(output.splitlines()[-1]))
        elif process.returncode < 0:
            self.outcomes[case].problem = TOO_LONG
        else:
            self.progress(errors)
            self.outcomes[case].problem = FAILED


def _meet(crew: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until each has said where it is, or has ended; then let all go on."""
    for process in crew:
        assert process.stdout is not None
        process.stdout.readline()
    for process in crew:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("go\n")
            process.stdin.flush()


def _kill(crew: Sequence[subprocess.Popen[str]]) -> None:
    for process in crew:
        process.kill()


def _of(size: int) -> str:
    return f", {size:,} tasks" if size else ""
