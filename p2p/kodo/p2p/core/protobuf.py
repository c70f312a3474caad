"""The Protocol Buffers wire format, as far as libp2p's small messages need it (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator

from kodo.p2p.core.varint import encode_varint

__all__ = ["bytes_field", "fields", "varint_field"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELD_NUMBER = (1 << 29) - 1
_MAX_VALUE_BYTES = 10
"""Protobuf varints hold 64 bits: one byte more than multiformats allow, and need not be minimal."""


def varint_field(number: int, value: int) -> bytes:
    """Encode one unsigned integer (below 2**63) or enum field."""
    return encode_varint(number << 3 | _VARINT) + encode_varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Encode one `bytes`, `string` or embedded message field."""
    return encode_varint(number << 3 | _BYTES) + encode_varint(len(value)) + value


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[pos : pos + _MAX_VALUE_BYTES]:
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise ValueError("a protobuf varint holds more than 64 bits")
            return value, pos
        shift += 7
    raise ValueError("a protobuf varint is cut off or too long")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value in the order of the wire; fixed-width fields are passed over.

    Raises:
        ValueError: the message is malformed; fields before the fault have been given.
    """
    pos, end = 0, len(data)
    while pos < end:
        key, pos = _varint(data, pos)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number <= _MAX_FIELD_NUMBER:
            raise ValueError(f"{number} is not a protobuf field number")
        if wire_type == _VARINT:
            value, pos = _varint(data, pos)
            yield number, value
        elif wire_type == _BYTES:
            length, pos = _varint(data, pos)
            if pos + length > end:
                raise ValueError(f"protobuf field {number} is cut off")
            yield number, data[pos : pos + length]
            pos += length
        elif wire_type in (_FIXED32, _FIXED64):
            pos += 4 if wire_type == _FIXED32 else 8
            if pos > end:
                raise ValueError(f"protobuf field {number} is cut off")
        else:
            raise ValueError(f"protobuf field {number} has the unknown wire type {wire_type}")
