"""What runs on the hosts of a lab: a peer that listens, or one that dials and says how it went.

python -m tests.support.lab_peer serve HOST... | serve-singly HOST...
python -m tests.support.lab_peer announce | look | follow SECONDS ADDRESS...
python -m tests.support.lab_peer fetch BYTES ADDRESS... | fetch-by ROUTE BYTES ADDRESS...
python -m tests.support.lab_peer dial SECONDS ADDRESS... | nat ADDRESS...
python -m tests.support.lab_peer relay HOST RATE NAME... | attached RELAY NAME PUNCH | introduced RELAY NAME
python -m tests.support.lab_peer reach '{"NAME": [ADDRESS, ...], ...}'
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.nat import Seen, nat_kind
from kodo.p2p.core.paths import Target
from kodo.p2p.core.relay import RelayBounds
from kodo.p2p.errors import KodoError
from kodo.p2p.net import endpoint
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, CallServer, Request
from kodo.p2p.net.checks import Question, check
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.discovery import Advertisement, Advertiser, Browser
from kodo.p2p.net.host import Host
from kodo.p2p.net.interfaces import local_addresses
from kodo.p2p.net.relay import RelayServer
from kodo.p2p.net.transport import Punch

EVERY_SECONDS = 0.02
PIECE_BYTES = 16_000
RELAY_PORT = 8360


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


async def answer(request: Request) -> None:
    """`tick` for ever, or send so many bytes."""
    if request.op == "tick":
        while True:
            await request.send(b"tick")
            await asyncio.sleep(request.args.get("every", EVERY_SECONDS))
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
    """Dial; return where it was answered and how long that took, or why it was not."""
    async with Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as host:
        began = asyncio.get_running_loop().time()
        try:
            session = await host.connect([Multiaddr.parse(address) for address in addresses], timeout=seconds)
        except KodoError as error:
            return {"refused": str(error)}
        took = 1000 * (asyncio.get_running_loop().time() - began)
        return {"connected": session.remote_address[0], "route": session.route, "ms": took}


async def call(
    op: str, args: dict[str, Any], addresses: Sequence[str], seconds: float, route: str = ""
) -> dict[str, Any]:
    """Make one call, once the session takes a route if one is named.

    Returns:
        What it took, the longest wait for an item, and how it ended.
    """
    loop = asyncio.get_running_loop()
    async with Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as host:
        began = loop.time()
        session = await host.connect([Multiaddr.parse(address) for address in addresses])
        told: dict[str, Any] = {"connected_ms": round(1000 * (loop.time() - began)), "bytes": 0, "items": 0}
        longest, error = 0.0, None
        last: float | None = None
        while route not in ("", session.route):  # noqa: ASYNC110 - a session tells nobody
            await asyncio.sleep(0.05)
        say({"connected": session.remote_address[0]})
        begin = loop.time()
        try:
            async with asyncio.timeout(seconds), Call(session, op, args, timeout=None) as call:
                async for item in call:
                    now = loop.time()
                    longest, last = max(longest, now - (last or now)), now
                    told["bytes"] += len(item)
                    told["items"] += 1
        except (KodoError, TimeoutError) as caught:
            error = None if isinstance(caught, TimeoutError) and op == "tick" else repr(caught)
        longest = max(longest, loop.time() - (last or begin))
        return {
            **told,
            "seconds": loop.time() - begin,
            "longest_gap_ms": round(1000 * longest),
            "error": error,
            "at": session.remote_address[0],
            "route": session.route,
            "closed": session.closed,
        }


def identity_of(name: str) -> Identity:
    return Identity.from_seed(hashlib.sha256(name.encode()).digest())


def token_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def when_signalled() -> asyncio.Event:
    """Return what is set by SIGUSR1."""
    signalled = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, signalled.set)
    return signalled


async def relay(host: str, rate: str, names: Sequence[str]) -> None:
    """Relay for the nodes of these names, with the usual bounds or at a rate of so many bytes a second.

    Each SIGUSR1 starts it anew; it knows of nobody then.

    Args:
        rate: or `off`: it only introduces.
    """
    bounds = RelayBounds.introducing_only() if rate == "off" else RelayBounds()
    if rate.isdecimal():
        bounds = RelayBounds(**{name: int(rate) for name in ("rate", "rate_per_node", "rate_per_channel")})
    restart = when_signalled()
    started = False
    while True:
        server = RelayServer(bounds)
        server.open([host], RELAY_PORT)
        for name in names:
            server.core.admit(identity_of(name).peer_id, token_of(name), asyncio.get_running_loop().time())
        if not started:
            started = True
            say("ready")
        await restart.wait()
        restart.clear()
        server.close()


async def attached(relay: str, name: str, punch: Punch, carries: bool) -> None:
    """Listen, attach to a relay, and say where to dial. Each SIGUSR1 has it attach anew."""
    async with Host(identity_of(name), WebRtcTransport(punch=punch)) as host:
        host.handle(CALL_PROTOCOL, CallServer(answer))
        await host.listen(["0.0.0.0"])
        changed = asyncio.Event()
        host.attach((relay, RELAY_PORT), token_of(name), changed.set, None, carries)
        await changed.wait()
        say([str(address) for address in host.all_addresses()])
        again = when_signalled()
        while True:
            await again.wait()
            again.clear()
            host.attach((relay, RELAY_PORT), token_of(name), changed.set, None, carries)


async def reach(nodes: Mapping[str, Sequence[str]]) -> None:
    """Dial nodes, have each of them send for ever, and say by which route that comes, each time that it changes.

    Or why it does not come.
    """

    async def to(name: str, addresses: Sequence[str]) -> None:
        try:
            session = await host.connect([Multiaddr.parse(address) for address in addresses], timeout=30)
        except KodoError as error:
            say([name, str(error)])
            return
        route = ""
        async with Call(session, "tick", {"every": 0.2}, timeout=None) as call:
            async for _ in call:
                if session.route != route:
                    route = session.route
                    say([name, route])

    async with Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as host, asyncio.TaskGroup() as group:
        for name, addresses in nodes.items():
            group.create_task(to(name, addresses))


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
        case ["relay", host, rate, *names]:
            await relay(host, rate, names)
        case ["attached", host, name, "early" | "never" as punch]:
            await attached(host, name, punch, True)
        case ["introduced", host, name]:
            await attached(host, name, "early", False)
        case ["reach", nodes]:
            await reach(json.loads(nodes))
        case ["dial", seconds, *addresses]:
            say(await dial(addresses, float(seconds)))
        case ["follow", seconds, *addresses]:
            say(await call("tick", {}, addresses, float(seconds)))
        case ["fetch-by", route, count, *addresses]:
            say(await call("bytes", {"bytes": int(count)}, addresses, 120.0, route))
        case ["fetch", count, *addresses]:
            say(await call("bytes", {"bytes": int(count)}, addresses, 60.0))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
