"""Two ends of one stream that do whatever is possible: their tables never contradict each other."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from kodo.p2p.core.framing import Flag
from kodo.p2p.core.halfclose import Event, HalfClose, ReadState, WriteState
from kodo.p2p.errors import UsageError

ACTIONS = ("write", Event.LOCAL_CLOSE_WRITE, Event.LOCAL_CLOSE_READ, Event.LOCAL_RESET, "deliver")


class End:
    """One end: its table, what it has sent and is not delivered, and how much payload went in and out."""

    def __init__(self) -> None:
        self.ways = HalfClose()
        self.wire: deque[Flag | None] = deque()
        self.sent = self.kept = 0
        self.stopped = False

    def act(self, action: Event | str) -> None:
        if action == "write":
            if self.ways.may_write:
                self.wire.append(None)
                self.sent += 1
            return
        assert isinstance(action, Event)
        try:
            flag = self.ways.on(action)
        except UsageError:
            return
        self.stopped |= action is Event.LOCAL_CLOSE_READ
        if flag is not None:
            self.wire.append(flag)

    def take(self, message: Flag | None) -> None:
        # A PeerError here would mean that a faithful end was accused.
        if message is None:
            self.kept += self.ways.may_read
            self.ways.on(Event.REMOTE_DATA)
            return
        answer = self.ways.on(Event.of(message))
        if answer is not None:
            self.wire.append(answer)


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS)), max_size=40))
def test_two_faithful_ends_never_accuse_each_other_and_agree_on_what_arrived(script):
    ends = (End(), End())
    for who, action in script:
        here, there = ends[who], ends[1 - who]
        if action != "deliver":
            here.act(action)
        elif there.wire:
            here.take(there.wire.popleft())
    while ends[0].wire or ends[1].wire:
        for here, there in (ends, ends[::-1]):
            while there.wire:
                here.take(there.wire.popleft())
    for here, there in (ends, ends[::-1]):
        if here.ways.write is WriteState.CLOSED:
            assert there.ways.read is ReadState.CLOSED
            assert there.kept == here.sent or there.stopped
        assert here.ways.write is not WriteState.FIN_SENT
        if here.ways.done:
            here.ways.on(Event.CHANNEL_CLOSED)
            assert here.ways.done
