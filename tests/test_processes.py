"""Real processes: signals, kills, forks, and the end of the interpreter."""

from __future__ import annotations

import errno
import functools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
import wsgiref.util
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import flask
import pytest

import housekeeper as hk
from housekeeper import Status
from tests import waiting
from tests.environment import environment

FILE = Path(hk.__file__).resolve()
LIMIT = 30  # seconds after which something hangs that must not

eventually = functools.partial(waiting.eventually, within=LIMIT)

WORK = """
    import time
    from housekeeper import Task, current_run

    def work():
        print("inside", flush=True)
        {body}

    task = Task("work", work, startup=True)
"""
FINISH = "time.sleep(0.6); print('finished', flush=True)"
HANG = """
        while True:
            try:
                time.sleep(60)
            except BaseException:
                print("swallowed", flush=True)
"""


class World:
    """A folder with task files and a ledger, and the processes that work on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = f"sqlite:///{folder}/ledger.db"
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "tasks").mkdir()

    def write(self, source: str, name: str = "work.py") -> Path:
        path = self.folder / "tasks" / name
        path.write_text(textwrap.dedent(source))
        return path

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start the scheduler, or another command."""
        settings = ["--tasks", str(self.folder / "tasks"), "--ledger", self.ledger]
        process = subprocess.Popen(
            command or [sys.executable, str(FILE), *settings, *options.pop("arguments", [])],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(FILE.parent), PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=open(self.folder / f"stderr{len(self.processes)}", "w"),  # noqa: SIM115
            text=True,
            **options,
        )
        self.processes.append(process)
        return process

    def stderr(self, number: int = 0) -> str:
        """Return what a process has written, but for the line that says that it schedules."""
        text = (self.folder / f"stderr{number}").read_text()
        return re.sub(r"(?m)^[0-9-]+ [0-9:,]+ Housekeeper \S+ started by .*\n", "", text)

    def history(self, name: str | None = None) -> list[hk.Run]:
        housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=self.ledger)
        try:
            return housekeeper.history(name, limit=10_000)
        finally:
            housekeeper.ledger.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read a process's lines up to one that holds a text."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"it ended before it printed {text!r}: {lines}")


