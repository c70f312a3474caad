"""What registries tell each other: signed statements of nodes, passed on as they came. Pure.

    node ─ record ─► registry A ─ batch(A) ─► registry B ─ batch(B) ─► registry C …

An item is a node's own signed words, so a registry in between can withhold it and cannot forge it. It carries its
origin, the registry that took it from the node, and how many hops it has come. A registry keeps an item only when it
says something new (a higher `seq`, a later heartbeat), and passes on only what it kept: so loops end. A removal
travels as a tombstone, signed by the origin of what it removes, and good for nothing else.

A batch is signed by the registry that sends it. Its cursor counts that registry's changes within one `epoch`, the
life of its file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from kodo.registry.records.record import MAX_RECORD_BYTES, MAX_TTL_S
from kodo.registry.records.signed import MAX_INT, MAX_NOTE_BYTES, MAX_NOTE_VALUES, PeerText, Plain, Signed, Time

__all__ = [
    "BROUGHT_S",
    "EPOCH_BYTES",
    "MAX_BATCH_BYTES",
    "MAX_HOPS",
    "MAX_ITEMS",
    "TOMBSTONE_S",
    "Batch",
    "Brought",
    "Item",
    "Ledger",
    "MeshBounds",
    "Tombstone",
]

MAX_BATCH_BYTES = 4 << 20
MAX_ITEMS = 1000
"""Items of one batch; its bytes are bounded too."""

MAX_HOPS = 16

EPOCH_BYTES = 16

BROUGHT_S = 300
"""Seconds for which a batch may be brought: within them nothing in it gets long expired."""

TOMBSTONE_S = MAX_TTL_S
"""Seconds that a tombstone lives: as long as the longest record that it could have to stop."""

Change = Annotated[int, Field(ge=0, le=MAX_INT)]
Epoch = Annotated[bytes, Field(min_length=EPOCH_BYTES, max_length=EPOCH_BYTES)]


class Tombstone(Signed):
    """A registry takes back what it told of a node.

    Attributes:
        peer_id: of the registry that signs.
        node: peer id of the node.
        seq: its records up to this one, of this origin, are gone.
        at: ms UTC, the registry's clock.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/tombstone/1\n"

    v: Literal[1] = 1
    node: PeerText
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    at: Time


