"""The benchmarks stay working: each is run once, tiny."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["ledgers", "--processes", "1", "2", "--seconds", "0.2"], 1 + 4),
        (["retention", "--sqlite-rows", "3000", "--postgres-rows", "3000", "--seconds", "0.2"], 5),
    ],
    ids=["ledgers", "retention"],
)
def test_a_benchmark_prints_its_table(arguments: list[str], lines: int) -> None:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.splitlines()) == lines, told.stdout
