"""The node that runs from this home, as its note tells of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kodo.client.finders import HomeFinder, read_home_node
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr

PEER = Identity.from_seed(bytes(32)).peer_id
ADDRESS = Multiaddr.webrtc_direct("127.0.0.1", 4711, bytes(32)).with_peer(PEER)


def note(home: Path, **changes: object) -> None:
    value = {"pid": os.getpid(), "peer_id": str(PEER), "name": "n", "addrs": [str(ADDRESS)], **changes}
    (home / "node.json").write_text(json.dumps(value))


async def test_a_running_node_is_found_at_its_addresses(tmp_path: Path) -> None:
    note(tmp_path)
    [found] = await HomeFinder(tmp_path).find(None)
    assert (found.peer_id, found.name, found.addresses, found.source) == (PEER, "n", (ADDRESS,), "home")


async def test_without_a_note_nothing_is_found(tmp_path: Path) -> None:
    assert await HomeFinder(tmp_path).find(None) == []


def test_a_note_of_a_process_that_is_gone_counts_as_none(tmp_path: Path) -> None:
    process = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(process, 0)
    note(tmp_path, pid=process)
    assert read_home_node(tmp_path) is None


@pytest.mark.parametrize("changes", [{"peer_id": "x"}, {"addrs": ["/ip4/x"]}, {"addrs": 3}])
async def test_a_damaged_note_is_passed_over(tmp_path: Path, changes: dict[str, object]) -> None:
    note(tmp_path, **changes)
    assert await HomeFinder(tmp_path).find(None) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"pid": "x"}'])
def test_a_note_that_is_no_map_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    assert read_home_node(tmp_path) is None
