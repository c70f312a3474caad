"""What a node and the process that keeps its runners say to each other: frames of msgpack on a socket pair.

The node calls: `[number, op, args]`. Each call has one answer, `[number, "done", value]` or `[number, "error", [kind,
message, facts]]`. A launch may ask for more before it is answered, one thing at a time: `[number, "ask", [what,
args]]`, for which the node makes the call `told` with that number. `cancel` with a number has that call end soon.

The process runs under the account of the flows, so a flow may have taken it over. Whatever it says is data, bounded
in bytes and values; what nobody asked for ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgpack

from kodo.node.executors.checks import MisconductError, unpack_event
from kodo.node.executors.executor import RunnerDiedError, RunnerEvent
from kodo.p2p.core.elements import over_values
from kodo.p2p.errors import (
    BrokenSessionError,
    CapacityError,
    DeadlineError,
    IntegrityError,
    KodoError,
    NotFoundError,
    UnreachableError,
    UsageError,
)

__all__ = [
    "MAX_FRAME_BYTES",
    "pack_error",
    "pack_events",
    "pack_frame",
    "read_error",
    "read_events",
    "read_frame",
    "size_of_events",
]

MAX_FRAME_BYTES = 16 << 20
"""Bound of one frame; the largest is a piece of a file, or a batch of questions, of about 6 MiB."""

MAX_VALUES = 8 << 20
"""Bound of the values in one frame: a flow may ask its node with a list of two million numbers."""

MAX_EVENTS_BYTES = 4 << 20
"""Bound of the events in one frame, several times what is told at once."""

_EVENT_BYTES = 64

MAX_MESSAGE_CHARACTERS = 10_000

_KINDS: dict[str, type[KodoError]] = {
    "bound": CapacityError,
    "deadline": DeadlineError,
    "died": RunnerDiedError,
    "failed": KodoError,
    "integrity": IntegrityError,
    "misconduct": MisconductError,
    "not-found": NotFoundError,
    "unreachable": UnreachableError,
    "usage": UsageError,
}


def pack_frame(frame: Sequence[Any]) -> bytes:
    """Return a frame as it travels, its size first."""
    packed: bytes = msgpack.packb(list(frame))
    if len(packed) > MAX_FRAME_BYTES:
        raise CapacityError(f"{len(packed)} bytes are more than one frame takes")
    return len(packed).to_bytes(4, "big") + packed


async def read_frame(reader: asyncio.StreamReader) -> list[Any]:
    """Read the next frame. Cancelling ends the connection's use: half of a frame may have been read.

    Raises:
        BrokenSessionError: the other side has gone, or what it sent is not a frame.
    """
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_FRAME_BYTES:
            raise BrokenSessionError("a frame is too long")
        packed = await reader.readexactly(size)
        if over_values(packed, MAX_VALUES):
            raise BrokenSessionError("a frame holds too many values")
        frame = msgpack.unpackb(packed, strict_map_key=False)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise BrokenSessionError("the other side has ended") from error
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise BrokenSessionError("a frame cannot be read") from error
    if not isinstance(frame, list) or len(frame) != 3 or type(frame[0]) is not int or not isinstance(frame[1], str):
        raise BrokenSessionError("a frame is malformed")
    return frame


def pack_error(error: KodoError) -> list[Any]:
    """Return an error as it travels, but for what a runner had said when it died."""
    kinds = {known: name for name, known in _KINDS.items()}
    kind = next(kinds[known] for known in type(error).__mro__ if known in kinds)
    facts = {"signal": error.signal, "stack": error.stack} if isinstance(error, RunnerDiedError) else {}
    return [kind, str(error)[:MAX_MESSAGE_CHARACTERS], facts]


def read_error(told: Any) -> KodoError:
    """Return the error that was told; what is none is `BrokenSessionError`."""
    try:
        kind, message, facts = told
        error = _KINDS[kind](str(message)[:MAX_MESSAGE_CHARACTERS])
        if isinstance(error, RunnerDiedError):
            signal, stack = facts.get("signal"), facts.get("stack")
            error.signal = signal[:64] if isinstance(signal, str) else None
            error.stack = stack if isinstance(stack, str) else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return BrokenSessionError("an error cannot be read")
    return error


def size_of_events(told: Any) -> int:
    """Return about how many bytes events take, as `pack_events` returns them, also when they are none."""
    if not isinstance(told, list):
        return 0
    data = (event[2] for event in told if isinstance(event, list) and len(event) == 3)
    return sum(_EVENT_BYTES + (len(each) if isinstance(each, bytes) else 0) for each in data)


def pack_events(events: Sequence[RunnerEvent]) -> list[Any]:
    """Return events as they travel: number, name, and the data as msgpack."""
    return [
        [event.rseq, event.event, event.packed if event.packed is not None else msgpack.packb(event.data)]
        for event in events
    ]


def read_events(told: Any) -> list[RunnerEvent]:
    """Return the events that were told.

    Raises:
        MisconductError: they cannot be read, or are more than is told at once: then none of their values is made.
    """
    found = []
    try:
        if size_of_events(told) > MAX_EVENTS_BYTES:
            raise MisconductError(f"the runner said more at once than {MAX_EVENTS_BYTES} bytes")
        for rseq, event, packed in told:
            if type(rseq) is not int or not isinstance(event, str) or not isinstance(packed, bytes):
                raise TypeError
            found.append(RunnerEvent(rseq, event, unpack_event(packed), packed))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MisconductError(f"what the runner said cannot be read: {type(error).__name__}") from None
    return found
