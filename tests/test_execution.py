"""What happens inside a run: functions, commands, timeouts, cancelling, output, surroundings."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import decimal
import io
import itertools
import json
import logging
import logging.handlers
import os
import queue
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import flask
import pytest

import housekeeper as hk
from housekeeper import RunCancelled, RunFailed, RunTimedOut, Status, Task, current_run
from tests.waiting import PATIENCE, eventually


def ended(run: hk.LiveRun, within: float = PATIENCE) -> hk.LiveRun:
    """Wait for a run's end, and return it."""
    assert run.ended.wait(within), f"run of {run.task} did not end within {within} s"
    return run


def start(housekeeper: hk.Housekeeper, task: Task) -> hk.LiveRun:
    """Register a task, and begin a run of it."""
    housekeeper.register_task(task)
    return housekeeper.run_task_manually(task.name, wait=False)


def row_of(housekeeper: hk.Housekeeper, name: str) -> hk.Run:
    """Return the newest row of a task."""
    return housekeeper.history(name)[0]


def assert_untouched(housekeeper: hk.Housekeeper) -> None:
    """Another task still runs, and nothing is left running."""
    housekeeper.register_task(Task("untouched", lambda: None), replace=True)
    assert ended(housekeeper.run_task_manually("untouched", wait=False)).status == "succeeded"
    assert not [each["name"] for each in housekeeper.list_tasks() if each["running"]]


def assert_gone(*pids: int) -> None:
    """Wait until processes have ended; none of them may be a zombie child of ours."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            readable, _, _ = select.select([descriptor], [], [], PATIENCE)
        finally:
            os.close(descriptor)
        assert readable, f"process {pid} still runs"
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def pids_in(output: str) -> list[int]:
    """Return the numbers behind the word "pid" in a command's output."""
    words = output.split()
    return [int(number) for word, number in itertools.pairwise(words) if word == "pid"]


@pytest.fixture
def logged() -> Iterator[Callable[[str], str]]:
    """Return a function that waits for a message of Housekeeper's logger that contains a text."""
    messages: queue.Queue[str] = queue.Queue()

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.put(record.getMessage())

    def wait_for(text: str) -> str:
        while text not in (message := messages.get(timeout=PATIENCE)):
            pass
        return message

    keeper, level = Keeper(), hk.logger.level
    hk.logger.addHandler(keeper)
    hk.logger.setLevel(logging.INFO)
    yield wait_for
    hk.logger.removeHandler(keeper)
    hk.logger.setLevel(level)


@pytest.fixture(autouse=True)
def _same_record_factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


# Commands.


def test_a_command_that_is_a_text_goes_through_the_shell(make) -> None:
    housekeeper = make(Task("shell", command="echo $((6 * 7)) | tr 4 four"))
    assert housekeeper.run_task_manually("shell").output == "f2\n"


def test_a_command_that_is_a_list_goes_through_no_shell(make) -> None:
    housekeeper = make(Task("list", command=["echo", "$HOME", "a  b", "|", "cat"]))
    assert housekeeper.run_task_manually("list").output == "$HOME a  b | cat\n"


def test_a_command_runs_in_its_folder_with_its_names_added_to_the_environment(
    make, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("KEPT", "kept")
    housekeeper = make(
        Task("place", command="pwd; echo $KEPT $ADDED", cwd=tmp_path, env={"ADDED": "added"})
    )
    assert housekeeper.run_task_manually("place").output == f"{tmp_path}\nkept added\n"


def test_a_command_has_a_process_group_of_its_own_and_nothing_to_read(make) -> None:
    script = "import os, sys; print(os.getpgrp() == os.getpid(), repr(sys.stdin.read()))"
    housekeeper = make(Task("group", command=[sys.executable, "-c", script]))
    assert housekeeper.run_task_manually("group").output == "True ''\n"


def test_a_command_prints_line_by_line_into_the_output_and_the_log(
    make, tmp_path: Path, logged
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    holder = os.open(pipe, os.O_RDWR)
    try:
        run = start(
            make(),
            Task(
                "lines",
                command="echo one; echo two >&2; read word < pipe; echo $word",
                cwd=tmp_path,
            ),
        )
        assert logged(": one") == "Task lines: one"
        assert logged(": two") == "Task lines: two"
        assert run.buffer.text() == "one\ntwo\n"
        assert not run.ended.is_set()
        os.write(holder, b"three\n")
        assert ended(run).output == "one\ntwo\nthree\n"
    finally:
        os.close(holder)


def test_a_command_that_exits_with_another_code_has_failed_with_the_code_and_its_last_lines(
    make,
) -> None:
    housekeeper = make(Task("bad", command="seq 10; echo the disk is full >&2; exit 3"))
    with pytest.raises(hk.CommandFailed, match="the disk is full") as failure:
        housekeeper.run_task_manually("bad")
    assert failure.value.returncode == 3
    row = row_of(housekeeper, "bad")
    assert (row.status, row.note) == (
        Status.FAILED,
        "the command exited with 3: 9 | 10 | the disk is full",
    )


POLITE = """
sh -c 'trap "echo grandchild ends; exit 0" TERM; echo pid $$; while :; do sleep 0.05; done' &
trap 'wait; echo leader ends; exit 0' TERM
echo pid $$
wait
"""


def test_a_cancelled_command_gets_sigterm_with_its_whole_group(make) -> None:
    housekeeper = make()
    run = start(housekeeper, Task("polite", command=POLITE))
    eventually(lambda: len(pids_in(run.buffer.text())) == 2)
    housekeeper.cancel("polite")
    assert ended(run).status is Status.CANCELLED
    last_words = [line for line in run.output.splitlines() if line.endswith("ends")]
    assert last_words == ["grandchild ends", "leader ends"]
    assert_gone(*pids_in(run.output))
    assert_untouched(housekeeper)


def test_what_a_cancelled_shell_has_started_has_its_time_although_the_shell_is_gone(make) -> None:
    command = """
sh -c 'trap "sleep 0.3; echo saved; exit 0" TERM; echo pid $$; while :; do sleep 0.05; done' &
echo pid $$
wait
"""
    housekeeper = make()
    run = start(housekeeper, Task("shell", command=command))
    eventually(lambda: len(pids_in(run.buffer.text())) == 2)
    housekeeper.cancel("shell")
    assert ended(run).status is Status.CANCELLED
    assert run.output.endswith("saved\n")
    assert_gone(*pids_in(run.output))


def test_a_command_that_is_over_its_timeout_gets_sigterm_and_is_recorded_timed_out(make) -> None:
    housekeeper = make()
    task = Task("slow", command="echo pid $$; sleep 1000 & echo pid $!; wait", timeout=0.3)
    run = ended(start(housekeeper, task))
    row = row_of(housekeeper, "slow")
    assert (row.status, row.note) == (Status.TIMED_OUT, "it ran longer than its timeout of 0.3 s")
    assert len(pids_in(row.output)) == 2
    assert_gone(*pids_in(run.output))


def test_what_outlives_its_timeout_has_timed_out_although_the_timer_was_held_up(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hk.Steps, "_time_out", lambda *_: None)
    housekeeper = make()
    run = ended(start(housekeeper, Task("slow", lambda: time.sleep(0.1), timeout=0.05)))
    assert run.status is row_of(housekeeper, "slow").status is Status.TIMED_OUT
    assert run.note == "it ran longer than its timeout of 0.05 s"
    assert ended(start(housekeeper, Task("quick", int, timeout=60))).status is Status.SUCCEEDED


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_command_that_ignores_sigterm_is_killed_with_its_group(
    make, monkeypatch, logged, how: str
) -> None:
    monkeypatch.setattr(hk, "TERM_TO_KILL", 0.2)
    housekeeper = make()
    run = start(
        housekeeper,
        Task(
            "stubborn",
            command="trap '' TERM; echo pid $$; sleep 1000 & echo pid $!; wait; sleep 1000",
            timeout=0.3 if how == "timeout" else None,
        ),
    )
    if how == "cancel":
        eventually(lambda: len(pids_in(run.buffer.text())) == 2)
        housekeeper.cancel("stubborn")
    assert logged("ignored SIGTERM")
    expected = Status.CANCELLED if how == "cancel" else Status.TIMED_OUT
    assert ended(run).status is expected
    assert len(pids_in(run.output)) == 2
    assert_gone(*pids_in(run.output))


STUBBORN = "trap '' TERM; echo pid $$; while :; do sleep 0.1; done"


def test_a_command_that_ignores_sigterm_does_not_outlive_a_shutdown(make) -> None:
    housekeeper = make()
    run = start(housekeeper, Task("stubborn", command=STUBBORN))
    eventually(lambda: pids_in(run.buffer.text()))
    housekeeper.shutdown(0.0)
    assert_gone(*pids_in(run.buffer.text()))


def test_a_command_gets_its_signals_although_the_thread_that_starts_it_blocks_them(make) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        housekeeper = make()  # Its threads inherit that.
        run = start(housekeeper, Task("sleeper", command=["sleep", "1000"]))
        eventually(lambda: run.group)
        asked = time.monotonic()
        housekeeper.cancel("sleeper")
        assert ended(run).status is Status.CANCELLED
        assert time.monotonic() - asked < hk.TERM_TO_KILL
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_command_is_not_taken_for_a_success_where_nobody_hears_how_it_ends(make) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        run = ended(start(make(), Task("deaf", command="exit 7")))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert run.status is Status.FAILED
    assert "the process ignores SIGCHLD" in run.note


def test_a_command_whose_end_somebody_else_hears_is_taken_for_no_success(make) -> None:
    def hear_of_all() -> None:
        while not over.wait(0.001):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    over, housekeeper = threading.Event(), make(Task("deaf", command="exit 7"))
    hearing = [threading.Thread(target=hear_of_all) for _ in range(4)]
    for each in hearing:
        each.start()
    try:
        runs = [ended(housekeeper.run_task_manually("deaf", wait=False)) for _ in range(30)]
        for _ in range(30):
            with pytest.raises(hk.CommandFailed):
                Task("deaf", command="exit 7")()
    finally:
        over.set()
        for each in hearing:
            each.join()
    assert {run.status for run in runs} == {Status.FAILED}


def test_it_is_told_that_nobody_knows_how_a_command_ended(make, monkeypatch) -> None:
    exit_code_of = hk.exit_code_of

    def heard_by_another(process: Any, *, wait: bool = False) -> int | None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0 if wait else os.WNOHANG)
        return exit_code_of(process, wait=wait)

    monkeypatch.setattr(hk, "exit_code_of", heard_by_another)
    run = ended(start(make(), Task("deaf", command="exit 0")))
    assert (run.status, run.note[:34]) == (Status.FAILED, "how the command ended is not known")
    with pytest.raises(hk.CommandFailed, match="a handler of SIGCHLD"):
        Task("deaf", command="exit 0")()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_a_zombie_that_nobody_waits_for_does_not_hold_a_command(make) -> None:
    libc, subreaper = ctypes.CDLL(None), 36
    libc.prctl(subreaper, 1)  # What loses its parent becomes a child of this very process.
    try:
        housekeeper = make()
        run = start(housekeeper, Task("parent", command="sleep 100 & echo pid $!; wait"))
        eventually(lambda: pids_in(run.buffer.text()))
        asked = time.monotonic()
        housekeeper.cancel("parent")
        assert ended(run).status is Status.CANCELLED
        assert time.monotonic() - asked < hk.TERM_TO_KILL / 2
        os.waitpid(pids_in(run.output)[0], 0)
    finally:
        libc.prctl(subreaper, 0)


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("code", "note"),
    [
        (3, "the task called sys.exit(3)"),
        (
            "no postgresql://app:hunter2@db",
            "the task called sys.exit('no postgresql://app:***@db')",
        ),
        (Unprintable(), "its text cannot be shown"),
    ],
)
def test_what_a_script_says_as_it_exits_is_kept_without_secrets(make, code, note: str) -> None:
    run = ended(start(make(), Task("leaves", lambda: sys.exit(code))))
    assert (run.status, run.note) == (Status.FAILED, note)


