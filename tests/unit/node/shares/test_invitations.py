"""Invitations: a link launches one flow so often in its maker's name, shows those runs only, and ends at once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.node.store.transaction import Transaction
from kodo.protocol.access import Grant, Principal
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.service_rig import LID, Node, info, node_of
from tests.unit.node.test_service import FILE, TEXT, TWO

DAY = 86_400.0
LINGER = [info("flows.linger", "linger")]


async def invited(node: Node, **args: Any) -> tuple[str, bytes]:
    made = await node.call("invitation.add", **{"path": "flows.work", "inputs": {"n": 1}, **args})
    link = decode_token(made["token"])
    assert link.fid == made["sid"]
    return link.fid, link.secret


async def opened(node: Node, peer: str = "eve", **args: Any) -> str:
    sid, secret = await invited(node, **args)
    await node.call("share.open", peer, secret=secret)
    return sid


async def launch(node: Node, sid: str, peer: str = "eve", path: str = "flows.work", **args: Any) -> str:
    args = {"inputs": {"n": 2}, **args}
    return str((await node.call("run.launch", peer, path=path, invitation=sid, **args))["fid"])


def maker_may(node: Node, *grants: Grant) -> None:
    async def present(principal: str) -> Principal:
        return Principal(principal, principal, grants=grants)

    node.provider.present = present


def holding(folder: Path, secret: bytes) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and secret in file.read_bytes()]


NODE = Grant("node", "*")


async def test_what_its_holder_has_to_know_is_told_when_it_is_opened(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid, secret = await invited(node, note="please", launches=3, see=True, expires_s=DAY)
        told = await node.call("share.open", "eve", secret=secret)
        about = told["invitation"]
        assert (told["fid"], told["sid"], told["level"], told["expires_at"]) == (sid, sid, 1, clock.ms + 86_400_000)
        assert {name: about[name] for name in ("path", "inputs", "note", "launches", "launched", "see", "by")} == {
            **{"path": "flows.work", "inputs": {"n": 1}, "note": "please"},
            **{"launches": 3, "launched": 0, "see": True, "by": "ana"},
        }
        assert about["schema"]["properties"] == {"n": {"type": "integer"}}


async def test_its_holder_launches_sees_answers_and_reads_the_runs_of_the_invitation_alone(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock, more=LINGER) as node:
        other = await node.finished()
        own = (await node.call("run.launch", "eve", path="flows.work", inputs={"n": 9}))["fid"]
        sid = await opened(node)
        asks = await opened(node, path="flows.linger")
        fid, asking = await launch(node, sid), await launch(node, asks, path="flows.linger")
        await node.rig.all_events(fid)
        await node.rig.until(asking, "lock")
        assert [
            row["fid"] for row in (await node.call("run.list", "eve", invitation=sid, others=True))["result"]
        ] == [fid]
        state = await node.call("run.state", "eve", fid=fid, invitation=sid)
        assert (state["inputs"], state["level"], state["own"], state["agents"]) == ({"n": 2}, 1, True, [])
        assert (await node.call("output.list", "eve", fid=fid, invitation=sid))["total_records"] == 1
        [_, flow, *_] = await node.rig.store.events(fid)
        assert flow.data["invitation"] == {"sid": sid}
        [lock] = (await node.call("lock.list", "eve", invitation=asks))["result"]
        assert (lock["fid"], lock["lid"]) == (asking, LID)
        await node.call("lock.answer", "eve", fid=asking, lid=LID, candidate=True, invitation=asks)
        for hidden in (other, own, asking):
            assert (await node.refused("run.state", "eve", fid=hidden, invitation=sid)).reason == "no-such-run"
        for whose in ({}, {"invitation": asks}):
            assert (await node.refused("run.state", "eve", fid=fid, **whose)).reason == "no-such-run"
        assert fid not in [row["fid"] for row in (await node.call("run.list", "eve"))["result"]]
        assert fid not in [row["fid"] for row in (await node.call("run.list"))["result"]]
        assert (await node.refused("run.launch", "eve", path="flows.ask", invitation=sid)).reason == "no-such-flow"


async def test_only_a_session_that_has_opened_it_may_use_it(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node)
        fid = await launch(node, sid)
        for peer in ("ana", "bob"):
            for op in ("run.state", "run.launch"):
                args: dict[str, Any] = {"fid": fid} if op == "run.state" else {"path": "flows.work"}
                assert (await node.refused(op, peer, **args, invitation=sid)).reason == "no-such-link"
        assert (await node.refused("run.state", "eve", fid=fid, invitation=sid, behalf=fid)).reason == "bad-args"
        for op in ("run.delete", "run.share", "run.restart", "run.ack"):
            assert (await node.refused(op, "eve", fid=fid, invitation=sid)).reason == "not-granted"


async def test_it_launches_so_often_and_a_repetition_does_not_count(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node, launches=2)
        first = await launch(node, sid, key="a")
        assert await launch(node, sid, key="a") == first
        refused = await node.refused("run.launch", "eve", path="flows.work", inputs={"n": "x"}, invitation=sid)
        assert refused.reason == "bad-inputs"
        given = {"path": "flows.work", "inputs": {"n": 1}, "invitation": sid}
        answers = await asyncio.gather(
            *(node.call("run.launch", "eve", **given) for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(each, dict) for each in answers) == 1
        assert {each.reason for each in answers if not isinstance(each, dict)} == {"used-up"}  # type: ignore[union-attr]
        [row] = (await node.call("invitation.list"))["result"]
        assert (row["launched"], row["state"]) == (2, "used-up")
        assert (await node.call("run.state", "eve", fid=first, invitation=sid))["fid"] == first
        assert len((await node.call("run.list", "eve", invitation=sid))["result"]) == 2


@pytest.mark.parametrize("see", [True, False])
async def test_its_maker_sees_its_runs_only_where_that_was_said(tmp_path: Path, clock: StillClock, see: bool) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node, see=see)
        fid = await launch(node, sid, key="a")
        await launch(node, sid, key="a")
        await node.rig.all_events(fid)
        mine = [row["fid"] for row in (await node.call("run.list"))["result"]]
        assert mine == ([fid] if see else [])
        if see:
            state = await node.call("run.state", fid=fid)
            assert (state["own"], state["modes"], state["level"]) == (False, ["r"], 1)
            assert (await node.refused("run.kill", fid=fid)).reason == "not-granted"
        else:
            assert (await node.refused("run.state", fid=fid)).reason == "no-such-run"


async def test_its_maker_sees_a_run_whose_guest_went_away_at_once(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node, see=True)
        part, name = node.rig.store, "create"
        work, there, go_on = getattr(part, name), asyncio.Event(), asyncio.Event()

        async def slowly(*args: Any, **given: Any) -> Any:
            there.set()
            await go_on.wait()
            return await work(*args, **given)

        monkeypatch.setattr(part, name, slowly)
        asked = asyncio.ensure_future(launch(node, sid))
        await there.wait()
        asked.cancel()
        await asyncio.wait([asked])
        said: list[str] = []
        node.rig.store.subscribe(lambda commit: said.extend(event.event for event in commit.events))
        go_on.set()
        await settled(lambda: "share" in said)
        [row] = (await node.call("run.list"))["result"]
        state = await node.call("run.state", fid=row["fid"])
        assert (asked.cancelled(), state["own"], state["modes"]) == (True, False, ["r"])


async def test_a_run_and_that_its_maker_sees_it_are_stored_at_once_so_that_no_crash_parts_them(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node, see=True)
        at_commit: list[list[str]] = []

        def look(tx: Transaction) -> Callable[[], None]:
            at_commit.append([event.event for commit in tx.commits for event in commit.events])
            return lambda: None

        node.rig.store.before_commit(look)
        await launch(node, sid)
        [first] = [events for events in at_commit if "flow" in events]
        assert "share" in first


async def test_a_launch_that_is_sent_twice_at_once_shows_its_run_to_the_maker_once(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node, see=True, launches=1)
        fids = await asyncio.gather(*(launch(node, sid, key="k") for _ in range(8)))
        assert len(set(fids)) == 1
        assert len(await node.rig.shares.of_run(fids[0])) == 1
        assert [row["launched"] for row in (await node.call("invitation.list"))["result"]] == [1]


async def test_what_goes_on_by_it_ends_when_it_is_revoked_or_expires(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=LINGER) as node:
        for ended in ("revoked", "expired"):
            sid = await opened(node, path="flows.linger", expires_s=60.0)
            fid = await launch(node, sid, path="flows.linger")
            await node.rig.until(fid, "lock")
            following = asyncio.ensure_future(node.call("run.stream", "eve", fid=fid, invitation=sid))
            await settled(lambda: node.invitations._revoked.get(sid))  # noqa: B023
            if ended == "revoked":
                assert (await node.call("share.revoke", sid=sid))["revoked"] is True
            else:
                clock.advance(31)
                await settled(lambda: clock.asleep_for(29))
                clock.advance(30)
            with pytest.raises(Exception, match=ended):
                await following
            refused = await node.refused("run.state", "eve", fid=fid, invitation=sid)
            assert (refused.code, refused.reason) == (410, ended)
            assert (await node.call("run.list", "ana", others=True))["result"] == []


@pytest.mark.parametrize(
    ("grants", "reason"),
    [
        ((), "revoked"),
        ((Grant("flow", "*", 2, "x"),), "revoked"),
        ((NODE, Grant("flow", "*", 2, "r")), "revoked"),
        ((NODE, Grant("flow", "other.*", 2, "x")), "revoked"),
    ],
)
async def test_a_maker_who_may_not_any_more_lets_nobody_in(
    tmp_path: Path, clock: StillClock, grants: tuple[Grant, ...], reason: str
) -> None:
    async with node_of(tmp_path, clock) as node:
        sid, secret = await invited(node)
        await node.call("share.open", "eve", secret=secret)
        fid = await launch(node, sid)
        maker_may(node, *grants)
        for op, args in (("run.launch", {"path": "flows.work"}), ("run.state", {"fid": fid}), ("run.list", {})):
            assert (await node.refused(op, "eve", **args, invitation=sid)).reason == reason
        assert (await node.refused("share.open", "bob", secret=secret)).reason == reason


async def test_it_shows_at_most_what_its_maker_sees_now(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid = await opened(node, level=2)
        fid = await launch(node, sid)
        await node.rig.all_events(fid)
        assert (await node.call("run.state", "eve", fid=fid, invitation=sid))["level"] == 2
        maker_may(node, NODE, Grant("flow", "*", 0, "x"))
        assert (await node.call("run.state", "eve", fid=fid, invitation=sid))["level"] == 0
        assert (await node.refused("output.list", "eve", fid=fid, invitation=sid)).reason == "not-granted"


async def test_a_path_that_looks_like_a_pattern_is_itself_alone(tmp_path: Path, clock: StillClock) -> None:
    more = [info("flows/[ab]*.yaml", "work"), info("flows/ax.yaml", "work")]
    async with node_of(tmp_path, clock, more=more) as node:
        sid = await opened(node, path="flows/[ab]*.yaml")
        await launch(node, sid, path="flows/[ab]*.yaml")
        assert (
            await node.refused("run.launch", "eve", path="flows/ax.yaml", invitation=sid)
        ).reason == "no-such-flow"


async def test_files_of_its_holder_are_for_its_runs(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=[{**info("flows.read", "read"), "schema": FILE}]) as node:
        sid = await opened(node, path="flows.read", inputs={})
        doc = (await node.call("input.write", "eve", [b"text"], **TEXT, invitation=sid))["upload"]
        fid = await launch(node, sid, path="flows.read", inputs={"doc": doc})
        assert (await node.rig.all_events(fid))[-1].data["result"] == "text"
        assert (await node.refused("run.launch", "ana", path="flows.read", inputs={"doc": doc})).code == 404


async def test_what_an_invitation_cannot_keep_is_refused(tmp_path: Path, clock: StillClock) -> None:
    more = [{**info("flows.two", "work"), "schema": TWO}]
    async with node_of(tmp_path, clock, more=more) as node:
        doc = (await node.call("input.write", **TEXT, pieces=[b"text"]))["upload"]
        for given, reason in (
            ({"inputs": {"n": 1, "token": "t"}}, "secret-inputs"),
            ({"inputs": {"n": 1, "doc": doc}}, "secret-inputs"),
            ({"inputs": {"n": "x"}}, "bad-inputs"),
            ({"inputs": {"n": 1, "place": {"a": "x" * 70_000}}}, "too-large"),
            ({"path": "flows.none"}, "no-such-flow"),
            ({"launches": 0}, "bad-args"),
            ({"launches": 10_001}, "bad-args"),
            ({"level": 3}, "bad-args"),
            ({"note": "x" * 501}, "bad-args"),
            ({"expires_s": 0}, "bad-args"),
        ):
            refused = await node.refused("invitation.add", **{"path": "flows.two", **given})
            assert refused.reason == reason, given
        await node.call("invitation.add", path="flows.two", inputs={})  # required ones are for its holder to give


async def test_a_secret_is_stored_nowhere_and_a_wrong_one_opens_nothing(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid, secret = await invited(node)
        assert (await node.refused("share.open", "eve", secret=bytes(16))).reason == "no-such-link"
        assert sid not in str(await node.refused("share.revoke", "bob", sid=sid))
        shown = await node.call("invitation.list")
        assert "token" not in shown["result"][0]
        assert (await node.call("invitation.list", "bob"))["total_records"] == 0
    assert not holding(tmp_path, secret)


async def test_one_user_has_bounded_invitations_and_old_ones_go(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        sid, _ = await invited(node)

        def many(tables: sqlite3.Connection) -> None:
            columns = "principal, payer, path, name, inputs, note, level, launches, see, created, expires, launched"
            tables.executemany(
                f"INSERT INTO invitations (sid, digest, {columns}) SELECT ?, randomblob(32), {columns}"
                " FROM invitations WHERE sid=?",
                [(f"{number:026d}", sid) for number in range(199)],
            )

        await node.rig.store.change(many)
        assert (await node.refused("invitation.add", path="flows.work")).reason == "busy"
        clock.advance(15 * DAY)
        await invited(node)
        assert (await node.call("invitation.list"))["total_records"] == 1
