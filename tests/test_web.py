"""The web door: its JSON API, who may use it, its limits, metrics, and the server of --http."""

from __future__ import annotations

import contextlib
import errno
import functools
import http.client
import io
import json
import logging
import math
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import flask
import pytest
from prometheus_client.parser import text_string_to_metric_families

import housekeeper as hk
from housekeeper import ConfigurationError, Status, Task, current_run
from tests import waiting
from tests.environment import environment

PATIENCE = 60.0  # seconds after which a test gives up
TOKEN = "a-token-for-the-tests"
PREFIX = "/api/housekeeper"
UTC = timezone.utc


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Caller = Callable[..., Answer]


def call_wsgi(app: Any, method: str, path: str, **extra: Any) -> Answer:
    """Call a WSGI application, with wsgiref's validator round it."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    path, _, query = path.partition("?")
    environ.update(
        REQUEST_METHOD=method, PATH_INFO=path, QUERY_STRING=query, SCRIPT_NAME="", **extra
    )
    got: list[Any] = []
    result = validator(app)(environ, lambda *head: got.extend(head) or io.BytesIO().write)
    try:
        body = b"".join(result)
    finally:
        result.close()
    return Answer(int(got[0][:3]), dict(got[1]), body)


class Door:
    """One way to reach the web door, and a caller who has the token."""

    def __init__(self, reach: Caller) -> None:
        self._reach = reach

    def __call__(
        self, method: str, path: str, token: str | None = TOKEN, **headers: str
    ) -> Answer:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return self._reach(method, path, headers)

    def get(self, path: str) -> Any:
        answer = self("GET", path)
        assert answer.status == 200, answer
        return answer.json

    def post(self, path: str) -> Answer:
        return self("POST", path)


def bare_door(housekeeper: hk.Housekeeper, **options: Any) -> Door:
    """The application itself."""
    app = housekeeper.web_app(**options)

    def reach(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        extra = {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()}
        return call_wsgi(app, method, path, **extra)

    return Door(reach)


def flask_door(housekeeper: hk.Housekeeper, **options: Any) -> Door:
    """The application mounted in Flask."""
    app = flask.Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "the shop")
    app.wsgi_app = housekeeper.mount(app.wsgi_app, **options)  # type: ignore[method-assign]
    app.wsgi_app = validator(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client(use_cookies=False)

    def reach(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        got = client.open(PREFIX + path, method=method, headers=dict(headers), buffered=True)
        return Answer(got.status_code, got.headers, got.data)

    return Door(reach)


@contextlib.contextmanager
def served(app: Any, clock: hk.Clock | None = None) -> Iterator[int]:
    """Serve an application as --http does; yield the port."""
    server = hk.HttpServer(app, "127.0.0.1", 0, clock or hk.SystemClock())
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def over_http(port: int) -> Caller:
    def reach(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request(method, PREFIX + path, headers=dict(headers))
        got = connection.getresponse()
        answer = Answer(got.status, dict(got.getheaders()), got.read())
        connection.close()
        return answer

    return reach


@pytest.fixture(params=["bare", "flask", "http"])
def open_door(request: Any) -> Iterator[Callable[..., Door]]:
    """Make a door to a Housekeeper: the application bare, mounted in Flask, or served."""
    contexts: list[Any] = []

    def make_door(housekeeper: hk.Housekeeper, **options: Any) -> Door:
        if request.param == "bare":
            return bare_door(housekeeper, **options)
        if request.param == "flask":
            return flask_door(housekeeper, **options)
        context = served(housekeeper.mount(hk._lead_to_page, **options))
        contexts.append(context)
        return Door(over_http(context.__enter__()))

    yield make_door
    for context in contexts:
        context.__exit__(None, None, None)


def fail() -> None:
    raise ValueError("no such table: tokens")


class Held:
    """A task that runs until it is let go or cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> None:
        run = current_run()
        run.progress(1, 3, "files")
        logging.getLogger("held").warning("holding on")
        run.on_cancel(self.go.set)
        self.begun.set()
        assert self.go.wait(PATIENCE)
        run.check_cancelled()


@pytest.fixture
def held() -> Iterator[Held]:
    task = Held()
    yield task
    task.go.set()


eventually = functools.partial(waiting.eventually, within=PATIENCE)


def ok() -> None:
    pass


# The API, through each door.


