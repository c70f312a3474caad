"""Addresses are asked whether somebody answers: a listener, a STUN server, nobody, and somebody who says nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.paths import Target
from kodo.p2p.net.checks import Question, check
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host


async def test_each_address_tells_whether_it_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with Host(Identity.from_seed(b"n" * 32), WebRtcTransport()) as node:
            [address] = await node.listen(["127.0.0.1"])
            listening, mute = Target("127.0.0.1", address.port), Target("127.0.0.1", silent.getsockname()[1])
            nobody, no_way = Target("127.0.0.1", 9), Target("255.255.255.255", 9)
            asked = [Question(each) for each in (listening, mute, nobody, no_way)]
            answers = {each.target: each for each in await check(asked, seconds=0.5)}
    assert list(answers) == [listening, mute, nobody, no_way]
    mapped = answers[listening].mapped
    assert mapped is not None
    assert mapped[0] == "127.0.0.1"
    assert (answers[mute].mapped, answers[mute].refused) == (None, None)
    assert answers[nobody].refused == "Connection refused"
    assert answers[no_way].refused is not None


class Server(asyncio.DatagramProtocol):
    """Answers STUN as RFC 8489 says, after it has let the first question of each address go unanswered."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.heard.append(data)
        if len(self.heard) > 1:
            host = bytes(a ^ b for a, b in zip(socket.inet_aton(source[0]), b"\x21\x12\xa4\x42", strict=True))
            value = b"\0\1" + (source[1] ^ 0x2112).to_bytes(2, "big") + host
            forged = bytes(12)
            for transaction in (forged, data[8:20]):
                self.transport.sendto(b"\1\1\0\x0c" + data[4:8] + transaction + b"\0\x20\0\x08" + value, source)


async def test_a_server_is_asked_again_and_tells_from_where_the_question_came() -> None:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    try:
        target = Target(*transport.get_extra_info("sockname"))
        [answer] = await check([Question(target, server=True)])
    finally:
        transport.close()
    assert server.heard[0] == server.heard[1]
    assert len(server.heard[0]) == 20
    assert answer.mapped is not None
    assert answer.mapped[0] == "127.0.0.1"
