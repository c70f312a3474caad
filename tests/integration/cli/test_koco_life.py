"""What a run goes through at its user's hands, through `koco`: locks of all kinds, files, and all that ends it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kodo.client import Client
from kodo.p2p.errors import CallError
from tests.support.koco import eventually

from .conftest import User


@pytest.fixture(scope="module")
def on_ray() -> bool:
    return True


def launched(user: User, address: str, *words: str) -> str:
    row = user("run", f"{address}/{words[0]}", *words[1:], "--detach", "--json", "--no-lan").row
    return f"{address}/{row['fid']}"


def test_inputs_given_later_and_what_becomes_of_a_run_afterwards(address: str, user: User) -> None:
    run = launched(user, address, "Report", "size=10", "--later")
    [asked] = user("locks", "--node", address, "--json", "--no-lan").row["result"]
    assert asked["title"] == "Inputs of Report"
    assert user("delete", run, "--json", "--no-lan").row["error"]["reason"] == "bad-state"
    assert user("answer", run, asked["lid"], "topic=bikes", "--json", "--no-lan").code == 0
    *events, end = user("run", f"{address}/Counts", "n=1", "--json", "--no-lan").rows
    assert end["state"] == "done"

    again = user("restart", f"{address}/{end['fid']}", "--json", "--no-lan").row
    assert (again["restarted"], again["fid"] == end["fid"]) == (end["fid"], False)
    second = f"{address}/{again['fid']}"
    *repeated, _ = user("follow", second, "--keep", "--json", "--no-lan").rows
    inputs = [[event["data"] for event in each if event["event"] == "inputs"] for each in (events, repeated)]
    assert inputs[0] == inputs[1] == [{"n": 1}]
    *_, changed = user("run", "--like", second, "n=2", "--tag", "more", "--json", "--no-lan").rows
    assert (changed["final"]["result"], changed["state"]) == (2, "done")
    assert user("run", "Counts", "--like", second, "--json", "--no-lan").code == 2
    assert user("ack", second, "--json", "--no-lan").row["acknowledged"] is True
    assert user("delete", second, "--json", "--no-lan").row["deleted"] is True
    assert user("state", second, "--no-lan").code == 3
    assert user("kill", run, "--no-lan").code == 0


def test_many_runs_are_launched_by_a_file_and_ended_by_what_they_have_in_common(
    address: str, user: User, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("n,pause\n1,0\n2,0\n1,0\n")
    words = ("--each", str(tmp_path / "rows.csv"), "pause=0.5", "--tag", "batch", "--keep", "--json", "--no-lan")
    *rows, end = user("run", f"{address}/Counts", *words).rows
    none = dict.fromkeys(("error", "locked", "queued", "running", "pending", "refused"), 0)
    assert end == {"rows": 3, "done": 3, **none}
    *again, _ = user("run", f"{address}/Counts", *words).rows
    fids = {row["row"]: row["fid"] for row in rows}
    assert {row["row"]: row["fid"] for row in again} == fids
    assert len(set(fids.values())) == 3
    meant = ("--tag", "batch", "--node", address, "--no-lan")
    refused = user("delete", *meant, "--json").row["error"]
    assert (refused["exit"], "this would delete 3 runs" in refused["message"]) == (2, True)
    assert user("ack", *meant, "--limit", "1", "--yes", "--json").row["done"] == 1
    assert user("kill", *meant, "--yes", "--json").row["total_records"] == 0
    gone = user("delete", *meant, "--yes", "--json").row
    assert ({row["fid"] for row in gone["result"]}, gone["failed"]) == (set(fids.values()), 0)
    assert user("ps", *meant, "--json").row["result"] == []


def test_files_are_uploaded_as_inputs(address: str, user: User, tmp_path: Path) -> None:
    for name, size in (("a.bin", 3_000_000), ("b.txt", 5), ("c.txt", 0)):
        (tmp_path / name).write_bytes(b"x" * size)
    words = (f"doc=@{tmp_path / 'a.bin'}", f"more=@{tmp_path / 'b.txt'},@{tmp_path / 'c.txt'}")
    done = user("run", f"{address}/Reads", *words, "--json", "--no-lan")
    assert done.code == 0, (done.out[-1500:], done.err)
    assert done.rows[-1]["final"]["result"] == [3_000_000, 5, 0]
    assert user("run", f"{address}/Reads", f"doc=@{tmp_path / 'none'}", "--no-lan").code != 0


def test_a_graph_is_watched_and_its_interrupt_answered(address: str, user: User) -> None:
    run = launched(user, address, "Graph", "topic=bikes")
    follower = user.start("follow", run, "--keep", "--json", "--no-lan")
    assert follower.stdout is not None
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] not in ("lock", "fatal"):
        events.append(json.loads(follower.stdout.readline()))
    [asked] = user("locks", "--node", address, "--json", "--no-lan").row["result"]
    assert (asked["title"], asked["lid"]) == ("Publish?", events[-1]["data"]["lid"])
    assert "on bikes" in events[-1]["data"]["schema"]["description"]
    assert user("answer", run, asked["lid"], "yes", "--json", "--no-lan").row["unlock"]["answer"] is True

    rest, errors = follower.communicate(timeout=60)
    *more, end = map(json.loads, rest.splitlines())
    assert end["state"] == "done", errors
    assert end["final"]["result"] == {"topic": "bikes", "text": "on bikes", "approved": True}
    events += more
    told = {
        name: [event["data"] for event in events if event["event"] == name] for name in ("task", "action", "result")
    }
    assert [data["name"] for data in told["task"]] == ["write", "review", "review"]  # the second from its answer on
    ended = [(data["name"], data["phase"]) for data in told["action"]]
    assert ended == [("write", "end"), ("review", "end")]
    assert [data["node"] for data in told["result"]] == ["write", "review"]


def test_flows_that_need_ray_and_those_of_yaml_files_are_announced(node: dict[str, Any], user: User) -> None:
    words = ("--json", "--no-lan", "--registry", node["registries"][0])
    wanted = {"./flows/sized.yaml", "./flows/generated.yaml", "flows.ways.Kickoff"}
    eventually(lambda: wanted < {row["path"] for row in user("flows", *words).rows}, 60)


def test_what_a_yaml_file_alone_asks_of_ray_reaches_it(address: str, user: User) -> None:
    done = user("run", f"{address}/Sized", "--json", "--no-lan")
    assert done.code == 0, done.out[-1500:]
    assert done.rows[-1]["final"]["result"] == {"given": {"CPU": 1.0}, "word": "from the file"}


def test_locks_of_all_kinds_at_once(address: str, user: User) -> None:
    run = launched(user, address, "Gates")

    async def answer_all() -> tuple[int, dict[str, str]]:
        async with Client(home=user.home, lan=False) as client:
            followed = await client.run(run)
            locks: dict[str, str] = {}
            told: list[tuple[str, Any]] = []
            async for event in followed.follow():
                told.append((event.event, event.data))
                if event.event == "lock":
                    locks[event.data["title"]] = event.data["lid"]
                    if len(locks) == 4:
                        break
            many = locks["How many?"]
            with pytest.raises(CallError) as caught:
                await followed.answer(many, "text")
            assert (caught.value.code, caught.value.reason) == (400, "bad-candidate")
            with pytest.raises(CallError) as caught:
                await followed.answer(many, 1)
            assert (caught.value.reason, caught.value.data["reasons"]) == ("denied", ["one is not enough"])
            with pytest.raises(CallError) as caught:
                await followed.answer(many, 2)
            assert (caught.value.code, caught.value.reason) == (504, "no-verdict")
            for title in ("As an operator?", "As eve?"):
                with pytest.raises(CallError) as caught:
                    await followed.answer(locks[title], True)
                assert (caught.value.code, caught.value.reason) == (403, "not-yours")
            won = await asyncio.gather(
                *(followed.answer(many, 10 + number) for number in range(20)), return_exceptions=True
            )
            assert sum(isinstance(each, dict) for each in won) == 1
            lost = Counter(each.reason for each in won if isinstance(each, CallError))
            assert set(lost) <= {"busy", "answered"}
            assert lost.total() == 19
            return next(each["answer"] for each in won if isinstance(each, dict)), locks

    number, locks = asyncio.run(answer_all())
    assert user("answer", run, locks["As an operator?"], "--yes", "--no-lan").code == 4
    assert user("kill", run, "--no-lan").code == 0
    *events, _ = user("follow", run, "--json", "--no-lan").rows
    said = Counter(event["event"] for event in events if event["kind"] == "lock")
    late = said.pop("unlock-deny") - 1  # the verdict on an answer whose time was up, if it came before the kill
    assert late in (0, 1)
    assert said == {"lock": 4, "candidate": 3, "unlock-timeout": 1, "lock-timeout": 1, "unlock": 1}
    [unlock] = [event["data"] for event in events if event["event"] == "unlock"]
    assert unlock["answer"] == number


def test_the_operator_sees_what_may_go_and_it_goes(node: dict[str, Any]) -> None:
    operator = User(node["home"])
    stale = node["home"] / "outputs" / ("0" * 26)
    stale.mkdir(parents=True)
    (stale / "left.bin").write_bytes(b"x" * 1000)
    told = operator("cleanup", "--dry-run", "--json", "--no-lan").row
    assert (told["dry_run"], stale.exists()) == (True, True)
    assert {"kind": "output", "id": "0" * 26, "bytes": 1000} in told["result"]
    done = operator("cleanup", "--json", "--no-lan").row
    assert (done["result"], done["bytes"]) == (told["result"], told["bytes"])
    assert not stale.exists()
    assert operator("cleanup", "--dry-run", "--json", "--no-lan").row["total_records"] == 0
