"""At home in real servers: each is started on loopback, and its ticks are counted."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import housekeeper as hk
from housekeeper import Status
from tests.environment import environment
from tests.postgres import PostgresServer
from tests.test_outages import frozen

FILE = Path(hk.__file__).resolve()
README = FILE.parent / "README.md"
BIN = Path(sys.executable).parent
LIMIT = 60.0

EVERY_SECOND = """
    import os
    from housekeeper import current_run, task

    @task(schedule="* * * * * *")
    def every_second():
        with open("ticks", "a") as ticks:
            ticks.write(f"{os.getpid()} {current_run().scheduled_for.isoformat()}\\n")
"""

SLOW = """
    import pathlib, time
    from housekeeper import Task

    def slow():
        pathlib.Path("begun").touch()
        while not pathlib.Path("release").exists():
            time.sleep(0.05)
        pathlib.Path("ended").touch()

    task = Task("slow", slow, startup=True)
"""

HUNG = """
    import pathlib, time
    from housekeeper import Task

    def hung():
        pathlib.Path("begun").touch()
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    task = Task("hung", hung, startup=True)
"""

FALSE = """
    from housekeeper import Task

    false = Task("false", command="false", schedule="* * * * * *")
"""

# Default options, started at import: the ledger and tasks/ are beside housekeeper.py.
FLASK = """
    import logging, os, time
    from flask import Flask
    from housekeeper import create_housekeeper

    logging.basicConfig(level=logging.INFO)
    app = Flask(__name__)
    app.add_url_rule("/", "page", lambda: "page")
    app.add_url_rule("/started", "started", lambda: {"started": housekeeper.health()["started"]})
    app.add_url_rule("/slow", "slow", lambda: time.sleep(0.2) or "page")
    app.add_url_rule("/run/<name>", "run", lambda name: run(name, wait=False).id)
    housekeeper = create_housekeeper(app)
    run = housekeeper.run_task_manually
    housekeeper.initialize()

    if __name__ == "__main__":
        app.run(port=int(os.environ["PORT"]), debug=True)
"""

BOTTLE = """
    import logging
    import bottle
    from housekeeper import create_housekeeper

    logging.basicConfig(level=logging.INFO)
    app = bottle.Bottle()
    app.route("/", callback=lambda: "page")
    housekeeper = create_housekeeper(app)
    housekeeper.initialize()
"""

PYRAMID = """
    import logging
    from pyramid.config import Configurator
    from pyramid.response import Response
    from housekeeper import create_housekeeper

    logging.basicConfig(level=logging.INFO)
    with Configurator() as config:
        config.add_route("page", "/")
        config.add_view(lambda request: Response("page"), route_name="page")
        app = config.make_wsgi_app()
    housekeeper = create_housekeeper()
    housekeeper.initialize()
"""

DJANGO = """
    import os
    from django.core.wsgi import get_wsgi_application

    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    app = get_wsgi_application()
"""

DJANGO_MANAGE = """
    import os, sys
    from django.core.management import execute_from_command_line

    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    execute_from_command_line(sys.argv)
"""

DJANGO_SETTINGS = """
    import logging

    logging.basicConfig(level=logging.INFO)
    ALLOWED_HOSTS = ["*"]
    DEBUG = True
    INSTALLED_APPS = ["shop.apps.Shop"]
    LOGGING_CONFIG = None
    ROOT_URLCONF = "shop.urls"
    SECRET_KEY = "not one"
"""

DJANGO_URLS = """
    from django.http import HttpResponse
    from django.urls import path

    urlpatterns = [path("", lambda request: HttpResponse("page"))]
"""

DJANGO_APP = """
    from django.apps import AppConfig
    from housekeeper import create_housekeeper

    class Shop(AppConfig):
        name = "shop"

        def ready(self):
            self.housekeeper = create_housekeeper()
            self.housekeeper.initialize()