@pytest.mark.parametrize(
    "statement",
    [
        "hk.mask_secrets('a' * 1_000_000 + ' http://x')",
        "hk.CUT_PASSWORD.sub('', 'a' * 1_000_000)",
        "hk.environ_of('GET / HTTP/1.0\\r\\nA:' + ' ' * 16_000 + '\\x01')",
    ],
)
def test_no_text_that_somebody_else_wrote_makes_a_search_take_for_ever(statement: str) -> None:
    # In a process of its own, which can be ended: a search lets no other thread go on.
    code = f"import housekeeper as hk\ntry: {statement}\nexcept hk.Refusal: pass"
    subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=True)


def new_run(task: Task, **values: Any) -> hk.LiveRun:
    """Return a run that no ledger knows."""
    values = {"clock": hk.SystemClock(), "key": f"/{task.name}", "id": "1", **values}
    return hk.LiveRun(definition=task, reason=hk.Reason.MANUAL, **values)


def attempt(run: hk.LiveRun, number: int = 1) -> hk.LiveRun:
    """Make an attempt of a run in this thread."""
    assert run.begin_attempt(number)
    hk.make_attempt(run.definition, run, None, None)
    return run


def in_a_thread(function: Callable[[], object]) -> None:
    """Call a function in another thread, and wait for its end."""
    helper = threading.Thread(target=function)
    helper.start()
    helper.join(PATIENCE)
    assert not helper.is_alive()


def test_a_timeout_that_is_late_does_not_break_into_the_next_attempt() -> None:
    see_to_it: list[Any] = []

    def work() -> None:
        if run.attempt == 1:
            see_to_it.append(run.stop(Status.TIMED_OUT, "it ran longer than its timeout", 1))
            return
        in_a_thread(see_to_it[0])
        sum(range(1_000_000))

    run = new_run(Task("tried-again", work))
    assert attempt(run).status is Status.TIMED_OUT
    run.await_retry()
    assert attempt(run, 2).status is Status.SUCCEEDED


def test_a_command_that_is_cancelled_just_before_it_starts_ends_as_soon_as_it_gets_sigterm(
    make, monkeypatch
) -> None:
    monkeypatch.setattr(hk, "TERM_TO_KILL", 4.0)
    inside, cancelled = threading.Event(), threading.Event()

    @contextmanager
    def surroundings() -> Iterator[None]:
        inside.set()
        assert cancelled.wait(PATIENCE)
        yield

    housekeeper = make(around_run=surroundings)
    run = start(housekeeper, Task("early", command="sleep 1000"))
    assert inside.wait(PATIENCE)
    housekeeper.cancel("early")
    eventually(lambda: run.cancelled)
    cancelled.set()
    before = time.monotonic()
    assert ended(run).status is Status.CANCELLED
    assert time.monotonic() - before < hk.TERM_TO_KILL


def test_what_a_command_leaves_behind_in_its_group_ends_with_it(make) -> None:
    housekeeper = make(Task("leaves", command="echo pid $$; sleep 1000 & echo pid $!"))
    run = housekeeper.run_task_manually("leaves")
    assert len(pids_in(run.output)) == 2
    assert_gone(*pids_in(run.output))


def test_a_command_that_fills_the_pipe_does_not_block(make) -> None:
    housekeeper = make(Task("full", command="yes 0123456789 | head -c 3000000; echo end >&2"))
    run = housekeeper.run_task_manually("full")
    assert run.status is Status.SUCCEEDED
    assert run.output.endswith("end\n")


def test_a_command_that_never_stops_printing_can_be_cancelled(make) -> None:
    housekeeper = make()
    run = start(housekeeper, Task("yes", command="echo pid $$; exec yes"))
    eventually(lambda: "y\n" in run.buffer.text())
    housekeeper.cancel("yes")
    assert ended(run).status is Status.CANCELLED
    assert_gone(*pids_in(run.output))


@pytest.mark.parametrize("ending", ["exit", "cancel"])
def test_a_daemon_that_keeps_the_pipe_open_does_not_hold_the_run(
    make, tmp_path: Path, ending: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    # The command goes on only when the daemon has left its group.
    fork = "setsid sh -c 'echo pid $$; echo up > pipe; exec sleep 1000' & read word < pipe"
    housekeeper = make()
    task = Task(
        "forks",
        command=f"{fork}; echo word $word; {'exit 0' if ending == 'exit' else 'sleep 1000'}",
        cwd=tmp_path,
    )
    run = start(housekeeper, task)
    try:
        if ending == "cancel":
            eventually(lambda: "word up" in run.buffer.text())
            housekeeper.cancel("forks")
        ended(run)
        assert run.status is (Status.SUCCEEDED if ending == "exit" else Status.CANCELLED)
        assert "word up" in run.output
        os.kill(pids_in(run.output)[0], 0)  # the daemon is left alone
    finally:
        for pid in pids_in(run.buffer.text()):
            os.kill(pid, 9)
    assert_untouched(housekeeper)


# Bad input.


@pytest.mark.parametrize(
    ("command", "cwd", "words"),
    [
        (["/no/such/program", "--now"], None, "'/no/such/program' could not be started"),
        ("no-such-program --now", None, "127: .*no-such-program"),
        ("true", "/no/such/folder", "could not be started in /no/such/folder"),
        (["/"], None, "could not be started: Permission denied"),
        ("kill -SEGV $$", None, "ended by SIGSEGV"),
        ("echo last words; kill -KILL $$", None, "ended by SIGKILL: last words"),
    ],
)
def test_a_command_that_cannot_be_started_or_is_killed_is_a_failed_run_that_says_so(
    make, command, cwd: str | None, words: str
) -> None:
    housekeeper = make(Task("broken", command=command, cwd=cwd))
    with pytest.raises(hk.CommandFailed, match=words):
        housekeeper.run_task_manually("broken")
    row = row_of(housekeeper, "broken")
    assert row.status is Status.FAILED
    assert_untouched(housekeeper)


def test_two_hundred_megabytes_without_a_newline_are_cut_and_take_no_memory(make) -> None:
    housekeeper = make(
        Task("flood", command="head -c 200000000 /dev/zero | tr '\\0' x; echo; echo the end")
    )
    tracemalloc.start()
    try:
        run = ended(housekeeper.run_task_manually("flood", wait=False), within=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert run.status is Status.SUCCEEDED
    assert peak < 4_000_000
    assert len(run.output) < 20_000
    assert "xxx [... line cut ...]\nthe end\n" in run.output


def test_a_long_line_is_kept_to_its_limit_and_the_next_lines_are_kept_whole(make) -> None:
    longest = hk.Output.LONGEST
    script = f"print('a' * {longest}); print('b' * {longest + 1}); print('c' * 200000); print('d')"
    housekeeper = make(Task("long", command=[sys.executable, "-c", script]))
    output = housekeeper.run_task_manually("long").output
    cut = " [... line cut ...]"
    lines = ["a" * longest, "b" * longest + cut, "c" * longest + cut, "d"]
    assert output.splitlines() == lines


def test_a_password_that_the_cut_of_a_line_parts_from_its_at_is_masked(make) -> None:
    filler = "x" * (hk.Output.LONGEST - 30)
    line = f"{filler} postgres://app:geheim-und-so-weiter@host/db"
    housekeeper = make(Task("long", command=["echo", line]))
    output = housekeeper.run_task_manually("long").output
    assert output == f"{filler} postgres://app:*** [... line cut ...]\n"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://app:geheim@host/db", "postgres://app:***@host/db"),
        ("redis://:geheim@host", "redis://:***@host"),
        ("two amqp://a:b@c and http://d:e@f", "two amqp://a:***@c and http://d:***@f"),
        ("host=db password=geheim user=app", "host=db password=*** user=app"),
        ("password = 'ge heim\\' x' user=app", "password = *** user=app"),
        ("http://host/?user=a&PASSWORD=geheim&x=1", "http://host/?user=a&PASSWORD=***&x=1"),
        ('connect(password="ge heim\\" x", port=1)', "connect(password=***, port=1)"),
        ('PGPASSWORD="geheim" pg_dump', "PGPASSWORD=*** pg_dump"),
        ('"password=" + secret)\n"', '"password=" + secret)\n"'),
        ("no secret: http://host:80/path and a@b", "no secret: http://host:80/path and a@b"),
    ],
)
def test_secrets_in_dsns_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert hk.mask_secrets(text) == masked


