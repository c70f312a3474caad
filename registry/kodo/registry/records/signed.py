"""Statements that are signed by the key that they name. Pure: bytes in, models out, and back.

On the wire each is `{"payload": bin, "signature": bin}` in canonical msgpack; `payload` is the canonical msgpack of
the model's fields. The Ed25519 signature (RFC 8032) covers a domain string of the kind, then the payload: no kind
can pass for another. It is checked over the payload as it came, of which nothing was read but whose it claims to be;
then the values are counted, and only then made. Canonical means: string keys in ascending order, the shortest form of
every number and length, floats as 64 bits, optional fields left out when absent. What is not canonical is refused:
one statement has one spelling, and bytes that were not checked are nowhere stored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kodo.p2p.core.elements import over_values
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.identity import verify as verify_signature
from kodo.p2p.errors import IdentityError, PeerError

__all__ = [
    "MAX_INT",
    "MAX_NOTE_BYTES",
    "MAX_NOTE_VALUES",
    "Envelope",
    "PeerText",
    "Plain",
    "Signed",
    "Time",
    "open_envelope",
    "pack",
    "read",
    "sign",
    "unpack",
    "verify",
]

MAX_NOTE_BYTES = 4096
"""Bound of what is signed, where its kind has no other."""

MAX_NOTE_VALUES = 64
"""Bound of the values in it, likewise."""

_ENVELOPE_VALUES = 8

MAX_INT = 2**53 - 1
"""Largest counter and time: what every JSON reader keeps exactly (RFC 8259, section 6)."""

Time = Annotated[int, Field(ge=0, le=MAX_INT, description="ms UTC")]
PeerText = Annotated[str, Field(min_length=52, max_length=52)]


class Plain(BaseModel):
    """A part of what is signed: strict types, no field that is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Signed(Plain):
    """A statement of `peer_id`, signed with its key over `DOMAIN` and the payload.

    At most `LIMIT` bytes, and `VALUES` values in the payload.
    """

    DOMAIN: ClassVar[bytes]
    LIMIT: ClassVar[int] = MAX_NOTE_BYTES
    VALUES: ClassVar[int] = MAX_NOTE_VALUES

    peer_id: PeerText


_Model = TypeVar("_Model", bound=Signed)


def sign(model: Signed, identity: Identity) -> bytes:
    """Sign `model` with the key that it names.

    Raises:
        ValueError: the key is another one, or the result is over the kind's `LIMIT`.
    """
    if model.peer_id != str(identity.peer_id):
        raise ValueError(f"it names {model.peer_id}, but the key belongs to {identity.peer_id}")
    payload = pack(model.model_dump(exclude_none=True))
    signed = pack({"payload": payload, "signature": identity.sign(model.DOMAIN + payload)})
    if len(signed) > model.LIMIT:
        raise ValueError(
            f"{len(signed)} bytes signed are over the limit of {model.LIMIT}; publish fewer or shorter flows"
        )
    return signed


class Envelope(NamedTuple):
    """A statement whose signature holds, and of which nothing else was read.

    Attributes:
        peer_id: who signed it.
        payload: canonical msgpack, or whatever its signer holds for that.
    """

    peer_id: PeerId
    payload: bytes


def open_envelope(model: type[Signed], signed: bytes) -> Envelope:
    """Check the signature of a statement of the kind `model`: of the bytes as they came, before they mean anything.

    Raises:
        PeerError: malformed, or over a bound.
        IdentityError: the signature is not of the key that the statement names.
    """
    if len(signed) > model.LIMIT:
        raise PeerError(f"{len(signed)} bytes are over the limit of {model.LIMIT}")
    envelope = unpack(signed, most=_ENVELOPE_VALUES)
    if not isinstance(envelope, dict) or envelope.keys() != {"payload", "signature"}:
        raise PeerError("not a map of payload and signature")
    payload, signature = envelope["payload"], envelope["signature"]
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != 64:
        raise PeerError("payload and signature are byte strings, a signature has 64 bytes")
    peer_id = _named_signer(payload)
    if not verify_signature(peer_id, signature, model.DOMAIN + payload):
        raise IdentityError(f"the signature is not one of {peer_id}")
    return Envelope(peer_id, payload)


def verify(model: type[_Model], signed: bytes) -> _Model:
    """Read a signed statement of the kind `model`.

    Raises:
        PeerError: malformed, not canonical, or over a bound.
        IdentityError: the signature is not of the key that the statement names.
    """
    return read(model, open_envelope(model, signed))


def read(model: type[_Model], envelope: Envelope) -> _Model:
    """Read what its signer says.

    Raises:
        PeerError: malformed, not canonical, or over a bound.
    """
    claim = unpack(envelope.payload, most=model.VALUES)
    if not isinstance(claim, dict):
        raise PeerError("the payload is not a map")
    # Its peer id is the envelope's: a key that stands there twice is not canonical.
    try:
        return model.model_validate(claim)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:64] for part in first["loc"][:4])
        raise PeerError(f"{where or 'payload'}: {first['msg'].removeprefix('Value error, ')[:512]}") from None


def _named_signer(payload: bytes) -> PeerId:
    """Find the `peer_id` at the top of a payload; all else is passed over, and no object is made of it."""
    reader = msgpack.Unpacker(raw=False, max_buffer_size=0, max_array_len=0, max_map_len=0, max_ext_len=0)
    reader.feed(payload)
    try:
        for _ in range(reader.read_map_header()):
            if reader.unpack() == "peer_id":
                return PeerId.parse(reader.unpack())
            reader.skip()
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, msgpack.UnpackException):
        pass
    raise PeerError("the payload has no valid peer_id")


def pack(value: Any) -> bytes:
    """Write canonical msgpack."""
    packed: bytes = msgpack.packb(_ordered(value), use_bin_type=True, strict_types=False)
    return packed


def unpack(data: bytes, *, most: int = MAX_NOTE_VALUES, lists: bool = False) -> Any:
    """Read canonical msgpack; arrays become tuples, as the models have them, or with `lists` lists.

    Args:
        most: how many values there may be: keys, elements, maps and lists. They are counted before one is made.

    Raises:
        PeerError: it is not that, or has more.
    """
    if over_values(data, most):
        raise PeerError(f"there are more than {most} values in it")
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=lists, ext_hook=_no_extensions)
        canonical = pack(value) == data
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException):
        raise PeerError("not msgpack of text keys and plain values") from None
    if not canonical:
        raise PeerError("not canonical msgpack: keys in order, numbers in their shortest form, nothing after the end")
    return value


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value


def _no_extensions(code: int, data: bytes) -> Any:
    raise ValueError("extension types are not used")
