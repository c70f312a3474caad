"""Who deals with a node and what it may do: principals and grants, as data."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

from kodo.p2p.errors import UsageError

__all__ = ["Grant", "Mode", "Principal", "Role", "parse_grant"]

Mode = Literal["r", "w", "x"]


class Role:
    """The roles that kodo itself knows; a provider may know more."""

    OPERATOR = "operator"
    DEVELOPER = "developer"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission.

    Attributes:
        scheme: `node`, `registry` or `flow`.
        target: a node's or registry's name, or a glob over flow paths.
        level: 0, 1 or 2: which events a holder sees (flows only).
        mode: `r` read; `w` write (registry); `x` launch, manage own runs, answer locks (flows).
    """

    scheme: Literal["node", "registry", "flow"]
    target: str
    level: int = 2
    mode: Mode = "x"

    def __str__(self) -> str:
        match self.scheme:
            case "node":
                return f"node://{self.target}"
            case "registry":
                return f"registry://{self.target}/{self.mode}"
            case _:
                return f"flow://{self.target}/{self.level}/{self.mode}"

    def covers_flow(self, path: str) -> bool:
        """Whether this grant is about the flow at `path`."""
        return self.scheme == "flow" and fnmatch.fnmatchcase(path, self.target)


def parse_grant(text: str) -> Grant:
    """Read `node://<name>`, `registry://<name>/<r|w>` or `flow://<path glob>/<0|1|2>/<r|x>`.

    Raises:
        UsageError: saying which part is wrong.
    """
    scheme, separator, rest = text.partition("://")
    if separator and rest:
        if scheme == "node" and "/" not in rest:
            return Grant("node", rest)
        if scheme == "registry":
            name, _, mode = rest.rpartition("/")
            if name and mode in ("r", "w"):
                return Grant("registry", name, mode="r" if mode == "r" else "w")
        if scheme == "flow":
            head, _, mode = rest.rpartition("/")
            target, _, level = head.rpartition("/")
            if target and level in ("0", "1", "2") and mode in ("r", "x"):
                return Grant("flow", target, int(level), "r" if mode == "r" else "x")
    raise UsageError(f"{text!r} is not a grant: node://NAME, registry://NAME/r|w or flow://PATH GLOB/0|1|2/r|x")


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a node deals with: runs, shares and idempotency keys belong to `id`.

    Attributes:
        id: the user id of a logged-in caller, else its peer id.
        peer_id: the key that the session proved.
        user: the user id, when logged in.
    """

    id: str
    peer_id: str
    user: str | None = None
    roles: frozenset[str] = frozenset({Role.USER})
    grants: tuple[Grant, ...] = ()

    @property
    def operator(self) -> bool:
        """Whether this principal runs the node."""
        return Role.OPERATOR in self.roles

    def flow_grant(self, path: str, mode: Mode) -> Grant | None:
        """Give the grant of the highest level that allows `mode` on the flow at `path`, if there is one.

        `x` includes `r`.
        """
        fitting = [
            grant for grant in self.grants if grant.covers_flow(path) and (grant.mode == mode or grant.mode == "x")
        ]
        return max(fitting, key=lambda grant: grant.level, default=None)
