"""One registry is enough: whoever sits behind whatever NAT runs flows of a node behind another one."""

from __future__ import annotations

import pytest

from tests.support.lab import needs_root
from tests.support.nat_lab import REGISTRY, Nat
from tests.support.nat_world import URL, World

pytestmark = needs_root


def test_behind_symmetric_nats_a_run_goes_over_the_relay(world: World) -> None:
    world.become(Nat.SYM, Nat.SYM)
    ended = world.run("count=3", "size=300000")
    assert (ended["state"], ended["route"]) == ("done", "relay")
    [output] = ended["outputs"]
    assert output["size"] == 300_000


def test_a_run_goes_on_when_the_users_nat_forgets_him_and_when_he_moves(world: World) -> None:
    world.become(Nat.SYM, Nat.SYM)
    ended = world.run("count=40", at={10: lambda: world.net.rebind("a"), 25: lambda: world.net.renumber("a")})
    assert (ended["state"], ended["route"]) == ("done", "relay")


def test_behind_other_nats_a_run_leaves_the_relay(world: World) -> None:
    world.become(Nat.CONE, Nat.CONE)
    world.reached()
    ended = world.run("count=30", "size=300000")
    assert (ended["state"], ended["route"]) == ("done", "punched")
    [output] = ended["outputs"]
    assert output["size"] == 300_000
    # And goes back to it when the user's NAT begins to give each destination another port.
    ended = world.run("count=40", at={20: lambda: world.net.become("a", Nat.SYM)})
    assert (ended["state"], ended["route"]) == ("done", "relay")


@pytest.mark.parametrize("kinds", [(Nat.NOUDP, Nat.SYM), (Nat.NOUDP, Nat.NOUDP)], ids="–".join)
def test_where_udp_is_blocked_on_either_side_a_run_goes_over_the_relay_by_tcp(
    world: World, kinds: tuple[Nat, Nat]
) -> None:
    world.become(*kinds)
    told = world.reached(f"relay of {REGISTRY}, by TCP")
    assert told["session"]["route"] == "relay"
    ended = world.run("count=3", "size=300000")
    assert (ended["state"], ended["route"]) == ("done", "relay")
    [output] = ended["outputs"]
    assert output["size"] == 300_000


def test_where_udp_is_blocked_doctor_says_that_the_relay_is_used_by_tcp(world: World) -> None:
    world.become(Nat.NOUDP, world.net.kinds["b"])
    [told] = world.user("doctor", "--registry", URL)
    assert any("the relay over TCP" in each["found"] for each in told["findings"] if each["check"] == "nat")


def test_a_run_goes_on_when_udp_is_blocked_in_its_midst_and_when_it_passes_again(world: World) -> None:
    world.become(Nat.CONE, Nat.CONE)
    world.reached()
    at = {
        20: lambda: world.net.become("a", Nat.NOUDP),
        60: lambda: world.net.become("b", Nat.NOUDP),
        120: lambda: world.net.become("a", Nat.SYM),
    }
    ended = world.run("count=160", at=at)
    assert (ended["state"], ended["route"]) == ("done", "relay")
