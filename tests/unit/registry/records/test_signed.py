"""Signed statements: whose one is, is known before anything in it is made, and that costs little."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import IdentityError, PeerError
from kodo.registry.records.claims import Claim, Enrolment
from kodo.registry.records.mesh import Batch, Brought, Tombstone
from kodo.registry.records.record import Goodbye, Heartbeat, NodeRecord
from kodo.registry.records.signed import Signed, open_envelope, pack, unpack, verify
from kodo.registry.rendezvous import Presence
from tests.support.counting import calls_of

KINDS = [NodeRecord, Heartbeat, Goodbye, Claim, Enrolment, Presence, Tombstone, Batch, Brought]
KEY = Identity.from_seed(b"a" * 32)
OTHER = Identity.from_seed(b"b" * 32)
FLOODS: dict[str, Any] = {"maps": {}, "lists": [], "numbers": 1, "texts": "", "maps of a key": {"k": 1}}


def flood(kind: type[Signed], part: Any, key: Identity) -> bytes:
    """Make a statement as large as its kind may be, full of small values."""
    one = msgpack.packb(part)
    count = (kind.LIMIT - 400) // len(one)
    values = b"\xdd" + count.to_bytes(4, "big") + one * count
    payload = b"\x82\xa1a" + values + b"\xa7peer_id" + msgpack.packb(str(KEY.peer_id))
    return pack({"payload": payload, "signature": key.sign(kind.DOMAIN + payload)})


def kinds_there_are(kind: type[Signed] = Signed) -> set[type[Signed]]:
    return {each for below in kind.__subclasses__() for each in {below, *kinds_there_are(below)}}


def test_the_table_has_every_kind() -> None:
    assert set(KINDS) == {kind for kind in kinds_there_are() if kind.__module__.startswith("kodo.")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", FLOODS)
def test_of_what_its_signer_did_not_sign_nothing_is_made(kind: type[Signed], part: str) -> None:
    forged = flood(kind, FLOODS[part], OTHER)

    def work() -> None:
        with pytest.raises(IdentityError):
            verify(kind, forged)

    assert calls_of(work) < 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", FLOODS)
def test_what_was_signed_is_counted_before_it_is_made(kind: type[Signed], part: str) -> None:
    signed = flood(kind, FLOODS[part], KEY)

    def work() -> None:
        with pytest.raises(PeerError, match="values"):
            verify(kind, signed)

    # A step or two for each value that the kind may have; a bytes object of a million values would take millions.
    assert calls_of(work) < 4 * kind.VALUES + 1000


@pytest.mark.parametrize("kind", KINDS)
def test_whose_a_statement_is_is_known_without_reading_it(kind: type[Signed]) -> None:
    assert open_envelope(kind, flood(kind, {}, KEY)).peer_id == KEY.peer_id


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80",
        b"\x90",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa7peer_id",
        b"\x81\xa7peer_id\x90",
        b"\x82\x91\x01\x01\xa7peer_id\xa1x",
        b"\x81\xa7peer_id\xc0",
        b"\x91" * 3000,
        b"\x81\xa1a" * 1200,
        b"\x81\xc7\x01\x05a\x01",
        b"\x81\xa7peer_id\xd9\xff",
    ],
)
def test_a_payload_that_names_nobody_is_refused(payload: bytes) -> None:
    signed = pack({"payload": payload, "signature": bytes(64)})
    with pytest.raises(PeerError, match="peer_id"):
        verify(Goodbye, signed)


def test_a_name_that_stands_there_twice_is_refused() -> None:
    first, second = (msgpack.packb(str(key.peer_id)) for key in (KEY, OTHER))
    payload = b"\x84\xa2at\x01\xa7peer_id" + first + b"\xa7peer_id" + second + b"\xa3seq\x01"
    signed = pack({"payload": payload, "signature": KEY.sign(Goodbye.DOMAIN + payload)})
    with pytest.raises(PeerError, match="canonical"):
        verify(Goodbye, signed)


def test_a_record_of_wrong_flows_is_refused_by_the_first() -> None:
    flows = [{}] * 10_000
    payload = pack({"flows": flows, "issued_at": 1, "name": "a", "peer_id": str(KEY.peer_id), "seq": 1, "ttl_s": 1})
    signed = pack({"payload": payload, "signature": KEY.sign(NodeRecord.DOMAIN + payload)})
    with pytest.raises(PeerError, match=r"flows\.0\.path"):
        verify(NodeRecord, signed)


def test_what_is_read_without_a_kind_has_few_values() -> None:
    with pytest.raises(PeerError, match="values"):
        unpack(pack([{}] * 100))
    assert unpack(pack([{}] * 100), most=101) == ({},) * 100
