"""Who deals with a node and what it may do: principals, roles and grants, as data."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from kodo.p2p.errors import UsageError
from kodo.protocol.ids import is_id

__all__ = [
    "ROLE_PATTERN",
    "Grant",
    "Mode",
    "Principal",
    "Role",
    "account_of",
    "check_role",
    "parse_grant",
    "split_roles",
]

Mode = Literal["r", "w", "x"]


class Role:
    """The roles that kodo itself knows; a provider may know more.

    A developer is one of named flows: the role is given as `developer:GLOB`, a glob over flow paths.
    """

    OPERATOR = "operator"
    DEVELOPER = "developer"
    USER = "user"


ROLE_PATTERN = r"^[a-z][a-z0-9._-]{0,63}$"
"""What a role's name looks like."""

_MAX_TEXT = 256
"""Bound of a grant, and of a role with its glob."""


def check_role(text: str) -> str:
    """Return `text` back when it is a role: a name, or `developer:GLOB`.

    Raises:
        UsageError: saying what is wrong.
    """
    head, colon, glob = text.partition(":")
    if head == Role.DEVELOPER:
        if colon and glob and len(text) <= _MAX_TEXT and text.isprintable():
            return text
        raise UsageError("the role developer needs flows: developer:GLOB, e.g. developer:flows.market.*")
    if not re.fullmatch(ROLE_PATTERN, text):
        raise UsageError(f"{text[:80]!r} is not a role: use lower-case letters, digits and . _ -, or developer:GLOB")
    return text


def split_roles(texts: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the names of roles, and the globs of those that are `developer:GLOB`."""
    names, globs = set[str](), set[str]()
    for text in texts:
        head, colon, glob = text.partition(":")
        names.add(head)
        if colon:
            globs.add(glob)
    return frozenset(names), tuple(sorted(globs))


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission.

    Attributes:
        scheme: `node`, `registry`, `flow` or `memory`.
        target: a glob over the names of nodes, registries or shared memories, or over flow paths.
        level: 0, 1 or 2: which events a holder sees (flows only).
        mode: `r` read; `w` write (registry, memory); `x` launch, manage own runs, answer locks (flows).
    """

    scheme: Literal["node", "registry", "flow", "memory"]
    target: str
    level: int = 2
    mode: Mode = "x"

    def __str__(self) -> str:
        match self.scheme:
            case "node":
                return f"node://{self.target}"
            case "registry":
                return f"registry://{self.target}/{self.mode}"
            case "memory":
                return f"memory://{self.target}/{self.mode}"
            case _:
                return f"flow://{self.target}/{self.level}/{self.mode}"

    def covers_flow(self, path: str) -> bool:
        """Whether this grant is about the flow at `path`."""
        return self.scheme == "flow" and fnmatch.fnmatchcase(path, self.target)

    def covers_node(self, name: str) -> bool:
        """Whether this grant lets its holder open sessions to the node of this name."""
        return self.scheme == "node" and fnmatch.fnmatchcase(name, self.target)


def parse_grant(text: str) -> Grant:
    """Read `node://<name>`, `registry://<name>/<r|w>`, `flow://<path glob>/<0|1|2>/<r|x>` or `memory://<glob>/<r|w>`.

    Raises:
        UsageError: saying which part is wrong.
    """
    scheme, separator, rest = text.partition("://")
    if separator and rest and len(text) <= _MAX_TEXT and text.isprintable():
        if scheme == "node" and "/" not in rest:
            return Grant("node", rest)
        if scheme in ("registry", "memory"):
            name, _, mode = rest.rpartition("/")
            if name and mode in ("r", "w"):
                known: Literal["registry", "memory"] = "registry" if scheme == "registry" else "memory"
                return Grant(known, name, mode="r" if mode == "r" else "w")
        if scheme == "flow":
            head, _, mode = rest.rpartition("/")
            target, _, level = head.rpartition("/")
            if target and level in ("0", "1", "2") and mode in ("r", "x"):
                return Grant("flow", target, int(level), "r" if mode == "r" else "x")
    raise UsageError(
        f"{text!r} is not a grant: node://NAME, registry://NAME/r|w, memory://NAME/r|w or flow://PATH GLOB/0|1|2/r|x"
    )


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a node deals with: runs, shares and idempotency keys belong to `id`.

    Attributes:
        id: the user id of a logged-in caller, else its peer id.
        peer_id: the key that the session proved.
        user: the user id, when logged in.
        roles: names of roles.
        grants: what it may do.
        develops: globs over the paths of the flows that it is a developer of.
    """

    id: str
    peer_id: str
    user: str | None = None
    roles: frozenset[str] = frozenset({Role.USER})
    grants: tuple[Grant, ...] = ()
    develops: tuple[str, ...] = ()

    def on_behalf(self, fid: str) -> Principal:
        """Return the principal as which a node deals for its run `fid`: the same grants, and runs of its own."""
        # Before the id: no user and no peer has a name that begins so, though an issuer's may hold any `/`.
        return replace(self, id=f"{fid}/{self.id}")

    @property
    def operator(self) -> bool:
        """Whether this principal runs the node."""
        return Role.OPERATOR in self.roles

    def develops_flow(self, path: str) -> bool:
        """Whether this principal is a developer of the flow at `path`."""
        return Role.DEVELOPER in self.roles and any(fnmatch.fnmatchcase(path, glob) for glob in self.develops)

    def enters(self, node: str) -> bool:
        """Whether this principal may deal with the node of this name at all."""
        return self.operator or any(grant.covers_node(node) for grant in self.grants)

    def flow_grant(self, path: str, mode: Mode) -> Grant | None:
        """Return the grant of the highest level that allows `mode` on the flow at `path`, if there is one.

        `x` includes `r`.
        """
        fitting = [
            grant for grant in self.grants if grant.covers_flow(path) and (grant.mode == mode or grant.mode == "x")
        ]
        return max(fitting, key=lambda grant: grant.level, default=None)

    def memory_grant(self, name: str, mode: Literal["r", "w"]) -> Grant | None:
        """Return a grant that lets this principal's runs read (`r`) or change (`w`) a shared memory, if any.

        `w` includes `r`.
        """
        return self._named_grant("memory", name, mode)

    def registry_grant(self, name: str, mode: Literal["r", "w"]) -> Grant | None:
        """Return a grant to read (`r`) a registry or to have nodes announced there (`w`), if there is one.

        `w` includes `r`.
        """
        return self._named_grant("registry", name, mode)

    def _named_grant(self, scheme: Literal["memory", "registry"], name: str, mode: Literal["r", "w"]) -> Grant | None:
        return next(
            (
                grant
                for grant in self.grants
                if grant.scheme == scheme and grant.mode in (mode, "w") and fnmatch.fnmatchcase(name, grant.target)
            ),
            None,
        )


def account_of(principal: str) -> str:
    """Return whose grants and bounds hold for a principal, by ids: the node's, of one that deals for a run of its."""
    head, slash, tail = principal.partition("/")
    return tail if slash and is_id(head) else principal
