"""Nodes in memory for the client library: real calls over real sessions, links that can be cut, and strangers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from kodo.client import Client
from kodo.client.resolve import Found, Wanted
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request
from kodo.p2p.net.host import Host
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport
from kodo.protocol.events import Event
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder

__all__ = ["DATA", "FID", "Place", "Service", "World", "event"]

FID = "01jd2n8x4q5w6e7r8t9y0abcde"
DATA = bytes(range(256)) * 5000


def event(seq: int, name: str = "result", **data: Any) -> dict[str, Any]:
    return Event(seq, 1000 + seq, "process", name, data or {"text": str(seq)}).to_wire()


class Service:
    """One run of `events`; `cuts`: the `seq` after which the network breaks, once each; `calls`: what was asked."""

    def __init__(self, network: MemoryNetwork, events: Sequence[dict[str, Any]]):
        self.network = network
        self.events = list(events)
        self.cuts: list[int] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.extra: Callable[[int], Sequence[Any]] = lambda after: ()
        self.unfinished = False
        self.told: dict[str, Any] = {}
        self.made: list[dict[str, Any]] = [{"name": "x.bin", "size": len(DATA)}]
        self.room = 500
        self.refusals: list[CallError] = []
        self.answers: dict[str, Any] = {}
        """What other ops are answered with: an answer, or what gives it for the args."""
        self.schema: dict[str, Any] = {"type": "object"}
        self.flows = [
            {"path": "flows.market.Competitor", "name": "Competitor Analysis"},
            {"path": "flows.b", "name": "Twin"},
            {"path": "flows.c", "name": "Twin"},
        ]

    async def __call__(self, request: Request) -> Any:
        self.calls.append((request.op, request.args))
        args = request.args
        match request.op:
            case "flow.list":
                return {"result": self.flows, "total_pages": 1}
            case "flow.schema":
                if args["path"] not in [flow["path"] for flow in self.flows]:
                    raise CallError(404, "no-such-flow", "none")
                return {"path": args["path"], "name": "n", "schema": self.schema}
            case "run.launch":
                return {"fid": FID, "state": "pending"}
            case "run.stream":
                return await self._stream(request, args["after"])
            case "run.state":
                if args["fid"] != FID:
                    raise CallError(404, "no-such-run", "none")
                return {"fid": FID, "state": "done", **self.told}
            case "run.restart":
                return {"fid": "0" * 26, "state": "pending"}
            case "run.ack" | "run.delete":
                return {"fid": FID, "state": "done"}
            case "lock.answer":
                return {"unlock": {"lid": args["lid"], "answer": args["candidate"]}}
            case "output.list":
                if args["pp"] > self.room:
                    raise CallError(413, "page-too-large", "many", {"pp": self.room})
                some = self.made[(args["p"] - 1) * args["pp"] : args["p"] * args["pp"]]
                return {"result": some, "total_pages": -(-len(self.made) // args["pp"])}
            case "output.manifest":
                builder = ManifestBuilder()
                builder.update(DATA)
                whole = builder.finish()
                head = {"size": whole.size, "sha256": whole.sha256.hex(), "chunk_bytes": CHUNK_BYTES}
                return {**head, "from": args["from"], "chunks": list(whole.chunks[args["from"] :])}
            case "output.read":
                for at in range(args["offset"], len(DATA), 65536):
                    await request.send(DATA[at : at + 65536])
                    if self.refusals and at >= CHUNK_BYTES + args["offset"]:
                        raise self.refusals.pop(0)
                return {"bytes": len(DATA) - args["offset"]}
        if request.op in self.answers:
            answer = self.answers[request.op]
            return answer(args) if callable(answer) else answer
        raise CallError(404, "no-such-op", request.op)

    async def _stream(self, request: Request, after: int) -> Any:
        for item in self.extra(after):
            await request.send(item)
        for each in self.events:
            if each["seq"] > after:
                await request.send(each)
                if self.cuts and each["seq"] == self.cuts[0]:
                    self.cuts.pop(0)
                    await request.stream.session._link.drained()
                    self.network.cut()
        if self.unfinished:
            await asyncio.Event().wait()
        return {"last_seq": self.events[-1]["seq"], "state": "done"}


class Place:
    label = "memory"

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.asked = 0

    async def find(self, wanted: Wanted | None) -> list[Found]:
        self.asked += 1
        return self.found


class World:
    """A network with one node, its service, and where it is found."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(delay_s=0)
        self.service = Service(
            self.network, [event(seq) for seq in range(1, 200)] + [event(200, "final", result="r")]
        )
        self.place = Place()
        self.host = Host(Identity.from_seed(b"n" * 32), MemoryTransport(self.network))
        self.host.handle(CALL_PROTOCOL, CallServer(self.service))

    @contextlib.asynccontextmanager
    async def stranger(
        self, number: int, name: str, answer: Callable[[Request], Awaitable[Any]]
    ) -> AsyncIterator[Host]:
        """Another node nearby, which answers as `answer` does."""
        host = Host(Identity.from_seed(bytes([number]) * 32), MemoryTransport(self.network))
        host.handle(CALL_PROTOCOL, CallServer(answer))
        async with host:
            await host.listen([f"10.0.1.{number}"], 4711)
            self.place.found.append(Found(host.peer_id, name, tuple(host.addresses()), "lan"))
            yield host

    async def leave(self) -> None:
        """Take the node away."""
        await self.host._listeners.pop().aclose()
        self.network.cut()
        self.place.found = [each for each in self.place.found if each.peer_id != self.host.peer_id]

    def client(self, home: Path, **options: Any) -> Client:
        given = {"lan": False, "registries": [], "finders": [self.place], "transport": self.transport(), **options}
        return Client(home, **given)

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self.network)

    def claim(self, name: str) -> None:
        self.place.found = [Found(self.host.peer_id, name, tuple(self.host.addresses()), "lan")]