"""


class Site:
    """A folder with an application, and the server that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tasks").mkdir()
        (folder / "shop").mkdir()
        shutil.copy(FILE, folder)
        self.write("tasks/every_second.py", EVERY_SECOND)
        self.write("flask_app.py", FLASK)
        self.write("bottle_app.py", BOTTLE)
        self.write("pyramid_app.py", PYRAMID)
        self.write("django_app.py", DJANGO)
        self.write("manage.py", DJANGO_MANAGE)
        self.write("shop/apps.py", DJANGO_APP)
        self.write("shop/settings.py", DJANGO_SETTINGS)
        self.write("shop/urls.py", DJANGO_URLS)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes]

    def write(self, name: str, source: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(source))

    def start(self, command: str) -> None:
        """Start a server; ADDRESS and PORT stand for where it listens."""
        words = command.replace("ADDRESS", "127.0.0.1:PORT").replace("PORT", str(self.port))
        program, *rest = words.split()
        self.process = subprocess.Popen(
            [str(BIN / program), *rest],
            cwd=self.folder,
            env=environment(PORT=str(self.port), PYTHONPATH=str(self.folder)),
            stdout=open(self.folder / "log", "wb"),  # noqa: SIM115
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return str(answer.read().decode())

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.get() == "page"
        except OSError:
            return False

    def ticks(self) -> list[tuple[int, datetime]]:
        """Return what the task has written: its process and the tick, run by run."""
        path = self.folder / "ticks"
        lines = path.read_text().splitlines() if path.exists() else []
        pairs = [line.split() for line in lines]
        return [(int(pid), datetime.fromisoformat(tick)) for pid, tick in pairs]

    def lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()

    def has(self, name: str) -> Callable[[], bool]:
        return (self.folder / name).exists

    @property
    def workers(self) -> int:
        words = [str(word) for word in list(self.process.args)]  # type: ignore[arg-type]
        return next(
            (int(words[words.index(name) + 1]) for name in ("-w", "-p") if name in words), 1
        )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def logged(self, text: str) -> bool:
        return text in self.log

    def rows(self, name: str) -> list[hk.Run]:
        ledger = f"sqlite:///{self.folder}/housekeeper.db"
        housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=ledger)
        try:
            return housekeeper.history(name, limit=10_000)
        finally:
            housekeeper.ledger.close()

    def stop(self, number: signal.Signals, group: bool = False) -> int:
        """Send a signal, and wait for the end; return the exit code."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.ends()

    def ends(self) -> int:
        try:
            return self.process.wait(LIMIT)
        finally:
            print(self.log)  # Shown by pytest when the test fails.

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[], Site]]:
    made: list[Site] = []

    def make_one() -> Site:
        folder = tmp_path / f"site{len(made)}"
        folder.mkdir()
        made.append(Site(folder))
        return made[-1]

    yield make_one
    for site in made:
        site.kill()


@pytest.fixture
def site(make_site: Callable[[], Site]) -> Site:
    return make_site()


def wait_until(condition: Callable[[], object], site: Site) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, site.log
        time.sleep(0.05)


def check(site: Site) -> None:
    """Each tick was run once, none is missing, and nothing has complained."""
    ran = [tick for _, tick in site.ticks()]
    assert set(Counter(ran).values()) == {1}, "a tick has run twice"
    rows = site.rows("every-second")
    done = [row.scheduled_for for row in rows if row.status is Status.SUCCEEDED]
    assert sorted(filter(None, done)) == sorted(ran)
    # A loaded machine may be late; then a row stands for the ticks that were passed over.
    seconds = (max(ran) - min(ran)) / timedelta(seconds=1) + 1
    on_record = [row for row in rows if row.scheduled_for and row.scheduled_for >= min(ran)]
    assert sum(row.count for row in on_record if row.scheduled_for <= max(ran)) == seconds
    assert "Traceback" not in site.log
    assert "Exception ignored" not in site.log
    assert "Fatal" not in site.log


GUNICORN = "gunicorn --bind ADDRESS --no-control-socket"
UWSGI = "uwsgi --http-socket ADDRESS --need-app --module flask_app:app"
SERVERS = {
    "gunicorn, four workers": f"{GUNICORN} -w 4 flask_app:app",
    "gunicorn, gthread": f"{GUNICORN} -w 2 -k gthread --threads 2 flask_app:app",
    "gunicorn, preload": f"{GUNICORN} -w 4 --preload flask_app:app",
    "uWSGI, one process": f"{UWSGI} --enable-threads",
    "uWSGI, master": f"{UWSGI} --enable-threads --master -p 2",
    "uWSGI, master, lazy": f"{UWSGI} --enable-threads --master -p 2 --lazy-apps",
    "uWSGI, no master": f"{UWSGI} --enable-threads -p 2",
    "waitress": "waitress-serve --listen=ADDRESS flask_app:app",
    "Flask, reloader": "python flask_app.py",
    "Flask, no reloader": "flask --app flask_app run --debug --no-reload --port PORT",
    "Django": f"{GUNICORN} -w 2 django_app:app",
    "Django, preload": f"{GUNICORN} -w 2 --preload django_app:app",
    "Django, reloader": "python manage.py runserver PORT",
    "Django, no reloader": "python manage.py runserver --noreload PORT",
    "Bottle": f"{GUNICORN} -w 2 bottle_app:app",
    "Pyramid": f"{GUNICORN} -w 2 pyramid_app:app",
}


NAMES = [name for name in SERVERS if name != "Django, reloader"]  # that comes further down


# Three at a time, because most of the time they wait for the next second.
@pytest.mark.parametrize("first", range(0, len(NAMES), 3), ids=lambda n: "; ".join(NAMES[n:][:3]))
def test_each_tick_runs_once_pages_are_served_and_the_server_ends(
    make_site: Callable[[], Site], first: int
) -> None:
    sites = {name: make_site() for name in NAMES[first:][:3]}
    for name, site in sites.items():
        site.start(SERVERS[name])
    for name, site in sites.items():
        wait_until(site.answers, site)
        wait_until(lambda site=site: len(site.ticks()) >= 3, site)  # type: ignore[misc]
        assert [site.get() for _ in range(8)] == ["page"] * 8
        masterless = "uwsgi" in SERVERS[name] and "master" not in SERVERS[name]
        assert stop(site) == (UWSGI_END if masterless else 0)
        assert " with 1 task, " in site.log
        check(site)


UWSGI_END = 30  # how a worker of uWSGI ends that has no master


def stop(site: Site) -> int:
    """End a server as its operator does."""
    command = " ".join(map(str, site.process.args))  # type: ignore[arg-type]
    if "gunicorn" in command:
        return site.stop(signal.SIGTERM)
    # Ctrl-C reaches all processes of the terminal; a master passes it on.
    return site.stop(signal.SIGINT, group="--master" not in command)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="its uWSGI has threads, always")
@pytest.mark.parametrize("options", ["", "--master -p 2"])
def test_uwsgi_without_threads_says_so_and_runs_ticks_while_it_answers(
    site: Site, options: str
) -> None:
    site.start(f"{UWSGI} {options}")
    wait_until(site.answers, site)
    wait_until(lambda: site.log.count(" with 1 task, ") == site.workers, site)
    # All workers answer all the time: one that stands still in a run holds its task up.
    with ThreadPoolExecutor(4) as visitors:
        while len(site.ticks()) < 3:
            assert set(visitors.map(site.get, ["/slow"] * 4)) == {"page"}
    began = time.monotonic()
    assert stop(site) == (0 if options else UWSGI_END)
    assert time.monotonic() - began < 10, "nothing runs, so that nothing is to be waited for"
    assert site.log.count("set enable-threads = true") == site.workers
    check(site)


@pytest.mark.parametrize("name", ["gunicorn, preload", "Django, preload", "uWSGI, master"])
def test_nothing_is_started_in_a_master_and_each_worker_starts(site: Site, name: str) -> None:
    """A command's exit status would be taken by gunicorn's arbiter, which reaps every child."""
    site.write("tasks/every_second.py", FALSE + EVERY_SECOND)
    site.start(SERVERS[name])
    wait_until(lambda: site.log.count(" with 2 tasks, ") == site.workers, site)
    wait_until(lambda: len(site.ticks()) >= 3 and len(site.rows("false")) >= 3, site)
    assert stop(site) == 0
    assert "Housekeeper is not started in " in site.log
    assert site.process.pid not in {pid for pid, _ in site.ticks()}
    assert {row.status for row in site.rows("false")} == {Status.FAILED}


@pytest.mark.parametrize("name", ["gunicorn, four workers", "uWSGI, master", "waitress"])
def test_a_running_task_ends_before_the_server_does(site: Site, name: str) -> None:
    site.write("tasks/slow.py", SLOW)
    site.start(SERVERS[name])
    wait_until(site.answers, site)
    wait_until(site.has("begun"), site)
    wait_until(lambda: site.log.count(" with 2 tasks, ") == site.workers, site)
    # uWSGI runs no exit hook when it is ended while it comes up or answers, so it gets a moment.
    seen = len(site.ticks())
    wait_until(lambda: len(site.ticks()) >= seen + 2, site)
    threading.Timer(0.5, (site.folder / "release").touch).start()
    assert stop(site) == 0
    assert site.has("ended")()
    assert [row.status for row in site.rows("slow")] == [Status.SUCCEEDED]
    assert "Traceback" not in site.log


EACH_SECOND = SLOW.replace("startup=True", 'schedule="* * * * * *"')
UNHANDLED = {
    "waitress": SERVERS["waitress"],
    "flask run": "flask --app flask_app run --port PORT",
    "python app.py": "python flask_app.py",
}


@pytest.mark.parametrize("name", UNHANDLED)
def test_a_run_that_sigterm_ended_is_on_record_at_the_next_start_if_not_at_once(
    make_site: Callable[[], Site], name: str
) -> None:
    """Nobody handles the signal in these servers; one site has the line that README gives."""
    text = README.read_text().partition("**Where nobody handles SIGTERM**")[2]
    line = "import signal, sys; " + text.split("`")[5]
    assert "signal.SIGTERM" in line
    source = textwrap.dedent(FLASK).replace("(app)", "(app, shutdown_timeout=0.1)")
    sites = {line: make_site(), "": make_site()}
    for added, site in sites.items():
        site.write("tasks/slow.py", EACH_SECOND)
        site.write("flask_app.py", f"{added}\n{source.replace(', debug=True', '')}")
        site.start(UNHANDLED[name])
    for added, site in sites.items():
        wait_until(site.has("begun"), site)
        assert site.stop(signal.SIGTERM) == (0 if added else -signal.SIGTERM)
        (row,) = [row for row in site.rows("slow") if row.status is not Status.SKIPPED]
        assert row.status is (Status.CANCELLED if added else Status.CRASHED)
        assert added or "which the next one will record" in row.note
        (site.folder / "begun").unlink()
        site.start(UNHANDLED[name])
        wait_until(site.has("begun"), site)
        (ended,) = [each for each in site.rows("slow") if each.id == row.id]
        assert ended.status is row.status
        assert added or "which the next one will record" not in ended.note


@pytest.mark.parametrize("grace", [2, 8])
def test_a_hung_task_holds_no_worker_beyond_the_servers_grace(site: Site, grace: int) -> None:
    """With time enough for its shutdown the run is on record; else gunicorn kills the worker."""
    site.write("tasks/hung.py", HUNG)
    site.write("flask_app.py", FLASK.replace("(app)", "(app, shutdown_timeout=1)"))
    site.start(f"{GUNICORN} -w 2 --graceful-timeout {grace} flask_app:app")
    wait_until(site.has("begun"), site)
    assert stop(site) == 0
    (row,) = site.rows("hung")
    assert row.status is (Status.CRASHED if grace < 1 + hk.STOP_WAIT else Status.CANCELLED)
    assert "Traceback" not in site.log


@pytest.mark.parametrize("preload", ["", "--preload"])
def test_workers_can_be_replaced_at_any_moment(site: Site, preload: str) -> None:
    site.start(f"{GUNICORN} -w 2 {preload} flask_app:app")
    wait_until(lambda: len(site.ticks()) >= 2, site)
    before = {pid for pid, _ in site.ticks()}
    site.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len({pid for pid, _ in site.ticks()} - before) >= 1, site)
    assert site.answers()
    assert stop(site) == 0
    check(site)


@pytest.mark.torture
def test_workers_that_are_recycled_lose_no_tick(site: Site) -> None:
    site.start(f"{GUNICORN} -w 2 --max-requests 3 flask_app:app")
    wait_until(site.answers, site)
    while len(site.ticks()) < 8:
        assert site.get() == "page"
        time.sleep(0.1)
    assert stop(site) == 0
    assert len({pid for pid, _ in site.ticks()}) > 2
    check(site)


def test_a_reloader_runs_no_old_code(make_site: Callable[[], Site]) -> None:
    """The process that waits for the reloaded one has the code of its own start."""
    flask, django = make_site(), make_site()
    flask.start(SERVERS["Flask, reloader"])
    django.start(SERVERS["Django, reloader"])
    for site, touched in ((flask, "flask_app.py"), (django, "shop/apps.py")):
        wait_until(lambda site=site: len(site.ticks()) >= 2, site)  # type: ignore[misc]
        new = EVERY_SECOND.replace('"ticks", "a"', '"new", "a"')
        site.write("tasks/every_second.py", new)
        wait_until(functools.partial(touched_until_noticed, site, touched), site)
    for site in (flask, django):
        wait_until(site.has("new"), site)
        old = site.ticks()
        wait_until(lambda site=site: len(site.lines("new")) >= 4, site)  # type: ignore[misc]
        assert site.ticks() == old
        assert stop(site) == 0
        assert site.process.pid not in {pid for pid, _ in old[1:]}
        pids, ticks = zip(*map(str.split, site.lines("new")), strict=True)
        assert len(set(pids)) == 1
        assert len(set(ticks)) == len(ticks)
        assert "Traceback" not in site.log


def touched_until_noticed(site: Site, name: str) -> bool:
    """Touch a file: what is touched before a reloader has first looked, it takes for old."""
    if site.logged("changed, reloading") or site.logged("Detected change in"):
        return True
    os.utime(site.folder / name)
    return False


# Where gevent or eventlet has replaced threads.

GREEN = f"{UWSGI} --enable-threads --gevent 20"
GREEN_SERVERS = {
    "gunicorn, gevent": f"{GUNICORN} -w 2 -k gevent flask_app:app",
    "gunicorn, gevent, preload": f"{GUNICORN} -w 2 -k gevent --preload flask_app:app",
    "eventlet": "python eventlet_app.py",
    "uWSGI, patched late": f"{GREEN} --gevent-monkey-patch",
    "uWSGI, master, patched late": f"{GREEN} --gevent-monkey-patch --master -p 2",
    "uWSGI, patched early": f"{GREEN} --gevent-early-monkey-patch",
    "uWSGI, master, patched early": f"{GREEN} --gevent-early-monkey-patch --master -p 2",
}

# gunicorn 26 and later have no worker of eventlet's any more.
EVENTLET = """
    import eventlet

    eventlet.monkey_patch()
    import os
    from eventlet import wsgi
    import flask_app

    wsgi.server(eventlet.listen(("127.0.0.1", int(os.environ["PORT"]))), flask_app.app)
