"""Which NAT is before a host, by what listeners outside see of it; so the lab's NATs are what they are called."""

from __future__ import annotations

from kodo.p2p.core.nat import NatKind
from tests.support.lab import Lab, needs_root
from tests.support.nat_lab import REGISTRY, REGISTRY_TOO, Nat, sites

pytestmark = needs_root

KINDS = {
    Nat.FULL: NatKind.ENDPOINT_INDEPENDENT,
    Nat.CONE: NatKind.ENDPOINT_INDEPENDENT,
    Nat.LEAKY: NatKind.ENDPOINT_INDEPENDENT,
    Nat.SYM: NatKind.PORT_DEPENDENT,
    Nat.NOUDP: NatKind.BLOCKED,
}


async def kind_before(lab: Lab, host: str, addresses: list[str]) -> tuple[str, list[list[object] | None]]:
    async with lab.program(host, "nat", *addresses) as user:
        told = await user.says()
    return told["kind"], told["seen"]


async def test_the_kind_of_nat_is_told_by_two_ports_and_two_addresses() -> None:
    with sites(Nat.FULL, Nat.OPEN) as net:
        async with (
            net.lab.program("registry", "serve", REGISTRY) as one,
            net.lab.program("registry", "serve", REGISTRY, REGISTRY_TOO) as two,
        ):
            addresses = [*(await one.says()), *(await two.says())]
            assert len(addresses) == 3
            found, seen = await kind_before(net.lab, "b", addresses)
            assert found == NatKind.OPEN
            assert {each[0] for each in seen if each} == {net.address("b")}
            for kind, expected in KINDS.items():
                net.become("a", kind)
                found, seen = await kind_before(net.lab, "a", addresses)
                assert (kind, found) == (kind, expected)
                assert {each[0] for each in seen if each} <= {net.public_address("a")}


async def test_a_router_that_forgets_has_other_mappings() -> None:
    with sites(Nat.CONE, Nat.OPEN) as net:
        async with net.lab.program("registry", "serve", REGISTRY) as server:
            addresses = await server.says()
            net.rebind("a")
            _, [first] = await kind_before(net.lab, "a", addresses)
            net.renumber("a")
            _, [second] = await kind_before(net.lab, "a", addresses)
    assert first is not None
    assert 10_000 <= int(str(first[1])) < 25_000  # no port that a host takes by itself
    assert second is not None
    assert second[0] != first[0]
