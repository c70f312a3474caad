"""Who a peer is: an Ed25519 key, and the peer id that is made of it (libp2p/specs, peer-ids)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kodo.p2p.core.multibase import base58_decode, base58_encode

__all__ = ["Identity", "PeerId", "decode_public_key", "encode_public_key", "verify"]

_KEY_BYTES = 32
_PUBLIC_KEY_HEAD = bytes.fromhex("08011220")
"""The protobuf `PublicKey{Type = Ed25519 (1), Data = 32 bytes}`, whose encoding the specification fixes."""
_MULTIHASH_HEAD = bytes.fromhex("0024")
"""Multihash `identity` of 36 bytes: keys of up to 42 bytes stand in the peer id themselves, unhashed."""
_PEER_ID_CHARACTERS = 52


def encode_public_key(public_key: bytes) -> bytes:
    """Wrap an Ed25519 public key (bytes[32]) in libp2p's `PublicKey` protobuf (bytes[36]).

    Raises:
        ValueError: it has not 32 bytes.
    """
    if len(public_key) != _KEY_BYTES:
        raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    return _PUBLIC_KEY_HEAD + public_key


def decode_public_key(data: bytes) -> PeerId:
    """Read libp2p's `PublicKey` protobuf.

    Raises:
        ValueError: it is not an Ed25519 key in its one specified encoding.
    """
    if len(data) != len(_PUBLIC_KEY_HEAD) + _KEY_BYTES or not data.startswith(_PUBLIC_KEY_HEAD):
        raise ValueError("not the protobuf of an Ed25519 public key; other key types are not supported")
    return PeerId(bytes(data[len(_PUBLIC_KEY_HEAD) :]))


@dataclass(frozen=True, slots=True, order=True, repr=False)
class PeerId:
    """The name of a peer, which is its public key.

    Attributes:
        public_key: Ed25519, bytes[32].
    """

    public_key: bytes

    def __post_init__(self) -> None:
        if len(self.public_key) != _KEY_BYTES:
            raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(self.public_key)}")

    @classmethod
    def from_public_key(cls, public_key: bytes) -> PeerId:
        """Make the id of an Ed25519 public key (bytes[32]).

        Raises:
            ValueError: it has not 32 bytes.
        """
        return cls(bytes(public_key))

    @classmethod
    def from_bytes(cls, data: bytes) -> PeerId:
        """Read the multihash form (bytes[38]).

        Raises:
            ValueError: it is not the identity multihash of an Ed25519 key.
        """
        if not data.startswith(_MULTIHASH_HEAD):
            raise ValueError("not the peer id of an Ed25519 key; other key types are not supported")
        return decode_public_key(data[len(_MULTIHASH_HEAD) :])

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read the text form, `12D3Koo…`.

        Raises:
            ValueError: it is not the base58btc peer id of an Ed25519 key.
        """
        if len(text) != _PEER_ID_CHARACTERS or not text.startswith("12D3Koo"):
            hint = "; the CID form is not supported" if text.startswith(("b", "k", "z")) else ""
            raise ValueError(f"{text[:64]!r} is not a peer id: expected 52 characters, 12D3Koo…{hint}")
        return cls.from_bytes(base58_decode(text))

    def to_bytes(self) -> bytes:
        """Return the multihash form (bytes[38])."""
        return _MULTIHASH_HEAD + _PUBLIC_KEY_HEAD + self.public_key

    def __str__(self) -> str:
        return base58_encode(self.to_bytes())

    def __repr__(self) -> str:
        return f"PeerId({str(self)!r})"


class Identity:
    """A key pair: what a peer proves its peer id with."""

    __slots__ = ("_key", "_peer_id", "_seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _KEY_BYTES:
            raise ValueError(f"the seed of an Ed25519 key has 32 bytes, not {len(seed)}")
        self._seed = bytes(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(self._seed)
        self._peer_id = PeerId(self._key.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """Make the key pair of a secret seed (bytes[32], RFC 8032 section 5.1.5).

        Raises:
            ValueError: it has not 32 bytes.
        """
        return cls(seed)

    @property
    def seed(self) -> bytes:
        """The secret, bytes[32]: whoever has it is this peer."""
        return self._seed

    @property
    def peer_id(self) -> PeerId:
        """The public side."""
        return self._peer_id

    def sign(self, data: bytes) -> bytes:
        """Sign `data`: Ed25519, bytes[64]."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        # Never the seed: reprs end up in logs and tracebacks.
        return f"Identity({str(self._peer_id)!r})"


def verify(peer_id: PeerId, signature: bytes, data: bytes) -> bool:
    """Return whether `signature` over `data` was made by the key of `peer_id`. Never raises on hostile bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(peer_id.public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
