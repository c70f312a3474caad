"""What waits for a link's turn counts in the budget of sessions as soon as it comes, and is bounded in bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kodo.p2p.errors import BrokenSessionError
from kodo.p2p.net.budget import Budget, shared_budget
from kodo.p2p.net.calls import request
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.link import WebRtcLink
from kodo.p2p.net.transport import Limits
from kodo.p2p.net.turns import FairLoop, new_loop
from kodo.p2p.net.waiting_datagrams import HANDSHAKE_BYTES, WAITING_BYTES
from kodo.p2p.net.ways import OverRelay
from tests.support.peers import SERVER, make_pair

JUNK = bytes(60_000)


class _Nowhere:
    """A way to a peer that forged its address: nothing gets there."""

    def send(self, datagrams: list[bytes]) -> None: ...

    def send_whole(self, datagram: bytes) -> bool:
        return True

    def send_split(self, datagrams: list[bytes]) -> None: ...

    def room(self) -> int | None:
        return None

    def proved(self) -> None: ...

    def let_in(self) -> OverRelay | None:
        return None


@pytest.fixture
def runner() -> Any:
    """Run scenes on the loop of a node."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        if not isinstance(runner.get_loop(), FairLoop):
            pytest.skip("there are no turns on this system")
        yield runner


@pytest.mark.parametrize("datagram", [JUNK, b"x"], ids=["large", "small"])
def test_what_waits_before_dtls_counts_at_once_and_is_bounded(runner: asyncio.Runner, datagram: bytes) -> None:
    async def scene() -> None:
        budget = Budget()
        link = WebRtcLink(
            SERVER,
            Certificate.generate(),
            Limits(),
            _Nowhere(),
            ("203.0.113.6", 6666),
            server=True,
            route="direct",
            budget=budget,
        )
        for _ in range(100):
            link.datagram_received(datagram)
        link.flush()
        assert len(datagram) < budget.total <= HANDSHAKE_BYTES
        await link.aclose()
        assert budget.total == 0

    runner.run(scene())


def test_what_waits_of_a_session_counts_at_once_and_is_bounded(runner: asyncio.Runner) -> None:
    async def scene() -> None:
        limits = Limits(kept_bytes_per_source=100 << 20)
        async with asyncio.timeout(60), make_pair("webrtc", server_limits=limits) as pair:
            session = await pair.client.connect(pair.addresses)
            budget = shared_budget(limits.kept_bytes, limits.kept_bytes_per_source)
            [at_server] = pair.server.sessions
            link: Any = at_server._link
            for _ in range(4096):
                link.datagram_received(JUNK)
            link.flush()
            assert WAITING_BYTES - 2 * len(JUNK) < budget.total < WAITING_BYTES + 100_000
            assert await request(session, "echo", {"a": 1}) == {"a": 1}
            assert budget.total < 100_000

    runner.run(scene())


def test_a_session_whose_packets_wait_is_ended_over_the_budget_before_its_turn(runner: asyncio.Runner) -> None:
    async def scene() -> None:
        limits = Limits(kept_bytes_per_source=1 << 20)
        async with asyncio.timeout(60), make_pair("webrtc", server_limits=limits) as pair:
            await pair.client.connect(pair.addresses)
            [at_server] = pair.server.sessions
            link: Any = at_server._link
            for _ in range(40):
                link.datagram_received(JUNK)
            link.flush()
            with pytest.raises(BrokenSessionError, match="kept too much"):
                link.send(1, b"x")

    runner.run(scene())
