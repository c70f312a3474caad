import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.cookie import make_cookie, read_cookie

INIT_LIKE_USRSCTPS = bytes.fromhex(
    "0100005e3b5e2a1100500000ffffffff7b4c9d21c000000480080009c00fc180828f0000"
    "80020024aabbccddaabbccddaabbccddaabbccddaabbccddaabbccddaabbccddaabbccdd80040006000100008003000680c10000"
)
"""An INIT written by hand, with the parameters that usrsctp sends and in its order; not a capture of one."""


@pytest.mark.parametrize("name", ["resets", "pads", "forwards"])
@pytest.mark.parametrize("said", [False, True])
def test_a_cookie_keeps_what_its_init_said(name, said):
    init = replace(wire.Init(1, 2, 3, 4, 5), **{name: said})
    assert read_cookie(make_cookie(init, 1.0, b"s"), 2.0, b"s") == init


@pytest.mark.parametrize("kind", [wire.PARAMETER_FORWARD_TSN, wire.PARAMETER_SUPPORTED_EXTENSIONS])
def test_an_init_says_whether_its_sender_forwards_by_a_parameter_of_its_own(kind):
    body = wire.encode_init(wire.INIT, wire.Init(1, 2, 3, 4, 5, False, False))[4:]
    assert not wire.parse_init(body).forwards
    named = wire.encode_parameter(kind, b"" if kind == wire.PARAMETER_FORWARD_TSN else b"\x82\xc0")
    assert wire.parse_init(body + named).forwards == (kind == wire.PARAMETER_FORWARD_TSN)


def test_a_packet_has_the_checksum_of_rfc_9260():
    packet = wire.PacketCodec(5000, 1).encode(wire.encode_chunk(wire.COOKIE_ACK))
    assert packet.hex() == "1388138800000001" + packet[8:12].hex() + "0b000004"
    assert wire.PacketCodec(5000, 1).matches(packet)


@pytest.mark.parametrize("place", range(16))
def test_a_packet_with_a_flipped_bit_does_not_match(place):
    packet = bytearray(wire.PacketCodec(5000, 1).encode(wire.encode_chunk(wire.COOKIE_ACK)))
    packet[place] ^= 4
    assert not wire.PacketCodec(5000, 1).matches(bytes(packet))


def test_an_init_comes_back_as_it_was():
    init = wire.Init(1, 2, 3, 4, 5, True, True, b"cookie")
    assert wire.parse_init(wire.encode_init(wire.INIT_ACK, init)[4:]) == init


def test_an_init_with_usrsctps_parameters_is_understood():
    body = INIT_LIKE_USRSCTPS[4:0x5E]
    init = wire.parse_init(body)
    assert (init.tag, init.inbound, init.resets) == (0x3B5E2A11, 0xFFFF, True)
    assert init.unrecognized == b""


def parameter(kind):
    return wire.encode_parameter(kind, b"abc")


def test_what_is_unknown_in_an_init_is_treated_as_its_high_bits_say():
    plain = wire.encode_init(wire.INIT, wire.Init(1, 2, 3, 4, 5, False, False))[4:]
    extensions = wire.encode_parameter(0x8008, bytes([wire.RE_CONFIG]))
    assert not wire.parse_init(plain + parameter(0x3000) + extensions).resets
    assert wire.parse_init(plain + parameter(0xB000) + extensions).resets
    assert wire.parse_init(plain + parameter(0xF000)).unrecognized == wire.encode_parameter(8, parameter(0xF000))
    assert wire.parse_init(plain + parameter(0x7000) + extensions).unrecognized
    assert not wire.parse_init(plain + parameter(0x7000) + extensions).resets


def test_a_sack_comes_back_as_it_was():
    tsn = (5 << 32) + 0xFFFFFFFE
    chunk = wire.encode_sack(tsn, 77, [[tsn + 2, tsn + 3], [tsn + 9, tsn + 9]], [tsn - 1])
    assert wire.parse_sack(chunk, 0, len(chunk)) == (0xFFFFFFFE, 77, (2, 3, 9, 9), (0xFFFFFFFD,))


def test_a_sack_leaves_out_what_does_not_fit():
    gaps = [[10 * number, 10 * number + 1] for number in range(1, 300)]
    chunk = wire.encode_sack(0, 1, gaps, list(range(300)), most=20)
    assert len(chunk) == 16 + 80
    chunk = wire.encode_sack(0, 1, [[2, 3], [70_000, 70_001]])
    assert wire.parse_sack(chunk, 0, len(chunk))[2] == (2, 3)


def test_a_reset_request_comes_back_as_it_was():
    request = wire.ResetRequest(1, 2, 3, (4, 5, 6))
    assert wire.parse_parameters(wire.encode_reset_request(request)) == [
        (13, wire.encode_reset_request(request)[4:22])
    ]
    assert wire.parse_reset_request(wire.encode_reset_request(request)[4:22]) == request


def test_a_reason_is_made_fit_for_printing():
    body = wire.encode_parameter(wire.CAUSE_USER_ABORT, "ü\n\x1b[31m".encode() + b"\xff" + bytes(500))
    code, text = wire.parse_causes(body)
    assert code == wire.CAUSE_USER_ABORT
    assert text.isprintable()
    assert len(text) <= 128


@given(st.binary(max_size=200))
def test_parsers_raise_value_error_or_nothing(data):
    for parse in (wire.parse_init, wire.parse_parameters, wire.parse_reset_request, wire.parse_causes):
        try:
            parse(data)
        except ValueError:
            continue
    try:
        wire.parse_sack(data, 0, len(data))
    except ValueError:
        return


def test_parsers_survive_flipped_bits_and_cuts():
    chance = random.Random(1)
    whole = wire.encode_init(wire.INIT_ACK, wire.Init(1, 2, 3, 4, 5, True, True, bytes(60)))[4:]
    for _ in range(3000):
        data = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            wire.parse_init(bytes(data))
        except ValueError:
            continue


@pytest.mark.parametrize(("earlier", "later", "follows"), [
    (5, 5, True), (5, 6, True), (6, 5, False), (0xFFFFFFFF, 0, True), (0, 0xFFFFFFFF, False),
])  # fmt: skip
def test_acknowledgements_follow_each_other_around_the_end_of_the_numbers(earlier, later, follows):
    codec = wire.PacketCodec(5000, 1)
    packets = [codec.encode(wire.encode_sack(tsn, 1000)) for tsn in (earlier, later)]
    assert all(map(wire.is_lone_sack, packets))
    assert wire.follows(*packets) == follows


@pytest.mark.parametrize("chunks", [
    b"",
    wire.encode_chunk(wire.COOKIE_ACK),
    wire.encode_sack(1, 0),
    wire.encode_sack(1, 1000, (), (1,)),
    wire.encode_sack(1, 1000) + wire.encode_chunk(wire.COOKIE_ACK),
    wire.encode_sack(1, 1000, ((3, 4),))[:-2],
    wire.encode_sack(1, 1000)[:4],
])  # fmt: skip
def test_no_other_packet_is_an_acknowledgement_alone(chunks):
    assert not wire.is_lone_sack(wire.PacketCodec(5000, 1).encode(chunks))


def test_an_acknowledgement_with_gaps_is_one_alone():
    assert wire.is_lone_sack(wire.PacketCodec(5000, 1).encode(wire.encode_sack(1, 1000, ((3, 4), (6, 9)))))
