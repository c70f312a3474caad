import json
from pathlib import Path

import pytest

from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.multiaddr import Multiaddr, decode_certhash, encode_certhash, for_others
from kodo.p2p.core.multibase import base58_encode

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "multiaddr.json").read_text())["valid"]
HASH = bytes(range(32))
CERTHASH = encode_certhash(HASH)
PEER = PeerId(b"\x07" * 32)
TAIL = f"udp/4711/webrtc-direct/certhash/{CERTHASH}"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["text"][:28])
def test_text_and_bytes_agree_with_js(vector):
    address = Multiaddr.parse(vector["text"])
    assert (address.family, address.host, address.port) == (vector["family"], vector["host"], vector["port"])
    assert address.certhash.hex() == vector["certhash"]
    assert (str(address.peer_id) if address.peer_id else None) == vector["peer_id"]
    assert str(address) == vector["text"]
    assert address.to_bytes().hex() == vector["bytes"]
    assert Multiaddr.from_bytes(bytes.fromhex(vector["bytes"])) == address


def test_a_certhash_is_a_sha256_multihash():
    assert CERTHASH.startswith("uEi")
    assert decode_certhash(CERTHASH) == HASH
    with pytest.raises(ValueError, match="sha2-256"):
        decode_certhash("uEyAA")


@pytest.mark.parametrize(
    ("host", "family", "canonical"),
    [
        ("192.0.2.7", "ip4", "192.0.2.7"),
        ("2001:DB8:0::1", "ip6", "2001:db8::1"),
        ("Node.Example.org", "dns4", "node.example.org"),
        ("my_node", "dns4", "my_node"),
    ],
)
def test_the_family_follows_from_the_host_which_becomes_canonical(host, family, canonical):
    address = Multiaddr.webrtc_direct(host, 4711, HASH, PEER)
    assert (address.family, address.host) == (family, canonical)
    assert Multiaddr.parse(str(address)) == address


def test_with_peer_says_who_should_be_there():
    address = Multiaddr.webrtc_direct("192.0.2.7", 4711, HASH)
    assert address.peer_id is None
    assert address.with_peer(PEER).peer_id == PEER
    assert str(address.with_peer(PEER)) == f"{address}/p2p/{PEER}"
    assert address.peer_id is None


def test_a_certhash_in_base58_is_read_and_written_as_base64url():
    text = f"/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/z{base58_encode(bytes((0x12, 0x20)) + HASH)}"
    assert str(Multiaddr.parse(text)) == f"/ip4/192.0.2.7/{TAIL}"


def test_addresses_are_values_sorted_by_their_text():
    one = Multiaddr.webrtc_direct("192.0.2.7", 4711, HASH)
    two = Multiaddr.webrtc_direct("192.0.2.7", 4711, HASH, PEER)
    assert len({one, Multiaddr.parse(str(one))}) == 1
    assert sorted([two, one]) == [one, two]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        f"ip4/192.0.2.7/{TAIL}",
        f"/ip4/192.0.2.7/{TAIL}/",
        f"/ip4/192.0.2.7/{TAIL}/p2p",
        f"/ip4/192.0.2.7/{TAIL}/p2p/",
        f"/ip4/192.0.2.7/{TAIL}/p2p/{PEER}/p2p-circuit",
        f"/ip4/192.0.2.7/{TAIL}/certhash/{CERTHASH}",
        f"/ip4/192.0.2.07/{TAIL}",
        f"/ip4/192.0.2/{TAIL}",
        f"/ip4/2001:db8::1/{TAIL}",
        f"/ip6/192.0.2.7/{TAIL}",
        f"/ip6/fe80::1%eth0/{TAIL}",
        f"/dns4//{TAIL}",
        f"/dns4/a..b/{TAIL}",
        f"/dns4/-a/{TAIL}",
        f"/dns4/192.0.2.7/{TAIL}",
        f"/dns4/{'a' * 64}/{TAIL}",
        f"/dns4/a b/{TAIL}",
        f"/dns4/bücher/{TAIL}",
        f"/dns6/example.org/{TAIL}",
        f"/ip4/192.0.2.7/tcp/4711/webrtc-direct/certhash/{CERTHASH}",
        f"/ip4/192.0.2.7/udp/4711/quic-v1/certhash/{CERTHASH}",
        "/ip4/192.0.2.7/udp/4711/webrtc-direct",
        "/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/uEiAA",
        *(
            f"/ip4/192.0.2.7/udp/{port}/webrtc-direct/certhash/{CERTHASH}"
            for port in ("0", "65536", "04711", "-1", "+1", "", "4_7", "٣", "99999999999")
        ),
        f"/dns4/{'a.' * 300}a/{TAIL}",
    ],
)
def test_refuses_every_other_text(text):
    with pytest.raises(ValueError):  # noqa: PT011  # which part is wrong differs from case to case
        Multiaddr.parse(text)


def test_a_binary_address_is_refused_when_cut_or_continued():
    data = Multiaddr.webrtc_direct("192.0.2.7", 4711, HASH, PEER).to_bytes()
    without_peer = len(Multiaddr.webrtc_direct("192.0.2.7", 4711, HASH).to_bytes())
    for end in set(range(len(data))) - {without_peer}:
        with pytest.raises(ValueError, match=r".+"):
            Multiaddr.from_bytes(data[:end])
    with pytest.raises(ValueError, match="goes on"):
        Multiaddr.from_bytes(data + b"\x04")


def test_a_binary_address_of_another_transport_is_refused():
    with pytest.raises(ValueError, match=r"udp \(273\) should be"):
        Multiaddr.from_bytes(bytes.fromhex("04c0000207061267"))
    with pytest.raises(ValueError, match="starts with the code 6"):
        Multiaddr.from_bytes(bytes.fromhex("061267"))


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ((), ()),
        (("127.0.0.1",), ("127.0.0.1",)),
        (("127.0.0.1", "::1"), ("127.0.0.1", "::1")),
        (("192.0.2.7", "127.0.0.1", "fd00::7", "::1"), ("192.0.2.7", "fd00::7")),
        (("127.3.2.1", "192.0.2.7"), ("192.0.2.7",)),
    ],
)
def test_others_are_told_loopback_addresses_only_when_there_is_nothing_else(hosts, told):
    addresses = [Multiaddr.webrtc_direct(host, 4711, HASH, PEER) for host in hosts]
    assert tuple(address.host for address in for_others(addresses)) == told
