"""`koco doctor` finds what is wrong, and says what to do."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from kodo.p2p.core.identity import Identity
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from tests.support.koco import koco, koco_json


def test_a_fresh_home_is_well_and_a_key_that_others_may_read_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    [told] = koco_json(home, "doctor", "--no-lan")
    assert told["ok"] is True
    assert {"home", "disk", "clock", "port", "ray", "node"} <= {each["check"] for each in told["findings"]}
    koco_json(home, "id")
    (home / "user.key").chmod(0o644)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        variables = {"KODO_PORT": str(taken.getsockname()[1]), "KODO_HOST": "127.0.0.1"}
        variables |= {"KODO_REGISTRY": "http://127.0.0.1:9", "KODO_DISK_RESERVE": "1000TB"}
        done = koco(home, "doctor", "--no-lan", timeout=120, **variables)
    assert done.returncode == 1
    assert f"key: chmod 600 {home / 'user.key'}" in done.stdout
    for check in ("port: ", "registry: ", "disk: "):
        assert check in done.stdout, done.stdout


async def test_how_a_node_is_reached_is_said_address_by_address(tmp_path: Path) -> None:
    async with Host(Identity.from_seed(b"n" * 32), WebRtcTransport()) as node:
        [address] = await node.listen(["127.0.0.1"])
        where = f"{address}/p2p/{node.peer_id}" if address.peer_id is None else str(address)
        [told] = await asyncio.to_thread(koco_json, tmp_path, "doctor", "--no-lan", "--to", where)
        nobody = where.replace(f"/{address.port}/", "/9/")
        done = await asyncio.to_thread(koco, tmp_path, "doctor", "--no-lan", "--to", nobody)
    assert told["ok"] is True
    assert told["peer_id"] == str(node.peer_id)
    assert (told["session"]["route"], told["session"]["address"]) == ("lan", ["127.0.0.1", address.port])
    [way] = told["ways"]
    assert (way["answered"], way["seen_at"][0], way["refused"]) == (True, "127.0.0.1", None)
    assert done.returncode == 1
    assert "Connection refused" in done.stdout
    assert "no session: nobody listens at 127.0.0.1 port 9" in done.stdout