def test_bytes_that_are_not_utf_8_are_shown_as_escapes(make) -> None:
    housekeeper = make(Task("latin", command=r"printf 'caf\351 \303\251 \377\376\n'; exit 1"))
    with pytest.raises(hk.CommandFailed, match=r"caf\\xe9"):
        housekeeper.run_task_manually("latin")
    assert row_of(housekeeper, "latin").output == "caf\\xe9 é \\xff\\xfe\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout 0 is not a number of seconds above 0"),
        ({"timeout": -1}, "timeout -1 is not"),
        ({"timeout": float("nan")}, "timeout nan is not"),
        ({"timeout": "5"}, "timeout '5' is not"),
        ({"retries": -1}, "retries -1 is not"),
        ({"retries": 1.5}, "retries 1.5 is not"),
        ({"retry_delay": -1}, "retry_delay -1 is not"),
        ({"command": ""}, "neither a shell line nor a list"),
        ({"command": []}, "neither a shell line nor a list"),
        ({"command": ["ls", 1]}, "neither a shell line nor a list"),
        ({"command": "ls \0"}, "without NULs"),
        ({"command": "ls \ud800"}, "neither a shell line nor a list"),
        ({"command": "ls", "cwd": "\ud800"}, "is not a path"),
        ({"command": "ls", "env": {"A": "\ud800"}}, "env="),
        ({"command": "ls", "description": b"lists"}, "description b'lists' is not a text"),
        ({"command": "ls", "env": {"A": 1}}, "env="),
    ],
)
def test_what_could_never_run_is_refused_when_the_task_is_made(options, words: str) -> None:
    run = None if "command" in options else (lambda: None)
    with pytest.raises(hk.ConfigurationError, match=f"Task 'odd': .*{words}"):
        Task("odd", run, **options)


class Abrupt(BaseException):
    """What no library expects."""


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (SystemExit(3), "the task called sys.exit(3)"),
        (SystemExit("no disk"), "the task called sys.exit('no disk')"),
        (SystemExit(), "the task called sys.exit(None)"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (Abrupt("oh"), "Abrupt: oh"),
    ],
)
def test_whatever_a_task_raises_is_a_failed_run_and_the_worker_lives_on(
    make, error: BaseException, note: str
) -> None:
    def fail() -> None:
        raise error

    housekeeper = make(Task("abrupt", fail), max_workers=1)
    with pytest.raises(RunFailed) as failure:
        housekeeper.run_task_manually("abrupt")
    assert failure.value.run.note == note
    row = row_of(housekeeper, "abrupt")
    assert (row.status, row.note) == (Status.FAILED, note)
    assert "in fail" in row.error
    assert_untouched(housekeeper)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raise_unprintable() -> None:
    raise Unprintable


def raise_with_a_surrogate() -> None:
    raise OSError("cannot read caf\udce9")


def log_a_surrogate() -> None:
    logging.getLogger("reader").warning("cannot read caf\udce9")
    raise OSError


def report_odd_progress() -> None:
    current_run().progress(decimal.Decimal("0.5"))
    raise OSError


def recurse() -> None:
    recurse()


@pytest.mark.parametrize(
    "function",
    [
        raise_unprintable,
        raise_with_a_surrogate,
        log_a_surrogate,
        report_odd_progress,
        recurse,
    ],
)
def test_a_failure_with_a_text_that_cannot_be_shown_or_stored_is_recorded_all_the_same(
    make, function: Callable[[], None], monkeypatch
) -> None:
    # pytest's workers cannot send half a surrogate pair to each other in a captured log.
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    housekeeper = make()
    run = start(housekeeper, Task("odd", function))
    assert ended(run, within=3.0).status is Status.FAILED
    assert row_of(housekeeper, "odd").status is Status.FAILED
    assert_untouched(housekeeper)


def test_a_task_that_swallows_its_timeout_stays_running_and_locked_until_it_really_ends(
    make,
) -> None:
    swallowed, let_go = threading.Event(), threading.Event()

    def swallow() -> None:
        try:
            while True:
                pass
        except RunTimedOut:
            swallowed.set()
        assert let_go.wait(PATIENCE)

    housekeeper = make()
    run = start(housekeeper, Task("deaf", swallow, timeout=0.1))
    assert swallowed.wait(PATIENCE)
    eventually(lambda: housekeeper.get_task_status("deaf")["stop_asked_at"])
    assert housekeeper.get_task_status("deaf")["running"]
    assert row_of(housekeeper, "deaf").status is Status.RUNNING
    with pytest.raises(hk.AlreadyRunning):
        housekeeper.run_task_manually("deaf")
    let_go.set()
    ended(run)
    row = row_of(housekeeper, "deaf")
    assert (row.status, row.note) == (Status.TIMED_OUT, "it ran longer than its timeout of 0.1 s")
    assert_untouched(housekeeper)


# Timeouts.


def test_at_the_timeout_the_event_is_set_callbacks_are_called_and_the_loop_is_interrupted(
    make,
) -> None:
    seen: list[object] = []
    called = threading.Event()

    def spin_in_circles() -> None:
        while True:
            pass

    def work() -> None:
        run = current_run()
        seen.append(run.deadline)
        run.on_cancel(called.set)
        try:
            spin_in_circles()
        except Exception:  # must not catch it
            seen.append("caught")
        except RunTimedOut:
            seen.append((run.cancelled, called.wait(PATIENCE)))
            raise

    housekeeper = make(Task("busy", work, timeout=0.2))
    with pytest.raises(RunFailed, match="timed_out") as failure:
        housekeeper.run_task_manually("busy")
    assert isinstance(failure.value.__cause__, RunTimedOut)
    row = row_of(housekeeper, "busy")
    assert seen[1:] == [(True, True)]
    assert row.status is Status.TIMED_OUT
    assert 0.2 <= (row.duration or 0) < 5.0
    note, first, *_ = row.error.splitlines()
    assert note.endswith("it was at")
    assert first.endswith("in work"), "it begins in the task's own code"
    assert row.error.count("in spin_in_circles") == 1, "the traceback would say it again"


def test_a_timeout_reaches_a_task_that_waits_or_checks(make) -> None:
    def check() -> None:
        current_run().wait(PATIENCE)
        current_run().check_cancelled()

    housekeeper = make(Task("checks", check, timeout=0.1))
    with pytest.raises(RunFailed):
        housekeeper.run_task_manually("checks")
    assert row_of(housekeeper, "checks").status is Status.TIMED_OUT


def test_each_attempt_has_its_own_timeout_and_waits_for_its_delay(make) -> None:
    began: list[tuple[float, int, bool]] = []
    over: list[float] = []

    def work() -> None:
        run = current_run()
        began.append((time.monotonic(), run.attempt, run.cancelled))
        try:
            while True:
                pass
        finally:
            over.append(time.monotonic())

    housekeeper = make()
    run = start(housekeeper, Task("twice", work, timeout=0.1, retries=1, retry_delay=0.5))
    assert ended(run).status is Status.TIMED_OUT
    assert [each[1:] for each in began] == [(1, False), (2, False)]
    assert row_of(housekeeper, "twice").attempt == 2
    assert began[1][0] - over[0] >= 0.45


def test_a_late_call_back_of_one_attempt_calls_nothing_of_the_next(make) -> None:
    called: list[str] = []
    run = new_run(Task("twice", lambda: None))
    run.begin_attempt(1)
    run.on_cancel(lambda: called.append("the first attempt's"))
    call_back = run.stop(Status.TIMED_OUT, "too long", attempt=1)
    assert call_back is not None
    run.settle()
    run.await_retry()
    run.on_cancel(lambda: called.append("the second attempt's"))
    call_back()
    assert called == []


def test_a_retry_after_a_timeout_can_succeed_and_leaves_no_trace_of_it(make) -> None:
    def work() -> None:
        while current_run().attempt == 1:
            pass

    housekeeper = make()
    run = start(housekeeper, Task("second", work, timeout=0.2, retries=1, retry_delay=0))
    ended(run)
    row = row_of(housekeeper, "second")
    assert (row.status, row.attempt, row.note, row.error) == (Status.SUCCEEDED, 2, "", "")


def test_the_pool_survives_two_hundred_timeouts_that_race_with_the_end(make) -> None:
    dice = random.Random(7)
    workers = 4

    def spin(seconds: float) -> Callable[[], None]:
        def work() -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pass

        return work

    housekeeper = make(max_workers=workers)
    runs = []
    for number in range(200):
        seconds = PATIENCE if number % 8 == 0 else dice.uniform(0.002, 0.018)
        runs.append(start(housekeeper, Task(f"racer-{number}", spin(seconds), timeout=0.01)))
    for run in runs:
        ended(run)
    rows = housekeeper.history(limit=1000)
    counts = Counter(row.status for row in rows)
    assert counts[Status.SUCCEEDED] + counts[Status.TIMED_OUT] == len(rows) == 200
    assert counts[Status.TIMED_OUT] >= 25
    assert {run.status for run in runs[::8]} == {Status.TIMED_OUT}
    together = threading.Barrier(workers)
    after = [
        start(housekeeper, Task(f"after-{number}", lambda: together.wait(PATIENCE)))
        for number in range(workers)
    ]
    assert {ended(run).status for run in after} == {Status.SUCCEEDED}


def test_a_run_that_ended_is_never_interrupted_nor_asked_to_stop(make) -> None:
    housekeeper = make(Task("first", lambda: None, timeout=60), max_workers=1)
    first = housekeeper.run_task_manually("first")
    answers: list[object] = []

    def work() -> None:
        answers.append(first.stop(Status.TIMED_OUT, "too late", first.attempt))
        answers.append(first.stop(Status.CANCELLED, "too late"))
        for _ in range(100_000):
            pass

    assert ended(start(housekeeper, Task("second", work))).status is Status.SUCCEEDED
    assert answers == [None, None]
    assert (first.status, first.note) == (Status.SUCCEEDED, "")


