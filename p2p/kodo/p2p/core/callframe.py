"""Frames of `/kodo/call/1`: a uvarint length and one msgpack value.

    caller:  {"op": "run.launch", "args": {…}}   then, for an upload, bin frames
    callee:  {"item": …} *                        zero or more, then exactly one end:
             {"done": …}   or   {"error": {"code": 404, "reason": "no-such-run", "message": "…", "data": {…}}}

Values are those of JSON, and bytes: no extension types (so no msgpack timestamps), map keys are text, numbers are
finite, nesting is bounded. Sender and reader check the same, so what is wrong is found where it was made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack

from kodo.p2p.core.elements import over_values
from kodo.p2p.core.varint import IncompleteError, PrefixedFrames, decode_varint, encode_varint
from kodo.p2p.errors import CallError, CapacityError, PeerError

__all__ = [
    "EARLY_BYTES",
    "EARLY_VALUES",
    "MAX_ANSWER_VALUES",
    "MAX_DEPTH",
    "MAX_FRAME_BYTES",
    "MAX_REQUEST_VALUES",
    "Answer",
    "Done",
    "FrameReader",
    "Item",
    "TooManyValuesError",
    "announced",
    "check_value",
    "done",
    "encode_frame",
    "error",
    "is_item",
    "item",
    "packed_item",
    "read_answer",
    "read_request",
    "request",
]

MAX_FRAME_BYTES = 1 << 20
"""The msgpack value of one frame, without its length prefix."""
MAX_DEPTH = 64
"""Maps and lists inside each other: far below what a recursive reader of the value can bear."""

MAX_REQUEST_VALUES = 1 << 16
"""Values in one frame of a caller: keys, elements, maps, lists. They take a callee 50 ms, 1 MiB of them a second."""

MAX_ANSWER_VALUES = 300_000
"""Values in one frame of a callee: an event has up to 256 Ki of them."""

EARLY_BYTES = 64 << 10
"""A caller's frame, before it is known whether the caller has any business here: a login needs 16 KiB."""

EARLY_VALUES = 1024
"""Values in it."""

_ITEM_HEAD = b"\x81\xa4item"
_MAX_OP_CHARACTERS = 128
_MAX_REASON_CHARACTERS = 128


class TooManyValuesError(PeerError):
    """A frame holds more values than are taken at once; nothing of it was read."""

    def __init__(self, most: int) -> None:
        super().__init__(f"a call frame holds more than {most} values; send large data as a file")


def announced(data: bytes) -> int | None:
    """Return how many bytes a frame announces that begins with `data`; None: that needs more of it.

    Raises:
        PeerError: it begins with no length.
    """
    try:
        return decode_varint(data, 0)[0]
    except IncompleteError:
        return None
    except ValueError as problem:
        raise PeerError(f"the length of a call frame is not readable: {problem}") from problem


@dataclass(slots=True)
class Item:
    """One of the values that come before the end."""

    value: Any


@dataclass(slots=True)
class Done:
    """The end of a call that succeeded."""

    value: Any


Answer = Item | Done | CallError
"""What a frame of the callee says; a `CallError` is given, not raised."""


_SCALARS = frozenset([str, int, bytes, bool, type(None)])


def check_value(value: Any, depth: int = MAX_DEPTH) -> None:
    """Check what msgpack itself does not: depth, keys, numbers that are none, and no types beside JSON's and bytes.

    Args:
        depth: how many maps and lists may be inside each other.

    Raises:
        ValueError: naming the fault, never the value.
    """
    kind = type(value)
    if kind is dict or isinstance(value, Mapping):
        if depth <= 0:
            raise ValueError("maps and lists are nested too deeply")
        for key, each in value.items():
            if type(key) is not str and not isinstance(key, str):
                raise ValueError(f"a map has a key of type {type(key).__name__}, only text is allowed")
            if type(each) not in _SCALARS:
                check_value(each, depth - 1)
    elif kind is list or isinstance(value, (list, tuple)):
        if depth <= 0:
            raise ValueError("maps and lists are nested too deeply")
        for each in value:
            if type(each) not in _SCALARS:
                check_value(each, depth - 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is not finite, and JSON has no such numbers")
    elif value is not None and not isinstance(value, (str, int, bytes, bytearray, memoryview)):
        raise ValueError(f"a value has the type {kind.__name__}, only JSON's types and bytes are allowed")


def encode_frame(value: Any, *, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """Encode one value with its length prefix. Tuples become lists.

    Raises:
        ValueError: it holds something that has no place on the wire.
        CapacityError: it is over `max_bytes`.
    """
    check_value(value)
    try:
        body: bytes = msgpack.packb(value, use_bin_type=True)
    except (TypeError, OverflowError) as problem:
        raise ValueError(f"the value cannot be written as msgpack: {problem}") from problem
    if len(body) > max_bytes:
        raise CapacityError(f"a call frame of {len(body)} bytes is over the limit of {max_bytes}; send it in parts")
    return encode_varint(len(body)) + body


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} is not allowed")


def _decode(body: bytes, max_values: int) -> Any:
    if over_values(body, max_values):
        raise TooManyValuesError(max_values)
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=True, ext_hook=_refuse_extension)
        check_value(value)
    # UnicodeDecodeError and msgpack's own errors are ValueErrors, except what an unhashable or absurd value provokes.
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException) as problem:
        raise PeerError(f"a call frame is not valid: {problem}") from problem
    return value


