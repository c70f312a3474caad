"""A listener that is attached to a relay: how it stays so, and what comes to it from there.

`core.relay_wire` says what the packets are. While the relay answers, it is asked again every `EVERY_SECONDS`, which
also keeps the NAT between from forgetting the way, more often while somebody is there, and at once when this
machine's networks change. While it does not answer by UDP, the listener is attached by a connection (`Detour`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.paths import Target
from kodo.p2p.net.endpoint import Source, Via
from kodo.p2p.net.interfaces import on_networks_changed
from kodo.p2p.net.leg import Carrier, Leg, Standby

__all__ = ["Attachment", "Detour"]

logger = logging.getLogger(__name__)

EVERY_SECONDS, BUSY_SECONDS = 15.0, 2.5
"""Between two requests; the latter while diallers talk to the node, whose NAT may forget it at any time."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.25, 5.0
LOST_AFTER = 4
"""Requests in a row without an answer after which the listener counts as not attached."""
SILENT_AFTER = 4
"""The same after which it is attached by a connection."""
DIALLERS = 256
"""Diallers whose channels are known; a relay has fewer of one node."""


class Attachment:
    """One listener at one relay. `close` it.

    Args:
        relay: its IP address and UDP port.
        tag: of the node that listens.
        token: that the relay gave to the node.
        send: sends a datagram from the listener's socket.
        changed: called when it is attached or is so no longer, and when its own address has changed.
        detour: for while the relay does not answer.
        diallers: where the diallers on the relay's channels are, where another attachment knows them too.
    """

    def __init__(
        self,
        relay: tuple[str, int],
        tag: str,
        token: str,
        send: Callable[[bytes, Source], None],
        changed: Callable[[], None],
        detour: Detour | None = None,
        diallers: OrderedDict[int, tuple[str, int]] | None = None,
    ) -> None:
        self.relay = relay
        self.detour = detour
        self.carries = True
        """Whether the relay carries sessions; else it only introduces diallers."""
        self.address: tuple[str, int] | None = None
        """The listener's own address as the relay sees it; None while it is not attached."""
        self._tag = tag
        self._token = token
        self._send = send
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._nonce = b""
        self._unanswered = 0
        self._retried = False
        """Whether the last request was because of a nonce: one at once is enough, the next one may wait its time."""
        self._busy = self._was_busy = False
        """Whether a dialler was heard since the last request."""
        self._answers = 0
        """How many requests in a row were answered."""
        self._diallers = OrderedDict() if diallers is None else diallers
        if detour is not None:
            detour.diallers = self._diallers
        self._timer: asyncio.TimerHandle | None = None
        self._forget_networks = on_networks_changed(self._ask)
        self._ask()

    @property
    def is_attached(self) -> bool:
        """Whether the relay reaches the listener, by UDP or by a connection."""
        return self.address is not None or (self.detour is not None and self.detour.is_attached)

    def renew(self, token: str) -> None:
        """Attach with another token from now on: the relay has been started anew, or knows of another connection."""
        self._token, self._number, self._nonce = token, 0, b""
        if self.detour is not None:
            self.detour.renew(token)
        self._ask()

    def close(self) -> None:
        """Make the relay forget the listener; idempotent."""
        if self.detour is not None:
            self.detour.close()
        self._forget_networks()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.address = None

    def _ask(self) -> None:
        self._number += 1
        self._retried = False
        self._unanswered += 1
        if self._unanswered > LOST_AFTER and self.address is not None:
            self.address = None
            logger.info("the relay at %s port %d does not answer any more", *self.relay)
            self._changed()
        if self._unanswered >= SILENT_AFTER:
            self._answers = 0
            if self.detour is not None:
                self.detour.need()
        request = relay_wire.attach_request(self._tag, self._token, self._number, self._nonce)
        self._send(request, Source(*self.relay))
        self._was_busy, self._busy = self._busy, False
        self._ask_in(min(FIRST_RETRY_SECONDS * 2.0 ** min(self._unanswered - 1, 8), LAST_RETRY_SECONDS))

    def _ask_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._ask)

    def answered(self, data: bytes) -> None:
        """Take a STUN message that came from the relay and is no request."""
        try:
            answer = relay_wire.read_attach_answer(data, self._token)
        except ValueError:
            return
        if answer.number != self._number or self._timer is None:
            return
        if answer.address is None:
            fresh = answer.nonce != self._nonce
            self._nonce = answer.nonce
            if fresh and not self._retried:
                self._unanswered -= 1
                self._ask()
                self._retried = True
            return
        self._unanswered = 0
        self._answers += 1
        if self.detour is not None and self._answers > 1:
            self.detour.close()
        self._ask_in(BUSY_SECONDS if self._was_busy or self._answers == 1 else EVERY_SECONDS)
        if answer.address != self.address:
            self.address = answer.address
            self._changed()

    def read(self, data: bytes, relay: Source) -> tuple[bytes, Source] | None:
        """Return a dialler's datagram in a frame, and where it comes from; None if it is nobody's."""
        try:
            channel, payload = relay_wire.read_frame(data)
            if channel == relay_wire.CHECK_CHANNEL:
                channel, address, payload = relay_wire.read_check(payload, self._token)
                self._diallers[channel] = address
                self._diallers.move_to_end(channel)
                if len(self._diallers) > DIALLERS:
                    self._diallers.popitem(last=False)
        except ValueError:
            return None
        dialler = self._diallers.get(channel)
        if dialler is None:
            return None
        if not self._busy:
            self._busy = True
            if not self._was_busy and self._timer is not None and not self._unanswered:
                self._was_busy = True
                self._ask_in(BUSY_SECONDS)
        return payload, Source(dialler[0], dialler[1], "", 0, Via(relay, channel))


