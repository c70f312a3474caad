"""Statements that are signed by the key that they name. Pure: bytes in, models out, and back.

On the wire each is `{"payload": bin, "signature": bin}` in canonical msgpack; `payload` is the canonical msgpack of
the model's fields. The Ed25519 signature (RFC 8032) covers a domain string of the kind, then the payload: no kind
can pass for another. Canonical means: string keys in ascending order, the shortest form of every number
and length, floats as 64 bits, optional fields left out when absent. What is not canonical is refused: one statement
has one spelling, and bytes that were not checked are nowhere stored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.identity import verify as verify_signature
from kodo.p2p.errors import IdentityError, PeerError

__all__ = ["MAX_INT", "MAX_NOTE_BYTES", "PeerText", "Plain", "Signed", "Time", "pack", "sign", "unpack", "verify"]

MAX_NOTE_BYTES = 4096
"""Bound of what is signed, where its kind has no other."""

MAX_INT = 2**53 - 1
"""Largest counter and time: what every JSON reader keeps exactly (RFC 8259, section 6)."""

Time = Annotated[int, Field(ge=0, le=MAX_INT, description="ms UTC")]
PeerText = Annotated[str, Field(min_length=52, max_length=52)]


class Plain(BaseModel):
    """A part of what is signed: strict types, no field that is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Signed(Plain):
    """A statement of `peer_id`, signed with its key over `DOMAIN` and the payload, at most `LIMIT` bytes."""

    DOMAIN: ClassVar[bytes]
    LIMIT: ClassVar[int] = MAX_NOTE_BYTES

    peer_id: PeerText


_Model = TypeVar("_Model", bound=Signed)


def sign(model: Signed, identity: Identity) -> bytes:
    """Sign `model` with the key that it names.

    Raises:
        ValueError: the key is another one, or the result is over the kind's `LIMIT`.
    """
    if model.peer_id != str(identity.peer_id):
        raise ValueError(f"it names {model.peer_id}, the key is that of {identity.peer_id}")
    payload = pack(model.model_dump(exclude_none=True))
    signed = pack({"payload": payload, "signature": identity.sign(model.DOMAIN + payload)})
    if len(signed) > model.LIMIT:
        raise ValueError(
            f"{len(signed)} bytes signed are over the bound of {model.LIMIT}; publish fewer or shorter flows"
        )
    return signed


def verify(model: type[_Model], signed: bytes) -> _Model:
    """Read a signed statement of the kind `model`.

    Raises:
        PeerError: malformed, not canonical, or over a bound.
        IdentityError: the signature is not of the key that the statement names.
    """
    if len(signed) > model.LIMIT:
        raise PeerError(f"{len(signed)} bytes are over the bound of {model.LIMIT}")
    envelope = unpack(signed)
    if not isinstance(envelope, dict) or envelope.keys() != {"payload", "signature"}:
        raise PeerError("not a map of payload and signature")
    payload, signature = envelope["payload"], envelope["signature"]
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != 64:
        raise PeerError("payload and signature are byte strings, a signature has 64 bytes")
    claim = unpack(payload)
    if not isinstance(claim, dict):
        raise PeerError("the payload is not a map")
    # The signature comes before the fields: nobody's words are looked into before it is known whose they are.
    try:
        peer_id = PeerId.parse(claim["peer_id"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PeerError("the payload has no valid peer_id") from None
    if not verify_signature(peer_id, signature, model.DOMAIN + payload):
        raise IdentityError(f"the signature is not one of {peer_id}")
    try:
        return model.model_validate(claim)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:64] for part in first["loc"][:4])
        raise PeerError(f"{where or 'payload'}: {first['msg'].removeprefix('Value error, ')[:512]}") from None


def pack(value: Any) -> bytes:
    """Write canonical msgpack."""
    packed: bytes = msgpack.packb(_ordered(value), use_bin_type=True, strict_types=False)
    return packed


def unpack(data: bytes, *, lists: bool = False) -> Any:
    """Read canonical msgpack; arrays become tuples, as the models have them, or with `lists` lists.

    Raises:
        PeerError: it is not that.
    """
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
