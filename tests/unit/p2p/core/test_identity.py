import json
from pathlib import Path

import pytest

from kodo.p2p.core.identity import Identity, PeerId, decode_public_key, encode_public_key, verify

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "identity.json").read_text())["valid"]
SEED = bytes(range(32))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["peer_id"])
def test_keys_ids_and_signatures_agree_with_js(vector):
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    peer_id = identity.peer_id
    assert peer_id.public_key.hex() == vector["public_key"]
    assert encode_public_key(peer_id.public_key).hex() == vector["protobuf"]
    assert peer_id.to_bytes().hex() == vector["multihash"]
    assert str(peer_id) == vector["peer_id"]
    assert identity.sign(bytes.fromhex(vector["message"])).hex() == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["peer_id"])
def test_every_form_of_a_peer_id_reads_back(vector):
    peer_id = PeerId.from_public_key(bytes.fromhex(vector["public_key"]))
    assert PeerId.parse(vector["peer_id"]) == peer_id
    assert PeerId.from_bytes(bytes.fromhex(vector["multihash"])) == peer_id
    assert decode_public_key(bytes.fromhex(vector["protobuf"])) == peer_id


def test_a_signature_holds_for_its_key_and_data_only():
    identity, other = Identity.from_seed(SEED), Identity.from_seed(bytes(32))
    signature = identity.sign(b"data")
    assert len(signature) == 64
    assert verify(identity.peer_id, signature, b"data")
    assert not verify(identity.peer_id, signature, b"date")
    assert not verify(other.peer_id, signature, b"data")
    assert not verify(identity.peer_id, bytes(64), b"data")


@pytest.mark.parametrize("length", [0, 63, 65, 1000])
def test_a_signature_of_another_length_is_just_not_valid(length):
    assert not verify(Identity.from_seed(SEED).peer_id, b"\xff" * length, b"data")


def test_peer_ids_are_values():
    one, same = PeerId(b"\x01" * 32), PeerId(b"\x01" * 32)
    assert one == same
    assert len({one, same}) == 1
    assert sorted([PeerId(b"\x02" * 32), one]) == [one, PeerId(b"\x02" * 32)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12D3Koo",
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p",
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pqq",
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p0",
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p ",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY",
    ],
)
def test_refuses_what_is_no_ed25519_peer_id(text):
    with pytest.raises(ValueError, match=r"peer id|base58"):
        PeerId.parse(text)


def test_says_that_the_cid_form_is_not_supported():
    with pytest.raises(ValueError, match="CID form is not supported"):
        PeerId.parse("bafzaajaiaejca3wbtaoxd3jmetrvcuk4wwdlqrmwdi6nvlxhr5evcmpvogcbcvlc")


@pytest.mark.parametrize("data", [b"", bytes(36), bytes.fromhex("08021220") + bytes(32), bytes.fromhex("08011220")])
def test_refuses_other_public_keys(data):
    with pytest.raises(ValueError, match="Ed25519"):
        decode_public_key(data)


@pytest.mark.parametrize("make", [PeerId, Identity.from_seed, encode_public_key])
def test_a_key_has_32_bytes(make):
    with pytest.raises(ValueError, match="32 bytes"):
        make(bytes(31))


def test_the_seed_stays_out_of_the_repr():
    identity = Identity.from_seed(SEED)
    assert identity.seed == SEED
    assert repr(identity) == f"Identity('{identity.peer_id}')"


def test_a_multihash_of_another_kind_is_refused():
    data = PeerId(bytes(32)).to_bytes()
    with pytest.raises(ValueError, match="not the peer id of an Ed25519 key"):
        PeerId.from_bytes(b"\x12\x24" + data[2:])
