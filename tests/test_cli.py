"""The command line, in processes of its own: what it prints, and with which code it exits."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import housekeeper as hk
from tests.environment import environment
from tests.waiting import eventually

FILE = Path(hk.__file__).resolve()
LIMIT = 30

TASKS = '''
import logging
from housekeeper import SkipRun, Task, current_run, task


@task(schedule="*/10 * * * *")
def sweep():
    """Delete what nobody asks for."""
    logging.getLogger("sweeper").info("swept 3 rows")
    current_run().progress(3, 4, "rows")


@task(schedule="30 2 * * *", timezone="Europe/Berlin", retries=1, retry_delay=0)
def nightly():
    raise ValueError("no such table: tokens")


@task(startup=0)
def idle():
    raise SkipRun("nothing is old")


backup = Task("backup", command=["sh", "-c", "echo 50 files; exit 3"], schedule="H 3 * * *")
off = Task("off", lambda: None, schedule="@daily", enabled=False)
by_hand = Task("by-hand", lambda: None)
'''


class Shell:
    """Runs housekeeper.py in a folder with task files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.processes: list[subprocess.Popen[str]] = []
        self.variables = {
            "HOUSEKEEPER_TASKS": "tasks",
            "HOUSEKEEPER_LEDGER": f"sqlite:///{self.ledger}",
        }
        (folder / "tasks").mkdir()
        self.write("work.py", TASKS)

    def write(self, name: str, source: str) -> Path:
        path = self.folder / "tasks" / name
        path.write_text(textwrap.dedent(source))
        return path

    def __call__(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Return what a command printed to stdout, or to stderr when it is to fail."""
        done = self.full(*arguments, **variables)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code > 1 else done.stdout

    def full(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Return all of what a command printed, and its exit code."""
        return subprocess.run(
            [sys.executable, str(FILE), *arguments],
            cwd=self.folder,
            env=environment(**{**self.variables, **variables}),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def has_run(self, name: str) -> bool:
        """Tell whether a run of a task is on record."""
        return name in self.full("history", name).stdout

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self(*arguments, "--json", **options))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def test_list_shows_schedules_next_and_last_runs_in_aligned_columns(shell: Shell) -> None:
    before = shell("list").splitlines()
    assert before[0].split() == [
        "NAME",
        "SCHEDULE",
        "ZONE",
        "NEXT",
        "RUN",
        "LAST",
        "RUN",
        "STATUS",
    ]
    assert [line.split()[0] for line in before[1:]] == [
        "backup", "by-hand", "idle", "nightly", "off", "sweep"
    ]  # fmt: skip
    assert not shell.ledger.exists(), "looking makes no ledger"
    assert "H 3 * * *" in before[1]
    shell("run", "sweep")
    lines = shell("list").splitlines()
    assert re.search(r"^backup +\d+ 3 \* \* \* ", lines[1]), "H is concrete from the first contact"
    assert re.search(r"^by-hand +by hand ", lines[2])
    assert re.search(r"^idle +at startup ", lines[3])
    assert re.search(r"^nightly +30 2 \* \* \* +Europe/Berlin +\S+ 02:30:00 \+0[12]00", lines[4])
    assert lines[5].endswith("disabled")
    assert lines[6].endswith("succeeded")
    column = lines[0].index("NEXT RUN")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)


def test_list_as_json_holds_plain_values(shell: Shell) -> None:
    shell("run", "sweep")
    tasks = {each["name"]: each for each in shell.json("list")}
    sweep = tasks["sweep"]
    assert sweep["schedule"] == "*/10 * * * *"
    assert sweep["description"] == "Delete what nobody asks for."
    assert (sweep["running"], sweep["scheduled"], sweep["paused"]) == (False, True, False)
    assert datetime.fromisoformat(sweep["next_run"].replace("Z", "+00:00")).minute % 10 == 0
    assert sweep["last_run"]["status"] == "succeeded"
    assert tasks["off"]["next_run"] is None


def test_list_exits_with_3_for_programs_too_when_the_ledger_is_away(shell: Shell) -> None:
    for arguments in (["list"], ["list", "--json"]):
        done = shell.full(*arguments, HOUSEKEEPER_LEDGER="postgresql://shop@127.0.0.1:1/shop")
        assert done.returncode == 3
        assert "sweep" in done.stdout


def test_run_prints_the_outcome_and_exits_with_it(shell: Shell) -> None:
    assert re.fullmatch(r"sweep succeeded in 0\.\d{3} s: 3 of 4 rows\n", shell("run", "sweep"))
    assert "idle skipped in 0.0" in shell("run", "idle")
    assert shell("run", "nightly", code=1).endswith(
        ": ValueError: no such table: tokens, attempt 2\n"
    )
    assert shell("run", "backup", code=1).endswith(": the command exited with 3: 50 files\n")
    run = shell.json("run", "sweep")
    assert (run["status"], run["reason"], run["progress"]) == (
        "succeeded", "manual", {"done": 3, "total": 4, "unit": "rows"}
    )  # fmt: skip
    assert "INFO sweeper: swept 3 rows" in run["output"]


def test_history_shows_the_newest_runs_first(shell: Shell) -> None:
    shell("run", "sweep")
    shell("run", "nightly", code=1)
    lines = shell("history").splitlines()
    assert lines[0].split()[:2] == ["RUN", "TASK"]
    assert re.search(
        r"^\w{24} +nightly +manual +\S+ \S+ +\d\.\d{3} +failed +ValueError: .*, attempt 2$",
        lines[1],
    )
    assert re.search(
        r"^\w{24} +sweep +manual +\S+ \S+ +\d\.\d{3} +succeeded +3 of 4 rows$", lines[2]
    )
    assert [each["task"] for each in shell.json("history")] == ["nightly", "sweep"]
    assert [each["task"] for each in shell.json("history", "sweep")] == ["sweep"]
    assert len(shell("history", "-n", "1").splitlines()) == 2


def test_pause_and_resume_hold_between_commands(shell: Shell) -> None:
    shell("run", "sweep")
    assert shell("pause", "sweep") == "sweep is paused\n"
    assert shell("pause", "sweep") == "sweep is paused already\n"
    assert shell("list").splitlines()[-1].endswith("paused")
    assert shell("run", "sweep").startswith("sweep succeeded"), "a pause is of the schedule"
    assert shell("resume", "sweep") == "sweep is resumed\n"
    assert shell("resume", "sweep") == "sweep is not paused\n"


@pytest.mark.parametrize("command", ["history", "pause sweep", "resume sweep", "cancel sweep"])
def test_what_needs_a_ledger_makes_none_and_says_how_to_name_one(
    shell: Shell, command: str
) -> None:
    text = shell(*command.split(), code=3)
    assert text == (
        f"housekeeper: No ledger at sqlite:///{shell.ledger};"
        " pass --ledger, or start the scheduler once\n"
    )
    assert not shell.ledger.exists()


