"""DTLS 1.2 over datagrams that somebody else carries; the only module that touches the internals of pyOpenSSL.

The handshake runs through pyOpenSSL's own methods. After it, records go straight through OpenSSL's `SSL_write`,
`SSL_read` and memory BIOs with buffers that are kept: a third of the time per packet. `tests/contract` fails when
a new release changes what is touched. Source: RFC 6347, RFC 8827.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from kodo.p2p.errors import BrokenSessionError, PeerError, RemotelyClosedError
from kodo.p2p.net.certificate import Certificate

__all__ = ["RECORD_OVERHEAD", "Dtls", "record_number"]

RECORD_OVERHEAD = 37
"""Bytes that a record adds to its payload: header 13, nonce 8, tag 16 (RFC 6347, 4.1; RFC 5288)."""
_RECORD_HEADER_BYTES = 13
_FLIGHT_BYTES = 1200
"""Most bytes of a handshake flight in one datagram."""
_BUFFER_BYTES = 1 << 16

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
# Shared by all connections: each call empties it before it returns.
_buffer: Any = _ffi.new("unsigned char[]", _BUFFER_BYTES)
_view: Any = _ffi.buffer(_buffer, _BUFFER_BYTES)
_ssl_write, _ssl_read = _lib.SSL_write, _lib.SSL_read
_bio_write, _bio_read = _lib.BIO_write, _lib.BIO_read


def record_number(datagram: bytes) -> bytes:
    """Return epoch and sequence number of the one record in a datagram, bytes[8]; `b""` where it is not one alone.

    They compare as they count. Of several records nobody could say which of them was authentic.
    """
    if len(datagram) == _RECORD_HEADER_BYTES + int.from_bytes(datagram[11:13], "big"):
        return datagram[3:11]
    return b""


class Dtls:
    """One connection.

    Args:
        certificate: what this side shows.
        server: which side this is.
        connection: one that has passed `CookieGate`.
    """

    def __init__(self, certificate: Certificate, *, server: bool, connection: SSL.Connection | None = None) -> None:
        if connection is None:
            connection = SSL.Connection(certificate.context)
            if server:
                connection.set_accept_state()
            else:
                connection.set_connect_state()
        self._connection = connection
        raw: Any = connection
        self._ssl, self._into, self._from = raw._ssl, raw._into_ssl, raw._from_ssl
        self.finished = False
        self.remote_digest = b""
        """SHA-256 of the other side's certificate, `bytes[32]`; known when the handshake is finished."""

    # handshake

    def step(self, datagram: bytes | None = None) -> list[bytes]:
        """Take a datagram of the handshake (None begins it); give the datagrams to send.

        Raises:
            BrokenSessionError: the handshake failed.
            PeerError: the other side showed no certificate.
        """
        try:
            if datagram is not None:
                self._connection.bio_write(datagram)
            self._connection.do_handshake()
        except SSL.WantReadError:
            return self._flight()
        except SSL.Error as error:
            raise BrokenSessionError("the DTLS handshake failed") from error
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise PeerError("the other side showed no DTLS certificate")
        self.remote_digest = certificate.fingerprint(hashes.SHA256())
        self.finished = True
        return self._flight()

    def timeout(self) -> float | None:
        """Return the seconds until `handle_timeout` is due; None when nothing waits to be repeated."""
        return None if self.finished else self._connection.DTLSv1_get_timeout()

    def handle_timeout(self) -> list[bytes]:
        """Return the flight that is to be repeated.

        Raises:
            BrokenSessionError: it was repeated often enough.
        """
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise BrokenSessionError("the DTLS handshake was not answered") from error
        return self._flight()

    def _flight(self) -> list[bytes]:
        """Take what OpenSSL wrote, whole records in datagrams of a size that passes everywhere."""
        data = b""
        while (count := _bio_read(self._from, _buffer, _BUFFER_BYTES)) > 0:
            data += _view[:count]
        datagrams: list[bytes] = []
        begin = end = 0
        while end + _RECORD_HEADER_BYTES <= len(data):
            following = end + _RECORD_HEADER_BYTES + int.from_bytes(data[end + 11 : end + 13], "big")
            if following - begin > _FLIGHT_BYTES and end > begin:
                datagrams.append(data[begin:end])
                begin = end
            end = following
        return [*datagrams, data[begin:]] if begin < len(data) else datagrams

    # records

    def decrypt(self, datagram: bytes) -> bytes:
        """Return the payload of a datagram; `b""` when there is none (a forged, repeated or handshake record).

        Raises:
            RemotelyClosedError: the other side has closed.
        """
        _bio_write(self._into, datagram, len(datagram))
        count = _ssl_read(self._ssl, _buffer, _BUFFER_BYTES)
        if count > 0:
            payload: bytes = _view[:count]
            return payload
        if _lib.SSL_get_error(self._ssl, count) == _lib.SSL_ERROR_ZERO_RETURN:
            raise RemotelyClosedError("the other side closed the session")
        _lib.ERR_clear_error()
        return b""

    def rest(self) -> bytes:
        """Return the next payload of the same datagram, `b""` at its end: a datagram may hold several records."""
        count = _ssl_read(self._ssl, _buffer, _BUFFER_BYTES)
        if count > 0:
            payload: bytes = _view[:count]
            return payload
        return b""

    def unsent(self) -> list[bytes]:
        """Return what OpenSSL wants sent by itself, after a datagram without payload: a last flight that was lost."""
        return self._flight()

    def encrypt(self, payload: bytes) -> bytes:
        """Return the datagram for a payload.

        Raises:
            BrokenSessionError: the connection is shut down.
        """
        if _ssl_write(self._ssl, payload, len(payload)) <= 0:
            _lib.ERR_clear_error()
            raise BrokenSessionError("nothing can be sent any more: DTLS is shut down")
        datagram: bytes = _view[: _bio_read(self._from, _buffer, _BUFFER_BYTES)]
        return datagram

    def close(self) -> list[bytes]:
        """Return the goodbye."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return []
        return self._flight()
