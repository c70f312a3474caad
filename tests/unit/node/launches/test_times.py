"""When schedules are due: cron in time zones, over both changes of summer time; at; every."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.node.launches.times import Timing
from kodo.p2p.errors import UsageError


def ms(text: str, tz: str = "Europe/Berlin") -> int:
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=ZoneInfo(tz))).timestamp() * 1000)


def told(timing: Timing, start: str, count: int) -> list[str]:
    zone = ZoneInfo(timing.tz)
    return [
        datetime.fromtimestamp(each / 1000, zone).strftime("%m-%d %H:%M%z").removesuffix("00")
        for each in timing.upcoming(ms(start, timing.tz), count)
    ]


@pytest.mark.parametrize(
    ("cron", "tz", "start", "due"),
    [
        ("0 7 * * MON-FRI", "Europe/Berlin", "2026-11-27 07:00", ["11-30 07:00+01", "12-01 07:00+01"]),
        ("0 7 * * mon-fri", "Europe/Berlin", "2026-11-27 06:59", ["11-27 07:00+01", "11-30 07:00+01"]),
        # Summer time begins on 2026-03-29 at 2:00: what is due in the hour that is left out is due at its end.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 03:00+02", "03-30 02:30+02"]),
        ("0 7 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 07:00+02", "03-30 07:00+02"]),
        ("30 * * * *", "Europe/Berlin", "2026-03-29 01:00", ["03-29 01:30+01", "03-29 03:30+02"]),
        # It ends on 2026-10-25 at 3:00: what is due in the hour that comes twice is due once.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 02:30+02", "10-26 02:30+01"]),
        ("0 7 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 07:00+01", "10-26 07:00+01"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-25 01:40", ["10-25 02:30+02", "10-25 02:30+01", "10-25 03:30+01"]),
        ("30 2 * * *", "UTC", "2026-03-28 12:00", ["03-29 02:30+00", "03-30 02:30+00"]),
        ("0 0 L * *", "America/New_York", "2026-02-01 00:00", ["02-28 00:00-05", "03-31 00:00-04"]),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["02-29 00:00+00"]),
    ],
)
def test_cron_is_read_in_its_zone(cron: str, tz: str, start: str, due: list[str]) -> None:
    assert told(Timing(cron, tz).check(), start, len(due)) == due


@pytest.mark.parametrize("tz", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
@given(day=st.integers(0, 3000), hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_what_is_due_daily_is_due_once_a_day(tz: str, day: int, hour: int, minute: int) -> None:
    start = ms("2024-01-01T00:00+00:00") + day * 86_400_000
    times = Timing(f"{minute} {hour} * * *", tz).upcoming(start, 3)
    days = [datetime.fromtimestamp(each / 1000, ZoneInfo(tz)).date().toordinal() for each in times]
    assert times == sorted(times)
    assert days == [days[0], days[0] + 1, days[0] + 2]
    assert times[0] > start


@given(every=st.integers(60, 100_000), since=st.integers(0, 10**12), passed=st.integers(-(10**9), 10**9))
def test_every_counts_from_its_beginning_whatever_was_missed(every: int, since: int, passed: int) -> None:
    due = Timing(every_s=every, since=since).after(since + passed)
    assert due is not None
    assert due > max(since, since + passed)
    assert (due - since) % (every * 1000) == 0
    assert due - max(since, since + passed) <= every * 1000


def test_at_is_due_once_and_not_in_a_century() -> None:
    timing = Timing(at=5000).check()
    assert [timing.after(0), timing.after(4999), timing.after(5000)] == [5000, 5000, None]
    assert Timing(at=ms("2126-01-01 00:00")).after(ms("2026-01-01 00:00")) is None


@pytest.mark.parametrize(
    ("timing", "why"),
    [
        (Timing(), "exactly one"),
        (Timing("* * * * *", at=5), "exactly one"),
        (Timing(at=5, every_s=60), "exactly one"),
        (Timing(every_s=59), "from 60 seconds"),
        (Timing("* * * *"), "five fields"),
        (Timing("* * * * * *"), "five fields"),
        (Timing("@daily"), "five fields"),
        (Timing("61 * * * *"), "Bad minute"),
        (Timing("*/0 * * * *"), "Bad minute"),
        (Timing("0 0 30 2 *"), "Bad day-of-month"),
        (Timing("1," * 70 + "1 * * * *"), "five fields"),
        (Timing("* * * * *", "Europe/Bonn"), "no time zone 'Europe/Bonn'"),
        (Timing("* * * * *", "../../etc/passwd"), "no time zone"),
        (Timing("* * * * *", "/etc/localtime"), "no time zone"),
        (Timing("* * * * *", "Europe"), "no time zone"),
        (Timing("* * * * *", "x" * 65), "no time zone"),
        (Timing("* * * * *", ""), "no time zone"),
    ],
)
def test_what_is_no_timing_is_refused_with_what_is_wrong(timing: Timing, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        timing.check()
