"""The life of an association and of a channel, as tables.

An association. Both sides of a data channel association call `connect` (RFC 8841), so both send INIT and the two
handshakes cross. Each INIT is answered by an INIT ACK whose cookie holds all that its sender needs to know, each
cookie is echoed, and whichever of COOKIE ECHO and COOKIE ACK comes first establishes: from then on the association
has both tags and both first TSNs, and a second one changes nothing. To end in order, a side first waits until all
that it sent is acknowledged (pending, or received if the peer asked), then SHUTDOWN, SHUTDOWN ACK and SHUTDOWN
COMPLETE go round. ABORT, a broken rule and too many retransmissions lead to CLOSED from anywhere, and nothing leads
out of it: a peer that starts again does so with a new DTLS connection and a new association.

A channel is two one-way streams that are reset one after the other (RFC 8831, 6.7). Whoever closes first resets its
outgoing stream once its queue is empty; the other side learns of it, does the same, and the id is free on each side
when both its streams were reset. `FLUSHING` still has messages to send, `RESETTING` waits for the peer's word that
our stream is reset; the suffix `_HALF` says that the peer's stream is still to come.

Source: RFC 9260, 4 and 5.2; RFC 6525; RFC 8831, 6.7.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = [
    "ASSOCIATION_TABLE",
    "CHANNEL_TABLE",
    "AssociationEvent",
    "AssociationState",
    "ChannelState",
    "ChannelStep",
    "next_association_state",
    "next_channel_state",
]


class AssociationState(enum.Enum):
    """Where an association stands (RFC 9260, 4)."""

    __hash__ = object.__hash__  # looked up for each chunk: an enum's own hash is slow

    NEW = "new"
    COOKIE_WAIT = "waiting for INIT ACK"
    COOKIE_ECHOED = "waiting for COOKIE ACK"
    ESTABLISHED = "established"
    SHUTDOWN_PENDING = "shutting down, data outstanding"
    SHUTDOWN_SENT = "shut down"
    SHUTDOWN_RECEIVED = "shut down by the peer, data outstanding"
    SHUTDOWN_ACK_SENT = "shut down by the peer"
    CLOSED = "closed"


class AssociationEvent(enum.Enum):
    """What moves an association."""

    CONNECT = "connect"
    INIT_ACK = "INIT ACK received"
    COOKIE_ECHO = "valid COOKIE ECHO received"
    COOKIE_ACK = "COOKIE ACK received"
    SHUT_DOWN = "shutdown asked for"
    ALL_ACKNOWLEDGED = "nothing outstanding"
    SHUTDOWN = "SHUTDOWN received"
    SHUTDOWN_ACK = "SHUTDOWN ACK received"
    SHUTDOWN_COMPLETE = "SHUTDOWN COMPLETE received"
    END = "aborted, broken or given up"


_S, _E = AssociationState, AssociationEvent

ASSOCIATION_TABLE: Mapping[tuple[AssociationState, AssociationEvent], AssociationState] = {
    (_S.NEW, _E.CONNECT): _S.COOKIE_WAIT,
    (_S.NEW, _E.COOKIE_ECHO): _S.ESTABLISHED,
    (_S.COOKIE_WAIT, _E.INIT_ACK): _S.COOKIE_ECHOED,
    (_S.COOKIE_WAIT, _E.COOKIE_ECHO): _S.ESTABLISHED,
    (_S.COOKIE_ECHOED, _E.COOKIE_ECHO): _S.ESTABLISHED,
    (_S.COOKIE_ECHOED, _E.COOKIE_ACK): _S.ESTABLISHED,
    (_S.ESTABLISHED, _E.SHUT_DOWN): _S.SHUTDOWN_PENDING,
    (_S.ESTABLISHED, _E.SHUTDOWN): _S.SHUTDOWN_RECEIVED,
    (_S.SHUTDOWN_PENDING, _E.ALL_ACKNOWLEDGED): _S.SHUTDOWN_SENT,
    (_S.SHUTDOWN_PENDING, _E.SHUTDOWN): _S.SHUTDOWN_RECEIVED,
    (_S.SHUTDOWN_SENT, _E.SHUTDOWN): _S.SHUTDOWN_ACK_SENT,  # the two crossed
    (_S.SHUTDOWN_SENT, _E.SHUTDOWN_ACK): _S.CLOSED,
    (_S.SHUTDOWN_RECEIVED, _E.ALL_ACKNOWLEDGED): _S.SHUTDOWN_ACK_SENT,
    (_S.SHUTDOWN_ACK_SENT, _E.SHUTDOWN_ACK): _S.CLOSED,
    (_S.SHUTDOWN_ACK_SENT, _E.SHUTDOWN_COMPLETE): _S.CLOSED,
    **{(state, _E.END): _S.CLOSED for state in AssociationState},
}


class ChannelState(enum.Enum):
    """Where a channel stands."""

    __hash__ = object.__hash__

    OPEN = "open"
    FLUSHING_HALF = "closed here, messages still to send"
    RESETTING_HALF = "closed here, our reset not confirmed"
    RESET_HALF = "our stream is reset, the peer's is not"
    FLUSHING = "closed by the peer, messages still to send"
    RESETTING = "closed by the peer, our reset not confirmed"
    CLOSED = "closed"


class ChannelStep(enum.Enum):
    """What moves a channel."""

    __hash__ = object.__hash__

    CLOSE = "closed by the application"
    FLUSHED = "nothing is queued any more; our reset was asked for"
    CONFIRMED = "the peer has reset its end of our stream"
    PEER_RESET = "the peer has reset its stream"


_C, _T = ChannelState, ChannelStep

CHANNEL_TABLE: Mapping[tuple[ChannelState, ChannelStep], ChannelState] = {
    (_C.OPEN, _T.CLOSE): _C.FLUSHING_HALF,
    (_C.OPEN, _T.PEER_RESET): _C.FLUSHING,
    (_C.FLUSHING_HALF, _T.FLUSHED): _C.RESETTING_HALF,
    (_C.FLUSHING_HALF, _T.PEER_RESET): _C.FLUSHING,
    (_C.RESETTING_HALF, _T.CONFIRMED): _C.RESET_HALF,
    (_C.RESETTING_HALF, _T.PEER_RESET): _C.RESETTING,
    (_C.RESET_HALF, _T.PEER_RESET): _C.CLOSED,
    (_C.FLUSHING, _T.FLUSHED): _C.RESETTING,
    (_C.RESETTING, _T.CONFIRMED): _C.CLOSED,
}


def next_association_state(state: AssociationState, event: AssociationEvent) -> AssociationState | None:
    """Return the state after `event`; None if it is not possible now, which a caller takes for "ignore it"."""
    return ASSOCIATION_TABLE.get((state, event))


def next_channel_state(state: ChannelState, step: ChannelStep) -> ChannelState | None:
    """Return the state after `step`; None if it is not possible now."""
    return CHANNEL_TABLE.get((state, step))
