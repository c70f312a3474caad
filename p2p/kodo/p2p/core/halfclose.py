"""How one libp2p WebRTC stream ends: each way on its own (libp2p/specs, webrtc, "Ordering", "Closing", "Resetting").

A stream is two one-way pipes in one data channel. The theory:

* A way ends in order when its writer says FIN and its reader has answered FIN_ACK: only then is it known that
  everything arrived. A data channel that is closed too early throws away what was still under way, so it is closed
  only when both ways have ended.
* A reader that wants no more says STOP_SENDING. That ends nothing yet: the writer stops and still says FIN.
* RESET gives up both ways at once (js-libp2p reads it so too). A way that had already ended in order stays so.
* A channel that closes with no FIN seen is a broken way, not an ended one: the reader must not take what it has for
  the whole. A writer that waits for FIN_ACK takes the close as the answer: implementations older than FIN_ACK say it
  like that.
* Flags cross on the wire. Whatever arrives after a RESET is the other side's past and means nothing. Nonsense in
  order is refused: payload or FIN after FIN, FIN_ACK with no FIN before it.

One table a way; an event that stands in neither column of a table does not concern that way.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from kodo.p2p.core.framing import Flag
from kodo.p2p.errors import PeerError, UsageError

__all__ = ["READ_TABLE", "WRITE_TABLE", "Event", "HalfClose", "ReadState", "WriteState"]


class WriteState(enum.Enum):
    """The way out."""

    __hash__ = object.__hash__  # looked up for each message: an enum's own hash is slow

    OPEN = "open"
    STOPPED = "stopped"
    """They read no more; we owe them a FIN."""
    FIN_SENT = "fin_sent"
    """All is said; whether it arrived is not known yet."""
    CLOSED = "closed"
    """They have it all."""
    RESET = "reset"
    """Given up or broken: what arrived is not known."""


class ReadState(enum.Enum):
    """The way in."""

    __hash__ = object.__hash__

    OPEN = "open"
    STOPPED = "stopped"
    """We read no more: payload is thrown away until their FIN."""
    CLOSED = "closed"
    """We have it all."""
    RESET = "reset"
    """Given up or broken: something may be missing."""


class Event(enum.Enum):
    """What can happen to a stream."""

    __hash__ = object.__hash__

    LOCAL_CLOSE_WRITE = enum.auto()
    LOCAL_CLOSE_READ = enum.auto()
    LOCAL_RESET = enum.auto()
    REMOTE_DATA = enum.auto()
    REMOTE_FIN = enum.auto()
    REMOTE_STOP_SENDING = enum.auto()
    REMOTE_RESET = enum.auto()
    REMOTE_FIN_ACK = enum.auto()
    CHANNEL_CLOSED = enum.auto()

    @classmethod
    def of(cls, flag: Flag) -> Event:
        """Return the event of a flag that arrived."""
        return _OF_FLAG[flag]


_OF_FLAG = {
    Flag.FIN: Event.REMOTE_FIN,
    Flag.STOP_SENDING: Event.REMOTE_STOP_SENDING,
    Flag.RESET: Event.REMOTE_RESET,
    Flag.FIN_ACK: Event.REMOTE_FIN_ACK,
}

_W, _R, _E = WriteState, ReadState, Event

WRITE_TABLE: Mapping[tuple[WriteState, Event], WriteState] = {
    (_W.OPEN, _E.LOCAL_CLOSE_WRITE): _W.FIN_SENT,
    (_W.OPEN, _E.LOCAL_RESET): _W.RESET,
    (_W.OPEN, _E.REMOTE_STOP_SENDING): _W.STOPPED,
    (_W.OPEN, _E.REMOTE_RESET): _W.RESET,
    (_W.OPEN, _E.CHANNEL_CLOSED): _W.RESET,
    (_W.STOPPED, _E.LOCAL_CLOSE_WRITE): _W.FIN_SENT,
    (_W.STOPPED, _E.LOCAL_RESET): _W.RESET,
    (_W.STOPPED, _E.REMOTE_STOP_SENDING): _W.STOPPED,
    (_W.STOPPED, _E.REMOTE_RESET): _W.RESET,
    (_W.STOPPED, _E.CHANNEL_CLOSED): _W.RESET,
    (_W.FIN_SENT, _E.LOCAL_RESET): _W.RESET,
    (_W.FIN_SENT, _E.REMOTE_STOP_SENDING): _W.FIN_SENT,
    (_W.FIN_SENT, _E.REMOTE_RESET): _W.RESET,
    (_W.FIN_SENT, _E.REMOTE_FIN_ACK): _W.CLOSED,
    (_W.FIN_SENT, _E.CHANNEL_CLOSED): _W.CLOSED,
    (_W.CLOSED, _E.LOCAL_RESET): _W.CLOSED,
    (_W.CLOSED, _E.REMOTE_STOP_SENDING): _W.CLOSED,
    (_W.CLOSED, _E.REMOTE_RESET): _W.CLOSED,
    (_W.CLOSED, _E.CHANNEL_CLOSED): _W.CLOSED,
    (_W.RESET, _E.LOCAL_RESET): _W.RESET,
    (_W.RESET, _E.REMOTE_STOP_SENDING): _W.RESET,
    (_W.RESET, _E.REMOTE_RESET): _W.RESET,
    (_W.RESET, _E.REMOTE_FIN_ACK): _W.RESET,
    (_W.RESET, _E.CHANNEL_CLOSED): _W.RESET,
}

READ_TABLE: Mapping[tuple[ReadState, Event], ReadState] = {
    (_R.OPEN, _E.LOCAL_CLOSE_READ): _R.STOPPED,
    (_R.OPEN, _E.LOCAL_RESET): _R.RESET,
    (_R.OPEN, _E.REMOTE_DATA): _R.OPEN,
    (_R.OPEN, _E.REMOTE_FIN): _R.CLOSED,
    (_R.OPEN, _E.REMOTE_RESET): _R.RESET,
    (_R.OPEN, _E.CHANNEL_CLOSED): _R.RESET,
    (_R.STOPPED, _E.LOCAL_RESET): _R.RESET,
    (_R.STOPPED, _E.REMOTE_DATA): _R.STOPPED,
    (_R.STOPPED, _E.REMOTE_FIN): _R.CLOSED,
    (_R.STOPPED, _E.REMOTE_RESET): _R.RESET,
    (_R.STOPPED, _E.CHANNEL_CLOSED): _R.CLOSED,  # nothing that we wanted is missing
    (_R.CLOSED, _E.LOCAL_RESET): _R.CLOSED,
    (_R.CLOSED, _E.REMOTE_RESET): _R.CLOSED,
    (_R.CLOSED, _E.CHANNEL_CLOSED): _R.CLOSED,
    (_R.RESET, _E.LOCAL_RESET): _R.RESET,
    (_R.RESET, _E.REMOTE_DATA): _R.RESET,
    (_R.RESET, _E.REMOTE_FIN): _R.RESET,
    (_R.RESET, _E.REMOTE_RESET): _R.RESET,
    (_R.RESET, _E.CHANNEL_CLOSED): _R.RESET,
}

_WRITE_EVENTS = frozenset(event for _, event in WRITE_TABLE)
_READ_EVENTS = frozenset(event for _, event in READ_TABLE)
_ENDED: frozenset[WriteState | ReadState] = frozenset({_W.CLOSED, _W.RESET, _R.CLOSED, _R.RESET})
_LOCAL = frozenset({_E.LOCAL_CLOSE_WRITE, _E.LOCAL_CLOSE_READ, _E.LOCAL_RESET})

_ANSWERS = {
    _E.LOCAL_CLOSE_WRITE: Flag.FIN,
    _E.LOCAL_CLOSE_READ: Flag.STOP_SENDING,
    _E.LOCAL_RESET: Flag.RESET,
    _E.REMOTE_FIN: Flag.FIN_ACK,
}


class HalfClose:
    """Where both ways of one stream stand.

    Attributes:
        write: the way out.
        read: the way in.
    """

    __slots__ = ("read", "write")

    def __init__(self) -> None:
        self.write = WriteState.OPEN
        self.read = ReadState.OPEN

    @property
    def may_write(self) -> bool:
        """Whether payload may be sent."""
        return self.write is WriteState.OPEN

    @property
    def may_read(self) -> bool:
        """Whether payload that arrives is to be kept."""
        return self.read is ReadState.OPEN

    @property
    def done(self) -> bool:
        """Whether both ways have ended: the data channel may be closed."""
        return self.write in _ENDED and self.read in _ENDED

    def on(self, event: Event) -> Flag | None:
        """Apply `event`; return the flag that is to be sent because of it, if any.

        Raises:
            UsageError: a local event is not possible now. Nothing has changed.
            PeerError: the other side may not do that now. Nothing has changed.
        """
        write: WriteState | None = self.write
        read: ReadState | None = self.read
        if event in _WRITE_EVENTS:
            write = WRITE_TABLE.get((self.write, event))
        if event in _READ_EVENTS:
            read = READ_TABLE.get((self.read, event))
        if write is None or read is None:
            wrong = UsageError if event in _LOCAL else PeerError
            where = f"write side {self.write.value}, read side {self.read.value}"
            raise wrong(f"{event.name} is not possible on a stream with {where}")
        # Nobody waits for a flag about a stream that was given up or has ended.
        silent = self.read is ReadState.RESET or self.done
        self.write, self.read = write, read
        return None if silent else _ANSWERS.get(event)
