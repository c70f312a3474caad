"""The null provider: who is answered, and as whom."""

from __future__ import annotations

import ipaddress

import pytest

from kodo.access.null import NullProvider, on_link_networks
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError

HERE = (ipaddress.ip_network("203.0.113.0/28"), ipaddress.ip_network("2001:db8:5::/64"))


def provider(**options: object) -> NullProvider:
    return NullProvider("peer-of-home", networks=lambda: HERE, now=lambda: 0.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "169.254.3.4",
        "fe80::1",
        "fe80::1%eth0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.178.20",
        "fd12:3456::1",
        "::ffff:192.168.1.1",
        "203.0.113.14",
        "2001:db8:5::99",
    ],
)
def test_neighbours_are_admitted(address: str) -> None:
    assert provider().admits(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.32.0.1",
        "192.169.0.1",
        "100.64.0.1",
        "203.0.113.16",
        "2001:db8:6::1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::a00:1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "example.com",
        "",
    ],
)
def test_strangers_are_not_admitted(address: str) -> None:
    assert not provider().admits(address)


def test_an_open_node_admits_everybody() -> None:
    assert provider(open=True).admits("8.8.8.8")


def test_through_relays_an_open_node_admits_everybody_and_another_one_nobody() -> None:
    assert provider(open=True).admits(None)
    assert not provider().admits(None)
    assert "everybody who can reach this node" in provider(open=True).describe()


def test_interfaces_are_looked_at_again_after_a_while() -> None:
    time, networks = [0.0], [HERE[0]]
    nullish = NullProvider("x", networks=lambda: tuple(networks), now=lambda: time[0])
    assert not nullish.admits("198.51.100.1")
    networks.append(ipaddress.ip_network("198.51.100.0/24"))
    assert not nullish.admits("198.51.100.1")
    time[0] = 60.0
    assert nullish.admits("198.51.100.1")


def test_this_machine_is_on_the_network_of_its_loopback() -> None:
    assert ipaddress.ip_network("127.0.0.0/8") in on_link_networks()


async def test_the_user_key_of_the_home_is_operator_and_all_others_are_users() -> None:
    home = await provider().identify("peer-of-home")
    other = await provider().identify("peer-of-bob")
    assert (home.operator, other.operator) == (True, False)
    assert (other.id, other.peer_id, other.user, other.roles) == (
        "peer-of-bob",
        "peer-of-bob",
        None,
        frozenset({"user"}),
    )


async def test_everybody_may_use_all_flows() -> None:
    grant = (await provider().identify("peer-of-bob")).flow_grant("flows.any.Thing", "x")
    assert grant is not None
    assert grant.level == 2


async def test_a_token_is_refused_since_nobody_could_check_it() -> None:
    with pytest.raises(CallError) as caught:
        await provider().identify("peer-of-bob", "token")
    assert caught.value.code == 401


def test_it_says_who_is_let_in() -> None:
    assert "local networks" in provider().describe()
    assert provider().info()["provider"] == "null"


async def test_something_is_shared_with_peers_and_the_two_roles_that_there_are() -> None:
    peer = str(Identity.from_seed(bytes(32)).peer_id)
    assert [name for name in (peer, "ana", "") if await provider().knows("user", name)] == [peer]
    assert [name for name in ("user", "operator", "developer", "x") if await provider().knows("role", name)] == [
        "user",
        "operator",
    ]


async def test_a_node_of_one_user_knows_nobody_else() -> None:
    alone = provider(only="ana")
    assert (await alone.identify("ana")).enters("local")
    for peer in ("eve", "peer-of-home"):
        with pytest.raises(CallError) as caught:
            await alone.identify(peer)
        assert (caught.value.code, caught.value.reason) == (403, "not-admitted")
    assert alone.describe() == "only the user who started it, ana"
