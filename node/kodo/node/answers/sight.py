"""Which runs a caller sees, at which level and in which mode. Every op on a run asks here, and nowhere else.

A run that is somebody else's does not exist: it is looked up the same way, and refused in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass

from kodo.node.answers.caller import Caller
from kodo.node.rows import RunRow
from kodo.node.store import Store
from kodo.p2p.errors import CallError
from kodo.protocol.access import Mode, Principal

__all__ = ["Seen", "Sight", "no_such_run"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as one caller sees it.

    Attributes:
        row: the run.
        level: 0, 1 or 2: what of its events is shown.
        modes: `r`, and `x` where the caller may manage it and answer its locks.
        own: whether the caller launched it.
    """

    row: RunRow
    level: int
    modes: tuple[Mode, ...]
    own: bool

    def check_mode(self) -> None:
        """Let through who may do more than read.

        Raises:
            CallError: 403 `not-granted`.
        """
        if "x" not in self.modes:
            raise CallError(403, "not-granted", "your grant on this flow is for reading only")

    def check_outputs(self) -> None:
        """Let through who may read outputs.

        Raises:
            CallError: 403 `not-granted`.
        """
        if self.level < 1:
            raise CallError(403, "not-granted", "outputs need a grant of level 1 or more")


class Sight:
    """Decides what of which run a caller sees."""

    def __init__(self, store: Store):
        self._store = store

    async def run(self, caller: Caller, fid: str) -> Seen:
        """Give a run that the caller sees.

        Raises:
            CallError: 404 `no-such-run`, whether there is none or it is not for this caller.
        """
        row = await self._store.run(fid)
        principal = caller.principal
        if row is None or row.principal != principal.id:
            raise no_such_run()
        return Seen(row, _level(principal, row), _modes(principal, row), own=True)


def no_such_run() -> CallError:
    """Give the refusal for a run that does not exist, or not for this caller."""
    return CallError(404, "no-such-run", "there is no such run here, or it is not yours")


def _level(principal: Principal, row: RunRow) -> int:
    grant = principal.flow_grant(row.path, "r")
    return grant.level if grant is not None else 0


def _modes(principal: Principal, row: RunRow) -> tuple[Mode, ...]:
    return ("r", "x") if principal.flow_grant(row.path, "x") is not None else ("r",)