"""

GREEN_TASKS = """
    import time
    from housekeeper import Task

    def stuck():
        while True:
            time.sleep(0.05)

    def computing():
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            pass

    tasks = [
        Task("stuck", stuck, startup=True, timeout=0.5),
        Task("computing", computing, startup=True, timeout=0.1),
        Task("command", command="echo command", startup=True, timeout=10),
        *[Task(f"quick{n}", lambda: None) for n in range(4)],
    ]
"""


@pytest.mark.parametrize("name", GREEN_SERVERS)
def test_ticks_timeouts_and_pages_go_on_where_threads_are_replaced(
    site: Site, postgres_server: PostgresServer, postgres_url: str, name: str
) -> None:
    site.write("flask_app.py", FLASK.replace("r(app)", f"r(app, ledger={postgres_url!r})"))
    site.write("eventlet_app.py", EVENTLET)
    site.write("tasks/green.py", GREEN_TASKS)
    site.start(GREEN_SERVERS[name])
    for text in ("stuck timed_out", "computing timed_out", "command succeeded"):
        wait_until(functools.partial(site.logged, f"Task {text}"), site)
    wait_until(lambda: len(site.ticks()) >= 3, site)
    assert site.log.count(" has replaced threads: no page is served while") == site.workers
    with ThreadPoolExecutor() as visitors, frozen(postgres_server):
        waiting = [visitors.submit(site.get, f"/run/quick{n}") for n in range(4)]
        assert [site.get() for _ in range(20)] == ["page"] * 20
        assert not any(each.done() for each in waiting)
    seen = len(site.ticks())
    wait_until(lambda: len(site.ticks()) > seen, site)
    assert stop(site) == 0 or name.startswith("uWSGI, p")  # A worker's own end is 17.
    assert set(Counter(tick for _, tick in site.ticks()).values()) == {1}
    assert "uWSGI" in name or site.log.count(" stopped\n") == site.workers


INTERRUPTED = """
    import collections, logging, queue, random, threading, time
    from housekeeper import Status, Task, create_housekeeper

    logging.disable()
    lock, nothing = threading.Lock(), queue.Queue()

    def work():
        for _ in range(random.randint(1, 12)):
            with lock:
                time.sleep(0.001)
            try:
                nothing.get(timeout=0.001)
            except queue.Empty:
                logging.getLogger("work").warning("nothing")

    tasks = [Task(f"work{n}", work, timeout=0.01, retries=n % 2, retry_delay=0) for n in range(20)]
    housekeeper = create_housekeeper(tasks_dir=None, ledger="memory://")
    for task in tasks:
        housekeeper.register_task(task)
    housekeeper.initialize()
    ended = collections.Counter()
    for _ in range(8):
        for run in [housekeeper.run_task_manually(task.name, wait=False) for task in tasks]:
            assert run.ended.wait(20)
            ended[run.status] += 1
    assert set(ended) <= {Status.SUCCEEDED, Status.TIMED_OUT}, ended
    assert not lock.locked() and housekeeper.shutdown(timeout=5)
    print("interrupted", ended[Status.TIMED_OUT])
