"""DTLS certificates (P-256) and the cookies that a listener may ask for."""

from __future__ import annotations

import datetime
import hmac
import os
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from kodo.p2p.errors import UsageError

__all__ = ["Certificate", "CookieGate"]

_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
)
"""What WebRTC stacks offer (RFC 8827, 6.5)."""
_OP_NO_TICKET: Any = SSL.OP_NO_TICKET
_OP_COOKIE_EXCHANGE: Any = SSL.OP_COOKIE_EXCHANGE


class Certificate:
    """A DTLS certificate (P-256) that outlives the process, so that a node's certhash, its address, stays."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.digest = certificate.fingerprint(hashes.SHA256())
        """SHA-256 of the certificate, `bytes[32]`."""
        self.context = self._make_context()

    @classmethod
    def generate(cls) -> Certificate:
        """Make a new one, valid for 100 years; who holds the peer key says whom it stands for."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, os.urandom(8).hex())])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=36500))
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def from_pem(cls, data: bytes) -> Certificate:
        """Read what `to_pem` wrote.

        Raises:
            UsageError: when it is not a P-256 key and its certificate.
        """
        try:
            key = serialization.load_pem_private_key(data, None)
            certificate = x509.load_pem_x509_certificate(data)
        except ValueError as error:
            raise UsageError(f"not a DTLS key and certificate: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise UsageError("the DTLS key and certificate do not belong together")
        return cls(key, certificate)

    def to_pem(self) -> bytes:
        """Return the private key and the certificate as PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + self._certificate.public_bytes(serialization.Encoding.PEM)

    def _make_context(self) -> SSL.Context:
        # One context for all links: 20 KiB less a session than one each.
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_options(_OP_NO_TICKET)
        # Record buffers go back between records: 11 KiB less for each session that is idle.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # Nobody resumes a session; kept ones would outlive their connections.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # A peer must show a certificate; whom it stands for is for the certhash and Noise to say.
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        context.set_cipher_list(_CIPHERS)
        # Browsers offer SRTP with every DTLS handshake of theirs; it is agreed to and never used.
        context.set_tlsext_use_srtp(b"SRTP_AES128_CM_SHA1_80")
        return context


class CookieGate:
    """Asks a source to echo a cookie before anything is kept for it (RFC 6347, 4.2.1)."""

    def __init__(self, certificate: Certificate) -> None:
        self._secret = os.urandom(32)
        self._source = b""
        self._context = certificate._make_context()
        self._context.set_options(_OP_COOKIE_EXCHANGE)
        self._context.set_cookie_generate_callback(self._cookie)
        self._context.set_cookie_verify_callback(
            lambda connection, cookie: hmac.compare_digest(cookie, self._cookie(connection))
        )

    def _cookie(self, connection: SSL.Connection) -> bytes:
        return hmac.digest(self._secret, self._source, "sha256")

    def feed(self, source: tuple[str | int, ...], datagram: bytes) -> tuple[SSL.Connection | None, bytes]:
        """Take a ClientHello. Gives the connection to go on with, or None and the datagram to answer."""
        self._source = repr(source).encode()
        connection = SSL.Connection(self._context)
        connection.set_accept_state()
        try:
            connection.bio_write(datagram)
            connection.DTLSv1_listen()
        except SSL.Error:
            try:
                return None, connection.bio_read(1500)
            except SSL.Error:
                return None, b""
        return connection, b""
