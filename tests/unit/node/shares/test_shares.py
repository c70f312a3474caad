"""Shares: who sees what by one, how they end, and downloads that can be neither overrun nor burnt."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.node.housekeeping.deletion import Manager
from kodo.node.store.share_rows import DOWNLOAD_MS
from kodo.p2p.core.callframe import FrameReader
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.service_rig import LID, PEER, Node, node_of

SIZE = 180_000  # of the one output of `flows.work`: b"# Report" * 20_000 and what a piece is not
DAY = 86400.0


async def shared(node: Node, fid: str, **args: Any) -> dict[str, Any]:
    answer = await node.call("run.share", fid=fid, **args)
    assert isinstance(answer, dict)
    return answer


async def link_of(node: Node, fid: str, **args: Any) -> bytes:
    return decode_token((await shared(node, fid, link=True, **args))["token"]).secret


async def opened(node: Node, secret: bytes, *peers: str) -> None:
    for peer in peers:
        await node.call("share.open", peer, secret=secret)


def downloads(row: dict[str, Any]) -> tuple[int, int]:
    return row["done"], row["under_way"]


def contents(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in home.rglob("*") if path.is_file()]


async def only_share(node: Node) -> dict[str, Any]:
    [row] = (await node.call("share.list"))["result"]
    assert isinstance(row, dict)
    return row


class Slow:
    """A call whose items are taken one at a time; `broken` is what the caller's going away looks like."""

    def __init__(self, node: Node, op: str, peer: str, **args: Any):
        self.items: list[Any] = []
        self.aborted = False
        self._room = asyncio.Semaphore(0)
        asked = SimpleNamespace(
            op=op,
            args=args,
            session=node.session(peer),
            send=self._send,
            send_frames=self._send_frames,
            abort=self._abort,
        )
        self.task = asyncio.create_task(node.service(asked))  # type: ignore[arg-type]

    async def _send(self, item: Any) -> None:
        await self._room.acquire()
        self.items.append(item)

    async def _send_frames(self, frames: bytes) -> None:
        for answer in FrameReader().feed(frames):
            await self._send(answer["item"])

    async def take(self, count: int) -> None:
        wanted = len(self.items) + count
        for _ in range(count):
            self._room.release()
        await settled(lambda: len(self.items) >= wanted or self.task.done())

    def _abort(self) -> None:
        self.aborted = True

    async def broken(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def refused(self) -> str:
        with pytest.raises(CallError) as caught:
            await self.task
        return f"{caught.value.code} {caught.value.reason}"


@contextlib.asynccontextmanager
async def world(tmp_path: Path, clock: StillClock) -> AsyncIterator[tuple[Node, str]]:
    """A node with a finished run of ana's."""
    async with node_of(tmp_path, clock) as node:
        yield node, await node.finished()


# --- for users and roles ---


async def test_a_run_shared_with_a_user_is_in_their_list_at_the_level_of_the_share(
    tmp_path: Path, clock: StillClock
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await node.finished()
        share = await shared(node, fid, to={"users": ["bob"]}, level=1)
        page = await node.call("run.list", "bob")
        assert [(row["fid"], row["own"], row["level"]) for row in page["result"]] == [(fid, False, 1)]
        state = await node.call("run.state", "bob", fid=fid)
        assert (state["level"], state["modes"], state["own"], state["agents"]) == (1, ["r"], False, [])
        assert state["inputs"] == {"n": 3}
        assert [output["name"] for output in state["outputs"]] == ["report.md"]
        await node.call("run.stream", "bob", fid=fid)
        names = [item["event"] for item in node.items]
        assert names == ["version", "flow", "inputs", "progress", "output", "final"]
        assert (await node.refused("run.state", "eve", fid=fid)).reason == "no-such-run"
        assert (await node.call("run.list", "eve"))["result"] == []
        await node.call("share.revoke", sid=share["sid"])
        assert (await node.refused("run.state", "bob", fid=fid)).code == 404
        assert (await node.call("run.list", "bob"))["result"] == []


async def test_a_role_is_everybody_who_has_it(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await shared(node, fid, to={"roles": ["operator"]})
        assert (await node.call("run.state", "home", fid=fid))["inputs"] == {"n": 3}
        assert (await node.refused("run.state", "bob", fid=fid)).code == 404
        await shared(node, fid, to={"roles": ["user"]}, level=2)
        assert (await node.call("run.state", "bob", fid=fid))["level"] == 2


async def test_with_whom_a_run_is_shared_is_for_its_launcher_and_operators(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        sid = (await shared(node, fid, to={"users": ["bob"], "roles": ["operator"]}, level=2))["sid"]
        for peer, told in (("ana", True), ("home", True), ("bob", False)):
            await node.call("run.stream", peer, fid=fid)
            assert any(item["event"] == "share" for item in node.items) is told, peer
            assert bool((await node.call("run.state", peer, fid=fid))["shares"]) is told, peer
        assert (await node.refused("share.list", "bob", fid=fid)).reason == "not-yours"
        [row] = (await node.call("share.list", "home", fid=fid))["result"]
        assert (row["sid"], row["to"]["users"], row["state"]) == (sid, ["bob"], "live")
        assert (await node.call("share.list", "bob"))["result"] == []
        assert (await node.refused("share.revoke", "bob", sid=sid)).reason == "no-such-share"
        await node.call("share.revoke", "home", sid=sid)
        await node.call("share.revoke", "home", sid=sid)
        await node.call("run.stream", fid=fid)
        assert [item["event"] for item in node.items][-2:] == ["share", "unshare"]


async def test_a_share_in_mode_x_lets_answer_and_kill_and_no_more(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        await shared(node, fid, to={"users": ["bob"]}, mode="x")
        await shared(node, fid, to={"users": ["eve"]}, mode="r")
        assert [row["lid"] for row in (await node.call("lock.list", "bob"))["result"]] == [LID]
        assert (await node.call("lock.list", "eve"))["result"] == []
        assert (await node.refused("lock.answer", "eve", fid=fid, lid=LID, candidate=True)).code == 403
        for op in ("run.delete", "run.ack"):
            assert (await node.refused(op, "bob", fid=fid)).reason == "not-yours"
        assert (await node.refused("run.share", "bob", fid=fid, link=True)).reason == "not-yours"
        await node.call("lock.answer", "bob", fid=fid, lid=LID, candidate=True)


@pytest.mark.parametrize(
    ("args", "code", "what"),
    [
        ({}, 400, "to"),
        ({"link": True, "to": {"users": ["bob"]}}, 400, "to"),
        ({"to": {"users": [], "roles": []}}, 400, "to"),
        ({"link": True, "mode": "x"}, 400, "mode"),
        ({"link": True, "level": 0, "downloads": 1}, 400, "downloads"),
        ({"link": True, "level": 3}, 400, "level"),
        ({"link": True, "expires_s": 0.5}, 400, "expires_s"),
        ({"link": True, "downloads": 0}, 400, "downloads"),
        ({"to": {"users": ["x" * 300]}}, 400, "to.users.0"),
        ({"to": {"users": ["x"] * 65}}, 400, "to.users"),
    ],
)
async def test_a_share_that_cannot_be_is_refused(
    tmp_path: Path, clock: StillClock, args: dict[str, Any], code: int, what: str
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        error = await node.refused("run.share", fid=fid, **args)
        assert (error.code, error.data.get("arg")) == (code, what)
        assert (await node.call("share.list"))["total_records"] == 0


# --- links ---


async def test_a_link_shows_its_run_and_nothing_else(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        other = await node.finished()
        answer = await shared(node, fid, link=True)
        link = decode_token(answer["token"])
        assert (link.peer_id, link.fid, answer["link"]) == (PEER, fid, f"kodo:{answer['token']}")
        assert [address.host for address in link.addresses] == ["192.0.2.7", "127.0.0.1"]
        assert (await node.refused("run.state", "eve", fid=fid)).code == 404
        told = await node.call("share.open", "eve", secret=link.secret)
        assert (told["fid"], told["level"], told["node"]["peer_id"]) == (fid, 1, str(PEER))
        assert told["expires_at"] == clock.ms + 7 * DAY * 1000
        assert (await node.call("run.state", "eve", fid=fid))["level"] == 1
        await node.call("output.read", "eve", fid=fid, name="report.md")
        assert len(b"".join(node.items)) == 160_000
        assert (await node.refused("run.state", "eve", fid=other)).code == 404
        assert (await node.call("run.list", "eve"))["result"] == []
        for op in ("run.kill", "run.restart", "run.ack", "run.delete", "run.share"):
            assert (await node.refused(op, "eve", fid=fid)).code == 403, op
        node.sessions.clear()
        assert (await node.refused("run.state", "eve", fid=fid)).code == 404


async def test_a_link_of_level_0_shows_no_outputs(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, level=0), "eve")
        assert (await node.call("run.state", "eve", fid=fid))["outputs"] == []
        assert (await node.refused("output.list", "eve", fid=fid)).code == 403


async def test_several_links_of_one_run_end_apart(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        first = await shared(node, fid, link=True, level=0)
        await opened(node, decode_token(first["token"]).secret, "eve")
        second = await link_of(node, fid, level=2)
        await opened(node, second, "eve", "bob")
        assert (await node.call("run.state", "eve", fid=fid))["level"] == 2
        await node.call("share.revoke", sid=first["sid"])
        assert (await node.call("run.state", "bob", fid=fid))["level"] == 2
        assert (await node.call("run.state", "eve", fid=fid))["level"] == 2


async def test_a_secret_is_nowhere_on_the_disk(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        answer = await shared(node, fid, link=True)
        secret = decode_token(answer["token"]).secret
        files = contents(tmp_path)
        assert any(fid.encode() in data for data in files)
        for canary in (secret, secret.hex().encode(), answer["token"][80:].encode()):
            assert not any(canary in data for data in files)


async def test_the_holder_of_a_dead_link_is_told_why_and_a_guesser_nothing(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        other, manager = await node.finished(), Manager(node.rig.store, node.rig.runs, node.rig.outputs)
        links = {
            "expired": await link_of(node, fid, expires_s=60.0),
            "used-up": await link_of(node, fid, downloads=1),
            "deleted": await link_of(node, other),
        }
        revoked = await shared(node, fid, link=True)
        links["revoked"] = decode_token(revoked["token"]).secret
        for secret in links.values():
            await opened(node, secret, "bob")
        await opened(node, links["used-up"], "eve")
        await node.call("output.read", "eve", fid=fid, name="report.md")
        await node.call("share.revoke", sid=revoked["sid"])
        await node.call("run.delete", fid=other)
        clock.advance(61)
        for reason, secret in links.items():
            error = await node.refused("share.open", "zoe", secret=secret)
            assert (error.code, error.reason) == (410, reason)
        guess = await node.refused("share.open", "zoe", secret=bytes(16))
        assert (guess.code, guess.reason, guess.data) == (404, "no-such-link", {})
        # Who had opened it is told as well.
        assert (await node.refused("run.state", "bob", fid=other)).reason == "deleted"
        assert (await node.refused("run.state", "bob", fid=fid)).code == 410
        clock.advance(2 * DAY)
        await manager.housekeeping.clean()
        for reason, secret in links.items():
            assert (await node.refused("share.open", "zoe", secret=secret)).reason == reason
        clock.advance(9 * DAY)
        await manager.housekeeping.clean()
        assert await manager.housekeeping.stale() == []
        for secret in links.values():
            assert (await node.refused("share.open", "zoe", secret=secret)).reason == "no-such-link"


async def test_of_a_deleted_run_its_links_leave_a_hash_alone(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        sid = (await shared(node, fid, to={"users": ["a-colleague-of-hers"]}))["sid"]
        await opened(node, await link_of(node, fid, downloads=5), "some-peer-id")
        await node.call("output.read", "some-peer-id", fid=fid, name="report.md")
        assert (await node.call("run.delete", fid=fid))["erased"]
        files = contents(tmp_path)
        for canary in (sid, fid, "a-colleague-of-hers", "some-peer-id"):
            assert not any(canary.encode() in data for data in files), canary


async def test_wrong_links_of_an_address_are_limited_and_lock_out_no_right_one(
    tmp_path: Path, clock: StillClock
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret, dead = await link_of(node, fid), await shared(node, fid, link=True)
        await node.call("share.revoke", sid=dead["sid"])
        for number in range(10):
            assert (await node.refused("share.open", f"p{number}", secret=bytes([number] * 16))).code == 404
        wrong = await node.refused("share.open", "q", secret=bytes(16))
        assert (wrong.code, wrong.reason) == (429, "too-many-guesses")
        revoked = decode_token(dead["token"]).secret
        assert (await node.refused("share.open", "q", secret=revoked)).code == 410
        for number in range(20):
            await opened(node, secret, f"holder{number}")
        clock.advance(wrong.data["retry_after_ms"] / 1000)
        assert (await node.refused("share.open", "q", secret=bytes(16))).code == 404


async def test_a_wrong_secret_costs_the_work_of_a_right_one(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid)
        dead = await shared(node, fid, link=True)
        await node.call("share.revoke", sid=dead["sid"])
        statements: list[int] = []
        read = node.rig.store._read

        async def counted(ask: Callable[[Any], Any]) -> Any:
            def traced(connection: Any) -> Any:
                seen: list[str] = []
                connection.set_trace_callback(seen.append)
                try:
                    return ask(connection)
                finally:
                    connection.set_trace_callback(None)
                    statements.append(len([each for each in seen if "share_to WHERE" not in each]))

            return await read(traced)

        node.rig.store._read = counted  # type: ignore[method-assign]
        for each in (secret, decode_token(dead["token"]).secret, bytes(16)):
            with contextlib.suppress(CallError):
                await node.call("share.open", "eve", secret=each)
        assert statements == [2, 2, 2]


async def test_a_session_opens_so_many_links_and_no_more(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        for _ in range(64):
            await opened(node, await link_of(node, fid), "eve")
        secret = await link_of(node, fid)
        assert (await node.refused("share.open", "eve", secret=secret)).reason == "too-many-links"


# --- the end of a share while it is used ---


async def mid_download(node: Node, fid: str, **args: Any) -> tuple[Slow, str]:
    answer = await shared(node, fid, link=True, **args)
    await opened(node, decode_token(answer["token"]).secret, "eve")
    slow = Slow(node, "output.read", "eve", fid=fid, name="report.md")
    await slow.take(1)
    return slow, str(answer["sid"])


@pytest.mark.parametrize("limit", [{}, {"downloads": 1}])
@pytest.mark.parametrize("end", ["revoked", "expired", "deleted"])
async def test_a_download_ends_with_its_share(
    tmp_path: Path, clock: StillClock, end: str, limit: dict[str, int]
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        slow, sid = await mid_download(node, fid, expires_s=90.0, **limit)
        match end:
            case "revoked":
                await node.call("share.revoke", sid=sid)
            case "expired":
                clock.advance(60)
                await asyncio.sleep(0)
                assert not slow.task.done()
                clock.advance(30)
                await settled(slow.task.done)
            case _:
                await node.call("run.delete", fid=fid)
        assert await slow.refused() == f"410 {end}"
        assert slow.aborted
        assert len(slow.items) == 1
        assert not node.rig.shares._uses
        assert not node.rig.shares._downloads


async def test_following_ends_with_its_share_and_the_launcher_follows_on(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        sid = (await shared(node, fid, to={"users": ["bob"]}))["sid"]
        sharee, launcher = (Slow(node, "run.stream", peer, fid=fid) for peer in ("bob", "ana"))
        await sharee.take(4)
        assert [item["event"] for item in sharee.items] == ["version", "flow", "inputs", "lock"]
        await node.call("share.revoke", sid=sid)
        assert await sharee.refused() == "410 revoked"
        await launcher.take(6)
        assert [item["event"] for item in launcher.items][-2:] == ["share", "unshare"]
        await launcher.broken()


async def test_a_share_that_ends_before_its_use_begins_is_not_used(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        share = await node.rig.shares.get((await shared(node, fid, link=True))["sid"])
        assert share is not None
        await node.rig.shares.revoke(share, "ana")
        with pytest.raises(CallError, match="revoked"):
            async with node.rig.shares.using(share, pytest.fail):
                pytest.fail("it was used")


# --- downloads that are counted ---


async def test_a_complete_download_counts_once(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid, downloads=2)
        await opened(node, secret, "eve")
        for _ in range(3):
            await node.call("output.read", "eve", fid=fid, name="report.md")
        assert downloads(await only_share(node)) == (1, 0)
        await opened(node, secret, "bob")
        await node.call("output.read", "bob", fid=fid, name="report.md")
        row = await only_share(node)
        assert (downloads(row), row["state"]) == ((2, 0), "used-up")
        assert (await node.refused("share.open", "zoe", secret=secret)).reason == "used-up"
        # Both may read again for a day; then nobody.
        await node.call("output.read", "eve", fid=fid, name="report.md")
        clock.advance(DAY)
        assert (await node.refused("output.read", "eve", fid=fid, name="report.md")).reason == "used-up"


async def test_a_download_goes_on_where_it_was_cut_and_counts_once(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=1), "eve")
        first = Slow(node, "output.read", "eve", fid=fid, name="report.md")
        await first.take(2)
        await first.broken()
        assert downloads(await only_share(node)) == (0, 1)
        clock.advance(DAY - 1)
        await node.call("output.read", "eve", fid=fid, name="report.md", offset=65536)
        assert downloads(await only_share(node)) == (1, 0)


async def test_a_place_is_held_against_others_and_lapses_after_a_day(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid, downloads=2)
        await opened(node, secret, "eve", "bob", "zoe")
        for peer in ("eve", "bob"):
            slow = Slow(node, "output.read", peer, fid=fid, name="report.md")
            await slow.take(1)
            await slow.broken()
        error = await node.refused("output.read", "zoe", fid=fid, name="report.md")
        assert (error.code, error.reason) == (429, "busy")
        assert error.data["retry_after_ms"] > 0
        clock.advance(DOWNLOAD_MS / 1000)
        # What was begun, and never ended, counts: those bytes are given.
        assert (await node.refused("output.read", "zoe", fid=fid, name="report.md")).reason == "used-up"


@pytest.mark.parametrize("whole", [True, False])
async def test_who_comes_back_after_a_day_begins_another_download(
    tmp_path: Path, clock: StillClock, whole: bool
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=2), "eve")
        first = Slow(node, "output.read", "eve", fid=fid, name="report.md")
        await first.take(9 if whole else 1)
        await first.broken()
        assert downloads(await only_share(node)) == ((1, 0) if whole else (0, 1))
        clock.advance(DAY)
        await node.call("output.read", "eve", fid=fid, name="report.md")
        assert downloads(await only_share(node)) == (2, 0)


async def big(run: InProcessRunner) -> None:
    run.output("big.bin", bytes(20_000_000))


@contextlib.asynccontextmanager
async def big_world(tmp_path: Path, clock: StillClock, downloads: int) -> AsyncIterator[tuple[Node, str, bytes]]:
    """A node with a run whose output has 305 pieces, and a link to it for some downloads."""
    async with world(tmp_path, clock) as (node, _):
        node.rig.executor.flows["big"] = big
        fid = await node.rig.launch("big")
        await node.rig.all_events(fid)
        yield node, fid, await link_of(node, fid, downloads=downloads)


async def sip(node: Node, fid: str, peer: str, pieces: int = 3, offset: int = 0) -> None:
    """Read a little of it, under 1 %, and break off."""
    slow = Slow(node, "output.read", peer, fid=fid, name="big.bin", offset=offset)
    await slow.take(pieces)
    await slow.broken()


async def test_a_download_that_broke_at_once_takes_no_place(tmp_path: Path, clock: StillClock) -> None:
    async with big_world(tmp_path, clock, 1) as (node, fid, secret):
        await opened(node, secret, "eve", "bob")
        await sip(node, fid, "eve")
        assert downloads(await only_share(node)) == (0, 0)
        await node.call("output.read", "bob", fid=fid, name="big.bin")
        assert downloads(await only_share(node)) == (1, 0)
        assert (await node.refused("output.read", "eve", fid=fid, name="big.bin")).reason == "used-up"


async def test_breaking_off_often_is_no_way_to_take_more(tmp_path: Path, clock: StillClock) -> None:
    async with big_world(tmp_path, clock, 1) as (node, fid, secret):
        await opened(node, secret, "eve")
        await sip(node, fid, "eve")
        await sip(node, fid, "eve", offset=3 * 65536)
        assert downloads(await only_share(node)) == (0, 1)


async def test_many_peers_that_take_a_little_each_take_one_download_together(
    tmp_path: Path, clock: StillClock
) -> None:
    async with big_world(tmp_path, clock, 2) as (node, fid, secret):
        for number in range(102):
            await opened(node, secret, f"peer{number}")
            await sip(node, fid, f"peer{number}", offset=min(number * 3 * 65536, 19_800_000))
        assert downloads(await only_share(node)) == (1, 0)
        clock.advance(DAY)
        await opened(node, secret, "eve")
        await node.call("output.read", "eve", fid=fid, name="big.bin")
        assert downloads(await only_share(node)) == (2, 0)


async def test_at_once_no_more_peers_get_it_than_may(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid, downloads=3)
        peers = [f"peer{number}" for number in range(20)]
        await opened(node, secret, *peers)

        async def read(peer: str) -> str:
            try:
                return str((await node.call("output.read", peer, fid=fid, name="report.md"))["bytes"])
            except CallError as error:
                return error.reason

        found = await asyncio.gather(*(read(peer) for peer in peers for _ in range(2)))
        whole = {
            peer
            for peer, answer in zip([p for p in peers for _ in range(2)], found, strict=True)
            if answer == "160000"
        }
        assert len(whole) == 3
        assert {answer for answer in found if answer != "160000"} <= {"busy", "used-up"}
        assert downloads(await only_share(node)) == (3, 0)


async def test_a_run_of_several_files_is_downloaded_when_all_are(tmp_path: Path, clock: StillClock) -> None:
    async def many(run: InProcessRunner) -> None:
        for number in range(4):
            run.output(f"{number}.bin", bytes(number * 70_000))

    async with world(tmp_path, clock) as (node, _):
        node.rig.executor.flows["many"] = many
        fid = await node.rig.launch("many")
        await node.rig.all_events(fid)
        await opened(node, await link_of(node, fid, downloads=1), "eve")
        slow = Slow(node, "output.read", "eve", fid=fid, name="3.bin")
        await slow.take(1)
        for name in ("0.bin", "2.bin", "1.bin"):
            await node.call("output.read", "eve", fid=fid, name=name)
        assert downloads(await only_share(node)) == (0, 1)
        await slow.take(9)
        assert (await slow.task)["bytes"] == 210_000
        assert downloads(await only_share(node)) == (1, 0)


def copy_home(home: Path, to: Path) -> None:
    for path in home.glob("node.db*"):
        shutil.copy(path, to)
    shutil.copytree(home / "outputs", to / "outputs")


async def test_a_place_survives_a_crash_at_any_moment(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        secret = await link_of(node, fid, downloads=1)
        await opened(node, secret, "eve")
        slow = Slow(node, "output.read", "eve", fid=fid, name="report.md")
        await slow.take(1)
        # What is on the disk now is what a killed node would find.
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        copy_home(tmp_path, crashed)
        await slow.broken()
    async with node_of(crashed, clock) as node:
        await opened(node, secret, "eve", "bob")
        assert (await node.refused("output.read", "bob", fid=fid, name="report.md")).reason == "busy"
        await node.call("output.read", "eve", fid=fid, name="report.md", offset=65536)
        assert downloads(await only_share(node)) == (1, 0)
        assert (await node.refused("output.read", "bob", fid=fid, name="report.md")).reason == "used-up"


# --- what need not be kept ---


async def test_a_run_with_a_live_share_is_kept_until_it_ends(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        manager = Manager(node.rig.store, node.rig.runs, node.rig.outputs, retention_s=DAY)
        await node.rig.gone(fid)
        secret = await link_of(node, fid, expires_s=3 * DAY)
        used = await link_of(node, fid, expires_s=30 * DAY, downloads=1)
        await opened(node, used, "eve")
        await node.call("output.read", "eve", fid=fid, name="report.md")
        await node.call("run.ack", fid=fid)
        clock.advance(2 * DAY)
        assert [each.kind for each in await manager.housekeeping.clean()] == ["share"]
        assert (await node.call("run.state", fid=fid))["acknowledged"]
        clock.advance(DAY)
        assert [(each.kind, each.id) for each in await manager.housekeeping.clean()] == [("run", fid)]
        assert (await node.refused("run.state", fid=fid)).code == 404
        assert (await node.refused("share.open", "eve", secret=used)).reason == "used-up"
        assert (await node.refused("share.open", "eve", secret=secret)).reason == "no-such-link"


async def test_a_run_that_is_shared_while_it_is_being_cleaned_away_stays(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        housekeeping = Manager(node.rig.store, node.rig.runs, node.rig.outputs, retention_s=0).housekeeping
        await node.rig.gone(fid)
        await node.call("run.ack", fid=fid)
        stale = housekeeping.stale

        async def late(*kinds: Any) -> Any:
            found = await stale(*kinds)
            await shared(node, fid, link=True)
            return found

        housekeeping.stale = late  # type: ignore[method-assign]
        assert await housekeeping.clean(["run"]) == []
        assert (await node.call("run.state", fid=fid))["acknowledged"]
        assert (await node.call("output.list", fid=fid))["result"]


async def test_what_cleanup_shows_of_shares_is_what_goes(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        housekeeping = Manager(node.rig.store, node.rig.runs, node.rig.outputs).housekeeping
        sids = [(await shared(node, fid, link=True, expires_s=60.0 + n))["sid"] for n in range(3)]
        await node.call("share.revoke", sid=sids[0])
        assert [each.id for each in await housekeeping.stale(["share"])] == [sids[0]]
        assert await housekeeping.stale(["run"]) == []
        assert [each.id for each in await housekeeping.clean(["share"])] == [sids[0]]
        clock.advance(8 * DAY)
        shown = await housekeeping.stale()
        assert {each.id for each in shown} >= {sids[1], sids[2], "links"}
        assert await housekeeping.clean() == shown
        assert (await node.call("share.list"))["total_records"] == 0


async def test_the_shares_of_a_run_are_bounded(tmp_path: Path, clock: StillClock, monkeypatch: Any) -> None:
    monkeypatch.setattr("kodo.node.store.share_changes.MAX_SHARES", 3)
    async with world(tmp_path, clock) as (node, fid):
        for _ in range(3):
            await shared(node, fid, to={"users": ["bob"]})
        with pytest.raises(Exception, match="3 shares"):
            await shared(node, fid, to={"users": ["bob"]})
        await node.call("run.stream", fid=fid)
        assert [item["event"] for item in node.items].count("share") == 3


@pytest.mark.parametrize("room", [0, 1])
async def test_a_full_disk_sends_nothing_and_burns_no_place(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=1), "eve", "bob")
        write, left = node.rig.store.write, [room]

        async def full(work: Any) -> Any:
            if not left[0]:
                raise CapacityError("the disk is full")
            left[0] -= 1
            return await write(work)

        with monkeypatch.context() as patch:
            patch.setattr(node.rig.store, "write", full)
            with pytest.raises(CapacityError):
                await node.call("output.read", "eve", fid=fid, name="report.md")
            assert node.items == []
        await node.call("output.read", "bob", fid=fid, name="report.md")
        assert downloads(await only_share(node)) == (1, 0)


async def test_peers_that_resume_a_share_at_once_after_a_full_disk_are_counted_once_each(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        peers = ("eve", "bob", "zoe")
        await opened(node, await link_of(node, fid, downloads=10), *peers)
        write, applied, ended = node.rig.store.write, [], asyncio.Barrier(len(peers))

        async def full(work: Any) -> Any:
            if work.__name__ == "settle":
                await ended.wait()
                raise CapacityError("the disk is full")
            return await write(work)

        async def read_all() -> None:
            async with asyncio.TaskGroup() as group:
                for peer in peers:
                    group.create_task(node.call("output.read", peer, fid=fid, name="report.md"))

        async def noted(work: Any) -> Any:
            if work.__name__ == "settle":
                applied.append(work)
            await asyncio.sleep(0)
            return await write(work)

        with monkeypatch.context() as patch:
            patch.setattr(node.rig.store, "write", full)
            await read_all()
            owed = list(node.rig.shares._owed.values())
            assert len(owed) == 3
        monkeypatch.setattr(node.rig.store, "write", noted)
        await read_all()
        assert [applied.count(each) for each in owed] == [1, 1, 1]
        assert downloads(await only_share(node)) == (3, 0)
