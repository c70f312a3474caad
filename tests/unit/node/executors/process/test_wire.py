"""Frames between a node and a runner's process: whole whatever the pieces, bounded, and plain data only."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from kodo.node.executors.process.link import ProcessLink
from kodo.node.executors.process.wire import (
    MAX_ANSWER_VALUES,
    MAX_FRAME_BYTES,
    FrameReader,
    pack_answer,
    pack_call,
    pack_refusal,
    read_answer,
)
from kodo.p2p.errors import CapacityError, DeadlineError, IntegrityError, KodoError, NotFoundError, UsageError


def frames(*pieces: bytes) -> list[Any]:
    reader = FrameReader()
    return [frame for piece in pieces for frame in reader.feed(piece)]


def test_frames_are_whole_whatever_the_pieces() -> None:
    data = pack_call(1, "poll", [0, 20.0]) + pack_call(2, "answer", ["l", "c", {"a": b"\0"}, []])
    expected = [[1, "poll", [0, 20.0]], [2, "answer", ["l", "c", {"a": b"\0"}, []]]]
    assert frames(data) == expected
    assert frames(*(data[at : at + 1] for at in range(len(data)))) == expected


def test_an_answer_is_its_value() -> None:
    (frame,) = frames(pack_answer(7, {"fid": None}))
    assert read_answer(frame) == (7, {"fid": None}, None)


@pytest.mark.parametrize("kind", [UsageError, CapacityError, IntegrityError, NotFoundError, KodoError])
def test_an_error_of_ours_keeps_its_class_and_text(kind: type[KodoError]) -> None:
    (frame,) = frames(pack_refusal(7, kind("there is no such output")))
    number, value, error = read_answer(frame)
    assert (number, value, type(error), str(error)) == (7, None, kind, "there is no such output")


def test_another_error_of_ours_is_told_as_the_nearest() -> None:
    (frame,) = frames(pack_refusal(7, DeadlineError("too late")))
    error = read_answer(frame)[2]
    assert (type(error), str(error)) == (KodoError, "too late")


def test_of_a_foreign_error_only_the_class_is_told() -> None:
    (frame,) = frames(pack_refusal(7, ValueError("a private value")))
    error = read_answer(frame)[2]
    assert str(error) == "the call to the runner failed: ValueError"


@pytest.mark.parametrize(
    "frame", [None, 1, "x", [], [1], ["1", 2], [1, 2, ["UsageError", "no"]], [1, None, ["UsageError"]], {"a": 1}]
)
def test_what_is_no_answer_is_refused(frame: Any) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        read_answer(frame)


def test_a_frame_beyond_the_bound_is_refused_before_it_has_arrived() -> None:
    with pytest.raises(ValueError, match="too long"):
        frames((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(CapacityError):
        pack_call(1, "start", [bytes(MAX_FRAME_BYTES)])


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\x92\x01", b"\x91" * 2000 + b"\x01", msgpack.packb(1) * 2],
    ids=["nothing", "reserved", "half", "deep", "two"],
)
def test_what_is_no_msgpack_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="not msgpack"):
        frames(len(packed).to_bytes(4, "big") + packed)


def test_an_answer_of_too_many_values_is_refused_before_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    fits, over = (pack_answer(1, [{}] * number) for number in (MAX_ANSWER_VALUES - 3, MAX_ANSWER_VALUES + 1))
    assert len(list(FrameReader(MAX_ANSWER_VALUES).feed(fits))) == 1
    monkeypatch.setattr("kodo.node.executors.process.wire.msgpack.unpackb", None)
    with pytest.raises(ValueError, match="too many values"):
        list(FrameReader(MAX_ANSWER_VALUES).feed(over))


def test_a_node_reads_answers_with_their_bound() -> None:
    link = ProcessLink()
    link.data_received(pack_answer(1, [{}] * (MAX_ANSWER_VALUES + 1)))
    assert link.lost
