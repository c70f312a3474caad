"""`known_addresses`: where nodes that this user knows by name were last reached on the local network.

One line a node, `peer-id address…`. It is a hint that spares looking around: whoever answers there has to prove that
peer id as anybody has. A file that is damaged, or lost, costs nothing but time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from kodo.client.filelock import locked
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.keystore import write_private

__all__ = ["KnownAddresses"]

MAX_NODES = 64
"""Nodes that are remembered: those that were reached for the first time, or moved, last."""

MAX_ADDRESSES = 16
"""Addresses of one node: as many as one announces on the local network."""

MAX_FILE_BYTES = 1 << 20


class KnownAddresses:
    """The addresses in one file. Safe to use from several processes at once; reading never fails."""

    def __init__(self, path: Path):
        self.path = path

    def all(self) -> Mapping[PeerId, tuple[Multiaddr, ...]]:
        """Return the addresses of every node, who moved last at the end; lines that cannot be read are left out."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES)
        except OSError:
            return {}
        found: dict[PeerId, tuple[Multiaddr, ...]] = {}
        for line in raw.decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                first, *rest = line.split()
                peer_id = PeerId.parse(first)
                addresses = tuple(map(Multiaddr.parse, rest))
                if addresses and all(each.peer_id == peer_id for each in addresses):
                    found[peer_id] = addresses
        return found

    def get(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        """Return the addresses of one node; none when they are not known."""
        return self.all().get(peer_id, ())

    def remember(self, peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
        """Remember where a node is now.

        Raises:
            UsageError: the file cannot be written.
        """
        mine = tuple(each for each in addresses if each.peer_id == peer_id)[:MAX_ADDRESSES]
        if not mine or self.get(peer_id) == mine:
            return
        with locked(self.path):
            kept = {peer: places for peer, places in self.all().items() if peer != peer_id}
            lines = list({**kept, peer_id: mine}.items())[-MAX_NODES:]
            text = "".join(f"{peer} {' '.join(map(str, places))}\n" for peer, places in lines)
            write_private(self.path, text.encode())
