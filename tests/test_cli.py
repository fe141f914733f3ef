"""The command line, in processes of its own: what it prints, and with which code it exits."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

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

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self(*arguments, "--json", **options))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


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
        (["--workers", "0"], "max_workers 0 is not a whole number of 1 or more"),
        (["--workers", "two"], "invalid int value: 'two'"),
        (["--shutdown-timeout", "-1"], "shutdown_timeout -1.0 is not a number of seconds"),
        (["--log-level", "LOUD"], "--log-level 'LOUD' is none of DEBUG"),
        (["--app", "nothing"], "--app 'nothing' is not of the form module:name"),
        (["--app", "nothing.here:app"], "No module named 'nothing'"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "the following arguments are required: NAME"),
    ],
)
def test_wrong_use_gets_one_sentence_and_code_2(
    shell: Shell, arguments: list[str], text: str
) -> None:
    answer = shell(*arguments, code=2)
    assert text in answer
    assert "geheim" not in answer
    assert "Traceback" not in answer


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


def test_an_instant_at_the_edge_of_the_calendar_is_refused_in_a_sentence(shell: Shell) -> None:
    shell("run", "sweep")
    for instant in ("0001-01-01", "9999-12-31T20:00Z"):
        said = shell("why", "sweep", instant, code=2, HOUSEKEEPER_TIMEZONE="Asia/Tokyo")
        assert "Traceback" not in said
        assert instant in said


def test_a_variable_that_is_no_number_is_named(shell: Shell) -> None:
    text = shell("list", code=2, HOUSEKEEPER_WORKERS="many")
    assert text == "housekeeper: HOUSEKEEPER_WORKERS='many' is not a number\n"


def test_help_shows_commands_variables_and_exit_codes(shell: Shell) -> None:
    text = shell("--help")
    for _, name, _, words in hk.COMMANDS:
        assert re.search(rf"\n    {name} +", text), words
        assert shell(name, "--help").startswith("usage: housekeeper.py")
    for option in hk.OPTIONS:
        assert f"--{option.name}" in text
        assert f"[{option.variable}]" in text.replace("\n                        ", "")
    assert "exit codes: 0 all is well" in text
    assert shell("--version") == f"housekeeper {hk.__version__}\n"


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


def test_run_shows_a_live_bar_on_a_terminal(shell: Shell) -> None:
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
    assert "\r\x1b[K[###############               ]  50%  2 of 4 files" in text
    assert re.search(r"slow succeeded in 1\.[56]\d\d s", text)


def on_a_terminal(shell: Shell, *arguments: str) -> str:
    """Return what a command writes to a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shell.folder)
        os.environ.update(shell.variables)
        os.execv(sys.executable, [sys.executable, str(FILE), *arguments])
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
    shell: Shell, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    """Begin a command, without waiting for its end."""
    return subprocess.Popen(
        [sys.executable, str(FILE), *arguments],
        cwd=shell.folder,
        env=environment(**shell.variables),
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


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
    (in_the_gap, *_) = shell("why", "nightly", "2026-03-29 02:30").splitlines()
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
    assert shell("health") == "OK: all is well\n"
    assert json.loads(shell("health", "--json"))["status"] == "ok"
    shell.write("broken.py", "1 / 0\n")
    done = shell.full("health")
    assert done.returncode == 1
    assert done.stdout.startswith("WARNING: Discovery: ")
    assert "broken.py:1: it does not import" in done.stdout
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
    )
    assert done.stdout.split() == ["EUROPE/BERLIN", "UTC"]
    assert done.stderr == (
        "housekeeper: the answer could not be written ([Errno 32] Broken pipe)\n"
    )


@pytest.mark.parametrize("argument", ["list", "health", "check", "--help"])
@pytest.mark.parametrize("place", ["a pipe whose reader has left", "a full disk"])
def test_an_answer_that_cannot_be_written_is_one_sentence_and_code_4(
    shell: Shell, argument: str, place: str
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
        # With a buffer, so that it is written at the end.
        env=environment(**shell.variables, PYTHONUNBUFFERED=""),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    os.close(writing)
    sentence = rb"housekeeper: the answer could not be written \(\[Errno \d+\] [\w ]+\)\n"
    assert (done.returncode, bool(re.fullmatch(sentence, done.stderr))) == (4, True)


def test_ctrl_c_ends_a_question_without_a_traceback(shell: Shell) -> None:
    shell.write("slow.py", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
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
