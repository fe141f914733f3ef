"""Delete old log files: LOG_DIRECTORY, LOG_RETENTION_DAYS and LOG_PATTERNS say which."""

import logging
import os
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path

import housekeeper
from housekeeper import ConfigurationError, SkipRun, current_run, task

from ._settings import setting

logger = logging.getLogger(__name__)


@task(schedule="0 3 * * *", each_host=True)
def cleanup_old_logs() -> str:
    """Delete log files older than LOG_RETENTION_DAYS (30) from LOG_DIRECTORY (./logs)."""
    folder, days, patterns = _folder(), _retention_days(), _patterns()
    oldest = time.time() - days * 86400
    files = sorted(_log_files(folder, patterns))
    run, deleted, freed, failures = current_run(), 0, 0, list[str]()
    for number, path in enumerate(files, start=1):
        run.check_cancelled()
        try:
            status = path.lstat()
            if status.st_mtime < oldest:
                path.unlink()
                deleted, freed = deleted + 1, freed + status.st_size
        except FileNotFoundError:
            pass  # Something else has rotated it away.
        except OSError as error:
            failures.append(f"{path.name} ({error.strerror})")
        run.progress(number, len(files), "files")
    logger.info("Deleted %d of %d log files, %d bytes, in %s", deleted, len(files), freed, folder)
    if failures:
        raise OSError(f"{len(failures)} files in {folder} stayed: {', '.join(failures[:10])}")
    return f"deleted {deleted} of {len(files)} log files, {freed:,} bytes"


def _homes() -> dict[Path, str]:
    """Return the homes of all users, and whose they are; Windows does not tell."""
    try:
        import pwd
    except ImportError:
        return {}
    return {
        Path(entry.pw_dir).resolve(): f"the home of {entry.pw_name}" for entry in pwd.getpwall()
    }


def _folder() -> Path:
    """Return the real folder of the logs; raises ConfigurationError for one to keep away from."""
    written = setting("LOG_DIRECTORY", "./logs")
    folder = Path(written).resolve()
    refused = _homes()
    # Path.home() raises an error for a user whom nobody knows, as there are in containers.
    refused[Path(os.path.expanduser("~")).resolve()] = "a home folder"
    refused[Path(housekeeper.__file__).resolve().parent] = "the folder of housekeeper.py"
    refused[Path("/")] = "the root folder"
    if folder in refused:
        raise ConfigurationError(
            f"LOG_DIRECTORY={written!r} is {refused[folder]}; name a folder that holds only logs"
        )
    if not folder.exists():
        raise SkipRun(f"the log folder {folder} does not exist")
    if not folder.is_dir():
        raise ConfigurationError(f"LOG_DIRECTORY={written!r} is not a folder")
    return folder


def _retention_days() -> int:
    text = setting("LOG_RETENTION_DAYS", "30")
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < 1:
        raise ConfigurationError(
            f"LOG_RETENTION_DAYS={text!r} is not a whole number of days, 1 or more"
        )
    return int(text)


def _patterns() -> list[str]:
    text = setting("LOG_PATTERNS", "*.log,*.log.*")
    patterns = [pattern.strip() for pattern in text.split(",") if pattern.strip()]
    if not patterns or any("/" in pattern for pattern in patterns):
        raise ConfigurationError(
            f"LOG_PATTERNS={text!r} is not a list of file names such as '*.log,*.log.*'"
        )
    return patterns


def _log_files(folder: Path, patterns: list[str]) -> list[Path]:
    """Return the regular files directly in a folder that match; no dotfiles, no symlinks."""
    with os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith(".")
            and any(fnmatchcase(entry.name, pattern) for pattern in patterns)
            and entry.is_file(follow_symlinks=False)
        ]
