import json
from pathlib import Path

import msgpack
import pytest
from pydantic import ValidationError

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import IdentityError, PeerError
from kodo.registry.records.record import (
    MAX_FLOWS,
    MAX_RECORD_BYTES,
    FlowRecord,
    Goodbye,
    Heartbeat,
    NodeRecord,
    sign_goodbye,
    sign_heartbeat,
    sign_record,
    verify_goodbye,
    verify_heartbeat,
    verify_record,
)
from tests.support.records import address, flow, identity, record, signed_goodbye, signed_heartbeat, signed_record

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "record.json").read_text())
KINDS = {
    "record": (NodeRecord, sign_record, verify_record),
    "heartbeat": (Heartbeat, sign_heartbeat, verify_heartbeat),
    "goodbye": (Goodbye, sign_goodbye, verify_goodbye),
}


def _value(value):
    """Read a vector's JSON: `{"$bytes": hex}` stands for a bin, arrays are tuples."""
    match value:
        case {"$bytes": str(text)}:
            return bytes.fromhex(text)
        case dict():
            return {key: _value(item) for key, item in value.items()}
        case list():
            return tuple(_value(item) for item in value)
    return value


def _forge(claim, of=None, domain=b"kodo/registry/node-record/1\n", pack=None):
    """Sign whatever `claim` is, as a careless or hostile node could."""
    of = of or identity()
    payload = (pack or _canonical)(claim)
    return _canonical({"payload": payload, "signature": of.sign(domain + payload)})


def _canonical(value):
    def ordered(item):
        if isinstance(item, dict):
            return {key: ordered(item[key]) for key in sorted(item)}
        return [ordered(entry) for entry in item] if isinstance(item, (list, tuple)) else item

    return msgpack.packb(ordered(value))


def _claim(**changes):
    return {**record().model_dump(exclude_none=True), **changes}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["kind"])
def test_signed_bytes_are_the_golden_ones(case):
    model, sign, verify = KINDS[case["kind"]]
    value = model.model_validate(_value(case["value"]))
    signed = sign(value, Identity.from_seed(bytes.fromhex(VECTORS["seed"])))
    assert signed.hex() == case["signed"]
    assert verify(bytes.fromhex(case["signed"])) == value


@pytest.mark.parametrize(
    ("verify", "signed"),
    [
        (verify_record, signed_heartbeat()),
        (verify_record, signed_goodbye()),
        (verify_heartbeat, signed_goodbye()),
        (verify_goodbye, signed_heartbeat()),
        (verify_heartbeat, signed_record()),
    ],
)
def test_what_was_signed_as_one_kind_does_not_pass_as_another(verify, signed):
    with pytest.raises(PeerError):
        verify(signed)


def test_a_goodbye_signed_under_the_domain_of_a_heartbeat_is_nobodys():
    claim = {"v": 1, "peer_id": str(identity().peer_id), "seq": 1, "at": 1}
    assert verify_goodbye(_forge(claim, domain=b"kodo/registry/goodbye/1\n")).seq == 1
    with pytest.raises(IdentityError):
        verify_goodbye(_forge(claim, domain=b"kodo/registry/heartbeat/1\n"))


def test_a_record_signed_by_another_key_is_nobodys():
    with pytest.raises(IdentityError, match="signature"):
        verify_record(_forge(_claim(), of=identity(2)))


def test_a_record_of_somebody_else_cannot_be_signed():
    with pytest.raises(ValueError, match="names"):
        sign_record(record(identity(1)), identity(2))


