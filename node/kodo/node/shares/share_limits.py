"""What a share shows at most: what its maker may see now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kodo.access.provider import Provider
from kodo.node.store.share_rows import ShareRow
from kodo.protocol.access import Principal, account_of

__all__ = ["Makers"]


class Makers:
    """Bounds shares by the grants of those to whom the runs belong.

    Args:
        node: this node's name; whose maker may not deal with it any more, that share is over.
    """

    def __init__(self, provider: Provider, node: str):
        self._provider = provider
        self._node = node

    async def bound(self, shares: Iterable[ShareRow]) -> list[ShareRow | None]:
        """Return each share at its level and mode of now; None where its maker has no access any more."""
        known: dict[str, Principal | None] = {}
        bounded = []
        for share in shares:
            who = account_of(share.principal)
            if who not in known:
                known[who] = await self._provider.present(who)
            bounded.append(self._bound(share, known[who]))
        return bounded

    def _bound(self, share: ShareRow, maker: Principal | None) -> ShareRow | None:
        if maker is None:
            return share
        if not maker.enters(self._node):
            return None
        seen = maker.flow_grant(share.path, "r")
        level = min(share.level, 0 if seen is None else seen.level)
        return replace(share, level=level, mode=share.mode if maker.flow_grant(share.path, "x") else "r")
