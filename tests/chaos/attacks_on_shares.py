"""Attacks on what users share: places, disk, checks of passwords, names, and the turns of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

from kodo.client import Client
from kodo.p2p.net.calls import Call, request
from kodo.p2p.net.session import Session
from tests.chaos.attacking import Target, counted, each_from, http_session, session_of, somebody
from tests.chaos.users_node import USERS
from tests.support.records import flow, signed_record

__all__ = [
    "fetches",
    "floods",
    "guesses",
    "hoards",
    "logins",
    "names",
    "places",
    "sessions",
    "stopped_readers",
    "uploads",
    "whole_uploads",
]


async def stopped_readers(target: Target, told: Counter[str]) -> None:
    """Begin 60 reads of an output in a session from each of eight addresses, and take nothing of them."""

    async def read() -> None:
        home = target.folder / f"reader{os.urandom(4).hex()}"
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                Client(home, lan=False, registries=[], identity=somebody(), timeout=30)
            )
            while True:
                with counted(told, "rounds"):
                    run = await client.get(target.link)
                    session = await run._remote.session()
                    async with contextlib.AsyncExitStack() as reads, asyncio.timeout(150):
                        for _ in range(60):
                            with counted(told, "reads"):
                                call = Call(
                                    session, "output.read", {"fid": run.fid, "name": "made.bin"}, timeout=None
                                )
                                await reads.enter_async_context(call)
                        await session.wait_closed()
                await asyncio.sleep(1.0)

    await each_from(8, read)


async def places(target: Target, told: Counter[str]) -> None:
    """Hold places with runs that wait for an answer: 30 each as four peers, from two addresses."""

    async def hold() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                session = await stack.enter_async_context(session_of(target))
                for _ in range(30):
                    with counted(told, "launches"):
                        await request(session, "run.launch", {"path": "strangers_flows.wait", "inputs": {}})
            await asyncio.Event().wait()

    await each_from(2, hold)


async def floods(target: Target, told: Counter[str]) -> None:
    """Have runs that emit 120 MB of events each."""
    async with session_of(target) as session:
        while True:
            await _run(session, told, "strangers_flows.flood", n=20_000)
            await asyncio.sleep(1.0)


async def hoards(target: Target, told: Counter[str]) -> None:
    """Have runs that write as much into memories as they may, from two addresses."""

    async def hoard() -> None:
        async with session_of(target) as session:
            while True:
                await _run(session, told, "strangers_flows.hoard", n=600)
                await asyncio.sleep(1.0)

    await each_from(2, hoard)


async def fetches(target: Target, told: Counter[str]) -> None:
    """Have runs that fetch files of 64 MiB from a node, which is the attacked one."""
    async with session_of(target) as session:
        while True:
            await _run(session, told, "strangers_flows.fetch", node=str(target.node), size=64 << 20)
            await asyncio.sleep(5.0)


async def _run(session: Session, told: Counter[str], path: str, **inputs: object) -> None:
    """Launch a flow, follow it to its end and delete it."""
    with counted(told, "runs"):
        fid = (await request(session, "run.launch", {"path": path, "inputs": inputs}))["fid"]
        async with asyncio.timeout(120), Call(session, "run.stream", {"fid": fid}, timeout=None) as call:
            async for item in call:
                told["events"] += 1
                if isinstance(item, dict) and item.get("event") == "fatal":
                    told[f"fatal {item['data'].get('type')}: {str(item['data'].get('message'))[:80]}"] += 1
            await call.done()
        await request(session, "run.delete", {"fid": fid})


async def uploads(target: Target, told: Counter[str]) -> None:
    """Begin 60 uploads of a GiB each, send some of each and stop."""

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(64 << 10)
        await asyncio.sleep(30)

    async def one(session: Session, number: int) -> None:
        args = {"name": f"u{number}.bin", "size": 1 << 30, "sha256": f"{number:064x}"}
        with counted(told, "uploads"):
            async with Call(session, "input.write", args, upload=pieces()) as call:
                await call.done()

    async with session_of(target) as session, asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(session, number))


async def whole_uploads(target: Target, told: Counter[str]) -> None:
    """Upload four files at once, from four addresses, that the disk has no room for together: 2 MiB a second each."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(64 << 10)
            told["MiB sent, in sixteenths"] += 1
            await asyncio.sleep(1 / 32)

    async def upload() -> None:
        while True:
            async with session_of(target) as session:
                args = {"name": "whole.bin", "size": 600 << 20, "sha256": os.urandom(32).hex()}
                with counted(told, "uploads"):
                    async with (
                        asyncio.timeout(300),
                        Call(session, "input.write", args, upload=pieces(), timeout=None) as call,
                    ):
                        await call.done()
            await asyncio.sleep(1.0)

    await each_from(4, upload)


async def logins(target: Target, told: Counter[str]) -> None:
    """Try passwords of users, and of nobody, as ever new peers from eight addresses."""
    chance = random.Random(3)

    async def guess() -> None:
        while True:
            with counted(told, "sessions"):
                async with session_of(target, target.users) as session:
                    for _ in range(5):
                        name = chance.choice([*USERS, f"nobody{chance.randrange(1000)}"])
                        with counted(told, "tries"):
                            await request(session, "auth.password", {"name": name, "password": "wrong password"})
            await asyncio.sleep(0.3)

    await each_from(8, guess)


async def guesses(target: Target, told: Counter[str]) -> None:
    """Guess the secrets of links."""
    while True:
        with counted(told, "sessions"):
            async with session_of(target) as session:
                for _ in range(20):
                    with counted(told, "guesses"):
                        await request(session, "share.open", {"secret": os.urandom(16)})
        await asyncio.sleep(0.2)


async def names(target: Target, told: Counter[str]) -> None:
    """Announce nodes that nobody can dial, each of a new peer."""
    headers = {"Content-Type": "application/msgpack"}
    async with http_session() as http:
        while True:
            with counted(told, "announcements"):
                now = time.time_ns() // 1_000_000
                signed = signed_record(somebody(), flow(), name=f"n{now}.example", seq=now, issued_at=now)
                async with http.put(target.registry + "/up", data=signed, headers=headers) as answer:
                    told[f"announcements: {answer.status}"] += 1
            await asyncio.sleep(0.05)


async def sessions(target: Target, told: Counter[str]) -> None:
    """Begin sessions and end them, four at a time."""

    async def begin() -> None:
        while True:
            with counted(told, "sessions"):
                async with session_of(target) as session:
                    await request(session, "flow.list")
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(begin())