class Item(Plain):
    """What is known of one node, and the way that it came: its record, its goodbye, or both; or a tombstone alone.

    Attributes:
        origin: peer id of the registry that took it from the node.
        hops: registries that it went through, the sender included.
        record: a signed node record.
        beat: the node's latest signed heartbeat that is passed on; beside `record`, without `goodbye`.
        goodbye: a signed goodbye.
        tombstone: a signed tombstone.
    """

    origin: PeerText
    hops: Annotated[int, Field(ge=1, le=MAX_HOPS)]
    record: Annotated[bytes, Field(max_length=MAX_RECORD_BYTES)] | None = None
    beat: Annotated[bytes, Field(max_length=MAX_NOTE_BYTES)] | None = None
    goodbye: Annotated[bytes, Field(max_length=MAX_NOTE_BYTES)] | None = None
    tombstone: Annotated[bytes, Field(max_length=MAX_NOTE_BYTES)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Item:
        if (self.tombstone is not None) == (self.record is not None or self.goodbye is not None):
            raise ValueError("an item is a record, a goodbye or both, or a tombstone")
        if self.beat is not None and (self.record is None or self.goodbye is not None):
            raise ValueError("a heartbeat stands beside its record, and not beside a goodbye")
        return self

    @property
    def size(self) -> int:
        """Its bytes, roughly."""
        parts = (self.record, self.beat, self.goodbye, self.tombstone)
        return 128 + sum(len(part) for part in parts if part is not None)


class Batch(Signed):
    """What a registry has to tell since a cursor.

    Attributes:
        peer_id: of the registry that signs.
        epoch: of its file, `bytes[16]`; another one means that cursors begin anew.
        since: the cursor that was asked for; 0 when the one that was asked for is of another epoch.
        next: the cursor to go on with.
        more: whether there is more to tell now.
        items: in the order of changes.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/batch/1\n"
    LIMIT: ClassVar[int] = MAX_BATCH_BYTES + MAX_RECORD_BYTES + 65536
    VALUES: ClassVar[int] = MAX_NOTE_VALUES + MAX_ITEMS * (1 + 2 * len(Item.model_fields))

    v: Literal[1] = 1
    epoch: Epoch
    since: Change
    next: Change
    more: bool
    items: Annotated[tuple[Item, ...], Field(max_length=MAX_ITEMS, fail_fast=True)]

    @model_validator(mode="after")
    def _check(self) -> Batch:
        if self.next < self.since or (self.more and self.next == self.since):
            raise ValueError("the cursor does not rise")
        return self


class Brought(Batch):
    """A batch that its registry brings by itself, of a domain of its own: what anybody may read, nobody can bring.

    Attributes:
        at: ms UTC, the clock of the registry that signs; strictly rising.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/brought/1\n"

    at: Time


@dataclass(frozen=True, slots=True)
class MeshBounds:
    """What a registry puts up with from a member.

    Attributes:
        nodes: nodes kept that one member brought.
        forged: items with a wrong signature or form, within `window_s`, that end the dealings.
        stale: items long expired, likewise.
        window_s: seconds after which a misdeed is forgotten, half of it at a time.
        cutoff_s: seconds that dealings rest then.
        items_per_s: items taken in the long run; the member waits for more.
        burst: items taken at once.
    """

    nodes: int = 50_000
    forged: int = 8
    stale: int = 1000
    window_s: float = 3600.0
    cutoff_s: float = 3600.0
    items_per_s: float = 500.0
    burst: int = 200_000


@dataclass(slots=True)
class Ledger:
    """How a member has behaved. Times are ms of one clock.

    Attributes:
        taken: items kept.
        known: items that said nothing new; every loop makes some.
        forged: items that were not what their signer signed, or no items at all.
        stale: items that had long expired.
        refused: items refused for other reasons: a name of another node, no room.
        cut_off_until: ms; 0 when dealings go on.
        brought_at: `at` of the latest batch that it brought.
    """

    taken: int = 0
    known: int = 0
    forged: int = 0
    stale: int = 0
    refused: int = 0
    cut_off_until: int = 0
    brought_at: int = 0
    _recent_forged: float = 0.0
    _recent_stale: float = 0.0
    _judged_at: int = 0
    _full_at: float = field(default=0.0)

    def judge(self, now: int, bounds: MeshBounds, *, forged: int = 0, stale: int = 0) -> bool:
        """Count misdeeds; say whether dealings go on."""
        fading = 0.5 ** (max(now - self._judged_at, 0) / (bounds.window_s * 500.0)) if self._judged_at else 0.0
        self._recent_forged = self._recent_forged * fading + forged
        self._recent_stale = self._recent_stale * fading + stale
        self._judged_at = now
        self.forged += forged
        self.stale += stale
        # What fades within moments is not to be a way out.
        if self._recent_forged > bounds.forged - 0.5 or self._recent_stale > bounds.stale - 0.5:
            self.cut_off_until = now + round(bounds.cutoff_s * 1000)
            self._recent_forged = self._recent_stale = 0.0
        return self.trusted(now)

    def trusted(self, now: int) -> bool:
        """Return whether dealings go on."""
        return now >= self.cut_off_until

    def wait_s(self, now: int, items: int, bounds: MeshBounds) -> float:
        """Count `items` and give 0, or give the seconds to wait before they are taken, and count nothing."""
        most = bounds.burst / bounds.items_per_s * 1000
        full_at = min(max(self._full_at, now), now + most)
        wait = full_at + items / bounds.items_per_s * 1000 - (now + most)
        if wait > 0 and full_at > now:
            return wait / 1000
        self._full_at = full_at + items / bounds.items_per_s * 1000
        return 0.0
