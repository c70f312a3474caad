"""How long a packet may be: the path's MTU, found by probes that carry nothing and so may be lost.

A probe is a packet of its own with a HEARTBEAT and padding (PAD, RFC 4820), sent with fragmenting forbidden; the
answer says that this size passes. First the size of ordinary Ethernet, then the largest, then the middle of what is
left between the largest that passed and the smallest that did not. Sizes are those of common links, so a search is
a handful of probes. A size counts as too large when `ATTEMPTS` probes went unanswered, or at once when this machine's
own interface refuses it. A session that sends little needs no longer packets and never searches; a found size is
asked about again after `RAISE_SECONDS`.

A path may shrink. When a chunk that is longer than `base` allows has been sent in vain again and again, while what is
short still passes, the size falls back to `base` and the search begins anew below the size that failed. What is out
in longer chunks already is sent once more as it is: the owner lets the network fragment it. Where the network does
not, as routers of IPv6 do not, the association ends, for such a chunk can be cut no more.

Not every path ends at somebody who bears it: libwebrtc gives a session up when a datagram is longer than 2,048 bytes.
aiortc reads 1,500 bytes of a record, and what is left comes before the next one. So what is longer than 2,048 is
tried only with a peer that names PAD among its extensions, as this one does, and what is longer than Ethernet's only
with one that names PAD, or FORWARD TSN and a window as large as dcsctp's: to a browser on the same machine
the bytes of a file go in three packets instead of four.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ATTEMPTS", "LIBWEBRTC", "ORDINARY", "PROBE_SECONDS", "RAISE_SECONDS", "SIZES", "PathMtu"]

_RECORD: Final = 37
_V4, _V6 = _RECORD + 28, _RECORD + 48
SIZES: Final = (
    *(
        # Every chunk is padded to four bytes.
        size & ~3
        for size in (
            1280 - _V4,
            1350 - _V6,
            1400 - _V6,
            1420 - _V4,  # WireGuard
            1492 - _V6,
            1500 - _V6,
            1492 - _V4,  # PPPoE
            1500 - _V4,  # Ethernet
            2048 - _RECORD,  # libwebrtc
            4096 - _V6,
            9000 - _V6,  # jumbo frames
            9000 - _V4,
        )
    ),
    16_328,  # loopback: four of them make one send with segmentation, and DTLS takes 16,384
)
"""Bytes of an SCTP packet in links of usual sizes, beneath DTLS, UDP and IP."""
ORDINARY: Final = (1500 - _V4) & ~3
"""What fits into a packet of Ethernet."""
LIBWEBRTC: Final = (2048 - _RECORD) & ~3
"""What libwebrtc takes."""
ATTEMPTS: Final = 3
PROBE_SECONDS: Final = 1.0
RAISE_SECONDS: Final = 600.0
_UNKNOWN: Final = 1 << 30


class PathMtu:
    """The search.

    Args:
        base: bytes of a packet that every path is taken to carry.
        most: bytes of the longest packet.

    Attributes:
        size: most bytes of a packet now.
        due_at: when the probe that is out counts as lost; None while none is out.
    """

    __slots__ = ("_attempts", "_probe", "_refused", "_search_at", "_sizes", "base", "due_at", "size")

    def __init__(self, base: int, most: int) -> None:
        self.base = base
        self._sizes = [size for size in SIZES if base < size < most] + ([most] if most > base else [])
        self.restart()

    def restart(self) -> None:
        """Forget what was found: packets take another path from now on."""
        self.size = self.base
        self.due_at: float | None = None
        self._refused = _UNKNOWN
        self._probe = 0
        self._attempts = 0
        self._search_at = 0.0

    def _next(self) -> int:
        sizes = [size for size in self._sizes if self.size < size < self._refused]
        if not sizes:
            return 0
        if self._refused < _UNKNOWN:
            return sizes[len(sizes) // 2]
        return ORDINARY if ORDINARY in sizes else sizes[-1]

    def next_probe(self, now: float) -> int:
        """Return the size of a probe that is to be sent now, 0 for none."""
        if self.due_at is not None or now < self._search_at:
            return 0
        size = self._next()
        if not size:
            self._search_at = now + RAISE_SECONDS
            self._refused = _UNKNOWN
            return 0
        if size != self._probe:
            self._probe, self._attempts = size, 0
        self._attempts += 1
        self.due_at = now + PROBE_SECONDS
        return size

    def passed(self) -> None:
        """Note the answer to the last probe."""
        self.due_at = None
        self.size = max(self.size, self._probe)

    def refused(self) -> None:
        """Note that the interface did not take the probe that is out."""
        if self.due_at is not None:
            self.due_at = None
            self._refused = self._probe

    def timed_out(self) -> None:
        """Note that the probe that is out was not answered."""
        self.due_at = None
        if self._attempts >= ATTEMPTS:
            self._refused = self._probe

    def shrunk(self) -> None:
        """Note that packets of the present size do not pass any more."""
        if self.size > self.base:
            self._refused, self.size = self.size, self.base
            self.due_at = None
            self._probe = self._attempts = 0
            self._search_at = 0.0

    def keep_below(self, most: int) -> None:
        """Look for nothing longer than `most`."""
        self._sizes = [size for size in self._sizes if size <= most]

    def stop(self) -> None:
        """Look no further."""
        self.due_at = None
        self._sizes = []
