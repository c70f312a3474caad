"""What a node signs: its record, its heartbeats and its goodbye (see `kodo.registry.records.signed`). Pure."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.protocol.flow_info import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_RELEASE_CHARACTERS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    MAX_TEXT_CHARACTERS,
)
from kodo.registry.records.signed import MAX_INT, MAX_NOTE_BYTES, Plain, Signed, Time, pack, sign, verify

__all__ = [
    "MAX_ADDRESSES",
    "MAX_FLOWS",
    "MAX_NOTE_BYTES",
    "MAX_RECORD_BYTES",
    "MAX_TTL_S",
    "FlowRecord",
    "Goodbye",
    "Heartbeat",
    "NodeName",
    "NodeRecord",
    "Ping",
    "packed_bytes",
    "sign_goodbye",
    "sign_heartbeat",
    "sign_record",
    "verify_goodbye",
    "verify_heartbeat",
    "verify_record",
]

MAX_RECORD_BYTES = 1 << 20
"""Bound of a signed record."""

MAX_FLOWS = 10_000
MAX_RECORD_VALUES = 1 << 18
"""Values in a record: more than 10,000 flows that say all they can within its bytes."""

MAX_ADDRESSES = 32
MAX_TTL_S = 7 * 24 * 3600

_NAME_CHARACTERS = 253
_NAME = r"^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$"


def _check_name(text: str) -> str:
    if len(text) > _NAME_CHARACTERS or not re.match(_NAME, text) or text.endswith("\n"):
        raise ValueError(
            "a node's name consists of letters, digits, - and _, with dots between its parts, e.g. flows.example.com"
        )
    return text


NodeName = Annotated[
    str,
    AfterValidator(_check_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _NAME_CHARACTERS, "pattern": _NAME}),
]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG_CHARACTERS)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
Share = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="percent in use")]
Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Hash = Annotated[bytes, Field(max_length=32)]


class FlowRecord(Plain):
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

    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH_CHARACTERS)]
    name: Text = ""
    source: Annotated[str, Field(max_length=MAX_PATH_CHARACTERS)] = ""
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARACTERS)] = ""
    author: Text = ""
    organization: Text = ""
    published: Time = 0
    release: Annotated[str, Field(max_length=MAX_RELEASE_CHARACTERS)] = ""
    tags: Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS)] = ()
    inputs_schema_sha256: Hash = b""
    requests_per_hour: Rate | None = None
    completions_per_hour: Rate | None = None

    SAID: ClassVar[tuple[str, ...]] = (
        "path",
        "name",
        "source",
        "description",
        "author",
        "organization",
        "published",
        "release",
        "tags",
    )
    """What it has of the flow's `FlowInfo`."""

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


class NodeRecord(Signed):
    """What a node says of itself; its newest `seq` counts.

    Attributes:
        v: version of the format.
        peer_id: of the key that signs.
        name: a domain-like string, at most 253 characters.
        addrs: multiaddrs, each with this peer id at its end.
        hpke_key: of records of 0.1.0; nothing reads it, and the next release refuses it.
        flows: at most 10,000.
        seq: rises with each record that the node signs.
        issued_at: ms UTC, the node's clock.
        ttl_s: seconds from `issued_at` on for which the record holds.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/node-record/1\n"
    LIMIT: ClassVar[int] = MAX_RECORD_BYTES
    VALUES: ClassVar[int] = MAX_RECORD_VALUES

    v: Literal[1] = 1
    name: NodeName
    addrs: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=MAX_ADDRESSES)] = ()
    hpke_key: Hash | None = None
    flows: Annotated[tuple[FlowRecord, ...], Field(max_length=MAX_FLOWS, fail_fast=True)] = ()
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    issued_at: Time
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S)]

    @property
    def expires_at(self) -> int:
        """When it ends to hold, ms UTC."""
        return self.issued_at + self.ttl_s * 1000

    @model_validator(mode="after")
    def _check(self) -> NodeRecord:
        if "\n" in self.name:
            raise ValueError("the name has a line break")
        peer_id = PeerId.parse(self.peer_id)
        for address in self.addrs:
            if Multiaddr.parse(address).peer_id != peer_id:
                raise ValueError(f"the address {address} does not end with /p2p/{self.peer_id}")
        return self


class Ping(Plain):
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


class Heartbeat(Signed):
    """A node is alive.

    Attributes:
        peer_id: of the key that signs.
        seq: of the record that it stands behind.
        at: ms UTC, the node's clock; strictly rising within a `seq`.
        ping: how it performs.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/heartbeat/1\n"

    v: Literal[1] = 1
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    at: Time
    ping: Ping = Ping()


class Goodbye(Signed):
    """A node leaves: its records up to `seq` hold no longer.

    Attributes:
        peer_id: of the key that signs.
        seq: of its last record; it comes back with a higher one.
        at: ms UTC, the node's clock.
    """

    DOMAIN: ClassVar[bytes] = b"kodo/registry/goodbye/1\n"

    v: Literal[1] = 1
    seq: Annotated[int, Field(ge=1, le=MAX_INT)]
    at: Time


def packed_bytes(flow: FlowRecord) -> int:
    """Return how many bytes a flow takes in a record."""
    return len(pack(flow.model_dump(exclude_none=True)))


def sign_record(record: NodeRecord, identity: Identity) -> bytes:
    """Sign `record` with the key that it names.

    Raises:
        ValueError: the key is another one, or the result is over 1 MiB.
    """
    return sign(record, identity)


def verify_record(signed: bytes) -> NodeRecord:
    """Read a signed record. Whether it has expired is for the caller to judge, who has a clock.

    Raises:
        PeerError: malformed, not canonical, or over a bound.
        IdentityError: the signature is not of the key that the record names.
    """
    return verify(NodeRecord, signed)


def sign_heartbeat(heartbeat: Heartbeat, identity: Identity) -> bytes:
    """Sign `heartbeat` with the key that it names.

    Raises:
        ValueError: the key is another one.
    """
    return sign(heartbeat, identity)


def verify_heartbeat(signed: bytes) -> Heartbeat:
    """Read a signed heartbeat; raises as `verify_record`."""
    return verify(Heartbeat, signed)


def sign_goodbye(goodbye: Goodbye, identity: Identity) -> bytes:
    """Sign `goodbye` with the key that it names.

    Raises:
        ValueError: the key is another one.
    """
    return sign(goodbye, identity)


def verify_goodbye(signed: bytes) -> Goodbye:
    """Read a signed goodbye; raises as `verify_record`."""
    return verify(Goodbye, signed)
