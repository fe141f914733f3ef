"""What each command prints for people, at 80 and at 200 columns and in a pipe: tests/golden/*.txt.

`REWRITE_GOLDEN=1 pytest tests/test_golden.py` writes the files anew; then read the difference.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import housekeeper as hk
from housekeeper import SkipRun, Task, current_run
from tests.virtual_time import VirtualClock, VirtualHousekeeper, simulated, utc

FOLDER = Path(__file__).parent / "golden"
REWRITE = bool(os.environ.get("REWRITE_GOLDEN"))
START = utc(2026, 3, 28, 22, 0)
NIGHTLY = "30 2 * * *"

COMMANDS = """\
list
history -n 8
history nightly
history --failed --output -n 2
show FAILED
next nightly -n 4
next sweep -n 3
why nightly 2026-03-29 03:00
why sweep 23:10
health
check
cancel sweep
pause off-and-on
resume sweep
"""


class Terminal(io.StringIO):
    """A terminal, or with no columns a pipe."""

    columns = 0

    def isatty(self) -> bool:
        return self.columns > 0


def sweep() -> None:
    """Delete what nobody asks for."""
    for done in range(1, 4):
        current_run().progress(done, 3, "files")


def nightly() -> None:
    raise ValueError("relation \x1b[1mtokens\x1b[0m does not exist" + ", it was dropped" * 9)


def idle() -> None:
    raise SkipRun("no mail server is configured")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> VirtualHousekeeper:
    """A Housekeeper with a past: a day of runs on a clock that stands still now."""
    clock = VirtualClock(START)

    def slow() -> None:
        clock.advance(3.25)

    made = simulated(
        clock,
        Task("sweep", sweep, schedule="*/10 * * * *"),
        Task("nightly", nightly, schedule=NIGHTLY, timezone="Europe/Berlin"),
        Task("cleanup-of-everything-that-is-older-than-a-month", slow, schedule="0 4 1 */3 *"),
        Task("mail", idle, startup=True),
        Task("off", sweep, schedule="@daily", enabled=False),
        Task("off-and-on", sweep, schedule="0 12 * * *"),
        ledger=f"sqlite:///{tmp_path_factory.mktemp('golden')}/ledger.db",
        initialize=False,
    )
    made.initialize()
    made.run_until(START + timedelta(hours=6))
    made.run_task_manually("cleanup-of-everything-that-is-older-than-a-month", wait=False)
    made.run_until(START + timedelta(hours=6, seconds=20))
    made.pause_task("off-and-on")
    return made


@pytest.fixture
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_utc")
@pytest.mark.parametrize("columns", [80, 200, 0])
def test_each_command_prints_what_is_kept(
    keeper: VirtualHousekeeper, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk, "create_housekeeper", lambda **_: keeper)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    failed, text = next(run.id for run in keeper.history("nightly")), ""
    for command in COMMANDS.splitlines():
        screen = Terminal()
        screen.columns = columns
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", screen)
            code = hk.main(command.replace("FAILED", failed).split())
        shown = named(screen.getvalue()).replace(keeper.runner, "vm:123:abcdef")
        text += f"$ housekeeper.py {command}\n{shown}[{code}]\n\n"
    path = FOLDER / f"{columns or 'pipe'}.txt"
    if REWRITE:
        path.write_text(text)
    assert text == path.read_text()


def named(text: str) -> str:
    """Return a text without what differs from time to time: ids, and places in this file."""
    text = re.sub(r'File ".*", line \d+', 'File "FILE", line N', text)
    known: dict[str, str] = {}

    def replaced(found: re.Match[str]) -> str:
        number = known.setdefault(found[0][:16], f"{len(known) + 1:016x}")
        return (number + "f" * 8)[: len(found[0])]

    return re.sub(r"\b[0-9a-f]{24}\b|\b[0-9a-f]{16}\b", replaced, text)
