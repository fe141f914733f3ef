"""What a scheduler's state is told as, by each door and from other processes.

Each state is provoked for real, on SQLite and on PostgreSQL.  Then `health`, `list` and `why` are
run as commands, and the HTTP door of a process that schedules nothing is asked.
"""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

import housekeeper as hk
from tests.environment import environment
from tests.postgres import PostgresServer
from tests.waiting import eventually

FOLDER = str(Path(hk.__file__).parent)
# Signs of life each half second, so that a state of seconds is a long one.
HURRIED = """
import sys
import housekeeper as hk
hk.BEAT_EVERY, hk.SEEN_WITHIN, hk.LONGEST_BACKOFF, hk.A_WHILE = 0.5, 3.0, 0.5, hk.SECOND
sys.exit(hk.main(sys.argv[1:]))
"""
TICK = """
from housekeeper import Task
tick = Task("tick", lambda: None, schedule="* * * * * *", grace=2)
"""
TOKEN = "a-token-that-nobody-guesses"


class World:
    """A folder of tasks, a ledger, and processes on it that beat each half second."""

    def __init__(self, folder: Path, url: str, server: PostgresServer | None) -> None:
        self.folder, self.url, self.server = folder, url, server
        self.database = urlsplit(url).path.strip("/")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.write("tick", TICK)

    def write(self, name: str, source: str, tasks: str = "tasks") -> None:
        (self.folder / tasks).mkdir(exist_ok=True)
        (self.folder / tasks / f"{name}.py").write_text(source)

    def command(self, *words: str, tasks: str = "tasks") -> list[str]:
        place = ["--tasks", str(self.folder / tasks), "--ledger", self.url]
        return [sys.executable, "-c", HURRIED, *words, *place]

    def start(self, *words: str, tasks: str = "tasks") -> subprocess.Popen[bytes]:
        """Start a scheduler, and wait for its first sign of life."""
        process = subprocess.Popen(
            self.command(*words, tasks=tasks),
            env=environment(PYTHONPATH=FOLDER),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        eventually(lambda: f":{process.pid}:" in json.dumps(self.ask("health").values))
        return process

    def ask(self, *words: str) -> Told:
        """Ask a command of its own process."""
        began = time.monotonic()
        asked = subprocess.run(
            self.command(*words, "--json"),
            env=environment(PYTHONPATH=FOLDER),
            capture_output=True,
            text=True,
            timeout=60,
        )
        values = json.loads(asked.stdout or "{}")
        return Told(asked.returncode, values, asked.stderr, time.monotonic() - began)


class Told(NamedTuple):
    """What a command has answered."""

    code: int
    values: Any
    remarks: str
    seconds: float


@pytest.fixture
def world(tmp_path: Path, shared_url: str, request: pytest.FixtureRequest) -> Iterator[World]:
    postgres = shared_url.startswith("postgres")
    made = World(
        tmp_path, shared_url, request.getfixturevalue("postgres_server") if postgres else None
    )
    yield made
    for process in made.processes:
        end(process, signal.SIGKILL)


# States: each is entered, and left again at the end.

State = Callable[[World], Any]


@contextmanager
def well(world: World) -> Iterator[None]:
    world.start()
    yield


def end(process: subprocess.Popen[bytes], number: int) -> None:
    process.send_signal(number)
    process.wait()


@contextmanager
def killed(world: World) -> Iterator[None]:
    end(world.start(), signal.SIGKILL)
    yield


@contextmanager
def stopped(world: World) -> Iterator[None]:
    end(world.start(), signal.SIGTERM)
    yield


@contextmanager
def suspended(world: World) -> Iterator[None]:
    world.start().send_signal(signal.SIGSTOP)
    yield


@contextmanager
def unwritable(world: World) -> Iterator[None]:
    """The ledger can be read, and not be written to."""
    world.start()
    if world.server is None:
        connection = sqlite3.connect(world.folder / "ledger.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.close()
        return
    name = world.database
    world.server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    world.server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    yield
    world.server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@contextmanager
def refusing(world: World) -> Iterator[None]:
    """The ledger takes signs of life, and no runs."""
    world.start()
    if world.server is None:
        connection = sqlite3.connect(world.folder / "ledger.db", isolation_level=None)
        refuse = "BEGIN SELECT raise(abort, 'no more'); END"
        connection.execute(f"CREATE TRIGGER no_more BEFORE INSERT ON housekeeper_runs {refuse}")
        connection.close()
    else:
        world.server.execute(
            "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE 'no more'; END $$;"
            "CREATE TRIGGER no_more BEFORE INSERT ON housekeeper_runs"
            " FOR EACH ROW EXECUTE FUNCTION no_more()",
            world.database,
        )
    yield


@contextmanager
def failing(world: World) -> Iterator[None]:
    world.write(
        "sweep",
        "from housekeeper import Task\n"
        "sweep = Task('sweep', lambda: 1 / 0, schedule='* * * * * *')\n",
    )
    world.start()
    yield


@contextmanager
def unloaded(world: World) -> Iterator[None]:
    world.write("broken", "import housekeeper\n1 / 0\n")
    world.start()
    yield


@contextmanager
def busy(world: World) -> Iterator[None]:
    """One worker, which hangs: nothing else gets its turn."""
    world.write(
        "hang",
        "import time\n"
        "from housekeeper import Task\n"
        "hang = Task('hang', lambda: time.sleep(600), startup=True)\n",
    )
    world.start("--workers", "1")
    yield


@contextmanager
def at_odds(world: World) -> Iterator[None]:
    """Two schedulers have another schedule for one name."""
    world.write("tick", TICK.replace("* * * * * *", "*/5 * * * *"), tasks="others")
    world.start()
    world.start(tasks="others")
    yield


NOBODY = "No scheduler is running; the last, [^ ]+:{pid}:[0-9a-f]+, was seen at"
ABSENT = "Nobody has claimed it: no scheduler was there from "
MUTE = "Scheduler [^ ]+:{pid}:[0-9a-f]+ is alive, but has given the ledger no sign of life since"
THERE = "although a scheduler was there: [^ ]+:{pid}:.* has given the ledger no sign of life"
SUCCEEDED = " it succeeded"


@pytest.mark.parametrize(
    ("state", "status", "problem", "why"),
    [
        (well, "ok", "", SUCCEEDED),
        (killed, "critical", NOBODY, ABSENT),
        (stopped, "critical", NOBODY, ABSENT),
        (suspended, "critical", MUTE, THERE),
        (unwritable, "critical", MUTE, THERE),
        (
            refusing,
            "warning",
            "Scheduler .*: Since .* UTC the ledger took no runs .*no more",
            "Since .* UTC the ledger took no runs .*no more",
        ),
        (
            failing,
            "warning",
            "Task sweep failed its last [0-9]+ runs, since .*division",
            SUCCEEDED,
        ),
        (unloaded, "warning", "Discovery: .*broken.py:2: it does not import", SUCCEEDED),
        (busy, "warning", "Since .* UTC the worker was busy", "although a scheduler was there"),
        (at_odds, "warning", "Task tick has the schedule .* here and .* in [^ ]+:[0-9]+:", ""),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_state_is_told_by_every_door(
    world: World,
    make: Any,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    status: str,
    problem: str,
    why: str,
) -> None:
    monkeypatch.setattr(hk, "SEEN_WITHIN", 3.0)  # as in the other processes
    with ExitStack() as left:
        left.enter_context(state(world))
        problem = problem.format(pid=world.processes[0].pid)
        why = why.format(pid=world.processes[0].pid)
        door = make(start=False, tasks_dir=world.folder / "tasks", ledger=world.url)

        def told(answer: Any) -> bool:
            sentences = " ".join(answer.get("problems", []))
            return answer.get("status") == status and bool(re.search(problem, sentences))

        eventually(lambda: told(world.ask("health").values))
        health = world.ask("health")
        assert told(health.values)
        assert health.code == ("ok", "warning", "critical").index(status)
        assert_door_tells(door, status, problem)
        listed = world.ask("list")
        assert listed.code == 0
        told_dead = re.search("No scheduler is running|no sign of life", listed.remarks)
        assert bool(told_dead) == (status == "critical"), listed.remarks
        eventually(lambda: re.search(why, " ".join(world.ask("why", "tick").values["sentences"])))


def assert_door_tells(door: hk.Housekeeper, status: str, problem: str) -> None:
    """Assert that GET /health says so, with 503 only when the work cannot be done."""
    web, answer, heads = door.web_app(token=TOKEN), None, list[str]()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/health",
        "HTTP_AUTHORIZATION": f"Bearer {TOKEN}",
    }
    answer = json.loads(b"".join(web(environ, lambda line, headers: heads.append(line))))
    assert answer["status"] == status
    assert re.search(problem, " ".join(answer["problems"]))
    assert heads[0][:3] == ("503" if status == "critical" else "200")


def test_a_ledger_out_of_reach_is_told_within_two_seconds_a_call(world: World, make: Any) -> None:
    world.start()
    door = make(start=False, tasks_dir=world.folder / "tasks", ledger=world.url)
    door.history()
    if world.server is None:
        (world.folder / "ledger.db").rename(world.folder / "aside.db")
        code, problem = 3, "No ledger at sqlite:"
    else:
        world.server.execute(f"ALTER DATABASE {world.database} ALLOW_CONNECTIONS false")
        world.server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{world.database}'"
        )
        code, problem = 2, "The ledger cannot be reached: "
    health = world.ask("health")
    assert health.code == code
    assert health.seconds < 10.0
    assert problem in health.remarks + json.dumps(health.values)
    assert_door_tells(door, "critical", r"The ledger cannot be reached\.")
    assert world.ask("why", "tick").code == 3


def test_files_that_a_scheduler_has_not_loaded_are_told_until_it_loads_them(world: World) -> None:
    process = world.start()
    assert world.ask("list").remarks == ""
    world.write("extra", TICK.replace("tick", "extra"))
    said = "It has not loaded what has changed in the tasks folder: extra.py; send it SIGHUP"
    eventually(lambda: said in world.ask("list").remarks)
    assert said in " ".join(world.ask("health").values["problems"])
    process.send_signal(signal.SIGHUP)
    eventually(lambda: world.ask("list").remarks == "")
    assert world.ask("health").values["status"] == "ok"
