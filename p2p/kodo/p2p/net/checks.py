"""Asks addresses whether they answer, and from where the question came."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from kodo.p2p.core import stun
from kodo.p2p.core.hosts import plain_host
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.paths import Target
from kodo.p2p.core.relay_wire import tag_of
from kodo.p2p.errors import KodoError
from kodo.p2p.net import udp
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.leg import Carrier, Leg

__all__ = ["CHECK_SECONDS", "Check", "Question", "check", "check_by_connection"]

CHECK_SECONDS = 1.5
"""How long answers are waited for: a round trip to anywhere, and a lost packet or two."""
_AGAIN_SECONDS = (0.0, 0.15, 0.4, 0.9)
"""When a question is asked that has no answer yet."""
_MAX_QUESTIONS = 64
_TRANSACTION_BYTES = 12
_PRIORITY = (126 << 24) | (65535 << 8) | 255
"""ICE's priority of a host candidate (RFC 8445, 5.1.2)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        target: where.
        server: whether a STUN server is there; else the listener of a node.
    """

    target: Target
    server: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """What came of a question.

    Attributes:
        target: who was asked.
        mapped: IP address and port from which the question came, as the other side saw it; None without an answer.
        seconds: from the first question to the answer; None without one.
        refused: what the network said instead: that nobody listens there, or that no way leads there.
        relayed: whether the answer came through a relay.
        introduced: whether a relay answers that carries nothing, and only introduces diallers to the node.
    """

    target: Target
    mapped: tuple[str, int] | None = None
    seconds: float | None = None
    refused: str | None = None
    relayed: bool = False
    introduced: bool = False


async def check(
    questions: Iterable[Question], *, seconds: float = CHECK_SECONDS, peer: PeerId | None = None
) -> list[Check]:
    """Ask all addresses at once, those of one family from one socket; comes back early when all have answered.

    At most `_MAX_QUESTIONS` are asked; the others are left out. Cancelling is safe.

    Args:
        peer: whose addresses they are, if that is known: a relay among them has to be told.
    """
    asked = list(dict.fromkeys(questions))[:_MAX_QUESTIONS]
    checker = _Checker(asked, peer)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await checker.run()
    finally:
        checker.close()
    return [checker.answers.get(each.target, Check(each.target)) for each in asked]


async def check_by_connection(carrier: Carrier, peer: PeerId, *, seconds: float = 2 * CHECK_SECONDS) -> Check | None:
    """Ask by a connection to a relay whether a peer answers through that; None: it does not. Cancelling is safe."""
    loop, tag = asyncio.get_running_loop(), tag_of(peer)
    ufrag = f"{stun.UFRAG_PREFIXES[1]}{secrets.token_hex(16)}/{tag}"
    transaction = secrets.token_bytes(_TRANSACTION_BYTES)
    request = stun.binding_request(ufrag, ufrag, transaction, tie_breaker=1, priority=_PRIORITY)
    began, found = loop.time(), None

    def received(data: bytes) -> None:
        nonlocal found
        with contextlib.suppress(ValueError):
            mapped = stun.read_binding_response(data, transaction, ufrag).address
            found = Check(Target(carrier.host, 0, connection=1), mapped, loop.time() - began, relayed=True)
            leg.close()

    leg = Leg(received, lambda: None, lambda is_open: leg.send([request]))
    with contextlib.suppress(KodoError, OSError, ValueError):
        async with asyncio.timeout(seconds):
            await carrier.carry(leg, tag)
    return found


class _Checker:
    """One round of questions."""

    def __init__(self, questions: list[Question], peer: PeerId | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._ufrag = stun.UFRAG_PREFIXES[1] + secrets.token_hex(16)
        if peer is not None:
            self._ufrag += f"/{tag_of(peer)}"
        self._asked = {secrets.token_bytes(_TRANSACTION_BYTES): each for each in questions}
        self._endpoints: dict[socket.AddressFamily, Endpoint] = {}
        self._all_answered = asyncio.Event()
        self._began = self._loop.time()
        self.answers: dict[Target, Check] = {}

    async def run(self) -> None:
        for at in _AGAIN_SECONDS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._began + at):
                    await self._all_answered.wait()
                    return
            for transaction, question in self._asked.items():
                if question.target not in self.answers:
                    self._ask(transaction, question)
        await self._all_answered.wait()

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            endpoint.close()

    def _ask(self, transaction: bytes, question: Question) -> None:
        target = question.target
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        try:
            if family not in self._endpoints:
                self._endpoints[family] = Endpoint(
                    udp.unconnected(family), self._received, lambda: None, self._failed
                )
        except OSError as error:
            self._take(Check(target, refused=error.strerror or str(error)))
            return
        request = (
            stun.plain_request(transaction)
            if question.server
            else stun.binding_request(self._ufrag, self._ufrag, transaction, tie_breaker=1, priority=_PRIORITY)
        )
        self._endpoints[family].send([request], Source(target.host, target.port, "", target.interface))

    def _received(self, data: bytes, source: Source) -> None:
        transaction = data[8:20]
        question = self._asked.get(transaction)
        if question is None or not stun.is_stun(data):
            return
        if (source.host, source.port) != (question.target.host, question.target.port):
            return
        with contextlib.suppress(ValueError):
            introduced = stun.is_binding_error(data)
            if question.server:
                mapped, relayed = stun.read_plain_response(data, transaction), False
            else:
                read = stun.read_alternate_response if introduced else stun.read_binding_response
                answer = read(data, transaction, self._ufrag)
                mapped, relayed = answer.address, answer.relayed
            seen = (plain_host(mapped[0]), mapped[1])
            took = self._loop.time() - self._began
            self._take(Check(question.target, seen, took, relayed=relayed, introduced=introduced))

    def _failed(self, error: OSError, to: Source | None) -> None:
        if to is not None:
            for question in self._asked.values():
                if (question.target.host, question.target.port) == (to.host, to.port):
                    self._take(Check(question.target, refused=error.strerror or str(error)))

    def _take(self, answer: Check) -> None:
        self.answers.setdefault(answer.target, answer)
        if len(self.answers) == len({each.target for each in self._asked.values()}):
            self._all_answered.set()
