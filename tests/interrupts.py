"""Interrupt tasks that log, queue, import, wait and write to a ledger, so many times.

    python -m tests.interrupts COUNT

A program of its own, so that it runs under each Python; it needs only the standard library.
Afterwards no lock may be held, and each run has its outcome.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import housekeeper as hk

PATIENCE = 20.0
FOLDER = Path(tempfile.mkdtemp())
log = logging.getLogger("interrupted")
numbers: queue.Queue[int] = queue.Queue()
names: queue.SimpleQueue[str] = queue.SimpleQueue()
never = threading.Event()


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def logs() -> None:
    while True:
        log.info("a line")


def logs_each_millisecond() -> None:
    while True:
        log.info("a line")
        spin(0.001)


def prints() -> None:
    while True:
        print("a line")


def queues() -> None:
    while True:
        numbers.put(1)
        numbers.get(timeout=PATIENCE)
        spin(0.0002)


def awaits_a_queue() -> None:
    empty: queue.Queue[int] = queue.Queue()
    while True:
        with contextlib.suppress(queue.Empty):
            empty.get(timeout=0.003)


def awaits_an_event() -> None:
    while not never.wait(0.003):
        pass


def imports() -> None:
    name = names.get()
    try:
        while True:
            sys.modules.pop(name, None)
            importlib.import_module(name)
            # A task that lets others get on only while it imports is not interrupted.
            time.sleep(0.0005)
    finally:
        names.put(name)


def starts_threads() -> None:
    while True:
        helper = threading.Thread(target=spin, args=(0.001,))
        helper.start()
        helper.join(0.003)


def asks_the_ledger() -> None:
    while True:
        housekeeper.history("noted", limit=1)


def writes_to_the_ledger() -> None:
    while True:
        with contextlib.suppress(hk.AlreadyRunning, hk.RunFailed):
            housekeeper.run_task_manually("noted")


def logs_to_a_queue_that_is_full() -> None:
    class Full(logging.Handler):
        def flush_in_lock(self) -> None:
            with self.lock:  # type: ignore[union-attr]
                self.flush()

        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(queue.Full):
                full.put(record, timeout=0.003)

    full: queue.Queue[object] = queue.Queue(1)
    full.put(None)
    handler = Full()
    other = logging.Logger("another")
    other.addHandler(handler)
    try:
        while True:
            other.warning("a line")
    finally:
        still_works(handler.flush_in_lock)


TASKS = [
    logs,
    logs_each_millisecond,
    prints,
    queues,
    awaits_a_queue,
    awaits_an_event,
    imports,
    starts_threads,
    asks_the_ledger,
    writes_to_the_ledger,
    logs_to_a_queue_that_is_full,
]
took: Counter[str] = Counter()
wrong: list[str] = []


def interrupt_once(work: Callable[[], None], number: int) -> None:
    """Make an attempt on a thread of its own, and interrupt it."""
    run = hk.LiveRun(
        definition=hk.Task(work.__name__.replace("_", "-"), work),
        clock=hk.SystemClock(),
        key="/x",
        id=str(number),
        reason=hk.Reason.MANUAL,
    )
    assert run.begin_attempt(1)
    made: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def attempt() -> None:
        hk.make_attempt(run.definition, run, None, None)
        made.put(True)

    threading.Thread(target=attempt, daemon=True).start()
    time.sleep(random.uniform(0.0, 0.004))
    asked = time.perf_counter()
    see_to_it = run.stop(hk.Status.TIMED_OUT, "too long", 1)
    if see_to_it is None:
        wrong.append(f"{work.__name__} ended by itself: {run.status} {run.note}")
        return
    see_to_it()
    try:
        made.get(timeout=PATIENCE)
    except queue.Empty:
        wrong.append(f"{work.__name__} did not end within {PATIENCE} s\n{run.stack()}")
        return
    took[work.__name__] += round((time.perf_counter() - asked) * 1e6)
    kind = type(run.exception)
    if run.status is not hk.Status.TIMED_OUT or kind is not hk.RunTimedOut:
        wrong.append(f"{work.__name__}: {run.status}, {kind}\n{run.error}")


def still_works(work: Callable[[], object]) -> None:
    """Tell when something cannot be done any more, because a lock is held."""
    helper = threading.Thread(target=work, daemon=True)
    helper.start()
    helper.join(PATIENCE)
    if helper.is_alive():
        wrong.append(f"{work} hangs")


def interrupt_some(count: int, first: int) -> None:
    for number in range(count):
        if len(wrong) < 10:
            interrupt_once(TASKS[(first + number) % len(TASKS)], number)


def main(count: int) -> None:
    workers = [
        threading.Thread(target=interrupt_some, args=(count // 3, 4 * first)) for first in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for work in (
        lambda: log.info("after"),
        lambda: print("after"),
        lambda: numbers.put(1) or numbers.get(),
        lambda: importlib.import_module("imported_after"),
        lambda: housekeeper.run_task_manually("noted"),
        threading.Thread(target=int).start,
        housekeeper.shutdown,
    ):
        still_works(work)
    if not gc.isenabled():
        wrong.append("garbage is not collected any more")
    each = max(1, count // len(TASKS))
    print({name: f"{total / each / 1000:.1f} ms" for name, total in took.items()}, file=result)
    print(*(wrong or ["all is well"]), sep="\n", file=result, flush=True)


if __name__ == "__main__":
    result = sys.stdout
    nowhere = open(FOLDER / "log", "w", buffering=1)  # noqa: SIM115
    sys.stdout = nowhere
    logging.basicConfig(level=logging.INFO, stream=nowhere)
    hk.capture_prints()
    sys.path.insert(0, str(FOLDER))
    for name in [*range(100), "after"]:
        names.put(f"imported_{name}")
        (FOLDER / f"imported_{name}.py").write_text("import logging, json\nvalue = 1\n")
    housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=f"sqlite:///{FOLDER}/ledger.db")
    housekeeper.register_task(hk.Task("noted", lambda: None))
    housekeeper.initialize()
    try:
        main(int(sys.argv[1]))
    finally:
        shutil.rmtree(FOLDER)
    sys.exit(bool(wrong))
