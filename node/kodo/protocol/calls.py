"""The ops of `/kodo/call/1`: what each takes. One model an op; an arg that is not named here is refused.

Answers are plain maps, described in docs/reference/ops.md; readers ignore keys that they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kodo.p2p.errors import CallError
from kodo.protocol.bounds import MAX_PAGE, MAX_SHARE_SECONDS
from kodo.protocol.enrol import PROOF_BYTES
from kodo.protocol.ids import ID_PATTERN
from kodo.protocol.link import SECRET_BYTES
from kodo.protocol.uploads import UPLOAD_PATTERN

__all__ = [
    "MAX_CHAIN",
    "MAX_PAGE",
    "OPS",
    "Args",
    "AssignArgs",
    "ChainLink",
    "CleanupArgs",
    "EnrolArgs",
    "FidArgs",
    "FlowListArgs",
    "FlowSchemaArgs",
    "GrantArgs",
    "GrantListArgs",
    "InputWriteArgs",
    "InviteArgs",
    "LaunchArgs",
    "LockAnswerArgs",
    "LockGetArgs",
    "LockListArgs",
    "LoginArgs",
    "ManifestArgs",
    "MemoryListArgs",
    "MemoryPutArgs",
    "NoArgs",
    "OutputListArgs",
    "PageArgs",
    "PasswordArgs",
    "ReadArgs",
    "RestartArgs",
    "RoleArgs",
    "RunListArgs",
    "RunMatch",
    "ScaleArgs",
    "ScheduleAddArgs",
    "ScheduleListArgs",
    "SchedulePauseArgs",
    "ShareArgs",
    "ShareListArgs",
    "ShareOpenArgs",
    "ShareTo",
    "ShutdownArgs",
    "SidArgs",
    "StreamArgs",
    "UserAddArgs",
    "UserArgs",
    "UserEnrolArgs",
    "UserLogoutArgs",
    "UserPasswordArgs",
    "parse_args",
]

MAX_CHAIN = 8
"""How deep runs may launch runs on other nodes."""

Fid = Annotated[str, Field(pattern=ID_PATTERN, description="26 characters of Crockford base32")]
Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="as large as the database takes")]
Name = Annotated[str, Field(min_length=1, max_length=512)]

Tags = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=64)]

UserName = Annotated[str, Field(min_length=1, max_length=64)]
RoleText = Annotated[str, Field(min_length=1, max_length=512)]
Secret = Annotated[str, Field(min_length=1, max_length=1024)]


class Args(BaseModel):
    """The root of all argument models: strict types, no unknown names."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoArgs(Args):
    """An op that takes nothing."""


class PageArgs(Args):
    """`p` counts from 1; `pp` rows a page."""

    p: int = Field(1, ge=1, le=1_000_000)
    pp: int = Field(100, ge=1, le=MAX_PAGE)


class LoginArgs(Args):
    """`auth.login`: a bearer token, as `auth.password`, `auth.enrol` or an issuer gave it."""

    # Larger ones are refused by the provider, before anything is parsed.
    token: str = Field(min_length=1, max_length=1 << 20)


class PasswordArgs(Args):
    """`auth.password`."""

    name: UserName
    password: Secret


class EnrolArgs(Args):
    """`auth.enrol`: the proof that `kodo.protocol.enrol` makes of a code."""

    proof: bytes = Field(min_length=PROOF_BYTES, max_length=PROOF_BYTES)


class UserArgs(Args):
    """An op on one user."""

    name: UserName


class UserAddArgs(UserArgs):
    """`user.add`: without a password the user logs in by enrolled devices only.

    `again`: the name may be that of a user who is gone, and this one gets the runs and shares that are left of that.
    """

    roles: list[RoleText] = Field(default_factory=lambda: ["user"], max_length=64)
    password: Secret | None = None
    again: bool = False


class UserPasswordArgs(UserArgs):
    """`user.password`: None takes it away; with `old` a user changes its own."""

    password: Secret | None = None
    old: Secret | None = None


class UserEnrolArgs(UserArgs):
    """`user.enrol`: makes a code for the device with this peer id."""

    peer_id: Name


