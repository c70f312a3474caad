"""Where nodes were last: remembered by peer id, bounded, and never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.client import known_addresses
from kodo.client.known_addresses import KnownAddresses
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr


def peer(number: int) -> PeerId:
    return Identity.from_seed(bytes([number]) * 32).peer_id


def address(number: int, port: int = 4711) -> Multiaddr:
    return Multiaddr.webrtc_direct("192.0.2.7", port, bytes(32)).with_peer(peer(number))


@pytest.fixture
def places(tmp_path: Path) -> KnownAddresses:
    return KnownAddresses(tmp_path / "known_addresses")


def test_what_was_remembered_last_is_known(places: KnownAddresses) -> None:
    places.remember(peer(1), [address(1)])
    places.remember(peer(2), [address(2), address(2, 1)])
    places.remember(peer(1), [address(1, 2)])
    assert KnownAddresses(places.path).all() == {peer(2): (address(2), address(2, 1)), peer(1): (address(1, 2),)}
    assert places.path.stat().st_mode & 0o777 == 0o600


def test_addresses_of_another_peer_are_not_taken(places: KnownAddresses) -> None:
    places.remember(peer(1), [address(2)])
    assert places.get(peer(1)) == ()
    places.path.write_text(f"{peer(1)} {address(2)}\n")
    assert places.get(peer(1)) == ()


@pytest.mark.parametrize("text", ["", "\0\xff", "x y\n", f"{peer(1)}\n", f"{peer(1)} /ip4/x\n", "# \n\n"])
def test_a_damaged_file_knows_nothing_and_takes_more(text: str, places: KnownAddresses) -> None:
    places.path.write_text(text, "latin-1")
    assert places.all() == {}
    places.remember(peer(1), [address(1)])
    assert places.get(peer(1)) == (address(1),)


def test_what_is_known_already_is_not_written_again(places: KnownAddresses) -> None:
    places.remember(peer(1), [address(1)])
    before = places.path.stat().st_ino
    places.remember(peer(1), [address(1)])
    assert places.path.stat().st_ino == before


def test_the_nodes_that_moved_long_ago_are_forgotten_first(
    places: KnownAddresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_addresses, "MAX_NODES", 2)
    for number in (1, 2, 3):
        places.remember(peer(number), [address(number)])
    assert set(places.all()) == {peer(2), peer(3)}
