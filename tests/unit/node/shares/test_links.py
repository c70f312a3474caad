"""Links: what one shows, what its holder is told when it is dead, and that guessing is no use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kodo.node.housekeeping.deletion import Manager
from kodo.p2p.errors import CallError
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import PEER
from tests.unit.node.shares.share_rig import (
    DAY,
    contents,
    link_of,
    opened,
    shared,
    world,
)


async def test_a_link_shows_its_run_and_nothing_else(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        other = await node.finished()
        answer = await shared(node, fid, link=True)
        link = decode_token(answer["token"])
        assert (link.peer_id, link.fid, answer["link"]) == (PEER, fid, f"kodo:{answer['token']}")
        assert [address.host for address in link.addresses] == ["192.0.2.7"]
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
        assert statements == [1, 2] * 3  # an invitation, a share


async def test_a_session_opens_so_many_links_and_no_more(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        for _ in range(64):
            await opened(node, await link_of(node, fid), "eve")
        secret = await link_of(node, fid)
        assert (await node.refused("share.open", "eve", secret=secret)).reason == "too-many-links"