"""


@pytest.mark.parametrize(
    "patch",
    ["from gevent import monkey; monkey.patch_all()", "import eventlet; eventlet.monkey_patch()"],
)
def test_interrupts_of_greenlets_that_just_end_hit_nothing_else(site: Site, patch: str) -> None:
    site.write("interrupted.py", INTERRUPTED)
    site.write("program.py", f"{patch}\nimport interrupted")
    site.start("python program.py")
    assert site.ends() == 0
    assert int(site.log.rpartition("interrupted ")[2]) > 20


LATE = """
    import os, threading
    import flask_app
    from gevent import monkey

    monkey.patch_all()
    flask_app.housekeeper.health()
    os._exit(0)
"""


def test_threads_that_are_replaced_after_the_start_are_told_of(site: Site) -> None:
    site.write("late.py", LATE)
    site.start("python late.py")
    assert site.ends() == 0
    assert site.log.count("may stand still: gevent has replaced threads after init") == 1


# A process for each request.

FORKING = """
    import os, signal, socketserver, sys
    from wsgiref import simple_server
    import flask_app

    class Server(socketserver.ForkingMixIn, simple_server.WSGIServer):
        max_children = 8

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    port = int(os.environ["PORT"])
    with simple_server.make_server("127.0.0.1", port, flask_app.app, Server) as server:
        server.serve_forever()
