"""Inputs that are nearly right: bytes, texts and values that were valid, changed in a few places, by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["MAX_BYTES", "grown", "mutated_bytes", "mutated_text", "mutated_value"]

MAX_BYTES = 16 << 10
"""No input is longer, so that millions can be tried; `grown` goes further."""

_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
)
_PIECES = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\x80\x80\x80\x80\x80",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\n",
    b"\0\0\0\4",
)
_LETTERS = (
    "/:.=@#?&|%+-_~*[](){}<>\"'\\,;!$^` \t\n\r\0\x7f\x1b\x85\u00a0\u200b\u202e\u2028\ufeff\ufffd\ud800\udfff"
    "0123456789abcxyzABCXYZéßİıſKﬁ報😀e\u0301"
)
_WORDS = (
    "", "null", "true", "-1", "0", "1e999", "-0.0", "NaN", "Infinity", "9" * 30, "0" * 300, "://", "..", "[[", "]]",
    "((", "not ", " and ", "kodo:", "https://", "#get=", "12D3Koo", "/ip4/", "/p2p/", "\\u0000", "%00", "$ref",
    "{" * 20, "[" * 20,
)  # fmt: skip
LEAVES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1.5, 1e308, float("inf"),
    float("nan"),    "", "a", "x" * 300, "\0", "\ud800", "é", "12D3KooW", b"", b"\0", b"x" * 64, [], {}, [[]], [None],
    {"a": 1}, {"": ""},
)  # fmt: skip


def mutated_bytes(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Give one of `seeds` with one to four changes, or, seldom, bytes at random."""
    pick = rng.random()
    if pick < 0.03:
        return rng.randbytes(rng.randrange(1, 80))
    data = bytearray(seeds[int(rng.random() * len(seeds))])
    for _ in range(1 + int(rng.random() * 4)):
        size = len(data)
        at = int(rng.random() * (size + 1))
        kind = int(rng.random() * 10)
        if kind == 0 and at < size:
            data[at] ^= 1 << int(rng.random() * 8)
        elif kind == 1 and at < size:
            data[at] = int(rng.random() * 256)
        elif kind == 2:
            del data[at : at + 1 + int(rng.random() * 8)]
        elif kind == 3:
            data[at:at] = _PIECES[int(rng.random() * len(_PIECES))]
        elif kind == 4:
            data[at:at] = data[int(rng.random() * (size + 1)) :][: 1 + int(rng.random() * 64)]
        elif kind == 5:
            width = 1 << int(rng.random() * 3)
            number = _NUMBERS[int(rng.random() * len(_NUMBERS))] & ((1 << 8 * width) - 1)
            data[at : at + width] = number.to_bytes(width, "big")
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            other = seeds[int(rng.random() * len(seeds))]
            data[at:] = other[int(rng.random() * (len(other) + 1)) :]
        elif kind == 8:
            data[at:at] = rng.randbytes(1 + int(rng.random() * 6))
        else:
            data += data[at : at + 256]
    return bytes(data[:MAX_BYTES])


def mutated_text(rng: Random, seeds: Sequence[str]) -> str:
    """The same of texts."""
    text = seeds[int(rng.random() * len(seeds))]
    for _ in range(1 + int(rng.random() * 4)):
        size = len(text)
        at = int(rng.random() * (size + 1))
        kind = int(rng.random() * 7)
        if kind == 0:
            text = text[:at] + _LETTERS[int(rng.random() * len(_LETTERS))] + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + text[at + 1 + int(rng.random() * 6) :]
        elif kind == 2:
            text = text[:at] + _WORDS[int(rng.random() * len(_WORDS))] + text[at:]
        elif kind == 3:
            text = text[:at] + text[int(rng.random() * (size + 1)) :][: 1 + int(rng.random() * 40)] + text[at:]
        elif kind == 4:
            text = text[:at]
        elif kind == 5:
            other = seeds[int(rng.random() * len(seeds))]
            text = text[:at] + other[int(rng.random() * (len(other) + 1)) :]
        else:
            text = text[:at] + _LETTERS[int(rng.random() * len(_LETTERS))] + text[at:]
    return text[:MAX_BYTES]


def mutated_value(rng: Random, value: Any, leaves: Sequence[Any] = LEAVES) -> Any:
    """Give `value`, made of maps, lists and leaves, with one or two places changed."""
    for _ in range(1 + int(rng.random() * 2)):
        value = _changed(rng, value, leaves)
    return value


def _changed(rng: Random, value: Any, leaves: Sequence[Any]) -> Any:
    kind = rng.random()
    if isinstance(value, dict) and value and kind < 0.85:
        keys = list(value)
        key = keys[int(rng.random() * len(keys))]
        changed = dict(value)
        if kind < 0.65:
            changed[key] = _changed(rng, value[key], leaves)
        elif kind < 0.72:
            del changed[key]
        elif kind < 0.78:
            changed[_WORDS[int(rng.random() * len(_WORDS))]] = changed[key]
        else:
            changed[key] = leaves[int(rng.random() * len(leaves))]
        return changed
    if isinstance(value, list) and value and kind < 0.85:
        at = int(rng.random() * len(value))
        items = list(value)
        if kind < 0.6:
            items[at] = _changed(rng, items[at], leaves)
        elif kind < 0.7:
            del items[at]
        else:
            items[at:at] = items[at : at + 1] * (1 + int(rng.random() * 8))
        return items
    if kind < 0.3 and isinstance(value, str):
        return mutated_text(rng, [value])
    if kind < 0.4 and isinstance(value, bytes):
        return mutated_bytes(rng, [value])
    if kind < 0.5:
        for _ in range(1 + int(rng.random() * 70)):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return leaves[int(rng.random() * len(leaves))]


def grown(rng: Random, data: Any) -> Any:
    """Give an input of bytes or text with a piece of it again and again: it may cost what its length says."""
    if not isinstance(data, (bytes, str)) or not data:
        return data
    begin = int(rng.random() * len(data))
    end = begin + 1 + int(rng.random() * 40)
    times = (1 << 8 + int(rng.random() * 9)) // len(data[begin:end]) + 1
    if isinstance(data, bytes):
        return data[:begin] + data[begin:end] * times + data[begin:]
    return data[:begin] + data[begin:end] * times + data[begin:]
