"""Which ticks a schedule has: hand-written tables, and an oracle that walks minute by minute."""

from __future__ import annotations

import bisect
import functools
import itertools
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import croniter
import pytest
import schedule as schedule_library

import housekeeper as hk
from tests import cron_oracle
from tests.cron_oracle import Transition
from tests.virtual_time import utc

UTC = timezone.utc
SECOND = timedelta(seconds=1)
START = utc(2024, 1, 1)


def every(interval: int = 1) -> Any:
    """Return a builder that belongs to no scheduler which other tests share."""
    return schedule_library.Scheduler().every(interval)


def walked(trigger: hk.Trigger, after: datetime, until: datetime) -> list[datetime]:
    """Return all ticks in (after, until]."""
    found, tick = [], trigger.next_after(after)
    while tick is not None and tick <= until:
        found.append(tick)
        tick = trigger.next_after(tick)
    return found


def first_ticks(trigger: hk.Trigger, after: datetime, number: int) -> list[datetime]:
    """Return the first ticks after an instant, at most `number` of them."""
    found: list[datetime] = []
    while len(found) < number:
        tick = trigger.next_after(found[-1] if found else after)
        if tick is None:
            break
        found.append(tick)
    return found


def iso(instant: datetime, zone: str) -> str:
    """Return an instant on a zone's wall clock, such as 2024-03-31T03:00+02:00."""
    wall = instant.astimezone(ZoneInfo(zone))
    return wall.isoformat(timespec="seconds" if wall.second else "minutes")


def assert_ticks(trigger: hk.Trigger, zone: str, start: str, expected: str) -> None:
    """Compare the first ticks after a start with a list in ISO format."""
    after, wanted = datetime.fromisoformat(start), expected.split()
    assert [iso(tick, zone) for tick in first_ticks(trigger, after, len(wanted))] == wanted


# The oracle: every zone that changes its clocks, and expressions of all kinds.

FIXED_LIST = """
    * * * * *;  */5 * * * *;  */7 * * * *;  */59 * * * *;  0 * * * *;  30 * * * *;  59 * * * *
    15,45 * * * *;  0-10 * * * *;  50/5 * * * *;  59/15 * * * *;  7-59/13 * * * *;  *,5 2 * * *
    0 0 * * *;  1 0 * * *;  59 23 * * *;  30 0 * * *;  0 1 * * *;  30 1 * * *;  59 1 * * *
    0 2 * * *;  15 2 * * *;  30 2 * * *;  45 2 * * *;  59 2 * * *;  0 3 * * *;  1 3 * * *
    30 3 * * *;  0 4 * * *;  0 0,1,2,3 * * *;  0 2,3 * * *;  30 1,2 * * *;  0,30 2 * * *
    0,15,30,45 0-4 * * *;  0-59 2 * * *;  0-59/10 0-23 * * *;  0 0-23 * * *;  5 0-23/2 * * *
    */10 2 * * *;  * 2 * * *;  * 0 * * *;  */15 1-3 * * *;  */30 0,2 * * *;  */20 23,0-1 * * *
    0 */2 * * *;  30 */3 * * *;  15 */1 * * *;  0 */5 * * *;  0 1/2 * * *;  45 22/1 * * *
    0 2 * * SUN;  30 2 * * 7;  30 2 * * 0;  0 0 * * SAT-MON;  0 3 * * 6-7;  0 1 * * 1-7/2
    0 2 * * 1-7/3;  0 2 * * 0-7/7;  0 2 * * 0-7;  30 2 * * */2;  30 2 * * */6;  0 3 * * 7-1
    0 2 29 2 *;  0 2 31 * *;  30 2 1-7 * SUN;  30 2 */100,1-7 * SUN;  30 2 25-31 * SUN
    30 2 */2 * *;  30 2 */2 * SUN;  30 2 13 * FRI;  30 2 1-31 * MON;  30 2 13 * */2
    30 2 1-31 * */2;  30 2 *,13 * SUN;  30 2 8-14 * *,2;  */15 2 10-31 * 0;  0 2 1 */3 *
    0 0 1 * *;  30 2 * MAR-APR *;  30 2 * SEP-NOV *;  30 2 * OCT-MAR *;  30 2 * 4-9 *;  0 3 * */2 *
    30 2 * nov-feb sun;  30 2 * 3/4 *;  0 0 31 3,10 *;  * 2-3 31 3 *;  0-30/5 2-3 * 3,10,11 0
"""


def generated_expression(dice: random.Random) -> str:
    """Return a valid expression whose hours lie mostly where clocks change."""

    def pick(low: int, high: int) -> str:
        first, last = sorted(dice.sample(range(low, high + 1), 2))
        step = dice.randint(1, 12)
        several = sorted(dice.sample(range(low, high + 1), 3))
        kinds = [
            str(first),
            str(dice.randint(low, high)),
            ",".join(map(str, several)),
            f"{first}-{last}",
            f"{first}-{last}/{step}",
            f"{first}/{step}",
            f"{last},{first}",
            f"{first}-{last},{dice.randint(low, high)}",
        ]
        return dice.choice(kinds)

    def unless(share: float, otherwise: Callable[[], str]) -> str:
        return "*" if dice.random() < share else otherwise()

    def wrapped(low: int, high: int, words: tuple[str, ...] = ()) -> str:
        first, last = sorted(dice.sample(range(low, high + 1), 2))
        if words and dice.random() < 0.5:
            return f"{words[last - low]}-{words[first - low]}"
        return f"{last}-{first}"

    minute = dice.choice(["0", "30", "*/15", f"*/{dice.randint(2, 59)}", pick(0, 59), pick(0, 59)])
    hour = dice.choice(["*", f"*/{dice.randint(1, 6)}", pick(0, 4), pick(0, 4), pick(0, 23)])
    day = unless(0.7, lambda: dice.choice([f"*/{dice.randint(2, 9)}", pick(1, 31)]))
    month = unless(0.8, lambda: dice.choice([pick(1, 12), wrapped(1, 12, cron_oracle.MONTHS)]))
    weekday = unless(
        0.7,
        lambda: dice.choice(
            [
                f"*/{dice.randint(2, 4)}",
                str(dice.randint(0, 7)),
                dice.choice(cron_oracle.WEEKDAYS).lower(),
                "0,3,6",
                "1-5",
                "1-7/3",
                wrapped(0, 6, cron_oracle.WEEKDAYS),
            ]
        ),
    )
    return f"{minute} {hour} {day} {month} {weekday}"


@functools.cache
def all_expressions() -> list[str]:
    dice = random.Random(20240331)
    fixed = [" ".join(each.split()) for each in re.split("[;\n]", FIXED_LIST) if each.strip()]
    return list(dict.fromkeys(fixed + [generated_expression(dice) for _ in range(300)]))


@functools.cache
def changing_zones() -> dict[str, tuple[Transition, ...]]:
    """Return the transitions of 2024-2028, under one of the zones that share them."""
    zones: dict[tuple[Transition, ...], str] = {}
    for zone in sorted(available_timezones()):
        found = cron_oracle.transitions(zone, START, utc(2029, 1, 1))
        if found:
            zones.setdefault(found, zone)
    return {zone: found for found, zone in zones.items()}


@functools.cache
def trigger_of(expression: str, zone: str) -> hk.Trigger | None:
    """Return a trigger, or None for one that never comes (its times lie in a gap, each year)."""
    try:
        return hk.CronTrigger(expression, zone)
    except hk.ConfigurationError as error:
        if "never comes" not in str(error):
            raise
        return None


def odd_instants(
    dice: random.Random, transition: Transition, after: datetime, until: datetime
) -> list[datetime]:
    """Return instants before, inside and after a gap or an overlap, some with microseconds."""
    change, size = transition.instant, transition.size
    inside = timedelta(seconds=dice.uniform(0, size.total_seconds()))
    anywhere = timedelta(seconds=dice.uniform(0, (until - after).total_seconds()))
    return [
        change - SECOND,
        change - timedelta(microseconds=1),
        change,
        change + timedelta(microseconds=1),
        change - inside,
        change + inside,
        change + size,
        change + size - timedelta(microseconds=700_000),
        (change + size + inside).replace(second=0, microsecond=0),
        after + anywhere,
    ]


def test_ticks_round_every_clock_change_of_every_zone_are_those_of_debian_cron() -> None:
    dice = random.Random(7)
    expressions = all_expressions()
    queue = itertools.cycle(dice.sample(expressions, len(expressions)))
    compared, at_a_change, seen = 0, 0, set()
    for zone, transitions in changing_zones().items():
        for transition in transitions:
            after = transition.instant - timedelta(seconds=dice.uniform(18, 24) * 3600)
            until = transition.instant + timedelta(hours=20)
            for expression in itertools.islice(queue, 5):
                case = f"{expression!r} in {zone} at {transition.instant}"
                expected = cron_oracle.ticks(expression, zone, after, until)
                trigger = trigger_of(expression, zone)
                assert (walked(trigger, after, until) if trigger else []) == expected, case
                for start in odd_instants(dice, transition, after, until) if trigger else []:
                    position = bisect.bisect_right(expected, start)
                    answer = trigger.next_after(start) if trigger else None
                    if position < len(expected):
                        assert answer == expected[position], f"{case} from {start}"
                    else:
                        assert answer is None or answer > until, f"{case} from {start}"
                compared += len(expected)
                at_a_change += transition.instant in expected
                seen.add(expression)
    # The sample is worth its name.
    assert len(changing_zones()) > 25
    assert len(seen) == len(expressions) > 300
    assert compared > 20_000
    assert at_a_change > 200


def test_the_newest_tick_before_an_instant_and_the_number_of_ticks_agree_with_the_oracle() -> None:
    dice = random.Random(11)
    zones, with_ticks, without = changing_zones(), 0, 0
    for _ in range(120):
        zone = dice.choice(list(zones))
        transition = dice.choice(zones[zone])
        expression = dice.choice(all_expressions())
        trigger = trigger_of(expression, zone)
        after, until = (transition.instant + timedelta(hours=each) for each in (-22, 20))
        ticks = cron_oracle.ticks(expression, zone, after, until)
        if trigger is None:
            assert ticks == []
            continue
        case = f"{expression!r} in {zone} at {transition.instant}"
        instants = odd_instants(dice, transition, after, until)
        for one, other in zip(instants, [after, *instants], strict=False):
            floor, instant = min(one, other), max(one, other)
            inside = [tick for tick in ticks if floor < tick <= instant]
            newest, number = inside[-1] if inside else None, len(inside)
            where = f"{case}, ({floor}, {instant}]"
            assert trigger.latest_before(instant, floor=floor) == newest, where
            assert trigger.count(floor, instant, limit=5000) == number, where
            assert trigger.count(floor, instant, limit=3) == min(3, number), where
            with_ticks += bool(inside)
            without += not inside
    assert with_ticks > 150
    assert without > 150


def test_the_newest_tick_before_an_instant_is_found_over_gaps_of_seconds_and_of_years() -> None:
    leap_day = hk.CronTrigger("0 0 29 2 *")
    assert leap_day.latest_before(utc(2027, 12, 31), floor=utc(2000, 1, 1)) == utc(2024, 2, 29)
    assert leap_day.latest_before(utc(2024, 2, 29), floor=utc(2000, 1, 1)) == utc(2024, 2, 29)
    assert leap_day.latest_before(utc(2027, 12, 31), floor=utc(2024, 2, 29)) is None
    each_second = hk.CronTrigger("* * * * * *")
    instant = utc(2024, 5, 6, 7, 8, 9).replace(microsecond=999_999)
    assert each_second.latest_before(instant, floor=START) == utc(2024, 5, 6, 7, 8, 9)
    assert each_second.latest_before(instant, floor=utc(2024, 5, 6, 7, 8, 9)) is None


def test_a_floor_at_or_after_the_instant_leaves_no_tick() -> None:
    hourly = hk.CronTrigger("@hourly")
    assert hourly.latest_before(START, floor=START) is None
    assert hourly.latest_before(START, floor=START + timedelta(hours=3)) is None
    assert hourly.latest_before(START, floor=START - timedelta(microseconds=1)) == START