class UserLogoutArgs(UserArgs):
    """`user.logout`: ends the logins of all the user's devices, or of one."""

    peer_id: Name | None = None


class RoleArgs(Args):
    """An op on one role."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class AssignArgs(Args):
    """`role.assign`, `role.unassign`: a role, or `developer:GLOB`, of a user."""

    user: UserName
    role: RoleText


class GrantListArgs(PageArgs):
    """`grant.list`: those of a user or of a role; of all without either."""

    user: UserName | None = None
    role: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class GrantArgs(Args):
    """`grant.add`, `grant.remove`: a grant of either a user or a role."""

    user: UserName | None = None
    role: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    grant: Name


class FlowListArgs(PageArgs):
    """`flow.list`: `search` is a glob; `by` is `field asc|desc`, comma separated."""

    search: str | None = Field(None, max_length=512)
    query: str | None = Field(None, max_length=4096)
    by: str | None = Field(None, max_length=512)


class FlowSchemaArgs(Args):
    """`flow.schema`."""

    path: Name


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


class ShareTo(Args):
    """For whom a share is: user ids (a peer id, where nobody logs in) and roles."""

    users: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default_factory=list, max_length=64)
    roles: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default_factory=list, max_length=64)


class ShareArgs(FidArgs):
    """`run.share`: `to` named users and roles, or by `link` to whoever holds it, which is for reading only.

    `level` is 1 by default, or the caller's own where that is lower. `downloads` bounds complete downloads.
    """

    to: ShareTo | None = None
    link: bool = False
    level: int | None = Field(None, ge=0, le=2)
    mode: Annotated[str, Field(pattern=r"^[rx]$")] = "r"
    expires_s: float = Field(7 * 86400.0, ge=1, le=MAX_SHARE_SECONDS)
    downloads: int | None = Field(None, ge=1, le=1_000_000)


class ShareListArgs(PageArgs):
    """`share.list`: the shares of one run, or without `fid` of all runs of the caller's."""

    fid: Fid | None = None


class SidArgs(Args):
    """An op on one share."""

    sid: Fid


class ShareOpenArgs(Args):
    """`share.open`: what a link's token holds."""

    secret: Annotated[bytes, Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]


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


class InviteArgs(Args):
    """`invitation.add`: to a flow by `path` or by `name`, whose form begins with `inputs`.

    `level`: what its holder sees of its runs; `see`: whether the caller sees them, which the holder is told.
    """

    path: Name | None = None
    name: Name | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    note: str = Field("", max_length=500)
    level: int | None = Field(None, ge=0, le=2)
    launches: int = Field(5, ge=1, le=10_000)
    see: bool = False
    expires_s: float = Field(7 * 86400.0, ge=1, le=MAX_SHARE_SECONDS)


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


class ShutdownArgs(Args):
    """`node.shutdown`: seconds that runs are waited for before the node ends."""

    drain_s: float = Field(0.0, ge=0, le=7 * 86400)


class CleanupArgs(Args):
    """`cleanup.list`, `cleanup.run`: `what` narrows the kinds."""

    what: list[Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]] | None = Field(None, max_length=20)


class OutputListArgs(FidArgs):
    """`output.list`: a page of what a run made, by name."""

    p: int = Field(1, ge=1, le=1_000_000)
    pp: int = Field(MAX_PAGE, ge=1, le=MAX_PAGE)


class ManifestArgs(FidArgs):
    """`output.manifest`: the hashes of `count` chunks beginning with chunk `from`."""

    name: Name
    from_: int = Field(0, ge=0, alias="from")
    count: int = Field(1024, ge=1, le=16384)


class ReadArgs(FidArgs):
    """`output.read`: `length` bytes beginning at byte `offset`; all that follows when `length` is not given."""

    name: Name
    offset: int = Field(0, ge=0)
    length: int | None = Field(None, ge=0)


