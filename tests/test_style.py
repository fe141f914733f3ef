"""The file is what its head says, and keeps to the shape that makes it readable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import housekeeper as hk

SOURCE = Path(hk.__file__).read_text()
TREE = ast.parse(SOURCE)
FUNCTIONS = [node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef)]
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try)


def test_the_contents_are_the_banners() -> None:
    rule = "# " + "=" * 96
    banners = re.findall(rf"^{rule}\n# (\d+\. .*)\n{rule}$", SOURCE, re.MULTILINE)
    contents = re.findall(r"^    (\d+\. .*)$", hk.__doc__ or "", re.MULTILINE)
    assert len(contents) == 16
    assert SOURCE.count(rule) == 2 * len(banners)
    for number, (line, banner) in enumerate(zip(contents, banners, strict=True), start=1):
        assert banner.startswith(f"{number}. ")
        assert banner.rstrip(".").startswith(line.rstrip(".")), "the words are the same"


def test_the_public_names_exist_and_are_in_order() -> None:
    assert list(hk.__all__) == sorted(hk.__all__, key=lambda name: (name[0].islower(), name))
    assert all(hasattr(hk, name) for name in hk.__all__)


def test_a_function_does_one_thing_in_thirty_lines() -> None:
    for function in FUNCTIONS:
        documented = ast.get_docstring(function) and len(function.body) > 1
        first = function.body[1 if documented else 0]
        assert (function.end_lineno or 0) - first.lineno < 30, function.name
        assert depth(function) <= 4, f"{function.name}: a with round it all, and three within"
        names = [argument.arg for argument in function.args.args]
        assert len(names) - (names[:1] in (["self"], ["cls"])) <= 4, function.name


def depth(node: ast.AST) -> int:
    """Return how deep the statements of a function are nested, without functions inside it."""
    inner = [
        depth(child)
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, ast.FunctionDef)
    ]
    return max(inner, default=0) + isinstance(node, NESTING)


@pytest.mark.parametrize("name", hk.__all__)
def test_what_is_public_has_a_docstring_that_is_a_sentence(name: str) -> None:
    value = getattr(hk, name)
    members = [value, *(vars(value).values() if isinstance(value, type) else ())]
    for member in members:
        called = getattr(member, "__name__", "")
        if not called or called.startswith("_") or not callable(member):
            continue
        first, *_ = (member.__doc__ or "").split("\n\n")
        assert first.rstrip().endswith("."), f"{name}.{called}: {first!r}"


def test_only_the_clock_reads_or_waits_on_time() -> None:
    start = SOURCE.index("# 2. Clock")
    end = SOURCE.index("# 3. Schedules")
    outside = SOURCE[:start] + SOURCE[end:]
    for forbidden in ("time.time(", "time.sleep(", "time.monotonic(", "datetime.now("):
        code = [line for line in outside.splitlines() if forbidden in line and '"' not in line]
        assert code == [], forbidden


def test_the_environment_is_read_by_the_command_line_and_in_few_more_places() -> None:
    where_the_host_is = 'os.environ.get("TZ", '
    a_command_inherits_it, sentry_may_be_set_up_later = (
        "os.environ,",
        'os.environ.get("SENTRY_DSN"):',
    )
    what_this_process_was_told, what_it_will_tell = (
        'os.environ.get(SCHEDULERS, "")',
        'os.environ.get(SCHEDULERS, "").split()',
    )
    what_it_tells, what_it_tells_no_more = (
        "os.environ[SCHEDULERS] = ",
        "os.environ.pop(SCHEDULERS, None)",
    )
    a_reloader_has_started_this_process = "os.environ.get(name) == "
    before = SOURCE[: SOURCE.index("# 16. Command line")]
    found = [line[line.index("os.environ") :] for line in before.splitlines() if "os.env" in line]
    expected = [
        where_the_host_is,
        a_command_inherits_it,
        sentry_may_be_set_up_later,
        what_this_process_was_told,
        what_it_will_tell,
        what_it_tells,
        what_it_will_tell,
        what_it_tells,
        what_it_tells_no_more,
        a_reloader_has_started_this_process,
    ]
    assert len(found) == len(expected)
    assert all(map(str.__contains__, found, expected)), found


def test_the_environment_is_changed_at_a_start_and_at_a_shutdown_only() -> None:
    changing = {
        function.name
        for function in FUNCTIONS
        if re.search(r"os\.environ(\[\w+\] = |\.pop|\.update|\.setdefault)", ast.unparse(function))
    }
    systemd_speaks_to_this_process_only = "__init__"
    assert changing == {
        systemd_speaks_to_this_process_only,
        "tell_children",
        "tell_children_no_more",
    }


def test_the_words_of_other_schedulers_are_not_used() -> None:
    words = set(re.findall(r"[a-z]+", SOURCE.lower()))
    assert words & {"misfire", "misfires", "coalesce", "jobstore"} == set()
