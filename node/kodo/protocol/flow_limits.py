"""What a flow's process may say: one set of bounds, judged where the flow calls and again by its node.

A call that goes beyond them is refused, with the flow's own line in the traceback. The node judges by the same code,
so what a call let through never ends a run; what goes beyond them there came by another way than the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from kodo.p2p.core.callframe import check_value
from kodo.p2p.errors import CapacityError, UsageError
from kodo.protocol.events import MAX_EVENT_BYTES, MAX_EVENT_DEPTH
from kodo.protocol.manifest import check_output_name
from kodo.protocol.numbers import finite

__all__ = [
    "MAX_LOCKS",
    "MAX_LOCK_BYTES",
    "MAX_MEDIA_TYPE_CHARACTERS",
    "MAX_OUTPUTS",
    "MAX_REASONS",
    "MAX_REASON_CHARACTERS",
    "MAX_SECONDS",
    "MAX_TITLE_CHARACTERS",
    "NO_SCHEMA",
    "check_lock",
    "check_lock_room",
    "check_output",
    "check_output_room",
    "is_seconds",
    "is_texts",
    "pack_data",
]

MAX_OUTPUTS = 10_000
"""Outputs of one run; a result that is too large for an event may be one more."""

MAX_LOCKS = 10_000
"""Locks that one flow opens, open and closed ones; the node may have asked for missing inputs before."""

MAX_LOCK_BYTES = 16 << 20
"""Bytes of all of them: followers keep what is open."""

MAX_TITLE_CHARACTERS = 4096
"""Of a lock."""

MAX_REASONS = 100
"""Reasons against one candidate; more are left out."""

MAX_REASON_CHARACTERS = 500
"""Of each reason its beginning is kept: all of them together fit an event."""

MAX_MEDIA_TYPE_CHARACTERS = 255
"""Twice what RFC 6838 gives a type with its subtype, for parameters."""

MAX_SECONDS = 1e9
"""Thirty years: a longer time is a mistake, and dates beyond it overflow somewhere."""


NO_SCHEMA = "a lock's schema is not a JSON Schema (2020-12)"


def pack_data(event: str, data: Mapping[str, Any]) -> bytes:
    """Return an event's data as msgpack.

    Raises:
        UsageError: it is nothing that an event may carry.
        CapacityError: it is larger than `MAX_EVENT_BYTES`.
    """
    try:
        check_value(data, MAX_EVENT_DEPTH)
        packed: bytes = msgpack.packb(data)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise UsageError(f"the data of {event!r} is not plain data: {why}") from None
    if len(packed) > MAX_EVENT_BYTES:
        raise CapacityError(f"the data of {event!r} is {len(packed)} bytes, more than {MAX_EVENT_BYTES}")
    return packed


def check_lock(data: Mapping[str, Any]) -> None:
    """Judge the data of a `lock` but for its lid, and for whether its schema is one: that takes a library.

    Raises:
        UsageError: saying what is wrong with it.
    """
    title, schema = data.get("title"), data.get("schema")
    if not isinstance(title, str) or len(title) > MAX_TITLE_CHARACTERS:
        raise UsageError(f"a lock's title is a text of at most {MAX_TITLE_CHARACTERS} characters")
    if not isinstance(schema, dict):
        raise UsageError("a lock's schema is a map")
    for name in ("expires_s", "verdict_s"):
        if not is_seconds(data.get(name, 1.0)):
            raise UsageError(f"a lock's {name} is not a number of seconds above 0")
    if not is_texts(data.get("roles", [])) or not is_texts(data.get("users", [])):
        raise UsageError("a lock's roles and users are lists of texts")


def check_lock_room(locks: int, size: int) -> None:
    """Judge whether a run that has opened `locks`, of `size` bytes with the next one, may open it.

    Raises:
        CapacityError: they are too many, or too large together.
    """
    if locks >= MAX_LOCKS:
        raise CapacityError(f"a run has at most {MAX_LOCKS} locks")
    if size > MAX_LOCK_BYTES:
        raise CapacityError(f"the locks of a run have at most {MAX_LOCK_BYTES} bytes in all")


def check_output(name: Any, media_type: Any) -> None:
    """Judge what an output is called.

    Raises:
        ValueError: the name is no relative path that Linux takes.
        UsageError: name or media type is no text, or the latter is too long.
    """
    if not isinstance(name, str):
        raise UsageError(f"an output's name is a text, not {type(name).__name__}")
    check_output_name(name)
    if not isinstance(media_type, str) or len(media_type) > MAX_MEDIA_TYPE_CHARACTERS:
        raise UsageError(f"an output's media type is a text of at most {MAX_MEDIA_TYPE_CHARACTERS} characters")


def check_output_room(outputs: int, *, result: bool = False) -> None:
    """Judge whether a run that has so many outputs may make another.

    Args:
        outputs: how many it has.
        result: whether the next one may be the run's result, for which there is always a place.

    Raises:
        CapacityError: they are too many.
    """
    if outputs >= MAX_OUTPUTS + result:
        raise CapacityError(f"a run has at most {MAX_OUTPUTS} outputs")


def is_seconds(value: Any, *, allow_zero: bool = False) -> bool:
    """Return whether a value is a duration in seconds, above 0 unless `allow_zero`."""
    if finite(value) is None or not isinstance(value, int | float):
        return False
    return (value >= 0 if allow_zero else value > 0) and value <= MAX_SECONDS


def is_texts(value: Any) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
