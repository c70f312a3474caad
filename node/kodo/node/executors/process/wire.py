"""What a node and a runner's process say over a Unix socket: calls with a number, and their answers. Pure.

A frame is its length, 4 bytes, and msgpack: `[number, method, args]` from the node, `[number, value]` or
`[number, None, [kind, message]]` from the runner. What a runner says may be anything: it is read as plain data only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack

from kodo.p2p.core.elements import over_values
from kodo.p2p.errors import CapacityError, IntegrityError, KodoError, NotFoundError, UsageError

__all__ = [
    "MAX_ANSWER_VALUES",
    "MAX_FRAME_BYTES",
    "FrameReader",
    "pack_answer",
    "pack_call",
    "pack_refusal",
    "read_answer",
]

MAX_FRAME_BYTES = 16 << 20
"""Bound of one frame: several times the largest answer, a piece of an output or a batch of questions."""

MAX_ANSWER_VALUES = 100
"""Keys, elements, maps and lists of an answer: each is a few, or bytes. A frame of nothing but empty maps would take
the node's loop seconds, and a gigabyte."""

_LENGTH = 4
_MAX_MESSAGE = 4096

_KINDS: Mapping[str, type[KodoError]] = {
    kind.__name__: kind for kind in (UsageError, CapacityError, IntegrityError, NotFoundError, KodoError)
}


def pack_call(number: int, method: str, args: Sequence[Any]) -> bytes:
    """Return the frame of a call.

    Raises:
        CapacityError: it is larger than a frame may be.
    """
    return _frame([number, method, list(args)])


def pack_answer(number: int, value: Any) -> bytes:
    """Return the frame of an answer.

    Raises:
        CapacityError: it is larger than a frame may be.
    """
    return _frame([number, value])


def pack_refusal(number: int, error: Exception) -> bytes:
    """Return the frame that tells an error: of kodo's own the text, of others the class only."""
    if isinstance(error, KodoError):
        kind = next(name for name, known in _KINDS.items() if isinstance(error, known))
        return _frame([number, None, [kind, str(error)[:_MAX_MESSAGE]]])
    return _frame([number, None, ["KodoError", f"the call to the runner failed: {type(error).__name__}"]])


def read_answer(frame: Any) -> tuple[int, Any, KodoError | None]:
    """Return the number of an answer, its value, and the error that it is instead.

    Raises:
        ValueError: it is not an answer.
    """
    match frame:
        case [int(number), value]:
            return number, value, None
        case [int(number), None, [str(kind), str(message)]]:
            return number, None, _KINDS.get(kind, KodoError)(message[:_MAX_MESSAGE])
    raise ValueError("that is not an answer")


def _frame(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    if len(packed) > MAX_FRAME_BYTES:
        raise CapacityError(f"{len(packed)} bytes are more than a runner and its node may send at once")
    return len(packed).to_bytes(_LENGTH, "big") + packed


class FrameReader:
    """Makes frames of a stream of bytes."""

    def __init__(self, max_values: int = MAX_FRAME_BYTES) -> None:
        """Begin.

        Args:
            max_values: in one frame.
        """
        self._data = bytearray()
        self._max_values = max_values

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes, and yield each frame that they complete.

        Raises:
            ValueError: a frame is too long, has too many values, or is not msgpack.
        """
        self._data += data
        while len(self._data) >= _LENGTH:
            size = int.from_bytes(self._data[:_LENGTH], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError("a frame is too long")
            end = _LENGTH + size
            if len(self._data) < end:
                return
            packed = bytes(memoryview(self._data)[_LENGTH:end])
            del self._data[:end]
            if over_values(packed, self._max_values):
                raise ValueError("a frame has too many values")
            try:
                yield msgpack.unpackb(packed)
            except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
                raise ValueError("a frame is not msgpack") from error
