"""`output.*`, `input.write`: files, out and in."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from kodo.access.places import Places
from kodo.node.answers.caller import Caller, Handlers
from kodo.node.answers.visibility import Sight
from kodo.node.catalog.catalog import Catalog
from kodo.node.files.outputs import Outputs
from kodo.node.files.uploads import Uploads
from kodo.node.runs.runs import Runs
from kodo.node.shares.shares import Shares
from kodo.node.store.rows import OutputRow
from kodo.node.store.share_rows import ShareRow
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, NotFoundError
from kodo.protocol.args.files import InputWriteArgs, ManifestArgs, OutputListArgs, ReadArgs
from kodo.protocol.manifest import CHUNK_BYTES
from kodo.protocol.pages import paged

__all__ = ["MAX_READS", "MAX_READS_EACH", "MAX_READS_PAID", "OutputAnswers"]

MAX_READS = 256
"""Reads of outputs under way: each may hold a MiB."""

MAX_READS_EACH = 32
"""The same of one principal: half of what one session may open."""

MAX_READS_PAID = MAX_READS // 2
"""The same of one payer: where nobody logs in, and with links, all peers of one address; peer ids cost nothing."""

_TAKE_S = 120.0
"""Seconds in which a reader has to take something; who comes back later goes on where it was."""


class OutputAnswers:
    """Answers what is about files."""

    def __init__(
        self,
        sight: Sight,
        store: Store,
        outputs: Outputs,
        uploads: Uploads,
        catalog: Catalog,
        runs: Runs,
        shares: Shares,
    ):
        self._sight = sight
        self._shares = shares
        self._store = store
        self._outputs = outputs
        self._uploads = uploads
        self._catalog = catalog
        self._runs = runs
        self._by_payer = Places("reads", most=MAX_READS, each=MAX_READS_PAID)
        self._by_principal = Places("reads", most=MAX_READS, each=MAX_READS_EACH)

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {
            "output.list": self._list,
            "output.manifest": self._manifest,
            "output.read": self._read,
            "input.write": self._write,
        }

    async def _list(self, caller: Caller, args: OutputListArgs) -> dict[str, Any]:
        (await self._sight.run(caller, args.fid)).check_outputs()
        total, found = await self._store.outputs(args.fid, p=args.p, pp=args.pp)
        rows = [
            {
                "name": row.name,
                "size": row.manifest.size,
                "media_type": row.media_type,
                "sha256": row.manifest.sha256.hex(),
            }
            for row in found
        ]
        return paged(rows, total, total, args.p, args.pp)

    async def _manifest(self, caller: Caller, args: ManifestArgs) -> dict[str, Any]:
        row, _ = await self._output(caller, args.fid, args.name)
        chunks = row.manifest.chunks
        return {
            "name": row.name,
            "size": row.manifest.size,
            "sha256": row.manifest.sha256.hex(),
            "chunks_sha256": row.manifest.chunks_sha256.hex(),
            "chunk_bytes": CHUNK_BYTES,
            "from": args.from_,
            "chunks": list(chunks[args.from_ : args.from_ + args.count]),
            "total_chunks": len(chunks),
        }

    async def _read(self, caller: Caller, args: ReadArgs) -> dict[str, Any]:
        row, share = await self._output(caller, args.fid, args.name)
        size, start = row.manifest.size, args.offset
        if start > size:
            raise CallError(416, "bad-range", f"the output has {size} bytes; there is nothing at byte {start}")
        with self._by_payer.hold(caller.payer), self._by_principal.hold(caller.principal.id or caller.peer):
            return await self._send(caller, args, row, share)

    async def _send(self, caller: Caller, args: ReadArgs, row: OutputRow, share: ShareRow | None) -> dict[str, Any]:
        at = start = args.offset
        reading = self._outputs.read(args.fid, row.name, row.manifest, start, args.length)
        try:
            async with (
                self._shares.using(share, caller.asked.abort),
                self._shares.reading(share, caller.peer, row.name) as place,
                contextlib.aclosing(reading) as pieces,
            ):
                async for piece in pieces:
                    end = at + len(piece)
                    if place is not None:
                        await place.before(at, end)
                    await self._taken(caller, piece)
                    if place is not None:
                        place.after(at, end)
                    at = end
        except NotFoundError as error:
            raise CallError(410, "output-gone", str(error)) from None
        return {"bytes": at - start}

    async def _taken(self, caller: Caller, piece: bytes) -> None:
        try:
            async with asyncio.timeout(_TAKE_S):
                await caller.asked.send(piece)
        except TimeoutError:
            # There is no way to tell who takes nothing.
            caller.asked.abort()
            raise CallError(
                408, "too-slow", f"the reader took nothing for {_TAKE_S:g} s; resume from there"
            ) from None

    async def _write(self, caller: Caller, args: InputWriteArgs) -> dict[str, Any]:
        principal = caller.principal
        if not any(principal.flow_grant(flow.path, "x") for flow in self._catalog.flows):
            raise CallError(403, "not-granted", "you may not run any flow here, so you cannot upload files")
        await self._uploads.sweep(uid for live in self._runs.live.values() for uid in live.uploads)
        return await self._uploads.write(principal.id, args, caller.asked.uploads(), payer=caller.payer)

    async def _output(self, caller: Caller, fid: str, name: str) -> tuple[OutputRow, ShareRow | None]:
        seen = await self._sight.run(caller, fid)
        seen.check_outputs()
        row = await self._store.output(fid, name)
        if row is None:
            raise CallError(404, "no-such-output", "this run has no such output")
        return row, seen.share