def test_counting_stops_at_the_limit() -> None:
    each_minute = hk.CronTrigger("* * * * *")
    day = START + timedelta(days=1)
    assert each_minute.count(START, day) == 1000
    assert each_minute.count(START, day, limit=2000) == 1440
    assert each_minute.count(START, day, limit=5) == 5
    assert each_minute.count(day, START) == 0


# Tables by hand: zone, expression, start, expected.

CALENDAR = [
    # Leap years; 2100 is none.
    ("0 0 29 2 *", "2024-02-28T00:00+00:00", "2024-02-29 2028-02-29 2032-02-29"),
    ("0 0 29 2 *", "2024-02-29T00:00+00:00", "2028-02-29"),
    ("0 0 29 2 *", "2095-06-01T00:00+00:00", "2096-02-29 2104-02-29"),
    ("0 0 28 2 *", "2024-02-28T00:00+00:00", "2025-02-28"),
    ("0 0 29 * *", "2025-01-29T00:00+00:00", "2025-03-29"),
    ("0 0 31 * *", "2024-01-31T00:00+00:00", "2024-03-31 2024-05-31 2024-07-31"),
    # The end of a year.
    ("@yearly", "2024-12-31T23:59+00:00", "2025-01-01 2026-01-01"),
    ("@monthly", "2024-11-30T00:00+00:00", "2024-12-01 2025-01-01"),
    # Both day fields: either of them, or both when one of them starts with a star.
    ("0 0 13 * FRI", "2024-09-01T00:00+00:00", "2024-09-06 2024-09-13 2024-09-20"),
    ("0 0 13 * TUE", "2024-09-11T00:00+00:00", "2024-09-13 2024-09-17"),
    ("0 0 */2 * FRI", "2024-10-01T00:00+00:00", "2024-10-11 2024-10-25 2024-11-01"),
    ("0 0 */100,1-7 * MON", "2024-09-01T00:00+00:00", "2024-09-02 2024-10-07 2024-11-04"),
    ("0 0 13 * */5", "2024-09-01T00:00+00:00", "2024-09-13 2024-10-13 2024-12-13"),
    ("0 0 ? * MON", "2024-09-01T00:00+00:00", "2024-09-02 2024-09-09"),
    ("0 0 5 * ?", "2024-09-01T00:00+00:00", "2024-09-05 2024-10-05"),
    # Month and weekday may wrap round; words in any case; 0 and 7 are Sunday.
    ("0 0 1 NOV-FEB *", "2024-06-01T00:00+00:00", "2024-11-01 2024-12-01 2025-01-01 2025-02-01"),
    ("0 0 1 11-2 *", "2025-01-15T00:00+00:00", "2025-02-01 2025-11-01"),
    ("0 0 1 jan,Jul *", "2024-01-01T00:00+00:00", "2024-07-01 2025-01-01"),
    ("0 0 * * FRI-MON", "2024-06-03T00:00+00:00", "2024-06-07 2024-06-08 2024-06-09 2024-06-10"),
    ("0 0 * * 6-7", "2024-06-03T00:00+00:00", "2024-06-08 2024-06-09 2024-06-15"),
    ("0 0 * * sat,Sun", "2024-06-03T00:00+00:00", "2024-06-08 2024-06-09 2024-06-15"),
    ("0 0 * * 7", "2024-06-03T00:00+00:00", "2024-06-09 2024-06-16"),
    ("0 0 * * 0", "2024-06-03T00:00+00:00", "2024-06-09 2024-06-16"),
    ("0 0 * * 1-7/3", "2024-06-03T00:00+00:00", "2024-06-06 2024-06-09 2024-06-10"),
    # L is a month's last day.
    ("0 0 L * *", "2024-01-31T00:00+00:00", "2024-02-29 2024-03-31 2024-04-30"),
    ("0 0 L 2 *", "2024-02-29T00:00+00:00", "2025-02-28 2026-02-28 2027-02-28 2028-02-29"),
    ("0 0 1,L * *", "2024-01-31T00:00+00:00", "2024-02-01 2024-02-29 2024-03-01 2024-03-31"),
    ("0 0 l * *", "2024-01-31T00:00+00:00", "2024-02-29"),
    # 15W is the weekday nearest to the 15th: Saturday 2024-06-15, Sunday 2024-09-15.
    ("0 0 15W 6,9,10 *", "2024-06-01T00:00+00:00", "2024-06-14 2024-09-16 2024-10-15"),
    ("0 0 1W * *", "2024-05-31T00:00+00:00", "2024-06-03 2024-07-01 2024-08-01 2024-09-02"),
    # FRI#2 is a month's second Friday, L5 its last.
    ("0 0 * * FRI#2", "2024-01-01T00:00+00:00", "2024-01-12 2024-02-09 2024-03-08"),
    ("0 0 * * 5#5", "2024-01-01T00:00+00:00", "2024-03-29 2024-05-31 2024-08-30"),
    ("0 0 * * MON#1,WED#3", "2024-01-01T00:00+00:00", "2024-01-17 2024-02-05 2024-02-21"),
    ("0 0 * * L5", "2024-01-01T00:00+00:00", "2024-01-26 2024-02-23 2024-03-29"),
    ("0 0 * * L7", "2024-01-01T00:00+00:00", "2024-01-28 2024-02-25 2024-03-31"),
    ("0 0 * * L0", "2024-01-01T00:00+00:00", "2024-01-28 2024-02-25 2024-03-31"),
    # The same as cronsim and Nextcloud write it, and as Quartz does with words.
    ("0 0 * * 5L", "2024-01-01T00:00+00:00", "2024-01-26 2024-02-23 2024-03-29"),
    ("0 0 * * FRIL", "2024-01-01T00:00+00:00", "2024-01-26 2024-02-23 2024-03-29"),
    ("0 0 * * fridayl", "2024-01-01T00:00+00:00", "2024-01-26 2024-02-23 2024-03-29"),
    ("0 0 * * 7L", "2024-01-01T00:00+00:00", "2024-01-28 2024-02-25 2024-03-31"),
    # Quartz: the last working day, the third day before the last, and both in one.
    ("0 0 LW * *", "2024-01-01T00:00+00:00", "2024-01-31 2024-02-29 2024-03-29 2024-04-30"),
    ("0 0 L-3 * *", "2024-01-01T00:00+00:00", "2024-01-28 2024-02-26 2024-03-28 2024-04-27"),
    ("0 0 L-3W * *", "2024-01-01T00:00+00:00", "2024-01-29 2024-02-26 2024-03-28 2024-04-26"),
    ("0 0 L-29 1-3 *", "2025-01-01T00:00+00:00", "2025-01-02 2025-03-02 2026-01-02"),
    # Where a month has no such day, it is skipped (Quartz, croniter 6.2).
    ("0 0 31W * *", "2024-01-31T00:00+00:00", "2024-03-29 2024-05-31 2024-07-31 2024-08-30"),
    ("0 0 30W * *", "2024-01-30T00:00+00:00", "2024-03-29 2024-04-30 2024-05-30"),
    # Beside others, which croniter drops or refuses: Debian's rule for both day fields.
    ("0 0 1,15W * *", "2024-06-01T00:00+00:00", "2024-06-14 2024-07-01 2024-07-15 2024-08-01"),
    ("0 0 2-31,L * *", "2024-06-28T00:00+00:00", "2024-06-29 2024-06-30 2024-07-02"),
    ("0 0 13 * FRI#2", "2024-08-31T00:00+00:00", "2024-09-13 2024-10-11 2024-10-13 2024-11-08"),
    ("0 0 */2 * FRI#2", "2024-08-31T00:00+00:00", "2024-09-13 2024-10-11 2024-12-13"),
    ("0 0 15W * MON#1", "2024-06-01T00:00+00:00", "2024-06-03 2024-06-14 2024-07-01 2024-07-15"),
    ("0 0 * * FRI#2,MON", "2024-06-08T00:00+00:00", "2024-06-10 2024-06-14 2024-06-17"),
    ("0 0 L * 5L", "2024-06-01T00:00+00:00", "2024-06-28 2024-06-30 2024-07-26 2024-07-31"),
    # node-cron, and most people: full names.
    ("0 0 * * monday", "2024-06-01T00:00+00:00", "2024-06-03 2024-06-10"),
    ("0 0 1 january,Sept *", "2024-06-01T00:00+00:00", "2024-09-01 2025-01-01"),
    ("0 0 * * Tues-Thursday", "2024-06-01T00:00+00:00", "2024-06-04 2024-06-05 2024-06-06"),
    # crontab(5): a range that ends where it begins; croniter reads the whole field.
    ("0 0 5-5 * *", "2024-06-01T00:00+00:00", "2024-06-05 2024-07-05"),
    ("0 0 * JAN-1 MON-MON", "2024-06-01T00:00+00:00", "2025-01-06 2025-01-13"),
    ("0 0 * * 7-0", "2024-06-03T00:00+00:00", "2024-06-09 2024-06-16"),
    ("0 0 * * 7-SUN/2", "2024-06-03T00:00+00:00", "2024-06-09 2024-06-16"),
    # croniter: a range that runs round its field.
    ("0 0 28-3 * *", "2024-06-03T00:00+00:00", "2024-06-28 2024-06-29 2024-06-30 2024-07-01"),
    # robfig/cron: N/step is N-MAX/step, and of weekdays the highest is 6.
    ("0 0 * * 1/2", "2024-06-02T00:00+00:00", "2024-06-03 2024-06-05 2024-06-07 2024-06-10"),
    ("0 0 * * MON/2", "2024-06-02T00:00+00:00", "2024-06-03 2024-06-05 2024-06-07 2024-06-10"),
    ("0 0 * * 7/2", "2024-06-02T00:00+00:00", "2024-06-09 2024-06-16"),
    # crontab(5): a step inside a list.
    (
        "0 0 1,5-7,*/30 * *",
        "2024-06-01T00:00+00:00",
        "2024-06-05 2024-06-06 2024-06-07 2024-07-01",
    ),
    ("0 0 7,*/14 * *", "2024-06-01T00:00+00:00", "2024-06-07 2024-06-15 2024-06-29 2024-07-01"),
]


@pytest.mark.parametrize(("expression", "start", "expected"), CALENDAR)
def test_dates_are_those_of_the_calendar(expression: str, start: str, expected: str) -> None:
    instants = " ".join(f"{day}T00:00+00:00" for day in expected.split())
    assert_ticks(hk.CronTrigger(expression), "UTC", start, instants)


TIMES = [
    ("0 22-2 * * *", "2024-06-01T21:00", "2024-06-01T22:00 2024-06-01T23:00 2024-06-02T00:00"),
    ("0 22-2/2 * * *", "2024-06-01T21:00", "2024-06-01T22:00 2024-06-02T00:00 2024-06-02T02:00"),
    ("50-10/20 * * * *", "2024-06-01T21:00", "2024-06-01T21:10 2024-06-01T21:50 2024-06-01T22:10"),
    ("5-5 3-3/2 * * *", "2024-06-01T21:00", "2024-06-02T03:05 2024-06-03T03:05"),
    ("1,5-7,*/30 4 * * *", "2024-06-01T04:01", "2024-06-01T04:05 2024-06-01T04:06"),
    # crontab(5): a star in a list is all of it.
    ("5,* 4 * * *", "2024-06-01T04:58", "2024-06-01T04:59 2024-06-02T04:00 2024-06-02T04:01"),
    ("0 5 13,* * FRI", "2024-06-01T21:00", "2024-06-02T05:00 2024-06-03T05:00"),
    ("7,*/30 4 * * *", "2024-06-01T04:00", "2024-06-01T04:07 2024-06-01T04:30 2024-06-02T04:00"),
    # As many as there are is each of them.
    ("*/60 * * * *", "2024-06-01T21:00", "2024-06-01T22:00 2024-06-01T23:00"),
    ("0 */24 * * *", "2024-06-01T21:00", "2024-06-02T00:00 2024-06-03T00:00"),
    # Round a text, as files and variables have it.
    (" 0 2 * * *\n", "2024-06-01T21:00", "2024-06-02T02:00"),
    ("\t0\t2\t*\t*\t*\r\n", "2024-06-01T21:00", "2024-06-02T02:00"),
    ("@daily\n", "2024-06-01T21:00", "2024-06-02T00:00"),
]


