"""Which runs a caller sees, at which level and in which mode. Every op on a run asks here, and nowhere else.

A run that is not for the caller does not exist: it is looked up the same way, and refused in the same words.
Operators, and developers of its flow, know of every run its state, its times and the type of its error; operators
also whose it is, and they may end and delete it. What it is about they know only where the node was started so
(`contents_for`), which `flow.schema` tells everybody before a launch. With whom a run is shared, or who holds a link
of it, sees it at the share's level and in its mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kodo.node.answers.caller import Caller
from kodo.node.shares.shares import Shares
from kodo.node.store.rows import RunRow
from kodo.node.store.share_rows import ShareRow, gone
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError
from kodo.protocol.access import Mode, Principal, Role, account_of

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
        share: by which share it is seen, if it is by one: whatever goes on by it ends with it.
        manages: whether it is shown with whom the run is shared, and whose it is: to its launcher and to operators.
        operates: whether the caller is an operator, who may end and delete every run without seeing into it.
    """

    row: RunRow
    level: int
    modes: tuple[Mode, ...]
    own: bool
    contents: bool = True
    share: ShareRow | None = None
    manages: bool = False
    operates: bool = False

    @property
    def launcher(self) -> str | None:
        """Whose the run is, by its account, where the caller is told."""
        return account_of(self.row.principal) if self.manages else None

    def check_mode(self) -> None:
        """Refuse callers who may only read.

        Raises:
            CallError: 403 `not-granted`.
        """
        if "x" not in self.modes:
            raise CallError(403, "not-granted", "you may read this run, but not change it")

    def check_own(self) -> None:
        """Refuse all but who launched the run and may manage it.

        Raises:
            CallError: 403 `not-granted` or `not-yours`.
        """
        self.check_mode()
        if not self.own:
            raise CallError(403, "not-yours", "only the launcher of this run may do that; it is only shared with you")

    def check_end(self) -> None:
        """Refuse callers who may not end the run.

        Raises:
            CallError: 403 `not-granted`.
        """
        if not self.operates:
            self.check_mode()

    def check_delete(self) -> None:
        """Refuse callers who may not delete the run once it is over.

        Raises:
            CallError: 403 `not-granted` or `not-yours`.
        """
        if not self.operates:
            self.check_own()

    def check_contents(self) -> None:
        """Refuse callers who may not see what the run is about.

        Raises:
            CallError: 403 `private`.
        """
        if not self.contents:
            raise CallError(403, "private", "only the launcher of this run can see its contents")

    def check_outputs(self) -> None:
        """Refuse callers who may not read outputs.

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

    def __init__(self, store: Store, shares: Shares, contents_for: Iterable[str] = ()):
        self._store = store
        self._shares = shares
        self.contents_for = frozenset(contents_for)

    async def run(self, caller: Caller, fid: str) -> Seen:
        """Return a run that the caller sees.

        Raises:
            CallError: 404 `no-such-run`, whether there is none or it is not for this caller; 410 with the reason
                when the caller has opened a link of it that is dead by now.
        """
        row, principal = await self._store.run(fid), caller.principal
        if row is not None and row.principal == principal.id:
            return self._own(principal, row)
        digests = sorted(caller.links.get(fid, ()))
        share, dead = await self._shares.best(fid, principal, caller.peer, digests)
        seen = None if row is None else self.of(principal, row, share)
        if seen is None:
            raise no_such_run() if dead is None else gone(dead)
        return seen

    def of(self, principal: Principal, row: RunRow, share: ShareRow | None = None) -> Seen | None:
        """Return how `principal` sees the run, given the share that it has of it; None: not at all."""
        if row.principal == principal.id:
            return self._own(principal, row)
        office = self._by_office(principal, row)
        if share is None or (office is not None and office.contents and office.level > share.level):
            return office
        modes: tuple[Mode, ...] = ("r", "x") if share.mode == "x" else ("r",)
        operator = principal.operator
        return Seen(row, share.level, modes, own=False, share=share, manages=operator, operates=operator)

    def _own(self, principal: Principal, row: RunRow) -> Seen:
        return Seen(
            row, _level(principal, row), _modes(principal, row), own=True, manages=True, operates=principal.operator
        )

    def _by_office(self, principal: Principal, row: RunRow) -> Seen | None:
        offices = {Role.OPERATOR} if principal.operator else set[str]()
        if principal.develops_flow(row.path):
            offices.add(Role.DEVELOPER)
        if not offices:
            return None
        contents = not self.contents_for.isdisjoint(offices)
        level = _level(principal, row) if contents else 0
        operator = principal.operator
        return Seen(row, level, ("r",), own=False, contents=contents, manages=operator, operates=operator)


def no_such_run() -> CallError:
    """Return the refusal for a run that does not exist, or not for this caller."""
    return CallError(404, "no-such-run", "there is no such run here, or it is not yours")


def _level(principal: Principal, row: RunRow) -> int:
    grant = principal.flow_grant(row.path, "r")
    return grant.level if grant is not None else 0


def _modes(principal: Principal, row: RunRow) -> tuple[Mode, ...]:
    return ("r", "x") if principal.flow_grant(row.path, "x") is not None else ("r",)