class Detour:
    """Attaches a listener by a connection while that is needed. `close` it.

    Args:
        relay: its IP address and UDP port.
        tag: of the node that listens.
        token: that the relay gave to the node.
        received: gets what the relay passes on, and whence it comes.
        batch_ended: is called after what came together.
        changed: called when the listener is attached so or is so no longer.
    """

    def __init__(
        self,
        carrier: Carrier,
        relay: tuple[str, int],
        tag: str,
        token: str,
        received: Callable[[bytes, Source], None],
        batch_ended: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._relay = Source(*relay)
        self._tag = tag
        self._token = token
        self._received = received
        self._batch_ended = batch_ended
        self._changed = changed
        self.diallers: OrderedDict[int, tuple[str, int]] = OrderedDict()
        """Those that came by UDP go on by the connection."""
        self._leg: Leg | None = None
        self._attachment: Attachment | None = None
        self._standby = Standby(carrier, [Target(*relay)], None, self._make_leg)

    @property
    def is_attached(self) -> bool:
        """Whether the relay reaches the listener by the connection."""
        return self._attachment is not None and self._attachment.address is not None

    def need(self) -> None:
        """Connect and attach, unless that is being done."""
        self._standby.need()

    def close(self) -> None:
        """End the connection until it is needed again; idempotent."""
        self._standby.close()

    def renew(self, token: str) -> None:
        """Attach with another token from now on."""
        self._token = token
        if self._attachment is not None:
            self._attachment.renew(token)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames to the relay."""
        if self._leg is not None:
            self._leg.send(frames)

    def _make_leg(self, relay: Target) -> Leg:
        self._leg = leg = Leg(self._take, self._batch_ended, self._connection_changed)
        return leg

    def _connection_changed(self, is_open: bool) -> None:
        before, self._attachment = self._attachment, None
        if before is not None:
            was_attached = before.address is not None
            before.close()
            if was_attached:
                self._changed()
        if is_open:
            place = (self._relay.host, self._relay.port)
            self._attachment = Attachment(
                place,
                self._tag,
                self._token,
                lambda data, to: self.send([data]),
                self._changed,
                diallers=self.diallers,
            )

    def _take(self, data: bytes) -> None:
        attachment = self._attachment
        if attachment is None:
            return
        if stun.is_stun(data):
            attachment.answered(data)
        elif relay_wire.is_frame(data) and (relayed := attachment.read(data, self._relay)) is not None:
            self._received(*relayed)
