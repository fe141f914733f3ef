"""What a scheduler's state is told as, by each door and from other processes.

Each state is provoked for real, on SQLite and on PostgreSQL.  Then `health`, `list` and `why` are
run as commands, and the HTTP door of a process that schedules nothing is asked: while the state
lasts, and when it has ended.  What the tasks themselves have noted is compared with the rows.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

import housekeeper as hk
from tests.accounting import assert_accounted, assert_ran_once
from tests.doors import Forked, Forks, Told, forks
from tests.postgres import PostgresServer
from tests.test_ledger_states import (
    TABLES,
    Place,
    folder_gone,
    full_disk,
    moved_away,
    read_only,
    renamed_database,
    replaced_by_a_backup,
    rights_revoked,
    small_disk,
    tables_dropped,
    tables_emptied,
    truncated,
)
from tests.waiting import eventually

__all__ = ["forks"]

TICK = """
from pathlib import Path
from housekeeper import Task, current_run
def note():
    with open(Path(__file__).parent.with_name("marks"), "a") as marks:
        marks.write(f"{current_run().scheduled_for}\\n")
tick = Task("tick", note, schedule="* * * * * *", grace=2)
"""


class World:
    """A folder of tasks, a ledger, and processes on it that beat each half second."""

    def __init__(self, folder: Path, url: str, server: PostgresServer | None) -> None:
        self.folder, self.url, self.server = folder, url, server
        self.database = urlsplit(url).path.strip("/")
        self.processes: list[Forked] = []
        self.forks: Forks
        self.write("tick", TICK)

    def write(self, name: str, source: str, tasks: str = "tasks") -> None:
        (self.folder / tasks).mkdir(exist_ok=True)
        (self.folder / tasks / f"{name}.py").write_text(source)

    def words(self, *words: str, tasks: str = "tasks") -> list[str]:
        return [*words, "--tasks", str(self.folder / tasks), "--ledger", self.url]

    def start(self, *words: str, tasks: str = "tasks") -> Forked:
        """Start a scheduler, and wait for its first sign of life."""
        process = self.forks.start(self.words(*words, tasks=tasks))
        self.processes.append(process)
        eventually(lambda: f":{process.pid}:" in json.dumps(self.ask("health").values))
        return process

    def start_and_run(self) -> Forked:
        """Start a scheduler, and wait for its first run: only then does the ledger know `tick`."""
        process = self.start()
        self.wait_for_more()
        return process

    def ask(self, *words: str) -> Told:
        """Ask a command of its own process."""
        return self.forks.ask(self.words(*words, "--json"))

    def door(self) -> Told:
        """Ask the HTTP door of its own process."""
        return self.forks.get("/health", str(self.folder / "tasks"), self.url)

    def marks(self) -> list[datetime]:
        """Return the ticks for which the task was run, as it has noted itself."""
        file = self.folder / "marks"
        lines = file.read_text().splitlines() if file.exists() else []
        return [datetime.fromisoformat(line) for line in lines]

    def wait_for_more(self, number: int = 1) -> None:
        target = len(self.marks()) + number
        eventually(lambda: len(self.marks()) >= target, 30.0)


@pytest.fixture
def world(
    tmp_path: Path, shared_url: str, forks: Forks, request: pytest.FixtureRequest
) -> Iterator[World]:
    if shared_url.startswith("sqlite"):
        (tmp_path / "data").mkdir()
        shared_url = f"sqlite:///{tmp_path}/data/ledger.db"
    server = request.getfixturevalue("postgres_server") if "postgres" in shared_url else None
    made = World(tmp_path, shared_url, server)
    made.forks = forks
    yield made
    for process in made.processes:
        process.end(signal.SIGKILL)


# States of the schedulers: each is entered, and left again at the end.

State = Callable[[World], Any]


@contextmanager
def well(world: World) -> Iterator[None]:
    world.start()
    yield


@contextmanager
def killed(world: World) -> Iterator[None]:
    world.start_and_run().end(signal.SIGKILL)
    yield


@contextmanager
def stopped(world: World) -> Iterator[None]:
    world.start_and_run().end(signal.SIGTERM)
    yield


@contextmanager
def suspended(world: World) -> Iterator[None]:
    os.kill(world.start_and_run().pid, signal.SIGSTOP)
    yield


@contextmanager
def refusing(world: World) -> Iterator[None]:
    """The ledger takes signs of life, and no runs."""
    world.start()
    refuse = "CREATE TRIGGER no_more BEFORE INSERT ON housekeeper_runs"
    if world.server is None:
        refuse += " BEGIN SELECT raise(abort, 'no more'); END"
    else:
        refuse = (
            "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE 'no more'; END $$;"
            f"{refuse} FOR EACH ROW EXECUTE FUNCTION no_more()"
        )
    place_of(world).change(refuse)
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
THERE = (
    "although a scheduler was there: [^ ]+:{pid}:.* has given the ledger no sign of life"
    # Or a run was going on when it began, and its end cannot be written.
    "|Ticks that pass meanwhile are recorded"
)
SUCCEEDED = " it succeeded"


def tells(answer: Any, status: str, problem: str) -> bool:
    """Tell whether health says so."""
    sentences = " ".join(answer.get("problems", []))
    return answer.get("status") == status and bool(re.search(problem, sentences))


@pytest.mark.parametrize(
    ("state", "status", "problem", "why"),
    [
        (well, "ok", "", SUCCEEDED),
        (killed, "critical", NOBODY, ABSENT),
        (stopped, "critical", NOBODY, ABSENT),
        (suspended, "critical", MUTE, THERE),
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
    world: World, state: State, status: str, problem: str, why: str
) -> None:
    with ExitStack() as left:
        left.enter_context(state(world))
        problem = problem.format(pid=world.processes[0].pid)
        why = why.format(pid=world.processes[0].pid)
        eventually(lambda: tells(world.ask("health").values, status, problem))
        health = world.ask("health")
        assert tells(health.values, status, problem)
        assert health.code == ("ok", "warning", "critical").index(status)
        door = world.door()
        assert tells(door.values, status, problem)
        assert door.code == (503 if status == "critical" else 200)
        listed = world.ask("list")
        assert listed.code == 0
        told_dead = re.search("No scheduler is running|no sign of life", listed.remarks)
        assert bool(told_dead) == (status == "critical"), listed.remarks
        eventually(lambda: re.search(why, " ".join(world.ask("why", "tick").values["sentences"])))


def test_a_run_that_was_killed_goes_on_nowhere(world: World) -> None:
    """Nobody is there to record it as crashed; each door finds that out by itself."""
    inside = world.folder / "inside"
    world.write(
        "hang",
        "import time\n"
        "from pathlib import Path\n"
        "from housekeeper import Task\n"
        f"def wait():\n    Path({str(inside)!r}).touch()\n    time.sleep(600)\n"
        "hang = Task('hang', wait, schedule='* * * * * *')\n",
    )
    process = world.start()
    eventually(inside.exists)
    # While it lives, it is told to go on.
    (status,) = (each for each in world.ask("list").values if each["name"] == "hang")
    assert (status["running"], status["last_run"]["status"]) == (True, "running")
    process.end(signal.SIGKILL)
    (status,) = (each for each in world.ask("list").values if each["name"] == "hang")
    last, died = status["last_run"], f"its runner [^ ]+:{process.pid}:[0-9a-f]+ has died"
    assert (status["running"], last["status"]) == (False, "crashed")
    assert re.match(died, last["note"])
    for command in (["history", "hang"], ["show", last["id"]]):
        told = world.ask(*command).values
        shown = told[0] if isinstance(told, list) else told
        assert (shown["status"], shown["note"]) == ("crashed", last["note"])
    first = world.ask("why", "hang", last["scheduled_for"])
    assert first.values["outcome"] == "crashed"
    later = f"was going on in .*: {died}.*{ABSENT}"
    eventually(lambda: re.search(later, " ".join(world.ask("why", "hang").values["sentences"])))
    assert world.ask("cancel", "hang").code == 1


# States of the ledger, under two schedulers.


def place_of(world: World) -> Place:
    return Place(world.url, world.server)


@contextmanager
def locked_by_another(place: Place) -> Iterator[None]:
    """Somebody changes the tables, and takes long: nobody can even read."""
    if place.server is None:
        connection: Any = sqlite3.connect(place.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
    else:
        import psycopg2

        connection = psycopg2.connect(place.url)
        connection.cursor().execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE")
    yield
    connection.close()


@contextmanager
def twice_and_without_index(place: Place) -> Iterator[None]:
    """The index that lets a tick run once is gone, and cannot be made anew."""
    change = place.change
    change(
        "INSERT INTO housekeeper_runs (id, task, reason, status, runner, scheduled_for)"
        " SELECT '0', 'other/tick', 'schedule', 'succeeded', '', MAX(scheduled_for)"
        " FROM housekeeper_runs; DROP INDEX housekeeper_runs_one_per_tick;"
        " INSERT INTO housekeeper_runs (id, task, reason, status, runner, scheduled_for)"
        " SELECT '1', task, reason, status, runner, scheduled_for FROM housekeeper_runs"
        " WHERE id = '0'"
    )
    yield
    change("DELETE FROM housekeeper_runs WHERE task = 'other/tick'")


@contextmanager
def renamed_table(place: Place) -> Iterator[None]:
    place.change("ALTER TABLE housekeeper_runs RENAME TO set_aside")
    yield
    place.change("ALTER TABLE set_aside RENAME TO housekeeper_runs")


class Outage(NamedTuple):
    """How a state in which nothing can be claimed is told."""

    enter: Callable[[Place], Any]
    kinds: str  # of ledgers
    problem: str  # as health and the HTTP door tell it
    listed: str  # in the remarks of list
    why: str  # in the sentences or the remarks of why
    code: int = 2  # of health


AWAY = "The ledger cannot be reached: "
USELESS = "The ledger cannot be used: ledger .* lacks "
UNMADE = "cannot be made|does not exist|it succeeded"  # It may still be read what came before.
OUTAGES = [
    Outage(read_only, "postgres", MUTE, "no sign of life", THERE),
    Outage(rights_revoked, "postgres", AWAY, "permission denied", "permission denied"),
    Outage(renamed_database, "postgres", AWAY, "not currently accepting", "not currently", 2),
    Outage(locked_by_another, "postgres", f"{AWAY}.*answer", "answer in time", "answer in time"),
    Outage(locked_by_another, "sqlite", MUTE, "no sign of life", THERE),
    Outage(full_disk, "sqlite", MUTE, "no sign of life", THERE),
    Outage(folder_gone, "sqlite", AWAY, "No ledger at", "No ledger at", 3),
    Outage(moved_away, "sqlite", AWAY, "No ledger at", "No ledger at", 3),
    Outage(twice_and_without_index, "both", USELESS, "which cannot be made", UNMADE),
    Outage(renamed_table, "both", USELESS, "which cannot be made", UNMADE),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda each: f"{each.enter.__name__}-{each.kinds}")
def test_an_outage_is_told_by_every_door_and_got_over(world: World, outage: Outage) -> None:
    kind = "sqlite" if world.server is None else "postgres"
    if outage.kinds not in (kind, "both"):
        pytest.skip(f"{kind} has no such state")
    place = place_of(world)
    with ExitStack() as left:
        if outage.enter is full_disk:
            if os.geteuid() != 0:
                pytest.skip("only root can mount")
            left.enter_context(small_disk(place))
        if outage.enter is rights_revoked:
            world.url = place.limited()
        for _ in range(2):
            world.start()
        world.wait_for_more()
        pid = "({})".format("|".join(str(each.pid) for each in world.processes))
        problem, why = (text.replace("{pid}", pid) for text in (outage.problem, outage.why))
        with outage.enter(place):
            assert_outage_is_told(world, outage, problem, why)
            ran = len(world.marks())
            world.ask("health")
            assert len(world.marks()) == ran, "something was run unclaimed"
        world.wait_for_more(2)
        assert_all_doors_tell_that_all_is_well(world)
        assert_each_tick_is_accounted_for(world)


def assert_outage_is_told(world: World, outage: Outage, problem: str, why: str) -> None:
    def told() -> bool:
        health = world.ask("health")
        words = " ".join([*health.values.get("problems", []), health.remarks])
        return health.code == outage.code and bool(re.search(f"{problem}|No ledger at", words))

    eventually(told)
    assert world.ask("health").seconds < 6.0, "each call takes 2 s at most"
    door = world.door()
    assert door.code == 503
    assert tells(door.values, "critical", problem.partition(": ")[0])  # It gives no address.
    listed = world.ask("list")
    assert re.search(outage.listed, listed.remarks), listed

    def explained() -> bool:  # Not of a tick that has only just come.
        told = world.ask("why", "tick")
        words = " ".join([*told.values.get("sentences", []), told.remarks])
        return bool(re.search(why, words))

    eventually(explained)


def assert_all_doors_tell_that_all_is_well(world: World) -> None:
    """Wait until both schedulers have given a sign of life, and health has heard of it."""
    eventually(
        lambda: (
            tells(world.ask("health").values, "ok", "^$")
            and world.door().code == 200
            and world.ask("list").remarks == ""
            and re.search(SUCCEEDED, " ".join(world.ask("why", "tick").values["sentences"]))
        ),
        30.0,
    )


def assert_each_tick_is_accounted_for(world: World, *, lost: bool = False) -> None:
    for process in world.processes:
        process.end(signal.SIGTERM)
    ledger = hk.ledger_from_url(world.url, Path("/"), hk.SystemClock())
    rows, marks = ledger.runs("/tick"), world.marks()
    if isinstance(ledger, hk.SqliteLedger):
        assert ledger._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ledger.close()
    assert_accounted(rows, hk.CronTrigger("* * * * * *"))
    assert len(set(marks)) == len(marks), "a tick was run twice"
    if not lost:
        assert_ran_once(marks, rows)


# States that pass, with or without rows: they are got over at once, and health is not wrong.


def sessions_ended(place: Place) -> None:
    place.end_sessions()


def database_made_anew(place: Place) -> None:
    server, name = place.server, place.database
    assert server is not None
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.execute(f"CREATE DATABASE {name}")


def index_dropped(place: Place) -> None:
    place.change("DROP INDEX housekeeper_runs_one_per_tick; DROP INDEX housekeeper_runs_by_task")


def column_dropped(place: Place) -> None:
    place.change("ALTER TABLE housekeeper_runs DROP COLUMN output")


def meta_gone(place: Place) -> None:
    place.change("DROP TABLE housekeeper_meta")


def runs_dropped(place: Place) -> None:
    place.change("DROP TABLE housekeeper_runs")


def log_deleted(place: Place) -> None:
    place.files[1].unlink()


@pytest.mark.parametrize("lost", [False, True], ids=["harmless", "losing rows"])
def test_what_has_passed_is_got_over_and_no_door_is_wrong(world: World, lost: bool) -> None:
    place, sqlite = place_of(world), world.server is None
    for _ in range(2):
        world.start()
    world.wait_for_more()
    states = [meta_gone, index_dropped] + ([] if sqlite else [sessions_ended])
    if lost:
        states = [column_dropped, tables_dropped, tables_emptied, runs_dropped]
        # Whoever commits just as the log goes loses that row: nobody else can find it any more.
        files = [log_deleted, truncated, replaced_by_a_backup]
        states += files if sqlite else [database_made_anew]
    for happens in states:
        assert_is_got_over(world, place, happens)
    assert_each_tick_is_accounted_for(world, lost=lost)


def assert_is_got_over(world: World, place: Place, happens: Callable[[Place], None]) -> None:
    happens(place)
    world.wait_for_more(2)
    assert_all_doors_tell_that_all_is_well(world)
    alive = [each for each in world.ask("health").values["runners"] if each["alive"]]
    assert len(alive) == 2, happens


@pytest.mark.parametrize(
    "make_it",
    [
        "ALTER DATABASE {0} SET default_transaction_isolation = 'serializable'",
        "DROP DATABASE {0}; CREATE DATABASE {0} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
        " TEMPLATE template0",
    ],
    ids=["serializable", "LATIN1"],
)
def test_an_unusual_database_is_told_to_be_well(
    postgres_url: str, tmp_path: Path, forks: Forks, postgres_server: PostgresServer, make_it: str
) -> None:
    world = World(tmp_path, postgres_url, postgres_server)
    for statement in make_it.format(world.database).split("; "):
        postgres_server.execute(statement)
    world.forks = forks
    try:
        for _ in range(2):
            world.start()
        world.wait_for_more(2)
        assert_all_doors_tell_that_all_is_well(world)
        assert_each_tick_is_accounted_for(world)
    finally:
        for process in world.processes:
            process.end(signal.SIGKILL)


def test_files_that_a_scheduler_has_not_loaded_are_told_until_it_loads_them(world: World) -> None:
    process = world.start()
    assert world.ask("list").remarks == ""
    world.write("extra", TICK.replace("tick", "extra"))
    said = "It has not loaded what has changed in the tasks folder: extra.py; send it SIGHUP"
    eventually(lambda: said in world.ask("list").remarks)
    assert said in " ".join(world.ask("health").values["problems"])
    os.kill(process.pid, signal.SIGHUP)
    eventually(lambda: world.ask("list").remarks == "")
    assert world.ask("health").values["status"] == "ok"
