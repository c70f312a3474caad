"""A call as its handler gets it: who asks, and the way back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal

__all__ = ["OPEN_OPS", "Asked", "Caller", "Handlers", "check_admitted", "check_operator", "granted"]


class Asked(Protocol):
    """What the service needs of a call: `kodo.p2p.net.calls.Request` has it."""

    op: str
    args: dict[str, Any]

    @property
    def session(self) -> Any:
        """The session that the call came by."""
        ...

    async def send(self, item: Any) -> None:
        """Send an item."""
        ...

    async def send_frames(self, frames: bytes) -> None:
        """Send items that are encoded already."""
        ...

    def uploads(self) -> AsyncIterator[bytes]:
        """Give the bytes that follow the args."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the provider said for this call, and the call itself."""

    principal: Principal
    asked: Asked


Handlers = Mapping[str, Callable[[Caller, Any], Awaitable[Any]]]
"""By op: takes the caller and the op's parsed args, gives the `done`."""


OPEN_OPS = frozenset(["auth.info", "auth.login", "auth.password", "auth.enrol", "auth.logout", "auth.whoami"])
"""What everybody may ask whom the node answers at all: how to log in."""


def check_admitted(op: str, principal: Principal, node: str) -> None:
    """Let through who may deal with the node called `node`; nothing else was looked at before.

    Raises:
        CallError: 401 `login-needed`, 403 `not-admitted`.
    """
    if op in OPEN_OPS or principal.enters(node):
        return
    if principal.user is None:
        raise CallError(401, "login-needed", "this node deals with users that it knows only: koco login")
    raise CallError(403, "not-admitted", f"you have no grant node://{node}; ask the operator of the node for it")


def check_operator(principal: Principal) -> None:
    """Let operators through only.

    Raises:
        CallError: 403 `operator-only`.
    """
    if not principal.operator:
        raise CallError(403, "operator-only", "only the node's operator may do this: the user of the node's own home")


def granted(principal: Principal) -> Callable[[str], bool]:
    """Give the test whether a flow, by its path, may be seen at all."""
    return lambda path: principal.flow_grant(path, "r") is not None
