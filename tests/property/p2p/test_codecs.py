"""What holds for every value: it comes back as it was, and how the bytes were cut does not matter."""

import ipaddress
import itertools

from aioice import stun as aioice_stun
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.callframe import FrameReader, encode_frame
from kodo.p2p.core.framing import MAX_PAYLOAD_BYTES, Flag, MessageReader, encode_message
from kodo.p2p.core.identity import Identity, PeerId, decode_public_key, encode_public_key, verify
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.multibase import (
    base58_decode,
    base58_encode,
    base64url_decode,
    base64url_encode,
    decode_multibase,
)
from kodo.p2p.core.negotiate import Accepting, Dialing
from kodo.p2p.core.noise import NoiseFrames, NoiseXX, frame_noise
from kodo.p2p.core.protobuf import bytes_field, fields, varint_field
from kodo.p2p.core.stun import (
    BindingRequest,
    binding_request,
    binding_response,
    read_binding_request,
    read_binding_response,
)
from kodo.p2p.core.varint import decode_varint, encode_varint

keys = st.binary(min_size=32, max_size=32)
peer_ids = keys.map(PeerId)
ports = st.integers(1, 65535)
numbers = st.integers(0, 2**63 - 1) | st.integers(0, 300) | st.integers(0, 62).map(lambda bits: 1 << bits)
labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda name: not name.split(".")[-1].isdigit())
hosts = st.ip_addresses().map(str) | names
addresses = st.builds(Multiaddr.webrtc_direct, hosts, ports, keys, st.none() | peer_ids)
ufrags = st.text("abcXYZ019+/", min_size=4, max_size=200)
server_ufrags = st.builds("libp2p+webrtc+v{}/{}".format, st.integers(1, 2), ufrags)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=5),
    max_leaves=20,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def feed(reader, parts):
    return [value for part in parts for value in reader.feed(part)]


@given(numbers, st.binary(max_size=4))
def test_varints_come_back_in_their_one_encoding(n, tail):
    data = encode_varint(n)
    assert decode_varint(data + tail) == (n, len(data))
    assert len(data) == max(1, -(-n.bit_length() // 7))


@given(st.binary(max_size=80))
def test_bytes_come_back_from_text(data):
    assert base58_decode(base58_encode(data)) == data
    assert base64url_decode(base64url_encode(data)) == data
    assert decode_multibase(base64url_encode(data)) == data
    assert decode_multibase("z" + base58_encode(data)) == data


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), numbers | st.binary(max_size=300)), max_size=10))
def test_protobuf_fields_come_back_in_order(wanted):
    data = b"".join(
        bytes_field(number, value) if isinstance(value, bytes) else varint_field(number, value)
        for number, value in wanted
    )
    assert list(fields(data)) == wanted


@given(keys)
def test_peer_ids_come_back_from_every_form(key):
    peer_id = PeerId(key)
    assert len(str(peer_id)) == 52
    assert PeerId.parse(str(peer_id)) == peer_id
    assert PeerId.from_bytes(peer_id.to_bytes()) == peer_id
    assert decode_public_key(encode_public_key(key)) == peer_id


@given(keys, st.binary(max_size=100), st.integers(0, 511))
def test_a_signature_with_any_bit_changed_does_not_hold(seed, data, bit):
    identity = Identity.from_seed(seed)
    signature = bytearray(identity.sign(data))
    assert verify(identity.peer_id, bytes(signature), data)
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(identity.peer_id, bytes(signature), data)


@given(addresses, peer_ids)
def test_addresses_come_back_from_text_and_bytes(address, peer_id):
    for each in (address, address.with_peer(peer_id)):
        assert Multiaddr.parse(str(each)) == each
        assert Multiaddr.from_bytes(each.to_bytes()) == each


@given(server_ufrags, ufrags, st.binary(min_size=12, max_size=12), st.ip_addresses(), ports, st.booleans())
def test_dialer_and_listener_understand_each_others_stun(server, client, transaction, host, port, nominate):
    data = binding_request(server, client, transaction, tie_breaker=7, priority=9, nominate=nominate)
    request = read_binding_request(data)
    assert (request.server_ufrag, request.client_ufrag, request.transaction_id) == (server, client, transaction)
    seen_host, seen_port = read_binding_response(
        binding_response(request, (str(host), port)), transaction, server
    ).address
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    assert (ipaddress.ip_address(seen_host), seen_port) == (mapped or host, port)


OTHER_ATTRIBUTES = {
    "PRIORITY": st.integers(0, 2**32 - 1),
    "USE-CANDIDATE": st.none(),
    "ICE-CONTROLLING": st.integers(0, 2**64 - 1),
    "SOFTWARE": st.text(max_size=40),
    "NONCE": st.binary(max_size=40),
    "OTHER-ADDRESS": st.tuples(st.ip_addresses().map(str), ports),
}
others = st.lists(st.sampled_from(sorted(OTHER_ATTRIBUTES)), unique=True).flatmap(
    lambda names: st.tuples(*(st.tuples(st.just(name), OTHER_ATTRIBUTES[name]) for name in names))
)


