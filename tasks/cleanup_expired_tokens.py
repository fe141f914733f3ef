"""Delete expired access tokens and abandoned OAuth sessions from the application's database."""

import logging

from _database import database

from housekeeper import SkipRun, current_run, task

BATCH = 10_000
# Table, its column, and how many seconds ago that must lie for a row to go.
EXPIRING = (("access_tokens", "expires_at", 0), ("oauth_sessions", "created_at", 300))

logger = logging.getLogger(__name__)


# H: a minute that differs between installations, so that not all of them come at once.
@task(schedule="H 2 * * *", startup=True)
def cleanup_expired_tokens() -> None:
    """Delete expired access tokens and OAuth sessions older than 5 minutes."""
    run, deleted, failures = current_run(), 0, list[Exception]()
    with database() as db:
        tables = [row for row in EXPIRING if db.has_table(row[0])]
        for table, _, _ in set(EXPIRING) - set(tables):
            logger.info("There is no table %s; skipped it", table)
        if not tables:
            raise SkipRun("the database has neither access_tokens nor oauth_sessions")
        for table, column, age in tables:
            of_table, touched = 0, BATCH
            try:
                before = db.now() - age
                # It may be more, see PostgresDatabase.delete_older().
                while touched >= BATCH:
                    # Each batch is a transaction of its own: what is deleted stays deleted.
                    run.check_cancelled()
                    touched = db.delete_older(table, column, before, BATCH)
                    of_table += touched
                    deleted += touched
                    run.progress(deleted, unit="rows")
            except Exception as error:
                # The other table is cleaned all the same.
                logger.error("Table %s: %s", table, error)
                failures.append(error)
            logger.info("Deleted %d rows of %s", of_table, table)
    if failures:
        raise failures[0]
