"""What proves that a node is the one that is meant, before anything private goes to it.

Nodes nearby and registries only claim: a name, a flow, a run. A session proves a peer id and nothing else, so that
something has to say which peer id is meant: the user (a peer id, an address, a link, a name that was pinned), this
home (its own node), or what this home remembers of its runs. Where nothing does, the user is asked, by name and
peer id; where nobody can be asked, it is refused.
"""

from __future__ import annotations

import inspect
import logging
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kodo.client.finders import read_home_node
from kodo.client.flow import FlowOnNode
from kodo.client.known_nodes import KnownNodes
from kodo.client.known_runs import KnownRuns
from kodo.client.near import NearNodes
from kodo.client.peer import RemoteNode
from kodo.client.resolve import safe_text
from kodo.client.unproved import Unproved
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, IdentityError, NotFoundError, UsageError
from kodo.protocol.ids import is_id

__all__ = ["ConfirmNode", "Proofs"]

logger = logging.getLogger(__name__)

ConfirmNode = Callable[[RemoteNode, str], bool | Awaitable[bool]]
"""Asked whether a node is the one that is meant, and told what it claims."""


class Proofs:
    """What one home knows of nodes.

    Args:
        runs, names: what is remembered.
        nearby: who else may be asked for a run.
        home: whose own node needs no other proof.
        confirm: asks the user; None where nobody can be asked.
    """

    def __init__(
        self, runs: KnownRuns, names: KnownNodes, nearby: NearNodes, home: Path, confirm: ConfirmNode | None
    ):
        self.runs = runs
        self._names = names
        self._nearby = nearby
        self._home = home
        self._confirm = confirm
        self._confirmed: set[PeerId] = set()
        self._unproved = Unproved()

    def name_of(self, peer_id: PeerId) -> str | None:
        """Return the name that is pinned to a peer id."""
        return next((name for name, pinned in self._names.all().items() if pinned == peer_id), None)

    def remember(self, fid: str, peer_id: PeerId) -> None:
        """Remember on which node a run is; that it cannot be written does not hurt the run.

        Not while only the node's own claim speaks for it: that it took a launch proves nothing.
        """
        if not self._unproved.has(fid, peer_id):
            self._add({fid: peer_id})

    def launched(self, found: FlowOnNode, fid: str) -> None:
        """Remember where a launch went and pin the node's name, if more than its own claim speaks for it.

        Without inputs nobody was asked. A pin would have the next launch bring the node some, and a remembered run
        would bring it the answers to locks that it made up.
        """
        label, peer_id = found.remote.label, found.remote.peer_id
        if not self._is_meant(found):
            self._unproved.add(fid, peer_id)
            return
        self._proved(fid, peer_id)
        if not found.claimed or label is None:
            return
        try:
            self._names.pin(label, peer_id)
        except (UsageError, IdentityError) as error:
            logger.debug("the name %r is not pinned: %s", label, error)

    async def check_run(self, fid: str, remote: RemoteNode) -> None:
        """Check that something private may go to the node of a run, if it was launched there without being asked.

        Raises:
            IdentityError: the run is known to be on another node, or nothing but its own claim speaks for this one,
                and nobody confirmed it.
        """
        peer_id = remote.peer_id
        if not self._unproved.has(fid, peer_id):
            return
        self._check_known(fid, remote)
        if peer_id not in self._confirmed and not self._is_known(peer_id):
            await self._ask(remote, f"claims to have the run {fid}", f"{peer_id}/{fid}")
        self._proved(fid, peer_id)

    async def check_file(self, remote: RemoteNode, place: str) -> None:
        """Check that a file may go to a node, as `check_run` for each run there; a peer id is the user's own word."""
        if str(remote.peer_id) not in place:
            unproved = self._unproved.of(remote.peer_id)
            if unproved is None and remote.peer_id not in self._confirmed and not self._is_known(remote.peer_id):
                await self._ask(remote, "claims to have runs of yours", str(remote.peer_id))
            for fid in unproved or ():
                await self.check_run(fid, remote)

    def listed(self, answers: Sequence[tuple[RemoteNode, Sequence[Mapping[str, Any]]]], *, named: bool) -> None:
        """Remember the runs of a listing: those of a node that was named or is known, which no other node claims."""
        claims: dict[str, set[PeerId]] = {}
        for remote, rows in answers:
            for row in rows:
                if is_id(fid := row.get("fid")):
                    claims.setdefault(str(fid), set()).add(remote.peer_id)
        alone = {fid: next(iter(peers)) for fid, peers in claims.items() if len(peers) == 1}
        self._add({fid: peer for fid, peer in alone.items() if named or self._is_known(peer)}, make_room=False)

    def check_named(self, fid: str, remote: RemoteNode, place: str) -> None:
        """Check that a run is on the node of this name. A peer id or an address is the user's own word.

        Raises:
            IdentityError: the run is known to be on another node.
        """
        if str(remote.peer_id) not in place:
            self._check_known(fid, remote)
        self._unproved.discard(fid, remote.peer_id)  # it was named

    def _check_known(self, fid: str, remote: RemoteNode) -> None:
        known = self.runs.get(fid)
        if known not in (None, remote.peer_id):
            raise IdentityError(
                f"the run {fid} is on the node {known}, and {remote} is {remote.peer_id}; if it really is there by"
                f" now, name that: {remote.peer_id}/{fid}"
            )

    def may_have(self, remote: RemoteNode, answer: Mapping[str, Any] | None) -> bool:
        """Return whether what a node answers about a run can be so: not when the run is known to be on another."""
        fid = (answer or {}).get("fid")
        known = self.runs.get(fid) if isinstance(fid, str) else None
        return known in (None, remote.peer_id)

    async def claimant(self, fid: str) -> RemoteNode:
        """Return the one near node that claims a run of which nothing is known here.

        Raises:
            NotFoundError: no node does.
            IdentityError: several do, or one does and nobody confirmed that it is the one that is meant.
        """

        async def knows(remote: RemoteNode) -> bool:
            try:
                answer = await remote.request("run.state", {"fid": fid})
            except CallError as error:
                if error.code == 404:
                    return False
                raise
            return isinstance(answer, Mapping) and answer.get("fid") == fid

        answers = (await self._nearby.ask(knows, "run.state")).check()
        claimants = [remote for remote, claims in answers if claims]
        if not claimants:
            raise NotFoundError(f"no node nearby has the run {fid}; name its node: NODE/{fid}")
        if len(claimants) > 1:
            some = ", ".join(f"{remote} ({remote.peer_id})" for remote in claimants[:8])
            raise IdentityError(
                f"{len(claimants)} nodes claim the run {fid}: {some}; name the node that you mean: NODE/{fid}"
            )
        [remote] = claimants
        if not self._is_home(remote.peer_id):
            await self._ask(remote, f"claims to have the run {fid}", f"{remote.peer_id}/{fid}")
        self._unproved.discard(fid, remote.peer_id)
        return remote

    async def check_flow(self, found: FlowOnNode, inputs: Mapping[str, Any]) -> None:
        """Check that inputs may go to a flow's node; where there are none, nothing private goes.

        Raises:
            IdentityError: nothing but its own claim speaks for the node, and nobody confirmed it.
        """
        if not inputs or self._is_meant(found):
            return
        instead = shlex.quote(f"{found.remote.peer_id}/{found.path}")
        await self._ask(found.remote, f"claims to offer the flow {found.path}", instead)

    async def check_password(self, remote: RemoteNode) -> None:
        """Check that a password may go to a node: not to whoever claims a name that was never used before.

        Raises:
            IdentityError: nothing but its own claim speaks for the node, and nobody confirmed it.
        """
        if remote.new and not self._is_home(remote.peer_id):
            await self._ask(remote, f"claims the name {remote.name}", f"--node {shlex.quote(str(remote.peer_id))}")

    async def _ask(self, remote: RemoteNode, claim: str, instead: str) -> None:
        if self._confirm is not None:
            answer = self._confirm(remote, claim)
            if await answer if inspect.isawaitable(answer) else answer:
                self._confirmed.add(remote.peer_id)
                return
        raise IdentityError(
            f"the node {safe_text(remote)} ({remote.peer_id}) {safe_text(claim)}, and nothing else says so; if it is"
            f" the one you mean, name it: {instead}"
        )

    def _proved(self, fid: str, peer_id: PeerId) -> None:
        self._unproved.discard(fid, peer_id)
        self._add({fid: peer_id})

    def _is_meant(self, found: FlowOnNode) -> bool:
        peer_id = found.remote.peer_id
        return not found.claimed or peer_id in self._confirmed or self._is_known(peer_id)

    def _is_home(self, peer_id: PeerId) -> bool:
        here = read_home_node(self._home)
        return here is not None and here.get("peer_id") == str(peer_id)

    def _is_known(self, peer_id: PeerId) -> bool:
        return self._is_home(peer_id) or peer_id in self._names.all().values()

    def _add(self, runs: Mapping[str, PeerId], *, make_room: bool = True) -> None:
        try:
            self.runs.add(runs, make_room=make_room)
        except UsageError as error:
            logger.warning("the runs' nodes are not remembered: %s", error)
