"""`memory.*`: developers look into long-term and shared memory, and publish it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

from kodo.node.answers.caller import Caller, Handlers
from kodo.node.catalog.catalog import Catalog
from kodo.node.files.uploads import PIECE_S, timely
from kodo.node.requests.memories import Memories, may_share
from kodo.p2p.errors import CallError, CapacityError, IntegrityError, UsageError
from kodo.protocol.access import Principal, Role
from kodo.protocol.args.memories import MemoryListArgs, MemoryPutArgs
from kodo.protocol.memory import MEMORY_PIECE_BYTES, check_shared
from kodo.protocol.pages import paged

__all__ = ["MemoryAnswers", "may_publish"]


class MemoryAnswers:
    """Answers what developers ask of memories. Contents stay with the flows: keys and sizes are shown, no values."""

    def __init__(self, memories: Memories, catalog: Catalog):
        self._memories = memories
        self._catalog = catalog

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {"memory.list": self._list, "memory.put": self._put}

    async def _list(self, caller: Caller, args: MemoryListArgs) -> dict[str, Any]:
        skip = (args.p - 1) * args.pp
        if args.of is None:
            rows = [
                {"scope": row.scope, "of": row.of, "keys": row.keys, "files": row.files, "bytes": row.bytes}
                | {"modified": row.modified}
                for row in await self._memories.all()
                if row.scope in ([args.scope] if args.scope else ["long", "shared"])
                and may_publish(caller.principal, row.scope, row.of)
            ]
            return paged(rows[skip : skip + args.pp], len(rows), len(rows), args.p, args.pp)
        if args.scope is None:
            raise CallError(400, "bad-args", "memory.list: scope: must be long or shared", {"arg": "scope"})
        self._check(caller, args.scope, args.of)
        total, rows = await self._memories.contents(args.scope, args.of, args.prefix, skip, args.pp)
        return paged(rows, total, total, args.p, args.pp)

    async def _put(self, caller: Caller, args: MemoryPutArgs) -> dict[str, Any]:
        self._check(caller, args.scope, args.of)
        if args.scope == "long" and not any(flow.path == args.of for flow in self._catalog.flows):
            raise CallError(404, "no-such-flow", f"this node offers no flow {args.of[:128]!r} to you")
        if (args.size is None) != (args.sha256 is None):
            raise CallError(400, "bad-args", "memory.put: a file needs both size and sha256", {"arg": "sha256"})
        try:
            if args.remove:
                gone = [await self._memories.put(args.scope, args.of, op, {name: args.key}) for op, name in _REMOVALS]
                return {"scope": args.scope, "of": args.of, "key": args.key, "removed": any(gone)}
            if args.size is None:
                await self._memories.put(args.scope, args.of, "set", {"key": args.key, "value": args.value})
            else:
                await self._file(args, caller.payer, args.size, timely(caller.asked.uploads(), PIECE_S))
        except UsageError as error:
            raise CallError(400, "bad-args", str(error), {"arg": "key"}) from None
        except CapacityError as error:
            raise CallError(413, "too-large", str(error)) from None
        except IntegrityError as error:
            raise CallError(422, "bad-hash", str(error)) from None
        return {"scope": args.scope, "of": args.of, "key": args.key}

    async def _file(self, args: MemoryPutArgs, payer: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        upload, offset, pending = secrets.token_hex(8), 0, bytearray()

        async def store(data: bytes) -> None:
            nonlocal offset
            piece = {"name": args.key, "upload": upload, "offset": offset, "data": data}
            whole = {**piece, "size": size, "sha256": args.sha256}
            told = await self._memories.put(args.scope, args.of, "file.write", whole, payer=payer)
            offset = int(told["offset"])

        try:
            async for piece in pieces:
                pending += piece
                if offset + len(pending) > size:
                    raise IntegrityError(f"more than the announced {size} bytes arrived")
                while len(pending) >= MEMORY_PIECE_BYTES:
                    await store(bytes(pending[:MEMORY_PIECE_BYTES]))
                    del pending[:MEMORY_PIECE_BYTES]
            if pending or not size:
                await store(bytes(pending))
            if offset != size:
                raise IntegrityError(f"{size} bytes were announced, but {offset} arrived")
        except BaseException:
            await self._memories.drop(upload, payer=payer)
            raise

    def _check(self, caller: Caller, scope: str, of: str) -> None:
        if scope == "shared":
            try:
                check_shared(of)
            except ValueError as error:
                raise CallError(400, "bad-args", f"of: {error}", {"arg": "of"}) from None
        if not may_publish(caller.principal, scope, of):
            raise CallError(
                403, "developer-only", "only a developer of the flow, or the node's operator, may do this"
            )


_REMOVALS = (("delete", "key"), ("file.delete", "name"))


def may_publish(principal: Principal, scope: str, of: str) -> bool:
    """Return whether `principal` may see and change what a flow, or a shared memory, holds."""
    if principal.operator:
        return True
    if scope == "long":
        return principal.develops_flow(of)
    return Role.DEVELOPER in principal.roles and may_share(principal, of, "w")
