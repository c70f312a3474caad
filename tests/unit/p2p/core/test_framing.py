import hashlib
import json
from pathlib import Path

import pytest

from kodo.p2p.core.framing import MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, Flag, MessageReader, encode_message
from kodo.p2p.errors import PeerError

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "framing.json").read_text())["valid"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['flag']}-{vector['payload_length']}")
def test_messages_agree_with_js(vector):
    payload = bytes(i & 255 for i in range(vector["payload_length"]))
    flag = Flag[vector["flag"]] if vector["flag"] else None
    encoded = encode_message(flag, payload)
    if vector["bytes"] is not None:
        assert encoded.hex() == vector["bytes"]
    assert hashlib.sha256(encoded).hexdigest() == vector["sha256"]
    assert MessageReader().feed(encoded) == [(flag, payload)]


def test_the_largest_payload_fits_into_the_largest_message_beside_a_flag():
    assert len(encode_message(Flag.FIN, bytes(MAX_PAYLOAD_BYTES))) == MAX_MESSAGE_BYTES
    with pytest.raises(ValueError, match="over the limit"):
        encode_message(None, bytes(MAX_PAYLOAD_BYTES + 1))


def test_messages_come_out_however_they_were_cut():
    data = encode_message(None, b"abc") + encode_message(Flag.FIN) + encode_message(None, b"d" * 200)
    reader = MessageReader()
    assert [message for byte in data for message in reader.feed(bytes((byte,)))] == [
        (None, b"abc"),
        (Flag.FIN, b""),
        (None, b"d" * 200),
    ]


def test_a_message_over_16_kib_is_refused_by_its_announcement():
    reader = MessageReader()
    with pytest.raises(PeerError, match="16383 bytes was announced"):
        reader.feed(b"\xff\x7f")


def test_the_bound_counts_the_length_prefix():
    body = b"\x12\xfb\x7f" + bytes(16379)
    assert MessageReader().feed(b"\xfe\x7f" + body) == [(None, bytes(16379))]


def test_an_unknown_flag_is_passed_over():
    assert MessageReader().feed(bytes.fromhex("050809120161")) == [(None, b"a")]


def test_an_unknown_field_is_passed_over():
    assert MessageReader().feed(bytes.fromhex("051a0178" + "0800")) == [(Flag.FIN, b"")]


@pytest.mark.parametrize("data", ["020880", "031202aa", "020a00", "021001", "010b"])
def test_a_malformed_message_is_the_peers_fault(data):
    with pytest.raises(PeerError, match="malformed"):
        MessageReader().feed(bytes.fromhex(data))
