"""Calls: every op answers as the README says, and what is somebody else's does not exist."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from kodo.node.runs.launch import Order
from kodo.protocol.access import Grant, Principal
from kodo.protocol.events import Event, RunView
from kodo.protocol.run_state import launched_state
from kodo.protocol.secrets import MASK
from tests.unit.node.conftest import StillClock, fid_of, settled
from tests.unit.node.service_rig import LID, PEER, SCHEMA, info, node_of


async def test_node_state(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        clock.advance(90)
        state = await node.call("node.state")
        assert (state["name"], state["peer_id"], state["version"], state["uptime_s"]) == (
            "flows.example.com",
            str(PEER),
            "0.1.0",
            90.0,
        )
        assert state["load"] == {"cpu": 1.0, "memory": 2.0, "runners": {"free": 4, "busy": 5}, "queued": 6}
        assert state["registries"] == []


async def test_whoami_and_info(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        assert (await node.call("auth.info"))["provider"] == "null"
        who = await node.call("auth.whoami", "home")
        assert (who["principal"], who["roles"], who["grants"]) == (
            "home",
            ["operator", "user"],
            ["node://*", "flow://*/2/x", "memory://*/w"],
        )


async def test_flows_are_listed_in_pages(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        page = await node.call("flow.list", pp=1, p=2, by="path")
        assert (page["total_records"], page["filtered_records"], page["total_pages"]) == (2, 2, 2)
        assert [row["path"] for row in page["result"]] == ["flows.work"]


async def test_flows_are_filtered_by_a_query(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        page = await node.call("flow.list", query='online and path.str.endswith("work") and performance.isnull()')
        assert (page["total_records"], page["filtered_records"]) == (2, 1)
        assert [row["path"] for row in page["result"]] == ["flows.work"]
        assert page["query"].startswith("online and")
        about = await node.call("node.state")
        assert (await node.call("flow.list", query=f"node == {about['name']!r}"))["filtered_records"] == 2
        refused = await node.refused("flow.list", query="x > 1")
        assert (refused.reason, refused.data) == ("bad-args", {"arg": "query", "at": 0})


async def test_flow_schema(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        schema = await node.call("flow.schema", path="flows.work")
        assert (schema["schema"], schema["example"], schema["contents_for"]) == (SCHEMA, {"n": 1}, [])


async def test_a_launched_run_is_streamed_to_its_end(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        launched = await node.call("run.launch", name="FLOWS.WORK", inputs={"n": 3}, tags=["t"])
        assert (launched["state"], launched["queue_position"]) == ("pending", None)
        done = await node.call("run.stream", fid=launched["fid"])
        events = [Event.from_wire(item) for item in node.items]
        assert [event.event for event in events] == [
            "version", "flow", "inputs", "progress", "agent", "log", "output", "final",
        ]  # fmt: skip
        assert done == {"last_seq": 8, "state": "done"}
        assert events[1].data["organization"] == "org"


async def test_a_stream_begins_after_any_offset(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        await node.call("run.stream", fid=fid, after=6)
        assert [item["seq"] for item in node.items] == [7, 8]
        assert await node.call("run.stream", fid=fid, after=8) == {"last_seq": 8, "state": "done"}
        assert node.items == []


async def test_a_stream_is_no_further_ahead_of_its_reader_than_it_says(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        whole = {"last_seq": 8, "state": "done"}
        assert await node.call("run.stream", fid=fid, ahead=1 << 16) == whole
        assert [item["seq"] for item in node.items] == list(range(1, 9))
        for ahead in (0, 1 << 31):
            refusal = await node.refused("run.stream", fid=fid, ahead=ahead)
            assert (refusal.reason, refusal.data["arg"]) == ("bad-args", "ahead")


async def test_a_stream_that_does_not_follow_ends_at_the_end_of_the_log(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        assert await node.call("run.stream", fid=fid, follow=False) == {"last_seq": 4, "state": "locked"}


async def test_run_state_adds_the_events_up(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished(tags=["t"])
        state = await node.call("run.state", fid=fid)
        assert (state["state"], state["final"]["result"], state["tags"], state["level"], state["modes"]) == (
            "done",
            3,
            ["t"],
            2,
            ["r", "x"],
        )
        assert (state["inputs"], state["version"], state["progress"]) == (
            {"n": 3},
            {"kodo": "0.1.0"},
            {"percent": 10},
        )
        assert [output["name"] for output in state["outputs"]] == ["report.md"]
        assert (state["author"], state["organization"], state["release"]) == ("ana", "org", "1")
        assert state["node"] == {"name": "flows.example.com", "peer_id": str(PEER)}
        view = RunView()
        await node.call("run.stream", fid=fid)
        view.extend(Event.from_wire(item) for item in node.items)
        assert state["agents"] == view.agents


async def test_runs_are_listed_to_their_owner_only(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        page = await node.call("run.list", state="done")
        assert [row["fid"] for row in page["result"]] == [fid]
        assert page["result"][0]["progress"] == {"percent": 10}
        assert (await node.call("run.list", "bob"))["total_records"] == 0


async def test_with_details_a_row_shows_its_first_inputs_and_whether_it_waits(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        done = await node.finished()
        asking = (await node.call("run.launch", path="flows.ask", inputs={"n": 1, "text": "x" * 500}))["fid"]
        await node.rig.until(asking, "lock")
        rows = {row["fid"]: row for row in (await node.call("run.list", details=True))["result"]}
        assert (rows[done]["inputs"], rows[done]["state"]) == ({"n": "3"}, "done")
        assert rows[asking]["state"] == "locked"
        assert rows[asking]["inputs"] == {"n": "1", "text": "x" * 79 + "…"}
        assert all("inputs" not in row for row in (await node.call("run.list"))["result"])
        for wanted, fids in (({"search": "XXX"}, [asking]), ({"flow": "*WORK"}, [done]), ({"tag": "none"}, [])):
            assert [row["fid"] for row in (await node.call("run.list", match=wanted))["result"]] == fids


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("run.state", {}),
        ("run.stream", {}),
        ("run.kill", {}),
        ("lock.get", {"lid": LID}),
        ("lock.answer", {"lid": LID, "candidate": True}),
        ("output.list", {}),
        ("output.manifest", {"name": "report.md"}),
        ("output.read", {"name": "report.md"}),
    ],
)
async def test_for_others_a_run_does_not_exist(
    tmp_path: Path, clock: StillClock, op: str, args: dict[str, Any]
) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        refusals = [
            await node.refused(op, "bob", fid=fid, **args),
            await node.refused(op, "carl", fid=fid, **args),
            await node.refused(op, "bob", fid=fid_of(7), **args),
        ]
        assert {(error.code, error.reason, error.message) for error in refusals} == {
            (404, "no-such-run", "there is no such run here, or it is not yours")
        }


async def test_one_key_belongs_to_one_principal(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        first = await node.call("run.launch", path="flows.work", inputs={"n": 1}, key="k")
        again = await node.call("run.launch", path="flows.work", inputs={"n": 1}, key="k")
        other = await node.call("run.launch", "bob", path="flows.work", inputs={"n": 2}, key="k")
        assert first["fid"] == again["fid"] != other["fid"]
        assert (await node.refused("run.launch", path="flows.work", inputs={"n": 2}, key="k")).reason == "key-reused"


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        ({}, 400, "bad-args"),
        ({"path": "flows.work", "name": "x"}, 400, "bad-args"),
        ({"path": "flows.none"}, 404, "no-such-flow"),
        ({"path": "flows.work", "strict": True}, 400, "bad-inputs"),
        ({"path": "flows.work", "inputs": {"n": "x"}}, 400, "bad-inputs"),
        ({"path": "flows.work", "inputs": {"n": 1}, "colour": "red"}, 400, "bad-args"),
    ],
)
async def test_a_launch_that_cannot_be_is_refused(
    tmp_path: Path, clock: StillClock, args: dict[str, Any], code: int, reason: str
) -> None:
    async with node_of(tmp_path, clock) as node:
        error = await node.refused("run.launch", **args)
        assert (error.code, error.reason) == (code, reason)


async def test_a_flow_at_its_limit_refuses(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, {"flows.ask": {"limits": {"concurrent_runs": 1}}}) as node:
        await node.call("run.launch", path="flows.ask", inputs={"n": 1})
        assert (await node.refused("run.launch", path="flows.ask", inputs={"n": 1})).code == 429
        await node.call("run.launch", path="flows.work", inputs={"n": 1})


async def test_a_run_is_killed_once(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        assert await node.call("run.kill", fid=fid) == {"fid": fid, "state": "error"}
        error = await node.refused("run.kill", fid=fid)
        assert (error.code, error.reason, error.data) == (400, "bad-state", {"state": "error"})


async def test_a_lock_is_listed_shown_and_answered(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        row = (await node.call("lock.list"))["result"][0]
        assert row == {
            "fid": fid,
            "lid": LID,
            "title": "Go on?",
            "flow": "flows.ask",
            "name": info("flows.ask", "ask")["name"],
            "expires_at": clock.ms + 50_000,
        }
        assert (await node.call("lock.list", "bob"))["result"] == []
        lock = await node.call("lock.get", fid=fid, lid=LID)
        assert (lock["schema"], lock["default"]) == ({"type": "boolean"}, False)
        answer = await node.call("lock.answer", fid=fid, lid=LID, candidate=True)
        assert answer["unlock"]["answer"] is True
        assert (await node.call("lock.list"))["result"] == []


async def test_outputs_are_listed_described_and_read(tmp_path: Path, clock: StillClock) -> None:
    content = b"# Report" * 20_000
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        (row,) = (await node.call("output.list", fid=fid))["result"]
        assert (row["name"], row["size"], row["media_type"]) == ("report.md", len(content), "text/markdown")
        manifest = await node.call("output.manifest", fid=fid, name="report.md")
        assert (manifest["sha256"], manifest["total_chunks"], len(manifest["chunks"])) == (row["sha256"], 1, 1)
        assert manifest["chunks_sha256"] == hashlib.sha256(manifest["chunks"][0]).hexdigest()
        assert await node.call("output.read", fid=fid, name="report.md") == {"bytes": len(content)}
        assert b"".join(node.items) == content
        assert max(map(len, node.items)) <= 64 * 1024


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (5, 10), (100_000, 70_000), (159_999, 50), (160_000, None)])
async def test_any_part_of_an_output_can_be_read(
    tmp_path: Path, clock: StillClock, offset: int, length: int | None
) -> None:
    content = b"# Report" * 20_000
    expected = content[offset:] if length is None else content[offset : offset + length]
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        done = await node.call("output.read", fid=fid, name="report.md", offset=offset, length=length)
        assert (done, b"".join(node.items)) == ({"bytes": len(expected)}, expected)


async def test_what_an_output_has_not_cannot_be_read(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        assert (await node.refused("output.read", fid=fid, name="report.md", offset=160_001)).code == 416
        assert (await node.refused("output.read", fid=fid, name="../node.db")).reason == "no-such-output"
        (tmp_path / "outputs" / fid / "report.md").unlink()
        assert (await node.refused("output.read", fid=fid, name="report.md")).reason == "output-gone"


async def test_a_link_in_the_place_of_an_output_is_not_followed(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        file = tmp_path / "outputs" / fid / "report.md"
        file.unlink()
        file.symlink_to(tmp_path / "node.db")
        assert (await node.refused("output.read", fid=fid, name="report.md")).reason == "output-gone"


async def test_the_level_of_a_grant_filters_on_the_node(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()

        async def low(peer_id: str, token: str | None = None) -> Principal:
            return Principal(peer_id, peer_id, grants=(Grant("node", "*"), Grant("flow", "*", 0, "r")))

        node.provider.identify = low  # type: ignore[method-assign]
        await node.call("run.stream", fid=fid)
        assert [item["event"] for item in node.items] == ["version", "flow", "inputs", "progress", "final"]
        state = await node.call("run.state", fid=fid)
        assert (state["outputs"], state["agents"], state["modes"]) == ([], [], ["r"])
        assert (await node.refused("output.read", fid=fid, name="report.md")).code == 403
        assert (await node.refused("run.kill", fid=fid)).code == 403
        assert (await node.refused("run.launch", path="flows.work", inputs={"n": 1})).code == 403


async def test_an_unknown_op_and_an_unknown_arg_are_named(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        assert (await node.refused("run.fly")).reason == "no-such-op"
        assert (await node.refused("run.state", fid=fid_of(1), when="now")).data == {"arg": "when"}


async def test_run_ack_delete_and_restart_follow_the_state_rules(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}, tags=["t"]))["fid"]
        await node.rig.until(fid, "lock")
        for op in ("run.ack", "run.delete"):
            refused = await node.refused(op, fid=fid)
            assert (refused.code, refused.reason, refused.data) == (400, "bad-state", {"state": "locked"})
            assert "locked" in refused.message
        await node.call("run.kill", fid=fid)
        assert await node.call("run.ack", fid=fid) == {"fid": fid, "state": "error", "acknowledged": True}
        assert (await node.call("run.state", fid=fid))["acknowledged"] is True
        assert (await node.call("run.list"))["result"][0]["acknowledged"] is True

        again = await node.call("run.restart", fid=fid)
        assert again["fid"] != fid
        await node.rig.until(again["fid"], "lock")
        state = await node.call("run.state", fid=again["fid"])
        assert (state["inputs"], state["tags"], state["acknowledged"], state["own"]) == ({"n": 1}, ["t"], False, True)
        events = await node.rig.store.events(again["fid"])
        assert [event.event for event in events] == ["version", "flow", "inputs", "lock"]

        answer = await node.call("run.delete", fid=fid)
        assert answer == {"fid": fid, "deleted": True, "erased": True}
        for op in ("run.state", "run.ack", "run.delete", "run.restart", "run.kill"):
            assert (await node.refused(op, fid=fid)).reason == "no-such-run"


async def test_somebody_elses_run_is_neither_acknowledged_nor_deleted_nor_restarted(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        for op in ("run.ack", "run.delete", "run.restart"):
            assert (await node.refused(op, "bob", fid=fid)).reason == "no-such-run"
        assert (await node.call("run.state", fid=fid))["state"] == "done"


FILE = {"type": "object", "properties": {"doc": {"type": "string", "format": "file", "pattern": "^upload-"}}}
TEXT = {"name": "doc.txt", "size": 4, "sha256": hashlib.sha256(b"text").hexdigest()}


async def test_a_flow_gets_the_file_that_was_uploaded_for_it(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=[{**info("flows.read", "read"), "schema": FILE}]) as node:
        begun = await node.call("input.write", **TEXT)
        assert (begun["offset"], begun["complete"]) == (0, False)
        done = await node.call("input.write", **TEXT, upload=begun["upload"], offset=0, pieces=[b"te", b"xt"])
        assert done == {"upload": begun["upload"], "offset": 4, "complete": True}
        inputs = {"doc": done["upload"]}
        fid = (await node.call("run.launch", path="flows.read", inputs=inputs))["fid"]
        assert (await node.rig.all_events(fid))[-1].data["result"] == "text"
        refusals = [
            await node.refused("run.launch", "bob", path="flows.read", inputs=inputs),
            await node.refused("run.launch", path="flows.read", inputs={"doc": "/etc/passwd"}),
            await node.refused("input.write", **{**TEXT, "sha256": "x"}),
        ]
        assert [error.reason for error in refusals] == ["no-such-upload", "bad-inputs", "bad-args"]


TWO = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "place": {"type": "object"},
        "doc": {"type": "string", "format": "file", "pattern": "^upload-"},
        "docs": {"type": "array", "items": {"type": "string", "format": "file"}},
        "token": {"type": "string", "format": "password"},
    },
    "required": ["n"],
    "additionalProperties": False,
}


async def test_a_run_is_started_again_with_some_inputs_changed(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=[{**info("flows.two", "work"), "schema": TWO}]) as node:
        first = (
            await node.call(
                "run.launch", path="flows.two", inputs={"n": 1, "place": {"a": 1, "b": 2}, "token": "t"}, tags=["t"]
            )
        )["fid"]
        await node.rig.all_events(first)
        changed = {"inputs": {"place": {"c": 3}, "token": "u"}, "tags": ["u"], "key": "k"}
        again = (await node.call("run.restart", fid=first, **changed))["fid"]
        assert (await node.call("run.restart", fid=first, **changed))["fid"] == again
        state = await node.call("run.state", fid=again)
        assert (state["inputs"], state["tags"]) == ({"n": 1, "place": {"c": 3}, "token": MASK}, ["u"])
        assert (await node.rig.all_events(again))[-1].data["result"] == 1
        assert node.rig.executor.launched[-1].secrets == [[["token"], "u"]]
        other = await node.refused("run.restart", fid=first, inputs={"n": 2}, key="k")
        assert other.reason == "key-reused"
        for inputs in ({"n": "x"}, {"m": 1}, {"n": None}):
            assert (await node.refused("run.restart", fid=first, inputs=inputs)).reason == "bad-inputs"
        assert (await node.refused("run.restart", fid=first, inputs={"n": 1}, strict=True)).data["missing"] == [
            "token"
        ]


async def test_a_run_that_is_started_again_asks_only_for_files_that_are_gone(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock, more=[{**info("flows.two", "work"), "schema": TWO}]) as node:
        here = (await node.call("input.write", **TEXT, pieces=[b"text"]))["upload"]
        gone = (await node.call("input.write", **{**TEXT, "name": "gone"}, pieces=[b"text"]))["upload"]
        inputs = {"n": 1, "doc": here, "docs": [here, gone]}
        fid = (await node.call("run.launch", path="flows.two", inputs=inputs))["fid"]
        await node.rig.all_events(fid)
        clock.advance(25 * 3600)
        node.rig.uploads.check("ana", TWO, {"doc": here})
        await node.rig.uploads.sweep()
        again = (await node.call("run.restart", fid=fid))["fid"]
        state = await node.call("run.state", fid=again)
        assert state["inputs"] == {"n": 1, "doc": here}
        lock = await node.call("lock.get", fid=again, lid=state["locks"][0]["lid"])
        assert lock["schema"]["required"] == ["docs"]
        filled = (await node.call("run.restart", fid=fid, inputs={"docs": [here]}))["fid"]
        assert (await node.call("run.state", fid=filled))["inputs"] == {"n": 1, "doc": here, "docs": [here]}


async def test_who_may_run_nothing_may_upload_nothing(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        reader = Principal("r", "r", grants=(Grant("node", "*"), Grant("flow", "*", 2, "r")))

        async def identify(peer: str, token: str | None = None) -> Principal:
            return reader

        node.provider.identify = identify  # type: ignore[method-assign]
        assert (await node.refused("input.write", **TEXT)).code == 403


async def test_old_uploads_go_when_new_ones_come_but_not_those_of_unfinished_runs(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        old = (await node.call("input.write", **TEXT, pieces=[b"text"]))["upload"]
        used = (await node.call("input.write", **{**TEXT, "name": "used"}, pieces=[b"text"]))["upload"]
        fid, _ = await node.rig.runs.launch(Order("ana", "flows.ask", "ask", "ask", {"doc": used}))
        await node.rig.until(fid, "lock")
        clock.advance(25 * 3600)
        new = (await node.call("input.write", **{**TEXT, "name": "new"}))["upload"]
        assert {each.name for each in node.rig.uploads.root.iterdir()} == {used, new} != {old}


async def test_a_launch_without_required_inputs_begins_with_a_lock_unless_strict(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        refused = await node.refused("run.launch", path="flows.work", strict=True)
        assert (refused.reason, refused.data["missing"]) == ("bad-inputs", ["n"])
        launched = await node.call("run.launch", path="flows.work")
        fid = launched["fid"]
        assert launched["state"] == "locked"
        [row] = (await node.call("lock.list"))["result"]
        lock = await node.call("lock.get", fid=fid, lid=row["lid"])
        assert (row["fid"], lock["schema"]["required"]) == (fid, ["n"])
        assert (await node.refused("lock.answer", fid=fid, lid=row["lid"], candidate={})).reason == "bad-candidate"
        await node.call("lock.answer", fid=fid, lid=row["lid"], candidate={"n": 4})
        await node.rig.all_events(fid)
        state = await node.call("run.state", fid=fid)
        assert (state["state"], state["inputs"]) == ("done", {"n": 4})
        wrong = await node.refused("run.launch", path="flows.work", inputs={"n": "x"})
        assert wrong.reason == "bad-inputs"


async def test_a_launch_says_whether_the_run_waits_for_its_turn(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, more=[info("flows.linger", "linger")], bounds={"max_runs": 1}) as node:
        told = [await node.call("run.launch", path="flows.linger", inputs={"n": 1}) for _ in range(3)]
        again = await node.call("run.restart", fid=told[0]["fid"])
        assert [each["queue_position"] for each in (*told, again)] == [None, 1, 2, 3]
        assert {each["state"] for each in (*told, again)} == {"pending"}
        assert list(map(launched_state, (*told, again))) == ["running", "queued", "queued", "queued"]


async def test_only_the_operator_stops_the_node(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        refused = await node.refused("node.shutdown", drain_s=5)
        assert (refused.code, refused.reason) == (403, "operator-only")
        assert (await node.call("run.launch", path="flows.work", inputs={"n": 1}))["state"] == "pending"
        await settled(lambda: not node.rig.runs.live)
        told = await node.call("node.shutdown", "home", drain_s=5)
        assert told == {"stopping": True, "unfinished": 0, "drain_s": 5}
        assert (await node.refused("run.launch", path="flows.work", inputs={"n": 1})).reason == "stopping"
        await settled(lambda: clock.advance(0.3) or node.rig.runs.drained.is_set())


async def test_only_the_operator_says_how_many_runners_are_kept_warm(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        assert (await node.refused("node.scale", "ana", runners=3)).reason == "operator-only"
        assert (await node.refused("node.scale", "home", runners=-1)).reason == "bad-args"
        assert node.rig.executor.warm == 0
        assert await node.call("node.scale", "home", runners=3) == {"runners": 3}
        assert node.rig.executor.warm == 3


async def test_only_the_operator_cleans_up_and_sees_first_what_goes(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        for op in ("cleanup.list", "cleanup.run"):
            assert (await node.refused(op)).reason == "operator-only"
        fid = await node.finished()
        await node.call("run.ack", fid=fid)
        clock.advance(8 * 86400)
        shown = await node.call("cleanup.list", "home")
        assert [(row["kind"], row["id"]) for row in shown["result"]] == [("run", fid)]
        assert shown["bytes"] == shown["result"][0]["bytes"] > 0
        gone = await node.call("cleanup.run", "home", what=["run"])
        assert gone == {name: shown[name] for name in gone}
        assert (await node.refused("run.state", fid=fid)).reason == "no-such-run"
        assert (await node.call("cleanup.list", "home"))["total_records"] == 0


async def test_a_run_that_waits_for_room_says_so_beside_its_state(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        assert "waits" not in await node.call("run.state", fid=fid)
        node.rig.runs.live[fid].waits = "room"
        assert (await node.call("run.state", fid=fid))["waits"] == "room"
        assert [row.get("waits") for row in (await node.call("run.list"))["result"]] == ["room"]
        node.facts.ledger = node.rig.ledger
        assert (await node.call("node.state", "home"))["room"]["waiting"] == 1
        await node.call("run.kill", fid=fid)


async def test_operators_are_told_what_takes_room_and_when_it_is_full(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        ledger = node.facts.ledger = node.rig.ledger
        ledger.count(lambda: node.rig.outputs.taken, "outputs")
        fid = await node.finished()
        assert "room" not in await node.call("node.state")
        room = (await node.call("node.state", "home"))["room"]
        assert (room["kept"], room["quota"]) == ({"outputs": node.rig.outputs.taken}, None)
        assert "full" not in room
        ledger.quota_bytes = 1000
        assert "quota is reached" in (await node.call("node.state", "home"))["room"]["full"]
        listed = await node.call("cleanup.list", "home")
        assert [each["fid"] for each in listed["largest"]] == [fid]
        assert "quota is reached" in listed["room"]["full"]
        ledger.quota_bytes = None


@pytest.mark.parametrize(("op", "more"), [("schedule.add", {"every_s": 3600}), ("invitation.add", {})])
async def test_what_is_kept_for_later_is_refused_when_the_quota_is_reached(
    tmp_path: Path, clock: StillClock, op: str, more: dict[str, Any]
) -> None:
    async with node_of(tmp_path, clock) as node:
        node.rig.ledger.count(lambda: 1_000_000)
        node.rig.ledger.quota_bytes = 1_000_100
        refused = await node.refused(op, path="flows.work", inputs={"n": 1}, **more)
        assert (refused.code, refused.reason) == (507, "disk-full")
        assert "quota is reached" in refused.message
        assert (await node.call(op.replace("add", "list")))["total_records"] == 0
        node.rig.ledger.quota_bytes = None
        await node.call(op, path="flows.work", inputs={"n": 1}, **more)
        assert (await node.call(op.replace("add", "list")))["total_records"] == 1
