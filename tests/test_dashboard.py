"""The dashboard in a real browser: Chromium, driven by Playwright, at desktop and phone width."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

import housekeeper as hk
from housekeeper import LedgerUnavailable, SkipRun, Task, current_run
from tests.test_web import PATIENCE, TOKEN, Held, eventually, fail, ok, served
from tests.virtual_time import VirtualClock, simulated

SHOTS = Path(__file__).parent / "screenshots"
AXE = Path(__file__).parents[1] / ".axe/node_modules/axe-core/axe.min.js"
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desktop": 1280, "phone": 360}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        reason = "no browser: install Debian's chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield launched
        launched.close()


def skip() -> None:
    raise SkipRun("there is nothing old")


def log_markup() -> None:
    logging.getLogger("markup").warning("<img src=x onerror=alert(1)>")


class Dashboard:
    """A page that is open on a Housekeeper with some tasks, and what went wrong on it."""

    def __init__(self, page: Any, housekeeper: hk.Housekeeper, address: str) -> None:
        self.page = page
        self.housekeeper = housekeeper
        self.address = address
        self.troubles: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda message: self.troubles.append(message.text))
        page.on("requestfailed", self._note_failure)
        page.on("response", self._note)
        page.goto(address)

    def _note(self, response: Any) -> None:
        if response.status >= 400 or not response.url.startswith(self.address):
            self.troubles.append(f"{response.status} {response.url}")

    def _note_failure(self, request: Any) -> None:
        # Leaving a page breaks off what it was asking for.
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"{request.failure} {request.url}")

    def sign_in(self, token: str = TOKEN) -> None:
        self.page.fill("#token", token)
        self.page.click("#sign-in button")

    def row(self, name: str) -> Any:
        return self.page.locator(f'.task[data-task="{name}"]')

    def open_detail(self, name: str) -> None:
        self.row(name).get_by_role("button", name=name, exact=True).click()
        self.page.wait_for_selector("#detail[open] :is(#detail-runs > *, #runs-note:not(:empty))")

    def screenshot(self, name: str) -> None:
        SHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    def check_accessibility(self) -> None:
        if not AXE.exists():
            reason = "no axe-core: npm install --no-save --prefix .axe axe-core@4"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        # The page's own policy keeps foreign scripts out, so it comes by the debugger.
        self.page.evaluate(AXE.read_text())
        result = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found = [
            (each["id"], [node["html"][:200] for node in each["nodes"]])
            for each in result["violations"]
        ]
        assert found == []


@pytest.fixture
def held() -> Iterator[Held]:
    task = Held()
    yield task
    task.go.set()


@pytest.fixture
def open_dashboard(make: Any, browser: Any, held: Held) -> Iterator[Any]:
    """Open the dashboard, at a width and in a colour scheme; see that nothing went wrong."""
    opened: list[Dashboard] = []
    tasks = [
        Task("backup", ok, schedule="30 2 * * *", description="Dump it.", timezone="Asia/Tokyo"),
        Task("broken", fail, schedule="0 6 * * mon-fri", description="Mail the report."),
        Task("held", held, schedule="0 4 * * 0"),
        Task("idle", skip, schedule="*/10 * * * *"),
        Task(
            "markup", log_markup, description="<b onclick=x>bold</b> & <script>alert(1)</script>"
        ),
    ]
    housekeeper = make(*tasks)
    for name in ("backup", "backup", "backup", "idle", "markup"):
        housekeeper.run_task_manually(name)
    with pytest.raises(ValueError, match="no such table"):
        housekeeper.run_task_manually("broken")
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:

        def open_one(width: str = "desktop", scheme: str = "light") -> Dashboard:
            size = {"width": WIDTHS[width], "height": 900}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            address = f"http://127.0.0.1:{port}/api/housekeeper/"
            opened.append(Dashboard(context.new_page(), housekeeper, address))
            return opened[-1]

        yield open_one
        for dashboard in opened:
            dashboard.page.context.close()
            assert dashboard.troubles == []


def test_a_wrong_token_is_refused_and_the_right_one_lasts_as_long_as_the_tab(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    page.wait_for_selector("#sign-in:visible")
    page.locator("#health.ok, #health.warning").wait_for()  # Strangers see the word.
    expect(page.locator("#board")).not_to_be_visible()
    dashboard.sign_in("not-the-right-token")
    page.get_by_text("This token is not the right one.").wait_for()
    dashboard.sign_in()
    dashboard.row("backup").wait_for()
    expect(page.locator("#sign-in")).not_to_be_visible()
    page.reload()
    dashboard.row("backup").wait_for()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    other = page.context.new_page()
    other.goto(dashboard.address)
    other.wait_for_selector("#sign-in:visible")


def test_the_printed_address_opens_it_and_the_token_leaves_the_address_bar(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    dashboard.page.wait_for_selector("#sign-in:visible")
    dashboard.page.goto(f"{dashboard.address}#token={TOKEN}")
    dashboard.row("backup").wait_for()
    dashboard.page.wait_for_url(dashboard.address)


@pytest.mark.parametrize("token", ["schlüssel-für-alles", "€-für-die-schlüssel"])
def test_a_token_may_have_any_characters(make: Any, browser: Any, token: str) -> None:
    housekeeper = make(Task("backup", ok))
    with served(housekeeper.mount(hk._lead_to_page, token=token)) as port:
        page = browser.new_context().new_page()
        dashboard = Dashboard(page, housekeeper, f"http://127.0.0.1:{port}/api/housekeeper/")
        dashboard.sign_in(token)
        dashboard.row("backup").wait_for()
        page.context.close()


def test_each_task_shows_what_a_person_on_call_asks(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.page.select_option("#zone", "task")
    backup, broken = dashboard.row("backup"), dashboard.row("broken")
    backup.locator("g.succeeded").nth(2).wait_for(state="attached")
    text = backup.inner_text()
    assert re.search(r"Dump it\.\s+every day at 02:30\s*30 2 \* \* \*", text)
    assert re.search(r"in \d+ (min|h)", text)
    assert re.search(r", 02:30:00 Asia/Tokyo", text), "exact, in the task's zone"
    assert re.search(r"succeeded \d+ s ago, took \d+", text)
    label = backup.locator(".bars").get_attribute("aria-label")
    assert label == "Runs of backup: 3 succeeded"
    broken.locator("g.failed").wait_for(state="attached")
    expect(broken).to_contain_text("failed")
    names = dashboard.page.locator(".task").evaluate_all("rows => rows.map(r => r.dataset.task)")
    assert names == ["broken", "backup", "held", "idle", "markup"], (
        "what is in trouble comes first"
    )
    dashboard.page.locator("#day rect").first.wait_for(state="attached")
    dashboard.page.get_by_text("every half hour or more often: 1").wait_for()


def test_run_cancel_pause_and_resume_are_one_click_and_show_without_reloading(
    open_dashboard: Any, held: Held
) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    row = dashboard.row("held")
    row.get_by_role("button", name="Run now").click()
    assert held.begun.wait(PATIENCE)
    row.get_by_text("1 of 3 files").wait_for()
    expect(row.locator("progress")).to_have_attribute("value", "1")
    row.get_by_role("button", name="Cancel").click()
    row.locator(".outcome.cancelled").wait_for()
    row.locator("g.cancelled").wait_for(state="attached")
    row.get_by_role("button", name="Pause").click()
    row.get_by_role("button", name="Resume").wait_for()
    row.get_by_text("no next run").wait_for()
    assert dashboard.housekeeper.get_task_status("held")["paused"] is True
    row.get_by_role("button", name="Resume").click()
    row.get_by_role("button", name="Pause").wait_for()
    eventually(lambda: not dashboard.housekeeper.get_task_status("held")["paused"])


def test_a_run_opens_with_its_output_and_error_and_markup_stays_text(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.open_detail("broken")
    page.locator("#detail-runs summary").click()
    page.locator("pre", has_text="ValueError: no such table: tokens").wait_for()
    page.get_by_role("button", name="Close").click()
    dashboard.open_detail("markup")
    page.locator("#detail-runs summary").click()
    page.locator("pre", has_text="<img src=x onerror=alert(1)>").wait_for()
    assert page.locator("#detail-about").inner_text().startswith("<b onclick=x>bold</b>")
    expect(page.locator("#detail img, #detail b, .task b, .task script")).to_have_count(0)


def test_a_bar_opens_its_run(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    newest = dashboard.housekeeper.history("backup")[0]
    dashboard.row("backup").locator(f'g[data-run="{newest.id}"] .mark').click()
    opened = dashboard.page.locator("details[open]")
    opened.get_by_text(newest.id).wait_for()
    expect(opened).to_have_count(1)


def test_why_is_answered_in_sentences(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.open_detail("backup")
    dashboard.page.get_by_role("button", name="Ask").click()
    sentences = dashboard.housekeeper.why("backup")["sentences"]
    dashboard.page.locator("#why-answer li").first.wait_for()
    shown = dashboard.page.locator("#why-answer li").all_inner_texts()
    assert len(shown) == len(sentences)
    dashboard.page.fill("#why-instant", "2026-01-01T02:30")
    dashboard.page.get_by_role("button", name="Ask").click()
    eventually(lambda: dashboard.page.locator("#why-answer li").all_inner_texts() != shown)


def test_older_runs_come_on_demand(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    for _ in range(140):
        dashboard.housekeeper.run_task_manually("backup")
    dashboard.sign_in()
    dashboard.open_detail("backup")
    runs = dashboard.page.locator("#detail-runs details")
    eventually(lambda: runs.count() >= 100)
    dashboard.page.get_by_role("button", name="Older runs").dblclick()
    eventually(lambda: not dashboard.page.locator("#more").is_visible())
    dashboard.page.wait_for_load_state("networkidle")
    expect(runs).to_have_count(143)
    expect(dashboard.page.locator("#more")).not_to_be_visible()


def test_runs_that_could_not_be_read_come_later(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.row("backup").wait_for()
    page.wait_for_load_state("networkidle")
    away = {"status": 503, "json": {"error": "the ledger cannot be reached"}}
    page.route("**/backup/runs*", lambda route: route.fulfill(**away))
    dashboard.row("backup").get_by_role("button", name="backup", exact=True).click()
    page.locator("#runs-note", has_text="the ledger cannot be reached").wait_for()
    page.unroute("**/backup/runs*")
    eventually(lambda: page.locator("#detail-runs details").count() == 3)
    expect(page.locator("#runs-note")).to_have_text("")
    assert all("503" in each for each in dashboard.troubles)
    dashboard.troubles.clear()


def test_an_answer_that_fails_is_said_and_one_that_is_late_goes_nowhere(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.open_detail("backup")
    page.route("**/backup/why*", lambda route: route.abort())
    page.get_by_role("button", name="Ask").click()
    page.locator("#detail-state #said", has_text="The server did not answer.").wait_for()
    asked: list[Any] = []
    page.route("**/backup/why*", lambda route: asked.append(route))
    page.get_by_role("button", name="Ask").click()
    eventually(lambda: asked or page.wait_for_timeout(10))
    page.get_by_role("button", name="Close").click()
    dashboard.open_detail("broken")
    with page.expect_response("**/backup/why*"):
        asked[0].continue_()
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(page.locator("#why-answer li")).to_have_count(0)
    assert all("why" in each or "Failed to" in each for each in dashboard.troubles)
    dashboard.troubles.clear()


def test_search_and_filters_find_one_of_five_hundred_tasks(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    for number in range(500):
        task = Task(f"task-{number:03}", ok, schedule=f"{number % 60} {number % 24} * * *")
        dashboard.housekeeper.register_task(task)
    dashboard.sign_in()
    visible = dashboard.page.locator(".task:visible")
    eventually(lambda: visible.count() == 505)
    dashboard.page.fill("#search", "task-123")
    eventually(lambda: visible.count() == 1)
    expect(visible).to_have_attribute("data-task", "task-123")
    dashboard.page.fill("#search", "null")
    dashboard.page.get_by_text("No task matches.").wait_for()
    dashboard.page.fill("#search", "nothing like it")
    dashboard.page.get_by_text("No task matches.").wait_for()
    dashboard.page.fill("#search", "")
    dashboard.page.get_by_role("button", name="Attention 1").click()
    eventually(lambda: visible.count() == 1)
    expect(visible).to_have_attribute("data-task", "broken")


def test_it_is_used_with_the_keyboard_alone(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    page.wait_for_selector("#token:focus")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    dashboard.row("backup").wait_for()
    dashboard.row("broken").locator(".name").focus()
    page.keyboard.press("Enter")
    page.locator("#detail-runs summary").first.wait_for()
    page.locator("#detail-runs summary").first.focus()
    page.keyboard.press("Space")
    page.locator("pre:visible").first.wait_for()
    page.keyboard.press("Escape")
    page.locator("#detail").wait_for(state="hidden")
    expect(page.locator(":focus")).to_have_text("broken")


def test_what_has_failed_is_found_and_several_are_paused_with_the_keyboard_alone(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    page.locator("#events a").focus()
    page.keyboard.press("Enter")
    page.locator("details[open] pre:visible").wait_for()
    page.locator("#detail-state button").first.focus()
    page.keyboard.press("Enter")
    eventually(lambda: len(dashboard.housekeeper.history("broken")) == 2)
    page.keyboard.press("Escape")
    page.locator("#detail").wait_for(state="hidden")
    page.locator("#zone").focus()
    page.keyboard.press("End")
    page.locator("#day-note", has_text="in UTC").wait_for()
    page.locator("#search").focus()
    page.keyboard.type("minutes")
    page.locator("#every").focus()
    page.keyboard.press("Space")
    page.get_by_text("1 selected").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("idle: paused").wait_for()
    assert dashboard.housekeeper.get_task_status("idle")["paused"] is True


def test_a_button_keeps_the_focus_when_its_row_moves(open_dashboard: Any, held: Held) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    row = dashboard.row("held")
    row.get_by_role("button", name="Run now").focus()
    dashboard.page.keyboard.press("Enter")
    row.get_by_text("1 of 3 files").wait_for()
    names = dashboard.page.locator(".task").evaluate_all("rows => rows.map(r => r.dataset.task)")
    assert names[:2] == ["broken", "held"]
    dashboard.page.keyboard.press("Enter")
    row.locator(".outcome.cancelled").wait_for()
    expect(dashboard.page.locator(":focus")).to_have_text("Run now")


def test_a_progress_without_a_total_shows_no_share(open_dashboard: Any) -> None:
    go = [threading.Event(), threading.Event()]

    def work() -> None:
        current_run().progress(3, 4, "files")
        assert go[0].wait(PATIENCE)
        current_run().progress(9, None, "rows")
        assert go[1].wait(PATIENCE)

    dashboard = open_dashboard()
    dashboard.housekeeper.register_task(Task("work", work))
    dashboard.housekeeper.run_task_manually("work", wait=False)
    dashboard.sign_in()
    row = dashboard.row("work")
    row.get_by_text("3 of 4 files").wait_for()
    expect(row.locator("progress")).to_have_attribute("value", "3")
    go[0].set()
    row.get_by_text("9 rows").wait_for()
    assert row.locator("progress").get_attribute("value") is None
    go[1].set()


def test_what_the_ledger_keeps_is_not_denied_while_it_is_away(
    open_dashboard: Any, monkeypatch: Any
) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    row = dashboard.row("backup")
    row.locator("g.succeeded").nth(2).wait_for(state="attached")

    def away(*_: object) -> Any:
        raise LedgerUnavailable("it is away")

    known = hk.Housekeeper.list_tasks
    unknown = {"source": "this process", "last_run": None, "last_success": None}
    monkeypatch.setattr(
        hk.Housekeeper, "list_tasks", lambda self: [{**each, **unknown} for each in known(self)]
    )
    monkeypatch.setattr(hk.Housekeeper, "history", away)
    row.get_by_text("not known").wait_for()
    eventually(lambda: any("/runs" in each for each in dashboard.troubles))
    expect(row.locator(".bars")).to_have_attribute("aria-label", "Runs of backup: 3 succeeded")
    monkeypatch.undo()
    row.locator(".outcome.succeeded").wait_for()
    assert all("503" in each for each in dashboard.troubles)
    dashboard.troubles.clear()


def test_problems_and_overdue_tasks_are_on_top(open_dashboard: Any, monkeypatch: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.page.locator("#health.ok, #health.warning").wait_for()
    late = {"task": "markup", "tick": None, "seconds": 7200.0}
    health = {
        **dashboard.housekeeper.health(),
        "status": "warning",
        "problems": ["Task markup is <late>."],
        "overdue": [late],
    }
    monkeypatch.setattr(hk.Housekeeper, "health", lambda self: health)
    dashboard.page.locator("#problems li", has_text="Task markup is <late>.").wait_for()
    dashboard.page.locator("#health.warning", has_text="Warning").wait_for()
    dashboard.row("markup").get_by_text("overdue").wait_for()
    dashboard.page.get_by_role("button", name="Attention 2").wait_for()
    dashboard.check_accessibility()


def test_a_server_that_goes_away_is_said_and_comes_back(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.row("backup").wait_for()
    dashboard.page.route("**/health", lambda route: route.abort())
    dashboard.page.get_by_text("No answer, trying again").wait_for()
    expect(dashboard.row("backup"), "what was known stays").to_be_visible()
    dashboard.page.unroute("**/health")
    dashboard.page.locator("#health.ok, #health.warning").wait_for()
    broken = {"status": 500, "json": {"error": "this failed; the log says why"}}
    dashboard.page.route("**/health", lambda route: route.fulfill(**broken))
    dashboard.page.get_by_text("No answer, trying again").wait_for()
    expect(dashboard.row("backup"), "nor is the token forgotten").to_be_visible()
    dashboard.page.unroute("**/health")
    dashboard.page.locator("#health.ok, #health.warning").wait_for()
    assert all("health" in each or "Failed to load" in each for each in dashboard.troubles)
    dashboard.troubles.clear()


# Who is there, and what has failed.

DEAD = {
    "runner": "vm:123:ab",
    "host": "vm",
    "pid": 123,
    "version": hk.__version__,
    "started_at": datetime(2026, 1, 1, 2, tzinfo=timezone.utc),
    "beat_at": datetime(2026, 1, 1, 3, tzinfo=timezone.utc),
    "stopped_at": None,
    "alive": False,
    "workers": 10,
    "problems": [],
}


def tell(monkeypatch: Any, **changes: object) -> None:
    """Have health() say something else."""
    health = hk.Housekeeper.health
    monkeypatch.setattr(hk.Housekeeper, "health", lambda self: {**health(self), **changes})


def test_no_scheduler_is_the_loudest_thing_on_the_page(
    open_dashboard: Any, monkeypatch: Any
) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    sentence = "No scheduler is running; the last, vm:123, was seen at 03:00."
    tell(monkeypatch, status="critical", problems=[sentence], runners=[DEAD])
    dashboard.sign_in()
    alarm = page.locator("#alarm")
    alarm.get_by_text(sentence).wait_for()
    sizes = (
        "[...document.querySelectorAll('h1, p, li, h2')].map(e => getComputedStyle(e).fontSize)"
    )
    assert max(map(float, (each[:-2] for each in page.evaluate(sizes)))) == 22.0
    assert alarm.evaluate("e => getComputedStyle(e).fontSize") == "22px"
    expect(page.locator("#problems li"), "it is not said twice").to_have_count(0)
    page.wait_for_function("() => document.title === 'No scheduler - Housekeeper'")
    expect(page.locator("#icon")).to_have_attribute("href", "trouble.svg")
    dashboard.screenshot("no-scheduler")
    dashboard.check_accessibility()
    alive = {**DEAD, "alive": True, "beat_at": datetime.now(timezone.utc)}
    monkeypatch.undo()
    tell(monkeypatch, status="ok", problems=[], runners=[alive, DEAD])
    alarm.wait_for(state="hidden")
    page.get_by_text(re.compile("1 scheduler running, vm:123, last beat [0-9]+ s ago")).click()
    runners = page.locator("#runners li").all_inner_texts()
    assert f"vm:123, 10 workers, version {hk.__version__}" in runners[0]
    assert "died" in runners[1]
    assert all("503" in each for each in dashboard.troubles), "critical"
    dashboard.troubles.clear()


def test_a_scheduler_that_is_mute_is_not_called_absent(
    open_dashboard: Any, monkeypatch: Any
) -> None:
    dashboard = open_dashboard()
    mute = "Scheduler vm:123 is alive, but has given the ledger no sign of life."
    tell(monkeypatch, status="warning", problems=[mute], runners=[DEAD])
    dashboard.sign_in()
    dashboard.page.locator("#problems li", has_text=mute).wait_for()
    expect(dashboard.page.locator("#alarm")).not_to_be_visible()


def test_many_failing_tasks_are_one_line_among_the_problems(
    open_dashboard: Any, monkeypatch: Any
) -> None:
    dashboard = open_dashboard()
    names = ["backup", "broken", "idle"]
    problems = [f"Task {name} failed its run at 03:00: ValueError" for name in names]
    failing = [{"task": name, "count": 1, "since": None, "error": "ValueError"} for name in names]
    tell(monkeypatch, status="warning", problems=["The disk is full.", *problems], failing=failing)
    dashboard.sign_in()
    dashboard.page.locator("#problems li").nth(1).wait_for()
    told = dashboard.page.locator("#problems li").all_inner_texts()
    assert told == ["The disk is full.", "3 tasks are failing: backup, broken, idle"]


def test_the_title_and_the_icon_tell_of_tasks_in_trouble(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.row("broken").wait_for()
    eventually(lambda: dashboard.page.title() == "1 in trouble - Housekeeper")
    expect(dashboard.page.locator("#icon")).to_have_attribute("href", "trouble.svg")


def test_failures_of_all_tasks_are_one_feed_and_equal_ones_one_line(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    for _ in range(2):
        with pytest.raises(ValueError, match="no such table"):
            dashboard.housekeeper.run_task_manually("broken")
    dashboard.sign_in()
    events = page.locator("#events li")
    events.get_by_text("3 times since").wait_for()
    expect(events).to_have_count(1)
    expect(events).to_contain_text("ValueError: no such table: tokens")
    page.select_option("#outcome", "skipped")
    events.get_by_text("there is nothing old").wait_for()
    expect(events.locator("a")).to_have_text("idle")
    page.select_option("#outcome", "missed")
    events.get_by_text("None lately.").wait_for()
    page.select_option("#outcome", "failed,timed_out,crashed")
    events.locator("a").click()
    page.locator("details[open] pre", has_text="no such table").wait_for()
    newest = dashboard.housekeeper.history("broken")[0]
    page.wait_for_url(f"**#run/{newest.id}")


def test_runs_of_one_fault_are_one_line_and_other_exit_codes_are_another(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    notes = iter(
        [
            "exited with 1 after 3.21 s",
            "exited with 137 after 3.21 s",
            "exited with 137 after 12 s",
            "order 88213 of 2026-11-25T10:05:59.123Z: 0x7f3a",
            "order 88214 of 2026-11-26T09:15:07.4Z: 0x7f3b11",
            "10:05 request 123e4567-e89b-12d3-a456-426614174000 got 404",
            "11:17 request 9f8e4567-a89b-22d3-b456-026614174fff got 404",
            "11:17 request 9f8e4567-a89b-22d3-b456-026614174fff got 500",
        ]
    )

    def note() -> None:
        raise RuntimeError(next(notes))

    dashboard.housekeeper.register_task(Task("noted", note))
    for _ in range(8):
        with pytest.raises(RuntimeError):
            dashboard.housekeeper.run_task_manually("noted")
    dashboard.sign_in()
    lines = dashboard.page.locator("#events li", has_text="noted")
    eventually(lambda: lines.count() == 5)
    words = lines.locator("span:last-child").all_inner_texts()
    assert [text[:13] for text in words] == ["", *["2 times since"] * 3, ""]


def test_a_page_of_failures_does_not_tell_when_they_began(
    make: Any, browser: Any, tmp_path: Path
) -> None:
    housekeeper = make(Task("broken", fail, timezone="Asia/Tokyo"), ledger=furnish(tmp_path, 250))
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:
        page = browser.new_context().new_page()
        dashboard = Dashboard(page, housekeeper, f"http://127.0.0.1:{port}/api/housekeeper/")
        dashboard.sign_in()
        page.locator("#events li", has_text=re.compile("200 times or more$")).wait_for()
        page.context.close()
        assert dashboard.troubles == []


def test_the_last_error_stands_in_the_tasks_row(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    error = dashboard.row("broken").locator(".error")
    error.get_by_text("ValueError: no such table: tokens").wait_for()
    expect(dashboard.row("backup").locator(".error")).not_to_be_visible()


# Addresses.


def test_each_task_and_run_has_an_address_and_the_back_button_works(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.open_detail("backup")
    page.wait_for_url(f"{dashboard.address}#task/backup")
    page.go_back()
    page.locator("#detail").wait_for(state="hidden")
    page.go_forward()
    page.locator("#detail[open]").wait_for()
    page.get_by_role("button", name="Close").click()
    page.locator("#detail").wait_for(state="hidden")
    page.wait_for_url(dashboard.address)
    run = dashboard.housekeeper.history("broken")[0]
    page.goto(f"{dashboard.address}#run/{run.id}")
    page.locator(f'details[open][data-run="{run.id}"] pre:visible').wait_for()
    for nobody in ("nobody", "100%"):
        page.goto(f"{dashboard.address}#task/{nobody}")
        page.locator("#said", has_text=f"No task is named {nobody}.").wait_for()


def test_a_link_that_was_sent_opens_after_signing_in(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.page.goto(f"{dashboard.address}#task/markup")
    dashboard.page.reload()
    dashboard.sign_in()
    dashboard.page.locator("#detail[open] #detail-name", has_text="markup").wait_for()


# The drawer.


def test_an_opened_task_runs_pauses_and_is_cancelled_there(
    open_dashboard: Any, held: Held
) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.open_detail("held")
    state = page.locator("#detail-state")
    state.get_by_role("button", name="Run now").click()
    state.get_by_text("1 of 3 files").wait_for()
    expect(state.locator("progress")).to_have_attribute("value", "1")
    expect(state.locator("#said")).to_have_text("held: started")
    page.get_by_text("No run has ended yet.").wait_for()
    page.locator("#detail-runs summary", has_text="running").click()
    page.locator("pre", has_text="holding on").wait_for()
    state.get_by_role("button", name="Cancel").click()
    page.locator("#detail-runs details[data-status=cancelled]").wait_for()
    page.locator("#chart rect.cancelled").wait_for()
    state.get_by_role("button", name="Pause").click()
    state.get_by_role("button", name="Resume").wait_for()
    assert dashboard.housekeeper.get_task_status("held")["paused"] is True


def test_an_opened_task_that_is_no_more_closes(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.open_detail("idle")
    dashboard.housekeeper.unregister_task("idle")
    dashboard.page.locator("#detail").wait_for(state="hidden")
    dashboard.page.wait_for_url(dashboard.address)


def test_a_cancel_that_was_asked_shows_until_it_is_heard(open_dashboard: Any) -> None:
    go, begun = threading.Event(), threading.Event()

    def deaf() -> None:
        begun.set()
        go.wait(PATIENCE)

    dashboard = open_dashboard()
    dashboard.housekeeper.register_task(Task("deaf", deaf))
    dashboard.housekeeper.run_task_manually("deaf", wait=False)
    assert begun.wait(PATIENCE)
    dashboard.sign_in()
    row = dashboard.row("deaf")
    try:
        row.get_by_role("button", name="Cancel").click()
        row.get_by_role("button", name="Stopping").wait_for()
        row.get_by_text("asked to stop").first.wait_for()
    finally:
        go.set()
    row.get_by_role("button", name="Run now").wait_for()


def test_live_output_follows_its_end_unless_one_scrolls_away(open_dashboard: Any) -> None:
    more, go = threading.Event(), threading.Event()

    def chatty() -> None:
        log = logging.getLogger("chatty")
        for number in range(200):
            log.warning("line %d", number)
        assert more.wait(PATIENCE)
        log.warning("the last line")
        assert go.wait(PATIENCE)

    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.housekeeper.register_task(Task("chatty", chatty))
    run = dashboard.housekeeper.run_task_manually("chatty", wait=False)
    dashboard.sign_in()
    dashboard.row("chatty").wait_for()
    page.goto(f"{dashboard.address}#run/{run.id}")
    output = page.locator("pre:visible", has_text="line 199")
    output.wait_for()
    left = "e => e.scrollHeight - e.clientHeight - e.scrollTop"
    try:
        eventually(lambda: output.evaluate(left) < 2)
        more.set()
        page.locator("pre:visible", has_text="the last line").wait_for()
        eventually(lambda: output.evaluate(left) < 2)
        output.evaluate("e => { e.scrollTop = 0; }")
        with page.expect_response(f"**/runs/{run.id}"):
            pass
        assert output.evaluate("e => e.scrollTop") == 0
    finally:
        go.set()


def test_the_last_durations_are_drawn_with_the_usual_ones(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.open_detail("backup")
    note = page.locator("#chart-note")
    expected = r"3 runs, .*: 100 % succeeded, median .*s \(line\), 95 % within .*s \(dashes\)"
    note.get_by_text(re.compile(expected)).wait_for()
    expect(page.locator("#chart rect")).to_have_count(3)
    expect(page.locator("#chart line")).to_have_count(2)
    page.get_by_role("button", name="Close").click()
    dashboard.open_detail("held")
    note.get_by_text("No run has ended yet.").wait_for()
    expect(page.locator("#chart"), "an empty chart takes no room").not_to_be_visible()


# Time.


# The tick of 02:30 in Tokyo, asked for by what clocks in the chosen zone showed.
WHYS = [
    ("viewer", "2026-07-01T13:30", "2026-07-01 13:30:00 America/New_York"),
    ("viewer", "2026-01-01T12:30", "2026-01-01 12:30:00 America/New_York"),
    ("UTC", "2026-01-01T17:30:00", "2026-01-01 17:30:00 UTC"),
    ("task", "2026-01-01T02:30", "2026-01-01 02:30:00 Asia/Tokyo"),
]


def test_one_zone_is_chosen_once_and_used_everywhere(
    make: Any, browser: Any, request: Any
) -> None:
    began = datetime(2026, 7, 1, 0, 30, 0, 250_000, tzinfo=timezone.utc)
    log = logging.getLogger("tokyo")

    def begin() -> None:
        log.warning("it began\n2026-13-01T00:30:00Z is no instant")

    factory = logging.getLogRecordFactory()

    def at_half_past(*args: Any, **values: Any) -> logging.LogRecord:
        record = factory(*args, **values)
        record.created = began.timestamp()
        return record

    logging.setLogRecordFactory(at_half_past)
    request.addfinalizer(lambda: logging.setLogRecordFactory(factory))
    tasks = [
        Task("tokyo", begin, schedule="30 2 * * *", timezone="Asia/Tokyo"),
        Task("berlin", ok, schedule="30 2 * * *", timezone="Europe/Berlin"),
    ]
    housekeeper = make(*tasks)
    run = housekeeper.run_task_manually("tokyo")
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:
        page = browser.new_context(timezone_id="America/New_York").new_page()
        dashboard = Dashboard(page, housekeeper, f"http://127.0.0.1:{port}/api/housekeeper/")
        dashboard.sign_in()
        tokyo = dashboard.row("tokyo")
        for zone, at in (
            ("viewer", "(12|13):30:00"),
            ("UTC", "17:30:00"),
            ("task", "02:30:00 Asia/Tokyo"),
        ):
            page.select_option("#zone", zone)
            tokyo.locator(".exact", has_text=re.compile(f", {at}$")).wait_for()
            page.locator("#next li", has_text=re.compile(f"tokyo.*, {at}$", re.DOTALL)).wait_for()
        page.reload()
        tokyo.get_by_text("02:30:00 Asia/Tokyo").wait_for()
        page.goto(f"{dashboard.address}#run/{run.id}")
        page.locator("pre", has_text="2026-07-01 09:30:00.250 WARNING tokyo: it began").wait_for()
        page.locator("pre", has_text="2026-13-01T00:30:00Z is no instant").wait_for()
        page.get_by_text("times in Asia/Tokyo").wait_for()
        for zone, asked, told in WHYS:
            page.get_by_role("button", name="Close").click()
            page.select_option("#zone", zone)
            dashboard.open_detail("tokyo")
            page.fill("#why-instant", asked)
            page.get_by_role("button", name="Ask").click()
            page.locator("#why-answer li", has_text=f"asks for {told}.").wait_for()
            assert told.split()[-1] in page.inner_text("#why label")
        page.get_by_role("button", name="Close").click()
        page.select_option("#zone", "viewer")
        page.locator("#day-note", has_text="in America/New_York").wait_for()
        page.context.close()
        assert dashboard.troubles == []


def test_the_next_day_shows_frequent_tasks_as_a_band_and_what_comes_next(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    dashboard.sign_in()
    dashboard.page.locator("#day rect.band").wait_for(state="attached")
    dashboard.page.get_by_text("every half hour or more often: 1 (idle)").wait_for()
    quarters = dashboard.page.locator("#day g title").all_text_contents()
    assert any(re.fullmatch("[0-2][0-9]:[0-5][0-9], 1 task: backup", each) for each in quarters)
    dashboard.page.focus("#day")
    for key, quarter in (("Right", 0), ("Right", 1), ("Left", 0), ("Left", -1), ("Right", 0)):
        dashboard.page.keyboard.press(f"Arrow{key}")
        assert dashboard.page.inner_text("#day-note") == quarters[quarter % len(quarters)]
    names = dashboard.page.locator("#next a").all_inner_texts()
    tasks = {each["name"]: each["next_run"] for each in dashboard.housekeeper.list_tasks()}
    coming = {name: tick for name, tick in tasks.items() if tick}
    assert names == sorted(coming, key=coming.__getitem__)
    times = dashboard.page.locator("#next span.about").all_inner_texts()
    assert all(re.search(" [0-9]{2}(:[0-9]{2}){2}$", each) for each in times), "they are aligned"


@pytest.mark.parametrize("width", WIDTHS)
def test_no_hour_of_the_next_day_is_cut_off(open_dashboard: Any, width: str) -> None:
    dashboard = open_dashboard(width)
    dashboard.sign_in()
    dashboard.page.locator("#day text").first.wait_for(state="attached")
    too_far = """() => Array.from({length: QUARTERS}, () => {
        day.begin += QUARTER;
        drawDay();
        const right = (each) => each.getBoundingClientRect().right;
        return Math.max(...[...$("day").querySelectorAll("text")].map(right)) - right($("day"));
    })"""
    assert max(dashboard.page.evaluate(too_far)) <= 0


def test_a_length_is_said_once(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    dashboard.housekeeper.register_task(Task("often", ok, schedule=timedelta(hours=7)))
    dashboard.sign_in()
    dashboard.row("often").locator(".when code", has_text=re.compile("^ [+] ")).wait_for()
    dashboard.open_detail("often")
    assert dashboard.page.locator("#detail-facts").inner_text().count("every 7 hours") == 1


def test_what_starts_with_the_application_says_so_wherever_it_is_shown(
    open_dashboard: Any,
) -> None:
    dashboard = open_dashboard()
    dashboard.housekeeper.register_task(Task("warm-up", ok, startup=True))
    dashboard.sign_in()
    dashboard.row("warm-up").get_by_text("at startup").wait_for()
    dashboard.open_detail("warm-up")
    expect(dashboard.page.locator("#detail-facts")).to_contain_text("at startup")


def test_a_tick_that_has_just_passed_is_due_and_not_ago(open_dashboard: Any) -> None:
    dashboard = open_dashboard()

    def late(route: Any) -> None:
        answer = route.fetch().json()
        for task in answer["tasks"]:
            task["next_run"] = task["next_run"] and "2026-01-01T00:00:00Z"
        route.fulfill(json=answer)

    dashboard.page.route("**/tasks", late)
    dashboard.sign_in()
    row = dashboard.row("idle")
    row.locator(".when strong", has_text="due now").wait_for()
    assert "ago" not in dashboard.page.locator("#next").inner_text()


# Many tasks.


def visible_names(page: Any) -> list[str]:
    names: list[str] = page.locator(".task:visible").evaluate_all(
        "rows => rows.map(row => row.dataset.task)"
    )
    return names


def test_tasks_are_sorted_grouped_and_searched_in_words(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    for name in ("mail-report", "mail-digest"):
        dashboard.housekeeper.register_task(Task(name, ok, timezone="Europe/Berlin"))
    dashboard.sign_in()
    page.select_option("#sort", "By name")
    names = sorted(dashboard.housekeeper.task_names())
    eventually(lambda: visible_names(page) == names)
    page.select_option("#sort", "Next run first")
    coming = page.locator("#next a").first.inner_text()
    eventually(lambda: visible_names(page)[0] == coming)
    page.check("#grouped")
    groups = page.locator(".group").all_inner_texts()
    assert "mail: 2" in groups
    assert groups == sorted(groups)
    for sought, found in (
        ("asia backup", ["backup"]),
        ("every minutes", ["idle"]),
        ("failed", ["broken"]),
        ("berlin", ["mail-digest", "mail-report"]),
        ("tokens table", ["broken"]),
    ):
        page.fill("#search", sought)
        assert visible_names(page) == found, sought


def test_several_tasks_are_paused_and_resumed_at_once(open_dashboard: Any) -> None:
    dashboard = open_dashboard()
    page = dashboard.page
    dashboard.sign_in()
    dashboard.row("backup").get_by_label("Select backup").check()
    dashboard.row("idle").get_by_label("Select idle").check()
    page.get_by_text("2 selected").wait_for()
    page.get_by_role("button", name="Pause selected").click()
    page.get_by_text("2 of 2 tasks paused").wait_for()
    paused = {each["name"] for each in dashboard.housekeeper.list_tasks() if each["paused"]}
    assert paused == {"backup", "idle"}
    page.get_by_role("button", name="Paused 2").click()
    page.get_by_label("Select all").check()
    page.get_by_role("button", name="Resume selected").click()
    page.get_by_text("2 of 2 tasks resumed").wait_for()
    assert not any(each["paused"] for each in dashboard.housekeeper.list_tasks())


def test_what_is_said_covers_nothing(open_dashboard: Any) -> None:
    dashboard = open_dashboard("phone")
    dashboard.sign_in()
    row = dashboard.row("markup")
    row.get_by_role("button", name="Run now").click()
    said = dashboard.page.locator("#said")
    said.get_by_text("markup: started").wait_for()
    box = said.bounding_box()
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    below = (
        "p => document.elementsFromPoint(p.x, p.y).filter(e => e.matches('button, p, h3')).length"
    )
    assert dashboard.page.evaluate(below, middle) <= 1


def test_on_a_phone_the_first_task_is_on_the_first_screen(
    open_dashboard: Any, monkeypatch: Any
) -> None:
    dashboard = open_dashboard("phone")
    alive = {**DEAD, "alive": True, "beat_at": datetime.now(timezone.utc)}
    tell(monkeypatch, status="warning", problems=["Task broken failed."], runners=[alive])
    dashboard.page.set_viewport_size({"width": 360, "height": 640})
    dashboard.sign_in()
    dashboard.row("broken").locator("g.failed").wait_for(state="attached")
    box = dashboard.row("broken").locator(".outcome").bounding_box()
    assert box["y"] + box["height"] < 640
    filters = dashboard.page.locator("#filters")
    assert filters.evaluate("e => e.scrollWidth <= e.clientWidth"), "no filter is cut off"


FURNISH = """
    WITH RECURSIVE tasks(task, number) AS
    (SELECT name, row_number() OVER (ORDER BY name) FROM housekeeper_tasks),
    minutes(ago) AS (SELECT 1 UNION ALL SELECT ago + 1 FROM minutes LIMIT {runs})
    INSERT INTO housekeeper_runs
    (id, task, reason, status, runner, scheduled_for, started_at, finished_at, note, output)
    SELECT printf('%012x%04x0000beef', 1735689600000 - ago * 60000, number), task, 'schedule',
    CASE WHEN {failed} THEN 'failed' ELSE 'succeeded' END, 'vm:1:ab', at, at, at, '', 'done'
    FROM (SELECT *, strftime('%Y-%m-%dT%H:%M:00.000000Z', 'now', -ago || ' minutes') AS at
    FROM tasks, minutes)
