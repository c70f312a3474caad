import json
from pathlib import Path

import pytest

from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import IdentityError, PeerError
from kodo.registry.client.signed_requests import claimed_host
from kodo.registry.records.claims import (
    MAX_AGE_S,
    MAX_AHEAD_S,
    Claim,
    Enrolment,
    Seen,
    authorization,
    enrol_proof,
    read_authorization,
)
from kodo.registry.records.signed import sign
from tests.support.records import NOW, identity

USER = identity(7)
REQUEST = ("registry.example:8360", "POST", "/register?x=1", b'{"name": "a"}')


def header(at=NOW, request=REQUEST):
    return authorization(USER, *request, at)


def test_a_claim_names_who_calls():
    assert read_authorization(header(), *REQUEST).peer_id == str(USER.peer_id)
    assert read_authorization(header(), "Registry.Example:8360", *REQUEST[1:]).at == NOW


@pytest.mark.parametrize("part", range(4))
def test_a_claim_is_good_for_its_own_request_alone(part):
    other = list(REQUEST)
    other[part] = ("other.example", "DELETE", "/register", b"{}")[part]
    with pytest.raises(PeerError):
        read_authorization(header(), *other)


@pytest.mark.parametrize("value", ["", "Bearer x", "Kodo ", "Kodo !!", "Kodo " + "A" * 9000, "Kodo gaNh"])
def test_what_is_no_claim_is_refused(value):
    with pytest.raises(PeerError):
        read_authorization(value, *REQUEST)


def test_a_changed_claim_is_refused():
    value = header()
    changed = value[:-3] + ("A" if value[-3] != "A" else "B") + value[-2:]
    with pytest.raises((PeerError, IdentityError)):
        read_authorization(changed, *REQUEST)


def claim(at=NOW, of=USER):
    return Claim(peer_id=str(of.peer_id), host="h", method="GET", target="/", body_sha256=bytes(32), at=at)


def test_a_claim_counts_once_and_in_time():
    seen = Seen()
    assert seen.fresh(claim(), NOW)
    assert not seen.fresh(claim(), NOW)
    assert not seen.fresh(claim(NOW - 1), NOW)
    assert seen.fresh(claim(NOW + 1), NOW)
    assert seen.fresh(claim(of=identity(8)), NOW)
    assert not seen.fresh(claim(NOW - MAX_AGE_S * 1000 - 1, identity(9)), NOW)
    assert not seen.fresh(claim(NOW + MAX_AHEAD_S * 1000 + 1, identity(9)), NOW)
    assert seen.fresh(claim(NOW - MAX_AGE_S * 1000, identity(9)), NOW)


def test_a_claim_of_before_the_start_does_not_count():
    seen = Seen(since=NOW)
    assert not seen.fresh(claim(NOW - 1), NOW + 10)
    assert seen.fresh(claim(NOW), NOW + 10)


def test_what_is_remembered_is_bounded():
    seen = Seen(keys=2)
    for number in (1, 2, 3):
        assert seen.fresh(claim(of=identity(number)), NOW)
    assert not seen.fresh(claim(of=identity(3)), NOW)


def test_a_proof_is_for_one_code_one_registry_and_one_key():
    proof = enrol_proof("abcd-efgh", "registry", "user")
    assert proof == enrol_proof(" ABCD efgh\n", "registry", "user")
    others = [("abcd-efgi", "registry", "user"), ("abcd-efgh", "other", "user"), ("abcd-efgh", "registry", "other")]
    assert all(enrol_proof(*each) != proof for each in others)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://registry.example:443", "registry.example"),
        ("http://registry.example:80/path", "registry.example"),
        ("https://registry.example:8443", "registry.example:8443"),
        ("http://[::1]:80", "[::1]"),
        ("https://b\u00fccher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_claim_names_the_host_as_the_request_does(url, host):
    assert claimed_host(url) == host


def test_claims_and_enrolments_are_those_of_the_vectors():
    vectors = json.loads((Path(__file__).parents[3] / "vectors" / "claim.json").read_text())
    me = Identity.from_seed(bytes.fromhex(vectors["seed"]))
    for each in vectors["claims"]:
        request = (each["host"], each["method"], each["target"], bytes.fromhex(each["body"]))
        assert authorization(me, *request, each["at"]) == each["authorization"]
        assert read_authorization(each["authorization"], *request).at == each["at"]
    said = vectors["enrolment"]
    proof = enrol_proof(said["code"], said["registry"], vectors["peer_id"])
    assert sign(Enrolment(peer_id=vectors["peer_id"], proof=proof), me).hex() == said["signed"]