def ends(process: subprocess.Popen[str]) -> int:
    """Wait for a process's end; return its exit code."""
    return process.wait(LIMIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_task_finish_and_exits_with_0(
    world: World, number: signal.Signals
) -> None:
    world.write(WORK.format(body=FINISH))
    process = world.start()
    read_until(process, "inside")
    process.send_signal(number)
    read_until(process, "finished")
    assert ends(process) == 0
    (row,) = world.history()
    assert row.status is Status.SUCCEEDED
    assert f"Shutting down after {number.name}" in world.stderr()


def test_a_hung_task_is_bounded_by_the_timeout_named_recorded_and_exits_with_1(
    world: World,
) -> None:
    world.write(WORK.format(body=HANG))
    process = world.start(arguments=["--shutdown-timeout", "0.5"])
    read_until(process, "inside")
    began = time.monotonic()
    process.terminate()
    assert ends(process) == 1
    assert time.monotonic() - began < 0.5 + 5
    (row,) = world.history()
    assert row.status is Status.CANCELLED
    assert "0.5 s of a shutdown" in row.note
    assert "work.py" in row.error, "the stack shows where it hung"
    assert "Task work was abandoned" in world.stderr()


def test_a_second_signal_ends_at_once(world: World) -> None:
    world.write(WORK.format(body=HANG))
    process = world.start(arguments=["--shutdown-timeout", "600"])
    read_until(process, "inside")
    process.terminate()
    eventually(lambda: "Shutting down after SIGTERM" in world.stderr())
    process.send_signal(signal.SIGINT)
    assert ends(process) == 128 + signal.SIGINT


STUBBORN_COMMAND = """
from housekeeper import Task

task = Task("work", command="trap '' TERM; echo pid $$ inside; exec sleep 1000", startup=True)
"""


def test_a_second_signal_ends_commands_as_well(world: World) -> None:
    world.write(STUBBORN_COMMAND)
    process = world.start(arguments=["--shutdown-timeout", "600"])
    eventually(lambda: "inside" in world.stderr())
    (pid,) = re.findall(r"pid (\d+) inside", world.stderr())
    ended = os.pidfd_open(int(pid))
    process.terminate()
    eventually(lambda: "Shutting down after SIGTERM" in world.stderr())
    process.send_signal(signal.SIGINT)
    assert ends(process) == 128 + signal.SIGINT
    assert select.select([ended], [], [], LIMIT)[0]
    os.close(ended)


def test_a_scheduler_that_was_started_deaf_to_its_children_hears_how_they_end(
    world: World,
) -> None:
    world.write(STUBBORN_COMMAND.replace("exec sleep 1000", "exit 7"))
    process = subprocess.Popen(
        [sys.executable, str(FILE), "--tasks", "tasks", "--ledger", world.ledger, "run", "work"],
        cwd=world.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "the command exited with 7" in said


def test_a_signal_that_was_ignored_stays_ignored(world: World) -> None:
    world.write(WORK.format(body="pass"))
    ignoring = 'trap "" HUP INT; exec "$0" "$@"'
    command = [sys.executable, str(FILE), "--tasks", "tasks", "--ledger", world.ledger]
    process = world.start("/bin/sh", "-c", ignoring, *command)
    read_until(process, "inside")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    process.terminate()
    assert ends(process) == 0
    assert "SIGTERM" in world.stderr()
    assert "Reloading" not in world.stderr()


def test_sighup_reloads_the_task_files(world: World) -> None:
    world.write(WORK.format(body="pass"))
    process = world.start()
    read_until(process, "inside")
    world.write(
        "from housekeeper import Task\n"
        "task = Task('new', lambda: print('new ran', flush=True), schedule='* * * * * *')\n",
        "new.py",
    )
    world.write("1 / 0\n")
    process.send_signal(signal.SIGHUP)
    read_until(process, "new ran")
    process.terminate()
    assert ends(process) == 0
    assert "work.py:1: it does not import (ZeroDivisionError" in world.stderr()


def test_two_schedulers_on_one_ledger_run_each_tick_once(world: World) -> None:
    world.write(
        """
        from housekeeper import current_run, task

        @task(schedule="* * * * * *")
        def every_second():
            print("ran", current_run().scheduled_for, flush=True)
        """
    )
    both = [world.start(), world.start()]
    for process in both:
        read_until(process, "every-second")
    eventually(lambda: len(world.history()) >= 6)
    lines: list[str] = []
    for process in both:
        process.terminate()
    for process in both:
        assert process.stdout is not None
        lines += [line for line in process.stdout if line.startswith("ran")]
        assert ends(process) == 0
    assert len(lines) >= 6
    assert set(Counter(lines).values()) == {1}
    rows = [row for row in world.history() if row.status is Status.SUCCEEDED]
    assert sorted(f"ran {row.scheduled_for}\n" for row in rows) == sorted(lines)


def test_a_run_whose_process_was_killed_stays_on_record_and_can_be_told(world: World) -> None:
    world.write(WORK.format(body=HANG))
    process = world.start()
    read_until(process, "inside")
    process.kill()
    ends(process)
    (row,) = world.history()
    assert row.status is Status.CRASHED
    assert f":{process.pid}:" in row.runner
    assert "has died, which the next one will record" in row.note
    shown = subprocess.run(
        [sys.executable, str(FILE), "--tasks", "tasks", "--ledger", world.ledger, "list"],
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    ).stdout
    assert "crashed" in shown


# As a service.


@pytest.fixture(params=["path", "abstract"])
def systemd(request: Any, tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd would hear of a service."""
    abstract = f"\0housekeeper-{os.getpid()}-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(LIMIT)
        made.bind(abstract if request.param == "abstract" else str(tmp_path / "notify"))
        yield made


def heard(systemd: socket.socket, word: str) -> str:
    """Return the first message that holds a word."""
    until = time.monotonic() + LIMIT
    while word not in (message := systemd.recv(4096).decode()):
        assert time.monotonic() < until, word
    return message


def test_systemd_hears_of_the_start_of_each_beat_of_a_reload_and_of_the_end(
    world: World, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(
        """
        from housekeeper import Task
        task = Task("look", command='echo "socket: $NOTIFY_SOCKET"', startup=True)
        """
    )
    address = systemd.getsockname()
    name = address if isinstance(address, str) else f"@{address[1:].decode()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    process = world.start()
    heard(systemd, "READY=1")
    assert heard(systemd, "WATCHDOG=1") == "WATCHDOG=1"
    before = time.monotonic()
    process.send_signal(signal.SIGHUP)
    reloading, _, micros = heard(systemd, "RELOADING=1").partition("\nMONOTONIC_USEC=")
    assert before <= int(micros) / 1e6 + 1e-3 <= time.monotonic() + 1e-3, reloading
    heard(systemd, "READY=1")
    eventually(lambda: any("socket: \n" in row.output for row in world.history()))
    process.terminate()
    heard(systemd, "STOPPING=1")
    assert ends(process) == 0


def test_a_process_without_a_free_file_is_not_ended_by_its_word_to_systemd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    manager = hk.ServiceManager()
    monkeypatch.setattr(hk.socket, "socket", exhausted)
    manager.tell("WATCHDOG=1")


def test_a_beat_that_fails_is_not_the_last(make: Any) -> None:
    housekeeper, beats = make(), []

    def beat() -> None:
        beats.append(len(beats))
        if len(beats) == 3:
            raise OSError(errno.EMFILE, "Too many open files")

    housekeeper.beat_every(0.01, beat)
    eventually(lambda: len(beats) > 3)


def test_a_loop_that_hangs_is_not_reported_as_alive(make: Any) -> None:
    """The timer thread itself sends the beats, so that systemd restarts what does not go on."""
    housekeeper, beats = make(), []
    hung, gate = threading.Event(), threading.Event()

    def hang() -> None:
        hung.set()
        gate.wait(LIMIT)

    housekeeper.beat_every(0.01, lambda: beats.append(threading.current_thread().name))
    eventually(lambda: len(beats) > 2)
    # A callable that hangs is none that Housekeeper enters by itself: one of the application's.
    hanging = threading.Thread(target=housekeeper._timer.after, args=(0.0, hang))
    hanging.start()
    assert hung.wait(LIMIT)
    stalled = len(beats)
    threading.Event().wait(0.1)
    assert len(beats) == stalled
    gate.set()
    eventually(lambda: len(beats) > stalled)
    assert set(beats[1:]) == {"housekeeper-timer"}


@pytest.mark.parametrize(("body", "timeout", "code"), [(FINISH, "20", 0), (HANG, "0.5", 1)])
def test_it_can_be_the_first_process_of_a_container(
    world: World, body: str, timeout: str, code: int
) -> None:
    """PID 1 has no default handlers: what it does not handle, it never hears."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this machine gives no PID namespaces")
    world.write(WORK.format(body=body))
    arguments = ["--tasks", "tasks", "--ledger", world.ledger, "--shutdown-timeout", timeout]
    outer = world.start(*unshare, sys.executable, str(FILE), *arguments)
    read_until(outer, "inside")
    (first,) = children(outer.pid)
    os.kill(first, signal.SIGTERM)
    assert ends(outer) == code
    assert "Shutting down after SIGTERM" in world.stderr()
    (row,) = world.history()
    assert row.runner.split(":")[1] == "1"


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


EMBEDDED = """
import os, signal, sys, threading, time
import housekeeper as hk

inside = threading.Event()

def work():
    inside.set()
    {body}

housekeeper = hk.create_housekeeper(
    tasks_dir=None, ledger=sys.argv[1], shutdown_timeout=float(sys.argv[2])
)
housekeeper.register_task(hk.Task("work", work, startup=True))
housekeeper.initialize()
inside.wait()
{end}
"""


def embedded(world: World, body: str, end: str, timeout: float) -> subprocess.Popen[str]:
    path = world.folder / "program.py"
    path.write_text(EMBEDDED.format(body=textwrap.dedent(body).replace("\n", "\n    "), end=end))
    return world.start(sys.executable, str(path), world.ledger, str(timeout))


ENDS = {
    "": 0,
    "sys.exit(7)": 7,
    "raise ValueError('its own')": 1,
    "import atexit; atexit.register(lambda: print('at last', flush=True))": 0,
    "threading.Thread(target=lambda: time.sleep(0.2)).start()": 0,
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_program_waits_for_what_runs_and_keeps_its_exit_code(
    world: World, end: str
) -> None:
    process = embedded(world, FINISH, end, timeout=20)
    assert ends(process) == ENDS[end]
    assert process.stdout is not None
    assert process.stdout.read() == "finished\n" + ("at last\n" if "atexit" in end else "")
    (row,) = world.history()
    assert row.status is Status.SUCCEEDED
    assert world.stderr().count("\n") == (4 if "raise" in end else 0), world.stderr()


AT_THE_END = """
import atexit, sys
import housekeeper as hk

def begin():
    housekeeper = made or hk.create_housekeeper(tasks_dir=None, ledger="memory://")
    try:
        housekeeper.initialize()
    except hk.HousekeeperError as error:
        print(error)

made = {made}
atexit.register(begin)
"""


@pytest.mark.parametrize(
    "made", ["None", "hk.create_housekeeper(tasks_dir=None, ledger='memory://')"]
)
def test_nothing_starts_while_the_interpreter_exits(made: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END.format(made=made)],
        cwd=Path(hk.__file__).parent,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "Housekeeper does not start: the interpreter exits\n"
    assert done.stderr == ""


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_program_is_not_held_up_by_a_hung_task(world: World, end: str) -> None:
    process = embedded(world, HANG, end, timeout=0.2)
    inside = time.monotonic()
    assert ends(process) == ENDS[end]
    assert time.monotonic() - inside < 0.2 + 5 + 10  # and the time to start
    (row,) = world.history()
    assert row.status is Status.CANCELLED
    assert "Exception ignored" not in world.stderr()
    assert "Fatal" not in world.stderr()


@pytest.mark.parametrize(
    "body",
    [
        "threading.current_thread().name = 'sync'\ntime.sleep(1000)",
        "import concurrent.futures\n"
        "with concurrent.futures.ThreadPoolExecutor(1) as pool:\n"
        "    pool.submit(time.sleep, 1000).result()",
    ],
    ids=["renamed", "its own pool"],
)
def test_the_end_of_a_program_is_held_up_by_no_thread_of_a_hung_task(
    world: World, body: str
) -> None:
    assert ends(embedded(world, body, "", timeout=0.2)) == 0
    (row,) = world.history()
    assert row.status is Status.CANCELLED


def test_the_end_of_a_program_ends_the_command_that_runs(world: World) -> None:
    path = world.folder / "program.py"
    path.write_text(EMBEDDED.format(body="pass", end="housekeeper.run_task_manually('x', False)"))
    command = "trap 'echo told > told; exit' TERM; touch begun; while :; do sleep 0.1; done"
    source = path.read_text().replace(
        "housekeeper.initialize()",
        f"housekeeper.register_task(hk.Task('x', command={command!r}))\nhousekeeper.initialize()",
    )
    path.write_text(source + "while not os.path.exists('begun'): time.sleep(0.05)\n")
    process = world.start(sys.executable, str(path), world.ledger, "0.2")
    assert ends(process) == 0
    eventually((world.folder / "told").exists)
    (row,) = world.history("x")
    assert row.status is Status.CANCELLED
    assert "Traceback" not in world.stderr()


def test_a_program_that_leaves_sigterm_alone_is_ended_by_it_and_its_run_stays_on_record(
    world: World,
) -> None:
    process = embedded(world, HANG, "os.kill(os.getpid(), signal.SIGTERM)", timeout=600)
    assert ends(process) == -signal.SIGTERM
    (row,) = world.history()
    assert row.status is Status.CRASHED
    assert "has died, which the next one will record" in row.note
    assert world.stderr() == ""


def test_importing_the_file_starts_nothing_and_needs_no_optional_package() -> None:
    program = """
        import sys, threading
        for name in ("psycopg2", "sentry_sdk", "schedule", "flask"):
            sys.modules[name] = None
        before = set(sys.modules)
        import housekeeper
        assert threading.active_count() == 1
        known = set(sys.stdlib_module_names) | {"housekeeper"}
        assert not {"argparse", "difflib", "hashlib", "http"} & set(sys.modules)
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(name for name in new - known if not name.startswith("_")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=FILE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    assert done.stdout == "[]\n"


def test_a_ledger_in_a_release_folder_behind_a_link_is_told(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "20261125"
    release.mkdir(parents=True)
    (tmp_path / "current").symlink_to(release)
    through_link = tmp_path / "current" / "housekeeper.db"
    for path in (through_link, release / "housekeeper.db", release / "var" / "housekeeper.db"):
        warning = hk.release_folder_warning(str(path))
        assert f"{release} behind the link {tmp_path / 'current'}" in warning
    (tmp_path / "shared").mkdir()
    (tmp_path / "now").symlink_to(tmp_path / "shared")
    for path in (tmp_path / "shared" / "hk.db", Path("/usr/lib/hk.db"), Path("")):
        assert hk.release_folder_warning(str(path) if path.name else "") == ""


def test_the_start_says_that_the_ledger_will_be_another_after_the_next_release(
    make: Any, tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "releases" / "7").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/7")
    make(ledger=f"sqlite:///{tmp_path}/current/housekeeper.db")
    assert "the next release begins a new ledger" in caplog.text


def test_check_says_that_the_ledger_will_be_another_after_the_next_release(
    tmp_path: Path,
) -> None:
    (tmp_path / "releases" / "7" / "tasks").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/7")
    ledger = f"sqlite:///{tmp_path}/current/housekeeper.db"
    tasks = str(tmp_path / "current" / "tasks")
    command = [sys.executable, hk.__file__, "check", "--tasks", tasks, "--ledger", ledger]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "the next release begins a new ledger" in done.stdout


UNHEARD = """
import logging, sys, threading
import housekeeper as hk
told = threading.Event()
def boom(): raise ValueError("no such file")
hear = lambda run: told.set()
keeper = hk.create_housekeeper(tasks_dir=None, ledger="memory://", on_finish=hear)
keeper.register_task(hk.Task("boom", boom))
keeper.initialize()
keeper.run_task_manually("boom", wait=False)
told.wait(20)
logging.basicConfig(format="ROOT %(message)s")
logging.getLogger("housekeeper").warning("once")
"""


def test_without_a_logging_setup_the_start_and_failures_are_visible_with_their_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNHEARD],
        env=environment(PYTHONPATH=str(Path(hk.__file__).parent)),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    time_ = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
    assert re.search(f"^{time_}Housekeeper .* started by initialize", done.stderr, re.MULTILINE)
    assert re.search(f"^{time_}Task boom failed after .* no such", done.stderr, re.MULTILINE)
    assert re.findall("^.*once$", done.stderr, re.MULTILINE) == ["ROOT once"]


def test_a_site_comes_up_although_its_ledger_cannot_be_made_and_says_what_to_set(
    make: Any, tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    housekeeper = make(
        hk.Task("work", lambda: None, startup=True),
        ledger=f"sqlite:///{tmp_path}/file/housekeeper.db",
    )
    (said,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert str(tmp_path) in said.getMessage()
    assert "HOUSEKEEPER_LEDGER sets another place" in said.getMessage()
    assert housekeeper.health()["status"] == "critical"
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    eventually(lambda: [row.status for row in housekeeper.history()] == [Status.SUCCEEDED])


# What is started under a scheduler; servers and their tasks are in test_servers.py.


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_scheduler_that_a_task_starts_says_that_it_would_have_nothing_to_do(
    world: World, by_hand: bool
) -> None:
    scheduler = [sys.executable, str(FILE), "--tasks", "tasks", "--ledger", world.ledger]
    world.write(
        f"""
        from housekeeper import Task
        task = Task("work", command={scheduler}, startup={not by_hand})
        """
    )
    process = world.start(*scheduler, *(["run", "work"] if by_hand else []))
    eventually(lambda: any(row.finished_at for row in world.history()))
    if not by_hand:
        process.terminate()
    assert ends(process) == (1 if by_hand else 0)
    (row,) = world.history()
    assert (row.status, "exited with 2: " in row.note) == (Status.FAILED, True)
    assert f"housekeeper: process {process.pid}, which has started this one, runs" in row.output


REPLACED = """
import os, sys
import housekeeper as hk

housekeeper = hk.create_housekeeper(tasks_dir=None, ledger="memory://")
housekeeper.initialize()
print(os.environ["HOUSEKEEPER_SCHEDULER"], housekeeper.health()["runners"][0]["alive"], flush=True)
if not sys.argv[1:]:
    os.execv(sys.executable, [sys.executable, __file__, "again"])
"""


def test_a_program_that_replaces_itself_goes_on_as_the_scheduler(world: World) -> None:
    path = world.folder / "program.py"
    path.write_text(REPLACED)
    process = world.start(sys.executable, str(path))
    assert ends(process) == 0
    assert process.stdout is not None
    first, second = process.stdout.read().splitlines()
    assert first == second
    assert re.fullmatch(rf"{process.pid} True", first)
    assert world.stderr() == ""


def test_ticks_are_left_to_the_living_process_that_has_started_this_one(
    make: Any, monkeypatch: Any, caplog: Any
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as outer:

        def held_up(told: str, **options: Any) -> bool:
            caplog.clear()
            monkeypatch.setattr(hk, "_told_by_parent", told)
            ran = threading.Event()
            made = make(hk.Task("at-start", ran.set, startup=True), **options)
            said = f"because process {outer.pid}, which" in caplog.text
            assert said or ran.wait(LIMIT)
            eventually(lambda: made.workload()["running"] == 0)
            assert ran.is_set() != said
            # What it is asked to do by hand it does.
            assert made.run_task_manually("at-start").status is Status.SUCCEEDED
            made.shutdown()
            return said

        told = str(outer.pid)
        assert held_up(told)
        assert not held_up("")
        for nonsense in (f"0{told}", "x", "-1", "9" * 30, str(os.getpid())):
            assert not held_up(nonsense)
        for variable in ("WERKZEUG_RUN_MAIN", "RUN_MAIN", "BOTTLE_CHILD"):
            with monkeypatch.context() as reloaded:
                reloaded.setenv(variable, "true")
                assert not held_up(told), "the process that waits for this one runs nothing"
                assert held_up(f"{told}:reloaded"), "the one that was reloaded itself does"
        outer.kill()
        os.waitid(os.P_PID, outer.pid, os.WEXITED | os.WNOWAIT)
        assert not held_up(told), "it is a zombie"
    assert not held_up(told), "it is gone"


def test_the_environment_names_this_process_while_it_schedules(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests have left theirs.
    monkeypatch.setattr(hk, "_alive", weakref.WeakSet())

    def named() -> str:
        return os.environ.get("HOUSEKEEPER_SCHEDULER", "")

    assert named() == ""
    first, twin = make(namespace="first"), make(namespace="twin")
    assert named() == str(os.getpid())
    first.shutdown()
    assert named() == str(os.getpid()), "its twin goes on"
    broken = make(start=False, ledger=f"sqlite:///{tmp_path}/ledger.db")
    broken.ledger.open = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        broken.initialize()
    twin.shutdown()
    assert named() == ""


HUNG_BY_GARBAGE = """
import gc, sqlite3, threading, time
import housekeeper as hk

gc.set_threshold(5, 2, 2)
until = time.monotonic() + 1

def look():
    while time.monotonic() < until:
        garbage = [sqlite3.connect(":memory:").execute("SELECT 1")]
        garbage.append(garbage)
        del garbage
        hk.frame_of(threading.get_ident())

def start():
    while time.monotonic() < until:
        threading.Thread(target=int).start()

threads = [threading.Thread(target=each, daemon=True) for each in (look, look, start, start)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_look_at_what_a_thread_does_never_hangs_the_process(world: World) -> None:
    process = world.start(sys.executable, "-c", HUNG_BY_GARBAGE)
    assert ends(process) == 0
    assert world.stderr() == ""


# Forks.


def in_child(work: Callable[[], object]) -> str:
    """Call something in a forked child; return what it returned, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_forked_child_is_stopped_and_can_be_started_for_itself(
    make: Any, tmp_path: Path
) -> None:
    gate, entered, ticked = threading.Event(), threading.Event(), [threading.Event()]

    def hold() -> None:
        entered.set()
        gate.wait(LIMIT)

    housekeeper = make(
        hk.Task("hold", hold),
        hk.Task("quick", lambda: None),
        hk.Task("tick", lambda: ticked[0].set(), schedule="* * * * * *"),
        ledger=f"sqlite:///{tmp_path}/ledger.db",
    )
    housekeeper.run_task_manually("hold", wait=False)
    assert entered.wait(LIMIT)

    def look() -> object:
        refused = ""
        try:
            housekeeper.run_task_manually("quick")
        except hk.HousekeeperError as error:
            refused = str(error)
        threads = [each.name for each in threading.enumerate()]
        before = housekeeper.get_task_status("hold")["running"]
        ticked[0] = threading.Event()
        housekeeper.initialize()
        assert ticked[0].wait(LIMIT), "its own loop runs"
        run = housekeeper.run_task_manually("quick")
        mine = f":{os.getpid()}:" in run.runner
        return refused, threads, before, run.status.value, mine, housekeeper.shutdown()

    answer = in_child(look)
    assert answer == str(
        (
            "Housekeeper is not running; call initialize() first",
            ["MainThread"],
            True,
            "succeeded",
            True,
            True,
        )
    )
    # The parent's run, its connection and its threads are as they were.
    assert housekeeper.get_task_status("hold")["running"] is True
    gate.set()
    assert housekeeper.run_task_manually("quick").status is Status.SUCCEEDED
    assert housekeeper.shutdown() is True


def test_forks_at_any_moment_never_hang_the_child(make: Any, tmp_path: Path) -> None:
    housekeeper = make(
        hk.Task("busy", lambda: None, schedule="* * * * * *"),
        ledger=f"sqlite:///{tmp_path}/ledger.db",
    )
    stop = threading.Event()

    def stir() -> None:
        while not stop.is_set():
            housekeeper.list_tasks()
            housekeeper.register_task(hk.Task("other", lambda: None), replace=True)

    stirrer = threading.Thread(target=stir)
    stirrer.start()
    try:
        for _ in range(25):
            assert (
                in_child(lambda: (housekeeper.initialize(), housekeeper.shutdown())[1]) == "True"
            )
    finally:
        stop.set()
        stirrer.join()


class FakeUwsgi(types.ModuleType):
    """What uWSGI tells of a process; the real one is in test_servers.py."""

    def __init__(self, worker: int, has_threads: int) -> None:
        super().__init__("uwsgi")
        self.has_threads, self.numproc, self.worker = has_threads, 2, worker
        self.calls: list[str] = []
        self.post_fork_hook = lambda: self.calls.append("the application's own hook")

    def worker_id(self) -> int:
        return self.worker

    def masterpid(self) -> int:
        return 1


def test_a_master_of_uwsgi_waits_for_its_forks_and_leaves_mules_alone(
    make: Any, monkeypatch: Any, caplog: Any
) -> None:
    uwsgi = FakeUwsgi(worker=0, has_threads=1)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    housekeeper = make(hk.Task("quick", lambda: None))
    assert "not started in uWSGI's master" in caplog.text
    with pytest.raises(hk.HousekeeperError, match="not running"):
        housekeeper.run_task_manually("quick")
    uwsgi.post_fork_hook()
    with pytest.raises(hk.HousekeeperError, match="not running"):
        housekeeper.run_task_manually("quick")
    uwsgi.worker = 1
    uwsgi.post_fork_hook()
    assert housekeeper.run_task_manually("quick").status is Status.SUCCEEDED
    assert uwsgi.calls == ["the application's own hook"] * 2


def test_uwsgi_without_threads_is_warned_of(make: Any, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", FakeUwsgi(worker=1, has_threads=0))
    assert make(hk.Task("quick", lambda: None)).run_task_manually("quick")
    assert "set enable-threads = true" in caplog.text


def test_the_first_request_in_a_forked_process_starts_it_there(make: Any) -> None:
    app = flask.Flask("shop")
    app.add_url_rule("/", "run", lambda: housekeeper.run_task_manually("quick").runner)
    housekeeper = make(hk.Task("quick", lambda: None), app=app)

    def ask() -> object:
        runner = app.test_client().get("/").text
        return f":{os.getpid()}:" in runner, housekeeper.shutdown()

    assert in_child(ask) == "(True, True)"
    housekeeper.shutdown()
    assert "500" in in_child(lambda: app.test_client().get("/").status), "it was ended before"


@pytest.mark.parametrize("path", ["/api/housekeeper/tasks", "/elsewhere"])
def test_a_request_through_mount_or_the_web_door_starts_it_in_a_forked_process(
    make: Any, path: str
) -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"page"]

    housekeeper = make(hk.Task("quick", lambda: None))
    served = housekeeper.mount(page, token="sixteen characters")

    def ask() -> object:
        environ: dict[str, Any] = {"PATH_INFO": path}
        wsgiref.util.setup_testing_defaults(environ)
        served(environ, lambda status, headers: None)
        return housekeeper.run_task_manually("quick").status.value, housekeeper.shutdown()

    assert in_child(ask) == "('succeeded', True)"


def test_a_start_that_fails_in_a_worker_does_not_take_the_site_down(
    make: Any, tmp_path: Path, caplog: Any
) -> None:
    app = flask.Flask("shop")
    app.add_url_rule("/", "page", lambda: "page")
    said = tmp_path / "said"
    housekeeper = make(app=app, ledger=f"sqlite:///{tmp_path}/ledger.db")
    housekeeper.ledger.open = lambda: (said.touch(), 1 / 0)
    assert in_child(lambda: app.test_client().get("/").text) == "page"
    assert said.exists()


def test_the_clock_of_this_machine_is_read_in_utc() -> None:
    clock = hk.SystemClock()
    assert abs((clock.now() - datetime.now(timezone.utc)).total_seconds()) < 5


def test_a_start_says_once_what_is_limited_where_threads_are_replaced(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # gevent itself would replace the threads of this process for good.
    patched = types.SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched)
    make()
    said = "gevent has replaced threads: no page is served while a task computes"
    assert caplog.text.count(said) == 1
