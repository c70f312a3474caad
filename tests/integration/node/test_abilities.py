"""What a node gives flows, over a crash of it: memory, secrets. Seen through `koco`, with real Ray."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import psutil

from kodo.protocol.secrets import MASK
from tests.support.koco import NodeProcess, end_all, eventually, koco, koco_json, node, processes_of

AT = ("--node", "tests.local", "--no-lan")


def run(home: Path, flow: str, *inputs: str) -> Any:
    [*_, end] = koco_json(home, "run", f"tests.local/abilities.{flow}", *inputs, "--no-lan")
    return end["final"]["result"]


CANARY = "canary-that-nobody-may-see"


def test_memory_and_secrets_outlive_a_killed_node(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = NodeProcess(home)
    try:
        connecting = a_run_that_was_given_secrets(home)
        inputs = ("n=16", "pause_ms=150")
        [launched] = koco_json(home, "run", "tests.local/abilities.remember", *inputs, "--detach", "--no-lan")
        fid = str(launched["fid"])

        def counted() -> bool:
            [state] = koco_json(home, "state", fid, *AT)
            return bool(state["progress"] and state["progress"]["done"] > 3)

        eventually(counted)
        first.kill()
        with node(home):
            [*_, end] = koco_json(home, "follow", fid, *AT)
            assert end["final"]["result"] == {"n": 17, "short": ["begun"], "file": 3000}
            goes_on_with_them_and_they_are_found_nowhere(home, connecting)
            a_developer_publishes_what_flows_then_find(home)
            nobody_else_may(home)
            everything_short_goes_with_its_run(home, fid)
    finally:
        end_all(home)
    assert processes_of(home) == []


def a_run_that_was_given_secrets(home: Path) -> str:
    given = {"account": {"user": "ana", "password": f"{CANARY}-1"}, "token": f"{CANARY}-2", "note": "shown"}
    (home.parent / "inputs.json").write_text(json.dumps(given))
    words = ("--inputs", str(home.parent / "inputs.json"), "--detach", "--no-lan")
    [launched] = koco_json(home, "run", "tests.local/abilities.connect_with_secrets", *words)
    return str(launched["fid"])


def goes_on_with_them_and_they_are_found_nowhere(home: Path, fid: str) -> None:
    def nowhere() -> list[str]:
        found = [str(path) for path in home.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
        for process in processes_of(home):
            with contextlib.suppress(psutil.Error):
                found += [word for word in (*process.cmdline(), *process.environ().values()) if CANARY in word]
        return found

    assert nowhere() == []
    assert list((home / "secrets").iterdir()) == [home / "secrets" / fid]
    koco_json(home, "answer", fid, f"value={CANARY}-three", *AT)
    events = koco_json(home, "follow", fid, *AT)
    assert events[-1]["final"]["result"] == [len(CANARY) + 2, len(CANARY) + 2, len(CANARY) + 6]
    assert events[2]["data"] == {"account": {"user": "ana", "password": MASK}, "token": MASK, "note": "shown"}
    answers = [each["data"]["answer"] for each in events[:-1] if each["event"] in ("candidate", "unlock")]
    assert answers == [MASK, MASK]
    assert CANARY not in json.dumps(events)
    assert nowhere() == []
    eventually(lambda: not list((home / "secrets").iterdir()))


def a_developer_publishes_what_flows_then_find(home: Path) -> None:
    (home / "facts.txt").write_text("facts")
    koco_json(home, "memory", "put", "--shared", "kb", "topic=bikes", "list=[1, 2]", f"facts=@{home}/facts.txt", *AT)
    assert run(home, "recall", "name=kb") == {
        "values": {"list": [1, 2], "run-17": 17, "topic": "bikes"},
        "files": {"facts": "facts"},
    }
    koco_json(home, "memory", "put", "--shared", "kb", "--remove", "run-17", "list", "facts", *AT)
    [of_kb] = koco_json(home, "memory", "list", "--shared", "kb", *AT)
    assert [(row["kind"], row["key"]) for row in of_kb["result"]] == [("value", "topic")]
    [told] = koco_json(home, "memory", "list", *AT)
    assert [(row["scope"], row["of"], row["keys"], row["files"]) for row in told["result"]] == [
        ("long", "abilities.remember", 1, 1),
        ("shared", "kb", 1, 0),
    ]
    koco_json(home, "memory", "put", "--flow", "abilities.remember", "n=0", *AT)
    assert run(home, "remember", "n=1")["n"] == 2


def nobody_else_may(home: Path) -> None:
    stranger = home / "stranger"
    address = koco_json(home, "id")[0]["addrs"]
    place = next(each for each in address if each.startswith("/ip4/127.0.0.1/"))
    for words in (("list", "--shared", "kb"), ("put", "--shared", "kb", "topic=cars")):
        done = koco(stranger, "memory", *words, "--node", place, "--no-lan")
        assert (done.returncode, "only a developer" in done.stderr) == (4, True), done


def everything_short_goes_with_its_run(home: Path, fid: str) -> None:
    database = home / "memory" / "memory.db"
    assert fid.encode() in database.read_bytes() + database.with_name("memory.db-wal").read_bytes()
    koco_json(home, "delete", fid, *AT)
    assert all(fid.encode() not in path.read_bytes() for path in (home / "memory").rglob("*") if path.is_file())
