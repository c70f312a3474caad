import json
from pathlib import Path

import pytest

from kodo.p2p.core.varint import IncompleteError, PrefixedFrames, decode_varint, encode_varint
from kodo.p2p.errors import PeerError

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "varint.json").read_text())["valid"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["value"]))
def test_encodes_and_decodes_as_js_does(vector):
    data = bytes.fromhex(vector["bytes"])
    assert encode_varint(vector["value"]) == data
    assert decode_varint(data) == (vector["value"], len(data))


def test_the_largest_value_takes_nine_bytes():
    data = encode_varint(2**63 - 1)
    assert len(data) == 9
    assert decode_varint(data) == (2**63 - 1, 9)


@pytest.mark.parametrize("n", [-1, 2**63])
def test_refuses_to_encode_what_has_no_encoding(n):
    with pytest.raises(ValueError, match="cannot be a varint"):
        encode_varint(n)


def test_decodes_in_the_middle_of_a_buffer():
    assert decode_varint(b"\xff\xac\x02\xff", 1) == (300, 3)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_says_that_more_bytes_are_needed(data):
    with pytest.raises(IncompleteError):
        decode_varint(data)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\x81\x00", b"\xff\x80\x00"])
def test_refuses_an_encoding_that_is_not_the_shortest(data):
    with pytest.raises(ValueError, match="longer than it needs") as caught:
        decode_varint(data)
    assert not isinstance(caught.value, IncompleteError)


def test_refuses_a_tenth_byte_before_it_arrives():
    with pytest.raises(ValueError, match="longer than 9 bytes") as caught:
        decode_varint(b"\x80" * 9)
    assert not isinstance(caught.value, IncompleteError)


def test_keeps_a_tighter_bound():
    assert decode_varint(b"\xff\x7f", max_bytes=2) == (16383, 2)
    with pytest.raises(ValueError, match="longer than 2 bytes"):
        decode_varint(b"\x80\x80\x01", max_bytes=2)


def test_frames_come_out_whole_when_they_arrive_in_pieces():
    frames = PrefixedFrames(10, "thing")
    assert frames.feed(b"\x03ab") == []
    assert frames.buffered == 3
    assert frames.feed(b"c\x00\x02d") == [b"abc", b""]
    assert frames.feed(b"e") == [b"de"]
    assert frames.buffered == 0


def test_a_frame_over_the_bound_is_refused_by_its_announcement():
    frames = PrefixedFrames(10, "thing")
    assert frames.feed(b"\x0a" + bytes(10)) == [bytes(10)]
    with pytest.raises(PeerError, match="a thing of 11 bytes was announced"):
        frames.feed(b"\x0b")
    assert frames.buffered == 0


def test_a_stream_of_frames_stays_lost_after_a_fault():
    frames = PrefixedFrames(300, "thing")
    with pytest.raises(PeerError, match="length of a thing"):
        frames.feed(b"\x80\x80\x80")
    with pytest.raises(PeerError, match="length of a thing"):
        frames.feed(b"\x01a")
