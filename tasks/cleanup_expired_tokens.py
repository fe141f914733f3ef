"""Delete expired access tokens and abandoned OAuth sessions from the application's database."""

import logging
from collections import Counter

from housekeeper import SkipRun, current_run, task

from ._database import PostgresDatabase, SqliteDatabase, database

BATCH = 10_000
# Table, its column, how many seconds ago that must lie for a row to go, and what a row is.
EXPIRING = (
    ("access_tokens", "expires_at", 0, "token"),
    ("oauth_sessions", "created_at", 300, "session"),
)

logger = logging.getLogger(__name__)


# H: a minute that differs between installations, so that not all of them come at once.
@task(schedule="H 2 * * *", startup=True)
def cleanup_expired_tokens() -> str:
    """Delete expired access tokens and OAuth sessions older than 5 minutes."""
    deleted, kept, failures = Counter[str](), Counter[str](), list[Exception]()
    with database() as db:
        tables = [row for row in EXPIRING if db.has_table(row[0])]
        for table, *_ in set(EXPIRING) - set(tables):
            logger.info("There is no table %s; skipped it", table)
        if not tables:
            raise SkipRun("the database has neither access_tokens nor oauth_sessions")
        for table, column, age, row in tables:
            before = db.now() - age
            try:
                kept[row] = delete_older(db, (table, column, row), before, deleted)
            except Exception as error:
                # The other table is cleaned all the same.
                logger.error("Table %s: %s", table, error)
                failures.append(error)
            logger.info("Deleted %d rows of %s", deleted[row], table)
    if failures:
        raise failures[0]
    text = f"deleted {_counts(deleted, [row for *_, row in tables])}"
    return text + (f"; kept {_counts(kept, list(+kept))} that could not go" if +kept else "")


def _counts(numbers: Counter[str], words: list[str]) -> str:
    """Return such as ``1 token and 2 sessions``."""
    return " and ".join(f"{numbers[word]:,} {word}{'s' * (numbers[word] != 1)}" for word in words)


def delete_older(
    db: PostgresDatabase | SqliteDatabase,
    where: tuple[str, str, str],
    before: float,
    deleted: Counter[str],
) -> int:
    """Delete the rows of a table whose column is before an instant, and count them.

    Each batch is a transaction of its own: what is deleted stays deleted.  Return how many stay.
    """
    run, (table, column, row) = current_run(), where
    gone = kept = 1
    # Once more as long as some go: a row may have refused because of one that has gone since.
    while gone and kept:
        gone = 0
        for touched in db.delete_older(table, column, before, BATCH):
            gone += touched
            deleted[row] += touched
            run.progress(deleted.total(), unit="rows")
        kept = db.count_older(table, column, before)
    return kept
