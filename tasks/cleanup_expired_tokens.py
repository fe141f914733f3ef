"""Delete expired access tokens and abandoned OAuth sessions from the application's database."""

import logging
from collections import Counter

from _database import PostgresDatabase, SqliteDatabase, database

from housekeeper import SkipRun, current_run, task

BATCH = 10_000
# Table, its column, and how many seconds ago that must lie for a row to go.
EXPIRING = (("access_tokens", "expires_at", 0), ("oauth_sessions", "created_at", 300))

logger = logging.getLogger(__name__)


# H: a minute that differs between installations, so that not all of them come at once.
@task(schedule="H 2 * * *", startup=True)
def cleanup_expired_tokens() -> None:
    """Delete expired access tokens and OAuth sessions older than 5 minutes."""
    deleted, failures = Counter[str](), list[Exception]()
    with database() as db:
        tables = [row for row in EXPIRING if db.has_table(row[0])]
        for table, _, _ in set(EXPIRING) - set(tables):
            logger.info("There is no table %s; skipped it", table)
        if not tables:
            raise SkipRun("the database has neither access_tokens nor oauth_sessions")
        for table, column, age in tables:
            try:
                delete_expired(db, (table, column), age, deleted)
            except Exception as error:
                # The other table is cleaned all the same.
                logger.error("Table %s: %s", table, error)
                failures.append(error)
            logger.info("Deleted %d rows of %s", deleted[table], table)
    if failures:
        raise failures[0]


def delete_expired(
    db: PostgresDatabase | SqliteDatabase,
    where: tuple[str, str],
    age: float,
    deleted: Counter[str],
) -> None:
    """Delete the rows of a table whose column is older than so many seconds, and count them.

    Each batch is a transaction of its own: what is deleted stays deleted.
    """
    run, (table, column), before, touched = current_run(), where, db.now() - age, BATCH
    while touched >= BATCH:  # It may be more, see PostgresDatabase.delete_older().
        run.check_cancelled()
        touched = db.delete_older(table, column, before, BATCH)
        deleted[table] += touched
        run.progress(deleted.total(), unit="rows")