@pytest.mark.parametrize("command", ["run", "next", "history", "pause", "resume", "cancel"])
def test_an_unknown_name_suggests_the_nearest(shell: Shell, command: str) -> None:
    shell("run", "sweep")
    text = shell(command, "swep", code=2)
    assert text.endswith("housekeeper: no task is named 'swep'; did you mean 'sweep'?\n")


def test_an_unknown_name_is_explained_by_its_file_that_does_not_load(shell: Shell) -> None:
    shell.write("wash_up.py", "import housekeeper, nothing_of_that_name\n")
    text = shell("run", "wash-up", code=2).splitlines()[-1]
    assert text.startswith("housekeeper: no task is named 'wash-up'; ")
    assert "wash_up.py:1: it does not import (ModuleNotFoundError: No module named" in text


def test_next_shows_local_time_and_utc_and_marks_clock_changes(shell: Shell) -> None:
    lines = shell("next", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", "400").splitlines()
    assert lines[0].split() == ["EUROPE/BERLIN", "UTC"]
    assert len(lines) == 401
    marks = [line.partition("<- ")[2] for line in lines if "<-" in line]
    assert sorted(set(marks)) == [
        "the clock changed by +60 minutes before this",
        "the clock changed by -60 minutes before this",
    ]
    spring = next(line for line in lines if "+60" in line)
    assert " 03:00:00 +0200" in spring, "02:30 does not exist that day"


def test_next_takes_a_task_and_answers_without_a_ledger(shell: Shell) -> None:
    assert len(shell("next", "nightly", "-n", "3").splitlines()) == 4
    ticks = shell.json("next", "sweep", "-n", "2")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d0:00Z", tick) for tick in ticks)
    assert "what H stands for is kept in it" in shell("next", "backup", code=3)
    shell("run", "sweep")
    assert len(shell.json("next", "backup")) == 10


def test_next_refuses_what_is_no_expression_with_one_sentence(shell: Shell) -> None:
    assert shell("next", "61 * * * *", code=2) == (
        "housekeeper: schedule '61 * * * *' is not a cron expression (minute 61 is not in 0-59)\n"
    )
    assert "is not a whole number" in shell("next", "sweep", "-n", "0", code=2)


def test_next_does_not_make_up_what_h_stands_for(shell: Shell) -> None:
    text = shell("next", "H 2 * * *", code=2)
    assert text.endswith("comes from a task's name and its ledger; name a task\n")


def test_check_says_that_all_is_well_and_needs_no_ledger(shell: Shell) -> None:
    text = shell("check", TZ="UTC")
    assert text == "6 tasks: backup, by-hand, idle, nightly, off, sweep\nall is well\n"
    assert not shell.ledger.exists()
    assert shell.json("check", TZ="UTC") == {
        "tasks": ["backup", "by-hand", "idle", "nightly", "off", "sweep"],
        "problems": [],
        "note": "",
        "unmonitored": {},
    }


def test_check_names_each_problem_with_its_place_and_exits_with_1(shell: Shell) -> None:
    shell.write("bad_schedule.py", "from housekeeper import Task\n\n"
                "task = Task('bad', print, schedule='0 0 30 2 *')\n")  # fmt: skip
    shell.write("syntax.py", "def broken(:\n")
    shell.write("empty.py", "")
    shell.write(
        "zone.py", "from housekeeper import Task\ntask = Task('z', print, timezone='Mars')\n"
    )
    shell.write("again.py", "from housekeeper import Task\ntask = Task('sweep', print)\n")
    text = shell("check", code=1)
    assert "bad_schedule.py:3: Task 'bad': schedule '0 0 30 2 *' never comes" in text
    assert "syntax.py:1: it does not import (SyntaxError" in text
    assert "empty.py: it holds no Task" in text
    assert "zone.py:2: Task 'z': timezone 'Mars' is not known" in text
    assert re.search("problem: .*work.py: the task name 'sweep' is taken by .*again.py", text)
    assert text.endswith("5 problems\n")
    assert len(shell.json("check", code=1)["problems"]) == 5


def test_check_says_when_the_host_is_in_another_zone(shell: Shell) -> None:
    text = shell("check", TZ="Asia/Tokyo")
    assert "note: this host's clock is in JST (+0900), schedules in UTC\n" in text
    assert "note" not in shell("check", "--timezone", "Asia/Tokyo", TZ="Asia/Tokyo")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--timezone", "Europe/Berln"], "did you mean 'Europe/Berlin'?"),
        (["--ledger", "mysql://root:geheim@host/db"], "'mysql://root:***@host/db' is not a URL"),
        (["--ledger", "sqlite:////nowhere/at/all.db"], "memory://"),
        (["--workers", "0"], "housekeeper: --workers 0 is not a whole number of 1"),
        (["--workers", "two"], "--workers 'two' is not a number"),
        (["--shutdown-timeout", "-1"], ": --shutdown-timeout -1.0 is not a number"),
        (["--log-level", "LOUD"], "--log-level 'LOUD' is none of DEBUG"),
        (["--app", "nothing"], "--app 'nothing' is not of the form module:name"),
        (["--app", "nothing.here:app"], "No module named 'nothing'"),
        (["frobnicate"], "there is no command 'frobnicate'; `housekeeper.py --help`"),
        (["histroy"], "there is no command 'histroy'; did you mean 'history'?"),
        (["help"], "there is no command 'help'; did you mean '--help'?"),
        (["why"], "required: NAME; `housekeeper.py why --help` shows what it takes"),
        (["run"], "required: NAME; `housekeeper.py run --help` shows what it takes"),
        (["history", "--faild"], "unrecognized arguments: --faild; did you mean '--failed'?"),
        (["history", "-n", "x"], "-n 'x' is not a number"),
        (["-n", "3"], "-n goes behind a command that takes it: next, history"),
        (["--failed", "history"], "--failed goes behind a command that takes it: history"),
        (["list", "-n", "3"], "-n goes behind a command that takes it: next, history"),
        (["list", "--before", "x"], "--before goes behind a command that takes it: history"),
        (["list", "--jsn"], "unrecognized arguments: --jsn; did you mean '--json'?"),
        (["list", "twice"], "unrecognized arguments: twice; `housekeeper.py --help`"),
    ],
)
def test_wrong_use_gets_one_sentence_and_code_2(
    shell: Shell, arguments: list[str], text: str
) -> None:
    answer = shell(*arguments, code=2)
    assert text in answer
    assert "geheim" not in answer
    assert re.fullmatch("housekeeper: .*\n", answer)