def test_the_tasks_and_their_status_are_the_seeds_fields_and_more(make, open_door) -> None:
    tasks = (
        Task("sweep", ok, schedule="30 2 * * *", description="Sweep.", timezone="Europe/Berlin"),
        Task("by-hand", ok),
    )
    housekeeper = make(*tasks)
    door = open_door(housekeeper, token=TOKEN)
    answer = door.get("/tasks")
    by_hand, sweep = answer["tasks"]
    assert (by_hand["name"], by_hand["schedule"], by_hand["next_run"]) == ("by-hand", None, None)
    assert sweep["schedule"] == "30 2 * * *"
    assert sweep["schedule_in_words"] == "every day at 02:30"
    assert (sweep["running"], sweep["scheduled"], sweep["paused"]) == (False, True, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:30:00Z", sweep["next_run"])
    assert datetime.fromisoformat(answer["now"].replace("Z", "+00:00")).tzinfo is not None
    status = door.get("/tasks/sweep/status")
    assert status.items() <= {"registered": True, **sweep}.items()
    assert door("GET", "/tasks/swep/status").status == 404


def test_a_run_by_hand_answers_at_once_or_with_its_outcome(make, open_door) -> None:
    housekeeper = make(Task("good", ok), Task("bad", fail))
    door = open_door(housekeeper, token=TOKEN)
    at_once = door.post("/tasks/good/run")
    assert at_once.status in (200, 202), "it may have ended by then"
    assert at_once.json["success"] is True
    eventually(lambda: not housekeeper.get_task_status("good")["running"])
    waited = door.post("/tasks/good/run?wait=25")
    assert (waited.status, waited.json["run"]["status"]) == (200, "succeeded")
    failed = door.post("/tasks/bad/run?wait=25")
    assert failed.status == 500
    assert failed.json["error"] == "the run ended as failed: ValueError: no such table: tokens"
    assert "Traceback" not in failed.body.decode()
    unknown = door.post("/tasks/goood/run")
    assert unknown.status == 404
    assert "did you mean 'good'" in unknown.json["error"]


def test_a_double_click_is_one_run_and_the_second_is_told_of_it(make, open_door, held) -> None:
    housekeeper = make(Task("held", held))
    door = open_door(housekeeper, token=TOKEN)
    first = door.post("/tasks/held/run")
    assert first.status == 202
    assert held.begun.wait(PATIENCE)
    second = door.post("/tasks/held/run?wait=25")
    assert second.status == 409
    assert second.json["run"]["id"] == first.json["run"]["id"]
    assert "running already" in second.json["error"]
    assert len(housekeeper.history("held")) == 1


def test_a_running_run_shows_progress_and_output_and_can_be_cancelled(
    make, open_door, held
) -> None:
    housekeeper = make(Task("held", held))
    door = open_door(housekeeper, token=TOKEN)
    run_id = door.post("/tasks/held/run").json["run"]["id"]
    assert held.begun.wait(PATIENCE)
    live = door.get(f"/runs/{run_id}")
    assert (live["status"], "holding on" in live["output"]) == ("running", True)
    (task,) = door.get("/tasks")["tasks"]
    assert task["running"] is True
    assert task["progress"] == {"done": 1, "total": 3, "unit": "files"}
    assert door.post("/tasks/held/cancel").status == 202
    eventually(lambda: door.get(f"/runs/{run_id}")["status"] == "cancelled")
    eventually(lambda: door.post("/tasks/held/cancel").status == 409)


def test_a_pause_is_told_and_ended(make, open_door) -> None:
    door = open_door(make(Task("sweep", ok, schedule="@daily")), token=TOKEN)
    assert door.post("/tasks/sweep/pause").json == {"success": True, "changed": True}
    assert door.post("/tasks/sweep/pause").json == {"success": True, "changed": False}
    status = door.get("/tasks/sweep/status")
    assert (status["paused"], status["scheduled"], status["next_run"]) == (True, False, None)
    assert door.post("/tasks/sweep/resume").json == {"success": True, "changed": True}
    assert door.get("/tasks/sweep/status")["scheduled"] is True


def test_runs_come_in_pages_without_their_texts_and_one_with_them(make, open_door) -> None:
    housekeeper = make(Task("good", ok), Task("bad", fail))
    door = open_door(housekeeper, token=TOKEN)
    for _ in range(5):
        housekeeper.run_task_manually("good")
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("bad")
    ids, page = [], {"before": ""}
    while page["before"] is not None:
        query = f"&before={page['before']}" if page["before"] else ""
        page = door.get(f"/tasks/good/runs?limit=2{query}")
        ids += [run["id"] for run in page["runs"]]
    assert ids == [run.id for run in housekeeper.history("good")]
    assert len(ids) == 5
    (brief,) = door.get("/tasks/bad/runs")["runs"]
    assert "output" not in brief
    whole = door.get(f"/runs/{brief['id']}")
    assert "ValueError: no such table" in whole["error"]
    assert whole["started_at"].endswith("Z")
    assert door("GET", "/runs/none").status == 404
    assert door("GET", "/tasks/none/runs").status == 404


def test_the_runs_of_all_tasks_come_in_pages_and_by_outcome(make, open_door) -> None:
    housekeeper = make(Task("good", ok), Task("bad", fail))
    door = open_door(housekeeper, token=TOKEN)
    for _ in range(3):
        housekeeper.run_task_manually("good")
        with pytest.raises(ValueError, match="no such table"):
            housekeeper.run_task_manually("bad")
    failed, page = [], {"before": ""}
    while page["before"] is not None:
        query = f"&before={page['before']}" if page["before"] else ""
        page = door.get(f"/runs?outcome=failed,crashed&limit=2{query}")
        failed += page["runs"]
    assert [run["id"] for run in failed] == [run.id for run in housekeeper.history("bad")]
    assert failed[0]["note"] == "ValueError: no such table: tokens"
    assert not {"output", "error"} & failed[0].keys()
    every = door.get("/runs")
    assert [run["id"] for run in every["runs"]] == [run.id for run in housekeeper.history()]
    assert every["before"] is None
    assert door("GET", "/runs?outcome=all").status == 400
    assert door.get("/tasks/good/runs?outcome=failed")["runs"] == []
    assert door.get("/tasks/bad/runs?outcome=failed&limit=1")["runs"] == failed[:1]


def test_a_failure_before_a_thousand_successes_is_found_at_once(make, tmp_path) -> None:
    housekeeper = make(Task("bad", fail), ledger=f"sqlite:///{tmp_path}/ledger.db")
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("bad")
    (failed,) = housekeeper.history("bad")
    later = [f"('{int(failed.id, 16) + number:024x}')" for number in range(1, 1003)]
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
        ledger.execute(
            f"WITH later(id) AS (VALUES {', '.join(later)}) INSERT INTO housekeeper_runs"
            " (id, task, reason, status, runner, started_at, finished_at) SELECT later.id,"
            " '/good', 'schedule', 'succeeded', 'x', started_at, finished_at"
            " FROM later, housekeeper_runs"
        )
        ledger.commit()
    page = bare_door(housekeeper, token=TOKEN).get("/runs?outcome=failed,timed_out,crashed")
    assert [run["id"] for run in page["runs"]] == [failed.id]
    assert page["before"] is None


RUNNER = {"runner": "vm:1:ab", "host": "vm", "pid": 1, "version": "0.1.0", "workers": 10,
          "started_at": datetime(2026, 1, 1, tzinfo=UTC), "problems": [], "alive": True,
          "beat_at": datetime(2026, 1, 2, tzinfo=UTC), "stopped_at": None}  # fmt: skip


def test_the_runners_and_what_fails_are_told_to_people_and_to_prometheus(
    make, open_door, monkeypatch
) -> None:
    housekeeper = make(Task("sweep", ok))
    door = open_door(housekeeper, token=TOKEN)
    failing = {"task": "sweep", "count": 5, "since": RUNNER["beat_at"], "error": "ValueError"}
    health = {
        **housekeeper.health(),
        "status": "warning",
        "runners": [RUNNER, {**RUNNER, "alive": False}],
        "failing": [failing],
    }
    tasks = [{**each, "failures": 5} for each in housekeeper.list_tasks()]
    monkeypatch.setattr(hk.Housekeeper, "health", lambda self: health)
    monkeypatch.setattr(hk.Housekeeper, "list_tasks", lambda self: tasks)
    monkeypatch.setattr(hk.Housekeeper, "runners", lambda self: health["runners"])
    first, second = door.get("/runners")["runners"]
    assert (first["beat_at"], first["alive"], second["alive"]) == (
        "2026-01-02T00:00:00Z", True, False
    )  # fmt: skip
    assert door("GET", "/health").status == 200, "a task that fails shuts no door"
    found = metrics_of(door)
    assert value_of(found["housekeeper_runners_alive"]) == 1
    assert value_of(found["housekeeper_tasks_failing"]) == 1
    assert value_of(found["housekeeper_failures"], task="sweep") == 5


def test_the_agenda_names_each_tick_of_a_day_and_the_tasks_that_come_all_the_time(
    make, open_door
) -> None:
    tasks = [Task(name, ok, schedule="30 2 * * *") for name in ("one", "two", "paused")]
    tasks += [Task("often", ok, schedule="*/5 * * * *"), Task("hourly", ok, schedule="@hourly")]
    housekeeper = make(*tasks)
    housekeeper.pause_task("paused")
    agenda = open_door(housekeeper, token=TOKEN).get("/agenda")
    assert agenda["often"] == ["often"]
    named = {each["at"]: each["tasks"] for each in agenda["ticks"]}
    assert [each for each in named.values() if "two" in each] == [["one", "two"]]
    assert sum(each == ["hourly"] for each in named.values()) in (24, 25)
    assert list(named) == sorted(named)


def test_why_takes_an_instant_with_an_offset_or_in_the_tasks_zone(make, open_door) -> None:
    housekeeper = make(Task("sweep", ok, schedule="30 2 * * *", timezone="Europe/Berlin"))
    door = open_door(housekeeper, token=TOKEN)
    for text in ("2026-07-01T02:30", "2026-07-01T00:30:00Z", "2026-07-01T02:30:00%2B02:00"):
        answer = door.get(f"/tasks/sweep/why?instant={text}")
        assert answer["sentences"]
        assert answer["instant"] == answer["tick"] == "2026-07-01T00:30:00Z"
    for text in ("yesterday%202:30", "02:30"):
        tick = door.get(f"/tasks/sweep/why?instant={text}")["tick"]
        assert re.search("T0[01]:30:00Z$", tick), "half past two in Berlin"
    assert door.get("/tasks/sweep/why")["task"] == "sweep"
    assert door("GET", "/tasks/sweep/why?instant=yesterday").status == 400
    assert door("GET", "/tasks/none/why").status == 404


def test_health_is_one_word_for_strangers_and_503_when_critical(
    make, open_door, monkeypatch
) -> None:
    housekeeper = make(Task("sweep", ok))
    door = open_door(housekeeper, token=TOKEN)
    assert door("GET", "/health", token=None).json == {"status": "ok"}
    assert door.get("/health").items() >= {"status": "ok", "version": hk.__version__}.items()
    critical = {**housekeeper.health(), "status": "critical", "problems": ["it is broken"]}
    monkeypatch.setattr(hk.Housekeeper, "health", lambda self: critical)
    answer = door("GET", "/health", token=None)
    assert (answer.status, answer.json) == (503, {"status": "critical"})
    assert door("GET", "/health").json["problems"] == ["it is broken"]


def test_the_answers_are_the_ledgers_in_every_process(make, tmp_path, held) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    one, other = (make(Task("held", held), ledger=ledger) for _ in range(2))
    first = bare_door(one, token=TOKEN).post("/tasks/held/run")
    assert held.begun.wait(PATIENCE)
    door = bare_door(other, token=TOKEN)
    second = door.post("/tasks/held/run")
    assert (second.status, second.json["run"]["id"]) == (409, first.json["run"]["id"])
    assert door.get("/tasks/held/status")["running"] is True
    cancelled = door.post("/tasks/held/cancel")
    assert cancelled.json["run"]["stop_reason"] == "cancelled"


# Who may use it.


def test_mounted_without_token_or_authorize_all_is_refused(make, open_door, caplog) -> None:
    door = open_door(make(Task("sweep", ok)))
    for path in ("/", "/health", "/tasks", "/dashboard.js", "/nothing"):
        answer = door("GET", path)
        assert answer.status == 403
        assert "token= or authorize=" in answer.json["error"]
    assert "Web: refused 'GET' '/tasks'" in caplog.text


@pytest.mark.parametrize(
    "token", [None, "", "wrong-token-wrong", TOKEN + "x", TOKEN[:-1], "ü" * 20]
)
def test_without_the_right_token_there_is_nothing_but_the_page_and_one_word(
    make, open_door, token, caplog
) -> None:
    housekeeper = make(Task("sweep", ok))
    door = open_door(housekeeper, token=TOKEN)
    value = token if token is None else token.encode().decode("latin-1")
    for route in hk.ROUTES:
        path = re.sub("<.*>", "sweep", route.path)
        answer = door(route.method, path, token=value)
        if route.is_open:
            assert answer.status == 200
            continue
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert f"Web: refused '{route.method}' '{path}' from" in caplog.text
    assert door("GET", "/nothing", token=value).status == 401, "what exists is not told"
    assert housekeeper.history() == []
    assert TOKEN not in caplog.text


def test_the_right_token_may_have_any_characters(make, open_door) -> None:
    door = open_door(make(), token="schlüssel-für-alles")
    assert (
        door("GET", "/tasks", token="schlüssel-für-alles".encode().decode("latin-1")).status == 200
    )
    assert door("GET", "/tasks", token="schlussel-fur-alles").status == 401


@pytest.mark.parametrize("token", [f"{TOKEN}\n", "et-voilà-et-voilà"])
def test_spaces_round_a_token_do_not_count(make, open_door, token: str) -> None:
    door = open_door(make(), token=token)
    sent = token.strip().encode().decode("latin-1")
    assert door("GET", "/tasks", token=sent).status == 200


def test_the_applications_own_rule_opens_the_door_and_a_form_still_cannot_post(
    make, open_door
) -> None:
    housekeeper = make(Task("sweep", ok))
    door = open_door(housekeeper, authorize=lambda environ: "admin" in environ["HTTP_COOKIE"])
    admin = {"Cookie": "session=admin"}
    assert door("GET", "/tasks", token=None, **admin).status == 200
    assert door("GET", "/tasks", token=None, Cookie="session=guest").status == 403
    assert door("GET", "/tasks", token=None).status == 403, "authorize raised KeyError"
    forged = door("POST", "/tasks/sweep/run", token=None, **admin)
    assert (forged.status, housekeeper.history()) == (403, [])
    meant = {**admin, "X-Housekeeper": "1"}
    assert door("POST", "/tasks/sweep/run?wait=25", token=None, **meant).status == 200


def test_weak_tokens_and_wrong_options_are_refused_when_it_is_made(make) -> None:
    housekeeper = make()
    for token in ("", "short", " " * 20, 7):
        with pytest.raises(ConfigurationError, match="could be guessed"):
            housekeeper.web_app(token=token)
    with pytest.raises(ConfigurationError, match="authorize='yes' is not callable"):
        housekeeper.web_app(authorize="yes")
    for prefix in ("", "/", "api", "/api/", "/a b"):
        with pytest.raises(ConfigurationError, match="is not a path such as"):
            housekeeper.mount(ok, prefix)


def test_who_is_refused_cannot_write_lines_into_the_log(make, caplog) -> None:
    door = bare_door(make(), token=TOKEN)
    assert door("GET", "/tasks\r\nERROR all is lost", token="x").status == 401
    assert "\nERROR all is lost" not in caplog.text
    assert r"\r\nERROR all is lost" in caplog.text


# Limits, methods, headers, errors.


def test_each_answer_forbids_what_a_page_could_be_made_to_do(make, open_door) -> None:
    door = open_door(make(Task("sweep", ok)), token=TOKEN)
    for path in ("/", "/dashboard.css", "/dashboard.js", "/tasks", "/health", "/nothing"):
        headers = door("GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
    page = door("GET", "/").body.decode()
    assert not re.search(r"https?://|<script>|<style|style=| on\w+=", page)


def test_methods_that_a_path_does_not_have_get_405_with_those_it_has(make, open_door) -> None:
    door = open_door(make(Task("sweep", ok)), token=TOKEN)
    for method, path, allow in (
        ("POST", "/tasks", "GET, HEAD, OPTIONS"),
        ("DELETE", "/tasks/sweep/status", "GET, HEAD, OPTIONS"),
        ("GET", "/tasks/sweep/run", "POST, OPTIONS"),
    ):
        answer = door(method, path)
        assert (answer.status, answer.headers["Allow"]) == (405, allow)
        assert allow in answer.json["error"]
    options = door("OPTIONS", "/tasks/sweep/run")
    assert (options.status, options.headers["Allow"], options.body) == (204, "POST, OPTIONS", b"")
    head, get = door("HEAD", "/tasks/sweep/status"), door("GET", "/tasks/sweep/status")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.body))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tasks/" + "x" * 600 + "/status", 414),
        ("/tasks?" + "x" * 3000, 414),
        ("/tasks/sweep/runs?limit=201", 400),
        ("/tasks/sweep/runs?limit=-1", 400),
        ("/tasks/sweep/runs?limit=x", 400),
        ("/tasks/sweep/runs?limit=", 400),
        ("/tasks/sweep/runs?before=%00", 400),
        ("/tasks/sweep/runs?before=<b>", 400),
        ("/tasks/sweep/why?instant=0001-01-01T00:00:00%2B14:00", 400),
        ("/tasks/..%2F..%2Fetc%2Fpasswd/status", 404),
        ("/tasks/%00/status", 404),
        ("/tasks//status", 404),
        ("/runs/%ff", 404),
        ("//tasks", 404),
        ("/tasks/", 404),
    ],
)
def test_what_is_too_long_or_malformed_is_told_so(make, open_door, path, status) -> None:
    assert open_door(make(Task("sweep", ok)), token=TOKEN)("GET", path).status == status


