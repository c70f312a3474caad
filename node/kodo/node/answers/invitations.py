"""`invitation.*`: links by which whoever holds one launches a flow; and whom calls come from that are made by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from kodo.node.answers.caller import Asked, Caller, Handlers, granted
from kodo.node.catalog.catalog import Catalog
from kodo.node.launches.launcher import Launcher
from kodo.node.shares.invitations import Invitations
from kodo.node.store.invitation_rows import InvitationRow
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal
from kodo.protocol.args.base import PageArgs
from kodo.protocol.args.shares import InviteArgs
from kodo.protocol.pages import paged
from kodo.protocol.uploads import find_uploads

__all__ = ["InvitationAnswers", "bind_invitation", "guest_of", "invitation_fields"]

MAX_INPUT_BYTES = 64 << 10
"""Bound of what a form begins with, packed."""

_INVITATIONS = "invitations"
_MAX_BOUND = 64

_BY_INVITATION = frozenset(
    [
        *("run.launch", "run.list", "run.state", "run.stream", "run.kill", "lock.list", "lock.get", "lock.answer"),
        *("output.list", "output.manifest", "output.read", "input.write"),
    ]
)
"""What the holder of an invitation may ask, about its runs alone."""


class InvitationAnswers:
    """Answers what is about invitations.

    Args:
        link: writes the link and its token, given a sid and a secret.
    """

    def __init__(
        self,
        invitations: Invitations,
        launcher: Launcher,
        catalog: Catalog,
        link: Callable[[str, bytes], dict[str, str]],
    ):
        self._invitations = invitations
        self._launcher = launcher
        self._catalog = catalog
        self._link = link

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {"invitation.add": self._add, "invitation.list": self._list}

    async def _add(self, caller: Caller, args: InviteArgs) -> dict[str, Any]:
        if (args.path is None) == (args.name is None):
            raise _bad("path", "pass either a path or a name")
        principal = caller.principal
        flow = self._catalog.find(path=args.path, name=args.name, granted=granted(principal))
        _, secrets, _ = await self._launcher.check(principal, caller.payer, flow, args.inputs)
        if secrets or any(find_uploads(args.inputs)):
            raise CallError(
                400, "secret-inputs", "an invitation keeps neither secrets nor files; leave such inputs out", {}
            )
        if len(msgpack.packb(args.inputs)) > MAX_INPUT_BYTES:
            raise CallError(413, "too-large", f"an invitation keeps at most {MAX_INPUT_BYTES} bytes of inputs")
        grant = principal.flow_grant(flow.path, "x")
        own = 0 if grant is None else grant.level
        level = min(1, own) if args.level is None else args.level
        if level > own:
            raise CallError(403, "not-granted", f"you see {flow.path} at level {own}; invite at that level or below")
        row = InvitationRow(
            sid="",
            principal=principal.id,
            payer=caller.payer,
            digest=b"",
            path=flow.path,
            name=flow.name,
            inputs=args.inputs,
            note=args.note,
            level=level,
            launches=args.launches,
            see=args.see,
            created=0,
            expires=0,
        )
        made, secret = await self._invitations.add(row, args.expires_s)
        return {**invitation_fields(made, self._invitations.state(made)), **self._link(made.sid, secret)}

    async def _list(self, caller: Caller, args: PageArgs) -> dict[str, Any]:
        total, rows = await self._invitations.page(caller.principal.id, args.p, args.pp)
        shown = [invitation_fields(row, self._invitations.state(row)) for row in rows]
        return paged(shown, total, total, args.p, args.pp)


def invitation_fields(row: InvitationRow, state: str) -> dict[str, Any]:
    """Return an invitation as who made it is shown it."""
    return {
        "sid": row.sid,
        "path": row.path,
        "name": row.name,
        "inputs": row.inputs,
        "note": row.note,
        "level": row.level,
        "launches": row.launches,
        "launched": row.launched,
        "see": row.see,
        "created": row.created,
        "expires_at": row.expires,
        "state": state,
    }


def bind_invitation(session: Any, row: InvitationRow) -> None:
    """Remember that a session has opened an invitation; gone with the session.

    Raises:
        CallError: 429 `too-many-links`.
    """
    opened: dict[str, bytes] = session.bindings.setdefault(_INVITATIONS, {})
    if row.sid not in opened and len(opened) >= _MAX_BOUND:
        raise CallError(429, "too-many-links", f"this session has opened {_MAX_BOUND} links; open a new session")
    opened[row.sid] = row.digest


async def guest_of(invitations: Invitations, asked: Asked, sid: str) -> Principal:
    """Return whom a call comes from that is made by the invitation `sid`, which its session has opened.

    Raises:
        CallError: 403 `not-granted`: the op is none for guests; 404 `no-such-link`: it was not opened; as
            `Invitations.guest`.
    """
    digest = asked.session.bindings.get(_INVITATIONS, {}).get(sid)
    if digest is None:
        raise CallError(404, "no-such-link", "this session has not opened such an invitation")
    if asked.op not in _BY_INVITATION:
        raise CallError(403, "not-granted", f"{asked.op} cannot be done by an invitation")
    row = await invitations.get(sid)
    return await invitations.guest(row if row is not None and row.digest == digest else None)


def _bad(arg: str, what: str) -> CallError:
    return CallError(400, "bad-args", f"invitation.add: {arg}: {what}", {"arg": arg})
