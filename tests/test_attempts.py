"""An attempt ends whatever a task does, and nothing that a task can reach spoils its run."""

from __future__ import annotations

import builtins
import contextlib
import dis
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from housekeeper import CurrentRun, Status, Task, current_run
from tests.test_execution import attempt, in_a_thread, new_run
from tests.waiting import PATIENCE

ROOT = Path(hk.__file__).parent


def outcome_of(work: Callable[[], object], around: hk.AroundRun | None = None) -> hk.LiveRun:
    """Make an attempt, and return its run, whose texts each database can store."""
    run = new_run(Task("work", work))
    assert run.begin_attempt(1)
    hk.make_attempt(run.definition, run, None, around)
    for text in (run.note, run.error, run.buffer.text()):
        assert type(text) is str
        assert "\0" not in text
        text.encode("utf-8")
    assert len(run.note) <= 300
    assert len(run.error) <= 16384
    return run


# Whatever it raises.


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit("no name")


class Nameless(Exception, metaclass=Meta):
    pass


class Evil(str):
    def partition(self, _: str) -> Any:
        raise KeyboardInterrupt

    def encode(self, *_: object) -> Any:
        raise MemoryError


def saying(text: Callable[[], object], base: type[BaseException] = Exception) -> BaseException:
    """Return an error whose text is made, or not, in an odd way."""
    kind = type("Odd", (base,), {"__str__": lambda _: text(), "__repr__": lambda _: text()})
    return kind()


def pretending(what: object) -> BaseException:
    """Return an error that says of itself to be of another class, or raises when asked."""

    def answer(_: object) -> object:
        return what() if callable(what) and not isinstance(what, type) else what

    return type("Pretends", (Exception,), {"__class__": property(answer)})()


def nested(depth: int) -> BaseException:
    error = Exception("the innermost")
    for _ in range(depth):
        outer = Exception("around it")
        outer.__cause__ = error
        error = outer
    return error


def circular() -> BaseException:
    error, other = Exception("one"), Exception("another")
    error.__cause__, other.__cause__ = other, error
    return error


def noted(notes: object) -> BaseException:
    error = Exception("noted")
    error.__notes__ = notes  # type: ignore[attr-defined]
    return error


def group_of(count: int) -> BaseException:
    if sys.version_info < (3, 11):
        return Exception("no groups")
    return ExceptionGroup("many", [ValueError(f"{number}") for number in range(count)])  # noqa: F821


ODD: dict[str, Callable[[], BaseException]] = {
    "a syntax error with a text of bytes": lambda: SyntaxError("bad", ("a.html", 3, 1, b"{%")),
    "a syntax error of nonsense": lambda: SyntaxError("bad", (b"", "x", -1, 5)),
    "a text that raises": lambda: saying(lambda: 1 / 0),
    "a text that exits": lambda: saying(lambda: sys.exit("no text")),
    "a text that is none": lambda: saying(lambda: 5),
    "a text of a class of its own": lambda: saying(lambda: Evil("evil")),
    "a text that recurses": lambda: saying(lambda: str(saying.__defaults__) + recursion()),
    "a text of half a pair": lambda: saying(lambda: "caf\udce9 \0"),
    "a text of megabytes": lambda: saying(lambda: "x" * 5_000_000),
    "a text of megabytes in lines": lambda: Exception("x\n" * 2_000_000),
    "no name": Nameless,
    "a class that exits": lambda: pretending(lambda: sys.exit("no class")),
    "a class of success": lambda: pretending(hk.SkipRun),
    "an exit code that cannot be shown": lambda: SystemExit(saying(lambda: 1 / 0)),
    "a text that exits in an exit": lambda: saying(lambda: sys.exit(2), SystemExit),
    "a chain of a thousand": lambda: nested(1000),
    "a circle": circular,
    "notes that are none": lambda: noted(5),
    "notes that cannot be shown": lambda: noted([saying(lambda: 1 / 0)]),
    "a group of a thousand": lambda: group_of(1000),
}


def recursion() -> str:
    return recursion()


@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_a_run_fails_whatever_error_it_raises_and_however_that_words_itself(
    make: Callable[[], BaseException],
) -> None:
    def work() -> None:
        raise make()

    run = outcome_of(work)
    assert run.status is Status.FAILED
    assert run.note


def every_error() -> list[type[BaseException]]:
    found = [kind for kind in vars(builtins).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, BaseException)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("values", [(), ("text",), ("utf-8", b"\xff", 0, 1, "text"), (5, [])])