def test_a_payload_changed_after_signing_is_refused():
    envelope = msgpack.unpackb(signed_record())
    envelope["payload"] = envelope["payload"].replace(b"flows.example.com", b"flows.example.org")
    with pytest.raises(IdentityError):
        verify_record(_canonical(envelope))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"inputs": {"x": 1}}, "inputs"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "name\n"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 254}, "name"),
        ({"name": "-a.example"}, "name"),
        ({"v": 2}, "v"),
        ({"seq": 0}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 1.0}, "seq"),
        ({"seq": 2**53}, "seq"),
        ({"seq": "1"}, "seq"),
        ({"issued_at": -1}, "issued_at"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": 7 * 86400 + 1}, "ttl_s"),
        ({"hpke_key": b"x" * 33}, "hpke_key"),
        ({"hpke_key": "x" * 32}, "hpke_key"),
        ({"addrs": ["/ip4/192.0.2.7/tcp/80"]}, "not a WebRTC Direct address"),
        ({"addrs": [address(identity(2))]}, "does not end with"),
        ({"addrs": [address(identity()).partition("/p2p/")[0]]}, "does not end with"),
        ({"addrs": [address(identity())] * 33}, "addrs"),
        ({"addrs": address(identity())}, "addrs"),
        ({"flows": [{"name": "no path"}]}, "flows.0.path"),
        ({"flows": [{"path": "a", "inputs": {}}]}, "flows.0.inputs"),
        ({"flows": [{"path": "a", "tags": ["t"] * 33}]}, "flows.0.tags"),
        ({"flows": [{"path": "a", "description": "d" * 4097}]}, "flows.0.description"),
        ({"flows": [{"path": "a", "requests_per_hour": float("nan")}]}, "flows.0.requests_per_hour"),
        ({"flows": [{"path": "a", "inputs_schema_sha256": b"x"}]}, "flows.0"),
        ({"flows": [{"path": "a"}] * (MAX_FLOWS + 1)}, "flows"),
        ({"peer_id": "nobody"}, "peer_id"),
        ({"peer_id": 7}, "peer_id"),
    ],
)
def test_a_signed_record_with_a_wrong_field_is_refused_by_name(changes, what):
    with pytest.raises(PeerError, match=what):
        verify_record(_forge(_claim(**changes)))


@pytest.mark.parametrize("missing", ["peer_id", "name", "seq", "issued_at", "ttl_s"])
def test_a_record_without_a_needed_field_is_refused(missing):
    claim = _claim()
    del claim[missing]
    with pytest.raises(PeerError, match=missing):
        verify_record(_forge(claim))


@pytest.mark.parametrize(
    "pack",
    [
        lambda claim: msgpack.packb(dict(sorted(claim.items(), reverse=True))),
        lambda claim: _canonical(claim) + b"\xc0",
        lambda claim: _canonical(claim).replace(b"\xa3seq\x01", b"\xa3seq\xcc\x01"),
        lambda claim: _canonical({**claim, "ping": msgpack.Timestamp(1)}),
        lambda claim: _canonical(claim).replace(b"\xa4name", b"\xc4\x04name"),
        lambda claim: b"\x91" * 2000,
        lambda claim: b"\x81" * 2000,
        lambda claim: _canonical(list(claim)),
        lambda claim: b"\xdf\xff\xff\xff\xff",
        lambda claim: b"\xa2\xff\xfe",
        lambda claim: b"",
    ],
    ids=[
        "order",
        "trailing",
        "long-int",
        "extension",
        "bin-key",
        "deep-arrays",
        "deep-maps",
        "list",
        "huge",
        "utf-8",
        "",
    ],
)
def test_another_spelling_of_a_record_is_refused_though_it_is_signed(pack):
    with pytest.raises(PeerError):
        verify_record(_forge(_claim(), pack=pack))


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"payload": b"x"},
        {"payload": b"x", "signature": b"x" * 63},
        {"payload": "x", "signature": b"x" * 64},
        {"payload": b"\x80", "signature": b"x" * 64},
        {"payload": b"\x80", "signature": b"x" * 64, "more": 1},
        [],
        None,
        7,
    ],
)
def test_what_is_no_envelope_is_refused(envelope):
    with pytest.raises(PeerError):
        verify_record(_canonical(envelope))


def test_a_record_over_a_mebibyte_is_neither_signed_nor_read():
    flows = tuple(flow(f"flows.f{number}", description="d" * 4000) for number in range(280))
    with pytest.raises(ValueError, match="over the limit"):
        signed_record(identity(), *flows)
    with pytest.raises(PeerError, match="over the limit"):
        verify_record(bytes(MAX_RECORD_BYTES + 1))


def test_the_most_flows_fit_when_they_are_short():
    flows = tuple(FlowRecord(path=f"f{number}") for number in range(3_000))
    assert len(verify_record(signed_record(identity(), *flows)).flows) == 3_000


def test_a_flow_names_what_it_lacks():
    assert flow().missing() == []
    assert flow(author="", published=0).missing() == ["author", "published"]


def test_a_record_holds_for_its_ttl():
    assert record(issued_at=5_000, ttl_s=60).expires_at == 65_000


def test_the_value_of_a_wrong_field_is_not_repeated():
    with pytest.raises(ValidationError) as caught:
        record(seq="canary")
    assert "canary" not in str(caught.value)