@given(server_ufrags, ufrags, st.binary(min_size=12, max_size=12), st.data())
def test_requests_of_another_library_are_read_and_ours_by_it(server, client, transaction, data):
    attributes = [*data.draw(others), ("USERNAME", f"{server}:{client}")]
    message = aioice_stun.Message(
        aioice_stun.Method.BINDING,
        aioice_stun.Class.REQUEST,
        transaction,
        dict(data.draw(st.permutations(attributes))),
    )
    message.add_message_integrity(server.encode())
    request = read_binding_request(bytes(message))
    assert (request.server_ufrag, request.client_ufrag, request.transaction_id) == (server, client, transaction)

    ours = aioice_stun.parse_message(binding_request(server, client, transaction, tie_breaker=7, priority=9))
    assert ours.check_message_integrity(server.encode())
    assert ours.attributes["USERNAME"] == f"{server}:{client}"


@given(server_ufrags, st.binary(min_size=12, max_size=12), st.ip_addresses(), ports)
def test_answers_of_another_library_are_read_and_ours_by_it(server, transaction, host, port):
    message = aioice_stun.Message(
        aioice_stun.Method.BINDING,
        aioice_stun.Class.RESPONSE,
        transaction,
        {"XOR-MAPPED-ADDRESS": (str(host).partition("%")[0], port)},
    )
    message.add_message_integrity(server.encode())
    seen_host, seen_port = read_binding_response(bytes(message), transaction, server).address
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    assert (ipaddress.ip_address(seen_host), seen_port) == (mapped or host, port)

    request = BindingRequest(transaction, f"{server}:abcd", server, "abcd", True)
    ours = aioice_stun.parse_message(binding_response(request, (str(host), port)))
    assert ours.check_message_integrity(server.encode())
    shown, at = ours.attributes["XOR-MAPPED-ADDRESS"]
    assert (ipaddress.ip_address(shown), at) == (mapped or host, port)


messages = st.tuples(
    st.none() | st.sampled_from(Flag),
    st.binary(max_size=300) | st.integers(0, MAX_PAYLOAD_BYTES).map(bytes),
)


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 2**20), max_size=8))
def test_stream_messages_come_back_however_they_were_cut(wanted, cuts):
    data = b"".join(encode_message(flag, payload) for flag, payload in wanted)
    assert feed(MessageReader(), pieces(data, cuts)) == wanted


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_noise_messages_come_back_byte_by_byte(wanted):
    data = b"".join(frame_noise(message) for message in wanted)
    assert NoiseFrames().feed(data) == wanted
    assert feed(NoiseFrames(), [bytes((byte,)) for byte in data]) == wanted


@given(st.lists(values, max_size=4), st.lists(st.integers(0, 2**20), max_size=8))
def test_call_frames_come_back_however_they_were_cut(wanted, cuts):
    data = b"".join(encode_frame(value) for value in wanted)
    assert feed(FrameReader(), pieces(data, cuts)) == wanted


@given(
    st.sets(st.from_regex(r"/[a-z]{1,8}/[0-9]", fullmatch=True), min_size=1, max_size=4),
    st.data(),
    st.binary(max_size=20),
    st.lists(st.integers(0, 2**20), max_size=8),
)
def test_a_protocol_is_agreed_however_the_bytes_were_cut(offered, data, payload, cuts):
    protocol = data.draw(st.sampled_from(sorted(offered)))
    dialing, accepting = Dialing(protocol), Accepting(offered)
    answers = b"".join(accepting.feed(part) for part in pieces(dialing.hello() + payload, cuts))
    assert (accepting.protocol, accepting.leftover) == (protocol, payload)
    done = [dialing.feed(part) for part in pieces(answers + payload, cuts)]
    assert done[-1]
    assert dialing.leftover == payload


@given(keys, keys, keys, keys, keys, keys, st.binary(max_size=100))
def test_any_two_sides_with_one_prologue_learn_who_the_other_is(
    i_id, i_static, i_eph, r_id, r_static, r_eph, prologue
):
    initiator = NoiseXX(True, i_static, i_eph, prologue, Identity.from_seed(i_id))
    responder = NoiseXX(False, r_static, r_eph, prologue, Identity.from_seed(r_id))
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    responder.read_message(initiator.write_message())
    assert initiator.finished
    assert responder.finished
    assert initiator.remote_peer == Identity.from_seed(r_id).peer_id
    assert responder.remote_peer == Identity.from_seed(i_id).peer_id
    assert initiator.split() == responder.split()[::-1]