class InputWriteArgs(Args):
    """`input.write`: bytes of a file follow, those from `offset` on; without `upload` a new one, or the one begun."""

    upload: str | None = Field(None, pattern=UPLOAD_PATTERN)
    offset: int | None = Field(None, ge=0)
    name: Annotated[
        str, Field(min_length=1, max_length=512, description="of a file of a folder with that: `photos/2024/a.jpg`")
    ]
    size: int = Field(ge=0, le=1 << 53)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the whole, hex")
    chunks: list[Annotated[bytes, Field(min_length=32, max_length=32)]] | None = Field(None, max_length=16384)
    invitation: Fid | None = None


class ScaleArgs(Args):
    """`node.scale`: how many warm runners to keep."""

    runners: int = Field(ge=0, le=256)


class MemoryListArgs(PageArgs):
    """`memory.list`: what the memory of a flow (`long`, by its path) or a `shared` one (by its name) holds.

    Without `of` the memories themselves are listed.
    """

    scope: Literal["long", "shared"] | None = None
    of: Name | None = None
    prefix: str = Field("", max_length=512)


class MemoryPutArgs(Args):
    """`memory.put`: sets the `value` of `key`; with `size` and `sha256` (hex) stores a file, whose bytes follow.

    With `remove` what has this key goes, a value and a file.
    """

    scope: Literal["long", "shared"]
    of: Name
    key: Name
    value: Any = None
    size: int | None = Field(None, ge=0, le=1 << 50)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    remove: bool = False


OPS: Mapping[str, type[Args]] = {
    "node.state": NoArgs,
    "node.shutdown": ShutdownArgs,
    "node.scale": ScaleArgs,
    "node.audit": PageArgs,
    "cleanup.list": CleanupArgs,
    "cleanup.run": CleanupArgs,
    "auth.info": NoArgs,
    "auth.login": LoginArgs,
    "auth.password": PasswordArgs,
    "auth.enrol": EnrolArgs,
    "auth.logout": NoArgs,
    "auth.whoami": NoArgs,
    "user.list": PageArgs,
    "user.add": UserAddArgs,
    "user.remove": UserArgs,
    "user.password": UserPasswordArgs,
    "user.enrol": UserEnrolArgs,
    "user.logout": UserLogoutArgs,
    "role.list": PageArgs,
    "role.add": RoleArgs,
    "role.remove": RoleArgs,
    "role.assign": AssignArgs,
    "role.unassign": AssignArgs,
    "grant.list": GrantListArgs,
    "grant.add": GrantArgs,
    "grant.remove": GrantArgs,
    "flow.list": FlowListArgs,
    "flow.schema": FlowSchemaArgs,
    "run.launch": LaunchArgs,
    "run.list": RunListArgs,
    "run.state": FidArgs,
    "run.stream": StreamArgs,
    "run.kill": FidArgs,
    "run.restart": RestartArgs,
    "run.ack": FidArgs,
    "run.delete": FidArgs,
    "run.share": ShareArgs,
    "share.list": ShareListArgs,
    "share.revoke": SidArgs,
    "share.open": ShareOpenArgs,
    "invitation.add": InviteArgs,
    "invitation.list": PageArgs,
    "schedule.add": ScheduleAddArgs,
    "schedule.list": ScheduleListArgs,
    "schedule.pause": SchedulePauseArgs,
    "schedule.remove": SidArgs,
    "lock.list": LockListArgs,
    "lock.get": LockGetArgs,
    "lock.answer": LockAnswerArgs,
    "output.list": OutputListArgs,
    "output.manifest": ManifestArgs,
    "output.read": ReadArgs,
    "input.write": InputWriteArgs,
    "memory.list": MemoryListArgs,
    "memory.put": MemoryPutArgs,
}
"""Every op that this release answers, by name."""


def parse_args(op: str, args: Mapping[str, Any]) -> Args:
    """Check the args of a call.

    Raises:
        CallError: 404 `no-such-op`, or 400 `bad-args` that names the first bad arg.
    """
    model = OPS.get(op)
    if model is None:
        raise CallError(404, "no-such-op", f"there is no op {op[:64]!r} here")
    try:
        return model.model_validate(dict(args))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        arg = ".".join(str(part) for part in first["loc"]) or "args"
        raise CallError(400, "bad-args", f"{op}: {arg[:128]}: {first['msg']}", {"arg": arg[:128]}) from None
