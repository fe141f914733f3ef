"""python -m tests.benchmarks: Housekeeper, its peers and the floor; or ledgers, or retention."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks import drawing, ledgers, report
from tests.benchmarks.figures import Figures
from tests.benchmarks.plan import MEASUREMENTS, QUICK, Scale
from tests.benchmarks.runner import Bench
from tests.postgres import temporary_server

HERE = Path(__file__).parent
BEGAN = time.monotonic()


def main() -> None:
    options = parsed(sys.argv[1:])
    with temporary_server(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        if options.what == "ledgers":
            ledgers.print_claims(server, Path(folder), options.processes, options.seconds)
        elif options.what == "retention":
            rows = {"sqlite": options.sqlite_rows, "postgres": options.postgres_rows}
            ledgers.print_retention(server, Path(folder), rows, options.seconds)
        else:
            bench = Bench(
                server=server,
                folder=Path(folder),
                limit=options.limit,
                progress=tell,
                # Quick figures are spoiled anyway.
                lanes=8 if options.quick else 1,
                least_lead=2.0 if options.quick else 0.5,
            )
            compare(bench, options)


def tell(text: str) -> None:
    """Say on standard error what goes on, and how long it has done."""
    if text:
        # In one piece, because several lanes tell.
        sys.stderr.write(f"{time.monotonic() - BEGAN:6.1f} s  {text.strip()}\n")


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure Housekeeper, its peers and the floor on the same work.",
    )
    parser.add_argument("--quick", action="store_true", help="a tiny pass: it tells nothing")
    names = ", ".join(MEASUREMENTS)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=names)
    parser.add_argument("--rounds", type=int, help="of each measurement (default 3)")
    parser.add_argument("--tasks", type=int, help="of each measurement but growth")
    parser.add_argument("--sizes", type=int, nargs="+", help="how many tasks growth goes through")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds of one measurement")
    kept = "where it goes (a whole pass: tests/benchmarks/speed.{}; else nowhere)"
    parser.add_argument("--json", type=Path, help=kept.format("json"))
    parser.add_argument("--svg", type=Path, help=kept.format("svg"))
    add_ledgers(parser)
    return parser.parse_args(arguments)


def add_ledgers(parser: argparse.ArgumentParser) -> None:
    """Add what measures the ledgers alone."""
    commands = parser.add_subparsers(dest="what", metavar="ledgers | retention")
    for name in ("ledgers", "retention"):
        command = commands.add_parser(name)
        command.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
        command.add_argument("--processes", type=int, nargs="+", default=[1, 8, 32])
        command.add_argument("--sqlite-rows", type=int, default=1_000_000)
        command.add_argument("--postgres-rows", type=int, default=10_000_000)


def compare(bench: Bench, options: argparse.Namespace) -> None:
    """Measure everybody, print the table, and write the JSON and the drawing."""
    given = {"rounds": options.rounds, "tasks": options.tasks, "sizes": options.sizes}
    scale = dataclasses.replace(
        QUICK if options.quick else Scale(),
        **{key: value for key, value in given.items() if value is not None},
    )
    with ThreadPoolExecutor(len(MEASUREMENTS) if options.quick else 1) as together:
        chosen = [MEASUREMENTS[name] for name in options.only or MEASUREMENTS]
        list(together.map(lambda measure: measure(bench, scale), chosen))
    figures = Figures(bench.outcomes)
    print(report.table(figures, scale.tasks))
    # The figures that people are shown are never those of a part, nor of a tiny pass.
    whole = not options.quick and not options.only
    if path := options.json or (HERE / "speed.json" if whole else None):
        path.write_text(json.dumps(report.as_json(figures, scale), indent=1) + "\n")
    if path := options.svg or (HERE / "speed.svg" if whole else None):
        path.write_text(drawing.drawn(figures, scale.tasks, report.setting()))


main()
