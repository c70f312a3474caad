"""`koco share`, `shares`, `unshare`, `get`: a user, a colleague and a stranger, each with a key of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import User

ALONE = ("--json", "--no-lan")


@pytest.fixture(scope="module")
def made_run(base: Path, address: str) -> tuple[User, str]:
    """A user, and NODE/FID of a run of theirs that is over."""
    user = User(base / "sharer")
    row = user("run", f"{address}/Report", "topic=bikes", "size=2000000", "--yes", "--keep", *ALONE).rows[-1]
    assert row["state"] == "done", row
    return user, f"{address}/{row['fid']}"


def test_a_link_downloads_one_run_straight_from_its_node(
    made_run: tuple[User, str], address: str, tmp_path: Path
) -> None:
    bob, eve = User(tmp_path / "bob"), User(tmp_path / "eve")
    user, run = made_run
    fid = run.rpartition("/")[2]
    made = user("share", run, "--downloads", "1", "--expires", "2h", *ALONE).row
    assert made["link"] == f"kodo:{made['token']}"
    assert made["fid"] == fid

    got = bob("get", made["link"], "--out", str(tmp_path / "out"), *ALONE)
    assert (got.code, got.row["fid"], got.row["bytes"]) == (0, fid, 2_000_000 + len("# bikes: True "))
    assert [file["name"] for file in got.row["files"]] == ["data/big.bin", "report.md"]
    assert (tmp_path / "out/data/big.bin").read_bytes() == b"x" * 2_000_000
    assert {"size", "sha256", "to"} <= got.row["files"][0].keys()

    late = eve("get", made["link"], "--out", str(tmp_path / "late"), *ALONE)
    assert (late.code, late.row["error"]["code"], late.row["error"]["reason"]) == (3, 410, "used-up")
    assert eve("state", run, *ALONE).code == 3
    assert eve("unshare", f"{address}/{made['sid']}", *ALONE).code == 3
    [row] = user("shares", run, *ALONE).row["result"]
    assert (row["sid"], row["state"], row["done"], row["downloads"]) == (made["sid"], "used-up", 1, 1)

    revoked = user("unshare", f"{address}/{made['sid']}", *ALONE).row
    assert revoked["revoked"] is True
    again = bob("get", made["link"], "--out", str(tmp_path / "again"), *ALONE)
    assert (again.code, again.row["error"]["reason"]) == (3, "revoked")
    for done in (late, again):
        assert made["token"] not in done.out + done.err


def test_a_link_below_files_gives_the_result_alone(made_run: tuple[User, str], tmp_path: Path) -> None:
    bob, (user, run) = User(tmp_path / "bob"), made_run
    link = user("share", run, "--level", "0", *ALONE).row["link"]
    got = bob("get", link, "--out", str(tmp_path / "out"), "--no-lan")
    assert (got.code, "not its files" in got.err, got.out.strip() != "") == (0, True, True), got
    assert not (tmp_path / "out").exists()


def test_a_run_shared_with_a_colleague_is_in_their_list(
    made_run: tuple[User, str], address: str, tmp_path: Path
) -> None:
    bob = User(tmp_path / "bob")
    peer = bob("id", "--json").row["user_peer_id"]
    user, run = made_run
    fid = run.rpartition("/")[2]
    made = user("share", run, "--to", peer, "--level", "0", *ALONE).row
    assert (made["link"], made["level"]) == (None, 0)
    [row] = bob("ps", "--node", address, *ALONE).row["result"]
    assert (row["fid"], row["own"], row["state"]) == (fid, False, "done")
    shown = [bob("ps", "--node", address, "--no-lan").out, user("ps", "--node", address, "--no-lan").out]
    assert ["WHOSE" in out.splitlines()[0] for out in shown] == [True, False]
    assert bob("outputs", run, *ALONE).code == 4
    assert bob("delete", run, *ALONE).code == 4


def test_what_is_no_link_and_no_time_is_told(address: str, user: User) -> None:
    done = user("get", "kodo:not-a-token", *ALONE)
    assert (done.code, done.row["error"]["reason"]) == (2, "usage")
    for never in ("soon", "0d", "9999999d"):
        done = user("share", f"{address}/{'0' * 26}", "--expires", never, *ALONE)
        assert (done.code, "such as 30m, 12h or 7d" in done.row["error"]["message"]) == (2, True)


def test_a_run_is_shared_with_nobody_whom_the_node_cannot_know(made_run: tuple[User, str]) -> None:
    user, run = made_run
    for whom, reason in (("ana", "no-such-user"), ("role:team", "no-such-role")):
        done = user("share", run, "--to", whom, *ALONE)
        assert (done.code, done.row["error"]["reason"]) == (3, reason)


def test_an_invitation_launches_a_flow_follows_it_and_fetches_what_it_made(
    made_run: tuple[User, str], address: str, tmp_path: Path
) -> None:
    user, run = made_run
    eve, bob = User(tmp_path / "eve"), User(tmp_path / "bob")
    made = user("invite", f"{address}/Report", "size=1000", "--launches", "1", "--note", "please", *ALONE).row
    link = made["link"]
    assert eve("get", link, *ALONE).row["error"]["reason"] == "usage"
    *events, end = eve("open", link, "topic=bikes", "--yes", "--out", str(tmp_path / "out"), *ALONE).rows
    assert (end["state"], {file["name"] for file in end["files"]}) == ("done", {"data/big.bin", "report.md"})
    assert (tmp_path / "out/data/big.bin").read_bytes() == b"x" * 1000
    assert [event["data"] for event in events if event["event"] == "inputs"] == [{"size": 1000, "topic": "bikes"}]
    late = bob("open", link, "topic=boats", *ALONE)
    assert (late.code, late.row["error"]["reason"]) == (3, "used-up")
    [shown] = bob("open", link, "--runs", *ALONE).row["result"]
    assert shown["fid"] == end["fid"] != run.rpartition("/")[2]
    assert eve("state", f"{address}/{end['fid']}", *ALONE).code == 3
    assert user("state", f"{address}/{end['fid']}", *ALONE).code == 3
    [row] = [
        each for each in user("invitations", "--node", address, *ALONE).row["result"] if each["sid"] == made["sid"]
    ]
    assert (row["launched"], row["state"], row["note"]) == (1, "used-up", "please")
    assert bob("unshare", f"{address}/{made['sid']}", *ALONE).code == 3
    assert user("unshare", f"{address}/{made['sid']}", *ALONE).row["revoked"] is True
    assert bob("open", link, "--runs", *ALONE).row["error"]["reason"] == "revoked"
