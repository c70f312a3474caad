"""`koco` as people and scripts use it: a real node, real sessions, separate processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from kodo.protocol.ids import is_id
from tests.support.watched_place import watched_place

from .conftest import FLOWS, Person, User

Node = dict[str, Any]


def launched(user: User, address: str, *words: str) -> str:
    row = user("run", f"{address}/{words[0]}", *words[1:], "--detach", "--json", "--no-lan").row
    return f"{address}/{row['fid']}"


def answer_by_default(user: User, run: str) -> None:
    """Answer a run's lock as soon as there is one."""
    deadline = time.monotonic() + 60
    while user("answer", run, "--yes", "--no-lan").code:
        assert time.monotonic() < deadline, "no lock was opened"


def test_up_tells_who_and_where_it_is(node: Node) -> None:
    assert node["ready"] is True
    assert node["name"] == "cli-test.example"
    assert all(each.endswith(f"/p2p/{node['peer_id']}") for each in node["addrs"])


def test_id_in_the_nodes_home_gives_its_addresses(node: Node) -> None:
    row = User(node["home"])("id", "--json").row
    assert (row["peer_id"], row["addrs"], row["name"]) == (node["peer_id"], node["addrs"], node["name"])
    assert row["user_peer_id"] != row["peer_id"]


def test_a_command_in_the_nodes_home_finds_it_without_any_network(node: Node) -> None:
    rows = User(node["home"])("flows", "--json", "--no-lan").rows
    assert {row["name"] for row in rows} > {"Report", "Fails", "Counts", "Gates", "Reads", "Graph", "Sized"}


def test_nodes_finds_it_on_the_local_network(node: Node, user: User) -> None:
    # Others of this suite's nodes may be on this network: a listing ends soon after the first that answers.
    deadline = time.monotonic() + 60
    while True:
        rows = [row for row in user("nodes", "--json").rows if row["peer_id"] == node["peer_id"]]
        if rows or time.monotonic() > deadline:
            break
    assert [(row["name"], row["source"], row["addrs"]) for row in rows] == [(node["name"], "lan", node["addrs"])]


def test_the_registry_gives_nodes_and_flows(node: Node, user: User) -> None:
    [registry] = node["registries"]
    options = ("--json", "--no-lan", "--registry", registry)
    deadline = time.monotonic() + 30
    while not (rows := user("flows", *options).rows) and time.monotonic() < deadline:
        time.sleep(0.5)
    paths = {row["path"] for row in rows}
    functions = ("report", "fails", "counts", "gates", "reads", "graph")
    assert {path for path in paths if "cli_flows" in path} == {f"flows.cli_flows.{name}" for name in functions}
    assert {(row["source"], row["peer_id"]) for row in rows} == {("registry", node["peer_id"])}
    [row] = user("nodes", *options).rows
    assert (row["peer_id"], row["source"], row["online"]) == (node["peer_id"], "registry", True)
    assert [row["name"] for row in user("flows", "--query", 'name.str.contains("epor")', *options).rows] == ["Report"]
    assert user("nodes", "--query", "not online", *options).rows == []
    assert [row["peer_id"] for row in user("nodes", "--query", "online", *options).rows] == [node["peer_id"]]
    refused = user("flows", "--query", "__import__('os')", *options)
    assert (refused.code, "character 1" in refused.row["error"]["message"]) == (2, True)


def test_a_name_from_a_registry_leads_to_the_node_and_is_pinned(node: Node, user: User) -> None:
    [registry] = node["registries"]
    shown = user(
        "show", f"{node['name']}/Report", "--json", "--no-lan", "--registry", registry, "--registry", registry
    )
    assert shown.row["schema"]["required"] == ["topic"]
    assert f"{node['name']} {node['peer_id']}" in (user.home / "known_nodes").read_text().splitlines()


def test_a_registry_that_is_away_does_not_hurt(address: str, user: User) -> None:
    shown = user("show", f"{address}/Report", "--json", "--no-lan", "--registry", "http://127.0.0.1:1")
    assert shown.code == 0


