"""The internals of pyOpenSSL that `kodo.p2p.net.dtls` touches; a new release that changes one fails here, by name,
and not in the field."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from kodo.p2p.errors import BrokenSessionError, RemotelyClosedError
from kodo.p2p.net.certificate import Certificate, CookieGate
from kodo.p2p.net.dtls import RECORD_OVERHEAD, Dtls

CALLED = {
    SSL.Connection: ["DTLSv1_get_timeout", "DTLSv1_handle_timeout", "DTLSv1_listen", "bio_read", "bio_write"],
    SSL.Context: ["set_cookie_generate_callback", "set_cookie_verify_callback", "set_tlsext_use_srtp"],
}
IN_OPENSSL = ["SSL_write", "SSL_read", "BIO_write", "BIO_read", "SSL_get_error", "ERR_clear_error"]


@pytest.mark.parametrize("owner", CALLED, ids=lambda owner: owner.__name__)
def test_what_is_called_is_there(owner: type) -> None:
    assert [name for name in CALLED[owner] if not callable(getattr(owner, name, None))] == []


@pytest.mark.parametrize("name", IN_OPENSSL)
def test_openssl_is_reached_through_pyopenssl(name: str) -> None:
    assert callable(getattr(SSL._lib, name))  # type: ignore[attr-defined]


def test_a_connection_keeps_its_buffers_where_they_were() -> None:
    connection = SSL.Connection(Certificate.generate().context)
    assert all(hasattr(connection, name) for name in ("_ssl", "_into_ssl", "_from_ssl"))


def pair(cookie: bool = False) -> tuple[Dtls, Dtls]:
    """Shake hands in memory."""
    ours, theirs = Certificate.generate(), Certificate.generate()
    client = Dtls(ours, server=False)
    to_server = client.step()
    connection = None
    if cookie:
        gate = CookieGate(theirs)
        refused, answer = gate.feed(("192.0.2.1", 1), to_server[0])
        assert refused is None
        to_server = client.step(answer)
        connection, _ = gate.feed(("192.0.2.1", 1), to_server[0])
        assert connection is not None
    server = Dtls(theirs, server=True, connection=connection)
    to_client = server.step(None if cookie else to_server[0])
    while not (client.finished and server.finished):
        to_server = [datagram for each in to_client for datagram in client.step(each)]
        to_client = [datagram for each in to_server for datagram in server.step(each)]
        if client.finished and server.finished:
            break
        to_server = []
    assert (client.remote_digest, server.remote_digest) == (theirs.digest, ours.digest)
    return client, server


@pytest.mark.parametrize("cookie", [False, True])
def test_both_sides_prove_their_certificates_and_pass_records(cookie: bool) -> None:
    client, server = pair(cookie)
    for size in (1, 100, 1200, 16000):
        datagram = client.encrypt(bytes(size))
        assert len(datagram) == size + RECORD_OVERHEAD
        assert server.decrypt(datagram) == bytes(size)
        assert client.decrypt(server.encrypt(b"x" * size)) == b"x" * size


def test_several_records_in_one_datagram_are_all_given() -> None:
    client, server = pair()
    assert server.decrypt(client.encrypt(b"a") + client.encrypt(b"b")) == b"a"
    assert server.rest() == b"b"
    assert server.rest() == b""


def test_a_forged_or_repeated_record_is_nothing() -> None:
    client, server = pair()
    datagram = client.encrypt(b"once")
    forged = datagram[:-1] + bytes([datagram[-1] ^ 1])
    assert server.decrypt(forged) == b""
    assert server.decrypt(datagram) == b"once"
    assert server.decrypt(datagram) == b""
    assert server.decrypt(b"\x17\xfe\xfd") == b""
    assert server.decrypt(client.encrypt(b"next")) == b"next"


def test_a_goodbye_is_an_orderly_end() -> None:
    client, server = pair()
    [goodbye] = client.close()
    with pytest.raises(RemotelyClosedError):
        server.decrypt(goodbye)
    with pytest.raises(BrokenSessionError):
        client.encrypt(b"late")
