"""fid, lid and sid: 26 characters of lowercase Crockford base32, 48 bit milliseconds + 80 random bits.

They sort by time of making, as ULIDs do (https://github.com/ulid/spec); the alphabet is Crockford's.
"""

from __future__ import annotations

import re

__all__ = ["ID_PATTERN", "id_time_ms", "is_id", "make_id"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_PATTERN = r"^[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}$"
_ID = re.compile(ID_PATTERN.replace("$", r"\Z"))


def make_id(now_ms: int, random: bytes) -> str:
    """Make an id from `now_ms` (ms UTC, 48 bit) and `random` (`bytes[10]`).

    Raises:
        ValueError: when either is out of range.
    """
    if len(random) != 10:
        raise ValueError(f"an id takes 10 random bytes, not {len(random)}")
    if not 0 <= now_ms < 1 << 48:
        raise ValueError(f"{now_ms} ms does not fit 48 bits")
    value = (now_ms << 80) | int.from_bytes(random, "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def is_id(text: object) -> bool:
    """Return whether `text` is a well-formed id."""
    return isinstance(text, str) and _ID.match(text) is not None


def id_time_ms(text: str) -> int:
    """Return the time (ms UTC) at which the id was made.

    Raises:
        ValueError: when `text` is not an id.
    """
    if not is_id(text):
        raise ValueError(f"{text!r} is not an id of 26 Crockford base32 characters")
    value = 0
    for character in text:
        value = value << 5 | _ALPHABET.index(character)
    return value >> 80
