"""A dialler on a machine without IPv6, and one to whom strangers write in its peer's name."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.paths import Candidate, Rank, Target
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net import udp
from kodo.p2p.net.calls import Call
from kodo.p2p.net.dialler import Dialler
from tests.support.air import NODE, PORT, air_pair
from tests.support.virtual_time import run_virtual

OVER_IPV6 = Candidate(Target("2001:db8::1", PORT), Rank.NEAR)
LATE = Candidate(Target(NODE, PORT), Rank.FAR, late=True)


def without_ipv6(patch: pytest.MonkeyPatch) -> None:
    make: Any = udp.unconnected

    def unconnected(family: socket.AddressFamily) -> Any:
        if family == socket.AF_INET6:
            raise OSError("Address family not supported by protocol")
        return make(family)

    patch.setattr(udp, "unconnected", unconnected)


def test_without_ipv6_its_addresses_are_not_checked_and_do_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with asyncio.timeout(600), air_pair(monkeypatch, delay_s=0.02):
            without_ipv6(monkeypatch)
            began = asyncio.get_running_loop().time()
            dialler = Dialler([OVER_IPV6, LATE])
            await dialler.found()
            assert asyncio.get_running_loop().time() - began < 0.05  # the late one did not wait for nobody
            assert dialler.targets == {LATE.target}
            dialler.close()

    run_virtual(main())


def test_without_ipv6_and_any_other_address_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with asyncio.timeout(600), air_pair(monkeypatch):
            without_ipv6(monkeypatch)
            dialler = Dialler([OVER_IPV6])
            with pytest.raises(UnreachableError, match="no way there"):
                await dialler.found()
            dialler.close()

    run_virtual(main())


def test_forged_records_do_not_hold_a_session_on_a_path_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with asyncio.timeout(600), air_pair(monkeypatch) as (air, node, user, address):
            air.there["192.0.2.2", PORT] = air.there[NODE, PORT]
            session = await user.connect([address, Multiaddr.parse(str(address).replace(NODE, "192.0.2.2"))])
            used = session.remote_address[0]
            forged = b"\x17\xfe\xfd\0\1\0\0\xff\xff\xff\xff\0\x28" + bytes(40)
            async with Call(session, "any", {"n": 200, "every": 0.02}) as call:
                items = aiter(call)
                await anext(items)
                [at_node] = node.sessions
                to_user = at_node.remote_address
                air.drop = lambda data, source, to: data != forged and used in (source[0], to[0])
                for _ in range(40):
                    air.carry(forged, (used, PORT), to_user)
                    await asyncio.sleep(0.05)
                assert session.remote_address[0] != used
                assert len([item async for item in items]) == 199

    run_virtual(main())
