"""Arguments of the ops on schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from kodo.protocol.args.base import Args, Count, Name, PageArgs, Tags
from kodo.protocol.args.shares import SidArgs

__all__ = ["ScheduleAddArgs", "ScheduleListArgs", "SchedulePauseArgs"]


class ScheduleAddArgs(Args):
    """`schedule.add`: a flow by `path` or by `name`, launched at times: `cron` in the zone `tz`, `at` or `every_s`.

    `at` is ms UTC. `missed`: what becomes of times at which the node was down; `overlap`: of one at which an earlier
    run of the schedule is not over.
    """

    path: Name | None = None
    name: Name | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    tags: Tags = Field(default_factory=list)
    cron: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tz: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    at: Count | None = None
    every_s: Annotated[int, Field(ge=60, le=366 * 86_400)] | None = None
    missed: Literal["once", "skip"] = "once"
    overlap: Literal["skip", "queue", "allow"] = "skip"


class ScheduleListArgs(PageArgs):
    """`schedule.list`: one's own; for an operator with `others` everybody's."""

    others: bool = False


class SchedulePauseArgs(SidArgs):
    """`schedule.pause`: or let it go on, with the next time from now."""

    paused: bool = True
