"""Which protocol a stream speaks: multistream-select 1.0 (multiformats/multistream-select), without I/O.

The dialer proposes, the listener repeats the proposal or says `na`. Each token is a uvarint length, the text and a
newline. The dialer here is optimistic: header, its one proposal and its first payload go out together, so agreeing
takes no round trip of its own.
"""

from __future__ import annotations

from collections.abc import Collection

from kodo.p2p.core.varint import IncompleteError, decode_varint, encode_varint
from kodo.p2p.errors import PeerError

__all__ = ["HEADER", "Accepting", "Dialing", "ProtocolRefusedError", "encode_token"]

HEADER = "/multistream/1.0.0"
MAX_TOKEN_BYTES = 1024
"""Newline included, as go-multistream and js-libp2p bound it."""
MAX_PROPOSALS = 16
_REFUSAL = "na"
_LIST = "ls"


class ProtocolRefusedError(PeerError):
    """The other side does not speak the protocol that was proposed."""


def encode_token(text: str) -> bytes:
    """Write one token: length, `text`, newline.

    Raises:
        ValueError: it is over `MAX_TOKEN_BYTES`, empty, or has a newline inside.
    """
    body = text.encode("utf-8") + b"\n"
    if len(body) > MAX_TOKEN_BYTES or len(body) == 1 or "\n" in text:
        raise ValueError(f"{text[:64]!r} cannot be a token: 1 to {MAX_TOKEN_BYTES - 1} bytes without a newline")
    return encode_varint(len(body)) + body


class _Tokens:
    """Takes tokens off the front of a byte stream and leaves the rest alone."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def next(self) -> str | None:
        """Return the next token if it is whole.

        Raises:
            PeerError: it is too long or malformed.
        """
        try:
            length, start = decode_varint(self.buffer, max_bytes=2)
        except IncompleteError:
            return None
        except ValueError as error:
            raise PeerError(f"the length of a protocol name is not readable: {error}") from error
        if not 1 <= length <= MAX_TOKEN_BYTES:
            raise PeerError(f"a protocol name of {length} bytes was announced, the limit is {MAX_TOKEN_BYTES}")
        if len(self.buffer) < start + length:
            return None
        body = bytes(self.buffer[start : start + length])
        del self.buffer[: start + length]
        if not body.endswith(b"\n"):
            raise PeerError("a protocol name does not end with a newline")
        try:
            return body[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise PeerError("a protocol name is not UTF-8") from error


class Dialing:
    """The side that opened the stream and proposes `protocol`."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._hello = encode_token(HEADER) + encode_token(protocol)
        self._expected = [HEADER, protocol]
        self._tokens = _Tokens()

    def hello(self) -> bytes:
        """Return what is to be sent first; payload may follow at once."""
        return self._hello

    @property
    def done(self) -> bool:
        """Whether the other side has agreed."""
        return not self._expected

    @property
    def leftover(self) -> bytes:
        """Bytes that came after the agreement: payload. Empty before it."""
        return bytes(self._tokens.buffer) if self.done else b""

    def feed(self, data: bytes) -> bool:
        """Take bytes; say whether the protocol is agreed.

        Raises:
            ProtocolRefusedError: the answer is no.
            PeerError: the answer is not one.
        """
        self._tokens.buffer += data
        while self._expected:
            token = self._tokens.next()
            if token is None:
                return False
            if token == _REFUSAL and self._expected == [self.protocol]:
                raise ProtocolRefusedError(f"the other side does not speak {self.protocol}")
            if token != self._expected[0]:
                raise PeerError(f"expected {self._expected[0]!r} as answer, got {token[:64]!r}")
            del self._expected[0]
        return True


class Accepting:
    """The side that was dialled and speaks `protocols`."""

    def __init__(self, protocols: Collection[str]) -> None:
        self._protocols = protocols
        self._tokens = _Tokens()
        self._greeted = False
        self._proposals = 0
        self.protocol: str | None = None
        """What was agreed on; None until then."""

    @property
    def leftover(self) -> bytes:
        """Bytes that came after the agreed proposal: payload. Empty before it."""
        return b"" if self.protocol is None else bytes(self._tokens.buffer)

    def feed(self, data: bytes) -> bytes:
        """Take bytes; give what is to be sent in answer (may be empty).

        Raises:
            PeerError: it is not multistream-select, or more than `MAX_PROPOSALS` were made.
        """
        self._tokens.buffer += data
        answer = bytearray()
        while self.protocol is None:
            token = self._tokens.next()
            if token is None:
                break
            answer += self._answer(token)
        return bytes(answer)

    def _answer(self, token: str) -> bytes:
        if not self._greeted:
            if token != HEADER:
                raise PeerError(f"the stream starts with {token[:64]!r}, not with {HEADER!r}")
            self._greeted = True
            return encode_token(HEADER)
        self._proposals += 1
        if self._proposals > MAX_PROPOSALS:
            raise PeerError(f"more than {MAX_PROPOSALS} protocols were proposed for one stream")
        if token in self._protocols:
            self.protocol = token
            return encode_token(token)
        if token == _LIST:
            # Tokens in a token, the shape that go-multistream and js-libp2p send.
            names = b"".join(encode_token(protocol) for protocol in self._protocols) + b"\n"
            return encode_varint(len(names)) + names
        return encode_token(_REFUSAL)