@pytest.mark.parametrize(("expression", "start", "expected"), TIMES)
def test_times_are_what_a_text_means(expression: str, start: str, expected: str) -> None:
    instants = " ".join(f"{each}+00:00" for each in expected.split())
    assert_ticks(hk.CronTrigger(expression), "UTC", f"{start}+00:00", instants)


def test_dates_of_all_kinds_are_those_of_a_calendar_on_paper() -> None:
    dice = random.Random(17)
    days = ["L", "L-1", "L-3", "L-29", "LW", "L-2W", "1W", "15W", "30W", "31W", "13", "28-3"]
    days += ["*/2", "5-9", "1-31", "1"]
    weekdays = ["5L", "0L", "FRI#2", "MON#1", "3#5", "MON-FRI", "2", "*/3", "0-6", "SAT-SUN"]
    months = ["*", "2", "2,9", "NOV-FEB", "*/5", "6"]
    compared = 0
    for _ in range(250):
        day = dice.choice(["*", "?", ",".join(dice.sample(days, dice.choice([1, 1, 2, 3])))])
        weekday = dice.choice(
            ["*", "?", ",".join(dice.sample(weekdays, dice.choice([1, 1, 2]))), "*"]
        )
        month, year = dice.choice(months), dice.choice([2023, 2024, 2026])
        expected = cron_oracle.dates(day, month, weekday, year)
        expression = f"0 12 {day} {month} {weekday}"
        trigger = trigger_of(expression, "UTC")
        found = walked(trigger, utc(year, 1, 1), utc(year + 1, 1, 1)) if trigger else []
        assert [tick.date() for tick in found] == expected, f"{expression} in {year}"
        compared += len(expected)
    assert compared > 5000


def test_croniter_is_given_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    class Noted(croniter.croniter):  # type: ignore[misc]
        def __init__(self, text: str, *args: Any, **options: Any) -> None:
            given.append(text)
            super().__init__(text, *args, **options)

    monkeypatch.setattr(croniter, "croniter", Noted)
    expressions = [*all_expressions(), *(each for each, *_ in CALENDAR), "59 59 23 L 2 FRI#2"]
    for expression in expressions:
        hk.CronTrigger(expression)
    assert len(given) == len(expressions) > 350
    # Of days it is told nothing, so that no version's rules for them count.
    for text in given:
        numbers = r"(\*|[0-9]+(,[0-9]+)*)"
        assert re.fullmatch(rf"{numbers} {numbers} \* {numbers} \*( {numbers})?", text)


CLOCK_CHANGES = [
    # Europe/Berlin goes from +01:00 to +02:00 on 2024-03-31, when it shows 02:00, then 03:00.
    (
        "Europe/Berlin",
        "30 2 * * *",
        "2024-03-30T00:00+01:00",
        "2024-03-30T02:30+01:00 2024-03-31T03:00+02:00 2024-04-01T02:30+02:00",
    ),
    (
        "Europe/Berlin",
        "0 2,3 * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T03:00+02:00 2024-04-01T02:00+02:00 2024-04-01T03:00+02:00",
    ),
    (
        "Europe/Berlin",
        "0,15,30,45 2 * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T03:00+02:00 2024-04-01T02:00+02:00 2024-04-01T02:15+02:00",
    ),
    (
        "Europe/Berlin",
        "30 1,2,3 * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T01:30+01:00 2024-03-31T03:00+02:00 2024-03-31T03:30+02:00",
    ),
    (
        "Europe/Berlin",
        "@hourly",
        "2024-03-31T00:00+01:00",
        "2024-03-31T01:00+01:00 2024-03-31T03:00+02:00 2024-03-31T04:00+02:00",
    ),
    (
        "Europe/Berlin",
        "30 * * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T00:30+01:00 2024-03-31T01:30+01:00 2024-03-31T03:30+02:00",
    ),
    (
        "Europe/Berlin",
        "*/30 2 * * *",
        "2024-03-31T00:00+01:00",
        "2024-04-01T02:00+02:00 2024-04-01T02:30+02:00 2024-04-02T02:00+02:00",
    ),
    (
        "Europe/Berlin",
        "0 */2 * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T04:00+02:00 2024-03-31T06:00+02:00",
    ),
    # Europe/Berlin goes from +02:00 to +01:00 on 2024-10-27, when it shows 03:00, then 02:00.
    (
        "Europe/Berlin",
        "30 2 * * *",
        "2024-10-26T12:00+02:00",
        "2024-10-27T02:30+02:00 2024-10-28T02:30+01:00",
    ),
    ("Europe/Berlin", "30 2 * * *", "2024-10-27T02:30+02:00", "2024-10-28T02:30+01:00"),
    ("Europe/Berlin", "30 2 * * *", "2024-10-27T02:10+01:00", "2024-10-28T02:30+01:00"),
    (
        "Europe/Berlin",
        "0 2,3 * * *",
        "2024-10-26T12:00+02:00",
        "2024-10-27T02:00+02:00 2024-10-27T03:00+01:00 2024-10-28T02:00+01:00",
    ),
    (
        "Europe/Berlin",
        "@hourly",
        "2024-10-27T00:30+02:00",
        "2024-10-27T01:00+02:00 2024-10-27T02:00+02:00 2024-10-27T02:00+01:00"
        " 2024-10-27T03:00+01:00",
    ),
    (
        "Europe/Berlin",
        "*/30 2 * * *",
        "2024-10-27T00:00+02:00",
        "2024-10-27T02:00+02:00 2024-10-27T02:30+02:00 2024-10-27T02:00+01:00"
        " 2024-10-27T02:30+01:00 2024-10-28T02:00+01:00",
    ),
    ("Europe/Berlin", "30 * * * *", "2024-10-27T02:30+02:00", "2024-10-27T02:30+01:00"),
    # Australia/Lord_Howe goes from +10:30 to +11:00 on 2024-10-06: 02:00, then 02:30.
    (
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2024-10-05T12:00+10:30",
        "2024-10-06T02:30+11:00 2024-10-07T02:15+11:00",
    ),
    (
        "Australia/Lord_Howe",
        "@hourly",
        "2024-10-06T00:30+10:30",
        "2024-10-06T01:00+10:30 2024-10-06T03:00+11:00 2024-10-06T04:00+11:00",
    ),
    (
        "Australia/Lord_Howe",
        "*/15 * * * *",
        "2024-10-06T01:30+10:30",
        "2024-10-06T01:45+10:30 2024-10-06T02:30+11:00 2024-10-06T02:45+11:00",
    ),
    # Australia/Lord_Howe goes from +11:00 to +10:30 on 2024-04-07: 02:00, then 01:30.
    (
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2024-04-06T12:00+11:00",
        "2024-04-07T01:45+11:00 2024-04-08T01:45+10:30",
    ),
    (
        "Australia/Lord_Howe",
        "@hourly",
        "2024-04-07T00:30+11:00",
        "2024-04-07T01:00+11:00 2024-04-07T02:00+10:30 2024-04-07T03:00+10:30",
    ),
    (
        "Australia/Lord_Howe",
        "*/15 * * * *",
        "2024-04-07T01:30+11:00",
        "2024-04-07T01:45+11:00 2024-04-07T01:30+10:30 2024-04-07T01:45+10:30"
        " 2024-04-07T02:00+10:30",
    ),
    # Africa/Casablanca, at +01:00, is at +00:00 during Ramadan: from 2024-03-10, when it shows
    # 03:00, then 02:00, to 2024-04-14, when it shows 02:00, then 03:00.
    (
        "Africa/Casablanca",
        "30 2 * * *",
        "2024-03-09T12:00+01:00",
        "2024-03-10T02:30+01:00 2024-03-11T02:30+00:00",
    ),
    (
        "Africa/Casablanca",
        "30 2 * * *",
        "2024-04-13T12:00+00:00",
        "2024-04-14T03:00+01:00 2024-04-15T02:30+01:00",
    ),
    (
        "Africa/Casablanca",
        "0 0 11 * *",
        "2024-02-15T00:00+01:00",
        "2024-03-11T00:00+00:00 2024-04-11T00:00+00:00 2024-05-11T00:00+01:00",
    ),
    (
        "Africa/Casablanca",
        "*/30 2 14 4 *",
        "2024-03-01T00:00+01:00",
        "2025-04-14T02:00+01:00 2025-04-14T02:30+01:00",
    ),
    (
        "Africa/Casablanca",
        "*/30 2 15 3,5 *",
        "2024-03-01T00:00+01:00",
        "2024-03-15T02:00+00:00 2024-03-15T02:30+00:00 2024-05-15T02:00+01:00",
    ),
    # The offset is the same at the start and in May, and another one in between.
    (
        "Africa/Casablanca",
        "*/30 2 10 3,5 *",
        "2024-03-10T02:45+01:00",
        "2024-03-10T02:00+00:00 2024-03-10T02:30+00:00 2024-05-10T02:00+01:00",
    ),
    # Antarctica/Troll goes from +00:00 to +02:00 on 2024-03-31: 01:00, then 03:00.
    (
        "Antarctica/Troll",
        "30 1,2 * * *",
        "2024-03-30T12:00+00:00",
        "2024-03-31T03:00+02:00 2024-04-01T01:30+02:00 2024-04-01T02:30+02:00",
    ),
    (
        "Antarctica/Troll",
        "@hourly",
        "2024-03-30T23:30+00:00",
        "2024-03-31T00:00+00:00 2024-03-31T03:00+02:00 2024-03-31T04:00+02:00",
    ),
    # Antarctica/Troll goes from +02:00 to +00:00 on 2024-10-27: 03:00, then 01:00.
    (
        "Antarctica/Troll",
        "30 1,2 * * *",
        "2024-10-26T12:00+02:00",
        "2024-10-27T01:30+02:00 2024-10-27T02:30+02:00 2024-10-28T01:30+00:00",
    ),
    (
        "Antarctica/Troll",
        "@hourly",
        "2024-10-27T00:30+02:00",
        "2024-10-27T01:00+02:00 2024-10-27T02:00+02:00 2024-10-27T01:00+00:00"
        " 2024-10-27T02:00+00:00 2024-10-27T03:00+00:00",
    ),
    # Pacific/Apia had no 2011-12-30: from -10:00 to +14:00 at midnight.
    (
        "Pacific/Apia",
        "0 12 * * *",
        "2011-12-29T00:00-10:00",
        "2011-12-29T12:00-10:00 2011-12-31T00:00+14:00 2011-12-31T12:00+14:00",
    ),
    (
        "Pacific/Apia",
        "@daily",
        "2011-12-29T12:00-10:00",
        "2011-12-31T00:00+14:00 2012-01-01T00:00+14:00",
    ),
    (
        "Pacific/Apia",
        "@hourly",
        "2011-12-29T22:30-10:00",
        "2011-12-29T23:00-10:00 2011-12-31T00:00+14:00 2011-12-31T01:00+14:00",
    ),
    (
        "Pacific/Apia",
        "0 9 30 12 *",
        "2011-12-29T00:00-10:00",
        "2011-12-31T00:00+14:00 2012-12-30T09:00+14:00",
    ),
    ("Pacific/Apia", "*/30 9 30 12 *", "2011-12-29T00:00-10:00", "2012-12-30T09:00+14:00"),
    # America/Havana goes from -05:00 to -04:00 on 2024-03-10: 00:00, then 01:00.
    (
        "America/Havana",
        "@daily",
        "2024-03-09T12:00-05:00",
        "2024-03-10T01:00-04:00 2024-03-11T00:00-04:00",
    ),
    ("America/Havana", "30 0 10 3 *", "2024-03-09T12:00-05:00", "2024-03-10T01:00-04:00"),
    (
        "America/Havana",
        "0 0,1 * * *",
        "2024-03-09T12:00-05:00",
        "2024-03-10T01:00-04:00 2024-03-11T00:00-04:00 2024-03-11T01:00-04:00",
    ),
    # America/Havana goes from -04:00 to -05:00 on 2024-11-03: 01:00, then 00:00.
    (
        "America/Havana",
        "@daily",
        "2024-11-02T12:00-04:00",
        "2024-11-03T00:00-04:00 2024-11-04T00:00-05:00",
    ),
    (
        "America/Havana",
        "@hourly",
        "2024-11-02T23:30-04:00",
        "2024-11-03T00:00-04:00 2024-11-03T00:00-05:00 2024-11-03T01:00-05:00",
    ),
    # Asia/Kolkata has not changed since 1945.
    (
        "Asia/Kolkata",
        "30 9 * * MON-FRI",
        "2024-03-29T09:30+05:30",
        "2024-04-01T09:30+05:30 2024-04-02T09:30+05:30",
    ),
    ("Asia/Kolkata", "@hourly", "2024-03-31T02:30+05:30", "2024-03-31T03:00+05:30"),
    # UTC never changes.
    (
        "UTC",
        "30 2 * * *",
        "2024-03-31T00:00+00:00",
        "2024-03-31T02:30+00:00 2024-04-01T02:30+00:00",
    ),
]