def test_a_run_that_ended_just_before_its_timeout_has_succeeded_without_a_note(
    make, monkeypatch
) -> None:
    original = hk.make_attempt

    def make_attempt(task: Task, run: hk.LiveRun, *surroundings: Any) -> None:
        original(task, run, *surroundings)
        run.wait(1.0)  # the timeout passes before anybody goes on

    monkeypatch.setattr(hk, "make_attempt", make_attempt)
    housekeeper = make()
    ended(start(housekeeper, Task("photo-finish", lambda: None, timeout=0.2)))
    row = row_of(housekeeper, "photo-finish")
    assert (row.status, row.note, row.error) == (Status.SUCCEEDED, "", "")


TRACED = """
import sys, threading
import housekeeper as hk

def note(*_):
    return note

def quick():
    getattr(sys, sys.argv[1])(note)
    while True:
        pass

def many():
    getattr(sys, sys.argv[1])(note)
    for number in range(200_000):
        if hk.current_run().cancelled:
            break

housekeeper = hk.create_housekeeper(tasks_dir=None, ledger="memory://", max_workers=2)
housekeeper.initialize()
for number in range(20):
    housekeeper.register_task(hk.Task(f"spins-{number}", quick, timeout=0.02))
    housekeeper.register_task(hk.Task(f"ends-{number}", many, timeout=0.02))
runs = [housekeeper.run_task_manually(name, wait=False) for name in housekeeper.task_names()]
assert all(run.ended.wait(20) for run in runs)
assert {run.status for run in runs} <= {"timed_out", "succeeded"}, runs
housekeeper.register_task(hk.Task("after", lambda: sum(range(100_000))))
assert housekeeper.run_task_manually("after").status == "succeeded"
print(housekeeper.shutdown())
"""


@pytest.mark.parametrize("hook", ["setprofile", "settrace"])
def test_timeouts_work_under_a_profiler_and_a_debugger(hook: str) -> None:
    # In a process of its own, because what went wrong once was a hang of the interpreter.
    done = subprocess.run(
        [sys.executable, "-c", TRACED, hook],
        cwd=Path(hk.__file__).parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-2000:]


# Cancelling.


def test_a_run_hears_that_it_was_cancelled_and_check_cancelled_raises(make) -> None:
    seen: list[object] = []
    started = threading.Event()

    def work() -> None:
        run = current_run()
        seen.extend((run.cancelled, run.wait(0.01)))
        run.check_cancelled()
        started.set()
        before = time.monotonic()
        seen.extend((run.wait(PATIENCE), run.cancelled, time.monotonic() - before < 10))
        try:
            run.check_cancelled()
        except Exception:  # must not catch it
            seen.append("caught")

    housekeeper = make()
    run = start(housekeeper, Task("hears", work))
    assert started.wait(PATIENCE)
    row = housekeeper.cancel("hears")
    assert row is not None
    assert row.id == run.id
    ended(run)
    assert seen == [False, False, True, True, True]
    assert isinstance(run.exception, RunCancelled)
    row = row_of(housekeeper, "hears")
    assert row.status is Status.CANCELLED
    assert "cancelled by" in row.note
    assert housekeeper.cancel("hears") is None


def run_and_cancel(
    housekeeper: hk.Housekeeper, work: Callable[[], object], started: threading.Event
) -> None:
    """Cancel a run that tells when it has started; its function must return."""
    run = start(housekeeper, Task("calls", work))
    assert started.wait(PATIENCE)
    housekeeper.cancel("calls")
    ended(run)
    assert (run.status, run.exception) == (Status.CANCELLED, None)


def test_on_cancel_calls_back_early_and_late_unless_taken_back_and_despite_failures(
    make, logged
) -> None:
    calls: queue.Queue[str] = queue.Queue()
    started = threading.Event()

    def fail() -> None:
        calls.put("failing")
        raise ValueError("callback")

    def work() -> None:
        run = current_run()
        run.on_cancel(lambda: calls.put("first"))
        run.on_cancel(fail)
        forget = run.on_cancel(lambda: calls.put("taken back"))
        run.on_cancel(lambda: calls.put("last"))
        forget()
        forget()  # twice is harmless
        started.set()
        assert run.wait(PATIENCE)
        assert [calls.get(timeout=PATIENCE) for _ in range(3)] == ["first", "failing", "last"]
        run.on_cancel(lambda: calls.put("late"))
        assert calls.get_nowait() == "late"

    run_and_cancel(make(), work, started)
    assert calls.empty()
    assert logged("an on_cancel callback failed")


def test_callbacks_that_raise_more_than_an_exception_do_not_keep_the_next_from_its_call(
    make, logged
) -> None:
    started, called = threading.Event(), threading.Event()

    def work() -> None:
        run = current_run()
        run.on_cancel(run.check_cancelled)
        run.on_cancel(lambda: sys.exit("no"))
        run.on_cancel(called.set)
        started.set()
        assert called.wait(PATIENCE)

    run_and_cancel(make(), work, started)
    assert logged("an on_cancel callback failed")


