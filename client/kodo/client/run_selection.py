"""Which runs are meant: the filters of lists and of what is done to many runs at once."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from kodo.client.peer import RemoteNode
from kodo.p2p.errors import CallError, UsageError
from kodo.protocol.bounds import MAX_PAGE
from kodo.protocol.run_state import SHOWN_STATES, RunState, shown_state
from kodo.settings.units import parse_seconds

__all__ = ["FoundRuns", "RunSelection", "latest", "parse_since", "parse_until", "selected_rows"]

STATES = ("pending", *SHOWN_STATES)
"""What `state` may be; `pending` is `queued` or `running`."""


_LIMITS = {"path": 512, "flow": 512, "tag": 128, "search": 200}


@dataclass(frozen=True, slots=True)
class RunSelection:
    """Which runs are meant; all that is given has to hold. Texts are compared without their case.

    Attributes:
        state: `queued`, `running`, `pending` (either of these), `locked`, `done` or `error`.
        path: the flow's path, whole and in its case.
        flow: a pattern for the flow's path or name, e.g. `*report*`.
        tag: a whole tag.
        since: created at or after, ms UTC.
        until: created before, ms UTC.
        search: text in the flow's path or name, or in the fid; for one's own runs also in tags and inputs.
        others: everybody's runs too, as far as this user's roles show them.
        limit: the latest so many; None is all.

    Raises:
        UsageError: one of them cannot be.
    """

    state: str | None = None
    path: str | None = None
    flow: str | None = None
    tag: str | None = None
    since: int | None = None
    until: int | None = None
    search: str | None = None
    others: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in STATES:
            raise UsageError(f"a state is one of {', '.join(STATES)}, not {self.state[:40]!r}")
        for name, most in _LIMITS.items():
            text = getattr(self, name)
            if text is not None and not 1 <= len(text) <= most:
                raise UsageError(f"{name} takes 1 to {most} characters")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise UsageError("no time is at or after `since` and before `until`")
        if self.limit is not None and self.limit < 1:
            raise UsageError("limit is a number from 1 on")

    @property
    def narrow(self) -> bool:
        """Whether anything is given that leaves runs out: what is done to many runs asks for this."""
        wanted = (self.state, self.path, self.flow, self.tag, self.since, self.until, self.search, self.limit)
        return any(each is not None for each in wanted)

    def to_args(self) -> dict[str, Any]:
        """Return the args of `run.list`."""
        args: dict[str, Any] = {"details": True}
        match = {"flow": self.flow, "tag": self.tag, "until": self.until, "search": self.search}
        if given := {name: value for name, value in match.items() if value is not None}:
            args["match"] = given
        return {**args, **self._known_args(self.state)}

    def to_old_args(self) -> dict[str, Any]:
        """Return the args of `run.list` for a node that knows less; `fits` does the rest."""
        state = RunState.PENDING.value if self.state in ("queued", "running") else self.state
        return self._known_args(state)

    def _known_args(self, state: str | None) -> dict[str, Any]:
        given = (("state", state), ("path", self.path), ("since", self.since), ("others", self.others or None))
        return {name: value for name, value in given if value is not None}

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of `run.list` is meant, as far as it shows that: inputs are not in every row."""
        state, created = row.get("state"), row.get("created")
        names = [str(row.get(key, "")).casefold() for key in ("path", "name")]
        listed = row.get("tags")
        tags = [str(each).casefold() for each in listed] if isinstance(listed, (list, tuple)) else []
        pending = self.state == RunState.PENDING and state in ("queued", "running")
        at = created if isinstance(created, int) else 0
        return all(
            (
                self.state is None or state == self.state or pending,
                self.flow is None or any(fnmatchcase(name, self.flow.casefold()) for name in names),
                self.tag is None or self.tag.casefold() in tags,
                self.since is None or at >= self.since,
                self.until is None or at < self.until,
                self.search is None or "inputs" in row or self._is_in([*names, *tags, str(row.get("fid"))]),
            )
        )

    def _is_in(self, texts: list[str]) -> bool:
        return self.search is not None and any(self.search.casefold() in text for text in texts)


