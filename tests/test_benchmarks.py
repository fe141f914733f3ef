"""The benchmarks stay working: each is run once, tiny."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.benchmarks.contestants import CONTESTANTS
from tests.benchmarks.figures import UNITS
from tests.benchmarks.report import TITLES


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["ledgers", "--processes", "1", "2", "--seconds", "0.2"], 1 + 4),
        (["retention", "--sqlite-rows", "3000", "--postgres-rows", "3000", "--seconds", "0.2"], 5),
    ],
    ids=["ledgers", "retention"],
)
def test_a_benchmark_prints_its_table(arguments: list[str], lines: int) -> None:
    assert len(benchmark(*arguments).splitlines()) == lines


@pytest.mark.torture  # of the machine: it is busy for twenty seconds
def test_the_comparison_measures_everybody_and_draws_it(tmp_path: Path) -> None:
    written, drawn = tmp_path / "speed.json", tmp_path / "speed.svg"
    table = benchmark("--quick", "--json", str(written), "--svg", str(drawn))
    speed = json.loads(written.read_text())
    drawing = ET.parse(drawn).getroot()
    words = "".join(drawing.itertext())
    for contestant, kind in CONTESTANTS.items():
        assert kind.label in table
        assert kind.label in words
        measured = [each for each in speed["figures"] if each["contestant"] == contestant]
        assert any(each["value"] is not None for each in measured), contestant
    assert [each for each in speed["figures"] if each["problem"]] == []
    assert {(each["measure"], each["figure"]) for each in speed["figures"]} == {
        (measure, figure) for measure, units in UNITS.items() for figure in units
    }
    for title in TITLES.values():
        assert title.split("{")[-1].split("}")[-1] in table
    assert speed["budgets"], "with what was measured, met or not"
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"


def benchmark(*arguments: str) -> str:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout
