"""Whatever comes from an address that has not proved itself: at most three times as many bytes go there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from kodo.p2p.core import stun
from kodo.p2p.core.identity import Identity
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.dtls import Dtls
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.listener import AMPLIFICATION, WebRtcListener
from kodo.p2p.net.transport import Limits

CERTIFICATE = Certificate.generate()
SOURCES = (Source("192.0.2.1", 1), Source("192.0.2.1", 2), Source("2001:db8::1", 1))
UFRAGS = tuple(stun.UFRAG_PREFIXES[1] + letter * 8 for letter in "ab")


class Sent:
    """Counts what would go out, instead of an endpoint."""

    def __init__(self) -> None:
        self.bytes: Counter[Source] = Counter()
        self.address = ("192.0.2.9", 4711)

    def send(self, datagrams: Sequence[bytes], to: Source) -> None:
        self.bytes[to] += sum(map(len, datagrams))

    send_split = send

    def send_whole(self, datagram: bytes, to: Source) -> bool:
        self.send([datagram], to)
        return True

    def close(self) -> None:
        pass


def hello() -> bytes:
    [datagram] = Dtls(CERTIFICATE, server=False).step()
    return datagram


HELLO = hello()
BINDINGS = [stun.binding_request(ufrag, "abcd", bytes(12), tie_breaker=1, priority=1) for ufrag in UFRAGS]
DATAGRAMS = st.one_of(
    st.sampled_from(BINDINGS),
    st.just(HELLO),
    st.builds(lambda cut: HELLO[:cut], st.integers(1, len(HELLO))),
    st.builds(lambda at, byte: HELLO[:at] + bytes([byte]) + HELLO[at + 1 :], st.integers(0, 60), st.integers(0, 255)),
    st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(20, 63), st.binary(max_size=60)),
    st.builds(lambda kind, epoch: bytes([kind]) + b"\xfe\xfd" + epoch + bytes(8), st.integers(20, 26), st.binary()),
)
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(SOURCES), DATAGRAMS),
    st.tuples(st.sampled_from(SOURCES), st.sampled_from(["repeat", "end"])),
)


async def heard(actions: Sequence[tuple[Source, bytes | str]], cookies_above: int) -> tuple[Counter[Source], Sent]:
    """Give what each source sent, and what was sent to it."""
    limits = Limits(cookies_above=cookies_above)
    listener = WebRtcListener(
        Identity.from_seed(bytes(32)), CERTIFICATE, limits, lambda link: None, lambda host: True
    )
    sent, received = Sent(), Counter[Source]()
    listener.endpoint = cast(Endpoint, sent)
    for source, action in actions:
        known: Any = listener._sources.get(source)
        link = None if known is None else known.link
        if isinstance(action, bytes):
            received[source] += len(action)
            listener._datagram_received(action, source)
            listener._batch_ended()
        elif link is not None and action == "end":
            await link.aclose()
        elif link is not None:
            # A flight that is repeated by the clock, which is OpenSSL's own.
            link._send_datagrams([bytes(719)])
        assert all(count <= AMPLIFICATION * received[to] for to, count in sent.bytes.items())
        await asyncio.sleep(0)
    await listener.aclose()
    return received, sent


@settings(max_examples=30)
@given(st.lists(ACTIONS, max_size=25), st.sampled_from([0, 32]))
def test_no_sequence_of_datagrams_brings_more_than_three_times_its_bytes(
    actions: list[tuple[Source, bytes | str]], cookies_above: int
) -> None:
    actions = [(SOURCES[0], BINDINGS[0]), (SOURCES[0], HELLO), *actions]
    received, sent = asyncio.run(heard(actions, cookies_above))
    assert all(count <= AMPLIFICATION * received[to] for to, count in sent.bytes.items())


def test_records_that_only_look_like_dtls_prove_no_address() -> None:
    looks = [(SOURCES[0], bytes([23]))] * 4 + [(SOURCES[0], "repeat")] * 10
    received, sent = asyncio.run(heard([(SOURCES[0], BINDINGS[0]), (SOURCES[0], HELLO), *looks], 32))
    assert 0 < sent.bytes[SOURCES[0]] <= AMPLIFICATION * received[SOURCES[0]]
