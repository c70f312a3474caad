import json
from pathlib import Path

import pytest

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.noise import NoiseFrames, NoiseXX, frame_noise, read_payload, write_payload
from kodo.p2p.core.protobuf import bytes_field
from kodo.p2p.errors import IdentityError, PeerError, UsageError

VECTOR = json.loads((Path(__file__).parents[3] / "vectors" / "noise.json").read_text())
PROLOGUE = bytes.fromhex(VECTOR["prologue"])


def side(name: str, *, prologue: bytes = PROLOGUE, kind: type[NoiseXX] = NoiseXX) -> NoiseXX:
    keys = VECTOR[name]
    return kind(
        initiator=name == "initiator",
        static_private=bytes.fromhex(keys["static_private"]),
        ephemeral_private=bytes.fromhex(keys["ephemeral_private"]),
        prologue=prologue,
        identity=Identity.from_seed(bytes.fromhex(keys["identity_seed"])),
    )


def test_the_transcript_agrees_with_js_byte_for_byte():
    initiator, responder = side("initiator"), side("responder")
    for index, (writer, reader) in enumerate(
        ((initiator, responder), (responder, initiator), (initiator, responder))
    ):
        message = writer.write_message()
        assert message.hex() == VECTOR["messages"][index]
        reader.read_message(message)
    assert initiator.handshake_hash.hex() == responder.handshake_hash.hex() == VECTOR["handshake_hash"]
    assert [key.hex() for key in initiator.split()] == VECTOR["keys"]
    assert [key.hex() for key in reversed(responder.split())] == VECTOR["keys"]


@pytest.mark.parametrize(("name", "theirs"), [("initiator", [1]), ("responder", [0, 2])])
def test_each_side_learns_who_the_other_is_from_the_messages_of_js(name, theirs):
    handshake = side(name)
    for index, message in enumerate(VECTOR["messages"]):
        if index in theirs:
            assert handshake.remote_peer is None
            assert not handshake.finished
            handshake.read_message(bytes.fromhex(message))
        else:
            assert handshake.wants_write
            handshake.write_message()
    other = "responder" if name == "initiator" else "initiator"
    assert handshake.finished
    assert not handshake.wants_write
    assert str(handshake.remote_peer) == VECTOR[other]["peer_id"]


def test_the_initiator_is_not_finished_before_it_has_said_who_it_is():
    initiator, responder = side("initiator"), side("responder")
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    assert initiator.remote_peer is not None
    assert not initiator.finished


def test_payloads_agree_with_js_and_extensions_are_passed_over():
    static_public = bytes.fromhex(VECTOR["initiator_static_public"])
    identity = Identity.from_seed(bytes.fromhex(VECTOR["initiator"]["identity_seed"]))
    assert write_payload(identity, static_public).hex() == VECTOR["initiator_payload"]
    extended = bytes.fromhex(VECTOR["initiator_payload_with_extensions"])
    assert read_payload(extended, static_public) == identity.peer_id


def test_a_signature_over_another_static_key_is_refused():
    payload = bytes.fromhex(VECTOR["initiator_payload"])
    with pytest.raises(IdentityError, match="cannot prove it"):
        read_payload(payload, bytes(32))


def test_a_payload_without_a_signature_is_refused():
    payload = bytes.fromhex(VECTOR["initiator_payload"])[:38]
    with pytest.raises(IdentityError, match="cannot prove it"):
        read_payload(payload, bytes.fromhex(VECTOR["initiator_static_public"]))


@pytest.mark.parametrize("payload", [b"", b"\x0a", bytes_field(1, b"key"), b"\x08\x01"])
def test_a_payload_without_a_readable_key_is_malformed(payload):
    with pytest.raises(PeerError, match="payload is malformed"):
        read_payload(payload, bytes(32))


def test_a_payload_is_bounded():
    payload = bytes.fromhex(VECTOR["initiator_payload"]) + bytes_field(4, bytes(4096))
    with pytest.raises(PeerError, match="over the limit"):
        read_payload(payload, bytes.fromhex(VECTOR["initiator_static_public"]))


def test_an_identity_that_cannot_be_proven_ends_the_handshake():
    class Liar(NoiseXX):
        """Claims the key of another, having a wrong signature for it."""

        def __init__(self, **arguments):
            super().__init__(**arguments)
            honest = self._identity

            class Claimed:
                peer_id = Identity.from_seed(bytes(32)).peer_id

                @staticmethod
                def sign(data):
                    return honest.sign(data)

            self._identity = Claimed

    initiator, responder = side("initiator"), side("responder", kind=Liar)
    responder.read_message(initiator.write_message())
    with pytest.raises(IdentityError):
        initiator.read_message(responder.write_message())
    assert initiator.remote_peer is None
    with pytest.raises(UsageError):
        initiator.write_message()


def test_sides_with_different_prologues_do_not_understand_each_other():
    initiator, responder = side("initiator"), side("responder", prologue=PROLOGUE[:-1] + b"\0")
    responder.read_message(initiator.write_message())
    with pytest.raises(PeerError, match="does not decrypt"):
        initiator.read_message(responder.write_message())


@pytest.mark.parametrize("position", [0, 31, 32, 79, 80, 100, -1])
def test_any_changed_byte_of_the_second_message_is_noticed(position):
    initiator = side("initiator")
    initiator.write_message()
    message = bytearray.fromhex(VECTOR["messages"][1])
    message[position] ^= 1
    with pytest.raises(PeerError, match="does not decrypt"):
        initiator.read_message(bytes(message))
    assert not initiator.finished


def test_a_failed_handshake_cannot_go_on():
    initiator = side("initiator")
    initiator.write_message()
    with pytest.raises(PeerError, match="cut off"):
        initiator.read_message(b"short")
    with pytest.raises(UsageError, match="FAILED"):
        initiator.read_message(bytes.fromhex(VECTOR["messages"][1]))
    with pytest.raises(UsageError, match="FAILED"):
        initiator.write_message()


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_of_small_order_is_refused(point):
    responder = side("responder")
    responder.read_message(point)
    with pytest.raises(PeerError, match="gives no shared secret"):
        responder.write_message()


def test_a_message_is_bounded():
    responder = side("responder")
    with pytest.raises(PeerError, match="over the limit"):
        responder.read_message(bytes(65536))


def test_acting_out_of_turn_changes_nothing():
    initiator, responder = side("initiator"), side("responder")
    with pytest.raises(UsageError, match="READ_E cannot write"):
        responder.write_message()
    with pytest.raises(UsageError, match="WRITE_E cannot read"):
        initiator.read_message(bytes(32))
    with pytest.raises(UsageError, match="before it is finished"):
        initiator.split()
    assert initiator.write_message().hex() == VECTOR["messages"][0]


def test_frames_have_a_length_of_two_bytes_and_come_out_however_they_were_cut():
    data = frame_noise(b"abc") + frame_noise(b"") + frame_noise(bytes(300))
    assert data.startswith(b"\x00\x03abc\x00\x00\x01\x2c")
    assert NoiseFrames().feed(data) == [b"abc", b"", bytes(300)]
    frames = NoiseFrames()
    assert [message for byte in data for message in frames.feed(bytes((byte,)))] == [b"abc", b"", bytes(300)]
    assert len(frame_noise(bytes(65535))) == 65537
    with pytest.raises(ValueError, match="over the limit"):
        frame_noise(bytes(65536))
