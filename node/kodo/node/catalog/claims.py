"""Two nodes with one key at one registry, as where a home was copied: whose record stays there.

A registry keeps the newest record of a key. Were both nodes to send theirs again whenever it is replaced, the record
would change with every heartbeat for ever. So each takes the other's place once, by which both learn of the other;
the one that loses it then a second time leaves it to the other, for as long as that one is there.

    ours ── another's is newer ──► claimed ── again, soon ──► left to the other ── that one has gone ──► ours

Only what our own key has signed counts: a registry cannot make a node believe in another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError
from kodo.registry.records.record import NodeRecord

__all__ = ["CLAIM_AGAIN_MS", "Claim", "Listing", "foreign_record", "is_online"]

CLAIM_AGAIN_MS = 3_600_000
"""How often another's place is taken at most."""


class Listing(Protocol):
    """What is asked of a registry; `RegistryClient` has it."""

    async def record(self, peer_id: str, /) -> NodeRecord: ...
    async def nodes(self, *, query: str | None = None, pp: int = 100) -> Any: ...


@dataclass(slots=True)
class Claim:
    """What a node knows of others with its key at one registry. Times are steady ms.

    Attributes:
        left_to: `seq` of the record to which ours has been left; None: it has not.
    """

    left_to: int | None = None
    _seen_ms: int = 0
    _claimed_ms: int | None = None

    def lost(self, found: NodeRecord, now: int) -> bool:
        """Take note that another's record is newer than ours; say whether ours is to take its place."""
        if self._claimed_ms is not None and now - self._claimed_ms < CLAIM_AGAIN_MS:
            self.left_to, self._seen_ms = found.seq, now
            return False
        self._claimed_ms = now
        return True

    def looked(self, found: NodeRecord | None, *, online: bool, now: int) -> bool:
        """Take note of the record to which ours is left; say whether ours may be sent again."""
        assert self.left_to is not None
        if found is not None and found.seq > self.left_to:
            self.left_to, self._seen_ms = found.seq, now
        # Half its time before it ends a record is renewed: by then its node has gone, whatever the registry says.
        elif found is None or not online or now - self._seen_ms > 600 * found.ttl_s:
            self.left_to = None
        return self.left_to is None


async def foreign_record(registry: Listing, peer_id: PeerId, least_seq: int) -> NodeRecord | None:
    """Return the record of this key that a registry has, if its `seq` is no lower than that.

    Raises:
        CallError: it does not show it.
        PeerError, IdentityError: what it shows is no record of this key.
    """
    try:
        found = await registry.record(str(peer_id))
    except CallError as error:
        if error.code == 404:
            return None
        raise
    return found if found.peer_id == str(peer_id) and found.seq >= least_seq else None


async def is_online(registry: Listing, peer_id: PeerId) -> bool:
    """Return whether a registry hears of the node of this key."""
    page = await registry.nodes(query=f'peer_id == "{peer_id}" and online', pp=1)
    return bool(page.result)
