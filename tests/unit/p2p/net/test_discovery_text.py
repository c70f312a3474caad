"""What a node's TXT record says, and what is made of one that somebody else wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.discovery import Advertisement
from tests.support.peers import CLIENT, SERVER

PEER = str(SERVER.peer_id)
ADDRESSES = tuple(
    Multiaddr.webrtc_direct(host, 4711, bytes(32), SERVER.peer_id) for host in ("192.0.2.7", "2001:db8::7")
)


def entries(*texts: bytes) -> bytes:
    return b"".join(bytes([len(text)]) + text for text in texts)


def test_an_advertisement_reads_back_as_it_was_written() -> None:
    node = Advertisement(PEER, "flows.example.com", 12, ADDRESSES)
    assert Advertisement.from_text(PEER, node.to_text()) == node


def test_every_address_stands_in_an_entry_of_its_own() -> None:
    text = Advertisement(PEER, "n", 0, ADDRESSES).to_text()
    assert text.count(b"dnsaddr=/ip") == 2


def test_an_address_of_another_peer_is_left_out() -> None:
    foreign = ADDRESSES[0].with_peer(CLIENT.peer_id)
    text = entries(b"v=1", f"dnsaddr={foreign}".encode(), f"dnsaddr={ADDRESSES[1]}".encode())
    assert Advertisement.from_text(PEER, text).addresses == ADDRESSES[1:]


@pytest.mark.parametrize(
    "text",
    [b"", entries(b"v=1"), entries(b"v=2", f"dnsaddr={ADDRESSES[0]}".encode()), entries(b"v=1", b"dnsaddr=/ip4/1")],
)
def test_what_is_no_node_of_this_version_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=PEER):
        Advertisement.from_text(PEER, text)


def test_a_name_longer_than_an_entry_is_cut() -> None:
    node = Advertisement(PEER, "x" * 600, 1, ADDRESSES)
    assert Advertisement.from_text(PEER, node.to_text()).name == "x" * 250


@given(st.binary(max_size=600))
def test_no_bytes_do_more_than_be_refused(text: bytes) -> None:
    try:
        node = Advertisement.from_text(PEER, entries(b"v=1", f"dnsaddr={ADDRESSES[0]}".encode()) + text)
    except ValueError:
        return
    assert node.peer_id == PEER
