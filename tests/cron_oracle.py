"""What Debian's cron does, minute by minute: slow, and obviously right.

The tests of the triggers compare with it.  It shares nothing with housekeeper.py and does not use
croniter.  It knows numbers, names, lists, ranges (also wrapped round) and steps, in five fields,
in zones whose offsets are whole minutes: all of them since 1973.  Of dates it also knows what
Quartz added: L, LW, L-3, 15W, FRI#2, 5L.
"""

from __future__ import annotations

import calendar
import functools
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True)
class Cron:
    """A cron expression, spelled out as the numbers that each field names."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    fixed: bool
    both_days: bool  # The day of month and the weekday, else either of them.

    def names(self, wall: datetime) -> bool:
        """Tell whether the expression names this wall-clock minute."""
        if wall.minute not in self.minutes or wall.hour not in self.hours:
            return False
        return self.names_date(wall.date())

    def names_date(self, day: date) -> bool:
        on_day, on_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        on_date = (on_day and on_weekday) if self.both_days else (on_day or on_weekday)
        return on_date and day.month in self.months


@functools.cache
def parse(expression: str) -> Cron:
    """Return what a valid expression means; an invalid one is none of the oracle's business."""
    minute, hour, day, month, weekday = expression.upper().split()
    return Cron(
        minutes=numbers(minute, 0, 59),
        hours=numbers(hour, 0, 23),
        days=numbers(day, 1, 31),
        months=numbers(month, 1, 12, MONTHS),
        weekdays=numbers(weekday, 0, 6, WEEKDAYS),
        fixed=not minute.startswith("*") and not hour.startswith("*"),
        both_days=day.startswith("*") or weekday.startswith("*"),
    )


def numbers(text: str, low: int, high: int, words: tuple[str, ...] = ()) -> frozenset[int]:
    """Return the numbers that a field names."""

    def number(word: str) -> int:
        return words.index(word) + low if word in words else int(word)

    size, found = high - low + 1, set()
    for part in text.split(","):
        values, _, step = part.partition("/")
        if values == "*":
            first, last = low, high
        elif "-" in values:
            first, last = (number(word) for word in values.split("-"))
        else:
            first = number(values)
            last = high if step else first
        if last < first:
            last += size  # It goes on from the field's beginning.
        # Sunday is 7 as well as 0.
        found |= {(value - low) % size + low for value in range(first, last + 1, int(step or "1"))}
    return frozenset(found)


def dates(day: str, month: str, weekday: str, year: int) -> list[date]:
    """Return the dates of a year that three fields name, by looking at each month's calendar."""
    both = day[0] in "*?" or weekday[0] in "*?"
    found = []
    for number in sorted(numbers(month, 1, 12, MONTHS)):
        weeks = calendar.Calendar(calendar.SUNDAY).monthdatescalendar(year, number)
        month_days = [each for week in weeks for each in week if each.month == number]
        by_day = days_of_month(day, month_days)
        by_weekday = days_by_weekday(weekday, month_days)
        found += sorted(by_day & by_weekday if both else by_day | by_weekday)
    return found


def days_of_month(text: str, month: list[date]) -> set[date]:
    """Return the dates of a month that a day field names."""
    found: set[date] = set()
    working = [each for each in month if each.isoweekday() < 6]
    for part in text.replace("?", "*").split(","):
        name, nearest = part.removesuffix("W"), part.endswith("W")
        if name.startswith("L"):
            back = int(name[2:] or "0")
            named = month[-1 - back :][:1] if back < len(month) else []
        else:
            named = [each for each in month if each.day in numbers(name, 1, 31)]
        if nearest:
            # No other working day is at the same distance.
            named = [min(working, key=lambda each: abs(each - day)) for day in named]
        found |= set(named)
    return found


def days_by_weekday(text: str, month: list[date]) -> set[date]:
    """Return the dates of a month that a weekday field names."""
    found: set[date] = set()
    for part in text.replace("?", "*").split(","):
        name = re.sub("#[1-5]$", "", part).strip("L")
        on = [each for each in month if each.isoweekday() % 7 in numbers(name, 0, 6, WEEKDAYS)]
        if "#" in part:
            on = on[int(part[-1]) - 1 :][:1]
        elif "L" in part:
            on = on[-1:]
        found |= set(on)
    return found


@dataclass(frozen=True)
class Minute:
    """A real minute: its instant, the wall clock, and the times it reached for the first time."""

    instant: datetime
    wall: datetime
    reached: tuple[datetime, ...]


@functools.lru_cache(maxsize=4)
def minutes_between(zone: str, after: datetime, until: datetime) -> list[Minute]:
    """Return every real minute in (after, until].

    Usually a minute reaches the one time that the wall clock shows.  The end of a gap reaches all
    times of the gap at once; the second pass of an overlap reaches none.
    """
    found = []
    # From two days earlier, so as to know of an overlap that is under way at the beginning.
    instant = after.astimezone(UTC).replace(second=0, microsecond=0) - 2 * DAY
    highest = wall_at(zone, instant)
    while instant + MINUTE <= until:
        instant += MINUTE
        wall = wall_at(zone, instant)
        reached = []
        while highest < wall:
            highest += MINUTE
            reached.append(highest)
        if instant > after:
            found.append(Minute(instant, wall, tuple(reached)))
    return found


def ticks(expression: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """Return all ticks in (after, until], in UTC."""
    cron = parse(expression)
    minutes = minutes_between(zone, after, until)
    if cron.fixed:
        return [each.instant for each in minutes if any(map(cron.names, each.reached))]
    return [each.instant for each in minutes if cron.names(each.wall)]


@functools.cache
def zone_info(zone: str) -> ZoneInfo:
    return ZoneInfo(zone)


def wall_at(zone: str, instant: datetime) -> datetime:
    """Return what the zone's wall clock shows at an instant."""
    return instant.astimezone(zone_info(zone)).replace(tzinfo=None)


def offset_at(zone: str, instant: datetime) -> timedelta:
    """Return what the zone's wall clock is ahead of UTC at an instant."""
    return instant.astimezone(zone_info(zone)).utcoffset() or timedelta()


@dataclass(frozen=True)
class Transition:
    """An instant at which a zone's clocks change; a gap when `after` is the larger offset."""

    instant: datetime
    before: timedelta
    after: timedelta

    @property
    def size(self) -> timedelta:
        """How long the gap or the overlap is."""
        return abs(self.after - self.before)


def transitions(zone: str, after: datetime, until: datetime) -> tuple[Transition, ...]:
    """Return the zone's transitions in (after, until], to the minute, by probing each day."""
    found, day, before = [], after, offset_at(zone, after)
    while day < until:
        low, day = day, min(day + DAY, until)
        offset = offset_at(zone, day)
        if offset != before:
            high = day
            while high - low > MINUTE:
                middle = low + (high - low) // MINUTE // 2 * MINUTE
                if offset_at(zone, middle) == before:
                    low = middle
                else:
                    high = middle
            found.append(Transition(high, before, offset))
            before = offset
    return tuple(found)
