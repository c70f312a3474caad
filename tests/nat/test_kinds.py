"""Which NAT is before a host, by what listeners outside see of it; so the lab's NATs are what they are called."""

from __future__ import annotations

from kodo.p2p.core.nat import NatKind
from tests.support.lab import Lab, needs_root
from tests.support.nat_lab import REGISTRY, REGISTRY_TOO, Nat, many_sites, sites

pytestmark = needs_root

KINDS = {
    Nat.FULL: NatKind.ENDPOINT_INDEPENDENT,
    Nat.CONE: NatKind.ENDPOINT_INDEPENDENT,
    Nat.LEAKY: NatKind.ENDPOINT_INDEPENDENT,
    Nat.SYM: NatKind.PORT_DEPENDENT,
    Nat.NOUDP: NatKind.BLOCKED,
}


async def seen_of(lab: Lab, host: str, addresses: list[str]) -> tuple[str, int]:
    async with lab.program(host, "nat", *addresses) as user:
        [[address, port]] = (await user.says())["seen"]
    return address, port


async def test_the_kind_of_nat_is_told_by_two_ports_and_two_addresses() -> None:
    users = {f"a-{kind}": (kind, found) for kind, found in {**KINDS, Nat.OPEN: NatKind.OPEN}.items()}
    with many_sites({user: kind for user, (kind, _) in users.items()}) as net:
        async with (
            net.lab.program("registry", "serve", REGISTRY) as one,
            net.lab.program("registry", "serve", REGISTRY, REGISTRY_TOO) as two,
            net.lab.programs() as programs,
        ):
            addresses = [*(await one.says()), *(await two.says())]
            assert len(addresses) == 3
            for user in users:
                programs.start(user, "nat", *addresses)
            told = dict([await programs.says() for _ in users])
        assert {user: each["kind"] for user, each in told.items()} == {
            user: kind for user, (_, kind) in users.items()
        }
        for user, each in told.items():
            assert {seen[0] for seen in each["seen"] if seen} <= {net.public_address(user)}


async def test_a_router_that_forgets_has_other_mappings() -> None:
    with sites(Nat.CONE, Nat.OPEN) as net:
        async with net.lab.program("registry", "serve", REGISTRY) as server:
            addresses = await server.says()
            net.rebind("a")
            first = await seen_of(net.lab, "a", addresses)
            net.renumber("a")
            second = await seen_of(net.lab, "a", addresses)
    assert 10_000 <= first[1] < 25_000  # no port that a host takes by itself
    assert second[0] != first[0]
