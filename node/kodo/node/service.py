"""Calls: decoded, their caller identified, given to the part that answers them (`kodo.node.answers`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from kodo.access.audit import AuditedTables
from kodo.access.provider import Provider
from kodo.node.answers.audit import AuditAnswers
from kodo.node.answers.auth import AuthAnswers, bound_token, check_still, unbind
from kodo.node.answers.caller import (
    OPEN_OPS,
    Asked,
    Caller,
    Handlers,
    account_paying,
    by_link,
    check_admitted,
    links_of,
    payer_of,
)
from kodo.node.answers.flows import FlowAnswers
from kodo.node.answers.invitations import InvitationAnswers, guest_of
from kodo.node.answers.locks import LockAnswers
from kodo.node.answers.memories import MemoryAnswers
from kodo.node.answers.node import NodeAnswers, NodeFacts
from kodo.node.answers.outputs import OutputAnswers
from kodo.node.answers.runs import RunAnswers
from kodo.node.answers.schedules import ScheduleAnswers
from kodo.node.answers.shares import ShareAnswers
from kodo.node.answers.visibility import Sight
from kodo.node.catalog.catalog import Catalog
from kodo.node.catalog.load import Load
from kodo.node.clock import Clock
from kodo.node.files.outputs import Outputs
from kodo.node.files.uploads import Uploads
from kodo.node.housekeeping.deletion import Manager
from kodo.node.launches.launcher import Launcher
from kodo.node.launches.schedules import Schedules
from kodo.node.requests.memories import Memories
from kodo.node.runs.locks import Locks
from kodo.node.runs.runs import Runs
from kodo.node.shares.invitations import Invitations
from kodo.node.shares.share_limits import Makers
from kodo.node.shares.shares import Shares
from kodo.node.store.follow import Feed
from kodo.node.store.queries import has_traces
from kodo.node.store.store import Store
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError
from kodo.p2p.net.turns import join_account
from kodo.protocol.access import Principal
from kodo.protocol.args.base import Args
from kodo.protocol.calls import OPS, parse_args

__all__ = ["Service"]


_LONG = frozenset(["run.stream", "output.read", "input.write"])
"""Calls that go on for as long as there is something to send."""


class _Answers(Protocol):
    def handlers(self) -> Handlers:
        """Return the handlers of some ops."""
        ...


class Service:
    """Answers the calls of `OPS`; the handler of a `CallServer`.

    Args:
        contents_for: see `Sight`.
        look_s: how often the caller of a call that takes long is looked at again, in seconds.
    """

    def __init__(
        self,
        facts: NodeFacts,
        provider: Provider,
        catalog: Catalog,
        store: Store,
        feed: Feed,
        runs: Runs,
        locks: Locks,
        outputs: Outputs,
        uploads: Uploads,
        clock: Clock,
        load: Callable[[], Load],
        manager: Manager,
        shares: Shares,
        addresses: Callable[[], Sequence[Multiaddr]],
        memories: Memories,
        launcher: Launcher,
        schedules: Schedules,
        invitations: Invitations,
        tables: AuditedTables,
        contents_for: Iterable[str] = (),
        look_s: float = 30.0,
    ):
        self._provider = provider
        self._name = facts.name
        self._clock = clock
        self._look_s = look_s
        self._told: Callable[[str, str, float], None] | None = None
        shares.bounded_by(Makers(provider, facts.name))
        sight = Sight(store, shares, contents_for)
        node = {"name": facts.name, "peer_id": facts.peer_id}
        audit = AuditAnswers(tables, clock)
        self._invitations = invitations
        sharing = ShareAnswers(
            node,
            sight,
            shares,
            provider,
            clock,
            addresses,
            lambda: [str(each["url"]) for each in facts.registries()],
            invitations,
            catalog,
        )
        groups: Sequence[_Answers] = (
            audit,
            NodeAnswers(facts, runs, manager, clock, load),
            AuthAnswers(provider, lambda name: store.ask(lambda connection: has_traces(connection, name))),
            FlowAnswers(catalog, node, sight.contents_for),
            RunAnswers(
                node, sight, catalog, store, feed, runs, uploads, launcher, invitations, manager, shares, clock, audit
            ),
            ScheduleAnswers(schedules, launcher, catalog, audit),
            LockAnswers(sight, locks, shares),
            MemoryAnswers(memories, catalog),
            OutputAnswers(sight, store, outputs, uploads, catalog, runs, shares),
            sharing,
            InvitationAnswers(invitations, launcher, catalog, partial(sharing.link, invites=True)),
        )
        self._handlers = audit.audited({op: made for group in groups for op, made in group.handlers().items()})
        assert self._handlers.keys() == OPS.keys()

    def watch(self, told: Callable[[str, str, float], None]) -> None:
        """Call `told` with each call that was answered: its op, `ok`, `refused`, `left` or `failed`, and seconds."""
        self._told = told

    async def __call__(self, asked: Asked) -> Any:
        """Answer one call.

        Raises:
            CallError: the refusal that the caller gets.
        """
        if self._told is None:
            return await self._answer(asked)
        begun, outcome = self._clock.steady_ms(), "failed"
        try:
            answer = await self._answer(asked)
            outcome = "ok"
            return answer
        except CallError:
            outcome = "refused"
            raise
        except asyncio.CancelledError:
            outcome = "left"  # whoever called has gone
            raise
        finally:
            self._told(asked.op, outcome, (self._clock.steady_ms() - begun) / 1000)

    async def _answer(self, asked: Asked) -> Any:
        args = parse_args(asked.op, asked.args)
        principal = await self._identify(asked)
        invitation, behalf = getattr(args, "invitation", None), getattr(args, "behalf", None)
        if invitation is not None:
            if behalf is not None:
                raise CallError(
                    400, "bad-args", f"{asked.op}: invitation: it does not go with behalf", {"arg": "invitation"}
                )
            return await self._answer_guest(asked, args, invitation)
        as_whom = principal if behalf is None else principal.on_behalf(behalf)
        caller = Caller(self._admitted(asked, args, as_whom), asked, payer_of(principal, asked.session))
        self._take_turns(asked.session, principal)
        answering = self._handlers[asked.op](caller, args)
        if asked.op not in _LONG:
            return await answering
        return await _while(answering, self._look(asked, principal))

    async def _answer_guest(self, asked: Asked, args: Args, sid: str) -> Any:
        """Answer a call that is made by an invitation; what takes long ends with that."""
        guest = await guest_of(self._invitations, asked, sid)
        # Nobody's account: whoever holds the link pays as others at that address do.
        answering = self._handlers[asked.op](Caller(guest, asked, payer_of(guest, asked.session)), args)
        if asked.op not in _LONG:
            return await answering

        async def watch() -> None:
            try:
                await self._invitations.watch(sid)
            except CallError:
                # What was sent, and waits for a slow reader, is not to arrive either.
                asked.abort()
                raise

        return await _while(answering, watch())

    async def admit(self, session: Any) -> None:
        """Find out whether the peer of a session has any business here, and note it in `session.admitted`.

        Raises:
            CallError: it has none; 401 it may log in, 403 it has logged in.
        """
        peer = str(session.remote_peer)
        principal = await self._provider.identify(peer, bound_token(session))
        check_admitted("", principal, self._name)
        session.admitted = True
        self._take_turns(session, principal)

    def _admitted(self, asked: Asked, args: Args, principal: Principal) -> Principal:
        """Return in whose name the call is answered: a link lets in to its run who has no business here otherwise."""
        try:
            check_admitted(asked.op, principal, self._name)
            asked.session.admitted = asked.session.admitted or asked.op not in OPEN_OPS
        except CallError:
            asked.session.admitted = False
            guest = by_link(asked.op, getattr(args, "fid", None), links_of(asked.session), principal.peer_id)
            if guest is None:
                raise
            return guest
        return principal

    def _take_turns(self, session: Any, principal: Principal) -> None:
        """Put what is done for an account that was admitted before what strangers want."""
        # What anybody may ask says nothing of whether the caller is still admitted.
        session.admitted = session.admitted and principal.enters(self._name)
        session.account = account = account_paying(principal) if session.admitted else None
        if account is not None:
            join_account(account)

    async def _identify(self, asked: Asked) -> Principal:
        peer = str(asked.session.remote_peer)
        try:
            return await self._provider.identify(peer, bound_token(asked.session))
        except CallError as error:
            if error.code != 401:
                raise
            # The login is over, so the session is nobody's from here on; who wants to log in again may ask how.
            unbind(asked.session)
            if asked.op not in OPEN_OPS:
                raise
            return await self._provider.identify(peer)

    async def _look(self, asked: Asked, principal: Principal) -> None:
        while True:
            await self._clock.sleep(self._look_s)
            check_still(principal, await self._identify(asked))


async def _while(work: Awaitable[Any], watching: Awaitable[Any]) -> Any:
    """Answer a call that may take long; whoever loses what lets it make the call loses the call too."""
    answering, looking = asyncio.ensure_future(work), asyncio.ensure_future(watching)
    try:
        await asyncio.wait([answering, looking], return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else looking.result()
    finally:
        for task in (answering, looking):
            task.cancel()
        await asyncio.wait([answering, looking])
        del answering, looking, task  # an error that passes here would keep them, and they keep it
