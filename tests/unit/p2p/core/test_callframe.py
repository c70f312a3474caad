import json
from pathlib import Path

import msgpack
import pytest

from kodo.p2p.core.callframe import (
    MAX_DEPTH,
    Done,
    FrameReader,
    Item,
    done,
    encode_frame,
    error,
    item,
    packed_item,
    read_answer,
    read_request,
    request,
)
from kodo.p2p.core.varint import encode_varint
from kodo.p2p.errors import CallError, CapacityError, PeerError

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "callframe.json").read_text())


def revive(value):
    if isinstance(value, dict):
        if "$bytes" in value:
            return bytes.fromhex(value["$bytes"])
        if "$int" in value:
            return int(value["$int"])
        return {key: revive(each) for key, each in value.items()}
    return [revive(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["bytes"][:24])
def test_frames_read_and_write_as_the_vectors_say(vector):
    value, data = revive(vector["value"]), bytes.fromhex(vector["bytes"])
    assert encode_frame(value) == data
    assert FrameReader().feed(data) == [value]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"])
def test_a_frame_that_is_not_valid_is_the_peers_fault(vector):
    with pytest.raises(PeerError, match="call frame is not valid"):
        FrameReader().feed(bytes.fromhex(vector["bytes"]))


def nested(depth):
    value = None
    for _ in range(depth):
        value = {"a": value}
    return value


def test_nesting_is_bounded_on_both_sides():
    frame = encode_frame(nested(MAX_DEPTH))
    assert FrameReader().feed(frame) == [nested(MAX_DEPTH)]
    with pytest.raises(ValueError, match="nested too deeply"):
        encode_frame(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused_on_both_sides(number):
    with pytest.raises(ValueError, match="not finite"):
        encode_frame({"item": {"a": [1.5, number]}})
    body = msgpack.packb({"item": [number]})
    with pytest.raises(PeerError, match="not finite"):
        FrameReader().feed(encode_varint(len(body)) + body)


def test_an_item_that_is_packed_already_makes_the_same_frame():
    value = {"seq": 1, "data": {"text": "x" * 300, "number": 1.5}}
    assert packed_item(msgpack.packb(value)) == encode_frame(item(value))
    with pytest.raises(CapacityError, match="over the limit"):
        packed_item(bytes(1 << 20))


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa0", b"\xdd\x00\x0f\xff\xff"])
def test_a_very_deep_frame_is_refused_without_recursion(opening):
    body = opening * (200_000 // len(opening))
    with pytest.raises(PeerError, match="call frame is not valid"):
        FrameReader().feed(b"\x80\x80\x10" + body[: 1 << 18] + bytes((1 << 18) - len(body[: 1 << 18])))


def test_a_frame_over_the_bound_is_neither_sent_nor_kept():
    with pytest.raises(CapacityError, match="over the limit of 16"):
        encode_frame(bytes(15), max_bytes=16)
    assert len(encode_frame(bytes(14), max_bytes=16)) == 17
    reader = FrameReader(max_bytes=16)
    with pytest.raises(PeerError, match="a call frame of 17 bytes was announced"):
        reader.feed(b"\x11")
    assert reader.buffered == 0


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1: 2}, "key of type int"),
        ({"a": [{b"b": 1}]}, "key of type bytes"),
        ({"a": object()}, "type object"),
        ({1, 2}, "type set"),
        (2**64, "cannot be written"),
        (-(2**63) - 1, "cannot be written"),
        ("\ud800", "surrogates"),
    ],
)
def test_what_has_no_place_on_the_wire_is_not_sent(value, why):
    with pytest.raises(ValueError, match=why):
        encode_frame(value)


def test_tuples_are_sent_as_lists():
    assert FrameReader().feed(encode_frame({"a": (1, (2,))})) == [{"a": [1, [2]]}]


def test_frames_come_out_however_they_were_cut():
    values = [request("node.state"), b"x" * 300, None]
    data = b"".join(encode_frame(value) for value in values)
    assert FrameReader().feed(data) == values
    reader = FrameReader()
    assert [value for byte in data for value in reader.feed(bytes((byte,)))] == values


def test_a_frame_that_was_cut_off_leaves_bytes_behind():
    reader = FrameReader()
    reader.feed(encode_frame("abc")[:-1])
    assert reader.buffered == 4
    reader.feed(b"c")
    assert reader.buffered == 0


def test_a_request_is_read_with_and_without_args():
    assert read_request(request("run.state", {"fid": "x"})) == ("run.state", {"fid": "x"})
    assert read_request({"op": "node.state"}) == ("node.state", {})


@pytest.mark.parametrize(
    "value",
    [None, [], b"", {}, {"op": ""}, {"op": 1}, {"op": "a" * 129}, {"op": "a", "args": []}, {"op": "a", "token": "t"}],
)
def test_anything_else_is_no_request(value):
    with pytest.raises(PeerError, match=r"call"):
        read_request(value)


def test_answers_are_items_and_one_of_two_ends():
    assert read_answer(item([1])) == Item([1])
    assert read_answer(item(None)) == Item(None)
    assert read_answer(done({"fid": "x"})) == Done({"fid": "x"})
    refusal = CallError(429, "busy", "Come back later.", {"retry_after_ms": 5})
    read = read_answer(error(refusal))
    assert isinstance(read, CallError)
    assert (read.code, read.reason, read.message, read.data) == (
        429,
        "busy",
        "Come back later.",
        {"retry_after_ms": 5},
    )


def test_an_error_needs_code_and_reason_only():
    read = read_answer({"error": {"code": 404, "reason": "no-such-op", "message": None}})
    assert isinstance(read, CallError)
    assert (read.message, read.data) == ("", {})


def test_unknown_keys_of_an_answer_are_passed_over():
    assert read_answer({"item": 1, "later": 2}) == Item(1)
    assert isinstance(read_answer({"error": {"code": 400, "reason": "r", "later": 1}, "later": 2}), CallError)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"later": 1},
        {"item": 1, "done": 2},
        {"error": None},
        {"error": {"code": 404}},
        {"error": {"reason": "r"}},
        {"error": {"code": 200, "reason": "r"}},
        {"error": {"code": True, "reason": "r"}},
        {"error": {"code": "404", "reason": "r"}},
        {"error": {"code": 404, "reason": ""}},
        {"error": {"code": 404, "reason": "r", "message": 1}},
        {"error": {"code": 404, "reason": "r", "data": [1]}},
    ],
)
def test_a_malformed_answer_is_the_peers_fault(value):
    with pytest.raises(PeerError, match="answer"):
        read_answer(value)