@pytest.mark.parametrize(("zone", "expression", "start", "expected"), CLOCK_CHANGES)
def test_clock_changes_are_handled_as_debian_cron_does(
    zone: str, expression: str, start: str, expected: str
) -> None:
    assert_ticks(hk.CronTrigger(expression, zone), zone, start, expected)


SIX_FIELDS = [
    (
        "UTC",
        "*/20 30 2 * * *",
        "2024-01-01T00:00+00:00",
        "2024-01-01T02:30+00:00 2024-01-01T02:30:20+00:00 2024-01-01T02:30:40+00:00"
        " 2024-01-02T02:30+00:00",
    ),
    ("UTC", "30 * * * * *", "2024-01-01T00:00:30+00:00", "2024-01-01T00:01:30+00:00"),
    ("UTC", "* * * * * *", "2024-12-31T23:59:59+00:00", "2025-01-01T00:00+00:00"),
    ("UTC", "10 0 9 * * MON", "2024-01-01T09:00:10+00:00", "2024-01-08T09:00:10+00:00"),
    ("UTC", "59 59 23 L 2 *", "2024-01-01T00:00+00:00", "2024-02-29T23:59:59+00:00"),
    ("UTC", "50/5 0 0 1 1 *", "2024-01-01T00:00:50+00:00", "2024-01-01T00:00:55+00:00"),
    # Europe/Berlin goes from +01:00 to +02:00 on 2024-03-31, when it shows 02:00, then 03:00.
    (
        "Europe/Berlin",
        "0,30 30 2 * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T03:00+02:00 2024-04-01T02:30+02:00 2024-04-01T02:30:30+02:00",
    ),
    (
        "Europe/Berlin",
        "*/30 59 1,2 * * *",
        "2024-03-31T00:00+01:00",
        "2024-03-31T01:59+01:00 2024-03-31T01:59:30+01:00 2024-04-01T01:59+02:00",
    ),
    # Europe/Berlin goes from +02:00 to +01:00 on 2024-10-27, when it shows 03:00, then 02:00.
    (
        "Europe/Berlin",
        "15 30 2 * * *",
        "2024-10-26T12:00+02:00",
        "2024-10-27T02:30:15+02:00 2024-10-28T02:30:15+01:00",
    ),
    # A star in the seconds makes a wildcard of it.
    (
        "Europe/Berlin",
        "*/45 30 2 * * *",
        "2024-10-26T12:00+02:00",
        "2024-10-27T02:30+02:00 2024-10-27T02:30:45+02:00 2024-10-27T02:30+01:00"
        " 2024-10-27T02:30:45+01:00 2024-10-28T02:30+01:00",
    ),
]


@pytest.mark.parametrize(("zone", "expression", "start", "expected"), SIX_FIELDS)
def test_six_fields_begin_with_the_seconds(
    zone: str, expression: str, start: str, expected: str
) -> None:
    assert_ticks(hk.CronTrigger(expression, zone), zone, start, expected)