class FrameReader:
    """Reads the values of one direction of a call, however the bytes were cut.

    Args:
        max_bytes: of one frame; one that announces more is refused before it is kept.
        max_values: in one frame; they are counted before one is made.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES, max_values: int = MAX_ANSWER_VALUES) -> None:
        self._max_values = max_values
        self._frames = PrefixedFrames(max_bytes, "call frame")

    @property
    def buffered(self) -> int:
        """Bytes kept of a frame that is not whole yet; not 0 at the stream's end means that it was cut off."""
        return self._frames.buffered

    def feed(self, data: bytes) -> list[Any]:
        """Take bytes; give the values that are now whole.

        Raises:
            PeerError: a frame is over a bound or not valid; the stream is lost.
        """
        return [_decode(body, self._max_values) for body in self._frames.feed(data)]

    def clear(self) -> None:
        """Forget what is kept of a frame that is not whole: nobody reads on."""
        self._frames.clear()


def request(op: str, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make the first value of a caller."""
    return {"op": op, "args": dict(args or {})}


def item(value: Any) -> dict[str, Any]:
    """Make an item."""
    return {"item": value}


def packed_item(packed: bytes) -> bytes:
    """Encode the frame of an item whose value is msgpack already, and was checked when it was made so.

    Raises:
        CapacityError: it is over `MAX_FRAME_BYTES`.
    """
    length = len(_ITEM_HEAD) + len(packed)
    if length > MAX_FRAME_BYTES:
        raise CapacityError(f"a call frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return encode_varint(length) + _ITEM_HEAD + packed


def done(value: Any) -> dict[str, Any]:
    """Make the end of a call that succeeded."""
    return {"done": value}


def error(problem: CallError) -> dict[str, Any]:
    """Make the end of a call that was refused."""
    body: dict[str, Any] = {"code": problem.code, "reason": problem.reason, "message": problem.message}
    if problem.data:
        body["data"] = problem.data
    return {"error": body}


def read_request(value: Any) -> tuple[str, dict[str, Any]]:
    """Read the first value of a caller: its op and args (may be absent, then empty).

    Raises:
        PeerError: it is not a request. Keys beside `op` and `args` are refused: they could change its meaning.
    """
    if not isinstance(value, dict):
        raise PeerError("a call does not start with a map")
    op, args = value.get("op"), value.get("args", {})
    if not isinstance(op, str) or not 1 <= len(op) <= _MAX_OP_CHARACTERS:
        raise PeerError("a call has no op")
    if not isinstance(args, dict):
        raise PeerError(f"the args of the call {op!r} are not a map")
    _refuse_others(value, ("op", "args"), f"the call {op!r}")
    return op, args


def _refuse_others(value: dict[str, Any], known: Sequence[str], what: str) -> None:
    unknown = [key for key in value if key not in known]
    if unknown:
        raise PeerError(f"{what} has the unknown key {unknown[0][:64]!r}")


def is_item(value: Any) -> bool:
    """Whether a value of a callee is an item and nothing else, as nearly all are."""
    return type(value) is dict and len(value) == 1 and "item" in value


def read_answer(value: Any) -> Answer:
    """Read one value of a callee. Keys that are not known are passed over.

    Raises:
        PeerError: it is not exactly one of item, done and error, or the error is malformed.
    """
    if not isinstance(value, dict):
        raise PeerError("an answer is not a map")
    if is_item(value):
        return Item(value["item"])
    match [key for key in ("item", "done", "error") if key in value]:
        case ["item"]:
            return Item(value["item"])
        case ["done"]:
            return Done(value["done"])
        case ["error"]:
            return _read_error(value["error"])
    raise PeerError("an answer is not exactly one of item, done and error")


def _read_error(body: Any) -> CallError:
    if not isinstance(body, dict):
        raise PeerError("the error in an answer is not a map")
    code, reason = body.get("code"), body.get("reason")
    # Absent and null are the same to callers that write all fields.
    message, data = body.get("message") or "", body.get("data") or {}
    if isinstance(code, bool) or not isinstance(code, int) or not 400 <= code <= 599:
        raise PeerError("the error in an answer has no code from 400 to 599")
    if not isinstance(reason, str) or not 1 <= len(reason) <= _MAX_REASON_CHARACTERS:
        raise PeerError("the error in an answer has no reason")
    if not isinstance(message, str) or not isinstance(data, dict):
        raise PeerError("the error in an answer has a message that is not text, or data that are not a map")
    return CallError(code, reason, message, data)
