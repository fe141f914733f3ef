"""Discovery: task files that are loaded, reloaded, broken, or not to be trusted."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import py_compile
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import housekeeper as hk
from housekeeper import Task
from tests.environment import environment
from tests.virtual_time import VirtualClock, VirtualHousekeeper, simulated, utc
from tests.waiting import PATIENCE

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
DAILY, WEEKLY = "0 0 * * *", "0 0 * * 0"
as_root = pytest.mark.skipif(not ROOT, reason="needs root, whom alone it concerns")


@pytest.fixture(autouse=True)
def _no_modules_are_left() -> Iterator[None]:
    for name in [each for each in sys.modules if each.startswith(hk.PACKAGE)]:
        del sys.modules[name]
    before, finders = set(sys.modules), list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        del sys.modules[name]
    os.environ.pop(hk.FOLDERS, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tasks"
    made.mkdir(0o755)
    return made


def write(folder: Path, name: str, source: str) -> Path:
    """Write a file of which no compiled copy is left."""
    path = folder / name
    path.write_text(textwrap.dedent(source))
    path.chmod(0o644)
    for compiled in folder.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()
    return path


def one(*names: str, schedule: str = DAILY) -> str:
    """Return the source of a file with tasks of these names."""
    tasks = [
        f"task_{number} = Task({name!r}, lambda: None, schedule={schedule!r})\n"
        for number, name in enumerate(names)
    ]
    return "from housekeeper import Task\n" + "".join(tasks)


def housekeeper_of(folder: Path, *tasks: Task, **options: Any) -> VirtualHousekeeper:
    """Return a Housekeeper of a folder, that has not been started."""
    clock = VirtualClock(utc(2024, 1, 1))
    values: dict[str, Any] = {
        "app": None,
        "enabled": True,
        "sentry_enabled": False,
        "timezone": "UTC",
        "namespace": "",
        "tasks_dir": folder,
        "ledger": hk.ledger_from_url("memory://", folder, clock),
        "max_workers": 10,
        "shutdown_timeout": 30.0,
        "around_run": None,
        "on_finish": None,
        "clock": clock,
    }
    made = VirtualHousekeeper(hk.Settings(**{**values, **options}))
    for task in tasks:
        made.register_task(task)
    return made


def schedules(housekeeper: hk.Housekeeper) -> dict[str, object]:
    return {str(task["name"]): task["schedule"] for task in housekeeper.list_tasks()}


# Loading.


def test_a_file_holds_any_number_of_tasks_made_either_way(folder: Path) -> None:
    path = write(
        folder,
        "several.py",
        """
        from housekeeper import Task, task

        first = Task("first", lambda: None)
        again = first
        second = Task("second", command="true")
        not_a_task = "third"
        hidden = [Task("in-a-list", lambda: None)]

        @task(schedule="@daily")
        def third_one():
            pass
        """,
    )
    found = hk.discover_tasks(folder)
    assert found.problems == []
    assert list(found.tasks) == ["first", "second", "in-a-list", "third-one"]
    assert {source for _, source in found.tasks.values()} == {path}


def test_files_are_loaded_in_the_order_of_their_names(folder: Path) -> None:
    for name in ("b.py", "a.py", "c.py"):
        write(folder, name, one(name))
    assert list(hk.discover_tasks(folder).tasks) == ["a.py", "b.py", "c.py"]


def test_helpers_and_what_is_no_python_file_are_left_alone(folder: Path) -> None:
    for name in ("_helpers.py", "__init__.py", ".hidden.py", "notes.txt", "sweep.py~", "x.pyc"):
        write(folder, name, "raise RuntimeError('it was loaded')")
    (folder / "__pycache__").mkdir()
    found = hk.discover_tasks(folder)
    assert (found.tasks, found.problems) == ({}, [])


def test_task_files_can_import_helpers_and_what_lies_beside_the_folder(folder: Path) -> None:
    write(folder, "_names.py", "NAME = 'from-the-helper'")
    write(folder.parent, "beside_the_folder.py", "SCHEDULE = '@weekly'")
    write(
        folder,
        "sweep.py",
        """
        import _names
        from beside_the_folder import SCHEDULE
        from housekeeper import Task

        task = Task(_names.NAME, lambda: None, schedule=SCHEDULE)
        """,
    )
    found = hk.discover_tasks(folder)
    assert found.problems == []
    assert found.tasks["from-the-helper"][0].schedule == "@weekly"


def test_a_helper_that_is_a_package_is_loaded_anew_as_well(folder: Path) -> None:
    (folder / "_words").mkdir()
    write(folder, "_words/__init__.py", "from _words.more import GREETING")
    write(folder, "_words/more.py", "GREETING = 'hello'")
    write(folder, "__main__.py", "raise SystemExit")
    write(
        folder,
        "greet.py",
        """
        from _words import GREETING
        from housekeeper import Task
        task = Task("greet", lambda: None, description=GREETING)
        """,
    )
    housekeeper = housekeeper_of(folder)
    assert housekeeper.list_tasks()[0]["description"] == "hello"
    write(folder, "_words/more.py", "GREETING = 'good day'")
    housekeeper.discover()
    assert housekeeper.list_tasks()[0]["description"] == "good day"


def test_annotations_in_a_task_file_are_what_the_file_says(folder: Path) -> None:
    write(
        folder,
        "annotated.py",
        """
        from housekeeper import Task

        def count(number: int) -> None: ...

        task = Task("annotated", lambda: None, description=str(count.__annotations__["number"]))
        """,
    )
    assert housekeeper_of(folder).list_tasks()[0]["description"] == "<class 'int'>"


IN_THE_GAP = "*/5 2 * 3 L0"  # of each year, in Berlin


def test_a_schedule_that_never_comes_in_this_zone_is_told_and_the_others_go_on(
    folder: Path,
) -> None:
    write(
        folder,
        "both.py",
        f"""
        from housekeeper import Task
        good = Task("good", lambda: None, schedule="* * * * *")
        never = Task("never", lambda: None, schedule={IN_THE_GAP!r})
        """,
    )
    housekeeper = housekeeper_of(folder, timezone="Europe/Berlin")
    (problem,) = housekeeper.discover()
    assert "both.py" in problem
    assert "'never'" in problem
    assert "never comes" in problem
    assert schedules(housekeeper) == {"good": "* * * * *"}
    with pytest.raises(hk.ConfigurationError, match=r"'never'.*never comes"):
        housekeeper.register_task(Task("never", lambda: None, schedule=IN_THE_GAP))


def test_a_task_whose_h_stands_for_what_never_comes_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_trigger = hk.make_trigger

    def never(schedule: object, zone: str, hash_key: str = "") -> hk.Trigger:
        # Which month it is, is drawn by the ledger: here one without a thirtieth.
        text = str(schedule)
        drawn = text.replace("H", "2") if hash_key.endswith("unlucky") else schedule
        return make_trigger(drawn, zone, hash_key)

    monkeypatch.setattr(hk, "make_trigger", never)
    hits: list[int] = []
    tasks = [
        Task("lucky", lambda: hits.append(1), schedule="0 1 * * *"),
        Task("unlucky", lambda: None, schedule="0 0 30 H *"),
    ]
    simulation = simulated(VirtualClock(utc(2024, 1, 1)), *tasks)
    simulation.run_until(utc(2024, 1, 3))
    assert len(hits) == 2
    problems = str(simulation.health()["problems"])
    assert "'unlucky'" in problems
    assert "it is not scheduled" in problems


def test_tasks_that_a_helper_holds_are_not_tasks_of_the_folder(folder: Path) -> None:
    write(folder, "_shared.py", one("shared"))
    write(folder, "sweep.py", one("sweep"))
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]


def test_sys_path_is_as_before_whatever_the_files_do(folder: Path) -> None:
    write(folder, "broken.py", "import sys\nsys.path.clear()\nraise RuntimeError")
    write(folder, "sweep.py", one("sweep"))
    kept = list(sys.path)
    try:
        found = hk.discover_tasks(folder)
        assert str(folder) not in sys.path
    finally:
        sys.path[:] = kept
    assert list(found.tasks) == ["sweep"]
    (folder / "broken.py").unlink()
    hk.discover_tasks(folder)
    assert sys.path == kept


def test_a_folder_that_was_on_the_path_stays_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    before = list(sys.path)
    hk.discover_tasks(folder)
    assert sys.path == before


def test_files_of_one_name_in_two_folders_do_not_meet(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(folder, "json.py", one("first"))  # nor do they hide the module of that name
    write(other, "json.py", one("second"))
    assert list(hk.discover_tasks(folder).tasks) == ["first"]
    assert list(hk.discover_tasks(other).tasks) == ["second"]
    import json

    assert json.dumps([]) == "[]"


def test_in_a_task_file_housekeeper_is_this_very_module(folder: Path) -> None:
    write(
        folder,
        "sweep.py",
        """
        import housekeeper

        task = housekeeper.Task("sweep", lambda: housekeeper)
        """,
    )
    found = hk.discover_tasks(folder)
    task, _ = found.tasks["sweep"]
    assert type(task) is Task
    assert task.run is not None
    assert task.run() is hk


DROPPED_IN = """
import sys
{before}
import myapp.housekeeper as mine
from pathlib import Path

