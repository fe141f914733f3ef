"""What the promise comes to: no tick is run twice, and each is accounted for by a row."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import housekeeper as hk

NEVER_RAN = (hk.Status.SKIPPED, hk.Status.MISSED)


def with_ticks(rows: Iterable[hk.Run]) -> list[hk.Run]:
    """Return the rows that have a tick, in the ticks' order."""
    return sorted(
        (row for row in rows if row.scheduled_for is not None), key=lambda row: row.scheduled_for
    )


def assert_accounted(rows: Iterable[hk.Run], trigger: hk.Trigger) -> list[hk.Run]:
    """Assert that each tick from the first on record to the last is in exactly one row."""
    ordered = with_ticks(rows)
    assert ordered, "nothing is on record"
    for before, row in itertools.pairwise(ordered):
        assert before.scheduled_for is not None
        assert row.scheduled_for is not None
        between = trigger.count(before.scheduled_for, row.scheduled_for, limit=100_000)
        assert between == row.count, f"{between} ticks from {before} to {row}"
    return ordered


def assert_ran_once(ticks: Sequence[datetime | None], rows: Iterable[hk.Run]) -> None:
    """Assert that what tasks have seen is what the ledger says has run, each tick once."""
    assert max(Counter(ticks).values(), default=0) <= 1, "a tick was run twice"
    ran = {row.scheduled_for for row in with_ticks(rows) if row.status not in NEVER_RAN}
    assert set(ticks) <= ran, "a tick was run that is not on record as run"
