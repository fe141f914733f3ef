"""Give back the space of deleted rows and refresh the planner's statistics."""

import logging
from importlib import import_module
from typing import Any

from housekeeper import current_run, task

from ._database import PostgresDatabase, SqliteDatabase, database, reason_of

logger = logging.getLogger(__name__)


@task(schedule="0 4 * * 0")
def database_vacuum() -> str:
    """Vacuum and analyze the application's database, table by table."""
    with database() as db:
        # Taken back before the connection is closed.
        forget = current_run().on_cancel(db.interrupt)
        try:
            if isinstance(db, PostgresDatabase):
                return vacuum_postgres(db)
            return vacuum_sqlite(db)
        except Exception:
            # A statement that was interrupted: say so, instead of how it failed.
            current_run().check_cancelled()
            raise
        finally:
            forget()


def vacuum_postgres(db: PostgresDatabase) -> str:
    """Vacuum each table; one that is locked, gone or not ours is skipped and said.

    One that fails, by a function in an index for example, does not stop the rest: the run fails at
    its end.
    """
    # By name, because who checks these files with mypy has no stubs of it.
    driver, errors, sql = (import_module(f"psycopg2{each}") for each in ("", ".errors", ".sql"))
    run, tables, skipped, failures = current_run(), _tables(db), 0, list[str]()
    for number, (schema, name, ours) in enumerate(tables, start=1):
        run.check_cancelled()
        try:
            if not ours:
                logger.warning("Skipped %s.%s: this role may not vacuum it", schema, name)
                skipped += 1
            else:
                db.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(schema, name)))
        except (errors.LockNotAvailable, errors.UndefinedTable) as error:
            logger.warning("Skipped %s.%s: %s", schema, name, reason_of(error))
            skipped += 1
        except driver.Error as error:
            run.check_cancelled()
            if db.connection.closed:
                raise
            failures.append(f"{schema}.{name} ({reason_of(error)})")
        run.progress(number, len(tables), "tables")
    if failures:
        raise RuntimeError(f"{len(failures)} tables failed: {', '.join(failures[:10])}")
    return f"vacuumed {len(tables) - skipped} of {len(tables)} tables"


def _tables(db: PostgresDatabase) -> list[tuple[Any, ...]]:
    """Return schema, name, and whether this role may vacuum it, of all tables but the system's."""
    # Owners may, and the owner of the database; since PostgreSQL 17 who was granted MAINTAIN.
    granted = "has_table_privilege(c.oid, 'MAINTAIN')"
    maintain = granted if db.connection.server_version >= 170000 else "false"
    rows, _ = db.execute(
        f"SELECT n.nspname, c.relname, pg_has_role(c.relowner, 'USAGE') OR {maintain}"
        " OR (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database"
        " WHERE datname = current_database())"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'"
        " AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1, 2"
    )
    return rows


def vacuum_sqlite(db: SqliteDatabase) -> str:
    """Rewrite the file without its holes; it needs as much free space as the file is large."""
    run, before = current_run(), _size(db)
    run.progress(0, 2, "statements")
    db.execute("VACUUM")
    run.progress(1, 2, "statements")
    # PRAGMA optimize looks only at what its own connection has queried, which is nothing.
    db.execute("ANALYZE")
    run.progress(2, 2, "statements")
    logger.info("Vacuumed %s: %d bytes before, %d after", db.path, before, _size(db))
    return f"{before:,} bytes before, {_size(db):,} after"


def _size(db: SqliteDatabase) -> int:
    """Return the bytes of a database's pages, its write-ahead log taken in."""
    sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    return int(db.execute(sql)[0][0][0])
