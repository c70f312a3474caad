"""Another node with the same key is found, told once, and never taken for this one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from kodo.node.twins import Twins
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import UnreachableError
from tests.unit.node.conftest import StillClock

PEER = Identity.from_seed(bytes(32)).peer_id


def at(host: str, port: int = 4711) -> Multiaddr:
    return Multiaddr.webrtc_direct(host, port, bytes(32), PEER)


def twins(clock: StillClock, found: Sequence[Multiaddr], answers: Sequence[str], dialled: list[str]) -> Twins:
    async def find() -> Sequence[Multiaddr]:
        return found

    async def reach(address: Multiaddr) -> tuple[str, int]:
        dialled.append(address.host)
        if address.host not in answers:
            raise UnreachableError("nobody answers")
        return address.host, address.port

    return Twins(find, lambda: [at("192.0.2.1")], reach, clock)


async def test_whoever_proves_the_key_elsewhere_is_told_once(
    clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    dialled: list[str] = []
    found = [at("192.0.2.1"), at("192.0.2.3"), at("192.0.2.2"), at("192.0.2.4")]
    made = twins(clock, found, ["192.0.2.2", "192.0.2.4"], dialled)
    for _ in range(3):
        await made.look()
    assert dialled == ["192.0.2.3", "192.0.2.2"] * 3, "neither its own address, nor more than are needed"
    assert made.seen == {"192.0.2.2:4711": clock.ms}
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["ERROR"]
    assert "another node with the same key runs at 192.0.2.2:4711" in caplog.text
    clock.advance(2 * 3600)
    await made.look()
    assert caplog.text.count("another node with the same key") == 2


async def test_many_addresses_are_neither_all_dialled_nor_all_kept(clock: StillClock) -> None:
    dialled: list[str] = []
    hosts = [f"198.51.100.{number}" for number in range(1, 100)]
    made = twins(clock, [at(host) for host in hosts], [], dialled)
    await made.look()
    for host in hosts:
        made.met(host, 1)
    assert len(dialled) == len(made.seen) == 8
