"""python -m tests.benchmarks ledgers, or retention."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.benchmarks import ledgers
from tests.postgres import PostgresServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("what", choices=["ledgers", "retention"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--sqlite-rows", type=int, default=1_000_000)
    parser.add_argument("--postgres-rows", type=int, default=10_000_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    server = PostgresServer(folder / "data")
    try:
        if options.what == "ledgers":
            ledgers.print_claims(server, folder, options.processes, options.seconds)
        else:
            rows = {"sqlite": options.sqlite_rows, "postgres": options.postgres_rows}
            ledgers.print_retention(server, folder, rows, options.seconds)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


main()
