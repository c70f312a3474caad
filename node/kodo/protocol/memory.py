"""What a memory may hold: its scopes, the names of keys and of shared memories, bounds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgpack

__all__ = [
    "MAX_KEY_BYTES",
    "MAX_VALUE_BYTES",
    "MEMORY_PIECE_BYTES",
    "SHARED_PATTERN",
    "Scope",
    "check_key",
    "check_shared",
    "check_value",
]

Scope = Literal["short", "long", "shared"]
"""`short` is of a run (its fid), `long` of a flow (its path), `shared` of the node (a name)."""

MAX_KEY_BYTES = 512
MAX_VALUE_BYTES = 1 << 20
"""Bound of one value as msgpack."""

MEMORY_PIECE_BYTES = 1 << 20
"""Files travel between a flow and its node in pieces of this size, at most."""

SHARED_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_SHARED = re.compile(SHARED_PATTERN.replace("$", r"\Z"))


def _shown(text: str) -> str:
    return text.replace("\u200c", "").replace("\u200d", "")


def check_key(key: object) -> str:
    """Return `key` if it is one: printable text of 1 to 512 bytes as UTF-8.

    Raises:
        ValueError: it is not.
    """
    # Two characters join letters (Persian, emoji), and are as printable as those.
    if not isinstance(key, str) or not key.strip("\u200c\u200d") or not _shown(key).isprintable():
        raise ValueError("a key is printable text that is not empty")
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes")
    return key


def check_shared(name: object) -> str:
    """Return `name` if a shared memory can have it: letters, digits, `.`, `_` and `-`, at most 128.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(name, str) or not _SHARED.match(name):
        raise ValueError("a shared memory's name is 1 to 128 letters, digits, dots, underscores and hyphens")
    return name


def check_value(value: Any) -> bytes:
    """Return a value as msgpack.

    Raises:
        ValueError: it is not JSON-like.
        OverflowError: it is above 1 MiB.
    """
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a value is what JSON can hold: {type(error).__name__}") from None
    if len(packed) > MAX_VALUE_BYTES:
        raise OverflowError(f"a value has at most {MAX_VALUE_BYTES} bytes, this one {len(packed)}")
    if not _json_like(value):
        raise ValueError("a value is what JSON can hold: maps have text keys, and there are no bytes")
    return packed


def _json_like(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _json_like(part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(_json_like(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))
