"""Who is at the other end of a link: Noise XX on channel 0, in libp2p's framing.

Both certificates are in the prologue, so what is proved holds for this DTLS connection and no other. Source:
libp2p/specs webrtc/webrtc-direct.md.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kodo.p2p.core import framing, noise
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import PeerError

__all__ = ["Authentication"]

_SHA256_MULTIHASH = b"\x12\x20"
_REMEMBERED = 4096
"""Ephemeral keys that are remembered; more than there are handshakes within one round trip."""
_ours: dict[bytes, None] = {}
"""The public ephemeral keys of this process's latest handshakes, the oldest first."""


class Authentication:
    """One handshake. The DTLS server begins it, so that the client's first stream needs no further round trip.

    Args:
        identity: what this side proves.
        server: whether this side is the DTLS server.
        local_digest, remote_digest: SHA-256 of the two DTLS certificates, `bytes[32]`.
    """

    def __init__(self, identity: Identity, *, server: bool, local_digest: bytes, remote_digest: bytes) -> None:
        local, remote = _SHA256_MULTIHASH + local_digest, _SHA256_MULTIHASH + remote_digest
        self._server = server
        ephemeral = X25519PrivateKey.generate()
        _ours[ephemeral.public_key().public_bytes_raw()] = None
        if len(_ours) > _REMEMBERED:
            del _ours[next(iter(_ours))]
        self._noise = noise.NoiseXX(
            initiator=server,
            static_private=X25519PrivateKey.generate().private_bytes_raw(),
            ephemeral_private=ephemeral.private_bytes_raw(),
            prologue=b"libp2p-webrtc-noise:" + (remote + local if server else local + remote),
            identity=identity,
        )
        self._messages, self._frames = framing.MessageReader(), noise.NoiseFrames()

    def begin(self) -> list[bytes]:
        """Return what is to be sent first; nothing where the other side begins."""
        return [self._write()] if self._server else []

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the channel; give the messages to send. Not called after `proved` gave somebody.

        Raises:
            PeerError: the other side broke the handshake off, or its rules.
        """
        answers: list[bytes] = []
        for flag, payload in self._messages.feed(data):
            if flag is not None and flag is not framing.Flag.FIN:
                raise PeerError("the other side broke off the handshake")
            for message in self._frames.feed(payload):
                self._noise.read_message(message)
                if self._noise.finished:
                    return answers
                answers.append(self._write())
        return answers

    def _write(self) -> bytes:
        return framing.encode_message(message=noise.frame_noise(self._noise.write_message()))

    def proved(self) -> PeerId | None:
        """Return the peer id that the other side has proved; None until the handshake is over.

        Raises:
            PeerError: it is over and proved nobody.
        """
        if not self._noise.finished:
            return None
        if self._noise.remote_peer is None:
            raise PeerError("the handshake did not prove who the other side is")
        return self._noise.remote_peer

    @property
    def same_process(self) -> bool:
        """Whether whoever was proved is in this process, too, whatever addresses lie between."""
        return self._noise.finished and self._noise.remote_ephemeral in _ours
