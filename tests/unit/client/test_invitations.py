"""Invitations in the library: what is sent, what opening tells, and that every call says by which it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.errors import CallError, PeerError, UsageError
from kodo.protocol.link import Link, encode_token, write_link
from tests.support.world import DATA, FID, World

SID = "01m8pwjq1qz19hfn2fb8gk6cgq"
ABOUT = {
    **{"path": "flows.b", "name": "Bee", "schema": {"type": "object"}, "inputs": {"n": 1, "m": 1}},
    **{"launches": 5, "launched": 0, "see": True, "by": "ana", "note": "please", "state": "live"},
}


def link_to(world: World, fid: str = SID) -> str:
    addresses = tuple(address.with_peer(world.host.peer_id) for address in world.host.addresses())
    return write_link(encode_token(Link(world.host.peer_id, fid, bytes(16), addresses)))


@pytest.fixture
def invited(world: World) -> World:
    world.service.answers |= {
        "share.open": {"fid": SID, "sid": SID, "level": 1, "invitation": ABOUT},
        "run.list": {"result": [{"fid": FID}], "total_pages": 1},
        "lock.list": {"result": [], "total_pages": 1},
        "input.write": {"upload": f"upload-{FID}", "offset": 4, "complete": True},
    }
    return world


async def test_what_is_said_of_an_invitation_is_sent(world: World, tmp_path: Path) -> None:
    world.service.answers["invitation.add"] = {"sid": SID, "link": "kodo:x", "token": "x"}
    async with world.client(tmp_path) as client:
        made = await client.invitations.add(
            "n.example/flows.b", launches=2, expires="1d", level=0, note="hi", see=True, n=1
        )
    assert (made.sid, str(made), "kodo:x" in repr(made)) == (SID, "kodo:x", False)
    assert made.at("https://flows.example.com/") == "https://flows.example.com/#open=x"
    with pytest.raises(UsageError, match="not the URL of a page"):
        made.at("javascript:alert(1)")
    sent = {"path": "flows.b", "inputs": {"n": 1}, "launches": 2, "note": "hi", "see": True, "level": 0}
    assert world.service.calls[-1] == ("invitation.add", {**sent, "expires_s": 86_400.0})


@pytest.mark.parametrize("expires", ["soon", "0s", "11000d", -1])
async def test_an_invitation_expires_after_a_duration(world: World, tmp_path: Path, expires: Any) -> None:
    async with world.client(tmp_path) as client:
        with pytest.raises(UsageError, match="expires after"):
            await client.invitations.add("n.example/flows.b", expires=expires)
    assert world.service.calls == []


async def test_every_call_of_a_guest_says_by_which_invitation_it_is_made(invited: World, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    async with invited.client(tmp_path / "home") as client:
        opened = await client.open(link_to(invited))
        assert (opened.sid, opened.flow.path, opened.flow.name) == (SID, "flows.b", "Bee")
        run = await opened.launch({"n": 2, "doc": tmp_path / "a.txt"}, key="k")
        assert [event.seq async for event in run.follow()][-1] == 200
        await run.answer(FID, True)
        [file] = await run.download(tmp_path / "out")
        assert (tmp_path / "out" / file.name).read_bytes() == DATA
        assert [row["fid"] for row in await opened.runs()] == [FID]
        assert await opened.locks() == []
        await opened.run(FID).state()
    calls = [(op, args) for op, args in invited.service.calls if op != "share.open"]
    assert {op for op, _ in calls} >= {"run.launch", "run.stream", "lock.answer", "output.read", "input.write"}
    assert all(args["invitation"] == SID for _, args in calls)
    [sent] = [args for op, args in calls if op == "run.launch"]
    assert sent["inputs"] == {"n": 2, "m": 1, "doc": f"upload-{FID}"}
    assert [op for op, _ in invited.service.calls].count("share.open") == 1


async def test_a_link_to_a_run_and_an_invitation_are_told_apart(invited: World, tmp_path: Path) -> None:
    async with invited.client(tmp_path) as client:
        with pytest.raises(UsageError, match="koco open"):
            await client.get(link_to(invited))
    async with invited.client(tmp_path) as client:
        invited.service.answers["share.open"] = {"fid": FID, "level": 1}
        with pytest.raises(UsageError, match="shows a run"):
            await client.open(link_to(invited, FID))
        with pytest.raises(UsageError, match="not a link"):
            await client.open("kodo:nonsense!")


async def test_an_invitation_is_opened_again_in_the_same_session(invited: World, tmp_path: Path) -> None:
    async with invited.client(tmp_path) as client:
        first, second = [await client.open(link_to(invited)) for _ in range(2)]
        assert first.about == second.about == ABOUT
    assert [op for op, _ in invited.service.calls] == ["share.open"]


async def test_a_node_that_answers_nonsense_is_not_believed(invited: World, tmp_path: Path) -> None:
    async with invited.client(tmp_path) as client:
        invited.service.answers["share.open"] = {"fid": FID, "invitation": ABOUT}
        with pytest.raises(PeerError, match="another run"):
            await client.open(link_to(invited))
    async with invited.client(tmp_path) as client:
        invited.service.answers["share.open"] = {"fid": SID, "invitation": "text"}
        with pytest.raises(UsageError):
            await client.open(link_to(invited))
    async with invited.client(tmp_path) as client:
        del invited.service.answers["share.open"]
        with pytest.raises(CallError):
            await client.open(link_to(invited))