def test_a_cancel_in_another_process_reaches_the_run_at_its_heartbeat(
    make, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(hk, "HEARTBEAT_EVERY", 0.05)
    ledger = f"sqlite:///{tmp_path}/shared.db"
    here, there = make(ledger=ledger), make(Task("shared", lambda: None), ledger=ledger)
    woke: list[bool] = []
    run = start(here, Task("shared", lambda: woke.append(current_run().wait(PATIENCE))))
    row = there.cancel("shared")
    assert row is not None
    assert row.id == run.id
    ended(run)
    assert woke == [True]
    assert row_of(there, "shared").status is Status.CANCELLED
    assert there.runner in row_of(here, "shared").note


def test_a_run_that_ignores_its_cancel_is_shown_with_the_instant_it_was_asked(
    make, tmp_path: Path
) -> None:
    ledger = f"sqlite:///{tmp_path}/shared.db"
    started, let_go = threading.Event(), threading.Event()

    def ignore() -> None:
        started.set()
        let_go.wait(PATIENCE)

    here = make(ledger=ledger)
    there = make(Task("deaf", lambda: None), ledger=ledger)
    run = start(here, Task("deaf", ignore))
    assert started.wait(PATIENCE)
    assert here.get_task_status("deaf")["stop_asked_at"] is None
    here.cancel("deaf")
    assert here.get_task_status("deaf")["stop_asked_at"] is not None
    eventually(lambda: there.get_task_status("deaf")["stop_asked_at"] is not None)
    assert there.get_task_status("deaf")["running"] is True
    assert row_of(there, "deaf").stop_asked_at is not None
    let_go.set()
    assert ended(run).status is Status.CANCELLED


def test_a_cancel_ends_a_run_that_waits_for_its_retry(make) -> None:
    attempts: list[int] = []

    def work() -> None:
        attempts.append(current_run().attempt)
        raise OSError("not yet")

    housekeeper = make(max_workers=1)
    run = start(housekeeper, Task("retries", work, retries=3, retry_delay=600))
    # The only worker is free for another task when the first attempt is over.
    ended(start(housekeeper, Task("another", lambda: None)))
    housekeeper.cancel("retries")
    assert ended(run).status is Status.CANCELLED
    assert attempts == [1]
    assert_untouched(housekeeper)


def test_a_cancel_never_stops_the_run_that_comes_next(make, monkeypatch) -> None:
    monkeypatch.setattr(hk, "HEARTBEAT_EVERY", 0.05)
    started, called, let_go, called_back = (threading.Event() for _ in range(4))

    def hold() -> None:
        called.set()
        let_go.wait(PATIENCE)
        called_back.set()

    def work() -> None:
        current_run().on_cancel(hold)
        started.set()
        assert called.wait(PATIENCE), "a run that has ended is not called back any more"

    def work_again() -> None:
        let_go.set()
        assert called_back.wait(PATIENCE)
        current_run().wait(0.5)  # ten heartbeats

    housekeeper = make()
    first = start(housekeeper, Task("again", work))
    assert started.wait(PATIENCE)
    housekeeper.cancel("again")
    ended(first)
    housekeeper.register_task(Task("again", work_again), replace=True)
    second = ended(housekeeper.run_task_manually("again", wait=False))
    assert (second.status, second.note) == (Status.SUCCEEDED, "")
    assert row_of(housekeeper, "again").stop_asked_at is None


def test_a_cancel_concerns_no_task_whose_name_only_begins_alike(make) -> None:
    housekeeper = make(Task("sync", lambda: None))
    run = start(housekeeper, Task("sync-all", lambda: current_run().wait(PATIENCE)))
    assert housekeeper.cancel("sync") is None
    assert not run.cancelled
    assert housekeeper.cancel("sync-all") is not None
    ended(run)


# Output.


def test_what_eight_parallel_tasks_log_ends_in_their_own_runs(make) -> None:
    together = threading.Barrier(8)
    log = logging.getLogger("parallel")
    log.setLevel(logging.INFO)

    def talk(name: str, numbers: range) -> None:
        for number in numbers:
            log.info("%s %d", name, number)

    def worker(name: str) -> Callable[[], None]:
        def work() -> None:
            together.wait(PATIENCE)
            talk(name, range(250))
            context = contextvars.copy_context()
            helper = threading.Thread(target=context.run, args=(talk, name, range(250, 500)))
            helper.start()
            helper.join()

        return work

    housekeeper = make(max_workers=8)
    names = [f"t{number}" for number in range(8)]
    runs = [start(housekeeper, Task(name, worker(name))) for name in names]
    for name, run in zip(names, runs, strict=True):
        assert ended(run).status is Status.SUCCEEDED, run.error
        lines = [
            line.partition("parallel: ")[2]
            for line in row_of(housekeeper, name).output.splitlines()
        ]
        assert lines == [f"{name} {number}" for number in range(500)]


def test_a_kept_line_begins_with_its_instant_in_utc_wherever_the_host_is(
    make, monkeypatch, request
) -> None:
    request.addfinalizer(time.tzset)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    request.addfinalizer(monkeypatch.undo)
    time.tzset()
    log = Task("log", lambda: logging.getLogger("here").warning("it began"))
    stamp, _, rest = make(log).run_task_manually("log").output.partition(" ")
    assert rest == "WARNING here: it began\n"
    assert re.fullmatch("[0-9-]{10}T[0-9:]{8}[.][0-9]{3}Z", stamp)
    at = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    assert abs((at - datetime.now(timezone.utc)).total_seconds()) < PATIENCE


def test_what_is_logged_outside_a_run_is_kept_by_none(make) -> None:
    log = logging.getLogger("outside")
    started, logged_outside = threading.Event(), threading.Event()

    def work() -> None:
        log.warning("inside")
        # A thread without a copy of the context does not belong to the run.
        stranger = threading.Thread(target=log.warning, args=("a stranger",))
        stranger.start()
        stranger.join()
        started.set()
        assert logged_outside.wait(PATIENCE)

    run = start(make(), Task("inside", work))
    assert started.wait(PATIENCE)
    log.warning("outside")
    logged_outside.set()
    output = ended(run).output
    assert output.endswith("WARNING outside: inside\n")
    assert output.count("\n") == 1


def test_of_a_long_output_head_and_tail_are_kept_and_the_cut_is_marked(make) -> None:
    def work() -> None:
        for number in range(5000):
            logging.getLogger("long").warning("line %d", number)

    housekeeper = make(Task("long", work))
    housekeeper.run_task_manually("long")
    output = row_of(housekeeper, "long").output
    assert output.splitlines()[0].endswith("line 0")
    assert output.endswith("line 4999\n")
    head, cut, tail = output.partition("\n[... ")
    assert cut
    assert (len(head), len(tail.partition("...]\n")[2])) == (4 * 1024, 28 * 1024)
    assert "characters cut ...]\n" in tail
    assert "line 2500" not in output


def test_passwords_in_urls_are_masked_in_output_note_and_error(make) -> None:
    urls = [
        "postgresql://bob:hunter2@db.example.org/main",
        "redis://:hunter2@localhost:6379/0",
        "postgresql+psycopg2://bob:hunter2@db/main?sslmode=require",
        "https://bob:hunter2@example.org",
    ]

    def work() -> None:
        for url in urls:
            logging.getLogger("db").error("cannot reach %s", url)
        raise OSError(f"cannot reach {urls[0]}")

    housekeeper = make(
        Task("leaky", work), Task("shell", command=f"echo {urls[0]}; echo {urls[1]}; exit 1")
    )
    for name in ("leaky", "shell"):
        with pytest.raises((OSError, hk.CommandFailed)):
            housekeeper.run_task_manually(name)
        row = row_of(housekeeper, name)
        assert "hunter2" not in row.output + row.note + row.error
        assert "postgresql://bob:***@db.example.org/main" in row.output
        assert "bob:***@db.example.org/main" in row.note
    assert "bob:***@db.example.org/main" in row_of(housekeeper, "leaky").error


@pytest.mark.parametrize("swallows", [True, False])
def test_passwords_in_the_stack_of_a_run_that_timed_out_are_masked(make, swallows: bool) -> None:
    def work() -> None:
        try:
            while "postgresql://bob:hunter2@db/main":
                pass
        except RunTimedOut:
            if not swallows:
                raise

    housekeeper = make()
    ended(start(housekeeper, Task("leaky", work, timeout=0.1)))
    row = row_of(housekeeper, "leaky")
    assert "in work" in row.error
    assert "hunter2" not in row.error


def test_a_record_factory_of_the_application_keeps_working(make) -> None:
    log = logging.getLogger("factory")
    records: list[logging.LogRecord] = []

    def stamp(word: str) -> None:
        existing = logging.getLogRecordFactory()

        def factory(*args: Any, **values: Any) -> logging.LogRecord:
            record = existing(*args, **values)
            setattr(record, word, True)
            return record

        logging.setLogRecordFactory(factory)

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    housekeeper = make(Task("logs", lambda: log.warning("hello")))
    keeper = Keeper()
    log.addHandler(keeper)
    try:
        stamp("before")
        housekeeper.run_task_manually("logs")
        stamp("after")
        run = housekeeper.run_task_manually("logs")
        log.warning("outside")
    finally:
        log.removeHandler(keeper)
    assert run.output.count("hello") == 1
    assert [hasattr(record, "before") for record in records] == [True] * 3
    assert [hasattr(record, "after") for record in records] == [False, True, True]


def test_a_formatter_of_the_application_still_formats_tracebacks_its_own_way(make) -> None:
    texts: list[str] = []

    class Short(logging.Formatter):
        def formatException(self, info: Any) -> str:  # noqa: N802 - logging's name
            return f"short form of {info[0].__name__}"

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(self.format(record))

    def work() -> None:
        try:
            raise OSError("disk")
        except OSError:
            log.exception("it failed")

    log, keeper = logging.getLogger("formatted"), Keeper()
    keeper.setFormatter(Short())
    log.addHandler(keeper)
    try:
        run = make(Task("logs", work)).run_task_manually("logs")
    finally:
        log.removeHandler(keeper)
    assert "Traceback" in run.output
    assert texts == ["it failed\nshort form of OSError"]


# Progress.


def test_progress_is_seen_while_the_task_runs_and_in_its_history(make) -> None:
    said, let_go = threading.Event(), threading.Event()

    def work() -> None:
        current_run().progress(1200, 5000, "rows")
        said.set()
        assert let_go.wait(PATIENCE)
        current_run().progress(5000, 5000, "rows")

    housekeeper = make()
    run = start(housekeeper, Task("counts", work))
    assert said.wait(PATIENCE)
    shown = housekeeper.get_task_status("counts")["progress"]
    assert shown == (1200, 5000, "rows")
    assert str(shown) == "1,200 of 5,000 rows"
    assert [each["progress"] for each in housekeeper.list_tasks()] == [(1200, 5000, "rows")]
    let_go.set()
    ended(run)
    assert row_of(housekeeper, "counts").progress_made == (5000, 5000, "rows")
    assert housekeeper.get_task_status("counts")["progress"] is None


def test_progress_is_seen_by_another_process_after_a_heartbeat(
    make, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(hk, "HEARTBEAT_EVERY", 0.05)
    ledger = f"sqlite:///{tmp_path}/shared.db"
    let_go = threading.Event()

    def work() -> None:
        current_run().progress(7)
        assert let_go.wait(PATIENCE)

    here, there = make(ledger=ledger), make(Task("counts", lambda: None), ledger=ledger)
    run = start(here, Task("counts", work))
    eventually(lambda: there.get_task_status("counts")["progress"] == (7, None, ""))
    let_go.set()
    ended(run)


# Surroundings.


def test_around_run_wraps_each_attempt_and_sees_what_it_raised(make) -> None:
    events: list[str] = []

    class Around:
        def __enter__(self) -> None:
            events.append(f"enter {current_run().attempt}")

        def __exit__(self, kind: type | None, *_: object) -> bool:
            events.append(f"exit {kind and kind.__name__}")
            return True  # it may not swallow what the task raised

    def work() -> None:
        events.append("work")
        if current_run().attempt == 1:
            raise OSError("not yet")

    housekeeper = make(around_run=Around)
    run = start(housekeeper, Task("wrapped", work, retries=1, retry_delay=0))
    assert ended(run).status is Status.SUCCEEDED
    assert events == ["enter 1", "work", "exit OSError", "enter 2", "work", "exit None"]


@pytest.mark.parametrize("where", ["factory", "enter", "exit", "exit after a failure"])
def test_a_failing_around_run_is_logged_and_changes_no_outcome(make, logged, where: str) -> None:
    worked: list[bool] = []

    class Around:
        def __init__(self) -> None:
            if where == "factory":
                raise ValueError("surroundings")

        def __enter__(self) -> None:
            if where == "enter":
                raise ValueError("surroundings")

        def __exit__(self, *_: object) -> None:
            if where.startswith("exit"):
                raise ValueError("surroundings")

    def work() -> None:
        worked.append(True)
        if where == "exit after a failure":
            raise OSError("disk")

    housekeeper = make(around_run=Around)
    run = ended(start(housekeeper, Task("wrapped", work)))
    assert worked == [True]
    if where == "exit after a failure":
        assert (run.status, run.note) == (Status.FAILED, "OSError: disk")
    else:
        assert (run.status, run.note) == (Status.SUCCEEDED, "")
    assert logged("around_run failed")


@pytest.mark.parametrize("where", ["factory", "enter", "exit"])
def test_a_timeout_interrupts_an_around_run_that_hangs(make, where: str) -> None:
    def hang(place: str) -> None:
        while place == where:
            time.sleep(0.001)

    @contextmanager
    def around() -> Iterator[None]:
        hang("enter")
        yield
        hang("exit")

    def factory() -> Any:
        hang("factory")
        return around()

    run = start(make(around_run=factory), Task("wrapped", lambda: None, timeout=0.1))
    assert ended(run).status is Status.TIMED_OUT


def test_what_a_task_sets_in_its_context_is_not_there_for_the_next_one(make) -> None:
    def careless() -> None:
        decimal.getcontext().prec = 1

    housekeeper = make(Task("careless", careless), max_workers=1)
    housekeeper.run_task_manually("careless")
    run = start(housekeeper, Task("exact", lambda: decimal.Decimal(1) / 8))
    assert ended(run).note == "0.125"


@pytest.mark.parametrize("where", ["filter", "factory", "exit"])
def test_logging_that_fails_loses_no_retry_no_note_and_no_start(make, where: str) -> None:
    def fail(*_: object, **__: object) -> Any:
        if where == "exit":
            sys.exit(1)
        raise ValueError("no record")

    def work() -> None:
        raise OSError("disk")

    factory = logging.getLogRecordFactory()
    if where == "factory":
        logging.setLogRecordFactory(fail)
    else:
        hk.logger.addFilter(fail)
    try:
        run = start(make(), Task("fails", work, retries=1, retry_delay=0))
        assert ended(run).note == "OSError: disk"
        assert run.attempt == 2
    finally:
        logging.setLogRecordFactory(factory)
        hk.logger.removeFilter(fail)


def test_a_log_line_of_housekeeper_names_the_place_that_it_comes_from(make, caplog) -> None:
    caplog.set_level(logging.INFO, "housekeeper")
    make()
    (record,) = [each for each in caplog.records if "started by" in each.getMessage()]
    assert record.funcName == "_tell_start"


def test_on_finish_gets_each_run_once_it_is_recorded_and_its_failure_changes_nothing(
    make, logged
) -> None:
    finished: queue.Queue[tuple[str, Status, Status]] = queue.Queue()

    def on_finish(run: hk.Run) -> None:
        finished.put((run.task, run.status, row_of(housekeeper, run.task).status))
        raise ValueError("webhook")

    housekeeper = make(
        Task("good", lambda: None), Task("bad", command="exit 1"), on_finish=on_finish
    )
    housekeeper.run_task_manually("good")
    with pytest.raises(hk.CommandFailed):
        housekeeper.run_task_manually("bad")
    assert [finished.get(timeout=PATIENCE) for _ in range(2)] == [
        ("good", Status.SUCCEEDED, Status.SUCCEEDED),
        ("bad", Status.FAILED, Status.FAILED),
    ]
    assert finished.empty()
    assert logged("on_finish failed")


def test_an_on_finish_can_wait_for_a_run_although_all_workers_are_in_one(make) -> None:
    def follow(run: hk.Run) -> None:
        if run.task.startswith("first"):
            meeting.wait(PATIENCE)
            notes.append(housekeeper.run_task_manually(f"then-{run.task}").note)

    meeting, notes = threading.Barrier(2), list[str]()
    names = ("first-a", "first-b")
    tasks = [Task(f"{then}{name}", lambda: "done") for name in names for then in ("", "then-")]
    housekeeper = make(*tasks, max_workers=2, on_finish=follow)
    for run in [housekeeper.run_task_manually(name, wait=False) for name in names]:
        ended(run)
    assert notes == ["done", "done"]


def test_an_on_finish_that_exits_leaves_nobody_waiting_for_the_run(make) -> None:
    housekeeper = make(on_finish=lambda run: sys.exit(1))
    run = start(housekeeper, Task("good", lambda: None))
    assert ended(run, within=3.0).status is Status.SUCCEEDED


def test_an_application_with_an_app_context_gives_it_to_each_run(make) -> None:
    events: list[str] = []

    class App:
        @contextmanager
        def app_context(self) -> Iterator[None]:
            events.append("pushed")
            try:
                yield
            finally:
                events.append("popped")

    app = App()
    housekeeper = make(
        Task("takes", lambda app: events.append(type(app).__name__)),
        Task("none", lambda: events.append("none")),
        app=app,
    )
    housekeeper.run_task_manually("takes")
    housekeeper.run_task_manually("none")
    assert events == ["pushed", "App", "popped", "pushed", "none", "popped"]


def test_an_app_context_that_fails_is_a_failed_run(make) -> None:
    class App:
        def app_context(self) -> None:
            raise ValueError("no context")

    worked: list[bool] = []
    housekeeper = make(Task("none", lambda: worked.append(True)), app=App())
    with pytest.raises(ValueError, match="no context"):
        housekeeper.run_task_manually("none")
    assert worked == []
    assert row_of(housekeeper, "none").status is Status.FAILED


def test_a_task_of_a_flask_application_can_use_current_app(make) -> None:
    application = flask.Flask("shop")
    seen: list[object] = []

    def work(app: flask.Flask) -> None:
        seen.extend((app is application, flask.current_app.name))
        flask.g.item = 1
        application.logger.warning("counted")

    def fresh() -> None:
        seen.append(hasattr(flask.g, "item"))

    housekeeper = make(Task("work", work), Task("fresh", fresh), app=application)
    assert "counted" in housekeeper.run_task_manually("work").output
    housekeeper.run_task_manually("fresh")
    assert seen == [True, "shop", False]


# Runs by hand.


def test_a_task_that_has_nothing_to_do_is_recorded_as_skipped_with_its_reason(make) -> None:
    def nothing() -> None:
        raise hk.SkipRun("DATABASE_URL is not set")

    housekeeper = make(Task("nothing", nothing, retries=2, retry_delay=0))
    run = housekeeper.run_task_manually("nothing")
    assert run.status is Status.SKIPPED
    row = row_of(housekeeper, "nothing")
    assert (row.status, row.note, row.error, row.attempt) == (
        Status.SKIPPED,
        "DATABASE_URL is not set",
        "",
        1,
    )


def test_a_subclass_of_skip_run_is_recorded_as_skipped_too(make) -> None:
    class NoDatabase(hk.SkipRun):
        pass

    def nothing() -> None:
        raise NoDatabase("no database")

    housekeeper = make(Task("nothing", nothing))
    run = ended(start(housekeeper, Task("again", nothing)))
    assert (run.status, run.note) == (Status.SKIPPED, "no database")


def test_run_task_manually_returns_the_finished_run_or_raises_what_the_task_raised(make) -> None:
    error = LookupError("no such row")

    def fail() -> None:
        raise error

    def exits() -> None:
        sys.exit(2)

    def spin() -> None:
        while True:
            pass

    housekeeper = make(
        Task("good", lambda: None),
        Task("fail", fail),
        Task("exits", exits),
        Task("spins", spin, timeout=0.1),
    )
    run = housekeeper.run_task_manually("good")
    assert (run.status, run.reason) == (Status.SUCCEEDED, hk.Reason.MANUAL)
    assert run.finished_at is not None
    with pytest.raises(LookupError) as failure:
        housekeeper.run_task_manually("fail")
    assert failure.value is error
    for name, status in (("exits", Status.FAILED), ("spins", Status.TIMED_OUT)):
        with pytest.raises(RunFailed) as failed:
            housekeeper.run_task_manually(name)
        assert (failed.value.run.task, failed.value.run.status) == (name, status)
    with pytest.raises(hk.UnknownTask, match="did you mean 'good'"):
        housekeeper.run_task_manually("goood")


def test_a_run_by_hand_inside_a_task_is_made_in_place_so_that_a_full_pool_cannot_block(
    make,
) -> None:
    threads: list[int] = []
    seen: list[object] = []
    housekeeper = make(max_workers=1)

    def inner() -> None:
        threads.append(threading.get_ident())
        logging.getLogger("inner").warning("of the inner run")
        seen.append(current_run().task)

    def failing() -> None:
        raise LookupError("inner")

    def outer() -> None:
        threads.append(threading.get_ident())
        seen.append(housekeeper.run_task_manually("inner").status)
        with pytest.raises(LookupError):
            housekeeper.run_task_manually("failing")
        with pytest.raises(hk.AlreadyRunning):
            housekeeper.run_task_manually("outer")
        seen.append(current_run().task)
        logging.getLogger("outer").warning("of the outer run")

    for task in (Task("inner", inner), Task("failing", failing), Task("outer", outer)):
        housekeeper.register_task(task)
    run = ended(housekeeper.run_task_manually("outer", wait=False))
    assert run.status is Status.SUCCEEDED, run.error
    assert seen == ["inner", Status.SUCCEEDED, "outer"]
    assert len(set(threads)) == 1
    assert "inner run" in row_of(housekeeper, "inner").output
    assert "inner run" not in run.output
    assert "outer run" in run.output
    assert_untouched(housekeeper)


def test_a_run_by_hand_that_on_finish_waits_for_needs_no_other_worker(make) -> None:
    answers: list[object] = []

    def told(run: hk.Run) -> None:
        if run.task == "outer":
            answers.append(housekeeper.run_task_manually("inner").status)

    tries: list[int] = []

    def inner() -> None:
        tries.append(current_run().attempt)
        if len(tries) == 1:
            raise LookupError("not yet")

    housekeeper = make(
        Task("inner", inner, retries=1, retry_delay=0.01), max_workers=1, on_finish=told
    )
    run = ended(start(housekeeper, Task("outer", lambda: None)))
    assert run.status is Status.SUCCEEDED, run.error
    assert (answers, tries) == ([Status.SUCCEEDED], [1, 2])
    assert_untouched(housekeeper)


@pytest.mark.parametrize("where", ["a task", "a task that a task waits for", "on_finish"])
def test_a_shutdown_from_inside_waits_for_the_other_runs_and_not_for_its_own(
    make, where: str
) -> None:
    answers: list[bool] = []
    began, asked = threading.Event(), threading.Event()

    def shut_down() -> None:
        answers.append(housekeeper.shutdown(PATIENCE))
        answers.append(other.ended.is_set())

    def outer() -> None:
        if where == "a task":
            shut_down()
        elif where != "on_finish":
            housekeeper.run_task_manually("inner")

    def told(run: hk.Run) -> None:
        if where == "on_finish" and run.task == "outer":
            shut_down()

    def long() -> None:
        began.set()
        assert asked.wait(PATIENCE)
        assert not current_run().cancelled

    housekeeper = make(Task("inner", shut_down), Task("outer", outer), on_finish=told)
    other = start(housekeeper, Task("long", long))
    assert began.wait(PATIENCE)
    ask_to_stop = housekeeper.ledger.ask_to_stop

    def note(run_id: str, reason: str, words: str) -> None:
        ask_to_stop(run_id, reason, words)
        if run_id == other.id:
            asked.set()

    housekeeper.ledger.ask_to_stop = note
    started = time.monotonic()
    run = ended(housekeeper.run_task_manually("outer", wait=False))
    eventually(lambda: len(answers) == 2)
    assert answers == [False, True]
    assert time.monotonic() - started < PATIENCE
    assert other.status is Status.SUCCEEDED, other.error
    if where == "on_finish":
        assert run.status is Status.SUCCEEDED
    else:
        assert (run.status, run.note) == (
            Status.CANCELLED,
            "it has shut down the Housekeeper that runs it",
        )


def test_a_timeout_of_the_outer_run_does_not_lose_the_end_of_a_run_made_in_place(make) -> None:
    housekeeper = make(Task("inner", lambda: None), max_workers=1)
    finish, reached = housekeeper.ledger.finish, threading.Event()

    def slow_finish(run: hk.LiveRun) -> bool:
        if run.task == "inner":
            reached.set()
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                pass
        return finish(run)

    housekeeper.ledger.finish = slow_finish
    outer = Task("outer", lambda: housekeeper.run_task_manually("inner"), timeout=0.3)
    ended(start(housekeeper, outer))
    assert reached.is_set()
    assert row_of(housekeeper, "inner").status is Status.SUCCEEDED
    assert_untouched(housekeeper)
    assert housekeeper.run_task_manually("inner").status is Status.SUCCEEDED


def test_a_second_run_by_hand_is_refused_with_the_live_run(make, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/shared.db"
    let_go = threading.Event()
    here, there = make(ledger=ledger), make(Task("long", lambda: None), ledger=ledger)
    run = start(here, Task("long", lambda: let_go.wait(PATIENCE)))
    for housekeeper in (here, there):
        with pytest.raises(hk.AlreadyRunning, match=run.id) as refused:
            housekeeper.run_task_manually("long")
        assert refused.value.run is not None
        assert refused.value.run.id == run.id
    let_go.set()
    ended(run)
    assert there.run_task_manually("long").status is Status.SUCCEEDED


# Output as a terminal shows it.


def kept(*pieces: str) -> str:
    """Return what an output keeps of texts that come one after another."""
    output = hk.Output()
    for piece in pieces:
        output.add(piece)
    return output.text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r20%\r30%\n", "30%\n"),
        ("copied 100 files\rdone\n", "done\n"),
        ("copied 100 files\r\x1b[Kdone\n", "done\n"),
        ("copied\x1b[2K\rdone\n", "done\n"),
        ("dos line\r\nanother\r\n", "dos line\nanother\n"),
        ("\r\r\rone\n\rtwo\r", "one\ntwo"),
        ("50%\rstill going on", "still going on"),
        ("x" * 9000 + "\rshort\n", "short\n"),
    ],
)
def test_a_carriage_return_overwrites_the_line_however_the_text_is_cut_into_pieces(
    text: str, shown: str
) -> None:
    assert kept(text) == shown
    assert kept(*text) == shown
    for size in (2, 3, 7):
        assert kept(*(text[at : at + size] for at in range(0, len(text), size))) == shown


def test_ten_thousand_progress_lines_of_a_command_leave_room_for_its_error(make) -> None:
    script = (
        "import sys\n"
        "for i in range(10_000): sys.stdout.write('\\r%3d%% of the files copied' % (i // 100))\n"
        "sys.stdout.write('\\rERROR: no space left on /backup\\n'); sys.exit(1)"
    )
    housekeeper = make(Task("copy", command=[sys.executable, "-c", script]))
    with pytest.raises(hk.CommandFailed, match=r"1: ERROR: no space left on /backup$"):
        housekeeper.run_task_manually("copy")
    assert row_of(housekeeper, "copy").output == "ERROR: no space left on /backup\n"


def test_a_character_whose_bytes_come_in_two_pieces_is_kept_whole(make, tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "for byte in 'grün €'.encode(): os.write(1, bytes([byte])); time.sleep(0.005)"
    )
    housekeeper = make(Task("slow", command=[sys.executable, "-c", script]))
    assert housekeeper.run_task_manually("slow").output == "grün €\n"


def test_a_secret_that_is_cut_into_pieces_is_masked() -> None:
    text = "to postgres://app:geheim@db and password=geheim2 done\n"
    assert kept(*text) == kept(text) == "to postgres://app:***@db and password=*** done\n"
    assert "geheim" not in kept(*text[:-1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m \x1b[1;5Hmoved", "red moved"),
        ("\x1b]0;title\x07text \x1b]8;;http://x\x1b\\link", "text link"),
        ("\x1b]0;never ended", ""),
        ("\x1bPq\x1b\\\x1bcreset\x1b(B", "reset"),
        ("bell\a back\b nul\0 return\r c1\x9b31m del\x7f", "bell back nul return c131m del"),
        ("grün € \u202etxt.exe", "grün € txt.exe"),
    ],
)
def test_what_a_task_printed_is_shown_without_what_a_terminal_would_obey(
    text: str, shown: str
) -> None:
    assert hk.printable(text) == shown


# Secrets.


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://shop:geheim%pw@db/shop",
        "postgresql://shop:geheim pw@/shop?host=/nowhere",
        "postgresql://shop:x geheim@db",
        "postgresql://shop:a/geheim@db/shop",
        "postgresql://shop:1234/geheim@db/shop",
        "postgresql://shop:a#geheim@db/shop",
        "postgresql://shop:a@geheim@db/shop",
        "postgresql://me@corp:geheim@db",
        "amqp://a:geheim@b,amqp://a:geheim@c",
        "https://:geheim@host",
        '{"user": "app", "password": "geheim \\" geheim", "port": 1}',
        "{'user': 'app', 'password': 'geheim'}",
        '"{\\"password\\": \\"geheim\\"}"',
        '{"password":"geheim"}',
        "mysqldump --password geheim shop",
        "mysqldump --password=geheim shop",
        "tool --db-password 'ge geheim'",
        "tool --token geheim",
        "api_key=geheim",
        "client_secret=geheim&grant=x",
        "HOUSEKEEPER_TOKEN=geheim",
        "Authorization: Bearer geheim",
        "authorization: Basic geheim==",
        "curl -H 'Authorization: Token geheim' http://x",
        "{'Authorization': 'Bearer geheim'}",
        "{'Authorization': b'Bearer geheim'}",
        '{"authorization":"geheim"}',
        "Authorization: AWS4-HMAC-SHA256 Credential=geheim/2024, Signature=geheim",
        "sent with bearer 0geheim-1.abc",
        'invalid dsn: invalid percent-encoded token: "geheim%pw"',
        'invalid integer value "geheim" for connection option "port"',
        'invalid port number: "geheim"',
        'missing "=" after "geheim" in connection info string',
        'unexpected spaces found in "geheim pw", use percent-encoded spaces (%20) instead',
        "aws_secret_access_key = geheim",
        '"SecretAccessKey": "geheim"',
        "AWS_SECRET_ACCESS_KEY=geheim",
        "AWS_SECRET_ACCESS_KEY: geheim",
        "password: geheim",
        '"pass": "geheim"',
        "MYSQL_PWD=geheim",
        "DB_PASS=geheim",
        "X-Api-Key: geheim123",
        "token: 123geheim",
        "('authorization', b'Basic geheim==')",
        "Bearer geheimgeheimgeheim",
        "curl -u shop:geheim http://host",
        "https://geheim_geheim_geheim_geheim@host/path",
    ],
)
def test_no_part_of_a_secret_is_kept(text: str) -> None:
    masked = hk.mask_secrets(f"before {text} after")
    assert "geheim" not in masked
    assert "***" in masked
    assert masked.startswith("before ")
    assert hk.mask_secrets(masked) == masked