def test_a_name_pinned_to_another_peer_is_refused(node: Node, user: User) -> None:
    stranger = User(user.home.parent / "other")("id", "--json").row["peer_id"]
    user("id")
    (user.home / "known_nodes").write_text(f"{node['name']} {stranger}\n")
    [registry] = node["registries"]
    refused = user("show", f"{node['name']}/Report", "--json", "--no-lan", "--registry", registry)
    assert refused.code == 7
    assert stranger in refused.row["error"]["message"]
    assert node["peer_id"] in refused.row["error"]["message"]


def test_run_follows_answers_by_default_and_downloads(address: str, user: User, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = user("run", f"{address}/Report", "topic=bikes", "--yes", "--out", str(out), "--json", "--no-lan")
    assert done.code == 0, done.err
    *events, last = done.rows
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {"fid", "seq", "at", "kind", "event", "data"} == set(events[0])
    assert (last["state"], last["final"]["result"], last["route"]) == ("done", "bikes True", "lan")
    assert (out / "report.md").read_text() == "# bikes: True "
    assert (out / "data" / "big.bin").stat().st_size == 3_000_000
    assert {file["name"] for file in last["files"]} == {"report.md", "data/big.bin"}


def test_lines_for_people_carry_no_escape_sequences(address: str, user: User) -> None:
    done = user("run", f"{address}/Report", "topic=x", "--yes", "--no-lan")
    assert done.code == 0
    assert "half �[31mway" in done.out
    assert "\x1b" not in done.out + done.err


def test_a_run_that_fails_is_exit_code_1(address: str, user: User) -> None:
    done = user("run", f"{address}/Fails", "--json", "--no-lan")
    assert done.code == 1
    assert (done.rows[-1]["state"], done.rows[-1]["fatal"]["type"]) == ("error", "ValueError")


def test_without_a_terminal_a_lock_waits_and_says_how_to_answer(address: str, user: User) -> None:
    fid = launched(user, address, "Report", "topic=x", "size=10")
    follower = user.start("follow", fid, "--no-lan")
    assert follower.stderr is not None
    told = follower.stderr.readline()
    assert "koco answer" in told
    lid = next(word for word in told.split() if is_id(word))
    [row] = user("locks", "--node", address, "--json", "--no-lan").row["result"]
    assert (row["lid"], row["title"]) == (lid, "Approve?")
    answered = user("answer", fid, lid, "ok=no", "note=a b", "--json", "--no-lan")
    assert (answered.code, answered.row["unlock"]["answer"]) == (0, {"ok": False, "note": "a b"})
    assert "x False" in follower.communicate(timeout=60)[0]
    assert follower.returncode == 0
    assert user("answer", fid, lid, "ok=no", "--no-lan").code == 3


def test_follow_goes_on_after_the_event_that_is_known(address: str, user: User) -> None:
    fid = launched(user, address, "Counts", "n=20", "pause=0")
    whole = user("follow", fid, "--json", "--keep", "--no-lan").rows
    rest = user("follow", fid, "--after", "10", "--json", "--no-lan").rows
    assert rest[:-1] == whole[10:-1]
    assert rest[-1]["state"] == "done"
    # Without --keep who has seen a run of theirs to its end has acknowledged it.
    [acknowledged, _] = user("follow", fid, "--after", str(whole[-2]["seq"]), "--json", "--no-lan").rows
    assert (acknowledged["event"], acknowledged["kind"]) == ("acknowledge", "manage")


def test_an_interrupted_follower_leaves_the_run_alone_and_says_how_to_come_back(address: str, user: User) -> None:
    process = user.start("run", f"{address}/Counts", "n=500", "--no-lan")
    assert process.stdout is not None
    while "result" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    [fid] = set(re.findall(r"koco follow (\S+)", err))
    assert user("state", fid, "--json", "--no-lan").row["state"] == "running"
    assert user("kill", fid, "--json", "--no-lan").code == 0
    assert user("state", fid, "--json", "--no-lan").row["state"] == "error"
    assert user("kill", fid, "--no-lan").code == 2


def test_ps_and_outputs_list_what_is_mine_and_strangers_see_nothing(address: str, user: User, tmp_path: Path) -> None:
    fid = launched(user, address, "Report", "topic=x", "size=10")
    answer_by_default(user, fid)
    assert user("follow", fid, "--no-lan").code == 0
    rows = user("ps", "--node", address, "--json", "--no-lan").row["result"]
    assert [row["fid"] for row in rows] == [fid.rpartition("/")[2]]
    narrow = ("--flow", "*report*", "--since", "1d", "--search", "topic", "--state", "done")
    here = ("--node", address, "--no-lan")
    head, shown = user("ps", *here, *narrow).out.splitlines()
    assert ("INPUTS" in head, "topic=x" in shown, fid.rpartition("/")[2] in shown) == (True, True, True)
    assert "no such runs" in user("ps", *here, "--until", "2020-01-01").out
    names = [row["name"] for row in user("outputs", fid, "--json", "--no-lan").row["result"]]
    assert sorted(names) == ["data/big.bin", "report.md"]
    stranger = User(tmp_path / "stranger")
    assert stranger("ps", "--node", address, "--json", "--no-lan").row["result"] == []
    assert stranger("state", fid, "--no-lan").code == 3


def test_download_verifies_and_does_not_fetch_twice(address: str, user: User, tmp_path: Path) -> None:
    fid = launched(user, address, "Report", "topic=x")
    answer_by_default(user, fid)
    user("follow", fid, "--no-lan")
    first = user("download", fid, "--out", str(tmp_path / "o"), "--json", "--no-lan").row
    assert first["bytes"] == sum(file["size"] for file in first["files"])
    again = user("download", fid, "--out", str(tmp_path / "o"), "--json", "--no-lan").row
    assert again["bytes"] == 0
    (tmp_path / "o" / "report.md").write_text("mine")
    assert user("download", fid, "--out", str(tmp_path / "o"), "--no-lan").code == 2
    assert (tmp_path / "o" / "report.md").read_text() == "mine"


def test_the_same_key_gives_the_same_run(address: str, user: User) -> None:
    words = ("run", f"{address}/Counts", "n=1", "--key", "k1", "--detach", "--json", "--no-lan")
    assert user(*words).row["fid"] == user(*words).row["fid"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "{address}/Nothing"], 3),
        (["state", "{address}/01jd2n8x4q5w6e7r8t9y0abcde"], 3),
        (["run", "{address}/Report"], 2),
        (["run", "{address}/Report", "topik=x"], 2),
        (["state", "{address}/nofid"], 2),
        (["show", "nobody.example/Flow"], 3),
        (["show", "{elsewhere}/Flow", "--timeout", "2"], 5),
    ],
)
def test_errors_have_their_codes_as_text_and_as_json(address: str, user: User, words: list[str], code: int) -> None:
    elsewhere = re.sub(r"/udp/\d+/", "/udp/9/", address)
    given = [word.format(address=address, elsewhere=elsewhere) for word in words] + ["--no-lan"]
    text = user(*given)
    assert (text.code, text.out) == (code, "")
    assert [line for line in text.err.splitlines() if line.startswith("koco: ")], text.err
    as_json = user(*given, "--json")
    assert as_json.code == code
    assert {"code", "reason", "message"} <= set(as_json.row["error"])


