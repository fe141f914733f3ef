"""Processes that are forked from one that has imported everything: they start in milliseconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import housekeeper as hk
from tests.environment import environment
from tests.waiting import eventually

FOLDER = str(Path(hk.__file__).parent)
TOKEN = "a-token-that-nobody-guesses"
# Signs of life each half second and calls of 1.5 s at most, so that a state of seconds is long.
PROGRAM = f"""
import contextvars, json, os, signal, sys, tempfile
import croniter, psycopg2
import housekeeper as hk
hk.BEAT_EVERY, hk.SEEN_WITHIN, hk.LONGEST_BACKOFF, hk.A_WHILE = 0.4, 2.0, 0.4, hk.SECOND
hk.CALL_LIMIT = 1.5
hk._call_limit = contextvars.ContextVar("call_limit", default=1.5)
outputs = [1, 2]

def get(path, tasks, ledger):
    door = hk.create_housekeeper(tasks_dir=tasks, ledger=ledger)
    heads, environ = [], {{"REQUEST_METHOD": "GET", "PATH_INFO": path}}
    environ["HTTP_AUTHORIZATION"] = "Bearer {TOKEN}"
    answer = door.web_app(token="{TOKEN}")(environ, lambda line, _: heads.append(line))
    print(json.dumps([int(heads[0][:3]), json.loads(b"".join(answer))]))
    return 0

def forked(what, words, outputs):
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            for number, output in enumerate((os.open(os.devnull, os.O_RDWR), *outputs)):
                os.dup2(output, number)
            code = get(*words) if what == "get" else hk.main(words)
            sys.stdout.flush()
        except SystemExit as error:
            code = error.code
        finally:
            os._exit(code)
    return pid

for line in sys.stdin:
    what, words = json.loads(line)
    if what == "start":
        null = os.open(os.devnull, os.O_RDWR)
        answer = forked(what, words, (null, null))
        os.close(null)
    else:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            _, status = os.waitpid(forked(what, words, (out.fileno(), err.fileno())), 0)
            answer = [os.waitstatus_to_exitcode(status)]
            for file in (out, err):
                file.seek(0)
                answer.append(file.read().decode())
    print(json.dumps(answer), flush=True)
"""


class Told(NamedTuple):
    """What a process has answered."""

    code: int
    values: Any
    remarks: str
    seconds: float


class Forked(NamedTuple):
    """A scheduler in a process of its own."""

    pid: int

    def end(self, number: int) -> None:
        if hk.birth_of(self.pid):
            os.kill(self.pid, number)
        eventually(lambda: not hk.birth_of(self.pid))


class Forks:
    """A process that forks others, for as long as the tests run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment(PYTHONPATH=FOLDER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _do(self, what: str, words: list[str]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, words]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, words: list[str]) -> Forked:
        """Run a command in the background."""
        return Forked(self._do("start", words))

    def ask(self, words: list[str]) -> Told:
        """Run a command to its end."""
        began = time.monotonic()
        code, output, remarks = self._do("ask", words)
        return Told(code, json.loads(output or "{}"), remarks, time.monotonic() - began)

    def get(self, path: str, tasks: str, ledger: str) -> Told:
        """Ask the HTTP door of a process that schedules nothing."""
        began = time.monotonic()
        _, output, remarks = self._do("get", [path, tasks, ledger])
        code, values = json.loads(output)
        return Told(code, values, remarks, time.monotonic() - began)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()