def test_the_ids_of_aws_keys_are_masked() -> None:
    assert hk.mask_secrets("with AKIAIOSFODNN7EXAMPLE now") == "with AKIA*** now"


@pytest.mark.parametrize(
    "text",
    [
        "no secret: http://host:80/path and a@b",
        "http://localhost:8080/ says: ask admin@example.org",
        "see http://user@host/ and http://host:80",
        "ssh://git@host:22/x.git",
        "token = parser.next()  # a line of code",
        "used 512 tokens, keys=5, monkey=1",
        "the bearer of news is authenticated",
        "--password --host db",
        "FATAL: password authentication failed for user app",
        "token expired; the password is wrong; pass: 3, fail: 0",
        "secret: none was given, token: it is old",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hk.mask_secrets(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "://a:", "://a:b@", "a", "://", ":", "@", "password=", "password='", 'password="', '"',
        "password", "password ", "--password ", "-", "authorization: ", "bearer ", "key=", "\\",
        'password\\":\\"', "AKIA", "a.", "http://a:1 ", "token'", "token: ", " -u a:", "\r",
        "\x1b[", " ",
    ],
)  # fmt: skip
def test_masking_takes_time_in_proportion_to_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        best = 9.0
        for _ in range(3):
            before = time.process_time()
            hk.mask_secrets(text)
            hk.printable(text)
            hk.Output().add(text)
            best = min(best, time.process_time() - before)
        return best

    short = max(seconds(20_000), 0.0005)
    # Sixteen times the text: quadratic would be 256 times the time.
    assert seconds(320_000) / short < 80


# Logging, whatever the application has.


@contextmanager
def handled(name: str, handler: logging.Handler) -> Iterator[logging.Logger]:
    """Give a logger a handler of its own."""
    log = logging.getLogger(name)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.propagate = True


class Records(logging.Handler):
    """Keeps the records themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_capturing_adds_nothing_to_a_record(make) -> None:
    def work() -> None:
        try:
            raise OSError("disk")
        except OSError:
            log.exception("it failed for %s", "app")

    with handled("untouched", keeper := Records()) as log:
        work()
        run = make(Task("logs", work)).run_task_manually("logs")
    outside, inside = keeper.records
    assert vars(inside).keys() == vars(outside).keys()
    assert inside.exc_text is None
    assert "ERROR untouched: it failed for app\nTraceback" in run.output
    assert run.output.count("OSError: disk") == 1


def test_structlog_makes_no_junk_lines(make) -> None:
    structlog = pytest.importorskip("structlog")
    formatter = structlog.stdlib.ProcessorFormatter(processor=structlog.dev.ConsoleRenderer())
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(formatter)
    with handled("structured", handler) as log:
        run = make(Task("logs", lambda: log.info("hello"))).run_task_manually("logs")
    assert run.output.count("\n") == 1
    assert run.output.endswith("INFO structured: hello\n")
    assert "hello" in stream.getvalue()


def test_json_loggers_see_no_field_of_ours(make) -> None:
    module = pytest.importorskip("pythonjsonlogger.json")
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(module.JsonFormatter())
    with handled("jsonlike", handler) as log:
        make(Task("logs", lambda: log.info("hello"))).run_task_manually("logs")
    assert json.loads(stream.getvalue().partition("\n")[0]) == {"message": "hello"}


def test_loguru_that_goes_on_to_logging_is_kept_once(make) -> None:
    loguru = pytest.importorskip("loguru")

    class Propagates(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging.getLogger(record.name).handle(record)

    loguru.logger.remove()
    number = loguru.logger.add(Propagates(), format="{message}")
    try:
        task = Task("logs", lambda: loguru.logger.info("hello"))
        run = make(task).run_task_manually("logs")
    finally:
        loguru.logger.remove(number)
    assert run.output.count("hello") == 1


def test_a_queue_handler_and_its_listener_keep_a_line_once(make) -> None:
    waiting: queue.Queue[logging.LogRecord] = queue.Queue()
    listener = logging.handlers.QueueListener(waiting, keeper := Records())
    listener.start()
    with handled("queued", logging.handlers.QueueHandler(waiting)) as log:
        run = make(Task("logs", lambda: log.info("hello %s", "you"))).run_task_manually("logs")
    listener.stop()
    assert run.output.endswith("INFO queued: hello you\n")
    assert [record.getMessage() for record in keeper.records] == ["hello you"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_dict_config_with_its_default_silences_nothing(when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SILENCED, when],
        cwd=Path(hk.__file__).parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "Task bad failed" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "Housekeeper" in done.stderr


SILENCED = """
import logging.config, sys

def configure():
    handler = {"class": "logging.StreamHandler"}
    root = {"level": "INFO", "handlers": ["h"]}
    logging.config.dictConfig({"version": 1, "handlers": {"h": handler}, "root": root})

if sys.argv[1] == "before":
    configure()
import housekeeper as hk
if sys.argv[1] == "after":
    configure()
housekeeper = hk.create_housekeeper(tasks_dir=None, ledger="memory://")
housekeeper.register_task(hk.Task("bad", lambda: 1 / 0))
housekeeper.initialize()
housekeeper.run_task_manually("bad", wait=False).ended.wait(20)
housekeeper.shutdown()
"""


def test_the_log_says_which_task_a_line_is_of(make) -> None:
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(hk.LogFormatter("%(levelname)s %(message)s"))
    keeper = Records()
    with handled("shop", handler) as log, handled("shop", keeper):
        make(Task("sweep", lambda: log.info("3 files"))).run_task_manually("sweep")
        log.info("outside")
    assert stream.getvalue() == "INFO Task sweep: 3 files\nINFO outside\n"
    assert keeper.records[0].getMessage() == "3 files"


# Prints.


@contextmanager
def captured() -> Iterator[list[io.TextIOWrapper]]:
    """Stand in for the process's streams, captured."""
    made = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "oe"]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = made
    try:
        hk.capture_prints()
        hk.capture_prints()  # twice is harmless
        yield made
    finally:
        sys.stdout, sys.stderr = before


