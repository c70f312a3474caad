"""What a node signs: its record, its heartbeats and its goodbye. Pure: bytes in, models out, and back.

On the wire each is `{"payload": bin, "signature": bin}` in canonical msgpack; `payload` is the canonical msgpack of
the model's fields. The Ed25519 signature (RFC 8032) covers a domain string of the kind, then the payload: none of
the three can pass for another. Canonical means: string keys in ascending order, the shortest form of every number
and length, floats as 64 bits, optional fields left out when absent. What is not canonical is refused: one statement
has one spelling, and bytes that were not checked are nowhere stored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kodo.p2p.core.identity import Identity, PeerId, verify
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, PeerError

__all__ = [
    "MAX_FLOWS",
    "MAX_NOTE_BYTES",
    "MAX_RECORD_BYTES",
    "FlowRecord",
    "Goodbye",
    "Heartbeat",
    "NodeRecord",
    "Ping",
    "sign_goodbye",
    "sign_heartbeat",
    "sign_record",
    "verify_goodbye",
    "verify_heartbeat",
    "verify_record",
]

MAX_RECORD_BYTES = 1 << 20
"""Bound of a signed record."""

MAX_NOTE_BYTES = 4096
"""Bound of a signed heartbeat or goodbye."""

MAX_FLOWS = 10_000
MAX_ADDRESSES = 32
MAX_TTL_S = 7 * 24 * 3600
MAX_INT = 2**53 - 1
"""Largest counter and time: what every JSON reader keeps exactly (RFC 8259, section 6)."""

_NAME = r"^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$"

Text = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Time = Annotated[int, Field(ge=0, le=MAX_INT, description="ms UTC")]
PeerText = Annotated[str, Field(min_length=52, max_length=52)]
Share = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="percent in use")]
Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Hash = Annotated[bytes, Field(max_length=32)]


class _Signed(BaseModel):
    """The root of all that is signed: strict types, no field that is not named here."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class FlowRecord(_Signed):
    """What a node says of one flow.

    Attributes:
        path: qualified name or file path on the node; the flow's identity there.
        name: display name.
        source: where its code stands, as `flows/market.py`.
        description: for people; Markdown is allowed.
        author: who to ask, as an e-mail address.
        organization: whom the author works for.
        published: when this release was first offered, ms UTC; 0 when not known.
        release: version of the flow.
        tags: words to find it by.
        inputs_schema_sha256: SHA-256 of the inputs' JSON Schema, `bytes[32]`; empty when there is none.
        requests_per_hour: promoted by the node's operator, or absent.
        completions_per_hour: promoted by the node's operator, or absent.
    """

    path: Annotated[str, Field(min_length=1, max_length=512)]
    name: Text = ""
    source: Annotated[str, Field(max_length=512)] = ""
    description: Annotated[str, Field(max_length=4096)] = ""
    author: Text = ""
    organization: Text = ""
    published: Time = 0
    release: Annotated[str, Field(max_length=64)] = ""
    tags: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=32)] = ()
    inputs_schema_sha256: Hash = b""
    requests_per_hour: Rate | None = None
    completions_per_hour: Rate | None = None

    NEEDED: ClassVar[tuple[str, ...]] = (
        "name",
        "source",
        "description",
        "author",
        "organization",
        "published",
        "release",
    )

    @model_validator(mode="after")
    def _check(self) -> FlowRecord:
        if len(self.inputs_schema_sha256) not in (0, 32):
            raise ValueError("inputs_schema_sha256 is 32 bytes, or empty")
        return self

    def missing(self) -> list[str]:
        """Name what a registry needs and this flow lacks; a flow that lacks anything is not listed."""
        return [name for name in self.NEEDED if not getattr(self, name)]


class NodeRecord(_Signed):
    """What a node says of itself; its newest `seq` counts.

    Attributes:
        v: version of the format.
        peer_id: of the key that signs.
        name: a domain-like string, at most 253 characters.
        addrs: multiaddrs, each with this peer id at its end.
        hpke_key: X25519 public key for sealed offers, `bytes[32]`; empty when the node takes none.
        flows: at most 10,000.
        seq: rises with each record that the node signs.
        issued_at: ms UTC, the node's clock.
        ttl_s: seconds from `issued_at` on for which the record holds.
    """

    v: Literal[1] = 1
    peer_id: PeerText
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=_NAME)]
    addrs: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=MAX_ADDRESSES)] = ()
    hpke_key: Hash = b""
    flows: Annotated[tuple[FlowRecord, ...], Field(max_length=MAX_FLOWS)] = ()
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    issued_at: Time
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S)]

    @property
    def expires_at(self) -> int:
        """When it ends to hold, ms UTC."""
        return self.issued_at + self.ttl_s * 1000

    @model_validator(mode="after")
    def _check(self) -> NodeRecord:
        if len(self.hpke_key) not in (0, 32):
            raise ValueError("hpke_key is 32 bytes, or empty")
        if "\n" in self.name:
            raise ValueError("the name has a line break")
        peer_id = PeerId.parse(self.peer_id)
        for address in self.addrs:
            if Multiaddr.parse(address).peer_id != peer_id:
                raise ValueError(f"the address {address} does not end with /p2p/{self.peer_id}")
        return self


