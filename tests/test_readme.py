"""The README is true: its files are written, its commands run, and its outputs compared."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import types
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import flask
import flask_sqlalchemy
import pytest
import sqlalchemy

import housekeeper as hk
from housekeeper import Status
from tests.environment import environment
from tests.virtual_time import VirtualClock, simulated, utc

ROOT = Path(hk.__file__).resolve().parent
README = (ROOT / "README.md").read_text()
LIMIT = 30
PYTHON = sys.executable


class Block(NamedTuple):
    """A fenced block: its language, the comment it begins with, its text."""

    language: str
    title: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [
        Block(language, match[1] if (match := re.match("# (.*)\n", text)) else "", text)
        for language, text in found
    ]


def block(title: str) -> Block:
    (found,) = (each for each in blocks() if each.title.startswith(title))
    return found


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block with their outputs."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], [part.splitlines() for part in parts[1::2]], strict=True))


def shape(line: str) -> str:
    """Return a line without what differs between machines and days."""
    line = re.sub(r"sqlite:///\S*/", "sqlite:///F/", line)
    line = re.sub(r"Housekeeper \S+:\d+:\w+", "Housekeeper RUNNER", line)
    line = re.sub(r"in \d+\.\d+ s", "in N s", line)
    line = re.sub(r"\b[0-9a-f]{24}\b", "RUN", line)
    return re.sub(r"\s+", " ", re.sub(r"\d+", "N", line)).strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a user has it: the file, its tasks, and the README's first task file."""
    shutil.copy(ROOT / "housekeeper.py", tmp_path)
    shutil.copytree(
        ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "tasks/sweep.py").write_text(block("tasks/sweep.py").text)
    # What the set-up line makes, with the packages that are here.
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "uploads").mkdir()
    for name in "abc":
        part = tmp_path / "uploads" / f"{name}.part"
        part.touch()
        os.utime(part, (0, 0))
    return tmp_path


def variables() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment(PATH=path, TZ="UTC", PYTHONUNBUFFERED="1")


@contextmanager
def started(
    command: list[str] | str, folder: Path, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a program that goes on; it is gone at the end, and when it takes too long."""
    options = {"env": variables(), "stderr": subprocess.DEVNULL, **options}
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def test_each_command_prints_what_the_readme_shows(folder: Path) -> None:
    # The night in which no scheduler was there has a test of its own.
    console = [each for each in blocks() if each.language == "console"]
    console = [each for each in console if "why backup" not in each.text]
    (scheduler, lines), *shown = [each for shown in console for each in commands(shown.text)]
    assert len(shown) >= 5
    assert all(command.startswith(".venv/bin/python ") for command, _ in shown)
    with started(scheduler.split(), folder, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        printed = [shape(process.stdout.readline()) for _ in lines]
        assert sorted(printed) == sorted(map(shape, lines))
        for command, expected in shown:
            prints(folder, command, expected)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0


def prints(folder: Path, command: str, lines: list[str]) -> None:
    """Assert that a command prints these lines, in a fresh shell."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=variables(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    # Log lines and progress go to stderr; the README leaves them out when there is an answer.
    printed = done.stdout or done.stderr
    assert [shape(line) for line in printed.splitlines()] == [shape(line) for line in lines], (
        command
    )


WHY = """\
```console
$ .venv/bin/python housekeeper.py why backup 03:00
{why}$ .venv/bin/python housekeeper.py health
{health}```"""


def the_why_of_the_readme(folder: Path) -> str:
    """Return the README's block on a night in which no scheduler was there, as it is printed."""
    clock = VirtualClock(utc(2026, 11, 24, 18))
    ledger = f"sqlite:///{folder}/ledger.db"
    task = 'task = Task("backup", print, schedule="0 3 * * *", grace=600)'
    (folder / "backup.py").write_text(f"from housekeeper import Task\n\n{task}\n")
    backup = hk.Task("backup", print, schedule="0 3 * * *", grace=600)
    scheduler = simulated(clock, backup, ledger=ledger)
    scheduler.run_until(utc(2026, 11, 24, 22, 40))
    scheduler.shutdown()
    clock.advance(timedelta(hours=8, minutes=32).total_seconds())
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hk.SystemClock, "now", lambda _: clock.now())
        for words in (["why", "backup", "03:00"], ["health"]):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                hk.main(["--ledger", ledger, "--tasks", str(folder), *words])
            printed.append(re.sub(r"\S+:\d+:[0-9a-f]{6}", "vm:4711:39f5ac", said.getvalue()))
    return WHY.format(why=printed[0], health=printed[1])


def test_the_why_of_the_readme_is_what_is_printed(tmp_path: Path) -> None:
    assert the_why_of_the_readme(tmp_path) in README


