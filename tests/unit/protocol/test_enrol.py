"""Codes and proofs of enrolment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kodo.p2p.errors import UsageError
from kodo.protocol.enrol import make_code, make_proof

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "enrol.json").read_text())


def test_proofs_are_those_of_the_vectors() -> None:
    for vector in VECTORS["valid"]:
        assert make_proof(vector["code"], vector["node"], vector["device"]).hex() == vector["proof"]
    for code in VECTORS["refused"]:
        with pytest.raises(UsageError):
            make_proof(code, "n", "d")


def test_a_code_is_made_of_sixty_bits() -> None:
    assert make_code(bytes(8)) == "0000-0000-0000"
    assert make_code(b"\xff" * 8) == "ZZZZ-ZZZZ-ZZZZ"
    assert make_code(bytes.fromhex("0123456789abcdef")) == "28T5-CY4T-QKFF"


def test_a_proof_is_an_hmac_over_both_peer_ids() -> None:
    proof = make_proof("28T5-CY4T-QKFF", "node", "device")
    assert proof.hex() == "e0e4a778c84cc06b79fa9c5767ff6282a931eadeee50a15511cb5a334705ce93"
    assert proof != make_proof("28T5-CY4T-QKFF", "device", "node")
    assert proof != make_proof("28T5-CY4T-QKFG", "node", "device")


@pytest.mark.parametrize("written", ["28t5cy4tqkff", " 28T5 CY4T QKFF ", "28T5CY4TQKFF"])
def test_a_code_is_read_as_people_write_it(written: str) -> None:
    assert make_proof(written, "n", "d") == make_proof("28T5-CY4T-QKFF", "n", "d")


def test_letters_that_look_alike_are_one() -> None:
    assert make_proof("OIL0-1111-0000", "n", "d") == make_proof("0110-1111-0000", "n", "d")


@pytest.mark.parametrize("written", ["", "28T5", "28T5-CY4T-QKFFF", "28T5-CY4T-QFF!", "28T5-CY4T-QFFU"])
def test_what_is_no_code_is_refused(written: str) -> None:
    with pytest.raises(UsageError):
        make_proof(written, "n", "d")
