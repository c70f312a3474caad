"""Names are looked up by threads that nobody waits for."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from kodo.p2p.net import names
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
        for lookup in lookups:
            lookup.cancel()

    monkeypatch.setattr(names.socket, "getaddrinfo", silent)
    try:
        asyncio.run(main())
        for _ in range(MAX_LOOKUPS):
            assert asked.acquire(timeout=30)
    finally:
        speaks.set()
        for thread in threading.enumerate():
            if thread.name == "name lookup":
                thread.join()
    monkeypatch.undo()
    asyncio.run(look_up("localhost", 80))
