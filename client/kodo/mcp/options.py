"""What the user allowed the bridge when it was started."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["MAX_TOOLS", "WAIT_SECONDS", "BridgeOptions"]

MAX_TOOLS = 30
"""So many flows are tools of their own; hosts cap their lists at 40 to 128 tools, over all servers."""

WAIT_SECONDS = 50.0
"""How long one call waits for a run: hosts cut calls after about 60 s."""


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What the bridge may show and do.

    Attributes:
        node: the only node it deals with; None: every node that is found.
        flows: globs; only flows that one of them fits are shown. Empty: all.
        allow: globs; only flows that one of them fits are launched. Empty: all that are shown.
        read_only: nothing is launched, answered, ended, shared or written.
        level: the highest level (0 to 2) of events that is shown.
        files: folders that files are read from and written to; none by default.
        wait_s: seconds that one call waits for a run.
    """

    node: str | None = None
    flows: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    read_only: bool = False
    level: int = 1
    files: tuple[Path, ...] = ()
    wait_s: float = WAIT_SECONDS

    def shows(self, node: str, peer_id: str, path: str) -> bool:
        """Return whether a flow, and runs of it, may be shown."""
        return _fits(self.flows, node, peer_id, path)

    def launches(self, node: str, peer_id: str, path: str) -> bool:
        """Return whether a flow may be launched."""
        return not self.read_only and self.shows(node, peer_id, path) and _fits(self.allow, node, peer_id, path)


def _fits(globs: tuple[str, ...], node: str, peer_id: str, path: str) -> bool:
    names = (path, f"{node}/{path}", f"{peer_id}/{path}")
    return not globs or any(fnmatchcase(name, glob) for glob in globs for name in names)
