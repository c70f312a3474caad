"""Messages of a libp2p stream inside its data channel (libp2p/specs, webrtc, "Multiplexing").

Each is a uvarint length and a protobuf: `Message { optional Flag flag = 1; optional bytes message = 2; }`.
"""

from __future__ import annotations

import enum

from kodo.p2p.core.protobuf import fields, varint_field
from kodo.p2p.core.varint import PrefixedFrames, encode_varint
from kodo.p2p.errors import PeerError

__all__ = ["MAX_MESSAGE_BYTES", "MAX_PAYLOAD_BYTES", "Flag", "MessageReader", "encode_message"]

MAX_MESSAGE_BYTES = 16 * 1024
"""Length prefix included: the most that every implementation takes (libp2p/specs, webrtc)."""
_PREFIX_BYTES = 2
MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - _PREFIX_BYTES - 2 - 3
"""What is left for the payload beside a flag (2 bytes) and the payload's own tag and length (3 bytes)."""

_FLAG, _MESSAGE = 1, 2
_MESSAGE_TAG = 0x12


class Flag(enum.IntEnum):
    """What a message says about its stream, apart from its payload."""

    FIN = 0
    """The sender will send no more payload."""
    STOP_SENDING = 1
    """The sender reads no more: what still arrives is thrown away."""
    RESET = 2
    """The sender gave the stream up."""
    FIN_ACK = 3
    """The sender has received a FIN."""


_FLAGS = {int(flag): flag for flag in Flag}


def encode_message(flag: Flag | None = None, message: bytes = b"") -> bytes:
    """Encode one message with its length prefix.

    Raises:
        ValueError: `message` is longer than `MAX_PAYLOAD_BYTES`.
    """
    if len(message) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(message)} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    head = bytes((_MESSAGE_TAG,)) + encode_varint(len(message)) if message else b""
    if flag is not None:
        head = varint_field(_FLAG, flag) + head
    return encode_varint(len(head) + len(message)) + head + message


def _decode(body: bytes) -> tuple[Flag | None, bytes]:
    flag: Flag | None = None
    message = b""
    try:
        for number, value in fields(body):
            if number == _MESSAGE and isinstance(value, bytes):
                message = value
            elif number == _FLAG and isinstance(value, int):
                # A later version's flag is to us an unknown enum value, which protobuf readers leave out.
                flag = _FLAGS.get(value)
            elif number in (_FLAG, _MESSAGE):
                raise ValueError(f"field {number} has the wrong type")
    except ValueError as error:
        raise PeerError(f"a stream message is malformed: {error}") from error
    return flag, message


class MessageReader:
    """Reads the messages of one stream, however the data channel cut them."""

    def __init__(self) -> None:
        self._frames = PrefixedFrames(MAX_MESSAGE_BYTES - _PREFIX_BYTES, "stream message")

    @property
    def buffered(self) -> int:
        """Bytes that are kept of a message that is not whole."""
        return self._frames.buffered

    def feed(self, data: bytes) -> list[tuple[Flag | None, bytes]]:
        """Take bytes; give the messages that are now whole: flag (if any) and payload (may be empty).

        Raises:
            PeerError: a message is over the bound or malformed; the stream is lost.
        """
        return [_decode(body) for body in self._frames.feed(data)]