def written(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined,no-any-return]


def test_what_a_task_prints_is_kept_with_its_run_and_passed_on(make) -> None:
    def work() -> None:
        print("printed")
        print("to stderr", file=sys.stderr)
        sys.stdout.writelines(["two ", "parts\n"])
        # A task may give a logger a handler on the captured stream.
        with handled("printed", logging.StreamHandler()) as log:
            log.warning("logged")

    with captured() as streams:
        print("outside")
        run = make(Task("prints", work)).run_task_manually("prints")
    lines = run.output.splitlines()
    assert lines[:3] == ["printed", "to stderr", "two parts"]
    assert lines[3].endswith("WARNING printed: logged")
    assert len(lines) == 4
    assert written(streams[0]) == "outside\nprinted\ntwo parts\n"
    assert written(streams[1]) == "to stderr\nlogged\n"


def test_a_captured_stream_is_like_the_stream_itself() -> None:
    with captured() as streams:
        assert sys.stdout.encoding == "utf-8"
        assert sys.stdout.isatty() is False
        assert sys.stdout.buffer is streams[0].buffer
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        assert sys.stdout.errors == "backslashreplace"
        with pytest.raises(OSError, match="fileno"):
            sys.stdout.fileno()
        assert sys.stdout.write("four") == 4
        sys.stdout.flush()


