import json
from pathlib import Path

import pytest

from kodo.p2p.core.multibase import (
    base58_decode,
    base58_encode,
    base64url_decode,
    base64url_encode,
    decode_multibase,
)

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "multibase.json").read_text())["valid"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["bytes"] or "empty")
def test_both_bases_agree_with_js(vector):
    data = bytes.fromhex(vector["bytes"])
    assert base58_encode(data) == vector["base58"]
    assert base58_decode(vector["base58"]) == data
    assert base64url_encode(data) == vector["base64url"]
    assert base64url_decode(vector["base64url"]) == data


def test_multibase_letters_choose_the_base():
    assert decode_multibase("u-_8") == b"\xfb\xff"
    assert decode_multibase("z2g") == b"a"


@pytest.mark.parametrize("text", ["", "fff", "mAA", "Uaa", "bmfra"])
def test_other_multibase_letters_are_refused(text):
    with pytest.raises(ValueError, match="multibase letter"):
        decode_multibase(text)


@pytest.mark.parametrize("text", ["0", "O", "I", "l", "2 g", "²", "2\n"])
def test_base58_refuses_characters_outside_its_alphabet(text):
    with pytest.raises(ValueError, match="not a base58 character"):
        base58_decode(text)


def test_base58_is_bounded_in_length():
    assert len(base58_decode("1" * 128)) == 128
    with pytest.raises(ValueError, match="over the limit"):
        base58_decode("1" * 129)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("YQ", "multibase letter"),
        ("uYQ==", "not of its alphabet"),
        ("u+/", "not of its alphabet"),
        ("uYQ\n", "not of its alphabet"),
        ("uA", "impossible length"),
        ("uYR", "stray bits"),
    ],
)
def test_base64url_refuses_every_second_way_to_write(text, why):
    with pytest.raises(ValueError, match=why):
        base64url_decode(text)
