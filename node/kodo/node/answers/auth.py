"""`auth.*`: who is calling."""

from __future__ import annotations

from typing import Any

from kodo.access.provider import Provider
from kodo.node.answers.caller import Caller, Handlers
from kodo.protocol.calls import NoArgs

__all__ = ["AuthAnswers"]


class AuthAnswers:
    """Answers what is about the caller."""

    def __init__(self, provider: Provider):
        self._provider = provider

    def handlers(self) -> Handlers:
        """Give the handlers of these ops."""
        return {"auth.info": self._info, "auth.whoami": self._whoami}

    async def _info(self, caller: Caller, args: NoArgs) -> dict[str, Any]:
        return self._provider.info()

    async def _whoami(self, caller: Caller, args: NoArgs) -> dict[str, Any]:
        principal = caller.principal
        return {
            "principal": principal.id,
            "peer_id": principal.peer_id,
            "user": principal.user,
            "roles": sorted(principal.roles),
            "grants": [str(grant) for grant in principal.grants],
        }