@pytest.mark.parametrize("option", hk.OPTIONS, ids=lambda option: option.name)
def test_every_option_is_read_from_its_variable_and_overruled_by_the_option(
    option: hk.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, other = ("7", "8") if option.type in (int, float) else ("seven", "eight")
    parser = hk._make_parser()
    name = option.name.replace("-", "_")
    assert getattr(hk._with_environment(parser.parse_args([])), name) == option.default
    monkeypatch.setenv(option.variable, value)
    assert getattr(hk._with_environment(parser.parse_args([])), name) == option.type(value)
    given = parser.parse_args(["list", f"--{option.name}", other])
    assert getattr(hk._with_environment(given), name) == option.type(other)
    given = parser.parse_args([f"--{option.name}", other, "list"])
    assert getattr(hk._with_environment(given), name) == option.type(other)


@pytest.mark.parametrize("option", hk.OF_THE_APPLICATION)
def test_an_option_that_the_application_sets_is_refused_beside_app(
    shell: Shell, option: str
) -> None:
    said = shell("--app", "app:housekeeper", f"--{option}", "1", "check", code=2)
    assert f"--{option} has no effect with --app" in said
    assert said == shell(f"--{option}", "1", "check", code=2, HOUSEKEEPER_APP="app:housekeeper")


def test_pause_resume_and_cancel_answer_programs_as_well(shell: Shell) -> None:
    shell("run", "sweep")
    assert shell.json("pause", "sweep") == {"task": "sweep", "paused": True, "changed": True}
    assert shell.json("pause", "sweep")["changed"] is False
    assert shell.json("resume", "sweep") == {"task": "sweep", "paused": False, "changed": True}
    assert shell.json("cancel", "sweep", code=1) == {"task": "sweep", "run": None}


def test_an_empty_tasks_folder_is_the_one_beside_the_file(shell: Shell) -> None:
    (shell.folder / "script.py").write_text("open('it-ran', 'w')\n")
    assert "sweep" not in shell("list", "--tasks", "")
    assert not (shell.folder / "it-ran").exists()


@pytest.mark.parametrize("value", ["0", "false", "No", "off", ""])
def test_json_can_be_switched_off_in_its_variable(shell: Shell, value: str) -> None:
    assert "NAME" in shell("list", HOUSEKEEPER_JSON=value)


def test_next_of_a_task_without_a_schedule_says_so(shell: Shell) -> None:
    assert shell("next", "by-hand") == "by-hand has no schedule\n"
    off = "Housekeeper is switched off (HOUSEKEEPER_ENABLED=0 or enabled=False): nothing comes\n"
    assert shell("next", "idle", HOUSEKEEPER_ENABLED="0") == off


def test_next_of_a_task_that_does_not_run_at_its_ticks_says_so(shell: Shell) -> None:
    disabled = shell.full("next", "off", "-n", "1")
    assert disabled.stderr == "off is disabled (enabled=False): it is run only by hand\n"
    shell("run", "idle")
    shell("pause", "sweep")
    paused = shell.full("next", "sweep", "-n", "1", "--json")
    assert len(json.loads(paused.stdout)) == 1
    said = "sweep is paused: it runs at none of these until `resume sweep`\n"
    assert paused.stderr == said


def test_no_rows_are_a_sentence_and_an_empty_list_for_programs(shell: Shell) -> None:
    shell("run", "idle")
    newest = shell.json("history")[0]["id"]
    failed = "that failed, timed out or crashed"
    for arguments, said in (
        (["sweep"], "run of sweep"),
        (["idle", "--failed"], f"run of idle {failed}"),
        (["--failed"], f"run {failed}"),
        (["--before", newest], "older run"),
    ):
        assert shell("history", *arguments) == f"there is no {said}\n"
        assert shell.json("history", *arguments) == []
    (shell.folder / "empty").mkdir()
    said = f"there are no tasks in {shell.folder}/empty\n"
    assert shell("list", "--tasks", "empty") == said
    assert shell.json("list", "--tasks", "empty") == []


def test_a_run_that_is_switched_off_is_refused_in_one_sentence(shell: Shell) -> None:
    done = shell.full("run", "sweep", HOUSEKEEPER_ENABLED="0")
    off = "Housekeeper is switched off (HOUSEKEEPER_ENABLED=0 or enabled=False)"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"housekeeper: {off}: no task is run\n"
    assert f"note: {off}: nothing runs here\n" in shell("check", HOUSEKEEPER_ENABLED="0")
    shell("run", "idle")
    assert f"{off}: nothing comes.\n" in shell("why", "sweep", HOUSEKEEPER_ENABLED="0")
    assert f"{off}: nothing runs here.\n" in shell.full("health", HOUSEKEEPER_ENABLED="0").stdout


@pytest.mark.parametrize(
    "words", ["list", "run sweep", "run broken", "next nightly", "why broken", "health", "check"]
)
def test_a_file_that_did_not_load_is_told_once(shell: Shell, words: str) -> None:
    shell.write("broken.py", "1 / 0\n")
    shell("run", "idle")
    done = shell.full(*words.split())
    assert (done.stdout + done.stderr).count("broken.py:1: it does not import") == 1


def test_an_instant_at_the_edge_of_the_calendar_is_refused_in_a_sentence(shell: Shell) -> None:
    shell("run", "sweep")
    for instant in ("0001-01-01", "9999-12-31T20:00Z"):
        said = shell("why", "sweep", instant, code=2, HOUSEKEEPER_TIMEZONE="Asia/Tokyo")
        assert "Traceback" not in said
        assert instant in said


def test_a_variable_that_is_no_number_is_named(shell: Shell) -> None:
    text = shell("list", code=2, HOUSEKEEPER_WORKERS="many")
    assert text == "housekeeper: HOUSEKEEPER_WORKERS='many' is not a number\n"


@pytest.fixture
def help_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Ask for the help of a command, in this process."""
    monkeypatch.setenv("COLUMNS", "100")

    def ask(*command: str) -> str:
        with pytest.raises(SystemExit) as ended:
            hk.main([*command, "--help"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    return ask


def test_help_shows_commands_variables_and_exit_codes(
    shell: Shell, help_of: Callable[..., str]
) -> None:
    text = help_of()
    for name in hk.COMMANDS:
        assert re.search(rf"\n    {name} +[A-Z]", text), name
        assert help_of(name).startswith("usage: housekeeper.py")
    for option in hk.OPTIONS:
        assert f"--{option.name}" in text
        assert f"[{option.variable}]" in text.replace("\n                        ", "")
    assert "exit codes: 0 all is well" in text
    for arguments in (["--version"], ["-V"], ["list", "-V"], ["show", "--version"]):
        assert shell(*arguments) == f"housekeeper {hk.__version__}\n"


def test_app_takes_the_housekeeper_of_an_application_without_starting_it(shell: Shell) -> None:
    package = shell.folder / "shop"
    package.mkdir()
    (package / "housekeeper.py").write_text(FILE.read_text())
    (package / "site.py").write_text(
        textwrap.dedent(
            f"""
            from shop.housekeeper import Task, create_housekeeper
            import housekeeper, shop.housekeeper
            keeper = create_housekeeper(
                tasks_dir=None, timezone="Europe/Berlin", ledger="sqlite:///{shell.ledger}"
            )
            keeper.register_task(Task("mine", lambda: print("ran"), startup=True))
            keeper.initialize()
            assert housekeeper is shop.housekeeper, "one module, whatever its name"
            """
        )
    )

    def shop(*arguments: str) -> str:
        command = [sys.executable, "shop/housekeeper.py", "--app", "shop.site:keeper", *arguments]
        done = subprocess.run(
            command, cwd=shell.folder, capture_output=True, text=True, timeout=LIMIT, check=True
        )
        return done.stdout

    lines = shop("list").splitlines()
    assert re.search("^mine +at startup +Europe/Berlin", lines[1])
    assert not shell.ledger.exists(), "its initialize() was held back"
    assert re.fullmatch(r"ran\nmine succeeded in \d\.\d{3} s\n", shop("run", "mine"))


def test_run_shows_its_progress_on_a_terminal(shell: Shell) -> None:
    shell.write(
        "slow.py",
        """
        from housekeeper import current_run, task

        @task()
        def slow():
            for number in range(3):
                current_run().progress(number, 4, "files")
                current_run().wait(0.5)
        """,
    )
    text = on_a_terminal(shell, "run", "slow")
    assert "\r\x1b[K2 of 4 files\r\x1b[K" in text
    assert re.search(r"\r\x1b\[Kslow \S*succeeded\S* in 1\.[56]\d\d s", text)


def test_run_erases_nothing_that_a_task_prints_on_a_terminal(shell: Shell) -> None:
    shell.write(
        "dots.py",
        """
        from housekeeper import current_run, task

        @task()
        def dots():
            print("one half, ", end="", flush=True)
            current_run().wait(0.5)
            print("and the other")
        """,
    )
    assert on_a_terminal(shell, "run", "dots").startswith("one half, and the other\r\n")


def terminal_of(shell: Shell, *arguments: str, columns: int = 80, **variables: str) -> Any:
    """Start a command on a terminal of its own; return its pid, and the terminal's other end."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.chdir(shell.folder)
        settings = {"TERM": "xterm", "COLUMNS": "", **shell.variables, **variables}
        os.execve(sys.executable, [sys.executable, str(FILE), *arguments], environment(**settings))
    return pid, terminal


def on_a_terminal(shell: Shell, *arguments: str, **options: Any) -> str:
    """Return what a command writes to a terminal."""
    pid, terminal = terminal_of(shell, *arguments, **options)
    chunks = []
    try:
        while chunk := os.read(terminal, 4096):
            chunks.append(chunk)
    except OSError:
        pass  # Linux says so when the other end is closed.
    os.close(terminal)
    os.waitpid(pid, 0)
    return b"".join(chunks).decode()


def test_an_interrupt_asks_a_run_to_stop_and_a_second_ends_it_at_once(shell: Shell) -> None:
    shell.write(
        "slow.py",
        """
        from housekeeper import current_run, task

        @task()
        def polite():
            print("inside", flush=True)
            current_run().wait(60)

        @task()
        def deaf():
            import threading
            print("inside", flush=True)
            threading.Event().wait(60)
        """,
    )
    process = start(shell, "run", "polite")
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 1
    assert "polite cancelled in" in process.stdout.read()  # type: ignore[union-attr]
    process = start(shell, "run", "deaf")
    process.send_signal(signal.SIGINT)
    wait_for(shell, lambda row: row["stop_asked_at"] is not None)
    assert "asked to stop at" in shell("history", "deaf")
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 128 + signal.SIGINT


def test_a_terminal_that_is_closed_asks_a_run_to_stop(shell: Shell) -> None:
    source = (
        "from housekeeper import Task\ntask = Task('slow', command='echo $$; exec sleep 60')\n"
    )
    shell.write("slow.py", source)
    process = launch(shell, "run", "slow", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    command = int(process.stderr.readline().split()[-1])
    for _ in range(2):  # Its shell hands it on once more.
        process.send_signal(signal.SIGHUP)
    assert process.wait(LIMIT) == 1
    process.stderr.close()
    with pytest.raises(ProcessLookupError):
        os.kill(command, 0)
    assert shell.json("history", "slow")[0]["status"] == "cancelled"


def launch(
    shell: Shell,
    *arguments: str,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.DEVNULL,
    **variables: str,
) -> subprocess.Popen[str]:
    """Begin a command, without waiting for its end."""
    process = subprocess.Popen(
        [sys.executable, str(FILE), *arguments],
        cwd=shell.folder,
        env=environment(**shell.variables, **variables),
        stdout=stdout,
        stderr=stderr,
        text=True,
    )
    shell.processes.append(process)
    return process


def start(shell: Shell, *arguments: str) -> subprocess.Popen[str]:
    process = launch(shell, *arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    return process


def wait_for(shell: Shell, condition: Callable[[dict[str, Any]], bool]) -> None:
    until = datetime.now(timezone.utc) + timedelta(seconds=LIMIT)
    while not condition(shell.json("history", "deaf")[0]):
        assert datetime.now(timezone.utc) < until


def test_a_task_that_runs_already_is_said_and_exits_with_1(shell: Shell) -> None:
    shell.write(
        "slow.py",
        """
        from housekeeper import current_run, task

        @task()
        def deaf():
            print("inside", flush=True)
            current_run().wait(60)
        """,
    )
    process = start(shell, "run", "deaf")
    done = subprocess.run(
        [sys.executable, str(FILE), "run", "deaf"],
        cwd=shell.folder,
        env=environment(**shell.variables),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert "housekeeper: task 'deaf' is running already as " in done.stderr
    assert re.search("deaf .* running", shell("list"))
    assert shell("cancel", "deaf").startswith("deaf was asked to stop; ")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 1
    assert shell("cancel", "deaf", code=1) == "deaf is not running\n"


def test_why_tells_what_became_of_a_tick_in_sentences_or_json(shell: Shell) -> None:
    shell("run", "idle")
    assert shell("why", "by-hand").splitlines()[0] == "Task by-hand has no schedule."
    for given in ("2026-03-29 02:30", "2026-03-29 2:30:00", "2026-03-29T02:30"):
        (in_the_gap, *_) = shell("why", "nightly", given).splitlines()
        assert in_the_gap.endswith("asks for 2026-03-29 03:00:00 +0200.")
    for given in ("2031-01-01T01:30Z", "2031-01-01T02:30:00+01:00", "2031-01-01 02:30"):
        asked, *others = shell("why", "nightly", given).splitlines()
        assert asked == (
            "The schedule of task nightly, 30 2 * * * in Europe/Berlin,"
            " asks for 2031-01-01 02:30:00 +0100."
        )
        assert others[0] == "That is still to come."
    answer = json.loads(shell("why", "nightly", "2031-01-01 02:30", "--json"))
    assert answer["tick"] == "2031-01-01T01:30:00Z"
    assert answer["outcome"] is answer["run"] is None
    assert "is not an instant such as" in shell("why", "sweep", "yesterday", code=2)
    assert "did you mean 'sweep'" in shell("why", "sweeep", code=2)


def test_why_needs_a_ledger(shell: Shell) -> None:
    assert shell("why", "sweep", code=3).startswith("housekeeper: No ledger at ")


def test_health_exits_as_nagios_expects(shell: Shell) -> None:
    assert shell("health", code=3).startswith("housekeeper: No ledger at ")
    shell("run", "idle")
    assert "No scheduler is running" in shell.full("health").stdout
    scheduler = launch(shell)
    eventually(lambda: shell.full("health").stdout == "OK: all is well\n")
    assert json.loads(shell("health", "--json"))["status"] == "ok"
    shell.write("broken.py", "import housekeeper; 1 / 0\n")
    done = shell.full("health")
    assert done.returncode == 1
    assert done.stdout.startswith("WARNING: Discovery: ")
    assert "broken.py:1: it does not import" in done.stdout
    scheduler.terminate()
    scheduler.wait(LIMIT)
    done = shell.full("health")
    assert done.returncode == 2
    assert done.stdout.startswith("CRITICAL: No scheduler is running; the last, ")
    nowhere = {"HOUSEKEEPER_LEDGER": "postgresql://someone:geheim@127.0.0.1:1/app"}
    done = shell.full("health", **nowhere)
    assert done.returncode == 2
    assert done.stdout.startswith("CRITICAL: The ledger cannot be reached: ")
    assert "geheim" not in done.stdout + done.stderr


def test_the_scheduler_says_zone_ledger_and_tasks_once_when_it_starts(shell: Shell) -> None:
    process = launch(shell, "--timezone", "Asia/Tokyo", stderr=subprocess.PIPE)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(7)]
    assert lines[0].split() == ["NAME", "SCHEDULE", "ZONE", "NEXT", "RUN"]
    assert "+0900" in lines[-1]
    process.terminate()
    rest, log = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert f"6 tasks, zone Asia/Tokyo, ledger sqlite:///{shell.ledger}\n" in log
    assert "ledger" not in "".join(lines) + rest


def test_a_reader_that_leaves_early_is_one_sentence(shell: Shell) -> None:
    done = subprocess.run(
        f"{sys.executable} {FILE} next '* * * * *' -n 40000 --timezone Europe/Berlin | head -1",
        shell=True,
        cwd=shell.folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
        env=environment(PYTHONUNBUFFERED=""),
    )
    assert done.stdout.split() == ["EUROPE/BERLIN", "UTC"]
    assert done.stderr == (
        "housekeeper: the answer could not be written ([Errno 32] Broken pipe)\n"
    )


@pytest.mark.parametrize("argument", ["list", "health", "check", "--help", "-V"])
@pytest.mark.parametrize(
    ("place", "unbuffered"),
    [("a pipe whose reader has left", ""), ("a full disk", ""), ("a full disk", "1")],
)
def test_an_answer_that_cannot_be_written_is_one_sentence_and_code_4(
    shell: Shell, argument: str, place: str, unbuffered: str
) -> None:
    shell("run", "idle")
    if place == "a full disk":
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    done = subprocess.run(
        [sys.executable, str(FILE), argument],
        cwd=shell.folder,
        # With a buffer it is written at the end.
        env=environment(**shell.variables, PYTHONUNBUFFERED=unbuffered),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    os.close(writing)
    sentence = rb"housekeeper: the answer could not be written \(\[Errno \d+\] [\w ]+\)\n"
    assert (done.returncode, bool(re.fullmatch(sentence, done.stderr))) == (4, True)


def test_ctrl_c_ends_a_question_without_a_traceback(shell: Shell) -> None:
    shell.write("slow.py", "import os, signal, housekeeper\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = shell.full("list")
    assert (done.returncode, "Traceback" in done.stderr) == (128 + signal.SIGINT, False)


def test_a_terminal_without_a_character_is_shown_its_number(shell: Shell) -> None:
    shell.write(
        "dash.py",
        """
        from housekeeper import SkipRun, task

        @task()
        def dash():
            raise SkipRun("nothing \\u2014 yet")
        """,
    )
    assert r": nothing \u2014 yet" in shell("run", "dash", PYTHONIOENCODING="ascii")
    assert r" nothing \u2014 yet" in shell("history", PYTHONIOENCODING="latin-1")


def test_the_scheduler_needs_neither_output_nor_errors(shell: Shell) -> None:
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$0" "$1" >&- 2>&-', sys.executable, str(FILE)],
        cwd=shell.folder,
        env=environment(**shell.variables),
    )
    eventually(shell.ledger.exists)
    eventually(lambda: shell.json("history", "idle"), within=LIMIT)
    process.terminate()
    assert process.wait(LIMIT) == 0


# The start, the stop and the signals of the scheduler: nothing keeps it alive.

BOUND = 1.0 + 5.0  # of a shutdown, with the timeout that these tests give
SLACK = 2.0  # for a machine that is busy

PREFACE = """
    import logging, os, resource, sys, threading
    from pathlib import Path
    from housekeeper import Housekeeper, task

    def hang(*_):
        while True:
            try:
                threading.Event().wait(60)
            except BaseException:
                pass

    def fail(*_):
        raise RuntimeError("it fails")
"""

SABOTAGE = {
    "a filter of the log that fails": """
        class Redact(logging.Filter):
            def filter(self, record):
                if record.levelno >= logging.ERROR:
                    record.msg = record.msg % {"secret": "***"}
                return True
        logging.getLogger("housekeeper.outcome").addFilter(Redact())
    """,
    "a log that hangs": "logging.getLogger().handlers[0].emit = hang",
    "a lock of the log that is held": "logging.getLogger().handlers[0].acquire()",
    "a shutdown that fails": "Housekeeper.shutdown = fail",
    "a shutdown that exits": "Housekeeper.shutdown = lambda *_: sys.exit(0)",
    "a shutdown that hangs": "Housekeeper.shutdown = hang",
    "no threads to be had": "threading.Thread.start = fail",
    "no threads to be had, and a shutdown that hangs": """
        threading.Thread.start = fail
        Housekeeper.shutdown = hang
    """,
    "no files to be had": "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "commands that cannot be killed": "Housekeeper.kill_commands = hang",
    "modules that are gone": "sys.modules.clear()",
    "streams that are gone": "sys.stdout = sys.stderr = None",
    "a thread that is no daemon and never ends": """
        threading.Thread(target=hang, daemon=False).start()
    """,
}


def sabotaged(shell: Shell, sabotage: str, then: str = "hang()") -> subprocess.Popen[str]:
    """Start a scheduler, of which a task ruins something."""
    source = textwrap.dedent(PREFACE) + "\n@task(startup=True)\ndef saboteur():\n"
    body = f"{textwrap.dedent(sabotage).strip()}\nos.write(done, b'.')\nos.close(done)\n{then}"
    source += textwrap.indent("done = os.open('done', os.O_WRONLY)\n" + body, "    ")
    for path in (shell.folder / "tasks").iterdir():
        path.unlink()
    shell.write("saboteur.py", source)
    os.mkfifo(shell.folder / "done")
    process = launch(shell, "--shutdown-timeout", "1", stdout=subprocess.DEVNULL)
    assert (shell.folder / "done").read_text() == "."
    return process


def seconds_to_end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> float:
    before = datetime.now(timezone.utc)
    process.send_signal(number)
    try:
        process.wait(LIMIT)
    finally:
        process.kill()
        process.wait()
    return (datetime.now(timezone.utc) - before).total_seconds()


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_signal_ends_the_scheduler_in_its_time_whatever_fails_or_hangs(
    shell: Shell, what: str
) -> None:
    process = sabotaged(shell, SABOTAGE[what])
    assert seconds_to_end(process) < BOUND + SLACK
    assert process.returncode in (1, -signal.SIGALRM), "a worker had to be abandoned"


def test_a_second_signal_ends_at_once_although_the_shutdown_hangs(shell: Shell) -> None:
    sabotage = """
        def shutdown(*_):
            open("stopping", "w").close()
            hang()
        Housekeeper.shutdown = shutdown
    """
    process = sabotaged(shell, sabotage)
    process.send_signal(signal.SIGTERM)
    eventually((shell.folder / "stopping").exists)
    assert seconds_to_end(process, signal.SIGINT) < SLACK
    assert process.returncode == 128 + signal.SIGINT


def test_a_log_whose_reader_has_stopped_does_not_keep_the_scheduler(shell: Shell) -> None:
    shell.write(
        "chatty.py",
        """
        import logging
        from housekeeper import task

        @task(startup=True)
        def chatty():
            open("started", "w").close()
            while True:
                logging.getLogger("chatty").info("x" * 10_000)
        """,
    )
    process = launch(shell, "--shutdown-timeout", "1", stderr=subprocess.PIPE)
    eventually((shell.folder / "started").exists)
    assert seconds_to_end(process) < BOUND + SLACK


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server whose connections are accepted, and hear nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT)
        yield server


def test_a_signal_is_heard_while_the_ledger_hangs_at_the_start(
    shell: Shell, silent_server: socket.socket
) -> None:
    url = f"postgresql://x@127.0.0.1:{silent_server.getsockname()[1]}/x"
    process = launch(shell, "--shutdown-timeout", "1", "--ledger", url)
    with silent_server.accept()[0]:
        assert seconds_to_end(process) < BOUND + SLACK
    assert process.returncode == 0, "nothing was abandoned"


def test_a_second_signal_ends_a_run_whose_ledger_hangs(
    shell: Shell, silent_server: socket.socket
) -> None:
    url = f"postgresql://x@127.0.0.1:{silent_server.getsockname()[1]}/x"
    process = launch(shell, "run", "sweep", "--ledger", url)
    with silent_server.accept()[0]:
        eventually(lambda: process.send_signal(signal.SIGINT) or process.poll() is not None, 5)
    assert process.returncode == 128 + signal.SIGINT


def test_a_run_whose_reader_has_stopped_is_ended_by_a_signal(shell: Shell) -> None:
    shell.write(
        "fills.py",
        """
        import os
        from housekeeper import task

        @task()
        def fills():
            os.set_blocking(1, False)
            try:
                while True:
                    os.write(1, b"x")
            except BlockingIOError:
                os.set_blocking(1, True)
        """,
    )
    process = launch(shell, "run", "fills")
    eventually(lambda: "succeeded" in shell.full("history", "fills").stdout)
    eventually(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None, within=5)
    assert process.returncode == -signal.SIGTERM


HANGING_FILE = """
    import housekeeper, threading
    open("loading", "w").close()
    threading.Event().wait()
"""


def test_a_signal_is_heard_while_a_task_file_hangs_at_the_start_or_at_a_reload(
    shell: Shell,
) -> None:
    running = launch(shell, "--shutdown-timeout", "1")
    eventually(lambda: shell.has_run("idle"))
    shell.write("hanging.py", HANGING_FILE)
    running.send_signal(signal.SIGHUP)
    loading = shell.folder / "loading"
    eventually(loading.exists)
    loading.unlink()
    starting = launch(shell, "--shutdown-timeout", "1")
    eventually(loading.exists)
    assert seconds_to_end(running) < BOUND + SLACK
    assert seconds_to_end(starting) < BOUND + SLACK
    assert running.returncode == starting.returncode == 0


def test_what_a_task_forks_is_ended_by_a_signal_as_if_nobody_handled_it(shell: Shell) -> None:
    shell.write(
        "forks.py",
        """
        import multiprocessing, signal, time
        from housekeeper import task

        @task()
        def forks():
            for _ in range(20):
                child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
                child.start()
                child.terminate()
                child.join()
                assert child.exitcode == -signal.SIGTERM
            child = multiprocessing.get_context("fork").Process(target=handlers)
            child.start()
            child.join()
            assert child.exitcode == 0

        def handlers():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """,
    )
    shell("run", "forks")


def test_a_start_that_fails_is_one_sentence(shell: Shell) -> None:
    said = shell("--http", "127.0.0.1:99999", code=2)
    assert said == "housekeeper: --http '127.0.0.1:99999' is not of the form HOST:PORT\n"


def test_a_scheduler_without_a_ledger_does_not_start(shell: Shell) -> None:
    for command in ((), ("run", "sweep")):
        said = shell("--ledger", "postgresql://shop@127.0.0.1:1/shop", *command, code=3)
        assert re.fullmatch("housekeeper: .*127.0.0.1:1/shop.*\n", said)


def test_a_scheduler_whose_terminal_is_closed_ends_and_one_that_has_it_still_reloads(
    shell: Shell,
) -> None:
    pid, terminal = terminal_of(shell, "--shutdown-timeout", "1")
    eventually(lambda: shell.has_run("idle"))
    shell.write("later.py", "from housekeeper import Task\ntask = Task('l', print, startup=1)\n")
    os.kill(pid, signal.SIGHUP)
    text = ""
    while "Reloading the tasks" not in text:
        text += os.read(terminal, 4096).decode()
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_start_list_that_cannot_be_written_does_not_keep_the_scheduler_from_its_work(
    shell: Shell,
) -> None:
    with open("/dev/full", "w") as full:
        process = launch(shell, stdout=full.fileno())
        eventually(lambda: shell.has_run("idle"))
        process.terminate()
        assert process.wait(LIMIT) == 0


def test_a_task_that_takes_stdout_away_does_not_keep_the_scheduler_from_its_work(
    shell: Shell,
) -> None:
    shell.write("rude.py", "import sys\nimport housekeeper\nsys.stdout = None\n")
    process = launch(shell, stdout=subprocess.DEVNULL)
    eventually(lambda: shell.has_run("idle"))
    process.terminate()
    assert process.wait(LIMIT) == 0


def test_a_scheduler_that_is_switched_off_says_so_and_ends(shell: Shell) -> None:
    source = "import housekeeper\nkeeper = housekeeper.create_housekeeper(enabled=False)\n"
    (shell.folder / "shop.py").write_text(source)
    options = {"HOUSEKEEPER_TASKS": "", "HOUSEKEEPER_LEDGER": ""}
    said = shell("--app", "shop:keeper", **options)
    assert said == (
        "Housekeeper is switched off (HOUSEKEEPER_ENABLED=0 or enabled=False):"
        " nothing is scheduled\n"
    )
    assert shell.json("--app", "shop:keeper", **options) == {"enabled": False}


# What is shown, and how.


def test_an_old_python_gets_one_sentence(tmp_path: Path) -> None:
    old = sorted(Path.home().glob(".pyenv/versions/3.[89].*/bin/python"))
    for python in old:
        done = subprocess.run(
            [str(python), str(FILE)], capture_output=True, text=True, check=False
        )
        version = python.parts[-3]
        said = f"housekeeper needs Python 3.10 or later, and this is {version}; start it with a"
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"{said} newer one\n"
        done = subprocess.run(
            [str(python), "-c", "import housekeeper"],
            cwd=FILE.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr.endswith(f"ImportError: {said} newer one\n")


def test_the_file_parses_on_the_pythons_that_get_a_sentence() -> None:
    ast.parse(FILE.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("form", [" {} ", "{}\n", '"{}"', "'{}'\r\n", ' " {} "\t'])
def test_blanks_quotes_and_line_ends_round_a_variable_do_not_count(
    shell: Shell, form: str
) -> None:
    told = {name: form.format(value) for name, value in shell.variables.items()}
    told |= {"HOUSEKEEPER_WORKERS": form.format(3), "HOUSEKEEPER_JSON": form.format("1")}
    assert len(json.loads(shell("list", **told))) == 6
    assert not shell.ledger.exists()


def test_quotes_within_a_variable_count(shell: Shell) -> None:
    value = '"echo" && test -n \'a b\' && echo "told"'
    assert "told" in shell.full("check", "--notify", HOUSEKEEPER_ON_FAILURE=value).stderr


def test_show_tells_a_run_with_its_output_and_error(shell: Shell) -> None:
    shell("run", "nightly", code=1)
    shell("run", "sweep")
    newest, older = shell.json("history")
    lines = shell("show", newest["id"]).splitlines()
    assert lines[:4] == [
        f"run            {newest['id']}",
        "task           sweep",
        f"outcome        succeeded after {newest['duration']:.3f} s",
        "note           3 of 4 rows",
    ]
    assert lines[lines.index("Output:") + 1].endswith("INFO sweeper: swept 3 rows")
    told = shell("show", older["id"][:16])
    assert "\nError:\n    Traceback (most recent call last):\n" in told
    assert told.endswith("\n    ValueError: no such table: tokens\n")
    assert shell.json("show", newest["id"]) == newest
    assert "`history` shows their ids" in shell("show", "01234567", code=2)
    common = os.path.commonprefix([newest["id"], older["id"]])  # noqa: RUF071 - they are texts
    assert "several runs begin with" in shell("show", common, code=2)


def test_history_tells_output_failures_and_that_there_is_more(shell: Shell) -> None:
    for name in ("sweep", "nightly", "sweep", "nightly", "sweep"):
        shell("run", name, code=int(name == "nightly"))
    assert "    ValueError: no such table: tokens" in shell("history", "--output").splitlines()
    assert any("swept 3 rows" in line for line in shell("history", "--output").splitlines())
    failed = shell.json("history", "--failed")
    assert [run["task"] for run in failed] == ["nightly", "nightly"]
    done = shell.full("history", "--failed", "-n", "1")
    assert done.stderr == f"there are older runs: add --before {failed[0]['id']}\n"
    assert shell.json("history", "--failed", *done.stderr.split()[-2:]) == failed[1:]
    assert shell.full("history", "nightly", "-n", "2").stderr == ""
    assert shell.full("history", "-n", "2", "--json").stderr == ""


def test_what_a_task_prints_moves_no_cursor_when_a_terminal_shows_it(shell: Shell) -> None:
    shell.write(
        "rude.py",
        """
        import logging
        from housekeeper import task

        @task()
        def rude():
            logging.getLogger("rude").info("\\x1b[2Jgone\\x1b]0;title\\x07 \\x9b31m\\rback")
            raise ValueError("\\x1b[31mred\\x08")
        """,
    )
    shell("run", "rude", code=1)
    (run,) = shell.json("history")
    for command in (["history", "--output"], ["show", run["id"]], ["list"], ["health"]):
        text = on_a_terminal(shell, *command, NO_COLOR="1")
        assert not set(text) & set("\x1b\x07\x08\x9b"), command
    assert "red" in on_a_terminal(shell, "history", NO_COLOR="1")
    assert "\x1b[31mred" in shell("show", run["id"]), "in a pipe it is what it was"


def test_outcomes_have_colours_on_a_terminal_and_nowhere_else(shell: Shell) -> None:
    shell("run", "sweep")
    shell("run", "nightly", code=1)
    text = on_a_terminal(shell, "history")
    assert "\x1b[32msucceeded\x1b[0m" in text
    assert "\x1b[31mfailed\x1b[0m" in text
    assert "\x1b[31mCRITICAL\x1b[0m: No scheduler" in on_a_terminal(shell, "health")
    for switched_off in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_a_terminal(shell, "history", **switched_off)
    assert "\x1b" not in shell("history")
    screen = hk.Screen(80, True, datetime.now(timezone.utc))
    line = hk._for_terminal("WARNING: Task sweep failed its last 5 runs", screen)
    assert line == "\x1b[33mWARNING\x1b[0m: Task sweep failed its last 5 runs"


def test_what_is_within_a_second_is_now_and_neither_to_come_nor_past() -> None:
    now = datetime.now(timezone.utc)
    screen = hk.Screen(80, False, now)
    for seconds, words in ((0.5, "now"), (-0.5, "now"), (-1, "1 s ago"), (90, "in 90 s")):
        assert hk._when(now + timedelta(seconds=seconds), timezone.utc, screen) == words


@pytest.mark.parametrize("command", ["list", "history", "next nightly -n 400"])
def test_a_table_fits_the_terminal(shell: Shell, command: str) -> None:
    name = "a-task-with-a-name-that-is-long-enough-to-fill-a-line"
    shell.write("long.py", f"from housekeeper import Task\nt = Task({name!r}, print)\n")
    shell("run", name)
    shell("run", "nightly", code=1)
    (run, *_) = shell.json("history")
    for columns in (70, 80, 132):
        text = on_a_terminal(shell, *command.split(), columns=columns, NO_COLOR="1")
        assert len(text.splitlines()) > 2
        assert max(map(len, text.splitlines())) <= columns
        assert command != "history" or run["id"][:16] in text, "an id is never cut"


def test_run_and_its_log_say_each_thing_once(shell: Shell) -> None:
    done = shell.full("run", "nightly")
    assert done.stdout.count("ValueError: no such table: tokens") == 1
    assert done.stderr.count("Traceback") == 1
    assert "WARNING Task nightly failed in attempt 1 of 2" in done.stderr
    done = shell.full("run", "sweep")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.endswith("INFO    Task sweep: swept 3 rows\n")


def test_help_of_a_command_shows_its_own_options_and_one_line_for_the_rest(
    shell: Shell, help_of: Callable[..., str]
) -> None:
    for name in hk.COMMANDS:
        text = help_of(name)
        assert "--ledger" not in text
        assert text.endswith("It also takes --json and the options of `housekeeper.py --help`.\n")
    assert "--failed" in help_of("history")
    assert shell("-V") == f"housekeeper {hk.__version__}\n"


def test_why_takes_times_as_people_say_them(shell: Shell) -> None:
    shell("run", "idle")
    zone = ZoneInfo("Europe/Berlin")
    now = datetime.now(zone)
    (today, yesterday) = (f"{now - timedelta(days=days):%Y-%m-%d}" for days in (0, 1))

    def asked(*words: str) -> str:
        return str(shell.json("why", "nightly", *words)["instant"])

    def instant(day: str, time: str) -> str:
        local = datetime.fromisoformat(f"{day} {time}").replace(tzinfo=zone)
        return local.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")

    assert asked("today", "02:30") == instant(today, "02:30")
    assert asked("yesterday 3:00") == instant(yesterday, "03:00")
    if now.strftime("%H:%M") not in ("00:00", "23:58", "23:59"):
        assert asked("00:00") == instant(today, "00:00"), "it has come today"
        assert asked("23:59") == instant(yesterday, "23:59"), "it is still to come today"
    for wrong in ("25:00", "yesterday 3:61"):
        assert f"'{wrong}' is not an instant" in shell("why", "nightly", wrong, code=2)


def test_list_says_that_nobody_schedules_and_who_was_the_last(shell: Shell) -> None:
    shell("run", "idle")
    said = "No scheduler is running; none was ever seen.\n"
    assert shell.full("list").stderr == said
    scheduler = launch(shell)
    eventually(lambda: shell.full("list").stderr == "")
    scheduler.terminate()
    scheduler.wait(LIMIT)
    said = (
        rf"No scheduler is running; the last, \S+:{scheduler.pid}:\w+, was seen at \S+ \S+ UTC\.\n"
    )
    assert re.fullmatch(said, shell.full("list").stderr)


def test_one_is_not_many(shell: Shell) -> None:
    (shell.folder / "tasks/work.py").unlink()
    shell.write("one.py", "from housekeeper import Task\ntask = Task('one', print)\n")
    assert shell("check", TZ="UTC") == "1 task: one\nall is well\n"
    shell.write("broken.py", "1 / 0\n")
    assert shell("check", code=1).endswith("\n1 problem\n")


def test_a_working_folder_that_is_gone_matters_to_relative_paths_only(shell: Shell) -> None:
    gone = shell.folder / "gone"

    def from_there(*arguments: str) -> subprocess.CompletedProcess[str]:
        gone.mkdir()
        return subprocess.run(
            ["sh", "-c", 'rmdir "$PWD"; exec "$0" "$@"', sys.executable, str(FILE), *arguments],
            cwd=gone,
            env=environment(**{**shell.variables, "HOUSEKEEPER_TASKS": ""}),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    tasks = str(shell.folder / "tasks")
    done = from_there("--tasks", tasks, "run", "sweep")
    assert (done.returncode, done.stdout[:15]) == (0, "sweep succeeded")
    done = from_there("--tasks", "tasks", "list")
    assert done.returncode == 2
    assert "'tasks' is in the working folder, which is gone" in done.stderr
    assert "No module named 'shop'" in from_there("--app", "shop:keeper", "list").stderr


# The command that is run after failures.

TELL = 'cat > "told-$HOUSEKEEPER_TASK"; echo "$HOUSEKEEPER_STATUS: $HOUSEKEEPER_NOTE" >> notes'


def told(shell: Shell, name: str) -> Any:
    return json.loads((shell.folder / f"told-{name}").read_text())


def test_a_failure_is_told_to_a_command_with_the_run(shell: Shell) -> None:
    shell("run", "sweep", "--on-failure", TELL)
    shell("run", "idle", "--on-failure", TELL)
    assert not (shell.folder / "notes").exists(), "no failure, nothing to tell"
    shell("run", "nightly", "--on-failure", TELL, code=1)
    (run, *_) = shell.json("history")
    kept = ("id", "task", "status", "note", "error", "attempt")
    assert [told(shell, "nightly")[key] for key in kept] == [run[key] for key in kept]
    assert (shell.folder / "notes").read_text() == "failed: ValueError: no such table: tokens\n"


def test_the_scheduler_tells_each_failure_once_and_waits_for_none(shell: Shell) -> None:
    shell.write(
        "fails.py",
        """
        from housekeeper import task

        @task(startup=True)
        def first():
            1 / 0

        @task(startup=0.5)
        def second():
            1 / 0
        """,
    )
    tell = f"{TELL}; test $HOUSEKEEPER_TASK = second || read never < /dev/ptmx"
    process = launch(shell, "--shutdown-timeout", "1", HOUSEKEEPER_ON_FAILURE=tell)
    eventually((shell.folder / "told-first").exists)
    eventually(lambda: "failed" in shell.full("history", "second").stdout)
    assert seconds_to_end(process) < BOUND + SLACK
    assert process.returncode == 0
    assert (shell.folder / "notes").read_text().count("\n") == 1


def test_a_command_for_failures_that_fails_is_logged_and_check_tries_it_once(
    shell: Shell,
) -> None:
    done = shell.full("run", "nightly", "--on-failure", "echo no mailer here >&2; exit 7")
    assert done.returncode == 1
    assert "no mailer here\n" in done.stderr
    assert "The command of --on-failure, for task nightly: it exited with 7\n" in done.stderr
    secret = {"HOUSEKEEPER_TOKEN": "a-secret"}
    text = shell("check", "--notify", "--on-failure", f"{TELL}; env > seen", TZ="UTC", **secret)
    assert text.endswith("all is well\n")
    assert told(shell, "check")["note"] == "this is a trial by `check --notify`"
    assert "a-secret" not in (shell.folder / "seen").read_text()
    text = shell("check", "--notify", "--on-failure", "exit 7", code=1)
    assert "problem: the command of --on-failure: it exited with 7\n" in text
    assert "but none is set" in shell("check", "--notify", code=2)
    assert not (shell.folder / "told-nightly").exists(), "check tells of no real task"


def test_a_command_for_failures_that_hangs_is_killed_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hk.FailureCommand, "LIMIT", 0.2)
    pid = tmp_path / "pid"
    command = hk.FailureCommand(f"echo $$ > {pid}; exec sleep 60")
    failed, reason = hk.Status.FAILED, hk.Reason.MANUAL
    wrong = command.tell(hk.Run(id="1", task="sweep", reason=reason, status=failed))
    assert wrong == "it took longer than 0.2 s and was killed"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert "for task sweep: it took longer" in caplog.text
