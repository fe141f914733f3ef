"""Fixtures for all tests: an empty world round each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import housekeeper as hk
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HOUSEKEEPER_", "LOG_", "SENTRY_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    """Make Housekeepers on the real clock and real threads; all are shut down at the end."""
    made: list[hk.Housekeeper] = []

    def make_one(*tasks: hk.Task, start: bool = True, **options: Any) -> hk.Housekeeper:
        options.setdefault("tasks_dir", None)
        options.setdefault("ledger", "memory://")
        options.setdefault("shutdown_timeout", 5.0)
        housekeeper = hk.create_housekeeper(**options)
        made.append(housekeeper)
        for task in tasks:
            housekeeper.register_task(task)
        if start:
            housekeeper.initialize()
        return housekeeper

    yield make_one
    for housekeeper in made:
        housekeeper.shutdown(timeout=1.0)


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: Any, tmp_path: Path) -> str:
    """The URL of a fresh ledger that serves many processes."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/ledger.db"
