"""A handshake tells whether both of its ends are in this process, by what no address can claim."""

from __future__ import annotations

import pytest

from kodo.p2p.core.identity import Identity
from kodo.p2p.net import authentication
from kodo.p2p.net.authentication import Authentication
from tests.support.peers import CLIENT, SERVER

SERVERS, CLIENTS = b"s" * 32, b"c" * 32


def ends(client: Identity = CLIENT) -> tuple[Authentication, Authentication]:
    """Make the listener's end of a handshake and the dialer's."""
    return (
        Authentication(SERVER, server=True, local_digest=SERVERS, remote_digest=CLIENTS),
        Authentication(client, server=False, local_digest=CLIENTS, remote_digest=SERVERS),
    )


def shake(listener: Authentication, dialer: Authentication) -> tuple[bool, bool]:
    """Carry the messages; return what each end says once it has proved the other."""
    [first] = listener.begin()
    [second] = dialer.feed(first)
    assert not listener.same_process, "nobody is proved yet"
    [third] = listener.feed(second)
    # The listener is asked now, before the dialer is through.
    assert listener.proved() is not None
    at_listener = listener.same_process
    assert dialer.proved() is None
    assert not dialer.same_process
    dialer.feed(third)
    assert dialer.proved() == SERVER.peer_id
    return at_listener, dialer.same_process


@pytest.mark.parametrize("client", [CLIENT, SERVER], ids=["another key", "the same key"])
def test_both_ends_know_that_they_are_in_one_process(client: Identity) -> None:
    assert shake(*ends(client)) == (True, True)


@pytest.mark.parametrize("client", [CLIENT, SERVER], ids=["another key", "the same key"])
def test_both_ends_know_that_they_are_not(client: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, dialer = ends(client)
    monkeypatch.setattr(authentication, "_ours", {})  # as another process has it, which has made neither
    assert shake(listener, dialer) == (False, False)


def test_little_is_remembered_of_many_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_ours", {})
    monkeypatch.setattr(authentication, "_REMEMBERED", 4)
    oldest = ends()
    for _ in range(10):
        newest = ends()
    assert len(authentication._ours) == 4
    assert (shake(*oldest), shake(*newest)) == ((False, False), (True, True))
