"""Runs of which nothing but their node's own claim says that they are there; as many as are remembered one by one."""

from __future__ import annotations

from kodo.p2p.core.identity import PeerId

__all__ = ["Unproved"]

MAX_RUNS = 1000
"""Of one node; beyond it all of its runs are taken for unproved."""

MAX_NODES = 1000
"""Beyond it all runs of all nodes are."""


class Unproved:
    """What is forgotten here would be trusted, so what is too much to remember is doubted as a whole."""

    def __init__(self) -> None:
        self._nodes: dict[PeerId, set[str] | None] = {}  # None: all of its runs
        self._all = False

    def add(self, fid: str, peer_id: PeerId) -> None:
        """Note a run."""
        if peer_id not in self._nodes and len(self._nodes) >= MAX_NODES:
            self._all = True
            return
        runs = self._nodes.setdefault(peer_id, set())
        if runs is not None:
            runs.add(fid)
            if len(runs) > MAX_RUNS:
                self._nodes[peer_id] = None

    def discard(self, fid: str, peer_id: PeerId) -> None:
        """Forget a run that was proved; where all of its node's are doubted, it stays doubted."""
        runs = self._nodes.get(peer_id)
        if runs is not None:
            runs.discard(fid)
            if not runs:
                del self._nodes[peer_id]

    def has(self, fid: str, peer_id: PeerId) -> bool:
        """Return whether a run is unproved."""
        runs = self._nodes.get(peer_id, set())
        return self._all or runs is None or fid in runs

    def of(self, peer_id: PeerId) -> list[str] | None:
        """Return the runs of a node; None: all."""
        runs = self._nodes.get(peer_id, set())
        return None if self._all or runs is None else sorted(runs)