def test_a_body_that_is_too_long_is_refused_with_an_answer_that_arrives(make) -> None:
    with served(make(Task("sweep", ok)).web_app(token=TOKEN)) as port:
        for _ in range(10):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            connection.request("POST", "/tasks/sweep/run", b"x" * 2_000_000, headers)
            assert connection.getresponse().status == 413
            connection.close()


class Exhausted:
    """A listener in a process that has no file left for a connection."""

    def accept(self) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        pass


def test_a_process_without_a_free_file_waits_before_it_accepts_again(make) -> None:
    waits: list[float | None] = []

    class Watched(hk.SystemClock):
        def wait(self, waitable: hk.Waitable, seconds: float | None) -> None:
            waits.append(seconds)

    server = hk.HttpServer(make().web_app(token=TOKEN), "127.0.0.1", 0, Watched())
    server.socket.close()
    server.socket = Exhausted()  # type: ignore[assignment]
    with pytest.raises(OSError, match="Too many"):
        server.get_request()
    assert waits == [0.1]


def test_bodies_are_bounded(make) -> None:
    app = make(Task("sweep", ok)).web_app(token=TOKEN)
    trusted = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    for size, status in (("65536", 200), ("65537", 413), ("-1", 400), ("many", 400)):
        # The validator itself would refuse the last two.
        environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "PATH_INFO": "/tasks/sweep/pause"}
        got: list[str] = []
        b"".join(
            app(
                {**environ, **trusted, "CONTENT_LENGTH": size},
                lambda line, headers, got=got: got.append(line),
            )
        )
        assert got[0].startswith(str(status)), size


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """Yield a port at which every connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_ledger_out_of_reach_is_503_and_neither_its_place_nor_a_trace_is_told(
    make, open_door
) -> None:
    with nobody_listens() as port:
        url = f"postgresql://shop:geheim@127.0.0.1:{port}/till"
        door = open_door(make(Task("sweep", ok), ledger=url), token=TOKEN)
        for method, path in (
            ("GET", "/tasks/sweep/runs"),
            ("GET", "/runs?outcome=failed"),
            ("POST", "/tasks/sweep/run"),
            ("GET", "/runs/1"),
            ("GET", "/runners"),
            ("POST", "/tasks/sweep/pause"),
        ):
            answer = door(method, path)
            assert (answer.status, answer.json) == (503, {"error": "the ledger cannot be reached"})
        (task,) = door.get("/tasks")["tasks"]
        assert task["source"] == "this process"
        health = door("GET", "/health")
        assert (health.status, health.json["status"]) == (503, "critical")
        assert "The ledger cannot be reached." in health.json["problems"]
        assert not re.search(f"geheim|till|{port}", health.body.decode())
        (failures,) = metrics_of(door)["housekeeper_ledger_errors"]
        assert failures.value >= 4


def test_a_fault_of_housekeepers_own_is_500_with_the_trace_in_the_log_only(
    make, open_door, monkeypatch, caplog
) -> None:
    door = open_door(make(Task("sweep", ok)), token=TOKEN)
    monkeypatch.setattr(hk.Housekeeper, "list_tasks", lambda self: {}["of the internals"])
    answer = door("GET", "/tasks")
    assert (answer.status, answer.json) == (500, {"error": "this failed; the log says why"})
    assert "KeyError: 'of the internals'" in caplog.text


def test_disabled_and_not_started_are_said(make) -> None:
    for options, why in (({"enabled": False}, "switched off"), ({"start": False}, "initialize")):
        answer = bare_door(make(Task("sweep", ok), **options), token=TOKEN).post(
            "/tasks/sweep/run"
        )
        assert answer.status == 503
        assert why in answer.json["error"]


# Where it is mounted.


def test_mount_leaves_the_rest_to_the_application_and_leads_to_the_page(make) -> None:
    seen: list[tuple[str, str]] = []

    def shop(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"shop"]

    app = make().mount(shop, "/ops/keeper", token=TOKEN)
    for path in ("/", "/ops", "/ops/keepers", "/tasks", "/api/housekeeper/tasks"):
        assert call_wsgi(app, "GET", path).body == b"shop"
    assert seen[-1] == ("", "/api/housekeeper/tasks")
    bare = call_wsgi(app, "GET", "/ops/keeper")
    assert (bare.status, bare.headers["Location"]) == (302, "keeper/")
    page = call_wsgi(app, "GET", "/ops/keeper/")
    assert b'<script src="dashboard.js" defer>' in page.body
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    trusted = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    assert call_wsgi(app, "GET", "/ops/keeper/tasks", **trusted).status == 200


# What it reads in the ledger.


def test_a_run_of_another_namespace_is_not_shown(make, tmp_path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    shop, other = (make(Task("sweep", ok), ledger=ledger, namespace=name) for name in ("s", "o"))
    run = shop.run_task_manually("sweep")
    assert shop.get_run(run.id).id == run.id
    assert other.get_run(run.id) is None
    assert bare_door(other, token=TOKEN)("GET", f"/runs/{run.id}").status == 404


def test_pages_and_last_successes_are_found_by_an_index(make, tmp_path, monkeypatch) -> None:
    path, asked = tmp_path / "ledger.db", []
    connect = sqlite3.connect

    def watched(*values: Any, **options: Any) -> Any:
        connection = connect(*values, **options)
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    # Not started, so that nothing else asks.
    housekeeper = make(Task("sweep", ok), ledger=f"sqlite:///{path}", start=False)
    housekeeper.ledger.open()
    asked.clear()
    for question in (
        lambda: housekeeper.history("sweep", 30, "0" * 24),
        lambda: housekeeper.history(None, 30, "0" * 24),
        lambda: housekeeper.history("sweep", 30, statuses=hk.FAILURES),
        lambda: housekeeper.history(statuses=[Status.SKIPPED, Status.CANCELLED, Status.RUNNING]),
        lambda: housekeeper.get_run("0" * 24),
        lambda: housekeeper.get_task_status("sweep"),
    ):
        question()
        selects = [sql for sql in asked if re.search("SELECT.* FROM housekeeper_runs", sql, re.S)]
        assert selects
        asked.clear()
        with contextlib.closing(connect(path)) as reader:
            for sql in selects:
                rows = reader.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
                plan = [str(row[3]) for row in rows if "housekeeper_runs" in row[3]]
                assert plan, sql
                found = [re.search("SEARCH.* USING .*INDEX|_one_running", step) for step in plan]
                assert all(found), (sql, plan)


def test_the_last_success_is_told_although_later_runs_failed(make) -> None:
    works = [True]
    housekeeper = make(Task("sweep", lambda: None if works[0] else fail()))
    assert housekeeper.get_task_status("sweep")["last_success"] is None
    good = housekeeper.run_task_manually("sweep")
    row = housekeeper.get_run(good.id)
    assert housekeeper.get_task_status("sweep")["last_success"] == row.finished_at
    works[0] = False
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("sweep")
    status = housekeeper.get_task_status("sweep")
    assert status["last_run"].status is Status.FAILED
    assert status["last_success"] == row.finished_at


# Metrics.


def metrics_of(door: Door) -> dict[str, list[Any]]:
    """Return the samples of each metric, as Prometheus' own parser reads them."""
    answer = door("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {family.name: family.samples for family in families}


def value_of(samples: list[Any], suffix: str = "", **labels: str) -> float:
    (found,) = (
        sample.value
        for sample in samples
        if sample.name.endswith(suffix) and labels.items() <= sample.labels.items()
    )
    return float(found)


def test_metrics_count_outcomes_durations_lateness_and_what_goes_on(make, open_door, held) -> None:
    ticked = threading.Event()
    housekeeper = make(
        Task("good", ok),
        Task("bad", fail),
        Task("held", held),
        Task("ticks", ticked.set, schedule="* * * * * *"),
        max_workers=3,
    )
    door = open_door(housekeeper, token=TOKEN)
    before = time.time()
    for _ in range(3):
        housekeeper.run_task_manually("good")
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("bad")
    housekeeper.run_task_manually("held", wait=False)
    assert held.begun.wait(PATIENCE)
    assert ticked.wait(PATIENCE)
    lateness = "housekeeper_lateness_seconds"
    eventually(lambda: value_of(metrics_of(door)[lateness], "_count") >= 1)
    found = metrics_of(door)
    runs, seconds = found["housekeeper_runs"], found["housekeeper_run_seconds"]
    assert value_of(runs, task="good", status="succeeded") == 3
    assert value_of(runs, task="bad", status="failed") == 1
    assert value_of(seconds, "_count", task="good") == 3
    assert value_of(seconds, "_bucket", task="good", le="+Inf") == 3
    assert 0 <= value_of(seconds, "_sum", task="good") < PATIENCE
    assert value_of(found["housekeeper_running"], task="held") == 1
    assert value_of(found["housekeeper_running"], task="good") == 0
    assert value_of(found["housekeeper_last_success_timestamp_seconds"], task="good") >= before - 1
    assert value_of(found["housekeeper_workers"]) == 3
    assert value_of(found["housekeeper_workers_busy"]) >= 1
    assert value_of(found["housekeeper_build_info"], version=hk.__version__) == 1
    assert value_of(found["housekeeper_overdue_seconds"], task="good") == 0


def test_metrics_say_nothing_of_tasks_while_the_ledger_is_away(make) -> None:
    here = bare_door(make(Task("sweep", ok, schedule="@daily")), token=TOKEN)
    assert value_of(metrics_of(here)["housekeeper_paused"], task="sweep") == 0
    with nobody_listens() as port:
        away = make(
            Task("sweep", ok, schedule="@daily"), ledger=f"postgresql://127.0.0.1:{port}/x"
        )
        found = metrics_of(bare_door(away, token=TOKEN))
    for name in ("running", "paused", "last_success_timestamp_seconds", "overdue_seconds"):
        assert found[f"housekeeper_{name}"] == []
    assert found["housekeeper_runners_alive"] == found["housekeeper_tasks_failing"] == []


def test_metrics_count_the_ticks_that_were_skipped(make, held) -> None:
    task = Task("held", held, schedule="* * * * * *")
    housekeeper = make(task)
    assert held.begun.wait(PATIENCE)
    (run,) = housekeeper.history("held")
    eventually(lambda: housekeeper.clock.now() > run.scheduled_for + 1.5 * hk.SECOND)
    held.go.set()
    door = bare_door(housekeeper, token=TOKEN)

    def skipped() -> float:
        runs = metrics_of(door)["housekeeper_runs"]
        return sum(run.value for run in runs if run.labels["status"] == "skipped")

    eventually(skipped)
    rows = [run for run in housekeeper.history("held") if run.status is Status.SKIPPED]
    assert skipped() >= sum(row.count for row in rows[-1:])


def test_buckets_of_a_histogram_hold_what_is_at_most_their_bound() -> None:
    histogram = hk.Histogram((1, 5, math.inf))
    for seconds in (0.5, 1.0, 3.0, 100.0):
        histogram.observe(seconds)
    samples = histogram.samples(task="a")
    assert [(each.labels.get("le"), each.value) for each in samples] == [
        ("1", 2), ("5", 3), ("+Inf", 4), (None, 104.5), (None, 4)
    ]  # fmt: skip


def test_a_full_pool_shows_in_the_workload(make) -> None:
    several = [Held() for _ in range(3)]
    housekeeper = make(
        *(Task(f"held-{number}", each) for number, each in enumerate(several)), max_workers=2
    )
    try:
        for number in range(3):
            housekeeper.run_task_manually(f"held-{number}", wait=False)
        eventually(lambda: sum(each.begun.is_set() for each in several) == 2)
        load = housekeeper.workload()
        assert load["workers"] == 2
        assert load["running"] + load["queued"] == 3
    finally:
        for each in several:
            each.go.set()


# Schedules in words.


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/10 * * * *", "every 10 minutes"),
        ("*/10 * * * MON-FRI", "every 10 minutes, Monday to Friday"),
        ("*/7 * * * *", None),
        ("*/60 * * * *", None),
        ("5-59/10 * * * *", None),
        ("5 * * * *", "every hour, at minute 5"),
        ("@hourly", "every hour, on the hour"),
        ("15 */6 * * *", "every 6 hours, at minute 15"),
        ("15 */5 * * *", None),
        ("*/10 9 * * *", None),
        ("* */2 * * *", None),
        ("@daily", "every day at 00:00"),
        ("30 2 * * *", "every day at 02:30"),
        ("30 2 ? * ?", "every day at 02:30"),
        ("30 14,2 * * *", "every day at 02:30 and 14:30"),
        ("0 1,9,17 * * *", "every day at 01:00, 09:00 and 17:00"),
        ("0,30 2 * * *", None),
        ("30 2-4 * * *", None),
        ("0 6 * * mon-fri", "Monday to Friday at 06:00"),
        ("0 6 * * 1-5", "Monday to Friday at 06:00"),
        ("0 6 * * FRI-MON", "Friday to Monday at 06:00"),
        ("0 4 * * 0", "Sundays at 04:00"),
        ("0 4 * * 7", "Sundays at 04:00"),
        ("0 4 * * MON,THU", "Mondays and Thursdays at 04:00"),
        ("0 4 * * MON-WED,FRI", None),
        ("0 4 * * FRI#2", None),
        ("0 4 * * L5", None),
        ("@monthly", "on the 1st of each month at 00:00"),
        ("0 4 2 * *", "on the 2nd of each month at 04:00"),
        ("0 4 23 * *", "on the 23rd of each month at 04:00"),
        ("0 4 12 * *", "on the 12th of each month at 04:00"),
        ("0 4 31 * *", "on the 31st of each month that has it at 04:00"),
        ("0 4 L * *", None),
        ("0 4 15W * *", None),
        ("0 4 1,15 * *", None),
        ("0 4 */2 * *", None),
        ("0 4 1 * MON", None),
        ("0 4 * 6 *", None),
        ("@yearly", "on 1 January at 00:00"),
        ("0 4 24 dec *", "on 24 December at 04:00"),
        ("0 4 24 12 *", "on 24 December at 04:00"),
        ("* * * * * *", "every second"),
        ("*/15 * * * * *", "every 15 seconds"),
        ("*/7 * * * * *", None),
        ("0 30 2 * * *", "every day at 02:30"),
        ("15 30 2 * * *", None),
        ("0 4 * * monday", "Mondays at 04:00"),
        ("0 4 * * fri-sunday", "Friday to Sunday at 04:00"),
        ("0 4 24 december *", "on 24 December at 04:00"),
        ("0 22-2 * * *", None),
        ("0 4 LW * *", None),
    ],
)
def test_schedules_are_said_in_words_when_words_are_exact(
    expression: str, words: str | None
) -> None:
    assert hk.schedule_in_words(hk.CronTrigger(expression).text) == words


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (timedelta(minutes=90), "every 90 minutes"),
        (timedelta(days=2, hours=1), "every 49 hours"),
        (["0 4 * * *", "0 12 * * sat"], "every day at 04:00 and Saturdays at 12:00"),
        (["0 4 * * *", timedelta(hours=7)], "every day at 04:00 and every 7 hours"),
        (["0 4 * * *", "0 4 L * *"], None),
    ],
)
def test_lengths_and_lists_are_said_in_words_too(schedule: object, words: str | None) -> None:
    assert hk.schedule_in_words(hk.make_trigger(schedule, "UTC", "key").text) == words