def test_prints_of_an_application_that_embeds_it_are_its_own(make) -> None:
    before = sys.stdout
    run = make(Task("prints", lambda: print("printed"))).run_task_manually("prints")
    assert sys.stdout is before
    assert run.output == ""


# What commands get, and leave.


def test_a_command_gets_no_token_of_ours_but_its_runs_id(make, monkeypatch) -> None:
    monkeypatch.setenv("HOUSEKEEPER_TOKEN", "hunter2-hunter2-hunter2")
    script = "echo ${HOUSEKEEPER_TOKEN-none} $HOUSEKEEPER_RUN $MINE"
    housekeeper = make(Task("env", command=script, env={"MINE": "mine"}))
    run = housekeeper.run_task_manually("env")
    assert run.output == f"none {run.id} mine\n"


@pytest.mark.parametrize("code", [0, 3])
def test_what_a_command_leaves_in_a_session_of_its_own_lives_on_and_the_note_says_so(
    make, tmp_path: Path, code: int
) -> None:
    os.mkfifo(tmp_path / "pipe")
    inner = "echo $$ > pid; echo up > pipe; exec sleep 1000 >/dev/null 2>&1"
    command = f"setsid sh -c '{inner}' & read word < pipe; exit {code}"
    run = ended(start(make(), Task("forks", command=command, cwd=tmp_path)))
    pid = int((tmp_path / "pid").read_text())
    try:
        os.kill(pid, 0)
        assert run.note.endswith(f"it left process {pid} running, in a session of its own")
        assert run.status is (Status.FAILED if code else Status.SUCCEEDED)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_what_has_not_come_to_its_setsid_when_its_command_ends_lives_on(make) -> None:
    housekeeper, pids = make(), []
    try:
        for number in range(30):
            command = "setsid sleep 33 >/dev/null 2>&1 & echo pid $!"
            run = ended(start(housekeeper, Task(f"leaves-{number}", command=command)))
            pids += pids_in(run.output)
            assert len(pids) == number + 1
            assert hk.birth_of(pids[-1]), "it was killed"
            assert run.note == f"it left process {pids[-1]} running, in a session of its own"
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_what_stays_in_the_group_of_a_command_is_killed_and_not_named(make) -> None:
    run = ended(start(make(), Task("stays", command="sleep 33 >/dev/null 2>&1 & echo pid $!")))
    assert (run.status, run.note) == (Status.SUCCEEDED, "")
    assert_gone(*pids_in(run.output))


def test_a_run_that_timed_out_names_what_it_has_left(make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    inner = "echo $$ > pid; echo up > pipe; exec sleep 1000 >/dev/null 2>&1"
    command = f"setsid sh -c '{inner}' & read word < pipe; exec sleep 1000"
    run = ended(start(make(), Task("forks", command=command, cwd=tmp_path, timeout=2)))
    pid = int((tmp_path / "pid").read_text())
    try:
        os.kill(pid, 0)
        assert run.status is Status.TIMED_OUT
        assert run.note.endswith(f"; it left process {pid} running, in a session of its own")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_command_ends_although_no_thread_can_be_started(monkeypatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    run = new_run(Task("deaf", command="trap '' TERM; echo up; while :; do sleep 0.1; done"))
    monkeypatch.setattr(hk, "TERM_TO_KILL", 0.2)
    helper = threading.Thread(target=attempt, args=(run,))
    helper.start()
    eventually(lambda: "up" in run.buffer.text())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        see_to_it = run.stop(Status.CANCELLED, "enough")
        assert see_to_it is not None
        see_to_it()
        helper.join(PATIENCE)
    assert not helper.is_alive()
    assert run.status is Status.CANCELLED
    run = new_run(Task("quick", command="echo done"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert attempt(run).status is Status.SUCCEEDED
    assert run.buffer.text() == "done\n"


def test_a_log_filter_that_raises_ends_no_command(make) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ValueError(record.msg)

    housekeeper, before = make(), hk.logger.level
    hk.logger.setLevel(logging.INFO)
    hk.logger.addFilter(refuse)
    try:
        run = ended(start(housekeeper, Task("says", command="echo one; echo two")))
    finally:
        hk.logger.removeFilter(refuse)
        hk.logger.setLevel(before)
    assert (run.status, run.output) == (Status.SUCCEEDED, "one\ntwo\n")


def test_a_command_ends_where_nobody_tells_of_its_exit(make, monkeypatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(os, "waitid")
    housekeeper = make(Task("old", command="echo one; exec >/dev/null 2>&1; sleep 0.1; exit 4"))
    with pytest.raises(hk.CommandFailed, match="the command exited with 4: one"):
        housekeeper.run_task_manually("old")


# Ending what a scheduler that died has left.

LEFT = """
import os, subprocess, sys
import housekeeper as hk

def tell(run):
    print(run.group, flush=True)

task = hk.Task("left", command=sys.argv[1])
run = hk.LiveRun(definition=task, clock=hk.SystemClock(), key="/left", id="left-1",
                 reason=hk.Reason.MANUAL)
run.on_group = tell
run.begin_attempt(1)
hk.make_attempt(task, run, None, None)
"""


@contextmanager
def left_behind(command: str, tmp_path: Path) -> Iterator[str]:
    """Kill a process that runs a command; yield the command's group, which goes on."""
    os.mkfifo(tmp_path / "pipe")
    dying = subprocess.Popen(
        [sys.executable, "-c", LEFT, f"cd {tmp_path}; {command}"],
        cwd=Path(hk.__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert dying.stdout is not None
    group = dying.stdout.readline().strip()
    with open(tmp_path / "pipe") as pipe:
        assert pipe.read() == "up\n"
    dying.kill()
    dying.wait()
    dying.stdout.close()
    try:
        yield group
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(group.partition(":")[0]), signal.SIGKILL)


@pytest.mark.parametrize(
    "command",
    [
        "echo up > pipe; exec sleep 1000",
        "trap '' TERM; echo up > pipe; while :; do sleep 0.1; done",
        "sh -c 'echo up > pipe; exec sleep 1000' & exit",
    ],
    ids=["one that hears", "one that is deaf", "one whose leader is gone"],
)
def test_a_group_that_a_killed_process_left_is_ended(
    tmp_path: Path, monkeypatch, command: str
) -> None:
    monkeypatch.setattr(hk, "TERM_TO_KILL", 0.3)
    with left_behind(command.replace("& exit", "& sleep 1000"), tmp_path) as group:
        pgid = int(group.partition(":")[0])
        if "& exit" in command:
            os.kill(pgid, signal.SIGKILL)
        assert hk.end_group(group, hk.SystemClock())
        eventually(lambda: not hk.end_group(group, hk.SystemClock()))


def test_a_group_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    clock = hk.SystemClock()
    with left_behind("echo up > pipe; exec sleep 1000", tmp_path) as group:
        pgid, _, birth = group.partition(":")
        for other in (f"{pgid}:{int(birth) - 1}", f"{pgid}:", "", "x:1", "-1:1", f"0:{birth}"):
            assert not hk.end_group(other, clock)
        os.killpg(int(pgid), 0)
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        assert not hk.end_group(f"{stranger.pid}:{hk.birth_of(stranger.pid)}", clock)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
