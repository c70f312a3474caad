"""When a schedule is due. Pure: the time goes in. The only import of cronsim."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from kodo.p2p.errors import UsageError

__all__ = ["MIN_EVERY_S", "Timing"]

MIN_EVERY_S = 60
MAX_EVERY_S = 366 * 86_400
MAX_AHEAD_MS = 10 * 366 * 86_400_000
"""How far ahead a schedule may be due: ten years."""

MAX_CRON_CHARACTERS = 128
MAX_ZONE_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Timing:
    """What a schedule says of its times: exactly one of `cron`, `at` and `every_s`.

    Attributes:
        cron: five fields, as cron(5) has them: minute, hour, day of month, month, day of week.
        tz: the IANA name of the zone in which `cron` is read.
        at: ms UTC: once.
        every_s: whole seconds, counted from `since`.
        since: ms UTC.
    """

    cron: str | None = None
    tz: str = "UTC"
    at: int | None = None
    every_s: int | None = None
    since: int = 0

    def check(self) -> Timing:
        """Return the timing back when it is one.

        Raises:
            UsageError: saying what is wrong.
        """
        if sum(each is not None for each in (self.cron, self.at, self.every_s)) != 1:
            raise UsageError("pass exactly one of cron, at and every_s")
        _zone(self.tz)
        if self.cron is not None:
            _cron(self.cron, datetime.fromtimestamp(0, UTC))
        if self.every_s is not None and not MIN_EVERY_S <= self.every_s <= MAX_EVERY_S:
            raise UsageError(f"every_s: from {MIN_EVERY_S} seconds to 366 days, not {self.every_s}")
        return self

    def after(self, now: int) -> int | None:
        """Return the first time after `now` (both ms UTC), or None when there is none within ten years.

        What is due at a time of day is so at the end of an hour that summer time leaves out, and once in an hour that
        comes twice. What is due at every hour or minute is so by the time that passes.
        """
        if self.at is not None:
            return self.at if now < self.at <= now + MAX_AHEAD_MS else None
        if self.every_s is not None:
            step = self.every_s * 1000
            return self.since + (max(now - self.since, 0) // step + 1) * step
        assert self.cron is not None
        try:
            found = next(_cron(self.cron, datetime.fromtimestamp(now / 1000, _zone(self.tz))))
        except StopIteration:
            return None
        due = int(found.timestamp()) * 1000
        return due if due <= now + MAX_AHEAD_MS else None

    def upcoming(self, now: int, count: int) -> list[int]:
        """Return the next times after `now`, `count` at most."""
        times: list[int] = []
        for _ in itertools.repeat(None, count):
            due = self.after(times[-1] if times else now)
            if due is None:
                break
            times.append(due)
        return times


def _cron(text: str, start: datetime) -> CronSim:
    if len(text) > MAX_CRON_CHARACTERS or len(text.split()) != 5:
        raise UsageError(
            "cron: pass five fields, minute, hour, day of month, month and day of week, such as '0 7 * * MON-FRI'"
        )
    try:
        return CronSim(text, start)
    except CronSimError as error:
        raise UsageError(f"cron: {error} in {text[:80]!r}") from None


def _zone(name: str) -> ZoneInfo:
    try:
        if len(name) > MAX_ZONE_CHARACTERS:
            raise ValueError(name)
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise UsageError(f"tz: there is no time zone {name[:80]!r}; use a name such as Europe/Berlin") from None
