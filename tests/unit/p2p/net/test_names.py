"""Names are looked up by threads that nobody waits for."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from pathlib import Path

import pytest

import kodo.p2p.net.names
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import KodoError
from kodo.p2p.net import names
from kodo.p2p.net.direct import LOOKUPS, WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.names import MAX_LOOKUPS, look_up


async def test_a_name_has_addresses_and_no_name_has_none() -> None:
    assert "127.0.0.1" in {name[0] for *_, name in await look_up("localhost", 80, family=socket.AF_INET)}
    with pytest.raises(OSError, match=r"not the name of a host|not known|No address"):
        await look_up("a" * 300, 80)


def test_a_name_server_that_says_nothing_holds_up_neither_a_call_nor_the_end_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speaks, asked = threading.Event(), threading.Semaphore(0)

    def silent(*_: object) -> list[object]:
        asked.release()
        speaks.wait()
        raise socket.gaierror("too late")

    async def main() -> None:
        lookups = [asyncio.ensure_future(look_up(f"h{number}.example", 80)) for number in range(MAX_LOOKUPS)]
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="being looked up already"):
            await look_up("one.more.example", 80)
        of_servers = [asyncio.ensure_future(look_up(f"s{number}.example", 80, server=True)) for number in range(2)]
        await asyncio.sleep(0)
        assert not any(lookup.done() for lookup in of_servers)
        lookups += of_servers
        for lookup in lookups:
            lookup.cancel()

    monkeypatch.setattr(names.socket, "getaddrinfo", silent)
    try:
        asyncio.run(main())
        for _ in range(MAX_LOOKUPS + 2):
            assert asked.acquire(timeout=30)
    finally:
        speaks.set()
        for thread in threading.enumerate():
            if thread.name == "name lookup":
                thread.join()
    monkeypatch.undo()
    asyncio.run(look_up("localhost", 80))


async def test_a_silent_name_among_addresses_keeps_nobody_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    speaks = threading.Event()

    def silent(*_: object) -> list[object]:
        speaks.wait()
        raise socket.gaierror("too late")

    def host(number: int) -> Host:
        return Host(Identity.from_seed(bytes([number]) * 32), WebRtcTransport())

    async with host(1) as server, host(2) as caller:
        [address] = await server.listen(["127.0.0.1"], 0)
        monkeypatch.setattr(names.socket, "getaddrinfo", silent)
        text = str(address).replace("/ip4/127.0.0.1/", "/dns4/silent.example/")
        try:
            # Whoever waited for the name would hang here, and so would the end of the loop.
            session = await caller.connect([Multiaddr.parse(text), address])
            assert session.remote_peer == server.peer_id
            await asyncio.get_running_loop().shutdown_default_executor()
        finally:
            speaks.set()


async def test_a_peer_of_many_names_has_few_of_them_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    speaks, asked = threading.Event(), threading.Semaphore(0)

    def silent(*_: object) -> list[object]:
        asked.release()
        speaks.wait()
        raise socket.gaierror("too late")

    def host(number: int) -> Host:
        return Host(Identity.from_seed(bytes([number]) * 32), WebRtcTransport())

    async with host(1) as server, host(2) as caller:
        [address] = await server.listen(["127.0.0.1"], 0)
        texts = [str(address).replace("/ip4/127.0.0.1/", f"/dns4/h{number}.example/") for number in range(16)]
        many = [Multiaddr.parse(text) for text in texts]
        monkeypatch.setattr(names.socket, "getaddrinfo", silent)
        try:
            with pytest.raises(KodoError):
                await caller.connect(many, timeout=0.3)
            assert sum(asked.acquire(blocking=False) for _ in many) == LOOKUPS
        finally:
            speaks.set()


def test_names_are_looked_up_in_this_one_way() -> None:
    """The loop's own look-ups run in its executor, whose end waits for every silent name server."""
    top = Path(kodo.p2p.net.names.__file__).parents[5]
    asked = re.compile(r"(?<!socket)\.getaddrinfo\(|ThreadedResolver|AsyncResolver|(?<!def )\bgethostbyname")
    strays = []
    for room in ("p2p", "registry", "node", "client"):
        for file in (top / room / "kodo").rglob("*.py"):
            text = file.read_text()
            strays += [f"{file}: {found[0]}" for found in asked.finditer(text)]
            for found in re.finditer(r"ClientSession\((.*?)\)\s*(?:as|,|\n)", text, re.DOTALL):
                strays += [f"{file}: ClientSession without a connector"] if "connector=" not in found[1] else []
            for found in re.finditer(r"TCPConnector\(([^)]*)", text):
                strays += [f"{file}: TCPConnector without a resolver"] if "resolver=" not in found[1] else []
    assert strays == []
