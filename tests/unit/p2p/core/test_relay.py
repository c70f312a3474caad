"""A relay: whom it serves, and what those get who would use it for harm."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.relay import (
    AMPLIFICATION,
    NONCE_SECONDS,
    STAY_SECONDS,
    UNPROVED_SECONDS,
    Relay,
    RelayBounds,
    Stream,
)
from kodo.p2p.errors import CapacityError


class At(NamedTuple):
    host: str
    port: int


NODE, OTHER_NODE = (Identity.from_seed(bytes([each]) * 32).peer_id for each in (1, 2))
AT_NODE, AT_OTHER, DIALLER, VICTIM = (
    At("192.0.2.1", 1),
    At("192.0.2.2", 2),
    At("198.51.100.1", 3),
    At("203.0.113.9", 53),
)
ELSEWHERE = At("192.0.2.7", 1)
TOKEN, OTHER_TOKEN = "t" * 32, "o" * 32
HELLO, RECORD = b"\x16" + bytes(199), b"\x17" + bytes(999)
FIRST = relay_wire.FIRST_CHANNEL


def ufrag_to(peer: PeerId, number: int = 0) -> str:
    return f"{stun.UFRAG_PREFIXES[1]}{number:032x}/{relay_wire.tag_of(peer)}"


def check_to(peer: PeerId, number: int = 0) -> bytes:
    ufrag = ufrag_to(peer, number)
    return stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)


class Scene:
    """A relay, to which one node is attached."""

    def __init__(self, **bounds: float | None) -> None:
        self.now = 1000.0
        self.relay = Relay(bytes(32), RelayBounds(**bounds), self.now)  # type: ignore[arg-type]
        self.sent: Counter[At] = Counter()
        self.numbers: Counter[str] = Counter()
        self.last_channel = 0
        """Of the check that the node heard last."""
        self.relay.admit(NODE, TOKEN, self.now)
        self.attach(NODE, TOKEN, AT_NODE)

    def give(self, source: At, *datagrams: bytes) -> dict[At, list[bytes]]:
        """Have the relay receive a batch; return what it sends because of it."""
        for data in datagrams:
            self.relay.received(data, source, self.now)
        sent: dict[At, list[bytes]] = {}
        for to, pieces in self.relay.take(self.now):
            assert isinstance(to, At)
            going = [data for piece in pieces for data in piece.datagrams()]
            sent[to] = going
            self.sent[to] += sum(map(len, going))
            if to == AT_NODE and (heard := relay_wire.read_frame(going[-1]))[0] == relay_wire.CHECK_CHANNEL:
                self.last_channel = relay_wire.read_check(heard[1], TOKEN).channel
        return sent

    def ask(self, peer: PeerId, token: str, source: At, nonce: bytes = b"") -> bytes:
        """Return a request to attach."""
        self.numbers[token] += 1
        return relay_wire.attach_request(relay_wire.tag_of(peer), token, self.numbers[token], nonce)

    def attach(self, peer: PeerId, token: str, source: At) -> bytes:
        """Attach a node as it does; return the request that the relay has taken."""
        [answer] = self.give(source, self.ask(peer, token, source))[source]
        request = self.ask(peer, token, source, relay_wire.read_attach_answer(answer, token).nonce)
        [answer] = self.give(source, request)[source]
        assert relay_wire.read_attach_answer(answer, token).address == tuple(source)
        return request

    def connect(self, source: At = DIALLER, number: int = 0, *, proves: bool = True) -> int:
        """Have a dialler check, and show that it receives; return its channel."""
        sent = self.give(source, check_to(NODE, number))
        [data] = sent[AT_NODE]
        introduced = relay_wire.read_check(relay_wire.read_frame(data)[1], TOKEN)
        assert introduced == (introduced.channel, tuple(source), check_to(NODE, number))
        if proves:
            [asked] = sent[source]
            request = stun.read_binding_request(asked)
            assert self.give(source, stun.binding_response(request, tuple(source))) == {}
        return introduced.channel

    def comes_in(self, source: At) -> bool:
        """Have a dialler check and show that it receives; return whether the node hears it."""
        sent = self.give(source, check_to(NODE))
        answer = stun.binding_response(stun.read_binding_request(sent[source][0]), tuple(source))
        answered = self.give(source, answer)
        return AT_NODE in sent or AT_NODE in answered

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.relay.expire(self.now)


def test_what_a_dialler_and_a_node_say_reaches_the_other() -> None:
    it = Scene()
    channel = it.connect()
    assert it.give(DIALLER, HELLO, RECORD) == {AT_NODE: relay_wire.frame(channel, [HELLO, RECORD])}
    assert it.give(AT_NODE, *relay_wire.frame(channel, [RECORD] * 3)) == {DIALLER: [RECORD] * 3}
    # A listener that is a full ICE agent checks its dialler, and is answered.
    answer = stun.binding_response(stun.read_binding_request(check_to(NODE)), tuple(AT_NODE))
    assert it.give(DIALLER, answer) == {AT_NODE: relay_wire.frame(channel, [answer])}


def test_a_browser_is_asked_by_its_own_name_and_password() -> None:
    it = Scene()
    ufrag = f"{stun.UFRAG_PREFIXES[1]}browser+s/password/{relay_wire.tag_of(NODE)}"
    sent = it.give(DIALLER, stun.binding_request(ufrag, "bros", b"t" * 12, tie_breaker=1, priority=1))
    [asked] = sent[DIALLER]
    message = stun.parse_message(asked, stun.BINDING_REQUEST)
    assert stun.read_username(message) == f"bros:{ufrag}"
    assert message.is_made_with("browser+s/password")
    mapped = [(stun.XOR_MAPPED_ADDRESS, stun.pack_address(tuple(DIALLER), message.transaction_id))]
    for password, arrives in ((ufrag, 0), ("browser+s/password", 20)):
        it.give(DIALLER, stun.pack_message(stun.BINDING_SUCCESS, message.transaction_id, mapped, password))
        records = relay_wire.frame(it.last_channel, [RECORD] * 20)
        assert len(it.give(AT_NODE, *records).get(DIALLER, [])) == arrives


def test_diallers_of_one_node_have_channels_of_their_own() -> None:
    it = Scene()
    diallers = [At("198.51.100.1", port) for port in range(1, 11)]
    channels = [it.connect(each) for each in diallers]
    assert len(set(channels)) == 10
    for each, channel in zip(diallers, channels, strict=True):
        assert it.give(AT_NODE, *relay_wire.frame(channel, [RECORD])) == {each: [RECORD]}


def test_who_asks_for_his_address_is_told() -> None:
    it = Scene(rate=None)
    request = stun.plain_request(b"t" * 12)
    [answer] = it.give(DIALLER, request)[DIALLER]
    message = stun.parse_message(answer, stun.BINDING_SUCCESS)
    assert stun.read_address(message.attributes[stun.XOR_MAPPED_ADDRESS], b"t" * 12) == tuple(DIALLER)
    assert len(answer) <= AMPLIFICATION * len(request)
    assert it.give(Stream("198.51.100.1", 1), request) == {}


# attaching


def test_a_node_moves_and_its_diallers_stay() -> None:
    it = Scene()
    channel = it.connect()
    it.attach(NODE, TOKEN, ELSEWHERE)
    assert it.give(DIALLER, RECORD) == {ELSEWHERE: relay_wire.frame(channel, [RECORD])}
    assert it.give(ELSEWHERE, *relay_wire.frame(channel, [RECORD])) == {DIALLER: [RECORD]}
    assert it.give(AT_NODE, *relay_wire.frame(channel, [RECORD])) == {}


def test_a_node_is_attached_in_both_address_families() -> None:
    it = Scene()
    over_v6, dialler = At("2001:db8::1", 1), At("2001:db8::9", 9)
    it.attach(NODE, TOKEN, over_v6)
    assert AT_NODE in it.give(DIALLER, check_to(NODE))
    assert over_v6 in it.give(dialler, check_to(NODE))
    assert it.relay.attached == 1


@pytest.mark.parametrize(
    ("peer", "token"),
    [(NODE, OTHER_TOKEN), (OTHER_NODE, TOKEN), (NODE, "guessed" * 4), (OTHER_NODE, OTHER_TOKEN + "x")],
    ids=["another's token", "another's tag", "a guessed token", "a token that is not quite right"],
)
def test_nobody_attaches_with_what_is_not_his(peer: PeerId, token: str) -> None:
    it = Scene()
    it.relay.admit(OTHER_NODE, OTHER_TOKEN, it.now)
    assert it.give(ELSEWHERE, it.ask(peer, token, ELSEWHERE)) == {}
    assert it.relay.attached == 1
    assert AT_NODE in it.give(DIALLER, check_to(NODE))


def test_a_request_that_somebody_copied_attaches_nobody() -> None:
    it = Scene()
    copied = it.attach(NODE, TOKEN, AT_NODE)
    # From another address the nonce does not hold; the answer is for who has the token.
    [answer] = it.give(ELSEWHERE, copied)[ELSEWHERE]
    assert relay_wire.read_attach_answer(answer, TOKEN).address is None
    assert len(answer) <= AMPLIFICATION * len(copied)
    assert AT_NODE in it.give(DIALLER, check_to(NODE))
    # And once the node is elsewhere, it does not bring it back to where it was.
    it.attach(NODE, TOKEN, ELSEWHERE)
    assert it.give(AT_NODE, copied) == {}
    assert ELSEWHERE in it.give(At("198.51.100.1", 4), check_to(NODE))


def test_an_old_nonce_is_taken_no_longer() -> None:
    it = Scene()
    [answer] = it.give(AT_NODE, it.ask(NODE, TOKEN, AT_NODE))[AT_NODE]
    nonce = relay_wire.read_attach_answer(answer, TOKEN).nonce
    it.now += 2 * NONCE_SECONDS
    [answer] = it.give(AT_NODE, it.ask(NODE, TOKEN, AT_NODE, nonce))[AT_NODE]
    assert relay_wire.read_attach_answer(answer, TOKEN).address is None


def test_a_node_that_says_nothing_more_is_attached_no_longer() -> None:
    it = Scene()
    it.wait(STAY_SECONDS - 1)
    assert it.relay.attached == 1
    it.wait(1)
    assert it.relay.attached == 0
    assert it.give(DIALLER, check_to(NODE)) == {}
    it.attach(NODE, TOKEN, AT_NODE)
    assert AT_NODE in it.give(DIALLER, check_to(NODE))


def test_a_node_that_left_may_stay_a_little_and_come_back() -> None:
    it = Scene()
    channel = it.connect()
    it.relay.dismiss(NODE, TOKEN, it.now)
    it.relay.admit(NODE, OTHER_TOKEN, it.now)
    it.relay.dismiss(NODE, TOKEN, it.now)  # of the connection before: it counts no more
    it.attach(NODE, OTHER_TOKEN, AT_NODE)
    assert it.give(AT_NODE, *relay_wire.frame(channel, [RECORD])) == {DIALLER: [RECORD]}
    it.wait(STAY_SECONDS - 1)
    it.attach(NODE, OTHER_TOKEN, AT_NODE)
    assert it.relay.attached == 1
    it.relay.dismiss(NODE, OTHER_TOKEN, it.now)
    it.wait(STAY_SECONDS)
    assert (it.relay.attached, it.relay.channels) == (0, 0)
    assert it.give(AT_NODE, it.ask(NODE, OTHER_TOKEN, AT_NODE)) == {}


def test_only_so_many_nodes_are_admitted() -> None:
    it = Scene(nodes=1)
    with pytest.raises(CapacityError):
        it.relay.admit(OTHER_NODE, OTHER_TOKEN, it.now)
    it.relay.admit(NODE, OTHER_TOKEN, it.now)


# third parties


def test_whose_address_is_on_a_forged_check_gets_little_however_much_the_node_sends() -> None:
    it = Scene()
    given_bytes = 0
    for number in range(50):
        check = check_to(NODE, number)
        channel = it.connect(VICTIM, number, proves=False)
        it.give(VICTIM, HELLO)
        given_bytes += len(check) + len(HELLO)
        it.give(AT_NODE, *relay_wire.frame(channel, [RECORD] * 20))
        it.now += 0.1
    assert 0 < it.sent[VICTIM] <= AMPLIFICATION * given_bytes


@given(
    st.lists(
        st.tuples(st.sampled_from(["check", "hello", "record", "node", "stun", "junk", "wait"]), st.integers(0, 3)),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_an_address_that_proves_nothing_gets_at_most_three_times_what_came_from_it(
    steps: list[tuple[str, int]],
) -> None:
    it = Scene(idle_s=3.0)
    given_bytes = 0
    for step, number in steps:
        if step == "wait":
            it.wait(float(number))
            continue
        data = {
            "check": check_to((NODE, OTHER_NODE)[number % 2], number),
            "hello": HELLO,
            "record": RECORD,
            "stun": stun.pack_message(stun.BINDING_REQUEST, bytes([number]) * 12, [], None),
            "junk": bytes([number * 60]) * 30,
            "node": relay_wire.frame(FIRST + number, [RECORD])[0],
        }[step]
        if step == "node":
            it.give(AT_NODE, data)
        else:
            given_bytes += len(data)
            it.give(VICTIM, data)
        assert it.sent[VICTIM] <= AMPLIFICATION * given_bytes


@pytest.mark.parametrize("data", [HELLO, RECORD, *relay_wire.frame(FIRST, [RECORD]), b"", b"\x40", b"\0\1\0\0" * 5])
def test_to_a_node_goes_nothing_of_those_who_did_not_name_it(data: bytes) -> None:
    it = Scene()
    it.connect()
    assert it.give(VICTIM, data) == {}


@pytest.mark.parametrize(
    "data",
    [
        *relay_wire.frame(FIRST + 1, [RECORD]),  # nobody's channel
        *relay_wire.frame(relay_wire.CHECK_CHANNEL, [RECORD]),
        *relay_wire.frame(FIRST, [relay_wire.frame(FIRST, [RECORD])[0]]),  # a frame within
        *relay_wire.frame(FIRST, [b""]),
        *relay_wire.frame(FIRST, [bytes(5000)]),
        relay_wire.frame(FIRST, [RECORD])[0][:-1],
        relay_wire.frame(FIRST, [RECORD])[0] + b"\0",
    ],
)
def test_to_a_dialler_goes_nothing_but_what_its_node_may_send(data: bytes) -> None:
    it = Scene()
    assert it.connect() == FIRST
    assert it.give(AT_NODE, data) == {}
    # Nor what another node sends on the same channel.
    it.relay.admit(OTHER_NODE, OTHER_TOKEN, it.now)
    it.attach(OTHER_NODE, OTHER_TOKEN, AT_OTHER)
    assert it.give(AT_OTHER, *relay_wire.frame(FIRST, [RECORD])) == {}


def test_a_dialler_that_talks_is_not_given_to_another_node_by_a_check_in_its_name() -> None:
    it = Scene()
    channel = it.connect()
    it.relay.admit(OTHER_NODE, OTHER_TOKEN, it.now)
    it.attach(OTHER_NODE, OTHER_TOKEN, AT_OTHER)
    assert it.give(DIALLER, check_to(OTHER_NODE)) == {}
    assert it.give(DIALLER, RECORD) == {AT_NODE: relay_wire.frame(channel, [RECORD])}


# what must not answer a relay


def test_two_relays_do_not_ask_each_other_for_ever() -> None:
    scenes = {At("203.0.113.1", 8360): Scene(), At("203.0.113.2", 8360): Scene()}
    first, second = scenes
    going = [(second, first, check_to(NODE))]  # forged: as if from the other relay
    for turn in range(4):
        given, going = going, []
        for source, to, data in given:
            for receiver, datagrams in scenes[to].give(source, data).items():
                going += [(to, receiver, each) for each in datagrams if receiver in scenes]
        assert len(going) == (turn == 0)


def test_a_listener_that_is_a_full_agent_has_to_refuse_what_a_relay_asks() -> None:
    it = Scene()
    [asked] = it.give(VICTIM, check_to(NODE))[VICTIM]
    assert not stun.read_binding_request(asked).controlling
    # ICE-CONTROLLED: refused by who is controlled and has a lower tie breaker.
    assert stun.parse_message(asked, stun.BINDING_REQUEST).attributes[0x8029] == b"\xff" * 8


TAGS = ("", "/" + relay_wire.tag_of(NODE), "/" + relay_wire.tag_of(OTHER_NODE))
NAMES = ("bros", "abcdefgh", 22 * "p", "")
"""Names and passwords of their own; one would do for both."""
UFRAGS = st.builds(
    lambda prefix, name, tag: f"{prefix}{name}{tag}",
    st.sampled_from(("", *stun.UFRAG_PREFIXES, relay_wire.ATTACH_PREFIX)),
    st.sampled_from((*NAMES, *(f"{prefix}{name}" for prefix in stun.UFRAG_PREFIXES for name in NAMES))),
    st.sampled_from(TAGS),
).filter(lambda ufrag: len(ufrag) >= 4)


def answers_of(asked: bytes, who: str) -> list[bytes]:
    """Return what somebody who listens says to a check: its own name is its password."""
    first, _, _ = stun.read_username(stun.parse_message(asked, stun.BINDING_REQUEST)).partition(":")
    try:
        request = stun.read_binding_request(asked)
    except ValueError:  # no name of a listener of ours, or another password
        if who != "any agent":
            return []
        message = stun.parse_message(asked, stun.BINDING_REQUEST)
        if not message.is_made_with(first):
            return []
        request = stun.BindingRequest(message.transaction_id, "", first, "", controlling=False)
    if who == "ours" and relay_wire.is_question(request):
        return []
    if who == "ours, old" and not request.controlling and relay_wire.tag_in(request.server_ufrag) is not None:
        return []
    return [stun.binding_response(request, tuple(VICTIM))]


@given(
    # A check's server half may hold its own half, as whoever writes it likes.
    st.tuples(UFRAGS, UFRAGS)
    | UFRAGS.map(lambda own: (f"{stun.UFRAG_PREFIXES[1]}{own}{TAGS[1]}", own))
    | UFRAGS.map(lambda own: (f"{stun.UFRAG_PREFIXES[0]}{own}{TAGS[1]}", own)),
    st.sampled_from(("ours", "ours, old", "any agent")),
)
@settings(max_examples=400, deadline=None)
def test_nobody_who_listens_answers_in_the_place_of_a_dialler(halves: tuple[str, str], who: str) -> None:
    server, own = halves
    if who == "any agent" and server == own:
        return  # one that is whole refuses it because of its role: see below
    it = Scene()
    check = stun.binding_request(server, own, b"x" * 12, tie_breaker=1, priority=1)
    for asked in it.give(VICTIM, check).get(VICTIM, []):
        for answer in answers_of(asked, who):
            it.give(VICTIM, answer)
    channel = it.relay._channels.get(VICTIM)
    assert channel is None or not channel.proved


def test_a_check_that_bears_a_listeners_name_gets_nothing_sent_to_the_address_on_it() -> None:
    it = Scene()
    own = stun.UFRAG_PREFIXES[1] + "abcdefgh"
    check = stun.binding_request(stun.UFRAG_PREFIXES[1] + own + TAGS[1], own, b"x" * 12, tie_breaker=1, priority=1)
    assert it.give(VICTIM, check) == {}
    for _ in range(20):
        it.give(AT_NODE, *relay_wire.frame(FIRST, [RECORD] * 50))
    assert it.sent[VICTIM] == 0


@pytest.mark.parametrize("prefix", stun.UFRAG_PREFIXES)
@pytest.mark.parametrize("own", ["", "bros", "abcdefgh"])
def test_who_dials_by_any_version_shows_that_it_receives(prefix: str, own: str) -> None:
    it = Scene()
    password = 22 * "p"
    ufrag = f"{prefix}{password}{TAGS[1]}"
    check = stun.binding_request(ufrag, own or ufrag, b"x" * 12, tie_breaker=1, priority=1)
    [asked] = it.give(DIALLER, check)[DIALLER]
    message = stun.parse_message(asked, stun.BINDING_REQUEST)
    mine = password if own else ufrag
    assert stun.read_username(message) == f"{own or ufrag}:{ufrag}"
    assert message.is_made_with(mine)
    mapped = [(stun.XOR_MAPPED_ADDRESS, stun.pack_address(tuple(DIALLER), message.transaction_id))]
    it.give(DIALLER, stun.pack_message(stun.BINDING_SUCCESS, message.transaction_id, mapped, mine))
    assert it.relay._channels[DIALLER].proved


@pytest.mark.parametrize("how", ["expired", "taken by another node"])
def test_nothing_goes_to_where_a_node_is_attached_no_longer(how: str) -> None:
    it = Scene(idle_s=10_000)
    channel = it.connect()
    if how == "expired":
        it.wait(STAY_SECONDS)
    else:
        it.relay.admit(OTHER_NODE, OTHER_TOKEN, it.now)
        it.attach(OTHER_NODE, OTHER_TOKEN, AT_NODE)
    assert it.give(DIALLER, RECORD) == {}
    it.attach(NODE, TOKEN, ELSEWHERE)
    assert it.give(DIALLER, RECORD) == {ELSEWHERE: relay_wire.frame(channel, [RECORD])}


# floods


def test_channels_are_bounded_and_those_who_prove_nothing_make_room() -> None:
    it = Scene(channels_each=8, new_per_s=1000)
    own = it.connect()
    for port in range(1, 100):
        it.give(At(f"203.0.113.{port}", 7), check_to(NODE, port))
    assert it.relay.channels == 8
    assert it.give(AT_NODE, *relay_wire.frame(own, [RECORD])) == {DIALLER: [RECORD]}
    for port in range(100, 107):
        assert it.comes_in(At(f"203.0.113.{port}", 7))
    # Each has one: none is ended for another one.
    assert not it.comes_in(At("203.0.113.200", 7))
    assert it.give(AT_NODE, *relay_wire.frame(own, [RECORD])) == {DIALLER: [RECORD]}
    it.wait(UNPROVED_SECONDS)
    assert it.relay.channels == 8


@pytest.mark.parametrize("stranger", ["203.0.113.1", "2001:db8::{:x}"])
def test_one_source_shuts_nobody_out_of_a_node(stranger: str) -> None:
    bounds = RelayBounds()
    it = Scene()
    strangers = [At(stranger.format(port), 7000 + port) for port in range(1, bounds.channels_each + 1)]
    assert all(it.comes_in(each) for each in strangers)
    assert it.relay.channels == bounds.channels_each
    it.now += 1
    it.give(strangers[0], RECORD)
    others = [At(f"198.51.100.{number}", 5) for number in range(1, 33)]
    assert all(it.comes_in(each) for each in others)
    # Who has been silent longest made room, and nobody of the others does for the stranger.
    assert AT_NODE in it.give(strangers[0], RECORD)
    assert it.give(strangers[1], RECORD) == {}
    assert not it.comes_in(At(stranger.format(99), 7099))
    assert all(AT_NODE in it.give(each, RECORD) for each in others)
    assert it.relay.channels == bounds.channels_each


def test_forged_checks_keep_nobody_out_who_answers() -> None:
    it = Scene()
    for number in range(500):
        it.give(At(f"203.0.113.{number % 250 + 1}", 1000 + number), check_to(NODE, number))
    assert AT_NODE not in it.give(VICTIM, check_to(NODE))
    assert it.comes_in(DIALLER)
    it.give(DIALLER, HELLO)
    assert it.give(AT_NODE, *relay_wire.frame(it.last_channel, [RECORD] * 20)) == {DIALLER: [RECORD] * 20}


def test_checks_in_a_diallers_name_do_not_keep_it_from_showing_that_it_receives() -> None:
    it = Scene()
    it.relay.admit(OTHER_NODE, OTHER_TOKEN, it.now)
    it.attach(OTHER_NODE, OTHER_TOKEN, AT_OTHER)
    [asked] = it.give(DIALLER, check_to(NODE))[DIALLER]
    it.give(DIALLER, check_to(NODE, 1), check_to(OTHER_NODE, 2), check_to(NODE, 3), check_to(OTHER_NODE, 4))
    it.give(DIALLER, stun.binding_response(stun.read_binding_request(asked), tuple(DIALLER)))
    assert AT_NODE in it.give(DIALLER, RECORD)
    assert it.give(AT_NODE, *relay_wire.frame(it.last_channel, [RECORD] * 20)) == {DIALLER: [RECORD] * 20}


@pytest.mark.parametrize("how", ["late", "from elsewhere", "with another password", "to what was asked an hour ago"])
def test_an_answer_that_is_not_to_what_was_asked_here_now_shows_nothing(how: str) -> None:
    it = Scene()
    [asked] = it.give(DIALLER, check_to(NODE))[DIALLER]
    request = stun.read_binding_request(asked)
    answer = stun.binding_response(request, tuple(DIALLER))
    source = DIALLER
    if how == "late":
        it.wait(UNPROVED_SECONDS)
    elif how == "from elsewhere":
        source = At(DIALLER.host, 4)
    elif how == "with another password":
        attributes = [(stun.XOR_MAPPED_ADDRESS, stun.pack_address(tuple(DIALLER), request.transaction_id))]
        answer = stun.pack_message(stun.BINDING_SUCCESS, request.transaction_id, attributes, "another")
    else:
        it.wait(3600)
        it.attach(NODE, TOKEN, AT_NODE)
        it.give(DIALLER, check_to(NODE))
    it.give(source, answer)
    sent = it.give(AT_NODE, *relay_wire.frame(it.last_channel, [RECORD] * 20)).get(DIALLER, [])
    assert sum(map(len, sent)) <= AMPLIFICATION * len(check_to(NODE))


def test_of_those_who_were_asked_so_many_are_remembered() -> None:
    it = Scene(asked=10, new_per_s=1)
    asked = [it.give(At(f"203.0.113.{number}", 7), check_to(NODE, number)) for number in range(1, 13)]
    came = []
    for sent in asked:
        [source] = {to for to in sent if to != AT_NODE}
        it.give(source, stun.binding_response(stun.read_binding_request(sent[source][0]), tuple(source)))
        came.append(AT_NODE in it.give(source, HELLO))
    assert came == [True, False] + [True] * 10  # the first had its channel at once


@pytest.mark.parametrize(
    ("bounds", "sources", "most"),
    [
        ({"new_per_s": 4}, [At(f"198.51.100.{n}", 1) for n in range(1, 20)], 4),
        ({"channels_per_source": 3}, [At("198.51.100.1", n) for n in range(1, 20)], 3),
        ({"channels_per_source": 3}, [At(f"2001:db8::{n:x}", 1) for n in range(1, 20)], 3),
        ({"channels": 5}, [At(f"198.51.100.{n}", 1) for n in range(1, 20)], 5),
    ],
    ids=["new in a second", "of one address", "of one /64", "in all"],
)
def test_beyond_a_bound_checks_are_ignored(bounds: dict[str, float], sources: list[At], most: int) -> None:
    it = Scene(**bounds)
    assert sum(AT_NODE in it.give(source, check_to(NODE)) for source in sources) == most
    it.wait(31)
    assert it.relay.channels == 0
    assert AT_NODE in it.give(sources[-1], check_to(NODE))


def test_a_channel_ends_when_its_dialler_has_said_nothing_for_long() -> None:
    it = Scene(idle_s=30)
    channel = it.connect()
    for _ in range(10):
        it.wait(29)
        it.attach(NODE, TOKEN, AT_NODE)
        assert it.give(DIALLER, RECORD) == {AT_NODE: relay_wire.frame(channel, [RECORD])}
    it.wait(30)
    assert it.give(AT_NODE, *relay_wire.frame(channel, [RECORD])) == {}
    assert it.give(DIALLER, RECORD) == {}


@pytest.mark.parametrize("bound", ["rate", "rate_per_node", "rate_per_channel"])
@pytest.mark.parametrize("to_node", [True, False])
def test_what_is_over_a_rate_is_dropped(bound: str, to_node: bool) -> None:
    it = Scene(**{bound: 100_000, "burst": 50_000})
    channel = it.connect()
    start = it.relay.relayed
    for _ in range(100):
        it.now += 0.1
        if to_node:
            it.give(DIALLER, *[RECORD] * 40)
        else:
            it.give(AT_NODE, *relay_wire.frame(channel, [RECORD] * 40))
    relayed = it.relay.relayed - start
    assert 0.9 * 1_000_000 < relayed < 1_050_000
    assert relayed + it.relay.dropped == pytest.approx(4_000_000, rel=0.01)
