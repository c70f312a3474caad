"""What a peer sent before its goodbye is delivered, also where both come together."""

from __future__ import annotations

import asyncio
from typing import Any

from kodo.p2p.errors import RemotelyClosedError
from kodo.p2p.net.session import Session
from tests.support.peers import make_pair


async def test_what_comes_together_with_a_goodbye_is_delivered_before_it() -> None:
    received: list[bytes] = []
    async with asyncio.timeout(30), make_pair("webrtc") as pair:
        session = await pair.client.connect(pair.addresses)
        [there] = pair.server.sessions
        ours, theirs = _link(session), _link(there)
        theirs._channels.message = lambda event: received.append(event.data)
        loop = asyncio.get_running_loop()
        channel = ours._sctp.open_channel()
        for number in range(5):
            ours._sctp.send(channel, b"%d" % number)
        records = [ours._dtls.encrypt(packet) for packet in ours._sctp.datagrams_to_send(loop.time())]
        for record in [*records, *ours._dtls.close()]:
            theirs.datagram_received(record)
        theirs.flush()
        while theirs._error is None:  # noqa: ASYNC110 (its turns)
            await asyncio.sleep(0)  # what a busy machine leaves for the next turns
        assert [data for data in received if len(data) == 1] == [b"0", b"1", b"2", b"3", b"4"]
        assert isinstance(theirs._error, RemotelyClosedError)


def _link(session: Session) -> Any:
    return session._link
