import json
from pathlib import Path

import pytest
from aioice import stun as codec

from kodo.p2p.core.stun import (
    UFRAG_PREFIXES,
    binding_request,
    binding_response,
    is_binding_request,
    is_dtls,
    is_dtls_handshake,
    is_stun,
    read_binding_request,
    read_binding_response,
)

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "stun.json").read_text())
REQUEST = VECTORS["request"]
DATA = bytes.fromhex(REQUEST["bytes"])
SERVER, CLIENT = REQUEST["server_ufrag"], REQUEST["client_ufrag"]
TRANSACTION = bytes.fromhex(REQUEST["transaction_id"])


def signed(username, key=SERVER, *, kind=codec.Class.REQUEST, method=codec.Method.BINDING):
    message = codec.Message(method, kind, TRANSACTION, {} if username is None else {"USERNAME": username})
    message.add_message_integrity(key.encode())
    return bytes(message)


@pytest.mark.parametrize("vector", VECTORS["rfc5769_responses"], ids=lambda vector: vector["name"])
def test_reads_the_responses_of_rfc_5769(vector):
    data, transaction = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["transaction_id"])
    assert read_binding_response(data, transaction, vector["key"]).address == tuple(vector["address"])


def test_the_dialers_request_is_as_it_always_was():
    made = binding_request(
        SERVER, CLIENT, TRANSACTION, tie_breaker=int(REQUEST["tie_breaker"], 16), priority=REQUEST["priority"]
    )
    assert made == DATA


@pytest.mark.parametrize("vector", VECTORS["responses"], ids=lambda vector: vector["address"][0])
def test_the_listeners_response_is_as_it_always_was(vector):
    made = binding_response(read_binding_request(DATA), tuple(vector["address"]))
    assert made.hex() == vector["bytes"]
    assert read_binding_response(made, TRANSACTION, SERVER).address == tuple(vector["address"])


def test_the_request_is_controlling_and_nominates_unless_told_otherwise():
    attributes = codec.parse_message(DATA).attributes
    assert attributes["ICE-CONTROLLING"] == 0x0102030405060708
    assert attributes["PRIORITY"] == REQUEST["priority"]
    assert "USE-CANDIDATE" in attributes
    quiet = binding_request(SERVER, CLIENT, TRANSACTION, tie_breaker=1, priority=1, nominate=False)
    assert "USE-CANDIDATE" not in codec.parse_message(quiet).attributes


def test_the_listener_reads_both_ufrags():
    request = read_binding_request(DATA)
    assert request.transaction_id == TRANSACTION
    assert request.username == f"{SERVER}:{CLIENT}"
    assert (request.server_ufrag, request.client_ufrag) == (SERVER, CLIENT)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("length", [4, 256])
def test_both_versions_and_all_lengths_of_ice_are_read(version, length):
    server = f"libp2p+webrtc+{version}/".ljust(max(length, 21), "a")
    client = "b" * length
    request = read_binding_request(signed(f"{server}:{client}", server))
    assert (request.server_ufrag, request.client_ufrag) == (server, client)


@pytest.mark.parametrize(
    ("username", "why"),
    [
        (None, "two ICE ufrags"),
        ("", "two ICE ufrags"),
        (SERVER, "two ICE ufrags"),
        (f"{SERVER}:", "two ICE ufrags"),
        (f"{SERVER}:abc", "two ICE ufrags"),
        (f"{SERVER}:abcd:efgh", "two ICE ufrags"),
        (f"{SERVER}:ab-d", "two ICE ufrags"),
        (f"{SERVER}:abcd\n", "two ICE ufrags"),
        (f"{SERVER}:äbcd", "two ICE ufrags"),
        (f"{SERVER}:{'a' * 257}", "two ICE ufrags"),
        ("libp2p+webrtc+v3/abcd:abcd", "known WebRTC Direct prefix"),
        ("abcdefgh:libp2p+webrtc+v1/abcd", "known WebRTC Direct prefix"),
    ],
)
def test_another_username_is_refused(username, why):
    with pytest.raises(ValueError, match=why):
        read_binding_request(signed(username))


def test_a_request_under_another_key_is_refused():
    with pytest.raises(ValueError, match="MESSAGE-INTEGRITY"):
        read_binding_request(signed(f"{SERVER}:{CLIENT}", CLIENT))


def test_a_request_without_integrity_is_refused():
    message = codec.Message(
        codec.Method.BINDING, codec.Class.REQUEST, TRANSACTION, {"USERNAME": f"{SERVER}:{CLIENT}"}
    )
    message.add_fingerprint()
    with pytest.raises(ValueError, match="MESSAGE-INTEGRITY"):
        read_binding_request(bytes(message))


def test_a_username_after_the_integrity_does_not_count():
    message = codec.Message(codec.Method.BINDING, codec.Class.REQUEST, TRANSACTION)
    message.attributes["MESSAGE-INTEGRITY"] = codec.message_integrity(bytes(message), SERVER.encode())
    message.attributes["USERNAME"] = f"{SERVER}:{CLIENT}"
    with pytest.raises(ValueError, match="two ICE ufrags"):
        read_binding_request(bytes(message))


@pytest.mark.parametrize("kind", [codec.Class.INDICATION, codec.Class.RESPONSE, codec.Class.ERROR])
def test_only_a_request_is_read_as_request(kind):
    with pytest.raises(ValueError, match="type of STUN message"):
        read_binding_request(signed(f"{SERVER}:{CLIENT}", kind=kind))