def test_the_flask_application_and_its_task_work_as_shown(folder: Path) -> None:
    (folder / "app.py").write_text(block("app.py").text)
    (folder / "tasks/report.py").write_text(block("tasks/report.py").text)
    program = """
import app
assert app.app.test_client().get("/api/housekeeper/health").json["status"]
run = app.housekeeper.run_task_manually("report")
print(run.status, run.output.strip()[-17:], app.housekeeper.shutdown())
"""
    given = {**variables(), "HOUSEKEEPER_TOKEN": "a-token-for-the-readme"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stdout == "succeeded nothing to report True\n"
    listed = subprocess.run(
        [sys.executable, "housekeeper.py", "--app", "app:housekeeper", "list"],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert re.search(r"^report +0 6 \* \* MON-FRI +Europe/Berlin", listed.stdout, re.MULTILINE)


def test_the_site_and_the_command_line_share_the_flask_application(folder: Path) -> None:
    (folder / "app.py").write_text(block("app.py").text)
    (folder / "tasks/report.py").write_text(block("tasks/report.py").text)
    script = folder / ".venv/bin/flask"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m flask "$@"\n')
    script.chmod(0o755)
    (shown,) = (each for each in blocks() if each.language == "shell")
    (install, _), (export, _), (run, lines), (serve, _) = commands(shown.text)
    assert install == ".venv/bin/pip install -q flask"  # It is here already.
    prints(folder, f"{export}; {run}", lines)
    options = {"shell": True, "stderr": subprocess.STDOUT}
    with started(f"{export}; exec {serve} --port 0", folder, **options) as site:
        assert site.stdout is not None
        root = next(
            found[0] for line in site.stdout if (found := re.search(r"http://\S+:\d+", line))
        )
        with urllib.request.urlopen(f"{root}/api/housekeeper/", timeout=LIMIT) as page:
            assert "dashboard.js" in page.read().decode()
        (address,) = re.findall(r"http://127.0.0.1:5000(\S*)", README)
        assert page.url == f"{root}{address}"


def test_the_switch_of_the_readme_runs_nothing(folder: Path) -> None:
    (folder / "app.py").write_text(block("app.py").text)
    program = """
import app
print([each["scheduled"] for each in app.housekeeper.list_tasks()], app.housekeeper.workload())
"""
    given = {"HOUSEKEEPER_TOKEN": "a-token-for-the-readme", "HOUSEKEEPER_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**variables(), **given},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert "True" not in done.stdout
    assert not (folder / "housekeeper.db").exists()


def test_the_calls_over_http_answer_what_is_shown(folder: Path) -> None:
    given = {**variables(), "HOUSEKEEPER_TOKEN": "a-token-for-the-readme"}
    command = [sys.executable, "housekeeper.py", "--http", "127.0.0.1:0"]
    with started(command, folder, env=given) as process:
        assert process.stdout is not None
        port = next(
            re.findall(r":(\d+)/", line)[0]
            for line in process.stdout
            if line.startswith("Dashboard: ")
        )
        (console,) = (each for each in blocks() if each.language == "bash")
        shown = commands(console.text)
        assert shown
        for command, lines in shown:
            done = subprocess.run(
                command.replace(":8080", f":{port}"),
                shell=True,
                env=given,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=True,
            )
            assert done.stdout.splitlines() == lines


def test_the_line_for_the_tests_is_the_one_that_decides_what_lands() -> None:
    lines = [each.text.strip() for each in blocks() if each.language == "sh"]
    (tests,) = (line for line in lines if "pytest" in line)
    assert f"\n{tests}\n" in (ROOT / ".ci/run").read_text()
    (main,) = (line for line in lines if "housekeeper.py" in line)
    assert tests.split(" && ")[0] == main.split(" && ")[0] == "python3 -m venv .venv"


# Of a Housekeeper, and called by other rooms of the file only.
INSIDE = {"after_fork_in_child", "unknown_task"}


def test_every_option_field_variable_command_and_method_is_in_the_readme() -> None:
    for option in hk.OPTIONS:
        assert f"`--{option.name}" in README
    for name in hk.COMMANDS:
        assert re.search(rf"`(python housekeeper.py )?{name}[ `]", README), name
    for name in hk.Task.__dataclass_fields__:
        assert name.startswith("_") or re.search(rf"`{name}[`=]", README), name
    for status in Status:
        assert status is Status.RUNNING or f"`{status}`" in README, status
    for name, value in vars(hk.Housekeeper).items():
        if callable(value) and not name.startswith("_") and name not in INSIDE:
            assert f"`{name}(" in README, name
    epilog = re.sub(r"\s+", " ", hk.EXIT_CODES)
    assert epilog.lower() in re.sub(r"\s+", " ", README.replace("`", "")).lower()


def test_the_readme_is_for_the_person_who_has_ten_minutes() -> None:
    first, reference = README.split("## Reference")
    assert len(first.split()) < 900
    assert len(reference.split()) <= 2044
    assert reference.count("<details>") == reference.count("</details>") >= 9
    assert (ROOT / "tests/dashboard.png").stat().st_size < 300_000


# Recipes.


def recipe(title: str) -> dict[str, Any]:
    """Execute a block, and return its names."""
    names: dict[str, Any] = {}
    exec(compile(block(title).text, title, "exec"), names)
    return names


@pytest.fixture
def served() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of a web server, and what it was asked."""
    asked: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            asked.append((self.path, self.rfile.read(size)))
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def fail() -> None:
    raise ValueError("no such table")


def run_both(housekeeper: hk.Housekeeper) -> None:
    housekeeper.run_task_manually("backup")
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("broken")


BOTH = (hk.Task("backup", lambda: None), hk.Task("broken", fail))


def test_the_ping_tells_success_from_failure(make: Any, served: Any, monkeypatch: Any) -> None:
    url, asked = served
    monkeypatch.setenv("PING_URL", f"{url}/uuid")
    ping = recipe("A ping")["ping"]
    make(hk.Task("backup", lambda: None), on_finish=ping).run_task_manually("backup")
    with pytest.raises(ValueError, match="no such table"):
        make(hk.Task("backup", fail), on_finish=ping).run_task_manually("backup")
    assert [path for path, _ in asked] == ["/uuid", "/uuid/fail"]


def test_a_session_of_flask_sqlalchemy_ends_with_the_run(make: Any, postgres_url: str) -> None:
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = postgres_url.replace("://", "+psycopg2://", 1)
    database = flask_sqlalchemy.SQLAlchemy(app)
    sessions = []

    def query() -> None:
        assert database.session.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
        sessions.append(database.session())

    housekeeper = make(hk.Task("query", query), app=app)
    for _ in range(2):
        housekeeper.run_task_manually("query")
        assert not sessions[-1].in_transaction(), "it was closed at the run's end"
        with app.app_context():
            assert database.engine.pool.checkedout() == 0, "its connection is back in the pool"
    assert sessions[0] is not sessions[1]
    with app.app_context():
        database.engine.dispose()


def test_what_comes_from_elsewhere_keeps_its_times(monkeypatch: Any, make: Any) -> None:
    names = ("digest", "refresh", "tidy")
    shop = types.SimpleNamespace(**dict.fromkeys(names, print))
    monkeypatch.setitem(sys.modules, "shop", shop)
    tasks = [each for each in recipe("tasks/moved.py").values() if isinstance(each, hk.Task)]
    housekeeper = make(*tasks)
    ticks = {each.name: housekeeper.next_runs(each.name, 6) for each in tasks}
    assert {tick.minute % 10 for tick in ticks["refresh"]} == {0}
    assert {(tick.weekday(), tick.hour, tick.minute) for tick in ticks["digest"]} == {(0, 6, 0)}
    assert {(tick.hour % 4, tick.minute) for tick in ticks["tidy"]} == {(0, 0)}


def test_the_unit_of_the_readme_has_settings_that_systemd_knows(folder: Path) -> None:
    unit = block("/etc/systemd").text
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("this machine has no systemd-analyze")
    here = unit.replace("/srv/shop/.venv/bin/python", sys.executable).replace("User=shop\n", "")
    (folder / "housekeeper.service").write_text(here)
    done = subprocess.run(
        [verify, "verify", str(folder / "housekeeper.service")],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert "housekeeper.service" not in done.stderr


SLOW = """
import pathlib, threading
from housekeeper import Task

def slow():
    pathlib.Path("begun").touch()
    threading.Event().wait(1)
    pathlib.Path("ended").touch()

task = Task("slow", slow, startup=True)
"""


def test_supervisord_runs_and_stops_it_with_the_settings_of_the_readme(folder: Path) -> None:
    (text,) = re.findall(r"supervisord:\n((?:`\w+=[^`]*`[,.]\s)+)", README)
    settings = "\n".join(re.findall("`(.*?)`", text)).replace("/srv/shop/.venv/bin/python", PYTHON)
    settings = settings.replace("/srv/shop", str(folder))
    (folder / "tasks/slow.py").write_text(SLOW)
    (folder / "supervisord.conf").write_text(
        "[supervisord]\nnodaemon=true\n[program:housekeeper]\n"
        f"{settings}\nredirect_stderr=true\nstdout_logfile={folder}/log\n"
    )
    command = [str(Path(PYTHON).parent / "supervisord"), "-c", "supervisord.conf"]
    with started(command, folder) as process:
        # The task is in the middle of its work.
        while not (folder / "begun").exists():
            assert process.poll() is None
            threading.Event().wait(0.05)
        process.terminate()
        assert process.stdout is not None
        told = process.stdout.read()
        assert process.wait(LIMIT) == 0
    assert "stopped: housekeeper (exit status 0)" in told
    assert (folder / "ended").exists()
    assert "Shutting down after SIGTERM" in (folder / "log").read_text()