@dataclass(slots=True)
class FoundRuns:
    """The runs that were found, and what is missing among them.

    Attributes:
        rows: rows of `run.list` with `node` and `peer_id`, the latest first.
        more: whether there are more than the limit.
        away: the nodes that this user knows and that could not be asked: name → why.
    """

    rows: list[dict[str, Any]]
    more: bool = False
    away: dict[str, str] = field(default_factory=dict)


async def selected_rows(remote: RemoteNode, wanted: RunSelection) -> list[dict[str, Any]]:
    """Return the rows of one node's runs that are meant, the latest first; one more than the limit where there are.

    A node that is older than this client is asked for what it knows.
    """
    try:
        return await _rows(remote, wanted, wanted.to_args())
    except CallError as error:
        # Which arg it stumbles over first is its own affair.
        if error.reason != "bad-args" or str(error.data.get("arg")).split(".")[0] not in (
            "details",
            "match",
            "state",
        ):
            raise
    return await _rows(remote, wanted, wanted.to_old_args())


async def _rows(remote: RemoteNode, wanted: RunSelection, args: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    most = None if wanted.limit is None else wanted.limit + 1
    size = MAX_PAGE if most is None else min(most, MAX_PAGE)
    place = {"node": str(remote), "peer_id": str(remote.peer_id)}
    pages: AsyncGenerator[dict[str, Any], None] = remote.pages("run.list", args, size=size)
    try:
        async for row in pages:
            if row.get("state") == RunState.PENDING:
                row["state"] = shown_state(row["state"], row.get("queue_position"))
            if wanted.fits(row):
                found.append({**row, **place})
                if len(found) == most:
                    break
    finally:
        await pages.aclose()
    return found


def latest(groups: Sequence[Sequence[Mapping[str, Any]]], limit: int | None) -> list[dict[str, Any]]:
    """Return the latest `limit` rows of all groups, the latest first.

    Each group has its share of them: a stranger's node, a group of its own, says of its runs what it likes, and must
    not crowd out all others'.
    """

    def begun(row: Mapping[str, Any]) -> str:
        return str(row.get("fid"))

    ordered = [sorted(group, key=begun, reverse=True) for group in groups]
    if limit is None:
        limit = sum(map(len, ordered))
    share = limit // max(len(ordered), 1)
    taken = [row for group in ordered for row in group[:share]]
    rest = sorted((row for group in ordered for row in group[share:]), key=begun, reverse=True)
    return [dict(row) for row in sorted([*taken, *rest[: limit - len(taken)]], key=begun, reverse=True)]


def parse_since(text: str, now: datetime.datetime) -> int:
    """Read `2d`, `2026-11-24` or `2026-11-24T18:00`, in local time; return the time meant, in ms UTC.

    Args:
        now: with its time zone.

    Raises:
        UsageError: it is neither a duration nor a date.
    """
    return _parse(text, now)[0]


def parse_until(text: str, now: datetime.datetime) -> int:
    """Read as `parse_since` does; a date alone is meant with that whole day."""
    at, day = _parse(text, now)
    return at if day is None else _ms(datetime.datetime.combine(day + datetime.timedelta(1), datetime.time()))


def _parse(text: str, now: datetime.datetime) -> tuple[int, datetime.date | None]:
    seconds = parse_seconds(text) if text[-1:].isalpha() else text
    try:
        if isinstance(seconds, float):
            return max(_ms(now) - int(seconds * 1000), 0), None
        if len(text) == len("2026-11-24"):
            day = datetime.date.fromisoformat(text)
            return _ms(datetime.datetime.combine(day, datetime.time())), day
        return _ms(datetime.datetime.fromisoformat(text)), None
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{text[:40]!r} is neither a duration, such as 2d or 12h, nor a date: 2026-11-24") from None


def _ms(moment: datetime.datetime) -> int:
    """Return a moment in ms UTC; without a time zone it is in the local one."""
    return max(int(moment.timestamp() * 1000), 0)
