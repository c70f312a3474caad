"""A node over real sockets whose flow runs in process, and links to its runs that lead through a relay."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kodo.client import Client, Run
from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import BrokenSessionError
from kodo.protocol.link import Link, encode_token, parse_link, write_link
from tests.support.lossy_relay import LossyRelay

CHUNK = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def make(run: InProcessRunner) -> str:
    """Make a file of the size that is asked for, and one below a folder."""
    run.output("data/big.bin", content(int(run.spec.inputs["size"])))
    run.output("report.md", b"# made")
    return "made"


async def wait(run: InProcessRunner) -> None:
    run.emit("progress", {"percent": 1})
    await run.lock("0" * 26, {"type": "boolean"})


async def describe(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}}
    return [
        {"path": f"flows.{name}", "name": name.title(), "entry": name, "schema": schema, "release": "1"}
        for name in ("make", "wait")
    ]


@contextlib.asynccontextmanager
async def node_at(home: Path, **more: Any) -> AsyncIterator[Node]:
    """Run a node on loopback."""
    said = {"entries": ("flows.make",), "name": "links.example", "hosts": ("127.0.0.1",), "announce_lan": False}
    config = NodeConfig(home=home, **{**said, "disk_reserve_bytes": 0, **more})
    async with (
        InProcessExecutor({"make": make, "wait": wait}) as executor,
        Node(config, executor=executor, describe=describe) as node,
    ):
        yield node


def user(home: Path, **more: Any) -> Client:
    """Give a client with a key of its own, that looks nowhere by itself."""
    return Client(home, **{"registries": [], "finders": [], "timeout": 20, **more})


async def made_run(client: Client, node: Node, size: int) -> Run:
    run = await client.launch(f"{node.addresses[0]}/flows.make", size=size)
    await run.wait()
    return run


def moved(link: str, **parts: Any) -> str:
    """Give the link with other parts, such as `addresses`."""
    return write_link(encode_token(replace(parse_link(link), **parts)))


def through(link: str, relay: LossyRelay) -> str:
    """Give the link with the relay as the node's only address."""
    read: Link = parse_link(link)
    address = read.addresses[0]
    return moved(link, addresses=(Multiaddr.webrtc_direct("127.0.0.1", relay.port, address.certhash, read.peer_id),))


class Cutter:
    """Cuts the client's session once so many bytes have come by the relay from the node.

    Args:
        at: the bytes after which it is cut.
        look: called at the moment of the cut.
    """

    def __init__(self, relay: LossyRelay, client: Client, at: int, look: Any):
        self._client = client
        self._left = at
        self._look = look
        self.cut = False
        relay.tap = self._seen

    def _seen(self, data: bytes, to_target: bool) -> bool:
        if self.cut or to_target:
            return True
        self._left -= len(data)
        if self._left > 0:
            return True
        self.cut = True
        self._look()
        for session in list(self._client._open_host()._sessions):
            session.link_lost(BrokenSessionError("the way was cut"))
        return False


def assert_no_partial(folder: Path, size: int) -> None:
    """Check that nothing lies under a final name that is not whole."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".part"):
            assert path.relative_to(folder).as_posix() in ("data/big.bin", "report.md")
            assert path.name != "big.bin" or hashlib.sha256(path.read_bytes()).digest() == expected(size)


def expected(size: int) -> bytes:
    return hashlib.sha256(content(size)).digest()


async def download_with_cut(client: Client, relay: LossyRelay, link: str, folder: Path, size: int, at: int) -> bool:
    """Download by a link over a way that is cut after `at` bytes; say whether it was cut.

    The file must be whole at the end, and nothing half may ever stand under its final name.
    """
    cutter = Cutter(relay, client, at, lambda: assert_no_partial(folder, size))
    run = None
    while run is None:
        # Cut before the link was open: its user tries again.
        with contextlib.suppress(BrokenSessionError):
            run = await client.get(link)
    files = await run.download(folder)  # which leaves no part behind, or the folder would have more files
    assert {file.name for file in files} == {"data/big.bin", "report.md"}
    assert hashlib.sha256((folder / "data/big.bin").read_bytes()).digest() == expected(size)
    assert_no_partial(folder, size)
    return cutter.cut
