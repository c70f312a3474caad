"""What goes between diallers, relays and nodes: each packet is read as it was made, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.identity import Identity, PeerId

PEERS = [Identity.from_seed(bytes([each]) * 32).peer_id for each in range(1, 50)]
TAG, TOKEN = relay_wire.tag_of(PEERS[0]), "0123456789abcdef0123456789abcdef"
PREFIX = stun.UFRAG_PREFIXES[1]
ADDRESSES = st.tuples(st.ip_addresses(), st.integers(1, 65535)).map(lambda each: (str(each[0]), each[1]))


def test_every_peer_has_a_tag_of_its_own_in_ice_characters() -> None:
    tags = {relay_wire.tag_of(peer) for peer in PEERS}
    assert len(tags) == len(PEERS)
    for tag in tags:
        ufrag = f"{PREFIX}{'0' * 32}/{tag}"
        stun.binding_request(ufrag, ufrag, bytes(12), tie_breaker=0, priority=0)
        assert relay_wire.tag_in(ufrag) == tag


def test_a_peer_has_the_tag_that_the_vectors_say() -> None:
    vectors = json.loads((Path(__file__).parents[3] / "vectors" / "relay.json").read_text())["tags"]
    assert vectors
    for each in vectors:
        assert relay_wire.tag_of(PeerId.parse(each["peer_id"])) == each["tag"]


@pytest.mark.parametrize(
    "ufrag",
    ["", TAG, PREFIX, PREFIX + TAG, f"{PREFIX}{'0' * 32}", f"{PREFIX}{'0' * 32}+{TAG}", f"other/{'0' * 32}/{TAG}"],
)
def test_without_a_tag_nobody_is_meant(ufrag: str) -> None:
    assert relay_wire.tag_in(ufrag) is None


PASSWORD = 22 * "p"


@pytest.mark.parametrize("prefix", stun.UFRAG_PREFIXES)
@pytest.mark.parametrize(
    ("middle", "own", "names"),
    [
        (PASSWORD, None, True),  # one name for both
        (PASSWORD, "bros", True),  # a browser's
        (PASSWORD, f"abcd/{TAG}", True),
        (PASSWORD, PASSWORD, False),  # a name that is the password
        ("", "bros", False),
        (PASSWORD, f"{stun.UFRAG_PREFIXES[0]}abcdefgh", False),  # a listener's
        (PASSWORD, f"{stun.UFRAG_PREFIXES[1]}abcdefgh", False),
        (PASSWORD, f"{stun.UFRAG_PREFIXES[0]}abcdefgh/{TAG}", False),
        (PASSWORD, f"{stun.UFRAG_PREFIXES[1]}{PASSWORD}", False),
        (f"{stun.UFRAG_PREFIXES[1]}abcdefgh", f"{stun.UFRAG_PREFIXES[1]}abcdefgh", False),
    ],
)
def test_a_check_names_a_dialler_unless_its_own_half_could_be_a_listeners(
    prefix: str, middle: str, own: str | None, names: bool
) -> None:
    ufrag = f"{prefix}{middle}/{TAG}"
    check = stun.binding_request(ufrag, own or ufrag, bytes(12), tie_breaker=1, priority=1)
    request = stun.read_binding_request(check)
    assert relay_wire.names_dialler(request) == names
    # However it is named, who listens as we do sees what it is.
    assert not relay_wire.is_question(request)
    if own is None or own.startswith(stun.UFRAG_PREFIXES):
        asked = stun.BindingRequest(bytes(12), "", request.client_ufrag, request.server_ufrag, controlling=False)
        assert relay_wire.is_question(asked)


@given(st.integers(0x4000, 0x4FFF), st.lists(st.binary(max_size=1500), max_size=3))
def test_frames_are_read_as_they_were_made(channel: int, datagrams: list[bytes]) -> None:
    made = relay_wire.frame(channel, datagrams)
    assert all(relay_wire.is_frame(each) for each in made)
    assert [relay_wire.read_frame(each) for each in made] == [(channel, data) for data in datagrams]
    for each in made:
        for cut in range(min(len(each), 8)):
            with pytest.raises(ValueError, match="frame"):
                relay_wire.read_frame(each[:cut])


@given(st.integers(0x4001, 0x4FFF), ADDRESSES, st.binary(max_size=300), st.data())
def test_a_check_is_read_as_it_was_made_and_not_when_it_was_changed(
    channel: int, address: tuple[str, int], check: bytes, data: st.DataObject
) -> None:
    _, made = relay_wire.read_frame(relay_wire.frame_of_check(channel, address, check, TOKEN))
    found = relay_wire.read_check(made, TOKEN)
    assert (found.channel, found.check) == (channel, check)
    assert stun.plain_host(address[0]) == found.address[0]
    assert address[1] == found.address[1]
    at = data.draw(st.integers(0, len(made) - 1))
    changed = made[:at] + bytes([made[at] ^ data.draw(st.integers(1, 255))]) + made[at + 1 :]
    for wrong, token in ((changed, TOKEN), (made, "another token"), (made[:at], TOKEN)):
        with pytest.raises(ValueError, match="not authentic"):
            relay_wire.read_check(wrong, token)


@given(st.integers(1, 2**96 - 1), ADDRESSES, st.binary(min_size=1, max_size=128))
def test_answers_to_nodes_are_read_as_they_were_made(number: int, address: tuple[str, int], nonce: bytes) -> None:
    request = stun.parse_message(relay_wire.attach_request(TAG, TOKEN, number, nonce), stun.BINDING_REQUEST)
    assert stun.read_username(request) == relay_wire.ATTACH_PREFIX + TAG
    assert request.is_made_with(TOKEN)
    attached = relay_wire.attached_answer(request.transaction_id, address, TOKEN)
    again = relay_wire.unattached_answer(request.transaction_id, nonce, TOKEN)
    plain = (stun.plain_host(address[0]), address[1])
    assert relay_wire.read_attach_answer(attached, TOKEN) == (number, plain, b"")
    assert relay_wire.read_attach_answer(again, TOKEN) == (number, None, nonce)
    for answer in (attached, again):
        with pytest.raises(ValueError, match="not authentic"):
            relay_wire.read_attach_answer(answer, "another token")


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    for read in (relay_wire.read_check, relay_wire.read_attach_answer):
        with pytest.raises(ValueError, match=r"."):
            read(data, TOKEN)