def test_each_exception_that_python_has_is_a_failed_run(
    kind: type[BaseException], values: tuple[object, ...]
) -> None:
    def work() -> None:
        try:
            error = kind(*values)
        except TypeError:
            error = kind.__new__(kind)  # half made
        raise error

    run = outcome_of(work)
    assert run.status is Status.FAILED
    assert run.note


def test_a_text_of_a_syntax_error_that_cannot_be_shown_leaves_where_it_was_raised() -> None:
    def parse() -> None:
        raise SyntaxError("bad template", ("page.html", 3, 1, b"{% if %}"))

    run = outcome_of(parse)
    assert "in parse" in run.error
    assert run.note.startswith("SyntaxError: ")


def test_an_error_while_an_outcome_is_worded_leaves_a_failed_run(monkeypatch: Any) -> None:
    monkeypatch.setattr(hk, "_outcome_of", lambda *_: 1 / 0)
    run = outcome_of(lambda: None)
    assert (run.status, run.note) == (
        Status.FAILED,
        "what it ended with could not be put into words",
    )
    assert run.stop(Status.CANCELLED, "too late") is None


# What it returns.


@pytest.mark.parametrize(
    ("result", "note"),
    [
        ("deleted 5 rows", "deleted 5 rows"),
        (" two\nlines", "two"),
        ("postgres://app:geheim@db", "postgres://app:***@db"),
        ("x" * 1000, "x" * 300),
        ("caf\udce9", "caf\\udce9"),
        (Evil("evil"), "evil"),
        (5, "5"),
        (2.5, "2.5"),
        ({"deleted": 5, "kept": "all", "odd": None}, "deleted=5, kept=all"),
        ({}, ""),
        (True, ""),
        (None, ""),
        ([1, 2], ""),
        (10**10000, ""),
        ({number: number for number in range(1000)}, ""),
        (type("Odd", (int,), {"__str__": lambda _: sys.exit(1)})(5), ""),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_a_result_that_is_a_text_a_number_or_a_small_dict_is_the_runs_note(
    result: object, note: str
) -> None:
    run = outcome_of(lambda: result)
    assert (run.status, run.note, run.error) == (Status.SUCCEEDED, note, "")


# What it can reach.


def test_a_task_gets_a_run_that_it_cannot_change() -> None:
    seen: list[CurrentRun] = []

    def work() -> None:
        run = current_run()
        seen.append(run)
        for name in ("status", "note", "attempt", "ended", "anything"):
            with pytest.raises(AttributeError):
                setattr(run, name, None)
        run.progress(1, 2, "files \udce9")

    run = outcome_of(work)
    assert (run.status, run.progress_made) == (Status.SUCCEEDED, (1, 2, "files \\udce9"))
    (view,) = seen
    names = ["task", "id", "reason", "scheduled_for", "started_at", "attempt", "deadline"]
    assert [getattr(view, name) for name in names] == [getattr(run, name) for name in names]


def test_outside_a_run_the_current_one_is_of_no_task_and_records_nothing() -> None:
    run = current_run()
    assert (run.task, run.id, run.attempt, run.cancelled) == ("", "", 1, False)
    assert (run.scheduled_for, run.started_at, run.deadline) == (None, None, None)
    run.check_cancelled()
    run.on_cancel(lambda: None)()
    run.progress(1, 2, "rows")
    assert run.wait(0.001) is False
    with pytest.raises(ValueError, match="finite"):
        run.progress(float("nan"))


# Forks.

FORKING = """
import os, sys
import housekeeper as hk

def work():
    child = os.fork()
    if child == 0:
        print("printed by the child")
        {child}
        return
    _, status = os.waitpid(child, 0)
    raise LookupError(os.waitstatus_to_exitcode(status))

class Around:
    def __enter__(self): pass
    def __exit__(self, *_): os.write(1, b"around\\n")

run = hk.LiveRun(definition=hk.Task("work", work), clock=hk.SystemClock(), key="/work", id="1",
                 reason=hk.Reason.MANUAL)
run.begin_attempt(1)
hk.make_attempt(run.definition, run, None, Around)
print(run.note)
"""


def finished(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which is no failure."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )


@pytest.mark.parametrize(
    ("child", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('no disk')", 1, "no disk"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_child_that_a_task_forks_ends_where_it_comes_back_from_the_tasks_function(
    child: str, code: int, said: str
) -> None:
    done = finished(FORKING.format(child=child))
    assert done.stdout == f"printed by the child\naround\nLookupError: {code}\n"
    assert said in done.stderr
    assert bool(done.stderr) == bool(said)


FORKING_HOOK = """
import os
import housekeeper as hk

parent = os.getpid()

def fork(*_):
    if (child := os.fork()) == 0:
        return
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

class Around:
    __enter__ = fork if "{where}" == "enter" else lambda *_: None
    __exit__ = fork if "{where}" == "exit" else lambda *_: None

options = dict(on_finish=fork) if "{where}" == "on_finish" else dict(around_run=Around)
housekeeper = hk.create_housekeeper(tasks_dir=None, ledger="memory://", max_workers=1, **options)
housekeeper.register_task(hk.Task("work", lambda: os.write(1, b"parent\\n" if os.getpid() == parent
                                                            else b"child\\n") and None))
housekeeper.initialize()
run = housekeeper.run_task_manually("work")
os.write(1, b"%s\\n" % run.status.encode())
"""


@pytest.mark.parametrize("where", ["enter", "exit", "on_finish"])
def test_a_child_that_a_hook_forks_ends_where_it_comes_back_from_the_hook(where: str) -> None:
    done = finished(FORKING_HOOK.format(where=where))
    said = ["0", "parent"] if where == "enter" else ["parent", "0"]
    assert done.stdout.split() == [*said, "succeeded"]


# Interrupts.


def interrupts(python: str, count: int) -> None:
    done = subprocess.run(
        [python, "-m", "tests.interrupts", str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120 + count / 20,
        check=False,
    )
    assert "all is well" in done.stdout, (done.stdout + done.stderr)[-4000:]


def test_a_thousand_interrupts_leave_no_lock_held_and_each_run_with_its_outcome() -> None:
    interrupts(sys.executable, 1000)


@pytest.mark.torture
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_ten_thousand_interrupts_leave_no_lock_held_on_each_python(version: str) -> None:
    for folder in os.get_exec_path():
        python = os.path.join(folder, f"python{version}")
        if (
            os.path.exists(python)
            and not subprocess.run([python, "-c", ""], check=False).returncode
        ):
            interrupts(python, 10_000)
            return
    pytest.skip(f"there is no Python {version}")


def test_a_thread_that_has_moved_on_since_it_was_seen_is_not_interrupted() -> None:
    at, go = queue.SimpleQueue[int](), queue.SimpleQueue[int]()
    ended = threading.Event()

    def work() -> None:
        at.put(1)
        go.get()
        at.put(2)
        go.get()
        ended.set()

    helper = threading.Thread(target=work)
    helper.start()
    while (frame := hk.frame_of(helper.ident)) is None or frame.f_code is not work.__code__:
        time.sleep(0.001)
    assert at.get(timeout=PATIENCE) == 1
    place, ident = frame.f_lasti, helper.ident or 0
    go.put(1)
    assert at.get(timeout=PATIENCE) == 2
    while frame.f_lasti == place:
        time.sleep(0.001)
    assert not hk._raise_at(frame, place, ident, hk.RunTimedOut)
    assert not hk._raise_at(sys._getframe(), sys._getframe().f_lasti, ident, hk.RunTimedOut)
    go.put(2)
    assert ended.wait(PATIENCE)
    helper.join(PATIENCE)


def test_no_other_thread_gets_on_between_the_last_look_and_the_interrupt() -> None:
    code = list(dis.get_instructions(hk._raise_at))
    looks = next(i for i, each in enumerate(code) if each.opname == "FOR_ITER")
    raises = next(i for i in range(looks, len(code)) if code[i].opname.startswith("CALL"))
    between = code[looks + 1 : raises]
    assert "_raise_in_thread" in [each.argval for each in between]
    # CPython looks whether another thread waits where a function begins, after calls (CALL...)
    # and at jumps back; on 3.10 also where a condition jumps.
    assert not [each for each in between if "BACKWARD" in each.opname or "RESUME" in each.opname]
    jumps = [each for each in between if "JUMP" in each.opname]
    assert all(each.argval > code[raises].offset for each in jumps)


@contextlib.contextmanager
def running(work: Callable[[], object]) -> Iterator[hk.LiveRun]:
    """Make an attempt on a thread; it has ended when the block is left."""
    run = new_run(Task("work", work))
    helper = threading.Thread(target=attempt, args=(run,))
    helper.start()
    yield run
    helper.join(PATIENCE)
    assert not helper.is_alive(), run.stack()


class Slow(logging.Handler):
    """Holds its lock until somebody lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.let_go = threading.Event(), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.inside.set()
        # Not Event.wait(), which may be interrupted.
        while not self.let_go.is_set():
            time.sleep(0.001)


def test_an_interrupt_waits_while_its_thread_logs_and_no_callback_waits_for_it() -> None:
    log, slow, called = logging.Logger("slow"), Slow(), threading.Event()
    log.addHandler(slow)
    after: list[bool] = []

    def work() -> None:
        current_run().on_cancel(called.set)
        log.warning("a line")
        after.append(True)
        while True:
            pass

    with running(work) as run:
        assert slow.inside.wait(PATIENCE)
        see_to_it = run.stop(Status.CANCELLED, "enough")
        assert see_to_it is not None
        see_to_it()
        assert called.is_set()
        slow.let_go.set()
    assert after == [True]
    assert (run.status, type(run.exception)) == (Status.CANCELLED, hk.RunCancelled)
    in_a_thread(lambda: log.warning("its lock is free"))


class SlowToGo:
    def __del__(self) -> None:
        sum(range(50_000))


def test_an_interrupt_waits_where_python_would_swallow_it() -> None:
    started = threading.Event()

    def work() -> None:
        started.set()
        while True:
            SlowToGo()
            sum(range(5_000))

    for _ in range(5):
        started.clear()
        with running(work) as run:
            assert started.wait(PATIENCE)
            see_to_it = run.stop(Status.TIMED_OUT, "too long")
            assert see_to_it is not None
            see_to_it()
        assert type(run.exception) is hk.RunTimedOut


def test_a_run_that_is_not_insisted_on_is_asked_only() -> None:
    started, called = threading.Event(), threading.Event()

    def work() -> None:
        current_run().on_cancel(called.set)
        started.set()
        assert called.wait(PATIENCE)
        sum(range(1_000_000))

    with running(work) as run:
        assert started.wait(PATIENCE)
        see_to_it = run.stop(Status.CANCELLED, "enough", insist=False)
        assert see_to_it is not None
        see_to_it()
    assert (run.status, run.exception, run.interrupted) == (Status.CANCELLED, None, False)


def test_the_warning_that_a_run_was_asked_to_stop_comes_after_its_interrupt(caplog: Any) -> None:
    interrupted, order = threading.Event(), queue.SimpleQueue[str]()
    started = threading.Event()

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert interrupted.wait(PATIENCE)
            order.put(record.getMessage())

    def work() -> None:
        try:
            started.set()
            while True:
                pass
        finally:
            interrupted.set()

    handler = Waits()
    hk.logger.addHandler(handler)
    try:
        with running(work) as run:
            assert started.wait(PATIENCE)
            see_to_it = run.stop(Status.TIMED_OUT, "too long")
            assert see_to_it is not None
            see_to_it()
    finally:
        hk.logger.removeHandler(handler)
    assert order.get_nowait() == "Task work was asked to stop: too long"


def test_an_interrupt_that_python_only_reports_is_sent_again(make, monkeypatch) -> None:
    inside, usual = threading.Event(), hk._is_interruptible

    class Dropped:
        pass

    def callback(_: object) -> None:
        inside.set()
        until = time.monotonic() + 20
        while inside.is_set() and time.monotonic() < until:
            pass  # The interrupt comes here, and is only reported.

    def look(frames: list[types.FrameType]) -> bool:
        if not inside.is_set():
            return usual(frames)
        return frames[0].f_code is callback.__code__

    def work() -> None:
        dropped = Dropped()
        reference = weakref.ref(dropped, callback)
        del dropped
        inside.clear()
        while reference:
            time.sleep(0.001)

    monkeypatch.setattr(hk, "_is_interruptible", look)
    housekeeper = make(Task("work", work, timeout=0.2))
    with pytest.raises(hk.RunFailed):
        housekeeper.run_task_manually("work")
    assert inside.is_set() is False
    assert housekeeper.history()[0].status is Status.TIMED_OUT


@pytest.mark.parametrize("what", ["the error's text", "its traceback", "the result's text"])
def test_a_text_that_hangs_ends_at_the_timeout_of_its_run(make: Any, what: str) -> None:
    def hang(_: object) -> Any:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            pass
        return "too late"

    class Cause(Exception):
        __str__ = hang

    class Number(float):
        __str__ = hang

    def work() -> object:
        if what == "the result's text":
            return Number(1)
        if what == "its traceback":
            raise ZeroDivisionError from Cause()
        raise Cause

    housekeeper = make(Task("work", work, timeout=0.2))
    run = housekeeper.run_task_manually("work", wait=False)
    assert run.ended.wait(PATIENCE / 2)
    assert run.status is Status.TIMED_OUT
    assert not housekeeper._roster.get("work").lock.locked()
    assert housekeeper.history("work")[0].status is Status.TIMED_OUT
