"""python -m tests.benchmarks ledgers, or retention."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks import ledgers
from tests.postgres import temporary_server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("what", choices=["ledgers", "retention"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--sqlite-rows", type=int, default=1_000_000)
    parser.add_argument("--postgres-rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with temporary_server() as server, tempfile.TemporaryDirectory() as folder:
        if options.what == "ledgers":
            ledgers.print_claims(server, Path(folder), options.processes, options.seconds)
        else:
            rows = {"sqlite": options.sqlite_rows, "postgres": options.postgres_rows}
            ledgers.print_retention(server, Path(folder), rows, options.seconds)


main()
