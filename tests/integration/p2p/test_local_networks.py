"""Nodes on local networks that come late, change, have many interfaces, or no address that a router gave."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.lab import Lab, Program, lab, needs_root

pytestmark = needs_root


@pytest.fixture
def net() -> Iterator[Lab]:
    """A node and a user, and a wire between them that has no addresses of its own yet."""
    with lab() as made:
        made.host("node")
        made.host("user")
        made.wire("node", "user")
        yield made


@contextlib.asynccontextmanager
async def looking(net: Lab) -> AsyncIterator[Program]:
    async with net.program("node", "announce") as node, net.program("user", "look") as user:
        await node.says()
        await user.says()
        yield user


def without_ipv6(net: Lab) -> None:
    """Else both have link-local addresses as soon as there is a wire, and find each other by those."""
    for host in ("node", "user"):
        net.set(host, "net.ipv6.conf.all.disable_ipv6", 1)


def number(net: Lab) -> None:
    """Give both ends of the wire addresses."""
    net.address("user", "node", "192.168.7.2/24")
    net.address("node", "user", "192.168.7.1/24")


async def test_a_node_is_found_on_a_network_that_comes_after_both_have_started(net: Lab) -> None:
    without_ipv6(net)
    async with looking(net) as user:
        number(net)
        assert (await user.says())["at"] == "192.168.7.1"


async def test_a_node_is_found_on_an_interface_that_was_made_anew_with_its_old_address(net: Lab) -> None:
    without_ipv6(net)
    number(net)
    async with net.program("node", "announce") as node:
        await node.says()
        net.ip("node", "link", "del", "user")
        net.wire("node", "user")
        without_ipv6(net)
        number(net)
        async with net.program("user", "look") as user:
            await user.says()
            assert (await user.says())["at"] == "192.168.7.1"


@pytest.mark.parametrize("bridges", [30])
async def test_bridges_of_containers_do_not_hide_a_nodes_own_address(net: Lab, bridges: int) -> None:
    for host in ("node", "user"):
        for index in range(bridges):
            # Names and addresses that sort before the real ones.
            net.ip(host, "link", "add", f"br{index}", "type", "bridge")
            net.ip(host, "link", "set", f"br{index}", "up")
            net.address(host, f"br{index}", f"172.{17 + index // 8}.{index % 8 * 16}.1/20")
    number(net)
    async with looking(net) as user:
        found: dict[str, Any] = await user.says()
    assert found["at"] == "192.168.7.1"
    assert found["announced"][0] == "192.168.7.1"


@pytest.mark.parametrize("addresses", [("fd00:7::2/64", "fd00:7::1/64"), ()], ids=["IPv6 only", "link-local only"])
async def test_a_node_without_ipv4_is_found_and_dialled(net: Lab, addresses: tuple[str, ...]) -> None:
    for host, other, address in zip(("user", "node"), ("node", "user"), addresses, strict=False):
        net.address(host, other, address)
    async with looking(net) as user:
        at = (await user.says())["at"]
    assert at == "fd00:7::1" if addresses else at.startswith("fe80:")
