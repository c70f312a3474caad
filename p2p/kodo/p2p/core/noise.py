"""Who is at the other end: the Noise handshake `Noise_XX_25519_ChaChaPoly_SHA256` as libp2p uses it, without I/O.

Three messages (noiseprotocol.org, revision 34, section 7.5):

    → e
    ← e, ee, s, es      payload: the responder's identity
    → s, se             payload: the initiator's identity

A payload is the protobuf `NoiseHandshakePayload` (libp2p/specs, noise): the libp2p public key, and its signature over
the Noise static key, which binds the two. In WebRTC Direct the handshake only authenticates: the prologue carries
both DTLS fingerprints, so it fails when DTLS was not made between these two, and DTLS goes on doing the encryption.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from kodo.p2p.core.identity import Identity, PeerId, decode_public_key, encode_public_key, verify
from kodo.p2p.core.protobuf import bytes_field, fields
from kodo.p2p.errors import IdentityError, PeerError, UsageError

__all__ = [
    "MAX_NOISE_MESSAGE_BYTES",
    "MAX_NOISE_PAYLOAD_BYTES",
    "NoiseFrames",
    "NoiseXX",
    "frame_noise",
    "read_payload",
    "write_payload",
]

MAX_NOISE_MESSAGE_BYTES = 65535
"""Noise specification, section 3."""
MAX_NOISE_PAYLOAD_BYTES = 4096
"""A key, a signature and extensions: everybody's is far below."""

_PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNED_PREFIX = b"noise-libp2p-static-key:"
_KEY_BYTES = 32
_TAG_BYTES = 16
_IDENTITY_KEY, _IDENTITY_SIG = 1, 2


class Step(enum.Enum):
    """Where a handshake stands, seen from one side."""

    WRITE_E = enum.auto()
    READ_E = enum.auto()
    WRITE_EE_S_ES = enum.auto()
    READ_EE_S_ES = enum.auto()
    WRITE_S_SE = enum.auto()
    READ_S_SE = enum.auto()
    FINISHED = enum.auto()
    FAILED = enum.auto()
    """A message was not valid: secrets may be half mixed, so there is no way on."""


class Action(enum.Enum):
    """What is done to a handshake."""

    WRITE = enum.auto()
    READ = enum.auto()


_TABLE: Mapping[tuple[Step, Action], Step] = {
    (Step.WRITE_E, Action.WRITE): Step.READ_EE_S_ES,
    (Step.READ_EE_S_ES, Action.READ): Step.WRITE_S_SE,
    (Step.WRITE_S_SE, Action.WRITE): Step.FINISHED,
    (Step.READ_E, Action.READ): Step.WRITE_EE_S_ES,
    (Step.WRITE_EE_S_ES, Action.WRITE): Step.READ_S_SE,
    (Step.READ_S_SE, Action.READ): Step.FINISHED,
}


def write_payload(identity: Identity, static_public: bytes) -> bytes:
    """Make the handshake payload that binds a Noise static key (bytes[32]) to `identity`."""
    signature = identity.sign(_SIGNED_PREFIX + static_public)
    key = encode_public_key(identity.peer_id.public_key)
    return bytes_field(_IDENTITY_KEY, key) + bytes_field(_IDENTITY_SIG, signature)


