"""What runs on the hosts of a lab: a peer that listens, or one that dials and says how it went.

python -m tests.support.lab_peer serve HOST... | serve-singly HOST...
python -m tests.support.lab_peer announce | look | follow SECONDS ADDRESS... | fetch BYTES ADDRESS...
python -m tests.support.lab_peer dial SECONDS ADDRESS... | nat ADDRESS...
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.nat import Seen, nat_kind
from kodo.p2p.core.paths import Target
from kodo.p2p.errors import KodoError
from kodo.p2p.net import endpoint
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, CallServer, Request
from kodo.p2p.net.checks import Question, check
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.discovery import Advertisement, Advertiser, Browser
from kodo.p2p.net.host import Host
from kodo.p2p.net.interfaces import local_addresses

EVERY_SECONDS = 0.02
PIECE_BYTES = 16_000


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def answer(request: Request) -> None:
    """`tick` for ever, or send so many bytes."""
    if request.op == "tick":
        while True:
            await request.send(b"tick")
            await asyncio.sleep(EVERY_SECONDS)
    left = request.args.get("bytes", 0)
    while left > 0:
        await request.send(bytes(min(left, PIECE_BYTES)))
        left -= PIECE_BYTES


async def serve(hosts: Sequence[str]) -> None:
    async with Host(Identity.from_seed(b"n" * 32), WebRtcTransport()) as host:
        host.handle(CALL_PROTOCOL, CallServer(answer))
        say([str(address) for address in await host.listen(hosts or ["0.0.0.0", "::"])])
        await asyncio.Event().wait()


async def announce() -> None:
    """Listen on all addresses and announce them on the local network."""
    async with Host(Identity.from_seed(b"n" * 32), WebRtcTransport()) as host:
        host.handle(CALL_PROTOCOL, CallServer(answer))
        await host.listen()
        peer = str(host.peer_id)
        async with Advertiser(lambda: Advertisement(peer, "lab", 0, tuple(host.addresses()))):
            say({"ready": peer})
            await asyncio.Event().wait()


async def look() -> None:
    """Say at which addresses nodes are announced, and dial whoever is."""
    dialled = False
    async with Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as host, Browser() as browser:
        say({"ready": True})
        async for nodes in browser.changes():
            for node in nodes:
                if not dialled and any(not is_own_host(address.host) for address in node.addresses):
                    session = await host.connect(node.addresses)
                    dialled = True
                    say({"at": session.remote_address[0], "announced": [each.host for each in node.addresses]})


async def kind_of_nat(addresses: Sequence[str]) -> dict[str, Any]:
    """Return what kind of NAT is before this host, by what the listeners at these addresses see."""
    parsed = [Multiaddr.parse(address) for address in addresses]
    checks = await check(Question(Target(each.host, each.port)) for each in parsed)
    seen = [Seen((each.target.host, each.target.port), each.mapped, each.refused is not None) for each in checks]
    return {"kind": nat_kind(seen, set(local_addresses())), "seen": [each.mapped for each in checks]}


async def dial(addresses: Sequence[str], seconds: float) -> dict[str, Any]:
    """Dial; return where it was answered, or why it was not."""
    async with Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as host:
        try:
            session = await host.connect([Multiaddr.parse(address) for address in addresses], timeout=seconds)
        except KodoError as error:
            return {"refused": str(error)}
        return {"connected": session.remote_address[0], "route": session.route}


async def call(op: str, args: dict[str, Any], addresses: Sequence[str], seconds: float) -> dict[str, Any]:
    """Make one call; return what it took, the longest wait for an item, and how it ended."""
    loop = asyncio.get_running_loop()
    async with Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as host:
        began = loop.time()
        session = await host.connect([Multiaddr.parse(address) for address in addresses])
        told: dict[str, Any] = {"connected_ms": round(1000 * (loop.time() - began)), "bytes": 0, "items": 0}
        longest, error = 0.0, None
        say({"connected": session.remote_address[0]})
        last = loop.time()
        try:
            async with asyncio.timeout(seconds), Call(session, op, args, timeout=None) as call:
                async for item in call:
                    longest, last = max(longest, loop.time() - last), loop.time()
                    told["bytes"] += len(item)
                    told["items"] += 1
        except (KodoError, TimeoutError) as caught:
            error = None if isinstance(caught, TimeoutError) and op == "tick" else repr(caught)
        longest = max(longest, loop.time() - last)
        return {
            **told,
            "longest_gap_ms": round(1000 * longest),
            "error": error,
            "at": session.remote_address[0],
            "route": session.route,
            "closed": session.closed,
        }


async def main(words: Sequence[str]) -> None:
    match words:
        case ["serve", *hosts]:
            await serve(hosts)
        case ["serve-singly", *hosts]:
            # Linux lets routers fragment what it has cut itself; what goes datagram by datagram it does not.
            endpoint._UDP_SEGMENT = -1
            await serve(hosts)
        case ["announce"]:
            await announce()
        case ["look"]:
            await look()
        case ["nat", *addresses]:
            say(await kind_of_nat(addresses))
        case ["dial", seconds, *addresses]:
            say(await dial(addresses, float(seconds)))
        case ["follow", seconds, *addresses]:
            say(await call("tick", {}, addresses, float(seconds)))
        case ["fetch", count, *addresses]:
            say(await call("bytes", {"bytes": int(count)}, addresses, 60.0))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
