"""What each command prints for people, at 80 and at 200 columns and in a pipe: tests/golden/*.txt.

Lines that begin with "! " are those of stderr.

`REWRITE_GOLDEN=1 pytest tests/test_golden.py` writes the files anew; then read the difference.
"""

from __future__ import annotations

import io
import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import housekeeper as hk
from housekeeper import SkipRun, Task, current_run
from tests.test_cli import Shell, on_a_terminal, terminal_of
from tests.virtual_time import VirtualClock, VirtualHousekeeper, simulated, utc

FOLDER = Path(__file__).parent / "golden"
REWRITE = bool(os.environ.get("REWRITE_GOLDEN"))
START = utc(2026, 3, 28, 22, 0)
NIGHTLY = "30 2 * * *"

COMMANDS = """\
list
history -n 8
history nightly
history off
history --failed --output -n 2
show FAILED
next nightly -n 4
next sweep -n 3
next off -n 1
next off-and-on -n 1
why nightly 2026-03-29 03:00
why sweep 23:10
health
check
cancel sweep
pause off-and-on
resume sweep
why swep
histroy
history --help
--help
adopt crontab
adopt crontab --into tasks
adopt crontab --into tasks
"""

CRONTAB = """\
MAILTO=root
# Dump the database
30 2 * * *  pg_dump shop > /var/backups/shop.sql
*/90 * * * *  /srv/shop/never
@reboot  /srv/shop/bin/warm-up --all
"""

# Each in a process of its own, on a terminal that shows stderr too.
IN_THE_FOREGROUND = ("run greet", "run broken", "run copy", "run idle", "run gret", "")

WORK = '''
from housekeeper import SkipRun, Task, task


@task(schedule="0 0 29 2 *")
def greet():
    """Print, and return a note."""
    print("hello")
    return {"rows": 3}


@task(schedule="0 0 29 2 *")
def broken():
    print("about to fail")
    raise ValueError("no such table: tokens")


@task()
def idle():
    raise SkipRun("no mail server is configured")


copy = Task("copy", command="echo copying; echo disk full >&2; exit 3", schedule="0 0 29 2 *")
'''


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
    keeper: VirtualHousekeeper, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crontab").write_text(CRONTAB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hk, "create_housekeeper", lambda **_: keeper)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    failed, text = next(run.id for run in keeper.history("nightly")), ""
    for command in COMMANDS.splitlines():
        screen, errors = Terminal(), Terminal()
        screen.columns = columns
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", screen)
            patch.setattr("sys.stderr", errors)
            try:
                code = hk.main(command.replace("FAILED", failed).split())
            except SystemExit as ended:  # argparse's, after --help
                code = int(ended.code or 0)
        told = "".join(f"! {line}\n" for line in errors.getvalue().splitlines())
        shown = named(screen.getvalue() + told).replace(keeper.runner, "vm:123:abcdef")
        text += f"$ housekeeper.py {command}\n{shown}[{code}]\n\n"
    compare(text, f"{columns or 'pipe'}.txt")


@pytest.mark.parametrize("columns", [80, 200])
def test_each_command_in_the_foreground_prints_what_is_kept(tmp_path: Path, columns: int) -> None:
    shell, text = Shell(tmp_path), ""
    shell.write("work.py", WORK)
    shell.variables |= {"HOUSEKEEPER_LEDGER": f"sqlite:///{shell.ledger}", "NO_COLOR": "1"}
    for command in IN_THE_FOREGROUND:
        if command:
            shown = on_a_terminal(shell, *command.split(), columns=columns)
        else:
            shown = until_it_has_started_and_ended(shell, columns)
        shown = timeless(named(shown)).replace(str(tmp_path), "/srv/shop")
        text += f"$ housekeeper.py {command}".rstrip() + f"\n{shown}\n"
    compare(text, f"foreground-{columns}.txt")


def until_it_has_started_and_ended(shell: Shell, columns: int) -> str:
    """Return what the scheduler writes to a terminal, from its start to a SIGTERM."""
    pid, terminal = terminal_of(shell, columns=columns)
    shown = ""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk.decode()
            if "idle" in shown and "Shutting" not in shown and shown.endswith("\n"):
                os.kill(pid, signal.SIGTERM)
    except OSError:
        pass  # Linux says so when the other end is closed.
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown


def timeless(text: str) -> str:
    """Return what a terminal showed without the line of the progress, and without times."""
    text = re.sub(r"\r\x1b\[K|\r(?=\n)", "", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?", "2026-03-29 04:00:00", text)
    text = re.sub(r"in \d+ d\b", "in 300 d", text)
    text = re.sub(r"\d\.\d{3} s", "0.004 s", text)
    return re.sub(r"\b\S+:\d+:[0-9a-f]{6}\b", "vm:123:abcdef", text)


def compare(text: str, name: str) -> None:
    """Assert that a text is what is kept in a file, or write it there."""
    if REWRITE:
        (FOLDER / name).write_text(text)
    assert text == (FOLDER / name).read_text()


def named(text: str) -> str:
    """Return a text without what differs from time to time: ids, and places in this file."""
    text = re.sub(r'File ".*", line \d+', 'File "FILE", line N', text)
    known: dict[str, str] = {}

    def replaced(found: re.Match[str]) -> str:
        number = known.setdefault(found[0][:16], f"{len(known) + 1:016x}")
        return (number + "f" * 8)[: len(found[0])]

    return re.sub(r"\b[0-9a-f]{24}\b|\b[0-9a-f]{16}\b", replaced, text)
