"""Arguments of the ops on runs and their locks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from kodo.protocol.args.base import Args, Count, Fid, Name, PageArgs, Tags

__all__ = [
    "MAX_CHAIN",
    "ChainLink",
    "FidArgs",
    "LaunchArgs",
    "LockAnswerArgs",
    "LockGetArgs",
    "LockListArgs",
    "RestartArgs",
    "RunListArgs",
    "RunMatch",
    "StreamArgs",
]


MAX_CHAIN = 8
"""How deep runs may launch runs on other nodes."""


class ChainLink(Args):
    """A run on whose behalf another is launched: the node that it is on, and its fid."""

    peer_id: Annotated[str, Field(min_length=1, max_length=128)]
    fid: Fid


class LaunchArgs(Args):
    """`run.launch`: a flow by `path` or by `name`; `key` makes the launch idempotent for 24 h.

    `chain`: the runs on whose behalf a node launches this one, the node's own last: the run belongs to node and fid.
    Required inputs that are missing are demanded by a lock that the run begins with; with `strict` they are refused.
    """

    path: Name | None = None
    name: Name | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    key: str | None = Field(None, min_length=1, max_length=256)
    tags: Tags = Field(default_factory=list)
    strict: bool = False
    chain: list[ChainLink] = Field(default_factory=list, max_length=MAX_CHAIN)
    invitation: Fid | None = None


class RunMatch(Args):
    """What runs have to match, all of it: text that differs in case only matches too.

    `flow`: a pattern as shells have them, for the flow's path or name. `until`: made before, ms UTC. `tag`: a whole
    tag. `search`: text in the flow's path or name, or in the fid; for the caller's own runs also in tags and inputs.
    """

    flow: Name | None = None
    tag: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    until: Count | None = None
    search: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class RunListArgs(PageArgs):
    """`run.list`: `since` is ms UTC; with `others` everybody's runs too, as far as the caller's roles show them.

    `behalf`: the fid of the caller's own run; those are listed that were launched on its behalf. `details`: rows have
    the first `inputs` too, and `queued` or `running` for `state` where it would be `pending`. A node that is older
    refuses `details`, `match`, and `queued` and `running`, as `bad-args`.
    """

    state: str | None = Field(None, pattern=r"^(pending|queued|running|locked|done|error)$")
    invitation: Fid | None = None
    details: bool = False
    match: RunMatch | None = None
    path: Name | None = None
    since: Count | None = None
    others: bool = False
    behalf: Fid | None = None


class FidArgs(Args):
    """An op on one run. `behalf`: the fid of the caller's own run on whose behalf it launched this one.

    `invitation`: the sid of the one by which it is asked; the session has opened that.
    """

    fid: Fid
    behalf: Fid | None = None
    invitation: Fid | None = None


class RestartArgs(FidArgs):
    """`run.restart`: `inputs` replace those of the run that have the same names.

    `key` makes it idempotent for 24 h; `tags`: instead of the run's; `strict`: nothing is asked for.
    """

    inputs: dict[str, Any] = Field(default_factory=dict)
    key: str | None = Field(None, min_length=1, max_length=256)
    tags: Tags | None = None
    strict: bool = False


class StreamArgs(FidArgs):
    """`run.stream`: events with `seq` > `after`; with `follow` until the run is over.

    `ahead`: about how many bytes of events may be sent before the caller says that it has read them. It does so by
    pieces of 8 bytes behind its args: the `seq` up to which it has, big endian. A caller that ends its way is sent
    the rest at once.
    """

    after: Count = 0
    follow: bool = True
    ahead: int | None = Field(None, ge=1 << 16, le=1 << 30)


class LockListArgs(PageArgs):
    """`lock.list`: those that the caller may answer; with `invitation` those of its runs."""

    invitation: Fid | None = None


class LockGetArgs(FidArgs):
    """`lock.get`."""

    lid: Fid


class LockAnswerArgs(LockGetArgs):
    """`lock.answer`: `candidate` is what the lock's schema demands."""

    candidate: Any = None
    key: str | None = Field(None, min_length=1, max_length=256)
