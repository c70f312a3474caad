import pytest

from kodo.p2p.errors import CallError, IdentityError, PeerError
from kodo.registry.records.signed import pack, sign, unpack
from kodo.registry.rendezvous import CHALLENGE_BYTES, Guest, Lobby, LobbyBounds, Presence, check_presence
from tests.support.records import identity

CHALLENGE = bytes(range(CHALLENGE_BYTES))
NODE = identity(1).peer_id


def proof(of=None, **fields):
    of = of or identity(1)
    given = {"peer_id": str(of.peer_id), "host": "registry.example:8360", "challenge": CHALLENGE}
    return sign(Presence(**{**given, **fields}), of)


def test_a_proof_names_who_gave_it():
    assert check_presence(proof(), "Registry.Example:8360", CHALLENGE) == str(NODE)


@pytest.mark.parametrize(
    "signed",
    [proof(host="other.example:8360"), proof(challenge=bytes(32)), b"", b"\xc0", proof()[:-1]],
    ids=["another registry", "another challenge", "nothing", "nil", "cut"],
)
def test_a_proof_for_something_else_is_refused(signed):
    with pytest.raises(PeerError):
        check_presence(signed, "registry.example:8360", CHALLENGE)


def test_a_proof_by_another_key_is_refused():
    envelope = unpack(proof())
    forged = pack({**envelope, "signature": identity(2).sign(Presence.DOMAIN + envelope["payload"])})
    with pytest.raises(IdentityError):
        check_presence(forged, "registry.example:8360", CHALLENGE)


def guest(number=1):
    left = []
    return Guest(str(identity(number).peer_id), lambda: left.append(number)), left


def test_a_second_socket_of_a_node_takes_the_place_of_the_first():
    lobby = Lobby()
    (first, first_left), (second, second_left), (other, other_left) = guest(), guest(), guest(2)
    for each in (other, first, second):
        lobby.enter(each)
    assert (first_left, second_left, other_left) == ([1], [], [])
    lobby.exit(first)
    assert lobby.waiting == 2
    lobby.exit(second)
    lobby.exit(second)
    assert lobby.waiting == 1


def test_sockets_of_one_source_are_bounded():
    lobby = Lobby(LobbyBounds(sockets=2))
    for _ in range(2):
        lobby.arrive("192.0.2.1")
    with pytest.raises(CallError) as caught:
        lobby.arrive("192.0.2.1")
    assert caught.value.code == 429
    lobby.arrive("192.0.2.2")
    lobby.depart("192.0.2.1")
    lobby.arrive("192.0.2.1")


def test_the_lobby_is_bounded():
    lobby = Lobby(LobbyBounds(nodes=1))
    lobby.enter(guest()[0])
    with pytest.raises(CallError) as caught:
        lobby.enter(guest(2)[0])
    assert caught.value.code == 503
    lobby.enter(guest()[0])
