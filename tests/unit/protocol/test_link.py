"""Links: the token as the vectors say, the forms around it, and nothing of the secret in any message."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.protocol.link import (
    MAX_TOKEN_CHARACTERS,
    Link,
    decode_token,
    digest_of_secret,
    encode_token,
    parse_link,
    write_link,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "link.json").read_text())
PEER = Identity.from_seed(bytes(32)).peer_id
FID = "01jd2n8x4q5w6e7r8t9y0abcde"
SECRET = bytes(range(100, 116))


def link_of(vector: dict[str, Any]) -> Link:
    addresses = tuple(Multiaddr.parse(text) for text in vector["addresses"])
    peer_id = PeerId.parse(vector["peer_id"])
    return Link(peer_id, vector["fid"], bytes.fromhex(vector["secret"]), addresses, vector["registry"])


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: str(len(vector["token"])))
def test_tokens_read_and_write_as_the_vectors_say(vector: dict[str, Any]) -> None:
    link = link_of(vector)
    assert encode_token(link) == vector["token"]
    assert decode_token(vector["token"]) == link
    assert write_link(vector["token"], vector["page"]) == vector["link"]
    assert parse_link(vector["link"]) == link
    assert digest_of_secret(link.secret) == bytes.fromhex(vector["sha256"])
    assert hashlib.sha256(link.secret).hexdigest() == vector["sha256"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"])
def test_what_is_no_token_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"token|link|address|Ed25519"):
        decode_token(vector["token"])
    with pytest.raises(ValueError, match=r"token|link|address|Ed25519"):
        parse_link(f"https://example.com/#get={vector['token']}")


def test_the_forms_of_a_link_mean_the_same() -> None:
    link = Link(PEER, FID, SECRET)
    token = encode_token(link)
    for text in (
        token,
        f"kodo:{token}",
        f" KODO:{token}\n",
        f"https://flows.example.com/#get={token}",
        f"http://127.0.0.1:8080/page?lang=en#get={token}",
        write_link(token, "https://flows.example.com/", invites=True),
    ):
        assert parse_link(text) == link
    assert write_link(token, "https://flows.example.com/", invites=True) == f"https://flows.example.com/#open={token}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.com/",
        "https://example.com/?get=x",
        "ftp://example.com/#get=x",
        "kodo:",
        "a/b",
        "x" * 9000,
    ],
)
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"token|link|address|Ed25519"):
        parse_link(text)


def test_a_secret_is_shown_by_no_message_and_no_repr() -> None:
    token = encode_token(Link(PEER, FID, SECRET))
    assert repr(SECRET) not in repr(decode_token(token))
    assert SECRET.hex() not in repr(decode_token(token))
    for text in (token[:-1], token + "A", token[:20] + "*" + token[21:], f"https://example.com/#got={token}"):
        with pytest.raises(ValueError, match=r"token|link|address|Ed25519") as caught:
            parse_link(text)
        assert token[30:] not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "change",
    [
        {"fid": "x"},
        {"secret": b"short"},
        {"registry": "ftp://x.example"},
        {"registry": "http://" + "x" * 300},
        {"addresses": (Multiaddr.webrtc_direct("192.0.2.7", 1, bytes(32)),)},
        {"addresses": (Multiaddr.webrtc_direct("192.0.2.7", 1, bytes(32), PEER),) * 9},
    ],
)
def test_a_link_that_no_token_can_hold_is_not_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a link"):
        Link(**{"peer_id": PEER, "fid": FID, "secret": SECRET, **change})


def test_the_largest_link_fits_a_token() -> None:
    name = ".".join(["x" * 63] * 3) + "." + "y" * 60
    address = Multiaddr.webrtc_direct(name, 65535, bytes(32), PEER)
    link = Link(PEER, FID, SECRET, (address,) * 8, "http://" + "x" * 249)
    token = encode_token(link)
    assert len(token) < MAX_TOKEN_CHARACTERS
    assert decode_token(token) == link
