"""Opening the NAT before a listener for diallers that come through a relay: how far each opening packet goes.

A packet towards the dialler makes the NAT let the dialler's packets in. The first one is not to get there: a router
that takes unknown packets itself, as one with containers behind it does, would have the address in use for that
packet, and give what its dialler sends then another one. So it passes one router only, which is enough for most.

Once its handshake through the relay is over, the dialler has sent something itself, for it was told before where the
node is; so its router takes what comes for an answer. If it still comes through the relay a little later, packets go
all the way: there may be another NAT before this machine, and as these are checks the dialler learns by them the
address of a node whose NAT gives each destination another one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["ALL_THE_WAY", "FIRST_HOPS", "STEP_SECONDS", "Openings"]

Address = tuple[str, int]

FIRST_HOPS: Final = 2
"""Routers that a packet meets: the last of them drops it."""
ALL_THE_WAY: Final = 255
STEP_SECONDS: Final = 0.8
"""How long the first packets may take to be of use."""
REMEMBERED: Final = 256
"""Diallers that are known."""


class _Opening:
    """What was done for one dialler: since when, from which address; whether it was of use."""

    __slots__ = ("began_at", "own", "useful")

    def __init__(self, own: Address, now: float) -> None:
        self.own, self.began_at, self.useful = own, now, False


class Openings:
    """For which diallers the NAT was opened, and how far the next packet goes."""

    def __init__(self) -> None:
        self._known: OrderedDict[Address, _Opening] = OrderedDict()

    def __contains__(self, dialler: Address) -> bool:
        return dialler in self._known

    def came(self, dialler: Address) -> None:
        """Note that a dialler's packets come by themselves: if it needs the relay again, all begins anew."""
        if (opening := self._known.get(dialler)) is not None:
            opening.useful = True

    def next_hops(self, dialler: Address, own: Address, now: float, *, proved: bool) -> int:
        """Return how many routers the next packet may meet.

        Args:
            own: this machine's address as the relay sees it: with another one all begins anew.
            proved: whether somebody who comes through the relay from there has finished a handshake.
        """
        opening = self._known.get(dialler)
        if opening is None or opening.own != own or opening.useful:
            opening = self._known[dialler] = _Opening(own, now)
        self._known.move_to_end(dialler)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return ALL_THE_WAY if proved and now - opening.began_at >= STEP_SECONDS else FIRST_HOPS