@pytest.mark.parametrize(
    ("alias", "fields"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_an_alias_stands_for_its_five_fields(alias: str, fields: str) -> None:
    assert hk.CronTrigger(alias).text == fields
    assert hk.CronTrigger(f"  {alias.upper()} ").text == fields
    assert alias in hk.ALIASES


def test_blanks_and_case_make_no_difference() -> None:
    assert hk.CronTrigger("  0\t 9 * *  mon-Fri ").text == "0 9 * * MON-FRI"


# What is refused.

REFUSED: list[tuple[object, str]] = [
    # No expression at all.
    (None, "schedule None is not a string"),
    (5, "schedule 5 is not a string"),
    (b"* * * * *", "schedule b'* * * * *' is not a string"),
    ("", "schedule '' is not a cron expression (it has 0 fields; 5, or 6 with seconds first)"),
    (" \t ", "it has 0 fields"),
    ("*", "it has 1 fields"),
    ("* * * *", "it has 4 fields"),
    ("* * * * * * 5", "it has 7 fields"),
    # Quartz's weekday 2 is Monday: no advice is better than a wrong one.
    ("0 0 12 ? * 2 *", "(it has 7 fields; 5, or 6 with seconds first)"),
    ("0 0 12 ? * 6L 2030", "(it has 7 fields; 5, or 6 with seconds first)"),
    ("* * * * *" + " " * 248, "has 257 characters; the limit is 256"),
    ("@foo", "@foo is no alias here; known are @yearly, @annually"),
    ("@dayly", "@dayly is no alias here; did you mean '@daily'?"),
    ("@montly", "@montly is no alias here; did you mean '@monthly'?"),
    ("@Anually", "@Anually is no alias here; did you mean '@annually'?"),
    ("@daily *", "@daily * is no alias here"),
    ("@every monday", "@every monday is no alias here"),
    # Numbers out of range, one for each field and end.
    ("60 * * * * *", "second 60 is not in 0-59"),
    ("60 * * * *", "minute 60 is not in 0-59"),
    ("61 * * * *", "schedule '61 * * * *' is not a cron expression (minute 61 is not in 0-59)"),
    ("* 24 * * *", "hour 24 is not in 0-23"),
    ("* * 0 * *", "day of month 0 is not in 1-31"),
    ("* * 32 * *", "day of month 32 is not in 1-31"),
    ("* * * 0 *", "month 0 is not in 1-12"),
    ("* * * 13 *", "month 13 is not in 1-12"),
    ("* * * * 8", "weekday 8 is not in 0-7"),
    ("0-60 * * * *", "minute 60 is not in 0-59"),
    ("0,99 * * * *", "minute 99 is not in 0-59"),
    ("99999999999999999999999 * * * *", "minute 99999999999999999999999 is not in 0-59"),
    ("9" * 240 + " * * * *", "is not in 0-59"),
    # No numbers.
    ("x * * * *", "minute 'X' is not a number in 0-59"),
    ("1.5 * * * *", "minute '1.5' is not a number"),
    ("+5 * * * *", "minute '+5' is not a number"),
    ("-5 * * * *", "minute '' is not a number"),
    ("5- * * * *", "minute '' is not a number"),
    ("1_0 * * * *", "minute '1_0' is not a number"),
    ("0x1 * * * *", "minute '0X1' is not a number"),
    ("1-2-3 * * * *", "minute '2-3' is not a number"),
    ("*5 * * * *", "minute '*5' is not a number"),
    ("** * * * *", "minute '**' is not a number"),
    (", * * * *", "minute '' is not a number"),
    ("1,,2 * * * *", "minute '' is not a number"),
    ("1, * * * *", "minute '' is not a number"),
    ("\u0663 * * * *", "minute '\u0663' is not a number"),
    ("\uff11 * * * *", "minute '\uff11' is not a number"),
    ("* \u00b2 * * *", "hour '\u00b2' is not a number"),
    ("0\u00a00 * * * *", "minute '0\\xa00' is not a number"),
    ("0\n0 * * * *", "minute '0\\n0' is not a number"),
    ("\x00 * * * *", "minute '\\x00' is not a number"),
    ("JAN * * * *", "minute 'JAN' is not a number in 0-59"),
    ("* * * FOO *", "month 'FOO' is not a number in 1-12, or JAN to DEC"),
    ("* * * MON *", "month 'MON' is not a number in 1-12, or JAN to DEC"),
    ("* * * * JAN", "weekday 'JAN' is not a number in 0-7, or SUN to SAT"),
    ("* * * * MONDAYS", "weekday 'MONDAYS' is not a number in 0-7, or SUN to SAT"),
    ("* * * * MO", "weekday 'MO' is not a number in 0-7, or SUN to SAT"),
    ("? * * * *", "minute '?' is not a number"),
    ("* * ?,5 * *", "day of month '?' is not a number"),
    # Steps.
    ("*/0 * * * *", "minute '*/0' has a step that is no number from 1 to 99999"),
    ("5-10/0 * * * *", "minute '5-10/0' has a step"),
    ("*/ * * * *", "minute '*/' has a step"),
    ("*/x * * * *", "minute '*/X' has a step"),
    ("*/-1 * * * *", "minute '*/-1' has a step"),
    ("1/2/3 * * * *", "minute '1/2/3' has a step"),
    ("*/100000 * * * *", "minute '*/100000' has a step"),
    # Days.
    ("* * L-0 * *", "day of month 'L-0' is not in L-1 to L-30"),
    ("* * L-31 * *", "day of month 'L-31' is not in L-1 to L-30"),
    ("* * WL * *", "day of month 'WL' is not a number"),
    ("* * 5L * *", "day of month '5L' is not a number"),
    ("* * 1-L * *", "day of month 'L' is not a number"),
    ("* * W15 * *", "day of month 'W15' is not a number"),
    ("* * 0W * *", "day of month 0 is not in 1-31"),
    ("* * 32W * *", "day of month 32 is not in 1-31"),
    ("* * * * FRI#0", "weekday 'FRI#0' is not"),
    ("* * * * FRI#6", "weekday 'FRI#6' is not"),
    ("* * * * 8#2", "weekday 8 is not in 0-7"),
    ("* * * * MON-FRI#1", "weekday 'MON-FRI' is not a number"),
    ("* * * * L", "weekday 'L' is not a number"),
    ("* * * * L8", "weekday 8 is not in 0-7"),
    ("* * * * FEBL", "weekday 'FEB' is not a number"),
    # H must have something to choose from.
    ("H(5-3) * * * *", "minute 'H(5-3)' has no range or step to choose from"),
    ("H(5-5) * * * *", "minute 'H(5-5)' has no range or step to choose from"),
    ("H(0-60) * * * *", "minute 60 is not in 0-59"),
    ("* * H(0-5) * *", "day of month 0 is not in 1-31"),
    ("H/0 * * * *", "minute 'H/0' has no range or step to choose from"),
    ("H/61 * * * *", "minute 'H/61' has no range or step to choose from"),
    ("H(0-5)/9 * * * *", "minute 'H(0-5)/9' has no range or step to choose from"),
    ("H,5 * * * *", "minute 'H' is not a number"),
    ("H-5 * * * *", "minute 'H' is not a number"),
    ("H() * * * *", "minute 'H()' is not a number"),
    ("* * * H(JAN-MAR) *", "month 'H(JAN' is not a number"),
    # Dates that there are not.
    ("0 0 30 2 *", "schedule '0 0 30 2 *' never comes: no date has that day, month and time"),
    ("0 0 31 2,4,6,9,11 *", "schedule '0 0 31 2,4,6,9,11 *' never comes"),
    ("0 0 0 30-31 FEB *", "schedule '0 0 0 30-31 FEB *' never comes"),
    ("0 0 30W 2 *", "schedule '0 0 30W 2 *' never comes"),
    ("0 0 L-29 2 *", "schedule '0 0 L-29 2 *' never comes"),
]


@pytest.mark.parametrize(("expression", "reason"), REFUSED)
def test_what_is_no_schedule_is_refused_with_its_field_and_value(
    expression: Any, reason: str
) -> None:
    with pytest.raises(hk.ConfigurationError, match=re.escape(reason)) as refused:
        hk.CronTrigger(expression)
    assert isinstance(refused.value, ValueError)
    assert len(str(refused.value)) < 700
    with pytest.raises(hk.ConfigurationError):
        hk.make_trigger(expression, "UTC")


ADVICE = [
    # A year field: Quartz, AWS EventBridge, croniter, nnCron.
    ("0 0 12 1 1 ? 2030", "schedule='0 0 12 1 1 ?'"),
    ("0 0 12 ? * MON *", "schedule='0 0 12 ? * MON'"),
    ("0 0 12 ? * FRIL 2030-2032", "schedule='0 0 12 ? * FRIL'"),
    ("0 0 12 ? 1 FRI#3 *", "schedule='0 0 12 ? 1 FRI#3'"),
    ("0 12 * * ? *", "schedule='0 12 * * ?'"),
    ("0 12 ? * MON-FRI *", "schedule='0 12 ? * MON-FRI'"),
    ("0 0 1 1 * * 2030", "schedule='0 0 1 1 * *'"),
    ("* * * * * * *", "schedule='* * * * * *'"),
    ("0 12 1 1 * 2030", "schedule='0 12 1 1 *'"),
    ("0 0 12 1 1 ? */2", "schedule='0 0 12 1 1 ?'"),
    # Lengths: robfig/cron (Go, Kubernetes operators), FreeBSD's cron, people.
    ("@every 5m", "schedule='*/5 * * * *'"),
    ("@every 1h30m", "schedule=timedelta(hours=1, minutes=30)"),
    ("@every 1.5h", "schedule=timedelta(hours=1.5)"),
    ("@every 1h 1h", "schedule='0 */2 * * *'"),
    ("@every 90s", "schedule=timedelta(seconds=90)"),
    ("@every 2h", "schedule='0 */2 * * *'"),
    ("@every 30s", "schedule='*/30 * * * * *'"),
    ("every 5 minutes", "schedule='*/5 * * * *'"),
    ("every 7 minutes", "schedule=timedelta(minutes=7)"),
    ("Every  36 hours", "schedule=timedelta(hours=36)"),
    ("every second", "schedule='* * * * * *'"),
    ("every minute", "schedule='* * * * *'"),
    ("every hour", "schedule='0 * * * *'"),
    ("every 60 minutes", "schedule='0 * * * *'"),
    ("every day", "schedule='@daily'"),
    ("every 2 days", "schedule=timedelta(days=2)"),
    ("@every_minute", "schedule='* * * * *'"),
    ("@every_second", "schedule='* * * * * *'"),
    ("@every 1m", "schedule='* * * * *'"),
    ("@every 1d 12h", "schedule=timedelta(days=1, hours=12)"),
    ("*/90 * * * *", "0, or schedule=timedelta(minutes=90)"),
    ("0/90 * * * *", "0, or schedule=timedelta(minutes=90)"),
    ("0-59/90 * * * *", "0, or schedule=timedelta(minutes=90)"),
    ("5/90 * * * *", "5, or schedule=timedelta(minutes=90)"),
    ("0 */48 * * *", "0, or schedule=timedelta(hours=48)"),
    ("0 0/48 * * *", "0, or schedule=timedelta(hours=48)"),
    ("*/120 * * * * *", "0, or schedule=timedelta(seconds=120)"),
    # Other words: systemd.time(7), FreeBSD's crontab(5), people.
    ("@minutely", "schedule='* * * * *'"),
    ("@weekdays", "schedule='0 0 * * 1-5'"),
    ("@weekends", "schedule='0 0 * * 0,6'"),
    ("@quarterly", "schedule='0 0 1 1,4,7,10 *'"),
    ("@semiannually", "schedule='0 0 1 1,7 *'"),
    ("@fortnightly", "schedule=timedelta(weeks=2)"),
    ("@reboot", "startup=True"),
    ("@reboot /usr/bin/x", "startup=True, command='/usr/bin/x'"),
    ("hourly", "schedule='@hourly'"),
    # A zone: Kubernetes and robfig/cron before, others behind.
    ("CRON_TZ=Europe/Berlin 0 2 * * *", "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ('CRON_TZ="Europe/Berlin" 0 2 * * *', "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ("CRON_TZ='Europe/Berlin' 0 2 * * *", "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ("TZ=:Europe/Berlin 0 2 * * *", "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ("TZ=Etc/GMT-2 0 2 * * *", "schedule='0 2 * * *', timezone='Etc/GMT-2'"),
    ("TZ=utc 0 2 * * *", "schedule='0 2 * * *', timezone='UTC'"),
    ("CRON_TZ=UTC @every 5m", "schedule='*/5 * * * *', timezone='UTC'"),
    ("Asia/Tokyo @daily", "schedule='@daily', timezone='Asia/Tokyo'"),
    ("0 2 * * * Europe/Berlin", "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ("0 2 * * * europe/berlin # UTC+1", "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ("0 2 * * * PST", "schedule='0 2 * * *', timezone='America/Los_Angeles'"),
    ("0 2 * * * PDT", "schedule='0 2 * * *', timezone='America/Los_Angeles'"),
    ("0 2 * * * EDT", "schedule='0 2 * * *', timezone='America/New_York'"),
    ("0 2 * * * JST", "schedule='0 2 * * *', timezone='Asia/Tokyo'"),
    ("0 2 * * * Z", "schedule='0 2 * * *', timezone='UTC'"),
    ("0 2 * * * local", "schedule='0 2 * * *', timezone='local'"),
    ("0 2 * * * Berlin", "schedule='0 2 * * *', timezone='Europe/Berlin'"),
    ("0 2 * * * +02:00", "schedule='0 2 * * *', timezone='Etc/GMT-2'"),
    ("0 2 * * * UTC+2", "schedule='0 2 * * *', timezone='Etc/GMT-2'"),
    ("@daily UTC", "schedule='@daily', timezone='UTC'"),
    ("0 2 * * * UTC /bin/x", "schedule='0 2 * * *', timezone='UTC', command='/bin/x'"),
    # A command or a comment: a user's and a system's crontab.
    ("0 2 * * * /usr/bin/x  -f", "schedule='0 2 * * *', command='/usr/bin/x  -f'"),
    ("0 2 * * * root /usr/bin/x", "schedule='0 2 * * *', command='/usr/bin/x'"),
    ("0 2 * * * www-data /usr/bin/x", "schedule='0 2 * * *', command='/usr/bin/x'"),
    ("0 2 * * * nobody9 php /x.php", "schedule='0 2 * * *', command='php /x.php'"),
    ("0 2 * * * php /x.php", "schedule='0 2 * * *', command='php /x.php'"),
    ("0 2 * * * ls /tmp", "schedule='0 2 * * *', command='ls /tmp'"),
    ("TZ=UTC 0 2 * * * root /x", "schedule='0 2 * * *', timezone='UTC', command='/x'"),
    ("0 0 1 1 * 2030 /usr/bin/x", "schedule='0 0 1 1 *', command='/usr/bin/x'"),
    ("0 0 2 * * monday /x", "schedule='0 0 2 * * monday', command='/x'"),
    ("@weekly python3 sweep.py", "schedule='@weekly', command='python3 sweep.py'"),
    ("0 2 * * * sweep.sh", "schedule='0 2 * * *', command='sweep.sh'"),
    ("0 2 * * * monitor --all", "schedule='0 2 * * *', command='monitor --all'"),
    ("30 0 2 * * * ls -l", "schedule='30 0 2 * * *', command='ls -l'"),
    ("0 2 * * * ls", "schedule='0 2 * * *', command='ls'"),
    ("@daily ls", "schedule='@daily', command='ls'"),
    ("0 2 * * * [ -x a ] && b", "schedule='0 2 * * *', command='[ -x a ] && b'"),
    ("0 2 * * * $HOME/bin/x", "schedule='0 2 * * *', command='$HOME/bin/x'"),
    ("0 2 * * * '/x y'", "schedule='0 2 * * *', command=\"'/x y'\""),
    ("0 2 * * * # nightly", "schedule='0 2 * * *'"),
    ("0 2 * * * // nightly", "schedule='0 2 * * *'"),
    ("0 2 * * * ; nightly", "schedule='0 2 * * *'"),
    ("0 2 * * *# nightly", "schedule='0 2 * * *'"),
    ("@daily #nightly", "schedule='@daily'"),
    # cronie's ~ and croniter's R, drawn anew each time.
    ("0~59 * * * *", "schedule='H * * * *'"),
    ("0~ * * * *", "schedule='H * * * *'"),
    ("~30 * * * *", "schedule='H(0-30) * * * *'"),
    ("*~* * * * *", "schedule='H * * * *'"),
    ("~ 3 * * *", "schedule='H 3 * * *'"),
    ("0 3 ~ * *", "schedule='0 3 H(1-31) * *'"),
    ("0 10~20/5 * * *", "schedule='0 H(10-20)/5 * * *'"),
    ("R * * * *", "schedule='H * * * *'"),
    ("* r(1-5) * * *", "schedule='* H(1-5) * * *'"),
    ("* * * * R/2", "schedule='* * * * H/2'"),
    # Slips.
    ("0 1, 2 * * *", "schedule='0 1,2 * * *'"),
    ("0 1 * * MON , TUE", "schedule='0 1 * * MON,TUE'"),
    ("0 9 - 17 * * *", "schedule='0 9-17 * * *'"),
    ("* / 5 * * * *", "schedule='*/5 * * * *'"),
    ("'0 2 * * *'", "schedule='0 2 * * *'"),
    ('"0 2 * * *"', "schedule='0 2 * * *'"),
    ("daily", "schedule='@daily'"),
]
# What nobody can be sure of, and what no hint would mean.
NO_ADVICE = [
    "0 2 * * * Pacific Time",
    "0 2 * * * certbot-of-nobody renew",
    "TZ=UTC-2 0 2 * * *",
    "CRON_TZ=JST-9 0 2 * * *",
    "0 2 * * * UTC+15",
    "0 2 * * * XYZ",
    "@always",
    "@bimonthly",
    "@biweekly",
    "@mondays",
    "0 0 2 * * mony",
    "*/5 * * *",
]


@pytest.mark.parametrize("text", NO_ADVICE)
def test_where_no_advice_is_sure_none_is_given(text: str) -> None:
    with pytest.raises(hk.ConfigurationError) as refused:
        hk.make_trigger(text, "UTC")
    assert "write" not in str(refused.value)
    assert "did you mean" not in str(refused.value)


def test_a_user_behind_the_fields_is_named() -> None:
    with pytest.raises(hk.ConfigurationError, match="the user www-data and a command stand"):
        hk.make_trigger("0 2 * * * www-data /usr/bin/x", "UTC")


@pytest.mark.parametrize(("text", "advice"), ADVICE)
def test_what_others_write_is_refused_with_what_to_write_here(text: str, advice: str) -> None:
    with pytest.raises(hk.ConfigurationError) as refused:
        hk.make_trigger(text, "UTC")
    assert str(refused.value).endswith(f"; write {advice})")


def test_whatever_a_refusal_says_to_write_is_accepted() -> None:
    texts = [text for text, _ in ADVICE] + [text for text, _ in REFUSED if isinstance(text, str)]
    dice, written = random.Random(23), 0
    heads = ["0 2 * * *", "*/5 0 3 * * *", "0 0 30 2 *", "61 * * * *", "@daily", "0 2 ? * 2"]
    tails = ["*", "2030", "UTC", "# x", "/bin/x y", "root true", "PST", "\n", "R", "~", "0 1, 2"]
    texts += [f"{dice.choice(heads)} {dice.choice(tails)}" for _ in range(100)]
    texts += [f"{dice.choice(tails)} {dice.choice(heads)}" for _ in range(100)]
    texts += [f"@every {dice.randint(0, 99999)}{dice.choice('smhdw')}" for _ in range(100)]
    texts += [f"*/{dice.choice([61, 90, 99999, 10**9])} {hour} * * *" for hour in ("*", "*/25")]
    texts += [f"@{word}" for word in ("dayly", "Anually", "montly", "weekley", "hourl", "midnigt")]
    for text in texts:
        try:
            hk.Task("sweep", print, schedule=text)
        except hk.ConfigurationError as error:
            advice = str(error).removesuffix(")").rpartition("; write ")[2]
            if near := re.search("did you mean ('@.*')[?]", str(error)):
                advice = f"schedule={near[1]}"
            if ", or " in advice:
                advice = advice.rpartition(", or ")[2]
            if re.match(r"\w+=", advice):
                options = eval(f"dict({advice})", {"timedelta": timedelta})
                action = {} if "command" in options else {"run": print}
                assert hk.Task("sweep", **action, **options)
                written += 1
    assert written > 150


@pytest.mark.parametrize(
    "text", ["every " + "h   " * 60 + "x", "1," * 120 + "x", "? " * 120 + "*"]
)
def test_no_text_takes_long_to_refuse(text: str) -> None:
    with pytest.raises(hk.ConfigurationError):
        hk.CronTrigger(text)


def test_a_wildcard_in_a_gap_of_every_year_never_comes_but_a_fixed_time_does() -> None:
    with pytest.raises(hk.ConfigurationError, match="never comes"):
        hk.CronTrigger("*/5 2 * 3 L0", "Europe/Berlin")
    fixed = hk.CronTrigger("5 2 * 3 L0", "Europe/Berlin")
    expected = "2024-03-31T03:00+02:00 2025-03-30T03:00+02:00 2026-03-29T03:00+02:00"
    assert_ticks(fixed, "Europe/Berlin", "2024-01-01T00:00+00:00", expected)


@pytest.mark.parametrize(
    ("zone", "reason"),
    [
        ("Europe/Berln", "timezone 'Europe/Berln' is not known; did you mean 'Europe/Berlin'?"),
        ("Mars/Olympus", "timezone 'Mars/Olympus' is not known"),
        ("", "timezone '' is not known"),
        ("Europe", "timezone 'Europe' is not known"),
        ("../../etc/passwd", "timezone '../../etc/passwd' is not known"),
        ("/etc/localtime", "timezone '/etc/localtime' is not known"),
        ("Europe/Berlin\x00", "timezone 'Europe/Berlin\\x00' is not known"),
        ("+02:00", "timezone '+02:00' is not known; write 'Etc/GMT-2'"),
        ("UTC+2", "timezone 'UTC+2' is not known; write 'Etc/GMT-2'"),
        ("GMT-03:00", "timezone 'GMT-03:00' is not known; write 'Etc/GMT+3'"),
        ("UTC+5:30", "timezone 'UTC+5:30' is not known; write a name such as 'Europe/Berlin'"),
        ("utc", "timezone 'utc' is not known; write 'UTC'"),
        ("PST", "timezone 'PST' is not known; write 'America/Los_Angeles'"),
        ("europe/berlin", "timezone 'europe/berlin' is not known; write 'Europe/Berlin'"),
        ("Berlin", "timezone 'Berlin' is not known; write 'Europe/Berlin'"),
        ("LOCAL", "timezone 'LOCAL' is not known; write 'local'"),
        *(
            (letters, f"timezone {letters!r} is not known; write {zone!r}")
            for letters, zone in {
                "Z": "UTC",
                "EDT": "America/New_York",
                "CDT": "America/Chicago",
                "CEST": "Europe/Berlin",
                "EEST": "Europe/Athens",
                "MSK": "Europe/Moscow",
                "SGT": "Asia/Singapore",
                "HKT": "Asia/Hong_Kong",
                "JST": "Asia/Tokyo",
                "AEST": "Australia/Sydney",
            }.items()
        ),
        ("Mumbai", "timezone 'Mumbai' is not known; write a name such as 'Europe/Berlin'"),
        ("XYZ", "timezone 'XYZ' is not known; write a name such as 'Europe/Berlin'"),
        ("ACST", "timezone 'ACST' is not known; write a name such as 'Europe/Berlin'"),
        ("UTC+15", "timezone 'UTC+15' is not known; write a name such as 'Europe/Berlin'"),
        (None, "timezone None is not a string"),
        (2, "timezone 2 is not a string"),
        (UTC, "is not a string"),
    ],
)
def test_what_is_no_zone_is_refused(zone: Any, reason: str) -> None:
    for build in (hk.CronTrigger, hk.make_trigger):
        with pytest.raises(hk.ConfigurationError, match=re.escape(reason)):
            build("0 0 * * *", zone)
    with pytest.raises(hk.ConfigurationError, match=re.escape(reason)):
        hk.IntervalTrigger(every().day, zone)


def random_text(dice: random.Random) -> str:
    """Return a text of the characters of cron, which often looks like an expression."""
    if dice.random() < 0.2:
        return "".join(dice.choices("0123456789*,-/LWH#?RSUNMOFI() @\t\n", k=dice.randint(0, 30)))
    atoms = ["*", "0", "1", "5", "7", "12", "23", "31", "59", "60", "L", "15W", "H", "H(1-5)", "?"]
    atoms += ["SUN", "fri", "JAN", "dec", "*/2", "1-5", "FRI-MON", "5#2", "L5", "/3", "#", "-", ""]
    fields = []
    for _ in range(dice.choice([5, 5, 5, 5, 6])):
        if dice.random() < 0.7:
            fields.append(dice.choice(["*", "0", "1-5", "*/2", "3,5"]))
        else:
            joined = dice.choice(["", ",", "-", "/"])
            fields.append(joined.join(dice.choices(atoms, k=dice.choice([1, 1, 1, 2, 3]))))
    return " ".join(fields)


def test_any_text_is_either_refused_or_gives_whole_seconds_in_utc() -> None:
    dice = random.Random(3)
    zones = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"]
    accepted = refused = 0
    for _ in range(6000):
        text = random_text(dice)
        try:
            trigger = hk.CronTrigger(text, dice.choice(zones), hash_key="any")
        except hk.ConfigurationError:
            refused += 1
            continue
        accepted += 1
        seconds = dice.uniform(0, 140 * 365 * 86400)
        instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        tick = trigger.next_after(instant)
        if tick is not None:
            assert tick > instant, text
            assert tick.tzinfo is UTC, text
            assert tick.microsecond == 0, text
    assert accepted > 800
    assert refused > 2000


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("0 0 * * SAT-TUE/2", "2024-06-07T00:00+00:00", "2024-06-08 2024-06-10 2024-06-15"),
        ("0 0 * * FRI-MON/3", "2024-06-06T00:00+00:00", "2024-06-07 2024-06-10 2024-06-14"),
        ("0 0 1 NOV-FEB/3 *", "2024-06-01T00:00+00:00", "2024-11-01 2025-02-01 2025-11-01"),
        ("0 0 1 OCT-MAR/2 *", "2024-06-01T00:00+00:00", "2024-10-01 2024-12-01 2025-02-01"),
    ],
)
def test_a_step_goes_on_evenly_where_a_range_wraps_round(
    expression: str, start: str, expected: str
) -> None:
    instants = " ".join(f"{day}T00:00+00:00" for day in expected.split())
    assert_ticks(hk.CronTrigger(expression), "UTC", start, instants)


def test_the_last_tick_before_the_year_10000_is_followed_by_none() -> None:
    yearly = hk.CronTrigger("0 0 1 1 *")
    assert yearly.next_after(utc(9998, 6, 1)) == utc(9999, 1, 1)
    assert yearly.next_after(utc(9999, 1, 1)) is None
    assert hk.CronTrigger("0 0 L * *").next_after(utc(9998, 12, 1)) == utc(9998, 12, 31)


# H, which hashes.


def hashed(expression: str, keys: int = 400) -> list[str]:
    """Return the concrete texts of an expression under many keys."""
    return [hk.CronTrigger(expression, hash_key=f"task-{key}").text for key in range(keys)]


def test_h_is_the_same_for_the_same_key_in_every_process() -> None:
    assert hashed("H H * * *") == hashed("h H * * *")
    # Written down, because another value would move the ticks of everybody's tasks.
    assert hk.CronTrigger("H H * * *", "UTC", "nightly").text == "42 18 * * *"


@pytest.mark.parametrize(
    ("expression", "field", "expected"),
    [
        ("H * * * *", 0, range(60)),
        ("* H * * *", 1, range(24)),
        ("* * H * *", 2, range(1, 29)),
        ("* * * H *", 3, range(1, 13)),
        ("* * * * H", 4, range(7)),
        ("H 0 0 * * *", 0, range(60)),
        ("H(10-19) * * * *", 0, range(10, 20)),
        ("* H(0-1) * * *", 1, range(2)),
        ("* * H(29-31) * *", 2, range(29, 32)),
        ("* * * * H(1-5)", 4, range(1, 6)),
        ("H/45 * * * *", 0, range(15, 45)),
    ],
)
def test_h_spreads_different_keys_over_the_whole_range_and_no_further(
    expression: str, field: int, expected: range
) -> None:
    values = {text.split()[field] for text in hashed(expression)}
    assert {int(value) for value in values if value.isdigit()} == set(expected)


@pytest.mark.parametrize(
    ("expression", "step", "low", "high"),
    [("H/15 * * * *", 15, 0, 59), ("H(5-34)/10 * * * *", 10, 5, 34), ("H/20 * * * *", 20, 0, 59)],
)
def test_h_with_a_step_begins_anywhere_in_the_first_step(
    expression: str, step: int, low: int, high: int
) -> None:
    texts = set(hashed(expression))
    assert texts == {f"{first}-{high}/{step} * * * *" for first in range(low, low + step)}
    for text in texts:
        minutes = [tick.minute for tick in walked(hk.CronTrigger(text), START, utc(2024, 1, 1, 1))]
        # The tick at 01:00 belongs to the next hour; the one at 00:00 is not after the start.
        assert len(minutes) == (high - low + 1) // step
        assert all((minute - minutes[0]) % step == 0 for minute in minutes)


def test_h_with_a_step_too_long_for_a_second_one_is_a_single_number() -> None:
    texts = hashed("H/45 * * * *")
    assert {text for text in texts if "/" in text} == {
        f"{first}-59/45 * * * *" for first in range(15)
    }
    assert hashed("H/60 * * * *") == hashed("H * * * *")


def test_h_in_two_fields_is_drawn_for_each() -> None:
    assert len(set(hashed("H H * * *", keys=1000))) > 600


# Purity.


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "30 2 * * *", "builder"])
def test_an_instant_without_a_zone_is_refused(schedule: str) -> None:
    trigger = hk.make_trigger(every().day if schedule == "builder" else schedule, "UTC")
    with pytest.raises(ValueError, match="2024-01-01 00:00:00 has no zone; use an aware datetime"):
        trigger.next_after(datetime(2024, 1, 1))  # noqa: DTZ001 - the point of the test


PURE = [
    ("*/7 * * * *", "Europe/Berlin"),
    ("30 2 * * *", "Europe/Berlin"),
    ("15 1,2 * * SUN", "Australia/Lord_Howe"),
    ("@hourly", "Antarctica/Troll"),
    ("0 0 L * *", "America/Havana"),
    ("0 0 13 * FRI", "UTC"),
    ("0 0 * * FRI#2,MON#1", "UTC"),
    ("*/20 * 2 * * *", "Europe/Berlin"),
]


def asked_instants(number: int) -> list[datetime]:
    """Return instants of a year in no order, many of them near a clock change."""
    dice = random.Random(number)
    near = [utc(2024, 3, 31), utc(2024, 10, 27), utc(2024, 10, 5, 15), utc(2024, 3, 10, 4)]
    return [
        dice.choice(near) + timedelta(seconds=dice.uniform(-1, 1) * dice.choice([9e3, 1e6]))
        for _ in range(number)
    ]


@pytest.mark.parametrize(("expression", "zone"), PURE)
def test_the_next_tick_does_not_depend_on_what_was_asked_before(
    expression: str, zone: str
) -> None:
    instants = asked_instants(60)
    fresh = [hk.CronTrigger(expression, zone).next_after(each) for each in instants]
    trigger = hk.CronTrigger(expression, zone)
    assert [trigger.next_after(each) for each in instants] == fresh
    assert [trigger.next_after(each) for each in reversed(instants)] == fresh[::-1]
    assert [trigger.next_after(each) for each in instants for _ in range(2)][::2] == fresh
    berlin = [each.astimezone(ZoneInfo("Europe/Berlin")) for each in instants]
    assert [trigger.next_after(each) for each in berlin] == fresh


@pytest.mark.parametrize(("expression", "zone"), PURE)
def test_threads_that_share_a_trigger_get_the_same_ticks(expression: str, zone: str) -> None:
    instants, threads = asked_instants(80), 6
    alone = {each: hk.CronTrigger(expression, zone).next_after(each) for each in instants}
    trigger = hk.CronTrigger(expression, zone)
    together = threading.Barrier(threads)

    def ask(seed: int) -> bool:
        mine = random.Random(seed).sample(instants, len(instants))
        together.wait(10)
        return all(trigger.next_after(each) == alone[each] for each in mine)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(threads) as pool:
            assert all(pool.map(ask, range(threads)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("fraction", [1, 500_000, 999_999])
def test_ticks_are_whole_seconds_in_utc_also_from_a_fraction_of_a_second(fraction: int) -> None:
    trigger = hk.CronTrigger("0 12 * * *", "Asia/Kolkata")
    noon = utc(2024, 5, 6, 6, 30)
    before = noon - timedelta(seconds=1) + timedelta(microseconds=fraction)
    tick = trigger.next_after(before)
    assert tick == noon
    assert tick.tzinfo is UTC
    assert tick.microsecond == 0
    after = noon + timedelta(microseconds=fraction)
    assert trigger.next_after(after) == noon + timedelta(days=1)


def test_a_missing_croniter_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "croniter", None)
    with pytest.raises(hk.ConfigurationError, match="needs croniter; run `pip install 'croniter>"):
        hk.Task("work", lambda: None, schedule="1 4 * * *")


def test_equal_expressions_share_one_trigger() -> None:
    shared = hk.make_trigger("17 4 * * *", "Europe/Berlin", "one")
    assert hk.make_trigger("17 4 * * *", "Europe/Berlin", "another") is shared
    assert hk.make_trigger("17 4 * * *", "UTC") is not shared
    assert hk.make_trigger("18 4 * * *", "Europe/Berlin") is not shared


@pytest.mark.parametrize(
    "expression", ["H 4 * * *", "7\tH(1-3) * * *", "0 0 * * h", "H/5 * * * *"]
)
def test_equal_expressions_with_h_are_shared_by_equal_keys_only(expression: str) -> None:
    shared = hk.make_trigger(expression, "UTC", "one")
    assert hk.make_trigger(expression, "UTC", "one") is shared
    others = [hk.make_trigger(expression, "UTC", f"key-{number}") for number in range(20)]
    assert len(set(others)) == 20
    assert len({other.text for other in others}) > 1


def test_a_trigger_shows_its_schedule_and_its_zone() -> None:
    trigger = hk.CronTrigger("@daily", "Europe/Berlin")
    assert (trigger.text, trigger.timezone) == ("0 0 * * *", "Europe/Berlin")
    assert repr(trigger) == "CronTrigger('0 0 * * *', timezone='Europe/Berlin')"
    interval = hk.make_trigger(every(2).days, "Europe/Berlin")
    assert repr(interval) == "IntervalTrigger('every 2 days', timezone='Europe/Berlin')"


# Builders of the `schedule` library.

INTERVALS: list[tuple[Any, str, str, str, str]] = [
    # Seconds, minutes and hours are counted from 1970-01-01T00:00+00:00, in any zone.
    (
        every(10).minutes,
        "Europe/Berlin",
        "every 10 minutes",
        "2024-03-31T01:45+01:00",
        "2024-03-31T01:50+01:00 2024-03-31T03:00+02:00 2024-03-31T03:10+02:00",
    ),
    (
        every(90).seconds,
        "UTC",
        "every 90 seconds",
        "2024-01-01T00:00+00:00",
        "2024-01-01T00:01:30+00:00 2024-01-01T00:03+00:00",
    ),
    (
        every(3).hours,
        "Europe/Berlin",
        "every 3 hours",
        "2024-10-26T22:00+02:00",
        "2024-10-26T23:00+02:00 2024-10-27T02:00+02:00 2024-10-27T04:00+01:00",
    ),
    (
        every(3).hours,
        "Asia/Kolkata",
        "every 3 hours",
        "2024-01-01T00:00+05:30",
        "2024-01-01T02:30+05:30 2024-01-01T05:30+05:30",
    ),
    # 2024-01-01T00:00+00:00 is 28,401,120 minutes after the epoch, 7 * 4,057,302 + 6.
    (
        every(7).minutes,
        "UTC",
        "every 7 minutes",
        "2024-01-01T00:00+00:00",
        "2024-01-01T00:01+00:00 2024-01-01T00:08+00:00",
    ),
    (
        every().second,
        "UTC",
        "every second",
        "2024-01-01T00:00:58+00:00",
        "2024-01-01T00:00:59+00:00 2024-01-01T00:01+00:00",
    ),
    # Days, weeks and .at() are on the wall clock.  Europe/Berlin goes from +01:00 to +02:00 on
    # 2024-03-31, when it shows 02:00, then 03:00, and back on 2024-10-27: 03:00, then 02:00.
    (
        every().day,
        "Europe/Berlin",
        "every day",
        "2024-03-30T12:00+01:00",
        "2024-03-31T00:00+01:00 2024-04-01T00:00+02:00",
    ),
    (
        every().day.at("09:30"),
        "Europe/Berlin",
        "every day at 09:30",
        "2024-03-30T09:00+01:00",
        "2024-03-30T09:30+01:00 2024-03-31T09:30+02:00 2024-04-01T09:30+02:00",
    ),
    (
        every().day.at("02:30"),
        "Europe/Berlin",
        "every day at 02:30",
        "2024-03-30T12:00+01:00",
        "2024-03-31T03:00+02:00 2024-04-01T02:30+02:00",
    ),
    (
        every().day.at("02:30:15"),
        "Europe/Berlin",
        "every day at 02:30:15",
        "2024-10-26T12:00+02:00",
        "2024-10-27T02:30:15+02:00 2024-10-28T02:30:15+01:00",
    ),
    # 2024-01-01 is 19,723 days after 1970-01-01, and 2,817 weeks after Monday 1970-01-05.
    (
        every(2).days,
        "Europe/Berlin",
        "every 2 days",
        "2024-01-01T00:00+01:00",
        "2024-01-02T00:00+01:00 2024-01-04T00:00+01:00",
    ),
    (
        every(3).days.at("09:00"),
        "Asia/Kolkata",
        "every 3 days at 09:00",
        "2024-01-01T00:00+05:30",
        "2024-01-03T09:00+05:30 2024-01-06T09:00+05:30",
    ),
    (
        every(2).weeks,
        "Europe/Berlin",
        "every 2 weeks",
        "2024-01-01T00:00+01:00",
        "2024-01-08T00:00+01:00 2024-01-22T00:00+01:00",
    ),
    (
        every().week,
        "UTC",
        "every week",
        "2024-01-01T00:00+00:00",
        "2024-01-08T00:00+00:00 2024-01-15T00:00+00:00",
    ),
    (
        every().monday.at("09:00"),
        "Europe/Berlin",
        "every monday at 09:00",
        "2024-03-25T09:00+01:00",
        "2024-04-01T09:00+02:00 2024-04-08T09:00+02:00",
    ),
    (
        every().sunday,
        "Europe/Berlin",
        "every sunday",
        "2024-01-01T00:00+01:00",
        "2024-01-07T00:00+01:00 2024-01-14T00:00+01:00",
    ),
    (
        every().hour.at(":15"),
        "Asia/Kolkata",
        "every hour at :15",
        "2024-01-01T00:00+05:30",
        "2024-01-01T00:15+05:30 2024-01-01T01:15+05:30",
    ),
    (
        every().hour.at(":15"),
        "Europe/Berlin",
        "every hour at :15",
        "2024-10-27T02:00+02:00",
        "2024-10-27T02:15+02:00 2024-10-27T02:15+01:00 2024-10-27T03:15+01:00",
    ),
    # Australia/Lord_Howe goes from +10:30 to +11:00 on 2024-10-06: 02:00, then 02:30.
    (
        every().hour.at("15:30"),
        "Australia/Lord_Howe",
        "every hour at :15:30",
        "2024-10-06T01:00+10:30",
        "2024-10-06T01:15:30+10:30 2024-10-06T03:15:30+11:00",
    ),
    (
        every(6).hours.at(":15"),
        "Europe/Berlin",
        "every 6 hours at :15",
        "2024-03-31T00:00+01:00",
        "2024-03-31T00:15+01:00 2024-03-31T06:15+02:00 2024-03-31T12:15+02:00",
    ),
    (
        every().minute.at(":30"),
        "Asia/Kolkata",
        "every minute at :30",
        "2024-01-01T00:00:30+05:30",
        "2024-01-01T00:01:30+05:30 2024-01-01T00:02:30+05:30",
    ),
    (
        every().minute.at(":00"),
        "UTC",
        "every minute at :00",
        "2024-01-01T00:00+00:00",
        "2024-01-01T00:01+00:00",
    ),
    (
        every().hour.at(":00"),
        "UTC",
        "every hour at :00",
        "2024-01-01T00:00+00:00",
        "2024-01-01T01:00+00:00",
    ),
    # America/Havana goes from -05:00 to -04:00 on 2024-03-10: 00:00, then 01:00.
    (
        every().day.at("00:00"),
        "America/Havana",
        "every day at 00:00",
        "2024-03-09T12:00-05:00",
        "2024-03-10T01:00-04:00 2024-03-11T00:00-04:00",
    ),
]


@pytest.mark.parametrize(("builder", "zone", "text", "start", "expected"), INTERVALS)
def test_a_builder_of_the_schedule_library_has_ticks_that_need_no_memory(
    builder: Any, zone: str, text: str, start: str, expected: str
) -> None:
    trigger = hk.make_trigger(builder, zone)
    assert isinstance(trigger, hk.IntervalTrigger)
    assert trigger.text == text
    assert_ticks(trigger, zone, start, expected)
    # The same ticks from any start: whoever asks earlier comes past them.
    after = datetime.fromisoformat(start)
    ticks = first_ticks(trigger, after, len(expected.split()))
    earlier = walked(hk.make_trigger(builder, zone), after - timedelta(hours=30), ticks[-1])
    assert earlier[-len(ticks) :] == ticks


def test_an_interval_without_a_wall_clock_time_is_in_utc() -> None:
    assert hk.make_trigger(every(3).hours, "Asia/Kolkata").timezone == "UTC"
    assert hk.make_trigger(every().hour.at(":15"), "Asia/Kolkata").timezone == "Asia/Kolkata"
    assert hk.make_trigger(every().day, "Asia/Kolkata").timezone == "Asia/Kolkata"


@pytest.mark.parametrize(
    ("builder", "expression"),
    [
        (every().day.at("02:30"), "30 2 * * *"),
        (every().sunday.at("02:00"), "0 2 * * SUN"),
        (every().week, "0 0 * * MON"),
        (every().day.at("00:10"), "10 0 * * *"),
        (every().hour.at(":20"), "20 * * * *"),
        (every().minute.at(":00"), "* * * * *"),
    ],
)
def test_a_builder_has_the_ticks_of_the_cron_expression_that_says_the_same(
    builder: Any, expression: str
) -> None:
    for zone in ("Europe/Berlin", "Australia/Lord_Howe", "Antarctica/Troll", "America/Havana"):
        for transition in changing_zones_of_2024(zone):
            after, until = (transition.instant + timedelta(hours=each) for each in (-20, 40))
            found = walked(hk.make_trigger(builder, zone), after, until)
            assert found == cron_oracle.ticks(expression, zone, after, until), (zone, transition)


def changing_zones_of_2024(zone: str) -> tuple[Transition, ...]:
    found = cron_oracle.transitions(zone, START, utc(2025, 1, 1))
    assert len(found) == 2
    return found


def with_zone(builder: Any) -> Any:
    """Set what ``.at(..., tz)`` sets, which needs pytz."""
    builder.at_time_zone = "Europe/Berlin"
    return builder


REFUSED_BUILDERS: list[tuple[Any, str]] = [
    (every(5).to(10).minutes, "every(5) has .to(): a random interval differs between processes"),
    (
        every().day.until("2099-01-01"),
        "every(1) has .until(): it would fail at import once it is past;"
        " let the task return schedule.CancelJob",
    ),
    (with_zone(every().day.at("09:30")), "every(1) has .at(..., tz): write the zone as Task(time"),
    (every().day.do(print), "every(1) has .do(): write Task(run=...)"),
    (every(10), "schedule every(10) has no unit; write every(10).minutes"),
    (every(0).minutes, "every(0).minutes: the interval is not a whole number of 1 or more"),
    (every(-2).weeks, "every(-2).weeks: the interval is not a whole number of 1 or more"),
    (every(1.5).hours, "every(1.5).hours: the interval is not"),  # type: ignore[arg-type]
    (every("3").days, "every('3').days: the interval is not"),  # type: ignore[arg-type]
    (every(True).hours, "every(True).hours: the interval is not"),
    (every(10**9).weeks, "is not in whole seconds, from 1 second to 50 years"),
    (every(10**40).days, "is not in whole seconds, from 1 second to 50 years"),
]


@pytest.mark.parametrize(("builder", "reason"), REFUSED_BUILDERS)
def test_what_a_stateless_schedule_cannot_say_is_refused(builder: Any, reason: str) -> None:
    with pytest.raises(hk.ConfigurationError, match=re.escape(reason)) as refused:
        hk.make_trigger(builder, "UTC")
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("schedule", [None, 5, 1.5, every, b"@daily", {"@daily"}, START])
def test_what_is_no_kind_of_schedule_is_refused(schedule: object) -> None:
    reason = (
        r"neither a cron expression, a timedelta, schedule\.every\(\.\.\.\) nor a list of them"
    )
    with pytest.raises(hk.ConfigurationError, match=reason):
        hk.make_trigger(schedule, "UTC")


def test_nothing_is_a_builder_while_the_schedule_library_is_not_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builder = every().day
    assert hk.of_schedule(type(builder), "Job")
    monkeypatch.delitem(sys.modules, "schedule")
    assert not hk.of_schedule(type(builder), "Job")
    assert "schedule" not in sys.modules


# A timedelta.


def test_a_timedelta_ticks_evenly_from_a_phase_that_its_key_chooses() -> None:
    phases = set()
    for key in range(200):
        trigger = hk.make_trigger(timedelta(minutes=90), "Europe/Berlin", f"key-{key}")
        ticks = first_ticks(trigger, utc(2024, 3, 30), 60)
        assert {later - tick for tick, later in itertools.pairwise(ticks)} == {
            timedelta(minutes=90)
        }
        assert START < ticks[0] <= utc(2024, 3, 30) + timedelta(minutes=90)
        again = hk.make_trigger(timedelta(hours=1, minutes=30), "UTC", f"key-{key}")
        assert again.following(utc(2024, 3, 30), 60) == ticks
        assert again.text == trigger.text
        phases.add(ticks[0])
    assert len(phases) > 180


def test_the_text_of_a_timedelta_holds_its_phase_and_its_zone_is_utc() -> None:
    # Written down, because another value would move the ticks of everybody's tasks.
    trigger = hk.make_trigger(timedelta(minutes=90), "Europe/Berlin", "nightly")
    assert (trigger.text, trigger.timezone) == ("every 90 minutes + 0:48:57", "UTC")
    assert trigger.next_after(datetime(1970, 1, 1, tzinfo=UTC)) == utc(1970, 1, 1, 0, 48, 57)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(seconds=1), "every second"),
        (timedelta(seconds=90), "every 90 seconds"),
        (timedelta(minutes=1), "every minute"),
        (timedelta(hours=36), "every 36 hours"),
        (timedelta(days=1), "every day"),
        (timedelta(days=10), "every 10 days"),
        (timedelta(days=14), "every 2 weeks"),
        (timedelta(days=366 * 50), "every 18300 days"),
    ],
)
def test_a_timedelta_is_a_plain_length(length: timedelta, text: str) -> None:
    trigger = hk.make_trigger(length, "America/Havana", "any")
    assert trigger.text.startswith(f"{text} + ")
    first, second = trigger.following(START, 2)
    assert second - first == length


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (timedelta(0), "is not in whole seconds, from 1 second to 50 years"),
        (timedelta(seconds=-5), "is not in whole seconds, from 1 second to 50 years"),
        (timedelta(seconds=1.5), "is not in whole seconds, from 1 second to 50 years"),
        (timedelta(days=366 * 50 + 1), "is not in whole seconds, from 1 second to 50 years"),
        (
            timedelta.max - timedelta(microseconds=999_999),
            "is not in whole seconds, from 1 second to 50 years",
        ),
    ],
)
def test_a_length_that_is_none_is_refused(length: timedelta, reason: str) -> None:
    with pytest.raises(hk.ConfigurationError, match=reason):
        hk.make_trigger(length, "UTC")


