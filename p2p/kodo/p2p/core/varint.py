"""Unsigned varints, and the frames that are prefixed by one (multiformats/unsigned-varint).

Seven bits a byte, least significant first, the high bit says that more follow. At most nine bytes, so values
below 2**63, and minimal: a number has exactly one encoding.
"""

from __future__ import annotations

from kodo.p2p.errors import PeerError

__all__ = ["MAX_VARINT_BYTES", "IncompleteError", "PrefixedFrames", "decode_varint", "encode_varint"]

MAX_VARINT_BYTES = 9
"""multiformats/unsigned-varint, "practical maximum"."""

_SHORT = [bytes((n,)) for n in range(128)]


class IncompleteError(ValueError):
    """The input ends inside a value: with more bytes it could be valid."""


def encode_varint(n: int) -> bytes:
    """Encode `n` (0 ≤ n < 2**63) in 1 to 9 bytes.

    Raises:
        ValueError: `n` is negative or too large.
    """
    if 0 <= n < 128:
        return _SHORT[n]
    if n < 0 or n >> 63:
        raise ValueError(f"{n} cannot be a varint: only 0 to 2**63 - 1")
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def decode_varint(
    buf: bytes | bytearray | memoryview, pos: int = 0, *, max_bytes: int = MAX_VARINT_BYTES
) -> tuple[int, int]:
    """Read the varint that starts at `pos`; give its value and the position after it.

    Raises:
        IncompleteError: `buf` ends inside the varint.
        ValueError: it is longer than `max_bytes` (never more than 9), or not the shortest encoding of its value.
    """
    limit = min(max_bytes, MAX_VARINT_BYTES)
    value = shift = 0
    end = len(buf)
    for count in range(limit):
        if pos >= end:
            raise IncompleteError("the input ends inside a varint")
        byte = buf[pos]
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if not byte and count:
                raise ValueError("a varint is longer than it needs to be")
            return value, pos
        shift += 7
    raise ValueError(f"a varint is longer than {limit} bytes")


_PIECE_BYTES = 8 << 10
"""What is kept of a frame is kept in pieces of so many bytes, or as they came when they were more."""


class PrefixedFrames:
    """Cuts a byte stream into frames of `uvarint length + body`, however the bytes arrive.

    Args:
        max_body_bytes: frames announcing more end the stream with an error, before their body is kept.
        what: what a frame is called in the error.
    """

    def __init__(self, max_body_bytes: int, what: str) -> None:
        self._max = max_body_bytes
        self._max_prefix = len(encode_varint(max_body_bytes))
        self._what = what
        self._pieces: list[bytearray] = []
        self._kept = 0
        self._wanted = 0
        """Bytes until the frame that has begun is whole; 0 while its length is not known."""
        self._failed: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes that are kept, waiting for the rest of their frame."""
        return self._kept

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; give the bodies that are now whole, in order.

        Raises:
            PeerError: an announced length is over the bound or not a varint. The stream is lost then: whole frames
                before it in the same bytes are not given, and every later call raises again.
        """
        if self._failed is not None:
            raise PeerError(self._failed)
        # A frame mostly arrives whole and alone: then it is cut out of `data`, without a copy through pieces.
        source: bytes | memoryview = data
        if self._pieces:
            self._keep(data)
            if self._kept < self._wanted:
                return []
            source = memoryview(b"".join(self._pieces))
            self._pieces, self._kept = [], 0
        bodies: list[bytes] = []
        pos, end = 0, len(source)
        self._wanted = 0
        while pos < end:
            try:
                length, start = decode_varint(source, pos, max_bytes=self._max_prefix)
            except IncompleteError:
                break
            except ValueError as error:
                raise self._fail(f"the length of a {self._what} is not readable: {error}") from error
            if length > self._max:
                raise self._fail(f"a {self._what} of {length} bytes was announced, the limit is {self._max}")
            if start + length > end:
                self._wanted = start + length - pos
                break
            bodies.append(bytes(source[start : start + length]))
            pos = start + length
        if pos < end:
            self._keep(source[pos:])
        return bodies

    def clear(self) -> None:
        """Forget what is kept of a frame that is not whole."""
        self._pieces, self._kept, self._wanted = [], 0, 0

    def _keep(self, data: bytes | memoryview) -> None:
        """Keep bytes of a frame that is not whole.

        In pieces, not in one buffer that grows: moving it again and again took a tenth of the time of a node that was
        sent many large frames.
        """
        if self._pieces and len(self._pieces[-1]) < _PIECE_BYTES:
            self._pieces[-1] += data
        else:
            self._pieces.append(bytearray(data))
        self._kept += len(data)

    def _fail(self, message: str) -> PeerError:
        self._failed = message
        self._pieces, self._kept = [], 0
        return PeerError(message)
