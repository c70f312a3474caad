"""The interface of an auth provider: who is this, and what may they do."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from kodo.protocol.access import Principal

__all__ = ["Provider"]


class Provider(Protocol):
    """Decides which user a caller is and what it may do. A node asks at every call.

    What it believes without looking again it believes for 60 s at most.
    """

    name: str
    """`null`, `local` or `oidc`: what `auth.info` shows."""

    def admits(self, address: str | None) -> bool:
        """Whether packets from this IP address (textual, IPv4 or IPv6) are answered at all.

        None: packets that a relay passes on. Where they are from it alone says, and it may lie.
        """
        ...

    def info(self) -> dict[str, Any]:
        """What a caller can do to log in: the answer of `auth.info`."""
        ...

    async def identify(self, peer_id: str, token: str | None = None) -> Principal:
        """Return who the holder of `peer_id` is, who also shows `token`.

        Raises:
            CallError: 401 when the token is not, or no longer, valid; 503 when nobody can tell just now.
        """
        ...

    async def logout(self, token: str) -> None:
        """End a token, if that is up to this provider."""
        ...

    async def recall(self, principal: str) -> Principal:
        """Return what a principal may do now, by its id, with nobody there: for what its runs ask while they run.

        One that is not known any more has no grants.
        """
        ...

    async def present(self, principal: str) -> Principal | None:
        """Return what a principal may do now, as `recall`; None when nobody can tell while it is away."""
        ...

    async def knows(self, kind: Literal["user", "role"], name: str) -> bool:
        """Return whether there may be a user or peer of this id, or a role of this name, to share something with."""
        ...

    def describe(self) -> str:
        """One line for the operator at start: who is let in."""
        ...