# A list of schedules.


def random_schedule(dice: random.Random) -> Any:
    """Return a schedule of any kind that takes no list."""
    number = dice.randint(5, 40)
    kinds = [
        lambda: dice.choice(all_expressions()),
        lambda: dice.choice(all_expressions()),
        lambda: dice.choice(["H H * * *", "H/20 * * * *", "0 0 LW * *", "0 12 * * FRI#2"]),
        lambda: timedelta(minutes=number),
        lambda: every(number).minutes,
        lambda: every().day.at("02:30"),
        lambda: every(number).hours.at(":15"),
    ]
    return dice.choice(kinds)()


def test_a_list_of_schedules_ticks_at_the_union_of_its_parts() -> None:
    dice, zones, compared = random.Random(29), changing_zones(), 0
    for _ in range(60):
        zone = dice.choice([*zones, "UTC"])
        middle = dice.choice(zones[zone]).instant if zone in zones else utc(2024, 6, 1)
        after, until = middle - timedelta(hours=12), middle + timedelta(hours=12)
        parts = [random_schedule(dice) for _ in range(dice.randint(1, 4))]
        if any(isinstance(part, str) and not trigger_of(part, zone) for part in parts):
            continue
        union = hk.make_trigger(dice.choice([list, tuple])(parts), zone, "key")
        triggers = [hk.make_trigger(part, zone, "key") for part in parts]
        ticks = sorted({tick for each in triggers for tick in walked(each, after, until)})
        case = f"{union.text} in {zone} at {middle}"
        assert walked(union, after, until) == ticks, case
        assert union.count(after, until, limit=10**6) == len(ticks), case
        assert union.latest_before(until, floor=after) == max(ticks, default=None), case
        for _ in range(6):
            start = after + timedelta(seconds=dice.uniform(0, 24 * 3600))
            following = [each.next_after(start) for each in triggers]
            assert union.next_after(start) == min(filter(None, following)), case
        compared += len(ticks)
    assert compared > 1500


