import json
from pathlib import Path

import pytest

from kodo.p2p.core.negotiate import HEADER, Accepting, Dialing, ProtocolRefusedError, encode_token
from kodo.p2p.errors import PeerError

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "negotiate.json").read_text())
CALL = "/kodo/call/1"
GREETING = encode_token(HEADER)


@pytest.mark.parametrize("vector", VECTORS["tokens"], ids=lambda vector: vector["text"])
def test_tokens_agree_with_js(vector):
    assert encode_token(vector["text"]).hex() == vector["bytes"]


def test_ls_is_answered_as_js_does():
    accepting = Accepting(VECTORS["ls"]["protocols"])
    assert accepting.feed(GREETING + encode_token("ls")) == GREETING + bytes.fromhex(VECTORS["ls"]["bytes"])
    assert accepting.protocol is None


def test_an_optimistic_dialer_and_a_listener_agree_and_keep_the_payload():
    dialing, accepting = Dialing(CALL), Accepting({CALL})
    answer = accepting.feed(dialing.hello() + b"question")
    assert (accepting.protocol, accepting.leftover) == (CALL, b"question")
    assert dialing.feed(answer + b"reply")
    assert dialing.done
    assert dialing.leftover == b"reply"


def test_they_agree_byte_by_byte_too():
    dialing, accepting = Dialing(CALL), Accepting({CALL})
    answer = b"".join(accepting.feed(bytes((byte,))) for byte in dialing.hello() + b"xy")
    results = [dialing.feed(bytes((byte,))) for byte in answer]
    assert results == [False] * (len(answer) - 1) + [True]
    assert (accepting.leftover, dialing.leftover) == (b"xy", b"")


def test_payload_that_follows_the_agreement_is_added_to_the_leftover():
    dialing, accepting = Dialing(CALL), Accepting({CALL})
    dialing.feed(accepting.feed(dialing.hello()))
    assert accepting.feed(b"abc") == b""
    assert accepting.leftover == b"abc"
    assert dialing.feed(b"def")
    assert dialing.leftover == b"def"


def test_a_refused_proposal_can_be_followed_by_another():
    accepting = Accepting({CALL})
    assert accepting.feed(GREETING + encode_token("/other/1")) == GREETING + encode_token("na")
    assert accepting.leftover == b""
    assert accepting.feed(encode_token(CALL)) == encode_token(CALL)
    assert accepting.protocol == CALL


def test_the_dialer_says_which_protocol_was_refused():
    dialing = Dialing(CALL)
    with pytest.raises(ProtocolRefusedError, match=CALL):
        dialing.feed(GREETING + encode_token("na"))
    assert not dialing.done


@pytest.mark.parametrize(
    "answer",
    [
        encode_token("na"),
        encode_token(CALL),
        GREETING + encode_token("/other/1"),
        GREETING + GREETING,
        b"\x03abc",
        b"\x02\xff\n",
        b"\x00",
        b"\x81\x08",
        b"\x80\x80\x01",
    ],
)
def test_the_dialer_refuses_every_other_answer(answer):
    with pytest.raises(PeerError) as caught:
        Dialing(CALL).feed(answer)
    assert not isinstance(caught.value, ProtocolRefusedError)


@pytest.mark.parametrize(
    "start", [encode_token(CALL), encode_token("ls"), b"\x03abc", b"\x02\xff\n", b"\x81\x08", b"\x00"]
)
def test_the_listener_refuses_a_stream_that_does_not_start_with_the_header(start):
    with pytest.raises(PeerError):
        Accepting({CALL}).feed(start)


def test_a_token_of_1024_bytes_is_read_and_a_longer_one_refused_by_its_announcement():
    longest = encode_token("/" + "a" * 1022)
    assert Accepting({CALL}).feed(GREETING + longest) == GREETING + encode_token("na")
    with pytest.raises(PeerError, match="1025 bytes was announced"):
        Accepting({CALL}).feed(GREETING + b"\x81\x08")


def test_after_16_proposals_the_listener_gives_up():
    accepting = Accepting({CALL})
    accepting.feed(GREETING + encode_token("/other/1") * 16)
    with pytest.raises(PeerError, match="more than 16"):
        accepting.feed(encode_token(CALL))


@pytest.mark.parametrize("text", ["", "a\nb", "a" * 1024])
def test_what_cannot_be_a_token_is_not_sent(text):
    with pytest.raises(ValueError, match="cannot be a token"):
        encode_token(text)
