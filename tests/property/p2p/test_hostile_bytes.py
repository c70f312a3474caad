"""Whatever bytes a peer sends: a reader takes them, or refuses them by its one named error."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kodo.p2p.core import stun
from kodo.p2p.core.callframe import FrameReader, encode_frame, read_answer, read_request
from kodo.p2p.core.framing import MessageReader, encode_message
from kodo.p2p.core.identity import Identity, PeerId, decode_public_key, verify
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.multibase import base58_decode, decode_multibase
from kodo.p2p.core.negotiate import Accepting, Dialing
from kodo.p2p.core.noise import NoiseFrames, NoiseXX, read_payload
from kodo.p2p.core.protobuf import fields
from kodo.p2p.core.varint import decode_varint
from kodo.p2p.errors import PeerError

IDENTITY = Identity.from_seed(bytes(32))
HASH = bytes(range(32))
ADDRESS = Multiaddr.webrtc_direct("192.0.2.7", 4711, HASH, IDENTITY.peer_id)
SERVER = "libp2p+webrtc+v2/abcdefgh"
REQUEST = stun.binding_request(SERVER, "abcd", bytes(12), tie_breaker=1, priority=1)
RESPONSE = stun.binding_response(stun.read_binding_request(REQUEST), ("192.0.2.7", 4711))


def changed(*originals: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and valid ones with something cut out or put in: those get far into a reader."""
    middle = st.builds(
        lambda data, start, length, put: data[: start % len(data)] + put + data[start % len(data) + length :],
        st.sampled_from(originals),
        st.integers(0, 2**12),
        st.integers(0, 6),
        st.binary(max_size=6),
    )
    return st.binary(max_size=200) | middle


def refuses(error: type[Exception], read, *arguments) -> None:
    with contextlib.suppress(error):
        read(*arguments)


@given(changed(b"\x80\x80\x01", b"\xff" * 9))
def test_varint(data):
    refuses(ValueError, decode_varint, data)


@given(changed(b"\x08\x96\x01\x12\x03abc\x0d" + bytes(4) + b"\x11" + bytes(8)))
def test_protobuf(data):
    refuses(ValueError, lambda: list(fields(data)))


@given(st.text(max_size=60) | st.text("123ABCabcuz-_=", max_size=140))
def test_texts(text):
    refuses(ValueError, decode_multibase, text)
    refuses(ValueError, base58_decode, text)
    refuses(ValueError, PeerId.parse, text)
    refuses(ValueError, PeerId.parse, "12D3Koo" + text[:45])
    refuses(ValueError, Multiaddr.parse, text)


@given(st.lists(st.sampled_from(str(ADDRESS).split("/")) | st.text(max_size=5), max_size=12))
def test_address_texts(parts):
    refuses(ValueError, Multiaddr.parse, "/".join(parts))


@given(changed(ADDRESS.to_bytes(), IDENTITY.peer_id.to_bytes()))
def test_binary_addresses_and_peer_ids(data):
    refuses(ValueError, Multiaddr.from_bytes, data)
    refuses(ValueError, PeerId.from_bytes, data)
    refuses(ValueError, decode_public_key, data)


@given(st.binary(max_size=80), st.binary(min_size=32, max_size=32))
def test_signatures(signature, key):
    assert not verify(PeerId(key), signature, b"data") or len(signature) == 64


@given(changed(REQUEST, RESPONSE))
@example(REQUEST[:4] + bytes(4) + REQUEST[8:])
def test_stun(data):
    stun.is_stun(data)
    stun.is_dtls(data)
    stun.is_dtls_handshake(data)
    refuses(ValueError, stun.read_binding_request, data)
    refuses(ValueError, stun.read_binding_response, data, bytes(12), SERVER)


@given(
    st.sampled_from([b"\x00\x01", b"\x01\x01"]),
    st.lists(st.tuples(st.integers(0, 0x30) | st.integers(0x8020, 0x8030), st.binary(max_size=24)), max_size=6),
)
def test_stun_attributes(kind, attributes):
    # The header is right, so every attribute is parsed.
    body = b"".join(
        number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    data = kind + len(body).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12) + body
    assert stun.is_stun(data)
    with pytest.raises(ValueError, match=r".*"):
        stun.read_binding_request(data)
    with pytest.raises(ValueError, match=r".*"):
        stun.read_binding_response(data, bytes(12), SERVER)


def whole_and_in_bytes(make, data):
    """Give what a reader makes of `data` in one piece, and byte by byte: values, and whether it refused."""
    outcomes = []
    for parts in ([data], [bytes((byte,)) for byte in data]):
        reader, values, refused = make(), [], False
        try:
            for part in parts:
                values += reader.feed(part)
        except PeerError:
            refused = True
        outcomes.append((values, refused))
    return outcomes


@given(changed(encode_message(None, b"abc") + encode_message(None, b"x" * 150)))
def test_stream_messages(data):
    (values, refused), (later_values, later_refused) = whole_and_in_bytes(MessageReader, data)
    assert refused == later_refused
    assert refused or values == later_values


@given(changed(encode_frame({"item": {"a": [1, 2.5, None, True, b"x" * 40]}}), encode_frame({"op": "a", "args": {}})))
def test_call_frames(data):
    (values, refused), (later_values, later_refused) = whole_and_in_bytes(FrameReader, data)
    assert refused == later_refused
    assert refused or repr(values) == repr(later_values)
    for value in values:
        refuses(PeerError, read_request, value)
        refuses(PeerError, read_answer, value)


@given(st.binary(max_size=60))
def test_call_frame_bodies(body):
    refuses(PeerError, FrameReader().feed, bytes((len(body),)) + body)


@given(changed(Dialing("/kodo/call/1").hello() + b"payload"))
def test_protocol_choice(data):
    for make in (lambda: Accepting({"/kodo/call/1"}), lambda: Dialing("/kodo/call/1")):
        refuses(PeerError, make().feed, data)
        reader = make()
        for byte in data:
            try:
                reader.feed(bytes((byte,)))
            except PeerError:
                break


@given(st.binary(max_size=400))
def test_noise_frames_keep_what_is_not_whole(data):
    frames = NoiseFrames()
    messages = frames.feed(data)
    assert sum(2 + len(message) for message in messages) <= len(data)


def handshake(initiator: bool) -> NoiseXX:
    return NoiseXX(initiator, b"\x01" * 32, b"\x02" * 32, b"prologue", IDENTITY)


SECOND = bytes.fromhex("07") * 32
FIRST_MESSAGE = handshake(True).write_message()


@given(changed(FIRST_MESSAGE, FIRST_MESSAGE * 4))
def test_noise_messages(data):
    initiator, responder = handshake(True), handshake(False)
    initiator.write_message()
    with pytest.raises(PeerError):
        initiator.read_message(data)
    try:
        responder.read_message(data)
        responder.write_message()
    except PeerError:
        return
    with pytest.raises(PeerError):
        responder.read_message(data)


@given(changed(b"\x0a\x24\x08\x01\x12\x20" + SECOND + b"\x12\x40" + bytes(64)))
def test_noise_payloads(payload):
    with pytest.raises(PeerError):
        read_payload(payload, HASH)
