"""The schedulers that are compared, behind one protocol.  Each is imported by its own process."""

from __future__ import annotations

import functools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from typing import Any, ClassVar

WORKERS = 10
GRACE = 3600  # seconds; Housekeeper's default, given to those that have such a thing
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class When:
    """Each second, or each day at one second, in UTC."""

    second: int | None = None
    minute: int | None = None
    hour: int | None = None
    cron: str = "* * * * * *"  # kept, so that equal schedules share one text, as literals do

    @classmethod
    def daily(cls, second_of_day: int) -> When:
        minutes, second = divmod(second_of_day % int(DAY), 60)
        hour, minute = divmod(minutes, 60)
        return cls(second, minute, hour, f"{second} {minute} {hour} * * *")

    @classmethod
    def at(cls, instant: float) -> When:
        """Return the daily schedule of which this time.time() is a tick."""
        return cls.daily(int(instant))

    @property
    def parts(self) -> dict[str, str]:
        """Return the fields as the builders of others want them, `*` for each."""
        parts = {"second": self.second, "minute": self.minute, "hour": self.hour}
        return {key: "*" if value is None else str(value) for key, value in parts.items()}

    def first_after(self, now: float) -> float:
        if self.second is None:
            return float(int(now) + 1)
        second_of_day = self.second + 60 * (self.minute or 0) + 3600 * (self.hour or 0)
        return now - (now - second_of_day) % DAY + DAY


EACH_SECOND = When()
EACH_MINUTE = When(second=0, cron="* * * * *")


class Contestant(ABC):
    """A scheduler with ten workers that is handed tasks, and then started."""

    label: ClassVar[str]
    imports: ClassVar[str]
    package: ClassVar[str | None] = None
    store: ClassVar[str | None] = None
    # What registering a task takes, until the first measurement has told better.
    seconds_per_task: ClassVar[float] = 100e-6
    # Its ticks of each second are whole seconds, so that it is known how late a run is.
    ticks_each_second: ClassVar[bool] = True
    # It runs tasks on threads of their own, and so has to make them first.
    has_workers: ClassVar[bool] = True
    # It looks for what is due when it is started, and then once a minute.
    looks_once_a_minute: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, url: str) -> None: ...

    @abstractmethod
    def add(self, name: str, when: When, run: Callable[..., object], *values: float) -> None: ...

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...


class FloorContestant(Contestant):
    label = "floor"
    imports = "import tests.benchmarks.floor"
    seconds_per_task = 10e-6

    def __init__(self, url: str) -> None:
        from tests.benchmarks.floor import Floor

        self._floor = Floor(WORKERS)

    def add(self, name: str, when: When, run: Callable[..., object], *values: float) -> None:
        every = 1.0 if when.second is None else DAY
        call = functools.partial(run, *values) if values else run
        self._floor.add(when.first_after(time.time()), every, call)

    def start(self) -> None:
        self._floor.start()

    def stop(self) -> None:
        self._floor.stop()


class HousekeeperInMemory(Contestant):
    label = "Housekeeper, memory"
    imports = "import housekeeper"
    store = "memory"

    def __init__(self, url: str) -> None:
        import housekeeper as hk

        self._task = hk.Task
        self.housekeeper = hk.create_housekeeper(tasks_dir=None, ledger=url, max_workers=WORKERS)

    def add(self, name: str, when: When, run: Callable[..., object], *values: float) -> None:
        call = functools.partial(run, *values) if values else run
        self.housekeeper.register_task(self._task(name, call, schedule=when.cron))

    def start(self) -> None:
        self.housekeeper.initialize()

    def stop(self) -> None:
        self.housekeeper.shutdown(0.0)


class HousekeeperOnSqlite(HousekeeperInMemory):
    label = "Housekeeper, SQLite"
    store = "sqlite"


class HousekeeperOnPostgres(HousekeeperInMemory):
    label = "Housekeeper, PostgreSQL"
    store = "postgres"


class ApschedulerInMemory(Contestant):
    label = "APScheduler, memory"
    imports = (
        "import apscheduler.schedulers.background, apscheduler.triggers.cron,"
        " apscheduler.executors.pool, apscheduler.jobstores.memory"
    )
    package = "apscheduler"
    seconds_per_task = 400e-6

    def __init__(self, url: str) -> None:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler
        from apscheduler.triggers.cron import CronTrigger

        self._trigger = CronTrigger
        self._scheduler = BackgroundScheduler(
            timezone=timezone.utc,
            jobstores={"default": self._jobstore(url)},
            executors={"default": ThreadPoolExecutor(WORKERS)},
            # Its default of 1 s would leave out most of a burst.
            job_defaults={"misfire_grace_time": GRACE},
        )

    def _jobstore(self, url: str) -> Any:
        from apscheduler.jobstores.memory import MemoryJobStore

        return MemoryJobStore()

    def add(self, name: str, when: When, run: Callable[..., object], *values: float) -> None:
        trigger = self._trigger(timezone=timezone.utc, **when.parts)
        self._scheduler.add_job(run, trigger, args=values, id=name, name=name)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)


class ApschedulerOnSqlite(ApschedulerInMemory):
    label = "APScheduler, SQLite"
    imports = f"{ApschedulerInMemory.imports}, apscheduler.jobstores.sqlalchemy"
    store = "sqlite"
    seconds_per_task = 2000e-6

    def _jobstore(self, url: str) -> Any:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        return SQLAlchemyJobStore(url)


class ScheduleContestant(Contestant):
    label = "schedule"
    imports = "import schedule"
    package = "schedule"
    ticks_each_second = False
    has_workers = False

    def __init__(self, url: str) -> None:
        import schedule

        self._scheduler = schedule.Scheduler()
        self._stopped = False

    def add(self, name: str, when: When, run: Callable[..., object], *values: float) -> None:
        at = f"{when.hour:02}:{when.minute:02}:{when.second:02}"
        self._scheduler.every().day.at(at).do(run, *values)

    def start(self) -> None:
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        """Do what its README says."""
        while not self._stopped:
            self._scheduler.run_pending()
            time.sleep(1)

    def stop(self) -> None:
        self._stopped = True


class HueyContestant(Contestant):
    label = "huey"
    imports = "import huey, huey.consumer"
    package = "huey"
    ticks_each_second = False
    looks_once_a_minute = True

    def __init__(self, url: str) -> None:
        from huey import MemoryHuey, crontab

        self._crontab = crontab
        self._huey = MemoryHuey("benchmark")
        self._consumer = self._huey.create_consumer(workers=WORKERS, check_worker_health=False)

    def add(self, name: str, when: When, run: Callable[..., object], *values: float) -> None:
        validate = self._crontab(minute=when.parts["minute"], hour=when.parts["hour"])
        self._huey.periodic_task(validate, name=name)(run)

    def start(self) -> None:
        self._consumer.start()

    def stop(self) -> None:
        self._consumer.stop()


CONTESTANTS: dict[str, type[Contestant]] = {
    "floor": FloorContestant,
    "housekeeper-memory": HousekeeperInMemory,
    "housekeeper-sqlite": HousekeeperOnSqlite,
    "housekeeper-postgres": HousekeeperOnPostgres,
    "apscheduler-memory": ApschedulerInMemory,
    "apscheduler-sqlite": ApschedulerOnSqlite,
    "schedule": ScheduleContestant,
    "huey": HueyContestant,
}
