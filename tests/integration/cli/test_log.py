"""The log of a node in use, and its audit, as its operator reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import User

CONTENT = "zanzibar-7c1f"
"""Stands in a run's inputs, tags, events, result, and in what it raises."""


def test_the_log_tells_of_runs_and_administration_and_nothing_of_what_is_in_them(
    base: Path, node: dict[str, Any], address: str, user: User
) -> None:
    sender = user("id", "--json").row["user_peer_id"]
    done = user(
        "run", f"{address}/Report", f"topic={CONTENT}", "size=10", "--tag", CONTENT, "--yes", "--no-lan", "--json"
    )
    assert done.code == 0, done.err
    assert CONTENT in done.out
    fid = next(row["fid"] for row in done.rows if "fid" in row)
    operator = User(node["home"])
    assert operator("cleanup", "--json").code == 0
    log = (base / "up.err").read_text()
    told = [line.partition(" info: ")[2] for line in log.splitlines() if fid in line]
    assert [" ".join(line.split()[4:6]) for line in told] == ["launched by", "done after"]
    assert told[0].endswith(sender)
    assert CONTENT not in log
    own = operator("id", "--json").row["user_peer_id"]
    assert operator("audit", "--json", "--limit", "1").row | {"at": 0} == {
        "at": 0,
        "by": own,
        "what": "cleanup.run",
        "data": {},
    }
    assert f"cleanup.run by {own}" in log
    assert user("audit", "--node", address, "--no-lan").code != 0
