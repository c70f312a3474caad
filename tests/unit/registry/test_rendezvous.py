import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.errors import CallError, DeadlineError, IdentityError, PeerError
from kodo.registry.records.signed import pack, sign, unpack
from kodo.registry.rendezvous import (
    CHALLENGE_BYTES,
    MAX_SEALED_BYTES,
    Guest,
    Lobby,
    LobbyBounds,
    Presence,
    check_presence,
    check_sealed,
    read_answer,
)
from tests.support.records import identity

CHALLENGE = bytes(range(CHALLENGE_BYTES))
SEALED = pack({"v": 1, "enc": bytes(32), "ct": bytes(64)})
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


@pytest.mark.parametrize(
    "message",
    [
        {"v": 1, "enc": bytes(31), "ct": bytes(64)},
        {"v": 1, "enc": bytes(32), "ct": bytes(16)},
        {"v": 2, "enc": bytes(32), "ct": bytes(64)},
        {"v": 1, "enc": bytes(32), "ct": "text in the clear, long enough"},
        {"v": 1, "enc": bytes(32), "ct": bytes(64), "more": 1},
        {"sdp": "v=0"},
        [1, 2, 3],
    ],
)
def test_what_is_not_sealed_is_refused(message):
    with pytest.raises(PeerError):
        check_sealed(pack(message))


def test_a_sealed_message_has_a_bound():
    room = MAX_SEALED_BYTES - len(pack({"v": 1, "enc": bytes(32), "ct": bytes(1000)})) + 1000
    assert check_sealed(pack({"v": 1, "enc": bytes(32), "ct": bytes(room)}))
    with pytest.raises(PeerError):
        check_sealed(pack({"v": 1, "enc": bytes(32), "ct": bytes(room + 1)}))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_refused(data):
    try:
        number, answer = read_answer(data)
    except PeerError:
        return
    assert isinstance(number, int)
    assert answer is None or check_sealed(answer) == answer


class Node:
    """A guest that keeps what it is sent."""

    def __init__(self, lobby):
        self.frames = asyncio.Queue()
        self.left = asyncio.Event()
        self.guest = Guest(str(NODE), self.frames.put, self.left.set)
        lobby.enter(self.guest)

    async def number(self):
        return unpack(await self.frames.get())["id"]


async def test_an_offer_reaches_the_node_and_its_answer_the_caller():
    lobby = Lobby()
    node = Node(lobby)
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    frame = unpack(await node.frames.get())
    assert frame["offer"] == SEALED
    other = pack({"v": 1, "enc": bytes(32), "ct": bytes(99)})
    lobby.answered(node.guest, pack({"id": frame["id"], "answer": other}))
    assert await calling == other


async def test_answers_find_their_own_offers_in_any_order():
    lobby = Lobby()
    node = Node(lobby)
    calls = [asyncio.ensure_future(lobby.offer(NODE, SEALED, f"192.0.2.{each}")) for each in range(5)]
    numbers = [await node.number() for _ in calls]
    answers = {number: pack({"v": 1, "enc": bytes(32), "ct": bytes(20 + number)}) for number in numbers}
    for number in reversed(numbers):
        lobby.answered(node.guest, pack({"id": number, "answer": answers[number]}))
    assert await asyncio.gather(*calls) == [answers[number] for number in numbers]


async def test_who_is_not_here_is_404():
    with pytest.raises(CallError) as caught:
        await Lobby().offer(NODE, SEALED, "192.0.2.1")
    assert (caught.value.code, caught.value.reason) == (404, "not-here")


async def test_a_node_may_refuse():
    lobby = Lobby()
    node = Node(lobby)
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    lobby.answered(node.guest, pack({"id": await node.number(), "refused": True}))
    with pytest.raises(CallError) as caught:
        await calling
    assert (caught.value.code, caught.value.reason) == (403, "refused")


async def test_a_node_that_leaves_ends_the_offers_to_it():
    lobby = Lobby()
    node = Node(lobby)
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    await node.number()
    lobby.exit(node.guest)
    with pytest.raises(CallError) as caught:
        await calling
    assert (caught.value.code, caught.value.reason) == (502, "gone")
    assert lobby.waiting == 0


async def test_a_second_socket_of_a_node_takes_the_place_of_the_first():
    lobby = Lobby()
    first, second = Node(lobby), Node(lobby)
    assert first.left.is_set()
    assert not second.left.is_set()
    lobby.exit(first.guest)
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    lobby.answered(second.guest, pack({"id": await second.number(), "answer": SEALED}))
    assert await calling == SEALED


async def test_an_answer_to_no_offer_or_a_second_one_is_dropped():
    lobby = Lobby()
    node = Node(lobby)
    lobby.answered(node.guest, pack({"id": 77, "answer": SEALED}))
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    number = await node.number()
    lobby.answered(node.guest, pack({"id": number, "answer": SEALED}))
    lobby.answered(node.guest, pack({"id": number, "refused": True}))
    assert await calling == SEALED


async def test_one_node_cannot_answer_for_another():
    lobby = Lobby()
    node = Node(lobby)
    stranger = Guest(str(identity(2).peer_id), asyncio.Queue().put, lambda: None)
    lobby.enter(stranger)
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    number = await node.number()
    lobby.answered(stranger, pack({"id": number, "refused": True}))
    lobby.answered(node.guest, pack({"id": number, "answer": SEALED}))
    assert await calling == SEALED


async def test_silence_ends():
    lobby = Lobby(LobbyBounds(answer_s=0.0))
    Node(lobby)
    with pytest.raises(DeadlineError):
        await lobby.offer(NODE, SEALED, "192.0.2.1")


@pytest.mark.parametrize("bounds", [LobbyBounds(offers=2), LobbyBounds(calls=2), LobbyBounds(in_all=2)])
async def test_offers_under_way_are_bounded_and_room_comes_back(bounds):
    lobby = Lobby(bounds)
    node = Node(lobby)
    calls = [asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1")) for _ in range(2)]
    numbers = [await node.number() for _ in calls]
    with pytest.raises(CallError) as caught:
        await lobby.offer(NODE, SEALED, "192.0.2.1")
    assert (caught.value.code, caught.value.reason) == (429, "too-often")
    for number in numbers:
        lobby.answered(node.guest, pack({"id": number, "answer": SEALED}))
    await asyncio.gather(*calls)
    again = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    lobby.answered(node.guest, pack({"id": await node.number(), "answer": SEALED}))
    assert await again == SEALED


async def test_a_caller_that_goes_away_frees_its_place():
    lobby = Lobby(LobbyBounds(calls=1))
    node = Node(lobby)
    calling = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    await node.number()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    assert not node.guest.offers
    again = asyncio.ensure_future(lobby.offer(NODE, SEALED, "192.0.2.1"))
    lobby.answered(node.guest, pack({"id": await node.number(), "answer": SEALED}))
    assert await again == SEALED


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


async def test_the_lobby_is_bounded():
    lobby = Lobby(LobbyBounds(nodes=1))
    Node(lobby)
    with pytest.raises(CallError) as caught:
        lobby.enter(Guest(str(identity(2).peer_id), asyncio.Queue().put, lambda: None))
    assert caught.value.code == 503
