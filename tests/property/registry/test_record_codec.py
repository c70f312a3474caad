import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kodo.p2p.errors import PeerError
from kodo.registry.records.record import (
    FlowRecord,
    Goodbye,
    Heartbeat,
    NodeRecord,
    Ping,
    sign_goodbye,
    sign_heartbeat,
    sign_record,
    verify_goodbye,
    verify_heartbeat,
    verify_record,
)
from tests.support.records import address, flow, identity, record, signed_record

VERIFY = [verify_record, verify_heartbeat, verify_goodbye]
ME = identity(9)
COUNTS = st.integers(1, 2**53 - 1)
TIMES = st.integers(0, 2**53 - 1)
RATES = st.none() | st.floats(0, 1e9)
SIGNED = signed_record(ME, flow())


def texts(most, least=0):
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=min(most, 40))


FLOWS = st.builds(
    FlowRecord,
    path=texts(512, 1),
    name=texts(256),
    source=texts(512),
    description=texts(4096),
    author=texts(256),
    organization=texts(256),
    published=TIMES,
    release=texts(64),
    tags=st.lists(texts(64, 1), max_size=4).map(tuple),
    inputs_schema_sha256=st.just(b"") | st.binary(min_size=32, max_size=32),
    requests_per_hour=RATES,
    completions_per_hour=RATES,
)
RECORDS = st.builds(
    NodeRecord,
    peer_id=st.just(str(ME.peer_id)),
    name=st.from_regex(r"[A-Za-z0-9_]{1,20}(\.[a-z0-9]{1,20}){0,3}", fullmatch=True),
    addrs=st.sampled_from([(), (address(ME),), (address(ME),) * 2]),
    hpke_key=st.none() | st.just(b"") | st.binary(min_size=32, max_size=32),
    flows=st.lists(FLOWS, max_size=4).map(tuple),
    seq=COUNTS,
    issued_at=TIMES,
    ttl_s=st.integers(1, 7 * 86400),
)
PINGS = st.builds(
    Ping,
    cpu=st.none() | st.floats(0, 100),
    memory=st.none() | st.floats(0, 100),
    queued=st.none() | TIMES,
    round_trip_ms=RATES,
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9) | st.binary(max_size=9), inner),
    max_leaves=12,
)


@given(RECORDS)
def test_a_signed_record_reads_back(value):
    assert verify_record(sign_record(value, ME)) == value


@given(seq=COUNTS, at=TIMES, ping=PINGS)
def test_a_signed_heartbeat_reads_back(seq, at, ping):
    value = Heartbeat(peer_id=str(ME.peer_id), seq=seq, at=at, ping=ping)
    assert verify_heartbeat(sign_heartbeat(value, ME)) == value


@given(seq=COUNTS, at=TIMES)
def test_a_signed_goodbye_reads_back(seq, at):
    value = Goodbye(peer_id=str(ME.peer_id), seq=seq, at=at)
    assert verify_goodbye(sign_goodbye(value, ME)) == value


@given(st.integers(0, len(SIGNED) * 8 - 1))
@settings(max_examples=500)
def test_a_record_with_one_flipped_bit_never_verifies(bit):
    flipped = bytearray(SIGNED)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PeerError):
        verify_record(bytes(flipped))


@pytest.mark.parametrize("verify", VERIFY)
@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=b"\xc1")
@example(data=b"\x91" * 4000)
@example(data=b"\x81\xa0" * 2000)
@example(data=b"\xdd\xff\xff\xff\xff")
@example(data=b"\xc7\x00\xff")
def test_any_bytes_raise_nothing_but_a_peer_error(verify, data):
    with pytest.raises(PeerError):
        verify(data)


@pytest.mark.parametrize("verify", VERIFY)
@given(value=PLAIN)
def test_any_msgpack_raises_nothing_but_a_peer_error(verify, value):
    with pytest.raises(PeerError):
        verify(msgpack.packb(value))


@given(name=st.sampled_from([*NodeRecord.model_fields, "inputs"]), value=PLAIN)
def test_any_signed_value_of_a_field_is_read_or_is_a_peer_error(name, value):
    claim = {**record(ME, flow()).model_dump(exclude_none=True), name: value}
    payload = msgpack.packb(dict(sorted(claim.items())))
    signature = ME.sign(b"kodo/registry/node-record/1\n" + payload)
    signed = msgpack.packb({"payload": payload, "signature": signature})
    try:
        found = verify_record(signed)
    except PeerError:
        return
    assert sign_record(found, ME) == signed
