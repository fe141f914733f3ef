"""The file is what its head says, and keeps to the shape that makes it readable."""

from __future__ import annotations

import ast
import bisect
import re
from pathlib import Path

import pytest

import housekeeper as hk

SOURCE = Path(hk.__file__).read_text()
TREE = ast.parse(SOURCE)
LINES = SOURCE.splitlines(keepends=True)
BANNER = re.compile(r"^# (\d+)\. .*\n# =", re.MULTILINE)
FUNCTIONS = [node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef)]
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try)


def test_the_contents_are_the_banners() -> None:
    rule = "# " + "=" * 96
    banners = re.findall(rf"^{rule}\n# (\d+\. .*)\n{rule}$", SOURCE, re.MULTILINE)
    contents = re.findall(r"^    (\d+\. .*)$", hk.__doc__ or "", re.MULTILINE)
    assert len(contents) == 21
    assert SOURCE.count(rule) == 2 * len(banners)
    for number, (line, banner) in enumerate(zip(contents, banners, strict=True), start=1):
        assert banner.startswith(f"{number}. ")
        assert banner.rstrip(".").startswith(line.rstrip(".")), "the words are the same"


def test_the_public_names_exist_and_are_in_order() -> None:
    assert list(hk.__all__) == sorted(hk.__all__, key=lambda name: (name[0].islower(), name))
    assert all(hasattr(hk, name) for name in hk.__all__)


def test_a_function_does_one_thing_in_forty_lines() -> None:
    for function in FUNCTIONS:
        # Options and what is said of them are no work.
        documented = ast.get_docstring(function) and len(function.body) > 1
        first = function.body[1 if documented else 0]
        assert (function.end_lineno or 0) - first.lineno < 40, function.name
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


def test_a_class_owns_its_state_in_four_hundred_lines() -> None:
    for node in ast.walk(TREE):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < 400, node.name


STARTS = [SOURCE[: match.start()].count("\n") + 1 for match in BANNER.finditer(SOURCE)]


def section_of(line: int) -> int:
    """Return the number of the section that a line is in; 0 for the front."""
    return bisect.bisect_right(STARTS, line)


def defined_names() -> dict[str, int]:
    """Return the names of the file's top level, and the section that defines each."""
    names: dict[str, int] = {}
    for node in TREE.body:
        found = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets if isinstance(node, ast.Assign | ast.AnnAssign) else ():
            inside = ast.walk(target) if target is not None else ()
            found += [each.id for each in inside if isinstance(each, ast.Name)]
        for name in found:
            names.setdefault(name, section_of(node.lineno))
    return names


class Loads(ast.NodeVisitor):
    """Collects the names that code asks for when it runs: annotations are only read."""

    def __init__(self) -> None:
        self.found: list[ast.Name] = []

    def visit_Name(self, node: ast.Name) -> None:
        self.found.append(node)

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)
        for statement in node.body:
            self.visit(statement)


def test_a_section_names_only_what_stands_above_it() -> None:
    # The two doors of a Housekeeper, which open into a room further down.
    doors = {"WebApp", "mounted"}
    names, loads = defined_names(), Loads()
    loads.visit(TREE)
    later = {
        f"{node.id} in line {node.lineno}"
        for node in loads.found
        if names.get(node.id, 0) > section_of(node.lineno) and node.id not in doors
    }
    assert later == set()


def test_each_lock_has_a_comment_that_says_what_it_guards() -> None:
    made = re.compile(r"= threading\.(Lock|RLock|Condition|Semaphore)\(")
    for number, line in enumerate(LINES):
        if made.search(line):
            near = [line, *LINES[max(0, number - 4) : number]]
            assert any("#" in each for each in near), f"line {number + 1}: {line.strip()}"


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


def functions_with(pattern: str) -> set[str]:
    """Return the functions above the command line whose own code matches."""
    end = SOURCE[: SOURCE.index("# 21. Command line")].count("\n")
    return {
        function.name
        for function in FUNCTIONS
        if function.lineno < end and re.search(pattern, ast.unparse(function))
    }


def test_the_environment_is_read_by_the_command_line_and_in_few_more_places() -> None:
    expected = {
        "local_zone_name": "TZ is where cron looks",
        "start_command": "a command inherits it",
        "_addresses_of": "libpq reads PGHOST as well",
        "start": "Sentry may be set up later, by SENTRY_DSN",
        "variable": "for all that is ours",
        "tell_children": "names this process",
        "tell_children_no_more": "takes the name back",
        "_is_reloaded": "a reloader has started this process",
        "_make_package": "spawned pools find the folder of tasks",
    }
    assert functions_with(r"os\.environ") == expected.keys()


def test_the_environment_is_changed_at_a_start_and_at_a_shutdown_only() -> None:
    changing = {
        function.name
        for function in FUNCTIONS
        if re.search(
            r"(del )?os\.environ(\[\w+\] = |\.pop|\.update|\.setdefault)|del os\.environ",
            ast.unparse(function),
        )
    }
    systemd_speaks_to_this_process_only = "__init__"
    assert changing == {
        systemd_speaks_to_this_process_only,
        "tell_children",
        "tell_children_no_more",
        "_make_package",
    }


def test_the_words_of_other_schedulers_are_not_used() -> None:
    words = set(re.findall(r"[a-z]+", SOURCE.lower()))
    assert words & {"misfire", "misfires", "coalesce", "jobstore"} == set()