"""


def test_a_process_that_is_forked_for_one_request_never_schedules(site: Site) -> None:
    """It ends before the tick, and would leave a run that has crashed."""
    site.write("forking.py", FORKING)
    site.start("python forking.py")
    wait_until(site.answers, site)
    with ThreadPoolExecutor(4) as visitors:
        while len(site.ticks()) < 3:
            assert set(visitors.map(site.get, ["/"] * 20)) == {"page"}
            assert site.get("/started") == '{"started":false}\n'
    began = time.monotonic()
    assert site.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    assert {pid for pid, _ in site.ticks()} == {site.process.pid}
    assert site.log.count(" with 1 task, ") == 1
    check(site)


# Children of tasks.

SPREAD = """
    import multiprocessing, os
    from housekeeper import task
    from children import ask

    @task()
    def spread():
        for method in ("fork", "spawn"):
            child = multiprocessing.get_context(method).Process(target=ask)
            child.start()
            child.join()
        if os.fork() == 0:
            ask()
            os._exit(0)
        os.wait()
"""

CHILDREN = """
    import flask_app

    def ask():
        text = flask_app.app.test_client().get("/started").text
        with open("children", "a") as children:
            children.write(text)
"""

PROGRAM = """
    import flask_app

    if __name__ == "__main__":
        print(flask_app.housekeeper.run_task_manually("spread").status)
