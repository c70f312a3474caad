"""What a runner answers is bounded before it becomes values, whatever carries it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from kodo.flow._runtime import buffer
from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.node.executors.checks import MisconductError
from kodo.node.executors.runner_calls import MAX_BATCH_BYTES, MAX_QUESTIONS_BYTES, read_events, read_questions
from kodo.protocol.events import MAX_EVENT_BYTES


def event_of(size: int) -> bytes:
    packed: bytes = msgpack.packb([1, [["result", msgpack.packb([{}] * size)]], False])
    return packed


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (
            read_events,
            bytes([0x93, 1, 0xDD]) + MAX_BATCH_BYTES.to_bytes(4, "big") + b"\x80" * MAX_BATCH_BYTES + b"\xc2",
        ),
        (read_events, event_of(MAX_EVENT_BYTES)),
        (
            read_questions,
            bytes([0x92, 1, 0xDD]) + MAX_QUESTIONS_BYTES.to_bytes(4, "big") + b"\x80" * MAX_QUESTIONS_BYTES,
        ),
        (read_events, None),
        (read_questions, None),
        (read_events, 7),
        (read_questions, 7),
    ],
    ids=["a batch", "an event", "questions", "no events", "no questions", "a number", "a number for questions"],
)
def test_what_is_above_its_bound_is_misconduct(read: Callable[[Any], object], said: Any) -> None:
    with pytest.raises(MisconductError):
        read(said)


async def test_the_largest_batch_of_a_buffer_is_read() -> None:
    filled = EventBuffer()
    most = "x" * (MAX_EVENT_BYTES - 16)
    small = pack_event("result", {"t": "y" * 1000})
    for _ in range(buffer.BATCH_BYTES // len(small)):
        filled.put(small)
    filled.put(pack_event("result", {"t": most}))
    filled.put(pack_event("result", {"t": most}))
    events, at = 0, 0
    while events < buffer.BATCH_BYTES // len(small) + 2:
        read, _ = read_events(await filled.poll(at, 0.0))
        events += len(read)
        at = read[-1].rseq
