"""What attacks have in common: where they come from, whom they are about, what is counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.paths import Target as Way
from kodo.p2p.core.paths import rank_targets
from kodo.p2p.errors import CallError, KodoError
from kodo.p2p.net import udp
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.dialler import Dialler
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Limits
from tests.support.own_network import BLOCK
from tests.support.raw_peer import RawLink

__all__ = [
    "Attack",
    "Target",
    "connected_from",
    "counted",
    "each_from",
    "forge",
    "http_session",
    "raw_link",
    "session_of",
    "somebody",
    "source",
    "stand_at",
    "step_back",
    "unconnected_from",
]

_source: ContextVar[str] = ContextVar("source", default="127.0.0.1")
"""The address that what the current task dials comes from."""


def step_back(nice: int) -> None:
    """Let this process, which leads a session, have the CPU after others.

    Linux shares it out between sessions first, and looks at what is nice only within each.
    """
    os.nice(nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(min(nice, 19)))


def source() -> str:
    """Return the address that the current task comes from."""
    return _source.get()


def stand_at(attack: int, place: int = 1) -> None:
    """Let the current task, and those that it begins, come from the `place`th address of an attack."""
    _source.set(f"{BLOCK}.{attack}.{place}")


async def each_from(count: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` so many times at once, each from an address of its own beside the current one."""
    block = source().rpartition(".")[0]

    async def begin(place: int) -> None:
        _source.set(f"{block}.{place}")
        await work()

    async with asyncio.TaskGroup() as group:
        for place in range(1, count + 1):
            group.create_task(begin(place))


@dataclass
class Target:
    """Whom it is about.

    Attributes:
        node: its address; `registry`: its URL; `users`: the address of a node with users.
        link: opens a run with an output.
        told: what was done and how it was refused, by attack.
    """

    node: Multiaddr
    registry: str
    users: Multiaddr
    link: str
    folder: Path
    told: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def registry_host(self) -> tuple[str, int]:
        """Host and port of the registry."""
        host, port = self.registry.removeprefix("http://").split(":")
        return host, int(port)


Attack = Callable[[Target, Counter[str]], Awaitable[None]]


@contextlib.contextmanager
def counted(told: Counter[str], what: str) -> Iterator[None]:
    """Count what the block does, or how it was refused."""
    begin = time.monotonic()
    try:
        yield
    except CallError as error:
        told[f"{what}: {error.code} {error.reason}"] += 1
    except (KodoError, OSError, aiohttp.ClientError, TimeoutError) as error:
        told[f"{what}: {type(error).__name__}"] += 1
    else:
        told[what] += 1
    took = round(1000 * (time.monotonic() - begin))
    told[f"{what}: longest ms"] = max(told[f"{what}: longest ms"], took)


def connected_from(host: str, port: int) -> socket.socket:
    """Make a socket that comes from the task's own address and talks to one other only."""
    sock = udp.bind(_source.get(), 0)
    sock.connect((host, port))
    return sock


def unconnected_from(family: socket.AddressFamily) -> socket.socket:
    """Stand for `udp.unconnected`: the socket comes from the task's own address."""
    return udp.bind(_source.get(), 0)


@contextlib.asynccontextmanager
async def session_of(target: Target, node: Multiaddr | None = None) -> AsyncIterator[Session]:
    """Begin a session as somebody new, with `target.node` if no other is named."""
    async with Host(somebody(), WebRtcTransport()) as host:
        yield await host.connect([node or target.node], timeout=20.0)


async def raw_link(target: Target, certificate: Certificate | None = None) -> RawLink:
    """Begin a link and say nothing of Noise."""
    dialler = Dialler(rank_targets([Way(target.node.host, target.node.port)], []))
    try:
        async with asyncio.timeout(10):
            await dialler.found()
            link = RawLink(
                somebody(),
                certificate or Certificate.generate(),
                Limits(),
                dialler,
                dialler.remote_address,
                server=False,
                route="lan",
            )
            dialler.link = link
            link.on_end = dialler.close
            await link.authenticate(expected_digest=target.node.certhash)
    except BaseException:
        dialler.close()
        raise
    return link


def forge(link: RawLink, chunks: bytes) -> None:
    """Send chunks that the association itself would not."""
    codec = link._sctp._codec_out
    if codec is not None and link._error is None:
        link._send_datagrams([link._dtls.encrypt(codec.encode(chunks))])


def somebody() -> Identity:
    """Make up a peer."""
    return Identity.from_seed(os.urandom(32))


def http_session() -> aiohttp.ClientSession:
    """Make a caller of registries, from the task's own address."""
    connector = aiohttp.TCPConnector(local_addr=(source(), 0))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60))
