"""Which runs a caller sees, at which level and in which mode. Every op on a run asks here, and nowhere else.

A run that is not for the caller does not exist: it is looked up the same way, and refused in the same words.
Operators, and developers of its flow, know of every run its state, its times and the type of its error; what it is
about only where the node was started so (`contents_for`), which `flow.schema` tells everybody before a launch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kodo.node.answers.caller import Caller
from kodo.node.rows import RunRow
from kodo.node.store import Store
from kodo.p2p.errors import CallError
from kodo.protocol.access import Mode, Principal, Role

__all__ = ["Seen", "Sight", "no_such_run"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as one caller sees it.

    Attributes:
        row: the run.
        level: 0, 1 or 2: what of its events is shown.
        modes: `r`, and `x` where the caller may manage it and answer its locks.
        own: whether the caller launched it.
        contents: whether more is shown than its state, its times and the type of its error.
    """

    row: RunRow
    level: int
    modes: tuple[Mode, ...]
    own: bool
    contents: bool = True

    def check_mode(self) -> None:
        """Let through who may do more than read.

        Raises:
            CallError: 403 `not-granted`.
        """
        if "x" not in self.modes:
            raise CallError(403, "not-granted", "this run, or your grant on its flow, is for reading only")

    def check_contents(self) -> None:
        """Let through who may see what the run is about.

        Raises:
            CallError: 403 `private`.
        """
        if not self.contents:
            raise CallError(403, "private", "what this run is about is for who launched it")

    def check_outputs(self) -> None:
        """Let through who may read outputs.

        Raises:
            CallError: 403 `private` or `not-granted`.
        """
        self.check_contents()
        if self.level < 1:
            raise CallError(403, "not-granted", "outputs need a grant of level 1 or more")


class Sight:
    """Decides what of which run a caller sees.

    Args:
        contents_for: the roles (`developer`, `operator`) to whom others' runs are shown whole, at the level of their
            grant.
    """

    def __init__(self, store: Store, contents_for: Iterable[str] = ()):
        self._store = store
        self.contents_for = frozenset(contents_for)

    async def run(self, caller: Caller, fid: str) -> Seen:
        """Give a run that the caller sees.

        Raises:
            CallError: 404 `no-such-run`, whether there is none or it is not for this caller.
        """
        row = await self._store.run(fid)
        seen = None if row is None else self.of(caller.principal, row)
        if seen is None:
            raise no_such_run()
        return seen

    def of(self, principal: Principal, row: RunRow) -> Seen | None:
        """Say how `principal` sees the run; None: not at all."""
        if row.principal == principal.id:
            return Seen(row, _level(principal, row), _modes(principal, row), own=True)
        offices = {Role.OPERATOR} if principal.operator else set[str]()
        if principal.develops_flow(row.path):
            offices.add(Role.DEVELOPER)
        if not offices:
            return None
        contents = not self.contents_for.isdisjoint(offices)
        return Seen(row, _level(principal, row) if contents else 0, ("r",), own=False, contents=contents)


def no_such_run() -> CallError:
    """Give the refusal for a run that does not exist, or not for this caller."""
    return CallError(404, "no-such-run", "there is no such run here, or it is not yours")


def _level(principal: Principal, row: RunRow) -> int:
    grant = principal.flow_grant(row.path, "r")
    return grant.level if grant is not None else 0


def _modes(principal: Principal, row: RunRow) -> tuple[Mode, ...]:
    return ("r", "x") if principal.flow_grant(row.path, "x") is not None else ("r",)