def test_what_is_no_cron_expression_is_not_said_in_words() -> None:
    for text in ("", "every 3 days at 09:00", "H 2 * * *", "every monday at 9:00 or so"):
        assert hk.schedule_in_words(text) is None


# The server of --http.


def talk(port: int, *parts: bytes) -> bytes:
    """Send bytes as they are; return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        for part in parts:
            connection.sendall(part)
        with contextlib.suppress(OSError):  # It may be closed already, after a 503.
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def turned_away(port: int) -> bool:
    """Tell whether a connection gets a 503 before it has asked for anything."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        return (
            bool(select.select([connection], [], [], 0.5)[0])
            and connection.recv(13) == b"HTTP/1.0 503 "
        )


PAUSE = f"POST {PREFIX}/tasks/sweep/pause HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /api/housekeeper/health HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET / HTTP/1.0\r\n\r\n", b"302"),
        (b"GET /elsewhere HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /api/housekeeper/tasks HTTP/1.0\r\n\r\n", b"401"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"get / HTTP/1.0\r\n\r\n", b"400"),
        (b"GET  / HTTP/1.0\r\n\r\n", b"400"),
        (b"GET http://x/ HTTP/1.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\nHost: x\n\n\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nNo colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nX: 1\r\n folded\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nX\0: 1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nX_Trace.Id~1: 1\r\n\r\n", b"302"),
        (b"GET / HTTP/1.0\r\nTransfer_Encoding: chunked\r\n\r\n", b"302"),
        (b"GET /%00 HTTP/1.0\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (PAUSE + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", b"400"),
        (PAUSE + b"Content-Length: +1\r\n\r\nx", b"400"),
        (PAUSE + b"Content-Length: 1, 1\r\n\r\nx", b"400"),
        (PAUSE + b"Content-Length : 1\r\n\r\nx", b"400"),
        (PAUSE + b"Content-Length: 99999999\r\n\r\nx", b"413"),
        (b"GET / HTTP/1.0\r\nX: " + b"a" * 20000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 40000, b"431"),
    ],
)
def test_the_server_answers_what_is_http_and_refuses_the_rest(make, sent, status) -> None:
    with served(make().mount(hk._lead_to_page, token=TOKEN)) as port:
        assert talk(port, sent).split(b" ", 2)[1] == status


