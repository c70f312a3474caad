"""The engine in Chromium against nodes that lie, flood and break off, and networks that go away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.node.app import Node
from kodo.p2p.core.callframe import encode_frame, item
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.varint import encode_varint
from kodo.p2p.errors import CallError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.protocol.manifest import CHUNK_BYTES, ManifestBuilder
from tests.support.lossy_relay import lossy_relay
from tests.support.page import Page
from tests.support.web_page import content, target

FID = "01jd2n8x4q5w6e7r8t9y0abcde"
DATA = content(6 * CHUNK_BYTES)

Answer = Callable[[Request], Awaitable[Any]]


class Liar:
    """A node of one answer for each op; `target` is where it is."""

    def __init__(self, where: dict[str, Any]) -> None:
        self.target = where
        self.answers: dict[str, Answer] = {"output.manifest": manifest, "output.read": read}

    async def __call__(self, request: Request) -> Any:
        if request.op not in self.answers:
            raise CallError(404, "no-such-op", request.op)
        return await self.answers[request.op](request)


def events(*sent: Any) -> Answer:
    """Send these as items, whatever they are, and end."""

    async def answer(request: Request) -> Any:
        for each in sent:
            await request.send(each)
        return {"last_seq": len(sent), "state": "done"}

    return answer


def raw(sent: bytes) -> Answer:
    """Send bytes in the place of frames, and wait."""

    async def answer(request: Request) -> Any:
        await request.stream.write(sent)
        await asyncio.Event().wait()

    return answer


async def manifest(request: Request) -> Any:
    builder = ManifestBuilder()
    builder.update(DATA)
    whole = builder.finish()
    head = {"name": "x", "size": whole.size, "sha256": whole.sha256.hex(), "chunk_bytes": CHUNK_BYTES}
    first = request.args["from"]
    return {**head, "from": first, "chunks": list(whole.chunks[first:]), "total_chunks": len(whole.chunks)}


async def read(request: Request) -> Any:
    offset, length = request.args["offset"], request.args["length"]
    for at in range(offset, offset + length, 65536):
        await request.send(DATA[at : min(at + 65536, offset + length)])
    return {"bytes": length}


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    identity = Identity.from_seed(b"l" * 32)
    async with Host(identity, WebRtcTransport()) as host:
        liar = Liar({"peerId": str(identity.peer_id), "addrs": []})
        host.handle(CALL_PROTOCOL, CallServer(liar))
        liar.target["addrs"] = [str(address) for address in await host.listen(["127.0.0.1"])]
        yield liar


async def failure(page: Page, liar: Liar, script: str) -> str:
    """Return the name of the error with which a script ends."""
    return str(
        await page.run(
            f"const node = openEngine().node(target)\ntry {{ {script} }} catch (error) {{ return error.name }}",
            target=liar.target,
            fid=FID,
        )
    )


DOWNLOAD = "await node.download(fid, 'x', { sink: 'blob' }).done"
FOLLOW = "await node.follow(fid).done()"


async def test_the_answers_of_these_tests_are_good_where_they_do_not_lie(
    page: Page, liar: Liar, tmp_path: Path
) -> None:
    await page.run(f"const node = openEngine().node(target); {DOWNLOAD}", target=liar.target, fid=FID)
    async with asyncio.timeout(30):
        assert await page.ended.get() == "completed"
    [file] = list((tmp_path / "downloads").iterdir())
    assert file.read_bytes() == DATA


async def test_a_chunk_that_is_wrong_twice_ends_the_download_and_nothing_is_saved(
    page: Page, liar: Liar, tmp_path: Path
) -> None:
    async def wrong(request: Request) -> Any:
        length = request.args["length"]
        for at in range(0, length, 65536):
            await request.send(bytes(min(65536, length - at)))
        return {"bytes": length}

    liar.answers["output.read"] = wrong
    assert await failure(page, liar, DOWNLOAD) == "IntegrityError"
    assert page.ended.empty()
    assert not list((tmp_path / "downloads").glob("*"))


async def test_a_chunk_that_is_wrong_once_is_read_again(page: Page, liar: Liar) -> None:
    spoilt: list[int] = []

    async def once(request: Request) -> Any:
        if request.args["offset"] not in spoilt:
            spoilt.append(request.args["offset"])
            await request.send(bytes(request.args["length"])[:65536])
            return {"bytes": 65536}
        return await read(request)

    liar.answers["output.read"] = once
    digest = await page.run(
        """
        const bytes = await openEngine().node(target).read(fid, 'x')
        return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))
        """,
        target=liar.target,
        fid=FID,
    )
    assert bytes(digest) == hashlib.sha256(DATA).digest()


async def more_than_asked(request: Request) -> Any:
    for _ in range(200):
        await request.send(bytes(65536))


def lying(**fields: Any) -> Answer:
    """A manifest with other fields than the true ones."""

    async def answer(request: Request) -> Any:
        return {**await manifest(request), **fields}

    return answer


@pytest.mark.parametrize(
    ("op", "answer", "error"),
    [
        ("output.read", more_than_asked, "PeerError"),
        ("output.read", events("text", {"a": 1}), "PeerError"),
        ("output.manifest", lying(size=1 << 50), "CapacityError"),
        ("output.manifest", lying(size=-1), "PeerError"),
        ("output.manifest", lying(chunks=[]), "PeerError"),
        ("output.manifest", lying(chunks=[b"x" * 32] * 7), "PeerError"),
        ("output.manifest", lying(chunks=[b"x" * 31] * 6), "PeerError"),
        ("output.manifest", lying(chunk_bytes=7), "PeerError"),
        ("output.manifest", lying(chunks_sha256="0" * 64), "IntegrityError"),
    ],
    ids=[
        "more than asked", "no bytes", "1 PiB", "negative", "no chunks", "too many", "short", "other", "contradicts",
    ],
)  # fmt: skip
async def test_a_download_from_a_node_that_lies_fails(
    page: Page, liar: Liar, op: str, answer: Answer, error: str
) -> None:
    liar.answers[op] = answer
    assert await failure(page, liar, DOWNLOAD) == error


NESTED: Any = 0
for _ in range(60):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "answer",
    [
        events("no event"),
        events({"seq": 0, "at": 1, "kind": "process", "event": "result", "data": {}}),
        events({"seq": 1, "at": "now", "kind": "process", "event": "result", "data": {}}),
        events({"seq": 1, "at": 1, "kind": "process", "event": "result", "data": []}),
        raw(encode_varint(2 << 20)),
        raw(b"\xff\xff\xff\xff\x7f"),
        raw(encode_varint(3) + b"\xd4\x05\x00"),
        raw(encode_varint(5) + b"\xdd\xff\xff\xff\xff"),
        raw(encode_varint(70) + b"\x91" * 70),
        raw(encode_varint(4) + b"\x81\xa1x\xc0"),
    ],
    ids=[
        "no map", "seq 0", "time is a text", "data are a list", "2 MiB announced", "endless length",
        "extension", "a list that is not there", "deep", "an answer that is none",
    ],
)  # fmt: skip
async def test_what_is_no_event_or_no_frame_ends_following(page: Page, liar: Liar, answer: Answer) -> None:
    liar.answers["run.stream"] = answer
    assert await failure(page, liar, FOLLOW) == "PeerError"


async def test_names_that_objects_inherit_are_names_like_others(page: Page, liar: Liar) -> None:
    def said(seq: int, event: str, **data: Any) -> Any:
        return {"seq": seq, "at": seq, "kind": "process", "event": event, "data": data}

    liar.answers["run.stream"] = events(
        said(1, "config", **{"__proto__": {"polluted": True}, "constructor": 1}),
        said(2, "output", name="__proto__", size=1),
        said(3, "progress", id="__proto__", parent="toString"),
        said(4, "__proto__", **{"hasOwnProperty": 1}),
        {**said(5, "final", result=1), "__proto__": {"seq": 9}},
    )
    answer = await page.run(
        """
        const view = await openEngine().node(target).follow(fid).done()
        return { polluted: {}.polluted ?? null, config: [...view.config.keys()], outputs: [...view.outputs.keys()],
                 steps: [...view.steps.keys()], state: view.state, last: view.lastSeq }
        """,
        target=liar.target,
        fid=FID,
    )
    assert answer == {
        "polluted": None,
        "config": ["__proto__", "constructor"],
        "outputs": ["__proto__"],
        "steps": ["__proto__"],
        "state": "done",
        "last": 5,
    }


async def test_items_that_nobody_reads_end_the_call_at_its_limit(page: Page, liar: Liar) -> None:
    async def flood(request: Request) -> Any:
        while True:
            await request.stream.write(encode_frame(item(bytes(60_000))) * 8)

    liar.answers["flood"] = flood
    script = """
        for await (const item of node.stream('flood', {}, { limit: 1 << 20 }))
            await new Promise(resolve => setTimeout(resolve, 300))
    """
    assert await failure(page, liar, script) == "CapacityError"


async def test_a_network_that_is_lost_for_a_while_loses_no_event(page: Page, node: Node) -> None:
    [address] = node.addresses
    async with lossy_relay(("127.0.0.1", address.port), seed=1) as relay:
        moved = Multiaddr.webrtc_direct("127.0.0.1", relay.port, address.certhash, address.peer_id)
        await page.run(
            """
            const node = openEngine().node({ peerId: target.peerId, addrs: [moved] })
            const { fid } = await node.ask('run.launch', { path: 'flows.wait' })
            globalThis.run = node.follow(fid)
            await new Promise(resolve => run.on(() => run.events.length > 6 && resolve()))
            """,
            target=target(node),
            moved=str(moved),
        )
        relay.cut = True
        # As a browser says it whose computer slept; without it the silence is noticed some seconds later.
        await page.run(
            """
            dispatchEvent(new Event('online'))
            while (run.status !== 'away') await new Promise(resolve => run.on(resolve))
            globalThis.seen = run.events.length
            """
        )
        relay.cut = False
        answer = await page.run(
            """
            await new Promise(resolve => run.on(() => run.events.length > seen + 20 && resolve()))
            run.stop()
            return run.events.every(({ seq }, i) => seq === i + 1)
            """
        )
    assert answer