"""


def test_what_a_task_forks_never_schedules(site: Site) -> None:
    site.write("tasks/spread.py", SPREAD)
    site.write("children.py", CHILDREN)
    site.write("program.py", PROGRAM)
    site.start("python program.py")
    assert site.ends() == 0
    assert "succeeded" in site.log
    assert site.log.count(" with 2 tasks, ") == 1
    children = (site.folder / "children").read_text().split()
    assert children == ['{"started":false}'] * 3
    assert "Traceback" not in site.log


STARTING = """
    import subprocess, sys
    from pathlib import Path
    from housekeeper import Task

    # A shell is between the scheduler and what it starts.
    child = f"cd /; cd {Path.cwd()}; {sys.executable} child.py"
    command = Task("command", command=f"{child} command && true")
    call = Task("call", lambda: subprocess.run(f"{child} call && true", shell=True, check=True))
    free = "exec env -u HOUSEKEEPER_SCHEDULER"
    other = Task("other", command=f"mkdir other; cd other; {free} {sys.executable} ../other.py")
    by_command = Task("by-command", lambda: None)
    by_call = Task("by-call", lambda: None)
"""

# It stays while the scheduler that it is started under runs three ticks.
CHILD = """
    import pathlib, sys, time
    import flask_app

    def ticks():
        return pathlib.Path("ticks").read_text().count("\\n")

    status = flask_app.housekeeper.run_task_manually(f"by-{sys.argv[1]}").status
    seen = ticks()
    while ticks() < seen + 3:
        time.sleep(0.05)
    with open("children", "a") as children:
        children.write(f"{sys.argv[1]} {status}\\n")
