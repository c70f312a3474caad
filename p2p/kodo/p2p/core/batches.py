"""Datagrams on a connection that carries messages, such as a WebSocket: a message is a batch of them. Pure.

Each datagram is its length, in 2 bytes, and itself.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MAX_BATCH_BYTES", "pack_batch", "read_batch"]

MAX_BATCH_BYTES = 64 << 10
"""Bound of a message."""
_LENGTH_BYTES = 2


def pack_batch(datagrams: Iterable[bytes]) -> bytes:
    """Return datagrams as one message.

    Raises:
        OverflowError: one has more than 65,535 bytes.
    """
    return b"".join(len(data).to_bytes(_LENGTH_BYTES, "big") + data for data in datagrams)


def read_batch(message: bytes) -> list[bytes]:
    """Return the datagrams of a message.

    Raises:
        ValueError: it has none, an empty one, or one that is shorter than it says.
    """
    if not message or len(message) > MAX_BATCH_BYTES:
        raise ValueError(f"a batch has 1 to {MAX_BATCH_BYTES} bytes")
    found, at = [], 0
    while at < len(message):
        length = int.from_bytes(message[at : at + _LENGTH_BYTES], "big")
        at += _LENGTH_BYTES
        if not length or at + length > len(message):
            raise ValueError("a datagram in a batch is empty, or shorter than it says")
        found.append(message[at : at + length])
        at += length
    return found
