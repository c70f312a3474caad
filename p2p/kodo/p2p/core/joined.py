"""Datagrams one behind the other in one piece of memory, as the kernel joins and cuts them (Linux udp(7)). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Joined", "join_more"]


class Joined(NamedTuple):
    """Datagrams, each `size` bytes long but the last, which may be shorter."""

    data: bytes
    size: int

    def datagrams(self) -> list[bytes]:
        """Return each by itself."""
        data, size = self.data, self.size
        if len(data) <= size:
            return [data]
        return [data[begin : begin + size] for begin in range(0, len(data), size)]


def join_more(pieces: Iterable[Joined], most: int, most_bytes: int) -> Iterator[Joined]:
    """Join what follows each other and is equally long.

    Args:
        most: datagrams in one piece.
        most_bytes: bytes in one piece; what is longer already stays as it is.
    """
    held: list[bytes] = []
    length = size = 0
    for data, each in pieces:
        follows = each == size or len(data) <= each < size
        if held and follows and not length % size and length + len(data) <= min(most_bytes, most * size):
            held.append(data)
            length += len(data)
            continue
        if held:
            yield Joined(held[0] if len(held) == 1 else b"".join(held), size)
        held, length, size = [data], len(data), each
    if held:
        yield Joined(held[0] if len(held) == 1 else b"".join(held), size)