"""

# Another application, with a ledger of its own: it is left to itself without the variable.
OTHER = """
    import logging, pathlib, time
    from housekeeper import create_housekeeper

    logging.basicConfig(level=logging.INFO)
    create_housekeeper(ledger="sqlite:///other/ledger.db").initialize()
    while not pathlib.Path("ticks").exists():
        time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("server", "ledger"),
    [("waitress", "memory://"), ("Flask, reloader", "sqlite:///housekeeper.db")],
)
def test_what_a_task_starts_leaves_the_ticks_to_its_scheduler(
    site: Site, server: str, ledger: str
) -> None:
    """Between ledgers in memory nothing else would keep a tick from being run twice."""
    site.write("flask_app.py", FLASK.replace("r(app)", f"r(app, ledger={ledger!r})"))
    site.write("tasks/starting.py", STARTING)
    site.write("child.py", CHILD)
    site.write("other.py", OTHER)
    site.start(SERVERS[server])
    wait_until(lambda: len(site.ticks()) >= 2, site)
    wait_until(site.answers, site)
    for name in ("command", "call", "other"):
        assert site.get(f"/run/{name}")
    for name in ("command", "call", "other"):
        wait_until(functools.partial(site.logged, f"Task {name} succeeded"), site)
    assert sorted(site.lines("children")) == ["call succeeded", "command succeeded"]
    (scheduler,) = {pid for pid, _ in site.ticks()[1:]}  # A reloader's parent may run one.
    assert site.log.count(f"does not schedule, because process {scheduler}, which") == 2
    assert "sqlite:///" + str(site.folder / "other/ledger.db") in site.log
    assert stop(site) == 0
    if ledger == "memory://":
        assert set(Counter(tick for _, tick in site.ticks()).values()) == {1}
    else:
        check(site)


OUTLIVING = """
    import subprocess, sys, time

    if sys.argv[1:] == ["late"]:
        while sys.stdin.read():  # until nobody has the other end of the pipe
            pass
    import flask_app

    if not sys.argv[1:]:
        for name in ("early", "late"):
            subprocess.Popen([sys.executable, __file__, name], stdin=subprocess.PIPE)
    time.sleep(600)
"""


def test_what_initializes_after_its_scheduler_has_ended_schedules(site: Site) -> None:
    site.write("outliving.py", OUTLIVING)
    site.start("python outliving.py")
    outer = site.process.pid
    wait_until(lambda: f"does not schedule, because process {outer}" in site.log, site)
    wait_until(lambda: len(site.ticks()) >= 2, site)
    assert {pid for pid, _ in site.ticks()} == {outer}
    os.kill(outer, signal.SIGKILL)  # Nobody waits for it yet: it is a zombie.
    wait_until(lambda: site.log.count(" started by initialize() with 1 task, ") == 2, site)
    wait_until(lambda: len({pid for pid, _ in site.ticks()}) == 2, site)
    assert set(Counter(tick for _, tick in site.ticks()).values()) == {1}
    assert "Traceback" not in site.log