def test_on_a_terminal_missing_inputs_and_locks_are_asked_for(address: str, user: User) -> None:
    person = Person(user.home, "run", f"{address}/Report", "size=10", "--no-lan")
    person.sees("topic")
    person.types("by hand\n")
    person.sees("ok (yes/no)")
    person.types("perhaps\n")
    person.sees("yes or no")
    person.types("y\n")
    person.sees("note")
    person.types("fine\n")
    person.sees("by hand True")
    assert person.leaves() == 0
    assert "answered elsewhere" not in person.screen


def test_a_form_goes_away_when_the_lock_is_answered_elsewhere(address: str, user: User) -> None:
    person = Person(user.home, "run", f"{address}/Report", "topic=x", "size=10", "--no-lan")
    person.sees("ok (yes/no)")
    [row] = user("locks", "--node", address, "--json", "--no-lan").row["result"]
    answer_by_default(user, f"{address}/{row['fid']}")
    person.sees("answered elsewhere")
    person.sees("x True")
    assert person.leaves() == 0


def test_ctrl_c_in_a_form_leaves_the_run_waiting(address: str, user: User) -> None:
    person = Person(user.home, "run", f"{address}/Report", "topic=x", "--no-lan")
    person.sees("ok (yes/no)")
    person.types("\x03")
    assert person.leaves() == 130
    found = re.search(r"koco follow (\S+)", person.screen.replace("\r\n", ""))
    assert found is not None
    [row] = user("locks", "--node", address, "--json", "--no-lan").row["result"]
    assert row["fid"] in found[1]
    assert user("kill", f"{address}/{row['fid']}", "--no-lan").code == 0