found = mine.discover_tasks(Path(sys.argv[1]))
print(list(found.tasks), found.problems)
print(sys.modules["housekeeper"] is mine)
"""


def dropped_in(folder: Path, before: str) -> list[str]:
    """Discover the folder from a copy of the file in a package; return what was printed."""
    package = folder.parent / "myapp"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "housekeeper.py").write_bytes(Path(hk.__file__).read_bytes())
    process = subprocess.run(
        [sys.executable, "-c", DROPPED_IN.format(before=before), str(folder)],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(folder.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.stderr == ""
    return process.stdout.splitlines()


def test_a_copy_in_a_package_is_what_task_files_import_as_housekeeper(folder: Path) -> None:
    write(folder, "sweep.py", one("sweep"))
    assert dropped_in(folder, "") == ["['sweep'] []", "True"]


def test_another_module_that_has_the_name_housekeeper_is_a_conflict_that_names_both(
    folder: Path,
) -> None:
    write(folder, "sweep.py", one("sweep"))
    write(folder.parent, "housekeeper.py", "")
    tasks_and_problems, same = dropped_in(folder, "import housekeeper")
    assert tasks_and_problems.startswith("[] [")
    assert "the module name 'housekeeper' is taken by" in tasks_and_problems
    assert str(folder.parent / "housekeeper.py") in tasks_and_problems
    assert str(folder.parent / "myapp" / "housekeeper.py") in tasks_and_problems
    assert "rename or remove the other" in tasks_and_problems
    assert same == "False"


# The package.


def test_helpers_are_imported_by_plain_and_by_relative_names_and_only_once(folder: Path) -> None:
    (folder / "_lib").mkdir(0o755)
    write(folder, "_lib/__init__.py", "from ._deep import A\nimport _lib._deep\nB = _lib._deep.A")
    write(folder, "_lib/_deep.py", "from .. import _count\nA = len(_count.times)")
    write(folder, "_count.py", "import os\ntimes = os.environ.setdefault('TIMES', '') + 'x'\n")
    with (folder / "_count.py").open("a") as file:
        file.write("os.environ['TIMES'] = times\n")
    forms = {
        "a": "import _lib\nvalue = _lib.A",
        "b": "import _lib._deep\nvalue = _lib._deep.A",
        "c": "import _lib._deep as deep, os\nvalue = deep.A",
        "d": "from _lib import *\nvalue = A",
        "e": "from _lib._deep import A as value",
        "f": "from . import _lib\nvalue = _lib.B",
        "g": "from ._lib._deep import A as value",
        "h-i": "from _count import times\nvalue = len(times)",
    }
    for name, source in forms.items():
        task = f"from housekeeper import Task\ntask = Task({name!r}, lambda: value)"
        write(folder, f"{name}.py", f"{source}\n{task}\n")
    os.environ.pop("TIMES", None)
    found = hk.discover_tasks(folder)
    assert (found.problems, os.environ.pop("TIMES")) == ([], "x")
    values = {name: task.run() for name, (task, _) in found.tasks.items() if task.run}
    assert values == dict.fromkeys(forms, 1)


def test_an_import_inside_a_function_finds_at_run_time_what_discovery_found(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, "_words.py", "NAME = 'helper'")
    write(tmp_path, "beside_it.py", "NAME = 'beside'")
    write(
        folder,
        "sweep.py",
        """
        from housekeeper import task

        @task()
        def sweep():
            import _words
            from . import _words as again
            from beside_it import NAME
            assert again is _words
            return _words.NAME, NAME
        """,
    )
    task, _ = hk.discover_tasks(folder).tasks["sweep"]
    assert task.run is not None
    assert task.run() == ("helper", "beside")


def test_a_file_named_like_a_library_hides_nothing_and_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("colorsys", "email"):
        write(folder, f"{name}.py", one(name))
        monkeypatch.delitem(sys.modules, name, raising=False)
    write(folder, "zz.py", "import colorsys, smtplib\ncolorsys.rgb_to_hsv\n" + one("zz"))
    path, before = list(sys.path), set(sys.modules)
    found = hk.discover_tasks(folder)
    assert (list(found.tasks), found.problems) == (["colorsys", "email", "zz"], [])
    assert sys.path == path
    places = [getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before]
    ours = {str(place) for place in places if place and Path(place).is_relative_to(folder)}
    assert ours == {str(folder / f"{name}.py") for name in ("colorsys", "email", "zz")}
    import colorsys

    assert hasattr(colorsys, "rgb_to_hsv")


def test_what_lies_beside_the_folder_hides_nothing_either(folder: Path, tmp_path: Path) -> None:
    for name in ("colorsys", "croniter", "only_here"):
        write(tmp_path, f"{name}.py", "HIDES = True")
    imports = "import colorsys, croniter, only_here\nassert only_here.HIDES\n"
    write(folder, "sweep.py", f"{imports}assert not hasattr(croniter, 'HIDES')\n{one('sweep')}")
    assert hk.discover_tasks(folder).problems == []


def test_a_task_file_can_import_from_another_which_is_loaded_once(folder: Path) -> None:
    write(folder, "b.py", one("b") + "import os\nos.environ['B'] = os.environ.get('B', '') + 'x'")
    write(folder, "a.py", "from b import task_0\nfrom .b import task_0 as again\n" + one("a"))
    os.environ.pop("B", None)
    found = hk.discover_tasks(folder)
    assert (list(found.tasks), found.problems) == (["a", "b"], [])
    assert os.environ.pop("B") == "x"


def test_two_folders_of_one_process_keep_their_helpers_at_run_time(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "more"
    other.mkdir(0o755)
    tasks = []
    for place, name in ((folder, "first"), (other, "second")):
        write(place, "_words.py", f"NAME = {name!r}")
        source = "from housekeeper import Task\ndef work():\n    import _words\n"
        write(place, "sweep.py", f"{source}    return _words.NAME\ntask = Task('sweep', work)")
        tasks.append(hk.discover_tasks(place).tasks["sweep"][0])
    assert [task.run() for task in tasks if task.run] == ["first", "second"]
    assert [pickle.loads(pickle.dumps(task.run)) for task in tasks] == [task.run for task in tasks]


def test_a_module_of_the_application_that_has_the_packages_name_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type(sys)("housekeeper_tasks")
    monkeypatch.setitem(sys.modules, "housekeeper_tasks", own)
    write(folder, "_words.py", "NAME = 'sweep'")
    write(folder, "sweep.py", "from ._words import NAME\n" + one("sweep"))
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]
    assert sys.modules["housekeeper_tasks"] is own


def test_a_reload_forgets_the_folders_modules_and_no_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "of_the_application.py", "")
    write(folder, "_words.py", "")
    write(folder, "sweep.py", "import _words, of_the_application\n" + one("sweep"))
    hk.discover_tasks(folder)
    before = dict(sys.modules)
    hk.discover_tasks(folder)
    changed = {name for name, module in before.items() if sys.modules.get(name) is not module}
    package = {"housekeeper_tasks", "housekeeper_tasks._words", "housekeeper_tasks.sweep"}
    assert changed == package


def test_functions_of_a_file_that_has_broken_can_still_be_pickled(folder: Path) -> None:
    write(folder, "sweep.py", "from housekeeper import Task\ndef f(): ...\nt = Task('sweep', f)")
    task, _ = hk.discover_tasks(folder).tasks["sweep"]
    write(folder, "sweep.py", "import housekeeper\n1 / 0")
    assert hk.discover_tasks(folder).tasks == {}
    assert pickle.loads(pickle.dumps(task.run)) is task.run


def test_a_compiled_copy_is_neither_read_nor_written(folder: Path) -> None:
    write(folder, "sweep.py", "import _words\n" + one("sweep"))
    path, other = folder / "_words.py", folder / "other"
    for place, text in ((other, "NAME = 'other'"), (path, "NAME = 'right'")):
        place.write_text(text)
        os.utime(place, (1_700_000_000, 1_700_000_000))
    cached = importlib.util.cache_from_source(str(path))
    py_compile.compile(str(other), cached, str(path))
    hk.discover_tasks(folder)
    assert sys.modules["housekeeper_tasks._words"].NAME == "right"
    assert [each.name for each in (folder / "__pycache__").iterdir()] == [Path(cached).name]


def test_a_folder_that_hides_a_task_file_and_a_dot_in_a_name_are_told(folder: Path) -> None:
    write(folder, "sweep.py", one("sweep"))
    (folder / "sweep").mkdir(0o755)
    write(folder, "sweep/__init__.py", "")
    write(folder, "nightly.old.py", one("old"))
    found = hk.discover_tasks(folder)
    assert found.tasks == {}
    dotted, hidden = found.problems
    assert dotted.startswith(f"{folder}/nightly.old.py: it does not import (ModuleNotFoundError")
    assert hidden == (
        f"{folder}/sweep.py: it is hidden by {folder}/sweep/__init__.py; rename one of them"
    )


POOL = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from _double import double
from housekeeper import task

def resize(number):
    from beside_it import ONE
    return double(number) + ONE

@task(timeout=60)
def resize_all():
    context = multiprocessing.get_context({method!r})
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print("resized", list(pool.map(resize, [1, 2])))
"""
APPLICATION = """
from housekeeper import create_housekeeper
housekeeper = create_housekeeper(ledger="memory://")
if __name__ == "__main__":
    housekeeper.initialize()
    housekeeper.run_task_manually("resize-all")
    housekeeper.shutdown()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("way", ["as a program", "as a module", "--tasks", "in an application"])
def test_pools_that_do_not_fork_find_the_functions_of_task_files(
    tmp_path: Path, way: str, method: str
) -> None:
    (tmp_path / "housekeeper.py").write_bytes(Path(hk.__file__).read_bytes())
    folder = tmp_path / ("elsewhere/jobs" if way == "--tasks" else "tasks")
    folder.mkdir(0o755, parents=True)
    write(folder, "_double.py", "def double(number): return 2 * number")
    write(folder, "re-size.py", POOL.format(method=method))
    write(folder.parent, "beside_it.py", "ONE = 1")
    write(tmp_path, "app.py", APPLICATION)
    run = ["run", "resize-all"]
    words = {
        "as a program": ["housekeeper.py", *run],
        "as a module": ["-m", "housekeeper", *run],
        "--tasks": ["housekeeper.py", "--tasks", str(folder), *run],
        "in an application": ["app.py"],
    }[way]
    process = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "resized [3, 5]" in process.stdout, process.stderr
    assert process.returncode == 0


def test_the_folder_of_another_program_gets_one_sentence_and_is_not_touched(
    folder: Path,
) -> None:
    write(folder, "__init__.py", "raise RuntimeError('it was imported')")
    write(folder, "wrong.py", "from celery import shared_task(\n")
    write(folder, "empty.py", "")
    for name in ("mail", "orders", "pay", "ship"):
        write(folder, f"{name}.py", "open(__file__ + '.ran', 'w')\nfrom celery import shared_task")
    found = hk.discover_tasks(folder)
    assert found.problems == [
        f"{folder}: not loaded, because they never name housekeeper: mail.py, orders.py,"
        " pay.py, ...; begin a helper's name with _, and if another program, such as Celery,"
        " owns the folder, pass another one as tasks_dir",
        f"{folder}/empty.py: it holds no Task; write task = Task(...), or name a helper _empty.py",
    ]
    assert list(folder.glob("*.ran")) == []
    assert folder / "mail.py" in found.broken, "a task that it held goes on"


# Which tasks count.


def names_of(folder: Path) -> list[str]:
    found = hk.discover_tasks(folder)
    assert found.problems == []
    return list(found.tasks)


def test_every_task_that_a_file_makes_counts_wherever_it_is_kept(folder: Path) -> None:
    write(
        folder,
        "tenants.py",
        """
        from _make import make
        from dataclasses import replace
        from housekeeper import Task, task

        def nothing(): ...

        base = Task("base", nothing)
        listed = [Task(f"list-{name}", nothing) for name in "ab"]
        kept = {"x": (Task("dict", nothing), {"y": [Task("deep", nothing)]})}
        for name in "xyz":
            made = Task(f"made-{name}", nothing)
        Task("unbound", nothing)
        copy = replace(base, name="copy")
        make("by-a-helper")

        class Group:
            inner = Task("in-a-class", nothing)

        def later():
            return Task("later", nothing)
        """,
    )
    write(
        folder,
        "_make.py",
        """
        from housekeeper import Task
        made_by_the_helper_for_itself = Task("not-of-a-file", print)
        def make(name): return Task(name, print)
        """,
    )
    made = ["base", "list-a", "list-b", "dict", "deep", "made-x", "made-y", "made-z", "unbound"]
    assert names_of(folder) == [*made, "copy", "by-a-helper", "in-a-class"]


def test_a_task_that_a_file_only_imports_counts_unless_another_task_file_makes_it(
    folder: Path, tmp_path: Path
) -> None:
    write(folder, "_shared.py", one("shared", "left-there"))
    write(tmp_path, "of_the_shop.py", one("of-the-shop", "registered-by-code"))
    write(folder, "b.py", one("made-by-b") + "both = [task_0]\n")
    write(
        folder,
        "a.py",
        """
        from _shared import task_0
        from of_the_shop import task_0 as shop
        from .b import task_0 as other, both
        import housekeeper
        """,
    )
    assert names_of(folder) == ["shared", "of-the-shop", "made-by-b"]


# What is wrong with a file.

BROKEN = {
    "a syntax error": ("task = Task(\n", ":2", "it does not import (SyntaxError"),
    "bad indentation": ("x = 1\n  y = 2\n", ":3", "it does not import (IndentationError"),
    "a module that raises": (
        "def f():\n    raise ValueError('no luck')\n\nf()\n",
        ":3",
        "it does not import (ValueError: no luck)",
    ),
    "an unknown import": (
        "\nimport no_such_module\n",
        ":3",
        "it does not import (ModuleNotFoundError: No module named 'no_such_module')",
    ),
    "sys.exit()": ("import sys\nsys.exit(3)\n", ":3", "sys.exit(3)"),
    "a task that could not work": (
        "\ntask = Task('bad', print, schedule='61 * * * *')\n",
        ":3",
        "Task 'bad': schedule '61 * * * *' is not a cron expression",
    ),
    "no task": (
        "def work():\n    pass\n",
        "",
        "it holds no Task; write task = Task(...), or name a helper _wrong.py",
    ),
    "a NUL": ("x = 1\0\n", "", "it does not import ("),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_file_is_told_with_its_place_and_the_others_load(
    folder: Path, kind: str
) -> None:
    source, line, text = BROKEN[kind]
    write(folder, "a.py", one("a"))
    wrong = write(folder, "wrong.py", f"from housekeeper import Task\n{source}")
    write(folder, "z.py", one("z"))
    found = hk.discover_tasks(folder)
    assert list(found.tasks) == ["a", "z"]
    (problem,) = found.problems
    assert problem.startswith(f"{wrong}{line}: ")
    assert text in problem
    assert "\n" not in problem
    assert found.broken == {wrong}


def test_bytes_that_are_no_text_are_told_and_the_others_load(folder: Path) -> None:
    write(folder, "a.py", one("a"))
    (folder / "latin.py").write_bytes(b"import housekeeper\nx = '\xff'\n")
    found = hk.discover_tasks(folder)
    assert list(found.tasks) == ["a"]
    assert "latin.py" in found.problems[0]


def test_the_line_is_the_task_files_own_also_when_a_helper_raises(folder: Path) -> None:
    write(folder, "_helper.py", "\n\n\ndef f():\n    return 1 / 0\n")
    path = write(folder, "sweep.py", "import housekeeper, _helper\n\n_helper.f()\n")
    (problem,) = hk.discover_tasks(folder).problems
    assert problem == f"{path}:3: it does not import (ZeroDivisionError: division by zero)"


def test_a_pipe_that_ends_in_py_is_told_and_does_not_hold_the_start(folder: Path) -> None:
    write(folder, "sweep.py", one("sweep"))
    os.mkfifo(folder / "pipe.py")
    found = hk.discover_tasks(folder)
    assert list(found.tasks) == ["sweep"]
    assert [problem for problem in found.problems if "pipe.py: it does not import" in problem]


def test_a_link_that_leads_nowhere_hides_no_change_and_is_none(folder: Path) -> None:
    path = write(folder, "sweep.py", one("sweep"))
    before = hk.stamps_of(folder)
    # As Emacs makes it while the file is edited.
    (folder / ".#sweep.py").symlink_to("user@host.1234:5678")
    assert hk.stamps_of(folder) == before
    os.utime(path, (1, 1))
    assert hk.stamps_of(folder) != before


def test_a_lazy_object_in_a_task_file_is_left_alone(folder: Path) -> None:
    lazy = """
    class Lazy:
        @property
        def __class__(self):
            raise RuntimeError("the settings are not configured")

    lazy = Lazy()
    """
    write(folder, "sweep.py", one("sweep") + textwrap.dedent(lazy))
    assert hk.discover_tasks(folder).problems == []


def test_a_folder_and_a_dangling_link_that_end_in_py_are_told(folder: Path) -> None:
    (folder / "folder.py").mkdir(0o755)
    (folder / "link.py").symlink_to(folder / "nowhere.py")
    write(folder, "sweep.py", one("sweep"))
    found = hk.discover_tasks(folder)
    assert list(found.tasks) == ["sweep"]
    assert [problem.partition(": ")[0] for problem in found.problems] == [
        str(folder / "folder.py"),
        str(folder / "link.py"),
    ]


def test_of_a_name_in_two_files_the_first_is_taken_and_the_second_told(folder: Path) -> None:
    first = write(folder, "a.py", one("sweep", "a"))
    second = write(folder, "b.py", one("sweep", "b"))
    found = hk.discover_tasks(folder)
    assert {name: source for name, (_, source) in found.tasks.items()} == {
        "sweep": first,
        "a": first,
        "b": second,
    }
    assert found.problems == [f"{second}: the task name 'sweep' is taken by {first}"]


def test_a_name_twice_in_one_file_is_told(folder: Path) -> None:
    path = write(folder, "a.py", one("sweep", "sweep"))
    assert hk.discover_tasks(folder).problems == [
        f"{path}: the task name 'sweep' is taken by {path}"
    ]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    found = hk.discover_tasks(tmp_path / "missing")
    assert found.tasks == {}
    assert found.problems == [
        f"{tmp_path}/missing: the tasks folder cannot be used (No such file or directory)"
    ]


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "tasks").touch()
    (problem,) = hk.discover_tasks(tmp_path / "tasks").problems
    assert problem.startswith(f"{tmp_path}/tasks: the tasks folder cannot be used (")


def test_an_empty_folder_is_nothing_wrong(folder: Path) -> None:
    found = hk.discover_tasks(folder)
    assert (found.tasks, found.problems, found.broken) == ({}, [], set())


# Into a Housekeeper, and again.


def test_discovered_tasks_are_registered_and_problems_returned_and_kept(folder: Path) -> None:
    write(folder, "sweep.py", one("sweep"))
    write(folder, "wrong.py", "")
    housekeeper = housekeeper_of(folder)
    problems = housekeeper.discover()
    assert schedules(housekeeper) == {"sweep": DAILY}
    assert problems == housekeeper.problems
    assert len(problems) == 1
    assert "wrong.py" in problems[0]


def test_without_a_folder_nothing_is_discovered(folder: Path) -> None:
    housekeeper = housekeeper_of(folder, Task("code", lambda: None), tasks_dir=None)
    assert housekeeper.discover() == []
    assert list(schedules(housekeeper)) == ["code"]


def test_a_name_that_code_has_registered_stays_the_codes(folder: Path) -> None:
    path = write(folder, "sweep.py", one("sweep", "other"))
    housekeeper = housekeeper_of(folder, Task("sweep", lambda: None, schedule=WEEKLY))
    for _ in range(2):
        assert housekeeper.discover() == [f"{path}: the name 'sweep' is registered already"]
        assert schedules(housekeeper) == {"sweep": WEEKLY, "other": DAILY}


def test_at_a_reload_new_tasks_come_changed_ones_change_and_deleted_ones_go(
    folder: Path,
) -> None:
    housekeeper = housekeeper_of(folder, Task("code", lambda: None))
    changed = write(folder, "changed.py", one("changed", "leaves"))
    deleted = write(folder, "deleted.py", one("deleted"))
    assert housekeeper.discover() == []
    assert set(schedules(housekeeper)) == {"code", "changed", "leaves", "deleted"}

    write(folder, changed.name, one("changed", "comes", schedule=WEEKLY))
    write(folder, "new.py", one("new"))
    deleted.unlink()
    assert housekeeper.discover() == []
    assert schedules(housekeeper) == {
        "code": None,
        "changed": WEEKLY,
        "comes": WEEKLY,
        "new": DAILY,
    }


def test_a_task_that_moves_to_another_file_stays(folder: Path) -> None:
    housekeeper = housekeeper_of(folder)
    old = write(folder, "old.py", one("sweep"))
    housekeeper.discover()
    old.rename(folder / "new.py")
    assert housekeeper.discover() == []
    assert list(schedules(housekeeper)) == ["sweep"]
    (folder / "new.py").unlink()
    assert housekeeper.discover() == []
    assert schedules(housekeeper) == {}


def test_a_file_that_breaks_keeps_its_tasks_until_it_is_mended_or_deleted(folder: Path) -> None:
    housekeeper = housekeeper_of(folder)
    path = write(folder, "sweep.py", one("sweep", "mop"))
    write(folder, "other.py", one("other"))
    housekeeper.discover()
    write(folder, "sweep.py", "task = housekeeper.Task(")
    write(folder, "other.py", one("other", schedule=WEEKLY))
    (problem,) = housekeeper.discover()
    assert problem.startswith(f"{path}:1: it does not import (SyntaxError")
    assert schedules(housekeeper) == {"sweep": DAILY, "mop": DAILY, "other": WEEKLY}

    write(folder, "sweep.py", one("sweep", schedule=WEEKLY))
    assert housekeeper.discover() == []
    assert housekeeper.problems == []
    assert schedules(housekeeper) == {"sweep": WEEKLY, "other": WEEKLY}

    write(folder, "sweep.py", "1 / 0")
    assert len(housekeeper.discover()) == 1
    path.unlink()
    assert housekeeper.discover() == []
    assert list(schedules(housekeeper)) == ["other"]


def test_a_reloaded_task_runs_its_new_function(folder: Path) -> None:
    housekeeper = housekeeper_of(folder)
    source = "from housekeeper import Task\ntask = Task('sweep', lambda: {!r})\n"
    for word in ("old", "new"):
        write(folder, "sweep.py", source.format(word))
        housekeeper.discover()
        task = cast(Any, housekeeper.registrations.get("sweep")).task
        assert task.run is not None
        assert task.run() == word


@pytest.mark.parametrize("again", [False, True])
def test_threads_that_ask_while_the_files_load_wait_for_all_of_them(
    folder: Path, again: bool
) -> None:
    gate: Any = types.ModuleType("the_gate")
    gate.reached, gate.opens = threading.Event(), threading.Event()
    sys.modules["the_gate"] = gate
    write(folder, "first.py", "import _helper\n" + one("first"))
    write(folder, "_helper.py", "import the_gate\nthe_gate.reached.set()\nthe_gate.opens.wait(20)")
    write(folder, "second.py", "import _helper\n" + one("second"))
    housekeeper = housekeeper_of(folder)
    answers: list[object] = []

    def ask() -> None:
        answers.append(housekeeper.discover() if again else housekeeper.task_names())

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    threads[0].start()
    assert gate.reached.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    threads[1].join(0.1)  # It gets as far as it can.
    gate.opens.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [[] if again else ["first", "second"]] * 4
    assert housekeeper.task_names() == ["first", "second"]


def test_a_task_file_that_asks_for_the_tasks_while_it_loads_is_loaded_once(folder: Path) -> None:
    housekeeper = housekeeper_of(folder)
    gate: Any = types.ModuleType("the_gate")
    gate.ask, gate.answers = housekeeper.task_names, []
    sys.modules["the_gate"] = gate
    source = "import the_gate\nthe_gate.answers.append(the_gate.ask())\n"
    write(folder, "first.py", source + one("first"))
    assert housekeeper.task_names() == ["first"]
    assert gate.answers == [[]]


# Known to go wrong.


def test_a_folder_that_cannot_be_read_for_now_keeps_its_tasks(folder: Path) -> None:
    housekeeper = housekeeper_of(folder)
    write(folder, "sweep.py", one("sweep"))
    housekeeper.discover()
    folder.rename(folder.parent / "away")
    assert len(housekeeper.discover()) == 1
    assert list(schedules(housekeeper)) == ["sweep"]


def test_an_edit_within_a_second_that_keeps_the_size_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for schedule in ("0 2 * * *", "0 3 * * *"):
        path = folder / "sweep.py"
        path.write_text(one("sweep", schedule=schedule))
        os.utime(path, (1_700_000_000, 1_700_000_000))
        found = hk.discover_tasks(folder)
    assert found.tasks["sweep"][0].schedule == "0 3 * * *"


def test_an_edited_helper_is_seen_at_a_reload(folder: Path) -> None:
    source = (
        "import _words\nfrom housekeeper import Task\ntask = Task(_words.NAME, lambda: None)\n"
    )
    write(folder, "sweep.py", source)
    for name in ("old", "newer"):
        write(folder, "_words.py", f"NAME = {name!r}")
        found = hk.discover_tasks(folder)
    assert list(found.tasks) == ["newer"]


def test_helpers_of_one_name_in_two_folders_do_not_meet(folder: Path, tmp_path: Path) -> None:
    source = (
        "import _words\nfrom housekeeper import Task\ntask = Task(_words.NAME, lambda: None)\n"
    )
    other = tmp_path / "other"
    other.mkdir()
    for place, name in ((folder, "first"), (other, "second")):
        write(place, "sweep.py", source)
        write(place, "_words.py", f"NAME = {name!r}")
        found = hk.discover_tasks(place)
    assert list(found.tasks) == ["second"]


def test_the_application_keeps_its_module_that_has_the_name_of_a_helper(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    (app / "_words").mkdir(parents=True)
    write(app, "_words/__init__.py", "NAME = 'of the application'")
    write(app, "_words/more.py", "")
    monkeypatch.syspath_prepend(app)
    own = importlib.import_module("_words"), importlib.import_module("_words.more")
    write(folder, "_words.py", "NAME = 'sweep'")
    source = (
        "import _words\nfrom housekeeper import Task\ntask = Task(_words.NAME, lambda: None)\n"
    )
    write(folder, "sweep.py", source)
    for _ in range(2):
        assert list(hk.discover_tasks(folder).tasks) == ["sweep"]
        assert (sys.modules["_words"], sys.modules["_words.more"]) == own


def test_functions_of_a_task_file_can_be_pickled_as_multiprocessing_does(folder: Path) -> None:
    write(folder, "sweep.py", one("sweep") + "def work(): return 42\n")
    hk.discover_tasks(folder)
    work = sys.modules["housekeeper_tasks.sweep"].work
    assert pickle.loads(pickle.dumps(work)) is work


def test_an_interrupt_from_the_keyboard_ends_discovery(folder: Path) -> None:
    write(folder, "sweep.py", "import housekeeper\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        hk.discover_tasks(folder)


@as_root
@pytest.mark.parametrize("place", ["_words.py", "_lib", "_lib/names.py"])
def test_as_root_a_helper_that_others_can_write_is_not_imported(folder: Path, place: str) -> None:
    (folder / "_lib").mkdir(0o755)
    write(folder, "_words.py", f"open({str(folder / 'ran')!r}, 'a').write('_words.py')")
    write(folder, "_lib/names.py", f"open({str(folder / 'ran')!r}, 'a').write('_lib')")
    write(folder, "words.py", "import _words\n" + one("words"))
    write(folder, "names.py", "import _lib.names\n" + one("names"))
    (folder / place).chmod(0o777)
    refused(folder, folder / place, "chmod go-w", line=":1", others=1)
    assert place[:4] not in (folder / "ran").read_text()


# As root.


def refused(folder: Path, culprit: Path, command: str, *, line: str = "", others: int = 0) -> None:
    """One file of a folder is refused, with the command that mends it."""
    found = hk.discover_tasks(folder)
    assert len(found.tasks) == others
    (problem,) = found.problems
    assert f".py{line}: " in problem
    assert f"{culprit} " in problem
    assert "would run as root" in problem
    assert f"`{command} {culprit}`" in problem


@as_root
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o620, 0o602])
def test_as_root_a_file_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    path = write(folder, "sweep.py", one("sweep"))
    path.chmod(mode)
    refused(folder, path, "chmod go-w")
    path.chmod(0o755)
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_as_root_a_folder_above_that_others_can_write_is_refused(
    tmp_path: Path, mode: int, above: int
) -> None:
    folder = tmp_path / "app" / "tasks"
    folder.mkdir(0o755, parents=True)
    write(folder, "sweep.py", one("sweep"))
    place = [folder, *folder.parents][above]
    before = place.stat().st_mode
    place.chmod(mode)
    try:
        refused(folder, place, "chmod go-w")
    finally:
        place.chmod(before)


@as_root
def test_as_root_a_sticky_folder_above_is_accepted_as_tmp_is(tmp_path: Path) -> None:
    folder = tmp_path / "sticky" / "tasks"
    folder.mkdir(0o755, parents=True)
    folder.parent.chmod(0o1777)
    write(folder, "sweep.py", one("sweep"))
    assert hk.discover_tasks(folder).problems == []


@as_root
def test_as_root_a_file_or_folder_of_another_user_is_refused(folder: Path) -> None:
    path = write(folder, "sweep.py", one("sweep"))
    os.chown(path, 65534, -1)
    refused(folder, path, "chown root")
    os.chown(path, 0, -1)
    os.chown(folder, 65534, -1)
    refused(folder, folder, "chown root")
    os.chown(folder, 0, 65534)  # a group that cannot write
    assert hk.discover_tasks(folder).problems == []


@as_root
def test_as_root_a_link_is_judged_by_the_file_it_leads_to(folder: Path, tmp_path: Path) -> None:
    target = write(tmp_path, "target.py", one("sweep"))
    (folder / "sweep.py").symlink_to(target)
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]
    target.chmod(0o666)
    refused(folder, target, "chmod go-w")


@as_root
def test_as_root_the_command_that_mends_a_path_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "my tasks"
    folder.mkdir(0o755)
    write(folder, "sweep.py", one("sweep")).chmod(0o666)
    (problem,) = hk.discover_tasks(folder).problems
    assert f"`chmod go-w '{folder}/sweep.py'`" in problem


@as_root
def test_as_root_a_refused_file_is_not_run_and_the_others_load(folder: Path) -> None:
    write(folder, "bad.py", "open(__file__ + '.ran', 'w').close()").chmod(0o666)
    write(folder, "sweep.py", one("sweep"))
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]
    assert not (folder / "bad.py.ran").exists()


@as_root
def test_as_root_helpers_may_be_links_into_folders_of_roots_own(
    folder: Path, tmp_path: Path
) -> None:
    target = write(tmp_path, "names.py", "NAME = 'sweep'")
    (folder / "_link.py").symlink_to(target)
    source = "import _link\nfrom housekeeper import Task\ntask = Task(_link.NAME, lambda: None)\n"
    write(folder, "sweep.py", source)
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]


@as_root
def test_as_root_what_a_link_beside_the_task_files_leads_to_is_judged_as_well(
    folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "package").mkdir(0o755, parents=True)
    inside = write(elsewhere, "package/names.py", "NAME = 'sweep'")
    (folder / "_package").symlink_to(elsewhere / "package")
    write(folder, "sweep.py", "import _package.names\n" + one("sweep"))
    assert hk.discover_tasks(folder).problems == []
    inside.chmod(0o666)
    refused(folder, inside.parent / "names.py", "chmod go-w", line=":1")
    inside.chmod(0o644)
    os.chown(elsewhere, 65534, -1)
    refused(folder, elsewhere, "chown root", line=":1")


@as_root
def test_as_root_each_link_on_the_way_is_judged_as_well(folder: Path, tmp_path: Path) -> None:
    write(folder, "sweep.py", one("sweep"))
    for owner, names in ((0, ["sweep"]), (65534, [])):
        link = tmp_path / f"link-of-{owner}"
        link.symlink_to(folder)
        os.chown(link, owner, -1, follow_symlinks=False)
        assert list(hk.discover_tasks(link).tasks) == names
    assert "`chown -h root" in hk.discover_tasks(link).problems[0]
    # The folder that holds a link decides where it leads.
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "tasks").symlink_to(folder)
    (problem,) = hk.discover_tasks(loose / "tasks").problems
    assert f"`chmod go-w {loose}`" in problem


@as_root
@pytest.mark.parametrize("place", ["shop.py", "pack", "pack/__init__.py", "pack/more.py", "plain"])
@pytest.mark.parametrize("on_the_path", [True, False])
def test_as_root_what_a_file_imports_from_beside_the_folder_is_judged_as_well(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    on_the_path: bool,
) -> None:
    for name in ("pack", "plain", "uploads"):
        (tmp_path / name).mkdir(0o755)
    for name in ("shop.py", "pack/__init__.py", "pack/more.py", "plain/tool.py", "uploads/x.py"):
        write(tmp_path, name, f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')")
    (tmp_path / "uploads").chmod(0o777)
    write(folder, "all.py", "import shop, pack.more, plain.tool\n" + one("all"))
    write(folder, "sweep.py", one("sweep"))
    if on_the_path:
        monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / place).chmod(0o666 if place.endswith(".py") else 0o777)
    found = hk.discover_tasks(folder)
    assert list(found.tasks) == ["sweep"]
    (problem,) = found.problems
    assert problem.startswith(f"{folder}/all.py:1: {tmp_path / place} can be written by others")
    ran = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
    assert place not in ran.split()


@as_root
def test_as_root_a_compiled_copy_beside_the_folder_is_judged_as_well(
    folder: Path, tmp_path: Path
) -> None:
    write(tmp_path, "shop.py", "")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__").chmod(0o777)
    write(folder, "sweep.py", "import shop\n" + one("sweep"))
    (problem,) = hk.discover_tasks(folder).problems
    assert f"{tmp_path}/__pycache__ can be written by others" in problem


@as_root
def test_as_root_the_applications_own_imports_are_not_judged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, "of_the_application.py", "NAME = 1").chmod(0o666)
    write(folder, "sweep.py", one("sweep"))
    assert hk.discover_tasks(folder).problems == []
    assert importlib.import_module("of_the_application").NAME == 1


@as_root
def test_as_root_a_helper_that_a_run_imports_late_is_judged_then(
    folder: Path, tmp_path: Path, make: Any
) -> None:
    source = "from housekeeper import task\n@task()\ndef sweep():\n    import {}\n"
    for name, place in (("_words", folder), ("beside_it", tmp_path)):
        path = write(place, f"{name}.py", "")
        write(folder, "sweep.py", source.format(name))
        housekeeper = make(tasks_dir=folder)
        path.chmod(0o666)
        with pytest.raises(hk.ConfigurationError, match=f"{name}.py can be written by others"):
            housekeeper.run_task_manually("sweep")
        path.chmod(0o644)


# A folder as Kubernetes mounts a ConfigMap: a link for each file, and modes that say nothing.
CONFIG_MAP = """
set -e
mount -t tmpfs tmpfs {folder}
cd {folder}
chmod 777 .
mkdir -m 777 ..2026_11_25
ln -s ..2026_11_25 ..data
printf 'from _words import NAME\\nfrom housekeeper import Task\\nTask(NAME, print)' > ..data/a.py
printf 'NAME = "from-the-map"' > ..data/_words.py
chmod 666 ..data/*.py
ln -s ..data/a.py a.py
ln -s ..data/_words.py _words.py
cd /
python={python}
$python {housekeeper} --tasks {folder} check || true
echo read-only
mount -o remount,ro {folder}
$python {housekeeper} --tasks {folder} check
"""


@as_root
def test_as_root_the_folder_of_a_config_map_works_because_nobody_can_write_it(
    tmp_path: Path,
) -> None:
    can = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if can.returncode:
        pytest.skip("mounting is not allowed here")
    (tmp_path / "tasks").mkdir()
    script = CONFIG_MAP.format(
        folder=tmp_path / "tasks", python=sys.executable, housekeeper=hk.__file__
    )
    process = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    before, _, after = process.stdout.partition("read-only\n")
    assert "can be written by others" in before
    assert "from-the-map" not in before
    assert "from-the-map\nall is well" in after


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def no_such_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")


@pytest.mark.parametrize("become", [nobody, no_such_thing])
def test_other_users_load_what_they_are_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, become: Callable[[pytest.MonkeyPatch], None]
) -> None:
    write(folder, "sweep.py", one("sweep")).chmod(0o666)
    folder.chmod(0o777)
    become(monkeypatch)
    assert list(hk.discover_tasks(folder).tasks) == ["sweep"]


def test_an_unknown_task_whose_file_did_not_load_is_told_why(tmp_path: Path) -> None:
    (tmp_path / "wash_up.py").write_text("import housekeeper\nimport nothing_of_that_name\n")
    housekeeper = hk.create_housekeeper(tasks_dir=tmp_path, ledger="memory://")
    with pytest.raises(hk.UnknownTask, match=r"'wash-up'; .*wash_up.py:2: it does not import"):
        housekeeper.pause_task("wash-up")


@pytest.mark.parametrize("where", ["at the top", "in the function"])
def test_an_application_that_a_task_imports_leaves_the_ticks_to_its_importer(
    folder: Path, monkeypatch, where: str
) -> None:
    monkeypatch.syspath_prepend(str(folder.parent))
    (folder.parent / "shop.py").write_text(
        "import housekeeper as hk\n"
        f"keeper = hk.create_housekeeper(tasks_dir={str(folder)!r}, ledger='memory://')\n"
        "keeper.initialize()\n"
        "def stock(): return 5\n"
    )
    top, inside = ("import shop", "pass") if where == "at the top" else ("", "import shop")
    source = f"""
    from housekeeper import task
    {top}

    @task(schedule="@daily")
    def count():
        {inside}
        return shop.stock()
    """
    write(folder, "count.py", source)
    housekeeper = hk.create_housekeeper(tasks_dir=folder, ledger="memory://")
    housekeeper.initialize()
    try:
        assert housekeeper.run_task_manually("count").note == "5"
        assert housekeeper.problems == []
        assert housekeeper.schedules
        assert not sys.modules["shop"].keeper.schedules
    finally:
        housekeeper.shutdown()
        sys.modules["shop"].keeper.shutdown()