def test_the_text_of_a_list_is_the_texts_of_its_parts() -> None:
    parts = ["0 9 * * mon-fri", " 0 12 * * sat,sun\n", every(2).days, "0 9 * * mon-fri"]
    union = hk.make_trigger(parts, "Europe/Berlin")
    assert union.text == "0 9 * * MON-FRI | 0 12 * * SAT,SUN | every 2 days"
    assert union.timezone == "Europe/Berlin"
    assert repr(union) == f"UnionTrigger({union.text!r}, timezone='Europe/Berlin')"


def test_a_list_of_one_is_that_one() -> None:
    assert hk.make_trigger(["0 9 * * *"], "UTC") is hk.make_trigger("0 9 * * *", "UTC")


@pytest.mark.parametrize("schedules", [[], (), [["@daily"]], ["@daily", ("@hourly",)]])
def test_a_list_that_is_empty_or_holds_a_list_is_refused(schedules: Any) -> None:
    with pytest.raises(hk.ConfigurationError, match="it is empty or holds a list"):
        hk.make_trigger(schedules, "UTC")


def test_a_part_that_is_no_schedule_is_named() -> None:
    with pytest.raises(hk.ConfigurationError, match=r"schedule '61 \* \* \* \*' is not a cron"):
        hk.make_trigger(["0 9 * * *", "61 * * * *"], "UTC")
    with pytest.raises(hk.ConfigurationError, match="schedule 5 is neither"):
        hk.make_trigger(["0 9 * * *", 5], "UTC")


