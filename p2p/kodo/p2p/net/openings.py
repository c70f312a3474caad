"""Opening the NAT before a listener for diallers that come through a relay: how far each opening packet goes.

A packet towards the dialler makes the NAT let the dialler's packets in. The first one is not to get there: a router
that takes unknown packets itself, as one with containers behind it does, would have the address in use for that
packet, and give what its dialler sends then another one. So it passes one router only, which is enough for most.

Once its handshake through the relay is over, the dialler has sent something itself, for it was told before where the
node is; so its router takes what comes for an answer. If it still comes through the relay a little later, packets go
all the way: there may be another NAT before this machine, and as these are checks the dialler learns by them the
address of a node whose NAT gives each destination another one.

The relay alone says where the dialler is, and may be the one who has finished the handshake. So few packets go all
the way to one address, with time between them, whatever the relay says the node's own address is now; and few because
of one relay. What is beyond that goes as far as the first ones.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from kodo.p2p.core.hosts import source_block
from kodo.p2p.core.relay_bounds import Bucket

__all__ = ["ALL_THE_WAY", "FIRST_HOPS", "STEP_SECONDS", "Openings"]

Address = tuple[str, int]

FIRST_HOPS: Final = 2
"""Routers that a packet meets: the last of them drops it."""
ALL_THE_WAY: Final = 255
STEP_SECONDS: Final = 0.8
"""How long the first packets may take to be of use."""
MOST_FAR: Final = 8
"""Packets that go all the way to one dialler, until its own come by themselves."""
FAR_SECONDS: Final = 0.4
"""Between two of them at least; a dialler checks its relay every 0.5 s."""
FAR_PER_SECOND: Final = 1.0
"""Of them because of one relay, to all its diallers together."""
FAR_AT_ONCE: Final = 32
"""So many more after a time without any: of several diallers at once."""
REMEMBERED: Final = 256
"""Diallers that are known."""
RELAYS: Final = 32
"""Relays whose packets are counted: a node has fewer."""


class _Opening:
    """What was done for one dialler.

    From which address; whether it was of use; how many packets may still go all the way, and from when on the next.
    """

    __slots__ = ("far_at", "far_left", "own", "useful")

    def __init__(self, own: Address, now: float) -> None:
        self.own, self.useful = own, False
        self.far_left, self.far_at = MOST_FAR, now + STEP_SECONDS

    def again(self, own: Address, now: float) -> None:
        """Begin anew from another address, of which the relay alone knows: nothing more goes all the way for that."""
        self.own, self.far_at = own, now + STEP_SECONDS


class Openings:
    """For which diallers the NAT was opened, and how far the next packet goes."""

    def __init__(self) -> None:
        self._known: OrderedDict[Address, _Opening] = OrderedDict()
        self._relays: OrderedDict[str, Bucket] = OrderedDict()

    def __contains__(self, dialler: Address) -> bool:
        return dialler in self._known

    def came(self, dialler: Address) -> None:
        """Note that a dialler's packets come by themselves: if it needs the relay again, all begins anew."""
        if (opening := self._known.get(dialler)) is not None:
            opening.useful = True

    def next_hops(self, dialler: Address, own: Address, relay: str, now: float, *, proved: bool) -> int:
        """Return how many routers the next packet may meet.

        Args:
            own: this machine's address as the relay sees it: with another one all begins anew.
            relay: IP address of the relay that says where the dialler is.
            proved: whether somebody who comes through the relay from there has finished a handshake.
        """
        opening = self._known.get(dialler)
        if opening is None or opening.useful:
            opening = self._known[dialler] = _Opening(own, now)
        elif opening.own != own:
            opening.again(own, now)
        self._known.move_to_end(dialler)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        if not proved or now < opening.far_at or not opening.far_left or not self._may_go_far(relay, now):
            return FIRST_HOPS
        opening.far_left -= 1
        opening.far_at = now + FAR_SECONDS
        return ALL_THE_WAY

    def _may_go_far(self, relay: str, now: float) -> bool:
        """Whether one more packet may go all the way because of a relay; it is counted."""
        block = source_block(relay)
        bucket = self._relays.get(block)
        if bucket is None:
            bucket = self._relays[block] = Bucket(FAR_PER_SECOND, FAR_AT_ONCE, now)
        self._relays.move_to_end(block)
        if len(self._relays) > RELAYS:
            self._relays.popitem(last=False)
        if not bucket.has(1, now):
            return False
        bucket.level -= 1
        return True