"""


def furnish(folder: Path, runs: int, *tasks: str, failed: str = "1 = 1") -> str:
    """Return the URL of a ledger in which each task has so many runs, one a minute."""
    ledger = hk.ledger_from_url(url := f"sqlite:///{folder}/ledger.db", folder, hk.SystemClock())
    ledger.register([hk.Entry(f"/{name}", "", "") for name in tasks or ("broken",)])
    ledger.close()
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as rows:
        rows.execute(FURNISH.format(runs=runs, failed=failed))
        rows.commit()
    return url


def test_three_hundred_tasks_with_a_thousand_runs_each_are_there_at_once(
    make: Any, browser: Any, tmp_path: Path, capsys: Any
) -> None:
    names = [f"task-{number:03}" for number in range(300)]
    url = furnish(tmp_path, 1000, *names, failed="ago % 500 = number")
    housekeeper = make(
        *(Task(n, ok, schedule=f"{i % 60} {i % 24} * * *") for i, n in enumerate(names)),
        ledger=url,
    )
    took = """async () => {
        const begun = performance.now();
        await ACT;
        await new Promise(requestAnimationFrame);
        return performance.now() - begun;
    }"""
    times = {}
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:
        page = browser.new_context().new_page()
        dashboard = Dashboard(page, housekeeper, f"http://127.0.0.1:{port}/api/housekeeper/")
        page.wait_for_selector("#sign-in:visible")
        page.evaluate("text => remember(text)", TOKEN)
        for name, act, before in (
            (
                "first",
                "refresh()",
                "clearTimeout(timer); rows.clear(); for (const each of"
                " Object.keys(states)) delete states[each]",
            ),
            ("again", "refresh()", "clearTimeout(timer)"),
            ("sorted", "Promise.resolve(arrange())", ""),
        ):
            times[name] = min(
                page.evaluate(f"() => {{ {before} }}") or page.evaluate(took.replace("ACT", act))
                for _ in range(5)
            )
        expect(page.locator(".task:visible")).to_have_count(300)
        assert page.locator("#events li").count() > 0
        dashboard.open_detail("task-007")
        eventually(lambda: page.locator("#detail-runs details").count() == 100)
        older = took.replace("ACT", "loadRuns(oldest)")
        times["older"] = min(page.evaluate(older) for _ in range(3))
        expect(page.locator("#detail-runs details")).to_have_count(400)
        page.context.close()
        assert dashboard.troubles == []
    with capsys.disabled():
        print({name: f"{each:.0f} ms" for name, each in times.items()})
    assert max(times.values()) < 400 * crowd()


def crowd() -> float:
    """Return how often longer than on an idle machine a computation takes here now, 1 or more."""
    begun, used = time.perf_counter(), time.process_time()
    sum(number * number for number in range(3_000_000))
    return max(1.0, (time.perf_counter() - begun) / (time.process_time() - used))


def furnished() -> tuple[hk.Housekeeper, dict[str, object]]:
    """Return a Housekeeper with a day and a half of runs, and the runner that was there."""
    now = datetime(2026, 11, 25, 14, 7, 21, tzinfo=timezone.utc)
    trouble = now - timedelta(hours=5)
    clock, chance = VirtualClock(now - timedelta(hours=36)), random.Random(7)

    def work(seconds: float, error: str = "") -> Any:
        def run() -> None:
            clock.advance(seconds * chance.uniform(0.6, 1.5))
            if error and (clock.now() > trouble or chance.random() < 0.05):
                raise RuntimeError(error)

        return run

    simulation = simulated(
        clock,
        Task("backup-database", work(42), schedule="30 2 * * *", description="Dump the shop."),
        Task("backup-uploads", work(95), schedule="10 3 * * *", description="Copy what is new."),
        Task("clean-carts", work(3), schedule="*/30 * * * *", description="Forget old carts."),
        Task("clean-sessions", work(1), schedule="*/10 * * * *", description="Forget who left."),
        Task("mail-digest", work(18), schedule="0 6 * * mon-fri", description="Mail the digest."),
        Task("rotate-keys", work(4), schedule="0 4 1 * *", description="Make new signing keys."),
        Task("sync-crm", work(9, CRM), schedule="5 * * * *", description="Push new customers."),
        Task("sync-stock", work(6), schedule="*/15 7-21 * * *", description="Count what is left."),
    )
    simulation.run_until(now)
    simulation.pause_task("rotate-keys")
    since = {"started_at": now - timedelta(hours=36), "beat_at": now - timedelta(seconds=20)}
    return simulation, {**DEAD, "runner": "web1:4711:ab", "alive": True, **since}


CRM = "connection to crm.example.org timed out"


def test_its_picture_for_the_readme_is_taken(
    browser: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    SHOTS.mkdir(exist_ok=True)
    path = os.environ.get("DASHBOARD_PICTURE") or SHOTS / "dashboard.png"
    logging.getLogger("housekeeper").setLevel(logging.CRITICAL)
    housekeeper, runner = furnished()
    since = "2026-11-25 10:05:00 UTC"
    problem = f"Task sync-crm failed its last 5 runs, since {since}: RuntimeError: {CRM}"
    tell(monkeypatch, status="warning", runners=[runner], overdue=[], problems=[problem])
    with served(housekeeper.mount(hk._lead_to_page, token=TOKEN)) as port:
        for width, name in ((1280, path), (360, SHOTS / "dashboard-phone.png")):
            context = browser.new_context(viewport={"width": width, "height": 800})
            page = context.new_page()
            dashboard = Dashboard(page, housekeeper, f"http://127.0.0.1:{port}/api/housekeeper/")
            dashboard.sign_in()
            dashboard.row("sync-crm").locator("g.failed").nth(4).wait_for(state="attached")
            page.locator("#events li").first.wait_for()
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=name)
            if width == 1280:
                dashboard.open_detail("sync-crm")
                page.locator("#detail-runs summary").first.click()
                page.locator("pre:visible").first.wait_for()
                page.screenshot(path=SHOTS / "dashboard-detail.png")
            context.close()
            assert dashboard.troubles == []
    logging.getLogger("housekeeper").setLevel(logging.NOTSET)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_readable_and_accessible(
    open_dashboard: Any, held: Held, width: str, scheme: str
) -> None:
    dashboard = open_dashboard(width, scheme)
    page = dashboard.page
    page.wait_for_selector("#sign-in:visible")
    dashboard.screenshot(f"{width}-{scheme}-sign-in")
    dashboard.check_accessibility()
    dashboard.housekeeper.run_task_manually("held", wait=False)
    assert held.begun.wait(PATIENCE)
    dashboard.housekeeper.pause_task("idle")
    dashboard.sign_in()
    dashboard.row("broken").locator("g.failed").wait_for(state="attached")
    dashboard.row("held").get_by_text("1 of 3 files").wait_for()
    # At rest, so that no colour is caught in the middle of its animation.
    page.emulate_media(reduced_motion="reduce")
    dashboard.screenshot(f"{width}-{scheme}")
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    dashboard.open_detail("broken")
    page.locator("#detail-runs summary").click()
    page.locator("pre:visible").first.wait_for()
    dashboard.screenshot(f"{width}-{scheme}-detail")
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
