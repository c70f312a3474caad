"""Looks up the names of HTTP servers without holding anybody up: what `names` does, as aiohttp asks for it."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from kodo.p2p.net.names import look_up

__all__ = ["Names"]


class Names(AbstractResolver):
    """Looks up names by threads that nobody has to wait for: neither who cancels a call nor the loop's end."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host."""
        return [
            ResolveResult(
                hostname=host, host=name[0], port=name[1], family=found, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for found, _, proto, _, name in await look_up(host, port, family=family, server=True)
        ]

    async def close(self) -> None:
        """Leave nothing behind: there is nothing."""
