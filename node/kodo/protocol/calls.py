"""The ops of `/kodo/call/1`, and what each takes; an arg that its model does not name is refused.

Answers are plain maps, described in docs/reference/ops.md; readers ignore keys that they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from kodo.p2p.errors import CallError
from kodo.protocol.args.auth import (
    AssignArgs,
    EnrolArgs,
    GrantArgs,
    GrantListArgs,
    LoginArgs,
    PasswordArgs,
    RoleArgs,
    UserAddArgs,
    UserArgs,
    UserEnrolArgs,
    UserLogoutArgs,
    UserPasswordArgs,
)
from kodo.protocol.args.base import Args, NoArgs, PageArgs
from kodo.protocol.args.files import InputWriteArgs, ManifestArgs, OutputListArgs, ReadArgs
from kodo.protocol.args.flows import FlowListArgs, FlowSchemaArgs
from kodo.protocol.args.memories import MemoryListArgs, MemoryPutArgs
from kodo.protocol.args.node import CleanupArgs, ScaleArgs, ShutdownArgs
from kodo.protocol.args.runs import (
    FidArgs,
    LaunchArgs,
    LockAnswerArgs,
    LockGetArgs,
    LockListArgs,
    RestartArgs,
    RunListArgs,
    StreamArgs,
)
from kodo.protocol.args.schedules import ScheduleAddArgs, ScheduleListArgs, SchedulePauseArgs
from kodo.protocol.args.shares import InviteArgs, ShareArgs, ShareListArgs, ShareOpenArgs, SidArgs

__all__ = ["OPS", "parse_args"]

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