class Ping(_Signed):
    """How a node performs; what it does not know is absent. Never who runs what.

    Attributes:
        cpu: percent in use.
        memory: percent in use.
        disk: percent in use, where the node keeps its data.
        runners_free: warm runners that wait.
        runners_busy: runners with a run.
        queued: runs that wait for a runner.
        round_trip_ms: median round trip of its sessions, milliseconds.
    """

    cpu: Share | None = None
    memory: Share | None = None
    disk: Share | None = None
    runners_free: Count | None = None
    runners_busy: Count | None = None
    queued: Count | None = None
    round_trip_ms: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class Heartbeat(_Signed):
    """A node is alive.

    Attributes:
        peer_id: of the key that signs.
        seq: of the record that it stands behind.
        at: ms UTC, the node's clock; strictly rising within a `seq`.
        ping: how it performs.
    """

    v: Literal[1] = 1
    peer_id: PeerText
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    at: Time
    ping: Ping = Ping()


class Goodbye(_Signed):
    """A node leaves: its records up to `seq` hold no longer.

    Attributes:
        peer_id: of the key that signs.
        seq: of its last record; it comes back with a higher one.
        at: ms UTC, the node's clock.
    """

    v: Literal[1] = 1
    peer_id: PeerText
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    at: Time


_DOMAINS: dict[type[_Signed], bytes] = {
    NodeRecord: b"kodo/registry/node-record/1\n",
    Heartbeat: b"kodo/registry/heartbeat/1\n",
    Goodbye: b"kodo/registry/goodbye/1\n",
}
"""What is signed before the payload."""

_Model = TypeVar("_Model", NodeRecord, Heartbeat, Goodbye)


def sign_record(record: NodeRecord, identity: Identity) -> bytes:
    """Sign `record` with the key that it names.

    Raises:
        ValueError: the key is another one, or the result is over 1 MiB.
    """
    return _sign(record, identity, MAX_RECORD_BYTES)


def verify_record(signed: bytes) -> NodeRecord:
    """Read a signed record. Whether it has expired is for the caller to judge, who has a clock.

    Raises:
        PeerError: malformed, not canonical, or over a bound.
        IdentityError: the signature is not of the key that the record names.
    """
    return _verify(NodeRecord, signed, MAX_RECORD_BYTES)


def sign_heartbeat(heartbeat: Heartbeat, identity: Identity) -> bytes:
    """Sign `heartbeat` with the key that it names.

    Raises:
        ValueError: the key is another one.
    """
    return _sign(heartbeat, identity, MAX_NOTE_BYTES)


def verify_heartbeat(signed: bytes) -> Heartbeat:
    """Read a signed heartbeat; raises as `verify_record`."""
    return _verify(Heartbeat, signed, MAX_NOTE_BYTES)


def sign_goodbye(goodbye: Goodbye, identity: Identity) -> bytes:
    """Sign `goodbye` with the key that it names.

    Raises:
        ValueError: the key is another one.
    """
    return _sign(goodbye, identity, MAX_NOTE_BYTES)


def verify_goodbye(signed: bytes) -> Goodbye:
    """Read a signed goodbye; raises as `verify_record`."""
    return _verify(Goodbye, signed, MAX_NOTE_BYTES)


def _sign(model: NodeRecord | Heartbeat | Goodbye, identity: Identity, limit: int) -> bytes:
    if model.peer_id != str(identity.peer_id):
        raise ValueError(f"it names {model.peer_id}, the key is that of {identity.peer_id}")
    payload = _pack(model.model_dump(exclude_none=True))
    signature = identity.sign(_DOMAINS[type(model)] + payload)
    signed = _pack({"payload": payload, "signature": signature})
    if len(signed) > limit:
        raise ValueError(f"{len(signed)} bytes signed are over the bound of {limit}; publish fewer or shorter flows")
    return signed


def _verify(model: type[_Model], signed: bytes, limit: int) -> _Model:
    if len(signed) > limit:
        raise PeerError(f"{len(signed)} bytes are over the bound of {limit}")
    envelope = _unpack(signed)
    if not isinstance(envelope, dict) or envelope.keys() != {"payload", "signature"}:
        raise PeerError("not a map of payload and signature")
    payload, signature = envelope["payload"], envelope["signature"]
    if not isinstance(payload, bytes) or not isinstance(signature, bytes) or len(signature) != 64:
        raise PeerError("payload and signature are byte strings, a signature has 64 bytes")
    claim = _unpack(payload)
    if not isinstance(claim, dict):
        raise PeerError("the payload is not a map")
    # The signature comes before the fields: nobody's words are looked into before it is known whose they are.
    try:
        peer_id = PeerId.parse(claim["peer_id"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PeerError("the payload has no valid peer_id") from None
    if not verify(peer_id, signature, _DOMAINS[model] + payload):
        raise IdentityError(f"the signature is not one of {peer_id}")
    try:
        return model.model_validate(claim)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:64] for part in first["loc"][:4])
        raise PeerError(f"{where or 'payload'}: {first['msg'][:512]}") from None


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(_ordered(value), use_bin_type=True, strict_types=False)
    return packed


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    return value


def _unpack(data: bytes) -> Any:
    """Read canonical msgpack; arrays become tuples, as the models have them.

    Raises:
        PeerError: it is not that.
    """
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=False, ext_hook=_no_extensions)
        canonical = _pack(value) == data
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException):
        raise PeerError("not msgpack of text keys and plain values") from None
    if not canonical:
        raise PeerError("not canonical msgpack: keys in order, numbers in their shortest form, nothing after the end")
    return value


def _no_extensions(code: int, data: bytes) -> Any:
    raise ValueError("extension types are not used")
