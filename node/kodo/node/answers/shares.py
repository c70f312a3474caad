"""`run.share`, `share.*`: runs shared with others, and links opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kodo.access.provider import Provider
from kodo.access.throttle import Throttle
from kodo.node.answers.caller import Caller, Handlers, bind_link, granted
from kodo.node.answers.invitations import bind_invitation
from kodo.node.answers.visibility import Sight
from kodo.node.catalog.catalog import Catalog
from kodo.node.clock import Clock
from kodo.node.shares.invitations import Invitations
from kodo.node.shares.shares import Shares
from kodo.node.store.invitation_rows import InvitationRow
from kodo.node.store.share_rows import ShareRow, gone
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr, for_others
from kodo.p2p.errors import CallError
from kodo.protocol.access import account_of
from kodo.protocol.args.shares import ShareArgs, ShareListArgs, ShareOpenArgs, SidArgs
from kodo.protocol.link import MAX_HINTS, Link, digest_of_secret, encode_token, write_link
from kodo.protocol.pages import paged

__all__ = ["ShareAnswers", "share_fields"]

_GUESSES = 10
_GUESS_MS = 6000
"""From one address so many wrong secrets at once, and one more every so often."""


class ShareAnswers:
    """Answers what is about shares.

    Args:
        node: `{name, peer_id}` of this node.
        addresses: where this node is reached now.
        registries: URLs of the registries that know it.
    """

    def __init__(
        self,
        node: dict[str, str],
        sight: Sight,
        shares: Shares,
        provider: Provider,
        clock: Clock,
        addresses: Callable[[], Sequence[Multiaddr]],
        registries: Callable[[], Sequence[str]],
        invitations: Invitations,
        catalog: Catalog,
    ):
        self._invitations = invitations
        self._catalog = catalog
        self._node = node
        self._sight = sight
        self._shares = shares
        self._provider = provider
        self._clock = clock
        self._addresses = addresses
        self._registries = registries
        self._guesses = Throttle(burst=_GUESSES, every_ms=_GUESS_MS)

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {
            "run.share": self._share,
            "share.list": self._list,
            "share.revoke": self._revoke,
            "share.open": self._open,
        }

    async def _share(self, caller: Caller, args: ShareArgs) -> dict[str, Any]:
        seen = await self._sight.run(caller, args.fid)
        seen.check_own()
        users, roles = (args.to.users, args.to.roles) if args.to is not None else ([], [])
        if bool(users or roles) == args.link:
            raise _bad("to", "name users and roles, or set link; not both")
        if args.link and args.mode != "r":
            raise _bad("mode", "a link can only have the mode r (reading)")
        level = min(1, seen.level) if args.level is None else args.level
        if level > seen.level:
            raise CallError(
                403, "not-granted", f"you see this run at level {seen.level}; share it at that level or below"
            )
        if args.downloads is not None and level < 1:
            raise _bad("downloads", "outputs, which can be downloaded, need level 1")
        await self._check_known(users, roles)
        share, secret = await self._shares.add(
            seen.row,
            caller.principal.id,
            level=level,
            mode=args.mode,
            expires_s=args.expires_s,
            downloads=args.downloads,
            users=users,
            roles=roles,
            link=args.link,
        )
        told = {"sid": share.sid, "level": level, "mode": share.mode, "expires_at": share.expires}
        return told if secret is None else {**told, **self.link(share.fid, secret)}

    async def _check_known(self, users: Sequence[str], roles: Sequence[str]) -> None:
        """Refuse names that nobody has: whoever got one later would see the run."""
        for name in users:
            if not await self._provider.knows("user", name):
                raise CallError(
                    404,
                    "no-such-user",
                    f"there is no user {name[:80]!r} here; `koco whoami` shows a user's name,"
                    " `koco id` a peer id; write a role as role:NAME",
                )
        for name in roles:
            if not await self._provider.knows("role", name):
                raise CallError(404, "no-such-role", f"there is no role {name[:80]!r} here")

    def link(self, fid: str, secret: bytes, *, invites: bool = False) -> dict[str, str]:
        """Return the token and link to a run, or to an invitation by its sid."""
        peer_id = PeerId.parse(self._node["peer_id"])
        addresses = for_others(self._addresses())
        registries = self._registries()
        hints = tuple(address.with_peer(peer_id) for address in addresses[:MAX_HINTS])
        token = encode_token(_known(peer_id, fid, secret, hints, registries))
        # A page is served where a registry is; without https it could not be trusted to be the one that was meant.
        page = next((url for url in registries if url.startswith("https://")), None)
        return {"token": token, "link": write_link(token, page, invites=invites)}

    async def _list(self, caller: Caller, args: ShareListArgs) -> dict[str, Any]:
        if args.fid is None:
            total, rows = await self._shares.of_principal(caller.principal.id, args.p, args.pp)
            return paged([share_fields(row) for row in rows], total, total, args.p, args.pp)
        seen = await self._sight.run(caller, args.fid)
        if not seen.manages:
            raise CallError(403, "not-yours", "only the launcher of the run can see whom it is shared with")
        rows = await self._shares.of_run(args.fid)
        page = rows[(args.p - 1) * args.pp : args.p * args.pp]
        return paged([share_fields(row) for row in page], len(rows), len(rows), args.p, args.pp)

    async def _revoke(self, caller: Caller, args: SidArgs) -> dict[str, Any]:
        share, principal = await self._shares.get(args.sid), caller.principal
        invitation = await self._invitations.get(args.sid) if share is None else None
        if invitation is not None and (invitation.principal == principal.id or principal.operator):
            await self._invitations.revoke(invitation)
            return {"sid": invitation.sid, "revoked": True}
        if share is None or not (share.principal == principal.id or principal.operator):
            raise CallError(404, "no-such-share", "there is no such share here, or it is not yours")
        await self._shares.revoke(share, principal.id)
        return {"sid": share.sid, "fid": share.fid, "revoked": True}

    async def _open(self, caller: Caller, args: ShareOpenArgs) -> dict[str, Any]:
        session = caller.asked.session
        where = str(session.remote_address[0])
        # Both are looked up in any case: how long an answer takes tells nothing of a secret.
        invitation = await self._invitations.find(args.secret)
        share, dead = await self._shares.open(args.secret, caller.peer)
        if share is None:
            if dead is not None:
                raise gone(dead)
            if invitation is not None:
                return await self._open_invitation(session, invitation)
            # Only wrong ones wait: many people share an address, and 128 random bits are not guessed, however often.
            wait = self._guesses.wait_ms(where, self._clock.now_ms())
            if wait:
                message = f"too many wrong links came from your address; wait {-(-wait // 1000)} s"
                raise CallError(429, "too-many-guesses", message, {"retry_after_ms": wait})
            raise CallError(404, "no-such-link", "there is no such link here")
        bind_link(session, share.fid, digest_of_secret(args.secret))
        terms = {"level": share.level, "mode": share.mode, "expires_at": share.expires}
        return {"fid": share.fid, "sid": share.sid, "node": self._node, **terms}

    async def _open_invitation(self, session: Any, row: InvitationRow) -> dict[str, Any]:
        """Open an invitation; tell what its holder has to know before the first launch."""
        guest = await self._invitations.guest(row)
        bind_invitation(session, row)
        flow = self._catalog.find(path=row.path, granted=granted(guest))
        [grant] = guest.grants
        about = {
            **{"path": flow.path, "name": flow.name, "description": flow.description, "schema": flow.schema},
            **{"inputs": row.inputs, "note": row.note, "see": row.see, "state": self._invitations.state(row)},
            **{"launches": row.launches, "launched": row.launched, "by": account_of(row.principal)},
        }
        terms = {"level": grant.level, "mode": "x", "expires_at": row.expires}
        return {"fid": row.sid, "sid": row.sid, "node": self._node, **terms, "invitation": about}


def share_fields(share: ShareRow) -> dict[str, Any]:
    """Return a share as `share.list` and `run.state` show it."""
    return {
        "sid": share.sid,
        "fid": share.fid,
        "path": share.path,
        "name": share.name,
        "link": share.link,
        "to": {"users": list(share.users), "roles": list(share.roles)},
        "level": share.level,
        "mode": share.mode,
        "downloads": share.downloads,
        "done": share.done,
        "under_way": share.under_way,
        "created": share.created,
        "expires_at": share.expires,
        "state": "suspended" if share.suspended and share.state == "live" else share.state,
    }


def _known(peer_id: PeerId, fid: str, secret: bytes, hints: tuple[Multiaddr, ...], registries: Sequence[str]) -> Link:
    """Make the link with the first registry that a link can name, if there is one."""
    for registry in registries:
        try:
            return Link(peer_id, fid, secret, hints, registry)
        except ValueError:
            continue
    return Link(peer_id, fid, secret, hints)


def _bad(arg: str, what: str) -> CallError:
    return CallError(400, "bad-args", f"run.share: {arg}: {what}", {"arg": arg})