def test_the_server_reads_a_request_in_pieces_and_its_body_away(make) -> None:
    with served(make(Task("sweep", ok)).mount(hk._lead_to_page, token=TOKEN)) as port:
        whole = PAUSE + b"Content-Length: 5\r\n\r\n12345"
        answer = talk(port, *(whole[at : at + 7] for at in range(0, len(whole), 7)))
        assert answer.startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    "head", [b"", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_nothing_behind_the_head_passes_for_another_request(make, head: bytes) -> None:
    housekeeper = make(Task("sweep", ok), Task("other", ok))
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:
        smuggled = PAUSE.replace(b"sweep", b"other") + b"\r\n"
        answer = talk(port, PAUSE + head + b"\r\n" + smuggled)
    assert answer.count(b"HTTP/1.0") == answer.count(b"HTTP/1.0 200 ") == 1
    assert [each["name"] for each in housekeeper.list_tasks() if each["paused"]] == ["sweep"]


def open_connections(port: int, request: bytes, number: int) -> contextlib.ExitStack:
    """Send a request many times, read the answers, and leave the connections open."""
    stack = contextlib.ExitStack()
    for _ in range(number):
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        stack.enter_context(connection).sendall(request)
        assert connection.recv(13)[9:] in (b"401 ", b"400 ", b"413 ")
    return stack


@pytest.mark.parametrize(
    "request_",
    [
        f"GET {PREFIX}/tasks HTTP/1.1\r\nAuthorization: Bearer wrong\r\n\r\n",
        "what is this?\r\n\r\n",
        f"POST {PREFIX}/tasks/a/run HTTP/1.1\r\nContent-Length: 999999\r\n\r\n",
    ],
)
def test_refused_requests_hold_no_place_while_their_connections_stay_open(make, request_) -> None:
    with served(make().mount(hk._lead_to_page, token=TOKEN), StoppedClock()) as port:
        many = hk.HttpServer.AT_A_TIME * 2
        with open_connections(port, request_.encode(), many):
            health = f"GET {PREFIX}/health HTTP/1.1\r\n\r\n".encode()
            assert talk(port, health).startswith(b"HTTP/1.0 200 ")


class StoppedClock(hk.SystemClock):
    """A clock on which no time passes, so that nothing is given up."""

    def monotonic(self) -> float:
        return 0.0


def test_a_name_with_an_underscore_cannot_pose_as_one_with_a_dash(make) -> None:
    head = f"POST {PREFIX}/tasks/sweep/pause HTTP/1.1\r\nCookie: admin\r\n"
    app = make(Task("sweep", ok)).mount(hk._lead_to_page, authorize=lambda environ: True)
    with served(app) as port:
        assert talk(port, f"{head}X_Housekeeper: 1\r\n\r\n".encode())[9:12] == b"403"
        assert talk(port, f"{head}X-Housekeeper: 1\r\n\r\n".encode())[9:12] == b"200"


def test_no_variable_of_the_process_is_seen_as_a_header(make, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_X_HOUSEKEEPER", "1")
    monkeypatch.setenv("HOUSEKEEPER_TOKEN", TOKEN)
    seen: list[Any] = []
    app = make(Task("sweep", ok)).mount(hk._lead_to_page, authorize=lambda env: [seen.append(env)])
    with served(app) as port:
        request = f"POST {PREFIX}/tasks/sweep/pause HTTP/1.1\r\n\r\n"
        assert talk(port, request.encode())[9:12] == b"403"
    assert not [name for name in seen[0] if name.startswith(("HTTP_", "HOUSEKEEPER"))]


def test_the_door_asks_no_name_server(make, monkeypatch) -> None:
    def never(*_: object) -> Any:
        raise AssertionError("this can hang")

    for name in ("getfqdn", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(socket, name, never)
    with served(make().mount(hk._lead_to_page, token=TOKEN)) as port:
        assert talk(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 302 ")


def test_without_a_thread_to_be_had_a_request_gets_503_and_later_ones_are_served(
    make, monkeypatch
) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with served(make().mount(hk._lead_to_page, token=TOKEN)) as port:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            for _ in range(hk.HttpServer.AT_A_TIME * 2):
                assert turned_away(port)
        assert talk(port, b"GET / HTTP/1.0\r\n\r\n")[:13] == b"HTTP/1.0 302 "


def test_an_application_that_fails_is_500_and_told_to_the_log_alone(make, caplog, capfd) -> None:
    def broken(environ: Any, start_response: Any) -> list[bytes]:
        raise ValueError("of the application")

    caplog.set_level(logging.DEBUG, "housekeeper")
    with served(make().mount(broken, token=TOKEN)) as port:
        assert talk(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 500 ")
        eventually(lambda: "ValueError: of the application" in caplog.text)
    assert capfd.readouterr() == ("", "")


def test_it_listens_at_an_address_of_version_6(make) -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python knows no IPv6")
    try:
        server, page = hk._listen(make(), "[::1]:0")
    except ConfigurationError as error:
        pytest.skip(str(error))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with urllib.request.urlopen(page.partition("#")[0], timeout=PATIENCE) as answer:
            assert answer.status == 200
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class HurriedClock(hk.SystemClock):
    """A clock on which three seconds pass each time that it is looked at."""

    looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return super().monotonic() + 3.0 * self.looks


def test_a_request_that_trickles_in_is_given_up_after_its_time(make) -> None:
    with (
        served(make().mount(hk._lead_to_page, token=TOKEN), HurriedClock()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as slow,
    ):
        # Each byte would begin a plain socket's timeout anew; the limit is for the whole request.
        pieces = 0
        with contextlib.suppress(OSError):
            while not select.select([slow], [], [], 0.05)[0]:
                slow.sendall(b"GET / HTTP/1.0\r\nX-Slow: "[pieces : pieces + 1] or b"x")
                pieces += 1
        assert pieces < 100


def test_connections_beyond_the_limit_get_503_and_later_ones_are_served(make) -> None:
    with served(make().mount(hk._lead_to_page, token=TOKEN)) as port:
        held = [
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            for _ in range(hk.HttpServer.AT_A_TIME)
        ]
        try:
            eventually(lambda: turned_away(port))
        finally:
            for connection in held:
                connection.close()
        eventually(lambda: talk(port, b"GET / HTTP/1.0\r\n\r\n")[:13] == b"HTTP/1.0 302 ")


@pytest.mark.torture
def test_two_hundred_slow_clients_do_not_hold_up_the_schedule(make, capsys) -> None:
    starts: list[float] = []
    changed = threading.Condition()

    def note() -> None:
        run = current_run()
        with changed:
            assert run.scheduled_for is not None
            starts.append((run.started_at - run.scheduled_for).total_seconds())
            changed.notify_all()

    housekeeper = make(Task("ticks", note, schedule="* * * * * *"))

    def lateness_of_three() -> float:
        with changed:
            starts.clear()
            assert changed.wait_for(lambda: len(starts) >= 3, PATIENCE)
            return sorted(starts)[1]

    alone = lateness_of_three()
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:
        slow = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(200)]
        for connection in slow:
            connection.sendall(b"GET / HTT")
        beside = lateness_of_three()
        for connection in slow:
            connection.close()
    with capsys.disabled():
        print(f"\nlateness: {alone * 1e3:.2f} ms alone, {beside * 1e3:.2f} ms beside 200 clients")


# The option --http.


def start_http(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    (tmp_path / "tasks").mkdir(exist_ok=True)
    (tmp_path / "tasks/sweep.py").write_text(
        "from housekeeper import Task\ntask = Task('sweep', lambda: None, schedule='@daily')\n"
    )
    return subprocess.Popen(
        [sys.executable, hk.__file__, "--ledger", "memory://", "--tasks", "tasks", *arguments],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def dashboard_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Dashboard: "):
            return line.removeprefix("Dashboard: ").strip()
    raise AssertionError("it printed no address")


def test_the_scheduler_serves_the_dashboard_with_a_token_that_it_makes(tmp_path: Path) -> None:
    process = start_http(tmp_path, "--http", "127.0.0.1:0")
    try:
        address, _, token = dashboard_line(process).partition("#token=")
        assert len(token) >= 32
        request = urllib.request.Request(
            f"{address}tasks", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert [task["name"] for task in json.load(answer)["tasks"]] == ["sweep"]
        root = address.removesuffix("api/housekeeper/")
        with urllib.request.urlopen(root, timeout=PATIENCE) as page:
            assert page.url == address
            assert b"<title>Housekeeper</title>" in page.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_given_token_is_used_and_not_printed(tmp_path: Path) -> None:
    process = start_http(
        tmp_path, HOUSEKEEPER_HTTP="127.0.0.1:0", HOUSEKEEPER_TOKEN="given-given-given"
    )
    try:
        address = dashboard_line(process)
        assert address.endswith("/api/housekeeper/")
        request = urllib.request.Request(
            f"{address}tasks", headers={"Authorization": "Bearer given-given-given"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 200
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("address", "token", "why"),
    [
        ("0.0.0.0:0", "", "can be reached from other hosts; set HOUSEKEEPER_TOKEN first"),
        ("[::]:0", "", "can be reached from other hosts"),
        ("example.org:80", "", "can be reached from other hosts"),
        ("8080", "", "is not of the form HOST:PORT"),
        ("127.0.0.1:99999", "", "is not of the form HOST:PORT"),
        ("127.0.0.1:0", "short", "the token has fewer than 16 characters and could be guessed"),
        ("192.0.2.1:8080", "given-given-given", "cannot listen at"),
    ],
)
def test_an_address_that_cannot_or_must_not_be_listened_at_is_refused(
    make, monkeypatch, address: str, token: str, why: str
) -> None:
    if token:
        monkeypatch.setenv("HOUSEKEEPER_TOKEN", token)
    with pytest.raises(ConfigurationError, match=re.escape(why)):
        hk._listen(make(), address)


def test_any_address_may_be_listened_at_with_a_token(make, monkeypatch) -> None:
    monkeypatch.setenv("HOUSEKEEPER_TOKEN", "given-given-given")
    server, page = hk._listen(make(), "0.0.0.0:0")
    server.server_close()
    assert re.fullmatch(r"http://0\.0\.0\.0:\d+/api/housekeeper/", page)
