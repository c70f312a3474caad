"""Sessions of several sources on a loop where they take turns: real sockets, and counts instead of a clock."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kodo.p2p.core.identity import Identity
from kodo.p2p.net import udp
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request, request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.p2p.net.turns import FairLoop, new_loop

CROWD, USER = "127.0.0.2", "127.0.0.3"


def fairly(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scene on the loop of a node."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        if not isinstance(runner.get_loop(), FairLoop):
            pytest.skip("there are no turns on this system")
        runner.run(work())


@pytest.fixture
def come_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let what is dialled from now on come from an address."""
    return lambda host: monkeypatch.setattr(udp, "unconnected", lambda family: udp.bind(host, 0))


def test_what_a_busy_source_has_waiting_lets_another_ones_call_go_first(come_from: Callable[[str], None]) -> None:
    pieces: Counter[str] = Counter()
    begun = asyncio.Event()

    async def answer(asked: Request) -> str:
        # In pieces, as work on a loop is to be; each wakes this task again, behind whatever waits.
        for _ in range(int(asked.args["pieces"])):
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                pass
            pieces[asked.op] += 1
            begun.set()
            await asyncio.sleep(0)
        return asked.op

    async def scene() -> None:
        async with (
            Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as node,
            Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as crowd,
            Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as user,
        ):
            node.handle(CALL_PROTOCOL, CallServer(answer))
            addresses = await node.listen(["127.0.0.1"])
            come_from(CROWD)
            busy = await crowd.connect(addresses, timeout=60)
            come_from(USER)
            own = await user.connect(addresses, timeout=60)

            async def ask(session: Session, op: str, pieces: int) -> None:
                await request(session, op, {"pieces": pieces}, timeout=60)

            async with asyncio.TaskGroup() as group:
                for _ in range(40):
                    group.create_task(ask(busy, "crowd", 25))
                await begun.wait()
                before = pieces["crowd"]
                await ask(own, "user", 1)
                between = pieces["crowd"] - before
        # On another loop each of some five steps to the answer waits for a piece of each of 40 calls.
        assert between < 60
        assert pieces["crowd"] == 40 * 25

    fairly(scene)


def test_a_hundred_sessions_at_once_from_one_source_all_come_about() -> None:
    async def scene() -> None:
        async def answer(asked: Request) -> int:
            return int(asked.args["number"])

        async with Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as node:
            node.handle(CALL_PROTOCOL, CallServer(answer))
            addresses = await node.listen(["127.0.0.1"])

            async def visit(number: int) -> None:
                async with Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as visitor:
                    session = await visitor.connect(addresses, timeout=60)
                    for _ in range(3):
                        assert await request(session, "n", {"number": number}, timeout=60) == number

            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(visit(number))

    fairly(scene)
