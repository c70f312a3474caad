"""A registry that many sources ask: whose request waits for whom, on the loop and for the threads that read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kodo.p2p.core.hosts import THIS_MACHINE
from kodo.p2p.net.turns import FairLoop, line_of, new_loop
from kodo.registry.http import app
from kodo.registry.reads.pages import PageRequest
from kodo.registry.records.record import verify_record
from kodo.registry.server import Registry, RegistryConfig
from kodo.registry.store.store import Store
from tests.support.records import NOW, UNHURRIED, identity, signed_record

Scene = Callable[[FairLoop], Coroutine[Any, Any, None]]


def fairly(scene: Scene) -> None:
    """Run a scene on the loop of a registry."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        if not isinstance(loop, FairLoop):
            pytest.skip("there are no turns on this system")
        runner.run(scene(loop))


def running(home: Path, *proxies: str) -> Registry:
    return Registry(RegistryConfig(home=home, port=0, proxies=frozenset(proxies)))


def test_reads_of_a_crowd_let_the_read_of_somebody_else_go_first(tmp_path: Path) -> None:
    async def scene(loop: FairLoop) -> None:
        order: list[str] = []
        async with Store(tmp_path / "registry.db", UNHURRIED) as store:
            signed = signed_record()
            await store.put(verify_record(signed), signed, NOW)

            async def read(source: str) -> None:
                await store.search(PageRequest(search="*market*"), NOW)
                order.append(source)

            loop.line("crowd").used(0.5, loop.time())
            crowd = [loop.create_task(read("crowd"), context=line_of(loop, "crowd")) for _ in range(60)]
            await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
            user = loop.create_task(read("user"), context=line_of(loop, "user"))
            await asyncio.wait([*crowd, user])
        assert order.index("user") < 30

    fairly(scene)


def test_what_a_read_works_counts_against_whose_it_is(tmp_path: Path) -> None:
    async def scene(loop: FairLoop) -> None:
        async with Store(tmp_path / "registry.db", UNHURRIED) as store:
            spent = []
            for source in ("much", "little"):
                for _ in range(20 if source == "much" else 1):
                    read = store.search(PageRequest(search="*a*"), NOW)
                    await loop.create_task(read, context=line_of(loop, source))
                spent.append(loop.line(source).total)
        assert spent[0] > spent[1] > 0

    fairly(scene)


async def ask(starting: Registry, *callers: str) -> None:
    """Ask a registry as somebody who says for whom it asks."""
    async with starting as registry, aiohttp.ClientSession(registry.url) as http:
        for caller in callers:
            async with http.get("/nodes", headers={"X-Forwarded-For": caller}) as response:
                assert response.status == 200


def test_requests_wait_in_the_line_of_whom_they_come_from(tmp_path: Path) -> None:
    async def scene(loop: FairLoop) -> None:
        await ask(running(tmp_path / "direct"), "192.0.2.7")
        assert loop.line(THIS_MACHINE).total > 0
        assert loop.line("192.0.2.7").total == 0  # what nobody vouches for
        before = loop.line(THIS_MACHINE).total
        await ask(running(tmp_path / "proxied", "127.0.0.1"), "192.0.2.7", "2001:db8::7")
        assert loop.line("192.0.2.7").total > 0
        assert loop.line("2001:db8::/64").total > 0
        assert loop.line(THIS_MACHINE).total == before

    fairly(scene)


def test_a_body_has_its_place_until_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what has come waits for the threads, as much of it as there are connections."""
    go_on, verifying = threading.Event(), threading.Semaphore(0)
    verify = app.verify_record

    def held_up(signed: bytes) -> Any:
        verifying.release()
        go_on.wait(30)
        return verify(signed)

    monkeypatch.setattr(app, "verify_record", held_up)
    monkeypatch.setattr(app, "_BODIES", 2)

    async def scene(loop: FairLoop) -> None:
        async with running(tmp_path) as registry, aiohttp.ClientSession(registry.url) as http:

            async def up(number: int) -> int:
                headers = {"Content-Type": "application/msgpack"}
                body = signed_record(identity(number), name=f"n{number}.example")
                async with http.put("/up", data=body, headers=headers) as response:
                    return response.status

            try:
                brought = []
                for number in range(2):
                    brought.append(loop.create_task(up(number)))
                    assert await asyncio.to_thread(verifying.acquire, timeout=30)
                assert await up(2) == 503
            finally:
                go_on.set()
            await asyncio.wait(brought)

    fairly(scene)
