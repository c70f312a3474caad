"""From what a person types to a peer to dial."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kodo.client.known_nodes import KnownNodes
from kodo.client.resolve import (
    Found,
    Reference,
    Resolver,
    Source,
    Wanted,
    is_local_flow,
    parse_flow,
    parse_run,
    parse_share,
)
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, NotFoundError, UnreachableError, UsageError
from tests.support.virtual_time import run_virtual

FID = "01jd2n8x4q5w6e7r8t9y0abcde"


def peer(number: int) -> PeerId:
    return Identity.from_seed(bytes([number]) * 32).peer_id


def address(number: int, host: str = "192.0.2.7") -> Multiaddr:
    return Multiaddr.webrtc_direct(host, 4711, bytes(32)).with_peer(peer(number))


class Place:
    """Knows some nodes; `error` is raised instead, `never` keeps silent until it is cancelled."""

    def __init__(self, *found: Found, error: Exception | None = None, never: bool = False):
        self.label = "a place"
        self.found = found
        self.error = error
        self.never = never
        self.cancelled = False

    async def find(self, wanted: Wanted | None) -> list[Found]:
        if self.error is not None:
            raise self.error
        if self.never:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True
        return list(self.found)


def found(number: int, name: str = "n", source: Source = "lan", host: str = "192.0.2.7") -> Found:
    return Found(peer(number), name, (address(number, host),), source)


@pytest.fixture
def known(tmp_path: Path) -> KnownNodes:
    return KnownNodes(tmp_path / "known_nodes")


def resolver(known: KnownNodes, *places: Place) -> Resolver:
    return Resolver(places, known, linger=0)


async def test_a_name_gives_the_peer_that_claims_it(known: KnownNodes) -> None:
    target = await resolver(known, Place(found(1), found(2, "m"))).node("n")
    assert (target.peer_id, target.addresses, target.name) == (peer(1), (address(1),), "n")


async def test_two_claims_of_one_name_are_refused_and_both_are_shown(known: KnownNodes) -> None:
    with pytest.raises(IdentityError) as error:
        await resolver(known, Place(found(1)), Place(found(2, source="registry"))).node("n")
    assert str(peer(1)) in str(error.value)
    assert str(peer(2)) in str(error.value)


async def test_another_claim_than_the_pinned_one_is_refused(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    with pytest.raises(IdentityError):
        await resolver(known, Place(found(2))).node("n")


async def test_finding_a_name_pins_nothing_yet(known: KnownNodes) -> None:
    await resolver(known, Place(found(1))).node("n")
    assert known.get("n") is None


async def test_the_pinned_peer_is_taken_without_waiting_for_slow_places(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    slow = Place(never=True)
    target = await Resolver([Place(found(1)), slow], known, linger=1e6).node("n")
    assert target.peer_id == peer(1)
    assert slow.cancelled


async def test_a_slow_place_does_not_hold_up_an_unpinned_name_for_ever(known: KnownNodes) -> None:
    target = await resolver(known, Place(found(1)), Place(never=True)).node("n")
    assert target.peer_id == peer(1)


async def test_a_place_that_is_away_does_not_hurt(known: KnownNodes) -> None:
    away = Place(error=UnreachableError("away"))
    assert (await resolver(known, away, Place(found(1))).node("n")).peer_id == peer(1)


async def test_an_unknown_name_is_not_found_and_the_places_away_are_told(known: KnownNodes) -> None:
    with pytest.raises(NotFoundError, match="a place could not be asked"):
        await resolver(known, Place(error=UnreachableError("away"))).node("n")


async def test_a_pinned_name_that_is_away_is_unreachable(known: KnownNodes) -> None:
    known.pin("n", peer(1))
    with pytest.raises(UnreachableError):
        await resolver(known, Place()).node("n")


async def test_a_peer_id_is_found_whatever_its_name(known: KnownNodes) -> None:
    target = await resolver(known, Place(found(1), found(2, "m"))).node(str(peer(2)))
    assert (target.addresses, target.name) == ((address(2),), None)


async def test_addresses_of_the_same_peer_come_nearest_place_first(known: KnownNodes) -> None:
    far, near = found(1, source="registry", host="198.51.100.1"), found(1, source="home", host="127.0.0.1")
    target = await resolver(known, Place(far), Place(near)).node(str(peer(1)))
    assert target.addresses[0] == address(1, "127.0.0.1")


async def test_an_address_of_another_peer_in_a_claim_is_left_out(known: KnownNodes) -> None:
    lie = Found(peer(1), "n", (address(2), address(1)), "lan")
    assert (await resolver(known, Place(lie)).node("n")).addresses == (address(1),)


async def test_an_address_needs_no_place(known: KnownNodes) -> None:
    target = await resolver(known).node(str(address(1)))
    assert (target.peer_id, target.addresses) == (peer(1), (address(1),))


async def test_an_address_without_a_peer_id_is_refused(known: KnownNodes) -> None:
    with pytest.raises(UsageError, match="/p2p/"):
        await resolver(known).node(str(Multiaddr.webrtc_direct("192.0.2.7", 4711, bytes(32))))


def test_a_flow_after_an_address_begins_behind_the_peer_id() -> None:
    assert parse_flow(f"{address(1)}/flows/x.yaml") == Reference(str(address(1)), "flows/x.yaml")


def test_a_flow_after_a_name_begins_at_the_first_slash() -> None:
    assert parse_flow("node.example/flows/x.yaml") == Reference("node.example", "flows/x.yaml")


def test_a_flow_alone_names_no_node() -> None:
    assert parse_flow("Competitor Analysis") == Reference(None, "Competitor Analysis")


def test_an_address_without_a_flow_is_refused() -> None:
    with pytest.raises(UsageError, match="NODE/FLOW"):
        parse_flow(str(address(1)))


def test_a_run_is_a_fid_with_or_without_its_node() -> None:
    assert parse_run(FID) == Reference(None, FID)
    assert parse_run(f"n/{FID}") == Reference("n", FID)
    assert parse_run(f"{address(1)}/{FID}") == Reference(str(address(1)), FID)


@pytest.mark.parametrize("text", ["n", "n/x", FID.upper(), f"a/b/{FID}"])
def test_what_is_no_fid_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="fid"):
        parse_run(text)


@pytest.mark.parametrize(
    "text", ["./x.yaml", "../x.py:f", "/abs/x.yaml", "flows/x.py:f", "mod.ule:attr", "x.yml", "x.py"]
)
def test_local_flows_are_told_apart(text: str) -> None:
    assert is_local_flow(text)


@pytest.mark.parametrize("text", ["n/flows.market.Competitor", "Competitor Analysis", "flows.market", "12:30"])
def test_flows_of_nodes_are_not_local(text: str) -> None:
    assert not is_local_flow(text)


def test_a_yaml_file_in_a_folder_is_local_and_else_a_flow_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_local_flow("flows.example/x.yaml")
    (tmp_path / "flows.example").mkdir()
    (tmp_path / "flows.example/x.yaml").touch()
    assert is_local_flow("flows.example/x.yaml")


def test_a_share_is_named_as_a_run_is() -> None:
    assert parse_share(f"n/{FID}") == Reference("n", FID)
    with pytest.raises(UsageError, match=r"not a sid: .* `koco shares`"):
        parse_share("n/x")


def test_an_address_with_a_yaml_path_is_not_local() -> None:
    assert not is_local_flow(f"{address(1)}/flows/x.yaml")


class Far(Place):
    """A far place that says its first word after `first` seconds and is done after `whole`; None: never."""

    def __init__(
        self, *found: Found, first: float | None = None, whole: float | None = None, needs_seconds: float = 0.0
    ):
        super().__init__(*found)
        self.label = "a far place"
        self.first, self.whole, self.needs_seconds = first, whole, needs_seconds
        self.answering = False
        self.left_out: list[float] = []

    async def find(self, wanted: Wanted | None) -> list[Found]:
        waits = asyncio.Event().wait
        await (waits() if self.first is None else asyncio.sleep(self.first))
        self.answering = True
        await (waits() if self.whole is None else asyncio.sleep(self.whole - (self.first or 0)))
        return list(self.found)

    def leave_out(self, seconds: float) -> None:
        self.left_out.append(seconds)


class Near(Place):
    """A near place that takes its time."""

    def __init__(self, *found: Found, seconds: float):
        super().__init__(*found)
        self.seconds = seconds

    async def find(self, wanted: Wanted | None) -> list[Found]:
        await asyncio.sleep(self.seconds)
        return list(self.found)


@pytest.mark.parametrize(
    ("near", "far", "takes", "numbers"),
    [
        (Near(found(1), seconds=1.5), [Far()], 2.0, [1]),
        (Near(found(1), seconds=0.25), [Far()], 0.75, [1]),
        (Near(found(1), seconds=0.25), [Far(needs_seconds=1.5)], 1.5, [1]),
        (Near(found(1), seconds=0.25), [Far(needs_seconds=100)], 2.5, [1]),
        (Near(found(1), seconds=1.5), [Far(), Far(), Far()], 2.0, [1]),
        (Near(seconds=4.5), [Far()], 5.0, []),
        (Near(seconds=0.0), [Far(found(2), first=0.1, whole=0.1)], 0.1, [2]),
        (Near(found(1), seconds=1.5), [Far(found(2), first=1.0, whole=7.0), Far()], 7.0, [1, 2]),
        (Near(found(1), seconds=0.25), [Far(found(2), first=1.4, whole=1.4, needs_seconds=1.5)], 1.4, [1, 2]),
        (Near(found(1), seconds=0.25), [Far(found(2), first=1.4, whole=8, needs_seconds=1.5), Far()], 8, [1, 2]),
        (Near(seconds=0.0), [Far(found(2), first=4.0, whole=9.0)], 9.0, [2]),
    ],
    ids=[
        "silent",
        "silent after a glance",
        "silent at the end of a long way",
        "silent at the end of a way without end",
        "three silent",
        "silent and nothing near",
        "at once",
        "slow and silent",
        "far away",
        "far away, slow and silent",
        "slow and nothing near",
    ],
)
def test_a_list_waits_for_far_places_that_answer_and_not_for_those_that_say_nothing(
    known: KnownNodes, near: Near, far: list[Far], takes: float, numbers: list[int]
) -> None:
    async def main() -> None:
        began = asyncio.get_running_loop().time()
        rows = await Resolver([near], known, far=far).all()
        assert asyncio.get_running_loop().time() - began == pytest.approx(takes)
        assert [each.peer_id for each in rows] == [peer(number) for number in numbers]
        assert [bool(each.left_out) for each in far] == [each.first is None for each in far]

    run_virtual(main())


@pytest.mark.parametrize("name", ["n", "mistyped"])
def test_a_name_is_looked_for_no_longer_for_a_far_place_that_says_nothing(known: KnownNodes, name: str) -> None:
    async def main() -> None:
        looked = Resolver([Near(found(1), seconds=0.5), Near(seconds=4.5)], known, far=[Far(), Far(), Far()])
        began = asyncio.get_running_loop().time()
        if name == "n":
            assert (await looked.node(name)).peer_id == peer(1)
        else:
            with pytest.raises(NotFoundError, match="a far place, a far place, a far place could not be asked"):
                await looked.node(name)
        assert asyncio.get_running_loop().time() - began <= (2.0 if name == "n" else 5.0)

    run_virtual(main())
