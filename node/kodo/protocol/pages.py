"""Answers that list things, held to what one frame of a call takes.

What is listed grows with what flows and users do; a frame does not. A page that is too large is refused with the
number of rows that fit, and whoever asked asks for so many; an answer that is no page shows the latest of each list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import msgpack

from kodo.p2p.core.callframe import MAX_FRAME_BYTES
from kodo.p2p.errors import CallError

__all__ = ["fitted", "fitting", "paged"]

_ROOM_BYTES = MAX_FRAME_BYTES - 4096
"""What the rows of an answer may take; the rest is for what is around them."""


def paged(rows: Sequence[Any], total: int, filtered: int, p: int, pp: int) -> dict[str, Any]:
    """Return the frame of a paged answer around `rows`, which are those of page `p`.

    Raises:
        CallError: 413 `page-too-large`, with the `pp` that fits.
    """
    fit = len(fitting(rows))
    if fit < len(rows):
        said = f"{len(rows)} of these rows are more than an answer takes; ask for pages of {max(fit, 1)}"
        raise CallError(413, "page-too-large", said, {"pp": max(fit, 1)})
    return {
        "total_records": total,
        "filtered_records": filtered,
        "total_pages": -(-filtered // pp),
        "p": p,
        "pp": pp,
        "result": list(rows),
    }


def fitting(rows: Sequence[Any]) -> list[Any]:
    """Return of `rows` the first that one answer takes."""
    return list(rows[: _count((_size(row) for row in rows), _ROOM_BYTES)])


def fitted(answer: Mapping[str, Any], lists: Iterable[str]) -> dict[str, Any]:
    """Return an answer that one frame takes: of its `lists` (or maps) the latest, each with its share of the room."""
    whole = dict(answer)
    if _size(whole) <= _ROOM_BYTES:
        return whole
    packed = {name: [_size(row) for row in _rows(whole[name])] for name in lists}
    room = _ROOM_BYTES - _size({name: value for name, value in whole.items() if name not in packed})
    smallest_first = sorted(packed, key=lambda name: sum(packed[name]))
    for left, name in zip(range(len(packed), 0, -1), smallest_first, strict=True):
        rows, sizes = _rows(whole[name]), packed[name]
        kept = _count(reversed(sizes), room // left)
        latest = rows[len(rows) - kept :]
        whole[name] = dict(latest) if isinstance(whole[name], Mapping) else latest
        room -= sum(sizes[len(sizes) - kept :])
    return whole


def _rows(listed: Any) -> list[Any]:
    return list(listed.items()) if isinstance(listed, Mapping) else list(listed)


def _count(sizes: Iterable[int], room: int) -> int:
    """Return how many of the first fit."""
    taken = 0

    def fits(size: int) -> bool:
        nonlocal taken
        taken += size
        return taken <= room

    return sum(1 for _ in takewhile(fits, sizes))


def _size(value: Any) -> int:
    return len(msgpack.packb(value, use_bin_type=True))
