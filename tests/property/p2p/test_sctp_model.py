"""Associations against a model: whatever happens on the way, each channel's messages arrive once and in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kodo.p2p.core.sctp import Association, ChannelClosed, ChannelOpened, Ended, MessageReceived, Settings

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 1), st.integers(0, 2), st.integers(0, 6000)),
        st.tuples(st.just("deliver"), st.integers(0, 1), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("duplicate"), st.integers(0, 1), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("lose"), st.integers(0, 1), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 3), st.just(0), st.just(0)),
        st.tuples(st.just("timer"), st.integers(0, 1), st.just(0), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 1), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 1), st.just(0), st.just(0)),
        st.tuples(st.just("heartbeat"), st.integers(0, 1), st.just(0), st.just(0)),
    ),
    max_size=120,
)


class World:
    """Two associations, what is on the way between them, and what each channel must give."""

    def __init__(self, tsn: int, window: int) -> None:
        self.now = 1.0
        self.sides = [
            Association(
                client=side == 0,
                tag=side + 1,
                initial_tsn=(tsn + side) & 0xFFFFFFFF,
                cookie_secret=bytes(32),
                settings=Settings(window=window),
            )
            for side in range(2)
        ]
        self.flying: list[list[bytes]] = [[], []]
        self.sent: list[dict[int, list[bytes]]] = [{}, {}]
        self.got: list[dict[int, list[bytes]]] = [{}, {}]
        self.unread = [0, 0]
        self.ended = False
        self.reading = False
        self.mine: list[list[int]] = [[], []]
        self.closing: list[set[int]] = [set(), set()]
        self.closed: list[set[int]] = [set(), set()]
        for side in self.sides:
            side.connect(self.now)
        for side in range(2):
            for _ in range(3):
                channel = self.sides[side].open_channel()
                self.mine[side].append(channel)
                self.sent[side][channel] = []
        self.pump()

    def pump(self) -> None:
        for index, side in enumerate(self.sides):
            while (event := side.next_event()) is not None:
                if isinstance(event, MessageReceived):
                    self.got[index].setdefault(event.channel_id, []).append(event.data)
                    self.unread[index] += len(event.data)
                elif isinstance(event, Ended):
                    self.ended = True
                elif isinstance(event, ChannelOpened):
                    assert event.channel_id not in self.got[index]
                elif isinstance(event, ChannelClosed):
                    assert event.channel_id not in self.closed[index]
                    self.closed[index].add(event.channel_id)
            if self.reading:
                self.read(index)
            self.flying[1 - index] += side.datagrams_to_send(self.now)

    def read(self, index: int) -> None:
        self.sides[index].consumed(self.unread[index])
        self.unread[index] = 0

    def act(self, action: str, side: int, which: int, size: int) -> None:
        if action == "send":
            channel = self.mine[side][which]
            if channel not in self.closing[side] and not self.ended:
                messages = self.sent[side][channel]
                data = bytes([len(messages) & 255]) * size
                messages.append(data)
                self.sides[side].send(channel, data)
        elif action == "wait":
            self.now += (0.0, 0.01, 0.5, 5.0)[side]
        elif action == "timer":
            timer = self.sides[side].get_timer()
            if timer is not None:
                self.now = max(self.now, timer)
                self.sides[side].handle_timer(self.now)
        elif action == "close":
            channel = self.mine[side][which]
            self.closing[side].add(channel)
            self.sides[side].close_channel(channel)
        elif action == "read":
            self.read(side)
        elif action == "heartbeat":
            self.sides[side].heartbeat(self.now)
        elif self.flying[side]:
            place = which % len(self.flying[side])
            packet = self.flying[side][place] if action == "duplicate" else self.flying[side].pop(place)
            if action != "lose":
                self.sides[side].receive_datagram(packet, self.now)
        self.pump()
        self.check()

    def check(self) -> None:
        for side in range(2):
            for channel, messages in self.sent[side].items():
                got = self.got[1 - side].get(channel, [])
                assert got == messages[: len(got)]

    def heal(self) -> None:
        """Let everything arrive from now on, until nothing is left to do."""
        self.reading = True
        self.pump()
        for _ in range(20_000):
            if self.ended:
                return
            if any(self.flying):
                for side in range(2):
                    packets, self.flying[side] = self.flying[side], []
                    for packet in packets:
                        self.sides[side].receive_datagram(packet, self.now)
            else:
                times = [timer for side in self.sides if (timer := side.get_timer()) is not None]
                if not times:
                    return
                self.now = max(self.now, min(times))
                for side in self.sides:
                    if (timer := side.get_timer()) is not None and timer <= self.now:
                        side.handle_timer(self.now)
            self.pump()
        raise AssertionError("it never comes to rest")


@settings(max_examples=300)
@given(ACTIONS, st.sampled_from([7, 0xFFFFFFFE, 0x7FFFFFFF]), st.sampled_from([20_000, 4 << 20]))
def test_messages_arrive_once_and_in_order_or_the_association_ends(actions, tsn, window):
    world = World(tsn, window)
    for action in actions:
        world.act(*action)
    world.heal()
    world.check()
    if world.ended:
        return
    for side in range(2):
        for channel, messages in world.sent[side].items():
            assert world.got[1 - side].get(channel, []) == messages
        assert world.sides[side].queued == 0
        closing = world.closing[0] | world.closing[1]
        assert world.closed[side] == closing