def test_only_binding_is_read():
    with pytest.raises(ValueError, match="type of STUN message"):
        read_binding_request(signed(f"{SERVER}:{CLIENT}", method=codec.Method.ALLOCATE))


# Not the fingerprint's own type and length: changed, it is an unknown attribute, which is optional and passed over.
@pytest.mark.parametrize("position", [*range(len(DATA) - 8), *range(len(DATA) - 4, len(DATA))])
def test_any_changed_byte_is_noticed(position):
    data = bytearray(DATA)
    data[position] ^= 1
    with pytest.raises(ValueError, match=r".+"):
        read_binding_request(bytes(data))


def test_an_oversized_message_is_refused_before_it_is_parsed():
    message = codec.Message(codec.Method.BINDING, codec.Class.REQUEST, TRANSACTION, {"DATA": bytes(1400)})
    with pytest.raises(ValueError, match="over the limit"):
        read_binding_request(bytes(message))


@pytest.mark.parametrize(
    ("seen", "shown"),
    [("::ffff:192.0.2.7", "192.0.2.7"), ("fe80::1%eth0", "fe80::1"), ("2001:DB8::1", "2001:db8::1")],
)
def test_addresses_are_shown_as_the_dialer_knows_them(seen, shown):
    response = binding_response(read_binding_request(DATA), (seen, 4711))
    assert read_binding_response(response, TRANSACTION, SERVER).address == (shown, 4711)


def test_the_dialer_refuses_the_answer_to_another_request_and_one_under_another_key():
    response = bytes.fromhex(VECTORS["responses"][0]["bytes"])
    with pytest.raises(ValueError, match="another request"):
        read_binding_response(response, bytes(12), SERVER)
    with pytest.raises(ValueError, match="MESSAGE-INTEGRITY"):
        read_binding_response(response, TRANSACTION, CLIENT)


def test_the_dialer_refuses_an_error_and_an_answer_without_an_address():
    with pytest.raises(ValueError, match="type of STUN message"):
        read_binding_response(signed(None, kind=codec.Class.ERROR), TRANSACTION, SERVER)
    with pytest.raises(ValueError, match="without XOR-MAPPED-ADDRESS"):
        read_binding_response(signed(None, kind=codec.Class.RESPONSE), TRANSACTION, SERVER)


@pytest.mark.parametrize(
    "wrong",
    [
        {"server_ufrag": "abc"},
        {"client_ufrag": "a:bc"},
        {"transaction_id": bytes(11)},
        {"tie_breaker": -1},
        {"tie_breaker": 2**64},
        {"priority": 2**32},
    ],
)
def test_the_dialer_cannot_make_a_request_that_is_not_valid(wrong):
    arguments = {
        "server_ufrag": SERVER,
        "client_ufrag": CLIENT,
        "transaction_id": TRANSACTION,
        "tie_breaker": 1,
        "priority": 1,
    }
    with pytest.raises(ValueError, match=r"ufrag|transaction|tie breaker"):
        binding_request(**(arguments | wrong))


def test_datagrams_are_told_apart_by_their_first_bytes():
    assert is_stun(DATA)
    assert not is_dtls(DATA)
    assert is_dtls(b"\x14")
    assert is_dtls(b"\x3f")
    assert not is_dtls(b"\x13")
    assert not is_dtls(b"\x40")
    assert is_dtls_handshake(b"\x16\xfe\xfd")
    assert not is_dtls_handshake(b"\x17\xfe\xfd")
    for data in (b"", DATA[:19], DATA[:-1], DATA + b"\0", b"\x40" + DATA[1:], DATA[:4] + bytes(4) + DATA[8:]):
        assert not is_stun(data)
    assert not is_dtls(b"")
    assert not is_dtls_handshake(b"")


def test_a_request_is_told_from_its_answer() -> None:
    ufrag = UFRAG_PREFIXES[1] + "a" * 24
    request = binding_request(ufrag, ufrag, bytes(12), tie_breaker=1, priority=1)
    answer = binding_response(read_binding_request(request), ("192.0.2.1", 7))
    assert is_binding_request(request)
    assert not any(is_binding_request(each) for each in (answer, request[:-1], b""))


# Whole without the FINGERPRINT, which is optional.
@pytest.mark.parametrize("cut", sorted({*range(21, len(DATA))} - {len(DATA) - 8}))
def test_a_message_whose_attributes_are_longer_than_it_is_refused(cut):
    # With the header's length as it is then, so that it looks like STUN.
    data = DATA[:2] + (cut - 20).to_bytes(2, "big") + DATA[4:cut]
    with pytest.raises(ValueError, match=r".+"):
        read_binding_request(data)


def test_of_two_usernames_the_first_counts():
    message = codec.Message(codec.Method.BINDING, codec.Class.REQUEST, TRANSACTION)
    message.attributes["USERNAME"] = f"{SERVER}:{CLIENT}"
    second = codec.Message(codec.Method.BINDING, codec.Class.REQUEST, TRANSACTION, {"USERNAME": f"{CLIENT}:abcd"})
    covered = bytes(message) + bytes(second)[20:]
    signed_twice = codec.set_body_length(covered, len(covered) - 20 + 24)
    data = signed_twice + b"\0\x08\0\x14" + codec.message_integrity(covered, SERVER.encode())
    assert read_binding_request(data).server_ufrag == SERVER