def test_a_local_flow_runs_on_a_node_of_its_own(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with tempfile.TemporaryDirectory(prefix="kt-") as own:  # others leave and take away in the common one
        monkeypatch.setenv("TMPDIR", own)
        done = user("run", "./cli_flows.py:report", "topic=x", "--yes", "--out", str(out), "--json", cwd=FLOWS)
        assert done.code == 0, done.err
        assert [name for name in os.listdir(own) if name.startswith("koco-")] == []
    assert done.rows[-1]["final"]["result"] == "x True"
    assert (out / "report.md").exists()


GRAPH = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class Count(TypedDict):
    n: int

def counted(n: int):
    builder = StateGraph(Count)
    builder.add_node("more", lambda state: {"n": state["n"] + 1})
    builder.add_edge(START, "more")
    builder.add_edge("more", END)
    return builder.compile()
"""


def test_a_local_flow_in_yaml_runs_and_neither_it_nor_ray_calls_anybody(user: User, tmp_path: Path) -> None:
    folder = tmp_path / "y"
    folder.mkdir()
    (folder / "mine.py").write_text(GRAPH)
    (folder / "x.yaml").write_text("flow: {name: X, author: a@example.com, release: '1'}\nentry: mine:counted\n")
    with watched_place() as place:
        watched = User(user.home, place.prefix if place is not None else [])
        done = watched("run", "./x.yaml", "n=3", "--json", "--no-lan", cwd=folder)
        assert done.code == 0, done.err
        assert done.rows[-1]["final"]["result"] == {"n": 4}
        if place is None:
            return
        assert place.left == []
        calls = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))"
        subprocess.run([*place.prefix, sys.executable, "-c", calls], check=True)
        deadline = time.monotonic() + 10
        while not place.left and time.monotonic() < deadline:
            time.sleep(0.05)
        assert place.left == ["udp 192.0.2.1:53"], "what leaves is seen"


def test_the_registrys_file_is_backed_up_while_it_runs(node: Node, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    row = User(node["home"])("registry", "--backup", str(copy), "--json").row
    assert row == {"backup": str(copy), "bytes": copy.stat().st_size}
    refused = User(tmp_path / "empty")("registry", "--backup", str(copy), "--json")
    assert (refused.code, "no registry database" in refused.row["error"]["message"]) == (2, True)


def test_what_waits_and_what_has_ended_is_in_the_inbox_once(address: str, user: User) -> None:
    run = launched(user, address, "Report", "topic=x")
    fid = run.rpartition("/")[2]
    here = ("--node", address, "--no-lan")
    deadline = time.monotonic() + 60
    while not (row := user("inbox", *here, "--json", "--peek").row)["waiting"]:
        assert time.monotonic() < deadline, "no lock was opened"
    assert ([each["fid"] for each in row["waiting"]], row["ended"]) == ([fid], [])
    answer_by_default(user, run)
    assert user("follow", run, "--no-lan").code == 0
    first, again = (user("inbox", *here) for _ in range(2))
    assert (fid[-8:] in first.out, "nothing waits for you" in again.out) == (True, True)
    shown = user("outputs", run, "--show", "report.md", "--no-lan")
    assert (shown.code, shown.out) == (0, "# x: True \n")
    assert user("download", run, "report.md", "--out", "-", "--no-lan").out == "# x: True "
