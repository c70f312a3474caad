"""Rule 1: what a run takes and makes appears on the client and the node only."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.support.koco import koco_json, node

CANARY = "canary-5f0c1b7e93"


def files_with(text: str, folder: Path) -> set[str]:
    """Name the files below `folder`, relative to it, that hold `text`."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
    }


@pytest.mark.parametrize(("flow", "exit_code"), [("tell", 0), ("tell_in_task", 1)])
def test_an_input_is_in_no_log_and_at_no_registry(tmp_path: Path, flow: str, exit_code: int) -> None:
    home = tmp_path / "home"
    with node(home, "--with-registry", "--registry-port", "0") as running:
        [registry] = running.ready["registries"]
        events = koco_json(
            home, "run", f"tests.local/story.{flow}", f"secret={CANARY}", "--no-lan", exit_code=exit_code
        )
        texts = [str(event["data"]) for event in events if "data" in event]
        assert any("printed" in text and CANARY in text for text in texts), "the user sees what the flow printed"
        answers = [
            urllib.request.urlopen(f"{registry}{path}", timeout=10).read()
            for path in ("/nodes", "/flows", "/state", f"/nodes/{running.ready['peer_id']}")
        ]
        while_running = files_with(CANARY, home)
    assert any(b"tests.local" in answer for answer in answers)
    assert [answer for answer in answers if CANARY.encode() in answer] == []
    assert [line for line in running.stderr if CANARY in line] == []
    outside = {name for name in while_running if not name.startswith(("node.db", "outputs/"))}
    assert outside == set()
    outside = {name for name in files_with(CANARY, home) if not name.startswith(("node.db", "outputs/"))}
    assert outside == set()