def read_payload(payload: bytes, static_public: bytes) -> PeerId:
    """Read a handshake payload; give who signed that the Noise static key (bytes[32]) is theirs.

    Raises:
        PeerError: it is malformed, over the bound, or its key is not Ed25519.
        IdentityError: the signature does not hold.
    """
    if len(payload) > MAX_NOISE_PAYLOAD_BYTES:
        raise PeerError(f"a Noise payload of {len(payload)} bytes is over the limit of {MAX_NOISE_PAYLOAD_BYTES}")
    key = signature = b""
    try:
        for number, value in fields(payload):
            if isinstance(value, bytes):
                if number == _IDENTITY_KEY:
                    key = value
                elif number == _IDENTITY_SIG:
                    signature = value
        peer_id = decode_public_key(key)
    except ValueError as error:
        raise PeerError(f"a Noise payload is malformed: {error}") from error
    if not verify(peer_id, signature, _SIGNED_PREFIX + static_public):
        raise IdentityError(f"the other side claims to be {peer_id} and cannot prove it: its signature is wrong")
    return peer_id


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Noise specification, section 4.3, with two outputs (bytes[32] each)."""
    secret = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(secret, b"\x01", "sha256")
    return first, hmac.digest(secret, first + b"\x02", "sha256")


class _Symmetric:
    """Chaining key, transcript hash and current cipher (Noise specification, section 5.2)."""

    def __init__(self, prologue: bytes) -> None:
        # The name has exactly 32 bytes, so it is the first hash as it stands.
        self.hash = self.chaining_key = _PROTOCOL_NAME
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, key = _hkdf(self.chaining_key, material)
        self._cipher, self._nonce = ChaCha20Poly1305(key), 0

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(8, "little")
        self._nonce += 1
        return nonce

    def encrypt(self, plaintext: bytes) -> bytes:
        text = plaintext
        if self._cipher is not None:
            text = self._cipher.encrypt(self._next_nonce(), plaintext, self.hash)
        self.mix_hash(text)
        return text

    def decrypt(self, ciphertext: bytes) -> bytes:
        text = ciphertext
        if self._cipher is not None:
            text = self._cipher.decrypt(self._next_nonce(), ciphertext, self.hash)
        self.mix_hash(ciphertext)
        return text


class NoiseXX:
    """One side of the handshake. The caller brings the randomness and carries the messages.

    Args:
        initiator: whether this side speaks first (in WebRTC Direct: the node that listens).
        static_private: X25519 private key, bytes[32]; a fresh one for each handshake will do.
        ephemeral_private: X25519 private key, bytes[32]; fresh random bytes, never used twice.
        prologue: what both sides must agree on beforehand.
        identity: who this side is.
    """

    def __init__(
        self, initiator: bool, static_private: bytes, ephemeral_private: bytes, prologue: bytes, identity: Identity
    ) -> None:
        self._initiator = initiator
        self._identity = identity
        self._static = X25519PrivateKey.from_private_bytes(static_private)
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
        self._symmetric = _Symmetric(prologue)
        self._remote_ephemeral = b""
        self._remote_static = b""
        self._remote_peer: PeerId | None = None
        self._step = Step.WRITE_E if initiator else Step.READ_E

    @property
    def finished(self) -> bool:
        """Whether all three messages were made and read: only then is `remote_peer` proven to be there now."""
        return self._step is Step.FINISHED

    @property
    def wants_write(self) -> bool:
        """Whether the next message is ours to write."""
        return (self._step, Action.WRITE) in _TABLE

    @property
    def remote_peer(self) -> PeerId | None:
        """Who the other side is; None until its identity has been read."""
        return self._remote_peer

    @property
    def remote_ephemeral(self) -> bytes:
        """The other side's ephemeral public key, bytes[32]; empty until it has been read."""
        return self._remote_ephemeral

    def write_message(self) -> bytes:
        """Make the next message, without a length prefix.

        Raises:
            UsageError: it is not this side's turn. Nothing has changed.
            PeerError: the other side's key makes no secret.
        """
        step, following = self._step, self._follow(Action.WRITE)
        self._step = Step.FAILED
        symmetric = self._symmetric
        message = b""
        if step in (Step.WRITE_E, Step.WRITE_EE_S_ES):
            message = _public(self._ephemeral)
            symmetric.mix_hash(message)
        if step is Step.WRITE_E:
            # Nothing is encrypted yet, so nothing is said yet.
            message += symmetric.encrypt(b"")
        else:
            if step is Step.WRITE_EE_S_ES:
                self._mix(self._ephemeral, self._remote_ephemeral)
            message += symmetric.encrypt(_public(self._static))
            self._mix(self._static, self._remote_ephemeral)
            message += symmetric.encrypt(write_payload(self._identity, _public(self._static)))
        self._step = following
        return message

    def read_message(self, data: bytes) -> None:
        """Take the other side's next message, without its length prefix.

        Raises:
            UsageError: it is not the other side's turn. Nothing has changed.
            PeerError: the message is malformed, or the two sides do not agree on prologue and keys.
            IdentityError: the other side cannot prove its identity. After this and PeerError the handshake is over.
        """
        step, following = self._step, self._follow(Action.READ)
        self._step = Step.FAILED
        if len(data) > MAX_NOISE_MESSAGE_BYTES:
            raise PeerError(f"a Noise message of {len(data)} bytes is over the limit of {MAX_NOISE_MESSAGE_BYTES}")
        rest = data
        if step in (Step.READ_E, Step.READ_EE_S_ES):
            self._remote_ephemeral, rest = self._cut(rest, _KEY_BYTES)
            self._symmetric.mix_hash(self._remote_ephemeral)
        if step is Step.READ_E:
            # A payload here is not authenticated by anything; libp2p leaves it empty and unread.
            self._decrypt(rest)
        else:
            if step is Step.READ_EE_S_ES:
                self._mix(self._ephemeral, self._remote_ephemeral)
            sealed, rest = self._cut(rest, _KEY_BYTES + _TAG_BYTES)
            self._remote_static = self._decrypt(sealed)
            self._mix(self._ephemeral, self._remote_static)
            self._remote_peer = read_payload(self._decrypt(rest), self._remote_static)
        self._step = following

    def split(self) -> tuple[bytes, bytes]:
        """Return the transport keys (bytes[32] each): ours to send with, ours to receive with.

        WebRTC Direct has no use for them; they prove that both sides reached the same secret.

        Raises:
            UsageError: the handshake is not finished.
        """
        if not self.finished:
            raise UsageError("a Noise handshake has no transport keys before it is finished")
        first, second = _hkdf(self._symmetric.chaining_key, b"")
        return (first, second) if self._initiator else (second, first)

    @property
    def handshake_hash(self) -> bytes:
        """The transcript's hash, bytes[32]: the same on both sides after the last message."""
        return self._symmetric.hash

    def _follow(self, action: Action) -> Step:
        following = _TABLE.get((self._step, action))
        if following is None:
            raise UsageError(f"a Noise handshake at {self._step.name} cannot {action.name.lower()}")
        return following

    def _mix(self, private: X25519PrivateKey, public: bytes) -> None:
        try:
            secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            # A point of small order: the secret would be all zeros.
            raise PeerError("the other side's Noise key gives no shared secret") from error
        self._symmetric.mix_key(secret)

    def _decrypt(self, ciphertext: bytes) -> bytes:
        try:
            return self._symmetric.decrypt(ciphertext)
        except InvalidTag as error:
            raise PeerError("a Noise message does not decrypt: other keys, fingerprints or prologue") from error

    @staticmethod
    def _cut(data: bytes, length: int) -> tuple[bytes, bytes]:
        if len(data) < length:
            raise PeerError("a Noise message is cut off")
        return data[:length], data[length:]


def frame_noise(message: bytes) -> bytes:
    """Put the 2-byte big-endian length before a Noise message (libp2p/specs, noise, "Wire Format").

    Raises:
        ValueError: it is longer than 65,535 bytes.
    """
    if len(message) > MAX_NOISE_MESSAGE_BYTES:
        raise ValueError(f"a Noise message of {len(message)} bytes is over the limit of {MAX_NOISE_MESSAGE_BYTES}")
    return len(message).to_bytes(2, "big") + message


class NoiseFrames:
    """Cuts a byte stream into Noise messages. Keeps at most 65,536 bytes beside what one call brings."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; give the Noise messages that are now whole, without their length."""
        self._buffer += data
        messages: list[bytes] = []
        pos = 0
        while len(self._buffer) - pos >= 2:
            start = pos + 2
            end = start + int.from_bytes(self._buffer[pos:start], "big")
            if end > len(self._buffer):
                break
            messages.append(bytes(self._buffer[start:end]))
            pos = end
        del self._buffer[:pos]
        return messages