@pytest.mark.parametrize(
    ("schedule", "hashed"),
    [
        ("H 4 * * *", True),
        (" h 4 * * *", True),
        ("0 4 * * H\r\n", True),
        ("H(0-9) 4 * * *", True),
        ("0 4 * * *", False),
        ("0 4 * * THU", False),
        ("@hourly", False),
        (timedelta(hours=1), True),
        (["0 4 * * *", "H 5 * * *"], True),
        (("0 4 * * *", timedelta(hours=1)), True),
        (["0 4 * * *", "0 5 * * *"], False),
        (every().day, False),
        (None, False),
    ],
)
def test_a_schedule_is_hashed_when_its_ticks_depend_on_the_key(
    schedule: Any, hashed: bool
) -> None:
    assert hk.is_hashed(schedule) is hashed
    if schedule is not None:
        keys = [f"key-{number}" for number in range(9)]
        triggers = [hk.make_trigger(schedule, "UTC", key) for key in keys]
        assert (len({tuple(each.following(START, 40)) for each in triggers}) > 1) is hashed


# The zone of this host.


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give this host other files of its zone, for the test."""
    monkeypatch.setattr(hk, "LOCALTIME", str(tmp_path / "localtime"))
    monkeypatch.delenv("TZ", raising=False)
    hk.local_zone_name.cache_clear()
    yield tmp_path
    hk.local_zone_name.cache_clear()


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (":Asia/Tokyo", "Asia/Tokyo"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        (":/usr/share/zoneinfo/posix/Asia/Tokyo", "Asia/Tokyo"),
        ("", "UTC"),
        ("UTC", "UTC"),
        ("UTC0", "UTC"),
        ("Etc/UTC", "UTC"),
        # POSIX: the hours to UTC.
        ("UTC-2", "Etc/GMT-2"),
        ("UTC+02:00", "Etc/GMT+2"),
        ("JST-9", "Etc/GMT-9"),
        ("<+03>-3", "Etc/GMT-3"),
        ("EST5", "Etc/GMT+5"),
        ("EST5EDT", "EST5EDT"),
        ("posix/Europe/Paris", "Europe/Paris"),
        (":right/Europe/Paris", "Europe/Paris"),
    ],
)
def test_the_zone_of_this_host_is_that_of_the_variable_tz(
    told: str, name: str, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    monkeypatch.setenv("TZ", told)
    assert hk.make_trigger("0 4 * * *", "local").timezone == name


@pytest.mark.parametrize(
    ("links", "name"),
    [
        (["/usr/share/zoneinfo/Europe/Berlin"], "Europe/Berlin"),
        (["../usr/share/zoneinfo/Europe/Berlin"], "Europe/Berlin"),
        (["/var/db/timezone/zoneinfo/America/Argentina/Ushuaia"], "America/Argentina/Ushuaia"),
        (["between", "/etc/zoneinfo/right/Asia/Kolkata"], "Asia/Kolkata"),
        (["/usr/share/zoneinfo/Etc/UTC"], "UTC"),
        ([], "UTC"),
    ],
)
def test_else_it_is_that_to_which_localtime_links(links: list[str], name: str, host: Path) -> None:
    for link, target in zip(["localtime", *links], links, strict=False):
        (host / link).symlink_to(target)
    trigger = hk.CronTrigger("0 4 * * *", "local")
    assert trigger.timezone == name
    assert trigger.next_after(START) == hk.CronTrigger("0 4 * * *", name).next_after(START)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("US/Eastern", "America/New_York"),
        ("Europe/Berlin", "Europe/Berlin"),
        ("Asia/Kolkata", "Asia/Kolkata"),
        ("Etc/UTC", "UTC"),
    ],
)
def test_a_copy_of_a_zones_file_is_known_by_what_is_in_it(
    content: str, name: str, host: Path
) -> None:
    folder = next((each for each in TZPATH if (Path(each) / content).exists()), None)
    if folder is None:
        pytest.skip("this machine keeps its zones in a package")
    (host / "localtime").write_bytes((Path(folder) / content).read_bytes())
    assert hk.zone_name("local") == name


@pytest.mark.parametrize("told", ["CET-1CEST,M3.5.0,M10.5.0/3", "Mars/Olympus", None])
def test_a_host_whose_zone_has_no_name_is_told_to_name_one(
    told: str | None, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "localtime").write_bytes(b"TZif2 of nowhere")
    if told:
        monkeypatch.setenv("TZ", told)
    with pytest.raises(hk.ConfigurationError, match="timezone 'local' has no name here"):
        hk.make_trigger("0 4 * * *", "local")


def test_the_zone_of_this_host_is_looked_for_once(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    first = hk.make_trigger("0 4 * * *", "local")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    assert hk.make_trigger("0 4 * * *", "local") is first
    assert hk.make_trigger("0 4 * * *", "Asia/Tokyo") is first
