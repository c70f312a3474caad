"""How many values a msgpack text holds, counted before one of them is made.

A byte of msgpack makes an object of 64 bytes and more, and takes as long to make and check as hundreds of bytes of
text. So whoever reads what a stranger sent bounds its values as well as its bytes.
"""

from __future__ import annotations

import re

__all__ = ["count_values", "over_values"]

_SINGLE = re.compile(rb"[\x00-\x9f\xc0-\xc3\xe0-\xff]+")
"""Heads without anything after them: small numbers, nil, booleans, and the heads of short maps and lists."""


def _sizes() -> tuple[list[int], list[int]]:
    fixed, width = [1] * 256, [0] * 256
    for head in range(0xA0, 0xC0):  # short texts
        fixed[head] = 1 + (head & 0x1F)
    # The rest by its head: how many bytes there are without what a length announces, and how many the length has.
    table = {
        0xC4: (2, 1), 0xC5: (3, 2), 0xC6: (5, 4),  # bytes
        0xC7: (3, 1), 0xC8: (4, 2), 0xC9: (6, 4),  # extensions
        0xCA: (5, 0), 0xCB: (9, 0),  # floats
        0xCC: (2, 0), 0xCD: (3, 0), 0xCE: (5, 0), 0xCF: (9, 0),  # unsigned numbers
        0xD0: (2, 0), 0xD1: (3, 0), 0xD2: (5, 0), 0xD3: (9, 0),  # signed ones
        0xD4: (3, 0), 0xD5: (4, 0), 0xD6: (6, 0), 0xD7: (10, 0), 0xD8: (18, 0),  # short extensions
        0xD9: (2, 1), 0xDA: (3, 2), 0xDB: (5, 4),  # texts
        0xDC: (3, 0), 0xDD: (5, 0), 0xDE: (3, 0), 0xDF: (5, 0),  # lists and maps: what is in them follows
    }  # fmt: skip
    for head, (size, digits) in table.items():
        fixed[head], width[head] = size, digits
    return fixed, width


_FIXED, _WIDTH = _sizes()


def count_values(data: bytes, most: int) -> int:
    """Count the values in `data`: keys, elements, maps and lists; a little over `most` counting ends.

    What is not msgpack is counted as far as it can be read: whoever reads it finds out.
    """
    at, end, count = 0, len(data), 0
    while at < end and count <= most:
        run = _SINGLE.match(data, at)
        if run is not None:
            count += run.end() - at
            at = run.end()
            continue
        head = data[at]
        count += 1
        width = _WIDTH[head]
        if width:
            at += int.from_bytes(data[at + 1 : at + 1 + width], "big")
        at += _FIXED[head]
    return count


def over_values(data: bytes, most: int) -> bool:
    """Return whether `data` holds more than `most` values."""
    # None takes less than a byte.
    return len(data) > most and count_values(data, most) > most
